//! The JSON API that SRS had before WHIP and WHEP: offer and answer as members of an object.
//!
//! It has no session URL, so a session ends by silence. Errors of the origin are answers with
//! status 200 and a `code` that is not 0.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value};

use super::answer::{bad_gateway, headers, pass_through, with_headers};
use super::client::Client;
use super::offer::{Exchange, bad_answer, bad_offer, check_path, credentials, with_session_url};
use super::place::Place;
use super::{BODY_MAX, JSON, Signalling};
use crate::control::ask::Offer;
use crate::control::http::{Problem, read_body};
use crate::control::origin_client::OriginAnswer;
use crate::protocol::sdp;
use crate::protocol::stream_url::{StreamKey, from_stream_url, without_denied};
use crate::shard::command::Role;

/// An offer in an object.
pub(super) async fn offer(
    State(signalling): State<Arc<Signalling>>,
    client: Client,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    check_path(&parts.uri)?;
    let relay = signalling.own_addresses(&client)?;
    let body = read_body(&parts.headers, body, BODY_MAX).await?;
    let mut envelope = Envelope::parse(&body)?;
    let stream = envelope.stream(&signalling)?;
    credentials(&envelope.sdp).map_err(bad_offer)?;
    envelope.make_ready(&client)?;

    let path = parts.uri.path();
    let role = if path.starts_with(PLAY) { Role::Play } else { Role::Publish };
    let asked = Offer { stream, role, client: client.ip };
    let (mut place, placement) = Place::take(&signalling, asked).await?;
    let target = target(path, parts.uri.query().unwrap_or(""));
    let headers = client.headers(placement.host, placement.api, Some(JSON));
    let body = Bytes::from(Value::Object(envelope.members).to_string());
    let answer = place.ask_origin(&placement, &target, headers, body).await?;
    Exchange { client, placement, place, target, relay }.answer(&envelope.sdp, answer).await
}

/// As the client asked, without what is not its to choose. SRS redirects from a path without the
/// slash at its end.
fn target(path: &str, query: &str) -> String {
    let slash = if path == PUBLISH || path == PLAY { "/" } else { "" };
    match without_denied(query) {
        query if query.is_empty() => format!("{path}{slash}"),
        query => format!("{path}{slash}?{query}"),
    }
}

struct Envelope {
    members: Map<String, Value>,
    /// The offer as the client wrote it.
    sdp: String,
}

impl Envelope {
    fn parse(body: &[u8]) -> Result<Self, Problem> {
        let wrong = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, detail);
        let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
            return Err(wrong("the body is not a JSON object"));
        };
        let sdp = members.get("sdp").and_then(Value::as_str);
        let sdp = sdp.ok_or_else(|| wrong("`sdp` is missing: it is the offer"))?.to_owned();
        sdp::read(sdp.as_bytes()).map_err(bad_offer)?;
        Ok(Self { members, sdp })
    }

    fn stream(&self, signalling: &Signalling) -> Result<StreamKey, Problem> {
        let url = self.members.get("streamurl").and_then(Value::as_str);
        let key = url.map(|url| from_stream_url(url, &signalling.vhosts));
        match key {
            Some(Ok(key)) => Ok(key),
            Some(Err(error)) => Err(Problem::new(StatusCode::BAD_REQUEST, error.to_string())),
            None => {
                let detail = "`streamurl` is missing: write webrtc://host/app/stream";
                Err(Problem::new(StatusCode::BAD_REQUEST, detail))
            }
        }
    }

    /// Changes what the origin is to see changed; all other members stay.
    fn make_ready(&mut self, client: &Client) -> Result<(), Problem> {
        let sdp = sdp::to_origin(&self.sdp).map_err(bad_offer)?;
        self.members.insert("sdp".to_owned(), Value::String(sdp));
        if let Some(Value::String(ip)) = self.members.get_mut("clientip") {
            *ip = client.ip.to_string();
        }
        if let Some(Value::String(url)) = self.members.get_mut("streamurl")
            && let Some((location, query)) = url.split_once('?')
        {
            let kept = without_denied(query);
            let mark = if kept.is_empty() { "" } else { "?" };
            *url = format!("{location}{mark}{kept}");
        }
        Ok(())
    }
}

impl Exchange {
    async fn answer(mut self, offer: &str, answer: OriginAnswer) -> Result<Response, Problem> {
        let status = answer.status;
        if status.is_client_error() || status.is_server_error() {
            return Ok(pass_through(answer));
        }
        let Ok(Value::Object(mut members)) = serde_json::from_slice(&answer.body) else {
            return Err(bad_gateway("the origin's answer is not a JSON object"));
        };
        if members.get("code").is_some_and(|code| code.as_i64() != Some(0)) {
            members.remove("sdp");
            let headers = headers(&answer.headers);
            let body = Body::from(Value::Object(members).to_string());
            return Ok(with_headers(status, headers, body));
        }
        let of_origin = self.note_session(&answer.headers);
        let Some(Value::String(description)) = members.get_mut("sdp") else {
            return Err(bad_gateway("the origin's answer has no `sdp`"));
        };
        sdp::read(description.as_bytes()).map_err(bad_answer)?;
        let for_client = sdp::to_client(description, &self.relay).map_err(bad_answer)?;
        let agreed = self.expect(offer, description).await?;
        *description = for_client;
        let mut of_client = headers(&answer.headers);
        let resource = match of_origin {
            Some(_) => Some(self.resource(&answer.headers, of_origin, agreed)?),
            None => None,
        };
        if let Some(resource) = &resource {
            of_client = with_session_url(of_client, resource, JSON);
        }
        self.place.begin(resource).await;
        Ok(with_headers(status, of_client, Body::from(Value::Object(members).to_string())))
    }
}

pub(super) const PUBLISH: &str = "/rtc/v1/publish";
pub(super) const PLAY: &str = "/rtc/v1/play";
