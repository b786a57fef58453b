//! Safetensors files written: a header, then each tensor as it comes. `weights` reads them.
//!
//! **Invariant:** no tensor is copied on its way out, and the same specs and data give the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::durable;
use super::error::RunError;
use crate::program::op::Tensor;
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

#[cfg(test)]
mod tests;
