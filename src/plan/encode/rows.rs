//! Rows turned into sequences: texts, prompts with their completions, conversations, options.

use serde_json::Value as Json;

use super::{Cause, Each, Read, one};
use crate::library::chat::{Chat, Rendering, Turns};
use crate::library::counts::to_u32;
use crate::library::data::form::{Form, Learn};
use crate::library::data::set::{Example, Label};
use crate::library::model::{Behind, Sides};
use crate::library::prompt::frame::tokenize;
use crate::library::task::{Pieces, Windows};
use crate::library::tokenizer::{Encoded, Ends};

impl Each<'_> {
    /// The sequences of a row.
    pub(super) fn reads(
        &self,
        example: &Example,
        (place, draw): (u32, u32),
    ) -> Result<Vec<Read>, Cause> {
        if let (Some(special), Some(frame)) = (self.want.task.label_texts(), self.frame) {
            return self.labelled((example, place), draw, (frame, special));
        }
        if let (false, Some(frame)) = (self.want.task.content_free().is_empty(), self.frame) {
            return self.set_off((example, place), draw, frame);
        }
        if let (Form::Choices, Some(option)) = (self.want.rows.form, self.want.task.option()) {
            return self.options(example, option);
        }
        if self.want.rows.form == Form::Choices && self.want.task.pairs_options() {
            return self.pairs(example);
        }
        if self.want.task.texts_apart() {
            return self.apart(example);
        }
        if let (Form::Words, Some(pieces)) = (self.want.rows.form, self.want.task.words()) {
            return self.words(example, pieces);
        }
        if let (Form::Question, Some(windows)) = (self.want.rows.form, self.want.task.windows()) {
            return self.windows(example, windows);
        }
        if let (Some(sides), Some(most)) = (self.want.rows.sides, self.want.task.target_length()) {
            return self.pair(example, sides, most.min(sides.longest) as usize);
        }
        if self.want.rows.form != Form::Preference {
            return Ok(vec![self.read(example, &example.texts, draw)?]);
        }
        let sides = answers(example)
            .map_err(|why| Cause::Chat(format!("row {} (counted from 0): {why}", example.row)))?;
        let read = |texts: &[String; 2]| self.read(example, texts, draw);
        sides.iter().map(read).collect()
    }

    /// A prompt with each of its options.
    pub(super) fn options(
        &self,
        example: &Example,
        form: (&str, bool),
    ) -> Result<Vec<Read>, Cause> {
        let most = self.want.max_length as usize;
        let [prompt, options @ .., _] = example.texts.as_slice() else {
            return Ok(Vec::new());
        };
        let each = options.iter().map(|option| {
            let marked = self.tokenizer.encode_option((prompt, option), form, most);
            let marked = marked.map_err(Cause::Tokens)?;
            Ok(Read {
                encoded: marked.encoded,
                mask: to_u32(option.len()),
                learned: marked.learned,
                lost: marked.lost,
                label: None,
            })
        });
        each.collect()
    }

    /// A prompt with each of its options, as pairs of texts; the mask is the option's place.
    fn pairs(&self, example: &Example) -> Result<Vec<Read>, Cause> {
        let most = self.want.max_length as usize;
        let [prompt, options @ .., _] = example.texts.as_slice() else {
            return Ok(Vec::new());
        };
        let each = (0_u32..).zip(options).map(|(mask, option)| {
            let both = [prompt.clone(), option.clone()];
            let encoded = self.tokenizer.encode(&both, most);
            Ok(Read {
                encoded: encoded.map_err(Cause::Tokens)?,
                mask,
                learned: Vec::new(),
                lost: 0,
                label: None,
            })
        });
        each.collect()
    }

    /// Each text of a row by itself.
    fn apart(&self, example: &Example) -> Result<Vec<Read>, Cause> {
        let most = self.want.max_length as usize;
        let each = example.texts.iter().map(|text| {
            let encoded = self.tokenizer.encode(std::slice::from_ref(text), most);
            let encoded = encoded.map_err(Cause::Tokens)?;
            if encoded.ids.is_empty() {
                let row = example.row;
                return Err(Cause::Tokens(format!(
                    "row {row} (counted from 0) has no token in one of its texts, so that there is nothing to make a vector of"
                )));
            }
            Ok(Read {
                encoded,
                mask: 0,
                learned: Vec::new(),
                lost: 0,
                label: None,
            })
        });
        each.collect()
    }

    /// A question with each window of its context.
    fn windows(&self, example: &Example, windows: Windows) -> Result<Vec<Read>, Cause> {
        let most = self.want.max_length as usize;
        let made = windows.examples(self.tokenizer, &example.texts, (most, true));
        let made = made
            .map_err(|why| Cause::Tokens(format!("row {} (counted from 0): {why}", example.row)))?;
        let each = made.into_iter().map(|(at_once, own)| Read {
            encoded: Encoded {
                uncut: own.ids.len(),
                ids: own.ids,
                segments: own.segments,
                at_once,
            },
            mask: 0,
            learned: own.learned,
            lost: 0,
            label: Some(own.label),
        });
        Ok(each.collect())
    }

    /// The parts of a row of words.
    fn words(&self, example: &Example, pieces: Pieces) -> Result<Vec<Read>, Cause> {
        let labels = match &example.label {
            Some(Label::Each(list)) => list.as_slice(),
            _ => &[],
        };
        let most = self.want.max_length as usize;
        let parts = self.tokenizer.encode_words(&example.texts, most);
        let parts = parts
            .map_err(|why| Cause::Tokens(format!("row {} (counted from 0): {why}", example.row)))?;
        let classes = self.reading.classes();
        let each = parts.into_iter().map(|part| {
            let (uncut, at_once) = (part.encoded.uncut, part.encoded.at_once);
            let own = pieces.example(part, labels, classes);
            Read {
                encoded: Encoded {
                    ids: own.ids,
                    segments: own.segments,
                    uncut,
                    at_once,
                },
                mask: 0,
                learned: own.learned,
                lost: 0,
                label: Some(own.label),
            }
        });
        Ok(each.collect())
    }

    /// A source and its target, tokenized apart as transformers does with `text_target`: what tells the target begins with the
    /// token that it is learned behind.
    fn pair(&self, example: &Example, sides: Sides, most: usize) -> Result<Vec<Read>, Cause> {
        let [source, target] = example.texts.as_slice() else {
            return Ok(Vec::new());
        };
        let tokens = |text: &String, most: usize| {
            let made = self.tokenizer.encode(std::slice::from_ref(text), most);
            made.map_err(Cause::Tokens)
        };
        let (mut encoded, target) = (
            tokens(source, self.want.max_length as usize)?,
            tokens(target, most)?,
        );
        if encoded.ids.is_empty() {
            let row = example.row;
            return Err(Cause::Tokens(format!(
                "row {row} (counted from 0) has no token in its source, so that there is nothing to attend to"
            )));
        }
        let both = [("source", &encoded.ids), ("target", &target.ids)];
        for ((what, ids), rows) in both.into_iter().zip(sides.rows) {
            if let Some(id) = ids.iter().find(|id| u64::from(**id) >= rows) {
                let row = example.row;
                return Err(Cause::Tokens(format!(
                    "row {row} (counted from 0) has the token {id} in its {what}, and the model has embeddings of {rows} tokens there"
                )));
            }
        }
        let begin = to_u32(encoded.ids.len()) + 1;
        let end = begin + to_u32(target.ids.len());
        encoded.ids.push(match sides.behind {
            Behind::Token(start) => start,
            // Of a target without tokens nothing is learned.
            Behind::ItsLast => target.ids.last().copied().unwrap_or(0),
        });
        encoded.ids.extend(&target.ids);
        encoded.segments = vec![0; encoded.ids.len()];
        encoded.at_once = encoded.at_once.max(target.at_once);
        encoded.uncut += target.uncut + 1;
        Ok(vec![Read {
            lost: to_u32(target.uncut - target.ids.len()),
            learned: if begin < end {
                one(begin..end)
            } else {
                Vec::new()
            },
            encoded,
            mask: 0,
            label: None,
        }])
    }

    /// The tokens of a row, or of one of its answers with the prompt.
    pub(super) fn read(
        &self,
        example: &Example,
        texts: &[String],
        draw: u32,
    ) -> Result<Read, Cause> {
        let most = self.want.max_length as usize;
        let rows = &self.want.rows;
        let refused =
            |why: String| Cause::Chat(format!("row {} (counted from 0): {why}", example.row));
        let (text, parts, ends) = match (rows.form, texts) {
            (Form::Completion | Form::Preference, [prompt, completion]) if example.spoken => {
                let chat = self.answered(prompt, completion).map_err(refused)?;
                (chat.text, chat.learned, Ends::Written)
            }
            (Form::Completion | Form::Preference, [prompt, completion]) => {
                let text = format!("{prompt}{completion}");
                let parts = one(prompt.len()..text.len());
                (text, parts, Ends::Added)
            }
            (Form::Messages, [messages, ..]) => {
                let chat = self.chat(messages, texts.get(1)).map_err(refused)?;
                (chat.text, chat.learned, Ends::Written)
            }
            _ => {
                let (mut encoded, mask) = tokenize(self.tokenizer, self.frame, texts, draw, most)
                    .map_err(Cause::Tokens)?;
                if self.want.task.ends_texts() {
                    self.tokenizer.end(&mut encoded, most);
                }
                let length = to_u32(encoded.ids.len());
                let all = rows.learn != Learn::Nothing && length > 1;
                return Ok(Read {
                    lost: if all {
                        to_u32(encoded.uncut) - length
                    } else {
                        0
                    },
                    learned: if all { one(1..length) } else { Vec::new() },
                    encoded,
                    mask,
                    label: None,
                });
            }
        };
        let parts = if rows.learn == Learn::All {
            one(0..text.len())
        } else {
            parts
        };
        let marked = self.tokenizer.encode_marked(&text, &parts, ends, most);
        let marked = marked.map_err(Cause::Tokens)?;
        Ok(Read {
            encoded: marked.encoded,
            mask: 0,
            learned: marked.learned,
            lost: marked.lost,
            label: None,
        })
    }

    /// A conversation as its template renders it.
    pub(super) fn chat(&self, messages: &str, tools: Option<&String>) -> Result<Chat, String> {
        let rows = &self.want.rows;
        let template = rows.template.ok_or("the model has no chat template")?;
        let messages: Vec<Json> = serde_json::from_str(messages).map_err(|e| e.to_string())?;
        let tools: Option<Json> = match tools {
            None => None,
            Some(text) => serde_json::from_str(text).map_err(|e| e.to_string())?,
        };
        let rendering = Rendering {
            generation_prompt: false,
            tools: tools.as_ref().filter(|t| !t.is_null()),
            extra: rows.variables,
        };
        if rows.learn == Learn::All {
            let text = template.render(&messages, &rendering);
            let text = text.map_err(|why| why.to_string())?;
            return Ok(Chat {
                text,
                learned: Vec::new(),
            });
        }
        let turns = if rows.learn == Learn::Last {
            Turns::Last
        } else {
            Turns::All
        };
        let chat = template.chat(&messages, &rendering, turns, &self.ends);
        chat.map_err(|why| why.to_string())
    }

    /// A conversation of which what assistants say behind its prompt is learned.
    pub(super) fn answered(&self, prompt: &str, completion: &str) -> Result<Chat, String> {
        let template = self.want.rows.template.ok_or(NO_TEMPLATE)?;
        let mut messages: Vec<Json> = serde_json::from_str(prompt).map_err(|e| e.to_string())?;
        let begin = messages.len();
        let rest: Vec<Json> = serde_json::from_str(completion).map_err(|e| e.to_string())?;
        messages.extend(rest);
        let rendering = Rendering::default();
        let chat = if self.want.rows.learn == Learn::All {
            let text = template.render(&messages, &rendering);
            let learned = Vec::new();
            text.map(|text| Chat { text, learned })
        } else {
            template.chat(&messages, &rendering, Turns::From(begin), &self.ends)
        };
        chat.map_err(|why| why.to_string())
    }
}

/// Why lists of messages are not read.
const NO_TEMPLATE: &str = "the model has no chat template, which makes a text of messages; name one in the model: `chat_template = \"FILE\"`";

/// The prompt of a row with each of its two answers. Where none is written, it is what both begin with alike: as many
/// messages, or as much text, as TRL takes (`extract_prompt`).
pub(super) fn answers(example: &Example) -> Result<[[String; 2]; 2], String> {
    let (chosen, rejected) = match example.texts.as_slice() {
        [prompt, chosen, rejected] => {
            return Ok([chosen, rejected].map(|answer| [prompt.clone(), answer.clone()]));
        }
        [chosen, rejected] => (chosen, rejected),
        _ => return Err("a chosen and a rejected answer are wanted".to_owned()),
    };
    if !example.spoken {
        let shorter = chosen.chars().count().min(rejected.chars().count());
        let alike = chosen.char_indices().zip(rejected.chars());
        let alike = alike.take_while(|((_, a), b)| a == b);
        // Of the same text twice, the last character is the answer.
        let alike = alike.take(shorter.saturating_sub(1));
        let mut at = alike
            .map(|((at, c), _)| at + c.len_utf8())
            .last()
            .unwrap_or(0);
        // The answer's first word keeps the space before it.
        if chosen.get(..at).is_some_and(|prompt| prompt.ends_with(' ')) {
            at -= 1;
        }
        let cut = |text: &String| {
            let (prompt, answer) = text.split_at_checked(at).unwrap_or((text, ""));
            [prompt.to_owned(), answer.to_owned()]
        };
        return Ok([cut(chosen), cut(rejected)]);
    }
    let list = |text: &String| -> Result<Vec<Json>, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    };
    let both = [list(chosen)?, list(rejected)?];
    let [one, other] = &both;
    let alike = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    // Of the same conversation twice, the last message is the answer.
    let alike = alike.min(one.len().min(other.len()).saturating_sub(1));
    Ok(both.map(|mut messages| {
        let answer = messages.split_off(alike);
        [messages, answer].map(|part| Json::Array(part).to_string())
    }))
}
