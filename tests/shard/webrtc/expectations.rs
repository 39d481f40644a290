//! Which sessions a shard expects, and under which pairs.

use std::time::Duration;

use ringway::session::expected::Expectation;
use ringway::shard::{DropReason, Limits, NotExpected, ShardConfig, Verdict};

use crate::support::rtc::*;
use crate::support::stage::{Stage, client, limits};

#[test]
fn an_expectation_costs_a_shard_at_most_256_bytes() {
    // Two indices of a key, a slot and a control byte each, at worst half full; the slab's own word.
    let index = 2 * (16 + 1);
    let cost = size_of::<Expectation>() + size_of::<usize>() + 2 * index;
    assert!(cost <= 256, "{cost}");
}

#[test]
fn a_pair_belongs_to_one_session() {
    use ringway::shard::{Command, Event, RtcId};
    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    assert_eq!(stage.expect(1, 0), Ok(()), "the same once more changes nothing");
    stage.apply(Command::Expect { session: signalled(2), pair: pair(1, 0) });
    let Some(Event::Expected { session: RtcId(2), result }) = stage.events.pop() else {
        panic!("an answer");
    };
    assert_eq!(result, Err(NotExpected::PairTaken));
    assert_eq!(stage.shard.counters().expected, 1);
}

#[test]
fn a_session_has_four_pairs_at_most() {
    let mut stage = Stage::webrtc();
    for restarts in 0..4 {
        assert_eq!(stage.expect(1, restarts), Ok(()));
    }
    assert_eq!(stage.expect(1, 4), Err(NotExpected::TooManyPairs));
    for restarts in 0..4 {
        let verdict = stage.rtc_sends(client(5000), &request(&pair(1, restarts), 1));
        assert_eq!(verdict, Verdict::Taken, "{restarts}");
    }
}

#[test]
fn a_shard_that_does_not_own_a_session_goes_along_with_one_restart_a_minute() {
    let mut stage = Stage::webrtc();
    for restarts in 0..20 {
        assert_eq!(stage.expect(1, restarts), Ok(()));
        stage.pass(60 * SECOND);
    }
    let verdict = stage.rtc_sends(client(5000), &request(&pair(1, 0), 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunUnknownUfrag));
    assert_eq!(stage.rtc_sends(client(5000), &request(&pair(1, 19), 1)), Verdict::Taken);
}

#[test]
fn no_more_sessions_are_expected_than_the_table_holds() {
    let limits = Limits { sessions_max: 3, ..limits() };
    let mut stage = Stage::with(ShardConfig { limits, ..rtc_config() });
    for id in 1..4 {
        assert_eq!(stage.expect(id, 0), Ok(()));
    }
    assert_eq!(stage.expect(4, 0), Err(NotExpected::Full));
    stage.finish(1, Duration::ZERO);
    assert_eq!(stage.expect(4, 0), Ok(()));
}

#[test]
fn a_pair_of_a_session_that_is_over_can_be_expected_again() {
    let mut stage = Stage::webrtc();
    stage.validated(1, client(5000));
    stage.finish(1, Duration::ZERO);
    let session = stage.validated(1, client(5000));
    assert_eq!(stage.rtc_sends(client(5000), &request(&pair(1, 0), 2)), to_origin(session));
    stage.finish(1, Duration::ZERO);
    stage.pass(59 * SECOND);
    let verdict = stage.rtc_sends(client(5000), &request(&pair(1, 0), 3));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunTombstone), "its second end counts");
}

#[test]
fn tombstones_are_bounded_and_the_oldest_give_way() {
    let limits = Limits { sessions_max: 3, ..limits() };
    let mut stage = Stage::with(ShardConfig { limits, ..rtc_config() });
    for id in 1..=5 {
        stage.expect(id, 0).unwrap();
        stage.finish(id, Duration::ZERO);
    }
    let mut verdict = |id| stage.rtc_sends(client(5000), &request(&pair(id, 0), 1));
    assert_eq!(verdict(2), Verdict::Drop(DropReason::StunUnknownUfrag));
    assert_eq!(verdict(3), Verdict::Drop(DropReason::StunTombstone));
}

#[test]
fn after_an_ice_restart_both_pairs_count_until_the_new_one_has_been_used_for_thirty_seconds() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.expect(1, 1).unwrap();
    let mut number = 10;
    let mut alive = |stage: &mut Stage, restarts: u32| {
        number += 1;
        let verdict = stage.rtc_sends(client(5000), &request(&pair(1, restarts), number));
        stage.origin_sends(session, &rtcp(9));
        verdict
    };
    for _ in 0..60 {
        stage.pass(SECOND);
        assert_eq!(alive(&mut stage, 0), to_origin(session), "nobody has used the new one");
    }
    assert_eq!(stage.view().ufrag_pairs, ["orig1r1:clnt1r1", "orig1r0:clnt1r0"]);
    assert_eq!(alive(&mut stage, 1), to_origin(session));
    for _ in 0..29 {
        stage.pass(SECOND);
        assert_eq!(alive(&mut stage, 0), to_origin(session));
        assert_eq!(alive(&mut stage, 1), to_origin(session));
    }
    stage.pass(SECOND + 20 * MILLI);
    assert_eq!(alive(&mut stage, 0), Verdict::Drop(DropReason::StunTombstone));
    assert_eq!(alive(&mut stage, 1), to_origin(session));
    assert_eq!(stage.view().ufrag_pairs, ["orig1r1:clnt1r1"]);
    assert_eq!(stage.expect(1, 2), Ok(()), "there is room for further ones");
}

#[test]
fn a_response_to_a_request_with_the_old_pair_is_rewritten_with_the_old_password() {
    use ringway::protocol::stun::{Check, Message};
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.expect(1, 1).unwrap();
    stage.rtc_sends(client(5000), &request(&pair(1, 1), 2));
    for (restarts, number) in [(0, 1), (1, 2)] {
        stage.take_out();
        stage.origin_sends(session, &response(&pair(1, restarts), number));
        let bytes = stage.answer_bytes();
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.mapped_address(), Some(client(5000)));
        assert_eq!(message.integrity(&key(1, restarts)), Check::Right);
    }
}
