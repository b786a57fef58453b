//! Running a compiled program: weights, initial values, memory accounting.

pub mod alloc;
mod error;
mod svd;
mod weights;

pub use alloc::Counting;
pub use error::RunError;
pub use svd::{Decomposition, Triplets, decompose, rest, svd_scratch_bytes};
pub use weights::Checkpoint;
