//! Files of tensors and adapters: safetensors, peft's format, durable writing.
//!
//! **Invariant:** nothing here knows a recipe, a plan or a program that runs.

pub mod durable;
pub mod error;
pub mod gguf;
pub mod near;
pub mod paths;
pub mod peft;
pub mod sealed;
pub mod space;
pub mod sums;
pub mod tensorfile;
pub mod watched;
pub mod weights;

pub use error::RunError;

use std::path::PathBuf;

/// A folder of what was made once and is kept for later runs: below `~/.cache/peftc`, or `XDG_CACHE_HOME`.
/// `None` where there is no home.
#[must_use]
pub fn cache(part: &str) -> Option<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty());
    let base = match named {
        Some(base) => PathBuf::from(base),
        None => std::env::home_dir()?.join(".cache"),
    };
    Some(base.join("peftc").join(part))
}
