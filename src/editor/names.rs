//! Where names are declared and used.
//!
//! **Invariant:** a path is a use of a declaration only where its key takes a reference: `attention` in a placement is
//! a role, whatever a recipe calls its stages.

use std::collections::BTreeMap;

use super::Analysis;
use super::analysis::declared_by;
use crate::base::{SourceId, Span};
use crate::library::schema::{Kind, Schema};
use crate::resolve::registry;
use crate::syntax::ast::{Ctor, Decl, Item, Path, Segment, Value, ValueKind};

/// A name in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// The name.
    pub name: String,
    /// Its place.
    pub span: Span,
    /// Whether it is declared here.
    pub declares: bool,
}

/// Whether a word can be the name of a declaration.
#[must_use]
pub fn is_name(word: &str) -> bool {
    let mut chars = word.chars();
    let first = chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let reserved = ["peftc", "import", "let", "true", "false"].contains(&word);
    first && !reserved && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// All names of a recipe, those of its imports included.
#[must_use]
pub fn occurrences(analysis: &Analysis) -> Vec<Occurrence> {
    let mut names = Names {
        lets: BTreeMap::new(),
        found: Vec::new(),
        analysis,
    };
    for binding in analysis.lets() {
        names.lets.entry(&binding.name.value).or_default();
    }
    let decls: Vec<&Decl> = analysis.declarations().collect();
    // What a `let` is used as decides what its own value refers to; a chain of them takes a walk each.
    for _ in 0..2 {
        names.found.clear();
        names.walk(&decls);
    }
    let mut found = names.found;
    found.sort_by_key(|o| (o.span, !o.declares));
    found.dedup_by_key(|o| o.span);
    found
}

/// The declaration of what is named at a byte of the recipe's own text; of an import the beginning of its file.
#[must_use]
pub fn definition(analysis: &Analysis, offset: usize) -> Option<Span> {
    let at = |span: Span| {
        span.source == SourceId(0) && (span.start as usize..=span.end as usize).contains(&offset)
    };
    for item in analysis.file().into_iter().flat_map(|f| &f.items) {
        if let Item::Import(import) = item
            && at(import.path.span)
        {
            let target = analysis.path.parent()?.join(&import.path.value);
            let index = analysis.paths().position(|p| p == target)?;
            return Some(Span::new(SourceId(u32::try_from(index).ok()?), 0, 0));
        }
    }
    let all = occurrences(analysis);
    let name = &all.iter().find(|o| at(o.span))?.name;
    all.iter()
        .find(|o| o.declares && o.name == *name)
        .map(|o| o.span)
}

struct Names<'a> {
    /// The `let`s, with the kinds of the keys that take them.
    lets: BTreeMap<&'a str, Vec<Kind>>,
    found: Vec<Occurrence>,
    analysis: &'a Analysis,
}

impl<'a> Names<'a> {
    fn walk(&mut self, decls: &[&'a Decl]) {
        for decl in decls {
            self.add(&decl.name.value, decl.name.span, true);
            let keyword = decl.keyword.value.as_str();
            if keyword == "sweep" {
                self.sweep(decl);
                continue;
            }
            let schemas = declared_by(keyword)
                .map(|d| d.schemas())
                .unwrap_or_default();
            let schema = schemas.into_iter().find(|s| s.name == decl.body.name.value);
            self.block(schema, &decl.body);
        }
        let analysis = self.analysis;
        for binding in analysis.lets() {
            self.add(&binding.name.value, binding.name.span, true);
            let kinds = self.kinds(&binding.name.value);
            self.value(&kinds, &binding.value);
        }
    }

    fn kinds(&self, name: &str) -> Vec<Kind> {
        self.lets.get(name).cloned().unwrap_or_default()
    }

    fn add(&mut self, name: &str, span: Span, declares: bool) {
        self.found.push(Occurrence {
            name: name.to_owned(),
            span,
            declares,
        });
    }

    /// The axes of a sweep name `let`s, and their values are what these are.
    fn sweep(&mut self, decl: &'a Decl) {
        for entry in &decl.body.entries {
            let name = entry.key.value.as_str();
            if self.lets.contains_key(name) {
                self.add(name, entry.key.span, false);
            }
            let kinds = self.kinds(name);
            self.value(&kinds, &entry.value);
        }
    }

    fn block(&mut self, schema: Option<&'static Schema>, ctor: &'a Ctor) {
        for entry in &ctor.entries {
            let key = schema.and_then(|s| s.key(&entry.key.value));
            let kinds: Vec<Kind> = key.map(|k| k.kind).into_iter().collect();
            self.value(&kinds, &entry.value);
        }
    }

    fn value(&mut self, kinds: &[Kind], value: &'a Value) {
        match &value.value {
            ValueKind::Path(path) => self.path(kinds, path, value.span),
            ValueKind::Ctor(ctor) => self.ctor(kinds, ctor),
            ValueKind::List(list) => list.iter().for_each(|v| self.value(kinds, v)),
            ValueKind::Map(pairs) => {
                let inner: Vec<Kind> = kinds
                    .iter()
                    .map(|kind| match kind {
                        Kind::ByPlace(of) => **of,
                        other => *other,
                    })
                    .collect();
                pairs.iter().for_each(|(_, v)| self.value(&inner, v));
            }
            ValueKind::Set(_)
            | ValueKind::Number { .. }
            | ValueKind::Str(_)
            | ValueKind::Bool(_) => {}
        }
    }

    fn ctor(&mut self, kinds: &[Kind], ctor: &'a Ctor) {
        let schema = kinds.iter().find_map(|kind| match kind {
            Kind::Block(schema) if ctor.name.value.is_empty() => Some(*schema),
            Kind::Entry(of) | Kind::Entries(of) => registry::schema(*of, &ctor.name.value),
            _ => None,
        });
        let by_name = || {
            registry::all()
                .into_iter()
                .find(|s| s.name == ctor.name.value)
        };
        self.block(schema.or_else(by_name), ctor);
    }

    fn path(&mut self, kinds: &[Kind], path: &'a Path, span: Span) {
        let Some(Segment::Name(first, None)) = path.segments.first() else {
            return;
        };
        let place = Span {
            end: span
                .start
                .saturating_add(u32::try_from(first.len()).unwrap_or(0)),
            ..span
        };
        if path.segments.len() == 1
            && let Some(known) = self.lets.get_mut(first.as_str())
        {
            for kind in kinds {
                if !known.contains(kind) {
                    known.push(*kind);
                }
            }
            self.add(first, place, false);
            return;
        }
        let refers = kinds.iter().any(|kind| matches!(kind, Kind::Ref(_)));
        if refers && self.analysis.declaration(first).is_some() {
            self.add(first, place, false);
        }
    }
}
