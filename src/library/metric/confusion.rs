//! How often each class was predicted for each class, and what follows from it a class.

use std::collections::BTreeMap;

use crate::library::counts::to_u32;

use super::{Predictions, ratio};

/// Counts of labels and of predictions. Only what occurs is held, so that thousands of classes are no
/// burden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confusion {
    cells: BTreeMap<(u32, u32), u64>,
    labels: Vec<u64>,
    predictions: Vec<u64>,
    hits: Vec<u64>,
}

/// How well one class is predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassScores {
    /// Rows of the class.
    pub support: u64,
    /// Rows that were predicted to be of it.
    pub predicted: u64,
    /// Share of these that are of it; 0 where there are none.
    pub precision: f64,
    /// Share of its rows that were predicted; 0 where there are none.
    pub recall: f64,
    /// Harmonic mean of the two; 0 where both are.
    pub f1: f64,
}

impl Confusion {
    /// Counts the predictions of examples with a class, or with several. Which class was taken for which is counted
    /// where examples have one class.
    #[must_use]
    pub fn of(predictions: &Predictions) -> Self {
        let mut own = Self::default();
        for (label, prediction) in predictions.pairs() {
            *own.cells.entry((label, prediction)).or_default() += 1;
        }
        for (labels, predicted) in predictions.sets() {
            own.count(labels, predicted);
        }
        own
    }

    fn count(&mut self, labels: &[u32], predicted: &[u32]) {
        let classes = || labels.iter().chain(predicted);
        let most = classes().max().map_or(0, |&most| most as usize + 1);
        if self.labels.len() < most {
            for list in [&mut self.labels, &mut self.predictions, &mut self.hits] {
                list.resize(most, 0);
            }
        }
        let add = |list: &mut Vec<u64>, class: u32| {
            if let Some(rows) = list.get_mut(class as usize) {
                *rows += 1;
            }
        };
        for &class in labels {
            add(&mut self.labels, class);
            if predicted.contains(&class) {
                add(&mut self.hits, class);
            }
        }
        for &class in predicted {
            add(&mut self.predictions, class);
        }
    }

    /// F1 of all decisions together, whatever class they are about.
    #[must_use]
    pub fn micro_f1(&self) -> f64 {
        let of = |list: &[u64]| list.iter().sum::<u64>() as f64;
        ratio(
            2.0 * of(&self.hits),
            of(&self.labels) + of(&self.predictions),
        )
    }

    /// Rows counted; of rows with several classes, their labels.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.labels.iter().sum()
    }

    /// Rows predicted right.
    #[must_use]
    pub fn right(&self) -> u64 {
        self.hits.iter().sum()
    }

    /// Rows of a class that were predicted to be of another, or of itself.
    #[must_use]
    pub fn rows_of(&self, label: u32, prediction: u32) -> u64 {
        self.cells.get(&(label, prediction)).copied().unwrap_or(0)
    }

    /// `(label, prediction, rows)` of all that occurs, in the order of the classes.
    pub fn cells(&self) -> impl Iterator<Item = (u32, u32, u64)> + '_ {
        self.cells
            .iter()
            .map(|((label, predicted), rows)| (*label, *predicted, *rows))
    }

    /// The classes that occur among labels or predictions, and those between.
    pub fn classes(&self) -> impl Iterator<Item = u32> + use<> {
        0..to_u32(self.labels.len())
    }

    /// How well a class is predicted.
    #[must_use]
    pub fn class(&self, class: u32) -> ClassScores {
        let of = |list: &[u64]| list.get(class as usize).copied().unwrap_or(0);
        let (support, predicted) = (of(&self.labels), of(&self.predictions));
        let hits = of(&self.hits) as f64;
        ClassScores {
            support,
            predicted,
            precision: ratio(hits, predicted as f64),
            recall: ratio(hits, support as f64),
            f1: ratio(2.0 * hits, support as f64 + predicted as f64),
        }
    }

    /// The one class that everything is predicted to be of, though labels are of several.
    #[must_use]
    pub fn only_prediction(&self) -> Option<u32> {
        let occurs = |list: &[u64]| list.iter().filter(|rows| **rows > 0).count();
        let several = occurs(&self.labels) > 1 && occurs(&self.predictions) == 1;
        let class = self.predictions.iter().position(|rows| *rows > 0)?;
        several.then_some(to_u32(class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::data::tokens::Target;
    use crate::library::metric::metric;

    /// Twenty labels and predictions of four classes; class 3 is never predicted.
    const LABELS: [u32; 20] = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3];
    const TOLD: [u32; 20] = [0, 0, 1, 0, 2, 0, 0, 1, 1, 0, 1, 2, 2, 2, 1, 2, 2, 0, 0, 2];

    const SKLEARN_MATRIX: [[u64; 4]; 4] = [[5, 1, 1, 0], [1, 3, 1, 0], [1, 1, 4, 0], [1, 0, 1, 0]];
    const SKLEARN_CLASSES: [(f64, f64, f64, u64); 4] = [
        (0.625, 0.7142857142857143, 0.6666666666666666, 7),
        (0.6, 0.6, 0.6, 5),
        (
            0.5714285714285714,
            0.6666666666666666,
            0.6153846153846154,
            6,
        ),
        (0.0, 0.0, 0.0, 2),
    ];
    const SKLEARN_METRICS: [(&str, f64); 3] = [
        ("accuracy", 0.6),
        ("f1_macro", 0.4705128205128205),
        ("matthews", 0.4274174013487416),
    ];

    fn predictions(labels: &[u32], predicted: &[u32]) -> Predictions {
        Predictions {
            targets: labels.iter().map(|&l| Target::Class(l)).collect(),
            predicted: predicted.iter().map(|&c| Target::Class(c)).collect(),
            ..Predictions::default()
        }
    }

    /// scikit-learn 1.9.1: `precision_recall_fscore_support`, `confusion_matrix`, `f1_score`,
    /// `matthews_corrcoef`, `accuracy_score`, `zero_division=0`.
    #[test]
    fn values_are_those_of_scikit_learn() {
        let all = predictions(&LABELS, &TOLD);
        let confusion = Confusion::of(&all);
        let matrix: Vec<Vec<u64>> = (0..4)
            .map(|l| (0..4).map(|p| confusion.rows_of(l, p)).collect())
            .collect();
        assert_eq!(matrix, SKLEARN_MATRIX);
        for (class, (precision, recall, f1, support)) in (0..).zip(SKLEARN_CLASSES) {
            let own = confusion.class(class);
            for (ours, theirs) in [
                (own.precision, precision),
                (own.recall, recall),
                (own.f1, f1),
            ] {
                assert!((ours - theirs).abs() < 1e-15, "{class}: {ours} {theirs}");
            }
            assert_eq!(own.support, support);
        }
        for (name, value) in SKLEARN_METRICS {
            let own = metric(name).expect("registered").compute(&all);
            assert!((own - value).abs() < 1e-15, "{name}: {own} {value}");
        }
        for (class, value) in (0..).zip(SKLEARN_CLASSES.map(|c| c.2)) {
            let of = Predictions {
                positive: Some(class),
                ..all.clone()
            };
            let own = metric("f1").expect("registered").compute(&of);
            assert!((own - value).abs() < 1e-15, "f1 of {class}: {own} {value}");
        }
    }

    #[test]
    fn one_class_told_for_several_is_seen() {
        let only = |labels: &[u32], predicted: &[u32]| {
            Confusion::of(&predictions(labels, predicted)).only_prediction()
        };
        assert_eq!(only(&[0, 1, 0], &[1, 1, 1]), Some(1));
        assert_eq!(only(&[0, 1, 0], &[5, 5, 5]), Some(5));
        assert_eq!(only(&[0, 1, 0], &[1, 0, 1]), None);
        assert_eq!(only(&[1, 1], &[1, 1]), None);
        assert_eq!(only(&[], &[]), None);
    }
}
