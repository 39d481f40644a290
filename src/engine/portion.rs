//! How much to receive before sending it on: what the CPU's caches hold.
//!
//! A datagram is copied twice, out of the kernel when it is received and back when it is sent. The
//! second copy is cheap while its source is still in the cache, and so is the first while its
//! target, a buffer that was sent from a moment ago, still is. So a backlog is taken in portions.
//! Larger ones are worth it only where they make sends longer, and that is learnt from the batches
//! themselves: where each datagram has a route of its own, portions are small, but for a large one
//! now and then that shows whether it is still so.

use super::gso::Batch;

/// The size of a portion, from what has been arriving.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portion {
    /// Decaying mean of the bytes that one receive brings.
    mean: usize,
    /// Batches since their datagrams have been going each its own way; `None` where they share
    /// routes.
    scattered: Option<u32>,
}

impl Portion {
    /// Receives in a portion of the largest trains.
    pub(super) const RECEIVES_MIN: usize = 6;

    /// Before anything has arrived.
    pub(super) const fn new() -> Self {
        Self { mean: 0, scattered: None }
    }

    /// A receive has brought `bytes`.
    pub(super) fn note(&mut self, bytes: usize) {
        self.mean = (self.mean * (WEIGHT - 1) + bytes.min(TRAIN_MAX)).div_ceil(WEIGHT);
    }

    /// Learns from a batch that is about to leave.
    pub(super) fn judge(&mut self, batch: &Batch) {
        if batch.len() < SMALL {
            return; // There was no backlog.
        }
        self.scattered = match self.scattered {
            _ if shares_routes(batch) => None,
            None => Some(1),
            Some(batches) => Some(batches.wrapping_add(1)),
        };
    }

    /// Receives that make a portion, trains and single datagrams alike. Many are a multiple of what
    /// clients and servers like to send in a row, so that fewer rows are cut in two.
    pub(super) fn receives(self) -> usize {
        let fit = (BYTES / self.mean.max(1)).max(Self::RECEIVES_MIN);
        let fit = if fit > ROW { fit - fit % ROW } else { fit };
        if self.is_small() { fit.min(SMALL) } else { fit }
    }

    /// Whether `batch` should leave although more has arrived.
    ///
    /// It should not while it fits into the cache, nor while datagrams of the same routes keep
    /// coming (many interleaved sessions with a backlog) and their sends are still short.
    pub(super) fn is_enough(self, batch: &Batch) -> bool {
        if self.is_small() {
            return batch.len() >= SMALL;
        }
        let sends_grow = shares_routes(batch) && batch.len() < SEGMENTS_ENOUGH * batch.routes();
        batch.bytes() >= ENOUGH && !sends_grow
    }

    fn is_small(self) -> bool {
        self.scattered.is_some_and(|batches| !batches.is_multiple_of(TRIAL_EVERY))
    }
}

/// Whether a fifth of the datagrams at least follow another of their route.
fn shares_routes(batch: &Batch) -> bool {
    batch.len() * 4 >= batch.routes() * 5
}

/// A part of the second-level cache; the rest goes to what the kernel copies from and to.
const BYTES: usize = 256 << 10;

/// A batch of so much leaves, for with another round of receives it would be twice the size.
const ENOUGH: usize = BYTES / 4 * 3;

/// Datagrams in a small portion: they stay in a first-level cache of 32 to 48 KiB.
const SMALL: usize = 16;

/// Datagrams of one flow in a row, as senders in batches have them.
const ROW: usize = 32;

/// Datagrams per send from which on longer sends save next to nothing.
const SEGMENTS_ENOUGH: usize = 16;

/// So many small portions for a large one. A large one has some 200 datagrams of media.
const TRIAL_EVERY: u32 = 256;

/// The largest payload of a receive.
const TRAIN_MAX: usize = 64 << 10;

/// The mean follows the last so many receives.
const WEIGHT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{Port, Route, SessionKey};

    fn after(bytes: usize) -> Portion {
        let mut portion = Portion::new();
        (0..100).for_each(|_| portion.note(bytes));
        portion
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
    fn a_portion_has_many_single_datagrams_and_few_trains() {
        assert_eq!(after(1_332).receives(), 192);
        assert_eq!(after(32 * 1_332).receives(), Portion::RECEIVES_MIN);
        assert!(after(100).receives() > 2_000);
    }

    #[test]
    fn datagrams_without_payload_make_the_largest_portion() {
        assert_eq!(after(0).receives(), BYTES);
        assert_eq!(Portion::new().receives(), BYTES);
    }

    #[test]
    fn what_fits_into_the_cache_is_not_enough() {
        assert!(!Portion::new().is_enough(&batch(140, 140)));
        assert!(!Portion::new().is_enough(&batch(140, 1)));
    }

    #[test]
    fn more_is_taken_while_it_makes_sends_longer() {
        assert!(Portion::new().is_enough(&batch(400, 400)));
        assert!(!Portion::new().is_enough(&batch(200, 100)));
        assert!(Portion::new().is_enough(&batch(1_600, 100)));
    }

    #[test]
    fn where_every_datagram_has_its_own_route_portions_are_small() {
        let mut portion = after(1_332);
        portion.judge(&batch(196, 196));
        assert_eq!(portion.receives(), SMALL);
        assert!(portion.is_enough(&batch(SMALL, SMALL as u32)));
    }

    #[test]
    fn a_large_portion_now_and_then_finds_out_that_routes_are_shared() {
        let mut portion = after(1_332);
        portion.judge(&batch(196, 196));
        let mut small = 0;
        while portion.receives() == SMALL {
            portion.judge(&batch(SMALL, SMALL as u32));
            small += 1;
        }
        assert_eq!(small, TRIAL_EVERY - 1);
        portion.judge(&batch(196, 100));
        assert_eq!(portion.receives(), 192, "and stays large");
    }

    #[test]
    fn a_batch_without_a_backlog_teaches_nothing() {
        let mut portion = after(1_332);
        portion.judge(&batch(SMALL - 1, SMALL as u32 - 1));
        assert_eq!(portion.receives(), 192);
    }
}
