//! Where the model of an artifact is, and who wrote it.

use std::path::{Path, PathBuf};

use super::AGAIN;
use crate::exec::export::NATIVE;
use crate::exec::export::description::DESCRIPTION;
use crate::files::{RunError, peft};

/// A folder with a model in it, and what kind of one.
pub(super) enum Found {
    /// One that a stage of ours described.
    Described(PathBuf),
    /// One with a config alone.
    Plain(PathBuf),
    /// An adapter in peft's format.
    Peft(PathBuf),
}

/// The folder of an artifact that holds its model.
pub(super) fn find(artifact: &Path) -> Result<Found, RunError> {
    let inside = ["adapter", "model", "."].map(|sub| artifact.join(sub));
    let with = |file: &str| inside.iter().find(|folder| folder.join(file).exists());
    if let Some(folder) = with(DESCRIPTION) {
        return Ok(Found::Described(folder.clone()));
    }
    // Without its description an adapter of ours is damaged; peft's files beside it say less.
    if let Some(folder) = with(NATIVE) {
        let what = format!("damaged: there is no {DESCRIPTION} beside {NATIVE}{AGAIN}");
        return Err(RunError::file(folder, what));
    }
    if let Some(folder) = with("config.json") {
        return Ok(Found::Plain(folder.clone()));
    }
    let of_peft = |folder: &&PathBuf| peft::FILES.iter().all(|file| folder.join(file).exists());
    match inside.iter().find(of_peft) {
        Some(folder) => Ok(Found::Peft(folder.clone())),
        None => Err(RunError::file(artifact, no_model(artifact))),
    }
}

/// Why a folder cannot be labelled with.
fn no_model(folder: &Path) -> &'static str {
    if peft::FILES.iter().any(|file| folder.join(file).exists()) {
        "this is half an adapter in peft's format: both adapter_config.json and adapter_model.safetensors are read"
    } else {
        "there is no model here; name a recipe that was run, an output directory of `peftc run`, a stage's folder \
         in it, an entry of the store, or a Hugging Face folder with a trained head"
    }
}
