//! Builds rings, and finds out whether this kernel has what the engine needs.
#![allow(unsafe_code, reason = "a ring takes pointers")]

use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode};

use super::bufring::BufRing;
use crate::engine::EngineError;
use crate::engine::send::empty_header;

/// The group of the receive buffers; there is one in a ring.
pub(super) const BUFFER_GROUP: u16 = 0;

/// What the rings of this kernel have beyond what the engine cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Abilities {
    /// `DEFER_TASKRUN`. Without it an evenly loaded relay needs nearly twice the CPU.
    pub(in crate::engine) defers: bool,
    /// `min_wait_usec`: a sleep can wait for several completions within a window.
    pub(in crate::engine) gathers: bool,
}

/// Makes a ring with the flags that this kernel has.
///
/// Queues have lengths that are powers of two; that of completions is at least as long as the other.
pub(super) fn build(submissions: u32, completions: u32) -> Result<IoUring, EngineError> {
    build_best(submissions, completions).map(|(ring, _)| ring)
}

fn build_best(submissions: u32, completions: u32) -> Result<(IoUring, Flags), EngineError> {
    let mut error = None;
    for flags in [Flags::Linux6_6, Flags::Linux6_1, Flags::Linux6_0] {
        match builder(flags, completions).build(submissions) {
            Ok(ring) => return Ok((ring, flags)),
            // EINVAL: a flag that this kernel does not know. The next attempt does without.
            Err(refusal) if refusal.raw_os_error() == Some(libc::EINVAL) => error = Some(refusal),
            Err(refusal) => return Err(refused(refusal)),
        }
    }
    Err(refused(error.unwrap_or_else(|| io::ErrorKind::Unsupported.into())))
}

/// Which kernel brought the newest flag of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flags {
    /// `NO_SQARRAY`: one indirection less.
    Linux6_6,
    /// `DEFER_TASKRUN`: receives are taken in when the thread asks and not in between.
    Linux6_1,
    /// `SINGLE_ISSUER`. `COOP_TASKRUN` takes in receives at the next system call.
    Linux6_0,
}

fn builder(flags: Flags, completions: u32) -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder.setup_submit_all().setup_single_issuer().setup_coop_taskrun();
    builder.setup_cqsize(completions).setup_clamp();
    match flags {
        Flags::Linux6_6 => builder.setup_defer_taskrun().setup_no_sqarray(),
        Flags::Linux6_1 => builder.setup_defer_taskrun(),
        Flags::Linux6_0 => &mut builder,
    };
    builder
}

/// Checks that the engine can run here, by running its essence once: a multishot receive into a
/// buffer ring. Says what else there is.
///
/// # Errors
/// What is missing, and what to do about it.
pub(in crate::engine) fn probe() -> Result<Abilities, EngineError> {
    let buffers = BufRing::new(4, 64).map_err(EngineError::Buffers)?;
    let (ring, flags) = build_best(8, 8)?;
    let abilities = Abilities {
        defers: flags != Flags::Linux6_0,
        gathers: ring.params().is_feature_min_timeout(),
    };
    let mut opcodes = Probe::new();
    ring.submitter().register_probe(&mut opcodes).map_err(EngineError::Ring)?;
    // Multishot receives with control messages came with zero-copy sends, which have an opcode to
    // ask for.
    if !opcodes.is_supported(opcode::SendZc::CODE) {
        return Err(EngineError::KernelTooOld);
    }
    // SAFETY: `ring` is declared after `buffers` and so is closed before they are unmapped.
    let registered = unsafe { buffers.register(&ring.submitter(), BUFFER_GROUP) };
    registered.map_err(|_| EngineError::KernelTooOld)?;
    receive_twice(ring, &buffers)?;
    Ok(abilities)
}

/// Two datagrams through one multishot receive.
fn receive_twice(mut ring: IoUring, buffers: &BufRing) -> Result<(), EngineError> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(EngineError::Ring)?;
    let address = socket.local_addr().map_err(EngineError::Ring)?;
    for _ in 0..2 {
        socket.send_to(b"ringway", address).map_err(EngineError::Ring)?;
    }
    let header = empty_header();
    let receive =
        opcode::RecvMsgMulti::new(Fd(socket.as_raw_fd()), &raw const header, BUFFER_GROUP).build();
    // SAFETY: the header lives until the function returns, the ring is consumed by the function.
    unsafe { ring.submission().push(&receive) }.map_err(|_| EngineError::KernelTooOld)?;
    let patience = Timespec::new().sec(1);
    let args = SubmitArgs::new().timespec(&patience);
    match ring.submitter().submit_with_args(2, &args) {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::ETIME) => {}
        Err(error) => return Err(refused(error)),
    }
    let received: Vec<_> = ring
        .completion()
        .filter_map(|completion| {
            let id = cqueue::buffer_select(completion.flags())?;
            let len = usize::try_from(completion.result()).ok()?;
            // SAFETY: the completion has just named the buffer.
            Some(unsafe { buffers.take(id, len) })
        })
        .collect();
    let are_right = received.iter().all(|buffer| buffer.bytes().ends_with(b"ringway"));
    if received.len() == 2 && are_right { Ok(()) } else { Err(EngineError::KernelTooOld) }
}

/// The likely cause of a refused ring, and what to do about it.
pub(in crate::engine) fn refused(error: io::Error) -> EngineError {
    let disabled = fs::read_to_string(DISABLED_SYSCTL).unwrap_or_default();
    diagnosis(error, disabled.trim())
}

fn diagnosis(error: io::Error, disabled: &str) -> EngineError {
    match error.raw_os_error() {
        Some(libc::EPERM) if disabled == "1" || disabled == "2" => EngineError::Disabled,
        // Seccomp filters answer either way; a kernel without io_uring answers ENOSYS.
        Some(libc::EPERM | libc::EACCES) => EngineError::Forbidden,
        Some(libc::ENOSYS) => EngineError::Missing,
        Some(libc::EINVAL) => EngineError::KernelTooOld,
        _ => EngineError::Ring(error),
    }
}

/// 0: for everybody; 1: for one group; 2: for nobody. Since Linux 6.6.
const DISABLED_SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnosed(errno: i32, disabled: &str) -> String {
        diagnosis(io::Error::from_raw_os_error(errno), disabled).to_string()
    }

    #[test]
    fn a_refused_ring_names_its_cause_and_the_remedy() {
        for (errno, disabled, words) in [
            (libc::EPERM, "2", "kernel.io_uring_disabled=0"),
            (libc::EPERM, "1", "kernel.io_uring_disabled=0"),
            (libc::EPERM, "0", "seccomp"),
            (libc::EPERM, "", "seccomp"),
            (libc::ENOSYS, "", "seccomp"),
            (libc::EINVAL, "0", "Linux 6.0"),
        ] {
            let text = diagnosed(errno, disabled);
            assert!(text.contains(words), "errno {errno}, sysctl {disabled:?}: {text}");
            assert!(text.contains("--engine mmsg"), "{text}");
        }
    }
}
