//! Share of masked tokens that are predicted right.

use super::{Answer, Metric, Predictions, Schema};

/// Share of masked tokens that are predicted right.
#[derive(Debug)]
pub(super) struct MaskedAccuracy;

static SCHEMA: Schema = Schema {
    name: "masked_accuracy",
    summary: "share of masked places whose highest score is the token that stood there",
    doc: "right / masked, over all texts; places that show their own token or another one count too",
    paper: "",
    keys: &[],
};

impl Metric for MaskedAccuracy {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Token
    }

    fn compute(&self, p: &Predictions) -> f64 {
        p.share_right()
    }
}
