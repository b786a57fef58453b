//! Runs that differ in their seeds only are one row of a report; broken results are named.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::support::{here, json, printed, program};

fn peftc(args: &[&str], paths: &[&Path]) -> Output {
    program().args(args).args(paths).output().expect("starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A recipe of two trainings, one upon the other, run under a seed.
fn run(dir: &Path, seed: u64) -> Value {
    let here = here();
    let at = here.display();
    let recipe = dir.join("tiny.peft");
    let body = format!(
        "let seed = 1\n\
         model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 400 }}\n\
         stage warm = train {{ model = m, data = d.train, adapter = head_only, lr = 1e-3, steps = 4, micro_batch = 5, seed = seed }}\n\
         stage learn = train {{ from = warm, data = d.train, adapter = lora, lr = 1e-3, steps = 4, seed = seed, dev = d.dev, evaluate = 2 steps, best = accuracy }}\n\
         stage score = eval {{ from = learn, data = d.test }}\n"
    );
    std::fs::write(&recipe, body).expect("written");
    let out = dir.join("runs").join(format!("seed-{seed}"));
    let output = program()
        .args(["run", "--quiet", "--set", &format!("seed={seed}"), "--out"])
        .arg(&out)
        .arg(&recipe)
        .output()
        .expect("starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    json(out.join("result.json"))
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one training, looked at from all sides"
)]
fn two_seeds_of_a_recipe_are_one_row() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (one, two) = (run(dir.path(), 1), run(dir.path(), 2));
    for (a, b) in one["stages"]
        .as_array()
        .expect("stages")
        .iter()
        .zip(two["stages"].as_array().expect("stages"))
    {
        let name = &a["name"];
        assert!(a["variant"].is_string(), "{name}");
        assert_eq!(a["variant"], b["variant"], "{name}");
        assert_ne!(a["fingerprint"], b["fingerprint"], "{name}");
        let profile = a["memory_profile"].as_array().expect("a profile");
        assert!((1..=200).contains(&profile.len()), "{name}");
        let top = profile.iter().filter_map(|p| p["bytes"].as_u64()).max();
        assert_eq!(top, a["estimated_peak_bytes"].as_u64(), "{name}");
    }
    assert_ne!(one["stages"][0]["variant"], one["stages"][1]["variant"]);
    assert_eq!(one["stages"][1]["methods"][0], "lora");
    assert_eq!(one["stages"][1]["from"], "warm");
    assert_eq!(two["stages"][1]["seed"], 2);
    assert_eq!(two["stages"][2]["seed"], Value::Null);
    // From the store come the same facts.
    let again = run(dir.path(), 2);
    for (a, b) in two["stages"]
        .as_array()
        .expect("stages")
        .iter()
        .zip(again["stages"].as_array().expect("stages"))
    {
        assert_eq!(b["cached"], true);
        assert_eq!(a["memory_profile"], b["memory_profile"]);
        assert_eq!(a["variant"], b["variant"]);
    }

    let output = peftc(&["report", "--json"], &[dir.path()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = printed(&output);
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    let learn = rows
        .iter()
        .find(|r| r["name"] == "tiny/learn")
        .expect("the row of `learn`");
    assert_eq!((&learn["runs"], &learn["seeds"][1]), (&2.into(), &2.into()));
    assert_eq!(learn["scored_by"][0], "score");
    let accuracy = &learn["metrics"]["accuracy"];
    let of = |r: &Value| r["stages"][2]["metrics"]["accuracy"].as_f64().expect("one");
    let mean = (of(&one) + of(&two)) / 2.0;
    assert!((accuracy["mean"].as_f64().expect("a mean") - mean).abs() < 1e-12);
    assert_eq!(accuracy["n"], 2);

    let output = peftc(&["report"], &[dir.path()]);
    let table = text(&output.stdout);
    assert!(
        table.contains("tiny/learn") && table.contains('±'),
        "{table}"
    );
    assert!(table.lines().all(|l| l.chars().count() <= 100), "{table}");

    let page = dir.path().join("report.html");
    let output = peftc(
        &["report", "--output", &page.display().to_string()],
        &[dir.path()],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let page = std::fs::read_to_string(page).expect("a page");
    for part in [
        "accuracy against memory",
        "Learning curves",
        "on the dev split",
        "Memory over a step",
        "class='kept'",
        "Seeds, dates and machines of 4 runs",
        "stage warm = train",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let on = &learn["scored_on"];
    assert_eq!((&on["name"], &on["rows"]), (&"d.test".into(), &400.into()));
    assert_eq!(on["hash"], one["stages"][2]["data"]["data"]["hash"]);
    assert_ne!(on["hash"], one["stages"][1]["data"]["data"]["hash"]);
    assert_eq!(learn["noise"], "apart");
    assert_eq!(report["groups"].as_array().map(Vec::len), Some(1));
    let date = learn["results"][0]["date"].as_str().expect("a date");
    assert!(date.starts_with("20") && date.ends_with('Z'), "{date}");

    // A format that is not written is refused, and nothing is left of it.
    let pdf = dir.path().join("report.pdf");
    let output = peftc(
        &["report", "--output", &pdf.display().to_string()],
        &[dir.path()],
    );
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(".html, .md, .csv, .json or .txt"));
    assert!(!pdf.exists());
}

#[test]
fn a_broken_result_is_named_with_a_remedy() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let output = peftc(&["report"], &[dir.path()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("holds no result.json"));
    let path = dir.path().join("result.json");
    std::fs::write(&path, "{\"schema\": 1,").expect("written");
    let output = peftc(&["report"], &[dir.path()]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("result.json") && said.contains("run the recipe again"),
        "{said}"
    );
}
