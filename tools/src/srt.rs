//! SRT packets that callers, listeners and live receivers send (draft-sharabayko-srt).
//!
//! The relay's own protocol module reads packets and makes the few that a relay needs. This module
//! makes the rest: what the two ends of a connection send. The layouts follow libsrt, whose bytes
//! the tests compare with.

use std::net::IpAddr;

use ringway::protocol::srt::{Handshake, SocketId};

/// Bytes in front of the payload of a data packet.
pub const HEADER_LEN: usize = 16;
/// The largest UDP payload on a path with an MTU of 1,500.
pub const DATAGRAM_MAX: usize = 1_472;
/// Sequence numbers have 31 bits.
pub const SEQUENCE_MASK: u32 = 0x7FFF_FFFF;

/// What a caller says about itself in its handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its end of the connection.
    pub socket: SocketId,
    /// Sequence number of its first data packet.
    pub initial_sequence: u32,
    /// `streamid`; at most 512 bytes. Empty: the block is left out.
    pub stream_id: String,
    /// Receiver delay in the HSREQ block; the sender delay is 0, as in libsrt's live defaults.
    pub latency_ms: u16,
    /// The listener as dialled.
    pub listener: IpAddr,
}

impl Caller {
    /// The first packet: 64 bytes, version 4, no extensions.
    #[must_use]
    pub fn induction(&self, timestamp: u32) -> Vec<u8> {
        self.fixed_part(timestamp, 4, DATAGRAM_SOCKET, INDUCTION, 0)
    }

    /// The second packet, with the listener's cookie: HSREQ, then the stream ID.
    #[must_use]
    pub fn conclusion(&self, timestamp: u32, cookie: u32) -> Vec<u8> {
        let extension = if self.stream_id.is_empty() { HAS_HSREQ } else { HAS_HSREQ | HAS_CONFIG };
        let mut packet = self.fixed_part(timestamp, 5, extension, CONCLUSION, cookie);
        push_block(&mut packet, BLOCK_HSREQ, &hs_words(FLAGS, self.latency_ms, 0));
        if !self.stream_id.is_empty() {
            push_block(&mut packet, BLOCK_SID, &reversed_words(self.stream_id.as_bytes()));
        }
        packet
    }

    fn fixed_part(
        &self,
        timestamp: u32,
        version: u32,
        extension: u32,
        kind: u32,
        cookie: u32,
    ) -> Vec<u8> {
        let mut packet = Vec::with_capacity(64 + 16 + 4 + 512);
        push_words(
            &mut packet,
            &[
                HANDSHAKE,
                0,
                timestamp,
                0,
                version,
                extension,
                self.initial_sequence,
                MTU,
                FLOW_WINDOW,
                kind,
            ],
        );
        push_words(&mut packet, &[self.socket.0, cookie]);
        packet.extend_from_slice(&peer_ip(self.listener));
        packet
    }
}

/// A listener's answer to `conclusion`, with HSRSP: the connection is open.
#[must_use]
pub fn conclusion_response(
    conclusion: &Handshake,
    listener: SocketId,
    timestamp: u32,
    latency_ms: u16,
    caller: IpAddr,
) -> Vec<u8> {
    let mut packet = Vec::with_capacity(80);
    push_words(&mut packet, &[HANDSHAKE, 0, timestamp, conclusion.socket.0, 5, HAS_HSREQ]);
    push_words(
        &mut packet,
        &[conclusion.initial_sequence, conclusion.mtu.min(MTU), FLOW_WINDOW, CONCLUSION],
    );
    push_words(&mut packet, &[listener.0, conclusion.cookie]);
    packet.extend_from_slice(&peer_ip(caller));
    push_block(&mut packet, BLOCK_HSRSP, &hs_words(FLAGS, latency_ms, latency_ms));
    packet
}

/// The header of a clear data packet that is a whole message of its own.
#[must_use]
pub fn data_header(
    sequence: u32,
    message: u32,
    timestamp: u32,
    destination: SocketId,
) -> [u8; HEADER_LEN] {
    packet([sequence & SEQUENCE_MASK, SINGLE | (message & MESSAGE_MASK), timestamp, destination.0])
}

/// What a live receiver reports in a full ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullAck {
    /// Counts from 1; the ACKACK repeats it.
    pub number: u32,
    /// The sequence number after the last one received.
    pub next_sequence: u32,
    /// Smoothed round trip.
    pub rtt_us: u32,
    /// Its variance.
    pub rtt_variance_us: u32,
    /// Packets per second of the last interval.
    pub packets_per_second: u32,
}

impl FullAck {
    /// 44 bytes: header and seven words.
    #[must_use]
    pub fn packet(&self, timestamp: u32, destination: SocketId) -> [u8; 44] {
        let bytes_per_second = self.packets_per_second.saturating_mul(1_316 + 16);
        packet([
            ACK,
            self.number,
            timestamp,
            destination.0,
            self.next_sequence & SEQUENCE_MASK,
            self.rtt_us,
            self.rtt_variance_us,
            FLOW_WINDOW,
            self.packets_per_second,
            self.packets_per_second,
            bytes_per_second,
        ])
    }
}

/// Answers the full ACK with this number. libsrt appends a zero word.
#[must_use]
pub fn ackack(number: u32, timestamp: u32, destination: SocketId) -> [u8; 20] {
    packet([ACKACK, number, timestamp, destination.0, 0])
}

/// Says "still here" after a second without anything else to send. libsrt appends a zero word.
#[must_use]
pub fn keepalive(timestamp: u32, destination: SocketId) -> [u8; 20] {
    packet([KEEPALIVE, 0, timestamp, destination.0, 0])
}

/// The `number`th 32-bit word of a packet.
#[must_use]
pub fn word(packet: &[u8], number: usize) -> Option<u32> {
    packet.get(number * 4..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Whether `sequence` comes after `than`, modulo 2^31.
#[must_use]
pub fn is_after(sequence: u32, than: u32) -> bool {
    let distance = sequence.wrapping_sub(than) & SEQUENCE_MASK;
    distance != 0 && distance < SEQUENCE_MASK / 2
}

fn packet<const WORDS: usize, const LEN: usize>(words: [u32; WORDS]) -> [u8; LEN] {
    const { assert!(LEN == WORDS * 4) };
    let mut packet = [0; LEN];
    for (place, word) in packet.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *place = word.to_be_bytes();
    }
    packet
}

fn push_words(packet: &mut Vec<u8>, words: &[u32]) {
    packet.extend(words.iter().flat_map(|word| word.to_be_bytes()));
}

/// An extension block: type, length in words, content, which is whole words.
fn push_block(packet: &mut Vec<u8>, kind: u16, content: &[u8]) {
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&u16::try_from(content.len() / 4).unwrap_or(u16::MAX).to_be_bytes());
    packet.extend_from_slice(content);
}

fn hs_words(flags: u32, receiver_delay_ms: u16, sender_delay_ms: u16) -> Vec<u8> {
    let delays = u32::from(receiver_delay_ms) << 16 | u32::from(sender_delay_ms);
    [VERSION, flags, delays].iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Strings travel in words of four bytes, each reversed, the last one padded with zeros.
fn reversed_words(text: &[u8]) -> Vec<u8> {
    let mut words = text.to_vec();
    words.resize(text.len().next_multiple_of(4), 0);
    for word in words.as_chunks_mut::<4>().0 {
        word.reverse();
    }
    words
}

/// An address in the handshake's peer IP field: like strings, word by word reversed.
fn peer_ip(address: IpAddr) -> [u8; 16] {
    let mut field = [0; 16];
    match address {
        IpAddr::V4(v4) => {
            if let Some(first) = field.first_chunk_mut::<4>() {
                *first = v4.octets();
            }
        }
        IpAddr::V6(v6) => field = v6.octets(),
    }
    for word in field.as_chunks_mut::<4>().0 {
        word.reverse();
    }
    field
}

const HANDSHAKE: u32 = 0x8000_0000;
const KEEPALIVE: u32 = 0x8001_0000;
const ACK: u32 = 0x8002_0000;
const ACKACK: u32 = 0x8006_0000;

const INDUCTION: u32 = 1;
const CONCLUSION: u32 = 0xFFFF_FFFF;
/// The extension field of an induction: a socket for messages, not for a byte stream.
const DATAGRAM_SOCKET: u32 = 2;
const HAS_HSREQ: u32 = 1;
const HAS_CONFIG: u32 = 4;
const BLOCK_HSREQ: u16 = 1;
const BLOCK_HSRSP: u16 = 2;
const BLOCK_SID: u16 = 5;

/// libsrt 1.5.1, whose behaviour these packets follow.
const VERSION: u32 = 0x0001_0501;
/// TSBPD both ways, CRYPT, TLPKTDROP, periodic NAK, R flag, packet filter: what a libsrt live
/// caller announces.
const FLAGS: u32 = 0xBF;
const MTU: u32 = 1_500;
const FLOW_WINDOW: u32 = 8_192;

/// Position "single" (0b11) of a data packet's message.
const SINGLE: u32 = 0xC000_0000;
const MESSAGE_MASK: u32 = 0x03FF_FFFF;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ringway::protocol::srt::control::{Ack, ackack_number};
    use ringway::protocol::srt::{ControlType, Extensions, HandshakeKind, Header, Kind};

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    fn caller() -> Caller {
        Caller {
            socket: SocketId(0x184b_6180),
            initial_sequence: 0x0c3c_99c7,
            stream_id: "#!::h=live.example.com,r=live/livestream,m=publish".to_owned(),
            latency_ms: 120,
            listener: LOOPBACK,
        }
    }

    #[test]
    fn an_induction_is_byte_for_byte_what_libsrt_sends() {
        let captured = bytes(
            "8000000000000000000000d90000000000000004000000020c3c99c7000005dc0000200000000001184b6180\
             000000000100007f000000000000000000000000",
        );
        assert_eq!(caller().induction(0xd9), captured);
    }

    #[test]
    fn an_induction_to_an_ipv6_listener_is_byte_for_byte_what_libsrt_sends() {
        let captured = bytes(
            "800000000000000000000059000000000000000400000002736d9872000005dc0000200000000001093d4f73\
             0000000000000000000000000000000001000000",
        );
        let caller = Caller {
            socket: SocketId(0x093d_4f73),
            initial_sequence: 0x736d_9872,
            listener: IpAddr::V6(Ipv6Addr::LOCALHOST),
            ..caller()
        };
        assert_eq!(caller.induction(0x59), captured);
    }

    #[test]
    fn a_conclusion_with_a_stream_id_is_byte_for_byte_what_libsrt_sends() {
        let captured = bytes(
            "8000000000000000000001210000000000000005000000050c3c99c7000005dc00002000ffffffff184b6180\
             cafebabe0100007f0000000000000000000000000001000300010501000000bf007800000005000d3a3a2123\
             696c3d68652e6576706d6178632e656c722c6d6f76696c3d696c2f65747365766d616572703d6d2c696c6275\
             00006873",
        );
        assert_eq!(caller().conclusion(0x121, 0xcafe_babe), captured);
    }

    #[test]
    fn a_conclusion_without_a_stream_id_is_byte_for_byte_what_libsrt_sends() {
        let captured = bytes(
            "80000000000000000000014b0000000000000005000000015b5fad1e000005dc00002000ffffffff39c3b61c\
             cafebabe0100007f0000000000000000000000000001000300010501000000bf00780000",
        );
        let caller = Caller {
            socket: SocketId(0x39c3_b61c),
            initial_sequence: 0x5b5f_ad1e,
            stream_id: String::new(),
            ..caller()
        };
        assert_eq!(caller.conclusion(0x14b, 0xcafe_babe), captured);
    }

    #[test]
    fn a_conclusion_reads_back_as_what_the_caller_said() {
        let packet = caller().conclusion(9, 10);
        let extensions = Extensions::parse(&packet).unwrap();
        assert_eq!(extensions.stream_id.as_deref(), Some(caller().stream_id.as_str()));
        assert_eq!(extensions.hsreq.unwrap().receiver_delay_ms, 120);
    }

    #[test]
    fn a_conclusion_response_names_the_caller_and_the_listener() {
        let conclusion = Handshake::parse(&caller().conclusion(9, 10)).unwrap();
        let response = conclusion_response(&conclusion, SocketId(77), 11, 200, LOOPBACK);
        let read = Handshake::parse(&response).unwrap();
        assert_eq!(response.len(), 80);
        assert_eq!((read.kind, read.version, read.cookie), (HandshakeKind::Conclusion, 5, 10));
        assert_eq!((read.destination, read.socket), (caller().socket, SocketId(77)));
        assert_eq!(read.initial_sequence, caller().initial_sequence);
    }

    #[test]
    fn a_data_packet_keeps_the_top_bit_clear_when_the_sequence_wraps() {
        let header = data_header(SEQUENCE_MASK.wrapping_add(1), 1, 2, SocketId(3));
        assert_eq!(header, *bytes("00000000c00000010000000200000003").as_slice());
        assert_eq!(Header::parse(&header).unwrap().kind, Kind::Data);
    }

    #[test]
    fn a_full_ack_tells_a_relay_its_number_and_rtt() {
        let ack = FullAck {
            number: 9,
            next_sequence: 42,
            rtt_us: 38_473,
            rtt_variance_us: 9_084,
            packets_per_second: 200,
        };
        let packet = ack.packet(1, SocketId(2));
        assert_eq!(Ack::parse(&packet), Some(Ack { number: 9, rtt_us: Some(38_473) }));
        assert_eq!(word(&packet, 4), Some(42));
    }

    #[test]
    fn an_ackack_repeats_the_number() {
        let packet = ackack(7, 1, SocketId(2));
        assert_eq!(ackack_number(&packet), Some(7));
        assert_eq!(packet, *bytes("8006000000000007000000010000000200000000").as_slice());
    }

    #[test]
    fn a_keepalive_is_a_keepalive() {
        let header = Header::parse(&keepalive(1, SocketId(2))).unwrap();
        assert_eq!(
            (header.kind, header.destination),
            (Kind::Control(ControlType::Keepalive), SocketId(2))
        );
    }

    #[test]
    fn sequences_compare_across_the_wrap() {
        assert!(is_after(0, SEQUENCE_MASK));
        assert!(!is_after(SEQUENCE_MASK, 0));
        assert!(!is_after(5, 5));
    }
}
