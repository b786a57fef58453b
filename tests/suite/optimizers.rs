//! Update rules beside AdamW: losses against bitsandbytes' and `transformers`' (`tests/reference/optimizers.json`), the memory that
//! was planned, and the same bits after a kill.

use std::path::Path;

use super::support::{
    assert_exact, done, farthest, here, json, json_lines, numbers, program, result,
    run_with_a_kill, stage,
};

/// A folder with 320 reviews.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let text = std::fs::read_to_string("recipes/reviews/train.tsv").expect("reviews");
    let rows: Vec<&str> = text.lines().take(321).collect();
    std::fs::write(dir.path().join("train.tsv"), rows.join("\n")).expect("written");
    dir
}

/// Full fine-tuning of a small model.
fn recipe(model: &str, optimizer: &str, rest: &str) -> String {
    format!(
        "peftc 1\nmodel m = local \"{}/tests/reference/{model}\"\n\
         data d = local \".\" {{ text = sentence, label = label, labels = [negative, positive] }}\n\
         stage s = train {{ model = m, data = d.train, objective = classify, adapter = full, optimizer = {optimizer}, \
         batch = 16, max_length = 64, clip = 0, dropout = 0, shuffle = false, {rest} }}\n",
        here().display()
    )
}

fn losses(dir: &Path) -> Vec<f64> {
    let lines = json_lines(dir.join(".peftc/runs/r/s/metrics.jsonl"));
    let losses = lines.iter().filter_map(|line| line["loss"].as_f64());
    losses.collect()
}

#[test]
fn losses_are_those_of_the_references_and_bytes_those_of_the_plan() {
    let curves = json("tests/reference/optimizers.json");
    let curves = curves.as_array().expect("curves");
    assert_eq!(curves.len(), 6);
    for curve in curves {
        let text = |key: &str| curve[key].as_str().expect("a text");
        let dir = folder();
        let path = dir.path().join("r.peft");
        let rest = format!("lr = {}, steps = 20", curve["lr"]);
        std::fs::write(&path, recipe(text("model"), text("optimizer"), &rest)).expect("written");
        let output = done(
            program()
                .args(["run", "--json", "--threads", "2"])
                .arg(&path),
        );
        assert_exact(&result(&output));
        let apart = farthest(&losses(dir.path()), &numbers(&curve["loss"]));
        assert!(
            apart < 1e-4,
            "{} of {}: {apart}",
            text("optimizer"),
            text("model")
        );
    }
}

#[test]
fn a_killed_training_goes_on_with_the_same_bits() {
    for optimizer in ["adamw_8bit", "adafactor", "lion"] {
        let (whole, killed) = (folder(), folder());
        let text = recipe(
            "bert-tiny",
            optimizer,
            "lr = 1e-4, steps = 40, micro_batch = 3",
        );
        for dir in [&whole, &killed] {
            std::fs::write(dir.path().join("r.peft"), &text).expect("written");
        }
        done(
            program()
                .args(["run", "--threads", "1"])
                .arg(whole.path().join("r.peft")),
        );
        run_with_a_kill(&killed.path().join("r.peft"), "s", 40);
        assert_eq!(losses(whole.path()), losses(killed.path()), "{optimizer}");
        let bytes = |dir: &Path| {
            let model = dir.join(".peftc/runs/r/s/model/model.safetensors");
            std::fs::read(model).expect("the trained model")
        };
        assert_eq!(bytes(whole.path()), bytes(killed.path()), "{optimizer}");
    }
}

/// State of 8-bit AdamW is a quarter of AdamW's and two scales for 256 numbers, but for small tensors; Adafactor's is next to none.
#[test]
fn a_plan_counts_the_state() {
    let dir = folder();
    let path = dir.path().join("r.peft");
    let state = |optimizer: &str| {
        std::fs::write(
            &path,
            recipe("bert-tiny", optimizer, "lr = 1e-4, steps = 2"),
        )
        .expect("written");
        let plan = result(&done(program().args(["check", "--json"]).arg(&path)));
        let own = stage(&plan["recipes"][0], "s").clone();
        let number = |value: &serde_json::Value| value.as_f64().expect("a number");
        (
            number(&own["memory"]["optimizer"]),
            number(&own["parameters"]["trainable"]),
        )
    };
    let (adamw, trained) = state("adamw");
    assert_eq!(adamw, 8.0 * trained);
    let (codes, _) = state("adamw_8bit");
    assert!(
        (0.254..0.30).contains(&(codes / adamw)),
        "{codes} of {adamw}"
    );
    let (factors, _) = state("adafactor");
    assert!(factors / adamw < 0.03, "{factors} of {adamw}");
}
