//! One session's trouble is its own.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::support::caller::{Caller, Origin, Told, call, socket_near};
use crate::support::http;
use crate::support::packets;
use crate::support::process::Ringway;

/// Sends numbered media at 1,000 datagrams a second for as long as `until` is not reached, and counts the echoes.
fn stream(caller: &Caller, until: Instant) -> (u32, u32) {
    caller.socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let (mut sent, mut back) = (0, 0);
    let mut buffer = [0; 2048];
    let mut hear = |back: &mut u32| {
        while let Ok(length) = caller.socket.recv(&mut buffer) {
            *back += u32::from(length > 16 && buffer[0] & 0x80 == 0);
        }
    };
    while Instant::now() < until {
        sent += 1;
        caller.send(sent, &[0x47; 1316]);
        hear(&mut back);
    }
    let end = Instant::now() + Duration::from_secs(5);
    while back < sent && Instant::now() < end {
        hear(&mut back);
    }
    (sent, back)
}

#[test]
fn a_silent_origin_a_lost_conclusion_and_a_slow_client_cost_other_sessions_nothing() {
    let living = Origin::start();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let relay = Ringway::start(&["--shards=1", "--origin", &living.flag("living")]);
    let steady = Caller::connect(relay.srt, 100, "#!::r=live/steady,m=publish");
    // Without a session it is the next that a stream is given.
    register_silent(&relay, &silent);
    let begun = Instant::now();
    let trouble = std::thread::spawn({
        let address = relay.srt;
        move || {
            // Callers whose origin never answers, and one that waits 300 ms before each of its own answers.
            let slow = std::thread::spawn(move || slow_call(address));
            let told: Vec<_> = (0..4)
                .map(|i| {
                    let stream = format!("#!::r=live/trouble{i},m=publish");
                    call(&socket_near(address), 500 + i, Some(&stream))
                })
                .collect();
            (told, slow.join().unwrap())
        }
    });
    let (sent, back) = stream(&steady, begun + Duration::from_secs(6));
    let (told, slow) = trouble.join().unwrap();
    assert_eq!(back, sent, "media of an unrelated session");
    assert!(told.contains(&Told::Refused(2502)), "somebody met the silent origin: {told:?}");
    assert!(matches!(slow, Told::Connected { .. } | Told::Refused(2502)), "{slow:?}");
}

/// Registers an origin that listens and never answers.
fn register_silent(relay: &Ringway, silent: &UdpSocket) {
    let port = silent.local_addr().unwrap().port();
    let body = format!(
        "{{\"ip\":\"127.0.0.1\",\"server\":\"silent\",\"service\":\"1\",\"pid\":\"1\",\
         \"rtmp\":[\"1935\"],\"srt\":[\"{port}\"]}}"
    );
    let reply = http::request(relay.system, "POST", "/api/v1/srs/register", &[], &body).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.body);
}

/// A caller with a round trip of 300 ms: it repeats its conclusion before it can have the answer.
fn slow_call(relay: std::net::SocketAddr) -> Told {
    let socket = socket_near(relay);
    let (_never, far_away) = std::sync::mpsc::channel::<()>();
    socket.send(&packets::induction(900, 1000)).unwrap();
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).unwrap();
    let cookie = packets::Fields::read(&buffer[..length]).cookie;
    let conclusion = packets::conclusion(900, 1000, cookie, Some("#!::r=live/slow,m=publish"));
    for _ in 0..2 {
        let _ = far_away.recv_timeout(Duration::from_millis(300));
        socket.send(&conclusion).unwrap();
    }
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let length = socket.recv(&mut buffer).unwrap();
    match packets::Fields::read(&buffer[..length]) {
        answer if answer.kind == packets::CONCLUSION => Told::Connected { listener: answer.socket },
        answer => Told::Refused(answer.kind),
    }
}

#[test]
fn twenty_callers_from_one_client_address_and_port_are_twenty_sessions() {
    let origin = Origin::start();
    let relay = Ringway::start(&["--origin", &origin.flag("a")]);
    let socket = socket_near(relay.srt);
    for i in 0..20 {
        let stream = format!("#!::r=live/cam{i},m=publish");
        assert!(matches!(call(&socket, 700 + i, Some(&stream)), Told::Connected { .. }), "{i}");
    }
    assert_eq!(relay.wait_for_sessions(20).len(), 20);
}

#[test]
fn an_ipv4_client_reaches_an_ipv6_origin() {
    let origin = Origin::start_at("[::1]:0");
    let relay = Ringway::start(&["--origin", &origin.flag("a")]);
    let caller = Caller::connect(relay.srt, 7, "#!::r=live/cam,m=publish");
    caller.send(1, b"over both families");
    let mut buffer = [0; 2048];
    assert_eq!(caller.socket.recv(&mut buffer).unwrap(), 16 + 18);
}

#[test]
fn play_follows_publish_and_streams_are_shared_between_two_origins() {
    let (a, b) = (Origin::start(), Origin::start());
    let relay = Ringway::start(&["--origin", &a.flag("a"), "--origin", &b.flag("b")]);
    let mut callers = Vec::new();
    for i in 0..10 {
        callers.push(Caller::connect(relay.srt, 10 + i, &format!("#!::r=live/s{i},m=publish")));
        callers.push(Caller::connect(relay.srt, 50 + i, &format!("#!::r=live/s{i},m=request")));
    }
    let sessions = relay.wait_for_sessions(20);
    let origin_of = |stream: u64, role: &str| {
        let key = format!("__defaultVhost__/live/s{stream}");
        let session = sessions.iter().find(|s| s["stream"] == key.as_str() && s["role"] == role);
        session.unwrap()["origin"].as_str().unwrap().to_owned()
    };
    let mut of_a = 0;
    for stream in 0..10 {
        assert_eq!(origin_of(stream, "publish"), origin_of(stream, "play"), "stream {stream}");
        of_a += u32::from(origin_of(stream, "publish") == "a");
    }
    assert!((3..=7).contains(&of_a), "{of_a} of 10 streams on one of two origins");
    let streams = http::get(relay.system, "/api/v1/streams").unwrap().json();
    assert_eq!(streams["streams"].as_array().unwrap().len(), 10);
}

#[test]
fn a_client_that_hits_the_second_address_of_a_host_is_answered_from_it() {
    let origin = Origin::start();
    let relay = Ringway::listening("0", &["--origin", &origin.flag("a")]);
    let address = std::net::SocketAddr::from(([127, 0, 0, 2], relay.srt.port()));
    // The socket is connected, so an answer from another address than the one asked never reaches it.
    let caller = Caller::connect(address, 7, "#!::r=live/cam,m=publish");
    caller.send(1, b"to the second address");
    let mut buffer = [0; 2048];
    assert_eq!(caller.socket.recv(&mut buffer).unwrap(), 16 + 21);
}

#[test]
fn a_dead_origin_ends_its_sessions_so_that_clients_come_again() {
    let origin = Origin::start();
    let relay = Ringway::start(&["--origin", &origin.flag("a")]);
    let caller = Caller::connect(relay.srt, 7, "#!::r=live/cam,m=publish");
    relay.wait_for_sessions(1);
    drop(origin);
    let begun = Instant::now();
    let mut buffer = [0; 2048];
    let goodbye = http::eventually("the client gets SHUTDOWN", || {
        caller.send(1, b"anybody there?");
        let length = caller.socket.recv(&mut buffer).ok()?;
        buffer[..length].starts_with(&[0x80, 5]).then(|| begun.elapsed())
    });
    assert!(goodbye < Duration::from_secs(3), "took {goodbye:?}");
}
