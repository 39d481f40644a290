//! A relay that an operator takes out of service while streams run, and takes back.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::caller::{Caller, Origin, Told, call, socket_near};
use crate::support::http::{Reply, get, request};
use crate::support::ice::Credentials;
use crate::support::process::{Program, Ringway, ringway, transmit};
use crate::support::webrtc_client::{WebRtcClient, offer};
use crate::support::webrtc_origin::WebRtcOrigin;
use crate::support::webrtc_relay::WebRtcRelay;

const STREAM: &str = "#!::r=live/cam,m=publish";

fn post(relay: &Ringway, target: &str, body: &str) -> Reply {
    request(relay.system, "POST", target, &[], body).unwrap()
}

/// `ringway`, asking this relay.
fn operator(relay: &Ringway, arguments: &[&str]) -> Command {
    let mut command = ringway();
    command.args(arguments).env("RINGWAY_API", format!("http://{}", relay.system));
    command
}

/// What a newcomer with a stream of its own is told.
fn newcomer(relay: &Ringway, id: u32) -> Told {
    let stream = format!("#!::r=live/{id},m=publish");
    call(&socket_near(relay.srt), id, Some(&stream))
}

/// Sends media and waits for the origin's echo.
fn relays_media(caller: &Caller, sequence: u32) {
    caller.send(sequence, b"still here");
    let mut buffer = [0; 2048];
    assert_eq!(caller.socket.recv(&mut buffer).unwrap(), 16 + 10);
}

#[test]
fn a_drained_relay_goes_on_with_its_sessions_and_refuses_newcomers_until_it_is_undrained() {
    let origin = Origin::start();
    let mut relay = Ringway::start(&["--origin", &origin.flag("a")]);
    let live = Caller::connect(relay.srt, 7, STREAM);
    relay.wait_for_sessions(1);
    relays_media(&live, 1);

    let reply = post(&relay, "/api/v1/drain", "");
    assert_eq!(reply.status, 200, "{}", reply.body);
    let state = reply.json();
    assert_eq!((&state["state"], &state["sessions"]), (&"draining".into(), &1.into()), "{state}");
    assert_eq!(state["drained"], false, "{state}");
    relay.program.wait_for("draining: new sessions are refused");
    let readiness = get(relay.system, "/readyz").unwrap();
    assert_eq!(readiness.status, 503);
    assert!(readiness.body.contains("draining"), "{}", readiness.body);
    assert_eq!(get(relay.system, "/livez").unwrap().status, 200);
    assert_eq!(relay.metric("ringway_draining"), 1.0);
    assert_eq!(newcomer(&relay, 8), Told::Refused(1007));
    relays_media(&live, 2);
    live.shutdown();
    relay.program.wait_for("drained: ");
    relay.wait_for_no_sessions();
    assert_eq!(get(relay.system, "/api/v1/drain").unwrap().json()["drained"], true);
    assert_eq!(newcomer(&relay, 9), Told::Refused(1007), "it stays, and stays drained");

    let reply = post(&relay, "/api/v1/undrain", "");
    assert_eq!((reply.status, &reply.json()["state"]), (200, &"serving".into()));
    assert_eq!(get(relay.system, "/readyz").unwrap().status, 200);
    assert_eq!(relay.metric("ringway_draining"), 0.0);
    let caller = Caller::connect(relay.srt, 10, STREAM);
    relays_media(&caller, 1);
}

#[test]
fn libsrt_hears_that_a_drained_relay_closes() {
    let origin = Origin::start();
    let relay = Ringway::start(&["--origin", &origin.flag("a")]);
    assert_eq!(post(&relay, "/api/v1/drain", "").status, 200);
    let mut caller = transmit("file://con", &format!("srt://{}?mode=caller", relay.srt));
    caller.wait_for("Socket is being closed");
}

#[test]
fn webrtc_sessions_live_on_through_a_drain_and_offers_are_to_be_made_elsewhere() {
    let origin = WebRtcOrigin::start();
    let relay = WebRtcRelay::start(&["--origin", &origin.flag("a")]);
    let live = WebRtcClient::publish(relay.http, "cam");
    let path = live.path(Ipv4Addr::LOCALHOST.into(), relay.media);
    path.check(true);
    let mut number = 0;
    path.stream_until_echo(&mut number);
    let waiting = WebRtcClient::play(relay.http, "cam");

    assert_eq!(post(&relay, "/api/v1/drain", "").status, 200);
    for target in ["/rtc/v1/whip/?app=live&stream=other", "/rtc/v1/whep/?app=live&stream=cam"] {
        let reply = offer(&Credentials::fresh(), relay.http, target);
        assert_eq!(reply.status, 503, "{target}: {}", reply.body);
        assert!(reply.header("Retry-After").is_some(), "{}", reply.head);
        assert!(reply.body.contains("draining"), "{}", reply.body);
    }
    path.stream_until_echo(&mut number);
    // Its session began before the drain, though no datagram of it has come.
    waiting.path(Ipv4Addr::LOCALHOST.into(), relay.media).check(true);
    // A live client goes to another network.
    let roamed = live.path(Ipv4Addr::LOCALHOST.into(), relay.media);
    roamed.check(true);
    assert_eq!(live.delete(relay.http).status, 200);
}

#[test]
fn the_command_waits_until_few_enough_sessions_are_left() {
    let origin = Origin::start();
    let mut relay = Ringway::start(&["--origin", &origin.flag("a")]);
    let live = Caller::connect(relay.srt, 7, STREAM);
    let _second = Caller::connect(relay.srt, 8, "#!::r=live/second,m=publish");
    relay.wait_for_sessions(2);
    let mut drain = Program::start(operator(&relay, &["drain", "--min-sessions", "1"]));
    let begun = "draining: 2 sessions\n";
    assert_eq!(String::from_utf8(drain.read(begun.len())).unwrap(), begun);
    relay.program.wait_for("draining: new sessions are refused");
    live.shutdown();
    assert_eq!(drain.wait().0, Some(0), "{}", drain.said());
    assert_eq!(newcomer(&relay, 9), Told::Refused(1007));

    let output = operator(&relay, &["undrain"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "serving: 1 session\n");
    assert!(matches!(newcomer(&relay, 10), Told::Connected { .. }));
}

#[test]
fn the_command_fails_at_its_deadline_and_the_relay_goes_on_draining() {
    let origin = Origin::start();
    let mut relay = Ringway::start(&["--origin", &origin.flag("a")]);
    let live = Caller::connect(relay.srt, 7, STREAM);
    relay.wait_for_sessions(1);
    let output = operator(&relay, &["drain", "--deadline", "300ms"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("1 session is left after --deadline 300ms"), "{said}");
    relay.program.wait_for("the deadline has passed");
    relays_media(&live, 1);
    assert_eq!(get(relay.system, "/readyz").unwrap().status, 503);
}

#[test]
fn the_command_says_when_somebody_else_has_taken_the_drain_back() {
    let origin = Origin::start();
    let relay = Ringway::start(&["--origin", &origin.flag("a")]);
    let _live = Caller::connect(relay.srt, 7, STREAM);
    relay.wait_for_sessions(1);
    let mut drain = Program::start(operator(&relay, &["drain"]));
    assert!(drain.read(1).starts_with(b"draining"));
    assert_eq!(post(&relay, "/api/v1/undrain", "").status, 200);
    assert_eq!(drain.wait().0, Some(1));
    assert!(drain.said().contains("no longer draining"), "{}", drain.said());
}

#[test]
fn a_drained_relay_obeys_sigterm_as_any_other() {
    let origin = Origin::start();
    let mut relay = Ringway::start(&["--origin", &origin.flag("a")]);
    let live = Caller::connect(relay.srt, 7, STREAM);
    relay.wait_for_sessions(1);
    post(&relay, "/api/v1/drain", "");
    relay.program.signal(Signal::TERM);
    relay.program.wait_for("quitting");
    relays_media(&live, 1);
    let reply = post(&relay, "/api/v1/undrain", "");
    assert_eq!(reply.status, 409, "{}", reply.body);
    assert_eq!(newcomer(&relay, 8), Told::Refused(1007));
    live.shutdown();
    let (code, took) = relay.program.wait();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(10), "it does not wait for its grace to end: {took:?}");
}

#[test]
fn only_operators_drain_and_with_goals_that_can_be_read() {
    let relay = Ringway::start(&["--api-token", "hunter2"]);
    for target in ["/api/v1/drain", "/api/v1/undrain"] {
        assert_eq!(post(&relay, target, "").status, 401, "{target}");
    }
    let right = [("Authorization", "Bearer hunter2")];
    let ask = |target, body| request(relay.system, "POST", target, &right, body).unwrap();
    for (target, body) in [
        ("/api/v1/drain?deadline=soon", ""),
        ("/api/v1/drain?min_sessions=x", ""),
        ("/api/v1/drain", "{\"deadline\": 10}"),
        ("/api/v1/drain", "[1"),
    ] {
        assert_eq!(ask(target, body).status, 400, "{target} {body}");
    }
    assert!(get(relay.system, "/readyz").unwrap().body.contains("no live origin"), "not drained");
    let state = ask("/api/v1/drain?min_sessions=2", "{\"deadline\": \"10m\"}").json();
    assert_eq!((&state["min_sessions"], &state["drained"]), (&2.into(), &Value::Bool(true)));
    assert!(state["seconds_left"].as_f64().unwrap() > 500.0, "{state}");
}
