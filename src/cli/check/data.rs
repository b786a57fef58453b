//! What `check` tells of the data: a block for people, a list for programs.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use crate::base::units::Count;
use crate::cli::scores::short;
use crate::cli::screen::{JOINED, hung};
use crate::plan::seen::Seen;
use crate::plan::{Plan, render as plan_render};

/// Classes that are named; of more, the most frequent.
const NAMED: usize = 12;
/// Splits that are shown; of more, the first.
const TOLD: usize = 24;

/// The list of `check --json`.
pub(super) fn json(plan: &Plan) -> Json {
    plan.data.iter().map(one).collect()
}

fn one(seen: &Seen) -> Json {
    let found = &seen.findings;
    let classes: Map<String, Json> = seen
        .classes
        .iter()
        .zip(&found.classes)
        .map(|(name, rows)| (name.clone(), json!(rows)))
        .collect();
    let tokens = found.median().map(|median| {
        // Whole numbers as such.
        let median = if median.fract() == 0.0 {
            json!(median as u64)
        } else {
            json!(median)
        };
        json!({ "median": median, "p99": found.p99(), "max": found.longest() })
    });
    let label = found.numbers.map(
        |n| json!({ "min": n.least, "mean": n.sum / found.rows.max(1) as f64, "max": n.most }),
    );
    json!({
        "name": seen.name, "split": seen.split, "rows": found.rows, "classes": classes, "label": label, "tokens": tokens,
        "max_length": seen.max_length, "cut_share": found.cut_share(), "unknown_share": found.unknown_share(),
        "duplicates": found.duplicates, "overlap": seen.overlap, "empty": found.empty, "nulls": found.nulls,
        "stages": seen.stages, "supervision": found.supervision.as_ref().map(plan_render::supervision_json),
    })
}

/// The block for people, in so many columns.
pub(super) fn block(plan: &Plan, width: usize) -> String {
    if plan.data.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n  data\n");
    for seen in plan.data.iter().take(TOLD) {
        let mut title = format!("{}.{}", seen.name, seen.split);
        let others = plan
            .data
            .iter()
            .filter(|o| o.name == seen.name && o.split == seen.split);
        if others.count() > 1 {
            let _ = write!(title, " as `{}` reads it", seen.stages.join("`, `"));
        }
        let _ = writeln!(text, "    {title}");
        for line in lines(seen) {
            text.push_str(&hung(&line, width.max(40), "      ", 8));
        }
    }
    if let Some(more) = plan.data.len().checked_sub(TOLD).filter(|n| *n > 0) {
        let _ = writeln!(text, "    and {more} more; `--json` has all of them");
    }
    text
}

/// What is reported of a split: rows and classes, tokens, and what is doubtful.
fn lines(seen: &Seen) -> Vec<String> {
    let found = &seen.findings;
    let mut first = counted(found.rows, "row", "rows");
    let classes = classes(seen);
    if !classes.is_empty() {
        let _ = write!(first, ": {classes}");
    }
    if let Some(n) = found.numbers {
        let mean = n.sum / found.rows.max(1) as f64;
        let _ = write!(
            first,
            ": labels from {} to {}, mean {mean:.4}",
            n.least, n.most
        );
    }
    let mut list = vec![first];
    if let (Some(median), Some(p99), Some(longest)) = (found.median(), found.p99(), found.longest())
    {
        list.push(format!(
            "tokens: median {median}, 99 % up to {p99}, longest {longest}; {} cut at {}, {} unknown",
            percent(found.cut_share()),
            seen.max_length,
            percent(found.unknown_share())
        ));
    }
    if let Some(learned) = &found.supervision {
        list.push(plan_render::supervision(learned));
    }
    let mut rest: Vec<String> = Vec::new();
    if found.duplicates > 0 {
        rest.push(counted(found.duplicates, "duplicate", "duplicates"));
    }
    for (other, rows) in seen.overlap.iter().filter(|(_, rows)| **rows > 0) {
        rest.push(format!(
            "{} also in `{other}`",
            counted(*rows, "row", "rows")
        ));
    }
    if found.empty > 0 {
        rest.push(counted(found.empty, "empty text", "empty texts"));
    }
    if found.nulls > 0 {
        let what = "text such as `null` or `nan`";
        rest.push(counted(found.nulls, what, "texts such as `null` or `nan`"));
    }
    if rest.is_empty() {
        rest.push("no duplicates, no empty texts".to_owned());
        if !seen.overlap.is_empty() {
            rest.push("no rows in common with other splits".to_owned());
        }
    }
    list.push(rest.join(", "));
    list
}

/// The classes with their rows, the most frequent first.
fn classes(seen: &Seen) -> String {
    let mut all: Vec<(&String, &u64)> = seen.classes.iter().zip(&seen.findings.classes).collect();
    all.sort_by(|a, b| b.1.cmp(a.1));
    let rows = |list: &[(&String, &u64)]| list.iter().map(|(_, n)| **n).sum::<u64>();
    let shown = if all.len() > NAMED + 1 {
        NAMED
    } else {
        all.len()
    };
    let (shown, rest) = all.split_at(shown);
    let mut text: Vec<String> = shown
        .iter()
        .map(|(name, n)| joined(&format!("{} {}", short(name), Count(**n))))
        .collect();
    if !rest.is_empty() {
        text.push(joined(&format!(
            "{} other classes {}",
            Count(rest.len() as u64),
            Count(rows(rest))
        )));
    }
    text.join(", ")
}

/// A text that is not broken between lines.
fn joined(text: &str) -> String {
    text.replace(' ', &JOINED.to_string())
}

fn counted(n: u64, one: &str, several: &str) -> String {
    format!("{} {}", Count(n), if n == 1 { one } else { several })
}

fn percent(share: Option<f64>) -> String {
    match share.unwrap_or(0.0) {
        0.0 => "none".to_owned(),
        x if x < 0.001 => "under 0.1 %".to_owned(),
        x => format!("{:.1} %", 100.0 * x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::data::report::Findings;

    fn seen(classes: usize) -> Seen {
        Seen {
            name: "d".to_owned(),
            split: "train".to_owned(),
            max_length: 16,
            classes: (0..classes).map(|i| format!("class\t{i}")).collect(),
            findings: Findings {
                rows: 10_000,
                classes: (0..classes as u64).collect(),
                lengths: [(4, 9_000), (21, 1_000)].into(),
                cut: 1_000,
                tokens: 40_000,
                unknown: 2,
                duplicates: 1,
                ..Findings::default()
            },
            overlap: [("test".to_owned(), 7)].into(),
            stages: vec!["learn".to_owned()],
        }
    }

    #[test]
    fn the_block_fits_its_width_and_stays_short() {
        let plan = Plan {
            data: vec![seen(2_000); 100],
            ..Plan::default()
        };
        for width in [60, 80, 200] {
            let text = block(&plan, width);
            assert!(text.lines().all(|l| l.chars().count() <= width), "{text}");
            assert!(text.contains("1,988 other classes"), "{text}");
            assert!(text.contains("and 76 more"));
            assert!(text.contains("7 rows also in"));
            assert!(!text.contains('\t'));
        }
        assert_eq!(block(&Plan::default(), 80), "");
    }

    #[test]
    fn the_list_has_the_names_that_programs_rely_on() {
        let plan = Plan {
            data: vec![seen(2)],
            ..Plan::default()
        };
        let json = json(&plan);
        let own = &json[0];
        assert_eq!(own["classes"], json!({ "class\t0": 0, "class\t1": 1 }));
        assert_eq!(own["tokens"], json!({ "median": 4, "p99": 21, "max": 21 }));
        assert_eq!(
            (&own["cut_share"], &own["unknown_share"]),
            (&json!(0.1), &json!(5e-5))
        );
        assert_eq!(own["overlap"], json!({ "test": 7 }));
        assert_eq!(
            (&own["rows"], &own["duplicates"]),
            (&json!(10_000), &json!(1))
        );
    }
}
