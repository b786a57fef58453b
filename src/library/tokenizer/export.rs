//! A tokenizer written for transformers: `tokenizer.json`, and a `tokenizer_config.json` with which
//! transformers makes the same tokenizer of it.

use serde_json::{Map, Value as Json, json};
use tokenizers::utils::truncation::TruncationDirection as Side;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

use super::added::ROLES;
use super::class::Class;
use super::{MASKS, Tokenizer, TokenizerFiles, files};

impl Tokenizer {
    /// Its `tokenizer.json`.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn save_json(&self) -> Result<Vec<u8>, String> {
        self.inner
            .to_string(true)
            .map(String::into_bytes)
            .map_err(|e| e.to_string())
    }

    /// A `tokenizer_config.json` for it. It names the class only if that class makes this very tokenizer
    /// of the two files; else `PreTrainedTokenizerFast`, which takes `tokenizer.json` as it is. What the
    /// class decides by switches stands there too, as do the inputs that the model is shown.
    #[must_use]
    pub fn config_json(&self, max_length: u64) -> Json {
        let named = self.config_of(self.class, max_length);
        let own = self.inner.to_string(false).ok();
        let again = own.as_ref().and_then(|json| {
            let config = serde_json::to_vec(&named).ok()?;
            let get = |name: &str| match name {
                "tokenizer.json" => Some(json.clone().into_bytes()),
                "tokenizer_config.json" => Some(config.clone()),
                _ => None,
            };
            let dir_name = String::new();
            files::read(&TokenizerFiles {
                dir_name,
                get: &get,
            })
            .ok()
        });
        if again.is_some_and(|t| t.identity == self.identity) {
            named
        } else {
            self.config_of(Class::Plain, max_length)
        }
    }

    fn config_of(&self, class: Class, max_length: u64) -> Json {
        let mut map = Map::new();
        let name = format!("{}Fast", class.name());
        map.insert("tokenizer_class".into(), json!(name));
        let longest = self.made_for.map_or(max_length, |n| n.min(max_length));
        map.insert("model_max_length".into(), json!(longest));
        if let Some(NormalizerWrapper::BertNormalizer(bert)) = self.inner.get_normalizer() {
            map.insert("do_lower_case".into(), json!(bert.lowercase));
            map.insert("strip_accents".into(), json!(bert.strip_accents));
            map.insert(
                "tokenize_chinese_chars".into(),
                json!(bert.handle_chinese_chars),
            );
        }
        if let Some(PreTokenizerWrapper::ByteLevel(bytes)) = self.inner.get_pre_tokenizer() {
            map.insert("add_prefix_space".into(), json!(bytes.add_prefix_space));
        } else if self.class.prefix_space().is_some() {
            map.insert("add_prefix_space".into(), json!(self.prefixed()));
        }
        if self.class == Class::Llama {
            map.insert("legacy".into(), json!(self.pre_tokenizes("\"always\"")));
        }
        let mut inputs = vec!["input_ids"];
        if self.shows_segments {
            inputs.push("token_type_ids");
        }
        inputs.push("attention_mask");
        map.insert("model_input_names".into(), json!(inputs));
        if self.side == Side::Left {
            map.insert("truncation_side".into(), json!("left"));
        }
        if self.inner.get_encode_special_tokens() {
            map.insert("split_special_tokens".into(), json!(true));
        }
        map.extend(self.special_tokens_json());
        Json::Object(map)
    }

    /// Whether a class with pieces, or with a split before its bytes, puts a space before a text.
    fn prefixed(&self) -> bool {
        !self.pre_tokenizes("\"never\"") && !self.pre_tokenizes("\"add_prefix_space\":false")
    }

    /// Whether the pre-tokenizer is written with such words.
    fn pre_tokenizes(&self, words: &str) -> bool {
        let json = serde_json::to_string(&self.inner.get_pre_tokenizer());
        json.is_ok_and(|json| json.contains(words))
    }

    /// The token of each role: those the files name, else the usual ones among the special tokens.
    #[must_use]
    pub fn special_tokens_json(&self) -> Map<String, Json> {
        let usual = [
            ("bos_token", ["<s>", "<s>"]),
            ("eos_token", ["</s>", "</s>"]),
            ("unk_token", ["[UNK]", "<unk>"]),
            ("sep_token", ["[SEP]", "</s>"]),
            ("pad_token", ["[PAD]", "<pad>"]),
            ("cls_token", ["[CLS]", "<s>"]),
            ("mask_token", MASKS),
        ];
        let mut map = Map::new();
        for role in ROLES {
            let names = usual
                .iter()
                .find(|(r, _)| *r == role)
                .map(|(_, names)| names);
            // The classes of decoders name their own.
            let guesses = self.class.ends().is_some() || self.class == Class::Plain;
            let known = names.into_iter().flatten().copied();
            let known = known.filter(|_| guesses);
            let token = self.tokens.of(role).or_else(|| {
                known
                    .into_iter()
                    .find(|n| self.inner.token_to_id(n).is_some())
            });
            if let Some(token) = token {
                map.insert(role.to_owned(), json!(token));
            }
        }
        map
    }
}
