//! What generators and emulators let other threads see while they run.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

use crate::clock::SECOND;
use crate::impair::Impaired;
use crate::payload::{self, Stamp, Tally};

/// What has happened at a station: generator or emulator, SRT or WebRTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Links open now.
    pub open: u64,
    /// Handshakes that succeeded.
    pub connected: u64,
    /// Callers that were refused.
    pub refused: u64,
    /// What the last refusal said: the handshake type with SRT, the HTTP status with WebRTC; 0 before
    /// the first, and where a server closed the connection without an answer.
    pub refusal: u32,
    /// Callers that gave up waiting.
    pub timed_out: u64,
    /// Links that the peer closed, or whose peer fell silent.
    pub closed_by_peer: u64,
    /// Conclusions without the right cookie (SRT origin only).
    pub invalid_cookies: u64,
    /// STUN messages without the right integrity (WebRTC only).
    pub invalid_checks: u64,
    /// Binding requests that were answered (WebRTC origin), or answers to them (WebRTC callers).
    pub checks: u64,
    /// RTCP reports sent or received (WebRTC only).
    pub reports: u64,
    /// Sessions that ended by an HTTP DELETE (WebRTC only).
    pub deleted: u64,
    /// Sessions that this side has ended in order to replace them.
    pub ended: u64,
    /// Sessions begun in the place of others.
    pub started: u64,
    /// Of those begun in the place of others: refused, or unanswered.
    pub failed: u64,
    /// Media packets sent, with those that the impairment has thrown away.
    pub sent: u64,
    /// Media packets that the peers acknowledged (SRT only).
    pub acknowledged: u64,
    /// Media packets received.
    pub media: Tally,
    /// Datagrams of all kinds sent.
    pub datagrams_out: u64,
    /// Datagrams of all kinds received.
    pub datagrams_in: u64,
    /// Datagrams for no link of this station.
    pub strays: u64,
    /// Datagrams that the kernel did not take.
    pub send_errors: u64,
    /// What was done to datagrams on purpose.
    pub impaired: Impaired,
}

impl Counts {
    /// Media packets received, whoever made them.
    #[must_use]
    pub fn media_received(&self) -> u64 {
        self.media.received + self.media.foreign
    }

    /// Both together. Of the last refusals one is kept.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            open: self.open + other.open,
            connected: self.connected + other.connected,
            refused: self.refused + other.refused,
            refusal: if other.refusal == 0 { self.refusal } else { other.refusal },
            timed_out: self.timed_out + other.timed_out,
            closed_by_peer: self.closed_by_peer + other.closed_by_peer,
            invalid_cookies: self.invalid_cookies + other.invalid_cookies,
            invalid_checks: self.invalid_checks + other.invalid_checks,
            checks: self.checks + other.checks,
            reports: self.reports + other.reports,
            deleted: self.deleted + other.deleted,
            ended: self.ended + other.ended,
            started: self.started + other.started,
            failed: self.failed + other.failed,
            sent: self.sent + other.sent,
            acknowledged: self.acknowledged + other.acknowledged,
            media: self.media.plus(other.media),
            datagrams_out: self.datagrams_out + other.datagrams_out,
            datagrams_in: self.datagrams_in + other.datagrams_in,
            strays: self.strays + other.strays,
            send_errors: self.send_errors + other.send_errors,
            impaired: self.impaired.plus(other.impaired),
        }
    }
}

/// What a station lets others see, 20 times per second.
#[derive(Clone, Debug)]
pub struct Published {
    /// Totals.
    pub counts: Counts,
    /// From send to arrival, in nanoseconds: what the way took, however late the sender was.
    pub latency: Histogram<u64>,
    /// From intended send to arrival, in nanoseconds: what a user would have waited. A sender that
    /// stalls lengthens it instead of leaving out the packets that were due meanwhile (coordinated
    /// omission).
    pub due_latency: Histogram<u64>,
    /// From intended send to send, in nanoseconds.
    pub lateness: Histogram<u64>,
    /// From the time a session was due to begin until it was connected, in nanoseconds (generator
    /// only).
    pub setup: Histogram<u64>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            counts: Counts::default(),
            latency: payload::nanoseconds(),
            due_latency: payload::nanoseconds(),
            lateness: payload::nanoseconds(),
            setup: payload::nanoseconds(),
        }
    }
}

/// Where a thread hangs out what others may read.
pub struct Board {
    published: Mutex<Published>,
    /// Told after each change.
    pub(crate) changed: Condvar,
}

impl Published {
    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        self.counts = self.counts.plus(other.counts);
        self.add_histograms(&other);
        self
    }

    fn add_histograms(&mut self, other: &Self) {
        for (sum, part) in [
            (&mut self.latency, &other.latency),
            (&mut self.due_latency, &other.due_latency),
            (&mut self.lateness, &other.lateness),
            (&mut self.setup, &other.setup),
        ] {
            // All have the same bounds, which is the only thing that can be wrong here.
            let _ = sum.add(part);
        }
    }

    fn reset_histograms(&mut self) {
        self.latency.reset();
        self.due_latency.reset();
        self.lateness.reset();
        self.setup.reset();
    }

    /// Notes a media packet that arrived.
    pub(crate) fn record_arrival(&mut self, stamp: &Stamp, arrived_ns: u64) {
        let took = |since_ns: u64| arrived_ns.saturating_sub(since_ns).max(1);
        self.latency.saturating_record(took(stamp.sent_ns));
        self.due_latency.saturating_record(took(stamp.intended_ns));
    }
}

impl Board {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The books of the thread that counts. It writes here without a lock and hangs out the sum now and
/// then.
pub(crate) struct Ledger {
    /// Totals of all time; histograms since the last publishing.
    pub(crate) interval: Published,
    board: Arc<Board>,
    due_at: u64,
}

impl Ledger {
    pub(crate) fn new(now_ns: u64) -> Self {
        let board = Board { published: Mutex::new(Published::default()), changed: Condvar::new() };
        Self { interval: Published::default(), board: Arc::new(board), due_at: now_ns }
    }

    pub(crate) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// When the next publishing is due.
    pub(crate) fn due_at(&self) -> u64 {
        self.due_at
    }

    /// Whether to publish now; if so, the next one is due an interval later.
    pub(crate) fn is_due(&mut self, now_ns: u64) -> bool {
        let is_due = now_ns >= self.due_at;
        if is_due {
            self.due_at = now_ns + PUBLISH_INTERVAL;
        }
        is_due
    }

    /// Shows the totals to whoever reads the board.
    pub(crate) fn publish(&mut self) {
        let mut published = self.board.lock();
        published.counts = self.interval.counts;
        published.add_histograms(&self.interval);
        self.interval.reset_histograms();
        drop(published);
        self.board.changed.notify_all();
    }
}

const PUBLISH_INTERVAL: u64 = SECOND / 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_left_late_counts_from_when_it_was_due() {
        let mut published = Published::default();
        let stamp = Stamp { stream: 1, sequence: 0, intended_ns: 1_000, sent_ns: 501_000 };
        published.record_arrival(&stamp, 511_000);
        let is_about = |value: u64, wanted: u64| value.abs_diff(wanted) <= wanted / 500;
        assert!(is_about(published.latency.max(), 10_000));
        assert!(is_about(published.due_latency.max(), 510_000));
    }
}
