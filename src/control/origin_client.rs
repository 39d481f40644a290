//! HTTP/1.1 to origins: one connection per request, with a bound on everything.
//!
//! It connects to the address it is given and nowhere else: it follows no redirect, resolves no
//! name and asks no proxy. An exchange whose future is dropped is cancelled with its connection.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HeaderMap, HeaderValue};
use axum::http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What an origin is asked.
#[derive(Clone)]
pub(super) struct OriginRequest {
    /// Its HTTP API.
    pub(super) api: SocketAddr,
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    /// With `Host`.
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What it answered, whatever the status; but never a redirect.
pub(super) struct OriginAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// How long an exchange may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// To connect.
    pub(super) connect: Duration,
    /// In all.
    pub(super) total: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), total: Duration::from_secs(10) }
    }
}

/// Asks an origin and waits for its whole answer.
pub(super) async fn exchange(
    request: OriginRequest,
    patience: Patience,
) -> Result<OriginAnswer, OriginError> {
    let answer = timeout(patience.total, unbounded(request, patience.connect)).await;
    answer.unwrap_or(Err(OriginError::TooSlow(patience.total)))
}

async fn unbounded(
    request: OriginRequest,
    connect_timeout: Duration,
) -> Result<OriginAnswer, OriginError> {
    let stream = match timeout(connect_timeout, TcpStream::connect(request.api)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) | Err(_) => return Err(OriginError::Unreachable),
    };
    // A wish, not a need.
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEADER_MAX)
        .max_headers(HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| OriginError::Closed)?;
    let request = to_http(request)?;
    let mut answer = pin!(async {
        let response = sender.send_request(request).await.map_err(|error| of_hyper(&error))?;
        read(response).await
    });
    tokio::select! {
        answer = &mut answer => return answer,
        // Origins close behind their answer, which may still have to be read to its end.
        _ = connection => {}
    }
    answer.await
}

fn to_http(request: OriginRequest) -> Result<Request<Full<Bytes>>, OriginError> {
    let OriginRequest { api: _, method, target, headers, body } = request;
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .body(Full::new(body))
        .map_err(|_| OriginError::Target)?;
    *request.headers_mut() = headers;
    let headers = request.headers_mut();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

async fn read(
    response: hyper::Response<hyper::body::Incoming>,
) -> Result<OriginAnswer, OriginError> {
    let (parts, body) = response.into_parts();
    let (status, headers) = (parts.status, parts.headers);
    if status.is_redirection() {
        return Err(OriginError::Redirect);
    }
    let is_encoded = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().any(is_encoded) {
        return Err(OriginError::Encoded);
    }
    match Limited::new(body, BODY_MAX).collect().await {
        Ok(body) => Ok(OriginAnswer { status, headers, body: body.to_bytes() }),
        Err(error) if error.is::<LengthLimitError>() => Err(OriginError::TooLarge),
        Err(error) => Err(error.downcast_ref().map_or(OriginError::Closed, of_hyper)),
    }
}

fn of_hyper(error: &hyper::Error) -> OriginError {
    if error.is_parse_too_large() {
        OriginError::TooLarge
    } else if error.is_parse() {
        OriginError::Malformed
    } else {
        OriginError::Closed
    }
}

/// Why there is no answer. Clients read these texts, so they name no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OriginError {
    #[error("the origin cannot be reached")]
    Unreachable,
    #[error("the origin has not answered within {0:?}")]
    TooSlow(Duration),
    /// SRS does so on any error.
    #[error("the origin has closed the connection before its answer was complete")]
    Closed,
    #[error("the origin's answer is not HTTP")]
    Malformed,
    #[error("the origin's answer is too large")]
    TooLarge,
    #[error("the origin's answer is compressed, which it was not asked for")]
    Encoded,
    #[error("the origin redirects, and redirects are not followed")]
    Redirect,
    #[error("the path cannot be asked for at the origin")]
    Target,
}

/// Bytes of an answer's body.
pub(super) const BODY_MAX: usize = 128 * 1024;
/// Bytes of its status line and headers.
const HEADER_MAX: usize = 16 * 1024;
/// Headers of an answer.
const HEADERS_MAX: usize = 100;
