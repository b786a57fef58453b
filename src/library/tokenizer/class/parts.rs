//! What a tokenizer class puts around its vocabulary, as `tokenizer.json` writes it.

use serde_json::{Map, Value as Json, json};

use super::super::switches::Switches;
use super::Class;

/// What Qwen2's class splits texts by: contractions, words with one character before them, single digits, runs of other
/// characters with the line ends behind them, line ends, and spaces.
const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The parts that a class makes, as `tokenizer.json` writes them; all but the model.
pub(in super::super) struct Parts {
    pub normalizer: Json,
    pub pre_tokenizer: Json,
    pub decoder: Json,
}

/// What a class puts around its model. `charsmap` is the normalizer that a Unigram model brings along.
pub(in super::super) fn parts(class: Class, switches: Switches, charsmap: Option<Json>) -> Parts {
    let Switches {
        lowercase,
        strip_accents,
        chinese,
        prefix_space,
        legacy,
        keep_accents,
        punctuation,
        unknown: _,
    } = switches;
    let bytes = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": true, "use_regex": regex });
    let from_bytes = json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true });
    match class {
        Class::Bert | Class::DistilBert | Class::Mpnet => Parts {
            normalizer: json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": chinese,
                "strip_accents": strip_accents, "lowercase": lowercase }),
            pre_tokenizer: json!({ "type": "BertPreTokenizer" }),
            decoder: json!({ "type": "WordPiece", "prefix": "##", "cleanup": true }),
        },
        Class::Roberta | Class::Gpt2 => Parts {
            normalizer: Json::Null,
            pre_tokenizer: bytes(true),
            decoder: from_bytes,
        },
        Class::GptNeox => Parts {
            normalizer: json!({ "type": "NFC" }),
            pre_tokenizer: bytes(true),
            decoder: from_bytes,
        },
        Class::Qwen2 => {
            let split = json!({ "type": "Split", "pattern": { "Regex": QWEN2_SPLIT }, "behavior": "Isolated", "invert": false });
            Parts {
                normalizer: json!({ "type": "NFC" }),
                pre_tokenizer: json!({ "type": "Sequence", "pretokenizers": [split, bytes(false)] }),
                decoder: from_bytes,
            }
        }
        Class::DebertaV2 => {
            let scheme = if prefix_space { "always" } else { "first" };
            let metaspace = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true });
            let cut = json!({ "type": "Punctuation", "behavior": "Isolated" });
            let all: Vec<Json> = punctuation.then_some(cut).into_iter().collect();
            let all = [all, vec![metaspace.clone()]].concat();
            Parts {
                normalizer: deberta(lowercase),
                pre_tokenizer: json!({ "type": "Sequence", "pretokenizers": all }),
                decoder: metaspace,
            }
        }
        Class::Llama => {
            let scheme = match (prefix_space, legacy) {
                (false, _) => "never",
                (true, true) => "always",
                (true, false) => "first",
            };
            Parts {
                normalizer: Json::Null,
                pre_tokenizer: json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false }),
                decoder: from_pieces(prefix_space),
            }
        }
        Class::Gemma => Parts {
            normalizer: json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" }),
            pre_tokenizer: json!({ "type": "Split", "pattern": { "String": " " }, "behavior": "MergedWithPrevious", "invert": false }),
            decoder: from_pieces(false),
        },
        Class::XlmRoberta | Class::Camembert | Class::Albert | Class::Plain => {
            let own = match class {
                Class::Albert => albert(charsmap, lowercase, keep_accents),
                _ => charsmap.unwrap_or(Json::Null),
            };
            let scheme = if prefix_space { "always" } else { "never" };
            let metaspace = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true });
            Parts {
                normalizer: own,
                pre_tokenizer: json!({ "type": "Sequence", "pretokenizers": [{ "type": "WhitespaceSplit" }, &metaspace] }),
                decoder: metaspace,
            }
        }
    }
}

/// ALBERT's normalizer.
fn albert(charsmap: Option<Json>, lowercase: bool, keep_accents: bool) -> Json {
    let quote =
        |marks: &str| json!({ "type": "Replace", "pattern": { "String": marks }, "content": "\"" });
    let mut all = vec![quote("``"), quote("''")];
    if !keep_accents {
        all.extend([json!({ "type": "NFKD" }), json!({ "type": "StripAccents" })]);
    }
    if lowercase {
        all.push(json!({ "type": "Lowercase" }));
    }
    all.extend(charsmap);
    json!({ "type": "Sequence", "normalizers": all })
}

/// DeBERTa's normalizer.
fn deberta(lowercase: bool) -> Json {
    let lower = lowercase.then(|| json!({ "type": "Lowercase" }));
    let own = [
        json!({ "type": "Replace", "pattern": { "Regex": r"\s{2,}|[\n\r\t]" }, "content": " " }),
        json!({ "type": "NFC" }),
        json!({ "type": "Strip", "strip_left": false, "strip_right": true }),
    ];
    let all: Vec<Json> = lower.into_iter().chain(own).collect();
    json!({ "type": "Sequence", "normalizers": all })
}

/// The decoder of pieces with bytes among them; `strip` takes the space away that was put before the text.
fn from_pieces(strip: bool) -> Json {
    let mut all = vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if strip {
        all.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    json!({ "type": "Sequence", "decoders": all })
}

/// The post-processor that a class makes of the tokens before and after a text.
pub(in super::super) fn post_processor(
    class: Class,
    prefix_space: bool,
    first: (&str, u32),
    last: (&str, u32),
) -> Json {
    let special = |(name, id): (&str, u32)| json!({ "id": name, "ids": [id], "tokens": [name] });
    let piece =
        |name: &str, segment: u8| json!({ "SpecialToken": { "id": name, "type_id": segment } });
    let text = |name: &str, segment: u8| json!({ "Sequence": { "id": name, "type_id": segment } });
    let mut specials = Map::new();
    for token in [first, last] {
        specials.insert(token.0.to_owned(), special(token));
    }
    match class {
        Class::Roberta | Class::Mpnet => {
            json!({ "type": "RobertaProcessing", "sep": [last.0, last.1], "cls": [first.0, first.1],
            "trim_offsets": true, "add_prefix_space": prefix_space })
        }
        Class::Bert | Class::DistilBert | Class::Albert | Class::DebertaV2 => {
            json!({ "type": "TemplateProcessing",
            "single": [piece(first.0, 0), text("A", 0), piece(last.0, 0)],
            "pair": [piece(first.0, 0), text("A", 0), piece(last.0, 0), text("B", 1), piece(last.0, 1)],
            "special_tokens": specials })
        }
        _ => {
            json!({ "type": "TemplateProcessing",
            "single": [piece(first.0, 0), text("A", 0), piece(last.0, 0)],
            "pair": [piece(first.0, 0), text("A", 0), piece(last.0, 0), piece(last.0, 0), text("B", 0), piece(last.0, 0)],
            "special_tokens": specials })
        }
    }
}

/// The model that a class makes of a vocabulary. `unknown` is the token of what is not in it, `place` its piece where the
/// vocabulary does not say so.
pub(in super::super) fn model(
    (class, place): (Class, u64),
    mut own: Map<String, Json>,
    unknown: &str,
) -> Json {
    let vocab = own.swap_remove("vocab").unwrap_or_default();
    match class {
        Class::Bert | Class::DistilBert | Class::Mpnet => {
            json!({ "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab })
        }
        Class::Roberta | Class::Gpt2 | Class::Qwen2 | Class::GptNeox => {
            json!({ "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab,
            "merges": own.swap_remove("merges").unwrap_or_else(|| json!([])) })
        }
        Class::Llama | Class::Gemma => {
            let unk = (class == Class::Gemma).then_some(unknown);
            json!({ "type": "BPE", "dropout": null, "unk_token": unk, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": vocab,
            "merges": own.swap_remove("merges").unwrap_or_else(|| json!([])) })
        }
        Class::Albert => {
            json!({ "type": "Unigram", "unk_id": 1, "byte_fallback": false, "vocab": vocab })
        }
        Class::DebertaV2 => {
            let own = |piece: &Json| {
                let score = piece.get(1).and_then(Json::as_f64);
                piece.get(0).and_then(Json::as_str) == Some(unknown) && score == Some(0.0)
            };
            let pieces = vocab.as_array();
            let found = pieces.and_then(|pieces| pieces.iter().position(own));
            let unknown = found.map_or(place, |found| found as u64);
            json!({ "type": "Unigram", "unk_id": unknown, "byte_fallback": false, "vocab": vocab })
        }
        Class::XlmRoberta | Class::Camembert | Class::Plain => {
            let place = vocab.as_array().and_then(|pieces| {
                pieces
                    .iter()
                    .position(|p| p.get(0).and_then(Json::as_str) == Some(unknown))
            });
            let unk = if class == Class::Camembert {
                place.unwrap_or(0)
            } else {
                3
            };
            json!({ "type": "Unigram", "unk_id": unk, "byte_fallback": false, "vocab": vocab })
        }
    }
}

/// The kind of the model in a `tokenizer.json`; older files do not name it.
pub(in super::super) fn kind(model: &Map<String, Json>) -> &str {
    match model.get("type").and_then(Json::as_str) {
        Some(kind) => kind,
        None if model.contains_key("merges") => "BPE",
        None if model.get("vocab").is_some_and(Json::is_array) => "Unigram",
        None => "WordPiece",
    }
}
