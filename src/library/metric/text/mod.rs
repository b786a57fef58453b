//! What metrics of generated texts share: words, n-grams and their counts.

use std::collections::HashMap;
use std::hash::Hash;

mod thirteen;

pub(super) use thirteen::thirteen_a;

/// A generated text and what it is compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextPair {
    /// What the model wrote.
    pub generated: String,
    /// What it was to write: one text, or several that are all right.
    pub references: Vec<String>,
}

/// How often each n-gram occurs.
pub(super) type Counts<'a, T> = HashMap<&'a [T], u64>;

/// The words between spaces, as Python's `split` finds them.
pub(super) fn words(text: &str) -> Vec<&str> {
    // Python counts the four separators of ASCII as spaces; Unicode does not.
    text.split(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
        .filter(|word| !word.is_empty())
        .collect()
}

/// The n-grams of a list, each with how often it occurs.
pub(super) fn counts<T: Eq + Hash>(list: &[T], n: usize) -> Counts<'_, T> {
    let mut counts = Counts::new();
    for gram in list.windows(n.max(1)) {
        *counts.entry(gram).or_default() += 1;
    }
    counts
}

/// How many n-grams two counts have in common.
pub(super) fn shared<T: Eq + Hash>(a: &Counts<'_, T>, b: &Counts<'_, T>) -> u64 {
    let least = |(gram, n): (&&[T], &u64)| b.get(*gram).map_or(0, |m| *m.min(n));
    a.iter().map(least).sum()
}

/// The harmonic mean of precision and recall; 0 where both are.
pub(super) fn f_measure(precision: f64, recall: f64) -> f64 {
    super::ratio(2.0 * precision * recall, precision + recall)
}

/// The mean over all texts of the best value that a text has with one of its references; 0 without texts.
pub(super) fn mean_of_best(pairs: &[TextPair], of: impl Fn(&str, &str) -> f64) -> f64 {
    let best = |pair: &TextPair| {
        let each = pair.references.iter();
        each.map(|reference| of(&pair.generated, reference))
            .fold(0.0, f64::max)
    };
    super::ratio(pairs.iter().map(best).sum(), pairs.len() as f64)
}

#[cfg(test)]
mod tests;
