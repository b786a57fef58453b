//! Room on disks.

use std::path::Path;

/// Bytes free on the disk that holds a path, or will; `None` where the system does not tell.
#[must_use]
pub fn free(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    let there = path.ancestors().find(|p| p.exists())?;
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(there).ok()?;
        disk.f_bavail.checked_mul(disk.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = there;
        None
    }
}
