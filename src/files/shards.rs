//! Which files of a model's folder hold its weights, and what stands in their headers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Component, Path};

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::library::data::positioned::read_at;

/// The file of weights that are not sharded.
pub const SINGLE: &str = "model.safetensors";

/// The index of sharded weights.
pub const INDEX: &str = "model.safetensors.index.json";

/// Files of weights that are pickles, which can run code and are never read.
const PICKLES: [&str; 2] = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

/// Bytes of the longest header.
const MOST: u64 = 100_000_000;

/// How a folder holds weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In one file.
    Single,
    /// In shards, which an index lists. Other files whose names look like shards count for nothing.
    Sharded,
    /// Only as a pickle.
    Pickle,
    /// Not at all.
    None,
}

impl Layout {
    /// What the names of the files in a folder say.
    pub fn of(has: impl Fn(&str) -> bool) -> Self {
        if has(SINGLE) {
            Self::Single
        } else if has(INDEX) {
            Self::Sharded
        } else if PICKLES.into_iter().any(has) {
            Self::Pickle
        } else {
            Self::None
        }
    }
}

/// The shards that an index lists, sorted.
///
/// # Errors
/// The index is damaged, or names a file outside its folder.
pub fn listed(index: &[u8]) -> Result<Vec<String>, String> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let parsed: Index = serde_json::from_slice(index)
        .map_err(|e| format!("{INDEX} is not an index of shards: {e}; download it again"))?;
    let shards: BTreeSet<String> = parsed.weight_map.into_values().collect();
    for shard in &shards {
        let mut parts = Path::new(shard).components();
        let inside = parts.all(|c| matches!(c, Component::Normal(_)));
        if !inside || shard.is_empty() {
            return Err(format!(
                "{INDEX} names the shard `{shard}`, which lies outside the folder"
            ));
        }
    }
    if shards.is_empty() {
        return Err(format!("{INDEX} lists no shard; download it again"));
    }
    Ok(shards.into_iter().collect())
}

/// A tensor in the header of a safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The type in which it is stored.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Where its bytes begin in the file.
    pub start: u64,
    /// Where they end.
    pub end: u64,
}

impl Entry {
    /// Whether it holds floats that can be read.
    #[must_use]
    pub const fn is_float(&self) -> bool {
        matches!(
            self.dtype,
            Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16
        )
    }
}

/// The tensors of a safetensors file of so many bytes; only its header is read.
///
/// # Errors
/// What is wrong with it.
pub fn header(file: &File, size: u64) -> Result<Vec<Entry>, String> {
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
    let mut last = begin;
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
        let entry = Entry {
            dtype: info.dtype,
            shape: info.shape.iter().map(|&n| n as u64).collect(),
            start: begin.saturating_add(start as u64),
            end: begin.saturating_add(end as u64),
            name,
        };
        last = last.max(entry.end);
        entries.push(entry);
    }
    if last != size {
        return Err(damaged("it is shorter or longer than its header says"));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stray_file_is_no_shard_and_an_index_stays_in_its_folder() {
        let has = |names: &'static [&str]| move |name: &str| names.contains(&name);
        assert_eq!(
            Layout::of(has(&[SINGLE, "model-old.safetensors"])),
            Layout::Single
        );
        assert_eq!(Layout::of(has(&["model-old.safetensors"])), Layout::None);
        assert_eq!(
            Layout::of(has(&[INDEX, "pytorch_model.bin"])),
            Layout::Sharded
        );
        assert_eq!(Layout::of(has(&["pytorch_model.bin"])), Layout::Pickle);
        let index = br#"{"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-1.safetensors"}}"#;
        assert_eq!(
            listed(index),
            Ok(vec![
                "model-1.safetensors".to_owned(),
                "model-2.safetensors".to_owned()
            ])
        );
        for bad in [
            br#"{"weight_map": {"a": "../x"}}"#.as_slice(),
            b"{}",
            b"{\"weight_map\": {}}",
            b"[",
            br#"{"weight_map": {"a": ""}}"#,
        ] {
            assert!(listed(bad).is_err());
        }
        let file = tempfile::NamedTempFile::new().expect("a scratch file");
        let said = |bytes: &[u8]| {
            std::fs::write(file.path(), bytes).expect("written");
            let open = File::open(file.path()).expect("opened");
            header(&open, bytes.len() as u64)
        };
        let lfs = said(b"version https://git-lfs.github.com/spec/v1");
        assert!(lfs.is_err_and(|e| e.contains("git lfs pull")));
        let one = |data: usize, size: usize| {
            let text = format!(
                "{{\"a\":{{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,{data}]}}}}"
            );
            let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
            bytes.extend(text.as_bytes());
            bytes.resize(bytes.len() + size, 0);
            bytes
        };
        assert_eq!(said(&one(8, 8)).expect("a header")[0].shape, [2]);
        let short = [one(8, 7), one(8, 9), one(7, 7)];
        for bad in short
            .into_iter()
            .chain([vec![255; 8], vec![0; 3], Vec::new(), vec![9; 20]])
        {
            assert!(said(&bad).is_err());
        }
    }
}
