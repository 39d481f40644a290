//! The relay under test: Ringway with a chosen engine, or one of the baselines that it is compared
//! with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use ringway::config::{Config, EngineChoice, InductionRate, Listen, Offload, StaticOrigin};
use ringway::relay::{Relay, Signals};

use crate::baseline::{self, Baseline};
use crate::http;
use crate::measure;
use crate::registration::Endpoints;

/// Which relay.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Ringway with the best engine that runs here.
    Auto,
    /// Ringway on `io_uring`.
    Uring,
    /// Ringway on `recvmmsg` and `sendmmsg`.
    Mmsg,
    /// Ringway on the reference engine, under `tokio-uring`.
    #[serde(rename = "tokio-uring")]
    TokioUring,
    /// The plain loop of `recvfrom` and `send`.
    Loop,
    /// A plain relay on `recvmmsg` and `sendmmsg`, without segmentation offload.
    PlainMmsg,
    /// A plain relay on tokio.
    Tokio,
    /// The plain loop as C would have it, without any abstraction.
    Bare,
}

/// What stands behind an [`Engine`].
enum Kind {
    Ringway(EngineChoice),
    Baseline(baseline::Kind),
}

impl Engine {
    /// Everything that can be said of an engine, one line each.
    fn row(self) -> (&'static str, Kind) {
        match self {
            Self::Auto => ("auto", Kind::Ringway(EngineChoice::Auto)),
            Self::Uring => ("uring", Kind::Ringway(EngineChoice::Uring)),
            Self::Mmsg => ("mmsg", Kind::Ringway(EngineChoice::Mmsg)),
            Self::TokioUring => ("tokio-uring", Kind::Ringway(EngineChoice::TokioUring)),
            Self::Loop => ("loop", Kind::Baseline(baseline::Kind::Loop)),
            Self::PlainMmsg => ("plain-mmsg", Kind::Baseline(baseline::Kind::PlainMmsg)),
            Self::Tokio => ("tokio", Kind::Baseline(baseline::Kind::Tokio)),
            Self::Bare => ("bare", Kind::Baseline(baseline::Kind::Bare)),
        }
    }

    /// As the command line and the tables show it.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.row().0
    }

    /// Whether it is one of the baselines, not Ringway.
    #[must_use]
    pub fn is_baseline(self) -> bool {
        matches!(self.row().1, Kind::Baseline(_))
    }
}

/// How a relay is started for a measurement.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Setup {
    /// Which one.
    pub engine: Engine,
    /// Its only origin. The relay listens on the loopback address of the same family, on ports that
    /// the kernel chooses.
    pub origin: Endpoints,
    /// The CPUs of the relaying threads, which take them in turn: threads beyond their number share.
    pub cpus: Vec<usize>,
    /// The CPUs of everything else in the process; empty: anywhere.
    pub other_cpus: Vec<usize>,
    /// What differs from a relay as it comes.
    pub tuning: Tuning,
}

/// What of a relay's configuration a measurement changes. The default changes nothing but the
/// number of shards, which is one.
///
/// Baselines have shards, too, but nothing else of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tuning {
    /// Relaying threads.
    pub shards: u16,
    /// `--gro auto` instead of `--gro off`.
    pub gro: bool,
    /// `--gso auto` instead of `--gso off`.
    pub gso: bool,
    /// `--batch-wait`
    pub batch_wait: Option<Duration>,
    /// Raises what a source may have and how fast it may come, so that this many sessions of one
    /// address are let in at once, and keeps them while their relay is stopped; 0: as it comes.
    pub sessions_at_once: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { shards: 1, gro: true, gso: true, batch_wait: None, sessions_at_once: 0 }
    }
}

impl Tuning {
    fn apply(self, config: &mut Config) {
        config.shards = Some(self.shards);
        config.batch_wait = self.batch_wait;
        config.gso = if self.gso { Offload::Auto } else { Offload::Off };
        config.gro = if self.gro { Offload::Auto } else { Offload::Off };
        let sessions = self.sessions_at_once;
        if sessions > 0 {
            config.sessions_per_source = config.sessions_per_source.max(sessions);
            config.new_per_source = config.new_per_source.max(sessions);
            config.pending_max = config.pending_max.max(sessions);
            config.pending_per_source = config.pending_per_source.max(sessions);
            let InductionRate { total, per_prefix } = config.induction_rate;
            let per_prefix = per_prefix.max(sessions.saturating_mul(2)).min(total);
            config.induction_rate = InductionRate { total, per_prefix };
            config.srt_idle_timeout = IDLE_TIMEOUT;
            config.webrtc_idle_timeout = IDLE_TIMEOUT;
        }
    }

    /// The flags that do the same, for the set-up of a result.
    #[must_use]
    pub fn flags(self) -> String {
        let mut config = Config::default();
        self.apply(&mut config);
        let gro = if self.gro { "auto" } else { "off" };
        let mut flags = format!("--shards {} --gro {gro}", self.shards);
        if !self.gso {
            flags += " --gso off";
        }
        if let Some(wait) = self.batch_wait {
            flags += &format!(" --batch-wait {}us", wait.as_micros());
        }
        if self.sessions_at_once > 0 {
            let InductionRate { total, per_prefix } = config.induction_rate;
            flags += &format!(
                " --sessions-per-source {} --new-per-source {} --pending-max {} \
                 --pending-per-source {} --induction-rate {total},{per_prefix} \
                 --srt-idle-timeout {}s --webrtc-idle-timeout {}s",
                config.sessions_per_source,
                config.new_per_source,
                config.pending_max,
                config.pending_per_source,
                config.srt_idle_timeout.as_secs(),
                config.webrtc_idle_timeout.as_secs(),
            );
        }
        flags
    }
}

impl Setup {
    /// One relaying thread on `cpu` and everything else elsewhere, if there is an elsewhere.
    #[must_use]
    pub fn new(engine: Engine, origin: Endpoints, cpu: usize) -> Self {
        let other_cpus = measure::allowed_cpus().into_iter().filter(|other| *other != cpu);
        let (cpus, other_cpus) = (vec![cpu], other_cpus.collect());
        Self { engine, origin, cpus, other_cpus, tuning: Tuning::default() }
    }

    /// Where the relay listens: a port of the kernel's choice.
    fn listen(&self) -> SocketAddr {
        let ip = match self.origin.ip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        SocketAddr::new(ip, 0)
    }

    fn config(&self, engine: EngineChoice) -> Config {
        let listen = Listen::At(self.listen());
        let origin = self.origin;
        let mut config = Config {
            srt_listen: listen,
            webrtc_listen: listen,
            http_listen: listen,
            system_listen: listen,
            origins: vec![StaticOrigin {
                srt: origin.srt,
                rtc: origin.rtc,
                api: origin.api,
                ..StaticOrigin::at("emulator", origin.ip)
            }],
            engine,
            cpus: Some(self.cpus.clone()),
            control_cpu: self.other_cpus.first().copied(),
            ..Config::default()
        };
        self.tuning.apply(&mut config);
        config
    }
}

/// A running relay.
pub struct Subject {
    /// Where SRT callers connect to.
    pub address: SocketAddr,
    /// How WebRTC clients come to it; `None` where it does not take them.
    pub webrtc: Option<WebrtcEntrance>,
    /// The first thread that relays.
    pub tid: i32,
    /// All threads that relay.
    pub tids: Vec<i32>,
    /// What it does its I/O with.
    pub engine: &'static str,
    /// Where Ringway's metrics are; `None` for baselines.
    pub system: Option<SocketAddr>,
    _relay: Running,
}

/// How WebRTC clients come to a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebrtcEntrance {
    /// Where offers are posted.
    pub http: SocketAddr,
    /// Where the media go if not to the candidate of the answer: a baseline does not serve HTTP and
    /// changes no answers, so its clients ask the origin and are told this way.
    pub media_via: Option<SocketAddr>,
}

enum Running {
    Ringway { _relay: Box<Relay> },
    Baseline { _relay: Baseline },
}

impl Subject {
    /// Starts it with one shard on `cpu`. Everything else it does stays away from that CPU, if there
    /// is another.
    ///
    /// # Errors
    /// The relay does not start, for the reason it gives.
    pub fn start(engine: Engine, origin: Endpoints, cpu: usize) -> anyhow::Result<Self> {
        Self::start_as(&Setup::new(engine, origin, cpu))
    }

    /// Starts it. A baseline relays one protocol: SRT, unless the origin has WebRTC alone.
    ///
    /// # Errors
    /// The relay does not start, for the reason it gives.
    pub fn start_as(setup: &Setup) -> anyhow::Result<Self> {
        match setup.engine.row() {
            (_, Kind::Ringway(choice)) => Self::start_ringway(setup, choice),
            (label, Kind::Baseline(kind)) => Self::start_baseline(setup, label, kind),
        }
    }

    fn start_ringway(setup: &Setup, choice: EngineChoice) -> anyhow::Result<Self> {
        let relay =
            Relay::start(setup.config(choice), Signals::Ignored).context("start Ringway")?;
        let tids: Vec<i32> = relay.shards().iter().map(|shard| shard.tid).collect();
        Ok(Self {
            address: relay.srt_address().context("Ringway does not listen for SRT")?,
            webrtc: webrtc_entrance(&relay),
            tid: *tids.first().context("Ringway runs without a shard")?,
            tids,
            engine: relay.engine(),
            system: relay.system_address(),
            _relay: Running::Ringway { _relay: Box::new(relay) },
        })
    }

    fn start_baseline(
        setup: &Setup,
        label: &'static str,
        kind: baseline::Kind,
    ) -> anyhow::Result<Self> {
        let origin = setup.origin;
        let port = origin.srt.or(origin.rtc).context("the origin has no port to relay to")?;
        let media = SocketAddr::new(origin.ip, port);
        let turns = setup.cpus.iter().copied().map(Some).cycle();
        let cpus: Vec<_> = turns.take(usize::from(setup.tuning.shards)).collect();
        let relay = Baseline::start(kind, setup.listen(), media, &cpus)
            .with_context(|| format!("start the baseline {label}"))?;
        let (address, tids) = (relay.address(), relay.tids().to_vec());
        let webrtc = origin.api.filter(|_| origin.srt.is_none()).map(|api| WebrtcEntrance {
            http: SocketAddr::new(origin.ip, api),
            media_via: Some(address),
        });
        let tid = *tids.first().context("the baseline runs without a thread")?;
        let relay = Running::Baseline { _relay: relay };
        Ok(Self { address, webrtc, tid, tids, engine: label, system: None, _relay: relay })
    }

    /// Datagrams and sends so far, as Ringway's metrics count them. `None` for baselines, which
    /// count nothing.
    #[must_use]
    pub fn sends(&self) -> Option<Sends> {
        let io = IoCounts::read(self.system?).ok()?;
        Some(Sends { datagrams: io.sent, sends: io.sends })
    }
}

/// What Ringway's metrics say about its I/O, summed over its shards: so far, or between two
/// readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IoCounts {
    /// Datagrams received.
    pub received: f64,
    /// Receives that brought them; a coalesced train is one.
    pub receives: f64,
    /// Datagrams sent.
    pub sent: f64,
    /// Sends that carried them.
    pub sends: f64,
    /// System calls of the packet path.
    pub syscalls: f64,
    /// Times that a shard woke up.
    pub wakeups: f64,
}

impl IoCounts {
    /// Asks the relay whose system API is at `system`. This wakes each of its shards once.
    ///
    /// # Errors
    /// It does not answer, or its metrics lack one of these.
    pub fn read(system: SocketAddr) -> anyhow::Result<Self> {
        let answer = http::get(system, "/metrics").context("read the relay's metrics")?;
        Self::parse(&answer.body)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let of = |name: &str, label: &str| {
            metric(text, name, label).with_context(|| format!("the relay has no metric {name}"))
        };
        Ok(Self {
            received: of("ringway_packets_total", r#"dir="in""#)?,
            receives: of("ringway_receives_total", "")?,
            sent: of("ringway_send_batch_segments_sum", "")?,
            sends: of("ringway_send_batch_segments_count", "")?,
            syscalls: of("ringway_syscalls_total", "")?,
            wakeups: of("ringway_wakeups_total", "")?,
        })
    }

    /// What came after `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            received: self.received - before.received,
            receives: self.receives - before.receives,
            sent: self.sent - before.sent,
            sends: self.sends - before.sends,
            syscalls: self.syscalls - before.syscalls,
            wakeups: self.wakeups - before.wakeups,
        }
    }
}

/// How datagrams left.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Sends {
    /// Datagrams sent.
    pub datagrams: f64,
    /// Sends that carried them.
    pub sends: f64,
}

impl Sends {
    /// What came after `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { datagrams: self.datagrams - before.datagrams, sends: self.sends - before.sends }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { datagrams: self.datagrams + other.datagrams, sends: self.sends + other.sends }
    }

    /// Datagrams per send.
    #[must_use]
    pub fn per_send(self) -> f64 {
        self.datagrams / self.sends.max(1.0)
    }
}

/// Where a relay takes WebRTC clients.
fn webrtc_entrance(relay: &Relay) -> Option<WebrtcEntrance> {
    relay.webrtc_address()?;
    Some(WebrtcEntrance { http: relay.http_address()?, media_via: None })
}

/// The sum of a metric over its samples whose labels hold `label`, from Prometheus text.
fn metric(text: &str, name: &str, label: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        (rest.starts_with('{') || rest.starts_with(' ')).then(|| rest.rsplit_once(' '))?
    });
    let values = values.filter(|(labels, _)| labels.contains(label));
    let mut values = values.filter_map(|(_, value)| value.parse::<f64>().ok()).peekable();
    values.peek()?;
    Some(values.sum())
}

/// Longer than any measurement: a stopped relay finds its sessions silent for as long as it was
/// stopped.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_sum_over_its_samples() {
        let text =
            "# HELP a_sum x\na_sum{shard=\"0\"} 3\na_sum{shard=\"1\"} 4\na_sum_other 9\nb 1.5\n";
        assert_eq!(metric(text, "a_sum", ""), Some(7.0));
        assert_eq!(metric(text, "a_sum", "shard=\"1\""), Some(4.0));
        assert_eq!(metric(text, "b", ""), Some(1.5));
        assert_eq!(metric(text, "c", ""), None);
    }

    #[test]
    fn a_relay_without_a_metric_is_named_with_it() {
        let error = IoCounts::parse("ringway_packets_total{dir=\"in\"} 1\n").unwrap_err();
        assert!(error.to_string().contains("ringway_receives_total"), "{error}");
    }

    #[test]
    fn batches_are_averaged_over_an_interval() {
        let before = Sends { datagrams: 100.0, sends: 100.0 };
        let after = Sends { datagrams: 420.0, sends: 110.0 };
        assert!((after.since(before).per_send() - 32.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_relay_is_started_as_it_comes_unless_tuned() {
        let mut config = Config::default();
        Tuning::default().apply(&mut config);
        assert_eq!(config.new_per_source, Config::default().new_per_source);
        assert_eq!(config.srt_idle_timeout, Config::default().srt_idle_timeout);
        assert_eq!(Tuning::default().flags(), "--shards 1 --gro auto");
    }

    #[test]
    fn limits_rise_with_the_sessions_of_one_address() {
        let mut config = Config::default();
        let tuning = Tuning { sessions_at_once: 3_000, ..Tuning::default() };
        tuning.apply(&mut config);
        assert_eq!((config.sessions_per_source, config.pending_per_source), (3_000, 3_000));
        assert!(tuning.flags().contains("--new-per-source 3000"), "{}", tuning.flags());
    }

    #[test]
    fn an_engine_is_written_as_it_is_typed() {
        for engine in <Engine as clap::ValueEnum>::value_variants() {
            let json = serde_json::to_string(engine).unwrap();
            assert_eq!(json, format!("\"{}\"", engine.label()));
            assert_eq!(clap::ValueEnum::from_str(engine.label(), false), Ok(*engine));
        }
    }
}
