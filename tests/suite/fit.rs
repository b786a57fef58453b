//! Recompute gives the same bits in less memory; `fit = auto` finds a way into a budget and keeps to it.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::support::{here, printed, program, stderr_of};

fn peftc(dir: &Path, stage: &str, args: &[&str]) -> Output {
    let rate = if stage.contains("lr =") {
        ""
    } else {
        ", lr = 1e-3, epochs = 1"
    };
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 120 }}\n\
         stage s = train {{ model = m, data = d.train, features = 0B, {stage}{rate} }}\n"
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, text).expect("written");
    program().args(args).arg(&path).output().expect("starts")
}

/// Runs the recipe; the losses and the stage's result.
fn run(dir: &Path, stage: &str, more: &[&str]) -> (Vec<String>, Value) {
    let args = [&["run", "--quiet", "--json", "--fresh"], more].concat();
    let output = peftc(dir, stage, &args);
    let said = stderr_of(&output);
    assert!(output.status.success(), "{stage}: {said}");
    let log = std::fs::read_to_string(dir.join(".peftc/runs/r/s/metrics.jsonl")).expect("a log");
    let lines = log.lines().map(|l| {
        let v: Value = serde_json::from_str(l).expect("JSON");
        format!("{} {} {}", v["step"], v["loss"], v["grad_norm"])
    });
    let result: Value = printed(&output);
    (lines.collect(), result["stages"][0].clone())
}

fn check(dir: &Path, stage: &str, budget: &str) -> (Option<i32>, Value) {
    let output = peftc(dir, stage, &["check", "--json", "--budget", budget]);
    let json: Value = printed(&output);
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

/// What a single step of plain descent with rate 1 makes of the tensors that were zero: minus their gradient;
/// before them loss and gradient norm.
fn gradient(dir: &Path, method: &str, grouping: &str) -> Vec<Vec<f32>> {
    let stage = format!(
        "adapter = {method}, optimizer = sgd, lr = 1, clip = 0, steps = 1, batch = 24{grouping}"
    );
    let (lines, result) = run(dir, &stage, &[]);
    let numbers = lines[0].split(' ').skip(1);
    let numbers = numbers.map(|n| n.parse().expect("a number")).collect();
    let file =
        Path::new(result["artifact"].as_str().expect("a path")).join("adapter/peftc.safetensors");
    let bytes = std::fs::read(&file).expect("an adapter");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
    let mut names = tensors.names();
    names.sort();
    let values = names.into_iter().map(|name| {
        let data = tensors
            .tensor(name)
            .expect("it is there")
            .data()
            .as_chunks::<4>()
            .0;
        data.iter().map(|&x| f32::from_le_bytes(x)).collect()
    });
    std::iter::once(numbers).chain(values).collect()
}

#[test]
fn any_grouping_of_a_step_gives_the_same_gradient() {
    for method in [
        "lora { rank = 4, dropout = 0.1, on = {attention.*, ffn.*} }",
        "k_lst { k = 3, r = 4, dropout = 0.2 }",
    ] {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let whole = gradient(dir.path(), method, "");
        assert!(whole.len() > 10 && whole.iter().flatten().any(|x| x.abs() > 1e-4));
        for grouping in [1, 5, 7, 23] {
            let parts = gradient(dir.path(), method, &format!(", micro_batch = {grouping}"));
            assert_eq!(parts.len(), whole.len());
            for (a, b) in whole.iter().zip(&parts) {
                // Where nothing but rounding is left of a gradient (biases of keys), it is near nothing in each.
                let largest = a.iter().fold(1e-5_f32, |m, x| m.max(x.abs()));
                for (a, b) in a.iter().zip(b) {
                    assert!(
                        (a - b).abs() <= 1e-5 * largest,
                        "{method} by {grouping}: {a} {b}"
                    );
                }
            }
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

/// All ways into a budget, each with what it needs and the time it is said to take.
fn ways(dir: &Path, stage: &str, batch: u64, layers: u64) -> Vec<(u64, f64, String)> {
    let mut list = Vec::new();
    for micro in 1..=batch {
        for blocks in 0..=layers {
            let again = match blocks {
                0 => String::new(),
                n => format!(", recompute = true, recompute_blocks = {n}"),
            };
            let size = if micro == batch {
                String::new()
            } else {
                format!(", micro_batch = {micro}")
            };
            let way = format!("{size}{again}");
            let (_, checked) = check(dir, &format!("{stage}{way}"), "64GiB");
            let memory = &checked["memory"];
            let needs = bytes(memory, "peak") + bytes(memory, "host");
            let time = checked["estimated_s"].as_f64().expect("a time");
            list.push((needs, time, way));
        }
    }
    list
}

#[test]
fn no_way_that_fits_is_estimated_faster_than_what_auto_takes() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    for (stage, batch) in [
        (
            "adapter = lora { rank = 4, on = {attention.*, ffn.*} }, batch = 12",
            12,
        ),
        // Its evaluations have the whole batch whatever the training has.
        (
            "adapter = full, batch = 6, dev = d.dev, evaluate = 2 steps",
            6,
        ),
        ("adapter = k_lst { k = 3, r = 4 }, batch = 5", 5),
    ] {
        let ways = ways(dir.path(), stage, batch, 3);
        let least = ways.iter().map(|w| w.0).min().expect("a way");
        let most = ways.iter().map(|w| w.0).max().expect("a way");
        for part in 0..8 {
            let budget = least + (most - least) * part / 8;
            let fitting = ways.iter().filter(|w| w.0 <= budget);
            let best = fitting.min_by(|a, b| a.1.total_cmp(&b.1)).expect("a way");
            let auto = format!("{stage}, fit = auto");
            let (code, taken) = check(dir.path(), &auto, &format!("{budget}B"));
            assert_eq!(code, Some(0), "{stage} in {budget}");
            let time = taken["estimated_s"].as_f64().expect("a time");
            let (micro, again) = (&taken["micro_batch"], &taken["recompute_blocks"]);
            assert!(
                time <= best.1 * (1.0 + 1e-9),
                "{stage} in {budget}: {micro} with {again} recomputed takes {time}, but {best:?}"
            );
        }
    }
}
