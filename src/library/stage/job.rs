//! What a stage asks of the executor.

use super::super::metric::Metric;
use super::super::params::Param;
use super::super::placement::Site;
use super::super::schedule::Rates;
use super::fisher::Fisher;
use crate::program::{Bindings, DType, Program, Verified};

/// A stage's work: the network's parameters, and what is done with them.
#[derive(Debug)]
pub struct Job {
    /// Parameters of the network, in order of declaration.
    pub params: Vec<Param>,
    /// Linear sites of the network.
    pub sites: Vec<Site>,
    /// What is done.
    pub routine: Routine,
}

/// What is done.
#[derive(Debug)]
pub enum Routine {
    /// Walk over a split in batches, updating.
    Fit(Box<Fit>),
    /// Walk over a split once, scoring.
    Score(Score),
    /// Fold adapters into weights, tensor by tensor.
    Fold(Fold),
}

/// How an optimizer step runs.
#[derive(Debug)]
pub enum Update {
    /// The whole batch at once: forward, backward, update in one program.
    Whole(Verified),
    /// Micro-batches add their gradients up, then an update is applied.
    Split {
        /// Forward and backward of a micro-batch, adding to the accumulators.
        accumulate: Verified,
        /// Clipping and update; zeroes the accumulators.
        apply: Verified,
    },
    /// No gradient: losses at random points around the weights.
    Zeroth {
        /// The loss of a (micro-)batch.
        loss: Verified,
        /// Moves every trained tensor along the step's direction, in place.
        perturb: Verified,
        /// Half the distance between the two points.
        epsilon: f64,
        /// Directions of a step.
        samples: u64,
    },
}

/// Training.
#[derive(Debug)]
pub struct Fit {
    /// A step.
    pub update: Update,
    /// Scores on a batch, for evaluation during training.
    pub evaluate: Option<Verified>,
    /// What is measured before the first step.
    pub fisher: Option<Fisher>,
    /// Learning rates.
    pub rates: Rates,
    /// Examples of an optimizer step.
    pub batch: u64,
    /// Examples of a program run.
    pub micro_batch: u64,
    /// Optimizer steps.
    pub steps: u64,
    /// Steps of one walk over the data.
    pub steps_per_epoch: u64,
    /// Seed of shuffling, dropout and initialisation.
    pub seed: u64,
    /// Whether the order changes from epoch to epoch.
    pub shuffle: bool,
    /// Steps between evaluations.
    pub evaluate_every: Option<u64>,
    /// Metrics of the evaluations.
    pub metrics: Vec<&'static dyn Metric>,
    /// The metric that chooses the best checkpoint; the last state is kept if there is none.
    pub best: Option<&'static dyn Metric>,
    /// Evaluations without improvement after which training stops.
    pub patience: Option<u64>,
}

/// Evaluation.
#[derive(Debug)]
pub struct Score {
    /// Scores, and the summed loss where there are labels.
    pub evaluate: Verified,
    /// Examples of a program run.
    pub batch: u64,
    /// Metrics.
    pub metrics: Vec<&'static dyn Metric>,
}

/// Merging.
#[derive(Debug)]
pub struct Fold {
    /// For each adapted site, the program whose output `weight` is the plain weight.
    pub sites: Vec<(Site, Verified)>,
    /// Type the merged model is written in.
    pub dtype: DType,
    /// Directory to copy the model to as well.
    pub to: Option<String>,
}

impl Job {
    /// The programs that run while the stage's residents are held, with what each is called.
    #[must_use]
    pub fn programs(&self) -> Vec<&Verified> {
        match &self.routine {
            Routine::Fit(fit) => {
                let mut list = match &fit.update {
                    Update::Whole(step) => vec![step],
                    Update::Split { accumulate, apply } => vec![accumulate, apply],
                    Update::Zeroth { loss, perturb, .. } => vec![loss, perturb],
                };
                list.extend(&fit.evaluate);
                list
            }
            Routine::Score(score) => vec![&score.evaluate],
            Routine::Fold(fold) => fold.sites.iter().map(|(_, p)| p).collect(),
        }
    }

    /// The program that runs before all others, with residents of its own.
    #[must_use]
    pub fn first(&self) -> Option<&Verified> {
        match &self.routine {
            Routine::Fit(fit) => fit.fisher.as_ref().map(|f| &f.program),
            Routine::Score(_) | Routine::Fold(_) => None,
        }
    }

    /// A program by name.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<&Program> {
        self.programs()
            .into_iter()
            .map(Verified::program)
            .find(|p| p.name == name)
    }

    /// Number of parameters, and of trained ones.
    #[must_use]
    pub fn parameters(&self) -> (u64, u64) {
        let total = self.params.iter().map(Param::elements).sum();
        let trained = self
            .params
            .iter()
            .filter(|p| p.trainable)
            .map(Param::elements)
            .sum();
        (total, trained)
    }
}

/// Sizes of the (micro-)batches of consecutive examples of these lengths.
pub fn batch_sizes<'a>(
    lengths: &'a [u32],
    order: &'a [u32],
    batch: u64,
) -> impl Iterator<Item = Bindings> + 'a {
    order.chunks(batch.max(1) as usize).map(move |chunk| {
        Bindings::of_lengths(
            chunk
                .iter()
                .filter_map(|&i| lengths.get(i as usize))
                .map(|&n| n as usize),
        )
    })
}
