//! Looking after a store: what is in it, what may go, what is damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::features::{self, Notes};
use super::{
    CHECKPOINT, DAMAGED, INDEX, LOCK, MANIFEST, Manifest, RATES, State, Store, USED, VERIFIED,
    give_back, is_fingerprint, try_lock,
};
use crate::exec::checkpoint;
use crate::exec::checkpoint::resume::BEST;
use crate::files::RunError;
use crate::files::durable;
use crate::files::sealed::{self, Found};
use crate::files::sums::{self, Damage};

/// An entry of a store.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name.
    pub fingerprint: String,
    /// The recipe that made it, where that is known.
    pub recipe: Option<PathBuf>,
    /// The stage.
    pub stage: Option<String>,
    /// The stage's kind.
    pub kind: Option<String>,
    /// Bytes of its files.
    pub bytes: u64,
    /// Whether it is finished.
    pub finished: bool,
    /// When a run last took it.
    pub used: SystemTime,
    /// Entries whose files it needs.
    needs: Vec<String>,
}

/// What of a store is no entry.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// Kept features: sets, and their bytes.
    pub features: (usize, u64),
    /// Damaged entries, set aside: how many, and their bytes.
    pub damaged: (usize, u64),
}

/// Something that was removed, or would be.
#[derive(Clone, Debug)]
pub struct Removed {
    /// The directory.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Why.
    pub why: String,
}

/// What a comparison of all bytes found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Entries and files beside them that were compared.
    pub compared: usize,
    /// What is not what was written.
    pub damaged: Vec<Damage>,
}

impl Store {
    /// Its entries, those used longest ago first. Their bytes are not compared.
    ///
    /// # Errors
    /// There is no store, or it cannot be listed.
    pub fn items(&self) -> Result<Vec<Item>, RunError> {
        let mut items: Vec<Item> = folders(&self.dir)?
            .into_iter()
            .filter_map(|path| self.item(&path))
            .collect();
        items.sort_by(|a, b| (a.used, &a.fingerprint).cmp(&(b.used, &b.fingerprint)));
        Ok(items)
    }

    fn item(&self, path: &Path) -> Option<Item> {
        let fingerprint = path.file_name()?.to_str()?.to_owned();
        if !is_fingerprint(&fingerprint) {
            return None;
        }
        let bytes = sums::size(path);
        let manifest: Option<Manifest> = sealed::read(&path.join(MANIFEST)).whole();
        let finished = manifest.is_some();
        // A removed entry leaves its lock.
        if !finished
            && fs::read_dir(path).is_ok_and(|list| list.flatten().all(|f| f.file_name() == LOCK))
        {
            return None;
        }
        let about = self.about(&fingerprint).unwrap_or_default();
        let (recipe, stage, kind, needs) = match manifest {
            Some(m) => (m.recipe, m.name, m.kind, m.needs),
            None => (about.recipe, about.name, about.kind, Vec::new()),
        };
        let known = |text: String| Some(text).filter(|t| !t.is_empty());
        Some(Item {
            recipe: Some(recipe).filter(|r| !r.as_os_str().is_empty()),
            stage: known(stage),
            kind: known(kind),
            bytes,
            finished,
            used: used(path),
            needs,
            fingerprint,
        })
    }

    /// What lies in it beside entries.
    #[must_use]
    pub fn beside(&self) -> Beside {
        let count = |name: &str| {
            let dir = self.dir.join(name);
            let list = folders(&dir).unwrap_or_default();
            (list.len(), sums::size(&dir))
        };
        Beside {
            features: count(features::DIR),
            damaged: count(DAMAGED),
        }
    }

    /// Removes what is of no use: damaged entries that were set aside, and checkpoints of finished stages.
    /// Then, where there is a bound, entries and kept features, those used longest ago first, until the others
    /// are within it; an entry goes only after those that need its files. What a process works on stays.
    ///
    /// # Errors
    /// What the file system says.
    pub fn collect(&self, keep: Option<u64>, really: bool) -> Result<Vec<Removed>, RunError> {
        let mut gone = Vec::new();
        for path in folders(&self.dir.join(DAMAGED)).unwrap_or_default() {
            let bytes = sums::size(&path);
            if really {
                durable::remove_dir(&path)?;
            }
            gone.push(removed(path, bytes, "it was damaged and set aside"));
        }
        let mut temporary = Vec::new();
        sums::walk(&self.dir, "", &mut |name, path| {
            if sums::is_temporary(name) {
                temporary.push(path.to_owned());
            }
        })?;
        for path in temporary {
            let bytes = fs::metadata(&path).map_or(0, |m| m.len());
            // What a live process writes it holds a lock on.
            if really && durable::remove_left(&path) {
                gone.push(removed(
                    path,
                    bytes,
                    "a process was killed while it wrote it",
                ));
            }
        }
        let items = self.items()?;
        for item in items.iter().filter(|i| i.finished) {
            let path = self.checkpoint(&item.fingerprint);
            if path.exists() {
                let bytes = sums::size(&path);
                if self.clear(&item.fingerprint, Some(CHECKPOINT), really)? {
                    gone.push(removed(path, bytes, "the stage is finished"));
                }
            }
        }
        if let Some(keep) = keep {
            self.shrink(&items, keep, really, &mut gone)?;
        }
        Ok(gone)
    }

    fn shrink(
        &self,
        items: &[Item],
        keep: u64,
        really: bool,
        gone: &mut Vec<Removed>,
    ) -> Result<(), RunError> {
        let root = self.dir.join(features::DIR);
        let mut sets: Vec<(SystemTime, PathBuf, u64)> = folders(&root)
            .unwrap_or_default()
            .into_iter()
            .map(|path| (used(&path), path.clone(), sums::size(&path)))
            .collect();
        sets.sort();
        let mut left: Vec<&Item> = items.iter().collect();
        let already = |path: &Path| -> u64 {
            let inside = gone.iter().filter(|g| g.path.starts_with(path));
            inside.map(|g| g.bytes).sum()
        };
        let sizes: BTreeMap<&str, u64> = items
            .iter()
            .map(|i| {
                let cleared = already(&self.path(&i.fingerprint));
                (i.fingerprint.as_str(), i.bytes - cleared.min(i.bytes))
            })
            .collect();
        let size = |item: &Item| sizes.get(item.fingerprint.as_str()).copied().unwrap_or(0);
        let mut total: u64 =
            left.iter().map(|i| size(i)).sum::<u64>() + sets.iter().map(|(_, _, n)| n).sum::<u64>();
        let mut sets = sets.into_iter().peekable();
        let mut locked: BTreeSet<String> = BTreeSet::new();
        while total > keep {
            let needed: BTreeSet<&str> = left
                .iter()
                .flat_map(|i| i.needs.iter().map(String::as_str))
                .collect();
            let free = |i: &&&Item| {
                !needed.contains(i.fingerprint.as_str()) && !locked.contains(&i.fingerprint)
            };
            let oldest = left.iter().find(free).map(|i| i.used);
            match (sets.peek(), oldest) {
                (Some((used, ..)), oldest) if oldest.is_none_or(|o| *used <= o) => {
                    let Some((_, path, bytes)) = sets.next() else {
                        break;
                    };
                    if remove_set(&path, really)? {
                        total -= bytes;
                        gone.push(removed(path, bytes, "kept features, used longest ago"));
                    }
                }
                (_, Some(_)) => {
                    let Some(at) = left.iter().position(|i| free(&i)) else {
                        break;
                    };
                    let item = left.remove(at);
                    if self.clear(&item.fingerprint, None, really)? {
                        total -= size(item);
                        let why = format!(
                            "`{}`, used longest ago",
                            item.stage.as_deref().unwrap_or("?")
                        );
                        gone.push(removed(self.path(&item.fingerprint), size(item), &why));
                    } else {
                        locked.insert(item.fingerprint.clone());
                        left.push(item);
                    }
                }
                (_, None) => break,
            }
        }
        Ok(())
    }

    /// Removes an entry, or a part of it, unless a process works on it; tells whether it went, or would.
    fn clear(&self, fingerprint: &str, part: Option<&str>, really: bool) -> Result<bool, RunError> {
        let Ok(entry) = self.begin(fingerprint)? else {
            return Ok(false);
        };
        match part {
            _ if !really => {}
            Some(part) => durable::remove_dir(&entry.dir().join(part))?,
            None => {
                entry.reset()?;
                durable::remove_dir(entry.dir())?;
            }
        }
        Ok(true)
    }

    /// Compares all bytes with what was written, whatever is remembered of them. What is damaged is made to be
    /// compared again by the run that wants it, which sets it aside.
    ///
    /// # Errors
    /// What the file system says.
    pub fn verify(&self) -> Result<Verdict, RunError> {
        let mut verdict = Verdict::default();
        for path in folders(&self.dir)? {
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
                continue;
            };
            if !is_fingerprint(name) {
                continue;
            }
            let checkpoint = path.join(CHECKPOINT);
            let found = match self.compare(name, false) {
                State::Nothing => continue,
                State::Finished(_) => Vec::new(),
                State::Damaged(damage) => {
                    durable::remove_file(&path.join(VERIFIED))?;
                    vec![damage]
                }
                State::Unfinished => {
                    let both = [checkpoint.clone(), checkpoint.join(BEST)];
                    let all: Result<Vec<_>, RunError> =
                        both.iter().map(|dir| checkpoint::damage(dir)).collect();
                    all?.into_iter().flatten().collect()
                }
            };
            verdict.add(found);
        }
        for set in folders(&self.dir.join(features::DIR)).unwrap_or_default() {
            let Ok(lock) = try_lock(&set)? else {
                continue;
            };
            for rows in files(&set).into_iter().filter(|p| is_rows(p)) {
                let file = File::open(&rows).map_err(|e| durable::failed(&rows, "open", &e))?;
                let mut notes = Notes::read(&rows);
                let found = notes.compare(&rows, &file)?;
                if !found.is_empty() {
                    // The chunks that are whole stay known.
                    notes.write(&rows, &file)?;
                }
                verdict.add(found);
            }
            give_back(&lock);
        }
        let beside = files(&self.dir.join(INDEX)).into_iter();
        for path in beside.chain([self.dir.join(RATES)]) {
            match sealed::read::<serde_json::Value>(&path) {
                Found::Nothing => {}
                Found::Whole(_) => verdict.add(Vec::new()),
                Found::Damaged(what) => verdict.add(vec![Damage { path, what }]),
            }
        }
        Ok(verdict)
    }
}

impl Verdict {
    /// Counts something that was compared, and what was found there.
    pub fn add(&mut self, found: Vec<Damage>) {
        self.compared += 1;
        self.damaged.extend(found);
    }
}

fn removed(path: PathBuf, bytes: u64, why: &str) -> Removed {
    Removed {
        path,
        bytes,
        why: why.to_owned(),
    }
}

/// Removes a set of features unless a process fills it; tells whether it went, or would.
pub(in crate::exec) fn remove_set(path: &Path, really: bool) -> Result<bool, RunError> {
    let Ok(_lock) = try_lock(path)? else {
        return Ok(false);
    };
    if really {
        durable::remove_dir(path)?;
    }
    Ok(true)
}

fn is_rows(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str());
    ending.is_some_and(|e| matches!(e, "f32" | "bf16" | "f16"))
}

/// When a directory was last used: what is written there, else its own time.
pub(in crate::exec) fn used(dir: &Path) -> SystemTime {
    let time = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let of = [USED, MANIFEST].map(|name| time(&dir.join(name)));
    let of = of.into_iter().flatten().max();
    of.or_else(|| time(dir)).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn folders(dir: &Path) -> Result<Vec<PathBuf>, RunError> {
    let mut list = listed(dir)?;
    list.retain(|path| path.is_dir());
    Ok(list)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut list = listed(dir).unwrap_or_default();
    list.retain(|path| path.is_file());
    list
}

fn listed(dir: &Path) -> Result<Vec<PathBuf>, RunError> {
    let list = fs::read_dir(dir).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => RunError::file(
            dir,
            "there is no store; name one with `--store`, or a recipe that was run",
        ),
        _ => durable::failed(dir, "list", &e),
    })?;
    let mut list: Vec<PathBuf> = list.flatten().map(|item| item.path()).collect();
    list.sort();
    Ok(list)
}
