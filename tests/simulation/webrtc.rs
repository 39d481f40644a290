//! WebRTC clients that roam, shards that hand their sessions over, and an arbiter whose messages take their time.
//!
//! What must hold for every seed: what a client sends reaches the origin through its own session's port or nowhere; what
//! an origin sends goes to an address whose last accepted proof was for that session; one session has one port at a
//! time; nobody who merely repeats what he has seen gets anything; and in the end every table is empty.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringway::protocol::stun::{Class, Message, Method};
use ringway::shard::{Command, DropReason, Port, Route, SessionKey, Verdict};

use crate::support::cluster::Cluster;
use crate::support::random::Random;
use crate::support::rtc::*;
use crate::support::stage::Out;

#[test]
fn whatever_the_network_and_the_clients_do_media_reaches_its_own_session_and_the_tables_end_empty()
{
    let mut total = Totals::default();
    for seed in 0..100 {
        let world = World::new(seed, Weather::of(&mut Random::new(seed + 1_000_000)));
        total.add(&world.run());
    }
    // A simulation in which nothing ever happens would hold every invariant.
    assert!(total.to_origins > 10_000 && total.to_clients > 10_000, "{total:?}");
    assert!(total.moves > 100 && total.replays > 300 && total.roams > 300, "{total:?}");
}

#[test]
fn on_a_good_network_every_client_is_connected_and_stays_so_wherever_it_roams() {
    for seed in 0..40 {
        let weather = Weather { loss: 0, repeat: 0, delay_max: 10 * MILLI };
        let totals = World::new(seed, weather).run();
        let starved = totals.received.iter().filter(|received| **received < 50).count();
        assert_eq!(starved, 0, "seed {seed}: {totals:?}");
    }
}

#[derive(Debug)]
struct Weather {
    /// Of 100 datagrams.
    loss: u64,
    /// Of 100 datagrams.
    repeat: u64,
    delay_max: Duration,
}

impl Weather {
    fn of(random: &mut Random) -> Self {
        let delay_max = Duration::from_millis(1 + random.below(200));
        Self { loss: random.below(30), repeat: random.below(30), delay_max }
    }
}

#[derive(Clone, Debug, Default)]
struct Totals {
    to_origins: u64,
    to_clients: u64,
    moves: u64,
    roams: u64,
    replays: u64,
    /// Media that each client got.
    received: Vec<u64>,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.to_origins += other.to_origins;
        self.to_clients += other.to_clients;
        self.moves += other.moves;
        self.roams += other.roams;
        self.replays += other.replays;
    }
}

struct World {
    seed: u64,
    random: Random,
    weather: Weather,
    cluster: Cluster,
    now: Instant,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    clients: Vec<Client>,
    /// Whose proof was accepted last from each address.
    holders: BTreeMap<SocketAddr, u64>,
    /// Whose port each is, while it is open.
    ports: BTreeMap<(usize, SessionKey), u64>,
    /// Where the origin of each session sends: the port that its last request came from.
    remotes: BTreeMap<u64, (usize, SessionKey)>,
    /// The origins that are sending.
    acting: BTreeSet<u64>,
    /// When the last message to each shard arrives: they come in order.
    mail: Vec<Instant>,
    totals: Totals,
}

enum Happening {
    ToRelay { source: SocketAddr, bytes: Vec<u8>, of: u64 },
    ToClient { client: SocketAddr, bytes: Vec<u8> },
    ToOrigin { port: (usize, SessionKey), bytes: Vec<u8> },
    FromOrigin { port: (usize, SessionKey), bytes: Vec<u8> },
    Mail { shard: usize, command: Command },
    ClientActs(usize),
    OriginActs(u64),
    Replayed(Vec<u8>),
}

struct Client {
    id: u64,
    address: SocketAddr,
    /// Whether a response has come since it is where it is.
    is_connected: bool,
    /// Whether it goes on checking once it is connected, as browsers do and ffmpeg does not.
    checks_on: bool,
    checked: Option<Instant>,
    sent: u64,
    quits_after: u64,
    how: Farewell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    Alert,
    Delete,
    Silence,
}

impl Client {
    fn has_quit(&self) -> bool {
        self.sent > self.quits_after
    }
}

/// An attacker's, who repeats what he sees.
fn mallory(random: &mut Random) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 66], 6000 + random.below(3) as u16))
}

fn is_mallory(address: SocketAddr) -> bool {
    address.ip() == SocketAddr::from(([198, 51, 100, 66], 0)).ip()
}

impl World {
    fn new(seed: u64, weather: Weather) -> Self {
        let mut random = Random::new(seed);
        let mut cluster = Cluster::new(2 + random.below(2) as usize);
        cluster.is_prompt = false;
        let now = cluster.shards[0].now;
        for stage in &mut cluster.shards {
            // One clock for all.
            stage.pass(now.saturating_duration_since(stage.now));
        }
        let clients = (1..=4)
            .map(|id| Client {
                id,
                address: SocketAddr::from(([203, 0, 113, 9], 5000 + id as u16)),
                is_connected: false,
                checks_on: random.below(3) > 0,
                checked: None,
                sent: 0,
                quits_after: 200 + random.below(200),
                how: [Farewell::Alert, Farewell::Delete, Farewell::Silence]
                    [random.below(3) as usize],
            })
            .collect();
        let mail = vec![now; cluster.shards.len()];
        let totals = Totals { received: vec![0; 4], ..Totals::default() };
        Self {
            seed,
            random,
            weather,
            cluster,
            now,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            clients,
            holders: BTreeMap::new(),
            ports: BTreeMap::new(),
            remotes: BTreeMap::new(),
            acting: BTreeSet::new(),
            mail,
            totals,
        }
    }

    /// Where the kernel puts a client's address.
    fn shard_of(&self, address: SocketAddr) -> usize {
        usize::from(address.port()) % self.cluster.shards.len()
    }

    fn run(mut self) -> Totals {
        for client in 0..self.clients.len() {
            self.cluster.expect(self.clients[client].id, 0);
            let begin = self.now + Duration::from_millis(100 + self.random.below(500));
            self.at(begin, Happening::ClientActs(client));
        }
        self.settle();
        while let Some(Reverse((time, id))) = self.queue.pop() {
            let time = time.max(self.now);
            assert!(self.next < 300_000, "seed {seed}: it never ends", seed = self.seed);
            self.pass(time - self.now);
            let happening = self.happenings.remove(&id).unwrap();
            self.happen(happening);
            self.settle();
        }
        // Whoever fell silent times out; control gives up whom it expects in vain.
        self.pass(Duration::from_secs(40));
        self.cluster.is_prompt = true;
        for id in 1..=4 {
            self.cluster.finish(id);
        }
        self.settle();
        for stage in &self.cluster.shards {
            stage.assert_gone();
        }
        assert!(self.ports.is_empty(), "seed {}: ports left open: {:?}", self.seed, self.ports);
        self.totals
    }

    /// Lets time pass for all shards, timer by timer.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        for shard in &mut self.cluster.shards {
            shard.pass(time);
        }
        self.settle();
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::ToRelay { source, bytes, of } => self.relay_hears(source, bytes, of),
            Happening::ToClient { client, bytes } => self.client_hears(client, &bytes),
            Happening::ToOrigin { port, bytes } => self.origin_hears(port, &bytes),
            Happening::FromOrigin { port: (shard, key), bytes } => {
                let verdict = self.cluster.shards[shard].origin_sends(key, &bytes);
                if let Verdict::Forward(Route { to: Some(peer), .. }) = verdict {
                    self.pass_to_client((shard, key), peer.address, bytes);
                }
            }
            Happening::Mail { shard, command } => self.cluster.shards[shard].apply(command),
            Happening::ClientActs(client) => self.client_acts(client),
            Happening::OriginActs(id) => self.origin_acts(id),
            Happening::Replayed(bytes) => {
                let source = mallory(&mut self.random);
                let shard = self.shard_of(source);
                let verdict = self.cluster.shards[shard].rtc_sends(source, &bytes);
                self.totals.replays += 1;
                assert!(!matches!(verdict, Verdict::Forward(_)), "seed {}", self.seed);
            }
        }
    }

    fn relay_hears(&mut self, source: SocketAddr, bytes: Vec<u8>, of: u64) {
        let shard = self.shard_of(source);
        let verdict = self.cluster.shards[shard].rtc_sends(source, &bytes);
        match verdict {
            Verdict::Forward(Route { port: Port::Session(key), .. }) => {
                if is_request(&bytes) {
                    self.holders.insert(source, of);
                    if self.random.below(2) == 0 {
                        let later = self.now + Duration::from_millis(self.random.below(3000));
                        self.at(later, Happening::Replayed(bytes.clone()));
                    }
                }
                // What was under way when the address changed hands counts as the new holder's.
                let (owner, holder) = (self.ports.get(&(shard, key)), self.holders.get(&source));
                assert_eq!(owner, holder, "seed {}: through another's port", self.seed);
                self.pass_to_origin((shard, key), bytes);
            }
            Verdict::Forward(route) => panic!("no way for a client: {route:?}"),
            Verdict::Drop(DropReason::NotWebRtc | DropReason::StunMalformed) => {
                panic!("seed {}: a good datagram", self.seed);
            }
            Verdict::Taken | Verdict::Drop(_) => {}
        }
    }

    fn pass_to_origin(&mut self, port: (usize, SessionKey), bytes: Vec<u8>) {
        self.totals.to_origins += 1;
        self.carry(|| Happening::ToOrigin { port, bytes: bytes.clone() });
    }

    fn pass_to_client(&mut self, port: (usize, SessionKey), client: SocketAddr, bytes: Vec<u8>) {
        let id = self.ports.get(&port).expect("an open port");
        let seed = self.seed;
        assert!(!is_mallory(client), "seed {seed}: to somebody who has proven nothing");
        assert_eq!(self.holders.get(&client), Some(id), "seed {seed}: to another's client");
        self.totals.to_clients += 1;
        self.carry(|| Happening::ToClient { client, bytes: bytes.clone() });
    }

    /// Does what the shards asked for, and posts what the arbiter says.
    fn settle(&mut self) {
        for rounds in 0.. {
            assert!(rounds < 1000, "seed {}: it never settles", self.seed);
            self.cluster.settle();
            let post = std::mem::take(&mut self.cluster.post);
            let mut is_quiet = post.is_empty();
            for (shard, command) in post {
                let delay = Duration::from_micros(self.random.below(60_000));
                self.mail[shard] = self.mail[shard].max(self.now + delay);
                let arrival = self.mail[shard];
                self.at(arrival, Happening::Mail { shard, command });
            }
            for shard in 0..self.cluster.shards.len() {
                for (id, key) in std::mem::take(&mut self.cluster.validated[shard]) {
                    is_quiet = false;
                    let others = self.ports.values().filter(|other| **other == id).count();
                    assert_eq!(others, 0, "seed {}: two owners of {id}", self.seed);
                    self.ports.insert((shard, key), id);
                    self.totals.moves += u64::from(self.remotes.contains_key(&id));
                }
                for out in self.cluster.shards[shard].take_out() {
                    is_quiet = false;
                    self.act(shard, out);
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    fn act(&mut self, shard: usize, out: Out) {
        match out {
            Out::ToClient { client, bytes } => {
                // Only rewritten responses leave this way, and they say for whom they are.
                let id = session_of(&bytes);
                assert_eq!(self.holders.get(&client), Some(&id), "seed {}", self.seed);
                self.totals.to_clients += 1;
                self.carry(|| Happening::ToClient { client, bytes: bytes.clone() });
            }
            Out::ToOrigin { session, bytes } => {
                let port = (shard, session);
                let id = self.ports[&port];
                let source = self.cluster.shards[shard].views();
                let view = source.iter().find(|view| view.session == session).unwrap();
                self.holders.insert(view.client, id);
                self.pass_to_origin(port, bytes);
            }
            Out::Open { .. } => panic!("the cluster opens ports"),
            // A port whose session ended while it was being opened was nobody's.
            Out::Close { session } => _ = self.ports.remove(&(shard, session)),
        }
    }

    fn client_acts(&mut self, index: usize) {
        let now = self.now;
        let roams = self.random.below(60) == 0;
        let port = 5001 + self.random.below(12) as u16;
        let client = &mut self.clients[index];
        if client.has_quit() {
            return self.quit(index);
        }
        if roams && client.is_connected {
            // Perhaps to where another client is or was: addresses are handed out again.
            client.address = SocketAddr::from(([203, 0, 113, 9], port));
            client.is_connected = false;
            self.totals.roams += 1;
            let (id, address) = (client.id, client.address);
            self.evict(id, address);
        }
        let client = &mut self.clients[index];
        let (id, source) = (client.id, client.address);
        client.sent += 1;
        let period = if client.is_connected { 2500 * MILLI } else { 100 * MILLI };
        let is_due = client.checked.is_none_or(|checked| now >= checked + period)
            && (client.checks_on || !client.is_connected);
        if is_due {
            client.checked = Some(now);
            let number = (id as u32) << 24 | client.sent as u32;
            let bytes = nomination(&pair(id, 0), number);
            self.carry(|| Happening::ToRelay { source, bytes: bytes.clone(), of: id });
        }
        let client = &self.clients[index];
        if client.is_connected {
            let bytes = rtp(id as u32, client.sent as u16);
            self.carry(|| Happening::ToRelay { source, bytes: bytes.clone(), of: id });
        }
        self.at(now + 40 * MILLI, Happening::ClientActs(index));
    }

    /// Nobody shares an address: whoever had it has to find another.
    fn evict(&mut self, id: u64, address: SocketAddr) {
        for client in &mut self.clients {
            if client.id != id && client.address == address {
                let port = 5100 + client.id as u16 + (client.sent % 50) as u16 * 4;
                client.address.set_port(port);
                client.is_connected = false;
            }
        }
    }

    fn quit(&mut self, index: usize) {
        let client = &self.clients[index];
        let (id, source) = (client.id, client.address);
        match client.how {
            Farewell::Silence => {}
            Farewell::Alert => {
                let bytes = alert();
                self.carry(|| Happening::ToRelay { source, bytes: bytes.clone(), of: id });
            }
            Farewell::Delete => {
                let (session, reason) = (ringway::shard::RtcId(id), END);
                self.cluster.finish_after(session, reason, 2 * SECOND);
            }
        }
    }

    fn client_hears(&mut self, address: SocketAddr, bytes: &[u8]) {
        let position = self.clients.iter().position(|client| client.address == address);
        let Some(client) = position.filter(|position| !self.clients[*position].has_quit()) else {
            return;
        };
        let id = self.clients[client].id;
        match Message::parse(bytes) {
            Ok(message) if message.class() == Class::Success => {
                if session_of(bytes) == id {
                    assert_eq!(message.mapped_address(), Some(address), "its own address");
                    self.clients[client].is_connected = true;
                }
            }
            Ok(message) => {
                let answer = stun(Class::Success, Method::Binding, 7);
                assert_eq!(message.class(), Class::Request);
                self.carry(|| Happening::ToRelay {
                    source: address,
                    bytes: answer.clone(),
                    of: id,
                });
            }
            // What was under way to the address before it changed hands is of no use to anybody.
            Err(_) if bytes[8..12] == (id as u32).to_be_bytes() => {
                self.totals.received[client] += 1;
            }
            Err(_) => {}
        }
    }

    fn origin_hears(&mut self, port: (usize, SessionKey), bytes: &[u8]) {
        let Some(&owner) = self.ports.get(&port) else {
            return;
        };
        match Message::parse(bytes) {
            Ok(message) if message.class() == Class::Request => {
                let id = session_of(bytes);
                assert_eq!(owner, id, "seed {}: a request through another's port", self.seed);
                self.remotes.insert(id, port);
                if self.acting.insert(id) {
                    self.at(self.now, Happening::OriginActs(id));
                }
                let number = u32::from_be_bytes(message.transaction().0[8..].try_into().unwrap());
                let bytes = response(&pair(id, 0), number);
                self.carry(|| Happening::FromOrigin { port, bytes: bytes.clone() });
            }
            Ok(_) => {}
            Err(_) if bytes[0] == 21 => _ = self.remotes.remove(&owner),
            Err(_) => {}
        }
    }

    /// Media, and now and then a check of its own if it is a full agent.
    fn origin_acts(&mut self, id: u64) {
        let is_open = self.ports.values().any(|open| *open == id);
        let Some(&port) = self.remotes.get(&id).filter(|_| is_open) else {
            // Until the next request, if there is one.
            self.acting.remove(&id);
            return;
        };
        let bytes = rtp(id as u32, 1);
        self.carry(|| Happening::FromOrigin { port, bytes: bytes.clone() });
        if id.is_multiple_of(2) && self.random.below(10) == 0 {
            let check = stun(Class::Request, Method::Binding, 7);
            self.carry(|| Happening::FromOrigin { port, bytes: check.clone() });
        }
        self.at(self.now + 40 * MILLI, Happening::OriginActs(id));
    }

    /// One hop through the weather.
    fn carry(&mut self, happening: impl Fn() -> Happening) {
        if self.random.below(100) < self.weather.loss {
            return;
        }
        let copies = if self.random.below(100) < self.weather.repeat { 2 } else { 1 };
        for _ in 0..copies {
            let delay = self.random.below(self.weather.delay_max.as_micros() as u64);
            let time = self.now + Duration::from_micros(delay);
            self.at(time, happening());
        }
    }

    fn at(&mut self, time: Instant, happening: Happening) {
        self.next += 1;
        self.queue.push(Reverse((time, self.next)));
        self.happenings.insert(self.next, happening);
    }
}

const END: ringway::shard::EndReason = ringway::shard::EndReason::Deleted;

fn is_request(bytes: &[u8]) -> bool {
    Message::parse(bytes).is_ok_and(|message| message.class() == Class::Request)
}

/// The session that a transaction is of: its first byte of the client's numbering.
fn session_of(bytes: &[u8]) -> u64 {
    u64::from(Message::parse(bytes).expect("a message").transaction().0[8])
}
