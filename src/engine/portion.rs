//! How much to receive before sending it on: what the CPU's second-level cache holds.
//!
//! A datagram is copied twice, out of the kernel when it is received and back when it is sent. The
//! second copy is cheap while its source is still in the cache, and so is the first while its
//! target, a buffer that was sent from a moment ago, still is. So a backlog is taken in portions.
//! Larger ones are worth it only while they make sends longer: see [`Portion::is_enough`].

use super::gso::Batch;

/// The size of a portion, from the size of what has been arriving.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portion {
    /// Decaying mean of the bytes that one receive brings.
    mean: usize,
}

impl Portion {
    /// Before anything has arrived.
    pub(super) const fn new() -> Self {
        Self { mean: 0 }
    }

    /// A receive has brought `bytes`.
    pub(super) fn note(&mut self, bytes: usize) {
        self.mean = (self.mean * (WEIGHT - 1) + bytes.min(TRAIN_MAX)).div_ceil(WEIGHT);
    }

    /// Receives that fit, trains and single datagrams alike.
    pub(super) fn receives(self) -> usize {
        (BYTES / self.mean.max(1)).max(RECEIVES_MIN)
    }

    /// Whether `batch` should leave although more has arrived.
    ///
    /// It should not while it fits into the cache, nor while datagrams of the same routes keep
    /// coming (many interleaved sessions with a backlog) and their sends are still short.
    pub(super) fn is_enough(batch: &Batch) -> bool {
        let (datagrams, routes) = (batch.len(), batch.routes());
        let sends_grow = datagrams >= 2 * routes && datagrams < SEGMENTS_ENOUGH * routes;
        batch.bytes() >= BYTES && !sends_grow
    }
}

/// Of a second-level cache of 1 to 2 MiB, the rest of which goes to what the kernel copies from and
/// to.
const BYTES: usize = 512 << 10;

/// A portion of the largest trains.
const RECEIVES_MIN: usize = 12;

/// Datagrams per send from which on longer sends save next to nothing.
const SEGMENTS_ENOUGH: usize = 16;

/// The largest payload of a receive.
const TRAIN_MAX: usize = 64 << 10;

/// The mean follows the last so many receives.
const WEIGHT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{Port, Route, SessionKey};

    fn after(bytes: usize) -> usize {
        let mut portion = Portion::new();
        (0..100).for_each(|_| portion.note(bytes));
        portion.receives()
    }

    #[test]
    fn a_portion_has_many_single_datagrams_and_few_trains() {
        assert_eq!(after(1_332), 393);
        assert_eq!(after(32 * 1_332), 12);
        assert!(after(100) > 5_000);
    }

    #[test]
    fn datagrams_without_payload_make_the_largest_portion() {
        assert_eq!(after(0), BYTES);
        assert_eq!(Portion::new().receives(), BYTES);
    }

    fn batch(datagrams: usize, routes: u32) -> Batch {
        let mut batch = Batch::new();
        let bytes = [0; 1_332];
        for slot in (0..routes).cycle().take(datagrams) {
            let port = Port::Session(SessionKey { slot, generation: 0 });
            batch.push(Route { port, to: None }, &bytes);
        }
        batch
    }

    #[test]
    fn what_fits_into_the_cache_is_never_enough() {
        assert!(!Portion::is_enough(&batch(300, 300)));
        assert!(!Portion::is_enough(&batch(300, 1)));
    }

    #[test]
    fn more_is_taken_while_it_makes_sends_longer() {
        assert!(Portion::is_enough(&batch(400, 400)));
        assert!(!Portion::is_enough(&batch(400, 100)));
        assert!(Portion::is_enough(&batch(1_600, 100)));
    }
}
