//! The metric registry.

use super::data::tokens::Target;
use super::model::HeadKind;
use super::schema::Schema;

mod accuracy;
mod confusion;
mod f1;
mod f1_macro;
mod loss;
mod masked_accuracy;
mod matthews;
mod pearson;
mod perplexity;
mod spearman;

pub use confusion::{ClassScores, Confusion};

/// What a model predicted for a split.
#[derive(Clone, Debug, Default)]
pub struct Predictions {
    /// Scores, `width` an example.
    pub scores: Vec<f32>,
    /// Scores of an example.
    pub width: usize,
    /// What was to be predicted.
    pub targets: Vec<Target>,
    /// Mean loss.
    pub loss: f64,
    /// What was predicted at masked places, instead of scores; the targets are then their tokens.
    pub masked: Vec<Guess>,
    /// The class with the highest score of each example, where the scores are not kept.
    pub told: Vec<u32>,
    /// The class that `f1` is of; the second if none is named.
    pub positive: Option<u32>,
}

/// A prediction at a masked place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guess {
    /// Index of the example.
    pub example: u32,
    /// Position of the token, special tokens counted.
    pub position: u32,
    /// The token with the highest score.
    pub token: u32,
}

/// Place of the highest score; the first among equals.
#[must_use]
pub fn best(row: &[f32]) -> u32 {
    let mut best = (0, row.first().copied().unwrap_or_default());
    for (i, &x) in row.iter().enumerate() {
        if x > best.1 {
            best = (i, x);
        }
    }
    best.0 as u32
}

impl Predictions {
    /// The class with the highest score of each example, or the token of each masked place; the first among equals.
    #[must_use]
    pub fn classes(&self) -> Vec<u32> {
        if !self.masked.is_empty() {
            return self.masked.iter().map(|guess| guess.token).collect();
        }
        if !self.told.is_empty() {
            return self.told.clone();
        }
        self.scores.chunks(self.width.max(1)).map(best).collect()
    }

    /// `(label, prediction)` of every example with a class.
    #[must_use]
    pub fn pairs(&self) -> Vec<(u32, u32)> {
        let label = |t: &Target| {
            if let Target::Class(c) = t {
                Some(*c)
            } else {
                None
            }
        };
        self.targets
            .iter()
            .zip(self.classes())
            .filter_map(|(t, p)| Some((label(t)?, p)))
            .collect()
    }

    /// `(target, score)` of every example with a number.
    #[must_use]
    pub fn numbers(&self) -> Vec<(f64, f64)> {
        let target = |t: &Target| {
            if let Target::Score(x) = t {
                Some(f64::from(*x))
            } else {
                None
            }
        };
        self.targets
            .iter()
            .zip(self.scores.chunks(self.width.max(1)))
            .filter_map(|(t, s)| Some((target(t)?, f64::from(*s.first()?))))
            .collect()
    }
}

/// A figure of merit.
pub trait Metric: Sync + Send + std::fmt::Debug {
    /// Name, doc; no keys.
    fn schema(&self) -> &'static Schema;

    /// Whether more is better.
    fn higher_is_better(&self) -> bool {
        true
    }

    /// Whether it can be computed for a head, of which a `positive` class may be named.
    fn fits(&self, head: &HeadKind, positive: bool) -> bool;

    /// Its value; degenerate cases give 0, never NaN.
    fn compute(&self, p: &Predictions) -> f64;
}

/// Every metric.
pub const METRICS: &[&dyn Metric] = &[
    &accuracy::Accuracy,
    &f1::F1,
    &f1_macro::F1Macro,
    &matthews::Matthews,
    &pearson::Pearson,
    &spearman::Spearman,
    &loss::Loss,
    &perplexity::Perplexity,
    &masked_accuracy::MaskedAccuracy,
];

/// Looks a metric up by name.
#[must_use]
pub fn metric(name: &str) -> Option<&'static dyn Metric> {
    METRICS.iter().copied().find(|m| m.schema().name == name)
}

/// `a / b`, 0 where `b` is 0.
fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, labels: &[u32], predicted: &[u32]) -> f64 {
        let width = 3;
        let scores = predicted
            .iter()
            .flat_map(|&p| (0..width as u32).map(move |c| if c == p { 1.0 } else { 0.0 }))
            .collect();
        let targets = labels.iter().map(|&l| Target::Class(l)).collect();
        metric(name).expect("registered").compute(&Predictions {
            scores,
            width,
            targets,
            loss: 0.5,
            ..Predictions::default()
        })
    }

    fn regress(name: &str, targets: &[f32], scores: &[f32]) -> f64 {
        let targets = targets.iter().map(|&x| Target::Score(x)).collect();
        metric(name).expect("registered").compute(&Predictions {
            scores: scores.to_vec(),
            width: 1,
            targets,
            loss: 0.5,
            ..Predictions::default()
        })
    }

    #[test]
    fn values_are_those_of_the_usual_definitions() {
        let (l, p) = ([0, 1, 1, 0, 1, 1], [0, 1, 0, 1, 1, 1]);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        close(of("accuracy", &l, &p), 4.0 / 6.0);
        close(of("f1", &l, &p), 0.75);
        close(of("f1_macro", &l, &p), 0.625);
        close(of("matthews", &l, &p), 0.25);
        close(of("loss", &l, &p), 0.5);
        close(of("matthews", &[0, 1, 2, 2, 1], &[0, 2, 2, 1, 1]), 0.375);
        close(
            regress("pearson", &[1.0, 2.0, 3.0, 4.0], &[2.0, 4.0, 6.0, 8.0]),
            1.0,
        );
        close(regress("pearson", &[1.0, 2.0, 3.0], &[3.0, 1.0, 2.0]), -0.5);
        close(
            regress("spearman", &[1.0, 2.0, 3.0, 4.0], &[1.0, 4.0, 9.0, 16.0]),
            1.0,
        );
        close(
            regress("spearman", &[1.0, 2.0, 2.0, 4.0], &[1.0, 3.0, 2.0, 4.0]),
            0.948_683_298_050_513_8,
        );
    }

    #[test]
    fn degenerate_cases_are_zero() {
        for name in ["f1", "matthews"] {
            assert_eq!(of(name, &[0, 0], &[0, 0]), 0.0, "{name}");
        }
        assert_eq!(regress("pearson", &[1.0, 1.0], &[2.0, 3.0]), 0.0);
        for m in METRICS {
            assert!(
                m.compute(&Predictions::default()).is_finite(),
                "{}",
                m.schema().name
            );
        }
    }
}
