//! Windows of contexts as examples: which tokens the answer begins and ends with, and what an answer is read back from.
//!
//! The label of an example is a list of numbers: one for each of its own tokens, [`BEGINS`] and [`ENDS`] or neither; the position of the
//! window's first token; of each of its tokens the bytes of the context at which it begins and ends; and with the first window of a row its
//! context and its answers, four bytes a number.

use std::sync::Arc;

use crate::library::counts::to_u32;
use crate::library::data::tokens::{EncodedExample, Target};
use crate::library::tokenizer::{Tokenizer, Window};

/// The bit of the token that an answer begins with.
pub const BEGINS: u32 = 1;

/// The bit of the token that an answer ends with.
pub const ENDS: u32 = 2;

/// How contexts are cut into windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Windows {
    /// Tokens that two windows which follow each other have in common.
    pub stride: u32,
    /// Whether a question may have no answer.
    pub unanswered: bool,
}

/// What a window says of itself.
#[derive(Debug)]
pub(super) struct Seen {
    /// Place of its first token among those that are scored.
    pub first: u32,
    /// Where each of its tokens begins and ends in the context, in bytes.
    pub offsets: Vec<[u32; 2]>,
    /// The context and the answers of its row, where it is the first of that.
    pub row: Option<(String, Vec<String>)>,
}

impl Windows {
    /// The windows of a row: its question, its context, and of each answer its text and its first byte in the context. `known` says
    /// whether answers are.
    ///
    /// # Errors
    /// What the tokenizer says; there is no answer where there must be one.
    pub fn examples(
        self,
        tokenizer: &Tokenizer,
        texts: &[String],
        (most, known): (usize, bool),
    ) -> Result<Vec<(usize, EncodedExample)>, String> {
        let [question, context, answers @ ..] = texts else {
            return Err("a question and a context are wanted".to_owned());
        };
        if known && answers.is_empty() && !self.unanswered {
            return Err(
                "its question has no answer; leave the row out, or write `objective = extract { null_threshold = 0 }`, which learns that there is none"
                    .to_owned(),
            );
        }
        let first = answers
            .first()
            .zip(answers.get(1).and_then(|at| at.parse::<u32>().ok()));
        let first = first.map(|(text, at)| [at, at + to_u32(text.len())]);
        let windows = tokenizer.encode_windows(question, context, (most, self.stride as usize))?;
        let each = windows.into_iter().enumerate().map(|(at, window)| {
            let mut list = marks(&window, first);
            list.push(window.first);
            list.push(to_u32(window.offsets.len()));
            list.extend(window.offsets.iter().flatten());
            if at == 0 {
                let texts = answers.iter().step_by(2);
                for text in std::iter::once(context).chain(texts) {
                    put(&mut list, text);
                }
            }
            let example = EncodedExample {
                learned: std::iter::once(0..to_u32(window.encoded.ids.len())).collect(),
                ids: window.encoded.ids,
                segments: window.encoded.segments,
                mask: 0,
                label: Target::Each(Arc::new(list)),
                task: 0,
            };
            (window.encoded.at_once, example)
        });
        Ok(each.collect())
    }
}

/// Which tokens of a window the answer between two bytes begins and ends with: the first token of all, where the window does not hold it
/// whole.
fn marks(window: &Window, answer: Option<[u32; 2]>) -> Vec<u32> {
    let mut list = vec![0; window.encoded.ids.len()];
    let own = window.offsets.as_slice();
    let within = answer.and_then(|[begin, end]| {
        let (first, last) = (own.first()?, own.last()?);
        if first[0] > begin || last[1] < end {
            return None;
        }
        let from = own.iter().rposition(|token| token[0] <= begin)?;
        let to = own.iter().position(|token| token[1] >= end)?;
        Some([from, to].map(|at| window.first as usize + at))
    });
    for (place, bit) in within.unwrap_or([0, 0]).into_iter().zip([BEGINS, ENDS]) {
        if let Some(mark) = list.get_mut(place) {
            *mark |= bit;
        }
    }
    list
}

/// Puts a text behind a list: its bytes, four a number.
fn put(list: &mut Vec<u32>, text: &str) {
    list.push(to_u32(text.len()));
    list.extend(text.as_bytes().chunks(4).map(|part| {
        let mut four = [0; 4];
        four.iter_mut()
            .zip(part)
            .for_each(|(own, byte)| *own = *byte);
        u32::from_le_bytes(four)
    }));
}

/// Takes a text from the front of a list.
fn take(list: &mut &[u32]) -> Option<String> {
    let (length, rest) = list.split_first()?;
    let length = *length as usize;
    let (own, rest) = rest.split_at_checked(length.div_ceil(4))?;
    *list = rest;
    let mut bytes: Vec<u8> = own.iter().flat_map(|four| four.to_le_bytes()).collect();
    bytes.truncate(length);
    String::from_utf8(bytes).ok()
}

/// What the label of a window of so many tokens says of it.
pub(super) fn seen(label: &[u32], tokens: usize) -> Option<Seen> {
    let (_, rest) = label.split_at_checked(tokens)?;
    let (&[first, count], rest) = rest.split_first_chunk::<2>()?;
    let (offsets, mut rest) = rest.split_at_checked(2 * count as usize)?;
    let context = take(&mut rest);
    let answers = std::iter::from_fn(|| take(&mut rest)).collect();
    Some(Seen {
        first,
        offsets: offsets.as_chunks::<2>().0.to_vec(),
        row: context.map(|context| (context, answers)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::tokenizer::Encoded;

    fn window(offsets: &[[u32; 2]]) -> Window {
        let length = offsets.len() + 3;
        Window {
            encoded: Encoded {
                ids: vec![7; length],
                segments: vec![0; length],
                uncut: length,
                at_once: 9,
            },
            first: 2,
            offsets: offsets.to_vec(),
        }
    }

    #[test]
    fn an_answer_is_marked_in_the_windows_that_hold_it_whole() {
        let of = |answer| marks(&window(&[[4, 6], [7, 9], [9, 12], [13, 14]]), answer);
        let none = vec![BEGINS | ENDS, 0, 0, 0, 0, 0, 0];
        assert_eq!(of(Some([7, 12])), [0, 0, 0, BEGINS, ENDS, 0, 0]);
        // Within a token, and up to the last.
        assert_eq!(of(Some([8, 14])), [0, 0, 0, BEGINS, 0, ENDS, 0]);
        assert_eq!(of(Some([13, 14])), [0, 0, 0, 0, 0, BEGINS | ENDS, 0]);
        for other in [None, Some([2, 6]), Some([13, 16]), Some([20, 22])] {
            assert_eq!(of(other), none, "{other:?}");
        }
        assert_eq!(marks(&window(&[]), Some([0, 1])), [BEGINS | ENDS, 0, 0]);
    }

    #[test]
    fn a_label_gives_back_context_and_answers() {
        for context in ["", "abc", "abcd", "größe ist alles"] {
            let mut list = vec![0; 5];
            list.extend([2, 1, 3, 9]);
            for text in [context, "one", ""] {
                put(&mut list, text);
            }
            let own = seen(&list, 5).expect("whole");
            assert_eq!((own.first, own.offsets), (2, vec![[3, 9]]));
            let answers = ["one", ""].map(str::to_owned).to_vec();
            assert_eq!(own.row, Some((context.to_owned(), answers)));
        }
        let own = seen(&[0, 0, 1, 0], 2).expect("whole");
        assert!(own.row.is_none() && own.offsets.is_empty());
        assert!(seen(&[0, 0, 1, 4, 1], 2).is_none());
    }
}
