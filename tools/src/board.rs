//! What generators and emulators let other threads see while they run.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

use crate::clock::SECOND;
use crate::payload::{self, Tally};

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
    /// Media packets sent.
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
}

/// What a station lets others see, 20 times per second.
#[derive(Clone, Debug)]
pub struct Published {
    /// Totals.
    pub counts: Counts,
    /// From send to arrival, in nanoseconds.
    pub latency: Histogram<u64>,
    /// From intended send to send, in nanoseconds.
    pub lateness: Histogram<u64>,
    /// From the first induction to the answer to the conclusion, in nanoseconds (generator only).
    pub setup: Histogram<u64>,
}

impl Published {
    fn empty() -> Self {
        Self {
            counts: Counts::default(),
            latency: payload::nanoseconds(),
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
        let board = Board { published: Mutex::new(Published::empty()), changed: Condvar::new() };
        Self { interval: Published::empty(), board: Arc::new(board), due_at: now_ns }
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
        let mut guard = self.board.lock();
        let published = &mut *guard;
        published.counts = self.interval.counts;
        for (total, interval) in [
            (&mut published.latency, &mut self.interval.latency),
            (&mut published.lateness, &mut self.interval.lateness),
            (&mut published.setup, &mut self.interval.setup),
        ] {
            // All have the same bounds, which is the only thing that can be wrong here.
            let _ = total.add(&*interval);
            interval.reset();
        }
        drop(guard);
        self.board.changed.notify_all();
    }
}

const PUBLISH_INTERVAL: u64 = SECOND / 20;
