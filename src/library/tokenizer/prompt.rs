//! Tokens of templates: what may be cut of them, and where the mask is.

use std::borrow::Cow;
use std::ops::Range;

use crate::library::counts::to_u32;

use super::super::prompt::Filled;
use super::{Encoded, Side, Tokenizer};

impl Tokenizer {
    /// Tokens of a filled template with `after` behind it, with special tokens, and the place of its mask.
    /// Cut to `max_length` by dropping tokens from the longest columns, at the side where text is cut; neither the template
    /// itself nor what comes after it is cut.
    ///
    /// # Errors
    /// What the tokenizer complains about; a template that is too long by itself.
    pub fn encode_prompt(
        &self,
        filled: &Filled,
        after: &[u32],
        max_length: usize,
    ) -> Result<(Encoded, Option<u32>), String> {
        let (filled, gone, at_once) = self.without_middles(filled, max_length)?;
        let inner = self
            .inner
            .encode(filled.text.as_str(), false)
            .map_err(|e| e.to_string())?;
        let offsets = inner.get_offsets().to_vec();
        let done = self
            .inner
            .post_process(inner, None, true)
            .map_err(|e| e.to_string())?;
        let special = done.get_special_tokens_mask();
        let first = special
            .iter()
            .take_while(|&&s| s == 1)
            .count()
            .min(special.len() - offsets.len());
        let mut cuttable = column_tokens(&offsets, &filled.columns, 0);
        let mut dropped = vec![false; special.len()];
        for _ in max_length..special.len() + after.len() {
            match self.cut(&mut cuttable) {
                Some(i) => dropped[first + i] = true,
                None => {
                    let gone = dropped.iter().filter(|d| **d).count();
                    let fixed = special.len() + after.len() - gone;
                    let what = if after.is_empty() {
                        "the template alone takes"
                    } else {
                        "the template and its demonstrations take"
                    };
                    return Err(format!(
                        "{what} {fixed} tokens, and `max_length` is {max_length}"
                    ));
                }
            }
        }
        let kept = |i: &usize| !dropped[*i];
        let mask = match filled.mask {
            None => None,
            Some(at) => {
                let token = offsets
                    .iter()
                    .position(|&(start, end)| start <= at && at < end);
                let token = token
                    .map(|i| first + i)
                    .ok_or("the tokenizer gives no token for the mask")?;
                Some(to_u32((0..token).filter(kept).count()))
            }
        };
        let (ids, types) = (done.get_ids(), self.segments(done.get_type_ids())?);
        self.embedded(ids)?;
        let places: Vec<usize> = (0..special.len()).filter(kept).collect();
        let mut encoded = Encoded {
            ids: places.iter().map(|&i| ids[i]).collect(),
            segments: places.iter().map(|&i| types[i]).collect(),
            uncut: special.len() + after.len() + gone,
            at_once,
        };
        let end = places.partition_point(|&i| i < first + offsets.len());
        let segment = places.get(end.saturating_sub(1)).map_or(0, |&i| types[i]);
        encoded.ids.splice(end..end, after.iter().copied());
        let segments = after.iter().map(|_| segment);
        encoded.segments.splice(end..end, segments);
        Ok((encoded, mask))
    }

    /// Tokens of a filled template that stands behind other text, without special tokens: `word` in the
    /// place of the mask, the columns together cut to `most` tokens at the ends of the longest.
    ///
    /// # Errors
    /// What the tokenizer complains about.
    pub fn encode_demonstration(
        &self,
        filled: &Filled,
        word: u32,
        most: usize,
    ) -> Result<Vec<u32>, String> {
        let (filled, ..) = self.without_middles(filled, most)?;
        let inner = self
            .inner
            .encode(format!(" {}", filled.text), false)
            .map_err(|e| e.to_string())?;
        let offsets = inner.get_offsets();
        let mut cuttable = column_tokens(offsets, &filled.columns, 1);
        let mut ids: Vec<Option<u32>> = inner.get_ids().iter().copied().map(Some).collect();
        for _ in most..cuttable.iter().map(Vec::len).sum() {
            if let Some(i) = self.cut(&mut cuttable) {
                ids[i] = None;
            }
        }
        let at = filled.mask.ok_or("the template has no mask")? + 1;
        let mask = offsets
            .iter()
            .position(|&(start, end)| start <= at && at < end)
            .ok_or("the tokenizer gives no token for the mask")?;
        ids[mask] = Some(word);
        let ids: Vec<u32> = ids.into_iter().flatten().collect();
        self.embedded(&ids)?;
        Ok(ids)
    }

    /// A text cut to so many tokens, at the side where text is cut.
    ///
    /// # Errors
    /// What the tokenizer complains about.
    pub fn cut_text<'t>(&self, text: &'t str, most: usize) -> Result<&'t str, String> {
        let made = self.inner.encode(text, false).map_err(|e| e.to_string())?;
        let offsets = made.get_offsets();
        let Some(gone) = offsets.len().checked_sub(most).filter(|&gone| gone > 0) else {
            return Ok(text);
        };
        let cut = match self.side {
            Side::Left => offsets.get(gone).and_then(|&(at, _)| text.get(at..)),
            _ => most
                .checked_sub(1)
                .and_then(|last| text.get(..offsets.get(last)?.1)),
        };
        Ok(cut.unwrap_or_default())
    }

    /// How many tokens a text has by itself, without special ones.
    ///
    /// # Errors
    /// What the tokenizer complains about.
    pub fn length_of(&self, text: &str) -> Result<usize, String> {
        let made = self.inner.encode(text, false).map_err(|e| e.to_string())?;
        Ok(made.len())
    }

    /// A filled template without what a cut of its columns to `most` tokens leaves in no case, the number of tokens of that,
    /// and the bytes that are tokenized at once.
    fn without_middles<'a>(
        &self,
        filled: &'a Filled,
        most: usize,
    ) -> Result<(Cow<'a, Filled>, usize, usize), String> {
        let (mut left, mut gone, mut at_once) = (Cow::Borrowed(filled), 0, 0);
        // From the last to the first: what stands before stays where it is.
        for i in (0..filled.columns.len()).rev() {
            let Some(column) = filled.columns.get(i).cloned() else {
                continue;
            };
            let text = filled.text.get(column.clone()).unwrap_or_default();
            let short = self.short_inside(text, most)?;
            at_once = at_once.max(short.at_once);
            let (at, len) = short.hole;
            if len == 0 {
                continue;
            }
            gone += short.gone;
            let own = left.to_mut();
            let begin = column.start + at;
            own.text.replace_range(begin..begin + len, "");
            for (j, place) in own.columns.iter_mut().enumerate() {
                let behind = j != i && place.start >= column.end;
                place.start -= if behind { len } else { 0 };
                place.end -= if behind || j == i { len } else { 0 };
            }
            own.mask = own
                .mask
                .map(|mask| if mask >= column.end { mask - len } else { mask });
        }
        let at_once = at_once.max(left.text.len());
        Ok((left, gone, at_once))
    }

    /// Takes a token away from the longest column, at the side where text is cut.
    fn cut(&self, columns: &mut [Vec<usize>]) -> Option<usize> {
        let longest = columns.iter_mut().max_by_key(|c| c.len())?;
        match self.side {
            Side::Left if !longest.is_empty() => Some(longest.remove(0)),
            _ => longest.pop(),
        }
    }
}

/// The tokens of each column, by their places in a text that is `shift` bytes behind the filled one.
fn column_tokens(
    offsets: &[(usize, usize)],
    columns: &[Range<usize>],
    shift: usize,
) -> Vec<Vec<usize>> {
    let of = |column: &Range<usize>| {
        let inside = |&i: &usize| {
            let (start, end) = offsets[i];
            let (first, last) = (column.start + shift, column.end + shift);
            // A token of no character, such as a blank put before a word, belongs to what it stands in.
            start >= first && end <= last && (start < end || (start > first && end < last))
        };
        (0..offsets.len()).filter(inside).collect()
    };
    columns.iter().map(of).collect()
}
