//! A tokenizer out of the files beside a model, as the class that they name makes it.

use serde_json::{Map, Value as Json, json};
use tokenizers::utils::truncation::TruncationDirection as Side;
use tokenizers::{
    Encoding, NormalizerWrapper, PostProcessor, PostProcessorWrapper, PreTokenizerWrapper, Token,
    Tokenizer as Inner,
};

use super::added::{Listed, Tokens};
use super::class::{self, Class};
use super::switches::{Switches, flag};
use super::{Note, Tokenizer, TokenizerFiles, Topic, bounds, keys};

/// A file of JSON.
type Object = Map<String, Json>;

impl TokenizerFiles<'_> {
    /// A file that holds a JSON object, if it is there.
    fn object(&self, name: &str) -> Result<Option<Object>, String> {
        let bytes = (self.get)(name);
        bytes.map(|bytes| self.parsed(name, &bytes)).transpose()
    }

    fn parsed(&self, name: &str, bytes: &[u8]) -> Result<Object, String> {
        match serde_json::from_slice(bytes) {
            Ok(Json::Object(map)) => Ok(map),
            Ok(_) => Err(format!("{name} in `{}` is no JSON object", self.dir_name)),
            Err(why) => Err(format!(
                "{name} in `{}` is not valid JSON: {why}",
                self.dir_name
            )),
        }
    }

    fn text(&self, name: &str) -> Result<String, String> {
        let bytes = (self.get)(name).ok_or_else(|| self.missing(name))?;
        String::from_utf8(bytes).map_err(|_| format!("`{name}` is not UTF-8 text"))
    }

    fn missing(&self, name: &str) -> String {
        format!(
            "there is no tokenizer.json in `{}`, and no {name}",
            self.dir_name
        )
    }
}

/// Reads a tokenizer.
pub(super) fn read(files: &TokenizerFiles<'_>) -> Result<Tokenizer, String> {
    let config = files.object("tokenizer_config.json")?.unwrap_or_default();
    let model = files.object("config.json")?.unwrap_or_default();
    let json = (files.get)("tokenizer.json");
    let bytes = json.as_ref().map(|json| json.len() as u64);
    let mut serialized = json
        .as_ref()
        .map(|json| files.parsed("tokenizer.json", json))
        .transpose()?;
    let own = serialized
        .as_ref()
        .and_then(|s| s.get("model")?.as_object());
    let byte_level = || is_byte_level(json.as_deref().unwrap_or_default());
    let class = Class::of(&config, &model, (&byte_level, own.map(class::kind)))?;
    drop(json);
    let mut notes = keys::review(class, &config)?;
    let saved_side = serialized
        .as_ref()
        .and_then(|s| s.get("truncation")?.get("direction").cloned());
    let listed = added_tokens(serialized.as_mut())?;
    let mut tokens = Tokens::gather(
        class,
        Listed {
            config: &config,
            special: files.object("special_tokens_map.json")?,
            added: files.object("added_tokens.json")?,
            listed: &listed,
        },
    )?;
    let switches = Switches::read(class, &config)?;
    let mut inner = match (class, serialized) {
        (Class::Plain, Some(mut file)) => {
            file.insert("added_tokens".to_owned(), Json::Array(listed));
            notes.extend(passed_over(&config, &file));
            parsed(Json::Object(file), files)?
        }
        (Class::Plain, None) => return Err(nothing(files, class)),
        (_, file) => {
            let own = match file {
                Some(file) => file,
                None => older(files, class)?,
            };
            made(class, switches, own, &tokens, files, &mut notes)?
        }
    };
    check_roles(files, (class, &config), &inner, &mut tokens)?;
    tokens.add_to(&mut inner)?;
    finish(class, switches, &tokens, &mut inner)?;
    // Cutting and padding are the caller's business.
    inner.with_truncation(None).map_err(|e| e.to_string())?;
    inner.with_padding(None);
    let split = flag(&config, "split_special_tokens")?.unwrap_or(false);
    inner.set_encode_special_tokens(split);
    let shows = shows_segments(class, &config)?;
    let side = side(&config, saved_side.as_ref())?;
    let mut tokenizer = Tokenizer::new(inner, class, tokens, side, shows)?;
    tokenizer.made_for = longest(&config)?;
    tokenizer.rows = model.get("vocab_size").and_then(Json::as_u64);
    if let Some(rows) = segment_rows(&model) {
        tokenizer.segment_rows = rows;
    }
    if let Some(bytes) = bytes {
        tokenizer.bytes = bytes;
    }
    notes.extend(tokenizer.capitals());
    notes.extend(tokenizer.hidden_segments(&config, &model));
    tokenizer.notes = notes;
    Ok(tokenizer)
}

/// Whether a serialized tokenizer names the byte-level alphabet.
fn is_byte_level(json: &[u8]) -> bool {
    let wanted = b"\"ByteLevel\"";
    json.windows(wanted.len()).any(|part| part == wanted)
}

/// The tokens that a serialized tokenizer lists beside its vocabulary; they are taken out of it.
fn added_tokens(serialized: Option<&mut Map<String, Json>>) -> Result<Vec<Json>, String> {
    match serialized.and_then(|s| s.swap_remove("added_tokens")) {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(list)) => Ok(list),
        Some(_) => Err("tokenizer.json has `added_tokens` that are no list".to_owned()),
    }
}

/// Refuses a vocabulary without the tokens that its class puts around texts. A mask that only the class of an encoder
/// speaks of is none.
fn check_roles(
    files: &TokenizerFiles<'_>,
    (class, config): (Class, &Map<String, Json>),
    inner: &Inner,
    tokens: &mut Tokens,
) -> Result<(), String> {
    let lacks = |role: &str| {
        let token = tokens.of(role).unwrap_or_default();
        (inner.token_to_id(token).is_none() && !tokens.lists(token)).then(|| token.to_owned())
    };
    let Some((first, last)) = class.ends() else {
        return Ok(());
    };
    let lacking = [first, last].into_iter().find_map(|r| Some((r, lacks(r)?)));
    if let Some((role, token)) = lacking {
        return Err(format!(
            "the vocabulary in `{}` has no `{token}`, which is the `{role}` of a {}",
            files.dir_name,
            class.name()
        ));
    }
    if !config.contains_key("mask_token") && lacks("mask_token").is_some() {
        tokens.forget("mask_token");
    }
    Ok(())
}

/// How many segments a model has embeddings of, `None` where it reads none; the outer `None` where it has no config.
fn segment_rows(model: &Map<String, Json>) -> Option<Option<u64>> {
    let kind = model.get("model_type").and_then(Json::as_str);
    kind.filter(|kind| !["distilbert", "mpnet"].contains(kind))?;
    let usual = (kind != Some("deberta-v2")).then_some(2);
    let segments = model.get("type_vocab_size").map(Json::as_u64);
    Some(segments.unwrap_or(usual).filter(|&rows| rows > 0))
}

fn parsed(json: Json, files: &TokenizerFiles<'_>) -> Result<Inner, String> {
    bounds::check(&json)
        .map_err(|why| format!("the tokenizer in `{}` is refused: {why}", files.dir_name))?;
    serde_json::from_value(json)
        .map_err(|e| format!("the tokenizer in `{}` is damaged: {e}", files.dir_name))
}

/// Why there is no tokenizer, and what to do.
fn nothing(files: &TokenizerFiles<'_>, class: Class) -> String {
    let spm = [
        "sentencepiece.bpe.model",
        "spiece.model",
        "tokenizer.model",
        "spm.model",
        "source.spm",
    ];
    let dir = &files.dir_name;
    if let Some(name) = spm.into_iter().find(|name| (files.get)(name).is_some()) {
        return format!(
            "`{dir}` has the sentencepiece model `{name}` only, which is not read here; load it with transformers' \
             AutoTokenizer and write a tokenizer.json with `save_pretrained`, or name a `revision` that has one"
        );
    }
    match class.older_files() {
        [] => format!("there is no tokenizer.json in `{dir}`"),
        older => format!(
            "there is no tokenizer.json in `{dir}`, and no {} for a {}",
            older.join(" with "),
            class.name()
        ),
    }
}

/// What the older files hold, as `tokenizer.json` would.
fn older(files: &TokenizerFiles<'_>, class: Class) -> Result<Object, String> {
    let there = class
        .older_files()
        .iter()
        .all(|name| (files.get)(name).is_some());
    if !there || class.older_files().is_empty() {
        return Err(nothing(files, class));
    }
    let model = match class {
        Class::Bert | Class::DistilBert | Class::Mpnet => {
            let mut vocab = Object::new();
            for (id, token) in files.text("vocab.txt")?.lines().enumerate() {
                vocab.insert(token.trim_end().to_owned(), json!(id));
            }
            json!({ "type": "WordPiece", "vocab": vocab })
        }
        _ => {
            let vocab: Object = serde_json::from_str(&files.text("vocab.json")?)
                .map_err(|e| format!("vocab.json is not valid: {e}"))?;
            let merges = files.text("merges.txt")?;
            let merges = merges.lines().filter(|l| !l.starts_with("#version"));
            let merges: Vec<&str> = merges.filter(|l| !l.trim().is_empty()).collect();
            json!({ "type": "BPE", "vocab": vocab, "merges": merges })
        }
    };
    Ok(Object::from_iter([("model".to_owned(), model)]))
}

/// A tokenizer that a class makes of a vocabulary; what it does not take of the file is noted.
#[expect(
    clippy::too_many_arguments,
    reason = "the files that a tokenizer is made of, and what is noted of them"
)]
fn made(
    class: Class,
    switches: Switches,
    mut file: Object,
    tokens: &Tokens,
    files: &TokenizerFiles<'_>,
    notes: &mut Vec<Note>,
) -> Result<Inner, String> {
    let Some(Json::Object(own)) = file.swap_remove("model") else {
        return Err(format!(
            "the tokenizer.json in `{}` has no `model`",
            files.dir_name
        ));
    };
    let kind = class::kind(&own).to_owned();
    if class.model().is_some_and(|wanted| wanted != kind) {
        return Err(format!(
            "the files in `{}` ask for a {}, which is a {} tokenizer, and tokenizer.json holds a {kind} model; write \
             \"tokenizer_class\": \"PreTrainedTokenizerFast\" into tokenizer_config.json to take tokenizer.json as it is",
            files.dir_name,
            class.name(),
            class.model().unwrap_or_default(),
        ));
    }
    let figures = |model: &Object| -> Object {
        let plain = |key: &String| !matches!(key.as_str(), "vocab" | "merges" | "type");
        model
            .iter()
            .filter(|(k, _)| plain(k))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    let before = figures(&own);
    let model = class::model(
        (class, switches.unknown),
        own,
        tokens.of("unk_token").unwrap_or_default(),
    );
    let parts = class::parts(class, switches, charsmap(file.get("normalizer")));
    if file.contains_key("pre_tokenizer") {
        let after = model.as_object().map(figures).unwrap_or_default();
        notes.extend(unlike(class, &file, (&before, &after), &parts));
    }
    let ends = file
        .swap_remove("post_processor")
        .filter(|_| class.keeps_ends());
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": parts.normalizer,
        "pre_tokenizer": parts.pre_tokenizer, "post_processor": ends, "decoder": parts.decoder, "model": model,
    });
    parsed(json, files)
}

/// The normalizer of sentencepiece in a `tokenizer.json`.
fn charsmap(normalizer: Option<&Json>) -> Option<Json> {
    let is = |n: &Json| n.get("type").and_then(Json::as_str) == Some("Precompiled");
    let own = normalizer?;
    if is(own) {
        return Some(own.clone());
    }
    let list = own.get("normalizers").and_then(Json::as_array)?;
    list.iter().find(|n| is(n)).cloned()
}

/// What of a `tokenizer.json` a class puts its own in place of, where that is another.
fn unlike(
    class: Class,
    file: &Object,
    (before, after): (&Object, &Object),
    parts: &class::Parts,
) -> Option<Note> {
    let empty = |v: Option<&Json>| match v {
        None | Some(Json::Null | Json::Bool(false)) => true,
        Some(Json::String(text)) => text.is_empty(),
        Some(_) => false,
    };
    let mut found: Vec<String> = Vec::new();
    for part in ["normalizer", "pre_tokenizer"] {
        let own = file.get(part).cloned().unwrap_or_default();
        let made = if part == "normalizer" {
            &parts.normalizer
        } else {
            &parts.pre_tokenizer
        };
        if plain(part, own) != plain(part, made.clone()) {
            found.push(format!("`{part}`"));
        }
    }
    let keys = before
        .keys()
        .chain(after.keys().filter(|k| !before.contains_key(*k)));
    for key in keys {
        let (own, made) = (before.get(key), after.get(key));
        // A byte-level vocabulary lacks nothing.
        let idle = key == "unk_token" && class.byte_level();
        if own != made && !(empty(own) && empty(made)) && !idle && own.is_some() {
            found.push(format!("`model.{key}`"));
        }
    }
    (!found.is_empty()).then(|| Note {
        topic: Topic::Differs,
        message: format!(
            "the {} of tokenizer.json is not used: a {} makes its own, as tokenizer_config.json says",
            found.join(", "),
            class.name()
        ),
        help: "transformers does so too, and so do its ids; to take tokenizer.json as it is, write \"tokenizer_class\": \
               \"PreTrainedTokenizerFast\" into tokenizer_config.json"
            .to_owned(),
    })
}

/// A part as the library writes it, without what changes no id.
fn plain(part: &str, json: Json) -> Json {
    let known = if json.is_null() {
        None
    } else if part == "normalizer" {
        serde_json::from_value::<NormalizerWrapper>(json.clone())
            .ok()
            .and_then(|p| serde_json::to_value(p).ok())
    } else {
        serde_json::from_value::<PreTokenizerWrapper>(json.clone())
            .ok()
            .and_then(|p| serde_json::to_value(p).ok())
    };
    let mut json = known.unwrap_or(json);
    if let Some(map) = json.as_object_mut() {
        map.swap_remove("trim_offsets");
    }
    json
}

/// Switches of `tokenizer_config.json` that contradict a `tokenizer.json` that is taken as it is.
fn passed_over(config: &Object, file: &Object) -> Option<Note> {
    let of = |part: &str, key: &str| file.get(part).and_then(|p| p.get(key));
    let pairs = [
        ("do_lower_case", of("normalizer", "lowercase")),
        ("strip_accents", of("normalizer", "strip_accents")),
        (
            "tokenize_chinese_chars",
            of("normalizer", "handle_chinese_chars"),
        ),
        ("add_prefix_space", of("pre_tokenizer", "add_prefix_space")),
    ];
    let unlike: Vec<String> = pairs
        .into_iter()
        .filter(|(key, own)| match (config.get(*key), own) {
            (Some(Json::Bool(said)), Some(Json::Bool(is))) => said != is,
            _ => false,
        })
        .map(|(key, _)| format!("`{key}`"))
        .collect();
    (!unlike.is_empty()).then(|| Note {
        topic: Topic::Differs,
        message: format!(
            "tokenizer_config.json contradicts tokenizer.json in {}; the latter counts, as the class is PreTrainedTokenizerFast",
            unlike.join(", ")
        ),
        help: "transformers does so too; if the key is right, change tokenizer.json".to_owned(),
    })
}

/// Puts the tokens of the roles around a text.
fn finish(
    class: Class,
    switches: Switches,
    tokens: &Tokens,
    inner: &mut Inner,
) -> Result<(), String> {
    let Some((first, last)) = class.ends() else {
        if inner.get_post_processor().is_none() {
            let text =
                |name: &str, segment: u8| json!({ "Sequence": { "id": name, "type_id": segment } });
            let bare = json!({ "type": "TemplateProcessing", "single": [text("A", 0)], "pair": [text("A", 0), text("B", 1)],
                "special_tokens": {} });
            inner.with_post_processor(Some(processor(bare)?));
        }
        return Ok(());
    };
    let token = |role: &str| {
        let content = tokens
            .of(role)
            .ok_or_else(|| format!("there is no `{role}`"))?;
        let id = inner
            .token_to_id(content)
            .ok_or_else(|| format!("the vocabulary has no `{content}`, which is the `{role}`"))?;
        Ok::<_, String>((content.to_owned(), id))
    };
    let (first, last) = (token(first)?, token(last)?);
    let ends = ((first.0.as_str(), first.1), (last.0.as_str(), last.1));
    let json = class::post_processor(class, switches.prefix_space, ends.0, ends.1);
    inner.with_post_processor(Some(processor(json)?));
    Ok(())
}

fn processor(json: Json) -> Result<PostProcessorWrapper, String> {
    serde_json::from_value(json).map_err(|e| e.to_string())
}

/// From which side text is cut: as `tokenizer_config.json` says, else as it was when `tokenizer.json` was saved.
fn side(config: &Object, saved: Option<&Json>) -> Result<Side, String> {
    let written = config.get("truncation_side").or(saved);
    let name = match written {
        None | Some(Json::Null) => return Ok(Side::Right),
        Some(value) => value.as_str().map(str::to_lowercase),
    };
    match name.as_deref() {
        Some("right") => Ok(Side::Right),
        Some("left") => Ok(Side::Left),
        _ => Err(format!(
            "tokenizer_config.json has `truncation_side` = {}; \"left\" or \"right\" is wanted",
            written.unwrap_or(&Json::Null)
        )),
    }
}

/// Tokens of the longest text that the tokenizer was made for; a number without end counts for nothing.
fn longest(config: &Object) -> Result<Option<u64>, String> {
    for key in ["model_max_length", "max_len"] {
        match config.get(key) {
            None | Some(Json::Null) => {}
            Some(value) => match value.as_f64().filter(|&n| n >= 2.0 && n.is_finite()) {
                Some(n) => return Ok((n < 1e15).then_some(n as u64)),
                None => {
                    return Err(format!(
                        "tokenizer_config.json has `{key}` = {value}; a number of tokens of at least 2 is wanted"
                    ));
                }
            },
        }
    }
    Ok(None)
}

/// Whether the model is shown the segments.
fn shows_segments(class: Class, config: &Object) -> Result<bool, String> {
    match config.get("model_input_names") {
        None | Some(Json::Null) => Ok(class.shows_segments()),
        Some(Json::Array(names)) => {
            if !names.iter().any(|n| n == "input_ids") {
                return Err(
                    "tokenizer_config.json has `model_input_names` without \"input_ids\""
                        .to_owned(),
                );
            }
            Ok(names.iter().any(|n| n == "token_type_ids"))
        }
        Some(other) => Err(format!(
            "tokenizer_config.json has `model_input_names` = {other}; a list of names is wanted"
        )),
    }
}

/// The largest segment that a post-processor gives.
pub(super) fn most_segment(processor: &PostProcessorWrapper, pair: bool) -> u32 {
    let word = || Encoding::from_tokens(vec![Token::new(0, String::new(), (0, 0))], 0);
    let second = pair.then(word);
    let done = processor.process(word(), second, true);
    done.ok()
        .and_then(|e| e.get_type_ids().iter().max().copied())
        .unwrap_or(0)
}
