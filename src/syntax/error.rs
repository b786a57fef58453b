//! What can be wrong with a text before anything is known about its meaning.
//!
//! **Invariant:** each code's doc says what the rule is, why it exists and what to type instead;
//! `peftc explain` prints it.

use crate::base::{Diag, Span};

crate::codes! {
    /// Something stands where the grammar allows something else, for example a value that starts
    /// with `;`, or two names without a comma between them.
    /// A recipe is a list of items (`import`, `let`, and declarations such as `stage NAME = train { … }`),
    /// and a block is a list of `key = value`. The message says what could have stood at this place;
    /// `docs/language.md` has the whole syntax on one page.
    UNEXPECTED = "syntax::unexpected";
    /// An opening `{` or `[` is never closed, or closed by a bracket of the other kind.
    /// A line in the first column that starts a new item ends the search, so that one forgotten
    /// bracket does not hide the items after it.
    /// Add the closing bracket after the last entry or element.
    UNCLOSED_BRACKET = "syntax::unclosed_bracket";
    /// A `}` or `]` stands where no bracket is open.
    /// Usually the bracket before it already closed the block, or the line that opened it was removed.
    /// Remove the bracket, or add the line that opens it.
    STRAY_BRACKET = "syntax::stray_bracket";
    /// A string has no closing `"` on its line.
    /// Strings stay on one line, so that a forgotten quote cannot swallow the rest of the recipe.
    /// Close the string, write a line break inside it as `\n`, and a quote as `\"`.
    UNCLOSED_STRING = "syntax::unclosed_string";
    /// A backslash in a string is followed by something that is no escape.
    /// The escapes are `\"`, `\\`, `\n`, `\t` and `\u{…}` with one to six hexadecimal digits of a
    /// Unicode character. Unknown ones are rejected rather than kept, since a template with a wrong
    /// character in it would train without complaint.
    /// For a backslash itself write `\\`.
    UNKNOWN_ESCAPE = "syntax::unknown_escape";
    /// A key or a declared name is not followed by `=`.
    /// Entries are written `key = value`, and declarations `stage NAME = train { … }`; only a block
    /// named like its keyword goes without, as in `prompt NAME { … }`. The colon belongs to maps,
    /// as in `{ 0: "terrible" }`.
    /// Put `=` between the name and its value.
    MISSING_EQUALS = "syntax::missing_equals";
    /// There is an `=` (or the `:` of a map) and nothing after it on the same line.
    /// A value starts on the line of its key, so that a forgotten value cannot take the next key for one.
    /// Write the value, or remove the entry: what a key does when it is left out, `peftc explain` says.
    MISSING_VALUE = "syntax::missing_value";
    /// Two entries or elements stand on one line with nothing between them.
    /// Entries of a block, and elements of lists, maps and sets, are separated by a comma or a line
    /// break. Put either between them.
    MISSING_SEPARATOR = "syntax::missing_separator";
    /// A number does not fit: integers must fit in 64 bits, others in the range of a double
    /// (about 1.8e308).
    /// Such a number in a recipe is a slip of the keyboard, and rounding it would hide the slip.
    /// Write a smaller number, or use a unit such as `GiB`.
    NUMBER_OUT_OF_RANGE = "syntax::number_out_of_range";
    /// Brackets are nested more than 64 deep.
    /// No recipe needs that, and the limit keeps a damaged or hostile file from exhausting the stack.
    /// Name inner parts with `let` and refer to them.
    TOO_DEEP = "syntax::too_deep";
    /// The header `peftc 1` is not the first item of the file, or stands there twice.
    /// The version decides how the rest is read, so it comes before everything but comments.
    /// Move it to the top, or leave it out: without a header the current version is meant.
    MISPLACED_HEADER = "syntax::misplaced_header";
    /// The header asks for a version of the language that this compiler does not speak.
    /// It reads version 1.
    /// Write `peftc 1`, or use a newer compiler.
    UNSUPPORTED_VERSION = "syntax::unsupported_version";
}

/// The version of the language that this compiler reads.
pub(super) const VERSION: u64 = 1;

/// Brackets may be nested this deep.
pub(super) const MAX_DEPTH: usize = 64;

/// An escape that does not exist.
pub(super) fn unknown_escape(span: Span, written: &str) -> Diag {
    Diag::error(
        &UNKNOWN_ESCAPE,
        span,
        format!("`{written}` is not an escape"),
    )
    .label("not an escape")
    .help("use `\\\"`, `\\\\`, `\\n`, `\\t` or `\\u{…}`; a backslash itself is `\\\\`")
}

/// A number that neither 64 bits nor a double can hold.
pub(super) fn number_out_of_range(span: Span, written: &str) -> Diag {
    Diag::error(
        &NUMBER_OUT_OF_RANGE,
        span,
        format!("`{}` is out of range", clip(written)),
    )
    .label("too large")
    .help("integers fit in 64 bits, other numbers stay below 1.8e308")
}

/// Brackets beyond [`MAX_DEPTH`].
pub(super) fn too_deep(span: Span) -> Diag {
    Diag::error(
        &TOO_DEEP,
        span,
        format!("brackets are nested more than {MAX_DEPTH} deep"),
    )
    .label("one too many")
    .help("name inner parts with `let` and refer to them")
}

/// A header for another compiler.
pub(super) fn unsupported_version(span: Span, version: &str) -> Diag {
    Diag::error(
        &UNSUPPORTED_VERSION,
        span,
        format!("version {} of the language is unknown", clip(version)),
    )
    .label("unknown version")
    .help(format!("this compiler reads `peftc {VERSION}`"))
}

/// A header that is not at the top.
pub(super) fn misplaced_header(span: Span) -> Diag {
    Diag::error(
        &MISPLACED_HEADER,
        span,
        "the header is not the first item of the file",
    )
    .label("comes too late")
    .help("move it to the top of the file, or leave it out")
}

/// Text short enough for a message.
pub(super) fn clip(text: &str) -> String {
    const MOST: usize = 32;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_named_after_its_layer_and_documented() {
        for code in CODES {
            assert!(code.name.starts_with("syntax::"), "{}", code.name);
            let sentences = code.doc.matches(['.', ';', ':']).count();
            assert!(
                (2..=9).contains(&sentences) && code.doc.len() > 120,
                "{}: {sentences}",
                code.name
            );
        }
        assert!(CODES.len() >= 12);
    }
}
