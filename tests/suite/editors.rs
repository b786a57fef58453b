//! The grammars for highlighting in `editors` are held to `grammar/recipe.pest`: its words, marks and rules.

use std::collections::BTreeSet;

use peftc::base::SourceId;
use peftc::syntax::parse;
use regex::Regex;

const PEST: &str = "grammar/recipe.pest";
const TREE: &str = "editors/tree-sitter-peft/grammar.js";
const QUERIES: &str = "editors/tree-sitter-peft/queries/highlights.scm";
const TEXTMATE: &str = "editors/vscode/syntaxes/peft.tmLanguage.json";

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Rules of the reference that the tree has under another name, or has not, each with the reason.
const OTHERWISE: &[(&str, &str)] = &[
    ("WHITESPACE", "`extras`"),
    ("COMMENT", "`comment`"),
    ("file", "`source_file`"),
    ("lone_value", "for the command line"),
    ("lone_item", "for messages"),
    ("lone_entry", "for messages"),
    ("item", "`_item`"),
    ("slot", "with a broken entry; the tree has `entry`"),
    ("value", "`_value`"),
    ("string_body", "inside of `string`"),
    ("map_key", "inside of `pair`"),
    ("segment_name", "`word` in `segment`"),
    ("first", "`integer` in `range`"),
    ("last", "`integer` in `range`"),
    ("equals", "a mark"),
    ("colon", "a mark"),
    ("close_brace", "a mark"),
    ("close_bracket", "a mark"),
    ("separator", "`_separator`"),
    ("inner_break", "`_breaks`"),
    ("line_end", "`_breaks`"),
    ("slot_end", "`_separator`"),
    ("kw_peftc", "a word"),
    ("kw_import", "a word"),
    ("kw_let", "a word"),
    ("reserved", "words"),
    ("word_char", "inside of `word`"),
    ("digits", "inside of `numeral`"),
    ("blank", "`extras`"),
    ("junk_entry", "tree-sitter recovers by itself"),
    ("junk_item", "tree-sitter recovers by itself"),
    ("group", "tree-sitter recovers by itself"),
    ("inside", "tree-sitter recovers by itself"),
    ("quoted", "tree-sitter recovers by itself"),
    ("remark", "tree-sitter recovers by itself"),
    ("item_head", "tree-sitter recovers by itself"),
    ("sure_head", "tree-sitter recovers by itself"),
];

/// The names of the rules that a pattern finds at the beginning of lines.
fn rules(text: &str, pattern: &str) -> BTreeSet<String> {
    let found = Regex::new(pattern).expect("a pattern");
    let names = found.captures_iter(text).map(|c| c[1].to_owned());
    names.collect()
}

#[test]
fn the_tree_has_every_rule_of_the_reference() {
    let pest = rules(&text(PEST), r"(?m)^([A-Za-z_]+) = ");
    let tree = rules(&text(TREE), r"(?m)^    ([a-z_]+): \$ =>");
    assert!(
        pest.len() > 50 && tree.len() > 25,
        "{} and {}",
        pest.len(),
        tree.len()
    );
    let otherwise: BTreeSet<String> = OTHERWISE
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let lost: Vec<_> = pest
        .difference(&tree)
        .filter(|name| !otherwise.contains(*name))
        .collect();
    assert!(lost.is_empty(), "in {PEST} and not in {TREE}: {lost:?}");
    let own: BTreeSet<_> = [
        "source_file",
        "_item",
        "_value",
        "escape",
        "comment",
        "_separator",
        "_breaks",
    ]
    .map(str::to_owned)
    .into();
    let more: Vec<_> = tree
        .difference(&pest)
        .filter(|name| !own.contains(*name))
        .collect();
    assert!(more.is_empty(), "in {TREE} and not in {PEST}: {more:?}");
    let idle: Vec<_> = otherwise
        .iter()
        .filter(|name| !pest.contains(*name) || tree.contains(*name))
        .collect();
    assert!(idle.is_empty(), "excused and not needed: {idle:?}");
    // A node that the queries name is one of the tree.
    let named = rules(&text(QUERIES).replace('(', "\n("), r"(?m)^\(([a-z_]+)");
    let lost: Vec<_> = named.iter().filter(|name| !tree.contains(*name)).collect();
    assert!(
        named.len() > 15 && lost.is_empty(),
        "{QUERIES} names {lost:?}"
    );
}

/// The patterns of the TextMate grammar, with the name of the part each stands in.
fn textmate() -> Vec<(String, String)> {
    let json = super::support::json(TEXTMATE);
    let mut list = Vec::new();
    for (part, rule) in json["repository"].as_object().expect("a repository") {
        let inner = rule["patterns"].as_array().into_iter().flatten();
        for rule in std::iter::once(rule).chain(inner) {
            list.extend(
                rule["match"]
                    .as_str()
                    .map(|pattern| (part.clone(), pattern.to_owned())),
            );
        }
        for include in rule["patterns"].as_array().into_iter().flatten() {
            let Some(target) = include["include"].as_str() else {
                continue;
            };
            assert!(
                json["repository"]
                    .get(target.trim_start_matches('#'))
                    .is_some(),
                "`{target}`"
            );
        }
    }
    list
}

#[test]
fn words_and_marks_of_the_reference_are_in_both_grammars() {
    let (pest, tree) = (text(PEST), text(TREE));
    let patterns = textmate();
    let keyword = |line: &&str| {
        line.starts_with("kw_") || line.starts_with("boolean") || line.starts_with("reserved")
    };
    let quoted = Regex::new("\"([a-z]+)\"").expect("a pattern");
    let words: BTreeSet<String> = pest
        .lines()
        .filter(keyword)
        .flat_map(|line| {
            quoted
                .captures_iter(line)
                .map(|c| c[1].to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(words.len(), 5, "{words:?}");
    for word in &words {
        assert!(
            tree.contains(&format!("'{word}'")),
            "{TREE} has no '{word}'"
        );
        let known = patterns.iter().any(|(_, p)| {
            Regex::new(&format!(r"[(:|]{word}[)|]"))
                .expect("a pattern")
                .is_match(p)
        });
        assert!(known, "{TEXTMATE} has no {word}");
    }
    for mark in ["=", ":", "..", "*", "{", "}", "[", "]", "%", ",", "."] {
        assert!(
            pest.contains(&format!("\"{mark}\"")),
            "{PEST} has no {mark}"
        );
        assert!(
            tree.contains(&format!("'{mark}'")),
            "{TREE} has no '{mark}'"
        );
    }
}

/// Numbers and words are spelt alike in all three: samples that the reference takes or refuses.
#[test]
fn numbers_are_spelt_alike() {
    let numeral = |text: &str| -> String {
        let line = text
            .lines()
            .find(|l| l.contains("numeral: $ =>"))
            .expect("numbers")
            .trim();
        let from = line.find("=> /").expect("a pattern") + 4;
        line[from..].trim_end_matches("/,").to_owned()
    };
    let patterns = textmate();
    let (_, own) = patterns
        .iter()
        .find(|(part, _)| part == "number")
        .expect("numbers");
    let tree = Regex::new(&format!("^(?:{})$", numeral(&text(TREE)))).expect("a pattern");
    let textmate = Regex::new(&format!("^{own}")).expect("a pattern");
    for (number, taken) in [
        ("16", true),
        ("-3", true),
        ("48_000", true),
        ("0.2", true),
        ("2e-4", true),
        ("1_0.0_1E+3", true),
        ("1__0", false),
        ("_1", false),
        (".5", false),
        ("1.", false),
        ("1e", false),
    ] {
        assert_eq!(tree.is_match(number), taken, "{TREE}: {number}");
        let whole = textmate.captures(number).is_some_and(|c| &c[1] == number);
        assert_eq!(whole, taken, "{TEXTMATE}: {number}");
        // What is no number as a whole may still be one with a unit, or a name.
        if !taken && !number.contains('.') {
            continue;
        }
        let parsed = parse(&format!("let x = {number}\n"), SourceId(0));
        assert_eq!(parsed.diags.has_errors(), !taken, "{PEST}: {number}");
    }
}
