//! Safetensors files: a writer that streams, and a reader that maps.
//!
//! **Invariant:** no tensor is copied on its way out, and the same specs and data give the same bytes.
#![expect(unsafe_code, reason = "files are memory-mapped")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::{Dtype, Metadata};
use serde::Serialize;

use super::durable;
use super::error::RunError;
use super::watched::Watched;
use crate::program::op::{Storage, Tensor};
use crate::program::types::DType;

/// A tensor to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name in the file.
    pub name: String,
    /// Its elements' type.
    pub dtype: DType,
    /// Its dimensions.
    pub shape: Vec<u64>,
}

impl TensorSpec {
    /// The spec of a tensor.
    pub fn of(name: impl Into<String>, tensor: &Tensor) -> Self {
        let shape = tensor.dims.iter().map(|&d| d as u64).collect();
        Self {
            name: name.into(),
            dtype: tensor.dtype(),
            shape,
        }
    }

    /// Its bytes; `None` if there are more than can be counted.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.shape
            .iter()
            .try_fold(self.dtype.size(), |n, &d| n.checked_mul(d))
    }
}

#[derive(Serialize)]
struct Entry<'a> {
    dtype: &'static str,
    shape: &'a [u64],
    data_offsets: [u64; 2],
}

/// Writes a safetensors file: the header from `specs`, then the data in their order, which `fill`
/// writes one tensor at a time, little-endian and row-major. `path` is whole or untouched.
/// `metadata` is at most one pair: more would leave their order to chance.
///
/// # Errors
/// What the file system or `fill` says; a wrong number of bytes and a name that comes twice are bugs.
pub fn write_tensors(
    path: &Path,
    specs: &[TensorSpec],
    metadata: Option<(&str, &str)>,
    fill: &mut dyn FnMut(usize, &mut dyn Write) -> Result<(), RunError>,
) -> Result<(), RunError> {
    write_observed(path, specs, metadata, fill, None)
}

/// [`write_tensors`] that hashes the file on its way.
pub(crate) fn write_observed(
    path: &Path,
    specs: &[TensorSpec],
    metadata: Option<(&str, &str)>,
    fill: &mut dyn FnMut(usize, &mut dyn Write) -> Result<(), RunError>,
    mut hasher: Option<&mut blake3::Hasher>,
) -> Result<(), RunError> {
    let header = header(specs, metadata)?;
    durable::write_atomically(path, &mut |writer| {
        let mut send = |bytes: &[u8]| {
            if let Some(hasher) = hasher.as_deref_mut() {
                hasher.update(bytes);
            }
            writer.write_all(bytes)
        };
        send(&header).map_err(|e| durable::failed(path, "write", &e))?;
        for (index, spec) in specs.iter().enumerate() {
            let left = spec.bytes().unwrap_or_default();
            let mut counted = Counted {
                send: &mut send,
                left,
            };
            fill(index, &mut counted)?;
            if counted.left != 0 {
                let missing = counted.left;
                return Err(RunError::bug(format!(
                    "tensor `{}` came {missing} bytes short",
                    spec.name
                )));
            }
        }
        Ok(())
    })
}

/// The length and the JSON text, padded with spaces so that the data starts at a multiple of 8.
fn header(specs: &[TensorSpec], metadata: Option<(&str, &str)>) -> Result<Vec<u8>, RunError> {
    let mut entries: BTreeMap<&str, Entry<'_>> = BTreeMap::new();
    let mut end = 0_u64;
    for spec in specs {
        let start = end;
        end = spec
            .bytes()
            .and_then(|n| start.checked_add(n))
            .ok_or_else(|| {
                RunError::bug(format!("tensor `{}` is too large to count", spec.name))
            })?;
        let entry = Entry {
            dtype: file_dtype(spec.dtype),
            shape: &spec.shape,
            data_offsets: [start, end],
        };
        if spec.name == "__metadata__" || entries.insert(&spec.name, entry).is_some() {
            return Err(RunError::bug(format!(
                "a file cannot hold two tensors called `{}`",
                spec.name
            )));
        }
    }
    let metadata = metadata.map(|(key, value)| BTreeMap::from([(key, value)]));
    #[derive(Serialize)]
    struct Header<'a> {
        #[serde(rename = "__metadata__", skip_serializing_if = "Option::is_none")]
        metadata: Option<BTreeMap<&'a str, &'a str>>,
        #[serde(flatten)]
        entries: BTreeMap<&'a str, Entry<'a>>,
    }
    let mut text = serde_json::to_vec(&Header { metadata, entries })
        .map_err(|e| RunError::bug(format!("a tensor header cannot be written: {e}")))?;
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    Ok(bytes)
}

/// Passes on at most as many bytes as the tensor has.
struct Counted<'a> {
    send: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
    left: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other("more bytes than the tensor has"))?;
        (self.send)(bytes)?;
        self.left = left;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A tensor's elements as bytes, as they lie in memory.
#[must_use]
pub fn bytes_of(tensor: &Tensor) -> &[u8] {
    tensor.storage.bytes()
}

/// The elements of a tensor as bytes, writable.
#[must_use]
pub fn bytes_of_mut(tensor: &mut Tensor) -> &mut [u8] {
    tensor.storage.bytes_mut()
}

const fn file_dtype(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "F64",
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::U32 => "U32",
    }
}

/// A mapped safetensors file whose header holds together.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    watched: Watched,
    map: Mmap,
    metadata: Metadata,
    data_start: usize,
}

/// A tensor in a mapped file.
#[derive(Clone, Copy, Debug)]
pub struct RawTensor<'a> {
    /// Its elements' type; may be one that no program uses.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: &'a [usize],
    /// Its elements, little-endian; aligned to nothing.
    pub bytes: &'a [u8],
}

impl TensorFile {
    /// Maps a file. The file must not be cut while it is mapped: files here are replaced, never
    /// changed.
    ///
    /// # Errors
    /// It cannot be read, or it is no whole safetensors file.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        let file = File::open(path).map_err(|e| durable::failed(path, "open", &e))?;
        // SAFETY: the map is read only, and writers of such files rename whole new ones over them; before each
        // read it is looked whether somebody else has cut the file.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| durable::failed(path, "map", &e))?;
        let (length, metadata) = safetensors::SafeTensors::read_metadata(&map).map_err(|e| {
            RunError::file(
                path,
                format!("this is no whole safetensors file ({e}); write or download it again"),
            )
        })?;
        Ok(Self {
            path: path.to_owned(),
            watched: Watched::new(path, file)?,
            map,
            metadata,
            data_start: length.saturating_add(8),
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
        self.metadata.offset_keys()
    }

    /// Whether the file is still the one that was opened: to be asked before bytes of the map are read.
    ///
    /// # Errors
    /// It was changed or cut meanwhile.
    pub fn unchanged(&self) -> Result<(), RunError> {
        self.watched.unchanged(&self.path)
    }

    /// A tensor; `None` if there is none of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<RawTensor<'_>> {
        let info = self.metadata.info(name)?;
        let start = self.data_start.checked_add(info.data_offsets.0)?;
        let end = self.data_start.checked_add(info.data_offsets.1)?;
        Some(RawTensor {
            dtype: info.dtype,
            shape: &info.shape,
            bytes: self.map.get(start..end)?,
        })
    }

    /// A tensor on the heap, in the dtype of the file.
    ///
    /// # Errors
    /// There is none of that name, or it has a dtype that no program uses.
    pub fn tensor(&self, name: &str) -> Result<Tensor, RunError> {
        self.unchanged()?;
        let missing = || RunError::file(&self.path, format!("it holds no tensor `{name}`"));
        let raw = self.get(name).ok_or_else(missing)?;
        let start = self.metadata.info(name).map_or(0, |i| i.data_offsets.0);
        let start = self.data_start.saturating_add(start);
        // What is on the heap need not be in memory twice.
        let read = |at: usize, len: usize| release_pages(&self.map, start + at, len);
        raw.to_tensor_by(&read)
            .map_err(|e| RunError::file(&self.path, format!("`{name}` {e}")))
    }
}

/// Bytes around a page that is asked for that the system brings into memory with it.
const AROUND: usize = 64 << 10;

/// Gives the pages of a range of a map back to the system, with those that came along.
pub(crate) fn release_pages(map: &Mmap, offset: usize, len: usize) {
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

/// Bytes of a tensor that are copied out of a map at a time.
const CHUNK: usize = 1 << 20;

/// What is called with the place and length of each part that was copied.
type Copied<'a> = &'a dyn Fn(usize, usize);

/// Numbers out of bytes, part after part.
fn collect<T: bytemuck::Pod>(bytes: &[u8], copied: Copied<'_>) -> Vec<T> {
    let size = size_of::<T>();
    let mut all = Vec::with_capacity(bytes.len() / size);
    for (i, part) in bytes.chunks(CHUNK).enumerate() {
        let numbers = part.chunks_exact(size);
        all.extend(numbers.map(bytemuck::pod_read_unaligned::<T>));
        copied(i * CHUNK, part.len());
    }
    all
}

impl RawTensor<'_> {
    /// Copies it to the heap.
    ///
    /// # Errors
    /// A dtype that no program uses.
    pub fn to_tensor(&self) -> Result<Tensor, String> {
        self.to_tensor_by(&|_, _| {})
    }

    fn to_tensor_by(self, copied: Copied<'_>) -> Result<Tensor, String> {
        let storage = match self.dtype {
            Dtype::F64 => Storage::F64(collect(self.bytes, copied)),
            Dtype::F32 => Storage::F32(collect(self.bytes, copied)),
            Dtype::F16 => Storage::F16(collect(self.bytes, copied)),
            Dtype::BF16 => Storage::BF16(collect(self.bytes, copied)),
            Dtype::U32 => Storage::U32(collect(self.bytes, copied)),
            other => {
                return Err(format!(
                    "is stored as {other}; convert it to a float type first"
                ));
            }
        };
        Ok(Tensor {
            storage,
            dims: self.shape.to_vec(),
        })
    }

    /// Its elements as f32, widened or rounded.
    ///
    /// # Errors
    /// It holds no floats.
    pub fn to_f32(&self) -> Result<Vec<f32>, String> {
        Ok(match self.to_tensor()?.storage {
            Storage::F32(v) => v,
            Storage::F64(v) => v.into_iter().map(|x| x as f32).collect(),
            Storage::F16(v) => v.into_iter().map(half::f16::to_f32).collect(),
            Storage::BF16(v) => v.into_iter().map(half::bf16::to_f32).collect(),
            _ => {
                return Err(format!(
                    "is stored as {}; convert it to a float type first",
                    self.dtype
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests;
