use proptest::prelude::*;
use serde_json::json;

use super::super::super::prompt::Template;
use super::super::{Encoded, Side, TokenizerFiles};
use super::*;

/// Fragments that texts are made of: what tokenizers look at.
const FRAGMENTS: &[&str] = &[
    " ",
    " ",
    " ",
    " ",
    "  ",
    "\n",
    "\t",
    "\u{a0}",
    "\u{3000}",
    "film",
    "Good",
    "a",
    "I",
    "7",
    "42",
    "don't",
    "'s",
    "it's",
    ".",
    ",",
    "!?",
    "-",
    "_",
    "(",
    ")",
    "``",
    "''",
    "\u{301}",
    "\u{338}",
    "=",
    "é",
    "É",
    "ß",
    "İ",
    "\u{ad}",
    "\u{200b}",
    "中",
    "文字",
    "的电影",
    "，",
    "。",
    "ｆｕｌｌ",
    "™",
    "ﬁ",
    "😀",
    "👩\u{200d}👩",
    "क्षि",
    "ไทย",
    "[MASK]",
    "<mask>",
    "[SEP]",
    "</s>",
    "New York",
    "x9z",
    "▁",
    "supercalifragilistic",
];

fn load(files: &[(&str, Vec<u8>)]) -> Tokenizer {
    let get = |name: &str| {
        let found = files.iter().find(|(own, _)| *own == name);
        found.map(|(_, bytes)| bytes.clone())
    };
    Tokenizer::from_files(&TokenizerFiles {
        dir_name: "x".to_owned(),
        get: &get,
    })
    .expect("loads")
}

fn shipped(dir: &str) -> Tokenizer {
    let names = [
        "tokenizer.json",
        "tokenizer_config.json",
        "config.json",
        "vocab.txt",
        "vocab.json",
        "merges.txt",
    ];
    let files: Vec<(&str, Vec<u8>)> = names
        .into_iter()
        .filter_map(|name| Some((name, std::fs::read(format!("{dir}/{name}")).ok()?)))
        .collect();
    load(&files)
}

/// A tokenizer over pieces of the fragments.
fn made(model: &str, normalizer: Json, splitter: Json, added: Json) -> Tokenizer {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>", "<mask>"]
        .map(str::to_owned)
        .to_vec();
    for text in FRAGMENTS {
        let chars: Vec<char> = text
            .chars()
            .flat_map(|c| c.to_lowercase().chain([c]))
            .collect();
        tokens.extend(chars.iter().map(char::to_string));
        tokens.extend(chars.windows(2).map(|w| w.iter().collect()));
        tokens.push(format!("▁{text}"));
        tokens.push(format!("##{}", text.chars().last().unwrap_or('a')));
    }
    let mut seen = BTreeSet::new();
    tokens.retain(|t| seen.insert(t.clone()));
    let model = match model {
        "Unigram" => {
            let score = |(i, t): (usize, String)| json!([t, -1.0 - (i % 7) as f64]);
            let vocab: Vec<Json> = tokens.into_iter().enumerate().map(score).collect();
            json!({ "type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false })
        }
        kind => {
            let ids = tokens.into_iter().enumerate().map(|(i, t)| (t, json!(i)));
            let vocab: serde_json::Map<String, Json> = ids.collect();
            json!({ "type": kind, "unk_token": "<unk>", "vocab": vocab, "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100 })
        }
    };
    let file = json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": splitter, "post_processor": null, "decoder": null, "model": model });
    let config = json!({ "tokenizer_class": "PreTrainedTokenizerFast" });
    load(&[
        ("tokenizer.json", file.to_string().into_bytes()),
        ("tokenizer_config.json", config.to_string().into_bytes()),
    ])
}

fn token(content: &str, normalized: bool, lstrip: bool) -> Json {
    let id = if content == "<mask>" { 3 } else { 100_000 };
    json!({ "id": id, "content": content, "single_word": false, "lstrip": lstrip, "rstrip": false, "normalized": normalized,
        "special": !normalized })
}

/// One of each kind of tokenizer that has seams.
fn all() -> Vec<(&'static str, Tokenizer)> {
    let space = |scheme: &str| json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true });
    let strips = json!({ "type": "Sequence", "normalizers": [{ "type": "NFKC" }, { "type": "Strip", "strip_left": true,
        "strip_right": true }, { "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": " " }] });
    let words = json!({ "type": "Sequence", "pretokenizers": [{ "type": "WhitespaceSplit" }, space("first")] });
    vec![
        ("bert", shipped("tests/reference/bert-tiny")),
        ("roberta", shipped("tests/reference/roberta-tiny")),
        ("distilbert", shipped("tests/reference/distilbert-tiny")),
        ("reviews", shipped("recipes/reviews-mini")),
        (
            "unigram always",
            made(
                "Unigram",
                strips,
                space("always"),
                json!([token("<mask>", false, true)]),
            ),
        ),
        (
            "unigram first",
            made(
                "Unigram",
                json!({ "type": "NFC" }),
                space("first"),
                json!([token("New York", true, false)]),
            ),
        ),
        (
            "unigram words",
            made(
                "Unigram",
                Json::Null,
                words,
                json!([token("<mask>", false, true)]),
            ),
        ),
        (
            "wordpiece",
            made(
                "WordPiece",
                json!({ "type": "Lowercase" }),
                json!({ "type": "Whitespace" }),
                json!([]),
            ),
        ),
    ]
}

/// A text that is tokenized in pieces, and whole.
fn both(
    tokenizer: &mut Tokenizer,
    of: &dyn Fn(&Tokenizer) -> Result<Encoded, String>,
) -> (Encoded, Encoded) {
    let pieces = of(tokenizer).expect("in pieces");
    let seams = tokenizer.seams.take();
    let whole = of(tokenizer).expect("whole");
    tokenizer.seams = seams;
    (pieces, whole)
}

fn same((pieces, whole): &(Encoded, Encoded)) -> bool {
    (&pieces.ids, &pieces.segments, pieces.uncut) == (&whole.ids, &whole.segments, whole.uncut)
}

#[test]
fn tokens_of_pieces_are_those_of_the_whole_text() {
    let mut all = all();
    for (name, tokenizer) in &mut all {
        let seams = tokenizer.seams.as_mut();
        seams.unwrap_or_else(|| panic!("{name} has no seams")).sizes = (80, 12);
    }
    let texts = || {
        prop::collection::vec(prop::sample::select(FRAGMENTS), 60..200)
            .prop_map(|list| list.concat())
    };
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(24));
    let all = std::cell::RefCell::new(all);
    let parted = std::cell::Cell::new((0_u32, 0_u32));
    let template = Template::parse("({a}{b}) It was {mask}, {a}").expect("a template");
    let cases = (texts(), texts(), 8_usize..24, any::<bool>());
    runner
        .run(&cases, |(one, two, most, left)| {
            for (name, tokenizer) in all.borrow_mut().iter_mut() {
                tokenizer.side = if left { Side::Left } else { Side::Right };
                for texts in [
                    vec![one.clone()],
                    vec![one.clone(), two.clone()],
                    vec![two.clone(), one.clone()],
                ] {
                    let got = both(tokenizer, &|t| t.encode(&texts, most));
                    prop_assert!(same(&got), "{} {:?} {:?}", name, texts, got);
                    let (some, tried) = parted.get();
                    parted.set((some + u32::from(got.0.at_once < got.1.at_once), tried + 1));
                }
                let Some((mask, _)) = tokenizer.mask() else {
                    continue;
                };
                let get = |column: &str| {
                    if column == "a" {
                        one.as_str()
                    } else {
                        two.as_str()
                    }
                };
                let filled = template.fill(get, mask);
                let places = std::cell::RefCell::new(Vec::new());
                let got = both(tokenizer, &|t| {
                    let (encoded, mask) = t.encode_prompt(&filled, &[5, 6], most + 60)?;
                    places.borrow_mut().push(mask);
                    Ok(encoded)
                });
                prop_assert!(same(&got), "{} {:?} {:?}", name, filled, got);
                prop_assert_eq!(places.borrow()[0], places.borrow()[1]);
                let shown = |t: &Tokenizer| t.encode_demonstration(&filled, 4, most);
                let pieces = shown(tokenizer);
                let seams = tokenizer.seams.take();
                let whole = shown(tokenizer);
                tokenizer.seams = seams;
                prop_assert_eq!(pieces, whole);
            }
            Ok(())
        })
        .expect("the same");
    let (some, tried) = parted.get();
    assert!(
        2 * some > tried,
        "{some} of {tried} were tokenized in pieces"
    );
}

#[test]
fn what_is_not_known_to_have_seams_has_none() {
    let split = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false });
    let space = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true });
    let replace =
        |from: &str| json!({ "type": "Replace", "pattern": { "String": from }, "content": "-" });
    let word = |key: &str| {
        let mut token = token("film", true, false);
        token[key] = json!(true);
        json!([token])
    };
    for (what, tokenizer) in [
        (
            "pieces over blanks",
            made("Unigram", Json::Null, split, json!([])),
        ),
        (
            "no pieces",
            made("Unigram", Json::Null, Json::Null, json!([])),
        ),
        (
            "blanks replaced",
            made("Unigram", replace("a b"), space.clone(), json!([])),
        ),
        (
            "words before",
            made(
                "Unigram",
                json!({ "type": "Prepend", "prepend": "▁" }),
                space.clone(),
                json!([]),
            ),
        ),
        (
            "neighbours matter",
            made("Unigram", Json::Null, space.clone(), word("single_word")),
        ),
        (
            "blanks behind",
            made("Unigram", Json::Null, space, word("rstrip")),
        ),
    ] {
        assert!(tokenizer.seams.is_none(), "{what}");
    }
}

#[test]
fn a_long_text_is_tokenized_in_small_pieces_and_counted() {
    let tokenizer = shipped("recipes/reviews-mini");
    let words = 200_000;
    let text = "good film ".repeat(words / 2);
    let encoded = tokenizer.encode(&[text], 128).expect("encodes");
    assert_eq!((encoded.ids.len(), encoded.uncut), (128, words + 2));
    assert!(
        encoded.at_once < 80 << 10,
        "{} bytes at once",
        encoded.at_once
    );
    let chinese = tokenizer
        .encode(&["电影".repeat(100_000)], 128)
        .expect("encodes");
    assert_eq!((chinese.ids.len(), chinese.uncut), (128, 200_002));
    assert!(
        chinese.at_once < 80 << 10,
        "{} bytes at once",
        chinese.at_once
    );
    // Of one word nothing is known before its end.
    let word = tokenizer
        .encode(&["x".repeat(100_000)], 128)
        .expect("encodes");
    assert_eq!((word.uncut, word.at_once), (3, 100_000));
}
