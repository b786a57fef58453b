//! Files of tensors and adapters: safetensors, peft's format, durable writing.
//!
//! **Invariant:** nothing here knows a recipe, a plan or a program that runs.

pub mod durable;
pub mod error;
pub mod peft;
pub mod tensorfile;

pub use error::RunError;
