//! How an evaluation came out class by class, at the end of a run.

use std::fmt::Write as _;

use serde_json::Value as Json;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::screen::wrap;
use crate::base::units::Count;
use crate::base::visible;

/// Classes that are shown; of more, those with the most rows.
const CLASSES: usize = 16;
/// Classes up to which the table of labels and predictions is shown whole.
const WHOLE: usize = 12;
/// Confusions that are listed where the table is not shown.
const LISTED: usize = 8;
/// Evaluations that are shown; of more, the first.
const STAGES: usize = 4;
/// Characters of a class's name.
const LONGEST: usize = 24;

/// For each evaluation of classes: precision, recall and F1 a class, and what was predicted for what.
pub(super) fn tables(document: &Json, width: usize) -> String {
    let stages = document.get("stages").and_then(Json::as_array);
    let scored: Vec<&Json> = stages
        .into_iter()
        .flatten()
        .filter(|s| list(s, "classes").next().is_some())
        .collect();
    let mut text = String::new();
    for stage in scored.iter().take(STAGES) {
        let _ = writeln!(text, "\n  {}, by class", word(stage, "name"));
        text.push_str(&classes(stage));
        text.push_str(&confusion(stage, width));
        for warning in list(stage, "warnings") {
            let line = format!(
                "warning: {} ({})",
                word(warning, "message"),
                word(warning, "code")
            );
            text.push_str(&wrap(&visible::line(&line), width, "    "));
        }
    }
    if let Some(more) = scored.len().checked_sub(STAGES).filter(|n| *n > 0) {
        let _ = writeln!(
            text,
            "\n  {more} more evaluations by class are in result.json"
        );
    }
    text
}

fn list<'a>(json: &'a Json, key: &str) -> impl Iterator<Item = &'a Json> {
    json.get(key).and_then(Json::as_array).into_iter().flatten()
}

fn word<'a>(json: &'a Json, key: &str) -> &'a str {
    json.get(key).and_then(Json::as_str).unwrap_or_default()
}

fn count(json: &Json, key: &str) -> u64 {
    json.get(key).and_then(Json::as_u64).unwrap_or(0)
}

/// A class's name on one line, cut where it takes many columns.
pub(super) fn short(name: &str) -> String {
    let plain = visible::line(name);
    if plain.width() <= LONGEST {
        return plain.into_owned();
    }
    let mut head = String::new();
    for c in plain.chars() {
        if head.width() + c.width().unwrap_or(0) >= LONGEST {
            break;
        }
        head.push(c);
    }
    head.push('…');
    head
}

/// Blanks that bring a text to so many columns.
fn blanks(text: &str, columns: usize) -> String {
    " ".repeat(columns.saturating_sub(text.width()))
}

/// Precision, recall, F1 and support, a line a class.
fn classes(stage: &Json) -> String {
    let mut all: Vec<&Json> = list(stage, "classes").collect();
    let total = all.len();
    if total > CLASSES {
        all.sort_by_key(|c| std::cmp::Reverse(count(c, "support")));
        all.truncate(CLASSES);
    }
    let names: Vec<String> = all.iter().map(|c| short(word(c, "name"))).collect();
    let wide = names.iter().map(|n| n.width()).max().unwrap_or(0).max(5);
    let mut text = format!(
        "    {:<wide$} {:>9} {:>8} {:>8} {:>9}\n",
        "class", "precision", "recall", "F1", "support"
    );
    for (class, name) in all.iter().zip(&names) {
        let share = |key: &str| class.get(key).and_then(Json::as_f64).unwrap_or(0.0);
        let _ = writeln!(
            text,
            "    {name}{} {:>9.4} {:>8.4} {:>8.4} {:>9}",
            blanks(name, wide),
            share("precision"),
            share("recall"),
            share("f1"),
            Count(count(class, "support")).to_string()
        );
    }
    if total > all.len() {
        let rest = Count((total - all.len()) as u64);
        let _ = writeln!(text, "    and {rest} more classes; result.json has all");
    }
    text
}

/// The table of labels and predictions, or its greatest mistakes where it has no room.
fn confusion(stage: &Json, width: usize) -> String {
    let names: Vec<String> = list(stage, "classes")
        .map(|c| short(word(c, "name")))
        .collect();
    let cell = |cell: &Json| Count(cell.as_u64().unwrap_or(0)).to_string();
    let rows: Vec<Vec<String>> = list(stage, "confusion")
        .map(|row| row.as_array().into_iter().flatten().map(cell).collect())
        .collect();
    let chars = |text: &String| text.width();
    let wide = names
        .iter()
        .map(chars)
        .max()
        .unwrap_or(0)
        .max("label".len());
    let columns: Vec<usize> = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let cells = rows.iter().filter_map(|row| row.get(i)).map(chars);
            cells.max().unwrap_or(0).max(chars(name))
        })
        .collect();
    let total = 4 + wide + columns.iter().map(|c| c + 2).sum::<usize>();
    let mut text = String::new();
    if rows.is_empty() || names.len() > WHOLE || total > width {
        let mut wrong = list(stage, "confused").peekable();
        if wrong.peek().is_some() {
            text.push_str("    taken for another most often\n");
        }
        for one in wrong.take(LISTED) {
            let (label, predicted) = (short(word(one, "label")), short(word(one, "prediction")));
            let times = Count(count(one, "rows"));
            let line = format!("{times} of {label} as {predicted}");
            text.push_str(&wrap(&line, width, "      "));
        }
        return text;
    }
    let _ = writeln!(text, "    rows by label (down) and prediction (across)");
    let mut line = |first: &str, cells: &[String]| {
        let _ = write!(text, "    {first}{}", blanks(first, wide));
        for (cell, wide) in cells.iter().zip(&columns) {
            let _ = write!(text, "  {}{cell}", blanks(cell, *wide));
        }
        text.push('\n');
    };
    line("label", &names);
    for (name, row) in names.iter().zip(&rows) {
        line(name, row);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stage(classes: u64) -> Json {
        let each: Vec<Json> = (0..classes)
            .map(|i| json!({ "name": format!("c\t{i}"), "support": 10 * i, "precision": 0.5, "recall": 0.25, "f1": 1.0 / 3.0 }))
            .collect();
        let matrix: Vec<Vec<u64>> = (0..classes).map(|i| vec![i; classes as usize]).collect();
        json!({
            "name": "score", "classes": each, "confusion": (classes <= 100).then_some(matrix),
            "confused": [{ "label": "c\t1", "prediction": "c\t0", "rows": 1234 }],
            "warnings": [{ "code": "peftc::exec::one_prediction", "message": "all 9 predictions are `c`, and the labels are of several classes" }],
        })
    }

    #[test]
    fn tables_fit_their_width_and_say_what_they_leave_out() {
        for classes in [2, 9, 100, 2_000] {
            for width in [60, 80, 200] {
                let text = tables(&json!({ "stages": [stage(classes)] }), width);
                assert!(text.lines().all(|l| l.chars().count() <= width), "{text}");
                assert!(!text.contains('\t') && text.lines().count() < 50, "{text}");
                assert!(text.contains("one_prediction"));
            }
        }
        assert_eq!(short("clear \"so\""), "clear \"so\"");
        assert_eq!(short("类别类别类别类别类别类别类别").width(), LONGEST - 1);
        assert_eq!(short(&"x".repeat(25)).width(), LONGEST);
        let few = tables(&json!({ "stages": [stage(2)] }), 80);
        assert!(few.contains("label  c\\t0  c\\t1"), "{few}");
        let many = tables(&json!({ "stages": [stage(2_000)] }), 80);
        assert!(many.contains("and 1,984 more classes"), "{many}");
        assert!(many.contains("1,234 of c\\t1 as c\\t0"), "{many}");
        let swept = tables(&json!({ "stages": vec![stage(2); 9] }), 80);
        assert!(swept.contains("5 more evaluations"), "{swept}");
        assert_eq!(tables(&json!({ "stages": [{ "name": "learn" }] }), 80), "");
    }
}
