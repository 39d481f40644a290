//! POST of an offer: what an origin's answer makes of it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{ETAG, HeaderMap, HeaderValue, LOCATION};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use super::answer::{bad_gateway, essence, headers, is, pass_through, unsupported, with_headers};
use super::client::Client;
use super::place::{Place, new_token};
use super::{ACCEPT_PATCH, ACCEPT_POST, BODY_MAX, Endpoint, SDP, SESSION, Signalling, target};
use crate::control::ask::{Offer, Placement, Resource};
use crate::control::http::{Problem, read_body};
use crate::control::origin_client::OriginAnswer;
use crate::protocol::ice::{Credentials, IcePair};
use crate::protocol::sdp::{self, SdpError};
use crate::protocol::stream_url::{StreamKey, from_whip};
use crate::shard::command::Role;

/// An offer of WHIP or WHEP.
pub(super) async fn post(
    State(signalling): State<Arc<Signalling>>,
    client: Client,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    if !essence(&parts.headers).is_some_and(|kind| is(kind, SDP)) {
        return Ok(unsupported((ACCEPT_POST, SDP)));
    }
    check_path(&parts.uri)?;
    let relay = signalling.own_addresses(&client)?;
    let (role, stream) = wanted(&signalling, &client, &parts.uri)?;
    let body = read_body(&parts.headers, body, BODY_MAX).await?;
    let offer = sdp::read(&body).map_err(bad_offer)?;
    credentials(offer).map_err(bad_offer)?;
    let to_origin = Bytes::from(sdp::to_origin(offer).map_err(bad_offer)?);

    let asked = Offer { stream: stream.clone(), role, client: client.ip };
    let (mut place, placement) = Place::take(&signalling, asked).await?;
    let target = target::of_offer(&parts.uri, role, &stream, placement.path.as_deref());
    let headers = client.headers(placement.host, placement.api, Some(SDP));
    let answer = place.ask_origin(&placement, &target, headers, to_origin).await?;
    let exchange = Exchange { client, placement, place, target, relay };
    match answer.status {
        StatusCode::OK | StatusCode::CREATED => exchange.accept(offer, answer).await,
        StatusCode::NOT_ACCEPTABLE if role == Role::Play && is_sdp(&answer) => {
            exchange.counter(answer).await
        }
        status if status.is_client_error() || status.is_server_error() => Ok(pass_through(answer)),
        status => Err(bad_gateway(format!("the origin has answered the offer with {status}"))),
    }
}

/// Refuses a path that would be another one at the origin.
pub(super) fn check_path(uri: &Uri) -> Result<(), Problem> {
    let is_another = target::has_dot_segment(uri.path());
    let bad = || Problem::new(StatusCode::BAD_REQUEST, "the path has a segment of dots alone");
    if is_another { Err(bad()) } else { Ok(()) }
}

fn wanted(
    signalling: &Signalling,
    client: &Client,
    uri: &Uri,
) -> Result<(Role, StreamKey), Problem> {
    let not_found = || Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path");
    let (endpoint, rest) = Endpoint::of(uri.path()).ok_or_else(not_found)?;
    let query = uri.query().unwrap_or("");
    let host = client.host.as_ref().and_then(|host| host.to_str().ok());
    let stream = from_whip(rest, query, host, &signalling.vhosts)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok((endpoint.role(query), stream))
}

fn is_sdp(answer: &OriginAnswer) -> bool {
    essence(&answer.headers).is_some_and(|kind| is(kind, SDP))
}

/// One end's credentials in a description of its own, one per transport.
pub(super) fn credentials(sdp: &str) -> Result<Vec<Credentials>, SdpError> {
    match sdp::pairs(sdp, sdp) {
        Ok(pairs) => Ok(pairs.into_iter().map(|pair| pair.client).collect()),
        Err(SdpError::NoCredentials { .. }) => {
            Err(SdpError::NoCredentials { description: "session description" })
        }
        Err(error) => Err(error),
    }
}

pub(super) fn bad_offer(error: SdpError) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, error.to_string())
}

pub(super) fn bad_answer(error: SdpError) -> Problem {
    bad_gateway(format!("the origin's answer cannot be used: {error}"))
}

/// An offer that an origin has answered.
pub(super) struct Exchange {
    pub(super) client: Client,
    pub(super) placement: Box<Placement>,
    pub(super) place: Place,
    /// Where the offer was posted to.
    pub(super) target: String,
    /// The relay's own addresses.
    pub(super) relay: Vec<SocketAddr>,
}

impl Exchange {
    async fn accept(mut self, offer: &str, answer: OriginAnswer) -> Result<Response, Problem> {
        let of_origin = self.note_session(&answer.headers);
        let description = sdp::read(&answer.body).map_err(bad_answer)?;
        let for_client = sdp::to_client(description, &self.relay).map_err(bad_answer)?;
        let credentials = self.expect(offer, description).await?;
        let resource = self.resource(&answer.headers, of_origin, credentials)?;
        let headers = with_session_url(headers(&answer.headers), &resource, SDP);
        self.place.begin(Some(resource)).await;
        // The relay has created a resource of its own even where the origin says 200, and there
        // are publishers that take nothing but 201.
        Ok(with_headers(StatusCode::CREATED, headers, Body::from(for_client)))
    }

    /// The origin has made an offer of its own, which the client may answer by PATCH
    /// (draft-ietf-wish-whep, section 4.3).
    async fn counter(mut self, answer: OriginAnswer) -> Result<Response, Problem> {
        let of_origin = self.note_session(&answer.headers);
        if of_origin.is_none() {
            return Err(bad_gateway("the origin's counter-offer has no session URL"));
        }
        let description = sdp::read(&answer.body).map_err(bad_answer)?;
        let for_client = sdp::to_client(description, &self.relay).map_err(bad_answer)?;
        let origin = credentials(description).map_err(bad_answer)?;
        let address = self.media_address(description)?;
        self.place.expect(address, Vec::new()).await?;
        let credentials = Agreed { address, origin, client: Vec::new() };
        let mut resource = self.resource(&answer.headers, of_origin, credentials)?;
        resource.takes_patch = true;
        let headers = with_session_url(headers(&answer.headers), &resource, SDP);
        self.place.begin(Some(resource)).await;
        Ok(with_headers(answer.status, headers, Body::from(for_client)))
    }

    /// Finds the session's URL at the origin, and remembers to end it there if it does not begin.
    pub(super) fn note_session(&mut self, of_origin: &HeaderMap) -> Option<String> {
        let Placement { api, host, .. } = *self.placement;
        let host = self.client.host_for(host, api);
        let location = of_origin.get(LOCATION)?;
        let session = target::of_session(location, &self.target, api, host.as_ref())?;
        self.place.begun_at_origin(&self.client, &self.placement, &session);
        Some(session)
    }

    /// Makes every shard expect the client that offer and answer are about.
    pub(super) async fn expect(&mut self, offer: &str, answer: &str) -> Result<Agreed, Problem> {
        if sdp::is_tcp_only(answer) {
            let detail = "the origin takes WebRTC over TCP only: let it listen on UDP, too";
            return Err(bad_gateway(detail));
        }
        let pairs = sdp::pairs(offer, answer).map_err(bad_answer)?;
        let address = self.media_address(answer)?;
        let (origin, client) =
            pairs.iter().cloned().map(|IcePair { origin, client }| (origin, client)).unzip();
        self.place.expect(address, pairs).await?;
        Ok(Agreed { address, origin, client })
    }

    /// Where media goes: the registered endpoint, for the origin itself may not know how it is
    /// reached. Without one its answer counts, if that names the origin's own address.
    fn media_address(&self, answer: &str) -> Result<SocketAddr, Problem> {
        let named = || sdp::first_udp_host(answer).filter(|it| it.ip() == self.placement.api.ip());
        self.placement.rtc.or_else(named).ok_or_else(|| {
            bad_gateway("the origin has no UDP endpoint: name it with rtc= of --origin")
        })
    }

    /// What stands behind the session's URL.
    pub(super) fn resource(
        &self,
        of_origin: &HeaderMap,
        session: Option<String>,
        Agreed { address, origin, client }: Agreed,
    ) -> Result<Resource, Problem> {
        let says_so = of_origin.contains_key(ETAG) || of_origin.contains_key(ACCEPT_PATCH);
        let takes_patch = session.as_deref().is_some_and(|session| {
            !target::is_of_srs(session) && (says_so || self.placement.path.is_some())
        });
        Ok(Resource {
            token: new_token()?,
            api: self.placement.api,
            host: self.placement.host,
            target: session,
            takes_patch,
            address: Some(address),
            origin_credentials: origin,
            client_credentials: client,
        })
    }
}

/// What offer and answer have agreed on.
pub(super) struct Agreed {
    address: SocketAddr,
    origin: Vec<Credentials>,
    client: Vec<Credentials>,
}

/// The headers of an answer that has a session URL and a body of type `kind`.
pub(super) fn with_session_url(
    mut headers: HeaderMap,
    resource: &Resource,
    kind: &'static str,
) -> HeaderMap {
    use axum::http::header::CONTENT_TYPE;
    if let Ok(location) = HeaderValue::try_from(format!("{SESSION}{}", resource.token.0)) {
        headers.insert(LOCATION, location);
    }
    // With its parameters, if it is what it should be.
    if !essence(&headers).is_some_and(|essence| is(essence, kind)) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    headers
}
