//! What a media datagram costs a shard, without sockets: the aim is below 60 ns, and no allocation (which
//! `tests/allocations.rs` asserts). `cargo bench --bench shard`
//!
//! Sessions take turns in an order that no prefetcher guesses, so that ten thousand of them also show what cold memory
//! costs. The time of writing eight bytes into the datagram is in the figures.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    reason = "a measurement may fail loudly"
)]
#![allow(dead_code, unreachable_pub, reason = "support is shared with the tests")]

use divan::Bencher;
use divan::counter::ItemsCount;
use ringway::shard::Verdict;

#[path = "../tests/support/packets.rs"]
mod packets;
#[path = "../tests/support/random.rs"]
mod random;
#[path = "../tests/support/rtc.rs"]
mod rtc;
#[path = "support/sessions.rs"]
mod sessions;
#[path = "../tests/support/stage.rs"]
mod stage;

use sessions::Sessions;

fn main() {
    divan::main();
}

#[divan::bench(args = COUNTS)]
fn srt_client_to_origin(bencher: Bencher<'_, '_>, count: u32) {
    let mut sessions = Sessions::srt(count);
    forward(bencher, || sessions.client_sends());
}

#[divan::bench(args = COUNTS)]
fn srt_origin_to_client(bencher: Bencher<'_, '_>, count: u32) {
    let mut sessions = Sessions::srt(count);
    forward(bencher, || sessions.origin_sends());
}

#[divan::bench(args = COUNTS)]
fn webrtc_client_to_origin(bencher: Bencher<'_, '_>, count: u32) {
    let mut sessions = Sessions::webrtc(count);
    forward(bencher, || sessions.client_sends());
}

#[divan::bench(args = COUNTS)]
fn webrtc_origin_to_client(bencher: Bencher<'_, '_>, count: u32) {
    let mut sessions = Sessions::webrtc(count);
    forward(bencher, || sessions.origin_sends());
}

fn forward(bencher: Bencher<'_, '_>, mut relay: impl FnMut() -> Verdict) {
    assert!(matches!(relay(), Verdict::Forward(_)));
    bencher.counter(ItemsCount::new(1_usize)).bench_local(relay);
}

const COUNTS: [u32; 3] = [1, 1_000, 10_000];
