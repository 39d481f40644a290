//! Large, page-aligned, zeroed memory for buffers that the kernel writes into.
#![allow(unsafe_code, reason = "mmap and munmap; what lies in the memory is up to its users")]

use std::io;
use std::ptr::NonNull;

/// An anonymous private mapping. Dropping it unmaps it.
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes and touches them all, so that no datagram waits for a page. Huge pages are
    /// asked for, which spare the copies in and out most of their TLB misses.
    ///
    /// # Errors
    /// `ENOMEM` when the address space or a memory limit is used up.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that
        // exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Advice: a kernel without huge pages refuses the first, one before Linux 5.14 the second,
        // and then the pages are small or come when they are needed.
        for advice in [libc::MADV_HUGEPAGE, libc::MADV_POPULATE_WRITE] {
            // SAFETY: the range is the mapping just made, and neither advice changes what it holds.
            let _ = unsafe { libc::madvise(start, len, advice) };
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// The first byte.
    pub(super) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the one that mmap returned, and whoever owns a `Mapping` lets go of
        // what it lent to the kernel first.
        let _ = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
