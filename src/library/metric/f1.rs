//! F1 of the positive class.

use super::{HeadKind, Metric, Predictions, Schema, f1_of};

/// F1 of the class with index 1.
#[derive(Debug)]
pub(super) struct F1;

static SCHEMA: Schema = Schema {
    name: "f1",
    summary: "harmonic mean of precision and recall of the positive class (the second of two)",
    doc: "2 · hits / (labelled positive + predicted positive); 0 where both are 0.",
    paper: "van Rijsbergen 1979",
    keys: &[],
};

impl Metric for F1 {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, head: &HeadKind) -> bool {
        matches!(head, HeadKind::Classes(names) if names.len() == 2)
    }

    fn compute(&self, p: &Predictions) -> f64 {
        f1_of(&p.pairs(), 1)
    }
}
