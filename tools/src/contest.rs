//! Relays that take turns under the same paced load: who they are, how they run, and what a turn of
//! one has shown.
//!
//! All are started and have their sessions connected before the first turn, and whose turn it is not
//! has nothing to do. `direct` is one of them: no relay at all, the
//! callers at the origin itself. What it shows is the tool's and the kernel's own share of the
//! latency, and what is added to it is the relay's.
//!
//! # Which turns count
//!
//! A turn says nothing about the relay when the generator did not keep its schedule, when the
//! tool's own receive queue overflowed, or when something else ran on the relay's CPU. The last is
//! read from the run delay of the relaying threads, the time that they were ready and did not run:
//! at most 2 % of the turn's length. What each wake-up takes is in it.

mod entrant;
mod running;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;

pub use self::entrant::{Entrant, Kind};
pub use self::running::RunningArguments;
use self::running::RunningRelay;
use crate::account::Account as Process;
use crate::clock::{self, SECOND};
use crate::gate::{CpuReading, Gate};
use crate::lane::{Flow, Lane, LaneSettings, Passage};
use crate::measure::{self, CpuTime, ThreadId};
use crate::nginx::{Nginx, NginxSettings, Program};
use crate::registration::Endpoints;
use crate::result::Outcome;
use crate::rig::Direction;
use crate::subject::{IoCounts, Setup, Tuning};

/// The CPUs of a measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// Of the relaying threads.
    pub relay: Vec<usize>,
    /// Of everything else.
    pub tool: Vec<usize>,
}

impl Cpus {
    /// The first allowed CPUs for the shards, one for each while one is left for everything else;
    /// the calling thread, which makes the load, goes there.
    ///
    /// # Errors
    /// There are not two.
    pub fn split(shards: u16) -> anyhow::Result<Self> {
        let allowed = measure::allowed_cpus();
        anyhow::ensure!(
            allowed.len() > 1,
            "a measurement needs two CPUs: the relay must have one for itself"
        );
        let (relay, tool) = allowed.split_at(usize::from(shards).clamp(1, allowed.len() - 1));
        measure::pin(tool).context("leave the relay's CPU")?;
        measure::raise_descriptor_limit();
        Ok(Self { relay: relay.to_vec(), tool: tool.to_vec() })
    }

    /// For a relay that runs already: its threads have the CPUs that they are bound to, and the
    /// tool the others as far as there are any.
    ///
    /// # Errors
    /// There is no such process.
    pub fn beside(running: &RunningArguments) -> anyhow::Result<Self> {
        let allowed = measure::allowed_cpus();
        let process = running.pid.zip(running.target);
        let process =
            process.map(|(pid, address)| Process::of_running(pid, address)).transpose()?;
        let threads = process.as_ref().map(Process::shards).unwrap_or_default();
        let mut relay: Vec<usize> =
            threads.iter().flat_map(|thread| measure::cpus_of(*thread)).collect();
        relay.sort_unstable();
        relay.dedup();
        let tool = running::tool_cpus(&allowed, &relay);
        measure::pin(&tool).context("leave the relay's CPUs")?;
        measure::raise_descriptor_limit();
        Ok(Self { relay, tool })
    }

    /// What of the place has to be equal for two results to be comparable.
    pub fn note(&self, outcome: &mut Outcome) {
        outcome.note("relay cpus", format!("{:?}", self.relay));
        outcome.note("tool cpus", format!("{:?}", self.tool));
        outcome.note("run delay", format!("at most {RUN_DELAY_PERCENT_MAX} % of a turn's length"));
        let build = if cfg!(debug_assertions) { "unoptimised" } else { "optimised" };
        outcome.note("build", format!("{build}, relay and baselines in one program"));
    }

    /// The rule by which turns are discarded, for the head of a table.
    #[must_use]
    pub fn rule() -> String {
        format!(
            "A turn is discarded when the relay waited for its CPU for more than \
             {RUN_DELAY_PERCENT_MAX} % of its length"
        )
    }
}

/// Whether limits apply: they are for one shard, IPv4, media to the origin and an optimised build.
#[must_use]
pub fn has_limits(shards: u16, ipv6: bool, direction: Direction) -> bool {
    shards == 1 && !ipv6 && direction == Direction::Up && !cfg!(debug_assertions)
}

/// What stands where [`has_limits`] is false.
pub const WITHOUT_LIMITS: &str =
    "not judged: limits are for one shard, IPv4, media to the origin and an optimised build";

/// The places of `count` contestants in the order in which they take their turns: each round begins
/// with another, so that nobody is always first.
pub fn order(count: usize, round: u32) -> impl Iterator<Item = usize> {
    (0..count).map(move |position| (position + round as usize) % count)
}

enum Running {
    Gate(Box<Gate>),
    Nginx { nginx: Box<Nginx>, softirqs: Vec<ThreadId> },
    Found(Box<RunningRelay>),
    Nothing,
}

/// A relay with its sessions.
pub struct Contestant {
    /// Which.
    pub entrant: Entrant,
    lane: Lane,
    running: Running,
    /// What each session has added to the memory of the relay's process.
    pub bytes_per_session: Option<f64>,
}

impl Contestant {
    /// Connects the sessions to a relay that runs already.
    ///
    /// # Errors
    /// There is no such relay, or it does not let every session in.
    pub fn find(arguments: &RunningArguments, lane: LaneSettings) -> anyhow::Result<Self> {
        let entrant = Entrant::new(Kind::Running, Tuning::default());
        Self::open(entrant, lane, Some(arguments.origin), |origin| {
            Ok(Running::Found(Box::new(RunningRelay::find(arguments, origin)?)))
        })
    }

    /// Starts the relay and connects the sessions. `None` when it is an nginx and there is none.
    ///
    /// # Errors
    /// The relay does not start, or not every session gets in.
    pub fn start(
        entrant: Entrant,
        lane: LaneSettings,
        cpus: &Cpus,
    ) -> anyhow::Result<Option<Self>> {
        let program = match entrant.kind {
            Kind::Nginx(_) => match Program::find() {
                Some(program) => Some(program),
                None => return Ok(None),
            },
            Kind::Engine(_) | Kind::Running | Kind::Direct => None,
        };
        let sessions = lane.sessions;
        let start = |origin| Running::start(entrant, origin, program.as_ref(), sessions, cpus);
        Self::open(entrant, lane, None, start).map(Some)
    }

    /// With the origin at an address of the kernel's choice unless one is given.
    fn open(
        entrant: Entrant,
        settings: LaneSettings,
        origin: Option<SocketAddr>,
        start: impl FnOnce(SocketAddr) -> anyhow::Result<Running>,
    ) -> anyhow::Result<Self> {
        let mut running = Running::Nothing;
        let mut resident = None;
        let start = |origin| {
            running = start(origin)?;
            resident = running.resident_bytes();
            Ok(running.address().unwrap_or(origin))
        };
        let origin = origin.unwrap_or_else(|| settings.any_address());
        let lane = Lane::open(origin, settings, start);
        let lane = lane.with_context(|| format!("relay {}", entrant.label()))?;
        let grown = running.resident_bytes().zip(resident);
        let bytes_per_session = grown
            .map(|(after, before)| after.saturating_sub(before) as f64 / settings.sessions as f64);
        Ok(Self { entrant, lane, running, bytes_per_session })
    }

    /// Loads the relay for `length`.
    ///
    /// # Errors
    /// The relay has ended, or what the sockets report.
    pub fn take_turn(&mut self, flows: &[Flow], length: Duration) -> anyhow::Result<Turn> {
        let Self { lane, running, .. } = self;
        running.rest()?;
        let io = running.io()?;
        running.rest()?;
        let backlog_drops = measure::backlog_drops();
        let before = running.account()?;
        let mut last = before.clone();
        let passage = lane.run(flows, length, |second| {
            // A thread that has ended shows up as an error after the turn.
            if let Ok(now) = running.account() {
                second.cpu_ns = now.since(&last).cpu_ns;
                last = now;
            }
        })?;
        running.rest()?;
        let after = running.account()?;
        let backlog_drops = measure::backlog_drops() - backlog_drops;
        let io = running.io()?.zip(io).map(|(after, before)| after.since(before));
        Ok(Turn { passage, cpu: after.since(&before), io, backlog_drops })
    }

    /// The relay's own drop counters: why, and how many so far. Only Ringway has any.
    ///
    /// # Errors
    /// Ringway does not answer.
    pub fn drops(&self) -> anyhow::Result<Vec<(String, u64)>> {
        match &self.running {
            Running::Gate(gate) => Ok(gate.metrics()?.as_deref().map(drops_in).unwrap_or_default()),
            Running::Nginx { .. } | Running::Found(_) | Running::Nothing => Ok(Vec::new()),
        }
    }
}

impl Running {
    fn start(
        entrant: Entrant,
        origin: SocketAddr,
        program: Option<&Program>,
        sessions: usize,
        cpus: &Cpus,
    ) -> anyhow::Result<Self> {
        Ok(match (entrant.kind, program) {
            (Kind::Engine(engine), _) => Self::Gate(Box::new(Gate::start(&Setup {
                engine,
                origin: Endpoints::srt(origin),
                cpus: cpus.relay.clone(),
                other_cpus: cpus.tool.clone(),
                tuning: entrant.tuning,
            })?)),
            (Kind::Nginx(buffers), Some(program)) => {
                let cpu = *cpus.relay.first().context("the relay has no CPU")?;
                let settings = NginxSettings { origin, cpu, sessions, buffers };
                let nginx = Box::new(Nginx::start(program, settings)?);
                Self::Nginx { nginx, softirqs: measure::ksoftirqd(cpu).into_iter().collect() }
            }
            (Kind::Nginx(_), None) | (Kind::Running | Kind::Direct, _) => Self::Nothing,
        })
    }

    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Gate(gate) => Some(gate.address()),
            Self::Nginx { nginx, .. } => Some(nginx.address()),
            Self::Found(relay) => Some(relay.address()),
            Self::Nothing => None,
        }
    }

    fn threads(&self) -> Vec<ThreadId> {
        match self {
            Self::Gate(gate) => gate.threads().to_vec(),
            Self::Nginx { nginx, .. } => vec![nginx.worker()],
            Self::Found(relay) => relay.threads(),
            Self::Nothing => Vec::new(),
        }
    }

    /// Waits until the relaying threads sleep: what they do now belongs to nobody's turn, and the
    /// kernel's account of a thread that runs lies behind.
    fn rest(&self) -> anyhow::Result<()> {
        let deadline = clock::now() + SECOND;
        for thread in self.threads() {
            while !measure::is_asleep(thread).context("the relay has ended")? {
                anyhow::ensure!(clock::now() < deadline, "the relay does not come to rest");
            }
        }
        Ok(())
    }

    fn account(&self) -> anyhow::Result<CpuReading> {
        match self {
            Self::Gate(gate) => gate.cpu(),
            Self::Nginx { nginx, softirqs } => {
                CpuReading::of(&[nginx.worker()], softirqs).context("read the CPU time of nginx")
            }
            Self::Found(relay) => relay.cpu(),
            Self::Nothing => Ok(CpuReading::default()),
        }
    }

    fn io(&self) -> anyhow::Result<Option<IoCounts>> {
        match self {
            Self::Gate(gate) => gate.io(),
            Self::Found(relay) => relay.io(),
            Self::Nginx { .. } | Self::Nothing => Ok(None),
        }
    }

    fn resident_bytes(&self) -> Option<u64> {
        match self {
            Self::Gate(gate) => gate.resident_bytes().ok(),
            Self::Nginx { nginx, .. } => measure::resident_bytes(nginx.worker().pid).ok(),
            Self::Found(relay) => relay.resident_bytes(),
            Self::Nothing => None,
        }
    }
}

/// The drop counters in Prometheus text.
fn drops_in(text: &str) -> Vec<(String, u64)> {
    let reasons = text.lines().filter_map(|line| {
        if let Some(rest) = line.strip_prefix("ringway_drops_total{") {
            let (labels, value) = rest.rsplit_once(' ')?;
            let reason = labels.split_once("reason=\"")?.1.split('"').next()?;
            return Some((reason.to_owned(), value.parse().ok()?));
        }
        let value = line.strip_prefix("ringway_receive_queue_overflows_total")?.rsplit_once(' ')?.1;
        Some((QUEUE_OVERFLOWS.to_owned(), value.parse().ok()?))
    });
    reasons.collect()
}

/// What one turn has shown.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The packets.
    pub passage: Passage,
    /// Of the relaying threads, with what the kernel did for them in threads of its own.
    pub cpu: CpuTime,
    /// What Ringway counted.
    pub io: Option<IoCounts>,
    /// Packets that the kernel dropped before any receive queue, from whomever.
    pub backlog_drops: u64,
}

/// Why a turn does not count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Packets left much too late, or not within the turn.
    GeneratorLate {
        /// Share that left in time.
        sent_percent: f64,
        /// Half of the sends were later than this.
        late_by_ns: u64,
    },
    /// The kernel refused packets of the generator.
    SendErrors(u64),
    /// The taking end did not get to its queue in time.
    OwnDrops(u64),
    /// The kernel's queue between a send and a receive queue was full.
    BacklogDrops(u64),
    /// Something else ran on the relay's CPU.
    RunDelay {
        /// Beyond the allowance, of the CPU time.
        percent: f64,
    },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::GeneratorLate { sent_percent, late_by_ns } => write!(
                f,
                "the generator is the bottleneck: {sent_percent:.1} % left in time, half of the \
                 packets more than {} late",
                crate::report::duration(*late_by_ns)
            ),
            Self::SendErrors(errors) => {
                write!(f, "the kernel refused {errors} packets of the generator")
            }
            Self::OwnDrops(drops) => write!(
                f,
                "the generator is the bottleneck: its own receive queue dropped {drops} datagrams"
            ),
            Self::BacklogDrops(drops) => {
                write!(f, "the kernel dropped {drops} packets above net.core.netdev_max_backlog")
            }
            Self::RunDelay { percent } => {
                write!(f, "something else ran on the relay's CPU: run delay {percent:.1} %")
            }
        }
    }
}

impl Turn {
    /// Why it does not count, if it does not.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        let own_drops = self.passage.own_drops;
        let sent_percent = self.sent_percent();
        let late_by_ns = self.passage.lateness.value_at_quantile(0.5);
        if sent_percent < SENT_PERCENT_MIN || late_by_ns > LATE_MAX_NS {
            return Some(Fault::GeneratorLate { sent_percent, late_by_ns });
        }
        if self.passage.send_errors > 0 {
            return Some(Fault::SendErrors(self.passage.send_errors));
        }
        if own_drops > 0 {
            return Some(Fault::OwnDrops(own_drops));
        }
        if self.backlog_drops > 0 {
            return Some(Fault::BacklogDrops(self.backlog_drops));
        }
        let percent = self.run_delay_percent();
        (percent > RUN_DELAY_PERCENT_MAX).then_some(Fault::RunDelay { percent })
    }

    /// Run delay, as a share of the turn's length.
    #[must_use]
    pub fn run_delay_percent(&self) -> f64 {
        self.cpu.run_delay_ns as f64 * 100.0 / self.passage.elapsed_ns.max(1) as f64
    }

    /// Share of the packets due in the turn that left in it.
    #[must_use]
    pub fn sent_percent(&self) -> f64 {
        self.passage.sent_in_time as f64 * 100.0 / self.passage.due.max(1) as f64
    }

    /// Packets that left per second.
    #[must_use]
    pub fn offered_pps(&self) -> f64 {
        self.passage.sent_in_time as f64 * 1e9 / self.passage.elapsed_ns as f64
    }

    /// CPU time per packet that came out; `None` without a relay, or when nothing did.
    #[must_use]
    pub fn cpu_ns_per_packet(&self) -> Option<f64> {
        let received = self.passage.tally.received;
        (self.cpu.cpu_ns > 0 && received > 0).then(|| self.cpu.cpu_ns as f64 / received as f64)
    }

    /// Packets that came out per second.
    #[must_use]
    pub fn delivered_pps(&self) -> f64 {
        self.passage.received_in_time as f64 * 1e9 / self.passage.elapsed_ns as f64
    }

    /// Packets that were sent and did not arrive.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.passage.sent.saturating_sub(self.passage.tally.received)
    }
}

/// What [`Contestant::drops`] calls datagrams that found a receive queue full.
pub const QUEUE_OVERFLOWS: &str = "receive_queue_overflow";
const RUN_DELAY_PERCENT_MAX: f64 = 2.0;
const SENT_PERCENT_MIN: f64 = 99.0;
/// More than one turn of the sending loop takes; a generator that is behind by more is not the one
/// that was asked for.
const LATE_MAX_NS: u64 = 100_000;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::payload::{self, Tally};

    /// A second in which everything due left in time, at 3 us of CPU time per packet received.
    pub(crate) fn turn(sent: u64, received: u64) -> Turn {
        let passage = Passage {
            due: sent,
            sent_in_time: sent,
            sent,
            tally: Tally { received, ..Tally::default() },
            strays: 0,
            latency: payload::nanoseconds(),
            lateness: payload::nanoseconds(),
            elapsed_ns: SECOND,
            received_in_time: received,
            seconds: Vec::new(),
            own_drops: 0,
            send_errors: 0,
            sessions: Vec::new(),
        };
        let cpu = CpuTime { cpu_ns: received * 3_000, run_delay_ns: 0 };
        Turn { passage, cpu, io: None, backlog_drops: 0 }
    }

    #[test]
    fn a_turn_in_which_the_relay_waited_for_its_cpu_does_not_count() {
        let mut turn = turn(1_000, 1_000);
        turn.cpu.run_delay_ns = SECOND / 50;
        assert_eq!(turn.fault(), None);
        turn.cpu.run_delay_ns = SECOND / 10;
        assert_eq!(turn.fault(), Some(Fault::RunDelay { percent: 10.0 }));
    }

    #[test]
    fn packets_that_the_kernel_refused_were_no_load() {
        let mut turn = turn(1_000, 1_000);
        turn.passage.send_errors = 32;
        assert_eq!(turn.fault(), Some(Fault::SendErrors(32)));
    }

    #[test]
    fn each_round_begins_with_another_contestant() {
        assert_eq!(order(3, 0).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(order(3, 4).collect::<Vec<_>>(), [1, 2, 0]);
    }

    #[test]
    fn a_generator_that_does_not_keep_its_schedule_is_the_bottleneck() {
        let mut slow = turn(1_000, 1_000);
        slow.passage.sent_in_time = 900;
        assert!(matches!(slow.fault(), Some(Fault::GeneratorLate { .. })));
        let mut late = turn(1_000, 1_000);
        late.passage.lateness.record_n(LATE_MAX_NS * 2, 1_000).unwrap();
        assert!(matches!(late.fault(), Some(Fault::GeneratorLate { .. })));
    }

    #[test]
    fn a_turn_in_which_the_tool_itself_lost_packets_does_not_count() {
        let mut turn = turn(1_000, 990);
        turn.passage.own_drops = 10;
        assert_eq!(turn.fault(), Some(Fault::OwnDrops(10)));
    }

    #[test]
    fn what_a_relay_loses_is_no_fault_of_the_turn() {
        let turn = turn(1_000, 600);
        assert_eq!((turn.fault(), turn.lost()), (None, 400));
    }

    #[test]
    fn relays_are_named_as_in_the_tables() {
        for name in ["uring", "loop", "nginx", "nginx-4m", "direct"] {
            assert_eq!(name.parse::<Kind>().unwrap().label(), name);
        }
        assert!("ngnix".parse::<Kind>().unwrap_err().contains("nginx-4m"));
    }

    #[test]
    fn only_ringway_is_tuned() {
        let tuning = Tuning { gro: false, shards: 2, ..Tuning::default() };
        let entrant = |name: &str| Entrant::new(name.parse().unwrap(), tuning);
        assert_eq!(entrant("uring").tuning, tuning);
        assert_eq!(entrant("loop").tuning, Tuning { shards: 2, ..Tuning::default() });
    }

    #[test]
    fn drop_counters_are_read_with_their_reasons() {
        let text = "ringway_drops_total{reason=\"too_short\"} 4\n\
                    ringway_receive_queue_overflows_total 7\nringway_other_total 1\n";
        let expected = [("too_short".to_owned(), 4), (QUEUE_OVERFLOWS.to_owned(), 7)];
        assert_eq!(drops_in(text), expected);
    }
}
