//! Who talks to whom, in one shard: the table, its sessions, and when each of them is due.
//!
//! Functions of (state, now, bytes). What a session's change means to others (an answer, a closed port, an event) is
//! the shard's to say.

pub mod budget;
pub mod end;
pub mod expected;
pub mod expiry;
pub mod handshake;
#[allow(clippy::module_inception, reason = "the type it holds is the module's subject")]
pub mod session;
pub mod sight;
pub mod table;
pub mod webrtc;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub use end::EndReason;
pub use expected::{Expected, NotExpected};
pub use handshake::CallerHandshake;
pub use session::{Flow, Session, State, Traffic};
pub use sight::Sight;
pub use table::SessionTable;
pub use webrtc::{Handover, Pair, Signalled, WebRtcSession};

/// Names a session of one shard: a slot, and which of the slot's tenants is meant.
///
/// A key that outlived its session matches nothing, so late datagrams and late commands cannot reach a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// The slot; dense, so tables beside this one may be indexed by it.
    pub slot: u32,
    /// Counts the tenants of all slots; wraps at 24 bits.
    pub generation: u32,
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.slot, self.generation)
    }
}

/// Makes room for one more, and for a sixteenth more than there are where there is none: slots are large, and after a
/// doubling half of them would be empty. The allocator moves a block of this size by its pages, not byte by byte.
fn make_room<T>(slots: &mut slab::Slab<T>) {
    if slots.len() == slots.capacity() {
        slots.reserve_exact((slots.len() / 16).max(64));
    }
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Secure Reliable Transport.
    Srt,
    /// ICE, DTLS-SRTP and what they carry.
    WebRtc,
}

impl Protocol {
    /// Both, in the order of their shares in the counters.
    pub const ALL: [Self; 2] = [Self::Srt, Self::WebRtc];

    /// The value of the metric's `proto` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Srt => "srt",
            Self::WebRtc => "webrtc",
        }
    }
}

/// A WebRTC session, as control numbers it: the same on every shard, from signalling on, and never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RtcId(pub u64);

/// An origin, as control numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OriginId(pub u32);

/// Position in the list of listeners that the engine was started with; the same on every shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerIndex(pub u8);

/// The far end of an unconnected port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The client.
    pub address: SocketAddr,
    /// The address to send from: the one that the client hit. `None`: the socket is bound to exactly one.
    pub local: Option<IpAddr>,
}

/// What the client does with the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sends media to the origin.
    Publish,
    /// Receives media from the origin.
    Play,
}

impl Role {
    /// As the API shows it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Play => "play",
        }
    }
}
