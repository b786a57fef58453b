//! Sets of which one stands behind the other, in memory.

use super::{EncodedExample, EncodedSet, Maker, Row, TOKEN, Target, Unread};
use crate::library::counts::to_u32;

impl EncodedSet {
    /// This set with some examples of another behind it, each with the class that is given.
    ///
    /// # Errors
    /// Tokens of one of the two that cannot be read back.
    pub fn with(
        &self,
        other: &Self,
        more: impl IntoIterator<Item = (u32, u32)>,
    ) -> Result<Self, Unread> {
        let mut made = Maker::in_memory();
        let mut place = 0;
        for example in 0..to_u32(self.len()) {
            made.add(
                place,
                self.row(example).unwrap_or(example),
                &self.get(example)?,
            );
            place += 1;
        }
        for (example, class) in more {
            let own = EncodedExample {
                label: Target::Class(class),
                ..other.get(example)?
            };
            made.add(place, other.row(example).unwrap_or(example), &own);
            place += 1;
        }
        Ok(made.finish_in_memory())
    }

    /// Bytes of a set in memory whose examples have so many tokens.
    #[must_use]
    pub fn bytes_in_memory(lengths: &[u32]) -> u64 {
        let tokens: u64 = lengths.iter().map(|&n| u64::from(n)).sum();
        TOKEN * tokens + (lengths.len() * size_of::<Row>()) as u64
    }
}
