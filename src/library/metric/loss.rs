//! Mean loss.

use super::{Answer, Metric, Predictions, Schema};

/// The mean of the training objective.
#[derive(Debug)]
pub(super) struct Loss;

static SCHEMA: Schema = Schema {
    name: "loss",
    summary: "mean of the objective: cross-entropy or squared error; less is better",
    doc: "",
    paper: "",
    keys: &[],
};

impl Metric for Loss {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn higher_is_better(&self) -> bool {
        false
    }

    fn fits(&self, _: Answer, _: usize, _: bool) -> bool {
        true
    }

    fn compute(&self, p: &Predictions) -> f64 {
        p.loss
    }
}
