//! Trainings shared among ranks: what of a plan changes with their number, which trainings cannot be shared, and what a
//! step then takes.

use std::collections::BTreeMap;

use super::error::NOT_SHARED;
use super::estimate::sizes_among;
use super::fingerprint::hash;
use super::fit::lowered;
use super::split::Lengths;
use super::time::Clock;
use super::{Plan, Stage, choice};
use crate::base::{Diag, Diags};
use crate::library::stage::job::{Fit, Routine, Update};
use crate::library::stage::sharing::Traffic;
use crate::program::device::Device;
use crate::program::op::Machine;
use crate::program::rates::Rates;
use crate::program::{Class, Verified};

/// The part of a fingerprint that holds the number of ranks, where there are several.
pub const PART: &str = "ranks";

/// Most ranks that are looked at for the number that pays.
const MOST: u64 = 1024;

/// What lies between ranks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wire {
    /// Bytes a second that a rank sends while it gets as many.
    pub bandwidth: f64,
    /// Seconds that a message takes beside its bytes.
    pub latency: f64,
}

impl Wire {
    /// The time of what a rank sends.
    #[must_use]
    pub fn seconds(&self, traffic: Traffic) -> f64 {
        traffic.bytes as f64 / self.bandwidth + traffic.messages as f64 * self.latency
    }
}

/// A shared training's mean step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shared {
    /// Ranks.
    pub ranks: u64,
    /// Seconds of a rank's arithmetic.
    pub computes: f64,
    /// Seconds in which ranks send each other what they have.
    pub exchanges: f64,
}

impl Shared {
    /// Seconds of the step.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.computes + self.exchanges
    }
}

impl Plan {
    /// Shares each training among so many processes. Sums over ranks round in another order than one process' sums, so the
    /// number is part of a training's identity, and of those that come from it.
    pub fn divide(&mut self, ranks: u64, machine: &Machine, diags: &mut Diags) {
        if ranks <= 1 {
            return;
        }
        let mut renamed: BTreeMap<String, String> = BTreeMap::new();
        for stage in &mut self.stages {
            for value in stage.parts.values_mut() {
                if let Some(new) = renamed.get(value) {
                    value.clone_from(new);
                }
            }
            if let Routine::Fit(_) = &stage.job.routine {
                if let Err(why) = share(stage, ranks, machine) {
                    let message = format!(
                        "`{}` cannot be shared among {ranks} ranks: {why}",
                        stage.name.value
                    );
                    let diag = Diag::error(&NOT_SHARED, stage.name.span, message);
                    diags.push(diag.help("run it without `--ranks`, in one process"));
                    continue;
                }
                stage.parts.insert(PART.to_owned(), ranks.to_string());
            }
            if let Some(before) = stage.fingerprint.take() {
                let after = hash(&stage.parts);
                stage.fingerprint = Some(after.clone());
                renamed.insert(before, after);
            }
        }
    }
}

/// Plans a training again for so many ranks, or says why it cannot be shared.
fn share(stage: &mut Stage, ranks: u64, machine: &Machine) -> Result<(), String> {
    if machine.device != Device::Cpu {
        return Err("ranks on GPUs are not built, only on processors (`--device cpu`)".to_owned());
    }
    if stage.start.task.compares_rows() {
        return Err(
            "its loss compares the rows of a batch with each other, and each process has some of them".to_owned(),
        );
    }
    stage.ranks = ranks;
    let again = lowered(stage, stage.filled.values.clone(), machine);
    let again = again.ok_or("it cannot be made of micro-batches")?;
    if let Routine::Fit(fit) = &again.job.routine {
        is_shareable(fit)?;
    }
    (stage.job, stage.not_kept, stage.estimate) = (again.job, again.not_kept, again.estimate);
    Ok(())
}

/// Whether all that a rank's examples change are gradients, which are summed over ranks.
///
/// # Errors
/// What else they change.
fn is_shareable(fit: &Fit) -> Result<(), String> {
    if fit.select.is_some() {
        let why = "where its updates are changes by gradients that each process has of its own examples alone";
        return Err(why.to_owned());
    }
    let phases = fit.phases.iter().map(|(_, update)| update);
    for update in phases.chain([&fit.update]) {
        let reads = match update {
            Update::Whole(_) => return Err("its step is one program".to_owned()),
            Update::Split { accumulate, .. } => accumulate,
            Update::Zeroth { loss, .. } => loss,
        };
        if let Some(name) = changes(reads) {
            return Err(format!(
                "each process' examples change `{name}`, and only gradients are summed over processes"
            ));
        }
    }
    Ok(())
}

/// A tensor that a program over examples changes beside gradients.
fn changes(verified: &Verified) -> Option<&str> {
    let program = verified.program();
    let mut written = program.nodes.iter().flat_map(|node| {
        let updates = node.op.rule().updates().iter();
        updates.filter_map(|&i| program.resident(*node.inputs.get(i)?))
    });
    let other = written.find(|resident| resident.class != Class::Gradient)?;
    Some(&other.name)
}

impl Stage {
    /// Whether it makes steps.
    #[must_use]
    pub const fn trains(&self) -> bool {
        matches!(self.job.routine, Routine::Fit(_))
    }

    /// What the same training among other numbers of ranks is called in the store, each with its number. None where it is no
    /// training, or has no fingerprint.
    #[must_use]
    pub fn among_others(&self) -> Vec<(u64, String)> {
        if !self.trains() || self.fingerprint.is_none() {
            return Vec::new();
        }
        let counts = (1..=MOST).filter(|n| *n != self.ranks);
        counts.map(|n| (n, self.print_among(n))).collect()
    }

    /// Its fingerprint among so many ranks.
    fn print_among(&self, ranks: u64) -> String {
        let mut parts = self.parts.clone();
        match ranks {
            1 => {
                parts.shift_remove(PART);
            }
            n => {
                parts.insert(PART.to_owned(), n.to_string());
            }
        }
        hash(&parts)
    }

    /// What a rank sends in a step of its last phase; nothing where it is no training.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        match &self.job.routine {
            Routine::Fit(fit) => fit.update.traffic(fit.ranks),
            _ => Traffic::default(),
        }
    }

    /// A mean step shared among each number of ranks from 1 on, doubled up to the rows of a batch, and the stage's own; in order.
    /// Nothing where it is no shared training, or nothing tells its time.
    #[must_use]
    pub fn scaling(&self, wire: Wire, rates: &Rates, machine: &Machine) -> Vec<Shared> {
        let Routine::Fit(fit) = &self.job.routine else {
            return Vec::new();
        };
        if self.steps_unknown() {
            return Vec::new();
        }
        let lengths = choice::lengths(&self.splits);
        let Some(lengths) = lengths.first().copied().flatten() else {
            return Vec::new();
        };
        let rows = fit.batch.div_ceil(fit.group.max(1));
        let doubled = std::iter::successors(Some(1), |n| Some(2 * n));
        let mut counts: Vec<u64> = doubled.take_while(|n| *n <= rows.min(MOST)).collect();
        counts.push(fit.ranks);
        counts.sort_unstable();
        counts.dedup();
        let clock = Clock { rates, machine };
        let step = |ranks: u64| Shared {
            ranks,
            computes: step_seconds(&clock, fit, ranks, lengths),
            exchanges: wire.seconds(fit.update.traffic(ranks)),
        };
        counts.into_iter().map(step).collect()
    }
}

/// Seconds of the arithmetic of a rank in a mean step of so many ranks.
fn step_seconds(clock: &Clock<'_>, fit: &Fit, ranks: u64, lengths: &Lengths) -> f64 {
    let sizes = sizes_among(fit, lengths, ranks);
    clock.steps((fit, ranks), &sizes) / fit.steps.max(1) as f64
}

/// The number of ranks from which on a step takes no less time.
#[must_use]
pub fn pays_up_to(steps: &[Shared]) -> Option<u64> {
    let faster = |best: &Shared, next: &Shared| next.seconds() < best.seconds();
    let mut all = steps.iter();
    let first = all.next()?;
    let best = all.fold(
        first,
        |best, next| if faster(best, next) { next } else { best },
    );
    Some(best.ranks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_ranks_stop_paying_where_messages_take_what_arithmetic_saves() {
        let wire = Wire {
            bandwidth: 1e9,
            latency: 1e-4,
        };
        let step = |ranks: u64| Shared {
            ranks,
            computes: 0.1 / ranks as f64,
            exchanges: wire.seconds(Traffic {
                bytes: 1_000_000,
                messages: 2 * (ranks - 1),
            }),
        };
        let steps: Vec<Shared> = [1, 2, 4, 8, 16, 32, 64].map(step).into();
        assert!((steps[1].seconds() - (0.05 + 0.001 + 0.0002)).abs() < 1e-12);
        // 16 ranks: 6.25 + 1 + 3 ms; 32 ranks: 3.1 + 1 + 6.2 ms.
        assert_eq!(pays_up_to(&steps), Some(16));
        assert_eq!(pays_up_to(&[]), None);
    }
}
