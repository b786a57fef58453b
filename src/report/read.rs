//! Result directories as `peftc run` leaves them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;

use crate::exec::store::vouch;
use crate::files::RunError;
use crate::files::near;
use crate::files::sealed;

/// The document's name.
const RESULT: &str = "result.json";
/// Levels below a given directory that are searched.
const DEEPEST: usize = 2;

/// A `result.json` and the logs beside it.
#[derive(Clone, Debug, Default)]
pub struct RunResult {
    /// Its directory.
    pub dir: PathBuf,
    /// The recipe it came from, as it was named.
    pub recipe: String,
    /// Its stages.
    pub stages: Vec<StageResult>,
    /// The recipe's text, and that of what it imports.
    pub sources: Vec<Text>,
}

/// A text that a run was compiled from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
pub struct Text {
    /// Its path, as it was given.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// Data of a stage, as they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Data {
    /// What the recipe calls them.
    #[serde(default)]
    pub name: String,
    /// Hash of the files and of what is taken of them; `None` where that is not known.
    #[serde(default)]
    pub hash: Option<String>,
    /// How many rows they are.
    #[serde(default)]
    pub rows: Option<u64>,
    /// Hash of the texts and the names of their labels, whatever their order, that of the classes and the format of
    /// the files; `None` from versions that did not say.
    #[serde(default)]
    pub rows_hash: Option<String>,
}

impl Data {
    /// What data are the same by.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.rows_hash.as_deref().or(self.hash.as_deref())
    }
}

/// A stage of a `result.json`. What older versions did not write is empty.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct StageResult {
    /// Its name.
    pub name: String,
    /// Its name in the recipe, of which a sweep has variants.
    #[serde(default)]
    pub stage: Option<String>,
    /// The values of a sweep that make it this variant.
    #[serde(default)]
    pub at: IndexMap<String, String>,
    /// Its kind.
    pub kind: String,
    /// Its fingerprint.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// What it shares with repetitions under other seeds.
    #[serde(default)]
    pub variant: Option<String>,
    /// Its seed.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Its methods; `None` from versions that did not say.
    #[serde(default)]
    pub methods: Option<Vec<String>>,
    /// The stage it comes from.
    #[serde(default)]
    pub from: Option<String>,
    /// Its metrics.
    #[serde(default)]
    pub metrics: IndexMap<String, Option<f64>>,
    /// Optimizer steps.
    #[serde(default)]
    pub steps: Option<u64>,
    /// Speed.
    #[serde(default)]
    pub samples_per_s: Option<f64>,
    /// Tensors at the peak, as planned.
    #[serde(default)]
    pub estimated_peak_bytes: Option<u64>,
    /// Tensors at the peak, as executed.
    #[serde(default)]
    pub measured_peak_bytes: Option<u64>,
    /// The process at its peak.
    #[serde(default)]
    pub measured_process_bytes: Option<u64>,
    /// Trained parameters.
    #[serde(default)]
    pub trainable_parameters: Option<u64>,
    /// Classes of memory at the planned peak.
    #[serde(default)]
    pub memory: Classes,
    /// Memory over a step.
    #[serde(default)]
    pub memory_profile: Vec<Point>,
    /// Its data by the key that names them: `data`, `dev`.
    #[serde(default)]
    pub data: IndexMap<String, Data>,
    /// When it was finished.
    #[serde(default)]
    pub date: Option<String>,
    /// The machine that ran it.
    #[serde(default)]
    pub machine: Option<String>,
    /// Where its programs ran.
    #[serde(default)]
    pub device: Option<String>,
    /// The step whose weights were kept.
    #[serde(default)]
    pub kept_step: Option<u64>,
    /// The class that its F1 is of.
    #[serde(default)]
    pub f1_class: Option<String>,
    /// How well each class is predicted.
    #[serde(flatten)]
    pub by_class: ByClass,
    /// The log of its steps.
    #[serde(skip)]
    pub log: Vec<Logged>,
}

/// How well each class is predicted by an evaluation; empty for other stages.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ByClass {
    /// The classes.
    pub classes: Vec<ClassResult>,
    /// Rows by label and prediction, in the order of the classes; `None` where these are many.
    pub confusion: Option<Vec<Vec<u64>>>,
    /// The most frequent mistakes.
    pub confused: Vec<Mistake>,
}

/// How well one class is predicted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClassResult {
    /// Its name.
    pub name: String,
    /// Rows of it.
    pub support: u64,
    /// Share of the rows predicted to be of it that are.
    pub precision: f64,
    /// Share of its rows that are found.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
}

/// Rows of one class that were predicted to be of another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Mistake {
    /// Their class.
    pub label: String,
    /// The other.
    pub prediction: String,
    /// How many there are.
    pub rows: u64,
}

/// Bytes by class at the peak.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Classes {
    /// Frozen weights.
    pub frozen_weights: u64,
    /// Trained weights.
    pub trainable_weights: u64,
    /// Gradients.
    pub gradients: u64,
    /// Optimizer state.
    pub optimizer: u64,
    /// Values kept for the backward.
    pub activations: u64,
    /// Everything else alive.
    pub transient: u64,
    /// Kernel scratch.
    pub workspace: u64,
    /// Where the peak is.
    pub peak_op: String,
}

/// A point of a memory profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Point {
    /// What runs.
    pub op: String,
    /// Bytes alive.
    pub bytes: u64,
}

/// A line of a step log.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Logged {
    /// The step, from 1.
    pub step: u64,
    /// Mean loss of its batch.
    pub loss: f64,
    /// Metrics of an evaluation after it.
    #[serde(default)]
    pub dev: IndexMap<String, f64>,
}

#[derive(Deserialize)]
struct Document {
    schema: u64,
    recipe: String,
    stages: Vec<StageResult>,
    #[serde(default)]
    sources: Vec<Text>,
}

/// Reads every result at or below some directories, each once.
///
/// # Errors
/// A directory without results, or a result that cannot be read.
pub fn read(dirs: &[PathBuf]) -> Result<Vec<RunResult>, RunError> {
    let mut found: Vec<PathBuf> = Vec::new();
    for dir in dirs {
        let before = found.len();
        if dir.file_name().is_some_and(|n| n == RESULT) && dir.is_file() {
            found.push(dir.parent().unwrap_or(Path::new("")).to_path_buf());
        } else if !dir.exists() {
            let near = near::did_you_mean(dir).map(|n| format!("{n} "));
            return Err(RunError::file(
                dir,
                format!(
                    "no such directory; {}give the `--out` directory of a `peftc run`, or one that holds several",
                    near.unwrap_or_default()
                ),
            ));
        } else {
            search(dir, 0, &mut found);
            let own = dir.join(".peftc").join("runs");
            if found.len() == before && own.is_dir() {
                search(&own, 0, &mut found);
            }
        }
        if found.len() == before {
            return Err(RunError::file(
                dir,
                format!(
                    "holds no {RESULT}, nor do the directories {DEEPEST} levels down; give the `--out` directory of a `peftc run` (`.peftc/runs/RECIPE` beside the recipe)"
                ),
            ));
        }
    }
    let mut seen = HashSet::new();
    let mut results = Vec::new();
    for dir in found {
        let place = std::fs::canonicalize(&dir).unwrap_or_else(|_| dir.clone());
        if seen.insert(place) {
            results.push(one(dir)?);
        }
    }
    Ok(results)
}

fn search(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if dir.join(RESULT).is_file() {
        found.push(dir.to_path_buf());
        return;
    }
    if depth == DEEPEST {
        return;
    }
    let mut inner: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.is_dir())
        .collect();
    inner.sort();
    for dir in inner {
        search(&dir, depth + 1, found);
    }
}

fn one(dir: PathBuf) -> Result<RunResult, RunError> {
    let path = dir.join(RESULT);
    let again = "run the recipe again (`peftc run`; finished stages are taken from the store), or leave this directory out";
    let bytes = sealed::unbroken(&path, again)?;
    let document: Document = serde_json::from_slice(&bytes).map_err(|e| {
        RunError::file(
            &path,
            format!("is not a result of `peftc run`: {e}; {again}"),
        )
    })?;
    if document.schema != 1 {
        return Err(RunError::file(
            &path,
            format!(
                "has schema {}, this version reads 1; report it with the peftc that wrote it, or {again}",
                document.schema
            ),
        ));
    }
    let mut stages = document.stages;
    for stage in &mut stages {
        let plain = Path::new(&stage.name).components().count() == 1 && stage.name != "..";
        if plain {
            let own = dir.join(&stage.name);
            vouch(&own.join("metrics.jsonl"))?;
            stage.log = log(&own.join("metrics.jsonl"));
        }
    }
    Ok(RunResult {
        dir,
        recipe: document.recipe,
        stages,
        sources: document.sources,
    })
}

/// A step log; a missing one is empty, lines that are not whole are left out.
fn log(path: &Path) -> Vec<Logged> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_broken_results_name_the_file_and_the_remedy() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let out = dir.path().join("runs").join("a");
        std::fs::create_dir_all(&out).expect("made");
        let fails = |part: &str| {
            let why = read(&[dir.path().to_path_buf()]).expect_err("refused");
            assert_eq!(why.exit_code(), 1);
            let text = why.to_string();
            assert!(text.contains(part), "{text}");
            assert!(text.contains("peftc run"), "{text}");
        };
        fails("holds no result.json");
        let path = out.join(RESULT);
        for (broken, part) in [
            (
                "{\"schema\": 1, \"recipe\": \"r\", \"sta",
                "is not a result",
            ),
            (
                "{\"schema\": 1, \"recipe\": \"r\"}",
                "missing field `stages`",
            ),
            (
                "{\"schema\": 2, \"recipe\": \"r\", \"stages\": []}",
                "has schema 2",
            ),
        ] {
            std::fs::write(&path, broken).expect("written");
            fails(part);
            fails(&path.display().to_string());
        }
        std::fs::write(
            &path,
            "{\"schema\": 1, \"recipe\": \"r\", \"stages\": [{\"name\": \"s\", \"kind\": \"train\", \"metrics\": {\"f1\": null}}]}",
        )
        .expect("written");
        let given = [dir.path().to_path_buf(), out.clone()];
        let results = read(&given).expect("a minimal result");
        assert_eq!(results.len(), 1, "the same result is read once");
        let why = read(&[dir.path().join("nowhere")]).expect_err("refused");
        assert!(why.to_string().contains("no such directory"));
    }
}
