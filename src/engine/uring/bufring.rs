//! Receive buffers that the kernel takes by itself (`IORING_REGISTER_PBUF_RING`, Linux 5.19).
//!
//! A buffer that a completion named is an owned value; when it is dropped it is spare again, and
//! `publish` offers spare ones to the kernel. So no path through the engine can lose one.
//!
//! The kernel takes buffers in the order in which they are published, so a ring that offered all of
//! them would walk through all of their memory, and every train would be copied into and out of
//! lines that the CPU's cache has long forgotten. So the ring offers a portion, and of the others
//! those first that came back last.
//!
//! ```text
//! one buffer: | io_uring_recvmsg_out | name | control | payload ...      |
//!             |<-------- HEADROOM at most ---------->|<- payload_bytes ->|
//! ```
#![allow(unsafe_code, reason = "memory shared with the kernel")]

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use crate::engine::memory::Mapping;

/// The buffers of one ring. It outlives the ring: the kernel writes into it until the ring is
/// closed.
pub(in crate::engine) struct BufRing {
    entries: Mapping,
    buffers: Mapping,
    /// A power of two.
    count: u16,
    stride: usize,
    /// Where the next buffer goes that is offered. The kernel sees it after `publish`.
    tail: Cell<u16>,
    /// Buffers that the kernel was shown and that nobody has taken since.
    offered: Cell<u16>,
    /// The others that nobody owns; the one that came back last is the last.
    spare: RefCell<Vec<u16>>,
    /// Buffers that are owned by somebody here.
    lent: Cell<u16>,
}

impl BufRing {
    /// Room for what the kernel writes in front of the payload. Keeps payloads of neighbours apart,
    /// too.
    const HEADROOM: usize = 128;

    /// `count` buffers, a power of two up to 32,768, for `payload_bytes` each.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(in crate::engine) fn new(count: u16, payload_bytes: usize) -> io::Result<Self> {
        let stride = Self::stride(payload_bytes);
        let ring = Self {
            entries: Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?,
            buffers: Mapping::new(usize::from(count) * stride)?,
            count,
            stride,
            tail: Cell::new(0),
            offered: Cell::new(0),
            spare: RefCell::new((0..count).rev().collect()),
            lent: Cell::new(0),
        };
        ring.publish(count.into());
        Ok(ring)
    }

    /// Bytes that `count` buffers take, their ring included.
    pub(in crate::engine) fn memory(count: u16, payload_bytes: usize) -> usize {
        usize::from(count) * (Self::stride(payload_bytes) + size_of::<BufRingEntry>())
    }

    const fn stride(payload_bytes: usize) -> usize {
        (payload_bytes + Self::HEADROOM).next_multiple_of(64) // A cache line.
    }

    /// Makes the buffers known to `submitter` as `group`.
    ///
    /// # Errors
    /// `EINVAL` before Linux 5.19, `EEXIST` when the group exists.
    ///
    /// # Safety
    /// The ring is closed, or the group unregistered, before `self` is dropped.
    pub(super) unsafe fn register(&self, submitter: &Submitter<'_>, group: u16) -> io::Result<()> {
        let address = self.entries.start().addr() as u64;
        // SAFETY: the entries are page-aligned, there are `count` of them, and the caller keeps
        // them mapped.
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, group, 0) }
    }

    /// The buffer that a completion named, and the bytes that it reported.
    ///
    /// # Safety
    /// A completion carried `id` and `len`, and nobody has taken the buffer since.
    pub(super) unsafe fn take(&self, id: u16, len: usize) -> Buffer<'_> {
        self.offered.set(self.offered.get() - 1);
        self.lent.set(self.lent.get() + 1);
        Buffer { ring: self, id, len: len.min(self.stride) }
    }

    /// Shows the kernel `portion` buffers, as far as there are any.
    pub(super) fn publish(&self, portion: usize) {
        let mut spare = self.spare.borrow_mut();
        while usize::from(self.offered.get()) < portion
            && let Some(id) = spare.pop()
        {
            self.offer(id);
        }
        let base = self.entries.start().cast_const().cast::<BufRingEntry>();
        // SAFETY: `base` is the first entry, mapped and zeroed, which is what the tail's place is
        // computed from.
        let tail = unsafe { BufRingEntry::tail(base) };
        // SAFETY: the tail lies inside the mapping, is aligned to two bytes, and is written here
        // alone; the kernel only reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the kernel that sees the tail sees the entries before it.
        tail.store(self.tail.get(), Ordering::Release);
    }

    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Buffers that the kernel was shown and that nobody has taken since.
    pub(super) fn offered(&self) -> u16 {
        self.offered.get()
    }

    /// Buffers that are owned by somebody here.
    pub(super) fn lent(&self) -> u16 {
        self.lent.get()
    }

    /// Whether every buffer is offered or owned: the kernel that finds none is short of them, and
    /// not only at the end of a portion.
    pub(super) fn is_exhausted(&self) -> bool {
        self.spare.borrow().is_empty()
    }

    /// Writes buffer `id` at the tail. The kernel does not see it before the tail is stored.
    fn offer(&self, id: u16) {
        let tail = self.tail.get();
        let position = usize::from(tail & (self.count - 1));
        let entry = self.entries.start().cast::<BufRingEntry>().wrapping_add(position);
        // SAFETY: `position` is below `count`. The kernel reads entries between its head and the
        // published tail, and this one lies behind the tail: there are no more entries than
        // buffers, and this buffer was not in the ring.
        let entry = unsafe { &mut *entry };
        entry.set_addr(self.start_of(id).addr() as u64);
        entry.set_len(self.stride as u32);
        entry.set_bid(id);
        self.tail.set(tail.wrapping_add(1));
        self.offered.set(self.offered.get() + 1);
    }

    fn start_of(&self, id: u16) -> *mut u8 {
        self.buffers.start().wrapping_add(usize::from(id) * self.stride)
    }
}

/// A buffer that the kernel has filled. Dropping it gives it back.
pub(super) struct Buffer<'ring> {
    ring: &'ring BufRing,
    id: u16,
    len: usize,
}

impl<'ring> Buffer<'ring> {
    /// What the kernel wrote: header, name, control, payload.
    ///
    /// The slice may be kept while the buffer moves, but not beyond it: the kernel writes into a
    /// buffer again only after it has been dropped and published.
    pub(super) fn bytes(&self) -> &[u8] {
        let start = self.ring.start_of(self.id).cast_const();
        // SAFETY: the range lies inside buffer `id`, the memory was zeroed when it was mapped, and
        // the kernel does not write into it while this value exists.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        // There is room for all of them, so nothing is allocated.
        self.ring.spare.borrow_mut().push(self.id);
        self.ring.lent.set(self.ring.lent.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ring: &BufRing, position: usize) -> (u64, u16) {
        let entries = ring.entries.start().cast_const().cast::<BufRingEntry>();
        // SAFETY: the tests ask for positions below the count.
        let entry = unsafe { &*entries.wrapping_add(position) };
        (entry.addr(), entry.bid())
    }

    fn published(ring: &BufRing) -> u16 {
        let base = ring.entries.start().cast_const().cast::<BufRingEntry>();
        // SAFETY: as in `publish`.
        let tail = unsafe { BufRingEntry::tail(base) };
        // SAFETY: as in `publish`.
        unsafe { tail.read() }
    }

    #[test]
    fn a_new_ring_offers_every_buffer_once() {
        let ring = BufRing::new(8, 100).unwrap();
        let ids: Vec<_> = (0..8).map(|position| entry(&ring, position).1).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!((published(&ring), ring.lent()), (8, 0));
    }

    #[test]
    fn a_dropped_buffer_is_offered_again_when_a_portion_is_published() {
        let ring = BufRing::new(4, 100).unwrap();
        // SAFETY: the test plays the kernel and hands buffer 2 out once.
        let buffer = unsafe { ring.take(2, 10) };
        assert_eq!(ring.lent(), 1);
        drop(buffer);
        assert_eq!((published(&ring), ring.lent()), (4, 0));
        ring.publish(usize::MAX);
        assert_eq!(entry(&ring, 0), (ring.start_of(2).addr() as u64, 2));
        assert_eq!(published(&ring), 5);
    }

    #[test]
    fn writing_the_first_entry_leaves_the_tail_alone() {
        // The tail is kept inside the first entry, in a field that entries do not use.
        let ring = BufRing::new(2, 100).unwrap();
        for round in 0..5 {
            // SAFETY: the test plays the kernel and hands each buffer out once a round.
            let taken = [0, 1].map(|id| unsafe { ring.take(id, 1) });
            drop(taken);
            assert_eq!(published(&ring), 2 + 2 * round);
            ring.publish(usize::MAX);
            assert_eq!(published(&ring), 4 + 2 * round);
        }
    }

    #[test]
    fn no_more_are_offered_than_a_portion() {
        let ring = BufRing::new(128, 100).unwrap();
        // SAFETY: the test plays the kernel and hands each buffer out once.
        let taken: Vec<_> = (0..128).map(|id| unsafe { ring.take(id, 1) }).collect();
        assert!(ring.is_exhausted());
        drop(taken);
        ring.publish(12);
        assert_eq!(published(&ring), 128 + 12);
        assert!(!ring.is_exhausted());
    }

    #[test]
    fn the_buffer_that_came_back_last_is_offered_first() {
        let ring = BufRing::new(128, 100).unwrap();
        // SAFETY: the test plays the kernel and hands each buffer out once.
        let mut taken: Vec<_> = (0..128).map(|id| unsafe { ring.take(id, 1) }).collect();
        let [first, second] = [5, 3].map(|id| taken.swap_remove(id));
        drop(taken);
        drop(first);
        drop(second);
        ring.publish(2);
        assert_eq!([0, 1].map(|position| entry(&ring, position).1), [3, 5]);
    }

    #[test]
    fn a_length_beyond_the_buffer_is_cut() {
        let ring = BufRing::new(2, 100).unwrap();
        // SAFETY: the test plays the kernel and hands buffer 0 out once.
        let buffer = unsafe { ring.take(0, usize::MAX) };
        assert_eq!(buffer.bytes().len(), ring.stride);
    }
}
