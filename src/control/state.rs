//! Everything that control owns, and the one place that changes it.
//!
//! One task holds a [`State`]. Events of the shards and questions of the HTTP tasks come to it as
//! messages, so nothing here is shared or locked, and nothing here waits.

mod report;
mod sessions;
mod srt;
mod webrtc;

use std::net::SocketAddr;
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
use super::key_length::{Advertised, advertised};
use super::origin::{Change, Conflict};
use super::quit::{Quit, Step};
use super::rate::Rates;
use super::registration::Registration;
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
    srt_key_length: KeyLength,
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
        Self {
            directory: Directory::new(now, &config.origins, config.origin_ttl),
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
            srt_key_length: config.srt_key_length,
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
                self.established(SessionRef { shard, key: session }, setup);
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
            Ask::Publish { session, resource } => self.publish(now, session, resource),
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
        self.expire_webrtc(now);
        self.admission.sweep(now);
        self.offers.sweep(now);
        self.shards.sweep();
        for (message, held_back) in self.throttle.overdue(now) {
            tracing::warn!(held_back, "more of the same: {message}");
        }
        self.advertise(now);
    }

    /// Origins to be asked for their key length now, `limit` at most.
    pub(super) fn take_due_probes(
        &mut self,
        now: Instant,
        limit: usize,
    ) -> Vec<(OriginId, SocketAddr)> {
        match self.srt_key_length {
            KeyLength::Auto => self.directory.take_due_probes(now, limit),
            KeyLength::Bytes(_) => Vec::new(),
        }
    }

    /// An origin has answered, or has not.
    pub(super) fn probed(&mut self, now: Instant, origin: OriginId, answer: Option<u8>) {
        self.directory.probed(now, origin, answer);
        self.advertise(now);
    }

    fn advertise(&mut self, now: Instant) {
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
mod tests {
    use super::fixtures::Relay;
    use super::*;
    use crate::control::ask::Readiness;
    use crate::control::directory::fixtures::{registration, request, session, stream};
    use crate::protocol::srt::Rejection;
    use crate::shard::SessionKey;
    use crate::shard::command::Role;

    #[track_caller]
    fn assert_refused(command: &Command, expected: Rejection) {
        let Command::Refuse { rejection, .. } = command else { panic!("{command:?}") };
        assert_eq!(*rejection, expected);
    }

    #[track_caller]
    fn assert_opened(command: &Command) {
        assert!(matches!(command, Command::Open { .. }), "{command:?}");
    }

    #[test]
    fn a_pick_is_answered_to_the_shard_that_asked_with_the_origins_address() {
        let mut relay = Relay::with_origin();
        let command = relay.pick(1, 7);
        let Command::Open { session: key, address, .. } = command else { panic!("{command:?}") };
        assert_eq!(key, SessionKey { slot: 7, generation: 1 });
        assert_eq!(address, SocketAddr::from(([10, 0, 0, 1], 10080)));
        assert!(relay.commands(0).is_empty());
    }

    #[test]
    fn without_a_live_origin_callers_are_told_so() {
        let mut relay = Relay::new(Config::default());
        assert_refused(&relay.pick(0, 1), Rejection::Unavailable);
    }

    #[test]
    fn the_process_limit_holds_over_all_shards_and_a_session_that_ended_makes_room() {
        let mut relay = Relay::with_origin();
        for slot in 0..4 {
            assert_opened(&relay.pick((slot % 2) as u16, slot));
        }
        assert_refused(&relay.pick(0, 9), Rejection::Overload);
        relay.ended(0, 0, EndReason::ClientShutdown);
        assert_opened(&relay.pick(1, 10));
    }

    #[test]
    fn sessions_that_end_twice_or_were_refused_make_no_room() {
        let mut relay = Relay::with_origin();
        for slot in 0..4 {
            relay.pick(0, slot);
        }
        assert_refused(&relay.pick(0, 9), Rejection::Overload);
        relay.ended(0, 9, EndReason::Refused(Rejection::Overload));
        assert_refused(&relay.pick(0, 10), Rejection::Overload);
        relay.ended(0, 0, EndReason::OriginIdle);
        relay.ended(0, 0, EndReason::OriginIdle);
        assert_opened(&relay.pick(0, 11));
        assert_refused(&relay.pick(0, 12), Rejection::Overload);
    }

    #[test]
    fn handshakes_under_way_have_a_limit_per_source() {
        let config = Config { pending_per_source: 1, ..Config::default() };
        let mut relay = Relay::new(config);
        relay.state.register(relay.now, registration("a", 1, Some(10080))).unwrap();
        assert_opened(&relay.pick(0, 1));
        assert_refused(&relay.pick(1, 2), Rejection::Overload);
        relay.established(0, 1);
        assert_opened(&relay.pick(1, 3));
        relay.ended(1, 3, EndReason::RefusedByOrigin(1010));
        assert_opened(&relay.pick(1, 4));
    }

    #[test]
    fn a_draining_relay_refuses_newcomers_and_still_takes_registrations() {
        let mut relay = Relay::with_origin();
        relay.state.quit(relay.now);
        assert!(matches!(relay.commands(1)[..], [Command::Drain(true)]));
        relay.commands(0);
        assert_refused(&relay.pick(0, 1), Rejection::Close);
        assert_eq!(relay.state.register(relay.now, registration("b", 2, Some(1))), Ok(()));
        assert_eq!(relay.state.readiness(relay.now), Readiness::Quitting);
    }

    #[test]
    fn an_operators_drain_refuses_newcomers_until_it_is_taken_back() {
        let mut relay = Relay::with_origin();
        relay.pick(0, 1);
        assert!(relay.state.begin_drain(relay.now, Goal::default()));
        assert_eq!(relay.state.readiness(relay.now), Readiness::Draining);
        for shard in 0..2 {
            assert!(matches!(relay.commands(shard)[..], [Command::Drain(true)]));
        }
        assert_refused(&relay.pick(0, 2), Rejection::Close);
        assert!(relay.state.end_drain());
        for shard in 0..2 {
            assert!(matches!(relay.commands(shard)[..], [Command::Drain(false)]));
        }
        assert_opened(&relay.pick(0, 3));
        assert_eq!(relay.state.readiness(relay.now), Readiness::Ready { origins_up: 1 });
    }

    #[test]
    fn a_relay_that_is_drained_stays() {
        let mut relay = Relay::with_origin();
        relay.pick(0, 1);
        relay.state.begin_drain(relay.now, Goal::default());
        relay.commands(0);
        relay.ended(0, 1, EndReason::ClientShutdown);
        relay.state.advance(relay.now);
        let service = relay.state.service(relay.now);
        assert!(service.drain.unwrap().is_drained, "{service:?}");
        assert_eq!(service.sessions, 0);
        assert!(relay.commands(0).is_empty());
        assert!(!relay.state.is_stopped());
    }

    #[test]
    fn a_drain_without_sessions_is_over_as_soon_as_it_begins() {
        let mut relay = Relay::with_origin();
        relay.state.begin_drain(relay.now, Goal::default());
        assert!(relay.state.service(relay.now).drain.unwrap().is_drained);
    }

    #[test]
    fn the_deadline_of_a_drain_wakes_control() {
        let mut relay = Relay::with_origin();
        relay.pick(0, 1);
        let deadline = Some(Duration::from_secs(5));
        relay.state.begin_drain(relay.now, Goal { deadline, ..Goal::default() });
        assert_eq!(relay.state.deadline(relay.now), Some(relay.now + Duration::from_secs(5)));
        relay.now += Duration::from_secs(5);
        relay.state.advance(relay.now);
        assert_eq!(relay.state.deadline(relay.now), None);
    }

    #[test]
    fn a_drained_relay_quits_as_any_other_and_can_no_longer_be_undrained() {
        let mut relay = Relay::with_origin();
        relay.pick(0, 1);
        relay.state.begin_drain(relay.now, Goal::default());
        relay.commands(0);
        relay.state.quit(relay.now);
        assert_eq!(relay.state.readiness(relay.now), Readiness::Quitting);
        assert!(!relay.state.end_drain());
        assert!(!relay.state.begin_drain(relay.now, Goal::default()));
        relay.ended(0, 1, EndReason::ClientShutdown);
        relay.state.advance(relay.now);
        let told = relay.commands(0);
        assert!(matches!(told[..], [Command::Drain(true), .., Command::CloseAll]), "{told:?}");
    }

    #[test]
    fn the_relay_quits_when_the_last_session_has_ended_and_every_shard_is_empty() {
        let mut relay = Relay::with_origin();
        relay.pick(0, 1);
        relay.state.quit(relay.now);
        relay.state.advance(relay.now);
        assert!(matches!(relay.commands(0)[..], [Command::Drain(true)]));
        relay.ended(0, 1, EndReason::ClientShutdown);
        relay.state.advance(relay.now);
        assert!(matches!(relay.commands(0)[..], [Command::Drain(true), Command::CloseAll]));
        relay.event(0, Event::Emptied);
        relay.state.advance(relay.now);
        assert!(!relay.state.is_stopped());
        relay.event(1, Event::Emptied);
        relay.state.advance(relay.now);
        assert!(relay.state.is_stopped());
        assert!(matches!(relay.commands(0)[..], [Command::Stop]));
    }

    #[test]
    fn the_longest_key_of_the_live_origins_is_told_to_all_shards_once() {
        let mut relay = Relay::with_origin();
        relay.state.register(relay.now, registration("b", 2, Some(10080))).unwrap();
        let due = relay.state.take_due_probes(relay.now, 9);
        assert_eq!(due.len(), 2);
        relay.state.probed(relay.now, due[0].0, Some(16));
        relay.state.probed(relay.now, due[1].0, Some(32));
        relay.state.tick(relay.now);
        for shard in 0..2 {
            let told = relay.commands(shard);
            assert!(
                matches!(told[..], [Command::KeyLength(16), Command::KeyLength(32)]),
                "{told:?}"
            );
        }
    }

    #[test]
    fn a_configured_key_length_needs_no_questions() {
        let config = Config { srt_key_length: KeyLength::Bytes(32), ..Config::default() };
        let mut relay = Relay::new(config);
        relay.state.register(relay.now, registration("a", 1, Some(10080))).unwrap();
        assert!(relay.state.take_due_probes(relay.now, 9).is_empty());
    }

    #[test]
    fn only_a_session_that_lives_can_be_closed() {
        let mut relay = Relay::with_origin();
        relay.pick(0, 1);
        assert!(!relay.state.close(relay.now, session(2).into()));
        assert!(relay.state.close(relay.now, session(1).into()));
        let told = relay.commands(0);
        assert!(matches!(told[..], [Command::Close { reason: EndReason::Operator, .. }]));
    }

    #[test]
    fn streams_in_use_are_shown_before_idle_ones() {
        let mut relay = Relay::with_origin();
        for (slot, path) in [(1, "live/a"), (2, "live/b"), (3, "live/c")] {
            relay.event(0, Event::Pick(Box::new(request(slot, path, Role::Publish))));
        }
        relay.ended(0, 1, EndReason::ClientShutdown);
        relay.ended(0, 3, EndReason::ClientShutdown);
        let (streams, total) = relay.state.streams(relay.now, 1);
        assert_eq!((streams.len(), total), (1, 3));
        let shown = serde_json::to_value(&streams[0]).unwrap();
        assert_eq!(shown["stream"], stream("live/b").as_str());
    }

    #[test]
    fn a_session_that_finds_nobody_at_its_origin_sends_the_next_one_elsewhere() {
        let mut relay = Relay::with_origin();
        relay.state.register(relay.now, registration("b", 2, Some(10080))).unwrap();
        let Command::Open { origin: first, .. } = relay.pick(0, 1) else { panic!("not opened") };
        relay.ended(0, 1, EndReason::Refused(Rejection::BadGateway));
        let Command::Open { origin: second, .. } = relay.pick(0, 2) else { panic!("not opened") };
        assert_ne!(first, second);
        let up: Vec<_> = relay.state.snapshot(relay.now, relay.now).origins;
        assert_eq!(up.iter().filter(|(_, is_up)| *is_up).count(), 1);
    }

    #[test]
    fn what_an_origin_refuses_is_nothing_against_it() {
        let mut relay = Relay::with_origin();
        relay.pick(0, 1);
        relay.ended(0, 1, EndReason::RefusedByOrigin(1010));
        assert_eq!(relay.state.readiness(relay.now), Readiness::Ready { origins_up: 1 });
    }

    #[test]
    fn a_relay_whose_origins_all_fail_is_degraded_until_one_answers() {
        let mut relay = Relay::with_origin();
        relay.pick(0, 1);
        relay.ended(0, 1, EndReason::Refused(Rejection::BadGateway));
        assert_eq!(relay.state.readiness(relay.now), Readiness::Degraded { origins_failing: 1 });
        assert_opened(&relay.pick(0, 2));
        relay.established(0, 2);
        assert_eq!(relay.state.readiness(relay.now), Readiness::Ready { origins_up: 1 });
    }

    #[test]
    fn readiness_needs_a_live_origin() {
        let mut relay = Relay::with_origin();
        assert_eq!(relay.state.readiness(relay.now), Readiness::Ready { origins_up: 1 });
        relay.now += Config::default().origin_ttl;
        assert_eq!(relay.state.readiness(relay.now), Readiness::NoOrigin);
    }
}
