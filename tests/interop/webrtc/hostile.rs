//! Strangers who send to the media port what a session's client might send. None of them knows a
//! password; live sessions notice nothing, and every kind of it is counted by name.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway::protocol::stun::{Builder, Class, IntegrityKey, Method, TransactionId};

use super::{LOOPBACK, relay_to};
use crate::support::http::eventually;
use crate::support::ice;
use crate::support::process::PATIENCE;
use crate::support::random::Random;
use crate::support::webrtc_client::{Path, SSRC, WebRtcClient};
use crate::support::webrtc_origin::WebRtcOrigin;
use crate::support::webrtc_relay::WebRtcRelay;

/// A stranger on this host, and what he has heard.
struct Stranger {
    socket: UdpSocket,
}

impl Stranger {
    fn at(host: u8, relay: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 7, host), 0)).unwrap();
        socket.connect(relay).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Self { socket }
    }

    /// Sends, and sees to it that nothing comes back.
    fn say(&self, datagram: &[u8]) {
        self.socket.send(datagram).unwrap();
        let mut buffer = [0; 2048];
        assert!(self.socket.recv(&mut buffer).is_err(), "he is answered");
    }
}

/// Waits until `metric` with `label` has grown beyond `before`.
fn wait_for_count(relay: &WebRtcRelay, metric: &str, label: &str, before: f64) {
    let what = format!("{metric} with {label} is above {before}");
    eventually(&what, || (relay.sum(metric, label) > before).then_some(()));
}

const REJECTED: &str = "ringway_stun_rejected_total";
const DROPPED: &str = "ringway_drops_total";

#[test]
fn each_kind_of_forged_request_is_counted_by_name_and_answered_by_nothing() {
    let origin = WebRtcOrigin::start();
    let relay = relay_to(&origin, &[]);
    let client = WebRtcClient::publish(relay.http, "cam");
    let path = client.path(LOOPBACK, relay.media);
    path.check(true);
    let stranger = Stranger::at(1, relay.media);
    let guess = IntegrityKey::new(b"0123456789012345678901");
    let id = TransactionId([9; 12]);
    let no_username =
        Builder::new(Class::Request, Method::Binding, id).finish(Some(&client.key), true);
    let no_integrity = Builder::new(Class::Request, Method::Binding, id)
        .username(client.username.as_bytes())
        .finish(None, true);
    let mut bad_fingerprint = ice::binding_request(&client.username, &client.key, id, true);
    *bad_fingerprint.last_mut().unwrap() ^= 1;
    let forgeries = [
        ("a wrong password", ice::binding_request(&client.username, &guess, id, true)),
        ("an unknown ufrag", ice::binding_request("nobody:nowhere", &guess, id, true)),
        ("no username", no_username),
        ("no integrity", no_integrity),
        ("a wrong fingerprint", bad_fingerprint),
    ];
    let mut counted = Vec::new();
    for (name, datagram) in forgeries {
        let before = relay.sum(REJECTED, "");
        stranger.say(&datagram);
        wait_for_count(&relay, REJECTED, "", before);
        counted.push((name, reasons(&relay)));
    }
    // Each is another series than those before it.
    let total = counted.last().unwrap().1.len();
    assert_eq!(total, counted.len(), "{counted:#?}");
    path.stream_until_echo(&mut 0);
}

/// The series of rejections that are not zero.
fn reasons(relay: &WebRtcRelay) -> Vec<String> {
    let text = crate::support::http::get(relay.system, "/metrics").unwrap().body;
    let series = text.lines().filter(|line| line.starts_with(REJECTED) && !line.ends_with(" 0"));
    series.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[test]
fn what_is_not_stun_from_an_unproven_address_is_counted_and_reaches_nobody() {
    let origin = WebRtcOrigin::start();
    let relay = relay_to(&origin, &[]);
    let client = WebRtcClient::publish(relay.http, "cam");
    // The beginning of a ClientHello: DTLS 1.2, handshake, epoch 0.
    let client_hello = [&[22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20][..], &[1; 20]].concat();
    let stranger = Stranger::at(2, relay.media);
    for datagram in [client_hello.clone(), ice::media(SSRC, 1), ice::report(SSRC)] {
        let before = relay.sum(DROPPED, "");
        stranger.say(&datagram);
        wait_for_count(&relay, DROPPED, "", before);
    }
    // The client's own comes too early just as well, and harms nothing.
    let path = client.path(LOOPBACK, relay.media);
    path.send(&client_hello);
    path.check(true);
    path.stream_until_echo(&mut 0);
    assert_eq!(origin.session(&client.ufrag).unwrap().sources.len(), 1);
}

#[test]
fn a_flood_of_guesses_and_forgeries_costs_live_sessions_nothing_and_no_memory() {
    let origin = WebRtcOrigin::start();
    let relay = relay_to(&origin, &["--shards", "2"]);
    let clients: Vec<_> =
        (0..4).map(|number| WebRtcClient::publish(relay.http, &format!("cam{number}"))).collect();
    let paths: Vec<_> = clients.iter().map(|client| client.path(LOOPBACK, relay.media)).collect();
    for path in &paths {
        path.check(true);
    }
    let captured = paths[0].request(true);
    paths[0].send(&captured);
    let stop = AtomicBool::new(false);
    let (before, sent, flood) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(relay.media, &clients[0], &captured, &stop));
        // By then every receive buffer has been written to, and its page is resident.
        eventually("the flood has begun", || (relay.sum(REJECTED, "") > 20_000.0).then_some(()));
        let before = resident_kib(relay.program.id());
        let streams: Vec<_> = paths.iter().map(|path| scope.spawn(|| stream(path))).collect();
        let sent: Vec<_> = streams.into_iter().map(|stream| stream.join().unwrap()).collect();
        stop.store(true, Ordering::Relaxed);
        (before, sent, flood.join().unwrap())
    });
    // A machine that is busy with other things may leave a queue alone for so long that the kernel drops
    // from it. That is the kernel's count; what the relay gets it forwards.
    let overflows = relay.sum("ringway_receive_queue_overflows_total", "");
    for (sent, back) in sent {
        let lost = sent - back;
        println!("{lost} of {sent} lost, {overflows} dropped by the kernel, {flood} of the flood");
        assert!(f64::from(lost) <= overflows, "{lost} of {sent} lost, {overflows} by the kernel");
        assert!(lost <= sent / 5, "{lost} of {sent} lost, {overflows} by the kernel");
    }
    assert!(flood >= 100_000, "{flood} datagrams are no flood");
    for (metric, reason) in [
        (REJECTED, "unknown_ufrag"),
        (REJECTED, "bad_integrity"),
        (REJECTED, "replayed"),
        (DROPPED, "unproven_address"),
    ] {
        let counted = relay.sum(metric, reason);
        assert!(counted >= 1000.0, "{counted} of {flood} counted as {reason}");
    }
    let after = resident_kib(relay.program.id());
    assert!(after <= before + 2048, "resident memory: {before} KiB, then {after} KiB");
    assert_eq!(relay.sessions().len(), 4);
}

/// Sends as fast as 50,000 a second, for as long as told: guessed ufrags, forged and replayed requests,
/// early DTLS and media. Returns how many.
fn flood(relay: SocketAddr, client: &WebRtcClient, captured: &[u8], stop: &AtomicBool) -> u32 {
    let strangers: Vec<_> = (1..=16).map(|host| Stranger::at(host, relay)).collect();
    let mut random = Random::new(50_000);
    let guess = IntegrityKey::new(b"0123456789012345678901");
    let forged = ice::binding_request(&client.username, &guess, TransactionId([3; 12]), true);
    let mut guessed =
        ice::binding_request("aaaaaaaa:bbbbbbbb", &guess, TransactionId([4; 12]), true);
    let media = ice::media(SSRC, 1);
    let hello = [22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    let begun = Instant::now();
    let mut sent = 0;
    let (_never, nothing) = std::sync::mpsc::channel::<()>();
    while !stop.load(Ordering::Relaxed) && begun.elapsed() < PATIENCE {
        for _ in 0..500 {
            let stranger = &strangers[usize::try_from(random.below(16)).unwrap()];
            // Another ufrag in place: header and attribute head are 24 bytes.
            let letters = random.next().to_be_bytes().map(|byte| b'a' + byte % 26);
            guessed[24..32].copy_from_slice(&letters);
            let datagram: &[u8] = match random.below(8) {
                0 => &forged,
                1 => captured,
                2 => &media,
                3 => &hello,
                _ => &guessed,
            };
            // A full queue of the relay is part of a flood.
            let _ = stranger.socket.send(datagram);
            sent += 1;
        }
        let due = Duration::from_micros(u64::from(sent) * 20);
        if let Some(ahead) = due.checked_sub(begun.elapsed()) {
            let _ = nothing.recv_timeout(ahead);
        }
    }
    sent
}

/// Three seconds of media at 50 packets a second, and how much of it came back.
fn stream(path: &Path<'_>) -> (u32, u32) {
    let begun = Instant::now();
    let (mut sent, mut back) = (0, 0);
    while begun.elapsed() < Duration::from_secs(3) {
        sent += 1;
        path.send(&ice::media(SSRC, sent));
        let next = begun + sent * Duration::from_millis(20);
        while let Some(left) = next.checked_duration_since(Instant::now()) {
            back += u32::from(path.receive_media(left).is_some());
        }
    }
    while back < sent && path.receive_media(Duration::from_secs(2)).is_some() {
        back += 1;
    }
    (sent, back)
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
