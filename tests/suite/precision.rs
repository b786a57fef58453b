//! Products in bf16: near those in f32, the same bits at any number of threads, and memory as announced.

use std::path::Path;

use peftc::program::format::FORMATS;
use serde_json::Value;

use super::support::{here, printed, program, stderr_of};

/// Trains and gives the losses, the scores and the result.
fn run(dir: &Path, model: &str, stage: &str, threads: &str) -> (Vec<f64>, Value) {
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/tests/reference/roberta-tiny\" {{ {model} }}\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 160 }}\n\
         stage s = {stage}, model = m, data = d.train, dev = d.dev, lr = 1e-3, steps = 20 }}\n"
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, text).expect("written");
    let output = program()
        .args(["run", "--quiet", "--json", "--fresh", "--threads", threads])
        .arg(&path)
        .output()
        .expect("starts");
    let said = stderr_of(&output);
    assert!(output.status.success(), "{model} {stage}: {said}");
    let log = std::fs::read_to_string(dir.join(".peftc/runs/r/s/metrics.jsonl")).expect("a log");
    let losses = log.lines().map(|l| {
        let line: Value = serde_json::from_str(l).expect("JSON");
        line["loss"].as_f64().expect("a loss")
    });
    let result: Value = printed(&output);
    (losses.collect(), result["stages"][0].clone())
}

#[test]
fn bf16_products_are_near_f32s_and_the_same_at_any_number_of_threads() {
    for stage in [
        "train { adapter = full",
        "train { adapter = lora { rank = 4 }, micro_batch = 5",
        "train { adapter = k_lst { k = 3, r = 4 }",
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let (plain, _) = run(dir.path(), "precision = f32", stage, "2");
        for model in ["precision = bf16", "precision = bf16, dtype = bf16"] {
            let (losses, result) = run(dir.path(), model, stage, "2");
            assert_ne!(losses, plain, "{model} {stage}: nothing was rounded");
            for (a, b) in losses.iter().zip(&plain) {
                assert!((a - b).abs() < 2e-2 * b, "{model} {stage}: {a} against {b}");
            }
            let (again, _) = run(dir.path(), model, stage, "1");
            assert_eq!(losses, again, "{model} {stage}: threads change the losses");
            let bytes = |key: &str| result[key].as_f64().expect("bytes");
            let ratio = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
            assert!((0.98..=1.0).contains(&ratio), "{model} {stage}: {ratio}");
        }
    }
}

#[test]
fn activations_in_16_bits_are_near_f32s_in_less_memory() {
    for stage in [
        "train { adapter = full",
        "train { adapter = siva { rank = 4, on = {attention.*, ffn.*} }, micro_batch = 5",
        "train { adapter = k_lst { k = 3, r = 4 }",
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let (plain, wide) = run(dir.path(), "activations = f32", stage, "2");
        let norms = |dir: &Path| -> Vec<f64> {
            let log = dir.join(".peftc/runs/r/s/metrics.jsonl");
            let log = std::fs::read_to_string(log).expect("a log");
            let lines = log.lines().map(|l| {
                let line: Value = serde_json::from_str(l).expect("JSON");
                line["grad_norm"].as_f64().expect("a norm")
            });
            lines.collect()
        };
        let expected = norms(dir.path());
        let bytes = |result: &Value, key: &str| result[key].as_f64().expect("bytes");
        for (model, near) in [
            ("activations = f16", 5e-3),
            ("activations = bf16", 2e-2),
            ("activations = bf16, precision = bf16, dtype = bf16", 2e-2),
        ] {
            let (losses, result) = run(dir.path(), model, stage, "2");
            assert_ne!(losses, plain, "{model} {stage}: nothing was rounded");
            for (a, b) in losses.iter().zip(&plain) {
                assert!((a - b).abs() < near * b, "{model} {stage}: {a} against {b}");
            }
            // The first gradient is of the same weights.
            let (a, b) = (norms(dir.path())[0], expected[0]);
            assert!((a - b).abs() < near * b, "{model} {stage}: {a} against {b}");
            let (again, _) = run(dir.path(), model, stage, "1");
            assert_eq!(losses, again, "{model} {stage}: threads change the losses");
            let ratio =
                bytes(&result, "measured_peak_bytes") / bytes(&result, "estimated_peak_bytes");
            assert!((0.98..=1.0).contains(&ratio), "{model} {stage}: {ratio}");
            let less = bytes(&result, "measured_peak_bytes") / bytes(&wide, "measured_peak_bytes");
            assert!(less < 0.9, "{model} {stage}: {less} of the memory");
        }
    }
}

#[test]
fn kept_features_in_16_bits_change_no_bit() {
    let stage =
        |more: &str| format!("train {{ adapter = k_lst {{ k = 3, r = 4 }}, batch = 40, {more}");
    for model in ["activations = bf16", "activations = f16"] {
        let dir = tempfile::tempdir().expect("a directory");
        let (plain, _) = run(dir.path(), model, &stage("features = 0B"), "2");
        // All of them kept, and a part.
        for bound in ["1GiB", "900KiB"] {
            let dir = tempfile::tempdir().expect("a directory");
            let more = format!("features = {bound}");
            let (kept, result) = run(dir.path(), model, &stage(&more), "2");
            assert_eq!(kept, plain, "{model} {bound}");
            let files = std::fs::read_dir(dir.path().join(".peftc/store/features"));
            let sets: Vec<_> = files.expect("kept").flatten().collect();
            let held = if model.ends_with("bf16") {
                "bf16"
            } else {
                "f16"
            };
            let rows = sets.iter().filter(|e| e.path().is_dir()).any(|set| {
                let own = std::fs::read_dir(set.path()).expect("a set").flatten();
                own.into_iter()
                    .any(|f| f.path().extension().is_some_and(|e| e == held))
            });
            assert!(rows, "{model} {bound}: no rows in {held}");
            let bytes = |key: &str| result[key].as_f64().expect("bytes");
            let ratio = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
            assert!((0.9..=1.0).contains(&ratio), "{model} {bound}: {ratio}");
        }
    }
}

#[test]
fn adapters_on_narrow_weights_are_trained_scored_and_merged() {
    let here = here();
    let at = here.display();
    for (adapter, merges) in [
        ("lora { rank = 4, on = {attention.*, ffn.*} }", true),
        ("siva { rank = 4, on = {attention.query, ffn.up} }", true),
        (
            "siva { rank = 4, decomposition = 20, on = {attention.query, ffn.up} }",
            true,
        ),
        ("houlsby { size = 8 }", false),
        ("dora { rank = 4, on = {attention.*, ffn.*} }", true),
        ("vera { rank = 8, on = {attention.*, ffn.*} }", true),
        ("k_lst { k = 3, r = 4 }", false),
        ("last_n { n = 1 }", false),
    ] {
        // Those that a recipe may choose and whose blocks fit into these rows.
        let blocks = FORMATS
            .iter()
            .filter(|f| f.encode().is_some() && f.numbers() <= 64);
        let blocks = blocks.map(|f| (f.name(), "bf16"));
        let halves = [("bf16", "f16"), ("f16", "f32")];
        for (dtype, to) in halves.into_iter().chain(blocks) {
            let dir = tempfile::tempdir().expect("a directory");
            let merge = if merges {
                format!(
                    "stage two = merge {{ from = one, dtype = {to} }}\nstage three = eval {{ from = two, data = d.dev }}\n"
                )
            } else {
                String::new()
            };
            let text = format!(
                "model m = local \"{at}/tests/reference/bert-tiny\" {{ dtype = {dtype} }}\n\
                 data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 80 }}\n\
                 stage one = train {{ model = m, data = d.train, adapter = {adapter}, lr = 1e-3, steps = 4, dev = d.dev }}\n\
                 stage plain = eval {{ from = one, data = d.dev }}\n{merge}"
            );
            let path = dir.path().join("r.peft");
            std::fs::write(&path, text).expect("written");
            let output = program()
                .args(["run", "--quiet", "--json", "--fresh"])
                .arg(&path)
                .output()
                .expect("starts");
            let said = stderr_of(&output);
            assert!(output.status.success(), "{adapter} {dtype}: {said}");
            let result: Value = printed(&output);
            let stages = result["stages"].as_array().expect("stages");
            let loss = |name: &str| {
                let stage = stages.iter().find(|s| s["name"] == name).expect("a stage");
                stage["loss_last"].as_f64().expect("a loss")
            };
            if merges {
                let (plain, merged) = (loss("plain"), loss("three"));
                assert!(
                    (plain - merged).abs() < 1e-2,
                    "{adapter} {dtype}: {plain} {merged}"
                );
            }
            for stage in stages {
                let bytes = |key: &str| stage[key].as_f64().expect("bytes");
                let ratio = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
                assert!(
                    (0.9..=1.0).contains(&ratio),
                    "{adapter} {dtype} {}: {ratio}",
                    stage["name"]
                );
            }
        }
    }
}
