//! The little HTTP that an emulated origin needs of a server: one request per connection, as SRS
//! answers them.
//!
//! A few threads take connections in turn. Head, body and patience are bounded, so a peer can hold
//! up one of them for two seconds and no longer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::http::header;
use crate::measure;

/// A running server. Dropping it ends its threads.
pub struct Server {
    address: SocketAddr,
    stop: Arc<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// In capitals, as it came.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Behind the question mark; empty without one.
    pub query: String,
    /// As text.
    pub body: String,
    /// The address of this machine that the client reached.
    pub reached: SocketAddr,
}

impl Request {
    /// The value of a parameter of the query, as it stands there.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            (key == name).then_some(value)
        })
    }
}

/// What it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Code and phrase.
    pub status: &'static str,
    /// Headers beside those of the connection and the length.
    pub headers: Vec<(&'static str, String)>,
    /// May be empty.
    pub body: String,
}

impl Server {
    /// Listens on `listen` and has `answer` answer; `None` closes the connection without a word. Its
    /// threads keep to `cpus` unless they are empty.
    ///
    /// # Errors
    /// The address is taken, or no thread can be started.
    pub fn start(
        listen: SocketAddr,
        cpus: &[usize],
        answer: impl Fn(&Request) -> Option<Response> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let shared = Arc::new((listener, answer));
        let mut server = Self { address, stop, threads: Vec::new() };
        for _ in 0..THREADS {
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&server.stop));
            let cpus = cpus.to_vec();
            let thread = std::thread::Builder::new().name("http".to_owned());
            server.threads.push(thread.spawn(move || {
                if !cpus.is_empty() {
                    // Where that is refused, answers only disturb more.
                    let _ = measure::pin(&cpus);
                }
                serve(&shared.0, &stop, &shared.1);
            })?);
        }
        Ok(server)
    }

    /// Where it listens, with the port that the kernel chose.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nobody reads the counter, so every thread sees it; it cannot be full after one write.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

fn serve(
    listener: &TcpListener,
    stop: &OwnedFd,
    answer: &(impl Fn(&Request) -> Option<Response> + ?Sized),
) {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let [_, stopped] = &fds;
        if !stopped.revents().is_empty() {
            return;
        }
        // Another thread may have taken the connection, and a client that does not keep to HTTP gets
        // no answer.
        if let Ok((stream, _)) = listener.accept() {
            let _ = converse(stream, answer);
        }
    }
}

fn converse(
    mut stream: TcpStream,
    answer: &(impl Fn(&Request) -> Option<Response> + ?Sized),
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let reached = stream.local_addr()?;
    let Some(request) = read(&mut stream, reached)? else {
        return Ok(());
    };
    let Some(Response { status, headers, body }) = answer(&request) else {
        return Ok(());
    };
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: Close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes())
}

/// Reads one request. `None` if it is none, too large, or too slow.
fn read(stream: &mut TcpStream, reached: SocketAddr) -> io::Result<Option<Request>> {
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4_096];
    loop {
        match parse(&bytes, reached) {
            Parsed::Complete(request) => return Ok(Some(request)),
            Parsed::Invalid => return Ok(None),
            Parsed::Partial => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => return Ok(None),
            length => bytes.extend(chunk.get(..length).unwrap_or_default()),
        }
    }
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Complete(Request),
    Partial,
    Invalid,
}

fn parse(bytes: &[u8], reached: SocketAddr) -> Parsed {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_MAX { Parsed::Invalid } else { Parsed::Partial };
    };
    let (head, rest) = bytes.split_at(end);
    let Ok(head) = str::from_utf8(head) else {
        return Parsed::Invalid;
    };
    let length = header(head, "content-length").map_or(Ok(0), str::parse::<usize>);
    // A body in chunks would need a length of its own, and no peer of an origin sends one.
    let Some(length) = length.ok().filter(|length| *length <= BODY_MAX) else {
        return Parsed::Invalid;
    };
    if header(head, "transfer-encoding").is_some() {
        return Parsed::Invalid;
    }
    let Some(body) = rest.get(4..4 + length) else {
        return Parsed::Partial;
    };
    let mut words = head.split("\r\n").next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None, Ok(body)) =
        (words.next(), words.next(), words.next(), words.next(), str::from_utf8(body))
    else {
        return Parsed::Invalid;
    };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return Parsed::Invalid;
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Parsed::Complete(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        body: body.to_owned(),
        reached,
    })
}

/// A relay asks for many sessions at once.
const THREADS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(2);
const HEAD_MAX: usize = 16 << 10;
const BODY_MAX: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http;
    use std::net::Ipv4Addr;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn parsed(text: &str) -> Parsed {
        parse(text.as_bytes(), ANY)
    }

    #[test]
    fn a_request_is_method_path_query_and_body() {
        let text = "POST /rtc/v1/whip/?app=live&stream=a HTTP/1.1\r\nHost: x\r\n\
                    content-length: 3\r\n\r\nv=0";
        let Parsed::Complete(request) = parsed(text) else {
            panic!("{text} is not complete");
        };
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/rtc/v1/whip/"));
        assert_eq!((request.parameter("stream"), request.parameter("token")), (Some("a"), None));
        assert_eq!(request.body, "v=0");
    }

    #[test]
    fn a_request_is_partial_until_its_body_is_there() {
        let whole = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nv=0";
        for length in 0..whole.len() {
            assert_eq!(parsed(&whole[..length]), Parsed::Partial, "{length}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let too_long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(HEAD_MAX));
        for text in [
            "GET /\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET x HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 x\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 131073\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            too_long.as_str(),
        ] {
            assert_eq!(parsed(text), Parsed::Invalid, "{text:.40}");
        }
    }

    #[test]
    fn a_client_gets_status_headers_and_body() {
        let server = Server::start(ANY, &[], |request| {
            let headers = vec![("Location", request.path.clone())];
            Some(Response { status: "201 Created", headers, body: request.body.clone() })
        });
        let server = server.unwrap();
        let answer = http::post(server.address(), "/there", "hello").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (201, "hello"));
        assert_eq!(answer.header("location"), Some("/there"));
    }

    #[test]
    fn a_handler_may_close_without_a_word() {
        let server = Server::start(ANY, &[], |_| None).unwrap();
        assert!(http::get(server.address(), "/").is_err());
    }
}
