//! What origins send, and to which of the client's addresses it goes.

use std::time::Duration;

use ringway::protocol::stun::{Builder, Check, Class, Message, Method};
use ringway::shard::{DropReason, Verdict};

use crate::support::rtc::*;
use crate::support::stage::{Out, Stage, client};

#[test]
fn a_response_goes_to_the_address_that_asked() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.rtc_sends(client(5001), &request(&pair(1, 0), 2));
    for (number, port) in [(2, 5001), (1, 5000), (2, 5001)] {
        let verdict = stage.origin_sends(session, &response(&pair(1, 0), number));
        assert_eq!(verdict, Verdict::Taken);
        let out = stage.take_out();
        let [Out::ToClient { client: address, .. }] = &out[..] else { panic!("{out:?}") };
        assert_eq!(*address, client(port));
    }
}

#[test]
fn a_response_tells_the_client_its_own_address_and_nothing_of_the_relays() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    let v6 = "[2001:db8::7]:54321".parse().unwrap();
    stage.rtc_sends(v6, &request(&pair(1, 0), 2));
    for (number, address) in [(1, client(5000)), (2, v6)] {
        stage.origin_sends(session, &response(&pair(1, 0), number));
        let bytes = stage.answer_bytes();
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.mapped_address(), Some(address));
        assert_eq!(message.integrity(&key(1, 0)), Check::Right);
        assert_eq!(message.fingerprint(), Check::Right);
    }
}

#[test]
fn a_response_that_cannot_be_rewritten_passes_as_it_is() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    let without_address = Builder::new(Class::Success, Method::Binding, transaction(1));
    let refusal = Builder::new(Class::Error, Method::Binding, transaction(1)).error_code(403);
    let of_nobody = response(&pair(1, 0), 99);
    let without_address = without_address.finish(Some(&key(1, 0)), true);
    let refusal = refusal.finish(Some(&key(1, 0)), true);
    for bytes in [without_address, refusal, of_nobody, response(&pair(2, 0), 1)] {
        assert_eq!(stage.origin_sends(session, &bytes), to_client(client(5000)));
        assert!(stage.take_out().is_empty());
    }
}

#[test]
fn after_five_seconds_a_response_goes_to_the_selected_address() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.rtc_sends(client(5001), &request(&pair(1, 0), 2));
    stage.pass(5 * SECOND);
    let verdict = stage.origin_sends(session, &response(&pair(1, 0), 2));
    assert_eq!(verdict, to_client(client(5000)));
}

#[test]
fn a_short_ping_is_answered_where_it_came_from() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.rtc_sends(client(5001), &request(&pair(1, 0), 2));
    stage.rtc_sends(client(5001), &stun(Class::Request, Method::GoogPing, 3));
    let pong = stun(Class::Success, Method::GoogPing, 3);
    assert_eq!(stage.origin_sends(session, &pong), to_client(client(5001)));
}

#[test]
fn everything_else_of_a_full_origin_goes_to_the_selected_address_unchanged() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.rtc_sends(client(5001), &request(&pair(1, 0), 2));
    let own_check = Builder::new(Class::Request, Method::Binding, transaction(500))
        .username(b"clnt1r0:orig1r0")
        .controlled(7)
        .finish(Some(&key(9, 9)), true);
    let indication = stun(Class::Indication, Method::Binding, 501);
    let ping = stun(Class::Request, Method::GoogPing, 502);
    for bytes in [own_check, indication, ping, client_hello(), rtp(9, 1), rtcp(9)] {
        assert_eq!(stage.origin_sends(session, &bytes), to_client(client(5000)));
    }
    assert!(stage.take_out().is_empty());
    // The client's answer to the origin's check finds back by address, from the path it took.
    let answer = stun(Class::Success, Method::Binding, 500);
    assert_eq!(stage.rtc_sends(client(5000), &answer), to_origin(session));
}

#[test]
fn a_response_for_an_address_that_is_another_sessions_now_does_not_go_there() {
    let mut stage = Stage::webrtc();
    let first = stage.validated(1, client(5000));
    stage.rtc_sends(client(5001), &request(&pair(1, 0), 2));
    stage.expect(2, 0).unwrap();
    stage.rtc_sends(client(5001), &request(&pair(2, 0), 1));
    stage.own(2, None).unwrap();
    stage.take_out();
    stage.origin_sends(first, &response(&pair(1, 0), 2));
    let out = stage.take_out();
    let [Out::ToClient { client: address, .. }] = &out[..] else { panic!("{out:?}") };
    assert_eq!(*address, client(5000));
}

#[test]
fn what_no_agent_sends_is_dropped_from_an_origin_too() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    let mut turn = request(&pair(1, 0), 2);
    turn[1] = 3;
    let verdict = stage.origin_sends(session, &turn);
    assert_eq!(verdict, Verdict::Drop(DropReason::StunMalformed));
}

#[test]
fn the_port_of_a_session_that_is_over_is_stale() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    stage.finish(1, Duration::ZERO);
    let verdict = stage.origin_sends(session, &rtp(9, 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::StalePort));
}

#[test]
fn a_session_shows_what_passes_in_clear() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    assert_eq!(stage.views()[0].state, "connecting");
    for ssrc in 1..20 {
        stage.rtc_sends(client(5000), &rtp(ssrc, 1));
    }
    stage.origin_sends(session, &rtp(1, 1));
    let views = stage.views();
    let view = &views[0];
    assert_eq!((view.state, view.client), ("established", client(5000)));
    assert_eq!(view.traffic.client_in.packets, 20, "the request, too");
    assert_eq!(view.traffic.client_in, view.traffic.origin_out);
    assert_eq!(view.traffic.client_out.bytes, 1200);
    let view = stage.view();
    assert_eq!(view.ssrcs, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(view.ufrag_pairs, ["orig1r0:clnt1r0"]);
    stage.rtc_sends(client(5000), &alert());
    assert_eq!(stage.views()[0].state, "closing");
}

#[test]
fn what_was_not_sent_is_taken_back_from_the_counters() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    let Verdict::Forward(out) = stage.rtc_sends(client(5000), &rtp(7, 1)) else { panic!() };
    let Verdict::Forward(back) = stage.origin_sends(session, &rtp(9, 1)) else { panic!() };
    let before = stage.shard.counters().webrtc;
    stage.shard.not_sent(out, 1, 1200, DropReason::SendBufferFull);
    stage.shard.not_sent(back, 1, 1200, DropReason::SendBufferFull);
    let after = stage.shard.counters().webrtc;
    assert_eq!(before.origin_out.bytes - after.origin_out.bytes, 1200);
    assert_eq!(before.client_out.bytes - after.client_out.bytes, 1200);
    assert_eq!(stage.shard.counters().srt.client_out.bytes, 0);
}
