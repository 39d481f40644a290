//! STUN as ICE uses it (RFC 8489, RFC 8445): what the relay reads of a binding request before it
//! believes an address, and the one thing it changes in a response.
//!
//! Two ICE agents that talk through a relay see the relay's addresses. The relay has seen both
//! passwords in the SDP, so it can tell a request of the right client from a forged one
//! ([`Message::integrity`]), and can give the client its true address back in the origin's response
//! ([`with_mapped_address`]). It never answers a request itself: an agent's answer is the proof that
//! the whole path works, and a relay that answers strangers can be aimed at others.
//!
//! Attributes that nobody here knows pass unread and unchanged.

mod address;
mod attribute;
mod build;
mod header;
mod integrity;
mod message;
mod rewrite;
#[cfg(test)]
mod vectors;
mod writer;

pub use build::Builder;
pub use header::{Class, Method, StunError, TransactionId};
pub use integrity::{Check, IntegrityKey};
pub use message::Message;
pub use rewrite::with_mapped_address;
