//! ROUGE: n-grams and longest common subsequences of words.

use super::text::{counts, f_measure, mean_of_best, shared};
use super::{Answer, Metric, Predictions, Schema, ratio};

/// What is compared.
#[derive(Debug)]
enum Unit {
    Grams(usize),
    Subsequence,
}

/// One of the ROUGE metrics.
#[derive(Debug)]
pub(super) struct Rouge {
    unit: Unit,
    schema: &'static Schema,
}

const DOC: &str = "F-measure, 0 to 1, the mean over all texts, as Google's `rouge_score` computes it without stemming: words \
                   are runs of the letters a to z and digits, in lower case. With several references the best one counts.";

const PAPER: &str = "Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries";

/// Shared words.
pub(super) static ROUGE_1: Rouge = Rouge {
    unit: Unit::Grams(1),
    schema: &Schema {
        name: "rouge_1",
        summary: "ROUGE-1: F-measure of the words shared with the reference",
        doc: DOC,
        paper: PAPER,
        keys: &[],
    },
};

/// Shared pairs of words.
pub(super) static ROUGE_2: Rouge = Rouge {
    unit: Unit::Grams(2),
    schema: &Schema {
        name: "rouge_2",
        summary: "ROUGE-2: F-measure of the pairs of words shared with the reference",
        doc: DOC,
        paper: PAPER,
        keys: &[],
    },
};

/// The longest common subsequence.
pub(super) static ROUGE_L: Rouge = Rouge {
    unit: Unit::Subsequence,
    schema: &Schema {
        name: "rouge_l",
        summary: "ROUGE-L: F-measure of the longest common subsequence of words",
        doc: DOC,
        paper: PAPER,
        keys: &[],
    },
};

fn tokens(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Length of the longest common subsequence, in the memory of one row of its table.
fn common(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0_usize; b.len()];
    for x in a {
        let (mut before, mut left) = (0, 0);
        for (y, cell) in b.iter().zip(&mut row) {
            let above = *cell;
            *cell = if x == y { before + 1 } else { above.max(left) };
            (before, left) = (above, *cell);
        }
    }
    row.last().copied().unwrap_or(0)
}

impl Metric for Rouge {
    fn schema(&self) -> &'static Schema {
        self.schema
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Text
    }

    fn compute(&self, p: &Predictions) -> f64 {
        mean_of_best(&p.texts, |text, reference| {
            let (text, reference) = (tokens(text), tokens(reference));
            let (same, n) = match self.unit {
                Unit::Grams(n) => {
                    let same = shared(&counts(&text, n), &counts(&reference, n));
                    (same as f64, n)
                }
                Unit::Subsequence => (common(&text, &reference) as f64, 1),
            };
            let grams = |list: &[String]| (list.len() + 1).saturating_sub(n) as f64;
            f_measure(ratio(same, grams(&text)), ratio(same, grams(&reference)))
        })
    }
}
