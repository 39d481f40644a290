//! What HTTP tasks ask of control's state, and what they are answered.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::directory::SessionRef;
use super::origin::Conflict;
use super::registration::Registration;
use super::view::{OriginEntry, SessionEntry, StreamEntry};
use crate::telemetry::metrics::Snapshot;

/// A question of an HTTP task. A reply that is dropped means that there is no answer.
pub(super) enum Ask {
    /// An origin registers, or sends its heartbeat.
    Register { registration: Box<Registration>, reply: oneshot::Sender<Result<(), Conflict>> },
    /// A registration was refused. SRS reads no answer, so the log is where its operator finds out.
    RegistrationRefused { peer: IpAddr, detail: String },
    /// All origins.
    Origins { reply: oneshot::Sender<Vec<OriginEntry>> },
    /// The streams in use, then others up to a limit, and the number of all.
    Streams { limit: usize, reply: oneshot::Sender<(Vec<StreamEntry>, usize)> },
    /// A page of one shard's sessions.
    Sessions { shard: u16, from_slot: u32, limit: u32, reply: oneshot::Sender<Page> },
    /// Ends a session. Answers whether there is one.
    Close { session: SessionRef, reply: oneshot::Sender<bool> },
    /// Answers when one shard has given counters that are at most this old.
    Counters { shard: u16, age_max: Duration, reply: oneshot::Sender<()> },
    /// Everything to be measured, from shards that have answered since then.
    Metrics { since: Instant, reply: oneshot::Sender<Snapshot> },
    /// Whether new sessions are welcome.
    Readiness { reply: oneshot::Sender<Readiness> },
}

/// Sessions of one shard, in slot order.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) sessions: Vec<SessionEntry>,
    /// Where the next page starts; `None` after the last.
    pub(super) next_slot: Option<u32>,
}

/// Whether new sessions are welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready {
        origins_up: usize,
    },
    /// Origins live and none answers handshakes.
    Degraded {
        origins_failing: usize,
    },
    Draining,
    NoOrigin,
}
