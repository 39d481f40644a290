//! Which clients have so much traffic that a socket of their own pays.
//!
//! What is counted are receives, by session: a socket saves work per system call's worth of
//! datagrams, and a train is cheap whatever it comes through, so trains count only for clients that
//! flood. Both directions count, for the own socket is also the cheaper one to send from. Counting costs one addition per receive; who the
//! client is gets written down once per window, when its count reaches the mark.

use std::cmp::Ordering;
use std::time::Duration;

use super::clients::ClientKey;
use crate::shard::SessionKey;

/// The receives of one window, and who stands out among the clients.
pub(super) struct Demand {
    /// By session slot. Empty where no client can get a socket.
    counts: Box<[Count]>,
    candidates: Vec<Candidate>,
    /// From so many single datagrams on a client is a candidate.
    mark: u32,
    /// From so many receives on it is one, too, and does not wait for the end of the window.
    urgent_mark: u32,
    has_urgent: bool,
}

/// Receives of one session.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// In both directions.
    all: u32,
    /// Those among them that brought one datagram.
    singles: u32,
    /// From the client.
    arrivals: u32,
}

/// What a receive was that is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receive {
    /// From the client, else from the origin.
    pub(super) is_arrival: bool,
    /// It brought several datagrams.
    pub(super) is_train: bool,
}

/// A client that may get a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) client: ClientKey,
    /// The session that its traffic belongs to.
    pub(super) session: SessionKey,
    /// In the window that has ended.
    pub(super) receives: u32,
    /// Those among them that came from the client.
    pub(super) arrivals: u32,
}

impl Demand {
    /// Nothing is counted where `sessions_max` is 0.
    pub(super) fn new(sessions_max: u32, window: Duration) -> Self {
        let of_window = |per_second: f64| (window.as_secs_f64() * per_second) as u32;
        let mark = of_window(RECEIVES_PER_SECOND).max(1);
        Self {
            counts: vec![Count::default(); sessions_max as usize].into_boxed_slice(),
            candidates: Vec::with_capacity(if sessions_max == 0 { 0 } else { CANDIDATES_MAX }),
            mark,
            urgent_mark: of_window(URGENT_PER_SECOND).max(mark + 1),
            has_urgent: false,
        }
    }

    /// Counts a receive whose datagrams were forwarded in `session`.
    pub(super) fn count(
        &mut self,
        session: SessionKey,
        receive: Receive,
        client: impl FnOnce() -> ClientKey,
    ) {
        let Some(count) = self.counts.get_mut(session.slot as usize) else {
            return;
        };
        count.all = count.all.saturating_add(1);
        count.arrivals = count.arrivals.saturating_add(receive.is_arrival.into());
        count.singles = count.singles.saturating_add((!receive.is_train).into());
        let is_urgent = count.all == self.urgent_mark;
        // Either makes it a candidate, whichever comes first.
        let is_up = match count.singles.cmp(&self.mark) {
            Ordering::Less => is_urgent,
            Ordering::Equal => !receive.is_train && count.all <= self.urgent_mark,
            Ordering::Greater => false,
        };
        if is_up && self.candidates.len() < CANDIDATES_MAX {
            let client = client();
            self.candidates.push(Candidate { client, session, receives: 0, arrivals: 0 });
        }
        self.has_urgent |= is_urgent;
    }

    /// What has been counted in the slot so far.
    pub(super) fn receives(&self, session: SessionKey) -> u32 {
        self.of(session).all
    }

    /// The session's slot may have another tenant from now on.
    pub(super) fn forget(&mut self, session: SessionKey) {
        if let Some(count) = self.counts.get_mut(session.slot as usize) {
            *count = Count::default();
        }
        self.candidates.retain(|candidate| candidate.session != session);
    }

    /// Candidates that are so busy that everybody else suffers from each moment they stay.
    pub(super) fn urgent(&mut self) -> impl Iterator<Item = Candidate> {
        let urgent_mark = self.urgent_mark;
        let is_wanted = std::mem::take(&mut self.has_urgent);
        let candidates = if is_wanted { self.candidates.as_slice() } else { &[] };
        let judged = candidates.iter().map(|candidate| self.judge(candidate));
        judged.filter(move |candidate| candidate.receives >= urgent_mark)
    }

    /// Ends the window: moves the candidates that are `fit` to `chosen`, `max` at most and as far as
    /// they are worth it, the busiest last, and starts to count anew.
    ///
    /// `arrivals`: receives of all sockets that share the address, from clients without a socket of
    /// their own.
    pub(super) fn end_window(
        &mut self,
        arrivals: u64,
        max: usize,
        fit: impl Fn(&Candidate) -> bool,
        chosen: &mut Vec<Candidate>,
    ) {
        chosen.clear();
        let candidates = self.candidates.iter().filter(|candidate| fit(candidate));
        chosen.extend(candidates.map(|candidate| self.judge(candidate)));
        chosen.sort_unstable_by_key(|candidate| candidate.receives);
        chosen.drain(..chosen.len().saturating_sub(max));
        let theirs: u64 = chosen.iter().map(|candidate| u64::from(candidate.arrivals)).sum();
        let others = arrivals.saturating_sub(theirs);
        chosen.retain(|candidate| is_worth_it(candidate.receives, others));
        self.candidates.clear();
        self.counts.fill(Count::default());
        self.has_urgent = false;
    }

    fn judge(&self, candidate: &Candidate) -> Candidate {
        let Count { all, arrivals, .. } = self.of(candidate.session);
        Candidate { receives: all, arrivals, ..*candidate }
    }

    fn of(&self, session: SessionKey) -> Count {
        self.counts.get(session.slot as usize).copied().unwrap_or_default()
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
pub(super) const CANDIDATES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{ListenerIndex, Peer};

    const SECOND: Duration = Duration::from_secs(1);
    const SINGLE: Receive = Receive { is_arrival: true, is_train: false };
    const FROM_ORIGIN: Receive = Receive { is_arrival: false, ..SINGLE };

    fn key(slot: u32) -> SessionKey {
        SessionKey { slot, generation: 1 }
    }

    fn client(slot: u32) -> ClientKey {
        let address = ([127, 0, 0, 1], slot as u16).into();
        ClientKey { listener: ListenerIndex(0), peer: Peer { address, local: None } }
    }

    fn count(demand: &mut Demand, slot: u32, receives: u32) {
        for _ in 0..receives {
            demand.count(key(slot), SINGLE, || client(slot));
        }
    }

    fn count_trains(demand: &mut Demand, slot: u32, receives: u32) {
        for _ in 0..receives {
            demand.count(key(slot), Receive { is_train: true, ..SINGLE }, || client(slot));
        }
    }

    fn chosen(demand: &mut Demand, arrivals: u64) -> Vec<(u32, u32)> {
        let mut chosen = Vec::new();
        demand.end_window(arrivals, 100, |_| true, &mut chosen);
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
    fn those_for_whom_there_is_no_room_count_as_others() {
        let mut demand = Demand::new(400, SECOND);
        (0..400).for_each(|slot| count(&mut demand, slot, 300));
        assert_eq!(chosen(&mut demand, 120_000), [], "300 others would pay for each of the 100");
    }

    #[test]
    fn what_goes_to_a_client_makes_it_a_candidate_and_is_no_arrival() {
        let mut demand = Demand::new(4, SECOND);
        for _ in 0..250 {
            demand.count(key(1), FROM_ORIGIN, || client(1));
        }
        assert_eq!(chosen(&mut demand, 4000), [(1, 250)]);
        for _ in 0..250 {
            demand.count(key(1), FROM_ORIGIN, || client(1));
        }
        assert_eq!(chosen(&mut demand, 4001), []);
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
    fn a_client_that_sends_trains_is_a_candidate_only_if_it_floods() {
        let mut demand = Demand::new(4, SECOND);
        count_trains(&mut demand, 0, 3999);
        count(&mut demand, 1, 199);
        count_trains(&mut demand, 1, 1000);
        assert_eq!(chosen(&mut demand, 5198), []);
        count_trains(&mut demand, 0, 4000);
        assert_eq!(demand.urgent().count(), 1);
        count(&mut demand, 0, 200);
        assert_eq!(chosen(&mut demand, 4200), [(0, 4200)], "and only once");
    }

    #[test]
    fn nothing_is_counted_where_there_are_no_sockets_for_clients() {
        let mut demand = Demand::new(0, SECOND);
        count(&mut demand, 0, 1000);
        assert_eq!(chosen(&mut demand, 1000), []);
    }
}
