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
use labels::{canonical, labels};

mod labels;

/// The keyword.
pub(super) const KEYWORD: &str = "sweep";
/// Most points of a recipe.
const MOST: usize = 2_000;

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
        let Some(zip) = pairs(decl, &mut own) else {
            continue;
        };
        let name = &decl.name.value;
        points.sweeps.push(name.clone());
        let axes = axes(&decl.body, scope, &mut swept, &mut own);
        repeats(&axes, zip, &mut own);
        let free = |axis: &Axis| !fixed.contains(&axis.name.as_str());
        if zip {
            if !equal_lengths(&axes, &mut own) {
                continue;
            }
            let axes: Vec<Axis> = axes.into_iter().filter(free).collect();
            let rows = distinct_rows(&axes);
            join(&mut points, name, axes, &rows);
        } else {
            for axis in axes.into_iter().filter(free) {
                let rows = (0..axis.values.len()).collect::<Vec<_>>();
                join(&mut points, name, vec![axis], &rows);
            }
        }
    }
    let count = points.checked_count();
    if let Some(at) = last.filter(|_| count.is_none_or(|n| n > MOST)) {
        own.push(too_many(count, at));
    }
    let broken = own.has_errors();
    diags.extend(own);
    if broken { Points::default() } else { points }
}

/// Whether a block pairs its axes (`zip`) or combines them (`grid`); `None` where it is neither.
fn pairs(decl: &Decl, diags: &mut Diags) -> Option<bool> {
    let ctor = &decl.body;
    let zip = match ctor.name.value.as_str() {
        "grid" => false,
        "zip" => true,
        other => {
            diags.push(
                Diag::error(
                    &UNKNOWN_ENTRY,
                    ctor.name.span,
                    format!("there is no sweep `{other}`"),
                )
                .label("unknown")
                .help("write `grid { … }` for all combinations, or `zip { … }` for pairs"),
            );
            return None;
        }
    };
    if let Some(arg) = &ctor.arg {
        diags.push(
            Diag::error(
                &WRONG_TYPE,
                arg.span,
                format!("`{}` takes no string", ctor.name.value),
            )
            .label("remove this"),
        );
    }
    if ctor.entries.is_empty() {
        diags.push(
            Diag::error(
                &EMPTY_SWEEP,
                decl.name.span,
                format!("`{}` sweeps nothing", decl.name.value),
            )
            .help("name a `let` and its values: `seed = [1, 2, 3]`, or remove the sweep"),
        );
    }
    Some(zip)
}

/// The error of a recipe with more points than are run.
fn too_many(count: Option<usize>, at: Span) -> Diag {
    let many = count.map_or("more points than can be counted".to_owned(), |n| {
        format!("{} points", Count(n as u64))
    });
    let message = format!("the recipe has {many}; {} are the most", Count(MOST as u64));
    Diag::error(&TOO_MANY_POINTS, at, message)
        .help("remove values, or pair axes with `zip` instead of combining them")
}

fn join(points: &mut Points, sweep: &str, axes: Vec<Axis>, rows: &[usize]) {
    if axes.is_empty() {
        return;
    }
    let group = points.groups.len();
    points.groups.push(rows.to_vec());
    points.axes.extend(axes.into_iter().map(|axis| Axis {
        group,
        sweep: sweep.to_owned(),
        ..axis
    }));
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
        sweep: String::new(),
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

#[cfg(test)]
mod tests;
