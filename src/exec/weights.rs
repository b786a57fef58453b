//! Pretrained weights: safetensors files, mapped, read one tensor at a time.
//!
//! **Invariant:** the map never counts: pages are given back as soon as they are converted, so a
//! read costs its result and a few MiB.
#![expect(unsafe_code, reason = "files are memory-mapped")]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::files::RunError;
use crate::files::tensorfile::release_pages;
use crate::files::watched::Watched;
use crate::program::format::Packed;
use crate::program::op::{Element, Storage, Tensor};
use crate::program::{DType, Format};

/// Bytes converted between two returns of pages.
const CHUNK: usize = 4 << 20;

/// An open checkpoint: one file or several shards.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<(PathBuf, Mmap)>,
    watched: Vec<Watched>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<u64>,
    start: usize,
    end: usize,
}

impl Checkpoint {
    /// Opens a `.safetensors` file, or a directory with `model.safetensors` or
    /// `model.safetensors.index.json` and its shards.
    pub fn open(dir: &Path) -> Result<Self, RunError> {
        let mut checkpoint = Self {
            files: Vec::new(),
            watched: Vec::new(),
            tensors: BTreeMap::new(),
        };
        if dir.is_file() {
            checkpoint.add(dir.to_path_buf())?;
            return Ok(checkpoint);
        }
        let single = dir.join("model.safetensors");
        let index = dir.join("model.safetensors.index.json");
        if single.is_file() {
            checkpoint.add(single)?;
        } else if index.is_file() {
            checkpoint.add_shards(dir, &index)?;
        } else if dir.join("pytorch_model.bin").is_file()
            || dir.join("pytorch_model.bin.index.json").is_file()
        {
            let what = "holds only `pytorch_model.bin`, which is a pickle and could run code; convert it to `model.safetensors` \
                        (for example with `save_pretrained(..., safe_serialization=True)` of transformers)";
            return Err(RunError::file(dir, what));
        } else if dir.is_dir() {
            return Err(RunError::file(
                dir,
                "has neither `model.safetensors` nor `model.safetensors.index.json`; give a model directory or a `.safetensors` file",
            ));
        } else {
            return Err(RunError::file(
                dir,
                "no such file or directory; check the path or download the model first",
            ));
        }
        Ok(checkpoint)
    }

    /// The first file, for messages.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.files
            .first()
            .map(|(path, _)| path.clone())
            .unwrap_or_default()
    }

    /// Hash of the bytes of all its files, of which some may be known already.
    #[must_use]
    pub fn hash(&self, known: &dyn Fn(&Path) -> Option<String>) -> String {
        let mut files: Vec<&(PathBuf, Mmap)> = self.files.iter().collect();
        files.sort_by(|a, b| a.0.file_name().cmp(&b.0.file_name()));
        let mut whole = blake3::Hasher::new();
        for (path, map) in files {
            let known = known(path).and_then(|hex| blake3::Hash::from_hex(hex).ok());
            whole.update(known.unwrap_or_else(|| hash_of(map)).as_bytes());
        }
        whole.finalize().to_hex().to_string()
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether a tensor is there.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Stored dtype and shape of a tensor.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<(Dtype, &[u64])> {
        self.tensors
            .get(name)
            .map(|e| (e.dtype, e.shape.as_slice()))
    }

    /// A tensor's bytes as they lie in the file (little-endian, of no particular alignment).
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&[u8]> {
        let e = self.tensors.get(name)?;
        self.files.get(e.file)?.1.get(e.start..e.end)
    }

    /// Reads the first candidate that is present, as it is to be stored; `None` if none is.
    pub fn read(
        &self,
        candidates: &[String],
        shape: &[u64],
        stored: impl Into<Format>,
    ) -> Result<Option<Tensor>, RunError> {
        let Some((name, entry)) = candidates
            .iter()
            .find_map(|n| self.tensors.get(n).map(|e| (n, e)))
        else {
            return Ok(None);
        };
        let Some((path, map)) = self.files.get(entry.file) else {
            return Err(RunError::bug(format!(
                "tensor `{name}` names a file that is not open"
            )));
        };
        if entry.shape != shape {
            let what = format!(
                "tensor `{name}` has shape {:?}, but the model needs {shape:?}; the checkpoint belongs to another configuration",
                entry.shape
            );
            return Err(RunError::file(path, what));
        }
        if let Some(watched) = self.watched.get(entry.file) {
            watched.unchanged(path)?;
        }
        let read = Read {
            map,
            start: entry.start,
            end: entry.end,
        };
        let dims: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
        let stored = stored.into();
        let storage = match stored {
            Format::Plain(DType::F64) => read.convert::<f64>(entry.dtype),
            Format::Plain(DType::F32) => read.convert::<f32>(entry.dtype),
            Format::Plain(DType::F16) => read.convert::<f16>(entry.dtype),
            Format::Plain(DType::BF16) => read.convert::<bf16>(entry.dtype),
            Format::Plain(DType::U32) => {
                return Err(RunError::bug(format!(
                    "weight `{name}` was asked for as u32"
                )));
            }
            Format::Blocks(packed) => {
                let blocks = read.blocks(packed, entry.dtype);
                let blocks = blocks
                    .transpose()
                    .map_err(|x| unfit(path, name, x, stored))?;
                blocks.map(|blocks| Storage::Blocks(packed, blocks))
            }
        };
        let Some(storage) = storage else {
            let what = format!(
                "tensor `{name}` is stored as {:?}; only F64, F32, F16 and BF16 weights can be read",
                entry.dtype
            );
            return Err(RunError::file(path, what));
        };
        if let Some(found) = read.lost(entry.dtype, &storage) {
            let what = format!(
                "tensor `{name}` holds {found}, which is out of the range of {stored}; hold the model in `dtype = bf16` or `dtype = f32`"
            );
            return Err(RunError::file(path, what));
        }
        Ok(Some(Tensor { storage, dims }))
    }

    fn add_shards(&mut self, dir: &Path, index: &Path) -> Result<(), RunError> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let text = std::fs::read_to_string(index)
            .map_err(|e| RunError::file(index, format!("cannot be read: {e}")))?;
        let parsed: Index = serde_json::from_str(&text).map_err(|e| {
            RunError::file(
                index,
                format!("is not an index of shards: {e}; download it again"),
            )
        })?;
        let mut shards: Vec<&String> = parsed.weight_map.values().collect();
        shards.sort_unstable();
        shards.dedup();
        for shard in shards {
            let inside = Path::new(shard)
                .components()
                .all(|c| matches!(c, Component::Normal(_)));
            if !inside || shard.is_empty() {
                return Err(RunError::file(
                    index,
                    format!("names the shard `{shard}`, which lies outside the directory"),
                ));
            }
            self.add(dir.join(shard))?;
        }
        for (name, shard) in &parsed.weight_map {
            let there = self
                .tensors
                .get(name)
                .and_then(|e| self.files.get(e.file))
                .is_some_and(|f| f.0 == dir.join(shard));
            if !there {
                return Err(RunError::file(
                    index,
                    format!(
                        "says `{name}` is in `{shard}`, but it is not; download the shards again"
                    ),
                ));
            }
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf) -> Result<(), RunError> {
        let file = File::open(&path)
            .map_err(|e| RunError::file(&path, format!("cannot be opened: {e}")))?;
        // SAFETY: the map is read-only and its bytes are only ever read as plain bytes. Before each tensor it is
        // looked whether another process has cut the file, which would end this one with a signal.
        let map = unsafe { Mmap::map(&file) }
            .map_err(|e| RunError::file(&path, format!("cannot be mapped: {e}")))?;
        self.watched.push(Watched::new(&path, file)?);
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|e| RunError::file(&path, damage(&map, &e)))?;
        let base = header + 8;
        let id = self.files.len();
        for (name, info) in metadata.tensors() {
            let (start, end) = (base + info.data_offsets.0, base + info.data_offsets.1);
            if map.get(start..end).is_none() {
                return Err(RunError::file(
                    &path,
                    format!("is damaged: `{name}` lies outside the file; download it again"),
                ));
            }
            let shape = info.shape.iter().map(|&n| n as u64).collect();
            if self.tensors.contains_key(&name) {
                return Err(RunError::file(
                    &path,
                    format!("holds `{name}`, which another shard holds too; remove one"),
                ));
            }
            self.tensors.insert(
                name,
                Entry {
                    file: id,
                    dtype: info.dtype,
                    shape,
                    start,
                    end,
                },
            );
        }
        self.files.push((path, map));
        Ok(())
    }
}

/// Hash of a map's bytes.
fn hash_of(map: &Mmap) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let read = Read {
        map,
        start: 0,
        end: map.len(),
    };
    for (i, piece) in map.chunks(CHUNK).enumerate() {
        hasher.update(piece);
        release_pages(read.map, i * CHUNK, piece.len());
    }
    hasher.finalize()
}

/// What is wrong with a file whose header cannot be used.
fn damage(bytes: &[u8], error: &SafeTensorError) -> String {
    if bytes.starts_with(b"version https://git-lfs") {
        return "is a Git LFS pointer, not the weights; run `git lfs pull`".to_owned();
    }
    let cause = match error {
        SafeTensorError::HeaderTooSmall
        | SafeTensorError::MetadataIncompleteBuffer
        | SafeTensorError::InvalidHeaderLength => {
            "it is shorter or longer than its header says".to_owned()
        }
        SafeTensorError::HeaderTooLarge => "its header is implausibly large".to_owned(),
        other => format!("its header is invalid ({other})"),
    };
    format!("is no valid safetensors file: {cause}; download it again")
}

/// A tensor with a number that a format of blocks cannot hold.
pub(super) fn unfit(path: impl Into<PathBuf>, name: &str, x: f32, stored: Format) -> RunError {
    let what = if x.is_finite() {
        format!("tensor `{name}` holds {x}, which is out of the range of {stored}")
    } else {
        format!(
            "tensor `{name}` holds {x}, a number that is not finite: the weights are damaged or diverged"
        )
    };
    RunError::file(
        path,
        format!("{what}; hold the model in `dtype = bf16` or `dtype = f32`"),
    )
}

/// One tensor's bytes in a map.
#[derive(Clone, Copy)]
struct Read<'a> {
    map: &'a Mmap,
    start: usize,
    end: usize,
}

impl Read<'_> {
    /// A number of the file that became infinite.
    fn lost(&self, from: Dtype, made: &Storage) -> Option<f64> {
        let (whole, narrow): (bool, fn(f64) -> bool) = match made {
            Storage::F16(v) => (v.iter().all(|x| x.is_finite()), |x| {
                f16::from_f64(x).is_finite()
            }),
            Storage::BF16(v) => (v.iter().all(|x| x.is_finite()), |x| {
                bf16::from_f64(x).is_finite()
            }),
            _ => return None,
        };
        if whole {
            return None;
        }
        let Storage::F64(all) = self.convert::<f64>(from)? else {
            return None;
        };
        all.into_iter().find(|&x| x.is_finite() && !narrow(x))
    }

    /// In blocks, a part after another; `None` if the file's numbers are no floats.
    fn blocks(&self, packed: Packed, from: Dtype) -> Option<Result<Vec<u8>, f32>> {
        let width = match from {
            Dtype::F64 => 8,
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            _ => return None,
        };
        let numbers = (self.end - self.start) / width;
        let mut blocks = Vec::with_capacity(packed.bytes(numbers as u64) as usize);
        // Parts begin where blocks do: their lengths are powers of two.
        for start in (self.start..self.end).step_by(CHUNK) {
            let end = self.end.min(start + CHUNK);
            let part = Self {
                start,
                end,
                ..*self
            };
            let Storage::F32(part) = part.convert::<f32>(from)? else {
                return None;
            };
            match packed.encode_all(&part) {
                Ok(more) => blocks.extend(more),
                Err(x) => return Some(Err(x)),
            }
        }
        Some(Ok(blocks))
    }

    fn convert<T: Stored>(&self, from: Dtype) -> Option<Storage> {
        Some(T::wrap(match from {
            Dtype::F64 => self.collect(|b: [u8; 8]| T::of_f64(f64::from_le_bytes(b))),
            Dtype::F32 => self.collect(|b: [u8; 4]| T::of_f32(f32::from_le_bytes(b))),
            Dtype::F16 => self.collect(|b: [u8; 2]| T::of_f16(f16::from_le_bytes(b))),
            Dtype::BF16 => self.collect(|b: [u8; 2]| T::of_bf16(bf16::from_le_bytes(b))),
            _ => return None,
        }))
    }

    fn collect<T, const N: usize>(&self, element: impl Fn([u8; N]) -> T) -> Vec<T> {
        let mut data = Vec::with_capacity((self.end - self.start) / N);
        let mut at = self.start;
        while at < self.end {
            let next = self.end.min(at + CHUNK);
            let bytes = self.map.get(at..next).unwrap_or_default();
            data.extend(bytes.as_chunks::<N>().0.iter().map(|&b| element(b)));
            release_pages(self.map, at, next - at);
            at = next;
        }
        data
    }
}

/// A dtype weights are kept in: one rounding from whatever the file holds.
trait Stored: Element {
    fn of_f64(x: f64) -> Self;
    fn of_f32(x: f32) -> Self;
    fn of_f16(x: f16) -> Self {
        Self::of_f32(x.to_f32())
    }
    fn of_bf16(x: bf16) -> Self {
        Self::of_f32(x.to_f32())
    }
}

impl Stored for f64 {
    fn of_f64(x: f64) -> Self {
        x
    }
    fn of_f32(x: f32) -> Self {
        Self::from(x)
    }
}

impl Stored for f32 {
    fn of_f64(x: f64) -> Self {
        x as Self
    }
    fn of_f32(x: f32) -> Self {
        x
    }
}

impl Stored for f16 {
    fn of_f64(x: f64) -> Self {
        Self::from_f64(x)
    }
    fn of_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
    fn of_f16(x: f16) -> Self {
        x
    }
}

impl Stored for bf16 {
    fn of_f64(x: f64) -> Self {
        Self::from_f64(x)
    }
    fn of_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
    fn of_bf16(x: bf16) -> Self {
        x
    }
}

#[cfg(test)]
#[path = "weights_tests.rs"]
mod tests;
