//! The tree-sitter grammar of `editors` at work: `src/parser.c` is compiled, reads all recipes that the compiler reads, and the
//! queries colour them.
#![expect(unsafe_code, reason = "a grammar is C code")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use peftc::base::SourceId;
use peftc::syntax::parse;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use tree_sitter::{Language, Node, Parser, Query, QueryCursor, StreamingIterator as _};

const FOLDER: &str = "editors/tree-sitter-peft";

fn text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The grammar as an editor builds it.
fn language() -> &'static Language {
    static LANGUAGE: OnceLock<Language> = OnceLock::new();
    LANGUAGE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let library = dir.path().join("peft.so");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let built = Command::new(compiler)
            .args(["-shared", "-fPIC", "-I"])
            .arg(format!("{FOLDER}/src"))
            .arg(format!("{FOLDER}/src/parser.c"))
            .arg("-o")
            .arg(&library)
            .status();
        assert!(built.expect("a C compiler").success());
        // SAFETY: the library is what tree-sitter has generated, and stays loaded.
        let library = unsafe { libloading::Library::new(&library) }.expect("loads");
        let library: &'static libloading::Library = Box::leak(Box::new(library));
        // SAFETY: that is the function's type.
        let made = unsafe {
            let made: libloading::Symbol<'_, unsafe extern "C" fn() -> *const ()> =
                library.get(b"tree_sitter_peft").expect("the grammar");
            tree_sitter_language::LanguageFn::from_raw(*made)
        };
        made.into()
    })
}

fn tree(text: &str) -> tree_sitter::Tree {
    let mut parser = Parser::new();
    parser
        .set_language(language())
        .expect("a version that is known");
    parser.parse(text, None).expect("a tree")
}

/// The first place that is no part of a recipe.
fn wrong(text: &str) -> Option<String> {
    let tree = tree(text);
    let mut open = vec![tree.root_node()];
    while let Some(node) = open.pop() {
        if node.is_error() || node.is_missing() {
            return Some(format!("{node:?} in\n{text}"));
        }
        open.extend((0..node.child_count()).filter_map(|i| node.child(i)));
    }
    None
}

fn is_recipe(text: &str) -> bool {
    !parse(text, SourceId(0)).diags.has_errors()
}

/// All recipes of the repository that the compiler can read.
fn recipes() -> Vec<(PathBuf, String)> {
    let (mut found, mut folders) = (Vec::new(), vec!["recipes".into(), "tests/cases".into()]);
    while let Some(folder) = folders.pop() {
        let folder: PathBuf = folder;
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "peft") {
                let text = text(&path);
                found.extend(is_recipe(&text).then_some((path, text)));
            }
        }
    }
    assert!(found.len() > 200, "{}", found.len());
    found
}

#[test]
fn the_parser_is_made_of_the_grammar() {
    let hash = Sha256::digest(text(format!("{FOLDER}/grammar.js")));
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        text(format!("{FOLDER}/src/made_of")),
        format!("{hash}  grammar.js\n"),
        "`{FOLDER}/generate` makes src/parser.c anew"
    );
    // What Helix takes.
    assert_eq!(language().abi_version(), 14);
}

#[test]
fn recipes_are_read_whole() {
    for (path, text) in recipes() {
        assert_eq!(wrong(&text), None, "{}", path.display());
    }
    // A line that is being written leaves the others as they are.
    for half in ["adapter =", "adapter = lora { rank 2 }", "adapter lora"] {
        let text = format!(
            "stage a = train {{\n  {half}\n  batch = 4\n}}\nstage b = eval {{ from = a }}\n"
        );
        let tree = tree(&text).root_node().to_sexp();
        assert!(tree.contains("ERROR") || tree.contains("MISSING"), "{tree}");
        assert_eq!(tree.matches("(declaration").count(), 2, "{tree}");
    }
}

/// Leaves without a colour.
fn plain(query: &Query, text: &str) -> Vec<String> {
    let tree = tree(text);
    let mut coloured = std::collections::BTreeSet::new();
    let mut cursor = QueryCursor::new();
    let mut captures = cursor.captures(query, tree.root_node(), text.as_bytes());
    while let Some((found, i)) = captures.next() {
        coloured.insert(found.captures()[*i].node.byte_range().start);
        // What is inside has the colour, too.
        let range = found.captures()[*i].node.byte_range();
        coloured.extend(range);
    }
    let (mut list, mut open) = (Vec::new(), vec![tree.root_node()]);
    while let Some(node) = open.pop() {
        let node: Node<'_> = node;
        open.extend((0..node.child_count()).filter_map(|i| node.child(i)));
        let own = &text[node.byte_range()];
        if node.child_count() == 0
            && !own.trim().is_empty()
            && !coloured.contains(&node.start_byte())
        {
            list.push(format!("{} {own}", node.kind()));
        }
    }
    list
}

#[test]
fn everything_in_a_recipe_has_a_colour() {
    let query = |name: &str| {
        let path = format!("{FOLDER}/queries/{name}.scm");
        Query::new(language(), &text(&path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    let highlights = query("highlights");
    for (path, text) in recipes() {
        assert_eq!(
            plain(&highlights, &text),
            Vec::<String>::new(),
            "{}",
            path.display()
        );
    }
    let text = "model m = local \"x\" # c\nlet a = true\n";
    let tree = tree(text);
    let mut cursor = QueryCursor::new();
    let mut captures = cursor.captures(&highlights, tree.root_node(), text.as_bytes());
    let mut named = Vec::new();
    while let Some((found, i)) = captures.next() {
        let capture = found.captures()[*i];
        let name = highlights.capture_names()[capture.index as usize];
        named.push(format!("{} {name}", &text[capture.node.byte_range()]));
    }
    for wanted in [
        "model keyword",
        "m variable",
        "local function",
        "\"x\" string",
        "# c comment",
        "true boolean",
        "let keyword",
    ] {
        assert!(named.iter().any(|n| n == wanted), "{wanted}: {named:?}");
    }
    for other in ["folds", "indents"] {
        assert!(query(other).pattern_count() > 0);
    }
}

fn any(list: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    proptest::sample::select(list).prop_map(str::to_owned)
}

/// One or more, with what stands between them.
fn list(
    item: impl Strategy<Value = String>,
    brackets: [&'static str; 2],
) -> impl Strategy<Value = String> {
    let between = any(&[", ", ",", "\n  ", " # c }\n", ",\n\n", "\r\n , "]);
    let items = proptest::collection::vec((item, between), 1..4);
    (items, any(&["", " ", "\n", "\t"])).prop_map(move |(items, room)| {
        let mut text = format!("{}{room}", brackets[0]);
        let last = items.len() - 1;
        for (i, (item, between)) in items.iter().enumerate() {
            text.push_str(item);
            // A separator behind the last one is no item more.
            let keep = i < last || between.len() > 2;
            text.push_str(if keep { between } else { "" });
        }
        text + &room + brackets[1]
    })
}

fn values() -> impl Strategy<Value = String> + Clone {
    let word = || {
        any(&[
            "a", "bc", "true", "false", "let", "import", "peftc", "layers", "e5", "_x",
        ])
    };
    let string = || any(&["\"\"", "\"é {x} # }\"", "\"\\n\\\"\\u{41}\\\\\""]);
    let number = any(&[
        "1",
        "-0.5",
        "48_000 steps",
        "2e-4",
        "12%",
        "12 %",
        "8GiB",
        "1_0.2_5E+3  epochs",
    ]);
    let index = any(&["", "", "[3]", "[ 12 .. 24 ]", "[..4]", "[-4..]", "[..]"]);
    let step = prop_oneof![word(), any(&["*", "{key, query.*}", "{ a , }", "bc[3]"])];
    let path =
        (word(), index, proptest::collection::vec(step, 0..3)).prop_map(|(first, index, steps)| {
            steps
                .iter()
                .fold(first + &index, |path, step| path + "." + step)
        });
    let leaf = prop_oneof![
        string(),
        number,
        any(&["true", "false", "*", "*.up", "[]", "{}", "{\n}"]),
        path.clone()
    ];
    leaf.prop_recursive(4, 24, 3, move |value| {
        let key = prop_oneof![
            word(),
            (word(), word()).prop_map(|(a, b)| format!("{a}.{b}"))
        ];
        let entry =
            (key, any(&["=", " = ", "\t="]), value.clone()).prop_map(|(k, is, v)| k + &is + &v);
        let held = prop_oneof![string(), any(&["0", "-1.5", "true", "c"])];
        let pair = (held, any(&[":", " : "]), value.clone()).prop_map(|(k, is, v)| k + &is + &v);
        let block = list(entry, ["{", "}"]).boxed();
        let named = (
            word(),
            any(&["", " "]),
            prop_oneof![string().boxed(), block.clone()],
        );
        prop_oneof![
            list(value, ["[", "]"]),
            list(pair, ["{", "}"]),
            list(path.clone(), ["{", "}"]),
            named.prop_map(|(name, room, rest)| name + &room + &rest),
            block,
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_the_compiler_reads_the_grammar_reads(
        value in values(), head in any(&["", "peftc 1\n", "\n# c\n"]), end in any(&["\n", " # end\n", "\r\n"])
    ) {
        let item = format!("{head}let a = {value}{end}stage b = train {{ x = {value} }}\n");
        if is_recipe(&item) {
            prop_assert_eq!(wrong(&item), None);
        }
    }
}
