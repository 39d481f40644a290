//! How much media leaves when: the rhythm of audio, of video, and of a plain rate.

use crate::clock::SECOND;
use crate::pace::Pacer;
use crate::payload;

/// What one track sends.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rhythm {
    /// 50 packets of 100 bytes per second: Opus in frames of 20 ms, 40 kbit/s with all headers.
    Audio,
    /// 30 frames per second, one in two seconds a keyframe, as packets of 1,200 bytes that leave
    /// together: about 640 kbit/s. Real senders pace a keyframe; here it is one burst, which is harder
    /// to relay.
    Video,
    /// The same at all times.
    Constant {
        /// Packets per second.
        rate: f64,
        /// Packets that leave together; the rate stays.
        burst: u16,
        /// Bytes of a packet with its RTP header.
        size: u16,
    },
}

/// Packets of one track that leave together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// When the pacing wants it to leave.
    pub intended_ns: u64,
    /// How many.
    pub packets: u16,
    /// Bytes of each with its RTP header.
    pub size: u16,
}

impl Rhythm {
    /// Packets per second, averaged over the keyframes.
    #[must_use]
    pub fn packets_per_second(self) -> f64 {
        match self {
            Self::Audio => AUDIO_RATE,
            Self::Video => {
                let others = (KEYFRAME_INTERVAL - 1) * u64::from(FRAME_PACKETS);
                let cycle = others + u64::from(KEYFRAME_PACKETS);
                cycle as f64 * VIDEO_RATE / KEYFRAME_INTERVAL as f64
            }
            Self::Constant { rate, .. } => rate,
        }
    }

    /// The RTP payload type: dynamic numbers that the offer gives the codecs.
    #[must_use]
    pub fn payload_type(self) -> u8 {
        match self {
            Self::Audio => OPUS,
            Self::Video | Self::Constant { .. } => H264,
        }
    }

    /// Ticks per second of the RTP timestamp.
    #[must_use]
    pub fn clock_rate(self) -> u64 {
        match self {
            Self::Audio => 48_000,
            Self::Video | Self::Constant { .. } => 90_000,
        }
    }

    fn frames_per_second(self) -> f64 {
        match self {
            Self::Audio => AUDIO_RATE,
            Self::Video => VIDEO_RATE,
            Self::Constant { rate, burst, .. } => rate / f64::from(burst.max(1)),
        }
    }

    /// Bytes of each packet with its RTP header.
    #[must_use]
    pub fn packet_size(self) -> u16 {
        match self {
            Self::Audio => AUDIO_SIZE,
            Self::Video => VIDEO_SIZE,
            Self::Constant { size, .. } => size,
        }
    }

    /// Packets of frame `number`.
    fn frame_packets(self, number: u64) -> u16 {
        match self {
            Self::Audio => 1,
            Self::Video if number.is_multiple_of(KEYFRAME_INTERVAL) => KEYFRAME_PACKETS,
            Self::Video => FRAME_PACKETS,
            Self::Constant { burst, .. } => burst.max(1),
        }
    }
}

/// A rhythm that goes on.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    rhythm: Rhythm,
    pacer: Pacer,
    next_frame: u64,
}

impl Beat {
    /// Starts with the frame that `seed` says, up to one frame's time after `start_ns`: senders that
    /// start together do not beat together. `None` for a rate of nothing.
    #[must_use]
    pub fn start(rhythm: Rhythm, start_ns: u64, seed: u64) -> Option<Self> {
        let period = SECOND as f64 / rhythm.frames_per_second();
        let phase = payload::mix(seed) % (period as u64).max(1);
        let next_frame = payload::mix(!seed) % KEYFRAME_INTERVAL;
        let pacer = Pacer::new(start_ns + phase, rhythm.frames_per_second())?;
        Some(Self { rhythm, pacer, next_frame })
    }

    /// When the next frame is due.
    #[must_use]
    pub fn next_at(&self) -> u64 {
        self.pacer.next_at()
    }

    /// Takes the next frame if it is due.
    pub fn take(&mut self, now_ns: u64) -> Option<Frame> {
        let intended_ns = self.pacer.take(now_ns)?;
        let packets = self.rhythm.frame_packets(self.next_frame);
        self.next_frame += 1;
        Some(Frame { intended_ns, packets, size: self.rhythm.packet_size() })
    }
}

/// The payload type of audio in offers and answers.
pub const OPUS: u8 = 111;
/// The payload type of video in offers and answers.
pub const H264: u8 = 106;
const AUDIO_RATE: f64 = 50.0;
const AUDIO_SIZE: u16 = 100;
const VIDEO_RATE: f64 = 30.0;
const VIDEO_SIZE: u16 = 1_200;
/// Frames from one keyframe to the next: two seconds.
const KEYFRAME_INTERVAL: u64 = 60;
/// A keyframe is about eight times as large as what changes from frame to frame.
const KEYFRAME_PACKETS: u16 = 16;
const FRAME_PACKETS: u16 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets, bytes and the largest frame of ten seconds.
    fn ten_seconds(rhythm: Rhythm, seed: u64) -> (u64, u64, u16) {
        let mut beat = Beat::start(rhythm, 0, seed).unwrap();
        let end = beat.next_at() + 10 * SECOND - 1;
        let (mut packets, mut bytes, mut largest) = (0, 0, 0);
        while let Some(frame) = beat.take(end) {
            packets += u64::from(frame.packets);
            bytes += u64::from(frame.packets) * u64::from(frame.size);
            largest = largest.max(frame.packets);
        }
        (packets, bytes, largest)
    }

    #[test]
    fn audio_is_50_packets_of_100_bytes_per_second() {
        assert_eq!(ten_seconds(Rhythm::Audio, 1), (500, 50_000, 1));
    }

    #[test]
    fn video_is_30_frames_per_second_with_a_keyframe_in_two_seconds() {
        for seed in 0..5 {
            let packets = 5 * (59 * 2 + 16);
            assert_eq!(ten_seconds(Rhythm::Video, seed), (packets, packets * 1_200, 16));
        }
    }

    #[test]
    fn a_constant_rate_keeps_its_rate_whatever_the_burst() {
        for burst in [1, 8, 32] {
            let rhythm = Rhythm::Constant { rate: 320.0, burst, size: 500 };
            assert_eq!(ten_seconds(rhythm, 3), (3_200, 1_600_000, burst));
        }
    }

    #[test]
    fn the_average_is_what_comes_out() {
        for rhythm in [Rhythm::Audio, Rhythm::Video] {
            let (packets, ..) = ten_seconds(rhythm, 7);
            assert!((rhythm.packets_per_second() * 10.0 - packets as f64).abs() < 1e-6);
        }
    }

    #[test]
    fn keyframes_of_different_senders_do_not_coincide() {
        let first_keyframe = |seed| {
            let mut beat = Beat::start(Rhythm::Video, 0, seed).unwrap();
            std::iter::from_fn(|| beat.take(u64::MAX / 2))
                .find(|frame| frame.packets == KEYFRAME_PACKETS)
                .map(|frame| frame.intended_ns)
        };
        let mut times: Vec<_> = (0..100).map(first_keyframe).collect();
        times.sort_unstable();
        times.dedup();
        assert!(times.len() > 90, "{}", times.len());
    }

    #[test]
    fn a_rate_of_nothing_does_not_beat() {
        let rhythm = Rhythm::Constant { rate: 0.0, burst: 1, size: 100 };
        assert!(Beat::start(rhythm, 0, 1).is_none());
    }
}
