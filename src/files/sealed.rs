//! JSON files that vouch for themselves: the last key is the BLAKE3 of all that stands before it.
//!
//! ```text
//! {
//!   "schema": 1,
//!   …,
//!   "blake3": "6b86…"
//! }
//! ```
//!
//! **Invariant:** whatever byte of such a file is turned over, it is known; it stays plain JSON for others.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::durable;
use super::error::RunError;

/// What stands before the hash.
const KEY: &str = ",\n  \"blake3\": \"";

/// What stands behind it.
const END: &str = "\"\n}\n";

/// What a file's seal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// The bytes are those that were written.
    Whole,
    /// They are others.
    Broken,
    /// There is none: the file is cut, or was written by something else.
    Missing,
}

/// A value as sealed JSON; it has to be an object with a key.
///
/// # Errors
/// It is none, which is a bug.
pub fn bytes(value: &impl Serialize) -> Result<Vec<u8>, RunError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| RunError::bug(format!("a document cannot be written: {e}")))?;
    if !text.ends_with(b"\n}") {
        return Err(RunError::bug("only an object with keys can be sealed"));
    }
    text.truncate(text.len() - 2);
    let hash = blake3::hash(&text).to_hex();
    for part in [KEY, hash.as_str(), END] {
        text.extend_from_slice(part.as_bytes());
    }
    Ok(text)
}

/// Looks at the seal of a file's bytes.
#[must_use]
pub fn check(bytes: &[u8]) -> Seal {
    let length = KEY.len() + 2 * blake3::OUT_LEN + END.len();
    let Some((before, seal)) = bytes.len().checked_sub(length).map(|at| bytes.split_at(at)) else {
        return Seal::Missing;
    };
    let hash = seal
        .strip_prefix(KEY.as_bytes())
        .and_then(|rest| rest.strip_suffix(END.as_bytes()));
    match hash {
        None => Seal::Missing,
        Some(hash) if blake3::hash(before).to_hex().as_bytes() == hash => Seal::Whole,
        Some(_) => Seal::Broken,
    }
}

/// Writes a value as sealed JSON, whole or not at all.
///
/// # Errors
/// What the file system says.
pub fn write(path: &Path, value: &impl Serialize) -> Result<(), RunError> {
    durable::write_bytes(path, &bytes(value)?)
}

/// What [`read`] finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// The value that was written.
    Whole(T),
    /// There is no file.
    Nothing,
    /// There is one, but it is not what was written; why.
    Damaged(String),
}

impl<T> Found<T> {
    /// The value, if it is whole.
    #[must_use]
    pub fn whole(self) -> Option<T> {
        match self {
            Self::Whole(value) => Some(value),
            Self::Nothing | Self::Damaged(_) => None,
        }
    }
}

/// Reads a sealed value.
#[must_use]
pub fn read<T: DeserializeOwned>(path: &Path) -> Found<T> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Found::Nothing;
        }
        Err(e) => return Found::Damaged(format!("it cannot be read: {e}")),
    };
    match check(&text) {
        Seal::Whole => match serde_json::from_slice(&text) {
            Ok(value) => Found::Whole(value),
            Err(e) => Found::Damaged(format!("another version wrote it: {e}")),
        },
        Seal::Broken => Found::Damaged("its bytes are not those that were written".to_owned()),
        Seal::Missing => Found::Damaged("it is cut short, or another version wrote it".to_owned()),
    }
}

/// The bytes of a file that may have been written by something else, but not changed since if it was us.
///
/// # Errors
/// It cannot be read, or its seal is broken; `again` says how it is written again.
pub fn unbroken(path: &Path, again: &str) -> Result<Vec<u8>, RunError> {
    let bytes = fs::read(path)
        .map_err(|e| RunError::file(path, format!("cannot be read: {e}; {again}")))?;
    match check(&bytes) {
        Seal::Broken => Err(RunError::file(
            path,
            format!("damaged: its bytes are not those that were written; {again}"),
        )),
        Seal::Whole | Seal::Missing => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.json");
        let value = json!({ "a": [1.5, "x"], "b": {} });
        write(&path, &value).unwrap();
        let text = fs::read(&path).unwrap();
        let plain: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(plain["a"], value["a"], "others read it as JSON");
        assert!(matches!(read::<Value>(&path), Found::Whole(v) if v["b"] == value["b"]));
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut wrong = text.clone();
                wrong[at] ^= 1 << bit;
                assert_ne!(check(&wrong), Seal::Whole, "bit {bit} of byte {at}");
            }
            assert_ne!(check(&text[..at]), Seal::Whole, "cut at {at}");
        }
        assert_eq!(read::<Value>(&dir.path().join("none")), Found::Nothing);
        assert!(matches!(write(&path, &json!([1])), Err(RunError::Bug(_))));
        assert!(matches!(write(&path, &json!({})), Err(RunError::Bug(_))));
    }
}
