//! How sessions end, and that nothing is left of them.

use std::time::Duration;

use ringway::shard::{
    Command, DropReason, EndReason, Event, Limits, OriginId, Port, PortError, Route, Verdict,
};

use crate::support::packets;
use crate::support::stage::{Out, STREAM_ID, Stage, client, config, limits, origin};

const SECOND: Duration = Duration::from_secs(1);

/// Who was told SHUTDOWN (client, origin).
fn goodbyes(stage: &mut Stage) -> (usize, usize) {
    let is_shutdown = |bytes: &[u8]| bytes.starts_with(&[0x80, 5]);
    stage.take_out().iter().fold((0, 0), |(clients, origins), out| match out {
        Out::ToClient { bytes, .. } if is_shutdown(bytes) => (clients + 1, origins),
        Out::ToOrigin { bytes, .. } if is_shutdown(bytes) => (clients, origins + 1),
        _ => (clients, origins),
    })
}

#[test]
fn a_goodbye_passes_and_the_session_is_gone_two_seconds_later() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    let verdict = stage.client_sends(client(5000), &packets::shutdown(4242));
    assert!(matches!(verdict, Verdict::Forward(_)));
    assert_eq!(stage.ended(), [(session, EndReason::ClientShutdown)]);
    let verdict = stage.origin_sends(session, &packets::shutdown(77));
    assert!(matches!(verdict, Verdict::Forward(_)), "the other side's own goodbye passes too");
    let verdict = stage.client_sends(client(5000), &packets::data(4242, 9, b"late"));
    assert_eq!(verdict, Verdict::Drop(DropReason::Closing));
    stage.pass(2 * SECOND + Duration::from_millis(20));
    assert_eq!(stage.take_out(), [Out::Close { session }]);
    assert_eq!(stage.shard.counters().sessions, 0);
    let verdict = stage.origin_sends(session, &packets::data(77, 9, b"later"));
    assert_eq!(verdict, Verdict::Drop(DropReason::StalePort));
}

#[test]
fn an_origins_goodbye_ends_the_session_as_well() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    stage.origin_sends(session, &packets::shutdown(77));
    assert_eq!(stage.ended(), [(session, EndReason::OriginShutdown)]);
}

#[test]
fn a_client_that_falls_silent_ends_its_session_after_the_idle_timeout() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    for _ in 0..14 {
        stage.pass(SECOND);
        stage.origin_sends(session, &packets::keepalive(77));
    }
    assert!(stage.ended().is_empty());
    stage.pass(2 * SECOND);
    assert_eq!(stage.ended(), [(session, EndReason::ClientIdle)]);
    assert_eq!(goodbyes(&mut stage), (1, 1));
    assert_eq!(stage.shard.counters().sessions, 0);
}

#[test]
fn an_origin_that_falls_silent_ends_the_session_so_that_the_client_can_come_again() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    for _ in 0..16 {
        stage.pass(SECOND);
        stage.client_sends(client(5000), &packets::keepalive(4242));
    }
    assert_eq!(stage.ended(), [(session, EndReason::OriginIdle)]);
}

#[test]
fn a_session_in_use_outlives_any_number_of_idle_timeouts() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    for sequence in 0..120 {
        stage.pass(SECOND);
        stage.client_sends(client(5000), &packets::data(4242, sequence, b"media"));
        stage.origin_sends(session, &packets::keepalive(77));
    }
    assert!(stage.ended().is_empty());
    assert_eq!(stage.shard.counters().srt.established, 1);
}

#[test]
fn an_origin_whose_port_closed_and_that_is_silent_for_a_second_ends_the_session() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    stage.shard.port_failed(stage.now, session, PortError::Refused);
    stage.pass(Duration::from_millis(900));
    assert!(stage.ended().is_empty());
    stage.pass(Duration::from_millis(200));
    assert_eq!(stage.ended(), [(session, EndReason::OriginGone)]);
    assert_eq!(goodbyes(&mut stage).0, 1, "the client can reconnect at once");
}

#[test]
fn one_icmp_message_about_an_origin_that_still_speaks_ends_nothing() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    stage.shard.port_failed(stage.now, session, PortError::Refused);
    for _ in 0..10 {
        stage.pass(Duration::from_millis(500));
        stage.origin_sends(session, &packets::keepalive(77));
        stage.client_sends(client(5000), &packets::keepalive(4242));
    }
    assert!(stage.ended().is_empty());
}

#[test]
fn an_operator_ends_a_session_with_goodbyes_to_both_sides() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    stage.apply(Command::Close { session, reason: EndReason::Operator });
    assert_eq!(goodbyes(&mut stage), (1, 1));
    assert_eq!(stage.ended(), [(session, EndReason::Operator)]);
    stage.pass(3 * SECOND);
    assert_eq!(stage.take_out(), [Out::Close { session }]);
    assert_eq!(stage.shard.counters().sessions, 0);
}

#[test]
fn a_conclusion_still_on_its_way_when_an_operator_ends_the_session_begins_no_other() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    stage.client_sends(client(5000), &packets::data(4242, 1, b"media"));
    stage.apply(Command::Close { session, reason: EndReason::Operator });
    stage.pass(Duration::from_millis(200));
    stage.take_out();
    stage.take_events();
    let cookie = stage.cookie_for(client(5000), 77);
    let late = packets::conclusion(77, 1000, cookie, Some(STREAM_ID));
    let verdict = stage.client_sends(client(5000), &late);
    assert_eq!(verdict, Verdict::Drop(DropReason::RepeatedConclusion));
    assert!(stage.take_events().is_empty());
}

#[test]
fn closing_all_says_goodbye_to_every_session_and_reports_when_it_is_done() {
    let mut stage = Stage::new();
    for port in 5000..5300 {
        stage.established(client(port), 77, 4242);
    }
    stage.conclude(client(6000), 77, Some(STREAM_ID));
    stage.take_events();
    stage.take_out();
    stage.apply(Command::CloseAll);
    stage.pass(Duration::from_millis(100));
    assert!(stage.events.iter().any(|event| matches!(event, Event::Emptied)));
    assert_eq!(stage.ended().len(), 301);
    assert_eq!(goodbyes(&mut stage), (300, 300));
    assert_eq!(stage.shard.counters().sessions, 0);
}

#[test]
fn a_slot_that_is_used_again_belongs_to_its_new_session_alone() {
    let mut stage = Stage::new();
    let old = stage.established(client(5000), 77, 4242);
    stage.apply(Command::Close { session: old, reason: EndReason::Operator });
    stage.pass(3 * SECOND);
    stage.take_out();
    let new = stage.established(client(5001), 78, 4343);
    assert_eq!(old.slot, new.slot);
    assert_ne!(old.generation, new.generation);
    stage.apply(Command::Close { session: old, reason: EndReason::Operator });
    stage.shard.port_failed(stage.now, old, PortError::Refused);
    assert_eq!(stage.shard.counters().srt.established, 1);
}

#[test]
fn ten_thousand_sessions_come_and_go_and_leave_the_table_empty() {
    let mut stage = Stage::new();
    for round in 0..100_u16 {
        for i in 0..100_u16 {
            stage.established(client(5000 + i), 77, 4242 + u32::from(round));
        }
        for i in 0..100_u16 {
            let goodbye = packets::shutdown(4242 + u32::from(round));
            stage.client_sends(client(5000 + i), &goodbye);
        }
        stage.pass(3 * SECOND);
    }
    let counters = stage.shard.counters();
    assert_eq!((counters.sessions, counters.srt.established, counters.pending), (0, 0, 0));
    assert_eq!(counters.srt.sessions_created, 10_000);
    assert_eq!(stage.shard.poll_timeout(), None);
}

#[test]
fn a_repeated_conclusion_does_not_connect_a_caller_to_a_session_that_it_has_left() {
    let mut stage = Stage::new();
    stage.established(client(5000), 77, 4242);
    stage.client_sends(client(5000), &packets::shutdown(4242));
    stage.pass(SECOND);
    let cookie = stage.cookie_for(client(5000), 77);
    let again = packets::conclusion(77, 1000, cookie, Some(STREAM_ID));
    let verdict = stage.client_sends(client(5000), &again);
    assert_eq!(verdict, Verdict::Drop(DropReason::RepeatedConclusion));
    stage.pass(2 * SECOND);
    stage.client_sends(client(5000), &again);
    assert_eq!(stage.pick().client, client(5000), "once the old session is gone, it is a new one");
}

#[test]
fn a_caller_that_missed_answer_and_goodbye_of_its_origin_gets_both_when_it_asks_again() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    stage.origin_sends(session, &packets::shutdown(77));
    stage.pass(Duration::from_millis(250));
    let cookie = stage.cookie_for(client(5000), 77);
    stage.client_sends(client(5000), &packets::conclusion(77, 1000, cookie, Some(STREAM_ID)));
    let told: Vec<_> = stage
        .take_out()
        .into_iter()
        .map(|out| match out {
            Out::ToClient { bytes, .. } => (bytes[1], packets::word(&bytes, 12)),
            other => panic!("only the client hears of it: {other:?}"),
        })
        .collect();
    assert_eq!(told, [(0, 77), (5, 77)]);
}

#[test]
fn an_origin_may_use_a_socket_id_again_whose_session_is_closing() {
    let mut stage = Stage::new();
    let old = stage.established(client(5000), 77, 4242);
    stage.client_sends(client(5000), &packets::shutdown(4242));
    let new = stage.established(client(5000), 78, 4242);
    let verdict = stage.client_sends(client(5000), &packets::data(4242, 1, b"media"));
    let route = Route { port: Port::Session(new), to: None };
    assert_eq!(verdict, Verdict::Forward(route));
    let verdict = stage.origin_sends(old, &packets::shutdown(77));
    assert_eq!(verdict, Verdict::Drop(DropReason::StalePort));
    assert_eq!(stage.shard.counters().sessions, 1);
}

#[test]
fn a_port_that_opens_too_late_for_its_session_is_closed_at_once() {
    for reason in [EndReason::Operator, EndReason::PendingOverflow] {
        let mut stage = Stage::new();
        stage.conclude(client(5000), 77, Some(STREAM_ID));
        let session = stage.pick().session;
        stage.apply(Command::Open { session, origin: OriginId(0), address: origin() });
        stage.apply(Command::Close { session, reason });
        stage.take_out();
        stage.shard.port_opened(stage.now, session, Ok(()));
        stage.pass(Duration::ZERO);
        assert_eq!(stage.take_out(), [Out::Close { session }], "{reason:?}");
    }
}

#[test]
fn a_thousand_questions_that_are_due_at_once_are_all_asked() {
    let mut roomy = config();
    roomy.limits = Limits { pending_max: 1000, pending_per_source: 1000, ..limits() };
    let mut stage = Stage::with(roomy);
    for port in 5000..5600 {
        let cookie = stage.cookie_for(client(port), 77);
        let mut conclusion = packets::conclusion(77, 1000, cookie, Some(STREAM_ID));
        conclusion.extend(packets::string_block(7, &[b'x'; 1024]));
        stage.client_sends(client(port), &conclusion);
        let session = stage.pick().session;
        stage.open(session, origin());
        stage.origin_sends(session, &packets::induction_response(77, 9));
        stage.take_out();
    }
    stage.pass(Duration::from_millis(300));
    assert_eq!(stage.questions().len(), 600);
    assert_eq!(stage.shard.counters().drops[DropReason::OutboxFull as usize], 0);
}

#[test]
fn nobody_comes_in_while_everybody_is_sent_away() {
    let mut stage = Stage::new();
    stage.established(client(5000), 77, 4242);
    stage.apply(Command::CloseAll);
    stage.pass(Duration::ZERO);
    stage.take_out();
    let cookie = stage.cookie_for(client(5001), 78);
    stage.client_sends(client(5001), &packets::conclusion(78, 1000, cookie, Some(STREAM_ID)));
    assert_eq!(stage.answer().kind, 1007);
    assert_eq!(stage.shard.counters().sessions, 0);
}

#[test]
fn the_slot_of_a_session_that_was_heard_last_and_has_ended_is_not_confused_with_its_next_tenant() {
    let mut stage = Stage::new();
    let old = stage.established(client(5000), 77, 4242);
    stage.client_sends(client(5000), &packets::data(4242, 9, b"last"));
    stage.client_sends(client(5000), &packets::shutdown(4242));
    stage.pass(3 * SECOND);
    let new = stage.established(client(6000), 88, 5252);
    assert_eq!(new.slot, old.slot, "the slot is used again");
    let verdict = stage.client_sends(client(5000), &packets::data(4242, 10, b"late"));
    assert_eq!(verdict, Verdict::Drop(DropReason::UnknownSocketId));
}
