//! A client that can keep its connection: `http` asks once per connection and waits for its end.

use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One connection, or one after the other.
pub(super) struct Client {
    server: SocketAddr,
    is_kept: bool,
    stream: Option<BufReader<TcpStream>>,
}

/// What it was told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    location: Option<String>,
    is_last: bool,
}

impl Answer {
    /// The path and query of `Location`, which may be a whole URL.
    pub(super) fn location(&self) -> Option<String> {
        let location = self.location.as_deref()?;
        let rest = location.split_once("://").map_or(location, |(_, rest)| rest);
        rest.find('/').and_then(|at| rest.get(at..)).map(str::to_owned)
    }
}

impl Client {
    pub(super) fn new(server: SocketAddr, is_kept: bool) -> Self {
        Self { server, is_kept, stream: None }
    }

    /// Asks and waits for the whole answer. The time that a fresh connection takes is part of it.
    pub(super) fn exchange(
        &mut self,
        method: &str,
        target: &str,
        body: Option<(&str, &str)>,
    ) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.server)?,
        };
        let connection = if self.is_kept { "keep-alive" } else { "close" };
        let server = self.server;
        let mut request =
            format!("{method} {target} HTTP/1.1\r\nHost: {server}\r\nConnection: {connection}\r\n");
        if let Some((kind, body)) = body {
            let length = body.len();
            request += &format!("Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}");
        } else {
            request += "\r\n";
        }
        stream.get_mut().write_all(request.as_bytes())?;
        let answer = read(&mut stream)?;
        if self.is_kept && !answer.is_last {
            self.stream = Some(stream);
        }
        Ok(answer)
    }
}

fn connect(server: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(BufReader::new(stream))
}

/// Reads one answer and leaves what follows it unread.
fn read(stream: &mut impl io::BufRead) -> io::Result<Answer> {
    let mut stream = stream.take(ANSWER_MAX);
    let status = line(&mut stream)?;
    let status =
        status.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    let mut answer = Answer {
        status: status.ok_or_else(|| invalid("no status line"))?,
        body: String::new(),
        location: None,
        is_last: false,
    };
    let mut length = None;
    loop {
        let header = line(&mut stream)?;
        if header.is_empty() {
            break;
        }
        let Some((key, value)) = header.split_once(':') else { continue };
        let value = value.trim();
        match key.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse::<u64>().ok(),
            "location" => answer.location = Some(value.to_owned()),
            "connection" => answer.is_last = value.eq_ignore_ascii_case("close"),
            "transfer-encoding" => return Err(invalid("chunks are not read here")),
            _ => {}
        }
    }
    match (length, answer.status) {
        (Some(length), _) => {
            let read = stream.take(length).read_to_string(&mut answer.body)?;
            if (read as u64) < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        (None, 204) => {}
        (None, _) => {
            stream.read_to_string(&mut answer.body)?;
            answer.is_last = true;
        }
    }
    Ok(answer)
}

fn line(stream: &mut impl io::BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end().len());
    Ok(line)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_on_one_connection_are_told_apart_by_their_lengths() {
        let bytes = "HTTP/1.1 201 Created\r\nLocation: http://h:1/s/1\r\nContent-Length: 2\r\n\r\n\
                     abHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        let mut stream = bytes.as_bytes();
        let first = read(&mut stream).unwrap();
        assert_eq!((first.status, first.body.as_str(), first.is_last), (201, "ab", false));
        assert_eq!(first.location().as_deref(), Some("/s/1"));
        let second = read(&mut stream).unwrap();
        assert_eq!((second.status, second.is_last), (204, true));
    }

    #[test]
    fn an_answer_that_ends_early_is_an_error() {
        let mut stream = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab".as_bytes();
        assert_eq!(read(&mut stream).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
