//! The engine for kernels and containers without io_uring: epoll, `recvmmsg`, `sendmmsg`.
//!
//! It has the same offloads, the same order and the same accounting as the ring. Every readable
//! socket gives a portion of at most 64 receives in a turn, so a busy one does not starve the others;
//! what has been received leaves when it is as much as the caches hold, or the turn ends.
#![allow(unsafe_code, reason = "recvmmsg and sendmmsg take pointers")]

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use libc::{iovec, mmsghdr, msghdr};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::EngineError;
use super::clients::ClientChange;
use super::cmsg::Ancillary;
use super::lane::{Lane, ReceiveFailure, Train};
use super::memory::Mapping;
use super::nap::Napper;
use super::ports::{Arrival, Inlet};
use super::send::{SEND_FLAGS, empty_header, last_errno};
use super::sockaddr::{self, Name};
use super::socket::port_error;
use super::token::Token;
use crate::shard::SessionKey;
use crate::shard::{Action, Command, DropReason, Port, PortError};

/// A shard on epoll.
pub(super) struct Mmsg {
    epoll: OwnedFd,
    lane: Lane,
    /// `None`: no datagram waits.
    napper: Option<Napper>,
    /// The last turn has left something behind that could have been received.
    has_more: bool,
    is_stopping: bool,
}

impl Mmsg {
    /// Watches the mailbox and all listeners.
    pub(super) fn new(lane: Lane) -> Result<Self, EngineError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(epoll_error)?;
        watch(&epoll, &lane.commands, Token::Mailbox).map_err(epoll_error)?;
        for port in lane.ports.listeners() {
            if let Some(socket) = lane.ports.get(port) {
                let token = Token::Receive(Inlet::Port(port));
                watch(&epoll, socket, token).map_err(epoll_error)?;
            }
        }
        let napper = lane.may_gather().then(Napper::new);
        Ok(Self { epoll, lane, napper, has_more: false, is_stopping: false })
    }

    /// Serves until [`Command::Stop`].
    pub(super) fn run(mut self, pool: &mut Pool) -> Result<(), EngineError> {
        let mut ready = Vec::with_capacity(EVENTS_MAX);
        let mut now = Instant::now();
        while !self.is_stopping {
            let patience = self.lane.patience(now);
            let patience = self.gather(now, patience);
            self.sleep(&mut ready, patience)?;
            now = Instant::now(); // The only clock read of a wake-up.
            self.lane.shard.io().wakeups += 1;
            self.has_more = ready.len() == EVENTS_MAX;
            for event in ready.drain(..) {
                self.turn(now, Token::decode(event.data.u64()), pool)?;
            }
            self.flush(now);
            pool.reuse();
            self.lane.shard.handle_timeout(now);
            self.act(now);
            self.lane.look_after(now);
            self.tend_clients(now);
        }
        Ok(())
    }

    /// Lets datagrams gather in the sockets where that pays and none has been left there. The
    /// window begins with the last wake-up, so a thread that is busy for so long does not wait.
    /// What is left of the patience.
    fn gather(&mut self, now: Instant, patience: Duration) -> Duration {
        let may_wait = if self.has_more { Duration::ZERO } else { patience };
        let (Some(napper), Some(window)) = (&self.napper, self.lane.gather(now, may_wait)) else {
            return patience;
        };
        self.lane.shard.io().syscalls += 1;
        napper.until(now + window);
        patience.saturating_sub(window)
    }

    fn sleep(
        &mut self,
        ready: &mut Vec<epoll::Event>,
        patience: Duration,
    ) -> Result<(), EngineError> {
        // In whole milliseconds: what is finer needs epoll_pwait2 (Linux 5.11).
        let millis = patience.as_micros().div_ceil(1000) as i64; // A second at most.
        let timeout = Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
        self.lane.shard.io().syscalls += 1;
        match epoll::wait(&self.epoll, spare_capacity(ready), Some(&timeout)) {
            // A signal.
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(epoll_error(error)),
        }
    }

    fn turn(&mut self, now: Instant, token: Token, pool: &mut Pool) -> Result<(), EngineError> {
        match token {
            Token::Receive(inlet) => self.receive(now, inlet, pool),
            Token::Mailbox => {
                self.obey(now);
                Ok(())
            }
            Token::Send(_) | Token::Cancel => unreachable!("only `watch` makes tokens here"),
        }
    }

    fn receive(&mut self, now: Instant, inlet: Inlet, pool: &mut Pool) -> Result<(), EngineError> {
        // A port that was closed in this turn is not there.
        let Some(socket) = self.lane.ports.inlet(inlet) else {
            return Ok(());
        };
        let socket = socket.raw();
        if !pool.has_room() || self.lane.portion.is_enough(&self.lane.batch) {
            self.flush(now);
            pool.reuse();
        }
        self.lane.shard.io().syscalls += 1;
        let most = self.lane.portion.receives().min(RECEIVES_MAX);
        match pool.receive(socket, most) {
            Ok(slots) => {
                self.has_more |= slots.len() == most;
                slots.for_each(|slot| self.hand_over(now, inlet, pool.received(slot)));
                Ok(())
            }
            Err(errno) => self.receive_failed(now, inlet, errno),
        }
    }

    /// Hands the datagrams of a buffer to the shard, one by one.
    fn hand_over(&mut self, now: Instant, inlet: Inlet, received: Received<'_>) {
        self.lane.shard.io().receives += 1;
        self.lane.portion.note(received.payload.len());
        let Some(Arrival { port, source, local }) = self.lane.ports.arrival(inlet) else {
            self.lane.shard.dropped(DropReason::StalePort, 1);
            return;
        };
        let source = source.or_else(|| sockaddr::decode(received.name));
        let Some(source) = source.filter(|_| !received.is_truncated) else {
            self.lane.shard.dropped(DropReason::Truncated, 1);
            return;
        };
        let train = Train::new(port, source, received.control, received.payload);
        let mut train = train.hit(local);
        let mut is_lent = false;
        while let Some(datagram) = train.next() {
            if self.lane.batch.is_full() {
                self.flush(now);
            }
            is_lent |= self.lane.handle(now, datagram);
            if self.lane.shard.has_actions() {
                self.act(now);
                if self.lane.ports.get(port).is_none() {
                    self.lane.shard.dropped(DropReason::StalePort, train.remaining());
                    break;
                }
            }
        }
        if is_lent && matches!(inlet, Inlet::Port(_)) {
            self.lane.count_receive(&train);
        }
    }

    fn receive_failed(
        &mut self,
        now: Instant,
        inlet: Inlet,
        errno: i32,
    ) -> Result<(), EngineError> {
        let failure = self.lane.receive_failed(errno);
        match (failure, inlet) {
            (ReceiveFailure::None | ReceiveFailure::Passing, _)
            | (ReceiveFailure::Peer, Inlet::Port(Port::Listener(_))) => Ok(()),
            (ReceiveFailure::Peer, Inlet::Client(id)) => {
                self.lane.ports.clients.refused(id);
                Ok(())
            }
            (
                ReceiveFailure::Peer | ReceiveFailure::Lasting,
                Inlet::Port(port @ Port::Session(session)),
            ) => {
                if failure == ReceiveFailure::Lasting
                    && let Some(socket) = self.lane.ports.get(port)
                {
                    // Else it would be readable for ever. The shard closes it when it likes.
                    let _ = epoll::delete(&self.epoll, socket);
                }
                self.lane.shard.port_failed(now, session, port_error(errno));
                self.act(now);
                Ok(())
            }
            (ReceiveFailure::Lasting, Inlet::Port(Port::Listener(_))) => {
                Err(EngineError::Poll(io::Error::from_raw_os_error(errno)))
            }
            (ReceiveFailure::Lasting, Inlet::Client(id)) => {
                self.lane.ports.clients.receive_failed(id);
                Ok(())
            }
        }
    }

    fn obey(&mut self, now: Instant) {
        self.lane.commands.acknowledge();
        while let Some(command) = self.lane.commands.take() {
            if matches!(command, Command::Stop) {
                self.is_stopping = true;
                break;
            }
            self.lane.shard.apply(now, command);
            self.act(now);
        }
    }

    /// Does what the shard asks for, after what was forwarded before has left: see the ring's
    /// `act`.
    fn act(&mut self, now: Instant) {
        if !self.lane.shard.has_actions() {
            return;
        }
        self.flush(now);
        while let Some(action) = self.lane.shard.next_action() {
            match action {
                Action::Send { route, bytes } => self.lane.send_now(now, route, bytes),
                Action::Open { session, origin } => {
                    let result = self.open_port(session, origin);
                    self.lane.shard.port_opened(now, session, result);
                }
                // Closing the descriptor takes it out of epoll.
                Action::Close { session } => drop(self.lane.ports.close(session)),
            }
        }
    }

    fn open_port(&mut self, session: SessionKey, origin: SocketAddr) -> Result<(), PortError> {
        self.lane.ports.open(session, origin)?;
        let port = Port::Session(session);
        let Some(socket) = self.lane.ports.get(port) else {
            return Err(PortError::Exhausted);
        };
        // ENOSPC: the limit on watches (fs.epoll.max_user_watches). ENOMEM: no memory for one.
        let token = Token::Receive(Inlet::Port(port));
        watch(&self.epoll, socket, token).map_err(|_| PortError::Exhausted)
    }

    /// Opens and gives up sockets of clients. Closing a descriptor takes it out of epoll.
    fn tend_clients(&mut self, now: Instant) {
        self.lane.tend_clients(now);
        while let Some(change) = self.lane.ports.clients.next_change() {
            let ClientChange::Receive(id) = change else { continue };
            let inlet = Inlet::Client(id);
            let Some(socket) = self.lane.ports.inlet(inlet) else { continue };
            if watch(&self.epoll, socket, Token::Receive(inlet)).is_err() {
                self.lane.ports.clients.receive_failed(id);
            }
        }
    }

    /// Sends what is queued, now. The buffers stay as they are until the turn ends.
    fn flush(&mut self, now: Instant) {
        if self.lane.batch.is_empty() {
            return;
        }
        self.lane.seal();
        let mut position = 0;
        while position < self.lane.batch.messages().len() {
            position += self.send_from(now, position);
        }
        self.lane.settled();
    }

    /// Sends the messages from `position` on that leave from one socket. How many have left or
    /// failed.
    fn send_from(&mut self, now: Instant, position: usize) -> usize {
        let Some(socket) = self.lane.envelopes.socket(position) else {
            return 1;
        };
        let headers = self.lane.envelopes.run_from(position);
        let count = headers.len().min(MESSAGES_MAX);
        // SAFETY: the headers point into envelopes and batch, which do not change before `settled`,
        // and at bytes in slots of the pool that are not filled again before.
        let sent =
            unsafe { libc::sendmmsg(socket, headers.as_mut_ptr(), count as u32, SEND_FLAGS as _) };
        let errno = last_errno();
        self.lane.shard.io().syscalls += 1;
        match usize::try_from(sent) {
            // Fewer than asked for: the next one has failed and says why when it is tried again, if
            // it does not leave then.
            Ok(sent) => sent,
            // A signal came before the first.
            Err(_) if errno == libc::EINTR => 0,
            Err(_) => {
                self.lane.send_failed(now, position, errno);
                1
            }
        }
    }
}

/// Receive buffers with everything that `recvmmsg` wants beside them.
///
/// A turn fills them one after the other, and the batch under way points into them until it has
/// left; then `reuse` starts from the first again.
pub(super) struct Pool {
    buffers: Mapping,
    payload_bytes: usize,
    used: usize,
    headers: Vec<mmsghdr>,
    slots: Vec<Slot>,
}

/// What a header points at.
struct Slot {
    name: [u8; Name::ROOM],
    control: AlignedControl,
    piece: iovec,
}

/// Aligned as `struct cmsghdr` is.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct AlignedControl([u8; Ancillary::LISTENER_ROOM]);

/// What one receive has put into a slot.
pub(super) struct Received<'a> {
    pub(super) name: &'a [u8],
    pub(super) control: &'a [u8],
    pub(super) payload: &'a [u8],
    pub(super) is_truncated: bool,
}

impl Pool {
    /// `receives` buffers for `payload_bytes` each.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn new(receives: usize, payload_bytes: usize) -> io::Result<Self> {
        let buffers = Mapping::new(receives * payload_bytes)?;
        let slot = |position: usize| Slot {
            name: [0; Name::ROOM],
            control: AlignedControl([0; Ancillary::LISTENER_ROOM]),
            piece: iovec {
                iov_base: buffers.start().wrapping_add(position * payload_bytes).cast(),
                iov_len: payload_bytes,
            },
        };
        let slots = (0..receives).map(slot).collect();
        let headers = (0..receives).map(|_| mmsghdr { msg_hdr: empty_header(), msg_len: 0 });
        Ok(Self { headers: headers.collect(), buffers, payload_bytes, used: 0, slots })
    }

    /// Whether a socket can take its full share of a turn.
    fn has_room(&self) -> bool {
        self.used + RECEIVES_MAX <= self.slots.len()
    }

    /// Nothing points into the buffers any more.
    fn reuse(&mut self) {
        self.used = 0;
    }

    /// Fills up to `most` further slots with what has arrived. Which, or the errno.
    pub(super) fn receive(&mut self, socket: RawFd, most: usize) -> Result<Range<usize>, i32> {
        let (first, receives) = (self.used, most);
        let slots = self.slots.iter_mut().skip(first);
        for (header, slot) in self.headers.iter_mut().skip(first).zip(slots).take(receives) {
            slot.address(&mut header.msg_hdr);
        }
        let headers = self.headers.get_mut(first..).unwrap_or_default();
        let count = headers.len().min(receives) as u32;
        let (headers, timeout) = (headers.as_mut_ptr(), std::ptr::null_mut());
        // SAFETY: `count` headers point at slots and buffers of this pool. Nothing else does: what
        // the batch under way points at lies in slots before `used`.
        let received =
            unsafe { libc::recvmmsg(socket, headers, count, libc::MSG_DONTWAIT as _, timeout) };
        let received = usize::try_from(received).map_err(|_| last_errno())?;
        self.used += received;
        Ok(first..self.used)
    }

    /// What the last receive into `slot` brought.
    pub(super) fn received(&self, slot: usize) -> Received<'_> {
        let (Some(header), Some(kept)) = (self.headers.get(slot), self.slots.get(slot)) else {
            return Received { name: &[], control: &[], payload: &[], is_truncated: true };
        };
        let (len, header) = (header.msg_len as usize, &header.msg_hdr);
        let control_len: usize = header.msg_controllen as _; // Its type depends on the C library.
        let start = self.buffers.start().wrapping_add(slot * self.payload_bytes).cast_const();
        // SAFETY: the range lies inside the slot's buffer, and the kernel writes there in `receive`
        // alone, which needs the pool for itself.
        let payload = unsafe { std::slice::from_raw_parts(start, len.min(self.payload_bytes)) };
        Received {
            name: kept.name.get(..header.msg_namelen as usize).unwrap_or_default(),
            control: kept.control.0.get(..control_len).unwrap_or_default(),
            payload,
            // Without its segment size a train would pass for one datagram.
            is_truncated: header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
        }
    }
}

impl Slot {
    /// Points `header` at this slot. The kernel overwrites lengths and flags, so each receive sets
    /// them anew.
    fn address(&mut self, header: &mut msghdr) {
        header.msg_name = self.name.as_mut_ptr().cast();
        header.msg_namelen = self.name.len() as u32;
        header.msg_iov = &raw mut self.piece;
        header.msg_iovlen = 1;
        header.msg_control = self.control.0.as_mut_ptr().cast();
        header.msg_controllen = self.control.0.len() as _;
        header.msg_flags = 0;
    }
}

/// Wakes the thread when `socket` is readable or has failed.
fn watch(epoll: &OwnedFd, socket: &impl AsFd, token: Token) -> Result<(), Errno> {
    epoll::add(epoll, socket, epoll::EventData::new_u64(token.encode()), epoll::EventFlags::IN)
}

fn epoll_error(error: Errno) -> EngineError {
    EngineError::Poll(error.into())
}

/// Receives that one socket may take in a turn.
pub(super) const RECEIVES_MAX: usize = 64;

/// Sends in one system call: `UIO_MAXIOV`.
const MESSAGES_MAX: usize = 1024;

/// Sockets served in one turn.
const EVENTS_MAX: usize = 256;
