//! What the kernel says about CPU time, and what this machine is.
//!
//! `/proc/<pid>/task/<tid>/schedstat` holds nanoseconds on the CPU and nanoseconds spent waiting
//! for it (run delay). A measurement is only worth something while the run delay is small: on a
//! kernel that does not preempt system calls, time that another woken task takes on the same CPU is
//! billed to the wrong one.
#![allow(unsafe_code, reason = "getsockopt takes a raw pointer; nothing else here is unsafe")]

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A thread of this or another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ThreadId {
    /// Process ID.
    pub pid: i32,
    /// Thread ID.
    pub tid: i32,
}

/// What a thread has used so far, or between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CpuTime {
    /// On the CPU.
    pub cpu_ns: u64,
    /// Runnable, but not on the CPU.
    pub run_delay_ns: u64,
}

impl CpuTime {
    /// Reads a thread's account.
    ///
    /// # Errors
    /// The thread has ended, or the kernel keeps no `schedstat` (`CONFIG_SCHED_INFO`).
    pub fn of(thread: ThreadId) -> io::Result<Self> {
        let path = format!("/proc/{}/task/{}/schedstat", thread.pid, thread.tid);
        Self::parse(&fs::read_to_string(path)?).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "schedstat does not start with two numbers")
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        let cpu_ns = numbers.next()?.ok()?;
        let run_delay_ns = numbers.next()?.ok()?;
        Some(Self { cpu_ns, run_delay_ns })
    }

    /// What was used since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            run_delay_ns: self.run_delay_ns.saturating_sub(before.run_delay_ns),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns + other.cpu_ns,
            run_delay_ns: self.run_delay_ns + other.run_delay_ns,
        }
    }

    /// Run delay as a share of the CPU time.
    #[must_use]
    pub fn delay_share(self) -> f64 {
        self.run_delay_ns as f64 / self.cpu_ns.max(1) as f64
    }
}

/// The calling thread.
#[must_use]
pub fn this_thread() -> ThreadId {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    ThreadId { pid, tid: rustix::thread::gettid().as_raw_nonzero().get() }
}

/// Whether the thread sleeps: everything it was given has been done. `None` when it has ended.
#[must_use]
pub fn is_asleep(thread: ThreadId) -> Option<bool> {
    let stat = fs::read_to_string(format!("/proc/{}/task/{}/stat", thread.pid, thread.tid)).ok()?;
    // The name, in parentheses, may hold anything; the state is the first field behind it.
    let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
    Some(matches!(state, 'S' | 'D'))
}

/// A thread of a process, with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Which.
    pub id: ThreadId,
    /// As `comm` has it, at most 15 bytes.
    pub name: String,
}

impl Thread {
    /// Whether it is a worker of `io_uring`, which the kernel starts inside the process to do what
    /// would block the thread that asked.
    #[must_use]
    pub fn works_for_kernel(&self) -> bool {
        self.name.starts_with("iou-wrk-") || self.name.starts_with("iou-sqp-")
    }
}

/// The threads of a process; none when it has ended.
#[must_use]
pub fn threads(pid: i32) -> Vec<Thread> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let thread = |entry: fs::DirEntry| {
        let tid = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some(Thread { id: ThreadId { pid, tid }, name: name.trim_end().to_owned() })
    };
    tasks.flatten().filter_map(thread).collect()
}

/// The CPUs that a thread may use; none when it has ended.
#[must_use]
pub fn cpus_of(thread: ThreadId) -> Vec<usize> {
    let set = rustix::process::Pid::from_raw(thread.tid)
        .and_then(|tid| sched_getaffinity(Some(tid)).ok());
    set.map_or_else(Vec::new, |set| (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// Memory of a process that is in use, in bytes.
///
/// # Errors
/// It has ended, or its memory is nobody's business.
pub fn resident_bytes(pid: i32) -> io::Result<u64> {
    // Exact, where /proc/<pid>/statm may be some pages per CPU behind.
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    resident_in(&rollup)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "smaps_rollup has no Rss line"))
}

fn resident_in(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Raises the number of descriptors that this process may have as far as it may, and says how far.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        // The rest of the process finds out when it runs out of them, which is an error then.
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// The thread that does softirq work of `cpu` when there is too much of it to do inline: its time
/// belongs to whoever sends and receives there. `None` where it cannot be seen (a container).
#[must_use]
pub fn ksoftirqd(cpu: usize) -> Option<ThreadId> {
    let name = format!("ksoftirqd/{cpu}\n");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let is_it = fs::read_to_string(entry.path().join("comm")).ok()? == name;
        is_it.then_some(ThreadId { pid, tid: pid })
    })
}

/// The CPUs that the calling thread may use, in order.
#[must_use]
pub fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Binds the calling thread, and the threads and processes it starts later, to `cpus`.
///
/// # Errors
/// None of them is there, or a cpuset forbids them.
pub fn pin(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Datagrams dropped because the receive queue of a local UDP port was full, since its sockets were
/// opened.
#[must_use]
pub fn receive_drops(port: u16) -> u64 {
    ["/proc/self/net/udp", "/proc/self/net/udp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .map(|table| drops_in(&table, port))
        .sum()
}

fn drops_in(table: &str, port: u16) -> u64 {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter(|line| {
            line.split_ascii_whitespace().nth(1).is_some_and(|local| local.ends_with(&suffix))
        })
        .filter_map(|line| line.split_ascii_whitespace().next_back()?.parse::<u64>().ok())
        .sum()
}

/// Datagrams dropped because the receive queue of this socket was full.
///
/// # Errors
/// The kernel is older than 4.12, which has no `SO_MEMINFO`.
pub fn drops_of(socket: &UdpSocket) -> io::Result<u64> {
    let mut values = [0_u32; SK_MEMINFO_DROPS + 1];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the array lives in this frame and its size is passed along; the kernel writes no more
    // than that, and any bytes are a u32.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let [.., drops] = values;
    if result == 0 { Ok(u64::from(drops)) } else { Err(io::Error::last_os_error()) }
}

/// Its position in what `SO_MEMINFO` gives (linux/sock_diag.h).
const SK_MEMINFO_DROPS: usize = 8;

/// Packets that the kernel dropped between a send and a receive queue, on all CPUs since the
/// machine started: its backlog (`net.core.netdev_max_backlog`) fills up when a busy CPU does not
/// get to its softirq work.
#[must_use]
pub fn backlog_drops() -> u64 {
    fs::read_to_string("/proc/net/softnet_stat").map_or(0, |table| backlog_drops_in(&table))
}

fn backlog_drops_in(table: &str) -> u64 {
    let dropped = table.lines().filter_map(|line| line.split_ascii_whitespace().nth(1));
    dropped.filter_map(|field| u64::from_str_radix(field, 16).ok()).sum()
}

/// What a figure needs beside it to mean anything.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Host {
    /// Of the machine.
    pub hostname: String,
    /// Release and version.
    pub kernel: String,
    /// As `/proc/cpuinfo` names it.
    pub cpu_model: String,
    /// CPUs this process may use.
    pub cpus: usize,
    /// Seconds since 1970 when the measurement started.
    pub unix_seconds: u64,
    /// As typed.
    pub command: String,
}

impl Host {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        let name = rustix::system::uname();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self {
            hostname: name.nodename().to_string_lossy().into_owned(),
            kernel: format!(
                "{} {}",
                name.release().to_string_lossy(),
                name.version().to_string_lossy()
            ),
            cpu_model: model.map_or("unknown", |(_, model)| model.trim()).to_owned(),
            cpus: allowed_cpus().len(),
            unix_seconds: since_epoch.as_secs(),
            command: command_line(),
        }
    }
}

/// As it was typed, the program by its name alone: where it lies on this machine helps nobody else.
fn command_line() -> String {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(program) = words.first_mut()
        && let Some(name) = std::path::Path::new(program.as_str()).file_name()
    {
        *program = name.to_string_lossy().into_owned();
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn schedstat_gives_cpu_time_and_run_delay() {
        assert_eq!(CpuTime::parse("12 34 5\n"), Some(CpuTime { cpu_ns: 12, run_delay_ns: 34 }));
        assert_eq!(CpuTime::parse("12"), None);
    }

    #[test]
    fn the_cpu_time_of_a_thread_grows_while_it_works() {
        let before = CpuTime::of(this_thread()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut after = before;
        while after.cpu_ns == before.cpu_ns && Instant::now() < deadline {
            after = CpuTime::of(this_thread()).unwrap();
        }
        assert!(after.cpu_ns > before.cpu_ns, "{} ns after 10 s of work", after.cpu_ns);
    }

    #[test]
    fn a_thread_that_reads_its_own_state_is_not_asleep() {
        assert_eq!(is_asleep(this_thread()), Some(false));
    }

    #[test]
    fn the_threads_of_this_process_have_names_and_cpus() {
        let this = this_thread();
        let threads = threads(this.pid);
        let found = threads.iter().find(|thread| thread.id == this);
        assert!(found.is_some_and(|thread| !thread.name.is_empty() && !thread.works_for_kernel()));
        assert_eq!(cpus_of(this), allowed_cpus());
    }

    #[test]
    fn resident_memory_is_in_kibibytes() {
        let rollup = "00400000-7fff ---p 0 00:00 0 [rollup]\nRss:       1200 kB\nPss: 900 kB\n";
        assert_eq!(resident_in(rollup), Some(1_228_800));
        assert!(resident_bytes(this_thread().pid).is_ok_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn a_socket_says_how_many_datagrams_did_not_fit() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&socket).set_recv_buffer_size(1).unwrap();
        let address = socket.local_addr().unwrap();
        assert_eq!(drops_of(&socket).unwrap(), 0);
        for _ in 0..100 {
            socket.send_to(&[0; 1_000], address).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        let received = (0..100).map_while(|_| socket.recv(&mut [0; 1_000]).ok()).count() as u64;
        assert_eq!(drops_of(&socket).unwrap(), 100 - received);
    }

    #[test]
    fn backlog_drops_are_the_sum_of_the_second_column() {
        assert_eq!(backlog_drops_in("000672d2 00000001 00\n00077fcf 0000000a 00\n"), 11);
    }

    #[test]
    fn drops_are_read_from_the_line_of_the_port() {
        let table = "  sl  local_address rem_address   st ... drops\n\
                     0: 0100007F:1F90 00000000:0000 07 0:0 00:0 0 0 0 1 2 0 7\n\
                     1: 0100007F:1F91 00000000:0000 07 0:0 00:0 0 0 0 1 2 0 9\n";
        assert_eq!(drops_in(table, 0x1F90), 7);
    }
}
