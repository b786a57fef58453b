//! Running a planned recipe: weights, the interpreter, training, checkpoints, artifacts, the store.

pub mod alloc;
pub mod artifact;
pub mod checkpoint;
pub mod choose;
#[cfg(feature = "cuda")]
mod cuda;
pub mod device;
pub mod evaluate;
pub mod export;
pub mod features;
mod fisher;
pub mod fit;
mod fold;
mod foreign;
pub mod init;
mod learn;
pub mod leave;
pub mod log;
pub mod machine;
pub mod observe;
mod origin;
pub mod predict;
pub mod predictions;
mod prune;
mod publish;
mod remote;
#[cfg(test)]
mod remote_tests;
pub mod replay;
pub mod result;
pub mod resume;
pub mod room;
pub mod run;
pub mod score;
pub mod state;
pub mod store;
mod target;
mod unread;
pub mod weights;
mod zeroth;

pub use alloc::Counting;

pub use weights::Checkpoint;
