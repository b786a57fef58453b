//! Results of a prefix that was run for the examples of several sets at once.

use crate::exec::interpreter::Outputs;
use crate::files::RunError;
use crate::files::tensorfile::{bytes_of, bytes_of_mut};
use crate::library::counts::to_u32;
use crate::library::data::tokens::EncodedSet;
use crate::program::op::Tensor;
use crate::program::prefix::Kept;
use crate::program::{Axis, Feed};

/// Rows that a prefix has just made; those of a set follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    /// What was made, by what it is.
    pub outputs: &'a Outputs,
    /// What of it is read.
    pub kept: &'a [Kept],
    /// Tokens and examples before those of the set.
    pub before: (u64, u64),
}

impl Made<'_> {
    /// The kept values of examples that follow each other in the set.
    pub(super) fn feeds(
        &self,
        set: &EncodedSet,
        indices: &[u32],
    ) -> Result<Vec<(Feed, Tensor)>, RunError> {
        let first = indices.first().copied().unwrap_or(0);
        let follows = (first..).zip(indices).all(|(place, &own)| place == own);
        if !follows {
            return Err(RunError::bug(
                "rows are read in another order than they were made in",
            ));
        }
        let tokens = |range: std::ops::Range<u32>| -> u64 {
            let lengths = range.map(|i| set.length(i).map_or(0, u64::from));
            lengths.sum()
        };
        let examples = indices.len() as u64;
        let of_tokens = (
            self.before.0 + tokens(0..first),
            tokens(first..first + to_u32(indices.len())),
        );
        let of_examples = (self.before.1 + u64::from(first), examples);
        let each = self.kept.iter().map(|kept| {
            let Feed::Feature { width, of, .. } = kept.feed else {
                return Err(RunError::bug("a kept value has no row type"));
            };
            let (from, rows) = match of {
                Axis::Tokens => of_tokens,
                Axis::Sequences => of_examples,
                Axis::Read | Axis::Source => {
                    return Err(RunError::bug("a kept value has no rows of its own"));
                }
            };
            let made = self.outputs.get(&kept.id);
            let made = made.ok_or_else(|| RunError::bug("the prefix made no such value"))?;
            let dims = [rows as usize, width as usize];
            let mut tensor = Tensor::zeros(kept.feed.ty().stored, &dims);
            let own = bytes_of_mut(&mut tensor);
            let row = own.len() / (rows as usize).max(1);
            let at = from as usize * row;
            let there = bytes_of(made).get(at..at + own.len());
            let there =
                there.ok_or_else(|| RunError::bug("the prefix made fewer rows than wanted"))?;
            own.copy_from_slice(there);
            Ok((kept.feed, tensor))
        });
        each.collect()
    }
}
