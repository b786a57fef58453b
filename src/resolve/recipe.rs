//! What a recipe is once it is checked: declarations with values.

use std::collections::BTreeSet;
use std::path::PathBuf;

use indexmap::IndexMap;

use crate::base::Spanned;
use crate::library::collection::Set;
use crate::library::decl::Declaration;
use crate::library::schema::{Checked, Filled};

/// A declaration with all its values checked.
#[derive(Clone, Debug)]
pub struct Declared {
    /// Its name.
    pub name: Spanned<String>,
    /// `model`, `data`, `prompt` or `stage`.
    pub declaration: &'static Declaration,
    /// The string after the constructor: repository or directory; the first of several.
    pub arg: Option<Spanned<String>>,
    /// The others of several files.
    pub more: Vec<Spanned<String>>,
    /// Constructor and values.
    pub filled: Filled,
    /// The data set of a collection that it names by a word.
    pub set: Option<&'static Set>,
    /// Directory that relative paths are relative to.
    pub base: PathBuf,
    /// The `let`s its values were taken from.
    pub uses: BTreeSet<String>,
}

impl Declared {
    /// A text that two declarations share only if everything about them is the same.
    #[must_use]
    pub fn identity(&self) -> String {
        let arg: Vec<&String> = self
            .arg
            .iter()
            .chain(&self.more)
            .map(|a| &a.value)
            .collect();
        let (name, base) = (&self.name.value, self.base.display());
        format!("{name} {arg:?} {base} {:?}", self.filled)
    }
}

/// What of a recipe is sound: declarations whose own values are right. Where a reference leads nowhere, that was said.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// Everything declared, by name, in order of declaration.
    pub items: IndexMap<String, Declared>,
}

impl Recipe {
    /// A declaration of a given keyword.
    #[must_use]
    pub fn find(&self, keyword: &str, name: &str) -> Option<&Declared> {
        self.items
            .get(name)
            .filter(|d| d.declaration.keyword == keyword)
    }

    /// The stages, in order of declaration.
    pub fn stages(&self) -> impl Iterator<Item = &Declared> {
        self.items
            .values()
            .filter(|d| d.declaration.keyword == "stage")
    }

    /// The `let`s that a declaration depends on, also through those it refers to.
    #[must_use]
    pub fn uses(&self, name: &str) -> BTreeSet<&str> {
        let (mut seen, mut found) = (BTreeSet::new(), BTreeSet::new());
        let mut todo = vec![name];
        while let Some(name) = todo.pop() {
            let Some(declared) = self.items.get(name).filter(|_| seen.insert(name)) else {
                continue;
            };
            found.extend(declared.uses.iter().map(String::as_str));
            todo.extend(
                declared
                    .filled
                    .values
                    .iter()
                    .filter_map(|(_, value)| match value {
                        Checked::Ref(name, _) => Some(name.as_str()),
                        _ => None,
                    }),
            );
        }
        found
    }
}
