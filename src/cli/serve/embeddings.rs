//! The vectors of texts, in the shape of OpenAI's endpoint. They are those that `predict` adds to rows.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};

use super::http::{Answer, Shared, answered, with};
use super::models::About;
use super::openai::{rest, take};
use super::requests::{Read, object, records};
use super::work::{Ask, Said};
use crate::library::rows::Record;

/// What is asked for.
struct Request {
    rows: Vec<Record>,
    /// Whether vectors are written as the bytes of their numbers.
    packed: bool,
    /// How many numbers a vector is to have.
    width: Option<u64>,
}

pub(super) async fn embeddings(own: Shared, body: Read) -> Response {
    answered(embed(own, body).await)
}

async fn embed(State(own): Shared, body: Read) -> Answer {
    let mut body = object(body)?;
    let about = own.model(&mut body)?;
    if !about.embeds {
        let other = match about.writes {
            true => "goes on with texts; ask /v1/chat/completions or /v1/completions",
            false => "makes no vectors; ask /v1/predict",
        };
        return Err((400, format!("`{}` {other}", about.name)));
    }
    let request = request(body, &about, own.limits.rows).map_err(|why| (400, why))?;
    let ask = Ask::Rows {
        rows: request.rows,
        all: false,
    };
    let mut waiting = own.submit((about.id, Some(about.counts.clone())), ask)?;
    match waiting.next().await {
        Said::Labelled(added, tokens) => {
            let each = added.into_iter().map(|row| row.into_iter().next());
            let data = each.enumerate().map(|(index, made)| {
                let (_, vector) = made.unwrap_or_default();
                let embedding = written(vector, request.packed, request.width)?;
                Ok(json!({ "object": "embedding", "index": index, "embedding": embedding }))
            });
            let data: Result<Vec<Json>, String> = data.collect();
            let data = data.map_err(|why| (400, why))?;
            waiting.done(0);
            let whole = json!({
                "object": "list", "model": about.name, "data": data,
                "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
            });
            Ok(with(StatusCode::OK, "application/json", whole.to_string()))
        }
        Said::Failed(status, why) => Err((status, why)),
        _ => Err((500, "the model gave another answer than vectors".to_owned())),
    }
}

/// Reads a request.
fn request(mut body: Map<String, Json>, about: &About, most: usize) -> Result<Request, String> {
    let texts = match take(&mut body, "input") {
        Some(Json::String(text)) => vec![text],
        Some(Json::Array(list)) => {
            let texts = list.into_iter().map(|text| match text {
                Json::String(text) => Ok(text),
                _ => Err(
                    "`input` is a text or a list of texts; lists of token ids are not taken"
                        .to_owned(),
                ),
            });
            texts.collect::<Result<_, _>>()?
        }
        _ => return Err("`input` is wanted, a text or a list of texts".to_owned()),
    };
    if let Some(place) = texts.iter().position(|text| text.trim().is_empty()) {
        return Err(format!("text {} of `input` is empty", place + 1));
    }
    let packed = match take(&mut body, "encoding_format") {
        None => false,
        Some(Json::String(name)) if name == "float" => false,
        Some(Json::String(name)) if name == "base64" => true,
        Some(_) => return Err("`encoding_format` is `float` or `base64`".to_owned()),
    };
    let width = take(&mut body, "dimensions").map(|value| {
        let wrong = || "`dimensions` is a whole number".to_owned();
        value.as_u64().ok_or_else(wrong)
    });
    let width = width.transpose()?;
    // It names who asks, and changes no answer.
    take(&mut body, "user");
    rest(body, "")?;
    let column = about.columns.first().map_or("text", String::as_str);
    let rows = texts.into_iter().map(|text| json!({ column: text }));
    Ok(Request {
        rows: records(rows.collect(), most)?,
        packed,
        width,
    })
}

/// A vector as it was asked for: numbers, or the bytes of each in f32, the lowest first.
fn written(vector: Json, packed: bool, width: Option<u64>) -> Result<Json, String> {
    let count = vector.as_array().map_or(0, Vec::len) as u64;
    if let Some(width) = width.filter(|width| *width != count) {
        return Err(format!(
            "the model's vectors have {count} numbers, not {width}; leave `dimensions` away"
        ));
    }
    if !packed {
        return Ok(vector);
    }
    let numbers = vector.as_array().into_iter().flatten();
    let numbers = numbers.map(|x| x.as_f64().unwrap_or_default() as f32);
    let bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
    Ok(Json::String(STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_numbers_or_their_bytes() {
        let vector = json!([1.0, -0.5]);
        assert_eq!(written(vector.clone(), false, Some(2)), Ok(vector.clone()));
        assert_eq!(
            written(vector.clone(), true, None),
            Ok(json!("AACAPwAAAL8="))
        );
        let why = written(vector, false, Some(3)).expect_err("another width");
        assert!(why.contains("2 numbers, not 3"), "{why}");
    }
}
