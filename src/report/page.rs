//! The comparison as a page of its own: a table, a scatter, learning curves, memory over a step. Styles
//! and charts are inside; it runs no scripts and loads nothing.

use std::fmt::Write as _;

use super::table::{self, Column};
use super::{Report, Row, curves, higher_is_better, profile, scatter};

/// Colours for rows; after the last the first comes again.
const COLOURS: usize = 8;

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
            // What XML forbids.
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The colour of a row, the same in every chart.
#[must_use]
pub fn colour(row: usize) -> String {
    format!("var(--c{})", row % COLOURS + 1)
}

/// The page.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut out =
        String::from("<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n");
    out.push_str("<meta name='viewport' content='width=device-width, initial-scale=1'>\n<title>peftc report</title>\n");
    let _ = write!(
        out,
        "<style>\n{}</style>\n</head>\n<body>\n<main>\n",
        include_str!("page.css")
    );
    let runs: usize = report.rows.iter().map(|r| r.runs).sum();
    let _ = writeln!(
        out,
        "<header><h1>Fine-tuning compared</h1><p>{} from {}{}.</p></header>",
        count(report.rows.len(), "row"),
        count(runs, "run"),
        report
            .main
            .as_ref()
            .map_or(String::new(), |m| format!(", the best {} first", escape(m)))
    );
    out.push_str(&verdict(report));
    section(&mut out, "Results", &results(report));
    if let (Some(main), Some(svg)) = (&report.main, scatter::chart(report)) {
        let text = format!(
            "{}<p class='note'>Filled points are the Pareto front: nothing else has both a better {} and a lower peak. Everything in the shaded area is beaten by one of them.</p>",
            wide(&svg),
            escape(main)
        );
        section(&mut out, &format!("{main} against memory"), &text);
    }
    let mut learning = String::new();
    for from in (0..report.rows.len()).step_by(curves::TOGETHER) {
        for svg in [curves::losses(report, from), curves::dev(report, from)]
            .into_iter()
            .flatten()
        {
            learning.push_str(&wide(&svg));
        }
    }
    if !learning.is_empty() {
        if report.repeated() {
            learning.push_str(
                "<p class='note'>Strong lines are means over the seeds, thin ones the runs.</p>",
            );
        }
        section(&mut out, "Learning curves", &learning);
    }
    let cards: String = report
        .rows
        .iter()
        .enumerate()
        .filter_map(|(i, r)| card(i, r))
        .collect();
    if !cards.is_empty() {
        let text = format!(
            "<p class='note'>One step of the largest batch, op by op, as planned. The bar shows what is alive at the peak.</p><div class='cards'>{cards}</div>"
        );
        section(&mut out, "Memory over a step", &text);
    }
    let sources: String = report
        .sources
        .iter()
        .map(|s| format!("<li>{}</li>", escape(s)))
        .collect();
    let _ = write!(
        out,
        "<footer><details><summary>Read from {}</summary><ul>{sources}</ul></details><p>peftc {}</p></footer>\n</main>\n</body>\n</html>\n",
        count(report.sources.len(), "result"),
        env!("CARGO_PKG_VERSION")
    );
    out
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn section(out: &mut String, title: &str, body: &str) {
    let _ = write!(
        out,
        "<section><h2>{}</h2>\n{body}\n</section>\n",
        escape(title)
    );
}

/// A chart that scrolls where the page is narrower than can be read.
fn wide(svg: &str) -> String {
    format!("<div class='wide'>{svg}</div>\n")
}

/// The rows worth taking, cheapest first, as tiles.
fn verdict(report: &Report) -> String {
    let Some(main) = &report.main else {
        return String::new();
    };
    let mut front: Vec<(usize, &Row)> = report
        .rows
        .iter()
        .enumerate()
        .filter(|(_, r)| r.pareto)
        .collect();
    front.sort_by(|a, b| {
        a.1.measured
            .mean()
            .unwrap_or(0.0)
            .total_cmp(&b.1.measured.mean().unwrap_or(0.0))
    });
    if front.len() < 2 && report.rows.len() < 2 {
        return String::new();
    }
    let last = front.len().saturating_sub(1);
    let tiles: String = front
        .iter()
        .enumerate()
        .map(|(at, (i, row))| {
            let why = match at {
                0 if last == 0 => format!("best {main} and least memory"),
                0 => "least memory".to_owned(),
                _ if at == last => format!("best {main}"),
                _ => "between".to_owned(),
            };
            let metric = row.metrics.get(main).map(table::decimal).unwrap_or_default();
            format!(
                "<li style='--own:{}'><span class='why'>{}</span><b>{}</b><span>{} {metric}</span><span>{}</span></li>",
                colour(*i),
                escape(&why),
                escape(&row.name),
                escape(main),
                table::sizes(&row.measured, false)
            )
        })
        .collect();
    format!("<ul class='tiles' aria-label='the Pareto front'>{tiles}</ul>\n")
}

fn results(report: &Report) -> String {
    let list = table::columns(report, true);
    let class = |c: &Column| if c.number { " class='number'" } else { "" };
    let mut out = String::from("<div class='wide'><table><thead><tr>");
    for c in &list {
        let sorted = match report.main.as_ref().filter(|m| **m == c.title) {
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
    for (i, row) in report.rows.iter().enumerate() {
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
                    "<th scope='row'><i style='background:{}'></i>{cell}{front}</th>",
                    colour(i)
                );
            } else if c.best.get(i).copied().unwrap_or(false) {
                let _ = write!(
                    out,
                    "<td{}><b class='best' title='best of the column'>{cell}</b></td>",
                    class(c)
                );
            } else {
                let _ = write!(out, "<td{}>{cell}</td>", class(c));
            }
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n<p class='note'>Marked: the best of each column. Estimated and measured are tensors at their peak; process is all of it.");
    if report.repeated() {
        out.push_str(
            " Values are means ± standard deviations over n runs that differ in their seeds only.",
        );
    }
    out.push_str("</p>");
    out
}

fn card(index: usize, row: &Row) -> Option<String> {
    let svg = profile::chart(row)?;
    Some(format!(
        "<figure><figcaption><h3><i style='background:{}'></i>{}</h3><p>{}</p></figcaption>{svg}</figure>\n",
        colour(index),
        escape(&row.name),
        escape(&profile::words(row))
    ))
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::result;
    use super::*;

    #[test]
    fn nothing_from_a_result_is_markup() {
        let bad = "<script>alert('x')</script>\"&\u{7}";
        let mut one = result("o/1", &format!("{bad}.peft"), bad, 1, 0.8, 10 << 20);
        for stage in &mut one.stages {
            let value = stage.metrics.shift_remove("accuracy");
            stage.metrics.insert(bad.to_owned(), value.flatten());
            stage.memory.peak_op = bad.to_owned();
            for point in &mut stage.memory_profile {
                point.op.push_str(bad);
            }
        }
        let two = result("o/2", "plain.peft", "full", 1, 0.7, 20 << 20);
        let page = html(&Report::new(&[one, two], Some(bad)));
        assert!(!page.contains("<script"), "a name became markup");
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)"));
        assert!(!page.contains('\u{7}'));
        assert_eq!(escape("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
    }

    #[test]
    fn the_page_loads_nothing_and_has_every_chart() {
        let results = [
            result("o/1", "lora.peft", "lora", 1, 0.8, 10 << 20),
            result("o/2", "lora.peft", "lora", 2, 0.9, 12 << 20),
            result("o/3", "full.peft", "full", 1, 0.7, 40 << 20),
        ];
        let page = html(&Report::new(&results, None));
        assert!(
            ["src=", "href=", "url(", "@import", "http"]
                .iter()
                .all(|p| !page.contains(p))
        );
        // The scatter, losses, the dev metric and a profile a row.
        assert_eq!(page.matches("<svg").count(), 3 + 2);
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(page.contains("prefers-color-scheme"));
        assert!(page.contains("0.8500 ± 0.0707"));
    }
}
