//! Annotated mistakes: each file in `tests/cases` names, in comments, the codes that `check` must
//! report and the line of each: `# error: LINE [code]`, `# warning: LINE [code]`. `# args: …` gives
//! it further arguments. The folder `files` holds what the cases refer to.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use super::support::{printed, program};

/// Codes without a case, each with the reason.
const WITHOUT_CASE: &[(&str, &str)] = &[
    (
        "plan::unkept_tokens",
        "depends on the folder they would be kept in; `tokens.rs` has it",
    ),
    (
        "exec::one_prediction",
        "found after a run; `classes.rs` has it",
    ),
    (
        "exec::strange_tags",
        "found after a run; `token_classify.rs` has it",
    ),
    (
        "resolve::unreadable_recipe",
        "there is no recipe then; `mistakes.rs` has it",
    ),
    (
        "stage::no_gradient",
        "guards against an entry of the library that leaves a trained tensor out of the loss; none does",
    ),
];

/// The annotated recipes.
fn cases() -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir("tests/cases")
        .expect("cases")
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "peft"))
        .collect();
    files.sort();
    files
}

/// What a case says must be reported: severity, line and code, sorted.
fn annotations(text: &str) -> Vec<(String, u64, String)> {
    let mut wanted: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# ")?.split_once(": "))
        .filter(|(severity, _)| matches!(*severity, "error" | "warning"))
        .map(|(severity, rest)| {
            let (line, code) = rest.split_once(" [").expect("`# error: LINE [code]`");
            (
                severity.to_owned(),
                line.parse().expect("a line"),
                code.trim_end_matches(']').to_owned(),
            )
        })
        .collect();
    wanted.sort();
    wanted
}

/// `peftc list codes`.
fn codes() -> Vec<String> {
    let list = program().args(["list", "codes"]).output().expect("starts");
    let text = String::from_utf8(list.stdout).expect("text");
    text.lines()
        .map(|code| code.trim_start_matches("peftc::").to_owned())
        .collect()
}

#[test]
fn every_case_reports_exactly_its_codes() {
    let no_cache = tempfile::tempdir().expect("a scratch directory");
    for path in cases() {
        let text = std::fs::read_to_string(&path).expect("text");
        let wanted = annotations(&text);
        assert!(!wanted.is_empty(), "{}", path.display());
        let args = text.lines().find_map(|l| l.strip_prefix("# args: "));
        let output = program()
            .env("HF_HOME", no_cache.path())
            .args(["check", "--json", "--quiet"])
            .args(args.unwrap_or_default().split_whitespace())
            .arg(&path)
            .output()
            .expect("starts");
        let rejected = wanted.iter().any(|(severity, ..)| severity == "error");
        let code = if rejected { 2 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{}", path.display());
        let json: Value = printed(&output);
        let mut found: Vec<_> = json["recipes"][0]["diagnostics"]
            .as_array()
            .expect("diagnostics")
            .iter()
            .map(|d| {
                let text = |key: &str| d[key].as_str().expect("a text").to_owned();
                (
                    text("severity"),
                    d["line"].as_u64().expect("a line"),
                    text("code").trim_start_matches("peftc::").to_owned(),
                )
            })
            .collect();
        found.sort();
        assert_eq!(found, wanted, "{}", path.display());
    }
}

#[test]
fn every_code_has_a_case_or_a_reason_why_not() {
    let seen: BTreeSet<String> = cases()
        .iter()
        .flat_map(|p| annotations(&std::fs::read_to_string(p).expect("text")))
        .map(|(_, _, code)| code)
        .collect();
    let codes: BTreeSet<String> = codes().into_iter().collect();
    let excused: BTreeSet<String> = WITHOUT_CASE.iter().map(|(c, _)| (*c).to_owned()).collect();
    let missing: Vec<_> = codes.difference(&seen).collect();
    assert_eq!(missing, excused.iter().collect::<Vec<_>>());
    assert!(seen.is_subset(&codes));
}

#[test]
fn every_code_is_explained() {
    let codes = codes();
    assert!(codes.len() > 30);
    for code in codes {
        let output = program().args(["explain", &code]).output().expect("starts");
        assert!(
            output.status.success() && output.stdout.len() > code.len() + 60,
            "{code} is not explained"
        );
    }
}
