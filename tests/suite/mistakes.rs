//! Several mistakes of meaning at once, in recipes of every kind: each is named, nothing else is, and nothing panics.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use peftc::base::{Severity, SourceId};
use peftc::cli::world::RealWorld;
use peftc::driver::compile;
use peftc::program::op::Machine;
use peftc::syntax::parse;

#[path = "../mistakes/mod.rs"]
mod net;

use net::recipe::Recipe;
use net::within::{Beside, extremes, use_up};
use net::{Case, Dice, bases, kinds};

/// Of mistakes in a recipe alone, and of values at their bounds, one in so many is tried in the gate, others in each recipe.
const SHARE: usize = 4;
/// Drawn cases in the gate; `cargo run --release --example mistakes` runs as many as one likes.
const CASES: u64 = 300;
/// Combinations of the cases in `tests/cases`.
const COMBINED: u64 = 150;

/// A folder with the files the recipes name, and the world that reads them.
fn place() -> (tempfile::TempDir, Beside) {
    let folder = tempfile::tempdir().expect("a folder");
    bases::files(folder.path());
    let world = RealWorld::with_cache(true, folder.path().join("cache"));
    (folder, Beside::new(world))
}

#[test]
fn the_recipes_without_mistakes_are_valid() {
    let (folder, world) = place();
    for base in bases::bases() {
        let case = Case {
            base: base.clone(),
            recipe: base,
            mistakes: Vec::new(),
        };
        let compiled = case.compile(folder.path(), &world);
        assert!(
            compiled.plan.is_some() && compiled.diags.is_empty(),
            "{}\n{:#?}",
            case.recipe.print().0,
            compiled.diags
        );
    }
}

/// Fails with what is wrong about some cases.
fn none(wrong: &[String]) {
    let some: Vec<&str> = wrong.iter().take(12).map(String::as_str).collect();
    assert!(
        wrong.is_empty(),
        "{} complaints:\n{}",
        wrong.len(),
        some.join("\n---\n")
    );
}

#[test]
fn each_mistake_alone_is_named_and_nothing_else() {
    let (folder, world) = place();
    let mut wrong = Vec::new();
    for (b, (base, known)) in net::all().into_iter().enumerate() {
        for mistake in known.into_iter().skip(b % SHARE).step_by(SHARE) {
            let mut recipe = base.clone();
            mistake.edits.iter().for_each(|edit| recipe.apply(edit));
            let case = Case {
                base: base.clone(),
                recipe,
                mistakes: vec![mistake],
            };
            let compiled = case.compile(folder.path(), &world);
            for complaint in case.complaints(&compiled) {
                wrong.push(format!("{complaint}\n{}", case.recipe.print().0));
            }
        }
    }
    none(&wrong);
}

#[test]
fn mistakes_together_are_each_named() {
    let (folder, world) = place();
    let all = net::all();
    let mut drawn: BTreeSet<String> = BTreeSet::new();
    let mut wrong = Vec::new();
    for index in 0..CASES {
        let case = Case::draw(1, index, &all);
        drawn.extend(case.mistakes.iter().map(|m| m.code.clone()));
        let compiled = case.compile(folder.path(), &world);
        for complaint in case.complaints(&compiled) {
            wrong.push(format!(
                "case {index}: {complaint}\n{}",
                case.recipe.print().0
            ));
        }
    }
    none(&wrong);
    let known = all.iter().flat_map(|(_, known)| known);
    let known: BTreeSet<String> = known.map(|m| m.code.clone()).collect();
    assert_eq!(drawn, known, "each is drawn");
}

/// An annotated recipe of `tests/cases`.
struct Annotated {
    path: PathBuf,
    text: String,
    /// Severity, line and code of all that must be reported.
    wanted: Vec<(bool, usize, String)>,
    sweeps: bool,
}

/// Those that can stand beside others: without arguments, and without what concerns a file or a recipe as a whole.
fn annotated() -> Vec<Annotated> {
    const ALONE: [&str; 5] = [
        "syntax::too_deep",
        "syntax::misplaced_header",
        "syntax::unsupported_version",
        "resolve::axis_without_effect",
        "plan::shared_target",
    ];
    let entries = std::fs::read_dir("tests/cases").expect("cases").flatten();
    let mut paths: Vec<PathBuf> = entries.map(|e| e.path()).collect();
    paths.sort();
    let mut list = Vec::new();
    for path in paths {
        if path.extension().is_none_or(|e| e != "peft") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("text");
        let wanted: Vec<(bool, usize, String)> = text
            .lines()
            .filter_map(|l| l.strip_prefix("# ")?.split_once(": "))
            .filter(|(severity, _)| matches!(*severity, "error" | "warning"))
            .map(|(severity, rest)| {
                let (line, code) = rest.split_once(" [").expect("`# error: LINE [code]`");
                let code = code.trim_end_matches(']').to_owned();
                (severity == "error", line.parse().expect("a line"), code)
            })
            .collect();
        let alone = wanted.iter().any(|(.., c)| ALONE.contains(&c.as_str()))
            || path.ends_with("import_circle.peft");
        let args = text.lines().find_map(|l| l.strip_prefix("# args: "));
        if args.is_some_and(|args| args != "--offline") || alone {
            continue;
        }
        let sweeps = text.contains("\nsweep ");
        list.push(Annotated {
            path,
            text,
            wanted,
            sweeps,
        });
    }
    list
}

/// The text with every name that it declares under another one.
fn renamed(text: &str, ending: &str) -> String {
    const KEYWORDS: [&str; 6] = ["model", "data", "prompt", "stage", "let", "sweep"];
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for line in text.lines() {
        let mut words = line.split([' ', '=', '{']).filter(|w| !w.is_empty());
        if words.next().is_some_and(|w| KEYWORDS.contains(&w)) {
            names.extend(words.next());
        }
    }
    let mut out = String::new();
    for line in text.lines() {
        let sweep = line.starts_with("sweep ");
        let mut rest = line;
        let mut quoted = line.starts_with('#');
        let mut dotted = false;
        let mut first = true;
        while let Some(c) = rest.chars().next() {
            let word: usize = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            if quoted || word == 0 {
                quoted ^= c == '"';
                dotted = c == '.';
                out.push(c);
                rest = &rest[c.len_utf8()..];
                continue;
            }
            let (name, behind) = rest.split_at(word);
            out.push_str(name);
            // A key is no name, but for those of sweeps; nor is the keyword that a line begins with.
            let key = behind.trim_start().starts_with('=') && !sweep && !declares(line, name);
            if names.contains(name) && !key && !dotted && !first {
                out.push_str(ending);
            }
            (rest, first, dotted) = (behind, false, false);
        }
        out.push('\n');
    }
    out
}

/// Whether a line declares a name.
fn declares(line: &str, name: &str) -> bool {
    let mut words = line.split([' ', '=']).filter(|w| !w.is_empty());
    words.next().is_some_and(|w| w != name) && words.next() == Some(name)
}

/// Codes that are not combined with others, each with the reason.
const EXCUSED: [(&str, &str); 8] = [
    ("exec::one_prediction", "found after a run"),
    ("exec::strange_tags", "found after a run"),
    (
        "plan::no_kernel",
        "concerns a device; `device.rs` and its case have it",
    ),
    (
        "plan::not_shared",
        "concerns several ranks; its case has it",
    ),
    (
        "plan::shared_target",
        "concerns a recipe in which nothing else is wrong",
    ),
    (
        "plan::unkept_tokens",
        "depends on the folder they would be kept in; `tokens.rs` has it",
    ),
    ("resolve::unreadable_recipe", "there is no recipe then"),
    (
        "stage::no_gradient",
        "guards against an entry of the library that leaves a trained tensor out of the loss",
    ),
];

#[test]
fn every_code_is_drawn() {
    let all = net::all();
    let mut drawn: BTreeSet<String> = all
        .iter()
        .flat_map(|(_, known)| known.iter().map(|m| m.code.clone()))
        .collect();
    for one in annotated() {
        drawn.extend(one.wanted.into_iter().map(|(.., code)| code));
    }
    let codes: BTreeSet<String> = peftc::driver::codes().map(|c| c.name.to_owned()).collect();
    let missing: Vec<&String> = codes.difference(&drawn).collect();
    let excused: Vec<&str> = EXCUSED.iter().map(|(code, _)| *code).collect();
    assert_eq!(missing, excused);
}

/// The texts one behind the other, in a file of `tests/cases`; what must be reported of them all.
fn combined(chosen: &[&Annotated]) -> (String, Vec<(bool, usize, String)>) {
    let mut text = String::new();
    let mut wanted = Vec::new();
    for (i, one) in chosen.iter().enumerate() {
        let before = text.matches('\n').count();
        text.push_str(&renamed(&one.text, &format!("_{i}")));
        let shifted = one.wanted.iter();
        wanted.extend(shifted.map(|(error, line, code)| (*error, line + before, code.clone())));
    }
    wanted.sort();
    (text, wanted)
}

#[test]
fn what_is_wrong_in_one_declaration_hides_nothing_in_others() {
    let all = annotated();
    assert!(
        all.len() > 80 && all.len() as u64 <= COMBINED,
        "{}",
        all.len()
    );
    let folder = Path::new("tests/cases").canonicalize().expect("cases");
    let cache = tempfile::tempdir().expect("a folder");
    let files = Beside::new(RealWorld::with_cache(true, cache.path().to_path_buf()));
    let mut wrong = Vec::new();
    for index in 0..COMBINED {
        let mut dice = Dice::new(2, index);
        // Each of them once, and others beside it.
        let mut chosen: Vec<&Annotated> = vec![&all[index as usize % all.len()]];
        while chosen.len() < 3 {
            let one = &all[dice.below(all.len())];
            let sweeps = chosen.iter().any(|o| o.sweeps);
            if !(one.sweeps && sweeps || chosen.iter().any(|o| o.path == one.path)) {
                chosen.push(one);
            }
        }
        let (text, mut wanted) = combined(&chosen);
        // Beside a piece of text, or an import, that cannot be read, what it may hold is not missed.
        let unread = |code: &str| code.starts_with("syntax::") || code == "resolve::bad_import";
        let unread = wanted.iter().any(|(.., code)| unread(code));
        if unread {
            wanted.retain(|(.., code)| !MISSED.contains(&code.as_str()));
        }
        wanted.retain(|(.., code)| !DOUBTS.contains(&code.as_str()));
        let path = folder.join("combined.peft");
        files.write(&path, &text);
        let compiled = compile(&path, &[], &files, &Machine::cpu(1));
        let mut found: Vec<(bool, usize, String)> = compiled
            .diags
            .iter()
            .map(|d| {
                let at = d.span.map_or(0, |s| s.start as usize);
                let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
                let error = d.severity == Severity::Error;
                (error, line, d.code.name.to_owned())
            })
            .collect();
        found.retain(|(.., code)| !DOUBTS.contains(&code.as_str()));
        found.sort();
        if found != wanted {
            let names: Vec<_> = chosen.iter().map(|c| c.path.display()).collect();
            wrong.push(format!(
                "case {index}, {names:?}:\nfound  {found:?}\nwanted {wanted:?}\n{text}"
            ));
        }
    }
    none(&wrong);
}

/// Doubts about data, which are told of recipes without a mistake.
const DOUBTS: [&str; 7] = [
    "plan::one_class",
    "plan::null_class",
    "plan::shared_rows",
    "plan::unseen_class",
    "plan::imbalanced_classes",
    "plan::sorted_labels",
    "plan::unfit_tokenizer",
];

/// What is not said to be missing beside an unreadable piece of text.
const MISSED: [&str; 5] = [
    "resolve::missing_key",
    "resolve::dangling_name",
    "resolve::unknown_variable",
    "resolve::unknown_axis",
    "resolve::empty_sweep",
];

#[test]
fn what_is_no_recipe_is_told_as_such_and_never_read_without_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = RealWorld::with_cache(true, folder.path().join("cache"));
    let large = folder.path().join("large.peft");
    std::fs::write(&large, "# a comment\n".repeat(500_000)).expect("written");
    let bytes = folder.path().join("bytes.peft");
    std::fs::write(&bytes, [0xff, 0xfe, 0x00]).expect("written");
    let nowhere = folder.path().join("nowhere.peft");
    for (path, what) in [
        (nowhere.as_path(), "there is no such file"),
        (large.as_path(), "at most 4.00 MiB"),
        (bytes.as_path(), "not UTF-8"),
        (Path::new("/dev/zero"), "a device or a pipe"),
        (folder.path(), "directory"),
    ] {
        let compiled = compile(path, &[], &world, &Machine::cpu(1));
        let [diag] = compiled.diags.as_slice() else {
            panic!("{}: {:?}", path.display(), compiled.diags);
        };
        assert_eq!(diag.code.name, "resolve::unreadable_recipe");
        assert!(diag.message.contains(what), "{}", diag.message);
    }
}

/// A recipe of one stage, with a text in the place of its adapter, on a model of so many blocks.
fn with_adapter(folder: &Path, adapter: &str, blocks: u64) -> String {
    let config = bases::CONFIG.replace(
        "\"num_hidden_layers\": 3",
        &format!("\"num_hidden_layers\": {blocks}"),
    );
    std::fs::write(folder.join("m/config.json"), config).expect("written");
    format!(
        "model m = local \"m\" {{ init = random }}\ndata d = local \"d\" {{ text = sentence, label = label }}\n\
         stage s = train {{ model = m, data = d.train, adapter = {adapter}, lr = 1e-3, steps = 2 }}\n"
    )
}

#[test]
fn what_would_never_end_is_refused_at_once() {
    let (folder, world) = place();
    let path = folder.path().join("case.peft");
    let deep = format!("attention.{}", ["{a, b}"; 12].join("."));
    let row = ["a"; 200_000].join(".");
    for (adapter, blocks, code) in [
        (format!("lora {{ on = {row} }}"), 3, "resolve::unknown_role"),
        (
            format!("lora {{ on = {deep} }}"),
            3,
            "resolve::out_of_bounds",
        ),
        ("full".to_owned(), 1_000_000_000, "plan::bad_model"),
        ("full".to_owned(), 2_000, "plan::bad_model"),
    ] {
        world.write(&path, &with_adapter(folder.path(), &adapter, blocks));
        let begun = std::time::Instant::now();
        let compiled = compile(&path, &[], &world, &Machine::cpu(1));
        let codes: Vec<&str> = compiled.diags.iter().map(|d| d.code.name).collect();
        assert_eq!(codes, [code], "{adapter} {blocks}");
        assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    }
}

#[test]
fn very_many_mistakes_and_names_take_no_time() {
    let (folder, world) = place();
    let path = folder.path().join("case.peft");
    let lets: String = (0..20_000)
        .map(|i| format!("let a{i} = a{}\n", i + 1))
        .collect();
    let dangling: String = (0..2000)
        .map(|i| format!("stage s{i} = train {{ model = m{i}, data = ; , adapter = a{i} }}\n"))
        .collect();
    let values: Vec<String> = (0..50_000).map(|i| i.to_string()).collect();
    let axis = format!(
        "let x = 1\nsweep y = grid {{ x = [{}] }}\n",
        values.join(", ")
    );
    let stages: String = (0..5000)
        .map(|i| format!("stage s{i} = eval {{ from = s{} }}\n", i + 1))
        .collect();
    for text in [lets, dangling, axis, stages] {
        world.write(&path, &text);
        let begun = std::time::Instant::now();
        let compiled = compile(&path, &[], &world, &Machine::cpu(1));
        assert!(compiled.rejected() || compiled.plan.is_some());
        // What looks at each name for each name takes minutes; a busy machine takes ten seconds.
        assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    }
    // Files that import each other in a long row end in an error, not in a full stack.
    for i in 0..200 {
        let text = format!("import \"row{}.peft\"\n", i + 1);
        world.write(&folder.path().join(format!("row{i}.peft")), &text);
    }
    let compiled = compile(
        &folder.path().join("row0.peft"),
        &[],
        &world,
        &Machine::cpu(1),
    );
    let codes: Vec<&str> = compiled.diags.iter().map(|d| d.code.name).collect();
    assert_eq!(codes, ["resolve::bad_import"]);
}

#[test]
fn renaming_leaves_a_recipe_what_it_was() {
    for one in annotated() {
        let items = |text: &str| {
            let file = parse(text, SourceId(0)).value;
            file.map_or(0, |f| f.items.len())
        };
        let text = renamed(&one.text, "_7");
        assert_eq!(items(&one.text), items(&text), "{text}");
        assert_eq!(one.text.lines().count(), text.lines().count());
    }
}

#[test]
fn values_at_their_bounds_never_panic() {
    let (folder, world) = place();
    let mut seen = 0;
    for (b, base) in bases::bases().into_iter().enumerate() {
        for edit in extremes(&base).into_iter().skip(b % SHARE).step_by(SHARE) {
            let mut recipe = base.clone();
            recipe.apply(&edit);
            let case = Case {
                base: base.clone(),
                recipe,
                mistakes: Vec::new(),
            };
            let begun = std::time::Instant::now();
            let compiled = case.compile(folder.path(), &world);
            use_up(compiled);
            assert!(
                begun.elapsed().as_secs() < 20,
                "{edit:?} takes {:?}",
                begun.elapsed()
            );
            seen += 1;
        }
    }
    assert!(seen > 200 / SHARE, "{seen}");
}

/// A recipe whose text is not read from a file is no part of these.
#[test]
fn a_drawn_case_prints_as_it_is_compiled() {
    let all: Vec<(Recipe, Vec<kinds::Mistake>)> = net::all();
    let case = Case::draw(1, 7, &all);
    let (text, lines) = case.recipe.print();
    assert_eq!(lines.len(), case.recipe.decls.len());
    for (decl, lines) in case.recipe.decls.iter().zip(lines) {
        let first = text.lines().nth(lines.start - 1).unwrap_or_default();
        assert!(first.contains(&decl.name), "{first}");
    }
}
