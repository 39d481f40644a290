//! How far a caller's handshake has come: Picking, Inducing, Concluding, and the answer that is kept for repeats.
//!
//! The listener's half of the two-step handshake (draft-sharabayko-srt, section 4.3.1) is answered by the relay without
//! state; this is the caller's half, which the relay repeats towards the origin with the caller's own conclusion.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::protocol::srt::Handshake;
use crate::protocol::srt::handshake::{LEN, patch};

/// The kept conclusion of one caller and what has become of it. Bounded: one datagram in, one answer out, neither longer
/// than [`KEPT_MAX`].
#[derive(Debug)]
pub struct CallerHandshake {
    /// The conclusion as the client sent it; only timestamp, cookie, PeerIP and MTU are changed on the way.
    conclusion: Box<[u8]>,
    /// Its fixed part.
    pub request: Handshake,
    /// When the conclusion came in.
    pub received: Instant,
    /// When the origin is asked again; `None` until it has been asked for the first time.
    pub retry_at: Option<Instant>,
    /// What the client was told.
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Answer {
    bytes: Box<[u8]>,
    made: Instant,
    sent: Instant,
}

impl CallerHandshake {
    /// Keeps `conclusion`, whose fixed part is `request`.
    pub fn new(conclusion: &[u8], request: Handshake, now: Instant) -> Self {
        Self { conclusion: conclusion.into(), request, received: now, retry_at: None, answer: None }
    }

    /// The induction that asks the origin for its cookie, rebuilt from the conclusion.
    pub fn induction(&self, timestamp: u32, origin: IpAddr) -> [u8; LEN] {
        self.request.induction_request(timestamp, origin)
    }

    /// The conclusion for the origin: with the origin's cookie and address, and older by the time it was held, because
    /// the receiver's clock starts from this timestamp (section 4.5.1.1).
    pub fn conclude(&mut self, cookie: u32, origin: IpAddr, mtu_max: u32, now: Instant) -> &[u8] {
        // Always patched from the timestamp of the original, so that holding times do not add up over retries.
        let held = micros(now.saturating_duration_since(self.received));
        if let Some(timestamp) = self.conclusion.get_mut(8..12) {
            timestamp.copy_from_slice(&self.request.timestamp.wrapping_add(held).to_be_bytes());
        }
        patch::cookie(&mut self.conclusion, cookie);
        patch::peer_ip(&mut self.conclusion, origin);
        patch::clamp_mtu(&mut self.conclusion, mtu_max);
        &self.conclusion
    }

    /// Keeps the origin's conclusion response as the client shall see it: for the client's socket (libsrt up to 1.3.0
    /// writes zero), with the cookie that the client knows and the client's own address.
    pub fn keep_response(
        &mut self,
        response: &[u8],
        client: IpAddr,
        mtu_max: u32,
        now: Instant,
    ) -> &[u8] {
        let mut bytes: Box<[u8]> = response.into();
        patch::destination(&mut bytes, self.request.socket);
        patch::cookie(&mut bytes, self.request.cookie);
        patch::peer_ip(&mut bytes, client);
        patch::clamp_mtu(&mut bytes, mtu_max);
        &self.answer.insert(Answer { bytes, made: now, sent: now }).bytes
    }

    /// Keeps a rejection of our own.
    pub fn keep_rejection(&mut self, timestamp: u32, code: u32, now: Instant) -> &[u8] {
        let bytes = Box::from(self.request.rejection(timestamp, code));
        &self.answer.insert(Answer { bytes, made: now, sent: now }).bytes
    }

    /// The kept answer for a repeated conclusion, with its age added to its timestamp: none while there is none, and
    /// none within 50 ms of the last, so that a caller who repeats without pause gains nothing.
    pub fn repeat(&mut self, now: Instant) -> Option<Box<[u8]>> {
        let answer = self.answer.as_mut()?;
        if now.saturating_duration_since(answer.sent) < REPEAT_SPACING {
            return None;
        }
        answer.sent = now;
        let mut bytes = answer.bytes.clone();
        patch::add_to_timestamp(&mut bytes, micros(now.saturating_duration_since(answer.made)));
        Some(bytes)
    }
}

/// SRT timestamps are microseconds modulo 2^32.
pub fn micros(duration: Duration) -> u32 {
    duration.as_micros() as u32
}

/// Bytes of the longest handshake that is kept. With every extension at its largest it would not fit one Ethernet frame;
/// what is longer was made to fill memory.
pub const KEPT_MAX: usize = 2048;

/// Between two questions to the origin, as libsrt's own caller spaces them.
pub const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// How long a handshake that came to nothing is remembered: longer than a caller's 3 s of patience.
pub const PENDING_LIFE: Duration = Duration::from_millis(3500);

/// Between two answers to one caller's repeated conclusions.
const REPEAT_SPACING: Duration = Duration::from_millis(50);
