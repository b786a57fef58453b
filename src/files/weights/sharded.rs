//! A model's folder of weights: one file, or shards that an index lists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::convert;
use super::{Entry, Kind, TensorFile};
use crate::files::RunError;
use crate::program::Format;
use crate::program::op::Tensor;

/// The file of weights that are not sharded.
pub const SINGLE: &str = "model.safetensors";

/// The index of sharded weights.
pub const INDEX: &str = "model.safetensors.index.json";

/// Files of weights that are pickles, which can run code and are never read.
const PICKLES: [&str; 2] = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

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

/// What an index says of each tensor: its shard.
fn weight_map(index: &[u8]) -> Result<BTreeMap<String, String>, String> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let parsed: Index = serde_json::from_slice(index)
        .map_err(|e| format!("{INDEX} is not an index of shards: {e}; download it again"))?;
    Ok(parsed.weight_map)
}

/// The shards that an index lists, sorted.
///
/// # Errors
/// The index is damaged, or names a file outside its folder.
pub fn listed(index: &[u8]) -> Result<Vec<String>, String> {
    let shards: BTreeSet<String> = weight_map(index)?.into_values().collect();
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

/// An open checkpoint: one file or several shards.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<TensorFile>,
    tensors: BTreeMap<String, usize>,
    transposed: BTreeSet<String>,
}

impl Checkpoint {
    /// Opens a file of weights, or a directory with `model.safetensors` or
    /// `model.safetensors.index.json` and its shards.
    ///
    /// # Errors
    /// There is nothing that can be read, or it is damaged.
    pub fn open(dir: &Path) -> Result<Self, RunError> {
        let mut checkpoint = Self {
            files: Vec::new(),
            tensors: BTreeMap::new(),
            transposed: BTreeSet::new(),
        };
        if dir.is_file() {
            checkpoint.add(dir)?;
            return Ok(checkpoint);
        }
        match Layout::of(|name| dir.join(name).is_file()) {
            Layout::Single => checkpoint.add(&dir.join(SINGLE))?,
            Layout::Sharded => checkpoint.add_shards(dir, &dir.join(INDEX))?,
            Layout::Pickle => {
                let what = "holds only `pytorch_model.bin`, which is a pickle and could run code; convert it to `model.safetensors` \
                            (for example with `save_pretrained(..., safe_serialization=True)` of transformers)";
                return Err(RunError::file(dir, what));
            }
            Layout::None if dir.is_dir() => {
                return Err(RunError::file(
                    dir,
                    "has neither `model.safetensors` nor `model.safetensors.index.json`; give a model directory or a `.safetensors` file",
                ));
            }
            Layout::None => {
                return Err(RunError::file(
                    dir,
                    "no such file or directory; check the path or download the model first",
                ));
            }
        }
        Ok(checkpoint)
    }

    /// The first file, for messages.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.files
            .first()
            .map(|file| file.path().to_owned())
            .unwrap_or_default()
    }

    /// Hash of the bytes of all its files, of which some may be known already.
    #[must_use]
    pub fn hash(&self, known: &dyn Fn(&Path) -> Option<String>) -> String {
        let mut files: Vec<&TensorFile> = self.files.iter().collect();
        files.sort_by(|a, b| a.path().file_name().cmp(&b.path().file_name()));
        let mut whole = blake3::Hasher::new();
        for file in files {
            let known = known(file.path()).and_then(|hex| blake3::Hash::from_hex(hex).ok());
            whole.update(known.unwrap_or_else(|| file.hash()).as_bytes());
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

    fn file(&self, name: &str) -> Option<&TensorFile> {
        self.files.get(*self.tensors.get(name)?)
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.file(name)?.entry(name)
    }

    /// How a tensor is stored in its file, and its shape.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<(&Kind, &[u64])> {
        self.entry(name).map(|e| (&e.kind, e.shape.as_slice()))
    }

    /// How the matrices are stored, as far as programs store them so.
    #[must_use]
    pub fn formats(&self) -> BTreeMap<String, Format> {
        let all = self.files.iter().flat_map(|f| &f.entries);
        all.filter_map(|e| Some((e.name.clone(), e.stored_as()?)))
            .collect()
    }

    /// A tensor's bytes as they lie in the file (little-endian, of no particular alignment).
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&[u8]> {
        Some(self.file(name)?.get(name)?.bytes)
    }

    /// Notes that these are stored as `[in, out]` where `[out, in]` is read.
    pub fn transpose(&mut self, names: impl IntoIterator<Item = String>) {
        self.transposed.extend(names);
    }

    /// Reads the first candidate that is present, as it is to be stored; `None` if none is.
    ///
    /// # Errors
    /// It has another shape, it holds no floats, or a number that cannot be stored so.
    pub fn read(
        &self,
        candidates: &[String],
        shape: &[u64],
        stored: impl Into<Format>,
    ) -> Result<Option<Tensor>, RunError> {
        let found = |n: &String| Some((n.clone(), self.file(n)?, self.entry(n)?));
        let Some((name, file, entry)) = candidates.iter().find_map(found) else {
            return Ok(None);
        };
        let turned = self.transposed.contains(&name) && !entry.straight;
        let fits = if turned {
            entry.shape.iter().rev().eq(shape)
        } else {
            entry.shape == shape
        };
        if !fits {
            let what = format!(
                "tensor `{name}` has shape {:?}, but the model needs {shape:?}; the checkpoint belongs to another configuration",
                entry.shape
            );
            return Err(RunError::file(file.path(), what));
        }
        if turned {
            return file.read_transposed(&name, stored.into()).map(Some);
        }
        file.read(&name, stored.into()).map(Some)
    }

    /// What is said of a number of a tensor that cannot be stored in a format.
    #[must_use]
    pub fn unfit(path: PathBuf, name: &str, x: f32, stored: Format) -> RunError {
        RunError::file(
            path,
            format!("tensor `{name}` {}", convert::unfit(x, stored)),
        )
    }

    fn add_shards(&mut self, dir: &Path, index: &Path) -> Result<(), RunError> {
        let text = std::fs::read(index)
            .map_err(|e| RunError::file(index, format!("cannot be read: {e}")))?;
        let says = weight_map(&text).map_err(|e| RunError::file(index, e))?;
        for shard in listed(&text).map_err(|e| RunError::file(index, e))? {
            self.add(&dir.join(shard))?;
        }
        for (name, shard) in &says {
            let there = self.file(name).is_some_and(|f| f.path() == dir.join(shard));
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

    fn add(&mut self, path: &Path) -> Result<(), RunError> {
        let file = TensorFile::open(path)?;
        for name in file.names() {
            if self.tensors.contains_key(&name) {
                return Err(RunError::file(
                    path,
                    format!("holds `{name}`, which another shard holds too; remove one"),
                ));
            }
            self.tensors.insert(name, self.files.len());
        }
        self.files.push(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

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
            super::super::CONTAINERS[0].entries(&open, bytes.len() as u64)
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
