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
    /// What stands behind it, or before it.
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
        // Whether a text fits behind others is known once it is tokenized.
        if demonstrations.showing.before.is_some() {
            return Ok(());
        }
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
    let own = fill(tokenizer, frame.template, frame.columns, texts).text;
    tokenize_for(tokenizer, frame, texts, (&own, draw), max_length)
}

/// The same with the demonstrations that are drawn for another text.
///
/// # Errors
/// What the tokenizer complains about.
pub fn tokenize_for(
    tokenizer: &Tokenizer,
    frame: Frame<'_>,
    texts: &[String],
    (own, draw): (&str, u32),
    max_length: usize,
) -> Result<(Encoded, u32), String> {
    let filled = framed(tokenizer, frame, texts, (own, draw))?;
    let behind = frame.demonstrations.filter(|d| d.showing.before.is_none());
    let behind = behind.map(|d| d.tokens(own, draw)).unwrap_or_default();
    let (encoded, mask) = tokenizer.encode_prompt(&filled, &behind, max_length)?;
    Ok((encoded, mask.unwrap_or(0)))
}

/// A template filled with an example's columns, with what stands before it; demonstrations are those that are drawn for the text `own`.
///
/// # Errors
/// The text is itself among the demonstrations.
pub fn framed(
    tokenizer: &Tokenizer,
    frame: Frame<'_>,
    texts: &[String],
    (own, draw): (&str, u32),
) -> Result<Filled, String> {
    let filled = fill(tokenizer, frame.template, frame.columns, texts);
    let before = frame.demonstrations.map(|d| d.in_front(own, draw));
    let Some(before) = before.transpose()?.flatten() else {
        return Ok(filled);
    };
    let by = before.len();
    let columns = filled.columns.into_iter();
    Ok(Filled {
        text: before + &filled.text,
        columns: columns.map(|c| c.start + by..c.end + by).collect(),
        mask: filled.mask.map(|at| at + by),
    })
}
