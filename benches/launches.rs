//! What the host spends on telling a GPU what to do in a step: launches of RoBERTa-large by method, how
//! many, and how long it takes to make their lists (the driver's own time is not in it). Needs no GPU.
//!
//! `cargo bench --profile dev --bench launches`

use std::path::Path;
use std::time::Instant;

use peftc::cli::world::RealWorld;
use peftc::driver::compile;
use peftc::program::op::Machine;
use peftc::program::together::launches;
use peftc::program::{Bindings, device::Device};

const ON: &str = "{attention.{query, key, value, output}, ffn.{up, down}}";

fn main() {
    let methods = [
        "adapter = full".to_owned(),
        format!("adapter = lora {{ rank = 4, on = {ON} }}"),
        format!("adapter = siva {{ rank = 4, on = {ON} }}"),
        "adapter = last_n { n = 3 }".to_owned(),
        "adapter = bitfit".to_owned(),
        "adapter = k_lst { k = 9, r = 8 }, features = 0B".to_owned(),
    ];
    let dir = tempfile::tempdir().expect("a folder");
    let here = env!("CARGO_MANIFEST_DIR");
    let config = Path::new(here).join("recipes/report/roberta-large.json");
    std::fs::copy(config, dir.path().join("config.json")).expect("copied");
    println!(
        "{:<28} {:>6} {:>8} {:>9} {:>9}",
        "step of 16 × 26 tokens", "nodes", "launches", "fused", "ms"
    );
    for numbers in [
        "precision = f32",
        "precision = bf16, dtype = bf16, activations = bf16",
    ] {
        println!("{numbers}");
        for method in &methods {
            let text = format!(
                "model m = local \"{}\" {{ init = random, tokenizer = \"{here}/recipes/reviews-mini\", {numbers} }}\n\
                 data d = local \"{here}/recipes/reviews\" {{ text = sentence, label = label, take = 160 }}\n\
                 stage s = train {{ model = m, data = d.train, {method}, lr = 1e-3, steps = 4 }}\n",
                dir.path().display()
            );
            let path = dir.path().join("r.peft");
            std::fs::write(&path, text).expect("written");
            let machine = Machine::cpu(2).on(Device::Cuda(None));
            let compiled = compile(&path, &[], &RealWorld::new(true), &machine);
            let said: Vec<&str> = compiled.diags.iter().map(|d| d.message.as_str()).collect();
            let plan = compiled.plan.unwrap_or_else(|| panic!("{said:?}"));
            let step = plan.stages[0].job.programs()[0];
            let (program, schedule) = (step.program(), step.schedule());
            let sizes = Bindings::of_lengths([26; 16]);
            let mut times = Vec::new();
            let mut count = 0;
            for _ in 0..21 {
                let begun = Instant::now();
                let lists = schedule.groups.iter().map(|group| {
                    let list = launches(program, &schedule.steps, group.clone(), &sizes);
                    list.expect("kernels").list.len()
                });
                count = lists.sum();
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            times.sort_by(f64::total_cmp);
            let fused = program.nodes.len() - schedule.groups.len();
            println!(
                "  {:<26} {:>6} {count:>8} {fused:>9} {:>9.2}",
                method.split(['{', ',']).next().unwrap_or_default(),
                program.nodes.len(),
                times[times.len() / 2]
            );
        }
    }
}
