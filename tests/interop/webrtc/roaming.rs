//! Clients that change their address in mid-stream, and those who pretend to.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::{LOOPBACK, relay_to};
use crate::support::http::eventually;
use crate::support::ice;
use crate::support::webrtc_client::{Path, SSRC, WebRtcClient};
use crate::support::webrtc_origin::WebRtcOrigin;
use crate::support::webrtc_relay::WebRtcRelay;

/// How often an address is chosen anew before the kernel has surely chosen both of two shards.
const MOVES_MAX: u8 = 64;

/// The shard that owns the only session.
fn shard(relay: &WebRtcRelay) -> u64 {
    relay.wait_for_sessions(1)[0]["shard"].as_u64().unwrap()
}

/// The origin's media reaches `here`, and not `elsewhere`.
fn assert_served(origin: &WebRtcOrigin, ufrag: &str, here: &Path<'_>, elsewhere: &Path<'_>) {
    for number in 9000..9010 {
        origin.send(ufrag, &ice::media(SSRC, number));
        assert_eq!(here.receive_media(Duration::from_secs(2)), Some(number));
    }
    assert_eq!(elsewhere.receive_media(Duration::from_millis(20)), None);
}

#[test]
fn media_goes_on_after_the_first_check_from_a_new_address_whichever_shard_gets_it() {
    let origin = WebRtcOrigin::start();
    let relay = relay_to(&origin, &["--shards", "2"]);
    let client = WebRtcClient::publish(relay.http, "cam");
    let mut number = 0;
    let mut here = client.path(LOOPBACK, relay.media);
    here.check(true);
    here.stream_until_echo(&mut number);
    let (mut at, mut stayed, mut moved) = (shard(&relay), false, false);
    for host in 2..MOVES_MAX {
        let there = client.path(Ipv4Addr::new(127, 0, 0, host).into(), relay.media);
        assert_eq!(there.check(true), there.address());
        there.stream_until_echo(&mut number);
        assert_served(&origin, &client.ufrag, &there, &here);
        let now = shard(&relay);
        stayed |= now == at;
        moved |= now != at;
        (here, at) = (there, now);
        if stayed && moved {
            break;
        }
    }
    assert!(stayed && moved, "both within a shard and to the other: {stayed}, {moved}");
    assert_eq!(relay.sessions().len(), 1);
}

#[test]
fn media_from_a_new_address_waits_for_the_check_that_proves_it() {
    let origin = WebRtcOrigin::start();
    let relay = relay_to(&origin, &["--shards", "2"]);
    let client = WebRtcClient::publish(relay.http, "cam");
    let here = client.path(LOOPBACK, relay.media);
    here.check(true);
    let there = client.path(Ipv4Addr::new(127, 0, 0, 9).into(), relay.media);
    for number in 0..20 {
        there.send(&ice::media(SSRC, number));
    }
    assert_eq!(there.receive_media(Duration::from_millis(100)), None);
    assert_served(&origin, &client.ufrag, &here, &there);
}

#[test]
fn a_client_with_both_families_starts_on_two_shards_and_gets_media_where_it_nominates() {
    let origin = WebRtcOrigin::start();
    let flags = ["--shards", "2", "--public-address", "127.0.0.1", "--public-address", "::1"];
    let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let flag = origin.flag("a");
    let arguments = [&["--origin", flag.as_str()], &flags[..]].concat();
    let relay = WebRtcRelay::start_at(any, &arguments);
    let http = SocketAddr::new(LOOPBACK, relay.http.port());
    let v4 = SocketAddr::new(LOOPBACK, relay.media.port());
    let v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), relay.media.port());
    for session in 0..8 {
        let client = WebRtcClient::publish(http, &format!("cam{session}"));
        assert_eq!(client.candidates, [v4, v6]);
        let paths = [client.path(LOOPBACK, v4), client.path(v6.ip(), v6)];
        // Both at once, as agents do, so that neither shard knows of the other's.
        for path in &paths {
            path.send(&path.request(false));
        }
        let begun = Instant::now();
        let works = |path: &&Path<'_>| {
            path.check_once(false, Duration::from_millis(50)) == Some(path.address())
        };
        let first = eventually("a path works", || paths.iter().find(works));
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        first.check(true);
        first.stream_until_echo(&mut 0);
        // And on to the other one, as if the first interface were gone.
        let [loser, winner] = if session % 2 == 0 { [0, 1] } else { [1, 0] };
        let (loser, winner) = (&paths[loser], &paths[winner]);
        winner.check(true);
        winner.stream_until_echo(&mut 0);
        assert_served(&origin, &client.ufrag, winner, loser);
    }
}

#[test]
fn a_captured_request_from_another_address_moves_nothing_whichever_shard_gets_it() {
    let origin = WebRtcOrigin::start();
    let relay = relay_to(&origin, &["--shards", "2"]);
    let client = WebRtcClient::publish(relay.http, "cam");
    let here = client.path(LOOPBACK, relay.media);
    let captured = here.request(true);
    here.send(&captured);
    assert!(here.receive(Duration::from_secs(2), |_| true).is_some());
    here.stream_until_echo(&mut 0);
    let at = shard(&relay);
    // The client pauses, so that nothing speaks for the old address but that the request is known.
    assert_eq!(here.receive_media(Duration::from_millis(600)), None);
    // Each of so many addresses is the other shard's with even chance.
    let mut replayed = BTreeSet::new();
    for host in 2..34 {
        let elsewhere = client.path(Ipv4Addr::new(127, 0, 1, host).into(), relay.media);
        elsewhere.send(&captured);
        assert_eq!(elsewhere.receive(Duration::from_millis(10), |_| true), None);
        replayed.insert(elsewhere.address().to_string());
        if host == 33 {
            assert_served(&origin, &client.ufrag, &here, &elsewhere);
        }
    }
    here.stream_until_echo(&mut 0);
    assert!(relay.sum("ringway_stun_rejected_total", "replayed") > 0.0);
    let session = relay.wait_for_sessions(1).remove(0);
    assert_eq!(session["shard"], at, "{session}");
    let addresses = session["webrtc"]["addresses"].as_array().unwrap();
    let is_replayed = |address: &&serde_json::Value| replayed.contains(address.as_str().unwrap());
    assert_eq!(addresses.iter().find(is_replayed), None, "{session}");
}
