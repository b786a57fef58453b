//! Going on from a checkpoint that another number of ranks left (`--resume any`).

use std::fs;
use std::path::Path;

use crate::exec::checkpoint::resume;
use crate::exec::observe::{Event, Observer};
use crate::exec::store::{Entry, Store, try_lock};
use crate::files::RunError;
use crate::files::durable;
use crate::plan::Stage;

/// The log that a checkpoint belongs to, beside it.
const LOG: &str = "metrics.jsonl";

/// Copies the checkpoint that most steps of the stage among another number of ranks are in, if there is one and the entry has none
/// of its own.
///
/// # Errors
/// What the file system says, or a process that is at work on it.
pub(super) fn adopt(
    (stage, key): (&Stage, &str),
    store: &Store,
    entry: &Entry,
    observer: &mut dyn Observer,
) -> Result<(), RunError> {
    if resume::step(&store.checkpoint(key)).is_some() {
        return Ok(());
    }
    let others = stage.among_others().into_iter();
    let found = others.filter_map(|(ranks, other)| {
        let step = resume::step(&store.checkpoint(&other))?;
        Some((step, ranks, other))
    });
    let Some((step, ranks, other)) = found.max_by_key(|(step, ..)| *step) else {
        return Ok(());
    };
    let from = store.path(&other);
    let _lock = try_lock(&from)?.map_err(|who| {
        let what = format!("{who} is going on from its checkpoint; end it first");
        RunError::file(&from, what)
    })?;
    let to = entry.dir();
    copy(&store.checkpoint(&other), &store.checkpoint(key))?;
    let (log, own) = (from.join(LOG), to.join(LOG));
    fs::copy(&log, &own).map_err(|e| durable::failed(&log, "copy", &e))?;
    observer.event(Event::Note(&format!(
        "`{}` goes on from the checkpoint at step {step} of {}; its last bits will be those of neither number of ranks",
        stage.name.value,
        match ranks {
            1 => "one process".to_owned(),
            n => format!("{n} ranks"),
        }
    )));
    Ok(())
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) -> Result<(), RunError> {
    durable::create_dirs(to)?;
    let list = fs::read_dir(from).map_err(|e| durable::failed(from, "list", &e))?;
    for item in list {
        let item = item.map_err(|e| durable::failed(from, "list", &e))?;
        let (own, other) = (item.path(), to.join(item.file_name()));
        if own.is_dir() {
            copy(&own, &other)?;
        } else {
            fs::copy(&own, &other).map_err(|e| durable::failed(&own, "copy", &e))?;
        }
    }
    Ok(())
}
