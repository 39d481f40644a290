//! Operations in flight, each with a waker of its own, so that a wake-up looks at those alone that
//! have completed.
//!
//! Wakers and places are used again: an operation allocates nothing once there have been as many at
//! the same time.
#![allow(unsafe_code, reason = "an operation may point at memory that it does not own")]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use ::tokio_uring::{InFlightOneshot, OneshotOutputTransform, UnsubmittedOneshot};
use io_uring_06::{cqueue, squeue};
use slab::Slab;

use super::rooms::Lease;
use crate::shard::Port;

/// The operations that the loop waits for.
pub(super) struct Flights {
    flights: Slab<Flight>,
    /// By place in `flights`.
    wakers: Vec<Waker>,
    tower: Arc<Tower>,
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
    drop(UnsubmittedOneshot::new(owned, Outcome(std::marker::PhantomData), cancellation).submit());
}

impl Flights {
    pub(super) fn new() -> Self {
        Self { flights: Slab::new(), wakers: Vec::new(), tower: Arc::default() }
    }

    /// Takes an operation that has just been submitted.
    pub(super) fn launch(&mut self, purpose: Purpose, mut operation: Operation) {
        let place = self.flights.vacant_entry();
        let key = place.key();
        while self.wakers.len() <= key {
            let bell = Bell { key: self.wakers.len(), tower: Arc::clone(&self.tower) };
            self.wakers.push(Arc::new(bell).into());
            self.tower.enter().landed.reserve(self.wakers.len());
        }
        // Leaves the waker with the operation.
        let landed = poll(&mut operation, self.wakers.get(key));
        if landed.is_ready() {
            self.tower.enter().landed.push_back(key);
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
        poll_fn(|context| {
            let mut state = self.tower.enter();
            match state.landed.pop_front() {
                Some(key) => Poll::Ready(key),
                None => {
                    state.watcher = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    pub(super) fn next_landed(&mut self) -> Option<usize> {
        self.tower.enter().landed.pop_front()
    }

    pub(super) fn landed_count(&self) -> usize {
        self.tower.enter().landed.len()
    }

    /// Those under way and those that have landed.
    pub(super) fn count(&self) -> usize {
        self.flights.len()
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

/// Where flights that have landed are noted. Only one thread comes here: wakers have to be `Sync`,
/// and the lock is never contended.
#[derive(Default)]
struct Tower {
    state: Mutex<Landed>,
}

#[derive(Default)]
struct Landed {
    /// Places. Each flight is noted once, so there are never more than flights.
    landed: VecDeque<usize>,
    watcher: Option<Waker>,
}

impl Tower {
    fn enter(&self) -> MutexGuard<'_, Landed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes a flight in the tower.
struct Bell {
    key: usize,
    tower: Arc<Tower>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.tower.enter();
        state.landed.push_back(self.key);
        let watcher = state.watcher.take();
        drop(state); // Waking is somebody else's code.
        watcher.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use ::tokio_uring::Runtime;
    use io_uring_06::opcode::{AsyncCancel2, RecvMsg};
    use io_uring_06::types::{CancelBuilder, Fd};
    use tokio::time::timeout;

    use super::super::rooms::Rooms;
    use super::*;
    use crate::shard::ListenerIndex;

    const PORT: Port = Port::Listener(ListenerIndex(0));

    /// Every test binds the fields in this order, so that the runtime is dropped first.
    struct Rig {
        socket: UdpSocket,
        rooms: Rooms,
        flights: Flights,
        runtime: Runtime,
    }

    impl Rig {
        fn new() -> Self {
            Self {
                socket: UdpSocket::bind("127.0.0.1:0").unwrap(),
                rooms: Rooms::new(2048),
                flights: Flights::new(),
                runtime: Runtime::new(&::tokio_uring::builder()).unwrap(),
            }
        }

        fn receive(flights: &mut Flights, rooms: &mut Rooms, socket: &UdpSocket) {
            let mut room = rooms.take();
            let entry = RecvMsg::new(Fd(socket.as_raw_fd()), room.address()).build();
            // SAFETY: every test drops the runtime before the rooms.
            let operation = unsafe { submit(entry) };
            flights.launch(Purpose::Receive(PORT, room), operation);
        }
    }

    #[test]
    fn a_receive_lands_with_its_datagram_and_its_place_is_used_again() {
        let Rig { socket, mut rooms, mut flights, runtime } = Rig::new();
        runtime.block_on(async {
            for payload in [&b"one"[..], b"three"] {
                Rig::receive(&mut flights, &mut rooms, &socket);
                assert_eq!(flights.count(), 1);
                socket.send_to(payload, socket.local_addr().unwrap()).unwrap();
                let key = flights.wait().await;
                let (purpose, result) = flights.land(key).unwrap();
                let Purpose::Receive(PORT, room) = purpose else { panic!("it was a receive") };
                assert_eq!((key, result), (0, payload.len() as i32));
                assert_eq!(room.received(payload.len()).payload, payload);
                rooms.give_back(room);
            }
        });
    }

    #[test]
    fn a_cancelled_receive_lands_and_what_the_cancellation_owned_is_dropped() {
        let Rig { socket, mut rooms, mut flights, runtime } = Rig::new();
        let owned = Arc::new(());
        runtime.block_on(async {
            Rig::receive(&mut flights, &mut rooms, &socket);
            let target = CancelBuilder::fd(Fd(socket.as_raw_fd()));
            submit_with(Arc::clone(&owned), AsyncCancel2::new(target).build());
            let key = flights.wait().await;
            let (_, result) = flights.land(key).unwrap();
            assert_eq!(result, -libc::ECANCELED);
        });
        assert_eq!(Arc::strong_count(&owned), 1);
    }

    #[test]
    fn a_flight_that_has_not_landed_stays_where_it_is() {
        let Rig { socket, mut rooms, mut flights, runtime } = Rig::new();
        runtime.block_on(async {
            Rig::receive(&mut flights, &mut rooms, &socket);
            assert!(flights.land(0).is_none());
            assert!(flights.land(1).is_none());
            assert_eq!(flights.count(), 1);
        });
    }

    #[test]
    fn a_receive_in_flight_ends_with_the_runtime_and_lets_go_of_its_socket() {
        let Rig { socket, mut rooms, mut flights, runtime } = Rig::new();
        let address = socket.local_addr().unwrap();
        runtime.block_on(async {
            Rig::receive(&mut flights, &mut rooms, &socket);
            // Nothing arrives; until then the receive has been submitted.
            assert!(timeout(Duration::from_millis(1), flights.wait()).await.is_err());
        });
        drop(runtime);
        drop(socket);
        UdpSocket::bind(address).expect("nobody has the socket any more");
    }
}
