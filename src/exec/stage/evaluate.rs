//! An `eval` stage: metrics, a table of predictions, and what the task says of them.

use std::io::Write;
use std::time::Instant;

use serde_json::{Map, Value as Json, json};

use super::Work;
use super::predictions::Table;
use super::score::{Each, Prediction, ScoredBatch, Walk, averaged, metrics, score, stream};
use crate::exec::features::{Examples, Reader};
use crate::exec::interpreter::Runner;
use crate::exec::observe::Observer;
use crate::files::RunError;
use crate::files::durable::{create_dirs, write_atomically};
use crate::library::data::tokens::EncodedSet;
use crate::library::metric::Predictions;
use crate::library::stage::job::Score;
use crate::library::task::{Asked, Names};

/// Name of the table of predictions.
pub const PREDICTIONS: &str = "predictions.tsv";

/// Rows that were predicted, where those are not the sequences.
fn start_rows(gathers: bool, predictions: &Predictions) -> Option<u64> {
    gathers.then_some(predictions.targets.len() as u64)
}

impl Work<'_> {
    /// Scores a split.
    pub(in crate::exec) fn evaluate(
        &self,
        job: &Score,
        runner: &mut Runner,
        observer: &mut dyn Observer,
    ) -> Result<Json, RunError> {
        let set = self.required(0)?;
        // The reference's weights make room for the model's.
        let reference = match &job.reference {
            Some(own) => {
                let [reader, _] =
                    self.referred(own, [job.reads.as_ref(), None], runner, observer)?;
                reader
            }
            None => None,
        };
        self.load(runner)?;
        let begun = Instant::now();
        let mut predictions = Predictions::default();
        let path = self.dir.join(PREDICTIONS);
        create_dirs(&self.dir)?;
        write_atomically(&path, &mut |out| {
            predictions = self.tabulate((job, reference.as_ref()), set, out, runner, observer)?;
            Ok(())
        })?;
        predictions.positive = Some(job.positive);
        if let Some(generate) = &job.generate {
            predictions.texts = self.generate(generate, set, runner, observer)?;
        }
        let rows = match start_rows(self.stage.start.task.gathers(), &predictions) {
            Some(rows) => rows,
            None => set.len() as u64 / job.group.max(1),
        };
        let rate = rows as f64 / begun.elapsed().as_secs_f64().max(1e-9);
        let values: Map<String, Json> = metrics(&job.metrics, &predictions)
            .into_iter()
            .map(|(k, v)| (k, json!(v)))
            .collect();
        let labelled = job.evaluate.program().output("loss").is_some();
        let mut result = json!({
            "metrics": values, "loss_first": null, "loss_last": labelled.then_some(predictions.loss), "steps": 0, "epochs": 0,
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
    #[expect(
        clippy::too_many_arguments,
        reason = "a pass: what runs, on what, and who watches"
    )]
    fn tabulate(
        &self,
        (job, reference): (&Score, Option<&Reader>),
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
                reference: job.reference.as_ref().map(|r| &r.features).zip(reference),
                made: None,
                taught: None,
            },
            task,
            reads: job.reads.as_ref(),
            batch: job.batch,
        };
        // The draws of an example are far from each other, and their classes few.
        let keeps = job.draws > 1 || task.gathers_scores();
        let all = if keeps {
            let all = score(runner, &job.evaluate, walk, observer)?;
            averaged(task, all, job.draws)
        } else {
            let mut none = |_: ScoredBatch<'_>| Ok(());
            let mut add = |batch: ScoredBatch<'_>| table.add(batch);
            let gathers = task.gathers();
            let each: &mut Each<'_> = if gathers { &mut none } else { &mut add };
            stream(runner, &job.evaluate, walk, observer, each)?
        };
        let asked = Asked {
            classes: names.classes,
            form: None,
        };
        let predictions = match task.gather(set, &all, asked) {
            Some(gathered) => {
                gathered
                    .cells
                    .into_iter()
                    .try_for_each(|(row, cells)| table.row(row, cells))?;
                gathered.predictions
            }
            None => {
                if keeps {
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
                }
                all
            }
        };
        table.end()?;
        Ok(predictions)
    }
}
