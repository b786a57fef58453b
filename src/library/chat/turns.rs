//! What assistants say in a rendered conversation.
//!
//! A template with `{% generation %}` tells. For others a turn is what is rendered of the messages up to it beyond what is
//! rendered of those before it, the start of an answer included. That holds only where the text of the first messages is
//! the beginning of the text of all; where it is not, the conversation is refused.

use std::ops::Range;

use serde_json::Value as Json;

use super::{Chat, ChatTemplate, Rendering, TemplateError, environment, marks};

/// Which turns are learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// All that assistants say.
    All,
    /// The last of them.
    Last,
    /// Those from a message on, counted from 0: what is said before it is the prompt.
    From(usize),
}

impl ChatTemplate {
    /// A conversation with what assistants say in it. `ends` are special tokens, by which the end of a turn is known.
    ///
    /// # Errors
    /// The template refuses the conversation, or it does not render its beginning as it renders the whole.
    pub fn chat(
        &self,
        messages: &[Json],
        rendering: &Rendering<'_>,
        turns: Turns,
        ends: &[String],
    ) -> Result<Chat, TemplateError> {
        let text = self.render(messages, rendering)?;
        let own = self.chosen(rendering);
        let mut learned = match &own.marked {
            Some(marked) => {
                let context = own.context(messages, rendering)?;
                let all = marks::ranges(&environment::render(marked, context)?, &text)?;
                match turns {
                    Turns::From(place) => {
                        let begin = self.begin(messages, rendering, &text, place)?;
                        let own = all.into_iter();
                        let own = own.map(|range| range.start.max(begin)..range.end);
                        own.filter(|range| !range.is_empty()).collect()
                    }
                    Turns::All | Turns::Last => all,
                }
            }
            None => {
                let whole = Whole {
                    template: self,
                    messages,
                    rendering: *rendering,
                    text: &text,
                    ends,
                };
                whole.turns(turns)?
            }
        };
        if turns == Turns::Last
            && let Some(last) = learned.pop()
        {
            learned = vec![last];
        }
        Ok(Chat { text, learned })
    }

    /// Where a text goes on behind the messages before a place.
    fn begin(
        &self,
        messages: &[Json],
        rendering: &Rendering<'_>,
        text: &str,
        place: usize,
    ) -> Result<usize, TemplateError> {
        if place == 0 {
            return Ok(0);
        }
        let rendering = Rendering {
            generation_prompt: true,
            ..*rendering
        };
        let before = self.render(messages.get(..place).unwrap_or_default(), &rendering)?;
        let same = before.bytes().zip(text.bytes());
        let mut same = same.take_while(|(a, b)| a == b).count();
        while !text.is_char_boundary(same) {
            same -= 1;
        }
        Ok(same)
    }
}

/// A conversation whose turns are looked for.
struct Whole<'a> {
    template: &'a ChatTemplate,
    messages: &'a [Json],
    rendering: Rendering<'a>,
    text: &'a str,
    ends: &'a [String],
}

/// Whether an assistant says a message.
pub(super) fn is_assistant(message: &Json) -> bool {
    message.get("role").and_then(Json::as_str) == Some("assistant")
}

impl Whole<'_> {
    fn turns(&self, turns: Turns) -> Result<Vec<Range<usize>>, TemplateError> {
        let own = self.messages.iter().enumerate();
        let mut places: Vec<usize> = own
            .filter(|(_, message)| is_assistant(message))
            .map(|(place, _)| place)
            .collect();
        match turns {
            Turns::All => {}
            Turns::Last => drop(places.drain(..places.len().saturating_sub(1))),
            Turns::From(first) => places.retain(|place| *place >= first),
        }
        let all: Result<Vec<_>, _> = places.into_iter().map(|place| self.turn(place)).collect();
        let mut all = all?;
        all.retain(|range| !range.is_empty());
        Ok(all)
    }

    /// The text of the first messages.
    fn first(&self, count: usize, generation_prompt: bool) -> Result<String, TemplateError> {
        let rendering = Rendering {
            generation_prompt,
            ..self.rendering
        };
        let messages = self.messages.get(..count).unwrap_or_default();
        self.template.render(messages, &rendering).map_err(|e| {
            let message = format!(
                "turn {} is found by rendering the {count} messages up to it alone, and the template fails on them: {}",
                count + 1,
                e.message
            );
            TemplateError { message, ..e }
        })
    }

    fn turn(&self, place: usize) -> Result<Range<usize>, TemplateError> {
        let before = self.first(place, true)?;
        if !self.text.starts_with(&before) {
            return Err(self.differs(place, &before));
        }
        let after = if place + 1 == self.messages.len() && !self.rendering.generation_prompt {
            self.text.to_owned()
        } else {
            self.first(place + 1, false)?
        };
        let end = self
            .end(&after)
            .ok_or_else(|| self.differs(place, &after))?;
        if end < before.len() {
            return Err(self.differs(place, &after));
        }
        Ok(before.len()..self.last_token(before.len(), end))
    }

    /// Where the whole text goes on behind its beginning. What stands only at the end of a text, special tokens and white
    /// space, may follow there.
    fn end(&self, beginning: &str) -> Option<usize> {
        if self.text.starts_with(beginning) {
            return Some(beginning.len());
        }
        let same = beginning.bytes().zip(self.text.bytes());
        let same = same.take_while(|(a, b)| a == b).count();
        // No special token is cut in two, nor a character.
        let within = |text: &str, at: usize| {
            !text.is_char_boundary(at)
                || self.ends.iter().any(|token| {
                    let first = at.saturating_sub(token.len().saturating_sub(1));
                    (first..at).any(|start| {
                        text.as_bytes()
                            .get(start..)
                            .is_some_and(|rest| rest.starts_with(token.as_bytes()))
                    })
                })
        };
        let cut = |at: &usize| !within(beginning, *at) && !within(self.text, *at);
        let at = (0..=same).rev().find(cut)?;
        let mut rest = beginning.get(at..)?.trim_start();
        while let Some(token) = self
            .ends
            .iter()
            .find(|t| !t.is_empty() && rest.starts_with(t.as_str()))
        {
            rest = rest.get(token.len()..)?.trim_start();
        }
        rest.is_empty().then_some(at)
    }

    /// The end of a turn at the token that ends it: white space behind that is the template's.
    fn last_token(&self, start: usize, end: usize) -> usize {
        let said = self.text.get(start..end).unwrap_or_default();
        let last = |token: &String| said.rfind(token.as_str()).map(|at| at + token.len());
        let known = self.ends.iter().filter(|token| !token.is_empty());
        let last = known.filter_map(last).max();
        match last {
            Some(last) if said.get(last..).is_some_and(|rest| rest.trim().is_empty()) => {
                start + last
            }
            _ => end,
        }
    }

    fn differs(&self, place: usize, beginning: &str) -> TemplateError {
        let same = beginning.chars().zip(self.text.chars());
        let same = same.take_while(|(a, b)| a == b).count();
        let next = |text: &str| text.chars().skip(same).take(24).collect::<String>();
        TemplateError::new(format!(
            "the template does not render the beginning of a conversation as it renders the whole, so that what is said in turn \
             {} is not known: where the whole has {:?}, the messages up to it have {:?}",
            place + 1,
            next(self.text),
            next(beginning),
        ))
    }
}
