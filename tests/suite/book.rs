//! The book in `docs/book`: its commands are run and print what it shows, its links lead somewhere, its summary lists
//! every page, and the pages of methods, blocks and codes are those of the registry.
//!
//! A block ` ```console ` holds commands behind `$ ` and, behind each, lines of what it prints: in order, with `…` for what is
//! left out of a line or between lines. `console,exit=3` says how the last command of the block ends. A block with
//! `file=NAME` is written to that file first. A page has a folder of its own, with the shipped recipes in `recipes`.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

mod pages;

pub const BOOK: &str = "docs/book/src";

/// The Markdown files below a folder, by their way from it.
fn files(folder: &Path, below: &Path, list: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let (path, way) = (entry.path(), below.join(entry.file_name()));
        match path.is_dir() {
            true => files(&path, &way, list),
            false if way.extension().is_some_and(|e| e == "md") => list.push(way),
            false => {}
        }
    }
    list.sort();
}

fn book() -> Vec<PathBuf> {
    let mut list = Vec::new();
    files(Path::new(BOOK), Path::new(""), &mut list);
    list
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A fenced block: the words behind the fence, and the lines in it.
struct Block {
    words: Vec<String>,
    lines: Vec<String>,
}

impl Block {
    fn is(&self, kind: &str) -> bool {
        self.words.first().is_some_and(|word| word == kind)
    }

    fn value(&self, key: &str) -> Option<&str> {
        let mut words = self.words.iter();
        words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }
}

fn blocks(page: &str) -> Vec<Block> {
    let (mut list, mut open) = (Vec::new(), None::<Block>);
    for line in page.lines() {
        let fence = line.strip_prefix("```");
        if let Some(mut block) = open.take() {
            if fence.is_some() {
                list.push(block);
            } else {
                block.lines.push(line.to_owned());
                open = Some(block);
            }
        } else if let Some(info) = fence {
            open = Some(Block {
                words: info.split(',').map(|word| word.trim().to_owned()).collect(),
                lines: Vec::new(),
            });
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    list
}

/// The recipes as a clone has them. Data and models are links: nothing writes to them, and stores lie in the copy.
fn recipes(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let (path, there) = (entry.path(), to.join(entry.file_name()));
        let own = path.file_name().is_some_and(|name| name == ".peftc");
        if path.is_dir() && !own {
            recipes(&path, &there);
        } else if path.extension().is_some_and(|e| e == "peft") {
            std::fs::copy(&path, &there).expect("copied");
        } else if !own {
            std::os::unix::fs::symlink(path.canonicalize().expect("there"), &there)
                .expect("linked");
        }
    }
}

/// Runs a line of the book as a shell does, and gives what it printed and how it ended.
fn ran(line: &str, dir: &Path, path: &str) -> (String, i32) {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{{ {line}\n}} 2>&1"));
    command
        .env_remove("NO_COLOR")
        .env("COLUMNS", "80")
        .env("PATH", path);
    command
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", dir.join("hub"));
    let output = command
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("starts");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    (printed, output.status.code().unwrap_or(-1))
}

/// Whether a line is what the book shows of it.
fn shows(shown: &str, line: &str) -> bool {
    let parts: Vec<&str> = shown.trim().split('…').map(str::trim).collect();
    let mut rest = line.trim();
    for (i, part) in parts.iter().enumerate() {
        let Some(at) = rest.find(part) else {
            return false;
        };
        if i == 0 && at > 0 {
            return false;
        }
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.is_empty() || parts.last().is_some_and(|last| last.is_empty())
}

/// The lines that the book shows and the command has not printed, or not in this order.
fn missing<'a>(shown: &[&'a str], printed: &str) -> Option<&'a str> {
    let mut lines = printed.lines();
    let told = shown.iter().filter(|line| !matches!(line.trim(), "" | "…"));
    told.copied()
        .find(|shown| !lines.any(|line| shows(shown, line)))
}

/// Runs what a page has to run; gives the commands.
fn run_page(page: &Path) -> Vec<String> {
    let blocks = blocks(&text(&Path::new(BOOK).join(page)));
    if !blocks.iter().any(|block| block.is("console")) {
        return Vec::new();
    }
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let dir = scratch.path();
    recipes(Path::new("recipes"), &dir.join("recipes"));
    let programs = Path::new(env!("CARGO_BIN_EXE_peftc"))
        .parent()
        .expect("a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", programs.display());
    let (mut commands, mut wrong) = (Vec::new(), Vec::new());
    for block in &blocks {
        if let Some(name) = block.value("file") {
            let there = dir.join(name);
            std::fs::create_dir_all(there.parent().expect("a folder")).expect("made");
            std::fs::write(there, block.lines.join("\n") + "\n").expect("written");
        }
        if !block.is("console") {
            continue;
        }
        let starts: Vec<usize> = (0..block.lines.len())
            .filter(|i| block.lines[*i].starts_with("$ "))
            .collect();
        assert_eq!(
            starts.first(),
            Some(&0),
            "{}: a console block begins with a command",
            page.display()
        );
        for (k, start) in starts.iter().enumerate() {
            let end = starts.get(k + 1).copied().unwrap_or(block.lines.len());
            let line = block.lines[*start].trim_start_matches("$ ");
            let shown: Vec<&str> = block.lines[start + 1..end]
                .iter()
                .map(String::as_str)
                .collect();
            let wanted = block.value("exit").filter(|_| k + 1 == starts.len());
            let (printed, code) = ran(line, dir, &path);
            let code_wanted = wanted.map_or(0, |code| code.parse().expect("an exit code"));
            let lost = missing(&shown, &printed);
            if code != code_wanted || lost.is_some() {
                let lost = lost
                    .map(|line| format!("\nnot printed: {line}"))
                    .unwrap_or_default();
                wrong.push(format!(
                    "{}: `{line}` ends with {code}{lost}\n{printed}",
                    page.display()
                ));
            }
            commands.push(line.to_owned());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    commands
}

/// Commands of the program that the book has no example of, each with the reason.
const WITHOUT_EXAMPLE: &[(&str, &str)] = &[("lsp", "an editor starts it"), ("help", "clap's own")];

#[test]
fn every_command_of_the_book_runs_and_prints_what_it_shows() {
    let mut pages = book();
    pages.push(PathBuf::from("../../../README.md"));
    let commands: Vec<String> = pages.iter().flat_map(|page| run_page(page)).collect();
    assert!(commands.len() > 40, "{} commands", commands.len());
    let help = super::support::program()
        .arg("--help")
        .output()
        .expect("starts");
    let help = super::support::stdout_of(&help);
    let listed = help
        .split("Commands:")
        .nth(1)
        .and_then(|rest| rest.split("Options:").next());
    let names = listed.expect("a list of commands").lines();
    let names = names.filter_map(|line| {
        line.strip_prefix("  ")?
            .split(' ')
            .next()
            .filter(|name| !name.is_empty())
    });
    let used = |name: &str| {
        commands
            .iter()
            .any(|line| line.contains(&format!("peftc {name}")))
    };
    let known = |name: &str| WITHOUT_EXAMPLE.iter().any(|(known, _)| *known == name);
    let lost: Vec<&str> = names.filter(|name| !used(name) && !known(name)).collect();
    assert!(lost.is_empty(), "the book has no example of {lost:?}");
}

/// The targets of a page's links, without those that leave the book or name a place in the page.
fn links(page: &str) -> Vec<String> {
    let mut list = Vec::new();
    let mut code = false;
    for line in page.lines() {
        code ^= line.starts_with("```");
        let shown = if code { "" } else { line };
        let mut parts = shown.split("](");
        parts.next();
        for part in parts {
            let target = part.split([')', '#', ' ']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                list.push(target.to_owned());
            }
        }
    }
    list
}

/// A way without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut way, part| {
        match part {
            Component::ParentDir if way.file_name().is_some() && !way.ends_with("..") => {
                way.pop();
            }
            Component::CurDir => {}
            part => way.push(part),
        }
        way
    })
}

/// A page with what it includes.
fn whole(page: &Path) -> String {
    let own = text(page);
    let lines = own.lines().map(|line| {
        let target = line
            .strip_prefix("{{#include ")
            .and_then(|rest| rest.strip_suffix("}}"));
        target.map_or(line.to_owned(), |way| {
            text(&page.parent().expect("a folder").join(way))
        })
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_summary_lists_every_page_and_every_link_leads_to_a_file() {
    let root = Path::new(BOOK);
    let summary = links(&text(&root.join("SUMMARY.md")));
    let listed: BTreeSet<PathBuf> = summary.iter().map(PathBuf::from).collect();
    assert_eq!(
        listed.len(),
        summary.len(),
        "a page stands in the summary twice"
    );
    let mut there: BTreeSet<PathBuf> = book().into_iter().collect();
    there.remove(Path::new("SUMMARY.md"));
    let unlisted: Vec<_> = there.difference(&listed).collect();
    assert!(unlisted.is_empty(), "not in the summary: {unlisted:?}");
    let mut wrong = Vec::new();
    for page in listed.iter().map(|way| root.join(way)) {
        let folder = page.parent().expect("a folder");
        for target in links(&whole(&page)) {
            // Inside the book, a link has to lead to a page of it: mdbook copies nothing else.
            let there = plain(&folder.join(&target));
            if !there.is_file() || !there.starts_with(root) {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
    }
    for page in ["README.md", "recipes/README.md"].map(Path::new) {
        let folder = page.parent().expect("a folder");
        let lost = links(&text(page))
            .into_iter()
            .filter(|target| !folder.join(target).exists());
        wrong.extend(lost.map(|target| format!("{}: {target}", page.display())));
    }
    assert!(
        wrong.is_empty(),
        "links that lead nowhere:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn what_a_page_shows_is_compared_in_order() {
    let printed = "one 12 MiB\ntwo\nthree 4 s\n";
    assert_eq!(missing(&["one … MiB", "…", "three …"], printed), None);
    assert_eq!(missing(&["two", "one … MiB"], printed), Some("one … MiB"));
    assert_eq!(missing(&["one"], printed), Some("one"));
    assert_eq!(missing(&["one … s"], printed), Some("one … s"));
}
