//! A tokenizer in GGUF's metadata: the opposite of [`super::tokenizer`].

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::tokenizer::splits;
use super::write::{Meta, Metadata};

/// What a token is, by llama.cpp's numbers.
mod kind {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER: i32 = 4;
    pub(super) const UNUSED: i32 = 5;
    pub(super) const BYTE: i32 = 6;
}

/// The tokens by id.
struct Table {
    tokens: Vec<String>,
    kinds: Vec<i32>,
}

/// Metadata of a tokenizer with embeddings for so many tokens, of its `tokenizer.json` and `tokenizer_config.json`.
///
/// # Errors
/// What llama.cpp has no name for.
pub fn tokens(file: &Json, config: &Json, rows: u64) -> Result<Metadata, String> {
    let model = file
        .get("model")
        .ok_or("its tokenizer.json has no `model`")?;
    if model.get("type").and_then(Json::as_str) != Some("BPE") {
        return Err("its tokenizer is no BPE; only such ones are written to GGUF".to_owned());
    }
    let flag = |key: &str| model.get(key).and_then(Json::as_bool) == Some(true);
    let bytes = !flag("byte_fallback");
    let table = Table::read(file, model, (rows, bytes))?;
    let merges = merges(model)?;
    let mut made = Metadata::new();
    let mut put = |key: &str, value: Meta| made.push((format!("tokenizer.ggml.{key}"), value));
    if bytes {
        put("model", Meta::Text("gpt2".to_owned()));
        put("pre", Meta::Text(splits(file)?.to_owned()));
    } else {
        put("model", Meta::Text("llama".to_owned()));
        put("pre", Meta::Text("default".to_owned()));
        put("scores", Meta::Floats(table.scores(&merges)));
        put("add_space_prefix", Meta::Bool(prefixed(file)?));
    }
    let ends = Ends::read(file)?;
    for (role, key) in [
        ("bos", "bos_token"),
        ("eos", "eos_token"),
        ("unknown", "unk_token"),
        ("padding", "pad_token"),
    ] {
        let own = config.get(key).map(|t| t.get("content").unwrap_or(t));
        let Some(token) = own.and_then(Json::as_str) else {
            continue;
        };
        if let Some(id) = table.tokens.iter().position(|t| t == token) {
            let id = u32::try_from(id).map_err(|_| format!("GGUF holds no token {id}"))?;
            put(&format!("{role}_token_id"), Meta::U32(id));
        }
    }
    put("add_bos_token", Meta::Bool(ends.bos.is_some()));
    put("add_eos_token", Meta::Bool(ends.eos.is_some()));
    for (own, key) in [(&ends.bos, "bos_token"), (&ends.eos, "eos_token")] {
        let named = config
            .get(key)
            .map(|t| t.get("content").unwrap_or(t))
            .and_then(Json::as_str);
        if own.is_some() && own.as_deref() != named {
            return Err(format!(
                "its tokenizer puts `{}` around texts, which is not its `{key}`; llama.cpp puts no other there",
                own.as_deref().unwrap_or_default()
            ));
        }
    }
    put("token_type", Meta::Ints(table.kinds));
    put("tokens", Meta::Texts(table.tokens));
    if bytes {
        let join = |(a, b): (String, String)| format!("{a} {b}");
        put(
            "merges",
            Meta::Texts(merges.into_iter().map(join).collect()),
        );
    }
    if let Some(template) = config.get("chat_template").and_then(Json::as_str) {
        made.push((
            "tokenizer.chat_template".to_owned(),
            Meta::Text(template.to_owned()),
        ));
    }
    Ok(made)
}

/// The merges in their order.
fn merges(model: &Json) -> Result<Vec<(String, String)>, String> {
    let list = model
        .get("merges")
        .and_then(Json::as_array)
        .ok_or("its tokenizer has no `merges`")?;
    let pair = |merge: &Json| -> Option<(String, String)> {
        match merge {
            Json::String(text) => text
                .split_once(' ')
                .map(|(a, b)| (a.to_owned(), b.to_owned())),
            Json::Array(two) => match two.as_slice() {
                [a, b] => Some((a.as_str()?.to_owned(), b.as_str()?.to_owned())),
                _ => None,
            },
            _ => None,
        }
    };
    let wrong = |merge: &Json| format!("its tokenizer has the merge {merge}, which is no pair");
    list.iter()
        .map(|m| pair(m).ok_or_else(|| wrong(m)))
        .collect()
}

/// Whether a space is put in front of a text.
fn prefixed(file: &Json) -> Result<bool, String> {
    let steps = |part: &str, inner: &str| -> Vec<Json> {
        match file.get(part) {
            None | Some(Json::Null) => Vec::new(),
            Some(one) => match one.get(inner).and_then(Json::as_array) {
                Some(list) => list.clone(),
                None => vec![one.clone()],
            },
        }
    };
    let mut found = false;
    for step in steps("normalizer", "normalizers")
        .into_iter()
        .chain(steps("pre_tokenizer", "pretokenizers"))
    {
        match step.get("type").and_then(Json::as_str) {
            Some("Prepend") => found = true,
            Some("Replace") => {}
            Some("Metaspace") => {
                let scheme = step.get("prepend_scheme").and_then(Json::as_str);
                found |= scheme != Some("never");
            }
            // Gemma's splits before spaces, which merges never cross.
            Some("Split") => {}
            other => {
                return Err(format!(
                    "its tokenizer has a step `{}`, for which llama.cpp's SentencePiece has no name",
                    other.unwrap_or("?")
                ));
            }
        }
    }
    Ok(found)
}

/// Tokens put around each text.
#[derive(Debug, Default)]
struct Ends {
    bos: Option<String>,
    eos: Option<String>,
}

impl Ends {
    fn read(file: &Json) -> Result<Self, String> {
        let mut own = Self::default();
        let Some(after) = file.get("post_processor").filter(|p| !p.is_null()) else {
            return Ok(own);
        };
        let steps = match after.get("processors").and_then(Json::as_array) {
            Some(list) => list.clone(),
            None => vec![after.clone()],
        };
        for step in &steps {
            match step.get("type").and_then(Json::as_str) {
                Some("ByteLevel") => {}
                Some("TemplateProcessing") => own.take(step)?,
                other => {
                    return Err(format!(
                        "its tokenizer ends with a step `{}`, which is not written to GGUF",
                        other.unwrap_or("?")
                    ));
                }
            }
        }
        Ok(own)
    }

    fn take(&mut self, step: &Json) -> Result<(), String> {
        let list = step
            .get("single")
            .and_then(Json::as_array)
            .map_or(&[][..], Vec::as_slice);
        let special = |item: &Json| Some(item.get("SpecialToken")?.get("id")?.as_str()?.to_owned());
        let at = list
            .iter()
            .position(|i| i.get("Sequence").is_some())
            .unwrap_or(0);
        let (before, behind) = (
            list.get(..at).unwrap_or_default(),
            list.get(at + 1..).unwrap_or_default(),
        );
        if before.len() > 1 || behind.len() > 1 {
            return Err(
                "its tokenizer puts several tokens around texts, for which llama.cpp has no names"
                    .to_owned(),
            );
        }
        self.bos = before.first().and_then(special);
        self.eos = behind.first().and_then(special);
        Ok(())
    }
}

impl Table {
    fn read(file: &Json, model: &Json, (rows, bytes): (u64, bool)) -> Result<Self, String> {
        let vocabulary = model
            .get("vocab")
            .and_then(Json::as_object)
            .ok_or("its tokenizer has no `vocab`")?;
        let mut by_id: BTreeMap<u64, (String, i32)> = BTreeMap::new();
        let unknown = model.get("unk_token").and_then(Json::as_str);
        for (token, id) in vocabulary {
            let id = id
                .as_u64()
                .ok_or("its `vocab` holds a token without a number")?;
            let kind = if Some(token.as_str()) == unknown {
                kind::UNKNOWN
            } else if !bytes && is_byte(token) {
                kind::BYTE
            } else {
                kind::NORMAL
            };
            by_id.insert(id, (token.clone(), kind));
        }
        let added = file.get("added_tokens").and_then(Json::as_array);
        for token in added.into_iter().flatten() {
            let (Some(id), Some(text)) = (
                token.get("id").and_then(Json::as_u64),
                token.get("content").and_then(Json::as_str),
            ) else {
                return Err("its tokenizer has an added token without number or text".to_owned());
            };
            let special = token.get("special").and_then(Json::as_bool) == Some(true);
            let kind = match (special, bytes) {
                (true, false) if Some(text) == unknown => kind::UNKNOWN,
                (true, _) => kind::CONTROL,
                (false, _) => kind::USER,
            };
            by_id.insert(id, (text.to_owned(), kind));
        }
        if let Some((&last, _)) = by_id.last_key_value().filter(|(id, _)| **id >= rows) {
            return Err(format!(
                "its tokenizer has a token with the number {last}, and the model has embeddings for {rows}"
            ));
        }
        let (mut tokens, mut kinds) = (Vec::new(), Vec::new());
        for id in 0..rows {
            let (token, kind) = by_id
                .remove(&id)
                .unwrap_or_else(|| (format!("[PAD{id}]"), kind::UNUSED));
            tokens.push(token);
            kinds.push(kind);
        }
        Ok(Self { tokens, kinds })
    }

    /// Scores under which SentencePiece's BPE merges in the order of the merges.
    fn scores(&self, merges: &[(String, String)]) -> Vec<f32> {
        let mut ranks: BTreeMap<String, usize> = BTreeMap::new();
        for (rank, (a, b)) in merges.iter().enumerate() {
            ranks.entry(format!("{a}{b}")).or_insert(rank);
        }
        let score = |(token, kind): (&String, &i32)| match (ranks.get(token), *kind) {
            (Some(&rank), kind::NORMAL) => -(rank as f32),
            (None, kind::NORMAL) => -(merges.len() as f32),
            _ => 0.0,
        };
        self.tokens.iter().zip(&self.kinds).map(score).collect()
    }
}

/// `<0x0A>`
fn is_byte(token: &str) -> bool {
    let inner = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
    inner.is_some_and(|hex| hex.len() == 2 && u8::from_str_radix(hex, 16).is_ok())
}
