//! What a word of a recipe means here.

use std::fmt::Write as _;
use std::ops::Range;

use super::analysis::declared_by;
use super::cursor::{Cursor, Frame, Spot, around};
use super::{Analysis, Shown, docs};
use crate::library::net::ROLES;
use crate::library::schema::{Checked, Filled, Kind, Schema};
use crate::resolve::registry;

/// What is said of the word at a byte of the recipe's own text, in Markdown, and the word.
#[must_use]
pub fn hover(
    analysis: &Analysis,
    text: &str,
    offset: usize,
    shown: Option<&Shown>,
) -> Option<(String, Range<usize>)> {
    let range = around(text, offset)?;
    let word = text.get(range.clone())?;
    // At its beginning, so that nothing of the word counts as written before it.
    let cursor = Cursor::at(text, range.end);
    let followed = text.get(range.end..)?.trim_start_matches([' ', '\t']);
    let said = match &cursor.spot {
        Spot::Keyword => declared_by(word).map(|d| {
            let of: Vec<&str> = d.schemas().iter().map(|s| s.name).collect();
            format!(
                "**{word}** declares: {}. Made by: {}\n",
                d.what,
                of.join(", ")
            )
        }),
        Spot::Name => declared(analysis, word, shown),
        Spot::Source(keyword) => {
            let schemas = declared_by(keyword)
                .map(|d| d.schemas())
                .unwrap_or_default();
            let found = schemas.into_iter().find(|s| s.name == word);
            found.map(docs::entry)
        }
        Spot::Key(schema) => schema.key(word).map(|key| {
            let own = value(analysis, &cursor, word);
            format!("{}{}", docs::key(schema, key), own.unwrap_or_default())
        }),
        Spot::Value(schema, name, kind) => in_value(
            analysis,
            (word, followed),
            (schema, name, *kind),
            (&cursor, shown),
        ),
        Spot::Let | Spot::AxisValue => {
            let all = registry::all();
            let found = all.into_iter().find(|s| s.name == word);
            found
                .map(docs::entry)
                .or_else(|| declared(analysis, word, shown))
        }
        Spot::Axis => declared(analysis, word, shown),
        Spot::Argument | Spot::Nothing => None,
    };
    said.map(|said| (said, range))
}

/// A word in a value: an entry, a name that is declared, a role; else the key whose value it is.
fn in_value(
    analysis: &Analysis,
    (word, followed): (&str, &str),
    (schema, name, kind): (&'static Schema, &str, Kind),
    (cursor, shown): (&Cursor, Option<&Shown>),
) -> Option<String> {
    if let Kind::Entry(of) | Kind::Entries(of) = kind
        && let Some(found) = registry::schema(of, word)
    {
        return Some(docs::entry(found));
    }
    // `word = ` begins a key of a block whose schema is not known.
    if followed.starts_with('=') {
        return None;
    }
    if cursor.path.is_empty()
        && (matches!(kind, Kind::Ref(_)) || analysis.lets().any(|l| l.name.value == word))
        && let Some(said) = declared(analysis, word, shown)
    {
        return Some(said);
    }
    if kind == Kind::Placement {
        let path = format!("{}{word}", cursor.path);
        let tail = path.trim_start_matches('.');
        if let Some((_, role)) = ROLES.iter().find(|(_, role)| *role == tail) {
            return Some(format!("**{role}**: a place where methods act\n"));
        }
    }
    let key = schema.key(name)?;
    let own = value(analysis, cursor, name);
    Some(format!(
        "{}{}",
        docs::key(schema, key),
        own.unwrap_or_default()
    ))
}

/// What a recipe declares under a name.
fn declared(analysis: &Analysis, name: &str, shown: Option<&Shown>) -> Option<String> {
    if let Some(binding) = analysis.lets().find(|l| l.name.value == name) {
        let mut said = format!("**{name}** = `{}`\n", analysis.at(binding.value.span));
        let axes = &analysis.swept.points.axes;
        if let Some(axis) = axes.iter().find(|a| a.name == name) {
            let _ = write!(said, "\nIt is swept: {}\n", axis.labels.join(", "));
        }
        return Some(said);
    }
    let decl = analysis.declaration(name)?;
    let mut said = format!(
        "**{} {name}** = `{}`\n",
        decl.keyword.value, decl.body.name.value
    );
    if let Some(about) = shown.and_then(|s| s.about(name)) {
        let _ = write!(said, "\n{about}");
    }
    if let Some(declared) = analysis.checked(name) {
        let _ = write!(said, "\n{}", values(&declared.filled));
    }
    Some(said)
}

/// Most values that are listed.
const MOST: usize = 40;

/// The values of a block, those that are written first.
fn values(filled: &Filled) -> String {
    let mut text = String::from("```peft\n");
    let (written, usual): (Vec<_>, Vec<_>) = filled
        .values
        .iter()
        .partition(|(key, _)| filled.values.written(key));
    for (key, value) in written.into_iter().take(MOST) {
        let _ = writeln!(text, "{key} = {value:#}");
    }
    if !usual.is_empty() {
        text.push_str("# not written:\n");
    }
    for (key, value) in usual.into_iter().take(MOST) {
        let _ = writeln!(text, "{key} = {value:#}");
    }
    text.push_str("```\n");
    text
}

/// What a key is here, where the block it stands in is sound.
fn value(analysis: &Analysis, cursor: &Cursor, key: &str) -> Option<String> {
    let declared = analysis.checked(cursor.item.words.get(1)?)?;
    let mut at = &declared.filled;
    for (outer, inner) in cursor.frames.iter().zip(cursor.frames.iter().skip(1)) {
        let Some(key) = outer.keys.last() else {
            continue;
        };
        if let Some(next) = step(at, key, inner) {
            at = next;
        }
    }
    let own = at.values.get(key)?;
    let by = if at.values.written(key) {
        ""
    } else {
        ", its default"
    };
    Some(format!("\nHere: `{own:#}`{by}\n"))
}

/// The block behind a key that a bracket opens.
fn step<'a>(at: &'a Filled, key: &str, inner: &Frame) -> Option<&'a Filled> {
    match at.values.get(key)? {
        Checked::Entry(entry) => Some(entry),
        Checked::Entries(list) => list
            .iter()
            .find(|e| e.name == inner.name)
            .or_else(|| list.first()),
        _ => None,
    }
}
