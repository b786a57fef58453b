//! Which places of a text a head reads, where those are any number of its tokens.
//!
//! **Invariant:** how many places of a text there are depends on its length alone, so that the planner knows every size.

use super::masked_lm::masking::{MaskDraw, Masking};

/// How the places are found.
#[derive(Clone, Debug, PartialEq)]
pub enum Reads {
    /// Some tokens are masked, and told from what is around them.
    Masked(Masking),
    /// Every token but the first is told from those before it.
    Next,
}

/// A place of an example that a head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPlace {
    /// Position in the example, special tokens counted.
    pub position: u32,
    /// What the model reads there.
    pub shown: u32,
    /// What is to be told: the token that stood there, or the next one.
    pub token: u32,
}

/// The places of an epoch, or those of every evaluation.
#[derive(Clone, Copy, Debug)]
pub enum ReadDraw<'a> {
    /// Masked ones, drawn at random.
    Masked(MaskDraw<'a>),
    /// All with a next token.
    Next,
}

impl Reads {
    /// Places of a text of `length` tokens, special ones counted.
    #[must_use]
    pub fn count(&self, length: usize) -> usize {
        match self {
            Self::Masked(masking) => masking.count(length),
            Self::Next => length.saturating_sub(1),
        }
    }

    /// Places of texts of these lengths.
    #[must_use]
    pub fn places(&self, lengths: impl IntoIterator<Item = usize>) -> u64 {
        lengths.into_iter().map(|n| self.count(n) as u64).sum()
    }

    /// Those of an epoch of a training.
    #[must_use]
    pub fn epoch(&self, seed: u64, epoch: u64) -> ReadDraw<'_> {
        match self {
            Self::Masked(masking) => ReadDraw::Masked(masking.epoch(seed, epoch)),
            Self::Next => ReadDraw::Next,
        }
    }

    /// Those of every evaluation: they depend on no seed, so that stages can be compared.
    #[must_use]
    pub fn evaluation(&self) -> ReadDraw<'_> {
        match self {
            Self::Masked(masking) => ReadDraw::Masked(masking.evaluation()),
            Self::Next => ReadDraw::Next,
        }
    }
}

impl ReadDraw<'_> {
    /// The places of the example `index` of the split, in order.
    #[must_use]
    pub fn places(&self, index: u32, ids: &[u32]) -> Vec<ReadPlace> {
        match self {
            Self::Masked(draw) => draw.places(index, ids),
            Self::Next => {
                let pairs = ids.iter().zip(ids.iter().skip(1));
                let place = |(position, (&shown, &token))| ReadPlace {
                    position,
                    shown,
                    token,
                };
                (0_u32..).zip(pairs).map(place).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_but_the_first_is_told_from_those_before_it() {
        let places = Reads::Next.evaluation().places(3, &[7, 8, 9]);
        let all: Vec<(u32, u32, u32)> = places
            .iter()
            .map(|p| (p.position, p.shown, p.token))
            .collect();
        assert_eq!(all, [(0, 7, 8), (1, 8, 9)]);
        assert_eq!(Reads::Next.places([3, 1, 0, 5]), 2 + 4);
        assert_eq!(Reads::Next.epoch(1, 2).places(0, &[4]), []);
    }
}
