//! What a real caller is told when it cannot be served, and how soon: before its own patience of 3 s ends.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::caller::{Caller, Origin};
use crate::support::process::{Program, Ringway, free_port, transmit};

/// Calls and waits for libsrt's word about the refusal; returns all it said and how long it took.
fn call(relay: &Ringway, rest: &str) -> (String, Duration) {
    let url = format!("srt://{}?mode=caller{rest}", relay.srt);
    let begun = Instant::now();
    let mut caller = transmit("file://con", &url);
    let _ = caller.wait_for_line("REJECT", Duration::from_secs(5));
    let took = begun.elapsed();
    let _ = caller.wait_for_line("DESTROYING", Duration::from_secs(1));
    (caller.said(), took)
}

fn assert_refused(said: &str, took: Duration, reason: &str) {
    assert!(said.contains(reason), "libsrt gives the reason {reason:?}; it said: {said}");
    assert!(took < Duration::from_millis(2900), "took {took:?}");
}

const APPLICATION: &str = "Application-defined rejection reason";

fn relay_with(origin: &str) -> Ringway {
    Ringway::start(&["--origin", origin])
}

#[test]
fn without_any_origin_the_caller_hears_at_once_that_nobody_is_there() {
    let mut relay = Ringway::start(&[]);
    let (said, took) = call(&relay, "&streamid=live/cam");
    assert_refused(&said, took, APPLICATION);
    relay.program.wait_for("code=2503");
}

#[test]
fn an_origin_whose_port_is_closed_is_a_refusal_at_once() {
    let port = free_port("127.0.0.1");
    let mut relay = relay_with(&format!("name=a,ip=127.0.0.1,srt={port}"));
    let (said, took) = call(&relay, "&streamid=live/cam");
    assert_refused(&said, took, APPLICATION);
    assert!(took < Duration::from_secs(1), "took {took:?}");
    relay.program.wait_for("code=2502");
}

#[test]
fn a_silent_origin_is_a_refusal_before_the_callers_patience_ends() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut relay = relay_with(&format!("name=a,ip=127.0.0.1,srt={port}"));
    let (said, took) = call(&relay, "&streamid=live/cam");
    assert_refused(&said, took, APPLICATION);
    relay.program.wait_for("code=2502");
}

#[test]
fn a_malformed_stream_id_and_an_unknown_mode_are_refused_at_once() {
    let relay = Ringway::start(&[]);
    for stream_id in ["#!::m=publish", "#!::r=live/cam,m=bidirectional"] {
        let (said, took) = call(&relay, &format!("&streamid={stream_id}"));
        assert_refused(&said, took, APPLICATION);
        assert!(took < Duration::from_secs(1), "took {took:?}");
    }
    assert!(relay.metric("ringway_refusals_total{proto=\"srt\",reason=\"bad_request\"}") >= 1.0);
    assert!(relay.metric("ringway_refusals_total{proto=\"srt\",reason=\"bad_mode\"}") >= 1.0);
}

#[test]
fn a_wrong_passphrase_is_refused_by_the_origin_in_its_own_words() {
    let port = free_port("127.0.0.1");
    let url = format!("srt://127.0.0.1:{port}?mode=listener&passphrase=the-right-one&pbkeylen=32");
    let mut origin: Program = transmit(&url, "file://con");
    origin.wait_for("listen...");
    let mut relay = relay_with(&format!("name=a,ip=127.0.0.1,srt={port}"));
    let (said, took) = call(&relay, "&streamid=live/cam&passphrase=the-wrong-one");
    assert_refused(&said, took, "Incorrect passphrase");
    relay.program.wait_for("refused_by_origin");
}

#[test]
fn a_stream_that_the_origin_refuses_is_refused_with_the_origins_own_code() {
    let origin = Origin::refusing(1002);
    let mut relay = relay_with(&origin.flag("a"));
    let (said, took) = call(&relay, "&streamid=live/cam");
    assert_refused(&said, took, "Peer rejected connection");
    assert!(took < Duration::from_secs(1), "took {took:?}");
    relay.program.wait_for("code=1002");
}

#[test]
fn a_relay_that_is_shutting_down_says_so_and_ends_with_its_last_session() {
    let origin = Origin::start();
    let mut relay = relay_with(&origin.flag("a"));
    let live = Caller::connect(relay.srt, 7, "#!::r=live/cam,m=publish");
    relay.wait_for_sessions(1);
    relay.program.signal(Signal::TERM);
    relay.program.wait_for("quitting");
    let (said, took) = call(&relay, "&streamid=live/other");
    assert_refused(&said, took, "Socket is being closed");
    live.shutdown();
    let (code, _) = relay.program.wait();
    assert_eq!(code, Some(0));
}

#[test]
fn at_the_end_of_its_grace_a_relay_says_goodbye_to_those_who_stayed() {
    let origin = Origin::start();
    let origin_flag = origin.flag("a");
    let mut relay = Ringway::start(&["--origin", &origin_flag, "--grace-quit-timeout", "1s"]);
    let live = Caller::connect(relay.srt, 7, "#!::r=live/cam,m=publish");
    relay.wait_for_sessions(1);
    relay.program.signal(Signal::TERM);
    let (code, took) = relay.program.wait();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(4), "took {took:?}");
    let mut buffer = [0; 64];
    let length = live.socket.recv(&mut buffer).unwrap();
    assert!(buffer[..length].starts_with(&[0x80, 5]), "a SHUTDOWN: {:x?}", &buffer[..length]);
}

#[test]
fn a_second_signal_ends_a_relay_at_once() {
    let origin = Origin::start();
    let mut relay = relay_with(&origin.flag("a"));
    let _live = Caller::connect(relay.srt, 7, "#!::r=live/cam,m=publish");
    relay.wait_for_sessions(1);
    relay.program.signal(Signal::TERM);
    relay.program.wait_for("quitting");
    relay.program.signal(Signal::INT);
    let (_, took) = relay.program.wait();
    assert!(took < Duration::from_secs(3), "took {took:?}");
}
