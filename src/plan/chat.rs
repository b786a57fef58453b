//! Chat templates of a recipe's models: where they lie, and which of several is meant.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::bind::{Binder, BoundModel, Rows, Want};
use super::error::{BAD_DATA, BAD_PROMPT, BAD_TEMPLATE, UNFIT_MODEL};
use super::model_files::Files;
use super::{Plan, Stage};
use crate::base::world::Location;
use crate::base::{Diag, Diags, Span};
use crate::library::chat::{ChatTemplate, Date, FILE, FILE_FOR_TOOLS, Kept, TemplateError};
use crate::library::data::form::Form;
use crate::library::decl;
use crate::library::error::IDLE_KEY;
use crate::library::schema::Values;
use crate::library::task::TARGET_LENGTH;
use crate::library::tokenizer::Tokenizer;
use crate::resolve::Declared;

/// A model's chat template, or why it cannot be read; that is no error before a conversation is to be rendered.
pub type Bound = Result<Arc<ChatTemplate>, TemplateError>;

/// Templates as files give them: the usual one, and the one for conversations with tools.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub usual: Option<String>,
    pub with_tools: Option<String>,
}

impl Binder<'_> {
    /// The model's chat template.
    pub(super) fn chat(
        &mut self,
        declared: &Declared,
        place: &Location,
        tokenizer: Option<&Tokenizer>,
        diags: &mut Diags,
    ) -> Option<Bound> {
        let values = &declared.filled.values;
        let own = match decl::CHAT_TEMPLATE.get(values) {
            None => None,
            Some(file) => match self.world.read(&declared.base.join(file)) {
                Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
                Err(why) => {
                    let message = format!("the chat template `{file}` cannot be read: {why}");
                    let at = decl::CHAT_TEMPLATE.span(values);
                    diags.push(
                        Diag::error(&BAD_TEMPLATE, at, message)
                            .help("the path is relative to the recipe"),
                    );
                    return None;
                }
            },
        };
        let folder = decl::TOKENIZER.get(values);
        let folder = folder.map(|dir| Location::Local(declared.base.join(dir)));
        let place = folder.as_ref().unwrap_or(place);
        let files = Files {
            world: self.world,
            place,
            names: self.listing(place),
            gguf: self.own_gguf(place),
        };
        let beside = || Sources::beside(&|name| files.optional(name));
        bound(declared, tokenizer, own, beside, diags)
    }
}

impl Sources {
    /// Those of a folder: `chat_template.jinja` with the one for tools, else what `tokenizer_config.json` holds, a text or a list of named
    /// texts.
    ///
    /// # Errors
    /// A value that is no template.
    pub(super) fn beside(get: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Self, TemplateError> {
        let refuse = |message: String| TemplateError {
            line: None,
            message,
            raised: false,
        };
        let file = |name: &str| -> Result<Option<String>, TemplateError> {
            let text = get(name).map(String::from_utf8).transpose();
            text.map_err(|_| refuse(format!("{name} is no UTF-8 text")))
        };
        if let Some(text) = file(FILE)? {
            return Ok(Self {
                usual: Some(text),
                with_tools: file(FILE_FOR_TOOLS)?,
            });
        }
        let config = get("tokenizer_config.json");
        let config =
            config.and_then(|bytes| serde_json::from_slice::<Map<String, Json>>(&bytes).ok());
        match config.and_then(|mut keys| keys.remove("chat_template")) {
            None | Some(Json::Null) => Ok(Self::default()),
            Some(Json::String(text)) => Ok(Self {
                usual: Some(text),
                with_tools: None,
            }),
            Some(Json::Array(list)) => {
                let text = |entry: &Json| entry.get("template")?.as_str().map(str::to_owned);
                let named = |name: &str| {
                    let is = |e: &&Json| e.get("name").and_then(Json::as_str) == Some(name);
                    list.iter().find(is).and_then(text)
                };
                let usual = named("default").or_else(|| match list.as_slice() {
                    [only] => text(only),
                    _ => None,
                });
                if usual.is_none() {
                    return Err(refuse(
                        "tokenizer_config.json has several chat templates, and none is named `default`".to_owned(),
                    ));
                }
                Ok(Self {
                    usual,
                    with_tools: named("tool_use"),
                })
            }
            Some(_) => Err(refuse(
                "`chat_template` in tokenizer_config.json is neither a text nor a list of named texts".to_owned(),
            )),
        }
    }
}

/// The template that lies in a folder of files, with the variables of its tokenizer; in an artifact also with the date and
/// the variables that its training gave it.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn in_folder(
    get: &dyn Fn(&str) -> Option<Vec<u8>>,
    tokenizer: &Tokenizer,
) -> Result<Option<ChatTemplate>, TemplateError> {
    let sources = Sources::beside(get)?;
    let Some(usual) = sources.usual else {
        return Ok(None);
    };
    let kept = get("peftc.json").and_then(|bytes| serde_json::from_slice::<Json>(&bytes).ok());
    let kept = kept.and_then(|all| serde_json::from_value(all.get("chat")?.clone()).ok());
    let kept: Kept = kept.unwrap_or_default();
    let today = kept.today.as_deref().and_then(Date::parse);
    let mut given = tokenizer.named_tokens();
    given.extend(kept.variables);
    let parse = |text: &str| ChatTemplate::parse(text, given.clone(), today);
    let with_tools = sources.with_tools.as_deref().map(parse).transpose()?;
    Ok(Some(parse(&usual)?.with_tools(with_tools)))
}

/// The template of a model that is declared so: of the file that the recipe names, else of what lies with the tokenizer.
/// `None` where there is none; a diagnostic where the recipe is to blame.
pub(super) fn bound(
    declared: &Declared,
    tokenizer: Option<&Tokenizer>,
    own: Option<String>,
    beside: impl FnOnce() -> Result<Sources, TemplateError>,
    diags: &mut Diags,
) -> Option<Bound> {
    let values = &declared.filled.values;
    let today = match decl::TODAY.get(values) {
        None => None,
        Some(text) => match Date::parse(text) {
            Some(date) => Some(date),
            None => {
                let message = format!("`{text}` is no date");
                diags.push(
                    Diag::error(&BAD_TEMPLATE, decl::TODAY.span(values), message)
                        .label("no such day")
                        .help("write year, month and day: `today = \"2026-01-31\"`"),
                );
                None
            }
        },
    };
    let from_recipe = own.is_some();
    let sources = match own {
        Some(text) => Ok(Sources {
            usual: Some(text),
            with_tools: None,
        }),
        None => beside(),
    };
    let specials = tokenizer.map(Tokenizer::named_tokens).unwrap_or_default();
    let parse = |text: &str| ChatTemplate::parse(text, specials.clone(), today);
    let made = sources.and_then(|sources| {
        let Some(usual) = sources.usual else {
            return Ok(None);
        };
        let with_tools = sources.with_tools.as_deref().map(parse).transpose()?;
        Ok(Some(Arc::new(parse(&usual)?.with_tools(with_tools))))
    });
    if let Err(why) = &made
        && from_recipe
    {
        let at = decl::CHAT_TEMPLATE.span(values);
        diags.push(Diag::error(&BAD_TEMPLATE, at, why.to_string()).label("this template"));
    }
    let dated = |template: &Arc<ChatTemplate>| template.source().contains("strftime_now");
    let idle = today.is_some() && made.as_ref().is_ok_and(|t| !t.as_ref().is_some_and(dated));
    if idle {
        let message = "`today` has no effect: the model has no chat template that writes a date";
        diags.push(
            Diag::error(&IDLE_KEY, decl::TODAY.span(values), message)
                .label("changes nothing")
                .help("remove `today`"),
        );
    }
    made.transpose()
}

/// The variables of chat templates that a data set gives.
pub(super) fn variables(values: &Values) -> Option<Map<String, Json>> {
    let thinking = decl::ENABLE_THINKING.get(values)?;
    Some(
        [(THINKING.to_owned(), Json::Bool(thinking))]
            .into_iter()
            .collect(),
    )
}

/// The variable that some templates read, to leave reasoning out.
const THINKING: &str = "enable_thinking";

/// Whether a model has positions for all tokens of a target, as many as a recipe says; a diagnostic otherwise. What no recipe
/// says is as much as the model has.
fn has_places(
    model: &BoundModel,
    (most, longest): (u64, u64),
    at: Span,
    diags: &mut Diags,
) -> bool {
    if most <= longest || most == TARGET_LENGTH {
        return true;
    }
    let message = format!(
        "`target_length` is {most}, and `{}` has positions for {longest} tokens of a target",
        model.name
    );
    let diag = Diag::error(&UNFIT_MODEL, at, message).label("in this stage");
    diags.push(diag.help(format!("write `target_length = {longest}`, or less")));
    false
}

/// How the tokens of a data set's rows are found that a task learns; `None` after a diagnostic.
pub(super) fn rows<'a>(
    declared: &Declared,
    model: &'a BoundModel,
    (want, at): (Want<'_>, Span),
    variables: Option<&'a Map<String, Json>>,
    diags: &mut Diags,
) -> Option<Rows<'a>> {
    let values = &declared.filled.values;
    let form = decl::form(values);
    let learn = match want.task.learns(form) {
        Ok(learn) => learn,
        Err([message, help]) => {
            let code = if form == Form::Text {
                &IDLE_KEY
            } else {
                &BAD_DATA
            };
            diags.push(
                Diag::error(code, at, message)
                    .label("in this stage")
                    .related(declared.name.span, "these data")
                    .help(help),
            );
            return None;
        }
    };
    if form != Form::Text
        && let Some((_, at)) = want.template
    {
        let message = format!(
            "a prompt stands around texts, and `{}` has {}",
            declared.name.value,
            form.what()
        );
        diags.push(Diag::error(&BAD_PROMPT, at, message).help("remove the stage's `prompt`"));
        return None;
    }
    if want.task.texts_apart()
        && let Some((_, at)) = want.template
    {
        let message = format!(
            "a prompt stands around the texts of a row together, and `{}` reads each by itself",
            want.task.name()
        );
        diags.push(Diag::error(&BAD_PROMPT, at, message).help("remove the stage's `prompt`"));
        return None;
    }
    let mut sides = None;
    if let Some(most) = want.task.target_length() {
        let parsed = crate::library::model::parse(&model.config).ok();
        sides = parsed.and_then(|parsed| Some(parsed.seq2seq()?.sides()));
        let longest = sides.map_or(most, |sides| sides.longest);
        if !has_places(model, (most, longest), at, diags) {
            return None;
        }
    }
    let plain = Rows {
        form,
        learn,
        template: None,
        variables: None,
        sides,
    };
    if form != Form::Messages {
        return Some(plain);
    }
    let template = template(declared, model, at, diags)?;
    if variables.is_some() && !template.reads(THINKING) {
        let message = format!(
            "`{THINKING}` has no effect: the chat template of `{}` does not read it",
            model.name
        );
        diags.push(
            Diag::error(&IDLE_KEY, decl::ENABLE_THINKING.span(values), message)
                .label("changes nothing")
                .help(format!("remove `{THINKING}`")),
        );
        return None;
    }
    Some(Rows {
        template: Some(template),
        variables,
        ..plain
    })
}

/// The template that makes texts of a data set's messages; `None` after a diagnostic.
pub(super) fn template<'a>(
    declared: &Declared,
    model: &'a BoundModel,
    at: Span,
    diags: &mut Diags,
) -> Option<&'a ChatTemplate> {
    let place = messages_at(&declared.filled.values);
    let refuse = |message: String, help: &str| {
        Diag::error(&BAD_TEMPLATE, place, message)
            .label("these conversations")
            .related(at, "read here")
            .help(help)
    };
    match &model.chat {
        Some(Ok(template)) => Some(template.as_ref()),
        Some(Err(why)) => {
            let message = format!(
                "the chat template of `{}` cannot be read: {why}",
                model.name
            );
            diags.push(refuse(
                message,
                "name another in the model: `chat_template = \"FILE\"`",
            ));
            None
        }
        None => {
            let message = format!(
                "`{}` has no chat template, which makes a text of a conversation",
                model.name
            );
            diags.push(refuse(
                message,
                "name one in the model: `chat_template = \"FILE\"`",
            ));
            None
        }
    }
}

/// Where the column is named that holds messages.
pub(super) fn messages_at(values: &Values) -> Span {
    match decl::form(values) {
        Form::Preference => decl::CHOSEN.span(values),
        Form::Choices => decl::CHOICES.span(values),
        Form::Completion => decl::COMPLETION.span(values),
        Form::Words => decl::TOKENS.span(values),
        Form::Question => decl::QUESTION.span(values),
        Form::Anchor => decl::ANCHOR.span(values),
        Form::Messages | Form::Text => decl::MESSAGES.span(values),
    }
}

impl Plan {
    /// Columns of the text that a stage, or the one it comes from, was trained on, and what its chat template was given.
    #[must_use]
    pub fn trained_on(&self, stage: &Stage) -> (Vec<String>, Option<Kept>) {
        let mut at = Some(stage);
        while let Some(current) = at {
            if let Some(split) = current.splits.first().and_then(|s| s.as_ref()) {
                let variables = split.variables.clone().unwrap_or_default();
                let prompts = match (split.form, split.text.as_slice()) {
                    // Answers are no prompts.
                    (Form::Preference, [prompt, _, _]) | (Form::Choices, [prompt, ..]) => {
                        vec![prompt.clone()]
                    }
                    (Form::Question, all) => all.iter().take(2).cloned().collect(),
                    // Each text is read alone.
                    (_, all) if stage.start.task.texts_apart() => {
                        all.iter().take(1).cloned().collect()
                    }
                    (Form::Preference, _) => Vec::new(),
                    (_, all) => all.to_vec(),
                };
                return (prompts, kept(stage, variables));
            }
            at = current.parent.as_deref().and_then(|p| self.stage(p));
        }
        (Vec::new(), kept(stage, Map::new()))
    }
}

/// What a stage's chat template was given beside the messages, if it was given something.
fn kept(stage: &Stage, variables: Map<String, Json>) -> Option<Kept> {
    let template = stage.start.model.chat.as_ref()?.as_ref().ok()?;
    let today = template.today().map(|date| date.to_string());
    let given = today.is_some() || !variables.is_empty();
    given.then_some(Kept { today, variables })
}
