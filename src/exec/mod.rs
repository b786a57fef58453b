//! Running a planned recipe: weights, the interpreter, training, checkpoints, artifacts, the store.

pub mod alloc;
pub mod artifact;
pub mod checkpoint;
pub mod durable;
pub mod error;
pub mod init;
pub mod machine;
pub mod peft;
pub mod store;
pub mod tensorfile;
pub mod weights;

pub use alloc::Counting;
pub use error::RunError;
pub use weights::Checkpoint;
