//! Chat templates: Jinja texts that make one text of a conversation, rendered with the bytes that transformers renders.
//!
//! A template comes with a model and is not trusted: its size, its work and its depth are bounded, and it reaches no file.

use std::ops::Range;

use minijinja::value::Serde;
use minijinja::{Environment, Value};
use serde_json::{Map, Value as Json};

pub use self::date::Date;
pub use self::messages::{messages, tools};
pub use self::turns::Turns;

mod date;
mod environment;
mod marks;
mod messages;
mod methods;
mod tojson;
mod turns;

/// The file that holds a model's template.
pub const FILE: &str = "chat_template.jinja";

/// The file of the template for conversations with tools.
pub const FILE_FOR_TOOLS: &str = "additional_chat_templates/tool_use.jinja";

/// Bytes of the longest template that is read.
const LONGEST: usize = 1 << 20;

/// A template that cannot be read or rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// The line of the template, from 1, where one is known.
    pub line: Option<usize>,
    /// What is wrong: a sentence without a full stop.
    pub message: String,
    /// Whether the template itself refuses the conversation (`raise_exception`).
    pub raised: bool,
}

impl TemplateError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            line: None,
            message: message.into(),
            raised: false,
        }
    }
}

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line} of the chat template: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for TemplateError {}

/// What an artifact keeps of what its template was given, so that it is given that again.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Kept {
    /// The date that it writes as today's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub today: Option<String>,
    /// Variables, such as `enable_thinking`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub variables: Map<String, Json>,
}

/// What a template is given beside the messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rendering<'a> {
    /// Whether the text ends where the assistant's answer begins.
    pub generation_prompt: bool,
    /// Descriptions of functions that the assistant may call.
    pub tools: Option<&'a Json>,
    /// Further variables, such as `enable_thinking`.
    pub extra: Option<&'a Map<String, Json>>,
}

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chat {
    /// Its text.
    pub text: String,
    /// What assistants say in it, each with the token that ends the turn: ranges of bytes, ascending.
    pub learned: Vec<Range<usize>>,
}

/// A chat template.
pub struct ChatTemplate {
    source: String,
    specials: Map<String, Json>,
    today: Option<Date>,
    plain: Environment<'static>,
    /// The template for conversations with tools, where there is one of its own.
    with_tools: Option<Box<Self>>,
    /// The same, with marks around `{% generation %}` blocks; `None` where there are none.
    marked: Option<Environment<'static>>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChatTemplate({} bytes)", self.source.len())
    }
}

impl ChatTemplate {
    /// Reads a template. `specials` are the variables of special tokens, such as `bos_token`; `today` is the date that
    /// `strftime_now` writes.
    ///
    /// # Errors
    /// The line that is no valid Jinja, or a construct that is not built.
    pub fn parse(
        text: &str,
        specials: Map<String, Json>,
        today: Option<Date>,
    ) -> Result<Self, TemplateError> {
        if text.len() > LONGEST {
            let message = format!(
                "the chat template has {} bytes, and at most {LONGEST} are read",
                text.len()
            );
            return Err(TemplateError::new(message));
        }
        let (source, marks) = marks::as_calls(text);
        let made = |marked| environment::of(&source, today, marked);
        Ok(Self {
            plain: made(false)?,
            marked: marks.then(|| made(true)).transpose()?,
            source: text.to_owned(),
            with_tools: None,
            specials,
            today,
        })
    }

    /// The same, with a template of its own for conversations with tools.
    #[must_use]
    pub fn with_tools(mut self, template: Option<Self>) -> Self {
        self.with_tools = template.map(Box::new);
        self
    }

    /// The template for conversations with tools, where there is one of its own.
    #[must_use]
    pub fn for_tools(&self) -> Option<&Self> {
        self.with_tools.as_deref()
    }

    /// The template that a rendering takes.
    fn chosen(&self, rendering: &Rendering<'_>) -> &Self {
        let own = self.with_tools.as_deref();
        own.filter(|_| rendering.tools.is_some()).unwrap_or(self)
    }

    /// The date that it writes as today's, where it is given one.
    #[must_use]
    pub const fn today(&self) -> Option<Date> {
        self.today
    }

    /// Its text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it speaks of a variable.
    #[must_use]
    pub fn reads(&self, variable: &str) -> bool {
        self.source.contains(variable) || self.for_tools().is_some_and(|own| own.reads(variable))
    }

    /// Whether it says by `{% generation %}` what the assistant writes.
    #[must_use]
    pub const fn marks_generation(&self) -> bool {
        self.marked.is_some()
    }

    /// Hash of all that decides what it renders.
    #[must_use]
    pub fn identity(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let specials = Json::Object(self.specials.clone()).to_string();
        for part in [self.source.as_str(), &specials] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(format!("{:?}", self.today).as_bytes());
        if let Some(own) = &self.with_tools {
            hasher.update(own.identity().as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// The template refuses it, or fails on it.
    pub fn render(
        &self,
        messages: &[Json],
        rendering: &Rendering<'_>,
    ) -> Result<String, TemplateError> {
        let own = self.chosen(rendering);
        let context = own.context(messages, rendering)?;
        environment::render(&own.plain, context)
    }

    /// The variables of a rendering.
    fn context(
        &self,
        messages: &[Json],
        rendering: &Rendering<'_>,
    ) -> Result<Value, TemplateError> {
        let mut all = self.specials.clone();
        if let Some(extra) = rendering.extra {
            let taken =
                |key: &&String| ["messages", "tools", GENERATION_PROMPT].contains(&key.as_str());
            if let Some(key) = extra.keys().find(taken) {
                return Err(TemplateError::new(format!(
                    "`{key}` is no variable of its own for a chat template: it is made of the conversation"
                )));
            }
            all.extend(extra.clone());
        }
        let messages = messages.iter().map(message).collect();
        all.insert("messages".to_owned(), Json::Array(messages));
        let tools = rendering.tools.cloned().unwrap_or(Json::Null);
        all.insert("tools".to_owned(), tools);
        all.entry("documents").or_insert(Json::Null);
        let prompt = Json::Bool(rendering.generation_prompt);
        all.insert(GENERATION_PROMPT.to_owned(), prompt);
        Ok(Serde(Json::Object(all)).into())
    }
}

/// The variable that asks for the start of an answer.
const GENERATION_PROMPT: &str = "add_generation_prompt";

/// Names under which messages hold reasoning; templates read the first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A message as templates are given it: without keys that hold nothing, its reasoning under the names that they read.
fn message(message: &Json) -> Json {
    let Json::Object(own) = message else {
        return message.clone();
    };
    let filled = own.iter().filter(|(_, value)| !value.is_null());
    let mut own: Map<String, Json> = filled.map(|(k, v)| (k.clone(), v.clone())).collect();
    if let Some(reasoning) = REASONING.iter().find_map(|name| own.get(*name)).cloned() {
        own.entry("thinking").or_insert_with(|| reasoning.clone());
        own.insert("reasoning_content".to_owned(), reasoning);
    }
    Json::Object(own)
}

#[cfg(test)]
mod tests;
