//! How the relay ends: it refuses newcomers, lets sessions run out, says goodbye to the rest,
//! stops.

use std::time::{Duration, Instant};

/// Where the relay stands on its way out.
pub(super) struct Quit {
    phase: Phase,
    /// How long sessions may run on.
    grace: Duration,
    /// How long all of it may take.
    force: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// New sessions are refused; it ends when the last one has, or at `until`.
    Draining {
        until: Instant,
        force_at: Instant,
    },
    /// Goodbyes are being said; it ends when every shard is empty, or at `until`.
    Closing {
        until: Instant,
    },
    Stopped,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Refuse new sessions.
    Drain,
    /// End all sessions with goodbyes.
    CloseAll,
    /// End the threads.
    Stop,
}

impl Quit {
    pub(super) fn new(grace: Duration, force: Duration) -> Self {
        Self { phase: Phase::Serving, grace, force }
    }

    /// The first time the relay begins to drain; the second time it ends at once.
    pub(super) fn ask(&mut self, now: Instant) -> Option<Step> {
        match self.phase {
            Phase::Serving => {
                let force_at = now + self.force;
                // Goodbyes take time, too, and must be said before the end is forced.
                let grace = self.grace.min(self.force.saturating_sub(GOODBYE_TIMEOUT));
                self.phase = Phase::Draining { until: now + grace, force_at };
                Some(Step::Drain)
            }
            Phase::Draining { .. } | Phase::Closing { .. } | Phase::Stopped => self.ask_now(now),
        }
    }

    /// Ends at once: goodbyes are still said, but not waited for long.
    pub(super) fn ask_now(&mut self, now: Instant) -> Option<Step> {
        match self.phase {
            Phase::Serving | Phase::Draining { .. } => {
                self.phase = Phase::Closing { until: now + HASTY_GOODBYE_TIMEOUT.min(self.force) };
                Some(Step::CloseAll)
            }
            Phase::Closing { until } => {
                self.phase = Phase::Closing { until: until.min(now + HASTY_GOODBYE_TIMEOUT) };
                None
            }
            Phase::Stopped => None,
        }
    }

    /// What the passing of time, the end of the last session, or the answers of the shards bring
    /// about.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        sessions: usize,
        are_shards_empty: bool,
    ) -> Option<Step> {
        match self.phase {
            Phase::Draining { until, force_at } if sessions == 0 || now >= until => {
                let until = (now + GOODBYE_TIMEOUT).min(force_at);
                self.phase = Phase::Closing { until };
                Some(Step::CloseAll)
            }
            Phase::Closing { until } if are_shards_empty || now >= until => {
                self.phase = Phase::Stopped;
                Some(Step::Stop)
            }
            Phase::Serving | Phase::Draining { .. } | Phase::Closing { .. } | Phase::Stopped => {
                None
            }
        }
    }

    /// When time alone brings something about.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Draining { until, .. } | Phase::Closing { until } => Some(until),
            Phase::Serving | Phase::Stopped => None,
        }
    }

    /// Whether new sessions are refused.
    pub(super) fn is_draining(&self) -> bool {
        self.phase != Phase::Serving
    }
}

/// How long the shards may take to say goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// The same when somebody is in a hurry.
const HASTY_GOODBYE_TIMEOUT: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(20);
    const FORCE: Duration = Duration::from_secs(30);

    fn quit() -> Quit {
        Quit::new(GRACE, FORCE)
    }

    #[test]
    fn a_relay_that_nobody_asks_to_quit_goes_on() {
        let mut quit = quit();
        assert_eq!(quit.advance(Instant::now() + 100 * FORCE, 0, true), None);
        assert!(!quit.is_draining());
    }

    #[test]
    fn sessions_may_run_out_within_the_grace_time() {
        let (mut quit, now) = (quit(), Instant::now());
        assert_eq!(quit.ask(now), Some(Step::Drain));
        assert!(quit.is_draining());
        assert_eq!(quit.advance(now, 1, false), None);
        assert_eq!(quit.advance(now, 0, false), Some(Step::CloseAll));
        assert_eq!(quit.advance(now, 0, false), None);
        assert_eq!(quit.advance(now, 0, true), Some(Step::Stop));
        assert_eq!(quit.advance(now, 0, true), None);
    }

    #[test]
    fn after_the_grace_time_sessions_are_ended_and_shards_not_waited_for_for_ever() {
        let (mut quit, now) = (quit(), Instant::now());
        quit.ask(now);
        assert_eq!(quit.deadline(), Some(now + GRACE));
        assert_eq!(quit.advance(now + GRACE, 1, false), Some(Step::CloseAll));
        let end = now + GRACE + GOODBYE_TIMEOUT;
        assert_eq!(quit.deadline(), Some(end));
        assert_eq!(quit.advance(end, 1, false), Some(Step::Stop));
    }

    #[test]
    fn the_second_signal_ends_it_at_once() {
        let (mut quit, now) = (quit(), Instant::now());
        quit.ask(now);
        assert_eq!(quit.ask(now), Some(Step::CloseAll));
        assert_eq!(quit.ask(now), None);
        let end = now + HASTY_GOODBYE_TIMEOUT;
        assert_eq!(quit.advance(end, 1, false), Some(Step::Stop));
    }

    #[test]
    fn who_asks_for_now_gets_no_grace_time() {
        let (mut quit, now) = (quit(), Instant::now());
        assert_eq!(quit.ask_now(now), Some(Step::CloseAll));
        assert_eq!(quit.advance(now, 1, true), Some(Step::Stop));
    }

    #[test]
    fn the_force_time_bounds_a_longer_grace_time() {
        let now = Instant::now();
        let mut quit = Quit::new(Duration::from_secs(60), FORCE);
        quit.ask(now);
        let closing = now + FORCE - GOODBYE_TIMEOUT;
        assert_eq!(quit.deadline(), Some(closing));
        assert_eq!(quit.advance(closing, 1, false), Some(Step::CloseAll));
        assert_eq!(quit.advance(now + FORCE, 1, false), Some(Step::Stop));
    }
}
