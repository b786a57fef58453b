//! A stage being run, and how: training, scoring, choosing, folding.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::world::World;
use crate::exec::backend::Open;
use crate::exec::checkpoint::resume;
use crate::exec::interpreter::Runner;
use crate::exec::load::{Origins, load};
use crate::exec::ranks::Ranks;
use crate::exec::store::{State, Store};
use crate::files::RunError;
use crate::library::data::tokens::EncodedSet;
use crate::library::model::Model;
use crate::library::net::Param;
use crate::plan::{Plan, Stage};
use crate::program::op::Machine;
use crate::program::{Resident, Verified};

mod activations;
pub mod choose;
mod convert;
pub mod drawn;
mod evaluate;
mod fisher;
mod fold;
mod generate;
mod origin;
pub mod predictions;
mod prefill;
mod reference;
pub mod score;
mod steps;
pub mod taught;
mod train;
pub mod zeroth;

/// How a plan is run.
#[derive(Debug)]
pub struct Options {
    /// Where the recipe lies.
    pub recipe: PathBuf,
    /// The store.
    pub store: PathBuf,
    /// Where results for people go.
    pub out: PathBuf,
    /// The stage asked for, with all its variants; every stage if `None`.
    pub only: Option<String>,
    /// Ignore the store for this recipe's stages.
    pub fresh: bool,
    /// Whether a stage that was interrupted goes on from its checkpoint.
    pub resume: bool,
    /// Whether it may go on from one of another number of ranks.
    pub adopts: bool,
    /// Time between checkpoints.
    pub checkpoint_every: Duration,
    /// The machine.
    pub machine: Machine,
    /// Where programs run.
    pub device: Arc<dyn Open>,
    /// The processes that trainings are shared among, this one and others that run the same.
    pub ranks: Ranks,
    /// What the machine is, in words.
    pub machine_name: Option<String>,
    /// How the run was asked for, as a shell takes it.
    pub command: String,
    /// The recipe's text and those of what it imports, each with its name.
    pub sources: Vec<(String, String)>,
}

impl Options {
    /// The step that a run of a stage goes on from, if an earlier one was interrupted.
    #[must_use]
    pub fn resumes_at(&self, store: &Store, stage: &Stage) -> Option<u64> {
        (self.resume && !self.fresh)
            .then(|| resumes_at(store, stage))
            .flatten()
    }
}

/// The step of the checkpoint that an interrupted run of a stage left.
#[must_use]
pub fn resumes_at(store: &Store, stage: &Stage) -> Option<u64> {
    stage.fingerprint.as_ref()?;
    let key = entry_name(stage);
    match store.look(&key) {
        State::Unfinished => resume::step(&store.checkpoint(&key)),
        State::Nothing | State::Finished(_) | State::Damaged(_) => None,
    }
}

/// Identifier of a stage's store entry; results without a fingerprint are kept, but never reused.
#[must_use]
pub fn entry_name(stage: &Stage) -> String {
    stage.fingerprint.clone().unwrap_or_else(|| {
        let text: Vec<String> = stage
            .parts
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        format!(
            "unkeyed-{}",
            blake3::hash(text.join("\n").as_bytes()).to_hex()
        )
    })
}

/// Whether a store holds what a stage leaves, so that it need not run again.
#[must_use]
pub fn is_finished(store: &Store, stage: &Stage) -> bool {
    stage.fingerprint.is_some() && store.finished(&entry_name(stage)).is_some()
}

/// A runner of its own beside a stage's, with a program's weights: for what is measured before a training.
///
/// # Errors
/// A program that the device has no kernels for, or weights that cannot be read.
fn aside(
    runner: &Runner,
    (program, params): (&Verified, &[Param]),
    model: &dyn Model,
    sources: &Origins,
) -> Result<Runner, RunError> {
    let mut own = runner.another()?;
    let residents: Vec<&Resident> = program.program().residents.iter().collect();
    own.accepts([program])?;
    load(&mut own, params, &residents, model, sources)?;
    Ok(own)
}

/// One stage being run.
pub(in crate::exec) struct Work<'a> {
    pub(in crate::exec) plan: &'a Plan,
    pub(in crate::exec) stage: &'a Stage,
    pub(in crate::exec) store: &'a Store,
    pub(in crate::exec) options: &'a Options,
    pub(in crate::exec) world: &'a dyn World,
    pub(in crate::exec) dir: PathBuf,
    /// Whether no other stage ran before it: what the process took before it counts as its own then.
    pub(in crate::exec) first: bool,
}

impl Work<'_> {
    /// What to do to go on after an interruption.
    pub(in crate::exec) fn again(&self) -> &'static str {
        if self.stage.fingerprint.is_none() {
            "it is of no use, because the identity of an input is unknown: the stage begins anew"
        } else if self.options.fresh {
            "run the same command without `--fresh` to go on"
        } else if !self.options.resume {
            "run the same command without `--resume never` to go on"
        } else {
            "run the same command to go on"
        }
    }

    pub(in crate::exec) fn set(&self, index: usize) -> Option<&EncodedSet> {
        self.stage.splits.get(index)?.as_ref()?.encoded.as_deref()
    }

    pub(in crate::exec) fn required(&self, index: usize) -> Result<&EncodedSet, RunError> {
        self.set(index).ok_or_else(|| {
            RunError::file(&self.options.recipe, format!("the data or the tokenizer of stage `{}` are not at hand; run without --offline", self.stage.name.value))
        })
    }
}
