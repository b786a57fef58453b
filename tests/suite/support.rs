//! What tests of the whole program share.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The JSON value of a file, by its path from the repository's root.
pub fn json(path: impl AsRef<Path>) -> Value {
    let path = path.as_ref();
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
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
