//! Cohen's kappa with quadratic weights, of classes that stand in an order.

use super::{Answer, Metric, Predictions, Schema};

/// Agreement beyond chance, in which a distance counts by its square.
#[derive(Debug)]
pub(super) struct QuadraticKappa;

static SCHEMA: Schema = Schema {
    name: "quadratic_kappa",
    summary: "Cohen's kappa with quadratic weights: agreement beyond chance, of classes that stand in an order",
    doc: "1 − Σ (label − prediction)² / Σ of the same over all pairs of a label and any row's prediction, by their number: scikit-learn's \
          `cohen_kappa_score(weights=\"quadratic\")`.",
    paper: "Cohen 1968, Weighted kappa",
    keys: &[],
};

impl Metric for QuadraticKappa {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Grade
    }

    fn compute(&self, p: &Predictions) -> f64 {
        // Sums of labels, of predictions, and of their squares give the expected squares, too.
        let (mut n, mut x1, mut y1, mut squares, mut apart) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (x, y) in p.grades() {
            n += 1.0;
            x1 += x;
            y1 += y;
            squares += x * x + y * y;
            apart += (x - y).powi(2);
        }
        let expected = squares * n - 2.0 * x1 * y1;
        if expected == 0.0 {
            return 0.0;
        }
        1.0 - n * apart / expected
    }
}
