//! Recompute gives the same bits in less memory; `fit = auto` finds a way into a budget and keeps to it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn peftc(dir: &Path, stage: &str, args: &[&str]) -> Output {
    let here = std::env::current_dir().expect("a working directory");
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 120 }}\n\
         stage s = train {{ model = m, data = d.train, lr = 1e-3, epochs = 1, features = 0B, {stage} }}\n"
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, text).expect("written");
    Command::new(env!("CARGO_BIN_EXE_peftc"))
        .args(args)
        .arg(&path)
        .output()
        .expect("starts")
}

/// Runs the recipe; the losses and the stage's result.
fn run(dir: &Path, stage: &str, more: &[&str]) -> (Vec<String>, Value) {
    let args = [&["run", "--quiet", "--json", "--fresh"], more].concat();
    let output = peftc(dir, stage, &args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stage}: {said}");
    let log = std::fs::read_to_string(dir.join(".peftc/runs/r/s/metrics.jsonl")).expect("a log");
    let lines = log.lines().map(|l| {
        let v: Value = serde_json::from_str(l).expect("JSON");
        format!("{} {} {}", v["step"], v["loss"], v["grad_norm"])
    });
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    (lines.collect(), result["stages"][0].clone())
}

fn check(dir: &Path, stage: &str, budget: &str) -> (Option<i32>, Value) {
    let output = peftc(dir, stage, &["check", "--json", "--budget", budget]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    (
        output.status.code(),
        json["recipes"][0]["stages"][0].clone(),
    )
}

fn bytes(stage: &Value, key: &str) -> u64 {
    stage[key].as_u64().expect("bytes")
}

#[test]
fn recompute_changes_no_bit_and_meets_its_smaller_estimate() {
    for method in [
        "full",
        "lora { rank = 4, on = {attention.*, ffn.*} }",
        "k_lst { k = 3, r = 4, dropout = 0.2 }",
    ] {
        for micro in ["", ", micro_batch = 6"] {
            let dir = tempfile::tempdir().expect("a scratch directory");
            let stage = format!("adapter = {method}{micro}");
            let (kept, plain) = run(dir.path(), &stage, &[]);
            let mut last = bytes(&plain, "estimated_peak_bytes");
            for blocks in [", recompute_blocks = 1", ""] {
                let again = format!("{stage}, recompute = true{blocks}");
                let (made, result) = run(dir.path(), &again, &[]);
                assert_eq!(made, kept, "{again}");
                let (estimated, measured) = (
                    bytes(&result, "estimated_peak_bytes"),
                    bytes(&result, "measured_peak_bytes"),
                );
                let ratio = measured as f64 / estimated as f64;
                assert!((0.98..=1.0).contains(&ratio), "{again}: {ratio}");
                assert!(estimated <= last, "{again}: {estimated} after {last}");
                last = estimated;
            }
            let all = bytes(&plain, "estimated_peak_bytes");
            assert!(last < all, "{stage}: {last} of {all}");
        }
    }
}

#[test]
fn auto_fits_where_what_is_written_does_not() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let stage = "adapter = lora { rank = 4 }, batch = 32";
    let (code, as_written) = check(dir.path(), stage, "1GiB");
    assert_eq!(code, Some(0));
    let memory = |s: &Value| bytes(&s["memory"], "peak") + bytes(&s["memory"], "host");
    let whole = memory(&as_written);
    // With room nothing changes; with less and less, first one then the other way is taken.
    let auto = format!("{stage}, fit = auto");
    let (_, easy) = check(dir.path(), &auto, "1GiB");
    assert_eq!(
        (&easy["micro_batch"], &easy["recompute"]),
        (&32.into(), &false.into())
    );
    assert_eq!(easy["fingerprint"], as_written["fingerprint"]);
    let budget = format!("{}B", whole - 1);
    assert_eq!(check(dir.path(), stage, &budget).0, Some(3));
    let (code, tight) = check(dir.path(), &auto, &budget);
    assert_eq!(code, Some(0));
    assert!(memory(&tight) < whole);
    let changed = tight["recompute"] == true || tight["micro_batch"] != 32;
    assert!(changed, "{tight}");
    let (_, result) = run(dir.path(), &auto, &["--budget", &budget]);
    assert!(bytes(&result, "measured_peak_bytes") <= whole - bytes(&tight["memory"], "host"));
    assert_eq!(result["fingerprint"], tight["fingerprint"]);
    // What no way makes fit is refused as before.
    assert_eq!(check(dir.path(), &auto, "16MiB").0, Some(3));
}
