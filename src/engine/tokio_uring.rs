//! The reference engine: the same shard under the `tokio-uring` crate, for comparison.
//!
//! It shows what a relay costs that takes a runtime instead of a ring of its own. The crate has
//! neither multishot receives nor buffer rings, so every socket has exactly one receive in flight:
//! several would reorder. The crate's `recvmsg` hands out no control messages, and without them
//! there is neither a segment size nor a local address. So the operations are made here and
//! submitted through the crate's door for custom ones ([`::tokio_uring::UnsubmittedOneshot`]), and
//! offloads and answers work as on the other engines. A pass of the runtime is `io_uring_enter`
//! with everything that is queued, then `epoll_wait` on the ring.
//!
//! As on the other ring, sends are `MSG_DONTWAIT`: they are tried in the order of submission and
//! never parked, so a flow keeps its order and every batch has left before the next one is made.
#![allow(unsafe_code, reason = "operations take pointers")]

mod flights;
mod rooms;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use ::tokio_uring::{Builder, Runtime, uring_builder};
use io_uring_06::types::{CancelBuilder, Fd};
use io_uring_06::{opcode, squeue};
use tokio::time::{Sleep, sleep_until, timeout};

use super::gso::Batch;
use super::lane::{Lane, ReceiveFailure, Train};
use super::send::{SEND_FLAGS, single_piece};
use super::sockaddr;
use super::socket::port_error;
use super::uring::probe::refused;
use super::{EngineError, Settings};
use crate::shard::{Action, Command, DropReason, Port, PortError, SessionKey};
use flights::{Flights, Operation, Purpose, submit};
use rooms::{Lease, Rooms};

/// A shard under tokio-uring.
///
/// Fields are dropped in order: the runtime first, which ends what is in flight and waits for it,
/// and only then does the memory go away that the kernel may still write to or read from. So no
/// operation owns its memory. The crate would keep it for operations that are given up, but frees
/// it before it cancels them when the runtime itself goes away.
pub(super) struct TokioUring {
    runtime: Runtime,
    station: Station,
}

/// The loop and everything that it owns.
struct Station {
    lane: Lane,
    rooms: Rooms,
    flights: Flights,
    /// The rooms that the batch under way points into.
    held: Vec<Lease>,
    /// Sends of the batch under way, by position.
    sends: Vec<(usize, Operation)>,
    /// Those that have failed: position and errno.
    failed: Vec<(usize, i32)>,
    is_stopping: bool,
}

impl TokioUring {
    /// Builds the runtime, on the thread that will use it (`IORING_SETUP_SINGLE_ISSUER`).
    pub(super) fn new(lane: Lane, settings: Settings, gro: bool) -> Result<Self, EngineError> {
        let submissions = settings.submissions;
        // Between two looks at it every receive and every send of a batch can complete, and what
        // one submission holds beside them.
        let sockets = lane.ports.capacity();
        let completions = (sockets + Batch::DATAGRAMS_MAX as u32 + submissions).next_power_of_two();
        let completions = completions.min(settings.completions_max).max(submissions);
        let mut builder = ::tokio_uring::builder();
        builder.entries(submissions).uring_builder(&ring(completions));
        let runtime = runtime(&builder)?;
        let station = Station {
            lane,
            rooms: Rooms::new(Settings::payload_bytes(gro)),
            flights: Flights::new(),
            held: Vec::with_capacity(Batch::DATAGRAMS_MAX),
            sends: Vec::with_capacity(Batch::DATAGRAMS_MAX),
            failed: Vec::with_capacity(Batch::DATAGRAMS_MAX),
            is_stopping: false,
        };
        Ok(Self { runtime, station })
    }

    /// Serves until [`Command::Stop`].
    pub(super) fn run(mut self) -> Result<(), EngineError> {
        self.runtime.block_on(self.station.run())
    }
}

impl Station {
    async fn run(&mut self) -> Result<(), EngineError> {
        self.lane.ports.listeners().for_each(|port| self.arm(port));
        self.watch_mailbox();
        let result = self.serve().await;
        self.close().await;
        result
    }

    async fn serve(&mut self) -> Result<(), EngineError> {
        let mut now = Instant::now();
        let mut alarm = pin!(sleep_until(now.into()));
        while !self.is_stopping {
            let first = self.sleep(now, alarm.as_mut()).await;
            now = Instant::now(); // The only clock read of a wake-up.
            self.lane.shard.io().wakeups += 1;
            // What lands while this goes on waits for the next wake-up, so that timers get their
            // turn.
            let others = self.flights.landed_count();
            if let Some(key) = first {
                self.land(now, key).await?;
            }
            for _ in 0..others {
                let Some(key) = self.flights.next_landed() else { break };
                self.land(now, key).await?;
            }
            self.lane.shard.handle_timeout(now);
            self.act(now).await;
            self.lane.look_after(now);
            self.flush(now).await;
        }
        Ok(())
    }

    /// Waits for an operation to land. `None` when none has in time.
    ///
    /// The alarm is not put off: to set a timer costs the runtime a system call and a pass, and one
    /// that rings too early does no harm.
    async fn sleep(&mut self, now: Instant, mut alarm: Pin<&mut Sleep>) -> Option<usize> {
        if let Some(key) = self.flights.next_landed() {
            return Some(key);
        }
        let due = (now + self.lane.patience(now)).into();
        if alarm.is_elapsed() || due < alarm.deadline() {
            alarm.as_mut().reset(due);
        }
        self.lane.shard.io().syscalls += SYSTEM_CALLS_PER_PASS;
        tokio::select! {
            biased;
            key = self.flights.wait() => Some(key),
            () = alarm => None,
        }
    }

    /// Takes in an operation that has completed, and starts it again where it goes on.
    async fn land(&mut self, now: Instant, key: usize) -> Result<(), EngineError> {
        let Some((purpose, result)) = self.flights.land(key) else {
            return Ok(());
        };
        match purpose {
            Purpose::Receive(port, room) => {
                if self.received(now, port, room, result).await? {
                    self.arm(port);
                }
            }
            Purpose::Mailbox => {
                self.obey(now).await;
                self.watch_mailbox();
            }
        }
        Ok(())
    }

    /// Whether the port goes on receiving.
    async fn received(
        &mut self,
        now: Instant,
        port: Port,
        room: Lease,
        result: i32,
    ) -> Result<bool, EngineError> {
        match usize::try_from(result) {
            Ok(len) => {
                self.hand_over(now, port, room, len).await;
                Ok(true)
            }
            Err(_) => {
                self.rooms.give_back(room);
                self.receive_failed(now, port, -result).await
            }
        }
    }

    /// Hands the datagrams of a room to the shard, one by one.
    async fn hand_over(&mut self, now: Instant, port: Port, room: Lease, len: usize) {
        self.lane.shard.io().receives += 1;
        let is_lent = self.relay(now, port, &room, len).await;
        if is_lent {
            self.held.push(room);
        } else {
            self.rooms.give_back(room);
        }
    }

    /// Whether the batch points into the room.
    async fn relay(&mut self, now: Instant, port: Port, room: &Lease, len: usize) -> bool {
        let Some(socket) = self.lane.ports.get(port) else {
            self.lane.shard.dropped(DropReason::StalePort, 1);
            return false;
        };
        let received = room.received(len);
        let source = socket.origin.or_else(|| sockaddr::decode(received.name));
        let Some(source) = source.filter(|_| !received.is_truncated) else {
            self.lane.shard.dropped(DropReason::Truncated, 1);
            return false;
        };
        let mut train = Train::new(port, source, received.control, received.payload);
        let mut is_lent = false;
        while let Some(datagram) = train.next() {
            if self.lane.batch.is_full() {
                self.flush(now).await;
            }
            is_lent |= self.lane.handle(now, datagram);
            if self.lane.shard.has_actions() {
                self.act(now).await;
                if self.lane.ports.get(port).is_none() {
                    self.lane.shard.dropped(DropReason::StalePort, train.remaining());
                    break;
                }
            }
        }
        is_lent
    }

    /// Whether the port goes on receiving.
    async fn receive_failed(
        &mut self,
        now: Instant,
        port: Port,
        errno: i32,
    ) -> Result<bool, EngineError> {
        let failure = self.lane.receive_failed(errno);
        match (failure, port) {
            (ReceiveFailure::None | ReceiveFailure::Passing, _)
            | (ReceiveFailure::Peer, Port::Listener(_)) => {}
            (ReceiveFailure::Peer | ReceiveFailure::Lasting, Port::Session(session)) => {
                if self.lane.ports.get(port).is_some() {
                    self.lane.shard.port_failed(now, session, port_error(errno));
                    self.act(now).await;
                }
            }
            (ReceiveFailure::Lasting, Port::Listener(_)) => {
                return Err(EngineError::Ring(io::Error::from_raw_os_error(errno)));
            }
        }
        Ok(failure != ReceiveFailure::Lasting)
    }

    async fn obey(&mut self, now: Instant) {
        self.lane.commands.acknowledge();
        while let Some(command) = self.lane.commands.take() {
            if matches!(command, Command::Stop) {
                self.is_stopping = true;
                break;
            }
            self.lane.shard.apply(now, command);
            self.act(now).await;
        }
    }

    /// Does what the shard asks for, after what was forwarded before has left: see the other ring's
    /// `act`.
    async fn act(&mut self, now: Instant) {
        if !self.lane.shard.has_actions() {
            return;
        }
        self.flush(now).await;
        while let Some(action) = self.lane.shard.next_action() {
            match action {
                Action::Send { route, bytes } => self.lane.send_now(now, route, bytes),
                Action::Open { session, origin } => {
                    let result = self.open_port(session, origin);
                    self.lane.shard.port_opened(now, session, result);
                }
                Action::Close { session } => self.close_port(session),
            }
        }
    }

    fn open_port(&mut self, session: SessionKey, origin: SocketAddr) -> Result<(), PortError> {
        self.lane.ports.open(session, origin)?;
        self.arm(Port::Session(session));
        Ok(())
    }

    /// Ends the port's receive and closes its socket.
    ///
    /// The kernel looks the descriptor up when the cancellation is submitted, so the socket is
    /// closed when that has completed: until then no other one gets its number.
    fn close_port(&mut self, session: SessionKey) {
        let Some(socket) = self.lane.ports.close(session) else {
            return;
        };
        let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(socket.raw()))).build();
        flights::submit_with(socket, entry);
    }

    /// Starts to receive from a port, if it is still open. No other receive from it is in flight.
    fn arm(&mut self, port: Port) {
        let Some(socket) = self.lane.ports.get(port) else {
            return;
        };
        let mut room = self.rooms.take();
        let entry = opcode::RecvMsg::new(Fd(socket.raw()), room.address()).build();
        // SAFETY: the header points into the room, which is the flight's until it has landed, and
        // rooms are freed after the runtime is gone.
        let operation = unsafe { submit(entry) };
        self.flights.launch(Purpose::Receive(port, room), operation);
        // One for each that is armed, and one for each that the next batch may point into.
        self.rooms.reserve(2 * self.flights.count());
    }

    fn watch_mailbox(&mut self) {
        let eventfd = Fd(self.lane.commands.as_fd().as_raw_fd());
        let entry = opcode::PollAdd::new(eventfd, libc::POLLIN as u32).build();
        // SAFETY: the entry points at nothing.
        let operation = unsafe { submit(entry) };
        self.flights.launch(Purpose::Mailbox, operation);
    }

    /// Sends what is queued, waits until it has left, and has its rooms back. Receives that were
    /// armed meanwhile are submitted with it.
    async fn flush(&mut self, now: Instant) {
        if self.lane.batch.is_empty() && self.held.is_empty() {
            return;
        }
        self.lane.seal();
        for position in 0..self.lane.batch.messages().len() {
            if let Some(entry) = self.send_entry(position) {
                // SAFETY: the entry points into envelopes, batch and rooms, none of which changes
                // before `settled`; all are freed after the runtime is gone.
                let operation = unsafe { submit(entry) };
                self.sends.push((position, operation));
            }
        }
        let mut sends = std::mem::take(&mut self.sends);
        if !sends.is_empty() {
            self.lane.shard.io().syscalls += SYSTEM_CALLS_PER_PASS;
        }
        for (position, operation) in sends.drain(..) {
            let result = operation.await;
            if result < 0 {
                self.failed.push((position, -result));
            }
        }
        self.sends = sends; // Keeps its memory.
        for (position, errno) in self.failed.drain(..) {
            self.lane.send_failed(now, position, errno);
        }
        self.lane.settled();
        self.held.drain(..).for_each(|room| self.rooms.give_back(room));
    }

    fn send_entry(&self, position: usize) -> Option<squeue::Entry> {
        let socket = Fd(self.lane.envelopes.socket(position)?);
        let message = self.lane.batch.messages().get(position)?;
        let single = single_piece(&self.lane.batch, message);
        let entry = match single.filter(|_| message.route.to.is_none()) {
            Some(piece) => opcode::Send::new(socket, piece.iov_base.cast(), piece.iov_len as u32)
                .flags(SEND_FLAGS)
                .build(),
            None => {
                let header = self.lane.envelopes.header(position)?;
                opcode::SendMsg::new(socket, header).flags(SEND_FLAGS as u32).build()
            }
        };
        Some(entry)
    }

    /// Sends what is queued and ends everything in flight, so that the sockets close with their
    /// descriptors.
    async fn close(&mut self) {
        let now = Instant::now();
        self.flush(now).await;
        self.lane.look_after(now);
        flights::submit_with((), opcode::AsyncCancel2::new(CancelBuilder::any()).build());
        // It ends at the first try. Else the runtime cancels and waits when it is dropped.
        let _ = timeout(CLOSE_PATIENCE, self.flights.end()).await;
    }
}

/// Checks that the engine can run here.
///
/// # Errors
/// What is missing, and what to do about it.
pub(super) fn probe() -> Result<(), EngineError> {
    // The newest flag that it asks for came after the newest operation that it uses.
    ring(8).build(8).map(drop).map_err(refused)
}

fn runtime(builder: &Builder) -> Result<Runtime, EngineError> {
    Runtime::new(builder).map_err(refused)
}

/// What the crate can live with of the flags that the other ring has: it looks for completions
/// after `epoll_wait`, which with `DEFER_TASKRUN` would find none.
fn ring(completions: u32) -> io_uring_06::Builder {
    let mut ring = uring_builder();
    ring.setup_submit_all().setup_single_issuer().setup_coop_taskrun();
    ring.setup_cqsize(completions).setup_clamp();
    ring
}

/// At least: the crate submits before every sleep, and does not tell how often it sleeps.
const SYSTEM_CALLS_PER_PASS: u64 = 2;

/// How long the end waits for operations to end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
