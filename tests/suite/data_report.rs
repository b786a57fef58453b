//! What `check` says of data: counted right, kept with the tokens, and left out when asked.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::support::{here, printed, program, stderr_of};

fn check(recipe: &Path, cache: &Path, flags: &[&str]) -> Value {
    let output = program()
        .args(["check", "--json"])
        .args(flags)
        .arg(recipe)
        .env("XDG_CACHE_HOME", cache)
        .output()
        .expect("starts");
    let said = stderr_of(&output);
    assert!(output.status.success(), "{said}");
    let json: Value = printed(&output);
    json["recipes"][0].clone()
}

fn recipe(dir: &Path, model: &str, data: &str, length: u64) -> PathBuf {
    let here = here();
    let path = dir.join("r.peft");
    let text = format!(
        "model m = local \"{}\"\ndata d = local \".\" {{ text = sentence, label = label{data} }}\n\
         stage s = train {{ model = m, data = d.train, dev = d.dev, adapter = bitfit, lr = 1e-3, steps = 3, max_length = {length} }}\n",
        here.join(model).display()
    );
    std::fs::write(&path, text).expect("written");
    path
}

#[test]
fn rows_are_counted_as_they_are() {
    let dir = tempfile::tempdir().expect("a directory");
    // Words that are one token each: a text of n of them has n + 2 tokens.
    let text = |n: usize| vec!["film"; n].join(" ");
    let mut train = String::from("sentence\tlabel\n");
    for n in 1..=100 {
        train.push_str(&format!(
            "{}\t{}\n",
            text(n),
            ["bad", "good", "fine"][n % 3]
        ));
    }
    train.push_str(&format!(
        "{}\tgood\n{}\tbad\n\tbad\nNULL\tfine\n",
        text(7),
        text(7)
    ));
    let dev = format!(
        "sentence\tlabel\n{}\tgood\n{}\tbad\nanother film\tfine\n",
        text(7),
        text(8)
    );
    std::fs::write(dir.path().join("train.tsv"), train).expect("written");
    std::fs::write(dir.path().join("dev.tsv"), dev).expect("written");
    let recipe = recipe(dir.path(), "tests/reference/bert-tiny", "", 82);
    let told = check(&recipe, dir.path(), &[]);
    let (train, dev) = (&told["data"][0], &told["data"][1]);
    assert_eq!(
        (&train["name"], &train["split"]),
        (&json!("d"), &json!("train"))
    );
    assert_eq!(train["rows"], 104);
    assert_eq!(
        train["classes"],
        json!({ "bad": 35, "fine": 34, "good": 35 })
    );
    assert_eq!(
        train["tokens"],
        json!({ "median": 50.5, "p99": 101, "max": 102 })
    );
    assert_eq!(train["cut_share"], json!(20.0 / 104.0));
    assert_eq!(train["duplicates"], 2);
    assert_eq!((&train["empty"], &train["nulls"]), (&json!(1), &json!(1)));
    // Of the rows of `train`, three are the seventh text and one the eighth.
    assert_eq!(train["overlap"], json!({ "dev": 4 }));
    assert_eq!(dev["overlap"], json!({ "train": 2 }));
    let codes: Vec<&Value> = told["diagnostics"]
        .as_array()
        .expect("diagnostics")
        .iter()
        .map(|d| &d["code"])
        .collect();
    assert_eq!(codes, ["peftc::plan::shared_rows"]);

    let silent = check(&recipe, dir.path(), &["--no-data-report"]);
    assert_eq!(
        (&silent["data"], &silent["diagnostics"]),
        (&json!([]), &json!([]))
    );
    assert_eq!(silent["stages"], told["stages"]);
}

#[test]
fn the_report_is_kept_with_the_tokens() {
    let dir = tempfile::tempdir().expect("a directory");
    let reviews = std::fs::read_to_string("recipes/reviews/train.tsv").expect("texts");
    let (header, rows) = reviews.split_once('\n').expect("a header");
    std::fs::write(
        dir.path().join("all.tsv"),
        format!("{header}\n{rows}{rows}"),
    )
    .expect("written");
    let files = ", train = [\"all.tsv\"], dev = [\"all.tsv\"]";
    let recipe = recipe(dir.path(), "tests/reference/bert-tiny", files, 32);
    let cache = dir.path().join("cache");
    let kept = || {
        let files = std::fs::read_dir(cache.join("peftc/tokens")).expect("a folder");
        let names = files.flatten().map(|e| e.path());
        // Each has its checksum beside it.
        names.filter(|p| p.extension().is_none()).count()
    };
    // The classes of the first split are those of the second, so that there are two files.
    // Tokens that were kept without a report get one when it is asked for.
    let silent = check(&recipe, &cache, &["--no-data-report"]);
    assert_eq!((silent["data"].clone(), kept()), (json!([]), 2));
    let made = check(&recipe, &cache, &[]);
    assert_eq!(made["data"][0]["rows"], 2 * 7546);
    assert_eq!(made["data"][0]["duplicates"], 7546);
    assert_eq!(made["data"][0]["overlap"], json!({ "dev": 2 * 7546 }));
    let read = check(&recipe, &cache, &[]);
    assert_eq!((&read, kept()), (&made, 2));
    assert_eq!(check(&recipe, &cache, &["--no-data-report"]), silent);
}
