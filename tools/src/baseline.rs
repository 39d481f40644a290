//! The plain relay that engines are compared with: one thread, `epoll`, one `recvfrom` and one
//! `send` per datagram.
//!
//! It does what any first version of a UDP relay does: clients share one socket, each client
//! address gets a connected socket towards the origin, and what comes back on that one goes to that
//! client. Sockets are non-blocking and emptied up to a bound per wake-up. It knows nothing of SRT,
//! drops nothing, checks nothing, and never forgets a session: any real relay does more per
//! datagram.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, epoll, eventfd};

use crate::measure;

/// A running baseline relay. Dropping it ends the thread.
pub struct Baseline {
    address: SocketAddr,
    tid: i32,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Baseline {
    /// Listens on `listen` and relays to `origin`, pinned to `cpu`.
    ///
    /// # Errors
    /// The address cannot be bound or the CPU not be had.
    pub fn start(listen: SocketAddr, origin: SocketAddr, cpu: Option<usize>) -> io::Result<Self> {
        let clients = open(listen)?;
        let address = clients.local_addr()?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (started, start) = mpsc::channel();
        let thread = std::thread::Builder::new().name("baseline".to_owned()).spawn({
            let stop = Arc::clone(&stop);
            move || {
                if let Some(cpu) = cpu {
                    measure::pin(&[cpu])?;
                }
                let mut relay = Loop::new(clients, origin, &stop)?;
                // Nobody listens when the starter has given up; the stop is on its way then.
                let _ = started.send(measure::this_thread().tid);
                relay.run()
            }
        })?;
        match start.recv() {
            Ok(tid) => Ok(Self { address, tid, stop, thread: Some(thread) }),
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

    /// The thread that does it all.
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.tid
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        // Fails only when the counter is full, and then the thread is stopping already.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // Its errors have nobody left to read them.
            let _ = thread.join();
        }
    }
}

struct Loop {
    epoll: OwnedFd,
    clients: UdpSocket,
    origin: SocketAddr,
    sessions: Vec<Session>,
    by_client: HashMap<SocketAddr, usize>,
    buffer: Vec<u8>,
}

struct Session {
    client: SocketAddr,
    /// Connected to the origin.
    socket: UdpSocket,
}

impl Loop {
    fn new(clients: UdpSocket, origin: SocketAddr, stop: &OwnedFd) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        epoll::add(&epoll, &clients, epoll::EventData::new_u64(CLIENTS), epoll::EventFlags::IN)?;
        Ok(Self {
            epoll,
            clients,
            origin,
            sessions: Vec::new(),
            by_client: HashMap::new(),
            buffer: vec![0; 1 << 11],
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
                    session => self.relay_origin(usize::try_from(session).unwrap_or(usize::MAX))?,
                }
            }
        }
    }

    fn relay_clients(&mut self) -> io::Result<()> {
        for _ in 0..DATAGRAMS_PER_WAKEUP {
            let Some((length, client)) = received(self.clients.recv_from(&mut self.buffer))? else {
                break;
            };
            let index = match self.by_client.get(&client) {
                Some(index) => *index,
                None => self.open_session(client)?,
            };
            if let (Some(session), Some(bytes)) =
                (self.sessions.get(index), self.buffer.get(..length))
            {
                sent(session.socket.send(bytes))?;
            }
        }
        Ok(())
    }

    fn relay_origin(&mut self, index: usize) -> io::Result<()> {
        let Some(session) = self.sessions.get(index) else {
            return Ok(());
        };
        for _ in 0..DATAGRAMS_PER_WAKEUP {
            let Some(length) = received(session.socket.recv(&mut self.buffer))? else {
                break;
            };
            if let Some(bytes) = self.buffer.get(..length) {
                sent(self.clients.send_to(bytes, session.client))?;
            }
        }
        Ok(())
    }

    fn open_session(&mut self, client: SocketAddr) -> io::Result<usize> {
        let any = if self.origin.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = open(any.parse().map_err(io::Error::other)?)?;
        socket.connect(self.origin)?;
        let index = self.sessions.len();
        epoll::add(
            &self.epoll,
            &socket,
            epoll::EventData::new_u64(index as u64),
            epoll::EventFlags::IN,
        )?;
        self.sessions.push(Session { client, socket });
        self.by_client.insert(client, index);
        Ok(index)
    }
}

/// A non-blocking socket with the largest buffers that an unprivileged process may ask for by
/// default.
fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    let reference = socket2::SockRef::from(&socket);
    reference.set_recv_buffer_size(SOCKET_BUFFER)?;
    reference.set_send_buffer_size(SOCKET_BUFFER)?;
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

const STOP: u64 = u64::MAX;
const CLIENTS: u64 = u64::MAX - 1;
const EVENTS: usize = 256;
/// So that one busy socket does not starve the others.
const DATAGRAMS_PER_WAKEUP: usize = 64;
const SOCKET_BUFFER: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::{Generator, GeneratorSettings};
    use crate::origin::{Origin, OriginSettings};
    use crate::payload::Tally;
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn media_passes_in_both_directions_complete_and_in_order() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let origin = Origin::start(OriginSettings::new(any)).unwrap();
        let relay = Baseline::start(any, origin.address().unwrap(), None).unwrap();
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
}
