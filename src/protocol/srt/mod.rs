//! SRT as a relay sees it (draft-sharabayko-srt): headers, handshakes, and the few control packets
//! that it reads or makes.
//!
//! Payload, encryption and retransmission are the far ends' own business.

pub mod control;
pub mod cookie;
pub mod handshake;
pub mod header;
pub mod rejection;
pub mod stream_id;
#[cfg(test)]
mod vectors;

pub use cookie::CookieKey;
pub use handshake::{Extensions, Handshake, HandshakeKind};
pub use header::{ControlType, Header, Kind, ParseError, SocketId};
pub use rejection::Rejection;
pub use stream_id::{Mode, StreamId, StreamIdError};
