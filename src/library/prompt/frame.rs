//! Texts with what stands around them, as tokens.

use super::{Filled, Template};
use crate::library::demonstrations::Demonstrations;
use crate::library::tokenizer::{Encoded, Tokenizer};

/// What stands around a text.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The template.
    pub template: &'a Template,
    /// Names of the columns, in the order of an example's texts.
    pub columns: &'a [String],
    /// What stands behind it.
    pub demonstrations: Option<&'a Demonstrations>,
}

impl Frame<'_> {
    /// Whether the template and the longest demonstrations that can be drawn fit, so that whether a text
    /// can be read does not depend on what is drawn for it.
    ///
    /// # Errors
    /// A sentence that says how much too long they are.
    pub fn check_length(&self, tokenizer: &Tokenizer, max_length: usize) -> Result<(), String> {
        let Some(demonstrations) = self.demonstrations else {
            return Ok(());
        };
        let empty = fill(tokenizer, self.template, &[], &[]);
        let (encoded, _) = tokenizer.encode_prompt(&empty, &[], usize::MAX)?;
        let longest = demonstrations.longest();
        let all = encoded.ids.len() + longest;
        if all > max_length {
            return Err(format!(
                "the template alone takes {} tokens and its demonstrations up to {longest}, together {all}, and \
                 `max_length` is {max_length}",
                encoded.ids.len()
            ));
        }
        Ok(())
    }
}

/// A template filled with an example's columns.
pub fn fill(
    tokenizer: &Tokenizer,
    template: &Template,
    columns: &[String],
    texts: &[String],
) -> Filled {
    let get = |name: &str| {
        let at = columns.iter().position(|c| c == name);
        at.and_then(|i| texts.get(i)).map_or("", String::as_str)
    };
    let mask = tokenizer.mask().map_or("", |(token, _)| token);
    template.fill(get, mask)
}

/// Tokens of an example's columns, plain or within a template, and the place of the mask.
///
/// # Errors
/// What the tokenizer complains about.
pub fn tokenize(
    tokenizer: &Tokenizer,
    frame: Option<Frame<'_>>,
    texts: &[String],
    draw: u32,
    max_length: usize,
) -> Result<(Encoded, u32), String> {
    let Some(frame) = frame else {
        return Ok((tokenizer.encode(texts, max_length)?, 0));
    };
    let filled = fill(tokenizer, frame.template, frame.columns, texts);
    let shown = frame.demonstrations.map(|d| d.tokens(&filled.text, draw));
    let (encoded, mask) =
        tokenizer.encode_prompt(&filled, &shown.unwrap_or_default(), max_length)?;
    Ok((encoded, mask.unwrap_or(0)))
}
