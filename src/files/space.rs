//! Room on disks.

use std::path::{Path, PathBuf};

/// Bytes free on the disk that holds a path, or will; `None` where the system does not tell.
#[must_use]
pub fn free(path: &Path) -> Option<u64> {
    let there = nearest(path)?;
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(&there).ok()?;
        disk.f_bavail.checked_mul(disk.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = there;
        None
    }
}

/// Whether two paths are, or will be, on one disk, so that files of one can be linked from the other.
#[must_use]
pub fn is_shared(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let disk = |path: &Path| nearest(path)?.metadata().ok().map(|m| m.dev());
        disk(a) == disk(b)
    }
    #[cfg(not(unix))]
    {
        let _ = (a, b);
        true
    }
}

/// The path itself, or the directory above it that is there.
fn nearest(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let there = path.ancestors().find(|p| p.exists());
    there.map(Path::to_path_buf)
}
