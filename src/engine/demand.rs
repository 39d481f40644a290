//! Which clients have so much traffic that a socket of their own pays.
//!
//! What is counted are receives, by session: a socket saves work per system call's worth of
//! datagrams, and a train is cheap whatever it comes through. Both directions count, for the own
//! socket is also the cheaper one to send from. Counting costs one addition per receive; who the
//! client is gets written down once per window, when its count reaches the mark.

use std::time::Duration;

use super::clients::ClientKey;
use crate::shard::SessionKey;

/// The receives of one window, and who stands out among the clients.
pub(super) struct Demand {
    /// By session slot. Empty where no client can get a socket.
    counts: Box<[u32]>,
    candidates: Vec<Candidate>,
    /// From here on a client is a candidate.
    mark: u32,
    /// From here on it does not wait for the end of the window.
    urgent_mark: u32,
    has_urgent: bool,
}

/// A client that may get a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) client: ClientKey,
    /// The session that its traffic belongs to.
    pub(super) session: SessionKey,
    /// In the window that has ended.
    pub(super) receives: u32,
}

impl Demand {
    /// Nothing is counted where `sessions_max` is 0.
    pub(super) fn new(sessions_max: u32, window: Duration) -> Self {
        let of_window = |per_second: f64| (window.as_secs_f64() * per_second) as u32;
        let mark = of_window(RECEIVES_PER_SECOND).max(1);
        Self {
            counts: vec![0; sessions_max as usize].into_boxed_slice(),
            candidates: Vec::with_capacity(if sessions_max == 0 { 0 } else { CANDIDATES_MAX }),
            mark,
            urgent_mark: of_window(URGENT_PER_SECOND).max(mark + 1),
            has_urgent: false,
        }
    }

    /// Counts a receive whose datagrams were forwarded in `session`.
    pub(super) fn count(&mut self, session: SessionKey, client: impl FnOnce() -> ClientKey) {
        let Some(count) = self.counts.get_mut(session.slot as usize) else {
            return;
        };
        *count = count.saturating_add(1);
        if *count == self.mark {
            if self.candidates.len() < CANDIDATES_MAX {
                self.candidates.push(Candidate { client: client(), session, receives: 0 });
            }
        } else if *count == self.urgent_mark {
            self.has_urgent = true;
        }
    }

    /// What has been counted in the slot so far.
    pub(super) fn receives(&self, session: SessionKey) -> u32 {
        self.counts.get(session.slot as usize).copied().unwrap_or_default()
    }

    /// Candidates that are so busy that everybody else suffers from each moment they stay.
    pub(super) fn urgent(&mut self) -> impl Iterator<Item = Candidate> {
        let is_wanted = std::mem::take(&mut self.has_urgent);
        let urgent_mark = self.urgent_mark;
        let candidates = self.candidates.iter().filter(move |_| is_wanted).map(|candidate| {
            let count = self.counts.get(candidate.session.slot as usize);
            Candidate { receives: count.copied().unwrap_or_default(), ..*candidate }
        });
        candidates.filter(move |candidate| candidate.receives >= urgent_mark)
    }

    /// Ends the window: moves the candidates that are `fit` to `chosen` as far as they are worth it,
    /// the busiest last, and starts to count anew.
    ///
    /// `arrivals`: receives of all sockets that share the address, from clients without a socket of
    /// their own.
    pub(super) fn end_window(
        &mut self,
        arrivals: u64,
        fit: impl Fn(&Candidate) -> bool,
        chosen: &mut Vec<Candidate>,
    ) {
        for candidate in &mut self.candidates {
            candidate.receives =
                self.counts.get(candidate.session.slot as usize).copied().unwrap_or_default();
        }
        chosen.clear();
        chosen.extend(self.candidates.drain(..).filter(fit));
        chosen.sort_unstable_by_key(|candidate| candidate.receives);
        let theirs: u64 = chosen.iter().map(|candidate| u64::from(candidate.receives)).sum();
        let others = arrivals.saturating_sub(theirs);
        chosen.retain(|candidate| is_worth_it(candidate.receives, others));
        self.counts.fill(0);
        self.has_urgent = false;
    }
}

/// Whether a socket for a client with so many receives saves more than it costs the `others`, which
/// arrive at the listeners in the same time.
///
/// The kernel looks at every connected socket of an address when a datagram of somebody else
/// arrives there (6.5 ns each with 128 of them), and the own socket saves 100 ns and more.
pub(super) fn is_worth_it(receives: u32, others: u64) -> bool {
    u64::from(receives) * OTHERS_PER_RECEIVE >= others
}

/// A stream of 2 Mbit/s in full packets. Its socket saves 20 us a second at least, and opening it
/// costs as much.
const RECEIVES_PER_SECOND: f64 = 200.0;

/// One percent of what a core relays.
const URGENT_PER_SECOND: f64 = 4000.0;

const OTHERS_PER_RECEIVE: u64 = 16;

/// More than sockets, for the busiest may come last. Those beyond it get their turn in the next
/// window.
const CANDIDATES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{ListenerIndex, Peer};

    const SECOND: Duration = Duration::from_secs(1);

    fn key(slot: u32) -> SessionKey {
        SessionKey { slot, generation: 1 }
    }

    fn client(slot: u32) -> ClientKey {
        let address = ([127, 0, 0, 1], slot as u16).into();
        ClientKey { listener: ListenerIndex(0), peer: Peer { address, local: None } }
    }

    fn count(demand: &mut Demand, slot: u32, receives: u32) {
        for _ in 0..receives {
            demand.count(key(slot), || client(slot));
        }
    }

    fn chosen(demand: &mut Demand, arrivals: u64) -> Vec<(u32, u32)> {
        let mut chosen = Vec::new();
        demand.end_window(arrivals, |_| true, &mut chosen);
        chosen.iter().map(|candidate| (candidate.session.slot, candidate.receives)).collect()
    }

    #[test]
    fn a_client_below_the_mark_is_no_candidate() {
        let mut demand = Demand::new(4, SECOND);
        count(&mut demand, 1, 199);
        count(&mut demand, 2, 200);
        assert_eq!(chosen(&mut demand, 399), [(2, 200)]);
    }

    #[test]
    fn the_busiest_candidate_comes_last_and_every_window_starts_anew() {
        let mut demand = Demand::new(4, SECOND);
        for (slot, receives) in [(0, 300), (1, 900), (2, 500)] {
            count(&mut demand, slot, receives);
        }
        assert_eq!(chosen(&mut demand, 1700), [(0, 300), (2, 500), (1, 900)]);
        assert_eq!(chosen(&mut demand, 0), []);
        assert_eq!(demand.receives(key(1)), 0);
    }

    #[test]
    fn a_candidate_that_costs_many_others_more_than_it_saves_is_not_chosen() {
        let mut demand = Demand::new(4, SECOND);
        count(&mut demand, 0, 500);
        count(&mut demand, 1, 10_000);
        assert_eq!(chosen(&mut demand, 10_500 + 8001), [(1, 10_000)]);
    }

    #[test]
    fn candidates_do_not_count_as_each_others_others() {
        let mut demand = Demand::new(100, SECOND);
        (0..100).for_each(|slot| count(&mut demand, slot, 300));
        assert_eq!(chosen(&mut demand, 30_000).len(), 100);
    }

    #[test]
    fn a_client_that_floods_the_listener_does_not_wait_for_the_end_of_the_window() {
        let mut demand = Demand::new(4, SECOND);
        count(&mut demand, 0, 3999);
        count(&mut demand, 1, 200);
        assert_eq!(demand.urgent().count(), 0);
        count(&mut demand, 0, 1);
        let urgent: Vec<_> = demand.urgent().map(|candidate| candidate.session).collect();
        assert_eq!(urgent, [key(0)]);
        assert_eq!(demand.urgent().count(), 0, "it is told once");
    }

    #[test]
    fn nothing_is_counted_where_there_are_no_sockets_for_clients() {
        let mut demand = Demand::new(0, SECOND);
        count(&mut demand, 0, 1000);
        assert_eq!(chosen(&mut demand, 1000), []);
    }
}
