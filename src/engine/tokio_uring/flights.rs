//! Operations in flight, each with a waker of its own, so that a wake-up looks at those alone that
//! have completed.
//!
//! Wakers and places are used again: an operation allocates nothing once there have been as many at
//! the same time.
#![allow(unsafe_code, reason = "an operation may point at memory that it does not own")]

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use ::tokio_uring::{InFlightOneshot, OneshotOutputTransform, UnsubmittedOneshot};
use io_uring_06::{cqueue, squeue};
use slab::Slab;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::rooms::Lease;
use crate::shard::Port;

/// The operations that the loop waits for.
pub(super) struct Flights {
    flights: Slab<Flight>,
    /// By place in `flights`.
    wakers: Vec<Waker>,
    bell: UnboundedSender<usize>,
    /// Places of flights that have landed. Each rings once, so there are never more than flights.
    rung: UnboundedReceiver<usize>,
}

struct Flight {
    purpose: Purpose,
    operation: Operation,
    /// The result, if it was there at once.
    landed: Poll<i32>,
}

/// What is done when it has landed.
pub(super) enum Purpose {
    /// A receive from this port into this room.
    Receive(Port, Lease),
    /// The eventfd of the mailbox is readable.
    Mailbox,
}

/// Completes with the operation's result: a length or a negative errno.
pub(super) type Operation<T = ()> = InFlightOneshot<T, Outcome<T>>;

/// Takes the result out of a completion.
pub(super) struct Outcome<T>(std::marker::PhantomData<T>);

impl<T> OneshotOutputTransform for Outcome<T> {
    type Output = i32;
    type StoredData = T;

    fn transform_oneshot_output(self, _data: T, completion: cqueue::Entry) -> i32 {
        completion.result()
    }
}

/// Queues an operation; the runtime submits it before it sleeps.
///
/// # Safety
/// What `entry` points at stays valid until the operation has completed, even if what is returned
/// is dropped.
pub(super) unsafe fn submit(entry: squeue::Entry) -> Operation {
    UnsubmittedOneshot::new((), Outcome(std::marker::PhantomData), entry).submit()
}

/// Queues a cancellation whose result nobody waits for. `owned` is dropped when it has completed.
pub(super) fn submit_with<T: 'static>(owned: T, cancellation: squeue::Entry) {
    drop(
        UnsubmittedOneshot::new(owned, Outcome(std::marker::PhantomData), cancellation).submit(),
    );
}

impl Flights {
    pub(super) fn new() -> Self {
        let (bell, rung) = unbounded_channel();
        Self { flights: Slab::new(), wakers: Vec::new(), bell, rung }
    }

    /// Takes an operation that has just been submitted.
    pub(super) fn launch(&mut self, purpose: Purpose, mut operation: Operation) {
        let place = self.flights.vacant_entry();
        let key = place.key();
        while self.wakers.len() <= key {
            let bell = Bell { key: self.wakers.len(), bell: self.bell.clone() };
            self.wakers.push(Arc::new(bell).into());
        }
        // Leaves the waker with the operation.
        let landed = poll(&mut operation, self.wakers.get(key));
        if landed.is_ready() {
            let _ = self.bell.send(key); // The other end is a field of this one.
        }
        place.insert(Flight { purpose, operation, landed });
    }

    /// Takes the flight out and says how it ended; `None` if it is still under way.
    pub(super) fn land(&mut self, key: usize) -> Option<(Purpose, i32)> {
        let flight = self.flights.get_mut(key)?;
        if flight.landed.is_pending() {
            flight.landed = poll(&mut flight.operation, self.wakers.get(key));
        }
        let Poll::Ready(result) = flight.landed else {
            return None;
        };
        Some((self.flights.remove(key).purpose, result))
    }

    /// Waits for the next one to land.
    pub(super) async fn wait(&mut self) -> usize {
        match self.rung.recv().await {
            Some(key) => key,
            None => unreachable!("the sender is a field of this one"),
        }
    }

    pub(super) fn next_landed(&mut self) -> Option<usize> {
        self.rung.try_recv().ok()
    }

    pub(super) fn landed_count(&self) -> usize {
        self.rung.len()
    }

    /// Waits until all have landed, and forgets what they brought.
    pub(super) async fn end(&mut self) {
        while !self.flights.is_empty() {
            let key = self.wait().await;
            self.land(key);
        }
    }
}

fn poll(operation: &mut Operation, waker: Option<&Waker>) -> Poll<i32> {
    let waker = waker.unwrap_or(Waker::noop());
    Pin::new(operation).poll(&mut Context::from_waker(waker))
}

/// Puts the place of a flight into the queue of those that have landed.
struct Bell {
    key: usize,
    bell: UnboundedSender<usize>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Nobody listens any more when the loop has ended.
        let _ = self.bell.send(self.key);
    }
}
