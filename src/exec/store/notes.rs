//! What a store remembers beside its entries: where stages ended, and how fast the machine was.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::care::Item;
use super::{INDEX, RATES, SCHEMA, Store, try_lock};
use crate::exec::checkpoint::resume;
use crate::files::RunError;
use crate::files::durable;
use crate::files::paths::absolute;
use crate::files::sealed;
use crate::program::rates::Rates;

/// How long the lock of results is waited for: a document of thousands of stages takes a second to write.
const PATIENCE: Duration = Duration::from_secs(600);

impl Store {
    /// Remembers the entry a recipe's stage ended in, so that a dry run can say what has changed.
    ///
    /// # Errors
    /// What the file system says.
    pub fn note_latest(
        &self,
        recipe: &str,
        stage: &str,
        fingerprint: &str,
        parts: &IndexMap<String, String>,
    ) -> Result<(), RunError> {
        let path = self.index(recipe, stage);
        durable::create_dirs(&self.dir.join(INDEX))?;
        let latest = Latest {
            schema: SCHEMA,
            recipe: recipe.to_owned(),
            stage: stage.to_owned(),
            fingerprint: fingerprint.to_owned(),
            parts: parts.clone(),
        };
        sealed::write(&path, &latest)
    }

    /// The entry a recipe's stage ended in last, and its fingerprint's parts.
    #[must_use]
    pub fn latest(&self, recipe: &str, stage: &str) -> Option<(String, IndexMap<String, String>)> {
        let latest: Latest = sealed::read(&self.index(recipe, stage)).whole()?;
        (latest.schema == SCHEMA && latest.recipe == recipe && latest.stage == stage)
            .then_some((latest.fingerprint, latest.parts))
    }

    /// The lock of an OUT's results, which jobs that end at once write one after the other. It is waited for. In a store
    /// that may only be read there is none: no job fills it.
    ///
    /// # Errors
    /// A process does not give it back.
    pub fn lock_results(&self, out: &Path) -> Result<Option<File>, RunError> {
        let name = absolute(out).display().to_string();
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let hash = hash.get(..16).unwrap_or_default();
        let dir = self.dir.join(INDEX).join(format!("out-{hash}"));
        let begun = Instant::now();
        loop {
            let who = match try_lock(&dir) {
                Ok(Ok(lock)) => return Ok(Some(lock)),
                Ok(Err(who)) => who,
                Err(_) => return Ok(None),
            };
            if begun.elapsed() > PATIENCE {
                let what = format!(
                    "{who} has held it for {} minutes; the stage is in the store, and the same command writes its result",
                    PATIENCE.as_secs() / 60
                );
                return Err(RunError::file(dir, what));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How fast earlier runs with so many threads did each op; nothing if there were none.
    #[must_use]
    pub fn rates(&self, threads: usize) -> Rates {
        let mut all = self.all_rates();
        all.remove(&threads).unwrap_or_default()
    }

    /// The numbers of threads that earlier runs measured with.
    #[must_use]
    pub fn rated_threads(&self) -> Vec<usize> {
        let all = self.all_rates();
        let rated = all.iter().filter(|(_, rates)| !rates.is_empty());
        rated.map(|(threads, _)| *threads).collect()
    }

    /// Checkpoints that interrupted runs of a recipe's stage left under other fingerprints: the fingerprint and
    /// the step. The stage as it stands does not go on from them.
    #[must_use]
    pub fn stranded(&self, recipe: &Path, stage: &str, own: &str) -> Vec<(String, u64)> {
        let recipe = std::path::absolute(recipe).unwrap_or_else(|_| recipe.to_path_buf());
        let Ok(items) = self.items() else {
            return Vec::new();
        };
        let of_stage = |item: &Item| {
            !item.finished
                && item.fingerprint != own
                && item.stage.as_deref() == Some(stage)
                && item.recipe.as_ref() == Some(&recipe)
        };
        let step = |item: &Item| resume::step(&self.checkpoint(&item.fingerprint));
        items
            .iter()
            .filter(|item| of_stage(item))
            .filter_map(|item| Some((item.fingerprint.clone(), step(item)?)))
            .collect()
    }

    fn all_rates(&self) -> BTreeMap<usize, Rates> {
        let known: Option<Measured> = sealed::read(&self.dir.join(RATES)).whole();
        let own = known.filter(|m| m.schema == SCHEMA && m.cpu == std::env::consts::ARCH);
        own.map(|m| m.rates).unwrap_or_default()
    }

    /// Remembers how fast a run did each op.
    ///
    /// # Errors
    /// What the file system says.
    pub fn learn(&self, threads: usize, rates: &Rates) -> Result<(), RunError> {
        let mut all = self.all_rates();
        all.entry(threads).or_default().learn(rates);
        let measured = Measured {
            schema: SCHEMA,
            cpu: std::env::consts::ARCH.to_owned(),
            rates: all,
        };
        sealed::write(&self.dir.join(RATES), &measured)
    }

    pub(super) fn index(&self, recipe: &str, stage: &str) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(recipe.len() as u64).to_le_bytes());
        hasher.update(recipe.as_bytes());
        hasher.update(stage.as_bytes());
        let hash = hasher.finalize().to_hex();
        let stage: String = stage
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
            .take(40)
            .collect();
        self.dir.join(INDEX).join(format!(
            "{stage}-{}.json",
            hash.get(..16).unwrap_or_default()
        ))
    }
}

#[derive(Serialize, Deserialize)]
struct Measured {
    schema: u32,
    cpu: String,
    rates: BTreeMap<usize, Rates>,
}

#[derive(Serialize, Deserialize)]
struct Latest {
    schema: u32,
    recipe: String,
    stage: String,
    fingerprint: String,
    parts: IndexMap<String, String>,
}
