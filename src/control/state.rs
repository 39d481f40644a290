//! Everything that control owns, and the one place that changes it.
//!
//! One task holds a [`State`]. Events of the shards and questions of the HTTP tasks come to it as
//! messages, so nothing here is shared or locked, and nothing here waits.

mod report;
mod sessions;
mod srt;
mod webrtc;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::webrtc::Refusals;
use super::ShardLink;
use super::admission::{Admission, Limits};
use super::arbiter::Arbiter;
use super::ask::{Ask, Resource};
use super::balancer::Balancer;
use super::directory::Directory;
use super::drain::{Drain, Goal, News};
use super::health::Turn;
use super::key_length::{Advertised, advertised};
use super::origin::{Change, Conflict, Kind};
use super::quit::{Quit, Step};
use super::rate::Rates;
use super::registration::Registration;
use super::schedule::{Check, Found, Plan};
use super::session_id::{SessionId, SessionRef};
use super::shards::Shards;
use super::view::OriginEntry;
use crate::config::{BalancerChoice, Config, KeyLength};
use crate::shard::OriginId;
use crate::shard::command::{Command, EndReason, Event, FromShard};
use crate::telemetry::log::Throttle;
use crate::telemetry::metrics::SetupTimes;

/// Control's state.
pub(super) struct State {
    directory: Directory,
    balancer: Balancer,
    admission: Admission,
    /// `--http-per-source`
    offers: Rates,
    arbiter: Arbiter,
    /// Of WebRTC sessions. Those of SRT are counted by the shards.
    refusals: Refusals,
    goodbyes: Vec<Resource>,
    shards: Shards,
    /// An operator's. Quitting refuses newcomers by itself.
    drain: Drain,
    quit: Quit,
    setup: SetupTimes,
    throttle: Throttle,
    /// Whether callers are told what the origins say; else what was configured.
    asks_key_length: bool,
    /// What the shards were told last.
    advertised: Option<Advertised>,
    engine: &'static str,
    is_stopped: bool,
}

impl State {
    pub(super) fn new(
        now: Instant,
        config: &Arc<Config>,
        shards: Vec<ShardLink>,
        engine: &'static str,
        sessions_max: u32,
    ) -> Self {
        let plan = Plan {
            interval: config.origin_check,
            asks_key_length: config.srt_key_length == KeyLength::Auto,
        };
        Self {
            directory: Directory::new(now, &config.origins, config.origin_ttl, plan),
            balancer: match config.balancer {
                BalancerChoice::Memory => Balancer::Memory,
            },
            admission: Admission::new(Limits {
                sessions_max,
                sessions_per_source: config.sessions_per_source,
                pending_per_source: config.pending_per_source,
                new_per_source: config.new_per_source,
            }),
            offers: Rates::new(config.http_per_source.per_second, config.http_per_source.burst),
            arbiter: Arbiter::new(shards.len()),
            refusals: Refusals::new(),
            goodbyes: Vec::new(),
            shards: Shards::new(shards),
            drain: Drain::default(),
            quit: Quit::new(config.grace_quit_timeout, config.force_quit_timeout),
            setup: SetupTimes::default(),
            throttle: Throttle::default(),
            asks_key_length: plan.asks_key_length,
            advertised: None,
            engine,
            is_stopped: false,
        }
    }

    /// Takes in what a shard says.
    pub(super) fn handle_event(&mut self, now: Instant, FromShard { shard, event }: FromShard) {
        match event {
            Event::Pick(request) => self.pick(now, shard, &request),
            Event::Established { session, setup } => {
                self.established(now, SessionRef { shard, key: session }, setup);
            }
            Event::Ended { session, reason, traffic, age } => {
                self.ended(now, SessionRef { shard, key: session }, reason, traffic, age);
            }
            Event::Sessions { request, sessions, next_slot } => {
                self.show_sessions(now, shard, request, &sessions, next_slot);
            }
            Event::Counters { request, counters } => {
                self.shards.take_counters(now, shard, request, *counters);
            }
            Event::Expected { session, result } => self.expected(now, session, result),
            Event::Path(request) => self.path(shard, *request),
            Event::Yielded { session, handover } => self.yielded(now, shard, session, handover),
            Event::Candidate { client, ufrag } => self.candidate(now, shard, client, &ufrag),
            Event::Validated { session, key, client, setup } => {
                self.validated(shard, session, key, client, setup);
            }
            Event::RtcEnded { session, reason, traffic, age } => {
                self.rtc_ended(now, shard, session, reason, traffic, age);
            }
            Event::Emptied => self.shards.emptied(shard),
            Event::Failed => self.shard_failed(now, shard),
        }
    }

    /// The clients of a shard that is gone would send into nothing: a process that ends is started again.
    fn shard_failed(&mut self, now: Instant, shard: u16) {
        tracing::error!(shard, "a shard has failed: the relay quits");
        self.quit_now(now);
    }

    /// Answers a question. Who asked may have given up, so a reply that cannot be delivered is
    /// nothing.
    pub(super) fn handle_ask(&mut self, now: Instant, ask: Ask) {
        match ask {
            Ask::Register { registration, reply } => {
                let _ = reply.send(self.register(now, *registration));
            }
            Ask::RegistrationRefused { peer, detail } => {
                let message = "registration refused";
                if let Some(held_back) = self.throttle.pass(now, message) {
                    tracing::warn!(%peer, detail, held_back, "{message}");
                }
            }
            Ask::Origins { reply } => {
                let entry = |origin| OriginEntry::new(now, origin, &self.directory);
                let _ = reply.send(self.directory.origins().map(entry).collect());
            }
            Ask::DrainOrigin { name, is_draining, reply } => {
                let _ = reply.send(self.drain_origin(&name, is_draining));
            }
            Ask::Streams { limit, reply } => {
                let _ = reply.send(self.streams(now, limit));
            }
            Ask::Sessions { shard, from_slot, limit, reply } => {
                self.shards.ask_sessions(shard, from_slot, limit, reply);
            }
            Ask::Expected { from, limit, reply } => {
                let _ = reply.send(self.expected_sessions(now, from, limit));
            }
            Ask::Session { session, reply } => {
                let _ = reply.send(self.rtc_session(now, session));
            }
            Ask::Offer { offer, reply } => {
                if let Err(Ok(placement)) = reply.send(self.offer(now, *offer)) {
                    self.abandon(now, placement.session);
                }
            }
            Ask::Expect { session, address, pairs, reply } => {
                self.expect(now, session, address, &pairs, reply);
            }
            Ask::Publish { session, resource } => self.publish(now, session, &resource),
            Ask::Resource { token, reply } => {
                let _ = reply.send(self.resource(&token));
            }
            Ask::Abandon { session } => self.abandon(now, session),
            Ask::Unreachable { session } => self.unreachable(now, session),
            Ask::Finish { session, reason } => {
                self.finish(now, session, reason);
            }
            Ask::Close { session, reply } => {
                let _ = reply.send(self.close(now, session));
            }
            Ask::Counters { shard, age_max, reply } => {
                self.shards.ask_counters(now, shard, age_max, reply);
            }
            Ask::Metrics { since, reply } => {
                let _ = reply.send(self.snapshot(now, since));
            }
            Ask::Readiness { reply } => {
                let _ = reply.send(self.readiness(now));
            }
            Ask::Drain { goal, reply } => {
                let _ = reply.send(self.begin_drain(now, goal).then(|| self.service(now)));
            }
            Ask::Undrain { reply } => {
                let _ = reply.send(self.end_drain().then(|| self.service(now)));
            }
            Ask::Service { reply } => {
                let _ = reply.send(self.service(now));
            }
        }
    }

    fn register(&mut self, now: Instant, registration: Registration) -> Result<(), Conflict> {
        let (ip, server) = (registration.ip, registration.server.clone());
        let (id, change) = self.directory.register(now, registration)?;
        let change = match change {
            Change::New => "registered",
            Change::Restarted => "restarted",
            Change::Returned => "returned",
            Change::Heartbeat => return Ok(()),
        };
        let origin = self.directory.origin(id);
        let srt = origin.and_then(|origin| origin.srt_address()).map(tracing::field::display);
        let rtc = origin.and_then(|origin| origin.rtc_address()).map(tracing::field::display);
        tracing::info!(origin = self.origin_name(id), server, %ip, srt, rtc, "origin {change}");
        Ok(())
    }

    /// Returns whether there is such an origin.
    fn drain_origin(&mut self, name: &str, is_draining: bool) -> bool {
        let Some(origin) = self.directory.drain(name, is_draining) else {
            return false;
        };
        let (name, sessions) = (origin.name(), origin.sessions());
        match is_draining {
            true => tracing::info!(origin = name, sessions, "origin draining: no new streams"),
            false => tracing::info!(origin = name, sessions, "origin takes new streams again"),
        }
        true
    }

    fn close(&mut self, now: Instant, session: SessionId) -> bool {
        let reason = EndReason::Operator;
        match session {
            SessionId::Srt(id) => {
                let is_known = self.directory.session(id).is_some();
                if is_known {
                    self.shards.tell(id.shard, Command::Close { session: id.key, reason });
                }
                is_known
            }
            SessionId::WebRtc(id) => self.finish(now, id, reason),
        }
    }

    /// What a second's passing brings about.
    pub(super) fn tick(&mut self, now: Instant) {
        for name in self.directory.expire(now) {
            tracing::warn!(origin = name, "origin expired: its heartbeat has stopped");
        }
        for (origin, kind) in self.directory.recovered(now) {
            self.tell_turn(origin, kind, Some(Turn::Up));
        }
        self.expire_webrtc(now);
        self.admission.sweep(now);
        self.offers.sweep(now);
        self.shards.sweep();
        for (message, held_back) in self.throttle.overdue(now) {
            tracing::warn!(held_back, "more of the same: {message}");
        }
        self.advertise(now);
    }

    /// Checks of origins that are to be made now, `limit` at most.
    pub(super) fn take_due_checks(&mut self, now: Instant, limit: usize) -> Vec<Check> {
        self.directory.take_due_checks(now, limit)
    }

    /// An origin has answered, or has not.
    pub(super) fn checked(&mut self, now: Instant, origin: OriginId, kind: Kind, found: Found) {
        let turn = self.directory.checked(now, origin, kind, found);
        self.tell_turn(origin, kind, turn);
        self.advertise(now);
    }

    fn advertise(&mut self, now: Instant) {
        if !self.asks_key_length {
            return;
        }
        let directory = &self.directory;
        let answers = directory
            .origins()
            .filter(|origin| directory.is_alive(origin, now))
            .filter_map(|origin| Some((origin.name(), origin.key_length()?)));
        // Without an answer the last one is the best guess.
        let Some(advertised) = advertised(answers) else {
            return;
        };
        if self.advertised.as_ref() == Some(&advertised) {
            return;
        }
        let Advertised { bytes, disagreement } = &advertised;
        let bytes = *bytes;
        if let Some(answers) = disagreement {
            tracing::warn!(
                bytes,
                answers,
                "origins differ in their SRT key length: the longest is advertised to all callers; \
                 make them equal or set --srt-key-length"
            );
        }
        if self.advertised.as_ref().map(|last| last.bytes) != Some(bytes) {
            tracing::info!(bytes, "SRT key length advertised");
            self.shards.tell_all(|| Command::KeyLength(bytes));
        }
        self.advertised = Some(advertised);
    }

    /// An operator drains the relay. Returns whether he can: one that quits refuses newcomers
    /// anyway, and ends.
    fn begin_drain(&mut self, now: Instant, goal: Goal) -> bool {
        if self.quit.is_draining() {
            return false;
        }
        let sessions = self.directory.sessions_count();
        let deadline = goal.deadline.map(|deadline| deadline.as_secs_f64());
        if self.drain.begin(now, goal) {
            tracing::info!(
                sessions,
                sessions_min = goal.sessions_min,
                deadline,
                "draining: new sessions are refused, live ones run on"
            );
            self.shards.tell_all(|| Command::Drain(true));
        } else {
            let sessions_min = goal.sessions_min;
            tracing::info!(sessions, sessions_min, deadline, "draining: the goal has changed");
        }
        // With nobody left it is drained at once, and the answer says so.
        self.advance_drain(now);
        true
    }

    /// Takes a drain back. Returns whether that can be: a relay that quits goes on to refuse.
    fn end_drain(&mut self) -> bool {
        if self.quit.is_draining() {
            return false;
        }
        if self.drain.end() {
            let sessions = self.directory.sessions_count();
            tracing::info!(sessions, "no longer draining: new sessions are welcome");
            self.shards.tell_all(|| Command::Drain(false));
        }
        true
    }

    fn advance_drain(&mut self, now: Instant) {
        let sessions = self.directory.sessions_count();
        match self.drain.advance(now, sessions) {
            Some(News::Drained) => {
                tracing::info!(sessions, "drained: no more sessions are left than allowed");
            }
            Some(News::DeadlinePassed) => {
                tracing::warn!(sessions, "draining: the deadline has passed and sessions are left");
            }
            None => {}
        }
    }

    /// Whether new sessions are refused, whatever the reason.
    fn is_draining(&self) -> bool {
        self.drain.is_draining() || self.quit.is_draining()
    }

    /// Asked to quit: gently the first time, at once the second.
    pub(super) fn quit(&mut self, now: Instant) {
        let step = self.quit.ask(now);
        self.take_step(now, step);
    }

    /// Asked to quit at once.
    pub(super) fn quit_now(&mut self, now: Instant) {
        let step = self.quit.ask_now(now);
        self.take_step(now, step);
    }

    /// Moves on what waited for room, for the last session or for time.
    pub(super) fn advance(&mut self, now: Instant) {
        self.shards.flush();
        self.advance_drain(now);
        let sessions = self.directory.sessions_count();
        let step = self.quit.advance(now, sessions, self.shards.are_empty());
        self.take_step(now, step);
    }

    fn take_step(&mut self, now: Instant, step: Option<Step>) {
        let sessions = self.directory.sessions_count();
        match step {
            Some(Step::Drain) => {
                tracing::info!(sessions, "quitting: new sessions are refused, live ones may end");
                self.shards.tell_all(|| Command::Drain(true));
                self.arbiter.hurry(now);
            }
            Some(Step::CloseAll) => {
                tracing::info!(sessions, "quitting: the sessions that are left are ended");
                // The shards must also refuse who comes after the goodbyes.
                self.shards.tell_all(|| Command::Drain(true));
                self.shards.tell_all(|| Command::CloseAll);
                self.abandon_webrtc(now);
            }
            Some(Step::Stop) => {
                self.is_stopped = true;
                self.shards.tell_all(|| Command::Stop);
            }
            None => {}
        }
    }

    /// When [`Self::advance`] has something to do without anybody's message.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let retry_at = self.shards.has_backlog().then(|| now + RETRY_INTERVAL);
        [retry_at, self.quit.deadline(), self.drain.deadline()].into_iter().flatten().min()
    }

    /// Whether everything has been said: the shards have been told to stop, and no mailbox is too
    /// full for it.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Whether some command still waits for room in a mailbox.
    pub(super) fn has_backlog(&self) -> bool {
        self.shards.has_backlog()
    }

    fn origin_name(&self, id: OriginId) -> &str {
        self.directory.origin(id).map_or("", |origin| origin.name())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How soon a full mailbox is tried again: nobody tells when it has room.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// A state with fake shards.
#[cfg(test)]
mod fixtures {
    use super::*;
    use crate::control::directory::fixtures::{registration, request, session};
    use crate::mailbox::{Mailbox, mailbox};
    use crate::shard::command::{Flow, Role, Traffic};

    pub(super) struct Relay {
        pub(super) state: State,
        pub(super) shards: Vec<Mailbox<Command>>,
        pub(super) now: Instant,
    }

    impl Relay {
        pub(super) fn new(config: Config) -> Self {
            let (posts, shards): (Vec<_>, Vec<_>) = (0..2).map(|_| mailbox(64).unwrap()).unzip();
            let links = posts.into_iter().map(|post| ShardLink { post, cpu: None, tid: 0 });
            let now = Instant::now();
            let config = Arc::new(config);
            let state = State::new(now, &config, links.collect(), "mmsg", 4);
            Self { state, shards, now }
        }

        pub(super) fn with_origin() -> Self {
            let mut relay = Self::new(Config::default());
            relay.state.register(relay.now, registration("a", 1, Some(10080))).unwrap();
            relay
        }

        pub(super) fn event(&mut self, shard: u16, event: Event) {
            self.state.handle_event(self.now, FromShard { shard, event });
        }

        pub(super) fn pick(&mut self, shard: u16, slot: u32) -> Command {
            self.event(shard, Event::Pick(Box::new(request(slot, "live/a", Role::Publish))));
            self.shards[usize::from(shard)].take().unwrap()
        }

        pub(super) fn established(&mut self, shard: u16, slot: u32) {
            let setup = Duration::from_millis(9);
            self.event(shard, Event::Established { session: session(slot).key, setup });
        }

        pub(super) fn ended(&mut self, shard: u16, slot: u32, reason: EndReason) {
            let traffic =
                Traffic { client_in: Flow { packets: 1, bytes: 9 }, ..Traffic::default() };
            let session = session(slot).key;
            self.event(shard, Event::Ended { session, reason, traffic, age: Duration::ZERO });
        }

        pub(super) fn commands(&self, shard: usize) -> Vec<Command> {
            std::iter::from_fn(|| self.shards[shard].take()).collect()
        }
    }
}

#[cfg(test)]
mod tests;
