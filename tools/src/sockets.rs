//! The UDP sockets of a station: one, or one per session.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, epoll};

use crate::batch::{self, BATCH_MAX, Datagram, ReceiveBatch};
use crate::clock::{self, Offset};
use crate::measure;

/// The sockets of a station, and how to wait for them.
pub struct Sockets {
    /// The sockets.
    pub(crate) sockets: Vec<UdpSocket>,
    /// Only where there are several.
    epoll: Option<OwnedFd>,
}

impl Sockets {
    /// Takes over non-blocking sockets.
    ///
    /// # Errors
    /// No descriptor is left for an epoll instance.
    pub fn new(sockets: Vec<UdpSocket>) -> io::Result<Self> {
        if sockets.len() < 2 {
            return Ok(Self { sockets, epoll: None });
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, socket) in sockets.iter().enumerate() {
            epoll::add(
                &epoll,
                socket,
                epoll::EventData::new_u64(index as u64),
                epoll::EventFlags::IN,
            )?;
        }
        Ok(Self { sockets, epoll: Some(epoll) })
    }

    /// The address of the first one.
    ///
    /// # Errors
    /// There is none, or what `getsockname` reports.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.sockets.first().ok_or(io::ErrorKind::NotFound)?.local_addr()
    }

    /// Switches whether coalesced trains are received as such.
    ///
    /// # Errors
    /// The kernel is older than 5.0.
    pub fn take_trains(&self, on: bool) -> io::Result<()> {
        self.sockets.iter().try_for_each(|socket| batch::take_trains(socket, on))
    }

    /// Datagrams lost because a receive queue was full.
    #[must_use]
    pub fn receive_drops(&self) -> u64 {
        self.sockets
            .iter()
            .filter_map(|s| s.local_addr().ok())
            .map(|a| measure::receive_drops(a.port()))
            .sum()
    }

    /// Receives what has arrived: the position of the socket, the datagram, and when it came by the
    /// monotonic clock. Within a socket in order.
    ///
    /// # Errors
    /// What `recvmmsg` reports.
    pub(crate) fn drain(
        &self,
        inbox: &mut ReceiveBatch,
        mut on_datagram: impl FnMut(usize, &Datagram<'_>, u64),
    ) -> io::Result<()> {
        for index in self.readable()? {
            let Some(socket) = self.sockets.get(index) else {
                continue;
            };
            // Bounded, so that a flood cannot keep the pacing from its turn.
            for _ in 0..RECEIVES_PER_TURN {
                let count = inbox.receive(socket)?;
                let (offset, now) = (Offset::take(), clock::now());
                for datagram in inbox.datagrams() {
                    let arrived_ns = datagram.stamp_ns.map_or(now, |stamp| offset.monotonic(stamp));
                    on_datagram(index, &datagram, arrived_ns);
                }
                if count < BATCH_MAX {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The positions of those that may be readable.
    pub(crate) fn readable(&self) -> io::Result<Vec<usize>> {
        let Some(epoll) = &self.epoll else {
            return Ok((0..self.sockets.len()).collect());
        };
        let mut events = Vec::with_capacity(BATCH_MAX);
        let nothing = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), Some(&nothing)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(events.iter().filter_map(|event| usize::try_from(event.data.u64()).ok()).collect())
    }

    /// Waits until one is readable or `deadline_ns` has come.
    pub(crate) fn wait(&self, deadline_ns: u64) -> io::Result<bool> {
        let fd = match (&self.epoll, self.sockets.first()) {
            (Some(epoll), _) => epoll.as_fd(),
            (None, Some(socket)) => socket.as_fd(),
            (None, None) => return Ok(false),
        };
        clock::wait_until(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], deadline_ns)
    }
}

/// The address of caller `slot` where all callers share a socket: from 127.1.0.1 upwards.
#[must_use]
pub fn loopback_source(slot: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_SOURCE + slot as u32 % (LAST_SLOT + 1))
}

/// The caller whose [`loopback_source`] that is.
#[must_use]
pub fn slot_of_source(address: Ipv4Addr) -> Option<usize> {
    let slot = address.to_bits().checked_sub(FIRST_SOURCE).filter(|slot| *slot <= LAST_SLOT)?;
    usize::try_from(slot).ok()
}

const FIRST_SOURCE: u32 = 0x7F01_0001;
/// Its address is 127.255.255.255 less one, and so a host's.
const LAST_SLOT: u32 = 0x7FFF_FFFE - FIRST_SOURCE;
const RECEIVES_PER_TURN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_address_tells_whose_it_is() {
        for slot in [0, 1, 254, 255, 70_000] {
            assert_eq!(slot_of_source(loopback_source(slot)), Some(slot));
        }
        assert_eq!(slot_of_source(Ipv4Addr::LOCALHOST), None);
        assert_eq!(slot_of_source(Ipv4Addr::new(192, 0, 2, 1)), None);
    }
}
