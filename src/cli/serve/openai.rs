//! The requests and answers of OpenAI's endpoints. What a request names is used or refused: of what is not built, only the value that
//! changes nothing is taken.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value as Json, json};

use super::work::{Input, Said};
use crate::exec::generate::Ended;
use crate::library::chat::messages;
use crate::library::generate::{Sampling, Settings};

/// New tokens where a request names no number: as `chat` and `predict` make.
const USUAL: [(bool, u64); 2] = [(true, 256), (false, 64)];

/// Keys that are not built, with the value that changes nothing.
const NEUTRAL: &[(&str, &str)] = &[
    ("n", "1"),
    ("best_of", "1"),
    ("frequency_penalty", "0"),
    ("presence_penalty", "0"),
    ("logprobs", "false"),
    ("echo", "false"),
    ("logit_bias", "{}"),
    ("store", "false"),
];

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) prompts: Vec<Input>,
    pub(super) settings: Settings,
    pub(super) stream: bool,
    /// Whether a stream ends with the numbers of tokens.
    pub(super) usage: bool,
}

/// Takes a value that is there and not null.
pub(super) fn take(body: &mut Map<String, Json>, key: &str) -> Option<Json> {
    body.shift_remove(key).filter(|value| !value.is_null())
}

/// Takes a number.
fn number(
    body: &mut Map<String, Json>,
    key: &str,
    (least, most): (f64, f64),
) -> Result<Option<f64>, String> {
    let Some(value) = take(body, key) else {
        return Ok(None);
    };
    let own = value.as_f64().filter(|x| (least..=most).contains(x));
    own.map(Some)
        .ok_or_else(|| format!("`{key}` is a number from {least} to {most}"))
}

fn whole(
    body: &mut Map<String, Json>,
    key: &str,
    (least, most): (u64, u64),
) -> Result<Option<u64>, String> {
    let Some(value) = take(body, key) else {
        return Ok(None);
    };
    let own = value.as_u64().filter(|n| (least..=most).contains(n));
    own.map(Some)
        .ok_or_else(|| format!("`{key}` is a whole number from {least} to {most}"))
}

pub(super) fn truth(body: &mut Map<String, Json>, key: &str) -> Result<bool, String> {
    match take(body, key) {
        None => Ok(false),
        Some(value) => value
            .as_bool()
            .ok_or_else(|| format!("`{key}` is true or false")),
    }
}

/// Reads a request; `chat` says of which endpoint.
///
/// # Errors
/// What is wrong with it.
pub(super) fn request(
    mut body: Map<String, Json>,
    chat: bool,
    context: u64,
) -> Result<Request, String> {
    let prompts = if chat {
        vec![conversation(&mut body)?]
    } else {
        texts(&mut body)?
    };
    let settings = settings(&mut body, chat, context)?;
    let stream = truth(&mut body, "stream")?;
    let usage = match take(&mut body, "stream_options") {
        None => false,
        Some(Json::Object(mut own)) => {
            let usage = truth(&mut own, "include_usage")?;
            rest(own, "stream_options.")?;
            usage
        }
        Some(_) => return Err("`stream_options` is an object".to_owned()),
    };
    if usage && !stream {
        return Err("`stream_options` has no effect without `stream`".to_owned());
    }
    // It names who asks, and changes no answer.
    take(&mut body, "user");
    rest(body, "")?;
    Ok(Request {
        prompts,
        settings,
        stream,
        usage,
    })
}

/// Refuses what is left of a body.
pub(super) fn rest(body: Map<String, Json>, within: &str) -> Result<(), String> {
    for (key, value) in body {
        let neutral = NEUTRAL
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, text)| *text);
        let is = |text: &str| {
            let number = value.as_f64();
            serde_json::from_str::<Json>(text).is_ok_and(|own| own == value)
                || number.is_some_and(|x| text.parse::<f64>() == Ok(x))
        };
        match neutral {
            _ if value.is_null() => {}
            Some(text) if within.is_empty() && is(text) => {}
            Some(text) if within.is_empty() => {
                return Err(format!(
                    "`{key}` is not built; leave it away, or write {text}"
                ));
            }
            _ => return Err(format!("`{within}{key}` is not known here; leave it away")),
        }
    }
    Ok(())
}

fn conversation(body: &mut Map<String, Json>) -> Result<Input, String> {
    let value = take(body, "messages")
        .ok_or("`messages` is wanted: a list of objects with `role` and `content`")?;
    if !value.is_array() {
        return Err("`messages` is a list of objects with `role` and `content`".to_owned());
    }
    messages(value).map(Input::Chat)
}

fn texts(body: &mut Map<String, Json>) -> Result<Vec<Input>, String> {
    let wrong = || "`prompt` is a text, or a list of texts".to_owned();
    match take(body, "prompt").ok_or_else(wrong)? {
        Json::String(text) => Ok(vec![Input::Text(text)]),
        Json::Array(list) if !list.is_empty() => {
            let text = |value: Json| {
                value
                    .as_str()
                    .map(|text| Input::Text(text.to_owned()))
                    .ok_or_else(wrong)
            };
            list.into_iter().map(text).collect()
        }
        _ => Err(wrong()),
    }
}

fn settings(body: &mut Map<String, Json>, chat: bool, context: u64) -> Result<Settings, String> {
    let usual = USUAL
        .iter()
        .find(|(of_chat, _)| *of_chat == chat)
        .map_or(64, |(_, n)| *n);
    let range = (1, context.saturating_sub(1).max(1));
    let (new, old) = (
        whole(body, "max_completion_tokens", range)?,
        whole(body, "max_tokens", range)?,
    );
    let stop = match take(body, "stop") {
        None => Vec::new(),
        Some(Json::String(text)) => vec![text],
        Some(Json::Array(list)) => {
            let texts = list.iter().map(|value| value.as_str().map(str::to_owned));
            texts
                .collect::<Option<Vec<_>>>()
                .ok_or("`stop` is a text, or a list of texts")?
        }
        Some(_) => return Err("`stop` is a text, or a list of texts".to_owned()),
    };
    if stop.iter().any(String::is_empty) {
        return Err("`stop` holds an empty text, at which every text would end".to_owned());
    }
    let share = |x: Option<f64>, key: &str| match x {
        Some(0.0) => Err(format!("`{key}` is a number above 0, and at most 1")),
        // All tokens: as if it were not there.
        Some(1.0) if key == "top_p" => Ok(None),
        x => Ok(x),
    };
    let plain = Sampling::default();
    let sampling = Sampling {
        temperature: number(body, "temperature", (0.0, 100.0))?.unwrap_or(plain.temperature),
        top_k: whole(body, "top_k", (1, u64::MAX))?,
        top_p: share(number(body, "top_p", (0.0, 1.0))?, "top_p")?,
        min_p: share(number(body, "min_p", (0.0, 1.0))?, "min_p")?,
        repetition_penalty: number(body, "repetition_penalty", (1e-3, 100.0))?
            .unwrap_or(plain.repetition_penalty),
        seed: whole(body, "seed", (0, u64::MAX))?.unwrap_or(plain.seed),
    };
    if let Some(name) = sampling.idle() {
        return Err(format!(
            "`{name}` has no effect: without `temperature` the likeliest token is always taken"
        ));
    }
    Ok(Settings {
        max_new_tokens: new.or(old).unwrap_or(usual.min(range.1)),
        sampling,
        stop,
        ..Settings::default()
    })
}

/// How the answers to a request are written.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    id: String,
    created: u64,
    model: String,
    chat: bool,
    usage: bool,
    /// Texts that are not done yet.
    left: usize,
    tokens: (u64, u64),
    begun: bool,
}

/// Requests so far.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// Why a text ended, in OpenAI's words.
const fn reason(ended: Ended) -> &'static str {
    match ended {
        Ended::Token | Ended::Stop => "stop",
        Ended::Length | Ended::Interrupted => "length",
    }
}

impl Talk {
    pub(super) fn new(model: &str, chat: bool, request: &Request) -> Self {
        let created = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let kind = if chat { "chatcmpl" } else { "cmpl" };
        Self {
            id: format!(
                "{kind}-{created:x}-{}",
                ASKED.fetch_add(1, Ordering::Relaxed)
            ),
            created,
            model: model.to_owned(),
            chat,
            usage: request.usage,
            left: request.prompts.len(),
            tokens: (0, 0),
            begun: false,
        }
    }

    /// Tokens that were made.
    pub(super) const fn made(&self) -> u64 {
        self.tokens.1
    }

    fn usage(&self) -> Json {
        let (prompt, made) = self.tokens;
        json!({ "prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made })
    }

    fn object(&self, kind: &str, choices: Vec<Json>) -> Json {
        json!({ "id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices })
    }

    /// The answer as a whole, of all that was said.
    pub(super) fn whole(&mut self, said: Vec<Said>) -> Json {
        let mut choices = Vec::new();
        for said in said {
            match said {
                Said::Begun(tokens) => self.tokens.0 += tokens,
                Said::Made {
                    of,
                    text,
                    tokens,
                    ended,
                } => {
                    self.tokens.1 += tokens;
                    let mut choice =
                        json!({ "index": of, "finish_reason": reason(ended), "logprobs": null });
                    if self.chat {
                        choice["message"] = json!({ "role": "assistant", "content": text });
                    } else {
                        choice["text"] = json!(text);
                    }
                    choices.push((of, choice));
                }
                _ => {}
            }
        }
        choices.sort_by_key(|(of, _)| *of);
        let kind = if self.chat {
            "chat.completion"
        } else {
            "text_completion"
        };
        let mut own = self.object(
            kind,
            choices.into_iter().map(|(_, choice)| choice).collect(),
        );
        own["usage"] = self.usage();
        own
    }

    fn chunk(&self, of: usize, new: Option<&str>, finish: Option<&str>) -> String {
        let mut choice = json!({ "index": of, "finish_reason": finish, "logprobs": null });
        if self.chat {
            choice["delta"] = match (new, self.begun) {
                (Some(text), true) => json!({ "content": text }),
                (Some(text), false) => json!({ "role": "assistant", "content": text }),
                (None, _) => json!({}),
            };
        } else {
            choice["text"] = json!(new.unwrap_or_default());
        }
        let kind = if self.chat {
            "chat.completion.chunk"
        } else {
            "text_completion"
        };
        event(&self.object(kind, vec![choice]))
    }

    /// The events of what was said, and whether it was the last.
    pub(super) fn events(&mut self, said: &Said) -> (Vec<String>, bool) {
        match said {
            Said::Begun(tokens) => {
                self.tokens.0 += tokens;
                let first = self.chat.then(|| self.chunk(0, Some(""), None));
                self.begun = true;
                (first.into_iter().collect(), false)
            }
            Said::More(of, text) => (vec![self.chunk(*of, Some(text), None)], false),
            Said::Made {
                of, tokens, ended, ..
            } => {
                self.tokens.1 += tokens;
                self.left = self.left.saturating_sub(1);
                let mut list = vec![self.chunk(*of, None, Some(reason(*ended)))];
                if self.left == 0 {
                    if self.usage {
                        let kind = if self.chat {
                            "chat.completion.chunk"
                        } else {
                            "text_completion"
                        };
                        let mut own = self.object(kind, Vec::new());
                        own["usage"] = self.usage();
                        list.push(event(&own));
                    }
                    list.push("data: [DONE]\n\n".to_owned());
                }
                (list, self.left == 0)
            }
            Said::Failed(status, why) => (vec![event(&error(*status, why))], true),
            Said::Labelled(..) | Said::Changed(_) => (Vec::new(), true),
        }
    }
}

/// An event of a stream.
fn event(json: &Json) -> String {
    format!("data: {json}\n\n")
}

/// An error as OpenAI's clients read it.
pub(super) fn error(status: u16, why: &str) -> Json {
    let kind = match status {
        401 | 403 => "authentication_error",
        404 => "not_found_error",
        503 => "overloaded_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    };
    json!({ "error": { "message": why, "type": kind, "param": null, "code": status } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Json, chat: bool) -> Result<Request, String> {
        request(body.as_object().cloned().unwrap_or_default(), chat, 100)
    }

    #[test]
    fn what_a_request_names_is_used_or_refused() {
        let own = read(
            json!({ "prompt": ["a", "b"], "max_tokens": 5, "stop": "x", "n": 1, "temperature": 0.5, "top_p": 1, "seed": 3 }),
            false,
        );
        let own = own.expect("a request");
        assert_eq!(
            (
                own.prompts.len(),
                own.settings.max_new_tokens,
                own.settings.stop.len()
            ),
            (2, 5, 1)
        );
        assert_eq!(
            (own.settings.sampling.top_p, own.settings.sampling.seed),
            (None, 3)
        );
        for body in [
            json!({}),
            json!({ "prompt": [1, 2] }),
            json!({ "prompt": "a", "n": 2 }),
            json!({ "prompt": "a", "max_tokens": 100 }),
            json!({ "prompt": "a", "top_p": 0.5 }),
            json!({ "prompt": "a", "stop": "" }),
            json!({ "prompt": "a", "tools": [] }),
            json!({ "prompt": "a", "stream_options": { "include_usage": true } }),
        ] {
            assert!(read(body.clone(), false).is_err(), "{body}");
        }
        assert!(read(json!({ "messages": [{ "role": "user", "content": "a" }], "user": "u", "logprobs": null }), true).is_ok());
        assert!(read(json!({ "messages": "a" }), true).is_err());
    }
}
