//! RTP and RTCP as SRTP leaves them in the clear: headers, and behind them what tests carry.

use ringway::protocol::rtp::RtpHeader;

use crate::clock::SECOND;
use crate::payload::{self, Order, Stamp, Tally};
use crate::shape::Rhythm;

/// The smallest packet that can carry a stamp behind its header.
pub const PACKET_MIN: u16 = (RtpHeader::LEN + payload::LEN_MIN) as u16;

/// One stream of RTP packets on its sender's side.
#[derive(Clone, Copy, Debug)]
pub struct Track {
    rhythm: Rhythm,
    ssrc: u32,
    sequence: u16,
}

impl Track {
    /// The track of `stream` that has this rhythm. Its first sequence number lies anywhere, so that
    /// some wrap soon.
    #[must_use]
    pub fn new(rhythm: Rhythm, stream: u64) -> Self {
        let ssrc = ssrc(stream, payload_type(rhythm));
        Self { rhythm, ssrc, sequence: payload::mix(stream) as u16 }
    }

    /// What it sends.
    #[must_use]
    pub fn rhythm(&self) -> Rhythm {
        self.rhythm
    }

    /// Writes the next packet's header; `is_last` of its frame sets the marker. Gives the place of
    /// the payload.
    pub fn write<'a>(
        &mut self,
        packet: &'a mut [u8],
        intended_ns: u64,
        is_last: bool,
    ) -> &'a mut [u8] {
        let Some((header, payload)) = packet.split_first_chunk_mut::<{ RtpHeader::LEN }>() else {
            return &mut [];
        };
        let [n0, n1] = self.sequence.to_be_bytes();
        let ticks = u128::from(intended_ns) * u128::from(clock_rate(self.rhythm));
        let [t0, t1, t2, t3] = ((ticks / u128::from(SECOND)) as u32).to_be_bytes();
        let [s0, s1, s2, s3] = self.ssrc.to_be_bytes();
        let second = payload_type(self.rhythm) | if is_last { MARKER } else { 0 };
        *header = [VERSION, second, n0, n1, t0, t1, t2, t3, s0, s1, s2, s3];
        self.sequence = self.sequence.wrapping_add(1);
        payload
    }
}

/// Judges an RTP packet that session `stream` received. Returns its stamp when it counts for
/// latency.
pub fn judge(tally: &mut Tally, order: &mut Order, stream: u64, packet: &[u8]) -> Option<Stamp> {
    let header = RtpHeader::parse(packet);
    let payload = packet.get(RtpHeader::LEN..).unwrap_or_default();
    let is_ours = header.is_ok_and(|header| header.ssrc == ssrc(stream, header.payload_type));
    // A stamp behind a header of another stream is a packet put together wrongly.
    if !is_ours && let payload::Reading::Stamped(_) = Stamp::read(payload) {
        tally.damaged += 1;
        return None;
    }
    tally.judge(order, stream, payload)
}

/// The dynamic number that offers and answers give the codec.
fn payload_type(rhythm: Rhythm) -> u8 {
    match rhythm {
        Rhythm::Audio => OPUS,
        Rhythm::Video { .. } | Rhythm::SrtLive { .. } | Rhythm::Constant { .. } => H264,
    }
}

/// Ticks per second of the RTP timestamp.
fn clock_rate(rhythm: Rhythm) -> u64 {
    match rhythm {
        Rhythm::Audio => 48_000,
        Rhythm::Video { .. } | Rhythm::SrtLive { .. } | Rhythm::Constant { .. } => 90_000,
    }
}

/// The synchronisation source of a stream's track: the same on both ends without anything being
/// agreed.
#[must_use]
pub fn ssrc(stream: u64, payload_type: u8) -> u32 {
    payload::mix(stream ^ u64::from(payload_type)) as u32
}

/// A receiver report with one block (RFC 3550, section 6.4.2): what a player sends once a second.
/// It tells of no loss. With SRTCP all behind the first eight bytes is encrypted.
#[must_use]
pub fn receiver_report(reporter: u32, source: u32, highest: u32) -> [u8; 32] {
    let mut report = [0; 32];
    let first = 0x81C9_0007_u32;
    let words = [first, reporter, source, 0, highest, 0, 0, 0];
    for (place, word) in report.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *place = word.to_be_bytes();
    }
    report
}

/// The payload type of audio in offers and answers.
pub const OPUS: u8 = 111;
/// The payload type of video in offers and answers.
pub const H264: u8 = 106;
/// Version 2, no padding, no extension, no contributing sources.
const VERSION: u8 = 0x80;
const MARKER: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;
    use ringway::protocol::demux::Kind;
    use ringway::protocol::rtp::RtcpHeader;

    const STREAM: u64 = 7;

    fn packet(track: &mut Track, sequence: u64) -> Vec<u8> {
        let mut packet = payload::filler(1, 1_200);
        let payload = track.write(&mut packet, SECOND, true);
        Stamp { stream: STREAM, sequence, intended_ns: SECOND, sent_ns: SECOND + 5 }.write(payload);
        packet
    }

    #[test]
    fn a_packet_is_valid_rtp() {
        let mut track = Track::new(Rhythm::BROWSER_VIDEO, STREAM);
        let first = RtpHeader::parse(&packet(&mut track, 0)).unwrap();
        let second = packet(&mut track, 1);
        assert_eq!(Kind::of(&second), Kind::Rtp);
        let second = RtpHeader::parse(&second).unwrap();
        assert_eq!(second.sequence, first.sequence.wrapping_add(1));
        assert_eq!((second.timestamp, second.marker, second.payload_type), (90_000, true, 106));
        assert_eq!(second.ssrc, ssrc(STREAM, 106));
    }

    #[test]
    fn a_stamp_behind_a_header_is_read_back() {
        let packet = packet(&mut Track::new(Rhythm::Audio, STREAM), 0);
        let (mut tally, mut order) = (Tally::default(), Order::default());
        let stamp = judge(&mut tally, &mut order, STREAM, &packet).unwrap();
        assert_eq!((stamp.sequence, stamp.sent_ns), (0, SECOND + 5));
        assert_eq!(tally, Tally { received: 1, ..Tally::default() });
    }

    #[test]
    fn loss_and_reordering_across_tracks_show() {
        let (mut audio, mut video) =
            (Track::new(Rhythm::Audio, STREAM), Track::new(Rhythm::BROWSER_VIDEO, STREAM));
        let (mut tally, mut order) = (Tally::default(), Order::default());
        for (track, sequence) in [(&mut audio, 0), (&mut video, 2)] {
            judge(&mut tally, &mut order, STREAM, &packet(track, sequence));
        }
        assert_eq!(tally, Tally { received: 2, missing: 1, ..Tally::default() });
        judge(&mut tally, &mut order, STREAM, &packet(&mut audio, 1));
        assert_eq!(tally, Tally { received: 3, reordered: 1, ..Tally::default() });
    }

    #[test]
    fn a_header_that_was_changed_is_damage() {
        let mut packet = packet(&mut Track::new(Rhythm::Audio, STREAM), 0);
        packet[11] ^= 1;
        let (mut tally, mut order) = (Tally::default(), Order::default());
        assert_eq!(judge(&mut tally, &mut order, STREAM, &packet), None);
        assert_eq!(tally, Tally { damaged: 1, ..Tally::default() });
    }

    #[test]
    fn media_of_others_is_foreign() {
        let (mut tally, mut order) = (Tally::default(), Order::default());
        assert_eq!(judge(&mut tally, &mut order, STREAM, &[0x80; 100]), None);
        assert_eq!(tally, Tally { foreign: 1, ..Tally::default() });
    }

    #[test]
    fn a_report_is_rtcp_of_its_own_length() {
        let report = receiver_report(1, 2, 3);
        assert_eq!(Kind::of(&report), Kind::Rtcp);
        assert_eq!(RtcpHeader::parse(&report).unwrap(), RtcpHeader { packet_type: 201, ssrc: 1 });
        assert_eq!(report.len(), 4 * (1 + 7));
    }
}
