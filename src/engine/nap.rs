//! Sleeps for parts of a millisecond: how an engine gathers whose kernel cannot do it.

use std::num::NonZeroU64;
use std::time::Instant;

use rustix::thread::{Timespec, clock_nanosleep_absolute, set_current_timer_slack};
use rustix::time::{ClockId, clock_gettime};

/// Ends naps at times of the clock that the loop has read anyway.
///
/// A nap is over at a point in time and not after a duration, so that the time that the thread was
/// busy is part of it: a thread that is busy all the time does not nap at all.
#[derive(Debug)]
pub(super) struct Napper {
    /// One moment on both clocks. They are the same clock, but the library does not say so.
    instant: Instant,
    monotonic: Timespec,
}

impl Napper {
    /// For the thread that calls this.
    pub(super) fn new() -> Self {
        // The kernel may end a sleep late to end several at once, by 50 us unless it is told
        // otherwise. Nothing is lost where it cannot be told.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        Self { instant: Instant::now(), monotonic: clock_gettime(ClockId::Monotonic) }
    }

    /// Sleeps until `end`, or comes back at once where that has passed.
    pub(super) fn until(&self, end: Instant) {
        let after = end.saturating_duration_since(self.instant);
        let nanos = self.monotonic.tv_nsec + i64::from(after.subsec_nanos());
        let end = Timespec {
            tv_sec: self.monotonic.tv_sec + after.as_secs() as i64 + nanos / SECOND,
            tv_nsec: nanos % SECOND,
        };
        // A signal may end it early, which harms nobody.
        let _ = clock_nanosleep_absolute(ClockId::Monotonic, &end);
    }
}

/// In nanoseconds.
const SECOND: i64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_nap_ends_no_sooner_than_it_should_and_soon_after() {
        let napper = Napper::new();
        let naps = (0..20).map(|_| {
            let end = Instant::now() + Duration::from_micros(300);
            napper.until(end);
            let woke = Instant::now();
            // The anchor is read on one clock a moment before it is on the other.
            assert!(woke + Duration::from_micros(5) >= end);
            woke.saturating_duration_since(end)
        });
        let least = naps.min().unwrap();
        assert!(least < Duration::from_millis(20), "{least:?}");
    }

    #[test]
    fn a_nap_until_the_past_is_none() {
        let napper = Napper::new();
        let before = Instant::now();
        napper.until(before);
        napper.until(napper.instant);
        assert!(before.elapsed() < Duration::from_secs(5));
    }
}
