//! The plan for people and programs: text, JSON, DOT, Mermaid.

use super::Stage;
use super::estimate::{Estimate, Residence};
use crate::library::data::form::Supervision;
use crate::library::net::Site;
use crate::library::stage::job::{Generate, Routine};
use crate::library::stage::keys;

mod graph;
mod json;
mod text;

pub use graph::{dot, mermaid};
pub(super) use json::with_cache;
pub use json::{card_json, json, stage_json, supervision_json};
pub use text::{prompt, supervision, text};

/// What a stage learns of its splits, by the key that names each; none where it learns labels.
fn supervised(stage: &Stage) -> impl Iterator<Item = (&'static str, &Supervision)> {
    let splits = stage.kind.splits().iter().zip(&stage.splits);
    splits.filter_map(|(key, split)| Some((*key, split.as_ref()?.supervision.as_ref()?)))
}

/// The lines of an estimate, with what they are called.
#[must_use]
pub fn lines(e: &Estimate) -> Vec<(&'static str, u64)> {
    let mut lines = vec![
        ("frozen weights", e.frozen_weights),
        ("trained weights", e.trainable_weights),
        ("gradients", e.gradients),
        ("optimizer state", e.optimizer),
        ("key-value cache", e.cache),
        ("activations kept for the backward", e.activations),
        ("transient", e.transient),
        ("workspace of the kernels", e.workspace),
    ];
    if e.cache == 0 {
        lines.retain(|(name, _)| *name != "key-value cache");
    }
    if let Residence::Device(o) = e.residence {
        lines.extend([
            ("granularity of the pool", o.pool_granularity),
            ("cuBLAS workspace", o.cublas_workspace),
            ("CUDA context", o.context),
            ("module code", o.modules),
        ]);
    }
    lines
}

/// Blocks whose inner values are made again in the backward.
#[must_use]
pub fn recomputed(stage: &Stage) -> u64 {
    let layers = stage.model.facts().layers;
    match keys::RECOMPUTE.get(&stage.filled.values) {
        true => keys::RECOMPUTE_BLOCKS
            .get(&stage.filled.values)
            .unwrap_or(layers)
            .min(layers),
        false => 0,
    }
}

/// Examples of a step and of a program run.
#[must_use]
pub fn batches(stage: &Stage) -> (u64, u64) {
    match &stage.job.routine {
        Routine::Fit(fit) => (
            fit.batch / fit.group.max(1),
            fit.micro_batch / fit.group.max(1),
        ),
        Routine::Score(score) => {
            let rows = score.batch / score.group.max(1);
            (rows, rows)
        }
        Routine::Choose(choose) => (choose.batch, choose.batch),
        Routine::Fold(_) => (0, 0),
    }
}

/// The length of the longest stage name, but at least so much: the width of its column.
#[must_use]
pub fn name_width<'a>(names: impl Iterator<Item = &'a str>, least: usize) -> usize {
    names.map(str::len).max().unwrap_or(0).max(least)
}

/// The sites that methods are at.
fn adapted(stage: &Stage) -> impl Iterator<Item = &Site> {
    let sites = stage.job.sites.iter();
    sites.filter(|s| !stage.trained_with.stack(s).is_empty())
}

/// What is generated behind the prompts of a stage's split.
fn generation(stage: &Stage) -> Option<&Generate> {
    match &stage.job.routine {
        Routine::Score(score) => score.generate.as_ref(),
        _ => None,
    }
}
