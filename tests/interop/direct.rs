//! Clients without signalling (`--webrtc-direct`) and their listeners, both of them str0m: ICE, DTLS and data channels.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use ringway::protocol::stun::{IntegrityKey, TransactionId};
use serde_json::Value;
use str0m::config::DtlsVersion;

use crate::support::direct::{Dial, DirectClient, DirectOrigin, fresh_ufrag};
use crate::support::process::{free_port, ringway};
use crate::support::webrtc_relay::WebRtcRelay;
use crate::support::{http, ice};

/// A relay that lets clients without signalling in.
fn relay_to(origins: &[String], arguments: &[&str]) -> WebRtcRelay {
    let mut all = vec!["--webrtc-direct", "on"];
    all.extend(origins.iter().flat_map(|origin| ["--origin", origin]));
    all.extend(arguments);
    WebRtcRelay::start(&all)
}

/// A client whose data channel is open.
fn connected(relay: &WebRtcRelay, ufrag: &str, origin: &DirectOrigin) -> DirectClient {
    let mut client = DirectClient::dial(&Dial::new(relay.media, ufrag, origin));
    client.connect();
    client
}

/// All sessions, however far they have come.
fn sessions(relay: &WebRtcRelay) -> Vec<Value> {
    let reply = http::get(relay.system, "/api/v1/sessions").unwrap().json();
    reply["sessions"].as_array().unwrap().clone()
}

/// What the API says of an origin.
fn state_of(relay: &WebRtcRelay, name: &str) -> String {
    let reply = http::get(relay.system, "/api/v1/origins").unwrap().json();
    let origins = reply["origins"].as_array().unwrap();
    let origin = origins.iter().find(|origin| origin["name"] == name).unwrap();
    origin["state"].as_str().unwrap().to_owned()
}

fn assert_nothing_is_left(relay: &WebRtcRelay) {
    relay.wait_for_no_sessions();
    http::eventually("the metrics know of no session", || {
        (relay.metric("ringway_sessions{proto=\"webrtc\"}") == 0.0).then_some(())
    });
    let reply = http::get(relay.system, "/api/v1/origins").unwrap().json();
    for origin in reply["origins"].as_array().unwrap() {
        assert_eq!(origin["sessions"], 0, "{origin}");
    }
}

#[test]
fn the_two_ends_understand_each_other_without_a_relay() {
    let origin = DirectOrigin::start("d");
    let ufrag = fresh_ufrag();
    let mut client = DirectClient::dial(&Dial::new(origin.address, &ufrag, &origin));
    client.connect();
    assert_eq!(client.exchange("hello"), "d: hello");
}

#[test]
fn a_client_and_a_listener_that_share_nothing_but_a_ufrag_talk_by_dtls_both_ways() {
    let origin = DirectOrigin::start("d");
    let relay = relay_to(&[origin.flag("d")], &[]);
    let mut client = connected(&relay, &fresh_ufrag(), &origin);
    assert!(client.until(|end| end.heard.contains(&"d greets".to_owned())));
    assert_eq!(client.exchange("hello"), "d: hello");
}

#[test]
fn dtls_1_3_passes_like_any_other() {
    let origin = DirectOrigin::start("d");
    let relay = relay_to(&[origin.flag("d")], &[]);
    let ufrag = fresh_ufrag();
    let dial = Dial { dtls: DtlsVersion::Dtls13, ..Dial::new(relay.media, &ufrag, &origin) };
    let mut client = DirectClient::dial(&dial);
    client.connect();
    assert_eq!(client.exchange("hello"), "d: hello");
    relay.wait_for_sessions(1);
}

#[test]
fn without_the_flag_nothing_passes_and_a_counter_says_why() {
    let origin = DirectOrigin::start("d");
    let relay = WebRtcRelay::start(&["--origin", &origin.flag("d")]);
    let mut client = DirectClient::dial(&Dial::new(relay.media, &fresh_ufrag(), &origin));
    let is_counted =
        client.until(|_| relay.sum("ringway_drops_total", "stun_unknown_ufrag") >= 3.0);
    assert!(is_counted);
    assert!(relay.sum("ringway_stun_rejected_total", "\"unknown_ufrag\"") >= 3.0);
    assert_eq!((origin.datagrams(), sessions(&relay)), (0, vec![]));
}

#[test]
fn a_forged_password_passes_nowhere_and_keeps_nobody_out() {
    let origin = DirectOrigin::start("d");
    let relay = relay_to(&[origin.flag("d")], &[]);
    let (ufrag, other) = (fresh_ufrag(), fresh_ufrag());
    let dial = Dial { password: &other, ..Dial::new(relay.media, &ufrag, &origin) };
    let mut forger = DirectClient::dial(&dial);
    let is_counted =
        forger.until(|_| relay.sum("ringway_stun_rejected_total", "\"bad_integrity\"") >= 3.0);
    assert!(is_counted);
    assert_eq!((origin.datagrams(), sessions(&relay)), (0, vec![]));
    assert_eq!(connected(&relay, &ufrag, &origin).exchange("mine"), "d: mine");
}

#[test]
fn two_clients_have_sessions_and_ports_of_their_own() {
    let origin = DirectOrigin::start("d");
    let relay = relay_to(&[origin.flag("d")], &[]);
    let (one, two) = (fresh_ufrag(), fresh_ufrag());
    let mut first = connected(&relay, &one, &origin);
    let mut second = connected(&relay, &two, &origin);
    first.exchange("of the first");
    second.exchange("of the second");
    let ports = [origin.client(&one).unwrap(), origin.client(&two).unwrap()];
    assert_ne!(ports[0], ports[1]);
    assert!(!ports.contains(&first.address()) && !ports.contains(&second.address()), "{ports:?}");
    let shown = relay.wait_for_sessions(2);
    let ids: BTreeSet<_> = shown.iter().map(|session| session["id"].to_string()).collect();
    assert_eq!(ids.len(), 2);
    assert!(first.until(|end| end.heard == ["d greets", "d: of the first"]));
    assert!(second.until(|end| end.heard == ["d greets", "d: of the second"]));
}

#[test]
fn the_api_and_the_command_line_show_the_session_and_what_its_origin_takes() {
    let origin = DirectOrigin::start("d");
    let relay = relay_to(&[origin.flag("d")], &[]);
    let ufrag = fresh_ufrag();
    let mut client = connected(&relay, &ufrag, &origin);
    client.exchange("hello");
    let session = relay.wait_for_sessions(1).pop().unwrap();
    for (field, value) in [
        ("proto", "webrtc".to_owned()),
        ("origin", "d".to_owned()),
        ("client", client.address().to_string()),
    ] {
        assert_eq!(session[field], value, "{session}");
    }
    assert_eq!(session["webrtc"]["ufrag_pair"], format!("{ufrag}:{ufrag}"));
    assert!(session["packets"]["client_in"].as_u64() > Some(4), "{session}");
    assert!(session["packets"]["client_out"].as_u64() > Some(4), "{session}");
    let reply = http::get(relay.system, "/api/v1/origins").unwrap().json();
    let shown = &reply["origins"][0];
    assert_eq!(shown["takes"], serde_json::json!(["webrtc-direct"]), "{shown}");
    assert_eq!((&shown["state"], &shown["sessions"]), (&"up".into(), &1.into()));
    let mut program = ringway();
    let output = program.args(["origins", "--api", &format!("http://{}", relay.system)]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(text.contains("webrtc-direct"), "{text}");
}

#[test]
fn a_session_whose_ends_close_dtls_is_gone_and_leaves_nothing() {
    let origin = DirectOrigin::start("d");
    let relay = relay_to(&[origin.flag("d")], &[]);
    let mut client = connected(&relay, &fresh_ufrag(), &origin);
    client.exchange("hello");
    relay.wait_for_sessions(1);
    let begun = Instant::now();
    client.close();
    assert_nothing_is_left(&relay);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn a_session_whose_client_falls_silent_is_gone_after_the_idle_timeout_and_leaves_nothing() {
    let origin = DirectOrigin::start("d");
    let relay = relay_to(&[origin.flag("d")], &["--webrtc-idle-timeout", "1s"]);
    let mut client = connected(&relay, &fresh_ufrag(), &origin);
    client.exchange("hello");
    let begun = Instant::now();
    assert_nothing_is_left(&relay);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn relays_that_know_the_same_origins_give_a_ufrag_to_the_same_one() {
    let origins = ["a", "b", "c"].map(DirectOrigin::start);
    let flags = ["a", "b", "c"].map(|name| {
        let origin = &origins[usize::from(name.as_bytes()[0] - b'a')];
        origin.flag(name)
    });
    let reversed: Vec<_> = flags.iter().rev().cloned().collect();
    let relays = [relay_to(&flags, &[]), relay_to(&reversed, &[])];
    for _ in 0..8 {
        let ufrag = fresh_ufrag();
        let chosen = relays.each_ref().map(|relay| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            present(&socket, relay, &ufrag);
            http::eventually("the client is a session", || {
                let pair = format!("{ufrag}:{ufrag}");
                let shown = sessions(relay).into_iter();
                let mut own = shown.filter(|session| session["webrtc"]["ufrag_pair"] == *pair);
                own.next().map(|session| session["origin"].to_string())
            })
        });
        assert_eq!(chosen[0], chosen[1], "{ufrag}");
    }
}

/// Sends a client's first request.
fn present(socket: &UdpSocket, relay: &WebRtcRelay, ufrag: &str) {
    let key = IntegrityKey::new(ufrag.as_bytes());
    let mut transaction = [0; 12];
    rustix::rand::getrandom(&mut transaction, rustix::rand::GetRandomFlags::empty()).unwrap();
    let username = format!("{ufrag}:{ufrag}");
    let request = ice::binding_request(&username, &key, TransactionId(transaction), true);
    socket.send_to(&request, relay.media).unwrap();
}

#[test]
fn a_client_of_a_dead_origin_is_let_go_and_who_dials_next_meets_one_that_lives() {
    let alive = DirectOrigin::start("alive");
    let dead = format!("name=dead,ip=127.0.0.1,direct={}", free_port("127.0.0.1"));
    let relay = relay_to(&[alive.flag("alive"), dead], &[]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Eight may wait at a time, and one origin of two is theirs alone once in 2^24 runs.
    for round in 1..=3 {
        for ufrag in (0..8).map(|_| fresh_ufrag()) {
            present(&socket, &relay, &ufrag);
        }
        http::eventually("all are sessions", || {
            let created = relay.metric("ringway_sessions_created_total{proto=\"webrtc\"}");
            (created == f64::from(8 * round)).then_some(())
        });
    }
    http::eventually("the dead origin is known to be down", || {
        (state_of(&relay, "dead") == "down").then_some(())
    });
    for _ in 0..4 {
        let mut client = connected(&relay, &fresh_ufrag(), &alive);
        assert_eq!(client.exchange("hello"), "alive: hello");
    }
    http::eventually("its sessions are gone", || {
        sessions(&relay).iter().all(|session| session["origin"] == "alive").then_some(())
    });
}

#[test]
fn sessions_are_served_on_whichever_shard_their_clients_come_to() {
    let origin = DirectOrigin::start("d");
    let relay = relay_to(&[origin.flag("d")], &["--shards", "2"]);
    let mut clients: Vec<_> = (0..16).map(|_| connected(&relay, &fresh_ufrag(), &origin)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.exchange(&number.to_string()), format!("d: {number}"));
    }
    let shown = relay.wait_for_sessions(16);
    let shards: BTreeSet<_> =
        shown.iter().filter_map(|session| session["shard"].as_u64()).collect();
    assert_eq!(shards, BTreeSet::from([0, 1]));
}

#[test]
fn a_client_whose_address_changes_goes_on_with_its_session() {
    let origin = DirectOrigin::start("d");
    // One shard: across shards the origin sees another port, and str0m goes on answering the last one for a while.
    let relay = relay_to(&[origin.flag("d")], &["--shards", "1"]);
    let mut client = connected(&relay, &fresh_ufrag(), &origin);
    client.exchange("at home");
    client.move_elsewhere();
    assert_eq!(client.exchange("elsewhere"), "d: elsewhere");
    assert_eq!(relay.wait_for_sessions(1)[0]["client"], client.address().to_string());
}
