//! Labels of words as labels of the pieces that a tokenizer makes of them.

use std::ops::Range;
use std::sync::Arc;

use crate::library::counts::to_u32;
use crate::library::data::tokens::{CONTINUES, EncodedExample, Target};
use crate::library::tokenizer::Worded;

/// Which pieces of a word have its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pieces {
    /// The first.
    First,
    /// All: those behind the first of a `B-` have the `I-` of its type, where there is one.
    All,
}

impl Pieces {
    /// Some words of a row, whose labels are classes by these names; without labels all are of the first class.
    #[must_use]
    pub fn example(self, part: Worded, labels: &[u32], classes: &[String]) -> EncodedExample {
        let mut learned: Vec<Range<u32>> = Vec::new();
        let mut list = Vec::with_capacity(part.words.len());
        let mut last = None;
        for (position, &word) in (part.first..).zip(&part.words) {
            let begins = last.replace(word) != Some(word);
            if !begins && self == Self::First {
                continue;
            }
            let class = labels.get(word as usize).copied().unwrap_or(0);
            list.push(match begins {
                true => class,
                false => within(class, classes) | CONTINUES,
            });
            match learned.last_mut() {
                Some(range) if range.end == position => range.end += 1,
                _ => learned.push(position..position + 1),
            }
        }
        EncodedExample {
            ids: part.encoded.ids,
            segments: part.encoded.segments,
            mask: 0,
            label: Target::Each(Arc::new(list)),
            learned,
            task: 0,
        }
    }
}

/// The class of a piece within a word of this class.
fn within(class: u32, classes: &[String]) -> u32 {
    let name = classes.get(class as usize);
    let inside = name.and_then(|name| name.strip_prefix("B-"));
    let inside = inside.map(|kind| format!("I-{kind}"));
    let place = inside.and_then(|name| classes.iter().position(|own| *own == name));
    place.map_or(class, to_u32)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;
    use crate::library::tokenizer::Encoded;

    #[test]
    fn pieces_have_the_label_of_their_word() {
        let part = || Worded {
            encoded: Encoded {
                ids: vec![1, 10, 11, 12, 13, 14, 2],
                segments: vec![0; 7],
                uncut: 7,
                at_once: 20,
            },
            first: 1,
            words: vec![4, 4, 5, 6, 6],
        };
        let classes = ["O", "B-X", "I-X", "B-Y"].map(str::to_owned);
        let labels = [0, 0, 0, 0, 1, 0, 3];
        let of = |pieces: Pieces| {
            let own = pieces.example(part(), &labels, &classes);
            match own.label {
                Target::Each(list) => (own.learned, list.to_vec()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(of(Pieces::First), (vec![1..2, 3..5], vec![1, 0, 3]));
        let within = |class| class | CONTINUES;
        let all = vec![1, within(2), 0, 3, within(3)];
        assert_eq!(of(Pieces::All), (vec![1..6], all));
    }
}
