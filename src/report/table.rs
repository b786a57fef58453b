//! The comparison as a table for people: in the terminal, in Markdown.

use super::noise::Difference;
use super::{Group, Report, Row, Stat, Unlike, higher_is_better};
use crate::base::units::{Bytes, Count};
use crate::base::visible;

/// Columns of a variants' table, at the end of a run.
const WIDTH: usize = 100;
/// Longest name in a terminal; where there is no room, the shorter.
const NAMES: [usize; 2] = [30, 20];
/// Most names in a sentence.
const MOST_NAMED: usize = 12;

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
    const fn letter(self) -> &'static str {
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
    rank: usize,
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
pub(super) fn scored(row: &Row) -> String {
    match row.scorers.as_slice() {
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

/// The tables of a terminal, one for each group; what finds no room is left out and named.
#[must_use]
pub fn terminal(report: &Report, width: usize) -> String {
    let mut text = String::new();
    for group in &report.groups {
        let list = columns(group, false);
        text.push_str(&heading(group, report.groups.len() > 1));
        let elsewhere = "--format csv, markdown or html has";
        text.push_str(&lay_out(group, list, (&NAMES, width), elsewhere));
    }
    if report.groups.len() > 1 {
        let apart = "Each table has its own data; results on unlike data are not compared.";
        text.push('\n');
        text.push_str(&fold(apart, width));
    }
    text
}

/// What a group was scored on.
fn heading(group: &Group, several: bool) -> String {
    match (group.title(), &group.scored_on) {
        (Some(title), _) => format!("\n  scored on {title}\n"),
        (None, Some(_)) if several => {
            "\n  scored on data that the results do not name\n".to_owned()
        }
        (None, None) if several => "\n  not scored\n".to_owned(),
        (None, _) => String::new(),
    }
}

/// The table of one stage's variants: their names say most, and stay whole.
#[must_use]
pub fn variants(group: &Group) -> String {
    let mut list = columns(group, false);
    list.retain(|c| {
        !matches!(
            c.title.as_str(),
            "methods" | "estimated" | "process" | "scored by"
        )
    });
    lay_out(group, list, (&[], WIDTH), "`peftc report` has")
}

fn lay_out(
    group: &Group,
    mut list: Vec<Column>,
    (lengths, most): (&[usize], usize),
    elsewhere: &str,
) -> String {
    let width = |c: &Column| {
        let cells = c.cells.iter().map(|t| t.chars().count());
        cells.max().unwrap_or(0).max(c.title.chars().count())
    };
    // A mark is a character more.
    let marked = |c: &Column| usize::from(c.marks.iter().any(|m| *m != Mark::None));
    let total = |list: &[Column]| list.iter().map(|c| width(c) + marked(c) + 2).sum::<usize>();
    let mut dropped: Vec<String> = Vec::new();
    let names = list.first().map(|c| c.cells.clone()).unwrap_or_default();
    for &longest in lengths {
        if let Some(first) = list.first_mut() {
            first.cells = names.iter().map(|n| shorten(n, longest)).collect();
        }
        if total(&list) <= most {
            break;
        }
    }
    while total(&list) > most {
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
    let widths: Vec<(usize, bool)> = list.iter().map(|c| (width(c), marked(c) > 0)).collect();
    let mut text = String::from("\n");
    let mut line = |cell: &dyn Fn(&Column) -> (String, Mark)| {
        let mut out = String::new();
        for (column, (width, marked)) in list.iter().zip(&widths) {
            let (words, mark) = cell(column);
            let pad = " ".repeat(width - words.chars().count());
            let mark = if *marked { mark.letter() } else { "" };
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
    line(&|c| (c.title.clone(), Mark::None));
    for i in 0..group.rows.len() {
        line(&|c| {
            let mark = c.marks.get(i).copied().unwrap_or_default();
            (c.cells.get(i).cloned().unwrap_or_default(), mark)
        });
    }
    text.push('\n');
    for note in notes(group) {
        text.push_str(&fold(&note, most));
    }
    if !dropped.is_empty() {
        let note = format!("no room for: {} ({elsewhere} them)", dropped.join(", "));
        text.push_str(&fold(&note, most));
    }
    text
}

/// What has to be known to read a group's table.
#[must_use]
pub fn notes(group: &Group) -> Vec<String> {
    let main = group.main.as_deref().map(visible::line);
    let mut legend = String::from("* best of the column");
    if let Some(main) = &main {
        legend.push_str(&format!("; sorted by {main}"));
    }
    if group.repeated() {
        legend.push_str("; mean ± standard deviation over n seeds");
    }
    let mut list = vec![legend];
    list.extend(group.unlike.as_ref().map(Unlike::words));
    let Some(main) = main else {
        return list;
    };
    let having = |told: Difference| group.rows.iter().filter(move |r| r.told == told).count();
    match having(Difference::Within) {
        0 => {}
        n => list.push(format!(
            "~ within the noise: {n} of {} rows cannot be told from the best {main} (95 %, over seeds, or over the rows scored)",
            group.rows.len()
        )),
    }
    let scored = group.rows.iter().filter(|r| {
        r.metrics
            .contains_key(group.main.as_deref().unwrap_or_default())
    });
    if having(Difference::Unknown) > 0 && scored.count() > 1 {
        list.push(format!(
            "no noise is known of single runs' {main}; runs with other seeds would tell what a difference is worth"
        ));
    }
    let front: Vec<&str> = group.front().map(|(_, r)| r.name.as_str()).collect();
    if !front.is_empty() && front.len() < group.rows.len() {
        let names = front
            .iter()
            .take(MOST_NAMED)
            .copied()
            .collect::<Vec<_>>()
            .join(", ");
        let more = match front.len().saturating_sub(MOST_NAMED) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        list.push(format!(
            "nothing beats these in both {main} and memory: {names}{more}"
        ));
    }
    list
}

/// A note in lines of a width.
fn fold(text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() + 2 > width {
            out.push_str(&format!("  {line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(&format!("  {line}\n"));
    out
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

/// A text in a cell of Markdown, where nothing of it is markup.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in visible::line(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '\\' | '|' | '`' | '*' | '[' | ']' | '~' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

/// The tables in Markdown.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = String::new();
    for group in &report.groups {
        let list = columns(group, true);
        let heading = heading(group, report.groups.len() > 1);
        if !heading.is_empty() {
            text.push_str(&format!("{}\n\n", escape(heading.trim())));
        }
        text.push_str(&line(list.iter().map(|c| escape(&c.title)).collect()));
        let rule = |c: &Column| if c.number { "---:" } else { "---" }.to_owned();
        text.push_str(&line(list.iter().map(rule).collect()));
        for i in 0..group.rows.len() {
            let cell = |c: &Column| {
                let words = escape(c.cells.get(i).map(String::as_str).unwrap_or_default());
                match c.marks.get(i).copied().unwrap_or_default() {
                    Mark::Best => format!("**{words}**"),
                    Mark::Near => format!("{words} ≈"),
                    Mark::None => words,
                }
            };
            text.push_str(&line(list.iter().map(cell).collect()));
        }
        let near = group.rows.iter().any(|r| r.told == Difference::Within);
        if near {
            text.push_str("\n≈ cannot be told from the best (95 %)\n");
        }
        if let Some(unlike) = &group.unlike {
            text.push_str(&format!("\n{}\n", escape(&unlike.words())));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
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
        let text = terminal(&report(), 100);
        assert!(text.contains("0.8500 ± 0.0707*"), "{text}");
        assert!(text.contains("11.0 MiB*"), "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= 100), "{text}");
        assert!(
            text.find("lora") < text.find("a|b,c"),
            "the best comes first: {text}"
        );
        assert!(
            text.contains("nothing beats these in both accuracy and memory: lora"),
            "{text}"
        );
        assert!(text.contains("scored on d.test, 400 rows"), "{text}");
    }

    #[test]
    fn every_width_is_kept_to() {
        for width in 60..=200 {
            let text = terminal(&report(), width);
            let longest = text.lines().map(|l| l.chars().count()).max();
            assert!(longest <= Some(width), "{width}: {text}");
        }
    }

    #[test]
    fn what_is_within_the_noise_and_what_trains_without_gradients_is_said() {
        let mut results = [
            result("o/1", "a.peft", "lora", 1, 0.80, 10 << 20),
            result("o/2", "b.peft", "full", 1, 0.79, 20 << 20),
            result("o/3", "c.peft", "siva", 1, 0.40, 20 << 20),
        ];
        for stage in &mut results[1].stages {
            if stage.kind == "train" {
                stage.kind = "mezo".to_owned();
            }
        }
        let report = Report::new(&results, None);
        let text = terminal(&report, 100);
        assert!(
            text.contains("0.7900~") && !text.contains("0.4000~"),
            "{text}"
        );
        assert!(text.contains("within the noise: 1 of 3 rows"), "{text}");
        let line = text
            .lines()
            .find(|l| l.contains("0.7900"))
            .unwrap_or_default();
        assert!(line.contains("mezo") && !line.contains("full"), "{text}");
        assert!(markdown(&report).contains("0.7900 ≈"));
        assert_eq!(
            escape("[a](b) *c* `d`|<e>&\n"),
            "\\[a\\](b) \\*c\\* \\`d\\`\\|&lt;e>&amp;\\\\n"
        );
    }

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(shorten("abcdefghij", 5), "ab…ij");
        assert_eq!(shorten("abc", 5), "abc");
    }
}
