//! Features of a frozen prefix that a training keeps on disk.

use std::ops::Range;

use crate::program::prefix::Kept;
use crate::program::{DType, Feed, Verified};

/// The frozen prefix of a training, computed once an example; the training's programs read its
/// results.
#[derive(Debug)]
pub struct Features {
    /// Makes them.
    pub prefix: Verified,
    /// What is kept, in the order of the prefix' outputs.
    pub kept: Vec<Kept>,
    /// How many examples of each split, from the first, are kept.
    pub examples: [u64; 2],
    /// Whether those are all: the weights of the prefix are then not needed after filling.
    pub everything: bool,
    /// Whether the prefix reads plain weights of the model only.
    pub plain: bool,
    /// Numbers in which they are kept, f32 or bf16; what is made anew is rounded to them, too.
    pub stored: DType,
    /// Most examples of a run that fills them.
    pub together: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Share of a step's operations that is saved.
    pub share: f64,
}

impl Features {
    /// Tokens of a run that fills features.
    pub const CHUNK: u32 = 512;

    /// Ranges of consecutive examples of at most [`Self::CHUNK`] tokens, or one example, none of which crosses a
    /// multiple of `together`. They depend on the data and on that alone.
    pub fn chunks(
        lengths: &[u32],
        examples: u64,
        together: u64,
    ) -> impl Iterator<Item = Range<usize>> + '_ {
        let end = lengths.len().min(examples as usize);
        let together = usize::try_from(together.max(1)).unwrap_or(usize::MAX);
        let mut at = 0;
        std::iter::from_fn(move || {
            let begin = at;
            let mut tokens = 0;
            while at < end && (at == begin || !at.is_multiple_of(together)) {
                let n = lengths.get(at).copied().unwrap_or(0);
                if at > begin && tokens + n > Self::CHUNK {
                    break;
                }
                tokens += n;
                at += 1;
            }
            (at > begin).then_some(begin..at)
        })
    }
}

impl Features {
    /// In what types the rows are stored: one, mostly.
    #[must_use]
    pub fn types(&self) -> String {
        let all = self.kept.iter().map(|k| self.stored_of(k.feed));
        let mut all: Vec<DType> = all.collect();
        all.sort_unstable();
        all.dedup();
        let names: Vec<&str> = all.into_iter().map(DType::name).collect();
        names.join(" and ")
    }

    /// In what type the rows of a kept value are stored.
    #[must_use]
    pub fn stored_of(&self, feed: Feed) -> DType {
        kept_as(feed, self.stored)
    }
}

/// In what type the rows of a kept value are stored: as the program holds it where that is in 16 bits, else as
/// `asked`.
#[must_use]
pub fn kept_as(feed: Feed, asked: DType) -> DType {
    match feed {
        Feed::Feature { stored, .. } if stored.is_half() => stored,
        _ => asked,
    }
}
