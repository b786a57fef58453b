//! What the host does around the programs: loading, deriving, copying, writing.

use std::collections::BTreeMap;

use super::{Around, Estimate};
use crate::library::derive::Derivation;
use crate::library::net::{Init, Param};
use crate::library::stage::job::{Job, Routine};
use crate::program::{Bindings, Class, Format, Resident, Verified, memory};

/// Bytes of what a stage copies of an adapter beside the tensors it computes with: the singular vectors that it began
/// with, which exports and merges need, and the adapter in peft's format while it is written.
pub(super) fn copies(job: &Job, around: Around, estimate: &Estimate) -> u64 {
    let vectors = |p: &&Param| p.keeps_start;
    let bytes = |p: &Param| 4 * p.elements();
    let initial: u64 = job.params.iter().filter(vectors).map(bytes).sum();
    // One matrix at a time: its vectors as they were, and the decomposition they are part of.
    let mut sites: BTreeMap<&str, u64> = BTreeMap::new();
    for param in job.params.iter().filter(vectors) {
        *sites.entry(param.module()).or_default() += bytes(param);
    }
    let site = 2 * sites.into_values().max().unwrap_or(0);
    match &job.routine {
        Routine::Fit(_) if !around.exports_model => {
            let trained = job.params.iter().filter(|p| p.in_adapter());
            let written = trained.map(bytes).sum::<u64>() + initial;
            let loaded = estimate.frozen_weights + estimate.trainable_weights + estimate.optimizer;
            initial + (loaded + written).saturating_sub(estimate.peak())
        }
        Routine::Fold(_) => site,
        Routine::Fit(_) | Routine::Score(_) | Routine::Choose(_) => {
            let loaded = estimate.frozen_weights + estimate.trainable_weights;
            (loaded + site).saturating_sub(estimate.peak())
        }
    }
}

/// The moment of loading with most in memory, if values are derived from weights: one weight with what is made of
/// it, and what was loaded before it, which is what is pruned and then parameter by parameter.
pub(super) fn deriving(job: &Job, makes_adapter: bool) -> Option<Estimate> {
    if let Routine::Fold(_) = job.routine {
        return None; // each site is loaded for itself
    }
    let gone = job.features().filter(|f| f.everything);
    let programs = job.programs().into_iter();
    let there = programs.filter(|v| gone.is_none_or(|f| **v != f.prefix));
    deriving_of(job, there, makes_adapter)
}

/// The same of what some programs hold.
pub(super) fn deriving_of<'p>(
    job: &Job,
    programs: impl Iterator<Item = &'p Verified>,
    makes_adapter: bool,
) -> Option<Estimate> {
    let mut left: BTreeMap<&str, &Resident> = programs
        .flat_map(|v| &v.program().residents)
        .map(|r| (r.name.as_str(), r))
        .collect();
    let early = |p: &&Param| makes_adapter && matches!(p.init, Init::Pruned(_));
    let pruned = job.params.iter().filter(early);
    let others = job.params.iter().filter(|p| !early(p));
    let mut loaded = Estimate::default();
    let mut best: Option<Estimate> = None;
    let mut made: Vec<&Derivation> = Vec::new();
    // What was made for sites that are still to be loaded.
    let mut waiting = 0;
    for param in pruned.chain(others) {
        let Some(resident) = left.remove(param.name.as_str()) else {
            continue;
        };
        // The first of the tensors that are made together, those apart that an adapter brings.
        let is_made = makes_adapter || param.is_remade();
        let derived = param.derivation().map(|(by, _)| by).filter(|_| is_made);
        if let Some(by) = derived.filter(|by| !made.contains(by)) {
            made.retain(|by| by.rule().is_of_many());
            made.push(by);
            let at = Estimate {
                transient: waiting
                    + by.rule().read_bytes()
                    + match param.format.and_then(Format::blocks) {
                        // In blocks it is made beside what is in f32.
                        Some(blocks) => blocks.bytes(param.elements()),
                        None => 0,
                    },
                workspace: if makes_adapter {
                    by.rule().scratch_bytes()
                } else {
                    by.rule().remake_bytes()
                },
                peak_op: by.rule().what().to_owned(),
                ..loaded.clone()
            };
            if best.as_ref().is_none_or(|b| at.peak() > b.peak()) {
                best = Some(at);
            }
            if by.rule().is_of_many() {
                waiting += made_bytes(job, by, makes_adapter);
            }
        }
        let waits = |by: &Derivation| by.rule().is_of_many();
        if derived.is_some_and(waits) {
            waiting -= (4 * param.elements()).min(waiting);
        }
        let bytes = resident.ty.bytes(&Bindings::default());
        match resident.class {
            Class::Frozen | Class::Chosen => loaded.frozen_weights += bytes,
            Class::Trainable => loaded.trainable_weights += bytes,
            Class::Gradient | Class::Optimizer | Class::Cache => {}
        }
    }
    best
}

/// Bytes of the parts that are made together.
fn made_bytes(job: &Job, by: &Derivation, makes_adapter: bool) -> u64 {
    let own = |p: &&Param| {
        (makes_adapter || p.is_remade()) && p.derivation().is_some_and(|(other, _)| other == by)
    };
    let own = job.params.iter().filter(own);
    own.map(|p| 4 * p.elements()).sum()
}

/// The moment a whole model is written: all its weights, nothing else.
pub(super) fn written(job: &Job) -> Estimate {
    let classes = memory::residents(job.programs().iter().map(|v| v.program()));
    let loaded = |class| classes.get(&class).copied().unwrap_or(0);
    Estimate {
        frozen_weights: loaded(Class::Frozen) + loaded(Class::Chosen),
        trainable_weights: loaded(Class::Trainable),
        peak_op: "writing the model".to_owned(),
        ..Estimate::default()
    }
}
