//! How WebRTC sessions end, and that nothing is left of them.

use std::time::Duration;

use ringway::protocol::stun::{Class, Method};
use ringway::shard::{Command, DropReason, EndReason, Event, PortError, Verdict};

use crate::support::rtc::*;
use crate::support::stage::{Out, Stage, client};

/// Lets time pass second by second, in which `sides` speak.
fn live(stage: &mut Stage, seconds: u32, mut sides: impl FnMut(&mut Stage)) {
    for _ in 0..seconds {
        stage.pass(SECOND);
        sides(stage);
    }
}

#[test]
fn a_client_that_falls_silent_ends_its_session_and_leaves_nothing() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    live(&mut stage, 29, |stage| _ = stage.origin_sends(session, &rtp(9, 1)));
    assert!(stage.rtc_ended().is_empty());
    stage.take_out();
    stage.pass(SECOND + 20 * MILLI);
    assert_eq!(stage.rtc_ended(), [(1, EndReason::ClientIdle)]);
    assert_eq!(stage.take_out(), [Out::Close { session }]);
    stage.assert_gone();
    let verdict = stage.rtc_sends(client(5000), &rtp(7, 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::UnprovenAddress));
}

#[test]
fn an_origin_that_falls_silent_ends_the_session() {
    let mut stage = Stage::webrtc();
    stage.validated(1, client(5000));
    live(&mut stage, 31, |stage| _ = stage.rtc_sends(client(5000), &rtp(7, 1)));
    assert_eq!(stage.rtc_ended(), [(1, EndReason::OriginIdle)]);
    stage.assert_gone();
}

#[test]
fn a_session_lives_on_media_alone_or_on_keepalives_alone() {
    for bytes in [rtp(7, 1), rtcp(7), stun(Class::Indication, Method::Binding, 9)] {
        let mut stage = Stage::webrtc();
        let session = stage.validated(1, client(5000));
        live(&mut stage, 200, |stage| {
            stage.rtc_sends(client(5000), &bytes);
            stage.origin_sends(session, &bytes);
        });
        assert!(stage.rtc_ended().is_empty(), "{bytes:?}");
    }
}

#[test]
fn an_origin_whose_port_closed_and_that_is_silent_for_a_second_ends_the_session() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    for _ in 0..9 {
        stage.shard.port_failed(stage.now, session, PortError::Refused);
        stage.pass(100 * MILLI);
        stage.rtc_sends(client(5000), &rtp(7, 1));
    }
    assert!(stage.rtc_ended().is_empty());
    stage.pass(120 * MILLI);
    assert_eq!(stage.rtc_ended(), [(1, EndReason::OriginGone)]);
}

#[test]
fn an_origin_that_speaks_after_an_icmp_message_keeps_its_session_and_both_directions() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    for _ in 0..3 {
        stage.shard.port_failed(stage.now, session, PortError::Refused);
        stage.pass(500 * MILLI);
        assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(client(5000)));
        assert_eq!(stage.rtc_sends(client(5000), &rtp(7, 1)), to_origin(session));
        stage.pass(2 * SECOND);
    }
    assert!(stage.rtc_ended().is_empty());
}

#[test]
fn an_alert_of_either_side_passes_and_ends_the_session_three_seconds_later() {
    for is_clients in [true, false] {
        let mut stage = Stage::webrtc();
        let session = stage.validated(1, client(5000));
        let forwarded = if is_clients {
            stage.rtc_sends(client(5000), &alert()) == to_origin(session)
        } else {
            stage.origin_sends(session, &alert()) == to_client(client(5000))
        };
        assert!(forwarded);
        stage.pass(2900 * MILLI);
        assert!(stage.rtc_ended().is_empty());
        assert_eq!(stage.rtc_sends(client(5000), &request(&pair(1, 0), 2)), to_origin(session));
        stage.pass(120 * MILLI);
        assert_eq!(stage.rtc_ended(), [(1, EndReason::DtlsClosed)]);
        stage.assert_gone();
    }
}

#[test]
fn what_was_under_way_when_the_alert_came_does_not_take_it_back() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.rtc_sends(client(5000), &alert());
    stage.rtc_sends(client(5000), &rtp(7, 1));
    for _ in 0..9 {
        stage.pass(100 * MILLI);
        assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(client(5000)));
    }
    stage.pass(3 * SECOND);
    assert_eq!(stage.rtc_ended(), [(1, EndReason::DtlsClosed)]);
}

#[test]
fn media_that_goes_on_after_an_alert_of_the_same_side_keeps_the_session() {
    for is_clients in [true, false] {
        let mut stage = Stage::webrtc();
        let session = stage.validated(1, client(5000));
        let say = |stage: &mut Stage, datagram: &[u8]| {
            if is_clients {
                stage.rtc_sends(client(5000), datagram);
            } else {
                stage.origin_sends(session, datagram);
            }
        };
        say(&mut stage, &alert());
        live(&mut stage, 10, |stage| say(stage, &rtp(7, 1)));
        assert!(stage.rtc_ended().is_empty());
        // A later alert counts again.
        say(&mut stage, &alert());
        stage.pass(3 * SECOND + 20 * MILLI);
        assert_eq!(stage.rtc_ended(), [(1, EndReason::DtlsClosed)]);
    }
}

#[test]
fn an_origin_that_has_missed_its_clients_alert_does_not_keep_the_session() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.rtc_sends(client(5000), &alert());
    for _ in 0..31 {
        stage.pass(100 * MILLI);
        stage.origin_sends(session, &rtp(9, 1));
    }
    assert_eq!(stage.rtc_ended(), [(1, EndReason::DtlsClosed)]);
}

#[test]
fn a_finished_session_lets_last_words_pass_for_its_linger() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.finish(1, 2 * SECOND);
    stage.pass(1900 * MILLI);
    assert_eq!(stage.rtc_sends(client(5000), &rtp(7, 1)), to_origin(session));
    assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(client(5000)));
    assert!(stage.rtc_ended().is_empty());
    stage.pass(120 * MILLI);
    assert_eq!(stage.rtc_ended(), [(1, EndReason::Deleted)]);
    stage.assert_gone();
}

#[test]
fn a_session_is_finished_once_however_often_control_says_so() {
    let mut stage = Stage::webrtc();
    stage.validated(1, client(5000));
    for _ in 0..3 {
        stage.finish(1, SECOND);
        stage.pass(400 * MILLI);
    }
    assert_eq!(stage.rtc_ended(), [(1, EndReason::Deleted)]);
    stage.finish(1, SECOND);
    stage.pass(2 * SECOND);
    assert!(stage.rtc_ended().is_empty());
}

#[test]
fn a_session_that_is_finished_while_its_port_is_being_opened_ends_and_the_port_is_closed() {
    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    stage.rtc_sends(client(5000), &request(&pair(1, 0), 1));
    stage.apply(Command::Own { session: pair_id(1), handover: None });
    let Some(Out::Open { session, .. }) = stage.take_out().pop() else { panic!("a port") };
    stage.finish(1, SECOND);
    assert_eq!(stage.rtc_ended(), [(1, EndReason::Deleted)]);
    stage.shard.port_opened(stage.now, session, Ok(()));
    stage.collect();
    assert_eq!(stage.take_out(), [Out::Close { session }]);
    stage.assert_gone();
}

fn pair_id(id: u64) -> ringway::shard::RtcId {
    ringway::shard::RtcId(id)
}

#[test]
fn a_finished_session_that_nobody_owns_is_forgotten_at_once_without_an_event() {
    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    stage.rtc_sends(client(5000), &request(&pair(1, 0), 1));
    stage.take_events();
    stage.finish(1, 2 * SECOND);
    assert!(stage.take_events().is_empty());
    stage.assert_gone();
    stage.finish(2, SECOND);
    assert!(stage.take_events().is_empty(), "one that was never expected, neither");
}

#[test]
fn late_requests_of_a_session_that_is_over_do_not_begin_it_anew() {
    let mut stage = Stage::webrtc();
    stage.validated(1, client(5000));
    stage.finish(1, Duration::ZERO);
    stage.take_events();
    for number in 2..60 {
        let verdict = stage.rtc_sends(client(5000), &request(&pair(1, 0), number));
        assert_eq!(verdict, Verdict::Drop(DropReason::StunTombstone));
        stage.pass(SECOND);
    }
    stage.pass(2 * SECOND);
    let verdict = stage.rtc_sends(client(5000), &request(&pair(1, 0), 99));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunUnknownUfrag));
    assert!(stage.take_events().is_empty());
    stage.assert_gone();
}

#[test]
fn an_operator_ends_a_session_by_its_key_after_two_seconds() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.apply(Command::Close { session, reason: EndReason::Operator });
    assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(client(5000)));
    stage.pass(2 * SECOND + 20 * MILLI);
    assert_eq!(stage.rtc_ended(), [(1, EndReason::Operator)]);
}

#[test]
fn a_relay_that_quits_ends_every_session_and_expects_nobody() {
    let mut stage = Stage::webrtc();
    stage.established(client(5000), 77, 4242);
    for id in 1..20 {
        stage.validated(id, client(6000 + id as u16));
    }
    stage.expect(20, 0).unwrap();
    stage.apply(Command::CloseAll);
    stage.pass(20 * MILLI);
    let events = stage.take_events();
    let ended = events.iter().filter(|event| matches!(event, Event::RtcEnded { .. })).count();
    assert_eq!(ended, 19);
    assert!(events.iter().any(|event| matches!(event, Event::Emptied)));
    stage.pass(SECOND);
    stage.assert_gone();
}

#[test]
fn a_draining_shard_lets_live_sessions_go_on_and_expects_no_new_one() {
    use ringway::shard::NotExpected;
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.apply(Command::Drain(true));
    assert_eq!(stage.expect(2, 0), Err(NotExpected::Draining));
    assert_eq!(stage.expect(1, 1), Ok(()), "a restart of a live session is no new one");
    assert_eq!(stage.rtc_sends(client(5000), &rtp(7, 1)), to_origin(session));
    stage.apply(Command::Drain(false));
    assert_eq!(stage.expect(2, 0), Ok(()));
}

#[test]
fn an_end_tells_what_the_session_carried_and_how_old_it_was() {
    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    stage.pass(2 * SECOND);
    stage.rtc_sends(client(5000), &request(&pair(1, 0), 1));
    let session = stage.own(1, None).unwrap();
    let setup = stage.take_events().into_iter().find_map(|event| match event {
        Event::Validated { setup, .. } => Some(setup),
        _ => None,
    });
    assert_eq!(setup, Some(2 * SECOND));
    stage.rtc_sends(client(5000), &rtp(7, 1));
    stage.origin_sends(session, &rtp(9, 1));
    stage.finish(1, Duration::ZERO);
    let Some(Event::RtcEnded { traffic, age, .. }) = stage.take_events().pop() else {
        panic!("an end");
    };
    assert_eq!(age, 2 * SECOND);
    assert_eq!((traffic.client_in.packets, traffic.client_out.packets), (2, 1));
}

#[test]
fn ten_thousand_sessions_come_and_go_and_leave_every_table_empty() {
    let mut stage = Stage::webrtc();
    for round in 0..10 {
        for i in 0..1000 {
            let session = stage.validated(round * 1000 + i, client(2000 + i as u16));
            stage.rtc_sends(client(9000), &nomination(&pair(round * 1000 + i, 0), 2));
            stage.origin_sends(session, &rtp(9, 1));
        }
        for i in 0..1000 {
            stage.finish(round * 1000 + i, Duration::ZERO);
        }
        assert_eq!(stage.rtc_ended().len(), 1000);
        stage.take_out();
        stage.assert_gone();
    }
}
