//! How long the sequences of a batch are, and the scratch that follows.

use super::super::super::types::Sym;
use super::{Attention, Machine, Mask, SizedCx, Tail};

/// Query rows of a forward work item; rows of its score tile, and of the backward's.
pub(super) const ITEM: usize = 64;
pub(super) const FORWARD_TILE: usize = 16;
pub(in super::super) const BACKWARD_TILE: usize = 32;

/// Sequences of a batch as the kernels' scratch depends on them.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Lengths {
    pub sequences: u64,
    pub tokens: u64,
    pub longest: u64,
    pub fold: u64,
    pub prefix: u64,
    /// Length of the longest source, across streams.
    pub source: Option<u64>,
}

impl Lengths {
    /// From the operands of a node: the first matrix and the offsets.
    pub fn of(cx: &SizedCx, at: Tail, op: &Attention) -> Self {
        let rows = |i: usize| {
            cx.inputs
                .get(i)
                .and_then(|x| x.dims.first())
                .copied()
                .unwrap_or(0) as u64
        };
        Self {
            sequences: rows(at.offsets).saturating_sub(1),
            tokens: rows(0),
            longest: cx.sizes.get(op.streams.longest()[0]),
            fold: op.fold.into(),
            prefix: op.prefix.into(),
            source: at.sources.map(|_| cx.sizes.get(Sym::SourceLongest)),
        }
    }

    /// Those of sequences at hand.
    pub fn of_sequences(
        op: &Attention,
        sequences: &[(usize, usize)],
        sources: Option<&[(usize, usize)]>,
    ) -> Self {
        let longest = |list: &[(usize, usize)]| list.iter().map(|(a, b)| b - a).max().unwrap_or(0);
        Self {
            sequences: sequences.len() as u64,
            tokens: sequences.last().map_or(0, |(_, end)| *end) as u64,
            longest: longest(sequences) as u64,
            fold: op.fold.into(),
            prefix: op.prefix.into(),
            source: sources.map(|list| longest(list) as u64),
        }
    }

    /// Scratch of the forward: on each thread the keys of a head, transposed, and a tile of scores.
    pub(super) fn forward_scratch(
        self,
        (head, size): (u64, u64),
        mask: Mask,
        machine: &Machine,
    ) -> u64 {
        let items = self.sequences + self.tokens / ITEM as u64;
        let tile = (FORWARD_TILE as u64).min(self.longest);
        let queries = (ITEM as u64).min(self.longest);
        let seen = match (self.prefix, self.fold) {
            _ if self.source.is_some() => self.most_keys(),
            (0, fold) => mask.reach(queries, self.longest) * fold,
            (before, 0) => before,
            (before, _) => mask.reach(queries, self.longest + before),
        };
        // Where they do not begin at the first key, they begin at a whole vector.
        let keys = self.keys().min(padded(seen as usize) as u64 + LANES as u64);
        (machine.threads as u64).min(items) * (head + tile) * keys * size
    }

    /// Scratch of the backward: on each thread keys and values of a head, transposed, two tiles, and
    /// a row of dropout factors.
    pub fn backward_scratch(self, head: u64, size: u64, machine: &Machine) -> u64 {
        let tile = (BACKWARD_TILE as u64).min(self.longest);
        (machine.threads as u64).min(self.sequences)
            * (2 * head + 2 * tile + 1)
            * self.keys()
            * size
    }

    /// Keys of the longest sequence.
    pub const fn most_keys(self) -> u64 {
        match self.source {
            Some(longest) => longest,
            None => self.longest * self.fold + self.prefix,
        }
    }

    /// The same in whole vectors.
    const fn keys(self) -> u64 {
        padded(self.most_keys() as usize) as u64
    }
}

/// Elements of a whole vector.
const LANES: usize = 16;

/// A length rounded up to whole vectors.
pub(in super::super) const fn padded(n: usize) -> usize {
    n.next_multiple_of(LANES)
}

/// The largest whole number of vectors that is not longer.
pub(in super::super) const fn aligned(n: usize) -> usize {
    n - n % LANES
}
