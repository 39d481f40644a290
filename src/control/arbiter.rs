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
    records: BTreeMap<RtcId, Record>,
    by_username: HashMap<Box<str>, RtcId>,
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
    usernames: Vec<Box<str>>,
    expecting: Option<Expecting>,
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
    added: Vec<Box<str>>,
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
        self.records.insert(id, record);
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
            record.usernames.push(pair.username.clone());
            added.push(pair.username.clone());
            self.by_username.insert(pair.username.clone(), id);
            let pair = Arc::new(pair);
            for shard in 0..self.shards {
                let (session, pair) = (Arc::clone(&signalled), Arc::clone(&pair));
                self.commands.push((shard, Command::Expect { session, pair }));
                answers_due += 1;
            }
        }
        let answer_by = Some(now + ANSWER_TIMEOUT);
        let then = Some(then);
        record.expecting =
            Some(Expecting { is_first, added, answers_due, refused: None, answer_by, then });
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
        let Expecting { is_first, added, refused, then, .. } = record.expecting.take()?;
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
    pub(super) fn publish(&mut self, now: Instant, id: RtcId, resource: Box<Resource>) {
        if self.records.get(&id).is_none_or(|record| record.ending.is_some()) {
            return;
        }
        self.take_resource(id);
        if let Some(record) = self.records.get_mut(&id) {
            if !record.is_validated {
                record.validate_by = Some(now + VALIDATION_TIMEOUT);
            }
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

    fn forget(&mut self, id: RtcId) -> Option<Record> {
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
mod tests {
    use std::collections::VecDeque;
    use std::net::SocketAddr;

    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, proptest};

    use super::fixtures::handover;
    use super::*;
    use crate::control::directory::fixtures::{CLIENT, stream};
    use crate::protocol::stun::{IntegrityKey, TransactionId};
    use crate::shard::OriginId;
    use crate::shard::command::Role;

    const SHARDS: u16 = 3;
    const REASON: EndReason = EndReason::Deleted;

    /// What a shard was told, as far as it can be compared.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Told {
        Expect(String),
        /// Whether there was somebody before.
        Own(bool),
        Deny,
        Yield,
        Finish(EndReason, Duration),
    }

    /// An arbiter, and what its shards would say.
    struct Stage {
        arbiter: Arbiter,
        now: Instant,
    }

    impl Stage {
        fn new() -> Self {
            Self { arbiter: Arbiter::new(usize::from(SHARDS)), now: Instant::now() }
        }

        /// A session that all shards expect under `name`.
        fn expected(name: &str) -> (Self, RtcId) {
            let mut stage = Self::new();
            let id = stage.arbiter.reserve(stage.now);
            let mut answer = stage.expect(id, name);
            stage.told();
            assert_eq!(stage.agree(id), None);
            assert_eq!(answer.try_recv(), Ok(Ok(())));
            (stage, id)
        }

        /// A session whose client is proven on shard 0.
        fn owned() -> (Self, RtcId) {
            let (mut stage, id) = Self::expected("o:c");
            stage.path(0, id);
            assert!(stage.arbiter.validated(0, id, key(1)));
            stage.told();
            (stage, id)
        }

        fn expect(&mut self, id: RtcId, name: &str) -> Answer {
            let (reply, answer) = oneshot::channel();
            let pairs = vec![pair(name)];
            let failure = self.arbiter.expect(self.now, signalled(id), pairs, Then::Reply(reply));
            assert_eq!(failure, None);
            answer
        }

        fn agree(&mut self, id: RtcId) -> Option<Failure> {
            (0..SHARDS).find_map(|_| self.arbiter.expected(id, Ok(())))
        }

        fn path(&mut self, shard: u16, id: RtcId) {
            self.arbiter.path(shard, request(id));
        }

        fn yielded(&mut self, shard: u16, id: RtcId, is_given: bool) -> Option<EndReason> {
            let handover = is_given.then(|| handover(Arc::new(signalled(id)), self.now));
            self.arbiter.yielded(shard, id, handover)
        }

        fn told(&mut self) -> Vec<(u16, Told)> {
            self.arbiter.take_commands().into_iter().map(|(shard, c)| (shard, told(c))).collect()
        }
    }

    type Answer = oneshot::Receiver<Result<(), NotExpected>>;

    fn told(command: Command) -> Told {
        match command {
            Command::Expect { pair, .. } => Told::Expect(pair.username.to_string()),
            Command::Own { handover, .. } => Told::Own(handover.is_some()),
            Command::Deny { .. } => Told::Deny,
            Command::Yield { .. } => Told::Yield,
            Command::Finish { reason, linger, .. } => Told::Finish(reason, linger),
            other @ (Command::Open { .. }
            | Command::Refuse { .. }
            | Command::Close { .. }
            | Command::Drain(_)
            | Command::CloseAll
            | Command::KeyLength(_)
            | Command::Sessions { .. }
            | Command::Counters { .. }
            | Command::Stop) => panic!("{other:?} is not for the arbiter to say"),
        }
    }

    fn signalled(id: RtcId) -> Signalled {
        Signalled {
            id,
            origin: OriginId(0),
            address: SocketAddr::from(([10, 0, 0, 1], 8000)),
            stream: stream("live/a"),
            role: Role::Publish,
        }
    }

    fn pair(name: &str) -> Pair {
        Pair { username: name.into(), key: IntegrityKey::new(b"password") }
    }

    fn request(session: RtcId) -> PathRequest {
        let transaction = TransactionId([7; 12]);
        PathRequest { session, client: CLIENT, transaction, nominated: true }
    }

    fn key(slot: u32) -> SessionKey {
        SessionKey { slot, generation: 1 }
    }

    fn resource(token: &str) -> Box<Resource> {
        Box::new(Resource {
            token: Token(token.to_owned()),
            api: SocketAddr::from(([10, 0, 0, 1], 1985)),
            host: crate::config::HostHeader::Client,
            target: Some("/session".to_owned()),
            takes_patch: false,
            address: None,
            origin_credentials: Vec::new(),
            client_credentials: Vec::new(),
        })
    }

    fn to_all(told: &Told) -> Vec<(u16, Told)> {
        (0..SHARDS).map(|shard| (shard, told.clone())).collect()
    }

    fn finish(linger: Duration) -> Told {
        Told::Finish(REASON, linger)
    }

    #[test]
    fn who_signals_is_answered_when_the_last_shard_has_agreed() {
        let mut stage = Stage::new();
        let id = stage.arbiter.reserve(stage.now);
        let mut answer = stage.expect(id, "o:c");
        assert_eq!(stage.told(), to_all(&Told::Expect("o:c".to_owned())));
        for _ in 1..SHARDS {
            stage.arbiter.expected(id, Ok(()));
            assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        }
        stage.arbiter.expected(id, Ok(()));
        assert_eq!(answer.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn a_shard_that_refuses_makes_all_forget_the_session() {
        let mut stage = Stage::new();
        let id = stage.arbiter.reserve(stage.now);
        let mut answer = stage.expect(id, "o:c");
        stage.told();
        stage.arbiter.expected(id, Ok(()));
        stage.arbiter.expected(id, Err(NotExpected::Full));
        assert_eq!(stage.told(), [], "not before all have answered");
        let failure = stage.arbiter.expected(id, Ok(()));
        let cause = Cause::Refused(NotExpected::Full);
        assert_eq!(failure, Some(Failure { session: id, cause, is_over: true }));
        assert_eq!(answer.try_recv(), Ok(Err(NotExpected::Full)));
        let forget = Told::Finish(EndReason::NeverValidated, Duration::ZERO);
        assert_eq!(stage.told(), to_all(&forget));
        assert!(!stage.arbiter.has(id) && !stage.arbiter.knows("o:c"));
    }

    #[test]
    fn a_pair_of_another_session_is_refused_without_asking_a_shard() {
        let (mut stage, first) = Stage::expected("o:c");
        let second = stage.arbiter.reserve(stage.now);
        let (reply, mut answer) = oneshot::channel();
        let pairs = vec![pair("other:c"), pair("o:c")];
        let then = Then::Reply(reply);
        let failure = stage.arbiter.expect(stage.now, signalled(second), pairs, then);
        let cause = Cause::Refused(NotExpected::PairTaken);
        assert_eq!(failure, Some(Failure { session: second, cause, is_over: true }));
        assert_eq!(answer.try_recv(), Ok(Err(NotExpected::PairTaken)));
        assert_eq!(stage.told(), []);
        assert!(stage.arbiter.has(first) && !stage.arbiter.has(second));
        assert!(stage.arbiter.knows("o:c") && !stage.arbiter.knows("other:c"));
    }

    #[test]
    fn a_pair_is_free_again_when_its_session_is_over() {
        let (mut stage, first) = Stage::expected("o:c");
        assert!(stage.arbiter.finish(first, REASON, Duration::ZERO));
        let second = stage.arbiter.reserve(stage.now);
        let mut answer = stage.expect(second, "o:c");
        stage.agree(second);
        assert_eq!(answer.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn a_restart_adds_a_pair_and_a_known_one_is_not_told_again() {
        let (mut stage, id) = Stage::owned();
        let mut answer = stage.expect(id, "o2:c2");
        assert_eq!(stage.told(), to_all(&Told::Expect("o2:c2".to_owned())));
        stage.agree(id);
        assert_eq!(answer.try_recv(), Ok(Ok(())));
        let mut again = stage.expect(id, "o2:c2");
        assert_eq!((again.try_recv(), stage.told()), (Ok(Ok(())), vec![]));
    }

    #[test]
    fn a_refused_restart_leaves_the_session_as_it_was() {
        let (mut stage, id) = Stage::owned();
        let mut answer = stage.expect(id, "o2:c2");
        stage.told();
        stage.arbiter.expected(id, Err(NotExpected::TooManyPairs));
        stage.arbiter.expected(id, Err(NotExpected::TooManyPairs));
        let failure = stage.arbiter.expected(id, Err(NotExpected::TooManyPairs)).unwrap();
        assert!(!failure.is_over && stage.arbiter.has(id));
        assert_eq!(answer.try_recv(), Ok(Err(NotExpected::TooManyPairs)));
        assert_eq!(stage.told(), []);
    }

    #[test]
    fn restarts_without_end_keep_the_names_of_the_last_few() {
        let (mut stage, id) = Stage::owned();
        for n in 0..20 {
            stage.expect(id, &format!("o{n}:c{n}"));
            stage.agree(id);
        }
        assert!(stage.arbiter.knows("o19:c19") && !stage.arbiter.knows("o:c"));
        assert_eq!(stage.arbiter.by_username.len(), USERNAMES_MAX);
    }

    #[test]
    fn of_two_restarts_at_a_time_the_second_gets_no_answer() {
        let (mut stage, id) = Stage::owned();
        let mut first = stage.expect(id, "o2:c2");
        let mut second = stage.expect(id, "o3:c3");
        assert_eq!(second.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        stage.agree(id);
        assert_eq!(first.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn a_counter_offer_is_agreed_at_once_and_its_first_pair_may_follow() {
        let mut stage = Stage::new();
        let id = stage.arbiter.reserve(stage.now);
        let (reply, mut answer) = oneshot::channel();
        stage.arbiter.expect(stage.now, signalled(id), Vec::new(), Then::Reply(reply));
        assert_eq!((answer.try_recv(), stage.told()), (Ok(Ok(())), vec![]));
        let mut answer = stage.expect(id, "o:c");
        stage.agree(id);
        assert_eq!(answer.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn shards_that_do_not_answer_are_waited_for_two_seconds() {
        let mut stage = Stage::new();
        let id = stage.arbiter.reserve(stage.now);
        let mut answer = stage.expect(id, "o:c");
        stage.arbiter.expected(id, Ok(()));
        assert_eq!(stage.arbiter.expire(stage.now + ANSWER_TIMEOUT / 2).len(), 0);
        let failures = stage.arbiter.expire(stage.now + ANSWER_TIMEOUT);
        let failure = Failure { session: id, cause: Cause::Silence, is_over: true };
        assert_eq!(failures.iter().map(|(failure, _)| *failure).collect::<Vec<_>>(), [failure]);
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(stage.arbiter.expected(id, Ok(())), None, "too late");
    }

    #[test]
    fn late_answers_to_a_restart_do_not_count_for_the_next_one() {
        let (mut stage, id) = Stage::owned();
        let mut late = stage.expect(id, "o2:c2");
        stage.now += ANSWER_TIMEOUT;
        let failures = stage.arbiter.expire(stage.now);
        assert!(matches!(failures[..], [(Failure { is_over: false, .. }, None)]));
        assert_eq!(late.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        let mut early = stage.expect(id, "o3:c3");
        assert_eq!(early.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        stage.agree(id);
        let mut next = stage.expect(id, "o3:c3");
        stage.arbiter.expected(id, Ok(()));
        assert_eq!(next.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    }

    #[test]
    fn a_pair_that_a_shard_has_refused_is_asked_for_again() {
        let (mut stage, id) = Stage::owned();
        let mut refused = stage.expect(id, "o2:c2");
        for _ in 1..SHARDS {
            stage.arbiter.expected(id, Ok(()));
        }
        let failure = stage.arbiter.expected(id, Err(NotExpected::TooManyPairs));
        let cause = Cause::Refused(NotExpected::TooManyPairs);
        assert_eq!(failure, Some(Failure { session: id, cause, is_over: false }));
        assert_eq!(refused.try_recv(), Ok(Err(NotExpected::TooManyPairs)));
        assert!(stage.arbiter.knows("o:c") && !stage.arbiter.knows("o2:c2"));
        stage.told();
        stage.expect(id, "o2:c2");
        assert_eq!(stage.told(), to_all(&Told::Expect("o2:c2".to_owned())));
    }

    #[test]
    fn the_first_shard_that_proves_a_client_owns_its_session() {
        let (mut stage, id) = Stage::expected("o:c");
        stage.path(1, id);
        assert_eq!(stage.told(), [(1, Told::Own(false))]);
        assert!(stage.arbiter.validated(1, id, key(4)));
        let place = stage.arbiter.find(id).and_then(|(_, _, place)| place);
        assert_eq!(place, Some(SessionRef { shard: 1, key: key(4) }));
    }

    #[test]
    fn a_second_claim_is_the_owners_to_decide_even_before_its_client_is_proven() {
        let (mut stage, id) = Stage::expected("o:c");
        stage.path(0, id);
        stage.path(2, id);
        assert_eq!(stage.told(), [(0, Told::Own(false)), (0, Told::Yield)]);
    }

    #[test]
    fn a_session_that_its_owner_yields_moves_and_says_so_once() {
        let (mut stage, id) = Stage::owned();
        stage.path(2, id);
        stage.told();
        assert_eq!(stage.yielded(0, id, true), None);
        assert_eq!(stage.told(), [(2, Told::Own(true))]);
        assert!(!stage.arbiter.validated(0, id, key(1)), "it is the owner no more");
        assert!(!stage.arbiter.validated(2, id, key(9)), "it is proven already");
        let place = stage.arbiter.find(id).and_then(|(_, _, place)| place);
        assert_eq!(place, Some(SessionRef { shard: 2, key: key(9) }));
        assert_eq!(stage.arbiter.unvalidated_count(), 0);
    }

    #[test]
    fn a_session_that_its_owner_keeps_stays() {
        let (mut stage, id) = Stage::owned();
        stage.path(2, id);
        stage.told();
        assert_eq!(stage.yielded(0, id, false), None);
        assert_eq!(stage.told(), [(2, Told::Deny)]);
        stage.path(2, id);
        assert_eq!(stage.told(), [(0, Told::Yield)], "it may ask again");
    }

    #[test]
    fn of_two_shards_that_ask_at_a_time_the_later_one_is_denied() {
        let (mut stage, id) = Stage::owned();
        stage.path(1, id);
        stage.path(2, id);
        stage.path(1, id);
        assert_eq!(stage.told(), [(0, Told::Yield), (2, Told::Deny)]);
        stage.yielded(0, id, true);
        assert_eq!(stage.told(), [(1, Told::Own(true))]);
    }

    #[test]
    fn an_owner_that_asked_twice_before_it_knew_is_told_once() {
        let (mut stage, id) = Stage::expected("o:c");
        stage.path(1, id);
        stage.path(1, id);
        assert_eq!(stage.told(), [(1, Told::Own(false))]);
    }

    #[test]
    fn claims_of_unknown_sessions_are_denied() {
        let mut stage = Stage::new();
        stage.path(1, RtcId(99));
        assert_eq!(stage.told(), [(1, Told::Deny)]);
    }

    #[test]
    fn the_end_on_the_owner_makes_the_other_shards_forget() {
        let (mut stage, id) = Stage::owned();
        assert!(stage.arbiter.ended(1, id, REASON).is_none(), "only its owner ends it");
        assert!(stage.arbiter.ended(0, id, REASON).is_some());
        let forget = finish(Duration::ZERO);
        assert_eq!(stage.told(), [(1, forget.clone()), (2, forget)]);
        assert!(stage.arbiter.ended(0, id, REASON).is_none(), "it ends once");
    }

    #[test]
    fn an_owner_that_is_told_of_a_restart_behind_the_sessions_end_forgets_it_again() {
        let (mut stage, id) = Stage::owned();
        drop(stage.expect(id, "o2:c2"));
        stage.told();
        assert!(stage.arbiter.ended(0, id, REASON).is_some());
        assert_eq!(stage.told(), to_all(&finish(Duration::ZERO)));
    }

    #[test]
    fn a_session_without_an_owner_is_finished_at_once() {
        let (mut stage, id) = Stage::expected("o:c");
        assert!(stage.arbiter.finish(id, REASON, LINGER));
        assert_eq!(stage.told(), to_all(&finish(LINGER)));
        assert!(!stage.arbiter.has(id));
    }

    #[test]
    fn an_offer_that_no_shard_has_heard_of_is_finished_without_a_word_to_them() {
        let mut stage = Stage::new();
        let id = stage.arbiter.reserve(stage.now);
        assert!(stage.arbiter.finish(id, REASON, LINGER));
        assert_eq!(stage.told(), []);
    }

    #[test]
    fn an_owned_session_is_over_when_its_owner_says_so() {
        let (mut stage, id) = Stage::owned();
        assert!(!stage.arbiter.finish(id, REASON, LINGER));
        assert_eq!(stage.told(), to_all(&finish(LINGER)));
        assert!(!stage.arbiter.finish(id, REASON, LINGER));
        stage.path(2, id);
        assert_eq!(stage.told(), [(2, Told::Deny)], "it moves no more");
        assert!(stage.arbiter.ended(0, id, REASON).is_some());
    }

    #[test]
    fn a_session_that_is_finished_while_it_moves_is_over_when_it_has_been_let_go() {
        let (mut stage, id) = Stage::owned();
        stage.path(2, id);
        assert!(!stage.arbiter.finish(id, REASON, LINGER));
        stage.told();
        assert_eq!(stage.yielded(0, id, true), Some(REASON));
        assert_eq!(stage.told(), [], "the shard that asked has been told to forget it");
        assert!(!stage.arbiter.has(id));
    }

    #[test]
    fn a_session_that_is_finished_while_its_owner_keeps_it_ends_there() {
        let (mut stage, id) = Stage::owned();
        stage.path(2, id);
        assert!(!stage.arbiter.finish(id, REASON, LINGER));
        assert_eq!(stage.yielded(0, id, false), None);
        assert!(stage.arbiter.ended(0, id, REASON).is_some());
    }

    #[test]
    fn a_handover_that_nobody_asked_for_moves_nothing() {
        let (mut stage, id) = Stage::owned();
        assert_eq!(stage.yielded(0, id, true), None);
        assert_eq!(stage.yielded(1, id, true), None);
        assert_eq!(stage.told(), []);
    }

    #[test]
    fn a_client_that_never_comes_is_given_up_half_a_minute_after_its_answer() {
        let (mut stage, id) = Stage::expected("o:c");
        stage.now += VALIDATION_TIMEOUT / 2;
        stage.arbiter.publish(stage.now, id, resource("t"));
        assert_eq!(stage.arbiter.expire(stage.now + VALIDATION_TIMEOUT / 2).len(), 0);
        let failures = stage.arbiter.expire(stage.now + VALIDATION_TIMEOUT);
        let [(failure, Some(resource))] = &failures[..] else { panic!("{failures:?}") };
        let cause = Cause::NeverValidated;
        assert_eq!(*failure, Failure { session: id, cause, is_over: true });
        assert_eq!(resource.target.as_deref(), Some("/session"));
        let forget = Told::Finish(EndReason::NeverValidated, Duration::ZERO);
        assert_eq!(stage.told(), to_all(&forget));
        assert!(stage.arbiter.due.is_empty());
    }

    #[test]
    fn an_offer_whose_asker_is_never_heard_of_again_is_given_up() {
        let mut stage = Stage::new();
        stage.arbiter.reserve(stage.now);
        assert_eq!(stage.arbiter.expire(stage.now + VALIDATION_TIMEOUT).len(), 1);
        assert_eq!(stage.arbiter.unvalidated_count(), 0);
    }

    #[test]
    fn a_client_that_claimed_and_was_never_proven_is_ended_by_its_owner() {
        let (mut stage, id) = Stage::expected("o:c");
        stage.path(1, id);
        stage.told();
        let failures = stage.arbiter.expire(stage.now + VALIDATION_TIMEOUT);
        assert!(matches!(failures[..], [(Failure { is_over: false, .. }, _)]));
        let forget = Told::Finish(EndReason::NeverValidated, Duration::ZERO);
        assert_eq!(stage.told(), to_all(&forget));
        assert!(stage.arbiter.ended(1, id, EndReason::NeverValidated).is_some());
    }

    #[test]
    fn a_relay_that_quits_waits_five_seconds_for_clients_that_have_not_come() {
        let (mut stage, _) = Stage::expected("o:c");
        stage.arbiter.hurry(stage.now);
        assert_eq!(stage.arbiter.expire(stage.now + LAST_CALL / 2).len(), 0);
        assert_eq!(stage.arbiter.expire(stage.now + LAST_CALL).len(), 1);
    }

    #[test]
    fn a_proven_session_is_never_given_up() {
        let (mut stage, id) = Stage::owned();
        assert_eq!(stage.arbiter.expire(stage.now + 100 * VALIDATION_TIMEOUT).len(), 0);
        assert!(stage.arbiter.has(id));
    }

    #[test]
    fn a_token_stands_for_its_session_until_that_ends() {
        let (mut stage, id) = Stage::owned();
        stage.arbiter.publish(stage.now, id, resource("first"));
        stage.arbiter.publish(stage.now, id, resource("second"));
        let found = |stage: &Stage, token: &str| {
            stage.arbiter.by_token(&Token(token.to_owned())).map(|(id, _)| id)
        };
        assert_eq!((found(&stage, "first"), found(&stage, "second")), (None, Some(id)));
        assert!(stage.arbiter.ended(0, id, REASON).flatten().is_some());
        assert_eq!(found(&stage, "second"), None);
        stage.arbiter.publish(stage.now, id, resource("late"));
        assert_eq!(found(&stage, "late"), None);
        assert!(stage.arbiter.by_token.is_empty());
    }

    #[test]
    fn a_client_without_signalling_is_owned_where_it_came_when_all_shards_expect_it() {
        let mut stage = Stage::new();
        let id = stage.arbiter.reserve(stage.now);
        stage.arbiter.expect(stage.now, signalled(id), vec![pair("u:u")], Then::Own(2));
        stage.told();
        stage.agree(id);
        assert_eq!(stage.told(), [(2, Told::Own(false))]);
    }

    #[test]
    fn a_client_without_signalling_that_another_shard_has_claimed_stays_there() {
        let mut stage = Stage::new();
        let id = stage.arbiter.reserve(stage.now);
        stage.arbiter.expect(stage.now, signalled(id), vec![pair("u:u")], Then::Own(2));
        stage.told();
        stage.path(1, id);
        stage.agree(id);
        assert_eq!(stage.told(), [(1, Told::Own(false))]);
    }

    #[test]
    fn sessions_that_no_shard_owns_are_listed_in_order_from_anywhere() {
        let mut stage = Stage::new();
        let ids: Vec<_> = (0..4).map(|_| stage.arbiter.reserve(stage.now)).collect();
        stage.expect(ids[2], "o:c");
        stage.agree(ids[2]);
        stage.path(0, ids[2]);
        let listed: Vec<_> = stage.arbiter.unowned(ids[1]).map(|(id, _, _)| id).collect();
        assert_eq!(listed, [ids[1], ids[3]]);
    }

    #[test]
    fn when_everything_ends_what_no_shard_owns_is_forgotten() {
        let (mut stage, owned) = Stage::owned();
        let unowned = stage.arbiter.reserve(stage.now);
        let abandoned: Vec<_> = stage.arbiter.abandon_all().into_iter().map(|(id, _)| id).collect();
        assert_eq!(abandoned, [unowned]);
        assert!(stage.arbiter.has(owned));
    }

    const LINGER: Duration = Duration::from_secs(2);

    /// Shards that play their part, with messages under way in both directions.
    struct Shards {
        arbiter: Arbiter,
        id: RtcId,
        /// By shard: whether it owns the session, and commands that it has not seen.
        shards: Vec<(bool, VecDeque<Command>)>,
        events: VecDeque<(u16, Said)>,
    }

    enum Said {
        Path,
        Yielded(bool),
        Validated,
        Ended,
    }

    impl Shards {
        fn new() -> Self {
            let (stage, id) = Stage::expected("o:c");
            let shards = (0..SHARDS).map(|_| (false, VecDeque::new())).collect();
            Self { arbiter: stage.arbiter, id, shards, events: VecDeque::new() }
        }

        fn say(&mut self, shard: u16, said: Said) {
            self.events.push_back((shard, said));
        }

        /// A client shows up, unless the shard owns its session already.
        fn claim(&mut self, shard: u16) {
            if !self.shards[usize::from(shard)].0 {
                self.say(shard, Said::Path);
            }
        }

        /// The session ends on its owner, for instance because its client is silent.
        fn end(&mut self, shard: u16) {
            if std::mem::take(&mut self.shards[usize::from(shard)].0) {
                self.say(shard, Said::Ended);
            }
        }

        fn take_command(&mut self, shard: u16, gives_way: bool) -> bool {
            let Some(command) = self.shards[usize::from(shard)].1.pop_front() else {
                return false;
            };
            match told(command) {
                Told::Own(_) => {
                    let owners = self.shards.iter().filter(|(is_owner, _)| *is_owner).count();
                    assert_eq!(owners, 0, "a second owner");
                    self.shards[usize::from(shard)].0 = true;
                    self.say(shard, Said::Validated);
                }
                Told::Yield => {
                    let is_owner = &mut self.shards[usize::from(shard)].0;
                    let is_given = *is_owner && gives_way;
                    *is_owner &= !is_given;
                    self.say(shard, Said::Yielded(is_given));
                }
                Told::Finish(..) => self.end(shard),
                Told::Expect(_) | Told::Deny => {}
            }
            true
        }

        fn take_event(&mut self) -> bool {
            let Some((shard, said)) = self.events.pop_front() else {
                return false;
            };
            let (arbiter, id) = (&mut self.arbiter, self.id);
            match said {
                Said::Path => arbiter.path(shard, request(id)),
                Said::Yielded(is_given) => {
                    let handover =
                        is_given.then(|| handover(Arc::new(signalled(id)), Instant::now()));
                    arbiter.yielded(shard, id, handover);
                }
                Said::Validated => {
                    let _ = arbiter.validated(shard, id, key(1));
                }
                Said::Ended => {
                    arbiter.ended(shard, id, REASON);
                }
            }
            self.post();
            true
        }

        fn finish(&mut self) {
            let _ = self.arbiter.finish(self.id, REASON, LINGER);
            self.post();
        }

        fn post(&mut self) {
            for (shard, command) in self.arbiter.take_commands() {
                self.shards[usize::from(shard)].1.push_back(command);
            }
        }
    }

    proptest! {
        #[test]
        fn however_messages_cross_there_is_one_owner_and_nothing_is_left_behind(
            steps in vec((0..8_u8, 0..SHARDS, any::<bool>()), 0..200),
        ) {
            let mut shards = Shards::new();
            for (step, shard, gives_way) in steps {
                match step {
                    0 | 1 => shards.claim(shard),
                    2..=4 => drop(shards.take_command(shard, gives_way)),
                    5 | 6 => drop(shards.take_event()),
                    _ if gives_way && shard == 0 => shards.finish(),
                    _ if gives_way && shard == 1 => (0..SHARDS).for_each(|shard| shards.end(shard)),
                    _ => {}
                }
            }
            shards.finish();
            while shards.take_event() || (0..SHARDS).any(|shard| shards.take_command(shard, true)) {}
            prop_assert!(shards.shards.iter().all(|(is_owner, _)| !is_owner));
            prop_assert!(shards.arbiter.is_empty());
        }
    }
}
