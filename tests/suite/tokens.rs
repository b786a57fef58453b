//! Tokens of large splits: kept between runs, the same as those in memory, made again when damaged.

use std::path::{Path, PathBuf};
use std::process::Output;

use super::support::{here, program, stderr_of, stdout_of};

/// A recipe over 1.2 MiB of texts, in a file of its own.
fn recipe(dir: &Path) -> PathBuf {
    let here = here();
    let reviews = std::fs::read_to_string("recipes/reviews/train.tsv").expect("texts");
    let (header, rows) = reviews.split_once('\n').expect("a header");
    std::fs::write(dir.join("train.tsv"), format!("{header}\n{rows}{rows}")).expect("written");
    let model = here.join("tests/reference/roberta-tiny");
    let path = dir.join("r.peft");
    let text = format!(
        "model m = local \"{}\"\n\
         data d = local \".\" {{ text = sentence, label = label, shuffle = 3, take = 14000 }}\n\
         stage s = train {{ model = m, data = d.train, adapter = bitfit, lr = 1e-3, steps = 3 }}\n",
        model.display()
    );
    std::fs::write(&path, text).expect("written");
    path
}

fn peftc(command: &[&str], recipe: &Path, cache: &Path) -> Output {
    program()
        .args(command)
        .arg(recipe)
        .env("XDG_CACHE_HOME", cache)
        .output()
        .expect("starts")
}

/// Trains anew and gives the losses.
fn train(recipe: &Path, cache: &Path) -> Vec<f64> {
    let output = peftc(&["run", "--fresh", "--quiet"], recipe, cache);
    let said = stderr_of(&output);
    assert!(output.status.success(), "{said}");
    let runs = recipe.with_file_name(".peftc/runs/r/s");
    let log = std::fs::read_to_string(runs.join("metrics.jsonl")).expect("a log");
    let losses = log.lines().map(|l| {
        let line: serde_json::Value = serde_json::from_str(l).expect("JSON");
        line["loss"].as_f64().expect("a loss")
    });
    losses.collect()
}

fn kept(cache: &Path) -> Vec<PathBuf> {
    let list = std::fs::read_dir(cache.join("peftc/tokens")).expect("a folder");
    let all = list.flatten().map(|e| e.path());
    all.filter(|p| p.extension().is_none()).collect()
}

#[test]
fn large_splits_are_tokenized_once_and_small_ones_leave_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let recipe = recipe(dir.path());
    let cache = dir.path().join("cache");
    let made = train(&recipe, &cache);
    let files = kept(&cache);
    assert_eq!(files.len(), 1, "{files:?}");
    let first = std::fs::metadata(&files[0]).expect("a file");
    let read = train(&recipe, &cache);
    assert_eq!(made, read, "kept tokens are others");
    assert_eq!(kept(&cache).len(), 1);

    // A folder that cannot be: the tokens stay in memory, which is told, and are the same.
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("written");
    assert_eq!(made, train(&recipe, &file), "tokens in memory are others");
    let output = peftc(&["check"], &recipe, &file);
    assert!(output.status.success());
    let said = stderr_of(&output);
    assert!(said.contains("peftc::plan::unkept_tokens"), "{said}");

    // Cut short, the file is made again.
    let bytes = std::fs::read(&files[0]).expect("a file");
    std::fs::write(&files[0], &bytes[..bytes.len() / 2]).expect("written");
    assert_eq!(train(&recipe, &cache), made);
    let again = std::fs::metadata(&files[0]).expect("a file").len();
    assert_eq!(again, first.len());

    // With tokens turned over, too, and `store verify` knows of it.
    let mut wrong = bytes.clone();
    for byte in &mut wrong[16..200_000] {
        *byte ^= 1;
    }
    std::fs::write(&files[0], &wrong).expect("written");
    assert_eq!(train(&recipe, &cache), made);
    assert_eq!(std::fs::read(&files[0]).expect("a file"), bytes);
    std::fs::write(&files[0], &wrong).expect("written");
    let output = peftc(&["store", "verify"], &recipe, &cache);
    let said = stdout_of(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("its bytes are not those"), "{said}");
    assert!(kept(&cache).is_empty(), "it would be read again");

    // A split of less than 64 KiB is not worth a file.
    let small = dir.path().join("small");
    let text = std::fs::read_to_string(dir.path().join("train.tsv")).expect("texts");
    let few: String = text
        .lines()
        .take(200)
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(dir.path().join("train.tsv"), few).expect("written");
    let output = peftc(&["check"], &recipe, &small);
    assert!(output.status.success());
    assert!(!small.exists());
}
