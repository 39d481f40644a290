//! Questions to a running relay: one request to its system API, shown as a table, as a sentence or
//! as the JSON that came.

use std::fmt;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Body as _;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::net::TcpStream;

use super::drain::{self, Goal};
use super::{output, report, tables};
use crate::config::BadValue;

/// One question, and whom to ask.
#[derive(Debug)]
pub struct ClientCommand {
    pub(super) api: Api,
    pub(super) token: Option<SecretString>,
    pub(super) question: Question,
    /// Whether the answer is printed as it came.
    pub(super) is_json: bool,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Sessions,
    Session(String),
    Origins,
    Streams,
    /// And to wait until its goal is reached.
    Drain(Goal),
    Undrain,
}

impl Question {
    /// One session. Its ID becomes part of a path.
    pub(super) fn session(id: &str) -> Result<Self, BadValue> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:~".contains(&byte);
        if !id.bytes().all(plain) || ["", ".", ".."].contains(&id) {
            let problem = "is not the ID of a session";
            return Err(BadValue::new(id, problem, "one that `ringway sessions` shows"));
        }
        Ok(Self::Session(id.to_owned()))
    }

    fn method(&self) -> Method {
        match self {
            Self::Sessions | Self::Session(_) | Self::Origins | Self::Streams => Method::GET,
            Self::Drain(_) | Self::Undrain => Method::POST,
        }
    }

    fn path(&self) -> String {
        match self {
            Self::Sessions => "/api/v1/sessions".to_owned(),
            Self::Session(id) => format!("/api/v1/sessions/{id}"),
            Self::Origins => "/api/v1/origins".to_owned(),
            Self::Streams => "/api/v1/streams".to_owned(),
            Self::Drain(goal) => goal.path(),
            Self::Undrain => "/api/v1/undrain".to_owned(),
        }
    }
}

/// Where a relay's system API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Api {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
}

impl Api {
    /// Reads `http://HOST:PORT`; the scheme may be left out, and so may port 80.
    pub(super) fn parse(text: &str) -> Result<Self, BadValue> {
        let bad =
            |problem: &str| BadValue::new(text, problem, format!("a URL such as {API_DEFAULT}"));
        let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url: Uri = url.parse().map_err(|_| bad("is not a URL"))?;
        match url.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(bad("asks for TLS, which the system API does not speak")),
            Some(_) | None => return Err(bad("is not the URL of an HTTP API")),
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(bad("has a path, and the API's paths are fixed"));
        }
        let host = url.host().filter(|host| !host.is_empty()).ok_or_else(|| bad("has no host"))?;
        let authority = url.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err(bad("holds a user name, and the API takes a token"));
        }
        if authority != host && url.port_u16().is_none_or(|port| port == 0) {
            return Err(bad("has no port from 1 to 65535"));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: url.port_u16().unwrap_or(80) })
    }
}

impl Default for Api {
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), port: 12025 }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("no connection to {api} (is ringway running? --api names another)")]
    Connect { api: Api, source: io::Error },
    #[error("{api} has not answered within {} s", TIMEOUT.as_secs())]
    Timeout { api: Api },
    #[error("{api} does not answer as an HTTP server (is it the system API? --api names another)")]
    Http { api: Api, source: hyper::Error },
    #[error("the answer of {api} broke off")]
    Body { api: Api, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the answer of {api} is larger than {} MiB", ANSWER_MAX >> 20)]
    TooLarge { api: Api },
    #[error("{api} refuses: {reason}{advice}")]
    Refused { api: Api, reason: String, advice: &'static str },
    #[error("the answer of {api} is not the JSON of a relay (is it the system API?)")]
    Json { api: Api, source: serde_json::Error },
    #[error("start a runtime for a request")]
    Runtime(#[source] io::Error),
    #[error("the answer of {api} does not say how many sessions are left (is it the system API?)")]
    NoProgress { api: Api },
    #[error("{api} is no longer draining: somebody has taken it back")]
    Undrained { api: Api },
    #[error(
        "{sessions} session{} left after --deadline {deadline}, and the relay goes on draining",
        if *sessions == 1 { " is" } else { "s are" }
    )]
    DeadlinePassed { sessions: u64, deadline: String },
}

impl ClientCommand {
    /// Asks, and prints the answer on standard output.
    pub fn run(&self) -> ExitCode {
        let outcome = match &self.question {
            Question::Drain(goal) => drain::run(self, goal),
            Question::Sessions
            | Question::Session(_)
            | Question::Origins
            | Question::Streams
            | Question::Undrain => {
                self.ask().and_then(|answer| self.text(&answer)).map(|text| output(&text))
            }
        };
        outcome.unwrap_or_else(|error| {
            report(&error);
            ExitCode::FAILURE
        })
    }

    /// The body of a successful answer.
    fn ask(&self) -> Result<Bytes, ClientError> {
        runtime()?.block_on(self.request(self.question.method(), &self.question.path()))
    }

    /// The body of the successful answer to one request.
    pub(super) async fn request(&self, method: Method, path: &str) -> Result<Bytes, ClientError> {
        let answer = tokio::time::timeout(TIMEOUT, self.exchange(method, path)).await;
        answer.unwrap_or_else(|_| Err(ClientError::Timeout { api: self.api.clone() }))
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<Bytes, ClientError> {
        let api = || self.api.clone();
        let stream = TcpStream::connect((self.api.host.as_str(), self.api.port))
            .await
            .map_err(|source| ClientError::Connect { api: api(), source })?;
        let http = |source| ClientError::Http { api: api(), source };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        // Ends with the sender; what goes wrong there is what the request reports.
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(self.head(method, path)).await.map_err(http)?;
        let status = answer.status();
        if answer.body().size_hint().lower() > ANSWER_MAX as u64 {
            return Err(ClientError::TooLarge { api: api() });
        }
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        connection.abort();
        let body = body.map_err(|source| {
            if source.is::<LengthLimitError>() {
                ClientError::TooLarge { api: api() }
            } else {
                ClientError::Body { api: api(), source }
            }
        })?;
        let body = body.to_bytes();
        if status == StatusCode::OK {
            return Ok(body);
        }
        Err(ClientError::Refused {
            api: api(),
            reason: problem(status, &body),
            advice: match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; --api-token says who asks",
                _ => "",
            },
        })
    }

    fn head(&self, method: Method, path: &str) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        // The parts have been checked when they were read, so neither conversion fails.
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        if let Ok(host) = self.api.to_string().parse() {
            headers.insert(HOST, host);
        }
        headers.insert(ACCEPT, hyper::header::HeaderValue::from_static("application/json"));
        if let Some(token) = &self.token
            && let Ok(mut value) =
                hyper::header::HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
        {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        request
    }

    pub(super) fn text(&self, answer: &[u8]) -> Result<String, ClientError> {
        let json = self.json(answer)?;
        if self.is_json {
            return Ok(format!("{}\n", String::from_utf8_lossy(answer).trim_end()));
        }
        Ok(match &self.question {
            Question::Sessions => tables::sessions(&json, None),
            Question::Session(_) => tables::session(&json),
            Question::Origins => tables::origins(&json, None),
            Question::Streams => tables::streams(&json, None),
            Question::Drain(_) | Question::Undrain => drain::sentence(&json),
        })
    }

    pub(super) fn json(&self, answer: &[u8]) -> Result<Value, ClientError> {
        serde_json::from_slice(answer)
            .map_err(|source| ClientError::Json { api: self.api.clone(), source })
    }
}

/// For the requests of one command.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(ClientError::Runtime)
}

/// What an answer that is no success says about itself (RFC 9457), on one line.
fn problem(status: StatusCode, body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = ["detail", "title"].into_iter().find_map(|member| json.get(member)?.as_str());
    match said {
        Some(said) => format!("{} ({status})", tables::printable(said)),
        None => status.to_string(),
    }
}

/// Where a relay on this host listens unless told otherwise.
pub(super) const API_DEFAULT: &str = "http://127.0.0.1:12025";

/// For the whole answer. A relay answers in milliseconds, or something is wrong.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A session is about 1 KiB of JSON, and 65,536 of them are the default maximum.
const ANSWER_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;

    fn command(api: &str, question: Question) -> ClientCommand {
        ClientCommand { api: Api::parse(api).unwrap(), token: None, question, is_json: false }
    }

    /// A server for one request: its address, and the lines of the request's head.
    fn serve_once(answer: Vec<u8>) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let head = lines.take_while(|line| !line.is_empty()).collect();
            // The client may hang up early: it need not read an answer that is too long.
            let _ = stream.write_all(&answer);
            head
        });
        (address, server)
    }

    fn answer(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[test]
    fn urls_are_read_with_and_without_a_scheme() {
        for (text, shown) in [
            ("http://127.0.0.1:12025", "127.0.0.1:12025"),
            ("http://127.0.0.1:12025/", "127.0.0.1:12025"),
            ("relay.example:1", "relay.example:1"),
            ("http://relay.example", "relay.example:80"),
            ("http://[::1]:12025", "[::1]:12025"),
        ] {
            assert_eq!(Api::parse(text).unwrap().to_string(), shown, "{text}");
        }
        assert_eq!(Api::parse(API_DEFAULT), Ok(Api::default()));
    }

    #[test]
    fn urls_that_cannot_be_the_api_are_refused_with_the_reason() {
        for (text, reason) in [
            ("https://a:1", "asks for TLS"),
            ("ftp://a:1", "is not the URL of an HTTP API"),
            ("http://a:1/api/v1", "has a path"),
            ("http://a:1/?x", "has a path"),
            ("http://user@a:1", "holds a user name"),
            ("http://a:b", "has no port from 1 to 65535"),
            ("http://a:0", "has no port from 1 to 65535"),
            ("http://a:65536", "has no port from 1 to 65535"),
            ("http://", "is not a URL"),
            ("", "is not a URL"),
        ] {
            let error = Api::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_session_id_cannot_change_the_path() {
        assert_eq!(Question::session("0-12-7").unwrap().path(), "/api/v1/sessions/0-12-7");
        for id in ["", ".", "..", "a/b", "a?b", "a b", "%2e"] {
            assert!(Question::session(id).is_err(), "{id}");
        }
    }

    #[test]
    fn a_question_is_one_get_with_the_token() {
        let (address, server) = serve_once(answer("200 OK", "{\"sessions\":[]}"));
        let mut command = command(&address, Question::Sessions);
        command.token = Some("s3cret".into());
        let body = command.ask().unwrap();
        let head = server.join().unwrap();
        assert_eq!(&body[..], b"{\"sessions\":[]}");
        assert_eq!(head[0], "GET /api/v1/sessions HTTP/1.1");
        assert!(head.contains(&"authorization: Bearer s3cret".to_owned()), "{head:?}");
        assert!(head.contains(&format!("host: {address}")), "{head:?}");
    }

    #[test]
    fn json_is_printed_as_it_came() {
        let mut command = command("a:1", Question::Sessions);
        command.is_json = true;
        assert_eq!(command.text(b"{ \"sessions\": [] }\n").unwrap(), "{ \"sessions\": [] }\n");
    }

    #[test]
    fn an_answer_that_is_no_json_is_an_error() {
        let error = command("a:1", Question::Streams).text(b"<html>").unwrap_err();
        assert!(error.to_string().contains("is not the JSON of a relay"));
    }

    #[test]
    fn without_a_listener_the_error_names_the_address_and_the_flag() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = command(&address, Question::Origins).ask().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("no connection to {address} (is ringway running? --api names another)")
        );
    }

    #[test]
    fn a_refusal_tells_what_the_relay_said() {
        let body = "{\"title\":\"Unauthorized\",\"detail\":\"a token is needed\"}";
        let (address, server) = serve_once(answer("401 Unauthorized", body));
        let error = command(&address, Question::Sessions).ask().unwrap_err();
        server.join().unwrap();
        assert_eq!(
            error.to_string(),
            format!(
                "{address} refuses: a token is needed (401 Unauthorized); --api-token says who asks"
            )
        );
    }

    #[test]
    fn a_redirect_is_not_followed() {
        let redirect = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n";
        let (address, server) = serve_once(redirect.to_vec());
        let error = command(&address, Question::Sessions).ask().unwrap_err();
        server.join().unwrap();
        assert_eq!(error.to_string(), format!("{address} refuses: 302 Found"));
    }

    #[test]
    fn a_server_that_does_not_speak_http_is_an_error() {
        let (address, server) = serve_once(b"220 mail.example ESMTP\r\n".to_vec());
        let error = command(&address, Question::Sessions).ask().unwrap_err();
        server.join().unwrap();
        assert!(error.to_string().contains("does not answer as an HTTP server"));
    }

    #[test]
    fn an_answer_that_announces_too_much_is_refused_unread() {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\nx", ANSWER_MAX + 1);
        let (address, server) = serve_once(head.into_bytes());
        let error = command(&address, Question::Sessions).ask().unwrap_err();
        server.join().unwrap();
        assert!(matches!(error, ClientError::TooLarge { .. }), "{error}");
    }
}
