//! Adapters that the Python library peft wrote, taken by `adapter = peft "DIR"`: scored, merged, trained on, and refused
//! with what of them is not read.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn peftc(dir: &Path, command: &str, recipe: &str) -> Output {
    std::fs::write(dir.join("r.peft"), recipe).expect("written");
    Command::new(env!("CARGO_BIN_EXE_peftc"))
        .args([command, "--quiet", "--offline"])
        .arg(dir.join("r.peft"))
        .args(if command == "run" {
            &["--threads", "2"][..]
        } else {
            &[]
        })
        .output()
        .expect("starts")
}

fn run(dir: &Path, recipe: &str) {
    let output = peftc(dir, "run", recipe);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{recipe}\n{said}");
}

/// What is said of a recipe that `check` refuses.
fn refused(dir: &Path, recipe: &str) -> String {
    let output = peftc(dir, "check", recipe);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The scores of a stage, by row.
fn scores(dir: &Path, stage: &str) -> Vec<Vec<f64>> {
    let path = dir.join(format!(".peftc/runs/r/{stage}/predictions.tsv"));
    let text = std::fs::read_to_string(path).expect("predictions");
    let rows = text.lines().skip(1).map(|line| {
        let numbers = line.split('\t').skip(3);
        numbers.map(|x| x.parse().expect("a number")).collect()
    });
    rows.collect()
}

fn assert_near(own: &[Vec<f64>], wanted: &[Vec<f64>], most: f64, name: &str) {
    assert_eq!(own.len(), wanted.len(), "{name}");
    for (own, wanted) in own.iter().zip(wanted) {
        for (a, b) in own.iter().zip(wanted) {
            assert!((a - b).abs() < most, "{name}: {own:?} against {wanted:?}");
        }
    }
}

/// The model and the texts of `forward.json` in a scratch directory, and peft's scores of a trained LoRA.
fn trained() -> (tempfile::TempDir, String, Vec<Vec<f64>>) {
    let bytes = std::fs::read("tests/reference/forward.json").expect("the reference");
    let forward: Value = serde_json::from_slice(&bytes).expect("JSON");
    let cases = forward["lora_trained"]["cases"].as_array().expect("cases");
    let dir = tempfile::tempdir().expect("a scratch directory");
    let rows: Vec<String> = cases
        .iter()
        .enumerate()
        .map(|(i, c)| format!("{}\t{}", c["text"].as_str().expect("text"), i % 2))
        .collect();
    let table = format!("sentence\tlabel\n{}\n", rows.join("\n"));
    std::fs::write(dir.path().join("t.tsv"), table).expect("written");
    let wanted = cases.iter().map(|case| {
        let logits = case["logits"].as_array().expect("logits").iter();
        logits.map(|x| x.as_f64().expect("a number")).collect()
    });
    let here = std::env::current_dir().expect("a working directory");
    let at = here.join("tests/reference");
    let at = at.display();
    let head = format!(
        "model m = local \"{at}/bert-tiny\"\n\
         data d = local \".\" {{ text = sentence, label = label, test = [\"t.tsv\"], labels = [negative, positive] }}\n\
         let lora = peft \"{at}/bert-tiny-lora-trained\"\n"
    );
    (dir, head, wanted.collect())
}

#[test]
fn an_adapter_is_scored_merged_and_trained_on_as_it_is() {
    let (dir, head, wanted) = trained();
    let recipe = format!(
        "{head}stage e = eval {{ model = m, adapter = lora, data = d.test, max_length = 64 }}\n\
         stage f = merge {{ model = m, adapter = lora }}\n\
         stage g = eval {{ from = f, data = d.test, max_length = 64 }}\n\
         stage s = train {{ model = m, data = d.test, adapter = lora, lr = 1e-30, steps = 1, dropout = 0, max_length = 64 }}\n\
         stage h = eval {{ from = s, data = d.test }}\n"
    );
    run(dir.path(), &recipe);
    for stage in ["e", "g", "h"] {
        assert_near(&scores(dir.path(), stage), &wanted, 1e-4, stage);
    }
}

#[test]
fn what_an_adapter_cannot_be_is_said() {
    let (dir, head, _) = trained();
    let dir = dir.path();
    let said = refused(
        dir,
        &format!("{head}stage f = merge {{ model = m }}\nstage g = merge {{ dtype = f32 }}\n"),
    );
    assert!(said.contains("no adapter to fold in"), "{said}");
    assert!(said.contains("neither `from` nor `model`"), "{said}");
    let said = refused(
        dir,
        &format!(
            "{head}stage e = eval {{ model = m, adapter = peft \"nowhere\", data = d.test }}\n"
        ),
    );
    assert!(said.contains("there is no directory"), "{said}");
    let other = head.replace("/bert-tiny\"", "/roberta-tiny\"");
    let said = refused(
        dir,
        &format!("{other}stage e = eval {{ model = m, adapter = lora, data = d.test }}\n"),
    );
    assert!(said.contains("is no tensor"), "{said}");
}
