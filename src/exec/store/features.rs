//! What is known of a file of rows: its whole chunks, with their checksums.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::files::RunError;
use crate::files::durable;
use crate::files::sealed;
use crate::files::sums::{Damage, Stamp};
use crate::library::data::positioned::read_at;

/// Name of their directory in the store.
pub const DIR: &str = "features";

const SCHEMA: u32 = 1;
/// How many chunks that begin before an example are looked at for its rows.
const OVERLAPPING: usize = 8;

/// Rows of consecutive examples that were written at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    from = "(u64, u64, u64, u64, String)",
    into = "(u64, u64, u64, u64, String)"
)]
pub struct Chunk {
    /// The first example.
    pub from: u64,
    /// The one behind the last.
    pub to: u64,
    /// Where they begin, in bytes.
    pub at: u64,
    /// How many bytes there are.
    pub bytes: u64,
    /// Their checksum.
    pub blake3: String,
}

impl From<(u64, u64, u64, u64, String)> for Chunk {
    fn from((from, to, at, bytes, blake3): (u64, u64, u64, u64, String)) -> Self {
        Self {
            from,
            to,
            at,
            bytes,
            blake3,
        }
    }
}

impl From<Chunk> for (u64, u64, u64, u64, String) {
    fn from(c: Chunk) -> Self {
        (c.from, c.to, c.at, c.bytes, c.blake3)
    }
}

/// The first half of a hash, in hexadecimal: a chunk need not be safe from those who make collisions.
pub fn short(hasher: &blake3::Hasher) -> String {
    let hash = hasher.finalize().to_hex();
    hash.get(..32).unwrap_or_default().to_owned()
}

#[derive(Default, Serialize, Deserialize)]
struct Document {
    schema: u32,
    stamp: Option<Stamp>,
    chunks: Vec<Chunk>,
}

/// The chunks of a file.
#[derive(Debug, Default)]
pub struct Notes {
    stamp: Option<Stamp>,
    chunks: BTreeMap<u64, Chunk>,
    /// Whether the file beside the rows says the same.
    written: bool,
}

impl Notes {
    /// What is noted of a file of rows; a damaged or missing note says nothing.
    #[must_use]
    pub fn read(rows: &Path) -> Self {
        let document: Option<Document> = sealed::read(&path_of(rows)).whole();
        let document = document.filter(|d| d.schema == SCHEMA).unwrap_or_default();
        Self {
            written: document.stamp.is_some(),
            stamp: document.stamp,
            chunks: document.chunks.into_iter().map(|c| (c.from, c)).collect(),
        }
    }

    /// Keeps the chunks whose bytes are those that were written, and names the others. Where the file's size and
    /// times are what they were when that was last looked at, nothing is read.
    ///
    /// # Errors
    /// What the file system says.
    pub fn trust(&mut self, path: &Path, file: &File) -> Result<Vec<Damage>, RunError> {
        let stamp = stamp(path, file)?;
        if self.stamp.as_ref() == Some(&stamp) {
            return Ok(Vec::new());
        }
        self.compare(path, file)
    }

    /// The same, whatever is remembered.
    ///
    /// # Errors
    /// What the file system says.
    pub fn compare(&mut self, path: &Path, file: &File) -> Result<Vec<Damage>, RunError> {
        let whole = |chunk: &Chunk| -> bool {
            let mut bytes = vec![0; chunk.bytes as usize];
            let mut hasher = blake3::Hasher::new();
            read_at(file, &mut bytes, chunk.at).is_ok()
                && short(hasher.update(&bytes)) == chunk.blake3
        };
        let length = stamp(path, file)?.bytes();
        let bad: Vec<u64> = self
            .chunks
            .par_iter()
            .filter(|(_, chunk)| {
                let end = chunk.at.checked_add(chunk.bytes);
                end.is_none_or(|end| end > length) || !whole(chunk)
            })
            .map(|(from, _)| *from)
            .collect();
        self.written = false;
        if bad.is_empty() {
            return Ok(Vec::new());
        }
        let of = self.chunks.len();
        for from in &bad {
            self.chunks.remove(from);
        }
        Ok(vec![Damage {
            path: path.to_owned(),
            what: format!(
                "{} of {of} chunks of kept features are not what was written",
                bad.len()
            ),
        }])
    }

    /// Keeps the chunks that are as they should be.
    pub fn retain(&mut self, right: impl Fn(&Chunk) -> bool) {
        let before = self.chunks.len();
        self.chunks.retain(|_, chunk| right(chunk));
        self.written &= before == self.chunks.len();
    }

    /// Whether the rows of some examples are there, in however many chunks.
    #[must_use]
    pub fn hold(&self, examples: &Range<usize>) -> bool {
        let (mut at, end) = (examples.start as u64, examples.end as u64);
        while at < end {
            // Chunks that were made in other runs may lie over each other, all with the same rows.
            let before = self.chunks.range(..=at).rev().take(OVERLAPPING);
            match before.map(|(_, chunk)| chunk.to).max() {
                Some(to) if to > at => at = to,
                _ => return false,
            }
        }
        true
    }

    /// Bytes of all chunks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.chunks.values().map(|c| c.bytes).sum()
    }

    /// Adds a chunk, in place of the one that began with the same example.
    pub fn put(&mut self, chunk: Chunk) {
        self.written = false;
        self.chunks.insert(chunk.from, chunk);
    }

    /// Notes the chunks once they are on the disk, if that is not done.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&mut self, path: &Path, file: &File) -> Result<(), RunError> {
        if self.written {
            return Ok(());
        }
        file.sync_data()
            .map_err(|e| durable::failed(path, "sync", &e))?;
        self.stamp = Some(stamp(path, file)?);
        let document = Document {
            schema: SCHEMA,
            stamp: self.stamp.clone(),
            chunks: self.chunks.values().cloned().collect(),
        };
        sealed::write(&path_of(path), &document)?;
        self.written = true;
        Ok(())
    }

    /// Forgets that the file was ever looked at.
    pub fn forget(&mut self) {
        self.written = false;
        self.stamp = None;
    }
}

fn stamp(path: &Path, file: &File) -> Result<Stamp, RunError> {
    let meta = file.metadata();
    let meta = meta.map_err(|e| durable::failed(path, "look at", &e))?;
    Ok(Stamp::from(&meta))
}

/// Where the note of a file of rows is.
#[must_use]
pub fn path_of(rows: &Path) -> PathBuf {
    match rows.extension().and_then(|e| e.to_str()) {
        Some("f32") | None => rows.with_extension("json"),
        Some(stored) => rows.with_extension(format!("{stored}.json")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn damaged_and_cut_chunks_are_found_and_the_others_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.f32");
        fs::write(&path, [7_u8; 100]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut notes = Notes::read(&path);
        for i in 0..10_u64 {
            let mut hasher = blake3::Hasher::new();
            let blake3 = short(hasher.update(&[7; 10]));
            notes.put(Chunk {
                from: i,
                to: i + 1,
                at: 10 * i,
                bytes: 10,
                blake3,
            });
        }
        notes.write(&path, &file).unwrap();
        let mut notes = Notes::read(&path);
        assert!(notes.trust(&path, &file).unwrap().is_empty() && notes.hold(&(9..10)));
        let mut wrong = [7_u8; 95];
        wrong[33] ^= 4;
        fs::write(&path, wrong).unwrap();
        let mut notes = Notes::read(&path);
        let said = notes.trust(&path, &file).unwrap();
        assert!(said[0].what.starts_with("2 of 10 chunks"), "{said:?}");
        assert_eq!(
            [2, 3, 4, 9].map(|i| notes.hold(&(i..i + 1))),
            [true, false, true, false]
        );
        assert!(notes.hold(&(4..9)) && !notes.hold(&(2..6)) && !notes.hold(&(7..11)));
        assert_eq!(notes.bytes(), 80);
        fs::write(path_of(&path), "{ \"examples\": 10 }").unwrap();
        assert_eq!(Notes::read(&path).bytes(), 0);
    }
}
