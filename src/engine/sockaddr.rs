//! Socket addresses in the form the kernel reads and writes (`struct sockaddr_in`, `struct
//! sockaddr_in6`).
//!
//! A dual-stack socket speaks IPv6 only, so IPv4 peers appear on it as IPv4-mapped addresses (RFC
//! 4291, section 2.5.5.2). That stays inside this file: everybody else sees `SocketAddr::V4`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The address family that a socket was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// `AF_INET`
    V4,
    /// `AF_INET6`, possibly dual-stack
    V6,
}

impl Family {
    pub(super) fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// What `msg_name` points at, and its length. The alignment is that of `struct sockaddr_in6`.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    bytes: [u8; Name::ROOM],
    len: u32,
}

impl Name {
    /// The larger of the two layouts: `struct sockaddr_in6`.
    pub(super) const ROOM: usize = size_of::<libc::sockaddr_in6>();

    /// No address: for connected sockets.
    pub(super) const EMPTY: Self = Self { bytes: [0; Self::ROOM], len: 0 };

    /// `address` as a socket of `family` takes it.
    ///
    /// An IPv6 address on an IPv4 socket stays IPv6: the kernel refuses the send and the caller
    /// counts it.
    pub(super) fn encode(address: SocketAddr, family: Family) -> Self {
        let mut bytes = [0; Self::ROOM];
        let mut put = Cursor { bytes: &mut bytes, at: 0 };
        match (address, family) {
            (SocketAddr::V4(v4), Family::V4) => {
                put.field(&FAMILY_V4.to_ne_bytes());
                put.field(&v4.port().to_be_bytes());
                put.field(&v4.ip().octets());
                return Self { bytes, len: size_of::<libc::sockaddr_in>() as u32 };
            }
            (SocketAddr::V4(v4), Family::V6) => put.v6(v4.port(), v4.ip().to_ipv6_mapped(), 0),
            (SocketAddr::V6(v6), _) => put.v6(v6.port(), *v6.ip(), v6.scope_id()),
        }
        Self { bytes, len: Self::ROOM as u32 }
    }

    /// What `msg_name` gets; the kernel never writes through it when it sends.
    pub(super) fn as_ptr(&self) -> *const libc::c_void {
        self.bytes.as_ptr().cast()
    }

    /// What `msg_namelen` gets.
    pub(super) fn len(&self) -> u32 {
        self.len
    }
}

/// Reads an address that the kernel wrote. `None` when it is neither IPv4 nor IPv6, or cut short.
///
/// The scope of link-local addresses is kept, for there is no way back without it. The flow label
/// is not: it differs between datagrams of one peer, and the address is a key.
pub(super) fn decode(name: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = name.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match u16::from_ne_bytes(*family) {
        FAMILY_V4 => {
            let ip = Ipv4Addr::from(*rest.first_chunk::<4>()?);
            Some(SocketAddr::V4(SocketAddrV4::new(ip, port)))
        }
        FAMILY_V6 => {
            let (_flow_label, rest) = rest.split_first_chunk::<4>()?;
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            let scope = u32::from_ne_bytes(*rest.first_chunk::<4>()?);
            Some(match canonical(Ipv6Addr::from(*ip)) {
                IpAddr::V4(ip) => SocketAddr::V4(SocketAddrV4::new(ip, port)),
                IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)),
            })
        }
        _ => None,
    }
}

/// The address behind an IPv4-mapped one, or the address itself.
pub(super) fn canonical(address: Ipv6Addr) -> IpAddr {
    address.to_canonical()
}

/// The address as an IPv6 socket writes it.
pub(super) fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Writes fields one behind the other.
struct Cursor<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Cursor<'_> {
    fn field(&mut self, field: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.at..self.at + field.len()) {
            room.copy_from_slice(field);
        }
        self.at += field.len();
    }

    fn v6(&mut self, port: u16, ip: Ipv6Addr, scope: u32) {
        self.field(&FAMILY_V6.to_ne_bytes());
        self.field(&port.to_be_bytes());
        self.field(&0_u32.to_ne_bytes());
        self.field(&ip.octets());
        self.field(&scope.to_ne_bytes());
    }
}

const FAMILY_V4: u16 = libc::AF_INET as u16;
const FAMILY_V6: u16 = libc::AF_INET6 as u16;

#[cfg(test)]
mod tests {
    use super::*;

    fn through(address: &str, family: Family) -> SocketAddr {
        let name = Name::encode(address.parse().unwrap(), family);
        decode(&name.bytes[..name.len as usize]).unwrap()
    }

    #[test]
    fn an_address_survives_the_way_to_the_kernel_and_back() {
        for (address, family) in [
            ("192.0.2.7:5000", Family::V4),
            ("192.0.2.7:5000", Family::V6),
            ("[2001:db8::1]:65535", Family::V6),
            ("[fe80::1%3]:1", Family::V6),
        ] {
            assert_eq!(
                through(address, family),
                address.parse().unwrap(),
                "{address} on {family:?}"
            );
        }
    }

    #[test]
    fn an_ipv4_peer_of_a_dual_stack_socket_is_written_as_a_mapped_address() {
        let name = Name::encode("192.0.2.7:5000".parse().unwrap(), Family::V6);
        assert_eq!(name.len as usize, size_of::<libc::sockaddr_in6>());
        assert_eq!(&name.bytes[18..24], &[0xff, 0xff, 192, 0, 2, 7]);
    }

    #[test]
    fn a_flow_label_is_not_part_of_the_address() {
        let mut name = Name::encode("[2001:db8::1]:9".parse().unwrap(), Family::V6);
        name.bytes[4..8].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(decode(&name.bytes).unwrap(), "[2001:db8::1]:9".parse().unwrap());
    }

    #[test]
    fn a_name_that_is_cut_short_or_of_another_family_is_no_address() {
        let name = Name::encode("[2001:db8::1]:9".parse().unwrap(), Family::V6);
        for len in 0..Name::ROOM {
            assert_eq!(decode(&name.bytes[..len]), None, "{len} bytes");
        }
        assert_eq!(decode(&[libc::AF_UNIX as u8, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
