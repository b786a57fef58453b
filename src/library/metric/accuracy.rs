//! Share of right classes.

use super::{Answer, Metric, Predictions, Schema, ratio};

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
        answer == Answer::Class
    }

    fn compute(&self, p: &Predictions) -> f64 {
        let pairs = p.pairs();
        ratio(
            pairs.iter().filter(|(l, p)| l == p).count() as f64,
            pairs.len() as f64,
        )
    }
}
