//! Which shard owns a WebRTC session.
//!
//! The kernel spreads a client's paths over the shards, and nobody can tell beforehand where its
//! first binding request comes in. So every shard is told to expect the session, and the first one
//! that proves a client asks here to own it. When the client proves itself on another shard (dual
//! stack, several interfaces, roaming), that one asks, too; the owner is asked to yield, and its
//! memory of transactions decides. No I/O here; the clock is an argument, and what the shards are
//! to be told is left in a list.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::ask::{Resource, Token};
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
    by_username: HashMap<Arc<str>, RtcId>,
    by_token: HashMap<Token, RtcId>,
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
    /// What its client's binding requests may be named, the newest last. [`USERNAMES_MAX`] at most.
    usernames: Vec<Arc<str>>,
    expecting: Option<Box<Expecting>>,
    owner: Option<Owner>,
    /// The shard that gets the session if its owner yields; while there is one, others are denied.
    asker: Option<u16>,
    is_validated: bool,
    /// Its owner has been told to end it.
    ending: Option<EndReason>,
    resource: Option<Box<Resource>>,
    /// When it is given up unless its client has come.
    validate_by: Option<Instant>,
    /// Its key in the queue of what is due.
    due_at: Option<Instant>,
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
    added: Vec<Arc<str>>,
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
            by_token: HashMap::new(),
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
            usernames: Vec::new(),
            expecting: None,
            owner: None,
            asker: None,
            is_validated: false,
            ending: None,
            resource: None,
            validate_by: Some(now + VALIDATION_TIMEOUT),
            due_at: None,
        };
        self.records.insert(id, Box::new(record));
        self.schedule(id);
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
        let record = self.records.get_mut(&id).filter(|record| record.ending.is_none())?;
        if record.expecting.is_some() {
            // Of two requests for one session at a time, the later one gets no answer.
            return None;
        }
        let owner_of = |pair: &Pair| by_username.get(&pair.username);
        if pairs.iter().any(|pair| owner_of(pair).is_some_and(|owner| *owner != id)) {
            let is_first = record.usernames.is_empty();
            return Some(self.refuse(id, then, NotExpected::PairTaken, is_first));
        }
        let signalled = Arc::clone(record.signalled.get_or_insert_with(|| Arc::new(signalled)));
        let is_first = record.usernames.is_empty();
        if !record.is_validated {
            record.validate_by = Some(now + VALIDATION_TIMEOUT);
        }
        let (mut added, mut answers_due) = (Vec::new(), 0);
        for pair in pairs {
            if record.usernames.contains(&pair.username) {
                continue;
            }
            if record.usernames.len() >= USERNAMES_MAX {
                self.by_username.remove(&record.usernames.remove(0));
            }
            // Most sessions have one.
            record.usernames.reserve_exact(1);
            record.usernames.push(Arc::clone(&pair.username));
            added.push(Arc::clone(&pair.username));
            self.by_username.insert(Arc::clone(&pair.username), id);
            let pair = Arc::new(pair);
            for shard in 0..self.shards {
                let (session, pair) = (Arc::clone(&signalled), Arc::clone(&pair));
                self.commands.push((shard, Command::Expect { session, pair }));
                answers_due += 1;
            }
        }
        let answer_by = Some(now + ANSWER_TIMEOUT);
        let then = Some(then);
        let expecting = Expecting { is_first, added, answers_due, refused: None, answer_by, then };
        record.expecting = Some(Box::new(expecting));
        self.schedule(id);
        if answers_due == 0 { self.agreed(id) } else { None }
    }

    /// A shard's answer to one pair.
    pub(super) fn expected(
        &mut self,
        id: RtcId,
        result: Result<(), NotExpected>,
    ) -> Option<Failure> {
        let expecting = self.records.get_mut(&id)?.expecting.as_mut()?;
        expecting.answers_due = expecting.answers_due.saturating_sub(1);
        expecting.refused = expecting.refused.or(result.err());
        if expecting.answers_due == 0 { self.agreed(id) } else { None }
    }

    /// All shards have answered.
    fn agreed(&mut self, id: RtcId) -> Option<Failure> {
        let record = self.records.get_mut(&id)?;
        let Expecting { is_first, added, refused, then, .. } = *record.expecting.take()?;
        if refused.is_some() {
            // Whoever asks for them once more must not be told that all shards expect them.
            record.usernames.retain(|username| !added.contains(username));
            for username in &added {
                self.by_username.remove(username);
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
        let Some(record) = self.records.get_mut(&id).filter(|record| record.ending.is_none())
        else {
            return self.commands.push((shard, Command::Deny { session: id }));
        };
        match (record.owner, record.asker) {
            (None, _) => self.own_first(id, shard),
            // Both were asked before the answer to the first was known, and it answers them all.
            (Some(owner), _) if owner.shard == shard => {}
            (Some(_), Some(asker)) if asker == shard => {}
            (Some(_), Some(_)) => self.commands.push((shard, Command::Deny { session: id })),
            (Some(owner), None) => {
                record.asker = Some(shard);
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
        let asker = record.asker.take()?;
        let command = match (handover, record.ending) {
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
        record.validate_by = None;
        let is_first = !std::mem::replace(&mut record.is_validated, true);
        self.validated += usize::from(is_first);
        self.schedule(id);
        is_first
    }

    /// The session is over on its owner. Returns what its URL stood for, or `None` when `shard` is
    /// not its owner.
    pub(super) fn ended(
        &mut self,
        shard: u16,
        id: RtcId,
        reason: EndReason,
    ) -> Option<Option<Box<Resource>>> {
        let owner = self.records.get(&id)?.owner?;
        if owner.shard != shard {
            return None;
        }
        // What is on its way to the owner comes behind its end, and begins the session there anew.
        let expects_again = self.records.get(&id).is_some_and(|record| record.expecting.is_some());
        for other in (0..self.shards).filter(|other| *other != shard || expects_again) {
            let linger = Duration::ZERO;
            self.commands.push((other, Command::Finish { session: id, reason, linger }));
        }
        Some(self.forget(id).and_then(|record| record.resource))
    }

    /// Ends a session: at once where no shard owns it, else when its owner says so. Returns whether
    /// it is over.
    #[must_use]
    pub(super) fn finish(&mut self, id: RtcId, reason: EndReason, linger: Duration) -> bool {
        let Some(record) = self.records.get_mut(&id).filter(|record| record.ending.is_none())
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
        record.ending = Some(reason);
        record.validate_by = None;
        record.expecting = None;
        self.take_resource(id);
        self.schedule(id);
        false
    }

    /// Whether there is such a session.
    pub(super) fn has(&self, id: RtcId) -> bool {
        self.records.contains_key(&id)
    }

    /// Ends all sessions that no shard owns, and so would never say that they are over. Returns what
    /// their URLs stood for, too. The shards are not told: they end everything.
    pub(super) fn abandon_all(&mut self) -> Vec<(RtcId, Option<Box<Resource>>)> {
        let unowned = self.unowned(RtcId(0)).map(|(id, _, _)| id);
        let unowned: Vec<RtcId> = unowned.collect();
        let abandon = |id| Some((id, self.forget(id)?.resource));
        unowned.into_iter().filter_map(abandon).collect()
    }

    /// Gives a session its URL, in place of an earlier one.
    pub(super) fn publish(&mut self, now: Instant, id: RtcId, mut resource: Box<Resource>) {
        if self.records.get(&id).is_none_or(|record| record.ending.is_some()) {
            return;
        }
        self.take_resource(id);
        if let Some(record) = self.records.get_mut(&id) {
            if !record.is_validated {
                record.validate_by = Some(now + VALIDATION_TIMEOUT);
            }
            resource.shrink();
            self.by_token.insert(resource.token.clone(), id);
            record.resource = Some(resource);
        }
        self.schedule(id);
    }

    /// What a session URL stands for.
    pub(super) fn by_token(&self, token: &Token) -> Option<(RtcId, &Resource)> {
        let id = *self.by_token.get(token)?;
        Some((id, self.records.get(&id)?.resource.as_deref()?))
    }

    /// Takes a session's URL away.
    pub(super) fn take_resource(&mut self, id: RtcId) -> Option<Box<Resource>> {
        let resource = self.records.get_mut(&id)?.resource.take()?;
        self.by_token.remove(&resource.token);
        Some(resource)
    }

    /// Gives up what has waited for too long, and returns what was given up, with what the URLs of
    /// sessions stood for.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(Failure, Option<Box<Resource>>)> {
        let mut failures = Vec::new();
        while let Some(&(at, id)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            if let Some(record) = self.records.get_mut(&id) {
                record.due_at = None;
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
        let is_later = |record: &Record| record.validate_by.is_some_and(|at| at > by);
        let late = self.records.iter().filter(|(_, record)| is_later(record));
        for id in late.map(|(&id, _)| id).collect::<Vec<_>>() {
            if let Some(record) = self.records.get_mut(&id) {
                record.validate_by = Some(by);
            }
            self.schedule(id);
        }
    }

    fn give_up(&mut self, now: Instant, id: RtcId) -> Option<(Failure, Option<Box<Resource>>)> {
        let record = self.records.get_mut(&id)?;
        let is_past = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let mut cause = Cause::NeverValidated;
        if let Some(expecting) = &mut record.expecting
            && is_past(expecting.answer_by)
        {
            expecting.answer_by = None;
            expecting.then = None;
            cause = Cause::Silence;
            if !expecting.is_first && !is_past(record.validate_by) {
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
        for username in &record.usernames {
            self.by_username.remove(username);
        }
        if let Some(resource) = &record.resource {
            self.by_token.remove(&resource.token);
        }
        if let Some(at) = record.due_at {
            self.due.remove(&(at, id));
        }
        Some(record)
    }

    fn schedule(&mut self, id: RtcId) {
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        let answer_by = record.expecting.as_ref().and_then(|expecting| expecting.answer_by);
        let at = [answer_by, record.validate_by].into_iter().flatten().min();
        if record.due_at == at {
            return;
        }
        if let Some(before) = std::mem::replace(&mut record.due_at, at) {
            self.due.remove(&(before, id));
        }
        if let Some(at) = at {
            self.due.insert((at, id));
        }
    }
}

impl Record {
    fn newest_username(&self) -> Option<&str> {
        self.usernames.last().map(AsRef::as_ref)
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
