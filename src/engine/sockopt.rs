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
    Ok(info.get(libc::SK_MEMINFO_DROPS as usize).copied().unwrap_or_default())
}

/// Makes the kernel choose a socket of the group by the CPU that took the packet. Since Linux 4.5.
///
/// Position `n` of `cpus` names the CPU of socket `n`, in the order in which the sockets were
/// bound. A packet that another CPU took goes where the hash sends it. The program belongs to the
/// whole group.
pub(super) fn steer_by_cpu(socket: impl AsFd, cpus: &[usize]) -> io::Result<()> {
    let mut program = steering_program(cpus);
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_mut_ptr(),
    };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &filter)
}

/// Load the CPU; for each shard: is it this one? then its position; else a position that no socket
/// has.
fn steering_program(cpus: &[usize]) -> Vec<libc::sock_filter> {
    let load_cpu = (libc::SKF_AD_OFF + libc::SKF_AD_CPU) as u32;
    let mut program = vec![instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, load_cpu)];
    for (position, cpu) in cpus.iter().enumerate() {
        program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, *cpu as u32));
        program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, position as u32));
    }
    program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, u32::MAX));
    program
}

/// `skip`: instructions that a false comparison jumps over.
fn instruction(code: u32, skip: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: skip, k }
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

    #[test]
    fn the_steering_program_answers_with_the_position_of_the_cpu() {
        let program = steering_program(&[4, 9]);
        let summary: Vec<_> = program.iter().map(|i| (i.jf, i.k)).collect();
        assert_eq!(summary[1..], [(1, 4), (0, 0), (1, 9), (0, 1), (0, u32::MAX)]);
    }
}
