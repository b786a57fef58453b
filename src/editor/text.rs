//! Places in a text as editors count them: lines, and UTF-16 units within a line, both from 0.

use std::ops::Range;

/// A place in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// UTF-16 units before it on the line.
    pub unit: u32,
}

/// Where the lines of a text begin.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    /// Those of a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            starts: std::iter::once(0).chain(ends).collect(),
        }
    }

    /// The bytes of a line without its end; those of the last for a line that is not there.
    fn line(&self, text: &str, line: usize) -> Range<usize> {
        let line = line.min(self.starts.len().saturating_sub(1));
        let start = self.starts.get(line).copied().unwrap_or(0);
        let end = self
            .starts
            .get(line + 1)
            .map_or(text.len(), |next| next - 1);
        let own = text.get(start..end).unwrap_or_default();
        start..start + own.strip_suffix('\r').unwrap_or(own).len()
    }

    /// The byte at a place. A place behind the end of its line is that end; one within a character is its beginning.
    #[must_use]
    pub fn offset(&self, text: &str, place: Place) -> usize {
        if place.line as usize >= self.starts.len() {
            return text.len();
        }
        let line = self.line(text, place.line as usize);
        let own = text.get(line.clone()).unwrap_or_default();
        let mut units = 0_usize;
        for (at, c) in own.char_indices() {
            units += c.len_utf16();
            if units > place.unit as usize {
                return line.start + at;
            }
        }
        line.end
    }

    /// The place of a byte; one within a character counts as its beginning.
    #[must_use]
    pub fn place(&self, text: &str, offset: usize) -> Place {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.starts.partition_point(|s| *s <= offset).max(1) - 1;
        let start = self.starts.get(line).copied().unwrap_or(0);
        let before = text.get(start..offset).unwrap_or_default();
        let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place {
            line: short(line),
            unit: short(before.encode_utf16().count()),
        }
    }

    /// How many lines there are; an empty text has one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.starts.len()
    }
}
