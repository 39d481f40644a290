//! Control's state without its thread: the tests bring time, events and questions.

use std::net::SocketAddr;

use super::fixtures::Relay;
use super::*;
use crate::control::ask::Readiness;
use crate::control::directory::fixtures::{registration, request, session, stream};
use crate::protocol::srt::Rejection;
use crate::shard::SessionKey;
use crate::shard::command::Role;

#[track_caller]
fn assert_refused(command: &Command, expected: Rejection) {
    let Command::Refuse { rejection, .. } = command else { panic!("{command:?}") };
    assert_eq!(*rejection, expected);
}

#[track_caller]
fn assert_opened(command: &Command) {
    assert!(matches!(command, Command::Open { .. }), "{command:?}");
}

#[test]
fn a_pick_is_answered_to_the_shard_that_asked_with_the_origins_address() {
    let mut relay = Relay::with_origin();
    let command = relay.pick(1, 7);
    let Command::Open { session: key, address, .. } = command else { panic!("{command:?}") };
    assert_eq!(key, SessionKey { slot: 7, generation: 1 });
    assert_eq!(address, SocketAddr::from(([10, 0, 0, 1], 10080)));
    assert!(relay.commands(0).is_empty());
}

#[test]
fn without_a_live_origin_callers_are_told_so() {
    let mut relay = Relay::new(Config::default());
    assert_refused(&relay.pick(0, 1), Rejection::Unavailable);
}

#[test]
fn the_process_limit_holds_over_all_shards_and_a_session_that_ended_makes_room() {
    let mut relay = Relay::with_origin();
    for slot in 0..4 {
        assert_opened(&relay.pick((slot % 2) as u16, slot));
    }
    assert_refused(&relay.pick(0, 9), Rejection::Overload);
    relay.ended(0, 0, EndReason::ClientShutdown);
    assert_opened(&relay.pick(1, 10));
}

#[test]
fn sessions_that_end_twice_or_were_refused_make_no_room() {
    let mut relay = Relay::with_origin();
    for slot in 0..4 {
        relay.pick(0, slot);
    }
    assert_refused(&relay.pick(0, 9), Rejection::Overload);
    relay.ended(0, 9, EndReason::Refused(Rejection::Overload));
    assert_refused(&relay.pick(0, 10), Rejection::Overload);
    relay.ended(0, 0, EndReason::OriginIdle);
    relay.ended(0, 0, EndReason::OriginIdle);
    assert_opened(&relay.pick(0, 11));
    assert_refused(&relay.pick(0, 12), Rejection::Overload);
}

#[test]
fn handshakes_under_way_have_a_limit_per_source() {
    let config = Config { pending_per_source: 1, ..Config::default() };
    let mut relay = Relay::new(config);
    relay.state.register(relay.now, registration("a", 1, Some(10080))).unwrap();
    assert_opened(&relay.pick(0, 1));
    assert_refused(&relay.pick(1, 2), Rejection::Overload);
    relay.established(0, 1);
    assert_opened(&relay.pick(1, 3));
    relay.ended(1, 3, EndReason::RefusedByOrigin(1010));
    assert_opened(&relay.pick(1, 4));
}

#[test]
fn a_draining_relay_refuses_newcomers_and_still_takes_registrations() {
    let mut relay = Relay::with_origin();
    relay.state.quit(relay.now);
    assert!(matches!(relay.commands(1)[..], [Command::Drain(true)]));
    relay.commands(0);
    assert_refused(&relay.pick(0, 1), Rejection::Close);
    assert_eq!(relay.state.register(relay.now, registration("b", 2, Some(1))), Ok(()));
    assert_eq!(relay.state.readiness(relay.now), Readiness::Quitting);
}

#[test]
fn an_operators_drain_refuses_newcomers_until_it_is_taken_back() {
    let mut relay = Relay::with_origin();
    relay.pick(0, 1);
    assert!(relay.state.begin_drain(relay.now, Goal::default()));
    assert_eq!(relay.state.readiness(relay.now), Readiness::Draining);
    for shard in 0..2 {
        assert!(matches!(relay.commands(shard)[..], [Command::Drain(true)]));
    }
    assert_refused(&relay.pick(0, 2), Rejection::Close);
    assert!(relay.state.end_drain());
    for shard in 0..2 {
        assert!(matches!(relay.commands(shard)[..], [Command::Drain(false)]));
    }
    assert_opened(&relay.pick(0, 3));
    assert_eq!(relay.state.readiness(relay.now), Readiness::Ready { origins_up: 1 });
}

#[test]
fn a_relay_that_is_drained_stays() {
    let mut relay = Relay::with_origin();
    relay.pick(0, 1);
    relay.state.begin_drain(relay.now, Goal::default());
    relay.commands(0);
    relay.ended(0, 1, EndReason::ClientShutdown);
    relay.state.advance(relay.now);
    let service = relay.state.service(relay.now);
    assert!(service.drain.unwrap().is_drained, "{service:?}");
    assert_eq!(service.sessions, 0);
    assert!(relay.commands(0).is_empty());
    assert!(!relay.state.is_stopped());
}

#[test]
fn a_drain_without_sessions_is_over_as_soon_as_it_begins() {
    let mut relay = Relay::with_origin();
    relay.state.begin_drain(relay.now, Goal::default());
    assert!(relay.state.service(relay.now).drain.unwrap().is_drained);
}

#[test]
fn the_deadline_of_a_drain_wakes_control() {
    let mut relay = Relay::with_origin();
    relay.pick(0, 1);
    let deadline = Some(Duration::from_secs(5));
    relay.state.begin_drain(relay.now, Goal { deadline, ..Goal::default() });
    assert_eq!(relay.state.deadline(relay.now), Some(relay.now + Duration::from_secs(5)));
    relay.now += Duration::from_secs(5);
    relay.state.advance(relay.now);
    assert_eq!(relay.state.deadline(relay.now), None);
}

#[test]
fn a_drained_relay_quits_as_any_other_and_can_no_longer_be_undrained() {
    let mut relay = Relay::with_origin();
    relay.pick(0, 1);
    relay.state.begin_drain(relay.now, Goal::default());
    relay.commands(0);
    relay.state.quit(relay.now);
    assert_eq!(relay.state.readiness(relay.now), Readiness::Quitting);
    assert!(!relay.state.end_drain());
    assert!(!relay.state.begin_drain(relay.now, Goal::default()));
    relay.ended(0, 1, EndReason::ClientShutdown);
    relay.state.advance(relay.now);
    let told = relay.commands(0);
    assert!(matches!(told[..], [Command::Drain(true), .., Command::CloseAll]), "{told:?}");
}

#[test]
fn the_relay_quits_when_the_last_session_has_ended_and_every_shard_is_empty() {
    let mut relay = Relay::with_origin();
    relay.pick(0, 1);
    relay.state.quit(relay.now);
    relay.state.advance(relay.now);
    assert!(matches!(relay.commands(0)[..], [Command::Drain(true)]));
    relay.ended(0, 1, EndReason::ClientShutdown);
    relay.state.advance(relay.now);
    assert!(matches!(relay.commands(0)[..], [Command::Drain(true), Command::CloseAll]));
    relay.event(0, Event::Emptied);
    relay.state.advance(relay.now);
    assert!(!relay.state.is_stopped());
    relay.event(1, Event::Emptied);
    relay.state.advance(relay.now);
    assert!(relay.state.is_stopped());
    assert!(matches!(relay.commands(0)[..], [Command::Stop]));
}

#[test]
fn the_longest_key_of_the_live_origins_is_told_to_all_shards_once() {
    let mut relay = Relay::with_origin();
    relay.state.register(relay.now, registration("b", 2, Some(10080))).unwrap();
    let due = relay.state.take_due_checks(relay.now, 9);
    assert_eq!(due.len(), 2);
    let heard = |bytes| Found { result: Ok(()), key_length: Some(bytes) };
    relay.state.checked(relay.now, due[0].origin, Kind::Srt, heard(16));
    relay.state.checked(relay.now, due[1].origin, Kind::Srt, heard(32));
    relay.state.tick(relay.now);
    for shard in 0..2 {
        let told = relay.commands(shard);
        assert!(matches!(told[..], [Command::KeyLength(16), Command::KeyLength(32)]), "{told:?}");
    }
}

#[test]
fn a_configured_key_length_needs_no_questions() {
    let srt_key_length = KeyLength::Bytes(32);
    let config = Config { srt_key_length, origin_check: None, ..Config::default() };
    let mut relay = Relay::new(config);
    relay.state.register(relay.now, registration("a", 1, Some(10080))).unwrap();
    assert!(relay.state.take_due_checks(relay.now, 9).is_empty());
}

#[test]
fn only_a_session_that_lives_can_be_closed() {
    let mut relay = Relay::with_origin();
    relay.pick(0, 1);
    assert!(!relay.state.close(relay.now, session(2).into()));
    assert!(relay.state.close(relay.now, session(1).into()));
    let told = relay.commands(0);
    assert!(matches!(told[..], [Command::Close { reason: EndReason::Operator, .. }]));
}

#[test]
fn streams_in_use_are_shown_before_idle_ones() {
    let mut relay = Relay::with_origin();
    for (slot, path) in [(1, "live/a"), (2, "live/b"), (3, "live/c")] {
        relay.event(0, Event::Pick(Box::new(request(slot, path, Role::Publish))));
    }
    relay.ended(0, 1, EndReason::ClientShutdown);
    relay.ended(0, 3, EndReason::ClientShutdown);
    let (streams, total) = relay.state.streams(relay.now, 1);
    assert_eq!((streams.len(), total), (1, 3));
    let shown = serde_json::to_value(&streams[0]).unwrap();
    assert_eq!(shown["stream"], stream("live/b").as_str());
}

#[test]
fn a_session_that_finds_nobody_at_its_origin_sends_the_next_one_elsewhere() {
    let mut relay = Relay::with_origin();
    relay.state.register(relay.now, registration("b", 2, Some(10080))).unwrap();
    let Command::Open { origin: first, .. } = relay.pick(0, 1) else { panic!("not opened") };
    relay.ended(0, 1, EndReason::Refused(Rejection::BadGateway));
    let Command::Open { origin: second, .. } = relay.pick(0, 2) else { panic!("not opened") };
    assert_ne!(first, second);
    let up: Vec<_> = relay.state.snapshot(relay.now, relay.now).origins;
    assert_eq!(up.iter().filter(|origin| origin.is_up).count(), 1);
}

#[test]
fn a_caller_that_is_taken_elsewhere_gets_another_origin_and_counts_once() {
    let mut relay = Relay::with_origin();
    relay.state.register(relay.now, registration("b", 2, Some(10080))).unwrap();
    let Command::Open { origin: first, .. } = relay.pick(0, 1) else { panic!("not opened") };
    relay.ended(0, 1, EndReason::TakenElsewhere);
    let Command::Open { origin: second, .. } = relay.pick(0, 2) else { panic!("not opened") };
    assert_ne!(first, second);
    assert_eq!(relay.state.directory.sessions_count(), 1);
}

#[test]
fn whoever_lost_his_session_with_his_origin_finds_another_when_he_comes_back() {
    let mut relay = Relay::with_origin();
    relay.state.register(relay.now, registration("b", 2, Some(10080))).unwrap();
    let Command::Open { origin: first, .. } = relay.pick(0, 1) else { panic!("not opened") };
    relay.established(0, 1);
    relay.ended(0, 1, EndReason::OriginGone);
    let Command::Open { origin: second, .. } = relay.pick(0, 2) else { panic!("not opened") };
    assert_ne!(first, second);
}

#[test]
fn what_an_origin_refuses_is_nothing_against_it() {
    let mut relay = Relay::with_origin();
    relay.pick(0, 1);
    relay.ended(0, 1, EndReason::RefusedByOrigin(1010));
    assert_eq!(relay.state.readiness(relay.now), Readiness::Ready { origins_up: 1 });
}

#[test]
fn a_relay_whose_origins_all_fail_is_degraded_until_one_answers() {
    let mut relay = Relay::with_origin();
    relay.pick(0, 1);
    relay.ended(0, 1, EndReason::Refused(Rejection::BadGateway));
    assert_eq!(relay.state.readiness(relay.now), Readiness::Degraded { origins_failing: 1 });
    assert_opened(&relay.pick(0, 2));
    relay.established(0, 2);
    assert_eq!(relay.state.readiness(relay.now), Readiness::Ready { origins_up: 1 });
}

#[test]
fn readiness_needs_a_live_origin() {
    let mut relay = Relay::with_origin();
    assert_eq!(relay.state.readiness(relay.now), Readiness::Ready { origins_up: 1 });
    relay.now += Config::default().origin_ttl;
    assert_eq!(relay.state.readiness(relay.now), Readiness::NoOrigin);
}
