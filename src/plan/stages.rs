//! What a plan consists of: stages, and what flows between them.

use std::sync::Arc;

use indexmap::IndexMap;

use super::bind::{BoundModel, BoundSplit};
use super::estimate::Estimate;
use super::sweep::SweptAxis;
use crate::base::Spanned;
use crate::library::method::Tuning;
use crate::library::model::{HeadKind, Model};
use crate::library::objective::Objective;
use crate::library::prompt::Prompt;
use crate::library::schema::Filled;
use crate::library::stage::job::Job;
use crate::library::stage::{SplitFacts, StageKind};

/// What flows from a stage to the next.
#[derive(Clone, Debug)]
pub struct Handed {
    /// The model.
    pub model: Arc<BoundModel>,
    /// Adapters that are not folded in.
    pub tuning: Tuning,
    /// What was learned.
    pub objective: Objective,
    /// The head.
    pub head: HeadKind,
    /// What stands around the text.
    pub prompt: Option<Arc<Prompt>>,
    /// Tokens after which text is cut.
    pub max_length: u64,
    /// The stage that holds the plain weights, if not the model's own files.
    pub weights: Option<String>,
    /// The stage that holds the adapter.
    pub adapter: Option<String>,
}

impl Handed {
    /// Token ids of the label words, where they are what is learned.
    #[must_use]
    pub fn words(&self) -> Option<Vec<u32>> {
        let words = || {
            self.prompt
                .as_ref()
                .map(|p| p.words.clone())
                .unwrap_or_default()
        };
        (self.objective == Objective::LabelWords).then(words)
    }
}

/// A planned stage.
#[derive(Debug)]
pub struct Stage {
    /// Its name; in a sweep with the values that make it this one.
    pub name: Spanned<String>,
    /// Its name in the recipe.
    pub declared: String,
    /// The swept `let`s that reach it, with their values in short.
    pub at: Vec<(String, String)>,
    /// Its kind.
    pub kind: &'static dyn StageKind,
    /// Its values.
    pub filled: Filled,
    /// The stage it comes from.
    pub parent: Option<String>,
    /// What it starts from.
    pub start: Handed,
    /// What it leaves; `None` for reports.
    pub leaves: Option<Handed>,
    /// The methods in force while it runs.
    pub trained_with: Tuning,
    /// The architecture, dropout overridden.
    pub model: Arc<dyn Model>,
    /// Its splits, in the order of the kind's split keys.
    pub splits: Vec<Option<Arc<BoundSplit>>>,
    /// What lowering knew of them.
    pub facts: Vec<Option<SplitFacts>>,
    /// The work.
    pub job: Job,
    /// Why the results of its frozen part are not kept, where they could be.
    pub not_kept: Option<String>,
    /// Memory and work.
    pub estimate: Estimate,
    /// What its result depends on, by name.
    pub parts: IndexMap<String, String>,
    /// Hash of the parts; `None` where an input's identity could not be had.
    pub fingerprint: Option<String>,
}

impl Stage {
    /// Directories of peft adapters its methods start from.
    #[must_use]
    pub fn start_adapters(&self) -> Vec<std::path::PathBuf> {
        self.trained_with
            .methods
            .iter()
            .filter_map(|(_, f)| f.values.str("start"))
            .map(std::path::PathBuf::from)
            .collect()
    }

    /// Whether its number of steps depends on data that are not at hand.
    #[must_use]
    pub fn steps_unknown(&self) -> bool {
        let first = self.splits.first().and_then(Option::as_ref);
        first.is_some_and(|s| s.lengths.count().is_none()) && !self.filled.values.written("steps")
    }

    /// Names of its methods.
    #[must_use]
    pub fn methods(&self) -> Vec<&str> {
        self.trained_with
            .methods
            .iter()
            .map(|(m, _)| m.schema().name)
            .collect()
    }
}

/// A planned pipeline.
#[derive(Debug, Default)]
pub struct Plan {
    /// Stages, each after those it needs.
    pub stages: Vec<Stage>,
    /// The swept `let`s.
    pub axes: Vec<SweptAxis>,
    /// Combinations of their values.
    pub points: usize,
}

impl Plan {
    /// A stage by name.
    #[must_use]
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|s| s.name.value == name)
    }
}
