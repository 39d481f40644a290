//! One check of an origin: an induction to its SRT listener, or a question to its HTTP API. Both
//! end in time, whatever the origin does, and cost it no state.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{HOST, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode};

use super::health::Sign;
use super::key_length;
use super::origin::Kind;
use super::origin_client::{OriginError, OriginRequest, Patience, exchange};
use super::schedule::{Check, Found};

/// Makes a check.
pub(super) async fn run(check: Check) -> Found {
    match check.kind {
        Kind::Srt => key_length::probe(check.address).await.unwrap_or_else(|error| {
            let origin = check.address;
            tracing::debug!(%origin, %error, "cannot ask the origin's SRT listener");
            Found { result: Err(Sign::Silent), key_length: None }
        }),
        Kind::WebRtc | Kind::Direct => {
            Found { result: ask_version(check.address).await, key_length: None }
        }
    }
}

/// Asks an HTTP API for its version. Any answer is a sign of life, also that there is no such page:
/// origins that are not SRS have none. Only a server that says of itself that it fails is not well.
async fn ask_version(api: SocketAddr) -> Result<(), Sign> {
    let mut headers = HeaderMap::new();
    if let Ok(host) = HeaderValue::try_from(api.to_string()) {
        headers.insert(HOST, host);
    }
    let request = OriginRequest {
        api,
        method: Method::GET,
        target: VERSIONS.to_owned(),
        headers,
        body: Bytes::new(),
    };
    match exchange(request, PATIENCE).await {
        Ok(answer) if fails(answer.status) => Err(Sign::Broken),
        Ok(_) => Ok(()),
        Err(OriginError::Redirect | OriginError::TooLarge | OriginError::Encoded) => Ok(()),
        Err(OriginError::Unreachable) => Err(Sign::Unreachable),
        Err(OriginError::TooSlow(_)) => Err(Sign::Silent),
        Err(OriginError::Closed | OriginError::Malformed | OriginError::Target) => {
            Err(Sign::Broken)
        }
    }
}

/// Some take 501 for a method or a page that they do not know.
fn fails(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

/// SRS answers it without looking at anything.
const VERSIONS: &str = "/api/v1/versions";
/// An origin that needs longer than this to say which version it is takes no live stream in time.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(1), total: Duration::from_secs(2) };

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What a check says of an API that answers with `bytes` and closes.
    async fn asked(bytes: &'static [u8]) -> Result<(), Sign> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let api = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1_024];
            let length = stream.read(&mut buffer).await.unwrap();
            let head = String::from_utf8(buffer[..length].to_vec()).unwrap();
            assert!(head.starts_with("GET /api/v1/versions HTTP/1.1\r\n"), "{head}");
            assert!(head.contains(&api.to_string()), "{head}");
            stream.write_all(bytes).await.unwrap();
        };
        tokio::join!(ask_version(api), server).0
    }

    #[tokio::test]
    async fn any_answer_of_an_api_is_a_sign_of_life_unless_it_says_that_it_fails() {
        for (bytes, result) in [
            (&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"[..], Ok(())),
            (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", Ok(())),
            (b"HTTP/1.1 301 Moved\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", Ok(())),
            (b"HTTP/1.1 503 Down\r\ncontent-length: 0\r\n\r\n", Err(Sign::Broken)),
            (b"220 mail.example\r\n", Err(Sign::Broken)),
            (b"", Err(Sign::Broken)),
        ] {
            assert_eq!(asked(bytes).await, result, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[tokio::test]
    async fn an_api_that_is_gone_or_says_nothing_is_found_out_in_time() {
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (quiet, free) = (silent.local_addr().unwrap(), gone.local_addr().unwrap());
        drop(gone);
        let (silence, refusal) = tokio::join!(ask_version(quiet), ask_version(free));
        assert_eq!((silence, refusal), (Err(Sign::Silent), Err(Sign::Unreachable)));
    }
}
