//! Switches of a tokenizer's class.

use serde_json::{Map, Value as Json};

use super::class::Class;

/// Switches out of `tokenizer_config.json` that a class makes its parts by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Switches {
    pub lowercase: bool,
    pub strip_accents: Option<bool>,
    pub chinese: bool,
    pub prefix_space: bool,
    /// Whether a space stands before each part of a text between special tokens.
    pub legacy: bool,
    /// Whether accents stay where they are else taken away.
    pub keep_accents: bool,
    /// Whether texts are cut at punctuation.
    pub punctuation: bool,
    /// The piece that stands for what is in no piece, where its token does not say so.
    pub unknown: u64,
}

impl Switches {
    /// Reads them.
    ///
    /// # Errors
    /// A value that is no truth value.
    pub(super) fn read(class: Class, config: &Map<String, Json>) -> Result<Self, String> {
        let prefix = class.prefix_space().unwrap_or(false);
        Ok(Self {
            lowercase: flag(config, "do_lower_case")?.unwrap_or(class.lowers()),
            strip_accents: flag(config, "strip_accents")?,
            chinese: flag(config, "tokenize_chinese_chars")?.unwrap_or(true),
            prefix_space: flag(config, "add_prefix_space")?.unwrap_or(prefix),
            legacy: flag(config, "legacy")?.unwrap_or(false),
            keep_accents: flag(config, "keep_accents")?.unwrap_or(false),
            unknown: place(config, "unk_id")?.unwrap_or(1),
            punctuation: flag(config, "split_by_punct")?.unwrap_or(false),
        })
    }
}

/// A truth value; `null` counts as absent.
///
/// # Errors
/// It is something else.
pub(super) fn flag(config: &Map<String, Json>, key: &str) -> Result<Option<bool>, String> {
    match config.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Bool(value)) => Ok(Some(*value)),
        Some(other) => Err(format!(
            "tokenizer_config.json has `{key}` = {other}; true or false is wanted"
        )),
    }
}

/// A whole number; `null` counts as absent.
fn place(config: &Map<String, Json>, key: &str) -> Result<Option<u64>, String> {
    match config.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| {
            format!("tokenizer_config.json has `{key}` = {value}; a whole number is wanted")
        }),
    }
}
