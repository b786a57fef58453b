//! Compiled plans of the shipped recipes, on a fixed machine: stages, memory and the op-level
//! programs. Reviewed like code; `INSTA_UPDATE=always cargo test golden` writes them anew.

use std::path::Path;

use peftc::base::units::About;
use peftc::cli::world::RealWorld;
use peftc::driver::compile;
use peftc::plan::render;
use peftc::program::device::{Card, Device};
use peftc::program::op::Machine;
use peftc::program::print::print;
use peftc::program::rates::Rates;

#[test]
fn shipped_recipes_compile_to_their_golden_plans() {
    let machine = Machine::cpu(2);
    let world = RealWorld::new(true);
    let recipes = [
        "quickstart",
        "chat",
        "reviews/full",
        "reviews/last_1",
        "reviews/bitfit",
        "reviews/siva",
        "reviews/head_only",
        "reviews/compare",
        "reviews/pretrained_lst",
        "reviews/choose_prompt",
        "reviews/pet",
        "reviews/ipet",
    ];
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for name in recipes {
            let compiled = compile(
                Path::new(&format!("recipes/{name}.peft")),
                &[],
                &world,
                &machine,
            );
            let plan = compiled
                .plan
                .unwrap_or_else(|| panic!("{name} is rejected: {:?}", compiled.diags));
            let file = name.replace('/', "_");
            insta::assert_snapshot!(format!("plan_{file}"), render::text(&plan, name));
            if matches!(name, "quickstart" | "reviews/head_only" | "reviews/last_1") {
                let program = plan.stages[0].job.programs()[0].program();
                insta::assert_snapshot!(format!("program_{file}"), print(program));
            }
        }
    });
}

#[test]
fn a_plan_for_a_card_is_the_same_on_every_machine() {
    let card = Card::named("rtx3070-8gb").expect("a row");
    let machine = Machine::cpu(2).on(Device::Cuda(Some(card)));
    let path = Path::new("recipes/reviews/siva.peft");
    let compiled = compile(path, &[], &RealWorld::new(true), &machine);
    let plan = compiled.plan.expect("a plan");
    let times: Vec<String> = plan
        .stages
        .iter()
        .map(|s| {
            let told = s.seconds(&Rates::default(), &machine);
            let text = told.map_or_else(|| "none".to_owned(), |t| About(t).to_string());
            format!("{} {text}", s.name.value)
        })
        .collect();
    let text = render::text(&plan, "reviews/siva");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        let text = format!("{text}\ntimes by the data sheet: {}\n", times.join(", "));
        insta::assert_snapshot!("plan_reviews_siva_on_rtx3070", text);
    });
}

#[test]
fn lora_differentiates_no_frozen_matrix_and_nothing_below_the_first_trained_tensor() {
    let machine = Machine::cpu(2);
    let world = RealWorld::new(true);
    let text = |name: &str| {
        let compiled = compile(
            Path::new(&format!("recipes/{name}.peft")),
            &[],
            &world,
            &machine,
        );
        let plan = compiled
            .plan
            .unwrap_or_else(|| panic!("{name} is rejected"));
        let job = &plan.stages[0].job;
        let program = job.programs()[0].program().clone();
        (
            program,
            job.params
                .iter()
                .filter(|p| p.trainable)
                .map(|p| p.name.clone())
                .collect::<Vec<_>>(),
        )
    };
    let (program, trained) = text("quickstart");
    // Gradients belong to trained tensors, one each, and no product has the shape of a frozen matrix.
    assert_eq!(program.gradients.len(), trained.len());
    let mut seen = 0;
    for node in program
        .nodes
        .iter()
        .filter(|n| n.phase == peftc::program::Phase::Backward)
    {
        let own = format!("{}.weight", program.labels[node.label as usize]);
        let Some(frozen) = program
            .residents
            .iter()
            .find(|r| r.name == own && !trained.contains(&own))
        else {
            continue;
        };
        seen += 1;
        for &out in &node.outputs {
            assert_ne!(
                program.ty(out),
                &frozen.ty,
                "{own} is frozen, but its gradient is made"
            );
        }
    }
    assert!(seen > 20, "{seen}");
    let (program, _) = text("reviews/last_1");
    for node in program
        .nodes
        .iter()
        .filter(|n| n.phase == peftc::program::Phase::Backward)
    {
        let label = &program.labels[node.label as usize];
        assert!(
            !label.contains("layer.0.")
                && !label.contains("layer.1.")
                && !label.contains("embeddings"),
            "{label} is differentiated"
        );
    }
}
