//! Many datagrams per system call: `sendmmsg` and `recvmmsg` with the control messages that tests
//! need.
//!
//! Sending takes a source address (`IP_PKTINFO`), so that one socket plays thousands of clients,
//! and a segment size (`UDP_SEGMENT`), so that a train arrives coalesced. Receiving gives the
//! kernel's arrival time (`SO_TIMESTAMPNS`) and the segment size of a coalesced train (`UDP_GRO`).
#![allow(
    unsafe_code,
    reason = "recvmmsg, sendmmsg and setsockopt take raw pointers; nothing else here is unsafe"
)]

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;

use rustix::event::{PollFd, PollFlags};

use crate::clock::{self, SECOND};

/// Datagrams per system call.
pub const BATCH_MAX: usize = 64;

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Index of the socket that sends.
    pub socket: usize,
    /// The receiver.
    pub to: SocketAddr,
    /// The source address to use instead of the socket's own.
    pub from: Option<Ipv4Addr>,
}

/// Datagrams waiting to be sent, in order.
#[derive(Debug, Default)]
pub struct SendBatch {
    arena: Vec<u8>,
    envelopes: Vec<Envelope>,
    /// Datagrams that the kernel did not take, since the start.
    refused: u64,
}

#[derive(Clone, Copy, Debug)]
struct Envelope {
    route: Route,
    end: usize,
    /// Bytes per datagram when the envelope is a train.
    segment: Option<u16>,
}

impl Envelope {
    /// Datagrams in it, if its bytes begin at `start`.
    fn datagrams(&self, start: usize) -> u64 {
        let length = self.end.saturating_sub(start);
        let segment = self.segment.map_or(usize::MAX, usize::from).max(1);
        length.div_ceil(segment).max(1) as u64
    }
}

impl SendBatch {
    /// Appends `length` bytes bound for `route` and gives them to the caller to fill. With
    /// `segment` they leave as a train of datagrams of that many bytes. The bytes are whatever an
    /// earlier batch left.
    pub fn push(&mut self, route: Route, length: usize, segment: Option<u16>) -> &mut [u8] {
        let start = self.used();
        let end = start + length;
        if self.arena.len() < end {
            self.arena.resize(end, 0);
        }
        self.envelopes.push(Envelope { route, end, segment });
        self.arena.get_mut(start..end).unwrap_or_default()
    }

    /// Appends a copy of `bytes`.
    pub fn push_bytes(&mut self, route: Route, bytes: &[u8]) {
        self.push(route, bytes.len(), None).copy_from_slice(bytes);
    }

    /// Whether one more would not fit into a system call, or into an arena of reasonable size.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.envelopes.len() >= BATCH_MAX || self.used() >= ARENA_MAX
    }

    /// Datagrams that the kernel did not take, since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Sends everything, in order. A full socket buffer is waited for. A datagram that the kernel
    /// refuses is counted and skipped: what becomes of the ones behind it must not depend on it.
    ///
    /// # Errors
    /// What `poll` reports while waiting for room.
    pub fn flush(&mut self, sockets: &[UdpSocket]) -> io::Result<()> {
        let mut rest = self.envelopes.as_slice();
        let mut start = 0;
        while let Some(first) = rest.first() {
            let run = rest
                .iter()
                .take(BATCH_MAX)
                .take_while(|e| e.route.socket == first.route.socket)
                .count();
            let Some(socket) = sockets.get(first.route.socket) else {
                return Err(io::Error::other("a route names a socket that does not exist"));
            };
            let (now, _) = rest.split_at(run);
            let done = match send(socket, now, &self.arena, start) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    clock::wait_until(
                        &mut [PollFd::new(socket, PollFlags::OUT)],
                        clock::now() + SECOND,
                    )?;
                    0
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                // The error belongs to the first datagram of the run, or is an ICMP message about
                // an earlier one.
                Err(_) => {
                    self.refused += first.datagrams(start);
                    1
                }
            };
            if let Some(last) = done.checked_sub(1).and_then(|index| rest.get(index)) {
                start = last.end;
            }
            rest = rest.get(done..).unwrap_or_default();
        }
        self.envelopes.clear();
        Ok(())
    }

    fn used(&self) -> usize {
        self.envelopes.last().map_or(0, |last| last.end)
    }
}

/// One `sendmmsg`. `start` is where the first envelope's bytes begin. Returns how many messages the
/// kernel took.
fn send(
    socket: &UdpSocket,
    envelopes: &[Envelope],
    arena: &[u8],
    mut start: usize,
) -> io::Result<usize> {
    let mut names = [Name([0; NAME_LEN]); BATCH_MAX];
    let mut controls = [Control::default(); BATCH_MAX];
    let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH_MAX];
    let mut headers = [EMPTY_MESSAGE; BATCH_MAX];
    let places = names.iter_mut().zip(&mut controls).zip(&mut vectors).zip(&mut headers);
    for (envelope, (((name, control), vector), header)) in envelopes.iter().zip(places) {
        let bytes = arena.get(start..envelope.end).unwrap_or_default();
        start = envelope.end;
        let name_len = name.write(envelope.route.to);
        let control_len = control.write(envelope.route.from, envelope.segment);
        // The kernel only reads what a send's iovec points to; the API lacks the const.
        *vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        header.msg_hdr = libc::msghdr {
            msg_name: ptr::from_mut(name).cast(),
            msg_namelen: name_len,
            msg_iov: vector,
            msg_iovlen: 1,
            msg_control: if control_len == 0 {
                ptr::null_mut()
            } else {
                ptr::from_mut(control).cast()
            },
            msg_controllen: control_len,
            msg_flags: 0,
        };
    }
    let count = u32::try_from(envelopes.len().min(BATCH_MAX)).unwrap_or(0);
    // SAFETY: the first `count` headers were filled above and point to names, controls and vectors
    // that live in this frame and to bytes of `arena`, which is borrowed for the whole call.
    let sent = unsafe {
        libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Room for one `recvmmsg`, and what the last one brought.
#[derive(Debug)]
pub struct ReceiveBatch {
    buffers: Vec<u8>,
    buffer_len: usize,
    received: Vec<Received>,
}

#[derive(Clone, Copy, Debug)]
struct Received {
    source: SocketAddr,
    length: usize,
    segment: Option<usize>,
    stamp_ns: Option<u64>,
    destination: Option<Ipv4Addr>,
}

impl Received {
    const EMPTY: Self = Self {
        source: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
        length: 0,
        segment: None,
        stamp_ns: None,
        destination: None,
    };
}

/// One datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub source: SocketAddr,
    /// When the kernel got it, by the wall clock; only with [`SocketOptions::timestamps`].
    pub stamp_ns: Option<u64>,
    /// The address that it was sent to; only with [`SocketOptions::destinations`].
    pub destination: Option<Ipv4Addr>,
    /// The UDP payload.
    pub bytes: &'a [u8],
}

impl ReceiveBatch {
    /// Buffers for datagrams, or for coalesced trains of up to 64 KiB.
    #[must_use]
    pub fn new(trains: bool) -> Self {
        let buffer_len = if trains { 1 << 16 } else { 1 << 11 };
        Self {
            buffers: vec![0; buffer_len * BATCH_MAX],
            buffer_len,
            received: Vec::with_capacity(BATCH_MAX),
        }
    }

    /// Takes up to [`BATCH_MAX`] messages without waiting. Returns how many; 0 when there are none.
    /// An error that an earlier send caused (an ICMP message) counts as none.
    ///
    /// # Errors
    /// What `recvmmsg` reports otherwise.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.received.clear();
        let mut names = [Name([0; NAME_LEN]); BATCH_MAX];
        let mut controls = [Control::default(); BATCH_MAX];
        let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH_MAX];
        let mut headers = [EMPTY_MESSAGE; BATCH_MAX];
        let buffers = self.buffers.chunks_exact_mut(self.buffer_len);
        let places = names.iter_mut().zip(&mut controls).zip(&mut vectors).zip(&mut headers);
        for (buffer, (((name, control), vector), header)) in buffers.zip(places) {
            *vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            header.msg_hdr = libc::msghdr {
                msg_name: ptr::from_mut(name).cast(),
                msg_namelen: NAME_LEN as u32,
                msg_iov: vector,
                msg_iovlen: 1,
                msg_control: ptr::from_mut(control).cast(),
                msg_controllen: size_of::<Control>(),
                msg_flags: 0,
            };
        }
        // SAFETY: all BATCH_MAX headers were filled above (`new` makes BATCH_MAX buffers) and point
        // to names, controls and vectors that live in this frame and to `self.buffers`, which is
        // borrowed mutably for the whole call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH_MAX as u32,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            let is_harmless = matches!(
                error.kind(),
                io::ErrorKind::WouldBlock
                    | io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionRefused
            );
            return if is_harmless { Ok(0) } else { Err(error) };
        };
        for ((header, name), control) in headers.iter().zip(&names).zip(&controls).take(count) {
            let length = (header.msg_len as usize).min(self.buffer_len);
            let received = Received { source: name.read(), length, ..Received::EMPTY };
            self.received.push(control.read(header.msg_hdr.msg_controllen, received));
        }
        Ok(count)
    }

    /// The datagrams of the last receive in order, a train cut into its segments.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        self.received.iter().zip(self.buffers.chunks_exact(self.buffer_len)).flat_map(
            |(received, buffer)| {
                let bytes = buffer.get(..received.length).unwrap_or_default();
                let segment = received.segment.unwrap_or(usize::MAX).max(1);
                bytes.chunks(segment).map(|bytes| Datagram {
                    source: received.source,
                    stamp_ns: received.stamp_ns,
                    destination: received.destination,
                    bytes,
                })
            },
        )
    }
}

/// How a socket is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketOptions {
    /// Have the kernel stamp arrivals. Costs every receive on the machine some nanoseconds while
    /// any socket has it.
    pub timestamps: bool,
    /// Receive coalesced trains as such (`UDP_GRO`), which spares the sender their segmentation.
    pub trains: bool,
    /// Say of each datagram which of this machine's IPv4 addresses it was sent to (`IP_PKTINFO`), for
    /// a socket that plays many clients.
    pub destinations: bool,
}

/// Binds a non-blocking UDP socket with the largest buffers that this process may have.
///
/// # Errors
/// What binding reports; and, for options, what `setsockopt` reports.
pub fn bind(address: SocketAddr, options: SocketOptions) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    let reference = socket2::SockRef::from(&socket);
    // More than rmem_max needs CAP_NET_ADMIN; without it the kernel cuts the second request down to
    // rmem_max.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
        reference.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    reference.set_send_buffer_size(SEND_BUFFER)?;
    if options.timestamps {
        set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, true)?;
    }
    if options.trains {
        take_trains(&socket, true)?;
    }
    if options.destinations {
        set(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, true)?;
    }
    Ok(socket)
}

/// Switches `UDP_GRO`.
///
/// # Errors
/// The kernel is older than 5.0.
pub fn take_trains(socket: &UdpSocket, on: bool) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, on)
}

fn set(socket: &UdpSocket, level: libc::c_int, option: libc::c_int, on: bool) -> io::Result<()> {
    let value = libc::c_int::from(on);
    // SAFETY: the value is an integer of this frame and its size is passed along.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A `sockaddr_in` or `sockaddr_in6`.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Name([u8; NAME_LEN]);

impl Name {
    /// Returns the length of what it wrote.
    fn write(&mut self, address: SocketAddr) -> libc::socklen_t {
        let mut bytes = Appender::new(&mut self.0);
        match address {
            SocketAddr::V4(v4) => {
                bytes.put(&(libc::AF_INET as u16).to_ne_bytes());
                bytes.put(&v4.port().to_be_bytes());
                bytes.put(&v4.ip().octets());
                16
            }
            SocketAddr::V6(v6) => {
                bytes.put(&(libc::AF_INET6 as u16).to_ne_bytes());
                bytes.put(&v6.port().to_be_bytes());
                bytes.put(&v6.flowinfo().to_ne_bytes());
                bytes.put(&v6.ip().octets());
                bytes.put(&v6.scope_id().to_ne_bytes());
                NAME_LEN as u32
            }
        }
    }

    fn read(&self) -> SocketAddr {
        let [f0, f1, p0, p1, rest @ ..] = self.0;
        let port = u16::from_be_bytes([p0, p1]);
        if i32::from(u16::from_ne_bytes([f0, f1])) == libc::AF_INET6 {
            let [_, _, _, _, address @ .., s0, s1, s2, s3] = rest;
            let scope = u32::from_ne_bytes([s0, s1, s2, s3]);
            return SocketAddrV6::new(Ipv6Addr::from(address), port, 0, scope).into();
        }
        let [a, b, c, d, ..] = rest;
        SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port).into()
    }
}

/// Appends to a fixed array; what does not fit is left out, which the sizes below rule out.
struct Appender<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Appender<'a> {
    fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn put(&mut self, value: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.at..self.at + value.len()) {
            place.copy_from_slice(value);
            self.at += value.len();
        }
    }
}

/// Control messages as 64-bit words: every `cmsghdr` starts on one (`CMSG_ALIGN`).
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Control([u64; CONTROL_WORDS]);

impl Control {
    /// Returns the length of what it wrote.
    fn write(&mut self, from: Option<Ipv4Addr>, segment: Option<u16>) -> usize {
        let mut words = self.0.iter_mut();
        let mut length = 0;
        let mut put = |values: &[u64]| {
            // The values come first: `zip` asks its first side once more than its second.
            for (value, word) in values.iter().zip(words.by_ref()) {
                *word = *value;
                length += 8;
            }
        };
        if let Some(from) = from {
            // struct in_pktinfo: interface (any), the source to use, and a field that only receives
            // fill.
            let [first, second] = [[0; 4], from.octets()];
            put(&[HEADER_WORDS_LEN + 12, level_and_type(libc::IPPROTO_IP, libc::IP_PKTINFO)]);
            put(&[join(first, second), 0]);
        }
        if let Some(segment) = segment {
            let [low, high] = segment.to_ne_bytes();
            put(&[HEADER_WORDS_LEN + 2, level_and_type(libc::SOL_UDP, libc::UDP_SEGMENT)]);
            put(&[join([low, high, 0, 0], [0; 4])]);
        }
        length
    }

    /// Adds segment size, arrival stamp and destination, where the kernel gave them.
    fn read(&self, length: usize, mut received: Received) -> Received {
        let mut words = self.0.get(..(length / 8).min(CONTROL_WORDS)).unwrap_or_default();
        while let [size, kind, rest @ ..] = words {
            let content = usize::try_from(*size).unwrap_or(0).saturating_sub(16);
            match rest {
                [value, ..] if *kind == level_and_type(libc::SOL_UDP, libc::UDP_GRO) => {
                    let [a, b, c, d, ..] = value.to_ne_bytes();
                    received.segment = usize::try_from(i32::from_ne_bytes([a, b, c, d])).ok();
                }
                [seconds, nanoseconds, ..]
                    if *kind == level_and_type(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) =>
                {
                    let stamp_ns = seconds.wrapping_mul(SECOND).wrapping_add(*nanoseconds);
                    received.stamp_ns = Some(stamp_ns);
                }
                // struct in_pktinfo: interface, local address, and the one in the IP header.
                [_, address, ..] if *kind == level_and_type(libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let [a, b, c, d, ..] = address.to_ne_bytes();
                    received.destination = Some(Ipv4Addr::new(a, b, c, d));
                }
                _ => {}
            }
            words = rest.get(content.div_ceil(8)..).unwrap_or_default();
        }
        received
    }
}

/// The second word of a `cmsghdr`.
const fn level_and_type(level: libc::c_int, kind: libc::c_int) -> u64 {
    join(level.to_ne_bytes(), kind.to_ne_bytes())
}

const fn join([a, b, c, d]: [u8; 4], [e, f, g, h]: [u8; 4]) -> u64 {
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// Bytes of a `cmsghdr` on a 64-bit machine.
const HEADER_WORDS_LEN: u64 = 16;
/// `sizeof(struct sockaddr_in6)`.
const NAME_LEN: usize = 28;
/// The largest use is a receive with a time stamp (4 words), a destination (4) and a segment size (3).
const CONTROL_WORDS: usize = 12;
/// One batch of trains of 32 packets is 64 x 42,624 bytes.
const ARENA_MAX: usize = 4 << 20;
/// A second of 20,000 packets/s with the kernel's accounting of about 2.3 KiB each.
const RECEIVE_BUFFER: usize = 64 << 20;
const SEND_BUFFER: usize = 4 << 20;
const EMPTY_MESSAGE: libc::mmsghdr = libc::mmsghdr {
    msg_hdr: libc::msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    },
    msg_len: 0,
};
const _: () = assert!(size_of::<usize>() == 8, "control messages are laid out for 64-bit machines");

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// Receives until `wanted` datagrams have come, or for a second.
    fn collect(
        socket: &UdpSocket,
        batch: &mut ReceiveBatch,
        wanted: usize,
    ) -> Vec<(SocketAddr, Vec<u8>, bool)> {
        let mut all = Vec::new();
        let deadline = clock::now() + SECOND;
        while all.len() < wanted && clock::now() < deadline {
            clock::wait_until(&mut [PollFd::new(socket, PollFlags::IN)], deadline).unwrap();
            batch.receive(socket).unwrap();
            all.extend(
                batch.datagrams().map(|d| (d.source, d.bytes.to_vec(), d.stamp_ns.is_some())),
            );
        }
        all
    }

    #[test]
    fn datagrams_arrive_in_order_from_the_source_they_were_given() {
        let sink = bind(LOOPBACK, SocketOptions::default()).unwrap();
        let sender = bind(ANY, SocketOptions::default()).unwrap();
        let mut batch = SendBatch::default();
        for number in 1..=3 {
            let from = Some(Ipv4Addr::new(127, 0, 5, number));
            batch.push_bytes(Route { socket: 0, to: sink.local_addr().unwrap(), from }, &[number]);
        }
        batch.flush(&[sender]).unwrap();
        let received = collect(&sink, &mut ReceiveBatch::new(false), 3);
        let seen: Vec<_> =
            received.iter().map(|(source, bytes, _)| (source.ip().to_string(), bytes[0])).collect();
        assert_eq!(
            seen,
            [("127.0.5.1".to_owned(), 1), ("127.0.5.2".to_owned(), 2), ("127.0.5.3".to_owned(), 3)]
        );
    }

    #[test]
    fn a_train_is_cut_into_its_segments_again() {
        let sink = bind(
            LOOPBACK,
            SocketOptions { trains: true, timestamps: true, ..SocketOptions::default() },
        )
        .unwrap();
        let sender = bind(LOOPBACK, SocketOptions::default()).unwrap();
        let mut batch = SendBatch::default();
        let route = Route { socket: 0, to: sink.local_addr().unwrap(), from: None };
        batch.push(route, 250, Some(100)).fill(7);
        batch.flush(&[sender]).unwrap();
        let received = collect(&sink, &mut ReceiveBatch::new(true), 3);
        let lengths: Vec<_> = received.iter().map(|(_, bytes, _)| bytes.len()).collect();
        assert_eq!(lengths, [100, 100, 50]);
    }

    #[test]
    fn the_kernel_stamps_arrivals_when_asked() {
        let sink =
            bind(LOOPBACK, SocketOptions { timestamps: true, ..SocketOptions::default() }).unwrap();
        let sender = bind(LOOPBACK, SocketOptions::default()).unwrap();
        let mut batch = SendBatch::default();
        batch.push_bytes(Route { socket: 0, to: sink.local_addr().unwrap(), from: None }, b"x");
        batch.flush(&[sender]).unwrap();
        let received = collect(&sink, &mut ReceiveBatch::new(false), 1);
        assert!(matches!(received.as_slice(), [(_, _, true)]));
    }

    #[test]
    fn a_socket_that_plays_many_clients_learns_which_one_was_meant() {
        let options =
            SocketOptions { timestamps: true, destinations: true, ..SocketOptions::default() };
        let sink = bind(ANY, options).unwrap();
        let sender = bind(LOOPBACK, SocketOptions::default()).unwrap();
        let address = Ipv4Addr::new(127, 1, 2, 3);
        let to = SocketAddr::from((address, sink.local_addr().unwrap().port()));
        sender.send_to(b"x", to).unwrap();
        let mut batch = ReceiveBatch::new(false);
        let deadline = clock::now() + SECOND;
        clock::wait_until(&mut [PollFd::new(&sink, PollFlags::IN)], deadline).unwrap();
        batch.receive(&sink).unwrap();
        let seen: Vec<_> =
            batch.datagrams().map(|d| (d.destination, d.stamp_ns.is_some())).collect();
        assert_eq!(seen, [(Some(address), true)]);
    }

    #[test]
    fn a_refused_datagram_is_counted_and_the_next_one_leaves() {
        let sink = bind(LOOPBACK, SocketOptions::default()).unwrap();
        let sender = bind(LOOPBACK, SocketOptions::default()).unwrap();
        let mut batch = SendBatch::default();
        let route = Route { socket: 0, to: sink.local_addr().unwrap(), from: None };
        batch.push(route, 66_000, None).fill(0);
        batch.push_bytes(route, b"next");
        batch.flush(&[sender]).unwrap();
        let received = collect(&sink, &mut ReceiveBatch::new(false), 1);
        assert_eq!(batch.refused(), 1);
        assert_eq!(received[0].1, b"next");
    }

    #[test]
    fn a_refused_train_counts_as_all_that_it_carries() {
        let sink = bind(LOOPBACK, SocketOptions::default()).unwrap();
        let sender = bind(LOOPBACK, SocketOptions::default()).unwrap();
        let mut batch = SendBatch::default();
        let route = Route { socket: 0, to: sink.local_addr().unwrap(), from: None };
        batch.push_bytes(route, b"before");
        batch.push(route, 66_000, Some(1_000)).fill(0);
        batch.flush(&[sender]).unwrap();
        assert_eq!(batch.refused(), 66);
    }

    #[test]
    fn addresses_survive_the_kernel_layout() {
        for address in ["127.0.0.1:9", "[2001:db8::7]:54321"] {
            let address: SocketAddr = address.parse().unwrap();
            let mut name = Name([0; NAME_LEN]);
            name.write(address);
            assert_eq!(name.read(), address);
        }
    }
}
