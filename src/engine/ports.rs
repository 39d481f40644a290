//! The sockets of one shard, found by the names that the shard uses.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::EngineError;
use super::sockaddr::Family;
use super::socket::open_port;
use super::sockopt::drops;
use crate::shard::SessionKey;
use crate::shard::{ListenerIndex, Port, PortError};

/// Listeners by position, session ports by slot.
pub(super) struct Ports {
    listeners: Vec<Listener>,
    sessions: Vec<Option<SessionPort>>,
    gso: bool,
    gro: bool,
    buffer_bytes: usize,
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

struct Listener {
    socket: PortSocket,
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
        gso: bool,
        gro: bool,
        buffer_bytes: usize,
    ) -> Result<Self, EngineError> {
        let listeners = listeners.into_iter().map(|socket| {
            let address = socket.local_addr().map_err(EngineError::socket("getsockname"))?;
            let socket = PortSocket {
                fd: socket.into(),
                family: Family::of(address),
                is_wildcard: address.ip().is_unspecified(),
                segments: gso,
                origin: None,
            };
            Ok(Listener { drops_seen: drops(&socket.fd).unwrap_or_default(), socket })
        });
        let listeners = listeners.collect::<Result<_, EngineError>>()?;
        let sessions = (0..sessions_max).map(|_| None).collect();
        Ok(Self { listeners, sessions, gso, gro, buffer_bytes })
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

    /// Sockets that there may be at once.
    pub(super) fn capacity(&self) -> u32 {
        (self.listeners.len() + self.sessions.len()) as u32
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
        let socket = open_port(origin, self.gro, self.buffer_bytes)?;
        *slot = Some(SessionPort {
            generation: session.generation,
            socket: PortSocket {
                fd: socket.into(),
                family: Family::of(origin),
                is_wildcard: false,
                segments: self.gso,
                origin: Some(origin),
            },
        });
        Ok(())
    }

    /// The socket is closed when what is returned is dropped.
    pub(super) fn close(&mut self, session: SessionKey) -> Option<PortSocket> {
        let slot = self.sessions.get_mut(session.slot as usize)?;
        let port = slot.take_if(|port| port.generation == session.generation)?;
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
        news.sum()
    }
}

impl PortSocket {
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
        Ports::new(vec![listener], 2, true, false, 64 << 10).unwrap()
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
