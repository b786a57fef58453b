//! The registry of starts: what the blocks of a side network begin with (methods A10 d).

use super::derive::prune::Importance;
use super::schema::{Filled, Schema};

mod fisher;
mod magnitude;
mod random;

/// A way to start.
#[derive(Debug)]
pub struct Start {
    /// Name, doc, keys.
    pub schema: &'static Schema,
    /// What the backbone's rows and columns are ranked by; `None` if nothing is taken from it.
    pub importance: fn(&Filled) -> Option<Importance>,
}

/// Every start.
pub static STARTS: &[&Start] = &[&random::START, &magnitude::START, &fisher::START];

/// What an entry ranks by; an entry that is not written is `random`.
#[must_use]
pub fn importance(entry: Option<&Filled>) -> Option<Importance> {
    let filled = entry?;
    let start = STARTS.iter().find(|s| s.schema.name == filled.name)?;
    (start.importance)(filled)
}
