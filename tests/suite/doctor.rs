//! What `peftc doctor` says of machines with and without a GPU. Drivers are played by scripts.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::{printed, program};

/// `doctor` on a machine whose search path and home are `dir`.
fn doctor(dir: &Path, args: &[&str]) -> Output {
    program()
        .arg("doctor")
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("PATH", dir)
        .env("HOME", dir)
        .output()
        .expect("starts")
}

/// A `nvidia-smi` that prints this.
#[cfg(unix)]
fn smi(dir: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join("nvidia-smi");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
}

/// What is said about a thing to get in the way.
fn problems(json: &Value, about: &str) -> Vec<String> {
    let list = json["problems"].as_array().expect("a list");
    let own = list.iter().filter(|p| p["about"] == about);
    own.map(|p| p["what"].as_str().expect("a text").to_owned())
        .collect()
}

#[test]
fn an_empty_machine_is_told_of_without_failing() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let begun = Instant::now();
    let output = doctor(dir.path(), &[]);
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    for word in ["built", "processor", "memory", "store", "hub", "driver"] {
        assert!(text.contains(&format!("\n  {word} ")), "{word} in {text}");
    }
    let output = doctor(dir.path(), &["--json", "--offline"]);
    assert_eq!(output.status.code(), Some(0));
    let json = printed(&output);
    assert_eq!(json["schema"], 1);
    assert!(json["processor"]["threads"].as_u64() >= Some(1));
    assert_eq!(json["hub"]["offline"], true);
    assert_eq!(json["hub"]["endpoint"], "https://huggingface.co");
    assert_eq!(json["cuda"]["built"], true);
}

#[cfg(unix)]
#[test]
fn a_gpu_is_found_and_matched_with_its_row() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    smi(
        dir.path(),
        "echo 'NVIDIA GeForce RTX 3070, 8192, 7411, 580.65.06'\necho 'NVIDIA H200, 143771, 143000, 580.65.06'",
    );
    let output = doctor(dir.path(), &["--json"]);
    assert_eq!(output.status.code(), Some(0));
    let json = printed(&output);
    let gpus = json["cuda"]["gpus"].as_array().expect("a list");
    assert_eq!(gpus.len(), 2);
    assert_eq!(gpus[0]["profile"], "rtx3070-8gb");
    assert_eq!(gpus[0]["memory_bytes"], 8_u64 << 30);
    assert_eq!(gpus[1]["profile"], "h200-141gb");
    // Its libraries are looked for wherever this machine may have them.
    let said = problems(&json, "cuda");
    let about = |p: &String| p.ends_with("is not found");
    assert!(said.iter().all(about), "{said:?}");
}

#[cfg(unix)]
#[test]
fn what_is_asked_for_and_broken_makes_the_exit_code() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    assert_eq!(
        doctor(dir.path(), &["--device", "cpu"]).status.code(),
        Some(0)
    );
    assert_eq!(
        doctor(dir.path(), &["--device", "cudas"]).status.code(),
        Some(2)
    );
    let card = doctor(dir.path(), &["--device", "rtx3070-8gb"]);
    assert_eq!(card.status.code(), Some(2));
    std::fs::write(dir.path().join("file"), "").expect("written");
    let output = doctor(dir.path(), &["--json", "--store", "file"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(problems(&printed(&output), "store").len(), 1);
    smi(
        dir.path(),
        "echo 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18",
    );
    let output = doctor(dir.path(), &["--json", "--device", "cuda"]);
    assert_eq!(output.status.code(), Some(1));
    let said = problems(&printed(&output), "cuda").join("\n");
    assert!(said.contains("version mismatch"), "{said}");
    // Told, but not asked for.
    assert_eq!(doctor(dir.path(), &[]).status.code(), Some(0));
}
