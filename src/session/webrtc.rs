//! One WebRTC client with one origin: its proven addresses, its outstanding checks, and when it is over.

pub mod candidates;
pub mod outstanding;
pub mod paths;
pub mod replay;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::quality::SeedableRandomState;

pub use candidates::Candidates;
pub use outstanding::Outstanding;
pub use paths::{Entrance, Path, Paths};
pub use replay::{Replay, Seen};

use super::session::SUSPICION;
use super::{EndReason, ListenerIndex, OriginId, Peer, Role, RtcId, Traffic};
use crate::protocol::stream_url::StreamKey;
use crate::protocol::stun::{IntegrityKey, TransactionId};

/// A session that this shard owns. What every datagram touches comes first.
#[derive(Debug)]
pub struct WebRtcSession {
    /// Where the client is.
    pub paths: Paths,
    /// The last datagram of the client, from any proven address.
    pub heard_client: Instant,
    /// The last DTLS, RTP or RTCP of the client.
    pub heard_client_media: Option<Instant>,
    /// The last datagram of the origin.
    pub heard_origin: Instant,
    /// Totals, those of earlier owners included.
    pub traffic: Traffic,
    /// Streams seen in the clear.
    pub ssrcs: Ssrcs,
    /// Since when this shard has had a port for it.
    pub owned_since: Instant,
    /// Whether the client has nominated a path of this shard.
    pub is_nominated: bool,
    /// Whether RTP, RTCP or data of a data channel has passed.
    pub has_media: bool,
    /// Whether the engine has a port for it. Nothing passes before.
    pub has_port: bool,
    /// Somebody has said that it is over.
    pub closing: Option<Box<Closing>>,
    /// An ICMP message says that the origin's port is closed, and the origin has not been heard since.
    pub suspected: Option<Box<Instant>>,
    /// When it was expected first, on whatever shard.
    pub created: Instant,
    /// What signalling knows of it.
    pub signalled: Arc<Signalled>,
    /// What has been seen of the client's requests.
    pub replay: Replay,
    /// Who waits for an answer of the origin.
    pub outstanding: Outstanding,
    /// Pairs older than this one retire, from then on.
    pub retirement: Option<Box<Retirement>>,
    /// The newest request that came while the port was being opened.
    pub kept: Option<Box<KeptRequest>>,
}

/// Pairs older than the newest retire.
#[derive(Debug)]
pub struct Retirement {
    /// The newest.
    pub newest: Arc<Pair>,
    /// When.
    pub at: Instant,
}

/// Somebody has said that the session is over, and last words may still pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Who.
    pub by: ClosedBy,
    /// When.
    pub since: Instant,
    /// When it is over.
    pub at: Instant,
    /// Why.
    pub reason: EndReason,
}

/// Who ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    /// A DTLS alert of one side. It may be a warning or a forgery: media that goes on takes it back.
    Alert(Side),
    /// Control. Nothing takes that back.
    Control,
}

/// One end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The origin.
    Origin,
}

/// A proven request that waits for its session's port, or for control to say whose session it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRequest {
    /// As it came.
    pub bytes: Box<[u8]>,
    /// Where it came in.
    pub listener: ListenerIndex,
    /// From whom.
    pub client: Peer,
    /// Its transaction.
    pub transaction: TransactionId,
    /// Whether it carried USE-CANDIDATE.
    pub nominated: bool,
    /// The transactions of the requests that were kept before this one, so that they cannot be repeated either; the
    /// first one and some of the last.
    pub before: Vec<TransactionId>,
}

impl KeptRequest {
    /// Bytes of the longest that is kept: what fits one Ethernet frame.
    pub const MAX: usize = 1500;

    /// Puts a newer request of the same client in the place of this one.
    pub fn replace(&mut self, mut newer: Self) {
        if newer.transaction == self.transaction {
            return;
        }
        newer.before = std::mem::take(&mut self.before);
        if newer.before.len() >= BEFORE_MAX {
            newer.before.remove(1);
        }
        newer.before.push(self.transaction);
        *self = newer;
    }
}

impl WebRtcSession {
    /// A session whose port is about to be opened.
    pub fn new(
        signalled: Arc<Signalled>,
        created: Instant,
        hasher: SeedableRandomState,
        now: Instant,
    ) -> Self {
        Self {
            paths: Paths::default(),
            heard_client: now,
            heard_client_media: None,
            heard_origin: now,
            traffic: Traffic::default(),
            ssrcs: Ssrcs::default(),
            has_media: false,
            owned_since: now,
            is_nominated: false,
            has_port: false,
            closing: None,
            suspected: None,
            created,
            signalled,
            replay: Replay::new(hasher),
            outstanding: Outstanding::default(),
            retirement: None,
            kept: None,
        }
    }

    /// The same session on its next shard.
    pub fn resume(signalled: Arc<Signalled>, handover: Handover, now: Instant) -> Self {
        let Handover { created, mut paths, replay, traffic, ssrcs, .. } = handover;
        paths.arrive();
        Self {
            paths,
            heard_client: now,
            heard_client_media: handover.heard_client_media,
            heard_origin: now,
            traffic,
            ssrcs,
            has_media: handover.has_media,
            owned_since: now,
            is_nominated: false,
            has_port: false,
            closing: None,
            suspected: None,
            created,
            signalled,
            replay,
            outstanding: Outstanding::default(),
            retirement: handover.retirement,
            kept: None,
        }
    }

    /// What the next shard needs. The outstanding requests are not among it: the origin answers them to a port that is
    /// closed now.
    pub fn hand_over(self) -> Handover {
        Handover {
            created: self.created,
            paths: self.paths,
            replay: self.replay,
            traffic: self.traffic,
            ssrcs: self.ssrcs,
            has_media: self.has_media,
            heard_client_media: self.heard_client_media,
            retirement: self.retirement,
        }
    }

    /// How far it has come, as the API shows it.
    pub fn label(&self) -> &'static str {
        match (&self.closing, self.has_port, self.has_media) {
            (Some(_), _, _) => "closing",
            (None, false, _) => "validating",
            (None, true, false) => "connecting",
            (None, true, true) => "established",
        }
    }

    /// The address that media goes to, or the one that waits for the port.
    pub fn client(&self) -> Option<&Peer> {
        let waiting = self.kept.as_deref().map(|kept| &kept.client);
        self.paths.selected().map(|path| &path.client).or(waiting)
    }

    /// Whether the session may go to another shard, where its client has proven an address with a request that carries
    /// USE-CANDIDATE or does not. Its media stays here as long as it is wanted here: a request that merely tries another
    /// path, as agents do all the time, interrupts nothing. Where no path has been chosen yet all get their turn.
    pub fn may_leave(&self, now: Instant, nominated: bool) -> bool {
        let since = |then: Instant| now.saturating_duration_since(then);
        // A client that nominates two paths in turn must not toss its session to and fro.
        if since(self.owned_since) < paths::SILENCE {
            return false;
        }
        if nominated {
            return self.heard_client_media.is_none_or(|heard| since(heard) >= paths::SILENCE);
        }
        let has_sent = self.heard_client_media.is_some();
        let patience = match self.signalled.role {
            Role::Publish if has_sent => paths::SILENCE,
            Role::Publish | Role::Play => SPARSE_SILENCE,
        };
        let is_chosen = self.is_nominated || has_sent;
        !is_chosen || self.paths.selected().is_none_or(|path| since(path.heard) >= patience)
    }

    /// One side has sent a DTLS alert, encrypted or not. Returns whether the session is closing now and was not before.
    pub fn alerted(&mut self, side: Side, now: Instant) -> bool {
        let is_news = self.closing.is_none();
        if is_news {
            let by = ClosedBy::Alert(side);
            let (at, reason) = (now + ALERT_LINGER, EndReason::DtlsClosed);
            self.closing = Some(Box::new(Closing { by, since: now, at, reason }));
        }
        is_news
    }

    /// Media (DTLS that is no alert, RTP, RTCP) has come from `side` while the session was closing. An alert is taken
    /// back by its own sender only, who goes on beyond what the network may have put behind it: then it was a warning or
    /// a forgery. What the other side still sends says nothing, for the alert may have been lost on its way there.
    pub fn not_yet(&mut self, side: Side, now: Instant) {
        if let Some(closing) = &self.closing
            && closing.by == ClosedBy::Alert(side)
            && now.saturating_duration_since(closing.since) >= REORDERING
        {
            self.closing = None;
        }
    }

    /// When something is due, given nothing happens before.
    pub fn deadline(&self, idle_timeout: Duration) -> Instant {
        let idle = self.heard_client.min(self.heard_origin) + idle_timeout;
        let doubt =
            self.suspected.as_deref().map(|&since| since.max(self.heard_origin) + SUSPICION);
        let retirement = self.retirement.as_ref().map(|retirement| retirement.at);
        let over = self.closing.as_ref().map(|closing| closing.at);
        let expiry = self.paths.next_expiry();
        [doubt, retirement, over, expiry].into_iter().flatten().fold(idle, Instant::min)
    }
}

/// What the owner of a session hands to the shard that owns it next.
#[derive(Debug)]
pub struct Handover {
    /// When the session was expected first.
    pub created: Instant,
    /// What it has carried.
    pub traffic: Traffic,
    paths: Paths,
    replay: Replay,
    ssrcs: Ssrcs,
    has_media: bool,
    heard_client_media: Option<Instant>,
    retirement: Option<Box<Retirement>>,
}

impl Handover {
    /// The addresses that the client has proven so far, the selected one first.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.paths.iter().map(|path| path.client.address)
    }
}

/// The first few streams that were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ssrcs {
    seen: [u32; Self::MAX],
    count: u8,
}

impl Ssrcs {
    /// Streams shown; a session with more of them shows the first.
    pub const MAX: usize = 8;

    /// A packet of this stream has passed.
    #[inline]
    pub fn note(&mut self, ssrc: u32) {
        if self.as_slice().contains(&ssrc) {
            return;
        }
        if let Some(free) = self.seen.get_mut(usize::from(self.count)) {
            *free = ssrc;
            self.count += 1;
        }
    }

    /// In the order they were first seen.
    #[inline]
    pub fn as_slice(&self) -> &[u32] {
        self.seen.get(..usize::from(self.count)).unwrap_or(&[])
    }
}

/// A WebRTC session as signalling made it. Never changed, so that all shards can share one.
#[derive(Debug, PartialEq, Eq)]
pub struct Signalled {
    /// Its number.
    pub id: RtcId,
    /// Who answered the offer.
    pub origin: OriginId,
    /// Where its media goes.
    pub address: SocketAddr,
    /// The canonical key.
    pub stream: StreamKey,
    /// Publisher or player.
    pub role: Role,
}

/// By what binding requests of a client are known (RFC 8445 section 7.2.2). Holds the key, not the password.
#[derive(Debug)]
pub struct Pair {
    /// USERNAME of the client's requests: `origin's:client's`. Control finds the session by the same text.
    pub username: Box<str>,
    /// Made of the origin's password, under which the client's requests and their responses stand.
    pub key: IntegrityKey,
}

/// Requests that a client sends in the quarter second that control has: one every 50 ms, and some repeated.
const BEFORE_MAX: usize = 8;

/// How long last words pass after a DTLS alert.
pub const ALERT_LINGER: Duration = Duration::from_secs(3);

/// How long datagrams that were sent before an alert may come after it.
const REORDERING: Duration = Duration::from_millis(200);

/// Silence after which a client that sends little may have left a path: a player reports about once per second, and a
/// browser checks a path every two and a half.
const SPARSE_SILENCE: Duration = Duration::from_secs(3);

/// How long the pairs before an ICE restart outlive the first request with the new one.
pub const RETIREMENT: Duration = Duration::from_secs(30);
