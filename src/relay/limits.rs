//! What the machine allows: which CPU each shard gets, and how many sessions there may be.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, Listen};
use crate::engine::ClientSockets;
use crate::shard::Limits;

/// Limits that were asked for and cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// `--cpus` or `--control-cpu` names a CPU that this process may not use.
    #[error("{flag} names CPU {cpu}, which this process may not use: choose from {allowed:?}")]
    Cpu {
        /// Whose value it is.
        flag: &'static str,
        /// As typed.
        cpu: usize,
        /// What the affinity mask holds.
        allowed: Vec<usize>,
    },
    /// More sessions than descriptors.
    #[error(
        "--sessions-max {asked} needs more descriptors than this process may have ({descriptors}): raise the limit \
         (LimitNOFILE=, ulimit -n) to {needed}, or ask for {possible} sessions at most"
    )]
    Descriptors {
        /// As typed.
        asked: u32,
        /// The hard limit.
        descriptors: u64,
        /// What would do.
        needed: u64,
        /// What fits.
        possible: u32,
    },
}

/// The CPU of each shard, in shard order.
pub(super) fn placement(config: &Config) -> Result<Vec<Option<usize>>, LimitsError> {
    let allowed: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    let cpus = config.cpus.clone().unwrap_or_else(|| allowed.clone());
    let stray = |cpu: &&usize| !allowed.contains(cpu);
    if let Some(&cpu) = cpus.iter().find(stray) {
        return Err(LimitsError::Cpu { flag: "--cpus", cpu, allowed });
    }
    if let Some(&cpu) = config.control_cpu.iter().find(stray) {
        return Err(LimitsError::Cpu { flag: "--control-cpu", cpu, allowed });
    }
    let shards = config.shards.map_or(cpus.len().max(1), usize::from);
    // Without any CPU to name (no affinity mask to be had) shards run where the kernel puts them.
    Ok((0..shards).map(|shard| cpus.get(shard % cpus.len().max(1)).copied()).collect())
}

/// Raises the soft descriptor limit to the hard one and says how many sessions fit below it.
pub(super) fn sessions_max(config: &Config, shards: usize) -> Result<u32, LimitsError> {
    let descriptors = raise_descriptor_limit();
    let reserve = Reserve::of(config, shards);
    let possible =
        descriptors.saturating_sub(reserve.own + reserve.connections.min(descriptors / 8));
    let possible = u32::try_from(possible).unwrap_or(u32::MAX);
    match config.sessions_max {
        None => Ok(possible.clamp(1, SESSIONS_DEFAULT)),
        Some(asked) if asked <= possible => Ok(asked),
        Some(asked) => Err(LimitsError::Descriptors {
            asked,
            descriptors,
            needed: u64::from(asked) + reserve.own + reserve.connections,
            possible,
        }),
    }
}

/// Sockets that clients of one shard may have beside the listener: some, while three quarters of the
/// descriptors are not used up.
pub(super) fn client_sockets(config: &Config, shards: usize) -> ClientSockets {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(DESCRIPTORS_UNLIMITED);
    let descriptors = (descriptors / 4 * 3).saturating_sub(Reserve::of(config, shards).own);
    let of_process = u32::try_from(descriptors).unwrap_or(u32::MAX);
    let shards = u16::try_from(shards).unwrap_or(u16::MAX);
    ClientSockets::of_shard(config.client_sockets, shards, of_process)
}

/// The descriptors that are not for sessions.
#[derive(Debug, PartialEq, Eq)]
struct Reserve {
    /// From the start.
    own: u64,
    /// Of control, when all are there.
    connections: u64,
}

impl Reserve {
    fn of(config: &Config, shards: usize) -> Self {
        let media = [config.srt_listen, config.webrtc_listen];
        let listeners = media.iter().filter(|listen| **listen != Listen::Off).count() as u64;
        // Each request for a WebRTC session is passed on, by a connection of its own to the origin.
        let passes_on = config.webrtc_listen != Listen::Off && config.http_listen != Listen::Off;
        Self {
            own: OWN_DESCRIPTORS + (DESCRIPTORS_PER_SHARD + listeners) * shards as u64,
            connections: CONTROL_CONNECTIONS * if passes_on { 2 } else { 1 },
        }
    }
}

/// One shard's part of what the process may have.
///
/// The kernel spreads clients unevenly, so each shard may hold all sessions; control counts them. Rates and handshakes
/// under way are divided.
pub(super) fn of_shard(config: &Config, sessions_max: u32, shards: usize) -> Limits {
    let shards = u32::try_from(shards).unwrap_or(u32::MAX).max(1);
    let part = |of_process: u32| of_process.div_ceil(shards).max(1);
    Limits {
        sessions_max,
        pending_max: part(config.pending_max),
        // Control counts exactly, over all shards; this bounds what one shard asks control.
        pending_per_source: config.pending_per_source,
        induction_rate: part(config.induction_rate.total),
        induction_rate_per_prefix: part(config.induction_rate.per_prefix),
        srt_idle_timeout: config.srt_idle_timeout,
        webrtc_idle_timeout: config.webrtc_idle_timeout,
        origin_setup_timeout: config.origin_setup_timeout,
    }
}

fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(DESCRIPTORS_UNLIMITED);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => hard,
        Err(_) => limit.current.unwrap_or(hard),
    }
}

/// Sessions per process unless told otherwise, descriptors permitting.
const SESSIONS_DEFAULT: u32 = 65_536;
/// Standard streams, signal and timer descriptors, listeners of the control thread, files.
const OWN_DESCRIPTORS: u64 = 64;
/// Ring or epoll, eventfds, and some to spare. Its listeners come on top.
const DESCRIPTORS_PER_SHARD: u64 = 7;
/// Connections that the control thread may be asked by.
const CONTROL_CONNECTIONS: u64 = 1000;
const DESCRIPTORS_UNLIMITED: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_shards_than_cpus_share_the_cpus_in_turn() {
        let cpus = placement(&Config::default()).unwrap();
        let shards = cpus.len() as u16 * 2;
        let twice = placement(&Config { shards: Some(shards), ..Config::default() }).unwrap();
        assert_eq!(twice, [cpus.clone(), cpus].concat());
    }

    #[test]
    fn a_cpu_that_is_not_ours_is_refused_by_name() {
        let config = Config { cpus: Some(vec![4095]), ..Config::default() };
        let error = placement(&config).unwrap_err().to_string();
        assert!(error.contains("4095"), "{error}");
    }

    #[test]
    fn the_cpu_of_control_must_be_ours_too() {
        let config = Config { control_cpu: Some(4095), ..Config::default() };
        let error = placement(&config).unwrap_err().to_string();
        assert!(error.contains("--control-cpu"), "{error}");
    }

    #[test]
    fn each_listener_takes_a_descriptor_of_each_shard_and_signalling_connections_of_its_own() {
        let both = Config::default();
        let srt = Config { webrtc_listen: Listen::Off, ..Config::default() };
        let (of_both, of_srt) = (Reserve::of(&both, 4), Reserve::of(&srt, 4));
        assert_eq!(of_both.own - of_srt.own, 4);
        assert_eq!(of_both.connections, 2 * of_srt.connections);
        let silent = Config { http_listen: Listen::Off, ..Config::default() };
        assert_eq!(Reserve::of(&silent, 4).connections, of_srt.connections);
    }

    #[test]
    fn more_sessions_than_descriptors_are_refused_with_what_would_fit() {
        let config = Config { sessions_max: Some(u32::MAX), ..Config::default() };
        let error = sessions_max(&config, 1).unwrap_err().to_string();
        assert!(error.contains("LimitNOFILE"), "{error}");
    }
}
