//! The file store of MLflow: a folder an experiment, in it a folder a run, in it a file a metric, a parameter and a tag.
//!
//! The layout is that of MLflow's `file_store.py`.

use std::fs::{self, File, create_dir_all};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::Sink;

/// Numbers of MLflow's states of a run.
const RUNNING: u8 = 1;
const FINISHED: u8 = 3;
const FAILED: u8 = 4;

/// `SourceType.LOCAL`.
const LOCAL: u8 = 4;

/// Opens a store, with an experiment of the recipe's name.
pub(super) fn open(dir: PathBuf, recipe: &str) -> io::Result<Box<dyn Sink>> {
    create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let known = experiment(&dir, recipe)?;
    let (id, place) = match known {
        Some(id) => (id.clone(), dir.join(id)),
        None => {
            let hash = blake3::hash(recipe.as_bytes());
            let number = hash
                .as_bytes()
                .iter()
                .take(7)
                .fold(0_u64, |n, b| n << 8 | u64::from(*b));
            // As long as those that MLflow makes itself.
            let id = format!(
                "{:018}",
                100_000_000_000_000_000 + number % 900_000_000_000_000_000
            );
            let place = dir.join(&id);
            create_dir_all(&place)?;
            let now = millis();
            let meta = [
                ("artifact_location", json!(place.display().to_string())),
                ("creation_time", json!(now)),
                ("experiment_id", json!(id)),
                ("last_update_time", json!(now)),
                ("lifecycle_stage", json!("active")),
                ("name", json!(recipe)),
            ];
            write_yaml(&place.join("meta.yaml"), &meta)?;
            (id, place)
        }
    };
    Ok(Box::new(Mlflow {
        id,
        place,
        recipe: recipe.to_owned(),
        run: None,
    }))
}

/// The experiment of a name that a store has, whoever made it.
fn experiment(dir: &Path, name: &str) -> io::Result<Option<String>> {
    let wanted = [
        format!("name: {}", json!(name)),
        format!("name: {name}"),
        format!("name: '{name}'"),
    ];
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = fs::read_to_string(entry.path().join("meta.yaml")).unwrap_or_default();
        if meta
            .lines()
            .any(|line| wanted.iter().any(|w| w == line.trim_end()))
        {
            return Ok(entry.file_name().to_str().map(str::to_owned));
        }
    }
    Ok(None)
}

/// The log of a run of a recipe.
#[derive(Debug)]
struct Mlflow {
    /// The experiment.
    id: String,
    place: PathBuf,
    recipe: String,
    run: Option<Running>,
}

/// A run: a stage.
#[derive(Debug)]
struct Running {
    id: String,
    name: String,
    place: PathBuf,
    began: u64,
}

/// Milliseconds since 1970.
fn millis() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Writes a mapping; JSON's values are YAML's.
fn write_yaml(path: &Path, pairs: &[(&str, serde_json::Value)]) -> io::Result<()> {
    let lines: String = pairs
        .iter()
        .map(|(key, value)| format!("{key}: {value}\n"))
        .collect();
    fs::write(path, lines)
}

impl Mlflow {
    fn meta(&self, run: &Running, status: u8) -> io::Result<()> {
        let end = if status == RUNNING {
            json!(null)
        } else {
            json!(millis())
        };
        let meta = [
            (
                "artifact_uri",
                json!(run.place.join("artifacts").display().to_string()),
            ),
            ("end_time", end),
            ("entry_point_name", json!("")),
            ("experiment_id", json!(self.id)),
            ("lifecycle_stage", json!("active")),
            ("run_id", json!(run.id)),
            ("run_name", json!(run.name)),
            ("run_uuid", json!(run.id)),
            ("source_name", json!("")),
            ("source_type", json!(LOCAL)),
            ("source_version", json!("")),
            ("start_time", json!(run.began)),
            ("status", json!(status)),
            ("tags", json!([])),
            ("user_id", json!("")),
        ];
        write_yaml(&run.place.join("meta.yaml"), &meta)
    }
}

impl Sink for Mlflow {
    fn begin(&mut self, stage: &str, keys: &[(String, String)]) -> io::Result<()> {
        let began = millis();
        let seed = format!(
            "{} {stage} {} {:?}",
            self.id,
            std::process::id(),
            SystemTime::now()
        );
        let id: String = blake3::hash(seed.as_bytes())
            .to_hex()
            .chars()
            .take(32)
            .collect();
        let place = self.place.join(&id);
        for folder in ["metrics", "params", "tags", "artifacts"] {
            create_dir_all(place.join(folder))?;
        }
        for (key, value) in keys {
            fs::write(place.join("params").join(key), value)?;
        }
        let source = format!("{}.peft", self.recipe);
        for (tag, value) in [
            ("mlflow.runName", stage),
            ("mlflow.source.name", &source),
            ("mlflow.source.type", "LOCAL"),
        ] {
            fs::write(place.join("tags").join(tag), value)?;
        }
        let run = Running {
            id,
            name: stage.to_owned(),
            place,
            began,
        };
        self.meta(&run, RUNNING)?;
        self.run = Some(run);
        Ok(())
    }

    fn numbers(&mut self, step: u64, numbers: &[(String, f64)]) -> io::Result<()> {
        let Some(run) = &self.run else { return Ok(()) };
        let now = millis();
        for (name, value) in numbers {
            let path = run.place.join("metrics").join(name);
            if let Some(folder) = path.parent() {
                create_dir_all(folder)?;
            }
            let mut file = File::options().create(true).append(true).open(&path)?;
            file.write_all(format!("{now} {value} {step}\n").as_bytes())?;
        }
        Ok(())
    }

    fn end(&mut self, done: bool) -> io::Result<()> {
        match self.run.take() {
            Some(run) => self.meta(&run, if done { FINISHED } else { FAILED }),
            None => Ok(()),
        }
    }
}
