//! The small commands beside `check` and `run`: what data are, a first recipe, two plans, what there is.

use std::path::Path;
use std::process::Command;

use super::support::{done, here, program, result, stderr_of, stdout_of};

fn peftc(dir: &Path, args: &[&str]) -> Command {
    let mut command = program();
    command.args(args).current_dir(dir);
    command
}

/// A folder with files of data.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let mut rows = String::from("id\tsentence\tlabel\n");
    for i in 0..40 {
        let label = if i % 4 == 0 { "bad" } else { "good" };
        rows.push_str(&format!("{i}\tthe film number {i} is {label}\t{label}\n"));
    }
    rows.push_str("40\t\tgood\n7\tthe film number 7 is good\tgood\n");
    std::fs::write(dir.path().join("films.tsv"), rows).expect("written");
    let scores: String = (0..20)
        .map(|i| format!("{{\"text\": \"a text {i}\", \"score\": {}.5}}\n", i % 7))
        .collect();
    std::fs::write(dir.path().join("scores.jsonl"), scores).expect("written");
    let few = "sentence\tlabel\na warm film\tgood\nit is dull\tbad\nthe best of all\tgood\nwhat a mess\tbad\n";
    std::fs::write(dir.path().join("few.tsv"), few).expect("written");
    dir
}

#[test]
fn data_are_told_with_their_classes_and_doubts() {
    let dir = folder();
    let told = result(
        &peftc(dir.path(), &["data", "films.tsv", "--json"])
            .output()
            .expect("starts"),
    );
    assert_eq!(
        (&told["rows"], &told["duplicates"]),
        (&42.into(), &1.into())
    );
    assert_eq!(told["duplicate_lines"], serde_json::json!([43]));
    let columns = told["columns"].as_array().expect("a list");
    assert_eq!(
        columns[2]["values"],
        serde_json::json!({ "bad": 10, "good": 32 })
    );
    assert_eq!(
        (&columns[1]["empty"], &columns[1]["empty_lines"]),
        (&1.into(), &serde_json::json!([42]))
    );
    assert_eq!(columns[0]["kind"], "numbers");
    let text = stdout_of(&done(&mut peftc(dir.path(), &["data", "films.tsv"])));
    assert!(
        text.contains("label: good 32, bad 10") && text.contains("42 rows"),
        "{text}"
    );
    let wrong = peftc(dir.path(), &["data", "none.tsv"])
        .output()
        .expect("starts");
    assert_eq!(wrong.status.code(), Some(1));
}

#[test]
fn a_first_recipe_is_written_and_is_right() {
    let dir = folder();
    let model = here().join("tests/reference/bert-tiny");
    let model = model.to_str().expect("UTF-8");
    for (data, output, objective) in [
        ("films.tsv", "a.peft", "objective = classify"),
        ("scores.jsonl", "b.peft", "objective = regress"),
        ("few.tsv", "few.peft", "dev = 25%"),
    ] {
        let args = ["init", data, model, "--output", output, "--offline"];
        let said = stdout_of(&done(&mut peftc(dir.path(), &args)));
        assert!(said.contains(&format!("peftc run {output}")), "{said}");
        let text = std::fs::read_to_string(dir.path().join(output)).expect("written");
        assert!(text.contains(objective), "{text}");
        done(&mut peftc(dir.path(), &["check", output, "--offline"]));
        done(&mut peftc(dir.path(), &["fmt", "--check", output]));
        let again = peftc(dir.path(), &args).output().expect("starts");
        assert_eq!(again.status.code(), Some(2), "{}", stderr_of(&again));
    }
    // A model without a head for the next token: the recipe would be rejected, and is not written.
    let args = [
        "init",
        "films.tsv",
        model,
        "--output",
        "c.peft",
        "--offline",
        "--task",
        "causal_lm",
    ];
    let refused = peftc(dir.path(), &args).output().expect("starts");
    assert_eq!(refused.status.code(), Some(2), "{}", stderr_of(&refused));
    assert!(!dir.path().join("c.peft").exists());
}

#[test]
fn two_plans_and_what_there_is_are_listed() {
    let dir = folder();
    let model = here().join("tests/reference/bert-tiny");
    let recipe = |rank: u32| {
        format!(
            "model m = local \"{}\"\ndata d = local \"films.tsv\" {{ text = sentence, label = label }}\n\
             stage learn = train {{ model = m, data = d.train, adapter = lora {{ rank = {rank} }}, lr = 1e-3, steps = 1, batch = 4 }}\n",
            model.display()
        )
    };
    std::fs::write(dir.path().join("a.peft"), recipe(2)).expect("written");
    let more = format!(
        "{}stage score = eval {{ from = learn, data = d.train }}\n",
        recipe(4)
    );
    std::fs::write(dir.path().join("b.peft"), more).expect("written");
    let diff = |a: &str, b: &str| {
        result(
            &peftc(dir.path(), &["diff", a, b, "--json", "--offline"])
                .output()
                .expect("starts"),
        )
    };
    let told = diff("a.peft", "b.peft");
    let stages = told["stages"].as_array().expect("a list");
    assert_eq!(
        (&stages[0]["state"], &stages[1]["state"]),
        (&"changed".into(), &"new".into())
    );
    assert_eq!(stages[0]["runs"], true);
    let changes = stages[0]["changes"].to_string();
    assert!(changes.contains("rank"), "{changes}");
    done(&mut peftc(
        dir.path(),
        &["run", "b.peft", "--offline", "--quiet"],
    ));
    let told = diff("b.peft", "b.peft");
    let stages = told["stages"].as_array().expect("a list");
    assert!(
        stages
            .iter()
            .all(|s| s["state"] == "the same" && s["runs"] == false),
        "{told}"
    );
    let text = stdout_of(&done(&mut peftc(
        dir.path(),
        &["diff", "a.peft", "b.peft", "--offline"],
    )));
    assert!(text.contains("rank"), "{text}");
    let runs = result(
        &peftc(dir.path(), &["runs", "--json"])
            .output()
            .expect("starts"),
    );
    assert_eq!(runs["runs"][0]["stages"].as_array().map(Vec::len), Some(2));
    let text = stdout_of(&done(&mut peftc(dir.path(), &["runs"])));
    assert!(text.contains("accuracy"), "{text}");
}

#[test]
fn shells_and_man_pages_know_every_command() {
    let dir = folder();
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout_of(&done(&mut peftc(dir.path(), &["completions", shell])));
        assert!(
            ["check", "store", "lsp", "init"]
                .iter()
                .all(|c| script.contains(c)),
            "{shell}"
        );
    }
    done(&mut peftc(dir.path(), &["man", "pages"]));
    let page =
        |name: &str| std::fs::read_to_string(dir.path().join("pages").join(name)).expect(name);
    assert!(page("peftc.1").contains("peftc\\-check(1)"));
    assert!(page("peftc-check.1").contains("\\-\\-budget"));
    assert!(page("peftc-store-gc.1").contains("\\-\\-keep"));
}
