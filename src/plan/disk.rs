//! Bytes that a run takes on the disk of its store.

use std::sync::Arc;

use super::{Plan, Stage};
use crate::library::data::tokens::EncodedSet;
use crate::library::net::{Owner, Param};
use crate::library::stage::job::{Features, Generate, Routine};
use crate::program::Class;

/// Bytes of a small file: a config, a description, a manifest.
const SMALL: u64 = 16 << 10;

/// Bytes of a line of a step log.
const LINE: u64 = 200;

/// Bytes of a token in a tokenizer's file, about.
const TOKEN: u64 = 40;

/// Checkpoints at most at once: two that are kept, and one on its way to replace the older.
const SLOTS: u64 = 3;

/// What a stage takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// What stays: the artifact, logs, predictions.
    pub artifact: u64,
    /// What is there while it runs: its checkpoints.
    pub checkpoints: u64,
    /// Rows of its frozen part.
    pub features: u64,
}

impl Disk {
    /// What a stage takes on its own.
    #[must_use]
    pub fn of(stage: &Stage) -> Self {
        let bytes = |p: &Param| 4 * p.elements();
        let sum = |of: &dyn Fn(&&Param) -> bool| -> u64 {
            stage.job.params.iter().filter(of).map(bytes).sum()
        };
        let model = |size: &dyn Fn(&Param) -> u64| -> u64 {
            let plain = |p: &&Param| p.owner != Owner::Adapter;
            // A matrix in parts is written whole.
            let rest = |p: &&Param| p.replaces.is_some();
            let params = stage.job.params.iter();
            params.filter(|p| plain(p) || rest(p)).map(size).sum()
        };
        let tokenizer = stage.start.model.tokenizer.as_ref();
        let sides = 4 * SMALL + tokenizer.map_or(0, |t| TOKEN * t.vocab_size() as u64);
        match &stage.job.routine {
            Routine::Fit(fit) => {
                let trained = sum(&|p| p.trainable);
                let adapter = stage.hands_on.as_ref().is_some_and(|l| l.adapter.is_some());
                let artifact = if adapter {
                    // In our format and in peft's, and the vectors that a decomposition began with.
                    let own = sum(&|p| p.in_adapter());
                    let vectors = sum(&|p| p.keeps_start);
                    2 * own + vectors
                } else {
                    model(&bytes)
                };
                let best = if fit.best.is_some() {
                    SLOTS * trained
                } else {
                    0
                };
                Self {
                    artifact: artifact + sides + 2 * LINE * fit.steps,
                    checkpoints: SLOTS * (trained + optimizer(stage)) + best + SMALL,
                    features: fit.features.as_ref().map_or(0, |f| f.bytes) + reference(stage),
                }
            }
            Routine::Score(score) => {
                let rows = examples(stage, 0);
                let start = &stage.start;
                let row = start.task.row_bytes(&start.classes);
                Self {
                    artifact: 2 * (rows * row + score.generate.as_ref().map_or(0, texts)) + SMALL,
                    features: reference(stage),
                    ..Self::default()
                }
            }
            Routine::Choose(_) => {
                let all = stage.candidates.as_ref().map_or(0, |c| c.count());
                Self {
                    artifact: 2 * LINE * all + SMALL,
                    ..Self::default()
                }
            }
            Routine::Fold(fold) => {
                let size = |p: &Param| fold.target.stored(&p.name, &p.shape).bytes(p.elements());
                let adapter = |p: &&Param| p.owner == Owner::Adapter;
                let written = if fold.target.is_model() {
                    model(&size) + sides
                } else {
                    let own = stage.job.params.iter().filter(adapter);
                    own.map(size).sum::<u64>() + 2 * SMALL
                };
                Self {
                    artifact: if fold.to.is_some() {
                        2 * written
                    } else {
                        written
                    },
                    ..Self::default()
                }
            }
        }
    }

    /// The most it takes at once.
    #[must_use]
    pub const fn most(self) -> u64 {
        self.artifact + self.checkpoints + self.features
    }
}

/// Bytes of what is kept of every text beforehand.
fn reference(stage: &Stage) -> u64 {
    let reference = stage.job.reference();
    reference.map_or(0, |r| r.features.bytes + 2 * SMALL)
}

fn optimizer(stage: &Stage) -> u64 {
    let mut seen = std::collections::BTreeMap::new();
    for program in stage.job.programs() {
        for resident in &program.program().residents {
            if matches!(resident.class, Class::Optimizer | Class::Chosen) {
                let bytes = resident.ty.bytes(&crate::program::Bindings::default());
                seen.insert(resident.name.as_str(), bytes);
            }
        }
    }
    seen.values().sum()
}

fn examples(stage: &Stage, split: usize) -> u64 {
    let split = stage.splits.get(split).and_then(Option::as_ref);
    split.and_then(|s| s.lengths.count()).unwrap_or(0)
}

/// Rows that are kept of a stage, known from those of another by what they are made of: stages with the same
/// weights, tokens and expressions share them.
type Rows<'a> = (
    &'a str,
    &'a str,
    &'a str,
    Vec<&'a str>,
    Vec<*const EncodedSet>,
);

fn rows<'a>(plan: &'a Plan, stage: &'a Stage, features: &'a Features) -> Rows<'a> {
    let part = |key: &str| stage.parts.get(key).map(String::as_str).unwrap_or_default();
    let weights = match &stage.start.weights {
        Some(name) => plan.stage(name).and_then(|s| s.fingerprint.as_deref()),
        None => stage.start.model.identity.as_deref(),
    };
    let own = Some(stage.name.value.as_str()).filter(|_| !features.plain || weights.is_none());
    let sets = stage.splits.iter().flatten();
    let sets = sets.filter_map(|s| s.encoded.as_ref().map(Arc::as_ptr));
    (
        part("numeric"),
        weights.unwrap_or_default(),
        own.unwrap_or_default(),
        features.kept.iter().map(|k| k.id.as_str()).collect(),
        sets.collect(),
    )
}

impl Plan {
    /// What stages take on a disk together: what each leaves, rows once where they are shared, and the checkpoints of the
    /// one that has most.
    #[must_use]
    pub fn disk<'a>(&'a self, stages: impl Iterator<Item = &'a Stage>) -> Disk {
        let mut all = Disk::default();
        let mut seen: Vec<Rows<'_>> = Vec::new();
        for stage in stages {
            let own = Disk::of(stage);
            all.artifact += own.artifact;
            all.checkpoints = all.checkpoints.max(own.checkpoints);
            all.features += reference(stage);
            if let Some(features) = stage.job.features() {
                let rows = rows(self, stage, features);
                if !seen.contains(&rows) {
                    all.features += own.features - reference(stage);
                    seen.push(rows);
                }
            }
        }
        all
    }
}

/// Bytes of generated texts with their prompts and references, at eight a token.
fn texts(generate: &Generate) -> u64 {
    let prompts = generate.prompts.iter().map(|&n| u64::from(n));
    let each = 8 * 2 * generate.settings.max_new_tokens + LINE;
    prompts.map(|tokens| 8 * tokens + each).sum()
}
