//! Demonstrations in the context (method P3): prompts filled for labelled examples, each with its
//! class's word in the place of the mask, behind the text that is asked about.
//!
//! **Invariant:** which ones a text gets is a function of the seed, the text and the number of the
//! draw; the order of the data, batches and threads cannot change it.

use serde::{Deserialize, Serialize};

use crate::base::rng::Stream;
use crate::library::counts::to_u32;

/// In which order demonstrations stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Class by class.
    #[default]
    Classes,
    /// One of each class in turn.
    Turns,
    /// Any, by the seed and the text.
    Shuffled,
}

/// How demonstrations are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Showing {
    /// What stands behind each of them, where they stand before the text that is asked about; they stand behind it otherwise.
    pub before: Option<String>,
    /// In which order.
    pub order: Order,
    /// Whether all texts are shown the same.
    pub once: bool,
}

/// A filled prompt of known class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demonstration {
    /// The template filled with the example, the mask token still in it: what tells it from others.
    pub text: String,
    /// Its tokens, the class's word in the place of the mask.
    pub tokens: Vec<u32>,
    /// The template filled with the example, its columns cut, and with the class's word, where it stands before the text.
    #[serde(default)]
    pub shown: String,
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
    /// How they are shown.
    #[serde(default)]
    pub showing: Showing,
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

    /// The demonstrations of a filled template, in their order; never one of the same text, unless all texts are shown the same.
    #[must_use]
    pub fn draw(&self, text: &str, draw: u32) -> Vec<&Demonstration> {
        let text = if self.showing.once { "" } else { text };
        let list = self.by_class(text, draw);
        let each = self.each as usize;
        let place = |i: usize| list.get(i).copied();
        match self.showing.order {
            Order::Classes => list,
            Order::Turns => (0..each)
                .flat_map(|slot| (slot..list.len()).step_by(each.max(1)))
                .filter_map(place)
                .collect(),
            Order::Shuffled => {
                let purpose = format!(
                    "demonstrations/{draw}/{}",
                    blake3::hash(text.as_bytes()).to_hex()
                );
                let order = Stream::new(self.seed, &purpose).permutation(list.len());
                let order = order.into_iter();
                order.filter_map(|i| place(i as usize)).collect()
            }
        }
    }

    /// What stands before a filled template; `None` where demonstrations stand behind it.
    ///
    /// # Errors
    /// The text is itself among those that all texts are shown.
    pub fn in_front(&self, text: &str, draw: u32) -> Result<Option<String>, String> {
        let drawn = self.draw(text, draw);
        if self.showing.once && drawn.iter().any(|d| d.text == text) {
            let short: String = text.chars().take(60).collect();
            return Err(format!(
                "the text `{short}` is itself one of the demonstrations that all texts are shown; write `demonstration_draw = text`, or take them \
                 from another split"
            ));
        }
        let Some(separator) = &self.showing.before else {
            return Ok(None);
        };
        let each = drawn.iter().map(|d| format!("{}{separator}", d.shown));
        Ok(Some(each.collect()))
    }

    /// The same in the order of the classes.
    fn by_class(&self, text: &str, draw: u32) -> Vec<&Demonstration> {
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
        all.map(|d| (d.text.len() + d.shown.len() + 4 * d.tokens.len() + 72) as u64)
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
                shown: String::new(),
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
            showing: Showing::default(),
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

    #[test]
    fn demonstrations_stand_in_their_order_and_before_a_text() {
        let mut from = pool(1, 2);
        let classes = |from: &Demonstrations, text: &str| -> Vec<u32> {
            let drawn = from.draw(text, 0);
            drawn.iter().map(|d| d.tokens[0]).collect()
        };
        from.showing.order = Order::Turns;
        assert_eq!(classes(&from, "a"), [1, 2, 3, 1, 2, 3]);
        from.showing.order = Order::Shuffled;
        let orders: std::collections::BTreeSet<Vec<u32>> =
            (0..50).map(|i| classes(&from, &i.to_string())).collect();
        assert!(orders.len() > 10, "{orders:?}");
        from.showing.once = true;
        assert_eq!(from.draw("a", 0), from.draw("b", 0));
        let own = from.draw("", 0)[0].text.clone();
        assert!(from.in_front(&own, 0).is_err());
        assert_eq!(from.in_front("a", 0), Ok(None));
        for one in from.classes.iter_mut().flatten() {
            one.shown = format!("[{}]", one.text);
        }
        from.showing.before = Some("|".to_owned());
        let text = from.in_front("a", 0).expect("text").expect("before");
        let want: String = from
            .draw("a", 0)
            .iter()
            .map(|d| format!("[{}]|", d.text))
            .collect();
        assert_eq!(text, want);
    }
}
