//! What a plan consists of: stages, and what flows between them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;

use super::bind::{BoundModel, BoundSplit};
use super::drawn::DrawnRows;
use super::estimate::{Around, Estimate};
use super::features::Asked;
use super::methods::check_methods;
use super::seen::Seen;
use super::split::Lengths;
use super::sweep::SweptAxis;
use crate::base::{Diags, Sound, Spanned};
use crate::library::candidates::Candidates;
use crate::library::method::Tuning;
use crate::library::model::Model;
use crate::library::prompt::Prompt;
use crate::library::schema::{Filled, Values};
use crate::library::stage::drawing::Drawing;
use crate::library::stage::job::Job;
use crate::library::stage::keys;
use crate::library::stage::{SplitFacts, StageCx, StageKind};
use crate::library::task::Task;
use crate::program::format::Storing;

/// A stage's splits, in the order of the kind's split keys.
pub type Sets = Vec<Option<Arc<BoundSplit>>>;

/// The stage that chooses a prompt, and what from.
#[derive(Clone, Debug)]
pub struct Chooser {
    /// Its name.
    pub stage: String,
    /// Its candidates, with words as the tokens of the model that takes the choice.
    pub candidates: Arc<Candidates>,
}

/// What is held of a stage until the prompt it takes is chosen.
#[derive(Clone, Debug)]
pub struct Open {
    /// Its splits within each candidate template.
    pub sets: Vec<Sets>,
}

/// A stage whose scores another learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Teacher {
    /// Its name.
    pub stage: String,
    /// The stage whose accuracy weighs its scores; all weigh the same without.
    pub judge: Option<String>,
}

/// What flows from a stage to the next.
#[derive(Clone, Debug)]
pub struct Handed {
    /// The model.
    pub model: Arc<BoundModel>,
    /// Adapters that are not folded in.
    pub tuning: Tuning,
    /// What was learned.
    pub task: Arc<dyn Task>,
    /// Names of the classes; none where the task has no classes, or they are not known yet.
    pub classes: Vec<String>,
    /// Whether the head of the model's files is one of other classes, so that it is not taken.
    pub fresh_head: bool,
    /// What stands around the text; until it is chosen, the candidate that takes most memory.
    pub prompt: Option<Arc<Prompt>>,
    /// The stage that chooses the prompt, if one does.
    pub chooser: Option<Chooser>,
    /// Tokens after which text is cut.
    pub max_length: u64,
    /// The stage that holds the plain weights, if not the model's own files.
    pub weights: Option<String>,
    /// The stage that holds the adapter.
    pub adapter: Option<String>,
    /// The stage whose weights a method compares with the model's.
    pub tuned: Option<String>,
    /// The stages whose scores are learned, or that label rows which are drawn.
    pub teachers: Vec<Teacher>,
    /// How rows are drawn that the teachers label.
    pub drawing: Option<Drawing>,
}

impl Handed {
    /// How frozen matrices are stored: as the model's declaration says, but never rounded to blocks a second time.
    /// What a stage left is stored in f32 instead.
    #[must_use]
    pub fn storage(&self) -> Storing {
        let declared = &self.model.storage;
        if declared.has_blocks() && self.weights.is_some() {
            return Storing::default();
        }
        declared.clone()
    }

    /// Token ids of the label words, where they are what is learned.
    #[must_use]
    pub fn words(&self) -> Option<Vec<u32>> {
        let words = || {
            self.prompt
                .as_ref()
                .map(|p| p.words.clone())
                .unwrap_or_default()
        };
        self.task.reads_words().then(words)
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
    pub hands_on: Option<Handed>,
    /// The methods in force while it runs.
    pub trained_with: Tuning,
    /// The architecture, dropout overridden.
    pub model: Arc<dyn Model>,
    /// Its splits, in the order of the kind's split keys; where a prompt is chosen, one a template.
    pub splits: Sets,
    /// What lowering knew of them.
    pub facts: Vec<Option<SplitFacts>>,
    /// The work.
    pub job: Job,
    /// Whether micro-batch or recompute were chosen for a budget.
    pub fitted: bool,
    /// Processes that its steps are shared among; 1 where it is no training.
    pub ranks: u64,
    /// Why the results of its frozen part are not kept, where they could be.
    pub not_kept: Option<String>,
    /// Memory and work.
    pub estimate: Estimate,
    /// What its result depends on, by name.
    pub parts: IndexMap<String, String>,
    /// Hash of the parts; `None` where an input's identity could not be had.
    pub fingerprint: Option<String>,
    /// What it chooses from, if it chooses a prompt.
    pub candidates: Option<Arc<Candidates>>,
    /// What is open until the prompt it takes is chosen.
    pub open: Option<Open>,
    /// The rows that it learns beside its own, once they are drawn.
    pub drawn: Option<Arc<DrawnRows>>,
}

impl Stage {
    /// The stages it needs: the one it comes from, the one that chooses its prompt, those that teach it.
    pub fn needs(&self) -> impl Iterator<Item = &str> {
        let chooser = self.start.chooser.as_ref().map(|c| c.stage.as_str());
        let tuned = self.start.tuned.as_deref();
        let teachers = self.start.teachers.iter();
        let teachers = teachers
            .flat_map(|own| std::iter::once(own.stage.as_str()).chain(own.judge.as_deref()));
        self.parent
            .as_deref()
            .into_iter()
            .chain(chooser)
            .chain(tuned)
            .chain(teachers)
    }

    /// What it is lowered from, with other values, methods or lengths; `None` where the methods do not fit the model.
    #[must_use]
    pub fn context<'a>(
        &self,
        start: &Handed,
        values: &'a Values,
        tuning: &Tuning,
        lengths: &[Option<&Lengths>],
    ) -> Option<Sound<StageCx<'a>>> {
        let mut diags = Diags::default();
        check_methods(&self.model, &start.task, tuning, values, &mut diags);
        let facts = lengths.iter().zip(&self.facts).map(|(lengths, known)| {
            Some(SplitFacts {
                examples: lengths.as_ref()?.count(),
                lengths: Arc::new(lengths.as_ref()?.list(1)),
                ..known.clone()?
            })
        });
        diags.sound(StageCx {
            values,
            span: self.name.span,
            model: self.model.clone(),
            storage: start.storage(),
            numbers: start.model.numbers,
            tuning: tuning.clone(),
            task: start.task.clone(),
            classes: start.classes.clone(),
            words: match &self.candidates {
                Some(candidates) => Some(candidates.tokens()),
                None => start.words(),
            },
            splits: facts.collect(),
            tuned: start.tuned.is_some(),
            ranks: self.ranks,
        })
    }

    /// What surrounds its job.
    #[must_use]
    pub fn around(&self) -> Around {
        let one = std::slice::from_ref(&self.splits);
        let opened = self.open.as_ref().map_or(one, |open| &open.sets);
        Around {
            host: super::choice::host_bytes(opened) + super::classroom::bytes(&self.start, opened),
            making: super::choice::making(opened),
            makes_adapter: self.start.adapter.is_none(),
            exports_model: !self.trained_with.exports_adapter(),
        }
    }

    /// What is asked about keeping the results of its frozen part, with other values.
    #[must_use]
    pub fn asked(&self, values: &Values) -> Asked {
        Asked {
            decided: self.open.is_none(),
            ..Asked::of(values, self.start.task.as_ref())
        }
    }

    /// Directories of peft adapters its methods start from, each once: several methods may be of one.
    #[must_use]
    pub fn start_adapters(&self) -> Vec<std::path::PathBuf> {
        let mut dirs: Vec<std::path::PathBuf> = Vec::new();
        for (_, filled) in &self.trained_with.methods {
            if let Some(dir) = crate::library::method::keys::START.get(&filled.values)
                && !dirs.iter().any(|known| known.as_os_str() == dir)
            {
                dirs.push(dir.into());
            }
        }
        dirs
    }

    /// Whether its number of steps depends on data that are not at hand.
    #[must_use]
    pub fn steps_unknown(&self) -> bool {
        let first = self.splits.first().and_then(Option::as_ref);
        first.is_some_and(|s| s.lengths.count().is_none())
            && !keys::STEPS.is_written(&self.filled.values)
    }

    /// Names of its methods.
    #[must_use]
    pub fn methods(&self) -> Vec<&str> {
        let mut methods: Vec<_> = self.trained_with.methods.iter().collect();
        // An entry of a recipe may be one method at several ranks.
        methods.dedup_by_key(|(m, f)| (m.schema().name, f.span));
        methods.iter().map(|(m, _)| m.schema().name).collect()
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
    /// What was seen of its data.
    pub data: Vec<Seen>,
    /// The directories that models, data and adapters are read from.
    pub reads: BTreeSet<PathBuf>,
}

impl Plan {
    /// A stage by name.
    #[must_use]
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|s| s.name.value == name)
    }
}
