//! Files of tensors and adapters: safetensors, peft's format, durable writing.
//!
//! **Invariant:** nothing here knows a recipe, a plan or a program that runs.
//!
//! **Invariant:** a number of a file is never cut to a narrower type: it is converted with `try_from`, or the cast says
//! why it is exact.

#![cfg_attr(
    not(test),
    deny(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

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

/// A size or a place of a file as one in memory. What no memory has space for becomes the largest there is, at which
/// nothing is found.
pub(crate) fn in_memory(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// A folder of what was made once and is kept for later runs: below `~/.cache/peftc`, or `XDG_CACHE_HOME`.
/// `None` where there is no home.
#[must_use]
pub fn cache(part: &str) -> Option<PathBuf> {
    below(("XDG_CACHE_HOME", ".cache"), part)
}

/// A file of peftc's settings: below `~/.config/peftc`, or `XDG_CONFIG_HOME`. `None` where there is no home.
#[must_use]
pub fn settings(file: &str) -> Option<PathBuf> {
    below(("XDG_CONFIG_HOME", ".config"), file)
}

/// A path of peftc's below the folder that a variable names, or below that folder of the home.
fn below((variable, folder): (&str, &str), path: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).filter(|v| !v.is_empty());
    let base = match named {
        Some(base) => PathBuf::from(base),
        None => std::env::home_dir()?.join(folder),
    };
    Some(base.join("peftc").join(path))
}
