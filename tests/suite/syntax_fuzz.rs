//! Token soup and damaged recipes: parsing never panics, formatting loses nothing.

use std::path::{Path, PathBuf};

use peftc::base::SourceId;
use peftc::syntax::{format, parse, parse_value};
use proptest::prelude::*;

/// Recipes that use every part of the syntax, whatever is shipped.
const SAMPLES: &[&str] = &[
    r#"peftc 1  # version
# a model
model roberta = hub "FacebookAI/roberta-large" { dtype = f32 }
data sst2 = hub "nyu-mll/glue" { config = "sst2", text = sentence, label = label }

prompt it_was {
  template   = "{sentence} It was {mask}."   # keep
  verbalizer = { 0: "terrible", 1: "great" }
}

stage warm = mezo {
  model = roberta, data = sst2.train, prompt = it_was, objective = label_words
  steps = 48_000 steps, lr = 1e-6, epsilon = 1e-3, batch = 16
}
stage ladder = train {
  from     = warm, data = sst2.train, prompt = it_was, objective = classify
  adapter  = k_lst { k = 9, r = 8, dropout = 0.2 }
  schedule = linear { peak = 2e-4, end = 2e-6, warmup = 12% }
  epochs   = 5 epochs, batch = 16, seed = -3, memory = 8GiB
}
stage score = eval { from = ladder, data = sst2.validation, metrics = [accuracy, f1] }
"#,
    r#"import "base.peft"
let sites = layers[12..24].{attention.*, ffn.up}
let some = { attention.query, layers[-4..].ffn.up,
  # a comment in a set
  layers[0].*
}
stage a = train {
  adapters = [ # two of them
    siva { rank = 4, on = attention.{key, query} }

    k_lst { k = 9 } # last
    # end of list
  ]
  words = { "a\n": "b\u{41}", c: [true, false, none] }
  empty = lora {}
  # end of block
}
# end of file
"#,
    "sweep s {\n  warm.lr = [1e-3, 2e-3]\n  seed = [1, 2, 3]\n}\r\nmodel m = local \"dir\"\r\n",
];

const TOKENS: &[&str] = &[
    "peftc 1",
    "import ",
    "let ",
    "stage ",
    "prompt ",
    "a",
    "bc",
    "train",
    "layers",
    "=",
    "=",
    ":",
    ",",
    ".",
    "..",
    "*",
    "{",
    "}",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\"x\"",
    "\"{y}\\n\"",
    "\\",
    "\\q",
    "1",
    "48_000",
    "-3",
    "2e-4",
    "12%",
    "8GiB",
    " epochs",
    "true",
    "# c",
    "#",
    "\n",
    "\n",
    "\n  ",
    " ",
    " ",
    "\t",
    "\r\n",
    "é",
    "😀",
    "'",
    ";",
    "a = 1\n",
    "let x = 1\n",
    "stage s = train {\n",
    "}\n",
];

/// All recipes that are shipped.
fn shipped() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/recipes"
    ))];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension() == Some(Path::new("peft").as_os_str()) {
                found.push(std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

fn recipes() -> Vec<String> {
    SAMPLES
        .iter()
        .map(|text| (*text).to_owned())
        .chain(shipped())
        .collect()
}

/// The comments of a text without syntax errors.
fn comments(text: &str) -> Vec<String> {
    let comment_of = |line: &str| {
        let mut quoted = false;
        let mut escaped = false;
        for (at, c) in line.char_indices() {
            match c {
                '#' if !quoted => return Some(line[at..].trim_end().to_owned()),
                '"' if !escaped => quoted = !quoted,
                _ => {}
            }
            escaped = c == '\\' && quoted && !escaped;
        }
        None
    };
    text.split('\n').filter_map(comment_of).collect()
}

/// The tree of a text, printed without its spans.
fn tree(text: &str) -> String {
    let Ok((file, _)) = parse(text, SourceId(0)).ok() else {
        panic!("does not parse:\n{text}")
    };
    let printed = format!("{file:?}");
    let mut pieces = printed.split("Span { source");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |tree, piece| {
        tree + piece.split_once('}').map_or(piece, |(_, rest)| rest)
    })
}

/// The laws of the formatter, for texts that parse; whether this one does.
fn obeys_the_laws(text: &str) -> bool {
    let outcome = parse(text, SourceId(0));
    for diag in outcome.diags.iter() {
        let span = diag.span.expect("a syntax error has a place");
        assert!(
            text.get(span.start as usize..span.end as usize).is_some(),
            "{diag:?} points outside of\n{text}"
        );
    }
    let Ok(once) = format(text, SourceId(0)) else {
        assert!(
            outcome.diags.has_errors(),
            "refused without a reason:\n{text}"
        );
        return false;
    };
    assert_eq!(tree(text), tree(&once), "another tree:\n{text}\n=>\n{once}");
    assert_eq!(
        comments(text),
        comments(&once),
        "comments got lost:\n{text}\n=>\n{once}"
    );
    assert_eq!(
        format(&once, SourceId(0)).ok().as_deref(),
        Some(once.as_str()),
        "not stable:\n{text}\n=>\n{once}"
    );
    assert!(
        once.is_empty() || once.ends_with('\n') && !once.ends_with("\n\n"),
        "bad end:\n{once:?}"
    );
    true
}

/// Replaces the part of `text` around a place, given as a fraction, by a token.
fn damage(text: &str, place: f64, length: usize, token: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let start = ((chars.len() as f64 * place) as usize).min(chars.len());
    let end = (start + length).min(chars.len());
    chars[..start]
        .iter()
        .copied()
        .chain(token.chars())
        .chain(chars[end..].iter().copied())
        .collect()
}

#[test]
fn every_recipe_obeys_the_laws_of_the_formatter() {
    let recipes = recipes();
    assert!(recipes.len() >= SAMPLES.len());
    for text in recipes {
        assert!(
            obeys_the_laws(&text),
            "does not parse:\n{text}\n{:#?}",
            parse(&text, SourceId(0)).diags
        );
    }
}

#[test]
fn layout_is_free_where_the_language_says_so() {
    for text in recipes() {
        // The alternatives inside a path, comments and texts stay on one line.
        let split = |line: &str| {
            if line.contains('#') || line.contains('"') {
                format!("{line}\n")
            } else {
                format!("{}\n", line.replace(", ", "\n"))
            }
        };
        let broken: String = text.lines().map(split).collect();
        assert!(
            text.contains(".{") || text.contains("on = {") || obeys_the_laws(&broken),
            "{text}"
        );
        assert!(obeys_the_laws(&text.replace('\n', "\n\n\n")), "{text}");
        assert!(obeys_the_laws(&text.replace('\n', "  # note\n")), "{text}");
        assert!(obeys_the_laws(&text.replace('\n', "\r\n")), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn token_soup_never_panics(tokens in prop::collection::vec(prop::sample::select(TOKENS), 0..40)) {
        let text = tokens.concat();
        obeys_the_laws(&text);
        obeys_the_laws(&tokens.join(" "));
        let _ = parse_value(&text, SourceId(0));
    }

    #[test]
    fn damaged_recipes_never_panic(
        text in prop::sample::select(recipes()),
        places in prop::collection::vec((0.0..1.0, 0_usize..12, prop::sample::select(TOKENS)), 1..4),
    ) {
        let text = places.iter().fold(text, |text, (place, length, token)| damage(&text, *place, *length, token));
        obeys_the_laws(&text);
    }

    #[test]
    fn any_text_is_parsed_without_panic(text in any::<String>()) {
        obeys_the_laws(&text);
    }
}
