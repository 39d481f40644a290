//! Many WebRTC clients: WHIP or WHEP, checks until the path is proven and from then on every 2.5 s,
//! paced media one way, reports from those who play, a DELETE at the end.
//!
//! Towards an IPv4 loopback address every client gets a source address of its own in 127.0.0.0/8
//! out of one socket, for HTTP as well; elsewhere every client has a socket. Each is therefore a
//! client of its own to whatever limits the target keeps, and a datagram that is delivered to the
//! wrong client shows.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ringway::protocol::demux::Kind;

use crate::arrivals::{Arrival, Arrivals};
use crate::batch::{self, Datagram, ReceiveBatch, Route, SocketOptions};
use crate::board::Board;
use crate::clock::{self, MILLISECOND, SECOND};
use crate::generator::Roles;
use crate::impair::Impairment;
use crate::payload;
use crate::sockets::{Sockets, loopback_source, slot_of_source};
use crate::webrtc::agent::{Agent, Outcome};
use crate::webrtc::signalling::{self, Admission, Invitation, Order, Reply, Signalling, Wish};
use crate::webrtc::station::{Media, Station};
use crate::worker::{Side, Worker};

/// Who asks, how many, and what they send.
#[derive(Clone, Debug)]
pub struct GeneratorSettings {
    /// The HTTP of relay or origin.
    pub http: SocketAddr,
    /// Clients.
    pub sessions: usize,
    /// What they want.
    pub roles: Roles,
    /// Clients that begin per second.
    pub connect_rate: f64,
    /// Once all have begun: clients per second that leave by DELETE and are replaced by new ones.
    pub churn_rate: f64,
    /// Streams are called this and a number.
    pub stream_prefix: String,
    /// What publishers send.
    pub media: Media,
    /// What becomes of everything that they send but HTTP.
    pub impairment: Impairment,
    /// Send checks and media here instead of to the candidate of the answer: the way through a
    /// relay that changes no answers.
    pub media_via: Option<SocketAddr>,
    /// How its sockets are set up.
    pub socket: SocketOptions,
    /// For credentials, phases and filler.
    pub seed: u64,
}

impl GeneratorSettings {
    /// `sessions` clients of the HTTP at `http`, half of them publishers of audio and video.
    #[must_use]
    pub fn new(http: SocketAddr, sessions: usize) -> Self {
        Self {
            http,
            sessions,
            roles: Roles::Both,
            connect_rate: 500.0,
            churn_rate: 0.0,
            stream_prefix: "live/bench".to_owned(),
            media: Media::mixed(),
            impairment: Impairment::default(),
            media_via: None,
            socket: SocketOptions::default(),
            seed: 1,
        }
    }

    fn wish(&self, slot: usize) -> Wish {
        let (number, publishes) = match self.roles {
            Roles::Publish => (slot, true),
            Roles::Play => (slot, false),
            Roles::Both => (slot / 2, slot.is_multiple_of(2)),
        };
        Wish { path: format!("{}{number}", self.stream_prefix), publishes }
    }

    fn invitation(&self, has_own_addresses: bool) -> Invitation {
        Invitation { http: self.http, sessions: self.sessions, has_own_addresses, seed: self.seed }
    }
}

/// Clients and their sessions.
pub struct Generator {
    inbox: ReceiveBatch,
    station: Station,
    clients: Clients,
    signalling: Option<Signalling>,
}

struct Clients {
    settings: GeneratorSettings,
    shares_socket: bool,
    /// By slot.
    clients: Vec<Client>,
    arrivals: Arrivals,
    /// When whose next check is due: before the first proof, and after it. All of a queue wait
    /// equally long, so its front is due first.
    knocking: Queue,
    checking: Queue,
    /// When whose next report is due.
    reporting: Queue,
}

/// When, which slot, which of the clients that the slot has had: what was planned for an earlier one
/// is not done for a later one.
type Queue = VecDeque<(u64, usize, u64)>;

struct Client {
    wish: Wish,
    /// How many have had the slot before.
    generation: u64,
    /// When it was due to ask.
    due_ns: u64,
    asked_ns: u64,
    state: State,
    location: Option<String>,
}

enum State {
    /// Not begun, or asked and not answered.
    Asking,
    Admitted {
        agent: Agent,
        route: Route,
        proven_ns: Option<u64>,
    },
    Over,
}

impl Generator {
    /// Opens the sockets. Nobody asks before the first turn.
    ///
    /// # Errors
    /// A socket cannot be opened: which address, and why.
    pub fn new(settings: GeneratorSettings) -> io::Result<Self> {
        let shares_socket = matches!(settings.http.ip(), IpAddr::V4(v4) if v4.is_loopback());
        let any = match settings.http {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let options = SocketOptions { destinations: shares_socket, ..settings.socket };
        let sockets = (0..if shares_socket { 1 } else { settings.sessions })
            .map(|_| batch::bind(any, options))
            .collect::<io::Result<Vec<_>>>()?;
        let clients = (0..settings.sessions).map(|slot| Client {
            wish: settings.wish(slot),
            generation: 0,
            due_ns: 0,
            asked_ns: 0,
            state: State::Asking,
            location: None,
        });
        Ok(Self {
            inbox: ReceiveBatch::new(settings.socket.trains),
            station: Station::new(
                settings.media.clone(),
                Sockets::new(sockets)?,
                settings.impairment,
                settings.seed,
            ),
            clients: Clients {
                clients: clients.collect(),
                arrivals: Arrivals::new(
                    settings.sessions,
                    settings.connect_rate,
                    settings.churn_rate,
                ),
                settings,
                shares_socket,
                knocking: VecDeque::new(),
                checking: VecDeque::new(),
                reporting: VecDeque::new(),
            },
            signalling: None,
        })
    }

    /// Runs in a thread of its own, pinned to `cpus` unless they are empty.
    ///
    /// # Errors
    /// As [`Generator::new`], or no thread can be started.
    pub fn start(
        settings: GeneratorSettings,
        cpus: Vec<usize>,
        sends_media: bool,
    ) -> io::Result<Worker> {
        Worker::start("webrtc clients", cpus, Self::new(settings)?, sends_media)
    }
}

impl Side for Generator {
    fn turn(&mut self, now_ns: u64, send_media: bool) -> io::Result<u64> {
        let Self { inbox, station, clients, signalling } = self;
        let signalling = match signalling {
            Some(signalling) => signalling,
            // Here and not earlier, so that its threads stay on this thread's CPUs.
            None => signalling.insert(Signalling::start(clients.invitation())?),
        };
        while let Some(reply) = signalling.reply() {
            clients.admit(station, reply, now_ns);
        }
        let arrivals_at = clients.arrive(station, signalling, now_ns);
        let sockets = station.sockets();
        sockets.drain(inbox, |socket, datagram, arrived_ns| {
            clients.hear(station, socket, datagram, arrived_ns);
        })?;
        let clients_at = clients.turn(station, now_ns);
        Ok(station.turn(now_ns, send_media).min(clients_at).min(arrivals_at))
    }

    fn sockets(&self) -> Arc<Sockets> {
        self.station.sockets()
    }

    fn board(&self) -> Arc<Board> {
        self.station.board()
    }

    fn finish(&mut self) {
        let replies = self.signalling.take().map(Signalling::stop).unwrap_or_default();
        for reply in replies {
            self.clients.admit(&mut self.station, reply, clock::now());
        }
        self.station.counts().deleted += self.clients.leave();
        for slot in 0..self.clients.clients.len() {
            self.station.close(slot);
        }
        self.station.finish();
    }
}

impl Clients {
    fn invitation(&self) -> Invitation {
        self.settings.invitation(self.shares_socket)
    }

    /// Has those ask who are due. Returns when there are more.
    fn arrive(&mut self, station: &mut Station, signalling: &Signalling, now_ns: u64) -> u64 {
        while let Some(arrival) = self.arrivals.take(now_ns) {
            let (slot, due_ns) = match arrival {
                Arrival::First { slot, due_ns } => (Some(slot), due_ns),
                Arrival::Replace { due_ns } => (self.make_room(station), due_ns),
            };
            if let Some(slot) = slot {
                self.ask(station, signalling, slot, due_ns);
            }
        }
        self.arrivals.next_at()
    }

    /// Ends a client's media and forgets it, all but what it has to DELETE. Gives its slot.
    fn make_room(&mut self, station: &mut Station) -> Option<usize> {
        let Self { clients, arrivals, .. } = self;
        let is_settled = |slot| {
            clients.get(slot).is_some_and(|client: &Client| match client.state {
                State::Asking | State::Admitted { proven_ns: None, .. } => false,
                State::Admitted { proven_ns: Some(_), .. } | State::Over => true,
            })
        };
        let slot = arrivals.pick(is_settled)?;
        station.close(slot);
        let client = clients.get_mut(slot)?;
        client.generation += 1;
        client.state = State::Asking;
        station.counts().started += 1;
        Some(slot)
    }

    fn ask(&mut self, station: &mut Station, signalling: &Signalling, slot: usize, due_ns: u64) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        let Client { generation, ref wish, .. } = *client;
        // It stays until there is a reply, so that it is ended even if nobody takes this order.
        let (wish, leaves) = (wish.clone(), client.location.clone());
        if !signalling.ask(Order { slot, generation, due_ns, wish, leaves }) {
            // One order per client always has room.
            client.state = State::Over;
            station.counts().timed_out += 1;
        }
    }

    /// Ends every session that has been granted. Returns how many the server says it has ended.
    fn leave(&mut self) -> u64 {
        let clients = self.clients.iter_mut().enumerate();
        let locations: Vec<(usize, String)> =
            clients.filter_map(|(slot, client)| Some((slot, client.location.take()?))).collect();
        signalling::delete_all(&self.invitation(), &locations)
    }

    /// Takes what a client was told, and begins its checks if it got in.
    fn admit(&mut self, station: &mut Station, reply: Reply, now_ns: u64) {
        let Reply { slot, due_ns, asked_ns, has_left, result } = reply;
        let media_via = self.settings.media_via;
        let seed = self.settings.seed ^ payload::mix(slot as u64);
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        (client.due_ns, client.asked_ns) = (due_ns, asked_ns);
        client.location = None;
        station.counts().ended += u64::from(has_left);
        station.counts().deleted += u64::from(has_left);
        match result {
            Ok(Admission { own, remote, candidate, location }) => {
                let route = Route {
                    socket: if self.shares_socket { 0 } else { slot },
                    to: media_via.unwrap_or(candidate),
                    from: self.shares_socket.then(|| loopback_source(slot)),
                };
                let agent = Agent::new(&own, &remote, seed);
                client.location = location;
                client.state = State::Admitted { agent, route, proven_ns: None };
                self.knock(station, slot, now_ns);
            }
            Err(status) => {
                client.state = State::Over;
                let counts = station.counts();
                counts.refused += 1;
                counts.refusal = u32::from(status);
                counts.failed += u64::from(client.generation > 0);
            }
        }
    }

    /// Does what is due. Returns when there is more to do.
    fn turn(&mut self, station: &mut Station, now_ns: u64) -> u64 {
        while let Some(slot) = pop_due(&mut self.knocking, &self.clients, now_ns) {
            self.knock(station, slot, now_ns);
        }
        while let Some(slot) = pop_due(&mut self.checking, &self.clients, now_ns) {
            self.check(station, slot, now_ns);
        }
        while let Some(slot) = pop_due(&mut self.reporting, &self.clients, now_ns) {
            if station.is_open(slot) {
                station.send_report(slot);
                self.plan_report(slot, now_ns);
            }
        }
        [&self.knocking, &self.checking, &self.reporting]
            .iter()
            .filter_map(|queue| queue.front())
            .map(|(due, ..)| *due)
            .min()
            .unwrap_or(u64::MAX)
    }

    fn plan_report(&mut self, slot: usize, now_ns: u64) {
        let generation = self.clients.get(slot).map_or(0, |client| client.generation);
        self.reporting.push_back((now_ns + REPORT_INTERVAL, slot, generation));
    }

    /// Sends a check of a client whose path is not proven yet, and plans the next.
    fn knock(&mut self, station: &mut Station, slot: usize, now_ns: u64) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        let State::Admitted { agent, route, proven_ns: None } = &mut client.state else {
            return;
        };
        if now_ns.saturating_sub(client.asked_ns) > CONNECT_TIMEOUT {
            client.state = State::Over;
            station.counts().timed_out += 1;
            station.counts().failed += u64::from(client.generation > 0);
            return;
        }
        station.send(*route, &agent.request(false));
        self.knocking.push_back((now_ns + KNOCK_INTERVAL, slot, client.generation));
    }

    /// Sends a check of a client whose path has been proven, and plans the next.
    fn check(&mut self, station: &mut Station, slot: usize, now_ns: u64) {
        let Some(client) = self.clients.get_mut(slot) else {
            return;
        };
        let State::Admitted { agent, route, proven_ns: Some(proven_ns) } = &mut client.state else {
            return;
        };
        if now_ns.saturating_sub(*proven_ns) > CONSENT_TIMEOUT {
            client.state = State::Over;
            close_by_peer(station, slot);
            return;
        }
        station.send(*route, &agent.request(true));
        self.checking.push_back((now_ns + CHECK_INTERVAL, slot, client.generation));
    }

    /// Takes a datagram.
    fn hear(
        &mut self,
        station: &mut Station,
        socket: usize,
        datagram: &Datagram<'_>,
        arrived_ns: u64,
    ) {
        station.counts().datagrams_in += 1;
        let slot = match datagram.destination {
            Some(destination) => slot_of_source(destination),
            None => Some(socket),
        };
        let found = slot.and_then(|slot| Some((slot, self.clients.get_mut(slot)?)));
        let Some((slot, Client { wish, due_ns, state, .. })) = found else {
            station.counts().strays += 1;
            return;
        };
        let State::Admitted { agent, route, proven_ns } = state else {
            station.counts().strays += 1;
            return;
        };
        if route.to != datagram.source {
            station.counts().strays += 1;
            return;
        }
        match Kind::of(datagram.bytes) {
            Kind::Stun => match agent.hear(datagram.bytes) {
                Outcome::Proven => {
                    station.counts().checks += 1;
                    if proven_ns.replace(arrived_ns).is_none() {
                        let (route, due_ns) = (*route, *due_ns);
                        let (stream, publishes) = (payload::identity(&wish.path), wish.publishes);
                        station.record_setup(arrived_ns.saturating_sub(due_ns));
                        station.open(slot, route, stream, publishes);
                        let now_ns = clock::now();
                        if !publishes {
                            self.plan_report(slot, now_ns);
                        }
                        // The first one behind the proof nominates the path.
                        self.check(station, slot, now_ns);
                    }
                }
                Outcome::Refused => {
                    *state = State::Over;
                    close_by_peer(station, slot);
                }
                Outcome::Forged => station.counts().invalid_checks += 1,
                // An answer that came twice.
                Outcome::Unrelated => {}
            },
            Kind::Rtp if !wish.publishes => station.hear_media(slot, datagram.bytes, arrived_ns),
            Kind::Rtcp => {}
            Kind::Rtp
            | Kind::Zrtp
            | Kind::Dtls
            | Kind::TurnChannel
            | Kind::Quic
            | Kind::Unknown => station.counts().strays += 1,
        }
    }
}

fn close_by_peer(station: &mut Station, slot: usize) {
    station.close(slot);
    station.counts().closed_by_peer += 1;
}

/// The next slot that something is due for which was planned for its present client.
fn pop_due(queue: &mut Queue, clients: &[Client], now_ns: u64) -> Option<usize> {
    while let Some((_, slot, generation)) = queue.pop_front_if(|(due, ..)| *due <= now_ns) {
        if clients.get(slot).is_some_and(|client| client.generation == generation) {
            return Some(slot);
        }
    }
    None
}

/// As often as FFmpeg and libwebrtc ask before they have been answered.
const KNOCK_INTERVAL: u64 = 50 * MILLISECOND;
/// As often as a browser asks once the path is stable.
const CHECK_INTERVAL: u64 = 2_500 * MILLISECOND;
/// From the offer on; FFmpeg's patience.
const CONNECT_TIMEOUT: u64 = 5 * SECOND;
/// RFC 7675, section 5.1.
const CONSENT_TIMEOUT: u64 = 30 * SECOND;
const REPORT_INTERVAL: u64 = SECOND;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Counts;
    use crate::pair::{Pair, Totals};
    use crate::payload::Tally;
    use crate::webrtc::origin::{Origin, OriginSettings};
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn settings(origin: &Origin, sessions: usize, roles: Roles) -> GeneratorSettings {
        GeneratorSettings { roles, ..GeneratorSettings::new(origin.http_address(), sessions) }
    }

    #[test]
    fn media_passes_both_ways_complete_and_in_order() {
        let origin = Origin::start(OriginSettings::default()).unwrap();
        let settings = settings(&origin, 20, Roles::Both);
        let clients = Generator::start(settings, Vec::new(), true).unwrap();
        let is_enough = |counts: &Counts| counts.media.received > 1_000;
        assert!(clients.wait_for(PATIENCE, is_enough) && origin.wait_for(PATIENCE, is_enough));
        let pair = Pair { origin: origin.worker(), clients: &clients };
        pair.send_media(false);
        pair.settle(Totals::default(), PATIENCE);
        let complete = |received| Tally { received, ..Tally::default() };
        assert_eq!(origin.counts().media, complete(clients.counts().sent));
        assert_eq!(clients.counts().media, complete(origin.counts().sent));
        assert_eq!((clients.counts().strays, origin.counts().strays), (0, 0));
        assert_eq!(clients.stop().unwrap().counts.deleted, 20);
        assert!(origin.wait_for(PATIENCE, |counts| counts.deleted == 20 && counts.open == 0));
    }

    #[test]
    fn clients_come_and_go_at_the_churn_rate() {
        let origin = Origin::start(OriginSettings::default()).unwrap();
        let settings = GeneratorSettings { churn_rate: 50.0, ..settings(&origin, 6, Roles::Both) };
        let clients = Generator::start(settings, Vec::new(), true).unwrap();
        assert!(clients.wait_for(PATIENCE, |counts| counts.ended >= 30));
        let counts = clients.stop().unwrap().counts;
        assert_eq!((counts.failed, counts.closed_by_peer, counts.media.damaged), (0, 0, 0));
        assert!(counts.started >= counts.ended && counts.connected > 30);
        assert!(origin.wait_for(PATIENCE, |origin| origin.open == 0));
        assert_eq!(origin.counts().deleted, counts.deleted);
    }

    #[test]
    fn the_origin_finds_exactly_what_the_impairment_lost() {
        let origin = Origin::start(OriginSettings::default()).unwrap();
        let impairment = Impairment { loss: 0.1, ..Impairment::default() };
        let settings = GeneratorSettings { impairment, ..settings(&origin, 10, Roles::Publish) };
        let clients = Generator::start(settings, Vec::new(), true).unwrap();
        assert!(origin.wait_for(PATIENCE, |counts| counts.media.received > 1_000));
        clients.send_media(false);
        // Twice, so that the order to stop has been seen in between.
        let mut sent = None;
        assert!(
            clients.wait_for(PATIENCE, |counts| sent.replace(counts.sent) == Some(counts.sent))
        );
        let counts = clients.counts();
        let expected = counts.sent - counts.impaired.lost;
        assert!(origin.wait_for(PATIENCE, |origin| origin.media.received == expected));
        assert!(counts.impaired.lost > 50);
        assert_eq!(origin.counts().media.reordered, 0);
    }

    #[test]
    fn players_report_once_per_second() {
        let origin = Origin::start(OriginSettings::default()).unwrap();
        let settings = settings(&origin, 3, Roles::Play);
        let clients = Generator::start(settings, Vec::new(), false).unwrap();
        assert!(origin.wait_for(PATIENCE, |counts| counts.reports == 3));
        assert_eq!(clients.counts().connected, 3);
    }

    #[test]
    fn a_proven_path_is_nominated_at_once() {
        let origin = Origin::start(OriginSettings::default()).unwrap();
        let settings = settings(&origin, 2, Roles::Publish);
        let clients = Generator::start(settings, Vec::new(), false).unwrap();
        // One check that proves the path, and one that nominates it.
        assert!(clients.wait_for(PATIENCE, |counts| counts.checks == 4));
        assert!(origin.wait_for(PATIENCE, |counts| counts.checks == 4));
    }

    #[test]
    fn clients_above_the_origins_limit_are_refused_with_its_status() {
        let settings_of_origin = OriginSettings { sessions_max: 1, ..OriginSettings::default() };
        let origin = Origin::start(settings_of_origin).unwrap();
        let settings = settings(&origin, 3, Roles::Publish);
        let clients = Generator::start(settings, Vec::new(), false).unwrap();
        assert!(clients.wait_for(PATIENCE, |counts| counts.refused == 2 && counts.connected == 1));
        assert_eq!(clients.counts().refusal, 503);
    }

    #[test]
    fn clients_over_ipv6_have_a_socket_each() {
        let any = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        let origin =
            Origin::start(OriginSettings { http: any, rtc: any, ..OriginSettings::default() });
        let origin = origin.unwrap();
        let settings = settings(&origin, 4, Roles::Both);
        let clients = Generator::start(settings, Vec::new(), true).unwrap();
        assert!(clients.wait_for(PATIENCE, |counts| counts.media.received > 50));
        assert!(origin.wait_for(PATIENCE, |counts| counts.media.received > 50));
        let clean = Tally { received: clients.counts().media.received, ..Tally::default() };
        assert_eq!((clients.counts().media, clients.counts().strays), (clean, 0));
    }
}
