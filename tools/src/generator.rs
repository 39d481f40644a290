//! Many callers in one thread: real SRT handshakes, then paced media, acknowledgements and
//! keepalives.
//!
//! Towards an IPv4 loopback address every caller gets a source address of its own in 127.0.0.0/8
//! out of one socket; elsewhere every caller has a socket. Each is therefore a client of its own to
//! whatever limits the target keeps.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ringway::protocol::srt::{Handshake, HandshakeKind, SocketId};

use crate::arrivals::{Arrival, Arrivals};
use crate::batch::{self, Datagram, ReceiveBatch, Route, SocketOptions};
use crate::board::Board;
use crate::clock::{self, MILLISECOND, SECOND, srt_timestamp};
use crate::impair::Impairment;
use crate::link::{Ends, Link};
use crate::payload;
use crate::sockets::{Sockets, loopback_source};
use crate::srt::{Caller, SEQUENCE_MASK};
use crate::station::{Media, Station, StationSettings, receive};
use crate::worker::{Side, Worker};

/// What the callers want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Roles {
    /// All send media.
    Publish,
    /// All receive media.
    Play,
    /// Even ones publish; each odd one plays the stream of the one before.
    Both,
}

/// Who calls, how many, and what they send.
#[derive(Clone, Debug)]
pub struct GeneratorSettings {
    /// The relay or listener.
    pub target: SocketAddr,
    /// Callers.
    pub sessions: usize,
    /// What they want.
    pub roles: Roles,
    /// Callers that begin per second.
    pub connect_rate: f64,
    /// Once all have begun: callers per second that say goodbye and are replaced by new ones.
    pub churn_rate: f64,
    /// Streams are called this and a number.
    pub stream_prefix: String,
    /// What publishers send.
    pub media: Media,
    /// What becomes of everything that they send.
    pub impairment: Impairment,
    /// Send full ACKs and keepalives unasked.
    pub is_alive: bool,
    /// How its sockets are set up.
    pub socket: SocketOptions,
    /// For socket IDs, sequence numbers and filler.
    pub seed: u64,
}

impl GeneratorSettings {
    /// `sessions` live callers of `target`, half of them publishers.
    #[must_use]
    pub fn new(target: SocketAddr, sessions: usize) -> Self {
        Self {
            target,
            sessions,
            roles: Roles::Both,
            connect_rate: 1_000.0,
            churn_rate: 0.0,
            stream_prefix: "live/bench".to_owned(),
            media: Media::default(),
            impairment: Impairment::default(),
            is_alive: true,
            socket: SocketOptions::default(),
            seed: 1,
        }
    }
}

/// Callers and their connections.
pub struct Generator {
    inbox: ReceiveBatch,
    station: Station,
    callers: Callers,
}

struct Callers {
    calls: Vec<Call>,
    arrivals: Arrivals,
    /// When to repeat the last handshake packet of the call that has this ID. All wait equally long,
    /// so the front is due first.
    repeats: VecDeque<(u64, SocketId)>,
    seed: u64,
}

struct Call {
    caller: Caller,
    route: Route,
    is_publisher: bool,
    /// The stream's identity.
    stream: u64,
    /// When it was due to begin.
    due_ns: u64,
    started_ns: u64,
    /// Whether it took the place of another.
    is_replacement: bool,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Waiting,
    Induction,
    Conclusion { cookie: u32 },
    Done,
}

impl Generator {
    /// Opens the sockets. Nobody calls before the first turn.
    ///
    /// # Errors
    /// A socket cannot be opened: which address, and why.
    pub fn new(settings: GeneratorSettings) -> io::Result<Self> {
        let shares_socket = matches!(settings.target.ip(), IpAddr::V4(v4) if v4.is_loopback());
        let any = match settings.target {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let sockets = (0..if shares_socket { 1 } else { settings.sessions })
            .map(|_| batch::bind(any, settings.socket))
            .collect::<io::Result<Vec<_>>>()?;
        let station = Station::new(
            StationSettings {
                media: settings.media,
                is_alive: settings.is_alive,
                idle_timeout_ns: IDLE_TIMEOUT,
                slots_max: settings.sessions,
                impairment: settings.impairment,
                seed: settings.seed,
            },
            Sockets::new(sockets)?,
        );
        let calls = (0..settings.sessions)
            .map(|slot| {
                let route = Route {
                    socket: if shares_socket { 0 } else { slot },
                    to: settings.target,
                    from: shares_socket.then(|| loopback_source(slot)),
                };
                Call::new(&settings, slot, station.id_of(slot), route)
            })
            .collect();
        let GeneratorSettings { sessions, connect_rate, churn_rate, seed, .. } = settings;
        let arrivals = Arrivals::new(sessions, connect_rate, churn_rate);
        Ok(Self {
            inbox: ReceiveBatch::new(settings.socket.trains),
            station,
            callers: Callers { calls, arrivals, repeats: VecDeque::new(), seed },
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
        Worker::start("generator", cpus, Self::new(settings)?, sends_media)
    }

    /// What connects and counts, for those who drive the callers step by step.
    pub fn station(&mut self) -> &mut Station {
        &mut self.station
    }
}

impl Side for Generator {
    fn turn(&mut self, now_ns: u64, send_media: bool) -> io::Result<u64> {
        let Self { inbox, station, callers } = self;
        receive(inbox, station, |station, _, datagram| callers.hear(station, datagram))?;
        let callers_at = callers.turn(station, now_ns);
        Ok(station.turn(now_ns, send_media).min(callers_at))
    }

    fn sockets(&self) -> Arc<Sockets> {
        Arc::clone(&self.station.sockets)
    }

    fn board(&self) -> Arc<Board> {
        self.station.board()
    }

    fn finish(&mut self) {
        self.station.finish();
    }
}

impl Callers {
    /// Begins and ends the calls that are due and repeats what was not answered. Returns when there
    /// is more to do.
    fn turn(&mut self, station: &mut Station, now_ns: u64) -> u64 {
        while let Some(arrival) = self.arrivals.take(now_ns) {
            match arrival {
                Arrival::First { slot, due_ns } => self.begin(station, slot, due_ns, now_ns),
                Arrival::Replace { due_ns } => self.replace(station, due_ns, now_ns),
            }
        }
        while let Some((_, id)) = self.repeats.pop_front_if(|(due, _)| *due <= now_ns) {
            if let Some(slot) = station.slot_of(id) {
                self.knock(station, slot, now_ns);
            }
        }
        let repeat_at = self.repeats.front().map_or(u64::MAX, |(due, _)| *due);
        self.arrivals.next_at().min(repeat_at)
    }

    fn begin(&mut self, station: &mut Station, slot: usize, due_ns: u64, now_ns: u64) {
        if let Some(call) = self.calls.get_mut(slot) {
            (call.due_ns, call.started_ns) = (due_ns, now_ns);
            call.progress = Progress::Induction;
        }
        self.knock(station, slot, now_ns);
    }

    /// Ends a call, if it has not ended by itself, and begins another from the same place.
    fn replace(&mut self, station: &mut Station, due_ns: u64, now_ns: u64) {
        let Self { calls, arrivals, seed, .. } = self;
        let is_settled =
            |slot| calls.get(slot).is_some_and(|call: &Call| call.progress == Progress::Done);
        let Some(slot) = arrivals.pick(is_settled) else {
            return;
        };
        let was_open = station.close(slot, true);
        station.renew(slot);
        if let Some(call) = calls.get_mut(slot) {
            call.renew(*seed, station.id_of(slot));
        }
        let counts = station.counts();
        counts.ended += u64::from(was_open);
        counts.started += 1;
        self.begin(station, slot, due_ns, now_ns);
    }

    /// Sends the handshake packet that the call's progress asks for, and plans its repetition.
    fn knock(&mut self, station: &mut Station, slot: usize, now_ns: u64) {
        let Some(call) = self.calls.get_mut(slot) else {
            return;
        };
        let timestamp = srt_timestamp(call.started_ns, now_ns);
        let packet = match call.progress {
            Progress::Waiting | Progress::Done => return,
            Progress::Induction => call.caller.induction(timestamp),
            Progress::Conclusion { cookie } => call.caller.conclusion(timestamp, cookie),
        };
        if now_ns.saturating_sub(call.started_ns) > CONNECT_TIMEOUT {
            call.progress = Progress::Done;
            station.counts().timed_out += 1;
            station.counts().failed += u64::from(call.is_replacement);
            return;
        }
        station.send(call.route, &packet);
        self.repeats.push_back((now_ns + REPEAT_INTERVAL, call.caller.socket));
    }

    /// Takes a handshake packet.
    fn hear(&mut self, station: &mut Station, datagram: &Datagram<'_>) {
        let Ok(handshake) = Handshake::parse(datagram.bytes) else {
            station.counts().strays += 1;
            return;
        };
        let slot = station.slot_of(handshake.destination);
        let now_ns = clock::now();
        let call = slot.and_then(|slot| Some((slot, self.calls.get_mut(slot)?)));
        let (slot, call) = match call {
            Some((slot, call)) if call.route.to == datagram.source => (slot, call),
            Some(_) | None => {
                station.counts().strays += 1;
                return;
            }
        };
        match (call.progress, handshake.kind) {
            (Progress::Induction, HandshakeKind::Induction) => {
                call.progress = Progress::Conclusion { cookie: handshake.cookie };
                let packet = call
                    .caller
                    .conclusion(srt_timestamp(call.started_ns, now_ns), handshake.cookie);
                station.send(call.route, &packet);
            }
            (Progress::Conclusion { .. }, HandshakeKind::Conclusion) => {
                call.progress = Progress::Done;
                station.record_setup(now_ns.saturating_sub(call.due_ns));
                let ends = Ends { local: call.caller.socket, remote: handshake.socket };
                let link = Link::new(
                    ends,
                    call.caller.initial_sequence,
                    call.stream,
                    call.started_ns,
                    now_ns,
                );
                station.open(slot, link, call.route, call.is_publisher);
            }
            (Progress::Induction | Progress::Conclusion { .. }, HandshakeKind::Rejection(code)) => {
                call.progress = Progress::Done;
                let counts = station.counts();
                counts.refused += 1;
                counts.refusal = code;
                counts.failed += u64::from(call.is_replacement);
            }
            // A repeated answer, or something no listener sends: neither changes anything.
            (
                Progress::Waiting
                | Progress::Induction
                | Progress::Conclusion { .. }
                | Progress::Done,
                _,
            ) => {}
        }
    }
}

impl Call {
    fn new(settings: &GeneratorSettings, slot: usize, socket: SocketId, route: Route) -> Self {
        let (number, is_publisher) = match settings.roles {
            Roles::Publish => (slot, true),
            Roles::Play => (slot, false),
            Roles::Both => (slot / 2, slot.is_multiple_of(2)),
        };
        let path = format!("{}{number}", settings.stream_prefix);
        let mode = if is_publisher { "publish" } else { "request" };
        Self {
            stream: payload::identity(&path),
            caller: Caller {
                socket,
                initial_sequence: initial_sequence(settings.seed, slot as u64),
                stream_id: format!("#!::r={path},m={mode}"),
                latency_ms: 120,
                listener: settings.target.ip(),
            },
            route,
            is_publisher,
            due_ns: 0,
            started_ns: 0,
            is_replacement: false,
            progress: Progress::Waiting,
        }
    }

    /// Becomes another socket of the same host, with the same wish.
    fn renew(&mut self, seed: u64, socket: SocketId) {
        self.caller.socket = socket;
        self.caller.initial_sequence = initial_sequence(seed, u64::from(socket.0));
        self.is_replacement = true;
    }
}

fn initial_sequence(seed: u64, caller: u64) -> u32 {
    payload::mix(seed ^ payload::mix(caller)) as u32 & SEQUENCE_MASK
}

/// libsrt's interval and default patience (draft-sharabayko-srt, section 4.3; SRTO_CONNTIMEO).
const REPEAT_INTERVAL: u64 = 250 * MILLISECOND;
const CONNECT_TIMEOUT: u64 = 3 * SECOND;
/// SRTO_PEERIDLETIMEO.
const IDLE_TIMEOUT: u64 = 5 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::{Origin, OriginSettings};
    use crate::shape::Shape;
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(10);
    const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn settings(target: SocketAddr, sessions: usize, roles: Roles) -> GeneratorSettings {
        GeneratorSettings { roles, ..GeneratorSettings::new(target, sessions) }
    }

    #[test]
    fn publishers_connect_and_all_their_media_arrives_in_order() {
        let origin = Origin::start(OriginSettings::new(ANY)).unwrap();
        let settings = settings(origin.address().unwrap(), 20, Roles::Publish);
        let generator = Generator::start(settings, Vec::new(), true).unwrap();
        assert!(origin.wait_for(PATIENCE, |counts| counts.media.received > 1_000));
        let sent = generator.stop().unwrap().counts;
        assert!(
            origin.wait_for(PATIENCE, |counts| counts.media.received == sent.sent
                && counts.open == 0)
        );
        let received = origin.stop().unwrap().counts.media;
        assert_eq!((sent.connected, sent.refused, sent.timed_out), (20, 0, 0));
        assert_eq!(received, payload::Tally { received: sent.sent, ..payload::Tally::default() });
    }

    #[test]
    fn players_receive_the_media_of_the_origin_and_acknowledge_it() {
        let origin = Origin::start(OriginSettings::new(ANY)).unwrap();
        let settings = settings(origin.address().unwrap(), 4, Roles::Play);
        let generator = Generator::start(settings, Vec::new(), true).unwrap();
        assert!(generator.wait_for(PATIENCE, |counts| counts.media.received > 200));
        assert!(origin.wait_for(PATIENCE, |counts| counts.acknowledged > 200));
        let received = generator.stop().unwrap().counts.media;
        assert_eq!(
            received,
            payload::Tally { received: received.received, ..payload::Tally::default() }
        );
    }

    #[test]
    fn trains_arrive_as_the_packets_they_were_made_of() {
        let trains = SocketOptions { trains: true, ..SocketOptions::default() };
        let origin =
            Origin::start(OriginSettings { socket: trains, ..OriginSettings::new(ANY) }).unwrap();
        let media = Media { burst: 32, train: true, ..Media::default() };
        let settings =
            GeneratorSettings { media, ..settings(origin.address().unwrap(), 2, Roles::Publish) };
        let generator = Generator::start(settings, Vec::new(), true).unwrap();
        assert!(origin.wait_for(PATIENCE, |counts| counts.media.received >= 64));
        let sent = generator.stop().unwrap().counts;
        assert!(origin.wait_for(PATIENCE, |counts| counts.media.received == sent.sent));
        assert_eq!(origin.counts().media.damaged, 0);
    }

    #[test]
    fn a_refusal_is_counted_with_its_code() {
        let refuse = Some(2_403);
        let origin = Origin::start(OriginSettings { refuse, ..OriginSettings::new(ANY) }).unwrap();
        let settings = settings(origin.address().unwrap(), 3, Roles::Both);
        let generator = Generator::start(settings, Vec::new(), true).unwrap();
        assert!(generator.wait_for(PATIENCE, |counts| counts.refused == 3));
        assert_eq!(generator.counts().refusal, 2_403);
    }

    #[test]
    fn a_conclusion_that_got_lost_is_repeated() {
        let drop_first_conclusion = true;
        let origin =
            Origin::start(OriginSettings { drop_first_conclusion, ..OriginSettings::new(ANY) })
                .unwrap();
        let settings = settings(origin.address().unwrap(), 3, Roles::Both);
        let generator = Generator::start(settings, Vec::new(), false).unwrap();
        assert!(generator.wait_for(PATIENCE, |counts| counts.connected == 3));
        let fastest = generator.published().setup.min();
        assert!(fastest >= REPEAT_INTERVAL - MILLISECOND, "connected within {fastest} ns");
    }

    #[test]
    fn callers_give_up_on_a_silent_origin() {
        let silent = true;
        let origin = Origin::start(OriginSettings { silent, ..OriginSettings::new(ANY) }).unwrap();
        let settings = settings(origin.address().unwrap(), 2, Roles::Both);
        let generator = Generator::start(settings, Vec::new(), false).unwrap();
        assert!(generator.wait_for(PATIENCE, |counts| counts.timed_out == 2));
    }

    #[test]
    fn callers_outside_of_loopback_ipv4_have_a_socket_each() {
        let listen = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        let origin = Origin::start(OriginSettings::new(listen)).unwrap();
        let settings = settings(origin.address().unwrap(), 6, Roles::Both);
        let generator = Generator::start(settings, Vec::new(), true).unwrap();
        assert!(
            generator
                .wait_for(PATIENCE, |counts| counts.connected == 6 && counts.media.received > 100)
        );
        assert!(origin.wait_for(PATIENCE, |counts| counts.media.received > 100));
    }

    #[test]
    fn callers_come_and_go_at_the_churn_rate_and_lose_nothing() {
        let origin = Origin::start(OriginSettings::new(ANY)).unwrap();
        let settings = GeneratorSettings {
            churn_rate: 100.0,
            ..settings(origin.address().unwrap(), 8, Roles::Publish)
        };
        let generator = Generator::start(settings, Vec::new(), true).unwrap();
        assert!(generator.wait_for(PATIENCE, |counts| counts.ended >= 60));
        let sent = generator.stop().unwrap().counts;
        assert!(origin.wait_for(PATIENCE, |counts| counts.media.received == sent.sent));
        let heard = origin.stop().unwrap().counts;
        assert_eq!((sent.ended, sent.failed, sent.closed_by_peer), (sent.started, 0, 0));
        // Those that were still calling when the test ended may be known to the origin alone.
        assert!(heard.connected >= sent.connected && sent.connected > 60);
        let all = payload::Tally { received: sent.sent, ..payload::Tally::default() };
        assert_eq!(heard.media, all);
    }

    #[test]
    fn a_replacement_that_is_refused_is_counted_as_failed() {
        let refuse = Some(2_403);
        let origin = Origin::start(OriginSettings { refuse, ..OriginSettings::new(ANY) }).unwrap();
        let settings = GeneratorSettings {
            churn_rate: 200.0,
            ..settings(origin.address().unwrap(), 2, Roles::Both)
        };
        let generator = Generator::start(settings, Vec::new(), true).unwrap();
        assert!(generator.wait_for(PATIENCE, |counts| counts.failed >= 5));
        let counts = generator.stop().unwrap().counts;
        assert_eq!((counts.ended, counts.refused), (0, counts.failed + 2));
    }

    #[test]
    fn each_shape_arrives_complete() {
        for shape in [Shape::SrtLive, Shape::Video, Shape::Audio, Shape::Mixed] {
            for train in [false, true] {
                let origin = Origin::start(OriginSettings::new(ANY)).unwrap();
                let media = Media { shape, train, ..Media::default() };
                let address = origin.address().unwrap();
                let settings = GeneratorSettings { media, ..settings(address, 4, Roles::Publish) };
                let generator = Generator::start(settings, Vec::new(), true).unwrap();
                assert!(origin.wait_for(PATIENCE, |counts| counts.media.received > 100));
                let sent = generator.stop().unwrap().counts.sent;
                assert!(origin.wait_for(PATIENCE, |counts| counts.media.received == sent));
                let all = payload::Tally { received: sent, ..payload::Tally::default() };
                assert_eq!(origin.counts().media, all, "{shape:?}");
            }
        }
    }

    #[test]
    fn the_origin_finds_exactly_what_the_impairment_did() {
        let origin = Origin::start(OriginSettings::new(ANY)).unwrap();
        let impairment = Impairment {
            loss: 0.05,
            duplicate: 0.05,
            reorder: 0.05,
            reorder_distance: 4,
            delay_ns: 5 * MILLISECOND,
            jitter_ns: 2 * MILLISECOND,
        };
        let media = Media { rate: 1_000.0, ..Media::default() };
        let settings = GeneratorSettings {
            impairment,
            media,
            ..settings(origin.address().unwrap(), 4, Roles::Publish)
        };
        let generator = Generator::start(settings, Vec::new(), true).unwrap();
        assert!(origin.wait_for(PATIENCE, |counts| counts.media.received > 2_000));
        generator.send_media(false);
        let sent = generator.stop().unwrap().counts;
        let expected = sent.sent - sent.impaired.missing();
        assert!(origin.wait_for(PATIENCE, |counts| counts.media.received == expected));
        let heard = origin.counts().media;
        assert!(sent.impaired.lost > 50 && sent.impaired.reordered > 50);
        assert_eq!(heard.duplicates, sent.impaired.duplicated);
        assert_eq!(heard.reordered, sent.impaired.reordered);
        assert!(origin.stats().latency.min() >= 3 * MILLISECOND);
    }

    #[test]
    fn the_latency_of_a_stalled_sender_counts_from_when_packets_were_due() {
        let origin = Origin::start(OriginSettings::new(ANY)).unwrap();
        let settings = settings(origin.address().unwrap(), 1, Roles::Publish);
        let mut generator = Generator::new(settings).unwrap();
        let deadline = clock::now() + SECOND;
        while generator.station().counts().open == 0 && clock::now() < deadline {
            generator.turn(clock::now(), true).unwrap();
        }
        // A stall of 100 ms: the sender is not called, and 20 packets become due.
        let stalled_at = clock::now();
        while clock::now() < stalled_at + 100 * MILLISECOND {
            std::hint::spin_loop();
        }
        generator.turn(clock::now(), true).unwrap();
        let sent = generator.station().counts().sent;
        assert!(sent >= 20, "{sent} packets: the stall was forgiven");
        assert!(origin.wait_for(PATIENCE, |counts| counts.media.received == sent));
        let stats = origin.stats();
        assert!(stats.due_latency.max() >= 95 * MILLISECOND);
        assert!(stats.due_latency.mean() >= stats.latency.mean() + 30.0 * MILLISECOND as f64);
    }

    #[test]
    fn the_same_seed_makes_the_same_callers() {
        let settings = GeneratorSettings::new(ANY, 2);
        let route = Route { socket: 0, to: ANY, from: None };
        let [one, two] = [0, 0].map(|_| Call::new(&settings, 1, SocketId(1), route).caller);
        assert_eq!(one, two);
    }
}
