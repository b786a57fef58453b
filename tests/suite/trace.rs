//! `-v`, `-vv` and `RUST_LOG`: what is said of what happens inside, and where.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::oracle::reference;
use super::support::{done, program, stderr_of, stdout_of};

fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a scratch directory");
    let dir = place.path();
    std::fs::create_dir_all(dir.join("data")).expect("a folder");
    let rows = "sentence\tlabel\na fine film\tgood\ndull\tbad\n";
    std::fs::write(dir.join("data/train.tsv"), rows).expect("written");
    let text = format!(
        "model m = local \"{}\"\ndata d = local \"data\" {{ text = sentence, label = label }}\n\
         stage s = train {{ model = m, data = d.train, adapter = lora {{ rank = 2 }}, lr = 1e-2, steps = 2, batch = 2 }}\n",
        reference("bert-tiny").display()
    );
    std::fs::write(dir.join("r.peft"), text).expect("written");
    place
}

fn ran(dir: &Path, args: &[&str], log: Option<&str>) -> Output {
    let mut command = program();
    let command = command.current_dir(dir).args(["run", "r.peft"]).args(args);
    done(
        command
            .env_remove("RUST_LOG")
            .envs(log.map(|log| ("RUST_LOG", log))),
    )
}

#[test]
fn what_happens_inside_is_said_on_standard_error_to_who_asks() {
    let place = place();
    let dir = place.path();
    let first = ran(dir, &["-v"], None);
    let said = stderr_of(&first);
    for line in [
        "read; path",
        "data/train.tsv",
        "runs; stage s; entry",
        "why new",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("debug "), "{said}");
    // Results stay what they are.
    let silent = ran(dir, &["--quiet"], None);
    assert_eq!(stderr_of(&silent), "");
    let again = ran(dir, &["--quiet", "-vv"], None);
    assert_eq!(stdout_of(&silent), stdout_of(&again));
    let said = stderr_of(&again);
    assert!(
        said.contains("taken from the store; stage s; entry"),
        "{said}"
    );
    let fresh = ran(dir, &["--quiet", "--fresh"], Some("peftc=debug"));
    let said = stderr_of(&fresh);
    for part in [
        "plan: close",
        "load tensors=",
        "step number=2: close",
        "; time.busy ",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn lines_of_json_stay_lines_of_json() {
    let place = place();
    let output = ran(place.path(), &["-v", "--log-format", "json"], None);
    let said = stderr_of(&output);
    let lines = said
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let lines: Vec<Value> = lines.collect();
    let own = lines
        .iter()
        .find(|own| own["event"] == "trace" && own["message"] == "runs");
    let own = own.expect("why it runs");
    assert_eq!(
        (&own["level"], &own["stage"]),
        (&"info".into(), &"s".into())
    );
    assert!(lines.iter().any(|own| own["event"] == "stage"), "{said}");
}

#[test]
fn a_filter_that_is_none_is_refused() {
    let place = place();
    let mut command = program();
    let command = command.current_dir(place.path()).args(["check", "r.peft"]);
    let output = command
        .env("RUST_LOG", "peftc=loud=x")
        .output()
        .expect("starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr_of(&output).contains("RUST_LOG is"),
        "{}",
        stderr_of(&output)
    );
}
