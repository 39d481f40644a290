//! Finds out by trying whether segmentation and coalescing work here.
//!
//! Kernel versions do not tell: some cut trains with equal tails wrongly, and containers filter
//! socket options. So trains are sent over loopback, and every byte is compared.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::EngineError;
use super::cmsg::Ancillary;
use super::mmsg::{Pool, RECEIVES_MAX};
use super::send::send_train;
use super::sockopt::{coalesce_receives, set_segment};
use crate::config::Offload;

/// What the kernel does to whole trains of datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// A send may be cut into datagrams (`UDP_SEGMENT`).
    pub gso: bool,
    /// A receive may bring several datagrams (`UDP_GRO`).
    pub gro: bool,
}

impl Offloads {
    /// Tries both, as far as they are wanted.
    ///
    /// # Errors
    /// [`EngineError::Offload`] when one is demanded and does not work.
    pub fn probe(gso: Offload, gro: Offload) -> Result<Self, EngineError> {
        Ok(Self { gso: wanted("gso", gso, segments)?, gro: wanted("gro", gro, coalesces)? })
    }
}

fn wanted(
    name: &'static str,
    choice: Offload,
    works: impl FnOnce() -> io::Result<()>,
) -> Result<bool, EngineError> {
    match choice {
        Offload::Off => Ok(false),
        Offload::Auto => Ok(works().is_ok()),
        Offload::On => match works() {
            Ok(()) => Ok(true),
            Err(source) => Err(EngineError::Offload { name, source }),
        },
    }
}

/// Trains leave as the datagrams they are made of.
fn segments() -> io::Result<()> {
    let (sender, receiver) = pair()?;
    set_segment(&sender, 0)?;
    for train in trains() {
        send_train(sender.as_fd(), &train, SEGMENT as u16).map_err(io::Error::from_raw_os_error)?;
        for expected in train.chunks(SEGMENT) {
            let mut room = [0; 2 * SEGMENT];
            await_datagram(&receiver)?;
            let len = receiver.recv(&mut room)?;
            same(room.get(..len).unwrap_or_default(), expected)?;
        }
    }
    Ok(())
}

/// Trains arrive with their segment size, in one piece or several.
fn coalesces() -> io::Result<()> {
    let (sender, receiver) = pair()?;
    coalesce_receives(&receiver)?;
    let mut pool = Pool::new(RECEIVES_MAX, SEGMENTS * SEGMENT)?;
    for train in trains() {
        if send_train(sender.as_fd(), &train, SEGMENT as u16).is_err() {
            // The kernel knows the option, and nothing here can send a train to try it with.
            return Ok(());
        }
        let mut expected = train.chunks(SEGMENT);
        while expected.len() > 0 {
            await_datagram(&receiver)?;
            let slots = pool
                .receive(receiver.as_raw_fd(), RECEIVES_MAX)
                .map_err(io::Error::from_raw_os_error)?;
            for received in slots.map(|slot| pool.received(slot)) {
                let segment = Ancillary::parse(received.control).segment;
                let segment = segment.unwrap_or(received.payload.len()).max(1);
                for datagram in received.payload.chunks(segment) {
                    same(datagram, expected.next().unwrap_or_default())?;
                }
            }
        }
    }
    Ok(())
}

/// Two connected sockets that do not wait.
fn pair() -> io::Result<(UdpSocket, UdpSocket)> {
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    sender.connect(receiver.local_addr()?)?;
    receiver.connect(sender.local_addr()?)?;
    receiver.set_nonblocking(true)?;
    Ok((sender, receiver))
}

/// One with a shorter last datagram, and one with an equal one: some kernels cut only one of them
/// right.
fn trains() -> [Vec<u8>; 2] {
    let bytes = |len| (0..len).map(|i: usize| (i * 31 % 251) as u8).collect();
    [bytes(SEGMENTS * SEGMENT - SEGMENT / 3), bytes(SEGMENTS * SEGMENT)]
}

fn await_datagram(socket: &UdpSocket) -> io::Result<()> {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(PATIENCE.subsec_nanos()) };
    match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout))? {
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, "a datagram of a train did not arrive")),
        _ => Ok(()),
    }
}

fn same(received: &[u8], sent: &[u8]) -> io::Result<()> {
    if received == sent {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "a train arrived other than it was sent"))
    }
}

/// Loopback delivers while it sends; this is for a host that is busy.
const PATIENCE: Duration = Duration::from_millis(200);

const SEGMENT: usize = 1200;
const SEGMENTS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_off_is_not_tried() {
        let result = wanted("gso", Offload::Off, || unreachable!("not wanted"));
        assert!(!result.unwrap());
    }

    #[test]
    fn what_does_not_work_is_left_out_unless_it_is_demanded() {
        let broken = || Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT));
        assert!(!wanted("gro", Offload::Auto, broken).unwrap());
        let error = wanted("gro", Offload::On, broken).unwrap_err().to_string();
        assert!(error.contains("--gro auto"), "{error}");
    }

    #[test]
    fn the_probe_agrees_with_what_the_kernel_says() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let offloads = Offloads::probe(Offload::Auto, Offload::Auto).unwrap();
        assert!(!offloads.gso || set_segment(&socket, 1200).is_ok());
        assert!(!offloads.gro || coalesce_receives(&socket).is_ok());
    }

    #[test]
    fn bytes_that_changed_on_the_way_are_noticed() {
        assert!(same(b"abc", b"abd").is_err());
        assert!(same(b"ab", b"abc").is_err());
    }
}
