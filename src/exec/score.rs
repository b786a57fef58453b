//! Walking over a split once, scoring.

use super::machine::Runner;
use super::observe::{Event, Observer};
use crate::files::RunError;
use crate::library::data::batch::{EncodedSet, pack};
use crate::library::metric::{Metric, Predictions};
use crate::program::op::Tensor;
use crate::program::{Feed, Verified};

/// Runs an evaluation program over a split in the order of the data.
///
/// # Errors
/// What a kernel refuses, or an interruption.
pub fn score(
    runner: &mut Runner,
    program: &Verified,
    set: &EncodedSet,
    batch: u64,
    first_position: u64,
    observer: &mut dyn Observer,
) -> Result<Predictions, RunError> {
    let want: Vec<Feed> = program.program().feeds().map(|(f, _)| f).collect();
    let order: Vec<u32> = (0..set.examples.len() as u32).collect();
    let mut predictions = Predictions {
        targets: set.examples.iter().map(|e| e.label).collect(),
        ..Predictions::default()
    };
    let (mut sum, mut done) = (0.0, 0);
    for chunk in order.chunks(batch.max(1) as usize) {
        if let Some(signal) = observer.interrupted() {
            return Err(RunError::Interrupted { signal });
        }
        let mut packed = pack(set, chunk, first_position, &want);
        if want.contains(&Feed::LossScale) {
            packed
                .feeds
                .push((Feed::LossScale, Tensor::new(vec![1.0_f32], &[1])));
        }
        let outputs = runner.run(program, packed.feeds, &packed.sizes)?;
        predictions
            .scores
            .extend_from_slice(outputs.floats("scores"));
        sum += outputs.scalar("loss").map_or(0.0, f64::from);
        done += chunk.len() as u64;
        observer.event(Event::Scored { done });
    }
    predictions.width = predictions.scores.len() / set.examples.len().max(1);
    predictions.loss = sum / set.examples.len().max(1) as f64;
    Ok(predictions)
}

/// Metrics by name.
#[must_use]
pub fn metrics(list: &[&'static dyn Metric], predictions: &Predictions) -> Vec<(String, f64)> {
    list.iter()
        .map(|m| (m.schema().name.to_owned(), m.compute(predictions)))
        .collect()
}
