//! F-score of the n-grams of characters.

use super::text::{TextPair, counts, shared, words};
use super::{Answer, Metric, Predictions, Schema, ratio};

/// F-score of the n-grams of characters.
#[derive(Debug)]
pub(super) struct Chrf;

static SCHEMA: Schema = Schema {
    name: "chrf",
    summary: "chrF2 of all generated texts together, 0 to 100, as sacrebleu computes it",
    doc: "sacrebleu's signature case:mixed|eff:yes|nc:6|nw:0|space:no: n-grams of one to six characters without spaces, \
          recall weighted as two precisions.",
    paper: "Popović 2015, chrF: character n-gram F-score for automatic MT evaluation",
    keys: &[],
};

/// Characters of the longest n-grams.
const ORDER: usize = 6;

/// Weight of recall, squared.
const FACTOR: f64 = 4.0;

/// n-grams of the text, of the reference, and of both, by their length.
type Sums = [[u64; 3]; ORDER];

fn sums(text: &[char], reference: &[char]) -> Sums {
    let mut sums = Sums::default();
    for (n, sum) in (1..).zip(&mut sums) {
        let grams = |list: &[char]| (list.len() + 1).saturating_sub(n) as u64;
        // What has no counterpart in the reference is not counted.
        let own = if grams(reference) > 0 { grams(text) } else { 0 };
        let both = shared(&counts(text, n), &counts(reference, n));
        *sum = [own, grams(reference), both];
    }
    sums
}

fn score(sums: &Sums) -> f64 {
    let orders = sums.iter().filter(|[own, other, _]| *own > 0 && *other > 0);
    let (mut precision, mut recall, mut order) = (0.0, 0.0, 0.0);
    for &[own, other, both] in orders {
        precision += both as f64 / own as f64;
        recall += both as f64 / other as f64;
        order += 1.0;
    }
    let (precision, recall) = (ratio(precision, order), ratio(recall, order));
    100.0
        * ratio(
            (1.0 + FACTOR) * precision * recall,
            FACTOR * precision + recall,
        )
}

fn characters(text: &str) -> Vec<char> {
    words(text).into_iter().flat_map(str::chars).collect()
}

/// Those with the reference that gives the best score; the first among equals.
fn best(pair: &TextPair) -> Sums {
    let text = characters(&pair.generated);
    let mut best = (-1.0, Sums::default());
    for reference in &pair.references {
        let own = sums(&text, &characters(reference));
        if score(&own) > best.0 {
            best = (score(&own), own);
        }
    }
    best.1
}

impl Metric for Chrf {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Text
    }

    fn compute(&self, p: &Predictions) -> f64 {
        let mut all = Sums::default();
        for pair in &p.texts {
            for (sum, own) in all.iter_mut().zip(best(pair)) {
                for (sum, own) in sum.iter_mut().zip(own) {
                    *sum += own;
                }
            }
        }
        score(&all)
    }
}
