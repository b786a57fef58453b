//! Locks of directories: held while a process writes there, given back by the system when it dies.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use crate::files::RunError;
use crate::files::durable;

/// Name of a lock's file inside its directory.
pub const LOCK: &str = "lock";

/// Times that a directory may be removed under a lock before that is taken for an error.
const TRIES: usize = 100;

/// Takes the lock of a directory, which is made if need be, or says who holds it. The system gives a lock
/// back when its process dies, so a lock file left by a dead one is simply taken.
///
/// # Errors
/// What the file system says.
pub fn try_lock(dir: &Path) -> Result<Result<File, String>, RunError> {
    let path = dir.join(LOCK);
    for _ in 0..TRIES {
        durable::create_dirs(dir)?;
        let opened = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path);
        let mut file = match opened {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(|e| durable::failed(&path, "open", &e))?,
        };
        match file.try_lock() {
            // Who waited for the lock of a directory that was removed holds a file without a name.
            Ok(()) if !is_at(&file, &path) => continue,
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = (&mut file).take(32).read_to_string(&mut holder);
                let holder = holder.trim();
                let number = !holder.is_empty() && holder.bytes().all(|c| c.is_ascii_digit());
                return Ok(Err(if number {
                    format!("process {holder}")
                } else {
                    "another process".to_owned()
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
        return Ok(Ok(file));
    }
    Err(RunError::file(
        path,
        "it is removed again and again while this process tries to lock it",
    ))
}

/// Whether a path still names an open file.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let own = file.metadata().map(|m| (m.dev(), m.ino()));
        let there = fs::metadata(path).map(|m| (m.dev(), m.ino()));
        own.ok() == there.ok()
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        fs::metadata(path).is_ok()
    }
}
