//! What finding a session costs, by socket ID and by address: in random order among all, or among 64 that are hot.
//! `cargo bench --bench table`; a million entries take half a gigabyte.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    reason = "a measurement may fail loudly"
)]
#![allow(dead_code, unreachable_pub, reason = "support is shared with the tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use divan::{Bencher, black_box};
use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use ringway::protocol::srt::{Handshake, SocketId};
use ringway::session::session::Wish;
use ringway::session::table::AddressKey;
use ringway::session::webrtc::Path;
use ringway::session::{
    CallerHandshake, ListenerIndex, Peer, Protocol, Role, Session, SessionTable, WebRtcSession,
};

#[path = "../tests/support/packets.rs"]
mod packets;
#[path = "../tests/support/random.rs"]
mod random;
#[path = "../tests/support/rtc.rs"]
mod rtc;
#[path = "../tests/support/stage.rs"]
mod stage;

fn main() {
    divan::main();
}

#[divan::bench(args = counts())]
fn by_socket_id_random(bencher: Bencher<'_, '_>, count: u32) {
    look_up_socket_ids(bencher, count, count);
}

#[divan::bench(args = counts())]
fn by_socket_id_hot(bencher: Bencher<'_, '_>, count: u32) {
    look_up_socket_ids(bencher, count, HOT);
}

#[divan::bench(args = counts())]
fn by_address_random(bencher: Bencher<'_, '_>, count: u32) {
    look_up_addresses(bencher, count, count);
}

#[divan::bench(args = counts())]
fn by_address_hot(bencher: Bencher<'_, '_>, count: u32) {
    look_up_addresses(bencher, count, HOT);
}

fn look_up_socket_ids(bencher: Bencher<'_, '_>, count: u32, wanted: u32) {
    let mut table = srt_table(count);
    let keys = shuffled(count, wanted, |number| (client(number), SocketId(number + 1)));
    let mut keys = keys.iter().cycle();
    bencher.bench_local(|| {
        let &(address, socket) = black_box(keys.next().unwrap());
        table.by_socket_id(address, socket).map(|(key, _)| key).unwrap()
    });
}

fn look_up_addresses(bencher: Bencher<'_, '_>, count: u32, wanted: u32) {
    let mut table = webrtc_table(count);
    let addresses = shuffled(count, wanted, client);
    let mut addresses = addresses.iter().cycle();
    bencher.bench_local(|| {
        let address = AddressKey::of(*black_box(addresses.next().unwrap()));
        table.by_address(address).map(|(key, _)| key).unwrap()
    });
}

/// `wanted` of `count` keys, in no order.
fn shuffled<T>(count: u32, wanted: u32, key: impl Fn(u32) -> T) -> Vec<T> {
    let mut random = random::Random::new(1);
    let mut numbers: Vec<u32> = (0..count).collect();
    for last in (1..numbers.len()).rev() {
        numbers.swap(last, random.below(last as u64 + 1) as usize);
    }
    numbers.into_iter().take(wanted as usize).map(key).collect()
}

fn srt_table(count: u32) -> SessionTable {
    let now = Instant::now();
    let mut table = SessionTable::new(count, &[Protocol::Srt], &hasher());
    let wish = Wish {
        stream: rtc::signalled(0).stream.clone(),
        role: Role::Publish,
        group: None,
        hsreq: None,
        key: None,
    };
    for number in 0..count {
        let conclusion = packets::conclusion(number + 1, 1000, 5, None);
        let request = Handshake::parse(&conclusion).unwrap();
        let handshake = CallerHandshake::new(&conclusion, request, now);
        let peer = Peer { address: client(number), local: None };
        let mut session = Session::new(ListenerIndex(0), peer, handshake, wish.clone(), now);
        // As in a session that has been established for a while.
        session.handshake = None;
        let key = table.insert(session);
        table.index_socket_id(key, SocketId(number + 1)).unwrap();
    }
    table
}

fn webrtc_table(count: u32) -> SessionTable {
    let now = Instant::now();
    let mut table = SessionTable::new(count, &[Protocol::WebRtc], &hasher());
    let signalled = rtc::signalled(0);
    for number in 0..count {
        let mut session = WebRtcSession::new(Arc::clone(&signalled), now, hasher(), now);
        let peer = Peer { address: client(number), local: None };
        let listener = ListenerIndex(0);
        session.paths.prove(Path {
            client: peer,
            listener,
            heard: now,
            is_here: true,
            proven: now,
        });
        let key = table.insert_webrtc(session);
        table.claim_address(key, AddressKey::of(client(number)));
    }
    table
}

/// As a shard seeds it.
fn hasher() -> SeedableRandomState {
    SeedableRandomState::with_seed(1, SharedSeed::global_random())
}

fn client(number: u32) -> SocketAddr {
    let (host, port) = (number / 250, number % 250);
    SocketAddr::from((
        [203, (host / 62_500) as u8, (host / 250) as u8, (host % 250) as u8],
        10_000 + port as u16,
    ))
}

/// A test of the benchmark itself has no use for a million.
fn counts() -> Vec<u32> {
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    if is_measured { vec![1_000, 100_000, 1_000_000] } else { vec![1_000] }
}

const HOT: u32 = 64;
