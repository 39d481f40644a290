//! `epoll`, one `recvfrom` and one `send` per datagram. Sockets are emptied up to a bound per
//! wake-up.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use foldhash::quality::RandomState;
use rustix::event::epoll;

use super::{CLIENTS, DATAGRAM_MAX, DATAGRAMS_PER_WAKEUP, EVENTS, STOP, Task};
use super::{connected, received, sent};

pub(super) fn run(task: Task) -> io::Result<()> {
    let mut relay = Loop::new(task)?;
    relay.task.begin();
    relay.run()
}

struct Loop {
    task: Task,
    epoll: OwnedFd,
    sessions: Vec<Session>,
    by_client: HashMap<SocketAddr, usize, RandomState>,
    buffer: Vec<u8>,
}

struct Session {
    client: SocketAddr,
    /// Connected to the origin.
    socket: UdpSocket,
}

impl Loop {
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
            buffer: vec![0; DATAGRAM_MAX],
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
        for _ in 0..DATAGRAMS_PER_WAKEUP {
            let Some((length, client)) = received(self.task.clients.recv_from(&mut self.buffer))?
            else {
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
                sent(self.task.clients.send_to(bytes, session.client))?;
            }
        }
        Ok(())
    }

    fn open_session(&mut self, client: SocketAddr) -> io::Result<usize> {
        let socket = connected(self.task.origin)?;
        let index = self.sessions.len();
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
        self.sessions.push(Session { client, socket });
        self.by_client.insert(client, index);
        Ok(index)
    }
}
