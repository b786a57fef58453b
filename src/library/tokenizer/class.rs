//! The tokenizer classes of transformers, and what each makes of a vocabulary.
//!
//! A class of its own makes the tokenizer anew: of `tokenizer.json` it takes the vocabulary and the added
//! tokens, and puts its own normalizer, pre-tokenizer and post-processor in place of what stands there,
//! as `tokenizer_config.json` says. `PreTrainedTokenizerFast` takes `tokenizer.json` as it is. Read in
//! transformers 5.24.

use serde_json::{Map, Value as Json, json};

use super::switches::Switches;

/// A class of tokenizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// WordPiece with BERT's normalizer.
    Bert,
    /// The same, which gives no segments.
    DistilBert,
    /// Byte-level BPE.
    Roberta,
    /// Unigram.
    XlmRoberta,
    /// Unigram with other special tokens.
    Camembert,
    /// Unigram behind a normalizer of its own.
    Albert,
    /// BPE of sentencepiece, which falls back to bytes.
    Llama,
    /// Byte-level BPE.
    Gpt2,
    /// Byte-level BPE that counts digits one by one.
    Qwen2,
    /// BPE of sentencepiece without a space before a text.
    Gemma,
    /// Byte-level BPE of composed characters.
    GptNeox,
    /// What `tokenizer.json` says.
    Plain,
}

/// Names by which `tokenizer_class` means a class, without `Fast`: aliases of transformers among them.
const NAMES: &[(&str, Class)] = &[
    ("BertTokenizer", Class::Bert),
    ("ElectraTokenizer", Class::Bert),
    ("MobileBertTokenizer", Class::Bert),
    ("SqueezeBertTokenizer", Class::Bert),
    ("LayoutLMTokenizer", Class::Bert),
    ("LxmertTokenizer", Class::Bert),
    ("ConvBertTokenizer", Class::Bert),
    ("DistilBertTokenizer", Class::DistilBert),
    ("RobertaTokenizer", Class::Roberta),
    ("LongformerTokenizer", Class::Roberta),
    ("BartTokenizer", Class::Roberta),
    ("LEDTokenizer", Class::Roberta),
    ("MvpTokenizer", Class::Roberta),
    ("XLMRobertaTokenizer", Class::XlmRoberta),
    ("CamembertTokenizer", Class::Camembert),
    ("AlbertTokenizer", Class::Albert),
    ("LlamaTokenizer", Class::Llama),
    ("GPT2Tokenizer", Class::Gpt2),
    ("Qwen2Tokenizer", Class::Qwen2),
    ("GemmaTokenizer", Class::Gemma),
    ("GPTNeoXTokenizer", Class::GptNeox),
    // It makes what stands in the files of T5 anyway.
    ("T5Tokenizer", Class::Plain),
    // It reads two models of sentencepiece; a tokenizer.json stands for both.
    ("MarianTokenizer", Class::Plain),
    ("PreTrainedTokenizer", Class::Plain),
    ("TokenizersBackend", Class::Plain),
    ("PythonBackend", Class::Plain),
];

/// The class of a model type that names none.
const OF_TYPES: &[(&str, Class)] = &[
    ("bert", Class::Bert),
    ("distilbert", Class::Bert),
    ("electra", Class::Bert),
    ("albert", Class::Albert),
    ("roberta", Class::Roberta),
    ("xlm-roberta", Class::XlmRoberta),
    ("camembert", Class::Camembert),
    ("gpt2", Class::Gpt2),
    ("qwen2", Class::Qwen2),
    ("qwen3", Class::Qwen2),
    ("gemma", Class::Gemma),
    ("gemma2", Class::Gemma),
    ("gemma3_text", Class::Gemma),
    ("gpt_neox", Class::GptNeox),
];

/// Model types whose `tokenizer.json` is taken as it is whenever the files name another class.
const AS_IT_IS: &[&str] = &[
    "mistral",
    "phi3",
    "olmo2",
    "granite",
    "modernbert",
    "xlm-roberta-xl",
];

/// Model types whose files name a class that transformers knows to be wrong.
const WRONGLY_NAMED: &[&str] = &["qwen2", "phi3", "modernbert"];

/// The special token of vocabularies like GPT-2's.
const END: &str = "<|endoftext|>";

/// What Qwen2's class splits texts by: contractions, words with one character before them, single digits, runs of other
/// characters with the line ends behind them, line ends, and spaces.
const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Class {
    /// The class that transformers takes, by the `tokenizer_class` of `tokenizer_config.json`, that of
    /// `config.json`, or the model's type. `byte_level` says whether `tokenizer.json` works on bytes, `kind` of which kind
    /// its model is.
    ///
    /// # Errors
    /// A class that is not built.
    pub(super) fn of(
        config: &Map<String, Json>,
        model: &Map<String, Json>,
        (byte_level, kind): (&dyn Fn() -> bool, Option<&str>),
    ) -> Result<Self, String> {
        let model_type = model.get("model_type").and_then(Json::as_str);
        let is_in = |list: &[&str]| model_type.is_some_and(|own| list.contains(&own));
        let registered = OF_TYPES.iter().find(|(t, _)| Some(*t) == model_type);
        let registered = registered.map_or(Self::Plain, |(_, class)| *class);
        for (file, keys) in [("tokenizer_config.json", config), ("config.json", model)] {
            let name = match keys.get("tokenizer_class") {
                None | Some(Json::Null) => continue,
                Some(Json::String(name)) if name.is_empty() => continue,
                Some(Json::String(name)) => name,
                Some(other) => {
                    return Err(format!(
                        "{file} has `tokenizer_class` = {other}; the name of a class is wanted"
                    ));
                }
            };
            let plain = name.strip_suffix("Fast").unwrap_or(name);
            // Many files of byte-level vocabularies say so.
            let wrong = plain == "LlamaTokenizer" && !is_in(WRONGLY_NAMED) && byte_level();
            if wrong || is_in(AS_IT_IS) {
                return Ok(Self::Plain);
            }
            let named = NAMES.iter().find(|(known, _)| *known == plain);
            let named = named.map(|(_, class)| *class);
            if is_in(WRONGLY_NAMED) {
                // The class could make nothing of a model of another kind.
                let other = kind.is_some_and(|kind| registered.model() != Some(kind));
                let as_it_is = named == Some(Self::Plain) && other;
                return Ok(if as_it_is { Self::Plain } else { registered });
            }
            return named
                .ok_or_else(|| {
                    format!(
                        "{file} asks for the tokenizer class `{name}`, which is not built; built are {}. If a \
                         tokenizer.json beside it does all that the class does, write `PreTrainedTokenizerFast` there",
                        built()
                    )
                });
        }
        Ok(registered)
    }

    /// Its name in transformers.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bert => "BertTokenizer",
            Self::DistilBert => "DistilBertTokenizer",
            Self::Roberta => "RobertaTokenizer",
            Self::XlmRoberta => "XLMRobertaTokenizer",
            Self::Camembert => "CamembertTokenizer",
            Self::Albert => "AlbertTokenizer",
            Self::Llama => "LlamaTokenizer",
            Self::Gpt2 => "GPT2Tokenizer",
            Self::Qwen2 => "Qwen2Tokenizer",
            Self::Gemma => "GemmaTokenizer",
            Self::GptNeox => "GPTNeoXTokenizer",
            Self::Plain => "PreTrainedTokenizer",
        }
    }

    /// The kind of model that it makes; `None` where the file says.
    pub(super) const fn model(self) -> Option<&'static str> {
        match self {
            Self::Bert | Self::DistilBert => Some("WordPiece"),
            Self::Roberta
            | Self::Llama
            | Self::Gpt2
            | Self::Qwen2
            | Self::Gemma
            | Self::GptNeox => Some("BPE"),
            Self::XlmRoberta | Self::Camembert | Self::Albert => Some("Unigram"),
            Self::Plain => None,
        }
    }

    /// The files that it reads where there is no `tokenizer.json`.
    pub(super) const fn older_files(self) -> &'static [&'static str] {
        match self {
            Self::Bert | Self::DistilBert => &["vocab.txt"],
            Self::Roberta | Self::Gpt2 | Self::Qwen2 | Self::GptNeox => {
                &["vocab.json", "merges.txt"]
            }
            _ => &[],
        }
    }

    /// Whether the model is shown the segments, unless `model_input_names` says another.
    pub(super) const fn shows_segments(self) -> bool {
        matches!(self, Self::Bert)
    }

    /// Whether BERT's normalizer is made by keys.
    pub(super) const fn normalizes(self) -> bool {
        matches!(self, Self::Bert | Self::DistilBert)
    }

    /// Whether `add_prefix_space` is followed, and what it is where it is not written.
    pub(super) const fn prefix_space(self) -> Option<bool> {
        match self {
            Self::Roberta | Self::Gpt2 | Self::Qwen2 | Self::GptNeox => Some(false),
            Self::XlmRoberta | Self::Camembert | Self::Albert | Self::Llama => Some(true),
            Self::Bert | Self::DistilBert | Self::Gemma | Self::Plain => None,
        }
    }

    /// Tokens of the roles that no file names.
    pub(super) const fn default_tokens(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Bert | Self::DistilBert => &[
                ("unk_token", "[UNK]"),
                ("sep_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
            Self::Roberta | Self::XlmRoberta | Self::Camembert => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", "<unk>"),
                ("sep_token", "</s>"),
                ("pad_token", "<pad>"),
                ("cls_token", "<s>"),
                ("mask_token", "<mask>"),
            ],
            Self::Albert => &[
                ("bos_token", "[CLS]"),
                ("eos_token", "[SEP]"),
                ("unk_token", "<unk>"),
                ("sep_token", "[SEP]"),
                ("pad_token", "<pad>"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
            Self::Llama => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", "<unk>"),
            ],
            Self::Gpt2 => &[("bos_token", END), ("eos_token", END), ("unk_token", END)],
            Self::Qwen2 => &[("eos_token", END), ("unk_token", END), ("pad_token", END)],
            Self::Gemma => &[
                ("bos_token", "<bos>"),
                ("eos_token", "<eos>"),
                ("unk_token", "<unk>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
            Self::GptNeox => &[
                ("bos_token", END),
                ("eos_token", END),
                ("unk_token", END),
                ("pad_token", "<|padding|>"),
            ],
            Self::Plain => &[],
        }
    }

    /// The roles of the tokens that it puts before a text and after it; `None` where the file says what stands there.
    pub(super) const fn ends(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::XlmRoberta | Self::Camembert => Some(("bos_token", "eos_token")),
            Self::Bert | Self::DistilBert | Self::Roberta | Self::Albert => {
                Some(("cls_token", "sep_token"))
            }
            _ => None,
        }
    }

    /// Whether it takes the post-processor of `tokenizer.json`.
    pub(super) const fn keeps_ends(self) -> bool {
        matches!(self, Self::Llama | Self::Gpt2 | Self::Qwen2 | Self::Gemma)
    }

    /// Whether its vocabulary lacks no byte.
    pub(super) const fn byte_level(self) -> bool {
        matches!(
            self,
            Self::Roberta | Self::Gpt2 | Self::Qwen2 | Self::GptNeox
        )
    }
}

/// The names of the classes that are built.
fn built() -> String {
    let mut names: Vec<&str> = NAMES.iter().map(|(_, class)| class.name()).collect();
    names.dedup();
    names.join(", ")
}

/// The parts that a class makes, as `tokenizer.json` writes them; all but the model.
pub(super) struct Parts {
    pub normalizer: Json,
    pub pre_tokenizer: Json,
    pub decoder: Json,
}

/// What a class puts around its model. `charsmap` is the normalizer that a Unigram model brings along.
pub(super) fn parts(class: Class, switches: Switches, charsmap: Option<Json>) -> Parts {
    let Switches {
        lowercase,
        strip_accents,
        chinese,
        prefix_space,
        legacy,
        keep_accents,
    } = switches;
    let bytes = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": true, "use_regex": regex });
    let from_bytes = json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true });
    match class {
        Class::Bert | Class::DistilBert => Parts {
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
pub(super) fn post_processor(
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
        Class::Roberta => {
            json!({ "type": "RobertaProcessing", "sep": [last.0, last.1], "cls": [first.0, first.1],
            "trim_offsets": true, "add_prefix_space": prefix_space })
        }
        Class::Bert | Class::DistilBert | Class::Albert => json!({ "type": "TemplateProcessing",
            "single": [piece(first.0, 0), text("A", 0), piece(last.0, 0)],
            "pair": [piece(first.0, 0), text("A", 0), piece(last.0, 0), text("B", 1), piece(last.0, 1)],
            "special_tokens": specials }),
        _ => {
            json!({ "type": "TemplateProcessing",
            "single": [piece(first.0, 0), text("A", 0), piece(last.0, 0)],
            "pair": [piece(first.0, 0), text("A", 0), piece(last.0, 0), piece(last.0, 0), text("B", 0), piece(last.0, 0)],
            "special_tokens": specials })
        }
    }
}

/// The model that a class makes of a vocabulary. `unknown` is the token of what is not in it.
pub(super) fn model(class: Class, mut own: Map<String, Json>, unknown: &str) -> Json {
    let vocab = own.swap_remove("vocab").unwrap_or_default();
    match class {
        Class::Bert | Class::DistilBert => {
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
pub(super) fn kind(model: &Map<String, Json>) -> &str {
    match model.get("type").and_then(Json::as_str) {
        Some(kind) => kind,
        None if model.contains_key("merges") => "BPE",
        None if model.get("vocab").is_some_and(Json::is_array) => "Unigram",
        None => "WordPiece",
    }
}
