//! Every key of `tokenizer_config.json` that transformers knows: used, refused where it asks for what is
//! not built, or without effect on the ids, with the reason. A key that is not here is reported.

use serde_json::{Map, Value as Json};

use super::class::Class;
use super::{Note, Topic};

/// What becomes of a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// It is followed.
    Used,
    /// It is followed where the class has use for it; else transformers passes it over, and so is it here.
    UsedBy(fn(Class) -> bool),
    /// It is followed where the class has use for it; else it is refused with the reason.
    UsedOr(fn(Class) -> bool, &'static str),
    /// Only these values, or its absence, are as if it were not written: others are refused with the reason.
    Only(&'static [Plain], &'static str),
    /// It changes no id, for the reason.
    Idle(
        #[cfg_attr(not(test), expect(dead_code, reason = "for those who read the table"))]
        &'static str,
    ),
}

/// A value that a key may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Plain {
    Null,
    Is(bool),
    Text(&'static str),
    /// `{}` or `[]`.
    Empty,
}

impl Plain {
    fn is(self, value: &Json) -> bool {
        match (self, value) {
            (Self::Null, Json::Null) => true,
            (Self::Is(wanted), Json::Bool(found)) => wanted == *found,
            (Self::Text(wanted), Json::String(found)) => wanted == found,
            (Self::Empty, Json::Array(list)) => list.is_empty(),
            (Self::Empty, Json::Object(map)) => map.is_empty(),
            _ => false,
        }
    }
}

use Plain::{Empty, Is, Null, Text};
use Rule::{Idle, Only, Used, UsedBy, UsedOr};

const PREFIX: Rule = UsedBy(|class| class.prefix_space().is_some());
const DECODING: Rule = Idle("it acts where ids become text");
const CHAT: Rule = Idle("it acts on conversations only");
const PADDING: Rule = Idle("nothing is padded");
const PLACES: Rule = Idle("the files are those beside it, wherever they were once");
const SAMPLING: Rule = Only(
    &[Null, Empty],
    "pieces would be drawn at random, which is not built; remove it",
);
const REMADE: Rule = Only(
    &[Null],
    "the tokenizer would be made of what stands here and not of its files; put it into tokenizer.json",
);

const UNKNOWN: Rule = UsedOr(
    |class| class == Class::DebertaV2,
    "the tokenizer would be made of what stands here and not of its files; put it into tokenizer.json",
);

/// The table.
pub(super) const KEYS: &[(&str, Rule)] = &[
    ("tokenizer_class", Used),
    (
        "do_lower_case",
        UsedBy(|class| class.normalizes() || matches!(class, Class::Albert | Class::DebertaV2)),
    ),
    ("split_by_punct", UsedBy(|class| class == Class::DebertaV2)),
    ("keep_accents", UsedBy(|class| class == Class::Albert)),
    ("strip_accents", UsedBy(Class::normalizes)),
    ("tokenize_chinese_chars", UsedBy(Class::normalizes)),
    ("add_prefix_space", PREFIX),
    ("bos_token", Used),
    ("eos_token", Used),
    ("unk_token", Used),
    ("sep_token", Used),
    ("pad_token", Used),
    ("cls_token", Used),
    ("mask_token", Used),
    ("additional_special_tokens", Used),
    ("extra_special_tokens", Used),
    ("model_specific_special_tokens", Used),
    ("added_tokens_decoder", Used),
    ("model_input_names", Used),
    ("truncation_side", Used),
    ("split_special_tokens", Used),
    ("model_max_length", Used),
    ("max_len", Used),
    (
        "auto_map",
        Only(
            &[Null, Empty],
            "the tokenizer is a program of the repository's own, which is not run; if tokenizer.json does \
        all that it does, remove the key",
        ),
    ),
    (
        "fast_tokenizer_files",
        Only(
            &[Null, Empty],
            "which tokenizer.json counts would depend on the version of transformers; keep one and remove \
        the key",
        ),
    ),
    (
        "init_inputs",
        Only(
            &[Null, Empty],
            "arguments without names are not followed; write them as keys",
        ),
    ),
    (
        "do_basic_tokenize",
        Only(
            &[Null, Is(true)],
            "words would be cut at spaces only, which fast tokenizers do not do; remove it, or put \
        such a pre-tokenizer into tokenizer.json with `PreTrainedTokenizerFast` as `tokenizer_class`",
        ),
    ),
    (
        "never_split",
        Only(
            &[Null, Empty],
            "fast tokenizers know no such words; list them in `added_tokens_decoder`",
        ),
    ),
    (
        "wordpieces_prefix",
        Only(
            &[Null, Text("##")],
            "pieces inside a word begin with `##`; write another prefix into tokenizer.json with \
        `PreTrainedTokenizerFast` as `tokenizer_class`",
        ),
    ),
    (
        "clean_text",
        Only(
            &[Null, Is(true)],
            "control characters are always taken out; write another normalizer into tokenizer.json with \
        `PreTrainedTokenizerFast` as `tokenizer_class`",
        ),
    ),
    ("sp_model_kwargs", SAMPLING),
    ("dropout", SAMPLING),
    (
        "backend",
        Only(
            &[Null, Text("tokenizers")],
            "only the `tokenizers` library's way is built; save the tokenizer as tokenizer.json",
        ),
    ),
    ("vocab", REMADE),
    ("merges", REMADE),
    ("unk_id", UNKNOWN),
    ("tokenizer_object", REMADE),
    ("post_processor", REMADE),
    ("_spm_precompiled_charsmap", REMADE),
    ("tokenizer_truncation", REMADE),
    ("tokenizer_padding", REMADE),
    ("_json_truncation", REMADE),
    ("_json_padding", REMADE),
    (
        "trim_offsets",
        Idle("it moves the places of tokens in the text, and no id"),
    ),
    (
        "add_bos_token",
        Idle("the class or tokenizer.json says what stands around a text"),
    ),
    (
        "add_eos_token",
        Idle("the class or tokenizer.json says what stands around a text"),
    ),
    ("errors", DECODING),
    ("clean_up_tokenization_spaces", DECODING),
    (
        "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
        DECODING,
    ),
    ("padding_side", PADDING),
    ("padding", PADDING),
    ("pad_token_type_id", PADDING),
    ("pad_to_multiple_of", PADDING),
    (
        "truncation",
        Idle("text is cut at `max_length`, wherever transformers would be asked to"),
    ),
    (
        "truncation_strategy",
        Idle("of a pair the longer text is cut first"),
    ),
    (
        "max_length",
        Idle("text is cut at the recipe's `max_length`, or where the model's positions end"),
    ),
    ("stride", Idle("what is cut off is not read")),
    ("chat_template", CHAT),
    ("chat_control_tokens", CHAT),
    ("response_schema", CHAT),
    ("response_template", CHAT),
    ("name_or_path", PLACES),
    ("vocab_file", PLACES),
    ("merges_file", PLACES),
    ("tokenizer_file", PLACES),
    ("special_tokens_map_file", PLACES),
    ("added_tokens_file", PLACES),
    ("files_loaded", PLACES),
    ("is_local", PLACES),
    ("local_files_only", PLACES),
    ("gguf_file", PLACES),
    ("_commit_hash", PLACES),
    (
        "processor_class",
        Idle("it names a class for several kinds of input"),
    ),
    ("image_processor_type", Idle("it names a class for images")),
    ("use_fast", Idle("tokenizers are always fast ones")),
    ("from_slow", Idle("tokenizers are always fast ones")),
    ("legacy", UsedBy(|class| class == Class::Llama)),
    ("verbose", Idle("it is about messages")),
    ("deprecation_warnings", Idle("it is about messages")),
    ("transformers_version", Idle("it says what wrote the file")),
    (
        "fix_mistral_regex",
        Idle("it is for Mistral's vocabularies"),
    ),
];

/// What the file says that is not followed.
///
/// # Errors
/// A key asks for what is not built.
pub(super) fn review(class: Class, config: &Map<String, Json>) -> Result<Vec<Note>, String> {
    let mut notes = Vec::new();
    let mut unknown = Vec::new();
    for (key, value) in config {
        match KEYS
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, rule)| *rule)
        {
            Some(Used | Idle(_)) => {}
            Some(UsedOr(used, _)) if used(class) || value.is_null() => {}
            Some(UsedOr(_, why)) => {
                return Err(format!(
                    "tokenizer_config.json has `{key}` = {}: {why}",
                    short(value)
                ));
            }
            Some(UsedBy(used)) if used(class) || class == Class::Plain || !asks(key, value) => {}
            Some(UsedBy(_)) => notes.push(Note {
                topic: Topic::Unread,
                message: format!(
                    "tokenizer_config.json has `{key}` = {value}, which a {} passes over",
                    class.name()
                ),
                help: "what counts is the tokenizer.json".to_owned(),
            }),
            Some(Only(plain, why)) => {
                if !plain.iter().any(|p| p.is(value)) {
                    return Err(format!(
                        "tokenizer_config.json has `{key}` = {}: {why}",
                        short(value)
                    ));
                }
            }
            // A word under such a name is a special token.
            None if key.ends_with("_token") && value.is_string() => {}
            None => unknown.push(format!("`{key}`")),
        }
    }
    if !unknown.is_empty() {
        notes.push(Note {
            topic: Topic::Unread,
            message: format!(
                "tokenizer_config.json has {}, which is not known here and not followed",
                unknown.join(", ")
            ),
            help: "if it changes how text is cut into tokens, write a tokenizer.json that does so and \
                   `PreTrainedTokenizerFast` as `tokenizer_class`"
                .to_owned(),
        });
    }
    Ok(notes)
}

/// Whether a switch asks for something that a class without it does not do.
fn asks(key: &str, value: &Json) -> bool {
    value == &Json::Bool(true) && key != "tokenize_chinese_chars"
}

/// A value in one line.
fn short(value: &Json) -> String {
    const MOST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}
