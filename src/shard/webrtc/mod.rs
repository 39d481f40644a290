//! WebRTC sessions: who may be where, and what passes from whom to whom.
//!
//! A client's address is learned from a binding request alone, and only if it names a signalled session and knows its
//! password. Everything else goes by address, and nowhere if the address is not proven. The relay answers nobody: it
//! forwards, and rewrites nothing but the address in the origin's responses.

mod client;
mod lifetime;
mod origin;
mod ownership;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{DropReason, ListenerIndex, Peer, Port, Protocol, Route, Shard, Verdict, send};
use crate::protocol::demux::Kind;
use crate::protocol::rtp::RtpHeader;
use crate::protocol::stun::{Message, TransactionId};
use crate::session::table::AddressKey;
use crate::session::webrtc::{Entrance, KeptRequest, Path, Side};
use crate::session::{Pair, WebRtcSession};

/// A binding request that names one of the expected sessions and knows its password.
struct Proven<'a> {
    listener: ListenerIndex,
    client: Peer,
    address: AddressKey,
    transaction: TransactionId,
    nominated: bool,
    pair: &'a Arc<Pair>,
    /// Whether the session has no newer pair.
    is_newest: bool,
}

impl Shard {
    /// Queues a slow-path datagram.
    fn send_webrtc(&mut self, route: Route, datagram: &[u8]) {
        send(&mut self.outbox, &mut self.counters, Protocol::WebRtc, route, datagram);
    }
}

/// A copy of a request whose integrity holds. `None` if it is longer than any client makes it.
fn keep(
    bytes: &[u8],
    listener: ListenerIndex,
    client: Peer,
    message: &Message<'_>,
) -> Option<Box<KeptRequest>> {
    (bytes.len() <= KeptRequest::MAX).then(|| {
        Box::new(KeptRequest {
            bytes: bytes.into(),
            listener,
            client,
            transaction: message.transaction(),
            nominated: message.use_candidate(),
            before: Vec::new(),
        })
    })
}

/// The way to the client along one of its paths.
fn along(path: &Path) -> Route {
    Route { port: Port::Listener(path.listener), to: Some(path.client) }
}

/// The way to a client through this entrance.
fn out_of(Entrance { listener, local }: Entrance, address: SocketAddr) -> Route {
    Route { port: Port::Listener(listener), to: Some(Peer { address, local }) }
}

/// Notes what DTLS, RTP and RTCP of one side show in the clear. Returns whether they begin the session's end.
#[inline]
fn note_media(
    session: &mut WebRtcSession,
    side: Side,
    kind: Kind,
    datagram: &[u8],
    now: Instant,
) -> bool {
    session.has_media |= is_media(kind, datagram);
    if kind == Kind::Rtp
        && let Ok(header) = RtpHeader::parse(datagram)
    {
        session.ssrcs.note(header.ssrc);
    }
    if is_alert(kind, datagram) {
        return session.alerted(side, now);
    }
    session.not_yet(side, now);
    false
}

/// Whether a DTLS datagram begins with an alert (RFC 6347, section 4.1; RFC 5246, section 6.2.1). Encryption does not
/// hide the type before DTLS 1.3.
fn is_alert(kind: Kind, datagram: &[u8]) -> bool {
    kind == Kind::Dtls && datagram.first() == Some(&ALERT)
}

/// Whether a datagram carries what the session is for: RTP or RTCP, or a data channel's records. What DTLS 1.3 encrypts
/// does not tell its type (RFC 9147, section 4), and begins when keys are agreed on.
fn is_media(kind: Kind, datagram: &[u8]) -> bool {
    match kind {
        Kind::Rtp | Kind::Rtcp => true,
        Kind::Dtls => matches!(datagram.first(), Some(&(APPLICATION_DATA | 32..=63))),
        Kind::Stun | Kind::Zrtp | Kind::TurnChannel | Kind::Quic | Kind::Unknown => false,
    }
}

/// The reason for dropping a datagram that belongs to no protocol of a WebRTC session.
const STRANGE: Verdict = Verdict::Drop(DropReason::NotWebRtc);

/// ContentType of an alert.
const ALERT: u8 = 21;

/// ContentType of application data.
const APPLICATION_DATA: u8 = 23;
