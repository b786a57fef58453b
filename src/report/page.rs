//! The comparison as a page of its own: a table, a scatter, learning curves, memory over a step. Styles
//! and charts are inside; it runs no scripts and loads nothing.

use std::fmt::Write as _;

use super::looks::Look;
use super::noise::Difference;
use super::table::{self, Column, Mark};
use super::{Group, Report, Row, classes, curves, higher_is_better, profile, scatter};
use crate::base::units::Count;
use crate::base::visible;

/// Text that can stand anywhere in the page, attributes included.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // What XML forbids, and what turns the text around it.
            c if visible::acts(c) => visible::push(&mut out, c),
            c => out.push(c),
        }
    }
    out
}

/// Text of several lines for a `pre`.
fn escape_lines(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|l| escape(&l.replace('\t', "    ")))
        .collect();
    lines.join("\n")
}

/// Rows of a table; the rest is for other formats.
const MOST_ROWS: usize = 1000;
/// Rows whose curves are drawn, and whose memory is.
const MOST_CURVES: usize = 5 * curves::TOGETHER;
const MOST_CARDS: usize = 24;
/// Runs and recipes that are listed.
const MOST_RUNS: usize = 500;
const MOST_RECIPES: usize = 50;

/// The recipe that all rows are of, where there are several; they are called without it then.
fn of_one_recipe(report: &mut Report) -> Option<String> {
    let recipe = |name: &str| name.split_once('/').map(|(recipe, _)| recipe.to_owned());
    let own = recipe(&report.rows().next()?.name)?;
    let all = report
        .rows()
        .all(|row| recipe(&row.name).as_ref() == Some(&own));
    if !all || report.rows().count() < 2 {
        return None;
    }
    for row in report.groups.iter_mut().flat_map(|group| &mut group.rows) {
        row.name.drain(..=own.len());
    }
    Some(own)
}

/// The page.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut report = report.clone();
    let recipe = of_one_recipe(&mut report);
    let recipe = recipe.map_or_else(String::new, |name| format!(" of {}", escape(&name)));
    let mut out =
        String::from("<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n");
    out.push_str("<meta name='viewport' content='width=device-width, initial-scale=1'>\n<title>peftc report</title>\n");
    let _ = write!(
        out,
        "<style>\n{}</style>\n</head>\n<body>\n<main>\n",
        include_str!("page.css")
    );
    let runs: usize = report.rows().map(|r| r.runs).sum();
    let several = report.groups.len() > 1;
    let about = match report.groups.as_slice() {
        [] => String::new(),
        [only] => {
            let on = only.title().map(|t| format!(", scored on {}", escape(&t)));
            let best = only
                .main
                .as_ref()
                .map(|m| format!("; the best {} first", escape(m)));
            on.unwrap_or_default() + &best.unwrap_or_default()
        }
        list => format!(
            ", scored on {} data sets. What was scored on unlike data is not compared",
            list.len()
        ),
    };
    let _ = writeln!(
        out,
        "<header><h1>Fine-tuning compared</h1><p>{} from {}{recipe}{about}.</p></header>",
        count(report.rows().count(), "row"),
        count(runs, "run"),
    );
    for group in &report.groups {
        sections(&mut out, group, several);
    }
    if report.groups.is_empty() {
        section(
            &mut out,
            "Results",
            "<p>No training or evaluation is finished yet.</p>",
        );
    }
    let made = runs_and_recipes(&report);
    if !made.is_empty() {
        section(&mut out, "How they were made", &made);
    }
    let sources: String = report
        .sources
        .iter()
        .take(MOST_RUNS)
        .map(|s| format!("<li>{}</li>", escape(s)))
        .collect();
    let _ = write!(
        out,
        "<footer><details><summary>Read from {}</summary><ul>{sources}</ul>{}</details><p>peftc {}</p></footer>\n</main>\n</body>\n</html>\n",
        count(report.sources.len(), "result"),
        left_out(report.sources.len(), MOST_RUNS, "results"),
        env!("CARGO_PKG_VERSION")
    );
    out
}

/// All of a group: what is worth taking, the table, the charts.
fn sections(out: &mut String, group: &Group, several: bool) {
    let on = match (several, group.title(), &group.scored_on) {
        (false, ..) => String::new(),
        (true, Some(title), _) => format!(" on {title}"),
        (true, None, Some(_)) => " on data that the results do not name".to_owned(),
        (true, None, None) => " that were not scored".to_owned(),
    };
    out.push_str(&verdict(group));
    section(out, &format!("Results{on}"), &results(group));
    if let (Some(main), Some(svg)) = (&group.main, scatter::chart(group)) {
        let text = format!(
            "{}<p class='note'>Filled marks are the Pareto front: nothing else has both a better {} and a lower peak. Everything in the shaded area is beaten by one of them.</p>{}",
            wide(&svg, "", "chart"),
            escape(main),
            left_out(group.rows.len(), scatter::MOST, "rows")
        );
        section(out, &format!("{main} against memory{on}"), &text);
    }
    let mut learning: String = curves::charts(group, MOST_CURVES)
        .iter()
        .map(|svg| wide(svg, "", "chart"))
        .collect();
    if !learning.is_empty() {
        let mut note = String::new();
        if group.repeated() {
            note.push_str("Strong lines are means over the seeds, thin ones the runs. ");
        }
        if group
            .rows
            .iter()
            .flat_map(|r| &r.logs)
            .any(|l| l.1.is_some())
        {
            note.push_str("A ring marks the step whose weights were kept. ");
        }
        note.push_str("Trainings of much unlike length have charts of their own.");
        let _ = write!(learning, "<p class='note'>{note}</p>");
        learning.push_str(&left_out(group.rows.len(), MOST_CURVES, "rows"));
        section(out, &format!("Learning curves{on}"), &learning);
    }
    let cards: String = group
        .rows
        .iter()
        .enumerate()
        .take(MOST_CARDS)
        .filter_map(|(i, r)| card(i, r))
        .collect();
    if !cards.is_empty() {
        let text = format!(
            "<p class='note'>One step of the largest batch, op by op, as planned. The bar shows what is alive at the peak.</p><div class='cards'>{cards}</div>{}",
            left_out(group.rows.len(), MOST_CARDS, "rows")
        );
        section(out, &format!("Memory over a step{on}"), &text);
    }
    let by_class = classes::figures(group);
    if !by_class.is_empty() {
        let text = format!("<div class='cards'>{by_class}</div>");
        section(out, &format!("By class{on}"), &text);
    }
}

/// Says how many are not shown; nothing if all are.
fn left_out(all: usize, shown: usize, what: &str) -> String {
    if all <= shown {
        return String::new();
    }
    format!(
        "<p class='note'>The first {shown} of {} {what} are shown; <code>--format csv</code> and <code>json</code> have all.</p>",
        Count(all as u64)
    )
}

fn count(n: usize, what: &str) -> String {
    format!(
        "{} {what}{}",
        Count(n as u64),
        if n == 1 { "" } else { "s" }
    )
}

fn section(out: &mut String, title: &str, body: &str) {
    let _ = write!(
        out,
        "<section><h2>{}</h2>\n{body}\n</section>\n",
        escape(title)
    );
}

/// What scrolls where the page is narrower than can be read, by keys too.
pub(super) fn wide(inner: &str, class: &str, what: &str) -> String {
    format!(
        "<div class='wide{class}' tabindex='0' role='group' aria-label='{what}'>{inner}</div>\n"
    )
}

/// The rows worth taking, cheapest first, as tiles.
fn verdict(group: &Group) -> String {
    const MOST: usize = 8;
    let Some(main) = &group.main else {
        return String::new();
    };
    let mut front: Vec<(usize, &Row)> = group.front().collect();
    let bytes = |r: &Row| r.measured.mean().unwrap_or(0.0);
    front.sort_by(|a, b| bytes(a.1).total_cmp(&bytes(b.1)));
    if group.rows.len() < 2 {
        return String::new();
    }
    let last = front.len().saturating_sub(1);
    let tiles: String = front
        .iter()
        .enumerate()
        .filter(|(at, _)| *at < MOST - 1 || *at == last)
        .map(|(at, (i, row))| {
            let why = match at {
                0 if last == 0 => format!("best {main} and least memory"),
                0 => "least memory".to_owned(),
                _ if at == last => format!("best {main}"),
                _ => "between".to_owned(),
            };
            let near = match row.difference {
                Difference::Within => " (within the noise of the best)",
                Difference::Apart | Difference::Unknown => "",
            };
            let metric = row.metrics.get(main).map(table::decimal).unwrap_or_default();
            format!(
                "<li style='--own:{}'><span class='why'>{}</span><b>{}{}</b><span>{} {metric}{near}</span><span>{}</span></li>",
                Look::of(*i).colour(),
                escape(&why),
                Look::of(*i).swatch(),
                escape(&row.name),
                escape(main),
                table::sizes(&row.measured, false)
            )
        })
        .collect();
    format!("<ul class='tiles' aria-label='the Pareto front'>{tiles}</ul>\n")
}

/// The attribute of cells of numbers.
const fn class(column: &Column) -> &'static str {
    if column.number { " class='number'" } else { "" }
}

/// A row of the table of results.
fn table_row(out: &mut String, list: &[Column], (i, row): (usize, &Row)) {
    out.push_str("<tr>");
    for (at, c) in list.iter().enumerate() {
        let cell = escape(c.cells.get(i).map(String::as_str).unwrap_or_default());
        if at == 0 {
            let front = if row.pareto {
                "<span class='badge' title='nothing beats it in both metric and memory'>Pareto</span>"
            } else {
                ""
            };
            let _ = write!(
                out,
                "<th scope='row'>{}{cell}{front}</th>",
                Look::of(i).swatch()
            );
            continue;
        }
        let _ = match c.marks.get(i).copied().unwrap_or_default() {
            Mark::Best => write!(
                out,
                "<td{}><b class='best' title='best of the column'>{cell}</b></td>",
                class(c)
            ),
            Mark::Near => write!(
                out,
                "<td{}>{cell}<span class='near' title='cannot be told from the best'>≈</span></td>",
                class(c)
            ),
            Mark::None => write!(out, "<td{}>{cell}</td>", class(c)),
        };
    }
    out.push_str("</tr>\n");
}

/// What the marks of the table mean.
fn legend(out: &mut String, group: &Group) {
    out.push_str("<p class='note'>Marked: the best of each column. Estimated and measured are tensors at their peak; process is all of it.");
    if group.repeated() {
        out.push_str(
            " Values are means ± standard deviations over n runs that differ in their seeds only.",
        );
    }
    let known = |noise: Difference| group.rows.iter().any(|r| r.difference == noise);
    if let (Some(main), true) = (&group.main, known(Difference::Within)) {
        let _ = write!(
            out,
            " ≈: the difference to the best {} is within the noise (95 %; over the seeds where there are several, else over the rows scored).",
            escape(main)
        );
    }
    if let (Some(main), true, true) = (
        &group.main,
        known(Difference::Unknown),
        group.rows.len() > 1,
    ) {
        let _ = write!(
            out,
            " No noise is known of single runs' {}: runs with other seeds would tell what a difference is worth.",
            escape(main)
        );
    }
    if let Some(unlike) = &group.unlike {
        let _ = write!(out, " {}.", escape(&unlike.words()));
    }
    out.push_str("</p>");
}

fn results(group: &Group) -> String {
    let list = table::columns(group, true);
    let mut out = String::from("<table><thead><tr>");
    for c in &list {
        let sorted = match group
            .main
            .as_ref()
            .filter(|m| Some(*m) == c.metric.as_ref())
        {
            Some(main) if higher_is_better(main) => " aria-sort='descending'",
            Some(_) => " aria-sort='ascending'",
            None => "",
        };
        let _ = write!(
            out,
            "<th scope='col'{}{sorted} title='{}'>{}</th>",
            class(c),
            escape(c.about),
            escape(&c.title)
        );
    }
    out.push_str("</tr></thead><tbody>\n");
    for (i, row) in group.rows.iter().enumerate().take(MOST_ROWS) {
        table_row(&mut out, &list, (i, row));
    }
    out.push_str("</tbody></table>");
    let mut out = wide(&out, "", "table");
    legend(&mut out, group);
    out.push_str(&left_out(group.rows.len(), MOST_ROWS, "rows"));
    out
}

fn card(index: usize, row: &Row) -> Option<String> {
    let svg = profile::chart(row)?;
    Some(format!(
        "<figure><figcaption><h3>{}{}</h3><p>{}</p></figcaption>{}</figure>\n",
        Look::of(index).swatch(),
        escape(&row.name),
        escape(&profile::words(row)),
        wide(&svg, " small", "chart")
    ))
}

/// Seeds, dates, machines, and the recipes' texts.
fn runs_and_recipes(report: &Report) -> String {
    let mut out = String::new();
    let all: Vec<_> = report
        .rows()
        .flat_map(|row| row.details.iter().map(move |d| (row, d)))
        .collect();
    if !all.is_empty() {
        let mut rows = String::new();
        for (row, d) in all.iter().take(MOST_RUNS) {
            let or = |text: &Option<String>| text.as_deref().map_or("–".to_owned(), escape);
            let _ = writeln!(
                rows,
                "<tr><th scope='row'>{}</th><td>{}</td><td class='number'>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(&row.name),
                escape(&d.stage),
                d.seed.map_or("–".to_owned(), |s| s.to_string()),
                or(&d.date),
                or(&d.machine),
                escape(&d.result)
            );
        }
        let table = format!(
            "<table><thead><tr><th scope='col'>row</th><th scope='col'>stage</th><th scope='col' class='number'>seed</th><th scope='col'>finished</th><th scope='col'>machine</th><th scope='col'>result in</th></tr></thead><tbody>\n{rows}</tbody></table>"
        );
        let _ = writeln!(
            out,
            "<details><summary>Seeds, dates and machines of {}</summary>{}{}</details>",
            count(all.len(), "run"),
            wide(&table, "", "table"),
            left_out(all.len(), MOST_RUNS, "runs")
        );
    }
    for text in report.recipes.iter().take(MOST_RECIPES) {
        let _ = writeln!(
            out,
            "<details><summary>{}</summary><pre>{}</pre></details>",
            escape(&text.name),
            escape_lines(&text.text)
        );
    }
    out + &left_out(report.recipes.len(), MOST_RECIPES, "recipes")
}

#[cfg(test)]
mod tests;
