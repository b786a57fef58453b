//! The training loop: batches in a keyed order, evaluation, best state, early stopping, checkpoints
//! that a killed run goes on from with the same bits.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use self::step::{Begun, Step, Stepped};
use crate::exec::checkpoint;
use crate::exec::checkpoint::log::Log;
use crate::exec::checkpoint::resume::{self, Point, Progress};
use crate::exec::features::Examples;
use crate::exec::interpreter::Runner;
use crate::exec::observe::{Event, Observer};
use crate::exec::ranks::Ranks;
use crate::files::RunError;
use crate::library::stage::job::Fit;
use crate::library::task::Task;
use crate::program::Class;
use crate::program::op::Tensor;

mod judge;
mod select;
mod share;
mod step;

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
    /// Names of the classes.
    pub classes: &'a [String],
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
    /// The processes that make each step together.
    pub ranks: &'a Ranks,
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
    /// Bytes that this rank sent for the steps that it made.
    pub sent: u64,
    /// The same as planned.
    pub planned: u64,
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
    if cx.ranks.count() as u64 != fit.ranks {
        return Err(RunError::bug(
            "a training is planned for another number of ranks",
        ));
    }
    share::compare(runner, cx.ranks, |_| true, "before the first step")?;
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
        saved: Instant::now(),
        sent: 0,
        planned: 0,
    };
    if let Some(line) = unlogged {
        training.close(runner, line, true, observer)?;
        training.clock.since = Instant::now();
    }
    training.steps(runner, observer)?;
    training.end(runner, observer)
}

/// A training on its way.
struct Training<'a> {
    fit: &'a Fit,
    cx: &'a Context<'a>,
    progress: Progress,
    log: &'a mut Log,
    clock: Clock,
    /// When the last checkpoint was written.
    saved: Instant,
    /// Bytes that were sent to other ranks for the steps.
    sent: u64,
    /// The same as planned.
    planned: u64,
}

impl Training<'_> {
    /// Makes all steps that are left.
    fn steps(&mut self, runner: &mut Runner, observer: &mut dyn Observer) -> Result<(), RunError> {
        let (fit, cx) = (self.fit, self.cx);
        let mut shuffled: Option<(u64, Vec<u32>, Vec<Range<usize>>)> = None;
        let length = |example| u64::from(cx.train.set.length(example).unwrap_or(0));
        // On a device a step is observed once the next was started, so that the device always has work.
        let mut coming: Option<Begun> = None;
        let mut at = self.progress.step;
        self.saved = Instant::now();
        while at < fit.steps && !self.progress.stopped {
            let (epoch, within) = (at / fit.steps_per_epoch, at % fit.steps_per_epoch);
            let (_, all, batches) = match shuffled.take_if(|(of, ..)| *of == epoch) {
                Some(known) => shuffled.insert(known),
                None => {
                    let all = fit.order(cx.train.set.len(), epoch);
                    let batches = fit.batches(&all, &length);
                    shuffled.insert((epoch, all, batches))
                }
            };
            let batch = batches.get(within as usize).cloned();
            let Some(batch) = batch.and_then(|batch| all.get(batch)) else {
                return Err(RunError::bug("an epoch has fewer batches than planned"));
            };
            if let Some(selection) = fit.selection.as_ref().filter(|s| s.changes(at)) {
                if let Some(before) = coming.take() {
                    self.take(runner, before, false, observer)?;
                }
                select::change(runner, selection, (at, fit.steps))?;
            }
            runner.settle();
            let _span = tracing::debug_span!("step", number = at + 1).entered();
            let before = cx.ranks.sent();
            let begun = match Step::new(fit, cx, batch, at).begin(runner) {
                Err(RunError::Memory { what }) => {
                    return Err(self.ran_out(runner, coming, what, observer)?);
                }
                begun => begun?,
            };
            let due = self.due(observer)?;
            self.sent += cx.ranks.sent() - before;
            self.planned += fit.update_at(at).traffic(fit.ranks).bytes;
            at += 1;
            if let Some(before) = coming.replace(begun) {
                self.take(runner, before, false, observer)?;
            }
            self.pause(runner, (&mut coming, at), due, observer)?;
            if coming.is_none() {
                self.clock.since = Instant::now();
            }
        }
        Ok(())
    }

    /// What one of the ranks was asked for, which all then do; the time of a checkpoint is rank 0's.
    fn due(&self, observer: &mut dyn Observer) -> Result<Due, RunError> {
        let time = self.cx.ranks.leads() && self.saved.elapsed() >= self.cx.every;
        let signal = observer.interrupted().unwrap_or(0);
        let signal = u8::try_from(signal).unwrap_or(u8::MAX);
        let word = [signal, u8::from(observer.asked()), u8::from(time)];
        let [signal, asked, time] = self.cx.ranks.most(word)?;
        Ok(Due {
            signal: (signal > 0).then_some(i32::from(signal)),
            asked: asked > 0,
            time: time > 0,
        })
    }

    /// What is due after a step was begun: its evaluation, a checkpoint, the end that a signal asks for.
    fn pause(
        &mut self,
        runner: &mut Runner,
        (coming, at): (&mut Option<Begun>, u64),
        due: Due,
        observer: &mut dyn Observer,
    ) -> Result<(), RunError> {
        let fit = self.fit;
        let evaluated = fit
            .evaluate_every
            .is_some_and(|n| at.is_multiple_of(n) || at == fit.steps);
        let Due {
            signal,
            asked,
            time,
        } = due;
        let saves = signal.is_some() || asked || time;
        let ends = evaluated || saves || at == fit.steps || !runner.runs_ahead();
        if let Some(last) = coming.take_if(|_| ends) {
            self.take(runner, last, evaluated, observer)?;
        }
        if saves {
            self.save(runner)?;
            self.saved = Instant::now();
        }
        if asked {
            observer.event(Event::Saved {
                step: self.progress.step,
            });
        }
        match signal {
            Some(signal) => Err(self.stopped(signal)),
            None => Ok(()),
        }
    }

    /// Takes up the best state, where it is the one that is kept, and says what the training came to.
    fn end(self, runner: &mut Runner, observer: &mut dyn Observer) -> Result<Fitted, RunError> {
        let ranks = self.cx.ranks;
        share::compare(runner, ranks, is_trained, "after the last step")?;
        let (fit, progress) = (self.fit, self.progress);
        self.log.sync()?;
        runner.fetch()?;
        let stopped_early = progress.stopped && progress.step < fit.steps;
        if stopped_early {
            observer.event(Event::Stopped {
                step: progress.step,
                of: fit.steps,
                patience: progress.stale,
            });
        }
        let mut metrics = progress.last_metrics;
        let mut kept_step = None;
        // The other ranks leave nothing.
        if let (Some(metric), Some(best), true) = (fit.best, &progress.best, ranks.leads()) {
            resume::restore_best(runner, self.cx.checkpoints, best.step)?;
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
            samples_per_s: self.clock.rate(),
            metrics,
            kept_step,
            stopped_early,
            sent: self.sent,
            planned: self.planned,
        })
    }

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
        share::compare(runner, self.cx.ranks, is_trained, "at a checkpoint")?;
        if !self.cx.ranks.leads() {
            return Ok(());
        }
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
            self.cx.ranks.all_end();
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
            lr,
            grad_norm: norm,
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
        match self.judge(runner, observer) {
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
        self.cx.ranks.all_end();
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

/// What a run is asked for while it makes a step.
#[derive(Clone, Copy)]
struct Due {
    /// The signal that asks for the end.
    signal: Option<i32>,
    /// Whether a checkpoint was asked for.
    asked: bool,
    /// Whether it is time for one.
    time: bool,
}

/// Whether tensors of a class are what a training makes.
const fn is_trained(class: Class) -> bool {
    matches!(class, Class::Trainable | Class::Optimizer | Class::Chosen)
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

fn save(runner: &mut Runner, dir: &Path, progress: &Progress) -> Result<(), RunError> {
    runner.fetch()?;
    let tensors: Vec<(&str, &Tensor)> = runner
        .residents
        .iter()
        .filter(|(_, c, _)| is_trained(*c))
        .map(|(n, _, t)| (n, t))
        .collect();
    checkpoint::save(dir, &tensors, &progress.json())
}
