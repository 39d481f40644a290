//! What control says to a shard, and what a shard says to control.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::counters::Counters;
use crate::protocol::srt::Rejection;
use crate::protocol::srt::handshake::GroupId;
use crate::protocol::stream_url::StreamKey;
pub use crate::session::{Flow, OriginId, Role, SessionKey, State, Traffic};

/// From control to one shard.
#[derive(Debug)]
pub enum Command {
    /// The answer to [`Event::Pick`]: connect the session to this origin.
    Open {
        /// From the event.
        session: SessionKey,
        /// Who was picked.
        origin: OriginId,
        /// Its SRT listener.
        address: SocketAddr,
    },
    /// The other answer to [`Event::Pick`].
    Refuse {
        /// From the event.
        session: SessionKey,
        /// What the client is told.
        rejection: Rejection,
    },
    /// Ends one session with goodbyes to both sides.
    Close {
        /// Which.
        session: SessionKey,
        /// Why.
        reason: EndReason,
    },
    /// From now on new sessions are refused (true) or welcome again (false).
    Drain(bool),
    /// Ends every session with goodbyes to both sides and refuses new ones. The shard then answers [`Event::Emptied`].
    CloseAll,
    /// The key length to advertise in induction responses: 0, 16, 24 or 32 bytes.
    KeyLength(u8),
    /// Asks for a page of sessions. Answered by [`Event::Sessions`].
    Sessions {
        /// Comes back in the answer.
        request: u64,
        /// First slot of the page.
        from_slot: u32,
        /// Sessions at most.
        limit: u32,
    },
    /// Asks for the counters. Answered by [`Event::Counters`].
    Counters {
        /// Comes back in the answer.
        request: u64,
    },
    /// Ends the thread. For the engine; what is in flight is finished first.
    Stop,
}

/// From one shard to control.
#[derive(Debug)]
pub enum Event {
    /// A caller has proven its address and wants a stream: which origin?
    Pick(Box<PickRequest>),
    /// The client has been told that it is connected.
    Established {
        /// Which.
        session: SessionKey,
        /// From the client's conclusion to the answer.
        setup: Duration,
    },
    /// A session that was picked for is over, refused or closed. Comes exactly once for each [`Event::Pick`]; what the
    /// shard still keeps of it serves repeats and stragglers.
    Ended {
        /// Which.
        session: SessionKey,
        /// Why.
        reason: EndReason,
        /// What it carried.
        traffic: Traffic,
        /// Since the client's conclusion.
        age: Duration,
    },
    /// A page of sessions.
    Sessions {
        /// From the command.
        request: u64,
        /// In slot order.
        sessions: Vec<SessionView>,
        /// Where the next page starts; `None` after the last.
        next_slot: Option<u32>,
    },
    /// The counters as they stand.
    Counters {
        /// From the command.
        request: u64,
        /// A copy.
        counters: Box<Counters>,
    },
    /// The answer to [`Command::CloseAll`].
    Emptied,
    /// The shard's thread has ended without having been told to. Posted by the engine; nothing more comes from this
    /// shard, and its listeners are closed.
    Failed,
}

/// Who wants what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PickRequest {
    /// To be named in the answer.
    pub session: SessionKey,
    /// The proven address.
    pub client: SocketAddr,
    /// The canonical key.
    pub stream: StreamKey,
    /// Publisher or player.
    pub role: Role,
    /// The caller's bonding group: all members must reach one origin.
    pub group: Option<GroupId>,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The client said goodbye.
    ClientShutdown,
    /// The origin said goodbye.
    OriginShutdown,
    /// Nothing from the client for the idle timeout.
    ClientIdle,
    /// Nothing from the origin for the idle timeout.
    OriginIdle,
    /// The origin's port is closed (ICMP) and it has been silent for a second.
    OriginGone,
    /// This relay refused it.
    Refused(Rejection),
    /// The origin refused it with this handshake type.
    RefusedByOrigin(u32),
    /// The caller began anew with the same socket ID.
    Superseded,
    /// Pushed out by newer handshakes: the table of pending ones is full.
    PendingOverflow,
    /// An operator ended it.
    Operator,
    /// The relay is quitting.
    Quit,
}

impl EndReason {
    /// As the API, the log and the metric labels show it.
    pub fn label(self) -> &'static str {
        match self {
            Self::ClientShutdown => "client_shutdown",
            Self::OriginShutdown => "origin_shutdown",
            Self::ClientIdle => "client_idle",
            Self::OriginIdle => "origin_idle",
            Self::OriginGone => "origin_gone",
            Self::Refused(rejection) => rejection.label(),
            Self::RefusedByOrigin(_) => "refused_by_origin",
            Self::Superseded => "superseded",
            Self::PendingOverflow => "pending_overflow",
            Self::Operator => "operator",
            Self::Quit => "quit",
        }
    }
}

/// One session as the API shows it. Control knows the rest (stream, origin's name).
#[derive(Clone, Debug, PartialEq)]
pub struct SessionView {
    /// Which.
    pub session: SessionKey,
    /// How far.
    pub state: State,
    /// The proven address.
    pub client: SocketAddr,
    /// The local address the client hit, where known.
    pub local: Option<IpAddr>,
    /// Canonical key.
    pub stream: StreamKey,
    /// Publisher or player.
    pub role: Role,
    /// Picked origin; `None` while picking.
    pub origin: Option<OriginId>,
    /// Since the client's conclusion.
    pub age: Duration,
    /// Totals.
    pub traffic: Traffic,
    /// What SRT shows in clear.
    pub srt: SrtView,
}

/// What SRT shows in clear; `None` where nothing has been seen yet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SrtView {
    /// The media receiver's smoothed RTT over both legs, from its full ACKs, in microseconds.
    pub rtt_us: Option<u32>,
    /// Relay to client and back: origin's ACK forwarded until the client's ACKACK, in microseconds.
    pub rtt_client_us: Option<u32>,
    /// Relay to origin and back, in microseconds.
    pub rtt_origin_us: Option<u32>,
    /// Data packets that the client sent and that never arrived here at the first try, as a share of those sent.
    pub loss_client_to_relay: Option<f64>,
    /// Data packets with the R flag, both directions.
    pub retransmits: u64,
    /// The larger of the two delays asked for in the client's HSREQ, in milliseconds.
    pub latency_ms: Option<u16>,
    /// Key length in bytes; 0 when the stream is clear.
    pub encryption_key_length: u8,
    /// AES-GCM rather than AES-CTR.
    pub gcm: bool,
    /// The client's SRT version, 0x00MMmmpp.
    pub version: Option<u32>,
}

/// An event and whose it is: all shards post into one mailbox.
#[derive(Debug)]
pub struct FromShard {
    /// Index of the shard.
    pub shard: u16,
    /// What happened.
    pub event: Event,
}
