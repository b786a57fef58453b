//! Files that were made once and are kept for later runs: `~/.cache/peftc`, or below `XDG_CACHE_HOME`.
//!
//! ```text
//! NAME          what was made
//! NAME.sum      its checksum, and its stamp when that was last compared; touched by each use
//! NAME.*.part   on its way, locked by its maker
//! ```
//!
//! A file is whole or not there: one whose bytes are not those that were written is removed. When one is
//! added, those used longest ago go until all are within a bound.

use std::fs::{self, File, FileTimes};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::base::world::{Keep, Kept};
use crate::files::durable::remove_left;
use crate::files::sealed::{self, Found};
use crate::files::sums::{Damage, Stamp, Sum};

/// Most bytes of kept files; one that is larger stands alone.
const BOUND: u64 = 8 << 30;

/// What the name of a checksum's file ends with.
const SUM: &str = "sum";

/// What the name of a file on its way ends with.
const PART: &str = "part";

/// What is known of a file.
#[derive(Serialize, Deserialize)]
struct Known {
    sum: Sum,
    stamp: Option<Stamp>,
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

/// The file of that name, noted as used; one that is damaged goes.
pub(super) fn open(folder: &Path, name: &str) -> Option<Kept> {
    let path = folder.join(name);
    let file = File::open(&path).ok()?;
    if compare(&path, true).is_some() {
        // A cache that may only be read is not used, then.
        let _ = fs::remove_file(&path);
        let _ = fs::remove_file(beside(&path, SUM));
        return None;
    }
    // A cache that may only be read is as good.
    if let Ok(sum) = File::options().append(true).open(beside(&path, SUM)) {
        let _ = sum.set_times(FileTimes::new().set_modified(SystemTime::now()));
    }
    Some(Kept { file, path })
}

/// What is wrong with a file, if its bytes are not those that were written. Where its stamp is known it is not
/// read.
fn compare(path: &Path, remembered: bool) -> Option<Damage> {
    let damaged = |what: String| {
        Some(Damage {
            path: path.to_owned(),
            what,
        })
    };
    let sum = beside(path, SUM);
    let known: Known = match sealed::read(&sum) {
        Found::Whole(known) => known,
        Found::Nothing => return damaged("its checksum is gone".to_owned()),
        Found::Damaged(what) => return damaged(format!("its checksum is damaged: {what}")),
    };
    let stamp = Stamp::of(path).ok();
    if remembered && stamp.is_some() && known.stamp == stamp {
        return None;
    }
    match Sum::of(path) {
        Err(why) => damaged(format!("it cannot be read: {why}")),
        Ok(own) if own != known.sum => {
            damaged("its bytes are not those that were written".to_owned())
        }
        Ok(_) => {
            let _ = sealed::write(&sum, &Known { stamp, ..known });
            None
        }
    }
}

/// Compares all files of a folder, whatever is remembered of them; those that are damaged go.
pub(super) fn verify(folder: &Path) -> Vec<Option<Damage>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if has_ending(&path, SUM) || has_ending(&path, PART) || is_hidden(&path) {
            continue;
        }
        if !beside(&path, SUM).exists() {
            // An older version kept it; it is made again when it is wanted.
            let _ = fs::remove_file(&path);
            continue;
        }
        let found = compare(&path, false);
        if found.is_some() {
            let _ = fs::remove_file(&path);
            let _ = fs::remove_file(beside(&path, SUM));
        }
        all.push(found);
    }
    all
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|e| e == ending)
}

fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().first() == Some(&b'.')
}

/// A new file, to be kept under that name.
pub(super) fn begin(folder: &Path, name: &str) -> io::Result<Box<dyn Keep>> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)?.flatten() {
        if has_ending(&entry.path(), PART) {
            remove_left(&entry.path());
        }
    }
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let making = folder.join(format!("{name}.{process}-{number}.{PART}"));
    let file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&making)?;
    // A file system without locks is as good.
    let _ = file.try_lock();
    Ok(Box::new(Making {
        out: Some(BufWriter::new(file)),
        hasher: blake3::Hasher::new(),
        making,
        path: folder.join(name),
    }))
}

struct Making {
    out: Option<BufWriter<File>>,
    hasher: blake3::Hasher,
    making: PathBuf,
    path: PathBuf,
}

impl Write for Making {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.as_mut().map_or(Ok(0), |out| out.write(bytes))?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Keep for Making {
    fn done(mut self: Box<Self>) -> io::Result<Kept> {
        let out = self.out.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_data()?;
        fs::rename(&self.making, &self.path)?;
        let path = self.path.clone();
        let known = Known {
            sum: Sum {
                bytes: self.hasher.count(),
                blake3: self.hasher.finalize().to_hex().to_string(),
            },
            stamp: Stamp::of(&path).ok(),
        };
        sealed::write(&beside(&path, SUM), &known).map_err(|e| io::Error::other(e.to_string()))?;
        let _ = file.unlock();
        if let Some(folder) = path.parent() {
            free_space(folder, &path, BOUND);
        }
        Ok(Kept { file, path })
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // It is not there any more once it has its name.
        let _ = fs::remove_file(&self.making);
    }
}

/// Removes what was used longest ago until all but `own` and the like of it are within the bound. What
/// another process has open stays readable to it.
fn free_space(folder: &Path, own: &Path, bound: u64) {
    let mut files: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(meta) = entry.metadata() else { continue };
        if has_ending(&path, SUM) || is_hidden(&path) {
            continue;
        }
        let sum = fs::metadata(beside(&path, SUM)).and_then(|m| m.modified());
        let used = sum.or_else(|_| meta.modified());
        files.push((used.unwrap_or(SystemTime::UNIX_EPOCH), path, meta.len()));
    }
    files.sort();
    let mut total: u64 = files.iter().map(|(_, _, n)| n).sum();
    for (_, path, size) in files {
        if total <= bound {
            break;
        }
        if path != own && !has_ending(&path, PART) && fs::remove_file(&path).is_ok() {
            let _ = fs::remove_file(beside(&path, SUM));
            total -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn make(folder: &Path, name: &str) -> PathBuf {
        let mut making = begin(folder, name).expect("it is made");
        making.write_all(&[3; 100]).expect("it is written");
        making.done().expect("it is kept").path
    }

    fn aged(path: &Path, age: u64) {
        let times = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(age));
        let file = File::options().append(true).open(path).expect("a file");
        file.set_times(times).expect("times");
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("tokens");
        for (age, name) in [(30, "old"), (20, "used"), (10, "young")] {
            aged(&beside(&make(&folder, name), SUM), age);
        }
        assert!(open(&folder, "used").is_some());
        free_space(&folder, &folder.join("young"), 250);
        let left = |name: &str| folder.join(name).exists();
        assert_eq!(
            [left("old"), left("old.sum"), left("used"), left("young")],
            [false, false, true, true]
        );
        drop(begin(&folder, "given up").expect("it is made"));
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 4);
    }

    #[test]
    fn a_file_that_is_not_what_was_written_goes_and_so_does_what_dead_makers_left() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path();
        for damage in ["flip", "cut", "sum", "no sum"] {
            let path = make(folder, "f");
            assert!(open(folder, "f").is_some());
            let sum = beside(&path, SUM);
            let flip = |path: &Path| {
                let mut bytes = fs::read(path).expect("bytes");
                bytes[40] ^= 8;
                fs::write(path, bytes).expect("written");
            };
            match damage {
                "flip" => flip(&path),
                "cut" => fs::write(&path, [3; 99]).expect("written"),
                "sum" => flip(&sum),
                _ => fs::remove_file(&sum).expect("removed"),
            }
            assert!(open(folder, "f").is_none(), "{damage}");
            assert!(!path.exists() && !sum.exists(), "{damage}");
        }
        let live = begin(folder, "live").expect("it is made");
        let dead = folder.join("f.4194304999-0.part");
        fs::write(&dead, "half").expect("written");
        aged(&dead, 600);
        make(folder, "f");
        assert!(!dead.exists());
        let parts = fs::read_dir(folder).expect("a folder").flatten();
        assert_eq!(parts.filter(|p| has_ending(&p.path(), PART)).count(), 1);
        drop(live);
        // A comparison of all finds what has the stamp that is remembered.
        assert_eq!(verify(folder), [None]);
        fs::write(folder.join("f"), "other bytes").expect("written");
        fs::write(folder.join("older"), "without a checksum").expect("written");
        assert!(matches!(&verify(folder)[..], [Some(_)]));
        assert!(!folder.join("f").exists() && !folder.join("older").exists());
    }
}
