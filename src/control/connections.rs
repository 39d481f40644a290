//! How many HTTP connections there may be, and which of them gives way to a new one.
//!
//! A connection that waits for its client costs a descriptor and serves nobody. When all seats are
//! taken, the one that has waited longest is dismissed, so that a thousand silent clients cannot
//! keep the heartbeat of an origin out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The seats of all listeners.
pub(super) struct Connections {
    seats: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Connections without a request under way, the one that began to wait first in front.
    by_turn: BTreeMap<u64, Arc<Notify>>,
    last_turn: u64,
    /// Nobody could be dismissed, so whoever is served next leaves.
    is_seat_wanted: bool,
}

impl Connections {
    pub(super) fn new(seats: usize) -> Arc<Self> {
        Arc::new(Self { seats: Arc::new(Semaphore::new(seats)), waiting: Mutex::default() })
    }

    /// A seat for one more connection: at once while some are free or somebody can be dismissed,
    /// else when a request has been answered. `None` never comes while the relay runs.
    pub(super) async fn seat(self: &Arc<Self>) -> Option<Seat> {
        if self.seats.available_permits() == 0 {
            self.dismiss_one();
        }
        let permit = Arc::clone(&self.seats).acquire_owned().await.ok()?;
        let seat = Seat {
            connections: Arc::clone(self),
            dismissed: Arc::default(),
            turn: AtomicU64::new(BUSY),
            _permit: permit,
        };
        self.lock().is_seat_wanted = false;
        seat.wait();
        Some(seat)
    }

    fn dismiss_one(&self) {
        let mut waiting = self.lock();
        match waiting.by_turn.pop_first() {
            Some((_, dismissed)) => dismissed.notify_one(),
            None => waiting.is_seat_wanted = true,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it holds the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to one connection. Free again when dropped.
pub(super) struct Seat {
    connections: Arc<Connections>,
    dismissed: Arc<Notify>,
    /// Its key among those that wait, or [`BUSY`].
    turn: AtomicU64,
    _permit: OwnedSemaphorePermit,
}

impl Seat {
    /// A request has come: the connection is not dismissed before it is answered.
    pub(super) fn begin(&self) {
        let turn = self.turn.swap(BUSY, Ordering::Relaxed);
        self.connections.lock().by_turn.remove(&turn);
    }

    /// The request is answered. Returns whether the connection is to be closed behind the answer.
    pub(super) fn finish(&self) -> bool {
        self.wait();
        std::mem::take(&mut self.connections.lock().is_seat_wanted)
    }

    /// Ends when somebody else needs the seat.
    pub(super) async fn dismissed(&self) {
        self.dismissed.notified().await;
    }

    fn wait(&self) {
        let mut waiting = self.connections.lock();
        waiting.last_turn += 1;
        let turn = waiting.last_turn;
        waiting.by_turn.insert(turn, Arc::clone(&self.dismissed));
        self.turn.store(turn, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.begin();
    }
}

/// Turns begin at 1.
const BUSY: u64 = 0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn is_dismissed(seat: &Seat) -> bool {
        timeout(Duration::ZERO, seat.dismissed()).await.is_ok()
    }

    async fn full() -> (Arc<Connections>, Vec<Seat>) {
        let connections = Connections::new(3);
        let mut seats = Vec::new();
        for _ in 0..3 {
            seats.push(connections.seat().await.unwrap());
        }
        (connections, seats)
    }

    #[tokio::test]
    async fn while_seats_are_free_nobody_is_dismissed() {
        let (_connections, seats) = full().await;
        for seat in &seats {
            assert!(!is_dismissed(seat).await);
        }
    }

    #[tokio::test]
    async fn a_newcomer_takes_the_seat_of_the_one_that_has_waited_longest() {
        let (connections, mut seats) = full().await;
        seats[0].begin();
        assert!(!seats[0].finish());
        let newcomer = connections.seat();
        tokio::pin!(newcomer);
        assert!(timeout(Duration::ZERO, &mut newcomer).await.is_err());
        assert!(!is_dismissed(&seats[0]).await, "it was served after the second came");
        assert!(is_dismissed(&seats[1]).await);
        seats.remove(1);
        assert!(newcomer.await.is_some());
    }

    #[tokio::test]
    async fn a_connection_with_a_request_under_way_is_closed_only_behind_its_answer() {
        let (connections, seats) = full().await;
        for seat in &seats {
            seat.begin();
        }
        let newcomer = connections.seat();
        tokio::pin!(newcomer);
        assert!(timeout(Duration::ZERO, &mut newcomer).await.is_err());
        assert!(seats[2].finish());
        assert!(!seats[1].finish(), "one seat is enough");
        for seat in &seats {
            assert!(!is_dismissed(seat).await);
        }
    }

    #[tokio::test]
    async fn a_seat_that_is_given_up_leaves_nothing_behind() {
        let (connections, seats) = full().await;
        drop(seats);
        assert!(connections.lock().by_turn.is_empty());
        assert_eq!(connections.seats.available_permits(), 3);
    }
}
