//! Share of tokens that are predicted right.

use super::{Answer, Metric, Predictions, Schema};

/// Share of tokens that are predicted right.
#[derive(Debug)]
pub(super) struct TokenAccuracy;

static SCHEMA: Schema = Schema {
    name: "token_accuracy",
    summary: "share of the predicted tokens that have the highest score at their place, or of the words whose class is right",
    doc: "right / predicted, over all texts: every token but the first of each text, the one that ends it among them; with `token_classify`, every word",
    paper: "",
    keys: &[],
};

impl Metric for TokenAccuracy {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        matches!(answer, Answer::Token | Answer::Tags)
    }

    fn compute(&self, p: &Predictions) -> f64 {
        p.share_right()
    }
}
