//! Both sides of a load test: an origin and its clients, on either end of a relay.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::board::{Counts, Published};
use crate::clock;
use crate::payload::Tally;
use crate::worker::Worker;

/// An origin and its clients. All figures are sums over both.
#[derive(Clone, Copy)]
pub struct Pair<'a> {
    /// What the relay relays to.
    pub origin: &'a Worker,
    /// What connects to the relay.
    pub clients: &'a Worker,
}

/// What both sides have counted, by the end of the run or between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sessions that are open at the clients.
    pub sessions: u64,
    /// Media packets sent: what the relay was given.
    pub sent: u64,
    /// Datagrams of all kinds received: what the relay gave.
    pub datagrams: u64,
    /// What arrived of the media.
    pub tally: Tally,
}

impl Pair<'_> {
    /// Starts or stops the media of both sides.
    pub fn send_media(self, on: bool) {
        self.origin.send_media(on);
        self.clients.send_media(on);
    }

    /// What both have counted, at most 50 ms ago.
    #[must_use]
    pub fn totals(self) -> Totals {
        Totals::of(&self.origin.counts(), &self.clients.counts())
    }

    /// Waits until everything sent since `before` has arrived, or for `patience`. The order to stop
    /// must have been given.
    pub fn settle(self, before: Totals, patience: Duration) {
        // Both sides must have seen the order to stop before their totals mean anything.
        clock::pause(Duration::from_millis(200));
        let is_complete = |origin: &Counts| {
            let since = Totals::of(origin, &self.clients.counts()).since(before);
            since.tally.received >= since.sent
        };
        // The origin's board changes 20 times per second, whether or not it has news.
        self.origin.wait_for(patience, is_complete);
    }

    /// From when packets were due to their arrival, both ways: a sender that stalls lengthens it
    /// instead of leaving out what was due meanwhile (coordinated omission).
    #[must_use]
    pub fn due_latency(self) -> Histogram<u64> {
        self.both(|published| published.due_latency)
    }

    /// Datagrams that the kernel did not take from either side, since their sockets were opened.
    #[must_use]
    pub fn send_errors(self) -> u64 {
        self.origin.counts().send_errors + self.clients.counts().send_errors
    }

    /// From send to arrival, both ways: what the way took, however late the sender was.
    #[must_use]
    pub fn latency(self) -> Histogram<u64> {
        self.both(|published| published.latency)
    }

    /// How much later than intended packets left, both ways.
    #[must_use]
    pub fn lateness(self) -> Histogram<u64> {
        self.both(|published| published.lateness)
    }

    fn both(self, part: impl Fn(Published) -> Histogram<u64>) -> Histogram<u64> {
        let mut sum = part(self.origin.published());
        // Both have the same bounds, which is the only thing that can be wrong here.
        let _ = sum.add(part(self.clients.published()));
        sum
    }

    /// Forgets the histograms up to now.
    pub fn reset_histograms(self) {
        self.origin.reset_histograms();
        self.clients.reset_histograms();
    }

    /// Datagrams that the test's own receive queues dropped since they were opened. Not the relay's
    /// fault, but the run is void.
    #[must_use]
    pub fn own_drops(self) -> u64 {
        self.origin.receive_drops() + self.clients.receive_drops()
    }
}

impl Totals {
    fn of(origin: &Counts, clients: &Counts) -> Self {
        Self {
            sessions: clients.open,
            sent: origin.sent + clients.sent,
            datagrams: origin.datagrams_in + clients.datagrams_in,
            tally: origin.media.plus(clients.media),
        }
    }

    /// What came after `before`. Sessions stay as they are.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            sessions: self.sessions,
            sent: self.sent - before.sent,
            datagrams: self.datagrams - before.datagrams,
            tally: self.tally.since(before.tally),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            sessions: self.sessions + other.sessions,
            sent: self.sent + other.sent,
            datagrams: self.datagrams + other.datagrams,
            tally: self.tally.plus(other.tally),
        }
    }

    /// Media packets that were sent and did not arrive.
    #[must_use]
    pub fn lost(self) -> u64 {
        self.sent.saturating_sub(self.tally.received)
    }

    /// Whether every media packet arrived once, whole and in order, and there were any.
    #[must_use]
    pub fn is_clean(self) -> bool {
        let Tally { received, reordered, duplicates, damaged, foreign, .. } = self.tally;
        self.sent > 0
            && self.sent == received
            && [reordered, duplicates, damaged, foreign] == [0; 4]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webrtc::generator::{Generator, GeneratorSettings};
    use crate::webrtc::origin::{Origin, OriginSettings};

    fn totals(sent: u64, received: u64, reordered: u64) -> Totals {
        let tally = Tally { received, reordered, ..Tally::default() };
        Totals { sessions: 1, sent, datagrams: received, tally }
    }

    #[test]
    fn what_did_not_arrive_is_lost() {
        let since = totals(30, 25, 1).since(totals(10, 10, 0));
        assert_eq!((since.sent, since.tally.received, since.lost()), (20, 15, 5));
    }

    #[test]
    fn a_run_is_clean_when_all_came_in_order() {
        assert!(totals(10, 10, 0).is_clean());
        assert!(!totals(10, 10, 1).is_clean());
        assert!(!totals(10, 9, 0).is_clean());
        assert!(!totals(0, 0, 0).is_clean());
    }

    #[test]
    fn waiting_for_what_does_not_come_ends() {
        let origin = Origin::start(OriginSettings::default()).unwrap();
        let settings = GeneratorSettings::new(origin.http_address(), 2);
        let clients = Generator::start(settings, Vec::new(), true).unwrap();
        assert!(origin.wait_for(Duration::from_secs(10), |counts| counts.media.received > 20));
        let pair = Pair { origin: origin.worker(), clients: &clients };
        pair.send_media(false);
        pair.settle(Totals::default(), Duration::from_secs(10));
        let complete = pair.totals();
        assert!(complete.is_clean(), "{complete:?}");
        let before = Totals { sent: complete.sent - 1, ..complete };
        pair.settle(before, Duration::from_millis(200));
        assert_eq!(pair.totals().since(before).lost(), 1);
    }

    #[test]
    fn sums_are_sums() {
        let sum = totals(10, 9, 1).plus(totals(5, 5, 0));
        assert_eq!((sum.sessions, sum.sent, sum.tally.received), (2, 15, 14));
    }
}
