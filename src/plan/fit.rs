//! `fit = auto`: the micro-batch and the recompute with which a training fits a budget, the fastest that
//! does.

use indexmap::IndexMap;

use super::estimate::{self, Estimate};
use super::features;
use super::fingerprint::hash;
use super::time::beforehand;
use super::{Plan, Stage, choice};
use crate::library::schema::{Checked, Values};
use crate::library::stage::job::{Job, Routine};
use crate::library::stage::keys;
use crate::library::stage::packing::Batch;
use crate::program::op::Machine;

/// What was tried for a stage.
pub(super) struct Tried {
    values: Values,
    pub(super) job: Job,
    pub(super) not_kept: Option<String>,
    pub(super) estimate: Estimate,
    /// How long the stage takes so.
    seconds: f64,
}

impl Plan {
    /// Changes the stages that say `fit = auto` and need more than the budget. What fits none of the ways
    /// stays as it is written.
    pub fn fit(&mut self, budget: u64, machine: &Machine) {
        for i in 0..self.stages.len() {
            if let Some(stage) = self.stages.get_mut(i)
                && keys::FIT.find(&stage.filled.values) == Some("auto")
                && stage.estimate.needs() > budget
                && let Some(found) = search(stage, budget, machine)
            {
                take(stage, found);
            }
            self.follow(i);
        }
    }

    /// A stage's fingerprint is made of its parent's.
    fn follow(&mut self, i: usize) {
        let parent = self.stages.get(i).and_then(|s| s.parent.clone());
        let Some(own) = parent.and_then(|p| self.stage(&p)?.fingerprint.clone()) else {
            return;
        };
        if let Some(stage) = self.stages.get_mut(i)
            && stage.parts.get("from").is_some_and(|f| *f != own)
        {
            stage.parts.insert("from".to_owned(), own);
            stage.fingerprint = stage.fingerprint.as_ref().map(|_| hash(&stage.parts));
        }
    }
}

fn take(stage: &mut Stage, found: Tried) {
    let mut parts: IndexMap<String, String> = stage.parts.clone();
    // Recomputing changes no bit, but the sums over micro-batches round in another order.
    if let Some(micro) = keys::MICRO_BATCH.get(&found.values) {
        parts.insert("key micro_batch".to_owned(), micro.to_string());
    }
    stage.fingerprint = stage.fingerprint.as_ref().map(|_| hash(&parts));
    stage.parts = parts;
    stage.filled.values = found.values;
    stage.job = found.job;
    stage.not_kept = found.not_kept;
    stage.fitted = true;
    stage.estimate = found.estimate;
}

/// The fastest way that fits. More rows at once are faster, and so are fewer blocks recomputed: for each
/// micro-batch, from the largest down, the fewest blocks with which it fits are a candidate.
fn search(stage: &Stage, budget: u64, machine: &Machine) -> Option<Tried> {
    let values = &stage.filled.values;
    let batch = match (keys::BATCH.get(values), &stage.job.routine) {
        (Batch::Examples(batch), _) => batch.max(1),
        (Batch::Tokens(_), Routine::Fit(fit)) => fit.packing.as_ref().map_or(fit.batch, |p| p.most),
        (Batch::Tokens(_), _) => 1,
    };
    let batch = batch.div_ceil(stage.ranks.max(1));
    let most = keys::MICRO_BATCH.get(values).unwrap_or(batch).min(batch);
    let backward = stage.kind.schema().key("recompute").is_some();
    let layers = if backward {
        stage.model.facts().layers
    } else {
        0
    };
    let fits = |tried: &Tried| tried.estimate.needs() <= budget;
    let mut best: Option<Tried> = None;
    let mut micro = most.max(1);
    loop {
        let with = |blocks: u64| try_with(stage, (micro, batch), blocks, machine);
        // What compares the rows of a batch is not parted.
        let Some(plain) = with(0) else { break };
        // Even without recomputing it takes longer than what was found; smaller ones take longer still.
        if best.as_ref().is_some_and(|b| b.seconds <= plain.seconds) {
            break;
        }
        let found = if fits(&plain) {
            Some(plain)
        } else {
            fewest(layers, &|blocks| with(blocks).filter(fits))
        };
        if let Some(tried) = found
            && best.as_ref().is_none_or(|b| tried.seconds < b.seconds)
        {
            best = Some(tried);
        }
        // Of all that need the same number of runs a step, the one that needs least memory.
        let Some(next) = (batch.div_ceil(micro) + 1..=batch)
            .map(|runs| batch.div_ceil(runs))
            .find(|next| *next < micro)
        else {
            break;
        };
        micro = next;
    }
    best
}

/// The fewest of so many blocks with which it fits: memory falls with every one.
fn fewest(layers: u64, with: &dyn Fn(u64) -> Option<Tried>) -> Option<Tried> {
    if layers == 0 {
        return None;
    }
    let mut found = with(layers)?;
    let (mut fails, mut fits) = (0, layers);
    while fits - fails > 1 {
        let middle = fails + (fits - fails) / 2;
        match with(middle) {
            Some(better) => (found, fits) = (better, middle),
            None => fails = middle,
        }
    }
    Some(found)
}

/// A stage with another micro-batch and so many blocks recomputed; `batch` is the largest share of a rank.
fn try_with(
    stage: &Stage,
    (micro, batch): (u64, u64),
    blocks: u64,
    machine: &Machine,
) -> Option<Tried> {
    let mut values = stage.filled.values.clone();
    let span = stage.filled.span;
    if micro < batch {
        values.insert(keys::MICRO_BATCH.name(), Checked::Int(micro), span, true);
    }
    if blocks > 0 {
        values.insert(keys::RECOMPUTE.name(), Checked::Bool(true), span, true);
        values.insert(
            keys::RECOMPUTE_BLOCKS.name(),
            Checked::Int(blocks),
            span,
            true,
        );
    }
    lowered(stage, values, machine)
}

/// A training stage lowered again with these values; nothing where they do not go together, or it is no training.
pub(super) fn lowered(stage: &Stage, values: Values, machine: &Machine) -> Option<Tried> {
    let one = std::slice::from_ref(&stage.splits);
    let sets = stage.open.as_ref().map_or(one, |open| &open.sets);
    let views = choice::lengths(&stage.splits);
    let cx = stage.context(&stage.start, &values, &stage.trained_with, &views)?;
    let mut job = stage.kind.lower(&cx).ok()?;
    if !matches!(job.routine, Routine::Fit(_)) {
        return None;
    }
    let not_kept = features::keep(&mut job, &views, stage.asked(&values));
    let of = |lengths: &[Option<&_>]| estimate::estimate(&job, lengths, machine, stage.around());
    let (_, estimate) = choice::largest(sets, &of);
    Some(Tried {
        seconds: beforehand(&job, &views, machine),
        values,
        job,
        not_kept,
        estimate,
    })
}
