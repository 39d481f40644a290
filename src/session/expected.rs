//! Whom to expect: the WebRTC sessions that have been signalled, by what their clients' requests are known.
//!
//! Every shard expects every session, for nobody knows where the kernel will put its client. One costs at most 256 bytes
//! here; what it consists of is shared by all shards.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::quality::SeedableRandomState;
use hashbrown::HashMap;
use slab::Slab;

use super::webrtc::KeptRequest;
use super::{Pair, RtcId, SessionKey, Signalled};

/// The expected sessions of one shard, and the pairs of those that are over.
///
/// Invariant: every pair of every expectation is in `by_username`, and no other. Peers choose the usernames, so the hashers
/// are seeded.
pub struct Expected {
    sessions: Slab<Expectation>,
    by_id: HashMap<RtcId, u32, SeedableRandomState>,
    by_username: HashMap<ByUsername, u32, SeedableRandomState>,
    /// Pairs that are over, and until when that is remembered.
    tombstones: HashMap<ByUsername, Instant, SeedableRandomState>,
    /// The same in order. One whose pair is alive again, or was buried again later, is passed over.
    buried: VecDeque<(Arc<Pair>, Instant)>,
    sessions_max: usize,
}

/// A session that may show up here.
#[derive(Debug)]
pub struct Expectation {
    /// What signalling knows of it.
    pub session: Arc<Signalled>,
    /// The newest pair first.
    pairs: [Option<Arc<Pair>>; Self::PAIRS_MAX],
    /// Since when it is expected.
    pub since: Instant,
    /// Since when it has the newest of its pairs.
    extended: Instant,
    /// Whose it is.
    pub claim: Claim,
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
        self.pairs.iter().flatten()
    }

    /// The pair at this position, the newest being 0.
    pub fn pair(&self, age: usize) -> Option<&Arc<Pair>> {
        self.pairs().nth(age)
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
            by_id: HashMap::with_capacity_and_hasher(sessions_max, hasher.clone()),
            by_username: HashMap::with_capacity_and_hasher(sessions_max, hasher.clone()),
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
        let slot = self.by_id.get(&session.id).copied();
        let username = pair.username.as_bytes();
        if let Some(&taken) = self.by_username.get(username) {
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
        self.by_username.insert(ByUsername(Arc::clone(pair)), slot);
        Ok(())
    }

    fn begin(&mut self, session: &Arc<Signalled>, pair: &Arc<Pair>, now: Instant) -> u32 {
        let slot = self.sessions.insert(Expectation {
            session: Arc::clone(session),
            pairs: [Some(Arc::clone(pair)), None, None, None],
            since: now,
            extended: now,
            claim: Claim::Elsewhere { quiet_until: now },
        }) as u32;
        self.by_id.insert(session.id, slot);
        slot
    }

    fn extend(&mut self, slot: u32, pair: &Arc<Pair>, now: Instant) -> Result<u32, NotExpected> {
        let Some(expectation) = self.sessions.get_mut(slot as usize) else {
            return Err(NotExpected::Full);
        };
        if let [.., Some(oldest)] = &expectation.pairs {
            // The owner knows when a pair is out of use. Others go by time, or they would refuse what the owner takes.
            let is_old = now.saturating_duration_since(expectation.extended) >= PAIR_LIFE_ELSEWHERE;
            if expectation.here().is_some() || !is_old {
                return Err(NotExpected::TooManyPairs);
            }
            let oldest = Arc::clone(oldest);
            bury(&mut self.tombstones, &mut self.buried, self.sessions_max, &oldest, now);
            self.by_username.remove(oldest.username.as_bytes());
        }
        expectation.pairs.rotate_right(1);
        expectation.pairs[0] = Some(Arc::clone(pair));
        expectation.extended = now;
        Ok(slot)
    }

    /// What is known of the USERNAME of a request.
    pub fn by_username(&mut self, username: &[u8], now: Instant) -> Found<'_> {
        let Some(&slot) = self.by_username.get(username) else {
            let is_buried = self.tombstones.get(username).is_some_and(|until| now < *until);
            return if is_buried { Found::Tombstone } else { Found::Unknown };
        };
        let Some(expectation) = self.sessions.get_mut(slot as usize) else {
            return Found::Unknown;
        };
        let age = expectation.pairs().position(|pair| pair.username.as_bytes() == username);
        match age {
            Some(age) => Found::Expected { expectation, age },
            None => Found::Unknown,
        }
    }

    /// The expectation of a session.
    pub fn by_id(&self, session: RtcId) -> Option<&Expectation> {
        self.sessions.get(*self.by_id.get(&session)? as usize)
    }

    /// The same, to change.
    pub fn by_id_mut(&mut self, session: RtcId) -> Option<&mut Expectation> {
        self.sessions.get_mut(*self.by_id.get(&session)? as usize)
    }

    /// Retires the pairs of a session that are older than `pair`.
    pub fn retire_before(&mut self, session: RtcId, pair: &Arc<Pair>, now: Instant) {
        let Some(expectation) =
            self.by_id.get(&session).and_then(|&slot| self.sessions.get_mut(slot as usize))
        else {
            return;
        };
        let Some(age) = expectation.pairs().position(|known| Arc::ptr_eq(known, pair)) else {
            return;
        };
        for retired in expectation.pairs.iter_mut().skip(age + 1).filter_map(Option::take) {
            self.by_username.remove(retired.username.as_bytes());
            bury(&mut self.tombstones, &mut self.buried, self.sessions_max, &retired, now);
        }
    }

    /// Forgets a session. Its pairs leave tombstones.
    pub fn forget(&mut self, session: RtcId, now: Instant) -> Option<Expectation> {
        let slot = self.by_id.remove(&session)?;
        let expectation = self.sessions.try_remove(slot as usize)?;
        for pair in expectation.pairs() {
            self.by_username.remove(pair.username.as_bytes());
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
