//! What an evaluation says class by class, and its table of predictions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use super::support::{here, json, program, stderr_of, stdout_of};

/// Writes rows of text and label as `FILE.jsonl`.
fn rows(dir: &Path, file: &str, rows: &[(String, &str)]) {
    let lines = rows
        .iter()
        .map(|(text, label)| format!("{}\n", json!({ "text": text, "label": label })));
    std::fs::write(dir.join(file), lines.collect::<String>()).expect("written");
}

fn recipe(dir: &Path, body: &str) -> PathBuf {
    let here = here();
    let path = dir.join("r.peft");
    let model = here.join("tests/reference/bert-tiny");
    let text = format!("model m = local \"{}\"\n{body}", model.display());
    std::fs::write(&path, text).expect("written");
    path
}

fn run(recipe: &Path) -> (Output, Value) {
    let output = program().arg("run").arg(recipe).output().expect("starts");
    let said = stderr_of(&output);
    assert!(output.status.success(), "{said}");
    let path = recipe.with_file_name(".peftc/runs/r/result.json");
    let result = json(path);
    (output, result)
}

fn stage<'a>(result: &'a Value, name: &str) -> &'a Value {
    let stages = result["stages"].as_array().expect("stages");
    stages
        .iter()
        .find(|s| s["name"] == name)
        .expect("the stage")
}

/// A reader of delimited text that knows nothing of ours.
fn table(dir: &Path, stage: &str) -> Vec<BTreeMap<String, String>> {
    let path = dir.join(format!(".peftc/runs/r/{stage}/predictions.tsv"));
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(b'\t')
        .from_path(path)
        .expect("a table");
    let rows = reader.deserialize::<BTreeMap<String, String>>();
    rows.map(|r| r.expect("a row")).collect()
}

const NAMES: [&str; 3] = ["neutral\tor\nmixed", "clear \"so\"", "'plain'"];

#[test]
fn predictions_read_back_and_their_index_is_the_row_in_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let all: Vec<(String, &str)> = (0..40)
        .map(|i| (format!("a film of {i} parts"), NAMES[i * i % 7 % 3]))
        .collect();
    rows(dir.path(), "all.jsonl", &all);
    let path = recipe(
        dir.path(),
        "data d = local \".\" { text = text, label = label, train = [\"all.jsonl\"], test = [\"all.jsonl\"] }\n\
         data s = local \".\" { text = text, label = label, test = [\"all.jsonl\"], shuffle = 7, take = 30 }\n\
         stage learn = train { model = m, data = d.train, adapter = head_only, lr = 1e-2, steps = 4 }\n\
         stage plain = eval { from = learn, data = d.test, batch = 7 }\n\
         stage mixed = eval { from = learn, data = s.test, batch = 7 }\n",
    );
    let (_, result) = run(&path);
    for (name, count) in [("plain", 40), ("mixed", 30)] {
        let table = table(dir.path(), name);
        assert_eq!(table.len(), count, "{name}");
        let mut cells: BTreeMap<(String, String), u64> = BTreeMap::new();
        let mut seen = Vec::new();
        for row in &table {
            let index: usize = row["index"].parse().expect("a number");
            seen.push(index);
            assert_eq!(row["label"], all[index].1, "{name} {index}");
            // The prediction is the class with the highest score.
            let score = |name: &str| -> f64 {
                let cell = &row[&format!("score_{name}")];
                cell.parse().expect("a number")
            };
            let best = NAMES.iter().max_by(|a, b| score(a).total_cmp(&score(b)));
            assert_eq!(&row["prediction"], best.expect("a class"));
            *cells
                .entry((row["label"].clone(), row["prediction"].clone()))
                .or_default() += 1;
        }
        let ordered = seen.is_sorted();
        assert_eq!(ordered, name == "plain");
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count, "{name}: a row twice");
        // What the result counts is what the table holds.
        let own = stage(&result, name);
        let classes: Vec<&str> = own["classes"]
            .as_array()
            .expect("classes")
            .iter()
            .map(|c| c["name"].as_str().expect("a name"))
            .collect();
        for (i, label) in classes.iter().enumerate() {
            for (j, told) in classes.iter().enumerate() {
                let held = cells.get(&((*label).to_owned(), (*told).to_owned()));
                let counted = own["confusion"][i][j].as_u64().expect("a number");
                assert_eq!(counted, held.copied().unwrap_or(0), "{label:?} {told:?}");
            }
            let support = all.len().min(count) as u64;
            assert!(own["classes"][i]["support"].as_u64() <= Some(support));
        }
        let right: u64 = (0..classes.len())
            .map(|i| own["confusion"][i][i].as_u64().expect("a number"))
            .sum();
        let accuracy = own["metrics"]["accuracy"].as_f64().expect("accuracy");
        assert!((accuracy - right as f64 / count as f64).abs() < 1e-12);
    }
}

#[test]
fn f1_says_of_which_class_and_one_prediction_is_a_warning() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = |i: usize| format!("report {i} of the line");
    let good: Vec<(String, &str)> = (0..16).map(|i| (text(i), "ok")).collect();
    let both: Vec<(String, &str)> = (16..28)
        .map(|i| (text(i), if i % 4 == 0 { "faulty" } else { "ok" }))
        .collect();
    rows(dir.path(), "good.jsonl", &good);
    rows(dir.path(), "both.jsonl", &both);
    let path = recipe(
        dir.path(),
        "data d = local \".\" { text = text, label = label, labels = [\"faulty\", \"ok\"], train = [\"good.jsonl\"], test = [\"both.jsonl\"] }\n\
         stage learn = train { model = m, data = d.train, adapter = head_only, lr = 0.3, steps = 12 }\n\
         stage usual = eval { from = learn, data = d.test }\n\
         stage rare = eval { from = learn, data = d.test, positive = faulty }\n",
    );
    let (output, result) = run(&path);
    let said = stdout_of(&output);
    let f1 = |name: &str, class: usize| {
        let own = stage(&result, name);
        assert_eq!(own["metrics"]["f1"], own["classes"][class]["f1"], "{name}");
        own["f1_class"].as_str().expect("a class").to_owned()
    };
    assert_eq!(f1("usual", 1), "ok");
    assert_eq!(f1("rare", 0), "faulty");
    assert!(said.contains("f1 of ok 0.8571"), "{said}");
    assert!(said.contains("f1 of faulty 0.0000"), "{said}");
    assert!(stage(&result, "learn")["f1_class"].is_null());
    // Three of twelve are faulty, and nothing is told to be.
    let own = stage(&result, "usual");
    assert_eq!(own["confusion"], json!([[0, 3], [0, 9]]));
    assert_eq!(
        own["confused"],
        json!([{ "label": "faulty", "prediction": "ok", "rows": 3 }])
    );
    assert_eq!(own["classes"][1]["precision"], json!(0.75));
    assert_eq!(own["warnings"][0]["code"], "peftc::exec::one_prediction");
    assert!(said.contains("all 12 predictions are `ok`"), "{said}");

    // A class that is not there, and a key without effect, are mistakes.
    for (stage, part) in [
        (
            "eval { from = learn, data = d.test, positive = faluty }",
            "did you mean `faulty`?",
        ),
        (
            "eval { from = learn, data = d.test, metrics = [accuracy], positive = ok }",
            "`positive` has no effect without `f1`",
        ),
        (
            "train { from = learn, data = d.train, adapter = head_only, lr = 1e-3, steps = 1, positive = ok }",
            "`positive` has no effect without `dev`",
        ),
    ] {
        let mut text = std::fs::read_to_string(&path).expect("text");
        text.push_str(&format!("stage more = {stage}\n"));
        let wrong = dir.path().join("wrong.peft");
        std::fs::write(&wrong, text).expect("written");
        let output = program().arg("check").arg(&wrong).output().expect("starts");
        assert_eq!(output.status.code(), Some(2));
        let said = stderr_of(&output).replace("\n        ", " ");
        assert!(said.contains(part), "{said}");
    }
}
