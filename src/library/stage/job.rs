//! What a stage asks of the executor.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::combine::Combination;
use super::super::data::batch::order;
use super::super::export::Target;
use super::super::generate::{Settings, prefill, rereads, whole};
use super::super::metric::Metric;
use super::super::net::{Owner, Param, Site};
use super::super::schedule::Rates;
use super::super::task::Reads;
use super::activations::Activations;
use super::fisher::Fisher;
pub use super::kept::{Features, kept_as};
use super::network::Generators;
use super::packing::Packing;
use super::prefill::Prefill;
use super::reference::Reference;
use super::select::Selection;
use crate::library::counts::to_u32;
use crate::program::{Bindings, Class, Program, Verified};

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
    Score(Box<Score>),
    /// Walk over a split once a template, scoring words.
    Choose(Choose),
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

impl Update {
    /// Its programs, the one that reads examples first.
    #[must_use]
    pub fn programs(&self) -> Vec<&Verified> {
        match self {
            Self::Whole(step) => vec![step],
            Self::Split { accumulate, apply } => vec![accumulate, apply],
            Self::Zeroth { loss, perturb, .. } => vec![loss, perturb],
        }
    }
}

/// Training.
#[derive(Debug)]
pub struct Fit {
    /// A step.
    pub update: Update,
    /// Kept features that the programs read; `None` where they compute everything themselves.
    pub features: Option<Features>,
    /// Scores on a batch, for evaluation during training.
    pub evaluate: Option<Verified>,
    /// What is measured before the first step.
    pub fisher: Option<Fisher>,
    /// What is read of the backbone before the first step.
    pub activations: Option<Activations>,
    /// The text that is read before the first step.
    pub prefill: Option<Prefill>,
    /// The updates of phases in which less is trained, each with the step that it begins at; then comes `update`.
    pub phases: Vec<(u64, Update)>,
    /// The step at which the last phase begins.
    pub last_phase: u64,
    /// How places change while training.
    pub selection: Option<Selection>,
    /// The step in which candidates of places are chosen.
    pub select: Option<Update>,
    /// What is computed of every text before the first step.
    pub reference: Option<Reference>,
    /// Learning rates.
    pub rates: Rates,
    /// Sequences of a row, which are in one micro-batch: they follow each other in the split, and all counts of examples here are of
    /// sequences.
    pub group: u64,
    /// Examples of an optimizer step; where its tokens are bounded, on the average.
    pub batch: u64,
    /// How epochs are cut into batches whose tokens are bounded.
    pub packing: Option<Packing>,
    /// Examples of a program run.
    pub micro_batch: u64,
    /// Processes that each step's examples are shared among.
    pub ranks: u64,
    /// Optimizer steps.
    pub steps: u64,
    /// Steps of one walk over the data.
    pub steps_per_epoch: u64,
    /// Seed of shuffling, dropout and initialisation.
    pub seed: u64,
    /// Whether the order changes from epoch to epoch.
    pub shuffle: bool,
    /// Which places of the training texts are read, where those are any number of tokens.
    pub reads: Option<Reads>,
    /// The same of the texts it evaluates on.
    pub dev_reads: Option<Reads>,
    /// Steps between evaluations.
    pub evaluate_every: Option<u64>,
    /// Metrics of the evaluations.
    pub metrics: Vec<&'static dyn Metric>,
    /// The class that `f1` is of.
    pub positive: u32,
    /// The metric that chooses the best checkpoint; the last state is kept if there is none.
    pub best: Option<&'static dyn Metric>,
    /// Evaluations without improvement after which training stops.
    pub patience: Option<u64>,
}

impl Fit {
    /// How a step runs.
    #[must_use]
    pub fn update_at(&self, step: u64) -> &Update {
        if step >= self.last_phase {
            return &self.update;
        }
        let mut begun = self.phases.iter().rev();
        let own = begun.find(|(begins, _)| *begins <= step);
        own.map_or(&self.update, |(_, update)| update)
    }

    /// The order in which an epoch walks over so many sequences: those of a row follow each other.
    #[must_use]
    pub fn order(&self, sequences: usize, epoch: u64) -> Vec<u32> {
        let group = to_u32(self.group.max(1));
        let rows = order(sequences / group as usize, self.seed, epoch, self.shuffle);
        let all = rows.into_iter();
        all.flat_map(|row| (0..group).map(move |i| row * group + i))
            .collect()
    }

    /// The batches of an epoch in this order: ranges of it.
    #[must_use]
    pub fn batches(&self, order: &[u32], length: &dyn Fn(u32) -> u64) -> Vec<Range<usize>> {
        if let Some(packing) = &self.packing {
            let group = self.group.max(1) as usize;
            let firsts: Vec<u32> = order.iter().copied().step_by(group).collect();
            let of_row = |first: u32| (0..to_u32(group)).map(|i| length(first + i)).sum();
            let rows = packing.cut(&firsts, &of_row).into_iter();
            return rows.map(|r| r.start * group..r.end * group).collect();
        }
        let size = self.batch.max(1) as usize;
        let begins = (0..order.len()).step_by(size);
        begins.map(|at| at..(at + size).min(order.len())).collect()
    }
}

/// Evaluation.
#[derive(Debug)]
pub struct Score {
    /// Scores, and the summed loss where there are labels.
    pub evaluate: Verified,
    /// Which places of the texts are read, where those are any number of tokens.
    pub reads: Option<Reads>,
    /// What is computed of every text beforehand.
    pub reference: Option<Reference>,
    /// Sequences of a row.
    pub group: u64,
    /// Draws of demonstrations, each a row an example; their scores are averaged.
    pub draws: u64,
    /// Examples of a program run.
    pub batch: u64,
    /// Metrics.
    pub metrics: Vec<&'static dyn Metric>,
    /// The class that `f1` is of.
    pub positive: u32,
    /// What is generated behind the prompts of the split.
    pub generate: Option<Generate>,
}

/// Generation behind the prompts of a split, in groups in the order of the data.
#[derive(Debug)]
pub struct Generate {
    /// The logits behind the tokens that are read, and what goes with them.
    pub programs: Generators,
    /// How text is generated.
    pub settings: Settings,
    /// Texts at once.
    pub places: u64,
    /// Tokens that the caches have room for, of each text.
    pub capacity: u64,
    /// Tokens that there is room for of each source; 0 where texts are made of none.
    pub source: u64,
    /// Tokens of each prompt, or source, as far as they are known.
    pub prompts: Arc<Vec<u32>>,
    /// Texts that come to have so many tokens are read again.
    pub again: Vec<u32>,
}

impl Generate {
    /// Bytes of its caches.
    #[must_use]
    pub fn cache_bytes(&self) -> u64 {
        let residents = self.programs.next.program().residents.iter();
        let caches = residents.filter(|r| r.class == Class::Cache);
        caches.map(|r| r.ty.bytes(&Bindings::default())).sum()
    }

    /// The sizes of the runs that read sources.
    #[must_use]
    pub fn sources(&self) -> Vec<Bindings> {
        if self.source == 0 {
            return Vec::new();
        }
        let groups = self.prompts.chunks(self.places.max(1) as usize);
        let of_group = |group: &[u32]| -> Vec<Bindings> {
            let lengths: Vec<usize> = group.iter().map(|&n| n as usize).collect();
            let runs = whole(&lengths).into_iter();
            runs.map(|run| Bindings::of_pairs(run.iter().map(|(_, length)| [*length, 0])))
                .collect()
        };
        groups.flat_map(of_group).collect()
    }

    /// The sizes of the runs that copy caches: of each group the largest.
    #[must_use]
    pub fn copying(&self) -> Vec<Bindings> {
        let more = self.settings.beams.count.saturating_sub(1) as usize;
        let groups = self.prompts.chunks(self.places.max(1) as usize);
        let counts = groups.map(|group| group.len() * more).filter(|n| *n > 0);
        counts
            .map(|n| Bindings::of_lengths(std::iter::repeat_n(0, n)))
            .collect()
    }

    /// The sizes of the runs that read prompts.
    #[must_use]
    pub fn reading(&self) -> Vec<Bindings> {
        if self.source > 0 {
            // Of a target the token that it begins with is there.
            let groups = self.prompts.chunks(self.places.max(1) as usize);
            let each =
                groups.map(|group| Bindings::of_lengths(std::iter::repeat_n(1, group.len())));
            return each.collect();
        }
        let groups = self.prompts.chunks(self.places.max(1) as usize);
        let of_group = |group: &[u32]| -> Vec<Bindings> {
            let lengths: Vec<usize> = group.iter().map(|&n| n as usize).collect();
            let most = self.settings.max_new_tokens;
            let again = self.again.iter();
            let again = again.flat_map(|&length| rereads(&lengths, length as usize, most));
            let runs = prefill(&lengths).into_iter().chain(again);
            runs.map(|run| Bindings::of_lengths(run.iter().map(|p| p.tokens.len())))
                .collect()
        };
        groups.flat_map(of_group).collect()
    }

    /// The sizes of the runs that make a token of each text of a group: one for each group, of which there are at most
    /// `max_new_tokens` less one.
    #[must_use]
    pub fn making(&self) -> Vec<Bindings> {
        let groups = self.prompts.chunks(self.places.max(1) as usize);
        let beams = self.settings.beams.count as usize;
        groups
            .map(|group| Bindings::of_lengths(std::iter::repeat_n(1, group.len() * beams)))
            .collect()
    }
}

/// Choosing a prompt: each template is scored once, each assignment of words from those scores.
#[derive(Debug)]
pub struct Choose {
    /// Scores `[S, words]` of all listed words, in the order of
    /// [`tokens`](crate::library::candidates::Candidates::tokens).
    pub evaluate: Verified,
    /// Examples of a program run.
    pub batch: u64,
    /// What the best is best by.
    pub metric: &'static dyn Metric,
    /// The class that `f1` is of.
    pub positive: u32,
}

/// Adapters of peft's that are made one.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Their folders.
    pub folders: Vec<PathBuf>,
    /// A weight for each.
    pub weights: Vec<f64>,
    /// How.
    pub how: Combination,
}

/// Merging.
#[derive(Debug)]
pub struct Fold {
    /// For each adapted site, the program whose output `folded` is the plain weight.
    pub sites: Vec<(Site, Verified)>,
    /// The same of biases, where methods move them.
    pub biases: Vec<(Site, Verified)>,
    /// What is written.
    pub target: Target,
    /// Adapters in files that are made one, instead of what is on the sites.
    pub mix: Option<Mix>,
    /// Directory, or file, to copy it to as well.
    pub to: Option<PathBuf>,
    /// Whether it is written although rounding loses what was learned.
    pub force: bool,
}

impl Job {
    /// The parameters of a plain model, adapters folded in: those with a name of the model's own.
    #[must_use]
    pub fn plain_params(&self) -> Vec<Param> {
        let own = self.params.iter().filter(|p| p.in_files());
        let mut params: Vec<Param> = own.cloned().collect();
        for site in &self.sites {
            let name = format!("{}.weight", site.path);
            if !params.iter().any(|p| p.name == name) {
                let is_instead = |p: &&Param| p.replaces.as_ref() == Some(&name);
                if let Some(instead) = self.params.iter().find(is_instead) {
                    let (owner, shape) = (Owner::Base, instead.shape.clone());
                    params.push(Param {
                        name,
                        owner,
                        shape,
                        ..instead.clone()
                    });
                }
            }
        }
        params
    }

    /// The programs that run while the stage's residents are held, with what each is called.
    #[must_use]
    pub fn programs(&self) -> Vec<&Verified> {
        match &self.routine {
            Routine::Fit(fit) => {
                let mut list = fit.update.programs();
                list.extend(&fit.evaluate);
                list.extend(fit.select.iter().flat_map(Update::programs));
                let phases = fit.phases.iter();
                list.extend(phases.flat_map(|(_, update)| update.programs()));
                list.extend(fit.features.iter().map(|f| &f.prefix));
                list
            }
            Routine::Score(score) => {
                let generation = score.generate.iter().flat_map(|g| g.programs.all());
                std::iter::once(&score.evaluate).chain(generation).collect()
            }
            Routine::Choose(choose) => vec![&choose.evaluate],
            Routine::Fold(fold) => {
                let all = fold.sites.iter().chain(&fold.biases);
                all.map(|(_, p)| p).collect()
            }
        }
    }

    /// Kept results of the frozen part, if there are any.
    #[must_use]
    pub fn features(&self) -> Option<&Features> {
        match &self.routine {
            Routine::Fit(fit) => fit.features.as_ref(),
            Routine::Score(_) | Routine::Choose(_) | Routine::Fold(_) => None,
        }
    }

    /// The programs that run before all others, each with residents of its own.
    pub fn first(&self) -> impl Iterator<Item = &Verified> {
        let fit = match &self.routine {
            Routine::Fit(fit) => Some(fit),
            Routine::Score(_) | Routine::Choose(_) | Routine::Fold(_) => None,
        };
        let fisher = fit.and_then(|fit| Some(&fit.fisher.as_ref()?.program));
        let inputs = fit.and_then(|fit| Some(&fit.activations.as_ref()?.program));
        let text = fit.and_then(|fit| Some(&fit.prefill.as_ref()?.program));
        let reference = self.reference().map(|r| &r.features.prefix);
        let measured = fisher.into_iter().chain(inputs).chain(text);
        measured.chain(reference)
    }

    /// What is computed of every text beforehand, if something is.
    #[must_use]
    pub fn reference(&self) -> Option<&Reference> {
        match &self.routine {
            Routine::Fit(fit) => fit.reference.as_ref(),
            Routine::Score(score) => score.reference.as_ref(),
            Routine::Choose(_) | Routine::Fold(_) => None,
        }
    }

    /// Trained parameters by the factor of their learning rate, where that is not 1.
    #[must_use]
    pub fn rates(&self) -> Vec<(f64, u64)> {
        let mut rates: Vec<(f64, u64)> = Vec::new();
        let own = self.params.iter().filter(|p| p.trainable && p.rate != 1.0);
        for param in own {
            match rates.iter_mut().find(|(rate, _)| *rate == param.rate) {
                Some((_, count)) => *count += param.elements(),
                None => rates.push((param.rate, param.elements())),
            }
        }
        rates
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
        let numbers = self.params.iter().filter(|p| !p.places);
        let total = numbers.map(Param::elements).sum();
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
    reads: Option<&'a Reads>,
) -> impl Iterator<Item = Bindings> + 'a {
    order.chunks(batch.max(1) as usize).map(move |chunk| {
        let length = |&i: &u32| Some((i, *lengths.get(i as usize)? as usize));
        let chosen = || chunk.iter().filter_map(length);
        match reads {
            Some(reads) => reads.sizes(chosen()),
            None => Bindings::of_lengths(chosen().map(|(_, n)| n)),
        }
    })
}
