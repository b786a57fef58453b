//! `{% generation %}` blocks, by which a template says what the assistant writes.
//!
//! A block becomes a call block, as in transformers, so that what is set within it ends with it. The function that is
//! called puts a mark on either side of what the block renders; the text without the marks has to be the text that
//! is rendered without them.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::LazyLock;

use minijinja::value::Kwargs;
use minijinja::{Error, State, Value};
use regex::Regex;

use super::TemplateError;

/// The function that a block calls.
pub(super) const FUNCTION: &str = "__generation__";

/// Marks: two code points that Unicode keeps free of characters.
const OPEN: char = '\u{10FFFE}';
const CLOSE: char = '\u{10FFFF}';

/// The template with blocks written as calls, and whether there are any.
///
/// A call block knows the variables that it reads from outside. A namespace that it only assigns to is read at its
/// beginning, so that it is one of them.
pub(super) fn as_calls(text: &str) -> (String, bool) {
    static TAG: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\{%([-+]?)(\s*)(end)?generation(\s*)([-+]?)%\}").ok());
    static ASSIGNED: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\{%[-+]?\s*set\s+([A-Za-z_]\w*)\s*\.").ok());
    let (Some(tag), Some(assigned)) = (TAG.as_ref(), ASSIGNED.as_ref()) else {
        return (text.to_owned(), false);
    };
    let names = assigned.captures_iter(text);
    let names: BTreeSet<&str> = names.filter_map(|c| Some(c.get(1)?.as_str())).collect();
    let written = tag.replace_all(text, |found: &regex::Captures<'_>| {
        let part = |i: usize| found.get(i).map_or("", |m| m.as_str());
        // Line breaks within a tag stay, so that errors name the right line.
        let (open, lines, more, close) = (part(1), part(2), part(4), part(5));
        if found.get(3).is_some() {
            return format!("{{%{open}{lines} endcall {more}{close}%}}");
        }
        let all: Vec<String> = std::iter::once(format!("call {FUNCTION}()"))
            .chain(
                names
                    .iter()
                    .map(|name| format!("set {FUNCTION}known = {name}")),
            )
            .collect();
        format!("{{%{open}{lines} {} {more}{close}%}}", all.join(" %}{% "))
    });
    (written.to_string(), tag.is_match(text))
}

/// What a block renders.
pub(super) fn plain(state: &mut State<'_, '_>, options: Kwargs) -> Result<Value, Error> {
    let caller: Value = options.get("caller")?;
    caller.call(state, &[])
}

/// What a block renders, between marks.
pub(super) fn marked(state: &mut State<'_, '_>, options: Kwargs) -> Result<Value, Error> {
    let text = plain(state, options)?.to_string();
    Ok(Value::from_safe_string(format!("{OPEN}{text}{CLOSE}")))
}

/// The ranges between marks, in the text without marks.
///
/// # Errors
/// Marks that the template moved, cut or repeated, or that the messages hold themselves.
pub(super) fn ranges(marked: &str, plain: &str) -> Result<Vec<Range<usize>>, TemplateError> {
    let mut text = String::with_capacity(plain.len());
    let (mut all, mut open) = (Vec::new(), None);
    for c in marked.chars() {
        match (c, open) {
            (OPEN, None) => open = Some(text.len()),
            (CLOSE, Some(start)) => {
                all.push(start..text.len());
                open = None;
            }
            (OPEN | CLOSE, _) => return Err(unclear()),
            (other, _) => text.push(other),
        }
    }
    if open.is_some() || text != plain {
        return Err(unclear());
    }
    all.retain(|range| !range.is_empty());
    Ok(all)
}

fn unclear() -> TemplateError {
    TemplateError::new(
        "what the template puts between {% generation %} and {% endgeneration %} is changed before it is written, so that its \
         place in the text is not known",
    )
}
