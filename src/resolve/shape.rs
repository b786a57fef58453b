//! What to write instead of a value of the wrong shape.

use super::borrowed::{is_off, written};
use super::scope::Scope;
use super::values;
use crate::base::{Diags, SourceId, suggest};
use crate::library::schema::{Default, Key, Kind, RefKind};
use crate::library::words;
use crate::syntax::ast::{Value, ValueKind};
use crate::syntax::{parse_value, quote};

/// Values of a list that are repeated in a message.
const SHOWN: usize = 4;

/// What to write instead of `value`, which is not what the key takes.
pub(super) fn remedy(scope: &Scope<'_>, key: &Key, value: &Value) -> Option<String> {
    if key.name.is_empty() {
        return None;
    }
    let name = key.name;
    let asked = nameless(key);
    let fits = |value: &Value| {
        let mut diags = Diags::default();
        values::check(scope, &asked, value, &mut diags).is_some() && diags.is_empty()
    };
    match &value.value {
        ValueKind::List(items) => match items.as_slice() {
            [] => None,
            [one] => {
                let own = fits(one).then(|| written(one)).flatten()?;
                Some(format!("write `{name} = {own}`"))
            }
            [first, ..] if items.iter().all(fits) => {
                let mut list: Vec<String> = items
                    .iter()
                    .take(SHOWN)
                    .map(written)
                    .collect::<Option<_>>()?;
                let own = written(first)?;
                if items.len() > SHOWN {
                    list.push("…".to_owned());
                }
                Some(format!(
                    "a stage has one; a sweep tries several: write `{name} = {name}` here and outside `let {name} = {own}` \
                     and `sweep try_{name} = grid {{ {name} = [{}] }}`",
                    list.join(", ")
                ))
            }
            _ => None,
        },
        ValueKind::Str(text) => string(key, text, &fits),
        ValueKind::Path(path) => {
            let word = path.to_string();
            let truth = ["true", "yes", "on"].contains(&word.to_lowercase().as_str());
            if key.kind == Kind::Bool && truth {
                return Some(format!("write `{name} = true`"));
            }
            if is_off(value) {
                return Some(if key.kind == Kind::Bool {
                    format!("write `{name} = false`")
                } else {
                    leave_out(key)
                });
            }
            if matches!(key.kind, Kind::Str | Kind::Texts) {
                return Some(format!(
                    "a text stands in quotes: `{name} = {}`",
                    quote(&word)
                ));
            }
            let sample = sample(key).map(|s| format!("write a value such as `{s}`"));
            if !takes_literals(key.kind) {
                return sample;
            }
            let lets = suggest::nearest(&word, scope.lets.keys().copied());
            let none = format!("no `let` is called `{word}`");
            Some(match (lets.first(), sample) {
                (Some(near), _) => format!("{none}; did you mean `{near}`?"),
                (None, Some(sample)) => format!("{sample}; {none}"),
                (None, None) => none,
            })
        }
        ValueKind::Number { digits, .. } => match (key.kind, digits.as_str()) {
            (Kind::Bool, "1") => Some(format!("write `{name} = true`")),
            (Kind::Bool, "0") => Some(format!("write `{name} = false`")),
            (Kind::Str | Kind::Column, _) => {
                let text = quote(&written(value)?);
                Some(format!("a text stands in quotes: `{name} = {text}`"))
            }
            _ => sample(key).map(|s| format!("write a value such as `{s}`")),
        },
        ValueKind::Bool(false) => Some(leave_out(key)),
        _ => sample(key).map(|s| format!("write a value such as `{s}`")),
    }
}

/// Whether a name can only be that of a `let`.
const fn takes_literals(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Int(..)
            | Kind::Batch(..)
            | Kind::Float(..)
            | Kind::Bool
            | Kind::Size
            | Kind::Length
            | Kind::Portion
            | Kind::Share
    )
}

/// A string where none belongs: what is in it, or what is to be declared first.
fn string(key: &Key, text: &str, fits: &dyn Fn(&Value) -> bool) -> Option<String> {
    let name = key.name;
    let bare = parse_value(text, SourceId::default()).value;
    let bare = bare.filter(fits).and_then(|v| written(&v));
    let is_name = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match key.kind {
        Kind::Ref(RefKind::Model) if !is_name(text) => {
            let path = text.starts_with(['.', '/', '~']) || text.matches('/').count() > 1;
            let source = if path { "local" } else { "hub" };
            Some(format!(
                "a model is declared: write `model m = {source} {}` outside, and `{name} = m` here",
                quote(text)
            ))
        }
        Kind::Ref(RefKind::Split) if !is_split(text) => {
            let file = text.contains('.') || text.starts_with(['/', '~']);
            let source = if file { "local" } else { "hub" };
            Some(format!(
                "data are declared: write `data d = {source} {} {{ text = …, label = … }}` outside, and `{name} = d.train` here",
                quote(text)
            ))
        }
        Kind::Ref(RefKind::Prompt) if !is_name(text) => Some(format!(
            "a prompt is declared: write `prompt p {{ template = {} }}` outside, and `{name} = p` here",
            quote(text)
        )),
        _ => match bare {
            Some(bare) => Some(format!("without quotes: `{name} = {bare}`")),
            None => sample(key).map(|s| format!("write a value such as `{s}`")),
        },
    }
}

/// Whether a text could be a data set and its split.
fn is_split(text: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let known = ["train", "dev", "test", "validation", "valid", "val"];
    match text.split_once('.') {
        None => word(text),
        Some((name, split)) => word(name) && known.contains(&split),
    }
}

/// How a key is not used.
fn leave_out(key: &Key) -> String {
    match key.default {
        Default::Required => sample(key).map_or_else(
            || "it cannot be left out".to_owned(),
            |s| format!("it cannot be left out; write a value such as `{s}`"),
        ),
        Default::Absent => format!("without the key there is none: leave `{}` out", key.name),
        Default::Text(text) | Default::Tacit(text) => {
            format!("leave `{}` out, which means `{text}`", key.name)
        }
    }
}

/// A key whose values are only tried: what does not fit it gets no remedy, which would try values again, without end.
fn nameless(key: &Key) -> Key {
    Key { name: "", ..*key }
}

/// How a key is written with a usual value.
fn sample(key: &Key) -> Option<String> {
    if let Some(sample) = words::sample_of(key.name) {
        let own = sample
            .split_once(" = ")
            .and_then(|(_, v)| parse_value(v, SourceId::default()).value);
        let fits = own.is_some_and(|v| {
            values::check(&Scope::default(), &nameless(key), &v, &mut Diags::default()).is_some()
        });
        if fits {
            return Some(sample.to_owned());
        }
    }
    match key.default {
        Default::Text(text) | Default::Tacit(text) => Some(format!("{} = {text}", key.name)),
        Default::Required | Default::Absent => None,
    }
}
