//! The lines of an excerpt brought into the terminal's width: what does not fit is left out, and `…` stands there.

use unicode_width::UnicodeWidthChar as _;

/// A text of which some pieces are shown as something else, or not at all.
#[derive(Debug, Default)]
pub(super) struct Shifted {
    /// What is shown.
    pub text: String,
    /// Where the shown text goes on after each change, by the place in the source.
    pub shifts: Vec<(usize, usize)>,
}

impl Shifted {
    /// The place in the shown text of one in the source; that of a piece left out is where it was.
    pub(super) fn at(&self, offset: usize) -> usize {
        let next = self.shifts.partition_point(|(from, _)| *from <= offset);
        let before = next.checked_sub(1).and_then(|i| self.shifts.get(i));
        let (from, to) = before.copied().unwrap_or_default();
        let end = self.shifts.get(next).map_or(usize::MAX, |(_, to)| *to);
        (to + (offset - from)).min(end)
    }
}

/// A place in a text that a label points to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub start: usize,
    pub end: usize,
    /// Columns of what the label says.
    pub label: usize,
}

/// A text with the lines around some places cropped.
#[derive(Debug)]
pub(super) struct Cropped {
    pub shown: Shifted,
    /// Lines, from 0, whose beginning is left out, and the bytes of that.
    pub dropped: Vec<(usize, usize)>,
    /// The places, in what is shown.
    pub marks: Vec<Mark>,
}

/// What stands where something is left out.
pub(super) const LEFT_OUT: char = '…';
/// Columns shown before a place whose line is cut on the left.
const BEFORE: usize = 8;
/// Columns of what stands between a place and its label.
const ARM: usize = 4;

/// Crops the lines at and beside the marks to so many columns, the gutter with their numbers included. `None` where
/// all of them fit.
pub(super) fn crop(text: &str, marks: &[Mark], width: usize) -> Option<Cropped> {
    let first = marks.iter().map(|m| m.start).min()?;
    let last = marks.iter().map(|m| m.end).max()?;
    // One line more on either side.
    let begin = line_start(text, line_start(text, first).saturating_sub(1));
    let end = line_end(text, (line_end(text, last) + 1).min(text.len()));
    let number = text.get(..begin)?.matches('\n').count();
    let several = marks.iter().any(|m| line_end(text, m.start) < m.end);
    let last_number = number + text.get(begin..end)?.matches('\n').count() + 1;
    let gutter = last_number.to_string().len() + 4 + if several { 4 } else { 0 };
    let available = width.saturating_sub(gutter).max(2 * BEFORE);
    let mut shown = Shifted {
        text: text.get(..begin)?.to_owned(),
        shifts: Vec::new(),
    };
    let (mut dropped, mut cut) = (Vec::new(), false);
    let mut at = begin;
    let lines = text.get(begin..end)?.split_inclusive('\n');
    for (number, line) in (number..).zip(lines) {
        let inside = line.trim_end_matches('\n');
        let left = left_out(inside, at, marks, available);
        let before = shown.shifts.len();
        cut |= put(&mut shown, inside, at, left, available);
        if let Some((from, _)) = shown.shifts.get(before).filter(|_| left > 0) {
            dropped.push((number, from - at));
        }
        shown
            .text
            .push_str(line.get(inside.len()..).unwrap_or_default());
        at += line.len();
    }
    shown.text.push_str(text.get(end..).unwrap_or_default());
    let marks = marks.iter().map(|mark| {
        let (start, end) = (shown.at(mark.start), shown.at(mark.end));
        let line = line_start(&shown.text, start);
        let column = shown.text.get(line..start).map_or(0, columns);
        // The label hangs at the middle of what is underlined, and has to fit behind that.
        let middle = available.saturating_sub(ARM + mark.label).max(column);
        let longest = (2 * (middle - column)).max(1);
        let own = shown.text.get(start..end).unwrap_or_default();
        let long = !own.contains('\n') && column + columns(own) / 2 > middle;
        let short = own
            .char_indices()
            .nth(longest)
            .map_or(end, |(i, _)| start + i);
        cut |= long;
        Mark {
            start,
            end: if long { short } else { end },
            label: mark.label,
        }
    });
    let marks = marks.collect();
    cut.then_some(Cropped {
        shown,
        dropped,
        marks,
    })
}

/// How many columns of a line are left out on its left, so that its marks and their labels can be seen.
fn left_out(line: &str, at: usize, marks: &[Mark], available: usize) -> usize {
    let own = |offset: usize| (at..=at + line.len()).contains(&offset);
    let column = |offset: usize| {
        line.get(..offset.saturating_sub(at).min(line.len()))
            .map_or(0, columns)
    };
    let own = marks.iter().filter(|m| own(m.start) || own(m.end));
    let (mut first, mut reach) = (usize::MAX, 0);
    for mark in own {
        let (start, end) = (column(mark.start), column(mark.end));
        first = first.min(start);
        reach = reach.max(start + (end - start).min(BEFORE) / 2 + ARM + mark.label);
        reach = reach.max((start + 1).min(end));
    }
    let needed = reach > available.saturating_sub(1) && first != usize::MAX;
    if needed {
        first.saturating_sub(BEFORE)
    } else {
        0
    }
}

/// Puts a line without so many columns on its left within the room; says whether something is left out.
fn put(shown: &mut Shifted, line: &str, at: usize, left: usize, available: usize) -> bool {
    if left == 0 && columns(line) <= available {
        shown.text.push_str(line);
        return false;
    }
    let (mut column, mut used, mut open) = (0, 0, left > 0);
    for (i, c) in line.char_indices() {
        let own = width(c);
        if column < left {
            column += own;
            continue;
        }
        if open {
            shown.text.push(LEFT_OUT);
            shown.shifts.push((at + i, shown.text.len()));
            (used, open) = (1, false);
        }
        let rest = line.get(i..).unwrap_or_default();
        if used + own >= available && used + columns(rest) > available {
            shown.text.push(LEFT_OUT);
            break;
        }
        shown.text.push(c);
        used += own;
    }
    shown.shifts.push((at + line.len(), shown.text.len()));
    true
}

fn line_start(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or_default();
    before.rfind('\n').map_or(0, |i| i + 1)
}

fn line_end(text: &str, at: usize) -> usize {
    let after = text.get(at..).unwrap_or_default();
    after.find('\n').map_or(text.len(), |i| at + i)
}

/// Columns that a text takes in an excerpt.
fn columns(text: &str) -> usize {
    text.chars().map(width).sum()
}

fn width(c: char) -> usize {
    // At most that many.
    if c == '\t' { 4 } else { c.width().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(text: &str, what: &str, label: usize) -> Mark {
        let start = text.find(what).expect("there");
        Mark {
            start,
            end: start + what.len(),
            label,
        }
    }

    #[test]
    fn lines_that_fit_stay() {
        let text = "a = 1\nstage s = train { lr = 1 }\n";
        assert!(crop(text, &[mark(text, "lr", 10)], 60).is_none());
        assert!(crop("", &[], 60).is_none());
    }

    #[test]
    fn what_does_not_fit_is_cut_with_a_sign_and_the_places_stay_in_sight() {
        let long: String = (0..30).map(|i| format!("key{i} = {i}, ")).collect();
        let text = format!(
            "one\n{long}\nstage s = train {{ {long} epocs = 3, {long} }}\n{long}\nlast {long}\n"
        );
        for (what, width) in [("epocs", 60), ("stage", 60), ("train", 40), ("epocs", 200)] {
            let cropped = crop(&text, &[mark(&text, what, 12)], width).expect("cropped");
            let shown = &cropped.shown.text;
            let own = cropped.marks[0];
            assert_eq!(&shown[own.start..own.end], what);
            assert_eq!(shown.lines().count(), text.lines().count());
            for (i, line) in shown.lines().enumerate().skip(1).take(3) {
                assert!(columns(line) + 5 <= width, "{line}");
                let whole = text.lines().nth(i).expect("a line");
                assert!(line == whole || line.contains('…'), "{line}");
            }
            // What is no part of the excerpt is left alone.
            assert_eq!(shown.lines().last(), text.lines().last());
            let line = line_start(shown, own.start);
            assert!(columns(&shown[line..own.start]) + 2 + ARM + 12 <= width.max(60));
        }
    }

    #[test]
    fn a_long_place_is_underlined_as_far_as_its_label_has_room() {
        let text = format!("a = [{}]\n", "1, ".repeat(100));
        let start = 4;
        let own = Mark {
            start,
            end: text.len() - 1,
            label: 20,
        };
        let cropped = crop(&text, &[own], 60).expect("cropped");
        let own = cropped.marks[0];
        let middle = (own.start + own.end) / 2;
        assert!(
            middle + ARM + 20 <= 55 && own.end > own.start + 40,
            "{own:?}"
        );
        assert!(cropped.dropped.is_empty());
        // Columns are counted in what is seen, and places lie at characters.
        let text = format!("{}é = 電影 {}\n", "ü".repeat(80), "x".repeat(80));
        let cropped = crop(&text, &[mark(&text, "電影", 5)], 40).expect("cropped");
        let own = cropped.marks[0];
        assert_eq!(&cropped.shown.text[own.start..own.end], "電影");
        assert_eq!(cropped.dropped, [(0, 152)]);
    }
}
