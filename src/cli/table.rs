//! Tables for people, in any width: what does not fit beside each other is put below each other, and
//! nothing is left out.

use anstyle::Style;
use unicode_width::UnicodeWidthStr;

use super::screen::{Screen, TITLE};
use crate::base::visible;

/// Blanks in front of a table, if nothing else is said.
const INDENT: usize = 2;
/// Blanks between columns.
const GAP: usize = 2;
/// Columns that text of the last column takes at least, to be wrapped there.
const LEAST: usize = 24;

/// A table.
#[derive(Debug)]
pub(super) struct Table {
    indent: usize,
    columns: Vec<(String, Side)>,
    rows: Vec<Vec<Cell>>,
}

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Names and texts.
    Left,
    /// Numbers.
    Right,
}

/// A piece of text with a style.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// The same in a style.
    pub(super) fn styled(self, style: Style) -> Self {
        Self { style, ..self }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: visible::line(&text.into()).into_owned(),
            style: Style::new(),
        }
    }
}

impl Table {
    /// A table with these columns.
    pub(super) fn new<'a>(columns: impl IntoIterator<Item = (&'a str, Side)>) -> Self {
        Self {
            indent: INDENT,
            columns: columns
                .into_iter()
                .map(|(title, side)| (title.to_owned(), side))
                .collect(),
            rows: Vec::new(),
        }
    }

    /// The table at the left edge.
    pub(super) fn flush(self) -> Self {
        Self { indent: 0, ..self }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Removes columns in which no row says anything.
    pub(super) fn without_empty(mut self) -> Self {
        let said: Vec<bool> = (0..self.columns.len())
            .map(|i| {
                let mut cells = self.rows.iter().filter_map(|row| row.get(i));
                cells.any(|cell| !matches!(cell.text.as_str(), "" | "–"))
            })
            .collect();
        let mut keep = said.iter();
        self.columns.retain(|_| *keep.next().unwrap_or(&true));
        for row in &mut self.rows {
            let mut keep = said.iter();
            row.retain(|_| *keep.next().unwrap_or(&true));
        }
        self
    }

    /// The table as text, each line ending with a newline.
    pub(super) fn render(&self, screen: Screen) -> String {
        let widths = self.widths();
        let line = |widths: &[usize]| {
            self.indent + widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
        };
        let Some(width) = screen.width.filter(|&width| line(&widths) > width) else {
            return self.beside(screen, &widths, None);
        };
        // The last column wraps, if it is text.
        if let (Some((_, Side::Left)), Some((_, before))) =
            (self.columns.last(), widths.split_last())
        {
            let left = width.saturating_sub(line(before) + GAP);
            let last = self.rows.iter().filter_map(|row| row.last());
            let words = last.flat_map(|cell| cell.text.split_whitespace());
            // A word is not broken: a path is one.
            let word = words.map(UnicodeWidthStr::width).max().unwrap_or(0);
            if left >= LEAST.max(word) && self.columns.len() > 1 {
                return self.beside(screen, &widths, Some(left));
            }
        }
        // Names stand alone, their figures below them.
        if let Some((_, rest)) = widths.split_first()
            && !rest.is_empty()
            && line(rest) + GAP <= width
        {
            return self.below(screen, &widths);
        }
        self.records(screen, width)
    }

    fn widths(&self) -> Vec<usize> {
        let cells = |i: usize| self.rows.iter().filter_map(move |row| row.get(i));
        let of = |(i, (title, _)): (usize, &(String, Side))| {
            let longest = cells(i).map(|cell| cell.text.width()).max().unwrap_or(0);
            longest.max(title.width())
        };
        self.columns.iter().enumerate().map(of).collect()
    }

    /// Titles as a row; none where no column has one.
    fn titles(&self) -> Option<Vec<Cell>> {
        let cell = |(title, _): &(String, Side)| Cell::from(title.as_str()).styled(TITLE);
        let titled = self.columns.iter().any(|(title, _)| !title.is_empty());
        titled.then(|| self.columns.iter().map(cell).collect())
    }

    /// Cells beside each other; the last one wraps at `last`, if that is given.
    fn beside(&self, screen: Screen, widths: &[usize], last: Option<usize>) -> String {
        let mut out = String::new();
        let titles = self.titles();
        for row in titles.iter().chain(&self.rows) {
            let mut line = " ".repeat(self.indent);
            let mut at = self.indent;
            for (i, ((cell, &width), (_, side))) in
                row.iter().zip(widths).zip(&self.columns).enumerate()
            {
                let end = i + 1 == self.columns.len();
                if let (true, Some(last)) = (end, last) {
                    let text = super::screen::wrap(&cell.text, last, "");
                    let lines: Vec<String> =
                        text.lines().map(|l| screen.paint(cell.style, l)).collect();
                    line.push_str(&lines.join(&format!("\n{}", " ".repeat(at))));
                    break;
                }
                let text = screen.paint(cell.style, &cell.text);
                let pad = " ".repeat(width.saturating_sub(cell.text.width()));
                match side {
                    Side::Left => line.extend([text, pad]),
                    Side::Right => line.extend([pad, text]),
                }
                if !end {
                    line.push_str(&" ".repeat(GAP));
                }
                at += width + GAP;
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// The first cell of each row on a line of its own, the others beside each other below it.
    fn below(&self, screen: Screen, widths: &[usize]) -> String {
        let mut out = String::new();
        let titles = self.titles();
        for row in titles.iter().chain(&self.rows) {
            let Some((first, rest)) = row.split_first() else {
                continue;
            };
            let name = screen.paint(first.style, &first.text);
            out.push_str(&format!("{}{name}\n", " ".repeat(self.indent)));
            let mut line = " ".repeat(self.indent + GAP);
            let others = rest.iter().zip(widths.iter().skip(1));
            for ((cell, &width), (_, side)) in others.zip(self.columns.iter().skip(1)) {
                let text = screen.paint(cell.style, &cell.text);
                let pad = " ".repeat(width.saturating_sub(cell.text.width()));
                match side {
                    Side::Left => line.extend([text, pad]),
                    Side::Right => line.extend([pad, text]),
                }
                line.push_str(&" ".repeat(GAP));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// Each row as a name and, below it, its cells with their titles.
    fn records(&self, screen: Screen, width: usize) -> String {
        let mut out = String::new();
        for row in &self.rows {
            let Some((first, rest)) = row.split_first() else {
                continue;
            };
            let name = screen.paint(first.style, &first.text);
            out.push_str(&format!("{}{name}\n", " ".repeat(self.indent)));
            let pairs = rest.iter().zip(self.columns.iter().skip(1));
            let said = pairs.filter(|(cell, _)| !matches!(cell.text.as_str(), "" | "–"));
            let (mut line, mut at) = (String::new(), 0);
            for (cell, (title, _)) in said {
                let item = if title.is_empty() {
                    cell.text.clone()
                } else {
                    format!("{title} {}", cell.text)
                };
                if at > 0 && self.indent + GAP + at + GAP + item.width() > width {
                    out.push_str(&format!("{}{line}\n", " ".repeat(self.indent + GAP)));
                    (line, at) = (String::new(), 0);
                }
                if at > 0 {
                    line.push_str(&" ".repeat(GAP));
                    at += GAP;
                }
                at += item.width();
                let painted = screen.paint(cell.style, &cell.text);
                if !title.is_empty() {
                    line.push_str(&format!("{title} "));
                }
                line.push_str(&painted);
            }
            if at > 0 {
                out.push_str(&format!("{}{line}\n", " ".repeat(self.indent + GAP)));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> Table {
        let mut table = Table::new([
            ("stage", Side::Left),
            ("steps", Side::Right),
            ("disk", Side::Right),
            ("", Side::Left),
        ]);
        table.row(vec![
            name.into(),
            "1,416".into(),
            "3.10 GiB".into(),
            "finished".into(),
        ]);
        table.row(vec!["score".into(), "–".into(), "1 B".into(), "".into()]);
        table
    }

    #[test]
    fn nothing_is_left_out_in_any_width() {
        assert_eq!(
            table("learn").render(Screen::plain(None)),
            "  stage  steps      disk\n  learn  1,416  3.10 GiB  finished\n  score      –       1 B\n"
        );
        for name in ["learn", "learn@seed=1,method=lora-with-a-long-name"] {
            for width in 20..120 {
                let text = table(name).render(Screen::plain(Some(width)));
                for said in [name, "1,416", "3.10 GiB", "finished", "score", "1 B"] {
                    assert!(text.contains(said), "{width}: no {said} in\n{text}");
                }
                for line in text.lines().filter(|line| !line.contains(name)) {
                    assert!(line.width() <= width.max(24), "{width}:\n{text}");
                }
            }
        }
    }

    #[test]
    fn columns_that_say_nothing_are_dropped() {
        let mut table = Table::new([("a", Side::Left), ("b", Side::Left), ("c", Side::Left)]);
        table.row(vec!["1".into(), "–".into(), "3".into()]);
        let text = table.without_empty().render(Screen::plain(None));
        assert_eq!(text, "  a  c\n  1  3\n");
    }
}
