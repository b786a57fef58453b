//! What to write instead of a mistake.
//!
//! **Invariant:** what is offered is what a diagnostic's own help names, and it is offered only if the recipe has no
//! mistake more with it; one that names and values decide has to be gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Analysis, Overlay};
use crate::base::world::World;
use crate::base::{Diag, Severity, SourceId, Span};
use crate::library::schema::{Default, Key, Schema};
use crate::library::words;
use crate::resolve::registry;
use crate::syntax::ast::{Ctor, Item, Value, ValueKind};

/// A piece of text put in the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The place in the recipe's own text.
    pub span: Span,
    /// What stands there then.
    pub text: String,
}

/// A way out of a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// What it does.
    pub title: String,
    /// How.
    pub edit: Edit,
}

/// Most ways that are tried for a mistake.
const MOST: usize = 16;

/// The ways out of a mistake of the recipe's own text. `planned` says that the mistake was found by planning, which is
/// not done here: then only a word of the recipe is replaced by one that the help names.
#[must_use]
pub fn fixes(analysis: &Analysis, diag: &Diag, planned: bool, world: &dyn World) -> Vec<Fix> {
    let Some(at) = diag.span.filter(|s| s.source == SourceId(0)) else {
        return Vec::new();
    };
    let before = errors(analysis);
    let mut found: Vec<Fix> = Vec::new();
    for fix in candidates(analysis, diag, at, planned)
        .into_iter()
        .take(MOST)
    {
        let known = |f: &Fix| applied(analysis, &f.edit) == applied(analysis, &fix.edit);
        if found.iter().any(known) {
            continue;
        }
        let after = tried(analysis, &fix.edit, world);
        let fewer = errors(&after) < before || diag.severity != Severity::Error;
        let gone = !after
            .diags
            .iter()
            .any(|d| d.code == diag.code && d.message == diag.message);
        if planned && errors(&after) <= before || fewer && gone {
            found.push(fix);
        }
    }
    found
}

fn errors(analysis: &Analysis) -> usize {
    let wrong = analysis
        .diags
        .iter()
        .filter(|d| d.severity == Severity::Error);
    wrong.count()
}

/// The text with an edit made.
fn applied(analysis: &Analysis, edit: &Edit) -> String {
    let text = analysis.text();
    let (start, end) = (edit.span.start as usize, edit.span.end as usize);
    let (before, after) = (text.get(..start), text.get(end..));
    format!(
        "{}{}{}",
        before.unwrap_or_default(),
        edit.text,
        after.unwrap_or_default()
    )
}

/// The recipe with an edit made.
fn tried(analysis: &Analysis, edit: &Edit, world: &dyn World) -> Analysis {
    let mut texts: BTreeMap<PathBuf, Arc<str>> = BTreeMap::new();
    texts.insert(analysis.path.clone(), applied(analysis, edit).into());
    let overlay = Overlay::new(world, Arc::new(texts), Arc::new(AtomicBool::new(false)));
    Analysis::of(Path::new(&analysis.path), &overlay)
}

/// What stands around a place in the tree.
#[derive(Default)]
struct Around {
    /// The `key = value` that it is in.
    entry: Option<(Span, Span)>,
    /// The item that it is in.
    item: Option<Span>,
    /// The block whose name it is.
    block: Option<Ctor>,
}

/// Everything that a help names, as edits.
fn candidates(analysis: &Analysis, diag: &Diag, at: Span, planned: bool) -> Vec<Fix> {
    let help = diag.help.clone().unwrap_or_default();
    let named = quoted(&help);
    let around = around(analysis, at);
    let mut list = Vec::new();
    let mut offer = |title: String, span: Span, text: &str| {
        list.push(Fix {
            title,
            edit: Edit {
                span,
                text: text.to_owned(),
            },
        });
    };
    let own = analysis.at(at).trim_matches('"');
    let meant = help.contains("did you mean") || help.contains("valid here");
    for word in &named {
        let plain = word.trim_matches('`');
        if meant && plain != own {
            let quotes = analysis.at(at).starts_with('"') && !plain.starts_with('"');
            let text = if quotes {
                crate::syntax::quote(plain)
            } else {
                plain.to_owned()
            };
            offer(format!("write `{plain}`"), at, &text);
        }
    }
    if planned {
        return list;
    }
    for word in named
        .iter()
        .filter(|w| !w.contains('…') && !w.starts_with("peftc "))
    {
        if let Some((entry, value)) = around.entry {
            if word.contains('=') {
                offer(format!("write `{word}`"), entry, word);
            }
            offer(format!("write `{word}`"), value, word);
        }
        if let Some(item) = around.item.filter(|_| word.contains(' ')) {
            offer(format!("write `{word}`"), item, word);
        }
        offer(format!("write `{word}`"), at, word);
        // A bracket or a quote that is missing.
        if word.len() <= 2 {
            let end = Span {
                start: at.end,
                ..at
            };
            offer(format!("add `{word}`"), end, word);
        }
    }
    let remove = ["remove", "leave it out", "again here"];
    if remove
        .iter()
        .any(|r| help.contains(r) || diag.label.contains(r))
    {
        offer(format!("remove `{own}`"), at, "");
        if let Some((entry, _)) = around.entry {
            offer(
                format!("remove `{}`", analysis.at(entry)),
                with_separator(analysis.text(), entry),
                "",
            );
        }
        if let Some(item) = around.item {
            offer("remove it".to_owned(), item, "");
        }
    }
    if let Some(fix) = missing_key(diag, around.block.as_ref()) {
        list.push(fix);
    }
    list
}

/// What stands between backticks.
fn quoted(help: &str) -> Vec<String> {
    let parts = help.split('`').skip(1).step_by(2);
    parts.filter(|p| !p.is_empty()).map(str::to_owned).collect()
}

/// An entry with the separator behind it, or with its whole line where it stands alone on it.
fn with_separator(text: &str, entry: Span) -> Span {
    let (start, end) = (entry.start as usize, entry.end as usize);
    let behind = text.get(end..).unwrap_or_default();
    let blank = |c: char| c == ' ' || c == '\t';
    let comma = behind.trim_start_matches(blank);
    if let Some(rest) = comma.strip_prefix(',') {
        let rest = rest.trim_start_matches(blank);
        return Span::new(entry.source, start, text.len() - rest.len());
    }
    let before = text.get(..start).unwrap_or_default();
    let line = before.trim_end_matches(blank);
    if line.ends_with('\n') && comma.starts_with('\n') {
        return Span::new(entry.source, line.len(), text.len() - comma.len() + 1);
    }
    let line = line.strip_suffix(',').unwrap_or(before);
    Span::new(entry.source, line.len(), end)
}

/// The key that a block lacks, with a usual value.
fn missing_key(diag: &Diag, block: Option<&Ctor>) -> Option<Fix> {
    let block = block?;
    let key = diag.label.strip_suffix("` is missing")?.strip_prefix('`')?;
    let text = registry::all().into_iter().find_map(|schema: &Schema| {
        let own = (schema.name == block.name.value).then(|| schema.key(key))??;
        sample(own)
    })?;
    let span = |at: u32| Span {
        start: at,
        end: at,
        ..block.span
    };
    let (edit, bare) = match block.entries.first() {
        Some(first) => (
            Edit {
                span: span(first.key.span.start),
                text: format!("{text}, "),
            },
            false,
        ),
        None => (
            Edit {
                span: span(block.span.end),
                text: format!(" {{ {text} }}"),
            },
            true,
        ),
    };
    // Braces that hold nothing are no entry, and end the block.
    (!bare || block.span == block.name.span).then_some(Fix {
        title: format!("add `{text}`"),
        edit,
    })
}

/// A key as it is usually written.
fn sample(key: &Key) -> Option<String> {
    if let Some(sample) = words::sample_of(key.name) {
        return Some(sample.to_owned());
    }
    match key.default {
        Default::Text(text) | Default::Tacit(text) => Some(format!("{} = {text}", key.name)),
        Default::Required | Default::Absent => None,
    }
}

fn around(analysis: &Analysis, at: Span) -> Around {
    let mut found = Around::default();
    let within =
        |outer: Span| outer.source == at.source && outer.start <= at.start && at.end <= outer.end;
    for item in analysis.file().into_iter().flat_map(|f| &f.items) {
        match item {
            Item::Import(import) if within(import.span) => found.item = Some(import.span),
            Item::Let(binding) if within(binding.span) => {
                found.item = Some(binding.span);
                inside(&binding.value, at, &within, &mut found);
            }
            Item::Decl(decl) if within(decl.span) => {
                found.item = Some(decl.span);
                block(&decl.body, at, &within, &mut found);
            }
            _ => {}
        }
    }
    found
}

fn block(ctor: &Ctor, at: Span, within: &dyn Fn(Span) -> bool, found: &mut Around) {
    if ctor.name.span == at {
        found.block = Some(ctor.clone());
    }
    for entry in &ctor.entries {
        let whole = entry.key.span.to(entry.value.span);
        if within(whole) {
            found.entry = Some((whole, entry.value.span));
            inside(&entry.value, at, within, found);
        }
    }
}

fn inside(value: &Value, at: Span, within: &dyn Fn(Span) -> bool, found: &mut Around) {
    match &value.value {
        ValueKind::Ctor(ctor) => block(ctor, at, within, found),
        ValueKind::List(list) => {
            for value in list.iter().filter(|v| within(v.span)) {
                inside(value, at, within, found);
            }
        }
        _ => {}
    }
}
