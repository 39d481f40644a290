//! How sessions end, and that nothing is left of them.

use std::time::Duration;

use ringway::shard::{Command, DropReason, EndReason, Event, PortError, SessionKey, Verdict};

use crate::support::packets;
use crate::support::stage::{Out, STREAM_ID, Stage, client};

const SECOND: Duration = Duration::from_secs(1);

fn ended(stage: &mut Stage) -> Vec<(SessionKey, EndReason)> {
    stage
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Ended { session, reason, .. } => Some((session, reason)),
            _ => None,
        })
        .collect()
}

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
    assert_eq!(ended(&mut stage), [(session, EndReason::ClientShutdown)]);
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
    assert_eq!(ended(&mut stage), [(session, EndReason::OriginShutdown)]);
}

#[test]
fn a_client_that_falls_silent_ends_its_session_after_the_idle_timeout() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    for _ in 0..14 {
        stage.pass(SECOND);
        stage.origin_sends(session, &packets::keepalive(77));
    }
    assert!(ended(&mut stage).is_empty());
    stage.pass(2 * SECOND);
    assert_eq!(ended(&mut stage), [(session, EndReason::ClientIdle)]);
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
    assert_eq!(ended(&mut stage), [(session, EndReason::OriginIdle)]);
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
    assert!(ended(&mut stage).is_empty());
    assert_eq!(stage.shard.counters().established, 1);
}

#[test]
fn an_origin_whose_port_closed_and_that_is_silent_for_a_second_ends_the_session() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    stage.shard.port_failed(stage.now, session, PortError::Refused);
    stage.pass(Duration::from_millis(900));
    assert!(ended(&mut stage).is_empty());
    stage.pass(Duration::from_millis(200));
    assert_eq!(ended(&mut stage), [(session, EndReason::OriginGone)]);
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
    assert!(ended(&mut stage).is_empty());
}

#[test]
fn an_operator_ends_a_session_with_goodbyes_to_both_sides() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    stage.apply(Command::Close { session, reason: EndReason::Operator });
    assert_eq!(goodbyes(&mut stage), (1, 1));
    assert_eq!(ended(&mut stage), [(session, EndReason::Operator)]);
    assert_eq!(stage.shard.counters().sessions, 0);
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
    assert_eq!(ended(&mut stage).len(), 301);
    assert_eq!(goodbyes(&mut stage), (300, 300));
    assert_eq!(stage.shard.counters().sessions, 0);
}

#[test]
fn a_slot_that_is_used_again_belongs_to_its_new_session_alone() {
    let mut stage = Stage::new();
    let old = stage.established(client(5000), 77, 4242);
    stage.apply(Command::Close { session: old, reason: EndReason::Operator });
    stage.take_out();
    let new = stage.established(client(5001), 78, 4343);
    assert_eq!(old.slot, new.slot);
    assert_ne!(old.generation, new.generation);
    stage.apply(Command::Close { session: old, reason: EndReason::Operator });
    stage.shard.port_failed(stage.now, old, PortError::Refused);
    assert_eq!(stage.shard.counters().established, 1);
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
    assert_eq!((counters.sessions, counters.established, counters.pending), (0, 0, 0));
    assert_eq!(counters.sessions_created, 10_000);
    assert_eq!(stage.shard.poll_timeout(), None);
}
