//! The little HTTP that tests need: one request per connection, short answers.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As in the status line.
    pub status: u16,
    /// Everything after the headers.
    pub body: String,
}

/// `GET` without headers of note.
///
/// # Errors
/// No connection, or no HTTP answer within two seconds.
pub fn get(server: SocketAddr, path: &str) -> io::Result<Answer> {
    exchange(server, &format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n"))
}

/// `POST` with a JSON body.
///
/// # Errors
/// As [`get`].
pub fn post(server: SocketAddr, path: &str, body: &str) -> io::Result<Answer> {
    let length = body.len();
    exchange(
        server,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    )
}

fn exchange(server: SocketAddr, request: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    parse(&answer)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

const TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_status_and_body() {
        let answer = parse("HTTP/1.1 200 OK\r\nServer: x\r\n\r\n{\"code\":0}").unwrap();
        assert_eq!(answer, Answer { status: 200, body: "{\"code\":0}".to_owned() });
    }

    #[test]
    fn what_is_not_http_is_no_answer() {
        assert_eq!(parse("SSH-2.0\r\n\r\n"), None);
    }
}
