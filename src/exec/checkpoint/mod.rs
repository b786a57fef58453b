//! Checkpoints of a running stage: two slots and a pointer.
//!
//! ```text
//! DIR/a.safetensors  DIR/a.state   the one slot: tensors; a line that vouches for both, then the state
//! DIR/b.safetensors  DIR/b.state   the other
//! DIR/latest                       `a` or `b`, renamed into place last
//! ```
//!
//! **Invariant:** the slot that `latest` names is not touched while the other one is written, so a
//! process that is killed at any instruction leaves a whole checkpoint, if it ever wrote one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::files::RunError;
use crate::files::durable;
use crate::files::sums::Damage;
use crate::files::tensorfile::{self, TensorSpec};
use crate::files::weights::TensorFile;
use crate::program::op::Tensor;

pub mod log;
pub mod resume;

const LATEST: &str = "latest";
const SLOTS: [Slot; 2] = [Slot::A, Slot::B];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    A,
    B,
}

impl Slot {
    const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn tensors(self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.safetensors", self.name()))
    }

    fn state(self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.state", self.name()))
    }
}

/// The first line of a state file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Seal {
    schema: u32,
    serial: u64,
    tensors_bytes: u64,
    tensors_blake3: String,
    state_blake3: String,
}

/// A whole checkpoint.
#[derive(Debug)]
pub struct Saved {
    /// What was saved beside the tensors.
    pub state: Json,
    /// The tensors' file; it stays as it is until the second save from now.
    pub tensors: PathBuf,
    slot: Slot,
}

impl Saved {
    /// Makes it count as the newest of its directory.
    ///
    /// # Errors
    /// What the file system says.
    pub fn lead(&self, dir: &Path) -> Result<(), RunError> {
        durable::write_bytes(&dir.join(LATEST), self.slot.name().as_bytes())
    }

    /// Maps the tensors.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn open(&self) -> Result<TensorFile, RunError> {
        TensorFile::open(&self.tensors)
    }
}

/// Saves a checkpoint; the one before stays as a spare. One process at a time (the store's lock).
///
/// # Errors
/// What the file system says; the last checkpoint is then still whole.
pub fn save(dir: &Path, tensors: &[(&str, &Tensor)], state: &Json) -> Result<(), RunError> {
    durable::create_dirs(dir)?;
    let (slot, serial) = next_slot(dir);
    let path = slot.tensors(dir);
    let specs: Vec<TensorSpec> = tensors
        .iter()
        .map(|(name, tensor)| TensorSpec::of(*name, tensor))
        .collect();
    let mut hasher = blake3::Hasher::new();
    let mut fill = |i: usize, writer: &mut dyn Write| {
        let (_, tensor) = tensors
            .get(i)
            .ok_or_else(|| RunError::bug("a checkpoint has fewer tensors than specs"))?;
        writer
            .write_all(tensorfile::bytes_of(tensor))
            .map_err(|e| durable::failed(&path, "write", &e))
    };
    tensorfile::write_observed(&path, &specs, None, &mut fill, Some(&mut hasher))?;

    let body = serde_json::to_vec(state)
        .map_err(|e| RunError::bug(format!("a state cannot be written: {e}")))?;
    let seal = Seal {
        schema: 1,
        serial,
        tensors_bytes: hasher.count(),
        tensors_blake3: hasher.finalize().to_hex().to_string(),
        state_blake3: blake3::hash(&body).to_hex().to_string(),
    };
    let mut text = serde_json::to_vec(&seal)
        .map_err(|e| RunError::bug(format!("a seal cannot be written: {e}")))?;
    text.push(b'\n');
    text.extend_from_slice(&body);
    durable::write_bytes(&slot.state(dir), &text)?;
    durable::write_bytes(&dir.join(LATEST), slot.name().as_bytes())
}

/// The whole checkpoints of a directory, the newest first.
///
/// # Errors
/// A file that is there cannot be read (not: its contents are damaged).
pub fn all(dir: &Path) -> Result<Vec<Saved>, RunError> {
    let mut whole = Vec::with_capacity(SLOTS.len());
    for slot in order(dir) {
        whole.extend(load_slot(dir, slot)?);
    }
    Ok(whole)
}

/// The newest whole checkpoint of a directory, if there is one. Damaged ones are passed over.
///
/// # Errors
/// A file that is there cannot be read (not: its contents are damaged).
pub fn load(dir: &Path) -> Result<Option<Saved>, RunError> {
    for slot in order(dir) {
        if let Some(saved) = load_slot(dir, slot)? {
            return Ok(Some(saved));
        }
    }
    Ok(None)
}

/// The slots, the newest first.
fn order(dir: &Path) -> [Slot; 2] {
    match pointer(dir) {
        Some(slot) => [slot, slot.other()],
        None => {
            let [a, b] = SLOTS.map(|slot| serial(dir, slot));
            if b > a { [Slot::B, Slot::A] } else { SLOTS }
        }
    }
}

/// The state of the newest checkpoint, by its seal and its size alone: for a look from outside.
#[must_use]
pub fn peek(dir: &Path) -> Option<Json> {
    order(dir).into_iter().find_map(|slot| {
        let (seal, state) = unseal(&fs::read(slot.state(dir)).ok()?)?;
        let length = fs::metadata(slot.tensors(dir)).ok()?.len();
        (length == seal.tensors_bytes).then_some(state)
    })
}

/// The file of the newest checkpoint that is damaged. The other slot does not count: a process that dies
/// while it saves leaves half of one there.
///
/// # Errors
/// A file that is there cannot be read.
pub fn damage(dir: &Path) -> Result<Option<Damage>, RunError> {
    let latest = dir.join(LATEST);
    let slot = match (fs::read(&latest), pointer(dir)) {
        (Err(_), _) => return Ok(None),
        (Ok(_), Some(slot)) => slot,
        (Ok(_), None) => {
            let what = "it names no checkpoint".to_owned();
            return Ok(Some(Damage { path: latest, what }));
        }
    };
    if load_slot(dir, slot)?.is_some() {
        return Ok(None);
    }
    let sealed = fs::read(slot.state(dir)).is_ok_and(|text| unseal(&text).is_some());
    Ok(Some(Damage {
        path: if sealed {
            slot.tensors(dir)
        } else {
            slot.state(dir)
        },
        what: "its bytes are not those that were written".to_owned(),
    }))
}

/// Removes a directory's checkpoints and all that is in it.
///
/// # Errors
/// What the file system says.
pub fn clear(dir: &Path) -> Result<(), RunError> {
    // The seals first: without them nothing counts as a checkpoint.
    for slot in SLOTS {
        durable::remove_file(&slot.state(dir))?;
    }
    durable::remove_dir(dir)
}

/// The slot to write next and its number: never the one that holds the newest checkpoint.
fn next_slot(dir: &Path) -> (Slot, u64) {
    let [a, b] = SLOTS.map(|slot| serial(dir, slot));
    let newest = pointer(dir).unwrap_or(if b > a { Slot::B } else { Slot::A });
    (newest.other(), a.max(b).map_or(1, |n| n.saturating_add(1)))
}

fn pointer(dir: &Path) -> Option<Slot> {
    let text = fs::read(dir.join(LATEST)).ok()?;
    SLOTS
        .into_iter()
        .find(|slot| slot.name().as_bytes() == text)
}

fn serial(dir: &Path, slot: Slot) -> Option<u64> {
    unseal(&fs::read(slot.state(dir)).ok()?).map(|(seal, _)| seal.serial)
}

/// The seal and the state of a state file, if the one vouches for the other.
fn unseal(text: &[u8]) -> Option<(Seal, Json)> {
    let end = text.iter().position(|&c| c == b'\n')?;
    let (line, body) = (text.get(..end)?, text.get(end.checked_add(1)?..)?);
    let seal: Seal = serde_json::from_slice(line).ok()?;
    if seal.schema != 1 || seal.state_blake3 != blake3::hash(body).to_hex().as_str() {
        return None;
    }
    Some((seal, serde_json::from_slice(body).ok()?))
}

fn load_slot(dir: &Path, slot: Slot) -> Result<Option<Saved>, RunError> {
    let path = slot.state(dir);
    let text = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| durable::failed(&path, "read", &e))?,
    };
    let Some((seal, state)) = unseal(&text) else {
        return Ok(None);
    };
    let tensors = slot.tensors(dir);
    let file = match File::open(&tensors) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| durable::failed(&tensors, "open", &e))?,
    };
    let length = file
        .metadata()
        .map_err(|e| durable::failed(&tensors, "look at", &e))?
        .len();
    if length != seal.tensors_bytes {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    hasher
        .update_reader(file)
        .map_err(|e| durable::failed(&tensors, "read", &e))?;
    let whole = hasher.finalize().to_hex().as_str() == seal.tensors_blake3;
    Ok(whole.then_some(Saved {
        state,
        tensors,
        slot,
    }))
}

#[cfg(test)]
mod tests;
