//! The time a stage will take: its programs' runs under the sizes they will have, by a machine's rates or
//! by a card's data sheet.

use super::Stage;
use super::choice;
use super::estimate::{evaluation_sizes, every_size, training_sizes};
use super::features::fill_sizes;
use crate::library::stage::job::{Fit, Routine, Update};
use crate::program::device::Device;
use crate::program::op::Machine;
use crate::program::rates::Rates;
use crate::program::{Bindings, Program, Verified};

/// Runs are timed at so many sizes spread over all.
const SAMPLES: usize = 8;

/// What a time is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// What earlier runs measured.
    Measured,
    /// What a usual processor does.
    Usual,
    /// A card's data sheet.
    DataSheet,
}

impl Told {
    /// What the times of a plan for a machine are told by; `None` where nothing tells them.
    #[must_use]
    pub fn by(rates: &Rates, machine: &Machine) -> Option<Self> {
        match machine.device {
            Device::Cpu if rates.is_empty() => Some(Self::Usual),
            Device::Cpu => Some(Self::Measured),
            Device::Cuda(card) => card.map(|_| Self::DataSheet),
        }
    }

    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Usual => "usual_processor",
            Self::DataSheet => "data_sheet",
        }
    }
}

/// Seconds of a stage's arithmetic; `None` where its length depends on data that are not at hand, or
/// where the card is not known. Reading, loading, writing and what a device leaves to the host are not
/// in it.
#[must_use]
pub fn seconds(stage: &Stage, rates: &Rates, machine: &Machine) -> Option<f64> {
    if stage.steps_unknown() {
        return None;
    }
    Told::by(rates, machine)?;
    let run = |program: &Program, sizes: &Bindings| match machine.device.card() {
        Some(card) => card.time(program, sizes),
        None => rates.time(program, sizes, machine.threads),
    };
    let splits = choice::lengths(&stage.splits);
    let split = |i: usize| splits.get(i).copied().flatten();
    let all = |verified: &Verified, sizes: &[Bindings]| -> f64 {
        let every = sizes.len().div_ceil(SAMPLES).max(1);
        let chosen: Vec<&Bindings> = sizes.iter().step_by(every).collect();
        let sum: f64 = chosen.iter().map(|s| run(verified.program(), s)).sum();
        sum * sizes.len() as f64 / chosen.len().max(1) as f64
    };
    Some(match &stage.job.routine {
        Routine::Fit(fit) => {
            let mut sum = steps(
                fit,
                &split(0).map(|l| training_sizes(fit, l)).unwrap_or_default(),
                &all,
            );
            if let (Some(evaluate), Some(every), Some(dev)) =
                (&fit.evaluate, fit.evaluate_every, split(1))
            {
                let times = fit.steps.div_ceil(every.max(1)) as f64;
                let sizes = evaluation_sizes(dev, fit.batch, fit.dev_masking.as_ref());
                sum += times * all(evaluate, &sizes);
            }
            if let Some(features) = &fit.features {
                for (i, &examples) in features.examples.iter().enumerate() {
                    let sizes = split(i).map(|l| fill_sizes(l, examples));
                    sum += all(&features.prefix, &sizes.unwrap_or_default());
                }
                let missing = split(0).and_then(|l| l.count()).map_or(0.0, |n| {
                    let kept = features.examples.first().copied().unwrap_or(0);
                    1.0 - kept as f64 / n.max(1) as f64
                });
                if missing > 0.0 {
                    let sizes = split(0).map(|l| training_sizes(fit, l)).unwrap_or_default();
                    sum += missing * all(&features.prefix, &sizes);
                }
            }
            sum
        }
        Routine::Score(score) => {
            let sizes = split(0).map(|l| evaluation_sizes(l, score.batch, score.masking.as_ref()));
            all(&score.evaluate, &sizes.unwrap_or_default())
        }
        Routine::Choose(choose) => all(&choose.evaluate, &every_size(&splits, choose.batch)),
        Routine::Fold(_) => return None,
    })
}

/// Seconds of all steps of a training.
fn steps(fit: &Fit, sizes: &[Bindings], all: &dyn Fn(&Verified, &[Bindings]) -> f64) -> f64 {
    let none = vec![Bindings::default(); 1];
    let runs = fit.steps * fit.batch.div_ceil(fit.micro_batch.max(1));
    // The sizes of very long trainings are those of a part of it.
    let whole = runs as f64 / sizes.len().max(1) as f64;
    match &fit.update {
        Update::Whole(step) => whole * all(step, sizes),
        Update::Split { accumulate, apply } => {
            whole * all(accumulate, sizes) + fit.steps as f64 * all(apply, &none)
        }
        Update::Zeroth {
            loss,
            perturb,
            samples,
            ..
        } => {
            let samples = *samples as f64;
            2.0 * samples * whole * all(loss, sizes)
                + (3.0 * samples + 1.0) * fit.steps as f64 * all(perturb, &none)
        }
    }
}
