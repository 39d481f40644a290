//! What clients send before and after they have proven an address.

use ringway::protocol::stun::{Builder, Class, IntegrityKey, Method};
use ringway::shard::{Command, DropReason, Event, PortError, RtcId, Verdict};

use crate::support::rtc::*;
use crate::support::stage::{Out, Stage, client};

fn check(number: u32) -> Builder {
    let username = pair(1, 0).username.clone();
    Builder::new(Class::Request, Method::Binding, transaction(number)).username(username.as_bytes())
}

#[test]
fn the_first_proven_request_is_kept_until_its_session_has_a_port_and_then_sent_through_it() {
    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    let bytes = request(&pair(1, 0), 1);
    assert_eq!(stage.rtc_sends(client(5000), &bytes), Verdict::Taken);
    let asked = stage.asked().unwrap();
    assert_eq!((asked.session, asked.client), (RtcId(1), client(5000)));
    assert!(!asked.nominated);
    assert!(stage.take_out().is_empty(), "no port before control has said so");

    let session = stage.own(1, None).unwrap();

    let open = Out::Open { session, origin: rtc_origin() };
    assert_eq!(stage.take_out(), [open, Out::ToOrigin { session, bytes }]);
    let events = stage.take_events();
    let [Event::Validated { session: RtcId(1), key, client: address, .. }] = events[..] else {
        panic!("control hears of it once: {events:?}");
    };
    assert_eq!((key, address), (session, client(5000)));
    let counters = stage.shard.counters();
    assert_eq!((counters.webrtc.established, counters.webrtc.sessions_created), (1, 1));
    assert_eq!((counters.expected, counters.sessions), (1, 1));
}

#[test]
fn a_proven_request_for_a_session_of_this_shard_passes_as_it_is() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    let verdict = stage.rtc_sends(client(5000), &request(&pair(1, 0), 2));
    assert_eq!(verdict, to_origin(session));
    assert!(stage.take_out().is_empty());
}

#[test]
fn control_is_asked_once_while_its_answer_is_under_way_and_again_a_quarter_second_later() {
    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    for number in 1..10 {
        let bytes = request(&pair(1, 0), number);
        assert_eq!(stage.rtc_sends(client(5000), &bytes), Verdict::Taken);
    }
    assert!(stage.asked().is_some());
    stage.pass(250 * MILLI);
    stage.rtc_sends(client(5000), &request(&pair(1, 0), 11));
    assert!(stage.asked().is_some(), "the answer has been lost");
}

#[test]
fn the_newest_request_is_the_one_that_is_kept() {
    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    let newest = request(&pair(1, 0), 2);
    stage.rtc_sends(client(5000), &request(&pair(1, 0), 1));
    stage.rtc_sends(client(5000), &newest);
    let session = stage.own(1, None).unwrap();
    assert!(stage.take_out().contains(&Out::ToOrigin { session, bytes: newest }));
    // The older one cannot be turned against the session either.
    let verdict = stage.rtc_sends(client(6000), &request(&pair(1, 0), 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunReplayed));
}

#[test]
fn a_request_from_a_second_address_waits_until_the_first_is_decided() {
    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    stage.rtc_sends(client(5000), &request(&pair(1, 0), 1));
    let verdict = stage.rtc_sends(client(5001), &request(&pair(1, 0), 2));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunUndecided));
    let session = stage.own(1, None).unwrap();
    let verdict = stage.rtc_sends(client(5001), &request(&pair(1, 0), 3));
    assert_eq!(verdict, to_origin(session));
}

#[test]
fn requests_that_come_while_the_port_is_being_opened_replace_the_kept_one() {
    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    stage.rtc_sends(client(5000), &request(&pair(1, 0), 1));
    stage.apply(Command::Own { session: RtcId(1), handover: None });
    let newest = request(&pair(1, 0), 2);
    assert_eq!(stage.rtc_sends(client(5000), &newest), Verdict::Taken);
    let verdict = stage.rtc_sends(client(5000), &client_hello());
    assert_eq!(verdict, Verdict::Drop(DropReason::UnprovenAddress));
    assert_eq!(stage.views()[0].state, "validating");
    let Some(Out::Open { session, .. }) = stage.take_out().pop() else { panic!("a port") };
    stage.shard.port_opened(stage.now, session, Ok(()));
    stage.collect();
    assert_eq!(stage.take_out(), [Out::ToOrigin { session, bytes: newest }]);
}

#[test]
fn a_session_whose_port_cannot_be_opened_ends_at_once() {
    for error in [PortError::Exhausted, PortError::Unreachable, PortError::Other(22)] {
        let mut stage = Stage::webrtc();
        stage.expect(1, 0).unwrap();
        stage.rtc_sends(client(5000), &request(&pair(1, 0), 1));
        stage.apply(Command::Own { session: RtcId(1), handover: None });
        let Some(Out::Open { session, .. }) = stage.take_out().pop() else { panic!("a port") };
        stage.shard.port_opened(stage.now, session, Err(error));
        stage.collect();
        assert_eq!(stage.rtc_ended().len(), 1);
        assert!(stage.take_out().is_empty(), "there is no port to close");
        stage.assert_gone();
    }
}

#[test]
fn a_request_without_or_with_an_unknown_username_goes_nowhere_and_leaves_nothing() {
    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    let nameless = Builder::new(Class::Request, Method::Binding, transaction(1));
    let verdict = stage.rtc_sends(client(5000), &nameless.finish(Some(&key(1, 0)), true));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunNoUsername));
    for id in 2..10_000 {
        let verdict = stage.rtc_sends(client(5000), &request(&pair(id, 0), 1));
        assert_eq!(verdict, Verdict::Drop(DropReason::StunUnknownUfrag));
    }
    assert_eq!(stage.dropped(DropReason::StunUnknownUfrag), 9998);
    let counters = stage.shard.counters();
    assert_eq!((counters.sessions, counters.expected), (0, 1));
    assert!(stage.take_events().is_empty() && stage.take_out().is_empty());
}

#[test]
fn a_username_must_be_the_expected_one_to_the_last_byte() {
    let mut stage = Stage::webrtc();
    stage.validated(1, client(5000));
    let right = pair(1, 0).username.clone();
    let (ours, theirs) = right.split_once(':').unwrap();
    let wrong = [
        String::new(),
        ours.to_owned(),
        format!("{theirs}:{ours}"),
        format!("{right}x"),
        format!("{right}:x"),
        format!("{ours}:"),
        right.to_uppercase(),
    ];
    for username in wrong {
        let bytes = Builder::new(Class::Request, Method::Binding, transaction(2))
            .username(username.as_bytes())
            .finish(Some(&key(1, 0)), true);
        let verdict = stage.rtc_sends(client(5000), &bytes);
        assert_eq!(verdict, Verdict::Drop(DropReason::StunUnknownUfrag), "{username}");
    }
}

#[test]
fn a_request_without_the_password_proves_nothing_whether_the_session_is_here_or_not() {
    let forged = IntegrityKey::new(b"a guess");
    for is_here in [false, true] {
        let mut stage = Stage::webrtc();
        if is_here {
            stage.validated(1, client(5000));
        } else {
            stage.expect(1, 0).unwrap();
        }
        let verdict = stage.rtc_sends(client(6000), &check(2).finish(None, true));
        assert_eq!(verdict, Verdict::Drop(DropReason::StunNoIntegrity));
        let verdict = stage.rtc_sends(client(6000), &check(3).finish(Some(&forged), true));
        assert_eq!(verdict, Verdict::Drop(DropReason::StunBadIntegrity));
        let mut damaged = check(4).finish(Some(&key(1, 0)), true);
        *damaged.last_mut().unwrap() ^= 1;
        let verdict = stage.rtc_sends(client(6000), &damaged);
        assert_eq!(verdict, Verdict::Drop(DropReason::StunBadFingerprint));
        assert!(stage.take_events().is_empty() && stage.take_out().is_empty());
        let verdict = stage.rtc_sends(client(6000), &rtp(7, 1));
        assert_eq!(verdict, Verdict::Drop(DropReason::UnprovenAddress));
    }
}

#[test]
fn a_request_needs_no_fingerprint() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    let verdict = stage.rtc_sends(client(5000), &check(2).finish(Some(&key(1, 0)), false));
    assert_eq!(verdict, to_origin(session));
}

#[test]
fn what_is_no_message_of_ice_is_dropped_as_malformed() {
    let mut stage = Stage::webrtc();
    stage.validated(1, client(5000));
    let good = request(&pair(1, 0), 2);
    let mut no_cookie = good.clone();
    no_cookie[4] ^= 1;
    let mut turn = good.clone();
    turn[1] = 3;
    for bytes in [&good[..19], &good[..good.len() - 4], &no_cookie, &turn, &[0; 100], &[1]] {
        let verdict = stage.rtc_sends(client(5000), bytes);
        assert_eq!(verdict, Verdict::Drop(DropReason::StunMalformed), "{bytes:?}");
    }
}

#[test]
fn dtls_and_media_pass_from_a_proven_address_only() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    for bytes in [client_hello(), rtp(7, 1), rtcp(7)] {
        assert_eq!(stage.rtc_sends(client(5000), &bytes), to_origin(session));
        let verdict = stage.rtc_sends(client(5001), &bytes);
        assert_eq!(verdict, Verdict::Drop(DropReason::UnprovenAddress));
    }
}

#[test]
fn an_early_client_hello_goes_nowhere_and_the_next_one_passes() {
    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    let verdict = stage.rtc_sends(client(5000), &client_hello());
    assert_eq!(verdict, Verdict::Drop(DropReason::UnprovenAddress));
    stage.rtc_sends(client(5000), &request(&pair(1, 0), 1));
    let session = stage.own(1, None).unwrap();
    assert_eq!(stage.rtc_sends(client(5000), &client_hello()), to_origin(session));
}

#[test]
fn responses_indications_and_short_pings_pass_by_address() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    let kinds = [
        (Class::Success, Method::Binding),
        (Class::Error, Method::Binding),
        (Class::Indication, Method::Binding),
        (Class::Request, Method::GoogPing),
        (Class::Success, Method::GoogPing),
    ];
    for (class, method) in kinds {
        let bytes = stun(class, method, 77);
        assert_eq!(stage.rtc_sends(client(5000), &bytes), to_origin(session), "{class:?}");
        let verdict = stage.rtc_sends(client(5001), &bytes);
        assert_eq!(verdict, Verdict::Drop(DropReason::StunUnproven), "{class:?}");
    }
}

#[test]
fn other_protocols_are_none_of_the_relays() {
    let mut stage = Stage::webrtc();
    let session = stage.validated(1, client(5000));
    for first in [4, 15, 16, 19, 64, 79, 80, 127, 192, 255] {
        let bytes = [first; 40];
        let strange = Verdict::Drop(DropReason::NotWebRtc);
        assert_eq!(stage.rtc_sends(client(5000), &bytes), strange, "{first}");
        assert_eq!(stage.origin_sends(session, &bytes), strange, "{first}");
    }
    assert_eq!(stage.rtc_sends(client(5000), &[]), Verdict::Drop(DropReason::NotWebRtc));
    assert_eq!(stage.rtc_sends(client(5000), &[0x80]), Verdict::Drop(DropReason::NotWebRtc));
}

#[test]
fn a_proven_request_longer_than_a_frame_is_not_kept() {
    let mut stage = Stage::webrtc();
    stage.expect(1, 0).unwrap();
    let bytes = check(1).attribute(0xC001, &[0; 1500]).finish(Some(&key(1, 0)), true);
    let verdict = stage.rtc_sends(client(5000), &bytes);
    assert_eq!(verdict, Verdict::Drop(DropReason::StunMalformed));
    assert!(stage.take_events().is_empty());
}

#[test]
fn every_drop_of_stun_is_told_from_the_others_and_has_a_label_of_its_own() {
    let stun: Vec<_> = DropReason::ALL.iter().filter(|reason| reason.is_stun()).collect();
    assert_eq!(stun.len(), 14, "{stun:?}");
    assert!(!DropReason::UnprovenAddress.is_stun() && !DropReason::NoPath.is_stun());
    let mut labels: Vec<_> = DropReason::ALL.iter().map(|reason| reason.label()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), DropReason::ALL.len());
}

#[test]
fn srt_and_webrtc_sessions_live_side_by_side() {
    let mut stage = Stage::webrtc();
    let srt = stage.established(client(5000), 77, 4242);
    let webrtc = stage.validated(1, client(5000));
    let media = crate::support::packets::data(4242, 1, b"media");
    assert_eq!(stage.client_sends(client(5000), &media), to_origin(srt));
    assert_eq!(stage.rtc_sends(client(5000), &rtp(7, 1)), to_origin(webrtc));
    assert!(matches!(
        stage.origin_sends(srt, &crate::support::packets::data(77, 1, b"media")),
        Verdict::Forward(_)
    ));
    let counters = stage.shard.counters();
    assert_eq!((counters.srt.established, counters.webrtc.established), (1, 1));
    assert_eq!(counters.sessions, 2);
    assert_eq!(stage.views().len(), 2);
}
