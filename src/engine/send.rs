//! Messages in the form the kernel takes (`struct msghdr`), and what its refusals mean.
#![allow(unsafe_code, reason = "sendmsg takes pointers")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use libc::{iovec, mmsghdr, msghdr};

use super::cmsg::Control;
use super::gso::{Batch, Message};
use super::ports::{PortSocket, Ports};
use super::sockaddr::Name;
use crate::shard::{DropReason, Peer};

/// Receiver and control messages of one send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    name: Name,
    control: Control,
}

impl Envelope {
    /// `segment`: bytes of each datagram but the last, where there are several.
    pub(super) fn new(socket: &PortSocket, to: Option<Peer>, segment: Option<usize>) -> Self {
        let mut envelope = Self { name: Name::EMPTY, control: Control::EMPTY };
        if let Some(peer) = to {
            envelope.name = Name::encode(peer.address, socket.family);
            if let Some(local) = peer.local.filter(|_| socket.is_wildcard) {
                envelope.control.source(local, scope(peer.address), socket.family);
            }
        }
        if let Some(segment) = segment {
            envelope.control.segment(segment as u16); // Below 65,507: it arrived in a datagram.
        }
        envelope
    }

    fn is_empty(&self) -> bool {
        self.name.len() == 0 && self.control.len() == 0
    }

    /// The header that joins this envelope to `pieces`. It points at both.
    fn header(&self, pieces: &[iovec]) -> msghdr {
        let mut header = empty_header();
        header.msg_name = self.name.as_ptr().cast_mut();
        header.msg_namelen = self.name.len();
        header.msg_iov = pieces.as_ptr().cast_mut();
        header.msg_iovlen = pieces.len() as _;
        header.msg_control = self.control.as_ptr().cast_mut();
        header.msg_controllen = self.control.len() as _;
        header
    }
}

/// The envelopes of one sealed batch, by position of the message.
///
/// The headers point into the envelopes and into the batch. Neither moves between `fill` and
/// `clear`: all memory is reserved at the start, for the most messages that a batch can have.
pub(super) struct Envelopes {
    envelopes: Vec<Envelope>,
    headers: Vec<mmsghdr>,
    sockets: Vec<RawFd>,
}

impl Envelopes {
    pub(super) fn new() -> Self {
        Self {
            envelopes: Vec::with_capacity(Batch::DATAGRAMS_MAX),
            headers: Vec::with_capacity(Batch::DATAGRAMS_MAX),
            sockets: Vec::with_capacity(Batch::DATAGRAMS_MAX),
        }
    }

    /// Addresses every message of `batch`. A message whose port is gone gets no socket.
    pub(super) fn fill(&mut self, batch: &Batch, ports: &Ports) {
        self.clear();
        for message in batch.messages() {
            let segment = (message.segments > 1).then_some(message.segment);
            let way = ports.way(message.route);
            let envelope = way.map(|(socket, to)| Envelope::new(socket, to, segment));
            self.sockets.push(way.map_or(NO_SOCKET, |(socket, _)| socket.raw()));
            self.envelopes.push(envelope.unwrap_or(EMPTY));
        }
        for (message, envelope) in batch.messages().iter().zip(&self.envelopes) {
            let msg_hdr = envelope.header(batch.pieces(message));
            self.headers.push(mmsghdr { msg_hdr, msg_len: 0 });
        }
    }

    /// The descriptor that a message leaves from.
    pub(super) fn socket(&self, position: usize) -> Option<RawFd> {
        self.sockets.get(position).copied().filter(|fd| *fd != NO_SOCKET)
    }

    /// Whether a message has neither a receiver to name nor anything to say to the kernel.
    pub(super) fn is_plain(&self, position: usize) -> bool {
        self.envelopes.get(position).is_some_and(Envelope::is_empty)
    }

    /// The headers from `position` on that leave from the same socket, for `sendmmsg`.
    pub(super) fn run_from(&mut self, position: usize) -> &mut [mmsghdr] {
        let socket = self.sockets.get(position);
        let sockets = self.sockets.get(position..).unwrap_or_default();
        let len = sockets.iter().take_while(|other| Some(*other) == socket).count();
        self.headers.get_mut(position..position + len).unwrap_or_default()
    }

    pub(super) fn header(&self, position: usize) -> Option<&msghdr> {
        self.headers.get(position).map(|header| &header.msg_hdr)
    }

    pub(super) fn clear(&mut self) {
        self.headers.clear();
        self.envelopes.clear();
        self.sockets.clear();
    }
}

/// Sends bytes of the slow path, now.
pub(super) fn send(socket: &PortSocket, to: Option<Peer>, bytes: &[u8]) -> Result<(), i32> {
    let piece = iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the piece is `bytes`, which is borrowed beyond the call.
    unsafe { send_piece(socket, to, piece) }
}

/// Sends one datagram, now.
///
/// # Safety
/// `piece` points at memory that can be read for the length of the call.
pub(super) unsafe fn send_piece(
    socket: &PortSocket,
    to: Option<Peer>,
    piece: iovec,
) -> Result<(), i32> {
    let envelope = Envelope::new(socket, to, None);
    let pieces = [piece];
    let header = envelope.header(&pieces);
    // SAFETY: the header points at the envelope and the pieces above, and the caller vouches for
    // the bytes.
    unsafe { send_message(socket.raw(), &header) }
}

/// Sends what `header` points at, now, or fails with the errno.
///
/// # Safety
/// Name, control and pieces of `header` can be read for the length of the call.
pub(super) unsafe fn send_message(socket: RawFd, header: &msghdr) -> Result<(), i32> {
    // SAFETY: the kernel only reads through the header, and the caller vouches for what it points
    // at.
    let sent = unsafe { libc::sendmsg(socket, header, SEND_FLAGS) };
    if sent >= 0 { Ok(()) } else { Err(last_errno()) }
}

/// Sends `bytes` cut into datagrams of `segment` bytes, from a connected socket. For probing.
pub(super) fn send_train(socket: BorrowedFd<'_>, bytes: &[u8], segment: u16) -> Result<(), i32> {
    let mut envelope = EMPTY;
    envelope.control.segment(segment);
    let pieces = [iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }];
    let header = envelope.header(&pieces);
    // SAFETY: the header points at locals of this function and at `bytes`, which is borrowed beyond
    // the call.
    unsafe { send_message(socket.as_raw_fd(), &header) }
}

/// Whether `errno` can mean that the segmentation is refused and not the datagrams.
///
/// - `EINVAL`: more segments than this kernel takes, a segment larger than the path's MTU, or a
///   socket that computes no checksums.
/// - `EMSGSIZE`: a segment larger than the path's MTU. Alone the datagram would be fragmented.
/// - `EIO`: the way out leads through IPsec, or, before Linux 6.11, through a device that cannot
///   compute the checksums of segments.
/// - `EOPNOTSUPP`, `ENOPROTOOPT`: the socket does not know the option.
pub(super) fn refuses_segments(errno: i32) -> bool {
    matches!(
        errno,
        libc::EINVAL | libc::EMSGSIZE | libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT
    )
}

/// What a datagram that did not leave is counted as.
pub(super) fn drop_reason(errno: i32) -> DropReason {
    match errno {
        // The socket's send queue, or the device's, is full: a datagram that waits helps nobody.
        libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => DropReason::SendBufferFull,
        // Larger than 65,507 bytes, or than a path that forbids fragments.
        libc::EMSGSIZE => DropReason::MessageTooLong,
        libc::ECONNREFUSED => DropReason::Refused,
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN => {
            DropReason::Unreachable
        }
        // EPERM (a firewall), EACCES (broadcast), EINVAL (port 0, a source address that left the
        // host) and whatever else there is.
        _ => DropReason::SendError,
    }
}

pub(super) fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or_default()
}

/// A header without anything.
pub(super) fn empty_header() -> msghdr {
    // SAFETY: integers and pointers, for which all zeroes are valid (some C libraries add private
    // padding, so that the fields cannot be written out).
    unsafe { std::mem::zeroed() }
}

/// Link-local addresses mean nothing without their interface.
fn scope(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(v6) => v6.scope_id(),
    }
}

/// Never wait, and no SIGPIPE.
pub(super) const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

const EMPTY: Envelope = Envelope { name: Name::EMPTY, control: Control::EMPTY };

const NO_SOCKET: RawFd = -1;

/// A message's payload, for those who send it without its envelope.
pub(super) fn single_piece(batch: &Batch, message: &Message) -> Option<iovec> {
    match batch.pieces(message) {
        [piece] if message.segments == 1 => Some(*piece),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_of_a_send_has_a_reason_that_operators_can_tell_apart() {
        for (errno, reason) in [
            (libc::EAGAIN, DropReason::SendBufferFull),
            (libc::ENOBUFS, DropReason::SendBufferFull),
            (libc::ENOMEM, DropReason::SendBufferFull),
            (libc::EMSGSIZE, DropReason::MessageTooLong),
            (libc::ECONNREFUSED, DropReason::Refused),
            (libc::ENETUNREACH, DropReason::Unreachable),
            (libc::EHOSTUNREACH, DropReason::Unreachable),
            (libc::EPERM, DropReason::SendError),
            (libc::EINVAL, DropReason::SendError),
        ] {
            assert_eq!(drop_reason(errno), reason, "errno {errno}");
        }
    }

    #[test]
    fn a_train_is_repeated_one_by_one_where_segmentation_is_to_blame_and_nowhere_else() {
        for errno in [libc::EINVAL, libc::EIO, libc::EMSGSIZE, libc::EOPNOTSUPP] {
            assert!(refuses_segments(errno), "errno {errno}");
        }
        for errno in [libc::EAGAIN, libc::ENOBUFS, libc::ECONNREFUSED, libc::ENETUNREACH] {
            assert!(!refuses_segments(errno), "errno {errno}");
        }
    }
}
