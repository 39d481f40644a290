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
use crate::measure::{self, CpuTime, ThreadId};
use crate::registration::Endpoints;
use crate::subject::{Engine, Subject};

/// `ringway-bench relay`
#[derive(Clone, Debug, clap::Args)]
pub struct RelayArguments {
    /// Which relay
    #[arg(long, value_enum)]
    engine: Engine,
    /// Its only origin
    #[arg(long)]
    origin: SocketAddr,
    /// The CPU of its relaying thread
    #[arg(long)]
    cpu: usize,
    /// The CPUs of everything else in it
    #[arg(long, value_delimiter = ',')]
    other_cpus: Vec<usize>,
}

/// What the child says on its standard output once it serves.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct Serving {
    address: SocketAddr,
    thread: ThreadId,
}

/// The child's side: serves until standard input ends.
///
/// # Errors
/// The relay does not start.
pub fn serve(arguments: &RelayArguments) -> anyhow::Result<()> {
    let every: Vec<usize> = arguments.other_cpus.iter().copied().chain([arguments.cpu]).collect();
    measure::pin(&every).context("use the CPUs of --cpu and --other-cpus")?;
    let subject =
        Subject::start(arguments.engine, Endpoints::srt(arguments.origin), arguments.cpu)?;
    if !arguments.other_cpus.is_empty() {
        measure::pin(&arguments.other_cpus)?;
    }
    let thread = ThreadId { tid: subject.tid, ..measure::this_thread() };
    let serving = serde_json::to_string(&Serving { address: subject.address, thread })?;
    writeln!(io::stdout(), "{serving}")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// The parent's side. Dropping it ends the child.
pub struct Gate {
    child: Child,
    pid: Pid,
    serving: Serving,
    softirq: Option<ThreadId>,
    /// The child ends when this closes.
    stdin: Option<ChildStdin>,
}

impl Gate {
    /// Starts the child and waits until it serves.
    ///
    /// # Errors
    /// The child cannot be started, or ended with an error, which stands on standard error.
    pub fn start(
        engine: Engine,
        origin: SocketAddr,
        cpu: usize,
        other_cpus: &[usize],
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(program);
        command.args(["relay", "--engine", engine.label()]);
        command.args(["--origin", &origin.to_string(), "--cpu", &cpu.to_string()]);
        if !other_cpus.is_empty() {
            let list: Vec<String> = other_cpus.iter().map(usize::to_string).collect();
            command.args(["--other-cpus", &list.join(",")]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the relay")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the relay's standard output is missing")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("wait for the relay")?;
        let serving = serde_json::from_str(&line)
            .with_context(|| format!("the relay ({}) did not start", engine.label()))?;
        let pid = Pid::from_child(&child);
        Ok(Self { child, pid, serving, softirq: measure::ksoftirqd(cpu), stdin })
    }

    /// Where SRT callers connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.serving.address
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

    /// What the relaying thread has used so far, with the softirq work that the kernel moved into a
    /// thread.
    ///
    /// # Errors
    /// The child has ended.
    pub fn cpu(&self) -> anyhow::Result<CpuTime> {
        let thread = CpuTime::of(self.serving.thread).context("read the relay's CPU time")?;
        // The softirq thread's run delay says nothing about the relay's.
        let softirq =
            self.softirq.and_then(|softirq| CpuTime::of(softirq).ok()).unwrap_or_default();
        Ok(CpuTime { cpu_ns: thread.cpu_ns + softirq.cpu_ns, ..thread })
    }

    /// Waits until the relaying thread sleeps. It is watched from another CPU and not disturbed.
    ///
    /// # Errors
    /// The child has ended, or does not come to rest within a second.
    pub fn wait_until_idle(&self) -> anyhow::Result<()> {
        let deadline = clock::now() + SECOND;
        while !measure::is_asleep(self.serving.thread).context("the relay has ended")? {
            anyhow::ensure!(clock::now() < deadline, "the relay does not come to rest");
        }
        Ok(())
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
