//! Distances between two tokens, put into buckets: what a bias of attention is looked up by.
//!
//! A bias of the scores by distance is a table `[buckets, heads]`. Its rows are gathered by [`Feed::Distances`] into a matrix
//! `[2 L + 1, heads]`, a row for each distance from `−L` to `L`, which attention reads ([`Attention::bias`]). So all blocks
//! that share a table share the matrix, and its gradient is summed before it reaches the table.
//!
//! [`Feed::Distances`]: super::Feed::Distances
//! [`Attention::bias`]: super::op::Attention

use super::types::{Dim, Sym};

/// Buckets of distances as T5 has them: half of them are of one distance each, and the others grow with the
/// logarithm of the distance, up to `furthest`, which the last is of with all beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Distances {
    /// How many buckets.
    pub buckets: u32,
    /// The distance from which on all are in one bucket.
    pub furthest: u32,
    /// Whether keys behind the query have buckets of their own, half of all; else they are in that of distance 0.
    pub both_sides: bool,
    /// Whether it is of tokens of sources.
    pub of_source: bool,
}

impl Distances {
    /// The bucket of a key so far behind its query, or before it where that is negative, as
    /// `T5Attention._relative_position_bucket` of transformers computes it, in f32.
    #[must_use]
    pub fn bucket(self, distance: i64) -> u32 {
        let sides = if self.both_sides { 2 } else { 1 };
        let own = (self.buckets / sides).max(1);
        let first = if self.both_sides && distance > 0 {
            own
        } else {
            0
        };
        let far = match self.both_sides {
            true => distance.unsigned_abs(),
            false => distance.min(0).unsigned_abs(),
        };
        let exact = own / 2;
        if far < u64::from(exact) {
            return first + far as u32;
        }
        // With fewer than two buckets a side there is nothing to grow from.
        if exact == 0 {
            return first;
        }
        let range = (f64::from(self.furthest) / f64::from(exact)).ln() as f32;
        let place = libm::logf(far as f32 / exact as f32) / range * (own - exact) as f32;
        first + (exact + place as u32).min(own - 1)
    }

    /// The buckets of all distances from `−longest` to `longest`.
    #[must_use]
    pub fn list(self, longest: u64) -> Vec<u32> {
        let longest = longest.cast_signed();
        (-longest..=longest).map(|d| self.bucket(d)).collect()
    }

    /// How many distances there are: two for each token of the longest sequence, and one.
    #[must_use]
    pub fn rows(self) -> Dim {
        let longest = match self.of_source {
            true => Sym::SourceLongest,
            false => Sym::Longest,
        };
        Dim::sym(longest).times(2).plus(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_transformers() {
        // Σ (place + 1) · bucket over the distances −200 … 200, of `T5Attention._relative_position_bucket`.
        for (both_sides, buckets, furthest, want) in [
            (true, 32, 128, 2_048_190_u64),
            (false, 32, 128, 469_455),
            (true, 8, 20, 479_586),
            (false, 6, 11, 97_728),
            (true, 7, 50, 338_886),
        ] {
            let own = Distances {
                buckets,
                furthest,
                both_sides,
                of_source: false,
            };
            let list = own.list(200);
            assert_eq!(list.len(), 401);
            let sum: u64 = (1..).zip(&list).map(|(i, &b)| i * u64::from(b)).sum();
            assert_eq!(sum, want, "{own:?}");
        }
    }
}
