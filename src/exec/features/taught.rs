//! The scores that a training learns of its teachers: in memory, a row a text.

use crate::files::RunError;
use crate::library::counts::to_u32;
use crate::library::task::taught;
use crate::program::Feed;
use crate::program::op::Tensor;

/// The mean scores of each text of a split.
#[derive(Debug)]
pub struct Taught {
    scores: Vec<f32>,
    classes: usize,
}

impl Taught {
    /// Rows of so many scores, one a text in the order of the split.
    #[must_use]
    pub const fn new(scores: Vec<f32>, classes: usize) -> Self {
        Self { scores, classes }
    }

    /// The rows of some texts.
    pub(super) fn feed(&self, indices: &[u32]) -> Result<(Feed, Tensor), RunError> {
        let mut rows = Vec::with_capacity(indices.len() * self.classes);
        for &index in indices {
            let at = index as usize * self.classes;
            let own = self.scores.get(at..at + self.classes);
            rows.extend_from_slice(own.ok_or_else(|| RunError::bug("a text has no scores"))?);
        }
        let dims = [indices.len(), self.classes];
        Ok((taught(to_u32(self.classes)), Tensor::new(rows, &dims)))
    }
}
