//! The system API of a running relay, as origins, operators and Prometheus use it.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::caller::{Caller, Origin, Told, call, socket_near};
use crate::support::http::{Reply, eventually, get, request};
use crate::support::process::{Ringway, free_port};

/// What SRS 7 posts, header for header, with the relay's and the origin's own addresses.
fn register(relay: &Ringway, ip: &str, srt: u16) -> Reply {
    let body = format!(
        "{{\"device_id\":\"origin1\",\"ip\":\"{ip}\",\"server\":\"vid-494121g\",\"service\":\"33z81803\",\
         \"pid\":\"17907\",\"rtmp\":[\"19351\"],\"http\":[\"8081\"],\"api\":[\"19851\"],\
         \"srt\":[\"udp://0.0.0.0:{srt}\"],\"rtc\":[\"udp://0.0.0.0:8001\"]}}"
    );
    let headers = [("User-Agent", "SRS/7.0.18(Hang)"), ("Content-Type", "application/json")];
    request(relay.system, "POST", "/api/v1/srs/register", &headers, &body).unwrap()
}

#[test]
fn an_origin_that_registers_as_srs_does_gets_streams_at_once() {
    let origin = Origin::start();
    let relay = Ringway::start(&[]);
    assert_eq!(get(relay.system, "/readyz").unwrap().status, 503, "no origin yet");
    let reply = register(&relay, "127.0.0.1", origin.address.port());
    assert_eq!(reply.status, 200);
    assert!(reply.head.to_ascii_lowercase().contains("content-type: application/json"));
    let pid = relay.program.id().to_string();
    assert_eq!(reply.json(), serde_json::json!({"code": 0, "pid": pid}));
    assert_eq!(get(relay.system, "/readyz").unwrap().status, 200);
    let _caller = Caller::connect(relay.srt, 7, "#!::r=live/cam,m=publish");
    let origins = get(relay.system, "/api/v1/origins").unwrap().json();
    assert_eq!(origins["origins"].as_array().unwrap().len(), 1);
}

#[test]
fn a_registration_that_cannot_be_used_is_one_problem_that_says_what_is_wrong() {
    let relay = Ringway::start(&[]);
    for (ip, word) in
        [("8.8.8.8", "8.8.8.8"), ("169.254.169.254", "169.254"), ("", "ip"), ("a.b", "a.b")]
    {
        let reply = register(&relay, ip, 10080);
        assert_eq!(reply.status, 400, "{ip}: {}", reply.body);
        let head = reply.head.to_ascii_lowercase();
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        assert!(reply.json()["detail"].as_str().unwrap().contains(word), "{}", reply.body);
    }
}

#[test]
fn a_session_is_shown_alone_and_ended_by_delete_with_goodbyes_to_both_sides() {
    let origin = Origin::start();
    let relay = Ringway::start(&["--origin", &origin.flag("a")]);
    let caller = Caller::connect(relay.srt, 7, "#!::r=live/cam,m=publish");
    let mut buffer = [0; 2048];
    for sequence in 0..10 {
        caller.send(sequence, &[0x47; 100]);
        caller.socket.recv(&mut buffer).unwrap();
    }
    let session = relay.wait_for_sessions(1).pop().unwrap();
    let path = format!("/api/v1/sessions/{}", session["id"].as_str().unwrap());
    let session = get(relay.system, &path).unwrap().json();
    for (field, value) in [
        ("proto", Value::from("srt")),
        ("role", Value::from("publish")),
        ("stream", Value::from("__defaultVhost__/live/cam")),
        ("origin", Value::from("a")),
        ("state", Value::from("established")),
        ("client", Value::from(caller.socket.local_addr().unwrap().to_string())),
    ] {
        assert_eq!(session[field], value, "{session}");
    }
    assert_eq!(session["packets"]["client_in"], 10);
    assert_eq!(session["bytes"]["origin_out"], 1160);
    assert_eq!(session["srt"]["latency_ms"], 120);

    let reply = request(relay.system, "DELETE", &path, &[], "").unwrap();
    assert_eq!(reply.status, 204);
    let length = caller.socket.recv(&mut buffer).unwrap();
    assert!(buffer[..length].starts_with(&[0x80, 5]));
    relay.wait_for_no_sessions();
    assert_eq!(request(relay.system, "DELETE", &path, &[], "").unwrap().status, 404);
}

#[test]
fn every_metric_of_the_interface_is_there_under_its_name() {
    let origin = Origin::start();
    let relay = Ringway::start(&["--origin", &origin.flag("a")]);
    let caller = Caller::connect(relay.srt, 7, "#!::r=live/cam,m=publish");
    let mut buffer = [0; 2048];
    caller.send(1, b"media");
    caller.socket.recv(&mut buffer).unwrap();
    caller.socket.send(b"junk").unwrap();
    eventually("the junk is counted", || {
        let junk = relay.metric("ringway_drops_total{reason=\"too_short\"}");
        (junk == 1.0).then_some(())
    });
    let text = get(relay.system, "/metrics").unwrap().body;
    for series in [
        "ringway_packets_total{",
        "ringway_bytes_total{",
        "ringway_drops_total{",
        "ringway_refusals_total{",
        "ringway_sessions{",
        "ringway_sessions_created_total{",
        "ringway_session_setup_seconds_bucket{",
        "ringway_send_batch_segments_bucket{",
        "ringway_receive_queue_overflows_total",
        "ringway_ring_starved_total",
        "ringway_receive_errors_total",
        "ringway_origin_up{origin=\"a\"} 1",
        "ringway_origins",
        "ringway_shard_cpu_seconds_total{",
        "ringway_build_info{",
    ] {
        assert!(text.contains(series), "{series} is missing in:\n{text}");
    }
    assert_eq!(relay.metric("ringway_sessions{proto=\"srt\"}"), 1.0);
    let client_in = relay.metric("ringway_packets_total{proto=\"srt\",leg=\"client\",dir=\"in\"}");
    assert!(client_in >= 4.0, "{client_in}");
}

#[test]
fn without_a_token_strangers_get_nothing_and_with_one_they_need_it() {
    let relay = Ringway::start(&["--api-token", "hunter2"]);
    assert_eq!(get(relay.system, "/api/v1/sessions").unwrap().status, 401);
    let wrong = [("Authorization", "Bearer hunter3")];
    assert_eq!(request(relay.system, "GET", "/api/v1/sessions", &wrong, "").unwrap().status, 401);
    let right = [("Authorization", "Bearer hunter2")];
    assert_eq!(request(relay.system, "GET", "/api/v1/sessions", &right, "").unwrap().status, 200);
    for open in ["/livez", "/metrics", "/api/v1/versions"] {
        assert_eq!(get(relay.system, open).unwrap().status, 200, "{open}");
    }
}

#[test]
fn the_command_line_shows_sessions_origins_and_streams_of_a_running_relay() {
    let origin = Origin::start();
    let relay = Ringway::start(&["--origin", &origin.flag("edge-origin")]);
    let _caller = Caller::connect(relay.srt, 7, "#!::r=live/cam,m=publish");
    relay.wait_for_sessions(1);
    let api = format!("http://{}", relay.system);
    for (command, word) in
        [("sessions", "live/cam"), ("origins", "edge-origin"), ("streams", "live/cam")]
    {
        for json in [false, true] {
            let mut program = crate::support::process::ringway();
            program.args([command, "--api", &api]).args(json.then_some("--json"));
            let output = program.output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{command}: {output:?}", output = output.stderr);
            assert!(text.contains(word), "{command}: {text}");
            assert!(!json || serde_json::from_str::<Value>(&text).is_ok(), "{text}");
        }
    }
}

/// Calls once, with a stream of its own.
fn attempt(relay: SocketAddr, id: u32) -> (UdpSocket, Told) {
    let socket = socket_near(relay);
    let told = call(&socket, id, Some(&format!("#!::r=live/{id},m=publish")));
    (socket, told)
}

#[test]
fn a_caller_whose_origin_is_down_is_taken_to_another_while_it_waits() {
    let dead = format!("name=dead,ip=127.0.0.1,srt={}", free_port("127.0.0.1"));
    let origin = Origin::start();
    let live = origin.flag("live");
    let relay = Ringway::start(&["--origin-check", "off", "--origin", &dead, "--origin", &live]);
    // Which of the two is picked first depends on the stream.
    for id in 1..=8 {
        let (_socket, told) = attempt(relay.srt, id);
        assert!(matches!(told, Told::Connected { .. }), "{told:?}");
    }
    let origins = get(relay.system, "/api/v1/origins").unwrap().json();
    let states: Vec<_> = origins["origins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|origin| (origin["name"].as_str().unwrap(), origin["state"].as_str().unwrap()))
        .collect();
    assert_eq!(states, [("dead", "down"), ("live", "up")]);
    assert_eq!(relay.metric("ringway_origin_up{origin=\"dead\"}"), 0.0);
    assert_eq!(get(relay.system, "/readyz").unwrap().status, 200);
}

#[test]
fn where_three_origins_of_four_are_closed_every_caller_connects_within_a_second() {
    let origin = Origin::start();
    let mut flags = vec!["--origin-check=off".to_owned(), format!("--origin={}", origin.flag("d"))];
    for name in ["a", "b", "c"] {
        let port = free_port("127.0.0.1");
        flags.push(format!("--origin=name={name},ip=127.0.0.1,srt={port}"));
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let relay = Ringway::start(&flags);
    for id in 1..=8 {
        let start = Instant::now();
        let (_socket, told) = attempt(relay.srt, id);
        assert!(matches!(told, Told::Connected { .. }), "{told:?}");
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
}

#[test]
fn an_origin_that_dies_between_two_sessions_is_found_out_before_the_next() {
    let (dying, living) = (Origin::start(), Origin::start());
    let flags = [dying.flag("dying"), living.flag("living")];
    let check = ["--origin-check", "100ms"];
    let relay = Ringway::start(&[check, ["--origin", &flags[0]], ["--origin", &flags[1]]].concat());
    let up = || {
        ["dying", "living"]
            .map(|name| relay.metric(&format!("ringway_origin_up{{origin=\"{name}\"}}")))
    };
    assert_eq!(up(), [1.0, 1.0]);
    drop(dying);
    eventually("checks find out", || (up() == [0.0, 1.0]).then_some(()));
    for id in 1..=8 {
        let (_socket, told) = attempt(relay.srt, id);
        assert!(matches!(told, Told::Connected { .. }), "{told:?}");
    }
}

#[test]
fn sessions_of_one_client_are_counted_over_all_shards_and_an_ended_one_makes_room() {
    let origin = Origin::start();
    let flags = ["--shards", "2", "--sessions-per-source", "10", "--origin", &origin.flag("a")];
    let relay = Ringway::start(&flags);
    let mut callers: Vec<_> = (1..=10).map(|id| attempt(relay.srt, id)).collect();
    assert!(callers.iter().all(|(_, told)| matches!(told, Told::Connected { .. })));
    for id in 11..=20 {
        assert_eq!(attempt(relay.srt, id).1, Told::Refused(2402));
    }
    let Some((socket, Told::Connected { listener })) = callers.pop() else { panic!("no caller") };
    Caller { socket, listener }.shutdown();
    relay.wait_for_sessions(9);
    assert!(matches!(attempt(relay.srt, 21).1, Told::Connected { .. }));
    assert_eq!(attempt(relay.srt, 22).1, Told::Refused(2402));
}

#[test]
fn handshakes_under_way_of_one_client_are_counted_over_all_shards_until_they_fail() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let origin = format!("name=a,ip=127.0.0.1,srt={}", silent.local_addr().unwrap().port());
    let flags = ["--shards", "2", "--pending-per-source", "5", "--origin", &origin];
    let relay = Ringway::start(&flags);
    let told: Vec<Told> = std::thread::scope(|scope| {
        let calls: Vec<_> = (1..=15)
            .map(|id| {
                let relay = relay.srt;
                scope.spawn(move || attempt(relay, id).1)
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let count = |code| told.iter().filter(|told| **told == Told::Refused(code)).count();
    assert_eq!((count(2402), count(2502)), (10, 5), "{told:?}");
    assert_eq!(attempt(relay.srt, 16).1, Told::Refused(2502), "its failure has made room");
}
