//! Sweeps: what no axis reaches runs once, and what has run does not run again.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use super::support::{here, json, program, stderr_of};

fn recipe(dir: &Path) -> PathBuf {
    let here = here();
    let at = here.display();
    let text = format!(
        "let number = 1\nlet method = full\nlet rate = 1e-3\n\
         sweep seeds = grid {{ number = [1, 2] }}\n\
         sweep methods = zip {{ method = [head_only, lora {{ rank = 2 }}], rate = [1e-2, 1e-3] }}\n\
         model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 60 }}\n\
         stage warm = train {{ model = m, data = d.train, adapter = full, lr = 1e-3, steps = 2 }}\n\
         stage learn = train {{ from = warm, data = d.train, adapter = method, lr = rate, seed = number, steps = 2 }}\n\
         stage score = eval {{ from = learn, data = d.dev }}\n"
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, text).expect("written");
    path
}

fn peftc(args: &[&str], path: &Path) -> Output {
    let output = program().args(args).arg(path).output().expect("starts");
    assert!(output.status.success(), "{args:?}: {}", stderr_of(&output));
    output
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stages(dir: &Path) -> Vec<Value> {
    let path = dir.join(".peftc/runs/r/result.json");
    let json: Value = json(path);
    json["stages"].as_array().expect("stages").clone()
}

#[test]
fn what_no_axis_reaches_runs_once_and_nothing_runs_twice() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = recipe(dir.path());
    let first = peftc(&["run"], &path);
    let log = stderr_of(&first);
    assert_eq!(log.matches("warm (train)").count(), 1, "{log}");
    let ran = stages(dir.path());
    let names: Vec<&str> = ran.iter().filter_map(|s| s["name"].as_str()).collect();
    assert_eq!(
        names,
        [
            "warm",
            "learn@number=1,method=head_only,rate=1e-2",
            "score@number=1,method=head_only,rate=1e-2",
            "learn@number=1,method=lora,rate=1e-3",
            "score@number=1,method=lora,rate=1e-3",
            "learn@number=2,method=head_only,rate=1e-2",
            "score@number=2,method=head_only,rate=1e-2",
            "learn@number=2,method=lora,rate=1e-3",
            "score@number=2,method=lora,rate=1e-3",
        ]
    );
    assert!(ran.iter().all(|s| s["cached"] == false));
    assert_eq!(ran[2]["stage"], "score");
    assert_eq!(ran[2]["from"], names[1]);
    assert_eq!(ran[2]["at"]["method"], "head_only");
    let out = dir.path().join(".peftc/runs/r").join(names[2]);
    assert!(out.join("predictions.tsv").is_file());
    // A table a stage, the seeds joined.
    let tables = text(&first);
    let table = tables.split("\n  score:\n").nth(1).expect("a table");
    let table = table.split("\n  made by").next().expect("its rows");
    assert!(table.contains("method=head_only,rate=1e-2"), "{tables}");
    assert!(
        table.contains(" ± ") && !table.contains("number="),
        "{tables}"
    );

    peftc(&["run", "--quiet"], &path);
    assert!(stages(dir.path()).iter().all(|s| s["cached"] == true));
    let recipe = std::fs::read_to_string(&path).expect("text");
    let spread = recipe.replace(
        "{ number = [1, 2] }",
        "{\n  number = [\n    1\n    2 # again\n  ]\n}",
    );
    assert_ne!(recipe, spread);
    std::fs::write(&path, spread).expect("written");
    peftc(&["fmt"], &path);
    assert!(text(&peftc(&["run", "--dry-run"], &path)).contains("nothing would run"));

    // The report names rows by what repetitions share.
    let report = text(&peftc(&["report", "--format", "csv"], dir.path()));
    assert!(report.contains("r/learn@method=lora,"), "{report}");
}

#[test]
fn stages_are_asked_for_by_either_name_and_axes_can_be_fixed() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = recipe(dir.path());
    let dry = |args: &[&str]| {
        let all: Vec<&str> = ["run", "--dry-run"].iter().chain(args).copied().collect();
        text(&peftc(&all, &path))
    };
    assert_eq!(dry(&[]).lines().count(), 9);
    assert_eq!(dry(&["--stage", "learn"]).lines().count(), 5);
    let one = dry(&["--stage", "score@number=2,method=lora,rate=1e-3"]);
    assert_eq!(one.lines().count(), 3, "{one}");
    let fixed = dry(&["--set", "number=1"]);
    assert_eq!(fixed.lines().count(), 5);
    assert!(fixed.contains("learn@method=lora,rate=1e-3 "), "{fixed}");
    let bare = dry(&[
        "--set",
        "number=1",
        "--set",
        "method=full",
        "--set",
        "rate=1e-3",
    ]);
    assert_eq!(bare.lines().count(), 3);
    assert!(!bare.contains('@'), "{bare}");
    let json: Value =
        serde_json::from_slice(&peftc(&["plan", "--format", "json"], &path).stdout).expect("JSON");
    assert_eq!(json["points"], 4);
    let repeats: Vec<bool> = json["axes"]
        .as_array()
        .expect("axes")
        .iter()
        .filter_map(|a| a["repeats"].as_bool())
        .collect();
    assert_eq!(repeats, [true, false, false]);
    let mermaid = text(&peftc(&["plan", "--format", "mermaid"], &path));
    assert!(mermaid.contains("stage0 -->|model| stage1"), "{mermaid}");
}

#[test]
fn what_comes_out_the_same_at_several_points_is_one_stage() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = recipe(dir.path());
    let old = std::fs::read_to_string(&path).expect("text");
    let zip = "zip { method = [head_only, lora { rank = 2 }], rate = [1e-2, 1e-3] }";
    assert!(old.contains(zip));
    let new = old.replace(
        zip,
        "grid { method = [head_only, lora { rank = width }], width = [2, 4] }\nlet width = 8",
    );
    std::fs::write(&path, new).expect("written");
    let plan = text(&peftc(&["run", "--dry-run", "--stage", "learn"], &path));
    let names: Vec<&str> = plan
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert_eq!(
        names,
        [
            "warm",
            "learn@number=1,method=head_only",
            "learn@number=1,method=lora,width=2",
            "learn@number=1,method=lora,width=4",
            "learn@number=2,method=head_only",
            "learn@number=2,method=lora,width=2",
            "learn@number=2,method=lora,width=4",
        ]
    );
}
