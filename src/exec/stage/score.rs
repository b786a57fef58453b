//! Walking over a split once, scoring.

use crate::exec::features::Examples;
use crate::exec::interpreter::{Outputs, Runner};
use crate::exec::observe::{Event, Observer};
use crate::files::RunError;
use crate::library::counts::to_u32;
use crate::library::data::batch::Packed;
use crate::library::data::tokens::Target;
use crate::library::metric::{Metric, Predictions};
use crate::library::task::{ReadPlace, Reads, Task};
use crate::program::op::Tensor;
use crate::program::{Feed, Program, Verified};

/// What is walked over.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'a> {
    /// The split.
    pub source: Examples<'a>,
    /// What is predicted.
    pub task: &'a dyn Task,
    /// Which places of its texts are read, where those are any number of tokens.
    pub reads: Option<&'a Reads>,
    /// Examples at once.
    pub batch: u64,
}

/// A prediction.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Index of the example.
    pub example: u32,
    /// Position of the token, special tokens counted; 0 where it is about the whole text.
    pub position: u32,
    /// What was to be predicted.
    pub target: Target,
    /// What is predicted.
    pub predicted: Target,
}

/// The predictions of a batch.
#[derive(Clone, Copy, Debug)]
pub struct ScoredBatch<'a> {
    /// One an example, or one a masked place.
    pub rows: &'a [Prediction],
    /// Their scores, row by row.
    pub scores: &'a [f32],
    /// Scores of a row.
    pub width: usize,
}

/// Takes the predictions of a batch.
pub type Each<'a> = dyn FnMut(ScoredBatch<'_>) -> Result<(), RunError> + 'a;

/// Runs an evaluation program over a split in the order of the data, and keeps all scores.
///
/// # Errors
/// What a kernel refuses, or an interruption.
pub fn score(
    runner: &mut Runner,
    program: &Verified,
    walk: Walk<'_>,
    observer: &mut dyn Observer,
) -> Result<Predictions, RunError> {
    let mut scores = Vec::new();
    let kept = stream(
        runner,
        program,
        walk,
        observer,
        &mut |batch: ScoredBatch<'_>| {
            scores.extend_from_slice(batch.scores);
            Ok(())
        },
    )?;
    Ok(Predictions { scores, ..kept })
}

/// Runs an evaluation program over a split in the order of the data and hands on the results of each batch. Of the
/// scores only what metrics need is kept: the best class of an example, or its number.
///
/// # Errors
/// What a kernel refuses, what `each` says, or an interruption.
pub fn stream(
    runner: &mut Runner,
    program: &Verified,
    walk: Walk<'_>,
    observer: &mut dyn Observer,
    each: &mut Each<'_>,
) -> Result<Predictions, RunError> {
    let set = walk.source.set;
    let order: Vec<u32> = (0..to_u32(set.len())).collect();
    let mut predictions = Predictions::default();
    let (mut sum, mut done) = (0.0, 0);
    for chunk in order.chunks(walk.batch.max(1) as usize) {
        if let Some(signal) = observer.interrupted() {
            return Err(RunError::interrupted(signal));
        }
        let packed = walk.packed(runner, program.program(), chunk)?;
        let outputs = runner.run(program, packed.feeds, &packed.sizes)?;
        let scores = outputs.floats("scores");
        let (rows, width) = walk.predicted(scores, chunk, &packed.read)?;
        each(ScoredBatch {
            rows: &rows,
            scores,
            width,
        })?;
        predictions.width = width;
        for row in rows {
            predictions.targets.push(row.target);
            predictions.predicted.push(row.predicted);
        }
        sum += outputs.scalar("loss").map_or(0.0, f64::from);
        done += chunk.len() as u64;
        observer.event(Event::Scored { done });
    }
    predictions.loss = sum / predictions.targets.len().max(1) as f64;
    Ok(predictions)
}

impl Walk<'_> {
    /// The inputs of a run on some examples, with the places that are read.
    ///
    /// # Errors
    /// What the file system says.
    pub fn packed(
        &self,
        runner: &mut Runner,
        program: &Program,
        chunk: &[u32],
    ) -> Result<Packed, RunError> {
        let reads = self.reads.map(Reads::evaluation);
        let mut packed = self.source.batch(runner, program, chunk, reads)?;
        if program.feeds().any(|(feed, _)| feed == Feed::LossScale) {
            let one = Tensor::new(vec![1.0_f32], &[1]);
            packed.feeds.push((Feed::LossScale, one));
        }
        Ok(packed)
    }

    /// What a run on all examples of the walk has scored.
    ///
    /// # Errors
    /// A score is no number.
    pub fn scored(
        &self,
        outputs: &Outputs,
        read: &[(u32, ReadPlace)],
    ) -> Result<Predictions, RunError> {
        let all: Vec<u32> = (0..to_u32(self.source.set.len())).collect();
        let scores = outputs.floats("scores");
        let (rows, width) = self.predicted(scores, &all, read)?;
        let loss = outputs.scalar("loss").map_or(0.0, f64::from);
        Ok(Predictions {
            scores: scores.to_vec(),
            width,
            loss: loss / rows.len().max(1) as f64,
            targets: rows.iter().map(|row| row.target.clone()).collect(),
            predicted: rows.into_iter().map(|row| row.predicted).collect(),
            ..Predictions::default()
        })
    }

    /// The predictions of some examples, and how many scores each has.
    fn predicted(
        &self,
        scores: &[f32],
        chunk: &[u32],
        read: &[(u32, ReadPlace)],
    ) -> Result<(Vec<Prediction>, usize), RunError> {
        let (task, set) = (self.task, self.source.set);
        if let Some(bad) = scores.iter().find(|x| !x.is_finite()) {
            let first = chunk.first().copied().unwrap_or(0);
            return Err(RunError::NotFinite {
                what: format!("a score is {bad} among the examples from {first} on"),
            });
        }
        let about: Vec<(u32, u32, Target)> = match self.reads {
            // Of a pair, the first and the second.
            Some(_) if !task.scores_places() => {
                let group = to_u32(task.group().max(1));
                let own = chunk.iter();
                own.map(|&example| (example, example % group, Target::None))
                    .collect()
            }
            Some(_) => read
                .iter()
                .map(|(example, place)| (*example, place.position, Target::Class(place.token)))
                .collect(),
            None => chunk
                .iter()
                .map(|&example| (example, 0, set.label(example).unwrap_or(Target::None)))
                .collect(),
        };
        let width = (scores.len() / about.len().max(1)).max(1);
        let scored: Vec<&[f32]> = match task.windows().is_some() {
            true => of_windows(scores, read),
            false => scores.chunks(width).collect(),
        };
        let rows = scored.into_iter().zip(about);
        let rows = rows.map(|(row, (example, position, target))| Prediction {
            example,
            position,
            target,
            predicted: task.predict(row),
        });
        Ok((rows.collect(), width))
    }
}

/// The scores of each window's places, two a place.
fn of_windows<'a>(scores: &'a [f32], read: &[(u32, ReadPlace)]) -> Vec<&'a [f32]> {
    let mut rest = scores;
    let own = read.chunk_by(|a, b| a.0 == b.0).map(|places| {
        let (own, behind) = rest.split_at(rest.len().min(2 * places.len()));
        rest = behind;
        own
    });
    own.collect()
}

/// The mean of an example's scores over draws that follow each other, each a row an example; the loss
/// is that of the mean.
#[must_use]
pub fn averaged(task: &dyn Task, all: Predictions, draws: u64) -> Predictions {
    let examples = all.targets.len() / draws.max(1) as usize;
    if draws < 2 || examples == 0 {
        return all;
    }
    let row = all.width * examples;
    let scores: Vec<f32> = (0..row)
        .map(|i| {
            let each = all.scores.iter().skip(i).step_by(row);
            (each.map(|&x| f64::from(x)).sum::<f64>() / draws as f64) as f32
        })
        .collect();
    let targets: Vec<Target> = all.targets.into_iter().take(examples).collect();
    let rows = || scores.chunks(all.width.max(1));
    let losses = rows().zip(&targets).map(|(row, t)| task.loss_of(row, t));
    Predictions {
        loss: losses.sum::<f64>() / examples as f64,
        predicted: rows().map(|row| task.predict(row)).collect(),
        scores,
        targets,
        ..all
    }
}

/// Metrics by name.
#[must_use]
pub fn metrics(list: &[&'static dyn Metric], predictions: &Predictions) -> Vec<(String, f64)> {
    list.iter()
        .map(|m| (m.schema().name.to_owned(), m.compute(predictions)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_averaged_example_by_example() {
        let all = Predictions {
            scores: vec![1.0, 0.0, 3.0, 4.0, 2.0, 5.0, 1.0, 1.0],
            width: 2,
            targets: [0, 1, 0, 1].map(Target::Class).to_vec(),
            loss: 9.0,
            ..Predictions::default()
        };
        let task = crate::library::task::of_words();
        let same = averaged(task.as_ref(), all.clone(), 1);
        assert_eq!((same.scores, same.loss), (all.scores.clone(), 9.0));
        let mean = averaged(task.as_ref(), all, 2);
        assert_eq!(mean.scores, [1.5, 2.5, 2.0, 2.5]);
        assert_eq!(mean.targets, [0, 1].map(Target::Class));
        let loss = (1.0_f64.exp().ln_1p() + (-0.5_f64).exp().ln_1p()) / 2.0;
        assert!((mean.loss - loss).abs() < 1e-7, "{}", mean.loss);
    }
}
