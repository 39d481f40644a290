//! A relay that runs already: somebody else started it, and it is told of the origin emulator.

use std::net::SocketAddr;

use anyhow::Context as _;

use crate::account::Account;
use crate::gate::CpuReading;
use crate::measure::ThreadId;
use crate::registration::{Endpoints, Registration, reachable};
use crate::subject::IoCounts;

/// Which running relay, as the command line names it.
#[derive(Clone, Debug, clap::Args)]
pub struct RunningArguments {
    /// Measure the running relay whose SRT listener this is, instead of one that is started here
    #[arg(long, value_name = "IP:PORT", conflicts_with = "engines")]
    pub target: Option<SocketAddr>,
    /// The running relay's process on this machine: its CPU time is read from there
    #[arg(long, value_name = "PID", requires = "target")]
    pub pid: Option<i32>,
    /// Register the origin emulator with the running relay's system API, as http://HOST:PORT
    #[arg(long, value_name = "URL", requires = "target")]
    pub register: Option<String>,
    /// Where the origin emulator takes the running relay's calls
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub origin: SocketAddr,
}

/// The relay that runs, in a lane of its own.
pub(super) struct RunningRelay {
    address: SocketAddr,
    /// Where it is another machine's, or nobody said which process it is, there is none.
    account: Option<Account>,
    registration: Option<Registration>,
}

impl RunningRelay {
    /// Looks for its process, and tells it where the origin is.
    ///
    /// # Errors
    /// There is no such relay, or it does not take the registration.
    pub(super) fn find(arguments: &RunningArguments, origin: SocketAddr) -> anyhow::Result<Self> {
        let address = arguments.target.context("--target says where the running relay is")?;
        let account = arguments.pid.map(|pid| Account::of_running(pid, address)).transpose()?;
        let endpoints = Endpoints::srt(reachable(origin));
        let registration = match &arguments.register {
            Some(url) => {
                let registration = Registration::new(url, endpoints)?;
                registration.post()?;
                Some(registration)
            }
            None => None,
        };
        Ok(Self { address, account, registration })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Those that relay, as far as they are known.
    pub(super) fn threads(&self) -> Vec<ThreadId> {
        self.account.as_ref().map(|account| account.shards().to_vec()).unwrap_or_default()
    }

    /// Nothing where its process is not known.
    pub(super) fn cpu(&self) -> anyhow::Result<CpuReading> {
        self.account.as_ref().map_or_else(|| Ok(CpuReading::default()), Account::shard_cpu)
    }

    /// Its own counters, and a word that the origin is still there: registrations expire.
    pub(super) fn io(&self) -> anyhow::Result<Option<IoCounts>> {
        let Some(registration) = &self.registration else { return Ok(None) };
        registration.post()?;
        IoCounts::read(registration.api).map(Some)
    }

    pub(super) fn resident_bytes(&self) -> Option<u64> {
        self.account.as_ref()?.resident().ok()
    }
}

/// The CPUs that the tool may use: where they are others than those of the relay's threads, these.
pub(super) fn tool_cpus(allowed: &[usize], relay: &[usize]) -> Vec<usize> {
    let others: Vec<usize> = allowed.iter().copied().filter(|cpu| !relay.contains(cpu)).collect();
    if others.is_empty() { allowed.to_vec() } else { others }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tool_leaves_the_cpus_of_the_relay_where_there_are_others() {
        assert_eq!(tool_cpus(&[0, 1, 2], &[1]), [0, 2]);
        assert_eq!(tool_cpus(&[0, 1], &[0, 1]), [0, 1]);
        assert_eq!(tool_cpus(&[0, 1], &[]), [0, 1]);
    }
}
