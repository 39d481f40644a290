//! What every engine keeps for its shard: the shard, its ports, the batch under way, and the line
//! to control.
//!
//! An engine moves datagrams in and messages out. Everything that does not depend on how it does so
//! is here.
#![allow(
    unsafe_code,
    reason = "messages that the kernel refused are sent again from the receive buffers"
)]

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use crossbeam_channel::TrySendError;

use super::EngineError;
use super::clients::{ClientKey, SocketOptions};
use super::cmsg::Ancillary;
use super::demand::Receive;
use super::gather::Gather;
use super::gso::{Batch, Message};
use super::portion::Portion;
use super::ports::Ports;
use super::send::{Envelopes, drop_reason, refuses_segments, send, send_message, send_piece};
use super::socket::port_error;
use super::thread::ShardSpec;
use crate::mailbox::{Mailbox, Post};
use crate::shard::command::FromShard;
use crate::shard::counters::BATCH_BOUNDS;
use crate::shard::{Command, Datagram, DropReason, IoCounters, Peer, Port, Route, Shard, Verdict};

/// One shard and its surroundings, on the thread that owns them.
pub(super) struct Lane {
    pub(super) shard: Shard,
    pub(super) ports: Ports,
    pub(super) batch: Batch,
    pub(super) portion: Portion,
    pub(super) envelopes: Envelopes,
    pub(super) commands: Mailbox<Command>,
    events: Post<FromShard>,
    index: u16,
    /// Control's mailbox was full at the last try.
    events_wait: bool,
    upkeep_due: Instant,
    /// `None`: no datagram waits.
    gather: Option<Gather>,
}

impl Lane {
    pub(super) fn new(spec: ShardSpec, now: Instant) -> Result<Self, EngineError> {
        let ShardSpec { index, listeners, config, commands, events, offloads, settings, .. } = spec;
        let sessions_max = config.limits.sessions_max;
        let options = SocketOptions {
            gso: offloads.gso,
            gro: offloads.gro,
            buffer_bytes: settings.socket_buffer_bytes,
            in_hand_max: settings.buffers(offloads.gro).into(),
        };
        Ok(Self {
            ports: Ports::new(listeners, sessions_max, settings.clients, options, now)?,
            shard: Shard::new(config),
            batch: Batch::new(),
            portion: Portion::new(),
            envelopes: Envelopes::new(),
            commands,
            events,
            index,
            events_wait: false,
            upkeep_due: now + UPKEEP_INTERVAL,
            gather: settings.batch_wait.map(|window| Gather::new(window, now)),
        })
    }

    /// Lets the shard decide about one datagram. If this answers true, its bytes stay where they
    /// are until `settled`.
    pub(super) fn handle(&mut self, now: Instant, datagram: Datagram<'_>) -> bool {
        match self.shard.handle(now, datagram) {
            Verdict::Forward(route) => {
                self.batch.push(route, datagram.bytes);
                true
            }
            Verdict::Taken | Verdict::Drop(_) => false,
        }
    }

    /// Counts a receive whose last datagrams were forwarded, for the client that it is about. Those
    /// at a client's own socket count themselves.
    pub(super) fn count_receive(&mut self, train: &Train<'_>) {
        let Some(route) = self.batch.last_route() else {
            return; // It has left in an earlier batch.
        };
        let clients = &mut self.ports.clients;
        let receive = |is_arrival| Receive { is_arrival, is_train: train.is_coalesced };
        match (train.port, route.port, route.to) {
            (Port::Listener(listener), Port::Session(session), None) => {
                let peer = Peer { address: train.source, local: train.local };
                clients.count(session, receive(true), || ClientKey { listener, peer });
            }
            (Port::Session(session), Port::Listener(listener), Some(peer)) => {
                clients.count(session, receive(false), || ClientKey { listener, peer });
            }
            (Port::Listener(_) | Port::Session(_), ..) => {}
        }
    }

    /// Makes the batch ready for the kernel. What cannot leave is dealt with here.
    pub(super) fn seal(&mut self) {
        self.portion.judge(&self.batch);
        let ports = &self.ports;
        self.batch.seal(|port| ports.segments(port));
        self.envelopes.fill(&self.batch, ports);
        for position in 0..self.batch.messages().len() {
            if self.envelopes.socket(position).is_none() {
                self.give_up(position, DropReason::StalePort);
            }
        }
    }

    /// Deals with a message that the kernel refused: repeats it where that helps, else counts it as
    /// not sent.
    ///
    /// The engine still holds the buffers that the message points into.
    pub(super) fn send_failed(&mut self, now: Instant, position: usize, errno: i32) {
        let Some(message) = self.batch.messages().get(position).cloned() else {
            return;
        };
        if message.segments > 1 && refuses_segments(errno) {
            self.shard.io().gso_fallbacks += 1;
            self.ports.distrust_segments(message.route.port, errno);
            self.repeat_one_by_one(position, &message);
            return;
        }
        self.report_to_session(now, message.route, errno);
        let is_stale_error = errno == libc::ECONNREFUSED;
        if !(is_stale_error && self.repeat(position)) {
            self.give_up(position, drop_reason(errno));
        }
        if let (true, Port::Listener(listener), Some(peer)) =
            (is_stale_error, message.route.port, message.route.to)
        {
            self.ports.clients.refused_by(listener, peer);
        }
    }

    /// An ICMP error is reported once, by the next send, and that send does not happen: the second
    /// try does.
    fn repeat(&mut self, position: usize) -> bool {
        let socket = self.envelopes.socket(position);
        let Some((socket, header)) = socket.zip(self.envelopes.header(position)) else {
            return false;
        };
        // SAFETY: the header points into envelopes and batch, which do not change before `settled`,
        // and at bytes in buffers that the engine holds until then.
        unsafe { send_message(socket, header) }.is_ok()
    }

    /// What followed on the same route without segmentation has left already, so a first refusal
    /// may reorder a batch.
    fn repeat_one_by_one(&mut self, position: usize, message: &Message) {
        if let Some(message) = self.batch.message_mut(position) {
            message.failed = true;
        }
        let Some((socket, to)) = self.ports.way(message.route) else {
            return;
        };
        for piece in self.batch.datagrams(message) {
            // SAFETY: the piece lies in a buffer that the engine holds until `settled`.
            match unsafe { send_piece(socket, to, piece) } {
                Ok(()) => count_send(self.shard.io(), 1),
                Err(errno) => {
                    self.shard.not_sent(message.route, 1, piece.iov_len, drop_reason(errno));
                }
            }
        }
    }

    fn give_up(&mut self, position: usize, reason: DropReason) {
        if let Some(message) = self.batch.message_mut(position) {
            message.failed = true;
            self.shard.not_sent(message.route, message.segments, message.bytes, reason);
        }
    }

    /// Every message of the batch has left or failed. The buffers may go back afterwards.
    pub(super) fn settled(&mut self) {
        let io = self.shard.io();
        for message in self.batch.messages().iter().filter(|message| !message.failed) {
            count_send(io, message.segments);
        }
        self.envelopes.clear();
        self.batch.clear();
    }

    /// Sends bytes that the shard made.
    pub(super) fn send_now(&mut self, now: Instant, route: Route, range: Range<usize>) {
        let Some((socket, to)) = self.ports.way(route) else {
            self.shard.not_sent(route, 1, range.len(), DropReason::StalePort);
            return;
        };
        let bytes = self.shard.bytes(range);
        let len = bytes.len();
        let mut result = send(socket, to, bytes);
        if result == Err(libc::ECONNREFUSED) {
            result = send(socket, to, bytes); // See `repeat`.
        }
        self.shard.io().syscalls += 1;
        match result {
            Ok(()) => count_send(self.shard.io(), 1),
            Err(errno) => {
                self.shard.not_sent(route, 1, len, drop_reason(errno));
                self.report_to_session(now, route, errno);
            }
        }
    }

    /// Counts a receive that has failed, and says what follows from it.
    pub(super) fn receive_failed(&mut self, errno: i32) -> ReceiveFailure {
        let failure = ReceiveFailure::of(errno);
        self.shard.io().receive_errors += u64::from(failure != ReceiveFailure::None);
        failure
    }

    /// Tells a session that its port has failed, where the error says something about the origin.
    fn report_to_session(&mut self, now: Instant, route: Route, errno: i32) {
        let says_something =
            matches!(drop_reason(errno), DropReason::Refused | DropReason::Unreachable);
        if let (Port::Session(session), true) = (route.port, says_something) {
            self.shard.port_failed(now, session, port_error(errno));
        }
    }

    /// Opens and gives up sockets of clients. The engine then does their changes, with this as its
    /// last word in a turn.
    pub(super) fn tend_clients(&mut self, now: Instant) {
        self.ports.tend_clients(now);
        self.shard.io().client_sockets = self.ports.clients.len() as u64;
    }

    /// Takes events to control, and once a second the kernel's drop counters to the shard; then it
    /// answers true.
    pub(super) fn look_after(&mut self, now: Instant) -> bool {
        self.events_wait = false;
        while let Some(event) = self.shard.next_event() {
            match self.events.send(FromShard { shard: self.index, event }) {
                Ok(()) => {}
                Err(TrySendError::Full(refused)) => {
                    self.shard.event_refused(refused.event);
                    self.events_wait = true;
                    break;
                }
                // Control is gone, and with it whoever could want the event.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
        let is_due = now >= self.upkeep_due;
        if is_due {
            self.shard.io().receive_queue_overflows += self.ports.new_overflows();
            self.upkeep_due = now + UPKEEP_INTERVAL;
        }
        is_due
    }

    /// Whether sleeps may gather at all.
    pub(super) fn may_gather(&self) -> bool {
        self.gather.is_some()
    }

    /// How long the next sleep gathers; `None`: the first datagram ends it. To be asked once after
    /// each wake-up. `now` is when that was.
    pub(super) fn gather(&mut self, now: Instant, patience: Duration) -> Option<Duration> {
        let gather = self.gather.as_mut()?;
        let io = self.shard.io();
        let window = gather.next(now, io.receives, patience);
        io.gather_waits += u64::from(window.is_some());
        io.gathered_receives = gather.gathered();
        window
    }

    /// How long the thread may sleep at most.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        let upkeep = self.upkeep_due.saturating_duration_since(now);
        let shard = self.shard.poll_timeout().map(|due| due.saturating_duration_since(now));
        let events = self.events_wait.then_some(EVENT_RETRY);
        let clients = self.ports.clients.patience(now);
        [shard, events, clients].into_iter().flatten().fold(upkeep, Duration::min)
    }
}

/// What one receive brought: one datagram, or a train of them. Yields them as they were on the
/// wire, at least one.
pub(super) struct Train<'a> {
    port: Port,
    source: SocketAddr,
    local: Option<IpAddr>,
    segment: usize,
    /// It has more than one datagram.
    is_coalesced: bool,
    /// `None` after the last.
    rest: Option<&'a [u8]>,
}

impl<'a> Train<'a> {
    pub(super) fn new(port: Port, source: SocketAddr, control: &[u8], payload: &'a [u8]) -> Self {
        let Ancillary { segment, local } = Ancillary::parse(control);
        let segment = segment.filter(|size| *size > 0).unwrap_or(payload.len());
        let is_coalesced = segment < payload.len();
        Self { port, source, local, segment, is_coalesced, rest: Some(payload) }
    }

    /// The same as it would have come through the listener, for a socket that has no word on the
    /// address that was hit because it is always the same.
    pub(super) fn hit(mut self, local: Option<IpAddr>) -> Self {
        self.local = self.local.or(local);
        self
    }

    /// Datagrams that `next` has not yielded yet.
    pub(super) fn remaining(&self) -> u64 {
        let Some(rest) = self.rest else { return 0 };
        rest.len().div_ceil(self.segment.max(1)).max(1) as u64
    }
}

impl<'a> Iterator for Train<'a> {
    type Item = Datagram<'a>;

    fn next(&mut self) -> Option<Datagram<'a>> {
        let rest = self.rest?;
        let (bytes, rest) = rest.split_at_checked(self.segment).unwrap_or((rest, &[]));
        self.rest = (!rest.is_empty()).then_some(rest);
        Some(Datagram { port: self.port, source: self.source, local: self.local, bytes })
    }
}

/// What an engine does about a receive that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReceiveFailure {
    /// Nothing is wrong: there was no datagram, or the receive was ended.
    None,
    /// It says something about the far end of a session's port; receiving goes on.
    Peer,
    /// It says nothing about anybody; receiving goes on.
    Passing,
    /// It will fail again: this port receives nothing more.
    Lasting,
}

impl ReceiveFailure {
    fn of(errno: i32) -> Self {
        match errno {
            // An error event without a datagram, or one whose checksum was wrong; a signal; a port
            // that was closed.
            libc::EAGAIN | libc::EINTR | libc::ECANCELED => Self::None,
            // ICMP messages that came back for earlier sends.
            libc::ECONNREFUSED
            | libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EMSGSIZE
            | libc::EACCES
            | libc::EOPNOTSUPP
            | libc::ENETRESET
            | libc::ECONNRESET => Self::Peer,
            // The programmer's fault or the kernel's: a wrong descriptor, wrong memory, a refused
            // operation.
            libc::EBADF | libc::EFAULT | libc::EINVAL | libc::ENOTSOCK | libc::ENOTCONN => {
                Self::Lasting
            }
            // No memory, and what else passes by.
            _ => Self::Passing,
        }
    }
}

fn count_send(io: &mut IoCounters, segments: u32) {
    let segments = u64::from(segments);
    let bucket = BATCH_BOUNDS.iter().position(|bound| segments <= *bound);
    if let Some(count) = bucket.and_then(|bucket| io.send_batches.get_mut(bucket)) {
        *count += 1;
    }
    io.sent_segments += segments;
}

/// How often the kernel's drop counters are read.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before an event is offered again to a control thread that was busy.
const EVENT_RETRY: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::ListenerIndex;

    fn lengths(payload: usize, segment: Option<i32>) -> Vec<usize> {
        let mut control = Vec::new();
        if let Some(segment) = segment {
            control.extend((size_of::<libc::cmsghdr>() + 4).to_ne_bytes());
            control.extend(libc::SOL_UDP.to_ne_bytes());
            control.extend(libc::UDP_GRO.to_ne_bytes());
            control.extend(segment.to_ne_bytes());
        }
        let payload = vec![0; payload];
        let source = SocketAddr::from(([127, 0, 0, 1], 1));
        let port = Port::Listener(ListenerIndex(0));
        let train = Train::new(port, source, &control, &payload);
        assert_eq!(train.remaining(), Train::new(port, source, &control, &payload).count() as u64);
        train.map(|datagram| datagram.bytes.len()).collect()
    }

    #[test]
    fn a_train_is_cut_at_its_segment_size() {
        assert_eq!(lengths(250, Some(100)), [100, 100, 50]);
        assert_eq!(lengths(200, Some(100)), [100, 100]);
        assert_eq!(lengths(100, Some(100)), [100]);
    }

    #[test]
    fn what_comes_without_a_segment_size_is_one_datagram() {
        assert_eq!(lengths(250, None), [250]);
        assert_eq!(lengths(0, None), [0]);
    }

    #[test]
    fn a_segment_size_that_makes_no_sense_means_one_datagram() {
        assert_eq!(lengths(250, Some(0)), [250]);
        assert_eq!(lengths(250, Some(-1)), [250]);
        assert_eq!(lengths(0, Some(100)), [0]);
    }

    #[test]
    fn a_receive_that_fails_ends_receiving_only_where_it_would_fail_again() {
        for (errno, failure) in [
            (libc::EAGAIN, ReceiveFailure::None),
            (libc::ECANCELED, ReceiveFailure::None),
            (libc::ECONNREFUSED, ReceiveFailure::Peer),
            (libc::EHOSTUNREACH, ReceiveFailure::Peer),
            (libc::ENOMEM, ReceiveFailure::Passing),
            (libc::ENOTCONN, ReceiveFailure::Lasting),
            (libc::EBADF, ReceiveFailure::Lasting),
        ] {
            assert_eq!(ReceiveFailure::of(errno), failure, "errno {errno}");
        }
    }

    #[test]
    fn sends_are_counted_by_their_size() {
        let mut io = IoCounters::default();
        for segments in [1, 2, 3, 49, 64] {
            count_send(&mut io, segments);
        }
        assert_eq!(io.send_batches, [1, 1, 1, 0, 0, 0, 2]);
        assert_eq!(io.sent_segments, 119);
    }
}
