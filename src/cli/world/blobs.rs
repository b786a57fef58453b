//! A repository in the hub's cache, in the layout that all of the hub's tools share: contents in `blobs/`, what
//! a commit calls them in `snapshots/COMMIT/`, and the commit of a branch in `refs/`.
//!
//! **Invariant:** what lies in `blobs/` under its own name is whole.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::hub::Trouble;
use crate::files::durable;

/// The folder of a repository in the cache.
#[derive(Clone, Debug)]
pub(super) struct Blobs {
    dir: PathBuf,
}

/// A content's place.
#[derive(Debug)]
pub(super) enum Slot {
    /// It is there.
    Filled,
    /// It has yet to come, or the rest of it.
    Open(Open),
}

/// A content on its way, which no other process writes to meanwhile.
#[derive(Debug)]
pub(super) struct Open {
    /// What there is of it.
    pub(super) file: File,
    part: PathBuf,
    path: PathBuf,
}

impl Open {
    /// Gives it its name.
    pub(super) fn keep(self) -> Result<(), Trouble> {
        self.file.sync_all().map_err(|e| self.disk(e))?;
        fs::rename(&self.part, &self.path).map_err(|e| self.disk(e))
    }

    /// What the disk says of it.
    pub(super) fn disk(&self, error: io::Error) -> Trouble {
        Trouble::disk(&self.part, error)
    }

    /// The same trouble, with its path where it is the disk's.
    pub(super) fn named(&self, why: Trouble) -> Trouble {
        match why {
            Trouble::Disk { error, .. } => self.disk(error),
            other => other,
        }
    }
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> Trouble + '_ {
    move |error| Trouble::disk(path, error)
}

/// Creates the folder of a path.
fn space_for(path: &Path) -> Result<(), Trouble> {
    match path.parent() {
        Some(folder) => fs::create_dir_all(folder).map_err(disk(folder)),
        None => Ok(()),
    }
}

impl Blobs {
    pub(super) const fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn blob(&self, etag: &str) -> PathBuf {
        self.dir.join("blobs").join(etag)
    }

    /// The place of a content of so many bytes. Where another process fills it, its end is waited for.
    pub(super) fn slot(&self, etag: &str, size: u64) -> Result<Slot, Trouble> {
        let path = self.blob(etag);
        let there = || fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() == size);
        if there() {
            return Ok(Slot::Filled);
        }
        let part = path.with_file_name(format!("{etag}.incomplete"));
        space_for(&part)?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&part)
            .map_err(disk(&part))?;
        // Where a file system knows no locks, two processes still end with one whole file: the hash is
        // taken of what lies there.
        let _ = file.lock();
        if there() {
            return Ok(Slot::Filled);
        }
        Ok(Slot::Open(Open { file, part, path }))
    }

    /// What a commit calls a content; gives the path.
    pub(super) fn place(&self, etag: &str, commit: &str, file: &str) -> Result<PathBuf, Trouble> {
        let path = self.dir.join("snapshots").join(commit).join(file);
        let blob = self.blob(etag);
        let same = || Some(fs::canonicalize(&path).ok()? == fs::canonicalize(&blob).ok()?);
        if same() == Some(true) {
            return Ok(path);
        }
        space_for(&path)?;
        // From `snapshots/COMMIT/a/b` to `blobs/ETAG`.
        let up = 2 + file.matches('/').count();
        let mut target: PathBuf = std::iter::repeat_n("..", up).collect();
        target.extend(["blobs", etag]);
        let own = path.file_name().unwrap_or_default().to_string_lossy();
        // Two threads that place the same file have a link each.
        static LINKS: AtomicU64 = AtomicU64::new(0);
        let number = LINKS.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let link = path.with_file_name(format!(".{own}.{process}.{number}.link"));
        let _ = fs::remove_file(&link);
        // Where links cannot be, a second name or a copy does.
        symlink(&target, &link)
            .or_else(|_| fs::hard_link(&blob, &link))
            .or_else(|_| fs::copy(&blob, &link).map(drop))
            .map_err(disk(&link))?;
        fs::rename(&link, &path).map_err(disk(&path))?;
        Ok(path)
    }

    /// Notes the commit that a branch or tag stands for.
    pub(super) fn refer(&self, revision: &str, commit: &str) -> Result<(), Trouble> {
        let path = self.dir.join("refs").join(revision);
        space_for(&path)?;
        durable::write_bytes(&path, commit.as_bytes())
            .map_err(|why| Trouble::disk(&path, io::Error::other(why.to_string())))
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
