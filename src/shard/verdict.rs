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
