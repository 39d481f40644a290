//! When sessions begin: a ramp at first, then a steady coming and going.

use crate::clock;
use crate::pace::Pacer;

/// What is to happen to sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The session in this slot begins, for the first time.
    First {
        /// Which.
        slot: usize,
        /// When the pacing wants it to begin.
        due_ns: u64,
    },
    /// Some session, one that looks back on the longest life, ends and a new one takes its place.
    Replace {
        /// When the pacing wants that.
        due_ns: u64,
    },
}

/// Slots that fill up, and the churn that begins when all are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrivals {
    sessions: usize,
    next: usize,
    /// `None`: all at once.
    ramp: Option<Pacer>,
    churn_rate: f64,
    churn: Option<Pacer>,
    /// The slot whose turn it is to be replaced.
    turn: usize,
}

impl Arrivals {
    /// `sessions` begin at `connect_rate` per second from now on, all at once where it is not
    /// positive; then `churn_rate` per second are replaced.
    pub(crate) fn new(sessions: usize, connect_rate: f64, churn_rate: f64) -> Self {
        let ramp = Pacer::new(clock::now(), connect_rate);
        Self { sessions, next: 0, ramp, churn_rate, churn: None, turn: 0 }
    }

    /// Takes what is due.
    pub(crate) fn take(&mut self, now_ns: u64) -> Option<Arrival> {
        if self.next < self.sessions {
            let due_ns = match &mut self.ramp {
                Some(ramp) => ramp.take(now_ns)?,
                None => now_ns,
            };
            self.next += 1;
            if self.next == self.sessions {
                self.churn = Pacer::new(now_ns, self.churn_rate);
                // The first tick lies one interval after the last arrival.
                let _ = self.churn.as_mut().and_then(|churn| churn.take(now_ns));
            }
            return Some(Arrival::First { slot: self.next - 1, due_ns });
        }
        let due_ns = self.churn.as_mut()?.take(now_ns)?;
        Some(Arrival::Replace { due_ns })
    }

    /// The slot to replace: the next in turn that `may_end`. `None` when a whole round has none.
    pub(crate) fn pick(&mut self, may_end: impl Fn(usize) -> bool) -> Option<usize> {
        for _ in 0..self.sessions {
            let slot = self.turn;
            self.turn = (self.turn + 1) % self.sessions;
            if may_end(slot) {
                return Some(slot);
            }
        }
        None
    }

    /// When there is something to take.
    pub(crate) fn next_at(&self) -> u64 {
        let pacer = if self.next < self.sessions { &self.ramp } else { &self.churn };
        pacer.map_or(u64::MAX, |pacer| pacer.next_at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;

    fn until(arrivals: &mut Arrivals, now_ns: u64) -> Vec<Arrival> {
        std::iter::from_fn(|| arrivals.take(now_ns)).collect()
    }

    #[test]
    fn sessions_join_evenly_and_then_some_are_replaced_steadily() {
        let mut arrivals = Arrivals::new(10, 100.0, 20.0);
        let start = arrivals.next_at();
        assert_eq!(until(&mut arrivals, start + SECOND / 20 - 1).len(), 5);
        let rest = until(&mut arrivals, start + SECOND / 10);
        assert!(matches!(rest.last(), Some(Arrival::First { slot: 9, .. })));
        let churned = until(&mut arrivals, start + SECOND / 10 + SECOND);
        assert_eq!(churned.len(), 20);
        assert!(churned.iter().all(|arrival| matches!(arrival, Arrival::Replace { .. })));
    }

    #[test]
    fn an_arrival_served_late_keeps_its_time() {
        let mut arrivals = Arrivals::new(2, 1.0, 0.0);
        let start = arrivals.next_at();
        let late = until(&mut arrivals, start + 5 * SECOND);
        assert_eq!(late.last(), Some(&Arrival::First { slot: 1, due_ns: start + SECOND }));
        assert_eq!(arrivals.next_at(), u64::MAX);
    }

    #[test]
    fn without_a_rate_all_begin_at_once() {
        let mut arrivals = Arrivals::new(3, 0.0, 0.0);
        assert_eq!(until(&mut arrivals, 7).len(), 3);
    }

    #[test]
    fn those_replaced_take_turns_and_the_unsettled_are_passed_over() {
        let mut arrivals = Arrivals::new(3, 0.0, 1.0);
        assert_eq!(arrivals.pick(|slot| slot != 1), Some(0));
        assert_eq!(arrivals.pick(|slot| slot != 1), Some(2));
        assert_eq!(arrivals.pick(|_| false), None);
    }
}
