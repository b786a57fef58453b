//! The layers: a module imports only from those below it, and only some of them know the outside.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Modules from the ground up; those of one row do not see each other.
const LAYERS: &[&[&str]] = &[
    &["base"],
    &["syntax", "program", "linalg"],
    &["library"],
    &["resolve", "files"],
    &["plan"],
    &["exec"],
    &["driver"],
    &["report", "editor", "cluster"],
    &["cli"],
];

/// Rooms of `exec` from the ground up: a room sees only those before it, so that no two files of different rooms see
/// each other.
const ROOMS: &[&str] = &[
    "observe",
    "ranks",
    "backend",
    "interpreter",
    "checkpoint",
    "store",
    "load",
    "features",
    "generate",
    "export",
    "stage",
    "predict",
    "run",
];

/// Crates of the outside world and the only modules that may know them.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("axum", &["cli"]),
    ("clap", &["cli"]),
    ("lsp_server", &["cli"]),
    ("lsp_types", &["cli"]),
    ("indicatif", &["cli"]),
    ("miette", &["cli"]),
    ("tokio", &["cli"]),
    ("tracing_subscriber", &["cli"]),
    ("ureq", &["cli"]),
    ("pest", &["syntax"]),
    ("petgraph", &["plan"]),
    ("tokenizers", &["library"]),
    ("parquet", &["library"]),
    ("csv", &["library", "report", "exec"]),
    ("toml", &["cluster"]),
    ("faer", &["linalg", "library"]),
    ("mpi", &["exec"]),
    ("safetensors", &["files", "exec"]),
];

/// Files that cut numbers to fewer bits on purpose. Everywhere else a count becomes a `u32` by `library::counts`.
const CUT: &[(&str, &str)] = &[
    ("exec/backend/alloc.rs", "digits"),
    ("exec/backend/cuda/kernels.rs", "bytes of a C string"),
    ("exec/backend/rehearsed.rs", "a double of a GPU, for tests"),
    ("exec/export/gguf.rs", "a hash"),
    (
        "library/data/set/cells.rs",
        "a whole float that is in bounds",
    ),
    (
        "library/method/supertuning.rs",
        "a whole float that is in bounds",
    ),
    (
        "library/method/unfreeze.rs",
        "an exponent that is in bounds",
    ),
    ("library/model/rope.rs", "a float that is in bounds"),
    ("library/numpy.rs", "words of a generator"),
    (
        "library/task/next_token.rs",
        "a class that a program put into a float",
    ),
    ("library/tokenizer/mod.rs", "a segment that is in bounds"),
    ("library/torch.rs", "words of a generator"),
    ("cli/lsp/server.rs", "a constant of the protocol"),
    ("cli/logs/tensorboard.rs", "digits"),
];

/// The sources of both crates.
const SOURCES: [&str; 2] = ["src", "crates/core/src"];

fn sources(folder: &Path, list: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            // A folder of a module of tests is one, too.
            if !path.ends_with("launch_tests") && !path.ends_with("tests") {
                sources(&path, list);
            }
        } else if path.extension().is_some_and(|e| e == "rs")
            && !path.to_string_lossy().ends_with("tests.rs")
        {
            list.push(path);
        }
    }
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// What writes to the terminal, and the only files that may.
const WRITERS: &[&str] = &[
    "println!",
    "eprintln!",
    "print!(",
    "eprint!(",
    "::stdout()",
    "::stderr()",
    "dbg!(",
];

/// Text from outside must not act on a terminal; `cli/output.rs` sees to that, so all goes through it.
#[test]
fn only_one_file_writes_to_the_terminal() {
    let mut list = Vec::new();
    SOURCES
        .iter()
        .for_each(|folder| sources(Path::new(folder), &mut list));
    let mut wrong = Vec::new();
    // One writes, one asks what is there, and one says a number where nothing may be allocated.
    let known = ["cli/output.rs", "cli/screen.rs", "exec/backend/alloc.rs"];
    let writes = |p: &&PathBuf| !known.iter().any(|k| p.ends_with(k));
    for path in list.iter().filter(writes) {
        let text = std::fs::read_to_string(path).expect("a source");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in code.lines().map(str::trim).filter(|l| !l.starts_with("//")) {
            // To ask what is there, or to draw a bar of numbers, is not to write.
            let asks = line.contains("is_terminal()") || line.contains("terminal_size");
            let draws = line.contains("ProgressDrawTarget::stderr()");
            if WRITERS.iter().any(|w| line.contains(w)) && !asks && !draws {
                wrong.push(format!("{}: {line}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_layer_sees_only_those_below_it() {
    let mut list = Vec::new();
    SOURCES
        .iter()
        .for_each(|folder| sources(Path::new(folder), &mut list));
    assert!(list.len() > 100);
    let mut wrong = Vec::new();
    for path in list {
        let inside = SOURCES
            .iter()
            .find_map(|folder| path.strip_prefix(folder).ok())
            .expect("inside")
            .to_string_lossy()
            .into_owned();
        let own = inside
            .split(['/', '.'])
            .next()
            .unwrap_or_default()
            .to_owned();
        let Some(height) = rank(&own) else {
            assert!(
                matches!(own.as_str(), "lib" | "main"),
                "`{own}` is in no layer"
            );
            continue;
        };
        let text = std::fs::read_to_string(&path).expect("a source");
        // Unit tests may look anywhere.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in code.lines().map(str::trim).filter(|l| !l.starts_with("//")) {
            for part in line.split("crate::").skip(1) {
                let module: String = part
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .collect();
                if rank(&module).is_some_and(|r| r >= height && module != own) {
                    wrong.push(format!("{}: `{own}` sees `{module}`", path.display()));
                }
            }
            for (outside, homes) in OUTSIDE {
                let named = line.starts_with(&format!("use {outside}::"))
                    || line.contains(&format!(" {outside}::"));
                if named && !homes.contains(&own.as_str()) {
                    wrong.push(format!("{}: `{own}` knows `{outside}`", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The modules that a source of `exec` names, each by its way from `exec` on.
fn named_rooms(code: &str, own: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for line in code.lines().map(str::trim).filter(|l| !l.starts_with("//")) {
        let ways = line.split("crate::exec::").skip(1).map(|rest| (0, rest));
        // `super::` of a file's module is the folder's; each further one goes up by one.
        let up = line.match_indices("super::").filter(|(at, _)| {
            let before = line.get(..*at).unwrap_or_default();
            !before.ends_with("super::") && !before.ends_with(|c: char| c.is_ascii_alphanumeric())
        });
        let up = up.map(|(at, _)| {
            let mut rest = line.get(at..).unwrap_or_default();
            let mut ups = 0;
            while let Some(behind) = rest.strip_prefix("super::") {
                (rest, ups) = (behind, ups + 1);
            }
            (ups, rest)
        });
        for (ups, rest) in ways.chain(up) {
            if ups == 0 || ups == own.len() {
                let names = rest.strip_prefix('{').unwrap_or(rest);
                let names = match rest.starts_with('{') {
                    true => names.split(',').collect(),
                    false => vec![names],
                };
                found.extend(names.iter().map(|name| {
                    let word = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
                    name.trim().chars().take_while(word).collect::<String>()
                }));
            }
        }
    }
    found
}

#[test]
fn every_room_of_the_executor_sees_only_those_before_it() {
    let root = Path::new("src/exec");
    let (mut list, mut wrong, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    sources(root, &mut list);
    for path in list {
        let inside = path.strip_prefix(root).expect("inside").with_extension("");
        let mut own: Vec<&str> = inside.iter().filter_map(|part| part.to_str()).collect();
        own.retain(|part| *part != "mod");
        let Some(room) = own.first() else {
            continue;
        };
        let height = |room: &str| ROOMS.iter().position(|r| *r == room);
        let Some(own_height) = height(room) else {
            panic!("`exec/{room}` is in no row of the table of rooms");
        };
        seen.insert((*room).to_owned());
        let text = std::fs::read_to_string(&path).expect("a source");
        let code = text.split("#[cfg(test)]\nmod").next().unwrap_or_default();
        // What a run needs of the planner, it asks the plan for.
        for line in code.lines().filter(|line| line.contains("crate::plan::")) {
            let asked = ["Plan;", "{Plan, Stage};", "{Plan, Served};", "Stage;"];
            let known = asked.map(|types| format!("use crate::plan::{types}"));
            if !known.contains(&line.trim().to_owned()) {
                wrong.push(format!("{}: {}", path.display(), line.trim()));
            }
        }
        for name in named_rooms(code, &own) {
            match height(&name) {
                Some(other) if other > own_height => {
                    wrong.push(format!("{}: `{room}` sees `{name}`", path.display()));
                }
                Some(_) => {}
                // What `exec` re-exports has no room.
                None => wrong.push(format!("{}: `{name}` is no room", path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let rooms: BTreeSet<String> = ROOMS.iter().map(|r| (*r).to_owned()).collect();
    assert_eq!(seen, rooms);
    let circle = "use super::super::run::Options;\nuse crate::exec::{store, run::run};";
    let names = named_rooms(circle, &["store", "care"]);
    assert_eq!(names, ["run", "store", "run"].map(str::to_owned));
}

/// Follows the plain `mod name;` lines of a source file, as rustfmt does: not those that a macro makes.
fn follow(path: &Path, is_root: bool, seen: &mut BTreeSet<PathBuf>) {
    if !seen.insert(path.canonicalize().expect("a source")) {
        return;
    }
    let folder = path.parent().expect("a folder");
    let stem = path
        .file_stem()
        .and_then(|s| s.to_str())
        .unwrap_or_default();
    let below = match is_root || stem == "mod" {
        true => folder.to_path_buf(),
        false => folder.join(stem),
    };
    let text = std::fs::read_to_string(path).expect("a source");
    let mut named: Option<&str> = None;
    // What a macro makes is indented.
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("#[path = \"") {
            named = path.strip_suffix("\"]");
            continue;
        }
        let code = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(") ").map_or("", |(_, c)| c),
            Some(rest) => rest.trim_start(),
            None => line,
        };
        let module = code.strip_prefix("mod ").and_then(|m| m.strip_suffix(';'));
        if let Some(module) = module {
            let nested = below.join(module).join("mod.rs");
            let next = match named.take() {
                Some(path) => folder.join(path),
                None if nested.is_file() => nested,
                None => below.join(format!("{module}.rs")),
            };
            let is_root = next.file_name().is_some_and(|n| n == "mod.rs");
            follow(&next, is_root, seen);
        } else if !line.starts_with('#') {
            named = None;
        }
    }
}

/// `cargo fmt --check` passes over a file whose module a macro declares.
#[test]
fn rustfmt_sees_every_source() {
    let mut seen = BTreeSet::new();
    let mut roots: Vec<PathBuf> = [
        "src/lib.rs",
        "src/main.rs",
        "crates/core/src/lib.rs",
        "tests/suite/main.rs",
    ]
    .map(PathBuf::from)
    .into();
    for folder in ["benches", "examples"] {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            match path.extension().is_some_and(|e| e == "rs") {
                true => roots.push(path),
                false => roots.extend(Some(path.join("main.rs")).filter(|p| p.is_file())),
            }
        }
    }
    for root in &roots {
        follow(root, true, &mut seen);
    }
    let mut unseen = Vec::new();
    let mut count = 0;
    for folder in ["src", "crates", "tests", "benches", "examples"] {
        all_sources(Path::new(folder), &mut |path| {
            count += 1;
            if !seen.contains(&path.canonicalize().expect("a source")) {
                unseen.push(path.display().to_string());
            }
        });
    }
    assert!(count > 300, "{count} sources");
    assert!(
        unseen.is_empty(),
        "no `mod` line names {}",
        unseen.join(", ")
    );
}

#[test]
fn counts_become_narrower_in_one_place() {
    let narrower = ["u32", "u16", "u8", "i32", "i16", "i8"].map(|name| format!(" as {name}"));
    let mut cutting = BTreeSet::new();
    all_sources(Path::new("src"), &mut |path| {
        let text = std::fs::read_to_string(path).expect("a source");
        let own = path.strip_prefix("src").expect("a file below it");
        let tests = own.to_string_lossy().ends_with("tests.rs");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_cut = |line: &str| {
            narrower.iter().any(|cast| {
                let after = line.split(cast.as_str()).skip(1);
                let mut ends = after.map(|rest| !rest.starts_with(char::is_alphanumeric));
                ends.any(|ends| ends)
            })
        };
        if !tests
            && code
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && is_cut(line))
        {
            cutting.insert(own.to_string_lossy().into_owned());
        }
    });
    let known: BTreeSet<String> = CUT.iter().map(|(file, _)| (*file).to_owned()).collect();
    assert_eq!(cutting, known, "see `library/counts.rs`");
}

fn all_sources(folder: &Path, each: &mut dyn FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            all_sources(&path, each);
        } else if path.extension().is_some_and(|e| e == "rs") {
            each(&path);
        }
    }
}

/// What the image is built from lacks what `.dockerignore` names, and cargo refuses a manifest whose targets are not there.
#[test]
fn the_image_gets_what_its_build_reads() {
    let text = |path: &str| std::fs::read_to_string(path).expect("a file");
    let ignored = text(".dockerignore");
    let ignored: BTreeSet<&str> = ignored.lines().map(str::trim).collect();
    let mut read = vec![
        "build.rs",
        "Cargo.lock",
        "Cargo.toml",
        "crates",
        "grammar",
        "src",
    ];
    if text("Cargo.toml").contains("[[bench]]") {
        read.push("benches");
    }
    let dockerfile = text("Dockerfile");
    let copied = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("COPY --from=build "))
        .flat_map(str::split_whitespace)
        .filter_map(|path| path.strip_prefix("/source/"));
    read.extend(copied);
    for path in read {
        let first = path.split('/').next().unwrap_or(path);
        let built = first == "target";
        assert!(built || Path::new(first).exists(), "{path} is not there");
        assert!(built || !ignored.contains(first), "{path} is left out");
    }
}
