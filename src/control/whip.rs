//! WHIP and WHEP (RFC 9725, draft-ietf-wish-whep) on their way to an origin, and the JSON API of
//! SRS that was there before them.
//!
//! An offer goes to the origin that control names, without the client's candidates. The answer
//! comes back with the relay's own candidates and a session URL of the relay, once every shard
//! expects the client, for its first binding request may be here before the answer has arrived
//! there. Everything else of both passes as it is.
//!
//! No session description, no `Authorization` and no session URL is ever logged or stands in an
//! error.

mod answer;
mod candidates;
mod client;
mod cors;
mod legacy;
mod offer;
mod place;
mod session;
mod target;

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{Method, StatusCode};
use axum::middleware::map_response;
use axum::routing::{MethodRouter, any, patch, post};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

pub(super) use self::place::end_at_origin;
use super::ask::Ask;
use super::http::{Manners, Problem};
use super::origin_client::{OriginAnswer, OriginError, OriginRequest, Patience, exchange};
use crate::config::Config;
use crate::protocol::ice::IcePair;
use crate::protocol::stream_url::Vhosts;
use crate::shard::command::{NotExpected, Role, RtcId};
use crate::telemetry::log::Throttle;

/// What all requests share.
pub(super) struct Signalling {
    asks: mpsc::Sender<Ask>,
    config: Arc<Config>,
    vhosts: Vhosts,
    /// Where media is taken; `None`: nowhere.
    webrtc: Option<SocketAddr>,
    patience: Patience,
    /// Sessions at origins that are being ended because nobody wants them any more.
    farewells: Arc<Semaphore>,
    throttle: Mutex<Throttle>,
    /// Whether the operator knows that candidates are on loopback alone.
    has_warned: AtomicBool,
}

impl Signalling {
    pub(super) fn new(
        asks: mpsc::Sender<Ask>,
        config: Arc<Config>,
        webrtc: Option<SocketAddr>,
    ) -> Self {
        Self {
            asks,
            vhosts: Vhosts::new(config.vhosts.iter().cloned()),
            config,
            webrtc,
            patience: Patience::default(),
            farewells: Arc::new(Semaphore::new(FAREWELLS_MAX)),
            throttle: Mutex::default(),
            has_warned: AtomicBool::new(false),
        }
    }

    pub(super) fn routes(self) -> Router {
        let mut routes = Router::new();
        for endpoint in Endpoint::ALL {
            routes = with_path_below(routes, endpoint.path(), endpoint.methods());
        }
        for path in [legacy::PUBLISH, legacy::PLAY] {
            let methods = post(legacy::offer).options(|| options_for(ACCEPT_POST, JSON));
            routes = with_path_below(routes, path, methods);
        }
        let on_session = patch(session::patch)
            .delete(session::delete)
            .options(|| options_for(ACCEPT_PATCH, ON_SESSION));
        routes
            .route(&format!("{SESSION}{{token}}"), on_session)
            .route(&format!("{SESSION}{{token}}/"), any(no_session))
            .route(&format!("{SESSION}{{token}}/{{*rest}}"), any(no_session))
            .method_not_allowed_fallback(method_not_allowed)
            .with_state(Arc::new(self))
    }

    /// Asks control. It does not answer when it is stopping, or when a shard does not answer it.
    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        let answer = async {
            self.asks.send(ask(reply)).await.ok()?;
            answer.await.ok()
        };
        let answer = timeout(ASK_TIMEOUT, answer).await.ok().flatten();
        answer.ok_or_else(busy)
    }

    /// Tells control something that needs no answer. When control has gone, so have all sessions.
    async fn tell(&self, ask: Ask) {
        let _ = self.asks.send(ask).await;
    }

    /// Makes every shard expect the session's client, or tells why one does not.
    async fn expect(
        &self,
        session: RtcId,
        address: SocketAddr,
        pairs: Vec<IcePair>,
    ) -> Result<Result<(), NotExpected>, Problem> {
        self.ask(|reply| Ask::Expect { session, address, pairs, reply }).await
    }

    async fn exchange(&self, request: OriginRequest) -> Result<OriginAnswer, OriginError> {
        exchange(request, self.patience).await
    }

    /// Logs that an origin has failed an offer; a run of failures is one line.
    fn origin_failed(&self, origin: &str, error: &OriginError) {
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held_back) = throttle.pass(Instant::now(), "origin") {
            tracing::warn!(origin, %error, held_back, "an offer has failed at its origin");
        }
    }
}

/// What stands at a path for offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Whip,
    Whep,
    /// SRS's other name of WHEP.
    WhipPlay,
}

impl Endpoint {
    const ALL: [Self; 3] = [Self::Whip, Self::Whep, Self::WhipPlay];

    fn path(self) -> &'static str {
        match self {
            Self::Whip => "/rtc/v1/whip",
            Self::Whep => "/rtc/v1/whep",
            Self::WhipPlay => "/rtc/v1/whip-play",
        }
    }

    /// The endpoint that `path` is at or below, and what stands behind it.
    fn of(path: &str) -> Option<(Self, &str)> {
        Self::ALL.into_iter().find_map(|endpoint| {
            let rest = path.strip_prefix(endpoint.path())?;
            (rest.is_empty() || rest.starts_with('/')).then_some((endpoint, rest))
        })
    }

    fn is_bare(path: &str) -> bool {
        Self::ALL.into_iter().any(|endpoint| endpoint.path() == path)
    }

    /// What an offer is for. SRS takes `action=play` at its path for WHIP.
    fn role(self, query: &str) -> Role {
        let plays = || query.split('&').any(|parameter| parameter == "action=play");
        match self {
            Self::Whip if !plays() => Role::Publish,
            Self::Whip | Self::Whep | Self::WhipPlay => Role::Play,
        }
    }

    /// Of the methods that are about a session, none knows it by this path: its URL is the relay's
    /// own.
    fn methods(self) -> MethodRouter<Arc<Signalling>> {
        let methods = post(offer::post)
            .patch(no_session)
            .delete(no_session)
            .options(|| options_for(ACCEPT_POST, SDP));
        match self {
            Self::Whip => methods,
            Self::Whep | Self::WhipPlay => methods.head(discover),
        }
    }
}

/// Routes `path`, with and without a slash at its end, and everything below it.
fn with_path_below(
    routes: Router<Arc<Signalling>>,
    path: &str,
    methods: MethodRouter<Arc<Signalling>>,
) -> Router<Arc<Signalling>> {
    routes
        .route(path, methods.clone())
        .route(&format!("{path}/"), methods.clone())
        .route(&format!("{path}/{{*rest}}"), methods)
}

/// Lets pages of any site use what `router` answers.
pub(super) fn allow_everywhere(router: Router) -> Router {
    router.layer(map_response(cors::allow))
}

fn busy() -> Problem {
    Problem::unavailable("the relay is stopping or very busy")
}

fn not_expected(reason: NotExpected) -> Problem {
    Problem::unavailable(match reason {
        NotExpected::PairTaken => "another session has the same ICE credentials: try again",
        NotExpected::TooManyPairs => "the session has restarted ICE too often: begin a new one",
        NotExpected::Full => "the relay has as many sessions as it may: try again later",
        NotExpected::Draining => "draining: the relay takes no new sessions",
    })
}

/// Preflight requests carry no credentials, so nobody asks for them.
async fn options_for(name: HeaderName, types: &'static str) -> [(HeaderName, &'static str); 1] {
    [(name, types)]
}

/// What players look for to find out whether there is WHEP (draft-ietf-wish-whep, section 4.1).
async fn discover() -> [(HeaderName, &'static str); 1] {
    [(CONTENT_TYPE, SDP)]
}

async fn no_session() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no such session")
}

/// The path may be a session URL, which is a secret, so it is not repeated. The router adds
/// `Allow`.
async fn method_not_allowed(method: Method) -> Problem {
    let detail = format!("{method} is not for this path: see Allow");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// An answer takes a body, an origin and the shards; and a client that has gone wants none.
pub(super) const MANNERS: Manners =
    Manners { answer_timeout: Duration::from_secs(20), may_half_close: false };
/// In front of the secret of a session URL.
const SESSION: &str = "/rtc/v1/session/";
/// For an answer of control.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Unwanted sessions that are ended at a time.
const FAREWELLS_MAX: usize = 64;
/// Bytes of a request's body.
const BODY_MAX: usize = crate::protocol::sdp::LENGTH_MAX;
const SDP: &str = "application/sdp";
const TRICKLE: &str = "application/trickle-ice-sdpfrag";
const JSON: &str = "application/json";
/// What a session URL takes: trickling, ICE restarts, and the answer to a counter-offer.
const ON_SESSION: &str = "application/trickle-ice-sdpfrag, application/sdp";
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

#[cfg(test)]
mod tests;
