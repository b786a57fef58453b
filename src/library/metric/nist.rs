//! NIST: n-grams weighted by what they tell.

use std::collections::HashMap;

use super::text::{counts, thirteen_a};
use super::{Answer, Metric, Predictions, Schema, ratio};

/// NIST of a corpus.
#[derive(Debug)]
pub(super) struct Nist;

static SCHEMA: Schema = Schema {
    name: "nist",
    summary: "NIST-5 of all generated texts together: shared n-grams, rare ones counting more",
    doc: "Words of the tokenizer 13a; n-grams of one to five words, each weighted by log2 of how often its beginning occurs \
          in the references for each time that it does itself; a penalty for short texts. As NLTK's `corpus_nist`.",
    paper: "Doddington 2002, Automatic Evaluation of Machine Translation Quality Using N-gram Co-occurrence Statistics",
    keys: &[],
};

/// Words of the longest n-grams.
const ORDER: usize = 5;

/// Words of a text and of its references.
type Row = (Vec<String>, Vec<Vec<String>>);

/// How often each n-gram occurs in the references, and how many words these have.
fn information(rows: &[Row]) -> (HashMap<&[String], u64>, u64) {
    let (mut all, mut words) = (HashMap::new(), 0);
    for reference in rows.iter().flat_map(|(_, references)| references) {
        words += reference.len() as u64;
        for n in 1..=ORDER {
            for (gram, count) in counts(reference, n) {
                *all.entry(gram).or_default() += count;
            }
        }
    }
    (all, words)
}

/// The factor for texts shorter than their references: half at two thirds of the length.
fn penalty(ratio: f64) -> f64 {
    if ratio > 0.0 && ratio < 1.0 {
        let beta = libm::log(0.5) / libm::log(1.5).powi(2);
        libm::exp(beta * libm::log(ratio).powi(2))
    } else {
        ratio.clamp(0.0, 1.0)
    }
}

fn score(rows: &[Row]) -> f64 {
    let (seen, words) = information(rows);
    let weight = |gram: &[String]| {
        let own = seen.get(gram).copied().unwrap_or(0);
        let beginning = gram.split_last().map_or(&[][..], |(_, front)| front);
        let before = seen.get(beginning).copied().unwrap_or(words);
        libm::log2(ratio(before as f64, own as f64))
    };
    let (mut sum, mut lengths) = (0.0, (0, 0));
    for n in 1..=ORDER {
        let (mut right, mut all) = (0.0, 0);
        for (text, references) in rows {
            let own = counts(text, n);
            let grams: u64 = own.values().sum();
            // That of the best reference by precision, then by its length.
            let best = references.iter().map(|reference| {
                let other = counts(reference, n);
                let both = own.iter().filter_map(|(gram, count)| {
                    let shared = *other.get(gram)?.min(count);
                    Some(weight(gram) * shared as f64)
                });
                (both.sum::<f64>(), reference.len() as u64)
            });
            let best = best.max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let (information, length) = best.unwrap_or_default();
            right += information;
            all += grams;
            lengths.0 += text.len() as u64;
            lengths.1 += length;
        }
        sum += ratio(right, all as f64);
    }
    sum * penalty(ratio(lengths.0 as f64, lengths.1 as f64))
}

impl Metric for Nist {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Text
    }

    fn compute(&self, p: &Predictions) -> f64 {
        let rows: Vec<Row> = p
            .texts
            .iter()
            .map(|pair| {
                let references = pair.references.iter().map(|r| thirteen_a(r)).collect();
                (thirteen_a(&pair.generated), references)
            })
            .collect();
        score(&rows)
    }
}
