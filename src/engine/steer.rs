//! The program that chooses a member of a listener's group (`SO_ATTACH_REUSEPORT_CBPF`, Linux 4.5).
//!
//! Without a program the kernel takes its hash of the four-tuple modulo the members, so every socket
//! that joins or leaves the group moves clients between shards, and one that has just joined takes
//! some of them. With this one a client's member depends on the client's address and port and on
//! nothing else, and a member beyond the first `members` is never chosen: connected sockets of
//! clients come and go at the end of the group, and nobody notices.

use std::io;
use std::os::fd::AsFd;

use libc::sock_filter;

use super::sockopt::attach_group_program;

/// Makes the kernel choose among the first `members` sockets of the group that `socket` belongs to,
/// in the order in which they were bound.
///
/// Where `cpus` are given, position `n` names the CPU whose packets go to socket `n`; what another
/// CPU took goes where the hash of its sender says. `seed` makes the hash a secret.
///
/// # Errors
/// The kernel does not know the option, or refuses the program.
pub(super) fn steer(
    socket: impl AsFd,
    members: usize,
    cpus: Option<&[usize]>,
    seed: u32,
) -> io::Result<()> {
    let members = u16::try_from(members).map_err(|_| io::ErrorKind::InvalidInput)?;
    attach_group_program(socket, &mut program(members, cpus.unwrap_or_default(), seed))
}

/// By CPU as far as they are named, else by sender.
fn program(members: u16, cpus: &[usize], seed: u32) -> Vec<sock_filter> {
    let mut program = by_cpu(cpus);
    if members == 1 {
        program.push(statement(libc::BPF_RET | libc::BPF_K, 0));
    } else {
        program.extend(sender());
        program.extend(mix(seed));
        program.extend(scale(members));
    }
    program
}

/// Load the CPU; for each shard: is it this one? then its position.
fn by_cpu(cpus: &[usize]) -> Vec<sock_filter> {
    if cpus.is_empty() {
        return Vec::new();
    }
    let load_cpu = (libc::SKF_AD_OFF + libc::SKF_AD_CPU) as u32;
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, load_cpu)];
    for (position, cpu) in cpus.iter().enumerate() {
        program.push(unless_equal(*cpu as u32, 1));
        program.push(statement(libc::BPF_RET | libc::BPF_K, position as u32));
    }
    program
}

/// A = address of the sender, folded to 32 bits if it is IPv6; X = its port.
///
/// The program sees the payload of the datagram at offset 0; headers are reached relative to the
/// network header.
fn sender() -> Vec<sock_filter> {
    let (ports_v4, ports_v6) = (by_sender_v4(), by_sender_v6());
    let mut program = vec![
        statement(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, NETWORK_HEADER),
        statement(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 4),
        unless_equal(4, ports_v4.len() as u8 + 1),
    ];
    program.extend(ports_v4);
    program.push(statement(libc::BPF_JMP | libc::BPF_JA, ports_v6.len() as u32));
    program.extend(ports_v6);
    program
}

/// The length of the IPv4 header stands in its first byte (RFC 791, section 3.1).
fn by_sender_v4() -> Vec<sock_filter> {
    vec![
        statement(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, NETWORK_HEADER),
        statement(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, NETWORK_HEADER),
        statement(libc::BPF_MISC | libc::BPF_TAX, 0),
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NETWORK_HEADER + 12),
    ]
}

/// Behind extension headers (RFC 8200, section 4) the port is not looked for: such senders are told
/// apart by their addresses alone.
fn by_sender_v6() -> Vec<sock_filter> {
    let mut program = vec![
        statement(libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM, 0),
        statement(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, NETWORK_HEADER + 6),
        unless_equal(libc::IPPROTO_UDP as u32, 2),
        statement(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, NETWORK_HEADER + 40),
        statement(libc::BPF_MISC | libc::BPF_TAX, 0),
    ];
    for word in [8, 12, 16] {
        program.extend([
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NETWORK_HEADER + word),
            statement(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X, 0),
            statement(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, GOLDEN_RATIO),
            statement(libc::BPF_MISC | libc::BPF_TAX, 0),
        ]);
    }
    program.push(statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NETWORK_HEADER + 20));
    program
}

/// A = a number that every bit of A, X and `seed` has a say in.
fn mix(seed: u32) -> Vec<sock_filter> {
    let mut program = vec![
        statement(libc::BPF_ST, 0),
        statement(libc::BPF_MISC | libc::BPF_TXA, 0),
        statement(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, GOLDEN_RATIO),
        statement(libc::BPF_LDX | libc::BPF_W | libc::BPF_MEM, 0),
        statement(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0),
        statement(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_K, seed),
    ];
    for (shift, factor) in [(16, 0x85EB_CA6B), (13, 0xC2B2_AE35)] {
        program.extend([
            statement(libc::BPF_MISC | libc::BPF_TAX, 0),
            statement(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, shift),
            statement(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0),
            statement(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, factor),
        ]);
    }
    program
}

/// Returns the upper half of A as a position below `members`.
fn scale(members: u16) -> [sock_filter; 4] {
    [
        statement(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 16),
        statement(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, members.into()),
        statement(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 16),
        statement(libc::BPF_RET | RETURN_A, 0),
    ]
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Skips the next `skip` instructions unless A is `value`.
fn unless_equal(value: u32, skip: u8) -> sock_filter {
    let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    sock_filter { code: code as u16, jt: 0, jf: skip, k: value }
}

const NETWORK_HEADER: u32 = libc::SKF_NET_OFF as u32;

/// `BPF_A`: what is returned is A.
const RETURN_A: u32 = 0x10;

/// 2^32 divided by the golden ratio: neighbouring ports end up far apart.
const GOLDEN_RATIO: u32 = 0x9E37_79B1;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, SocketAddr, UdpSocket};

    use socket2::{Domain, Socket, Type};

    /// Sockets that share an address, the first `members` of them chosen by the program.
    struct Group {
        sockets: Vec<UdpSocket>,
        bound: SocketAddr,
        target: SocketAddr,
    }

    impl Group {
        fn open(bound: &str, target: &str, members: usize) -> Self {
            let ip: IpAddr = bound.parse().unwrap();
            let first = join(SocketAddr::new(ip, 0));
            let bound = first.local_addr().unwrap();
            let mut sockets = vec![first];
            sockets.extend((1..members).map(|_| join(bound)));
            steer(&sockets[0], members, None, 0x5EED).unwrap();
            let target = SocketAddr::new(target.parse().unwrap(), bound.port());
            Self { sockets, bound, target }
        }

        /// Which socket each client's datagram arrives at.
        fn positions(&self, clients: &[UdpSocket]) -> Vec<usize> {
            let position = |client: &UdpSocket| {
                client.send_to(b"x", self.target).unwrap();
                // Loopback has delivered it when the call returns.
                let has_it = |socket: &UdpSocket| socket.recv(&mut [0; 8]).is_ok();
                self.sockets.iter().position(has_it).expect("the datagram has arrived somewhere")
            };
            clients.iter().map(position).collect()
        }

        /// A socket at the end of the group.
        fn add(&mut self) -> &UdpSocket {
            self.sockets.push(join(self.bound));
            self.sockets.last().unwrap()
        }
    }

    fn join(address: SocketAddr) -> UdpSocket {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified()).unwrap();
        }
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.into()
    }

    fn clients(ip: &str, count: usize) -> Vec<UdpSocket> {
        let address = SocketAddr::new(ip.parse().unwrap(), 0);
        (0..count).map(|_| UdpSocket::bind(address).unwrap()).collect()
    }

    /// `client` as a socket that is bound to `bound` sees it.
    fn seen_from(bound: SocketAddr, client: &UdpSocket) -> SocketAddr {
        match client.local_addr().unwrap() {
            SocketAddr::V4(v4) if bound.is_ipv6() => {
                SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port()))
            }
            address @ (SocketAddr::V4(_) | SocketAddr::V6(_)) => address,
        }
    }

    /// Address bound to, address that clients send to and from.
    const WAYS: [(&str, &str); 5] = [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "::1"),
        ("::", "::1"),
        ("::", "127.0.0.1"),
    ];

    #[test]
    fn every_member_gets_about_its_share_of_the_clients() {
        for (bound, ip) in WAYS {
            let group = Group::open(bound, ip, 4);
            let positions = group.positions(&clients(ip, 400));
            for member in 0..4 {
                let share = positions.iter().filter(|position| **position == member).count();
                assert!((50..150).contains(&share), "{bound} {ip}: {share} of 400");
            }
        }
    }

    #[test]
    fn a_socket_that_joins_takes_nothing_and_moves_nobody() {
        for (members, (bound, ip)) in [1, 3].into_iter().flat_map(|n| WAYS.map(|way| (n, way))) {
            let mut group = Group::open(bound, ip, members);
            let clients = clients(ip, 100);
            let before = group.positions(&clients);
            group.add();
            assert_eq!(group.positions(&clients), before, "{members} {bound} {ip}");
        }
    }

    #[test]
    fn a_connected_socket_gets_its_client_and_nobody_else_before_and_after_others_leave() {
        for (bound, ip) in WAYS {
            let mut group = Group::open(bound, ip, 3);
            let clients = clients(ip, 60);
            let before = group.positions(&clients);
            for client in &clients[..20] {
                let peer = seen_from(group.bound, client);
                group.add().connect(peer).unwrap();
            }
            let connected = group.positions(&clients);
            assert_eq!(connected[..20], Vec::from_iter(3..23), "{bound} {ip}");
            assert_eq!(connected[20..], before[20..], "{bound} {ip}");
            // The first, one in the middle, the last: the kernel fills each hole with the last.
            for gone in [22, 9, 3] {
                group.sockets.remove(gone);
            }
            let after = group.positions(&clients);
            for back in [0, 6, 19] {
                assert_eq!(after[back], before[back], "{bound} {ip}");
            }
            assert_eq!(after[20..], before[20..], "{bound} {ip}");
        }
    }

    #[test]
    fn a_connected_socket_that_turns_to_itself_gets_nothing_more() {
        for (bound, ip) in WAYS {
            let mut group = Group::open(bound, ip, 2);
            let clients = clients(ip, 10);
            let before = group.positions(&clients);
            let peer = seen_from(group.bound, &clients[0]);
            let socket = group.add();
            socket.connect(peer).unwrap();
            socket.connect(socket.local_addr().unwrap()).unwrap();
            assert_eq!(group.positions(&clients), before, "{bound} {ip}");
        }
    }

    #[test]
    fn the_cpus_are_asked_for_before_the_sender() {
        let program = program(2, &[4, 9], 0);
        let summary: Vec<_> = program.iter().map(|i| (i.jf, i.k)).collect();
        assert_eq!(summary[1..5], [(1, 4), (0, 0), (1, 9), (0, 1)]);
        assert_eq!(program.last().map(|last| u32::from(last.code)), Some(libc::BPF_RET | RETURN_A));
    }
}
