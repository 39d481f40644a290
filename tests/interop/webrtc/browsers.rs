//! Chromium publishes and plays, between hosts that reach each other through the relay alone.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::support::aiortc::Aiortc;
use crate::support::browser::Browser;
use crate::support::hosts::Hosts;
use crate::support::str0m_origin::Str0mOrigin;
use crate::support::webrtc_relay::WebRtcRelay;

#[test]
fn a_browser_publishes_and_another_plays_through_a_full_ice_origin() {
    Hosts::run(|hosts| {
        let ip = hosts.origin.ip;
        if let Some(origin) = hosts.origin.host.on(|| Aiortc::start(ip)) {
            assert_unreachable(origin.api, hosts);
            publish_and_play(hosts, &["--origin", &origin.flag("a")]);
        }
    });
}

#[test]
fn a_browser_publishes_and_another_plays_through_an_ice_lite_origin_without_io_uring() {
    Hosts::run(|hosts| {
        let ip = hosts.origin.ip;
        let origin = hosts.origin.host.on(|| Str0mOrigin::start(ip));
        assert_unreachable(origin.api, hosts);
        publish_and_play(hosts, &["--origin", &origin.flag("a"), "--engine", "mmsg"]);
    });
}

/// The client's host has no way to the origin's.
fn assert_unreachable(origin: SocketAddr, hosts: &Hosts) {
    let patience = Duration::from_millis(100);
    let way = hosts.client.host.on(|| TcpStream::connect_timeout(&origin, patience));
    assert!(way.is_err(), "{way:?}");
}

/// From the first offer to the last DELETE.
fn publish_and_play(hosts: &Hosts, arguments: &[&str]) {
    let any = "0.0.0.0".parse().unwrap();
    let relay = WebRtcRelay::start_at(any, &[arguments, &["--shards", "2"]].concat());
    let media = SocketAddr::new(hosts.client.relay, relay.media.port());
    let endpoint = |kind| {
        let http = SocketAddr::new(hosts.client.relay, relay.http.port());
        format!("http://{http}/rtc/v1/{kind}/?app=live&stream=cam")
    };
    let start = |role, kind| hosts.client.host.on(|| Browser::start(role, &endpoint(kind)));
    let Some(mut publisher) = start("publish", "whip") else { return };
    assert_signalled(&publisher.step("signalled", "go on"));
    let sent = publisher.step("flowing", "more");
    assert_flows_through(&sent, media);
    let Some(mut player) = start("play", "whep") else { return };
    assert_signalled(&player.step("signalled", "go on"));
    player.step("flowing", "more");
    let seen = player.step("flowing", "delete");
    assert_flows_through(&seen, media);
    assert!(seen["framesDecoded"].as_u64() >= Some(20), "{seen}");
    assert!(seen["framesShown"].as_u64() >= Some(20), "{seen}");
    assert!(seen["audioSamples"].as_u64() > Some(0), "{seen}");
    assert_eq!(relay.wait_for_sessions(2).len(), 2);
    assert_eq!(player.step("deleted", "")["status"], 200);
    let left = relay.wait_for_sessions(1);
    assert_eq!(left[0]["role"], "publish", "{}", left[0]);
    publisher.step("flowing", "delete");
    assert_eq!(publisher.step("deleted", "")["status"], 200);
    relay.wait_for_no_sessions();
}

/// The page, which is of another origin than the relay, could read all of this.
fn assert_signalled(facts: &Value) {
    assert_eq!(facts["status"], 201, "{facts}");
    assert!(facts["location"].as_str().unwrap().contains("/rtc/v1/session/"), "{facts}");
    assert!(facts["etag"].is_string(), "{facts}");
    assert!(facts["link"].as_str().unwrap().contains("stun.example.net"), "{facts}");
}

fn assert_flows_through(stats: &Value, relay: SocketAddr) {
    assert_eq!(stats["connection"], "connected", "{stats}");
    assert_eq!(stats["nominated"], true, "{stats}");
    assert_eq!(stats["remote"], serde_json::json!([relay.to_string()]), "{stats}");
}
