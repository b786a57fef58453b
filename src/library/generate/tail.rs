//! The end of a text that is being generated: what of it may be shown, and where it stops.

/// A text that grows. What may still turn into a string that stops it, or is half a character, is held back.
#[derive(Clone, Debug)]
pub struct Tail<'a> {
    stop: &'a [String],
    /// Bytes that were shown.
    shown: usize,
    text: String,
    stopped: bool,
}

impl<'a> Tail<'a> {
    /// An empty text that these strings stop.
    #[must_use]
    pub const fn new(stop: &'a [String]) -> Self {
        Self {
            stop,
            shown: 0,
            text: String::new(),
            stopped: false,
        }
    }

    /// The whole text now; gives what is new of it and may be shown.
    pub fn grow(&mut self, text: String) -> &str {
        if self.stopped {
            return "";
        }
        self.text = text;
        let found = self.stop.iter().filter_map(|stop| self.text.find(stop));
        if let Some(at) = found.min() {
            self.text.truncate(at);
            self.stopped = true;
            return self.until(self.text.len());
        }
        self.until(self.safe())
    }

    /// Whether a string has stopped it.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Nothing more comes: what was held back.
    pub fn end(&mut self) -> &str {
        self.until(self.text.len())
    }

    /// The text, without the string that stopped it.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    /// Bytes that nothing to come can take back: before what may be a part of a stop, and before half a character.
    fn safe(&self) -> usize {
        let whole = self.text.trim_end_matches('\u{FFFD}');
        let parts = self.stop.iter().map(|stop| {
            let kept_back = stop.char_indices().rev().map(|(at, _)| at);
            // Beginnings of the stop, the longest first.
            let kept_back = kept_back.filter(|&at| at > 0).find(|&at| {
                stop.get(..at)
                    .is_some_and(|beginning| whole.ends_with(beginning))
            });
            kept_back.unwrap_or(0)
        });
        whole.len() - parts.max().unwrap_or(0)
    }

    /// What is new up to a byte.
    fn until(&mut self, end: usize) -> &str {
        let from = self.shown.min(end);
        let new = self.text.get(from..end);
        if new.is_some() {
            self.shown = self.shown.max(end);
        }
        new.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of a text that grows to these, and the text at the end.
    fn ends(stop: &[&str], texts: &[&str]) -> (Vec<String>, String) {
        let stop: Vec<String> = stop.iter().map(|&s| s.to_owned()).collect();
        let mut tail = Tail::new(&stop);
        let mut shown: Vec<String> = texts
            .iter()
            .map(|&t| tail.grow(t.to_owned()).to_owned())
            .collect();
        shown.push(tail.end().to_owned());
        (shown, tail.into_text())
    }

    #[test]
    fn stops_are_never_shown_however_they_come() {
        let (shown, text) = ends(
            &["END"],
            &["a", "aE", "aEN", "aENx", "aENxEND", "aENxENDmore"],
        );
        assert_eq!(shown, ["a", "", "", "ENx", "", "", ""]);
        assert_eq!(text, "aENx");
        // The first of several.
        let (shown, text) = ends(&["\n\n", "b"], &["x\n", "x\n\nab"]);
        assert_eq!((shown.concat(), text), ("x".to_owned(), "x".to_owned()));
        // What was held back is shown at the end.
        let (shown, text) = ends(&["stop"], &["no st"]);
        assert_eq!(
            (shown, text),
            (vec!["no ".to_owned(), "st".to_owned()], "no st".to_owned())
        );
        let (shown, _) = ends(&["aab"], &["aaa"]);
        assert_eq!(shown, ["a", "aa"]);
    }

    #[test]
    fn characters_are_shown_whole() {
        let (shown, text) = ends(&[], &["a\u{FFFD}", "a\u{FFFD}\u{FFFD}", "aé", "aé\u{FFFD}"]);
        assert_eq!(shown, ["a", "", "é", "", "\u{FFFD}"]);
        assert_eq!(text, "aé\u{FFFD}");
        let (shown, _) = ends(&["→x"], &["y→", "y→z"]);
        assert_eq!(shown, ["y", "→z", ""]);
    }
}
