//! Share of right classes.

use super::{Answer, Metric, Predictions, Schema};

/// Share of right classes.
#[derive(Debug)]
pub(super) struct Accuracy;

static SCHEMA: Schema = Schema {
    name: "accuracy",
    summary: "share of examples whose highest score is the right class",
    doc: "right / all",
    paper: "",
    keys: &[],
};

impl Metric for Accuracy {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        matches!(answer, Answer::Class | Answer::Grade | Answer::Option)
    }

    fn compute(&self, p: &Predictions) -> f64 {
        p.share_right()
    }
}
