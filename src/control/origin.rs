//! One media server: what it said of itself, and for how long that counts.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::health::{Health, Sign};
use super::registration::Endpoints;
use crate::config::{HostHeader, StaticOrigin};
use crate::shard::OriginId;

/// A media server.
#[derive(Clone, Debug)]
pub struct Origin {
    pub(super) id: OriginId,
    pub(super) name: String,
    pub(super) ip: IpAddr,
    pub(super) endpoints: Endpoints,
    pub(super) special: Special,
    pub(super) lifetime: Lifetime,
    /// Said so in the log. Whether it lives is decided by [`Origin::is_alive`] alone.
    pub(super) is_expired: bool,
    pub(super) sessions: u32,
    pub(super) key_length: Option<u8>,
    pub(super) health: Health,
    /// An operator wants it emptied.
    pub(super) is_draining: bool,
}

impl Origin {
    /// Its number, the same for life.
    pub fn id(&self) -> OriginId {
        self.id
    }

    /// Unique among the origins that are known.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of all its endpoints.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Where it listens.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Where SRT callers are relayed to.
    pub fn srt_address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.ip, self.endpoints.srt_port()?))
    }

    /// Where WebRTC clients are relayed to, as far as it is known before its first answer.
    pub fn rtc_address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.ip, self.endpoints.rtc_port()?))
    }

    /// Where offers are posted to.
    pub fn api_address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.ip, self.endpoints.api_port()?))
    }

    /// Where WebRTC clients without signalling are relayed to.
    pub fn direct_address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.ip, self.special.direct?))
    }

    /// What was configured for it alone.
    pub fn special(&self) -> &Special {
        &self.special
    }

    /// Whether sessions of that kind can go to it.
    pub fn takes(&self, kind: Kind) -> bool {
        match kind {
            Kind::Srt => self.srt_address().is_some(),
            // The answer of a configured origin may say alone where its media goes.
            Kind::WebRtc => {
                let is_configured = self.seen().is_none() || self.special.path.is_some();
                self.api_address().is_some() && (is_configured || self.rtc_address().is_some())
            }
            Kind::Direct => self.direct_address().is_some(),
        }
    }

    /// Its last registration; `None` when it was configured.
    pub fn seen(&self) -> Option<&Seen> {
        match &self.lifetime {
            Lifetime::Static => None,
            Lifetime::Registered(seen) => Some(seen),
        }
    }

    /// Whether new streams may go to it, when a heartbeat counts for `ttl`.
    pub(super) fn is_alive(&self, now: Instant, ttl: Duration) -> bool {
        match &self.lifetime {
            Lifetime::Static => true,
            Lifetime::Registered(seen) => now < seen.last + ttl,
        }
    }

    /// Whether checks or sessions of that kind found nobody there, and new streams go elsewhere
    /// for a while.
    pub fn is_failing(&self, kind: Kind, now: Instant) -> bool {
        self.health.is_failing(kind, now)
    }

    /// When a check or a session of that kind last found nobody there.
    pub fn failed_at(&self, kind: Kind) -> Option<Instant> {
        self.health.failed_at(kind)
    }

    /// What speaks against it for that kind.
    pub(super) fn sign(&self, kind: Kind, now: Instant) -> Option<Sign> {
        self.health.sign(kind, now)
    }

    /// Whether an operator wants it emptied: it keeps its sessions and gets no new streams.
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// The sessions from which on it gets no new streams; those of its streams may still come.
    pub fn capacity(&self) -> Option<u32> {
        self.special.capacity
    }

    /// Whether it has as many sessions as it may.
    pub fn is_full(&self) -> bool {
        self.capacity().is_some_and(|capacity| self.sessions >= capacity)
    }

    /// Sessions with it, handshakes under way included.
    pub fn sessions(&self) -> u32 {
        self.sessions
    }

    /// Bytes; `None` until it has answered an induction.
    pub fn key_length(&self) -> Option<u8> {
        self.key_length
    }
}

/// What a session needs of its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An SRT listener.
    Srt,
    /// WHIP and WHEP, and a UDP port for the media.
    WebRtc,
    /// A UDP port for clients without signalling.
    Direct,
}

impl Kind {
    /// In the order of the API.
    pub const ALL: [Self; 3] = [Self::Srt, Self::WebRtc, Self::Direct];

    /// As the API shows it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Srt => "srt",
            Self::WebRtc => "webrtc",
            Self::Direct => "webrtc-direct",
        }
    }
}

/// What an origin is, all in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// New streams may go to it, of some kind at least.
    Up,
    /// An operator wants it emptied.
    Draining,
    /// Its heartbeat has stopped, or it answers for no kind of session that it takes.
    Down,
}

impl State {
    /// As the API shows it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

/// What `--origin` says of an origin that is not SRS as it comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Special {
    /// Of its WHIP and WHEP endpoints; `None`: SRS's.
    pub path: Option<String>,
    /// What requests to it say in their Host header.
    pub host: HostHeader,
    /// The UDP port for clients without signalling.
    pub direct: Option<u16>,
    /// Sessions from which on it gets no new streams.
    pub capacity: Option<u32>,
}

impl Special {
    /// The part of a configured origin that also one that registers may have.
    pub fn of(origin: &StaticOrigin) -> Self {
        let StaticOrigin { path, host, direct, capacity, .. } = origin;
        Self { path: path.clone(), host: *host, direct: *direct, capacity: *capacity }
    }
}

/// How long an origin is one.
#[derive(Clone, Debug)]
pub(super) enum Lifetime {
    /// As long as the process.
    Static,
    /// As long as its heartbeat.
    Registered(Seen),
}

/// What an origin said of itself last.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Server ID.
    pub server: String,
    /// Changes at every restart.
    pub service: String,
    /// Process ID, as text.
    pub pid: String,
    /// When.
    pub last: Instant,
}

/// What a registration changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// An origin that was unknown.
    New,
    /// Another process of a known origin.
    Restarted,
    /// A known origin that had expired.
    Returned,
    /// Nothing.
    Heartbeat,
}

/// Why an origin cannot be taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Somebody takes over a known ID, or a server ID was copied with a disk image.
    #[error(
        "`server` is \"{server}\", and an origin of that ID lives at {ip}: give this one an ID of \
         its own, or wait until the other has expired"
    )]
    ServerLives {
        /// The ID.
        server: String,
        /// Where the other one is.
        ip: IpAddr,
    },
    /// The table is full.
    #[error("{ORIGINS_MAX} origins are registered, and more are not taken: let some expire")]
    Full,
}

/// Origins, configured and registered.
pub(super) const ORIGINS_MAX: usize = 1_000;
