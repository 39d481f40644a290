//! The smallest HTTP server that an origin or a page needs: one request per connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or("")
    }

    fn read(stream: &TcpStream) -> Option<Self> {
        stream.set_read_timeout(Some(super::process::PATIENCE)).ok()?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let mut request = Self { method: words.next()?, target: words.next()?, ..Self::default() };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            request.headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let length = request.header("Content-Length").and_then(|text| text.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        request.body = String::from_utf8(body).ok()?;
        Some(request)
    }
}

#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Response {
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn body(self, content_type: &str, body: impl Into<String>) -> Self {
        let mut response = self.header("Content-Type", content_type);
        response.body = body.into();
        response
    }

    fn write(&self, mut stream: &TcpStream) {
        let mut head = format!("HTTP/1.1 {} Told\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = self.body.len();
        // Whoever asked may have gone; that is his affair.
        let _ = write!(stream, "{head}Content-Length: {length}\r\n\r\n{}", self.body);
    }
}

/// Serves until it is dropped.
pub struct HttpServer {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Serves what `handler` says, each request on a thread of its own, on the host of the calling
    /// thread. `None` closes the connection without a word.
    pub fn start(
        listener: TcpListener,
        handler: impl Fn(Request) -> Option<Response> + Send + Sync + 'static,
    ) -> Self {
        // The kernel ends a wait for connections as it ends one for bytes.
        SockRef::from(&listener).set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (end, handler) = (Arc::clone(&stop), Arc::new(handler));
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else { continue };
                let handler = Arc::clone(&handler);
                std::thread::spawn(move || {
                    let response = Request::read(&stream).and_then(|request| handler(request));
                    if let Some(response) = response {
                        response.write(&stream);
                    }
                });
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
