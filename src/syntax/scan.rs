//! A look at the text below the grammar: brackets, strings and comments, nothing else.
//!
//! It guards the parser against deep nesting, finds what was never closed, and gives the formatter
//! its comments. **Invariant:** it agrees with the grammar on where strings and comments end, also
//! in broken texts, and never fails.

use std::ops::Range;

/// What the scan tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// `{` or `[`.
    Open(char),
    /// `}` or `]`.
    Close(char),
    /// A string that ends on its line.
    Text,
    /// A string that does not: it reaches to the end of the line.
    OpenText,
    /// `# …`, without the line break.
    Comment,
}

/// A mark and the bytes it covers.
pub(super) type Marked = (Mark, Range<usize>);

/// All marks of a text in order.
pub(super) fn marks(text: &str) -> Vec<Marked> {
    let mut found = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let mut end = at + c.len_utf8();
        let mark = match c {
            '{' | '[' => Mark::Open(c),
            '}' | ']' => Mark::Close(c),
            '#' => {
                while let Some((i, d)) = chars.next_if(|(_, d)| *d != '\n') {
                    end = i + d.len_utf8();
                }
                Mark::Comment
            }
            '"' => {
                let mut mark = Mark::OpenText;
                let mut escaped = false;
                while let Some((i, d)) = chars.next_if(|(_, d)| *d != '\n') {
                    end = i + d.len_utf8();
                    if d == '"' && !escaped {
                        mark = Mark::Text;
                        break;
                    }
                    escaped = d == '\\' && !escaped;
                }
                mark
            }
            _ => continue,
        };
        found.push((mark, at..end));
    }
    found
}

/// The first bracket that is nested deeper than `limit`.
pub(super) fn too_deep(text: &str, limit: usize) -> Option<Range<usize>> {
    let mut depth = 0_usize;
    for (mark, range) in marks(text) {
        match mark {
            Mark::Open(_) => depth += 1,
            Mark::Close(_) => depth = depth.saturating_sub(1),
            Mark::Text | Mark::OpenText | Mark::Comment => {}
        }
        if depth > limit {
            return Some(range);
        }
    }
    None
}

/// What is wrong with the brackets and quotes of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Imbalance {
    /// A string without its closing quote.
    String(Range<usize>),
    /// An opening bracket that is never closed.
    Unclosed(char, Range<usize>),
    /// A bracket closed by one of the other kind.
    Mismatch(char, Range<usize>, Range<usize>),
    /// A closing bracket that closes nothing.
    Stray(char, Range<usize>),
}

/// The first thing wrong with quotes, or else with brackets: an open string hides brackets.
pub(super) fn imbalance(text: &str) -> Option<Imbalance> {
    let marks = marks(text);
    if let Some((_, range)) = marks.iter().find(|(mark, _)| *mark == Mark::OpenText) {
        return Some(Imbalance::String(range.clone()));
    }
    let mut open: Vec<(char, Range<usize>)> = Vec::new();
    for (mark, range) in marks {
        match mark {
            Mark::Open(c) => open.push((c, range)),
            Mark::Close(c) => match open.pop() {
                None => return Some(Imbalance::Stray(c, range)),
                Some((o, at)) if closer(o) != c => return Some(Imbalance::Mismatch(o, at, range)),
                Some(_) => {}
            },
            Mark::Text | Mark::OpenText | Mark::Comment => {}
        }
    }
    open.pop().map(|(c, range)| Imbalance::Unclosed(c, range))
}

/// The bracket that closes `open`.
pub(super) const fn closer(open: char) -> char {
    if open == '[' { ']' } else { '}' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_strings_and_comments_do_not_count() {
        assert_eq!(imbalance("a = \"{\" # [\nb = { \"\\\"}\" }"), None);
    }

    #[test]
    fn the_innermost_open_bracket_is_blamed() {
        assert_eq!(imbalance("a { b ["), Some(Imbalance::Unclosed('[', 6..7)));
        assert_eq!(
            imbalance("a [ }"),
            Some(Imbalance::Mismatch('[', 2..3, 4..5))
        );
        assert_eq!(imbalance("a ]"), Some(Imbalance::Stray(']', 2..3)));
        assert_eq!(imbalance("a \"b"), Some(Imbalance::String(2..4)));
    }

    #[test]
    fn depth_is_counted_in_open_brackets() {
        assert_eq!(too_deep("{[]}{[]}", 2), None);
        assert_eq!(too_deep("{[]}{[{", 2), Some(6..7));
    }
}
