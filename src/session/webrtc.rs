//! One WebRTC client with one origin: its proven addresses, its outstanding checks, and when it is over.

use std::time::Instant;

/// What the owner of a session hands to the shard that owns it next.
#[derive(Debug)]
pub struct Handover {
    /// When the session was expected first.
    pub created: Instant,
}
