//! Masked-LM stages: the estimate is met, micro-batches and threads change nothing, what was trained is
//! handed on, and labels are not asked for.

use std::path::Path;

use serde_json::Value;

use super::support::{here, json, program, stderr_of};

/// Runs a recipe on the embedded masked LM and unlabelled reviews, one of them empty; gives `result.json`.
fn run(dir: &Path, name: &str, body: &str, more: &[&str]) -> Value {
    let here = here();
    let reviews = std::fs::read_to_string("recipes/reviews/train.tsv").expect("reviews");
    let mut texts: Vec<&str> = reviews
        .lines()
        .take(60)
        .filter_map(|l| l.split('\t').next())
        .collect();
    texts.push("\"\"");
    std::fs::write(dir.join("train.tsv"), texts.join("\n") + "\n").expect("written");
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/recipes/reviews-mini\"\n\
         data d = local \".\" {{ text = sentence }}\n\
         data l = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 48 }}\n{body}"
    );
    let path = dir.join(format!("{name}.peft"));
    std::fs::write(&path, text).expect("written");
    let output = program()
        .args(["run", "--quiet"])
        .arg(&path)
        .args(more)
        .output()
        .expect("starts");
    let stderr = stderr_of(&output);
    assert!(output.status.success(), "{body}\n{stderr}");
    let result = dir.join(format!(".peftc/runs/{name}/result.json"));
    json(result)
}

fn losses(dir: &Path, name: &str) -> Vec<f64> {
    let log = std::fs::read_to_string(dir.join(format!(".peftc/runs/{name}/s/metrics.jsonl")));
    let log = log.expect("a log");
    let line = |l: &str| serde_json::from_str::<Value>(l).expect("JSON")["loss"].as_f64();
    log.lines().map(|l| line(l).expect("a loss")).collect()
}

#[test]
fn stages_meet_their_estimate_and_hand_on_what_they_trained() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let common = "data = d.train, lr = 1e-4, epochs = 1, batch = 8";
    let body = format!(
        "stage zero = eval {{ model = m, data = d.train, objective = masked_lm }}\n\
         stage side = train {{ model = m, {common}, objective = masked_lm, adapter = lst {{ r = 4 }}, dev = d.train }}\n\
         stage same = eval {{ from = side, data = d.train }}\n\
         stage next = train {{ from = side, data = l.train, objective = classify, lr = 1e-4, steps = 2 }}\n\
         stage all = train {{ model = m, {common}, objective = masked_lm {{ rate = 40% }}, adapter = full, micro_batch = 3 }}\n\
         stage words = eval {{ from = all, data = d.train }}\n\
         stage class = train {{ from = all, data = l.train, objective = classify, adapter = last_n {{ n = 1 }}, lr = 1e-4, steps = 2 }}\n"
    );
    let result = run(dir.path(), "r", &body, &[]);
    let stages = result["stages"].as_array().expect("stages");
    assert_eq!(stages.len(), 7);
    for stage in stages {
        let bytes = |key: &str| stage[key].as_f64().expect("bytes");
        let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
        assert!((0.99..=1.0).contains(&share), "{}: {share}", stage["name"]);
    }
    let told = |i: usize| {
        stages[i]["metrics"]["perplexity"]
            .as_f64()
            .expect("perplexity")
    };
    // The dev masks are those of an evaluation; the pre-trained head reads the backbone best.
    assert!((told(1) - told(2)).abs() < 1e-3 * told(1));
    assert!(told(0) < told(1));
    assert!(stages[6]["loss_last"].as_f64().expect("a loss").is_finite());
    let config =
        Path::new(stages[4]["artifact"].as_str().expect("a path")).join("model/config.json");
    let config: Value = json(config);
    assert_eq!(config["architectures"][0], "BertForMaskedLM");
    let table = dir.path().join(".peftc/runs/r/zero/predictions.tsv");
    let table = std::fs::read_to_string(table).expect("predictions");
    assert_eq!(
        table.lines().next(),
        Some("index\tposition\tlabel\tprediction")
    );
}

#[test]
fn masks_depend_on_neither_threads_nor_micro_batches() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let body = |more: &str| {
        format!(
            "stage s = train {{ model = m, data = d.train, objective = masked_lm, adapter = lst {{ r = 4 }}, lr = 1e-3, epochs = 2, batch = 8{more} }}\n"
        )
    };
    run(dir.path(), "one", &body(""), &["--threads", "1", "--fresh"]);
    run(dir.path(), "two", &body(""), &["--threads", "2", "--fresh"]);
    run(
        dir.path(),
        "three",
        &body(", dropout = 0, micro_batch = 3"),
        &[],
    );
    run(dir.path(), "four", &body(", dropout = 0"), &[]);
    let one = losses(dir.path(), "one");
    assert_eq!(one, losses(dir.path(), "two"));
    assert_ne!(one[..8], one[8..], "an epoch draws anew");
    let pairs = losses(dir.path(), "three")
        .into_iter()
        .zip(losses(dir.path(), "four"));
    for (micro, whole) in pairs {
        assert!((micro - whole).abs() < 1e-3, "{micro} against {whole}");
    }
}
