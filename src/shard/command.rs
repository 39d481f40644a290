//! What control says to a shard, and what a shard says to control.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::counters::Counters;
use crate::protocol::srt::Rejection;
use crate::protocol::srt::handshake::GroupId;
use crate::protocol::stream_url::StreamKey;
use crate::protocol::stun::TransactionId;
pub use crate::session::{
    EndReason, Flow, Handover, NotExpected, OriginId, Pair, Protocol, Role, RtcId, SessionKey,
    Signalled, State, Traffic,
};

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
    /// A WebRTC session has been signalled: its client may show up on this shard. Answered by [`Event::Expected`]. A
    /// second one for the same session adds a pair (ICE restart, RFC 8445 section 2.4).
    Expect {
        /// The session, shared by all shards and never changed.
        session: Arc<Signalled>,
        /// By what its client is known.
        pair: Arc<Pair>,
    },
    /// A client of this session has proven itself here and nobody owns the session, or its owner has yielded it
    /// ([`Event::Yielded`]): this shard opens the port, takes the proven path that it reported, and sends the binding
    /// request that it kept.
    Own {
        /// Which.
        session: RtcId,
        /// What the owner before knew; `None` for the first.
        handover: Option<Box<Handover>>,
    },
    /// The answer to an [`Event::Path`] that changes nothing: the owner keeps the session, or nobody knows it any more.
    Deny {
        /// Which.
        session: RtcId,
    },
    /// To the owner: a client has proven itself on another shard. Answered by [`Event::Yielded`].
    Yield {
        /// Which, from where, and by what request.
        path: Box<PathRequest>,
    },
    /// A session is over: the owner lets it go on for `linger`, so that last words pass, and then says
    /// [`Event::RtcEnded`]; every other shard forgets it at once. Its pairs leave tombstones.
    Finish {
        /// Which.
        session: RtcId,
        /// Why.
        reason: EndReason,
        /// For how long datagrams still pass.
        linger: Duration,
    },
    /// Ends one session: SRT with goodbyes to both sides, WebRTC after two seconds for last words.
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
    /// The answer to [`Command::Expect`], exactly one each.
    Expected {
        /// From the command.
        session: RtcId,
        /// Whether its client will be recognised here.
        result: Result<(), NotExpected>,
    },
    /// A binding request with right integrity has come for a session that this shard does not own. The request is kept
    /// until [`Command::Own`] or [`Command::Deny`] comes, for a quarter of a second at most.
    Path(Box<PathRequest>),
    /// The answer to [`Command::Yield`].
    Yielded {
        /// Which.
        session: RtcId,
        /// What the next owner needs; `None`: this shard keeps the session.
        handover: Option<Box<Handover>>,
    },
    /// A client without signalling has proven that it knows the ufrag it names, which is also its password
    /// (`--webrtc-direct`). If control wants it, it sends [`Command::Expect`] to all shards and [`Command::Own`] to this
    /// one; otherwise nothing.
    Candidate {
        /// The client.
        client: SocketAddr,
        /// Both halves of the ufrag pair, and the password.
        ufrag: Box<str>,
    },
    /// The first datagrams of a WebRTC session's client have been proven and its port is open.
    Validated {
        /// Which.
        session: RtcId,
        /// As this shard names it.
        key: SessionKey,
        /// The proven address.
        client: SocketAddr,
        /// From the expectation to here.
        setup: Duration,
    },
    /// A WebRTC session that this shard owned is over and forgotten here. Exactly once for each [`Command::Own`] that was
    /// not followed by a [`Event::Yielded`] with a handover.
    RtcEnded {
        /// Which.
        session: RtcId,
        /// Why.
        reason: EndReason,
        /// What it carried, on earlier owners, too.
        traffic: Traffic,
        /// Since the expectation.
        age: Duration,
    },
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

/// A proven request on a shard that does not own its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRequest {
    /// Whose.
    pub session: RtcId,
    /// The address that it came from.
    pub client: SocketAddr,
    /// Tells a captured request from a new one.
    pub transaction: TransactionId,
    /// It carried USE-CANDIDATE: the client wants its media here.
    pub nominated: bool,
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

/// One session as the API shows it. Control knows the rest (stream, origin's name).
#[derive(Clone, Debug, PartialEq)]
pub struct SessionView {
    /// Which.
    pub session: SessionKey,
    /// How far, see [`State::label`].
    pub state: &'static str,
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
    /// What the protocol shows in clear.
    pub protocol: ProtocolView,
}

/// What a session's protocol shows in clear.
#[derive(Clone, Debug, PartialEq)]
pub enum ProtocolView {
    /// SRT.
    Srt(SrtView),
    /// WebRTC.
    WebRtc(WebRtcView),
}

/// What WebRTC shows in clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebRtcView {
    /// As control numbers it.
    pub id: RtcId,
    /// USERNAME of the client's requests, the newest pair first.
    pub ufrag_pairs: Vec<String>,
    /// Proven addresses, the selected one first.
    pub addresses: Vec<SocketAddr>,
    /// SSRCs seen in RTP, a few at most.
    pub ssrcs: Vec<u32>,
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
