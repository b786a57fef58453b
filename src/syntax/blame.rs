//! From "the grammar stopped here" to a message for people.
//!
//! **Invariant:** only words and offsets arrive here, no grammar rules and no tree.

use std::ops::Range;

use super::error::{
    MISSING_EQUALS, MISSING_SEPARATOR, MISSING_VALUE, STRAY_BRACKET, UNCLOSED_BRACKET,
    UNCLOSED_STRING, UNEXPECTED, clip,
};
use super::scan::{self, Imbalance};
use crate::base::{Diag, Diags, SourceId, Span};

/// Where a broken piece of text lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    /// Its text.
    pub text: &'a str,
    /// Its first byte in the source.
    pub base: usize,
    /// The source.
    pub source: SourceId,
}

/// Where the grammar stopped, and what it could have gone on with.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop {
    /// Offset in the piece.
    pub at: usize,
    /// What could have followed, in words.
    pub expected: Vec<&'static str>,
    /// Whether `=` could have.
    pub equals: bool,
    /// Whether a separator between entries or elements could have.
    pub separator: bool,
}

impl Piece<'_> {
    fn span(&self, range: Range<usize>) -> Span {
        Span::new(self.source, self.base + range.start, self.base + range.end)
    }
}

/// Everything wrong with a broken piece: its quotes and brackets, and where the grammar stopped.
pub(super) fn explain(piece: Piece<'_>, stop: Option<Stop>) -> Diags {
    let mut diags = Diags::default();
    let imbalance = scan::imbalance(piece.text);
    // The grammar also stops at what the imbalance explains; then one message is enough.
    let explained = match (&imbalance, &stop) {
        (None, _) => false,
        (Some(_), None) | (Some(Imbalance::String(_)), _) => true,
        (Some(Imbalance::Unclosed(..)), Some(stop)) => nothing_after(piece.text, stop.at),
        (Some(Imbalance::Mismatch(_, _, at) | Imbalance::Stray(_, at)), Some(stop)) => {
            stop.at >= at.start
        }
    };
    if let Some(imbalance) = imbalance {
        diags.push(unbalanced(piece, imbalance));
    }
    if !explained {
        diags.push(stopped(piece, &stop.unwrap_or_default()));
    }
    diags
}

fn unbalanced(piece: Piece<'_>, imbalance: Imbalance) -> Diag {
    match imbalance {
        Imbalance::String(at) => Diag::error(
            &UNCLOSED_STRING,
            piece.span(at),
            "a string is not closed on its line",
        )
        .label("no closing `\"`")
        .help("close it with `\"`; inside a string a line break is `\\n` and a quote is `\\\"`"),
        Imbalance::Unclosed(open, at) => {
            let close = scan::closer(open);
            Diag::error(
                &UNCLOSED_BRACKET,
                piece.span(at),
                format!("`{open}` is never closed"),
            )
            .label("opened here")
            .help(format!(
                "add `{close}` after the last line that belongs to it"
            ))
        }
        Imbalance::Mismatch(open, at, by) => {
            let close = scan::closer(open);
            let wrong = piece.text.get(by.clone()).unwrap_or_default();
            Diag::error(
                &UNCLOSED_BRACKET,
                piece.span(at),
                format!("`{open}` is closed by `{wrong}`"),
            )
            .label("opened here")
            .related(piece.span(by), format!("`{close}` is missing before this"))
            .help(format!("add `{close}` before `{wrong}`"))
        }
        Imbalance::Stray(close, at) => Diag::error(
            &STRAY_BRACKET,
            piece.span(at),
            format!("`{close}` closes nothing"),
        )
        .label("no bracket is open here")
        .help(format!(
            "remove the `{close}`, or add the line that opens it"
        )),
    }
}

/// The message for the place where the grammar stopped.
fn stopped(piece: Piece<'_>, stop: &Stop) -> Diag {
    let (before, found) = around(piece.text, stop.at);
    let word = piece.text.get(found.clone()).unwrap_or_default();
    let span = piece.span(found.clone());
    if matches!(before.chars().next_back(), Some('=' | ':'))
        && (word.is_empty() || "\n,}]".contains(word))
    {
        return missing_value(piece, before);
    }
    if stop.equals {
        return missing_equals(piece, before, word, span);
    }
    if stop.separator && starts_something(word) {
        let help = match blanks(piece.text, before, found.start) {
            Some(name) => format!(
                "a name with blanks stands in quotes: `\"{name}\"`; what is no part of it is separated by a comma or a line break"
            ),
            None => "separate entries and elements with commas or line breaks".to_owned(),
        };
        return Diag::error(
            &MISSING_SEPARATOR,
            span,
            format!("nothing separates `{}` from what comes before", clip(word)),
        )
        .label("expected `,` or a new line before this")
        .help(help);
    }
    let mut expected = stop.expected.clone();
    expected.sort_unstable();
    expected.dedup();
    let expected = if expected.is_empty() {
        "something else".to_owned()
    } else {
        one_of(&expected)
    };
    let diag = Diag::error(
        &UNEXPECTED,
        span,
        format!("expected {expected}, found {}", name_of(word)),
    )
    .label(format!("expected {expected}"));
    let help = declaring(word, before).or_else(|| habit(word, before).map(str::to_owned));
    match help {
        Some(help) => diag.help(help),
        None => diag,
    }
}

/// The whole name, where a value is several words with blanks between: `customer text` of `text = customer text`.
fn blanks<'a>(text: &'a str, before: &str, at: usize) -> Option<&'a str> {
    let start = before.trim_end_matches(|c| is_word(c) || c == '.').len();
    let first = before.get(start..).filter(|w| !w.is_empty())?;
    // It is a value, and it stands on one line.
    let sign = before.get(..start)?.trim_end_matches(is_blank);
    if !sign.ends_with(['=', '[', ',', ':']) || text.get(before.len()..at)?.contains('\n') {
        return None;
    }
    let line = text.get(start..)?;
    let stop = |c: char| !(is_word(c) || is_blank(c) || c == '.' || c == '-');
    let end = line.find(stop).unwrap_or(line.len());
    let name = line.get(..end)?.trim_end_matches(is_blank);
    // What stands before the next `=` is a key: a comma is missing.
    let next = line.get(end..)?.chars().next();
    let literal =
        first.starts_with(|c: char| c.is_ascii_digit()) || matches!(first, "true" | "false");
    (!literal && !matches!(next, Some('=' | '{' | '"' | ':'))).then_some(name)
}

/// What is missing in a declaration: its name, what it is made by, or the quotes around what that takes.
fn declaring(word: &str, before: &str) -> Option<String> {
    let (keyword, rest) = before.split_once(is_blank).unwrap_or((before, ""));
    let rest = rest.trim_matches(is_blank);
    let usual = match keyword {
        "model" | "data" => "local \"PATH\"",
        "stage" => "train { … }",
        "prompt" => "prompt { … }",
        "sweep" => "grid { … }",
        _ => return None,
    };
    let Some((name, made)) = rest.split_once('=') else {
        let nameless = rest.is_empty() && matches!(word, "{" | "=" | "\"");
        return nameless.then(|| format!("a declaration has a name: `{keyword} NAME = {usual}`"));
    };
    let (name, made) = (name.trim_matches(is_blank), made.trim_matches(is_blank));
    if name.is_empty() || !name.chars().all(is_word) {
        return None;
    }
    let path = matches!(keyword, "model" | "data");
    match (made, word) {
        ("", "{") if keyword == "prompt" => {
            Some(format!("a prompt has no `=`: `prompt {name} {{ … }}`"))
        }
        ("", "{") => Some(format!(
            "what it is made by is missing before the `{{`: `{keyword} {name} = {usual}`"
        )),
        ("hub", _) if path => Some(format!(
            "a repository stands in quotes: `{keyword} {name} = hub \"ORG/NAME\"`"
        )),
        ("local", _) if path => Some(format!(
            "a path stands in quotes: `{keyword} {name} = local \"PATH\"`"
        )),
        (made, "-" | "." | "/") if path && made.chars().all(is_word) => Some(format!(
            "a source and a text in quotes belong here: `{keyword} {name} = local \"PATH\"`, or `hub \"ORG/NAME\"`"
        )),
        _ => None,
    }
}

fn missing_value(piece: Piece<'_>, before: &str) -> Diag {
    let sign = before.chars().next_back().unwrap_or('=');
    let key = last_word(before.strip_suffix(['=', ':']).unwrap_or(before).trim_end());
    let at = before.len().saturating_sub(1)..before.len();
    let whose = if key.is_empty() {
        "this entry".to_owned()
    } else {
        format!("`{key}`")
    };
    Diag::error(
        &MISSING_VALUE,
        piece.span(at),
        format!("{whose} has no value"),
    )
    .label(format!("nothing follows `{sign}` on this line"))
    .help(format!("write a value after `{sign}`, or remove the entry"))
}

fn missing_equals(piece: Piece<'_>, before: &str, word: &str, span: Span) -> Diag {
    let key = last_word(before);
    let span = if word.trim().is_empty() {
        piece.span(before.len() - key.len()..before.len())
    } else {
        span
    };
    let message = match word {
        "" | "\n" | "," | "}" => format!("`{key}` has no `=` and no value"),
        _ => format!("expected `=` after `{key}`, found {}", name_of(word)),
    };
    let diag = Diag::error(&MISSING_EQUALS, span, message).label("expected `=`");
    match word {
        ":" => diag.help(format!("write `{key} = …`; the colon belongs to maps")),
        _ => diag.help(format!("write `{key} = …`")),
    }
}

/// The text before `at` without trailing blanks and comment, and the word found at or after it.
fn around(text: &str, at: usize) -> (&str, Range<usize>) {
    let before = text.get(..at).unwrap_or(text);
    let rest = text.get(before.len()..).unwrap_or_default();
    let mut start = before.len() + (rest.len() - rest.trim_start_matches(is_blank).len());
    let mut rest = text.get(start..).unwrap_or_default();
    if rest.starts_with('#') {
        let comment = rest.find('\n').unwrap_or(rest.len());
        start += comment;
        rest = rest.get(comment..).unwrap_or_default();
    }
    let length = match rest.chars().next() {
        None => 0,
        Some('"') => scan::marks(rest).first().map_or(1, |(_, range)| range.end),
        Some(c) if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
        Some(c) => c.len_utf8(),
    };
    (
        before.trim_end_matches(|c| is_blank(c) || c == '\n'),
        start..start + length,
    )
}

/// What people bring along from other languages.
fn habit(word: &str, before: &str) -> Option<&'static str> {
    match word {
        "'" | "`" | "‘" | "’" | "“" | "”" => {
            Some("strings stand in double quotes: `\"…\"`")
        }
        _ if word.starts_with('"') && before.ends_with('=') => {
            Some("a text follows the name of what it is for, as in `local \"dir\"`")
        }
        ";" => Some("entries end with a line break or a comma"),
        "/" | "%" if before.is_empty() || word == "/" => Some("comments start with `#`"),
        "-" | "." => {
            Some("names consist of letters, digits and `_`; a number has digits before its point")
        }
        "+" => Some("positive numbers have no sign"),
        "=" => Some("entries need a name before their `{`, as in `lora { rank = 8 }`"),
        "(" => Some("keys stand in braces: `lora { rank = 8 }`"),
        "{" => Some("`{` follows its name on the same line, as in `train { … }`"),
        ":" => Some("the colon belongs to maps; entries are written `key = value`"),
        _ => None,
    }
}

/// Whether nothing but blanks and comments follows.
fn nothing_after(text: &str, at: usize) -> bool {
    let rest = text.get(at..).unwrap_or_default();
    rest.lines().all(|line| {
        let line = line.trim_matches(is_blank);
        line.is_empty() || line.starts_with('#')
    })
}

fn starts_something(word: &str) -> bool {
    word.chars()
        .next()
        .is_some_and(|c| is_word(c) || matches!(c, '"' | '{' | '[' | '*'))
}

fn last_word(text: &str) -> &str {
    if text.ends_with('"') {
        return scan::marks(text)
            .last()
            .and_then(|(_, range)| text.get(range.clone()))
            .unwrap_or_default();
    }
    let start = text.trim_end_matches(|c| is_word(c) || c == '.').len();
    text.get(start..).unwrap_or_default()
}

fn name_of(word: &str) -> String {
    match word {
        "" => "the end of the text".to_owned(),
        "\n" => "the end of the line".to_owned(),
        _ => format!("`{}`", clip(word)),
    }
}

/// `a`, `a or b`, `a, b or c`.
fn one_of(list: &[&str]) -> String {
    match list {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [head @ .., last] => format!("{} or {last}", head.join(", ")),
    }
}

const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\u{FEFF}')
}

const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
