//! Checksums of files, and what a file is known again by without reading it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::durable::failed;
use super::error::RunError;

/// Bytes of a file, and their BLAKE3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// How many.
    pub bytes: u64,
    /// Their hash, in hexadecimal.
    pub blake3: String,
}

impl Sum {
    /// That of a file as it is.
    ///
    /// # Errors
    /// What the file system says.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path)?)?;
        Ok(Self {
            bytes: hasher.count(),
            blake3: hasher.finalize().to_hex().to_string(),
        })
    }
}

/// What an unchanged file has: its size and times, and where there is one its number on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp(u64, u64, u64, u64);

impl Stamp {
    /// That of a file.
    ///
    /// # Errors
    /// What the file system says.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::from(&fs::metadata(path)?))
    }

    /// The size it speaks of.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.0
    }
}

impl From<&fs::Metadata> for Stamp {
    fn from(meta: &fs::Metadata) -> Self {
        let modified = meta.modified().ok();
        let since = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let modified = since.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
        #[cfg(unix)]
        let (changed, number) = {
            use std::os::unix::fs::MetadataExt as _;
            let changed = meta.ctime().wrapping_mul(1_000_000_000) + meta.ctime_nsec();
            (changed.cast_unsigned(), meta.ino())
        };
        #[cfg(not(unix))]
        let (changed, number) = (0, 0);
        Self(meta.len(), modified, changed, number)
    }
}

/// A file that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is damaged: {}", self.path.display(), self.what)
    }
}

/// The sums of all files below a folder but for some at its top, by their paths with `/`, in order.
///
/// # Errors
/// What the file system says.
pub fn of_tree(dir: &Path, except: &[&str]) -> Result<IndexMap<String, Sum>, RunError> {
    let mut paths = BTreeMap::new();
    walk(dir, "", &mut |name, path| {
        let top = name.split('/').next().unwrap_or_default();
        if !except.contains(&top) && !is_temporary(name) {
            paths.insert(name.to_owned(), path.to_owned());
        }
    })?;
    paths
        .into_iter()
        .map(|(name, path)| {
            let sum = Sum::of(&path).map_err(|e| failed(&path, "read", &e))?;
            Ok((name, sum))
        })
        .collect()
}

/// Whether a file is on its way to another name, by its path.
#[must_use]
pub fn is_temporary(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or_default();
    last.starts_with('.') && last.ends_with(".tmp")
}

/// Goes through the plain files below a folder.
///
/// # Errors
/// A folder cannot be listed.
pub fn walk(dir: &Path, prefix: &str, each: &mut dyn FnMut(&str, &Path)) -> Result<(), RunError> {
    let list = fs::read_dir(dir).map_err(|e| failed(dir, "list", &e))?;
    for item in list {
        let item = item.map_err(|e| failed(dir, "list", &e))?;
        let (name, path) = (item.file_name(), item.path());
        let name = format!("{prefix}{}", name.to_string_lossy());
        match item.file_type() {
            Ok(kind) if kind.is_dir() => walk(&path, &format!("{name}/"), each)?,
            Ok(kind) if kind.is_file() => each(&name, &path),
            _ => {}
        }
    }
    Ok(())
}

/// Bytes of the files below a folder; what cannot be listed counts for nothing.
#[must_use]
pub fn size(dir: &Path) -> u64 {
    let mut all = 0;
    let _ = walk(dir, "", &mut |_, path| {
        all += fs::metadata(path).map_or(0, |m| m.len());
    });
    all
}

/// Compares files with their sums. Those whose stamp is known are taken at their word; the stamps of all are
/// given back.
///
/// # Errors
/// The first that differs.
pub fn verify(
    dir: &Path,
    sums: &IndexMap<String, Sum>,
    known: &BTreeMap<String, Stamp>,
) -> Result<BTreeMap<String, Stamp>, Damage> {
    let mut stamps = BTreeMap::new();
    for (name, sum) in sums {
        let path = dir.join(name);
        let damage = |what: String| Damage {
            path: path.clone(),
            what,
        };
        let unread = |e: io::Error| {
            damage(match e.kind() {
                io::ErrorKind::NotFound => "it is gone".to_owned(),
                _ => format!("it cannot be read: {e}"),
            })
        };
        // Taken before the bytes are read: what is written meanwhile has another.
        let stamp = Stamp::of(&path).map_err(unread)?;
        if known.get(name) != Some(&stamp) {
            let own = Sum::of(&path).map_err(unread)?;
            if own.bytes != sum.bytes {
                let (is, was) = (own.bytes, sum.bytes);
                return Err(damage(format!("it has {is} bytes, {was} were written")));
            }
            if own != *sum {
                return Err(damage(
                    "its bytes are not those that were written".to_owned(),
                ));
            }
        }
        stamps.insert(name.clone(), stamp);
    }
    Ok(stamps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_and_what_is_known_is_not_read_again() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        fs::create_dir_all(dir.join("adapter/inner")).unwrap();
        fs::write(dir.join("adapter/inner/x"), "abc").unwrap();
        fs::write(dir.join("log"), "def").unwrap();
        fs::write(dir.join("lock"), "1").unwrap();
        fs::write(dir.join("adapter/.x.1-0.tmp"), "half").unwrap();
        let sums = of_tree(dir, &["lock"]).unwrap();
        assert_eq!(sums.keys().collect::<Vec<_>>(), ["adapter/inner/x", "log"]);
        assert_eq!(size(&dir.join("adapter")), 7);
        let stamps = verify(dir, &sums, &BTreeMap::new()).unwrap();
        // A file that is known by its stamp is not read: its sum may even be wrong.
        let mut wrong = sums.clone();
        wrong.get_mut("log").unwrap().blake3.clear();
        verify(dir, &wrong, &stamps).unwrap();
        fn said_of(
            dir: &Path,
            sums: &IndexMap<String, Sum>,
            known: &BTreeMap<String, Stamp>,
        ) -> Damage {
            verify(dir, sums, known).unwrap_err()
        }
        let said = |sums: &IndexMap<String, Sum>, known: &BTreeMap<String, Stamp>| {
            said_of(dir, sums, known)
        };
        assert_eq!(said(&wrong, &BTreeMap::new()).path, dir.join("log"));
        fs::write(dir.join("log"), "dEf").unwrap();
        assert!(said(&sums, &stamps).what.contains("not those"));
        fs::write(dir.join("log"), "de").unwrap();
        assert!(said(&sums, &stamps).what.contains("2 bytes, 3"));
        fs::remove_file(dir.join("log")).unwrap();
        assert!(said(&sums, &stamps).to_string().contains("it is gone"));
    }
}
