//! Columns of a data set: a row is a text, a prompt with its completion or with two answers, or a conversation.

use super::error::{CONFLICT, MISSING_KEY};
use crate::base::{Diag, Diags};
use crate::library::decl::{
    ANCHOR, ANSWER, ANSWERS, CHOICES, CHOSEN, COMPLETION, CONTEXT, ENABLE_THINKING, FIRST_ANSWER,
    MESSAGES, NEGATIVE, POSITIVE, PROMPT_COLUMN, QUESTION, REJECTED, TEXT, TOKENS, TOOLS,
};
use crate::library::error::IDLE_KEY;
use crate::library::schema::Values;
use crate::syntax::ast::Ctor;

/// The keys that name columns.
const NAMES: [&str; 15] = [
    "text",
    "prompt",
    "completion",
    "messages",
    "chosen",
    "rejected",
    "choices",
    "answer",
    "tokens",
    "question",
    "context",
    "answers",
    "anchor",
    "positive",
    "negative",
];

/// Complains about columns of a data set that do not go together.
pub(super) fn check(values: &Values, ctor: &Ctor, diags: &mut Diags) {
    let entry = |key: &str| ctor.entries.iter().any(|e| e.key.value == key);
    // A prompt stands before a completion, before two answers, or before options.
    let chooses = CHOICES.is_written(values) || ANSWER.is_written(values);
    let asks =
        QUESTION.is_written(values) || CONTEXT.is_written(values) || ANSWERS.is_written(values);
    let compares = CHOSEN.is_written(values) || REJECTED.is_written(values);
    let belongs =
        ANCHOR.is_written(values) || POSITIVE.is_written(values) || NEGATIVE.is_written(values);
    let (name, span) = (&ctor.name.value, ctor.name.span);
    let written = [
        ("text", TEXT.is_written(values)),
        (
            "prompt",
            (PROMPT_COLUMN.is_written(values) && !compares && !chooses)
                || COMPLETION.is_written(values),
        ),
        ("chosen", compares),
        ("choices", chooses),
        ("messages", MESSAGES.is_written(values)),
        ("tokens", TOKENS.is_written(values)),
        ("question", asks),
        ("anchor", belongs),
    ];
    let mut forms = written
        .into_iter()
        .filter(|(_, is)| *is)
        .map(|(key, _)| key);
    let (first, second) = (forms.next(), forms.next());
    match (first, second) {
        // One that is written wrongly is said elsewhere.
        (None, _) if NAMES.into_iter().any(entry) => {}
        (None, _) => diags.push(
            Diag::error(&MISSING_KEY, span, format!("`{name}` needs the key `text`"))
                .label("`text` is missing")
                .help(format!(
                    "text: {}; a language model also reads `prompt = COLUMN, completion = COLUMN` or `messages = COLUMN`",
                    TEXT.key().doc
                )),
        ),
        (Some(one), Some(other)) => {
            let at = |key| match key {
                "prompt" if compares || chooses || !PROMPT_COLUMN.is_written(values) => {
                    values.span("completion")
                }
                "choices" if !CHOICES.is_written(values) => values.span("answer"),
                "chosen" if !CHOSEN.is_written(values) => values.span("rejected"),
                "question" if !QUESTION.is_written(values) && CONTEXT.is_written(values) => values.span("context"),
                "question" if !QUESTION.is_written(values) => values.span("answers"),
                "anchor" if !ANCHOR.is_written(values) && POSITIVE.is_written(values) => values.span("positive"),
                "anchor" if !ANCHOR.is_written(values) => values.span("negative"),
                key => values.span(key),
            };
            diags.push(
                Diag::error(
                    &CONFLICT,
                    at(other),
                    format!("`{one}` and `{other}` are both written, and a row is one of them"),
                )
                .related(at(one), "the other")
                .help("keep one of them"),
            );
        }
        (Some(one @ ("prompt" | "chosen" | "choices" | "question" | "anchor")), None) => {
            incomplete(values, one, &entry, diags);
        }
        _ => {}
    }
    let (chats, chooses) = (first == Some("messages"), first == Some("choices"));
    idle(values, (chats, chooses), diags);
}

/// Complains about a form of rows of which a column is missing.
fn incomplete(values: &Values, form: &str, entry: &dyn Fn(&str) -> bool, diags: &mut Diags) {
    let prompts = PROMPT_COLUMN.is_written(values);
    let pairs: &[(&str, bool, &str)] = match form {
        "prompt" => &[
            ("completion", COMPLETION.is_written(values), "prompt"),
            ("prompt", prompts, "completion"),
        ],
        "choices" => &[
            ("answer", ANSWER.is_written(values), "choices"),
            ("choices", CHOICES.is_written(values), "answer"),
            ("prompt", prompts, "choices"),
        ],
        "question" if QUESTION.is_written(values) => &[
            ("context", CONTEXT.is_written(values), "question"),
            ("answers", ANSWERS.is_written(values), "question"),
        ],
        "question" if CONTEXT.is_written(values) => &[("question", false, "context")],
        "question" => &[("question", false, "answers")],
        "anchor" if ANCHOR.is_written(values) => {
            &[("positive", POSITIVE.is_written(values), "anchor")]
        }
        "anchor" if POSITIVE.is_written(values) => &[("anchor", false, "positive")],
        "anchor" => &[("anchor", false, "negative")],
        _ => &[
            ("rejected", REJECTED.is_written(values), "chosen"),
            ("chosen", CHOSEN.is_written(values), "rejected"),
        ],
    };
    for &(key, is, other) in pairs {
        if !is && !entry(key) {
            diags.push(
                Diag::error(
                    &MISSING_KEY,
                    values.span(other),
                    format!("`{other}` is written without `{key}`"),
                )
                .label(format!("`{key}` is missing"))
                .help(format!("write `{key} = COLUMN`")),
            );
        }
    }
}

/// Complains about keys of conversations, or of options, where rows are none.
fn idle(values: &Values, (chats, chooses): (bool, bool), diags: &mut Diags) {
    let idle = [
        ("tools", TOOLS.is_written(values) && !chats, "messages"),
        (
            "enable_thinking",
            ENABLE_THINKING.is_written(values) && !chats,
            "messages",
        ),
        (
            "first_answer",
            FIRST_ANSWER.is_written(values) && !chooses,
            "choices",
        ),
    ];
    for (key, _, without) in idle.into_iter().filter(|(_, is, _)| *is) {
        diags.push(
            Diag::error(
                &IDLE_KEY,
                values.span(key),
                format!("`{key}` has no effect without `{without}`"),
            )
            .label("changes nothing")
            .help(format!("write `{without} = COLUMN`, or remove `{key}`")),
        );
    }
}
