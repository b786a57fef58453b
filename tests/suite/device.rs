//! Plans for cards, made where there is none: memory by line, what fits, what is refused.

use std::path::{Path, PathBuf};
use std::process::Output;

use peftc::cli::world::RealWorld;
use peftc::driver::compile;
use peftc::exec::run::budget::fits_device;
use peftc::plan::estimate::Residence;
use peftc::program::device::{Card, Device};
use peftc::program::op::Machine;
use serde_json::Value;

use super::support::{here, printed, program, stderr_of, stdout_of};

fn peftc(args: &[&str]) -> Output {
    let no_cache = tempfile::tempdir().expect("a scratch directory");
    program()
        .env("HF_HOME", no_cache.path())
        .args(args)
        .output()
        .expect("starts")
}

fn check(path: &Path, args: &[&str]) -> (Option<i32>, Value) {
    let path = path.to_string_lossy();
    let all = [&["check", "--json", "--quiet", "--offline"], args, &[&path]].concat();
    let output = peftc(&all);
    let json: Value = printed(&output);
    (output.status.code(), json["recipes"][0].clone())
}

/// A recipe over RoBERTa-large and texts of 512 tokens.
fn large(dir: &Path, model: &str, stage: &str) -> PathBuf {
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = hub \"FacebookAI/roberta-large\" {{ config = \"{at}/recipes/report/roberta-large.json\"{model} }}\n\
         data d = hub \"nyu-mll/glue\" {{ config = \"sst2\", text = sentence, label = label, labels = [negative, positive] }}\n\
         stage s = train {{ model = m, data = d.train, lr = 1e-4, steps = 10, {stage} }}\n"
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, text).expect("written");
    path
}

fn bytes(json: &Value, key: &str) -> u64 {
    json[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} in {json}"))
}

const QUICKSTART: &str = "recipes/quickstart.peft";

#[test]
fn the_lines_of_a_card_sum_up_and_are_held_against_what_its_driver_leaves() {
    let (code, recipe) = check(Path::new(QUICKSTART), &["--device", "rtx3070-8gb"]);
    assert_eq!(code, Some(0));
    assert_eq!(recipe["fits"], true);
    assert_eq!(recipe["budget_bytes"], Value::Null);
    let card = &recipe["device"];
    assert_eq!(card["name"], "rtx3070-8gb");
    assert_eq!(bytes(card, "memory_bytes"), 8 << 30);
    assert!(bytes(card, "available_bytes") < 8 << 30);
    let stage = &recipe["stages"][0];
    assert_eq!(stage["device"], "rtx3070-8gb");
    assert_eq!(stage["estimated_s_from"], "data_sheet");
    assert!(stage["estimated_s"].as_f64() > Some(0.0));
    let memory = &stage["memory"];
    let classes = [
        "frozen_weights",
        "trainable_weights",
        "gradients",
        "optimizer",
        "activations",
        "transient",
        "workspace",
    ];
    let peak: u64 = classes.iter().map(|c| bytes(memory, c)).sum();
    assert_eq!(peak, bytes(memory, "peak"));
    let own = &memory["device"];
    let beside = ["pool_granularity", "cublas_workspace", "context", "modules"];
    let all: u64 = peak + beside.iter().map(|l| bytes(own, l)).sum::<u64>();
    assert_eq!(all, bytes(own, "total"));
    assert_eq!(bytes(&recipe, "device_bytes"), all);
    // The same programs on the processor hold the same tensors.
    let (_, host) = check(Path::new(QUICKSTART), &[]);
    let there = &host["stages"][0]["memory"];
    for class in ["frozen_weights", "trainable_weights", "optimizer"] {
        assert_eq!(memory[class], there[class], "{class}");
    }
    assert_eq!(
        (&there["device"], &host["device"]),
        (&Value::Null, &Value::Null)
    );
    // A budget below the card's memory counts, one above does not.
    let budget = |size| {
        check(
            Path::new(QUICKSTART),
            &["--device", "rtx3070-8gb", "--budget", size],
        )
    };
    assert_eq!(budget("400MiB").0, Some(3));
    assert_eq!(budget("100GiB").1["fits"], true);
}

#[test]
fn a_card_that_is_too_small_is_told_and_a_fit_is_found() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = large(
        dir.path(),
        "",
        "adapter = full, batch = 64, max_length = 512",
    );
    let (code, recipe) = check(&path, &["--device", "rtx4090-24gb"]);
    assert_eq!((code, &recipe["fits"]), (Some(3), &Value::Bool(false)));
    let (code, _) = check(&path, &["--device", "h200-141gb"]);
    assert_eq!(code, Some(0));
    let text = path.to_string_lossy();
    let solve = [
        "check",
        "--quiet",
        "--offline",
        "--solve",
        "micro_batch",
        "--device",
        "rtx4090-24gb",
        &text,
    ];
    let output = peftc(&solve);
    let said = stdout_of(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.starts_with("s: micro_batch = "), "{said}");
    let output = peftc(&["check", "--quiet", "--offline", "--solve", "batch", &text]);
    assert_eq!(output.status.code(), Some(2));
    let path = large(
        dir.path(),
        "",
        "adapter = full, batch = 64, max_length = 512, fit = auto",
    );
    let (code, recipe) = check(&path, &["--device", "rtx4090-24gb"]);
    assert_eq!((code, &recipe["fits"]), (Some(0), &Value::Bool(true)));
    let stage = &recipe["stages"][0];
    assert!(bytes(stage, "micro_batch") < 64 || bytes(stage, "recompute_blocks") > 0);
}

#[test]
fn what_stays_on_the_device_takes_nothing_of_the_host() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let of = |adapter| {
        let stage = format!("adapter = {adapter}, max_length = 64");
        let path = large(dir.path(), "", &stage);
        let (_, recipe) = check(&path, &["--device", "a100-80gb"]);
        let memory = &recipe["stages"][0]["memory"];
        (bytes(memory, "host"), bytes(memory, "frozen_weights"))
    };
    let ((lora, frozen), (full, _)) = (of("lora"), of("full"));
    // Of the frozen weights the largest table alone, on its way.
    assert!(
        lora < frozen / 2 + (256 << 20) && full > frozen,
        "{lora} {full} {frozen}"
    );
}

#[test]
fn half_the_width_takes_half_the_memory() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let lora = "adapter = lora, max_length = 64";
    let of = |dtype| {
        let path = large(dir.path(), dtype, lora);
        let (_, recipe) = check(&path, &["--device", "t4-16gb"]);
        bytes(&recipe["stages"][0]["memory"], "frozen_weights")
    };
    let (whole, half) = (of(""), of(", dtype = bf16"));
    assert!(
        (2 * half).abs_diff(whole) * 100 < whole,
        "{half} of {whole}"
    );
}

#[test]
fn what_the_host_does_stays_with_the_host() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 400 }}\n\
         stage s = train {{ model = m, data = d.train, adapter = siva, lr = 1e-3, steps = 3 }}\n\
         stage f = merge {{ from = s }}\n"
    );
    let path = dir.path().join("r.peft");
    std::fs::write(&path, text).expect("written");
    let (code, recipe) = check(&path, &["--device", "l4-24gb"]);
    assert_eq!(code, Some(0));
    let (learn, fold) = (&recipe["stages"][0], &recipe["stages"][1]);
    assert_eq!(
        (&learn["device"], &fold["device"]),
        (&"l4-24gb".into(), &"cpu".into())
    );
    assert_eq!(fold["memory"]["device"], Value::Null);
    assert!(
        !learn["memory"]["peak_op"]
            .as_str()
            .expect("a text")
            .contains("decomposition")
    );
    assert!(bytes(&learn["memory"], "host") > 256 << 20);
    let (_, cpu) = check(&path, &[]);
    assert_eq!(fold["memory"], cpu["stages"][1]["memory"]);
}

#[test]
fn devices_are_listed_explained_and_their_names_mended() {
    let text = |args: &[&str]| {
        let output = peftc(args);
        let both = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(both).expect("text"))
    };
    let (code, list) = text(&["list", "devices"]);
    assert_eq!(code, Some(0));
    for name in [
        "rtx2060-6gb",
        "rtx5090-32gb",
        "t4-16gb",
        "v100-32gb",
        "a100-80gb",
        "h200-141gb",
        "b200-180gb",
    ] {
        assert!(list.contains(&format!("\n{name} ")), "{name}");
        let (code, own) = text(&["explain", name]);
        assert!(
            code == Some(0) && own.starts_with(&format!("{name} (device)")),
            "{own}"
        );
    }
    let (code, json) = text(&["list", "devices", "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(code, Some(0));
    assert_eq!(
        json["devices"].as_array().map(Vec::len),
        Some(list.lines().count() - 2)
    );
    let (code, said) = text(&["check", "--device", "rtx3070-8g", QUICKSTART]);
    assert!(
        code == Some(2) && said.contains("did you mean `rtx3070-8gb`"),
        "{said}"
    );
    let (code, said) = text(&["run", "--device", "rtx3070-8gb", QUICKSTART]);
    assert!(code == Some(2) && said.contains("to plan for"), "{said}");
    let (code, said) = text(&["run", "--device", "cuda:x", QUICKSTART]);
    assert!(
        code == Some(2) && said.contains("there is no device"),
        "{said}"
    );
    // Whatever is missing on this machine, a GPU of this number is.
    let (code, said) = text(&["run", "--device", "cuda:77", QUICKSTART]);
    assert!(
        code == Some(2)
            && (said.contains("not found")
                || said.contains("no GPU 77")
                || said.contains("no NVIDIA GPU")),
        "{said}"
    );
}

#[test]
fn a_plan_over_the_free_memory_is_refused_before_anything_is_sent() {
    let card = Card::named("rtx3070-8gb").expect("a row");
    let machine = Machine::cpu(2).on(Device::Cuda(Some(card)));
    let compiled = compile(Path::new(QUICKSTART), &[], &RealWorld::new(true), &machine);
    let plan = compiled.plan.expect("a plan");
    let needs = plan.stages.iter().map(|s| match s.estimate.residence {
        Residence::Device(o) => s.estimate.needs() - o.context,
        Residence::Cpu | Residence::Host => panic!("both stages run on the device"),
    });
    let needs = needs.max().expect("stages");
    assert!(fits_device(&plan.stages, needs).is_ok());
    let refused = fits_device(&plan.stages, needs - 1).expect_err("too little");
    assert_eq!(refused.exit_code(), 3);
    let said = refused.to_string();
    assert!(
        said.contains("`learn`") && said.contains("attention_grad"),
        "{said}"
    );
}

#[test]
fn products_in_other_numbers_are_planned_for_the_cards_that_have_them() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let of = |precision: &str, card: &str| {
        let model = format!(", precision = {precision}");
        let path = large(dir.path(), &model, "adapter = lora, max_length = 64");
        let (code, recipe) = check(&path, &["--device", card]);
        let codes: Vec<String> = recipe["diagnostics"]
            .as_array()
            .expect("diagnostics")
            .iter()
            .map(|d| d["code"].to_string())
            .collect();
        let stage = &recipe["stages"][0];
        let said = codes.iter().any(|c| c.contains("no_tf32"));
        let seconds = stage["estimated_s"].as_f64().expect("a time");
        (code, said, seconds)
    };
    let a100 = ["f32", "tf32", "bf16"].map(|p| of(p, "a100-80gb"));
    let t4 = ["f32", "tf32"].map(|p| of(p, "t4-16gb"));
    let cpu = of_cpu(dir.path());
    assert!(a100.iter().chain(&t4).all(|(code, ..)| *code == Some(0)));
    assert_eq!(a100.each_ref().map(|x| x.1), [false; 3]);
    assert_eq!((t4[0].1, t4[1].1, cpu), (false, true, true));
    assert!(a100[0].2 > 1.5 * a100[1].2 && a100[1].2 > a100[2].2);
    assert_eq!(t4[0].2, t4[1].2);
}

/// Whether a plan for the processor says that TF32 is not there.
fn of_cpu(dir: &Path) -> bool {
    let path = large(dir, ", precision = tf32", "adapter = lora, max_length = 64");
    let output = peftc(&["check", "--offline", &path.to_string_lossy()]);
    stderr_of(&output).contains("the processor has no TF32")
}

#[test]
fn what_has_no_kernel_is_refused_while_nothing_has_run() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/tests/cases/files/wide_heads\" {{ init = random, tokenizer = \"{at}/tests/reference/bert-tiny\" }}\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 64 }}\n\
         stage s = train {{ model = m, data = d.train, adapter = bitfit, lr = 1e-3, steps = 2 }}\n"
    );
    let path = dir.path().join("r.peft");
    std::fs::write(&path, text).expect("written");
    let file = path.to_string_lossy();
    let said = |command: &str| {
        let output = peftc(&[command, "--quiet", "--device", "l4-24gb", &file]);
        let said = stderr_of(&output);
        (output.status.code(), said)
    };
    for command in ["check", "plan"] {
        let (code, said) = said(command);
        assert_eq!(code, Some(2), "{said}");
        for part in [
            "stage `s` cannot run on a GPU",
            "heads are 320 wide",
            "the model `m` needs it, at `bert.encoder.layer.0",
            "--device cpu",
        ] {
            assert!(said.contains(part), "`{part}` in {said}");
        }
    }
    // As it advises: the stage runs on the processor, and what is finished stands in nobody's way.
    assert_eq!(peftc(&["run", "--quiet", &file]).status.code(), Some(0));
    let (code, said) = said("check");
    assert_eq!(code, Some(0), "{said}");
}
