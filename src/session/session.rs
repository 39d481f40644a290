//! One client with one origin.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{CallerHandshake, ListenerIndex, OriginId, Peer, Role, Sight};
use crate::protocol::srt::SocketId;
use crate::protocol::srt::handshake::{GroupId, HsReq, KeyMaterial};
use crate::protocol::stream_url::StreamKey;

/// A session. What every datagram touches comes first.
#[derive(Debug)]
pub struct Session {
    /// How far it has come.
    pub state: State,
    /// Which of our listeners the client uses.
    pub listener: ListenerIndex,
    /// The client's proven address, and ours that it hit.
    pub client: Peer,
    /// What the origin's datagrams are addressed to.
    pub client_socket: SocketId,
    /// What the client's datagrams are addressed to, once the origin has said it.
    pub origin_socket: Option<SocketId>,
    /// The last datagram of the client.
    pub heard_client: Instant,
    /// The last datagram of the origin.
    pub heard_origin: Instant,
    /// Totals.
    pub traffic: Traffic,
    /// What SRT shows in clear.
    pub sight: Sight,
    /// When the client first used the origin's socket ID: it has seen the answer.
    pub confirmed: Option<Instant>,
    /// An ICMP message says that the origin's port is closed, and the origin has not been heard since.
    pub suspected: Option<Instant>,
    /// Until when a closing session waits for stragglers.
    pub closing_until: Option<Instant>,
    /// When the client's conclusion came in.
    pub created: Instant,
    /// What the client asked for, which no datagram needs.
    pub wish: Box<Wish>,
    /// Whom control picked, and the address of its listener.
    pub origin: Option<(OriginId, SocketAddr)>,
    /// Whether the engine has a port for it.
    pub has_port: bool,
    /// Origins that were tried for its caller before, and whose ports were closed.
    pub attempts: u8,
    /// Tells a repeated conclusion from a new attempt.
    pub initial_sequence: u32,
    /// The conclusion and its answer, until nobody can ask for them any more.
    pub handshake: Option<Box<CallerHandshake>>,
}

/// What a conclusion says about the session to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Canonical key.
    pub stream: StreamKey,
    /// Publisher or player.
    pub role: Role,
    /// The caller's bonding group.
    pub group: Option<GroupId>,
    /// Version, flags and delays; `None` for callers of version 4.
    pub hsreq: Option<HsReq>,
    /// Length and cipher of the caller's key; `None` when the stream is clear.
    pub key: Option<KeyMaterial>,
}

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Control is choosing an origin.
    Picking,
    /// The origin's cookie has been asked for.
    Inducing,
    /// The conclusion is with the origin, under this cookie.
    Concluding {
        /// The origin's.
        cookie: u32,
    },
    /// Media may flow.
    Established,
    /// Refused; kept so that repeats get the same answer.
    Refused,
    /// A goodbye has passed; kept for stragglers.
    Closing,
}

impl State {
    /// As the API shows it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Picking => "picking",
            Self::Inducing => "inducing",
            Self::Concluding { .. } => "concluding",
            Self::Established => "established",
            Self::Refused => "refused",
            Self::Closing => "closing",
        }
    }

    /// Not established and never was: what `--pending-max` counts.
    pub fn is_pending(self) -> bool {
        self.is_undecided() || self == Self::Refused
    }

    /// A handshake is under way and nobody has been told how it ends.
    pub fn is_undecided(self) -> bool {
        matches!(self, Self::Picking | Self::Inducing | Self::Concluding { .. })
    }
}

impl Session {
    /// A caller whose conclusion has just been accepted.
    pub fn new(
        listener: ListenerIndex,
        client: Peer,
        handshake: CallerHandshake,
        wish: Wish,
        now: Instant,
    ) -> Self {
        Self {
            state: State::Picking,
            listener,
            client,
            client_socket: handshake.request.socket,
            origin_socket: None,
            heard_client: now,
            heard_origin: now,
            traffic: Traffic::default(),
            sight: Sight::default(),
            confirmed: None,
            suspected: None,
            closing_until: None,
            created: now,
            wish: Box::new(wish),
            origin: None,
            has_port: false,
            attempts: 0,
            initial_sequence: handshake.request.initial_sequence,
            handshake: Some(Box::new(handshake)),
        }
    }

    /// The same caller for whom `before` found a closed port. Its patience began with its conclusion.
    pub fn again(before: &mut Self, now: Instant) -> Option<Self> {
        let mut handshake = *before.handshake.take()?;
        handshake.retry_at = None;
        let (listener, client, wish) = (before.listener, before.client, Wish::clone(&before.wish));
        let attempts = before.attempts.saturating_add(1);
        let next = Self::new(listener, client, handshake, wish, now);
        Some(Self { created: before.created, attempts, ..next })
    }

    /// The largest MTU that fits both legs. A caller reckons with 28 bytes of UDP and IPv4 header on either family; an
    /// IPv6 leg behind an IPv4 one (or the reverse) takes 20 more.
    pub fn mtu_max(&self) -> u32 {
        match self.origin {
            Some((_, origin)) if origin.is_ipv4() != self.client.address.is_ipv4() => 1480,
            Some(_) | None => 1500,
        }
    }

    /// The origin's IP address, for PeerIP.
    pub fn origin_ip(&self) -> Option<IpAddr> {
        self.origin.map(|(_, address)| address.ip())
    }

    /// When something is due, given nothing happens before.
    pub fn deadline(&self, timing: &Timing) -> Instant {
        let created = self.created;
        match self.state {
            State::Picking => created + timing.origin_setup,
            State::Inducing | State::Concluding { .. } => {
                let give_up = created + timing.origin_setup;
                let retry_at = self.handshake.as_ref().and_then(|handshake| handshake.retry_at);
                retry_at.map_or(give_up, |retry_at| retry_at.min(give_up))
            }
            State::Established => {
                let idle = self.heard_client.min(self.heard_origin) + timing.idle;
                let doubt = self.suspected.map(|since| since.max(self.heard_origin) + SUSPICION);
                let forget = match (&self.handshake, self.confirmed) {
                    (Some(_), Some(confirmed)) => Some(confirmed + ANSWER_LIFE),
                    (Some(_) | None, _) => None,
                };
                [doubt, forget].into_iter().flatten().fold(idle, Instant::min)
            }
            State::Refused => created + timing.pending_life,
            State::Closing => self.closing_until.unwrap_or(created),
        }
    }
}

/// The timers of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// An origin that has not answered by then is a refusal.
    pub origin_setup: Duration,
    /// Silence of one side that ends the session.
    pub idle: Duration,
    /// How long a refused handshake is kept for repeats.
    pub pending_life: Duration,
}

/// How long an origin whose port seems closed may stay silent before the session ends.
pub const SUSPICION: Duration = Duration::from_secs(1);

/// How long a closing session waits for stragglers.
pub const LINGER: Duration = Duration::from_secs(2);

/// How long the answer is kept after the client has shown that it knows it.
pub const ANSWER_LIFE: Duration = Duration::from_secs(10);

/// Datagrams and payload bytes that one session carried, handshakes not included. "in" is what the relay received from
/// that side; where nothing was dropped on the way out, what went in on one side is what left on the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From the client.
    pub client_in: Flow,
    /// To the client.
    pub client_out: Flow,
    /// From the origin.
    pub origin_in: Flow,
    /// To the origin.
    pub origin_out: Flow,
}

/// One direction on one leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Datagrams.
    pub packets: u64,
    /// UDP payload bytes.
    pub bytes: u64,
}

impl Flow {
    /// Counts one datagram.
    pub fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    /// Takes back what was counted as sent and did not leave.
    pub fn take_back(&mut self, packets: u64, bytes: usize) {
        self.packets = self.packets.saturating_sub(packets);
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }
}
