//! A WebRTC origin for tests: SRS's HTTP, ICE-lite on one UDP port, and counting instead of
//! decoding.
//!
//! Like SRS it finds a session by the username of a check, and everything else by source address.
//! Unlike SRS it looks at the integrity of every check, so what a relay lets through is judged here.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use ringway::protocol::demux::Kind;
use ringway::protocol::stun::{Check, Class, Message, Method};

use crate::batch::{self, Datagram, ReceiveBatch, Route, SocketOptions};
use crate::board::{Board, Counts, Published};
use crate::clock::{self, SECOND};
use crate::http_server::Server;
use crate::impair::Impairment;
use crate::sockets::Sockets;
use crate::webrtc::agent;
use crate::webrtc::endpoint::{Endpoint, Expected, Order};
use crate::webrtc::station::{Media, Station};
use crate::worker::{Side, Worker};

/// How an origin behaves.
#[derive(Clone, Debug)]
pub struct OriginSettings {
    /// Where WHIP and WHEP listen; port 0 lets the kernel choose.
    pub http: SocketAddr,
    /// Where checks and media arrive; it is the candidate of the answers.
    pub rtc: SocketAddr,
    /// What each player gets.
    pub media: Media,
    /// Whether it begins to send by itself; otherwise [`Origin::send_media`] does.
    pub sends_media: bool,
    /// Sessions at the same time. Further offers are refused (503).
    pub sessions_max: usize,
    /// A session is given up after this long without a datagram.
    pub idle_timeout: Duration,
    /// What becomes of what it sends.
    pub impairment: Impairment,
    /// How its socket is set up.
    pub socket: SocketOptions,
    /// CPUs that its threads may use; empty: all.
    pub cpus: Vec<usize>,
    /// For credentials, phases and filler.
    pub seed: u64,
}

impl Default for OriginSettings {
    fn default() -> Self {
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Self {
            http: any,
            rtc: any,
            media: Media::mixed(),
            sends_media: true,
            sessions_max: 20_000,
            idle_timeout: Duration::from_secs(30),
            impairment: Impairment::default(),
            socket: SocketOptions::default(),
            cpus: Vec::new(),
            seed: 2,
        }
    }
}

/// A running origin.
pub struct Origin {
    server: Server,
    rtc: SocketAddr,
    worker: Worker,
}

impl Origin {
    /// Binds both ports and starts the threads; serves when it returns.
    ///
    /// # Errors
    /// An address cannot be bound, or no thread can be started.
    pub fn start(settings: OriginSettings) -> io::Result<Self> {
        let (post, orders) = sync_channel(ORDERS);
        let sessions = Arc::<AtomicUsize>::default();
        let hall = Hall::open(&settings, orders, Arc::clone(&sessions))?;
        let rtc = hall.station.sockets().address()?;
        let endpoint = Endpoint {
            rtc,
            orders: post,
            sessions,
            sessions_max: settings.sessions_max,
            seed: settings.seed,
            offers: AtomicU64::default(),
        };
        let answer = move |request: &_| endpoint.answer(request);
        let server = Server::start(settings.http, &settings.cpus, answer)?;
        let worker = Worker::start("webrtc origin", settings.cpus, hall, settings.sends_media)?;
        Ok(Self { server, rtc, worker })
    }

    /// Where WHIP and WHEP listen, with the port that the kernel chose.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where checks and media arrive.
    #[must_use]
    pub fn rtc_address(&self) -> SocketAddr {
        self.rtc
    }

    /// The thread that has the media.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Totals, at most 50 ms old.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.worker.counts()
    }

    /// Starts or stops the media.
    pub fn send_media(&self, on: bool) {
        self.worker.send_media(on);
    }

    /// Waits until `is_done` says yes to the totals, or for `patience`. Whether it did.
    pub fn wait_for(&self, patience: Duration, is_done: impl FnMut(&Counts) -> bool) -> bool {
        self.worker.wait_for(patience, is_done)
    }

    /// Ends the threads and returns the final state.
    ///
    /// # Errors
    /// What made the thread end early.
    pub fn stop(self) -> io::Result<Published> {
        let Self { server, worker, .. } = self;
        drop(server);
        worker.stop()
    }
}

/// Who is expected, who is in.
struct Hall {
    inbox: ReceiveBatch,
    station: Station,
    guests: Guests,
}

struct Guests {
    orders: Receiver<Order>,
    /// By slot.
    guests: Vec<Option<Guest>>,
    free: Vec<usize>,
    by_username: HashMap<String, usize>,
    /// Learnt from checks; one address per session.
    by_address: HashMap<SocketAddr, usize>,
    /// Shared with the HTTP side, which counts up.
    sessions: Arc<AtomicUsize>,
    idle_timeout_ns: u64,
    inspect_at: u64,
}

struct Guest {
    expected: Expected,
    address: Option<SocketAddr>,
    last_heard_ns: u64,
}

impl Hall {
    fn open(
        settings: &OriginSettings,
        orders: Receiver<Order>,
        sessions: Arc<AtomicUsize>,
    ) -> io::Result<Self> {
        let socket = batch::bind(settings.rtc, settings.socket)?;
        let sockets = Sockets::new(vec![socket])?;
        let idle_timeout_ns = u64::try_from(settings.idle_timeout.as_nanos()).unwrap_or(u64::MAX);
        Ok(Self {
            inbox: ReceiveBatch::new(settings.socket.trains),
            station: Station::new(
                settings.media.clone(),
                sockets,
                settings.impairment,
                settings.seed,
            ),
            guests: Guests {
                orders,
                guests: Vec::new(),
                free: Vec::new(),
                by_username: HashMap::new(),
                by_address: HashMap::new(),
                sessions,
                idle_timeout_ns,
                inspect_at: 0,
            },
        })
    }
}

impl Side for Hall {
    fn turn(&mut self, now_ns: u64, send_media: bool) -> io::Result<u64> {
        let Self { inbox, station, guests } = self;
        guests.take_orders(station, now_ns);
        let sockets = station.sockets();
        sockets.drain(inbox, |_, datagram, arrived_ns| {
            guests.hear(station, datagram, arrived_ns);
        })?;
        let inspect_at = guests.inspect(station, now_ns);
        Ok(station.turn(now_ns, send_media).min(inspect_at))
    }

    fn sockets(&self) -> Arc<Sockets> {
        self.station.sockets()
    }

    fn board(&self) -> Arc<Board> {
        self.station.board()
    }

    /// An origin that goes away says nothing: there is no DTLS to close.
    fn finish(&mut self) {
        self.guests.take_orders(&mut self.station, clock::now());
        for slot in 0..self.guests.guests.len() {
            self.guests.forget(&mut self.station, slot);
        }
        self.station.finish();
    }
}

impl Guests {
    /// Does what the HTTP side has said.
    fn take_orders(&mut self, station: &mut Station, now_ns: u64) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Expect(expected) => self.expect(expected, now_ns),
                Order::Forget(username) => {
                    if let Some(slot) = self.by_username.get(&username).copied() {
                        self.forget(station, slot);
                        station.counts().deleted += 1;
                    }
                }
            }
        }
    }

    fn expect(&mut self, expected: Expected, now_ns: u64) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.guests.push(None);
            self.guests.len() - 1
        });
        self.by_username.insert(expected.username.clone(), slot);
        if let Some(place) = self.guests.get_mut(slot) {
            *place = Some(Guest { expected, address: None, last_heard_ns: now_ns });
        }
    }

    fn forget(&mut self, station: &mut Station, slot: usize) {
        let Some(guest) = self.guests.get_mut(slot).and_then(Option::take) else {
            return;
        };
        self.by_username.remove(&guest.expected.username);
        if let Some(address) = guest.address {
            self.by_address.remove(&address);
        }
        station.close(slot);
        self.free.push(slot);
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// Gives up who has been silent for too long. Returns when to look again.
    fn inspect(&mut self, station: &mut Station, now_ns: u64) -> u64 {
        if now_ns >= self.inspect_at {
            self.inspect_at = now_ns + SECOND;
            for slot in 0..self.guests.len() {
                let guest = self.guests.get(slot).and_then(Option::as_ref);
                let silence_ns = guest.map_or(0, |g| now_ns.saturating_sub(g.last_heard_ns));
                if silence_ns > self.idle_timeout_ns {
                    self.forget(station, slot);
                    station.counts().closed_by_peer += 1;
                }
            }
        }
        self.inspect_at
    }

    /// Takes a datagram.
    fn hear(&mut self, station: &mut Station, datagram: &Datagram<'_>, arrived_ns: u64) {
        station.counts().datagrams_in += 1;
        let kind = Kind::of(datagram.bytes);
        if kind == Kind::Stun {
            self.hear_check(station, datagram, arrived_ns);
            return;
        }
        let slot = self.by_address.get(&datagram.source).copied();
        let guest = slot.and_then(|slot| self.guests.get_mut(slot)?.as_mut());
        let (Some(slot), Some(guest)) = (slot, guest) else {
            station.counts().strays += 1;
            return;
        };
        guest.last_heard_ns = arrived_ns;
        match kind {
            Kind::Rtp if !guest.expected.plays => {
                station.hear_media(slot, datagram.bytes, arrived_ns);
            }
            Kind::Rtcp => station.counts().reports += 1,
            Kind::Rtp
            | Kind::Stun
            | Kind::Zrtp
            | Kind::Dtls
            | Kind::TurnChannel
            | Kind::Quic
            | Kind::Unknown => station.counts().strays += 1,
        }
    }

    /// Takes a STUN message: answers a right request and learns its address.
    fn hear_check(&mut self, station: &mut Station, datagram: &Datagram<'_>, arrived_ns: u64) {
        let message = Message::parse(datagram.bytes).ok().filter(|message| {
            message.class() == Class::Request && message.method() == Method::Binding
        });
        let username = message
            .and_then(|message| message.username())
            .and_then(|username| str::from_utf8(username).ok());
        let (Some(message), Some(username)) = (message, username) else {
            station.counts().strays += 1;
            return;
        };
        if !self.by_username.contains_key(username) {
            // The client may be faster than the order that announces it.
            self.take_orders(station, arrived_ns);
        }
        let slot = self.by_username.get(username).copied();
        let guest = slot.and_then(|slot| self.guests.get_mut(slot)?.as_mut());
        let (Some(slot), Some(guest)) = (slot, guest) else {
            station.counts().strays += 1;
            return;
        };
        let integrity = message.integrity(&guest.expected.key);
        if integrity != Check::Right || message.fingerprint() == Check::Wrong {
            station.counts().invalid_checks += 1;
            return;
        }
        guest.last_heard_ns = arrived_ns;
        let route = Route { socket: 0, to: datagram.source, from: None };
        let success = agent::success(&message, datagram.source, &guest.expected.key);
        station.counts().checks += 1;
        station.send(route, &success);
        let (stream, plays) = (guest.expected.stream, guest.expected.plays);
        match guest.address.replace(datagram.source) {
            None => station.open(slot, route, stream, plays),
            Some(before) if before != datagram.source => {
                self.by_address.remove(&before);
                station.move_to(slot, route);
            }
            Some(_) => return,
        }
        // An address belongs to the session that it has proven itself for last.
        if let Some(other) = self.by_address.insert(datagram.source, slot)
            && let Some(Some(guest)) = self.guests.get_mut(other)
            && other != slot
        {
            guest.address = None;
            station.close(other);
        }
    }
}

const ORDERS: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{self, Answer, Request};
    use crate::payload;
    use crate::webrtc::agent::{Agent, Outcome};
    use crate::webrtc::sdp::{self, Credentials};
    use std::net::UdpSocket;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A client that has been admitted to `origin`, and the answer it got.
    fn admitted(origin: &Origin, seed: u64, plays: bool) -> (UdpSocket, Agent, Answer) {
        let own = Credentials::of_client(seed);
        let offer = sdp::offer(&own, payload::identity("live/a"), !plays);
        let target = if plays { "/rtc/v1/whep/?stream=a" } else { "/rtc/v1/whip/?stream=a" };
        let body = Some(("application/sdp", offer.as_str()));
        let request = Request { method: "POST", target, body, from: None };
        let answer = http::exchange(origin.http_address(), request).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(sdp::first_candidate(&answer.body).unwrap()).unwrap();
        let remote = Credentials::read(&answer.body).unwrap();
        (socket, Agent::new(&own, &remote, seed), answer)
    }

    fn received(socket: &UdpSocket) -> Vec<u8> {
        let mut buffer = [0; 2_048];
        let length = socket.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    #[test]
    fn a_right_check_is_answered_with_the_address_it_came_from() {
        let origin = Origin::start(OriginSettings::default()).unwrap();
        let (socket, mut agent, _) = admitted(&origin, 1, false);
        socket.send(&agent.request(false)).unwrap();
        let answer = received(&socket);
        let mapped = Message::parse(&answer).unwrap().mapped_address();
        assert_eq!(mapped, Some(socket.local_addr().unwrap()));
        assert_eq!(agent.hear(&answer), Outcome::Proven);
    }

    #[test]
    fn a_forged_check_gets_no_answer_and_opens_nothing() {
        let origin = Origin::start(OriginSettings::default()).unwrap();
        let (socket, mut agent, _) = admitted(&origin, 1, false);
        let mut forged = agent.request(false);
        let last = forged.len() - 9;
        forged[last] ^= 1;
        socket.send(&forged).unwrap();
        assert!(origin.wait_for(PATIENCE, |counts| counts.invalid_checks == 1));
        assert_eq!(origin.counts().open, 0);
    }

    #[test]
    fn a_player_that_moves_gets_its_media_at_the_new_address() {
        let origin = Origin::start(OriginSettings::default()).unwrap();
        let (socket, mut agent, answer) = admitted(&origin, 1, true);
        socket.send(&agent.request(false)).unwrap();
        while Kind::of(&received(&socket)) != Kind::Rtp {}
        let moved = UdpSocket::bind("127.0.0.1:0").unwrap();
        moved.set_read_timeout(Some(PATIENCE)).unwrap();
        moved.connect(sdp::first_candidate(&answer.body).unwrap()).unwrap();
        moved.send(&agent.request(true)).unwrap();
        while Kind::of(&received(&moved)) != Kind::Rtp {}
        let last = origin.stop().unwrap().counts;
        assert_eq!((last.connected, last.checks), (1, 2));
    }

    #[test]
    fn media_from_an_unproven_address_is_a_stray() {
        let origin = Origin::start(OriginSettings::default()).unwrap();
        let (socket, ..) = admitted(&origin, 1, false);
        socket.send(&[0x80; 100]).unwrap();
        assert!(origin.wait_for(PATIENCE, |counts| counts.strays == 1));
        assert_eq!(origin.counts().media.foreign, 0);
    }

    #[test]
    fn a_delete_makes_room_for_another_session() {
        let settings = OriginSettings { sessions_max: 1, ..OriginSettings::default() };
        let origin = Origin::start(settings).unwrap();
        let (_, _, answer) = admitted(&origin, 1, false);
        let location = answer.header("location").unwrap();
        let request = Request { method: "DELETE", target: location, body: None, from: None };
        assert_eq!(http::exchange(origin.http_address(), request).unwrap().status, 200);
        assert!(origin.wait_for(PATIENCE, |counts| counts.deleted == 1));
        let (socket, mut agent, _) = admitted(&origin, 2, false);
        socket.send(&agent.request(false)).unwrap();
        assert_eq!(agent.hear(&received(&socket)), Outcome::Proven);
    }

    #[test]
    fn a_silent_client_is_given_up() {
        let idle_timeout = Duration::from_millis(100);
        let origin =
            Origin::start(OriginSettings { idle_timeout, ..OriginSettings::default() }).unwrap();
        let _client = admitted(&origin, 1, false);
        assert!(origin.wait_for(PATIENCE, |counts| counts.closed_by_peer == 1));
    }
}
