//! What must hold for any bytes. The fuzz targets call these functions, and so does the replay of
//! their corpus.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ringway::protocol::demux;
use ringway::protocol::rtp::{RtcpHeader, RtpHeader};
use ringway::protocol::srt::handshake::{LEN, patch};
use ringway::protocol::srt::{ControlType, Extensions, Handshake, HandshakeKind, Header, Kind};
use ringway::protocol::srt::{SocketId, StreamId, control, header};
use ringway::protocol::stream_url::{DEFAULT_VHOST, StreamKey, Vhosts};
use ringway::protocol::stun::{Builder, Check, Class, IntegrityKey, Message, Method};
use ringway::protocol::stun::{TransactionId, with_mapped_address};

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

/// STUN: what is read agrees with a reader of its own kind, and a rewritten response is what the
/// origin would have written. RTP and the kinds of datagrams besides.
pub(crate) fn fuzz_stun(bytes: &[u8]) {
    let is_rtp = matches!(demux::Kind::of(bytes), demux::Kind::Rtp | demux::Kind::Rtcp);
    assert_eq!(RtpHeader::parse(bytes).is_ok(), is_rtp && bytes.len() >= RtpHeader::LEN);
    assert_eq!(RtcpHeader::parse(bytes).is_ok(), is_rtp && bytes.len() >= RtcpHeader::LEN);

    let key = IntegrityKey::new(b"origpwd0123456789abcdefghijklmn1");
    if let Ok(message) = Message::parse(bytes) {
        assert_eq!(demux::Kind::of(bytes), demux::Kind::Stun);
        assert_read(&message);
        assert_rewritten(&message, &key);
    }
    // A fuzzer finds no HMAC-SHA1, so the same attributes come once more with right codes. What is
    // longer than any UDP datagram could overflow the builder.
    let body = bytes.get(20..).unwrap_or_default();
    let body = &body[..body.len().min(60_000)];
    for fingerprint in [false, true] {
        let mut builder = Builder::new(Class::Success, Method::Binding, TransactionId([7; 12]));
        for (kind, value) in attributes(body) {
            builder = builder.attribute(kind, value);
        }
        let response = builder.finish(Some(&key), fingerprint);
        if let Ok(message) = Message::parse(&response) {
            assert_read(&message);
            assert_rewritten(&message, &key);
        }
    }
}

/// The attributes of a message's body, as far as they are whole.
fn attributes(mut body: &[u8]) -> Vec<(u16, &[u8])> {
    let mut attributes = Vec::new();
    while let [k0, k1, l0, l1, rest @ ..] = body {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let Some(value) = rest.get(..length) else { break };
        attributes.push((u16::from_be_bytes([*k0, *k1]), value));
        body = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    attributes
}

/// What `message` says is what its attributes say, up to the first integrity code.
fn assert_read(message: &Message<'_>) {
    let all = attributes(&message.as_bytes()[20..]);
    let before = before_integrity(&all);
    let first = |kind| before.iter().find(|attribute| attribute.0 == kind).map(|it| it.1);
    assert_eq!(message.username(), first(0x0006));
    assert!(message.username().is_none_or(|name| name.len() <= Message::USERNAME_MAX));
    assert_eq!(message.use_candidate(), first(0x0025).is_some());
    assert!(message.error_code().is_none_or(|code| (300..700).contains(&code)));
    assert!(message.error_code().is_none() || first(0x0009).is_some());
    let is_last = all.last().is_some_and(|last| last.0 == 0x8028);
    assert_eq!(message.fingerprint() != Check::Absent, is_last);
    if let Some(address) = message.mapped_address() {
        let builder = Builder::new(Class::Success, Method::Binding, message.transaction());
        let again = builder.xor_mapped_address(address).finish(None, false);
        let value = first(0x0020).expect("an address comes from an attribute");
        assert_eq!(again[25..], value[1..], "the first byte of the value is reserved");
    }
}

fn before_integrity<'a>(all: &'a [(u16, &'a [u8])]) -> &'a [(u16, &'a [u8])] {
    let end = all.iter().position(|attribute| [0x0008, 0x001C].contains(&attribute.0));
    &all[..end.unwrap_or(all.len())]
}

fn assert_rewritten(message: &Message<'_>, key: &IntegrityKey) {
    let all = attributes(&message.as_bytes()[20..]);
    let is_address = |attribute: &&(u16, &[u8])| [0x0001, 0x0020].contains(&attribute.0);
    let is_candidate = (message.method(), message.class()) == (Method::Binding, Class::Success)
        && message.integrity(key) == Check::Right
        && message.fingerprint() != Check::Wrong
        && before_integrity(&all).iter().any(|attribute| is_address(&attribute));
    let clients: [SocketAddr; 2] =
        [(Ipv4Addr::new(203, 0, 113, 7), 54321).into(), (Ipv6Addr::LOCALHOST, 7).into()];
    for client in clients {
        let mut out = vec![0; message.as_bytes().len() + 20];
        let len = with_mapped_address(message, client, key, &mut out);
        assert_eq!(len.is_some(), is_candidate);
        let Some(len) = len else { continue };
        let rewritten = Message::parse(&out[..len]).expect("the relay reads what it writes");
        assert_eq!(rewritten.mapped_address(), Some(client));
        assert_eq!(rewritten.integrity(key), Check::Right);
        assert_eq!(rewritten.fingerprint(), message.fingerprint());
        assert_eq!(rewritten.transaction(), message.transaction());
        assert_eq!(rewritten.username(), message.username());
        let others = |all: &[(u16, &[u8])]| -> Vec<(u16, Vec<u8>)> {
            let kept = before_integrity(all).iter().filter(|it| !is_address(it));
            kept.map(|(kind, value)| (*kind, value.to_vec())).collect()
        };
        assert_eq!(others(&attributes(&out[20..len])), others(&all));
    }
}
