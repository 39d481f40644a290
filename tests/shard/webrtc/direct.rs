//! Clients without signalling (`--webrtc-direct`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringway::protocol::stun::{Builder, Class, IntegrityKey, Method};
use ringway::shard::{Command, DropReason, EndReason, Event, Pair, RtcId, ShardConfig, Verdict};

use crate::support::rtc::*;
use crate::support::stage::{Out, Stage, client};

fn direct() -> Stage {
    Stage::with(ShardConfig { webrtc_direct: true, ..rtc_config() })
}

fn direct_pair(name: &str) -> Arc<Pair> {
    let ufrag = format!("libp2p+webrtc+v1/{name}");
    let key = IntegrityKey::new(ufrag.as_bytes());
    Arc::new(Pair { username: format!("{ufrag}:{ufrag}").into(), key })
}

fn candidates(stage: &mut Stage) -> Vec<String> {
    let events = stage.take_events().into_iter();
    events
        .filter_map(|event| match event {
            Event::Candidate { ufrag, .. } => Some(ufrag.into()),
            _ => None,
        })
        .collect()
}

#[test]
fn a_client_that_knows_its_own_ufrag_becomes_a_candidate_and_then_a_session() {
    let mut stage = direct();
    let pair = direct_pair("abcd");
    let bytes = request(&pair, 1);
    assert_eq!(stage.rtc_sends(client(5000), &bytes), Verdict::Taken);
    assert_eq!(candidates(&mut stage), ["libp2p+webrtc+v1/abcd"]);
    assert_eq!(stage.shard.counters().sessions, 0);

    stage.apply(Command::Expect { session: signalled(1), pair: Arc::clone(&pair) });
    let session = stage.own(1, None).unwrap();

    assert!(stage.take_out().contains(&Out::ToOrigin { session, bytes }));
    assert_eq!(stage.rtc_sends(client(5000), &rtp(7, 1)), to_origin(session));
}

#[test]
fn without_the_flag_nobody_is_a_candidate() {
    let mut stage = Stage::webrtc();
    let verdict = stage.rtc_sends(client(5000), &request(&direct_pair("abcd"), 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunUnknownUfrag));
}

#[test]
fn a_forged_or_unmarked_request_is_no_candidate() {
    let mut stage = direct();
    let verdict = stage.rtc_sends(client(5000), &request(&pair(1, 0), 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunUnknownUfrag));
    let username = direct_pair("abcd").username.clone();
    let check = || {
        Builder::new(Class::Request, Method::Binding, transaction(1)).username(username.as_bytes())
    };
    let verdict = stage.rtc_sends(client(5000), &check().finish(None, true));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunNoIntegrity));
    let verdict = stage.rtc_sends(client(5000), &check().finish(Some(&key(1, 0)), true));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunBadIntegrity));
    assert!(candidates(&mut stage).is_empty());
}

#[test]
fn one_ufrag_is_one_candidate_however_often_it_asks_and_from_wherever() {
    let mut stage = direct();
    for number in 1..10 {
        let bytes = request(&direct_pair("abcd"), number);
        assert_eq!(stage.rtc_sends(client(5000), &bytes), Verdict::Taken);
    }
    let verdict = stage.rtc_sends(client(6666), &request(&direct_pair("abcd"), 20));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunUndecided));
    assert_eq!(candidates(&mut stage).len(), 1);
}

#[test]
fn the_thirty_third_candidate_is_turned_away_until_others_have_given_up() {
    let mut stage = direct();
    for i in 0..32 {
        let bytes = request(&direct_pair(&format!("c{i:03}")), 1);
        let source = SocketAddr::from(([203, 0, 113, i], 5000));
        assert_eq!(stage.rtc_sends(source, &bytes), Verdict::Taken);
    }
    let one_more = request(&direct_pair("more"), 1);
    let verdict = stage.rtc_sends(client(5000), &one_more);
    assert_eq!(verdict, Verdict::Drop(DropReason::CandidateQueueFull));
    assert_eq!(candidates(&mut stage).len(), 32);
    stage.pass(3 * SECOND);
    assert_eq!(stage.rtc_sends(client(5000), &one_more), Verdict::Taken);
}

#[test]
fn one_address_that_control_refuses_leaves_the_queue_to_others() {
    let mut stage = direct();
    for i in 0..32 {
        stage.rtc_sends(client(5000 + i), &request(&direct_pair(&format!("c{i:03}")), 1));
    }
    let others = SocketAddr::from(([198, 51, 100, 1], 5000));
    let verdict = stage.rtc_sends(others, &request(&direct_pair("other"), 1));
    assert_eq!(verdict, Verdict::Taken);
    assert_eq!(stage.dropped(DropReason::CandidateQueueFull), 24);
    assert_eq!(candidates(&mut stage).len(), 9);
}

#[test]
fn a_candidate_that_control_takes_too_late_has_to_ask_again() {
    let mut stage = direct();
    let pair = direct_pair("abcd");
    stage.rtc_sends(client(5000), &request(&pair, 1));
    stage.pass(3 * SECOND);
    stage.apply(Command::Expect { session: signalled(1), pair: Arc::clone(&pair) });
    stage.take_events();
    stage.rtc_sends(client(5000), &request(&pair, 2));
    assert!(stage.asked().is_some(), "like any expected client");
}

#[test]
fn a_draining_shard_takes_no_candidates() {
    let mut stage = direct();
    stage.apply(Command::Drain(true));
    stage.rtc_sends(client(5000), &request(&direct_pair("abcd"), 1));
    assert!(candidates(&mut stage).is_empty());
}

#[test]
fn a_direct_session_that_is_over_is_no_candidate_again_for_a_minute() {
    let mut stage = direct();
    let pair = direct_pair("abcd");
    stage.rtc_sends(client(5000), &request(&pair, 1));
    stage.apply(Command::Expect { session: signalled(1), pair: Arc::clone(&pair) });
    stage.own(1, None).unwrap();
    let (session, reason) = (RtcId(1), EndReason::DtlsClosed);
    stage.apply(Command::Finish { session, reason, linger: Duration::ZERO });
    stage.take_events();
    let verdict = stage.rtc_sends(client(5000), &request(&pair, 2));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunTombstone));
    stage.pass(60 * SECOND);
    assert_eq!(stage.rtc_sends(client(5000), &request(&pair, 3)), Verdict::Taken);
}

/// The first bytes of a DTLS record: application data of DTLS 1.2, and anything encrypted of DTLS 1.3 (RFC 9147,
/// section 4).
const APPLICATION_DATA: [u8; 2] = [23, 0x2E];

#[test]
fn a_session_that_carries_data_channels_alone_is_established_too() {
    for first in APPLICATION_DATA {
        let mut stage = Stage::webrtc();
        let session = stage.validated(1, client(5000));
        stage.rtc_sends(client(5000), &client_hello());
        stage.origin_sends(session, &[22, 0xFE, 0xFD, 0]);
        assert_eq!(stage.views()[0].state, "connecting");
        stage.rtc_sends(client(5000), &[first, 0xFE, 0xFD, 0, 1]);
        assert_eq!(stage.views()[0].state, "established", "{first}");
    }
}
