//! Copies of merged models where a recipe wants them (`to`).
//!
//! **Invariant:** what a recipe reads is never written over.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::card::{CARD, OURS};
use crate::exec::export::gguf;
use crate::files::RunError;
use crate::files::durable::{create_dirs, failed, write_atomically, write_bytes};
use crate::files::paths::absolute;
use crate::library::export::Target;
use crate::library::stage::job::{Fold, Routine};
use crate::plan::{Plan, Stage};

/// The directory a stage's model is to be copied to.
fn target(stage: &Stage) -> Option<&Path> {
    match &stage.job.routine {
        Routine::Fold(fold) => fold.to.as_deref(),
        _ => None,
    }
}

/// Refuses a plan that would write over what it reads, by whatever way the path leads there.
///
/// # Errors
/// The stage, and what it would write over.
pub(in crate::exec) fn refuse_sources(plan: &Plan, store: &Path) -> Result<(), RunError> {
    for stage in &plan.stages {
        if let Some(to) = target(stage) {
            refuse(plan, store, to, &stage.name.value)?;
        }
    }
    Ok(())
}

/// Refuses to write a stage's model over what the recipe reads, or into the store.
///
/// # Errors
/// Why not.
pub(in crate::exec) fn refuse(
    plan: &Plan,
    store: &Path,
    to: &Path,
    stage: &str,
) -> Result<(), RunError> {
    let found = absolute(to);
    let what = if plan.reads.iter().any(|dir| absolute(dir) == found) {
        "the recipe reads from there"
    } else if found.starts_with(absolute(store)) {
        "it lies in the store"
    } else {
        return Ok(());
    };
    Err(RunError::file(
        to,
        format!(
            "the model of stage `{stage}` would be written here, and {what}; name another directory"
        ),
    ))
}

/// Copies a finished stage's model to where the recipe wants it; files that are there already stay.
///
/// # Errors
/// What the file system says.
pub(in crate::exec) fn publish(stage: &Stage, entry: &Path) -> Result<(), RunError> {
    let Some(to) = target(stage) else {
        return Ok(());
    };
    let model = entry.join("model");
    if let Routine::Fold(Fold { target, .. }) = &stage.job.routine
        && matches!(target, Target::Gguf(_) | Target::GgufAdapter)
    {
        return publish_file(&model, to);
    }
    copy_folder(&model, to)
}

/// Copies a folder with those in it, such as `1_Pooling`. A card that somebody has made their own stays.
fn copy_folder(from: &Path, to: &Path) -> Result<(), RunError> {
    create_dirs(to)?;
    let list = fs::read_dir(from).map_err(|e| failed(from, "list", &e))?;
    for item in list {
        let item = item.map_err(|e| failed(from, "list", &e))?;
        let (own, place) = (item.path(), to.join(item.file_name()));
        if own.is_dir() {
            copy_folder(&own, &place)?;
        } else if item.file_name() != CARD || is_ours(&place) {
            copy(&own, &place)?;
        }
    }
    Ok(())
}

/// Copies a GGUF file, and the Modelfile beside it, which then names the copy.
fn publish_file(model: &Path, to: &Path) -> Result<(), RunError> {
    if let Some(parent) = to.parent().filter(|p| !p.as_os_str().is_empty()) {
        create_dirs(parent)?;
    }
    copy(&model.join(gguf::FILE), to)?;
    let described = model.join(gguf::MODELFILE);
    if !described.exists() {
        return Ok(());
    }
    let text = fs::read_to_string(&described).map_err(|e| failed(&described, "read", &e))?;
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let text = text.replacen(gguf::FILE, &name, 1);
    write_bytes(&to.with_extension(gguf::MODELFILE), text.as_bytes())
}

/// Whether a card may be written here: none is there, or one that nobody has made their own.
fn is_ours(card: &Path) -> bool {
    fs::read_to_string(card).map_or(!card.exists(), |text| text.contains(OURS))
}

/// Copies a file, unless it is there.
fn copy(from: &Path, to: &Path) -> Result<(), RunError> {
    if !from.is_file() || same(from, to) {
        return Ok(());
    }
    write_atomically(to, &mut |out| {
        let mut file = File::open(from).map_err(|e| failed(from, "open", &e))?;
        io::copy(&mut file, out).map_err(|e| failed(to, "write", &e))?;
        Ok(())
    })?;
    // By size and time a copy is known again.
    let time = fs::metadata(from).and_then(|meta| meta.modified());
    let file = File::options().write(true).open(to);
    let _ = file.and_then(|file| file.set_modified(time?));
    Ok(())
}

/// Whether a copy has the size and the time of what it was made of.
fn same(from: &Path, copy: &Path) -> bool {
    let look = |path: &Path| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.len(), meta.modified().ok()?))
    };
    look(from).is_some_and(|own| look(copy) == Some(own))
}
