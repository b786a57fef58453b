//! Added and special tokens, gathered from four files in the order in which transformers does:
//! `tokenizer_config.json` alone where it lists `added_tokens_decoder`; else with `special_tokens_map.json`,
//! `added_tokens.json` and what `tokenizer.json` lists.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};
use tokenizers::{AddedToken, Tokenizer as Inner};

use super::bounds;
use super::class::Class;

/// The roles that a token can have.
pub(super) const ROLES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// What CamemBERT's class adds unless its files say what to add.
const CAMEMBERT: [&str; 3] = ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"];

/// The tokens of a tokenizer beside its model's vocabulary.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// The token of each role, in order, and those that the files name otherwise.
    named: Vec<(String, AddedToken)>,
    /// Special tokens without a name.
    extra: Vec<AddedToken>,
    /// By the id that a file gives.
    added: BTreeMap<u64, AddedToken>,
}

/// The files that tell of tokens.
pub(super) struct Listed<'a> {
    pub config: &'a Map<String, Json>,
    pub special: Option<Map<String, Json>>,
    pub added: Option<Map<String, Json>>,
    /// `added_tokens` of `tokenizer.json`.
    pub listed: &'a [Json],
}

impl Tokens {
    /// Gathers them.
    ///
    /// # Errors
    /// A token that is none; a role without a token that the class cannot do without.
    pub(super) fn gather(class: Class, written: Listed<'_>) -> Result<Self, String> {
        let mut keys = written.config.clone();
        let mut tokens = Self::default();
        let mut listed: BTreeMap<String, AddedToken> = BTreeMap::new();
        let decoder = keys.swap_remove("added_tokens_decoder");
        if let Some(decoder) = decoder.filter(|d| !d.is_null()) {
            let map = object(&decoder, "tokenizer_config.json", "added_tokens_decoder")?;
            for (id, value) in map {
                let token = token(
                    value,
                    false,
                    ("tokenizer_config.json", "added_tokens_decoder"),
                )?;
                let id = id.parse().map_err(|_| {
                    format!("tokenizer_config.json has the id `{id}` in `added_tokens_decoder`; a whole number is wanted")
                })?;
                listed.insert(token.content.clone(), token.clone());
                tokens.added.insert(id, token);
            }
        } else {
            for (key, mut value) in written.special.into_iter().flatten() {
                if let (Some(Json::Array(before)), "extra_special_tokens", Json::Array(more)) =
                    (keys.get(&key), key.as_str(), &mut value)
                {
                    let new: Vec<Json> = more.drain(..).filter(|t| !before.contains(t)).collect();
                    *more = before.iter().cloned().chain(new).collect();
                }
                keys.insert(key, value);
            }
            let special = special_names(&keys);
            for (content, id) in written.added.into_iter().flatten() {
                let id = id.as_u64().ok_or_else(|| {
                    format!("added_tokens.json has `{content}` = {id}; an id is wanted")
                })?;
                let own = AddedToken::from(content.clone(), special.contains(&content));
                listed.insert(content, own.clone());
                tokens.added.insert(id, own);
            }
            for value in written.listed {
                let own = token(value, false, ("tokenizer.json", "added_tokens"))?;
                let id = value.get("id").and_then(Json::as_u64).ok_or_else(|| {
                    format!(
                        "tokenizer.json has the added token `{}` without an id",
                        own.content
                    )
                })?;
                listed.insert(own.content.clone(), own.clone());
                tokens.added.insert(id, own);
            }
        }
        tokens.name(class, &keys, &listed)?;
        tokens.others(class, &keys)?;
        // What has a role is special, whatever a file says.
        let names: Vec<&String> = tokens.named.iter().map(|(_, t)| &t.content).collect();
        for own in tokens.added.values_mut() {
            own.special |= names.contains(&&own.content);
        }
        for (_, own) in &mut tokens.named {
            own.special = true;
        }
        Ok(tokens)
    }

    /// The tokens of the roles.
    fn name(
        &mut self,
        class: Class,
        keys: &Map<String, Json>,
        listed: &BTreeMap<String, AddedToken>,
    ) -> Result<(), String> {
        let ends = class.ends();
        for role in ROLES {
            let default = class.default_tokens().iter().find(|(r, _)| *r == role);
            let own = match keys.get(role) {
                Some(Json::Null) => {
                    let wanted = ends
                        .is_some_and(|(first, last)| [first, last, "unk_token"].contains(&role));
                    if wanted {
                        return Err(format!(
                            "`{role}` is null, and a {} cannot do without; write the token that the vocabulary has",
                            class.name()
                        ));
                    }
                    continue;
                }
                Some(value) => {
                    let own = token(value, true, ("tokenizer_config.json", role))?;
                    listed.get(&own.content).cloned().unwrap_or(own)
                }
                None => match default {
                    Some((_, content)) => AddedToken::from(*content, true),
                    None => continue,
                },
            };
            let bare =
                !keys.get(role).is_some_and(Json::is_object) && !listed.contains_key(&own.content);
            let own = if class.widens_mask() && role == "mask_token" && bare {
                own.lstrip(true)
            } else {
                own
            };
            self.named.push((role.to_owned(), own));
        }
        Ok(())
    }

    /// Special tokens that have no role.
    fn others(&mut self, class: Class, keys: &Map<String, Json>) -> Result<(), String> {
        let own_names = |map: &Map<String, Json>| -> Result<Vec<(String, AddedToken)>, String> {
            map.iter()
                .map(|(name, value)| {
                    Ok((
                        name.clone(),
                        token(value, true, ("tokenizer_config.json", name))?,
                    ))
                })
                .collect()
        };
        let is_name = |key: &str, value: &Json| {
            key.ends_with("_token") && !ROLES.contains(&key) && value.is_string()
        };
        for (key, value) in keys.iter().filter(|(k, v)| is_name(k, v)) {
            self.named.push((
                key.clone(),
                token(value, true, ("tokenizer_config.json", key))?,
            ));
        }
        if let Some(Json::Object(map)) = keys.get("model_specific_special_tokens") {
            self.named.extend(own_names(map)?);
        }
        let extra = keys.get("extra_special_tokens").filter(|v| !empty(v));
        match extra.or_else(|| keys.get("additional_special_tokens")) {
            None | Some(Json::Null) => {
                if class == Class::Camembert {
                    self.extra = CAMEMBERT
                        .iter()
                        .map(|t| AddedToken::from(*t, true))
                        .collect();
                }
            }
            Some(Json::Array(list)) => {
                for value in list {
                    self.extra.push(token(
                        value,
                        true,
                        ("tokenizer_config.json", "extra_special_tokens"),
                    )?);
                }
            }
            Some(Json::Object(map)) => self.named.extend(own_names(map)?),
            Some(other) => {
                return Err(format!(
                    "`extra_special_tokens` is {other}; a list of tokens is wanted"
                ));
            }
        }
        Ok(())
    }

    /// The token of a role.
    pub(super) fn of(&self, role: &str) -> Option<&str> {
        let found = self.named.iter().find(|(name, _)| name == role);
        found.map(|(_, token)| token.content.as_str())
    }

    /// The tokens that have a role or another name, by it.
    pub(super) fn by_name(&self) -> Map<String, Json> {
        let named = self.named.iter();
        let mut all: Map<String, Json> = named
            .map(|(name, token)| (name.clone(), token.content.clone().into()))
            .collect();
        if !self.extra.is_empty() {
            let extra = self.extra.iter().map(|token| token.content.clone());
            all.insert("additional_special_tokens".to_owned(), extra.collect());
        }
        all
    }

    /// Puts them into a tokenizer: by their ids first, then those that are not there yet.
    ///
    /// # Errors
    /// What the tokenizer complains about.
    pub(super) fn add_to(&self, inner: &mut Inner) -> Result<(), String> {
        let ids = self.added.iter();
        bounds::added(ids.map(|(id, token)| (token.content.as_str(), *id)))?;
        let mut list: Vec<AddedToken> = self.added.values().cloned().collect();
        let there = inner.get_added_tokens_decoder();
        let mut known: BTreeSet<String> = there.values().map(|t| t.content.clone()).collect();
        known.extend(list.iter().map(|t| t.content.clone()));
        let others = self.named.iter().map(|(_, token)| token).chain(&self.extra);
        for token in others {
            if known.insert(token.content.clone()) {
                list.push(token.clone());
            }
        }
        inner.add_tokens(list).map_err(|e| e.to_string())?;
        Ok(())
    }

    /// Takes the token of a role away.
    pub(super) fn forget(&mut self, role: &str) {
        self.named.retain(|(name, _)| name != role);
    }

    /// Whether a file gives a token an id.
    pub(super) fn lists(&self, content: &str) -> bool {
        self.added.values().any(|t| t.content == content)
    }

    /// All tokens that are added ones.
    pub(super) fn contents(&self) -> BTreeSet<&str> {
        let named = self.named.iter().map(|(_, t)| t).chain(&self.extra);
        let all = named.chain(self.added.values());
        all.map(|t| t.content.as_str()).collect()
    }
}

/// Contents of the tokens that have a role or are listed as special.
fn special_names(keys: &Map<String, Json>) -> Vec<String> {
    let content = |value: &Json| match value {
        Json::String(text) => Some(text.clone()),
        Json::Object(map) => map.get("content")?.as_str().map(str::to_owned),
        _ => None,
    };
    let roles = ROLES.iter().filter_map(|role| content(keys.get(*role)?));
    let extra = keys.get("extra_special_tokens").filter(|v| !empty(v));
    let extra = extra.or_else(|| keys.get("additional_special_tokens"));
    let extra = extra.and_then(Json::as_array).into_iter().flatten();
    roles.chain(extra.filter_map(content)).collect()
}

fn empty(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::Array(list) => list.is_empty(),
        Json::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn object<'a>(value: &'a Json, file: &str, key: &str) -> Result<&'a Map<String, Json>, String> {
    value
        .as_object()
        .ok_or_else(|| format!("{file} has a `{key}` that is no object"))
}

/// A token as a file writes it: a word, or an object. A word is special or not as its place says.
fn token(value: &Json, special: bool, (file, key): (&str, &str)) -> Result<AddedToken, String> {
    let refuse = || format!("{file} has {value} in `{key}`; a token is wanted");
    match value {
        Json::String(content) => Ok(AddedToken::from(content.clone(), special)),
        Json::Object(map) => {
            let content = map
                .get("content")
                .and_then(Json::as_str)
                .ok_or_else(refuse)?;
            let flag = |name: &str, default: bool| match map.get(name) {
                None | Some(Json::Null) => Ok(default),
                Some(value) => value.as_bool().ok_or_else(refuse),
            };
            let special = flag("special", special)?;
            Ok(AddedToken {
                content: content.to_owned(),
                single_word: flag("single_word", false)?,
                lstrip: flag("lstrip", false)?,
                rstrip: flag("rstrip", false)?,
                normalized: flag("normalized", !special)?,
                special,
            })
        }
        _ => Err(refuse()),
    }
}
