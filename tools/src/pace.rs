//! Open-loop pacing: when each send should happen, whatever the sends before it did.
//!
//! Ticks lie on a fixed grid. A tick that is served late keeps its intended time, so a stall shows
//! up as lateness of every tick it covered and not as a lower rate (coordinated omission).

use crate::clock::SECOND;

/// A grid of ticks.
#[derive(Clone, Copy, Debug)]
pub struct Pacer {
    start_ns: u64,
    /// A fraction of a nanosecond per tick adds up to a visible rate error within minutes.
    period_ns: f64,
    next: u64,
}

impl Pacer {
    /// `per_second` ticks per second, the first at `start_ns`. `None` when the rate is not
    /// positive.
    #[must_use]
    pub fn new(start_ns: u64, per_second: f64) -> Option<Self> {
        let period_ns = SECOND as f64 / per_second;
        (per_second > 0.0 && period_ns.is_finite()).then_some(Self { start_ns, period_ns, next: 0 })
    }

    /// The grid that goes on at another rate where this one's next tick lies, or a new period from
    /// now if that is sooner. Ticks that are overdue stay due at their times: a change of rate
    /// forgives no stall. `None` when the rate is not positive.
    #[must_use]
    pub fn at_rate(&self, now_ns: u64, per_second: f64) -> Option<Self> {
        let next = Self::new(now_ns, per_second)?;
        let start_ns = self.next_at().min(now_ns.saturating_add(next.period_ns as u64));
        Some(Self { start_ns, ..next })
    }

    /// When the next tick is due.
    #[must_use]
    pub fn next_at(&self) -> u64 {
        self.start_ns + (self.next as f64 * self.period_ns) as u64
    }

    /// Takes the next tick if it is due and returns its intended time.
    pub fn take(&mut self, now_ns: u64) -> Option<u64> {
        let at = self.next_at();
        (at <= now_ns).then(|| {
            self.next += 1;
            at
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_keep_the_rate_over_a_minute() {
        let mut pacer = Pacer::new(0, 30_000.0).unwrap();
        let mut ticks = 0;
        while pacer.take(60 * SECOND - 1).is_some() {
            ticks += 1;
        }
        assert_eq!(ticks, 30_000 * 60);
    }

    #[test]
    fn a_tick_served_late_keeps_its_intended_time() {
        let mut pacer = Pacer::new(100, 1_000.0).unwrap();
        let late = 100 + 10 * 1_000_000;
        assert_eq!(pacer.take(late), Some(100));
        assert_eq!(pacer.take(late), Some(100 + 1_000_000));
    }

    #[test]
    fn a_tick_is_not_served_early() {
        let mut pacer = Pacer::new(100, 1_000.0).unwrap();
        assert_eq!(pacer.take(99), None);
        assert_eq!(pacer.next_at(), 100);
    }

    #[test]
    fn a_change_of_rate_keeps_what_is_overdue() {
        let mut pacer = Pacer::new(0, 1_000.0).unwrap();
        pacer.take(0).unwrap();
        let mut faster = pacer.at_rate(10 * 1_000_000, 2_000.0).unwrap();
        let now = 10 * 1_000_000;
        assert_eq!(faster.take(now), Some(1_000_000));
        assert_eq!(faster.take(now), Some(1_500_000));
    }

    #[test]
    fn a_higher_rate_does_not_wait_for_the_tick_of_a_low_one() {
        let mut pacer = Pacer::new(0, 0.1).unwrap();
        pacer.take(0).unwrap();
        assert_eq!(pacer.at_rate(500, 1_000.0).unwrap().next_at(), 500 + 1_000_000);
    }

    #[test]
    fn a_rate_of_nothing_has_no_ticks() {
        assert!(Pacer::new(0, 0.0).is_none());
        assert!(Pacer::new(0, f64::NAN).is_none());
    }
}
