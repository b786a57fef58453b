//! The comparison as a table for people: in the terminal, in Markdown.

use super::{Report, Row, Stat, higher_is_better};
use crate::base::units::{Bytes, Count};

/// Columns of a terminal that the table fits into.
const WIDTH: usize = 100;
/// Longest name in a terminal; where there is no room, the shorter.
const NAMES: [usize; 2] = [30, 20];

/// A column as people read it.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its title.
    pub title: String,
    /// What it is, for tooltips.
    pub about: &'static str,
    /// Its cells.
    pub cells: Vec<String>,
    /// Whether a cell is the best of its column.
    pub best: Vec<bool>,
    /// Whether it holds numbers.
    pub number: bool,
    /// The higher, the sooner it goes where there is no room; 0 stays.
    rank: usize,
}

/// The columns of a report; `whole` gives deviations of memory and speed too.
#[must_use]
pub fn columns(report: &Report, whole: bool) -> Vec<Column> {
    let rows = &report.rows;
    let words = |title: &str, about, rank, cell: &dyn Fn(&Row) -> String| Column {
        title: title.to_owned(),
        about,
        cells: rows.iter().map(cell).collect(),
        best: vec![false; rows.len()],
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
            best: values
                .iter()
                .map(|v| differ && v.is_some() && *v == top)
                .collect(),
            number: true,
            rank,
        }
    };
    let mut list = vec![
        words("name", "recipe, or recipe/stage", 0, &|r| r.name.clone()),
        words("methods", "what is trained", 1, &Row::method),
    ];
    if report.repeated() {
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
    for (i, name) in report.metrics.iter().enumerate() {
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
    }
    let mixed = rows
        .windows(2)
        .any(|w| w.first().map(|r| &r.scored_by) != w.last().map(|r| &r.scored_by));
    if mixed || whole {
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
    list
}

/// Who gave a row's metrics.
pub(super) fn scored(row: &Row) -> String {
    match row.scored_by.as_slice() {
        [] if row.metrics.is_empty() => "–".to_owned(),
        [] => "dev split".to_owned(),
        list => list.join(", "),
    }
}

/// `0.8512`, `0.8512 ± 0.0031`.
pub(super) fn decimal(stat: &Stat) -> String {
    let mean = stat.mean().map_or("–".to_owned(), |x| format!("{x:.4}"));
    stat.sd()
        .map_or(mean.clone(), |sd| format!("{mean} ± {sd:.4}"))
}

/// `85.7 MiB`, `85.7 MiB ± 1.20 KiB`.
pub(super) fn sizes(stat: &Stat, whole: bool) -> String {
    let Some(mean) = stat.mean() else {
        return "–".to_owned();
    };
    match stat.sd().filter(|sd| whole && *sd >= 1.0) {
        Some(sd) => format!("{} ± {}", Bytes(mean as u64), Bytes(sd as u64)),
        None => Bytes(mean as u64).to_string(),
    }
}

pub(super) fn rate(stat: &Stat, whole: bool) -> String {
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

/// The table of a terminal; what finds no room is left out and named.
#[must_use]
pub fn terminal(report: &Report) -> String {
    let list = columns(report, false);
    lay_out(report, list, &NAMES, "--format csv, markdown or html has")
}

/// The table of one stage's variants: their names say most, and stay whole.
#[must_use]
pub fn variants(report: &Report) -> String {
    let mut list = columns(report, false);
    list.retain(|c| !matches!(c.title.as_str(), "methods" | "estimated" | "process"));
    lay_out(report, list, &[], "`peftc report` has")
}

fn lay_out(report: &Report, mut list: Vec<Column>, lengths: &[usize], elsewhere: &str) -> String {
    let width = |c: &Column| {
        let cells = c.cells.iter().map(|t| t.chars().count());
        cells.max().unwrap_or(0).max(c.title.chars().count())
    };
    // A star beside the best is a character more.
    let star = |c: &Column| usize::from(c.best.contains(&true));
    let total = |list: &[Column]| list.iter().map(|c| width(c) + star(c) + 2).sum::<usize>();
    let mut dropped: Vec<String> = Vec::new();
    let names = list.first().map(|c| c.cells.clone()).unwrap_or_default();
    for &most in lengths {
        if let Some(first) = list.first_mut() {
            first.cells = names.iter().map(|n| shorten(n, most)).collect();
        }
        if total(&list) <= WIDTH {
            break;
        }
    }
    while total(&list) > WIDTH {
        let Some((at, _)) = list
            .iter()
            .enumerate()
            .max_by_key(|(_, c)| c.rank)
            .filter(|(_, c)| c.rank > 0)
        else {
            break;
        };
        dropped.insert(0, list.remove(at).title);
    }
    let mut text = String::from("\n");
    let mut line = |cell: &dyn Fn(&Column) -> (String, bool)| {
        let mut out = String::new();
        for column in &list {
            let (words, best) = cell(column);
            let pad = " ".repeat(width(column) - words.chars().count());
            let mark = match (star(column), best) {
                (0, _) => "",
                (_, true) => "*",
                (_, false) => " ",
            };
            out.push_str("  ");
            out.push_str(&if column.number {
                format!("{pad}{words}{mark}")
            } else {
                format!("{words}{pad}{mark}")
            });
        }
        text.push_str(out.trim_end());
        text.push('\n');
    };
    line(&|c| (c.title.clone(), false));
    for i in 0..report.rows.len() {
        line(&|c| {
            let best = c.best.get(i).copied().unwrap_or(false);
            (c.cells.get(i).cloned().unwrap_or_default(), best)
        });
    }
    text.push_str("\n  * best of the column");
    if let Some(main) = &report.main {
        text.push_str(&format!("; sorted by {main}"));
    }
    if report.repeated() {
        text.push_str("; mean ± standard deviation over n seeds");
    }
    text.push('\n');
    let front: Vec<&str> = report
        .rows
        .iter()
        .filter(|r| r.pareto)
        .map(|r| r.name.as_str())
        .collect();
    if let (Some(main), true) = (
        &report.main,
        front.len() < report.rows.len() && !front.is_empty(),
    ) {
        text.push_str(&format!(
            "  Nothing beats in both {main} and memory: {}\n",
            front.join(", ")
        ));
    }
    if !dropped.is_empty() {
        text.push_str(&format!(
            "  no room for: {} ({elsewhere} them)\n",
            dropped.join(", ")
        ));
    }
    text
}

/// A text of at most so many characters; the middle goes.
pub(super) fn shorten(text: &str, most: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= most {
        return text.to_owned();
    }
    let tail = most / 2;
    let head = most - tail - 1;
    let first = letters.iter().take(head);
    let last = letters.iter().skip(letters.len() - tail);
    first.chain(&['…']).chain(last).collect()
}

/// The table in Markdown.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let list = columns(report, true);
    let escape = |t: &str| {
        t.replace('\\', "\\\\")
            .replace('|', "\\|")
            .replace('<', "&lt;")
            .replace(['\n', '\r'], " ")
    };
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = row(list.iter().map(|c| escape(&c.title)).collect());
    let rule = |c: &Column| if c.number { "---:" } else { "---" }.to_owned();
    text.push_str(&row(list.iter().map(rule).collect()));
    for i in 0..report.rows.len() {
        let cell = |c: &Column| {
            let words = escape(c.cells.get(i).map(String::as_str).unwrap_or_default());
            if c.best.get(i).copied().unwrap_or(false) {
                format!("**{words}**")
            } else {
                words
            }
        };
        text.push_str(&row(list.iter().map(cell).collect()));
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::rows::tests::result;
    use super::*;

    pub(in crate::report) fn report() -> Report {
        let results = [
            result("o/1", "lora.peft", "lora", 1, 0.8, 10 << 20),
            result("o/2", "lora.peft", "lora", 2, 0.9, 12 << 20),
            result("o/3", "a|b,c.peft", "full", 1, 0.7, 40 << 20),
        ];
        Report::new(&results, None)
    }

    #[test]
    fn the_terminal_shows_means_and_the_best_in_100_columns() {
        let text = terminal(&report());
        assert!(text.contains("0.8500 ± 0.0707*"), "{text}");
        assert!(text.contains("11.0 MiB*"), "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= WIDTH), "{text}");
        assert!(
            text.find("lora") < text.find("a|b,c"),
            "the best comes first: {text}"
        );
        assert!(
            text.contains("Nothing beats in both accuracy and memory: lora"),
            "{text}"
        );
    }

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(shorten("abcdefghij", 5), "ab…ij");
        assert_eq!(shorten("abc", 5), "abc");
    }
}
