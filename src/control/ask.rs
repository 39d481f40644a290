//! What HTTP tasks ask of control's state, and what they are answered.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::drain::{Goal, Progress};
use super::origin::Conflict;
use super::registration::Registration;
use super::session_id::{SessionId, SessionRef};
use super::view::{OriginEntry, SessionEntry, StreamEntry};
use crate::config::HostHeader;
use crate::protocol::ice::{Credentials, IcePair};
use crate::protocol::stream_url::StreamKey;
use crate::shard::OriginId;
use crate::shard::command::{EndReason, NotExpected, Role, RtcId};
use crate::telemetry::metrics::Snapshot;

/// A question of an HTTP task. A reply that is dropped means that there is no answer.
pub(super) enum Ask {
    /// An origin registers, or sends its heartbeat.
    Register { registration: Box<Registration>, reply: oneshot::Sender<Result<(), Conflict>> },
    /// A registration was refused. SRS reads no answer, so the log is where its operator finds out.
    RegistrationRefused { peer: IpAddr, detail: String },
    /// All origins.
    Origins { reply: oneshot::Sender<Vec<OriginEntry>> },
    /// An origin, by its name or number, is to get no new streams, or some again. Answers whether there is one.
    DrainOrigin { name: String, is_draining: bool, reply: oneshot::Sender<bool> },
    /// The streams in use, then others up to a limit, and the number of all.
    Streams { limit: usize, reply: oneshot::Sender<(Vec<StreamEntry>, usize)> },
    /// A page of one shard's sessions.
    Sessions { shard: u16, from_slot: u32, limit: u32, reply: oneshot::Sender<Page> },
    /// A client offers WebRTC: which origin takes it, and may it have a session? What is answered holds a place until
    /// [`Ask::Abandon`] or the session's end.
    Offer { offer: Box<Offer>, reply: oneshot::Sender<Result<Box<Placement>, OfferRefused>> },
    /// The origin has answered: every shard is to expect these pairs. Answered when all shards have agreed, so that no
    /// binding request comes too early; where one refuses, none expects them. No pairs yet for a counter-offer, whose
    /// pairs come with the client's answer; more pairs of a known session for an ICE restart.
    Expect {
        session: RtcId,
        /// Where the client's media goes: the origin's registered UDP endpoint.
        address: SocketAddr,
        pairs: Vec<IcePair>,
        reply: oneshot::Sender<Result<(), NotExpected>>,
    },
    /// The session URL that the client is given. A second one for the same session, with the same token, takes the place
    /// of what stood behind the URL: after an ICE restart, or when a counter-offer has been answered.
    Publish { session: RtcId, resource: Box<Resource> },
    /// What stands behind a session URL.
    Resource { token: Token, reply: oneshot::Sender<Option<(RtcId, Resource)>> },
    /// The origin did not take the offer, or a shard did not agree; its place is free again.
    Abandon { session: RtcId },
    /// The origin's API could not be reached or gave no answer: as [`Ask::Abandon`], and new streams avoid the origin for
    /// a while, so that the next offer finds another.
    Unreachable { session: RtcId },
    /// A session has been ended at its origin: last words may pass, then it and its URL are forgotten. Also for a client
    /// that has gone while shards may already expect it, so it may come when no shard owns the session or while
    /// [`Ask::Expect`] is not yet answered.
    Finish { session: RtcId, reason: EndReason },
    /// Ends a session. Answers whether there is one.
    Close { session: SessionId, reply: oneshot::Sender<bool> },
    /// WebRTC sessions that no shard owns, in order.
    Expected { from: RtcId, limit: usize, reply: oneshot::Sender<Expected> },
    /// One WebRTC session as control knows it, and where a shard knows more of it.
    Session {
        session: RtcId,
        reply: oneshot::Sender<Option<(Box<SessionEntry>, Option<SessionRef>)>>,
    },
    /// Answers when one shard has given counters that are at most this old.
    Counters { shard: u16, age_max: Duration, reply: oneshot::Sender<()> },
    /// Everything to be measured, from shards that have answered since then.
    Metrics { since: Instant, reply: oneshot::Sender<Snapshot> },
    /// Whether new sessions are welcome.
    Readiness { reply: oneshot::Sender<Readiness> },
    /// New sessions are refused from now on, and live ones run on. `None` when the relay is
    /// quitting, which refuses them already.
    Drain { goal: Goal, reply: oneshot::Sender<Option<Service>> },
    /// New sessions are welcome again. `None` when the relay is quitting: they are not.
    Undrain { reply: oneshot::Sender<Option<Service>> },
    /// Whether it is drained, and how far that has come.
    Service { reply: oneshot::Sender<Service> },
}

/// What a client wants by HTTP.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) stream: StreamKey,
    pub(super) role: Role,
    /// Who asks, behind trusted proxies.
    pub(super) client: IpAddr,
}

/// The origin of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) session: RtcId,
    pub(super) origin: OriginId,
    /// For the log.
    pub(super) name: String,
    /// Its HTTP API.
    pub(super) api: SocketAddr,
    /// Its UDP endpoint; `None` where it was configured without one: then its answer names it, and the address must be
    /// the origin's own.
    pub(super) rtc: Option<SocketAddr>,
    /// `path=` of `--origin`: of endpoints that are not SRS's.
    pub(super) path: Option<String>,
    /// What its Host header says.
    pub(super) host: HostHeader,
}

/// Why an offer gets no origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfferRefused {
    /// The relay is draining.
    Draining,
    /// No live origin takes WebRTC.
    NoOrigin,
    /// A limit of sessions; named as the log shows it.
    Limit(&'static str),
    /// `--http-per-source`
    Rate,
}

/// The secret of a session URL: 128 random bits or more, as it stands in the path.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Token(pub(super) Arc<str>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What a session URL stands for.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) token: Token,
    /// The origin's HTTP API, and what its Host header says.
    pub(super) api: SocketAddr,
    pub(super) host: HostHeader,
    /// Path and query of the session at the origin, as secret as the token; `None` where it gave none (then DELETE ends
    /// the session here alone).
    pub(super) target: Option<String>,
    /// Whether the origin understands PATCH. SRS takes it for a new offer.
    pub(super) takes_patch: bool,
    /// Where the client's media goes.
    pub(super) address: Option<SocketAddr>,
    /// The client's credentials and the origin's, to tell trickling from a restart; the client's are missing while a
    /// counter-offer is open.
    pub(super) origin_credentials: Vec<Credentials>,
    pub(super) client_credentials: Vec<Credentials>,
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resource").field("api", &self.api).finish_non_exhaustive()
    }
}

/// Sessions of one shard, in slot order.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) sessions: Vec<SessionEntry>,
    /// Where the next page starts; `None` after the last.
    pub(super) next_slot: Option<u32>,
}

/// WebRTC sessions that no shard owns, in the order of their numbers.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) sessions: Vec<SessionEntry>,
    /// Where the next page starts; `None` after the last.
    pub(super) next: Option<RtcId>,
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
    /// By an operator.
    Draining,
    Quitting,
    NoOrigin,
}

/// Whether the relay is in service, as operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) is_quitting: bool,
    /// `None` while nobody drains it.
    pub(super) drain: Option<Progress>,
    /// Those that are not over, handshakes under way included.
    pub(super) sessions: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_by_which_a_session_can_be_ended() {
        let resource = Resource {
            token: Token("s3cret".into()),
            api: SocketAddr::from(([10, 0, 0, 1], 1985)),
            host: HostHeader::Client,
            target: Some("/rtc/v1/whip/?action=delete&token=s3cret".to_owned()),
            takes_patch: false,
            address: None,
            origin_credentials: Vec::new(),
            client_credentials: Vec::new(),
        };
        let shown = format!("{resource:?}");
        assert!(shown.contains("10.0.0.1") && !shown.contains("s3cret"), "{shown}");
    }
}
