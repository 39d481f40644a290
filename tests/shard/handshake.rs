//! From the first induction to the answer that the client gets.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ringway::shard::{Command, DropReason, Event, OriginId, Role, Verdict};

use crate::support::packets::{self, CONCLUSION, Fields, INDUCTION, MAGIC};
use crate::support::stage::{Out, STREAM_ID, Stage, client, config, limits, origin};

const MS: Duration = Duration::from_millis(1);

#[test]
fn an_induction_is_answered_with_64_bytes_and_leaves_no_state() {
    let mut stage = Stage::new();
    stage.client_sends(client(5000), &packets::induction(77, 1000));
    let bytes = stage.answer_bytes();
    let answer = Fields::read(&bytes);
    assert_eq!(bytes.len(), 64);
    assert_eq!((answer.version, answer.extension, answer.kind), (5, MAGIC, INDUCTION));
    assert_eq!((answer.destination, answer.socket, answer.sequence), (77, 77, 1000));
    assert_ne!(answer.cookie, 0);
    assert_eq!(stage.shard.counters().sessions, 0);
}

#[test]
fn an_induction_longer_than_a_handshake_gets_no_longer_answer() {
    let mut stage = Stage::new();
    let mut long = packets::induction(77, 1000);
    long.resize(1400, 0);
    stage.client_sends(client(5000), &long);
    assert_eq!(stage.answer_bytes().len(), 64);
}

#[test]
fn the_answer_to_an_induction_carries_the_callers_own_address_in_libsrts_word_order() {
    let mut stage = Stage::new();
    stage.client_sends(client(5000), &packets::induction(77, 1000));
    assert_eq!(stage.answer().peer_ip[..4], [9, 113, 0, 203]);
    let v6: SocketAddr = "[2001:db8::1]:5000".parse().unwrap();
    stage.client_sends(v6, &packets::induction(77, 1000));
    let expected = [0xb8, 0x0d, 0x01, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    assert_eq!(stage.answer().peer_ip, expected);
}

#[test]
fn an_induction_advertises_the_key_length_that_control_has_learnt() {
    let mut stage = Stage::new();
    for (bytes, field) in [(0, 0), (16, 2), (24, 3), (32, 4)] {
        stage.apply(Command::KeyLength(bytes));
        stage.client_sends(client(5000), &packets::induction(77, 1000));
        assert_eq!(stage.answer().encryption, field);
    }
}

#[test]
fn another_listeners_induction_response_is_never_taken_for_a_question() {
    let mut stage = Stage::new();
    let response = Fields::read(&packets::induction_response(77, 5));
    let verdict = stage.client_sends(client(5000), &Fields { destination: 0, ..response }.write());
    assert_eq!(verdict, Verdict::Drop(DropReason::UnexpectedHandshake));
    let verdict = stage.client_sends(client(5000), &packets::induction(0, 1000));
    assert_eq!(verdict, Verdict::Drop(DropReason::MalformedHandshake));
    assert!(stage.take_out().is_empty());
}

#[test]
fn handshake_types_that_no_caller_sends_are_dropped_and_rendezvous_is_named() {
    let mut stage = Stage::new();
    let mut verdict = |kind| {
        let bytes = Fields { kind, cookie: 5, ..Fields::default() }.write();
        stage.client_sends(client(5000), &bytes)
    };
    assert_eq!(verdict(0), Verdict::Drop(DropReason::Rendezvous));
    for kind in [0xFFFF_FFFE, 0xFFFF_FFFD, 2, 1000, 1005, 2404, 3000] {
        assert_eq!(verdict(kind), Verdict::Drop(DropReason::UnexpectedHandshake), "{kind}");
    }
}

#[test]
fn handshakes_of_every_length_up_to_67_bytes_are_dropped_or_answered_and_never_crash() {
    let mut stage = Stage::new();
    let cookie = stage.cookie_for(client(5000), 77);
    let whole = packets::conclusion(77, 1000, cookie, Some(STREAM_ID));
    for length in 0..16 {
        let verdict = stage.client_sends(client(5000), &whole[..length]);
        assert_eq!(verdict, Verdict::Drop(DropReason::TooShort), "{length}");
    }
    for length in 16..64 {
        let verdict = stage.client_sends(client(5000), &whole[..length]);
        assert_eq!(verdict, Verdict::Drop(DropReason::MalformedHandshake), "{length}");
    }
    for length in 64..68 {
        stage.client_sends(client(5000), &whole[..length]);
        assert_eq!(stage.answer().kind, 1004, "{length}");
    }
    assert_eq!(stage.shard.counters().sessions, 0);
}

#[test]
fn a_conclusion_without_our_cookie_is_dropped_in_silence() {
    let mut stage = Stage::new();
    for cookie in [0, 1, 0x418d_5e4e, 0xcafe_babe] {
        let conclusion = packets::conclusion(77, 1000, cookie, Some(STREAM_ID));
        let verdict = stage.client_sends(client(5000), &conclusion);
        assert_eq!(verdict, Verdict::Drop(DropReason::InvalidCookie));
    }
    assert!(stage.take_out().is_empty() && stage.take_events().is_empty());
    assert_eq!(stage.shard.counters().sessions, 0);
}

#[test]
fn a_cookie_is_good_for_one_address_one_port_and_one_socket_id() {
    let mut stage = Stage::new();
    let cookie = stage.cookie_for(client(5000), 77);
    let conclusion = |socket| packets::conclusion(socket, 1000, cookie, Some(STREAM_ID));
    let dropped = Verdict::Drop(DropReason::InvalidCookie);
    assert_eq!(stage.client_sends(client(5001), &conclusion(77)), dropped);
    let elsewhere = SocketAddr::from(([203, 0, 113, 10], 5000));
    assert_eq!(stage.client_sends(elsewhere, &conclusion(77)), dropped);
    assert_eq!(stage.client_sends(client(5000), &conclusion(78)), dropped);
    assert_eq!(stage.client_sends(client(5000), &conclusion(77)), Verdict::Taken);
}

#[test]
fn a_cookie_of_the_previous_bucket_is_good_and_one_of_two_buckets_ago_is_not() {
    let mut stage = Stage::new();
    let cookie = stage.cookie_for(client(5000), 77);
    stage.pass(Duration::from_secs(32));
    let conclusion = packets::conclusion(77, 1000, cookie, Some(STREAM_ID));
    assert_eq!(stage.client_sends(client(5000), &conclusion), Verdict::Taken);
    let old = stage.cookie_for(client(5001), 77);
    stage.pass(Duration::from_secs(64));
    let conclusion = packets::conclusion(77, 1000, old, Some(STREAM_ID));
    let verdict = stage.client_sends(client(5001), &conclusion);
    assert_eq!(verdict, Verdict::Drop(DropReason::InvalidCookie));
}

#[test]
fn a_conclusion_with_a_good_cookie_asks_control_for_an_origin() {
    let mut stage = Stage::new();
    stage.conclude(client(5000), 77, Some("#!::h=any.example.com,r=/live//cam,m=publish"));
    let pick = stage.pick();
    assert_eq!(pick.client, client(5000));
    assert_eq!(pick.stream.as_str(), "__defaultVhost__/live/cam");
    assert_eq!((pick.role, pick.group), (Role::Publish, None));
}

#[test]
fn a_conclusion_needs_no_earlier_induction_on_this_shard() {
    let mut first = Stage::new();
    let cookie = first.cookie_for(client(5000), 77);
    let mut second = Stage::new();
    let conclusion = packets::conclusion(77, 1000, cookie, Some(STREAM_ID));
    assert_eq!(second.client_sends(client(5000), &conclusion), Verdict::Taken);
    assert_eq!(second.pick().client, client(5000));
}

#[test]
fn a_caller_without_a_stream_id_publishes_the_default_stream() {
    let mut stage = Stage::new();
    stage.conclude(client(5000), 77, None);
    let pick = stage.pick();
    assert_eq!(pick.stream.as_str(), "__defaultVhost__/live/livestream");
    assert_eq!(pick.role, Role::Publish);
}

#[test]
fn a_version_4_caller_gets_the_default_stream_and_its_conclusion_reaches_the_origin() {
    let mut stage = Stage::new();
    let cookie = stage.cookie_for(client(5000), 77);
    let fields = Fields { version: 4, extension: 2, cookie, ..Fields::default() };
    assert_eq!(stage.client_sends(client(5000), &fields.write()), Verdict::Taken);
    let session = stage.pick().session;
    stage.open(session, origin());
    stage.origin_sends(session, &packets::induction_response(77, 9));
    let conclusion = stage.questions().pop().unwrap();
    assert_eq!((conclusion.len(), Fields::read(&conclusion).version), (64, 4));
}

#[test]
fn the_bonding_group_of_a_caller_reaches_control() {
    let mut stage = Stage::new();
    let cookie = stage.cookie_for(client(5000), 77);
    let mut conclusion = packets::conclusion(77, 1000, cookie, Some(STREAM_ID));
    conclusion.extend([0, 8, 0, 2, 0x40, 0, 0x12, 0x34, 1, 0, 0, 0]);
    stage.client_sends(client(5000), &conclusion);
    assert_eq!(stage.pick().group.map(|group| group.0), Some(0x4000_1234));
}

#[test]
fn the_origin_is_asked_for_its_cookie_with_an_induction_rebuilt_from_the_conclusion() {
    let mut stage = Stage::new();
    stage.conclude(client(5000), 77, Some(STREAM_ID));
    let session = stage.pick().session;
    stage.open(session, origin());
    let question = stage.questions().pop().unwrap();
    let fields = Fields::read(&question);
    assert_eq!(question.len(), 64);
    assert_eq!((fields.destination, fields.version, fields.encryption), (0, 4, 0));
    assert_eq!((fields.extension, fields.kind, fields.cookie), (2, INDUCTION, 0));
    assert_eq!((fields.sequence, fields.mtu, fields.socket), (1000, 1500, 77));
}

#[test]
fn the_origin_gets_the_conclusion_with_its_own_cookie_its_own_address_and_the_holding_time() {
    let mut stage = Stage::new();
    let cookie = stage.cookie_for(client(5000), 77);
    let fields = Fields { timestamp: 400_000, cookie, extension: 5, ..Fields::default() };
    let mut sent = fields.write();
    sent.extend(packets::hsreq());
    sent.extend(packets::string_block(5, STREAM_ID.as_bytes()));
    stage.client_sends(client(5000), &sent);
    let session = stage.pick().session;
    stage.pass(30 * MS);
    stage.open(session, origin());
    stage.pass(20 * MS);
    stage.take_out();
    stage.origin_sends(session, &packets::induction_response(77, 0x0516_1111));
    let received = stage.questions().pop().unwrap();
    let got = Fields::read(&received);
    assert_eq!((got.cookie, got.timestamp), (0x0516_1111, 450_000));
    assert_eq!(got.peer_ip[..4], [5, 0, 0, 10]);
    // Every byte but timestamp, cookie and PeerIP is as the client wrote it.
    assert_eq!(received[..8], sent[..8]);
    assert_eq!(received[12..44], sent[12..44]);
    assert_eq!(received[64..], sent[64..]);
}

#[test]
fn a_client_gets_the_origins_response_with_its_own_cookie_and_its_own_address() {
    let mut stage = Stage::new();
    let cookie = stage.conclude(client(5000), 77, Some(STREAM_ID));
    let session = stage.pick().session;
    stage.open(session, origin());
    stage.origin_sends(session, &packets::induction_response(77, 9));
    stage.take_out();
    let response = packets::conclusion_response(77, 4242, 9, 685);
    stage.origin_sends(session, &response);
    let bytes = stage.answer_bytes();
    let answer = Fields::read(&bytes);
    assert_eq!((answer.kind, answer.socket, answer.destination), (CONCLUSION, 4242, 77));
    assert_eq!((answer.cookie, answer.timestamp), (cookie, 685));
    assert_eq!(answer.peer_ip[..4], [9, 113, 0, 203]);
    assert_eq!(bytes[64..], response[64..]);
    let events = stage.take_events();
    assert!(matches!(events[..], [Event::Established { session: s, .. }] if s == session));
}

#[test]
fn an_ipv6_client_and_an_ipv4_origin_each_see_an_address_of_their_own_family() {
    let mut stage = Stage::new();
    let source: SocketAddr = "[2001:db8::1]:5000".parse().unwrap();
    stage.conclude(source, 77, Some(STREAM_ID));
    let session = stage.pick().session;
    stage.open(session, origin());
    stage.origin_sends(session, &packets::induction_response(77, 9));
    let conclusion = Fields::read(&stage.questions().pop().unwrap());
    assert_eq!(conclusion.peer_ip, [5, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    stage.origin_sends(session, &packets::conclusion_response(77, 4242, 9, 685));
    let answer = stage.answer();
    let IpAddr::V6(ip) = source.ip() else { unreachable!("written as IPv6 above") };
    let mut words: Vec<u8> = ip.octets().to_vec();
    words.chunks_mut(4).for_each(<[u8]>::reverse);
    assert_eq!(answer.peer_ip[..], words[..]);
}

#[test]
fn legs_of_different_families_get_an_mtu_that_fits_both() {
    let mut stage = Stage::new();
    let source: SocketAddr = "[2001:db8::1]:5000".parse().unwrap();
    stage.conclude(source, 77, Some(STREAM_ID));
    let session = stage.pick().session;
    stage.open(session, origin());
    stage.origin_sends(session, &packets::induction_response(77, 9));
    assert_eq!(Fields::read(&stage.questions().pop().unwrap()).mtu, 1480);
    stage.origin_sends(session, &packets::conclusion_response(77, 4242, 9, 685));
    assert_eq!(stage.answer().mtu, 1480);
}

#[test]
fn a_lost_question_is_asked_again_every_quarter_of_a_second() {
    let mut stage = Stage::new();
    stage.conclude(client(5000), 77, Some(STREAM_ID));
    let session = stage.pick().session;
    stage.open(session, origin());
    assert_eq!(stage.questions().len(), 1);
    stage.pass(1100 * MS);
    let questions = stage.questions();
    assert_eq!(questions.len(), 4);
    assert!(questions.iter().all(|question| Fields::read(question).kind == INDUCTION));
}

#[test]
fn a_repeated_conclusion_asks_nobody_again_while_the_first_is_under_way() {
    let mut stage = Stage::new();
    let cookie = stage.conclude(client(5000), 77, Some(STREAM_ID));
    let session = stage.pick().session;
    stage.open(session, origin());
    stage.take_out();
    let again = packets::conclusion(77, 1000, cookie, Some(STREAM_ID));
    let verdict = stage.client_sends(client(5000), &again);
    assert_eq!(verdict, Verdict::Drop(DropReason::RepeatedConclusion));
    assert!(stage.take_out().is_empty() && stage.take_events().is_empty());
    assert_eq!(stage.shard.counters().sessions, 1);
}

#[test]
fn a_repeated_conclusion_gets_the_kept_answer_with_its_age_added() {
    let mut stage = Stage::new();
    let cookie = stage.conclude(client(5000), 77, Some(STREAM_ID));
    let session = stage.pick().session;
    stage.open(session, origin());
    stage.origin_sends(session, &packets::induction_response(77, 9));
    stage.take_out();
    stage.origin_sends(session, &packets::conclusion_response(77, 4242, 9, 685));
    stage.take_out();
    stage.pass(250 * MS);
    stage.take_out();
    stage.client_sends(client(5000), &packets::conclusion(77, 1000, cookie, Some(STREAM_ID)));
    let answer = stage.answer();
    assert_eq!((answer.kind, answer.socket, answer.timestamp), (CONCLUSION, 4242, 250_685));
    assert!(stage.take_events().iter().all(|event| !matches!(event, Event::Pick(_))));
}

#[test]
fn conclusions_without_pause_get_one_answer_in_50_ms() {
    let mut stage = Stage::new();
    stage.established(client(5000), 77, 4242);
    stage.pass(60 * MS);
    let cookie = stage.cookie_for(client(5000), 77);
    let again = packets::conclusion(77, 1000, cookie, Some(STREAM_ID));
    let verdicts: Vec<_> = (0..100).map(|_| stage.client_sends(client(5000), &again)).collect();
    let answered = verdicts.iter().filter(|&&verdict| verdict == Verdict::Taken).count();
    assert_eq!(answered, 1);
    assert_eq!(stage.take_out().len(), 1);
}

#[test]
fn the_same_caller_with_another_initial_sequence_number_is_a_new_session() {
    let mut stage = Stage::new();
    let old = stage.established(client(5000), 77, 4242);
    let cookie = stage.cookie_for(client(5000), 77);
    let conclusion = packets::conclusion(77, 2000, cookie, Some("#!::r=live/other"));
    assert_eq!(stage.client_sends(client(5000), &conclusion), Verdict::Taken);
    let pick = stage.pick();
    assert_ne!(pick.session, old);
    assert_eq!(pick.stream.as_str(), "__defaultVhost__/live/other");
    let out = stage.take_out();
    assert!(out.contains(&Out::Close { session: old }));
    assert!(!out.iter().any(|out| matches!(out, Out::ToClient { .. })));
    let verdict = stage.client_sends(client(5000), &packets::data(4242, 1, b"old"));
    assert_eq!(verdict, Verdict::Drop(DropReason::UnknownSocketId));
}

#[test]
fn two_callers_with_one_socket_id_at_two_addresses_are_two_sessions() {
    let mut stage = Stage::new();
    let a = stage.established(client(5000), 77, 4242);
    let b = stage.established(client(5001), 77, 4343);
    assert_ne!(a, b);
    assert_eq!(stage.shard.counters().srt.established, 2);
}

#[test]
fn several_sockets_behind_one_client_port_are_several_sessions() {
    let mut stage = Stage::new();
    let sessions: Vec<_> =
        (0..20).map(|i| stage.established(client(5000), 100 + i, 4000 + i)).collect();
    let distinct: std::collections::BTreeSet<_> = sessions.iter().collect();
    assert_eq!(distinct.len(), 20);
    assert_eq!(stage.shard.counters().srt.established, 20);
}

#[test]
fn whatever_the_origin_sends_before_its_answer_is_not_taken_for_one() {
    let mut stage = Stage::new();
    stage.conclude(client(5000), 77, Some(STREAM_ID));
    let session = stage.pick().session;
    stage.open(session, origin());
    stage.take_out();
    let dropped = Verdict::Drop(DropReason::NotEstablished);
    assert_eq!(stage.origin_sends(session, &packets::keepalive(77)), dropped);
    assert_eq!(stage.origin_sends(session, &packets::data(77, 5, b"early")), dropped);
    assert_eq!(stage.origin_sends(session, &packets::shutdown(77)), dropped);
    assert!(stage.take_out().is_empty());
    stage.origin_sends(session, &packets::induction_response(77, 9));
    assert_eq!(Fields::read(&stage.questions().pop().unwrap()).cookie, 9);
}

#[test]
fn an_answer_for_another_caller_is_not_ours() {
    let mut stage = Stage::new();
    let session = stage.concluding(client(5000), 77);
    let verdict = stage.origin_sends(session, &packets::conclusion_response(78, 4242, 9, 0));
    assert_eq!(verdict, Verdict::Drop(DropReason::WrongDestination));
    let verdict = stage.origin_sends(session, &packets::conclusion_response(0, 4242, 9, 0));
    assert_eq!(verdict, Verdict::Taken);
}

#[test]
fn a_late_pick_for_a_session_that_is_gone_opens_nothing() {
    let mut stage = Stage::new();
    stage.conclude(client(5000), 77, Some(STREAM_ID));
    let session = stage.pick().session;
    stage.pass(Duration::from_secs(4));
    stage.take_out();
    stage.apply(Command::Open { session, origin: OriginId(0), address: origin() });
    assert!(stage.take_out().is_empty());
}

#[test]
fn the_oldest_handshakes_give_way_and_established_sessions_never() {
    let mut small = config();
    small.limits = ringway::shard::Limits { pending_max: 8, ..limits() };
    let mut stage = Stage::with(small);
    stage.established(client(4000), 1, 4242);
    for port in 5000..5012 {
        stage.conclude(client(port), 77, Some(STREAM_ID));
    }
    let counters = stage.shard.counters();
    assert_eq!((counters.srt.established, counters.pending), (1, 8));
    let ended = stage.take_events().iter().filter(|e| matches!(e, Event::Ended { .. })).count();
    assert_eq!(ended, 4);
}

#[test]
fn inductions_beyond_the_budget_of_a_network_are_dropped_and_others_still_answered() {
    let mut tight = config();
    tight.limits.induction_rate_per_prefix = 10;
    let mut stage = Stage::with(tight);
    let verdicts: Vec<_> = (0..50)
        .map(|i| stage.client_sends(client(5000), &packets::induction(100 + i, 1)))
        .collect();
    let dropped = Verdict::Drop(DropReason::InductionRate);
    assert_eq!(verdicts.iter().filter(|&&verdict| verdict == dropped).count(), 40);
    let stranger = SocketAddr::from(([198, 51, 100, 1], 5000));
    assert_eq!(stage.client_sends(stranger, &packets::induction(1, 1)), Verdict::Taken);
}

#[test]
fn an_answer_names_the_clients_socket_even_where_the_origin_named_none() {
    let mut stage = Stage::new();
    let session = stage.concluding(client(5000), 77);
    stage.origin_sends(session, &packets::conclusion_response(0, 4242, 0x0516_1111, 500));
    assert_eq!(stage.answer().destination, 77);
}

#[test]
fn the_same_initial_sequence_number_is_a_new_attempt_once_the_old_answer_is_forgotten() {
    let mut stage = Stage::new();
    let old = stage.established(client(5000), 77, 4242);
    for sequence in 0..11 {
        stage.client_sends(client(5000), &packets::data(4242, sequence, b"media"));
        stage.origin_sends(old, &packets::keepalive(77));
        stage.pass(Duration::from_secs(1));
    }
    stage.conclude(client(5000), 77, Some(STREAM_ID));
    assert_ne!(stage.pick().session, old);
    assert!(stage.take_out().contains(&Out::Close { session: old }));
}

#[test]
fn conclusions_do_not_keep_a_session_alive_whose_client_has_used_it() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    stage.client_sends(client(5000), &packets::data(4242, 1, b"media"));
    stage.pass(5000 * MS);
    let cookie = stage.cookie_for(client(5000), 77);
    stage.client_sends(client(5000), &packets::conclusion(77, 1000, cookie, Some(STREAM_ID)));
    for _ in 0..11 {
        stage.origin_sends(session, &packets::keepalive(77));
        stage.pass(1000 * MS);
    }
    assert_eq!(stage.shard.counters().sessions, 0);
}
