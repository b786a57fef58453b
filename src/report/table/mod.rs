//! The comparison as a table for people: in the terminal, in Markdown.

use super::noise::Difference;
use super::{Group, Report, Unlike};
use crate::base::visible;

mod columns;

pub use columns::{Column, Mark, columns};
pub(super) use columns::{decimal, scored, sizes};

/// Columns of a variants' table, at the end of a run.
const WIDTH: usize = 100;
/// Longest name in a terminal; where there is no room, the shorter.
const NAMES: [usize; 2] = [30, 20];
/// Most names in a sentence.
const MOST_NAMED: usize = 12;

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
    let having = |wanted: Difference| {
        group
            .rows
            .iter()
            .filter(move |r| r.difference == wanted)
            .count()
    };
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
        let near = group
            .rows
            .iter()
            .any(|r| r.difference == Difference::Within);
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
