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
use super::origin::{Change, Conflict, Lifetime, ORIGINS_MAX, Origin, Seen, Special};
use super::registration::{Endpoint, Endpoints, Registration};
use super::session_id::SessionId;
use super::stream::Stream;
use crate::config::StaticOrigin;
use crate::protocol::srt::handshake::GroupId;
use crate::protocol::stream_url::StreamKey;
use crate::shard::OriginId;
use crate::shard::command::{PickRequest, Role, Traffic};

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
    sessions: HashMap<SessionId, Session>,
    /// Bonding groups with a session, and how many they have.
    groups: HashMap<GroupId, (OriginId, u32)>,
    /// Origins to be asked for their key length, by when.
    probes: BTreeSet<(Instant, OriginId)>,
    /// What was configured for origins that register.
    overrides: Vec<StaticOrigin>,
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
            overrides: origins.iter().filter(|origin| !is_origin(origin)).cloned().collect(),
        };
        for origin in origins.iter().filter(|origin| is_origin(origin)) {
            let one = |port: Option<u16>| port.and_then(endpoint).into_iter().collect();
            let endpoints = Endpoints {
                srt: one(origin.srt),
                rtc: one(origin.rtc),
                api: one(origin.api),
                ..Endpoints::default()
            };
            let special = Special::of(origin);
            directory.add(now, origin.ip, endpoints, Lifetime::Static, &origin.name, special);
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
        let special = self.overriding(&label, ip).map(Special::of).unwrap_or_default();
        let lifetime = Lifetime::Registered(seen);
        Ok((self.add(now, ip, endpoints, lifetime, &label, special), Change::New))
    }

    /// What was configured for an origin that calls itself `label`, or else for its address.
    fn overriding(&self, label: &str, ip: IpAddr) -> Option<&StaticOrigin> {
        let by_name = self.overrides.iter().find(|other| other.name == label);
        by_name.or_else(|| self.overrides.iter().find(|other| other.ip.to_canonical() == ip))
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
        special: Special,
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
            special,
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
    pub fn open(
        &mut self,
        now: Instant,
        id: impl Into<SessionId>,
        opening: impl Into<Opening>,
        origin: OriginId,
    ) {
        let Opening { stream, role, source, client, group } = opening.into();
        let key = match self.streams.get_key_value(&stream) {
            Some((key, _)) => Rc::clone(key),
            None => Rc::new(stream),
        };
        let session = Session {
            stream: Rc::clone(&key),
            role,
            source,
            client,
            group,
            origin,
            is_established: false,
            look: None,
        };
        let replaced = self.sessions.insert(id.into(), session);
        debug_assert!(replaced.is_none(), "an ID names one session in the process's life");
        if let Some(origin) = self.origins.get_mut(&origin) {
            origin.sessions += 1;
        }
        if let Some(group) = group {
            self.groups.entry(group).or_insert((origin, 0)).1 += 1;
        }
        if !self.streams.contains_key(&key) && self.streams.len() >= self.streams_max {
            self.forget_first_idle();
        }
        let stream =
            self.streams.entry(Rc::clone(&key)).or_insert_with(|| Stream::new(origin, now));
        if let Some(due) = stream.open(now, role, origin) {
            self.idle.remove(&(due, Rc::clone(&key)));
        }
        self.in_use.insert(key);
    }

    /// Notes that media may flow; `None` when the session is unknown or this was known.
    pub fn established(
        &mut self,
        id: impl Into<SessionId>,
        client: SocketAddr,
    ) -> Option<&Session> {
        let session = self.sessions.get_mut(&id.into())?;
        if std::mem::replace(&mut session.is_established, true) {
            return None;
        }
        session.client = Some(client);
        if let Some(stream) = self.streams.get_mut(&session.stream) {
            stream.established(session.origin);
        }
        Some(session)
    }

    /// Forgets a session and gives it back. Does nothing the second time.
    pub fn close(&mut self, now: Instant, id: impl Into<SessionId>) -> Option<Session> {
        let session = self.sessions.remove(&id.into())?;
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
        let stream = self.streams.get_mut(&session.stream);
        let due = stream.and_then(|s| s.close(now, session.role, session.is_established));
        if let Some(due) = due {
            self.in_use.remove(&session.stream);
            self.idle.insert((due, Rc::clone(&session.stream)));
        }
        Some(session)
    }

    /// A session that has an origin and has not ended.
    pub fn session(&self, id: impl Into<SessionId>) -> Option<&Session> {
        self.sessions.get(&id.into())
    }

    /// The same, to note a look at its traffic.
    pub fn session_mut(&mut self, id: impl Into<SessionId>) -> Option<&mut Session> {
        self.sessions.get_mut(&id.into())
    }

    /// Sessions of both protocols.
    pub fn sessions_count(&self) -> usize {
        self.sessions.len()
    }

    fn forget_first_idle(&mut self) {
        if let Some((_, key)) = self.idle.pop_first() {
            self.streams.remove(&key);
        }
    }
}

/// A session that begins.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Which stream.
    pub stream: StreamKey,
    /// Publisher or player.
    pub role: Role,
    /// Whose limits it counts against.
    pub source: IpAddr,
    /// The client's address, where it is proven.
    pub client: Option<SocketAddr>,
    /// The caller's bonding group.
    pub group: Option<GroupId>,
}

impl From<&PickRequest> for Opening {
    fn from(request: &PickRequest) -> Self {
        Self {
            stream: request.stream.clone(),
            role: request.role,
            source: request.client.ip(),
            client: Some(request.client),
            group: request.group,
        }
    }
}

/// What control knows of a session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Which stream.
    pub stream: Rc<StreamKey>,
    /// Publisher or player.
    pub role: Role,
    /// Whose limits it counts against.
    pub source: IpAddr,
    /// The client's proven address. A WebRTC client has none before its first check.
    pub client: Option<SocketAddr>,
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

/// Whether `--origin` names an origin of its own. Without a port or an address it only says more of
/// one that registers.
fn is_origin(origin: &StaticOrigin) -> bool {
    let StaticOrigin { srt, rtc, api, direct, .. } = origin;
    let has_port = [srt, rtc, api, direct].into_iter().any(Option::is_some);
    has_port && !origin.ip.is_unspecified()
}

fn endpoint(port: u16) -> Option<Endpoint> {
    Some(Endpoint { scheme: None, port: NonZeroU16::new(port)? })
}

/// Streams. Above it the one that would be forgotten first gives way to a new one.
const STREAMS_MAX: usize = 1_000_000;
/// Until an origin is asked for its key length again.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// Streams forgotten by one call, which keeps it under a few milliseconds.
const EXPIRIES_MAX: usize = 10_000;

/// What the tests of control's modules build their directories from.
#[cfg(test)]
pub(crate) mod fixtures {
    use super::super::session_id::SessionRef;
    use super::*;
    use crate::protocol::stream_url::DEFAULT_VHOST;
    use crate::shard::SessionKey;

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

    /// The same, also with what WebRTC needs.
    pub(crate) fn with_webrtc(mut registration: Registration) -> Registration {
        registration.endpoints.rtc.extend(Endpoint::parse("udp://8000"));
        registration.endpoints.api.extend(Endpoint::parse("1985"));
        registration
    }

    pub(crate) const CLIENT: SocketAddr =
        SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 5000);

    pub(crate) fn session(slot: u32) -> SessionRef {
        SessionRef { shard: 0, key: SessionKey { slot, generation: 1 } }
    }

    pub(crate) fn request(slot: u32, path: &str, role: Role) -> PickRequest {
        PickRequest {
            session: session(slot).key,
            client: CLIENT,
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
    use super::super::stream::{PLAYED_IDLE_TTL, PUBLISHED_IDLE_TTL};
    use super::fixtures::*;
    use super::*;
    use crate::config::HostHeader;

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
        directory.established(session(1), CLIENT);
        directory.established(session(2), CLIENT);
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
        assert!(directory.established(session(1), CLIENT).is_some());
        assert!(directory.established(session(1), CLIENT).is_none());
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

    fn override_for(name: &str, ip: [u8; 4], path: &str) -> StaticOrigin {
        let (path, host) = (Some(path.to_owned()), HostHeader::Origin);
        StaticOrigin { path, host, ..StaticOrigin::at(name, IpAddr::from(ip)) }
    }

    #[test]
    fn a_configured_origin_without_a_port_says_more_of_one_that_registers() {
        let now = Instant::now();
        let configured =
            [override_for("by-ip", [10, 0, 0, 1], "/ip"), override_for("b", [0, 0, 0, 0], "/name")];
        let mut directory = Directory::new(now, &configured, TTL);
        assert_eq!(directory.origins().count(), 0);
        for (server, host, path) in [("a", 1, Some("/ip")), ("b", 2, Some("/name")), ("c", 3, None)]
        {
            let (id, _) = directory.register(now, registration(server, host, None)).unwrap();
            let special = directory.origin(id).unwrap().special();
            assert_eq!(special.path.as_deref(), path, "{server}");
        }
    }

    #[test]
    fn a_name_says_more_than_an_address() {
        let now = Instant::now();
        let configured =
            [override_for("x", [10, 0, 0, 1], "/ip"), override_for("a", [10, 0, 0, 7], "/name")];
        let mut directory = Directory::new(now, &configured, TTL);
        let (id, _) = directory.register(now, registration("a", 1, None)).unwrap();
        assert_eq!(directory.origin(id).unwrap().special().path.as_deref(), Some("/name"));
    }

    #[test]
    fn what_was_configured_for_an_origin_of_its_own_is_not_said_of_its_neighbour() {
        let now = Instant::now();
        let own = StaticOrigin { api: Some(8889), ..override_for("mtx", [10, 0, 0, 1], "/x") };
        let mut directory = Directory::new(now, &[own], TTL);
        assert_eq!(directory.origins().next().unwrap().special().path.as_deref(), Some("/x"));
        let (id, _) = directory.register(now, registration("a", 1, None)).unwrap();
        assert_eq!(directory.origin(id).unwrap().special(), &Special::default());
    }
}
