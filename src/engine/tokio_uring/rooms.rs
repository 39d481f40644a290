//! Receive buffers that stay where they are until the runtime is gone.
#![allow(unsafe_code, reason = "the kernel writes into the rooms")]

use std::ptr::NonNull;

use libc::{iovec, msghdr};

use super::super::cmsg::Ancillary;
use super::super::mmsg::Received;
use super::super::send::empty_header;
use super::super::sockaddr::Name;

/// As many rooms as have been needed at once: one for each receive in flight, and one for each that
/// the batch under way points into. Two for each open port at most.
///
/// A room is freed with all the others and not before: leases may be lost on the way (a panic), but
/// no memory that an operation points at.
pub(super) struct Rooms {
    all: Vec<NonNull<Room>>,
    free: Vec<Lease>,
    payload_bytes: usize,
}

/// A buffer with everything that `recvmsg` wants beside it.
struct Room {
    header: msghdr,
    piece: iovec,
    name: [u8; Name::ROOM],
    control: AlignedControl,
    payload: *mut [u8],
}

/// Aligned as `struct cmsghdr` is.
#[repr(C, align(8))]
struct AlignedControl([u8; Ancillary::LISTENER_ROOM]);

/// The right to one room. There is one lease for each.
pub(super) struct Lease(NonNull<Room>);

impl Rooms {
    /// Rooms for `payload_bytes` each. There are none yet.
    pub(super) fn new(payload_bytes: usize) -> Self {
        Self { all: Vec::new(), free: Vec::new(), payload_bytes }
    }

    /// Makes rooms until there are `count`, so that datagrams find them.
    pub(super) fn reserve(&mut self, count: usize) {
        while self.all.len() < count {
            let room = self.make();
            self.free.push(room);
        }
        self.free.reserve(self.all.len() - self.free.len());
    }

    /// The room that was used last, whose pages are at hand.
    pub(super) fn take(&mut self) -> Lease {
        self.free.pop().unwrap_or_else(|| self.make())
    }

    pub(super) fn give_back(&mut self, room: Lease) {
        self.free.push(room);
    }

    fn make(&mut self) -> Lease {
        let payload = vec![0; self.payload_bytes].into_boxed_slice();
        let room = Box::new(Room {
            header: empty_header(),
            piece: iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
            name: [0; Name::ROOM],
            control: AlignedControl([0; Ancillary::LISTENER_ROOM]),
            payload: Box::into_raw(payload),
        });
        let room = NonNull::from(Box::leak(room));
        self.all.push(room);
        Lease(room)
    }
}

impl Drop for Rooms {
    fn drop(&mut self) {
        for room in self.all.drain(..) {
            // SAFETY: `make` leaked it, it stands in the list once, and leases are not used any
            // more: whoever has some has the rooms, too.
            let room = unsafe { Box::from_raw(room.as_ptr()) };
            // SAFETY: `make` took it out of its box.
            drop(unsafe { Box::from_raw(room.payload) });
        }
    }
}

impl Lease {
    /// Points the room's header at the room. The kernel overwrites lengths and flags, so each
    /// receive sets them anew.
    pub(super) fn address(&mut self) -> *mut msghdr {
        // SAFETY: there is one lease for each room, and while the kernel has the room the lease
        // lies in its flight.
        let room = unsafe { self.0.as_mut() };
        room.piece = iovec { iov_base: room.payload.cast(), iov_len: room.payload.len() };
        room.header.msg_name = room.name.as_mut_ptr().cast();
        room.header.msg_namelen = room.name.len() as u32;
        room.header.msg_iov = &raw mut room.piece;
        room.header.msg_iovlen = 1;
        room.header.msg_control = room.control.0.as_mut_ptr().cast();
        room.header.msg_controllen = room.control.0.len() as _;
        room.header.msg_flags = 0;
        &raw mut room.header
    }

    /// What the last receive, of `len` bytes, has put into the room.
    pub(super) fn received(&self, len: usize) -> Received<'_> {
        // SAFETY: as in `address`; the kernel has written the header by now.
        let room = unsafe { self.0.as_ref() };
        let control_len: usize = room.header.msg_controllen as _; // Depends on the C library.
        let len = len.min(room.payload.len());
        // SAFETY: the range lies inside the payload, and the kernel writes there only while the
        // lease lies in a flight.
        let payload = unsafe { std::slice::from_raw_parts(room.payload.cast::<u8>(), len) };
        Received {
            name: room.name.get(..room.header.msg_namelen as usize).unwrap_or_default(),
            control: room.control.0.get(..control_len).unwrap_or_default(),
            payload,
            // Without its segment size a train would pass for one datagram.
            is_truncated: room.header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_that_came_back_is_the_next_to_be_taken_and_is_addressed_anew() {
        let mut rooms = Rooms::new(100);
        rooms.reserve(2);
        let mut room = rooms.take();
        let first = room.address();
        // SAFETY: the room exists, and nobody else has it.
        unsafe { (*first).msg_namelen = 3 };
        rooms.give_back(room);
        let mut room = rooms.take();
        assert_eq!(room.address(), first);
        assert_eq!(room.received(7).name.len(), Name::ROOM);
    }

    #[test]
    fn rooms_are_made_as_they_are_needed_and_no_two_are_the_same() {
        let mut rooms = Rooms::new(100);
        rooms.reserve(1);
        let (mut one, mut other) = (rooms.take(), rooms.take());
        assert_ne!(one.address(), other.address());
        assert_eq!(rooms.all.len(), 2);
    }

    #[test]
    fn a_length_beyond_the_room_is_cut() {
        let mut rooms = Rooms::new(100);
        let mut room = rooms.take();
        room.address();
        assert_eq!(room.received(101).payload.len(), 100);
    }
}
