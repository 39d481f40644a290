//! The sessions of one relay, loaded and judged by one thread: media goes in at one end when it is
//! due and is taken at the other.
//!
//! One thread does both, without sleeping, so that neither end waits for the other's turn on the
//! CPU: what is left of the latency is the relay's and the kernel's. Arrivals are stamped by the
//! kernel, so it does not matter when this thread gets to them. Latency counts from when a packet
//! was due, not from when it left: a stall of the generator is visible, and never a lower rate
//! (coordinated omission).
//!
//! Nobody acknowledges: every packet that the relay moves is one of the media counted here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use ringway::protocol::srt::{Header, Kind, SocketId};

use crate::batch::{Datagram, ReceiveBatch, SocketOptions};
use crate::clock::{self, MILLISECOND, SECOND};
use crate::generator::{Generator, GeneratorSettings, Roles};
use crate::origin::{Listener, OriginSettings};
use crate::pace::Pacer;
use crate::payload::{self, Order, Reading, Stamp, Tally};
use crate::result::Second;
use crate::rig::Direction;
use crate::sockets::Sockets;
use crate::srt;
use crate::station::{Media, Station};
use crate::worker::Side as _;

/// How the sessions of a lane are set up.
#[derive(Clone, Copy, Debug)]
pub struct LaneSettings {
    /// Which way the media goes.
    pub direction: Direction,
    /// Sessions.
    pub sessions: usize,
    /// Payload bytes of a packet.
    pub size: usize,
    /// Both ends on `::1` instead of `127.0.0.1`.
    pub ipv6: bool,
    /// The taking end accepts coalesced trains (`UDP_GRO`), as a network card that segments would.
    /// Otherwise the relay pays for the segmentation of what it sends together.
    pub takes_trains: bool,
}

impl LaneSettings {
    /// Loopback, at a port of the kernel's choice.
    #[must_use]
    pub fn any_address(self) -> SocketAddr {
        let ip = if self.ipv6 {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        } else {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        };
        SocketAddr::new(ip, 0)
    }
}

/// Packets that some of the sessions send.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// Which sessions, by number; they take turns.
    pub sessions: Range<usize>,
    /// Packets per second of all of them together.
    pub pps: f64,
    /// Packets of one session that leave together.
    pub burst: u16,
    /// They leave as one segmented send.
    pub train: bool,
}

/// What became of the packets of one turn.
#[derive(Clone, Debug)]
pub struct Passage {
    /// Packets that were due within the turn.
    pub due: u64,
    /// Packets that left by its end; the kernel had taken them.
    pub sent_in_time: u64,
    /// Packets that left.
    pub sent: u64,
    /// What arrived, and how.
    pub tally: Tally,
    /// Datagrams for none of the sessions.
    pub strays: u64,
    /// From due to arrival.
    pub latency: Histogram<u64>,
    /// From due to the send of it.
    pub lateness: Histogram<u64>,
    /// The length of the turn, without the wait for stragglers.
    pub elapsed_ns: u64,
    /// Packets that arrived within the turn.
    pub received_in_time: u64,
    /// The course of it.
    pub seconds: Vec<Second>,
    /// Datagrams that the taking end's own queue dropped.
    pub own_drops: u64,
    /// Packets that the kernel refused to send.
    pub send_errors: u64,
    /// Packets sent and arrived by number of the session; an origin does not know the numbers, so
    /// this is empty for media that go to the clients.
    pub sessions: Vec<(u64, u64)>,
}

/// Connected sessions.
pub struct Lane {
    direction: Direction,
    generator: Generator,
    listener: Listener,
    sink: Sink,
}

impl Lane {
    /// Starts the origin at an address, has `start_relay` start what stands before it and say where,
    /// and connects the sessions.
    ///
    /// # Errors
    /// The origin or the relay does not start, or not every session gets in.
    pub fn open(
        origin: SocketAddr,
        settings: LaneSettings,
        start_relay: impl FnOnce(SocketAddr) -> anyhow::Result<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let socket = SocketOptions {
            timestamps: true,
            trains: settings.takes_trains,
            ..SocketOptions::default()
        };
        let media = Media { size: settings.size, ..Media::default() };
        let mut listener = Listener::new(OriginSettings {
            media,
            is_alive: false,
            socket,
            ..OriginSettings::new(origin)
        })
        .context("start the origin")?;
        let target = start_relay(listener.station().sockets.address()?)?;
        let roles = match settings.direction {
            Direction::Up => Roles::Publish,
            Direction::Down => Roles::Play,
        };
        let generator = Generator::new(GeneratorSettings {
            roles,
            media,
            is_alive: false,
            socket,
            stream_prefix: STREAM_PREFIX.to_owned(),
            ..GeneratorSettings::new(target, settings.sessions)
        })
        .context("start the callers")?;
        let direction = settings.direction;
        let sink = Sink::new(settings);
        let mut lane = Self { direction, generator, listener, sink };
        lane.connect(settings.sessions)?;
        Ok(lane)
    }

    fn connect(&mut self, sessions: usize) -> anyhow::Result<()> {
        let all = sessions as u64;
        let deadline = clock::now() + CONNECT_PATIENCE;
        loop {
            self.attend()?;
            // What else the relay has to do for a session may want this CPU.
            clock::pause(Duration::from_micros(100));
            let counts = *self.generator.station().counts();
            if counts.connected == all {
                break;
            }
            ensure!(
                counts.refused == 0 && counts.timed_out == 0 && clock::now() < deadline,
                "{} of {sessions} sessions connected, {} refused (last type {}), {} unanswered",
                counts.connected,
                counts.refused,
                counts.refusal,
                counts.timed_out
            );
        }
        // The first packet of a session towards the origin may still be on its way.
        let quiet = clock::now() + QUIET;
        while clock::now() < quiet {
            self.attend()?;
        }
        self.sink.first = self.receiving().id_of(0);
        Ok(())
    }

    /// Lets both ends do what handshakes need.
    fn attend(&mut self) -> anyhow::Result<()> {
        let now = clock::now();
        self.generator.turn(now, false).context("drive the callers")?;
        self.listener.turn(now, false).context("drive the origin")?;
        Ok(())
    }

    /// Sends `flows` for `length` and waits for what is on its way then. `on_second` may add to
    /// each second what it knows of the relay.
    ///
    /// # Errors
    /// What the sockets report, or the sessions are gone.
    pub fn run(
        &mut self,
        flows: &[Flow],
        length: Duration,
        mut on_second: impl FnMut(&mut Second),
    ) -> anyhow::Result<Passage> {
        let sockets = Arc::clone(&self.receiving().sockets);
        let own_drops = sockets.receive_drops();
        let sending = match self.direction {
            Direction::Up => self.generator.station(),
            Direction::Down => self.listener.station(),
        };
        let mut senders = sending.senders().to_vec();
        senders.sort_unstable();
        let (before, strays) = (self.sink.tally, self.sink.strays);
        let received_before = self.sink.received_by_session();
        self.sink.start();
        let start = clock::now() + MILLISECOND;
        let end = start + u64::try_from(length.as_nanos()).unwrap_or(u64::MAX / 2);
        let mut course = Course::new(start, before);
        let mut source = Source::new(flows, senders, start, end);
        sending.publish();
        let refused_before = sending.counts().send_errors;
        loop {
            let now = clock::now();
            source.send_due(sending, now);
            self.sink.collect(&sockets)?;
            if course.is_due(now) {
                course.mark(now, source.sent, &mut self.sink, &mut on_second);
            }
            if now >= end {
                break;
            }
        }
        let (sent_in_time, received_in_time) =
            (source.sent, self.sink.tally.since(before).received);
        // What the relay still holds belongs to the turn; what the generator did not get to does
        // not.
        let mut last = (clock::now(), received_in_time);
        while last.1 < source.sent && clock::now() - last.0 < LOST_AFTER {
            self.sink.collect(&sockets)?;
            let received = self.sink.tally.since(before).received;
            if received > last.1 {
                last = (clock::now(), received);
            }
        }
        if clock::now() > course.next_ns - SECOND / 2 || course.seconds.is_empty() {
            course.mark(clock::now(), source.sent, &mut self.sink, &mut on_second);
        }
        self.sink.settle();
        sending.publish();
        let refused = sending.counts().send_errors - refused_before;
        ensure!(source.sent > 0, "the sessions are gone");
        let received = self.sink.received_by_session();
        let arrived = received.iter().zip(&received_before).map(|(after, before)| after - before);
        let sessions = source.sent_by_session.iter().copied().zip(arrived).collect();
        Ok(Passage {
            due: source.due(end),
            sent_in_time,
            sent: source.sent.saturating_sub(refused),
            tally: self.sink.tally.since(before),
            strays: self.sink.strays - strays,
            latency: self.sink.latency.clone(),
            lateness: source.lateness,
            elapsed_ns: end - start,
            received_in_time,
            seconds: course.seconds,
            own_drops: sockets.receive_drops() - own_drops,
            send_errors: refused,
            sessions,
        })
    }

    fn receiving(&mut self) -> &mut Station {
        match self.direction {
            Direction::Up => self.listener.station(),
            Direction::Down => self.generator.station(),
        }
    }
}

/// The sending end of a turn.
struct Source {
    flows: Vec<PacedFlow>,
    /// Slots by number of the session.
    senders: Vec<usize>,
    end_ns: u64,
    sent: u64,
    sent_by_session: Vec<u64>,
    lateness: Histogram<u64>,
}

struct PacedFlow {
    flow: Flow,
    start_ns: u64,
    pacer: Option<Pacer>,
    next: usize,
}

impl Source {
    fn new(flows: &[Flow], senders: Vec<usize>, start_ns: u64, end_ns: u64) -> Self {
        let flows = flows.iter().map(|flow| PacedFlow {
            pacer: Pacer::new(start_ns, flow.pps / f64::from(flow.burst.max(1))),
            next: flow.sessions.start,
            start_ns,
            flow: flow.clone(),
        });
        Self {
            flows: flows.collect(),
            sent_by_session: vec![0; senders.len()],
            senders,
            end_ns,
            sent: 0,
            lateness: payload::nanoseconds(),
        }
    }

    /// Sends what is due, but only so much that the taking end gets its turn.
    fn send_due(&mut self, station: &mut Station, now_ns: u64) {
        let limit = self.sent + PACKETS_PER_TURN;
        for paced in &mut self.flows {
            while self.sent < limit
                && let Some(pacer) = &mut paced.pacer
                && pacer.next_at() < self.end_ns
                && let Some(due_ns) = pacer.take(now_ns)
            {
                let session = paced.next;
                paced.next = if session + 1 < paced.flow.sessions.end {
                    session + 1
                } else {
                    paced.flow.sessions.start
                };
                let (Some(slot), Some(sent)) =
                    (self.senders.get(session), self.sent_by_session.get_mut(session))
                else {
                    continue;
                };
                let before = station.counts().sent;
                station.send_media(*slot, paced.flow.burst, paced.flow.train, due_ns);
                let packets = station.counts().sent - before;
                *sent += packets;
                self.sent += packets;
                self.lateness.saturating_record(now_ns.saturating_sub(due_ns).max(1));
            }
        }
        station.flush();
    }

    /// Packets that should have left by `end_ns`.
    fn due(&self, end_ns: u64) -> u64 {
        let due = self.flows.iter().map(|paced| {
            let seconds = (end_ns - paced.start_ns) as f64 / SECOND as f64;
            (paced.flow.pps * seconds).round() as u64
        });
        due.sum()
    }
}

/// The taking end.
struct Sink {
    inbox: ReceiveBatch,
    /// The socket ID of slot 0.
    first: SocketId,
    /// By slot of the taking end.
    seats: Vec<Seat>,
    /// The number of the session by its stream's identity.
    numbers: HashMap<u64, usize>,
    tally: Tally,
    strays: u64,
    /// Of the turn, without the second that is going on.
    latency: Histogram<u64>,
    /// Of the second that is going on.
    recent: Histogram<u64>,
}

#[derive(Clone, Default)]
struct Seat {
    /// Known from the first packet on; every later one has to be of the same stream.
    stream: Option<u64>,
    order: Order,
    received: u64,
}

impl Sink {
    fn new(settings: LaneSettings) -> Self {
        let numbers = match settings.direction {
            Direction::Up => (0..settings.sessions)
                .map(|number| (payload::identity(&format!("{STREAM_PREFIX}{number}")), number))
                .collect(),
            Direction::Down => HashMap::new(),
        };
        Self {
            inbox: ReceiveBatch::new(settings.takes_trains),
            first: SocketId(0),
            seats: vec![Seat::default(); settings.sessions],
            numbers,
            tally: Tally::default(),
            strays: 0,
            latency: payload::nanoseconds(),
            recent: payload::nanoseconds(),
        }
    }

    /// Forgets the latencies of the turn before.
    fn start(&mut self) {
        self.latency.reset();
        self.recent.reset();
    }

    /// Takes what has arrived.
    fn collect(&mut self, sockets: &Sockets) -> anyhow::Result<()> {
        let Self { inbox, first, seats, tally, strays, recent, .. } = self;
        let received = sockets.drain(inbox, |_, datagram, arrived_ns| {
            match take(*first, seats, tally, datagram) {
                Taken::Media(stamp) => {
                    recent.saturating_record(arrived_ns.saturating_sub(stamp.intended_ns).max(1));
                }
                Taken::Stray => *strays += 1,
                Taken::Other => {}
            }
        });
        received.context("receive")
    }

    /// Adds the second that is going on to the turn.
    fn settle(&mut self) {
        // Both have the same bounds, which is the only thing that can be wrong here.
        let _ = self.latency.add(&self.recent);
        self.recent.reset();
    }

    /// Packets so far by number of the session.
    fn received_by_session(&self) -> Vec<u64> {
        let mut received = vec![0; self.numbers.len()];
        for seat in &self.seats {
            let number = seat.stream.and_then(|stream| self.numbers.get(&stream));
            if let Some(place) = number.and_then(|number| received.get_mut(*number)) {
                *place += seat.received;
            }
        }
        received
    }
}

/// What a datagram was.
enum Taken {
    /// Media that counts.
    Media(Stamp),
    /// Control, or media that has been counted as damaged or twice there.
    Other,
    /// For none of the sessions.
    Stray,
}

fn take(first: SocketId, seats: &mut [Seat], tally: &mut Tally, datagram: &Datagram<'_>) -> Taken {
    let Ok(header) = Header::parse(datagram.bytes) else {
        return Taken::Stray;
    };
    if header.kind != Kind::Data {
        return Taken::Other;
    }
    let slot = header.destination.0.wrapping_sub(first.0) as usize;
    let (Some(seat), Some(payload)) = (seats.get_mut(slot), datagram.bytes.get(srt::HEADER_LEN..))
    else {
        return Taken::Stray;
    };
    if seat.stream.is_none()
        && let Reading::Stamped(stamp) = Stamp::read(payload)
    {
        seat.stream = Some(stamp.stream);
    }
    match tally.judge(&mut seat.order, seat.stream.unwrap_or_default(), payload) {
        Some(stamp) => {
            seat.received += 1;
            Taken::Media(stamp)
        }
        None => Taken::Other,
    }
}

/// The seconds of a turn.
struct Course {
    start_ns: u64,
    next_ns: u64,
    seconds: Vec<Second>,
    /// At the end of the last second: sent, and what had arrived.
    sent: u64,
    tally: Tally,
}

impl Course {
    fn new(start_ns: u64, tally: Tally) -> Self {
        Self { start_ns, next_ns: start_ns + SECOND, seconds: Vec::new(), sent: 0, tally }
    }

    fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.next_ns
    }

    /// Closes the second that is going on.
    fn mark(
        &mut self,
        now_ns: u64,
        sent: u64,
        sink: &mut Sink,
        on_second: &mut impl FnMut(&mut Second),
    ) {
        let since = sink.tally.since(self.tally);
        let mut second = Second {
            at_s: (now_ns - self.start_ns) as f64 / SECOND as f64,
            sent: sent - self.sent,
            received: since.received,
            lost: since.missing,
            reordered: since.reordered,
            cpu_ns: 0,
            p50_ns: sink.recent.value_at_quantile(0.5),
            p99_ns: sink.recent.value_at_quantile(0.99),
        };
        on_second(&mut second);
        self.seconds.push(second);
        sink.settle();
        (self.sent, self.tally) = (sent, sink.tally);
        self.next_ns += SECOND;
    }
}

const STREAM_PREFIX: &str = "live/bench";
const CONNECT_PATIENCE: u64 = 30 * SECOND;
/// Longer than anything takes that is on its way.
const QUIET: u64 = 5 * MILLISECOND;
/// Without a packet for this long there is none left.
const LOST_AFTER: u64 = 100 * MILLISECOND;
/// So that a generator that has fallen behind still takes what arrives: about half a millisecond.
const PACKETS_PER_TURN: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::{Baseline, Kind as BaselineKind};

    fn open(
        settings: LaneSettings,
        start_relay: impl FnOnce(SocketAddr) -> anyhow::Result<SocketAddr>,
    ) -> Lane {
        Lane::open(settings.any_address(), settings, start_relay).unwrap()
    }

    fn settings(direction: Direction, ipv6: bool) -> LaneSettings {
        LaneSettings { direction, sessions: 10, size: 1_316, ipv6, takes_trains: false }
    }

    fn flow(sessions: Range<usize>, pps: f64) -> Flow {
        Flow { sessions, pps, burst: 1, train: false }
    }

    /// A tenth of a second of one flow of 1,000 packets per second through a plain relay.
    fn passage(settings: LaneSettings) -> Passage {
        let mut relay = None;
        let mut lane = open(settings, |origin| {
            let any = SocketAddr::new(origin.ip(), 0);
            let started = relay.insert(Baseline::start(BaselineKind::Loop, any, origin, &[None])?);
            Ok(started.address())
        });
        let length = Duration::from_millis(100);
        lane.run(&[flow(0..settings.sessions, 1_000.0)], length, |_| {}).unwrap()
    }

    #[test]
    fn what_is_due_arrives_at_the_origin_and_is_counted_by_session() {
        let passage = passage(settings(Direction::Up, false));
        assert_eq!((passage.due, passage.sent), (100, 100));
        assert_eq!(passage.tally, Tally { received: 100, ..Tally::default() });
        assert_eq!(passage.latency.len(), 100);
        assert_eq!(passage.sessions, [(10, 10); 10]);
    }

    #[test]
    fn what_is_due_arrives_at_the_clients() {
        let passage = passage(settings(Direction::Down, false));
        assert_eq!(passage.tally, Tally { received: 100, ..Tally::default() });
    }

    #[test]
    fn media_passes_over_ipv6() {
        let passage = passage(settings(Direction::Up, true));
        assert_eq!(passage.tally, Tally { received: 100, ..Tally::default() });
    }

    #[test]
    fn the_sessions_of_a_flow_take_turns_and_others_send_nothing() {
        let mut lane = open(settings(Direction::Up, false), Ok);
        let flows = [flow(0..2, 400.0), flow(9..10, 100.0)];
        let passage = lane.run(&flows, Duration::from_millis(100), |_| {}).unwrap();
        let sent: Vec<u64> = passage.sessions.iter().map(|(sent, _)| *sent).collect();
        assert_eq!(sent, [20, 20, 0, 0, 0, 0, 0, 0, 0, 10]);
    }

    #[test]
    fn trains_arrive_as_the_packets_that_they_were_made_of() {
        let mut lane = open(settings(Direction::Up, false), Ok);
        let trains = [Flow { burst: 20, train: true, ..flow(0..10, 2_000.0) }];
        let passage = lane.run(&trains, Duration::from_millis(100), |_| {}).unwrap();
        assert_eq!(passage.tally, Tally { received: 200, ..Tally::default() });
    }

    #[test]
    fn a_stall_of_the_generator_is_latency_of_what_was_due_meanwhile() {
        let station =
            &mut Listener::new(OriginSettings::new("127.0.0.1:0".parse().unwrap())).unwrap();
        let mut source = Source::new(&[flow(0..1, 1_000.0)], vec![0], 0, SECOND);
        source.send_due(station.station(), 10 * MILLISECOND);
        assert_eq!(source.lateness.len(), 11);
        assert!(source.lateness.max() >= 10 * MILLISECOND);
    }

    #[test]
    fn every_second_is_reported_once() {
        let mut lane = open(settings(Direction::Up, false), Ok);
        let mut seen = 0;
        let length = Duration::from_millis(50);
        let passage = lane.run(&[flow(0..10, 1_000.0)], length, |_| seen += 1).unwrap();
        assert_eq!((seen, passage.seconds.len()), (1, 1));
        assert_eq!(passage.seconds[0].received, 50);
    }
}
