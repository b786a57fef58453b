//! How the frozen matrices of a model are stored: all alike, or each in its own way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::Format;

/// The formats of a model's frozen matrices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storing {
    usual: Format,
    own: Option<Arc<BTreeMap<String, Format>>>,
}

impl Storing {
    /// Each matrix as its file has it, by name; others in f32.
    #[must_use]
    pub fn own(formats: BTreeMap<String, Format>) -> Self {
        Self {
            usual: Format::default(),
            own: Some(Arc::new(formats)),
        }
    }

    /// How a matrix of a name is stored.
    #[must_use]
    pub fn of(&self, name: &str) -> Format {
        let own = self.own.as_ref().and_then(|own| own.get(name));
        own.copied().unwrap_or(self.usual)
    }

    /// Whether each matrix is stored as its file has it.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// The format of all matrices, if it is one of blocks.
    #[must_use]
    pub fn has_blocks(&self) -> bool {
        let own = self.own.iter().flat_map(|own| own.values());
        own.chain([&self.usual]).any(|f| f.blocks().is_some())
    }
}

impl From<Format> for Storing {
    fn from(usual: Format) -> Self {
        Self { usual, own: None }
    }
}

impl PartialEq<Format> for Storing {
    fn eq(&self, other: &Format) -> bool {
        self.own.is_none() && self.usual == *other
    }
}

impl fmt::Display for Storing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(own) = &self.own else {
            return self.usual.fmt(f);
        };
        let names: BTreeSet<&str> = own.values().map(|f| f.name()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        f.write_str(&names.join(" and "))
    }
}
