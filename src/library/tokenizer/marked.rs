//! Texts of which parts are learned, as tokens.

use std::ops::Range;

use crate::library::counts::to_u32;

use super::{Encoded, Side, Tokenizer};

/// How a text is made tokens of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// With the tokens that the tokenizer puts around a text, and the token that ends one.
    Added,
    /// As it stands: it holds them itself.
    Written,
    /// With nothing behind it, and before it the tokens that the tokenizer puts before a text, if they are wanted. What is too long
    /// loses its beginning.
    Open {
        /// Whether they are.
        special: bool,
    },
}

/// A text of which parts are learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// Its tokens.
    pub encoded: Encoded,
    /// Those that are learned: ascending ranges, not the first token.
    pub learned: Vec<Range<u32>>,
    /// Tokens that would be learned but for the cut.
    pub lost: u32,
}

impl Tokenizer {
    /// Tokens of a text, and which of them are learned: those that share a byte with one of the `parts`, ascending ranges.
    /// What ends the text is learned if the last part does.
    ///
    /// # Errors
    /// What the tokenizer complains about.
    pub fn encode_marked(
        &self,
        text: &str,
        parts: &[Range<usize>],
        ends: Ends,
        max_length: usize,
    ) -> Result<Marked, String> {
        let puts = matches!(ends, Ends::Added | Ends::Open { special: true });
        let special = if puts { self.added_tokens(false) } else { 0 };
        let side = match ends {
            Ends::Open { .. } => Side::Left,
            Ends::Added | Ends::Written => self.side,
        };
        let limit = max_length.checked_sub(special).ok_or_else(|| {
            format!("`max_length` {max_length} leaves no room beside {special} special tokens")
        })?;
        let mut inner = self.inner.encode(text, false).map_err(|e| e.to_string())?;
        let mut marks = marked(inner.get_offsets(), parts);
        let to_the_end = parts.last().is_some_and(|part| part.end >= text.len());
        let uncut = inner.len();
        let all = marks.iter().filter(|mark| **mark).count();
        if uncut > limit {
            inner.truncate(limit, 0, side);
            match side {
                Side::Right => marks.truncate(limit),
                Side::Left => drop(marks.drain(..uncut - limit)),
            }
        }
        let own = inner.len();
        let done = self.inner.post_process(inner, None, puts);
        let done = done.map_err(|e| e.to_string())?;
        self.embedded(done.get_ids())?;
        let before = done.get_special_tokens_mask().iter();
        let before = before.take_while(|&&s| s == 1).count();
        let before = before.min(done.len().saturating_sub(own));
        let mut lost = all - marks.iter().filter(|mark| **mark).count();
        marks.splice(0..0, std::iter::repeat_n(false, before));
        let open = matches!(ends, Ends::Open { .. });
        marks.resize(done.len(), to_the_end && uncut <= limit && !open);
        let mut encoded = Encoded {
            ids: done.get_ids().to_vec(),
            segments: self.segments(done.get_type_ids())?,
            uncut: special + uncut,
            at_once: text.len(),
        };
        if open {
            // What the tokenizer puts behind a text is not there yet.
            encoded.ids.truncate(before + own);
            encoded.segments.truncate(before + own);
            marks.truncate(before + own);
        }
        if ends == Ends::Added {
            let (length, whole) = (encoded.ids.len(), encoded.uncut);
            self.end(&mut encoded, max_length);
            let ended = encoded.ids.len() > length;
            marks.resize(encoded.ids.len(), to_the_end);
            lost += usize::from(to_the_end && encoded.uncut > whole && !ended);
        }
        if let Some(first) = marks.first_mut() {
            *first = false;
        }
        Ok(Marked {
            learned: ranges(&marks),
            encoded,
            lost: to_u32(lost),
        })
    }

    /// Tokens of a prompt with an option to go on, of which the option's are marked. The space that the prompt ends with belongs to
    /// the option; `form` has what stands between both, and whether the tokenizer's tokens stand before them.
    ///
    /// # Errors
    /// What the tokenizer complains about.
    pub fn encode_option(
        &self,
        (prompt, option): (&str, &str),
        (delimiter, special): (&str, bool),
        max_length: usize,
    ) -> Result<Marked, String> {
        let begin = prompt.trim_end().len();
        let text = format!("{prompt}{delimiter}{option}");
        let all = begin..text.len();
        let parts = std::slice::from_ref(&all);
        self.encode_marked(&text, parts, Ends::Open { special }, max_length)
    }

    /// Whether what is learned of tokens ends with one that ends a text or a turn; white space may stand behind it.
    #[must_use]
    pub fn is_ended(&self, learned: &[u32], special: &[u32]) -> bool {
        let blank = |id: u32| {
            let token = self.token(id).unwrap_or_default();
            token
                .chars()
                .all(|c| c.is_whitespace() || ['Ċ', 'Ġ', 'ĉ', 'č', '▁'].contains(&c))
        };
        let last = learned
            .iter()
            .rev()
            .find(|id| special.binary_search(id).is_ok() || !blank(**id));
        last.is_some_and(|id| special.binary_search(id).is_ok() || Some(*id) == self.eos())
    }
}

/// Which tokens share a byte with one of the parts. A token begins where the one before it ends: offsets leave out the
/// space before a word.
fn marked(offsets: &[(usize, usize)], parts: &[Range<usize>]) -> Vec<bool> {
    let mut parts = parts.iter().peekable();
    let mut end = 0;
    let token = |&(start, stop): &(usize, usize)| {
        let start = start.min(end);
        end = end.max(stop);
        while parts.next_if(|part| part.end <= start).is_some() {}
        parts
            .peek()
            .is_some_and(|part| stop > part.start && start < part.end)
    };
    offsets.iter().map(token).collect()
}

/// The ranges of what is marked.
fn ranges(marks: &[bool]) -> Vec<Range<u32>> {
    let mut all: Vec<Range<u32>> = Vec::new();
    for (place, _) in (0_u32..).zip(marks).filter(|(_, mark)| **mark) {
        match all.last_mut() {
            Some(last) if last.end == place => last.end += 1,
            _ => all.push(place..place + 1),
        }
    }
    all
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    #[test]
    fn a_token_across_a_border_is_learned() {
        // "Q: Paris." with the space left out of the word, and a token that is all spaces.
        let offsets = [(0, 1), (1, 2), (3, 8), (8, 8), (10, 11)];
        let of = |parts: &[Range<usize>]| ranges(&marked(&offsets, parts));
        assert_eq!(of(&[3..11]), [2..5]);
        assert_eq!(of(&[2..3]), [2..3]);
        assert_eq!(of(&[4..8]), [2..3]);
        assert_eq!(of(&[0..1, 10..11]), [0..1, 4..5]);
        assert_eq!(of(&[]), []);
    }
}
