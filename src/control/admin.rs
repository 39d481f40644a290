//! The routes of the system API and of the HTTP API.
//!
//! Handlers run beside the task that owns control's state and ask it by messages. Each waits for
//! answers with a deadline of its own, so a shard that is stuck slows nobody but who asked for it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout_at;

use super::ask::{Ask, Expected, Page, Readiness};
use super::http::{Peer, Problem, has_token, read_body};
use super::list;
use super::origin::Conflict;
use super::registration::{BODY_MAX, Registration, allowed_networks, is_allowed};
use super::service;
use super::session_id::{SessionId, SessionRef};
use super::view::SessionEntry;
use super::whip::{self, Signalling};
use crate::config::Config;
use crate::shard::command::RtcId;
use crate::telemetry::metrics;

/// What handlers need. Clones share it.
#[derive(Clone)]
pub(super) struct Api {
    asks: mpsc::Sender<Ask>,
    config: Arc<Config>,
    allowed: Arc<[IpNet]>,
    shards: u16,
    /// A list of all sessions is tens of megabytes at the maximum, and makes the shards work.
    lists: Arc<Semaphore>,
}

impl Api {
    pub(super) fn new(asks: mpsc::Sender<Ask>, config: Arc<Config>, shards: u16) -> Self {
        let allowed = allowed_networks(&config.allow_origins).into();
        Self { asks, config, allowed, shards, lists: Arc::new(Semaphore::new(LISTS_MAX)) }
    }

    /// The routes of `--system-listen`.
    pub(super) fn system_router(self) -> Router {
        let routes = Router::new()
            .route("/api/v1/srs/register", post(register))
            .route("/api/v1/versions", get(versions))
            .route("/api/v1/origins", get(origins))
            .route("/api/v1/origins/{id}/drain", post(drain_origin))
            .route("/api/v1/origins/{id}/undrain", post(undrain_origin))
            .route("/api/v1/streams", get(streams))
            .route("/api/v1/sessions", get(sessions))
            .route("/api/v1/sessions/{id}", get(session).delete(close_session))
            .merge(service::routes())
            .route("/metrics", get(show_metrics))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz));
        with_fallbacks(routes).with_state(self)
    }

    /// The routes of `--http-listen`, for clients whose media comes to `webrtc`.
    pub(super) fn http_router(self, webrtc: Option<SocketAddr>) -> Router {
        let signalling = Signalling::new(self.asks, self.config, webrtc);
        let routes = Router::new().route("/api/v1/versions", get(versions));
        whip::allow_everywhere(with_fallbacks(routes.merge(signalling.routes())))
    }

    /// Asks control. `None` when it has no answer to give.
    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.ok()?;
        answer.await.ok()
    }

    pub(super) async fn ask_or_fail<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<T>) -> Ask,
    ) -> Result<T, Problem> {
        self.ask(ask).await.ok_or_else(|| Problem::unavailable("the relay is stopping"))
    }

    /// Asks all shards at once for counters that are at most `age_max` old, and returns those that
    /// have not answered within `patience`.
    async fn refresh(&self, age_max: Duration, patience: Duration) -> Vec<u16> {
        let deadline = tokio::time::Instant::now() + patience;
        let mut answers = Vec::new();
        for shard in 0..self.shards {
            let (reply, answer) = oneshot::channel();
            let ask = Ask::Counters { shard, age_max, reply };
            // A failed send drops the reply, which the answer shows.
            let _ = timeout_at(deadline, self.asks.send(ask)).await;
            answers.push((shard, answer));
        }
        let mut silent = Vec::new();
        for (shard, answer) in answers {
            match timeout_at(deadline, answer).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => silent.push(shard),
            }
        }
        silent
    }

    /// How many shards there are.
    pub(super) fn shards(&self) -> u16 {
        self.shards
    }

    /// A page of one shard's sessions; `None` when it does not answer in time.
    pub(super) async fn page(&self, shard: u16, from_slot: u32, limit: u32) -> Option<Page> {
        let deadline = tokio::time::Instant::now() + SHARD_TIMEOUT;
        let page = self.ask(|reply| Ask::Sessions { shard, from_slot, limit, reply });
        timeout_at(deadline, page).await.ok().flatten()
    }

    /// WebRTC sessions that no shard owns; `None` when the relay is stopping.
    pub(super) async fn expected(&self, from: RtcId, limit: usize) -> Option<Expected> {
        self.ask(|reply| Ask::Expected { from, limit, reply }).await
    }
}

fn with_fallbacks<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes.fallback(not_found).method_not_allowed_fallback(method_not_allowed)
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

/// The router adds `Allow`.
async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not for {}: see Allow", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// Lets operators through: who has the token, or, where there is none, who is on this host.
pub(super) struct Operator;

impl FromRequestParts<Api> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Peer(peer) = Peer::from_request_parts(parts, api).await?;
        match &api.config.api_token {
            Some(token) if has_token(&parts.headers, token) => Ok(Self),
            Some(_) => {
                let detail = "send the token of --api-token as Authorization: Bearer";
                Err(Problem::new(StatusCode::UNAUTHORIZED, detail))
            }
            None if peer.ip().is_loopback() => Ok(Self),
            None => {
                let detail = "without --api-token only loopback peers are answered here";
                Err(Problem::new(StatusCode::FORBIDDEN, detail))
            }
        }
    }
}

/// One body for all who ask, among them health checks made for SRS and for its Go proxy.
async fn versions() -> Json<Value> {
    let part = |text: &str| text.parse::<u32>().unwrap_or(0);
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({
        "code": 0,
        "pid": std::process::id().to_string(),
        "signature": "Ringway",
        "version": version,
        "data": {
            "major": part(env!("CARGO_PKG_VERSION_MAJOR")),
            "minor": part(env!("CARGO_PKG_VERSION_MINOR")),
            "revision": part(env!("CARGO_PKG_VERSION_PATCH")),
            "version": version,
        },
    }))
}

/// What SRS reads of an answer, if anything.
#[derive(Serialize)]
struct Registered {
    code: u32,
    pid: String,
}

async fn register(
    State(api): State<Api>,
    Peer(peer): Peer,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Registered>, Problem> {
    let registered = try_register(&api, peer.ip(), &headers, body).await;
    if let Err(problem) = &registered {
        let (peer, detail) = (peer.ip(), problem.detail().to_owned());
        // When control has gone, nobody is left to log it.
        let _ = api.asks.send(Ask::RegistrationRefused { peer, detail }).await;
    }
    registered
}

async fn try_register(
    api: &Api,
    peer: IpAddr,
    headers: &HeaderMap,
    body: Body,
) -> Result<Json<Registered>, Problem> {
    if !is_allowed(peer, &api.allowed) {
        let detail = format!("{peer} may not register origins: allow it with --allow-origins");
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    if let Some(token) = &api.config.register_token
        && !has_token(headers, token)
    {
        let detail = "send the token of --register-token as Authorization: Bearer";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, detail));
    }
    let body = read_body(headers, body, BODY_MAX).await?;
    let registration = Registration::parse(&body, peer, &api.allowed)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    let registration = Box::new(registration);
    let registered = api.ask_or_fail(|reply| Ask::Register { registration, reply }).await?;
    match registered {
        Ok(()) => Ok(Json(Registered { code: 0, pid: std::process::id().to_string() })),
        Err(conflict @ Conflict::ServerLives { .. }) => {
            Err(Problem::new(StatusCode::CONFLICT, conflict.to_string()))
        }
        Err(conflict @ Conflict::Full) => Err(Problem::unavailable(conflict.to_string())),
    }
}

async fn origins(State(api): State<Api>, _: Operator) -> Result<Json<Value>, Problem> {
    let origins = api.ask_or_fail(|reply| Ask::Origins { reply }).await?;
    Ok(Json(json!({ "origins": origins })))
}

/// It keeps its sessions and gets no new streams.
async fn drain_origin(
    State(api): State<Api>,
    _: Operator,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    set_draining(&api, id, true).await
}

async fn undrain_origin(
    State(api): State<Api>,
    _: Operator,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    set_draining(&api, id, false).await
}

async fn set_draining(
    api: &Api,
    id: Result<Path<String>, PathRejection>,
    is_draining: bool,
) -> Result<StatusCode, Problem> {
    let no_origin = |id: &str| {
        let detail = format!("there is no origin {id}: GET /api/v1/origins shows all");
        Problem::new(StatusCode::NOT_FOUND, detail)
    };
    let Ok(Path(id)) = id else {
        return Err(no_origin("of that name"));
    };
    let name = id.clone();
    match api.ask_or_fail(|reply| Ask::DrainOrigin { name, is_draining, reply }).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(no_origin(&id)),
    }
}

async fn streams(State(api): State<Api>, _: Operator) -> Result<Json<Value>, Problem> {
    let ask = |reply| Ask::Streams { limit: STREAMS_SHOWN_MAX, reply };
    let (streams, total) = api.ask_or_fail(ask).await?;
    Ok(Json(json!({ "streams": streams, "total": total })))
}

/// All sessions, or those of the shards that answer; which do not is said in the list.
async fn sessions(State(api): State<Api>, _: Operator) -> Result<Response, Problem> {
    let Ok(slot) = Arc::clone(&api.lists).try_acquire_owned() else {
        let detail = format!("{LISTS_MAX} others are listing sessions: try again");
        return Err(Problem::unavailable(detail));
    };
    Ok(list::sessions(api, slot).await)
}

fn not_written(error: impl std::error::Error) -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("the answer cannot be written: {error}"),
    )
}

async fn session(
    State(api): State<Api>,
    _: Operator,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<SessionEntry>, Problem> {
    let id = session_id(&api, id)?;
    let name = id.to_string();
    let entry = match id {
        SessionId::Srt(place) => session_at(&api, place, &name).await?,
        SessionId::WebRtc(session) => {
            let known = api.ask_or_fail(|reply| Ask::Session { session, reply }).await?;
            match known {
                Some((known, Some(place))) => {
                    // It may have moved since.
                    Some(session_at(&api, place, &name).await?.unwrap_or(*known))
                }
                Some((known, None)) => Some(*known),
                None => None,
            }
        }
    };
    entry.map(Json).ok_or_else(|| no_session(&name))
}

async fn session_at(
    api: &Api,
    place: SessionRef,
    name: &str,
) -> Result<Option<SessionEntry>, Problem> {
    let page = api.page(place.shard, place.key.slot, 1).await.ok_or_else(|| {
        let detail = format!("shard {} has not answered within {SHARD_TIMEOUT:?}", place.shard);
        Problem::unavailable(detail)
    })?;
    Ok(page.sessions.into_iter().find(|entry| entry.has_id(name)))
}

async fn close_session(
    State(api): State<Api>,
    _: Operator,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let session = session_id(&api, id)?;
    match api.ask_or_fail(|reply| Ask::Close { session, reply }).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(no_session(&session.to_string())),
    }
}

fn session_id(api: &Api, path: Result<Path<String>, PathRejection>) -> Result<SessionId, Problem> {
    let Ok(Path(id)) = path else {
        return Err(no_session("of that name"));
    };
    let is_possible = |id: &SessionId| match id {
        SessionId::Srt(place) => place.shard < api.shards,
        SessionId::WebRtc(_) => true,
    };
    SessionId::parse(&id).filter(is_possible).ok_or_else(|| no_session(&id))
}

fn no_session(id: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is no session {id}"))
}

async fn show_metrics(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    let since = Instant::now();
    api.refresh(Duration::ZERO, SHARD_TIMEOUT).await;
    let snapshot = api.ask_or_fail(|reply| Ask::Metrics { since, reply }).await?;
    let accept = headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let format = metrics::Format::for_client(accept);
    let text = metrics::render(snapshot, format).map_err(not_written)?;
    let content_type = HeaderValue::from_static(format.content_type());
    Ok(([(CONTENT_TYPE, content_type)], text).into_response())
}

/// Whether the process does its work: this thread answers, and so does every shard.
async fn livez(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let silent = api.refresh(LIVENESS_AGE_MAX, LIVENESS_TIMEOUT).await;
    if silent.is_empty() {
        return Ok(Json(json!({ "status": "alive", "shards": api.shards })));
    }
    let detail = format!("shards {silent:?} have not answered within {LIVENESS_TIMEOUT:?}");
    Err(Problem::unavailable(detail))
}

/// Whether new sessions are welcome and have somewhere to go.
async fn readyz(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    match api.ask_or_fail(|reply| Ask::Readiness { reply }).await? {
        Readiness::Ready { origins_up } => {
            Ok(Json(json!({ "status": "ready", "origins_up": origins_up })))
        }
        // New streams are still tried with them, and whoever sends clients here knows no better
        // place.
        Readiness::Degraded { origins_failing } => Ok(Json(json!({
            "status": "degraded",
            "origins_up": 0,
            "detail": format!("none of {origins_failing} live origins answers"),
        }))),
        Readiness::Draining => {
            Err(Problem::unavailable("draining: an operator lets no new sessions in"))
        }
        Readiness::Quitting => {
            Err(Problem::unavailable("draining: the relay is quitting and takes no new sessions"))
        }
        Readiness::NoOrigin => {
            let detail = "no live origin that takes new streams: let one register, or name one with --origin";
            Err(Problem::unavailable(detail))
        }
    }
}

/// For one answer of a shard.
const SHARD_TIMEOUT: Duration = Duration::from_secs(1);
/// The same for its sign of life.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(2);
/// Signs of life that are young enough, so that many who ask cost no more than one.
const LIVENESS_AGE_MAX: Duration = Duration::from_secs(1);
/// Lists of all sessions at a time.
const LISTS_MAX: usize = 4;
/// Streams in one list.
const STREAMS_SHOWN_MAX: usize = 10_000;
