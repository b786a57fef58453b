//! Methods of Python's strings and lists, as templates call them.

use std::borrow::Cow;

use minijinja::value::from_args;
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// What Python's `str.strip` takes away.
const fn is_space(c: char) -> bool {
    matches!(c, '\u{1c}'..='\u{1f}') || c.is_whitespace()
}

/// The filter `trim`.
pub(super) fn trim(text: Cow<'_, str>, chars: Option<Cow<'_, str>>) -> String {
    match chars {
        None => text.trim_matches(is_space).to_owned(),
        Some(chars) => text.trim_matches(|c| chars.contains(c)).to_owned(),
    }
}

/// A method of a value that Jinja does not know.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return named(
            unknown_method_callback(state, value, method, args),
            value,
            method,
        );
    };
    match (method, args) {
        ("strip", []) => Ok(text.trim_matches(is_space).into()),
        ("lstrip", []) => Ok(text.trim_start_matches(is_space).into()),
        ("rstrip", []) => Ok(text.trim_end_matches(is_space).into()),
        ("split", []) => {
            let words = text.split(is_space).filter(|word| !word.is_empty());
            Ok(words.map(Value::from).collect())
        }
        ("split" | "rsplit", [separator, ..]) if separator.as_str() == Some("") => {
            let message = "a text cannot be split at an empty separator";
            Err(Error::new(ErrorKind::InvalidOperation, message))
        }
        ("rsplit", _) => {
            let (separator, most): (&str, Option<i64>) = from_args(args)?;
            let most = most.and_then(|n| usize::try_from(n).ok());
            let mut parts: Vec<&str> = match most {
                Some(n) => text.rsplitn(n.saturating_add(1), separator).collect(),
                None => text.rsplit(separator).collect(),
            };
            parts.reverse();
            Ok(parts.into_iter().map(Value::from).collect())
        }
        ("removeprefix", _) => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(text.strip_prefix(prefix).unwrap_or(text).into())
        }
        ("removesuffix", _) => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(text.strip_suffix(suffix).unwrap_or(text).into())
        }
        _ => named(
            unknown_method_callback(state, value, method, args),
            value,
            method,
        ),
    }
}

/// An error that names the method.
fn named(result: Result<Value, Error>, value: &Value, method: &str) -> Result<Value, Error> {
    result.map_err(|error| match error.kind() {
        ErrorKind::UnknownMethod => Error::new(
            ErrorKind::UnknownMethod,
            format!("`.{method}(…)` of a {} is not built", value.kind()),
        ),
        _ => error,
    })
}
