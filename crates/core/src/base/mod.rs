//! What every layer stands on: text positions, diagnostics, units, suggestions, the world's trait.
//!
//! **Invariant:** nothing here knows recipes or tensors, or touches a file.

pub mod date;
pub mod diag;
pub mod rng;
pub mod span;
pub mod suggest;
pub mod units;
pub mod visible;
pub mod world;

pub use diag::{Code, Diag, Diags, Outcome, Severity, Sound};
pub use span::{Source, SourceId, Sources, Span, Spanned};
pub use world::{HubFile, HubPath, RepoKind, World, WorldError};
