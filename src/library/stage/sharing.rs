//! A training shared among ranks: whose examples are whose, and what the ranks send each other at every step.
//!
//! Gradients are added up in buckets. Of a bucket each rank owns one part: it gets that part from every other rank, adds all
//! of them up as a tree of ranks, and sends the sum to the others. Every number is so added in one order, whoever is first.
//! A rank sends `2 (N − 1) / N` times the bytes of the gradients, the least that a sum can do with
//! (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms").

use std::ops::Range;

use super::job::{Fit, Update};
use crate::program::{Bindings, Class, Verified};

/// Most numbers of a bucket: 8 MiB.
pub const BUCKET: u64 = 1 << 21;

/// Bytes in which a rank says after each step what it was asked for: a signal, a checkpoint.
pub const WORD: usize = 3;

/// Bytes of a number of the gradients.
const NUMBER: u64 = 4;

/// Bytes of a loss, or of what a direction came to.
const SCALAR: u64 = 8;

/// What a rank sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Messages.
    pub messages: u64,
}

impl std::ops::Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            messages: self.messages + other.messages,
        }
    }
}

/// The sum of a list of numbers over ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Ranks.
    pub ranks: u64,
    /// Numbers that each of them has.
    pub numbers: u64,
}

impl Exchange {
    /// The buckets, as ranges of the numbers.
    pub fn buckets(self) -> impl Iterator<Item = Range<u64>> {
        let numbers = self.numbers;
        let begins = (0..numbers).step_by(BUCKET as usize);
        begins.map(move |at| at..(at + BUCKET).min(numbers))
    }

    /// Numbers of a rank's part of a bucket of so many; the parts together may be a little longer than the bucket.
    #[must_use]
    pub const fn part(self, bucket: u64) -> u64 {
        bucket.div_ceil(if self.ranks == 0 { 1 } else { self.ranks })
    }

    /// Bytes of the two copies of the longest bucket that a rank holds meanwhile: its own, and what it gets.
    #[must_use]
    pub fn reserved(self) -> u64 {
        let longest = self.numbers.min(BUCKET);
        if self.ranks > 1 {
            2 * self.ranks * self.part(longest) * NUMBER
        } else {
            0
        }
    }

    /// What each rank sends.
    #[must_use]
    pub fn traffic(self) -> Traffic {
        let others = self.ranks.saturating_sub(1);
        let parts = self.buckets().map(|b| self.part(b.end - b.start));
        let (count, numbers) = parts.fold((0, 0), |(n, sum), part| (n + 1, sum + part));
        Traffic {
            bytes: 2 * others * numbers * NUMBER,
            messages: 2 * others * count,
        }
    }
}

/// What each of so many ranks sends so that all know so many scalars of all others.
const fn scalars(ranks: u64, count: u64) -> Traffic {
    let others = ranks.saturating_sub(1);
    Traffic {
        bytes: others * SCALAR * count,
        messages: others * count,
    }
}

/// Rounds in which a word reaches all ranks, each sending to one that is twice as far away as in the round before.
#[must_use]
pub const fn rounds(ranks: u64) -> u64 {
    if ranks > 1 {
        (ranks - 1).ilog2() as u64 + 1
    } else {
        0
    }
}

/// Names and lengths of the gradients that a program applies, in its order.
pub fn gradients(apply: &Verified) -> impl Iterator<Item = (&str, u64)> {
    let residents = apply.program().residents.iter();
    let own = residents.filter(|r| r.class == Class::Gradient);
    own.map(|r| (r.name.as_str(), r.ty.elements(&Bindings::default())))
}

impl Update {
    /// The sum of its gradients over ranks; of nothing where it has none.
    #[must_use]
    pub fn exchange(&self, ranks: u64) -> Exchange {
        let numbers = match self {
            Self::Split { apply, .. } => gradients(apply).map(|(_, n)| n).sum(),
            Self::Whole(_) | Self::Zeroth { .. } => 0,
        };
        Exchange { ranks, numbers }
    }

    /// What a rank sends for a step: gradients, or what each direction came to; its loss; what it was asked for.
    #[must_use]
    pub fn traffic(&self, ranks: u64) -> Traffic {
        let directions = match self {
            Self::Zeroth { samples, .. } => *samples,
            Self::Whole(_) | Self::Split { .. } => 0,
        };
        let word = Traffic {
            bytes: rounds(ranks) * WORD as u64,
            messages: rounds(ranks),
        };
        self.exchange(ranks).traffic() + scalars(ranks, directions + 1) + word
    }
}

impl Fit {
    /// A rank's sequences of a step's batch of so many.
    #[must_use]
    pub fn share(&self, sequences: usize, rank: u64) -> Range<usize> {
        self.share_of(sequences, (rank, self.ranks))
    }

    /// The same among another number of ranks. Ranks have rows that follow each other, as many as each other but for one;
    /// where there are fewer rows than ranks, some have none.
    fn share_of(&self, sequences: usize, (rank, ranks): (u64, u64)) -> Range<usize> {
        let (group, ranks) = (self.group.max(1) as usize, ranks.max(1));
        let rows = (sequences / group) as u64;
        let begin = |rank: u64| (rows * rank).div_ceil(ranks) as usize * group;
        let end = if rank + 1 >= ranks {
            sequences
        } else {
            begin(rank + 1)
        };
        begin(rank).min(end)..end
    }

    /// The shares of all of so many ranks.
    pub fn shares(&self, sequences: usize, ranks: u64) -> impl Iterator<Item = Range<usize>> + '_ {
        (0..ranks.max(1)).map(move |rank| self.share_of(sequences, (rank, ranks)))
    }

    /// Rows of a mean step.
    fn rows(&self) -> u64 {
        self.batch.div_ceil(self.group.max(1)).max(1)
    }

    /// Sequences of a program run among so many ranks, at most.
    #[must_use]
    pub fn most_of_run(&self, ranks: u64) -> u64 {
        let rows = self.packing.as_ref().map_or(self.rows(), |p| p.most);
        let share = rows.div_ceil(ranks.max(1)) * self.group.max(1);
        self.micro_batch.min(share).max(1)
    }

    /// Program runs of a mean step, of all of so many ranks together.
    #[must_use]
    pub fn runs(&self, ranks: u64) -> u64 {
        let micro = self.micro_batch.max(1);
        let shares = self.shares(self.batch as usize, ranks);
        let runs: u64 = shares.map(|own| (own.len() as u64).div_ceil(micro)).sum();
        runs.max(1)
    }

    /// How much more the rank with most rows of a mean step has than the mean of so many ranks.
    #[must_use]
    pub fn imbalance(&self, ranks: u64) -> f64 {
        let (rows, ranks) = (self.rows(), ranks.max(1));
        (rows.div_ceil(ranks) * ranks) as f64 / rows as f64
    }
}

/// The ranges of several lists, one after the other, that are in a range of all their numbers: the list, and what of it.
pub fn pieces(
    lengths: impl Iterator<Item = u64>,
    range: &Range<u64>,
) -> Vec<(usize, Range<usize>)> {
    let mut begin = 0;
    let mut found = Vec::new();
    for (list, length) in lengths.enumerate() {
        let own = begin..begin + length;
        let (from, to) = (own.start.max(range.start), own.end.min(range.end));
        if from < to {
            found.push((list, (from - begin) as usize..(to - begin) as usize));
        }
        begin = own.end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rank_sends_is_twice_its_numbers_but_for_its_own_part() {
        let of = |ranks, numbers| Exchange { ranks, numbers }.traffic();
        assert_eq!(of(1, 1000), Traffic::default());
        // Two parts of 500 numbers of four bytes, one sent before and one behind the sum.
        assert_eq!(
            of(2, 1000),
            Traffic {
                bytes: 4000,
                messages: 2
            }
        );
        // Parts of 334 numbers: the last is filled up.
        assert_eq!(
            of(3, 1000),
            Traffic {
                bytes: 2 * 2 * 334 * 4,
                messages: 4
            }
        );
        let long = of(2, 2 * BUCKET + 2);
        assert_eq!(
            long,
            Traffic {
                bytes: 2 * (BUCKET + 1) * 4,
                messages: 6
            }
        );
    }

    #[test]
    fn a_word_reaches_all_in_as_many_rounds_as_there_are_doublings() {
        assert_eq!(
            [1, 2, 3, 4, 5, 8, 9, 64].map(rounds),
            [0, 1, 2, 2, 3, 3, 4, 6]
        );
    }

    #[test]
    fn buckets_are_pieces_of_the_tensors_in_their_order() {
        let cut = |range| pieces([3, 0, 4, 5].into_iter(), &range);
        assert_eq!(cut(0..2), [(0, 0..2)]);
        assert_eq!(cut(2..8), [(0, 2..3), (2, 0..4), (3, 0..1)]);
        assert_eq!(cut(8..12), [(3, 1..5)]);
    }
}
