//! The store: one directory a fingerprint, holding a stage's artifact.
//!
//! ```text
//! STORE/<fingerprint>/stage.json    the manifest, written last: with it the entry is finished
//! STORE/<fingerprint>/checkpoint/   while the stage runs
//! STORE/<fingerprint>/lock          held, with the process' number in it, while the stage runs
//! STORE/index/<stage>-<hash>.json   the last finished entry of a recipe's stage
//! STORE/rates.json                  how fast this machine did each op, by number of threads
//! STORE/features/                   kept results of frozen parts ([`super::features`])
//! ```
//!
//! **Invariant:** an entry with a whole manifest is whole; only the holder of its lock writes in it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::files::RunError;
use crate::files::durable;
use crate::program::rates::Rates;

const MANIFEST: &str = "stage.json";
const LOCK: &str = "lock";
const CHECKPOINT: &str = "checkpoint";
const INDEX: &str = "index";
const RATES: &str = "rates.json";
const SCHEMA: u32 = 1;

/// What a finished entry says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout: 1.
    pub schema: u32,
    /// The stage's fingerprint; also the directory's name.
    pub fingerprint: String,
    /// The stage's name in the recipe that made it.
    pub name: String,
    /// The stage's kind.
    pub kind: String,
    /// What went into the fingerprint: name and value of each part.
    pub parts: IndexMap<String, String>,
    /// What the stage reported.
    pub result: serde_json::Value,
    /// Version of the compiler that made it.
    pub peftc: String,
    /// The CPU it was made on: numbers differ in their last bits elsewhere.
    pub cpu: String,
}

impl Manifest {
    /// A manifest of this version, made on `cpu`.
    pub fn new(
        fingerprint: impl Into<String>,
        name: impl Into<String>,
        kind: impl Into<String>,
        cpu: impl Into<String>,
    ) -> Self {
        Self {
            schema: SCHEMA,
            fingerprint: fingerprint.into(),
            name: name.into(),
            kind: kind.into(),
            parts: IndexMap::new(),
            result: serde_json::Value::Null,
            peftc: env!("CARGO_PKG_VERSION").to_owned(),
            cpu: cpu.into(),
        }
    }
}

/// A store.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The store in a directory. Nothing is created before an entry is begun.
    pub fn open(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of a fingerprint, there or not.
    #[must_use]
    pub fn path(&self, fingerprint: &str) -> PathBuf {
        self.dir.join(fingerprint)
    }

    /// The manifest of a finished entry. A missing, damaged or foreign one means not finished.
    #[must_use]
    pub fn finished(&self, fingerprint: &str) -> Option<Manifest> {
        if !is_fingerprint(fingerprint) {
            return None;
        }
        let text = fs::read(self.path(fingerprint).join(MANIFEST)).ok()?;
        let manifest: Manifest = serde_json::from_slice(&text).ok()?;
        (manifest.schema == SCHEMA && manifest.fingerprint == fingerprint).then_some(manifest)
    }

    /// Opens an entry for writing and locks it against other processes and threads. What an
    /// unfinished run left stays; a finished entry stays too ([`Entry::finished`], [`Entry::reset`]).
    ///
    /// # Errors
    /// Another live process holds the lock, or what the file system says.
    pub fn begin(&self, fingerprint: &str) -> Result<Entry, RunError> {
        if !is_fingerprint(fingerprint) {
            return Err(RunError::bug(format!("`{fingerprint}` is no fingerprint")));
        }
        let dir = self.path(fingerprint);
        durable::create_dirs(&dir)?;
        let lock = lock(&dir)?;
        Ok(Entry {
            store: self.clone(),
            fingerprint: fingerprint.to_owned(),
            dir,
            lock,
        })
    }

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
        durable::write_bytes(&path, true, &json(&latest)?)
    }

    /// The entry a recipe's stage ended in last, and its fingerprint's parts.
    #[must_use]
    pub fn latest(&self, recipe: &str, stage: &str) -> Option<(String, IndexMap<String, String>)> {
        let text = fs::read(self.index(recipe, stage)).ok()?;
        let latest: Latest = serde_json::from_slice(&text).ok()?;
        (latest.schema == SCHEMA && latest.recipe == recipe && latest.stage == stage)
            .then_some((latest.fingerprint, latest.parts))
    }

    /// How fast earlier runs with so many threads did each op; nothing if there were none.
    #[must_use]
    pub fn rates(&self, threads: usize) -> Rates {
        let mut all = self.all_rates();
        all.remove(&threads).unwrap_or_default()
    }

    fn all_rates(&self) -> BTreeMap<usize, Rates> {
        let text = fs::read(self.dir.join(RATES)).ok();
        let known = text.and_then(|t| serde_json::from_slice::<Measured>(&t).ok());
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
        durable::write_bytes(&self.dir.join(RATES), true, &json(&measured)?)
    }

    fn index(&self, recipe: &str, stage: &str) -> PathBuf {
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

/// An entry that this process writes. Dropping it gives the lock back and keeps what is there.
#[derive(Debug)]
pub struct Entry {
    store: Store,
    fingerprint: String,
    dir: PathBuf,
    lock: File,
}

impl Entry {
    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the running stage keeps its checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.dir.join(CHECKPOINT)
    }

    /// The manifest, if another process has finished the entry before this one got the lock.
    #[must_use]
    pub fn finished(&self) -> Option<Manifest> {
        self.store.finished(&self.fingerprint)
    }

    /// Removes everything an earlier run left, the manifest first.
    ///
    /// # Errors
    /// What the file system says.
    pub fn reset(&self) -> Result<(), RunError> {
        durable::remove_file(&self.dir.join(MANIFEST))?;
        durable::sync_dir(&self.dir)?;
        let list = fs::read_dir(&self.dir).map_err(|e| durable::failed(&self.dir, "list", &e))?;
        for item in list {
            let item = item.map_err(|e| durable::failed(&self.dir, "list", &e))?;
            if item.file_name() == LOCK {
                continue;
            }
            let path = item.path();
            match item.file_type() {
                Ok(kind) if kind.is_dir() => durable::remove_dir(&path)?,
                _ => durable::remove_file(&path)?,
            }
        }
        Ok(())
    }

    /// Finishes the entry: the manifest is written last; then the checkpoint goes and the lock is
    /// given back.
    ///
    /// # Errors
    /// What the file system says; a manifest of another fingerprint is a bug.
    pub fn finish(self, manifest: &Manifest) -> Result<(), RunError> {
        if manifest.fingerprint != self.fingerprint || manifest.schema != SCHEMA {
            return Err(RunError::bug(format!(
                "entry {} got the manifest of {}",
                self.fingerprint, manifest.fingerprint
            )));
        }
        sync_tree(&self.dir)?;
        durable::write_bytes(&self.dir.join(MANIFEST), false, &json(manifest)?)?;
        durable::remove_dir(&self.checkpoint())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // The file stays: removing it would let a third process lock another file of that name.
        let _ = self.lock.set_len(0);
        let _ = self.lock.unlock();
    }
}

/// Takes the lock of an entry.
fn lock(dir: &Path) -> Result<File, RunError> {
    try_lock(dir)?.map_err(|who| {
        RunError::file(
            dir,
            format!(
                "{who} is working on this entry of the store; wait for it to end, or use another `--store`"
            ),
        )
    })
}

/// Takes the lock of a directory, or says who holds it. The system gives a lock back when its process
/// dies, so a lock file left by a dead one is simply taken.
pub(super) fn try_lock(dir: &Path) -> Result<Result<File, String>, RunError> {
    let path = dir.join(LOCK);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|e| durable::failed(&path, "open", &e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = (&mut file).take(32).read_to_string(&mut holder);
            let holder = holder.trim();
            return Ok(Err(if holder.is_empty() {
                "another process".to_owned()
            } else {
                format!("process {holder}")
            }));
        }
        Err(TryLockError::Error(e)) => return Err(durable::failed(&path, "lock", &e)),
    }
    let note = |file: &mut File| -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(std::process::id().to_string().as_bytes())
    };
    note(&mut file).map_err(|e| durable::failed(&path, "write", &e))?;
    Ok(Ok(file))
}

/// Syncs the files and directories of an artifact, so that the manifest cannot outlive them.
fn sync_tree(dir: &Path) -> Result<(), RunError> {
    let list = fs::read_dir(dir).map_err(|e| durable::failed(dir, "list", &e))?;
    for item in list {
        let item = item.map_err(|e| durable::failed(dir, "list", &e))?;
        let (name, path) = (item.file_name(), item.path());
        if name == LOCK || name == CHECKPOINT {
            continue;
        }
        match item.file_type() {
            Ok(kind) if kind.is_dir() => sync_tree(&path)?,
            Ok(kind) if kind.is_file() => {
                File::open(&path)
                    .and_then(|f| f.sync_all())
                    .map_err(|e| durable::failed(&path, "sync", &e))?;
            }
            _ => {}
        }
    }
    durable::sync_dir(dir)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, RunError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| RunError::bug(format!("a manifest cannot be written: {e}")))?;
    text.push(b'\n');
    Ok(text)
}

/// Whether a name can be a directory of the store: never a path.
fn is_fingerprint(name: &str) -> bool {
    !name.is_empty()
        && name != INDEX
        && name != super::features::DIR
        && name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'))
}

#[cfg(test)]
mod tests;
