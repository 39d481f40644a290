//! Which origin serves a stream.
//!
//! A balancer only chooses; that the choice is kept for the life of a session, and remembered for
//! the stream, is the directory's business.

mod memory;

use std::net::SocketAddr;
use std::time::Instant;

use super::directory::Directory;
use crate::shard::{OriginId, PickRequest};

/// The ways to choose an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balancer {
    /// By what this relay alone knows.
    Memory,
}

impl Balancer {
    /// Chooses the origin for a new session; `None` when no live origin speaks SRT.
    pub fn pick(self, directory: &Directory, now: Instant, request: &PickRequest) -> Option<Pick> {
        match self {
            Self::Memory => memory::pick(directory, now, request),
        }
    }
}

/// The origin of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Which.
    pub origin: OriginId,
    /// Its SRT listener.
    pub address: SocketAddr,
}
