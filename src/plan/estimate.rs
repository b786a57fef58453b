//! The estimate: a job's programs under the sizes of the batches that will really run.

mod host;
mod programs;
mod routines;
mod sizes;
mod training;

use std::collections::BTreeMap;

pub(super) use programs::describe_node;
pub(super) use sizes::{evaluation_sizes, every_size, sizes_among, training_sizes};

use super::split::Lengths;
use crate::library::derive::{places, prune};
use crate::library::stage::job::{Job, Routine};
use crate::program::device::{self, Card, Device, Overhead};
use crate::program::op::Machine;
use crate::program::{Bindings, Program, Resident, Verified};
use host::{copies, deriving};
use routines::{
    activation_estimates, fisher_estimate, generation_estimate, other_estimate, prefill_estimates,
    reference_estimate,
};
use training::fit_estimate;

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
    pub residence: Residence,
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
pub enum Residence {
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
        match &self.residence {
            Residence::Cpu => self.peak() + self.host,
            Residence::Host => 0,
            Residence::Device(overhead) => self.peak() + overhead.total(),
        }
    }

    /// What has to be free on a device once its context is there; `None` for what runs on the host.
    #[must_use]
    pub const fn free_needed(&self) -> Option<u64> {
        match &self.residence {
            Residence::Device(overhead) => Some(self.needs() - overhead.context),
            Residence::Cpu | Residence::Host => None,
        }
    }

    /// What the process takes of the host's memory.
    #[must_use]
    pub const fn process(&self) -> u64 {
        match self.residence {
            Residence::Cpu | Residence::Host => self.peak() + self.host,
            Residence::Device(_) => self.host,
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
    pub exports_model: bool,
}

/// What the process takes beside tensors: the binary, its threads' stacks, the runtime; measured.
const HOST_BASE: u64 = 24 << 20;
/// What writing folded weights takes beside them: buffers, and the file as it is read back; measured.
const HOST_FOLD: u64 = 6 << 20;
/// What the libraries of CUDA take of the host's memory: 424 to 551 MiB with driver 580 and CUDA 13 beside an H100.
const HOST_CUDA: u64 = 552 << 20;
/// Freed blocks that the allocator keeps and cannot use again: one part in so many of the tensors,
/// measured.
const KEPT: u64 = 30;

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
            residence: Residence::Host,
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
        let components = activation_estimates(job, splits, machine);
        for (run, taken) in [components, prefill_estimates(job, machine)]
            .into_iter()
            .flatten()
        {
            moments.programs.push(run);
            moments.host.push(taken);
        }
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
fn host_resident_bytes(job: &Job, programs: &[&Program], around: Around) -> u64 {
    let residents = programs.iter().flat_map(|p| &p.residents);
    let all: BTreeMap<&str, &Resident> = residents.map(|r| (r.name.as_str(), r)).collect();
    let bytes = |r: &&Resident| r.ty.bytes(&Bindings::default());
    let total: u64 = all.values().map(bytes).sum();
    if around.exports_model && matches!(job.routine, Routine::Fit(_)) {
        return total;
    }
    let params = job.params.iter();
    let device_only: BTreeMap<&str, u64> = params
        .filter_map(|p| Some((p, all.get(p.name.as_str())?)))
        .filter(|(p, r)| p.only_on_device(r.class))
        .map(|(p, r)| (p.name.as_str(), bytes(r)))
        .collect();
    total - device_only.values().sum::<u64>() + device_only.values().max().copied().unwrap_or(0)
}

/// A stage on a device: programs run there, all else stays in the host's memory.
fn on_device(job: &Job, moments: Moments, card: Option<&Card>, around: Around) -> Estimate {
    let programs: Vec<&Program> = job
        .first()
        .chain(job.programs())
        .map(Verified::program)
        .collect();
    let loaded = host_resident_bytes(job, &programs, around);
    let mut estimate = largest(moments.steps, moments.programs);
    let most = moments
        .host
        .iter()
        .map(Estimate::peak)
        .fold(loaded, u64::max);
    let beside = HOST_BASE + HOST_CUDA + around.host;
    estimate.host = beside + around.making.max(most + most / KEPT);
    let tensors = (estimate.peak(), estimate.rounding);
    estimate.residence = Residence::Device(device::overhead(card, tensors, programs));
    estimate
}
