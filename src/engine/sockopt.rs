//! Socket options that neither std nor rustix know.
#![allow(unsafe_code, reason = "setsockopt and getsockopt take pointers")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The kernel hands trains of datagrams over in one piece, with their segment size beside it. Since
/// Linux 5.0.
pub(super) fn coalesce_receives(socket: impl AsFd) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, &1_i32)
}

/// Segment size of sends that do not name one; 0 turns segmentation off. Since Linux 4.18.
pub(super) fn set_segment(socket: impl AsFd, bytes: i32) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_SEGMENT, &bytes)
}

/// Every datagram comes with the IPv4 address it was sent to.
pub(super) fn tell_local_v4(socket: impl AsFd) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, &1_i32)
}

/// Every datagram comes with the address it was sent to, IPv4 in its mapped form.
pub(super) fn tell_local_v6(socket: impl AsFd) -> io::Result<()> {
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &1_i32)
}

/// Datagrams that the socket has dropped since it was opened, nearly always because its queue was
/// full; wraps.
pub(super) fn drops(socket: impl AsFd) -> io::Result<u32> {
    memory_info(socket, libc::SK_MEMINFO_DROPS)
}

/// Bytes that queued datagrams take in the kernel's books.
pub(super) fn queued_bytes(socket: impl AsFd) -> io::Result<u32> {
    memory_info(socket, libc::SK_MEMINFO_RMEM_ALLOC)
}

fn memory_info(socket: impl AsFd, field: i32) -> io::Result<u32> {
    let mut info = [0_u32; 16];
    let mut len = size_of_val(&info) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    let (level, name) = (libc::SOL_SOCKET, libc::SO_MEMINFO);
    // SAFETY: the kernel writes at most `len` bytes to `info`, which has as many.
    let result =
        unsafe { libc::getsockopt(fd, level, name, info.as_mut_ptr().cast(), &raw mut len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info.get(field as usize).copied().unwrap_or_default())
}

/// Gives the group that the socket belongs to a program that chooses a member for each datagram.
/// Since Linux 4.5.
pub(super) fn attach_group_program(
    socket: impl AsFd,
    program: &mut [libc::sock_filter],
) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_mut_ptr(),
    };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &filter)
}

fn set<T>(socket: impl AsFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, which is that large, and what a `sock_fprog`
    // points at lives in the caller's frame.
    let result =
        unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn datagrams_beyond_the_receive_queue_are_counted_as_drops() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&receiver, 4096).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..100 {
            sender.send_to(&[0; 1316], receiver.local_addr().unwrap()).unwrap();
        }
        assert!(drops(&receiver).unwrap() > 0);
    }
}
