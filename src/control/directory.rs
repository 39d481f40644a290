//! What control knows: origins, the streams that are mapped to them, and the sessions of all
//! shards.
//!
//! A mapping holds an origin's number and never a copy of the origin, so that an origin that comes
//! back with a new process keeps its streams. No I/O here; the clock is an argument.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use super::boxes::Boxes;
use super::health::{Health, Sign, Turn};
use super::origin::{Change, Conflict, Kind, Lifetime, ORIGINS_MAX, Origin, Seen, Special, State};
use super::registration::{Endpoint, Endpoints, Registration};
use super::schedule::{Check, Found, Plan, Schedule};
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
    streams: Boxes<StreamKey, Stream>,
    /// The streams without a session, by when they are forgotten.
    idle: BTreeSet<(Instant, StreamKey)>,
    streams_max: usize,
    sessions: Boxes<SessionId, Session>,
    /// Bonding groups with a session, and how many they have.
    groups: HashMap<GroupId, (OriginId, u32)>,
    schedule: Schedule,
    /// What was configured for origins that register.
    overrides: Vec<StaticOrigin>,
}

impl Directory {
    /// A directory of `origins` that never expire, and are checked as `plan` says.
    pub fn new(now: Instant, origins: &[StaticOrigin], origin_ttl: Duration, plan: Plan) -> Self {
        let mut directory = Self {
            origins: BTreeMap::new(),
            next_origin: 0,
            origin_ttl,
            streams: Boxes::new(),
            idle: BTreeSet::new(),
            streams_max: STREAMS_MAX,
            sessions: Boxes::new(),
            groups: HashMap::new(),
            schedule: Schedule::new(plan),
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
            origin.health.restarted(now);
        }
        let is_unknown = origin.key_length.is_none() && !self.schedule.decides();
        if change != Change::Heartbeat || is_unknown {
            self.schedule.welcome(now, id);
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
            is_draining: false,
        };
        self.origins.insert(id, origin);
        self.schedule.welcome(now, id);
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

    /// Whether new streams may go to `origin` where none that is in order is left: it lives, is not
    /// being emptied and has room.
    pub fn is_open(&self, origin: &Origin, now: Instant) -> bool {
        self.is_alive(origin, now) && !origin.is_draining() && !origin.is_full()
    }

    /// Whether new streams of `kind` do go to `origin`: nothing speaks against it.
    pub fn is_eligible(&self, origin: &Origin, kind: Kind, now: Instant) -> bool {
        self.is_open(origin, now) && !origin.is_failing(kind, now)
    }

    /// Whether all that keeps a new stream of `kind` out is that every origin has as many sessions
    /// as it may.
    pub fn is_full(&self, kind: Kind, now: Instant) -> bool {
        let mut takers = self
            .origins()
            .filter(|origin| self.is_alive(origin, now) && origin.takes(kind))
            .filter(|origin| !origin.is_draining())
            .peekable();
        takers.peek().is_some() && takers.all(Origin::is_full)
    }

    /// What an origin is, all in all.
    pub fn state(&self, origin: &Origin, now: Instant) -> State {
        let is_failing = |kind| origin.is_failing(kind, now);
        let mut kinds = Kind::ALL.into_iter().filter(|kind| origin.takes(*kind)).peekable();
        let is_deaf = kinds.peek().is_some() && kinds.all(is_failing);
        if !self.is_alive(origin, now) || is_deaf {
            State::Down
        } else if origin.is_draining() {
            State::Draining
        } else {
            State::Up
        }
    }

    /// Gives the origin called `name`, or of that number, no new streams from now on, or gives it
    /// some again. Returns it, where there is one.
    pub fn drain(&mut self, name: &str, is_draining: bool) -> Option<&Origin> {
        let by_name = self.origins.values().find(|origin| origin.name == name).map(Origin::id);
        let by_number = || name.parse().ok().map(OriginId);
        let origin = self.origins.get_mut(&by_name.or_else(by_number)?)?;
        origin.is_draining = is_draining;
        Some(origin)
    }

    /// At most `limit` checks of live origins that are due now. Each is given out once until
    /// `checked`; those of an expired origin not before it returns.
    pub fn take_due_checks(&mut self, now: Instant, limit: usize) -> Vec<Check> {
        let mut due = Vec::new();
        while due.len() < limit {
            let Some((id, kind)) = self.schedule.take(now) else {
                break;
            };
            let origin = self.origins.get(&id).filter(|origin| self.is_alive(origin, now));
            let address = origin.and_then(|origin| match kind {
                Kind::Srt => origin.srt_address(),
                Kind::WebRtc => origin.api_address().filter(|_| origin.takes(kind)),
                Kind::Direct => None,
            });
            if let Some(address) = address {
                self.schedule.start(id, kind);
                due.push(Check { origin: id, kind, address });
            }
        }
        due
    }

    /// Notes what a check found out, and when the next one is due. A key length that is not told
    /// stays as it was: a configured origin does not say when it is restarted with another.
    pub(super) fn checked(
        &mut self,
        now: Instant,
        id: OriginId,
        kind: Kind,
        found: Found,
    ) -> Option<Turn> {
        let Some(origin) = self.origins.get_mut(&id) else {
            self.schedule.forget(id, kind);
            return None;
        };
        origin.key_length = found.key_length.or(origin.key_length);
        let turn = match self.schedule.decides() {
            true => origin.health.checked(now, kind, found.result),
            false => None,
        };
        self.schedule.finish(now, id, kind, origin.health.is_wavering(kind));
        turn
    }

    /// Notes that a session found nobody at the origin, and says what that changes. Where it is
    /// news, the origin is checked at once: its process may be gone, and all that it took with it.
    pub(super) fn origin_failed(&mut self, now: Instant, id: OriginId, kind: Kind) -> Option<Turn> {
        let turn = self.origins.get_mut(&id)?.health.failed(now, kind, Sign::NoSession);
        if turn.is_some() && self.schedule.decides() {
            self.schedule.hurry(now, id);
        }
        turn
    }

    /// Notes that the origin took a session, and says what that changes.
    pub(super) fn origin_succeeded(
        &mut self,
        now: Instant,
        id: OriginId,
        kind: Kind,
    ) -> Option<Turn> {
        self.origins.get_mut(&id)?.health.succeeded(now, kind)
    }

    /// What has served its time since the last call, and takes new streams again.
    pub(super) fn recovered(&mut self, now: Instant) -> Vec<(OriginId, Kind)> {
        let mut recovered = Vec::new();
        for origin in self.origins.values_mut() {
            while let Some(kind) = origin.health.settle(now) {
                recovered.push((origin.id, kind));
            }
        }
        recovered
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
        let mut seen = HashSet::new();
        let in_use = self.sessions.values().map(|session| &session.stream);
        let in_use = in_use.filter(move |&key| seen.insert(key));
        let idle = self.idle.iter().rev().map(|(_, key)| key);
        in_use.chain(idle).filter_map(|key| Some((key, self.stream(key)?)))
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
        let Opening { stream, role, source, client, group, kind } = opening.into();
        let key = match self.streams.get_key_value(&stream) {
            // One text for all that name the stream.
            Some((key, _)) => key.clone(),
            None => stream,
        };
        let session = Session {
            stream: key.clone(),
            role,
            source,
            client,
            group,
            kind,
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
        if self.streams.get(&key).is_none() {
            if self.streams.len() >= self.streams_max {
                self.forget_first_idle();
            }
            self.streams.insert(key.clone(), Stream::new(origin, now));
        }
        let stream = self.streams.get_mut(&key);
        if let Some(due) = stream.and_then(|stream| stream.open(now, role, origin)) {
            self.idle.remove(&(due, key.clone()));
        }
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
            self.idle.insert((due, session.stream.clone()));
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
    /// What it needs of its origin.
    pub kind: Kind,
}

impl From<&PickRequest> for Opening {
    fn from(request: &PickRequest) -> Self {
        Self {
            stream: request.stream.clone(),
            role: request.role,
            source: request.client.ip(),
            client: Some(request.client),
            group: request.group,
            kind: Kind::Srt,
        }
    }
}

/// What control knows of a session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Which stream.
    pub stream: StreamKey,
    /// Publisher or player.
    pub role: Role,
    /// Whose limits it counts against.
    pub source: IpAddr,
    /// The client's proven address. A WebRTC client has none before its first check.
    pub client: Option<SocketAddr>,
    /// The caller's bonding group.
    pub group: Option<GroupId>,
    /// What it needs of its origin.
    pub kind: Kind,
    /// Chosen once.
    pub origin: OriginId,
    /// Whether the client has been told that it is connected.
    pub is_established: bool,
    /// The last look at its traffic, for bit rates.
    pub look: Option<Box<Look>>,
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

    pub(crate) const UNCHECKED: Plan = Plan { interval: None, asks_key_length: true };

    pub(crate) fn directory() -> Directory {
        Directory::new(Instant::now(), &[], TTL, UNCHECKED)
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
mod tests;
