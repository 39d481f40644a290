//! A stream: the origin that it is mapped to, who uses it, and for how long it is remembered.

use std::time::{Duration, Instant};

use crate::shard::OriginId;
use crate::shard::command::Role;

/// A stream and the origin that it is mapped to.
#[derive(Clone, Debug)]
pub struct Stream {
    origin: OriginId,
    publishers: u32,
    players: u32,
    /// Of both, those that media may flow in.
    established: u32,
    last_used: Instant,
    was_published: bool,
}

impl Stream {
    pub(super) fn new(origin: OriginId, now: Instant) -> Self {
        Self {
            origin,
            publishers: 0,
            players: 0,
            established: 0,
            last_used: now,
            was_published: false,
        }
    }

    /// Where its sessions go.
    pub fn origin(&self) -> OriginId {
        self.origin
    }

    /// Sessions that send.
    pub fn publishers(&self) -> u32 {
        self.publishers
    }

    /// Sessions that receive.
    pub fn players(&self) -> u32 {
        self.players
    }

    /// When a session of it began or ended last.
    pub fn last_used(&self) -> Instant {
        self.last_used
    }

    /// Whether media may flow in any session of it.
    pub fn is_established(&self) -> bool {
        self.established > 0
    }

    /// Whether no session of it is left.
    pub fn is_idle(&self) -> bool {
        self.publishers == 0 && self.players == 0
    }

    /// Notes a session with `origin`. Returns when the stream would have been forgotten, where it
    /// was idle before.
    pub(super) fn open(&mut self, now: Instant, role: Role, origin: OriginId) -> Option<Instant> {
        let due = self.forget_at();
        self.origin = origin;
        self.last_used = now;
        match role {
            Role::Publish => {
                self.publishers += 1;
                self.was_published = true;
            }
            Role::Play => self.players += 1,
        }
        due
    }

    /// Notes that media may flow in a session with `origin`.
    ///
    /// Attempts of one stream may be under way with two origins, when the first of them began to
    /// fail in between. The stream is where the first of them succeeds.
    pub(super) fn established(&mut self, origin: OriginId) {
        if self.established == 0 {
            self.origin = origin;
        }
        self.established += 1;
    }

    /// Notes the end of a session. Returns when the stream is to be forgotten, if it was the last.
    pub(super) fn close(
        &mut self,
        now: Instant,
        role: Role,
        was_established: bool,
    ) -> Option<Instant> {
        match role {
            Role::Publish => self.publishers = self.publishers.saturating_sub(1),
            Role::Play => self.players = self.players.saturating_sub(1),
        }
        if was_established {
            self.established = self.established.saturating_sub(1);
        }
        self.last_used = now;
        self.forget_at()
    }

    /// Where no session is left, its key in the queue of idle streams.
    fn forget_at(&self) -> Option<Instant> {
        self.is_idle().then(|| self.last_used + self.idle_ttl())
    }

    /// A player may ask for anything, so what only players asked for is forgotten soon.
    fn idle_ttl(&self) -> Duration {
        if self.was_published { PUBLISHED_IDLE_TTL } else { PLAYED_IDLE_TTL }
    }
}

/// How long a stream that had a publisher keeps its origin when no session is left.
pub(super) const PUBLISHED_IDLE_TTL: Duration = Duration::from_secs(600);
/// The same for a stream that only players have asked for.
pub(super) const PLAYED_IDLE_TTL: Duration = Duration::from_secs(30);
