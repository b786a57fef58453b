//! Files of tensors, mapped and read one tensor at a time. A container is one file here and one row in the table:
//! how the tensors of a file are found. Everything else is the same for all of them.
//!
//! **Invariant:** the map never counts: pages are given back as soon as their numbers are on the heap, so a read costs
//! its result and a few MiB.
#![expect(unsafe_code, reason = "files are memory-mapped")]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use self::convert::Read;
use super::durable::failed;
use super::error::RunError;
use super::watched::Watched;
use crate::files::gguf::names::Order;
use crate::files::in_memory;
use crate::program::op::Tensor;
use crate::program::{DType, Format};

mod convert;
mod gguf;
pub mod safetensors;
pub mod sharded;

pub use sharded::Checkpoint;

/// How a container's files are read.
pub trait Container: std::fmt::Debug + Sync {
    /// The end of its files' names, behind the dot.
    fn extension(&self) -> &'static str;

    /// The tensors of a file of so many bytes; only its header is read.
    ///
    /// # Errors
    /// What is wrong with it, and the remedy.
    fn entries(&self, file: &File, size: u64) -> Result<Vec<Entry>, String>;
}

/// Every container. Files with another ending are read as the first.
pub const CONTAINERS: &[&dyn Container] = &[&safetensors::Safetensors, &gguf::Gguf];

/// The container of a file, by its name.
fn container(path: &Path) -> &'static dyn Container {
    let end = path.extension();
    let own = |c: &&&dyn Container| end.is_some_and(|end| end == c.extension());
    CONTAINERS
        .iter()
        .find(own)
        .map_or(&safetensors::Safetensors, |c| *c)
}

/// The tensors of a file of so many bytes, called `name`; only its header is read.
///
/// # Errors
/// What is wrong with it, and the remedy.
pub fn entries(name: &str, file: &File, size: u64) -> Result<Vec<Entry>, String> {
    container(Path::new(name)).entries(file, size)
}

/// How a tensor's numbers lie in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As programs store them.
    Stored(Format),
    /// In another way, of this name, which nothing reads.
    Other(String),
}

impl Kind {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Stored(format) => format.name(),
            Self::Other(name) => name,
        }
    }
}

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// How it is stored.
    pub kind: Kind,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Where its bytes begin in the file.
    pub start: u64,
    /// Where they end.
    pub end: u64,
    /// What is to be done to its numbers.
    pub change: Change,
    /// Whether the matrix of a linear map is `[out, in]`, even if the model's files in Hugging Face's layout have it
    /// transposed.
    pub straight: bool,
}

/// What is to be done to the numbers of a tensor for them to be those of Hugging Face's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// Its rows are in another order.
    Rows(Order),
    /// One is to be subtracted.
    LessOne,
}

impl Entry {
    /// How programs store it, if it is a matrix that they store as it is.
    #[must_use]
    pub fn stored_as(&self) -> Option<Format> {
        match &self.kind {
            Kind::Stored(Format::Plain(DType::F64 | DType::U32)) | Kind::Other(_) => None,
            Kind::Stored(format) => (self.shape.len() == 2).then_some(*format),
        }
    }

    /// Whether it holds floats that can be read.
    #[must_use]
    pub fn is_float(&self) -> bool {
        matches!(&self.kind, Kind::Stored(format) if format.dtype() != DType::U32)
    }
}

/// A mapped file whose header holds together.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    watched: Watched,
    map: Mmap,
    /// In the order of their data.
    entries: Vec<Entry>,
    index: BTreeMap<String, usize>,
}

/// A tensor in a mapped file.
#[derive(Clone, Copy, Debug)]
pub struct RawTensor<'a> {
    /// How it is stored; may be in a way that nothing reads.
    pub kind: &'a Kind,
    /// Its dimensions.
    pub shape: &'a [u64],
    /// Its elements, little-endian; aligned to nothing.
    pub bytes: &'a [u8],
}

impl TensorFile {
    /// Maps a file. The file must not be cut while it is mapped: files here are replaced, never
    /// changed.
    ///
    /// # Errors
    /// It cannot be read, or it is no whole file of its container.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        let file = File::open(path).map_err(|e| failed(path, "open", &e))?;
        let size = file
            .metadata()
            .map_err(|e| failed(path, "look at", &e))?
            .len();
        let mut entries = container(path)
            .entries(&file, size)
            .map_err(|why| RunError::file(path, why))?;
        entries.sort_by_key(|e| (e.start, e.end));
        // SAFETY: the map is read only, and its bytes are only ever read as plain bytes. Writers of such files rename
        // whole new ones over them; before each read it is looked whether somebody else has cut the file.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| failed(path, "map", &e))?;
        let index = entries.iter().enumerate().map(|(i, e)| (e.name.clone(), i));
        Ok(Self {
            path: path.to_owned(),
            watched: Watched::new(path, file)?,
            map,
            index: index.collect(),
            entries,
        })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names in the file, in the order of their data.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.entries.iter().map(|e| e.name.clone()).collect()
    }

    /// Whether the file is still the one that was opened: to be asked before bytes of the map are read.
    ///
    /// # Errors
    /// It was changed or cut meanwhile.
    pub fn unchanged(&self) -> Result<(), RunError> {
        self.watched.unchanged(&self.path)
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(*self.index.get(name)?)
    }

    /// A tensor; `None` if there is none of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<RawTensor<'_>> {
        let entry = self.entry(name)?;
        Some(RawTensor {
            kind: &entry.kind,
            shape: &entry.shape,
            bytes: self.map.get(in_memory(entry.start)..in_memory(entry.end))?,
        })
    }

    /// A tensor on the heap, as the file stores it.
    ///
    /// # Errors
    /// There is none of that name, or it is stored in a way that nothing reads.
    pub fn tensor(&self, name: &str) -> Result<Tensor, RunError> {
        let missing = || RunError::file(&self.path, format!("it holds no tensor `{name}`"));
        match &self.entry(name).ok_or_else(missing)?.kind {
            Kind::Stored(stored) => self.read(name, *stored),
            Kind::Other(kind) => {
                let what =
                    format!("`{name}` is stored as {kind}; convert it to a float type first");
                Err(RunError::file(&self.path, what))
            }
        }
    }

    /// A tensor on the heap, as it is to be stored.
    ///
    /// # Errors
    /// There is none of that name, it holds no floats, or a number that cannot be stored so.
    pub fn read(&self, name: &str, stored: Format) -> Result<Tensor, RunError> {
        self.unchanged()?;
        let missing = || RunError::file(&self.path, format!("it holds no tensor `{name}`"));
        let entry = self.entry(name).ok_or_else(missing)?;
        // What is on the heap need not be in memory twice.
        let release = |at: usize, len: usize| release_pages(&self.map, at, len);
        let read = Read {
            bytes: &self.map,
            start: in_memory(entry.start),
            end: in_memory(entry.end),
            release: &release,
        };
        let dims: Vec<usize> = entry.shape.iter().map(|&n| in_memory(n)).collect();
        let made = read.changed(entry, &dims, stored);
        made.map_err(|e| RunError::file(&self.path, format!("tensor `{name}` {e}")))
    }

    /// A matrix `[n, m]` of the file as `[m, n]` on the heap, as it is to be stored.
    ///
    /// # Errors
    /// There is no such matrix, it holds no floats, or a number that cannot be stored so.
    pub fn read_transposed(&self, name: &str, stored: Format) -> Result<Tensor, RunError> {
        self.unchanged()?;
        let bad = |why: String| RunError::file(&self.path, format!("tensor `{name}` {why}"));
        let found = self.get(name).ok_or_else(|| bad("is missing".into()))?;
        let made = match (found.kind, found.shape) {
            (Kind::Stored(Format::Plain(from)), &[rows, width]) => {
                let shape = [rows, width].map(in_memory);
                convert::transposed(found.bytes, *from, shape, stored)
            }
            (kind, _) => Err(format!(
                "is stored as {} and cannot be transposed",
                kind.name()
            )),
        };
        made.map_err(bad)
    }

    /// Hash of its bytes.
    fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for (i, piece) in self.map.chunks(convert::CHUNK).enumerate() {
            hasher.update(piece);
            release_pages(&self.map, i * convert::CHUNK, piece.len());
        }
        hasher.finalize()
    }
}

impl RawTensor<'_> {
    /// Its elements as f32, widened or rounded.
    ///
    /// # Errors
    /// It holds no floats.
    pub fn to_f32(&self) -> Result<Vec<f32>, String> {
        let read = Read {
            bytes: self.bytes,
            start: 0,
            end: self.bytes.len(),
            release: &|_, _| {},
        };
        let dims: Vec<usize> = self.shape.iter().map(|&n| in_memory(n)).collect();
        let made = read.tensor(self.kind, &dims, DType::F32.into())?;
        Ok(made.into_vec::<f32>().unwrap_or_default())
    }
}

/// Bytes around a page that is asked for that the system brings into memory with it.
const AROUND: usize = 64 << 10;

/// Gives the pages of a range of a map back to the system, with those that came along.
fn release_pages(map: &Mmap, offset: usize, len: usize) {
    let end = (offset + len + AROUND).min(map.len());
    let offset = offset.saturating_sub(AROUND).min(end);
    let len = end - offset;
    #[cfg(target_os = "linux")]
    // SAFETY: the map is a read-only map of a file: a dropped page is read again from the file on the next
    // access, so its contents do not change.
    let _best_effort =
        unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, len) };
    #[cfg(not(target_os = "linux"))]
    let _unused = (map, offset, len);
}

#[cfg(test)]
mod tests;
