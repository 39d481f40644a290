//! One thread's share of the data plane, without its I/O.
//!
//! A [`Shard`] is driven by an engine: it is handed datagrams, commands and the time, and answers with verdicts about
//! buffers. What else it wants done (slow-path datagrams, ports, events) waits in its outbox. It has no sockets, no
//! clock and no randomness of its own, so a simulation can drive it just as well.

mod caller;
pub mod command;
pub mod counters;
mod lifetime;
mod origin;
pub mod outbox;
pub mod verdict;
mod view;
mod webrtc;

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

pub use command::{
    Command, EndReason, Event, Flow, FromShard, Handover, NotExpected, OriginId, Pair, PathRequest,
    PickRequest, Protocol, ProtocolView, Role, RtcId, SessionView, Signalled, SrtView, State,
    Traffic, WebRtcView,
};
pub use counters::{Counters, IoCounters, Share};
pub use outbox::Action;
pub use verdict::{Datagram, DropReason, ListenerIndex, Peer, Port, Route, SessionKey, Verdict};

use crate::protocol::srt::{ControlType, CookieKey, Header, Kind};
use crate::protocol::stream_url::Vhosts;
use crate::session::budget::{PrefixBudget, Rate, TokenBucket};
use crate::session::expiry::Expiry;
use crate::session::handshake::{self, PENDING_LIFE};
use crate::session::session::{LINGER, Timing};
use crate::session::table::InSlot;
use crate::session::webrtc::Candidates;
use crate::session::{Expected, Session, SessionTable};
use outbox::Outbox;

/// What bounds one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions in the table, pending and refused ones included. Above it new ones are refused (2402).
    pub sessions_max: u32,
    /// Handshakes under way, refused ones included while they are kept. Above it the oldest gives way.
    pub pending_max: u32,
    /// Handshakes under way of one client (IPv4 address, IPv6 /64). Above it new ones are refused (2402).
    pub pending_per_source: u32,
    /// Induction responses per second, all callers together.
    pub induction_rate: u32,
    /// Induction responses per second for one /24 (IPv4) or /48 (IPv6).
    pub induction_rate_per_prefix: u32,
    /// A session without a datagram from one of its sides for this long ends.
    pub srt_idle_timeout: Duration,
    /// A WebRTC session without a datagram from one of its sides for this long ends.
    pub webrtc_idle_timeout: Duration,
    /// An origin that has not answered a handshake within this time is a refusal (2502).
    pub origin_setup_timeout: Duration,
}

/// What a shard is made of. All randomness comes in here.
#[derive(Clone)]
pub struct ShardConfig {
    /// See [`Limits`].
    pub limits: Limits,
    /// The same on all shards.
    pub cookie_key: CookieKey,
    /// Seeds the tables whose keys peers choose.
    pub hash_seed: u64,
    /// When the process started; the zero of SRT timestamps.
    pub started: Instant,
    /// Wall-clock seconds at `started`, so that all relays of a fleet agree on the cookie's bucket.
    pub started_unix_seconds: u64,
    /// Names that count as virtual hosts.
    pub vhosts: Vhosts,
    /// `app/stream` of callers that send no stream ID; `None` refuses them (2400).
    pub default_stream: Option<String>,
    /// Advertised at first; see [`Command::KeyLength`].
    pub key_length: u8,
    /// What each listener speaks, in the order of [`ListenerIndex`].
    pub listeners: Vec<Protocol>,
    /// Whether clients without signalling may become sessions ([`Event::Candidate`]).
    pub webrtc_direct: bool,
}

/// Why a port cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortError {
    /// An ICMP port unreachable came back (`ECONNREFUSED`).
    Refused,
    /// No way there (`ENETUNREACH`, `EHOSTUNREACH`).
    Unreachable,
    /// No descriptor, no local port, no memory (`EMFILE`, `EADDRNOTAVAIL`, `ENOMEM`).
    Exhausted,
    /// Any other errno.
    Other(i32),
}

/// One thread's sessions and decisions.
pub struct Shard {
    config: ShardConfig,
    timing: Timing,
    table: SessionTable,
    /// WebRTC sessions that have been signalled, those of other shards included.
    expected: Expected,
    /// WebRTC clients that nobody has signalled.
    candidates: Candidates,
    hasher: SeedableRandomState,
    expiry: Expiry,
    outbox: Outbox,
    counters: Counters,
    /// Handshakes in the order they came, the decided ones among them still in the queue.
    pending: VecDeque<SessionKey>,
    inductions: TokenBucket,
    inductions_by_network: PrefixBudget,
    /// New callers are refused.
    draining: bool,
    /// `CloseAll` has come this far: the next slot to close.
    closing_all: Option<u32>,
}

impl Shard {
    /// An empty shard.
    pub fn new(config: ShardConfig) -> Self {
        let hasher = SeedableRandomState::with_seed(config.hash_seed, SharedSeed::global_random());
        let limits = &config.limits;
        let speaks_webrtc = config.listeners.contains(&Protocol::WebRtc);
        let expected_max = if speaks_webrtc { limits.sessions_max } else { 0 };
        Self {
            timing: Timing {
                origin_setup: limits.origin_setup_timeout,
                idle: limits.srt_idle_timeout,
                pending_life: PENDING_LIFE
                    .max(limits.origin_setup_timeout + Duration::from_millis(1500)),
            },
            table: SessionTable::new(limits.sessions_max, &config.listeners, &hasher),
            expected: Expected::new(expected_max, &hasher),
            candidates: Candidates::default(),
            hasher: hasher.clone(),
            expiry: Expiry::new(config.started, limits.sessions_max as usize),
            outbox: Outbox::new(),
            counters: Counters::default(),
            pending: VecDeque::new(),
            inductions: TokenBucket::new(Self::total_rate(limits), config.started),
            inductions_by_network: PrefixBudget::new(
                Rate {
                    per_second: limits.induction_rate_per_prefix,
                    burst: limits.induction_rate_per_prefix,
                },
                hasher,
                config.started,
            ),
            draining: false,
            closing_all: None,
            config,
        }
    }

    /// Decides about one datagram. Afterwards, whenever [`Shard::has_actions`], the engine takes the actions before
    /// the next datagram.
    pub fn handle(&mut self, now: Instant, datagram: Datagram<'_>) -> Verdict {
        let verdict = match datagram.port {
            Port::Listener(listener) => match self.spoken_on(listener) {
                Protocol::Srt => {
                    self.counters.srt.client_in.add(datagram.bytes.len());
                    self.client_sent(now, listener, datagram)
                }
                Protocol::WebRtc => {
                    self.counters.webrtc.client_in.add(datagram.bytes.len());
                    self.webrtc_client_sent(now, listener, datagram)
                }
            },
            Port::Session(key) => match self.table.protocol(key) {
                Some(Protocol::Srt) => {
                    self.counters.srt.origin_in.add(datagram.bytes.len());
                    self.origin_sent(now, key, datagram.bytes)
                }
                Some(Protocol::WebRtc) => {
                    self.counters.webrtc.origin_in.add(datagram.bytes.len());
                    self.webrtc_origin_sent(now, key, datagram.bytes)
                }
                None => Verdict::Drop(DropReason::StalePort),
            },
        };
        if let Verdict::Drop(reason) = verdict {
            self.counters.dropped(reason, 1);
        }
        verdict
    }

    fn client_sent(
        &mut self,
        now: Instant,
        listener: ListenerIndex,
        datagram: Datagram<'_>,
    ) -> Verdict {
        let bytes = datagram.bytes;
        let Ok(header) = Header::parse(bytes) else {
            return Verdict::Drop(DropReason::TooShort);
        };
        if header.destination.0 == 0 {
            return match header.kind {
                Kind::Control(ControlType::Handshake) => self.caller(now, listener, datagram),
                Kind::Data | Kind::Control(_) => Verdict::Drop(DropReason::NotAHandshake),
            };
        }
        let Some((key, session)) = self.table.by_socket_id(datagram.source, header.destination)
        else {
            return Verdict::Drop(DropReason::UnknownSocketId);
        };
        let goodbye = header.kind == Kind::Control(ControlType::Shutdown);
        if session.state == State::Closing && !goodbye {
            return Verdict::Drop(DropReason::Closing);
        }
        session.heard_client = now;
        session.traffic.client_in.add(bytes.len());
        session.traffic.origin_out.add(bytes.len());
        self.counters.srt.origin_out.add(bytes.len());
        session.sight.client_sent(header.kind, bytes, now);
        if session.confirmed.is_none() {
            self.confirm(now, key);
        }
        if goodbye {
            self.linger(now, key, EndReason::ClientShutdown);
        }
        Verdict::Forward(Route { port: Port::Session(key), to: None })
    }

    fn origin_sent(&mut self, now: Instant, key: SessionKey, bytes: &[u8]) -> Verdict {
        let Some(session) = self.table.srt_mut(key) else {
            return Verdict::Drop(DropReason::StalePort);
        };
        let Ok(header) = Header::parse(bytes) else {
            return Verdict::Drop(DropReason::TooShort);
        };
        if header.destination != session.client_socket && header.destination.0 != 0 {
            return Verdict::Drop(DropReason::WrongDestination);
        }
        session.heard_origin = now;
        if header.kind == Kind::Control(ControlType::Handshake) {
            return self.origin_answered(now, key, bytes);
        }
        let goodbye = header.kind == Kind::Control(ControlType::Shutdown);
        match session.state {
            State::Established => {}
            State::Closing if goodbye => {}
            State::Closing | State::Refused => return Verdict::Drop(DropReason::Closing),
            // To a caller that is still connecting nothing may be sent but handshakes: libsrt answers every other
            // packet with two conclusions.
            State::Picking | State::Inducing | State::Concluding { .. } => {
                return Verdict::Drop(DropReason::NotEstablished);
            }
        }
        session.traffic.origin_in.add(bytes.len());
        session.traffic.client_out.add(bytes.len());
        self.counters.srt.client_out.add(bytes.len());
        session.sight.origin_sent(header.kind, bytes, now);
        let route = to_client(session);
        if goodbye {
            self.linger(now, key, EndReason::OriginShutdown);
        }
        Verdict::Forward(route)
    }

    /// Obeys one command ([`Command::Stop`] is the engine's own and ignored here).
    pub fn apply(&mut self, now: Instant, command: Command) {
        match command {
            Command::Open { session, origin, address } => {
                self.picked(now, session, origin, address);
            }
            Command::Refuse { session, rejection } => self.refuse(now, session, rejection),
            Command::Close { session, reason } => match self.table.protocol(session) {
                Some(Protocol::Srt) => self.end(now, session, reason),
                Some(Protocol::WebRtc) => self.finish_here(now, session, reason, LINGER),
                None => {}
            },
            Command::Drain(draining) => self.draining = draining,
            Command::CloseAll => {
                self.draining = true;
                self.closing_all = Some(0);
                self.expect_nobody(now);
            }
            Command::KeyLength(bytes) => self.config.key_length = bytes,
            Command::Sessions { request, from_slot, limit } => {
                let page = self.page(now, request, from_slot, limit);
                self.outbox.tell(page);
            }
            Command::Counters { request } => {
                let counters = Box::new(self.counters());
                self.outbox.tell(Event::Counters { request, counters });
            }
            Command::Expect { session, pair } => self.expect(now, &session, &pair),
            Command::Own { session, handover } => self.own(now, session, handover),
            Command::Deny { session } => self.deny(now, session),
            Command::Yield { path } => self.yield_to(now, &path),
            Command::Finish { session, reason, linger } => {
                self.finish(now, session, reason, linger);
            }
            Command::Stop => {}
        }
    }

    /// `datagrams` that a verdict or an action sent along `route` did not leave, for `reason`.
    pub fn not_sent(&mut self, route: Route, datagrams: u32, bytes: usize, reason: DropReason) {
        let datagrams = u64::from(datagrams);
        self.counters.dropped(reason, datagrams);
        match route.port {
            Port::Listener(listener) => {
                let share = self.counters.of_mut(self.spoken_on(listener));
                share.client_out.take_back(datagrams, bytes);
            }
            Port::Session(key) => match self.table.traffic_mut(key) {
                Some((protocol, traffic)) => {
                    traffic.origin_out.take_back(datagrams, bytes);
                    self.counters.of_mut(protocol).origin_out.take_back(datagrams, bytes);
                }
                None => self.counters.srt.origin_out.take_back(datagrams, bytes),
            },
        }
    }

    /// When [`Shard::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.closing_all {
            Some(_) => Some(self.config.started),
            None => self.expiry.next_deadline(),
        }
    }

    /// Whether [`Shard::next_action`] has something.
    pub fn has_actions(&self) -> bool {
        self.outbox.has_actions()
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.outbox.next_action()
    }

    /// The bytes of an [`Action::Send`]; valid until `next_action` has returned `None`.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.outbox.bytes(range)
    }

    /// The oldest event for control.
    pub fn next_event(&mut self) -> Option<Event> {
        self.outbox.next_event()
    }

    /// Puts an event back at the front because control's mailbox is full.
    pub fn event_refused(&mut self, event: Event) {
        self.outbox.event_refused(event);
    }

    /// Counters that the engine writes.
    pub fn io(&mut self) -> &mut IoCounters {
        &mut self.counters.io
    }

    /// Counts datagrams that the engine dropped before the shard could see them.
    pub fn dropped(&mut self, reason: DropReason, datagrams: u64) {
        self.counters.dropped(reason, datagrams);
    }

    /// The counters as they stand.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        counters.sessions = self.table.len() as u64;
        counters.expected = self.expected.len() as u64;
        counters
    }

    fn send(&mut self, route: Route, datagram: &[u8]) {
        send(&mut self.outbox, &mut self.counters, Protocol::Srt, route, datagram);
    }

    /// What clients speak on a listener.
    #[inline]
    fn spoken_on(&self, listener: ListenerIndex) -> Protocol {
        self.config.listeners.get(usize::from(listener.0)).copied().unwrap_or(Protocol::Srt)
    }

    /// Looks at a session again when its next deadline comes.
    fn reschedule(&mut self, key: SessionKey) {
        if let Some(deadline) = self.deadline(key) {
            self.expiry.schedule(key.slot, deadline);
        }
    }

    /// When something is due for a session.
    fn deadline(&self, key: SessionKey) -> Option<Instant> {
        match self.table.in_slot(key.slot) {
            Some((tenant, _)) if tenant != key => None,
            Some((_, InSlot::Srt(session))) => Some(session.deadline(&self.timing)),
            Some((_, InSlot::WebRtc(session))) => {
                Some(session.deadline(self.config.limits.webrtc_idle_timeout))
            }
            None => None,
        }
    }

    /// Microseconds since the start, as SRT packets of our own carry them.
    fn timestamp(&self, now: Instant) -> u32 {
        handshake::micros(now.saturating_duration_since(self.config.started))
    }

    /// The cookie's time.
    fn bucket(&self, now: Instant) -> u64 {
        let uptime = now.saturating_duration_since(self.config.started).as_secs();
        (self.config.started_unix_seconds + uptime) / CookieKey::BUCKET_SECONDS
    }

    fn total_rate(limits: &Limits) -> Rate {
        Rate { per_second: limits.induction_rate, burst: limits.induction_rate }
    }
}

/// Queues a slow-path datagram, or counts that there was no room for it.
fn send(
    outbox: &mut Outbox,
    counters: &mut Counters,
    protocol: Protocol,
    route: Route,
    datagram: &[u8],
) {
    if !outbox.send(route, datagram) {
        counters.dropped(DropReason::OutboxFull, 1);
        return;
    }
    match route.port {
        Port::Listener(_) => counters.of_mut(protocol).client_out.add(datagram.len()),
        Port::Session(_) => counters.of_mut(protocol).origin_out.add(datagram.len()),
    }
}

/// The way to a session's client.
fn to_client(session: &Session) -> Route {
    Route { port: Port::Listener(session.listener), to: Some(session.client) }
}

/// The way to a session's origin.
fn to_origin(key: SessionKey) -> Route {
    Route { port: Port::Session(key), to: None }
}
