//! An `eval` stage: metrics, a table of predictions, and what the task says of them.

use std::io::Write;
use std::time::Instant;

use serde_json::{Map, Value as Json, json};

use super::Work;
use super::predictions::Table;
use super::score::{Prediction, ScoredBatch, Walk, averaged, metrics, score, stream};
use crate::exec::features::Examples;
use crate::exec::interpreter::Runner;
use crate::exec::observe::Observer;
use crate::files::RunError;
use crate::files::durable::{create_dirs, write_atomically};
use crate::library::data::tokens::EncodedSet;
use crate::library::metric::Predictions;
use crate::library::stage::job::Score;
use crate::library::task::Names;

/// Name of the table of predictions.
pub const PREDICTIONS: &str = "predictions.tsv";

impl Work<'_> {
    /// Scores a split.
    pub(in crate::exec) fn evaluate(
        &self,
        job: &Score,
        runner: &mut Runner,
        observer: &mut dyn Observer,
    ) -> Result<Json, RunError> {
        let set = self.required(0)?;
        self.load(runner)?;
        let begun = Instant::now();
        let mut predictions = Predictions::default();
        let path = self.dir.join(PREDICTIONS);
        create_dirs(&self.dir)?;
        write_atomically(&path, &mut |out| {
            predictions = self.tabulate(job, set, out, runner, observer)?;
            Ok(())
        })?;
        predictions.positive = Some(job.positive);
        if let Some(generate) = &job.generate {
            predictions.texts = self.generate(generate, set, runner, observer)?;
        }
        let rate = set.len() as f64 / begun.elapsed().as_secs_f64().max(1e-9);
        let values: Map<String, Json> = metrics(&job.metrics, &predictions)
            .into_iter()
            .map(|(k, v)| (k, json!(v)))
            .collect();
        let mut result = json!({
            "metrics": values, "loss_first": null, "loss_last": predictions.loss, "steps": 0, "epochs": 0,
            "samples_per_s": rate,
        });
        let start = &self.stage.start;
        let details = start.task.details(&start.classes, &predictions);
        if let Some(result) = result
            .as_object_mut()
            .filter(|_| !details.entries.is_empty())
        {
            result.extend(details.entries);
            let doubts = details.doubts.iter().map(|(code, message)| {
                json!({ "code": format!("peftc::{}", code.name), "message": message })
            });
            result.insert("warnings".to_owned(), doubts.collect());
        }
        Ok(result)
    }

    /// Scores a split, writing the table of predictions on the way.
    fn tabulate(
        &self,
        job: &Score,
        set: &EncodedSet,
        out: &mut dyn Write,
        runner: &mut Runner,
        observer: &mut dyn Observer,
    ) -> Result<Predictions, RunError> {
        let start = &self.stage.start;
        let task = start.task.as_ref();
        let names = Names {
            classes: &start.classes,
            tokens: start.model.tokenizer.as_deref(),
        };
        let mut table = Table::begin(out, set, task, names)?;
        let walk = Walk {
            source: Examples {
                set,
                positions: self.stage.model.facts().positions,
                kept: None,
            },
            task,
            reads: job.reads.as_ref(),
            batch: job.batch,
        };
        let predictions = if job.draws > 1 {
            // The draws of an example are far from each other, and their classes few.
            let all = score(runner, &job.evaluate, walk, observer)?;
            let all = averaged(task, all, job.draws);
            let pairs = all.targets.iter().zip(&all.predicted);
            let rows: Vec<Prediction> = (0_u32..)
                .zip(pairs)
                .map(|(example, (target, predicted))| Prediction {
                    example,
                    position: 0,
                    target: target.clone(),
                    predicted: predicted.clone(),
                })
                .collect();
            table.add(ScoredBatch {
                rows: &rows,
                scores: &all.scores,
                width: all.width.max(1),
            })?;
            all
        } else {
            let mut add = |told: ScoredBatch<'_>| table.add(told);
            stream(runner, &job.evaluate, walk, observer, &mut add)?
        };
        table.end()?;
        Ok(predictions)
    }
}
