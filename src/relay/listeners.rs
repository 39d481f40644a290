//! Opens what clients, origins and operators come to, before any thread runs.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::vec::IntoIter;

use socket2::{Domain, Socket, Type};

use super::StartError;
use crate::config::{Config, Listen};
use crate::engine::{self, EngineError, GroupOptions, ListenerGroup, SocketBuffers};
use crate::shard::Protocol;

/// The sockets that clients send media to: a group for each protocol that is on, SRT first. A shard
/// numbers its listeners in the same order.
pub(super) struct MediaListeners(Vec<MediaListener>);

struct MediaListener {
    protocol: Protocol,
    address: SocketAddr,
    buffers: SocketBuffers,
    is_steered: bool,
    /// Of the shards that have not been given theirs, in order.
    sockets: IntoIter<UdpSocket>,
}

impl MediaListeners {
    pub(super) fn open(config: &Config, options: GroupOptions<'_>) -> Result<Self, EngineError> {
        let wanted = [(Protocol::Srt, config.srt_listen), (Protocol::WebRtc, config.webrtc_listen)];
        let mut listeners = Vec::new();
        for (protocol, listen) in wanted {
            if let Some(group) = ListenerGroup::open(listen, options)? {
                let ListenerGroup { address, sockets, buffers, is_steered } = group;
                let sockets = sockets.into_iter();
                listeners.push(MediaListener { protocol, address, buffers, is_steered, sockets });
            }
        }
        Ok(Self(listeners))
    }

    /// What each listener of a shard speaks.
    pub(super) fn protocols(&self) -> Vec<Protocol> {
        self.0.iter().map(|listener| listener.protocol).collect()
    }

    /// With the port that the kernel chose; `None` while the protocol is off.
    pub(super) fn address(&self, protocol: Protocol) -> Option<SocketAddr> {
        let found = self.0.iter().find(|listener| listener.protocol == protocol);
        found.map(|listener| listener.address)
    }

    /// What the kernel granted, the same for each group.
    pub(super) fn buffers(&self) -> Option<SocketBuffers> {
        self.0.first().map(|listener| listener.buffers)
    }

    /// Whether sockets of clients may join every group.
    pub(super) fn are_steered(&self) -> bool {
        self.0.iter().all(|listener| listener.is_steered)
    }

    /// The sockets of the next shard, one of each group.
    pub(super) fn take_of_one_shard(&mut self) -> Vec<UdpSocket> {
        self.0.iter_mut().filter_map(|listener| listener.sockets.next()).collect()
    }
}

/// Opens a listener for HTTP; none for [`Listen::Off`].
pub(super) fn open(listen: Listen, flag: &'static str) -> Result<Option<TcpListener>, StartError> {
    let address = match listen {
        Listen::Off => return Ok(None),
        Listen::All(port) => engine::everywhere(port),
        Listen::At(address) => address,
    };
    let listener =
        open_listener(address).map_err(|source| StartError::Listen { address, flag, source })?;
    Ok(Some(listener))
}

/// What the standard library does, with a longer queue, and with IPv4 on the unspecified IPv6
/// address whatever `net.ipv6.bindv6only` says.
fn open_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Connections that have not been accepted yet. When it is full, the kernel ignores a SYN and its
/// sender tries again a second later; the kernel cuts it at `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::Steer;

    const LOOPBACK: Listen =
        Listen::At(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0));

    fn media(srt_listen: Listen, webrtc_listen: Listen) -> MediaListeners {
        let config = Config { srt_listen, webrtc_listen, ..Config::default() };
        let cpus = [None; 2];
        let buffer_bytes = 64 << 10;
        let options = GroupOptions { cpus: &cpus, steer: Steer::Hash, gro: false, buffer_bytes };
        MediaListeners::open(&config, options).unwrap()
    }

    #[test]
    fn each_shard_gets_a_socket_of_each_protocol_in_the_order_that_it_numbers_them() {
        let mut media = media(LOOPBACK, LOOPBACK);
        assert_eq!(media.protocols(), [Protocol::Srt, Protocol::WebRtc]);
        let addresses = media.protocols().into_iter().map(|protocol| media.address(protocol));
        let addresses: Vec<_> = addresses.map(Option::unwrap).collect();
        for _shard in 0..2 {
            let sockets = media.take_of_one_shard();
            let bound: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
            assert_eq!(bound, addresses);
        }
        assert_eq!(media.take_of_one_shard().len(), 0);
    }

    #[test]
    fn webrtc_alone_is_the_first_listener() {
        let mut media = media(Listen::Off, LOOPBACK);
        assert_eq!(media.protocols(), [Protocol::WebRtc]);
        assert_eq!(media.address(Protocol::Srt), None);
        let socket = media.take_of_one_shard().remove(0);
        assert_eq!(media.address(Protocol::WebRtc), socket.local_addr().ok());
    }
}
