//! Demonstrations in the context (method P3): prompts filled for labelled examples, each with its
//! class's word in the place of the mask, behind the text that is asked about.
//!
//! **Invariant:** which ones a text gets is a function of the seed, the text and the number of the
//! draw; the order of the data, batches and threads cannot change it.

use serde::{Deserialize, Serialize};

use crate::base::rng::Stream;
use crate::library::counts::to_u32;

/// A filled prompt of known class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demonstration {
    /// The template filled with the example, the mask token still in it: what tells it from others.
    pub text: String,
    /// Its tokens, the class's word in the place of the mask.
    pub tokens: Vec<u32>,
}

/// What demonstrations are drawn from, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demonstrations {
    /// How many of each class a text is shown.
    pub each: u64,
    /// Tokens after which an example's own text is cut.
    pub length: u64,
    /// Seed of the draws.
    pub seed: u64,
    /// The examples of each class, by text, no text twice in a class. Empty where the data or the
    /// tokenizer are not at hand.
    pub classes: Vec<Vec<Demonstration>>,
    /// The split they come from, as the recipe names it.
    pub from: String,
    /// Hash of that split; `None` where it could not be had.
    pub identity: Option<String>,
}

impl Demonstrations {
    /// Puts the examples of each class in the order in which they are drawn from.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        for class in &mut self.classes {
            class.sort_by(|a, b| a.text.cmp(&b.text));
            class.dedup_by(|a, b| a.text == b.text);
        }
        self
    }

    /// Whether there are examples to draw from.
    #[must_use]
    pub const fn at_hand(&self) -> bool {
        !self.classes.is_empty()
    }

    /// The first class that lacks examples, with their number: one more is needed than is shown,
    /// because no text is its own demonstration.
    #[must_use]
    pub fn lacking(&self) -> Option<(usize, usize)> {
        let counts = self.classes.iter().map(Vec::len).enumerate();
        counts.into_iter().find(|&(_, n)| n as u64 <= self.each)
    }

    /// The demonstrations of a filled template, in the order of the classes; never one of the same text.
    #[must_use]
    pub fn draw(&self, text: &str, draw: u32) -> Vec<&Demonstration> {
        let hash = blake3::hash(text.as_bytes());
        let word = |i: usize| {
            let bytes = hash.as_bytes().get(4 * i..4 * i + 4);
            bytes.map_or(0, |b| {
                b.iter().rev().fold(0, |n, &b| (n << 8) | u32::from(b))
            })
        };
        let stream = Stream::new(self.seed, "demonstrations");
        let mut list = Vec::new();
        for (class, examples) in self.classes.iter().enumerate() {
            // Places that are no longer free, ascending.
            let own = examples.binary_search_by(|d| d.text.as_str().cmp(text));
            let mut taken: Vec<usize> = own.into_iter().collect();
            for slot in 0..self.each {
                let number = class as u64 * self.each + slot;
                let [a, b, _, _] = stream.block([word(0), word(1), to_u32(number), draw]);
                let random = u128::from(a) | (u128::from(b) << 32);
                let free = examples.len().saturating_sub(taken.len());
                let mut place = ((random * free as u128) >> 64) as usize;
                let mut before = 0;
                for &other in &taken {
                    if other <= place {
                        place += 1;
                        before += 1;
                    }
                }
                taken.insert(before, place);
                list.extend(examples.get(place));
            }
        }
        list
    }

    /// The tokens of [`draw`](Self::draw), one demonstration after another.
    #[must_use]
    pub fn tokens(&self, text: &str, draw: u32) -> Vec<u32> {
        let drawn = self.draw(text, draw).into_iter();
        drawn.flat_map(|d| d.tokens.iter().copied()).collect()
    }

    /// Most tokens that a draw can have.
    #[must_use]
    pub fn longest(&self) -> usize {
        let of_class = |class: &Vec<Demonstration>| -> usize {
            let mut lengths: Vec<usize> = class.iter().map(|d| d.tokens.len()).collect();
            lengths.sort_unstable();
            lengths.iter().rev().take(self.each as usize).sum()
        };
        self.classes.iter().map(of_class).sum()
    }

    /// Bytes in memory.
    #[must_use]
    pub fn heap_bytes(&self) -> u64 {
        let all = self.classes.iter().flatten();
        all.map(|d| (d.text.len() + 4 * d.tokens.len() + 48) as u64)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(seed: u64, each: u64) -> Demonstrations {
        let class = |c: u32, n: u32| -> Vec<Demonstration> {
            let one = |i| Demonstration {
                text: format!("text {i}"),
                tokens: vec![c; i as usize % 4 + 1],
            };
            (0..n).rev().chain([0]).map(one).collect()
        };
        Demonstrations {
            each,
            length: 8,
            seed,
            classes: vec![class(1, 9), class(2, 5), class(3, 4)],
            from: String::new(),
            identity: None,
        }
        .sorted()
    }

    #[test]
    fn draws_depend_on_seed_text_and_number_and_never_show_the_text_itself() {
        let from = pool(1, 3);
        assert_eq!(from.classes[0].len(), 9, "no text twice");
        assert_eq!(from.lacking(), None);
        assert_eq!(pool(1, 4).lacking(), Some((2, 4)));
        let mut seen = std::collections::BTreeSet::new();
        for draw in 0..200 {
            let drawn = from.draw("text 2", draw);
            let classes: Vec<u32> = drawn.iter().map(|d| d.tokens[0]).collect();
            assert_eq!(classes, [1, 1, 1, 2, 2, 2, 3, 3, 3]);
            let mut texts: Vec<(u32, &str)> = drawn
                .iter()
                .map(|d| (d.tokens[0], d.text.as_str()))
                .collect();
            assert!(texts.iter().all(|(_, t)| *t != "text 2"));
            texts.sort_unstable();
            texts.dedup();
            assert_eq!(texts.len(), 9, "no demonstration twice");
            assert!(from.tokens("text 2", draw).len() <= from.longest());
            seen.extend(texts);
        }
        assert_eq!(seen.len(), 8 + 4 + 3, "every other one is drawn at times");
        assert_eq!(from.draw("new", 0), pool(1, 3).draw("new", 0));
        assert_ne!(from.draw("new", 0), from.draw("new", 1));
        assert_ne!(from.draw("new", 0), pool(2, 3).draw("new", 0));
        assert_ne!(from.draw("new", 0), from.draw("newer", 0));
        assert_eq!(pool(1, 1).longest(), 4 + 4 + 4);
    }
}
