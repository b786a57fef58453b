//! The tokenizer classes of transformers, and what each makes of a vocabulary.
//!
//! A class of its own makes the tokenizer anew: of `tokenizer.json` it takes the vocabulary and the added
//! tokens, and puts its own normalizer, pre-tokenizer and post-processor in place of what stands there,
//! as `tokenizer_config.json` says. `PreTrainedTokenizerFast` takes `tokenizer.json` as it is. Read in
//! transformers 5.24.

use serde_json::{Map, Value as Json};

mod parts;

pub(super) use parts::{Parts, kind, model, parts, post_processor};

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
    /// WordPiece with BERT's normalizer and RoBERTa's special tokens.
    Mpnet,
    /// Unigram that may be cut at punctuation.
    DebertaV2,
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
    ("MPNetTokenizer", Class::Mpnet),
    ("DebertaV2Tokenizer", Class::DebertaV2),
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
    ("mpnet", Class::Mpnet),
    ("deberta-v2", Class::DebertaV2),
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
            Self::Mpnet => "MPNetTokenizer",
            Self::DebertaV2 => "DebertaV2Tokenizer",
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
            Self::Bert | Self::DistilBert | Self::Mpnet => Some("WordPiece"),
            Self::Roberta
            | Self::Llama
            | Self::Gpt2
            | Self::Qwen2
            | Self::Gemma
            | Self::GptNeox => Some("BPE"),
            Self::XlmRoberta | Self::Camembert | Self::Albert | Self::DebertaV2 => Some("Unigram"),
            Self::Plain => None,
        }
    }

    /// The files that it reads where there is no `tokenizer.json`.
    pub(super) const fn older_files(self) -> &'static [&'static str] {
        match self {
            Self::Bert | Self::DistilBert | Self::Mpnet => &["vocab.txt"],
            Self::Roberta | Self::Gpt2 | Self::Qwen2 | Self::GptNeox => {
                &["vocab.json", "merges.txt"]
            }
            _ => &[],
        }
    }

    /// Whether the model is shown the segments, unless `model_input_names` says another.
    pub(super) const fn shows_segments(self) -> bool {
        matches!(self, Self::Bert | Self::DebertaV2)
    }

    /// Whether BERT's normalizer is made by keys.
    pub(super) const fn normalizes(self) -> bool {
        matches!(self, Self::Bert | Self::DistilBert | Self::Mpnet)
    }

    /// Whether `add_prefix_space` is followed, and what it is where it is not written.
    pub(super) const fn prefix_space(self) -> Option<bool> {
        match self {
            Self::Roberta | Self::Gpt2 | Self::Qwen2 | Self::GptNeox => Some(false),
            Self::XlmRoberta | Self::Camembert | Self::Albert | Self::DebertaV2 | Self::Llama => {
                Some(true)
            }
            Self::Bert | Self::DistilBert | Self::Mpnet | Self::Gemma | Self::Plain => None,
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
            Self::Mpnet => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", "[UNK]"),
                ("sep_token", "</s>"),
                ("pad_token", "<pad>"),
                ("cls_token", "<s>"),
                ("mask_token", "<mask>"),
            ],
            Self::DebertaV2 => &[
                ("bos_token", "[CLS]"),
                ("eos_token", "[SEP]"),
                ("unk_token", "[UNK]"),
                ("sep_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
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
            Self::Bert
            | Self::DistilBert
            | Self::Roberta
            | Self::Albert
            | Self::Mpnet
            | Self::DebertaV2 => Some(("cls_token", "sep_token")),
            _ => None,
        }
    }

    /// Whether it gives a mask that is written as a word the space before it.
    pub(super) const fn widens_mask(self) -> bool {
        matches!(self, Self::Camembert | Self::Mpnet)
    }

    /// Whether it makes texts lower case where `do_lower_case` is not written.
    pub(super) const fn lowers(self) -> bool {
        !matches!(self, Self::DebertaV2)
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
