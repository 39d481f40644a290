//! The UDP sockets of a station: one, or one per session.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, epoll};

use crate::batch::{self, BATCH_MAX};
use crate::{clock, measure};

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
