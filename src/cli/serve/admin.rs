//! Which models there are, and models that come and go while the server runs.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value as Json, json};

use super::http::{Answer, Shared, answered, with};
use super::models::{About, Wanted, wanted_as};
use super::requests::{Read, object};
use super::work::{Ask, Said};

fn found(status: StatusCode, json: &Json) -> Response {
    with(status, "application/json", json.to_string())
}

pub(super) async fn list(State(own): Shared) -> Response {
    let list: Vec<Json> = own.models.list().iter().map(About::json).collect();
    let json = json!({ "object": "list", "data": list });
    found(StatusCode::OK, &json)
}

pub(super) async fn one(State(own): Shared, Path(name): Path<String>) -> Response {
    let all = own.models.list();
    let about = all.iter().find(|about| about.name == name);
    let about = about.map(|about| found(StatusCode::OK, &about.json()));
    answered(about.ok_or_else(|| (404, format!("there is no model `{name}`"))))
}

pub(super) async fn add(own: Shared, body: Read) -> Response {
    answered(added(own, body).await)
}

pub(super) async fn remove(own: Shared, Path(name): Path<String>) -> Response {
    answered(removed(own, name).await)
}

/// Whether the models may be changed.
fn allowed(changes: bool) -> Result<(), (u16, String)> {
    match changes {
        true => Ok(()),
        false => Err((
            403,
            "models are neither added nor removed by requests here; start the server with `--changes`"
                .to_owned(),
        )),
    }
}

async fn added(State(own): Shared, body: Read) -> Answer {
    allowed(own.changes)?;
    let mut body = object(body)?;
    let mut text = |key: &str| match body.shift_remove(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(_) => Err((400, format!("`{key}` is a text"))),
    };
    let (name, path) = (text("name")?, text("path")?);
    if let Some(key) = body.keys().next() {
        let why = format!("`{key}` is not known here; there are `path` and `name`");
        return Err((400, why));
    }
    let path = path.ok_or((
        400,
        "`path` is wanted: what `serve` takes as MODEL".to_owned(),
    ))?;
    let wanted: Wanted = wanted_as(name, path.into()).map_err(|why| (400, why))?;
    match own.submit((0, None), Ask::Add(wanted))?.next().await {
        Said::Changed(Some(about)) => Ok(found(StatusCode::CREATED, &about)),
        Said::Failed(status, why) => Err((status, why)),
        _ => Err((500, "the server gave no answer".to_owned())),
    }
}

async fn removed(State(own): Shared, name: String) -> Answer {
    allowed(own.changes)?;
    let json = json!({ "id": name, "object": "model", "deleted": true });
    match own.submit((0, None), Ask::Remove(name))?.next().await {
        Said::Changed(_) => Ok(found(StatusCode::OK, &json)),
        Said::Failed(status, why) => Err((status, why)),
        _ => Err((500, "the server gave no answer".to_owned())),
    }
}
