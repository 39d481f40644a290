//! When it pays to wait: whether a shard's next sleep gathers datagrams.
//!
//! A wake-up costs as much as relaying several datagrams, so where they arrive singly and close
//! together, one wake-up for many of them saves CPU and costs up to a window of delay. Where they
//! arrive seldom the same wait is a timer for nothing and makes each datagram about twice as dear.
//! So it is worth its price only while a window brings several, and this is where that is judged: by
//! how many receives the wake-ups bring and how long they take, in a few integers.
//!
//! Receives are counted and not datagrams: a train that arrives in one piece has been gathered
//! already. Nothing here reads a clock or sleeps.

use std::time::{Duration, Instant};

/// The judgement of one shard. It is slow to begin with waiting and quick to leave it.
#[derive(Debug)]
pub(super) struct Gather {
    window: Duration,
    is_on: bool,
    /// Where the span that is being measured begins, and how many receives there were by then.
    since: Instant,
    seen: u64,
    /// While it is on: receives per window, in sixteenths. It halves with every empty window.
    average: u64,
    /// Receives there were when a wait began that has not been looked at yet.
    waiting: Option<u64>,
    gathered: u64,
}

impl Gather {
    /// `window` is more than nothing.
    pub(super) fn new(window: Duration, now: Instant) -> Self {
        Self { window, is_on: false, since: now, seen: 0, average: 0, waiting: None, gathered: 0 }
    }

    /// For how long the next sleep gathers; `None`: it ends with the first datagram.
    ///
    /// `now` is when the last one ended, `receives` how many there have been in all, and `patience`
    /// how long the thread may sleep at most. What is due within a window is not put off.
    pub(super) fn next(
        &mut self,
        now: Instant,
        receives: u64,
        patience: Duration,
    ) -> Option<Duration> {
        if let Some(before) = self.waiting.take() {
            self.gathered += receives.saturating_sub(before);
        }
        self.judge(now, receives);
        let waits = self.is_on && patience > self.window;
        self.waiting = waits.then_some(receives);
        waits.then_some(self.window)
    }

    /// Receives that waits have brought.
    pub(super) fn gathered(&self) -> u64 {
        self.gathered
    }

    /// Looks back over one span: many windows before waiting begins, so that a burst does not begin
    /// it; one window while it lasts, so that three empty ones end it and two do not. Datagrams of
    /// many senders come in clumps, and where a relay shares CPUs with its peers still more so.
    fn judge(&mut self, now: Instant, receives: u64) {
        let elapsed = now.saturating_duration_since(self.since);
        let span = if self.is_on { self.window } else { self.window * TRIAL };
        if elapsed < span {
            return;
        }
        let brought = receives.saturating_sub(self.seen).saturating_mul(nanos(self.window));
        let per_window = brought.saturating_mul(ONE) / nanos(elapsed).max(1);
        self.since = now;
        self.seen = receives;
        if self.is_on {
            let windows = nanos(elapsed) / nanos(self.window).max(1);
            let kept = self.average >> windows.min(63);
            let news = per_window - (per_window >> windows.min(63));
            self.average = (kept + news).min(MEMORY);
            self.is_on = self.average >= ENOUGH;
        } else {
            self.average = per_window.min(MEMORY);
            self.is_on = per_window >= PLENTY;
        }
    }
}

/// Half a millennium at most.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// One receive per window, in the unit of [`Gather::average`].
const ONE: u64 = 16;

/// Waiting begins when the windows of a trial would have brought so many each.
const PLENTY: u64 = 6 * ONE;

/// Waiting ends when fewer come. Four are what a wait costs, with its timer and the deeper idling
/// of the CPU in between.
const ENOUGH: u64 = 4 * ONE;

/// However many came, two empty windows later it is as if there had been enough, and no more.
const MEMORY: u64 = 4 * ENOUGH;

/// Windows of the measurement that waiting begins with: 4 ms at 250 us.
const TRIAL: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shard would have done with some traffic.
    #[derive(Debug, Default)]
    struct Run {
        wakeups: u64,
        waits: u64,
        /// Microseconds from a datagram's arrival to the wake-up that takes it, without the time
        /// that the thread was busy with others.
        delay_max: u64,
        /// When waits began, in microseconds.
        waited_at: Vec<u64>,
    }

    /// A thread whose wake-ups take 5 us and 2 us per datagram, and datagrams that arrive one by
    /// one at these microseconds. A wait ends early when [`FULL`] have come.
    fn run(arrivals: &[u64]) -> Run {
        let start = Instant::now();
        let at = |us: u64| start + Duration::from_micros(us);
        let mut gather = Gather::new(WINDOW, start);
        let mut run = Run::default();
        let (mut taken, mut woke, mut asleep) = (0, 0, 0);
        while let Some(&first) = arrivals.get(taken) {
            let window = gather.next(at(woke), taken as u64, Duration::from_secs(1));
            woke = match window {
                Some(window) => {
                    run.waits += 1;
                    run.waited_at.push(asleep);
                    let full = arrivals.get(taken + FULL - 1).copied().unwrap_or(u64::MAX);
                    first.max(asleep + window.as_micros() as u64).min(full)
                }
                None => first,
            }
            .max(asleep);
            run.wakeups += 1;
            run.delay_max = run.delay_max.max(woke - first.max(asleep));
            let here = arrivals[taken..].iter().take_while(|arrival| **arrival <= woke).count();
            taken += here;
            asleep = woke + 5 + 2 * here as u64;
        }
        run
    }

    /// Evenly spaced for `seconds`.
    fn evenly(rate: u64, seconds: u64) -> Vec<u64> {
        (0..rate * seconds).map(|n| n * 1_000_000 / rate).collect()
    }

    /// As many independent senders make it.
    fn at_random(rate: u64, seconds: u64) -> Vec<u64> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut arrivals: Vec<u64> = (0..rate * seconds)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % (seconds * 1_000_000)
            })
            .collect();
        arrivals.sort_unstable();
        arrivals
    }

    #[test]
    fn sparse_traffic_is_never_waited_for() {
        for rate in [100, 3_000, 10_000, 15_000] {
            assert_eq!(run(&evenly(rate, 2)).waits, 0, "{rate} evenly");
        }
        for rate in [100, 3_000, 10_000] {
            assert_eq!(run(&at_random(rate, 2)).waits, 0, "{rate} at random");
        }
    }

    #[test]
    fn dense_traffic_is_gathered_from_the_first_milliseconds_on() {
        for arrivals in [evenly(100_000, 2), at_random(100_000, 2)] {
            let run = run(&arrivals);
            assert!(run.waited_at[0] < 10_000, "{}", run.waited_at[0]);
            // 2 s are 8,000 windows at most; a wait is followed by what it has brought.
            assert!((5_000..8_000).contains(&run.waits), "{}", run.waits);
            assert!(run.wakeups < run.waits + 1_000, "{} of {}", run.waits, run.wakeups);
        }
    }

    #[test]
    fn near_the_threshold_each_wait_brings_four() {
        for arrivals in [evenly(20_000, 2), at_random(20_000, 2), at_random(26_000, 2)] {
            let start = Instant::now();
            let mut gather = Gather::new(WINDOW, start);
            let (mut waits, mut taken, mut now) = (0, 0, 0);
            while taken < arrivals.len() {
                let woke = start + Duration::from_micros(now);
                let window = gather.next(woke, taken as u64, Duration::from_secs(1));
                waits += u64::from(window.is_some());
                now =
                    arrivals[taken].max(now + window.map_or(0, |window| window.as_micros() as u64));
                taken = arrivals.partition_point(|arrival| *arrival <= now);
            }
            assert!(gather.gathered() >= 4 * waits, "{} in {waits} waits", gather.gathered());
        }
    }

    #[test]
    fn no_datagram_is_delayed_by_more_than_the_window() {
        let on_and_off = evenly(100_000, 2).into_iter().filter(|us| us / 7_000 % 2 == 0);
        let bursts = (0..200).flat_map(|burst| (0..300).map(move |n| burst * 10_000 + n));
        for arrivals in [
            evenly(100_000, 2),
            at_random(20_000, 2),
            at_random(50_000, 2),
            on_and_off.collect(),
            bursts.collect(),
        ] {
            let run = run(&arrivals);
            assert!(run.delay_max <= WINDOW.as_micros() as u64, "{}", run.delay_max);
        }
    }

    #[test]
    fn a_burst_is_no_reason_to_wait() {
        // 30 datagrams at once every 10 ms, and 80: 8,000 a second.
        for len in [30, 80] {
            let bursts = (0..200).flat_map(|burst| (0..len).map(move |n| burst * 10_000 + n));
            assert_eq!(run(&bursts.collect::<Vec<_>>()).waits, 0, "{len}");
        }
    }

    #[test]
    fn waiting_ends_with_the_third_window_that_brings_next_to_nothing() {
        // 100,000 a second for half a second, then 3,000 a second, or one every 10 ms.
        for (every, waits) in [(333, 3), (10_000, 1)] {
            let dense = evenly(100_000, 1).into_iter().take_while(|us| *us < 500_000);
            let sparse = (1..100).map(|n| 500_000 + n * every);
            let run = run(&dense.chain(sparse).collect::<Vec<_>>());
            let late = run.waited_at.iter().filter(|us| **us > 500_000).count();
            assert!(late <= waits, "{late} waits after the traffic has thinned out");
        }
    }

    #[test]
    fn traffic_that_comes_and_goes_is_gathered_while_it_is_there() {
        // 50 ms on, 50 ms off.
        let arrivals = evenly(100_000, 2).into_iter().filter(|us| us / 50_000 % 2 == 0);
        let run = run(&arrivals.collect::<Vec<_>>());
        let in_silence = run.waited_at.iter().filter(|us| **us / 50_000 % 2 == 1).count();
        assert!(run.waits > 2_000, "{}", run.waits);
        assert!(in_silence <= 40, "{in_silence} waits in 20 silences");
    }

    #[test]
    fn clumps_that_leave_two_windows_empty_are_gathered() {
        // 30 datagrams within 90 us, every 700 us: 42,000 a second.
        let clumps = (0..2_000).flat_map(|clump| (0..30).map(move |n| clump * 700 + n * 3));
        let run = run(&clumps.collect::<Vec<_>>());
        assert!(run.waited_at.len() > 1_500, "{}", run.waited_at.len());
    }

    #[test]
    fn what_is_due_within_the_window_is_not_put_off() {
        let start = Instant::now();
        let mut gather = Gather::new(WINDOW, start);
        let later = start + TRIAL * WINDOW;
        assert_eq!(gather.next(later, 10_000, WINDOW), None);
        assert_eq!(gather.next(later, 10_000, 2 * WINDOW), Some(WINDOW));
    }

    #[test]
    fn what_waits_have_brought_is_counted() {
        let start = Instant::now();
        let mut gather = Gather::new(WINDOW, start);
        let trial = start + TRIAL * WINDOW;
        gather.next(trial, 1_000, Duration::from_secs(1));
        gather.next(trial + WINDOW, 1_025, Duration::from_micros(1));
        gather.next(trial + 2 * WINDOW, 1_050, Duration::from_secs(1));
        assert_eq!(gather.gathered(), 25);
    }

    const WINDOW: Duration = Duration::from_micros(250);

    /// As many end a wait.
    const FULL: usize = 64;
}
