//! Share of texts whose classes are all right.

use super::{Answer, Metric, Predictions, Schema, ratio};

/// Share of texts of which exactly the labelled classes are predicted.
#[derive(Debug)]
pub(super) struct SubsetAccuracy;

static SCHEMA: Schema = Schema {
    name: "subset_accuracy",
    summary: "share of texts of which exactly the labelled classes are predicted",
    doc: "For texts with any number of classes. One class too many or too few makes a text wrong.",
    paper: "",
    keys: &[],
};

impl Metric for SubsetAccuracy {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Classes
    }

    fn compute(&self, p: &Predictions) -> f64 {
        let all = p.sets().count();
        let right = p.sets().filter(|(labels, own)| labels == own).count();
        ratio(right as f64, all as f64)
    }
}
