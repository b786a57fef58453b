//! The terminal: how wide it is, whether it takes colours, and text brought into its width.

use std::io::IsTerminal as _;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

use super::options::Color;
use super::output::{self, Stream};

/// Columns of prose where there is no terminal, and at most on a wide one.
const PROSE: usize = 80;
const WIDEST_PROSE: usize = 100;

/// What stands out by being good.
pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// What stands out by being bad.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Titles.
pub(super) const TITLE: Style = Style::new().bold();

/// A place that text goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    /// Its columns; `None` where a line may be as long as it is.
    pub width: Option<usize>,
    colour: bool,
}

impl Screen {
    /// Standard output.
    pub(super) fn out(color: Color) -> Self {
        let out = std::io::stdout();
        let colour = coloured(color, out.is_terminal());
        output::colours(Stream::Out, colour);
        Self {
            width: asked().or_else(|| {
                let terminal = out.is_terminal();
                terminal
                    .then(|| terminal_size::terminal_size_of(&out))?
                    .map(columns)
            }),
            colour,
        }
    }

    /// Standard error.
    pub(super) fn err(color: Color) -> Self {
        let err = std::io::stderr();
        let colour = coloured(color, err.is_terminal());
        output::colours(Stream::Err, colour);
        Self {
            width: asked().or_else(|| {
                let terminal = err.is_terminal();
                terminal
                    .then(|| terminal_size::terminal_size_of(&err))?
                    .map(columns)
            }),
            colour,
        }
    }

    /// No terminal: lines as long as they are, no colours.
    #[cfg(test)]
    pub(super) const fn plain(width: Option<usize>) -> Self {
        Self {
            width,
            colour: false,
        }
    }

    /// Whether it takes colours.
    pub(super) const fn colour(self) -> bool {
        self.colour
    }

    /// Columns for prose.
    pub(super) fn prose(self) -> usize {
        self.width.map_or(PROSE, |width| width.min(WIDEST_PROSE))
    }

    /// Text in a style, where colours are taken.
    pub(super) fn paint(self, style: Style, text: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    /// An error with its first word in colour.
    pub(super) fn marked(self, text: &str) -> String {
        match text.strip_prefix("error:") {
            Some(rest) => format!("{}{rest}", self.paint(BAD, "error:")),
            None => text.to_owned(),
        }
    }

    /// A table of a report with what is best of its column, which ends with `*`, in colour.
    pub(super) fn starred(self, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let mut out = String::new();
        for line in text.split_inclusive('\n') {
            let mut rest = line;
            while let Some(at) = rest.find('*') {
                let (head, tail) = rest.split_at(at + 1);
                let start = head.rfind("  ").map_or(0, |gap| gap + 2);
                let (before, value) = head.split_at(start);
                out.push_str(before);
                if value.len() > 1 {
                    out.push_str(&self.paint(GOOD, value));
                } else {
                    out.push_str(value);
                }
                rest = tail;
            }
            out.push_str(rest);
        }
        out
    }

    /// Brings each line into the width, what follows begun at `hang`; what stands in its line beyond the
    /// width of prose, but fits the terminal, stays.
    pub(super) fn fold(self, text: &str, hang: usize) -> String {
        let Some(width) = self.width else {
            return text.to_owned();
        };
        let hang = if width < hang + 24 { 4 } else { hang };
        let lines = text.split('\n').map(|line| {
            if seen(line) <= width {
                return line.to_owned();
            }
            let start = line.len() - line.trim_start().len();
            let (indent, rest) = line.split_at(start);
            let mut out = hung(rest, width, indent, hang);
            out.pop();
            out
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Columns as `COLUMNS` asks for.
fn asked() -> Option<usize> {
    let text = std::env::var("COLUMNS").ok()?;
    text.trim().parse().ok().filter(|&n| n >= 20)
}

fn columns((terminal_size::Width(n), _): (terminal_size::Width, terminal_size::Height)) -> usize {
    usize::from(n).max(20)
}

/// Whether a place takes colours.
fn coloured(color: Color, terminal: bool) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        // An empty value counts as none (no-color.org).
        Color::Auto => {
            terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        }
    }
}

/// Text wrapped at a width, each line indented, ending with a newline.
pub(super) fn wrap(text: &str, width: usize, indent: &str) -> String {
    hung(text, width, indent, indent.width())
}

/// A blank at which no line is broken.
pub(super) const JOINED: char = '\u{a0}';

/// Text wrapped at a width, the first line behind an indent, the others behind so many blanks; ends
/// with a newline. Blanks between words stay as they are.
pub(super) fn hung(text: &str, width: usize, indent: &str, hang: usize) -> String {
    let (mut out, mut line) = (String::new(), indent.to_owned());
    let mut empty = true;
    let breaks = |c: char| c.is_whitespace() && c != JOINED;
    let mut rest = text.trim_end();
    while !rest.is_empty() {
        let blank = rest.len() - rest.trim_start_matches(breaks).len();
        let (gap, word) = rest.split_at(blank);
        let end = word.find(breaks).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        rest = after;
        let gap = if gap.contains('\n') { " " } else { gap };
        if !empty && seen(&line) + gap.width() + seen(word) > width {
            out.push_str(line.trim_end());
            out.push('\n');
            line = " ".repeat(hang);
        } else if !empty {
            line.push_str(gap);
        }
        line.push_str(&word.replace(JOINED, " "));
        empty = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
    out
}

/// Columns that a text takes, its colours taking none.
fn seen(text: &str) -> usize {
    let mut parts = text.split('\u{1b}');
    let first = parts.next().map_or(0, UnicodeWidthStr::width);
    let rest = parts.map(|part| part.split_once('m').map_or(0, |(_, after)| after.width()));
    first + rest.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_folded_behind_their_labels() {
        let screen = Screen::plain(Some(40));
        let text = "  store     /a/b and then there is more to be said of it\n  short\n";
        assert_eq!(
            screen.fold(text, 12),
            "  store     /a/b and then there is more\n            to be said of it\n  short\n"
        );
        let free = Screen::plain(None);
        assert_eq!(free.fold(text, 12), text);
        assert_eq!(seen(&format!("{BAD}red{BAD:#} x")), 5);
        let coloured = Screen {
            width: None,
            colour: true,
        };
        assert_eq!(
            coloured.starred("  a  0.8 ± 0.1*  250\n  * best\n"),
            format!("  a  {GOOD}0.8 ± 0.1*{GOOD:#}  250\n  * best\n")
        );
        assert_eq!(wrap("one two\nthree", 10, "  "), "  one two\n  three\n");
        let joined = format!("one{JOINED}two three");
        assert_eq!(hung(&joined, 10, "  ", 4), "  one two\n    three\n");
    }
}
