//! F1 of the positive class.

use super::{Answer, Confusion, Metric, Predictions, Schema};

/// F1 of one class: the second of two, or the one that a stage names.
#[derive(Debug)]
pub(super) struct F1;

static SCHEMA: Schema = Schema {
    name: "f1",
    summary: "harmonic mean of precision and recall of one class: `positive`, else the second of two",
    doc: "2 · hits / (labelled positive + predicted positive); 0 where both are 0. The positive class is the one that the stage names, `positive = spam`; else the second of two, which results call by its name.",
    paper: "van Rijsbergen 1979",
    keys: &[],
};

impl Metric for F1 {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, classes: usize, positive: bool) -> bool {
        matches!(answer, Answer::Class | Answer::Grade) && (classes == 2 || positive)
    }

    fn compute(&self, p: &Predictions) -> f64 {
        Confusion::of(p).class(p.positive.unwrap_or(1)).f1
    }
}
