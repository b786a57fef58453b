//! Share of generated texts that are their reference.

use super::text::mean_of_best;
use super::{Answer, Metric, Predictions, Schema};

/// Share of generated texts that are their reference.
#[derive(Debug)]
pub(super) struct ExactMatch;

static SCHEMA: Schema = Schema {
    name: "exact_match",
    summary: "share of the generated texts that equal their reference",
    doc: "A text counts if it is its reference character by character. Space before and behind both is not compared. With \
          several references one of them suffices.",
    paper: "",
    keys: &[],
};

impl Metric for ExactMatch {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Text
    }

    fn compute(&self, p: &Predictions) -> f64 {
        mean_of_best(&p.texts, |text, reference| {
            f64::from(u8::from(text.trim() == reference.trim()))
        })
    }
}
