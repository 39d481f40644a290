//! HTTP connections, with TLS and without: how many, how long, how large, and how errors look (RFC 9457).

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, SERVER,
    WWW_AUTHENTICATE,
};
use axum::http::request::Parts;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::connections::{Connections, Seat};
use super::tls::Tls;
use crate::telemetry::log::Throttle;

/// Takes connections for ever.
pub(super) async fn serve(
    listener: TcpListener,
    mut tls: Option<Tls>,
    router: Router,
    connections: Arc<Connections>,
    manners: Manners,
) {
    let mut throttle = Throttle::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(seat) = connections.seat().await else {
                    return;
                };
                let tls = tls.as_mut().map(|tls| tls.acceptor(Instant::now()));
                let scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
                let Ok(local) = stream.local_addr() else {
                    continue;
                };
                let ends =
                    Ends { peer: Peer(canonical(peer)), local: Local(canonical(local)), scheme };
                tokio::spawn(connection(stream, ends, tls, router.clone(), seat, manners));
            }
            // The client has given up (ECONNABORTED), or no descriptor is left (EMFILE); the next
            // one may do better.
            Err(error) => {
                if let Some(held_back) = throttle.pass(Instant::now(), "accept") {
                    tracing::warn!(%error, held_back, "cannot accept an HTTP connection");
                }
                sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
}

/// How the connections of one listener are treated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    /// For an answer, since the headers.
    pub(super) answer_timeout: Duration,
    /// Whether a client that says that nothing follows still waits for its answer, as simple ones
    /// do. Where it does not, it has gone, and what it asked for is cancelled.
    pub(super) may_half_close: bool,
}

impl Manners {
    /// For answers that are at hand.
    pub(super) const PROMPT: Self = Self { answer_timeout: REQUEST_TIMEOUT, may_half_close: true };
}

async fn connection(
    stream: TcpStream,
    ends: Ends,
    tls: Option<TlsAcceptor>,
    router: Router,
    seat: Seat,
    manners: Manners,
) {
    // A peer that takes nothing must not keep its answer in our memory. Both options are a wish,
    // not a need.
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(REQUEST_TIMEOUT));
    let _ = stream.set_nodelay(true);
    let served = async {
        let Some(tls) = tls else {
            return requests(stream, ends, router, &seat, manners).await;
        };
        match timeout(REQUEST_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => requests(stream, ends, router, &seat, manners).await,
            Ok(Err(error)) => tracing::debug!(%ends, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%ends, "no TLS handshake within {REQUEST_TIMEOUT:?}"),
        }
    };
    tokio::select! {
        () = served => {}
        () = seat.dismissed() => {
            tracing::debug!(%ends, "HTTP connection dismissed: others need its place");
        }
    }
}

/// One request after the other, until either side has had enough.
async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    ends: Ends,
    router: Router,
    seat: &Seat,
    manners: Manners,
) {
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        seat.begin();
        let extensions = request.extensions_mut();
        extensions.insert(ends.peer);
        extensions.insert(ends.local);
        extensions.insert(ends.scheme);
        let response = bounded(inner.call(request), manners.answer_timeout);
        async move {
            let mut response = response.await;
            if seat.finish() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .half_close(manners.may_half_close)
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_header_size(HEADER_MAX)
        .max_buf_size(HEADER_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%ends, %error, "HTTP connection ended early");
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

async fn bounded(
    response: impl Future<Output = Result<Response, Infallible>>,
    answer_timeout: Duration,
) -> Response {
    let mut response = match timeout(answer_timeout, response).await {
        Ok(Ok(response)) => response,
        Err(_) => {
            let detail = format!("no answer within {answer_timeout:?}");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response()
        }
    };
    let server = concat!("Ringway/", env!("CARGO_PKG_VERSION"));
    response.headers_mut().insert(SERVER, HeaderValue::from_static(server));
    response
}

/// Reads a body of at most `max` bytes.
pub(super) async fn read_body(
    headers: &HeaderMap,
    body: Body,
    max: usize,
) -> Result<Bytes, Problem> {
    use axum::http::header::CONTENT_LENGTH;
    use http_body_util::{BodyExt, LengthLimitError, Limited};

    let too_large = || {
        let detail = format!("the body has more than {max} bytes: send less");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if announced.and_then(|length| length.parse::<usize>().ok()).is_some_and(|length| length > max)
    {
        return Err(too_large());
    }
    match timeout(BODY_TIMEOUT, Limited::new(body, max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            Err(Problem::new(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}")))
        }
        Err(_) => {
            let detail = format!("the body was not complete within {BODY_TIMEOUT:?}");
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
        }
    }
}

/// Both ends of a connection, and what is spoken between them. Requests carry each as an extension.
#[derive(Clone, Copy)]
struct Ends {
    peer: Peer,
    local: Local,
    scheme: Scheme,
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}://{}", self.peer.0, self.scheme.as_str(), self.local.0)
    }
}

/// How the connection came that a request was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// As `X-Forwarded-Proto` has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Who asks. IPv4 is never mapped into IPv6.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let unknown = || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the peer is unknown");
        parts.extensions.get().copied().ok_or_else(unknown)
    }
}

/// Where the connection was accepted. IPv4 is never mapped into IPv6.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local(pub(super) SocketAddr);

impl<S: Sync> FromRequestParts<S> for Local {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let unknown = || {
            let detail = "the relay does not know where it was reached";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
        };
        parts.extensions.get().copied().ok_or_else(unknown)
    }
}

/// Whether the request carries `token` as its bearer token (RFC 6750, section 2.1). How long it
/// takes does not depend on how much of it is right.
pub(super) fn has_token(headers: &HeaderMap, token: &SecretString) -> bool {
    let offered = headers
        .get(AUTHORIZATION)
        .map(HeaderValue::as_bytes)
        .and_then(|value| value.split_at_checked(BEARER.len()))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(BEARER))
        .map(|(_, token)| token.trim_ascii());
    offered.is_some_and(|offered| offered.ct_eq(token.expose_secret().as_bytes()).into())
}

/// An error as the client sees it.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    /// What was wrong, and what to do about it.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Nobody is there to answer.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Document {
            r#type: &'static str,
            title: &'static str,
            status: u16,
            detail: String,
        }
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: self.detail,
        };
        let mut response = (self.status, axum::Json(document)).into_response();
        let headers = response.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, problem);
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Connections at a time, of all listeners together.
pub(super) const CONNECTIONS_MAX: usize = 1_000;
/// Bytes of request line and headers.
const HEADER_MAX: usize = 16 * 1024;
/// For headers, and again for the answer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// For a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failed accept.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
const BEARER: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
        headers
    }

    #[test]
    fn only_the_right_bearer_token_is_one() {
        let token = SecretString::from("s3cret");
        for right in ["Bearer s3cret", "bearer s3cret", "Bearer  s3cret "] {
            assert!(has_token(&headers(right), &token), "{right}");
        }
        for wrong in
            ["s3cret", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret"]
        {
            assert!(!has_token(&headers(wrong), &token), "{wrong}");
        }
        assert!(!has_token(&HeaderMap::new(), &token));
    }

    #[tokio::test]
    async fn a_body_above_its_maximum_is_refused_whether_announced_or_not() {
        let body = || Body::from(vec![0; 11]);
        let announced = HeaderMap::from_iter([(
            axum::http::header::CONTENT_LENGTH,
            HeaderValue::from_static("11"),
        )]);
        for headers in [announced, HeaderMap::new()] {
            let problem = read_body(&headers, body(), 10).await.unwrap_err();
            assert_eq!(problem.status, StatusCode::PAYLOAD_TOO_LARGE);
            assert_eq!(read_body(&headers, body(), 11).await.unwrap().len(), 11);
        }
    }
}
