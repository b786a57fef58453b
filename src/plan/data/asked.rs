//! A split as it is declared and asked for: what is known of it without its rows, and what is reported of them.

use std::io;

use serde_json::{Map, Value as Json};

use super::super::bind::{BoundSplit, Want};
use super::super::chat;
use super::super::encode::Cause;
use super::super::error::{
    ASSUMED_LENGTHS, BAD_DATA, BAD_DEMONSTRATIONS, BAD_PROMPT, BAD_TEMPLATE, BAD_TOKENIZER,
    UNKEPT_TOKENS,
};
use super::super::source::{canonical, given};
use super::super::split::Lengths;
use crate::base::{Diag, Diags, Span, suggest};
use crate::library::data::form::Form;
use crate::library::data::set::Given;
use crate::library::data::{About, DataError, MEANT};
use crate::library::decl;
use crate::library::prompt::Template;
use crate::resolve::Declared;

/// A split's declaration, and the place in the recipe that asks for the split.
pub(super) struct Asked<'a> {
    pub(super) declared: &'a Declared,
    pub(super) split: &'a str,
    pub(super) at: Span,
    /// The columns of its text.
    pub(super) text: Vec<String>,
    /// What a row is.
    pub(super) form: Form,
    /// The variables of chat templates that the recipe gives for it.
    pub(super) variables: Option<Map<String, Json>>,
}

impl<'a> Asked<'a> {
    pub(super) fn new(declared: &'a Declared, split: &'a str, at: Span) -> Self {
        let values = &declared.filled.values;
        Self {
            declared,
            split,
            at,
            text: decl::columns(values),
            form: decl::form(values),
            variables: chat::variables(values),
        }
    }

    /// `NAME.SPLIT`, as a recipe writes it.
    fn path(&self) -> String {
        format!("{}.{}", self.declared.name.value, self.split)
    }

    /// The error of a template that asks for a column which the data set does not read.
    pub(super) fn lacks_column(&self, template: Option<(&Template, Span)>) -> Option<Diag> {
        let (template, at) = template?;
        let column = template
            .columns()
            .find(|c| !self.text.iter().any(|t| t == c))?;
        let name = &self.declared.name.value;
        let message =
            format!("the template asks for the column `{column}`, which `{name}` does not read");
        let mut diag = Diag::error(&BAD_PROMPT, at, message);
        diag.help = suggest::did_you_mean(column, self.text.iter().map(String::as_str))
            .or_else(|| Some(format!("add it to `text` of `{name}`")));
        Some(diag)
    }

    /// The error of a method that trains several tasks, where the data name none.
    pub(super) fn lacks_tasks(&self, want: Want<'_>) -> Option<Diag> {
        let (method, _) = want.tasks?;
        let named = decl::TASK.get(&self.declared.filled.values);
        named.is_none().then(|| {
            let name = &self.declared.name.value;
            let message = format!(
                "`{method} {{ mixed = true }}` wants each example's task, and `{name}` names none"
            );
            Diag::error(&BAD_DATA, self.at, message).help(format!(
                "write `task = COLUMN` in `{name}`, or `task = 0` in the method"
            ))
        })
    }

    /// The error of an example whose task the method does not have.
    pub(super) fn other_task(&self, want: Want<'_>, bound: &BoundSplit) -> Option<Diag> {
        let (method, tasks) = want.tasks?;
        let last = bound.encoded.as_ref()?.last_task();
        (u64::from(last) >= tasks).then(|| {
            let message = format!(
                "`{}` has examples of task {last}, and `{method}` has {tasks} tasks, counted from 0",
                self.path()
            );
            Diag::error(&BAD_DATA, self.at, message)
                .help(format!("write `tasks = {}` in the method, or correct the data", last + 1))
        })
    }

    /// The warning about a split whose files are not here.
    pub(super) fn offline(&self, why: &str, max_length: u64) -> Diag {
        Diag::warning(
            &ASSUMED_LENGTHS,
            self.at,
            format!("`{}` is not at hand: {why}", self.path()),
        )
        .label(format!(
            "every text is taken as {max_length} tokens long; lengths and labels are not checked"
        ))
    }

    /// The same split with assumed lengths. Its classes, where its task has any, are the fixed ones or those that the
    /// declaration names.
    pub(super) fn assumed(&self, want: Want<'_>) -> BoundSplit {
        let classes = match (want.classes, given(self.declared)) {
            _ if !want.task.answer().names_classes() => Vec::new(),
            (Some(fixed), _) => fixed.to_vec(),
            (None, Given::List(list)) => list,
            (None, Given::Map(pairs)) => pairs.into_iter().map(|(_, class)| class).collect(),
            (None, Given::Nothing) => Vec::new(),
        };
        self.bound(Lengths::Assumed(want.longest()), classes)
    }

    /// The split as its declaration has it, without its tokens.
    pub(super) fn bound(&self, lengths: Lengths, classes: Vec<String>) -> BoundSplit {
        let repo = self.declared.arg.as_ref().map(|arg| arg.value.clone());
        BoundSplit {
            hub: repo.filter(|_| self.declared.filled.name == "hub"),
            reported: self.declared.set.map_or(&[], |set| set.metrics),
            text: self.text.clone(),
            form: self.form,
            variables: self.variables.clone(),
            supervision: None,
            encoded: None,
            lengths,
            classes,
            identity: None,
            rows_hash: None,
            host_bytes: 0,
            making: 0,
            noted: None,
            drawn_of: false,
        }
    }

    /// The warning about tokens that could not be written to the cache.
    pub(super) fn unkept(&self, why: &io::Error) -> Diag {
        let message = format!("the tokens of `{}` cannot be kept: {why}", self.path());
        Diag::warning(&UNKEPT_TOKENS, self.at, message).help(
            "they are held in memory; free space there, or name another folder in `XDG_CACHE_HOME`",
        )
    }

    /// Reports what is wrong with the rows.
    pub(super) fn wrong(&self, list: Vec<DataError>, diags: &mut Diags) {
        wrong(list, self.declared, self.split, self.at, diags);
    }

    /// Reports why the rows do not become tokens.
    pub(super) fn refused(&self, cause: Cause, want: Want<'_>, diags: &mut Diags) {
        match cause {
            Cause::Data(list) => self.wrong(list, diags),
            Cause::Chat(why) => {
                let place = chat::messages_at(&self.declared.filled.values);
                let message = format!("`{}` cannot be rendered: {why}", self.path());
                diags.push(
                    Diag::error(&BAD_TEMPLATE, place, message)
                        .label("these conversations")
                        .related(self.at, "read here"),
                );
            }
            Cause::Tokens(why) => {
                let (code, at) = match want.template {
                    Some((_, at)) if want.demonstrations.is_some() => (&BAD_DEMONSTRATIONS, at),
                    Some((_, at)) => (&BAD_PROMPT, at),
                    None => (&BAD_TOKENIZER, self.at),
                };
                let message = format!("`{}` cannot be tokenized: {why}", self.path());
                let mut diag = Diag::error(code, at, message);
                if want.demonstrations.is_some() {
                    diag = diag.help("lower `demonstration_length` or `demonstrations`, or raise the stage's `max_length`");
                }
                diags.push(diag);
            }
        }
    }
}

/// Reports what is wrong with data, at the key of their declaration that is to blame.
pub(in super::super) fn wrong(
    list: Vec<DataError>,
    declared: &Declared,
    split: &str,
    at: Span,
    diags: &mut Diags,
) {
    let values = &declared.filled.values;
    let whole = declared
        .arg
        .as_ref()
        .map_or(declared.name.span, |arg| arg.span);
    for error in list {
        let key = match error.about {
            About::Files => canonical(split),
            About::Text => match decl::form(values) {
                Form::Text => "text",
                Form::Completion => "prompt",
                Form::Messages => "messages",
                Form::Preference => "chosen",
                Form::Choices => "choices",
                Form::Words => "tokens",
                Form::Question => "answers",
                Form::Anchor => "anchor",
            },
            About::Label => "label",
            About::Labels => "labels",
            About::Split => "split",
            About::Name => "",
        };
        let span = if values.written(key) {
            values.span(key)
        } else {
            whole
        };
        let message = match error.file.as_str() {
            "" => error.message.clone(),
            _ => error.to_string(),
        };
        let mut diag = if error.about == About::Name {
            Diag::error(&BAD_DATA, at, message)
                .label("this split")
                .related(whole, "of these data")
        } else {
            Diag::error(&BAD_DATA, span, message)
                .label("these data")
                .related(at, "read here")
        };
        diag.help = error.help.map(|help| match help.strip_prefix(MEANT) {
            Some(split) if error.about == About::Name => {
                format!("{MEANT}{}.{split}", declared.name.value)
            }
            _ => help,
        });
        diags.push(diag);
    }
}
