//! What is asked and answered over HTTP.

use std::future::{Future as _, IntoFuture as _, poll_fn};
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::embeddings::embeddings;
use super::gate::Gate;
use super::models::Directory;
use super::numbers::Numbers;
use super::requests::{completions, conversations, labels};
use super::work::Job;
use super::{Limits, admin, openai};

/// The page at `/`.
const PAGE: &str = include_str!("page.html");

/// What the page may do: nothing beyond this server.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the server knows.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) models: Arc<Directory>,
    pub(super) limits: Limits,
    pub(super) queue: SyncSender<Job>,
    pub(super) numbers: Arc<Numbers>,
    pub(super) gate: Gate,
    /// Whether requests may add and remove models.
    pub(super) changes: bool,
    /// Whether it is to end.
    pub(super) stop: Arc<AtomicBool>,
}

pub(super) type Shared = State<Arc<Server>>;

/// What is answered; where something is wrong, the status and why.
pub(super) type Answer = Result<Response, (u16, String)>;

/// Answers until it is asked to stop; what runs then is finished.
///
/// # Errors
/// What the system says.
pub(super) fn speak(socket: TcpListener, server: Server) -> Result<(), String> {
    let said = |why: std::io::Error| why.to_string();
    socket.set_nonblocking(true).map_err(said)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(said)?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(socket).map_err(said)?;
        let (stop, time) = (server.stop.clone(), server.limits.time);
        let router = router(Arc::new(server));
        let served = axum::serve(listener, router).with_graceful_shutdown(stopped(stop.clone()));
        let mut served = pin!(served.into_future());
        // Who never reads to the end of an answer does not keep the server from ending.
        let mut given_up = pin!(async move {
            stopped(stop).await;
            tokio::time::sleep(time).await;
        });
        poll_fn(|cx| match served.as_mut().poll(cx) {
            Poll::Ready(ended) => Poll::Ready(ended.map_err(said)),
            Poll::Pending => given_up.as_mut().poll(cx).map(Ok),
        })
        .await
    })
}

async fn stopped(stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(admin::list).post(admin::add))
        .route("/v1/models/{name}", get(admin::one).delete(admin::remove))
        .route("/v1/predict", post(labels))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(conversations))
        .fallback(nowhere)
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(server.limits.body))
        .layer(from_fn_with_state(server.clone(), guard))
        .with_state(server)
}

/// Lets nobody in whom the gate does not, and gives up what takes too long.
async fn guard(State(own): Shared, request: Request, next: Next) -> Response {
    let passed = own
        .gate
        .check(request.method(), request.uri().path(), request.headers());
    if let Err((status, why)) = passed {
        return refused(status, &why);
    }
    let answer = tokio::time::timeout(own.limits.time, next.run(request)).await;
    answer.unwrap_or_else(|_| refused(504, "the request took longer than `--timeout`"))
}

fn plain(text: impl Into<Body>) -> Response {
    with(StatusCode::OK, "text/plain; charset=utf-8", text)
}

pub(super) fn with(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let body: Body = body.into();
    (status, headers, body).into_response()
}

pub(super) fn refused(status: u16, why: &str) -> Response {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = with(
        code,
        "application/json",
        openai::error(status, why).to_string(),
    );
    let more = match status {
        401 => Some((header::WWW_AUTHENTICATE, "Bearer")),
        503 => Some((header::RETRY_AFTER, "1")),
        _ => None,
    };
    if let Some((name, value)) = more {
        let value = header::HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

pub(super) fn answered(answer: Answer) -> Response {
    answer.unwrap_or_else(|(status, why)| refused(status, &why))
}

async fn health() -> Response {
    plain("ok\n")
}

async fn metrics(State(own): Shared) -> Response {
    plain(own.numbers.text())
}

async fn other_method() -> Response {
    refused(405, "this endpoint takes another method")
}

async fn nowhere() -> Response {
    refused(
        404,
        "there is no such endpoint; there are /v1/predict, /v1/embeddings, /v1/chat/completions, /v1/completions, /v1/models, /healthz, /readyz, /metrics, and \
         a page at /; no stage makes embeddings",
    )
}

async fn page() -> Response {
    let mut response = with(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let policy = header::HeaderValue::from_static(POLICY);
    response
        .headers_mut()
        .insert(HeaderName::from_static("content-security-policy"), policy);
    response
}

async fn ready(State(own): Shared) -> Response {
    match own.stop.load(Ordering::Relaxed) {
        false => plain("ready\n"),
        true => refused(503, "the server ends"),
    }
}
