//! One optimizer step: the runs of its micro-batches, and what they come to.

use super::super::zeroth;
use super::{Context, share};
use crate::exec::interpreter::{Outputs, Runner};
use crate::files::RunError;
use crate::library::counts::to_u32;
use crate::library::data::tokens::Target;
use crate::library::stage::job::{Fit, Update};
use crate::library::task::ReadDraw;
use crate::program::op::Tensor;
use crate::program::{Bindings, Feed, Verified};

/// What a step came to.
#[derive(Default)]
pub(super) struct Stepped {
    /// Mean loss of the batch.
    pub loss: f64,
    /// Norm of the gradient, or of the projected gradients.
    pub norm: f64,
    /// The projected gradient of each direction, where there is no other.
    pub projected: Vec<f32>,
}

/// A step that was started.
pub(super) struct Begun {
    /// Its learning rate.
    pub lr: f64,
    /// Examples of its batch.
    pub examples: u64,
    /// What its runs hand back, the one with the gradient's norm last.
    runs: Vec<Outputs>,
    /// The loss of all ranks' micro-batches, where there are several ranks.
    summed: Option<f64>,
    /// What it came to, where that is known.
    done: Option<Stepped>,
}

impl Begun {
    /// Waits for what it comes to.
    pub(super) fn observe(mut self, runner: &mut Runner) -> Result<Stepped, RunError> {
        if let Some(done) = self.done {
            return Ok(done);
        }
        runner.observe(&mut self.runs)?;
        let norm = self.runs.last().and_then(|run| run.scalar("grad_norm"));
        let losses = self.runs.iter().filter_map(|run| run.scalar("loss"));
        let losses = self.summed.into_iter().chain(losses.map(f64::from));
        let loss = losses.reduce(|sum, loss| sum + loss);
        let (Some(loss), Some(norm)) = (loss, norm) else {
            return Err(missing());
        };
        Ok(Stepped {
            loss,
            norm: f64::from(norm),
            projected: Vec::new(),
        })
    }
}

fn missing() -> RunError {
    RunError::bug("a step gave no loss or no gradient norm")
}

/// The sum of the runs' losses.
fn losses(runs: &[Outputs]) -> Result<f64, RunError> {
    let each = runs.iter().map(|run| run.scalar("loss").map(f64::from));
    each.sum::<Option<f64>>().ok_or_else(missing)
}

/// A step to be made.
pub(super) struct Step<'a> {
    fit: &'a Fit,
    cx: &'a Context<'a>,
    batch: &'a [u32],
    step: u64,
    lr: f64,
    /// Factor of each term of the loss.
    scale: f32,
    reads: Option<ReadDraw<'a>>,
}

impl<'a> Step<'a> {
    /// The step after so many, on a batch of examples.
    pub(super) fn new(fit: &'a Fit, cx: &'a Context<'a>, batch: &'a [u32], step: u64) -> Self {
        let reads = fit.reads.as_ref();
        let by_place = reads.filter(|_| cx.task.scores_places());
        // The loss is a mean over examples by their weights, or over the masked places, of all micro-batches together.
        let chosen = batch.iter();
        let terms = match by_place {
            Some(m) => {
                m.places(chosen.filter_map(|&i| Some((i, cx.train.set.length(i)? as usize)))) as f64
            }
            None => {
                let label = |i| cx.train.set.label(i).unwrap_or(Target::None);
                chosen.map(|&i| cx.task.weight_of(&label(i))).sum()
            }
        };
        Self {
            fit,
            cx,
            batch,
            step,
            lr: fit.rates.at(step),
            scale: 1.0 / if terms > 0.0 { terms as f32 } else { 1.0 },
            reads: reads.map(|m| m.epoch(fit.seed, step / fit.steps_per_epoch)),
        }
    }

    /// The scalars that a program reads.
    fn scalars(&self, verified: &Verified) -> Vec<(Feed, Tensor)> {
        let feeds = verified.program().feeds().map(|(f, _)| f);
        feeds
            .filter_map(|feed| match feed {
                Feed::LossScale => Some((feed, Tensor::new(vec![self.scale], &[1]))),
                Feed::ClassWeights { classes } => {
                    let weights = self.cx.task.class_weights().to_vec();
                    Some((feed, Tensor::new(weights, &[classes as usize])))
                }
                Feed::Step => Some((feed, Tensor::new(vec![to_u32(self.step)], &[1]))),
                Feed::Signal(signal) => {
                    let numbers = signal.at(self.step);
                    let dims = [numbers.len()];
                    Some((feed, Tensor::new(numbers, &dims)))
                }
                Feed::LearningRate => Some((feed, Tensor::new(vec![self.lr as f32], &[1]))),
                _ => None,
            })
            .collect()
    }

    /// Starts a program on examples.
    fn start(
        &self,
        runner: &mut Runner,
        verified: &Verified,
        indices: &[u32],
    ) -> Result<Outputs, RunError> {
        let train = self.cx.train;
        let mut packed = train.batch(runner, verified.program(), indices, self.reads)?;
        packed.feeds.extend(self.scalars(verified));
        runner.start(verified, packed.feeds, &packed.sizes)
    }

    /// The update in whose place candidates of places are chosen, in a step that does, and whether all its runs do.
    fn selecting(&self) -> Option<(&'a Update, bool)> {
        let selection = self.fit.selection.as_ref()?;
        let update = self.fit.select.as_ref()?;
        let own = (update, selection.rule.whole);
        selection.begins(self.step).then_some(own)
    }

    /// Starts a program on each micro-batch of this rank's share, and another one on the first.
    fn micro(
        &self,
        runner: &mut Runner,
        (first, others): (&Verified, &Verified),
    ) -> Result<Vec<Outputs>, RunError> {
        let share = self
            .fit
            .share(self.batch.len(), self.cx.ranks.rank() as u64);
        let own = self.batch.get(share).unwrap_or_default();
        let micros = own.chunks(self.fit.micro_batch.max(1) as usize);
        let runs = micros.enumerate().map(|(i, micro)| {
            let program = if i == 0 { first } else { others };
            self.start(runner, program, micro)
        });
        runs.collect()
    }

    /// Starts it; one of zeroth order, which has to see its losses, is done with it.
    pub(super) fn begin(&self, runner: &mut Runner) -> Result<Begun, RunError> {
        let (mut runs, mut done, mut summed) = (Vec::new(), None, None);
        let ranks = self.cx.ranks;
        let (update, all) = self
            .selecting()
            .unwrap_or((self.fit.update_at(self.step), true));
        match update {
            Update::Whole(_) if ranks.count() > 1 => {
                return Err(RunError::bug("a step of one program among several ranks"));
            }
            Update::Whole(program) => {
                runs.push(self.start(runner, program, self.batch)?);
            }
            Update::Split { accumulate, apply } => {
                let others = match &self.fit.update {
                    Update::Split { accumulate, .. } if !all => accumulate,
                    _ => accumulate,
                };
                runs = self.micro(runner, (accumulate, others))?;
                if ranks.count() > 1 {
                    runner.observe(&mut runs)?;
                    share::sum(runner, ranks, apply)?;
                    summed = Some(ranks.add(losses(&runs)?)?);
                    runs.clear();
                }
                runs.push(runner.start(apply, self.scalars(apply), &Bindings::default())?);
            }
            Update::Zeroth {
                loss,
                perturb,
                epsilon,
                samples,
            } => done = Some(self.zeroth(runner, (loss, perturb), *epsilon, *samples)?),
        }
        Ok(Begun {
            lr: self.lr,
            examples: self.batch.len() as u64 / self.fit.group.max(1),
            runs,
            summed,
            done,
        })
    }

    /// Makes a step of zeroth order: the loss on both sides of the weights along each direction, and the update by
    /// their difference.
    fn zeroth(
        &self,
        runner: &mut Runner,
        (loss, perturb): (&Verified, &Verified),
        epsilon: f64,
        samples: u64,
    ) -> Result<Stepped, RunError> {
        let mut stepped = Stepped::default();
        let ranks = self.cx.ranks;
        for sample in 0..samples {
            let at = (self.step, sample);
            zeroth::shift(runner, perturb, at, epsilon)?;
            let mut runs = self.micro(runner, (loss, loss))?;
            let half = runs.len();
            zeroth::shift(runner, perturb, at, -2.0 * epsilon)?;
            runs.extend(self.micro(runner, (loss, loss))?);
            runner.observe(&mut runs)?;
            let (above, below) = runs.split_at_checked(half).ok_or_else(missing)?;
            let (above, below) = (losses(above)?, losses(below)?);
            // One number a direction tells all ranks how far to go along it.
            let apart = ranks.add(above - below)?;
            let projected = (apart / (2.0 * epsilon)) as f32;
            if samples > 1 {
                zeroth::shift(runner, perturb, at, epsilon)?;
            }
            stepped.loss += 0.5 * (above + below) / samples as f64;
            stepped.norm += f64::from(projected) * f64::from(projected);
            stepped.projected.push(projected);
        }
        stepped.norm = stepped.norm.sqrt();
        stepped.loss = ranks.add(stepped.loss)?;
        if stepped.norm.is_finite() {
            let (step, lr) = (self.step, self.lr);
            zeroth::update(runner, perturb, step, lr, epsilon, &stepped.projected)?;
        }
        Ok(stepped)
    }
}
