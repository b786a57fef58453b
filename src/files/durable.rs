//! Files that are there whole or not at all, whatever happens to the process or the machine.
//!
//! **Invariant:** a name is only ever given to bytes that are on the disk.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::RunError;

/// Writes `path` through a temporary file beside it: contents synced, then renamed, then the
/// directory synced. A failed attempt leaves the old file, and no temporary one. The mode of a file
/// that is replaced is kept.
///
/// Any number of writers of one path may be at work: each has a temporary file of its own, and the
/// last to finish wins.
///
/// # Errors
/// What `fill` says, or what the file system says.
pub fn write_atomically(
    path: &Path,
    fill: &mut dyn FnMut(&mut BufWriter<File>) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let temporary = Temporary::beside(path)?;
    let mut writer = BufWriter::with_capacity(1 << 18, temporary.open(path)?);
    fill(&mut writer)?;
    let file = writer
        .into_inner()
        .map_err(|e| failed(path, "write", e.error()))?;
    file.sync_all().map_err(|e| failed(path, "sync", &e))?;
    fs::rename(&temporary.path, path).map_err(|e| failed(path, "put in place", &e))?;
    temporary.keep();
    // Its lock goes with it: until now nobody took it for the leftover of a dead process.
    drop(file);
    sync_parent(path)
}

/// [`write_atomically`] of bytes that are there already.
///
/// # Errors
/// What the file system says.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    write_atomically(path, &mut |w| {
        w.write_all(bytes).map_err(|e| failed(path, "write", &e))
    })
}

/// Writes over a file that a person named: a link stays a link, a file with several names keeps them.
///
/// # Errors
/// What the file system says.
pub fn write_over(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if names(&path) < 2 {
        return write_bytes(&path, bytes);
    }
    // A rename would take this name from the others, so the bytes go into the file itself, once the disk
    // has proved to have room for them.
    let spare = Temporary::beside(&path)?;
    let written = spare
        .open(&path)?
        .write_all(bytes)
        .map_err(|e| failed(&path, "write", &e));
    written?;
    fs::write(&path, bytes).map_err(|e| failed(&path, "write", &e))
}

#[cfg(unix)]
fn names(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).map_or(1, |m| m.nlink())
}

#[cfg(not(unix))]
const fn names(_: &Path) -> u64 {
    1
}

/// Creates a directory and those above it; those that are new are synced into their parents.
///
/// # Errors
/// What the file system says.
pub fn create_dirs(dir: &Path) -> Result<(), RunError> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        create_dirs(parent)?;
    }
    match fs::create_dir(dir) {
        Ok(()) => sync_parent(dir),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(e) => Err(failed(dir, "create", &e)),
    }
}

/// Makes the names in a directory durable. Where directories cannot be synced it does nothing.
///
/// # Errors
/// What the file system says.
pub fn sync_dir(dir: &Path) -> Result<(), RunError> {
    #[cfg(unix)]
    {
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        let handle = File::open(dir).map_err(|e| failed(dir, "open", &e))?;
        match handle.sync_all() {
            Ok(()) => Ok(()),
            // Some network and fuse file systems know no sync of directories.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
                ) =>
            {
                Ok(())
            }
            Err(e) => Err(failed(dir, "sync", &e)),
        }
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        Ok(())
    }
}

/// Removes a file; one that is not there is as good.
///
/// # Errors
/// What the file system says.
pub fn remove_file(path: &Path) -> Result<(), RunError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(path, "remove", &e)),
        _ => Ok(()),
    }
}

/// Removes a directory with everything in it; one that is not there is as good.
///
/// # Errors
/// What the file system says.
pub fn remove_dir(path: &Path) -> Result<(), RunError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(path, "remove", &e)),
        _ => Ok(()),
    }
}

/// The sentence for a failed file operation.
#[must_use]
pub fn failed(path: &Path, action: &str, error: &io::Error) -> RunError {
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space or choose another directory"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; check who may write there or choose another directory"
        }
        io::ErrorKind::FileTooLarge => {
            "; raise the limit on the size of files (`ulimit -f`) or choose another directory"
        }
        _ => "",
    };
    RunError::file(path, format!("cannot {action} it: {error}{remedy}"))
}

/// A file on its way to a name: `.NAME.PROCESS-NUMBER.tmp` beside it. Dropped, it is removed.
struct Temporary {
    path: PathBuf,
    remove: std::cell::Cell<bool>,
}

impl Temporary {
    /// One that no other writer has; what dead writers of the same name left goes.
    fn beside(path: &Path) -> Result<Self, RunError> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = path
            .file_name()
            .ok_or_else(|| RunError::file(path, "this is no name of a file"))?;
        let mut stem = std::ffi::OsString::from(".");
        stem.push(name);
        stem.push(".");
        sweep(path, &stem);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        stem.push(format!("{process}-{number}.tmp"));
        Ok(Self {
            path: path.with_file_name(stem),
            remove: std::cell::Cell::new(true),
        })
    }

    /// Opens it, locked, so that it is known to be at work; with the mode that `path` has.
    fn open(&self, path: &Path) -> Result<File, RunError> {
        let file = File::create(&self.path).map_err(|e| failed(&self.path, "create", &e))?;
        // A file system without locks, or without modes, is as good.
        let _ = file.try_lock();
        if let Ok(known) = fs::metadata(path)
            && known.is_file()
        {
            let _ = file.set_permissions(known.permissions());
        }
        Ok(file)
    }

    fn keep(&self) {
        self.remove.set(false);
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.remove.get() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the temporary files of a name whose writers are dead: the system gave their locks back.
fn sweep(path: &Path, stem: &std::ffi::OsStr) {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let stem = stem.as_encoded_bytes();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(stem) && name.ends_with(b".tmp") {
            remove_left(&entry.path());
        }
    }
}

/// Age from which on a file without a lock was left by a dead process: a live one locks it at once.
const LEFT: Duration = Duration::from_secs(60);

/// Removes a file that its maker holds a lock on while it lives, if the maker is dead; tells whether it
/// went.
pub fn remove_left(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    let age = file.metadata().and_then(|m| m.modified());
    let age = age.ok().and_then(|written| written.elapsed().ok());
    age.is_some_and(|age| age >= LEFT) && file.try_lock().is_ok() && fs::remove_file(path).is_ok()
}

fn sync_parent(path: &Path) -> Result<(), RunError> {
    path.parent().map_or(Ok(()), sync_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_bytes(&path, b"old").unwrap();
        let result = write_atomically(&path, &mut |w| {
            w.write_all(b"new").unwrap();
            Err(RunError::bug("stop"))
        });
        assert!(result.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_dead_writers_left_goes_and_what_live_ones_write_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let dead = dir.path().join(".f.4194304999-0.tmp");
        fs::write(&dead, "half").unwrap();
        let then = std::time::SystemTime::now() - 2 * LEFT;
        let old = |path: &Path| {
            let times = fs::FileTimes::new().set_modified(then);
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_times(times)
                .unwrap();
        };
        old(&dead);
        let live = dir.path().join(".f.4194304998-0.tmp");
        let locked = File::create(&live).unwrap();
        locked.try_lock().unwrap();
        let other = dir.path().join(".ff.4194304999-0.tmp");
        fs::write(&other, "of another file").unwrap();
        old(&live);
        old(&other);
        write_bytes(&path, b"new").unwrap();
        assert_eq!(
            [dead.exists(), live.exists(), other.exists()],
            [false, true, true]
        );
    }

    #[test]
    fn many_writers_of_one_file_leave_it_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::thread::scope(|scope| {
            for byte in 0..8_u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..25 {
                        write_bytes(path, &[byte; 5000]).unwrap();
                    }
                });
            }
        });
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() == 5000 && bytes.iter().all(|b| *b == bytes[0]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn modes_and_links_are_kept() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("f"), dir.path().join("link"));
        let twin = dir.path().join("twin");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        symlink("f", &link).unwrap();
        write_over(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::hard_link(&path, &twin).unwrap();
        write_over(&path, b"newer").unwrap();
        assert_eq!(fs::read(&twin).unwrap(), b"newer");
        assert_eq!(fs::metadata(&path).unwrap().nlink(), 2);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn missing_things_are_removed_and_directories_made() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        create_dirs(&deep).unwrap();
        create_dirs(&deep).unwrap();
        remove_file(&deep.join("none")).unwrap();
        remove_dir(&dir.path().join("a")).unwrap();
        remove_dir(&dir.path().join("a")).unwrap();
        fs::write(dir.path().join("x"), "").unwrap();
        let error = create_dirs(&dir.path().join("x/y")).unwrap_err();
        assert!(error.to_string().contains("cannot create it"), "{error}");
    }
}
