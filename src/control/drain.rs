//! A relay that an operator takes out of service: it refuses newcomers, lets sessions run on, and
//! stays.
//!
//! Quitting refuses newcomers, too, but ends; neither knows of the other, and whoever lets sessions
//! in asks both. No I/O here; the clock is an argument.

use std::time::{Duration, Instant};

/// Whether the relay is being drained, and how far that has come.
#[derive(Debug, Default)]
pub(super) struct Drain(Option<Draining>);

#[derive(Clone, Copy, Debug)]
struct Draining {
    since: Instant,
    sessions_min: u32,
    /// When whoever drains wants to know who is left; the drain goes on after it.
    deadline: Option<Instant>,
    /// At most `sessions_min` sessions were left once. It stays so: none comes.
    is_drained: bool,
    has_told_of_deadline: bool,
}

/// When the operator calls it done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Goal {
    /// As many sessions may be left.
    pub(super) sessions_min: u32,
    /// How long that may take.
    pub(super) deadline: Option<Duration>,
}

/// News of a drain, each told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// No more sessions are left than the goal allows.
    Drained,
    /// More are left when the time is over.
    DeadlinePassed,
}

/// What is shown of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) age: Duration,
    pub(super) sessions_min: u32,
    /// Time that is left; zero once it is over.
    pub(super) time_left: Option<Duration>,
    pub(super) is_drained: bool,
}

impl Drain {
    /// Newcomers are refused from now on. A second operator's goal takes the place of the first
    /// one's. Returns whether newcomers were welcome before.
    pub(super) fn begin(&mut self, now: Instant, goal: Goal) -> bool {
        let before = self.0.take();
        self.0 = Some(Draining {
            since: before.map_or(now, |before| before.since),
            sessions_min: goal.sessions_min,
            deadline: goal.deadline.and_then(|deadline| now.checked_add(deadline)),
            is_drained: false,
            has_told_of_deadline: false,
        });
        before.is_none()
    }

    /// Newcomers are welcome again. Returns whether they were refused before.
    pub(super) fn end(&mut self) -> bool {
        self.0.take().is_some()
    }

    /// What the passing of time or the end of a session brings about.
    pub(super) fn advance(&mut self, now: Instant, sessions: usize) -> Option<News> {
        let draining = self.0.as_mut()?;
        if draining.is_drained {
            return None;
        }
        if sessions <= draining.sessions_min as usize {
            draining.is_drained = true;
            return Some(News::Drained);
        }
        let is_over = draining.deadline.is_some_and(|deadline| now >= deadline);
        (is_over && !std::mem::replace(&mut draining.has_told_of_deadline, true))
            .then_some(News::DeadlinePassed)
    }

    /// When time alone brings something about.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waits = |draining: &Draining| !draining.is_drained && !draining.has_told_of_deadline;
        self.0.filter(waits)?.deadline
    }

    /// Whether new sessions are refused.
    pub(super) fn is_draining(&self) -> bool {
        self.0.is_some()
    }

    /// How far it has come; `None` while newcomers are welcome.
    pub(super) fn progress(&self, now: Instant) -> Option<Progress> {
        let draining = self.0?;
        Some(Progress {
            age: now.saturating_duration_since(draining.since),
            sessions_min: draining.sessions_min,
            time_left: draining.deadline.map(|at| at.saturating_duration_since(now)),
            is_drained: draining.is_drained,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(600);

    fn drain(now: Instant, sessions_min: u32) -> Drain {
        let mut drain = Drain::default();
        assert!(drain.begin(now, Goal { sessions_min, deadline: Some(DEADLINE) }));
        drain
    }

    #[test]
    fn a_relay_that_nobody_drains_welcomes_newcomers() {
        let mut drain = Drain::default();
        assert!(!drain.is_draining());
        assert_eq!(drain.advance(Instant::now(), 0), None);
        assert_eq!((drain.deadline(), drain.progress(Instant::now())), (None, None));
        assert!(!drain.end());
    }

    #[test]
    fn it_is_drained_once_no_more_sessions_are_left_than_the_goal_allows() {
        let now = Instant::now();
        let mut drain = drain(now, 2);
        assert_eq!(drain.advance(now, 3), None);
        assert_eq!(drain.advance(now, 2), Some(News::Drained));
        assert_eq!(drain.advance(now, 1), None);
        assert!(drain.is_draining(), "a drained relay stays drained");
        assert_eq!(drain.deadline(), None);
    }

    #[test]
    fn a_deadline_is_told_once_and_the_drain_goes_on() {
        let now = Instant::now();
        let mut drain = drain(now, 0);
        assert_eq!(drain.deadline(), Some(now + DEADLINE));
        assert_eq!(drain.advance(now + DEADLINE, 1), Some(News::DeadlinePassed));
        assert_eq!(drain.advance(now + DEADLINE, 1), None);
        assert_eq!(drain.deadline(), None);
        assert!(drain.is_draining());
        assert_eq!(drain.advance(now + 2 * DEADLINE, 0), Some(News::Drained));
    }

    #[test]
    fn without_a_deadline_a_drain_waits_for_ever() {
        let now = Instant::now();
        let mut drain = Drain::default();
        drain.begin(now, Goal::default());
        assert_eq!(drain.advance(now + 1000 * DEADLINE, 1), None);
        assert_eq!(drain.deadline(), None);
    }

    #[test]
    fn a_drain_that_is_taken_back_leaves_nothing() {
        let now = Instant::now();
        let mut drain = drain(now, 0);
        assert!(drain.end());
        assert!(!drain.is_draining());
        assert_eq!(drain.advance(now + DEADLINE, 1), None);
    }

    #[test]
    fn a_second_goal_takes_the_place_of_the_first_and_is_no_second_drain() {
        let now = Instant::now();
        let mut drain = drain(now, 5);
        assert_eq!(drain.advance(now, 5), Some(News::Drained));
        let later = now + Duration::from_secs(60);
        assert!(!drain.begin(later, Goal { sessions_min: 1, deadline: None }));
        assert_eq!(drain.advance(later, 5), None);
        let progress = drain.progress(later).unwrap();
        assert_eq!((progress.sessions_min, progress.time_left), (1, None));
        assert_eq!(progress.age, Duration::from_secs(60));
        assert_eq!(drain.advance(later, 1), Some(News::Drained));
    }

    #[test]
    fn progress_shows_the_time_that_is_left() {
        let now = Instant::now();
        let drain = drain(now, 0);
        let at = |now| drain.progress(now).unwrap().time_left;
        assert_eq!(at(now + DEADLINE / 4), Some(3 * DEADLINE / 4));
        assert_eq!(at(now + 2 * DEADLINE), Some(Duration::ZERO));
    }
}
