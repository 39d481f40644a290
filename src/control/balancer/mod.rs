//! Which origin serves a stream.
//!
//! A balancer only chooses; that the choice is kept for the life of a session, and remembered for
//! the stream, is the directory's business.

mod memory;

use std::time::Instant;

use super::directory::Directory;
use super::origin::{Kind, Origin};
use crate::protocol::srt::handshake::GroupId;
use crate::protocol::stream_url::StreamKey;
use crate::shard::command::{PickRequest, Role};

/// The ways to choose an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balancer {
    /// By what this relay alone knows.
    Memory,
}

impl Balancer {
    /// Chooses the origin for a new session; `None` when no live origin takes its kind, or when the
    /// stream is published at one that does not.
    pub fn pick<'a>(
        self,
        directory: &'a Directory,
        now: Instant,
        wish: &Wish<'_>,
    ) -> Option<&'a Origin> {
        match self {
            Self::Memory => memory::pick(directory, now, wish),
        }
    }

    /// Chooses the origin for a client without signalling, whatever the others do: it comes back to
    /// the same one by its name.
    pub fn pick_direct<'a>(
        self,
        directory: &'a Directory,
        now: Instant,
        client: &str,
    ) -> Option<&'a Origin> {
        match self {
            Self::Memory => memory::pick_direct(directory, now, client),
        }
    }
}

/// What an origin is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Which stream.
    pub stream: &'a StreamKey,
    /// Publisher or player.
    pub role: Role,
    /// What the origin must take.
    pub kind: Kind,
    /// The caller's bonding group.
    pub group: Option<GroupId>,
}

impl<'a> From<&'a PickRequest> for Wish<'a> {
    fn from(request: &'a PickRequest) -> Self {
        let PickRequest { stream, role, group, .. } = request;
        Self { stream, role: *role, kind: Kind::Srt, group: *group }
    }
}
