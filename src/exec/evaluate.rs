//! An `eval` stage: metrics, a table of predictions, and how each class is told.

use std::io::Write;
use std::time::Instant;

use serde_json::{Map, Value as Json, json};

use super::error::ONE_PREDICTION;
use super::features::Source;
use super::machine::Runner;
use super::observe::Observer;
use super::predictions::Table;
use super::run::Work;
use super::score::{Told, Walk, averaged, metrics, score, stream};
use crate::files::RunError;
use crate::files::durable::{create_dirs, write_atomically};
use crate::library::data::tokens::EncodedSet;
use crate::library::metric::{Confusion, Predictions};
use crate::library::model::HeadKind;
use crate::library::stage::job::Score;

/// Name of the table of predictions.
pub const PREDICTIONS: &str = "predictions.tsv";

/// Classes up to which the whole table of labels and predictions is in a result.
const WHOLE: usize = 100;
/// Confusions that a result lists.
const LISTED: usize = 20;

impl Work<'_> {
    /// Scores a split.
    pub(super) fn evaluate(
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
        let rate = set.len() as f64 / begun.elapsed().as_secs_f64().max(1e-9);
        let values: Map<String, Json> = metrics(&job.metrics, &predictions)
            .into_iter()
            .map(|(k, v)| (k, json!(v)))
            .collect();
        let mut result = json!({
            "metrics": values, "loss_first": null, "loss_last": predictions.loss, "steps": 0, "epochs": 0,
            "samples_per_s": rate,
        });
        if let (HeadKind::Classes(names), Some(result)) =
            (&self.stage.start.head, result.as_object_mut())
        {
            by_class(names, &predictions, result);
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
        let tokens = start.model.tokenizer.as_deref();
        let tokens = tokens.filter(|_| job.masking.is_some());
        let mut table = Table::begin(out, set, &start.head, tokens)?;
        let walk = Walk {
            source: Source {
                set,
                positions: self.stage.model.facts().positions,
                kept: None,
            },
            masking: job.masking.as_ref(),
            batch: job.batch,
        };
        let predictions = if job.draws > 1 {
            // The draws of an example are far from each other, and their classes few.
            let all = averaged(score(runner, &job.evaluate, walk, observer)?, job.draws);
            let examples: Vec<u32> = (0..all.targets.len() as u32).collect();
            table.add(Told {
                examples: &examples,
                scores: &all.scores,
                width: all.width.max(1),
                masked: &[],
            })?;
            all
        } else {
            let mut add = |told: Told<'_>| table.add(told);
            stream(runner, &job.evaluate, walk, observer, &mut add)?
        };
        table.end()?;
        Ok(predictions)
    }
}

/// Adds to a result how each class is told, what is taken for what, and what is doubtful about it.
fn by_class(names: &[String], predictions: &Predictions, result: &mut Map<String, Json>) {
    let confusion = Confusion::of(predictions);
    if confusion.rows() == 0 {
        return;
    }
    let name = |class: u32| names.get(class as usize).map_or("?", String::as_str);
    let each = (0..names.len() as u32).map(|class| {
        let own = confusion.class(class);
        json!({
            "name": name(class), "support": own.support, "predicted": own.predicted, "precision": own.precision,
            "recall": own.recall, "f1": own.f1,
        })
    });
    result.insert("classes".to_owned(), each.collect());
    let whole = (names.len() <= WHOLE).then(|| -> Vec<Vec<u64>> {
        let all = 0..names.len() as u32;
        let row = |label: u32| all.clone().map(move |told| (label, told));
        let cells = |label| row(label).map(|(l, p)| confusion.rows_of(l, p)).collect();
        all.clone().map(cells).collect()
    });
    result.insert("confusion".to_owned(), json!(whole));
    let mut wrong: Vec<(u32, u32, u64)> = confusion.cells().filter(|(l, p, _)| l != p).collect();
    wrong.sort_by_key(|&(label, told, rows)| (std::cmp::Reverse(rows), label, told));
    let listed = wrong.into_iter().take(LISTED).map(|(label, told, rows)| {
        json!({ "label": name(label), "prediction": name(told), "rows": rows })
    });
    result.insert("confused".to_owned(), listed.collect());
    let doubts: Vec<Json> = confusion
        .only_prediction()
        .map(|class| {
            let message = format!(
                "all {} predictions are `{}`, and the labels are of several classes",
                confusion.rows(),
                name(class)
            );
            json!({ "code": format!("peftc::{}", ONE_PREDICTION.name), "message": message })
        })
        .into_iter()
        .collect();
    result.insert("warnings".to_owned(), Json::Array(doubts));
}
