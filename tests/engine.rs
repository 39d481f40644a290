//! What every engine has to do alike: one suite, run on each, over loopback and with a real shard.
//!
//! The far ends are plain sockets that speak just enough SRT to be let in. Nothing waits for time
//! to pass: a socket or a mailbox that stays silent for [`PATIENCE`] is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    reason = "a test may fail loudly"
)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway::config::{Listen, Steer};
use ringway::engine::{
    self, ClientSockets, Engine, EngineError, GroupOptions, ListenerGroup, Offloads, Settings,
    ShardSpec,
};
use ringway::mailbox::{Mailbox, Post, mailbox};
use ringway::protocol::srt::CookieKey;
use ringway::protocol::stream_url::Vhosts;
use ringway::session::SessionKey;
use ringway::shard::command::FromShard;
use ringway::shard::{
    Command, Counters, DropReason, EndReason, Event, Limits, OriginId, ShardConfig,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Without the reference engine, which neither waits for several datagrams nor gives clients sockets.
macro_rules! on_each_engine_for_production {
    ($($name:ident),+ $(,)?) => {
        mod uring {
            use ringway::engine::Engine;
            $(#[test] fn $name() { super::$name(Engine::Uring); })+
        }
        mod mmsg {
            use ringway::engine::Engine;
            $(#[test] fn $name() { super::$name(Engine::Mmsg); })+
        }
    };
}

macro_rules! on_each_engine {
    ($($name:ident),+ $(,)?) => {
        mod uring {
            use ringway::engine::Engine;
            $(#[test] fn $name() { super::$name(Engine::Uring); })+
        }
        mod mmsg {
            use ringway::engine::Engine;
            $(#[test] fn $name() { super::$name(Engine::Mmsg); })+
        }
        mod tokio_uring {
            use ringway::engine::Engine;
            $(#[test] fn $name() { super::$name(Engine::TokioUring); })+
        }
    };
}

mod clients;
mod faults;
mod gathering;
mod paths;

on_each_engine! {
    a_flow_keeps_its_order_in_both_directions,
    a_flow_keeps_its_order_without_offloads,
    bursts_of_many_sessions_reach_the_right_origins,
    more_datagrams_than_buffers_pass,
    more_datagrams_than_buffers_pass_without_offloads,
    a_shard_with_a_single_buffer_loses_nothing,
    dropped_datagrams_do_not_use_up_buffers,
    empty_and_oversize_datagrams_do_no_harm,
    a_datagram_larger_than_the_buffers_is_counted_as_truncated,
    a_train_of_a_client_reaches_the_origin_datagram_by_datagram,
    a_train_of_an_origin_reaches_the_client_datagram_by_datagram,
    trains_leave_in_fewer_sends_than_datagrams,
    a_refused_segmented_send_is_repeated_datagram_by_datagram,
    a_dead_origin_leaves_the_others_alone,
    a_datagram_too_long_for_its_way_is_counted_and_the_next_one_passes,
    an_answer_leaves_from_the_address_that_was_hit,
    an_ipv6_client_reaches_an_ipv4_origin,
    a_goodbye_follows_the_media_before_it,
    a_closed_session_hears_nothing_more,
    events_wait_while_the_mailbox_of_control_is_full,
    a_shard_stops_while_datagrams_arrive_and_leaves_its_port_free,
    a_shard_that_cannot_be_pinned_does_not_start,
    a_shard_without_traffic_sleeps,
}

fn a_flow_keeps_its_order_in_both_directions(engine: Engine) {
    let rig = Rig::start(engine);
    order_is_kept(&rig);
}

fn a_flow_keeps_its_order_without_offloads(engine: Engine) {
    let rig = Rig::with(engine, Setup { offloads: NONE, ..Setup::default() });
    order_is_kept(&rig);
}

fn order_is_kept(rig: &Rig) {
    let session = rig.connect();
    for burst in 0..20 {
        let lengths = (0..WINDOW).map(|i| if i % 7 == 3 { 200 } else { 1316 });
        let sent: Vec<_> = lengths.zip(burst * WINDOW..).map(|(len, n)| (n, len)).collect();
        session.client_sends(&sent);
        assert_eq!(session.origin_receives(sent.len()), sent);
        session.origin_sends(&sent);
        assert_eq!(session.client_receives(sent.len()), sent);
    }
}

fn bursts_of_many_sessions_reach_the_right_origins(engine: Engine) {
    let rig = Rig::start(engine);
    let sessions: Vec<_> = (0..10).map(|_| rig.connect()).collect();
    for round in 0..10 {
        for n in 0..3 {
            for session in &sessions {
                session.client_sends(&[(round * 3 + n, 1000)]);
            }
        }
        let expected: Vec<_> = (round * 3..round * 3 + 3).map(|n| (n, 1000)).collect();
        for session in &sessions {
            assert_eq!(session.origin_receives(3), expected);
        }
    }
}

fn more_datagrams_than_buffers_pass(engine: Engine) {
    let rig = Rig::with(engine, Setup { buffers: 8, ..Setup::default() });
    many_pass(&rig);
}

fn more_datagrams_than_buffers_pass_without_offloads(engine: Engine) {
    let rig = Rig::with(engine, Setup { buffers: 8, offloads: NONE, ..Setup::default() });
    many_pass(&rig);
}

fn a_shard_with_a_single_buffer_loses_nothing(engine: Engine) {
    let rig = Rig::with(engine, Setup { buffers: 1, ..Setup::default() });
    many_pass(&rig);
    let io = rig.counters().io;
    let has_starved = io.ring_starved > 0 && io.rearmed >= io.ring_starved;
    assert_eq!(has_starved, engine == Engine::Uring, "{io:?}");
}

fn many_pass(rig: &Rig) {
    let session = rig.connect();
    for burst in 0..30 {
        let sent: Vec<_> = (burst * WINDOW..(burst + 1) * WINDOW).map(|n| (n, 600)).collect();
        session.client_sends(&sent);
        assert_eq!(session.origin_receives(sent.len()), sent);
    }
}

fn dropped_datagrams_do_not_use_up_buffers(engine: Engine) {
    let rig = Rig::with(engine, Setup { buffers: 8, ..Setup::default() });
    let session = rig.connect();
    for n in 0..30 {
        for _ in 0..WINDOW {
            session.client.send(&data(0xDEAD_BEEF, n, 100)).unwrap();
        }
        session.client_sends(&[(n, 100)]);
        assert_eq!(session.origin_receives(1), [(n, 100)]);
    }
    assert_eq!(rig.dropped(DropReason::UnknownSocketId), 30 * u64::from(WINDOW));
}

fn empty_and_oversize_datagrams_do_no_harm(engine: Engine) {
    let rig = Rig::start(engine);
    let session = rig.connect();
    session.client.send(&[]).unwrap();
    session.client_sends(&[(1, LARGEST)]);
    session.client.send(&[]).unwrap();
    session.client_sends(&[(2, 100)]);
    assert_eq!(session.origin_receives(2), [(1, LARGEST), (2, 100)]);
    assert_eq!(rig.dropped(DropReason::TooShort), 2);
}

fn a_datagram_larger_than_the_buffers_is_counted_as_truncated(engine: Engine) {
    let rig = Rig::with(engine, Setup { offloads: NONE, ..Setup::default() });
    let session = rig.connect();
    session.client_sends(&[(1, 9000), (2, 100)]);
    assert_eq!(session.origin_receives(1), [(2, 100)]);
    assert_eq!(rig.dropped(DropReason::Truncated), 1);
}

fn a_train_of_a_client_reaches_the_origin_datagram_by_datagram(engine: Engine) {
    let rig = Rig::start(engine);
    let session = rig.connect();
    for tail in [1316, 500, 1] {
        let train = train(session.origin_id, 10, 1316, tail);
        send_train(&session.client, &train, 1316 + HEADER);
        let expected: Vec<_> = (0..9).map(|n| (n, 1316)).chain([(9, tail)]).collect();
        assert_eq!(session.origin_receives(10), expected, "tail of {tail} bytes");
    }
}

fn a_train_of_an_origin_reaches_the_client_datagram_by_datagram(engine: Engine) {
    let rig = Rig::start(engine);
    let session = rig.connect();
    for tail in [1316, 500, 1] {
        let train = train(session.client_id, 10, 1316, tail);
        send_train(&session.origin, &train, 1316 + HEADER);
        let expected: Vec<_> = (0..9).map(|n| (n, 1316)).chain([(9, tail)]).collect();
        assert_eq!(session.client_receives(10), expected, "tail of {tail} bytes");
    }
}

fn trains_leave_in_fewer_sends_than_datagrams(engine: Engine) {
    let rig = Rig::start(engine);
    let session = rig.connect();
    let before = rig.counters().io;
    for _ in 0..10 {
        send_train(&session.client, &train(session.origin_id, 10, 1000, 1000), 1000 + HEADER);
        session.origin_receives(10);
    }
    let after = rig.counters().io;
    let sends = |io: &[u64]| io.iter().sum::<u64>();
    assert_eq!(after.sent_segments - before.sent_segments, 100);
    assert_eq!(sends(&after.send_batches) - sends(&before.send_batches), 10);
}

fn a_refused_segmented_send_is_repeated_datagram_by_datagram(engine: Engine) {
    // A socket that computes no checksums refuses segmented sends with EINVAL.
    let rig = Rig::with(engine, Setup { refuses_segments: true, ..Setup::default() });
    let session = rig.connect();
    for fallbacks in 1..=3 {
        send_train(&session.origin, &train(session.client_id, 10, 1000, 300), 1000 + HEADER);
        let expected: Vec<_> = (0..9).map(|n| (n, 1000)).chain([(9, 300)]).collect();
        assert_eq!(session.client_receives(10), expected);
        assert_eq!(rig.counters().io.gso_fallbacks, fallbacks);
    }
}

fn a_dead_origin_leaves_the_others_alone(engine: Engine) {
    let rig = Rig::start(engine);
    let (dead, live) = (rig.connect(), rig.connect());
    let Session { client, origin, origin_id, .. } = dead;
    drop(origin);
    for n in 0..20 {
        // The first meets a closed port; the next one's send reports it.
        client.send(&data(origin_id, n, 100)).unwrap();
        live.client_sends(&[(n, 100)]);
        assert_eq!(live.origin_receives(1), [(n, 100)]);
        live.origin_sends(&[(n, 100)]);
        assert_eq!(live.client_receives(1), [(n, 100)]);
    }
}

fn a_datagram_too_long_for_its_way_is_counted_and_the_next_one_passes(engine: Engine) {
    // IPv6 takes twenty bytes more than IPv4, so what came that way cannot leave this way.
    let rig = Rig::with(engine, Setup { listen: LOOPBACK_V6, ..Setup::default() });
    let session = rig.connect();
    session.client_sends(&[(1, LARGEST + 10), (2, 100)]);
    assert_eq!(session.origin_receives(1), [(2, 100)]);
    assert_eq!(rig.dropped(DropReason::MessageTooLong), 1);
}

fn an_answer_leaves_from_the_address_that_was_hit(engine: Engine) {
    let rig = Rig::with(engine, Setup { listen: Listen::All(0), ..Setup::default() });
    let target = SocketAddr::from(([127, 0, 0, 2], rig.address.port()));
    // The client's socket is connected: it hears nothing from any other address.
    let session = rig.connect_to(target);
    session.origin_sends(&[(1, 100), (2, 100)]);
    assert_eq!(session.client_receives(2), [(1, 100), (2, 100)]);
}

fn an_ipv6_client_reaches_an_ipv4_origin(engine: Engine) {
    let rig = Rig::with(engine, Setup { listen: Listen::All(0), ..Setup::default() });
    let session = rig.connect_to(SocketAddr::from((Ipv6Addr::LOCALHOST, rig.address.port())));
    session.client_sends(&[(1, 100)]);
    assert_eq!(session.origin_receives(1), [(1, 100)]);
    session.origin_sends(&[(2, 100)]);
    assert_eq!(session.client_receives(1), [(2, 100)]);
}

fn a_goodbye_follows_the_media_before_it(engine: Engine) {
    let rig = Rig::start(engine);
    let session = rig.connect();
    let sent: Vec<_> = (0..WINDOW).map(|n| (n, 1316)).collect();
    session.client_sends(&sent);
    assert_eq!(session.origin_receives(sent.len()), sent);
    rig.tell(Command::Close { session: session.key, reason: EndReason::Operator });
    assert!(is_shutdown(&receive(&session.client)));
    assert!(is_shutdown(&receive(&session.origin)));
}

fn a_closed_session_hears_nothing_more(engine: Engine) {
    let rig = Rig::start(engine);
    let session = rig.connect();
    rig.tell(Command::Close { session: session.key, reason: EndReason::Operator });
    assert!(is_shutdown(&receive(&session.client)));
    // The slot's next tenant works, and what the old client sends is nobody's.
    let next = rig.connect();
    session.client.send(&data(session.origin_id, 1, 100)).unwrap();
    next.client_sends(&[(2, 100)]);
    assert_eq!(next.origin_receives(1), [(2, 100)]);
}

fn events_wait_while_the_mailbox_of_control_is_full(engine: Engine) {
    let rig = Rig::with(engine, Setup { events: 1, ..Setup::default() });
    let clients: Vec<_> = (0..3).map(|_| Caller::conclude(rig.address, 1)).collect();
    let mut callers: Vec<_> = (0..3).map(|_| rig.await_pick().1).collect();
    callers.sort();
    let mut expected: Vec<_> = clients.iter().map(|c| c.socket.local_addr().unwrap()).collect();
    expected.sort();
    assert_eq!(callers, expected);
}

fn a_shard_stops_while_datagrams_arrive_and_leaves_its_port_free(engine: Engine) {
    let rig = Rig::start(engine);
    let session = rig.connect();
    let is_over = AtomicBool::new(false);
    let address = rig.address;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !is_over.load(Ordering::Relaxed) {
                // Fails with ECONNREFUSED once the relay is gone.
                let _ = session.client.send(&data(session.origin_id, n, 1000));
                n += 1;
            }
        });
        session.origin_receives(100);
        drop(rig);
        is_over.store(true, Ordering::Relaxed);
    });
    UdpSocket::bind(address).expect("the shard has closed its listener");
}

fn a_shard_without_traffic_sleeps(engine: Engine) {
    let clients = ClientSockets::of_shard(128, 1, 10_000);
    let rig = Rig::with(engine, Setup { clients, ..Setup::default() });
    let before = rig.counters().io.wakeups;
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let patience = Timespec { tv_sec: 2, tv_nsec: 500_000_000 };
    assert_eq!(poll(&mut [PollFd::new(&nobody, PollFlags::IN)], Some(&patience)).unwrap(), 0);
    // Once a second for the kernel's drop counters and once for busy clients, and for the question.
    let wakeups = rig.counters().io.wakeups - before;
    assert!(wakeups < 20, "{wakeups} wake-ups in 2.5 s");
}

fn a_shard_that_cannot_be_pinned_does_not_start(engine: Engine) {
    for cpu in [1023, 1_000_000] {
        let (_commands, from_control) = mailbox(1).unwrap();
        let (to_control, _events) = mailbox(1).unwrap();
        let spec = ShardSpec {
            index: 0,
            cpu: Some(cpu),
            listeners: Vec::new(),
            config: shard_config(),
            commands: from_control,
            events: to_control,
            offloads: NONE,
            settings: Settings::default(),
        };
        let error = engine::start(engine, spec).unwrap_err();
        assert!(matches!(error, EngineError::Pin { cpu: refused } if refused == cpu), "{error}");
    }
}

/// A running shard with this test as its control.
struct Rig {
    address: SocketAddr,
    commands: Post<Command>,
    events: Mailbox<FromShard>,
    shard: Option<engine::ShardHandle>,
}

struct Setup {
    listen: Listen,
    offloads: Offloads,
    buffers: u16,
    submissions: u32,
    completions_max: u32,
    events: usize,
    refuses_segments: bool,
    batch_wait: Option<Duration>,
    clients: ClientSockets,
    /// Takes the place of the one that would be opened.
    listener: Option<UdpSocket>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            listen: Listen::At(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0)),
            offloads: Offloads { gso: true, gro: true },
            buffers: 64,
            submissions: 1024,
            completions_max: 1 << 16,
            events: 1024,
            refuses_segments: false,
            batch_wait: None,
            clients: ClientSockets::NONE,
            listener: None,
        }
    }
}

impl Setup {
    fn settings(&self) -> Settings {
        Settings {
            train_buffers: self.buffers,
            datagram_buffers: self.buffers,
            submissions: self.submissions,
            completions_max: self.completions_max,
            socket_buffer_bytes: 1 << 20,
            batch_wait: self.batch_wait,
            clients: self.clients,
        }
    }

    fn open_listener(&self) -> (SocketAddr, UdpSocket) {
        let options = GroupOptions {
            cpus: &[None],
            steer: Steer::Hash,
            gro: self.offloads.gro,
            buffer_bytes: 1 << 20,
        };
        let mut group = ListenerGroup::open(self.listen, options).unwrap().unwrap();
        (group.address, group.sockets.remove(0))
    }
}

impl Rig {
    fn start(engine: Engine) -> Self {
        Self::with(engine, Setup::default())
    }

    fn with(engine: Engine, mut setup: Setup) -> Self {
        let (address, listener) = match setup.listener.take() {
            Some(listener) => (listener.local_addr().unwrap(), listener),
            None => setup.open_listener(),
        };
        if setup.refuses_segments {
            set_option(&listener, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
        }
        let (commands, from_control) = mailbox(64).unwrap();
        let (to_control, events) = mailbox(setup.events).unwrap();
        let spec = ShardSpec {
            index: 0,
            cpu: None,
            listeners: vec![listener],
            config: shard_config(),
            commands: from_control,
            events: to_control,
            offloads: setup.offloads,
            settings: setup.settings(),
        };
        let shard = engine::start(engine, spec).unwrap();
        Self { address, commands, events, shard: Some(shard) }
    }

    fn tell(&self, command: Command) {
        self.commands.send(command).unwrap();
    }

    /// The next event that `wanted` recognises; others are passed over.
    fn await_event<T>(&self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.events.acknowledge();
            while let Some(from) = self.events.take() {
                if let Some(found) = wanted(from.event) {
                    return found;
                }
            }
            assert!(Instant::now() < deadline, "the shard does not say what it should");
            let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
            poll(&mut [PollFd::new(&self.events, PollFlags::IN)], Some(&timeout)).unwrap();
        }
    }

    fn await_pick(&self) -> (SessionKey, SocketAddr) {
        self.await_event(|event| match event {
            Event::Pick(pick) => Some((pick.session, pick.client)),
            _ => None,
        })
    }

    fn counters(&self) -> Counters {
        self.tell(Command::Counters { request: 1 });
        self.await_event(|event| match event {
            Event::Counters { counters, .. } => Some(*counters),
            _ => None,
        })
    }

    /// The counters as soon as they are as `expected`.
    fn await_counters(&self, expected: impl Fn(&Counters) -> bool) -> Counters {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counters = self.counters();
            if expected(&counters) {
                return counters;
            }
            assert!(Instant::now() < deadline, "the counters are not as expected: {counters:?}");
        }
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.counters().drops[reason as usize]
    }

    fn connect(&self) -> Session {
        self.connect_to(self.address)
    }

    /// A session from a new client, through `target`, with an origin of its own.
    fn connect_to(&self, target: SocketAddr) -> Session {
        let origin = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        self.join(Caller::conclude(target, next_socket_id()), origin)
    }

    /// A session between these two.
    fn join(&self, caller: Caller, origin: UdpSocket) -> Session {
        origin.set_read_timeout(Some(PATIENCE)).unwrap();
        let (key, _) = self.await_pick();
        let address = origin.local_addr().unwrap();
        self.tell(Command::Open { session: key, origin: OriginId(1), address });
        let origin_id = accept(&origin);
        let answer = receive(&caller.socket);
        assert_eq!(
            word(&answer, 40),
            origin_id,
            "the conclusion's answer names the origin's socket"
        );
        self.await_event(|event| matches!(event, Event::Established { .. }).then_some(()));
        Session { key, client: caller.socket, client_id: caller.id, origin, origin_id }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.tell(Command::Stop);
        let result = self.shard.take().unwrap().join.join();
        if !std::thread::panicking() {
            result.expect("the thread has not panicked").expect("the engine has not failed");
        }
    }
}

fn shard_config() -> ShardConfig {
    ShardConfig {
        limits: Limits {
            sessions_max: 64,
            pending_max: 64,
            pending_per_source: 64,
            induction_rate: 100_000,
            induction_rate_per_prefix: 100_000,
            srt_idle_timeout: Duration::from_secs(60),
            webrtc_idle_timeout: Duration::from_secs(30),
            origin_setup_timeout: PATIENCE,
        },
        cookie_key: CookieKey::new([7; 16]),
        hash_seed: 7,
        started: Instant::now(),
        started_unix_seconds: 1_700_000_000,
        vhosts: Vhosts::default(),
        default_stream: Some("live/conformance".to_owned()),
        key_length: 0,
        listeners: vec![ringway::shard::Protocol::Srt],
        webrtc_direct: false,
    }
}

/// Both far ends of an established session.
struct Session {
    key: SessionKey,
    client: UdpSocket,
    client_id: u32,
    origin: UdpSocket,
    origin_id: u32,
}

impl Session {
    /// Data packets as (sequence number, payload bytes).
    fn client_sends(&self, packets: &[(u32, usize)]) {
        for (sequence, payload) in packets {
            self.client.send(&data(self.origin_id, *sequence, *payload)).unwrap();
        }
    }

    fn origin_sends(&self, packets: &[(u32, usize)]) {
        for (sequence, payload) in packets {
            self.origin.send(&data(self.client_id, *sequence, *payload)).unwrap();
        }
    }

    fn client_receives(&self, count: usize) -> Vec<(u32, usize)> {
        received(&self.client, self.client_id, count)
    }

    fn origin_receives(&self, count: usize) -> Vec<(u32, usize)> {
        received(&self.origin, self.origin_id, count)
    }
}

fn received(socket: &UdpSocket, id: u32, count: usize) -> Vec<(u32, usize)> {
    let mut packets = Vec::new();
    while packets.len() < count {
        let packet = receive(socket);
        let (sequence, payload) = (word(&packet, 0), packet.len() - HEADER);
        assert_eq!(packet, data(id, sequence, payload), "a packet has changed on its way");
        packets.push((sequence, payload));
    }
    packets
}

/// A client that has sent its conclusion.
struct Caller {
    socket: UdpSocket,
    id: u32,
}

impl Caller {
    fn conclude(target: SocketAddr, id: u32) -> Self {
        let local = if target.is_ipv4() {
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
        } else {
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
        };
        Self::conclude_from(UdpSocket::bind(local).unwrap(), target, id)
    }

    fn conclude_from(socket: UdpSocket, target: SocketAddr, id: u32) -> Self {
        socket.connect(target).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let induction = handshake(0, 4, 2, INDUCTION, id, 0);
        socket.send(&induction).unwrap();
        let cookie = word(&receive(&socket), 44);
        let mut conclusion = handshake(0, 5, EXTENSION_HSREQ, CONCLUSION, id, cookie);
        extend(&mut conclusion, HSREQ);
        socket.send(&conclusion).unwrap();
        Self { socket, id }
    }
}

/// The origin's half of a handshake. Leaves its socket connected to the session's port; returns its
/// socket ID.
fn accept(origin: &UdpSocket) -> u32 {
    let id = next_socket_id();
    let mut room = [0; 1500];
    let (len, port) = origin.recv_from(&mut room).unwrap();
    origin.connect(port).unwrap();
    assert_eq!((len, word(&room, 36)), (64, INDUCTION));
    let caller = word(&room, 40);
    let cookie = 0x5EED_C0DE;
    origin.send(&handshake(caller, 5, 0x4A17, INDUCTION, id, cookie)).unwrap();
    let conclusion = receive(origin);
    assert_eq!((word(&conclusion, 36), word(&conclusion, 44)), (CONCLUSION, cookie));
    let mut answer = handshake(caller, 5, EXTENSION_HSREQ, CONCLUSION, id, 0);
    extend(&mut answer, HSRSP);
    origin.send(&answer).unwrap();
    id
}

/// The 64 bytes of a handshake packet without extensions (draft-sharabayko-srt, section 3.2.1).
fn handshake(to: u32, version: u32, extension: u32, kind: u32, id: u32, cookie: u32) -> Vec<u8> {
    let words = [0x8000_0000, 0, 1000, to, version, extension, 77, 1500, 8192, kind, id, cookie];
    let mut packet: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
    packet.resize(64, 0);
    packet
}

/// Appends a handshake extension message (section 3.2.1.1): SRT 1.5.1, the usual flags, 120 ms.
fn extend(packet: &mut Vec<u8>, kind: u32) {
    for word in [kind << 16 | 3, 0x0001_0501, 0xBF, 120 << 16 | 120] {
        packet.extend(word.to_be_bytes());
    }
}

/// A data packet with a payload that depends on everything.
fn data(to: u32, sequence: u32, payload: usize) -> Vec<u8> {
    let words = [sequence, 0xE000_0001, 5, to];
    let mut packet: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
    packet.extend((0..payload).map(|i| (i as u32).wrapping_mul(31).wrapping_add(sequence) as u8));
    packet
}

/// Data packets one behind the other, the last one with a payload of `tail` bytes.
fn train(to: u32, count: u32, payload: usize, tail: usize) -> Vec<u8> {
    (0..count).flat_map(|n| data(to, n, if n + 1 == count { tail } else { payload })).collect()
}

/// Sends `bytes` as datagrams of `segment` bytes with one call, so that they arrive as one train.
fn send_train(socket: &UdpSocket, bytes: &[u8], segment: usize) {
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, segment as i32);
    socket.send(bytes).unwrap();
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0);
}

#[allow(unsafe_code, reason = "no crate at hand knows these options")]
fn set_option(socket: &UdpSocket, level: i32, name: i32, value: i32) {
    let (fd, len) = (socket.as_raw_fd(), size_of::<i32>() as u32);
    // SAFETY: the kernel reads `len` bytes of `value`.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut room = vec![0; 1 << 16];
    let len = socket.recv(&mut room).unwrap();
    room.truncate(len);
    room
}

fn is_shutdown(packet: &[u8]) -> bool {
    packet.starts_with(&[0x80, 5])
}

fn word(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(packet[at..at + 4].try_into().unwrap())
}

fn next_socket_id() -> u32 {
    use std::sync::atomic::AtomicU32;
    static NEXT: AtomicU32 = AtomicU32::new(1000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

const NONE: Offloads = Offloads { gso: false, gro: false };
const LOOPBACK_V6: Listen =
    Listen::At(SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0));

/// Silence for so long is a failure.
const PATIENCE: Duration = Duration::from_secs(10);

/// Datagrams that are under way at once: what the default receive queue of a test's socket holds.
const WINDOW: u32 = 64;

/// Bytes of an SRT header.
const HEADER: usize = 16;

/// The largest payload behind an SRT header on IPv4.
const LARGEST: usize = 65_507 - HEADER;

const INDUCTION: u32 = 1;
const CONCLUSION: u32 = 0xFFFF_FFFF;
const EXTENSION_HSREQ: u32 = 1;
const HSREQ: u32 = 1;
const HSRSP: u32 = 2;
