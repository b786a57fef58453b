//! Values on one line.

use super::super::ast::{Ctor, Value, ValueKind};
use super::{Line, arg_text, block_span, slice};
use crate::base::Spanned;

pub(super) fn map_line<'a>(text: &str, key: &Spanned<String>, value: &'a Value) -> Line<'a> {
    Line::Text(
        format!("{}: ", slice(text, key.span)),
        key.span,
        Some(value),
    )
}

/// The text of a value on one line.
fn inline(text: &str, value: &Value) -> String {
    match &value.value {
        ValueKind::Ctor(ctor) => inline_ctor(text, ctor),
        ValueKind::List(list) => inline_brackets(
            text,
            '[',
            &list.iter().map(Line::Element).collect::<Vec<_>>(),
        ),
        ValueKind::Map(pairs) => {
            let lines: Vec<Line<'_>> = pairs
                .iter()
                .map(|(key, value)| map_line(text, key, value))
                .collect();
            inline_brackets(text, '{', &lines)
        }
        ValueKind::Set(paths) => {
            let list: Vec<String> = paths.iter().map(ToString::to_string).collect();
            format!("{{ {} }}", list.join(", "))
        }
        ValueKind::Number { .. } | ValueKind::Str(_) | ValueKind::Bool(_) | ValueKind::Path(_) => {
            scalar(text, value)
        }
    }
}

fn inline_ctor(text: &str, ctor: &Ctor) -> String {
    let mut out = ctor.name.value.clone();
    if let Some(arg) = arg_text(text, ctor) {
        out.push(' ');
        out.push_str(&arg);
    }
    if block_span(text, ctor).is_some() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&inline_brackets(
            text,
            '{',
            &ctor.entries.iter().map(Line::Entry).collect::<Vec<_>>(),
        ));
    }
    out
}

pub(super) fn inline_brackets(text: &str, open: char, lines: &[Line<'_>]) -> String {
    let list: Vec<String> = lines
        .iter()
        .map(|line| match line {
            Line::Entry(entry) => format!("{} = {}", entry.key, inline(text, &entry.value)),
            Line::Element(value) => inline(text, value),
            Line::Text(key, _, value) => format!(
                "{key}{}",
                value.map(|value| inline(text, value)).unwrap_or_default()
            ),
        })
        .collect();
    let list = list.join(", ");
    match open {
        '[' => format!("[{list}]"),
        _ if list.is_empty() => "{}".to_owned(),
        _ => format!("{{ {list} }}"),
    }
}

/// A number, text, truth value or path. Numbers and texts as written: underscores and escapes are
/// for people.
pub(super) fn scalar(text: &str, value: &Value) -> String {
    let written = slice(text, value.span);
    match &value.value {
        ValueKind::Path(path) => path.to_string(),
        ValueKind::Number {
            unit: Some(unit), ..
        } => {
            let digits = written
                .strip_suffix(unit.as_str())
                .unwrap_or(written)
                .trim_end();
            // Counted things are words of the sentence; sizes and percent are part of the number. A unit
            // that could be read as an exponent or more digits keeps its distance.
            let apart = unit.chars().count() > 3
                || written.len() > digits.len() + unit.len() && unit != "%" && !is_size(unit);
            format!("{digits}{}{unit}", if apart { " " } else { "" })
        }
        _ => written.to_owned(),
    }
}

fn is_size(unit: &str) -> bool {
    matches!(
        unit,
        "B" | "KB" | "MB" | "GB" | "TB" | "KiB" | "MiB" | "GiB" | "TiB"
    )
}
