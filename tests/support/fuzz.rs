//! What must hold for any bytes. The fuzz targets call these functions, and so does the replay of
//! their corpus.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringway::protocol::srt::handshake::{LEN, patch};
use ringway::protocol::srt::{ControlType, Extensions, Handshake, HandshakeKind, Header, Kind};
use ringway::protocol::srt::{SocketId, StreamId, control, header};
use ringway::protocol::stream_url::{DEFAULT_VHOST, StreamKey, Vhosts};

/// Headers and control packets: every reader agrees with [`Header::parse`] about what a packet is.
pub(crate) fn fuzz_header(bytes: &[u8]) {
    let header = Header::parse(bytes);
    assert_eq!(header.is_ok(), bytes.len() >= Header::LEN);
    let kind = header.ok().map(|header| header.kind);

    let sequence = header::sequence(bytes);
    assert_eq!(sequence.is_some(), kind == Some(Kind::Data));
    assert!(sequence.is_none_or(|number| number < 1 << 31));
    assert!(!header::is_retransmission(bytes) || kind == Some(Kind::Data));

    let ack = control::Ack::parse(bytes);
    assert_eq!(ack.is_some(), kind == Some(Kind::Control(ControlType::Ack)));
    assert!(ack.is_none_or(|ack| ack.rtt_us.is_some() == (bytes.len() >= 28)));
    let ackack = control::ackack_number(bytes);
    assert_eq!(ackack.is_some(), kind == Some(Kind::Control(ControlType::AckAck)));
    assert!(!header::is_of_filter(bytes) || kind == Some(Kind::Data));

    if let Ok(Header { timestamp, destination, .. }) = header {
        let kind = Kind::Control(ControlType::Shutdown);
        let goodbye = Header { kind, timestamp, destination };
        assert_eq!(Header::parse(&control::shutdown(destination, timestamp)), Ok(goodbye));
    }
}

/// Handshakes: what the relay makes of one reads back, and a patch changes its own field alone.
pub(crate) fn fuzz_handshake(bytes: &[u8]) {
    if let Ok(extensions) = Extensions::parse(bytes)
        && let Some(text) = extensions.stream_id
    {
        assert!((1..=StreamId::MAX).contains(&text.len()) && !text.ends_with('\0'));
        fuzz_stream_id(text.as_bytes());
    }
    let Ok(handshake) = Handshake::parse(bytes) else {
        assert_patches(bytes, false);
        return;
    };
    assert_patches(bytes, true);
    assert_eq!(HandshakeKind::from_wire(handshake.kind.wire()), handshake.kind);

    let peer = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let response = read(&handshake.induction_response(7, 4, 9, peer));
    assert_eq!((response.destination, response.socket), (handshake.socket, handshake.socket));
    assert_eq!((response.version, response.extension), (5, Handshake::MAGIC));
    assert!(response.mtu <= handshake.mtu && response.mtu <= 1500);

    let request = read(&handshake.induction_request(7, peer));
    assert_eq!((request.destination, request.cookie), (SocketId(0), 0));
    assert_eq!(request.initial_sequence, handshake.initial_sequence);
    assert_eq!(read(&request.induction_request(7, peer)), request);

    let rejection = read(&handshake.rejection(7, 2404));
    assert_eq!(rejection.kind, HandshakeKind::Rejection(2404));
    assert_eq!((rejection.destination, rejection.version), (handshake.socket, handshake.version));
}

fn read(packet: &[u8; LEN]) -> Handshake {
    Handshake::parse(packet).expect("the relay reads what it writes")
}

/// Patches a copy of `bytes` field by field. Each must change its field, if any, and nothing else.
fn assert_patches(bytes: &[u8], is_handshake: bool) {
    type Patch = fn(&mut [u8]) -> bool;
    let table: [(std::ops::Range<usize>, Patch); 5] = [
        (8..12, |packet| patch::add_to_timestamp(packet, 0xffff_ff00)),
        (12..16, |packet| patch::destination(packet, SocketId(7))),
        (28..32, |packet| patch::clamp_mtu(packet, 1400)),
        (44..48, |packet| patch::cookie(packet, 0xcafe_babe)),
        (48..64, |packet| patch::peer_ip(packet, Ipv4Addr::LOCALHOST.into())),
    ];
    for (field, patch) in table {
        let mut patched = bytes.to_vec();
        assert_eq!(patch(&mut patched), is_handshake);
        let differs = |at: &usize| patched.get(*at) != bytes.get(*at);
        assert_eq!(patched.len(), bytes.len());
        let stray =
            (0..bytes.len()).filter(differs).find(|at| !is_handshake || !field.contains(at));
        assert_eq!(stray, None, "a patch of {field:?} changed another byte");
    }
}

/// Stream IDs: bounded, printable, and the key of a key's own path is the key.
pub(crate) fn fuzz_stream_id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(id) = StreamId::parse(text) else {
        return;
    };
    assert!(text.len() <= StreamId::MAX && id.path.len() <= text.len());
    assert!(!id.path.contains('?'), "a query may hold secrets");

    let vhosts = Vhosts::new(["v.example.com".to_owned()]);
    let Ok(key) = id.key(&vhosts) else { return };
    assert!(key.as_str().len() <= StreamKey::MAX);
    assert!(!key.as_str().contains(char::is_control));
    let (vhost, path) = key.as_str().split_once('/').expect("a vhost and a path");
    assert!([DEFAULT_VHOST, "v.example.com"].contains(&vhost));
    assert!(path.split('/').all(|segment| !segment.is_empty()) && path.contains('/'));
    assert_eq!(StreamKey::canonical(vhost, path), Ok(key.clone()));

    let spelled_out = StreamId::parse(&format!("#!::vhost={vhost},r={path}"));
    if !path.contains(',')
        && let Ok(id) = spelled_out
    {
        assert_eq!(id.key(&vhosts), Ok(key));
    }
}
