//! What the values of an axis are called, in texts that are safe in file names.

use crate::syntax::ast::{Ctor, Entry, Value, ValueKind};

/// Most characters of a value's name.
const LONGEST: usize = 40;

/// A value without its spelling: equal texts mean equal values.
pub(super) fn canonical(value: &Value) -> String {
    let list = |items: &[Value]| -> String {
        let items: Vec<String> = items.iter().map(canonical).collect();
        format!("[{}]", items.join(", "))
    };
    match &value.value {
        ValueKind::Number { digits, unit } => {
            format!("{} {}", number(digits), unit.as_deref().unwrap_or(""))
        }
        ValueKind::Str(text) => format!("{text:?}"),
        ValueKind::Bool(truth) => truth.to_string(),
        ValueKind::Path(path) => format!("{path}"),
        ValueKind::Ctor(ctor)
            if ctor.arg.is_none() && ctor.entries.is_empty() && !ctor.name.value.is_empty() =>
        {
            ctor.name.value.clone()
        }
        ValueKind::Ctor(ctor) => {
            let mut arg = ctor.arg.as_ref().map(|a| format!("{:?}", a.value));
            for more in &ctor.more {
                arg.get_or_insert_default()
                    .push_str(&format!(", {:?}", more.value));
            }
            let mut entries: Vec<String> = ctor
                .entries
                .iter()
                .map(|e| format!("{} = {}", e.key.value, canonical(&e.value)))
                .collect();
            entries.sort();
            let arg = arg.unwrap_or_default();
            format!("{} {arg} {{ {} }}", ctor.name.value, entries.join(", "))
        }
        ValueKind::List(items) => list(items),
        ValueKind::Map(pairs) => {
            let pairs: Vec<String> = pairs
                .iter()
                .map(|(k, v)| format!("{:?}: {}", k.value, canonical(v)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
        ValueKind::Set(paths) => {
            let paths: Vec<String> = paths.iter().map(|p| p.value.to_string()).collect();
            format!("{{ {} }}", paths.join(", "))
        }
    }
}

fn number(digits: &str) -> String {
    if let Ok(whole) = digits.parse::<i128>() {
        return whole.to_string();
    }
    match digits.parse::<f64>() {
        Ok(x) if x.fract() == 0.0 && x.abs() < 1e15 => format!("{x:.0}"),
        Ok(x) => format!("{x:e}"),
        Err(_) => digits.to_owned(),
    }
}

/// What values are called: equal ones alike, different ones differently.
pub(super) fn labels(values: &[Value], texts: &[String]) -> Vec<String> {
    let mut labels: Vec<String> = values.iter().map(short).collect();
    // The first of equal values names them all.
    for (i, text) in texts.iter().enumerate() {
        let first = texts.iter().position(|t| t == text).unwrap_or(i);
        if let Some(name) = labels.get(first).cloned()
            && let Some(own) = labels.get_mut(i)
        {
            *own = name;
        }
    }
    let like = |labels: &[String], i: usize| -> Vec<usize> {
        let own = labels.get(i).map_or("", String::as_str);
        let same = |j: &usize| labels.get(*j).is_some_and(|l| l.eq_ignore_ascii_case(own));
        let mut list: Vec<usize> = (0..labels.len()).filter(same).collect();
        list.retain(|&j| texts.iter().position(|t| Some(t) == texts.get(j)) == Some(j));
        list
    };
    let first_of = |i: usize| texts.iter().position(|t| Some(t) == texts.get(i));
    let plain = labels.clone();
    for i in 0..labels.len() {
        let rivals = like(&plain, i);
        if rivals.len() > 1 {
            let ctors: Vec<&Ctor> = rivals
                .iter()
                .filter_map(|&j| ctor(values.get(j)?))
                .collect();
            let own = first_of(i).and_then(|j| ctor(values.get(j)?));
            if let (Some(own), Some(label)) = (own, labels.get_mut(i)) {
                *label = clipped(&distinguished(own, &ctors));
            }
        }
    }
    let distinct = labels.clone();
    for (i, label) in labels.iter_mut().enumerate() {
        if like(&distinct, i).len() > 1 {
            *label = format!("{label}-{}", first_of(i).unwrap_or(i) + 1);
        }
    }
    // A name made up here may be that of another value; the places are never alike.
    let made = labels.clone();
    for (i, label) in labels.iter_mut().enumerate() {
        if like(&made, i).len() > 1 {
            *label = format!("value-{}", first_of(i).unwrap_or(i) + 1);
        }
    }
    labels
}

fn ctor(value: &Value) -> Option<&Ctor> {
    match &value.value {
        ValueKind::Ctor(ctor) => Some(ctor),
        _ => None,
    }
}

/// A constructor by its name and the entries in which it differs from the others of that name.
fn distinguished(own: &Ctor, all: &[&Ctor]) -> String {
    let text = |c: &Ctor, key: &str| {
        let entry = c.entries.iter().find(|e| e.key.value == key);
        entry.map(|e| canonical(&e.value))
    };
    let mut label = short_ctor(own);
    for entry in &own.entries {
        let key = &entry.key.value;
        if all.iter().any(|c| text(c, key) != text(own, key)) {
            label.push_str(&format!("-{key}{}", short(&entry.value)));
        }
    }
    label
}

fn short_ctor(ctor: &Ctor) -> String {
    match &ctor.arg {
        Some(arg) => format!("{}-{}", ctor.name.value, clean(&arg.value)),
        // Entries without a name are distinguished by what they say.
        None if ctor.name.value.is_empty() => {
            let entry = |e: &Entry| format!("{}{}", e.key.value, short(&e.value));
            let all: Vec<String> = ctor.entries.iter().map(entry).collect();
            if all.is_empty() {
                "none".to_owned()
            } else {
                all.join("-")
            }
        }
        None => ctor.name.value.clone(),
    }
}

/// A value in a few characters that are safe in file names.
fn short(value: &Value) -> String {
    let joined = |items: Vec<String>| {
        if items.is_empty() {
            "none".to_owned()
        } else {
            items.join("+")
        }
    };
    let text = match &value.value {
        ValueKind::Number { digits, unit } => {
            let unit = unit
                .as_deref()
                .map_or("", |u| if u == "%" { "pct" } else { u });
            format!("{digits}{unit}")
        }
        ValueKind::Str(text) => clean(text),
        ValueKind::Bool(truth) => truth.to_string(),
        ValueKind::Path(path) => clean(&path.to_string()),
        ValueKind::Ctor(ctor) => short_ctor(ctor),
        ValueKind::List(items) => joined(items.iter().map(short).collect()),
        ValueKind::Map(pairs) => joined(pairs.iter().map(|(_, v)| short(v)).collect()),
        ValueKind::Set(paths) => {
            joined(paths.iter().map(|p| clean(&p.value.to_string())).collect())
        }
    };
    clipped(&text)
}

fn clipped(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// Letters, digits, `.`, `_` and `-` of a text.
fn clean(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
    }
    let out = out.trim_matches(|c| c == '-' || c == '.');
    if out.is_empty() { "value" } else { out }.to_owned()
}
