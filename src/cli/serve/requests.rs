//! Requests to label rows, and to go on with texts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value as Json, json};
use tokio::sync::mpsc::unbounded_channel;

use super::http::{Answer, Server, Shared, answered, with};
use super::models::About;
use super::numbers::{Counts, add};
use super::openai::{self, Request, Talk};
use super::waiting::{Events, Waiting};
use super::work::{Ask, Job, Said};
use crate::library::rows::Record;

/// The body of a request, as far as it was read.
pub(super) type Read = Result<Bytes, BytesRejection>;

pub(super) async fn labels(own: Shared, body: Read) -> Response {
    answered(predict(own, body).await)
}

pub(super) async fn completions(own: Shared, body: Read) -> Response {
    answered(generate(own, body, false).await)
}

pub(super) async fn conversations(own: Shared, body: Read) -> Response {
    answered(generate(own, body, true).await)
}

impl Server {
    /// Puts a request into the queue: about a model, or about none that is there.
    pub(super) fn submit(
        &self,
        (model, counts): (u64, Option<Arc<Counts>>),
        ask: Ask,
    ) -> Result<Waiting, (u16, String)> {
        let before = self.numbers.waiting.fetch_add(1, Ordering::Relaxed);
        let (reply, said) = unbounded_channel();
        let began = Instant::now();
        let until = began + self.limits.time;
        // From here on its end is counted.
        let waiting = Waiting {
            said,
            numbers: self.numbers.clone(),
            counts,
            began,
            until,
            answered: false,
        };
        let job = Job {
            model,
            ask,
            reply,
            until,
        };
        let fits = before < self.limits.queue as u64;
        if !fits || self.queue.try_send(job).is_err() {
            add(&self.numbers.refused, 1);
            let why = "too many requests wait (`--queue`); ask again later";
            return Err((503, why.to_owned()));
        }
        Ok(waiting)
    }

    /// The model that a body names; where there is one alone, it need not.
    pub(super) fn model(&self, body: &mut Map<String, Json>) -> Result<About, (u16, String)> {
        let all = self.models.list();
        let names = all.iter().map(|own| format!("`{}`", own.name));
        let names = names.collect::<Vec<_>>().join(", ");
        let named = match body.shift_remove("model") {
            None | Some(Json::Null) => None,
            Some(Json::String(name)) => Some(name),
            Some(_) => return Err((400, "`model` is a text".to_owned())),
        };
        match (named, all.as_slice()) {
            (None, [only]) => Ok(only.clone()),
            (None, _) => Err((400, format!("`model` is wanted: {names}"))),
            (Some(name), all) => {
                let found = all.iter().find(|own| own.name == name).cloned();
                let why = || {
                    (
                        404,
                        format!("there is no model `{name}`; there are {names}"),
                    )
                };
                found.ok_or_else(why)
            }
        }
    }
}

/// A body as an object.
pub(super) fn object(body: Read) -> Result<Map<String, Json>, (u16, String)> {
    let body = body.map_err(|why| match why.status().as_u16() {
        413 => (413, "the body is longer than `--max-body`".to_owned()),
        status => (status, why.body_text()),
    })?;
    match serde_json::from_slice(&body) {
        Ok(Json::Object(own)) => Ok(own),
        Ok(_) => Err((400, "the body is no JSON object".to_owned())),
        Err(why) => Err((400, format!("the body is no JSON: {why}"))),
    }
}

/// The rows of a request to label: objects, or texts for a model that reads one column.
fn rows(body: &mut Map<String, Json>, about: &About, most: usize) -> Result<Vec<Record>, String> {
    let list = match (body.shift_remove("rows"), body.shift_remove("texts")) {
        (Some(Json::Array(rows)), None) => rows,
        (None, Some(Json::Array(texts))) => {
            let [column] = about.columns.as_slice() else {
                return Err(format!(
                    "the model reads `{}`; write `rows`",
                    about.columns.join("`, `")
                ));
            };
            texts
                .into_iter()
                .map(|text| json!({ column: text }))
                .collect()
        }
        (Some(_), Some(_)) => {
            return Err("`rows` and `texts` are two ways to say one thing".to_owned());
        }
        _ => return Err("`rows` is wanted, a list of objects, or `texts`, a list".to_owned()),
    };
    records(list, most)
}

/// Rows as they are read; there may be so many.
pub(super) fn records(list: Vec<Json>, most: usize) -> Result<Vec<Record>, String> {
    if list.is_empty() || list.len() > most {
        return Err(format!(
            "{} rows: there may be 1 to {most} (`--max-rows`)",
            list.len()
        ));
    }
    let record = |(place, value): (usize, Json)| match value {
        Json::Object(fields) => Ok(Record {
            row: place as u64 + 1,
            fields,
            raw: None,
        }),
        _ => Err(format!("row {} is no object", place + 1)),
    };
    list.into_iter().enumerate().map(record).collect()
}

/// Labels rows.
async fn predict(State(own): Shared, body: Read) -> Answer {
    let wrong = |why: String| (400, why);
    let mut body = object(body)?;
    let about = own.model(&mut body)?;
    if about.writes {
        return Err((
            400,
            format!(
                "`{}` goes on with texts; ask /v1/chat/completions or /v1/completions",
                about.name
            ),
        ));
    }
    let rows = rows(&mut body, &about, own.limits.rows).map_err(wrong)?;
    let all = openai::truth(&mut body, "all").map_err(wrong)?;
    if let Some(key) = body.keys().next() {
        return Err(wrong(format!(
            "`{key}` is not known here; there are `model`, `rows`, `texts`, `all`"
        )));
    }
    let fields: Vec<Map<String, Json>> = rows.iter().map(|record| record.fields.clone()).collect();
    let of = (about.id, Some(about.counts.clone()));
    let mut waiting = own.submit(of, Ask::Rows { rows, all })?;
    match waiting.next().await {
        Said::Labelled(added, _) => {
            waiting.done(0);
            let join = |(mut row, added): (Map<String, Json>, Map<String, Json>)| {
                row.extend(added);
                Json::Object(row)
            };
            let rows: Vec<Json> = fields.into_iter().zip(added).map(join).collect();
            let own = json!({ "model": about.name, "rows": rows });
            Ok(with(StatusCode::OK, "application/json", own.to_string()))
        }
        Said::Failed(status, why) => Err((status, why)),
        _ => Err((500, "the model gave another answer than labels".to_owned())),
    }
}

/// Goes on with prompts, or answers a conversation.
async fn generate(State(own): Shared, body: Read, chat: bool) -> Answer {
    let mut body = object(body)?;
    let about = own.model(&mut body)?;
    let request = asked(&own, body, &about, chat)?;
    let (mut left, stream) = (request.prompts.len(), request.stream);
    let mut talk = Talk::new(&about.name, chat, &request);
    let ask = Ask::Write {
        prompts: request.prompts,
        settings: request.settings,
    };
    let mut waiting = own.submit((about.id, Some(about.counts)), ask)?;
    // A prompt that does not fit is refused before a stream begins.
    let first = waiting.next().await;
    if let Said::Failed(status, why) = first {
        return Err((status, why));
    }
    if stream {
        let (list, over) = talk.events(&first);
        let events = Events {
            waiting,
            talk,
            list: list.into(),
            over,
        };
        let events = Body::from_stream(events);
        return Ok(with(StatusCode::OK, "text/event-stream", events));
    }
    let mut said = vec![first];
    while left > 0 {
        match waiting.next().await {
            Said::Failed(status, why) => return Err((status, why)),
            made @ Said::Made { .. } => {
                left -= 1;
                said.push(made);
            }
            _ => {}
        }
    }
    let whole = talk.whole(said);
    waiting.done(talk.made());
    Ok(with(StatusCode::OK, "application/json", whole.to_string()))
}

/// What is asked of a model that goes on with texts.
fn asked(
    own: &Server,
    body: Map<String, Json>,
    about: &About,
    chat: bool,
) -> Result<Request, (u16, String)> {
    let name = &about.name;
    if !about.writes {
        return Err((400, format!("`{name}` labels texts; ask /v1/predict")));
    }
    if chat && !about.converses {
        let why = format!("`{name}` has no chat template; ask /v1/completions");
        return Err((400, why));
    }
    let request = openai::request(body, chat, own.limits.context).map_err(|why| (400, why))?;
    let (count, most) = (request.prompts.len(), own.limits.rows);
    if count > most {
        let why = format!("{count} prompts: there may be 1 to {most} (`--max-rows`)");
        return Err((400, why));
    }
    Ok(request)
}
