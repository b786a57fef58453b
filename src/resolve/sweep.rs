//! Sweep blocks: from what is written to the points of a recipe.

use std::collections::{BTreeMap, BTreeSet};

use super::Recipe;
use super::error::{
    AXIS_TWICE, AXIS_WITHOUT_EFFECT, DUPLICATE_KEY, EMPTY_SWEEP, REPEATED_POINT, TOO_MANY_POINTS,
    UNEQUAL_AXES, UNKNOWN_AXIS, UNKNOWN_ENTRY, WRONG_TYPE,
};
use super::points::{Axis, Points};
use super::scope::Scope;
use crate::base::units::Count;
use crate::base::{Diag, Diags, Span, suggest};
use crate::syntax::ast::{Ctor, Decl, Entry, Value, ValueKind};

/// The keyword.
pub(super) const KEYWORD: &str = "sweep";
/// Most points of a recipe.
const MOST: usize = 2_000;
/// Most characters of a value's name.
const LONGEST: usize = 40;

/// The points of some sweep blocks without the axes that `fixed` names; none are swept after an
/// error.
pub(super) fn expand<'a>(
    sweeps: impl Iterator<Item = &'a Decl>,
    scope: &Scope<'_>,
    fixed: &[&str],
    diags: &mut Diags,
) -> Points {
    let mut own = Diags::default();
    let mut points = Points::default();
    let mut swept: BTreeMap<String, Span> = BTreeMap::new();
    let mut last = None;
    for decl in sweeps {
        last = Some(decl.name.span);
        let ctor = &decl.body;
        let zip = match ctor.name.value.as_str() {
            "grid" => false,
            "zip" => true,
            other => {
                own.push(
                    Diag::error(
                        &UNKNOWN_ENTRY,
                        ctor.name.span,
                        format!("there is no sweep `{other}`"),
                    )
                    .label("unknown")
                    .help("write `grid { … }` for all combinations, or `zip { … }` for pairs"),
                );
                continue;
            }
        };
        if let Some(arg) = &ctor.arg {
            own.push(
                Diag::error(
                    &WRONG_TYPE,
                    arg.span,
                    format!("`{}` takes no string", ctor.name.value),
                )
                .label("remove this"),
            );
        }
        if ctor.entries.is_empty() {
            own.push(
                Diag::error(
                    &EMPTY_SWEEP,
                    decl.name.span,
                    format!("`{}` sweeps nothing", decl.name.value),
                )
                .help("name a `let` and its values: `seed = [1, 2, 3]`, or remove the sweep"),
            );
        }
        let axes = axes(ctor, scope, &mut swept, &mut own);
        repeats(&axes, zip, &mut own);
        let free = |axis: &Axis| !fixed.contains(&axis.name.as_str());
        if zip {
            if !equal_lengths(&axes, &mut own) {
                continue;
            }
            let axes: Vec<Axis> = axes.into_iter().filter(free).collect();
            let rows = distinct_rows(&axes);
            join(&mut points, axes, &rows);
        } else {
            for axis in axes.into_iter().filter(free) {
                let rows = (0..axis.values.len()).collect::<Vec<_>>();
                join(&mut points, vec![axis], &rows);
            }
        }
    }
    let count = points.checked_count();
    if let Some(at) = last.filter(|_| count.is_none_or(|n| n > MOST)) {
        let many = count.map_or("more points than can be counted".to_owned(), |n| {
            format!("{} points", Count(n as u64))
        });
        own.push(
            Diag::error(
                &TOO_MANY_POINTS,
                at,
                format!("the recipe has {many}; {} are the most", Count(MOST as u64)),
            )
            .help("remove values, or pair axes with `zip` instead of combining them"),
        );
    }
    let broken = own.has_errors();
    diags.extend(own);
    if broken { Points::default() } else { points }
}

fn join(points: &mut Points, axes: Vec<Axis>, rows: &[usize]) {
    if axes.is_empty() {
        return;
    }
    let group = points.groups.len();
    points.groups.push(rows.to_vec());
    points
        .axes
        .extend(axes.into_iter().map(|axis| Axis { group, ..axis }));
}

/// The axes of a block.
fn axes(
    ctor: &Ctor,
    scope: &Scope<'_>,
    swept: &mut BTreeMap<String, Span>,
    diags: &mut Diags,
) -> Vec<Axis> {
    let mut list: Vec<Axis> = Vec::new();
    for entry in &ctor.entries {
        let (name, at) = (&entry.key.value, entry.key.span);
        if let Some(first) = list.iter().find(|a| a.name == *name) {
            diags.push(
                Diag::error(&DUPLICATE_KEY, at, format!("`{name}` is written twice"))
                    .label("again here")
                    .related(first.span, "first here"),
            );
            continue;
        }
        if let Some(&first) = swept.get(name) {
            diags.push(
                Diag::error(&AXIS_TWICE, at, format!("`{name}` is swept twice"))
                    .label("again here")
                    .related(first, "first here")
                    .help("put all its values into one list"),
            );
            continue;
        }
        swept.insert(name.clone(), at);
        if !scope.lets.contains_key(name.as_str()) {
            let mut diag = Diag::error(
                &UNKNOWN_AXIS,
                at,
                format!("the recipe has no `let {name} = …` to sweep"),
            )
            .label("unknown");
            diag.help = suggest::did_you_mean(name, scope.lets.keys().copied()).or_else(|| {
                Some(format!(
                    "write `let {name} = …` and use `{name}` where its value belongs"
                ))
            });
            diags.push(diag);
            continue;
        }
        list.extend(axis(entry, scope, diags));
    }
    list
}

fn axis(entry: &Entry, scope: &Scope<'_>, diags: &mut Diags) -> Option<Axis> {
    let (name, span) = (entry.key.value.clone(), entry.key.span);
    let list = scope.substitute(&entry.value)?;
    let ValueKind::List(values) = list.value else {
        diags.push(
            Diag::error(
                &WRONG_TYPE,
                entry.value.span,
                format!("the axis `{name}` takes a list of values"),
            )
            .label("this is no list")
            .help(format!("write `{name} = [ … ]`")),
        );
        return None;
    };
    if values.is_empty() {
        diags.push(
            Diag::error(
                &EMPTY_SWEEP,
                entry.value.span,
                format!("the axis `{name}` has no values"),
            )
            .label("an empty list")
            .help("a sweep over nothing has no points: give it values, or remove the axis"),
        );
        return None;
    }
    if values.len() > MOST {
        let message = format!(
            "the axis `{name}` has {} values; a recipe has at most {} points",
            Count(values.len() as u64),
            Count(MOST as u64)
        );
        diags.push(Diag::error(&TOO_MANY_POINTS, entry.value.span, message).help("remove values"));
        return None;
    }
    let texts = texts(&values, scope);
    Some(Axis {
        labels: labels(&values, &texts),
        name,
        span,
        values,
        group: 0,
    })
}

/// Canonical texts of values; a name of a `let` counts as its value.
fn texts(values: &[Value], scope: &Scope<'_>) -> Vec<String> {
    let meant = |v: &Value| scope.substitute(v).unwrap_or_else(|| v.clone());
    values.iter().map(|v| canonical(&meant(v))).collect()
}

fn repeats(axes: &[Axis], zip: bool, diags: &mut Diags) {
    let mut report = |first: &Value, again: &Value, what: &str| {
        diags.push(
            Diag::error(
                &REPEATED_POINT,
                again.span,
                format!("{what} is there twice"),
            )
            .label("again here")
            .related(first.span, "first here")
            .help("remove one of them"),
        );
    };
    let groups: Vec<&[Axis]> = if zip {
        vec![axes]
    } else {
        axes.chunks(1).collect()
    };
    for group in groups {
        let Some(lead) = group.first() else { continue };
        let row =
            |i: usize| -> Vec<Option<&String>> { group.iter().map(|a| a.labels.get(i)).collect() };
        for (i, again) in lead.values.iter().enumerate() {
            let first = (0..i).find(|&j| row(j) == row(i));
            if let Some(first) = first.and_then(|j| lead.values.get(j)) {
                let names: Vec<String> = group
                    .iter()
                    .map(|a| {
                        let label = a.labels.get(i).map_or("", String::as_str);
                        format!("`{} = {label}`", a.name)
                    })
                    .collect();
                report(first, again, &names.join(" with "));
                break;
            }
        }
    }
}

fn equal_lengths(axes: &[Axis], diags: &mut Diags) -> bool {
    let Some(first) = axes.first() else {
        return false;
    };
    let other = axes.iter().find(|a| a.values.len() != first.values.len());
    if let Some(other) = other {
        diags.push(
            Diag::error(
                &UNEQUAL_AXES,
                other.span,
                format!(
                    "`{}` has {} values, `{}` has {}: they cannot be paired",
                    other.name,
                    other.values.len(),
                    first.name,
                    first.values.len()
                ),
            )
            .label("of another length")
            .related(first.span, "than this")
            .help("give both as many values, or write `grid` for all combinations"),
        );
    }
    other.is_none()
}

/// Places of the rows that differ from those before them.
fn distinct_rows(axes: &[Axis]) -> Vec<usize> {
    let count = axes.first().map_or(0, |a| a.values.len());
    let row = |i: usize| -> Vec<Option<&String>> { axes.iter().map(|a| a.labels.get(i)).collect() };
    (0..count)
        .filter(|&i| (0..i).all(|j| row(j) != row(i)))
        .collect()
}

/// Reports axes that no stage uses at any point.
pub(super) fn check_use(points: &Points, recipes: &[Recipe], diags: &mut Diags) {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for recipe in recipes {
        if points.axes.iter().all(|a| used.contains(a.name.as_str())) {
            return;
        }
        for stage in recipe.stages() {
            used.extend(recipe.uses(&stage.name.value));
        }
    }
    for axis in &points.axes {
        if !used.contains(axis.name.as_str()) {
            diags.push(
                without_effect(axis, "no stage uses it")
                    .help("use the `let` where its value belongs, or remove the axis"),
            );
        }
    }
}

/// The diagnostic for an axis that changes nothing.
#[must_use]
pub fn without_effect(axis: &Axis, why: &str) -> Diag {
    Diag::error(
        &AXIS_WITHOUT_EFFECT,
        axis.span,
        format!("sweeping `{}` has no effect: {why}", axis.name),
    )
    .label("changes nothing")
}

/// A value without its spelling: equal texts mean equal values.
fn canonical(value: &Value) -> String {
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
fn labels(values: &[Value], texts: &[String]) -> Vec<String> {
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
                *label = clipped(&told_apart(own, &ctors));
            }
        }
    }
    let told = labels.clone();
    for (i, label) in labels.iter_mut().enumerate() {
        if like(&told, i).len() > 1 {
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
fn told_apart(own: &Ctor, all: &[&Ctor]) -> String {
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
        // Entries without a name are told apart by what they say.
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

#[cfg(test)]
mod tests;
