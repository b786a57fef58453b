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

/// The columns of a group; `whole` gives deviations of memory and speed too.
#[must_use]
pub fn columns(group: &Group, whole: bool) -> Vec<Column> {
    let rows = &group.rows;
    let words = |title: &str, about, rank, cell: &dyn Fn(&Row) -> String| Column {
        title: title.to_owned(),
        metric: None,
        about,
        cells: rows.iter().map(cell).collect(),
        marks: vec![Mark::None; rows.len()],
        number: false,
        rank,
    };
    let numbers = |title: &str,
                   about,
                   rank,
                   more: bool,
                   value: &dyn Fn(&Row) -> Option<f64>,
                   cell: &dyn Fn(&Row) -> String| {
        let values: Vec<Option<f64>> = rows.iter().map(value).collect();
        let top = values
            .iter()
            .flatten()
            .copied()
            .reduce(if more { f64::max } else { f64::min });
        let differ = values.iter().flatten().any(|x| Some(*x) != top);
        Column {
            title: title.to_owned(),
            metric: None,
            about,
            cells: rows
                .iter()
                .zip(&values)
                .map(|(r, v)| {
                    if v.is_some() {
                        cell(r)
                    } else {
                        "–".to_owned()
                    }
                })
                .collect(),
            marks: values
                .iter()
                .map(|v| match differ && v.is_some() && *v == top {
                    true => Mark::Best,
                    false => Mark::None,
                })
                .collect(),
            number: true,
            rank,
        }
    };
    let mut list = vec![
        words("name", "recipe, or recipe/stage", 0, &|r| r.name.clone()),
        words("methods", "what is trained", 1, &Row::method),
    ];
    if group.repeated() {
        list.push(numbers(
            "n",
            "runs under other seeds",
            0,
            true,
            &|_| None,
            &|_| String::new(),
        ));
        if let Some(n) = list.last_mut() {
            n.cells = rows.iter().map(|r| r.runs.to_string()).collect();
        }
    }
    for (i, name) in group.metrics.iter().enumerate() {
        let of = |r: &Row| r.metrics.get(name).cloned().unwrap_or_default();
        let about = "mean ± standard deviation over the runs";
        let rank = if i == 0 { 0 } else { 20 + i };
        list.push(numbers(
            name,
            about,
            rank,
            higher_is_better(name),
            &|r| of(r).mean(),
            &|r| decimal(&of(r)),
        ));
        if let Some(column) = list.last_mut() {
            column.metric = Some(name.clone());
            name_class(column, group);
        }
        if let (Some(column), true) = (list.last_mut(), group.main.as_ref() == Some(name)) {
            for (mark, row) in column.marks.iter_mut().zip(rows) {
                if *mark == Mark::None && row.told == Difference::Within {
                    *mark = Mark::Near;
                }
            }
        }
    }
    let mixed = rows
        .windows(2)
        .any(|w| w.first().map(scored) != w.last().map(scored));
    if mixed {
        list.push(words(
            "scored by",
            "the eval stage, or the training's own dev split",
            2,
            &scored,
        ));
    }
    let sized = |title: &str, about, rank, of: &dyn Fn(&Row) -> Stat| {
        numbers(title, about, rank, false, &|r| of(r).mean(), &|r| {
            sizes(&of(r), whole)
        })
    };
    list.push(sized(
        "estimated",
        "tensors at the peak, as planned",
        10,
        &|r| r.estimated.clone(),
    ));
    list.push(sized(
        "measured",
        "tensors at the peak, as executed",
        0,
        &|r| r.measured.clone(),
    ));
    list.push(sized("process", "peak of the whole process", 9, &|r| {
        r.process.clone()
    }));
    list.push(numbers(
        "samples/s",
        "speed of training",
        8,
        true,
        &|r| r.rate.mean(),
        &|r| rate(&r.rate, whole),
    ));
    let trained = |r: &Row| r.trained.filter(|&n| n > 0);
    list.push(numbers(
        "trained",
        "trainable parameters",
        7,
        false,
        &|r| trained(r).map(|n| n as f64),
        &|r| parameters(trained(r).unwrap_or(0), whole),
    ));
    for column in &mut list {
        for text in std::iter::once(&mut column.title).chain(&mut column.cells) {
            if text.contains(visible::acts) {
                *text = visible::line(text).into_owned();
            }
        }
    }
    list
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
