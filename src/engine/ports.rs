//! The sockets of one shard, found by the names that the shard uses.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Instant;

use super::clients::{ClientId, Clients, SocketOptions};
use super::sockaddr::Family;
use super::socket::open_port;
use super::sockopt::drops;
use super::{ClientSockets, EngineError};
use crate::shard::SessionKey;
use crate::shard::{ListenerIndex, Peer, Port, PortError, Route};

/// Listeners by position, session ports by slot, and sockets of clients beside the listeners.
pub(super) struct Ports {
    listeners: Vec<Listener>,
    sessions: Vec<Option<SessionPort>>,
    /// Session ports that are open.
    sessions_open: usize,
    pub(super) clients: Clients,
    options: SocketOptions,
}

/// A socket that datagrams arrive at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inlet {
    /// One that the shard knows.
    Port(Port),
    /// A client's own. What arrives there is handed over as the listener's.
    Client(ClientId),
}

/// What a socket says about everything that arrives there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) port: Port,
    /// Of a session's port; elsewhere the datagram says so.
    pub(super) source: Option<SocketAddr>,
    /// Of a client's socket beside a listener that is bound to all addresses.
    pub(super) local: Option<IpAddr>,
}

/// A socket, and what has to be known in order to send from it.
pub(super) struct PortSocket {
    fd: OwnedFd,
    /// What its addresses look like.
    pub(super) family: Family,
    /// Bound to all addresses of the host, so that an answer has to name its source.
    pub(super) is_wildcard: bool,
    /// Segmented sends are allowed and have not failed.
    segments: bool,
    /// The far end of a connected socket.
    pub(super) origin: Option<SocketAddr>,
}

pub(super) struct Listener {
    pub(super) socket: PortSocket,
    /// As it is bound.
    pub(super) address: SocketAddr,
    /// Receives so far.
    pub(super) received: u64,
    /// The kernel's counter as it stood when it was last read.
    drops_seen: u32,
}

struct SessionPort {
    generation: u32,
    socket: PortSocket,
}

impl Ports {
    /// Room for `sessions_max` session ports is reserved now.
    pub(super) fn new(
        listeners: Vec<UdpSocket>,
        sessions_max: u32,
        clients: ClientSockets,
        options: SocketOptions,
        now: Instant,
    ) -> Result<Self, EngineError> {
        let listeners = listeners.into_iter().map(|socket| {
            let address = socket.local_addr().map_err(EngineError::socket("getsockname"))?;
            let socket = PortSocket {
                fd: socket.into(),
                family: Family::of(address),
                is_wildcard: address.ip().is_unspecified(),
                segments: options.gso,
                origin: None,
            };
            let drops_seen = drops(&socket.fd).unwrap_or_default();
            Ok(Listener { socket, address, received: 0, drops_seen })
        });
        let listeners = listeners.collect::<Result<_, EngineError>>()?;
        let sessions = (0..sessions_max).map(|_| None).collect();
        let clients = Clients::new(clients, options, sessions_max, now);
        Ok(Self { listeners, sessions, sessions_open: 0, clients, options })
    }

    pub(super) fn get(&self, port: Port) -> Option<&PortSocket> {
        match port {
            Port::Listener(ListenerIndex(index)) => {
                self.listeners.get(usize::from(index)).map(|listener| &listener.socket)
            }
            Port::Session(key) => {
                let port = self.sessions.get(key.slot as usize)?.as_ref()?;
                (port.generation == key.generation).then_some(&port.socket)
            }
        }
    }

    /// The socket behind an inlet.
    pub(super) fn inlet(&self, inlet: Inlet) -> Option<&PortSocket> {
        match inlet {
            Inlet::Port(port) => self.get(port),
            Inlet::Client(id) => self.clients.get(id).map(|client| &client.socket),
        }
    }

    /// Counts a receive, and says what its datagrams have in common.
    pub(super) fn arrival(&mut self, inlet: Inlet) -> Option<Arrival> {
        match inlet {
            Inlet::Port(port) => {
                if let Port::Listener(ListenerIndex(index)) = port
                    && let Some(listener) = self.listeners.get_mut(usize::from(index))
                {
                    listener.received += 1;
                }
                let source = self.get(port)?.origin;
                Some(Arrival { port, source, local: None })
            }
            Inlet::Client(id) => self.clients.arrival(id),
        }
    }

    /// The socket that a route leaves from, and the receiver if it has to be named. For a client
    /// that has a socket it is that one.
    pub(super) fn way(&self, route: Route) -> Option<(&PortSocket, Option<Peer>)> {
        if let Route { port: Port::Listener(listener), to: Some(peer) } = route
            && let Some(socket) = self.clients.socket_of(listener, peer)
        {
            return Some((socket, None));
        }
        self.get(route.port).map(|socket| (socket, route.to))
    }

    /// Opens and gives up sockets of clients: see [`Clients::tend`].
    pub(super) fn tend_clients(&mut self, now: Instant) {
        self.clients.tend(now, &self.listeners, self.sessions_open);
    }

    /// Sockets that there may be at once.
    pub(super) fn capacity(&self) -> u32 {
        (self.listeners.len() + self.sessions.len() + self.clients.capacity()) as u32
    }

    pub(super) fn listeners(&self) -> impl Iterator<Item = Port> + use<> {
        (0..self.listeners.len()).map(|index| Port::Listener(ListenerIndex(index as u8)))
    }

    pub(super) fn open(
        &mut self,
        session: SessionKey,
        origin: SocketAddr,
    ) -> Result<(), PortError> {
        let slot = self.sessions.get_mut(session.slot as usize).ok_or(PortError::Exhausted)?;
        let SocketOptions { gso, gro, buffer_bytes, .. } = self.options;
        let socket = open_port(origin, gro, buffer_bytes)?;
        let socket = PortSocket::connected(socket.into(), Family::of(origin), gso, origin);
        let before = slot.replace(SessionPort { generation: session.generation, socket });
        self.sessions_open += usize::from(before.is_none());
        Ok(())
    }

    /// The socket is closed when what is returned is dropped.
    pub(super) fn close(&mut self, session: SessionKey) -> Option<PortSocket> {
        let slot = self.sessions.get_mut(session.slot as usize)?;
        let port = slot.take_if(|port| port.generation == session.generation)?;
        self.sessions_open -= 1;
        self.clients.session_closed(session);
        Some(port.socket)
    }

    /// Whether segmented sends leave from this port.
    pub(super) fn segments(&self, port: Port) -> bool {
        self.get(port).is_some_and(|socket| socket.segments)
    }

    /// Draws the consequence of a refused segmented send.
    ///
    /// `EINVAL` and `EMSGSIZE` speak of one path, mostly of its MTU: a session's port has only that
    /// one. The clients of a listener share it, and one of them must not slow the others down, so
    /// there only `EIO` counts: devices and IPsec are this host's, and no client chooses them.
    pub(super) fn distrust_segments(&mut self, port: Port, errno: i32) {
        match port {
            Port::Session(key) => {
                let slot = self.sessions.get_mut(key.slot as usize).and_then(Option::as_mut);
                if let Some(port) = slot.filter(|port| port.generation == key.generation) {
                    port.socket.segments = false;
                }
            }
            Port::Listener(ListenerIndex(index)) if errno == libc::EIO => {
                if let Some(listener) = self.listeners.get_mut(usize::from(index)) {
                    listener.socket.segments = false;
                    tracing::warn!(
                        listener = index,
                        "the way out refuses segmented sends (EIO): GSO is off"
                    );
                }
            }
            Port::Listener(_) => {}
        }
    }

    /// Datagrams that the kernel has dropped at the listeners since the last call.
    pub(super) fn new_overflows(&mut self) -> u64 {
        let news = self.listeners.iter_mut().map(|listener| {
            let Ok(now) = drops(&listener.socket.fd) else {
                return 0;
            };
            let before = std::mem::replace(&mut listener.drops_seen, now);
            u64::from(now.wrapping_sub(before))
        });
        news.sum::<u64>() + self.clients.new_overflows()
    }
}

impl PortSocket {
    /// Of a socket whose only peer is `peer`.
    pub(super) fn connected(fd: OwnedFd, family: Family, segments: bool, peer: SocketAddr) -> Self {
        Self { fd, family, is_wildcard: false, segments, origin: Some(peer) }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for PortSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> Ports {
        let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
        let options =
            SocketOptions { gso: true, gro: false, buffer_bytes: 64 << 10, in_hand_max: 0 };
        Ports::new(vec![listener], 2, ClientSockets::NONE, options, Instant::now()).unwrap()
    }

    fn key(slot: u32, generation: u32) -> SessionKey {
        SessionKey { slot, generation }
    }

    fn origin() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 9))
    }

    #[test]
    fn a_key_of_an_earlier_tenant_finds_and_closes_nothing() {
        let mut ports = ports();
        ports.open(key(0, 2), origin()).unwrap();
        assert!(ports.get(Port::Session(key(0, 1))).is_none());
        assert!(ports.close(key(0, 1)).is_none());
        assert!(ports.get(Port::Session(key(0, 2))).is_some());
    }

    #[test]
    fn a_slot_beyond_the_table_is_refused() {
        assert_eq!(ports().open(key(2, 0), origin()), Err(PortError::Exhausted));
    }

    #[test]
    fn a_client_cannot_turn_segmentation_off_for_the_others() {
        let mut ports = ports();
        let listener = Port::Listener(ListenerIndex(0));
        ports.distrust_segments(listener, libc::EINVAL);
        ports.distrust_segments(listener, libc::EMSGSIZE);
        assert!(ports.segments(listener));
        ports.distrust_segments(listener, libc::EIO);
        assert!(!ports.segments(listener));
    }

    #[test]
    fn a_refused_segmented_send_turns_it_off_for_its_session_alone() {
        let mut ports = ports();
        ports.open(key(0, 0), origin()).unwrap();
        ports.open(key(1, 0), origin()).unwrap();
        ports.distrust_segments(Port::Session(key(0, 0)), libc::EINVAL);
        assert!(!ports.segments(Port::Session(key(0, 0))));
        assert!(ports.segments(Port::Session(key(1, 0))));
    }
}
