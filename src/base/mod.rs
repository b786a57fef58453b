//! What every layer stands on: text positions, diagnostics, units, suggestions.
//!
//! **Invariant:** nothing here knows recipes, tensors or files.

pub mod diag;
pub mod rng;
pub mod span;
pub mod suggest;
pub mod units;

pub use diag::{Code, Diag, Diags, Outcome, Severity};
pub use span::{Source, SourceId, Sources, Span, Spanned};
