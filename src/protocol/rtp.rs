//! The fixed headers of RTP and RTCP (RFC 3550, sections 5.1 and 6.1), which SRTP and SRTCP leave
//! in the clear.
//!
//! Nothing of it is needed to route a packet, and nothing of it is ever changed: SRTP authenticates
//! the whole header. It serves whoever counts streams, gaps and reordering.

/// The fixed part of an RTP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpHeader {
    /// The format of the payload, as the SDP numbers it; 7 bits.
    pub payload_type: u8,
    /// What it marks is the format's own business; with video the last packet of a frame.
    pub marker: bool,
    /// One more than that of the stream's packet before; wraps.
    pub sequence: u16,
    /// When the payload was sampled, in ticks of the format's clock; wraps.
    pub timestamp: u32,
    /// The stream, as its sender numbered it.
    pub ssrc: u32,
}

impl RtpHeader {
    /// Bytes of the fixed part. Contributing sources and extensions follow it.
    pub const LEN: usize = 12;

    /// Reads the header at the front of `datagram` and leaves the rest unread.
    ///
    /// # Errors
    /// [`RtpError::TooShort`] below 12 bytes, [`RtpError::Version`] unless the version is 2. Whether
    /// the packet is RTP and not RTCP is what [`Kind::of`](super::demux::Kind::of) says.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Result<Self, RtpError> {
        let Some(&[first, second, n0, n1, t0, t1, t2, t3, s0, s1, s2, s3]) =
            datagram.first_chunk::<{ Self::LEN }>()
        else {
            return Err(RtpError::TooShort { need: Self::LEN, have: datagram.len() });
        };
        check_version(first)?;
        Ok(Self {
            payload_type: second & !MARKER,
            marker: second & MARKER != 0,
            sequence: u16::from_be_bytes([n0, n1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
        })
    }
}

/// What SRTCP leaves in the clear of a compound packet: the front of its first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtcpHeader {
    /// The type of the first packet: 200 is a sender report, 201 a receiver report.
    pub packet_type: u8,
    /// Who sent it.
    pub ssrc: u32,
}

impl RtcpHeader {
    /// Bytes up to the sender's SSRC and including it (RFC 3711, section 3.4).
    pub const LEN: usize = 8;

    /// Reads the header at the front of `datagram` and leaves the rest, which may be encrypted,
    /// unread.
    ///
    /// # Errors
    /// [`RtpError::TooShort`] below 8 bytes, [`RtpError::Version`] unless the version is 2.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Result<Self, RtpError> {
        let Some(&[first, packet_type, _, _, s0, s1, s2, s3]) =
            datagram.first_chunk::<{ Self::LEN }>()
        else {
            return Err(RtpError::TooShort { need: Self::LEN, have: datagram.len() });
        };
        check_version(first)?;
        Ok(Self { packet_type, ssrc: u32::from_be_bytes([s0, s1, s2, s3]) })
    }
}

fn check_version(first: u8) -> Result<(), RtpError> {
    match first >> 6 {
        2 => Ok(()),
        version => Err(RtpError::Version { version }),
    }
}

/// Why a datagram is neither RTP nor RTCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtpError {
    /// Fewer bytes than the header has.
    #[error("needs {need} bytes, has {have}")]
    TooShort {
        /// Bytes that the header has.
        need: usize,
        /// Bytes that there are.
        have: usize,
    },
    /// The first two bits are not those of RTP.
    #[error("version {version} instead of 2")]
    Version {
        /// What the first two bits say.
        version: u8,
    },
}

/// The top bit of the second byte of RTP; with RTCP it is part of the type.
const MARKER: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VIDEO: [u8; 13] = [0x90, 0xe0, 0xff, 0xfe, 0, 1, 2, 3, 0xca, 0xfe, 0xba, 0xbe, 0x42];
    const SENDER_REPORT: [u8; 8] = [0x80, 200, 0, 6, 0xca, 0xfe, 0xba, 0xbe];

    #[test]
    fn an_rtp_packet_says_its_stream_and_its_place_in_it() {
        let expected = RtpHeader {
            payload_type: 96,
            marker: true,
            sequence: 0xfffe,
            timestamp: 0x0001_0203,
            ssrc: 0xcafe_babe,
        };
        assert_eq!(RtpHeader::parse(&VIDEO), Ok(expected));
    }

    #[test]
    fn an_rtcp_packet_says_its_type_and_its_sender() {
        let expected = RtcpHeader { packet_type: 200, ssrc: 0xcafe_babe };
        assert_eq!(RtcpHeader::parse(&SENDER_REPORT), Ok(expected));
    }

    #[test]
    fn fewer_bytes_than_the_header_are_no_packet() {
        for have in 0..12 {
            let expected = Err(RtpError::TooShort { need: 12, have });
            assert_eq!(RtpHeader::parse(&VIDEO[..have]), expected);
        }
        for have in 0..8 {
            let expected = Err(RtpError::TooShort { need: 8, have });
            assert_eq!(RtcpHeader::parse(&SENDER_REPORT[..have]), expected);
        }
    }

    #[test]
    fn another_version_is_no_packet() {
        for version in [0, 1, 3] {
            let first = version << 6 | 0x3f;
            let expected = RtpError::Version { version };
            assert_eq!(RtpHeader::parse(&[first; 12]), Err(expected));
            assert_eq!(RtcpHeader::parse(&[first; 8]), Err(expected));
        }
    }

    proptest! {
        #[test]
        fn an_rtp_header_reads_back(
            payload_type in 0_u8..0x80,
            marker: bool,
            sequence: u16,
            timestamp: u32,
            ssrc: u32,
            payload: Vec<u8>,
        ) {
            let mut packet = vec![0x80, u8::from(marker) << 7 | payload_type];
            packet.extend(sequence.to_be_bytes());
            packet.extend(timestamp.to_be_bytes());
            packet.extend(ssrc.to_be_bytes());
            packet.extend(payload);
            let expected = RtpHeader { payload_type, marker, sequence, timestamp, ssrc };
            prop_assert_eq!(RtpHeader::parse(&packet), Ok(expected));
        }
    }
}
