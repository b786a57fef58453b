//! Rows whose labels are read as texts behind a prompt, and rows beside texts without content.

use super::{Cause, Each, Read};
use crate::library::data::set::Example;
use crate::library::prompt::frame::{Frame, fill, framed, tokenize_for};
use crate::library::tokenizer::Marked;

/// Cuts of a text that are tried.
const TRIES: usize = 8;

impl Each<'_> {
    /// A row's texts, and the texts without content in its place: beside each row, or beside the first where all are shown the same
    /// demonstrations.
    fn with_content_free(
        &self,
        (example, place): (&Example, u32),
        frame: Frame<'_>,
    ) -> Vec<Vec<String>> {
        let shared = frame.demonstrations.is_none_or(|shown| shown.showing.once);
        let free = self.want.task.content_free().iter();
        let free = free.filter(|_| !shared || place == 0);
        let free = free.map(|text| vec![text.clone(); frame.columns.len()]);
        std::iter::once(example.texts.clone()).chain(free).collect()
    }

    /// A prompt with each class's label behind it.
    pub(super) fn labelled(
        &self,
        of: (&Example, u32),
        draw: u32,
        (frame, special): (Frame<'_>, bool),
    ) -> Result<Vec<Read>, Cause> {
        let own = fill(self.tokenizer, frame.template, frame.columns, &of.0.texts).text;
        let mut reads = Vec::new();
        for texts in self.with_content_free(of, frame) {
            let made = self.each_label(texts, (&own, draw), (frame, special));
            let made = made.map_err(|why| {
                Cause::Tokens(format!("row {} (counted from 0): {why}", of.0.row))
            })?;
            reads.extend(made.into_iter().map(|marked| Read {
                encoded: marked.encoded,
                mask: 0,
                learned: marked.learned,
                lost: marked.lost,
                label: None,
            }));
        }
        if reads.len() > usize::from(u16::MAX) {
            let why = format!(
                "a row would be read {} times, once for each label and text of `calibrate`",
                reads.len()
            );
            return Err(Cause::Tokens(why));
        }
        Ok(reads)
    }

    /// Some texts within the template, up to its mask, with each label; the longest of the texts is cut where that is too long.
    fn each_label(
        &self,
        mut texts: Vec<String>,
        drawn: (&str, u32),
        (frame, special): (Frame<'_>, bool),
    ) -> Result<Vec<Marked>, String> {
        let most = self.want.max_length as usize;
        let none = [String::new()];
        let labels = match self.want.labels {
            // They are not known before the data are read once.
            [] => &none[..],
            own => own,
        };
        for _ in 0..TRIES {
            let filled = framed(self.tokenizer, frame, &texts, drawn)?;
            let prompt = filled.mask.and_then(|at| filled.text.get(..at));
            let prompt = prompt.unwrap_or(&filled.text);
            let each = labels.iter().map(|label| {
                let both = (prompt, label.as_str());
                self.tokenizer.encode_option(both, ("", special), most)
            });
            let made = each.collect::<Result<Vec<Marked>, String>>()?;
            let longest = made.iter().map(|m| m.encoded.uncut).max().unwrap_or(0);
            let Some(over) = longest.checked_sub(most).filter(|&over| over > 0) else {
                return Ok(made);
            };
            let lengths = texts.iter().map(|text| self.tokenizer.length_of(text));
            let lengths = lengths.collect::<Result<Vec<usize>, String>>()?;
            let (at, length) = lengths
                .into_iter()
                .enumerate()
                .max_by_key(|(_, n)| *n)
                .unwrap_or((0, 0));
            if length == 0 {
                return Err(format!(
                    "the template and its demonstrations take {longest} tokens, and `max_length` is {most}"
                ));
            }
            if let Some(text) = texts.get_mut(at) {
                *text = self
                    .tokenizer
                    .cut_text(text, length.saturating_sub(over))?
                    .to_owned();
            }
        }
        Err(format!("the text cannot be cut to `max_length` {most}"))
    }

    /// A row within its template, and the texts without content in its place.
    pub(super) fn set_off(
        &self,
        of: (&Example, u32),
        draw: u32,
        frame: Frame<'_>,
    ) -> Result<Vec<Read>, Cause> {
        let own = fill(self.tokenizer, frame.template, frame.columns, &of.0.texts).text;
        let most = self.want.max_length as usize;
        let each = self.with_content_free(of, frame).into_iter().map(|texts| {
            let made = tokenize_for(self.tokenizer, frame, &texts, (&own, draw), most);
            let (encoded, mask) = made.map_err(Cause::Tokens)?;
            Ok(Read {
                encoded,
                mask,
                learned: Vec::new(),
                lost: 0,
                label: None,
            })
        });
        each.collect()
    }
}
