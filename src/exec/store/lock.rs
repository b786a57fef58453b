//! Locks of directories: held while a process writes there, given back by the system when it dies.
//!
//! They are `flock(2)` of a whole file, taken for writing. NFS (Linux, 2.6.12 and later) makes locks of the server of them; other
//! file systems that several machines share hold them among machines where they are mounted so (`docs/cli.md`).

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
                let _ = (&mut file).take(512).read_to_string(&mut holder);
                return Ok(Err(named(&holder, host().as_deref())));
            }
            Err(TryLockError::Error(e)) => return Err(durable::failed(&path, "lock", &e)),
        }
        let note = |file: &mut File| -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            let host = host().unwrap_or_default();
            file.write_all(format!("{} {host}", std::process::id()).as_bytes())
        };
        note(&mut file).map_err(|e| durable::failed(&path, "write", &e))?;
        return Ok(Ok(file));
    }
    Err(RunError::file(
        path,
        "it is removed again and again while this process tries to lock it",
    ))
}

/// This machine's name, by which the others of a cluster know it.
fn host() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Who holds a lock, by what its file says: a process' number and its machine.
fn named(holder: &str, here: Option<&str>) -> String {
    let mut words = holder.split_whitespace();
    let number = words.next().unwrap_or_default();
    if number.is_empty() || !number.bytes().all(|c| c.is_ascii_digit()) {
        return "another process".to_owned();
    }
    match words.next() {
        Some(there) if Some(there) != here => format!("process {number} on {there}"),
        _ => format!("process {number}"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_lock_is_named_with_the_machine_where_that_is_another() {
        assert_eq!(named("12 n1", Some("n1")), "process 12");
        assert_eq!(named("12 n2\n", Some("n1")), "process 12 on n2");
        assert_eq!(named("12", Some("n1")), "process 12");
        assert_eq!(named("", None), "another process");
        assert_eq!(named("who knows", None), "another process");
    }
}
