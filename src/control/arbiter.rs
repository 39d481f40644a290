//! Which shard owns a WebRTC session.
//!
//! The kernel spreads a client's paths over the shards, and nobody can tell beforehand where its
//! first binding request comes in. So every shard is told to expect the session, and the first one
//! that proves a client asks here to own it. When the client proves itself on another shard (dual
//! stack, several interfaces, roaming), that one asks, too; the owner is asked to yield, and its
//! memory of transactions decides. No I/O here; the clock is an argument, and what the shards are
//! to be told is left in a list.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashTable;
use tokio::sync::oneshot;

use super::ask::{Resource, Token};
use super::kept::Kept;
use super::session_id::SessionRef;
use crate::shard::SessionKey;
use crate::shard::command::{
    Command, EndReason, Handover, NotExpected, Pair, PathRequest, RtcId, Signalled,
};

/// The WebRTC sessions of all shards. As many as the admission lets in.
pub(super) struct Arbiter {
    shards: u16,
    /// Numbers are never given twice, so that late events reach no stranger.
    next: u64,
    records: BTreeMap<RtcId, Box<Record>>,
    by_username: HashMap<ByUsername, RtcId>,
    /// The tokens themselves stand in what is kept of the sessions.
    by_token: HashTable<RtcId>,
    hasher: RandomState,
    /// When something is to happen to a session if nothing has happened until then.
    due: BTreeSet<(Instant, RtcId)>,
    /// Sessions whose client has come.
    validated: usize,
    commands: Vec<(u16, Command)>,
}

/// One session.
struct Record {
    created: Instant,
    /// `None` while the offer is with the origin.
    signalled: Option<Arc<Signalled>>,
    /// By what its client's binding requests may be known, the newest last. [`USERNAMES_MAX`] at
    /// most.
    pairs: Vec<Arc<Pair>>,
    owner: Option<Owner>,
    is_validated: bool,
    resource: Option<Kept>,
    /// `None` once nothing is waited for, as it is for most of its life.
    wait: Option<Box<Wait>>,
}

/// What a session waits for, and what is to happen to it if nothing happens before.
#[derive(Default)]
struct Wait {
    expecting: Option<Expecting>,
    /// The shard that gets the session if its owner yields; while there is one, others are denied.
    asker: Option<u16>,
    /// Its owner has been told to end it.
    ending: Option<EndReason>,
    /// When it is given up unless its client has come.
    validate_by: Option<Instant>,
    /// Its key in the queue of what is due.
    due_at: Option<Instant>,
}

/// A pair, told from others by its username.
#[derive(Clone)]
struct ByUsername(Arc<Pair>);

impl PartialEq for ByUsername {
    fn eq(&self, other: &Self) -> bool {
        self.0.username == other.0.username
    }
}

impl Eq for ByUsername {}

impl Hash for ByUsername {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.username.hash(state);
    }
}

impl Borrow<str> for ByUsername {
    fn borrow(&self) -> &str {
        &self.0.username
    }
}

/// Where a session's port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    shard: u16,
    /// As the shard names it; `None` until it says that the client is proven.
    key: Option<SessionKey>,
}

/// An expectation that not all shards have agreed to.
struct Expecting {
    /// The session's first: without it there is no session.
    is_first: bool,
    /// What the session has not been named before.
    added: Vec<Arc<Pair>>,
    /// Answers that have not come: one of each shard for each pair.
    answers_due: usize,
    refused: Option<NotExpected>,
    /// `None` when nobody waits any more.
    answer_by: Option<Instant>,
    then: Option<Then>,
}

/// What follows when all shards expect a session.
pub(super) enum Then {
    /// Whoever signalled it may tell the client. Dropped when a shard has not answered in time.
    Reply(oneshot::Sender<Result<(), NotExpected>>),
    /// A client without signalling waits on this shard.
    Own(u16),
}

/// A session that cannot be, or a pair that cannot be added to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) session: RtcId,
    pub(super) cause: Cause,
    /// The session is gone, and its place is to be freed.
    pub(super) is_over: bool,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Refused(NotExpected),
    /// A shard has not answered.
    Silence,
    /// The client was told where to go and never came, or the origin has never answered.
    NeverValidated,
}

impl Arbiter {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            // Shards are numbered in 16 bits.
            shards: u16::try_from(shards).unwrap_or(u16::MAX),
            next: 1,
            records: BTreeMap::new(),
            by_username: HashMap::new(),
            by_token: HashTable::new(),
            hasher: RandomState::new(),
            due: BTreeSet::new(),
            validated: 0,
            commands: Vec::new(),
        }
    }

    /// What the shards are to be told, in order.
    pub(super) fn take_commands(&mut self) -> Vec<(u16, Command)> {
        std::mem::take(&mut self.commands)
    }

    /// A new session, whose offer now goes to its origin.
    pub(super) fn reserve(&mut self, now: Instant) -> RtcId {
        let id = RtcId(self.next);
        self.next += 1;
        let record = Record {
            created: now,
            signalled: None,
            pairs: Vec::new(),
            owner: None,
            is_validated: false,
            resource: None,
            wait: None,
        };
        self.records.insert(id, Box::new(record));
        self.validate_by(id, Some(now + VALIDATION_TIMEOUT));
        id
    }

    /// Lets all shards expect `pairs` of a session. Pairs that they expect already are left out,
    /// and without any there is nothing to wait for.
    pub(super) fn expect(
        &mut self,
        now: Instant,
        signalled: Signalled,
        pairs: Vec<Pair>,
        then: Then,
    ) -> Option<Failure> {
        let id = signalled.id;
        let by_username = &self.by_username;
        let record = self.records.get_mut(&id).filter(|record| record.ending().is_none())?;
        if record.expecting().is_some() {
            // Of two requests for one session at a time, the later one gets no answer.
            return None;
        }
        let owner_of = |pair: &Pair| by_username.get(&*pair.username);
        if pairs.iter().any(|pair| owner_of(pair).is_some_and(|owner| *owner != id)) {
            let is_first = record.pairs.is_empty();
            return Some(self.refuse(id, then, NotExpected::PairTaken, is_first));
        }
        let signalled = Arc::clone(record.signalled.get_or_insert_with(|| Arc::new(signalled)));
        let is_first = record.pairs.is_empty();
        if !record.is_validated {
            record.wait.get_or_insert_default().validate_by = Some(now + VALIDATION_TIMEOUT);
        }
        let (mut added, mut answers_due) = (Vec::new(), 0);
        for pair in pairs {
            if record.pairs.iter().any(|known| known.username == pair.username) {
                continue;
            }
            if record.pairs.len() >= USERNAMES_MAX {
                self.by_username.remove(&*record.pairs.remove(0).username);
            }
            let pair = Arc::new(pair);
            // Most sessions have one.
            record.pairs.reserve_exact(1);
            record.pairs.push(Arc::clone(&pair));
            added.push(Arc::clone(&pair));
            self.by_username.insert(ByUsername(Arc::clone(&pair)), id);
            for shard in 0..self.shards {
                let (session, pair) = (Arc::clone(&signalled), Arc::clone(&pair));
                self.commands.push((shard, Command::Expect { session, pair }));
                answers_due += 1;
            }
        }
        let answer_by = Some(now + ANSWER_TIMEOUT);
        let then = Some(then);
        let expecting = Expecting { is_first, added, answers_due, refused: None, answer_by, then };
        record.wait.get_or_insert_default().expecting = Some(expecting);
        self.schedule(id);
        if answers_due == 0 { self.agreed(id) } else { None }
    }

    /// A shard's answer to one pair.
    pub(super) fn expected(
        &mut self,
        id: RtcId,
        result: Result<(), NotExpected>,
    ) -> Option<Failure> {
        let expecting = self.records.get_mut(&id)?.expecting_mut()?;
        expecting.answers_due = expecting.answers_due.saturating_sub(1);
        expecting.refused = expecting.refused.or(result.err());
        if expecting.answers_due == 0 { self.agreed(id) } else { None }
    }

    /// All shards have answered.
    fn agreed(&mut self, id: RtcId) -> Option<Failure> {
        let record = self.records.get_mut(&id)?;
        let Expecting { is_first, added, refused, then, .. } =
            record.wait.as_mut()?.expecting.take()?;
        if refused.is_some() {
            // Whoever asks for them once more must not be told that all shards expect them.
            record.pairs.retain(|pair| !added.iter().any(|added| Arc::ptr_eq(added, pair)));
            for pair in &added {
                self.by_username.remove(&*pair.username);
            }
        }
        self.schedule(id);
        match (refused, then) {
            (None, Some(Then::Reply(reply))) => {
                // Who asked may have given up; the session waits for its client until it is due.
                let _ = reply.send(Ok(()));
                None
            }
            (None, Some(Then::Own(shard))) => {
                self.own_first(id, shard);
                None
            }
            // It has been given up by who waited, who is told nothing.
            (_, None) => None,
            (Some(refused), Some(then)) => Some(self.refuse(id, then, refused, is_first)),
        }
    }

    /// Who waits is told. Without its first pair a session is over; of a further one, the shards
    /// that agreed keep it, which harms nobody: it is the session's own.
    fn refuse(&mut self, id: RtcId, then: Then, refused: NotExpected, is_first: bool) -> Failure {
        then.refuse(refused);
        let is_over = is_first && self.finish(id, EndReason::NeverValidated, Duration::ZERO);
        Failure { session: id, cause: Cause::Refused(refused), is_over }
    }

    /// Whether a session's requests are named so.
    pub(super) fn knows(&self, username: &str) -> bool {
        self.by_username.contains_key(username)
    }

    /// A client has proven itself on `shard`, which does not own the session.
    pub(super) fn path(&mut self, shard: u16, request: PathRequest) {
        let id = request.session;
        let Some(record) = self.records.get_mut(&id).filter(|record| record.ending().is_none())
        else {
            return self.commands.push((shard, Command::Deny { session: id }));
        };
        match (record.owner, record.wait.as_ref().and_then(|wait| wait.asker)) {
            (None, _) => self.own_first(id, shard),
            // Both were asked before the answer to the first was known, and it answers them all.
            (Some(owner), _) if owner.shard == shard => {}
            (Some(_), Some(asker)) if asker == shard => {}
            (Some(_), Some(_)) => self.commands.push((shard, Command::Deny { session: id })),
            (Some(owner), None) => {
                record.wait.get_or_insert_default().asker = Some(shard);
                let path = Box::new(request);
                self.commands.push((owner.shard, Command::Yield { path }));
            }
        }
    }

    fn own_first(&mut self, id: RtcId, shard: u16) {
        if let Some(record) = self.records.get_mut(&id)
            && record.owner.is_none()
        {
            record.owner = Some(Owner { shard, key: None });
            self.commands.push((shard, Command::Own { session: id, handover: None }));
        }
    }

    /// The owner's answer to a shard that asked. A session that was to end, and that its owner let
    /// go of before it heard of that, is over: returns why.
    pub(super) fn yielded(
        &mut self,
        shard: u16,
        id: RtcId,
        handover: Option<Box<Handover>>,
    ) -> Option<EndReason> {
        let record = self.records.get_mut(&id)?;
        record.owner.filter(|owner| owner.shard == shard)?;
        let asker = record.wait.as_mut()?.asker.take()?;
        let command = match (handover, record.ending()) {
            (Some(_), Some(reason)) => {
                self.forget(id);
                return Some(reason);
            }
            (Some(handover), None) => {
                record.owner = Some(Owner { shard: asker, key: None });
                Command::Own { session: id, handover: Some(handover) }
            }
            (None, _) => Command::Deny { session: id },
        };
        self.commands.push((asker, command));
        self.schedule(id);
        None
    }

    /// The client is proven on its owner. Returns whether that is so for the first time.
    #[must_use]
    pub(super) fn validated(&mut self, shard: u16, id: RtcId, key: SessionKey) -> bool {
        let Some(record) = self.records.get_mut(&id) else {
            return false;
        };
        let Some(owner) = record.owner.as_mut().filter(|owner| owner.shard == shard) else {
            return false;
        };
        owner.key = Some(key);
        let is_first = !std::mem::replace(&mut record.is_validated, true);
        self.validated += usize::from(is_first);
        self.validate_by(id, None);
        is_first
    }

    /// The session is over on its owner. Returns what its URL stood for, or `None` when `shard` is
    /// not its owner.
    pub(super) fn ended(
        &mut self,
        shard: u16,
        id: RtcId,
        reason: EndReason,
    ) -> Option<Option<Resource>> {
        let owner = self.records.get(&id)?.owner?;
        if owner.shard != shard {
            return None;
        }
        // What is on its way to the owner comes behind its end, and begins the session there anew.
        let expects_again =
            self.records.get(&id).is_some_and(|record| record.expecting().is_some());
        for other in (0..self.shards).filter(|other| *other != shard || expects_again) {
            let linger = Duration::ZERO;
            self.commands.push((other, Command::Finish { session: id, reason, linger }));
        }
        Some(self.forget(id).and_then(|record| record.opened()))
    }

    /// Ends a session: at once where no shard owns it, else when its owner says so. Returns whether
    /// it is over.
    #[must_use]
    pub(super) fn finish(&mut self, id: RtcId, reason: EndReason, linger: Duration) -> bool {
        let Some(record) = self.records.get_mut(&id).filter(|record| record.ending().is_none())
        else {
            return false;
        };
        if record.signalled.is_some() {
            for shard in 0..self.shards {
                self.commands.push((shard, Command::Finish { session: id, reason, linger }));
            }
        }
        if record.owner.is_none() {
            self.forget(id);
            return true;
        }
        let wait = record.wait.get_or_insert_default();
        wait.ending = Some(reason);
        wait.expecting = None;
        self.take_resource(id);
        self.validate_by(id, None);
        false
    }

    /// Whether there is such a session.
    pub(super) fn has(&self, id: RtcId) -> bool {
        self.records.contains_key(&id)
    }

    /// Ends all sessions that no shard owns, and so would never say that they are over. Returns what
    /// their URLs stood for, too. The shards are not told: they end everything.
    pub(super) fn abandon_all(&mut self) -> Vec<(RtcId, Option<Resource>)> {
        let unowned = self.unowned(RtcId(0)).map(|(id, _, _)| id);
        let unowned: Vec<RtcId> = unowned.collect();
        let abandon = |id| Some((id, self.forget(id)?.opened()));
        unowned.into_iter().filter_map(abandon).collect()
    }

    /// Gives a session its URL, in place of an earlier one.
    pub(super) fn publish(&mut self, now: Instant, id: RtcId, resource: &Resource) {
        if self.records.get(&id).is_none_or(|record| record.ending().is_some()) {
            return;
        }
        self.take_kept(id);
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        record.resource = Some(Kept::new(resource));
        let validate_by = (!record.is_validated).then(|| now + VALIDATION_TIMEOUT);
        let (records, hasher) = (&self.records, &self.hasher);
        let hash = |id: &RtcId| {
            let kept = records.get(id).and_then(|record| record.resource.as_ref());
            kept.and_then(Kept::token).map_or(0, |token| hasher.hash_one(&*token))
        };
        self.by_token.insert_unique(hasher.hash_one(&*resource.token.0), id, hash);
        self.validate_by(id, validate_by);
    }

    /// What a session URL stands for.
    pub(super) fn by_token(&self, token: &Token) -> Option<(RtcId, Resource)> {
        let kept = |id: &RtcId| self.records.get(id)?.resource.as_ref();
        let is_it = |id: &RtcId| kept(id).is_some_and(|kept| kept.has_token(&token.0));
        let id = self.by_token.find(self.hasher.hash_one(&*token.0), is_it)?;
        Some((*id, kept(id)?.open()?))
    }

    /// Takes a session's URL away.
    pub(super) fn take_resource(&mut self, id: RtcId) -> Option<Resource> {
        self.take_kept(id)?.open()
    }

    fn take_kept(&mut self, id: RtcId) -> Option<Kept> {
        let kept = self.records.get_mut(&id)?.resource.take()?;
        self.forget_token(id, &kept);
        Some(kept)
    }

    fn forget_token(&mut self, id: RtcId, kept: &Kept) {
        let hash = kept.token().map_or(0, |token| self.hasher.hash_one(&*token));
        if let Ok(known) = self.by_token.find_entry(hash, |known| *known == id) {
            known.remove();
        }
    }

    /// Gives up what has waited for too long, and returns what was given up, with what the URLs of
    /// sessions stood for.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(Failure, Option<Resource>)> {
        let mut failures = Vec::new();
        while let Some(&(at, id)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            if let Some(record) = self.records.get_mut(&id) {
                record.wait.get_or_insert_default().due_at = None;
            }
            failures.extend(self.give_up(now, id));
            // Whatever is left to wait for has a later time.
            self.schedule(id);
        }
        failures
    }

    /// The relay quits, and does not wait long for clients that have not come.
    pub(super) fn hurry(&mut self, now: Instant) {
        let by = now + LAST_CALL;
        let is_later = |record: &Record| record.validate_by().is_some_and(|at| at > by);
        let late = self.records.iter().filter(|(_, record)| is_later(record));
        for id in late.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.validate_by(id, Some(by));
        }
    }

    fn give_up(&mut self, now: Instant, id: RtcId) -> Option<(Failure, Option<Resource>)> {
        let record = self.records.get_mut(&id)?;
        let validate_by = record.validate_by();
        let is_past = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let mut cause = Cause::NeverValidated;
        if let Some(expecting) = record.expecting_mut()
            && is_past(expecting.answer_by)
        {
            expecting.answer_by = None;
            expecting.then = None;
            cause = Cause::Silence;
            if !expecting.is_first && !is_past(validate_by) {
                return Some((Failure { session: id, cause, is_over: false }, None));
            }
        }
        let resource = self.take_resource(id);
        let is_over = self.finish(id, EndReason::NeverValidated, Duration::ZERO);
        Some((Failure { session: id, cause, is_over }, resource))
    }

    /// Sessions that no shard owns, from `from` on: when each began, and what its client's requests
    /// will be named.
    pub(super) fn unowned(
        &self,
        from: RtcId,
    ) -> impl Iterator<Item = (RtcId, Instant, Option<&str>)> {
        let records = self.records.range(from..).filter(|(_, record)| record.owner.is_none());
        records.map(|(id, record)| (*id, record.created, record.newest_username()))
    }

    /// How many sessions have a client that has not come.
    pub(super) fn unvalidated_count(&self) -> usize {
        self.records.len() - self.validated
    }

    /// When a session began, what its client's requests are named, and where it is once its client
    /// has come.
    pub(super) fn find(&self, id: RtcId) -> Option<(Instant, Option<&str>, Option<SessionRef>)> {
        let record = self.records.get(&id)?;
        let place =
            record.owner.and_then(|owner| Some(SessionRef { shard: owner.shard, key: owner.key? }));
        Some((record.created, record.newest_username(), place))
    }

    fn forget(&mut self, id: RtcId) -> Option<Box<Record>> {
        let record = self.records.remove(&id)?;
        self.validated -= usize::from(record.is_validated);
        for pair in &record.pairs {
            self.by_username.remove(&*pair.username);
        }
        if let Some(kept) = &record.resource {
            self.forget_token(id, kept);
        }
        if let Some(at) = record.wait.as_ref().and_then(|wait| wait.due_at) {
            self.due.remove(&(at, id));
        }
        Some(record)
    }

    /// Gives a client until then to come; `None` where it has come, or need not.
    fn validate_by(&mut self, id: RtcId, at: Option<Instant>) {
        if let Some(record) = self.records.get_mut(&id) {
            record.wait.get_or_insert_default().validate_by = at;
        }
        self.schedule(id);
    }

    fn schedule(&mut self, id: RtcId) {
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        let answer_by = record.expecting().and_then(|expecting| expecting.answer_by);
        let at = [answer_by, record.validate_by()].into_iter().flatten().min();
        let due_at = &mut record.wait.get_or_insert_default().due_at;
        if *due_at != at {
            if let Some(before) = std::mem::replace(due_at, at) {
                self.due.remove(&(before, id));
            }
            if let Some(at) = at {
                self.due.insert((at, id));
            }
        }
        record.wait.take_if(|wait| wait.is_over());
    }
}

impl Wait {
    /// Whether nothing is waited for. What waits for a time is in the queue of what is due.
    fn is_over(&self) -> bool {
        let Self { expecting, asker, ending, validate_by: _, due_at } = self;
        expecting.is_none() && asker.is_none() && ending.is_none() && due_at.is_none()
    }
}

impl Record {
    fn newest_username(&self) -> Option<&str> {
        self.pairs.last().map(|pair| &*pair.username)
    }

    fn expecting(&self) -> Option<&Expecting> {
        self.wait.as_ref()?.expecting.as_ref()
    }

    fn expecting_mut(&mut self) -> Option<&mut Expecting> {
        self.wait.as_mut()?.expecting.as_mut()
    }

    fn ending(&self) -> Option<EndReason> {
        self.wait.as_ref()?.ending
    }

    fn validate_by(&self) -> Option<Instant> {
        self.wait.as_ref()?.validate_by
    }

    /// What its URL stood for.
    fn opened(&self) -> Option<Resource> {
        self.resource.as_ref()?.open()
    }
}

impl Then {
    /// A client without signalling is not told: it has not been spoken to.
    fn refuse(self, refused: NotExpected) {
        match self {
            Self::Reply(reply) => {
                let _ = reply.send(Err(refused));
            }
            Self::Own(_) => {}
        }
    }
}

/// From the HTTP answer to the client's first proven request.
pub(super) const VALIDATION_TIMEOUT: Duration = Duration::from_secs(30);
/// The same while the relay quits: who has an answer comes within some hundred milliseconds, or FFmpeg's
/// five seconds, or never.
const LAST_CALL: Duration = Duration::from_secs(5);
/// For the answers of all shards to an expectation. Each takes microseconds.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Names that one session keeps others from using. ICE restarts add to them without end, and a
/// client sends under the last few at most.
const USERNAMES_MAX: usize = 8;

#[cfg(test)]
pub(super) mod fixtures {
    use foldhash::SharedSeed;
    use foldhash::quality::SeedableRandomState;

    use super::*;
    use crate::session::webrtc::WebRtcSession;

    /// What an owner gives to the next.
    pub(in crate::control) fn handover(signalled: Arc<Signalled>, now: Instant) -> Box<Handover> {
        let hasher = SeedableRandomState::with_seed(1, SharedSeed::global_fixed());
        Box::new(WebRtcSession::new(signalled, now, hasher, now).hand_over())
    }

    impl Arbiter {
        /// Whether nothing is left of any session.
        pub(in crate::control) fn is_empty(&self) -> bool {
            self.records.is_empty()
                && self.by_username.is_empty()
                && self.by_token.is_empty()
                && self.due.is_empty()
                && self.validated == 0
                && self.commands.is_empty()
        }
    }
}

#[cfg(test)]
mod tests;
