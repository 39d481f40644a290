//! Clients, a relay and origins in virtual time, with a network between them that loses, repeats, delays and reorders.
//!
//! Every run is a seed. What must hold for each of them: a caller is either connected or refused, never both; media
//! reaches the origin that took the caller and nobody else; control hears of every session's end exactly once; and when
//! everybody has left, every table is empty and every port closed. `RINGWAY_SEED=n` replays one seed.

mod webrtc;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringway::protocol::srt::Rejection;
use ringway::shard::{
    Command, EndReason, Event, OriginId, Port, PortError, Route, SessionKey, Verdict,
};

use crate::support::packets::{self, CONCLUSION, Fields, INDUCTION};
use crate::support::random::Random;
use crate::support::stage::{Out, Stage};

#[test]
fn whatever_the_network_does_a_handshake_completes_or_is_refused_and_the_tables_end_empty() {
    #[allow(
        clippy::disallowed_methods,
        reason = "replays one seed by hand; no behaviour hangs on it"
    )]
    let only = std::env::var("RINGWAY_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = only.map_or(0..300_u64, |seed: u64| seed..seed + 1);
    let mut connected = 0;
    let mut refused = 0;
    for seed in seeds {
        let world = World::new(seed).run();
        connected += world.clients.iter().filter(|client| client.listener.is_some()).count();
        refused += world.clients.iter().filter(|client| client.refusal.is_some()).count();
    }
    // A simulation in which nothing ever happens would hold every invariant.
    assert!(only.is_some() || (connected > 500 && refused > 300), "{connected} and {refused}");
}

#[test]
fn without_loss_every_caller_of_a_living_origin_connects_and_every_other_is_told_why() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        world.weather = Weather { loss: 0, repeat: 0, delay_max: Duration::from_millis(20) };
        let world = world.run();
        for client in &world.clients {
            let living = matches!(client.origin, Some(Temper::Libsrt | Temper::Gosrt));
            assert_eq!(client.listener.is_some(), living, "seed {seed}: {client:?}");
            assert_eq!(client.refusal.is_some(), !living, "seed {seed}: {client:?}");
        }
    }
}

#[test]
fn whatever_operators_and_restarts_do_besides_the_tables_end_empty_and_every_end_is_told_once() {
    let (mut restarted, mut emptied) = (0, 0);
    for seed in 0..200 {
        let mut world = World::new(seed);
        world.make_unrest();
        let world = world.run();
        restarted += world.clients.iter().filter(|client| client.sequence % 10_000 != 0).count();
        emptied += world.emptied;
    }
    assert!(restarted > 200 && emptied > 30, "{restarted} and {emptied}");
}

/// How an origin behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Temper {
    /// Answers every conclusion, repeated ones too.
    Libsrt,
    /// Answers the first conclusion only.
    Gosrt,
    /// Answers inductions and refuses conclusions.
    Refusing,
    Silent,
    /// Its port is closed.
    Dead,
}

struct Weather {
    /// Of 100 datagrams.
    loss: u64,
    /// Of 100 datagrams.
    repeat: u64,
    delay_max: Duration,
}

struct World {
    seed: u64,
    random: Random,
    weather: Weather,
    stage: Stage,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    clients: Vec<Client>,
    origins: Vec<Temper>,
    /// What an origin knows of each port of the relay.
    accepted: BTreeMap<SessionKey, Accepted>,
    ports: BTreeMap<SessionKey, usize>,
    picks: BTreeMap<SessionKey, u32>,
    /// Callers begin anew under the same socket ID this often.
    restarts_max: u32,
    /// Counts the restarts of origins: cookies and sockets of before mean nothing to them.
    origin_epoch: u32,
    /// Shards that were told to close everything, and said that they had.
    closed: u32,
    emptied: u32,
}

enum Happening {
    ToRelay { source: SocketAddr, bytes: Vec<u8> },
    ToClient { client: SocketAddr, bytes: Vec<u8> },
    ToOrigin { session: SessionKey, bytes: Vec<u8> },
    FromOrigin { session: SessionKey, bytes: Vec<u8> },
    Picked { session: SessionKey },
    ClientActs(usize),
    OriginActs(SessionKey),
    OriginsRestart,
    Ordered(Order),
}

/// What an operator does.
enum Order {
    Drain,
    CloseOne,
    CloseAll,
}

#[derive(Debug)]
struct Client {
    address: SocketAddr,
    socket: u32,
    sequence: u32,
    cookie: Option<u32>,
    begun: Instant,
    /// The origin's socket ID, once connected.
    listener: Option<u32>,
    refusal: Option<u32>,
    origin: Option<Temper>,
    sent: u32,
    quits_after: u32,
    /// A goodbye has come.
    is_over: bool,
}

struct Accepted {
    cookie: u32,
    /// The caller's initial sequence number: which client this is.
    sequence: Option<u32>,
    listener: u32,
    caller: u32,
    heard: Instant,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let stage = Stage::new();
        let tempers =
            [Temper::Libsrt, Temper::Gosrt, Temper::Refusing, Temper::Silent, Temper::Dead];
        let origins = (0..3).map(|_| tempers[random.below(5) as usize]).collect();
        let clients = (0..8)
            .map(|i: u16| Client {
                // Two callers behind each address and port.
                address: SocketAddr::from(([203, 0, 113, 9], 5000 + i / 2)),
                socket: 100 + u32::from(i),
                sequence: 10_000 * (u32::from(i) + 1),
                cookie: None,
                begun: stage.now + Duration::from_millis(random.below(2000)),
                listener: None,
                refusal: None,
                origin: None,
                sent: 0,
                quits_after: random.below(40) as u32,
                is_over: false,
            })
            .collect();
        let weather = Weather {
            loss: random.below(30),
            repeat: random.below(30),
            delay_max: Duration::from_millis(1 + random.below(300)),
        };
        Self {
            seed,
            random,
            weather,
            stage,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            clients,
            origins,
            accepted: BTreeMap::new(),
            ports: BTreeMap::new(),
            picks: BTreeMap::new(),
            restarts_max: 0,
            origin_epoch: 0,
            closed: 0,
            emptied: 0,
        }
    }

    /// Adds operators, callers that begin anew and origins that forget.
    fn make_unrest(&mut self) {
        self.restarts_max = 3;
        for _ in 0..self.random.below(6) {
            self.sometime(4000, Happening::Ordered(Order::CloseOne));
        }
        if self.random.below(3) == 0 {
            self.sometime(4000, Happening::OriginsRestart);
        }
        if self.random.below(4) == 0 {
            self.sometime(6000, Happening::Ordered(Order::Drain));
        }
        if self.random.below(4) == 0 {
            self.sometime(6000, Happening::Ordered(Order::CloseAll));
        }
    }

    fn sometime(&mut self, within_ms: u64, happening: Happening) {
        let time = self.stage.now + Duration::from_millis(self.random.below(within_ms));
        self.at(time, happening);
    }

    fn run(mut self) -> Self {
        for client in 0..self.clients.len() {
            let begun = self.clients[client].begun;
            self.at(begun, Happening::ClientActs(client));
        }
        while let Some(&Reverse((time, id))) = self.queue.peek() {
            // The shard's own timers come first.
            let due = self.stage.shard.poll_timeout().filter(|due| *due <= time);
            if let Some(due) = due {
                let ahead = due.saturating_duration_since(self.stage.now);
                self.stage.pass(ahead);
            } else {
                self.queue.pop();
                let ahead = time.saturating_duration_since(self.stage.now);
                self.stage.pass(ahead);
                let happening = self.happenings.remove(&id).unwrap();
                self.happen(happening);
            }
            self.settle();
        }
        self.stage.pass(Duration::from_secs(60));
        self.settle();
        self.check_the_end();
        self
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::ToRelay { source, bytes } => {
                let verdict = self.stage.client_sends(source, &bytes);
                if let Verdict::Forward(Route { port: Port::Session(session), .. }) = verdict {
                    self.carry(Happening::ToOrigin { session, bytes });
                }
            }
            Happening::FromOrigin { session, bytes } => {
                let verdict = self.stage.origin_sends(session, &bytes);
                if let Verdict::Forward(Route { to: Some(peer), .. }) = verdict {
                    self.carry(Happening::ToClient { client: peer.address, bytes });
                }
            }
            Happening::ToClient { client, bytes } => self.client_hears(client, &bytes),
            Happening::ToOrigin { session, bytes } => self.origin_hears(session, &bytes),
            Happening::Picked { session } => self.picked(session),
            Happening::ClientActs(client) => self.client_acts(client),
            Happening::OriginActs(session) => self.origin_acts(session),
            Happening::OriginsRestart => {
                self.origin_epoch += 1;
                self.accepted.clear();
            }
            Happening::Ordered(order) => self.obey(&order),
        }
    }

    fn obey(&mut self, order: &Order) {
        match order {
            Order::Drain => self.stage.apply(Command::Drain(true)),
            Order::CloseAll => {
                self.closed += 1;
                self.stage.apply(Command::CloseAll);
            }
            Order::CloseOne => {
                let chosen = self.random.below(self.picks.len() as u64) as usize;
                if let Some(&session) = self.picks.keys().nth(chosen) {
                    let reason = EndReason::Operator;
                    self.stage.apply(Command::Close { session, reason });
                }
            }
        }
    }

    /// Does what the shard asked for.
    fn settle(&mut self) {
        loop {
            let (out, events) = (self.stage.take_out(), self.stage.take_events());
            if out.is_empty() && events.is_empty() {
                return;
            }
            for out in out {
                match out {
                    Out::ToClient { client, bytes } => {
                        self.carry(Happening::ToClient { client, bytes });
                    }
                    Out::ToOrigin { session, bytes } => {
                        self.carry(Happening::ToOrigin { session, bytes });
                    }
                    Out::Open { session, origin } => {
                        self.ports.insert(session, usize::from(origin.port()));
                        self.stage.shard.port_opened(self.stage.now, session, Ok(()));
                        self.stage.pass(Duration::ZERO);
                    }
                    Out::Close { session } => {
                        assert!(self.ports.remove(&session).is_some(), "closed and not open");
                    }
                }
            }
            for event in events {
                match event {
                    Event::Pick(request) => {
                        self.picks.insert(request.session, 0);
                        let delay = Duration::from_millis(self.random.below(100));
                        let time = self.stage.now + delay;
                        self.at(time, Happening::Picked { session: request.session });
                    }
                    Event::Ended { session, .. } => *self.picks.get_mut(&session).unwrap() += 1,
                    Event::Emptied => self.emptied += 1,
                    _ => {}
                }
            }
        }
    }

    fn picked(&mut self, session: SessionKey) {
        if self.random.below(10) == 0 {
            let rejection = Rejection::Unavailable;
            self.stage.apply(Command::Refuse { session, rejection });
            return;
        }
        let origin = self.random.below(self.origins.len() as u64) as usize;
        let address = SocketAddr::from(([10, 0, 0, 5], origin as u16));
        self.stage.apply(Command::Open { session, origin: OriginId(0), address });
    }

    fn client_acts(&mut self, index: usize) {
        let now = self.stage.now;
        let is_new_attempt = self.random.below(20) < 3;
        let client = &mut self.clients[index];
        if is_new_attempt && client.sequence % 10_000 < self.restarts_max {
            client.begin_anew(now);
        }
        let mut again = Some(Duration::from_millis(250));
        let bytes = if client.is_over {
            if client.sequence % 10_000 < self.restarts_max {
                self.at(now + Duration::from_millis(500), Happening::ClientActs(index));
            }
            return;
        } else if let Some(listener) = client.listener {
            client.sent += 1;
            again = (client.sent <= client.quits_after).then_some(Duration::from_millis(50));
            if again.is_some() {
                packets::data(listener, client.sent, &client.sequence.to_be_bytes())
            } else {
                packets::shutdown(listener)
            }
        } else if client.refusal.is_some() || now > client.begun + Duration::from_secs(3) {
            return;
        } else if let Some(cookie) = client.cookie {
            let stream = format!("#!::r=live/{index},m=publish");
            packets::conclusion(client.socket, client.sequence, cookie, Some(&stream))
        } else {
            packets::induction(client.socket, client.sequence)
        };
        let source = client.address;
        self.carry(Happening::ToRelay { source, bytes });
        if let Some(again) = again {
            self.at(now + again, Happening::ClientActs(index));
        }
    }

    fn client_hears(&mut self, address: SocketAddr, bytes: &[u8]) {
        if bytes[..2] == [0x80, 5] {
            let socket = packets::word(bytes, 12);
            let told = |client: &&mut Client| client.address == address && client.socket == socket;
            let client = self.clients.iter_mut().find(told).expect("a goodbye for somebody");
            client.is_over |= client.listener.is_some();
        }
        if bytes[..2] != [0x80, 0] {
            return;
        }
        let answer = Fields::read(bytes);
        let seed = self.seed;
        let Some(client) = self
            .clients
            .iter_mut()
            .find(|client| client.address == address && client.socket == answer.destination)
        else {
            panic!("seed {seed}: an answer for nobody: {answer:?}");
        };
        // The answer to an attempt that the caller has given up.
        let is_late = answer.sequence != client.sequence;
        // What is on its way while the relay quits meets no session any more.
        let is_strict = self.closed == 0;
        match answer.kind {
            _ if is_late => {}
            INDUCTION => client.cookie = Some(answer.cookie),
            CONCLUSION => {
                let was_refused = is_strict && client.refusal.is_some();
                assert!(!was_refused, "seed {seed}: refused, then connected: {client:?}");
                assert!(client.listener.is_none_or(|listener| listener == answer.socket));
                client.listener = Some(answer.socket);
            }
            code => {
                let was_connected = is_strict && client.listener.is_some();
                assert!(!was_connected, "seed {seed}: connected, then {code}: {client:?}");
                client.refusal = Some(code);
            }
        }
    }

    fn origin_hears(&mut self, session: SessionKey, bytes: &[u8]) {
        let Some(&origin) = self.ports.get(&session) else {
            return;
        };
        let temper = self.origins[origin];
        match temper {
            Temper::Silent => return self.note_temper(bytes, temper),
            Temper::Dead => {
                self.note_temper(bytes, temper);
                self.stage.shard.port_failed(self.stage.now, session, PortError::Refused);
                return self.stage.pass(Duration::ZERO);
            }
            Temper::Libsrt | Temper::Gosrt | Temper::Refusing => {}
        }
        if bytes[..2] == [0x80, 0] {
            self.note_temper(bytes, temper);
            return self.origin_shakes(session, origin, bytes);
        }
        let to = packets::word(bytes, 12);
        let accepted = self.accepted.get_mut(&session).filter(|accepted| accepted.listener == to);
        let Some(accepted) = accepted else {
            assert!(self.origin_epoch > 0, "media only after the handshake, for its socket");
            return;
        };
        accepted.heard = self.stage.now;
        if bytes[0] & 0x80 == 0 {
            let of = packets::word(bytes, 16);
            assert_eq!(Some(of), accepted.sequence, "seed {}: media of another client", self.seed);
        }
    }

    fn origin_shakes(&mut self, session: SessionKey, origin: usize, bytes: &[u8]) {
        let temper = self.origins[origin];
        let asked = Fields::read(bytes);
        let now = self.stage.now;
        let fresh = Accepted {
            cookie: 0x1000 + session.generation + (self.origin_epoch << 16),
            sequence: None,
            listener: 0x5000 + session.generation + (self.origin_epoch << 16),
            caller: asked.socket,
            heard: now,
        };
        let accepted = self.accepted.entry(session).or_insert(fresh);
        accepted.heard = now;
        let mut answer = if asked.kind == INDUCTION {
            packets::induction_response(asked.socket, accepted.cookie)
        } else if asked.cookie != accepted.cookie {
            assert!(self.origin_epoch > 0, "the origin's own cookie");
            return;
        } else {
            let repeated = accepted.sequence.replace(asked.sequence).is_some();
            match temper {
                Temper::Refusing => packets::rejection(asked.socket, 2403),
                Temper::Gosrt if repeated => return,
                _ => packets::conclusion_response(asked.socket, accepted.listener, asked.cookie, 9),
            }
        };
        answer[24..28].copy_from_slice(&asked.sequence.to_be_bytes());
        self.carry(Happening::FromOrigin { session, bytes: answer });
        if asked.kind == CONCLUSION && temper != Temper::Refusing {
            self.at(now + Duration::from_secs(1), Happening::OriginActs(session));
        }
    }

    /// Keepalives, and a goodbye when the peer has been silent for five seconds, as libsrt does.
    fn origin_acts(&mut self, session: SessionKey) {
        let now = self.stage.now;
        let Some(accepted) = self.accepted.get(&session) else {
            return;
        };
        let (caller, silent) = (accepted.caller, now > accepted.heard + Duration::from_secs(5));
        let bytes = if silent { packets::shutdown(caller) } else { packets::keepalive(caller) };
        if silent || !self.ports.contains_key(&session) {
            self.accepted.remove(&session);
        } else {
            self.at(now + Duration::from_secs(1), Happening::OriginActs(session));
        }
        self.carry(Happening::FromOrigin { session, bytes });
    }

    /// Remembers on the client's side which origin it was given.
    fn note_temper(&mut self, bytes: &[u8], temper: Temper) {
        if bytes[..2] == [0x80, 0] {
            let sequence = Fields::read(bytes).sequence;
            let client = self.clients.iter_mut().find(|client| client.sequence == sequence);
            if let Some(client) = client {
                client.origin = Some(temper);
            }
        }
    }

    /// One hop through the weather.
    fn carry(&mut self, happening: Happening) {
        if self.random.below(100) < self.weather.loss {
            return;
        }
        let delay_max = self.weather.delay_max.as_micros() as u64;
        let copies = if self.random.below(100) < self.weather.repeat { 2 } else { 1 };
        let copy = match (&happening, copies) {
            (_, 1) => None,
            (Happening::ToRelay { source, bytes }, _) => {
                Some(Happening::ToRelay { source: *source, bytes: bytes.clone() })
            }
            (Happening::FromOrigin { session, bytes }, _) => {
                Some(Happening::FromOrigin { session: *session, bytes: bytes.clone() })
            }
            (Happening::ToClient { client, bytes }, _) => {
                Some(Happening::ToClient { client: *client, bytes: bytes.clone() })
            }
            (Happening::ToOrigin { session, bytes }, _) => {
                Some(Happening::ToOrigin { session: *session, bytes: bytes.clone() })
            }
            _ => None,
        };
        for happening in [Some(happening), copy].into_iter().flatten() {
            let delay = Duration::from_micros(self.random.below(delay_max));
            let time = self.stage.now + delay;
            self.at(time, happening);
        }
    }

    fn at(&mut self, time: Instant, happening: Happening) {
        self.next += 1;
        self.queue.push(Reverse((time, self.next)));
        self.happenings.insert(self.next, happening);
    }

    fn check_the_end(&self) {
        let seed = self.seed;
        let counters = self.stage.shard.counters();
        let left = (counters.sessions, counters.srt.established, counters.pending);
        assert_eq!(left, (0, 0, 0), "seed {seed}: sessions left");
        assert!(self.ports.is_empty(), "seed {seed}: ports left open: {:?}", self.ports);
        assert_eq!(self.stage.shard.poll_timeout(), None, "seed {seed}: timers left");
        let unheard: BTreeSet<_> = self.picks.iter().filter(|(_, ended)| **ended != 1).collect();
        assert!(unheard.is_empty(), "seed {seed}: ends not told exactly once: {unheard:?}");
        assert_eq!(self.emptied, self.closed, "seed {seed}: whether all are gone is told once");
    }
}

impl Client {
    /// The same socket ID, for it may be a device that knows no other, and another initial sequence number.
    fn begin_anew(&mut self, now: Instant) {
        self.sequence += 1;
        self.begun = now;
        self.cookie = None;
        self.listener = None;
        self.refusal = None;
        self.sent = 0;
        self.is_over = false;
    }
}
