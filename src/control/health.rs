//! Whether an origin is worth trying, learned from nothing but the sessions that were tried with
//! it.
//!
//! A heartbeat says that an origin's process lives, and a configured origin says nothing at all.
//! One that cannot be reached is avoided for a while, so that the next attempt goes to another.
//! Handshakes that it refuses are answers: they say nothing against it. No I/O here; the clock is
//! an argument.

use std::time::{Duration, Instant};

/// What the last attempts say of an origin.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Health {
    /// How long it was avoided last; `None` when it has answered since.
    avoided_for: Option<Duration>,
    avoided_until: Option<Instant>,
}

impl Health {
    /// Whether new streams go elsewhere, where there is an elsewhere.
    pub(super) fn is_failing(&self, now: Instant) -> bool {
        self.avoided_until.is_some_and(|until| now < until)
    }

    /// An attempt got no answer. Returns for how long the origin is avoided, unless it is avoided
    /// already: many callers may have found out at once.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Duration> {
        if self.is_failing(now) {
            return None;
        }
        let avoid = self.avoided_for.map_or(AVOID_MIN, |last| (last * 2).min(AVOID_MAX));
        *self = Self { avoided_for: Some(avoid), avoided_until: Some(now + avoid) };
        Some(avoid)
    }

    /// An attempt succeeded. Returns whether that is news.
    pub(super) fn succeeded(&mut self) -> bool {
        let last = std::mem::take(self);
        last.avoided_for.is_some()
    }
}

/// After the first failure.
const AVOID_MIN: Duration = Duration::from_secs(5);
/// After many: an origin that is repaired waits no longer than this for its first stream.
const AVOID_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_that_was_never_tried_is_not_failing() {
        assert!(!Health::default().is_failing(Instant::now()));
    }

    #[test]
    fn a_failure_counts_for_five_seconds() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert_eq!(health.failed(now), Some(AVOID_MIN));
        assert!(health.is_failing(now + AVOID_MIN - Duration::from_millis(1)));
        assert!(!health.is_failing(now + AVOID_MIN));
    }

    #[test]
    fn failures_that_are_found_out_together_count_as_one() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.failed(now);
        assert_eq!(health.failed(now), None);
        assert!(!health.is_failing(now + AVOID_MIN));
    }

    #[test]
    fn each_further_failure_doubles_the_time_up_to_a_minute() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        let mut times = Vec::new();
        for _ in 0..6 {
            let avoided = health.failed(now).unwrap();
            times.push(avoided.as_secs());
            now += avoided;
        }
        assert_eq!(times, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn a_success_forgets_all_failures() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.failed(now);
        health.failed(now + AVOID_MIN);
        assert!(health.succeeded());
        assert!(!health.is_failing(now + AVOID_MIN));
        assert!(!health.succeeded());
        assert_eq!(health.failed(now), Some(AVOID_MIN));
    }
}
