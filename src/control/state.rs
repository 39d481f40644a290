//! Everything that control owns, and the one place that changes it.
//!
//! One task holds a [`State`]. Events of the shards and questions of the HTTP tasks come to it as
//! messages, so nothing here is shared or locked, and nothing here waits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ShardLink;
use super::admission::{Admission, Limits};
use super::ask::{Ask, Page, Readiness};
use super::balancer::{Balancer, Pick};
use super::directory::{Directory, SessionRef};
use super::key_length::{Advertised, advertised};
use super::origin::{Change, Conflict};
use super::quit::{Quit, Step};
use super::registration::Registration;
use super::shards::Shards;
use super::view::{OriginEntry, SessionEntry, StreamEntry};
use crate::config::{BalancerChoice, Config, KeyLength};
use crate::protocol::srt::Rejection;
use crate::shard::OriginId;
use crate::shard::command::{
    Command, EndReason, Event, FromShard, PickRequest, SessionView, Traffic,
};
use crate::telemetry::log::Throttle;
use crate::telemetry::metrics::{SetupTimes, ShardSnapshot, Snapshot, cpu_seconds};

/// Control's state.
pub(super) struct State {
    directory: Directory,
    balancer: Balancer,
    admission: Admission,
    shards: Shards,
    quit: Quit,
    setup: SetupTimes,
    throttle: Throttle,
    srt_key_length: KeyLength,
    /// What the shards were told last.
    advertised: Option<Advertised>,
    engine: &'static str,
    is_stopped: bool,
}

/// Why control refuses a session.
struct Refusal {
    rejection: Rejection,
    /// For the log.
    cause: &'static str,
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
            shards: Shards::new(shards),
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
            Event::Expected { .. }
            | Event::Path(_)
            | Event::Yielded { .. }
            | Event::Candidate { .. }
            | Event::Validated { .. }
            | Event::RtcEnded { .. } => {}
            Event::Emptied => self.shards.emptied(shard),
            Event::Failed => self.shard_failed(now, shard),
        }
    }

    /// The clients of a shard that is gone would send into nothing: a process that ends is started again.
    fn shard_failed(&mut self, now: Instant, shard: u16) {
        tracing::error!(shard, "a shard has failed: the relay quits");
        self.quit_now(now);
    }

    fn pick(&mut self, now: Instant, shard: u16, request: &PickRequest) {
        let session = request.session;
        let id = SessionRef { shard, key: session };
        if self.directory.session(id).is_some() {
            // A shard asks once for each session, and a second answer must not count it twice.
            return;
        }
        let command = match self.decide(now, request) {
            Ok(Pick { origin, address }) => {
                self.directory.open(now, id, request, origin);
                Command::Open { session, origin, address }
            }
            Err(Refusal { rejection, cause }) => {
                if let Some(held_back) = self.throttle.pass(now, cause) {
                    let PickRequest { client, stream, .. } = request;
                    let (code, reason) = (rejection.wire(), rejection.label());
                    tracing::warn!(
                        %client, %stream, reason, code, cause, held_back,
                        "session refused"
                    );
                }
                Command::Refuse { session, rejection }
            }
        };
        self.shards.tell(shard, command);
    }

    fn decide(&mut self, now: Instant, request: &PickRequest) -> Result<Pick, Refusal> {
        if self.quit.is_draining() {
            return Err(Refusal { rejection: Rejection::Close, cause: "draining" });
        }
        let pick = self.balancer.pick(&self.directory, now, request).ok_or(Refusal {
            rejection: Rejection::Unavailable,
            cause: "no live origin with SRT",
        })?;
        match self.admission.admit(now, request.client.ip()) {
            Ok(()) => Ok(pick),
            Err(limit) => Err(Refusal { rejection: Rejection::Overload, cause: limit.label() }),
        }
    }

    fn established(&mut self, id: SessionRef, setup: Duration) {
        let Some(session) = self.directory.established(id) else {
            return;
        };
        let (client, stream, role) = (session.client, session.stream.clone(), session.role.label());
        let origin = session.origin;
        self.admission.established(client.ip());
        self.setup.observe(setup);
        if self.directory.origin_succeeded(origin) {
            tracing::info!(origin = self.origin_name(origin), "origin answers again");
        }
        let origin = self.origin_name(origin);
        let setup_ms = millis(setup);
        tracing::info!(session = %id, role, %stream, %client, origin, setup_ms, "session started");
    }

    fn ended(
        &mut self,
        now: Instant,
        id: SessionRef,
        reason: EndReason,
        traffic: Traffic,
        age: Duration,
    ) {
        let Some(session) = self.directory.close(now, id) else {
            return;
        };
        let (client, stream, role) = (session.client, &session.stream, session.role.label());
        self.admission.ended(client.ip(), session.is_established);
        if reason == EndReason::Refused(Rejection::BadGateway) {
            self.origin_failed(now, session.origin);
        }
        let code = match reason {
            EndReason::RefusedByOrigin(wire) => Some(wire),
            EndReason::Refused(rejection) => Some(rejection.wire()),
            EndReason::ClientShutdown
            | EndReason::OriginShutdown
            | EndReason::ClientIdle
            | EndReason::OriginIdle
            | EndReason::OriginGone
            | EndReason::Superseded
            | EndReason::PendingOverflow
            | EndReason::DtlsClosed
            | EndReason::Deleted
            | EndReason::NeverValidated
            | EndReason::Operator
            | EndReason::Quit => None,
        };
        let reason = reason.label();
        if session.is_established {
            let Traffic { client_in, client_out, origin_in, origin_out } = traffic;
            let origin = self.origin_name(session.origin);
            tracing::info!(
                session = %id, role, %stream, %client, origin, reason,
                age_ms = millis(age),
                client_in_packets = client_in.packets, client_in_bytes = client_in.bytes,
                client_out_packets = client_out.packets, client_out_bytes = client_out.bytes,
                origin_in_packets = origin_in.packets, origin_in_bytes = origin_in.bytes,
                origin_out_packets = origin_out.packets, origin_out_bytes = origin_out.bytes,
                "session ended"
            );
        } else if let Some(held_back) = self.throttle.pass(now, reason) {
            let origin = self.origin_name(session.origin);
            tracing::warn!(
                session = %id, role, %stream, %client, origin, reason, code, held_back,
                "session not established"
            );
        }
    }

    /// A session found nobody at its origin.
    fn origin_failed(&mut self, now: Instant, origin: OriginId) {
        let Some(avoided) = self.directory.origin_failed(now, origin) else {
            return;
        };
        tracing::warn!(
            origin = self.origin_name(origin),
            seconds = avoided.as_secs(),
            "origin failing: it does not answer handshakes, and new streams avoid it"
        );
    }

    fn show_sessions(
        &mut self,
        now: Instant,
        shard: u16,
        request: u64,
        views: &[SessionView],
        next_slot: Option<u32>,
    ) {
        let Some(reply) = self.shards.take_sessions_question(request) else {
            return;
        };
        let directory = &mut self.directory;
        let sessions =
            views.iter().map(|view| SessionEntry::new(now, shard, view, directory)).collect();
        // Whoever asked may have given up.
        let _ = reply.send(Page { sessions, next_slot });
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
            Ask::Offer { .. }
            | Ask::Expect { .. }
            | Ask::Publish { .. }
            | Ask::Resource { .. }
            | Ask::Abandon { .. }
            | Ask::Finish { .. } => {}
            Ask::Close { session, reply } => {
                let _ = reply.send(self.close(session));
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
        let srt = self.directory.origin(id).and_then(|origin| origin.srt_address());
        let srt = srt.map(tracing::field::display);
        tracing::info!(origin = self.origin_name(id), server, %ip, srt, "origin {change}");
        Ok(())
    }

    fn streams(&self, now: Instant, limit: usize) -> (Vec<StreamEntry>, usize) {
        let entry = |(key, stream)| StreamEntry::new(now, key, stream, &self.directory);
        let streams = self.directory.streams().take(limit).map(entry).collect();
        (streams, self.directory.streams_count())
    }

    fn close(&mut self, session: SessionRef) -> bool {
        let is_known = self.directory.session(session).is_some();
        if is_known {
            let SessionRef { shard, key } = session;
            let reason = EndReason::Operator;
            self.shards.tell(shard, Command::Close { session: key, reason });
        }
        is_known
    }

    fn snapshot(&self, now: Instant, since: Instant) -> Snapshot {
        let shards = self.shards.counters(since).map(|(counters, tid, is_up)| ShardSnapshot {
            counters: counters.clone(),
            is_up,
            cpu_seconds: thread_cpu_seconds(tid),
        });
        let origins = self
            .directory
            .origins()
            .map(|origin| (origin.name().to_owned(), self.directory.is_healthy(origin, now)));
        Snapshot {
            shards: shards.collect(),
            origins: origins.collect(),
            setup: self.setup.clone(),
            version: env!("CARGO_PKG_VERSION"),
            engine: self.engine,
        }
    }

    fn readiness(&self, now: Instant) -> Readiness {
        let live =
            self.directory.origins().filter(|origin| self.directory.is_alive(origin, now)).count();
        let up = self
            .directory
            .origins()
            .filter(|origin| self.directory.is_healthy(origin, now))
            .count();
        match (live, up) {
            _ if self.quit.is_draining() => Readiness::Draining,
            (0, _) => Readiness::NoOrigin,
            (origins_failing, 0) => Readiness::Degraded { origins_failing },
            (_, origins_up) => Readiness::Ready { origins_up },
        }
    }

    /// What a second's passing brings about.
    pub(super) fn tick(&mut self, now: Instant) {
        for name in self.directory.expire(now) {
            tracing::warn!(origin = name, "origin expired: its heartbeat has stopped");
        }
        self.admission.sweep(now);
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

    /// Asked to quit: gently the first time, at once the second.
    pub(super) fn quit(&mut self, now: Instant) {
        let step = self.quit.ask(now);
        self.take_step(step);
    }

    /// Asked to quit at once.
    pub(super) fn quit_now(&mut self, now: Instant) {
        let step = self.quit.ask_now(now);
        self.take_step(step);
    }

    /// Moves on what waited for room, for the last session or for time.
    pub(super) fn advance(&mut self, now: Instant) {
        self.shards.flush();
        let sessions = self.directory.sessions_count();
        let step = self.quit.advance(now, sessions, self.shards.are_empty());
        self.take_step(step);
    }

    fn take_step(&mut self, step: Option<Step>) {
        let sessions = self.directory.sessions_count();
        match step {
            Some(Step::Drain) => {
                tracing::info!(sessions, "quitting: new sessions are refused, live ones may end");
                self.shards.tell_all(|| Command::Drain(true));
            }
            Some(Step::CloseAll) => {
                tracing::info!(sessions, "quitting: the sessions that are left are ended");
                // The shards must also refuse who comes after the goodbyes.
                self.shards.tell_all(|| Command::Drain(true));
                self.shards.tell_all(|| Command::CloseAll);
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
        [retry_at, self.quit.deadline()].into_iter().flatten().min()
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

/// Reading it costs some microseconds and never waits: procfs makes it up on the spot.
fn thread_cpu_seconds(tid: i32) -> Option<f64> {
    cpu_seconds(&std::fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).ok()?)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How soon a full mailbox is tried again: nobody tells when it has room.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::directory::fixtures::{registration, request, session, stream};
    use crate::mailbox::{Mailbox, mailbox};
    use crate::shard::SessionKey;
    use crate::shard::command::{Flow, Role};

    struct Relay {
        state: State,
        shards: Vec<Mailbox<Command>>,
        now: Instant,
    }

    impl Relay {
        fn new(config: Config) -> Self {
            let (posts, shards): (Vec<_>, Vec<_>) = (0..2).map(|_| mailbox(64).unwrap()).unzip();
            let links = posts.into_iter().map(|post| ShardLink { post, cpu: None, tid: 0 });
            let now = Instant::now();
            let config = Arc::new(config);
            let state = State::new(now, &config, links.collect(), "mmsg", 4);
            Self { state, shards, now }
        }

        fn with_origin() -> Self {
            let mut relay = Self::new(Config::default());
            relay.state.register(relay.now, registration("a", 1, Some(10080))).unwrap();
            relay
        }

        fn event(&mut self, shard: u16, event: Event) {
            self.state.handle_event(self.now, FromShard { shard, event });
        }

        fn pick(&mut self, shard: u16, slot: u32) -> Command {
            self.event(shard, Event::Pick(Box::new(request(slot, "live/a", Role::Publish))));
            self.shards[usize::from(shard)].take().unwrap()
        }

        fn established(&mut self, shard: u16, slot: u32) {
            let setup = Duration::from_millis(9);
            self.event(shard, Event::Established { session: session(slot).key, setup });
        }

        fn ended(&mut self, shard: u16, slot: u32, reason: EndReason) {
            let traffic =
                Traffic { client_in: Flow { packets: 1, bytes: 9 }, ..Traffic::default() };
            let session = session(slot).key;
            self.event(shard, Event::Ended { session, reason, traffic, age: Duration::ZERO });
        }

        fn commands(&self, shard: usize) -> Vec<Command> {
            std::iter::from_fn(|| self.shards[shard].take()).collect()
        }
    }

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
        assert_eq!(relay.state.readiness(relay.now), Readiness::Draining);
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
        assert!(!relay.state.close(session(2)));
        assert!(relay.state.close(session(1)));
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

    #[test]
    fn the_cpu_time_of_this_thread_can_be_read() {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        assert!(thread_cpu_seconds(tid).unwrap() >= 0.0);
        assert_eq!(thread_cpu_seconds(0), None);
    }
}
