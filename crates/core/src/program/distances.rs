//! Distances between two tokens, put into buckets: what a bias of attention is looked up by.
//!
//! A bias of the scores by distance is a table `[buckets, heads]`. Its rows are gathered by [`Feed::Distances`] into a matrix
//! `[2 L + 1, heads]`, a row for each distance from `−L` to `L`, which attention reads ([`Attention::bias`]). So all blocks
//! that share a table share the matrix, and its gradient is summed before it reaches the table. Disentangled attention reads the
//! list of rows itself.
//!
//! [`Feed::Distances`]: super::Feed::Distances
//! [`Attention::bias`]: super::op::Attention

use super::types::{Dim, Sym};

/// How distances become buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bucketing {
    /// T5's decoders: half of the buckets are of one distance each, and the others grow with the logarithm of the distance, up to
    /// the furthest, which the last is of with all beyond. Keys behind the query are in that of distance 0.
    OneSide,
    /// T5's encoders: the same with half of the buckets for keys behind the query.
    BothSides,
    /// DeBERTa's: the middle bucket is that of distance 0, and those below it are of keys behind the query. Half of a side is of one
    /// distance each, and the others grow with the logarithm up to the furthest; where that is 0, each distance has a bucket. The
    /// first and the last have all beyond.
    Centred,
}

/// Buckets of distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Distances {
    /// How many buckets.
    pub buckets: u32,
    /// The distance from which on all are in one bucket.
    pub furthest: u32,
    /// How distances become buckets.
    pub by: Bucketing,
    /// Whether it is of tokens of sources.
    pub of_source: bool,
}

impl Distances {
    /// DeBERTa's, with so many buckets on each side; 0 as the furthest is a bucket for each distance.
    #[must_use]
    pub const fn centred(side: u32, furthest: u32) -> Self {
        Self {
            buckets: 2 * side,
            furthest,
            by: Bucketing::Centred,
            of_source: false,
        }
    }

    /// The bucket of a key so far behind its query, or before it where that is negative, as transformers computes it in f32:
    /// `T5Attention._relative_position_bucket`, `make_log_bucket_position` of DeBERTa-v2.
    #[must_use]
    pub fn bucket(self, distance: i64) -> u32 {
        let both = match self.by {
            Bucketing::Centred => return self.centred_bucket(-distance),
            Bucketing::BothSides => true,
            Bucketing::OneSide => false,
        };
        let own = (self.buckets / if both { 2 } else { 1 }).max(1);
        let first = if both && distance > 0 { own } else { 0 };
        let far = match both {
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

    /// The bucket of a query so far behind its key.
    fn centred_bucket(self, distance: i64) -> u32 {
        let side = i64::from(self.buckets / 2);
        let exact = side / 2;
        let far = distance.abs();
        let place = if self.furthest == 0 || far <= exact {
            distance
        } else {
            let most = (f64::from(self.furthest) - 1.0) / exact as f64;
            let share = libm::logf(far as f32 / exact as f32) / libm::logf(most as f32);
            let grown = (share * (exact - 1) as f32).ceil() + exact as f32;
            distance.signum() * grown as i64
        };
        (place.saturating_add(side)).clamp(0, (2 * side - 1).max(0)) as u32
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
        for (both, buckets, furthest, want) in [
            (true, 32, 128, 2_048_190_u64),
            (false, 32, 128, 469_455),
            (true, 8, 20, 479_586),
            (false, 6, 11, 97_728),
            (true, 7, 50, 338_886),
        ] {
            let own = Distances {
                buckets,
                furthest,
                by: if both {
                    Bucketing::BothSides
                } else {
                    Bucketing::OneSide
                },
                of_source: false,
            };
            let list = own.list(200);
            assert_eq!(list.len(), 401);
            let sum: u64 = (1..).zip(&list).map(|(i, &b)| i * u64::from(b)).sum();
            assert_eq!(sum, want, "{own:?}");
        }
    }

    #[test]
    fn centred_buckets_are_those_of_transformers() {
        // Σ (place + 1) · bucket over the distances −200 … 200, of `make_log_bucket_position` of DeBERTa-v2, clamped as its scores
        // do; where the furthest is 0, of the distances themselves.
        for (side, furthest, want) in [
            (256, 512, 15_612_614_u64),
            (8, 64, 318_587),
            (16, 0, 630_571),
            (5, 40, 243_773),
            (32, 16, 3_795_391),
        ] {
            let list = Distances::centred(side, furthest).list(200);
            let sum: u64 = (1..).zip(&list).map(|(i, &b)| i * u64::from(b)).sum();
            assert_eq!(sum, want, "{side} {furthest}");
        }
    }
}
