//! Who owns a session, with shards that are made of their messages alone.

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
        token: Token(token.into()),
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
    stage.arbiter.publish(stage.now, id, &resource("t"));
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
    stage.arbiter.publish(stage.now, id, &resource("first"));
    stage.arbiter.publish(stage.now, id, &resource("second"));
    let found =
        |stage: &Stage, token: &str| stage.arbiter.by_token(&Token(token.into())).map(|(id, _)| id);
    assert_eq!((found(&stage, "first"), found(&stage, "second")), (None, Some(id)));
    assert!(stage.arbiter.ended(0, id, REASON).flatten().is_some());
    assert_eq!(found(&stage, "second"), None);
    stage.arbiter.publish(stage.now, id, &resource("late"));
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
                let handover = is_given.then(|| handover(Arc::new(signalled(id)), Instant::now()));
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
