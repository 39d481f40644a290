//! One binary for all tests that need more than one module: less to link, and one place to look.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    unreachable_pub,
    reason = "a test may fail loudly, and documents itself by its name"
)]

mod documents;
mod engine;
mod fuzz_replay;
mod interop;
mod layering;
mod shard;
mod simulation;
mod support;
