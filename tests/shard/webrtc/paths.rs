//! The addresses of a client, and which of them its media goes to.

use std::net::{IpAddr, SocketAddr};

use ringway::protocol::stun::{Class, Method};
use ringway::shard::{Action, Datagram, DropReason, Peer, Port, Route, SessionKey, Verdict};

use crate::support::rtc::*;
use crate::support::stage::{Stage, client};

#[test]
fn the_first_proven_address_is_selected_and_another_one_alone_changes_nothing() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.rtc_sends(client(5001), &request(&pair(1, 0), 2));
    assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(client(5000)));
    assert_eq!(stage.view().addresses, [client(5000), client(5001)]);
}

#[test]
fn a_nominated_address_is_selected_at_once() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    let verdict = stage.rtc_sends(client(5001), &nomination(&pair(1, 0), 2));
    assert_eq!(verdict, to_origin(session));
    assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(client(5001)));
}

#[test]
fn a_repeated_nomination_does_not_take_back_a_newer_one() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    let old = nomination(&pair(1, 0), 2);
    stage.rtc_sends(client(5000), &old);
    stage.rtc_sends(client(5001), &nomination(&pair(1, 0), 3));
    assert_eq!(stage.rtc_sends(client(5000), &old), to_origin(session), "a retransmission passes");
    assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(client(5001)));
}

#[test]
fn media_from_another_proven_address_moves_the_answer_once_the_selected_one_is_silent() {
    for first in [client_hello(), rtp(7, 1), rtcp(7)] {
        let mut stage = Stage::webrtc();
        let session = stage.validated(1, client(5000));
        stage.rtc_sends(client(5001), &request(&pair(1, 0), 2));
        stage.pass(499 * MILLI);
        assert_eq!(stage.rtc_sends(client(5001), &first), to_origin(session));
        assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(client(5000)));
        stage.pass(MILLI);
        stage.rtc_sends(client(5001), &first);
        assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(client(5001)));
    }
}

#[test]
fn a_captured_request_from_another_address_proves_nothing() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    let captured = nomination(&pair(1, 0), 2);
    stage.rtc_sends(client(5000), &captured);
    let verdict = stage.rtc_sends(client(6666), &captured);
    assert_eq!(verdict, Verdict::Drop(DropReason::StunReplayed));
    let verdict = stage.rtc_sends(client(6666), &request(&pair(1, 0), 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunReplayed), "the first one, neither");
    assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(client(5000)));
    assert_eq!(stage.view().addresses, [client(5000)]);
}

#[test]
fn a_retransmission_from_the_same_address_is_no_replay() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    for _ in 0..3 {
        let verdict = stage.rtc_sends(client(5000), &request(&pair(1, 0), 1));
        assert_eq!(verdict, to_origin(session));
    }
}

#[test]
fn a_proven_request_for_another_session_takes_the_address_with_it() {
    let mut stage = Stage::webrtc();
    let old = stage.validated(1, client(5000));
    stage.expect(2, 0).unwrap();
    let verdict = stage.rtc_sends(client(5001), &request(&pair(2, 0), 1));
    assert_eq!(verdict, Verdict::Taken);
    let new = stage.own(2, None).unwrap();
    let verdict = stage.rtc_sends(client(5000), &request(&pair(2, 0), 2));
    assert_eq!(verdict, to_origin(new), "the client has begun anew on the same port");
    assert_eq!(stage.rtc_sends(client(5000), &rtp(7, 1)), to_origin(new));
    let verdict = stage.origin_sends(old, &rtp(9, 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::NoPath), "not to somebody else's client");
}

#[test]
fn a_session_that_loses_its_selected_address_goes_on_at_another() {
    let mut stage = Stage::webrtc();
    let first = stage.validated(1, client(5000));
    stage.rtc_sends(client(5001), &request(&pair(1, 0), 2));
    stage.expect(2, 0).unwrap();
    stage.rtc_sends(client(5000), &request(&pair(2, 0), 1));
    let second = stage.own(2, None).unwrap();
    assert_eq!(stage.rtc_sends(client(5000), &rtp(7, 1)), to_origin(second));
    assert_eq!(stage.origin_sends(first, &rtp(9, 1)), to_client(client(5001)));
    assert_eq!(stage.origin_sends(second, &rtp(9, 1)), to_client(client(5000)));
}

#[test]
fn the_ninth_address_is_turned_away_and_the_good_ones_stay() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    for i in 1..8 {
        let verdict = stage.rtc_sends(client(5000 + i), &request(&pair(1, 0), 10 + u32::from(i)));
        assert_eq!(verdict, to_origin(session));
    }
    let verdict = stage.rtc_sends(client(5008), &nomination(&pair(1, 0), 30));
    assert_eq!(verdict, Verdict::Drop(DropReason::PathsFull));
    assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(client(5000)));
    assert_eq!(stage.view().addresses.len(), 8);
}

#[test]
fn an_unselected_address_is_forgotten_after_thirty_seconds_without_a_request() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.rtc_sends(client(5001), &request(&pair(1, 0), 2));
    for _ in 0..31 {
        stage.pass(SECOND);
        stage.rtc_sends(client(5000), &rtp(7, 1));
        stage.origin_sends(session, &rtcp(7));
    }
    assert_eq!(stage.view().addresses, [client(5000)]);
    let verdict = stage.rtc_sends(client(5001), &rtp(7, 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::UnprovenAddress));
    assert_eq!(stage.rtc_sends(client(5000), &rtp(7, 1)), to_origin(session));
}

#[test]
fn the_selected_address_needs_no_requests_to_stay() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    for sequence in 0..300 {
        stage.pass(SECOND);
        stage.rtc_sends(client(5000), &rtp(7, sequence));
        assert_eq!(stage.origin_sends(session, &rtcp(7)), to_client(client(5000)));
    }
    assert!(stage.rtc_ended().is_empty());
}

#[test]
fn an_address_of_ipv6_is_as_good_as_one_of_ipv4() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    let v6 = "[2001:db8::7]:54321".parse().unwrap();
    assert_eq!(stage.rtc_sends(v6, &nomination(&pair(1, 0), 2)), to_origin(session));
    assert_eq!(stage.rtc_sends(v6, &rtp(7, 1)), to_origin(session));
    assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(v6));
}

#[test]
fn keepalives_of_an_unselected_address_move_nothing() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.rtc_sends(client(5001), &request(&pair(1, 0), 2));
    stage.pass(SECOND);
    let indication = stun(Class::Indication, Method::Binding, 3);
    assert_eq!(stage.rtc_sends(client(5001), &indication), to_origin(session));
    assert_eq!(stage.origin_sends(session, &rtp(9, 1)), to_client(client(5000)));
}

/// One of the addresses that the relay has told its clients.
fn ours(last: u8) -> IpAddr {
    IpAddr::from([198, 51, 100, last])
}

/// A datagram of a client to one of our addresses.
fn sends_to(stage: &mut Stage, local: IpAddr, source: SocketAddr, bytes: &[u8]) -> Verdict {
    let datagram = Datagram { port: RTC_LISTENER, source, local: Some(local), bytes };
    stage.shard.handle(stage.now, datagram)
}

/// From where on our side something of the origin leaves.
fn leaves_from(stage: &mut Stage, session: SessionKey, bytes: &[u8]) -> Option<IpAddr> {
    let route = match stage.arrives(Port::Session(session), rtc_origin(), bytes) {
        Verdict::Forward(route) => Some(route),
        _ => None,
    };
    route?.to?.local
}

/// A session whose client knows two of our addresses, has proven itself at both, and at the first one first.
fn at_two_of_ours(stage: &mut Stage) -> SessionKey {
    stage.expect(1, 0).unwrap();
    sends_to(stage, ours(1), client(5000), &request(&pair(1, 0), 1));
    let session = stage.own(1, None).unwrap();
    sends_to(stage, ours(2), client(5000), &request(&pair(1, 0), 2));
    session
}

#[test]
fn a_response_leaves_from_the_address_that_was_asked() {
    let mut stage = Stage::webrtc();
    let session = at_two_of_ours(&mut stage);
    for (number, local) in [(1, ours(1)), (2, ours(2)), (1, ours(1))] {
        let port = Port::Session(session);
        let bytes = response(&pair(1, 0), number);
        let datagram = Datagram { port, source: rtc_origin(), local: None, bytes: &bytes };
        assert_eq!(stage.shard.handle(stage.now, datagram), Verdict::Taken);
        let peer = Peer { address: client(5000), local: Some(local) };
        let Some(Action::Send { route, .. }) = stage.shard.next_action() else { panic!() };
        assert_eq!(route, Route { port: RTC_LISTENER, to: Some(peer) });
        assert_eq!(stage.shard.next_action(), None);
    }
}

#[test]
fn checks_of_a_second_address_of_ours_leave_media_at_the_first_until_one_nominates_it() {
    let mut stage = Stage::webrtc();
    let session = at_two_of_ours(&mut stage);
    assert_eq!(leaves_from(&mut stage, session, &rtp(9, 1)), Some(ours(1)));
    sends_to(&mut stage, ours(2), client(5000), &nomination(&pair(1, 0), 3));
    assert_eq!(leaves_from(&mut stage, session, &rtp(9, 2)), Some(ours(2)));
    sends_to(&mut stage, ours(1), client(5000), &request(&pair(1, 0), 4));
    assert_eq!(leaves_from(&mut stage, session, &rtp(9, 3)), Some(ours(2)));
}

#[test]
fn media_to_a_second_address_of_ours_is_answered_from_there_once_the_first_is_left() {
    let mut stage = Stage::webrtc();
    let session = at_two_of_ours(&mut stage);
    sends_to(&mut stage, ours(1), client(5000), &rtp(7, 1));
    stage.pass(499 * MILLI);
    sends_to(&mut stage, ours(2), client(5000), &rtp(7, 2));
    assert_eq!(leaves_from(&mut stage, session, &rtp(9, 1)), Some(ours(1)));
    stage.pass(MILLI);
    sends_to(&mut stage, ours(2), client(5000), &rtp(7, 3));
    assert_eq!(leaves_from(&mut stage, session, &rtp(9, 2)), Some(ours(2)));
}
