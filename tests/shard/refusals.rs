//! Who is refused, with which number, and how soon.

use std::time::Duration;

use ringway::protocol::srt::Rejection;
use ringway::shard::{Command, EndReason, Event, PortError, SessionKey};

use crate::support::packets::{self, Fields};
use crate::support::stage::{Out, STREAM_ID, Stage, client, config, limits, origin};

/// What a caller with this stream ID is told at once.
fn refusal(stage: &mut Stage, stream_id: &str) -> u32 {
    let cookie = stage.cookie_for(client(5000), 77);
    stage.client_sends(client(5000), &packets::conclusion(77, 1000, cookie, Some(stream_id)));
    stage.answer().kind
}

#[test]
fn a_refusal_is_64_bytes_for_the_callers_socket_and_needs_a_good_cookie() {
    let mut stage = Stage::new();
    let cookie = stage.cookie_for(client(5000), 77);
    let conclusion = packets::conclusion(77, 1000, cookie, Some("#!::m=publish"));
    stage.client_sends(client(5000), &conclusion);
    let bytes = stage.answer_bytes();
    let answer = Fields::read(&bytes);
    assert_eq!((bytes.len(), answer.destination, answer.kind), (64, 77, 2400));
    assert_eq!((answer.version, answer.sequence), (5, 1000));
    assert_eq!(stage.shard.counters().sessions, 0);
}

#[test]
fn malformed_stream_ids_are_bad_requests_and_unknown_modes_are_bad_modes() {
    let mut stage = Stage::new();
    assert_eq!(refusal(&mut stage, "#!::"), 2400);
    assert_eq!(refusal(&mut stage, "#!::=,="), 2400);
    assert_eq!(refusal(&mut stage, "#!::r=live/a,m=bidirectional"), 2405);
    assert_eq!(refusal(&mut stage, &"x".repeat(513)), 2400);
}

#[test]
fn a_version_5_conclusion_without_hsreq_is_a_rogue() {
    let mut stage = Stage::new();
    let cookie = stage.cookie_for(client(5000), 77);
    let mut conclusion = Fields { cookie, extension: 4, ..Fields::default() }.write();
    conclusion.extend(packets::string_block(5, b"live/a"));
    stage.client_sends(client(5000), &conclusion);
    assert_eq!(stage.answer().kind, 1004);
}

#[test]
fn an_extension_that_runs_past_the_end_is_a_rogue_whatever_size_it_claims() {
    let mut stage = Stage::new();
    for words in [0x4000_u16, 0x4001, 0xFFFF, 4] {
        let cookie = stage.cookie_for(client(5000), 77);
        let mut conclusion = Fields { cookie, extension: 5, ..Fields::default() }.write();
        conclusion.extend(packets::hsreq());
        conclusion.extend([0, 5]);
        conclusion.extend(words.to_be_bytes());
        conclusion.extend(b"evil/x\0\0");
        stage.client_sends(client(5000), &conclusion);
        assert_eq!(stage.answer().kind, 1004, "{words:#x}");
    }
}

#[test]
fn a_version_that_is_neither_4_nor_5_is_refused_as_such() {
    let mut stage = Stage::new();
    let cookie = stage.cookie_for(client(5000), 77);
    let mut conclusion = Fields { version: 6, cookie, extension: 1, ..Fields::default() }.write();
    conclusion.extend(packets::hsreq());
    stage.client_sends(client(5000), &conclusion);
    assert_eq!(stage.answer().kind, 1008);
}

#[test]
fn a_caller_without_a_stream_id_is_refused_where_there_is_no_default() {
    let mut strict = config();
    strict.default_stream = None;
    let mut stage = Stage::with(strict);
    let cookie = stage.cookie_for(client(5000), 77);
    stage.client_sends(client(5000), &packets::conclusion(77, 1000, cookie, None));
    assert_eq!(stage.answer().kind, 2400);
}

#[test]
fn control_can_refuse_and_repeats_get_the_same_answer_for_as_long_as_a_caller_asks() {
    let mut stage = Stage::new();
    let cookie = stage.conclude(client(5000), 77, Some(STREAM_ID));
    let session = stage.pick().session;
    stage.apply(Command::Refuse { session, rejection: Rejection::Unavailable });
    assert_eq!(stage.answer().kind, 2503);
    assert_eq!(stage.ended(), [(session, EndReason::Refused(Rejection::Unavailable))]);
    for _ in 0..11 {
        stage.pass(Duration::from_millis(250));
        let again = packets::conclusion(77, 1000, cookie, Some(STREAM_ID));
        stage.client_sends(client(5000), &again);
        assert_eq!(stage.answer().kind, 2503);
    }
    assert!(stage.take_events().is_empty(), "nobody is asked again");
    stage.pass(Duration::from_secs(2));
    assert_eq!(stage.shard.counters().sessions, 0);
}

#[test]
fn an_origin_that_stays_silent_is_a_bad_gateway_after_two_seconds() {
    let mut stage = Stage::new();
    stage.conclude(client(5000), 77, Some(STREAM_ID));
    let session = stage.pick().session;
    stage.open(session, origin());
    stage.pass(Duration::from_millis(1990));
    assert!(!stage.take_out().iter().any(|out| matches!(out, Out::ToClient { .. })));
    stage.pass(Duration::from_millis(30));
    let out = stage.take_out();
    let [Out::ToClient { bytes, .. }, Out::Close { .. }] = &out[..] else {
        panic!("an answer and a closed port: {out:?}");
    };
    assert_eq!(Fields::read(bytes).kind, 2502);
    stage.pass(Duration::from_secs(2));
    assert_eq!(stage.shard.counters().sessions, 0);
}

#[test]
fn an_origin_that_answers_the_induction_and_not_the_conclusion_is_a_bad_gateway_too() {
    let mut stage = Stage::new();
    stage.concluding(client(5000), 77);
    stage.pass(Duration::from_millis(2010));
    let answers: Vec<_> = stage
        .take_out()
        .into_iter()
        .filter_map(|out| match out {
            Out::ToClient { bytes, .. } => Some(Fields::read(&bytes).kind),
            _ => None,
        })
        .collect();
    assert_eq!(answers, [2502]);
}

/// Asks for an origin for `session`, and finds its port closed.
fn meet_closed_port(stage: &mut Stage) -> SessionKey {
    let session = stage.pick().session;
    stage.open(session, origin());
    stage.take_out();
    stage.shard.port_failed(stage.now, session, PortError::Refused);
    stage.pass(Duration::ZERO);
    session
}

#[test]
fn a_caller_that_met_a_closed_port_is_taken_to_another_origin_at_once() {
    let mut stage = Stage::new();
    let cookie = stage.conclude(client(5000), 77, Some(STREAM_ID));
    let first = meet_closed_port(&mut stage);
    assert_eq!(stage.take_out(), [Out::Close { session: first }], "the caller is told nothing yet");
    let second = stage.pick().session;
    assert_ne!(second, first);
    let elsewhere = "10.0.0.6:10080".parse().unwrap();
    stage.open(second, elsewhere);
    stage.origin_sends(second, &packets::induction_response(77, 0x0516_2222));
    stage.take_out();
    stage.origin_sends(second, &packets::conclusion_response(77, 4242, 0x0516_2222, 500));
    let answer = stage.answer();
    assert_eq!((answer.kind, answer.cookie), (packets::CONCLUSION, cookie));
    assert_eq!(stage.shard.counters().sessions, 1);
    assert_eq!(stage.shard.counters().pending, 0);
}

#[test]
fn a_caller_that_met_a_closed_port_four_times_gets_a_bad_gateway_and_control_hears_of_each() {
    let mut stage = Stage::new();
    stage.conclude(client(5000), 77, Some(STREAM_ID));
    let mut ended = Vec::new();
    for attempt in 1..=4 {
        let session = meet_closed_port(&mut stage);
        let reason_told = match attempt {
            4 => EndReason::Refused(Rejection::BadGateway),
            _ => EndReason::TakenElsewhere,
        };
        let is_told = |event: &Event| {
            matches!(event, Event::Ended { session: of, reason, .. }
                if (*of, *reason) == (session, reason_told))
        };
        ended.push(stage.events.iter().filter(|event| is_told(event)).count());
        let is_refused = stage.out.iter().any(|out| matches!(out, Out::ToClient { .. }));
        assert_eq!(is_refused, attempt == 4, "attempt {attempt}");
    }
    assert_eq!(ended, [1; 4]);
    assert_eq!(stage.answer().kind, 2502);
}

#[test]
fn a_session_without_descriptor_is_an_overload_and_one_without_a_way_a_bad_gateway() {
    for (error, kind) in [(PortError::Exhausted, 2402), (PortError::Other(1), 2502)] {
        let mut stage = Stage::new();
        stage.conclude(client(5000), 77, Some(STREAM_ID));
        let session = stage.pick().session;
        let (origin, address) = (ringway::shard::OriginId(0), origin());
        stage.apply(Command::Open { session, origin, address });
        stage.shard.port_opened(stage.now, session, Err(error));
        stage.pass(Duration::ZERO);
        assert_eq!(stage.answer().kind, kind);
    }
}

#[test]
fn an_origin_that_is_no_srt_listener_of_version_5_is_a_bad_gateway() {
    let mut stage = Stage::new();
    stage.conclude(client(5000), 77, Some(STREAM_ID));
    let session = stage.pick().session;
    stage.open(session, origin());
    stage.take_out();
    let response = Fields::read(&packets::induction_response(77, 9));
    stage.origin_sends(session, &Fields { extension: 2, version: 4, ..response }.write());
    assert_eq!(stage.answer().kind, 2502);
}

#[test]
fn the_origins_own_rejection_reaches_the_client_and_nothing_is_left_of_the_session() {
    for code in [1010, 1005, 2404, 1404] {
        let mut stage = Stage::new();
        let session = stage.concluding(client(5000), 77);
        stage.origin_sends(session, &packets::rejection(77, code));
        let out = stage.take_out();
        let [Out::ToClient { bytes, .. }, Out::Close { .. }] = &out[..] else {
            panic!("an answer and a closed port: {out:?}");
        };
        assert_eq!(Fields::read(bytes).kind, code);
        assert_eq!(stage.ended(), [(session, EndReason::RefusedByOrigin(code))]);
        stage.pass(Duration::from_secs(4));
        assert_eq!(stage.shard.counters().sessions, 0);
    }
}

#[test]
fn two_origins_that_chose_one_socket_id_for_one_client_cannot_both_have_it() {
    let mut stage = Stage::new();
    stage.established(client(5000), 77, 4242);
    let second = stage.concluding(client(5000), 78);
    stage.origin_sends(second, &packets::conclusion_response(78, 4242, 0x0516_1111, 0));
    let out = stage.take_out();
    let told: Vec<_> = out
        .iter()
        .filter_map(|out| match out {
            Out::ToClient { bytes, .. } => Some(Fields::read(bytes).kind),
            _ => None,
        })
        .collect();
    assert_eq!(told, [1003]);
    let goodbye = out.iter().any(
        |out| matches!(out, Out::ToOrigin { session, bytes } if *session == second && bytes[1] == 5),
    );
    assert!(goodbye, "the origin believes in the session and must hear that it is over");
    assert_eq!(stage.shard.counters().srt.established, 1);
}

#[test]
fn a_full_table_refuses_new_callers_and_keeps_the_live_ones() {
    let mut small = config();
    small.limits = ringway::shard::Limits { sessions_max: 2, ..limits() };
    let mut stage = Stage::with(small);
    stage.established(client(5000), 1, 4001);
    stage.established(client(5001), 1, 4001);
    let cookie = stage.cookie_for(client(5002), 1);
    stage.client_sends(client(5002), &packets::conclusion(1, 1000, cookie, Some(STREAM_ID)));
    assert_eq!(stage.answer().kind, 2402);
    assert_eq!(stage.shard.counters().srt.established, 2);
}

#[test]
fn one_client_may_have_only_so_many_handshakes_under_way() {
    let mut small = config();
    small.limits.pending_per_source = 3;
    let mut stage = Stage::with(small);
    for port in 5000..5003 {
        stage.conclude(client(port), 77, Some(STREAM_ID));
    }
    let cookie = stage.cookie_for(client(5003), 77);
    stage.client_sends(client(5003), &packets::conclusion(77, 1000, cookie, Some(STREAM_ID)));
    assert_eq!(stage.answer().kind, 2402);
}

#[test]
fn a_draining_shard_refuses_new_callers_until_it_is_undrained() {
    let mut stage = Stage::new();
    stage.apply(Command::Drain(true));
    assert_eq!(refusal(&mut stage, STREAM_ID), 1007);
    stage.apply(Command::Drain(false));
    stage.conclude(client(5001), 77, Some(STREAM_ID));
    assert_eq!(stage.pick().client, client(5001));
}

#[test]
fn nobody_who_is_still_connecting_gets_anything_but_handshakes() {
    let mut stage = Stage::new();
    let session = stage.concluding(client(5000), 77);
    stage.apply(Command::Close { session, reason: EndReason::Operator });
    assert_eq!(stage.answer().kind, 1007);
}

#[test]
fn a_caller_that_an_operator_refused_stays_refused_when_its_conclusion_comes_again() {
    let mut stage = Stage::new();
    let cookie = stage.conclude(client(5000), 77, Some(STREAM_ID));
    let session = stage.pick().session;
    stage.apply(Command::Close { session, reason: EndReason::Operator });
    stage.apply(Command::Close { session, reason: EndReason::Operator });
    assert_eq!(stage.answer().kind, 1007);
    assert_eq!(stage.ended(), [(session, EndReason::Refused(Rejection::Close))]);
    stage.pass(Duration::from_millis(250));
    stage.client_sends(client(5000), &packets::conclusion(77, 1000, cookie, Some(STREAM_ID)));
    assert_eq!(stage.answer().kind, 1007);
    assert!(stage.take_events().is_empty(), "nobody is asked for an origin again");
    stage.pass(Duration::from_secs(4));
    assert_eq!(stage.shard.counters().sessions, 0);
}

#[test]
fn a_conclusion_longer_than_any_handshake_is_a_rogue_and_is_not_kept() {
    let mut stage = Stage::new();
    let cookie = stage.cookie_for(client(5000), 77);
    let mut conclusion = packets::conclusion(77, 1000, cookie, Some(STREAM_ID));
    // An extension of an unknown type, as long as a UDP datagram allows.
    conclusion.extend([0, 99, 0x3F, 0xC0]);
    conclusion.resize(conclusion.len() + 4 * 0x3FC0, 0);
    stage.client_sends(client(5000), &conclusion);
    assert_eq!(stage.answer().kind, 1004);
    assert_eq!(stage.shard.counters().sessions, 0);
}

#[test]
fn an_origin_that_takes_a_caller_too_late_is_told_that_nobody_is_there() {
    let mut stage = Stage::new();
    let session = stage.concluding(client(5000), 77);
    stage.pass(Duration::from_millis(2010));
    assert_eq!(stage.ended(), [(session, EndReason::Refused(Rejection::BadGateway))]);
    stage.take_out();
    stage.origin_sends(session, &packets::conclusion_response(77, 4242, 0x0516_1111, 500));
    let goodbye = stage.questions().pop().expect("the origin hears of it");
    assert_eq!((goodbye[1], packets::word(&goodbye, 12)), (5, 4242));
    stage.pass(Duration::from_secs(2));
    assert_eq!(stage.shard.counters().sessions, 0);
}
