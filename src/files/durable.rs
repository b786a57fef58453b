//! Files that are there whole or not at all, whatever happens to the process or the machine.
//!
//! **Invariant:** a name is only ever given to bytes that are on the disk.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::error::RunError;

/// Writes `path` through a temporary file beside it: contents synced, then renamed, then the
/// directory synced. A failed attempt leaves the old file, and no temporary one.
///
/// Two writers of one path must exclude each other (the store's locks do); `unique` gives the
/// temporary file a name of this process where they do not.
///
/// # Errors
/// What `fill` says, or what the file system says.
pub fn write_atomically(
    path: &Path,
    unique: bool,
    fill: &mut dyn FnMut(&mut BufWriter<File>) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let temporary = temporary_name(path, unique)?;
    let mut attempt = || -> Result<(), RunError> {
        let file = File::create(&temporary).map_err(|e| failed(&temporary, "create", &e))?;
        let mut writer = BufWriter::with_capacity(1 << 18, file);
        fill(&mut writer)?;
        let file = writer
            .into_inner()
            .map_err(|e| failed(path, "write", e.error()))?;
        file.sync_all().map_err(|e| failed(path, "sync", &e))?;
        drop(file);
        fs::rename(&temporary, path).map_err(|e| failed(path, "put in place", &e))?;
        sync_parent(path)
    };
    attempt().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// [`write_atomically`] of bytes that are there already.
///
/// # Errors
/// What the file system says.
pub fn write_bytes(path: &Path, unique: bool, bytes: &[u8]) -> Result<(), RunError> {
    write_atomically(path, unique, &mut |w| {
        w.write_all(bytes).map_err(|e| failed(path, "write", &e))
    })
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
        _ => "",
    };
    RunError::file(path, format!("cannot {action} it: {error}{remedy}"))
}

/// The temporary file of a path: `.NAME.tmp` beside it.
fn temporary_name(path: &Path, unique: bool) -> Result<PathBuf, RunError> {
    let name = path
        .file_name()
        .ok_or_else(|| RunError::file(path, "this is no name of a file"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    if unique {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        temporary.push(format!(
            ".{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
    }
    temporary.push(".tmp");
    Ok(path.with_file_name(temporary))
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
        write_bytes(&path, false, b"old").unwrap();
        let result = write_atomically(&path, true, &mut |w| {
            w.write_all(b"new").unwrap();
            Err(RunError::bug("stop"))
        });
        assert!(result.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
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
