//! Conversations as data sets write them: a list of messages with `role` and `content`, or with `from` and `value`.

use serde_json::{Map, Value as Json};

/// Roles that templates know.
const ROLES: [&str; 6] = [
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
];

/// Roles as ShareGPT and its like call them.
const SPEAKERS: [(&str, &str); 10] = [
    ("human", "user"),
    ("user", "user"),
    ("gpt", "assistant"),
    ("assistant", "assistant"),
    ("model", "assistant"),
    ("system", "system"),
    ("developer", "developer"),
    ("tool", "tool"),
    ("observation", "tool"),
    ("function_response", "tool"),
];

/// A conversation in the one form that is used here.
///
/// # Errors
/// What is wrong with it, and with which message.
pub fn messages(value: Json) -> Result<Vec<Json>, String> {
    let value = match value {
        // Where files hold texts only, a conversation is written as JSON.
        Json::String(text) => serde_json::from_str(&text)
            .map_err(|why| format!("the conversation is a text that is no JSON: {why}"))?,
        other => other,
    };
    let Json::Array(list) = value else {
        return Err(
            "a conversation is a list of messages, [{\"role\": \"user\", \"content\": \"…\"}, …]"
                .to_owned(),
        );
    };
    if list.is_empty() {
        return Err("the conversation has no messages".to_owned());
    }
    let read = list
        .into_iter()
        .enumerate()
        .map(|(place, own)| message(own).map_err(|why| format!("message {} {why}", place + 1)));
    read.collect()
}

fn message(value: Json) -> Result<Json, String> {
    let Json::Object(own) = value else {
        return Err("is no object with `role` and `content`".to_owned());
    };
    let own: Map<String, Json> = own
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .collect();
    let own = if own.contains_key("from") && !own.contains_key("role") {
        renamed(own)?
    } else {
        own
    };
    let role = match own.get("role") {
        Some(Json::String(role)) => role.as_str(),
        Some(_) => return Err("has a `role` that is no text".to_owned()),
        None => return Err("has no `role`".to_owned()),
    };
    if !ROLES.contains(&role) {
        return Err(format!(
            "has the role `{role}`; known are `{}`",
            ROLES.join("`, `")
        ));
    }
    let says = role == "assistant"
        && [
            "tool_calls",
            "function_call",
            "reasoning_content",
            "thinking",
            "reasoning",
        ]
        .iter()
        .any(|key| own.contains_key(*key));
    match own.get("content") {
        Some(Json::String(_) | Json::Array(_)) => {}
        None if says => {}
        Some(Json::Object(_)) if role == "tool" || role == "function" => {}
        Some(_) => return Err("has a `content` that is no text".to_owned()),
        None => return Err("has no `content`".to_owned()),
    }
    Ok(Json::Object(own))
}

/// A message with `from` and `value`.
fn renamed(mut own: Map<String, Json>) -> Result<Map<String, Json>, String> {
    let Some(Json::String(speaker)) = own.shift_remove("from") else {
        return Err("has a `from` that is no text".to_owned());
    };
    let role = SPEAKERS.iter().find(|(name, _)| *name == speaker);
    let Some((_, role)) = role else {
        let known: Vec<&str> = SPEAKERS.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "is from `{speaker}`; known are `{}`",
            known.join("`, `")
        ));
    };
    let Some(value) = own.shift_remove("value") else {
        return Err("has no `value`".to_owned());
    };
    let mut named = Map::new();
    named.insert("role".to_owned(), (*role).into());
    named.insert("content".to_owned(), value);
    // What else a file says of a message, weights or ratings, is no part of it.
    own.retain(|key, _| {
        ["name", "tool_calls", "tool_call_id", "reasoning_content"].contains(&key.as_str())
    });
    named.extend(own);
    Ok(named)
}

/// Descriptions of tools: a list, or nothing.
///
/// # Errors
/// What is wrong with them.
pub fn tools(value: Json) -> Result<Json, String> {
    let value = match value {
        Json::String(text) if text.trim().is_empty() => Json::Null,
        Json::String(text) => serde_json::from_str(&text)
            .map_err(|why| format!("the tools are a text that is no JSON: {why}"))?,
        other => other,
    };
    match value {
        Json::Array(list) if list.is_empty() => Ok(Json::Null),
        Json::Null | Json::Array(_) => Ok(value),
        _ => Err("tools are a list of descriptions".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_spellings_become_one() {
        let own = json!([{"role": "user", "content": "a", "name": null}, {"role": "assistant", "content": "b"}]);
        let plain =
            json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
        let shared =
            json!([{"from": "human", "value": "a", "weight": 1}, {"from": "gpt", "value": "b"}]);
        let read = |value: &Json| messages(value.clone()).map(Json::Array);
        assert_eq!(read(&own), Ok(plain.clone()));
        assert_eq!(read(&shared), Ok(plain.clone()));
        assert_eq!(read(&Json::String(shared.to_string())), Ok(plain));
        for (wrong, says) in [
            (json!([]), "no messages"),
            (json!({"role": "user"}), "list of messages"),
            (json!("hello"), "no JSON"),
            (json!(["hello"]), "message 1 is no object"),
            (
                json!([{"role": "user", "content": "a"}, {"role": "asistant", "content": "b"}]),
                "message 2 has the role `asistant`",
            ),
            (json!([{"from": "bot", "value": "a"}]), "is from `bot`"),
            (json!([{"role": "user"}]), "has no `content`"),
            (json!([{"role": "user", "content": 3}]), "no text"),
            (json!([{"content": "a"}]), "has no `role`"),
        ] {
            let why = messages(wrong.clone()).expect_err("wrong");
            assert!(why.contains(says), "{wrong}: {why}");
        }
        assert!(messages(json!([{"role": "assistant", "tool_calls": []}])).is_ok());
        assert_eq!(tools(json!("")), Ok(Json::Null));
        assert!(tools(json!({"a": 1})).is_err());
    }
}
