//! Share of masked tokens that are told right.

use super::{Answer, Metric, Predictions, Schema, ratio};

/// Share of masked tokens that are told right.
#[derive(Debug)]
pub(super) struct TokenAccuracy;

static SCHEMA: Schema = Schema {
    name: "token_accuracy",
    summary: "share of masked places whose highest score is the token that stood there",
    doc: "right / masked, over all texts; places that show their own token or another one count too",
    paper: "",
    keys: &[],
};

impl Metric for TokenAccuracy {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Token
    }

    fn compute(&self, p: &Predictions) -> f64 {
        let pairs = p.pairs();
        let right = pairs.iter().filter(|(token, told)| token == told).count();
        ratio(right as f64, pairs.len() as f64)
    }
}
