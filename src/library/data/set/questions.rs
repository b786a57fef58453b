//! A question, its context and its answers, out of the cells of a row.

use super::super::{About, Cell, DataError, List, RowRec, column};
use super::cells::words;
use super::options::options;
use super::{Example, Reading};
use crate::library::data::form::Form;

impl Reading<'_> {
    /// The example of a row with options, or with a question.
    pub(super) fn of_parts(
        &self,
        row: RowRec,
        number: u32,
        task: Result<u32, DataError>,
    ) -> Result<Example, Vec<DataError>> {
        let columns = &self.spec.text;
        let wrong = |error: DataError| vec![error.at(row.line)];
        let task = task.map_err(wrong)?;
        let own = row.cells.into_iter().take(columns.len()).collect();
        let texts = match self.spec.form {
            Form::Choices => options(own, columns, self.spec.first_answer),
            _ => question(own, columns),
        };
        Ok(Example {
            texts: texts.map_err(wrong)?,
            spoken: false,
            label: None,
            task,
            row: number,
        })
    }
}

/// The question, the context, and of each answer its text and the byte of the context at which it begins.
fn question(cells: Vec<Cell>, columns: &[String]) -> Result<Vec<String>, DataError> {
    let mut own = cells.into_iter().zip(columns);
    let mut next = || own.next();
    let mut texts = Vec::new();
    for _ in 0..2 {
        if let Some((cell, column)) = next() {
            texts.push(words(cell, column)?);
        }
    }
    let (Some((answers, name)), Some((starts, place))) = (next(), next()) else {
        return Ok(texts);
    };
    let (answers, starts) = (list(answers, name)?, list(starts, place)?);
    if answers.len() != starts.len() {
        let message = format!(
            "`{name}` has {} answers, and `{place}` says of {} where they begin",
            answers.len(),
            starts.len()
        );
        return Err(wrong(message));
    }
    let context = texts.get(1).cloned().unwrap_or_default();
    for (answer, start) in answers.into_iter().zip(starts) {
        let text = answer.into_text();
        let text = text.ok_or_else(|| wrong(format!("`{name}` holds what is no text")))?;
        let begin = match &start {
            Cell::Int(n) => u64::try_from(*n).ok(),
            Cell::Float(x) if x.fract() == 0.0 && *x >= 0.0 => Some(*x as u64),
            Cell::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        let begin =
            begin.ok_or_else(|| wrong(format!("`{place}` holds what is no place in a text")))?;
        let at = byte(&context, begin).filter(|_| !text.is_empty());
        let stands = at
            .and_then(|at| context.get(at..))
            .is_some_and(|rest| rest.starts_with(&text));
        let Some(at) = at.filter(|_| stands) else {
            let there: String = context
                .chars()
                .skip(begin as usize)
                .take(text.chars().count())
                .collect();
            return Err(wrong(format!(
                "the answer {text:?} does not begin at character {begin} of the context, where {there:?} stands"
            )));
        };
        texts.push(text);
        texts.push(at.to_string());
    }
    Ok(texts)
}

fn wrong(message: String) -> DataError {
    DataError::new("", message).about(About::Text).kind("answers").help(
        "answers are parts of the context, and `answer_start` counts its characters from 0, as in {\"text\": [\"Paris\"], \"answer_start\": [12]}; a \
         question without an answer has empty lists",
    )
}

/// The byte of a text at which a character begins, or at which it ends.
fn byte(text: &str, character: u64) -> Option<usize> {
    let all = text.char_indices().map(|(at, _)| at);
    all.chain([text.len()])
        .nth(usize::try_from(character).ok()?)
}

/// The elements of a list, or those of one that a text holds in JSON.
fn list(cell: Cell, name: &str) -> Result<Vec<Cell>, DataError> {
    let list = match cell {
        Cell::List(list) => Some(list),
        Cell::Text(text) => match serde_json::from_str(text.trim()) {
            Ok(value @ serde_json::Value::Array(_)) => match column::cell(&value, name, "")? {
                Cell::List(list) => Some(list),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    match list {
        Some(List { length: 0, .. }) => Ok(Vec::new()),
        Some(List {
            cells: Some(cells), ..
        }) => Ok(cells),
        _ => Err(wrong(format!("`{name}` is no list"))),
    }
}
