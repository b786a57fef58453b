//! Running a compiled program: weights, initial values, memory accounting.

pub mod alloc;
mod error;
mod weights;

pub use alloc::Counting;
pub use error::RunError;
pub use weights::Checkpoint;
