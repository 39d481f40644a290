//! The io_uring engine: one ring per shard, one multishot receive per socket, sends out of the
//! receive buffers.
//!
//! Sends are `MSG_DONTWAIT` and report failures only (`IOSQE_CQE_SKIP_SUCCESS`). Such a send is
//! tried while it is submitted and never parked, so as soon as the submission queue has been
//! consumed every message of the batch has left, or its failure stands in the completion queue.
//! That is when the buffers go back, and not with a completion per send. It would not hold with
//! SQPOLL, `IOSQE_ASYNC`, links or zero-copy sends.
#![allow(unsafe_code, reason = "a ring takes pointers")]

pub(super) mod bufring;
pub(super) mod probe;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, RecvMsgOut, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};
use libc::msghdr;

use super::clients::ClientChange;
use super::cmsg::Ancillary;
use super::gso::Batch;
use super::lane::{Lane, ReceiveFailure, Train};
use super::nap::Napper;
use super::portion::Portion;
use super::ports::{Arrival, Inlet};
use super::send::{SEND_FLAGS, empty_header, single_piece};
use super::sockaddr::{self, Name};
use super::socket::port_error;
use super::token::Token;
use super::{EngineError, Settings};
use crate::shard::SessionKey;
use crate::shard::{Action, Command, DropReason, Port};
use bufring::{BufRing, Buffer};

/// A shard on a ring.
///
/// Fields are dropped in order: the ring is closed first, and only then does the memory go away
/// that the kernel may still write to or read from. The receive buffers outlive the whole value.
pub(super) struct Uring<'pool> {
    ring: IoUring,
    lane: Lane,
    pool: &'pool BufRing,
    /// The buffers that the batch under way points into.
    held: Vec<Buffer<'pool>>,
    /// Completions that nobody has looked at yet, in order. Those of sends are not among them.
    arrived: VecDeque<cqueue::Entry>,
    /// Sends of the batch under way that have failed: position and errno.
    failed: Vec<(u32, i32)>,
    /// What is to be armed, for the first time or again, in this order.
    unarmed: VecDeque<Token>,
    /// What comes after that: receives that ended with the portion, but not without a share of it.
    fed: VecDeque<Token>,
    appetite: Appetite,
    /// Armed operations: each will complete once more at least.
    armed: usize,
    listener_layout: Box<msghdr>,
    session_layout: Box<msghdr>,
    wait_flags: EnterFlags,
    /// Where the ring itself cannot wait for several completions within a window (before Linux
    /// 6.12).
    napper: Option<Napper>,
    is_stopping: bool,
}

/// How long a system call may take.
#[derive(Clone, Copy)]
enum Wait {
    /// Submit and come back.
    No,
    /// Submit, take in what has arrived, and come back.
    Arrived,
    /// Submit, and sleep until something arrives, but not longer than this.
    UpTo(Duration),
    /// The same, but within the window only for what makes the wake-up worth it.
    Gather { window: Duration, patience: Duration },
}

impl Wait {
    fn without_sleep(self) -> Self {
        match self {
            Self::No => Self::No,
            Self::Arrived | Self::UpTo(_) | Self::Gather { .. } => Self::Arrived,
        }
    }
}

impl<'pool> Uring<'pool> {
    /// Builds the ring, on the thread that will use it (`IORING_SETUP_SINGLE_ISSUER`), and arms all
    /// receives.
    pub(super) fn new(
        pool: &'pool BufRing,
        lane: Lane,
        settings: Settings,
    ) -> Result<Self, EngineError> {
        let submissions = settings.submissions;
        // Between two looks at it every buffer can arrive, every receive can end, every send that
        // was submitted can fail, and a few more for the mailbox and cancellations.
        let receives = u32::from(pool.count()) + lane.ports.capacity();
        let completions = (2 * receives + submissions).next_power_of_two();
        let ring = probe::build(submissions, completions.min(settings.completions_max))?;
        // SAFETY: `'pool` outlives the ring, which is closed when it is dropped.
        let registered = unsafe { pool.register(&ring.submitter(), probe::BUFFER_GROUP) };
        registered.map_err(EngineError::Ring)?;
        // A thread that waits for packets is idle and not waiting for a disk. Since Linux 6.15.
        let no_iowait = ring.params().is_feature_no_iowait().then_some(EnterFlags::NO_IOWAIT);
        let listeners = lane.ports.listeners().map(|port| Token::Receive(Inlet::Port(port)));
        let operations = lane.ports.capacity() as usize + 1;
        let mut unarmed = VecDeque::with_capacity(operations);
        unarmed.extend(listeners.chain([Token::Mailbox]));
        let mut uring = Self {
            held: Vec::with_capacity(pool.count().into()),
            arrived: VecDeque::with_capacity(ring.params().cq_entries() as usize),
            failed: Vec::with_capacity(Batch::DATAGRAMS_MAX),
            unarmed,
            fed: VecDeque::with_capacity(operations),
            appetite: Appetite::default(),
            armed: 0,
            listener_layout: layout(Name::ROOM, Ancillary::LISTENER_ROOM),
            session_layout: layout(0, Ancillary::SESSION_ROOM),
            wait_flags: no_iowait.unwrap_or(EnterFlags::empty()),
            napper: (lane.may_gather() && !ring.params().is_feature_min_timeout())
                .then(Napper::new),
            is_stopping: false,
            ring,
            lane,
            pool,
        };
        uring.submit(Wait::No)?;
        Ok(uring)
    }

    /// Serves until [`Command::Stop`].
    pub(super) fn run(mut self) -> Result<(), EngineError> {
        let mut now = Instant::now();
        while !self.is_stopping {
            self.sleep(now)?;
            now = Instant::now(); // The only clock read of a wake-up.
            self.lane.shard.io().wakeups += 1;
            self.settle(now)?;
            self.take_in(now)?;
            self.lane.shard.handle_timeout(now);
            self.act(now)?;
            self.lane.look_after(now);
            self.tend_clients(now)?;
        }
        self.close(now)
    }

    /// Submits, and sleeps until there is something to do.
    fn sleep(&mut self, now: Instant) -> Result<(), EngineError> {
        let is_busy = !(self.arrived.is_empty() && self.unarmed.is_empty() && self.fed.is_empty());
        let patience = if is_busy { Duration::ZERO } else { self.lane.patience(now) };
        match self.lane.gather(now, patience) {
            Some(window) if self.napper.is_none() => {
                // What gathers must find room, however small the portions are.
                self.pool.publish(2 * self.worth() as usize);
                self.submit(Wait::Gather { window, patience })
            }
            Some(window) => {
                self.pool.publish(2 * self.worth() as usize);
                // What is queued does not wait with the thread, nor does what it makes room for.
                self.submit(Wait::No)?;
                if let Some(napper) = self.napper.as_ref().filter(|_| self.has_nothing_to_do()) {
                    napper.until(now + window);
                }
                self.enter(Wait::UpTo(patience.saturating_sub(window)))
            }
            None if is_busy => self.submit(Wait::Arrived),
            None => self.submit(Wait::UpTo(patience)),
        }
    }

    /// Hands the shard what has arrived, and what has arrived meanwhile as long as there seems to
    /// be more and it is worth taking in before the batch leaves; nothing waits for it.
    ///
    /// One call takes 32 datagrams at most from each socket, and work of about 20 sockets.
    fn take_in(&mut self, now: Instant) -> Result<(), EngineError> {
        for _ in 0..ROUNDS_MAX {
            let arrived = self.arrived.len();
            while let Some(completion) = self.arrived.pop_front() {
                self.complete(now, &completion)?;
            }
            if self.is_short_of_buffers() {
                return self.flush(now);
            }
            let is_enough = self.lane.portion.is_enough(&self.lane.batch);
            if arrived < BACKLOG || is_enough || self.is_stopping {
                break;
            }
            self.publish();
            self.enter(Wait::Arrived)?;
        }
        Ok(())
    }

    fn complete(&mut self, now: Instant, completion: &cqueue::Entry) -> Result<(), EngineError> {
        let token = Token::decode(completion.user_data());
        let was_fed = self.appetite.last == Some(token);
        if cqueue::buffer_select(completion.flags()).is_some() {
            self.appetite.note(token);
        }
        let goes_on = match token {
            Token::Receive(inlet) => self.received(now, inlet, completion)?,
            Token::Mailbox => {
                self.obey(now)?;
                true
            }
            // Nothing was armed to cancel, or `collect` has put the send aside.
            Token::Cancel | Token::Send(_) => return Ok(()),
        };
        if !cqueue::more(completion.flags()) {
            self.armed -= 1;
            if goes_on && self.arm_entry(token).is_some() {
                self.lane.shard.io().rearmed += 1;
                let waiting = if was_fed { &mut self.fed } else { &mut self.unarmed };
                waiting.push_back(token);
            }
        }
        Ok(())
    }

    /// Whether the inlet goes on receiving.
    fn received(
        &mut self,
        now: Instant,
        inlet: Inlet,
        completion: &cqueue::Entry,
    ) -> Result<bool, EngineError> {
        let result = completion.result();
        let len = usize::try_from(result).unwrap_or_default();
        let buffer = cqueue::buffer_select(completion.flags());
        // SAFETY: the completion names the buffer, and each completion is looked at once.
        let buffer = buffer.map(|id| unsafe { self.pool.take(id, len) });
        match buffer {
            Some(buffer) if result >= 0 => {
                self.hand_over(now, inlet, buffer)?;
                Ok(true)
            }
            Some(_) | None => self.receive_failed(now, inlet, -result),
        }
    }

    /// Hands the datagrams of a buffer to the shard, one by one.
    fn hand_over(
        &mut self,
        now: Instant,
        inlet: Inlet,
        buffer: Buffer<'pool>,
    ) -> Result<(), EngineError> {
        self.lane.shard.io().receives += 1;
        let Some(Arrival { port, source: fixed, local }) = self.lane.ports.arrival(inlet) else {
            self.lane.shard.dropped(DropReason::StalePort, 1);
            return Ok(());
        };
        let message = RecvMsgOut::parse(buffer.bytes(), self.layout(inlet));
        let message = message.ok().filter(|message| {
            // Without its segment size a train would pass for one datagram.
            !message.is_payload_truncated() && !message.is_control_data_truncated()
        });
        let source = message.as_ref().and_then(|message| sockaddr::decode(message.name_data()));
        let Some((message, source)) = message.zip(fixed.or(source)) else {
            self.lane.shard.dropped(DropReason::Truncated, 1);
            return Ok(());
        };
        self.lane.portion.note(message.payload_data().len());
        let train = Train::new(port, source, message.control_data(), message.payload_data());
        let mut train = train.hit(local);
        let mut is_lent = false;
        while let Some(datagram) = train.next() {
            if self.lane.batch.is_full() {
                self.flush(now)?;
            }
            is_lent |= self.lane.handle(now, datagram);
            if self.lane.shard.has_actions() {
                self.act(now)?;
                if self.lane.ports.get(port).is_none() {
                    self.lane.shard.dropped(DropReason::StalePort, train.remaining());
                    break;
                }
            }
        }
        if is_lent {
            if matches!(inlet, Inlet::Port(_)) {
                self.lane.count_receive(&train);
            }
            self.held.push(buffer);
        }
        Ok(())
    }

    /// Whether the inlet goes on receiving.
    fn receive_failed(
        &mut self,
        now: Instant,
        inlet: Inlet,
        errno: i32,
    ) -> Result<bool, EngineError> {
        if errno == libc::ENOBUFS {
            // The portion is taken, or all buffers are. It is armed again after some have come back.
            self.lane.shard.io().ring_starved += u64::from(self.pool.is_exhausted());
            return Ok(true);
        }
        let failure = self.lane.receive_failed(errno);
        match (failure, inlet) {
            (ReceiveFailure::None | ReceiveFailure::Passing, _) => {}
            (
                ReceiveFailure::Peer | ReceiveFailure::Lasting,
                Inlet::Port(port @ Port::Session(session)),
            ) => {
                if self.lane.ports.get(port).is_some() {
                    self.lane.shard.port_failed(now, session, port_error(errno));
                    self.act(now)?;
                }
            }
            (ReceiveFailure::Peer, Inlet::Port(Port::Listener(_))) => {}
            (ReceiveFailure::Peer, Inlet::Client(id)) => self.lane.ports.clients.refused(id),
            (ReceiveFailure::Lasting, Inlet::Port(Port::Listener(_))) => {
                return Err(EngineError::Ring(io::Error::from_raw_os_error(errno)));
            }
            (ReceiveFailure::Lasting, Inlet::Client(id)) => {
                self.lane.ports.clients.receive_failed(id);
            }
        }
        Ok(failure != ReceiveFailure::Lasting)
    }

    fn obey(&mut self, now: Instant) -> Result<(), EngineError> {
        self.lane.commands.acknowledge();
        while let Some(command) = self.lane.commands.take() {
            if matches!(command, Command::Stop) {
                self.is_stopping = true;
                break;
            }
            self.lane.shard.apply(now, command);
            self.act(now)?;
        }
        Ok(())
    }

    /// Does what the shard asks for.
    ///
    /// What was forwarded before leaves before: a goodbye does not overtake media, and no message
    /// is left that names a socket about to be closed. Actions are rare, so it costs nothing that
    /// the batch ends here.
    fn act(&mut self, now: Instant) -> Result<(), EngineError> {
        if !self.lane.shard.has_actions() {
            return Ok(());
        }
        self.flush(now)?;
        while let Some(action) = self.lane.shard.next_action() {
            match action {
                Action::Send { route, bytes } => self.lane.send_now(now, route, bytes),
                Action::Open { session, origin } => {
                    let result = self.lane.ports.open(session, origin);
                    if result.is_ok() {
                        self.unarmed.push_back(Token::Receive(Inlet::Port(Port::Session(session))));
                    }
                    self.lane.shard.port_opened(now, session, result);
                }
                Action::Close { session } => self.close_port(session)?,
            }
        }
        Ok(())
    }

    /// Ends the port's receive and closes its socket, which the ring keeps alive until the receive
    /// has ended.
    fn close_port(&mut self, session: SessionKey) -> Result<(), EngineError> {
        if self.lane.ports.close(session).is_none() {
            return Ok(());
        }
        self.cancel(Inlet::Port(Port::Session(session)))
    }

    /// Opens and gives up sockets of clients.
    fn tend_clients(&mut self, now: Instant) -> Result<(), EngineError> {
        self.lane.tend_clients(now);
        while let Some(change) = self.lane.ports.clients.next_change() {
            match change {
                ClientChange::Receive(id) => {
                    self.unarmed.push_back(Token::Receive(Inlet::Client(id)));
                }
                ClientChange::Closed(id) => self.cancel(Inlet::Client(id))?,
            }
        }
        Ok(())
    }

    fn cancel(&mut self, inlet: Inlet) -> Result<(), EngineError> {
        let token = Token::Receive(inlet).encode();
        self.push(&opcode::AsyncCancel::new(token).build(), Token::Cancel)
    }

    /// Sends what is queued, now, and has its buffers back.
    fn flush(&mut self, now: Instant) -> Result<(), EngineError> {
        if self.lane.batch.is_empty() && self.held.is_empty() {
            return Ok(());
        }
        self.submit(Wait::No)?;
        self.settle(now)
    }

    /// Gives the kernel everything there is for it: sends, then receives to be armed.
    fn submit(&mut self, wait: Wait) -> Result<(), EngineError> {
        self.lane.seal();
        for position in 0..self.lane.batch.messages().len() {
            if let Some(entry) = self.send_entry(position) {
                self.push(&entry, Token::Send(position as u32))?;
            }
        }
        // Receives find the buffers that came back without being sent from.
        self.publish();
        self.arm()?;
        self.enter(wait)
    }

    /// After this every message of the batch has left or failed, and its buffers are back.
    fn settle(&mut self, now: Instant) -> Result<(), EngineError> {
        loop {
            let submissions = self.ring.submission();
            let is_overflown = submissions.cq_overflow();
            if submissions.is_empty() && !is_overflown {
                break;
            }
            drop(submissions);
            // Left in the queue after EAGAIN, or completions that found their queue full.
            self.lane.shard.io().completion_overflows += u64::from(is_overflown);
            self.enter(Wait::Arrived)?;
        }
        let mut failed = std::mem::take(&mut self.failed);
        for (position, errno) in failed.drain(..) {
            self.lane.send_failed(now, position as usize, errno);
        }
        self.failed = failed; // Keeps its memory.
        self.lane.settled();
        self.held.clear();
        self.publish();
        Ok(())
    }

    /// Offers the kernel a portion of buffers.
    fn publish(&self) {
        self.pool.publish(self.lane.portion.receives());
    }

    /// Empties the completion queue: failed sends are put aside until their batch is settled, the
    /// rest waits for its turn.
    fn collect(&mut self) {
        while let Some(completion) = self.ring.completion().next() {
            match Token::decode(completion.user_data()) {
                Token::Send(position) => self.failed.push((position, -completion.result())),
                Token::Receive(_) | Token::Mailbox | Token::Cancel => {
                    self.arrived.push_back(completion);
                }
            }
        }
    }

    fn send_entry(&self, position: usize) -> Option<squeue::Entry> {
        let socket = Fd(self.lane.envelopes.socket(position)?);
        let message = self.lane.batch.messages().get(position)?;
        let single = single_piece(&self.lane.batch, message);
        let entry = match single.filter(|_| self.lane.envelopes.is_plain(position)) {
            // The cheaper operation, where there is neither a receiver to name nor anything to cut.
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

    /// Arms what waits for it, but no more receives than the buffers on offer will do for: one that
    /// finds none has been armed for nothing.
    ///
    /// A receive may take the whole portion before the next one is tried. So those that have had
    /// nothing of the last one come first: sockets with a backlog take turns.
    fn arm(&mut self) -> Result<(), EngineError> {
        let mut room = usize::from(self.pool.offered()).max(1);
        while room > 0
            && let Some(token) = self.unarmed.pop_front().or_else(|| self.fed.pop_front())
        {
            let Some(entry) = self.arm_entry(token) else {
                continue;
            };
            if matches!(token, Token::Receive(_)) {
                room = room.saturating_sub(self.appetite.mean());
            }
            self.push_repeating(&entry, token)?;
        }
        Ok(())
    }

    /// `None` for a port that has been closed.
    fn arm_entry(&self, token: Token) -> Option<squeue::Entry> {
        let Token::Receive(inlet) = token else {
            let eventfd = Fd(self.lane.commands.as_fd().as_raw_fd());
            return Some(opcode::PollAdd::new(eventfd, libc::POLLIN as u32).multi(true).build());
        };
        let socket = Fd(self.lane.ports.inlet(inlet)?.raw());
        let layout = std::ptr::from_ref(self.layout(inlet));
        Some(opcode::RecvMsgMulti::new(socket, layout, probe::BUFFER_GROUP).build())
    }

    /// The ports of sessions need no room for names and addresses.
    fn layout(&self, inlet: Inlet) -> &msghdr {
        match inlet {
            Inlet::Port(Port::Listener(_)) | Inlet::Client(_) => &self.listener_layout,
            Inlet::Port(Port::Session(_)) => &self.session_layout,
        }
    }

    /// Queues an operation that reports nothing when it succeeds.
    fn push(&mut self, entry: &squeue::Entry, token: Token) -> Result<(), EngineError> {
        self.push_entry(&entry.clone().flags(squeue::Flags::SKIP_SUCCESS).user_data(token.encode()))
    }

    /// Queues an operation that reports until it ends.
    fn push_repeating(&mut self, entry: &squeue::Entry, token: Token) -> Result<(), EngineError> {
        self.armed += 1;
        self.push_entry(&entry.clone().user_data(token.encode()))
    }

    fn push_entry(&mut self, entry: &squeue::Entry) -> Result<(), EngineError> {
        loop {
            // SAFETY: what an entry points at lives until it has been submitted (headers and pieces
            // of the batch until `settled`, layouts as long as `self`), and buffers that the kernel
            // writes to outlive the ring.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            // The queue is full: what is in it leaves first.
            self.enter(Wait::No)?;
        }
    }

    /// Submits what is queued and takes in what has completed. Something may be left of either.
    fn enter(&mut self, wait: Wait) -> Result<(), EngineError> {
        // An earlier call, made for room in the queue, may have brought something.
        let wait = if self.has_nothing_to_do() { wait } else { wait.without_sleep() };
        let submissions = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        let get = EnterFlags::GETEVENTS;
        let result = match wait {
            Wait::No if submissions == 0 => return Ok(()),
            // SAFETY: without an argument there is nothing that could be wrong.
            Wait::No => unsafe { submitter.enter::<()>(submissions, 0, 0, None) },
            Wait::Arrived => {
                // SAFETY: as above.
                unsafe { submitter.enter::<()>(submissions, 0, get.bits(), None) }
            }
            Wait::Gather { window, patience } => {
                let timeout = Timespec::from(patience);
                let micros = u32::try_from(window.as_micros()).unwrap_or(u32::MAX);
                let args = SubmitArgs::new().timespec(&timeout).min_wait_usec(micros);
                let flags = get | EnterFlags::EXT_ARG | self.wait_flags;
                // Where datagrams are there already the kernel takes them in without sleeping until
                // it has so many, so a backlog does not wait.
                // SAFETY: `EXT_ARG` announces the argument, and both live beyond the call.
                unsafe { submitter.enter(submissions, self.worth(), flags.bits(), Some(&args)) }
            }
            Wait::UpTo(patience) => {
                let timeout = Timespec::from(patience);
                let args = SubmitArgs::new().timespec(&timeout);
                let flags = get | EnterFlags::EXT_ARG | self.wait_flags;
                // SAFETY: `EXT_ARG` announces the argument, and both live beyond the call.
                unsafe { submitter.enter(submissions, 1, flags.bits(), Some(&args)) }
            }
        };
        self.lane.shard.io().syscalls += 1;
        self.collect();
        match result.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) => Ok(()),
            // ETIME: nothing arrived in time. EINTR: a signal. EAGAIN: no memory for a request,
            // which stays queued. EBUSY: the completion queue was full and has just been emptied.
            Err((Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY), _)) => Ok(()),
            // EBADR: no memory for a completion, which is lost, and a receive or a buffer with it.
            // The rest is the programmer's fault.
            Err((_, error)) => Err(EngineError::Ring(error)),
        }
    }

    /// No completion waits to be looked at.
    fn has_nothing_to_do(&self) -> bool {
        self.arrived.is_empty() && self.failed.is_empty()
    }

    /// Completions that end a wait before its window does: a wake-up is hardly cheaper for more,
    /// and half of the buffers stay for what arrives meanwhile.
    fn worth(&self) -> u32 {
        u32::from(self.pool.count() / 2).clamp(1, GATHERED_MAX)
    }

    /// Whether the next receives might find no buffer unless the batch leaves first.
    fn is_short_of_buffers(&self) -> bool {
        self.pool.lent() > self.pool.count() / 2
    }

    /// Sends what is queued, and ends all receives so that the sockets close with their descriptors
    /// and not whenever the kernel gets round to the ring. The ring is closed before its buffers
    /// are freed.
    fn close(mut self, now: Instant) -> Result<(), EngineError> {
        self.flush(now)?;
        self.lane.look_after(now);
        self.push(&opcode::AsyncCancel2::new(CancelBuilder::any()).build(), Token::Cancel)?;
        for _ in 0..CLOSE_ROUNDS {
            self.enter(Wait::UpTo(CLOSE_PATIENCE))?;
            let ended = self.arrived.drain(..).filter(|completion| {
                let is_armed = !matches!(Token::decode(completion.user_data()), Token::Cancel);
                is_armed && !cqueue::more(completion.flags())
            });
            self.armed -= ended.count();
            if self.armed == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// How many buffers a receive takes one after the other, from what the receives have taken.
#[derive(Default)]
struct Appetite {
    /// Whose receive was the last that brought something.
    last: Option<Token>,
    /// How often in a row.
    row: usize,
    /// Decaying mean of the rows, in parts of `Self::PART`.
    mean: usize,
}

impl Appetite {
    const PART: usize = 16;

    /// A multishot receive gives way to others after so many.
    const ROW_MAX: usize = 32;

    /// The mean follows the last so many rows.
    const WEIGHT: usize = 4;

    /// A receive has brought something.
    fn note(&mut self, token: Token) {
        if self.last == Some(token) {
            self.row += 1;
            return;
        }
        let row = self.row.min(Self::ROW_MAX) * Self::PART;
        self.mean = (self.mean * (Self::WEIGHT - 1) + row) / Self::WEIGHT;
        (self.last, self.row) = (Some(token), 1);
    }

    /// At least one.
    fn mean(&self) -> usize {
        (self.mean / Self::PART).max(1)
    }
}

/// Where in a receive buffer the kernel puts name, control and payload.
fn layout(name: usize, control: usize) -> Box<msghdr> {
    let mut header = empty_header();
    header.msg_namelen = name as u32;
    header.msg_controllen = control as _;
    Box::new(header)
}

/// As many completions at once are taken for a sign that there are more. A multishot receive takes
/// 32 at once.
const BACKLOG: usize = Portion::RECEIVES_MIN;

/// Datagrams that a wait for several is satisfied with.
const GATHERED_MAX: u32 = 64;

/// How often a wake-up looks for more before it sends.
const ROUNDS_MAX: usize = 8;

/// How often, and each time how long, the end waits for receives to end. They end at the first try.
const CLOSE_ROUNDS: usize = 100;
const CLOSE_PATIENCE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests;
