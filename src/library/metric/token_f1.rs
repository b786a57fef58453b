//! Overlap of the words of an answer with those of its reference.

use super::text::{counts, f_measure, mean_of_best, shared, words};
use super::{Answer, Metric, Predictions, Schema, ratio};

/// F1 of the words of an answer.
#[derive(Debug)]
pub(super) struct TokenF1;

static SCHEMA: Schema = Schema {
    name: "token_f1",
    summary: "F1 of the words that an answer, or a generated text, shares with its reference",
    doc: "As in SQuAD's script: lower case, no punctuation, without the articles a, an and the; the mean over all texts. \
          With several references the best one counts. A text without words equals a reference without words.",
    paper: "Rajpurkar et al. 2016, SQuAD (arXiv 1606.05250), section 6.1",
    keys: &[],
};

/// The words that are compared.
pub(super) fn normal(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let plain: String = lower
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    without_articles(&plain)
}

/// Whether a text has a word that is compared.
#[must_use]
pub fn says_something(text: &str) -> bool {
    !normal(text).is_empty()
}

/// Articles are words of their own where no letter, digit or underscore is beside them.
fn without_articles(text: &str) -> Vec<String> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let (mut out, mut rest) = (String::new(), text);
    while let Some(from) = rest.find(part) {
        let (gap, word) = rest.split_at(from);
        let (word, behind) = word.split_at(word.find(|c| !part(c)).unwrap_or(word.len()));
        out.push_str(gap);
        out.push_str(if matches!(word, "a" | "an" | "the") {
            " "
        } else {
            word
        });
        rest = behind;
    }
    out.push_str(rest);
    words(&out).into_iter().map(str::to_owned).collect()
}

impl Metric for TokenF1 {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        matches!(answer, Answer::Text | Answer::Part)
    }

    fn compute(&self, p: &Predictions) -> f64 {
        mean_of_best(&p.texts, |text, reference| {
            let (text, reference) = (normal(text), normal(reference));
            if text.is_empty() || reference.is_empty() {
                return f64::from(u8::from(text == reference));
            }
            let same = shared(&counts(&text, 1), &counts(&reference, 1)) as f64;
            f_measure(
                ratio(same, text.len() as f64),
                ratio(same, reference.len() as f64),
            )
        })
    }
}
