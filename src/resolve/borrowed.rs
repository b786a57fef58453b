//! A value that stands beside another tool's word, as the key here takes it.

use super::registry;
use super::scope::Scope;
use super::values;
use crate::base::{Diags, SourceId, Spanned};
use crate::library::schema::{Default, Key, Kind, Schema};
use crate::library::words::{self, ACCUMULATION, Means, PER_PASS};
use crate::syntax::ast::{Ctor, Value, ValueKind};
use crate::syntax::{parse_value, quote};

/// What the value of a word is here, as it is written; `None` where the key takes none that says the same.
pub(super) fn value(
    scope: &Scope<'_>,
    schema: &Schema,
    name: &str,
    value: &Value,
) -> Option<String> {
    let word = words::for_key(name)?;
    let Means::Key { of, key, .. } = word.means else {
        return None;
    };
    let all = registry::all();
    let own = Some(schema).filter(|s| of.contains(&s.name));
    let other = || {
        all.iter()
            .copied()
            .find(|s| of.contains(&s.name) && s.key(key).is_some())
    };
    let key = own.and_then(|s| s.key(key)).or_else(|| other()?.key(key))?;
    let value = scope.substitute(value)?;
    let fits = |candidate: &Value| {
        let mut diags = Diags::default();
        values::check(&Scope::default(), key, candidate, &mut diags).is_some() && diags.is_empty()
    };
    let found = candidates(key, name, &value).into_iter().find(fits)?;
    written(&found)
}

/// What a value may mean, the likeliest first.
fn candidates(key: &Key, name: &str, value: &Value) -> Vec<Value> {
    let with = |kind: ValueKind| Spanned::new(kind, value.span);
    let read = |text: &str| parse_value(text, SourceId::default()).value;
    let text = match &value.value {
        ValueKind::Str(text) => Some(text.clone()),
        ValueKind::Path(path) => path.as_name().map(str::to_owned),
        _ => None,
    };
    let mut list = Vec::new();
    match &value.value {
        ValueKind::Number { digits, unit: None } => {
            let counted = matches!(key.kind, Kind::Length | Kind::Portion);
            let unit = ["step", "epoch"].into_iter().find(|u| name.contains(u));
            if let Some(unit) = unit.filter(|_| counted) {
                list.push(with(ValueKind::Number {
                    digits: digits.clone(),
                    unit: Some(format!("{unit}s")),
                }));
            }
            list.push(value.clone());
            if let Some((whole, "0")) = digits.split_once('.') {
                list.push(with(ValueKind::Number {
                    digits: whole.to_owned(),
                    unit: None,
                }));
            }
        }
        // Other tools take a module by the end of its path; here a string is the whole path.
        ValueKind::Str(_) | ValueKind::List(_) if key.kind == Kind::Placement => {
            list.extend(placement(value).as_deref().and_then(read));
        }
        ValueKind::Str(_) if matches!(key.kind, Kind::Entry(_) | Kind::Choice(_)) => {}
        _ => list.push(value.clone()),
    }
    if let Some(text) = text.filter(|_| key.kind != Kind::Placement) {
        list.extend(read(&text));
        list.extend(read(&text.to_lowercase()));
        if let Some(Means::Entry(write)) = words::for_name(&text).map(|w| &w.means) {
            list.extend(read(write));
        }
        list.extend(words::sample_entry(&text.to_lowercase()).and_then(read));
    }
    list
}

/// Modules as other tools name them, as a placement: `["query", "value"]` is every module whose path ends so.
pub(super) fn placement(value: &Value) -> Option<String> {
    let one = |item: &Value| match &item.value {
        ValueKind::Str(name) => Some(name.clone()),
        _ => None,
    };
    let plain = |name: &String| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_.".contains(c))
    };
    let ending = |name: &String| quote(&format!("*.{name}"));
    match &value.value {
        ValueKind::Str(all) if matches!(all.replace('_', "-").as_str(), "all-linear" | "all") => {
            Some("{ attention.*, ffn.* }".to_owned())
        }
        ValueKind::List(items) => {
            let names: Vec<String> = items.iter().map(one).collect::<Option<_>>()?;
            let all = !names.is_empty() && names.iter().all(plain);
            let endings: Vec<String> = names.iter().map(ending).collect();
            all.then(|| format!("[{}]", endings.join(", ")))
        }
        _ => one(value).filter(plain).as_ref().map(ending),
    }
}

/// A short value as a recipe writes it.
pub(super) fn written(value: &Value) -> Option<String> {
    const MOST: usize = 60;
    let text = match &value.value {
        ValueKind::Number { digits, unit } => match unit.as_deref() {
            None => digits.clone(),
            Some(unit @ ("steps" | "step" | "epochs" | "epoch")) => format!("{digits} {unit}"),
            Some(unit) => format!("{digits}{unit}"),
        },
        ValueKind::Str(text) => quote(text),
        ValueKind::Bool(truth) => truth.to_string(),
        ValueKind::Path(path) => path.to_string(),
        ValueKind::List(items) => {
            let items: Vec<String> = items.iter().map(written).collect::<Option<_>>()?;
            format!("[{}]", items.join(", "))
        }
        ValueKind::Ctor(ctor) => {
            let entries: Vec<String> = ctor
                .entries
                .iter()
                .map(|e| Some(format!("{} = {}", e.key.value, written(&e.value)?)))
                .collect::<Option<_>>()?;
            let arg = ctor.arg.as_ref().map(|a| format!(" {}", quote(&a.value)));
            let arg = arg.unwrap_or_default();
            match entries.as_slice() {
                [] => format!("{}{arg}", ctor.name.value),
                list => format!("{}{arg} {{ {} }}", ctor.name.value, list.join(", ")),
            }
        }
        ValueKind::Set(paths) => {
            let paths: Vec<String> = paths.iter().map(|p| p.value.to_string()).collect();
            format!("{{ {} }}", paths.join(", "))
        }
        ValueKind::Map(_) => return None,
    };
    (text.chars().count() <= MOST).then_some(text)
}

/// Whether a value says that something is not wanted.
pub(super) fn is_off(value: &Value) -> bool {
    let off = |word: &str| {
        matches!(
            word.to_lowercase().as_str(),
            "none" | "null" | "no" | "off" | "false" | "nil" | ""
        )
    };
    match &value.value {
        ValueKind::Bool(truth) => !truth,
        ValueKind::Str(text) => off(text),
        ValueKind::Path(path) => path.as_name().is_some_and(off),
        ValueKind::Number { digits, .. } => digits.parse() == Ok(0.0),
        ValueKind::List(items) => items.is_empty(),
        ValueKind::Map(pairs) => pairs.is_empty(),
        ValueKind::Ctor(_) | ValueKind::Set(_) => false,
    }
}

/// What is to be written for a number of passes an update, or for the examples of a pass where there are several:
/// `batch` is of an update here, `micro_batch` of a pass.
pub(super) fn accumulated(
    scope: &Scope<'_>,
    schema: &Schema,
    ctor: &Ctor,
    name: &str,
) -> Option<String> {
    let batch = schema
        .key("batch")
        .filter(|_| schema.key("micro_batch").is_some())?;
    let same = |names: &[&str], word: &str| {
        let word = word.to_lowercase().replace('-', "_");
        names.contains(&word.as_str())
    };
    let number = |wanted: &dyn Fn(&str) -> bool| {
        let entry = ctor.entries.iter().find(|e| wanted(&e.key.value))?;
        match scope.substitute(&entry.value)?.value {
            ValueKind::Number { digits, unit: None } => digits
                .parse::<u64>()
                .ok()
                .filter(|n| (1..=1 << 20).contains(n)),
            _ => None,
        }
    };
    let passes = number(&|k| same(ACCUMULATION, k))?;
    let per_pass = number(&|k| same(PER_PASS, k) || same(&["micro_batch_size", "microbatch"], k));
    let asks = same(ACCUMULATION, name) || (per_pass.is_some() && same(PER_PASS, name));
    if !asks && !same(&["micro_batch_size", "microbatch"], name) {
        return None;
    }
    let usual = match batch.default {
        Default::Text(text) => text.parse().ok(),
        _ => None,
    };
    let own = number(&|k| k == "batch");
    let (all, micro, why) = match (per_pass.or(own), usual) {
        (Some(each), _) => (each.checked_mul(passes)?, each, String::new()),
        (None, Some(usual)) => {
            let why = format!(" (`batch` is {usual} if it is not written)");
            (usual, u64::div_ceil(usual, passes), why)
        }
        (None, None) => return None,
    };
    let updates = if passes == 1 { "pass" } else { "passes" };
    Some(format!(
        "`batch` counts the examples of an update here, and `micro_batch` those of a pass: for {passes} {updates} an update \
         write `batch = {all}, micro_batch = {micro}`{why}"
    ))
}
