//! The little HTTP that tests need of a client: one request per connection, short answers.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::Context as _;
use socket2::{Domain, Socket, Type};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As in the status line.
    pub status: u16,
    /// Status line and headers as they came.
    pub head: String,
    /// Everything after the headers.
    pub body: String,
}

impl Answer {
    /// The value of the first header called `name`, in whatever case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `POST`, `DELETE`.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Type and bytes of the body; `None`: no body.
    pub body: Option<(&'a str, &'a str)>,
    /// The address to call from instead of the machine's choice.
    pub from: Option<Ipv4Addr>,
}

/// `GET` without headers of note.
///
/// # Errors
/// No connection, or no HTTP answer within two seconds.
pub fn get(server: SocketAddr, path: &str) -> io::Result<Answer> {
    exchange(server, Request { method: "GET", target: path, body: None, from: None })
}

/// `POST` with a JSON body.
///
/// # Errors
/// As [`get`].
pub fn post(server: SocketAddr, path: &str, body: &str) -> io::Result<Answer> {
    let body = Some(("application/json", body));
    exchange(server, Request { method: "POST", target: path, body, from: None })
}

/// Any request.
///
/// # Errors
/// As [`get`].
pub fn exchange(server: SocketAddr, request: Request<'_>) -> io::Result<Answer> {
    let mut stream = connect(server, request.from)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let Request { method, target, .. } = request;
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n");
    if let Some((kind, body)) = request.body {
        text += &format!("Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    } else {
        text += "\r\n";
    }
    stream.write_all(text.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    parse(&answer)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn connect(server: SocketAddr, from: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let Some(from) = from else {
        return TcpStream::connect_timeout(&server, TIMEOUT);
    };
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((IpAddr::V4(from), 0)).into())?;
    socket.connect_timeout(&server.into(), TIMEOUT)?;
    Ok(socket.into())
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// The value of the first header called `name` among the lines of `head`.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The address of the server at `url`, which is `http://HOST:PORT`.
///
/// # Errors
/// The URL has another form, or its host has no address.
pub fn server(url: &str) -> anyhow::Result<SocketAddr> {
    let authority = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    let addresses = authority.and_then(|authority| authority.to_socket_addrs().ok());
    addresses
        .and_then(|mut addresses| addresses.next())
        .with_context(|| format!("{url} is not of the form http://127.0.0.1:11985, or unknown"))
}

const TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_status_and_headers_and_body() {
        let answer = parse("HTTP/1.1 200 OK\r\nServer: x\r\n\r\n{\"code\":0}").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "{\"code\":0}"));
        assert_eq!(answer.header("server"), Some("x"));
        assert_eq!(answer.header("location"), None);
    }

    #[test]
    fn a_value_may_hold_colons() {
        let answer = parse("HTTP/1.1 201 Created\r\nLocation: http://h:1/s\r\n\r\n").unwrap();
        assert_eq!(answer.header("Location"), Some("http://h:1/s"));
    }

    #[test]
    fn what_is_not_http_is_no_answer() {
        assert_eq!(parse("SSH-2.0\r\n\r\n"), None);
    }

    #[test]
    fn a_server_is_named_by_its_url() {
        assert_eq!(server("http://127.0.0.1:85/").unwrap(), "127.0.0.1:85".parse().unwrap());
        assert!(server("127.0.0.1:85").is_err());
        assert!(server("http://127.0.0.1").is_err());
    }
}
