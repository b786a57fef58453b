//! The training loop: batches in a keyed order, evaluation, best state, early stopping, checkpoints
//! that a killed run goes on from with the same bits.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::score::{Walk, metrics, stream};
use super::zeroth;
use crate::exec::checkpoint;
use crate::exec::checkpoint::log::Log;
use crate::exec::checkpoint::resume::{self, Point, Progress};
use crate::exec::features::Examples;
use crate::exec::interpreter::{Outputs, Runner};
use crate::exec::observe::{Event, Observer};
use crate::files::RunError;
use crate::library::data::batch::order;
use crate::library::data::tokens::Target;
use crate::library::stage::job::{Fit, Update};
use crate::library::task::Task;
use crate::program::op::Tensor;
use crate::program::{Bindings, Class, Feed, Verified};

/// What a training is run with beside its job.
#[derive(Debug)]
pub struct Context<'a> {
    /// The stage's name.
    pub stage: &'a str,
    /// The training split.
    pub train: Examples<'a>,
    /// The split to evaluate on.
    pub dev: Option<Examples<'a>>,
    /// What is learned.
    pub task: &'a dyn Task,
    /// Time spent before the first step on what belongs to the steps.
    pub spent: Duration,
    /// Directory of the stage's checkpoints.
    pub checkpoints: &'a Path,
    /// Time between checkpoints.
    pub every: Duration,
    /// Where to go on from.
    pub point: Option<&'a Point>,
    /// What to do to go on from a checkpoint.
    pub again: &'a str,
}

/// What a training came to.
#[derive(Clone, Debug, Default)]
pub struct Fitted {
    /// Loss of the first step.
    pub loss_first: f64,
    /// Loss of the last step.
    pub loss_last: f64,
    /// Steps done.
    pub steps: u64,
    /// Walks over the data begun.
    pub epochs: u64,
    /// Examples a second while training.
    pub samples_per_s: f64,
    /// Metrics of the state that is kept.
    pub metrics: Vec<(String, f64)>,
    /// The step whose state is kept, where the best is.
    pub kept_step: Option<u64>,
    /// Whether it ended before all steps were done, because nothing got better.
    pub stopped_early: bool,
}

/// Trains. Residents are loaded with their initial values; a checkpoint's replace them.
///
/// # Errors
/// Divergence, an interruption (after a checkpoint), or what the file system says.
pub fn fit(
    runner: &mut Runner,
    fit: &Fit,
    cx: &Context<'_>,
    log: &mut Log,
    observer: &mut dyn Observer,
) -> Result<Fitted, RunError> {
    let mut progress = match cx.point {
        Some(point) => {
            resume::restore(runner, &point.saved)?;
            point.progress.clone()
        }
        None => Progress::default(),
    };
    let lines = progress.lines();
    let unlogged = progress.unlogged.take();
    log.cut_to(lines)?;
    if progress.step > 0 {
        observer.event(Event::Resumed {
            name: cx.stage,
            step: progress.step,
            of: fit.steps,
        });
    }
    let mut training = Training {
        fit,
        cx,
        progress,
        log,
        clock: Clock {
            trained: cx.spent,
            since: Instant::now(),
            examples: 0,
        },
    };
    if let Some(line) = unlogged {
        training.close(runner, line, true, observer)?;
        training.clock.since = Instant::now();
    }
    let mut saved = Instant::now();
    let mut shuffled: Option<(u64, Vec<u32>)> = None;
    // On a device a step is observed once the next was started, so that the device always has work.
    let mut coming: Option<Begun> = None;
    let mut at = training.progress.step;
    while at < fit.steps && !training.progress.stopped {
        let (epoch, within) = (at / fit.steps_per_epoch, at % fit.steps_per_epoch);
        if shuffled.as_ref().is_none_or(|(e, _)| *e != epoch) {
            shuffled = Some((
                epoch,
                order(cx.train.set.len(), fit.seed, epoch, fit.shuffle),
            ));
        }
        let all = shuffled
            .as_ref()
            .map(|(_, o)| o.as_slice())
            .unwrap_or_default();
        let Some(batch) = all.chunks(fit.batch as usize).nth(within as usize) else {
            return Err(RunError::bug("an epoch has fewer batches than planned"));
        };
        runner.settle();
        let begun = match begin(runner, fit, cx, batch, at) {
            Err(RunError::Memory { what }) => {
                return Err(training.ran_out(runner, coming, what, observer)?);
            }
            begun => begun?,
        };
        at += 1;
        if let Some(before) = coming.replace(begun) {
            training.take(runner, before, false, observer)?;
        }
        let evaluated = fit
            .evaluate_every
            .is_some_and(|n| at.is_multiple_of(n) || at == fit.steps);
        let signal = observer.interrupted();
        let asked = observer.asked();
        let saves = signal.is_some() || asked || saved.elapsed() >= cx.every;
        let ends = evaluated || saves || at == fit.steps || !runner.runs_ahead();
        if let Some(last) = coming.take_if(|_| ends) {
            training.take(runner, last, evaluated, observer)?;
        }
        if saves {
            training.save(runner)?;
            saved = Instant::now();
        }
        if asked {
            observer.event(Event::Saved {
                step: training.progress.step,
            });
        }
        if let Some(signal) = signal {
            return Err(training.stopped(signal));
        }
        if coming.is_none() {
            training.clock.since = Instant::now();
        }
    }
    let Training {
        progress,
        log,
        clock,
        ..
    } = training;
    log.sync()?;
    runner.fetch()?;
    if progress.stopped && progress.step < fit.steps {
        observer.event(Event::Stopped {
            step: progress.step,
            of: fit.steps,
            patience: progress.stale,
        });
    }
    let mut metrics = progress.last_metrics;
    let mut kept_step = None;
    if let (Some(metric), Some(best)) = (fit.best, &progress.best) {
        resume::restore_best(runner, cx.checkpoints, best.step)?;
        metrics = progress.best_metrics;
        kept_step = Some(best.step);
        observer.event(Event::Best {
            step: best.step,
            metric: metric.schema().name,
            value: best.value,
        });
    }
    Ok(Fitted {
        loss_first: progress.loss_first,
        loss_last: progress.loss_last,
        steps: progress.step,
        epochs: progress.step.div_ceil(fit.steps_per_epoch),
        samples_per_s: clock.rate(),
        metrics,
        kept_step,
        stopped_early: progress.stopped && progress.step < fit.steps,
    })
}

/// A training on its way.
struct Training<'a> {
    fit: &'a Fit,
    cx: &'a Context<'a>,
    progress: Progress,
    log: &'a mut Log,
    clock: Clock,
}

impl Training<'_> {
    /// Keeps the steps that were done before a device had no memory left for the next, if that has changed
    /// nothing yet; gives the error that says so.
    fn ran_out(
        &mut self,
        runner: &mut Runner,
        coming: Option<Begun>,
        what: String,
        observer: &mut dyn Observer,
    ) -> Result<RunError, RunError> {
        if let Some(before) = coming {
            self.take(runner, before, false, observer)?;
        }
        if !runner.is_settled() {
            self.log.sync()?;
            return Ok(RunError::Memory { what });
        }
        self.save(runner)?;
        Ok(self.kept(&what))
    }

    /// Saves a checkpoint that knows the log as it is.
    fn save(&mut self, runner: &mut Runner) -> Result<(), RunError> {
        self.log.sync()?;
        self.progress.log = self.log.sum();
        save(runner, self.cx.checkpoints, &self.progress)
    }

    /// Takes up what a step came to: waits for it, notes it, and evaluates behind it if asked.
    fn take(
        &mut self,
        runner: &mut Runner,
        begun: Begun,
        evaluates: bool,
        observer: &mut dyn Observer,
    ) -> Result<(), RunError> {
        let (lr, examples) = (begun.lr, begun.examples);
        let Stepped {
            loss,
            norm,
            projected,
        } = begun.observe(runner)?;
        let (progress, clock) = (&mut self.progress, &mut self.clock);
        if !loss.is_finite() || !norm.is_finite() {
            return Err(RunError::Diverged {
                stage: self.cx.stage.to_owned(),
                step: progress.step + 1,
                loss,
            });
        }
        if progress.step == 0 {
            progress.loss_first = loss;
        }
        progress.loss_last = loss;
        progress.step += 1;
        clock.tick(examples);
        let epochs = progress.step as f64 / self.fit.steps_per_epoch as f64;
        let mut line = json!({
            "step": progress.step, "epoch": epochs, "loss": loss, "lr": lr, "grad_norm": norm,
            "samples_per_s": clock.rate(), "peak_bytes": runner.peak(),
        });
        if !projected.is_empty() {
            line["projected_grad"] = json!(projected);
        }
        observer.event(Event::Step {
            step: progress.step,
            loss,
            samples_per_s: clock.rate(),
            peak: runner.peak(),
        });
        self.close(runner, line, evaluates, observer)
    }

    /// Evaluates behind the last step if asked, and logs its line with what that gave. Where the evaluation is
    /// ended, a checkpoint keeps the step and the line.
    fn close(
        &mut self,
        runner: &mut Runner,
        mut line: Json,
        evaluates: bool,
        observer: &mut dyn Observer,
    ) -> Result<(), RunError> {
        if !evaluates {
            return self.log.line(&line);
        }
        let (fit, cx) = (self.fit, self.cx);
        match evaluate(runner, fit, cx, &mut self.progress, observer) {
            Err(error @ (RunError::Interrupted { .. } | RunError::Memory { .. })) => {
                self.progress.unlogged = Some(line);
                self.save(runner)?;
                return Err(match error {
                    RunError::Memory { what } => self.kept(&what),
                    RunError::Interrupted { signal, .. } => self.stopped(signal),
                    other => other,
                });
            }
            result => result?,
        }
        let metrics = &self.progress.last_metrics;
        if !metrics.is_empty() {
            let dev: serde_json::Map<String, Json> = metrics
                .iter()
                .map(|(name, value)| (name.clone(), json!(value)))
                .collect();
            line["dev"] = Json::Object(dev);
        }
        self.log.line(&line)
    }

    /// The error of a signal, where the steps done are in a checkpoint.
    fn stopped(&self, signal: i32) -> RunError {
        let (step, of, stage) = (self.progress.step, self.fit.steps, self.cx.stage);
        RunError::Interrupted {
            signal,
            left: format!(
                "checkpoint at step {step} of {of} of `{stage}` kept; {}",
                self.cx.again
            ),
        }
    }

    /// The error of a device without memory, where the steps done are in a checkpoint.
    fn kept(&self, what: &str) -> RunError {
        let step = self.progress.step;
        RunError::Memory {
            what: format!("{what}; the {step} steps done are kept in a checkpoint"),
        }
    }
}

/// Time spent on steps, and on nothing else.
struct Clock {
    trained: Duration,
    /// Up to when it is counted.
    since: Instant,
    examples: u64,
}

impl Clock {
    fn tick(&mut self, examples: u64) {
        let now = Instant::now();
        self.trained += now - self.since;
        self.since = now;
        self.examples += examples;
    }

    fn rate(&self) -> f64 {
        self.examples as f64 / self.trained.as_secs_f64().max(1e-9)
    }
}

/// What a step came to.
#[derive(Default)]
struct Stepped {
    /// Mean loss of the batch.
    loss: f64,
    /// Norm of the gradient, or of the projected gradients.
    norm: f64,
    /// The projected gradient of each direction, where there is no other.
    projected: Vec<f32>,
}

/// A step that was started.
struct Begun {
    /// Its learning rate.
    lr: f64,
    /// Examples of its batch.
    examples: u64,
    /// What its runs hand back, the one with the gradient's norm last.
    runs: Vec<Outputs>,
    /// What it came to, where that is known.
    done: Option<Stepped>,
}

impl Begun {
    /// Waits for what it comes to.
    fn observe(mut self, runner: &mut Runner) -> Result<Stepped, RunError> {
        if let Some(done) = self.done {
            return Ok(done);
        }
        runner.observe(&mut self.runs)?;
        let norm = self.runs.last().and_then(|run| run.scalar("grad_norm"));
        let losses = self.runs.iter().filter_map(|run| run.scalar("loss"));
        let loss = losses.map(f64::from).reduce(|sum, loss| sum + loss);
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

/// Starts an optimizer step; one of zeroth order, which has to see its losses, is done with it.
fn begin(
    runner: &mut Runner,
    fit: &Fit,
    cx: &Context<'_>,
    batch: &[u32],
    step: u64,
) -> Result<Begun, RunError> {
    let lr = fit.rates.at(step);
    let masks = fit
        .masking
        .as_ref()
        .map(|m| m.epoch(fit.seed, step / fit.steps_per_epoch));
    // The loss is a mean over examples by their weights, or over the masked places, of all micro-batches together.
    let chosen = batch.iter();
    let terms = match &fit.masking {
        Some(m) => m.places(chosen.filter_map(|&i| Some(cx.train.set.length(i)? as usize))) as f64,
        None => {
            let label = |i| cx.train.set.label(i).unwrap_or(Target::None);
            chosen.map(|&i| cx.task.weight_of(&label(i))).sum()
        }
    };
    let scale = 1.0 / if terms > 0.0 { terms as f32 } else { 1.0 };
    let scalars = |verified: &Verified| -> Vec<(Feed, Tensor)> {
        let feeds = verified.program().feeds().map(|(f, _)| f);
        feeds
            .filter_map(|feed| match feed {
                Feed::LossScale => Some((feed, Tensor::new(vec![scale], &[1]))),
                Feed::ClassWeights { classes } => {
                    let weights = cx.task.class_weights().to_vec();
                    Some((feed, Tensor::new(weights, &[classes as usize])))
                }
                Feed::Step => Some((feed, Tensor::new(vec![step as u32], &[1]))),
                Feed::LearningRate => Some((feed, Tensor::new(vec![lr as f32], &[1]))),
                _ => None,
            })
            .collect()
    };
    let start = |runner: &mut Runner, verified: &Verified, indices: &[u32]| {
        let mut packed = cx.train.batch(runner, verified.program(), indices, masks)?;
        packed.feeds.extend(scalars(verified));
        runner.start(verified, packed.feeds, &packed.sizes)
    };
    let losses = |runs: &[Outputs]| -> Result<f64, RunError> {
        let each = runs.iter().map(|run| run.scalar("loss").map(f64::from));
        each.sum::<Option<f64>>().ok_or_else(missing)
    };
    let mut begun = Begun {
        lr,
        examples: batch.len() as u64,
        runs: Vec::new(),
        done: None,
    };
    match &fit.update {
        Update::Whole(program) => begun.runs.push(start(runner, program, batch)?),
        Update::Split { accumulate, apply } => {
            for micro in batch.chunks(fit.micro_batch as usize) {
                begun.runs.push(start(runner, accumulate, micro)?);
            }
            let applied = runner.start(apply, scalars(apply), &Bindings::default())?;
            begun.runs.push(applied);
        }
        Update::Zeroth {
            loss,
            perturb,
            epsilon,
            samples,
        } => {
            let measure = |runner: &mut Runner| -> Result<Vec<Outputs>, RunError> {
                let micros = batch.chunks(fit.micro_batch as usize);
                micros.map(|micro| start(runner, loss, micro)).collect()
            };
            let mut stepped = Stepped::default();
            for sample in 0..*samples {
                let at = (step, sample);
                zeroth::shift(runner, perturb, at, *epsilon)?;
                let mut runs = measure(runner)?;
                let half = runs.len();
                zeroth::shift(runner, perturb, at, -2.0 * epsilon)?;
                runs.extend(measure(runner)?);
                runner.observe(&mut runs)?;
                let (above, below) = runs.split_at_checked(half).ok_or_else(missing)?;
                let (above, below) = (losses(above)?, losses(below)?);
                let projected = ((above - below) / (2.0 * epsilon)) as f32;
                if *samples > 1 {
                    zeroth::shift(runner, perturb, at, *epsilon)?;
                }
                stepped.loss += 0.5 * (above + below) / *samples as f64;
                stepped.norm += f64::from(projected) * f64::from(projected);
                stepped.projected.push(projected);
            }
            stepped.norm = stepped.norm.sqrt();
            if stepped.norm.is_finite() {
                zeroth::update(runner, perturb, step, lr, *epsilon, &stepped.projected)?;
            }
            begun.done = Some(stepped);
        }
    }
    Ok(begun)
}

fn evaluate(
    runner: &mut Runner,
    fit: &Fit,
    cx: &Context<'_>,
    progress: &mut Progress,
    observer: &mut dyn Observer,
) -> Result<(), RunError> {
    let (Some(program), Some(dev)) = (&fit.evaluate, cx.dev) else {
        return Ok(());
    };
    let walk = Walk {
        source: dev,
        task: cx.task,
        masking: fit.dev_masking.as_ref(),
        batch: fit.batch,
    };
    let mut predictions = stream(runner, program, walk, observer, &mut |_| Ok(()))?;
    predictions.positive = Some(fit.positive);
    let values = metrics(&fit.metrics, &predictions);
    let mut is_best = false;
    if let Some(metric) = fit.best {
        let value = metric.compute(&predictions);
        is_best = progress.best.is_none_or(|best| {
            if metric.higher_is_better() {
                value > best.value
            } else {
                value < best.value
            }
        });
        if is_best {
            progress.best = Some(resume::Best {
                value,
                step: progress.step,
            });
            progress.best_metrics.clone_from(&values);
            progress.stale = 0;
            runner.fetch()?;
            let tensors: Vec<(&str, &Tensor)> = runner
                .residents
                .iter()
                .filter(|(_, c, _)| *c == Class::Trainable)
                .map(|(n, _, t)| (n, t))
                .collect();
            checkpoint::save(
                &cx.checkpoints.join(resume::BEST),
                &tensors,
                &json!({ "step": progress.step }),
            )?;
        } else {
            progress.stale += 1;
            progress.stopped = fit.patience.is_some_and(|p| progress.stale >= p);
        }
    }
    observer.event(Event::Evaluated {
        step: progress.step,
        metrics: &values,
        best: is_best,
    });
    progress.last_metrics = values;
    Ok(())
}

fn save(runner: &mut Runner, dir: &Path, progress: &Progress) -> Result<(), RunError> {
    runner.fetch()?;
    let kept = |c: Class| matches!(c, Class::Trainable | Class::Optimizer);
    let tensors: Vec<(&str, &Tensor)> = runner
        .residents
        .iter()
        .filter(|(_, c, _)| kept(*c))
        .map(|(n, _, t)| (n, t))
        .collect();
    checkpoint::save(dir, &tensors, &progress.json())
}
