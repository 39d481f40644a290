//! Clients without signalling that wait for control to take them.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::KeptRequest;
use crate::protocol::ice::Ufrag;
use crate::session::budget::Prefix;

/// The waiting clients, oldest first, at most [`Candidates::MAX`]. When it is full the newest is turned away: a flood
/// cannot push out who came before it.
#[derive(Debug, Default)]
pub struct Candidates(VecDeque<Candidate>);

#[derive(Debug)]
struct Candidate {
    ufrag: Box<str>,
    request: Box<KeptRequest>,
    since: Instant,
}

impl Candidates {
    /// Clients that may wait.
    pub const MAX: usize = 32;

    /// Those of them that may be at one address. Whom control wants leaves at once and whom it refuses stays until he is
    /// given up, so one client above its limits could fill the queue.
    pub const MAX_PER_CLIENT: usize = 8;

    /// The ufrag that both halves of `username` are, if it is one that such clients make up.
    pub fn ufrag_of(username: &[u8]) -> Option<&str> {
        let (ours, theirs) = std::str::from_utf8(username).ok()?.split_once(':')?;
        let is_one = ours == theirs && ours.starts_with(PREFIX) && Ufrag::parse(ours).is_ok();
        is_one.then_some(ours)
    }

    /// Whether another client may wait, who is at `source`.
    pub fn has_room_for(&mut self, source: IpAddr, now: Instant) -> bool {
        self.expire(now);
        let prefix = Prefix::of_client(source);
        let is_of_it = |candidate: &&Candidate| {
            Prefix::of_client(candidate.request.client.address.ip()) == prefix
        };
        self.0.len() < Self::MAX && self.0.iter().filter(is_of_it).count() < Self::MAX_PER_CLIENT
    }

    /// The request that is kept for a waiting client.
    pub fn request_mut(&mut self, ufrag: &str, now: Instant) -> Option<&mut KeptRequest> {
        self.expire(now);
        let candidate = self.0.iter_mut().find(|candidate| *candidate.ufrag == *ufrag)?;
        Some(&mut candidate.request)
    }

    /// Makes a client wait. The caller has asked for room.
    pub fn wait(&mut self, ufrag: &str, request: Box<KeptRequest>, now: Instant) {
        self.0.push_back(Candidate { ufrag: ufrag.into(), request, since: now });
    }

    /// Takes the request of a client that control wants.
    pub fn take(&mut self, username: &[u8], now: Instant) -> Option<Box<KeptRequest>> {
        self.expire(now);
        let ufrag = Self::ufrag_of(username)?;
        let position = self.0.iter().position(|candidate| *candidate.ufrag == *ufrag)?;
        self.0.remove(position).map(|candidate| candidate.request)
    }

    /// Nobody waits any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn expire(&mut self, now: Instant) {
        let is_over = |candidate: &Candidate| now >= candidate.since + PATIENCE;
        while self.0.front().is_some_and(is_over) {
            self.0.pop_front();
        }
    }
}

/// How libp2p marks the ufrags of its WebRTC-direct transport, version 1.
const PREFIX: &str = "libp2p+webrtc+v1/";

/// How long control may take.
const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ufrag_counts_only_if_both_halves_are_it_and_it_is_marked() {
        let longest = format!("{PREFIX}{}", "a".repeat(256 - PREFIX.len()));
        let too_long = format!("{longest}a");
        let both = |ufrag: &str| format!("{ufrag}:{ufrag}");
        let table = [
            (both("libp2p+webrtc+v1/abcd"), true),
            (both(&longest), true),
            (both(&too_long), false),
            (both("libp2p+webrtc+v1/ab:d"), false),
            (both("libp2p+webrtc+v1/ab-d"), false),
            (both("abcd"), false),
            ("libp2p+webrtc+v1/abcd:libp2p+webrtc+v1/abce".to_owned(), false),
            ("libp2p+webrtc+v1/abcd".to_owned(), false),
            (String::new(), false),
        ];
        for (username, expected) in table {
            assert_eq!(Candidates::ufrag_of(username.as_bytes()).is_some(), expected, "{username}");
        }
        assert_eq!(Candidates::ufrag_of(b"\xff:\xff"), None);
    }
}
