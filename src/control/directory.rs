//! What control knows: origins, the streams that are mapped to them, and the sessions of all
//! shards.
//!
//! A mapping holds an origin's number and never a copy of the origin, so that an origin that comes
//! back with a new process keeps its streams. No I/O here; the clock is an argument.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::health::Health;
use super::origin::{Change, Conflict, Lifetime, ORIGINS_MAX, Origin, Seen};
use super::registration::{Endpoint, Endpoints, Registration};
use crate::config::StaticOrigin;
use crate::protocol::srt::handshake::GroupId;
use crate::protocol::stream_url::StreamKey;
use crate::shard::command::{PickRequest, Role, Traffic};
use crate::shard::{OriginId, SessionKey};

/// Origins, streams and sessions.
pub struct Directory {
    origins: BTreeMap<OriginId, Origin>,
    /// Numbers are never given twice: a stale mapping must not name a stranger.
    next_origin: u32,
    origin_ttl: Duration,
    streams: HashMap<Rc<StreamKey>, Stream>,
    /// The streams with a session: few, where `streams` may be a million.
    in_use: HashSet<Rc<StreamKey>>,
    /// The streams without a session, by when they are forgotten.
    idle: BTreeSet<(Instant, Rc<StreamKey>)>,
    streams_max: usize,
    sessions: HashMap<SessionRef, Session>,
    /// Bonding groups with a session, and how many they have.
    groups: HashMap<GroupId, (OriginId, u32)>,
    /// Origins to be asked for their key length, by when.
    probes: BTreeSet<(Instant, OriginId)>,
}

impl Directory {
    /// A directory of `origins` that never expire.
    pub fn new(now: Instant, origins: &[StaticOrigin], origin_ttl: Duration) -> Self {
        let mut directory = Self {
            origins: BTreeMap::new(),
            next_origin: 0,
            origin_ttl,
            streams: HashMap::new(),
            in_use: HashSet::new(),
            idle: BTreeSet::new(),
            streams_max: STREAMS_MAX,
            sessions: HashMap::new(),
            groups: HashMap::new(),
            probes: BTreeSet::new(),
        };
        for origin in origins {
            let one = |port: Option<u16>| port.and_then(endpoint).into_iter().collect();
            let endpoints = Endpoints {
                srt: one(origin.srt),
                rtc: one(origin.rtc),
                api: one(origin.api),
                ..Endpoints::default()
            };
            directory.add(now, origin.ip, endpoints, Lifetime::Static, &origin.name);
        }
        directory
    }

    /// Takes a registration or a heartbeat, which look the same.
    ///
    /// # Errors
    /// See [`Conflict`].
    pub fn register(
        &mut self,
        now: Instant,
        registration: Registration,
    ) -> Result<(OriginId, Change), Conflict> {
        let Registration { ip, server, service, pid, device_id, endpoints } = registration;
        let seen = Seen { server, service, pid, last: now };
        if let Some(id) = self.registered(&seen.server, ip, &endpoints) {
            return Ok((id, self.renew(now, id, seen)));
        }
        let older = self.origins.values().find(|origin| {
            let is_namesake = origin.seen().is_some_and(|older| older.server == seen.server);
            is_namesake && origin.ip != ip && self.is_alive(origin, now)
        });
        if let Some(older) = older {
            return Err(Conflict::ServerLives { server: seen.server, ip: older.ip });
        }
        if self.origins.len() >= ORIGINS_MAX {
            return Err(Conflict::Full);
        }
        let label = device_id.unwrap_or_else(|| seen.server.clone());
        let lifetime = Lifetime::Registered(seen);
        Ok((self.add(now, ip, endpoints, lifetime, &label), Change::New))
    }

    fn registered(&self, server: &str, ip: IpAddr, endpoints: &Endpoints) -> Option<OriginId> {
        let same = |origin: &&Origin| {
            origin.seen().is_some_and(|seen| seen.server == server)
                && origin.ip == ip
                && origin.endpoints == *endpoints
        };
        self.origins.values().find(same).map(|origin| origin.id)
    }

    fn renew(&mut self, now: Instant, id: OriginId, seen: Seen) -> Change {
        let ttl = self.origin_ttl;
        let Some(origin) = self.origins.get_mut(&id) else {
            return Change::Heartbeat;
        };
        let Lifetime::Registered(older) = &mut origin.lifetime else {
            return Change::Heartbeat;
        };
        let change = if older.service != seen.service || older.pid != seen.pid {
            Change::Restarted
        } else if now >= older.last + ttl {
            Change::Returned
        } else {
            Change::Heartbeat
        };
        *older = seen;
        origin.is_expired = false;
        if change != Change::Heartbeat {
            // What is known of the process before says nothing of this one.
            origin.health = Health::default();
        }
        if change != Change::Heartbeat || origin.key_length.is_none() {
            self.probe_at(now, id);
        }
        change
    }

    fn add(
        &mut self,
        now: Instant,
        ip: IpAddr,
        endpoints: Endpoints,
        lifetime: Lifetime,
        label: &str,
    ) -> OriginId {
        let id = OriginId(self.next_origin);
        self.next_origin += 1;
        let ip = ip.to_canonical();
        let is_taken = |name: &str| self.origins.values().any(|origin| origin.name == name);
        let port = endpoints.srt_port().or_else(|| Some(endpoints.rtmp.first()?.port.get()));
        let address = SocketAddr::new(ip, port.unwrap_or(0));
        // Two origins on one host may say the same of themselves, and names tell them apart in logs
        // and metrics.
        let name = [label.to_owned(), format!("{label}@{address}")]
            .into_iter()
            .find(|name| !is_taken(name))
            .unwrap_or_else(|| format!("{label}@{address}#{}", id.0));
        let origin = Origin {
            id,
            name,
            ip,
            endpoints,
            lifetime,
            is_expired: false,
            sessions: 0,
            key_length: None,
            health: Health::default(),
        };
        self.origins.insert(id, origin);
        self.probe_at(now, id);
        id
    }

    /// Where the members of a bonding group are, while there are any.
    pub fn origin_of_group(&self, group: GroupId) -> Option<OriginId> {
        self.groups.get(&group).map(|&(origin, _)| origin)
    }

    /// One origin, also an expired one that sessions are still with.
    pub fn origin(&self, id: OriginId) -> Option<&Origin> {
        self.origins.get(&id)
    }

    /// All origins, the oldest first.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.origins.values()
    }

    /// Whether new streams may go to `origin`.
    pub fn is_alive(&self, origin: &Origin, now: Instant) -> bool {
        origin.is_alive(now, self.origin_ttl)
    }

    /// Whether new streams do go to `origin`: it lives, and the last who tried it were answered.
    pub fn is_healthy(&self, origin: &Origin, now: Instant) -> bool {
        self.is_alive(origin, now) && !origin.is_failing(now)
    }

    /// At most `limit` live origins that are to be asked for their key length now. Each is given
    /// out once until [`Self::probed`]; an expired one not before it returns.
    pub fn take_due_probes(&mut self, now: Instant, limit: usize) -> Vec<(OriginId, SocketAddr)> {
        let mut due = Vec::new();
        while due.len() < limit && self.probes.first().is_some_and(|(at, _)| *at <= now) {
            let origin = self.probes.pop_first().and_then(|(_, id)| self.origins.get(&id));
            let live = origin.filter(|origin| self.is_alive(origin, now));
            due.extend(live.and_then(|origin| Some((origin.id, origin.srt_address()?))));
        }
        due
    }

    /// Notes the key length, in bytes, that the origin answered. It is asked again later, answer
    /// or none: a configured origin does not tell when it has been restarted with another.
    pub fn probed(&mut self, now: Instant, id: OriginId, answer: Option<u8>) {
        let Some(origin) = self.origins.get_mut(&id) else {
            return;
        };
        origin.key_length = answer.or(origin.key_length);
        self.probe_at(now + PROBE_INTERVAL, id);
    }

    /// An origin has one turn, whoever wants it asked.
    fn probe_at(&mut self, at: Instant, id: OriginId) {
        self.probes.retain(|(_, other)| *other != id);
        self.probes.insert((at, id));
    }

    /// Notes that a session found nobody at the origin. Returns for how long new streams avoid it,
    /// where that is news.
    pub fn origin_failed(&mut self, now: Instant, id: OriginId) -> Option<Duration> {
        self.origins.get_mut(&id)?.health.failed(now)
    }

    /// Notes that the origin took a session. Returns whether it had failed before.
    pub fn origin_succeeded(&mut self, id: OriginId) -> bool {
        self.origins.get_mut(&id).is_some_and(|origin| origin.health.succeeded())
    }

    /// Forgets origins without a heartbeat and streams without a session whose time has come.
    /// Returns the names of the origins that expired since the last call.
    pub fn expire(&mut self, now: Instant) -> Vec<String> {
        let mut expired = Vec::new();
        let ttl = self.origin_ttl;
        self.origins.retain(|_, origin| {
            if origin.is_alive(now, ttl) {
                return true;
            }
            if !std::mem::replace(&mut origin.is_expired, true) {
                expired.push(origin.name.clone());
            }
            origin.sessions > 0
        });
        for _ in 0..EXPIRIES_MAX {
            match self.idle.first() {
                Some((due, _)) if *due <= now => self.forget_first_idle(),
                _ => break,
            }
        }
        expired
    }

    /// The stream, where it is mapped to an origin.
    pub fn stream(&self, key: &StreamKey) -> Option<&Stream> {
        self.streams.get(key)
    }

    /// All streams that are mapped: those in use in no order, then the others, the one that is
    /// forgotten last first. What is not taken costs nothing.
    pub fn streams(&self) -> impl Iterator<Item = (&StreamKey, &Stream)> {
        let idle = self.idle.iter().rev().map(|(_, key)| key);
        let keys = self.in_use.iter().chain(idle);
        keys.filter_map(|key| Some((&**key, self.streams.get(key)?)))
    }

    /// How many streams are mapped.
    pub fn streams_count(&self) -> usize {
        self.streams.len()
    }

    /// Notes a session with `origin`, and the origin as the one of its stream.
    pub fn open(&mut self, now: Instant, id: SessionRef, request: &PickRequest, origin: OriginId) {
        let key = match self.streams.get_key_value(&request.stream) {
            Some((key, _)) => Rc::clone(key),
            None => Rc::new(request.stream.clone()),
        };
        let session = Session {
            stream: Rc::clone(&key),
            role: request.role,
            client: request.client,
            group: request.group,
            origin,
            is_established: false,
            look: None,
        };
        let replaced = self.sessions.insert(id, session);
        debug_assert!(replaced.is_none(), "a shard's key names one session in the process's life");
        if let Some(origin) = self.origins.get_mut(&origin) {
            origin.sessions += 1;
        }
        if let Some(group) = request.group {
            self.groups.entry(group).or_insert((origin, 0)).1 += 1;
        }
        if !self.streams.contains_key(&key) && self.streams.len() >= self.streams_max {
            self.forget_first_idle();
        }
        let stream =
            self.streams.entry(Rc::clone(&key)).or_insert_with(|| Stream::new(origin, now));
        if let Some(due) = stream.forget_at.take() {
            self.idle.remove(&(due, Rc::clone(&key)));
        }
        self.in_use.insert(key);
        stream.origin = origin;
        stream.last_used = now;
        match request.role {
            Role::Publish => {
                stream.publishers += 1;
                stream.was_published = true;
            }
            Role::Play => stream.players += 1,
        }
    }

    /// Notes that the client has been told; `None` when the session is unknown or this was known.
    ///
    /// Attempts of one stream may be under way with two origins, when the first of them began to
    /// fail in between. The stream is where the first of them succeeds.
    pub fn established(&mut self, id: SessionRef) -> Option<&Session> {
        let session = self.sessions.get_mut(&id)?;
        if std::mem::replace(&mut session.is_established, true) {
            return None;
        }
        if let Some(stream) = self.streams.get_mut(&session.stream) {
            if stream.established == 0 {
                stream.origin = session.origin;
            }
            stream.established += 1;
        }
        Some(session)
    }

    /// Forgets a session and gives it back. Does nothing the second time.
    pub fn close(&mut self, now: Instant, id: SessionRef) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        if let Some(origin) = self.origins.get_mut(&session.origin) {
            origin.sessions = origin.sessions.saturating_sub(1);
        }
        if let Some(group) = session.group
            && let Entry::Occupied(mut members) = self.groups.entry(group)
        {
            members.get_mut().1 -= 1;
            if members.get().1 == 0 {
                members.remove();
            }
        }
        if let Some(stream) = self.streams.get_mut(&session.stream) {
            match session.role {
                Role::Publish => stream.publishers = stream.publishers.saturating_sub(1),
                Role::Play => stream.players = stream.players.saturating_sub(1),
            }
            if session.is_established {
                stream.established = stream.established.saturating_sub(1);
            }
            stream.last_used = now;
            if stream.is_idle() {
                self.in_use.remove(&session.stream);
                let due = now + stream.idle_ttl();
                stream.forget_at = Some(due);
                self.idle.insert((due, Rc::clone(&session.stream)));
            }
        }
        Some(session)
    }

    /// A session that was picked for and has not ended.
    pub fn session(&self, id: SessionRef) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// The same, to note a look at its traffic.
    pub fn session_mut(&mut self, id: SessionRef) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    /// Sessions of all shards.
    pub fn sessions_count(&self) -> usize {
        self.sessions.len()
    }

    fn forget_first_idle(&mut self) {
        if let Some((_, key)) = self.idle.pop_first() {
            self.streams.remove(&key);
        }
    }
}

/// A stream and the origin that it is mapped to.
#[derive(Clone, Debug)]
pub struct Stream {
    origin: OriginId,
    publishers: u32,
    players: u32,
    /// Of both, those that media may flow in.
    established: u32,
    last_used: Instant,
    was_published: bool,
    /// Set while no session is left: its key in the queue of idle streams.
    forget_at: Option<Instant>,
}

impl Stream {
    fn new(origin: OriginId, now: Instant) -> Self {
        Self {
            origin,
            publishers: 0,
            players: 0,
            established: 0,
            last_used: now,
            was_published: false,
            forget_at: None,
        }
    }

    /// Where its sessions go.
    pub fn origin(&self) -> OriginId {
        self.origin
    }

    /// Sessions that send.
    pub fn publishers(&self) -> u32 {
        self.publishers
    }

    /// Sessions that receive.
    pub fn players(&self) -> u32 {
        self.players
    }

    /// When a session of it began or ended last.
    pub fn last_used(&self) -> Instant {
        self.last_used
    }

    /// Whether media may flow in any session of it.
    pub fn is_established(&self) -> bool {
        self.established > 0
    }

    /// Whether no session of it is left.
    pub fn is_idle(&self) -> bool {
        self.publishers == 0 && self.players == 0
    }

    /// A player may ask for anything, so what only players asked for is forgotten soon.
    fn idle_ttl(&self) -> Duration {
        if self.was_published { PUBLISHED_IDLE_TTL } else { PLAYED_IDLE_TTL }
    }
}

/// A session of any shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionRef {
    /// Index of the shard.
    pub shard: u16,
    /// Which of its sessions.
    pub key: SessionKey,
}

impl SessionRef {
    /// Reads what `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('-').map(|number| {
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| number.parse::<u32>().ok()).flatten()
        });
        let (shard, slot, generation) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let shard = u16::try_from(shard).ok()?;
        numbers.next().is_none().then_some(Self { shard, key: SessionKey { slot, generation } })
    }
}

impl std::fmt::Display for SessionRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.shard, self.key)
    }
}

/// What control knows of a session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Which stream.
    pub stream: Rc<StreamKey>,
    /// Publisher or player.
    pub role: Role,
    /// The client's proven address.
    pub client: SocketAddr,
    /// The caller's bonding group.
    pub group: Option<GroupId>,
    /// Chosen once.
    pub origin: OriginId,
    /// Whether the client has been told that it is connected.
    pub is_established: bool,
    /// The last look at its traffic, for bit rates.
    pub look: Option<Look>,
}

/// Traffic at a moment, and how fast it was until then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// When.
    pub at: Instant,
    /// Totals.
    pub traffic: Traffic,
    /// Bits per second, in the order of [`Traffic`].
    pub rates: [u64; 4],
}

fn endpoint(port: u16) -> Option<Endpoint> {
    Some(Endpoint { scheme: None, port: NonZeroU16::new(port)? })
}

/// Streams. Above it the one that would be forgotten first gives way to a new one.
const STREAMS_MAX: usize = 1_000_000;
/// How long a stream that had a publisher keeps its origin when no session is left.
const PUBLISHED_IDLE_TTL: Duration = Duration::from_secs(600);
/// The same for a stream that only players have asked for.
const PLAYED_IDLE_TTL: Duration = Duration::from_secs(30);
/// Until an origin is asked for its key length again.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// Streams forgotten by one call, which keeps it under a few milliseconds.
const EXPIRIES_MAX: usize = 10_000;

/// What the tests of control's modules build their directories from.
#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;
    use crate::protocol::stream_url::DEFAULT_VHOST;

    pub(crate) const TTL: Duration = Duration::from_secs(300);

    pub(crate) fn directory() -> Directory {
        Directory::new(Instant::now(), &[], TTL)
    }

    pub(crate) fn stream(path: &str) -> StreamKey {
        StreamKey::canonical(DEFAULT_VHOST, path).unwrap()
    }

    pub(crate) fn registration(server: &str, host: u8, srt: Option<u16>) -> Registration {
        Registration {
            ip: IpAddr::from([10, 0, 0, host]),
            server: server.to_owned(),
            service: "service".to_owned(),
            pid: "1".to_owned(),
            device_id: None,
            endpoints: Endpoints {
                rtmp: endpoint(1935).into_iter().collect(),
                srt: srt.and_then(endpoint).into_iter().collect(),
                ..Endpoints::default()
            },
        }
    }

    pub(crate) fn session(slot: u32) -> SessionRef {
        SessionRef { shard: 0, key: SessionKey { slot, generation: 1 } }
    }

    pub(crate) fn request(slot: u32, path: &str, role: Role) -> PickRequest {
        PickRequest {
            session: session(slot).key,
            client: SocketAddr::from(([192, 0, 2, 1], 5000)),
            stream: stream(path),
            role,
            group: None,
        }
    }

    pub(crate) fn bonded_request(slot: u32, path: &str, group: u32) -> PickRequest {
        PickRequest { group: Some(GroupId(group)), ..request(slot, path, Role::Publish) }
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::*;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_heartbeat_changes_nothing_but_the_time() {
        let (mut directory, now) = (directory(), Instant::now());
        let (id, change) = directory.register(now, registration("a", 1, Some(1))).unwrap();
        assert_eq!(change, Change::New);
        let again = directory.register(now + TTL - SECOND, registration("a", 1, Some(1)));
        assert_eq!(again, Ok((id, Change::Heartbeat)));
        assert!(directory.is_alive(directory.origin(id).unwrap(), now + TTL + SECOND));
    }

    #[test]
    fn a_new_process_replaces_the_old_one_under_the_same_number() {
        let (mut directory, now) = (directory(), Instant::now());
        let (id, _) = directory.register(now, registration("a", 1, Some(1))).unwrap();
        let mut restarted = registration("a", 1, Some(1));
        restarted.pid = "2".to_owned();
        assert_eq!(directory.register(now, restarted), Ok((id, Change::Restarted)));
        assert_eq!(directory.origins().count(), 1);
        assert_eq!(directory.origin(id).unwrap().seen().unwrap().pid, "2");
    }

    #[test]
    fn two_origins_of_one_host_with_the_same_server_id_stay_two_with_a_name_each() {
        let (mut directory, now) = (directory(), Instant::now());
        directory.register(now, registration("a", 1, Some(10080))).unwrap();
        directory.register(now, registration("a", 1, Some(10081))).unwrap();
        let names: Vec<_> = directory.origins().map(Origin::name).collect();
        assert_eq!(names, ["a", "a@10.0.0.1:10081"]);
    }

    #[test]
    fn a_server_id_cannot_be_taken_over_from_another_address_while_its_owner_lives() {
        let (mut directory, now) = (directory(), Instant::now());
        directory.register(now, registration("a", 1, Some(1))).unwrap();
        let thief = directory.register(now + TTL - SECOND, registration("a", 2, Some(1)));
        let ip = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(thief, Err(Conflict::ServerLives { server: "a".to_owned(), ip }));
        let heir = directory.register(now + TTL, registration("a", 2, Some(1)));
        assert!(matches!(heir, Ok((_, Change::New))));
    }

    #[test]
    fn an_expired_origin_is_named_once_and_stays_while_sessions_are_with_it() {
        let (mut directory, now) = (directory(), Instant::now());
        let (id, _) = directory.register(now, registration("a", 1, Some(1))).unwrap();
        directory.open(now, session(1), &request(1, "live/a", Role::Publish), id);
        assert_eq!(directory.expire(now + TTL), ["a"]);
        assert!(directory.expire(now + TTL).is_empty());
        assert!(directory.origin(id).is_some());
        directory.close(now + TTL, session(1));
        directory.expire(now + TTL);
        assert!(directory.origin(id).is_none());
    }

    #[test]
    fn an_expired_origin_that_registers_again_has_returned() {
        let (mut directory, now) = (directory(), Instant::now());
        let (id, _) = directory.register(now, registration("a", 1, Some(1))).unwrap();
        directory.open(now, session(1), &request(1, "live/a", Role::Publish), id);
        directory.expire(now + TTL);
        let again = directory.register(now + TTL, registration("a", 1, Some(1)));
        assert_eq!(again, Ok((id, Change::Returned)));
    }

    #[test]
    fn a_configured_origin_never_expires() {
        let now = Instant::now();
        let origin = StaticOrigin {
            srt: Some(10080),
            api: Some(1985),
            ..StaticOrigin::at("a", IpAddr::from([127, 0, 0, 1]))
        };
        let mut directory = Directory::new(now, &[origin], TTL);
        assert!(directory.expire(now + 100 * TTL).is_empty());
        let origin = directory.origins().next().unwrap();
        assert!(directory.is_alive(origin, now + 100 * TTL));
        assert_eq!(origin.srt_address(), Some(SocketAddr::from(([127, 0, 0, 1], 10080))));
    }

    #[test]
    fn the_thousand_and_first_origin_is_refused_and_heartbeats_of_the_others_are_not() {
        let (mut directory, now) = (directory(), Instant::now());
        for n in 0..ORIGINS_MAX {
            directory.register(now, registration(&format!("o{n}"), 1, Some(1))).unwrap();
        }
        let more = directory.register(now, registration("more", 1, Some(1)));
        assert_eq!(more, Err(Conflict::Full));
        let known = directory.register(now, registration("o0", 1, Some(1)));
        assert!(matches!(known, Ok((_, Change::Heartbeat))));
    }

    #[test]
    fn an_origin_is_asked_for_its_key_length_until_it_answers_and_again_after_a_restart() {
        let (mut directory, now) = (directory(), Instant::now());
        let (id, _) = directory.register(now, registration("a", 1, Some(1))).unwrap();
        let due = |directory: &mut Directory, at| directory.take_due_probes(at, 9).len();
        assert_eq!(due(&mut directory, now), 1);
        assert_eq!(due(&mut directory, now), 0);
        directory.probed(now, id, None);
        assert_eq!(due(&mut directory, now + PROBE_INTERVAL - SECOND), 0);
        assert_eq!(due(&mut directory, now + PROBE_INTERVAL), 1);
        directory.register(now, registration("a", 1, Some(1))).unwrap();
        assert_eq!(due(&mut directory, now), 1, "a heartbeat while it is unknown");
        directory.probed(now, id, Some(16));
        directory.register(now, registration("a", 1, Some(1))).unwrap();
        assert_eq!(due(&mut directory, now), 0, "a heartbeat while it is known");
        let mut restarted = registration("a", 1, Some(1));
        restarted.pid = "2".to_owned();
        directory.register(now, restarted).unwrap();
        assert_eq!(due(&mut directory, now), 1);
        assert_eq!(directory.origin(id).unwrap().key_length(), Some(16));
    }

    #[test]
    fn an_origin_that_changes_its_key_length_is_believed_and_one_that_falls_silent_keeps_it() {
        let (mut directory, now) = (directory(), Instant::now());
        let (id, _) = directory.register(now, registration("a", 1, Some(1))).unwrap();
        for (answer, known) in [(Some(16), 16), (None, 16), (Some(32), 32)] {
            assert_eq!(directory.take_due_probes(now + PROBE_INTERVAL, 9).len(), 1);
            directory.probed(now, id, answer);
            assert_eq!(directory.origin(id).unwrap().key_length(), Some(known));
        }
    }

    #[test]
    fn a_stream_is_where_its_first_attempt_succeeds() {
        let (mut directory, now) = (directory(), Instant::now());
        directory.open(now, session(1), &request(1, "live/a", Role::Publish), OriginId(0));
        directory.open(now, session(2), &request(2, "live/a", Role::Play), OriginId(1));
        directory.established(session(1));
        directory.established(session(2));
        assert_eq!(directory.stream(&stream("live/a")).unwrap().origin(), OriginId(0));
    }

    #[test]
    fn streams_in_use_come_first_and_then_those_used_last() {
        let (mut directory, now) = (directory(), Instant::now());
        for (n, path) in [(1, "live/a"), (2, "live/b"), (3, "live/c")] {
            let at = now + n * SECOND;
            directory.open(at, session(n), &request(n, path, Role::Publish), OriginId(0));
        }
        directory.close(now + 4 * SECOND, session(1));
        directory.close(now + 5 * SECOND, session(3));
        let order: Vec<_> = directory.streams().map(|(key, _)| key.clone()).collect();
        assert_eq!(order, ["live/b", "live/c", "live/a"].map(stream));
        assert_eq!(directory.streams_count(), 3);
    }

    #[test]
    fn sessions_are_counted_once_however_often_they_end() {
        let (mut directory, now) = (directory(), Instant::now());
        let (id, _) = directory.register(now, registration("a", 1, Some(1))).unwrap();
        directory.open(now, session(1), &request(1, "live/a", Role::Publish), id);
        directory.open(now, session(2), &request(2, "live/a", Role::Play), id);
        assert!(directory.established(session(1)).is_some());
        assert!(directory.established(session(1)).is_none());
        assert!(directory.close(now, session(1)).is_some());
        assert!(directory.close(now, session(1)).is_none());
        assert_eq!(directory.origin(id).unwrap().sessions(), 1);
        let stream = directory.stream(&stream("live/a")).unwrap();
        assert_eq!((stream.publishers(), stream.players()), (0, 1));
    }

    #[test]
    fn a_published_stream_is_remembered_for_ten_minutes() {
        let (mut directory, now) = (directory(), Instant::now());
        directory.open(now, session(1), &request(1, "live/a", Role::Publish), OriginId(0));
        directory.close(now, session(1));
        directory.expire(now + PUBLISHED_IDLE_TTL - SECOND);
        assert!(directory.stream(&stream("live/a")).is_some());
        directory.expire(now + PUBLISHED_IDLE_TTL);
        assert!(directory.stream(&stream("live/a")).is_none());
    }

    #[test]
    fn a_stream_that_was_only_asked_for_is_forgotten_after_half_a_minute() {
        let (mut directory, now) = (directory(), Instant::now());
        directory.open(now, session(1), &request(1, "live/a", Role::Play), OriginId(0));
        directory.close(now, session(1));
        directory.expire(now + PLAYED_IDLE_TTL);
        assert!(directory.stream(&stream("live/a")).is_none());
    }

    #[test]
    fn a_stream_in_use_is_never_forgotten() {
        let (mut directory, now) = (directory(), Instant::now());
        directory.open(now, session(1), &request(1, "live/a", Role::Play), OriginId(0));
        directory.close(now, session(1));
        directory.open(now + SECOND, session(2), &request(2, "live/a", Role::Play), OriginId(0));
        directory.expire(now + 100 * PUBLISHED_IDLE_TTL);
        assert!(directory.stream(&stream("live/a")).is_some());
    }

    #[test]
    fn a_full_table_of_streams_forgets_the_one_that_is_due_first() {
        let (mut directory, now) = (directory(), Instant::now());
        directory.streams_max = 2;
        for (n, path) in [(1, "live/a"), (2, "live/b"), (3, "live/c")] {
            let at = now + n * SECOND;
            directory.open(at, session(n), &request(n, path, Role::Publish), OriginId(0));
            directory.close(at, session(n));
        }
        let mut left: Vec<_> = directory.streams().map(|(key, _)| key.clone()).collect();
        left.sort();
        assert_eq!(left, [stream("live/b"), stream("live/c")]);
    }

    #[test]
    fn a_session_is_found_by_the_text_that_names_it() {
        let id = SessionRef { shard: 3, key: SessionKey { slot: 17, generation: 5 } };
        assert_eq!(id.to_string(), "3-17-5");
        assert_eq!(SessionRef::parse("3-17-5"), Some(id));
        for text in
            ["", "3-17", "3-17-5-1", "70000-1-1", "a-1-1", "1--1", "+1-1-1", "1-1-4294967296"]
        {
            assert_eq!(SessionRef::parse(text), None, "{text}");
        }
    }
}
