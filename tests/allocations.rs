//! Media datagrams allocate nothing: asserted by counting what the shard's thread asks the allocator for.
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
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use ringway::config::{Config, EngineChoice, Listen, StaticOrigin};
use ringway::relay::{Relay, Signals};

#[path = "support/caller.rs"]
mod caller;
#[path = "support/packets.rs"]
mod packets;

use caller::{Caller, Origin};

/// The system's allocator, which counts what one thread asks of it.
struct Counting;

static COUNTED_THREAD: AtomicI32 = AtomicI32::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

impl Counting {
    fn count() {
        let counted = COUNTED_THREAD.load(Ordering::Relaxed);
        if counted != 0 && rustix::thread::gettid().as_raw_nonzero().get() == counted {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is one that the system's allocator gave.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: the block is one that the system's allocator gave.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn neither_media_nor_strangers_allocate_on_any_engine_and_a_new_session_is_seen_to() {
    for engine in [EngineChoice::Uring, EngineChoice::Mmsg] {
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

        ALLOCATIONS.store(0, Ordering::Relaxed);
        COUNTED_THREAD.store(relay.shards()[0].tid, Ordering::Relaxed);
        exchange(&callers, 2000);
        let of_media = ALLOCATIONS.load(Ordering::Relaxed);
        flood(&callers[0]);
        let of_strangers = ALLOCATIONS.load(Ordering::Relaxed) - of_media;
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let _one_more = Caller::connect(address, 500, "#!::r=live/more,m=publish");
        let of_session = ALLOCATIONS.load(Ordering::Relaxed) - before;
        COUNTED_THREAD.store(0, Ordering::Relaxed);

        assert_eq!(of_media, 0, "{engine:?}: 20,000 datagrams each way");
        assert_eq!(of_strangers, 0, "{engine:?}: inductions, forged conclusions, junk");
        assert!(of_session > 0, "the counter counts");
        relay.quit();
        drop(callers);
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
