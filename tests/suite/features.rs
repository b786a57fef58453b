//! Kept features: the same bits as without, whatever part of them is kept, found or lost; and memory
//! as announced.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::support::{here, printed, program, stderr_of, stdout_of};

/// Methods with a frozen part worth keeping; the last one has no gradient at all.
const STAGES: [&str; 5] = [
    "train { adapter = lst { r = 4 }",
    "train { adapter = k_lst { k = 3, r = 4, dropout = 0.2 }, micro_batch = 5",
    "train { adapter = last_n { n = 1 }",
    "train { adapter = head_only",
    "mezo { adapter = lst { r = 4 }",
];

fn write(dir: &Path, stage: &str, keys: &str) -> PathBuf {
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 160 }}\n\
         stage s = {stage}, model = m, data = d.train, dev = d.dev, lr = 1e-3, epochs = 2{keys} }}\n"
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, text).expect("written");
    path
}

/// Runs a recipe and gives its losses, its dev metrics and its result.
fn run(dir: &Path, stage: &str, keys: &str) -> (Vec<String>, Value) {
    let path = write(dir, stage, keys);
    let output = program()
        .args(["run", "--quiet", "--json", "--fresh"])
        .arg(&path)
        .output()
        .expect("starts");
    let said = stderr_of(&output);
    assert!(output.status.success(), "{stage}{keys}: {said}");
    let log = std::fs::read_to_string(dir.join(".peftc/runs/r/s/metrics.jsonl")).expect("a log");
    let lines = log.lines().map(|l| {
        let v: Value = serde_json::from_str(l).expect("JSON");
        format!(
            "{} {} {} {}",
            v["step"], v["loss"], v["grad_norm"], v["dev"]
        )
    });
    let result: Value = printed(&output);
    (lines.collect(), result["stages"][0].clone())
}

/// Files of rows, and their notes.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let root = dir.join(".peftc/store/features");
    let sets = std::fs::read_dir(root).into_iter().flatten().flatten();
    let files = sets.flat_map(|s| std::fs::read_dir(s.path()).into_iter().flatten().flatten());
    files
        .map(|f| f.path())
        .filter(|p| p.extension().is_some_and(|e| e == extension))
        .collect()
}

fn ratio(stage: &Value) -> f64 {
    let bytes = |key: &str| stage[key].as_f64().expect("bytes");
    bytes("measured_peak_bytes") / bytes("estimated_peak_bytes")
}

#[test]
fn kept_features_change_no_bit() {
    for stage in STAGES {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let (plain, result) = run(dir.path(), stage, ", features = 0B");
        assert!(files(dir.path(), "f32").is_empty(), "{stage}");
        assert!((0.98..=1.0).contains(&ratio(&result)), "{stage}");
        // All of them; found again; a part of them, the others made in each step.
        let (all, result) = run(dir.path(), stage, "");
        assert_eq!(all, plain, "{stage}: kept");
        assert!(
            (0.98..=1.0).contains(&ratio(&result)),
            "{stage}: {}",
            ratio(&result)
        );
        assert!(!files(dir.path(), "f32").is_empty(), "{stage}");
        assert_eq!(run(dir.path(), stage, "").0, plain, "{stage}: found");
        let bound = if stage.contains("head_only") {
            "60KiB"
        } else {
            "2MiB"
        };
        let part = tempfile::tempdir().expect("a scratch directory");
        let (some, result) = run(part.path(), stage, &format!(", features = {bound}"));
        assert_eq!(some, plain, "{stage}: in part");
        assert!(
            (0.9..=1.0).contains(&ratio(&result)),
            "{stage} in part: {}",
            ratio(&result)
        );
        let size: u64 = files(part.path(), "f32")
            .iter()
            .map(|p| p.metadata().expect("a file").len())
            .sum();
        assert!(size > 0 && size <= 2 << 20, "{stage}: {size} bytes kept");
    }
}

#[test]
fn lost_notes_and_damaged_ends_are_filled_again() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (first, _) = run(dir.path(), STAGES[0], "");
    let rows = |dir: &Path| -> Vec<Vec<u8>> {
        let mut list = files(dir, "f32");
        list.sort();
        list.iter()
            .map(|p| std::fs::read(p).expect("rows"))
            .collect()
    };
    let before = rows(dir.path());
    for (i, note) in files(dir.path(), "json").into_iter().enumerate() {
        let damage = ["{ \"examples\": 30 }", "nonsense", ""][i % 3];
        std::fs::write(note, damage).expect("written");
    }
    for path in files(dir.path(), "f32") {
        let bytes = std::fs::read(&path).expect("rows");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
    }
    let (again, _) = run(dir.path(), STAGES[0], "");
    assert_eq!(again, first);
    assert_eq!(rows(dir.path()), before);
}

#[test]
fn stages_with_the_same_frozen_part_share_its_features() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    run(dir.path(), STAGES[0], "");
    let before = files(dir.path(), "f32").len();
    run(dir.path(), STAGES[1], "");
    run(dir.path(), STAGES[2], "");
    run(dir.path(), STAGES[4], "");
    assert_eq!(
        files(dir.path(), "f32").len(),
        before,
        "the states are the ladder's"
    );
}

#[test]
fn plans_say_what_is_kept_or_why_not() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let said = |stage: &str, keys: &str| -> String {
        let path = write(dir.path(), stage, keys);
        let output = program().arg("plan").arg(path).output().expect("starts");
        let text = stdout_of(&output);
        let line = text
            .lines()
            .find(|l| l.trim_start().starts_with("features"));
        line.unwrap_or_default().trim().to_owned()
    };
    let lst = STAGES[0];
    assert!(
        said(lst, "").contains("all 320 examples kept"),
        "{}",
        said(lst, "")
    );
    assert!(said(lst, ", features = 1MiB").contains("the first"));
    assert!(said(lst, ", features = 0B").contains("leaves no room"));
    assert!(said(lst, ", dropout_frozen = true").contains("dropout_frozen"));
    assert_eq!(said("train { adapter = lora { rank = 2 }", ""), "");
}

#[test]
fn rounded_features_take_half_the_disk_and_depend_on_no_bound() {
    for stage in [STAGES[0], STAGES[1], STAGES[4]] {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let (plain, _) = run(dir.path(), stage, "");
        let (all, result) = run(dir.path(), stage, ", features_dtype = bf16");
        assert_ne!(all, plain, "{stage}: nothing was rounded");
        let loss = |lines: &[String]| -> f64 {
            let last = lines.last().expect("a line");
            let loss = last.split(' ').nth(1).expect("a loss");
            loss.parse().expect("a number")
        };
        let (a, b) = (loss(&all), loss(&plain));
        assert!((a - b).abs() < 0.02 * b, "{stage}: {a} against {b}");
        assert!((0.98..=1.0).contains(&ratio(&result)), "{stage}");
        let bytes = |extension: &str| -> u64 {
            let list = files(dir.path(), extension);
            list.iter()
                .map(|p| p.metadata().expect("a file").len())
                .sum()
        };
        assert_eq!(2 * bytes("bf16"), bytes("f32"), "{stage}");
        let again = run(dir.path(), stage, ", features_dtype = bf16").0;
        assert_eq!(again, all, "{stage}: found");
        for bound in ["1MiB", "0B"] {
            let other = tempfile::tempdir().expect("a scratch directory");
            let keys = format!(", features_dtype = bf16, features = {bound}");
            let (some, result) = run(other.path(), stage, &keys);
            assert_eq!(some, all, "{stage}: within {bound}");
            assert!((0.9..=1.0).contains(&ratio(&result)), "{stage} {bound}");
        }
    }
}
