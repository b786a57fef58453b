//! CIDEr: n-grams weighted by how rare they are among the references.

use std::collections::{HashMap, HashSet};

use super::text::{Counts, counts, thirteen_a};
use super::{Answer, Metric, Predictions, Schema, ratio};

/// CIDEr-D of a corpus.
#[derive(Debug)]
pub(super) struct Cider;

static SCHEMA: Schema = Schema {
    name: "cider",
    summary: "CIDEr-D: cosine of n-grams weighted by their rarity among the references, 0 to 10",
    doc: "Words of the tokenizer 13a in lower case without punctuation; n-grams of one to four words, weighted by tf-idf over \
          the references of the split; clipped counts and a Gaussian of the lengths' difference (sigma 6), as \
          `pycocoevalcap` computes it of such words. Values depend on the split: only those of one split compare.",
    paper: "Vedantam et al. 2015 (arXiv 1411.5726)",
    keys: &[],
};

/// Words of the longest n-grams.
const ORDER: usize = 4;

/// Width of the Gaussian of the lengths' difference.
const SIGMA: f64 = 6.0;

fn tokens(text: &str) -> Vec<String> {
    thirteen_a(text)
        .into_iter()
        .map(|word| word.to_lowercase())
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .collect()
}

/// In how many rows' references each n-gram occurs, and how many rows there are.
struct Rarity<'a> {
    rows: f64,
    seen: HashMap<&'a [String], u64>,
}

impl<'a> Rarity<'a> {
    fn of(rows: &'a [(Vec<String>, Vec<Vec<String>>)]) -> Self {
        let mut seen = HashMap::new();
        for (_, references) in rows {
            let own: HashSet<&[String]> = references
                .iter()
                .flat_map(|r| (1..=ORDER).flat_map(|n| r.windows(n)))
                .collect();
            for gram in own {
                *seen.entry(gram).or_default() += 1;
            }
        }
        Self {
            rows: rows.len() as f64,
            seen,
        }
    }

    fn weight(&self, gram: &[String], count: u64) -> f64 {
        let rows = self.seen.get(gram).map_or(1.0, |n| (*n as f64).max(1.0));
        count as f64 * (libm::log(self.rows) - libm::log(rows))
    }

    fn norm(&self, counts: &Counts<'_, String>) -> f64 {
        let squares = counts.iter().map(|(gram, n)| self.weight(gram, *n).powi(2));
        squares.sum::<f64>().sqrt()
    }

    /// Mean over the lengths of n-grams of how alike two texts are.
    fn alike(&self, text: &[String], reference: &[String]) -> f64 {
        // The published code takes pairs of words as the length.
        let pairs = |list: &[String]| list.len().saturating_sub(1) as f64;
        let apart = pairs(text) - pairs(reference);
        let near = libm::exp(-apart * apart / (2.0 * SIGMA * SIGMA));
        let of = |n: usize| {
            let (own, other) = (counts(text, n), counts(reference, n));
            let both = own.iter().filter_map(|(gram, count)| {
                let theirs = self.weight(gram, *other.get(gram)?);
                Some(self.weight(gram, *count).min(theirs) * theirs)
            });
            ratio(both.sum(), self.norm(&own) * self.norm(&other)) * near
        };
        (1..=ORDER).map(of).sum::<f64>() / ORDER as f64
    }
}

impl Metric for Cider {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Text
    }

    fn compute(&self, p: &Predictions) -> f64 {
        let rows: Vec<(Vec<String>, Vec<Vec<String>>)> = p
            .texts
            .iter()
            .map(|pair| {
                let references = pair.references.iter().map(|r| tokens(r)).collect();
                (tokens(&pair.generated), references)
            })
            .collect();
        let rarity = Rarity::of(&rows);
        let each = rows.iter().map(|(text, references)| {
            let sum: f64 = references.iter().map(|r| rarity.alike(text, r)).sum();
            10.0 * ratio(sum, references.len() as f64)
        });
        ratio(each.sum(), rows.len() as f64)
    }
}
