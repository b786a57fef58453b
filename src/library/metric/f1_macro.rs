//! Mean F1 over classes.

use super::{Answer, Confusion, Metric, Predictions, Schema, ratio};

/// Mean F1 over the classes that occur.
#[derive(Debug)]
pub(super) struct F1Macro;

static SCHEMA: Schema = Schema {
    name: "f1_macro",
    summary: "unweighted mean of every class's F1",
    doc: "Taken over the classes that occur among labels or predictions.",
    paper: "",
    keys: &[],
};

impl Metric for F1Macro {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer.is_of_texts()
    }

    fn compute(&self, p: &Predictions) -> f64 {
        let confusion = Confusion::of(p);
        let each = confusion.classes().map(|c| confusion.class(c));
        let occurring: Vec<f64> = each
            .filter(|c| c.support + c.predicted > 0)
            .map(|c| c.f1)
            .collect();
        ratio(occurring.iter().sum(), occurring.len() as f64)
    }
}
