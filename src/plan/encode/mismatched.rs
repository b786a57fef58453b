//! Rows that are read with the one that follows: each prompt with its own answer, then with that of the other row.

use super::rows::answers;
use super::{Cause, Each, Read};
use crate::library::data::form::Form;
use crate::library::data::set::Example;
use crate::library::data::tokens::Target;

/// A row that is to be tokenized.
pub(super) struct Waiting {
    pub place: u32,
    pub example: Example,
    /// The row that follows, where its answer is read.
    pub following: Option<Example>,
}

/// Rows on their way, where each is read with the one that follows it in the files, and the last with the first.
pub(super) struct Queue {
    pairs: bool,
    first: Option<Example>,
    held: Option<(u32, Example)>,
}

impl Queue {
    /// One that pairs rows, or lets each pass by itself.
    pub(super) const fn of(pairs: bool) -> Self {
        Self {
            pairs,
            first: None,
            held: None,
        }
    }

    /// Takes a row in, and gives the one that it completes.
    pub(super) fn next(&mut self, place: u32, example: Example) -> Option<Waiting> {
        if !self.pairs {
            return Some(Waiting {
                place,
                example,
                following: None,
            });
        }
        self.first.get_or_insert_with(|| example.clone());
        let before = self.held.replace((place, example.clone()));
        before.map(|(place, own)| Waiting {
            place,
            example: own,
            following: Some(example),
        })
    }

    /// The last row, which the first one follows.
    pub(super) fn last(&mut self) -> Option<Waiting> {
        let (place, example) = self.held.take()?;
        Some(Waiting {
            place,
            example,
            following: self.first.take(),
        })
    }
}

impl Each<'_> {
    /// Each answer of a row behind its prompt, and that of the row that follows behind the same prompt. Of a pair the chosen answer is
    /// wanted, and the rejected one is not.
    pub(super) fn mismatched(&self, own: &Example, other: &Example) -> Result<Vec<Read>, Cause> {
        let refused =
            |row: u32, why: &str| Cause::Chat(format!("row {row} (counted from 0): {why}"));
        if own.spoken != other.spoken {
            return Err(refused(
                own.row,
                "of it and of the row that follows, one has messages and the other a text",
            ));
        }
        let sides = |example: &Example| match (self.want.rows.form, example.texts.as_slice()) {
            (Form::Preference, _) => answers(example)
                .map(Vec::from)
                .map_err(|why| refused(example.row, &why)),
            (_, [prompt, completion]) => Ok(vec![[prompt.clone(), completion.clone()]]),
            _ => Err(refused(example.row, "a prompt and a completion are wanted")),
        };
        let (own_sides, others) = (sides(own)?, sides(other)?);
        let paired = own_sides.len() > 1;
        let mut reads = Vec::with_capacity(2 * own_sides.len());
        for (texts, [_, answer]) in own_sides.into_iter().zip(others) {
            // Chosen before rejected.
            let label = u32::from(reads.is_empty());
            let label = paired.then_some(Target::Class(label));
            let [prompt, _] = &texts;
            let another = [prompt.clone(), answer];
            for texts in [&texts, &another] {
                let read = self.read(own, texts, 0)?;
                let label = label.clone();
                reads.push(Read { label, ..read });
            }
        }
        Ok(reads)
    }
}
