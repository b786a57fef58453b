//! What a run leaves for people and tools elsewhere: model cards, curves, lines of JSON.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::oracle::reference;
use super::support::{done, json_lines, program, stderr_of};

const ROWS: &str =
    "sentence\tlabel\na fine film\tgood\ndull\tbad\nwhat a mess\tbad\nthe best of all\tgood\n";

/// A folder with data and a recipe, whose model is the tiny one.
fn place() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().expect("a scratch directory");
    let dir = place.path();
    std::fs::create_dir(dir.join("data")).expect("a folder");
    for split in ["train", "dev"] {
        std::fs::write(dir.join(format!("data/{split}.tsv")), ROWS).expect("written");
    }
    let text = format!(
        "# a `fence` ``` inside\nmodel m = local \"{}\"\ndata d = local \"data\" {{ text = sentence, label = label }}\n\
         stage learn = train {{ model = m, data = d.train, dev = d.dev, adapter = lora {{ rank = 2 }}, lr = 1e-2, steps = 3, batch = 2 }}\n\
         stage whole = merge {{ from = learn, to = \"pub\" }}\n",
        reference("bert-tiny").display()
    );
    let recipe = dir.join("r.peft");
    std::fs::write(&recipe, text).expect("written");
    (place, recipe)
}

/// The payloads of the records of TensorBoard's event file in a folder.
fn events(dir: &Path) -> Vec<Vec<u8>> {
    let mut files = std::fs::read_dir(dir).expect("a folder");
    let file = files.next().expect("a file").expect("an entry").path();
    let bytes = std::fs::read(file).expect("read");
    let (mut at, mut all) = (0, Vec::new());
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a length")) as usize;
        all.push(bytes[at + 12..at + 12 + length].to_vec());
        at += length + 16;
    }
    assert_eq!(at, bytes.len());
    all
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

#[test]
fn a_run_leaves_cards_curves_and_lines() {
    let (place, recipe) = place();
    let dir = place.path();
    let output = done(
        program()
            .current_dir(dir)
            .args([
                "run",
                "--log-format",
                "json",
                "--log",
                "tensorboard=tb",
                "--log",
                "mlflow=ml",
            ])
            .arg(&recipe),
    );
    let said = stderr_of(&output);
    let lines = said.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let steps: Vec<&Value> = lines.iter().filter(|l| l["event"] == "step").collect();
    let own = json_lines(dir.join(".peftc/runs/r/learn/metrics.jsonl"));
    assert_eq!(steps.len(), 3);
    for (said, own) in steps.iter().zip(&own) {
        for key in ["step", "loss", "lr", "grad_norm", "peak_bytes"] {
            assert_eq!(said[key], own[key], "{key}");
        }
    }
    let finished: Vec<&Value> = lines.iter().filter(|l| l["event"] == "done").collect();
    assert_eq!(finished.len(), 2);

    let records = events(&dir.join("tb/learn"));
    assert!(has(&records[0], "brain.Event:2") && has(&records[1], "| lr |"));
    let with = |tag: &str| records.iter().filter(|r| has(r, tag)).count();
    assert_eq!((with("grad_norm"), with("peak_bytes")), (3, 3));
    assert!(with("dev/accuracy") >= 1 && with("final/accuracy") == 1);

    let metas = std::fs::read_dir(dir.join("ml"))
        .expect("a store")
        .map(|e| e.expect("an entry").path());
    let experiment = metas.last().expect("an experiment");
    let runs: Vec<PathBuf> = std::fs::read_dir(experiment)
        .expect("runs")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.is_dir())
        .collect();
    let of = |path: &str| {
        runs.iter()
            .find_map(|run| std::fs::read_to_string(run.join(path)).ok())
    };
    assert_eq!(runs.len(), 2);
    let losses = of("metrics/loss").expect("a curve");
    let last = losses
        .lines()
        .last()
        .expect("a line")
        .split(' ')
        .collect::<Vec<_>>();
    assert_eq!(
        (last[1].parse::<f64>().ok(), last[2]),
        (own[2]["loss"].as_f64(), "3")
    );
    assert_eq!(of("params/batch").as_deref(), Some("2"));
    assert!(runs.iter().all(|run| {
        std::fs::read_to_string(run.join("meta.yaml"))
            .expect("meta")
            .contains("status: 3")
    }));

    cards(dir, &recipe);
}

fn cards(dir: &Path, recipe: &Path) {
    let card =
        std::fs::read_to_string(dir.join(".peftc/runs/r/learn/adapter/README.md")).expect("a card");
    let (head, body) = card
        .strip_prefix("---\n")
        .and_then(|rest| rest.split_once("---\n"))
        .expect("a head");
    assert!(
        head.contains("library_name: \"peft\"\npipeline_tag: \"text-classification\"\n"),
        "{head}"
    );
    assert!(
        head.contains("- type: \"accuracy\"\n      value: ") && head.contains("name: \"d.dev\""),
        "{head}"
    );
    // A folder of this machine is no repository of the hub.
    assert!(
        !head.contains("base_model") && !head.contains("datasets"),
        "{head}"
    );
    for part in [
        "peftc run r.peft",
        "| `tensors, measured` |",
        "| `lr` | `",
        "stage learn = train",
        "\n````\n",
        "`bad`, `good`",
    ] {
        assert!(body.contains(part), "{part}: {body}");
    }
    let published = dir.join("pub/README.md");
    let whole = std::fs::read_to_string(&published).expect("a card");
    assert!(whole.contains("library_name: \"transformers\""), "{whole}");
    // One that somebody has made their own stays; another is written again.
    let again = |text: &str| {
        std::fs::write(&published, text).expect("written");
        done(program().args(["run", "--quiet"]).arg(recipe));
        std::fs::read_to_string(&published).expect("a card")
    };
    assert_eq!(again("mine"), "mine");
    assert_eq!(again(&whole.replace("# whole", "# other")), whole);
}

#[test]
fn a_log_that_cannot_be_written_is_said() {
    let (place, recipe) = place();
    let dir = place.path();
    std::fs::write(dir.join("file"), "").expect("written");
    let run = |log: &str| {
        let mut command = program();
        command
            .current_dir(dir)
            .args(["run", "--log", log])
            .arg(&recipe)
            .output()
            .expect("starts")
    };
    let output = run("tensorboard=file");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr_of(&output).contains("--log tensorboard=file"),
        "{}",
        stderr_of(&output)
    );
    let output = run("wandb=x");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr_of(&output).contains("W&B"), "{}", stderr_of(&output));
}
