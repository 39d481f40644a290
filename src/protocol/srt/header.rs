//! The 16-byte header that every SRT packet starts with (draft-sharabayko-srt, section 3).
//!
//! Everything here runs once per datagram: it reads the front of a buffer, branches on two bits and
//! copies nothing.

use std::fmt;

/// What routing needs of a packet and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Data or which control type.
    pub kind: Kind,
    /// Microseconds since the sending socket's start; wraps after 01:11:35.
    pub timestamp: u32,
    /// The receiving end; zero while the caller does not know it.
    pub destination: SocketId,
}

impl Header {
    /// Bytes of the header.
    pub const LEN: usize = 16;

    /// Reads the header at the front of `datagram` and leaves the rest unread.
    ///
    /// # Errors
    /// [`ParseError::TooShort`] below 16 bytes; every longer datagram has a header.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Result<Self, ParseError> {
        let Some(&[k0, k1, s0, s1, _, _, _, _, t0, t1, t2, t3, d0, d1, d2, d3]) =
            datagram.first_chunk::<{ Self::LEN }>()
        else {
            return Err(ParseError::TooShort { need: Self::LEN, have: datagram.len() });
        };
        let kind = if k0 & CONTROL == 0 {
            Kind::Data
        } else {
            let number = u16::from_be_bytes([k0 & !CONTROL, k1]);
            Kind::Control(ControlType::from_wire(number, u16::from_be_bytes([s0, s1])))
        };
        Ok(Self {
            kind,
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            destination: SocketId(u32::from_be_bytes([d0, d1, d2, d3])),
        })
    }
}

/// One end of an SRT connection, as its owner numbered it. Unique per owner, not in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SRT#{:08X}", self.0)
    }
}

/// What the first four bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Media, or a packet of the filter (FEC).
    Data,
    /// Everything else.
    Control(ControlType),
}

/// The type of a control packet (draft-sharabayko-srt, section 3.2, table 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlType {
    /// 0: connection set-up and its refusal (section 3.2.1).
    Handshake,
    /// 1: sent after one second without anything else to send (section 3.2.3).
    Keepalive,
    /// 2: what the receiver has got, and its RTT (section 3.2.4).
    Ack,
    /// 3: what the receiver misses (section 3.2.5).
    Nak,
    /// 4: reserved for congestion control (section 3.2.6).
    CongestionWarning,
    /// 5: the goodbye; sent once and never acknowledged (section 3.2.7).
    Shutdown,
    /// 6: the answer to a full ACK, by which the receiver measures the RTT (section 3.2.8).
    AckAck,
    /// 7: packets that the sender will not send again (section 3.2.9).
    DropRequest,
    /// 8: a fault at the receiving application (section 3.2.10).
    PeerError,
    /// 0x7FFF with its subtype: 1 and 2 are HSREQ and HSRSP of version-4 peers, 3 and 4 KMREQ and
    /// KMRSP.
    UserDefined(u16),
    /// A type that the draft does not define.
    Unknown(u16),
}

impl ControlType {
    #[inline]
    fn from_wire(number: u16, subtype: u16) -> Self {
        match number {
            0 => Self::Handshake,
            1 => Self::Keepalive,
            2 => Self::Ack,
            3 => Self::Nak,
            4 => Self::CongestionWarning,
            5 => Self::Shutdown,
            6 => Self::AckAck,
            7 => Self::DropRequest,
            8 => Self::PeerError,
            0x7FFF => Self::UserDefined(subtype),
            other => Self::Unknown(other),
        }
    }
}

/// Sequence number of a data packet (31 bits). `None` for control packets and short ones.
#[inline]
pub fn sequence(datagram: &[u8]) -> Option<u32> {
    let &[s0, s1, s2, s3, ..] = datagram.first_chunk::<{ Header::LEN }>()?;
    (s0 & CONTROL == 0).then(|| u32::from_be_bytes([s0, s1, s2, s3]))
}

/// Whether a data packet carries the R flag: sent again because the receiver missed it.
#[inline]
pub fn is_retransmission(datagram: &[u8]) -> bool {
    matches!(
        datagram.first_chunk::<{ Header::LEN }>(),
        Some(&[first, _, _, _, flags, ..]) if first & CONTROL == 0 && flags & RETRANSMITTED != 0
    )
}

/// Whether a data packet was made by the packet filter (FEC): it has message number 0, which media never has.
#[inline]
pub fn is_of_filter(datagram: &[u8]) -> bool {
    matches!(
        datagram.first_chunk::<{ Header::LEN }>(),
        Some(&[first, _, _, _, flags, 0, 0, 0, ..])
            if first & CONTROL == 0 && flags & MESSAGE_NUMBER_TOP == 0
    )
}

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Fewer bytes than the layout needs.
    #[error("needs {need} bytes, has {have}")]
    TooShort {
        /// Bytes that the layout needs.
        need: usize,
        /// Bytes that there are.
        have: usize,
    },
    /// The first two bytes are not those of a handshake packet.
    #[error("not a handshake")]
    NotAHandshake,
    /// An extension block runs past the end.
    #[error("extension {kind} says {words} words, {left} bytes are left")]
    ExtensionTooLong {
        /// Extension type on the wire.
        kind: u16,
        /// Length field of the block, in words of 4 bytes.
        words: u16,
        /// Bytes behind the block's first four.
        left: usize,
    },
    /// The stream ID's block is empty or longer than SRT allows.
    #[error("stream ID has {length} bytes, 1 to 512 are allowed")]
    StreamIdLength {
        /// Bytes of the block's content.
        length: usize,
    },
    /// The stream ID is not text.
    #[error("stream ID is not UTF-8")]
    StreamIdNotUtf8,
}

/// The F bit of the first byte: control packet.
const CONTROL: u8 = 0x80;
/// The R bit of the fifth byte of a data packet.
const RETRANSMITTED: u8 = 0x04;
/// The highest bits of the message number, in the same byte.
const MESSAGE_NUMBER_TOP: u8 = 0x03;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::srt::vectors::bytes;
    use proptest::prelude::*;

    #[test]
    fn a_data_packet_shows_sequence_timestamp_and_destination() {
        let packet = bytes("0000002a e0000001 00000064 184b6180 68656c6c6f");
        let header =
            Header { kind: Kind::Data, timestamp: 100, destination: SocketId(0x184b_6180) };
        assert_eq!(Header::parse(&packet), Ok(header));
        assert_eq!(sequence(&packet), Some(42));
    }

    #[test]
    fn the_shortest_data_packet_is_a_bare_header() {
        let packet = bytes("7fffffff c0000001 00000000 00000000");
        assert_eq!(Header::parse(&packet).map(|header| header.kind), Ok(Kind::Data));
        assert_eq!(sequence(&packet), Some(0x7fff_ffff));
    }

    #[test]
    fn every_control_type_has_its_number() {
        let table = [
            ("8000", ControlType::Handshake),
            ("8001", ControlType::Keepalive),
            ("8002", ControlType::Ack),
            ("8003", ControlType::Nak),
            ("8004", ControlType::CongestionWarning),
            ("8005", ControlType::Shutdown),
            ("8006", ControlType::AckAck),
            ("8007", ControlType::DropRequest),
            ("8008", ControlType::PeerError),
            ("8009", ControlType::Unknown(9)),
            ("fffe", ControlType::Unknown(0x7ffe)),
            ("ffff", ControlType::UserDefined(3)),
        ];
        for (first_two_bytes, kind) in table {
            let packet = bytes(&format!("{first_two_bytes}0003 00000000 00000007 00000009"));
            let header =
                Header { kind: Kind::Control(kind), timestamp: 7, destination: SocketId(9) };
            assert_eq!(Header::parse(&packet), Ok(header), "{first_two_bytes}");
        }
    }

    #[test]
    fn fewer_than_16_bytes_are_no_packet() {
        for have in 0..Header::LEN {
            let short = vec![0; have];
            assert_eq!(Header::parse(&short), Err(ParseError::TooShort { need: 16, have }));
            assert_eq!(sequence(&short), None);
            assert!(!is_retransmission(&[0x7f; 16][..have]));
        }
    }

    #[test]
    fn control_packets_have_no_sequence_number() {
        assert_eq!(sequence(&bytes("80020000 0000000e 00000000 00000000")), None);
    }

    #[test]
    fn only_the_r_bit_of_a_data_packet_means_retransmission() {
        assert!(is_retransmission(&bytes("00000001 04000000 00000000 00000000")));
        assert!(!is_retransmission(&bytes("00000001 fb000000 00000000 00000000")));
        assert!(!is_retransmission(&bytes("80020000 04000000 00000000 00000000")));
    }

    #[test]
    fn only_message_number_0_of_a_data_packet_means_the_filter() {
        assert!(is_of_filter(&bytes("00000001 fc000000 00000000 00000000")));
        assert!(!is_of_filter(&bytes("00000001 fc000001 00000000 00000000")));
        assert!(!is_of_filter(&bytes("00000001 fd000000 00000000 00000000")));
        assert!(!is_of_filter(&bytes("80020000 00000000 00000000 00000000")));
    }

    #[test]
    fn a_socket_id_prints_as_eight_digits() {
        assert_eq!(SocketId(0xabcd).to_string(), "SRT#0000ABCD");
    }

    proptest! {
        #[test]
        fn a_data_header_reads_back(
            number in 0_u32..1 << 31,
            flags: u32,
            timestamp: u32,
            destination: u32,
        ) {
            let packet = [number, flags, timestamp, destination].map(u32::to_be_bytes).concat();
            let destination = SocketId(destination);
            let expected = Header { kind: Kind::Data, timestamp, destination };
            prop_assert_eq!(Header::parse(&packet), Ok(expected));
            prop_assert_eq!(sequence(&packet), Some(number));
            prop_assert_eq!(is_retransmission(&packet), flags & 1 << 26 != 0);
        }
    }
}
