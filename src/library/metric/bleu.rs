//! BLEU of a corpus.

use super::text::{Counts, TextPair, counts, shared, thirteen_a};
use super::{Answer, Metric, Predictions, Schema};

/// BLEU of a corpus.
#[derive(Debug)]
pub(super) struct Bleu;

static SCHEMA: Schema = Schema {
    name: "bleu",
    summary: "BLEU-4 of all generated texts together, 0 to 100, as sacrebleu computes it",
    doc: "sacrebleu's signature case:mixed|eff:no|tok:13a|smooth:exp: words of the tokenizer 13a, clipped n-grams of one to \
          four words, exponential smoothing, brevity penalty by the closest reference length.",
    paper: "Papineni et al. 2002; Post 2018 (arXiv 1804.08771)",
    keys: &[],
};

/// Words of the longest n-grams.
const ORDER: usize = 4;

/// What the texts add up to.
#[derive(Default)]
struct Sums {
    right: [u64; ORDER],
    all: [u64; ORDER],
    generated: u64,
    reference: u64,
}

impl Sums {
    fn add(&mut self, pair: &TextPair) {
        let text = thirteen_a(&pair.generated);
        let references: Vec<Vec<String>> = pair.references.iter().map(|r| thirteen_a(r)).collect();
        let length = text.len() as u64;
        self.generated += length;
        let closest = references.iter().map(|r| r.len() as u64);
        self.reference += closest
            .min_by_key(|&n| (n.abs_diff(length), n))
            .unwrap_or(0);
        for (n, (right, all)) in (1..).zip(self.right.iter_mut().zip(&mut self.all)) {
            let mut most = Counts::new();
            for reference in &references {
                for (gram, count) in counts(reference, n) {
                    let known = most.entry(gram).or_default();
                    *known = count.max(*known);
                }
            }
            *right += shared(&counts(&text, n), &most);
            *all += (text.len() + 1).saturating_sub(n) as u64;
        }
    }

    fn score(&self) -> f64 {
        if self.right.iter().all(|&n| n == 0) {
            return 0.0;
        }
        let (mut logs, mut smooth) = (0.0, 1.0);
        for (&right, &all) in self.right.iter().zip(&self.all) {
            if all == 0 {
                // No text is that long: the product is 0.
                return 0.0;
            }
            let right = if right == 0 {
                smooth *= 2.0;
                1.0 / smooth
            } else {
                right as f64
            };
            logs += libm::log(100.0 * right / all as f64);
        }
        let brevity = if self.generated < self.reference {
            libm::exp(1.0 - self.reference as f64 / self.generated as f64)
        } else {
            1.0
        };
        brevity * libm::exp(logs / ORDER as f64)
    }
}

impl Metric for Bleu {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Text
    }

    fn compute(&self, p: &Predictions) -> f64 {
        let mut sums = Sums::default();
        for pair in &p.texts {
            sums.add(pair);
        }
        sums.score()
    }
}
