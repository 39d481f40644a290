//! How much media leaves when: the rhythms of a live SRT feed, of video, of audio, and of a plain
//! rate.
//!
//! A [`Shape`] is what a user asks for, a [`Rhythm`] is what one track does, a [`Beat`] is a rhythm
//! under way. Every beat is open-loop: frames lie on a grid and keep their times when they are served
//! late.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::SECOND;
use crate::pace::Pacer;
use crate::payload;

/// What sessions send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// The same at all times
    #[default]
    Constant,
    /// A variable bitrate around the mean, in the small bursts of a live encoder
    SrtLive,
    /// Frames as runs of full packets with a short tail, a keyframe burst every 2 s
    Video,
    /// 50 small packets per second
    Audio,
    /// SRT: sessions take turns with the other four; WebRTC: each has audio and video
    Mixed,
}

impl Shape {
    /// As the command line and the results name it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::SrtLive => "srt-live",
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Mixed => "mixed",
        }
    }
}

/// What one track sends.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rhythm {
    /// 50 packets of 100 bytes per second: Opus in frames of 20 ms, 40 kbit/s with all headers.
    Audio,
    /// One in two seconds is a keyframe, eight times as large as the others. Each leaves as a run of
    /// full packets with a shorter one at its end. Real senders pace a keyframe; here it is one
    /// burst, which is harder to relay.
    Video {
        /// Packets per second, averaged over the keyframes.
        rate: f64,
        /// Frames per second.
        frames: u8,
        /// Bytes of a full packet.
        size: u16,
    },
    /// What an encoder's multiplexer hands to SRT: 25 frames per second whose sizes differ, a
    /// keyframe four times as large every 2 s, each frame spread over four writes 10 ms apart. All
    /// packets are full, as seven cells of a transport stream are.
    SrtLive {
        /// Packets per second, averaged over two seconds.
        rate: f64,
        /// Bytes of a packet.
        size: u16,
    },
    /// The same at all times.
    Constant {
        /// Packets per second.
        rate: f64,
        /// Packets that leave together; the rate stays.
        burst: u16,
        /// Bytes of a packet.
        size: u16,
    },
}

/// Packets of one track that leave together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// When the pacing wants it to leave.
    pub intended_ns: u64,
    /// How many; may be none.
    pub packets: u16,
    /// Bytes of each but the last.
    pub size: u16,
    /// Bytes of the last.
    pub last_size: u16,
}

impl Rhythm {
    /// Video as a browser sends it: 30 frames per second, 67 packets of at most 1,200 bytes, about
    /// 550 kbit/s.
    pub const BROWSER_VIDEO: Self = Self::Video { rate: 67.0, frames: 30, size: 1_200 };

    /// Packets per second, averaged over the keyframes.
    #[must_use]
    pub fn packets_per_second(self) -> f64 {
        match self {
            Self::Audio => AUDIO_RATE,
            Self::Video { rate, .. } | Self::SrtLive { rate, .. } | Self::Constant { rate, .. } => {
                rate
            }
        }
    }

    /// Bytes of a full packet.
    #[must_use]
    pub fn packet_size(self) -> u16 {
        match self {
            Self::Audio => AUDIO_SIZE,
            Self::Video { size, .. } | Self::SrtLive { size, .. } | Self::Constant { size, .. } => {
                size
            }
        }
    }

    /// Frames per second, or what stands for them; 0 where nothing is sent.
    fn beats_per_second(self) -> f64 {
        match self {
            Self::Audio => AUDIO_RATE,
            Self::Video { rate, .. } | Self::SrtLive { rate, .. } if rate <= 0.0 => 0.0,
            Self::Video { frames, .. } => f64::from(frames),
            Self::SrtLive { .. } => WRITES_PER_SECOND,
            Self::Constant { rate, burst, .. } => rate / f64::from(burst.max(1)),
        }
    }

    /// Beats from one keyframe to the next.
    fn cycle(self) -> u64 {
        match self {
            Self::Video { frames, .. } => 2 * u64::from(frames.max(1)),
            Self::SrtLive { .. } => LIVE_FRAMES * WRITES_PER_FRAME,
            Self::Audio | Self::Constant { .. } => 1,
        }
    }

    /// Packets that beat `number` is due, with the fraction that is left for later ones.
    fn packets_due(self, number: u64, seed: u64) -> f64 {
        match self {
            Self::Audio => 1.0,
            Self::Video { rate, frames, .. } => {
                let cycle = self.cycle() as f64;
                // The others of a cycle and the keyframe together make two seconds of the rate.
                let usual = rate * cycle / (f64::from(frames.max(1)) * (cycle - 1.0 + KEYFRAME));
                let is_keyframe = number.is_multiple_of(self.cycle());
                if is_keyframe { usual * KEYFRAME } else { usual }
            }
            Self::SrtLive { rate, .. } => {
                let frame = number / WRITES_PER_FRAME;
                rate / WRITES_PER_SECOND * live_weight(frame, seed)
            }
            Self::Constant { burst, .. } => f64::from(burst.max(1)),
        }
    }

    /// Bytes of the last packet of beat `number`: a frame ends where it ends.
    fn tail(self, number: u64, seed: u64) -> u16 {
        let size = self.packet_size();
        match self {
            Self::Video { .. } if size > TAIL_MIN => {
                let any =
                    payload::mix(seed ^ payload::mix(number)) % u64::from(size - TAIL_MIN + 1);
                TAIL_MIN + any as u16
            }
            Self::Video { .. } | Self::Audio | Self::SrtLive { .. } | Self::Constant { .. } => size,
        }
    }
}

/// How large a frame of a live feed is beside the average. Two neighbours differ from it by as much
/// in opposite directions, so that every cycle has the same sum.
fn live_weight(frame: u64, seed: u64) -> f64 {
    let place = frame % LIVE_FRAMES;
    let cycle = LIVE_FRAMES as f64;
    if place == 0 {
        return LIVE_KEYFRAME;
    }
    let usual = (cycle - LIVE_KEYFRAME) / (cycle - 1.0);
    if place == LIVE_FRAMES - 1 {
        return usual;
    }
    let pair = frame / LIVE_FRAMES * LIVE_FRAMES + (place - 1) / 2;
    let swing = (payload::mix(seed ^ payload::mix(pair)) % 1_000) as f64 / 1_000.0 * LIVE_SWING;
    if place.is_multiple_of(2) { usual * (1.0 + swing) } else { usual * (1.0 - swing) }
}

/// A rhythm that goes on.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    rhythm: Rhythm,
    pacer: Pacer,
    next_beat: u64,
    seed: u64,
    /// What earlier beats were due and could not send, being less than a packet.
    carry: f64,
}

impl Beat {
    /// Starts with the frame that `seed` says, up to one frame's time after `start_ns`: senders that
    /// start together do not beat together. `None` for a rate of nothing.
    #[must_use]
    pub fn start(rhythm: Rhythm, start_ns: u64, seed: u64) -> Option<Self> {
        let rate = rhythm.beats_per_second();
        let period = SECOND as f64 / rate;
        let phase = payload::mix(seed) % (period as u64).max(1);
        let next_beat = payload::mix(!seed) % rhythm.cycle();
        let pacer = Pacer::new(start_ns.saturating_add(phase), rate)?;
        Some(Self { rhythm, pacer, next_beat, seed, carry: 0.0 })
    }

    /// When the next frame is due.
    #[must_use]
    pub fn next_at(&self) -> u64 {
        self.pacer.next_at()
    }

    /// Takes the next frame if it is due.
    pub fn take(&mut self, now_ns: u64) -> Option<Frame> {
        let intended_ns = self.pacer.take(now_ns)?;
        let due = self.carry + self.rhythm.packets_due(self.next_beat, self.seed);
        // A sum of fractions that should be whole may lie a hair below.
        let packets = (due + 1e-6).floor();
        self.carry = due - packets;
        let last_size = self.rhythm.tail(self.next_beat, self.seed);
        self.next_beat += 1;
        Some(Frame {
            intended_ns,
            packets: packets as u16,
            size: self.rhythm.packet_size(),
            last_size,
        })
    }
}

/// Which beat of which session is due next.
///
/// It holds times only; the beats stay with their sessions. An entry that no longer fits its beat is
/// left over from an earlier session of the slot, or an earlier start, and is for the owner to skip.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    due: BinaryHeap<Reverse<(u64, usize, usize)>>,
}

impl Schedule {
    /// Plans track `index` of the session in `slot`.
    pub(crate) fn plan(&mut self, beat: &Beat, slot: usize, index: usize) {
        self.due.push(Reverse((beat.next_at(), slot, index)));
    }

    /// Takes what is due: its time, slot and track.
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<(u64, usize, usize)> {
        self.due.peek().filter(|Reverse((at, ..))| *at <= now_ns)?;
        self.due.pop().map(|Reverse(entry)| entry)
    }

    pub(crate) fn next_at(&self) -> u64 {
        self.due.peek().map_or(u64::MAX, |Reverse((at, ..))| *at)
    }

    pub(crate) fn clear(&mut self) {
        self.due.clear();
    }
}

const AUDIO_RATE: f64 = 50.0;
const AUDIO_SIZE: u16 = 100;
/// A keyframe is about eight times as large as what changes from frame to frame.
const KEYFRAME: f64 = 8.0;
/// Headers and a stamp have to fit into the shortest tail.
const TAIL_MIN: u16 = 64;
/// Two seconds at 25 frames per second.
const LIVE_FRAMES: u64 = 50;
/// Rate control of a live encoder allows a keyframe less than a browser's does.
const LIVE_KEYFRAME: f64 = 4.0;
/// How far a frame's size may lie from the average.
const LIVE_SWING: f64 = 0.5;
const WRITES_PER_FRAME: u64 = 4;
const WRITES_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: Rhythm = Rhythm::SrtLive { rate: 200.0, size: 1_316 };
    const VIDEO: Rhythm = Rhythm::BROWSER_VIDEO;

    fn frames(rhythm: Rhythm, seed: u64, seconds: u64) -> Vec<Frame> {
        let mut beat = Beat::start(rhythm, 0, seed).unwrap();
        let end = beat.next_at() + seconds * SECOND - 1;
        std::iter::from_fn(|| beat.take(end)).collect()
    }

    /// Packets and the largest frame of ten seconds.
    fn ten_seconds(rhythm: Rhythm, seed: u64) -> (u64, u16) {
        let frames = frames(rhythm, seed, 10);
        let largest = frames.iter().map(|frame| frame.packets).max().unwrap();
        (frames.iter().map(|frame| u64::from(frame.packets)).sum(), largest)
    }

    #[test]
    fn audio_is_50_packets_of_100_bytes_per_second() {
        assert_eq!(ten_seconds(Rhythm::Audio, 1), (500, 1));
        assert!(frames(Rhythm::Audio, 1, 1).iter().all(|frame| frame.last_size == 100));
    }

    #[test]
    fn video_is_30_frames_per_second_with_a_keyframe_in_two_seconds() {
        for seed in 0..5 {
            assert_eq!(ten_seconds(VIDEO, seed), (5 * (59 * 2 + 16), 16));
            assert_eq!(frames(VIDEO, seed, 10).len(), 300);
        }
    }

    #[test]
    fn a_video_frame_ends_with_a_shorter_packet_that_still_holds_a_stamp() {
        let frames = frames(VIDEO, 1, 10);
        assert!(frames.iter().all(|frame| (TAIL_MIN..=1_200).contains(&frame.last_size)));
        let shorter = frames.iter().filter(|frame| frame.last_size < 1_200).count();
        assert!(shorter > frames.len() * 9 / 10);
    }

    #[test]
    fn video_of_any_rate_keeps_it() {
        for (rate, frames) in [(200.0, 25), (1_000.0, 30), (30.0, 30)] {
            let (packets, _) = ten_seconds(Rhythm::Video { rate, frames, size: 1_316 }, 3);
            assert!((packets as f64 - rate * 10.0).abs() <= rate, "{packets} at {rate}");
        }
    }

    #[test]
    fn a_live_feed_keeps_its_mean_in_bursts_of_differing_size() {
        let frames = frames(LIVE, 4, 10);
        let packets: u64 = frames.iter().map(|frame| u64::from(frame.packets)).sum();
        assert!(packets.abs_diff(2_000) <= 8, "{packets}");
        let mut sizes: Vec<u16> = frames.iter().map(|frame| frame.packets).collect();
        sizes.sort_unstable();
        sizes.dedup();
        assert!(sizes.len() > 3 && sizes.last() == Some(&8), "{sizes:?}");
        assert!(frames.iter().all(|frame| frame.last_size == 1_316));
    }

    #[test]
    fn a_constant_rate_keeps_its_rate_whatever_the_burst() {
        for burst in [1, 8, 32] {
            let rhythm = Rhythm::Constant { rate: 320.0, burst, size: 500 };
            assert_eq!(ten_seconds(rhythm, 3), (3_200, burst));
        }
    }

    #[test]
    fn keyframes_of_different_senders_do_not_coincide() {
        let first_keyframe = |seed| {
            frames(VIDEO, seed, 4)
                .iter()
                .find(|frame| frame.packets == 16)
                .map(|frame| frame.intended_ns)
        };
        let mut times: Vec<_> = (0..100).map(first_keyframe).collect();
        times.sort_unstable();
        times.dedup();
        assert!(times.len() > 90, "{}", times.len());
    }

    #[test]
    fn a_rate_of_nothing_does_not_beat() {
        for rhythm in [
            Rhythm::Constant { rate: 0.0, burst: 1, size: 100 },
            Rhythm::SrtLive { rate: 0.0, size: 100 },
            Rhythm::Video { rate: 0.0, frames: 25, size: 100 },
        ] {
            assert!(Beat::start(rhythm, 0, 1).is_none());
        }
    }

    #[test]
    fn the_schedule_gives_what_is_due_in_order_of_time() {
        let mut schedule = Schedule::default();
        let beats = [30.0, 10.0, 20.0]
            .map(|rate| Beat::start(Rhythm::Constant { rate, burst: 1, size: 64 }, 0, 1).unwrap());
        for (slot, beat) in beats.iter().enumerate() {
            schedule.plan(beat, slot, 0);
        }
        let mut order: Vec<_> = std::iter::from_fn(|| schedule.pop_due(u64::MAX)).collect();
        assert_eq!(order.len(), 3);
        assert!(order.is_sorted());
        order.clear();
        assert_eq!(schedule.next_at(), u64::MAX);
    }
}
