//! The place of a session that is being signalled: control holds it, and perhaps the origin has
//! begun it. Whatever goes wrong, also a client that hangs up, gives both back.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::header::HOST;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::client::Client;
use super::{ASK_TIMEOUT, Signalling, busy, not_expected};
use crate::control::ask::{Ask, Offer, OfferRefused, Placement, Resource, Token};
use crate::control::http::Problem;
use crate::control::origin_client::{OriginAnswer, OriginError, OriginRequest, Patience, exchange};
use crate::protocol::ice::IcePair;
use crate::shard::command::{EndReason, RtcId};

/// Given back when it is dropped, unless the session has begun.
pub(super) struct Place {
    signalling: Arc<Signalling>,
    session: RtcId,
    stage: Stage,
    /// What ends the session at the origin.
    farewell: Option<OriginRequest>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No shard knows of it.
    Held,
    /// The origin has not answered.
    Unreachable,
    /// Shards may expect it.
    Expected,
    /// It is control's from now on.
    Begun,
}

impl Place {
    /// Asks control for an origin and a place there.
    pub(super) async fn take(
        signalling: &Arc<Signalling>,
        offer: Offer,
    ) -> Result<(Self, Box<Placement>), Problem> {
        // On its own, so that an answer which nobody waits for any more is a place given back.
        let taking = tokio::spawn(Self::take_unhurried(Arc::clone(signalling), Box::new(offer)));
        let taken = timeout(ASK_TIMEOUT, taking).await.ok().and_then(Result::ok).flatten();
        taken.ok_or_else(busy)?.map_err(refusal)
    }

    async fn take_unhurried(
        signalling: Arc<Signalling>,
        offer: Box<Offer>,
    ) -> Option<Result<(Self, Box<Placement>), OfferRefused>> {
        let (reply, answer) = oneshot::channel();
        signalling.asks.send(Ask::Offer { offer, reply }).await.ok()?;
        let placement = answer.await.ok()?;
        Some(placement.map(|placement| {
            let (session, stage) = (placement.session, Stage::Held);
            (Self { signalling, session, stage, farewell: None }, placement)
        }))
    }

    /// Posts an offer to its origin.
    pub(super) async fn ask_origin(
        &mut self,
        placement: &Placement,
        target: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<OriginAnswer, Problem> {
        let request = OriginRequest {
            api: placement.api,
            method: Method::POST,
            target: target.to_owned(),
            headers,
            body,
        };
        self.signalling.exchange(request).await.map_err(|error| {
            self.signalling.origin_failed(&placement.name, &error);
            if matches!(error, OriginError::Unreachable | OriginError::TooSlow(_)) {
                self.stage = Stage::Unreachable;
            }
            error.into()
        })
    }

    /// The origin has begun the session, and knows it by `target`.
    pub(super) fn begun_at_origin(&mut self, client: &Client, placement: &Placement, target: &str) {
        self.farewell = Some(OriginRequest {
            api: placement.api,
            method: Method::DELETE,
            target: target.to_owned(),
            headers: client.headers(placement.host, placement.api, None),
            body: Bytes::new(),
        });
    }

    /// Makes every shard expect the client.
    pub(super) async fn expect(
        &mut self,
        address: SocketAddr,
        pairs: Vec<IcePair>,
    ) -> Result<(), Problem> {
        self.stage = Stage::Expected;
        self.signalling.expect(self.session, address, pairs).await?.map_err(|reason| {
            self.stage = Stage::Held;
            not_expected(reason)
        })
    }

    /// The session begins; `resource` is what stands behind its URL, if it has one.
    pub(super) async fn begin(mut self, resource: Option<Resource>) {
        if let Some(resource) = resource {
            let resource = Box::new(resource);
            self.signalling.tell(Ask::Publish { session: self.session, resource }).await;
        }
        self.stage = Stage::Begun;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.stage == Stage::Begun {
            return;
        }
        // Without a runtime the process ends, and control's state with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let session = self.session;
        let ask = match self.stage {
            Stage::Held => Ask::Abandon { session },
            Stage::Unreachable => Ask::Unreachable { session },
            Stage::Expected | Stage::Begun => {
                Ask::Finish { session, reason: EndReason::NeverValidated }
            }
        };
        let (signalling, farewell) = (Arc::clone(&self.signalling), self.farewell.take());
        runtime.spawn(async move {
            signalling.tell(ask).await;
            signalling.say_farewell(farewell).await;
        });
    }
}

impl Signalling {
    /// Ends a session at its origin that nobody here wants, if there is time for it: the origin
    /// would find out by itself, later.
    async fn say_farewell(&self, farewell: Option<OriginRequest>) {
        let Some(farewell) = farewell else { return };
        let Ok(_turn) = self.farewells.try_acquire() else { return };
        if let Err(error) = self.exchange(farewell).await {
            tracing::debug!(%error, "an unwanted session was not ended at its origin");
        }
    }
}

/// Ends at its origin a session that is over here, if the origin lets the relay do so: it has not
/// what the client is authorized by.
pub(in crate::control) async fn end_at_origin(resource: Resource) {
    let Resource { api, target: Some(target), .. } = resource else { return };
    let mut headers = HeaderMap::new();
    if let Ok(host) = HeaderValue::try_from(api.to_string()) {
        headers.insert(HOST, host);
    }
    let request =
        OriginRequest { api, method: Method::DELETE, target, headers, body: Bytes::new() };
    if let Err(error) = exchange(request, Patience::default()).await {
        tracing::debug!(%error, "a session that is over was not ended at its origin");
    }
}

/// The secret of a new session URL: 160 random bits.
pub(super) fn new_token() -> Result<Token, Problem> {
    let mut bytes = [0; 20];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|_| Problem::unavailable("the kernel has no random bytes"))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Token(text.into()))
}

fn refusal(refused: OfferRefused) -> Problem {
    match refused {
        OfferRefused::Draining => Problem::unavailable("draining: the relay takes no new sessions"),
        OfferRefused::NoOrigin => Problem::unavailable("no live origin takes WebRTC"),
        OfferRefused::Limit(_) => {
            Problem::unavailable("the relay has as many sessions as it may: try again later")
        }
        OfferRefused::Rate => {
            let detail = "too many requests from this address: try again later";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
        }
    }
}
