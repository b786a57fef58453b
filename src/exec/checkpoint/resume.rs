//! Where a training goes on from: a checkpoint, and the best state that belongs to it.
//!
//! **Invariant:** a checkpoint is gone on from only where the best state it speaks of is there, or a later one
//! that the steps to come make again.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::Saved;
use super::log::sum_of;
use crate::exec::checkpoint;
use crate::exec::interpreter::Runner;
use crate::exec::observe::{Event, Observer};
use crate::files::RunError;
use crate::files::sums::Damage;

/// Name of the directory of best states, beside the checkpoints.
pub const BEST: &str = "best";

/// The best evaluation so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// Its metric.
    pub value: f64,
    /// Steps that were done.
    pub step: u64,
}

/// All that a checkpoint holds beside tensors.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Loss of the first step.
    pub loss_first: f64,
    /// Loss of the last step.
    pub loss_last: f64,
    /// The best evaluation.
    pub best: Option<Best>,
    /// Its metrics.
    pub best_metrics: Vec<(String, f64)>,
    /// Metrics of the last evaluation.
    pub last_metrics: Vec<(String, f64)>,
    /// Evaluations since the best one.
    pub stale: u64,
    /// Whether nothing got better for too long.
    pub stopped: bool,
    /// The line of the last step, where the evaluation behind it is still to be made.
    pub unlogged: Option<Json>,
    /// Checksum of the log's lines.
    pub log: String,
}

impl Progress {
    pub(in crate::exec) fn json(&self) -> Json {
        json!({
            "step": self.step, "loss_first": self.loss_first, "loss_last": self.loss_last,
            "best": self.best.map(|b| b.value), "best_step": self.best.map(|b| b.step),
            "best_metrics": self.best_metrics, "last_metrics": self.last_metrics, "stale": self.stale, "stopped": self.stopped,
            "unlogged": self.unlogged, "log": self.log,
        })
    }

    fn of(json: &Json) -> Option<Self> {
        let number = |key: &str| json.get(key).and_then(Json::as_f64);
        let count = |key: &str| json.get(key).and_then(Json::as_u64);
        let list = |key: &str| serde_json::from_value(json.get(key)?.clone()).ok();
        let best = number("best");
        Some(Self {
            step: count("step")?,
            loss_first: number("loss_first")?,
            loss_last: number("loss_last")?,
            // A best state without its step cannot be found again.
            best: match (best, count("best_step")) {
                (Some(value), Some(step)) => Some(Best { value, step }),
                (None, _) => None,
                (Some(_), None) => return None,
            },
            best_metrics: list("best_metrics")?,
            last_metrics: list("last_metrics")?,
            stale: count("stale")?,
            stopped: json.get("stopped")?.as_bool()?,
            unlogged: json.get("unlogged").filter(|v| v.is_object()).cloned(),
            log: json.get("log")?.as_str()?.to_owned(),
        })
    }

    /// Lines of the log that belong to it.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.step - u64::from(self.unlogged.is_some()).min(self.step)
    }
}

/// A checkpoint to go on from.
#[derive(Debug)]
pub struct Point {
    /// Its files.
    pub saved: Saved,
    /// How far the training was.
    pub progress: Progress,
}

/// The step of a checkpoint that is there, for a look from outside.
#[must_use]
pub fn step(checkpoints: &Path) -> Option<u64> {
    let progress = Progress::of(&checkpoint::peek(checkpoints)?)?;
    (progress.step > 0).then_some(progress.step)
}

/// The newest checkpoint that a training can go on from, if there is one. What is damaged is named; then the
/// one before counts.
///
/// # Errors
/// What the file system says.
pub fn point(
    checkpoints: &Path,
    log: &Path,
    observer: &mut dyn Observer,
) -> Result<Option<Point>, RunError> {
    let folder = checkpoints.join(BEST);
    let (all, best) = (checkpoint::all(checkpoints)?, checkpoint::all(&folder)?);
    let mut damaged = vec![
        checkpoint::damage(checkpoints)?,
        checkpoint::damage(&folder)?,
    ];
    let mut found = None;
    for saved in all {
        let Some(progress) = Progress::of(&saved.state) else {
            continue;
        };
        if sum_of(log, progress.lines()).as_ref() != Some(&progress.log) {
            if damaged.len() == 2 {
                damaged.push(Some(Damage {
                    path: log.to_owned(),
                    what: "its lines are not those that were written".to_owned(),
                }));
            }
            continue;
        }
        let belongs = |b: &&Saved| {
            let step = step_of(b);
            progress.best.is_some_and(|own| step == Some(own.step))
        };
        let later = |b: &&Saved| step_of(b) > Some(progress.step);
        let own = best
            .iter()
            .find(belongs)
            .or_else(|| best.iter().find(later));
        if progress.best.is_some() && own.is_none() {
            continue;
        }
        if damaged.iter().any(Option::is_some) {
            // The next save must not be written over what is whole.
            saved.lead(checkpoints)?;
            own.map_or(Ok(()), |own| own.lead(&folder))?;
        }
        found = Some(Point { saved, progress });
        break;
    }
    for damage in damaged.into_iter().flatten() {
        observer.event(Event::Note(&explain(&damage, found.as_ref())));
    }
    Ok(found)
}

/// The checkpoint of a step, which another process chose to go on from; what it chose is what its log says.
///
/// # Errors
/// It is not there.
pub fn at(checkpoints: &Path, step: u64) -> Result<Point, RunError> {
    for saved in checkpoint::all(checkpoints)? {
        if let Some(progress) = Progress::of(&saved.state).filter(|p| p.step == step) {
            return Ok(Point { saved, progress });
        }
    }
    Err(RunError::file(
        checkpoints,
        format!(
            "rank 0 goes on from a checkpoint at step {step}, which is not here; the store has to lie on a file system that \
             all ranks share"
        ),
    ))
}

fn explain(damage: &Damage, found: Option<&Point>) -> String {
    match found {
        Some(point) => format!(
            "{damage}; the checkpoint at step {} is taken, and what is missing is made again",
            point.progress.step
        ),
        None => format!("{damage}; no other checkpoint is whole, so that the stage begins anew"),
    }
}

fn step_of(saved: &Saved) -> Option<u64> {
    saved.state.get("step").and_then(Json::as_u64)
}

/// Takes up the best state, which was that of a step.
///
/// # Errors
/// It is not there any more.
pub(in crate::exec) fn restore_best(
    runner: &mut Runner,
    checkpoints: &Path,
    step: u64,
) -> Result<(), RunError> {
    let folder = checkpoints.join(BEST);
    let all = checkpoint::all(&folder)?;
    match all.iter().find(|saved| step_of(saved) == Some(step)) {
        Some(saved) => restore(runner, saved),
        None => Err(RunError::file(
            folder,
            format!(
                "the best state, that of step {step}, is damaged or gone; run again: it is made anew"
            ),
        )),
    }
}

/// Overwrites residents with a checkpoint's tensors.
///
/// # Errors
/// It cannot be read, or does not fit.
pub(in crate::exec) fn restore(runner: &mut Runner, saved: &Saved) -> Result<(), RunError> {
    let file = saved.open()?;
    for name in file.names() {
        let fresh = file.tensor(&name)?;
        match runner.residents.get_mut(&name) {
            Some(slot) if slot.dims == fresh.dims && slot.format() == fresh.format() => {
                *slot = fresh
            }
            _ => {
                return Err(RunError::file(
                    &saved.tensors,
                    format!(
                        "the checkpoint's `{name}` does not fit this stage; run again with `--resume never`"
                    ),
                ));
            }
        }
    }
    Ok(())
}
