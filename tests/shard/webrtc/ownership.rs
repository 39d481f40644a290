//! One session, one owner: what a shard says and does when control moves sessions between shards.

use ringway::protocol::stun::Class;
use ringway::shard::{
    Command, DropReason, EndReason, Event, Limits, PathRequest, RtcId, ShardConfig, Verdict,
};

use crate::support::cluster::Cluster;
use crate::support::rtc::*;
use crate::support::stage::{Out, Stage, client, limits};

fn path(number: u32, port: u16, nominated: bool) -> PathRequest {
    PathRequest {
        session: RtcId(1),
        client: client(port),
        transaction: transaction(number),
        nominated,
    }
}

#[test]
fn a_denied_request_goes_nowhere_and_is_counted() {
    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    stage.rtc_sends(client(5000), &request(&pair(1, 0), 1));
    stage.take_events();
    stage.apply(Command::Deny { session: RtcId(1) });
    assert_eq!(stage.dropped(DropReason::OtherShard), 1);
    assert!(stage.take_out().is_empty() && stage.take_events().is_empty());
    let verdict = stage.rtc_sends(client(5000), &request(&pair(1, 0), 2));
    assert_eq!(verdict, Verdict::Drop(DropReason::OtherShard), "control is left in peace");
    stage.pass(50 * MILLI);
    stage.rtc_sends(client(5000), &nomination(&pair(1, 0), 3));
    assert!(stage.asked().is_some_and(|path| path.nominated));
}

#[test]
fn a_session_without_a_client_cannot_be_owned() {
    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    for id in [1, 2] {
        stage.apply(Command::Own { session: RtcId(id), handover: None });
        assert_eq!(stage.rtc_ended(), [(id, EndReason::NeverValidated)]);
    }
    stage.assert_gone();
}

#[test]
fn a_session_that_finds_the_table_full_ends_at_once() {
    let limits = Limits { sessions_max: 2, ..limits() };
    let mut stage = Stage::with(ShardConfig { limits, ..rtc_config() });
    stage.expect(1, 0).unwrap();
    stage.established(client(5000), 77, 4242);
    stage.rtc_sends(client(5000), &request(&pair(1, 0), 1));
    stage.established(client(5001), 77, 4242);
    stage.take_events();
    stage.apply(Command::Own { session: RtcId(1), handover: None });
    let reason = stage.rtc_ended()[0].1;
    assert_eq!(reason.label(), "overload");
    assert!(stage.take_out().iter().all(|out| !matches!(out, Out::Open { .. })));
}

#[test]
fn a_full_shard_asks_for_no_session_for_it_would_end_one_that_lives_elsewhere() {
    let limits = Limits { sessions_max: 1, ..limits() };
    let mut stage = Stage::with(ShardConfig { limits, ..rtc_config() });
    stage.expect(1, 0).unwrap();
    let session = stage.established(client(5000), 77, 4242);
    let verdict = stage.rtc_sends(client(5000), &nomination(&pair(1, 0), 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::TableFull));
    assert_eq!(stage.asked(), None);
    let reason = EndReason::Superseded;
    stage.apply(Command::Close { session, reason });
    let verdict = stage.rtc_sends(client(5000), &nomination(&pair(1, 0), 1));
    assert_eq!(verdict, Verdict::Taken, "there is room now");
}

#[test]
fn the_addresses_of_before_a_move_keep_no_room_from_those_of_after() {
    let mut cluster = Cluster::new(2);
    cluster.expect(1, 0);
    cluster.sends(0, client(5000), &request(&pair(1, 0), 1));
    for i in 1..8 {
        cluster.sends(0, client(5000 + i), &request(&pair(1, 0), 10 + u32::from(i)));
    }
    cluster.pass(600 * MILLI);
    for i in 0..8 {
        cluster.sends(1, client(6000 + i), &request(&pair(1, 0), 30 + u32::from(i)));
    }
    assert_eq!(cluster.owner(1), Some(1));
    let here: Vec<_> = (0..8).map(|i| client(6000 + i)).collect();
    let stage = &mut cluster.shards[1];
    assert_eq!(stage.dropped(DropReason::PathsFull), 0);
    assert!(here.iter().all(|address| stage.view().addresses.contains(address)));
    let verdict = stage.rtc_sends(client(7000), &request(&pair(1, 0), 50));
    assert_eq!(verdict, Verdict::Drop(DropReason::PathsFull), "these are eight again");
}

#[test]
fn a_captured_request_does_not_take_the_place_of_the_clients_while_control_is_slow() {
    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    stage.rtc_sends(client(5000), &nomination(&pair(1, 0), 1));
    stage.pass(250 * MILLI);
    stage.take_events();
    stage.rtc_sends(client(6666), &nomination(&pair(1, 0), 1));
    assert!(stage.asked().is_some_and(|path| path.client == client(5000)));
    stage.own(1, None).unwrap();
    assert_eq!(stage.view().addresses, [client(5000)]);
}

#[test]
fn what_was_kept_before_control_was_asked_again_cannot_be_repeated_from_elsewhere() {
    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    stage.rtc_sends(client(5000), &nomination(&pair(1, 0), 1));
    stage.pass(250 * MILLI);
    stage.rtc_sends(client(5000), &nomination(&pair(1, 0), 2));
    stage.own(1, None).unwrap();
    let verdict = stage.rtc_sends(client(6666), &nomination(&pair(1, 0), 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunReplayed));
}

#[test]
fn a_shard_that_does_not_own_a_session_has_nothing_to_yield() {
    let mut stage = Stage::webrtc();
    assert!(stage.yield_to(path(1, 5000, true)).is_none());
    stage.expect(1, 0).unwrap();
    assert!(stage.yield_to(path(1, 5000, true)).is_none());
}

#[test]
fn a_session_stays_where_its_media_is_even_if_another_path_is_nominated() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.pass(SECOND);
    stage.rtc_sends(client(5000), &rtp(7, 1));
    stage.pass(499 * MILLI);
    assert!(stage.yield_to(path(2, 5001, true)).is_none());
    assert_eq!(stage.rtc_sends(client(5000), &rtp(7, 2)), to_origin(session));
}

#[test]
fn a_session_without_media_stays_unless_the_other_path_is_nominated() {
    let mut stage = Stage::webrtc();
    stage.validated(1, client(5000));
    stage.rtc_sends(client(5000), &nomination(&pair(1, 0), 2));
    stage.pass(600 * MILLI);
    assert!(stage.yield_to(path(3, 5001, false)).is_none());
    let handover = stage.yield_to(path(4, 5001, true)).expect("an idle path");
    assert_eq!(handover.addresses().collect::<Vec<_>>(), [client(5000)]);
    assert_eq!(stage.shard.counters().webrtc.established, 0);
    assert!(stage.rtc_ended().is_empty(), "a move is no end");
}

#[test]
fn a_client_that_has_chosen_no_path_gets_answers_on_each_in_turn() {
    let mut stage = Stage::webrtc();
    stage.validated(1, client(5000));
    for id in 2..6 {
        stage.pass(100 * MILLI);
        stage.rtc_sends(client(5000), &request(&pair(1, 0), id));
        assert!(stage.yield_to(path(100 + id, 5001, false)).is_none(), "not yet");
    }
    stage.pass(100 * MILLI);
    assert!(stage.yield_to(path(200, 5001, false)).is_some());
}

#[test]
fn two_paths_that_are_nominated_in_turn_do_not_toss_a_session_to_and_fro() {
    let mut cluster = Cluster::new(2);
    cluster.expect(1, 0);
    let mut moves = 0;
    for round in 0..50 {
        let before = cluster.owner(1);
        cluster.sends(0, client(5000), &nomination(&pair(1, 0), 1 + 2 * round));
        cluster.sends(1, client(5001), &nomination(&pair(1, 0), 2 + 2 * round));
        moves += u32::from(before.is_some() && cluster.owner(1) != before);
        cluster.pass(100 * MILLI);
    }
    assert!((1..=10).contains(&moves), "{moves} moves in five seconds");
}

#[test]
fn a_check_of_another_path_takes_no_media_from_a_player_who_reports_now_and_then() {
    let mut stage = Stage::webrtc();
    let check = |number| PathRequest { session: RtcId(FIRST_PLAYER), ..path(number, 5001, false) };
    let session = stage.validated(FIRST_PLAYER, client(5000));
    stage.rtc_sends(client(5000), &nomination(&pair(FIRST_PLAYER, 0), 2));
    for id in 3..20 {
        stage.rtc_sends(client(5000), &rtcp(7));
        stage.pass(900 * MILLI);
        assert!(stage.yield_to(check(100 + id)).is_none());
        assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(client(5000)));
    }
    stage.pass(2_200 * MILLI);
    assert!(stage.yield_to(check(200)).is_some(), "it has gone");
}

#[test]
fn a_session_moves_after_its_selected_path_has_been_silent_for_half_a_second() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.rtc_sends(client(5000), &rtp(7, 1));
    stage.pass(500 * MILLI);
    assert!(stage.yield_to(path(2, 5001, false)).is_some());
    assert_eq!(stage.take_out(), [Out::Close { session }]);
    let verdict = stage.rtc_sends(client(5000), &rtp(7, 2));
    assert_eq!(verdict, Verdict::Drop(DropReason::UnprovenAddress), "nobody is at home here");
    assert_eq!(stage.shard.counters().expected, 1, "it may come back");
}

#[test]
fn a_retransmitted_request_moves_a_session_as_soon_as_a_new_one_would() {
    let mut stage = Stage::webrtc();
    stage.validated(1, client(5000));
    stage.rtc_sends(client(5000), &rtp(7, 1));
    stage.pass(100 * MILLI);
    assert!(stage.yield_to(path(2, 5001, true)).is_none());
    stage.pass(400 * MILLI);
    assert!(stage.yield_to(path(2, 5001, true)).is_some());
}

#[test]
fn a_captured_request_moves_no_session_to_another_shard() {
    let mut stage = Stage::webrtc();
    stage.validated(1, client(5000));
    stage.pass(20 * SECOND);
    assert!(stage.yield_to(path(1, 6666, true)).is_none(), "it was here before");
}

#[test]
fn a_request_that_another_shard_has_told_of_cannot_be_repeated_here() {
    let mut stage = Stage::webrtc();
    stage.validated(1, client(5000));
    assert!(stage.yield_to(path(2, 5001, false)).is_none());
    let verdict = stage.rtc_sends(client(6666), &request(&pair(1, 0), 2));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunReplayed));
}

#[test]
fn a_session_that_is_closing_or_has_no_port_yet_stays() {
    let mut stage = Stage::webrtc();
    stage.validated(1, client(5000));
    stage.finish(1, 2 * SECOND);
    stage.pass(SECOND);
    assert!(stage.yield_to(path(2, 5001, true)).is_none());

    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    stage.rtc_sends(client(5000), &request(&pair(1, 0), 1));
    stage.apply(Command::Own { session: RtcId(1), handover: None });
    stage.pass(SECOND);
    stage.take_events();
    assert!(stage.yield_to(path(2, 5001, true)).is_none());
}

#[test]
fn a_moved_session_goes_on_with_its_totals_its_memory_and_a_port_of_the_new_shard() {
    let mut cluster = Cluster::new(2);
    cluster.expect(1, 0);
    cluster.sends(0, client(5000), &request(&pair(1, 0), 1));
    assert_eq!(cluster.owner(1), Some(0));
    cluster.sends(0, client(5000), &rtp(7, 1));
    cluster.pass(600 * MILLI);
    cluster.sends(1, client(5001), &request(&pair(1, 0), 2));
    assert_eq!(cluster.owner(1), Some(1));
    let session = cluster.key(1);
    let stage = &mut cluster.shards[1];
    assert!(stage.take_out().contains(&Out::ToOrigin { session, bytes: request(&pair(1, 0), 2) }));
    assert_eq!(stage.rtc_sends(client(5001), &rtp(7, 2)), to_origin(session));
    assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(client(5001)));
    assert_eq!(stage.view().addresses, [client(5001), client(5000)]);
    assert_eq!(stage.view().ssrcs, [7, 9]);
    let verdict = stage.rtc_sends(client(6666), &request(&pair(1, 0), 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunReplayed), "its memory has moved as well");
    assert_eq!(stage.shard.counters().webrtc.sessions_created, 0, "it is the same session");
    cluster.finish(1);
    let ended = cluster.ended.pop().unwrap();
    let Event::RtcEnded { traffic, age, .. } = ended else { panic!("{ended:?}") };
    assert_eq!(traffic.client_in.packets, 4, "two of them on the first shard");
    assert!(age >= 600 * MILLI);
    cluster.assert_gone();
}

#[test]
fn a_captured_request_on_another_shard_neither_moves_the_session_nor_turns_its_media() {
    let mut cluster = Cluster::new(3);
    cluster.expect(1, 0);
    let captured = nomination(&pair(1, 0), 1);
    cluster.sends(0, client(5000), &captured);
    cluster.pass(10 * SECOND);
    for shard in [1, 2, 0] {
        cluster.sends(shard, client(6666), &captured);
    }
    assert_eq!(cluster.owner(1), Some(0));
    let session = cluster.key(1);
    assert_eq!(cluster.shards[0].origin_sends(session, &rtp(9, 1)), to_client(client(5000)));
    assert_eq!(cluster.shards[1].dropped(DropReason::OtherShard), 1);
}

#[test]
fn a_session_can_come_back_to_the_shard_it_left() {
    let mut cluster = Cluster::new(2);
    cluster.expect(1, 0);
    for (round, shard) in [0, 1, 0, 1, 0].into_iter().enumerate() {
        let number = round as u32 + 1;
        let port = 5000 + shard as u16;
        cluster.sends(shard, client(port), &nomination(&pair(1, 0), number));
        assert_eq!(cluster.owner(1), Some(shard));
        let session = cluster.key(1);
        let stage = &mut cluster.shards[shard];
        assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(client(port)));
        cluster.pass(600 * MILLI);
    }
}

#[test]
fn a_dual_stack_client_of_a_first_moment_ends_with_one_owner() {
    let mut cluster = Cluster::new(2);
    cluster.expect(1, 0);
    let v6 = "[2001:db8::9]:5000".parse().unwrap();
    cluster.sends(0, client(5000), &request(&pair(1, 0), 1));
    cluster.sends(1, v6, &request(&pair(1, 0), 2));
    assert_eq!(cluster.owner(1), Some(0), "the first one stays");
    cluster.pass(500 * MILLI);
    cluster.sends(1, v6, &nomination(&pair(1, 0), 3));
    assert_eq!(cluster.owner(1), Some(1), "the client's choice");
    let session = cluster.key(1);
    let stage = &mut cluster.shards[1];
    assert_eq!(stage.rtc_sends(v6, &client_hello()), to_origin(session));
    assert_eq!(stage.origin_sends(session, &client_hello()), to_client(v6));
    let verdict = cluster.shards[0].rtc_sends(client(5000), &client_hello());
    assert_eq!(verdict, Verdict::Drop(DropReason::UnprovenAddress));
}

#[test]
fn a_ninth_address_is_welcome_where_the_session_has_just_moved_to() {
    let mut cluster = Cluster::new(2);
    cluster.expect(1, 0);
    for i in 0..8 {
        cluster.sends(0, client(5000 + i), &request(&pair(1, 0), 1 + u32::from(i)));
        cluster.pass(10 * MILLI);
    }
    cluster.pass(600 * MILLI);
    cluster.sends(1, client(6000), &request(&pair(1, 0), 100));
    let session = cluster.key(1);
    let stage = &mut cluster.shards[1];
    assert_eq!(stage.view().addresses.len(), 8);
    assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(client(6000)));
}

#[test]
fn what_another_session_has_proven_here_a_handover_does_not_take() {
    let mut cluster = Cluster::new(2);
    cluster.expect(1, 0);
    cluster.expect(2, 0);
    cluster.sends(0, client(5000), &request(&pair(1, 0), 1));
    cluster.sends(1, client(5000), &request(&pair(2, 0), 2));
    cluster.pass(600 * MILLI);
    cluster.sends(1, client(5001), &request(&pair(1, 0), 3));
    let (first, second) = (cluster.key(1), cluster.key(2));
    let stage = &mut cluster.shards[1];
    assert_eq!(stage.rtc_sends(client(5000), &rtp(7, 1)), to_origin(second));
    assert_eq!(stage.rtc_sends(client(5001), &rtp(7, 1)), to_origin(first));
    cluster.finish(1);
    let stage = &mut cluster.shards[1];
    assert_eq!(stage.rtc_sends(client(5000), &rtp(7, 1)), to_origin(second));
    let verdict = stage.rtc_sends(client(5001), &stun(Class::Indication, METHOD, 5));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunUnproven));
}

const METHOD: ringway::protocol::stun::Method = ringway::protocol::stun::Method::Binding;

#[test]
fn an_address_proven_before_a_move_has_to_be_proven_again_when_the_session_comes_back() {
    let mut cluster = Cluster::new(2);
    cluster.expect(1, 0);
    cluster.sends(0, client(5000), &request(&pair(1, 0), 1));
    cluster.pass(500 * MILLI);
    cluster.sends(1, client(5001), &nomination(&pair(1, 0), 2));
    cluster.pass(500 * MILLI);
    cluster.sends(0, client(5002), &nomination(&pair(1, 0), 3));
    assert_eq!(cluster.owner(1), Some(0));
    let session = cluster.key(1);
    let stage = &mut cluster.shards[0];
    let verdict = stage.rtc_sends(client(5000), &rtp(7, 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::UnprovenAddress), "it may be another's by now");
    assert_eq!(stage.rtc_sends(client(5000), &request(&pair(1, 0), 4)), to_origin(session));
    assert_eq!(stage.rtc_sends(client(5000), &rtp(7, 1)), to_origin(session));
}
