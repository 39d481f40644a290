//! What reading a packet costs, by protocol. `cargo bench --bench protocol`
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    reason = "a measurement may fail loudly"
)]
#![allow(dead_code, unreachable_pub, reason = "support is shared with the tests")]

use divan::{Bencher, black_box};
use ringway::protocol::demux::Kind;
use ringway::protocol::rtp::{RtcpHeader, RtpHeader};
use ringway::protocol::sdp;
use ringway::protocol::srt::{Extensions, Handshake, Header, StreamId};
use ringway::protocol::stream_url::Vhosts;
use ringway::protocol::stun::{Check, Message};

#[path = "../tests/support/packets.rs"]
mod packets;
#[path = "../tests/support/rtc.rs"]
mod rtc;
#[path = "../tests/support/stage.rs"]
mod stage;

fn main() {
    divan::main();
}

#[divan::bench]
fn srt_header(bencher: Bencher<'_, '_>) {
    let datagram = packets::data(7, 1, &[0x47; 1316]);
    bencher.bench(|| Header::parse(black_box(&datagram)).unwrap());
}

#[divan::bench]
fn srt_handshake_with_extensions(bencher: Bencher<'_, '_>) {
    let datagram = packets::conclusion(77, 1000, 5, Some(stage::STREAM_ID));
    bencher.bench(|| {
        let handshake = Handshake::parse(black_box(&datagram)).unwrap();
        (handshake, Extensions::parse(black_box(&datagram)).unwrap())
    });
}

#[divan::bench]
fn srt_stream_id_to_key(bencher: Bencher<'_, '_>) {
    let vhosts = Vhosts::default();
    bencher.bench(|| StreamId::parse(black_box(stage::STREAM_ID)).unwrap().key(&vhosts).unwrap());
}

#[divan::bench]
fn stun_message(bencher: Bencher<'_, '_>) {
    let datagram = rtc::request(&rtc::pair(1, 0), 1);
    bencher.bench(|| Message::parse(black_box(&datagram)).is_ok());
}

#[divan::bench]
fn stun_integrity_and_fingerprint(bencher: Bencher<'_, '_>) {
    let pair = rtc::pair(1, 0);
    let datagram = rtc::request(&pair, 1);
    bencher.bench(|| {
        let message = Message::parse(black_box(&datagram)).unwrap();
        message.integrity(&pair.key) == Check::Right && message.fingerprint() == Check::Right
    });
}

#[divan::bench]
fn sdp_credentials(bencher: Bencher<'_, '_>) {
    bencher.bench(|| sdp::pairs(black_box(ANSWER), black_box(ANSWER)).unwrap());
}

#[divan::bench]
fn sdp_rewrite_to_client(bencher: Bencher<'_, '_>) {
    let relay = ["192.0.2.1:18000".parse().unwrap()];
    bencher.bench(|| sdp::to_client(black_box(ANSWER), &relay).unwrap());
}

#[divan::bench]
fn rtp_demux_and_header(bencher: Bencher<'_, '_>) {
    let datagram = rtc::rtp(7, 1);
    bencher.bench(|| {
        (Kind::of(black_box(&datagram)), RtpHeader::parse(black_box(&datagram)).unwrap())
    });
}

#[divan::bench]
fn rtcp_demux_and_header(bencher: Bencher<'_, '_>) {
    let datagram = rtc::rtcp(7);
    bencher.bench(|| {
        (Kind::of(black_box(&datagram)), RtcpHeader::parse(black_box(&datagram)).unwrap())
    });
}

/// Two sections, 37 lines.
const ANSWER: &str = include_str!("../tests/fuzz/corpus/sdp/answer_of_srs");
