//! What a stage leaves, put where the user looks: logs as copies, the artifact by links.
//!
//! **Invariant:** a name in OUT is only ever given to whole files, by a rename; nothing is written through a
//! link.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::exec::stage::choose::PROMPT;
use crate::exec::stage::drawn::DRAWN;
use crate::exec::store::{MANIFEST, Manifest};
use crate::files::RunError;
use crate::files::durable::{self, create_dirs, failed, write_atomically};
use crate::files::sealed;
use crate::files::sums;

/// Files of an entry that are copied.
const COPIED: [&str; 5] = [
    "metrics.jsonl",
    "predictions.tsv",
    "predictions.jsonl",
    PROMPT,
    DRAWN,
];

/// Directories of an entry that are linked.
const LINKED: [&str; 2] = ["adapter", "model"];

/// Age from which on a link that has no name yet was left by a dead process.
const LEFT: Duration = Duration::from_secs(60);

/// Times that a file is put in place again.
const TRIES: usize = 20;

/// Takes away what an earlier stage of that name left, so that what is there is of one stage.
///
/// # Errors
/// What the file system says.
pub fn withdraw(out: &Path) -> Result<(), RunError> {
    let path = out.join(MANIFEST);
    let before: Option<Manifest> = sealed::read(&path).whole();
    durable::remove_file(&path)?;
    // Only what the manifest names is ours.
    for name in before.iter().flat_map(|m| m.files.keys()) {
        let inside = name.split('/').next().unwrap_or_default();
        if LINKED.contains(&inside) {
            durable::remove_file(&out.join(name))?;
        }
    }
    for name in LINKED {
        // One that holds something else stays.
        let _ = fs::remove_dir(out.join(name));
    }
    Ok(())
}

/// Links an entry's artifact into OUT, file by file; where links cannot be, it is copied.
///
/// # Errors
/// What the file system says.
pub fn link(stored: &Path, out: &Path) -> Result<(), RunError> {
    for name in LINKED {
        let (from, to) = (stored.join(name), out.join(name));
        if !from.is_dir() {
            continue;
        }
        sweep(&to);
        let mut list = Vec::new();
        sums::walk(&from, "", &mut |name, path| {
            list.push((name.to_owned(), path.to_owned()));
        })?;
        for (name, path) in list {
            let to = to.join(name);
            let place = || -> Result<(), RunError> {
                if let Some(parent) = to.parent() {
                    create_dirs(parent)?;
                }
                if same(&path, &to) {
                    Ok(())
                } else {
                    one(&path, &to)
                }
            };
            // A run beside this one may take the directory away while it is still empty.
            let mut placed = place();
            for _ in 0..TRIES {
                if placed.is_ok() {
                    break;
                }
                placed = place();
            }
            placed?;
        }
    }
    Ok(())
}

/// The rest, once the entry is finished: logs, and the manifest that vouches for all of it, last.
///
/// # Errors
/// What the file system says.
pub fn copy(stored: &Path, out: &Path) -> Result<(), RunError> {
    create_dirs(out)?;
    for name in COPIED.into_iter().chain([MANIFEST]) {
        let (from, to) = (stored.join(name), out.join(name));
        if from.exists() {
            copied(&from, &to)?;
        }
    }
    Ok(())
}

/// A finished entry's artifact and logs, where an earlier run or another store may have left others.
///
/// # Errors
/// What the file system says.
pub fn all(stored: &Path, out: &Path) -> Result<(), RunError> {
    let ours: Option<Manifest> = sealed::read(&stored.join(MANIFEST)).whole();
    let there: Option<Manifest> = sealed::read(&out.join(MANIFEST)).whole();
    if there != ours {
        withdraw(out)?;
    }
    link(stored, out)?;
    copy(stored, out)
}

fn copied(from: &Path, to: &Path) -> Result<(), RunError> {
    let mut source = File::open(from).map_err(|e| failed(from, "open", &e))?;
    write_atomically(to, &mut |writer| {
        io::copy(&mut source, writer).map_err(|e| failed(to, "write", &e))?;
        Ok(())
    })
}

/// Removes the links of runs that were killed before they could rename them.
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let changed = entry.metadata().and_then(|m| m.modified()).ok();
        let age = changed.and_then(|at| at.elapsed().ok());
        let old = age.is_some_and(|age| age >= LEFT);
        if name.starts_with(b".") && name.ends_with(b".link") && old {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Gives a file another name, or copies it.
fn one(from: &Path, to: &Path) -> Result<(), RunError> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let beside = to.with_file_name(format!(".{name}.{}.link", std::process::id()));
    let _ = fs::remove_file(&beside);
    let linked = fs::hard_link(from, &beside).and_then(|()| fs::rename(&beside, to));
    if linked.is_ok() {
        // A rename between two names of one file does nothing and leaves both.
        let _ = fs::remove_file(&beside);
        return Ok(());
    }
    let _ = fs::remove_file(&beside);
    copied(from, to)
}

#[cfg(unix)]
fn same(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let id = |path: &Path| fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()));
    matches!((id(a), id(b)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(not(unix))]
const fn same(_: &Path, _: &Path) -> bool {
    false
}
