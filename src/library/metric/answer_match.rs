//! Share of answers that have the words of their reference.

use super::text::mean_of_best;
use super::token_f1::normal;
use super::{Answer, Metric, Predictions, Schema};

/// Share of answers that have the words of their reference.
#[derive(Debug)]
pub(super) struct AnswerMatch;

static SCHEMA: Schema = Schema {
    name: "answer_match",
    summary: "share of the answers whose words are those of their reference: the exact match of SQuAD",
    doc: "As in SQuAD's script: lower case, no punctuation, without the articles a, an and the, and of any space one. With several references one of \
          them suffices.",
    paper: "Rajpurkar et al. 2016, SQuAD (arXiv 1606.05250), section 6.1",
    keys: &[],
};

impl Metric for AnswerMatch {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Part
    }

    fn compute(&self, p: &Predictions) -> f64 {
        mean_of_best(&p.texts, |text, reference| {
            f64::from(u8::from(normal(text) == normal(reference)))
        })
    }
}
