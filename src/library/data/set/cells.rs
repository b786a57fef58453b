//! The texts of an example, out of the cells of its row.

use serde_json::Value as Json;

use super::super::{About, Cell, DataError};
use crate::library::chat;

pub(super) fn words(cell: Cell, column: &str) -> Result<String, DataError> {
    cell.into_text().ok_or_else(|| {
        DataError::new("", format!("the text `{column}` is missing"))
            .about(About::Text)
            .kind("missing text")
            .help("a row without a text is no example: give it one, an empty one (`\"\"`) if need be, or remove the row")
    })
}

/// A prompt, which may be empty, or its completion.
pub(super) fn answered(cell: Cell, column: &str, place: usize) -> Result<String, DataError> {
    match cell.into_text() {
        Some(text) => Ok(text),
        None if place == 0 => words(Cell::Missing, column),
        None => Err(DataError::new(
            "",
            format!("the completion `{column}` is missing"),
        )
        .about(About::Text)
        .kind("missing completion")
        .help("a row without a completion has nothing to learn: give it one, or remove the row")),
    }
}

/// A part of a conversation, as JSON.
pub(super) fn said(cell: Cell, column: &str) -> Result<String, DataError> {
    match cell {
        Cell::List(list) => conversation(Cell::List(list), column, 0),
        Cell::Missing => Err(DataError::new("", format!("the messages `{column}` are missing"))
            .about(About::Text)
            .kind("missing text")
            .help("give the row some, or remove it")),
        _ => Err(DataError::new(
            "",
            format!("`{column}` holds a text where another column of the row holds a list of messages"),
        )
        .about(About::Text)
        .kind("texts beside messages")
        .help("the columns of a row hold texts, or lists of messages all; where the answers begin with the prompt themselves, leave `prompt` away")),
    }
}

/// A conversation, or the tools of one, as JSON.
pub(super) fn conversation(cell: Cell, column: &str, place: usize) -> Result<String, DataError> {
    let value = match cell {
        Cell::Text(text) => Json::String(text),
        Cell::List(list) => match (list.nested, list.length) {
            (Some(value), _) => value,
            (None, 0) => Json::Array(Vec::new()),
            (None, _) => Json::Array(vec![Json::Bool(true)]),
        },
        Cell::Missing if place == 0 => {
            return Err(
                DataError::new("", format!("the conversation `{column}` is missing"))
                    .about(About::Text)
                    .kind("missing text")
                    .help("a row without messages is no example: give it some, or remove the row"),
            );
        }
        Cell::Missing => Json::Null,
        Cell::Int(_) | Cell::Float(_) | Cell::Bool(_) => Json::Bool(true),
    };
    let read = if place == 0 {
        chat::messages(value).map(Json::Array)
    } else {
        chat::tools(value)
    };
    let read = read.map_err(|why| {
        DataError::new("", format!("`{column}`: {why}"))
            .about(About::Text)
            .help("messages are objects such as {\"role\": \"user\", \"content\": \"…\"}; the roles are system, user, assistant and tool")
    })?;
    Ok(read.to_string())
}

/// The most tasks that rows can be of.
const TASKS: u32 = 1 << 16;

/// The number of a row's task.
pub(super) fn task_of(cell: Option<&Cell>, column: &str) -> Result<u32, DataError> {
    let number = match cell {
        Some(Cell::Int(n)) => u32::try_from(*n).ok(),
        Some(Cell::Float(x)) if x.fract() == 0.0 && (0.0..f64::from(TASKS)).contains(x) => {
            Some(*x as u32)
        }
        Some(Cell::Text(text)) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|&n| n < TASKS).ok_or_else(|| {
        DataError::new(
            "",
            format!("the task `{column}` is no whole number below {TASKS}"),
        )
        .kind("bad task")
        .help("number the tasks from 0 on")
    })
}
