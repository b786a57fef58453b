//! What a newcomer does after the first run: a part of the recipe again, a report, another budget, another folder.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::support::{here, program, stderr_of};

fn peftc(dir: &Path, args: &[&str]) -> Output {
    program()
        .args(args)
        .current_dir(dir)
        .env_remove("COLUMNS")
        .output()
        .expect("starts")
}

/// What a command that has to succeed says: standard output and standard error.
fn both(dir: &Path, args: &[&str]) -> (String, String) {
    let output = peftc(dir, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{args:?}: {err}");
    (out, err)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("listed").flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

/// A project with its model beside the recipe.
fn project(dir: &Path, items: &str) {
    copy(Path::new("tests/reference/bert-tiny"), &dir.join("base"));
    let at = here();
    let text = format!(
        "model m = local \"base\"\n\
         data d = local \"{}/recipes/reviews\" {{ text = sentence, label = label, labels = [negative, positive], take = 24 }}\n{items}",
        at.display()
    );
    std::fs::write(dir.join("r.peft"), text).expect("written");
}

const LEARN: &str = "stage learn = train { model = m, data = d.train, adapter = lora { rank = 2 }, lr = 1e-3, steps = 2, batch = 4 }\n";

/// The stages of a result.
fn stages(out: &Path) -> Vec<String> {
    let bytes = std::fs::read(out.join("result.json")).expect("a result");
    let json: Value = serde_json::from_slice(&bytes).expect("JSON");
    let list = json["stages"].as_array().expect("stages");
    list.iter()
        .map(|s| s["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_run_of_one_stage_keeps_the_results_that_still_hold() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let at = dir.path();
    let score = |batch: u64| {
        format!(
            "stage score = eval {{ from = learn, data = d.dev, batch = {batch}, max_length = {} }}\n",
            32 + batch
        )
    };
    let other = "stage other = train { model = m, data = d.train, adapter = head_only, lr = 1e-3, steps = 1, batch = 4 }\n";
    project(at, &(LEARN.to_owned() + &score(4) + other));
    let out = at.join(".peftc/runs/r");
    both(at, &["run", "r.peft"]);
    assert_eq!(stages(&out), ["learn", "score", "other"]);
    let (table, notes) = both(at, &["run", "r.peft", "--stage", "other"]);
    assert_eq!(
        stages(&out),
        ["learn", "score", "other"],
        "what was not asked for holds"
    );
    assert!(!notes.contains("left out"), "{notes}");
    assert!(
        !table.contains("score"),
        "the table is of what was asked for: {table}"
    );
    assert!(
        table.contains("--stage other"),
        "OUT has several models: {table}"
    );
    // Another reading of the dev split: its result is stale, and that is said.
    project(at, &(LEARN.to_owned() + &score(5) + other));
    let (_, notes) = both(at, &["run", "r.peft", "--stage", "learn"]);
    assert_eq!(stages(&out), ["learn", "other"]);
    assert!(
        notes.contains("`score` is left out of") && notes.contains("makes it anew"),
        "{notes}"
    );
    // A stage that the recipe has no longer goes, too.
    project(at, LEARN);
    let (_, notes) = both(at, &["run", "r.peft"]);
    assert_eq!(stages(&out), ["learn"]);
    assert!(
        notes.contains("`other` is left out of") && notes.contains("no such stage"),
        "{notes}"
    );
}

#[test]
fn what_is_finished_needs_no_memory_and_the_rest_is_told_what_would_fit() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let at = dir.path();
    let score = "stage score = eval { from = learn, data = d.dev }\n";
    project(at, &(LEARN.to_owned() + score));
    let small = ["run", "r.peft", "--budget", "1MiB"];
    assert_eq!(peftc(at, &small).status.code(), Some(3));
    both(at, &["run", "r.peft", "--stage", "learn"]);
    let part = peftc(at, &small);
    let text = stderr_of(&part);
    assert_eq!(part.status.code(), Some(3), "the evaluation is left");
    assert!(
        text.contains("`score` needs") && !text.contains("`learn` needs"),
        "{text}"
    );
    assert!(
        text.contains("lower `batch`") && !text.contains("fit = auto"),
        "{text}"
    );
    both(at, &["run", "r.peft"]);
    both(at, &small);
    both(at, &["run", "r.peft", "--budget", "1MiB", "--dry-run"]);
    assert_eq!(
        peftc(at, &["run", "r.peft", "--budget", "1MiB", "--fresh"])
            .status
            .code(),
        Some(3)
    );
    // What was tried is not advised.
    project(at, &LEARN.replace("steps = 2", "steps = 3, fit = auto"));
    let text = String::from_utf8_lossy(&peftc(at, &["check", "r.peft", "--budget", "1MiB"]).stdout)
        .into_owned();
    assert!(
        text.contains("has tried every micro-batch") && text.contains("max_length"),
        "{text}"
    );
    assert!(!text.contains("lets the compiler choose"), "{text}");
}

#[test]
fn the_same_rows_are_compared_whatever_the_order_of_their_classes() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let at = dir.path();
    let mut rows = String::from("text,label\n");
    for i in 0..12 {
        rows += &format!("a film of number {i},{}\n", ["bad", "good"][i % 2]);
    }
    std::fs::write(at.join("rows.csv"), rows).expect("written");
    for (name, labels) in [("a", "[bad, good]"), ("b", "[good, bad]")] {
        copy(Path::new("tests/reference/bert-tiny"), &at.join("base"));
        let text = format!(
            "model m = local \"base\"\n\
             data d = local \"rows.csv\" {{ text = text, label = label, labels = {labels} }}\n\
             stage learn = train {{ model = m, data = d.train, adapter = head_only, lr = 1e-3, steps = 1, batch = 4 }}\n\
             stage score = eval {{ from = learn, data = d.train, metrics = [accuracy, f1] }}\n"
        );
        std::fs::write(at.join(format!("{name}.peft")), text).expect("written");
        both(at, &["run", &format!("{name}.peft")]);
    }
    let (json, _) = both(at, &["report", ".", "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["groups"].as_array().map(Vec::len), Some(1), "{json:#}");
    assert_ne!(
        json["rows"][0]["scored_on"]["hash"],
        json["rows"][1]["scored_on"]["hash"]
    );
    assert_eq!(json["groups"][0]["metric"], "accuracy");
    let (table, _) = both(at, &["report", ".", "--by", "f1"]);
    assert!(
        table.contains("f1 of unlike classes") && table.contains("not ranked by it"),
        "{table}"
    );
    let (json, _) = both(at, &["report", ".", "--by", "f1", "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["groups"][0]["metric"], Value::Null);
    assert_eq!(json["groups"][0]["unlike"]["metric"], "f1");
    assert!(
        json["rows"]
            .as_array()
            .is_some_and(|rows| rows.iter().all(|r| r["pareto"] == false))
    );
}

#[test]
fn classes_that_are_truth_values_and_numbers_are_named_bare() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let at = dir.path();
    copy(Path::new("tests/reference/bert-tiny"), &at.join("base"));
    for (labels, positive, class) in [
        (["true", "false"], "false", "false"),
        (["true", "false"], "True", "true"),
        (["0", "1"], "0", "0"),
        (["0", "1"], "1.0", "1"),
    ] {
        let mut rows = String::new();
        for i in 0..8 {
            rows += &format!("{{\"text\": \"film {i}\", \"label\": {}}}\n", labels[i % 2]);
        }
        std::fs::write(at.join("rows.jsonl"), rows).expect("written");
        let text = format!(
            "model m = local \"base\"\n\
             data d = local \"rows.jsonl\" {{ text = text, label = label }}\n\
             stage s = train {{ model = m, data = d.train, dev = d.train, adapter = head_only, lr = 1e-3, steps = 1, batch = 4, \
             metrics = [f1], positive = {positive} }}\n"
        );
        std::fs::write(at.join("r.peft"), text).expect("written");
        let (json, _) = both(at, &["run", "r.peft", "--json"]);
        let json: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["stages"][0]["f1_class"], class);
    }
}

#[test]
fn a_project_is_moved_with_all_it_holds() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    std::fs::create_dir(&old).expect("made");
    let second = "stage more = train { from = full, data = d.train, adapter = lora { rank = 2 }, lr = 1e-3, steps = 1, batch = 4 }\n";
    let full = "stage full = train { model = m, data = d.train, adapter = full, lr = 1e-4, steps = 1, batch = 4 }\n";
    project(&old, &(LEARN.to_owned() + full + second));
    both(&old, &["run", "r.peft"]);
    std::fs::write(old.join("new.csv"), "sentence\na fine film\n").expect("written");
    let label = |at: &Path, model: &str, stage: &[&str]| {
        let args = [
            &[
                "predict",
                model,
                "--input",
                "new.csv",
                "--quiet",
                "--threads",
                "1",
            ],
            stage,
        ]
        .concat();
        both(at, &args).0
    };
    let before: Vec<String> = ["learn", "more"]
        .iter()
        .map(|s| label(&old, ".peftc/runs/r", &["--stage", s]))
        .collect();
    std::fs::rename(&old, &new).expect("moved");
    for (stage, before) in ["learn", "more"].iter().zip(&before) {
        assert_eq!(
            label(&new, ".peftc/runs/r", &["--stage", stage]),
            *before,
            "OUT, {stage}"
        );
        assert_eq!(
            label(&new, &format!(".peftc/runs/r/{stage}"), &[]),
            *before,
            "OUT/{stage}"
        );
        assert_eq!(
            label(&new, &format!(".peftc/runs/r/{stage}/adapter"), &[]),
            *before,
            "{stage}/adapter"
        );
    }
    // Without its base it says where that was, and what to do.
    std::fs::rename(new.join("base"), new.join("elsewhere")).expect("moved");
    let output = peftc(
        &new,
        &["predict", ".peftc/runs/r/learn", "--input", "new.csv"],
    );
    let text = stderr_of(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("it was in") && text.contains("put it back"),
        "{text}"
    );
}

#[test]
fn inputs_that_cannot_be_read_say_what_is_wanted() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let at = dir.path();
    project(at, LEARN);
    both(at, &["run", "r.peft"]);
    std::fs::write(at.join("new.csv"), "a fine film\nanother one\n").expect("written");
    let refused = |input: &str| {
        let output = peftc(at, &["predict", "r.peft", "--input", input]);
        assert_eq!(output.status.code(), Some(1), "{input}");
        stderr_of(&output)
    };
    let text = refused("new.csv");
    assert!(
        text.contains("first line of CSV input names its columns"),
        "{text}"
    );
    let text = refused("nwe.csv");
    assert!(
        text.contains("there is no such file") && text.contains("did you mean `new.csv`?"),
        "{text}"
    );
    let text = refused("nothing");
    assert!(
        text.contains("relative to the folder that you are in") && !text.contains("os error"),
        "{text}"
    );
}

#[test]
fn rates_of_other_threads_and_stranded_checkpoints_are_mentioned() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let at = dir.path();
    let long = LEARN.replace("steps = 2", "steps = 100_000");
    project(at, &long);
    let mut child = program()
        .args([
            "run",
            "r.peft",
            "--threads",
            "1",
            "--checkpoint-every",
            "0.05",
        ])
        .current_dir(at)
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    let store = at.join(".peftc/store");
    let begun = std::time::Instant::now();
    let kept = || {
        let entries = std::fs::read_dir(&store).into_iter().flatten().flatten();
        entries
            .map(|e| e.path().join("checkpoint"))
            .any(|c| std::fs::read_dir(c).is_ok_and(|l| l.count() > 0))
    };
    while !kept() && begun.elapsed().as_secs() < 60 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // A whole one, at least.
    std::thread::sleep(std::time::Duration::from_millis(500));
    child.kill().expect("killed");
    child.wait().expect("ended");
    let (out, err) = both(at, &["run", "r.peft", "--dry-run"]);
    assert!(
        out.contains("resumes at") && !err.contains("another version"),
        "{out}{err}"
    );
    project(at, &long.replace("lr = 1e-3", "lr = 2e-3"));
    let (out, err) = both(at, &["run", "r.peft", "--dry-run"]);
    assert_eq!(out.lines().count(), 1, "{out}");
    assert!(
        err.contains("a checkpoint of `learn` at step") && err.contains("another version"),
        "{err}"
    );
    let (json, _) = both(at, &["run", "r.peft", "--dry-run", "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert!(
        json["would_run"][0]["stranded_at"]
            .as_u64()
            .is_some_and(|n| n > 0),
        "{json}"
    );
    // What was measured with one thread is not what two do.
    project(at, LEARN);
    both(at, &["run", "r.peft", "--threads", "1"]);
    let (out, _) = both(at, &["check", "r.peft", "--threads", "2"]);
    let words = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("with `--threads 1`, and this is for 2"),
        "{out}"
    );
    let (out, _) = both(at, &["check", "r.peft", "--threads", "1"]);
    assert!(!out.contains("usual processor"), "{out}");
}
