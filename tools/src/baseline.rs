//! The plain relays that engines are compared with: what a good engineer writes without segmentation
//! offload and without a ring.
//!
//! Each does what any first version of a UDP relay does: clients share one socket, each client
//! address gets a connected socket towards the origin, and what comes back on that one goes to that
//! client. They differ in how datagrams are received and sent, which is all of a [`Kind`]. Sockets
//! have the buffers that the relay's have; addresses are found by a table with the relay's hasher
//! (foldhash, seeded), but for [`Kind::Bare`]. They know nothing of SRT, drop nothing, check
//! nothing, and never forget a session: any real relay does more per datagram.
//!
//! Nothing is counted here: a counter that somebody reads costs, and what is to be counted follows
//! from what a kind is.

mod bare;
mod mmsg;
mod name;
mod plain;
mod tokio;

use std::io::{self, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

use crate::measure;
use name::Name;

/// How datagrams are received and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `epoll`, one `recvfrom` and one `send` per datagram.
    Loop,
    /// `epoll`, `recvmmsg` and `sendmmsg`.
    PlainMmsg,
    /// tokio, a task per session.
    Tokio,
    /// As [`Kind::Loop`], without any abstraction.
    Bare,
}

impl Kind {
    /// Relays until told to stop.
    fn run(self, task: Task) -> io::Result<()> {
        match self {
            Self::Loop => plain::run(task),
            Self::PlainMmsg => mmsg::run(task),
            Self::Tokio => tokio::run(task),
            Self::Bare => bare::run(task),
        }
    }
}

/// A running baseline relay. Dropping it ends its threads.
pub struct Baseline {
    address: SocketAddr,
    tids: Vec<i32>,
    stop: Arc<OwnedFd>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Baseline {
    /// Listens on `listen` and relays to `origin`, with one thread for each of `cpus`, pinned to it.
    /// Several share the clients by `SO_REUSEPORT`.
    ///
    /// # Errors
    /// The address cannot be bound or a CPU not be had.
    pub fn start(
        kind: Kind,
        listen: SocketAddr,
        origin: SocketAddr,
        cpus: &[Option<usize>],
    ) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mut relay = Self { address: listen, tids: Vec::new(), stop, threads: Vec::new() };
        // The whole group is bound before the first thread runs: a member that came later would
        // take clients from the others.
        let mut group = Vec::new();
        for _ in cpus {
            let clients = listener(relay.address, cpus.len() > 1)?;
            relay.address = clients.local_addr()?;
            group.push(clients);
        }
        for (clients, cpu) in group.into_iter().zip(cpus) {
            relay.spawn(kind, clients, origin, *cpu)?;
        }
        Ok(relay)
    }

    fn spawn(
        &mut self,
        kind: Kind,
        clients: UdpSocket,
        origin: SocketAddr,
        cpu: Option<usize>,
    ) -> io::Result<()> {
        let (ready, serving) = mpsc::channel();
        let has_begun = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&self.stop);
        let task = Task { clients, origin, stop, ready, has_begun: Arc::clone(&has_begun) };
        let name = format!("baseline-{}", self.threads.len());
        let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
            if let Some(cpu) = cpu {
                measure::pin(&[cpu])?;
            }
            let result = kind.run(task);
            // Until it has begun, the starter waits for the error; afterwards nobody does.
            if let (Err(error), true) = (&result, has_begun.load(Ordering::Relaxed)) {
                // Nobody is left to tell when standard error is gone.
                let _ = writeln!(io::stderr(), "{name} has ended: {error}");
            }
            result
        })?;
        match serving.recv() {
            Ok(tid) => {
                self.tids.push(tid);
                self.threads.push(thread);
                Ok(())
            }
            Err(_) => Err(match thread.join() {
                Ok(Err(error)) => error,
                Ok(Ok(())) | Err(_) => {
                    io::Error::other("the baseline thread ended before it began")
                }
            }),
        }
    }

    /// Where clients send to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The threads that do it all.
    #[must_use]
    pub fn tids(&self) -> &[i32] {
        &self.tids
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        // Fails only when the counter is full, and then the threads are stopping already.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        for thread in self.threads.drain(..) {
            // It has written its error itself, at the time.
            let _ = thread.join();
        }
    }
}

/// What a thread has to do.
struct Task {
    /// Bound and non-blocking.
    clients: UdpSocket,
    origin: SocketAddr,
    /// Readable once the thread is to end; it stays readable, for all threads wait on it.
    stop: Arc<OwnedFd>,
    ready: Sender<i32>,
    /// Whether `begin` has been called.
    has_begun: Arc<AtomicBool>,
}

impl Task {
    /// Says that whatever could fail has not.
    fn begin(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
        // Nobody listens when the starter has given up; the stop is on its way then.
        let _ = self.ready.send(measure::this_thread().tid);
    }
}

fn listener(address: SocketAddr, is_shared: bool) -> io::Result<UdpSocket> {
    let socket = open(address)?;
    socket.set_reuse_port(is_shared)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A session's socket.
fn connected(origin: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(origin)?;
    socket.connect(&origin.into())?;
    Ok(socket.into())
}

/// A non-blocking socket with the buffers that the relay asks for, in the way that the relay asks.
fn open(family: SocketAddr) -> io::Result<Socket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(family), kind, Some(Protocol::UDP))?;
    let fd = socket.as_fd();
    // More than rmem_max needs CAP_NET_ADMIN; without it the kernel cuts the second request down to
    // rmem_max.
    sockopt::set_socket_recv_buffer_size_force(fd, SOCKET_BUFFER)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(fd, SOCKET_BUFFER))?;
    sockopt::set_socket_send_buffer_size_force(fd, SOCKET_BUFFER)
        .or_else(|_| sockopt::set_socket_send_buffer_size(fd, SOCKET_BUFFER))?;
    Ok(socket)
}

/// `None` when there is nothing to receive, or only an ICMP message about something sent before.
fn received<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_passing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A datagram that cannot leave now is lost, as on any wire.
fn sent(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Err(error) if !is_passing(&error) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused
    )
}

/// What epoll reports for the stop and for the socket of the clients; below them: a session.
const STOP: u64 = u64::MAX;
const CLIENTS: u64 = u64::MAX - 1;
/// Events of one wake-up.
const EVENTS: usize = 256;
/// So that one busy socket does not starve the others.
const DATAGRAMS_PER_WAKEUP: usize = 64;
/// Bytes for one datagram, as the relay's buffers without GRO.
const DATAGRAM_MAX: usize = 1 << 11;
/// What the relay asks for, too.
const SOCKET_BUFFER: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::{Generator, GeneratorSettings};
    use crate::origin::{Origin, OriginSettings};
    use crate::payload::Tally;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Media in both directions, complete and in order.
    #[track_caller]
    fn assert_relays(kind: Kind, any: SocketAddr, threads: usize) {
        let origin = Origin::start(OriginSettings::new(any)).unwrap();
        let cpus = vec![None; threads];
        let relay = Baseline::start(kind, any, origin.address().unwrap(), &cpus).unwrap();
        assert_eq!(relay.tids().len(), threads);
        let settings = GeneratorSettings::new(relay.address(), 20);
        let generator = Generator::start(settings, Vec::new(), true).unwrap();
        assert!(origin.wait_for(PATIENCE, |counts| counts.media.received > 1_000));
        assert!(generator.wait_for(PATIENCE, |counts| counts.media.received > 1_000));
        let counts = generator.stop().unwrap().counts;
        assert!(origin.wait_for(PATIENCE, |seen| seen.media.received == counts.sent));
        let tally = origin.counts().media;
        assert_eq!(tally, Tally { received: counts.sent, ..Tally::default() });
        assert_eq!(counts.media, Tally { received: counts.media.received, ..Tally::default() });
    }

    #[test]
    fn every_kind_relays_both_ways_complete_and_in_order() {
        for kind in [Kind::Loop, Kind::PlainMmsg, Kind::Tokio, Kind::Bare] {
            assert_relays(kind, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1);
        }
    }

    #[test]
    fn every_kind_relays_over_ipv6() {
        for kind in [Kind::Loop, Kind::PlainMmsg, Kind::Tokio, Kind::Bare] {
            assert_relays(kind, SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), 1);
        }
    }

    #[test]
    fn threads_share_the_clients() {
        for kind in [Kind::Loop, Kind::PlainMmsg, Kind::Tokio, Kind::Bare] {
            assert_relays(kind, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 2);
        }
    }
}
