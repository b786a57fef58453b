//! How far predicted classes are from the right ones, where classes stand in an order.

use super::{Answer, Metric, Predictions, Schema, ratio};

/// The mean distance.
#[derive(Debug)]
pub(super) struct RankError;

static SCHEMA: Schema = Schema {
    name: "rank_error",
    summary: "mean number of classes by which a prediction is off, where classes stand in an order",
    doc: "Σ |place of the prediction − place of the label| / all: the mean absolute error of ranks. Less is better.",
    paper: "",
    keys: &[],
};

impl Metric for RankError {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn higher_is_better(&self) -> bool {
        false
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Grade
    }

    fn compute(&self, p: &Predictions) -> f64 {
        let (sum, count) = p.grades().fold((0.0, 0.0), |(sum, count), (x, y)| {
            (sum + (x - y).abs(), count + 1.0)
        });
        ratio(sum, count)
    }
}
