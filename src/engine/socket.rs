//! Opens sockets: the group that clients send to, one socket per shard, and the ports of sessions.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

use super::EngineError;
use super::sockaddr::mapped;
use super::sockopt::{coalesce_receives, tell_local_v4, tell_local_v6};
use super::steer::steer;
use crate::config::{Listen, Steer};
use crate::shard::PortError;

/// The sockets of one listener: as many as there are shards, all bound to one address.
///
/// A program spreads clients over them, by their addresses or by the CPU that took the packet. All
/// are opened before traffic and stay until the end; what joins the group later is a connected
/// socket of one client, which the program does not choose.
#[derive(Debug)]
pub struct ListenerGroup {
    /// With the port that the kernel chose, where it was asked to.
    pub address: SocketAddr,
    /// In the order of the shards.
    pub sockets: Vec<UdpSocket>,
    /// What the kernel granted.
    pub buffers: SocketBuffers,
    /// The program is in place, so that connected sockets may come and go. Without it the kernel
    /// spreads clients by a hash of its own, and each change of the group would move clients.
    pub is_steered: bool,
}

/// Room for queued datagrams in one socket, in bytes as they were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketBuffers {
    /// `SO_RCVBUF`
    pub receive: usize,
    /// `SO_SNDBUF`
    pub send: usize,
}

impl SocketBuffers {
    /// How long nobody may receive from the socket before it drops datagrams, if `rate` of them
    /// arrive a second, each of about an Ethernet frame. GRO trains fit in more densely.
    pub fn stall(self, rate: u32) -> Duration {
        let datagrams = (2 * self.receive / DATAGRAM_CHARGE) as u64;
        Duration::from_nanos(datagrams * 1_000_000_000 / u64::from(rate.max(1)))
    }
}

/// What the members of a group have in common.
#[derive(Clone, Copy, Debug)]
pub struct GroupOptions<'a> {
    /// The CPU of each shard; `None` for shards that are not pinned. One socket is opened for each.
    pub cpus: &'a [Option<usize>],
    /// How the kernel chooses a member.
    pub steer: Steer,
    /// Trains arrive in one piece.
    pub gro: bool,
    /// `SO_RCVBUF` and `SO_SNDBUF` to ask for.
    pub buffer_bytes: usize,
}

impl ListenerGroup {
    /// Opens the group. [`Listen::Off`] is no group.
    ///
    /// # Errors
    /// [`EngineError::Bind`] when the address cannot be had, [`EngineError::Socket`] and
    /// [`EngineError::Steer`] when an option is refused.
    pub fn open(listen: Listen, options: GroupOptions<'_>) -> Result<Option<Self>, EngineError> {
        let address = match listen {
            Listen::Off => return Ok(None),
            Listen::All(port) => everywhere(port),
            Listen::At(address) => address,
        };
        claim(address)?;
        let mut group: Option<Self> = None;
        for _ in options.cpus {
            // Port 0 is resolved by the first socket; the others bind what it got.
            let address = group.as_ref().map_or(address, |group| group.address);
            let socket = member(address, options)?;
            match &mut group {
                Some(group) => group.sockets.push(socket),
                None => group = Some(Self::of(socket)?),
            }
        }
        if let Some(group) = &mut group {
            group.steer(options)?;
        }
        Ok(group)
    }

    fn of(socket: UdpSocket) -> Result<Self, EngineError> {
        let address = socket.local_addr().map_err(EngineError::socket("getsockname"))?;
        let buffers = granted(&socket).map_err(EngineError::socket("getsockopt SO_RCVBUF"))?;
        Ok(Self { address, sockets: vec![socket], buffers, is_steered: false })
    }

    fn steer(&mut self, options: GroupOptions<'_>) -> Result<(), EngineError> {
        let Some(first) = self.sockets.first() else {
            return Ok(());
        };
        // Nobody outside may know which shard an address leads to.
        let seed = RandomState::new().hash_one(self.address) as u32;
        let members = self.sockets.len();
        match options.steer {
            Steer::Cpu => {
                let pinned: Option<Vec<usize>> = options.cpus.iter().copied().collect();
                let pinned = pinned.ok_or(EngineError::SteerUnpinned)?;
                // Of two shards on one CPU the second would get nothing but strays.
                let is_shared = |cpu| pinned.iter().filter(|other| *other == cpu).count() > 1;
                if pinned.iter().any(is_shared) {
                    return Err(EngineError::SteerUnpinned);
                }
                steer(first, members, Some(&pinned), seed)
                    .map_err(|source| EngineError::Steer { source })?;
            }
            Steer::Hash => {
                if let Err(error) = steer(first, members, None, seed) {
                    tracing::warn!(
                        address = %self.address,
                        %error,
                        "the kernel refuses the program that spreads clients: no client gets a \
                         socket of its own"
                    );
                    return Ok(());
                }
            }
        }
        self.is_steered = true;
        Ok(())
    }
}

/// Opens a socket that shares the address of a listener and is connected to one of its clients, so
/// that it gets what that client sends, and nobody else's at any moment.
///
/// `listener` is the address as it is bound, not the one that the client has hit: a socket bound to
/// the latter would take everybody's datagrams until it is connected.
pub(super) fn open_client(
    listener: SocketAddr,
    client: SocketAddr,
    gro: bool,
    bytes: usize,
) -> io::Result<Socket> {
    // Another shard must not bind while a socket is connected and can be shared with.
    let _alone = CLIENT_OPENING.lock().unwrap_or_else(PoisonError::into_inner);
    let socket = join_group(listener, gro, bytes)?;
    turn_to_client(&socket, listener, client)?;
    Ok(socket)
}

/// Binds a socket at the end of the listener's group, where the program does not choose it.
fn join_group(listener: SocketAddr, gro: bool, bytes: usize) -> io::Result<Socket> {
    let socket = unbound(listener)?;
    socket.set_reuse_port(true)?;
    // For the address that it has in common with those that are connected already.
    socket.set_reuse_address(true)?;
    // Smaller queues drop earlier; that is no reason to go without.
    let _ = ask_for_buffers(&socket, bytes);
    if gro {
        coalesce_receives(&socket)?;
    }
    socket.bind(&listener.into())?;
    Ok(socket)
}

/// Connects a socket of the group to its client. None that is bound later finds it there: a kernel
/// that takes a connected socket out of its group (since Linux 6.13) has the next one found a second
/// group with it, one without a program, which takes everybody's datagrams until that one is
/// connected.
fn turn_to_client(socket: &Socket, listener: SocketAddr, client: SocketAddr) -> io::Result<()> {
    let client = match client {
        SocketAddr::V4(v4) if listener.is_ipv6() => {
            SocketAddr::from((mapped((*v4.ip()).into()), v4.port()))
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => client,
    };
    socket.connect(&client.into())?;
    socket.set_reuse_port(false)
}

/// Opens a port of a session: connected, so that the kernel passes on what the origin sends and
/// nothing else.
pub(super) fn open_port(origin: SocketAddr, gro: bool, bytes: usize) -> Result<Socket, PortError> {
    let open = || {
        let socket =
            Socket::new(Domain::for_address(origin), datagram_type(), Some(Protocol::UDP))?;
        // Smaller queues drop earlier; that is no reason to refuse the session.
        let _ = ask_for_buffers(&socket, bytes);
        if gro {
            coalesce_receives(&socket)?;
        }
        socket.connect(&origin.into())?;
        Ok(socket)
    };
    open().map_err(|error: io::Error| port_error(error.raw_os_error().unwrap_or_default()))
}

/// What an errno of a session's port means for the session.
pub(super) fn port_error(errno: i32) -> PortError {
    match errno {
        // An ICMP port unreachable came back.
        libc::ECONNREFUSED => PortError::Refused,
        // No route, or an ICMP host or network unreachable came back, or the interface went down.
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN => {
            PortError::Unreachable
        }
        // No descriptor (process, system), no local port (the second is what connect says), no
        // memory.
        libc::EMFILE
        | libc::ENFILE
        | libc::EADDRNOTAVAIL
        | libc::EAGAIN
        | libc::ENOMEM
        | libc::ENOBUFS => PortError::Exhausted,
        other => PortError::Other(other),
    }
}

/// All addresses of this host: both families where IPv6 is there, else IPv4.
pub fn everywhere(port: u16) -> SocketAddr {
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let is_there =
        Socket::new(Domain::IPV6, datagram_type(), Some(Protocol::UDP)).is_ok_and(|socket| {
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()).is_ok()
        });
    if is_there { v6 } else { SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)) }
}

/// Makes sure that nobody else has the address.
///
/// `SO_REUSEPORT` lets every process of one user into a group: a second relay on the same port
/// would silently take half of the clients. So a socket without it is bound first. It also waits
/// for a predecessor: the ring of a killed process keeps its sockets until the kernel has torn it
/// down, some time after the process is gone.
fn claim(address: SocketAddr) -> Result<(), EngineError> {
    if address.port() == 0 {
        return Ok(());
    }
    let deadline = Instant::now() + BIND_PATIENCE;
    loop {
        let error = match unbound(address).and_then(|socket| socket.bind(&address.into())) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let is_taken = error.raw_os_error() == Some(libc::EADDRINUSE);
        if !is_taken || Instant::now() >= deadline {
            return Err(EngineError::Bind { address, source: error });
        }
        pause(BIND_RETRY);
    }
}

/// One socket of a group, bound.
fn member(address: SocketAddr, options: GroupOptions<'_>) -> Result<UdpSocket, EngineError> {
    let bind = |source| EngineError::Bind { address, source };
    let socket = unbound(address).map_err(EngineError::socket("socket"))?;
    socket.set_reuse_port(true).map_err(EngineError::socket("setsockopt SO_REUSEPORT"))?;
    ask_for_buffers(&socket, options.buffer_bytes)
        .map_err(EngineError::socket("setsockopt SO_RCVBUF"))?;
    if options.gro {
        coalesce_receives(&socket).map_err(EngineError::socket("setsockopt UDP_GRO"))?;
    }
    if address.ip().is_unspecified() {
        let result =
            if address.is_ipv4() { tell_local_v4(&socket) } else { tell_local_v6(&socket) };
        result.map_err(EngineError::socket("setsockopt IP_PKTINFO"))?;
    }
    socket.bind(&address.into()).map_err(bind)?;
    Ok(socket.into())
}

fn unbound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), datagram_type(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    Ok(socket)
}

/// Asks for large queues: beyond the administrator's limit where the process may (`CAP_NET_ADMIN` in
/// the first user namespace; that of a container's own does not count), else up to it.
///
/// A limit is no reservation: memory is taken by datagrams while they are queued, and thousands of
/// ports that are read in time take next to none.
fn ask_for_buffers(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    sockopt::set_socket_recv_buffer_size_force(socket, bytes)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, bytes))?;
    sockopt::set_socket_send_buffer_size_force(socket, bytes)
        .or_else(|_| sockopt::set_socket_send_buffer_size(socket, bytes))?;
    Ok(())
}

/// The kernel doubles what is asked for, to pay for its own bookkeeping, and reports the double.
fn granted(socket: &impl AsFd) -> io::Result<SocketBuffers> {
    Ok(SocketBuffers {
        receive: sockopt::socket_recv_buffer_size(socket)? / 2,
        send: sockopt::socket_send_buffer_size(socket)? / 2,
    })
}

fn datagram_type() -> Type {
    Type::DGRAM.nonblocking().cloexec()
}

/// Lets `time`, below a second, pass. For what has no event to wait for: nobody says when a port is
/// free again, or when a full mailbox has room.
pub(super) fn pause(time: Duration) {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
    let _ = rustix::event::poll(&mut [], Some(&timeout)); // A signal may end it early.
}

/// What a queued datagram of 700 to 1,500 bytes is charged with: a piece of 2 KiB and the kernel's
/// description of it. The queue may be charged with the double of what was asked for.
const DATAGRAM_CHARGE: usize = 2048 + 256;

/// Held while a client's socket is opened.
static CLIENT_OPENING: Mutex<()> = Mutex::new(());

/// How long a predecessor's sockets may take to go away.
const BIND_PATIENCE: Duration = Duration::from_secs(1);
const BIND_RETRY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::*;

    fn options(cpus: &[Option<usize>]) -> GroupOptions<'_> {
        GroupOptions { cpus, steer: Steer::Hash, gro: false, buffer_bytes: 64 << 10 }
    }

    fn loopback(port: u16) -> Listen {
        Listen::At(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    #[test]
    fn all_sockets_of_a_group_share_the_port_that_the_kernel_chose() {
        let group = ListenerGroup::open(loopback(0), options(&[None; 3])).unwrap().unwrap();
        assert_ne!(group.address.port(), 0);
        let addresses: Vec<_> = group.sockets.iter().map(|s| s.local_addr().unwrap()).collect();
        assert_eq!(addresses, [group.address; 3]);
    }

    #[test]
    fn a_port_that_another_group_has_is_refused_although_the_kernel_would_share_it() {
        let group = ListenerGroup::open(loopback(0), options(&[None])).unwrap().unwrap();
        let second = ListenerGroup::open(loopback(group.address.port()), options(&[None]));
        assert!(
            matches!(second, Err(EngineError::Bind { address, .. }) if address == group.address)
        );
    }

    #[test]
    fn a_port_is_had_as_soon_as_its_owner_lets_go_of_it() {
        let owner = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = owner.local_addr().unwrap().port();
        let waiting =
            std::thread::spawn(move || ListenerGroup::open(loopback(port), options(&[None])));
        drop(owner);
        assert!(waiting.join().unwrap().is_ok_and(|group| group.is_some()));
    }

    #[test]
    fn a_wildcard_listener_takes_both_families() {
        let group = ListenerGroup::open(Listen::All(0), options(&[None])).unwrap().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"x", (Ipv4Addr::LOCALHOST, group.address.port())).unwrap();
        let socket = &group.sockets[0];
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (len, _) = socket.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(len, 1);
    }

    #[test]
    fn a_socket_that_is_about_to_be_connected_takes_nobodys_datagrams() {
        for (listen, ip) in
            [("127.0.0.1:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.1"), ("[::1]:0", "::1")]
        {
            let listen = Listen::At(listen.parse().unwrap());
            let group = ListenerGroup::open(listen, options(&[None])).unwrap().unwrap();
            let ip: std::net::IpAddr = ip.parse().unwrap();
            let target = SocketAddr::new(ip, group.address.port());
            let clients: Vec<_> =
                (0..40).map(|_| UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap()).collect();
            let mut opened = Vec::new();
            for (position, client) in clients[..4].iter().enumerate() {
                let socket = join_group(group.address, false, 64 << 10).unwrap();
                for other in &clients[position..] {
                    other.send_to(b"x", target).unwrap();
                    let taken = group.sockets[0].recv(&mut [0; 8]);
                    assert!(taken.is_ok(), "{listen:?}: beside {position} connected sockets");
                }
                let address = client.local_addr().unwrap();
                turn_to_client(&socket, group.address, address).unwrap();
                opened.push(socket);
            }
        }
    }

    #[test]
    fn steering_by_cpu_wants_a_cpu_for_each_shard() {
        for cpus in [&[None][..], &[Some(0), Some(0)]] {
            let steered = GroupOptions { steer: Steer::Cpu, ..options(cpus) };
            let group = ListenerGroup::open(loopback(0), steered);
            assert!(matches!(group, Err(EngineError::SteerUnpinned)), "{cpus:?}");
        }
    }

    #[test]
    fn a_steered_group_hands_a_packet_to_the_shard_of_its_cpu() {
        let cpus: Vec<_> = core_affinity::get_core_ids().unwrap().iter().map(|id| id.id).collect();
        let pinned: Vec<_> = cpus.iter().copied().map(Some).collect();
        let steered = GroupOptions { steer: Steer::Cpu, ..options(&pinned) };
        let group = ListenerGroup::open(loopback(0), steered).unwrap().unwrap();
        for (position, cpu) in cpus.iter().enumerate() {
            // Loopback delivers on the CPU of the sender.
            let address = group.address;
            let id = core_affinity::CoreId { id: *cpu };
            std::thread::spawn(move || {
                assert!(core_affinity::set_for_current(id));
                UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", address).unwrap();
            })
            .join()
            .unwrap();
            let socket = &group.sockets[position];
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 1, "CPU {cpu}");
        }
    }

    /// Asks for more than this host's limit, and says what of it was granted and what the limit is.
    fn ask_for_too_much() -> (usize, SocketBuffers, SocketBuffers) {
        let limit = |name| -> usize {
            let text = std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).unwrap();
            text.trim().parse().unwrap()
        };
        let limits = SocketBuffers { receive: limit("rmem_max"), send: limit("wmem_max") };
        let buffer_bytes = 2 * limits.receive.max(limits.send);
        let asked = GroupOptions { buffer_bytes, ..options(&[None]) };
        let group = ListenerGroup::open(loopback(0), asked).unwrap().unwrap();
        // A session's port asks in the same way.
        let port = open_port(group.address, false, buffer_bytes).unwrap();
        assert_eq!(granted(&port).unwrap(), group.buffers);
        (buffer_bytes, limits, group.buffers)
    }

    /// Whether this thread may exceed the limits: it has the capability, and in the user namespace
    /// that holds all identities.
    fn may_exceed_limits() -> bool {
        let has = capabilities(None).unwrap().effective.contains(CapabilitySet::NET_ADMIN);
        let identities = std::fs::read_to_string("/proc/self/uid_map").unwrap();
        let is_first = identities.split_whitespace().eq(["0", "0", "4294967295"]);
        has && is_first
    }

    #[test]
    fn buffers_exceed_the_limit_where_the_process_may() {
        let (asked, limits, granted) = ask_for_too_much();
        let all = SocketBuffers { receive: asked, send: asked };
        assert_eq!(granted, if may_exceed_limits() { all } else { limits });
    }

    #[test]
    fn without_the_capability_buffers_reach_up_to_the_limit() {
        // Capabilities are each thread's own.
        let unprivileged = || {
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::NET_ADMIN);
            set_capabilities(None, sets).unwrap();
            assert!(!may_exceed_limits());
            ask_for_too_much()
        };
        let (_, limits, granted) = std::thread::spawn(unprivileged).join().unwrap();
        assert_eq!(granted, limits);
    }

    #[test]
    fn the_stall_that_is_promised_is_what_the_queue_holds() {
        let group = ListenerGroup::open(loopback(0), options(&[None])).unwrap().unwrap();
        let promised = group.buffers.stall(1_000).as_millis();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..2 * promised {
            client.send_to(&[0; 1316], group.address).unwrap();
        }
        let queued = std::iter::from_fn(|| group.sockets[0].recv(&mut [0; 2000]).ok()).count();
        let ratio = queued as f64 / promised as f64;
        assert!((0.8..1.25).contains(&ratio), "{queued} instead of {promised}");
    }

    #[test]
    fn an_origin_without_a_route_is_unreachable() {
        // 240.0.0.0/4 is reserved (RFC 1112, section 4): the kernel has no route there or refuses
        // to use one.
        let origin = SocketAddr::from((Ipv4Addr::new(255, 255, 255, 255), 9));
        let result = open_port(origin, false, 64 << 10);
        assert!(matches!(result, Err(PortError::Unreachable | PortError::Other(libc::EACCES))));
    }
}
