//! The tokenizer in a GGUF file's metadata, as `tokenizer.json` and `tokenizer_config.json`.
//!
//! Two of llama.cpp's kinds are read: `gpt2`, BPE over bytes with a named way to split texts first, and `llama`,
//! SentencePiece's BPE, whose merges follow from the scores of the tokens.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::header::{Header, Value};
use crate::files::in_memory;

/// What a token is, by llama.cpp's numbers.
mod kind {
    pub(super) const UNKNOWN: i128 = 2;
    pub(super) const CONTROL: i128 = 3;
    pub(super) const USER: i128 = 4;
}

/// Ways to split a text before BPE, by the names that llama.cpp gives them (`llama-vocab.cpp`).
const SPLITS: &[(&[&str], &[Split])] = &[
    (
        &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
        ],
        &[Split::Text(GPT2)],
    ),
    (
        &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
        ],
        &[Split::Digits, Split::Text(GPT2)],
    ),
    (
        &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "dbrx",
            "smaug-bpe",
            "pixtral",
            "lfm2",
        ],
        &[Split::Text(LLAMA3)],
    ),
    (
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "stablelm2",
            "hunyuan",
            "megrez",
        ],
        &[Split::Text(QWEN2)],
    ),
    (&["tekken"], &[Split::Text(TEKKEN)]),
    (&["gpt-4o", "llama4"], &[Split::Text(GPT4O)]),
];

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A step of splitting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Split {
    /// Each digit by itself.
    Digits,
    /// What an expression matches.
    Text(&'static str),
}

impl Split {
    fn json(self) -> Json {
        match self {
            Self::Digits => json!({ "type": "Digits", "individual_digits": true }),
            Self::Text(GPT2) => {
                json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                                        "use_regex": true })
            }
            Self::Text(expression) => json!({ "type": "Split", "pattern": { "Regex": expression },
                                              "behavior": "Isolated", "invert": false }),
        }
    }
}

/// The vocabulary of a file.
struct Vocabulary<'a> {
    header: &'a Header,
    tokens: Vec<&'a str>,
    kinds: Vec<i128>,
}

/// `tokenizer.json` and `tokenizer_config.json`.
#[derive(Debug)]
pub struct Files {
    /// The tokenizer.
    pub tokenizer: Json,
    /// Its special tokens, and the chat template.
    pub config: Json,
}

/// The tokenizer of a file.
///
/// # Errors
/// A kind that is not read, or metadata that do not fit each other.
pub fn files(header: &Header) -> Result<Files, String> {
    let instead = "name a folder that has a tokenizer.json with `tokenizer = \"…\"`";
    let model = header.text("tokenizer.ggml.model")?;
    let model = model.ok_or_else(|| format!("it holds no tokenizer; {instead}"))?;
    let own = Vocabulary::read(header)?;
    let tokenizer = match model {
        "gpt2" => own.bytes(instead)?,
        "llama" => own.pieces()?,
        other => {
            return Err(format!(
                "its tokenizer is of the kind `{other}`, which is not read; {instead}"
            ));
        }
    };
    Ok(Files {
        tokenizer,
        config: own.config()?,
    })
}

impl<'a> Vocabulary<'a> {
    fn read(header: &'a Header) -> Result<Self, String> {
        let list = header
            .list("tokenizer.ggml.tokens")?
            .ok_or("it has no `tokenizer.ggml.tokens`")?;
        let text = |v: &'a Value| match v {
            Value::Text(text) => Ok(text.as_str()),
            _ => Err("its `tokenizer.ggml.tokens` is no list of texts".to_owned()),
        };
        let tokens: Vec<&str> = list.iter().map(text).collect::<Result<_, _>>()?;
        if u32::try_from(tokens.len()).is_err() || tokens.is_empty() {
            return Err(format!("its vocabulary has {} tokens", tokens.len()));
        }
        let kinds = match header.list("tokenizer.ggml.token_type")? {
            None => vec![1; tokens.len()],
            Some(list) => list
                .iter()
                .map(|v| match v {
                    Value::Int(n) => Ok(*n),
                    _ => Err("its `tokenizer.ggml.token_type` is no list of numbers".to_owned()),
                })
                .collect::<Result<_, _>>()?,
        };
        if kinds.len() != tokens.len() {
            return Err(format!(
                "its vocabulary has {} tokens, and types of {}",
                tokens.len(),
                kinds.len()
            ));
        }
        Ok(Self {
            header,
            tokens,
            kinds,
        })
    }

    fn flag(&self, key: &str, usual: bool) -> Result<bool, String> {
        Ok(self
            .header
            .flag(&format!("tokenizer.ggml.{key}"))?
            .unwrap_or(usual))
    }

    /// Ids by token; of two alike, the first.
    fn ids(&self) -> BTreeMap<&'a str, usize> {
        let mut ids = BTreeMap::new();
        for (i, token) in self.tokens.iter().enumerate() {
            ids.entry(*token).or_insert(i);
        }
        ids
    }

    fn vocabulary(&self) -> Map<String, Json> {
        let mut map = Map::new();
        for (i, token) in self.tokens.iter().enumerate() {
            map.entry((*token).to_owned()).or_insert_with(|| json!(i));
        }
        map
    }

    /// The token of a role.
    fn role(&self, role: &str) -> Result<Option<(usize, &'a str)>, String> {
        let key = format!("tokenizer.ggml.{role}_token_id");
        let Some(id) = self.header.size(&key)? else {
            return Ok(None);
        };
        // -1 stands for none, in 32 bits.
        if id == u64::from(u32::MAX) {
            return Ok(None);
        }
        let place = in_memory(id);
        match self.tokens.get(place) {
            Some(token) => Ok(Some((place, token))),
            None => Err(format!(
                "its `{key}` is {id}, and its vocabulary has {} tokens",
                self.tokens.len()
            )),
        }
    }

    /// Tokens that are found in a text before anything else.
    fn added(&self) -> Json {
        let each = self.tokens.iter().zip(&self.kinds).enumerate();
        let own = each.filter_map(|(id, (token, &kind))| {
            let special = matches!(kind, kind::CONTROL | kind::UNKNOWN);
            let found = (special || kind == kind::USER) && !token.is_empty();
            found.then(|| {
                json!({ "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                        "normalized": false, "special": special })
            })
        });
        Json::Array(own.collect())
    }

    /// Tokens put in front of each text and behind it, `None` where there are none.
    fn ends(&self, bos: bool) -> Result<Option<Json>, String> {
        let (bos, eos) = (
            self.flag("add_bos_token", bos)?,
            self.flag("add_eos_token", false)?,
        );
        let role = |add: bool, role: &str| match (add, self.role(role)?) {
            (false, _) => Ok(None),
            (true, Some(token)) => Ok(Some(token)),
            (true, None) => Err(format!(
                "it puts a `{role}` token around texts, and names none"
            )),
        };
        let (bos, eos) = (role(bos, "bos")?, role(eos, "eos")?);
        if bos.is_none() && eos.is_none() {
            return Ok(None);
        }
        let side = |sequence: &str, kind: u32| -> Vec<Json> {
            let special = |(_, token): (usize, &str)| json!({ "SpecialToken": { "id": token, "type_id": kind } });
            let text = json!({ "Sequence": { "id": sequence, "type_id": kind } });
            bos.map(special)
                .into_iter()
                .chain([text])
                .chain(eos.map(special))
                .collect()
        };
        let named: Map<String, Json> = bos
            .into_iter()
            .chain(eos)
            .map(|(id, token)| {
                (
                    token.to_owned(),
                    json!({ "id": token, "ids": [id], "tokens": [token] }),
                )
            })
            .collect();
        let pair: Vec<Json> = side("A", 0).into_iter().chain(side("B", 1)).collect();
        Ok(Some(
            json!({ "type": "TemplateProcessing", "single": side("A", 0), "pair": pair, "special_tokens": named }),
        ))
    }

    /// BPE over bytes.
    fn bytes(&self, instead: &str) -> Result<Json, String> {
        let name = self.header.text("tokenizer.ggml.pre")?.unwrap_or("default");
        let found = SPLITS.iter().find(|(names, _)| names.contains(&name));
        let Some((_, splits)) = found else {
            return Err(format!(
                "its tokenizer splits texts as `{name}` does, which is not read; {instead}"
            ));
        };
        let llama3 = splits.iter().any(|s| matches!(s, Split::Text(LLAMA3)));
        let whole = matches!(
            name,
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "tekken" | "gpt-4o"
        );
        let merges = self
            .header
            .list("tokenizer.ggml.merges")?
            .ok_or("it has no `tokenizer.ggml.merges`")?;
        let merges: Vec<Json> = merges
            .iter()
            .map(|merge| match merge {
                Value::Text(text) => text
                    .char_indices()
                    .skip(1)
                    .find(|(_, c)| *c == ' ')
                    .map(|(at, _)| json!([text[..at], text[at + 1..]]))
                    .ok_or_else(|| format!("its merge `{text}` is no pair")),
                _ => Err("its `tokenizer.ggml.merges` is no list of texts".to_owned()),
            })
            .collect::<Result<_, _>>()?;
        let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
        let mut first: Vec<Json> = splits.iter().map(|s| s.json()).collect();
        if !splits.iter().any(|s| matches!(s, Split::Text(GPT2))) {
            first.push(bytes.clone());
        }
        let ends = self.ends(llama3 && name != "dbrx" && name != "smaug-bpe")?;
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": self.added(), "normalizer": null,
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": first },
            "post_processor": ends.unwrap_or(bytes),
            "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
            "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                       "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": whole,
                       "vocab": self.vocabulary(), "merges": merges },
        }))
    }

    /// SentencePiece's BPE: of two tokens side by side, those are merged that make the token with the highest score.
    fn pieces(&self) -> Result<Json, String> {
        let scores = self
            .header
            .list("tokenizer.ggml.scores")?
            .ok_or("it has no `tokenizer.ggml.scores`")?;
        let score = |v: &Value| match v {
            Value::Float(x) => Ok(*x),
            Value::Int(n) => Ok(*n as f64),
            _ => Err("its `tokenizer.ggml.scores` is no list of numbers".to_owned()),
        };
        let scores: Vec<f64> = scores.iter().map(score).collect::<Result<_, _>>()?;
        if scores.len() != self.tokens.len() {
            return Err(format!(
                "its vocabulary has {} tokens, and scores of {}",
                self.tokens.len(),
                scores.len()
            ));
        }
        let ids = self.ids();
        let mut merges: Vec<(f64, &str, &str)> = Vec::new();
        for (token, &score) in self.tokens.iter().zip(&scores) {
            let mut own: Vec<(usize, usize, &str, &str)> = Vec::new();
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(&a), Some(&b)) = (ids.get(left), ids.get(right)) {
                    own.push((a, b, left, right));
                }
            }
            own.sort_unstable();
            merges.extend(
                own.into_iter()
                    .map(|(_, _, left, right)| (score, left, right)),
            );
        }
        let length = |text: &str| text.chars().count();
        merges.sort_by(|a, b| {
            let order = b.0.total_cmp(&a.0);
            let order = order.then_with(|| length(b.1).cmp(&length(a.1)));
            order.then_with(|| length(b.2).cmp(&length(a.2)))
        });
        let merges: Vec<Json> = merges.iter().map(|(_, a, b)| json!([a, b])).collect();
        let prefix = self.flag("add_space_prefix", true)?;
        let spaces = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" });
        let normalizer = if prefix {
            json!({ "type": "Sequence", "normalizers": [{ "type": "Prepend", "prepend": "▁" }, spaces] })
        } else {
            spaces
        };
        let mut decoders = vec![
            json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        if prefix {
            decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        let unknown = self.role("unknown")?.map(|(_, token)| token);
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": self.added(),
            "normalizer": normalizer, "pre_tokenizer": null, "post_processor": self.ends(true)?,
            "decoder": { "type": "Sequence", "decoders": decoders },
            "model": { "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
                       "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                       "vocab": self.vocabulary(), "merges": merges },
        }))
    }

    fn config(&self) -> Result<Json, String> {
        let mut map = Map::new();
        map.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
        for (role, key) in [
            ("bos", "bos_token"),
            ("eos", "eos_token"),
            ("unknown", "unk_token"),
            ("padding", "pad_token"),
        ] {
            if let Some((_, token)) = self.role(role)? {
                map.insert(key.into(), json!(token));
            }
        }
        if let Some(template) = self.header.text("tokenizer.chat_template")? {
            map.insert("chat_template".into(), json!(template));
        }
        Ok(Json::Object(map))
    }
}
/// The name of the way in which a `tokenizer.json` splits texts before BPE.
///
/// # Errors
/// llama.cpp has none.
pub(super) fn splits(file: &Json) -> Result<&'static str, String> {
    let none =
        || "llama.cpp has no name for the way in which its tokenizer splits texts".to_owned();
    let normal = file.get("normalizer").filter(|n| !n.is_null());
    // Qwen's composes characters, which llama.cpp leaves out.
    if normal.is_some_and(|n| n.get("type").and_then(Json::as_str) != Some("NFC")) {
        return Err(
            "its tokenizer changes texts before it splits them, for which llama.cpp has no name"
                .to_owned(),
        );
    }
    let first = file.get("pre_tokenizer").ok_or_else(none)?;
    let list = match first.get("pretokenizers").and_then(Json::as_array) {
        Some(list) => list.clone(),
        None => vec![first.clone()],
    };
    let mut steps = Vec::new();
    for step in &list {
        match step.get("type").and_then(Json::as_str) {
            Some("Digits") if step.get("individual_digits") == Some(&Json::Bool(true)) => {
                steps.push(Split::Digits)
            }
            Some("ByteLevel") if step.get("add_prefix_space") == Some(&Json::Bool(true)) => {
                return Err(none());
            }
            Some("ByteLevel") if step.get("use_regex") == Some(&Json::Bool(false)) => {}
            Some("ByteLevel") => steps.push(Split::Text(GPT2)),
            Some("Split") => {
                let own = step
                    .get("pattern")
                    .and_then(|p| p.get("Regex"))
                    .and_then(Json::as_str);
                let own = own.ok_or_else(none)?;
                let known = [GPT2, LLAMA3, QWEN2, TEKKEN, GPT4O];
                steps.push(Split::Text(
                    known.into_iter().find(|k| *k == own).ok_or_else(none)?,
                ));
            }
            _ => return Err(none()),
        }
    }
    let found = SPLITS.iter().find(|(_, own)| *own == steps.as_slice());
    found
        .and_then(|(names, _)| names.first().copied())
        .ok_or_else(none)
}
