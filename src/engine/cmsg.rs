//! Control messages beside a datagram: the size of its segments, and the local address it came to
//! or leaves from.
//!
//! They are read and written as bytes and not through `CMSG_NXTHDR`: the layout (`cmsg(3)`) is a
//! header of three fields, the data, and padding to the size of a `size_t`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::sockaddr::{Family, canonical, mapped};

/// What the kernel said about a received datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ancillary {
    /// Bytes of each segment but the last, where GRO coalesced several (`UDP_GRO`).
    pub(super) segment: Option<usize>,
    /// The local address it was sent to (`IP_PKTINFO`, `IPV6_PKTINFO`).
    pub(super) local: Option<IpAddr>,
}

impl Ancillary {
    /// Room that a listener's receives need: `UDP_GRO` is an `int`, the larger of the two addresses
    /// is `struct in6_pktinfo`.
    pub(super) const LISTENER_ROOM: usize =
        space(size_of::<libc::c_int>()) + space(size_of::<libc::in6_pktinfo>());

    /// Room that receives on a session's port need: `UDP_GRO` alone.
    pub(super) const SESSION_ROOM: usize = space(size_of::<libc::c_int>());

    /// Reads what the kernel wrote. Messages of other kinds are passed over.
    pub(super) fn parse(mut control: &[u8]) -> Self {
        let mut ancillary = Self::default();
        while let Some((level, kind, data, rest)) = split(control) {
            ancillary.note(level, kind, data);
            control = rest;
        }
        ancillary
    }

    fn note(&mut self, level: i32, kind: i32, data: &[u8]) {
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let size = data.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
                self.segment = size.and_then(|size| usize::try_from(size).ok());
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // The second word is the address to answer from; the third is the header's
                // destination, which may be a broadcast address.
                let address = data.get(4..8).and_then(|bytes| bytes.first_chunk::<4>());
                self.local = address.map(|octets| IpAddr::V4(Ipv4Addr::from(*octets)));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let address = data.first_chunk::<16>();
                self.local = address.map(|octets| canonical(Ipv6Addr::from(*octets)));
            }
            _ => {}
        }
    }
}

/// What `msg_control` points at when a datagram is sent.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Control {
    bytes: [u8; Control::ROOM],
    len: usize,
}

impl Control {
    const ROOM: usize = space(size_of::<u16>()) + space(size_of::<libc::in6_pktinfo>());

    /// No control messages.
    pub(super) const EMPTY: Self = Self { bytes: [0; Self::ROOM], len: 0 };

    /// The kernel (or the device) cuts what is sent into datagrams of `size` bytes. Since Linux
    /// 4.18.
    pub(super) fn segment(&mut self, size: u16) {
        self.put(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }

    /// The datagram leaves from `local`, as a socket of `family` writes it.
    ///
    /// `scope` is the peer's: a link-local source means nothing without its interface. For IPv4 on
    /// a dual-stack socket the kernel takes the mapped form in `IPV6_PKTINFO`.
    pub(super) fn source(&mut self, local: IpAddr, scope: u32, family: Family) {
        match (local, family) {
            (IpAddr::V4(v4), Family::V4) => {
                let mut info = [0; size_of::<libc::in_pktinfo>()];
                if let Some(source) = info.get_mut(4..8) {
                    source.copy_from_slice(&v4.octets());
                }
                self.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            (local, _) => {
                let mut info = [0; size_of::<libc::in6_pktinfo>()];
                let (address, interface) = info.split_at_mut(16);
                address.copy_from_slice(&mapped(local).octets());
                interface.copy_from_slice(&scope.to_ne_bytes());
                self.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// What `msg_control` gets; the kernel never writes through it when it sends.
    pub(super) fn as_ptr(&self) -> *const libc::c_void {
        if self.len == 0 { std::ptr::null() } else { self.bytes.as_ptr().cast() }
    }

    /// What `msg_controllen` gets.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn put(&mut self, level: i32, kind: i32, data: &[u8]) {
        let Some(room) = self.bytes.get_mut(self.len..self.len + space(data.len())) else {
            return; // Each kind is put once at most, and `ROOM` is the sum of all kinds.
        };
        let (length, rest) = room.split_at_mut(size_of::<usize>());
        length.copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        let (level_field, rest) = rest.split_at_mut(size_of::<i32>());
        level_field.copy_from_slice(&level.to_ne_bytes());
        let (kind_field, rest) = rest.split_at_mut(size_of::<i32>());
        kind_field.copy_from_slice(&kind.to_ne_bytes());
        if let Some(room) = rest.get_mut(..data.len()) {
            room.copy_from_slice(data);
        }
        self.len += space(data.len());
    }
}

/// The first message (level, kind, data) and what follows it.
fn split(control: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let (length, fields) = control.split_first_chunk()?;
    let (level, fields) = fields.split_first_chunk()?;
    let (kind, _) = fields.split_first_chunk()?;
    let length = usize::from_ne_bytes(*length);
    let data = control.get(HEADER..length)?;
    let rest = control.get(align(length)..).unwrap_or_default();
    Some((i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind), data, rest))
}

/// `CMSG_SPACE`
const fn space(data: usize) -> usize {
    HEADER + align(data)
}

/// `CMSG_ALIGN`
const fn align(length: usize) -> usize {
    length.next_multiple_of(size_of::<usize>())
}

const HEADER: usize = size_of::<libc::cmsghdr>();

#[cfg(test)]
mod tests {
    use super::*;

    fn written(control: &Control) -> &[u8] {
        &control.bytes[..control.len]
    }

    /// What the kernel writes: like `Control::put`, but with the kinds of the receiving side.
    fn received(messages: &[(i32, i32, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (level, kind, data) in messages {
            bytes.extend((HEADER + data.len()).to_ne_bytes());
            bytes.extend(level.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*data);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        bytes
    }

    #[test]
    fn a_source_address_is_read_back_as_it_was_written() {
        for (local, family) in [
            ("127.0.0.2", Family::V4),
            ("127.0.0.2", Family::V6),
            ("2001:db8::1", Family::V6),
            ("fe80::1", Family::V6),
        ] {
            let local: IpAddr = local.parse().unwrap();
            let mut control = Control::EMPTY;
            control.segment(1316);
            control.source(local, 0, family);
            assert_eq!(
                Ancillary::parse(written(&control)).local,
                Some(local),
                "{local} {family:?}"
            );
        }
    }

    #[test]
    fn segment_size_and_local_address_are_found_among_others() {
        let info = {
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&[127, 0, 0, 2]);
            info
        };
        let control = received(&[
            (libc::SOL_SOCKET, libc::SO_TIMESTAMP, &[7; 16]),
            (libc::SOL_UDP, libc::UDP_GRO, &1316_i32.to_ne_bytes()),
            (libc::IPPROTO_IP, libc::IP_PKTINFO, &info),
        ]);
        let ancillary = Ancillary::parse(&control);
        assert_eq!(ancillary.segment, Some(1316));
        assert_eq!(ancillary.local, Some("127.0.0.2".parse().unwrap()));
    }

    #[test]
    fn control_that_is_cut_short_ends_the_reading() {
        let control = received(&[(libc::SOL_UDP, libc::UDP_GRO, &1316_i32.to_ne_bytes())]);
        for len in 0..HEADER + 4 {
            assert_eq!(Ancillary::parse(&control[..len]), Ancillary::default(), "{len} bytes");
        }
    }

    #[test]
    fn a_length_shorter_than_its_own_header_ends_the_reading() {
        assert_eq!(Ancillary::parse(&[0; 64]), Ancillary::default());
    }

    #[test]
    fn the_rooms_are_those_of_the_c_macros() {
        assert_eq!(Ancillary::SESSION_ROOM, 24);
        assert_eq!(Ancillary::LISTENER_ROOM, 64);
        assert_eq!(Control::ROOM, 64);
    }
}
