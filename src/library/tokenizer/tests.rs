use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::*;

fn load(dir: &str) -> Tokenizer {
    let get = |name: &str| std::fs::read(format!("{dir}/{name}")).ok();
    Tokenizer::from_files(&TokenizerFiles {
        dir_name: dir.to_owned(),
        get: &get,
    })
    .expect("loads")
}

#[test]
fn ids_are_those_of_the_reference_tokenizers() {
    let reference: Json =
        serde_json::from_slice(&std::fs::read("tests/reference/forward.json").expect("reference"))
            .expect("JSON");
    let mut seen = 0;
    for name in ["bert-tiny", "roberta-tiny", "distilbert-tiny"] {
        let tokenizer = load(&format!("tests/reference/{name}"));
        let saved = Inner::from_bytes(tokenizer.save_json().expect("saves")).expect("loads again");
        assert_eq!(
            saved.get_vocab_size(true),
            tokenizer.inner.get_vocab_size(true)
        );
        let model = &reference["models"][name];
        for case in model["cases"].as_array().expect("cases") {
            let texts: Vec<String> = [&case["text"], &case["pair"]]
                .iter()
                .filter_map(|t| t.as_str().map(str::to_owned))
                .collect();
            let encoded = tokenizer.encode(&texts, 64).expect("encodes");
            assert_eq!(json!(encoded.ids), case["ids"], "{name} {texts:?}");
            if name == "bert-tiny" {
                assert_eq!(
                    json!(encoded.segments),
                    case["type_ids"],
                    "{name} {texts:?}"
                );
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 27);
}

#[test]
fn long_pairs_are_cut_at_the_longer_text_and_missing_files_are_named() {
    let tokenizer = load("tests/reference/bert-tiny");
    let (long, short) = ("film ".repeat(50), "film film".to_owned());
    let encoded = tokenizer
        .encode(&[long, short.clone()], 20)
        .expect("encodes");
    assert_eq!(encoded.ids.len(), 20);
    assert!(
        encoded.segments.iter().filter(|s| **s == 1).count() >= 3,
        "the short text is whole"
    );
    assert!(tokenizer.encode(&[short], 1).is_err());
    let none = |_: &str| None;
    let error = Tokenizer::from_files(&TokenizerFiles {
        dir_name: "x".into(),
        get: &none,
    })
    .expect_err("nothing there");
    assert!(error.contains("tokenizer.json"));
}

#[test]
fn an_exported_config_repeats_what_the_tokenizer_does() {
    let config = load("tests/reference/bert-tiny").config_json(128);
    assert_eq!(
        (&config["tokenizer_class"], &config["do_lower_case"]),
        (&json!("BertTokenizerFast"), &json!(true))
    );
    assert_eq!(config["mask_token"], "[MASK]");
    let config = load("tests/reference/roberta-tiny").config_json(128);
    assert_eq!(
        (&config["add_prefix_space"], &config["eos_token"]),
        (&json!(false), &json!("</s>"))
    );
    let vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nA\na\n";
    let cased = |name: &str| match name {
        "vocab.txt" => Some(vocab.as_bytes().to_vec()),
        "config.json" => Some(b"{\"model_type\": \"bert\"}".to_vec()),
        "tokenizer_config.json" => Some(b"{\"do_lower_case\": false}".to_vec()),
        _ => None,
    };
    let tokenizer = Tokenizer::from_files(&TokenizerFiles {
        dir_name: "x".into(),
        get: &cased,
    })
    .expect("loads");
    assert_eq!(
        tokenizer
            .encode(&["A a".to_owned()], 8)
            .expect("encodes")
            .ids,
        [2, 5, 6, 3]
    );
    assert_eq!(
        tokenizer.config_json(8)["do_lower_case"],
        false,
        "else transformers lowers the case"
    );
}

#[test]
fn label_words_are_looked_up_as_they_stand_in_a_text() {
    let bert = load("tests/reference/bert-tiny");
    assert_eq!(bert.mask(), Some(("[MASK]", 4)));
    assert_eq!(bert.word_pieces("good").expect("encodes").len(), 1);
    let roberta = load("tests/reference/roberta-tiny");
    let pieces = roberta.word_pieces("good").expect("encodes");
    assert!(pieces[0].0.starts_with('Ġ'), "{pieces:?}");
    assert!(bert.word_pieces("unforgettable").expect("encodes").len() > 1);
}

#[test]
fn a_pair_has_the_segments_that_its_class_shows() {
    let segments = |name: &str| {
        let tokenizer = load(&format!("tests/reference/{name}"));
        tokenizer
            .encode(&["a film".to_owned(), "good".to_owned()], 64)
            .expect("encodes")
            .segments
    };
    let second = |name: &str| segments(name).iter().filter(|s| **s == 1).count();
    assert_eq!(second("bert-tiny"), 2);
    // DistilBERT has no segments, and its class gives none.
    assert_eq!((second("distilbert-tiny"), second("roberta-tiny")), (0, 0));
    let of_model = |config: &'static str| {
        let get = move |name: &str| match name {
            "config.json" => Some(config.as_bytes().to_vec()),
            _ => std::fs::read(format!("tests/reference/bert-tiny/{name}")).ok(),
        };
        let dir_name = "x".to_owned();
        Tokenizer::from_files(&TokenizerFiles {
            dir_name,
            get: &get,
        })
        .expect("loads")
    };
    let pair = ["a film".to_owned(), "good".to_owned()];
    // A model without segments reads none.
    for config in [
        r#"{"model_type": "deberta-v2", "type_vocab_size": 0}"#,
        r#"{"model_type": "deberta-v2"}"#,
    ] {
        assert!(of_model(config).encode(&pair, 64).is_ok(), "{config}");
    }
    let tokenizer = of_model(r#"{"model_type": "roberta", "type_vocab_size": 1}"#);
    let why = tokenizer
        .encode(&pair, 64)
        .expect_err("the model has one segment");
    assert!(why.contains("type_vocab_size"), "{why}");
    assert!(tokenizer.encode(&pair[..1], 64).is_ok());
}

#[test]
fn what_is_cut_off_is_cut_off_at_the_side_that_the_files_name() {
    let vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\nd\n";
    let cut = |config: &str| {
        let config = config.as_bytes().to_vec();
        let get = |name: &str| match name {
            "vocab.txt" => Some(vocab.as_bytes().to_vec()),
            "config.json" => Some(b"{\"model_type\": \"bert\"}".to_vec()),
            "tokenizer_config.json" => Some(config.clone()),
            _ => None,
        };
        let dir_name = "x".to_owned();
        let tokenizer = Tokenizer::from_files(&TokenizerFiles {
            dir_name,
            get: &get,
        })
        .expect("loads");
        let ids = tokenizer
            .encode(&["a b c d".to_owned()], 4)
            .expect("encodes")
            .ids;
        (ids, tokenizer.config_json(4)["truncation_side"].clone())
    };
    assert_eq!(cut("{}"), (vec![2, 5, 6, 3], Json::Null));
    assert_eq!(
        cut("{\"truncation_side\": \"left\"}"),
        (vec![2, 7, 8, 3], json!("left"))
    );
}

#[test]
fn a_vocabulary_with_capitals_under_a_class_that_lowers_them_is_told_of() {
    let notes = |config: &str, vocab: &str| {
        let (config, vocab) = (config.as_bytes().to_vec(), vocab.as_bytes().to_vec());
        let get = |name: &str| match name {
            "vocab.txt" => Some(vocab.clone()),
            "config.json" => Some(b"{\"model_type\": \"bert\"}".to_vec()),
            "tokenizer_config.json" => Some(config.clone()),
            _ => None,
        };
        let dir_name = "x".to_owned();
        let read = Tokenizer::from_files(&TokenizerFiles {
            dir_name,
            get: &get,
        });
        let list = read.expect("loads").notes().to_vec();
        list.into_iter().map(|note| note.topic).collect::<Vec<_>>()
    };
    let cased = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n[unused1]\nA\na\n";
    assert_eq!(notes("{}", cased), [Topic::Cased]);
    assert_eq!(notes("{\"do_lower_case\": false}", cased), []);
    assert_eq!(notes("{}", &cased.replace("\nA\n", "\nb\n")), []);
    assert_eq!(
        notes("{\"mystery\": 1}", &cased.replace("\nA\n", "\nb\n")),
        [Topic::Unread]
    );
}

/// The files of a case of `tokenizers.json`.
fn case_files(document: &Json, case: &Json) -> BTreeMap<String, Vec<u8>> {
    let body = |place: &Json| match &document["bodies"][place.as_u64().expect("a place") as usize] {
        Json::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    };
    let own = case["files"].as_object().expect("files");
    let mut files: BTreeMap<String, Vec<u8>> = own
        .iter()
        .map(|(name, place)| (name.clone(), body(place)))
        .collect();
    let config = json!({ "model_type": case["model_type"], "vocab_size": document["rows"] });
    files.insert("config.json".to_owned(), config.to_string().into_bytes());
    files
}

fn from_map(files: &BTreeMap<String, Vec<u8>>) -> Result<Tokenizer, String> {
    let get = |name: &str| files.get(name).cloned();
    let dir_name = "x".to_owned();
    Tokenizer::from_files(&TokenizerFiles {
        dir_name,
        get: &get,
    })
}

#[test]
fn ids_and_segments_are_those_of_transformers_whatever_the_files_say() {
    assert_eq!(agree("tests/reference/tokenizers.json"), (21 * 170, 11));
}

#[test]
fn decoders_have_the_ids_of_transformers_whatever_class_the_files_name() {
    let (seen, refused) = agree("tests/reference/decoder_tokenizers.json");
    assert!(seen > 4000 && refused == 0, "{seen} {refused}");
}

/// Compares a file of cases; gives how many texts were seen and how many cases were refused as they are to be.
fn agree(path: &str) -> (usize, usize) {
    let text = std::fs::read(path).expect("the reference");
    let document: Json = serde_json::from_slice(&text).expect("JSON");
    let strings = |list: &Json| -> Vec<String> {
        list.as_array()
            .into_iter()
            .flatten()
            .filter_map(|t| t.as_str().map(str::to_owned))
            .collect()
    };
    let mut texts: Vec<Vec<String>> = strings(&document["texts"])
        .into_iter()
        .map(|t| vec![t])
        .collect();
    texts.extend(
        document["pairs"]
            .as_array()
            .expect("pairs")
            .iter()
            .map(strings),
    );
    let (mut seen, mut refused, mut wrong) = (0, 0, Vec::new());
    for case in document["cases"].as_array().expect("cases") {
        let name = format!("{} {}", case["model_type"], case["name"]);
        let mut files = case_files(&document, case);
        let tokenizer = match from_map(&files) {
            Err(_) if case.get("refused").is_some() => {
                refused += 1;
                continue;
            }
            Ok(_) if case.get("refused").is_some() => {
                wrong.push(format!("{name}: is not refused"));
                continue;
            }
            Err(why) => {
                wrong.push(format!("{name}: {why}"));
                continue;
            }
            Ok(tokenizer) => tokenizer,
        };
        let rows = &document["bodies"][case["rows"].as_u64().expect("a place") as usize];
        for (texts, row) in texts.iter().zip(rows.as_array().expect("rows")) {
            let own = match tokenizer.encode(texts, 4096) {
                Ok(own) => own,
                Err(why) => {
                    wrong.push(format!("{name}: {texts:?}: {why}"));
                    continue;
                }
            };
            let segments = match row.get(1) {
                Some(list) => list.clone(),
                None => json!(vec![0; own.ids.len()]),
            };
            if json!(own.ids) != row[0] || json!(own.segments) != segments {
                wrong.push(format!("{name}: {texts:?}: {own:?}, not {row}"));
            }
            seen += 1;
        }
        // What is written is read as the same.
        let written = tokenizer.config_json(4096);
        files.retain(|name, _| name == "config.json");
        files.insert(
            "tokenizer.json".to_owned(),
            tokenizer.save_json().expect("saves"),
        );
        files.insert(
            "tokenizer_config.json".to_owned(),
            written.to_string().into_bytes(),
        );
        match from_map(&files) {
            Ok(again) if again.identity() == tokenizer.identity() => {}
            Ok(_) => wrong.push(format!("{name}: exported as another: {written}")),
            Err(why) => wrong.push(format!("{name}: exported as what cannot be read: {why}")),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    (seen, refused)
}

#[test]
fn every_key_of_the_tokenizer_classes_has_a_row() {
    let text = std::fs::read("tests/reference/keys.json").expect("the reference");
    let json: Json = serde_json::from_slice(&text).expect("JSON");
    let keys = json["tokenizer_config.json"].as_array().expect("keys");
    assert!(keys.len() > 50);
    for key in keys {
        let key = key.as_str().expect("a name");
        assert!(
            keys::KEYS.iter().any(|(known, _)| *known == key),
            "`{key}` has no row"
        );
    }
    for (i, (key, rule)) in keys::KEYS.iter().enumerate() {
        if let keys::Rule::Only(_, why) | keys::Rule::Idle(why) = rule {
            assert!(why.len() > 10, "`{key}` has no reason");
        }
        let again = keys::KEYS.iter().take(i).any(|(k, _)| k == key);
        assert!(!again, "`{key}` is there twice");
    }
}

#[test]
fn words_are_the_tokens_of_transformers_and_cut_between_words() {
    let at = std::path::Path::new("tests/reference");
    let bytes = std::fs::read(at.join("token_classify.json")).expect("a trace");
    let trace: Json = serde_json::from_slice(&bytes).expect("JSON");
    let cases = trace["words"].as_array().expect("cases");
    assert_eq!(cases.len(), 12);
    for case in cases {
        let name = case["model"].as_str().expect("a name");
        let tokenizer = load(&format!("tests/reference/{name}"));
        let words: Vec<String> = serde_json::from_value(case["words"].clone()).expect("words");
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).expect("ids");
        let of: Vec<Option<u32>> = serde_json::from_value(case["word_ids"].clone()).expect("words");
        let of: Vec<u32> = of.into_iter().flatten().collect();
        let parts = tokenizer.encode_words(&words, 64).expect("tokens");
        let [whole] = parts.as_slice() else {
            panic!("{case}")
        };
        assert_eq!((&whole.encoded.ids, &whole.words), (&ids, &of), "{case}");
        assert_eq!(whole.encoded.uncut, ids.len());
        // In parts every word begins, in its order, and no part is too long.
        let parts = tokenizer.encode_words(&words, 6).expect("tokens");
        let mut begun: Vec<u32> = parts.iter().flat_map(|part| part.words.clone()).collect();
        begun.dedup();
        assert_eq!(
            begun,
            (0..words.len() as u32).collect::<Vec<u32>>(),
            "{case}"
        );
        for part in &parts {
            assert!(part.encoded.ids.len() <= 6, "{case}");
            assert_eq!(part.words.len() + 2, part.encoded.ids.len());
        }
        assert_eq!(
            parts.first().map(|part| part.encoded.uncut),
            Some(ids.len())
        );
        let none = tokenizer.encode_words(&["".to_owned(), "a".to_owned()], 64);
        let none = none.expect("tokens");
        let unknown = tokenizer.inner.id_to_token(none[0].encoded.ids[1]);
        assert!(
            matches!(unknown.as_deref(), Some("<unk>" | "[UNK]")),
            "{unknown:?}"
        );
        assert!(tokenizer.encode_words(&words, 2).is_err());
        let many = vec!["a".to_owned(); 300];
        let why = tokenizer.encode_words(&many, 3).expect_err("too many");
        assert!(why.contains("300 parts"), "{why}");
    }
}
