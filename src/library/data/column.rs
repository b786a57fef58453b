//! Columns by name, or by the path to a value within one: `data.text`, `annotations[0].label`.

use serde_json::Value;

use super::{Cell, DataError, List, OF_COLUMN, missing};
use crate::base::suggest;

/// A step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into the field of that name.
    Field(String),
    /// To the element of a list, from 0.
    Element(usize),
}

/// The steps of `data.text`, `annotations[0].label` or `annotations.0.label`.
#[must_use]
pub fn steps(column: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in column.split('.') {
        let (name, mut rest) = match part.find('[') {
            Some(at) if part.ends_with(']') => part.split_at(at),
            _ => (part, ""),
        };
        let mut elements = Vec::new();
        while let Some((index, more)) = rest
            .strip_prefix('[')
            .and_then(|inner| inner.split_once(']'))
        {
            let Ok(index) = index.parse() else { break };
            elements.push(Step::Element(index));
            rest = more;
        }
        if rest.is_empty() {
            if !name.is_empty() || elements.is_empty() {
                steps.push(Step::Field(name.to_owned()));
            }
            steps.append(&mut elements);
        } else {
            steps.push(Step::Field(part.to_owned()));
        }
    }
    steps
}

/// The value of a column in an object: that of the key itself, else the one at the end of the path.
pub(super) fn find<'a>(
    object: &'a serde_json::Map<String, Value>,
    column: &str,
    file: &str,
) -> Result<&'a Value, DataError> {
    if let Some(value) = object.get(column) {
        return Ok(value);
    }
    let absent = |there: &serde_json::Map<String, Value>, name: &str| {
        let error = missing(name, there.keys().map(String::as_str), file);
        match within(there, name, 0) {
            Some(path) => error.help(format!("did you mean `{path}`?")),
            None => error,
        }
    };
    let steps = steps(column);
    let [Step::Field(first), rest @ ..] = steps.as_slice() else {
        return Err(absent(object, column));
    };
    let Some(mut value) = object.get(first).filter(|_| !rest.is_empty()) else {
        return Err(absent(object, column));
    };
    let mut done = first.clone();
    for step in rest {
        let next = match (step, value) {
            (Step::Field(name), Value::Object(inner)) => inner.get(name),
            (Step::Element(at), Value::Array(list)) => list.get(*at),
            (Step::Field(name), Value::Array(list)) => {
                name.parse().ok().and_then(|at: usize| list.get(at))
            }
            (_, Value::Null) => return Ok(value),
            _ => None,
        };
        let Some(next) = next else {
            let wrong = DataError::new(file, format!("there is no value at `{column}`"));
            let wrong = wrong.kind(OF_COLUMN);
            return Err(match (step, value) {
                (Step::Field(name), Value::Object(inner)) => {
                    let paths: Vec<String> =
                        inner.keys().map(|key| format!("{done}.{key}")).collect();
                    let near = suggest::nearest(name, inner.keys().map(String::as_str));
                    let near = near.first().map(|key| format!("{done}.{key}"));
                    wrong.help(match (near, paths.as_slice()) {
                        (Some(near), _) => format!("did you mean `{near}`?"),
                        (None, []) => format!("there is nothing in `{done}`"),
                        (None, paths) => {
                            let shown: Vec<&str> =
                                paths.iter().take(12).map(String::as_str).collect();
                            format!("valid here: `{}`", shown.join("`, `"))
                        }
                    })
                }
                (_, Value::Array(list)) => wrong.help(format!(
                    "the list has {} elements; they are counted from 0, as in `{first}[0]`",
                    list.len()
                )),
                _ => wrong.help("the path leads into a text or a number"),
            });
        };
        match step {
            Step::Field(name) => done = format!("{done}.{name}"),
            Step::Element(at) => done = format!("{done}[{at}]"),
        }
        value = next;
    }
    Ok(value)
}

/// The path to the first value of that name inside of others.
fn within(object: &serde_json::Map<String, Value>, name: &str, depth: usize) -> Option<String> {
    const DEEPEST: usize = 8;
    let inside = |value: &Value| match value {
        _ if depth >= DEEPEST => None,
        Value::Object(inner) if inner.contains_key(name) => Some(format!(".{name}")),
        Value::Object(inner) => within(inner, name, depth + 1).map(|path| format!(".{path}")),
        Value::Array(list) => match list.first()? {
            Value::Object(inner) if inner.contains_key(name) => Some(format!("[0].{name}")),
            Value::Object(inner) => {
                within(inner, name, depth + 1).map(|path| format!("[0].{path}"))
            }
            _ => None,
        },
        _ => None,
    };
    object
        .iter()
        .find_map(|(key, value)| Some(format!("{key}{}", inside(value)?)))
}

/// The cell a JSON value is.
pub(super) fn cell(value: &Value, column: &str, file: &str) -> Result<Cell, DataError> {
    Ok(match value {
        Value::Null => Cell::Missing,
        Value::Bool(value) => Cell::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Cell::Int(whole),
            // No float holds each of these.
            _ if number.is_u64() => Cell::Text(number.to_string()),
            (None, Some(number)) => Cell::Float(number),
            (None, None) => Cell::Text(number.to_string()),
        },
        Value::String(text) => Cell::Text(text.clone()),
        Value::Array(list) => {
            let cells = list.iter().map(|value| match value {
                Value::Array(_) | Value::Object(_) => None,
                plain => cell(plain, column, file).ok(),
            });
            let cells: Option<Vec<Cell>> = cells.collect();
            Cell::List(List {
                length: list.len(),
                nested: cells.is_none().then(|| value.clone()),
                cells,
            })
        }
        Value::Object(inner) => {
            let first = inner.keys().next().map_or("field", String::as_str);
            return Err(nested(column, file).help(format!(
                "it is an object; name a value in it, as in \"{column}.{first}\""
            )));
        }
    })
}

/// The error of a list where one value belongs.
pub(super) fn listed(list: &List, column: &str, file: &str) -> DataError {
    nested(column, file).help(format!(
        "it is a list of {}; name an element of it, as in \"{column}[0]\"",
        list.length
    ))
}

fn nested(column: &str, file: &str) -> DataError {
    DataError::new(
        file,
        format!("`{column}` is a list or an object, where a text or a number belongs"),
    )
    .kind(OF_COLUMN)
}
