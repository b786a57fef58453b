//! What an editor asks of a recipe that is being written: what may stand here, what a word means, where a name is
//! declared, what to write instead of a mistake, what a stage will take.
//!
//! **Invariant:** nothing here knows the protocol of an editor, opens a file or prints; texts that are not saved come
//! from an [`Overlay`].
//! **Invariant:** any text is answered, however broken: where the tree has a gap, the words before the cursor decide.

mod analysis;
mod columns;
mod complete;
mod cursor;
mod docs;
mod estimate;
mod fixes;
mod hover;
mod names;
mod outline;
mod overlay;
#[cfg(test)]
mod tests;
mod text;

pub use analysis::Analysis;
pub use complete::{Item, ItemKind, complete};
pub use estimate::{Estimated, Shown};
pub use fixes::{Edit, Fix, fixes};
pub use hover::hover;
pub use names::{Occurrence, definition, is_name, occurrences};
pub use outline::{Entry, outline};
pub use overlay::Overlay;
pub use text::{Lines, Place};
