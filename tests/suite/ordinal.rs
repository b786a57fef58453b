//! Classes in an order: losses, classes and metrics against coral-pytorch's formulas and scikit-learn (`tests/reference`), the folder that is
//! exported, and what is refused.

use std::path::Path;

use serde_json::{Value, json};

use super::support::{here, json, program, stderr_of};

/// Reviews with their class by their length: up to 60 characters, up to 120, beyond.
fn reviews(dir: &Path, names: [&str; 3]) {
    let text = std::fs::read_to_string("recipes/reviews/train.tsv").expect("reviews");
    let rows = text.lines().skip(1).map(|line| {
        let sentence = line.split('\t').next().unwrap_or_default();
        let count = sentence.chars().count();
        let name = names[usize::from(count > 60) + usize::from(count > 120)];
        json!({ "text": sentence, "grade": name }).to_string() + "\n"
    });
    let rows: Vec<String> = rows.collect();
    for (name, part) in [("train", &rows[..320]), ("test", &rows[320..384])] {
        std::fs::write(dir.join(format!("{name}.jsonl")), part.concat()).expect("written");
    }
}

/// A copy of a model of the references whose head tells three ranks.
fn model(dir: &Path, name: &str) {
    let to = dir.join(name);
    std::fs::create_dir(&to).expect("made");
    for file in std::fs::read_dir(here().join("tests/reference").join(name)).expect("a folder") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("copied");
    }
    let path = to.join("config.json");
    let mut config = json(&path);
    config["ordinal_labels"] = json!(["0", "1", "2"]);
    std::fs::write(path, config.to_string()).expect("written");
}

fn run(dir: &Path, name: &str, recipe: &str) -> Value {
    let path = dir.join(format!("{name}.peft"));
    std::fs::write(&path, recipe).expect("written");
    let output = program()
        .args(["run", "--quiet", "--threads", "2"])
        .arg(&path)
        .output()
        .expect("starts");
    assert!(output.status.success(), "{}", stderr_of(&output));
    json(dir.join(format!(".peftc/runs/{name}/result.json")))
}

const TRAINING: &str = "optimizer = adamw { weight_decay = 0.01 }, steps = 20, batch = 16, max_length = 64, clip = 0, dropout = 0, shuffle = false";

#[test]
fn losses_classes_and_metrics_are_those_of_coral_pytorch_and_scikit_learn() {
    let here = here();
    let at = here.display();
    let reference = json(Path::new("tests/reference/ordinal.json"));
    let curves = reference["curves"].as_array().expect("curves");
    assert_eq!(curves.len(), 3);
    for (i, curve) in curves.iter().enumerate() {
        let (name, method) = (
            curve["model"].as_str().expect("a model"),
            curve["method"].as_str().expect("a method"),
        );
        let adapter = match method {
            "lora" => format!("lora {{ start = \"{at}/tests/reference/{name}-lora\" }}"),
            other => other.to_owned(),
        };
        let dir = tempfile::tempdir().expect("a scratch directory");
        reviews(dir.path(), ["0", "1", "2"]);
        model(dir.path(), name);
        // However a batch is cut, its loss is one mean.
        let micro = ["", ", micro_batch = 5", ""][i];
        let recipe = format!(
            "model m = local \"{name}\"\ndata d = local \".\" {{ text = text, label = grade }}\n\
             stage s = train {{ model = m, data = d.train, objective = ordinal, adapter = {adapter}, lr = {}, {TRAINING}{micro} }}\n\
             stage e = eval {{ from = s, data = d.test, metrics = [accuracy, rank_error, quadratic_kappa, spearman, loss] }}\n",
            curve["lr"]
        );
        let result = run(dir.path(), "r", &recipe);
        let own = format!("{name} {method}");
        let log = std::fs::read_to_string(dir.path().join(".peftc/runs/r/s/metrics.jsonl"));
        let log = log.expect("a log");
        let wanted = curve["loss"].as_array().expect("losses");
        assert_eq!(log.lines().count(), wanted.len());
        for (line, want) in log.lines().zip(wanted) {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let (loss, want) = (line["loss"].as_f64(), want.as_f64());
            let far = loss.zip(want).map(|(a, b)| (a - b).abs());
            assert!(
                far.is_some_and(|far| far < 1e-4),
                "{own}: {line} for {want:?}"
            );
        }
        let scored = &curve["scored"];
        let metrics = &result["stages"][1]["metrics"];
        let mut wanted = scored["metrics"].as_object().expect("metrics").clone();
        wanted.insert("loss".to_owned(), scored["loss"].clone());
        for (key, want) in &wanted {
            let (is, want) = (metrics[key].as_f64(), want.as_f64());
            let far = is.zip(want).map(|(a, b)| (a - b).abs());
            assert!(
                far.is_some_and(|far| far < 2e-4),
                "{own}: {key} is {is:?} for {want:?}"
            );
        }
        let table = dir.path().join(".peftc/runs/r/e/predictions.tsv");
        let table = std::fs::read_to_string(table).expect("a table");
        let told = table
            .lines()
            .skip(1)
            .filter_map(|row| row.split('\t').nth(2)?.parse::<u64>().ok());
        let told: Value = told.collect();
        assert_eq!(told, scored["predicted"], "{own}");
        assert!(table.starts_with("index\tlabel\tprediction\tscore_above_0\tscore_above_1\n"));
        for stage in result["stages"].as_array().expect("stages") {
            let bytes = |key: &str| stage[key].as_f64().expect("bytes");
            let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
            assert!(
                (0.98..=1.0).contains(&share),
                "{own} {}: {share}",
                stage["name"]
            );
        }
    }
}

#[test]
fn a_merged_folder_and_an_adapter_tell_the_same_grades() {
    let here = here();
    let at = here.display();
    let dir = tempfile::tempdir().expect("a scratch directory");
    reviews(dir.path(), ["short", "middling", "long"]);
    let recipe = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \".\" {{ text = text, label = grade, labels = [short, middling, long] }}\n\
         stage s = train {{ model = m, data = d.train, dev = d.test, best = quadratic_kappa, objective = ordinal, adapter = lora {{ rank = 4 }}, lr = 2e-3, steps = 30, batch = 8 }}\n\
         stage f = merge {{ from = s }}\nstage e = eval {{ from = f, data = d.test }}\nstage b = eval {{ from = s, data = d.test }}\n"
    );
    let result = run(dir.path(), "r", &recipe);
    let stages = result["stages"].as_array().expect("stages");
    assert_eq!(stages[2]["metrics"], stages[3]["metrics"], "merged or not");
    let names = stages[2]["metrics"].as_object().expect("metrics").keys();
    assert!(names.eq(["accuracy", "rank_error", "quadratic_kappa", "spearman"]));
    let artifact = Path::new(stages[1]["artifact"].as_str().expect("a path")).join("model");
    let config = json(artifact.join("config.json"));
    assert_eq!(config["problem_type"], "multi_label_classification");
    assert_eq!(
        config["id2label"],
        json!({ "0": "> short", "1": "> middling" })
    );
    assert_eq!(
        config["ordinal_labels"],
        json!(["short", "middling", "long"])
    );
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).expect("made");
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        std::fs::copy(artifact.join(name), copy.join(name)).expect("copied");
    }
    let predict = |model: &Path| {
        let input = dir.path().join("test.jsonl");
        let mut command = program();
        command.args(["predict", "--quiet", "--all", "--text", "text", "--input"]);
        let output = command.arg(input).arg(model).output().expect("starts");
        assert!(output.status.success(), "{}", stderr_of(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let (of_stage, of_copy) = (predict(&dir.path().join(".peftc/runs/r/f")), predict(&copy));
    assert_eq!(of_stage, of_copy);
    for row in of_copy.lines() {
        let row: Value = serde_json::from_str(row).expect("JSON");
        let each = row["probabilities"].as_object().expect("probabilities");
        assert!(each.keys().eq(["short", "middling", "long"]));
        let sum: f64 = each.values().filter_map(Value::as_f64).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{row}");
        let rank = row["rank"].as_u64().expect("a rank") as usize;
        assert_eq!(row["prediction"], ["short", "middling", "long"][rank]);
    }
    // The folder is scored, and goes on, without being told what its head is.
    let recipe = format!(
        "model m = local \"copy\"\ndata d = local \"{}\" {{ text = text, label = grade, labels = [short, middling, long] }}\n\
         stage e = eval {{ model = m, data = d.test }}\nstage o = train {{ model = m, data = d.train, adapter = full, objective = classify, lr = 1e-4, steps = 1 }}\n",
        dir.path().display()
    );
    let again = run(dir.path(), "again", &recipe);
    assert_eq!(again["stages"][0]["metrics"], stages[2]["metrics"]);
    let artifact =
        Path::new(again["stages"][1]["artifact"].as_str().expect("a path")).join("model");
    let config = json(artifact.join("config.json"));
    assert!(config.get("ordinal_labels").is_none(), "{config}");
    assert_eq!(
        config["id2label"].as_object().map(serde_json::Map::len),
        Some(3)
    );
}

#[test]
fn names_in_alphabetical_order_are_no_order() {
    let here = here();
    let dir = tempfile::tempdir().expect("a scratch directory");
    reviews(dir.path(), ["short", "middling", "long"]);
    let recipe = format!(
        "model m = local \"{}/tests/reference/bert-tiny\"\ndata d = local \".\" {{ text = text, label = grade }}\n\
         stage s = train {{ model = m, data = d.train, objective = ordinal, adapter = full, lr = 1e-3, steps = 1 }}\n",
        here.display()
    );
    let path = dir.path().join("r.peft");
    std::fs::write(&path, recipe).expect("written");
    let output = program().arg("check").arg(&path).output().expect("starts");
    let said = stderr_of(&output);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("alphabetical order (long, middling, short)"),
        "{said}"
    );
    assert!(said.contains("labels = [long, middling, short]"), "{said}");
}
