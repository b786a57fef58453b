//! A tokenized example.

use std::ops::Range;

use crate::library::counts::to_u32;
use crate::program::Mark;

use super::Target;

/// What is added to the segment of a token that is learned.
pub(super) const LEARNED: u8 = 128;

/// The bit of a token that is of no text: a row that a method trains stands for it. The rest is its number, from 0.
const VIRTUAL: u32 = 1 << 31;

/// The bit of a text's special token, where those are marked.
const SPECIAL: u32 = 1 << 30;

/// The token that the model's table is read for: that of a virtual one decides nothing.
#[must_use]
pub const fn plain(id: u32) -> u32 {
    if id & VIRTUAL == 0 { id & !SPECIAL } else { 0 }
}

/// The number of a virtual token, from 1 on; 0 for others.
#[must_use]
pub const fn virtual_number(id: u32) -> u32 {
    if id & VIRTUAL == 0 {
        0
    } else {
        (id & !VIRTUAL) + 1
    }
}

/// Whether a token is one of those that are marked as special.
const fn is_special(id: u32) -> bool {
    id & (VIRTUAL | SPECIAL) == SPECIAL
}

/// A token without its mark as a special one; a virtual token as it is.
#[must_use]
pub const fn own_id(id: u32) -> u32 {
    if id & VIRTUAL == 0 { plain(id) } else { id }
}

/// Which tokens of a text are marked, and as which.
pub fn marked(text: &[u32], mark: Mark) -> impl Iterator<Item = u32> {
    let mut seen = 0;
    text.iter().map(move |&id| match mark {
        // The batch tells those of tasks apart, which knows the task.
        Mark::Virtual | Mark::OfTask { .. } => virtual_number(id),
        Mark::Special { most } if is_special(id) && seen < most => {
            seen += 1;
            seen
        }
        Mark::Special { .. } => 0,
    })
}

/// What is put into texts, or marked in them, once they are tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Marking {
    /// Virtual tokens in each text.
    pub virtual_tokens: u32,
    /// Whether they stand behind the text's first token, and not before it.
    pub behind_first: bool,
    /// Whether the special tokens are marked.
    pub specials: bool,
}

impl Marking {
    /// Whether nothing is put in or marked.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Where virtual tokens are put into a text.
    fn place(&self, text: &[u32]) -> usize {
        usize::from(self.behind_first).min(text.len())
    }

    /// A text's tokens with what is put in and marked; `special` are the ids of special tokens, ascending.
    #[must_use]
    pub fn tokens(&self, text: &[u32], special: &[u32]) -> Vec<u32> {
        let own = |&id: &u32| {
            let marked = self.specials && special.binary_search(&id).is_ok();
            if marked { id | SPECIAL } else { id }
        };
        let (before, behind) = text.split_at(self.place(text));
        let virtual_ones = (0..self.virtual_tokens).map(|i| i | VIRTUAL);
        let before = before.iter().map(own).chain(virtual_ones);
        before.chain(behind.iter().map(own)).collect()
    }
}

/// The places of a text's virtual tokens, which follow each other.
#[must_use]
pub fn virtual_ones(text: &[u32]) -> Range<u32> {
    let is_virtual = |id: &u32| id & VIRTUAL != 0;
    let start = text.iter().position(is_virtual).unwrap_or(0);
    let count = text
        .iter()
        .skip(start)
        .take_while(|id| is_virtual(id))
        .count();
    to_u32(start)..to_u32(start + count)
}

/// A text's own tokens, without what was put in and marked.
#[must_use]
pub fn unmarked(tokens: &[u32]) -> Vec<u32> {
    let own = tokens.iter().filter(|id| **id & VIRTUAL == 0);
    own.map(|id| plain(*id)).collect()
}

/// A tokenized example.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedExample {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Segment of each token.
    pub segments: Vec<u8>,
    /// Place of a prompt's mask; 0 if there is none.
    pub mask: u32,
    /// Its label.
    pub label: Target,
    /// The tokens that a language model learns: ascending ranges, not the first token, which has none before it; or those
    /// with a label.
    pub learned: Vec<Range<u32>>,
    /// Its task, from 0.
    pub task: u32,
}

impl EncodedExample {
    /// The same with what is put in and marked.
    #[must_use]
    pub fn marked(self, by: Marking, special: &[u32]) -> Self {
        if by.is_none() {
            return self;
        }
        let at = to_u32(by.place(&self.ids));
        let moved = |place: u32| {
            if place < at {
                place
            } else {
                place + by.virtual_tokens
            }
        };
        let mut segments = self.segments;
        let put = std::iter::repeat_n(0, by.virtual_tokens as usize);
        segments.splice(at as usize..at as usize, put);
        // A range that begins before them and ends behind them falls into two.
        let parts = |range: Range<u32>| {
            let (start, end) = (range.start, range.end);
            [start.min(at)..end.min(at), start.max(at)..end.max(at)]
        };
        let learned = self.learned.into_iter().flat_map(parts);
        let learned = learned.filter(|r| !r.is_empty());
        Self {
            ids: by.tokens(&self.ids, special),
            mask: moved(self.mask),
            learned: learned
                .map(|r| moved(r.start)..moved(r.end - 1) + 1)
                .collect(),
            segments,
            label: self.label,
            task: self.task,
        }
    }

    /// A source and its target apart: the tokens before the one that the target's first is predicted from, and those that its
    /// tokens are predicted from, as an example of its own.
    #[must_use]
    pub fn streams(mut self) -> (Vec<u32>, Self) {
        let learned = self.learned_tokens();
        let begin = self.ids.len().saturating_sub(learned as usize + 1);
        let mut own = self.ids.split_off(begin);
        own.truncate(learned as usize);
        let source = std::mem::replace(&mut self.ids, own);
        self.segments = vec![0; self.ids.len()];
        (source, self)
    }

    /// Number of tokens that are learned.
    #[must_use]
    pub fn learned_tokens(&self) -> u32 {
        self.learned
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }

    /// The segment of each token, as it is stored: with a mark on those that are learned.
    pub(super) fn marked_segments(&self) -> Vec<u8> {
        let own = |i: usize| self.segments.get(i).copied().unwrap_or(0) % LEARNED;
        let mut all: Vec<u8> = (0..self.ids.len()).map(own).collect();
        for range in &self.learned {
            let marked = all.get_mut(range.start as usize..range.end as usize);
            marked
                .into_iter()
                .flatten()
                .for_each(|segment| *segment |= LEARNED);
        }
        all
    }

    /// What is asked and what is to be answered: the tokens before the last range that is learned, and that range. `None`
    /// where nothing stands before it.
    #[must_use]
    pub fn asked(&self) -> Option<(&[u32], &[u32])> {
        let last = self.learned.last()?;
        let (asked, rest) = self.ids.split_at_checked(last.start as usize)?;
        let answer = rest.get(..(last.end - last.start) as usize)?;
        (!asked.is_empty()).then_some((asked, answer))
    }
}

/// The ranges of marked tokens.
pub(super) fn ranges(segments: &[u8]) -> Vec<Range<u32>> {
    let mut all: Vec<Range<u32>> = Vec::new();
    for (place, _) in (0_u32..).zip(segments).filter(|(_, s)| **s >= LEARNED) {
        match all.last_mut() {
            Some(last) if last.end == place => last.end += 1,
            _ => all.push(place..place + 1),
        }
    }
    all
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    #[test]
    fn virtual_tokens_move_what_stands_behind_them() {
        let example = EncodedExample {
            ids: vec![5, 9, 7, 5],
            segments: vec![0, 0, 1, 1],
            mask: 2,
            label: Target::None,
            learned: vec![2..4],
            task: 3,
        };
        let marking = |behind_first| Marking {
            virtual_tokens: 2,
            behind_first,
            specials: true,
        };
        let before = example.clone().marked(marking(false), &[5]);
        assert_eq!(
            before.ids,
            [VIRTUAL, VIRTUAL | 1, 5 | SPECIAL, 9, 7, 5 | SPECIAL]
        );
        assert_eq!((before.mask, &before.learned[..]), (4, &[4..6][..]));
        assert_eq!(before.segments, [0, 0, 0, 0, 1, 1]);
        let behind = example.clone().marked(marking(true), &[5]);
        assert_eq!(
            behind.ids,
            [5 | SPECIAL, VIRTUAL, VIRTUAL | 1, 9, 7, 5 | SPECIAL]
        );
        assert_eq!((behind.mask, &behind.learned[..]), (4, &[4..6][..]));
        assert_eq!(unmarked(&behind.ids), example.ids);
        assert_eq!(example.clone().marked(Marking::default(), &[5]), example);
    }
}
