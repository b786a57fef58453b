//! Several labels a text: losses, probabilities and metrics against PyTorch and scikit-learn (`tests/reference`), and the
//! whole way from data in three shapes to a folder that is labelled with.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::support::{here, json, program, stderr_of};

/// Output of a command that succeeds.
fn done(command: &mut Command) -> String {
    let output = command.output().expect("starts");
    let said = stderr_of(&output);
    assert!(output.status.success(), "{command:?}\n{said}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What a command says that fails.
fn refused(command: &mut Command) -> String {
    let output = command.output().expect("starts");
    assert!(!output.status.success(), "{command:?}");
    stderr_of(&output)
}

/// Reviews with their classes: `liked`, and `long` from 101 characters on.
fn reviews() -> Vec<(String, Vec<&'static str>)> {
    let text = std::fs::read_to_string("recipes/reviews/train.tsv").expect("reviews");
    let row = |line: &str| {
        let mut cells = line.split('\t');
        let (sentence, label) = (cells.next()?.to_owned(), cells.next()?);
        let liked = (label == "1").then_some("liked");
        let long = (sentence.chars().count() > 100).then_some("long");
        Some((sentence, liked.into_iter().chain(long).collect()))
    };
    text.lines().skip(1).filter_map(row).collect()
}

/// Writes reviews as JSON lines.
fn write_jsonl(path: &Path, rows: &[(String, Vec<&'static str>)]) {
    let mut text = String::new();
    for (sentence, classes) in rows {
        let _ = writeln!(text, "{}", json!({ "text": sentence, "tags": classes }));
    }
    std::fs::write(path, text).expect("written");
}

/// The same with the places of the classes, by which a trained head of as many is taken as it is.
fn numbered() -> tempfile::TempDir {
    let dir = folder();
    for name in ["train.jsonl", "test.jsonl"] {
        let path = dir.path().join(name);
        let text = std::fs::read_to_string(&path).expect("read");
        let tags = text.lines().map(|line| {
            let mut row: Value = serde_json::from_str(line).expect("JSON");
            let own = row["tags"].as_array().expect("a list").iter();
            row["tags"] = own.map(|name| json!(u8::from(name == "long"))).collect();
            format!("{row}\n")
        });
        std::fs::write(&path, tags.collect::<String>()).expect("written");
    }
    dir
}

/// A folder with `train.jsonl` and `test.jsonl`: rows 0 to 319, and 320 to 383.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let rows = reviews();
    write_jsonl(&dir.path().join("train.jsonl"), &rows[..320]);
    write_jsonl(&dir.path().join("test.jsonl"), &rows[320..384]);
    dir
}

fn run(dir: &Path, name: &str, recipe: &str) -> Value {
    let path = dir.join(format!("{name}.peft"));
    std::fs::write(&path, recipe).expect("written");
    done(
        program()
            .args(["run", "--quiet", "--threads", "2"])
            .arg(&path),
    );
    json(dir.join(format!(".peftc/runs/{name}/result.json")))
}

const TRAINING: &str = "optimizer = adamw { weight_decay = 0.01 }, steps = 20, batch = 16, max_length = 64, clip = 0, dropout = 0, shuffle = false";

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one training, looked at from all sides"
)]
fn losses_probabilities_and_metrics_are_those_of_pytorch_and_scikit_learn() {
    let here = here();
    let at = here.display();
    let reference = json(Path::new("tests/reference/multi_label.json"));
    let curves = reference["curves"].as_array().expect("curves");
    assert_eq!(curves.len(), 4);
    for curve in curves {
        let (model, method) = (
            curve["model"].as_str().expect("a model"),
            curve["method"].as_str().expect("a method"),
        );
        let adapter = match method {
            "lora" => format!("lora {{ start = \"{at}/tests/reference/{model}-lora\" }}"),
            other => other.to_owned(),
        };
        let dir = numbered();
        let recipe = format!(
            "model m = local \"{at}/tests/reference/{model}\"\n\
             data d = local \".\" {{ text = text, label = tags }}\n\
             stage s = train {{ model = m, data = d.train, objective = multi_label, adapter = {adapter}, lr = {}, {TRAINING} }}\n\
             stage e5 = eval {{ from = s, data = d.test }}\n\
             stage e3 = eval {{ from = s, data = d.test, objective = multi_label {{ threshold = 0.3 }}, metrics = [f1_micro, f1_macro, subset_accuracy, loss] }}\n",
            curve["lr"]
        );
        let result = run(dir.path(), "r", &recipe);
        let own = format!("{model} {method}");
        let log = std::fs::read_to_string(dir.path().join(".peftc/runs/r/s/metrics.jsonl"));
        let log: Vec<f64> = log
            .expect("a log")
            .lines()
            .map(|l| {
                serde_json::from_str::<Value>(l).expect("JSON")["loss"]
                    .as_f64()
                    .expect("a loss")
            })
            .collect();
        let wanted = curve["loss"].as_array().expect("losses");
        assert_eq!(log.len(), wanted.len());
        for (step, (loss, want)) in log.iter().zip(wanted).enumerate() {
            let want = want.as_f64().expect("a loss");
            assert!(
                (loss - want).abs() < 1e-4,
                "{own} step {step}: {loss} against {want}"
            );
        }
        let scored = &curve["scored"];
        for (stage, want) in [(1, 0), (2, 1)] {
            let metrics = &result["stages"][stage]["metrics"];
            for name in ["f1_micro", "f1_macro", "subset_accuracy"] {
                let (is, want) = (&metrics[name], &scored["metrics"][want][name]);
                let off = is.as_f64().expect("a metric") - want.as_f64().expect("a metric");
                assert!(off.abs() < 1e-9, "{own} {name}: {is} against {want}");
            }
        }
        let loss = result["stages"][2]["metrics"]["loss"]
            .as_f64()
            .expect("a loss");
        let want = scored["loss"].as_f64().expect("a loss");
        assert!((loss - want).abs() < 1e-4, "{own}: {loss} against {want}");
        let shown = done(
            program()
                .args(["predict", "--quiet", "--all", "--stage", "s"])
                .args([
                    dir.path().join(".peftc/runs/r").as_os_str(),
                    "--input".as_ref(),
                    dir.path().join("test.jsonl").as_os_str(),
                ]),
        );
        let rows: Vec<Value> = shown
            .lines()
            .map(|l| serde_json::from_str(l).expect("JSON"))
            .collect();
        assert_eq!(rows.len(), 64);
        let wanted = scored["probabilities"].as_array().expect("rows");
        for (row, want) in rows.iter().zip(wanted) {
            for (place, name) in ["0", "1"].into_iter().enumerate() {
                let is = row["probabilities"][name].as_f64().expect("a probability");
                let want = want[place].as_f64().expect("a probability");
                assert!(
                    (is - want).abs() < 1e-4,
                    "{own} {name}: {is} against {want}"
                );
                let told = row["prediction"].as_array().expect("a list");
                assert_eq!(told.contains(&json!(name)), is >= 0.5);
            }
        }
    }
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one training, looked at from all sides"
)]
fn lists_and_texts_are_the_same_labels_and_all_the_stages_meet_their_estimates() {
    let here = here();
    let at = here.display();
    let dir = folder();
    let rows = reviews();
    for (name, part) in [("train", &rows[..320]), ("test", &rows[320..384])] {
        let mut text = String::from("text\ttags\n");
        for (sentence, classes) in part {
            let _ = writeln!(text, "{sentence}\t{}", classes.join(" | "));
        }
        std::fs::create_dir_all(dir.path().join("texts")).expect("made");
        std::fs::write(dir.path().join(format!("texts/{name}.tsv")), text).expect("written");
    }
    let common = "adapter = lora { rank = 4 }, lr = 1e-3, steps = 4, batch = 8, seed = 7";
    let recipe = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \".\" {{ text = text, label = tags }}\n\
         data t = local \"texts\" {{ text = text, label = tags, label_separator = \"|\" }}\n\
         stage s = train {{ model = m, data = d.train, objective = multi_label {{ threshold = 0.6 }}, {common}, dev = d.test, best = f1_micro, evaluate = 2 steps }}\n\
         stage u = train {{ model = m, data = t.train, objective = multi_label {{ threshold = 0.6 }}, {common}, micro_batch = 3 }}\n\
         stage f = merge {{ from = s }}\n\
         stage e = eval {{ from = f, data = t.test }}\n\
         stage b = eval {{ from = s, data = d.test }}\n"
    );
    let result = run(dir.path(), "r", &recipe);
    let stages = result["stages"].as_array().expect("stages");
    for stage in stages {
        let bytes = |key: &str| stage[key].as_f64();
        if let (Some(is), Some(told)) =
            (bytes("measured_peak_bytes"), bytes("estimated_peak_bytes"))
        {
            assert!(
                (0.99..=1.0).contains(&(is / told)),
                "{}: {is} of {told}",
                stage["name"]
            );
        }
    }
    let loss = |i: usize, key: &str| stages[i][key].as_f64().expect("a loss");
    let off = loss(0, "loss_first") - loss(1, "loss_first");
    assert!(off.abs() < 1e-5, "{off}");
    assert_eq!(stages[3]["metrics"], stages[4]["metrics"], "merged or not");
    let classes = stages[4]["classes"].as_array().expect("classes");
    let support = |name: &str| {
        rows[320..384]
            .iter()
            .filter(|(_, own)| own.contains(&name))
            .count()
    };
    for (class, name) in classes.iter().zip(["liked", "long"]) {
        assert_eq!(class["name"], name);
        assert_eq!(class["support"], support(name));
    }
    // The table holds lists that are read again as labels.
    let table = dir.path().join(".peftc/runs/r/b/predictions.tsv");
    let table = std::fs::read_to_string(table).expect("predictions");
    let mut lines = table.lines();
    assert_eq!(
        lines.next(),
        Some("index\tlabel\tprediction\tscore_liked\tscore_long")
    );
    let first = lines
        .next()
        .expect("a row")
        .split('\t')
        .nth(1)
        .expect("a label");
    let wanted = json!(rows[320].1).to_string().replace('"', "\"\"");
    assert!(
        first == wanted || first == format!("\"{wanted}\""),
        "{first} against {wanted}"
    );
    // The exported folder says what its head is, and is labelled with as any folder of transformers.
    let artifact = stages[2]["artifact"].as_str().expect("a path");
    let config = json(Path::new(artifact).join("model/config.json"));
    assert_eq!(config["problem_type"], "multi_label_classification");
    assert_eq!(config["id2label"], json!({ "0": "liked", "1": "long" }));
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).expect("made");
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        std::fs::copy(
            Path::new(artifact).join("model").join(name),
            copy.join(name),
        )
        .expect("copied");
    }
    let predict = |model: &Path, more: &[&str]| {
        let input = dir.path().join("test.jsonl");
        let mut command = program();
        command.args(["predict", "--quiet", "--text", "text", "--input"]);
        done(command.arg(input).arg(model).args(more))
    };
    let plain = predict(&copy, &["--format", "csv"]);
    assert!(
        plain.starts_with("text,tags,prediction,probability\n"),
        "{plain}"
    );
    let of_stage = predict(&dir.path().join(".peftc/runs/r/f"), &["--format", "csv"]);
    assert_eq!(of_stage.lines().count(), plain.lines().count());
    // A folder without a description has the usual threshold, a stage's its own.
    let listed = |text: &str| text.matches("liked").count() + text.matches("long").count();
    assert!(listed(&plain) > listed(&of_stage));
    let all = predict(&copy, &["--all", "--format", "csv"]);
    assert!(
        all.starts_with("text,tags,prediction,probability,probability_liked,probability_long\n")
    );
    // The folder is scored without being told what its head is.
    let recipe = format!(
        "model m = local \"copy\"\ndata d = local \"{}\" {{ text = text, label = tags }}\nstage e = eval {{ model = m, data = d.test }}\n",
        dir.path().display()
    );
    let again = run(dir.path(), "again", &recipe);
    assert_eq!(
        again["stages"][0]["metrics"]
            .as_object()
            .map(serde_json::Map::len),
        Some(3)
    );
}

#[test]
fn a_killed_run_goes_on_with_the_same_bits() {
    let here = here();
    let recipe = format!(
        "model m = local \"{}/tests/reference/bert-tiny\"\n\
         data d = local \".\" {{ text = text, label = tags }}\n\
         stage s = train {{ model = m, data = d.train, objective = multi_label, adapter = lora {{ rank = 4 }}, lr = 1e-3, steps = 40, batch = 8 }}\n",
        here.display()
    );
    let (whole, killed) = (folder(), folder());
    run(whole.path(), "r", &recipe);
    std::fs::write(killed.path().join("r.peft"), &recipe).expect("written");
    let begin = || {
        let mut command = program();
        command.args([
            "run",
            "--quiet",
            "--threads",
            "2",
            "--checkpoint-every",
            "0",
        ]);
        command.arg(killed.path().join("r.peft"));
        command
    };
    let log = killed.path().join(".peftc/runs/r/s/metrics.jsonl");
    let steps = || std::fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    let mut child = begin().spawn().expect("starts");
    while child.try_wait().expect("waited for").is_none() && steps() < 5 {
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("waited for");
    assert!(steps() < 40, "the run was over before it was killed");
    done(&mut begin());
    let read = |dir: &Path| {
        std::fs::read_to_string(dir.join(".peftc/runs/r/s/metrics.jsonl")).expect("a log")
    };
    let losses = |text: String| -> Vec<Value> {
        let line = |l: &str| serde_json::from_str::<Value>(l).expect("JSON")["loss"].clone();
        text.lines().map(line).collect()
    };
    assert_eq!(losses(read(whole.path())), losses(read(killed.path())));
}

#[test]
fn labels_and_tasks_that_do_not_go_together_are_refused() {
    let here = here();
    let dir = folder();
    let said = |data: &str, stage: &str| {
        let recipe = format!(
            "model m = local \"{}/tests/reference/bert-tiny\"\n\
             data d = local \".\" {{ text = text, label = tags{data} }}\n\
             stage s = train {{ model = m, data = d.train, adapter = bitfit, lr = 1e-3, steps = 1, {stage} }}\n",
            here.display()
        );
        let path = dir.path().join("wrong.peft");
        std::fs::write(&path, recipe).expect("written");
        refused(program().arg("check").arg(&path))
    };
    let one = said("", "objective = classify");
    assert!(one.contains("`tags` is a list"), "{one}");
    let separator = said(", label_separator = \",\"", "objective = classify");
    assert!(separator.contains("several labels a row"), "{separator}");
    assert!(separator.contains("objective = multi_label"), "{separator}");
    let empty = said(", label_separator = \"\"", "objective = multi_label");
    assert!(empty.contains("`label_separator` is empty"), "{empty}");
    let metric = said(
        "",
        "objective = multi_label, dev = d.test, metrics = [accuracy]",
    );
    assert!(metric.contains("subset_accuracy"), "{metric}");
    let threshold = said("", "objective = multi_label { threshold = 1.0 }");
    assert!(threshold.contains("threshold"), "{threshold}");
}
