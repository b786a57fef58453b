//! The store: one directory a fingerprint, holding a stage's artifact.
//!
//! ```text
//! STORE/<fingerprint>/stage.json     the manifest, written last: with it the entry is finished
//! STORE/<fingerprint>/entry.json     what it is of, from its beginning
//! STORE/<fingerprint>/checkpoint/    while the stage runs
//! STORE/<fingerprint>/lock           held, with the process' number in it, while the stage runs
//! STORE/<fingerprint>/verified.json  stamps of the files when their bytes were last compared
//! STORE/<fingerprint>/used           touched by each run that takes the entry
//! STORE/damaged/                     entries that were damaged, set aside
//! STORE/index/<stage>-<hash>.json    the last finished entry of a recipe's stage
//! STORE/rates.json                   how fast this machine did each op, by number of threads
//! STORE/features/                    kept results of frozen parts ([`crate::exec::features`])
//! ```
//!
//! **Invariant:** an entry is finished if the manifest is what was written and every file is what the manifest
//! says; only the holder of its lock writes in it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::files::RunError;
use crate::files::durable;
use crate::files::sealed::{self, Found};
use crate::files::sums::{self, Damage, Stamp};
pub use lock::{LOCK, try_lock};
pub use manifest::{About, Manifest, State, vouch};
use manifest::{known, remember};

pub mod care;
pub mod features;
mod lock;
mod manifest;
mod notes;

/// The manifest's name.
pub const MANIFEST: &str = "stage.json";
/// The directory of damaged entries.
pub const DAMAGED: &str = "damaged";
const CHECKPOINT: &str = "checkpoint";
const ABOUT: &str = "entry.json";
const VERIFIED: &str = "verified.json";
const USED: &str = "used";
const INDEX: &str = "index";
const RATES: &str = "rates.json";
const SCHEMA: u32 = 2;

/// What lies in an entry beside its artifact.
const ASIDE: &[&str] = &[MANIFEST, LOCK, CHECKPOINT, ABOUT, VERIFIED, USED];

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

    /// The manifest of a finished entry that is whole.
    #[must_use]
    pub fn finished(&self, fingerprint: &str) -> Option<Manifest> {
        match self.look(fingerprint) {
            State::Finished(manifest) => Some(*manifest),
            State::Nothing | State::Unfinished | State::Damaged(_) => None,
        }
    }

    /// What an entry is. Files are compared with their sums; those whose size and times are what they were at
    /// the last comparison are not read again.
    #[must_use]
    pub fn look(&self, fingerprint: &str) -> State {
        self.compare(fingerprint, true)
    }

    fn compare(&self, fingerprint: &str, remembered: bool) -> State {
        if !is_fingerprint(fingerprint) {
            return State::Nothing;
        }
        let dir = self.path(fingerprint);
        let path = dir.join(MANIFEST);
        let damaged = |what: String| {
            State::Damaged(Damage {
                path: path.clone(),
                what,
            })
        };
        let manifest = match sealed::read::<Manifest>(&path) {
            Found::Nothing if dir.is_dir() => return State::Unfinished,
            Found::Nothing => return State::Nothing,
            Found::Damaged(what) => return damaged(what),
            Found::Whole(manifest) if manifest.schema != SCHEMA => {
                return damaged("another version wrote it".to_owned());
            }
            Found::Whole(manifest) if manifest.fingerprint != fingerprint => {
                return damaged(format!("it is that of {}", manifest.fingerprint));
            }
            Found::Whole(manifest) => manifest,
        };
        let own = Stamp::of(&path).ok();
        let known = if remembered {
            known(&dir, own.as_ref())
        } else {
            BTreeMap::new()
        };
        match sums::verify(&dir, &manifest.files, &known) {
            Ok(files) => {
                if files != known {
                    // A store that may only be read is compared each time.
                    let _ = remember(&dir, own, files);
                }
                State::Finished(Box::new(manifest))
            }
            Err(damage) => State::Damaged(damage),
        }
    }

    /// What an unfinished entry is of.
    #[must_use]
    pub fn about(&self, fingerprint: &str) -> Option<About> {
        sealed::read(&self.path(fingerprint).join(ABOUT)).whole()
    }

    /// Where a running or interrupted stage has its checkpoint.
    #[must_use]
    pub fn checkpoint(&self, fingerprint: &str) -> PathBuf {
        self.path(fingerprint).join(CHECKPOINT)
    }

    /// Notes that a run takes a finished entry, and removes the checkpoint that a killed process left in it.
    pub fn take(&self, fingerprint: &str) {
        let dir = self.path(fingerprint);
        let _ = File::create(dir.join(USED));
        let checkpoint = dir.join(CHECKPOINT);
        if checkpoint.exists()
            && let Ok(Ok(lock)) = try_lock(&dir)
        {
            let _ = durable::remove_dir(&checkpoint);
            give_back(&lock);
        }
    }

    /// Opens an entry for writing and locks it against other processes and threads, or says who has it. What an
    /// unfinished run left stays; a finished entry stays too ([`Entry::reset`]).
    ///
    /// # Errors
    /// What the file system says.
    pub fn begin(&self, fingerprint: &str) -> Result<Result<Entry, String>, RunError> {
        if !is_fingerprint(fingerprint) {
            return Err(RunError::bug(format!("`{fingerprint}` is no fingerprint")));
        }
        let dir = self.path(fingerprint);
        Ok(try_lock(&dir)?.map(|lock| Entry {
            store: self.clone(),
            fingerprint: fingerprint.to_owned(),
            dir,
            lock,
        }))
    }
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

    /// What the entry is, now that no other process can change it.
    #[must_use]
    pub fn look(&self) -> State {
        self.store.look(&self.fingerprint)
    }

    /// Says what the entry is of.
    ///
    /// # Errors
    /// What the file system says.
    pub fn is_of(&self, about: &About) -> Result<(), RunError> {
        sealed::write(&self.dir.join(ABOUT), about)
    }

    /// Moves everything but the lock away, for people to look at; gives the place.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_aside(&self) -> Result<PathBuf, RunError> {
        let root = self.store.dir.join(DAMAGED);
        durable::create_dirs(&root)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = since.map_or(0, |t| t.as_secs());
        let place = (0..10_000)
            .map(|n| root.join(format!("{}-{seconds}-{n}", self.fingerprint)))
            .find(|place| !place.exists())
            .unwrap_or_else(|| root.join(&self.fingerprint));
        durable::create_dirs(&place)?;
        for path in self.items()? {
            let to = place.join(path.file_name().unwrap_or_default());
            fs::rename(&path, &to).map_err(|e| durable::failed(&path, "set aside", &e))?;
        }
        durable::sync_dir(&self.dir)?;
        Ok(place)
    }

    /// What is there beside the lock.
    fn items(&self) -> Result<Vec<PathBuf>, RunError> {
        let list = fs::read_dir(&self.dir).map_err(|e| durable::failed(&self.dir, "list", &e))?;
        let mut items = Vec::new();
        for item in list {
            let item = item.map_err(|e| durable::failed(&self.dir, "list", &e))?;
            if item.file_name() != LOCK {
                items.push(item.path());
            }
        }
        Ok(items)
    }

    /// Removes everything an earlier run left, the manifest first.
    ///
    /// # Errors
    /// What the file system says.
    pub fn reset(&self) -> Result<(), RunError> {
        durable::remove_file(&self.dir.join(MANIFEST))?;
        durable::sync_dir(&self.dir)?;
        for path in self.items()? {
            if path.is_dir() && !path.is_symlink() {
                durable::remove_dir(&path)?;
            } else {
                durable::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Finishes the entry: the manifest, with the sums of all files, is written last; then the checkpoint goes
    /// and the lock is given back.
    ///
    /// # Errors
    /// What the file system says; a manifest of another fingerprint is a bug.
    pub fn finish(self, manifest: &Manifest) -> Result<Manifest, RunError> {
        if manifest.fingerprint != self.fingerprint || manifest.schema != SCHEMA {
            return Err(RunError::bug(format!(
                "entry {} got the manifest of {}",
                self.fingerprint, manifest.fingerprint
            )));
        }
        durable::remove_file(&self.dir.join(MANIFEST))?;
        // Under the lock, files on their way to a name are those of writers that were killed.
        let mut left = Vec::new();
        sums::walk(&self.dir, "", &mut |name, path| {
            if sums::is_temporary(name) {
                left.push(path.to_owned());
            }
        })?;
        left.iter()
            .try_for_each(|path| durable::remove_file(path))?;
        sync_tree(&self.dir)?;
        let manifest = Manifest {
            files: sums::of_tree(&self.dir, ASIDE)?,
            ..manifest.clone()
        };
        let mut stamps = BTreeMap::new();
        for name in manifest.files.keys() {
            let path = self.dir.join(name);
            let stamp = Stamp::of(&path).map_err(|e| durable::failed(&path, "look at", &e))?;
            stamps.insert(name.clone(), stamp);
        }
        let path = self.dir.join(MANIFEST);
        sealed::write(&path, &manifest)?;
        // Without it, the files are read once more.
        let _ = remember(&self.dir, Stamp::of(&path).ok(), stamps);
        let _ = File::create(self.dir.join(USED));
        durable::remove_dir(&self.dir.join(CHECKPOINT))?;
        Ok(manifest)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        give_back(&self.lock);
    }
}

fn give_back(lock: &File) {
    // The file stays: removing it would let a third process lock another file of that name.
    let _ = lock.set_len(0);
    let _ = lock.unlock();
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

/// Whether a name can be a directory of the store: never a path.
fn is_fingerprint(name: &str) -> bool {
    !name.is_empty()
        && ![INDEX, DAMAGED, features::DIR].contains(&name)
        && name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'))
}

#[cfg(test)]
mod tests;
