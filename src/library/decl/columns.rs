//! The columns of a data set: which are declared, and what a row of it is.

use super::super::data::form::Form;
use super::super::schema::{Given, Maybe, Values, kind};

pub(crate) const TEXT: Maybe<[String]> = Maybe::new(
    "text",
    kind::COLUMNS,
    "column with the text, or two columns for pairs; a value within a column by its path: `data.text`, `answers[0]`",
);
pub(crate) const PROMPT_COLUMN: Maybe<str> = Maybe::new(
    "prompt",
    kind::COLUMN,
    "column with what stands before the `completion`; together they are one text, of which `causal_lm` learns the completion. Or with \
          what stands before `chosen` and `rejected`. Both may hold lists of messages, which go on with each other",
);
pub(crate) const COMPLETION: Maybe<str> = Maybe::new(
    "completion",
    kind::COLUMN,
    "column with what completes the `prompt`",
);
pub(crate) const CHOSEN: Maybe<str> = Maybe::new(
    "chosen",
    kind::COLUMN,
    "column with the answer that is preferred, for `dpo`: a text, or a list of messages. Without `prompt`, what `chosen` and `rejected` \
          begin with alike is the prompt",
);
pub(crate) const REJECTED: Maybe<str> = Maybe::new(
    "rejected",
    kind::COLUMN,
    "column with the answer that `chosen` is preferred to",
);
pub(crate) const CHOICES: Maybe<[String]> = Maybe::new(
    "choices",
    kind::COLUMNS,
    "column with a list of options to go on with `prompt`, for `choose` and `multiple_choice`; or a column for each option: `[first, second]`",
);
pub(crate) const ANSWER: Maybe<str> = Maybe::new(
    "answer",
    kind::COLUMN,
    "column with the right one of `choices`: its place, from 0 or as `first_answer` says; its letter, `A` for the first; or its text",
);
pub(crate) const FIRST_ANSWER: Given<u64> = Given::<u64>::tacit(
    "first_answer",
    kind::int(0, 1),
    (0, "0"),
    "what number the first of `choices` has where `answer` is a number: 1 where the data count from 1",
);
pub(crate) const TOKENS: Maybe<str> = Maybe::new(
    "tokens",
    kind::COLUMN,
    "column with a list of words, each of which has a label in the list of `label`, for `token_classify`. Of CoNLL files the columns are \
          \"0\", \"1\", …; `tokens` is the first, too, and `tags` the last",
);
pub(crate) const QUESTION: Maybe<str> = Maybe::new(
    "question",
    kind::COLUMN,
    "column with a question that is answered by a part of the `context`, for `extract`",
);
pub(crate) const CONTEXT: Maybe<str> = Maybe::new(
    "context",
    kind::COLUMN,
    "column with the text in which the answer to the `question` stands",
);
pub(crate) const ANSWERS: Maybe<str> = Maybe::new(
    "answers",
    kind::COLUMN,
    "column with the answers to the `question` as SQuAD has them: an object with the lists `text` and `answer_start`, which counts characters \
          of the `context` from 0. The first is learned, and each is right; empty lists are a question without an answer",
);
pub(crate) const ANCHOR: Maybe<str> = Maybe::new(
    "anchor",
    kind::COLUMN,
    "column with a text to which the `positive` of its row belongs, for `embed`: a question with its answer, a title with its text, or two texts \
          that say the same",
);
pub(crate) const POSITIVE: Maybe<str> = Maybe::new(
    "positive",
    kind::COLUMN,
    "column with the text that belongs to the `anchor`",
);
pub(crate) const NEGATIVE: Maybe<[String]> = Maybe::new(
    "negative",
    kind::COLUMNS,
    "column with a text that does not belong to the `anchor` though it is like it, or several columns: `[first, second]`",
);
pub(crate) const MESSAGES: Maybe<str> = Maybe::new(
    "messages",
    kind::COLUMN,
    "column with a conversation: a list of messages with `role` and `content`, or with `from` and `value`. The model's chat \
          template makes one text of it, of which `causal_lm` learns what assistants say",
);
pub(crate) const TOOLS: Maybe<str> = Maybe::new(
    "tools",
    kind::COLUMN,
    "column with the descriptions of functions that the assistant of `messages` may call",
);
pub(crate) const ENABLE_THINKING: Maybe<bool> = Maybe::new(
    "enable_thinking",
    kind::BOOL,
    "the variable of that name, for chat templates that read it",
);

/// What a row of a data set is.
#[must_use]
pub fn form(values: &Values) -> Form {
    if MESSAGES.is_written(values) {
        Form::Messages
    } else if TOKENS.is_written(values) {
        Form::Words
    } else if QUESTION.is_written(values)
        || CONTEXT.is_written(values)
        || ANSWERS.is_written(values)
    {
        Form::Question
    } else if ANCHOR.is_written(values)
        || POSITIVE.is_written(values)
        || NEGATIVE.is_written(values)
    {
        Form::Anchor
    } else if CHOICES.is_written(values) || ANSWER.is_written(values) {
        Form::Choices
    } else if CHOSEN.is_written(values) || REJECTED.is_written(values) {
        Form::Preference
    } else if PROMPT_COLUMN.is_written(values) {
        Form::Completion
    } else {
        Form::Text
    }
}

/// The columns that make a row's texts, in order.
#[must_use]
pub fn columns(values: &Values) -> Vec<String> {
    let one = |key: &Maybe<str>| key.get(values).map(str::to_owned);
    match form(values) {
        Form::Text => TEXT.get(values).unwrap_or_default().to_vec(),
        Form::Completion => one(&PROMPT_COLUMN)
            .into_iter()
            .chain(one(&COMPLETION))
            .collect(),
        Form::Words => one(&TOKENS).into_iter().collect(),
        Form::Question => {
            let within = |part: &str| one(&ANSWERS).map(|own| format!("{own}.{part}"));
            let answers = [within("text"), within("answer_start")];
            let asked = [one(&QUESTION), one(&CONTEXT)].into_iter();
            asked.chain(answers).flatten().collect()
        }
        Form::Messages => one(&MESSAGES).into_iter().chain(one(&TOOLS)).collect(),
        Form::Choices => one(&PROMPT_COLUMN)
            .into_iter()
            .chain(CHOICES.get(values).unwrap_or_default().iter().cloned())
            .chain(one(&ANSWER))
            .collect(),
        Form::Anchor => [&ANCHOR, &POSITIVE]
            .into_iter()
            .filter_map(one)
            .chain(NEGATIVE.get(values).unwrap_or_default().iter().cloned())
            .collect(),
        Form::Preference => [&PROMPT_COLUMN, &CHOSEN, &REJECTED]
            .into_iter()
            .filter_map(one)
            .collect(),
    }
}
