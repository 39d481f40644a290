//! What clients do with a session URL: end the session, trickle candidates, restart ICE, answer a
//! counter-offer.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::HeaderMap;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::answer::{bad_gateway, essence, headers, is, pass_through, unsupported, with_headers};
use super::client::Client;
use super::offer::{bad_answer, bad_offer, credentials};
use super::{ACCEPT_PATCH, BODY_MAX, ON_SESSION, SDP, Signalling, TRICKLE, not_expected};
use crate::control::ask::{Ask, Resource, Token};
use crate::control::http::{Problem, read_body};
use crate::control::origin_client::{OriginAnswer, OriginRequest};
use crate::protocol::ice::{Credentials, IcePair};
use crate::protocol::sdp::{self, PAIRS_MAX};
use crate::shard::command::{EndReason, RtcId};

type TokenPath = Result<Path<String>, PathRejection>;

/// Ends a session, at its origin and here.
pub(super) async fn delete(
    State(signalling): State<Arc<Signalling>>,
    token: TokenPath,
    client: Client,
) -> Result<Response, Problem> {
    let session = Session::find(signalling, token, client).await?;
    // A client may hang up before it has its answer; the session ends all the same.
    tokio::spawn(session.end())
        .await
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the session was not ended"))
}

/// Changes a session.
pub(super) async fn patch(
    State(signalling): State<Arc<Signalling>>,
    token: TokenPath,
    client: Client,
    request: Request,
) -> Result<Response, Problem> {
    let session = Session::find(signalling, token, client).await?;
    let (parts, body) = request.into_parts();
    let is_open = session.resource.client_credentials.is_empty();
    let body = || read_body(&parts.headers, body, BODY_MAX);
    match essence(&parts.headers) {
        Some(kind) if is(kind, TRICKLE) && is_open => {
            let detail = "answer the counter-offer first: PATCH with application/sdp";
            Err(Problem::new(StatusCode::CONFLICT, detail))
        }
        Some(kind) if is(kind, TRICKLE) => session.take_fragment(&body().await?).await,
        Some(kind) if is(kind, SDP) && is_open => session.take_answer(&body().await?).await,
        Some(_) | None => {
            Ok(unsupported((ACCEPT_PATCH, if is_open { ON_SESSION } else { TRICKLE })))
        }
    }
}

/// What a session URL stands for, and who uses it.
struct Session {
    signalling: Arc<Signalling>,
    client: Client,
    id: RtcId,
    resource: Resource,
}

impl Session {
    async fn find(
        signalling: Arc<Signalling>,
        token: TokenPath,
        client: Client,
    ) -> Result<Self, Problem> {
        let unknown = || Problem::new(StatusCode::NOT_FOUND, "there is no such session");
        let Path(token) = token.map_err(|_| unknown())?;
        let ask = |reply| Ask::Resource { token: Token(token.into()), reply };
        let (id, resource) = signalling.ask(ask).await?.ok_or_else(unknown)?;
        Ok(Self { signalling, client, id, resource })
    }

    async fn end(self) -> Response {
        let answer = match &self.resource.target {
            Some(target) => {
                let request = self.request(Method::DELETE, target, None, Bytes::new());
                self.signalling.exchange(request).await.ok()
            }
            None => None,
        };
        let (is_refused, is_done) = answer.as_ref().map_or((false, false), |answer| {
            let forbidden = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
            (forbidden.contains(&answer.status), answer.status.is_success())
        });
        if !is_refused {
            let reason = EndReason::Deleted;
            self.signalling.tell(Ask::Finish { session: self.id, reason }).await;
        }
        match answer {
            Some(answer) if is_refused || is_done => pass_through(answer),
            // The origin is gone or has forgotten the session: for the client it has ended here.
            Some(_) | None => StatusCode::OK.into_response(),
        }
    }

    /// Candidates of the client, which nobody needs, or new credentials (RFC 9725, section 4.3).
    async fn take_fragment(self, body: &[u8]) -> Result<Response, Problem> {
        let fragment = sdp::read_fragment(body).map_err(bad_offer)?;
        let new = sdp::fragment_credentials(fragment)
            .map_err(bad_offer)?
            .filter(|credentials| !self.resource.client_credentials.contains(credentials));
        match self.resource.target.clone().filter(|_| self.resource.takes_patch) {
            Some(target) => {
                let fragment = sdp::fragment_to_origin(fragment).map_err(bad_offer)?;
                let request = self.request(Method::PATCH, &target, Some(TRICKLE), fragment);
                let answer = self.signalling.exchange(request).await?;
                self.pass_fragment(new, answer).await
            }
            None if new.is_some() => {
                let detail = "the origin has no ICE restart: begin a new session";
                Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
            }
            None => Ok(StatusCode::NO_CONTENT.into_response()),
        }
    }

    /// The origin's answer to a fragment: if it has credentials of its own in it, the client will
    /// use them at once.
    async fn pass_fragment(
        mut self,
        new: Option<Credentials>,
        answer: OriginAnswer,
    ) -> Result<Response, Problem> {
        let is_fragment = essence(&answer.headers).is_some_and(|kind| is(kind, TRICKLE));
        if !answer.status.is_success() || !is_fragment {
            return Ok(pass_through(answer));
        }
        let relay = self.signalling.own_addresses(&self.client)?;
        let fragment = sdp::read_fragment(&answer.body).map_err(bad_answer)?;
        let for_client = sdp::fragment_to_client(fragment, &relay).map_err(bad_answer)?;
        let origin = sdp::fragment_credentials(fragment).map_err(bad_answer)?;
        let client = new.or_else(|| self.resource.client_credentials.last().cloned());
        if let (Some(origin), Some(client)) = (origin, client) {
            let is_known = self.resource.origin_credentials.contains(&origin)
                && self.resource.client_credentials.contains(&client);
            if !is_known {
                self.agree(vec![IcePair { origin, client }]).await?;
            }
        }
        let headers = headers(&answer.headers);
        Ok(with_headers(answer.status, headers, Body::from(for_client)))
    }

    /// The client's answer to the origin's counter-offer.
    async fn take_answer(mut self, body: &[u8]) -> Result<Response, Problem> {
        let sdp = sdp::read(body).map_err(bad_offer)?;
        let client = credentials(sdp).map_err(bad_offer)?;
        let to_origin = sdp::to_origin(sdp).map_err(bad_offer)?;
        let Some(target) = self.resource.target.clone() else {
            return Err(bad_gateway("the origin's counter-offer has no session URL"));
        };
        let request = self.request(Method::PATCH, &target, Some(SDP), to_origin);
        let answer = self.signalling.exchange(request).await?;
        if answer.status.is_success() {
            let pairs = pairs_of(&self.resource.origin_credentials, &client);
            if let Err(problem) = self.agree(pairs).await {
                // No media can flow, and there is no second answer.
                tokio::spawn(self.end());
                return Err(problem);
            }
        }
        Ok(pass_through(answer))
    }

    /// Makes every shard expect more pairs, and remembers them.
    async fn agree(&mut self, pairs: Vec<IcePair>) -> Result<(), Problem> {
        let Some(address) = self.resource.address else {
            return Err(bad_gateway("the origin has no UDP endpoint"));
        };
        let expected = self.signalling.expect(self.id, address, pairs.clone()).await?;
        expected.map_err(not_expected)?;
        for IcePair { origin, client } in pairs {
            remember(&mut self.resource.origin_credentials, origin);
            remember(&mut self.resource.client_credentials, client);
        }
        let resource = Box::new(self.resource.clone());
        self.signalling.tell(Ask::Publish { session: self.id, resource }).await;
        Ok(())
    }

    fn request(
        &self,
        method: Method,
        target: &str,
        kind: Option<&'static str>,
        body: impl Into<Bytes>,
    ) -> OriginRequest {
        let Resource { api, host, .. } = self.resource;
        let headers: HeaderMap = self.client.headers(host, api, kind);
        OriginRequest { api, method, target: target.to_owned(), headers, body: body.into() }
    }
}

/// The pairs of a counter-offer and its answer: transport by transport, or, where the answer has
/// bundled what the offer did not, all with the one of the bundle.
fn pairs_of(origin: &[Credentials], client: &[Credentials]) -> Vec<IcePair> {
    let clients = client.iter().chain(client.last().into_iter().cycle());
    let pairs = origin.iter().zip(clients);
    pairs
        .map(|(origin, client)| IcePair { origin: origin.clone(), client: client.clone() })
        .take(PAIRS_MAX)
        .collect()
}

fn remember(known: &mut Vec<Credentials>, credentials: Credentials) {
    if !known.contains(&credentials) {
        known.push(credentials);
        let surplus = known.len().saturating_sub(PAIRS_MAX);
        known.drain(..surplus);
    }
}
