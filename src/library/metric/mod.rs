//! The metric registry.

use std::sync::Arc;

use crate::library::counts::to_u32;

use super::data::tokens::Target;
use super::schema::Schema;
use super::task::Answer;

mod acc;
mod accuracy;
mod answer_match;
mod bleu;
mod chrf;
mod cider;
mod confusion;
mod entities;
mod exact_match;
mod f1;
mod f1_macro;
mod f1_micro;
mod loss;
mod masked_accuracy;
mod matthews;
mod meteor;
mod nist;
mod pearson;
mod perplexity;
mod quadratic_kappa;
mod rank_error;
mod ranking;
mod rewards;
mod rouge;
mod spearman;
mod subset_accuracy;
mod text;
mod token_accuracy;
mod token_f1;

pub use confusion::{ClassScores, Confusion};
pub use entities::{Counts, entities_by_type, is_tag};
pub use text::TextPair;
pub use token_f1::says_something;

/// What a model predicted for a split.
#[derive(Clone, Debug, Default)]
pub struct Predictions {
    /// Scores, `width` a row; empty where they are not kept.
    pub scores: Vec<f32>,
    /// Scores of a row.
    pub width: usize,
    /// What was to be predicted, a row an example or a masked place.
    pub targets: Vec<Target>,
    /// What was predicted of each row.
    pub predicted: Vec<Target>,
    /// Mean loss.
    pub loss: f64,
    /// The class that `f1` is of; the second if none is named.
    pub positive: Option<u32>,
    /// What the model wrote, where it generated, with what it was to write.
    pub texts: Vec<TextPair>,
    /// Names of the classes, where they are those of words.
    pub classes: Arc<Vec<String>>,
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
    to_u32(best.0)
}

impl Predictions {
    /// `(label, prediction)` of every row with a class, or a token, and of every word.
    #[must_use]
    pub fn pairs(&self) -> Vec<(u32, u32)> {
        let mut pairs = Vec::with_capacity(self.targets.len());
        for row in self.rows() {
            match row {
                (Target::Class(label), Target::Class(predicted)) => {
                    pairs.push((*label, *predicted));
                }
                (Target::Each(labels), Target::Each(predicted)) => {
                    pairs.extend(labels.iter().copied().zip(predicted.iter().copied()));
                }
                _ => {}
            }
        }
        pairs
    }

    /// Share of the rows with a class, or a token, whose prediction is the label.
    fn share_right(&self) -> f64 {
        let pairs = self.pairs();
        let right = pairs
            .iter()
            .filter(|(label, predicted)| label == predicted)
            .count();
        ratio(right as f64, pairs.len() as f64)
    }

    /// `(target, score)` of every row with a number.
    #[must_use]
    pub fn numbers(&self) -> Vec<(f64, f64)> {
        self.rows()
            .filter_map(|pair| match pair {
                (Target::Score(x), Target::Score(y)) => Some((f64::from(*x), f64::from(*y))),
                _ => None,
            })
            .collect()
    }

    /// `(label, prediction)` of every row with one class, as places in their order.
    fn grades(&self) -> impl Iterator<Item = (f64, f64)> {
        self.rows().filter_map(|row| match row {
            (Target::Class(x), Target::Class(y)) => Some((f64::from(*x), f64::from(*y))),
            _ => None,
        })
    }

    /// The classes of every row, or word, with any number of them, one among them too: `(labels, predictions)`.
    pub fn sets(&self) -> impl Iterator<Item = (&[u32], &[u32])> {
        self.rows()
            .flat_map(|(label, predicted)| sets(label).into_iter().zip(sets(predicted)))
    }

    fn rows(&self) -> impl Iterator<Item = (&Target, &Target)> {
        self.targets.iter().zip(&self.predicted)
    }
}

/// The sets of classes of a row: one, or one of each word.
fn sets(of: &Target) -> Vec<&[u32]> {
    match of {
        Target::Each(list) => list.chunks(1).collect(),
        one => set(one).into_iter().collect(),
    }
}

/// The classes that a label or a prediction names.
fn set(of: &Target) -> Option<&[u32]> {
    match of {
        Target::Class(class) => Some(std::slice::from_ref(class)),
        Target::Classes(list) => Some(list),
        Target::None | Target::Score(_) | Target::Each(_) => None,
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

    /// Whether it can be computed of such answers, where there are so many classes, of which a `positive` one may
    /// be named.
    fn fits(&self, answer: Answer, classes: usize, positive: bool) -> bool;

    /// Its value; degenerate cases give 0, never NaN.
    fn compute(&self, p: &Predictions) -> f64;
}

/// Every metric.
pub const METRICS: &[&dyn Metric] = &[
    &accuracy::Accuracy,
    &subset_accuracy::SubsetAccuracy,
    &f1::F1,
    &f1_macro::F1Macro,
    &f1_micro::F1Micro,
    &matthews::Matthews,
    &pearson::Pearson,
    &spearman::Spearman,
    &rank_error::RankError,
    &quadratic_kappa::QuadraticKappa,
    &loss::Loss,
    &perplexity::Perplexity,
    &masked_accuracy::MaskedAccuracy,
    &token_accuracy::TokenAccuracy,
    &entities::F1,
    &entities::PRECISION,
    &entities::RECALL,
    &acc::ACC,
    &acc::ACC_NORM,
    &acc::ACC_TOKEN,
    &rewards::ACCURACY,
    &rewards::MARGIN,
    &rewards::CHOSEN,
    &rewards::REJECTED,
    &ranking::ACCURACY_AT_1,
    &ranking::RECALL_AT_10,
    &ranking::MRR_AT_10,
    &ranking::NDCG_AT_10,
    &exact_match::ExactMatch,
    &token_f1::TokenF1,
    &answer_match::AnswerMatch,
    &bleu::Bleu,
    &chrf::Chrf,
    &rouge::ROUGE_1,
    &rouge::ROUGE_2,
    &rouge::ROUGE_L,
    &nist::Nist,
    &meteor::Meteor,
    &cider::Cider,
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
        let classes = |list: &[u32]| list.iter().map(|&l| Target::Class(l)).collect();
        metric(name).expect("registered").compute(&Predictions {
            targets: classes(labels),
            predicted: classes(predicted),
            loss: 0.5,
            ..Predictions::default()
        })
    }

    fn regress(name: &str, targets: &[f32], scores: &[f32]) -> f64 {
        let numbers = |list: &[f32]| list.iter().map(|&x| Target::Score(x)).collect();
        metric(name).expect("registered").compute(&Predictions {
            targets: numbers(targets),
            predicted: numbers(scores),
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
    fn sets_of_classes_are_compared_class_by_class() {
        // Labels and predictions of scikit-learn's doc of `multilabel_confusion_matrix`, and a row without any.
        let sets = |list: [&[u32]; 4]| list.map(|set| Target::Classes(set.to_vec().into()));
        let all = Predictions {
            targets: sets([&[0, 2], &[1], &[0, 1], &[]]).to_vec(),
            predicted: sets([&[0], &[1], &[1, 2], &[]]).to_vec(),
            ..Predictions::default()
        };
        let of = |name: &str| metric(name).expect("registered").compute(&all);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        close(of("f1_micro"), 2.0 * 3.0 / 9.0);
        close(of("f1_macro"), (2.0 / 3.0 + 1.0 + 0.0) / 3.0);
        close(of("subset_accuracy"), 0.5);
    }

    #[test]
    fn ranks_are_compared_by_how_far_they_are_apart() {
        // scikit-learn: mean_absolute_error and cohen_kappa_score(weights="quadratic").
        let (l, p) = ([0, 1, 2, 3, 2, 1], [0, 2, 2, 1, 3, 1]);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        close(of("rank_error", &l, &p), 4.0 / 6.0);
        close(of("quadratic_kappa", &l, &p), 5.0 / 11.0);
        close(of("quadratic_kappa", &[1, 1], &[1, 1]), 0.0);
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
