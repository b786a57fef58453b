//! What an adapter stands on.

use std::path::PathBuf;

/// The plain weights below an adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// The directory they are in; `None` for random ones.
    pub dir: Option<PathBuf>,
    /// How others find them: a repository of the hub, or the directory.
    pub name: Option<String>,
    /// The repository's revision, if the recipe names one.
    pub revision: Option<String>,
    /// Hash of their bytes.
    pub hash: Option<String>,
    /// Seed of random ones.
    pub random: Option<u64>,
}
