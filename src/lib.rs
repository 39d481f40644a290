//! Ringway: a UDP relay for live media (SRT) between clients and a cluster of origin media servers.
//!
//! The way of a packet, and of this list of modules:
//!
//! 1. The kernel gives a client's datagram to one of the sockets that share the listening address; each belongs to one
//!    thread. [`engine`] finds it in a buffer of its ring, together with what arrived beside it.
//! 2. [`shard`] is asked about each datagram and answers with a verdict about the buffer: out of which socket it goes
//!    on, or why it is dropped. It reads the header by [`protocol`] and finds the session in [`session`].
//! 3. The engine sends runs of datagrams with one destination as one message, from the buffers they came in.
//!
//! What is not media leaves this way: handshakes are answered by the shard itself, slowly and within bounds; which
//! origin serves a stream is decided by [`control`], on a thread of its own, reached through [`mailbox`]es only.
//! [`config`] says what all of them run with, [`relay`] joins them, [`cli`] reads what the user typed, and
//! [`telemetry`] tells operators what happened.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")
)]

pub mod engine;

pub mod shard;

pub mod session;

pub mod protocol;

pub mod mailbox;

pub mod control;

pub mod telemetry;

pub mod config;

pub mod relay;

pub mod cli;
