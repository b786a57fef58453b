//! Tasks by their names.

use std::sync::Arc;

use super::{
    TASKS, Task, TaskKind, causal_lm, classify, embed, label_words, masked_lm, multiple_choice,
    seq2seq, with_options,
};
use crate::library::schema::{Filled, Values};

/// A task of a name, with default values.
#[must_use]
pub fn task(name: &str) -> Option<Arc<dyn Task>> {
    with_options(name, &[])
}

/// A task as a recipe writes it.
#[must_use]
pub fn written(entry: &Filled) -> Option<Arc<dyn Task>> {
    let kind = kind(&entry.name)?;
    Some((kind.make)(&entry.values))
}

pub(super) fn kind(name: &str) -> Option<&'static TaskKind> {
    TASKS.iter().copied().find(|k| k.schema.name == name)
}

/// What a stage learns where it says nothing.
#[must_use]
pub fn usual() -> Arc<dyn Task> {
    (classify::KIND.make)(&Values::default())
}

/// The task that scores words at a prompt's mask, each for itself.
#[must_use]
pub fn of_words() -> Arc<dyn Task> {
    label_words::of_each_word()
}

/// The task that goes on with texts, by its name.
pub const NEXT_TOKEN: &str = causal_lm::NAME;

/// The task that tells masked tokens, by its name.
pub const MASKED: &str = masked_lm::NAME;

/// The task that makes targets of sources, by its name.
pub const TARGETS: &str = seq2seq::NAME;

/// The task that makes vectors, by its name.
pub const VECTORS: &str = embed::NAME;

/// The task that chooses among options, by its name.
pub const OPTIONS: &str = multiple_choice::NAME;
