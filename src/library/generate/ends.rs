//! The tokens that end a text.

use serde_json::Value as Json;

use crate::library::tokenizer::Tokenizer;

/// The file beside a model that says how its authors generate.
pub const FILE: &str = "generation_config.json";

/// The tokens at which a text ends: those that `generation_config.json` and `config.json` name, and the tokenizer's own;
/// ascending.
///
/// # Errors
/// `eos_token_id` is neither a token's id nor a list of such.
pub fn end_tokens(
    generation: Option<&Json>,
    config: &Json,
    tokenizer: Option<&Tokenizer>,
) -> Result<Vec<u32>, String> {
    let mut ends = of(config).map_err(|why| format!("config.json: {why}"))?;
    if let Some(generation) = generation {
        ends.extend(of(generation).map_err(|why| format!("{FILE}: {why}"))?);
    }
    ends.extend(tokenizer.and_then(Tokenizer::eos));
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

/// These tokens, and those that strings of `stop` are or begin with: special tokens are no part of a text, so that such a
/// string is never found in it.
#[must_use]
pub fn with_stops(ends: &[u32], stop: &[String], tokenizer: &Tokenizer) -> Vec<u32> {
    let special = tokenizer.special_ids();
    let begun = |id: &u32| {
        let token = tokenizer.token(*id).filter(|token| !token.is_empty());
        token.is_some_and(|token| stop.iter().any(|stop| stop.starts_with(&token)))
    };
    let more = special.into_iter().filter(begun);
    let mut ends: Vec<u32> = ends.iter().copied().chain(more).collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

fn of(file: &Json) -> Result<Vec<u32>, String> {
    let one = |id: &Json| {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| {
            format!(
                "`eos_token_id` is {file}, which is no token",
                file = file["eos_token_id"]
            )
        })
    };
    match file.get("eos_token_id") {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(list)) => list.iter().map(one).collect(),
        // Some configs say that there is none so.
        Some(id) if id.as_i64() == Some(-1) => Ok(Vec::new()),
        Some(id) => Ok(vec![one(id)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_special_token_among_the_stops_ends_a_text() {
        let special = json!({ "id": 1, "content": "<end>", "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false });
        let file = json!({
            "version": "1.0", "added_tokens": [special],
            "model": { "type": "WordLevel", "vocab": { "a": 0, "<end>": 1, "b": 2 }, "unk_token": "a" },
        });
        let get = |name: &str| match name {
            "tokenizer.json" => Some(file.to_string().into_bytes()),
            "tokenizer_config.json" => {
                Some(br#"{"tokenizer_class":"PreTrainedTokenizerFast"}"#.to_vec())
            }
            _ => None,
        };
        let files = crate::library::tokenizer::TokenizerFiles {
            dir_name: String::new(),
            get: &get,
        };
        let tokenizer = Tokenizer::from_files(&files).expect("a tokenizer");
        let ends = |stop: &[&str]| {
            let stop: Vec<String> = stop.iter().map(|&s| s.to_owned()).collect();
            with_stops(&[2], &stop, &tokenizer)
        };
        assert_eq!(ends(&["x", "<end>\n"]), [1, 2]);
        assert_eq!(ends(&["a", "<en"]), [2]);
    }

    #[test]
    fn ends_are_gathered_from_both_files() {
        let ends =
            |generation: Option<Json>, config: Json| end_tokens(generation.as_ref(), &config, None);
        assert_eq!(ends(None, json!({})), Ok(vec![]));
        assert_eq!(ends(None, json!({ "eos_token_id": 2 })), Ok(vec![2]));
        assert_eq!(
            ends(
                Some(json!({ "eos_token_id": [9, 2] })),
                json!({ "eos_token_id": 2 })
            ),
            Ok(vec![2, 9])
        );
        assert_eq!(
            ends(
                Some(json!({ "eos_token_id": null })),
                json!({ "eos_token_id": -1 })
            ),
            Ok(vec![])
        );
        let wrong = ends(Some(json!({ "eos_token_id": "x" })), json!({}));
        assert_eq!(
            wrong,
            Err("generation_config.json: `eos_token_id` is \"x\", which is no token".to_owned())
        );
    }
}
