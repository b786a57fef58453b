//! What is said of an entry or a key, in Markdown.

use std::fmt::Write as _;

use crate::library::schema::{Default, Key, Schema};

/// An entry: what it is, its doc, its paper.
pub(super) fn entry(schema: &Schema) -> String {
    let mut text = format!("**{}** — {}\n", schema.name, schema.summary);
    for part in [schema.doc, schema.paper] {
        if !part.is_empty() {
            let lead = if part == schema.paper {
                "*Source:* "
            } else {
                ""
            };
            let _ = write!(text, "\n{lead}{part}\n");
        }
    }
    text
}

/// What a key takes and is without being written.
pub(super) fn takes(key: &Key) -> String {
    let usual = match key.default {
        Default::Required => "required".to_owned(),
        Default::Absent => "optional".to_owned(),
        Default::Text(text) | Default::Tacit(text) => format!("default `{text}`"),
    };
    format!("{}; {usual}", key.kind)
}

/// A key of a block.
pub(super) fn key(schema: &Schema, key: &Key) -> String {
    let block = match schema.name {
        "" => String::new(),
        name => format!(" of `{name}`"),
    };
    format!("**{}**{block} — {}\n\n{}\n", key.name, takes(key), key.doc)
}
