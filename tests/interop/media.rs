//! Media through the relay, byte for byte.

use std::sync::mpsc::channel;
use std::time::Duration;

use crate::support::process::{Program, Ringway, ffmpeg, free_port, transmit, wait_for_listener};
use crate::support::random::Random;

const CHUNK: usize = 1316;
const PATTERN: &str = "testsrc=size=320x180:rate=25";

/// A transport stream as far as SRT can tell: packets of 188 bytes that begin with the sync byte, else noise.
fn transport_stream(chunks: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut stream = Vec::with_capacity(chunks * CHUNK);
    for _ in 0..chunks * 7 {
        stream.push(0x47);
        stream.extend((0..187).map(|_| random.next() as u8));
    }
    stream
}

/// Feeds a stream at about 5 Mbit/s: as live media comes, and slow enough for every default buffer. More
/// follows, because both programs handle their files in blocks.
fn feed(program: &mut Program, stream: &[u8]) {
    let (_never, tick) = channel::<()>();
    for chunk in stream.chunks(CHUNK).chain([[0x47; CHUNK].as_slice(); 100]) {
        program.feed(chunk);
        let _ = tick.recv_timeout(Duration::from_millis(2));
    }
}

/// Reads as much as `stream` holds, and whether it is that.
fn arrives(program: &mut Program, stream: &[u8]) -> Result<(), String> {
    let received = program.read(stream.len());
    if received.starts_with(stream) {
        return Ok(());
    }
    let same = received.iter().zip(stream).take_while(|(a, b)| a == b).count();
    Err(format!("{} of {} bytes arrived, the first {same} right", received.len(), stream.len()))
}

fn listener(ip: &str, port: u16, options: &str) -> String {
    format!("srt://{ip}:{port}?mode=listener{options}")
}

fn relay_for(port: u16, arguments: &[&str]) -> Ringway {
    let origin = format!("name=a,ip=127.0.0.1,srt={port}");
    let mut all = vec!["--origin", &origin];
    all.extend(arguments);
    Ringway::start(&all)
}

/// Publishes a stream through the relay: whether it came out at the origin, and how the API showed the session.
fn publish(engine: &str, origin: &str, caller: &str) -> (Result<(), String>, serde_json::Value) {
    let port = free_port("127.0.0.1");
    let mut sink = transmit(&listener("127.0.0.1", port, origin), "file://con");
    sink.wait_for("listen...");
    let relay = relay_for(port, &["--engine", engine]);
    let target =
        format!("srt://{}?mode=caller&streamid=#!::r=live/cam,m=publish{caller}", relay.srt);
    let mut source = transmit("file://con", &target);
    source.wait_for("SRT target connected");
    let session = relay.wait_for_sessions(1).pop().unwrap();
    let stream = transport_stream(1000, 1);
    feed(&mut source, &stream);
    (arrives(&mut sink, &stream), session)
}

#[test]
fn a_transport_stream_published_by_libsrt_arrives_byte_for_byte_on_each_engine() {
    for engine in ["uring", "mmsg", "tokio-uring"] {
        let (arrived, session) = publish(engine, "", "");
        assert_eq!(arrived, Ok(()), "{engine}");
        assert_eq!(session["stream"], "__defaultVhost__/live/cam");
        assert_eq!(
            (session["role"].as_str(), session["origin"].as_str()),
            (Some("publish"), Some("a"))
        );
    }
}

#[test]
fn a_transport_stream_played_by_libsrt_arrives_byte_for_byte() {
    let port = free_port("127.0.0.1");
    let mut source = transmit("file://con", &listener("127.0.0.1", port, ""));
    source.wait_for("listen...");
    let relay = relay_for(port, &[]);
    let url = format!("srt://{}?mode=caller&streamid=#!::r=live/cam,m=request", relay.srt);
    let mut sink = transmit(&url, "file://con");
    assert_eq!(relay.wait_for_sessions(1)[0]["role"], "play");
    let stream = transport_stream(1000, 2);
    feed(&mut source, &stream);
    assert_eq!(arrives(&mut sink, &stream), Ok(()));
}

#[test]
fn a_passphrase_keeps_the_key_length_that_the_origin_asks_for() {
    for (bytes, shown) in [(16, "AES-128"), (24, "AES-192"), (32, "AES-256")] {
        let origin = format!("&passphrase=a-long-secret&pbkeylen={bytes}");
        let (arrived, session) = publish("auto", &origin, "&passphrase=a-long-secret");
        assert_eq!(arrived, Ok(()), "{bytes}");
        assert_eq!(session["srt"]["encryption"], shown);
    }
}

#[test]
fn an_ipv6_client_reaches_an_ipv4_origin() {
    let port = free_port("127.0.0.1");
    let mut sink = transmit(&listener("127.0.0.1", port, ""), "file://con");
    sink.wait_for("listen...");
    let origin = format!("name=a,ip=127.0.0.1,srt={port}");
    let relay = Ringway::listening("[::1]:0", &["--origin", &origin]);
    let url = format!("srt://[::1]:{}?mode=caller&streamid=live/cam", relay.srt.port());
    let mut source = transmit("file://con", &url);
    source.wait_for("SRT target connected");
    let stream = transport_stream(300, 3);
    feed(&mut source, &stream);
    assert_eq!(arrives(&mut sink, &stream), Ok(()));
}

#[test]
fn ffmpeg_publishes_and_ffmpeg_plays_through_the_relay() {
    // ffmpeg is the origin as well: it listens, takes one publisher, and hands on what it gets.
    let port = free_port("127.0.0.1");
    let url = format!("srt://127.0.0.1:{port}?mode=listener");
    let mut origin = ffmpeg(&["-i", &url, "-c", "copy", "-f", "mpegts", "-"]);
    wait_for_listener(port);
    let relay = relay_for(port, &[]);
    let target = format!("srt://{}?mode=caller&streamid=#!::r=live/cam,m=publish", relay.srt);
    let mut publisher = ffmpeg(&[
        "-re",
        "-f",
        "lavfi",
        "-i",
        PATTERN,
        "-c:v",
        "mpeg2video",
        "-f",
        "mpegts",
        &target,
    ]);
    let got = origin.read(200_000);
    assert!(got.len() >= 200_000, "{} bytes; {}", got.len(), publisher.said());
    assert!(got.chunks(188).take(1000).all(|packet| packet[0] == 0x47));

    let play_port = free_port("127.0.0.1");
    let play_url = format!("srt://127.0.0.1:{play_port}?mode=listener");
    let _source = ffmpeg(&[
        "-re",
        "-f",
        "lavfi",
        "-i",
        PATTERN,
        "-c:v",
        "mpeg2video",
        "-f",
        "mpegts",
        &play_url,
    ]);
    wait_for_listener(play_port);
    let relay = relay_for(play_port, &[]);
    let url = format!("srt://{}?mode=caller&streamid=#!::r=live/cam,m=request", relay.srt);
    let mut player = ffmpeg(&["-i", &url, "-c", "copy", "-f", "mpegts", "-"]);
    let got = player.read(100_000);
    assert!(got.len() >= 100_000, "{} bytes; {}", got.len(), player.said());
}

#[test]
fn a_session_ends_when_its_client_does_and_its_end_line_says_what_it_carried() {
    let port = free_port("127.0.0.1");
    let mut sink = transmit(&listener("127.0.0.1", port, ""), "file://con");
    sink.wait_for("listen...");
    let mut relay = relay_for(port, &[]);
    let target = format!("srt://{}?streamid=#!::r=live/cam,m=publish", relay.srt);
    let _publisher = ffmpeg(&[
        "-re",
        "-f",
        "lavfi",
        "-i",
        PATTERN,
        "-t",
        "1",
        "-c:v",
        "mpeg2video",
        "-f",
        "mpegts",
        &target,
    ]);
    let line = relay.program.wait_for("session ended");
    assert!(line.contains("client_shutdown"), "{line}");
    assert!(line.contains("__defaultVhost__/live/cam"), "{line}");
    relay.wait_for_no_sessions();
}
