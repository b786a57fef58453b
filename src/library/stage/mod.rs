//! The stage registry: the steps a pipeline is made of. A stage kind is one file and one row here:
//! its schema, the checks between its keys, and its lowering to a [`Job`].

pub mod activations;
mod annotate;
mod choose_prompt;
mod consistency;
pub(crate) mod convert;
mod descent;
pub mod drawing;
mod eval;
pub(crate) mod export;
pub mod fisher;
pub mod job;
mod kept;
pub(crate) mod keys;
mod masks;
mod measures;
mod merge;
mod mezo;
pub mod network;
pub mod packing;
pub mod prefill;
pub mod reference;
pub mod select;
pub mod sharing;
mod stepping;
mod taught;
mod train;

use std::sync::Arc;

use super::method::Tuning;
use super::model::Model;
use super::schema::{Schema, Values};
use super::task::{Reads, Task};
use crate::base::{Diag, Diags, Sound, Span};
use crate::program::Numbers;
use crate::program::format::Storing;
use job::Job;
pub use keys::NEUTRAL;
pub use measures::check_metrics;

/// A kind of stage.
pub trait StageKind: Sync + Send + std::fmt::Debug {
    /// Name, doc, keys.
    fn schema(&self) -> &'static Schema;

    /// Whether it trains, so that it chooses methods, objective and head itself; other kinds take
    /// them from the stage they come from.
    fn trains(&self) -> bool {
        false
    }

    /// Keys that name the splits it reads, those whose labels are read first.
    fn splits(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether it reads the labels of a split that this key names.
    fn reads_labels(&self, split: &str, task: &dyn Task) -> bool {
        let _ = (split, task);
        true
    }

    /// Whether it leaves scores of texts without labels, for others to learn.
    fn annotates(&self) -> bool {
        false
    }

    /// Whether what it leaves has its adapters folded in.
    fn merges(&self) -> bool {
        false
    }

    /// Whether it chooses a prompt among several, for other stages to use.
    fn chooses(&self) -> bool {
        false
    }

    /// The task that it is always about; `None` where the recipe decides.
    fn task(&self) -> Option<Arc<dyn Task>> {
        None
    }

    /// Complaints about keys that do not go together.
    fn check(&self, values: &Values, span: Span, diags: &mut Diags) {
        let _ = (values, span, diags);
    }

    /// The work to be done, of what no phase has found wrong.
    ///
    /// # Errors
    /// What is wrong with the recipe in the light of the model and the data.
    fn lower(&self, cx: &Sound<StageCx<'_>>) -> Result<Job, Vec<Diag>>;
}

/// Every stage kind.
pub const STAGES: &[&dyn StageKind] = &[
    &train::Train,
    &mezo::Mezo,
    &eval::Eval,
    &annotate::Annotate,
    &merge::Merge,
    &export::Export,
    &convert::Convert,
    &choose_prompt::ChoosePrompt,
];

/// Looks a stage kind up by name.
#[must_use]
pub fn stage(name: &str) -> Option<&'static dyn StageKind> {
    STAGES.iter().copied().find(|s| s.schema().name == name)
}

/// A split as a stage sees it while being lowered.
#[derive(Clone, Debug)]
pub struct SplitFacts {
    /// Number of examples; `None` when the data are not at hand.
    pub examples: Option<u64>,
    /// Tokens of each example; where the data are not at hand, of one.
    pub lengths: Arc<Vec<u32>>,
    /// Which places of its texts are read, where those are any number of tokens.
    pub reads: Option<Reads>,
    /// The metrics that a named data set's benchmark reports.
    pub reported: &'static [&'static str],
    /// Tokens of each row's prompt, where text is generated behind it and the data are at hand.
    pub prompts: Option<Arc<Vec<u32>>>,
}

/// What a stage is lowered from.
#[derive(Debug)]
pub struct StageCx<'a> {
    /// Its values.
    pub values: &'a Values,
    /// Its place in the recipe.
    pub span: Span,
    /// The model, with dropout overridden as the stage says.
    pub model: Arc<dyn Model>,
    /// Storage type of frozen matrices.
    pub storage: Storing,
    /// In what numbers programs compute.
    pub numbers: Numbers,
    /// The methods in force.
    pub tuning: Tuning,
    /// What is learned.
    pub task: Arc<dyn Task>,
    /// Names of the classes; none where the task has no classes.
    pub classes: Vec<String>,
    /// Token ids of the words that are scored at the mask: one a class where label words are what is
    /// learned, all listed ones where they are chosen.
    pub words: Option<Vec<u32>>,
    /// The splits, in the order of [`StageKind::splits`]; `None` where the key is not written.
    pub splits: Vec<Option<SplitFacts>>,
    /// Whether the stage is there whose weights are compared with the model's.
    pub tuned: bool,
    /// Processes that a training's steps are shared among.
    pub ranks: u64,
}

impl StageCx<'_> {
    /// Which places of a split's texts are read, where those are any number of tokens.
    #[must_use]
    pub fn reads(&self, split: usize) -> Option<Reads> {
        self.splits.get(split)?.as_ref()?.reads.clone()
    }
}
