//! A tokenized example.

use std::ops::Range;

use super::Target;

/// What is added to the segment of a token that is learned.
pub(super) const LEARNED: u8 = 128;

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
    /// The tokens that a language model learns: ascending ranges, not the first token, which has none before it.
    pub learned: Vec<Range<u32>>,
}

impl EncodedExample {
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
