//! Splits in directories and in a made-up cache of the hub.

use std::path::Path;

use super::*;
use crate::cli::world::RealWorld;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn touch(dir: &Path, files: &[&str]) -> Result<(), std::io::Error> {
    for file in files {
        let path = dir.join(file);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, "")?;
    }
    Ok(())
}

/// What is found, below the directory; or the error with its help.
fn local(files: &[&str], split: &str) -> Result<String, std::io::Error> {
    let dir = tempfile::tempdir()?;
    touch(dir.path(), files)?;
    let source = SplitSource::Local {
        base: dir.path().to_owned(),
        named: vec![".".to_owned()],
    };
    let found = find_split(&source, split, &RealWorld::new(true));
    Ok(shown(found, dir.path()))
}

/// The same of files that are named.
fn named(files: &[&str], named: &[&str], split: &str) -> Result<String, std::io::Error> {
    let dir = tempfile::tempdir()?;
    touch(dir.path(), files)?;
    let source = SplitSource::Local {
        base: dir.path().to_owned(),
        named: named.iter().map(|name| (*name).to_owned()).collect(),
    };
    let found = find_split(&source, split, &RealWorld::new(true));
    Ok(shown(found, dir.path()))
}

#[test]
fn files_are_named_one_by_one_or_by_patterns() -> Outcome {
    let files = [
        "reviews.csv",
        "a/train.csv",
        "a/dev.csv",
        "b/train.csv.gz",
        "b/test[1].csv",
        "c/part-1.jsonl",
        "c/part-2.jsonl",
        "c/note.txt",
    ];
    let of = |names: &[&str], split: &str| named(&files, names, split);
    assert_eq!(of(&["reviews.csv"], "train")?, "reviews.csv");
    assert!(of(&["reviews.csv"], "dev")?.contains("`split = { dev = 10% }`"));
    assert_eq!(of(&["a/dev.csv"], "validation")?, "a/dev.csv");
    assert!(of(&["a/dev.csv"], "train")?.contains("the files are `dev`"));
    assert_eq!(
        of(&["c/*.jsonl"], "train")?,
        "c/part-1.jsonl c/part-2.jsonl"
    );
    assert_eq!(
        of(&["c/part-2.jsonl", "c/part-?.jsonl"], "train")?,
        "c/part-2.jsonl c/part-1.jsonl"
    );
    assert_eq!(
        of(&["**/train.csv*"], "train")?,
        "a/train.csv b/train.csv.gz"
    );
    assert_eq!(
        of(&["[ab]/*.csv*"], "dev")?,
        "there is no split `dev` | all of it is the split `train`; carve one out of it: `split = { dev = 10% }`"
    );
    assert_eq!(of(&["a/*.csv"], "dev")?, "a/dev.csv");
    assert_eq!(of(&["b/test[1].csv"], "train")?, "b/test[1].csv");
    assert!(of(&["d/*.csv"], "train")?.starts_with("no file matches the pattern"));
    assert!(of(&["none.csv"], "train")?.contains("no such file"));
    assert!(of(&["a["], "train")?.contains("malformed"));
    assert!(of(&["c"], "train")?.contains("there are `part-1`, `part-2`"));
    Ok(())
}
fn hub(files: &[&str], config: Option<&str>, split: &str) -> Result<String, std::io::Error> {
    let dir = tempfile::tempdir()?;
    let snapshot = dir.path().join("datasets--org--set/snapshots/main");
    touch(&snapshot, files)?;
    let source = SplitSource::Hub {
        repo: "org/set".into(),
        revision: None,
        config: config.map(str::to_owned),
    };
    let found = find_split(
        &source,
        split,
        &RealWorld::with_cache(true, dir.path().to_owned()),
    );
    Ok(shown(found, &snapshot))
}

fn shown(found: Result<Vec<PathBuf>, DataError>, dir: &Path) -> String {
    match found {
        Ok(paths) => {
            let names = paths
                .iter()
                .map(|path| path.strip_prefix(dir).unwrap_or(path).display().to_string());
            names.collect::<Vec<_>>().join(" ")
        }
        Err(error) => format!("{} | {}", error.message, error.help.unwrap_or_default()),
    }
}

#[test]
fn a_directory_holds_a_file_a_split() -> Outcome {
    let files = ["train.tsv", "dev.csv", "README.md"];
    assert_eq!(local(&files, "train")?, "train.tsv");
    assert_eq!(local(&files, "validation")?, "dev.csv");
    assert_eq!(local(&["dev.tsv", "val.tsv"], "val")?, "val.tsv");
    assert_eq!(
        local(&files, "test")?,
        "there is no split `test` | there are `dev`, `train`"
    );
    assert!(local(&["README.md"], "train")?.contains("no data file is there"));
    assert!(
        local(&["train.tsv", "train.csv"], "train")?
            .contains("could be any of `train.csv`, `train.tsv`")
    );
    assert_eq!(
        local(&["dev.tsv"], "test")?,
        "there is no split `test` | there are `dev`"
    );
    Ok(())
}

#[test]
fn shards_come_in_order_and_complete() -> Outcome {
    let (a, b) = (
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    );
    assert_eq!(
        local(&[b, a, "train-extra.parquet"], "train")?,
        format!("{a} {b}")
    );
    assert!(local(&[b], "train")?.starts_with("split `train` has 1 of 2 shards"));
    let parts = ["train-0.parquet", "train-10.parquet", "train-2.parquet"];
    assert_eq!(
        local(&parts, "train")?,
        "train-0.parquet train-2.parquet train-10.parquet"
    );
    assert_eq!(
        local(&["train-00000-of-00001-0f1e.parquet"], "train")?,
        "train-00000-of-00001-0f1e.parquet"
    );
    Ok(())
}

#[test]
fn the_hub_has_folders() -> Outcome {
    let files = [
        "sst2/train-00000-of-00001.parquet",
        "sst2/validation-00000-of-00001.parquet",
        "cola/train.parquet",
        "README.md",
    ];
    assert_eq!(hub(&files, Some("sst2"), "train")?, files[0]);
    assert_eq!(hub(&files, Some("sst2"), "dev")?, files[1]);
    assert_eq!(hub(&files, Some("cola"), "train")?, files[2]);
    assert_eq!(
        hub(&files, Some("sst2"), "test")?,
        "there is no split `test` | there are `train`, `validation`"
    );
    assert_eq!(
        hub(&files, None, "train")?,
        "there is no split `train` | there are the configurations `cola`, `sst2`"
    );
    assert!(hub(&files, Some("sst"), "train")?.contains("`cola`, `sst2`"));
    assert_eq!(
        hub(&["data/train-00000-of-00001.parquet"], None, "train")?,
        "data/train-00000-of-00001.parquet"
    );
    assert_eq!(hub(&["train.jsonl"], None, "train")?, "train.jsonl");
    assert!(hub(&[], None, "train")?.contains("the network is off"));
    Ok(())
}
