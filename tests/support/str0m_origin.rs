//! An ICE-lite origin that forwards packets of real DTLS-SRTP, as an SFU does: str0m on one UDP port,
//! with WHIP and WHEP in front.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use str0m::change::SdpOffer;
use str0m::media::{KeyframeRequestKind, MediaData, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

use super::http_server::{HttpServer, Request, Response};

pub struct Str0mOrigin {
    pub api: SocketAddr,
    pub media: SocketAddr,
    thread: Option<JoinHandle<()>>,
    server: Option<HttpServer>,
}

/// From a request to the thread that has the sessions.
enum Order {
    Offer { stream: String, is_publisher: bool, sdp: String, answer: Sender<(String, u64)> },
    Delete { session: u64, known: Sender<bool> },
}

impl Str0mOrigin {
    /// Starts it on the host of the calling thread.
    pub fn start(ip: IpAddr) -> Self {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        let media = socket.local_addr().unwrap();
        let (sender, orders) = channel();
        let sender = Mutex::new(sender);
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let server = HttpServer::start(listener, move |request| respond(&request, &sender));
        let mut switchboard = Switchboard { socket, media, sessions: Vec::new(), next_id: 0 };
        let thread = Some(std::thread::spawn(move || switchboard.run(&orders)));
        Self { api: server.address, media, thread, server: Some(server) }
    }

    /// As `--origin` wants it.
    pub fn flag(&self, name: &str) -> String {
        let (ip, rtc, api) = (self.media.ip(), self.media.port(), self.api.port());
        format!("name={name},ip={ip},rtc={rtc},api={api}")
    }
}

impl Drop for Str0mOrigin {
    fn drop(&mut self) {
        // With the server goes the last sender of orders, and that ends the thread.
        self.server = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn respond(request: &Request, orders: &Mutex<Sender<Order>>) -> Option<Response> {
    let path = request.path();
    let give = |order| orders.lock().unwrap().send(order).ok();
    match request.method.as_str() {
        "POST" => {
            let (answer, answered) = channel();
            let stream = request.target.rsplit("stream=").next()?.to_owned();
            let (sdp, is_publisher) = (request.body.clone(), path.contains("whip"));
            give(Order::Offer { stream, is_publisher, sdp, answer })?;
            let (sdp, session) = answered.recv().ok()?;
            let response = Response::new(201)
                .header("Location", format!("/session/{session}"))
                .header("ETag", format!("\"{session}\""))
                .header("Link", "<stun:stun.example.net>; rel=\"ice-server\"");
            Some(response.body("application/sdp", sdp))
        }
        "DELETE" => {
            let (known, told) = channel();
            let session = path.rsplit('/').next()?.parse().ok()?;
            give(Order::Delete { session, known })?;
            Some(Response::new(if told.recv().ok()? { 200 } else { 404 }))
        }
        _ => Some(Response::new(405)),
    }
}

struct Switchboard {
    socket: UdpSocket,
    media: SocketAddr,
    sessions: Vec<Session>,
    next_id: u64,
}

struct Session {
    id: u64,
    stream: String,
    is_publisher: bool,
    rtc: Rtc,
    sections: Vec<(Mid, MediaKind)>,
}

/// What one session has for the others of its stream.
enum News {
    Media(MediaKind, Box<MediaData>),
    KeyframeWanted(KeyframeRequestKind),
}

impl Switchboard {
    fn run(&mut self, orders: &Receiver<Order>) {
        use std::sync::mpsc::TryRecvError;
        let mut buffer = vec![0; 2000];
        loop {
            match orders.try_recv() {
                Ok(order) => self.obey(order),
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {}
            }
            let next = self.drain_all();
            // Orders come through a channel, for which the wait has to end now and then.
            let wait = next.saturating_duration_since(Instant::now());
            let wait = wait.clamp(Duration::from_millis(1), Duration::from_millis(20));
            self.socket.set_read_timeout(Some(wait)).unwrap();
            if let Ok((length, source)) = self.socket.recv_from(&mut buffer) {
                self.receive(&buffer[..length], source);
            }
            for session in &mut self.sessions {
                let _ = session.rtc.handle_input(Input::Timeout(Instant::now()));
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Offer { stream, is_publisher, sdp, answer } => {
                let crypto = Arc::new(str0m::crypto::from_feature_flags());
                let builder = Rtc::builder().set_crypto_provider(crypto).set_ice_lite(true);
                let mut rtc = builder.build(Instant::now());
                rtc.add_local_candidate(Candidate::host(self.media, "udp").unwrap());
                let offer = SdpOffer::from_sdp_string(&sdp).unwrap();
                let sdp = rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string();
                let id = self.next_id;
                self.next_id += 1;
                let sections = Vec::new();
                self.sessions.push(Session { id, stream, is_publisher, rtc, sections });
                let _ = answer.send((sdp, id));
            }
            Order::Delete { session, known } => {
                let before = self.sessions.len();
                self.sessions.retain(|one| one.id != session);
                let _ = known.send(self.sessions.len() < before);
            }
        }
    }

    fn receive(&mut self, datagram: &[u8], source: SocketAddr) {
        let Ok(contents) = datagram.try_into() else { return };
        let receive = Receive { proto: Protocol::Udp, source, destination: self.media, contents };
        let input = Input::Receive(Instant::now(), receive);
        if let Some(session) = self.sessions.iter_mut().find(|one| one.rtc.accepts(&input)) {
            let _ = session.rtc.handle_input(input);
        }
    }

    /// Lets every session say what it has to say, and carries news between those of a stream: one at a
    /// time, for nothing may be asked of a session that has not been listened to since the last time.
    /// Returns when the first of them wants time.
    fn drain_all(&mut self) -> Instant {
        let mut news = VecDeque::new();
        loop {
            let mut next = Instant::now() + Duration::from_secs(1);
            for session in &mut self.sessions {
                next = next.min(session.drain(&self.socket, &mut news));
            }
            let Some((from, one)) = news.pop_front() else { return next };
            self.spread(from, &one);
        }
    }

    fn spread(&mut self, from: u64, news: &News) {
        let Some(sender) = self.sessions.iter().find(|session| session.id == from) else { return };
        let (stream, is_publisher) = (sender.stream.clone(), sender.is_publisher);
        for session in &mut self.sessions {
            if session.stream == stream && session.is_publisher != is_publisher {
                session.hear(news);
            }
        }
    }
}

impl Session {
    fn drain(&mut self, socket: &UdpSocket, news: &mut VecDeque<(u64, News)>) -> Instant {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(deadline)) => return deadline,
                Ok(Output::Transmit(transmit)) => {
                    let _ = socket.send_to(&transmit.contents, transmit.destination);
                }
                Ok(Output::Event(event)) => {
                    news.extend(self.note(event).map(|news| (self.id, news)));
                }
                Err(_) => return Instant::now() + Duration::from_secs(1),
            }
        }
    }

    fn note(&mut self, event: Event) -> Option<News> {
        match event {
            Event::MediaAdded(added) => {
                self.sections.push((added.mid, added.kind));
                None
            }
            Event::MediaData(data) => {
                let (_, kind) = self.sections.iter().find(|(mid, _)| *mid == data.mid)?;
                Some(News::Media(*kind, Box::new(data)))
            }
            Event::KeyframeRequest(request) => Some(News::KeyframeWanted(request.kind)),
            // A player can begin with a keyframe alone.
            Event::Connected if !self.is_publisher => {
                Some(News::KeyframeWanted(KeyframeRequestKind::Pli))
            }
            _ => None,
        }
    }

    fn hear(&mut self, news: &News) {
        let wanted = match news {
            News::Media(kind, _) => *kind,
            News::KeyframeWanted(_) => MediaKind::Video,
        };
        let section = self.sections.iter().find(|(_, kind)| *kind == wanted);
        let Some(mut writer) = section.and_then(|(mid, _)| self.rtc.writer(*mid)) else { return };
        match news {
            News::Media(_, data) => {
                if let Some(format) = writer.match_params(data.params) {
                    let _ = writer.write(format, data.network_time, data.time, data.data.clone());
                }
            }
            News::KeyframeWanted(kind) => _ = writer.request_keyframe(None, *kind),
        }
    }
}
