//! Fixed work for `tests/instructions`, which counts the instructions of the functions named `measured_*` and of
//! nothing else. Does what its argument names; without one it says what there is, and how many times each is done.
//!
//! Only what is the same on every x86-64 machine is counted: no payload is copied here, and what the crates choose by
//! CPU (SHA-1, CRC-32) has a bound of its own in the baseline.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    reason = "a measurement may fail loudly"
)]
#![allow(dead_code, unreachable_pub, reason = "support is shared with the tests")]

use std::hint::black_box;

use ringway::protocol::demux::Kind;
use ringway::protocol::rtp::RtpHeader;
use ringway::protocol::srt::Header;
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

use rtc::RtcStage;
use sessions::Sessions;
use stage::Stage;

fn main() {
    let name = std::env::args().nth(1);
    let Some(work) = WORK.iter().find(|work| Some(work.0) == name.as_deref()) else {
        WORK.iter().for_each(|Work(name, times, _)| println!("{name} {times}"));
        return;
    };
    let Work(name, times, act) = work;
    // All of it has to have come to what it should, or it was other work.
    assert_eq!(act(), *times, "{name}");
}

/// Its name, how many times it is done, and the function that prepares it and does it.
struct Work(&'static str, u32, fn() -> u32);

const WORK: [Work; 11] = [
    Work("srt_client_to_origin", MEDIA, || measured_from_clients(&mut warm(Sessions::srt))),
    Work("srt_origin_to_client", MEDIA, || measured_from_origins(&mut warm(Sessions::srt))),
    Work("webrtc_client_to_origin", MEDIA, || measured_from_clients(&mut warm(Sessions::webrtc))),
    Work("webrtc_origin_to_client", MEDIA, || measured_from_origins(&mut warm(Sessions::webrtc))),
    Work("srt_client_burst", MEDIA, || measured_from_clients(&mut warm_bursts(Sessions::srt))),
    Work("webrtc_client_burst", MEDIA, || {
        measured_from_clients(&mut warm_bursts(Sessions::webrtc))
    }),
    Work("srt_header", MEDIA, || measured_srt_header(&packets::data(7, 1, &[0x47; 1316]))),
    Work("rtp_header", MEDIA, || measured_rtp_header(&rtc::rtp(7, 1))),
    Work("stun_check", CHECKS, measure_checks),
    Work("stun_unknown", CHECKS, || {
        measured_stun_unknown(&mut Stage::webrtc(), &rtc::request(&rtc::pair(2, 0), 1))
    }),
    Work("srt_induction", CHECKS, || {
        measured_srt_induction(&mut Stage::new(), &packets::induction(77, 1000))
    }),
];

/// Sessions beyond what happens once in the life of each.
fn warm(make: fn(u32) -> Sessions) -> Sessions {
    let mut sessions = make(SESSIONS);
    (0..SESSIONS).for_each(|_| assert!(is_forwarded(sessions.client_sends())));
    sessions
}

/// The same sessions, each of which sends many datagrams before the next one does.
fn warm_bursts(make: fn(u32) -> Sessions) -> Sessions {
    warm(make).in_bursts(BURST)
}

fn is_forwarded(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Forward(_))
}

#[inline(never)]
fn measured_from_clients(sessions: &mut Sessions) -> u32 {
    (0..MEDIA).map(|_| u32::from(is_forwarded(sessions.client_sends()))).sum()
}

#[inline(never)]
fn measured_from_origins(sessions: &mut Sessions) -> u32 {
    (0..MEDIA).map(|_| u32::from(is_forwarded(sessions.origin_sends()))).sum()
}

#[inline(never)]
fn measured_srt_header(datagram: &[u8]) -> u32 {
    (0..MEDIA).map(|_| u32::from(Header::parse(black_box(datagram)).is_ok())).sum()
}

#[inline(never)]
fn measured_rtp_header(datagram: &[u8]) -> u32 {
    let is_rtp = |datagram| Kind::of(datagram) == Kind::Rtp && RtpHeader::parse(datagram).is_ok();
    (0..MEDIA).map(|_| u32::from(is_rtp(black_box(datagram)))).sum()
}

/// A session of one client, and checks of it with transactions of their own.
fn measure_checks() -> u32 {
    let mut stage = Stage::webrtc();
    stage.validated(1, stage::client(5000));
    let pair = rtc::pair(1, 0);
    let checks: Vec<_> = (0..CHECKS).map(|number| rtc::request(&pair, 100 + number)).collect();
    measured_stun_check(&mut stage, &checks)
}

/// Integrity and fingerprint checked, the path confirmed, the request forwarded.
#[inline(never)]
fn measured_stun_check(stage: &mut Stage, checks: &[Vec<u8>]) -> u32 {
    let source = stage::client(5000);
    checks.iter().map(|check| u32::from(is_forwarded(stage.rtc_sends(source, check)))).sum()
}

/// What a flood of strangers costs.
#[inline(never)]
fn measured_stun_unknown(stage: &mut Stage, forged: &[u8]) -> u32 {
    let source = stage::client(6000);
    let is_dropped = |verdict| matches!(verdict, Verdict::Drop(_));
    (0..CHECKS).map(|_| u32::from(is_dropped(stage.rtc_sends(source, forged)))).sum()
}

/// A cookie baked, and an answer queued.
#[inline(never)]
fn measured_srt_induction(stage: &mut Stage, induction: &[u8]) -> u32 {
    let source = stage::client(7000);
    let mut answered = 0;
    for _ in 0..CHECKS {
        answered += u32::from(stage.client_sends(source, induction) == Verdict::Taken);
        stage.out.clear();
    }
    answered
}

const SESSIONS: u32 = 100;
const BURST: u32 = 50;
/// A thousand datagrams of each session.
const MEDIA: u32 = 100_000;
const CHECKS: u32 = 2_000;
