//! Methods that take part in a whole step: budgets, gates, ranks that are drawn, rates of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::tensor::{self, Tensor};

fn peftc() -> Command {
    Command::new(env!("CARGO_BIN_EXE_peftc"))
}

fn recipe(dir: &Path, adapter: &str, more: &str) -> PathBuf {
    let here = std::env::current_dir().expect("a working directory");
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 200 }}\n\
         stage s = train {{ model = m, data = d.train, adapter = {adapter}, lr = 2e-3, batch = 8, max_length = 24{more} }}\n"
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, text).expect("written");
    path
}

fn run(path: &Path) {
    let output = peftc()
        .args(["run", "--quiet"])
        .arg(path)
        .output()
        .expect("starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// The adapter's file.
fn adapter(dir: &Path) -> PathBuf {
    let store = std::fs::read_dir(dir.join(".peftc/store")).expect("a store");
    let mut found = store
        .flatten()
        .map(|e| e.path().join("adapter/peftc.safetensors"))
        .filter(|p| p.exists());
    found.next().expect("an adapter")
}

fn tensors(dir: &Path) -> Vec<(String, Tensor)> {
    let all = tensor::load(adapter(dir));
    let mut all: Vec<(String, Tensor)> = all.into_iter().collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn losses(dir: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(dir.join(".peftc/runs/r/s/metrics.jsonl")).expect("a log");
    let loss = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        line["loss"].as_f64().expect("a loss")
    };
    text.lines().map(loss).collect()
}

/// As a recipe writes them, each with something that lasts from step to step or is drawn for it.
const STEPPING: &[&str] = &[
    "adalora { init_rank = 4, target_rank = 2, tinit = 3, tfinal = 4, delta_t = 2 }",
    "sora { rank = 4, threshold = 1e-2, l1 = 1 }",
    "dylora { rank = 6 }",
    "loha { rank = 2, rank_dropout = 0.3, module_dropout = 0.2 }",
];

#[test]
fn a_killed_run_goes_on_with_the_same_bits_in_micro_batches_too() {
    let more = ", steps = 24, micro_batch = 3";
    for method in STEPPING {
        let whole = tempfile::tempdir().expect("a scratch directory");
        let path = recipe(whole.path(), method, more);
        let begun = Instant::now();
        run(&path);
        let took = begun.elapsed();
        let killed = tempfile::tempdir().expect("a scratch directory");
        let path = recipe(killed.path(), method, more);
        for part in [3, 5] {
            let mut child = peftc()
                .args(["run", "--quiet", "--checkpoint-every", "0"])
                .arg(&path)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("starts");
            std::thread::sleep(
                took.mul_f64(0.15 * f64::from(part))
                    .max(Duration::from_millis(50)),
            );
            child.kill().expect("killed or over");
            child.wait().expect("waits");
        }
        run(&path);
        let same = std::fs::read(adapter(whole.path())).expect("an adapter")
            == std::fs::read(adapter(killed.path())).expect("an adapter");
        assert!(same, "{method}");
        assert_eq!(losses(whole.path()), losses(killed.path()), "{method}");
    }
}

#[test]
fn micro_batches_add_up_to_the_batch_with_what_methods_add() {
    for method in STEPPING {
        let of = |more: &str| {
            let dir = tempfile::tempdir().expect("a scratch directory");
            run(&recipe(dir.path(), method, &format!(", steps = 12{more}")));
            losses(dir.path())
        };
        for (a, b) in of("").iter().zip(of(", micro_batch = 3")) {
            assert!((a - b).abs() < 2e-5, "{method}: {a} against {b}");
        }
    }
}

#[test]
fn as_many_triplets_are_left_as_the_budget_says() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    run(&recipe(dir.path(), STEPPING[0], ", steps = 12"));
    let all = tensors(dir.path());
    let values = all.iter().filter(|(name, _)| name.ends_with("lora_E"));
    let values: Vec<f32> = values.flat_map(|(_, e)| e.numbers()).copied().collect();
    let left = values.iter().filter(|x| **x != 0.0).count();
    assert_eq!((left * 2, values.len() % 4), (values.len(), 0));
}

#[test]
fn gates_close_and_the_two_readings_differ() {
    let gates = |prox: &str| -> Vec<f32> {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let method = format!("sora {{ rank = 8, threshold = 0.05, l1 = 0, prox = {prox} }}");
        run(&recipe(dir.path(), &method, ", steps = 12"));
        let all = tensors(dir.path());
        let gates = all.iter().filter(|(name, _)| name.ends_with("sora_gate"));
        gates
            .flat_map(|(_, gate)| gate.numbers())
            .copied()
            .collect()
    };
    let (soft, reference) = (gates("soft"), gates("reference"));
    let closed = |gates: &[f32]| gates.iter().filter(|x| **x == 0.0).count();
    assert!(closed(&soft) > 0 && closed(&reference) >= closed(&soft));
    let smallest = |gates: &[f32]| {
        let open = gates.iter().map(|x| x.abs()).filter(|x| *x > 0.0);
        open.fold(f32::INFINITY, f32::min)
    };
    assert!(smallest(&reference) >= 0.05, "{}", smallest(&reference));
    assert!(smallest(&soft) < 0.05, "{}", smallest(&soft));
}

#[test]
fn a_step_of_dylora_trains_the_last_of_its_ranks_alone() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    run(&recipe(dir.path(), "dylora { rank = 5 }", ", steps = 1"));
    for (name, b) in tensors(dir.path()) {
        if name.ends_with("dylora_B") {
            let rows: Vec<Vec<f32>> = b.to_vec2().expect("a matrix");
            let moved: Vec<usize> = (0..5)
                .filter(|&k| rows.iter().any(|row| row[k] != 0.0))
                .collect();
            assert_eq!(moved.len(), 1, "{name}: {moved:?}");
        }
    }
}

#[test]
fn groups_of_rates_are_counted_and_act() {
    let plan = |method: &str| -> Value {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = recipe(dir.path(), method, ", steps = 1");
        let output = peftc()
            .args(["plan", "--json"])
            .arg(path)
            .output()
            .expect("starts");
        let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        plan["stages"][0].clone()
    };
    // Two maps of 64 by 64 in each of three blocks.
    let plain = plan("lora { rank = 2 }");
    assert!(plain.get("rates").is_none());
    let plus = plan("lora { rank = 2, rate_b = 16 }");
    assert_eq!(plus["rates"][0]["factor"], 16.0);
    assert_eq!(plus["rates"][0]["parameters"], 6 * 64 * 2);
    let moved = |method: &str| -> f32 {
        let dir = tempfile::tempdir().expect("a scratch directory");
        run(&recipe(dir.path(), method, ", steps = 1"));
        let all = tensors(dir.path());
        let b = all.iter().find(|(name, _)| name.ends_with("lora_B.weight"));
        let b = b.expect("a pair").1.numbers();
        b.iter().fold(0.0, |most, x| x.abs().max(most))
    };
    let (one, sixteen) = (
        moved("lora { rank = 2 }"),
        moved("lora { rank = 2, rate_b = 16 }"),
    );
    assert!((sixteen / one - 16.0).abs() < 1e-3, "{one} {sixteen}");
}

/// Trains all of a small model with maps of 640 by 640, and gives its tensors, estimated and measured bytes.
fn all_of_it(clip: &str) -> (Vec<(String, Tensor)>, u64, u64) {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let (root, here) = (
        scratch.path(),
        std::env::current_dir().expect("a directory"),
    );
    std::fs::create_dir(root.join("model")).expect("made");
    let config = serde_json::json!({
        "architectures": ["RobertaForMaskedLM"], "model_type": "roberta", "vocab_size": 6100, "hidden_size": 640,
        "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 640, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 80,
        "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2
    });
    std::fs::write(root.join("model/config.json"), config.to_string()).expect("written");
    let at = here.display();
    let text = format!(
        "model m = local \"model\" {{ init = random, tokenizer = \"{at}/recipes/reviews-mini\" }}\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 16 }}\n\
         stage s = train {{ model = m, data = d.train, adapter = full, lr = 1e-4, steps = 3, batch = 4, max_length = 24, clip = {clip} }}\n"
    );
    let path = root.join("r.peft");
    std::fs::write(&path, text).expect("written");
    run(&path);
    let store = std::fs::read_dir(root.join(".peftc/store")).expect("a store");
    let mut found = store
        .flatten()
        .map(|e| e.path().join("model/model.safetensors"));
    let model = found.find(|p| p.exists()).expect("a model");
    let tensors: std::collections::BTreeMap<_, _> = tensor::load(model).into_iter().collect();
    let result = std::fs::read_to_string(root.join(".peftc/runs/r/result.json")).expect("a result");
    let result: Value = serde_json::from_str(&result).expect("JSON");
    let bytes = |key: &str| result["stages"][0][key].as_u64().expect("bytes");
    (
        tensors.into_iter().collect(),
        bytes("estimated_peak_bytes"),
        bytes("measured_peak_bytes"),
    )
}

#[test]
fn without_clipping_large_tensors_are_updated_in_the_backward_with_the_same_bits() {
    // A bound that no norm reaches clips nothing, but each update waits for it.
    let (waited, more, measured_more) = all_of_it("1e9");
    let (early, less, measured_less) = all_of_it("0");
    assert!(waited == early, "the tensors differ");
    assert_eq!((more, less), (measured_more, measured_less));
    // Of twelve gradients of 640 by 640 at least ten are gone before the last, that of the embeddings, is made.
    assert!(more - less > 10 * 640 * 640 * 4, "{more} and {less} bytes");
}
