//! Walking over a split once, scoring.

use super::features::Source;
use super::machine::Runner;
use super::observe::{Event, Observer};
use crate::files::RunError;
use crate::library::data::batch::Target;
use crate::library::masking::Masking;
use crate::library::metric::{Guess, Metric, Predictions, best};
use crate::program::op::Tensor;
use crate::program::{Feed, Verified};

/// What is walked over.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'a> {
    /// The split.
    pub source: Source<'a>,
    /// How its texts are masked, if they are.
    pub masking: Option<&'a Masking>,
    /// Examples at once.
    pub batch: u64,
}

/// Runs an evaluation program over a split in the order of the data. The scores of masked places
/// are as wide as the vocabulary: only the best of each is kept.
///
/// # Errors
/// What a kernel refuses, or an interruption.
pub fn score(
    runner: &mut Runner,
    program: &Verified,
    walk: Walk<'_>,
    observer: &mut dyn Observer,
) -> Result<Predictions, RunError> {
    let want: Vec<Feed> = program.program().feeds().map(|(f, _)| f).collect();
    let set = walk.source.set;
    let order: Vec<u32> = (0..set.examples.len() as u32).collect();
    let masks = walk.masking.map(Masking::evaluation);
    let mut predictions = Predictions::default();
    if masks.is_none() {
        predictions.targets = set.examples.iter().map(|e| e.label).collect();
    }
    let (mut sum, mut done) = (0.0, 0);
    for chunk in order.chunks(walk.batch.max(1) as usize) {
        if let Some(signal) = observer.interrupted() {
            return Err(RunError::Interrupted { signal });
        }
        let mut packed = walk.source.batch(runner, program.program(), chunk, masks)?;
        if want.contains(&Feed::LossScale) {
            packed
                .feeds
                .push((Feed::LossScale, Tensor::new(vec![1.0_f32], &[1])));
        }
        let outputs = runner.run(program, packed.feeds, &packed.sizes)?;
        let scores = outputs.floats("scores");
        if masks.is_none() {
            predictions.scores.extend_from_slice(scores);
        }
        let width = scores.len() / packed.masked.len().max(1);
        for (row, (example, place)) in scores.chunks(width.max(1)).zip(packed.masked) {
            predictions.targets.push(Target::Class(place.token));
            predictions.masked.push(Guess {
                example,
                position: place.position,
                token: best(row),
            });
        }
        sum += outputs.scalar("loss").map_or(0.0, f64::from);
        done += chunk.len() as u64;
        observer.event(Event::Scored { done });
    }
    predictions.width = predictions.scores.len() / walk.source.set.examples.len().max(1);
    predictions.loss = sum / predictions.targets.len().max(1) as f64;
    Ok(predictions)
}

/// Metrics by name.
#[must_use]
pub fn metrics(list: &[&'static dyn Metric], predictions: &Predictions) -> Vec<(String, f64)> {
    list.iter()
        .map(|m| (m.schema().name.to_owned(), m.compute(predictions)))
        .collect()
}
