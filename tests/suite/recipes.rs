//! The shipped recipes: each checks without a complaint and is formatted.

use std::process::Command;

fn recipes() -> Vec<std::path::PathBuf> {
    let mut list = Vec::new();
    let mut folders = vec![std::path::PathBuf::from("recipes")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("recipes").flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with(".peftc") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "peft") {
                list.push(path);
            }
        }
    }
    list.sort();
    list
}

#[test]
fn shipped_recipes_check_and_are_formatted() {
    let list = recipes();
    assert!(list.len() >= 5, "{list:?}");
    for command in [vec!["check"], vec!["fmt", "--check"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_peftc"))
            .args(command)
            .args(&list)
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_HOME", "/nonexistent")
            .output()
            .expect("starts");
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        // The report's models and data are on the hub: what is not at hand is told, and nothing else.
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = [
            "assumed_lengths",
            "assumed_model",
            "bad_tokenizer",
            "unknown_identity",
        ];
        for code in stderr.lines().filter(|l| l.starts_with("peftc::")) {
            assert!(told.iter().any(|t| code.ends_with(t)), "{code}");
        }
        assert!(
            !stderr.contains("recipes/reviews") && !stderr.contains("quickstart"),
            "{stderr}"
        );
    }
}
