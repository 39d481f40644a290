//! Ringway in a process of its own, started with flags as an operator would type them.
//!
//! Memory, descriptors and CPU time are then the relay's alone, and the limits that a measurement
//! raises can be read in its set-up and repeated by hand.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, bail};
use ringway::cli;
use ringway::config::Variables;
use ringway::relay::{Relay, Signals};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::account::Account;
use crate::measure::{self, ThreadId};
use crate::place::Place;
use crate::registration::Endpoints;
use crate::subject::Engine;

/// `ringway-bench host`
#[derive(Clone, Debug, clap::Args)]
pub struct HostArguments {
    /// Descriptors that it may have
    #[arg(long)]
    descriptors: Option<u64>,
    /// Flags of `ringway serve`
    #[arg(last = true)]
    flags: Vec<OsString>,
}

/// What the child says on its standard output once it serves.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Serving {
    pid: i32,
    shard: i32,
    engine: String,
    srt: Option<SocketAddr>,
    http: Option<SocketAddr>,
}

/// The child's side: serves until standard input ends.
///
/// # Errors
/// The flags cannot be used, or the relay does not start.
pub fn serve(arguments: &HostArguments) -> anyhow::Result<()> {
    if let Some(descriptors) = arguments.descriptors {
        let limit = Rlimit { current: Some(descriptors), maximum: Some(descriptors) };
        setrlimit(Resource::Nofile, limit)
            .with_context(|| format!("limit the relay to {descriptors} descriptors"))?;
    }
    let words = ["ringway", "serve"].map(OsString::from).into_iter();
    let words = words.chain(arguments.flags.iter().cloned());
    let nothing = || Ok(Variables::default());
    let cli::Command::Serve(config, _) = cli::parse(words, Variables::default(), nothing)? else {
        bail!("these are no flags of `ringway serve`");
    };
    let relay = Relay::start(*config, Signals::Ignored)?;
    let serving = Serving {
        pid: measure::this_thread().pid,
        shard: relay.shards().first().context("Ringway runs without a shard")?.tid,
        engine: relay.engine().to_owned(),
        srt: relay.srt_address(),
        http: relay.http_address(),
    };
    writeln!(io::stdout(), "{}", serde_json::to_string(&serving)?)?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// The parent's side. Dropping it ends the child.
pub struct RelayProcess {
    child: Child,
    serving: Serving,
    account: Account,
    /// The child ends when this closes.
    stdin: Option<ChildStdin>,
}

/// What a relay is started with.
#[derive(Clone, Debug)]
pub struct RelayFlags {
    engine: Engine,
    cpu: usize,
    control_cpu: usize,
    limits: Vec<String>,
    /// `RLIMIT_NOFILE`; `None` leaves it as it is.
    pub descriptors: Option<u64>,
}

impl RelayFlags {
    /// One shard on the relay's CPU, control on one of the tool's, and every limit as it comes.
    #[must_use]
    pub fn new(engine: Engine, place: &Place) -> Self {
        let (cpu, control_cpu) = (place.relay, place.control());
        Self { engine, cpu, control_cpu, limits: Vec::new(), descriptors: None }
    }

    /// One shard on `cpu`, control on `control_cpu`, and every limit per source and per second so
    /// high that none of them is what is measured.
    #[must_use]
    pub fn without_limits(engine: Engine, cpu: usize, control_cpu: usize) -> Self {
        let limits = [
            "--pending-max=65536",
            "--pending-per-source=65536",
            "--sessions-per-source=65536",
            "--new-per-source=100000",
            "--http-per-source=100000,100000",
            "--induction-rate=1000000,1000000",
        ];
        let limits = limits.map(str::to_owned).to_vec();
        Self { engine, cpu, control_cpu, limits, descriptors: None }
    }

    /// The raised limits, as they are typed.
    #[must_use]
    pub fn limits(&self) -> String {
        self.limits.join(" ")
    }

    fn words(&self, origin: Endpoints) -> Vec<String> {
        let mut emulator = format!("name=emulator,ip={}", origin.ip);
        for (key, port) in [("srt", origin.srt), ("rtc", origin.rtc), ("api", origin.api)] {
            if let Some(port) = port {
                emulator += &format!(",{key}={port}");
            }
        }
        let listeners = ["srt", "webrtc", "http", "system"];
        let mut words: Vec<String> =
            listeners.iter().map(|what| format!("--{what}-listen=127.0.0.1:0")).collect();
        words.push(format!("--origin={emulator}"));
        words.push(format!("--engine={}", self.engine.label()));
        words.push(format!("--cpus={}", self.cpu));
        words.push("--shards=1".to_owned());
        words.push(format!("--control-cpu={}", self.control_cpu));
        words.extend(self.limits.iter().cloned());
        words
    }
}

impl RelayProcess {
    /// Starts the child with `origin` as its only origin and waits until it serves.
    ///
    /// # Errors
    /// The child cannot be started, or ended with an error, which stands on standard error.
    pub fn start(flags: &RelayFlags, origin: Endpoints) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command.arg("host");
        if let Some(descriptors) = flags.descriptors {
            command.args(["--descriptors", &descriptors.to_string()]);
        }
        command.arg("--").args(flags.words(origin));
        // It inherits where this thread may run, and this one has left the relay's CPU.
        let own_cpus = measure::allowed_cpus();
        let every: Vec<usize> =
            own_cpus.iter().copied().chain([flags.cpu, flags.control_cpu]).collect();
        measure::pin(&every).context("use the CPUs of the relay")?;
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        measure::pin(&own_cpus).context("leave the relay's CPU")?;
        let mut child = child.context("start the relay")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the relay's standard output is missing")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("wait for the relay")?;
        let serving: Serving = serde_json::from_str(&line).with_context(|| {
            // It has said why on standard error.
            let _ = child.kill();
            let _ = child.wait();
            "the relay did not start"
        })?;
        let Serving { pid, shard, .. } = serving;
        let account = Account::new(pid, vec![ThreadId { pid, tid: shard }]);
        Ok(Self { child, serving, account, stdin })
    }

    /// Where SRT callers connect to.
    ///
    /// # Errors
    /// It takes none.
    pub fn srt(&self) -> anyhow::Result<SocketAddr> {
        self.serving.srt.context("the relay takes no SRT")
    }

    /// Where offers are posted.
    ///
    /// # Errors
    /// It takes none.
    pub fn http(&self) -> anyhow::Result<SocketAddr> {
        self.serving.http.context("the relay takes no WHIP")
    }

    /// What its shard does its I/O with.
    #[must_use]
    pub fn engine(&self) -> &str {
        &self.serving.engine
    }

    /// What it has used.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // A child that has ended already has nothing to be killed or waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    const ORIGIN: Endpoints = Endpoints {
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        srt: Some(10_080),
        rtc: None,
        api: Some(1_985),
    };

    #[test]
    fn the_flags_are_ones_that_ringway_takes() {
        let flags = RelayFlags::without_limits(Engine::Mmsg, 0, 0);
        let words = flags.words(ORIGIN).into_iter().map(OsString::from);
        let words = ["ringway", "serve"].map(OsString::from).into_iter().chain(words);
        let parsed = cli::parse(words, Variables::default(), || Ok(Variables::default())).unwrap();
        let cli::Command::Serve(config, _) = parsed else { panic!("{parsed:?}") };
        assert_eq!((config.pending_max, config.shards), (65_536, Some(1)));
        assert_eq!(config.origins[0].srt, Some(10_080));
    }
}
