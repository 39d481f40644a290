//! What a shard answers for each datagram: where its buffer goes.

use std::net::{IpAddr, SocketAddr};

pub use crate::session::{ListenerIndex, Peer, SessionKey};

/// A UDP socket of ours, as shard and engine name it to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// A socket that clients send to, shared by all sessions of the shard.
    Listener(ListenerIndex),
    /// The connected socket of one session, towards its origin.
    Session(SessionKey),
}

/// A datagram as it came in. A train that GRO coalesced is handed in segment by segment.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Where it arrived.
    pub port: Port,
    /// Who sent it. On a session port always the origin. IPv4 is `SocketAddr::V4` even on a dual-stack socket.
    pub source: SocketAddr,
    /// The local address it was sent to, where the listener is bound to all of them (`IP_PKTINFO`).
    pub local: Option<IpAddr>,
    /// The payload.
    pub bytes: &'a [u8],
}

/// Out of which socket, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The socket that sends.
    pub port: Port,
    /// The receiver; `None` for a connected socket.
    pub to: Option<Peer>,
}

/// What happens with a datagram's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It leaves again as it is.
    Forward(Route),
    /// The slow path has read it; what there is to send or do stands in the outbox.
    Taken,
    /// It goes nowhere, and the shard has counted why.
    Drop(DropReason),
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident => $label:literal),+ $(,)?) => {
        /// Why a datagram went nowhere. Closed, so that every reason is a counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $name),+ }

        impl DropReason {
            /// Every reason, in the order of the discriminants.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The value of the metric's `reason` label.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label),+ }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than an SRT header.
    TooShort => "too_short",
    /// Longer than the receive buffer: the kernel cut it.
    Truncated => "truncated",
    /// An SRT packet whose (client address, destination socket ID) names no session.
    UnknownSocketId => "unknown_socket_id",
    /// Destination 0 and not a handshake.
    NotAHandshake => "not_a_handshake",
    /// A handshake that cannot be read.
    MalformedHandshake => "malformed_handshake",
    /// A handshake type that no caller sends to a listener: a rejection, agreement, done.
    UnexpectedHandshake => "unexpected_handshake",
    /// Rendezvous (type 0): cannot be relayed.
    Rendezvous => "rendezvous",
    /// A conclusion whose cookie is not ours, or is too old.
    InvalidCookie => "invalid_cookie",
    /// Inductions above `--induction-rate`.
    InductionRate => "induction_rate",
    /// A repeated conclusion that came sooner than 50 ms after the last answer, or while its answer is on the way.
    RepeatedConclusion => "repeated_conclusion",
    /// A datagram of an origin before its conclusion response went to the client.
    NotEstablished => "not_established",
    /// A datagram of an origin for another socket than the session's.
    WrongDestination => "wrong_destination",
    /// The session is closing.
    Closing => "closing",
    /// The port belongs to a session that is gone.
    StalePort => "stale_port",
    /// A first byte in the range of STUN, and no message of ICE.
    StunMalformed => "stun_malformed",
    /// A binding request without USERNAME.
    StunNoUsername => "stun_no_username",
    /// A binding request for a session that nobody has signalled.
    StunUnknownUfrag => "stun_unknown_ufrag",
    /// A binding request for a session that is over.
    StunTombstone => "stun_tombstone",
    /// A binding request without MESSAGE-INTEGRITY.
    StunNoIntegrity => "stun_no_integrity",
    /// A binding request whose sender does not know the password.
    StunBadIntegrity => "stun_bad_integrity",
    /// A binding request whose FINGERPRINT is wrong.
    StunBadFingerprint => "stun_bad_fingerprint",
    /// A binding request that has come from another address before.
    StunReplayed => "stun_replayed",
    /// A response, an indication or a GOOG-PING from an address that is not proven.
    StunUnproven => "stun_unproven",
    /// A proven request from a second address while a first one waits for its session's port, or for control.
    StunUndecided => "stun_undecided",
    /// DTLS, RTP or RTCP from an address that is not proven.
    UnprovenAddress => "unproven_address",
    /// A datagram on a WebRTC port that is neither STUN, DTLS, RTP nor RTCP.
    NotWebRtc => "not_webrtc",
    /// A proven request for a session that stays with another shard.
    OtherShard => "other_shard",
    /// A proven request for a session that no shard owns, or another one, while there is no room for a session here.
    TableFull => "table_full",
    /// A proven request of a client that has proven as many addresses as it may.
    PathsFull => "paths_full",
    /// A client without signalling, while as many of them wait as may.
    CandidateQueueFull => "candidate_queue_full",
    /// A datagram of an origin for a client whose only address has become another session's.
    NoPath => "no_path",
    /// No room in the outbox for an answer.
    OutboxFull => "outbox_full",
    /// The send buffer of the socket was full (`EAGAIN`, `ENOBUFS`).
    SendBufferFull => "send_buffer_full",
    /// The datagram is larger than the path takes (`EMSGSIZE`).
    MessageTooLong => "message_too_long",
    /// The far end refused (`ECONNREFUSED`, an ICMP message).
    Refused => "refused",
    /// There is no way to the far end (`ENETUNREACH`, `EHOSTUNREACH`).
    Unreachable => "unreachable",
    /// Any other send error.
    SendError => "send_error",
}

impl DropReason {
    /// Whether it says that a STUN message was turned away, and why.
    pub fn is_stun(self) -> bool {
        let of_requests = matches!(self, Self::OtherShard | Self::PathsFull | Self::TableFull);
        of_requests || self == Self::CandidateQueueFull || self.label().starts_with("stun_")
    }
}
