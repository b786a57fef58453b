//! Which heads share keys, and which keys a query sees.

use std::fmt;
use std::ops::Range;

/// Heads of queries, and those of keys and values, which groups of the former share (grouped-query attention,
/// Ainslie et al. 2023, arXiv 2305.13245).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Heads {
    /// Heads of the queries: a multiple of those of the keys.
    pub queries: u32,
    /// Heads of keys and values.
    pub keys: u32,
}

impl Heads {
    /// A head of keys for each head of queries.
    #[must_use]
    pub const fn each(count: u32) -> Self {
        Self {
            queries: count,
            keys: count,
        }
    }

    /// How many heads of queries share a head of keys.
    #[must_use]
    pub const fn group(self) -> u32 {
        match self.queries.checked_div(self.keys) {
            Some(group) => group,
            None => 0,
        }
    }

    /// Whether queries and keys of these widths have so many heads of one width, and the groups come out even.
    pub(in super::super) fn divide(self, queries: u64, keys: u64) -> bool {
        let (heads, shared) = (u64::from(self.queries), u64::from(self.keys));
        let even = shared > 0 && heads > 0 && heads.is_multiple_of(shared);
        even && queries.is_multiple_of(heads) && keys == queries / heads * shared
    }
}

impl fmt::Debug for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.queries)?;
        if self.queries == self.keys {
            Ok(())
        } else {
            write!(f, " on {}", self.keys)
        }
    }
}

/// Which tokens of its sequence a query sees: those at most so far behind and ahead of its own; `None` is without bound.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mask {
    /// How far back.
    pub behind: Option<u32>,
    /// How far ahead.
    pub ahead: Option<u32>,
}

impl Mask {
    /// Every token sees every other.
    pub const FULL: Self = Self {
        behind: None,
        ahead: None,
    };

    /// A token sees itself and those before it.
    pub const CAUSAL: Self = Self {
        behind: None,
        ahead: Some(0),
    };

    /// A token sees itself and those before it, `tokens` in all (sliding window, Beltagy et al. 2020, arXiv 2004.05150).
    #[must_use]
    pub const fn window(tokens: u32) -> Self {
        Self {
            behind: Some(tokens.saturating_sub(1)),
            ahead: Some(0),
        }
    }

    /// A token sees those at most so far away, on both sides.
    #[must_use]
    pub const fn near(distance: u32) -> Self {
        Self {
            behind: Some(distance),
            ahead: Some(distance),
        }
    }

    /// Tokens that some of the queries of these tokens see, in a sequence of `length`.
    pub(in super::super) fn seen(self, queries: Range<usize>, length: usize) -> Range<usize> {
        let first = self
            .behind
            .map_or(0, |n| queries.start.saturating_sub(n as usize));
        let end = self
            .ahead
            .map_or(length, |n| queries.end.saturating_add(n as usize));
        first..end.min(length).max(first)
    }

    /// Most tokens that `queries` neighbouring queries see, in a sequence of `length`.
    pub(super) fn reach(self, queries: u64, length: u64) -> u64 {
        match (self.behind, self.ahead) {
            (Some(behind), Some(ahead)) => {
                length.min(queries + u64::from(behind) + u64::from(ahead))
            }
            _ => length,
        }
    }

    /// About how many pairs of a query and a token it sees there are, of all pairs and so many tokens.
    pub(in super::super) fn pairs(self, all: u64, tokens: u64) -> u64 {
        if self == Self::FULL {
            return all;
        }
        // One side with each token itself.
        let half = u64::midpoint(all, tokens);
        let side =
            |bound: Option<u32>| bound.map_or(half, |n| half.min(tokens * (u64::from(n) + 1)));
        (side(self.behind) + side(self.ahead))
            .saturating_sub(tokens)
            .min(all)
    }

    /// The two bounds as kernels read them: the largest number stands for none.
    pub(in super::super) fn bounds(self) -> [u32; 2] {
        [self.behind, self.ahead].map(|bound| bound.unwrap_or(u32::MAX))
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.behind, self.ahead) {
            (None, None) => f.write_str("full"),
            (None, Some(0)) => f.write_str("causal"),
            (Some(n), Some(0)) => write!(f, "window({})", u64::from(n) + 1),
            (Some(a), Some(b)) if a == b => write!(f, "near({a})"),
            (behind, ahead) => {
                let side = |x: Option<u32>| x.map_or("all".to_owned(), |n| n.to_string());
                write!(f, "{} behind {} ahead", side(behind), side(ahead))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::super::types::{Bindings, Sym};
    use super::*;

    #[test]
    fn a_mask_tells_what_is_seen_and_how_many_pairs_there_are() {
        let sizes = Bindings::of_lengths([7, 1, 30]);
        for mask in [
            Mask::FULL,
            Mask::CAUSAL,
            Mask::window(1),
            Mask::window(5),
            Mask::near(0),
            Mask::near(4),
            Mask::near(100),
        ] {
            let sees = |i: usize, j: usize| {
                let behind = mask.behind.is_none_or(|n| i <= j + n as usize);
                behind && mask.ahead.is_none_or(|n| j <= i + n as usize)
            };
            let mut pairs = 0;
            for length in [7, 1, 30_usize] {
                for i in 0..length {
                    let own: Vec<usize> = (0..length).filter(|&j| sees(i, j)).collect();
                    assert_eq!(mask.seen(i..i + 1, length).collect::<Vec<_>>(), own);
                    assert!(own.len() as u64 <= mask.reach(1, length as u64));
                    pairs += own.len() as u64;
                }
            }
            let about = mask.pairs(sizes.get(Sym::Pairs), sizes.get(Sym::Tokens));
            assert!(about >= pairs, "{mask:?}: {about} for {pairs}");
            if [Mask::FULL, Mask::CAUSAL].contains(&mask) {
                assert_eq!(about, pairs);
            }
        }
        assert_eq!(
            format!("{:?} {:?}", Mask::window(5), Mask::near(3)),
            "window(5) near(3)"
        );
        let heads = Heads {
            queries: 9,
            keys: 3,
        };
        assert_eq!(format!("{heads:?} {:?}", Heads::each(2)), "9 on 3 2");
        assert_eq!((heads.group(), heads.divide(18, 6)), (3, true));
    }
}
