//! JSON lines: one object a line.

use serde_json::{Map, Value};

use super::{Cell, DataError, Format, Input, RowRec, missing, text};

/// The format.
pub static JSONL: Format = Format {
    name: "jsonl",
    extensions: &["jsonl", "ndjson"],
    read,
    class_names: |_, _| None,
};

fn read(
    input: &Input<'_>,
    columns: &[String],
    each: &mut dyn FnMut(RowRec) -> bool,
) -> Result<(), DataError> {
    let file = input.file;
    let text = text(&input.bytes, file)?;
    if text.trim().is_empty() {
        return Err(DataError::empty(file));
    }
    for (row, line) in text.split('\n').zip(1u64..) {
        if row.trim().is_empty() {
            continue;
        }
        let object: Map<String, Value> = serde_json::from_str(row).map_err(|error| {
            DataError::new(file, format!("this is no JSON object: {}", cause(&error)))
                .at(line)
                .help("JSON lines hold one object a line, such as {\"text\": \"…\", \"label\": 1}")
        })?;
        let cell = |column: &String| {
            let value = object
                .get(column)
                .ok_or_else(|| missing(column, object.keys().map(String::as_str), file).at(line))?;
            cell(value).ok_or_else(|| {
                DataError::new(
                    file,
                    format!("`{column}` is a list or an object, where a text or a number belongs"),
                )
                .at(line)
            })
        };
        let cells = columns.iter().map(cell).collect::<Result<_, _>>()?;
        if !each(RowRec { line, cells }) {
            break;
        }
    }
    Ok(())
}

fn cell(value: &Value) -> Option<Cell> {
    Some(match value {
        Value::Null => Cell::Missing,
        Value::Bool(value) => Cell::Text(value.to_string()),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Cell::Int(whole),
            None => Cell::Float(number.as_f64()?),
        },
        Value::String(text) => Cell::Text(text.clone()),
        Value::Array(_) | Value::Object(_) => return None,
    })
}

/// The message without its line, which counts within the row.
fn cause(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((cause, _)) => format!("{cause} at column {}", error.column()),
        None => text,
    }
}
