//! What a datagram on a WebRTC port is, by its first bytes (RFC 7983, RFC 9443, RFC 5761).
//!
//! ICE, DTLS, SRTP and SRTCP of a session share one port and one address, so every datagram has to
//! say itself what it is. SRT packets begin with any byte and need a port of their own.

/// The protocol of a datagram. The kind is a claim: whether the rest keeps it is for the
/// protocol's own parser to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 0 to 3: STUN, which proves an address before anything else may pass.
    Stun,
    /// 16 to 19: ZRTP, which no WebRTC peer speaks.
    Zrtp,
    /// 20 to 63: DTLS.
    Dtls,
    /// 64 to 79: channel data of TURN.
    TurnChannel,
    /// 80 to 127 and 192 to 255: QUIC with a short or a long header (RFC 9443, section 3).
    Quic,
    /// 128 to 191: RTP or SRTP.
    Rtp,
    /// 128 to 191 with a second byte of 192 to 223: RTCP or SRTCP (RFC 5761, section 4).
    Rtcp,
    /// 4 to 15, which nobody was given, and a datagram too short to tell.
    Unknown,
}

impl Kind {
    /// Looks at the first byte, and for RTP at the second one, which tells RTP from RTCP.
    #[inline]
    pub fn of(datagram: &[u8]) -> Self {
        match *datagram {
            [0..=3, ..] => Self::Stun,
            [16..=19, ..] => Self::Zrtp,
            [20..=63, ..] => Self::Dtls,
            [64..=79, ..] => Self::TurnChannel,
            [80..=127 | 192..=255, ..] => Self::Quic,
            [128..=191, 192..=223, ..] => Self::Rtcp,
            [128..=191, _, ..] => Self::Rtp,
            [] | [4..=15, ..] | [128..=191] => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_has_its_kind() {
        let table = [
            (0..=3, Kind::Stun),
            (4..=15, Kind::Unknown),
            (16..=19, Kind::Zrtp),
            (20..=63, Kind::Dtls),
            (64..=79, Kind::TurnChannel),
            (80..=127, Kind::Quic),
            (128..=191, Kind::Rtp),
            (192..=255, Kind::Quic),
        ];
        let mut bytes = 0;
        for (range, kind) in table {
            for first in range {
                assert_eq!(Kind::of(&[first, 0]), kind, "{first}");
                bytes += 1;
            }
        }
        assert_eq!(bytes, 256);
    }

    #[test]
    fn the_second_byte_tells_rtcp_from_rtp() {
        for second in 0..=u8::MAX {
            let kind = if (192..=223).contains(&second) { Kind::Rtcp } else { Kind::Rtp };
            assert_eq!(Kind::of(&[0x80, second]), kind, "{second}");
            assert_eq!(Kind::of(&[0xbf, second, 0]), kind, "{second}");
            assert_eq!(Kind::of(&[0x16, second]), Kind::Dtls, "{second}");
        }
    }

    #[test]
    fn a_datagram_too_short_to_tell_is_unknown() {
        assert_eq!(Kind::of(&[]), Kind::Unknown);
        assert_eq!(Kind::of(&[0x80]), Kind::Unknown);
        assert_eq!(Kind::of(&[0]), Kind::Stun);
        assert_eq!(Kind::of(&[22]), Kind::Dtls);
    }
}
