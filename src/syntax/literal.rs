//! The inside of strings and numbers: escapes and ranges.

use super::error;
use crate::base::{Diags, SourceId, Span};

/// The text a string stands for. `body` is what is between the quotes, `base` its first byte.
/// A wrong escape is reported and kept as written.
pub(super) fn unescape(body: &str, base: usize, source: SourceId, diags: &mut Diags) -> String {
    let mut out = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        out.push_str(plain);
        let (meaning, length) = escape_at(escape);
        let (written, tail) = escape.split_at(length);
        if let Some(c) = meaning {
            out.push(c);
        } else {
            let start = base + (body.len() - escape.len());
            diags.push(error::unknown_escape(
                Span::new(source, start, start + length),
                written,
            ));
            out.push_str(written);
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// What the escape at the start of `text` means, if anything, and how many bytes it takes.
fn escape_at(text: &str) -> (Option<char>, usize) {
    let Some(letter) = text.chars().nth(1) else {
        return (None, text.len());
    };
    let length = 1 + letter.len_utf8();
    match letter {
        '"' | '\\' => (Some(letter), length),
        'n' => (Some('\n'), length),
        't' => (Some('\t'), length),
        'u' => unicode_at(text).unwrap_or((None, length)),
        _ => (None, length),
    }
}

/// `\u{…}`: one to six hexadecimal digits. `None` when there are no braces to speak of.
fn unicode_at(text: &str) -> Option<(Option<char>, usize)> {
    let inside = text.strip_prefix("\\u{")?;
    let (digits, _) = inside.split_once('}')?;
    let valid = (1..=6).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_hexdigit());
    let c = u32::from_str_radix(digits, 16)
        .ok()
        .filter(|_| valid)
        .and_then(char::from_u32);
    Some((c, "\\u{}".len() + digits.len()))
}

/// A text between quotes, as a recipe writes it: read again it is the same text, whatever is in it.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\'' => out.push(c),
            // The language has no letters for these.
            '\r' | '\0' => out.extend(c.escape_unicode()),
            c => out.extend(c.escape_debug()),
        }
    }
    out.push('"');
    out
}

/// Whether a number without underscores fits: integers in 64 bits, others in a double.
pub(super) fn fits(digits: &str) -> bool {
    if digits.contains(['.', 'e', 'E']) {
        return digits.parse::<f64>().is_ok_and(f64::is_finite);
    }
    digits.parse::<u64>().is_ok() || digits.parse::<i64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> (String, Vec<Span>) {
        let mut diags = Diags::default();
        let text = unescape(body, 1, SourceId(0), &mut diags);
        (text, diags.iter().filter_map(|d| d.span).collect())
    }

    #[test]
    fn escapes_stand_for_their_characters() {
        assert_eq!(read(r#"a\"b\\c\nd\te\u{1F600}ü"#).0, "a\"b\\c\nd\te😀ü");
    }

    #[test]
    fn wrong_escapes_are_reported_where_they_stand_and_kept() {
        let (text, spans) = read(r"ü\qx\u{110000}\u{}\u1");
        assert_eq!(text, r"ü\qx\u{110000}\u{}\u1");
        let ranges: Vec<(u32, u32)> = spans.iter().map(|s| (s.start, s.end)).collect();
        assert_eq!(ranges, [(3, 5), (6, 16), (16, 20), (20, 22)]);
    }

    #[test]
    fn numbers_fit_in_64_bits_or_a_double() {
        assert!(
            fits("18446744073709551615")
                && fits("-9223372036854775808")
                && fits("2e-4")
                && fits("1e-400")
        );
        assert!(!fits("18446744073709551616") && !fits("-9223372036854775809") && !fits("1e309"));
    }
}
