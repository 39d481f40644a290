//! A relay in a process of its own that can be stopped and let go: the gate of the gated drain.
//!
//! The relay's process is stopped with `SIGSTOP`, datagrams are put into its sockets, and `SIGCONT`
//! lets it drain them. Its relaying thread then works without a pause from the first datagram to
//! the last and sleeps afterwards, so its CPU time divided by the datagrams is the cost of a
//! saturated relay whatever the speed of the generator.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::clock::{self, SECOND};
use crate::http;
use crate::measure::{self, CpuTime, ThreadId};
use crate::subject::{IoCounts, Setup, Subject};

/// `ringway-bench relay`
#[derive(Clone, Debug, clap::Args)]
pub struct RelayArguments {
    /// A [`Setup`] as JSON
    #[arg(value_parser = setup)]
    setup: Setup,
}

fn setup(json: &str) -> Result<Setup, serde_json::Error> {
    serde_json::from_str(json)
}

/// What the child says on its standard output once it serves.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Serving {
    address: SocketAddr,
    /// Where Ringway's metrics are.
    system: Option<SocketAddr>,
    /// Those that relay.
    threads: Vec<ThreadId>,
}

/// The child's side: serves until standard input ends.
///
/// # Errors
/// The relay does not start.
pub fn serve(arguments: &RelayArguments) -> anyhow::Result<()> {
    let Setup { cpus, other_cpus, .. } = &arguments.setup;
    let every: Vec<usize> = other_cpus.iter().chain(cpus).copied().collect();
    measure::pin(&every).context("use the CPUs of the relay")?;
    // A session is a descriptor. Ringway raises the limit itself, a baseline does not.
    measure::raise_descriptor_limit();
    let subject = Subject::start_as(&arguments.setup)?;
    if !other_cpus.is_empty() {
        measure::pin(other_cpus)?;
    }
    let pid = measure::this_thread().pid;
    let threads = subject.tids.iter().map(|tid| ThreadId { pid, tid: *tid }).collect();
    let serving = Serving { address: subject.address, system: subject.system, threads };
    writeln!(io::stdout(), "{}", serde_json::to_string(&serving)?)?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// The parent's side. Dropping it ends the child.
pub struct Gate {
    child: Child,
    pid: Pid,
    serving: Serving,
    /// Of the relaying threads.
    cpus: Vec<usize>,
    /// Of those CPUs.
    softirqs: Vec<ThreadId>,
    /// The child ends when this closes.
    stdin: Option<ChildStdin>,
}

impl Gate {
    /// Starts the child and waits until it serves.
    ///
    /// # Errors
    /// The child cannot be started, or ended with an error, which stands on standard error.
    pub fn start(setup: &Setup) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let mut child = Command::new(program)
            .args(["relay", &serde_json::to_string(setup)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the relay")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the relay's standard output is missing")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("wait for the relay")?;
        let serving = serde_json::from_str(&line)
            .with_context(|| format!("the relay ({}) did not start", setup.engine.label()))?;
        let pid = Pid::from_child(&child);
        let softirqs = setup.cpus.iter().filter_map(|cpu| measure::ksoftirqd(*cpu)).collect();
        let cpus = setup.cpus.clone();
        Ok(Self { child, pid, serving, cpus, softirqs, stdin })
    }

    /// A thread that wakes on the relay's CPU while the relay is inside a long system call takes
    /// CPU time that is billed to the wrong one. None of the child's may be able to, but those that
    /// relay.
    ///
    /// # Errors
    /// One is.
    pub fn check_placement(&self) -> anyhow::Result<()> {
        for thread in measure::threads(self.pid.as_raw_nonzero().get()) {
            let relays = self.serving.threads.contains(&thread.id) || thread.works_for_kernel();
            let is_there = measure::cpus_of(thread.id).iter().any(|cpu| self.cpus.contains(cpu));
            anyhow::ensure!(
                relays || !is_there,
                "thread {} ({}) of the relay may run on the CPU of its shards",
                thread.id.tid,
                thread.name
            );
        }
        Ok(())
    }

    /// Where SRT callers connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.serving.address
    }

    /// The threads that relay.
    #[must_use]
    pub fn threads(&self) -> &[ThreadId] {
        &self.serving.threads
    }

    /// Stops the child; none of its threads runs when this returns.
    ///
    /// # Errors
    /// The child has ended.
    pub fn close(&self) -> anyhow::Result<()> {
        kill_process(self.pid, Signal::STOP).context("stop the relay")?;
        loop {
            match waitpid(Some(self.pid), WaitOptions::UNTRACED) {
                Ok(Some((_, status))) if status.stopped() => return Ok(()),
                Ok(_) => anyhow::bail!("the relay has ended"),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("wait until the relay has stopped"),
            }
        }
    }

    /// Lets the child go on.
    ///
    /// # Errors
    /// The child has ended.
    pub fn open(&self) -> anyhow::Result<()> {
        kill_process(self.pid, Signal::CONT).context("let the relay go on")
    }

    /// What the relaying threads have used so far.
    ///
    /// # Errors
    /// The child has ended.
    pub fn cpu(&self) -> anyhow::Result<CpuReading> {
        let workers = measure::threads(self.pid.as_raw_nonzero().get());
        let workers = workers.iter().filter(|thread| thread.works_for_kernel());
        let helpers = self.softirqs.iter().copied().chain(workers.map(|thread| thread.id));
        let helpers: Vec<ThreadId> = helpers.collect();
        CpuReading::of(&self.serving.threads, &helpers).context("read the relay's CPU time")
    }

    /// What Ringway has counted so far; `None` for baselines. The child must not be stopped.
    ///
    /// # Errors
    /// Ringway does not answer.
    pub fn io(&self) -> anyhow::Result<Option<IoCounts>> {
        self.serving.system.map(IoCounts::read).transpose()
    }

    /// Ringway's metrics as text; `None` for baselines. The child must not be stopped.
    ///
    /// # Errors
    /// Ringway does not answer.
    pub fn metrics(&self) -> anyhow::Result<Option<String>> {
        let text = |system| http::get(system, "/metrics").map(|answer| answer.body);
        self.serving.system.map(text).transpose().context("read the relay's metrics")
    }

    /// Memory of the child that is in use, in bytes; what the kernel keeps for its sockets is not
    /// in it.
    ///
    /// # Errors
    /// The child has ended.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        measure::resident_bytes(self.pid.as_raw_nonzero().get()).context("read the relay's memory")
    }

    /// Waits until all relaying threads sleep. They are watched from another CPU and not disturbed.
    ///
    /// # Errors
    /// The child has ended, or does not come to rest within a second.
    pub fn wait_until_idle(&self) -> anyhow::Result<()> {
        let deadline = clock::now() + SECOND;
        // A thread that slept when it was looked at has not been woken since if the last one, too,
        // sleeps: they give each other nothing to do.
        for thread in &self.serving.threads {
            while !measure::is_asleep(*thread).context("the relay has ended")? {
                anyhow::ensure!(clock::now() < deadline, "the relay does not come to rest");
            }
        }
        Ok(())
    }
}

/// CPU time of all relaying threads at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuReading {
    threads: Vec<CpuTime>,
    /// Of threads in which the kernel does what belongs to them: softirqs, and io_uring's workers.
    kernel_ns: u64,
}

impl CpuReading {
    /// Of threads that relay, and of others that work for them.
    ///
    /// # Errors
    /// One that relays has ended.
    pub fn of(relaying: &[ThreadId], helpers: &[ThreadId]) -> io::Result<Self> {
        let threads = relaying.iter().map(|thread| CpuTime::of(*thread));
        let kernel_ns = |thread: &ThreadId| CpuTime::of(*thread).map_or(0, |time| time.cpu_ns);
        Ok(Self {
            threads: threads.collect::<io::Result<_>>()?,
            kernel_ns: helpers.iter().map(kernel_ns).sum(),
        })
    }

    /// What they have used since `before`, and how long they waited for somebody else.
    ///
    /// Threads that share a CPU wait for each other. The one that ends last has waited for all of
    /// the others, and whatever it waited beyond their CPU time went to a stranger.
    #[must_use]
    pub fn since(&self, before: &Self) -> CpuTime {
        let used: Vec<CpuTime> =
            self.threads.iter().zip(&before.threads).map(|(now, then)| now.since(*then)).collect();
        let cpu_ns: u64 = used.iter().map(|time| time.cpu_ns).sum();
        let strangers = |time: &CpuTime| time.run_delay_ns.saturating_sub(cpu_ns - time.cpu_ns);
        CpuTime {
            cpu_ns: cpu_ns + self.kernel_ns.saturating_sub(before.kernel_ns),
            run_delay_ns: used.iter().map(strangers).max().unwrap_or_default(),
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // A child that has ended already has nothing to be let go of, killed or waited for.
        let _ = kill_process(self.pid, Signal::CONT);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(threads: &[(u64, u64)], kernel_ns: u64) -> CpuReading {
        let time = |&(cpu_ns, run_delay_ns)| CpuTime { cpu_ns, run_delay_ns };
        CpuReading { threads: threads.iter().map(time).collect(), kernel_ns }
    }

    #[test]
    fn work_that_the_kernel_does_in_threads_of_its_own_is_the_relays() {
        let used = reading(&[(1_500, 30)], 250).since(&reading(&[(500, 10)], 50));
        assert_eq!(used, CpuTime { cpu_ns: 1_200, run_delay_ns: 20 });
    }

    #[test]
    fn threads_that_share_a_cpu_and_wait_for_each_other_are_not_disturbed() {
        let used = reading(&[(1_000, 0), (800, 1_000)], 0).since(&reading(&[(0, 0); 2], 0));
        assert_eq!(used, CpuTime { cpu_ns: 1_800, run_delay_ns: 0 });
    }

    #[test]
    fn what_threads_that_share_a_cpu_wait_for_a_stranger_is_run_delay() {
        let used = reading(&[(1_000, 70), (800, 1_070)], 0).since(&reading(&[(0, 0); 2], 0));
        assert_eq!(used, CpuTime { cpu_ns: 1_800, run_delay_ns: 70 });
    }
}
