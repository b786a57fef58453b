//! What tests of the whole program share: how it is started, what it said, and the files beside it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The program, as nobody's terminal would have it print.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command.env_remove("COLUMNS").env_remove("NO_COLOR");
    command
}

/// What it gives, which has to be success.
pub fn done(command: &mut Command) -> Output {
    let output = command.output().expect("starts");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        stderr_of(&output)
    );
    output
}

/// Its standard error.
pub fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Its standard output.
pub fn stdout_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The one JSON value on its standard output.
pub fn printed(output: &Output) -> Value {
    let text = &output.stdout;
    serde_json::from_slice(text).unwrap_or_else(|e| panic!("{e}: {}", stderr_of(output)))
}

/// The same of one that has to have succeeded.
pub fn result(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr_of(output));
    printed(output)
}

/// The repository's root, which is the working directory of tests.
pub fn here() -> PathBuf {
    std::env::current_dir().expect("a working directory")
}

/// The JSON value of a file.
pub fn json(path: impl AsRef<Path>) -> Value {
    let path = path.as_ref();
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The JSON values of a file's lines.
pub fn json_lines(path: impl AsRef<Path>) -> Vec<Value> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let value = |line| serde_json::from_str(line).expect("a line of JSON");
    text.lines().map(value).collect()
}

/// Loss curves of methods whose first values are ours: `tests/reference/methods/*.json`, in the order of their names.
pub fn method_curves() -> Vec<Value> {
    let folder = std::fs::read_dir("tests/reference/methods").expect("the reference is there");
    let paths = folder.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = paths
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    let curves = files
        .iter()
        .map(|path| json(path)["curves"].as_array().expect("curves").clone());
    curves.flatten().collect()
}

/// The numbers of a JSON list.
pub fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list").iter();
    list.map(|x| x.as_f64().expect("a number")).collect()
}

/// How far two lists of as many numbers are apart where they are farthest.
pub fn farthest(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "{a:?} {b:?}");
    let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    apart.fold(0.0, f64::max)
}

/// What a stage of a run came to.
pub fn stage<'a>(result: &'a Value, name: &str) -> &'a Value {
    let mut all = result["stages"].as_array().expect("stages").iter();
    all.find(|s| s["name"] == name).expect("a stage")
}

/// Holds the bytes of every stage that has both figures to those that were estimated.
pub fn assert_exact(result: &Value) {
    for stage in result["stages"].as_array().expect("stages") {
        let bytes = |key: &str| stage[key].as_f64();
        if let Some((is, said)) = bytes("measured_peak_bytes").zip(bytes("estimated_peak_bytes")) {
            assert!((0.98..=1.0).contains(&(is / said)), "{stage}");
        }
    }
}

/// Runs a recipe, kills the run once the stage has made a few of its steps, and runs it again to its end.
pub fn run_with_a_kill(recipe: &Path, stage: &str, steps: usize) {
    let start = || {
        let mut command = program();
        command.args([
            "run",
            "--quiet",
            "--threads",
            "2",
            "--checkpoint-every",
            "0",
        ]);
        command.arg(recipe);
        command
    };
    let name = recipe.file_stem().expect("a name").to_string_lossy();
    let log = recipe.with_file_name(format!(".peftc/runs/{name}/{stage}/metrics.jsonl"));
    let done_so_far = || std::fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    let mut child = start().spawn().expect("starts");
    while child.try_wait().expect("waited for").is_none() && done_so_far() < 5 {
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("waited for");
    assert!(
        done_so_far() < steps,
        "the run was over before it was killed"
    );
    done(&mut start());
}
