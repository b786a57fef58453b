//! Files that were made once and are kept for later runs: `~/.cache/peftc`, or below `XDG_CACHE_HOME`.
//!
//! A file is whole or not there. When one is added, those used longest ago go until all are within a bound.

use std::fs::{self, File, FileTimes};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::base::world::{Keep, Kept};

/// Most bytes of kept files; one that is larger stands alone.
const BOUND: u64 = 8 << 30;

/// The file of that name, noted as used.
pub(super) fn open(folder: &Path, name: &str) -> Option<Kept> {
    let path = folder.join(name);
    let file = File::open(&path).ok()?;
    // A cache that may only be read is as good.
    let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
    Some(Kept { file, path })
}

/// A new file, to be kept under that name.
pub(super) fn begin(folder: &Path, name: &str) -> io::Result<Box<dyn Keep>> {
    fs::create_dir_all(folder)?;
    let making = folder.join(format!("{name}.{}.part", std::process::id()));
    let file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&making)?;
    Ok(Box::new(Making {
        out: Some(BufWriter::new(file)),
        making,
        path: folder.join(name),
    }))
}

struct Making {
    out: Option<BufWriter<File>>,
    making: PathBuf,
    path: PathBuf,
}

impl Write for Making {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.as_mut().map_or(Ok(0), |out| out.write(bytes))
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
        if let Some(folder) = path.parent() {
            make_room(folder, &path, BOUND);
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
fn make_room(folder: &Path, own: &Path, bound: u64) {
    let mut files: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        files.push((used, entry.path(), meta.len()));
    }
    files.sort();
    let mut total: u64 = files.iter().map(|(_, _, n)| n).sum();
    for (_, path, size) in files {
        if total <= bound {
            break;
        }
        if path != own && fs::remove_file(&path).is_ok() {
            total -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("tokens");
        for (age, name) in [(30, "old"), (20, "used"), (10, "young")] {
            let mut making = begin(&folder, name).expect("it is made");
            making.write_all(&[0; 100]).expect("it is written");
            let kept = making.done().expect("it is kept");
            let then = SystemTime::now() - Duration::from_secs(age);
            let times = FileTimes::new().set_modified(then);
            kept.file.set_times(times).expect("times");
        }
        assert!(open(&folder, "used").is_some());
        make_room(&folder, &folder.join("young"), 250);
        let left = |name: &str| folder.join(name).exists();
        assert_eq!(
            [left("old"), left("used"), left("young")],
            [false, true, true]
        );
        drop(begin(&folder, "given up").expect("it is made"));
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 2);
    }
}
