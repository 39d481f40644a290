//! A ring without a thread of its own: the tests take its steps.

use std::net::UdpSocket;

use rustix::net::RecvFlags;

use super::*;
use crate::engine::Offloads;
use crate::engine::thread::ShardSpec;
use crate::mailbox::{Mailbox, Post, mailbox};
use crate::protocol::srt::CookieKey;
use crate::protocol::stream_url::Vhosts;
use crate::shard::command::FromShard;
use crate::shard::{Event, Limits, ShardConfig};

/// A ring without a thread of its own: the test takes its steps.
struct Rig<'pool> {
    uring: Uring<'pool>,
    commands: Post<Command>,
    events: Mailbox<FromShard>,
    client: UdpSocket,
}

impl<'pool> Rig<'pool> {
    /// The client is connected to the only listener.
    fn new(pool: &'pool BufRing, settings: Settings) -> Self {
        let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(listener.local_addr().unwrap()).unwrap();
        let (commands, from_control) = mailbox(8).unwrap();
        let (to_control, events) = mailbox(8).unwrap();
        let spec = ShardSpec {
            index: 0,
            cpu: None,
            listeners: vec![listener],
            config: shard_config(),
            commands: from_control,
            events: to_control,
            offloads: Offloads { gso: false, gro: false },
            settings,
        };
        let lane = Lane::new(spec, Instant::now()).unwrap();
        let uring = Uring::new(pool, lane, settings).unwrap();
        Self { uring, commands, events, client }
    }

    /// A port of the session in `slot`, in which `datagrams` wait.
    fn port_with_backlog(&mut self, slot: u32, datagrams: usize) -> Port {
        let origin = UdpSocket::bind("127.0.0.1:0").unwrap();
        let session = SessionKey { slot, generation: 0 };
        self.uring.lane.ports.open(session, origin.local_addr().unwrap()).unwrap();
        let port = Port::Session(session);
        let socket = socket2::SockRef::from(self.uring.lane.ports.get(port).unwrap());
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (0..datagrams).for_each(|_| assert_eq!(origin.send_to(b"media", address).unwrap(), 5));
        self.uring.unarmed.push_back(Token::Receive(Inlet::Port(port)));
        port
    }

    /// Takes what still waits in the port's queue, and says how much it was.
    fn drain(&self, port: Port) -> usize {
        let socket = self.uring.lane.ports.get(port).unwrap();
        let mut bytes = [0; 16];
        let mut receive = || rustix::net::recv(socket, &mut bytes[..], RecvFlags::DONTWAIT);
        std::iter::from_fn(|| receive().ok()).count()
    }

    /// One turn of the loop that does not wait.
    fn turn(&mut self) {
        let now = Instant::now();
        self.uring.submit(Wait::Arrived).unwrap();
        self.uring.settle(now).unwrap();
        self.uring.take_in(now).unwrap();
        self.uring.lane.look_after(now);
    }

    fn ask_for_counters(&self, request: u64) {
        self.commands.send(Command::Counters { request }).unwrap();
    }

    fn answers(&self) -> Vec<u64> {
        let events = std::iter::from_fn(|| self.events.take()).map(|message| message.event);
        let requests = events.map(|event| {
            let Event::Counters { request, .. } = event else { unreachable!("{event:?}") };
            request
        });
        requests.collect()
    }
}

const SESSIONS: u32 = 5;

fn shard_config() -> ShardConfig {
    ShardConfig {
        limits: Limits {
            sessions_max: SESSIONS,
            pending_max: 1,
            pending_per_source: 1,
            induction_rate: 1,
            induction_rate_per_prefix: 1,
            srt_idle_timeout: Duration::from_secs(1),
            webrtc_idle_timeout: Duration::from_secs(30),
            origin_setup_timeout: Duration::from_secs(1),
        },
        cookie_key: CookieKey::new([7; 16]),
        hash_seed: 7,
        started: Instant::now(),
        started_unix_seconds: 0,
        vhosts: Vhosts::default(),
        default_stream: None,
        key_length: 0,
        listeners: vec![crate::shard::Protocol::Srt],
        webrtc_direct: false,
    }
}

#[test]
fn a_mailbox_whose_watch_has_ended_is_watched_again() {
    let pool = BufRing::new(16, 2048).unwrap();
    let short = Settings { submissions: 2, completions_max: 2, ..Settings::default() };
    let mut rig = Rig::new(&pool, short);
    rig.turn();
    // More completions than their queue takes, and then the mailbox's: a multishot operation
    // that cannot post ends.
    for _ in 0..4 {
        rig.client.send(b"junk").unwrap();
    }
    rig.ask_for_counters(1);
    rig.uring.submit(Wait::Arrived).unwrap();
    rig.uring.settle(Instant::now()).unwrap();
    let is_mailbox = |entry: &&cqueue::Entry| Token::decode(entry.user_data()) == Token::Mailbox;
    let last = rig.uring.arrived.iter().find(is_mailbox).expect("the mailbox has rung");
    assert!(!cqueue::more(last.flags()), "its watch has ended");

    for request in 2..5 {
        rig.turn();
        rig.ask_for_counters(request);
    }
    rig.turn();
    assert_eq!(rig.answers(), [1, 2, 3, 4]);
}

#[test]
fn sockets_with_a_backlog_take_turns_where_a_portion_is_smaller_than_it() {
    let pool = BufRing::new(4, 2048).unwrap();
    let mut rig = Rig::new(&pool, Settings::default());
    let ports: Vec<Port> = (0..SESSIONS).map(|slot| rig.port_with_backlog(slot, 100)).collect();
    for _ in 0..10 * SESSIONS {
        rig.turn();
    }
    let left: Vec<_> = ports.iter().map(|port| rig.drain(*port)).collect();
    let (least, most) = (left.iter().min().unwrap(), left.iter().max().unwrap());
    assert!(*most < 100 && most - least <= 20, "left of 100 each: {left:?}");
}

#[test]
fn a_ring_that_cannot_wait_for_several_datagrams_sleeps_until_the_window_is_over() {
    let pool = BufRing::new(64, 2048).unwrap();
    let window = Duration::from_millis(2);
    let settings = Settings { batch_wait: Some(window), ..Settings::default() };
    let mut rig = Rig::new(&pool, settings);
    rig.uring.napper = Some(Napper::new()); // As before Linux 6.12.
    let (mut now, mut sent) = (Instant::now(), 0);
    for waits in 1..5 {
        let mut asleep = now;
        while rig.uring.lane.shard.io().gather_waits < waits {
            (0..16).for_each(|_| assert_eq!(rig.client.send(b"junk").unwrap(), 4));
            sent += 16;
            asleep = now;
            rig.uring.sleep(now).unwrap();
            now = Instant::now();
            rig.uring.settle(now).unwrap();
            rig.uring.take_in(now).unwrap();
        }
        let slept = now - asleep;
        assert!(slept + Duration::from_micros(10) >= window, "{slept:?}");
    }
    rig.turn(); // What has come since.
    assert_eq!(rig.uring.lane.shard.io().receives, sent);
}
