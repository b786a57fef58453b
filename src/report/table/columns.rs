//! The columns of a comparison: what stands in each cell, and which is the best.

use crate::base::units::{Bytes, Count};
use crate::base::visible;
use crate::report::noise::Difference;
use crate::report::{Group, Row, Stat, Unlike, higher_is_better};

/// How a cell stands in its column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// As all others.
    #[default]
    None,
    /// The best of the column.
    Best,
    /// Its difference to the best is within the noise.
    Near,
}

impl Mark {
    /// The letter behind a number.
    pub(super) const fn letter(self) -> &'static str {
        match self {
            Self::None => " ",
            Self::Best => "*",
            Self::Near => "~",
        }
    }
}

/// Characters of a class's name in a title.
const CLASS: usize = 20;

/// A column as people read it.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its title.
    pub title: String,
    /// The metric it holds, if it does.
    pub metric: Option<String>,
    /// What it is, for tooltips.
    pub about: &'static str,
    /// Its cells.
    pub cells: Vec<String>,
    /// Whether a cell is the best of its column, or not told apart from it.
    pub marks: Vec<Mark>,
    /// Whether it holds numbers.
    pub number: bool,
    /// The higher, the sooner it goes where there is no room; 0 stays.
    pub(super) rank: usize,
}

/// Says of which class the F1 of a column is. Where that differs from row to row, none is the best.
fn name_class(column: &mut Column, group: &Group) {
    let metric = column.metric.clone().unwrap_or_default();
    let of = group.rows.iter().filter_map(|r| r.f1_of.get(&metric));
    let classes: std::collections::BTreeSet<&String> = of.collect();
    if Unlike::of(&group.rows, &metric).is_some() {
        column.title = format!("{metric} of unlike classes");
        column.marks.fill(Mark::None);
        return;
    }
    if let Some(class) = classes.first() {
        let short: String = class.chars().take(CLASS).collect();
        let more = if short.len() < class.len() { "…" } else { "" };
        column.title = format!("{metric} of {short}{more}");
    }
}

/// What a column is called, what it is about, and how soon it is left out of a narrow table.
type Head<'a> = (&'a str, &'static str, usize);

/// A column of words.
fn words(rows: &[Row], (title, about, rank): Head<'_>, cell: &dyn Fn(&Row) -> String) -> Column {
    Column {
        title: title.to_owned(),
        metric: None,
        about,
        cells: rows.iter().map(cell).collect(),
        marks: vec![Mark::None; rows.len()],
        number: false,
        rank,
    }
}

/// A column of numbers, the best of which is marked where they differ.
fn numbers(
    rows: &[Row],
    (title, about, rank): Head<'_>,
    more: bool,
    value: &dyn Fn(&Row) -> Option<f64>,
    cell: &dyn Fn(&Row) -> String,
) -> Column {
    let values: Vec<Option<f64>> = rows.iter().map(value).collect();
    let top = values
        .iter()
        .flatten()
        .copied()
        .reduce(if more { f64::max } else { f64::min });
    let differ = values.iter().flatten().any(|x| Some(*x) != top);
    let shown = |(row, value): (&Row, &Option<f64>)| match value {
        Some(_) => cell(row),
        None => "–".to_owned(),
    };
    let mark = |value: &Option<f64>| match differ && value.is_some() && *value == top {
        true => Mark::Best,
        false => Mark::None,
    };
    Column {
        title: title.to_owned(),
        metric: None,
        about,
        cells: rows.iter().zip(&values).map(shown).collect(),
        marks: values.iter().map(mark).collect(),
        number: true,
        rank,
    }
}

/// The columns of a group; `whole` gives deviations of memory and speed too.
#[must_use]
pub fn columns(group: &Group, whole: bool) -> Vec<Column> {
    let rows = &group.rows;
    let mut list = vec![
        words(rows, ("name", "recipe, or recipe/stage", 0), &|r| {
            r.name.clone()
        }),
        words(rows, ("methods", "what is trained", 1), &Row::method),
    ];
    if group.repeated() {
        let head = ("n", "runs under other seeds", 0);
        let mut n = numbers(rows, head, true, &|_| None, &|_| String::new());
        n.cells = rows.iter().map(|r| r.runs.to_string()).collect();
        list.push(n);
    }
    let metrics = group.metrics.iter().enumerate();
    list.extend(metrics.map(|(i, name)| of_metric(group, i, name)));
    let mixed = rows
        .windows(2)
        .any(|w| w.first().map(scored) != w.last().map(scored));
    if mixed {
        let about = "the eval stage, or the training's own dev split";
        list.push(words(rows, ("scored by", about, 2), &scored));
    }
    list.extend(costs(rows, whole));
    for column in &mut list {
        for text in std::iter::once(&mut column.title).chain(&mut column.cells) {
            if text.contains(visible::acts) {
                *text = visible::line(text).into_owned();
            }
        }
    }
    list
}

/// The column of a metric. What is within the noise of the best is marked where rows are ordered by it.
fn of_metric(group: &Group, i: usize, name: &String) -> Column {
    let of = |r: &Row| r.metrics.get(name).cloned().unwrap_or_default();
    let about = "mean ± standard deviation over the runs";
    let rank = if i == 0 { 0 } else { 20 + i };
    let more = higher_is_better(name);
    let mut column = numbers(
        &group.rows,
        (name, about, rank),
        more,
        &|r| of(r).mean(),
        &|r| decimal(&of(r)),
    );
    column.metric = Some(name.clone());
    name_class(&mut column, group);
    if group.main.as_ref() == Some(name) {
        for (mark, row) in column.marks.iter_mut().zip(&group.rows) {
            if *mark == Mark::None && row.difference == Difference::Within {
                *mark = Mark::Near;
            }
        }
    }
    column
}

/// The columns of memory, speed and trained parameters.
fn costs(rows: &[Row], whole: bool) -> Vec<Column> {
    let sized = |head: Head<'_>, of: &dyn Fn(&Row) -> Stat| {
        numbers(rows, head, false, &|r| of(r).mean(), &|r| {
            sizes(&of(r), whole)
        })
    };
    let trained = |r: &Row| r.trained.filter(|&n| n > 0);
    vec![
        sized(("estimated", "tensors at the peak, as planned", 10), &|r| {
            r.estimated.clone()
        }),
        sized(("measured", "tensors at the peak, as executed", 0), &|r| {
            r.measured.clone()
        }),
        sized(("process", "peak of the whole process", 9), &|r| {
            r.process.clone()
        }),
        numbers(
            rows,
            ("samples/s", "speed of training", 8),
            true,
            &|r| r.rate.mean(),
            &|r| rate(&r.rate, whole),
        ),
        numbers(
            rows,
            ("trained", "trainable parameters", 7),
            false,
            &|r| trained(r).map(|n| n as f64),
            &|r| parameters(trained(r).unwrap_or(0), whole),
        ),
    ]
}

/// Who gave a row's metrics.
pub(in crate::report) fn scored(row: &Row) -> String {
    match row.scorers.as_slice() {
        [] if row.metrics.is_empty() => "–".to_owned(),
        [] => "dev split".to_owned(),
        list => list.join(", "),
    }
}

/// `0.8512`, `0.8512 ± 0.0031`.
pub(in crate::report) fn decimal(stat: &Stat) -> String {
    let mean = stat.mean().map_or("–".to_owned(), |x| format!("{x:.4}"));
    stat.sd()
        .map_or(mean.clone(), |sd| format!("{mean} ± {sd:.4}"))
}

/// `85.7 MiB`, `85.7 MiB ± 1.20 KiB`.
pub(in crate::report) fn sizes(stat: &Stat, whole: bool) -> String {
    let Some(mean) = stat.mean() else {
        return "–".to_owned();
    };
    match stat.sd().filter(|sd| whole && *sd >= 1.0) {
        Some(sd) => format!("{} ± {}", Bytes(mean as u64), Bytes(sd as u64)),
        None => Bytes(mean as u64).to_string(),
    }
}

pub(in crate::report) fn rate(stat: &Stat, whole: bool) -> String {
    let number = |x: f64| match x {
        x if x < 10.0 => format!("{x:.2}"),
        x if x < 100.0 => format!("{x:.1}"),
        x => Count(x.round() as u64).to_string(),
    };
    match (stat.mean(), stat.sd().filter(|_| whole)) {
        (None, _) => "–".to_owned(),
        (Some(mean), None) => number(mean),
        (Some(mean), Some(sd)) => format!("{} ± {}", number(mean), number(sd)),
    }
}

/// `231,554`; where room is short `232k`, `7.83M`.
fn parameters(n: u64, whole: bool) -> String {
    match n {
        n if whole || n < 10_000 => Count(n).to_string(),
        n if n < 1_000_000 => format!("{}k", (n + 500) / 1000),
        n if n < 10_000_000 => format!("{:.2}M", n as f64 / 1e6),
        n => format!("{:.0}M", n as f64 / 1e6),
    }
}
