//! A question with windows of its context, as transformers makes them (`truncation="only_second"`, `stride`,
//! `return_overflowing_tokens`, `return_offsets_mapping`).

use tokenizers::Encoding;

use crate::library::counts::to_u32;

use super::{Encoded, Tokenizer};

/// Windows of a context at most.
const MOST_WINDOWS: usize = 1 << 15;

/// A question and a window of its context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Their tokens, of which none is cut off.
    pub encoded: Encoded,
    /// Position of the window's first token.
    pub first: u32,
    /// Where each token of the window begins and ends in the context, in bytes.
    pub offsets: Vec<[u32; 2]>,
}

impl Tokenizer {
    /// A question with each window of its context: windows are as long as `max_length` allows, and two that follow each other
    /// share `stride` tokens. Space before the question is left away.
    ///
    /// # Errors
    /// What the tokenizer complains about; the question leaves no room for a window, or there would be too many.
    pub fn encode_windows(
        &self,
        question: &str,
        context: &str,
        (max_length, stride): (usize, usize),
    ) -> Result<Vec<Window>, String> {
        let encode = |text: &str| {
            let made = self.inner.encode(text, false);
            made.map_err(|e| e.to_string())
        };
        let (asked, mut all) = (encode(question.trim_start())?, encode(context)?);
        let around = self.added_tokens(true) + asked.len();
        let room = max_length.saturating_sub(around);
        if room == 0 || (all.len() > room && room <= stride) {
            return Err(format!(
                "its question takes {} tokens, so that `max_length` {max_length} leaves {room} for a window of the context, of which two share \
                 {stride} (`stride`); raise `max_length`, or lower `stride`",
                asked.len()
            ));
        }
        if all
            .len()
            .saturating_sub(room)
            .div_ceil((room - stride.min(room - 1)).max(1))
            >= MOST_WINDOWS
        {
            return Err(format!(
                "its context of {} tokens would be read in more than {MOST_WINDOWS} windows; raise `max_length`, lower `stride`, or part the context",
                all.len()
            ));
        }
        all.truncate(room, stride, self.side);
        let behind = all.take_overflowing();
        let at_once = question.len() + context.len();
        std::iter::once(all)
            .chain(behind)
            .map(|window| self.window(asked.clone(), window, at_once))
            .collect()
    }

    fn window(&self, asked: Encoding, window: Encoding, at_once: usize) -> Result<Window, String> {
        // What puts special tokens around them takes a leading space off each offset, once more than it has.
        let offsets = window.get_offsets().iter();
        let offsets = offsets
            .map(|&(begin, end)| [to_u32(begin), to_u32(end)])
            .collect();
        let done = self.inner.post_process(asked, Some(window), true);
        let done = done.map_err(|e| e.to_string())?;
        self.embedded(done.get_ids())?;
        let of = done.get_sequence_ids();
        let first = of.iter().position(|of| *of == Some(1));
        Ok(Window {
            first: first.map_or(0, to_u32),
            offsets,
            encoded: Encoded {
                ids: done.get_ids().to_vec(),
                segments: self.segments(done.get_type_ids())?,
                uncut: done.len(),
                at_once,
            },
        })
    }
}
