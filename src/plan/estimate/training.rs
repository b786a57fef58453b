//! The memory of a training: its steps, its phases, the features that it keeps.

use super::host::written;
use super::programs::{gradients, over};
use super::sizes::{evaluation_sizes, sizes_of_steps, training_sizes};
use super::{Around, Estimate, Moments};
use crate::library::stage::job::{Features, Fit, Job, Update};
use crate::plan::features::{feed_bytes, fill_sizes};
use crate::plan::split::Lengths;
use crate::program::device::Device;
use crate::program::op::Machine;
use crate::program::{Bindings, Verified, memory};

/// A program with the sizes of the batches that it runs over.
type Run<'a> = (&'a Verified, &'a [Bindings]);

/// What runs once, whatever the batches.
const ONCE: &[Bindings] = &[Bindings::NONE];

/// The sizes of a training's batches.
struct Sizes {
    /// Of the steps' micro-batches.
    steps: Vec<Bindings>,
    /// The same of each phase, in order; none if there is one phase.
    phases: Vec<Vec<Bindings>>,
    /// Of the evaluations.
    dev: Vec<Bindings>,
    /// Of the batches whose features are made.
    fill: Vec<Bindings>,
}

impl Sizes {
    fn of(fit: &Fit, splits: &[Option<&Lengths>]) -> Self {
        let split = |i: usize| splits.get(i).copied().flatten();
        let steps = split(0).map(|l| training_sizes(fit, l)).unwrap_or_default();
        let dev = split(1).map(|l| evaluation_sizes(l, fit.batch, fit.dev_reads.as_ref()));
        let dev = dev.unwrap_or_default();
        let begins = fit.phases.iter().map(|(begins, _)| *begins);
        let begins: Vec<u64> = begins.chain([fit.last_phase, fit.steps]).collect();
        let several = begins.windows(2).filter(|_| !fit.phases.is_empty());
        let phases = several.map(|pair| match (pair, split(0)) {
            (&[from, to], Some(lengths)) => sizes_of_steps(fit, lengths, (from..to, fit.ranks)),
            _ => Vec::new(),
        });
        let phases = phases.collect();
        let mut fill = Vec::new();
        if let Some(features) = &fit.features {
            for (i, &examples) in features.examples.iter().enumerate() {
                let sizes = split(i).map(|l| fill_sizes(l, examples, features.together));
                fill.extend(sizes.unwrap_or_default());
            }
            if !features.everything {
                fill.extend(&steps);
                fill.extend(&dev);
            }
        }
        Self {
            steps,
            phases,
            dev,
            fill,
        }
    }

    /// Sizes of a mean step.
    fn mean(&self) -> Bindings {
        let count = self.steps.len().max(1) as u64;
        Bindings(std::array::from_fn(|i| {
            let each = self.steps.iter().map(|b| b.0.get(i).copied().unwrap_or(0));
            each.sum::<u64>() / count
        }))
    }
}

/// The memory of the steps of a training, and of what comes before and after them.
pub(super) fn fit_estimate(
    job: &Job,
    fit: &Fit,
    splits: &[Option<&Lengths>],
    machine: &Machine,
    around: Around,
) -> Moments {
    let sizes = Sizes::of(fit, splits);
    let runs = runs(fit, &sizes);
    let mut steps = over(&runs, machine);
    // What remains in memory while something else than a program works.
    let between = Estimate {
        frozen_weights: steps.frozen_weights,
        trainable_weights: steps.trainable_weights,
        gradients: gradients(&runs),
        optimizer: steps.optimizer,
        max_tokens: steps.max_tokens,
        ..Estimate::default()
    };
    let mut moments = Moments::default();
    match &fit.features {
        Some(features) if features.everything => {
            let fill = over(&[(&features.prefix, &sizes.fill)], machine);
            moments.programs.push(fill);
            if around.exports_model {
                moments.host.push(written(job));
            }
        }
        Some(features) => {
            let together = putting_together(features, &sizes);
            moments.host.push(match machine.device {
                Device::Cpu => Estimate {
                    transient: together.transient,
                    peak_op: together.peak_op,
                    ..between.clone()
                },
                Device::Cuda(_) => together,
            });
        }
        None => {}
    }
    if let (Some(selection), Device::Cpu) = (&fit.selection, machine.device) {
        moments.programs.push(Estimate {
            transient: selection.scratch_bytes(),
            peak_op: "change of places".to_owned(),
            ..between.clone()
        });
    }
    let exchange = fit.update.exchange(fit.ranks);
    if exchange.reserved() > 0 {
        moments.host.push(Estimate {
            transient: exchange.reserved(),
            peak_op: "sum of gradients over ranks".to_owned(),
            ..between.clone()
        });
    }
    let micro_steps = fit.runs(fit.ranks).div_ceil(fit.ranks.max(1));
    let (step, passes) = match &fit.update {
        Update::Whole(step) => (step, 1),
        Update::Split { accumulate, .. } => (accumulate, 1),
        Update::Zeroth { loss, samples, .. } => (loss, 2 * samples),
    };
    let flops = memory::cost(step.program(), &sizes.mean()).flops;
    steps.flops_per_step = flops * micro_steps * passes;
    moments.steps = steps;
    moments
}

/// The programs of the steps: those of the last phase, of a change of places, of the phases before, and what evaluates
/// and fills features between steps.
fn runs<'a>(fit: &'a Fit, sizes: &'a Sizes) -> Vec<Run<'a>> {
    let mut runs: Vec<Run<'a>> = Vec::new();
    let step = match &fit.update {
        Update::Whole(step) => step,
        Update::Split { accumulate, apply } => {
            runs.push((apply, ONCE));
            accumulate
        }
        Update::Zeroth { loss, perturb, .. } => {
            runs.push((perturb, ONCE));
            loss
        }
    };
    runs.push((step, sizes.phases.last().unwrap_or(&sizes.steps)));
    let phases = fit.phases.iter().zip(&sizes.phases);
    let phases = phases.map(|((_, update), sizes)| (update, sizes));
    let select = fit.select.iter().map(|update| (update, &sizes.steps));
    for (update, sizes) in select.chain(phases) {
        let each = update.programs().into_iter().enumerate();
        runs.extend(each.map(|(i, program)| (program, if i == 0 { &sizes[..] } else { ONCE })));
    }
    if let Some(evaluate) = &fit.evaluate {
        runs.push((evaluate, &sizes.dev));
    }
    if let Some(features) = fit.features.as_ref().filter(|f| !f.everything) {
        runs.push((&features.prefix, &sizes.fill));
    }
    runs
}

/// Rows made for a batch are put among those read from disk; at most all are.
fn putting_together(features: &Features, sizes: &Sizes) -> Estimate {
    let batches = sizes.steps.iter().chain(&sizes.dev);
    let at_once = batches.map(|s| 2 * feed_bytes(features, s));
    Estimate {
        transient: at_once.max().unwrap_or(0),
        peak_op: "putting kept features together".to_owned(),
        ..Estimate::default()
    }
}
