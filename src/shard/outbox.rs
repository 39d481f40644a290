//! What a shard wants done besides forwarding: slow-path datagrams and ports, in order, and events for control.
//!
//! Bounded and reused: a flood of inductions costs no allocation, and what does not fit is dropped and counted.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;

use super::command::Event;
use super::verdict::Route;
use crate::session::SessionKey;
use crate::session::handshake::KEPT_MAX;

/// Something the engine does for the shard, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes now.
    Send {
        /// Out of which socket, and to whom.
        route: Route,
        /// Where [`super::Shard::bytes`] finds them.
        bytes: Range<usize>,
    },
    /// Open a socket connected to `origin` for this session; answer with [`super::Shard::port_opened`].
    Open {
        /// Whose port.
        session: SessionKey,
        /// Where to.
        origin: SocketAddr,
    },
    /// Close the session's port. Nothing of it reaches the shard afterwards.
    Close {
        /// Whose port.
        session: SessionKey,
    },
}

/// Actions and events that nobody has taken yet.
pub(super) struct Outbox {
    actions: VecDeque<Action>,
    /// What the datagrams among the actions say.
    bytes: Vec<u8>,
    events: VecDeque<Event>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            actions: VecDeque::with_capacity(ACTIONS_RESERVED),
            bytes: Vec::with_capacity(BYTES_MAX),
            events: VecDeque::new(),
        }
    }

    /// Queues a datagram; false when there is no room.
    #[must_use]
    pub(super) fn send(&mut self, route: Route, datagram: &[u8]) -> bool {
        let start = self.bytes.len();
        if start + datagram.len() > BYTES_MAX {
            return false;
        }
        self.bytes.extend_from_slice(datagram);
        self.actions.push_back(Action::Send { route, bytes: start..self.bytes.len() });
        true
    }

    /// Whether what one session asks for on the slow path would fit.
    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() + KEPT_MAX + GOODBYES <= BYTES_MAX
    }

    /// Queues a port to open or close. Bounded by the sessions there are.
    pub(super) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(super) fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// The next action. After the last, the room for bytes is free again.
    pub(super) fn next_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if action.is_none() {
            self.bytes.clear();
        }
        action
    }

    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or(&[])
    }

    /// Queues an event. Bounded by the sessions there are, see [`Outbox::is_backlogged`].
    pub(super) fn tell(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Control does not keep up: no new session may be begun, for each one brings events.
    pub(super) fn is_backlogged(&self) -> bool {
        self.events.len() >= EVENTS_BACKLOG
    }

    pub(super) fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(super) fn event_refused(&mut self, event: Event) {
        self.events.push_front(event);
    }
}

/// Room for 4,096 handshake answers between two drains.
const BYTES_MAX: usize = 256 * 1024;
/// Two SHUTDOWN packets.
const GOODBYES: usize = 2 * 20;
const ACTIONS_RESERVED: usize = 4096;
/// Events that may wait for control before new callers are refused.
const EVENTS_BACKLOG: usize = 16_384;
