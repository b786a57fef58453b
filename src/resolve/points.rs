//! The points of a recipe: each combination of values that its swept `let`s take.
//!
//! **Invariant:** the points are a full product of groups; an axis of a `grid` is a group of its own, the axes of a `zip`
//! are one.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::Recipe;
use crate::base::{Diag, Diags, Severity, Span};
use crate::syntax::ast::Value;

/// Rejected points after which no further ones are looked at.
const MANY: usize = 20;

/// A swept `let`.
#[derive(Clone, Debug)]
pub struct Axis {
    /// The `let`.
    pub name: String,
    /// Where the axis is written.
    pub span: Span,
    /// Its values.
    pub values: Vec<Value>,
    /// What they are called: short, safe in file names, different for different values.
    pub labels: Vec<String>,
    /// The group it moves with.
    pub group: usize,
    /// The sweep that it is written in.
    pub sweep: String,
}

/// All points, the last group changing first; a recipe without sweeps has one.
#[derive(Clone, Debug, Default)]
pub struct Points {
    /// The axes.
    pub axes: Vec<Axis>,
    /// For each group, the places of the values that its axes take, one after the other.
    pub groups: Vec<Vec<usize>>,
    /// The names of all sweeps, those among them that nothing is left to sweep of.
    pub sweeps: Vec<String>,
}

impl Points {
    /// How many there are; `None` if they cannot even be counted.
    pub(super) fn checked_count(&self) -> Option<usize> {
        let sizes = self.groups.iter().map(Vec::len);
        sizes
            .into_iter()
            .try_fold(1usize, |n, size| n.checked_mul(size))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.checked_count().unwrap_or(usize::MAX)
    }

    /// Whether something is swept.
    #[must_use]
    pub const fn swept(&self) -> bool {
        !self.axes.is_empty()
    }

    /// How far apart points are that differ in one step of a group.
    #[must_use]
    pub fn stride(&self, group: usize) -> usize {
        self.groups.iter().skip(group + 1).map(Vec::len).product()
    }

    /// The points that differ from the given one in a group only, itself among them.
    pub fn line(&self, point: usize, group: usize) -> impl Iterator<Item = usize> {
        let (stride, size) = (
            self.stride(group),
            self.groups.get(group).map_or(1, Vec::len),
        );
        let first = point - (point / stride.max(1)) % size.max(1) * stride;
        (0..size).map(move |i| first + i * stride)
    }

    /// The points that differ from the given one in the axes of some sweeps only, itself among them, in order.
    #[must_use]
    pub fn over(&self, point: usize, sweeps: &[String]) -> Vec<usize> {
        let own = self.axes.iter().filter(|a| sweeps.contains(&a.sweep));
        let groups: BTreeSet<usize> = own.map(|a| a.group).collect();
        let mut points = vec![point];
        for group in groups {
            let lines = points.iter().map(|&p| self.line(p, group));
            points = lines.flatten().collect();
        }
        points.sort_unstable();
        points
    }

    /// The place of an axis's value at a point.
    #[must_use]
    pub fn place(&self, point: usize, axis: &Axis) -> usize {
        let Some(rows) = self.groups.get(axis.group) else {
            return 0;
        };
        let row = point / self.stride(axis.group).max(1) % rows.len().max(1);
        rows.get(row).copied().unwrap_or(0)
    }

    /// An axis's value at a point.
    #[must_use]
    pub fn value<'a>(&self, point: usize, axis: &'a Axis) -> Option<&'a Value> {
        axis.values.get(self.place(point, axis))
    }

    /// What an axis's value at a point is called.
    #[must_use]
    pub fn label<'a>(&self, point: usize, axis: &'a Axis) -> &'a str {
        let label = axis.labels.get(self.place(point, axis));
        label.map_or("", String::as_str)
    }
}

/// A recipe at each of its points.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// The points.
    pub points: Points,
    /// The recipe at each.
    pub recipes: Vec<Recipe>,
    /// Whether nothing of it was rejected.
    pub whole: bool,
}

/// Collects the diagnostics of points: equal ones once, with the values they belong to.
#[derive(Debug, Default)]
pub struct Gather {
    seen: usize,
    rejected: usize,
    found: IndexMap<String, (Diag, Vec<usize>)>,
}

impl Gather {
    /// Adds what was found at the next point.
    pub fn add(&mut self, diags: Diags) {
        let point = self.seen;
        self.seen += 1;
        self.rejected += usize::from(diags.has_errors());
        for diag in diags.into_list() {
            let key = format!(
                "{} {:?} {}\u{1f}{}",
                diag.code.name, diag.span, diag.message, diag.label
            );
            let (_, points) = self.found.entry(key).or_insert((diag, Vec::new()));
            if points.last() != Some(&point) {
                points.push(point);
            }
        }
    }

    /// Whether so many points are rejected that others would say nothing new.
    #[must_use]
    pub const fn enough(&self) -> bool {
        self.rejected >= MANY
    }

    /// Each once; one that not all points have says where it was found.
    pub fn into_diags(self, points: &Points) -> Diags {
        let mut diags = Diags::default();
        for (mut diag, at) in self.found.into_values() {
            if at.len() < self.seen
                && let Some(place) = place(points, &at)
            {
                let verb = match diag.severity {
                    Severity::Error => "wrong",
                    Severity::Warning | Severity::Note => "so",
                };
                let own = format!("it is {verb} where {place}");
                diag.help = Some(match diag.help {
                    Some(help) => format!("{help}; {own}"),
                    None => own,
                });
            }
            diags.push(diag);
        }
        diags
    }
}

/// What some points have in common; the first of them if nothing.
fn place(points: &Points, at: &[usize]) -> Option<String> {
    let &first = at.first()?;
    let says = |axis: &Axis| format!("`{}` is {}", axis.name, points.label(first, axis));
    let shared = |axis: &&Axis| {
        axis.values.len() > 1
            && at
                .iter()
                .all(|&p| points.place(p, axis) == points.place(first, axis))
    };
    let list: Vec<String> = points.axes.iter().filter(shared).map(says).collect();
    if list.is_empty() {
        let all: Vec<String> = points.axes.iter().map(says).collect();
        return Some(format!("{}, and elsewhere", all.join(" and ")));
    }
    Some(list.join(" and "))
}
