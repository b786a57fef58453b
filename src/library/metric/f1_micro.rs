//! F1 of all decisions together.

use super::{Answer, Confusion, Metric, Predictions, Schema};

/// F1 over the labels and predictions of all classes together.
#[derive(Debug)]
pub(super) struct F1Micro;

static SCHEMA: Schema = Schema {
    name: "f1_micro",
    summary: "F1 over the labels and predictions of all classes together",
    doc: "2 · hits / (labels + predictions), summed over classes. Where each text has one class, it is the accuracy.",
    paper: "",
    keys: &[],
};

impl Metric for F1Micro {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer.is_of_texts()
    }

    fn compute(&self, p: &Predictions) -> f64 {
        Confusion::of(p).micro_f1()
    }
}
