//! What test media carries, and what the receiving side concludes from it.
//!
//! Each payload names its stream, its place in the stream, when it should have left and when it
//! did. The last eight bytes repeat a mix of the first fields: a payload cut short, glued together
//! or delivered to the wrong session does not pass.

use hdrhistogram::Histogram;

/// What a payload says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The stream's [`identity`].
    pub stream: u64,
    /// Position in the stream, from 0.
    pub sequence: u64,
    /// When the pacing wanted it to leave, in monotonic nanoseconds.
    pub intended_ns: u64,
    /// When it was handed to the kernel, in monotonic nanoseconds.
    pub sent_ns: u64,
}

/// The smallest payload that can carry a [`Stamp`].
pub const LEN_MIN: usize = 48;

const MAGIC: u64 = u64::from_be_bytes(*b"RINGWAY1");

impl Stamp {
    /// Writes itself over the front and the end of `payload`; the bytes between stay. A payload
    /// shorter than [`LEN_MIN`] is left as it is and will count as foreign.
    pub fn write(&self, payload: &mut [u8]) {
        let Some((front, rest)) = payload.split_first_chunk_mut::<40>() else {
            return;
        };
        let Some(seal) = rest.last_chunk_mut::<8>() else {
            return;
        };
        let words = [MAGIC, self.stream, self.sequence, self.intended_ns, self.sent_ns];
        for (place, word) in front.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_be_bytes();
        }
        *seal = self.seal().to_be_bytes();
    }

    /// Reads a payload.
    #[must_use]
    pub fn read(payload: &[u8]) -> Reading {
        let Some((front, rest)) = payload.split_first_chunk::<40>() else {
            return Reading::Foreign;
        };
        let [magic, stream, sequence, intended_ns, sent_ns] = words(front);
        if magic != MAGIC {
            return Reading::Foreign;
        }
        let stamp = Self { stream, sequence, intended_ns, sent_ns };
        match rest.last_chunk::<8>() {
            Some(seal) if u64::from_be_bytes(*seal) == stamp.seal() => Reading::Stamped(stamp),
            Some(_) | None => Reading::Damaged,
        }
    }

    fn seal(&self) -> u64 {
        mix(self.stream ^ mix(self.sequence ^ mix(self.sent_ns)))
    }
}

/// What a payload turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Whole and ours.
    Stamped(Stamp),
    /// Ours, but its seal does not fit.
    Damaged,
    /// Somebody else's media.
    Foreign,
}

/// A number for the stream called `path`; the same on both ends without anything being agreed.
#[must_use]
pub fn identity(path: &str) -> u64 {
    path.trim_matches('/')
        .bytes()
        .fold(0x9E37_79B9_7F4A_7C15, |hash, byte| mix(hash ^ u64::from(byte)))
}

/// `length` bytes that compress badly and are the same for the same seed.
#[must_use]
pub fn filler(seed: u64, length: usize) -> Vec<u8> {
    (0..length.div_ceil(8) as u64)
        .flat_map(|word| mix(seed ^ mix(word)).to_be_bytes())
        .take(length)
        .collect()
}

/// Order, loss and duplicates of one stream.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// The sequence after the highest seen.
    next: u64,
    /// Bit n of word n / 64 says whether sequence `next - 1 - n` has come.
    seen: [u64; WINDOW / 64],
}

/// How far back a packet may come and still be told from a duplicate.
const WINDOW: usize = 1_024;

/// What one sequence number says about the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// After the highest seen, with this many left out between.
    Ahead {
        /// Missing until they come late.
        skipped: u64,
    },
    /// Behind a later one: reordered, and no longer missing.
    Late,
    /// Seen before.
    Duplicate,
    /// So far behind that the window no longer knows; counted as reordered.
    Ancient,
}

impl Order {
    /// Takes note of one packet.
    pub fn observe(&mut self, sequence: u64) -> Arrival {
        if let Some(skipped) = sequence.checked_sub(self.next) {
            self.shift(skipped + 1);
            self.next = sequence + 1;
            self.mark(0);
            return Arrival::Ahead { skipped };
        }
        match usize::try_from(self.next - 1 - sequence) {
            Ok(back) if back < WINDOW => {
                if self.mark(back) {
                    Arrival::Duplicate
                } else {
                    Arrival::Late
                }
            }
            Ok(_) | Err(_) => Arrival::Ancient,
        }
    }

    /// Sets the bit and says whether it was set before.
    fn mark(&mut self, back: usize) -> bool {
        let bit = 1 << (back % 64);
        let Some(word) = self.seen.get_mut(back / 64) else {
            return false;
        };
        let before = *word & bit != 0;
        *word |= bit;
        before
    }

    /// Makes room for `places` newer sequences.
    fn shift(&mut self, places: u64) {
        if places >= WINDOW as u64 {
            self.seen = [0; WINDOW / 64];
            return;
        }
        // One place at a time is the usual case; a gap costs one round per missing packet, at most
        // WINDOW.
        for _ in 0..places {
            let mut carry = 0;
            for word in &mut self.seen {
                let out = *word >> 63;
                *word = *word << 1 | carry;
                carry = out;
            }
        }
    }
}

/// Counts of a receiving side, over all of its streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Whole media packets of ours, each counted once.
    pub received: u64,
    /// Packets that a later one overtook.
    pub reordered: u64,
    /// Packets that came more than once.
    pub duplicates: u64,
    /// Gaps that nothing has filled. What is missing at the end of a stream leaves no gap: compare
    /// with what was sent.
    pub missing: u64,
    /// Cut, glued, or delivered to the wrong session.
    pub damaged: u64,
    /// Media that this tool did not make.
    pub foreign: u64,
}

impl Tally {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            received: self.received + other.received,
            reordered: self.reordered + other.reordered,
            duplicates: self.duplicates + other.duplicates,
            missing: self.missing + other.missing,
            damaged: self.damaged + other.damaged,
            foreign: self.foreign + other.foreign,
        }
    }

    /// What was counted after `before`. Gaps of before that have been filled since are no credit.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            received: self.received - before.received,
            reordered: self.reordered - before.reordered,
            duplicates: self.duplicates - before.duplicates,
            missing: self.missing.saturating_sub(before.missing),
            damaged: self.damaged - before.damaged,
            foreign: self.foreign - before.foreign,
        }
    }

    /// Judges one payload that session `stream` received. Returns its stamp when it counts for
    /// latency.
    pub fn judge(&mut self, order: &mut Order, stream: u64, payload: &[u8]) -> Option<Stamp> {
        let stamp = match Stamp::read(payload) {
            Reading::Stamped(stamp) if stamp.stream == stream => stamp,
            Reading::Stamped(_) | Reading::Damaged => {
                self.damaged += 1;
                return None;
            }
            Reading::Foreign => {
                self.foreign += 1;
                return None;
            }
        };
        match order.observe(stamp.sequence) {
            Arrival::Ahead { skipped } => self.missing += skipped,
            Arrival::Late => {
                self.reordered += 1;
                self.missing = self.missing.saturating_sub(1);
            }
            Arrival::Ancient => self.reordered += 1,
            Arrival::Duplicate => {
                self.duplicates += 1;
                return None;
            }
        }
        self.received += 1;
        Some(stamp)
    }
}

/// A histogram for nanoseconds up to a minute, three digits. Reserved in full: recording never
/// allocates.
#[must_use]
#[allow(clippy::expect_used, reason = "the bounds are constants that the constructor accepts")]
pub fn nanoseconds() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .expect("1 < 60 s and 3 digits are within bounds")
}

fn words<const N: usize>(bytes: &[u8; 40]) -> [u64; N] {
    let mut chunks = bytes.as_chunks::<8>().0.iter();
    std::array::from_fn(|_| chunks.next().map_or(0, |chunk| u64::from_be_bytes(*chunk)))
}

/// The finishing step of splitmix64: every input bit reaches every output bit.
#[must_use]
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: u64 = 7;

    fn payload(sequence: u64) -> Vec<u8> {
        let mut payload = filler(1, 1_316);
        Stamp { stream: STREAM, sequence, intended_ns: 5, sent_ns: 6 }.write(&mut payload);
        payload
    }

    fn judged(sequences: impl IntoIterator<Item = u64>) -> Tally {
        let (mut tally, mut order) = (Tally::default(), Order::default());
        for sequence in sequences {
            tally.judge(&mut order, STREAM, &payload(sequence));
        }
        tally
    }

    #[test]
    fn a_stamp_reads_back_as_it_was_written() {
        let stamp = Stamp { stream: 1, sequence: 2, intended_ns: 3, sent_ns: u64::MAX };
        let mut payload = filler(9, LEN_MIN);
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Reading::Stamped(stamp));
    }

    #[test]
    fn a_payload_that_was_cut_is_damaged() {
        let whole = payload(0);
        assert_eq!(Stamp::read(&whole[..1_300]), Reading::Damaged);
        assert_eq!(Stamp::read(&whole[..41]), Reading::Damaged);
    }

    #[test]
    fn a_payload_too_small_for_a_stamp_is_left_alone_and_foreign() {
        let mut small = [1; LEN_MIN - 1];
        Stamp { stream: 1, sequence: 2, intended_ns: 3, sent_ns: 4 }.write(&mut small);
        assert_eq!(small, [1; LEN_MIN - 1]);
        assert_eq!(Stamp::read(&small), Reading::Foreign);
    }

    #[test]
    fn media_of_another_stream_is_damage() {
        let (mut tally, mut order) = (Tally::default(), Order::default());
        assert_eq!(tally.judge(&mut order, STREAM + 1, &payload(0)), None);
        assert_eq!(tally, Tally { damaged: 1, ..Tally::default() });
    }

    #[test]
    fn media_of_others_is_counted_as_foreign() {
        let (mut tally, mut order) = (Tally::default(), Order::default());
        assert_eq!(tally.judge(&mut order, STREAM, &[0x47; 1_316]), None);
        assert_eq!(tally, Tally { foreign: 1, ..Tally::default() });
    }

    #[test]
    fn packets_in_order_leave_nothing_to_complain_about() {
        assert_eq!(judged(0..5_000), Tally { received: 5_000, ..Tally::default() });
    }

    #[test]
    fn a_gap_is_missing_until_it_is_filled() {
        assert_eq!(judged([0, 3]), Tally { received: 2, missing: 2, ..Tally::default() });
        assert_eq!(
            judged([0, 3, 1]),
            Tally { received: 3, missing: 1, reordered: 1, ..Tally::default() }
        );
    }

    #[test]
    fn the_start_of_a_stream_can_be_missing_too() {
        assert_eq!(judged([2]), Tally { received: 1, missing: 2, ..Tally::default() });
    }

    #[test]
    fn a_repeat_is_a_duplicate_and_not_received_again() {
        assert_eq!(judged([0, 1, 0, 1]), Tally { received: 2, duplicates: 2, ..Tally::default() });
    }

    #[test]
    fn a_late_packet_that_is_repeated_is_a_duplicate() {
        assert_eq!(
            judged([0, 2, 1, 1]),
            Tally { received: 3, reordered: 1, duplicates: 1, ..Tally::default() }
        );
    }

    #[test]
    fn the_window_keeps_what_it_knows_across_words() {
        let last = WINDOW as u64 - 1;
        let sequences = (0..=last).filter(|sequence| *sequence != 0).chain([0, 1]);
        assert_eq!(
            judged(sequences),
            Tally { received: WINDOW as u64, reordered: 1, duplicates: 1, ..Tally::default() }
        );
    }

    #[test]
    fn a_packet_from_before_the_window_counts_as_reordered() {
        assert_eq!(
            judged([0, 5_000, 1]),
            Tally { received: 3, missing: 4_999, reordered: 1, ..Tally::default() }
        );
    }

    #[test]
    fn streams_have_identities_that_ignore_outer_slashes() {
        assert_eq!(identity("/live/a"), identity("live/a"));
        assert_ne!(identity("live/a"), identity("live/b"));
    }
}
