//! Evaluations between steps: which state is the best, and whether it is time to stop.

use serde_json::json;

use super::super::score::{Walk, metrics, score, stream};
use super::{Context, Training};
use crate::exec::checkpoint;
use crate::exec::checkpoint::resume::{self, Progress};
use crate::exec::interpreter::Runner;
use crate::exec::observe::{Event, Observer};
use crate::files::RunError;
use crate::library::stage::job::Fit;
use crate::library::task::Asked;
use crate::program::Class;
use crate::program::op::Tensor;

impl Training<'_> {
    /// Evaluates, on rank 0 alone; the others wait for what it means.
    pub(super) fn judge(
        &mut self,
        runner: &mut Runner,
        observer: &mut dyn Observer,
    ) -> Result<(), RunError> {
        let ranks = self.cx.ranks;
        let mut judged = Ok(());
        if ranks.leads() {
            judged = evaluate(runner, self.fit, self.cx, &mut self.progress, observer);
        }
        let signal = match &judged {
            Ok(()) => 0,
            Err(RunError::Interrupted { signal, .. }) => u8::try_from(*signal).unwrap_or(u8::MAX),
            // It ends the other ranks.
            Err(_) => return judged,
        };
        let [signal, stopped] = ranks.broadcast([signal, u8::from(self.progress.stopped)])?;
        self.progress.stopped = stopped > 0;
        match signal {
            0 => judged,
            signal => Err(RunError::interrupted(i32::from(signal))),
        }
    }
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
        reads: fit.dev_reads.as_ref(),
        batch: fit.batch,
    };
    let all = match cx.task.gathers_scores() {
        true => score(runner, program, walk, observer)?,
        false => stream(runner, program, walk, observer, &mut |_| Ok(()))?,
    };
    let asked = Asked {
        classes: cx.classes,
        form: None,
    };
    let mut predictions = match cx.task.gather(dev.set, &all, asked) {
        Some(gathered) => gathered.predictions,
        None => all,
    };
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
                .filter(|(_, c, _)| matches!(c, Class::Trainable | Class::Chosen))
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
