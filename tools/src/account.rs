//! What a relay in another process has used: CPU time of the threads that relay, memory,
//! descriptors. All of it is read from `/proc`, so that the relay does not notice.

use std::fs;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, ensure};

use crate::gate::CpuReading;
use crate::measure::{self, CpuTime, Thread, ThreadId};

/// A relay's process.
#[derive(Clone, Debug)]
pub struct Account {
    pid: i32,
    shards: Vec<ThreadId>,
    /// Of the CPUs that shards have for themselves.
    softirqs: Vec<ThreadId>,
}

impl Account {
    /// Of the Ringway that runs as process `pid` and takes traffic at `address`.
    ///
    /// # Errors
    /// The address is not of this machine, there is no such process, or it has no threads named
    /// `shard-*`.
    pub fn of_running(pid: i32, address: SocketAddr) -> anyhow::Result<Self> {
        // Only an address of this machine can be bound.
        UdpSocket::bind(SocketAddr::new(address.ip(), 0)).with_context(|| {
            format!("--pid {pid}: {} is no address of this machine", address.ip())
        })?;
        let threads = measure::threads(pid);
        ensure!(!threads.is_empty(), "--pid {pid}: there is no such process");
        let shards = shards_of(&threads);
        ensure!(
            !shards.is_empty(),
            "--pid {pid}: process `{}` has no thread named shard-*, so it is no Ringway that serves",
            name_of(pid)
        );
        Ok(Self::new(pid, shards))
    }

    /// Of a relay whose relaying threads are known.
    #[must_use]
    pub fn new(pid: i32, shards: Vec<ThreadId>) -> Self {
        let own_cpu = |shard: &ThreadId| match measure::cpus_of(*shard).as_slice() {
            [cpu] => Some(*cpu),
            _ => None,
        };
        let mut cpus: Vec<usize> = shards.iter().filter_map(own_cpu).collect();
        cpus.sort_unstable();
        cpus.dedup();
        let softirqs = cpus.into_iter().filter_map(measure::ksoftirqd).collect();
        Self { pid, shards, softirqs }
    }

    /// The threads that relay.
    #[must_use]
    pub fn shards(&self) -> &[ThreadId] {
        &self.shards
    }

    /// What its relaying threads have used so far, with what the kernel did for them in threads of
    /// its own.
    ///
    /// # Errors
    /// It has ended.
    pub fn shard_cpu(&self) -> anyhow::Result<CpuReading> {
        let workers = measure::threads(self.pid).into_iter().filter(Thread::works_for_kernel);
        let helpers: Vec<ThreadId> =
            self.softirqs.iter().copied().chain(workers.map(|thread| thread.id)).collect();
        CpuReading::of(&self.shards, &helpers).context("read the relay's CPU time")
    }

    /// What all its threads have used so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu(&self) -> anyhow::Result<CpuTime> {
        let threads = measure::threads(self.pid);
        ensure!(!threads.is_empty(), "the relay has ended");
        // A thread that ends meanwhile takes its account along.
        let used = threads.iter().filter_map(|thread| CpuTime::of(thread.id).ok());
        Ok(used.fold(CpuTime::default(), CpuTime::plus))
    }

    /// Bytes of its memory that are resident.
    ///
    /// # Errors
    /// It has ended, or belongs to somebody else.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let memory = measure::resident_bytes(self.pid);
        memory.context("read the relay's memory: it has ended, or belongs to another user")
    }

    /// Descriptors that it has open.
    ///
    /// # Errors
    /// It has ended, or belongs to somebody else.
    pub fn descriptors(&self) -> anyhow::Result<usize> {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid));
        Ok(open.context("read the relay's descriptors")?.count())
    }
}

fn shards_of(threads: &[Thread]) -> Vec<ThreadId> {
    let shards = threads.iter().filter(|thread| thread.name.starts_with("shard-"));
    shards.map(|thread| thread.id).collect()
}

fn name_of(pid: i32) -> String {
    // Empty for a process that has just ended.
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    fn thread(tid: i32, name: &str) -> Thread {
        Thread { id: ThreadId { pid: 1, tid }, name: name.to_owned() }
    }

    #[test]
    fn the_threads_that_relay_are_known_by_their_name() {
        let threads = [thread(1, "ringway"), thread(2, "shard-0"), thread(3, "shard-11")];
        let tids: Vec<i32> = shards_of(&threads).iter().map(|shard| shard.tid).collect();
        assert_eq!(tids, [2, 3]);
    }

    #[test]
    fn a_process_that_does_not_exist_is_named_as_such() {
        let error = Account::of_running(i32::MAX, HERE).unwrap_err().to_string();
        assert!(error.contains("there is no such process"), "{error}");
    }

    #[test]
    fn a_process_without_shards_is_no_relay() {
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        let error = Account::of_running(parent, HERE).unwrap_err().to_string();
        assert!(error.contains("no thread named shard-*"), "{error}");
    }

    #[test]
    fn a_relay_on_another_machine_has_no_process_here() {
        let elsewhere = "192.0.2.1:9".parse().unwrap();
        let error = Account::of_running(1, elsewhere).unwrap_err().to_string();
        assert!(error.contains("192.0.2.1 is no address of this machine"), "{error}");
    }

    #[test]
    fn memory_descriptors_and_cpu_time_of_a_process_are_read() {
        let this = measure::this_thread();
        let account = Account::new(this.pid, vec![this]);
        assert!(account.resident().unwrap() > 100_000);
        assert!(account.descriptors().unwrap() > 2);
        assert!(account.shard_cpu().is_ok() && account.cpu().unwrap().cpu_ns > 0);
    }
}
