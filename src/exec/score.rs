//! Walking over a split once, scoring.

use super::choose::cross_entropy;
use super::features::Source;
use super::machine::Runner;
use super::observe::{Event, Observer};
use crate::files::RunError;
use crate::library::data::tokens::Target;
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

/// What a batch was told.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Its examples.
    pub examples: &'a [u32],
    /// Their scores, a row an example; without masks.
    pub scores: &'a [f32],
    /// Scores of an example.
    pub width: usize,
    /// Its masked places, each with the token that stood there.
    pub masked: &'a [(Guess, u32)],
}

/// Takes what a batch was told.
pub type Each<'a> = dyn FnMut(Told<'_>) -> Result<(), RunError> + 'a;

/// Runs an evaluation program over a split in the order of the data, and keeps all scores but those of masked
/// places, which are as wide as the vocabulary.
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
    let told = stream(runner, program, walk, observer, &mut |told: Told<'_>| {
        if told.masked.is_empty() {
            scores.extend_from_slice(told.scores);
        }
        Ok(())
    })?;
    Ok(Predictions { scores, ..told })
}

/// Runs an evaluation program over a split in the order of the data and hands on what each batch was told. Of the
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
    let want: Vec<Feed> = program.program().feeds().map(|(f, _)| f).collect();
    let set = walk.source.set;
    let order: Vec<u32> = (0..set.len() as u32).collect();
    let masks = walk.masking.map(Masking::evaluation);
    let mut predictions = Predictions::default();
    if masks.is_none() {
        predictions.targets = set.labels().collect();
    }
    let (mut sum, mut done) = (0.0, 0);
    for chunk in order.chunks(walk.batch.max(1) as usize) {
        if let Some(signal) = observer.interrupted() {
            return Err(RunError::interrupted(signal));
        }
        let mut packed = walk.source.batch(runner, program.program(), chunk, masks)?;
        if want.contains(&Feed::LossScale) {
            packed
                .feeds
                .push((Feed::LossScale, Tensor::new(vec![1.0_f32], &[1])));
        }
        let outputs = runner.run(program, packed.feeds, &packed.sizes)?;
        let scores = outputs.floats("scores");
        if let Some(bad) = scores.iter().find(|x| !x.is_finite()) {
            let first = chunk.first().copied().unwrap_or(0);
            return Err(RunError::NotFinite {
                what: format!("a score is {bad} among the examples from {first} on"),
            });
        }
        let rows = match masks {
            Some(_) => packed.masked.len(),
            None => chunk.len(),
        };
        let width = (scores.len() / rows.max(1)).max(1);
        let mut guesses = Vec::new();
        if masks.is_some() {
            for (row, (example, place)) in scores.chunks(width).zip(packed.masked) {
                let guess = Guess {
                    example,
                    position: place.position,
                    token: best(row),
                };
                predictions.targets.push(Target::Class(place.token));
                predictions.masked.push(guess);
                guesses.push((guess, place.token));
            }
        } else {
            predictions.width = width;
            predictions.told.extend(scores.chunks(width).map(best));
            if width == 1 {
                predictions.scores.extend_from_slice(scores);
            }
        }
        each(Told {
            examples: chunk,
            scores,
            width,
            masked: &guesses,
        })?;
        sum += outputs.scalar("loss").map_or(0.0, f64::from);
        done += chunk.len() as u64;
        observer.event(Event::Scored { done });
    }
    predictions.loss = sum / predictions.targets.len().max(1) as f64;
    Ok(predictions)
}

/// The mean of an example's scores over draws that follow each other, each a row an example; the loss
/// is that of the mean.
#[must_use]
pub fn averaged(all: Predictions, draws: u64) -> Predictions {
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
    let losses = scores
        .chunks(all.width.max(1))
        .zip(&targets)
        .map(|pair| match pair {
            (row, Target::Class(class)) => cross_entropy(row, *class as usize).unwrap_or(0.0),
            _ => 0.0,
        });
    Predictions {
        loss: losses.sum::<f64>() / examples as f64,
        told: scores.chunks(all.width.max(1)).map(best).collect(),
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
        let same = averaged(all.clone(), 1);
        assert_eq!((same.scores, same.loss), (all.scores.clone(), 9.0));
        let mean = averaged(all, 2);
        assert_eq!(mean.scores, [1.5, 2.5, 2.0, 2.5]);
        assert_eq!(mean.targets, [0, 1].map(Target::Class));
        let loss = (1.0_f64.exp().ln_1p() + (-0.5_f64).exp().ln_1p()) / 2.0;
        assert!((mean.loss - loss).abs() < 1e-7, "{}", mean.loss);
    }
}
