//! A recipe as an editor has it, taken as far as names and values: fast enough for each key.

use std::path::{Path, PathBuf};

use crate::base::world::World;
use crate::base::{Diag, SourceId, Sources, Span};
use crate::library::decl::{DECLARATIONS, Declaration};
use crate::resolve::{self, Declared, Swept};
use crate::syntax::ast::{Decl, File, Item};

/// What is known of a recipe without its models and data.
#[derive(Debug)]
pub struct Analysis {
    /// Its path.
    pub path: PathBuf,
    /// Its text, the first, and those it imports.
    pub sources: Sources,
    /// Their trees, in the same order; items that cannot be read are not in them.
    pub files: Vec<File>,
    /// Its checked values.
    pub swept: Swept,
    /// What is wrong with it so far, in order.
    pub diags: Vec<Diag>,
}

impl Analysis {
    /// Reads and checks a recipe.
    #[must_use]
    pub fn of(path: &Path, world: &dyn World) -> Self {
        let mut sources = Sources::default();
        let (resolved, trees) = resolve::resolve_with_trees(path, &[], &mut sources, world);
        let none = || File {
            version: None,
            items: Vec::new(),
        };
        let mut files: Vec<File> = sources.iter().map(|_| none()).collect();
        for (source, tree) in trees {
            if let Some(place) = files.get_mut(source.0 as usize) {
                *place = tree;
            }
        }
        Self {
            path: path.to_path_buf(),
            files,
            sources,
            swept: resolved.value.unwrap_or_default(),
            diags: resolved.diags.into_sorted(),
        }
    }

    /// The recipe's own text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.sources.get(SourceId(0)).map_or("", |s| &s.text)
    }

    /// The tree of its own text.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        self.files.first()
    }

    /// The files that it is made of.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().map(|s| Path::new(&s.name))
    }

    /// All that is declared with constructors, imports included, in the order of the texts.
    pub fn declarations(&self) -> impl Iterator<Item = &Decl> {
        let items = self.files.iter().flat_map(|f| &f.items);
        items.filter_map(|item| match item {
            Item::Decl(decl) => Some(decl),
            _ => None,
        })
    }

    /// A declaration by its name.
    #[must_use]
    pub fn declaration(&self, name: &str) -> Option<&Decl> {
        self.declarations().find(|d| d.name.value == name)
    }

    /// The names and values of all `let`s.
    pub fn lets(&self) -> impl Iterator<Item = &crate::syntax::ast::Let> {
        let items = self.files.iter().flat_map(|f| &f.items);
        items.filter_map(|item| match item {
            Item::Let(binding) => Some(binding),
            _ => None,
        })
    }

    /// A declaration with its checked values, at the first point of sweeps; `None` where it is not sound.
    #[must_use]
    pub fn checked(&self, name: &str) -> Option<&Declared> {
        self.swept.recipes.first()?.items.get(name)
    }

    /// The text at a place.
    #[must_use]
    pub fn at(&self, span: Span) -> &str {
        let text = self.sources.get(span.source).map_or("", |s| &s.text);
        text.get(span.start as usize..span.end as usize)
            .unwrap_or_default()
    }
}

/// The declaration of a keyword.
pub(super) fn declared_by(keyword: &str) -> Option<&'static Declaration> {
    DECLARATIONS.iter().find(|d| d.keyword == keyword)
}
