//! Running a compiled recipe: files, the store, checkpoints, artifacts.

pub mod artifact;
pub mod checkpoint;
pub mod durable;
pub mod error;
pub mod peft;
pub mod store;
pub mod tensorfile;

pub use error::RunError;
