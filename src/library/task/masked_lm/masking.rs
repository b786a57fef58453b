//! Which tokens a masked language model is asked for, and what stands in their place (Devlin et al.
//! 2019, arXiv 1810.04805, appendix A.1).
//!
//! **Invariant:** how many places of a text are masked depends on its length alone, so that the
//! planner knows every size; which ones, on seed, epoch and example, never on the batch.

use super::super::places::ReadPlace;
use crate::base::rng::Stream;
use crate::library::counts::to_u32;
use crate::library::data::tokens::{plain, virtual_number};
use crate::library::tokenizer::Tokenizer;

/// Of 2³² draws, those below hide a token behind the mask (80 %) …
const HIDDEN: u32 = 3_435_973_836;
/// … and those from there to below this put another token in its place (10 %); the rest keeps it.
const SWAPPED: u32 = 3_865_470_566;

/// How the texts of a split are masked.
#[derive(Clone, Debug, PartialEq)]
pub struct Masking {
    /// Share of a text's tokens that is masked.
    pub rate: f64,
    /// Tokens of each text that are not its own: those the tokenizer adds, and a prompt's mask.
    pub added: u32,
    /// Ids of special tokens, ascending: never drawn, and masked only where a text has no other tokens left.
    pub special: Vec<u32>,
    /// The mask token's id.
    pub mask: u32,
    /// One more than the largest token id.
    pub vocabulary: u32,
}

/// The random numbers of a masking: an epoch's, or those of every evaluation.
#[derive(Clone, Copy, Debug)]
pub struct MaskDraw<'a> {
    masking: &'a Masking,
    stream: Stream,
}

impl Masking {
    /// How texts that a tokenizer cuts into tokens are masked; `pair` says whether they come in pairs,
    /// `prompt_mask` whether a prompt puts a mask of its own into each.
    #[must_use]
    pub fn new(rate: f64, tokenizer: &Tokenizer, pair: bool, prompt_mask: bool, mask: u32) -> Self {
        Self {
            rate,
            added: to_u32(tokenizer.added_tokens(pair)) + u32::from(prompt_mask),
            special: tokenizer.special_ids(),
            mask,
            vocabulary: to_u32(tokenizer.vocab_size()),
        }
    }

    /// A masking for estimates where there is no tokenizer: no token counts as added, so that no
    /// batch has more places.
    #[must_use]
    pub const fn assumed(rate: f64) -> Self {
        Self {
            rate,
            added: 0,
            special: Vec::new(),
            mask: 0,
            vocabulary: 0,
        }
    }

    /// Masked places of a text of `length` tokens, added ones counted.
    #[must_use]
    pub fn count(&self, length: usize) -> usize {
        let own = length.saturating_sub(self.added as usize);
        ((self.rate * own as f64).round() as usize).max(1).min(own)
    }

    /// The masks of an epoch of a training.
    #[must_use]
    pub fn epoch(&self, seed: u64, epoch: u64) -> MaskDraw<'_> {
        MaskDraw {
            masking: self,
            stream: Stream::new(seed, &format!("mask/{epoch}")),
        }
    }

    /// The masks of every evaluation: they depend on no seed, so that stages can be compared.
    #[must_use]
    pub fn evaluation(&self) -> MaskDraw<'_> {
        MaskDraw {
            masking: self,
            stream: Stream::new(0, "mask/evaluation"),
        }
    }

    /// The ordinary token for 32 random bits.
    fn ordinary(&self, bits: u32) -> u32 {
        let all = self.vocabulary.saturating_sub(to_u32(self.special.len()));
        let drawn = to_u32((u64::from(bits) * u64::from(all)) >> 32);
        // The ids of special tokens are stepped over.
        self.special
            .iter()
            .fold(drawn, |id, &special| id + u32::from(id >= special))
    }
}

impl MaskDraw<'_> {
    /// The masked places of the example `index` of the split, in order.
    #[must_use]
    pub fn places(&self, index: u32, ids: &[u32]) -> Vec<ReadPlace> {
        let masking = self.masking;
        let mut ranked: Vec<(bool, u64, ReadPlace)> = (0_u32..)
            .zip(ids)
            .map(|(position, &raw)| {
                let token = plain(raw);
                let [high, low, fate, other] = self.stream.block([index, position, 0, 0]);
                let shown = match fate {
                    0..HIDDEN => masking.mask,
                    HIDDEN..SWAPPED => masking.ordinary(other),
                    _ => token,
                };
                let place = ReadPlace {
                    position,
                    shown,
                    token,
                };
                let special =
                    virtual_number(raw) > 0 || masking.special.binary_search(&token).is_ok();
                (special, u64::from(high) << 32 | u64::from(low), place)
            })
            .collect();
        ranked.sort_unstable_by_key(|(special, word, p)| (*special, *word, p.position));
        ranked.truncate(masking.count(ids.len()));
        let mut places: Vec<ReadPlace> = ranked.into_iter().map(|(_, _, place)| place).collect();
        places.sort_unstable_by_key(|p| p.position);
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masking() -> Masking {
        Masking {
            rate: 0.15,
            added: 2,
            special: vec![0, 1, 2, 3],
            mask: 3,
            vocabulary: 104,
        }
    }

    #[test]
    fn the_number_of_places_depends_on_the_length_alone() {
        let m = masking();
        let counts: Vec<usize> = [0, 2, 3, 12, 22, 102].iter().map(|&n| m.count(n)).collect();
        assert_eq!(counts, [0, 0, 1, 2, 3, 15]);
        let mut unusual = vec![1];
        unusual.extend([2; 20]);
        assert_eq!(m.epoch(1, 0).places(0, &unusual).len(), m.count(21));
    }

    #[test]
    fn shares_are_those_of_the_paper_and_special_tokens_stay() {
        let m = masking();
        let ids: Vec<u32> = std::iter::once(1)
            .chain((0..200).map(|i| 4 + i % 100))
            .chain([2])
            .collect();
        let (mut hidden, mut kept, mut all) = (0, 0, 0);
        let mut drawn = std::collections::BTreeSet::new();
        for example in 0..400 {
            for place in m.epoch(7, 0).places(example, &ids) {
                assert!(place.position > 0 && place.position <= 200);
                assert_eq!(place.token, ids[place.position as usize]);
                all += 1;
                hidden += usize::from(place.shown == m.mask);
                kept += usize::from(place.shown == place.token);
                if place.shown != m.mask {
                    drawn.insert(place.shown);
                }
            }
        }
        assert_eq!(all, 400 * 30);
        let share = |n: usize| n as f64 / f64::from(all);
        assert!((share(hidden) - 0.8).abs() < 0.02 && (share(kept) - 0.1).abs() < 0.02);
        assert_eq!(drawn, (4..104).collect());
    }

    #[test]
    fn draws_differ_by_epoch_and_example_and_by_nothing_else() {
        let m = masking();
        let ids: Vec<u32> = (4..64).collect();
        assert_eq!(m.epoch(1, 0).places(5, &ids), m.epoch(1, 0).places(5, &ids));
        assert_ne!(m.epoch(1, 0).places(5, &ids), m.epoch(1, 1).places(5, &ids));
        assert_ne!(m.epoch(1, 0).places(5, &ids), m.epoch(1, 0).places(6, &ids));
        assert_eq!(
            m.evaluation().places(5, &ids),
            m.evaluation().places(5, &ids)
        );
    }
}
