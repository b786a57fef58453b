//! Perplexity at the places that are read.

use super::{Answer, Metric, Predictions, Schema};

/// Exponential of the mean loss at the places that are read.
#[derive(Debug)]
pub(super) struct Perplexity;

static SCHEMA: Schema = Schema {
    name: "perplexity",
    summary: "e to the mean cross-entropy at masked places; less is better",
    doc: "exp(mean of -ln p(token)) over the masked places of all texts. The masks of an evaluation are the same for \
          every stage, so that values on one split and rate can be compared.",
    paper: "",
    keys: &[],
};

impl Metric for Perplexity {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn higher_is_better(&self) -> bool {
        false
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Token
    }

    fn compute(&self, p: &Predictions) -> f64 {
        libm::exp(p.loss).min(f64::MAX)
    }
}
