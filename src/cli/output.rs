//! All that the process says: results on standard output, everything else on standard error.
//!
//! **Invariant:** no other file writes to either, and nothing that comes from outside acts on a terminal: it
//! stands there as an escape (`base/visible.rs`).

use std::io::{IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::options::Color;
use super::screen::Screen;
use crate::base::visible;

/// Where text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Whether colours of our own go through, to each of the streams.
static COLOURS: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

/// Says whether a stream takes the colours of tables and diagnostics.
pub(super) fn colours(stream: Stream, on: bool) {
    let [out, err] = &COLOURS;
    match stream {
        Stream::Out => out.store(on, Ordering::Relaxed),
        Stream::Err => err.store(on, Ordering::Relaxed),
    }
}

/// Why standard output could not be written, the first time.
static UNPRINTED: Mutex<Option<String>> = Mutex::new(None);

/// Prints lines of results; a closed pipe is no failure, and any other is reported at the end of the process
/// ([`unprinted`]).
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let text = shown(text, Stream::Out);
    if let Err(why) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        output_failed(&why);
    }
}

/// Notes that standard output failed. A closed pipe is no failure: who reads has enough.
pub(super) fn output_failed(why: &std::io::Error) {
    if why.kind() != std::io::ErrorKind::BrokenPipe {
        let mut known = UNPRINTED.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert_with(|| why.to_string());
    }
}

/// Why something that was printed did not arrive.
pub(super) fn unprinted() -> Option<String> {
    let known = UNPRINTED.lock().unwrap_or_else(PoisonError::into_inner);
    known.clone()
}

/// Prints lines that are no result; where standard error is gone, nobody misses them.
pub(super) fn note(text: &str) {
    let _ = std::io::stderr().write_all(shown(text, Stream::Err).as_bytes());
}

/// Prints an error without a place in a recipe, folded into the terminal's width.
pub(super) fn error(message: &str) {
    let screen = Screen::err(Color::Auto);
    let text = screen.fold(&format!("error: {}", visible::line(message)), 2);
    note(&format!("{}\n", screen.marked(&text)));
}

/// Standard output for data that other programs read: the same bytes, unless a terminal shows them.
pub(super) fn data() -> Box<dyn Write + Send> {
    let out = std::io::stdout();
    if out.is_terminal() {
        Box::new(Tame(out))
    } else {
        Box::new(out)
    }
}

/// Writes what may be shown.
struct Tame<W>(W);

impl<W: Write> Write for Tame<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0.write_all(visible::lines(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

fn shown(text: &str, stream: Stream) -> String {
    let [out, err] = &COLOURS;
    let colours = match stream {
        Stream::Out => out,
        Stream::Err => err,
    };
    in_colours(text, colours.load(Ordering::Relaxed))
}

/// Lines of ours as they may be shown.
fn in_colours(text: &str, colours: bool) -> String {
    if !colours {
        return visible::lines(text).into_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        let (before, after) = rest.split_at(at);
        out.push_str(&visible::lines(before));
        let end = colour(after).unwrap_or(0);
        let (sequence, after) = after.split_at(end);
        out.push_str(sequence);
        rest = match after.strip_prefix('\u{1b}').filter(|_| end == 0) {
            Some(after) => {
                visible::push(&mut out, '\u{1b}');
                after
            }
            None => after,
        };
    }
    out.push_str(&visible::lines(rest));
    out
}

/// The length of the sequence for a colour that a text begins with.
fn colour(text: &str) -> Option<usize> {
    let inner = text.strip_prefix("\u{1b}[")?;
    let end = inner.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    inner.get(end..)?.starts_with('m').then_some(end + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_sequences_only_those_for_colours_go_through() {
        let text = "\u{1b}[1;31mred\u{1b}[0m\u{1b}]0;title\u{7}\u{1b}[2J\u{1b}";
        assert_eq!(colour(text), Some(7));
        assert_eq!(
            in_colours(text, true),
            "\u{1b}[1;31mred\u{1b}[0m\\u001b]0;title\\u0007\\u001b[2J\\u001b"
        );
        assert!(!in_colours(text, false).contains('\u{1b}'));
    }
}
