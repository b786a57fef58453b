//! The estimate: a job's programs under the sizes of the batches that will really run.

use std::collections::BTreeMap;
use std::ops::Range;

use super::features::{feed_bytes, fill_sizes, reference_sizes};
use super::split::Lengths;
use crate::library::combine;
use crate::library::derive::{Derivation, places, prune};
use crate::library::export::Target;
use crate::library::net::Site;
use crate::library::net::{Init, Owner, Param};
use crate::library::stage::fisher::Fisher;
use crate::library::stage::job::{Fit, Fold, Job, Routine, Update, batch_sizes};
use crate::library::task::Reads;
use crate::program::device::{self, Card, Device, Overhead};
use crate::program::memory::{self, Peak};
use crate::program::op::{FEW_ROWS, Machine};
use crate::program::{Bindings, Class, Format, Program, Resident, Sym, Verified};

/// A stage's memory and work. All sizes are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Frozen weights held.
    pub frozen_weights: u64,
    /// Trained weights held.
    pub trainable_weights: u64,
    /// Gradients alive at the peak.
    pub gradients: u64,
    /// Optimizer state held.
    pub optimizer: u64,
    /// Keys and values that a generation keeps of the tokens it has read.
    pub cache: u64,
    /// Forward values kept for the backward, at the peak.
    pub activations: u64,
    /// Everything else alive at the peak.
    pub transient: u64,
    /// Kernel scratch at the peak.
    pub workspace: u64,
    /// What the blocks of all these take above their bytes, on a device.
    pub rounding: u64,
    /// Where the tensors are.
    pub home: Home,
    /// Where the peak is reached.
    pub peak_op: String,
    /// The largest tensors alive at the peak: what they are, bytes.
    pub largest: Vec<(String, u64)>,
    /// What the process needs beside tensors and workspace.
    pub host: u64,
    /// Arithmetic of a mean step.
    pub flops_per_step: u64,
    /// Tokens of the largest program run.
    pub max_tokens: u64,
}

/// Where a stage's tensors are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// In the process; the plan is for the processor.
    #[default]
    Cpu,
    /// In the process, in a plan for a device: the stage's arithmetic is the host's.
    Host,
    /// On a device, which takes this beside them.
    Device(Overhead),
}

impl Estimate {
    /// What a budget has to hold: on the processor all that the process takes, on a device what is held
    /// there, which is nothing for a stage that runs on the host.
    #[must_use]
    pub const fn needs(&self) -> u64 {
        match &self.home {
            Home::Cpu => self.peak() + self.host,
            Home::Host => 0,
            Home::Device(overhead) => self.peak() + overhead.total(),
        }
    }

    /// What has to be free on a device once its context is there; `None` for what runs on the host.
    #[must_use]
    pub const fn free_needed(&self) -> Option<u64> {
        match &self.home {
            Home::Device(overhead) => Some(self.needs() - overhead.context),
            Home::Cpu | Home::Host => None,
        }
    }

    /// What the process takes of the host's memory.
    #[must_use]
    pub const fn process(&self) -> u64 {
        match self.home {
            Home::Cpu | Home::Host => self.peak() + self.host,
            Home::Device(_) => self.host,
        }
    }

    /// What the blocks of all tensors and of the scratch take.
    const fn blocks(&self) -> u64 {
        self.peak() + self.rounding
    }

    /// The sum of the classes.
    #[must_use]
    pub const fn peak(&self) -> u64 {
        self.frozen_weights
            + self.trainable_weights
            + self.gradients
            + self.optimizer
            + self.cache
            + self.activations
            + self.transient
            + self.workspace
    }
}

/// What surrounds a job.
#[derive(Clone, Copy, Debug)]
pub struct Around {
    /// Bytes of data and tokenizer in memory.
    pub host: u64,
    /// Bytes that making tokens of the data takes beside these, before anything else is in memory.
    pub making: u64,
    /// Whether the adapter is made at the start, by decomposing and pruning; one that is continued
    /// brings its parts.
    pub makes_adapter: bool,
    /// Whether the stage leaves a whole model, not an adapter.
    pub leaves_model: bool,
}

/// What the process takes beside tensors: the binary, its threads' stacks, the runtime; measured.
const HOST_BASE: u64 = 24 << 20;
/// What writing folded weights takes beside them: buffers, and the file as it is read back; measured.
const HOST_FOLD: u64 = 6 << 20;
/// What the libraries of CUDA take of the host's memory. Not measured by us.
const HOST_CUDA: u64 = 256 << 20;
/// Freed blocks that the allocator keeps and cannot use again: one part in so many of the tensors,
/// measured.
const KEPT: u64 = 30;
/// Micro-batches after which the sizes of those to come are bounded, not looked at one by one.
const MOST_SIZES: usize = 250_000;

/// Estimates a job over the lengths of its splits (in the order of the stage kind's split keys).
#[must_use]
pub fn estimate(
    job: &Job,
    splits: &[Option<&Lengths>],
    machine: &Machine,
    around: Around,
) -> Estimate {
    match (machine.device, &job.routine) {
        (Device::Cpu, _) => {
            let moments = moments(job, splits, machine, around);
            let mut estimate = largest(
                moments.steps,
                moments.programs.into_iter().chain(moments.host),
            );
            let folding = match job.routine {
                Routine::Fold(_) => HOST_FOLD,
                Routine::Fit(_) | Routine::Score(_) | Routine::Choose(_) => 0,
            };
            let beside = HOST_BASE + folding + around.host;
            let host = beside + estimate.peak() / KEPT + copies(job, around, &estimate);
            let making = (beside + around.making).saturating_sub(estimate.peak());
            estimate.host = host.max(making);
            estimate
        }
        (Device::Cuda(_), Routine::Fold(_)) => Estimate {
            home: Home::Host,
            ..self::estimate(job, splits, &machine.on(Device::Cpu), around)
        },
        (Device::Cuda(card), _) => {
            let moments = moments(job, splits, machine, around);
            on_device(job, moments, card, around)
        }
    }
}

/// What happens in a stage, each thing with the memory it takes.
#[derive(Default)]
struct Moments {
    /// What the stage is for: its steps, its batches.
    steps: Estimate,
    /// Other programs.
    programs: Vec<Estimate>,
    /// What the host does whatever the device.
    host: Vec<Estimate>,
}

fn moments(job: &Job, splits: &[Option<&Lengths>], machine: &Machine, around: Around) -> Moments {
    let mut moments = match &job.routine {
        Routine::Fit(fit) => fit_estimate(job, fit, splits, machine, around),
        _ => Moments {
            steps: other_estimate(job, splits, machine),
            programs: generation_estimate(job, machine).into_iter().collect(),
            ..Moments::default()
        },
    };
    moments
        .programs
        .extend(reference_estimate(job, splits, machine));
    moments.host.extend(deriving(job, around.makes_adapter));
    if around.makes_adapter {
        moments
            .programs
            .extend(fisher_estimate(job, splits, machine));
        moments.host.push(Estimate {
            transient: prune::peak_bytes(&job.params),
            peak_op: "pruning of the backbone".to_owned(),
            ..Estimate::default()
        });
        moments.host.push(Estimate {
            transient: places::peak_bytes(&job.params),
            peak_op: "choice of places".to_owned(),
            ..Estimate::default()
        });
    }
    moments
}

/// The moment with most in memory; the work is that of the first.
fn largest(first: Estimate, others: impl IntoIterator<Item = Estimate>) -> Estimate {
    let mut estimate = first;
    for other in others {
        if other.blocks() > estimate.blocks() {
            estimate = Estimate {
                flops_per_step: estimate.flops_per_step,
                max_tokens: estimate.max_tokens,
                ..other
            };
        }
    }
    estimate
}

/// Bytes of residents that the host holds while programs run on a device: all but those that stay away, of
/// which it holds one at a time on the way; all at the end, where a whole model is written.
fn held_on_host(job: &Job, programs: &[&Program], around: Around) -> u64 {
    let residents = programs.iter().flat_map(|p| &p.residents);
    let all: BTreeMap<&str, &Resident> = residents.map(|r| (r.name.as_str(), r)).collect();
    let bytes = |r: &&Resident| r.ty.bytes(&Bindings::default());
    let total: u64 = all.values().map(bytes).sum();
    if around.leaves_model && matches!(job.routine, Routine::Fit(_)) {
        return total;
    }
    let params = job.params.iter();
    let away: BTreeMap<&str, u64> = params
        .filter_map(|p| Some((p, all.get(p.name.as_str())?)))
        .filter(|(p, r)| p.only_on_device(r.class))
        .map(|(p, r)| (p.name.as_str(), bytes(r)))
        .collect();
    total - away.values().sum::<u64>() + away.values().max().copied().unwrap_or(0)
}

/// A stage on a device: programs run there, all else stays in the host's memory.
fn on_device(job: &Job, moments: Moments, card: Option<&Card>, around: Around) -> Estimate {
    let programs: Vec<&Program> = job
        .first()
        .chain(job.programs())
        .map(Verified::program)
        .collect();
    let loaded = held_on_host(job, &programs, around);
    let mut estimate = largest(moments.steps, moments.programs);
    let held = moments
        .host
        .iter()
        .map(Estimate::peak)
        .fold(loaded, u64::max);
    let beside = HOST_BASE + HOST_CUDA + around.host;
    estimate.host = beside + around.making.max(held + held / KEPT);
    let tensors = (estimate.peak(), estimate.rounding);
    estimate.home = Home::Device(device::overhead(card, tensors, programs));
    estimate
}

/// Bytes of what a stage copies of an adapter beside the tensors it computes with: the singular vectors that it began
/// with, which exports and merges need, and the adapter in peft's format while it is written.
fn copies(job: &Job, around: Around, estimate: &Estimate) -> u64 {
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
        Routine::Fit(_) if !around.leaves_model => {
            let trained = job.params.iter().filter(|p| p.in_adapter());
            let written = trained.map(bytes).sum::<u64>() + initial;
            let held = estimate.frozen_weights + estimate.trainable_weights + estimate.optimizer;
            initial + (held + written).saturating_sub(estimate.peak())
        }
        Routine::Fold(_) => site,
        Routine::Fit(_) | Routine::Score(_) | Routine::Choose(_) => {
            let held = estimate.frozen_weights + estimate.trainable_weights;
            (held + site).saturating_sub(estimate.peak())
        }
    }
}

/// What is measured of a backbone before a training.
fn fisher_estimate(job: &Job, splits: &[Option<&Lengths>], machine: &Machine) -> Option<Estimate> {
    let Routine::Fit(fit) = &job.routine else {
        return None;
    };
    let fisher = fit.fisher.as_ref()?;
    let sizes = splits.first().copied().flatten();
    let sizes = sizes.map(|l| fisher_sizes(fit, fisher, l));
    let first = over(&[(&fisher.program, &sizes.unwrap_or_default())], machine);
    Some(Estimate {
        // Nothing is trained yet.
        frozen_weights: first.frozen_weights + first.trainable_weights,
        trainable_weights: 0,
        ..first
    })
}

/// What is computed of every text beforehand.
fn reference_estimate(
    job: &Job,
    splits: &[Option<&Lengths>],
    machine: &Machine,
) -> Option<Estimate> {
    let features = &job.reference()?.features;
    let reads = match &job.routine {
        Routine::Fit(fit) => [fit.reads.as_ref(), fit.dev_reads.as_ref()],
        Routine::Score(score) => [score.reads.as_ref(), None],
        Routine::Choose(_) | Routine::Fold(_) => [None, None],
    };
    let each = splits.iter().zip(reads);
    let sizes = each.flat_map(|(lengths, reads)| {
        lengths.map_or_else(Vec::new, |l| reference_sizes(l, reads, features.together))
    });
    let sizes: Vec<Bindings> = sizes.collect();
    Some(over(&[(&features.prefix, &sizes)], machine))
}

/// What is generated once a split is scored.
fn generation_estimate(job: &Job, machine: &Machine) -> Option<Estimate> {
    let Routine::Score(score) = &job.routine else {
        return None;
    };
    let generate = score.generate.as_ref()?;
    let sizes = [generate.reading(), generate.making()].concat();
    Some(over(&[(&generate.program, &sizes)], machine))
}

/// Estimates what is no training.
fn other_estimate(job: &Job, splits: &[Option<&Lengths>], machine: &Machine) -> Estimate {
    match &job.routine {
        Routine::Score(score) => {
            let sizes = splits
                .first()
                .copied()
                .flatten()
                .map(|l| evaluation_sizes(l, score.batch, score.reads.as_ref()))
                .unwrap_or_default();
            over(&[(&score.evaluate, &sizes)], machine)
        }
        Routine::Choose(choose) => {
            let sizes = every_size(splits, choose.batch);
            over(&[(&choose.evaluate, &sizes)], machine)
        }
        Routine::Fold(fold) => {
            let none = [Bindings::default()];
            let each = fold
                .sites
                .iter()
                .map(|(_, program)| over(&[(program, &none)], machine));
            let folded = each.max_by_key(Estimate::peak).unwrap_or_default();
            let folded = converted(fold, job)
                .filter(|c| c.peak() > folded.peak())
                .unwrap_or(folded);
            // All other tensors pass through, one at a time, in f32.
            let written = |p: &&Param| fold.target.is_model() || p.owner == Owner::Adapter;
            let passing = job.params.iter().filter(written);
            let largest = passing.max_by_key(|p| p.elements());
            match largest.filter(|p| 4 * p.elements() > folded.peak()) {
                Some(param) => Estimate {
                    frozen_weights: 4 * param.elements(),
                    peak_op: format!("copy {}", param.name),
                    ..Estimate::default()
                },
                None => folded,
            }
        }
        Routine::Fit(_) => Estimate::default(),
    }
}

/// The matrix whose update takes most to become a pair.
fn converted(fold: &Fold, job: &Job) -> Option<Estimate> {
    let Target::Lora(keep) = fold.target else {
        return None;
    };
    let sizes = |site: &Site| (site.output(), site.input());
    let bytes = |site: &Site| match &fold.mix {
        None => combine::bytes(sizes(site), keep, 0),
        Some(mix) if mix.how.updates => {
            let each = 4 * site.output() * site.input();
            // The largest rank is at most the sum of theirs, which is not known here.
            let most = site.output().min(site.input());
            mix.folders.len() as u64 * each + combine::bytes(sizes(site), keep, most)
        }
        Some(_) => 0,
    };
    let of_sites = fold.sites.iter().map(|(site, _)| site);
    let all = job
        .sites
        .iter()
        .filter(|s| fold.mix.is_some() && s.is_linear());
    let largest = of_sites.chain(all).max_by_key(|site| bytes(site))?;
    Some(Estimate {
        transient: bytes(largest),
        peak_op: format!("decompose {}", largest.path),
        ..Estimate::default()
    })
}

/// The moment of loading with most in memory, if values are derived from weights: one weight with what is made of
/// it, and what was loaded before it, which is what is pruned and then parameter by parameter.
fn deriving(job: &Job, makes_adapter: bool) -> Option<Estimate> {
    if let Routine::Fold(_) = job.routine {
        return None; // nothing is derived there, and each site is loaded for itself
    }
    let gone = job.features().filter(|f| f.everything);
    let mut left: BTreeMap<&str, &Resident> = job
        .programs()
        .into_iter()
        .filter(|v| gone.is_none_or(|f| **v != f.prefix))
        .flat_map(|v| &v.program().residents)
        .map(|r| (r.name.as_str(), r))
        .collect();
    let early = |p: &&Param| makes_adapter && matches!(p.init, Init::Pruned(_));
    let pruned = job.params.iter().filter(early);
    let others = job.params.iter().filter(|p| !early(p));
    let mut held = Estimate::default();
    let mut best: Option<Estimate> = None;
    let mut made: Option<&Derivation> = None;
    for param in pruned.chain(others) {
        let Some(resident) = left.remove(param.name.as_str()) else {
            continue;
        };
        // The first of the tensors that are made together.
        let derived = param.derivation().map(|(by, _)| by);
        if let Some(by) = derived.filter(|by| made != Some(*by)) {
            made = Some(by);
            if makes_adapter || param.replaces.is_some() {
                let at = Estimate {
                    transient: by.rule().source().bytes()
                        + match param.format.and_then(Format::blocks) {
                            // In blocks it is made beside what is in f32.
                            Some(blocks) => blocks.bytes(param.elements()),
                            None => 0,
                        },
                    workspace: if makes_adapter {
                        by.rule().scratch_bytes()
                    } else {
                        0
                    },
                    peak_op: by.rule().what().to_owned(),
                    ..held.clone()
                };
                if best.as_ref().is_none_or(|b| at.peak() > b.peak()) {
                    best = Some(at);
                }
            }
        }
        let bytes = resident.ty.bytes(&Bindings::default());
        match resident.class {
            Class::Frozen | Class::Chosen => held.frozen_weights += bytes,
            Class::Trainable => held.trainable_weights += bytes,
            Class::Gradient | Class::Optimizer | Class::Cache => {}
        }
    }
    best
}

pub(super) fn evaluation_sizes(
    lengths: &Lengths,
    batch: u64,
    reads: Option<&Reads>,
) -> Vec<Bindings> {
    let list = lengths.list(batch);
    let order: Vec<u32> = (0..list.len() as u32).collect();
    batch_sizes(&list, &order, batch, reads).collect()
}

/// Sizes of the batches of all splits.
pub(super) fn every_size(splits: &[Option<&Lengths>], batch: u64) -> Vec<Bindings> {
    let known = splits.iter().copied().flatten();
    known
        .flat_map(|l| evaluation_sizes(l, batch, None))
        .collect()
}

/// Sizes of the examples whose Fisher information is measured.
fn fisher_sizes(fit: &Fit, fisher: &Fisher, lengths: &Lengths) -> Vec<Bindings> {
    let list = lengths.list(fit.batch);
    let order = fit.order(list.len(), 0);
    let chosen: Vec<u32> = order
        .into_iter()
        .take(fisher.measure.samples as usize)
        .collect();
    batch_sizes(&list, &chosen, fisher.measure.batch, fit.reads.as_ref()).collect()
}

/// Sizes of every micro-batch of a training.
pub(super) fn training_sizes(fit: &Fit, lengths: &Lengths) -> Vec<Bindings> {
    sizes_of_steps(fit, lengths, 0..fit.steps)
}

/// The same of some of its steps; where lengths are assumed they are all alike.
fn sizes_of_steps(fit: &Fit, lengths: &Lengths, steps: Range<u64>) -> Vec<Bindings> {
    let known = lengths.count().is_some();
    let all = steps == (0..fit.steps) || !known;
    let list = lengths.list(fit.batch);
    let epochs = fit.steps.div_ceil(fit.steps_per_epoch.max(1));
    let mut sizes = Vec::new();
    for epoch in 0..epochs {
        let order = fit.order(list.len(), epoch);
        let left = fit
            .steps
            .saturating_sub(epoch.saturating_mul(fit.steps_per_epoch));
        let length = |example: u32| list.get(example as usize).map_or(0, |&n| u64::from(n));
        let first = epoch.saturating_mul(fit.steps_per_epoch);
        let batches = fit.batches(&order, &length).into_iter();
        let batches = (first..).zip(batches.take(left as usize));
        for (_, batch) in batches.filter(|(step, _)| all || steps.contains(step)) {
            sizes.extend(batch_sizes(
                &list,
                order.get(batch).unwrap_or_default(),
                fit.micro_batch,
                fit.reads.as_ref(),
            ));
        }
        // Where lengths are assumed they are all alike, and so are the epochs.
        let alike = (!fit.shuffle && all) || !known;
        if alike || left <= fit.steps_per_epoch {
            break;
        }
        if sizes.len() > MOST_SIZES && fit.packing.is_none() {
            // No batch of the epochs to come is larger than that of the longest examples.
            let mut longest = list.clone();
            longest.sort_unstable_by(|a, b| b.cmp(a));
            longest.truncate(fit.micro_batch as usize);
            let all = Bindings::of_lengths(longest.iter().map(|&n| n as usize));
            let most = fit.reads.as_ref().map(|m| m.most(&list, fit.micro_batch));
            sizes.push(all.reading(most.unwrap_or(0)));
            break;
        }
    }
    sizes
}

/// The memory of the steps of a training, and of what comes before and after them.
fn fit_estimate(
    job: &Job,
    fit: &Fit,
    splits: &[Option<&Lengths>],
    machine: &Machine,
    around: Around,
) -> Moments {
    let split = |i: usize| splits.get(i).copied().flatten();
    let sizes = split(0).map(|l| training_sizes(fit, l)).unwrap_or_default();
    let dev = split(1)
        .map(|l| evaluation_sizes(l, fit.batch, fit.dev_reads.as_ref()))
        .unwrap_or_default();
    let none = [Bindings::default()];
    let mut runs: Vec<(&Verified, &[Bindings])> = Vec::new();
    let step = match &fit.update {
        Update::Whole(step) => step,
        Update::Split { accumulate, apply } => {
            runs.push((apply, &none));
            accumulate
        }
        Update::Zeroth { loss, perturb, .. } => {
            runs.push((perturb, &none));
            loss
        }
    };
    let begins = fit.phases.iter().map(|(begins, _)| *begins);
    let begins: Vec<u64> = begins.chain([fit.last_phase, fit.steps]).collect();
    let of_phases: Vec<Vec<Bindings>> = begins
        .windows(2)
        .filter(|_| !fit.phases.is_empty())
        .map(|pair| match (pair, split(0)) {
            (&[from, to], Some(lengths)) => sizes_of_steps(fit, lengths, from..to),
            _ => Vec::new(),
        })
        .collect();
    runs.push((step, of_phases.last().unwrap_or(&sizes)));
    let phases = fit.phases.iter().zip(&of_phases);
    let phases = phases.map(|((_, update), sizes)| (update, sizes));
    for (update, sizes) in fit.select.iter().map(|u| (u, &sizes)).chain(phases) {
        let programs = update.programs().into_iter();
        let each = programs.enumerate();
        runs.extend(each.map(|(i, program)| (program, if i == 0 { &sizes[..] } else { &none })));
    }
    if let Some(evaluate) = &fit.evaluate {
        runs.push((evaluate, &dev));
    }
    let mut moments = Moments::default();
    let mut fill = Vec::new();
    if let Some(features) = &fit.features {
        for (i, &examples) in features.examples.iter().enumerate() {
            fill.extend(
                split(i)
                    .map(|l| fill_sizes(l, examples, features.together))
                    .unwrap_or_default(),
            );
        }
        if features.everything {
            moments
                .programs
                .push(over(&[(&features.prefix, &fill)], machine));
            if around.leaves_model {
                moments.host.push(written(job));
            }
        } else {
            fill.extend(&sizes);
            fill.extend(&dev);
            runs.push((&features.prefix, &fill));
        }
    }
    let mut estimate = over(&runs, machine);
    if let (Some(selection), Device::Cpu) = (&fit.selection, machine.device) {
        moments.programs.push(Estimate {
            frozen_weights: estimate.frozen_weights,
            trainable_weights: estimate.trainable_weights,
            gradients: job_gradients(&runs),
            optimizer: estimate.optimizer,
            max_tokens: estimate.max_tokens,
            transient: selection.scratch_bytes(),
            peak_op: "change of places".to_owned(),
            ..Estimate::default()
        });
    }
    if let Some(features) = fit.features.as_ref().filter(|f| !f.everything) {
        // Rows made for this batch are put among those read from disk; at most all are.
        let at_once = sizes
            .iter()
            .chain(&dev)
            .map(|s| 2 * feed_bytes(features, s));
        let together = Estimate {
            transient: at_once.max().unwrap_or(0),
            peak_op: "putting kept features together".to_owned(),
            ..Estimate::default()
        };
        moments.host.push(match machine.device {
            Device::Cpu => Estimate {
                frozen_weights: estimate.frozen_weights,
                trainable_weights: estimate.trainable_weights,
                gradients: job_gradients(&runs),
                optimizer: estimate.optimizer,
                max_tokens: estimate.max_tokens,
                ..together
            },
            Device::Cuda(_) => together,
        });
    }
    let steps = sizes.len().max(1) as u64;
    let mean = Bindings(std::array::from_fn(|i| {
        sizes
            .iter()
            .map(|b| b.0.get(i).copied().unwrap_or(0))
            .sum::<u64>()
            / steps
    }));
    let micro_steps = fit.batch.div_ceil(fit.micro_batch.max(1));
    let passes = match &fit.update {
        Update::Zeroth { samples, .. } => 2 * samples,
        _ => 1,
    };
    estimate.flops_per_step = memory::cost(step.program(), &mean).flops * micro_steps * passes;
    moments.steps = estimate;
    moments
}

/// Bytes of the gradient accumulators.
fn job_gradients(runs: &[(&Verified, &[Bindings])]) -> u64 {
    let classes = memory::residents(runs.iter().map(|(v, _)| v.program()));
    classes.get(&Class::Gradient).copied().unwrap_or(0)
}

/// The moment a whole model is written: all its weights, nothing else.
fn written(job: &Job) -> Estimate {
    let classes = memory::residents(job.programs().iter().map(|v| v.program()));
    let held = |class| classes.get(&class).copied().unwrap_or(0);
    Estimate {
        frozen_weights: held(Class::Frozen) + held(Class::Chosen),
        trainable_weights: held(Class::Trainable),
        peak_op: "writing the model".to_owned(),
        ..Estimate::default()
    }
}

/// The largest peak of some programs, each over its own sizes, with the residents of all.
fn over(runs: &[(&Verified, &[Bindings])], machine: &Machine) -> Estimate {
    let classes: BTreeMap<Class, u64> = memory::residents(runs.iter().map(|(v, _)| v.program()));
    let held = |class| classes.get(&class).copied().unwrap_or(0);
    let mut best: Option<(Peak, &Program)> = None;
    let mut max_tokens = 0;
    let mut flops = 0;
    for (verified, sizes) in runs {
        for front in Bindings::pareto(sizes.iter().copied(), FEW_ROWS) {
            let peak = memory::peak(verified.program(), verified.schedule(), &front, machine);
            max_tokens = max_tokens.max(front.get(Sym::Tokens));
            flops = flops.max(memory::cost(verified.program(), &front).flops);
            if best.as_ref().is_none_or(|(b, _)| peak.total() > b.total()) {
                best = Some((peak, verified.program()));
            }
        }
    }
    let (peak, program) = match best {
        Some((peak, program)) => (peak, Some(program)),
        None => (Peak::default(), None),
    };
    Estimate {
        frozen_weights: held(Class::Frozen) + held(Class::Chosen),
        trainable_weights: held(Class::Trainable),
        gradients: held(Class::Gradient) + peak.gradients,
        optimizer: held(Class::Optimizer),
        cache: held(Class::Cache),
        activations: peak.activations,
        transient: peak.transient,
        workspace: peak.workspace,
        rounding: peak.rounding
            + memory::residents_rounding(runs.iter().map(|(v, _)| v.program()), machine.device),
        home: Home::Cpu,
        peak_op: program
            .map(|p| describe_node(p, peak.node))
            .unwrap_or_default(),
        largest: program
            .map(|p| {
                peak.largest
                    .iter()
                    .map(|&(v, b)| (describe_value(p, v), b))
                    .collect()
            })
            .unwrap_or_default(),
        host: 0,
        flops_per_step: flops,
        max_tokens,
    }
}

pub(super) fn describe_node(program: &Program, index: usize) -> String {
    let Some(node) = program.nodes.get(index) else {
        return String::new();
    };
    let label = program
        .labels
        .get(node.label as usize)
        .map(String::as_str)
        .unwrap_or_default();
    format!("{} {} ({:?})", node.op.name(), label, node.phase).to_lowercase()
}

fn describe_value(program: &Program, value: crate::program::Value) -> String {
    use crate::program::Def;
    match program.def(value) {
        Def::Resident(_) => program
            .resident(value)
            .map(|r| r.name.clone())
            .unwrap_or_default(),
        Def::Feed(feed) => feed.name().to_owned(),
        Def::Node { node, .. } => format!(
            "{}: {}",
            describe_node(program, node as usize),
            program.ty(value)
        ),
    }
}
