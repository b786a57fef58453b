//! Safetensors: a header of JSON with names, types, shapes and places, then the data.

use std::fs::File;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::{Change, Container, Entry, Kind};
use crate::library::data::positioned::read_at;
use crate::program::DType;

/// The container.
#[derive(Debug)]
pub(super) struct Safetensors;

impl Container for Safetensors {
    fn extension(&self) -> &'static str {
        "safetensors"
    }

    fn entries(&self, file: &File, size: u64) -> Result<Vec<Entry>, String> {
        header(file, size)
    }
}

/// Bytes of the longest header.
const MOST: u64 = 100_000_000;

fn kind(dtype: Dtype) -> Kind {
    let plain = |dtype: DType| Kind::Stored(dtype.into());
    match dtype {
        Dtype::F64 => plain(DType::F64),
        Dtype::F32 => plain(DType::F32),
        Dtype::F16 => plain(DType::F16),
        Dtype::BF16 => plain(DType::BF16),
        Dtype::U32 => plain(DType::U32),
        other => Kind::Other(format!("{other:?}")),
    }
}

fn header(file: &File, size: u64) -> Result<Vec<Entry>, String> {
    let damaged = |why: &str| format!("it is no valid safetensors file: {why}; download it again");
    let read = |length: u64, from: u64| {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        read_at(file, &mut bytes, from).map_err(|e| e.to_string())?;
        Ok::<_, String>(bytes)
    };
    if read(size.min(24), 0)?.starts_with(b"version https://git-lfs") {
        return Err("it is a Git LFS pointer, not the weights; run `git lfs pull`".to_owned());
    }
    let first: [u8; 8] = read(size.min(8), 0)?
        .try_into()
        .map_err(|_| damaged("it has no header"))?;
    let length = u64::from_le_bytes(first);
    let begin = length
        .checked_add(8)
        .filter(|&begin| begin <= size && length <= MOST)
        .ok_or_else(|| damaged("it is shorter than its header says"))?;
    let metadata: Metadata =
        serde_json::from_slice(&read(length, 8)?).map_err(|e| damaged(&e.to_string()))?;
    let mut entries = Vec::new();
    for (name, info) in metadata.tensors() {
        let elements = info
            .shape
            .iter()
            .try_fold(1_usize, |n, &d| n.checked_mul(d));
        let bits = elements.and_then(|n| n.checked_mul(info.dtype.bitsize()));
        let (start, end) = info.data_offsets;
        if bits.is_none() || end.checked_sub(start).and_then(|n| n.checked_mul(8)) != bits {
            return Err(damaged(&format!("`{name}` has not the bytes of its shape")));
        }
        entries.push(Entry {
            kind: kind(info.dtype),
            shape: info.shape.iter().map(|&n| n as u64).collect(),
            start: begin.saturating_add(start as u64),
            end: begin.saturating_add(end as u64),
            change: Change::None,
            straight: false,
            name,
        });
    }
    // The data have no gaps and do not overlap.
    entries.sort_by_key(|e| (e.start, e.end));
    let mut last = begin;
    for entry in &entries {
        if entry.start != last {
            let name = &entry.name;
            return Err(damaged(&format!(
                "`{name}` does not begin where the tensor before it ends"
            )));
        }
        last = entry.end;
    }
    if last != size {
        return Err(damaged("it is shorter or longer than its header says"));
    }
    Ok(entries)
}
