//! A scripted WHIP and WHEP origin: ICE-lite on one UDP port, and every header of the standards in
//! its answers. It echoes what is not STUN to where the client's last binding request came from.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ringway::protocol::stun::{Class, Message};

use super::http_server::{HttpServer, Request, Response};
use super::ice::{self, Credentials};

/// How it treats offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Prompt,
    /// It takes the offer and says nothing until it is dropped.
    Mute,
    /// It closes the connection without an answer, as SRS does on errors.
    HangUp,
}

/// What it knows of a session.
#[derive(Clone, Debug)]
pub struct OriginSession {
    own: Credentials,
    /// Where binding requests came from; each once.
    pub sources: Vec<SocketAddr>,
    /// Where the last came from.
    selected: Option<SocketAddr>,
}

pub struct WebRtcOrigin {
    pub api: SocketAddr,
    pub media: SocketAddr,
    shared: Arc<Shared>,
    asked: Receiver<Request>,
    socket: UdpSocket,
    thread: Option<JoinHandle<()>>,
    // Ends after the mute ones have been let go.
    _server: HttpServer,
}

struct Shared {
    /// By the ufrag of its own that it has given.
    sessions: Mutex<HashMap<String, OriginSession>>,
    stop: AtomicBool,
}

/// What it tells clients to be its address: private, and wrong.
pub const PRIVATE: &str = "192.168.77.7";
pub const ETAG: &str = "\"restart-1\"";
pub const LINK: &str = "<stun:stun.example.net>; rel=\"ice-server\"";

impl WebRtcOrigin {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1".parse().unwrap(), Manner::Prompt)
    }

    pub fn start_at(ip: IpAddr, manner: Manner) -> Self {
        Self::start_on(TcpListener::bind((ip, 0)).unwrap(), manner)
    }

    fn start_on(listener: TcpListener, manner: Manner) -> Self {
        let ip = listener.local_addr().unwrap().ip();
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let media = socket.local_addr().unwrap();
        let shared = Arc::new(Shared { sessions: Mutex::default(), stop: AtomicBool::new(false) });
        let (note, asked) = channel();
        let to_handler = Arc::clone(&shared);
        let note = Mutex::new(note);
        let server = HttpServer::start(listener, move |request| {
            if request.path() == "/api/v1/versions" {
                // A check, which comes when it likes and is nobody's question.
                return Some(Response::new(200));
            }
            note.lock().unwrap().send(request.clone()).ok()?;
            to_handler.answer(&request, manner, media)
        });
        let (own, to_thread) = (Arc::clone(&shared), socket.try_clone().unwrap());
        let thread = std::thread::spawn(move || own.serve_media(&to_thread));
        let thread = Some(thread);
        Self { api: server.address, media, shared, asked, socket, thread, _server: server }
    }

    /// As `--origin` wants it.
    pub fn flag(&self, name: &str) -> String {
        let (ip, rtc, api) = (self.media.ip(), self.media.port(), self.api.port());
        format!("name={name},ip={ip},rtc={rtc},api={api}")
    }

    /// The next request that came, `OPTIONS` and all.
    pub fn next_request(&self) -> Request {
        self.asked.recv_timeout(super::process::PATIENCE).expect("a request comes")
    }

    /// What it knows of the session for which it has given this ufrag; `None` after a DELETE.
    pub fn session(&self, ufrag: &str) -> Option<OriginSession> {
        self.shared.sessions.lock().unwrap().get(ufrag).cloned()
    }

    /// Sends to where the session's last binding request came from.
    pub fn send(&self, ufrag: &str, datagram: &[u8]) {
        let selected = self.session(ufrag).and_then(|session| session.selected);
        self.socket.send_to(datagram, selected.expect("the client has been heard")).unwrap();
    }

    /// The process dies and another takes its place and addresses: it knows no session of before.
    pub fn restart(&self) {
        self.shared.sessions.lock().unwrap().clear();
    }
}

impl Drop for WebRtcOrigin {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn answer(&self, request: &Request, manner: Manner, media: SocketAddr) -> Option<Response> {
        match (request.method.as_str(), manner) {
            ("POST", Manner::Prompt) => Some(self.take_offer(media)),
            ("POST", Manner::Mute) => {
                self.wait_for_the_end();
                None
            }
            ("DELETE", _) => Some(self.delete(request)),
            _ => None,
        }
    }

    fn take_offer(&self, media: SocketAddr) -> Response {
        let own = Credentials::fresh();
        let port = media.port();
        let lines = format!(
            "a=ice-lite\r\na=candidate:0 1 udp 2130706431 {PRIVATE} {port} typ host generation 0\r\n"
        );
        let answer = ice::sdp(&own, "passive", &lines);
        // Relative to the request, as SRS writes it.
        let location = format!("/rtc/v1/whip/?action=delete&token=t&session={}", own.ufrag);
        let session = OriginSession { own, sources: Vec::new(), selected: None };
        self.sessions.lock().unwrap().insert(session.own.ufrag.clone(), session);
        Response::new(201)
            .header("Location", location)
            .header("ETag", ETAG)
            .header("Link", LINK)
            .body("application/sdp", answer)
    }

    fn delete(&self, request: &Request) -> Response {
        let ufrag = request.target.rsplit('=').next().unwrap_or("");
        let known = self.sessions.lock().unwrap().remove(ufrag);
        Response::new(if known.is_some() { 200 } else { 404 })
    }

    fn wait_for_the_end(&self) {
        let (_never, nothing): (Sender<()>, _) = channel();
        while !self.stop.load(Ordering::Relaxed) {
            let _ = nothing.recv_timeout(Duration::from_millis(20));
        }
    }

    fn serve_media(&self, socket: &UdpSocket) {
        let mut buffer = [0; 2048];
        while !self.stop.load(Ordering::Relaxed) {
            // An error is a client's closed port, or that nothing came for a while.
            let Ok((length, source)) = socket.recv_from(&mut buffer) else { continue };
            let answer = match buffer.first() {
                Some(0..=3) => self.check(&buffer[..length], source),
                _ => self.is_selected(source).then(|| buffer[..length].to_vec()),
            };
            if let Some(answer) = answer {
                let _ = socket.send_to(&answer, source);
            }
        }
    }

    fn check(&self, datagram: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
        let message = Message::parse(datagram).ok()?;
        let ufrag = std::str::from_utf8(message.username()?).ok()?.split(':').next()?;
        let mut sessions = self.sessions.lock().unwrap();
        let session = sessions.get_mut(ufrag)?;
        let key = session.own.key();
        if message.class() != Class::Request || !ice::is_vouched_for(datagram, &key) {
            return None;
        }
        if !session.sources.contains(&source) {
            session.sources.push(source);
        }
        session.selected = Some(source);
        Some(ice::binding_response(message.transaction(), source, &key))
    }

    fn is_selected(&self, source: SocketAddr) -> bool {
        let sessions = self.sessions.lock().unwrap();
        sessions.values().any(|session| session.selected == Some(source))
    }
}
