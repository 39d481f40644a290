//! Whom to expect: the WebRTC sessions that have been signalled, by what their clients' requests are known.
//!
//! Every shard expects every session, for nobody knows where the kernel will put its client. One costs at most 256 bytes
//! here; what it consists of is shared by all shards.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::quality::SeedableRandomState;
use hashbrown::{HashMap, HashTable};
use slab::Slab;

use super::webrtc::KeptRequest;
use super::{Pair, RtcId, SessionKey, Signalled};

/// The expected sessions of one shard, and the pairs of those that are over.
///
/// Invariant: every pair of every expectation is in `by_username`, and no other. Peers choose the usernames, so the hashers
/// are seeded.
pub struct Expected {
    sessions: Slab<Expectation>,
    by_id: HashTable<u32>,
    /// The usernames themselves stand in the pairs.
    by_username: HashTable<Name>,
    hasher: SeedableRandomState,
    /// Pairs that are over, and until when that is remembered.
    tombstones: HashMap<ByUsername, Instant, SeedableRandomState>,
    /// The same in order. One whose pair is alive again, or was buried again later, is passed over.
    buried: VecDeque<(Arc<Pair>, Instant)>,
    sessions_max: usize,
}

/// A username of the session in `slot`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Name {
    slot: u32,
    /// Half of its hash, by which the index grows without looking at sessions.
    hash: u32,
}

/// A session that may show up here.
#[derive(Debug)]
pub struct Expectation {
    /// What signalling knows of it.
    pub session: Arc<Signalled>,
    newest: Arc<Pair>,
    /// Few sessions ever restart ICE.
    older: Option<Box<Older>>,
    /// Since when it is expected.
    pub since: Instant,
    /// Whose it is.
    pub claim: Claim,
}

/// What a session had before its newest pair.
#[derive(Debug)]
struct Older {
    /// The newest first, and no gaps.
    pairs: [Option<Arc<Pair>>; Expectation::PAIRS_MAX - 1],
    /// Since when there has been a newer one.
    extended: Instant,
}

/// Whose a session is, as far as this shard knows.
#[derive(Debug)]
pub enum Claim {
    /// Nobody's, or that of another shard.
    Elsewhere {
        /// Until when control is not asked again.
        quiet_until: Instant,
    },
    /// Control has been asked, and this request waits for its answer.
    Asked {
        /// The newest from the address that control was told.
        request: Box<KeptRequest>,
        /// Until when the question counts as under way.
        until: Instant,
    },
    /// Ours.
    Here(SessionKey),
}

/// What is known of a USERNAME.
#[derive(Debug)]
pub enum Found<'a> {
    /// A session is expected by it.
    Expected {
        /// Which.
        expectation: &'a mut Expectation,
        /// Which of its pairs, the newest being 0.
        age: usize,
    },
    /// A session was expected by it, and is over.
    Tombstone,
    /// Nothing.
    Unknown,
}

impl Expectation {
    /// Pairs of one session: the first one and those of ICE restarts (RFC 8445, section 2.4).
    pub const PAIRS_MAX: usize = 4;

    /// Its pairs, the newest first.
    pub fn pairs(&self) -> impl Iterator<Item = &Arc<Pair>> {
        let older = self.older.iter().flat_map(|older| older.pairs.iter().flatten());
        std::iter::once(&self.newest).chain(older)
    }

    fn age_of(&self, username: &[u8]) -> Option<usize> {
        self.pairs().position(|pair| pair.username.as_bytes() == username)
    }

    /// The pair at this position, the newest being 0.
    pub fn pair(&self, age: usize) -> Option<&Arc<Pair>> {
        self.pairs().nth(age)
    }

    /// Puts a pair in front of the others. Returns the one that finds no room.
    fn extend(&mut self, pair: &Arc<Pair>, now: Instant) -> Option<Arc<Pair>> {
        let before = std::mem::replace(&mut self.newest, Arc::clone(pair));
        let none = || Box::new(Older { pairs: Default::default(), extended: now });
        let older = self.older.get_or_insert_with(none);
        older.extended = now;
        older.pairs.rotate_right(1);
        let [first, ..] = &mut older.pairs;
        first.replace(before)
    }

    /// The session, if it is this shard's.
    pub fn here(&self) -> Option<SessionKey> {
        match self.claim {
            Claim::Here(key) => Some(key),
            Claim::Elsewhere { .. } | Claim::Asked { .. } => None,
        }
    }
}

impl Expected {
    /// Expects nobody yet, and never more than `sessions_max`, whose indices are reserved now.
    pub fn new(sessions_max: u32, hasher: &SeedableRandomState) -> Self {
        let sessions_max = sessions_max as usize;
        Self {
            sessions: Slab::new(),
            by_id: HashTable::with_capacity(sessions_max),
            by_username: HashTable::with_capacity(sessions_max),
            hasher: hasher.clone(),
            tombstones: HashMap::with_hasher(hasher.clone()),
            buried: VecDeque::new(),
            sessions_max,
        }
    }

    /// Expected sessions.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether nobody is expected.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Expects the clients of `session` under `pair`, too.
    ///
    /// # Errors
    /// See [`NotExpected`]; nothing has changed then.
    pub fn expect(
        &mut self,
        session: &Arc<Signalled>,
        pair: &Arc<Pair>,
        is_draining: bool,
        now: Instant,
    ) -> Result<(), NotExpected> {
        let slot = self.slot_of(session.id);
        let username = pair.username.as_bytes();
        if let Some(taken) = self.slot_named(username) {
            return if Some(taken) == slot { Ok(()) } else { Err(NotExpected::PairTaken) };
        }
        let slot = match slot {
            Some(slot) => self.extend(slot, pair, now)?,
            // A restart of a session there is concerns no one else; a new session has to find the doors open.
            None if is_draining => return Err(NotExpected::Draining),
            None if self.sessions.len() >= self.sessions_max => return Err(NotExpected::Full),
            None => self.begin(session, pair, now),
        };
        self.tombstones.remove(username);
        let name = Name::of(&self.hasher, username, slot);
        self.by_username.insert_unique(name.spread(), name, Name::spread);
        Ok(())
    }

    fn slot_of(&self, session: RtcId) -> Option<u32> {
        let is_it = |&slot: &u32| {
            self.sessions.get(slot as usize).is_some_and(|it| it.session.id == session)
        };
        self.by_id.find(self.hasher.hash_one(session), is_it).copied()
    }

    fn slot_named(&self, username: &[u8]) -> Option<u32> {
        let name = Name::of(&self.hasher, username, 0);
        let is_it = |known: &Name| {
            let expectation = self.sessions.get(known.slot as usize);
            known.hash == name.hash && expectation.is_some_and(|it| it.age_of(username).is_some())
        };
        self.by_username.find(name.spread(), is_it).map(|known| known.slot)
    }

    /// Makes a session no longer found by a username.
    fn forget_name(&mut self, username: &[u8], slot: u32) {
        let name = Name::of(&self.hasher, username, slot);
        if let Ok(known) = self.by_username.find_entry(name.spread(), |known| *known == name) {
            known.remove();
        }
    }

    fn begin(&mut self, session: &Arc<Signalled>, pair: &Arc<Pair>, now: Instant) -> u32 {
        super::make_room(&mut self.sessions);
        let slot = self.sessions.insert(Expectation {
            session: Arc::clone(session),
            newest: Arc::clone(pair),
            older: None,
            since: now,
            claim: Claim::Elsewhere { quiet_until: now },
        }) as u32;
        let (sessions, hasher) = (&self.sessions, &self.hasher);
        let hash = |slot: &u32| {
            let id = sessions.get(*slot as usize).map(|expectation| expectation.session.id);
            id.map_or(0, |id| hasher.hash_one(id))
        };
        self.by_id.insert_unique(hasher.hash_one(session.id), slot, hash);
        slot
    }

    fn extend(&mut self, slot: u32, pair: &Arc<Pair>, now: Instant) -> Result<u32, NotExpected> {
        let Some(expectation) = self.sessions.get_mut(slot as usize) else {
            return Err(NotExpected::Full);
        };
        if let Some(Older { pairs: [.., Some(_)], extended }) = expectation.older.as_deref() {
            // The owner knows when a pair is out of use. Others go by time, or they would refuse what the owner takes.
            let is_old = now.saturating_duration_since(*extended) >= PAIR_LIFE_ELSEWHERE;
            if expectation.here().is_some() || !is_old {
                return Err(NotExpected::TooManyPairs);
            }
        }
        if let Some(oldest) = expectation.extend(pair, now) {
            bury(&mut self.tombstones, &mut self.buried, self.sessions_max, &oldest, now);
            self.forget_name(oldest.username.as_bytes(), slot);
        }
        Ok(slot)
    }

    /// What is known of the USERNAME of a request.
    pub fn by_username(&mut self, username: &[u8], now: Instant) -> Found<'_> {
        let Some(slot) = self.slot_named(username) else {
            let is_buried = self.tombstones.get(username).is_some_and(|until| now < *until);
            return if is_buried { Found::Tombstone } else { Found::Unknown };
        };
        let Some(expectation) = self.sessions.get_mut(slot as usize) else {
            return Found::Unknown;
        };
        match expectation.age_of(username) {
            Some(age) => Found::Expected { expectation, age },
            None => Found::Unknown,
        }
    }

    /// The expectation of a session.
    pub fn by_id(&self, session: RtcId) -> Option<&Expectation> {
        self.sessions.get(self.slot_of(session)? as usize)
    }

    /// The same, to change.
    pub fn by_id_mut(&mut self, session: RtcId) -> Option<&mut Expectation> {
        self.sessions.get_mut(self.slot_of(session)? as usize)
    }

    /// Retires the pairs of a session that are older than `pair`.
    pub fn retire_before(&mut self, session: RtcId, pair: &Arc<Pair>, now: Instant) {
        let Some(slot) = self.slot_of(session) else {
            return;
        };
        let Some(expectation) = self.sessions.get_mut(slot as usize) else {
            return;
        };
        let Some(age) = expectation.pairs().position(|known| Arc::ptr_eq(known, pair)) else {
            return;
        };
        let Some(older) = &mut expectation.older else {
            return;
        };
        let mut retired: [_; Expectation::PAIRS_MAX - 1] = Default::default();
        for (known, retired) in older.pairs.iter_mut().zip(&mut retired).skip(age) {
            *retired = known.take();
        }
        if age == 0 {
            expectation.older = None;
        }
        for retired in retired.into_iter().flatten() {
            self.forget_name(retired.username.as_bytes(), slot);
            bury(&mut self.tombstones, &mut self.buried, self.sessions_max, &retired, now);
        }
    }

    /// Forgets a session. Its pairs leave tombstones.
    pub fn forget(&mut self, session: RtcId, now: Instant) -> Option<Expectation> {
        let slot = self.slot_of(session)?;
        if let Ok(known) =
            self.by_id.find_entry(self.hasher.hash_one(session), |known| *known == slot)
        {
            known.remove();
        }
        let expectation = self.sessions.try_remove(slot as usize)?;
        for pair in expectation.pairs() {
            self.forget_name(pair.username.as_bytes(), slot);
            bury(&mut self.tombstones, &mut self.buried, self.sessions_max, pair, now);
        }
        Some(expectation)
    }

    /// Forgets every session that is not this shard's.
    pub fn forget_unowned(&mut self, now: Instant) {
        let unowned = self.sessions.iter().filter(|(_, expectation)| expectation.here().is_none());
        let unowned: Vec<RtcId> = unowned.map(|(_, expectation)| expectation.session.id).collect();
        for session in unowned {
            self.forget(session, now);
        }
    }
}

/// Remembers that a pair is over. The oldest tombstones give way, to time or to newer ones.
fn bury(
    tombstones: &mut HashMap<ByUsername, Instant, SeedableRandomState>,
    buried: &mut VecDeque<(Arc<Pair>, Instant)>,
    tombstones_max: usize,
    pair: &Arc<Pair>,
    now: Instant,
) {
    while let Some((oldest, until)) = buried.front()
        && (*until <= now || buried.len() >= tombstones_max)
    {
        let username = oldest.username.as_bytes();
        if tombstones.get(username) == Some(until) {
            tombstones.remove(username);
        }
        buried.pop_front();
    }
    let until = now + TOMBSTONE_LIFE;
    tombstones.insert(ByUsername(Arc::clone(pair)), until);
    buried.push_back((Arc::clone(pair), until));
}

impl Name {
    fn of(hasher: &SeedableRandomState, username: &[u8], slot: u32) -> Self {
        Self { slot, hash: hasher.hash_one(username) as u32 }
    }

    /// The hash that the index goes by, which wants its upper bits as good as its lower ones.
    fn spread(&self) -> u64 {
        u64::from(self.hash) | u64::from(self.hash) << 32
    }
}

/// A pair, told from others by its username.
struct ByUsername(Arc<Pair>);

impl PartialEq for ByUsername {
    fn eq(&self, other: &Self) -> bool {
        self.0.username == other.0.username
    }
}

impl Eq for ByUsername {}

impl Hash for ByUsername {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.username.as_bytes().hash(state);
    }
}

impl Borrow<[u8]> for ByUsername {
    fn borrow(&self) -> &[u8] {
        self.0.username.as_bytes()
    }
}

/// Why a shard cannot expect a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotExpected {
    /// Another session has the same pair.
    PairTaken,
    /// The session has as many pairs as it may.
    TooManyPairs,
    /// `--sessions-max` are expected already.
    Full,
    /// New sessions are refused.
    Draining,
}

/// How long late requests are recognised as late.
pub const TOMBSTONE_LIFE: Duration = Duration::from_secs(60);

/// How long control is given to say whose a session is, before it is asked again.
pub const QUESTION_LIFE: Duration = Duration::from_millis(250);

/// Between a denial and the next question: a client that repeats its requests without pause costs control little.
pub const QUIET: Duration = Duration::from_millis(50);

/// How long after a restart a shard that does not own the session lets an older pair give way to a newer one.
const PAIR_LIFE_ELSEWHERE: Duration = Duration::from_secs(60);
