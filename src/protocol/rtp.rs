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
