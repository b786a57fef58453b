//! The time a stage will take: its programs' runs under the sizes they will have, by a machine's rates or
//! by a card's data sheet.

use super::Stage;
use super::choice;
use super::estimate::{evaluation_sizes, every_size, training_sizes};
use super::features::fill_sizes;
use super::split::Lengths;
use crate::library::stage::job::{Fit, Generate, Job, Routine, Update};
use crate::program::device::Device;
use crate::program::op::Machine;
use crate::program::rates::Rates;
use crate::program::{Bindings, Program, Sym, Verified};

/// Runs are timed at so many sizes from the smallest to the largest.
const SAMPLES: usize = 16;

/// What a time is derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateSource {
    /// What earlier runs measured.
    Measured,
    /// What a usual processor does.
    Usual,
    /// A card's data sheet.
    DataSheet,
}

impl RateSource {
    /// What the times of a plan for a machine are derived from; `None` where nothing tells them.
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

impl Stage {
    /// Seconds of its arithmetic; `None` where its length depends on data that are not at hand, or
    /// where the card is not known. Reading, loading, writing and what a device leaves to the host are not
    /// in it.
    #[must_use]
    pub fn seconds(&self, rates: &Rates, machine: &Machine) -> Option<f64> {
        if self.steps_unknown() {
            return None;
        }
        RateSource::by(rates, machine)?;
        Clock { rates, machine }.job(&self.job, &choice::lengths(&self.splits))
    }
}

/// The same of a job by what is true of a machine before anything ran on it, so that what is chosen by it
/// stays chosen; the order of two jobs is right also where the number of their steps is not known.
pub(super) fn beforehand(job: &Job, splits: &[Option<&Lengths>], machine: &Machine) -> f64 {
    let rates = &Rates::default();
    Clock { rates, machine }.job(job, splits).unwrap_or(0.0)
}

/// Times programs.
pub(super) struct Clock<'a> {
    pub(super) rates: &'a Rates,
    pub(super) machine: &'a Machine,
}

impl Clock<'_> {
    /// One run of a program.
    fn run(&self, program: &Program, sizes: &Bindings) -> f64 {
        match self.machine.device.card() {
            Some(card) => card.time(program, sizes),
            None => self.rates.time(program, sizes, self.machine.threads),
        }
    }

    /// A run under each of some sizes.
    fn all(&self, verified: &Verified, sizes: &[Bindings]) -> f64 {
        let program = verified.program();
        let count = sizes.len() as f64;
        if self.machine.device.card().is_none() && self.rates.is_empty() {
            // Usual times are affine in the sizes, as the work is: their sum is that of the sums.
            let sum = Bindings(std::array::from_fn(|i| {
                sizes.iter().filter_map(|s| s.0.get(i)).sum()
            }));
            let none = self.run(program, &Bindings::default());
            return if sizes.is_empty() {
                0.0
            } else {
                self.run(program, &sum) + (count - 1.0) * none
            };
        }
        // Evenly from the smallest to the largest.
        let mut sorted: Vec<&Bindings> = sizes.iter().collect();
        sorted.sort_by_key(|s| s.get(Sym::Tokens));
        let samples = sorted.len().min(SAMPLES);
        let chosen =
            (0..samples).filter_map(|i| sorted.get((2 * i + 1) * sorted.len() / (2 * samples)));
        let sum: f64 = chosen.map(|s| self.run(program, s)).sum();
        sum * count / samples.max(1) as f64
    }

    fn job(&self, job: &Job, splits: &[Option<&Lengths>]) -> Option<f64> {
        let split = |i: usize| splits.get(i).copied().flatten();
        Some(match &job.routine {
            Routine::Fit(fit) => self.fit(fit, splits),
            Routine::Score(score) => {
                let of = |l| evaluation_sizes(l, score.batch, score.reads.as_ref());
                let scored = self.all(&score.evaluate, &split(0).map(of).unwrap_or_default());
                scored + score.generate.as_ref().map_or(0.0, |g| self.generation(g))
            }
            Routine::Choose(choose) => {
                self.all(&choose.evaluate, &every_size(splits, choose.batch))
            }
            Routine::Fold(_) => return None,
        })
    }

    /// All texts as long as they may become.
    fn generation(&self, generate: &Generate) -> f64 {
        let more = generate.settings.max_new_tokens.saturating_sub(1) as f64;
        let programs = &generate.programs;
        let sources = programs.sources.as_ref();
        sources.map_or(0.0, |program| self.all(program, &generate.sources()))
            + self.all(&programs.next, &generate.reading())
            + more * self.all(&programs.next, &generate.making())
            + more * self.all(&programs.copies, &generate.copying())
    }

    fn fit(&self, fit: &Fit, splits: &[Option<&Lengths>]) -> f64 {
        let split = |i: usize| splits.get(i).copied().flatten();
        let training = split(0).map(|l| training_sizes(fit, l)).unwrap_or_default();
        let mut sum = self.steps((fit, fit.ranks), &training);
        if let (Some(evaluate), Some(every), Some(dev)) =
            (&fit.evaluate, fit.evaluate_every, split(1))
        {
            let times = fit.steps.div_ceil(every.max(1)) as f64;
            let sizes = evaluation_sizes(dev, fit.batch, fit.dev_reads.as_ref());
            sum += times * self.all(evaluate, &sizes);
        }
        if let Some(features) = &fit.features {
            for (i, &examples) in features.examples.iter().enumerate() {
                let sizes = split(i).map(|l| fill_sizes(l, examples, features.together));
                sum += self.all(&features.prefix, &sizes.unwrap_or_default());
            }
            let missing = split(0).and_then(|l| l.count()).map_or(0.0, |n| {
                let kept = features.examples.first().copied().unwrap_or(0);
                1.0 - kept as f64 / n.max(1) as f64
            });
            if missing > 0.0 {
                sum += missing * self.all(&features.prefix, &training) / fit.ranks.max(1) as f64;
            }
        }
        sum
    }

    /// All steps of a training on a rank of so many, the one with most to do.
    pub(super) fn steps(&self, (fit, ranks): (&Fit, u64), sizes: &[Bindings]) -> f64 {
        let none = vec![Bindings::default(); 1];
        let steps = fit.steps.max(1);
        let runs = steps as f64 * fit.runs(ranks) as f64;
        // The sizes of very long trainings are those of a part of it; ranks work on theirs at the same time.
        let whole = runs / sizes.len().max(1) as f64 * fit.imbalance(ranks) / ranks.max(1) as f64;
        match &fit.update {
            Update::Whole(step) => whole * self.all(step, sizes),
            Update::Split { accumulate, apply } => {
                whole * self.all(accumulate, sizes) + steps as f64 * self.all(apply, &none)
            }
            Update::Zeroth {
                loss,
                perturb,
                samples,
                ..
            } => {
                let samples = *samples as f64;
                2.0 * samples * whole * self.all(loss, sizes)
                    + (3.0 * samples + 1.0) * steps as f64 * self.all(perturb, &none)
            }
        }
    }
}
