//! What an idle session costs: one shard and control, joined as the relay joins them, with no sockets between.
//!
//! Weighed is what both hold for it together, the shares of tables that are reserved at start included: a table has
//! a power of two of places, about two for each session here, which is as bad as it gets. Blocks count as they were
//! asked for, without what the allocator adds. What the kernel holds (a socket) is not ours.

use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringway::config::{Config, HttpRate, StaticOrigin};
use ringway::control::{Parts, Request, ShardLink, run};
use ringway::mailbox::{Mailbox, Post, mailbox};
use ringway::protocol::srt::CookieKey;
use ringway::protocol::stream_url::{DEFAULT_VHOST, StreamKey, Vhosts};
use ringway::protocol::stun::{IntegrityKey, TransactionId};
use ringway::shard::{
    Action, Command, Datagram, Event, FromShard, Limits, ListenerIndex, OriginId, Pair, Port,
    Protocol, Role, RtcId, SessionKey, Shard, ShardConfig, Signalled, Verdict,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::packets::{self, Fields};
use crate::webrtc_client::WebRtcClient;
use crate::webrtc_origin::WebRtcOrigin;
use crate::{BYTES_HELD, COUNT, IS_WEIGHED, ice};

#[test]
fn an_idle_srt_session_costs_at_most_1_kib() {
    let _alone = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    let origins = vec![StaticOrigin {
        srt: Some(10080),
        ..StaticOrigin::at("a", "10.0.0.5".parse().unwrap())
    }];
    let config = Config { origins, ..unlimited() };
    let mut joined = Joined::new(config, Protocol::Srt, None);
    // The first one makes what all share.
    joined.connect(0);

    let before = joined.held();
    for number in 1..SESSIONS {
        joined.connect(number);
    }
    // What is kept of a handshake is forgotten ten seconds after it.
    joined.pass(Duration::from_secs(11));
    let growth = joined.held() - before;

    assert_eq!(joined.shard.counters().srt.established, u64::from(SESSIONS));
    joined.assert_cost(growth, SRT_BYTES_MAX);
}

#[test]
fn an_idle_webrtc_session_with_two_addresses_costs_at_most_what_it_may() {
    let _alone = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    let origin = WebRtcOrigin::start();
    let origins = vec![StaticOrigin {
        rtc: Some(origin.media.port()),
        api: Some(origin.api.port()),
        ..StaticOrigin::at("a", origin.media.ip())
    }];
    let config = Config { origins, ..unlimited() };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let api = listener.local_addr().unwrap();
    let mut joined = Joined::new(config, Protocol::WebRtc, Some(listener));
    // The first one makes what all share.
    let first = joined.signal(api, 0..1);
    joined.prove(0, &first);

    let before = joined.held();
    let clients = joined.signal(api, 1..SESSIONS);
    joined.prove(1, &clients);
    let growth = joined.held() - before;

    assert_eq!(joined.shard.counters().webrtc.established, u64::from(SESSIONS));
    joined.assert_cost(growth, WEBRTC_BYTES_MAX);
}

#[test]
fn a_webrtc_session_costs_a_shard_that_only_expects_it_at_most_256_bytes() {
    let _alone = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    // All shards share these.
    let signalled: Vec<_> = (0..SESSIONS).map(|number| signalled(number.into())).collect();
    let of_one = weight_of(|| Shard::new(shard_config(Protocol::WebRtc, 1)));

    let whole = weight_of(|| {
        let mut shard = Shard::new(shard_config(Protocol::WebRtc, SESSIONS));
        for (session, pair) in signalled {
            shard.apply(Instant::now(), Command::Expect { session, pair });
            assert!(matches!(shard.next_event(), Some(Event::Expected { result: Ok(()), .. })));
        }
        assert_eq!(shard.counters().expected, u64::from(SESSIONS));
        shard
    });

    let each = (whole - of_one) / i64::from(SESSIONS);
    assert!(0 < each && each <= EXPECTED_BYTES_MAX, "{each} bytes of {EXPECTED_BYTES_MAX}");
}

/// What `make` takes for what it makes.
fn weight_of<T>(make: impl FnOnce() -> T) -> i64 {
    let before = BYTES_HELD.load(Ordering::Relaxed);
    let made = weighed(make);
    let weight = BYTES_HELD.load(Ordering::Relaxed) - before;
    drop(made);
    weight
}

fn signalled(number: u64) -> (Arc<Signalled>, Arc<Pair>) {
    let signalled = Signalled {
        id: RtcId(number),
        origin: OriginId(0),
        address: SocketAddr::from(([10, 0, 0, 7], 8000)),
        stream: StreamKey::canonical(DEFAULT_VHOST, &format!("live/{number}")).unwrap(),
        role: Role::Play,
    };
    let key = IntegrityKey::new(b"password");
    let username = format!("origin{number}:client{number}").into();
    (Arc::new(signalled), Arc::new(Pair { username, key }))
}

/// A shard and control. What all sessions share is not theirs: the same shard for one session is taken off.
struct Joined {
    shard: Shard,
    now: Instant,
    /// What the shard's tables for [`SESSIONS`] hold more than those for one.
    reserved: i64,
    /// The last datagram that the shard wanted sent.
    sent: Vec<u8>,
    events: Post<FromShard>,
    commands: Mailbox<Command>,
    requests: Post<Request>,
    control: Option<JoinHandle<()>>,
}

impl Joined {
    fn new(config: Config, protocol: Protocol, http: Option<TcpListener>) -> Self {
        let of_one = weight_of(|| Shard::new(shard_config(protocol, 1)));
        let before = BYTES_HELD.load(Ordering::Relaxed);
        let shard_config = shard_config(protocol, SESSIONS);
        let now = shard_config.started;
        let shard = weighed(|| Shard::new(shard_config));
        let reserved = BYTES_HELD.load(Ordering::Relaxed) - before - of_one;

        let (post, commands) = mailbox(4096).unwrap();
        let (events, to_control) = mailbox(4096).unwrap();
        let (requests, asked) = mailbox(4).unwrap();
        let (quitting, _) = crossbeam_channel::bounded(1);
        let parts = Parts {
            config: Arc::new(config),
            shards: vec![ShardLink { post, cpu: None, tid: 0 }],
            events: to_control,
            system: None,
            http,
            tls: None,
            webrtc: Some(SocketAddr::from(([127, 0, 0, 1], 18000))),
            requests: asked,
            quitting,
            handle_signals: false,
            supervisor: None,
            engine: "mmsg",
            sessions_max: SESSIONS,
        };
        let control = std::thread::spawn(move || {
            IS_WEIGHED.set(true);
            run(parts).unwrap();
        });
        let control = Some(control);
        Self { shard, now, reserved, sent: Vec::new(), events, commands, requests, control }
    }

    /// Bytes that the shard and control hold.
    fn held(&self) -> i64 {
        BYTES_HELD.load(Ordering::Relaxed)
    }

    fn assert_cost(&self, growth: i64, bytes_max: i64) {
        let sessions = i64::from(SESSIONS);
        let (reserved, grown) = (self.reserved / sessions, growth / sessions);
        assert!(growth > 0, "a session costs something");
        assert!(
            reserved + grown <= bytes_max,
            "a session costs {} bytes of {bytes_max}: {reserved} reserved at start, {grown} since",
            reserved + grown
        );
    }

    /// A caller from its induction to its first media datagram.
    fn connect(&mut self, number: u32) {
        let (client, caller, listener) = (client(number), 0x1000 + number, 0x10_0000 + number);
        self.client_sends(client, &packets::induction(caller, 1000));
        let cookie = Fields::read(&self.sent).cookie;
        let stream = format!("#!::r=live/stream{number},m=publish");
        self.sent.clear();
        self.client_sends(client, &packets::conclusion(caller, 1000, cookie, Some(&stream)));
        self.pump(|joined| !joined.sent.is_empty());
        // Sessions end in the order they began, so the newest is in the last slot.
        let session = self.key(number);
        self.origin_sends(session, &packets::induction_response(caller, 7));
        self.origin_sends(session, &packets::conclusion_response(caller, listener, 7, 500));
        let data = packets::data(listener, 1001, &[0x47; 1316]);
        let verdict = self.client_sends(client, &data);
        assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}");
    }

    fn key(&self, slot: u32) -> SessionKey {
        SessionKey { slot, generation: slot + 1 }
    }

    /// WebRTC clients with an answer to their offers; they have sent nothing to the media port yet.
    fn signal(&mut self, api: SocketAddr, numbers: Range<u32>) -> Vec<Answered> {
        let (post, done) = mpsc::sync_channel(1);
        let signaller = std::thread::spawn(move || {
            let signalled = numbers.map(|number| {
                let client = WebRtcClient::publish(api, &format!("stream{number}"));
                Answered { username: client.username, key: client.key }
            });
            post.send(signalled.collect()).unwrap();
        });
        let mut clients = None;
        self.pump(|_| {
            clients = done.try_recv().ok();
            clients.is_some()
        });
        signaller.join().unwrap();
        clients.unwrap()
    }

    /// Every client proves two addresses, and sends media.
    fn prove(&mut self, first: u32, clients: &[Answered]) {
        for (number, Answered { username, key }) in (first..).zip(clients) {
            let request = |transaction: u8| {
                let id = TransactionId([transaction; 12]);
                ice::binding_request(username, key, id, transaction == 1)
            };
            self.client_sends(client(number), &request(1));
            self.pump(|joined| joined.shard.counters().webrtc.established == u64::from(number) + 1);
            let media = ice::media(number, 1);
            for (source, datagram) in
                [(client(number), media), (second_address(client(number)), request(2))]
            {
                let verdict = self.client_sends(source, &datagram);
                assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}");
            }
        }
    }

    fn client_sends(&mut self, source: SocketAddr, bytes: &[u8]) -> Verdict {
        self.arrives(Port::Listener(ListenerIndex(0)), source, bytes)
    }

    fn origin_sends(&mut self, session: SessionKey, bytes: &[u8]) {
        self.arrives(Port::Session(session), SocketAddr::from(([10, 0, 0, 5], 10080)), bytes);
    }

    fn arrives(&mut self, port: Port, source: SocketAddr, bytes: &[u8]) -> Verdict {
        let datagram = Datagram { port, source, local: None, bytes };
        let now = self.now;
        let verdict = weighed(|| self.shard.handle(now, datagram));
        self.act();
        verdict
    }

    /// Lets the shard's time pass.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        // One call does a bounded share of what is due.
        while self.shard.poll_timeout().is_some_and(|due| due <= now) {
            weighed(|| self.shard.handle_timeout(now));
            self.act();
        }
    }

    /// Does what an engine does: ports are open at once, and every message is delivered.
    fn act(&mut self) -> bool {
        let now = self.now;
        let mut has_acted = false;
        while let Some(action) = weighed(|| self.shard.next_action()) {
            has_acted = true;
            match action {
                Action::Open { session, .. } => {
                    weighed(|| self.shard.port_opened(now, session, Ok(())));
                }
                Action::Send { bytes, .. } => {
                    self.sent.clear();
                    self.sent.extend_from_slice(self.shard.bytes(bytes));
                }
                Action::Close { .. } => {}
            }
        }
        while let Some(event) = self.shard.next_event() {
            has_acted = true;
            self.events.send(FromShard { shard: 0, event }).unwrap();
        }
        while let Some(command) = self.commands.take() {
            has_acted = true;
            weighed(|| self.shard.apply(now, command));
        }
        has_acted
    }

    /// Acts until `is_done`.
    fn pump(&mut self, mut is_done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + crate::process::PATIENCE;
        while !is_done(self) {
            assert!(Instant::now() < deadline, "control does not answer");
            let mut commands = [PollFd::new(&self.commands, PollFlags::IN)];
            poll(&mut commands, Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 })).unwrap();
            self.commands.acknowledge();
            while self.act() {}
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let _ = self.requests.send(Request::QuitNow);
        if let Some(control) = self.control.take() {
            while !control.is_finished() {
                self.act();
                std::thread::yield_now();
            }
            let _ = control.join();
        }
    }
}

/// A client with an answer to its offer.
struct Answered {
    username: String,
    key: IntegrityKey,
}

/// Counts what `act` takes and gives back.
fn weighed<T>(act: impl FnOnce() -> T) -> T {
    IS_WEIGHED.set(true);
    let result = act();
    IS_WEIGHED.set(false);
    result
}

/// Every client at an address of its own: the worst case for whoever counts by source.
fn client(number: u32) -> SocketAddr {
    let [_, _, high, low] = number.to_be_bytes();
    SocketAddr::from(([203, 0, high, low], 5000))
}

fn second_address(first: SocketAddr) -> SocketAddr {
    SocketAddr::new(first.ip(), first.port() + 1)
}

/// No limit of a source stands in the way: all offers come from one address.
fn unlimited() -> Config {
    let http_per_source = HttpRate { per_second: 1_000_000, burst: 1_000_000 };
    Config {
        http_per_source,
        sessions_per_source: SESSIONS,
        pending_per_source: SESSIONS,
        new_per_source: 1_000_000,
        ..Config::default()
    }
}

fn shard_config(protocol: Protocol, sessions_max: u32) -> ShardConfig {
    ShardConfig {
        limits: Limits {
            sessions_max,
            pending_max: 16,
            pending_per_source: 64,
            induction_rate: 1_000_000,
            induction_rate_per_prefix: 1_000_000,
            srt_idle_timeout: Duration::from_secs(15),
            webrtc_idle_timeout: Duration::from_secs(30),
            origin_setup_timeout: Duration::from_secs(2),
        },
        cookie_key: CookieKey::new([7; 16]),
        hash_seed: 1,
        started: Instant::now(),
        started_unix_seconds: 1_800_000_000,
        vhosts: Vhosts::default(),
        default_stream: None,
        key_length: 0,
        listeners: vec![protocol],
        webrtc_direct: false,
    }
}

const SESSIONS: u32 = 2000;
const SRT_BYTES_MAX: i64 = 1024;
/// The aim is 1 KiB, too. The shard's part is 840: a slot of 440, most of it addresses and times, 128 for the requests under
/// way, 88 for the second address. Control's is 580, of which 156 are for the session's URL; both share 170. A client that
/// has sent 32 checks takes 96 more, for what is remembered of them.
const WEBRTC_BYTES_MAX: i64 = 1620;
const EXPECTED_BYTES_MAX: i64 = 256;
