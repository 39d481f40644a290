//! Ringway: a UDP relay for live media between clients and a cluster of origin media servers.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")
)]

pub mod config;
pub mod engine;
pub mod mailbox;
pub mod protocol;
pub mod session;
pub mod shard;
