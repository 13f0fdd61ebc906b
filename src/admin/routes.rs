//! Requests and responses: which path does what, who may ask, and how it is answered.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde::de::DeserializeOwned;

use super::answer::{Envelope, Outcome};
use super::command::{
    Batch, Broadcast, Channels, Command, Connections, Disconnect, History, Info, One, Presence,
    Publish, Subscribe, Unsubscribe,
};
use super::error::ApiError;
use super::grouping::{CreateGroup, DeleteGroup, GroupUsers, ListGroups, OneGroup};
use super::rooms::{CreateRoom, ListRooms, OneRoom, RoomUser};
use super::running::parse;
use super::target::Send;
use super::value::Object;
use super::{Context, access, exposition};
use crate::metrics::Counter;

const JSON: &str = "application/json";
/// What clients are told of all this.
const OPENAPI: &str = include_str!("openapi.json");

type Shared = State<Arc<Context>>;

/// A handler that gets a command off the body.
macro_rules! command {
    ($type:ident => $variant:ident) => {
        post(|State(context): Shared, request: Request| async move {
            call(&context, request, |command: $type, context| async move {
                context.run(Command::$variant(command)).await
            })
            .await
        })
    };
}

/// Every path, with what it does. The document of the API has the same, see the tests.
fn routes() -> [(&'static str, MethodRouter<Arc<Context>>); 31] {
    [
        ("/api/publish", command!(Publish => Publish)),
        ("/api/broadcast", command!(Broadcast => Broadcast)),
        ("/api/send", command!(Send => Send)),
        ("/api/subscribe", command!(Subscribe => Subscribe)),
        ("/api/unsubscribe", command!(Unsubscribe => Unsubscribe)),
        ("/api/disconnect", command!(Disconnect => Disconnect)),
        ("/api/history", command!(History => History)),
        ("/api/presence", command!(Presence => Presence)),
        ("/api/channels", command!(Channels => Channels)),
        ("/api/connections", command!(Connections => Connections)),
        ("/api/connection", command!(One => Connection)),
        ("/api/rooms", command!(ListRooms => Rooms)),
        ("/api/room", command!(OneRoom => Room)),
        ("/api/create_room", command!(CreateRoom => CreateRoom)),
        ("/api/delete_room", command!(OneRoom => DeleteRoom)),
        ("/api/room_mute", command!(RoomUser => RoomMute)),
        ("/api/room_unmute", command!(RoomUser => RoomUnmute)),
        ("/api/room_kick", command!(RoomUser => RoomKick)),
        ("/api/groups", command!(ListGroups => Groups)),
        ("/api/group", command!(OneGroup => Group)),
        ("/api/create_group", command!(CreateGroup => CreateGroup)),
        ("/api/delete_group", command!(DeleteGroup => DeleteGroup)),
        ("/api/group_add", command!(GroupUsers => GroupAdd)),
        ("/api/group_remove", command!(GroupUsers => GroupRemove)),
        ("/api/info", command!(Info => Info)),
        ("/api/batch", post(batch)),
        ("/api/openapi.json", get(openapi)),
        ("/metrics", get(metrics)),
        ("/health", get(live)),
        ("/health/live", get(live)),
        ("/health/ready", get(ready)),
    ]
}

pub fn router(context: Arc<Context>) -> Router {
    routes()
        .into_iter()
        .fold(Router::new(), |router, (path, method)| router.route(path, method))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(context)
}

async fn batch(State(context): Shared, request: Request) -> Response {
    call(&context, request, |batch: Batch, context| async move { context.run_all(batch).await })
        .await
}

/// Takes a request apart, has it done in time, and answers it.
async fn call<'a, T: DeserializeOwned, F: Future<Output = Outcome> + 'a>(
    context: &'a Context,
    request: Request,
    run: impl FnOnce(T, &'a Context) -> F,
) -> Response {
    let outcome = match read(context, request).await {
        Ok(asked) => {
            let run = tokio::time::timeout(context.config.admin.timeout, run(asked, context));
            run.await.unwrap_or_else(|_| Err(late("the answer did not come in time")))
        }
        Err(error) => Err(error),
    };
    respond(context, &outcome)
}

/// What a request asks, if it may.
async fn read<T: DeserializeOwned>(context: &Context, request: Request) -> Result<T, ApiError> {
    let admin = &context.config.admin;
    access::check(admin.key.as_ref(), request.headers())?;
    check_type(request.headers())?;
    let limit = admin.max_body_size;
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if let Some(declared) = declared.and_then(|text| text.parse().ok())
        && declared > limit
    {
        return Err(ApiError::too_large("the body", declared, limit));
    }
    let body = tokio::time::timeout(admin.timeout, to_bytes(request.into_body(), limit)).await;
    let body: Bytes = match body {
        Err(_) => {
            let message = "the request did not come in time";
            return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", message));
        }
        // Without a length only more than the limit, or an end before its time, which nobody hears of.
        Ok(Err(_)) => return Err(ApiError::too_large("the body", limit + 1, limit)),
        Ok(Ok(body)) => body,
    };
    let text = simdutf8::basic::from_utf8(&body).map_err(|_| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", "the body is not UTF-8")
    })?;
    parse::<Object<T>>(text).map(|object| object.0)
}

/// A page of another origin can send many types without asking, but not this one.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next()).map(str::trim);
    if media_type.is_some_and(|media_type| media_type.eq_ignore_ascii_case(JSON)) {
        return Ok(());
    }
    let message = "Content-Type must be application/json";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
}

fn late(message: &'static str) -> ApiError {
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
}

fn respond(context: &Context, outcome: &Outcome) -> Response {
    let counters = context.metrics.admin();
    counters.add(Counter::AdminRequests, 1);
    let status = match outcome {
        Ok(_) => StatusCode::OK,
        Err(error) => {
            counters.add(Counter::AdminRefused, 1);
            error.status
        }
    };
    // It has nothing that cannot be written.
    let body = serde_json::to_vec(&Envelope::of(outcome)).unwrap_or_default();
    let mut response = written(status, JSON, body);
    let extra: Option<(HeaderName, &'static str)> = match status {
        StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
        StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, "1")),
        _ => None,
    };
    if let Some((name, value)) = extra {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn written(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let fields = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")];
    (status, fields, body.into()).into_response()
}

async fn openapi(State(context): Shared, headers: HeaderMap) -> Response {
    guarded(&context, &headers, || written(StatusCode::OK, JSON, OPENAPI))
}

async fn metrics(State(context): Shared, headers: HeaderMap) -> Response {
    guarded(&context, &headers, || {
        written(StatusCode::OK, exposition::CONTENT_TYPE, exposition::render(&context))
    })
}

/// A page for whoever has the key.
fn guarded(context: &Context, headers: &HeaderMap, page: impl FnOnce() -> Response) -> Response {
    if let Err(error) = access::check(context.config.admin.key.as_ref(), headers) {
        return respond(context, &Err(error));
    }
    context.metrics.admin().add(Counter::AdminRequests, 1);
    page()
}

async fn live(State(context): Shared) -> Response {
    health(&context, context.live())
}

async fn ready(State(context): Shared) -> Response {
    health(&context, context.ready())
}

fn health(context: &Context, (status, health): (StatusCode, super::health::Health)) -> Response {
    context.metrics.admin().add(Counter::AdminRequests, 1);
    written(status, JSON, serde_json::to_vec(&health).unwrap_or_default())
}

async fn not_found(State(context): Shared, request: Request) -> Response {
    let message = format!("there is nothing at {}", request.uri().path().escape_debug());
    respond(&context, &Err(ApiError::new(StatusCode::NOT_FOUND, "no_route", message)))
}

async fn method_not_allowed(State(context): Shared, method: Method) -> Response {
    let message = format!("{method} is not for this path; see the field Allow");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    respond(&context, &Err(ApiError::new(status, "method_not_allowed", message)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_document_has_every_path_and_no_other() {
        let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
        let paths = document["paths"].as_object().expect("an object");
        let mut documented: Vec<_> = paths.keys().map(String::as_str).collect();
        let mut served: Vec<_> = routes().into_iter().map(|(path, _)| path).collect();
        documented.sort_unstable();
        served.sort_unstable();
        assert_eq!(documented, served);
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
