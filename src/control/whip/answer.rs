//! What of an origin's answer reaches the client.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LINK, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use axum::response::{IntoResponse, Response};

use super::{ACCEPT_PATCH, ACCEPT_POST, SDP, TRICKLE};
use crate::control::http::Problem;
use crate::control::origin_client::{OriginAnswer, OriginError};

/// The headers of an origin's answer that mean something to the client. All others, its session
/// URL among them, are about its own connection or its own address.
pub(super) fn headers(of_origin: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in KEPT {
        for value in of_origin.get_all(&name) {
            kept.append(name.clone(), value.clone());
        }
    }
    for links in of_origin.get_all(LINK).iter().filter_map(|links| links.to_str().ok()) {
        for link in links_in(links).into_iter().filter(|link| is_ice_server(link)) {
            if let Ok(link) = HeaderValue::from_str(link) {
                kept.append(LINK, link);
            }
        }
    }
    kept
}

/// An answer that makes no session, as it is.
pub(super) fn pass_through(answer: OriginAnswer) -> Response {
    let mut headers = headers(&answer.headers);
    // What describes a session names addresses and passwords; nobody has a use for it here.
    let body = match essence(&answer.headers) {
        Some(kind) if is(kind, SDP) || is(kind, TRICKLE) => {
            headers.remove(CONTENT_TYPE);
            Body::empty()
        }
        Some(_) | None => Body::from(answer.body),
    };
    with_headers(answer.status, headers, body)
}

/// A response of parts.
pub(super) fn with_headers(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The media type of a body, without its parameters.
pub(super) fn essence(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split_once(';').map_or(value, |(essence, _parameters)| essence).trim())
}

/// Whether two media types are the same.
pub(super) fn is(essence: &str, other: &str) -> bool {
    essence.eq_ignore_ascii_case(other)
}

impl From<OriginError> for Problem {
    fn from(error: OriginError) -> Self {
        let status = match error {
            OriginError::TooSlow(_) => StatusCode::GATEWAY_TIMEOUT,
            OriginError::Target => StatusCode::BAD_REQUEST,
            OriginError::Unreachable
            | OriginError::Closed
            | OriginError::Malformed
            | OriginError::TooLarge
            | OriginError::Encoded
            | OriginError::Redirect => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, error.to_string())
    }
}

/// The origin has answered something that cannot be used.
pub(super) fn bad_gateway(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, detail)
}

/// A type that is not taken here, and which is (RFC 5789, section 2.2, and RFC 7694).
pub(super) fn unsupported(allowed: (HeaderName, &'static str)) -> Response {
    let (name, types) = allowed;
    let problem =
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("send Content-Type: {types}"));
    ([(name, HeaderValue::from_static(types))], problem).into_response()
}

/// The links in one header (RFC 8288, section 3): commas part them, but not inside `<>` and quotes.
fn links_in(header: &str) -> Vec<&str> {
    let (mut links, mut begin) = (Vec::new(), 0);
    let (mut is_in_target, mut is_quoted, mut is_escaped) = (false, false, false);
    for (at, byte) in header.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' if !is_in_target => is_quoted = !is_quoted,
            b'<' if !is_quoted => is_in_target = true,
            b'>' if !is_quoted => is_in_target = false,
            b',' if !is_quoted && !is_in_target => {
                links.extend(header.get(begin..at));
                begin = at + 1;
            }
            _ => {}
        }
    }
    links.extend(header.get(begin..));
    links.into_iter().map(str::trim).filter(|link| !link.is_empty()).collect()
}

/// Whether a link names a STUN or TURN server (RFC 9725, section 4.6). Links of extensions lead to
/// paths at the origin that are none here.
fn is_ice_server(link: &str) -> bool {
    let Some((target, parameters)) = link.strip_prefix('<').and_then(|link| link.split_once('>'))
    else {
        return false;
    };
    let scheme = target.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_server =
        ["stun", "stuns", "turn", "turns"].iter().any(|it| scheme.eq_ignore_ascii_case(it));
    let is_rel = |parameter: &str| {
        parameter.split_once('=').is_some_and(|(name, value)| {
            let relation = value.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel") && relation.eq_ignore_ascii_case("ice-server")
        })
    };
    is_server && parameters.split(';').any(is_rel)
}

const KEPT: [HeaderName; 8] = [
    CONTENT_TYPE,
    ETAG,
    ACCEPT_PATCH,
    ACCEPT_POST,
    HeaderName::from_static("id"),
    CACHE_CONTROL,
    RETRY_AFTER,
    WWW_AUTHENTICATE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_links_only_ice_servers_are_kept() {
        let mut of_origin = HeaderMap::new();
        let links = r#"<stun:stun.example>; rel="ice-server", </sse>; rel="urn:ietf:params:whep:ext:core:server-sent-events", <turn:turn.example?transport=udp>; rel=ice-server; username="a,b"; credential="x\",\"y""#;
        of_origin.append(LINK, HeaderValue::from_static(links));
        let other = r#"<https://origin/>; rel="ice-server", , <stun:no-rel>"#;
        of_origin.append(LINK, HeaderValue::from_static(other));
        let kept = headers(&of_origin);
        let kept: Vec<_> = kept.get_all(LINK).iter().map(|link| link.to_str().unwrap()).collect();
        let turn = r#"<turn:turn.example?transport=udp>; rel=ice-server; username="a,b"; credential="x\",\"y""#;
        assert_eq!(kept, [r#"<stun:stun.example>; rel="ice-server""#, turn]);
    }

    #[test]
    fn what_is_about_the_origins_own_connection_stays_there() {
        let mut of_origin = HeaderMap::new();
        for name in ["location", "server", "connection", "transfer-encoding", "content-length"] {
            let name = HeaderName::from_static(name);
            of_origin.insert(name, HeaderValue::from_static("x"));
        }
        of_origin.insert("access-control-allow-origin", HeaderValue::from_static("*"));
        of_origin.insert("set-cookie", HeaderValue::from_static("a=b"));
        assert!(headers(&of_origin).is_empty());
        of_origin.insert(ETAG, HeaderValue::from_static("*"));
        of_origin.insert("id", HeaderValue::from_static("7"));
        let kept = headers(&of_origin);
        assert_eq!(
            (kept.len(), &kept[ETAG], &kept["id"]),
            (2, &HeaderValue::from_static("*"), &HeaderValue::from_static("7"))
        );
    }

    #[test]
    fn the_essence_of_a_type_has_no_parameters() {
        let of = |value| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            essence(&headers).map(str::to_owned)
        };
        assert_eq!(of("application/sdp; charset=utf-8").as_deref(), Some("application/sdp"));
        assert_eq!(of("application/sdp").as_deref(), Some("application/sdp"));
        assert_eq!(essence(&HeaderMap::new()), None);
    }
}
