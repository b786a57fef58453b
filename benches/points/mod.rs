//! What benches that train point by point share: reading their arguments, writing texts, running `peftc`.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A number that an argument gives.
pub fn one<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

/// Names with commas between them, each of which has to be known.
pub fn some_of(text: &str, known: &[&str]) -> Result<Vec<String>, String> {
    let check = |name: &str| match known.contains(&name) {
        true => Ok(name.to_owned()),
        false => Err(format!("`{name}` is none of {}", known.join(", "))),
    };
    text.split(',').map(check).collect()
}

/// The written part of a list, or the whole.
pub fn or_all<T: Clone>(written: &[T], all: impl IntoIterator<Item = T>) -> Vec<T> {
    if written.is_empty() {
        all.into_iter().collect()
    } else {
        written.to_vec()
    }
}

/// Why a file could not be read or written.
pub fn io(error: std::io::Error) -> String {
    error.to_string()
}

/// A data set of `rows` texts in two classes.
pub fn write_data(dir: &Path, rows: u64, text: impl Fn(u64) -> String) -> Result<(), String> {
    std::fs::create_dir_all(dir).map_err(io)?;
    let lines: String = (0..rows)
        .map(|i| format!("{}\t{}\n", text(i), i % 2))
        .collect();
    std::fs::write(dir.join("train.tsv"), format!("sentence\tlabel\n{lines}")).map_err(io)
}

/// The configuration of a model, in a folder of its own.
pub fn write_config(dir: &Path, config: &Value) -> Result<(), String> {
    std::fs::create_dir_all(dir).map_err(io)?;
    std::fs::write(dir.join("config.json"), config.to_string()).map_err(io)
}

/// Writes a recipe and gives it to a command of `peftc`, in a process of its own: the JSON it prints.
pub fn peftc(command: &[&str], recipe: &Path, text: &str) -> Result<Value, String> {
    std::fs::write(recipe, text).map_err(io)?;
    let output = Command::new(env!("CARGO_BIN_EXE_peftc"))
        .args(command)
        .args(["--quiet", "--json"])
        .arg(recipe)
        .output()
        .map_err(io)?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())
}
