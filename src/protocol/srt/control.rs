//! Control packets that a relay reads (ACK, ACKACK) or makes (SHUTDOWN).
//!
//! None of them is authenticated, so what is read here serves statistics and never decides where a
//! packet goes.

use super::SocketId;
use super::header::{ControlType, Header, Kind};

/// An acknowledgement (draft-sharabayko-srt, section 3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The ACK's own number, which the ACKACK answers. Zero in light and small ACKs, which get no
    /// answer.
    pub number: u32,
    /// The receiver's smoothed RTT over the whole path, in microseconds. Light ACKs carry none.
    pub rtt_us: Option<u32>,
}

impl Ack {
    /// Reads an ACK. `None` when `datagram` is not one or ends before its header does.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let number = specific(datagram, ControlType::Ack)?;
        // The RTT is the second word behind the header. It counts only together with its variance,
        // the third.
        let rtt_us = match datagram.get(Header::LEN..)?.as_chunks::<4>().0 {
            [_acknowledged, rtt, _variance, ..] => Some(u32::from_be_bytes(*rtt)),
            _ => None,
        };
        Some(Self { number, rtt_us })
    }
}

/// The ACK number that an ACKACK answers (section 3.2.8). `None` when `datagram` is no ACKACK.
pub fn ackack_number(datagram: &[u8]) -> Option<u32> {
    specific(datagram, ControlType::AckAck)
}

/// A SHUTDOWN (section 3.2.7) for `destination`, `timestamp` microseconds after the start of
/// whoever seems to send it.
///
/// The draft's packet ends with the header; like libsrt's it carries a zero word more.
pub fn shutdown(destination: SocketId, timestamp: u32) -> [u8; 20] {
    let [t0, t1, t2, t3] = timestamp.to_be_bytes();
    let [d0, d1, d2, d3] = destination.0.to_be_bytes();
    [0x80, 5, 0, 0, 0, 0, 0, 0, t0, t1, t2, t3, d0, d1, d2, d3, 0, 0, 0, 0]
}

/// The type-specific word of a control packet of type `wanted`.
fn specific(datagram: &[u8], wanted: ControlType) -> Option<u32> {
    let header = Header::parse(datagram).ok()?;
    let (_, specific) = datagram.first_chunk::<8>()?.split_last_chunk::<4>()?;
    (header.kind == Kind::Control(wanted)).then(|| u32::from_be_bytes(*specific))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::srt::vectors::bytes;
    use proptest::prelude::*;

    const FULL_ACK: &str = "80020000 00000007 00000000 00000001
        0000002a 00009649 0000237c 0000bd95 00000014 00000000 00011fa5";

    #[test]
    fn a_full_ack_carries_number_and_rtt() {
        assert_eq!(Ack::parse(&bytes(FULL_ACK)), Some(Ack { number: 7, rtt_us: Some(0x9649) }));
    }

    #[test]
    fn a_small_ack_carries_an_rtt() {
        let ack = "80020000 00000000 00000000 00000001 0000002a 00009649 0000237c 0000bd95";
        assert_eq!(Ack::parse(&bytes(ack)), Some(Ack { number: 0, rtt_us: Some(0x9649) }));
    }

    #[test]
    fn a_captured_ack_of_four_words_carries_an_rtt() {
        let ack = "800200000000000e000246e5d96d5e1a389c24780000452900007bb000001fa9";
        assert_eq!(Ack::parse(&bytes(ack)), Some(Ack { number: 14, rtt_us: Some(0x4529) }));
    }

    #[test]
    fn an_ack_below_28_bytes_carries_no_rtt() {
        let ack = bytes(FULL_ACK);
        for length in 16..28 {
            assert_eq!(
                Ack::parse(&ack[..length]),
                Some(Ack { number: 7, rtt_us: None }),
                "{length}"
            );
        }
        assert_eq!(Ack::parse(&ack[..28]), Some(Ack { number: 7, rtt_us: Some(0x9649) }));
    }

    #[test]
    fn what_is_no_ack_is_not_read_as_one() {
        let data_with_type_bits_of_an_ack =
            bytes("00020000 00000007 00000000 00000001 0000002a 00009649 0000237c");
        assert_eq!(Ack::parse(&data_with_type_bits_of_an_ack), None);
        assert_eq!(Ack::parse(&bytes("80060000 00000007 00000000 00000001")), None);
        assert_eq!(Ack::parse(&bytes(FULL_ACK)[..15]), None);
    }

    #[test]
    fn an_ackack_names_its_ack_with_and_without_the_word_that_libsrt_appends() {
        assert_eq!(ackack_number(&bytes("80060000 0000000e 00000001 00000002")), Some(14));
        assert_eq!(ackack_number(&bytes("80060000 0000000e 00000001 00000002 00000000")), Some(14));
        assert_eq!(ackack_number(&bytes("80020000 0000000e 00000001 00000002")), None);
        assert_eq!(ackack_number(&bytes("80060000 0000000e 00000001 000000")), None);
    }

    #[test]
    fn a_shutdown_is_a_header_and_a_zero_word() {
        let packet = shutdown(SocketId(0x184b_6180), 0x0102_0304);
        assert_eq!(packet.as_slice(), bytes("80050000 00000000 01020304 184b6180 00000000"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Ack::parse(&datagram), ackack_number(&datagram));
        }
    }
}
