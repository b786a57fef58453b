//! Mean F1 over classes.

use super::{HeadKind, Metric, Predictions, Schema, f1_of, ratio};

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

    fn fits(&self, head: &HeadKind) -> bool {
        matches!(head, HeadKind::Classes(_))
    }

    fn compute(&self, p: &Predictions) -> f64 {
        let pairs = p.pairs();
        let mut classes: Vec<u32> = pairs.iter().flat_map(|(l, p)| [*l, *p]).collect();
        classes.sort_unstable();
        classes.dedup();
        ratio(
            classes.iter().map(|&c| f1_of(&pairs, c)).sum(),
            classes.len() as f64,
        )
    }
}
