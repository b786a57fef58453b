//! The filter `tojson`: JSON with the bytes of Python's `json.dumps`.

use std::fmt::Write;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::environment::charge;

/// How deep lists and mappings may be within each other.
const DEPTH: usize = 100;

/// How JSON is written.
struct Form {
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    sorted: bool,
}

/// `value|tojson(ensure_ascii=…, indent=…, separators=…, sort_keys=…)`.
pub(super) fn filter(
    state: &State<'_, '_>,
    value: &Value,
    ascii: Option<bool>,
    options: Kwargs,
) -> Result<Value, Error> {
    let ascii = match ascii {
        Some(ascii) => ascii,
        None => options
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false),
    };
    let indent: Option<Value> = options.get("indent")?;
    let indent = match indent.filter(|n| !n.is_none()) {
        None => None,
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
        Some(number) => {
            let spaces = i64::try_from(number)?.clamp(0, 64);
            Some(" ".repeat(usize::try_from(spaces).unwrap_or(0)))
        }
    };
    let separators: Option<Value> = options.get("separators")?;
    let (item, key) = match separators.filter(|s| !s.is_none()) {
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some(pair) => {
            let mut texts = Vec::new();
            for part in pair.try_iter()? {
                texts.push(part.as_str().map(str::to_owned));
            }
            match <[_; 2]>::try_from(texts) {
                Ok([Some(item), Some(key)]) => (item, key),
                _ => return Err(refused("`separators` takes two texts")),
            }
        }
    };
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let form = Form {
        indent,
        item,
        key,
        ascii,
        sorted,
    };
    let mut text = String::new();
    form.write(state, value, &mut text, 0)?;
    Ok(Value::from_safe_string(text))
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

impl Form {
    fn write(
        &self,
        state: &State<'_, '_>,
        value: &Value,
        out: &mut String,
        depth: usize,
    ) -> Result<(), Error> {
        if depth > DEPTH {
            return Err(refused(format!(
                "`tojson` of values more than {DEPTH} deep"
            )));
        }
        let before = out.len();
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::String => self.text(value.as_str().unwrap_or_default(), out),
            ValueKind::Number => number(value, out)?,
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|item| (None, item)).collect();
                self.items(state, ['[', ']'], items, out, depth)?;
            }
            ValueKind::Map => {
                let mut pairs = Vec::new();
                for name in value.try_iter()? {
                    let item = value.get_item(&name)?;
                    pairs.push((Some(key(&name)?), item));
                }
                if self.sorted {
                    pairs.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.items(state, ['{', '}'], pairs, out, depth)?;
            }
            other => return Err(refused(format!("`tojson` of an {other} value"))),
        }
        charge(state, out.len() - before)
    }

    #[expect(clippy::too_many_arguments, reason = "a list on its way into a text")]
    fn items(
        &self,
        state: &State<'_, '_>,
        [open, close]: [char; 2],
        items: Vec<(Option<String>, Value)>,
        out: &mut String,
        depth: usize,
    ) -> Result<(), Error> {
        out.push(open);
        let line = |out: &mut String, depth: usize| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                (0..depth).for_each(|_| out.push_str(indent));
            }
        };
        let empty = items.is_empty();
        for (place, (name, item)) in items.into_iter().enumerate() {
            if place > 0 {
                out.push_str(&self.item);
            }
            line(out, depth + 1);
            if let Some(name) = name {
                self.text(&name, out);
                out.push_str(&self.key);
            }
            self.write(state, &item, out, depth + 1)?;
        }
        if !empty {
            line(out, depth);
        }
        out.push(close);
        Ok(())
    }

    fn text(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !c.is_ascii()) || (self.ascii && c == '\u{7f}') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// A key of a mapping, as `json.dumps` makes a text of it.
fn key(name: &Value) -> Result<String, Error> {
    match name.kind() {
        ValueKind::String => Ok(name.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if name.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => {
            let mut text = String::new();
            number(name, &mut text)?;
            Ok(text)
        }
        other => Err(refused(format!(
            "`tojson` of a mapping with a {other} as key"
        ))),
    }
}

fn number(value: &Value, out: &mut String) -> Result<(), Error> {
    if value.is_integer() {
        let _ = write!(out, "{value}");
        return Ok(());
    }
    let number = f64::try_from(value.clone())?;
    out.push_str(&float(number));
    Ok(())
}

/// A number as Python writes it: the shortest digits that are the same number, with an exponent where it is large or
/// small.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned();
    }
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    match exponent.parse::<i32>() {
        Ok(e) if (-4..16).contains(&e) => format!("{number:?}"),
        Ok(e) => format!("{digits}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs()),
        Err(_) => scientific,
    }
}
