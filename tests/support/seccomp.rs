//! A seccomp filter as container runtimes install it: everything is allowed but io_uring.
#![allow(unsafe_code, reason = "the filter is installed between fork and exec")]

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes `io_uring_setup` fail with `errno` in the program that `command` starts.
pub fn refuse_io_uring(command: &mut Command, errno: i32) {
    let install = move || {
        let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        let jump_if_equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        let answer = (libc::BPF_RET | libc::BPF_K) as u16;
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let mut filter = [
            // The system call's number is the first member of what the filter looks at.
            step(load, 0, 0, 0),
            step(jump_if_equal, 0, 1, libc::SYS_io_uring_setup as u32),
            step(answer, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
            step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: takes no pointers.
        let allowed = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        let mode = libc::SECCOMP_MODE_FILTER;
        // SAFETY: `program` and the filter it points to outlive the call.
        let installed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
        if allowed == 0 && installed == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(install) };
}
