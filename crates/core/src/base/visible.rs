//! Text from outside, as it may be shown: what would act on a terminal stands there as an escape.
//!
//! **Invariant:** every escape is one of JSON too, so a JSON document that goes through here stays the same
//! document.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character acts on a terminal, or on the order and place of what stands around it, rather than
/// being seen: control characters, separators of lines, and the marks that turn the direction of text.
#[must_use]
pub fn acts(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// A name, a value, a path: what stands within a line.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// A text of lines of our own; their ends and tabs stay.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

fn escape(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let bad = |c: char| acts(c) && !stays(c);
    if !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if bad(c) {
            push(&mut out, c);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Appends a character as an escape.
pub fn push(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        // All that act lie in the first plane.
        c => {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_acts_is_escaped_and_what_is_read_stays() {
        let bad = "a\u{1b}[31m\u{7}\0\r\u{7f}\u{9b}1m\u{202e}z\n\tü😀";
        assert_eq!(
            line(bad),
            "a\\u001b[31m\\u0007\\u0000\\r\\u007f\\u009b1m\\u202ez\\n\\tü😀"
        );
        assert!(lines(bad).ends_with("z\n\tü😀"));
        assert!(matches!(line("plain ±–… text"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn nothing_shown_acts_and_a_document_stays_the_same(text in any::<String>()) {
            prop_assert!(!line(&text).contains(acts));
            prop_assert!(!lines(&text).contains(|c| acts(c) && !matches!(c, '\n' | '\t')));
            let document = serde_json::json!({ text.as_str(): [text.as_str()] });
            let shown = format!("{document:#}");
            let read: serde_json::Value = serde_json::from_str(&lines(&shown)).expect("JSON");
            prop_assert_eq!(read, document);
        }
    }
}
