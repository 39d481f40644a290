//! The plain loop as C would have it: system calls, fixed arrays, and a table of its own. It shows
//! what the abstractions of the plain loop cost.
//!
//! Only what happens once per session (opening a socket) is shared with the others.
#![allow(
    unsafe_code,
    clippy::indexing_slicing,
    reason = "it is here to do without: the calls are the kernel's own, and every array has as many \
              places as its index has values"
)]

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;

use libc::c_int;
use rustix::rand::{GetRandomFlags, getrandom};

use super::{CLIENTS, DATAGRAM_MAX, DATAGRAMS_PER_WAKEUP, EVENTS, Name, STOP, Task};
use super::{connected, received, sent};

pub(super) fn run(task: Task) -> io::Result<()> {
    let mut relay = Bare::new(task)?;
    relay.task.begin();
    relay.run()
}

struct Bare {
    task: Task,
    epoll: OwnedFd,
    clients: c_int,
    /// Open addressing with linear probing. A place holds a session; zero is free, so there is no
    /// session 0.
    table: Box<[u16; TABLE]>,
    /// Clients choose their addresses.
    seed: u64,
    count: u16,
    /// By session.
    client: Box<[Name; SESSIONS]>,
    /// By session: connected to the origin.
    socket: Box<[c_int; SESSIONS]>,
    /// Closes the descriptors in the end.
    owned: Vec<UdpSocket>,
    buffer: Box<[u8; DATAGRAM_MAX]>,
}

impl Bare {
    fn new(task: Task) -> io::Result<Self> {
        // SAFETY: takes a flag and returns a descriptor or -1.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor has just been opened and is nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let mut seed = [0; 8];
        getrandom(&mut seed, GetRandomFlags::empty())?;
        let relay = Self {
            clients: task.clients.as_raw_fd(),
            task,
            epoll,
            table: array(),
            seed: u64::from_ne_bytes(seed),
            count: 0,
            client: array(),
            socket: array(),
            owned: Vec::new(),
            buffer: array(),
        };
        relay.watch(relay.task.stop.as_raw_fd(), STOP)?;
        relay.watch(relay.clients, CLIENTS)?;
        Ok(relay)
    }

    fn watch(&self, socket: c_int, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: data };
        // SAFETY: the event lives in this frame; the kernel copies it.
        let result = unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, socket, &raw mut event)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        loop {
            // SAFETY: the array has room for as many events as the call is told.
            let count = unsafe {
                libc::epoll_wait(
                    self.epoll.as_raw_fd(),
                    events.as_mut_ptr(),
                    EVENTS as c_int,
                    NO_TIMEOUT,
                )
            };
            let Ok(count) = usize::try_from(count) else {
                received::<()>(Err(io::Error::last_os_error()))?;
                continue;
            };
            for event in &events[..count.min(EVENTS)] {
                match event.u64 {
                    STOP => return Ok(()),
                    CLIENTS => self.relay_clients()?,
                    session => self.relay_origin(session as u16)?,
                }
            }
        }
    }

    fn relay_clients(&mut self) -> io::Result<()> {
        for _ in 0..DATAGRAMS_PER_WAKEUP {
            let mut client = Name::default();
            let mut name_len = Name::LEN;
            // SAFETY: buffer and name have the lengths that the call is told, and live on.
            let length = unsafe {
                libc::recvfrom(
                    self.clients,
                    self.buffer.as_mut_ptr().cast(),
                    DATAGRAM_MAX,
                    0,
                    (&raw mut client).cast(),
                    &raw mut name_len,
                )
            };
            if length < 0 {
                return received::<()>(Err(io::Error::last_os_error())).map(drop);
            }
            let session = self.session(client)?;
            // SAFETY: the kernel wrote `length` bytes to the buffer and reads them now.
            let result = unsafe {
                libc::send(
                    self.socket[usize::from(session)],
                    self.buffer.as_ptr().cast(),
                    length as usize,
                    0,
                )
            };
            if result < 0 {
                sent(Err(io::Error::last_os_error()))?;
            }
        }
        Ok(())
    }

    fn relay_origin(&mut self, session: u16) -> io::Result<()> {
        let client = &self.client[usize::from(session)];
        for _ in 0..DATAGRAMS_PER_WAKEUP {
            // SAFETY: the buffer has the length that the call is told, and lives on.
            let length = unsafe {
                libc::recv(
                    self.socket[usize::from(session)],
                    self.buffer.as_mut_ptr().cast(),
                    DATAGRAM_MAX,
                    0,
                )
            };
            if length < 0 {
                return received::<()>(Err(io::Error::last_os_error())).map(drop);
            }
            // SAFETY: the kernel wrote `length` bytes to the buffer and reads them now, and the name
            // is as long as its family says.
            let result = unsafe {
                libc::sendto(
                    self.clients,
                    self.buffer.as_ptr().cast(),
                    length as usize,
                    0,
                    ptr::from_ref(client).cast(),
                    client.len(),
                )
            };
            if result < 0 {
                sent(Err(io::Error::last_os_error()))?;
            }
        }
        Ok(())
    }

    /// The session of a client, which is opened if there is none.
    fn session(&mut self, client: Name) -> io::Result<u16> {
        let mut place = client.hash(self.seed);
        loop {
            match self.table[usize::from(place)] {
                0 => return self.open_session(client, place),
                session if self.client[usize::from(session)] == client => return Ok(session),
                _ => place = place.wrapping_add(1),
            }
        }
    }

    #[cold]
    fn open_session(&mut self, client: Name, place: u16) -> io::Result<u16> {
        if self.owned.len() >= SESSIONS / 2 {
            return Err(io::Error::other("the table of sessions is full"));
        }
        self.count += 1;
        let (session, socket) = (self.count, connected(self.task.origin)?);
        self.watch(socket.as_raw_fd(), u64::from(session))?;
        self.client[usize::from(session)] = client;
        self.socket[usize::from(session)] = socket.as_raw_fd();
        self.table[usize::from(place)] = session;
        self.owned.push(socket);
        Ok(session)
    }
}

impl Name {
    /// A place in the table: each word is multiplied into the sum, both halves of the product folded
    /// into one.
    fn hash(&self, seed: u64) -> u16 {
        let mut sum = seed;
        for word in self.words() {
            let product = u128::from(sum ^ word) * u128::from(MULTIPLIER);
            sum = (product >> 64) as u64 ^ product as u64;
        }
        sum as u16
    }
}

/// An array on the heap, all zeros.
fn array<T: Default + Copy, const N: usize>() -> Box<[T; N]> {
    match vec![T::default(); N].into_boxed_slice().try_into() {
        Ok(array) => array,
        Err(_) => unreachable!("a vector of N elements becomes an array of N elements"),
    }
}

/// As many as a `u16` has values, so that no index is out of bounds.
const TABLE: usize = 1 << 16;
/// As many, for the same reason; half of them may exist, so that a free place in the table is near.
const SESSIONS: usize = 1 << 16;
const NO_TIMEOUT: c_int = -1;
/// 2^64 divided by the golden ratio, an odd number whose bits look random.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
