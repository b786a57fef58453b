//! The outline of a recipe: what it declares, and the keys in it.

use super::Analysis;
use crate::base::{SourceId, Span};
use crate::syntax::ast::{Ctor, Item, ValueKind};

/// A part of an outline.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it is: `stage`, `model`, `let`; empty for a key.
    pub keyword: String,
    /// What it is made by, or its value.
    pub detail: String,
    /// The whole of it.
    pub span: Span,
    /// Its name in the text.
    pub named: Span,
    /// Its keys.
    pub within: Vec<Self>,
}

/// The outline of the recipe's own text.
#[must_use]
pub fn outline(analysis: &Analysis) -> Vec<Entry> {
    let items = analysis.file().into_iter().flat_map(|f| &f.items);
    let own = |span: Span| span.source == SourceId(0);
    items
        .filter_map(|item| match item {
            Item::Import(_) => None,
            Item::Let(binding) => Some(Entry {
                name: binding.name.value.clone(),
                keyword: "let".to_owned(),
                detail: short(analysis.at(binding.value.span)),
                span: binding.span,
                named: binding.name.span,
                within: Vec::new(),
            }),
            Item::Decl(decl) => Some(Entry {
                name: decl.name.value.clone(),
                keyword: decl.keyword.value.clone(),
                detail: decl.body.name.value.clone(),
                span: decl.span,
                named: decl.name.span,
                within: keys(analysis, &decl.body),
            }),
        })
        .filter(|entry| own(entry.span))
        .collect()
}

fn keys(analysis: &Analysis, ctor: &Ctor) -> Vec<Entry> {
    let one = |entry: &crate::syntax::ast::Entry| Entry {
        name: entry.key.value.clone(),
        keyword: String::new(),
        detail: short(analysis.at(entry.value.span)),
        span: entry.key.span.to(entry.value.span),
        named: entry.key.span,
        within: match &entry.value.value {
            ValueKind::Ctor(inner) => keys(analysis, inner),
            _ => Vec::new(),
        },
    };
    ctor.entries.iter().map(one).collect()
}

/// A value on a line.
fn short(text: &str) -> String {
    const MOST: usize = 40;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MOST {
        return line;
    }
    line.chars().take(MOST - 1).chain(['…']).collect()
}
