//! Annotated mistakes: each file in `tests/cases` names, in comments, the codes that `check` must
//! report and the line of each: `# error: LINE [code]`.

use std::process::Command;

use serde_json::Value;

#[test]
fn every_case_reports_exactly_its_codes() {
    let mut seen = 0;
    let mut files: Vec<_> = std::fs::read_dir("tests/cases")
        .expect("cases")
        .flatten()
        .map(|e| e.path())
        .collect();
    files.sort();
    for path in files
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "peft"))
    {
        let text = std::fs::read_to_string(path).expect("text");
        let mut wanted: Vec<(u64, String)> = text
            .lines()
            .filter_map(|l| l.strip_prefix("# error: "))
            .map(|l| {
                let (line, code) = l.split_once(" [").expect("`# error: LINE [code]`");
                (
                    line.parse().expect("a line"),
                    format!("peftc::{}", code.trim_end_matches(']')),
                )
            })
            .collect();
        let output = Command::new(env!("CARGO_BIN_EXE_peftc"))
            .args(["check", "--json", "--quiet"])
            .arg(path)
            .output()
            .expect("starts");
        assert_eq!(output.status.code(), Some(2), "{}", path.display());
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let mut found: Vec<(u64, String)> = json["recipes"][0]["diagnostics"]
            .as_array()
            .expect("diagnostics")
            .iter()
            .filter(|d| d["severity"] == "error")
            .map(|d| {
                (
                    d["line"].as_u64().expect("a line"),
                    d["code"].as_str().expect("a code").to_owned(),
                )
            })
            .collect();
        wanted.sort();
        found.sort();
        assert_eq!(found, wanted, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 15, "{seen}");
}

#[test]
fn every_code_is_explained() {
    let list = Command::new(env!("CARGO_BIN_EXE_peftc"))
        .args(["list", "codes"])
        .output()
        .expect("starts");
    let codes = String::from_utf8(list.stdout).expect("text");
    assert!(codes.lines().count() > 30);
    for code in codes.lines() {
        let output = Command::new(env!("CARGO_BIN_EXE_peftc"))
            .args(["explain", code])
            .output()
            .expect("starts");
        assert!(
            output.status.success() && output.stdout.len() > code.len() + 60,
            "{code} is not explained"
        );
    }
}
