//! The course of a run: what generators or origins did in each second, shown, logged and kept.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::board::{Counts, Published};
use crate::clock::{self, MILLISECOND, SECOND};
use crate::hdr::IntervalLog;
use crate::payload;
use crate::progress::Progress;
use crate::report::{duration as time, grouped};
use crate::result::Second;
use crate::worker::Worker;

/// Workers whose figures are shown as one.
pub struct Group<'a> {
    /// The protocol, as lines and the log name it.
    pub label: &'static str,
    /// Of one kind.
    pub workers: Vec<&'a Worker>,
}

/// Follows groups from second to second.
pub struct Course<'a> {
    groups: Vec<Followed<'a>>,
    log: Option<IntervalLog>,
    started_ns: u64,
    is_interrupted: Arc<AtomicBool>,
}

struct Followed<'a> {
    group: Group<'a>,
    before: Published,
    seconds: Vec<Second>,
}

impl<'a> Course<'a> {
    /// Begins now. From here on an interrupt ends the run as its time would; a second one ends the
    /// program.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn start(groups: Vec<Group<'a>>, log: Option<&Path>) -> anyhow::Result<Self> {
        let is_interrupted = Arc::<AtomicBool>::default();
        for signal in [SIGINT, SIGTERM] {
            let second = Arc::clone(&is_interrupted);
            signal_hook::flag::register_conditional_shutdown(signal, 1, second)
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&is_interrupted)))
                .context("take interrupts")?;
        }
        let log = log.map(|path| IntervalLog::create(path, SystemTime::now(), LOG_COMMENT));
        let groups = groups.into_iter().map(|group| Followed {
            before: group.published(),
            group,
            seconds: Vec::new(),
        });
        Ok(Self {
            groups: groups.collect(),
            log: log.transpose()?,
            started_ns: clock::now(),
            is_interrupted,
        })
    }

    /// Whether somebody wants it to end.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(Ordering::Relaxed)
    }

    /// Shows a line per second and group until `duration` is over, if it ever is. `each_second` is
    /// called at once and then every second.
    ///
    /// # Errors
    /// What `each_second` reports, or a file or standard output that cannot be written.
    pub fn follow(
        &mut self,
        duration: Option<Duration>,
        mut each_second: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let progress = Progress::start(duration);
        let end_ns = duration.map_or(u64::MAX, |duration| {
            let length = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            self.started_ns.saturating_add(length)
        });
        progress.line(&head())?;
        for number in 1.. {
            let at_ns = (self.started_ns + number * SECOND).min(end_ns);
            each_second()?;
            while clock::now() < at_ns && !self.is_interrupted() {
                let left = at_ns.saturating_sub(clock::now()).min(50 * MILLISECOND);
                clock::pause(Duration::from_nanos(left));
            }
            self.note(&progress)?;
            if self.is_interrupted() || at_ns >= end_ns {
                break;
            }
        }
        Ok(())
    }

    /// Ends it and gives the seconds of each group.
    #[must_use]
    pub fn finish(self) -> Vec<Vec<Second>> {
        self.groups.into_iter().map(|followed| followed.seconds).collect()
    }

    /// Takes note of the time since the last note.
    fn note(&mut self, progress: &Progress) -> anyhow::Result<()> {
        let elapsed = Duration::from_nanos(clock::now() - self.started_ns);
        let is_alone = self.groups.len() == 1;
        let mut open = 0;
        for followed in &mut self.groups {
            let now = followed.group.published();
            let latency = difference(&now.due_latency, &followed.before.due_latency);
            let since = followed.seconds.last().map_or(0.0, |second| second.at_s);
            let start = Duration::from_secs_f64(since);
            let second = second(elapsed, &followed.before.counts, &now.counts, &latency);
            if let Some(log) = &mut self.log {
                let tag = Some(followed.group.label).filter(|_| !is_alone);
                log.write(&latency, start, elapsed.saturating_sub(start), tag)?;
            }
            progress.line(&line(followed.group.label, start, &second, &now.counts))?;
            open += now.counts.open;
            followed.seconds.push(second);
            followed.before = now;
        }
        progress.advance(elapsed, &format!("{open} sessions open"));
        Ok(())
    }
}

impl Group<'_> {
    /// What all of its workers have published, added up.
    #[must_use]
    pub fn published(&self) -> Published {
        let all = self.workers.iter().map(|worker| worker.published());
        all.reduce(Published::plus).unwrap_or_default()
    }

    /// Datagrams that their own receive queues dropped.
    #[must_use]
    pub fn own_drops(&self) -> u64 {
        self.workers.iter().map(|worker| worker.receive_drops()).sum()
    }
}

fn second(at: Duration, before: &Counts, now: &Counts, latency: &Histogram<u64>) -> Second {
    Second {
        at_s: at.as_secs_f64(),
        sent: now.sent - before.sent,
        received: now.media_received() - before.media_received(),
        // Gaps of an earlier second that have been filled since are no credit of this one.
        lost: now.media.missing.saturating_sub(before.media.missing),
        reordered: now.media.reordered - before.media.reordered,
        cpu_ns: 0,
        p50_ns: latency.value_at_quantile(0.5),
        p99_ns: latency.value_at_quantile(0.99),
    }
}

fn line(label: &str, start: Duration, second: &Second, now: &Counts) -> String {
    let length = (second.at_s - start.as_secs_f64()).max(1e-3);
    let rate = |packets: u64| grouped((packets as f64 / length).round() as u64);
    let latency = |ns: u64| if ns == 0 { "-".to_owned() } else { time(ns) };
    format!(
        "{:>5.1} {label:<6} {:>6} {:>10} {:>10} {:>7} {:>7} {:>9} {:>9} {:>7} {:>7}",
        second.at_s,
        now.open,
        rate(second.sent),
        rate(second.received),
        second.lost,
        second.reordered,
        latency(second.p50_ns),
        latency(second.p99_ns),
        now.refused + now.timed_out,
        now.ended,
    )
}

/// What the columns of [`line()`] hold.
fn head() -> String {
    format!(
        "{:>5} {:<6} {:>6} {:>10} {:>10} {:>7} {:>7} {:>9} {:>9} {:>7} {:>7}",
        "s", "", "open", "sent/s", "recv/s", "lost", "reord.", "p50", "p99", "failed", "ended"
    )
}

/// What was recorded since `before`.
fn difference(now: &Histogram<u64>, before: &Histogram<u64>) -> Histogram<u64> {
    let mut interval = payload::nanoseconds();
    // The same bounds, and never more than the total that it is a part of.
    let _ = interval.add(now);
    let _ = interval.subtract(before);
    interval
}

const LOG_COMMENT: &str =
    "one-way latency in nanoseconds, from when each packet was due to when it arrived";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Tally;

    fn counts(sent: u64, received: u64, missing: u64) -> Counts {
        Counts { sent, media: Tally { received, missing, ..Tally::default() }, ..Counts::default() }
    }

    #[test]
    fn a_second_holds_what_came_in_it() {
        let mut latency = payload::nanoseconds();
        latency.record(5_000).unwrap();
        let at = Duration::from_secs(3);
        let second = second(at, &counts(10, 5, 4), &counts(30, 20, 1), &latency);
        assert_eq!((second.sent, second.received, second.lost), (20, 15, 0));
        assert!((second.at_s - 3.0).abs() < 1e-9 && second.p50_ns.abs_diff(5_000) < 10);
    }

    #[test]
    fn the_histogram_of_a_second_is_what_the_total_has_grown_by() {
        let mut total = payload::nanoseconds();
        total.record(1_000).unwrap();
        let before = total.clone();
        total.record(9_000).unwrap();
        let interval = difference(&total, &before);
        assert_eq!(interval.len(), 1);
        assert!(interval.max().abs_diff(9_000) < 20);
    }

    #[test]
    fn a_line_lies_under_its_head() {
        let at = Duration::from_secs(1);
        let second = second(at, &counts(0, 0, 0), &counts(5, 5, 5), &payload::nanoseconds());
        let line = line("srt", Duration::ZERO, &second, &counts(5, 5, 5));
        assert_eq!(line.len(), head().len());
    }
}
