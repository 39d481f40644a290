//! Origins that are dead, slow, or born again: what the client is told, and how soon.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::{LOOPBACK, relay_to};
use crate::support::http::Reply;
use crate::support::ice::Credentials;
use crate::support::process::free_port;
use crate::support::webrtc_client::{WebRtcClient, offer};
use crate::support::webrtc_origin::{Manner, WebRtcOrigin};
use crate::support::webrtc_relay::WebRtcRelay;

/// What a client is told, and after how long.
fn told(relay: SocketAddr) -> (Reply, Duration) {
    let begun = Instant::now();
    let reply = offer(&Credentials::fresh(), relay, "/rtc/v1/whip/?app=live&stream=cam");
    assert_eq!(reply.header("Access-Control-Allow-Origin"), Some("*"), "{}", reply.head);
    (reply, begun.elapsed())
}

#[test]
fn without_an_origin_a_client_is_told_503_and_when_to_come_again() {
    let relay = WebRtcRelay::start(&[]);
    let (reply, took) = told(relay.http);
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert!(reply.header("Retry-After").is_some(), "{}", reply.head);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_dead_origin_is_502_at_once_and_says_no_address() {
    let api = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let rtc = free_port("127.0.0.1");
    let flag = format!("name=a,ip=127.0.0.1,rtc={rtc},api={api}");
    let relay = WebRtcRelay::start(&["--origin", &flag]);
    let (reply, took) = told(relay.http);
    assert_eq!(reply.status, 502, "{}", reply.body);
    assert!(!reply.body.contains("127.0.0.1"), "{}", reply.body);
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn an_origin_that_hangs_up_is_502_at_once() {
    let origin = WebRtcOrigin::start_at(LOOPBACK, Manner::HangUp);
    let relay = relay_to(&origin, &[]);
    let (reply, took) = told(relay.http);
    assert_eq!(reply.status, 502, "{}", reply.body);
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn an_origin_that_does_not_answer_is_504_in_time() {
    let origin = WebRtcOrigin::start_at(LOOPBACK, Manner::Mute);
    let relay = relay_to(&origin, &[]);
    let (reply, took) = told(relay.http);
    assert_eq!(reply.status, 504, "{}", reply.body);
    assert!(took < Duration::from_secs(12), "{took:?}");
}

#[test]
fn a_mute_origin_keeps_nobody_else_waiting() {
    let mute = WebRtcOrigin::start_at(LOOPBACK, Manner::Mute);
    let relay = relay_to(&mute, &[]);
    let http = relay.http;
    std::thread::scope(|scope| {
        scope.spawn(move || told(http));
        mute.next_request();
        let begun = Instant::now();
        let reply = crate::support::http::get(http, "/api/v1/versions").unwrap();
        assert_eq!(reply.status, 200);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        drop(mute);
    });
}

#[test]
fn a_restarted_origin_serves_who_comes_again_and_nobody_from_before() {
    let origin = WebRtcOrigin::start();
    let relay = relay_to(&origin, &["--webrtc-idle-timeout", "1s"]);
    let before = WebRtcClient::publish(relay.http, "cam");
    let old = before.path(LOOPBACK, relay.media);
    old.check(true);
    origin.restart();
    old.send(&old.request(true));
    assert_eq!(old.receive(Duration::from_millis(200), |_| true), None, "consent runs out");
    let again = WebRtcClient::publish(relay.http, "cam");
    let path = again.path(LOOPBACK, relay.media);
    path.check(true);
    path.stream_until_echo(&mut 0);
    // The origin has never heard of it, so it is over; the new one goes on.
    assert_eq!(before.delete(relay.http).status, 200);
    path.stream_until_echo(&mut 100);
}

#[test]
fn a_dead_origins_session_ends_though_its_client_goes_on() {
    let origin = WebRtcOrigin::start();
    let relay = relay_to(&origin, &["--webrtc-idle-timeout", "1s"]);
    let client = WebRtcClient::publish(relay.http, "cam");
    let path = client.path(LOOPBACK, relay.media);
    path.check(true);
    path.stream_until_echo(&mut 0);
    relay.wait_for_sessions(1);
    drop(origin);
    crate::support::http::eventually("the session ends", || {
        path.send(&path.request(true));
        relay.sessions().is_empty().then_some(())
    });
}
