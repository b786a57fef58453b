//! Data sets of GLUE and SuperGLUE by their names: planned without the data, read from a copy of the hub's files, and scored as
//! the benchmark does.

use std::path::Path;

use serde_json::json;

use super::support::{done, here, json, program, stderr_of};

fn write(path: &Path, rows: &[serde_json::Value]) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let lines: Vec<String> = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(path, lines.concat()).expect("written");
}

/// A cache of the hub with some rows of some sets.
fn cache(home: &Path) {
    let repo = home.join("hub/datasets--nyu-mll--glue");
    write(&repo.join("refs/none"), &[]);
    std::fs::write(repo.join("refs/main"), "abc").expect("written");
    let words = ["good", "bad", "film", "story", "slow", "great", "dull"];
    let text = |i: usize| {
        format!(
            "a {} {} and {}",
            words[i % 7],
            words[i * i % 5],
            words[(i + 3) % 7]
        )
    };
    let pair = |i: usize, keys: [&str; 2], label: serde_json::Value| json!({ keys[0]: text(i), keys[1]: text(i + 1), "label": label, "idx": i });
    let files = repo.join("snapshots/abc");
    for (split, count) in [
        ("train", 32),
        ("validation_matched", 12),
        ("validation_mismatched", 13),
    ] {
        let rows: Vec<_> = (0..count)
            .map(|i| pair(i, ["premise", "hypothesis"], json!(i % 3)))
            .collect();
        write(
            &files.join(format!("mnli/{split}-00000-of-00001.jsonl")),
            &rows,
        );
    }
    for (split, count) in [("train", 32), ("validation", 12)] {
        let keys = ["sentence1", "sentence2"];
        let rows: Vec<_> = (0..count)
            .map(|i| pair(i, keys, json!(i as f64 / 7.0)))
            .collect();
        write(&files.join(format!("stsb/{split}.jsonl")), &rows);
        let rows: Vec<_> = (0..count).map(|i| pair(i, keys, json!(i % 2))).collect();
        write(&files.join(format!("mrpc/{split}.jsonl")), &rows);
    }
}

fn model() -> String {
    format!(
        "model m = local \"{}/tests/reference/bert-tiny\"\n",
        here().display()
    )
}

const TRAIN: &str = "adapter = head_only, lr = 1e-3, epochs = 1, batch = 8, max_length = 32";

#[test]
fn a_named_set_is_read_and_scored_as_its_benchmark_does() {
    let dir = tempfile::tempdir().expect("a directory");
    cache(dir.path());
    let recipe = format!(
        "{}data mnli = glue \"mnli\"\ndata stsb = glue \"stsb\"\ndata mrpc = glue \"mrpc\" {{ labels = [no, yes], take = 10 }}\n\
         stage a = train {{ model = m, data = mnli.train, dev = mnli.validation_matched, {TRAIN} }}\n\
         stage b = eval {{ from = a, data = mnli.validation_mismatched }}\n\
         stage c = train {{ model = m, data = stsb.train, objective = regress, {TRAIN} }}\n\
         stage d = eval {{ from = c, data = stsb.dev }}\n\
         stage e = train {{ model = m, data = mrpc.train, {TRAIN} }}\n\
         stage f = eval {{ from = e, data = mrpc.dev }}\n\
         stage g = eval {{ from = e, data = mrpc.dev, metrics = [loss] }}\n",
        model()
    );
    let path = dir.path().join("r.peft");
    std::fs::write(&path, recipe).expect("written");
    done(
        program()
            .args(["run", "--quiet"])
            .arg(&path)
            .env("HF_HOME", dir.path())
            .env("HF_HUB_OFFLINE", "1"),
    );
    let result = json(dir.path().join(".peftc/runs/r/result.json"));
    let stages = result["stages"].as_array().expect("stages");
    let metrics = |name: &str| -> Vec<String> {
        let stage = stages.iter().find(|s| s["name"] == name).expect("a stage");
        let own = stage["metrics"].as_object().expect("metrics");
        own.keys().filter(|key| *key != "loss").cloned().collect()
    };
    assert_eq!(metrics("b"), ["accuracy"]);
    assert_eq!(metrics("d"), ["pearson", "spearman"]);
    assert_eq!(metrics("f"), ["accuracy", "f1"]);
    assert!(metrics("g").is_empty());
    let config = json(dir.path().join(".peftc/runs/r/a/model/config.json"));
    assert_eq!(config["id2label"]["1"], "neutral");
    let config = json(dir.path().join(".peftc/runs/r/e/model/config.json"));
    assert_eq!(config["id2label"]["1"], "yes");
}

#[test]
fn a_named_set_is_planned_without_the_data_and_what_it_lacks_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let check_stage = |declared: &str, stage: &str| {
        let recipe = format!("{}data x = {declared}\nstage a = {stage}\n", model());
        let path = dir.path().join("r.peft");
        std::fs::write(&path, recipe).expect("written");
        let output = program()
            .arg("check")
            .arg(&path)
            .env("HF_HOME", dir.path().join("nothing"))
            .env("HF_HUB_OFFLINE", "1")
            .output()
            .expect("starts");
        (output.status.success(), stderr_of(&output))
    };
    let check = |declared: &str, split: &str| {
        check_stage(
            declared,
            &format!("train {{ model = m, data = x.{split}, {TRAIN} }}"),
        )
    };
    for declared in [
        "glue \"cola\"",
        "glue \"qqp\" { take = 100 }",
        "super_glue \"cb\"",
    ] {
        let (planned, said) = check(declared, "train");
        assert!(planned, "{declared}: {said}");
        assert!(said.contains("is not at hand"), "{said}");
    }
    // What is scored without labels needs none.
    let (planned, said) = check_stage("glue \"sst2\"", "annotate { model = m, data = x.test }");
    assert!(planned || said.contains("no trained head"), "{said}");
    let (planned, said) = check("glue \"stsb\"", "train");
    assert!(!planned && said.contains("`objective = regress`"), "{said}");
    for (declared, split, why) in [
        ("glue \"colla\"", "train", "did you mean `cola`?"),
        ("glue \"ax\"", "test", "its labels are not public"),
        (
            "super_glue \"wic\"",
            "train",
            "its rows mark words within a text",
        ),
        (
            "glue \"sst2\"",
            "test",
            "its splits are `train`, `validation`",
        ),
        (
            "glue \"mnli\"",
            "dev",
            "`validation_matched`, `validation_mismatched`",
        ),
        (
            "glue \"sst2\" { config = \"x\" }",
            "train",
            "`glue` has no key `config`",
        ),
    ] {
        let (planned, said) = check(declared, split);
        let words: Vec<&str> = said.split_whitespace().filter(|w| *w != "│").collect();
        assert!(
            !planned && words.join(" ").contains(why),
            "{declared}: {said}"
        );
    }
}
