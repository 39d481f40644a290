//! `epoll`, up to 64 datagrams per `recvmmsg`, and one `sendmmsg` for each run of them to the same
//! place. No segmentation offload in either direction: each datagram goes through the kernel alone.
//!
//! Buffers and headers are laid out once; a datagram is sent from the buffer that it was received
//! into.
#![allow(
    unsafe_code,
    reason = "recvmmsg and sendmmsg take raw pointers; nothing else here is unsafe"
)]

use std::collections::HashMap;
use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::ptr;

use foldhash::quality::RandomState;
use rustix::event::epoll;

use super::{CLIENTS, DATAGRAM_MAX, DATAGRAMS_PER_WAKEUP, EVENTS, Name, STOP, Task};
use super::{connected, received};

pub(super) fn run(task: Task) -> io::Result<()> {
    let mut relay = Batched::new(task)?;
    relay.task.begin();
    relay.run()
}

struct Batched {
    task: Task,
    epoll: OwnedFd,
    sessions: Vec<Session>,
    by_client: HashMap<Name, usize, RandomState>,
    batch: Batch,
    /// The session of each datagram of a batch.
    owners: Vec<usize>,
}

struct Session {
    client: Name,
    /// Connected to the origin.
    socket: UdpSocket,
}

impl Batched {
    fn new(task: Task) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let (stop, clients) = (epoll::EventData::new_u64(STOP), epoll::EventData::new_u64(CLIENTS));
        epoll::add(&epoll, &task.stop, stop, epoll::EventFlags::IN)?;
        epoll::add(&epoll, &task.clients, clients, epoll::EventFlags::IN)?;
        Ok(Self {
            task,
            epoll,
            sessions: Vec::new(),
            by_client: HashMap::default(),
            batch: Batch::new(),
            owners: Vec::with_capacity(DATAGRAMS_PER_WAKEUP),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    STOP => return Ok(()),
                    CLIENTS => self.relay_clients()?,
                    session => self.relay_origin(session as usize)?,
                }
            }
        }
    }

    fn relay_clients(&mut self) -> io::Result<()> {
        let Some(count) = received(self.batch.receive(&self.task.clients))? else {
            return Ok(());
        };
        self.owners.clear();
        for position in 0..count {
            let client = self.batch.source(position);
            let owner = match self.by_client.get(&client) {
                Some(session) => *session,
                None => self.open_session(client)?,
            };
            self.owners.push(owner);
        }
        let mut start = 0;
        for run in self.owners.chunk_by(PartialEq::eq) {
            let end = start + run.len();
            if let Some(session) = run.first().and_then(|owner| self.sessions.get(*owner)) {
                self.batch.send(start..end, &session.socket, None)?;
            }
            start = end;
        }
        Ok(())
    }

    fn relay_origin(&mut self, index: usize) -> io::Result<()> {
        let Some(session) = self.sessions.get_mut(index) else {
            return Ok(());
        };
        match received(self.batch.receive(&session.socket))? {
            Some(count) => self.batch.send(0..count, &self.task.clients, Some(&mut session.client)),
            None => Ok(()),
        }
    }

    fn open_session(&mut self, client: Name) -> io::Result<usize> {
        let socket = connected(self.task.origin)?;
        let index = self.sessions.len();
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
        self.sessions.push(Session { client, socket });
        self.by_client.insert(client, index);
        Ok(index)
    }
}

/// Datagrams of one `recvmmsg`, with what the kernel wants to know about their places.
///
/// Invariant: `vectors[i]` points to the `i`-th buffer, and `headers[i]` to `vectors[i]`. The three
/// are never resized.
struct Batch {
    buffers: Vec<u8>,
    names: Vec<Name>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Batch {
    fn new() -> Self {
        let mut buffers = vec![0; DATAGRAM_MAX * DATAGRAMS_PER_WAKEUP];
        let vector = |buffer: &mut [u8]| libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: DATAGRAM_MAX,
        };
        let mut vectors: Vec<_> = buffers.chunks_exact_mut(DATAGRAM_MAX).map(vector).collect();
        let header = |vector: &mut libc::iovec| libc::mmsghdr {
            msg_hdr: libc::msghdr {
                msg_name: ptr::null_mut(),
                msg_namelen: 0,
                msg_iov: ptr::from_mut(vector),
                msg_iovlen: 1,
                msg_control: ptr::null_mut(),
                msg_controllen: 0,
                msg_flags: 0,
            },
            msg_len: 0,
        };
        let headers = vectors.iter_mut().map(header).collect();
        let names = vec![Name::default(); DATAGRAMS_PER_WAKEUP];
        Self { buffers, names, vectors, headers }
    }

    fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        for ((header, vector), name) in
            self.headers.iter_mut().zip(&mut self.vectors).zip(&mut self.names)
        {
            vector.iov_len = DATAGRAM_MAX;
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = Name::LEN;
        }
        debug_assert_eq!(self.buffers.len(), self.headers.len() * DATAGRAM_MAX);
        // SAFETY: there are DATAGRAMS_PER_WAKEUP headers; they point to names, vectors and buffers
        // that `self`, borrowed mutably, owns, with the lengths that those have.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                DATAGRAMS_PER_WAKEUP as u32,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    fn source(&self, position: usize) -> Name {
        self.names.get(position).copied().unwrap_or_default()
    }

    /// Sends the datagrams at `positions`: to `to`, or to where the socket is connected.
    fn send(
        &mut self,
        positions: Range<usize>,
        socket: &UdpSocket,
        to: Option<&mut Name>,
    ) -> io::Result<()> {
        let (name, name_len) = match to {
            Some(name) => (ptr::from_mut(name).cast(), name.len()),
            None => (ptr::null_mut(), 0),
        };
        let Some(mut rest) = self.headers.get_mut(positions.clone()) else {
            return Ok(());
        };
        for (header, vector) in rest.iter_mut().zip(self.vectors.iter_mut().skip(positions.start)) {
            vector.iov_len = header.msg_len as usize;
            header.msg_hdr.msg_name = name;
            header.msg_hdr.msg_namelen = name_len;
        }
        while !rest.is_empty() {
            let count = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            // SAFETY: the headers point to vectors and buffers of `self`, borrowed mutably, which the
            // kernel only reads, and to the name that the caller has lent.
            let sent = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), count, libc::MSG_DONTWAIT)
            };
            let done = match usize::try_from(sent) {
                Ok(sent) => sent,
                // The error is the first one's, which is lost; the others may still leave.
                Err(_) => {
                    super::sent(Err(io::Error::last_os_error()))?;
                    1
                }
            };
            rest = rest.get_mut(done..).unwrap_or_default();
        }
        Ok(())
    }
}
