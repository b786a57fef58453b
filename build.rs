//! What `peftc --version` says beside the number: the commit and what the build can do.
//!
//! A build for development names no commit: its number would change with every commit, and the crate be compiled anew.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PEFTC_COMMIT");
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let given = std::env::var("PEFTC_COMMIT").ok();
    let commit = given.or_else(|| {
        if release {
            of_git().or_else(of_package)
        } else {
            None
        }
    });
    let commit = commit.filter(|text| {
        text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && !text.is_empty()
    });
    let number = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let target = std::env::var("TARGET").unwrap_or_default();
    let commit = commit.unwrap_or_else(|| {
        if release {
            "no commit known"
        } else {
            "development"
        }
        .to_owned()
    });
    // Every build has CUDA: its libraries are looked for at run time.
    println!("cargo::rustc-env=PEFTC_VERSION={number} ({commit}; {target}; cuda)");
}

/// The commit of a clone, marked where files differ from it.
fn of_git() -> Option<String> {
    let told = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    // In a folder that only lies inside of another project's clone, git would tell of that one.
    let root = told(&["rev-parse", "--show-toplevel"])?;
    let own = Path::new(&root).canonicalize().ok()?
        == std::env::current_dir().ok()?.canonicalize().ok()?;
    let commit = told(&["rev-parse", "--short=10", "HEAD"]).filter(|_| own)?;
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = told(&["rev-parse", "--git-path", file]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let changed = told(&["status", "--porcelain", "--untracked-files=no"])
        .is_some_and(|text| !text.is_empty());
    Some(if changed {
        format!("{commit}-changed")
    } else {
        commit
    })
}

/// The commit that `cargo package` wrote down.
fn of_package() -> Option<String> {
    let text = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let rest = text.split("\"sha1\"").nth(1)?;
    rest.split('"').nth(1)?.get(..10).map(str::to_owned)
}
