//! Media datagrams allocate nothing, and sessions cost no more than they may: asserted by counting what the relay's
//! threads ask the allocator for.
//!
//! A binary of its own, because a program has one allocator.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may fail loudly"
)]
#![allow(unsafe_code, reason = "an allocator is unsafe to write")]
#![allow(
    dead_code,
    unreachable_pub,
    clippy::wildcard_enum_match_arm,
    reason = "support is shared with the other test binary"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ringway::config::{Config, EngineChoice, Listen, StaticOrigin};
use ringway::protocol::stun::{Builder, Class, IntegrityKey, Message, Method, TransactionId};
use ringway::relay::{Relay, Signals};

#[path = "support/caller.rs"]
mod caller;
#[path = "support/http.rs"]
mod http;
#[path = "support/http_server.rs"]
mod http_server;
#[path = "support/ice.rs"]
mod ice;
#[path = "allocations/memory.rs"]
mod memory;
#[path = "support/packets.rs"]
mod packets;
#[path = "support/process.rs"]
mod process;
#[path = "support/random.rs"]
mod random;
#[path = "support/webrtc_client.rs"]
mod webrtc_client;
#[path = "support/webrtc_origin.rs"]
mod webrtc_origin;

use caller::{Caller, Origin, socket_near};

/// The system's allocator, which counts what one thread asks of it, and the bytes that some hold.
struct Counting;

static COUNTED_THREAD: AtomicI32 = AtomicI32::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// What the threads that say so have taken and not given back.
static BYTES_HELD: AtomicI64 = AtomicI64::new(0);
/// There is one count, so one test at a time.
static COUNT: Mutex<()> = Mutex::new(());

thread_local! {
    /// Whether what this thread takes and gives back is counted in [`BYTES_HELD`].
    static IS_WEIGHED: Cell<bool> = const { Cell::new(false) };
}

/// What the thread `tid` asks of the allocator while `act` runs.
fn allocations_of(tid: i32, act: impl FnOnce()) -> u64 {
    ALLOCATIONS.store(0, Ordering::Relaxed);
    COUNTED_THREAD.store(tid, Ordering::Relaxed);
    act();
    COUNTED_THREAD.store(0, Ordering::Relaxed);
    ALLOCATIONS.load(Ordering::Relaxed)
}

impl Counting {
    fn count() {
        let counted = COUNTED_THREAD.load(Ordering::Relaxed);
        if counted != 0 && rustix::thread::gettid().as_raw_nonzero().get() == counted {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn weigh(taken: usize, given_back: usize) {
        // A thread that ends gives back what it holds when its locals are gone already.
        if IS_WEIGHED.try_with(Cell::get).unwrap_or(false) {
            BYTES_HELD.fetch_add(taken as i64 - given_back as i64, Ordering::Relaxed);
        }
    }
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        Self::weigh(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        Self::weigh(0, layout.size());
        // SAFETY: the block is one that the system's allocator gave.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        Self::weigh(size, layout.size());
        // SAFETY: the block is one that the system's allocator gave.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn neither_media_nor_strangers_allocate_on_any_engine_and_a_new_session_is_seen_to() {
    let _alone = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    for engine in [EngineChoice::Uring, EngineChoice::Mmsg, EngineChoice::TokioUring] {
        let origin = Origin::start();
        let anywhere = Listen::At(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let config = Config {
            srt_listen: anywhere,
            webrtc_listen: Listen::Off,
            system_listen: Listen::Off,
            http_listen: Listen::Off,
            shards: Some(1),
            engine,
            origins: vec![StaticOrigin {
                srt: Some(origin.address.port()),
                ..StaticOrigin::at("a", IpAddr::V4(Ipv4Addr::LOCALHOST))
            }],
            ..Config::default()
        };
        let relay = Relay::start(config, Signals::Ignored).unwrap();
        let address = relay.srt_address().unwrap();
        let callers: Vec<_> = (0..10)
            .map(|i| Caller::connect(address, 100 + i, &format!("#!::r=live/s{i},m=publish")))
            .collect();
        exchange(&callers, 200);

        let tid = relay.shards()[0].tid;
        let of_media = allocations_of(tid, || exchange(&callers, 2000));
        let of_strangers = allocations_of(tid, || flood(&callers[0]));
        let of_session = allocations_of(tid, || {
            drop(Caller::connect(address, 500, "#!::r=live/more,m=publish"));
        });

        assert_eq!(of_media, 0, "{engine:?}: 20,000 datagrams each way");
        assert_eq!(of_strangers, 0, "{engine:?}: inductions, forged conclusions, junk");
        assert!(of_session > 0, "the counter counts");
        relay.quit();
        drop(callers);
    }
}

#[test]
fn neither_webrtc_media_nor_checks_nor_strangers_allocate_on_any_engine() {
    let _alone = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    for engine in [EngineChoice::Uring, EngineChoice::Mmsg, EngineChoice::TokioUring] {
        let origin = UdpSocket::bind("127.0.0.1:0").unwrap();
        let origin_port = origin.local_addr().unwrap().port();
        std::thread::spawn(move || echo(&origin));
        let anywhere = Listen::At(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let config = Config {
            srt_listen: Listen::Off,
            webrtc_listen: anywhere,
            webrtc_direct: true,
            system_listen: Listen::Off,
            http_listen: Listen::Off,
            shards: Some(1),
            engine,
            origins: vec![StaticOrigin {
                direct: Some(origin_port),
                ..StaticOrigin::at("a", IpAddr::V4(Ipv4Addr::LOCALHOST))
            }],
            ..Config::default()
        };
        let relay = Relay::start(config, Signals::Ignored).unwrap();
        let address = relay.webrtc_address().unwrap();
        let clients: Vec<_> = (0..10).map(|i| Client::connect(address, i)).collect();
        // As many checks as a session remembers at a time, so that its memory of them has its size.
        for _ in 0..40 {
            clients.iter().for_each(Client::check);
        }
        let stranger = socket_near(address);
        let forged = clients[0].request(&IntegrityKey::new(b"guessed"), 7);
        let unknown = Client { ufrag: "libp2p-webrtc-v1/stranger".to_owned(), socket: stranger };
        let unknown_request = unknown.request(&unknown.key(), 7);

        let tid = relay.shards()[0].tid;
        let of_media = allocations_of(tid, || {
            for _ in 0..2000 {
                clients.iter().for_each(|client| client.socket.send(&RTP).map(drop).unwrap());
                clients.iter().for_each(|client| client.wait_for(&RTP));
            }
        });
        let of_checks = allocations_of(tid, || {
            for _ in 0..50 {
                clients.iter().for_each(Client::check);
            }
        });
        let of_strangers = allocations_of(tid, || {
            for _ in 0..500 {
                for datagram in [&forged[..], &unknown_request, &RTP, &KEEPALIVE, b"junk"] {
                    unknown.socket.send(datagram).unwrap();
                }
                // The queue is one, so all that has been handled when this is back.
                clients[0].socket.send(&RTP).unwrap();
                clients[0].wait_for(&RTP);
            }
        });
        let of_session = allocations_of(tid, || drop(Client::connect(address, 99)));

        assert_eq!(of_media, 0, "{engine:?}: 20,000 datagrams each way");
        assert_eq!(of_checks, 0, "{engine:?}: 500 checks of warm sessions");
        assert_eq!(
            of_strangers, 0,
            "{engine:?}: forged and unknown requests, unproven media, junk"
        );
        assert!(of_session > 0, "the counter counts");
        relay.quit();
    }
}

/// A WebRTC client whose ufrag is its password, so that it needs no signalling.
struct Client {
    ufrag: String,
    socket: UdpSocket,
}

const RTP: [u8; 1200] = {
    let mut packet = [5; 1200];
    (packet[0], packet[1]) = (0x80, 96);
    packet
};
const KEEPALIVE: [u8; 20] =
    [0, 0x11, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
static TRANSACTIONS: AtomicU64 = AtomicU64::new(1);

impl Client {
    fn connect(relay: SocketAddr, number: u32) -> Self {
        let ufrag = format!("libp2p+webrtc+v1/client{number}");
        let client = Self { ufrag, socket: socket_near(relay) };
        client.check();
        client
    }

    fn key(&self) -> IntegrityKey {
        IntegrityKey::new(self.ufrag.as_bytes())
    }

    fn request(&self, key: &IntegrityKey, transaction: u64) -> Vec<u8> {
        let mut id = [0; 12];
        id[4..].copy_from_slice(&transaction.to_be_bytes());
        Builder::new(Class::Request, Method::Binding, TransactionId(id))
            .username(format!("{0}:{0}", self.ufrag).as_bytes())
            .finish(Some(key), true)
    }

    /// A connectivity check and its answer, which names this client's own address.
    fn check(&self) {
        let request = self.request(&self.key(), TRANSACTIONS.fetch_add(1, Ordering::Relaxed));
        self.socket.send(&request).unwrap();
        let mut buffer = [0; 2048];
        loop {
            let length = self.receive(&mut buffer);
            let message = Message::parse(&buffer[..length]);
            if message.is_ok_and(|it| it.mapped_address() == self.socket.local_addr().ok()) {
                return;
            }
        }
    }

    fn wait_for(&self, datagram: &[u8]) {
        let mut buffer = [0; 2048];
        let length = self.receive(&mut buffer);
        assert_eq!(&buffer[..length], datagram);
    }

    /// A socket whose reads have a time limit is interrupted when another thread's ring goes away (signal(7)).
    fn receive(&self, buffer: &mut [u8]) -> usize {
        loop {
            match self.socket.recv(buffer) {
                Ok(length) => return length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("nothing comes back: {error}"),
            }
        }
    }
}

/// An origin that answers checks and sends everything else back. It ends with the process.
fn echo(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((length, source)) = socket.recv_from(&mut buffer) {
        let datagram = &buffer[..length];
        let answer = match Message::parse(datagram) {
            Ok(request) => {
                let username = request.username().expect("a request");
                let ufrag = &username[..username.len() / 2];
                Builder::new(Class::Success, Method::Binding, request.transaction())
                    .xor_mapped_address(source)
                    .finish(Some(&IntegrityKey::new(ufrag)), true)
            }
            Err(_) => datagram.to_vec(),
        };
        let _ = socket.send_to(&answer, source);
    }
}

/// Sends media from every caller and waits for the origin's echo of each.
fn exchange(callers: &[Caller], rounds: u32) {
    let mut buffer = [0; 2048];
    for sequence in 0..rounds {
        for caller in callers {
            caller.send(sequence, &[0x47; 1316]);
        }
        for caller in callers {
            while !matches!(caller.socket.recv(&mut buffer), Ok(length) if length > 1000) {}
        }
    }
}

/// What anybody can send: inductions, conclusions without a good cookie, junk. The answers to the inductions are
/// waited for, so that all of it has been handled when this returns.
fn flood(caller: &Caller) {
    let mut buffer = [0; 2048];
    for id in 5000..7000 {
        for datagram in [
            packets::conclusion(id, 1, 7, Some("#!::r=live/forged")),
            packets::data(id, 1, b"junk"),
            b"junk".to_vec(),
            packets::induction(id, 1),
        ] {
            caller.socket.send(&datagram).unwrap();
        }
        assert_eq!(caller.socket.recv(&mut buffer).unwrap(), 64);
    }
}
