//! METEOR: aligned words, and how scattered they are.

use snowball_stemmers_rs::{Algorithm, Stemmer};

use super::text::{mean_of_best, thirteen_a};
use super::{Answer, Metric, Predictions, Schema, ratio};

/// METEOR without synonyms.
#[derive(Debug)]
pub(super) struct Meteor;

static SCHEMA: Schema = Schema {
    name: "meteor",
    summary: "METEOR by equal words and equal stems (English); the mean over all texts",
    doc: "Words of the tokenizer 13a in lower case are aligned with those of the reference: equal ones first, then those \
          with equal stems (Snowball's English stemmer). No synonyms are looked up. Score = (1 - 0.5 · (chunks / matches)³) · \
          P R / (0.9 P + 0.1 R), as NLTK's `meteor_score` without WordNet. With several references the best one counts.",
    paper: "Lavie and Agarwal 2007, METEOR: An Automatic Metric for MT Evaluation",
    keys: &[],
};

/// A word that is not aligned yet, with its place.
type Word = (usize, String);

/// Aligns equal words, from the last one backwards, each with the last that is free.
fn align(text: &mut Vec<Word>, reference: &mut Vec<Word>, matches: &mut Vec<(usize, usize)>) {
    for i in (0..text.len()).rev() {
        let Some((place, word)) = text.get(i) else {
            continue;
        };
        if let Some(j) = reference.iter().rposition(|(_, other)| other == word)
            && let Some((other, _)) = reference.get(j)
        {
            matches.push((*place, *other));
            reference.remove(j);
            text.remove(i);
        }
    }
}

/// Runs of matches that follow each other in both texts.
fn chunks(matches: &[(usize, usize)]) -> usize {
    let apart =
        |pair: &&[(usize, usize)]| !matches!(pair, [a, b] if b.0 == a.0 + 1 && b.1 == a.1 + 1);
    matches.windows(2).filter(apart).count() + 1
}

fn score(text: &str, reference: &str) -> f64 {
    let words = |text: &str| -> Vec<Word> {
        let lower = thirteen_a(text).into_iter().map(|w| w.to_lowercase());
        lower.enumerate().collect()
    };
    let (mut text, mut reference) = (words(text), words(reference));
    let lengths = (text.len() as f64, reference.len() as f64);
    let mut matches = Vec::new();
    align(&mut text, &mut reference, &mut matches);
    let stemmer = Stemmer::create(Algorithm::English);
    for (_, word) in text.iter_mut().chain(&mut reference) {
        *word = stemmer.stem(word).into_owned();
    }
    align(&mut text, &mut reference, &mut matches);
    if matches.is_empty() {
        return 0.0;
    }
    matches.sort_unstable();
    let count = matches.len() as f64;
    let (precision, recall) = (ratio(count, lengths.0), ratio(count, lengths.1));
    let mean = ratio(precision * recall, 0.9 * precision + 0.1 * recall);
    let scattered = chunks(&matches) as f64 / count;
    (1.0 - 0.5 * scattered.powi(3)) * mean
}

impl Metric for Meteor {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Text
    }

    fn compute(&self, p: &Predictions) -> f64 {
        mean_of_best(&p.texts, score)
    }
}
