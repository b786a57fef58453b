//! How well each class is predicted, for the page: precision, recall and F1, and the table of labels and predictions.

use std::fmt::Write as _;

use super::looks::Look;
use super::page::{escape, wide};
use super::read::{ByClass, ClassResult};
use super::{Group, Row};

/// Rows of the report that are shown; of more, the first.
const ROWS: usize = 24;
/// Classes that are shown; of more, those with the most rows.
const CLASSES: usize = 20;
/// Classes up to which labels and predictions are shown as a table.
const WHOLE: usize = 12;
/// Mistakes that are listed where they are not.
const LISTED: usize = 8;

/// A figure a row whose evaluation says how well each class is predicted; empty if none does.
#[must_use]
pub fn figures(group: &Group) -> String {
    let rows = group.rows.iter().enumerate();
    let all: Vec<(usize, &Row, &ByClass)> = rows
        .filter_map(|(i, row)| Some((i, row, row.by_class.as_ref()?)))
        .collect();
    let mut out: String = all
        .iter()
        .take(ROWS)
        .map(|(i, r, c)| figure(*i, r, c))
        .collect();
    if let Some(more) = all.len().checked_sub(ROWS).filter(|n| *n > 0) {
        let _ = write!(
            out,
            "<p class='note'>{more} more rows by class are in their result.json.</p>"
        );
    }
    out
}

fn figure(index: usize, row: &Row, by: &ByClass) -> String {
    let of = if row.runs > 1 {
        ", the first of its runs"
    } else {
        ""
    };
    let stage = row
        .scored_by
        .first()
        .map_or("its own evaluation", String::as_str);
    format!(
        "<figure><figcaption><h3>{}{}</h3><p>by {}{of}</p></figcaption>{}{}</figure>\n",
        Look::of(index).swatch(),
        escape(&row.name),
        escape(stage),
        scores(by),
        confusion(by)
    )
}

fn scores(by: &ByClass) -> String {
    let mut all: Vec<&ClassResult> = by.classes.iter().collect();
    let total = all.len();
    if total > CLASSES {
        all.sort_by_key(|c| std::cmp::Reverse(c.support));
        all.truncate(CLASSES);
    }
    let mut out = String::from("<table><thead><tr><th scope='col'>class</th>");
    for title in ["precision", "recall", "F1", "support"] {
        let _ = write!(out, "<th scope='col' class='number'>{title}</th>");
    }
    out.push_str("</tr></thead><tbody>\n");
    for class in &all {
        let _ = write!(out, "<tr><th scope='row'>{}</th>", escape(&class.name));
        for share in [class.precision, class.recall, class.f1] {
            let _ = write!(out, "<td class='number'>{share:.4}</td>");
        }
        let _ = writeln!(out, "<td class='number'>{}</td></tr>", class.support);
    }
    out.push_str("</tbody></table>");
    let mut out = wide(&out, "", "table");
    if total > all.len() {
        let rest = total - all.len();
        let _ = writeln!(
            out,
            "<p class='note'>{rest} more classes are in result.json.</p>"
        );
    }
    out
}

/// The table of labels and predictions, each cell shaded by its share of the label's rows; or the most
/// frequent mistakes.
fn confusion(by: &ByClass) -> String {
    let matrix = by.confusion.as_ref().filter(|_| by.classes.len() <= WHOLE);
    let Some(matrix) = matrix else {
        let mistakes = by.confused.iter().take(LISTED).map(|m| {
            let (label, predicted) = (escape(&m.label), escape(&m.prediction));
            format!("<li>{} of {label} as {predicted}</li>", m.rows)
        });
        let list: String = mistakes.collect();
        return if list.is_empty() {
            String::new()
        } else {
            format!(
                "<p class='note'>Taken for another most often:</p><ul class='note'>{list}</ul>\n"
            )
        };
    };
    let mut out = String::from(
        "<table class='confusion'><thead><tr><th scope='col'>label \\ prediction</th>",
    );
    for class in &by.classes {
        let _ = write!(
            out,
            "<th scope='col' class='number'>{}</th>",
            escape(&class.name)
        );
    }
    out.push_str("</tr></thead><tbody>\n");
    for (class, row) in by.classes.iter().zip(matrix) {
        let all: u64 = row.iter().sum();
        let _ = write!(out, "<tr><th scope='row'>{}</th>", escape(&class.name));
        for rows in row {
            let share = *rows as f64 / all.max(1) as f64;
            let _ = write!(
                out,
                "<td class='number' style='--share:{share:.3}'>{rows}</td>"
            );
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table>");
    wide(&out, "", "table")
}

#[cfg(test)]
mod tests {
    use super::super::Report;
    use super::super::read::Mistake;
    use super::super::rows::tests::result;
    use super::*;

    fn by_class(classes: usize) -> ByClass {
        ByClass {
            classes: (0..classes)
                .map(|i| ClassResult {
                    name: format!("<c{i}>"),
                    support: 10 + i as u64,
                    precision: 0.5,
                    recall: 0.25,
                    f1: 1.0 / 3.0,
                })
                .collect(),
            confusion: Some(vec![vec![3; classes]; classes]),
            confused: vec![Mistake {
                label: "<c1>".to_owned(),
                prediction: "<c0>".to_owned(),
                rows: 77,
            }],
        }
    }

    fn page(classes: usize) -> String {
        let mut one = result("o/1", "lora.peft", "lora", 1, 0.8, 10 << 20);
        for stage in one.stages.iter_mut().filter(|s| s.kind == "eval") {
            stage.by_class = by_class(classes);
        }
        super::super::page::html(&Report::new(&[one], None))
    }

    #[test]
    fn the_title_of_a_column_says_whose_f1_it_is() {
        let titled = |classes: [&str; 2]| {
            let results: Vec<_> = (0..)
                .zip(classes)
                .map(|(seed, class)| {
                    let name = ["lora", "full"][seed as usize];
                    let mut one = result(&format!("o/{seed}"), "r.peft", name, seed, 0.8, 10 << 20);
                    for stage in one.stages.iter_mut().filter(|s| s.kind == "eval") {
                        let value = Some(0.5 + 0.1 * seed as f64);
                        stage.metrics.insert("f1".to_owned(), value);
                        stage.f1_class = Some(class.to_owned());
                    }
                    one
                })
                .collect();
            super::super::page::html(&Report::new(&results, None))
        };
        assert!(titled(["spam", "spam"]).contains(">f1 of spam</th>"));
        assert!(titled(["spam", "ham"]).contains(">f1 of unlike classes</th>"));
        let long = titled([&"x".repeat(50), &"x".repeat(50)]);
        assert!(long.contains(&format!(">f1 of {}…</th>", "x".repeat(20))));
    }

    #[test]
    fn the_page_has_a_table_of_classes_and_one_of_mistakes() {
        let few = page(2);
        assert!(few.contains("<th scope='row'>&lt;c1&gt;</th><td class='number'>0.5000</td>"));
        assert_eq!(few.matches("style='--share:0.500'").count(), 4);
        assert!(!few.contains("<c1>"));
        let many = page(2_000);
        assert!(many.contains("1980 more classes"));
        assert!(many.contains("77 of &lt;c1&gt; as &lt;c0&gt;"));
        assert!(!many.contains("style='--share"));
        assert!(many.len() < 200_000);
        assert!(!page(0).contains("By class"));
    }
}
