//! Tokenizers out of a model's files: `tokenizer.json`, or the older `vocab.txt`, or `vocab.json`
//! with `merges.txt`.

use std::ops::Range;

use serde_json::{Map, Value as Json, json};
use tokenizers::utils::truncation::{TruncationParams, TruncationStrategy, truncate_encodings};
use tokenizers::{
    ModelWrapper, NormalizerWrapper, PostProcessor, PreTokenizerWrapper, Tokenizer as Inner,
};

use super::prompt::Filled;

/// Mask tokens of the known vocabularies.
const MASKS: [&str; 2] = ["[MASK]", "<mask>"];

/// A reader of the files beside a model's config, by name.
pub struct TokenizerFiles<'a> {
    /// Where they are, for messages.
    pub dir_name: String,
    /// Gives a file's content.
    pub get: &'a dyn Fn(&str) -> Option<Vec<u8>>,
}

/// A tokenized example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Segment of each token.
    pub segments: Vec<u8>,
    /// How many there were before the cut.
    pub uncut: usize,
}

/// A tokenizer.
pub struct Tokenizer {
    inner: Inner,
    bytes: u64,
    identity: String,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.vocab_size())
    }
}

impl Tokenizer {
    /// Reads a tokenizer.
    ///
    /// # Errors
    /// A sentence that names the file and the remedy.
    pub fn from_files(files: &TokenizerFiles<'_>) -> Result<Self, String> {
        let config: Json = (files.get)("tokenizer_config.json")
            .and_then(|b| serde_json::from_slice(&b).ok())
            .unwrap_or(Json::Null);
        let bytes = match (files.get)("tokenizer.json") {
            Some(bytes) => bytes,
            None => built(files, &config)?,
        };
        let mut inner = Inner::from_bytes(&bytes)
            .map_err(|e| format!("the tokenizer in `{}` is damaged: {e}", files.dir_name))?;
        // Cutting and padding are the caller's business.
        inner.with_truncation(None).map_err(|e| e.to_string())?;
        inner.with_padding(None);
        let identity = blake3::hash(&bytes).to_hex().to_string();
        Ok(Self {
            inner,
            bytes: bytes.len() as u64,
            identity,
        })
    }

    /// Tokens of a text, or of a pair, with special tokens; cut to `max_length`, the longer text first.
    ///
    /// # Errors
    /// What the tokenizer complains about.
    pub fn encode(&self, texts: &[String], max_length: usize) -> Result<Encoded, String> {
        let one = |text: &String| {
            self.inner
                .encode_fast(text.as_str(), false)
                .map_err(|e| e.to_string())
        };
        let first = match texts.first() {
            Some(text) => one(text)?,
            None => return Err("there is no text".into()),
        };
        let second = texts.get(1).map(one).transpose()?;
        let special = self.added_tokens(second.is_some());
        let Some(room) = max_length.checked_sub(special) else {
            return Err(format!(
                "`max_length` {max_length} leaves no room beside {special} special tokens"
            ));
        };
        let params = TruncationParams {
            max_length: room,
            strategy: TruncationStrategy::LongestFirst,
            ..TruncationParams::default()
        };
        let uncut = special + first.len() + second.as_ref().map_or(0, |s| s.len());
        let (first, second) =
            truncate_encodings(first, second, &params).map_err(|e| e.to_string())?;
        let done = self
            .inner
            .post_process(first, second, true)
            .map_err(|e| e.to_string())?;
        Ok(Encoded {
            ids: done.get_ids().to_vec(),
            segments: done.get_type_ids().iter().map(|&t| t as u8).collect(),
            uncut,
        })
    }

    /// Tokens of a filled template with `after` behind it, with special tokens, and the place of its mask.
    /// Cut to `max_length` by dropping tokens from the ends of the longest columns; neither the template
    /// itself nor what comes after it is cut.
    ///
    /// # Errors
    /// What the tokenizer complains about; a template that is too long by itself.
    pub fn encode_prompt(
        &self,
        filled: &Filled,
        after: &[u32],
        max_length: usize,
    ) -> Result<(Encoded, Option<u32>), String> {
        let inner = self
            .inner
            .encode(filled.text.as_str(), false)
            .map_err(|e| e.to_string())?;
        let offsets = inner.get_offsets().to_vec();
        let done = self
            .inner
            .post_process(inner, None, true)
            .map_err(|e| e.to_string())?;
        let special = done.get_special_tokens_mask();
        let first = special
            .iter()
            .take_while(|&&s| s == 1)
            .count()
            .min(special.len() - offsets.len());
        let mut cuttable = column_tokens(&offsets, &filled.columns, 0);
        let mut dropped = vec![false; special.len()];
        for _ in max_length..special.len() + after.len() {
            let longest = cuttable.iter_mut().max_by_key(|c| c.len());
            match longest.and_then(Vec::pop) {
                Some(i) => dropped[first + i] = true,
                None => {
                    let gone = dropped.iter().filter(|d| **d).count();
                    let fixed = special.len() + after.len() - gone;
                    let what = if after.is_empty() {
                        "the template alone takes"
                    } else {
                        "the template and its demonstrations take"
                    };
                    return Err(format!(
                        "{what} {fixed} tokens, and `max_length` is {max_length}"
                    ));
                }
            }
        }
        let kept = |i: &usize| !dropped[*i];
        let mask = match filled.mask {
            None => None,
            Some(at) => {
                let token = offsets
                    .iter()
                    .position(|&(start, end)| start <= at && at < end);
                let token = token
                    .map(|i| first + i)
                    .ok_or("the tokenizer gives no token for the mask")?;
                Some((0..token).filter(kept).count() as u32)
            }
        };
        let (ids, types) = (done.get_ids(), done.get_type_ids());
        let places: Vec<usize> = (0..special.len()).filter(kept).collect();
        let mut encoded = Encoded {
            ids: places.iter().map(|&i| ids[i]).collect(),
            segments: places.iter().map(|&i| types[i] as u8).collect(),
            uncut: special.len() + after.len(),
        };
        let end = places.partition_point(|&i| i < first + offsets.len());
        let segment = places.get(end.saturating_sub(1)).map_or(0, |&i| types[i]);
        encoded.ids.splice(end..end, after.iter().copied());
        let segments = after.iter().map(|_| segment as u8);
        encoded.segments.splice(end..end, segments);
        Ok((encoded, mask))
    }

    /// Tokens of a filled template that stands behind other text, without special tokens: `word` in the
    /// place of the mask, the columns together cut to `most` tokens at the ends of the longest.
    ///
    /// # Errors
    /// What the tokenizer complains about.
    pub fn encode_demonstration(
        &self,
        filled: &Filled,
        word: u32,
        most: usize,
    ) -> Result<Vec<u32>, String> {
        let inner = self
            .inner
            .encode(format!(" {}", filled.text), false)
            .map_err(|e| e.to_string())?;
        let offsets = inner.get_offsets();
        let mut cuttable = column_tokens(offsets, &filled.columns, 1);
        let mut ids: Vec<Option<u32>> = inner.get_ids().iter().copied().map(Some).collect();
        for _ in most..cuttable.iter().map(Vec::len).sum() {
            let longest = cuttable.iter_mut().max_by_key(|c| c.len());
            if let Some(i) = longest.and_then(Vec::pop) {
                ids[i] = None;
            }
        }
        let at = filled.mask.ok_or("the template has no mask")? + 1;
        let mask = offsets
            .iter()
            .position(|&(start, end)| start <= at && at < end)
            .ok_or("the tokenizer gives no token for the mask")?;
        ids[mask] = Some(word);
        Ok(ids.into_iter().flatten().collect())
    }

    /// Number of tokens it can give: one more than the largest id.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner
            .get_vocab(true)
            .values()
            .max()
            .map_or(0, |&id| id as usize + 1)
    }

    /// Hash of the file it was read from.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

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

    /// A `tokenizer_config.json` for a model family. It repeats what the tokenizer does with case,
    /// accents and leading spaces: transformers' classes put their own defaults in place of what
    /// `tokenizer.json` says, and a cased model would read lower case.
    #[must_use]
    pub fn config_json(&self, family: &str, max_length: u64) -> Json {
        let pieces = matches!(self.inner.get_model(), ModelWrapper::Unigram(_));
        let class = match family {
            _ if pieces => "XLMRobertaTokenizerFast",
            "roberta" => "RobertaTokenizerFast",
            "distilbert" => "DistilBertTokenizerFast",
            _ => "BertTokenizerFast",
        };
        let mut map = Map::new();
        map.insert("tokenizer_class".into(), json!(class));
        map.insert("model_max_length".into(), json!(max_length));
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
        }
        map.extend(self.special_tokens_json());
        Json::Object(map)
    }

    /// A `special_tokens_map.json`: the token of each role that the vocabulary has.
    #[must_use]
    pub fn special_tokens_json(&self) -> Map<String, Json> {
        let roles = [
            ("bos_token", ["<s>", "<s>"]),
            ("eos_token", ["</s>", "</s>"]),
            ("cls_token", ["[CLS]", "<s>"]),
            ("sep_token", ["[SEP]", "</s>"]),
            ("pad_token", ["[PAD]", "<pad>"]),
            ("unk_token", ["[UNK]", "<unk>"]),
            ("mask_token", MASKS),
        ];
        let known = |names: [&'static str; 2]| {
            names
                .into_iter()
                .find(|n| self.inner.token_to_id(n).is_some())
        };
        roles
            .into_iter()
            .filter_map(|(role, names)| Some((role.to_owned(), json!(known(names)?))))
            .collect()
    }

    /// Tokens added to each text, or to each pair of texts.
    #[must_use]
    pub fn added_tokens(&self, pair: bool) -> usize {
        self.inner
            .get_post_processor()
            .map_or(0, |p| p.added_tokens(pair))
    }

    /// Ids of the tokens that are no part of a text, ascending.
    #[must_use]
    pub fn special_ids(&self) -> Vec<u32> {
        let added = self.inner.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special);
        let mut ids: Vec<u32> = special.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// A token as the vocabulary writes it.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of the token for what the vocabulary does not hold, if there is one.
    #[must_use]
    pub fn unknown(&self) -> Option<u32> {
        let name = match self.inner.get_model() {
            ModelWrapper::WordPiece(model) => model.unk_token.clone(),
            ModelWrapper::WordLevel(model) => model.unk_token.clone(),
            ModelWrapper::BPE(model) => model.unk_token.clone()?,
            // The library keeps the id to itself; sentencepiece's name for it is this.
            ModelWrapper::Unigram(_) => "<unk>".to_owned(),
        };
        self.inner.token_to_id(&name)
    }

    /// The mask token and its id, if the vocabulary has one.
    #[must_use]
    pub fn mask(&self) -> Option<(&'static str, u32)> {
        MASKS
            .into_iter()
            .find_map(|name| Some((name, self.inner.token_to_id(name)?)))
    }

    /// The tokens of a word in the middle of a text: a byte-level vocabulary has `Ġgreat` for it,
    /// the word with the space before it, and that is what a mask stands for.
    ///
    /// # Errors
    /// What the tokenizer complains about.
    pub fn word_pieces(&self, word: &str) -> Result<Vec<(String, u32)>, String> {
        let spaced = matches!(
            self.inner.get_pre_tokenizer(),
            Some(PreTokenizerWrapper::ByteLevel(_))
        );
        let text = if spaced {
            format!(" {}", word.trim_start())
        } else {
            word.to_owned()
        };
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| e.to_string())?;
        let ids = encoding.get_ids().iter();
        Ok(ids
            .map(|&id| (self.inner.id_to_token(id).unwrap_or_default(), id))
            .collect())
    }

    /// Rough size of its tables in memory.
    #[must_use]
    pub const fn heap_bytes(&self) -> u64 {
        12 * self.bytes
    }
}

/// The tokens of each column, by their places in a text that is `shift` bytes behind the filled one.
fn column_tokens(
    offsets: &[(usize, usize)],
    columns: &[Range<usize>],
    shift: usize,
) -> Vec<Vec<usize>> {
    let of = |column: &Range<usize>| {
        let inside = |&i: &usize| {
            let (start, end) = offsets[i];
            start >= column.start + shift && end <= column.end + shift && start < end
        };
        (0..offsets.len()).filter(inside).collect()
    };
    columns.iter().map(of).collect()
}

/// A `tokenizer.json` built from the older files.
fn built(files: &TokenizerFiles<'_>, config: &Json) -> Result<Vec<u8>, String> {
    let text = |name: &str| {
        (files.get)(name)
            .map(|b| String::from_utf8(b).map_err(|_| format!("`{name}` is not UTF-8 text")))
            .transpose()
    };
    let json = if let Some(vocab) = text("vocab.txt")? {
        word_piece(&vocab, config)?
    } else if let (Some(vocab), Some(merges)) = (text("vocab.json")?, text("merges.txt")?) {
        byte_level(&vocab, &merges, config)?
    } else if (files.get)("sentencepiece.bpe.model").is_some() {
        return Err(format!(
            "`{}` has a sentencepiece model only: save a tokenizer.json with transformers' fast tokenizer",
            files.dir_name
        ));
    } else {
        return Err(format!(
            "there is no tokenizer.json, vocab.txt, or vocab.json with merges.txt in `{}`",
            files.dir_name
        ));
    };
    serde_json::to_vec(&json).map_err(|e| e.to_string())
}

fn special(content: &str, id: u64, lstrip: bool) -> Json {
    json!({ "id": id, "content": content, "single_word": false, "lstrip": lstrip, "rstrip": false, "normalized": false, "special": true })
}

fn flag(config: &Json, key: &str, default: bool) -> bool {
    config.get(key).and_then(Json::as_bool).unwrap_or(default)
}

/// BERT's WordPiece from a list of tokens.
fn word_piece(text: &str, config: &Json) -> Result<Json, String> {
    let mut vocab = Map::new();
    for (id, token) in text.lines().enumerate() {
        vocab.insert(token.trim_end_matches('\r').to_owned(), json!(id));
    }
    let id = |token: &str| vocab.get(token).and_then(Json::as_u64);
    let (Some(cls), Some(sep)) = (id("[CLS]"), id("[SEP]")) else {
        return Err("vocab.txt has no `[CLS]` or no `[SEP]`".into());
    };
    let added: Vec<Json> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .iter()
        .filter_map(|t| Some(special(t, id(t)?, false)))
        .collect();
    let lower = flag(config, "do_lower_case", true);
    let accents = config.get("strip_accents").cloned().unwrap_or(Json::Null);
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": accents, "lowercase": lower },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", sep], "cls": ["[CLS]", cls] },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab }
    }))
}

/// RoBERTa's byte-level BPE from vocabulary and merges.
fn byte_level(vocab: &str, merges: &str, config: &Json) -> Result<Json, String> {
    let vocab: Map<String, Json> =
        serde_json::from_str(vocab).map_err(|e| format!("vocab.json is not valid: {e}"))?;
    let merges: Vec<&str> = merges
        .lines()
        .filter(|l| !l.starts_with("#version") && !l.trim().is_empty())
        .collect();
    let id = |token: &str| vocab.get(token).and_then(Json::as_u64);
    let (Some(cls), Some(sep)) = (id("<s>"), id("</s>")) else {
        return Err("vocab.json has no `<s>` or no `</s>`".into());
    };
    let added: Vec<Json> = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        .iter()
        .filter_map(|t| Some(special(t, id(t)?, *t == "<mask>")))
        .collect();
    let space = flag(config, "add_prefix_space", false);
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": true },
        "post_processor": { "type": "RobertaProcessing", "sep": ["</s>", sep], "cls": ["<s>", cls], "trim_offsets": true, "add_prefix_space": space },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges }
    }))
}

#[cfg(test)]
mod tests {
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
        let reference: Json = serde_json::from_slice(
            &std::fs::read("tests/reference/forward.json").expect("reference"),
        )
        .expect("JSON");
        let mut seen = 0;
        for name in ["bert-tiny", "roberta-tiny", "distilbert-tiny"] {
            let tokenizer = load(&format!("tests/reference/{name}"));
            let saved =
                Inner::from_bytes(tokenizer.save_json().expect("saves")).expect("loads again");
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
        assert!(error.contains("vocab.txt"));
    }

    #[test]
    fn an_exported_config_repeats_what_the_tokenizer_does() {
        let config = load("tests/reference/bert-tiny").config_json("bert", 128);
        assert_eq!(
            (&config["tokenizer_class"], &config["do_lower_case"]),
            (&json!("BertTokenizerFast"), &json!(true))
        );
        assert_eq!(config["mask_token"], "[MASK]");
        let config = load("tests/reference/roberta-tiny").config_json("roberta", 128);
        assert_eq!(
            (&config["add_prefix_space"], &config["eos_token"]),
            (&json!(false), &json!("</s>"))
        );
        let vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nA\na\n";
        let cased = |name: &str| match name {
            "vocab.txt" => Some(vocab.as_bytes().to_vec()),
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
            tokenizer.config_json("bert", 8)["do_lower_case"],
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
    fn a_pair_has_the_segments_of_its_family_however_the_files_came() {
        let segments = |name: &str| {
            let tokenizer = load(&format!("tests/reference/{name}"));
            tokenizer
                .encode(&["a film".to_owned(), "good".to_owned()], 64)
                .expect("encodes")
                .segments
        };
        assert_eq!(
            segments("distilbert-tiny"),
            segments("bert-tiny"),
            "vocab.txt and tokenizer.json"
        );
        assert_eq!(
            segments("distilbert-tiny")
                .iter()
                .filter(|s| **s == 1)
                .count(),
            2
        );
        assert!(segments("roberta-tiny").iter().all(|s| *s == 0));
    }
}
