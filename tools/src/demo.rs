//! The demo: relay, origins and clients in one process, a live table, and a verdict.
//!
//! SRT callers and WebRTC clients share the relay's one shard, which has a CPU of its own; the origin
//! emulators and the clients share another. Every packet is stamped just before it is handed to the
//! kernel, and the kernel stamps it when it reaches the receiving socket, so latency does not depend
//! on how busy the receiving thread is. The same clients first talk to the origins directly: what
//! the way through the relay takes beyond that run's median is the latency that the relay adds.

mod report;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;

use crate::batch::SocketOptions;
use crate::board::Counts;
use crate::clock;
use crate::generator::{Generator, GeneratorSettings};
use crate::hdr;
use crate::measure::{self, CpuTime, Host, ThreadId};
use crate::origin::{Origin, OriginSettings};
use crate::pair::{Pair, Totals};
use crate::registration::Endpoints;
use crate::report::Percentiles;
use crate::result::{Better, Cell, Outcome, name};
use crate::station::Media;
use crate::subject::{Engine, Sends, Subject, WebrtcEntrance};
use crate::webrtc;
use crate::worker::{Worker, await_sessions};

/// `ringway-bench demo`
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArguments {
    /// The relay's engine; `loop` is the plain relay of the measurements, which takes SRT alone
    #[arg(long, value_enum, default_value = "auto")]
    pub engine: Engine,
    /// SRT callers: the even ones publish, the odd ones play
    #[arg(long, default_value_t = 120)]
    pub sessions: usize,
    /// Media packets per second and SRT session
    #[arg(long, default_value_t = 200.0)]
    pub rate: f64,
    /// Payload bytes of an SRT media packet
    #[arg(long, default_value_t = 1_316, value_parser = clap::value_parser!(u16).range(48..=1_456))]
    pub size: u16,
    /// WebRTC clients with audio and video: the even ones publish, the odd ones play
    #[arg(long, default_value_t = 60)]
    pub webrtc_sessions: usize,
    /// How long the measured part lasts
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// For everything that looks random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the result here as well
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What a demo found.
#[derive(Clone, Debug)]
pub struct DemoResult {
    host: Host,
    engine: &'static str,
    seconds: f64,
    protocols: Vec<ProtocolResult>,
    all: Delivery,
    /// Datagrams that the tool's own receive queues dropped. Not the relay's fault, but the run is
    /// void.
    own_drops: u64,
    /// Packets that the kernel dropped before any receive queue, from whomever. Not the relay's
    /// fault either.
    backlog_drops: u64,
    /// Datagrams of all kinds that came out of the relay.
    datagrams: u64,
    cpu_ns_per_datagram: f64,
    cpu_percent: f64,
    run_delay_percent: f64,
    datagrams_per_send: Option<f64>,
}

/// What it found of one protocol.
#[derive(Clone, Debug)]
struct ProtocolResult {
    protocol: &'static str,
    delivery: Delivery,
    /// One way, without the relay.
    direct: Percentiles,
    /// One way, from when a packet was due to its arrival.
    due: Histogram<u64>,
    /// One way, through the relay.
    relayed: Percentiles,
    /// `relayed` less the median of `direct`.
    added: Percentiles,
    /// How much later than intended packets were sent.
    lateness: Percentiles,
}

/// What was to arrive and what did.
#[derive(Clone, Copy, Debug)]
struct Delivery {
    sessions: u64,
    /// Media packets that clients and origins sent.
    packets_in: u64,
    /// Media packets that arrived, each counted once.
    packets_out: u64,
    lost: u64,
    reordered: u64,
    duplicates: u64,
    damaged: u64,
    is_clean: bool,
}

impl Delivery {
    fn of(totals: Totals) -> Self {
        let tally = totals.tally;
        Self {
            sessions: totals.sessions,
            packets_in: totals.sent,
            packets_out: tally.received,
            lost: totals.lost(),
            reordered: tally.reordered,
            duplicates: tally.duplicates,
            damaged: tally.damaged + tally.foreign,
            is_clean: totals.is_clean(),
        }
    }
}

impl Delivery {
    fn cell(&self, shape: &str, engine: &str, seconds: f64) -> Cell {
        let mut cell = Cell::new(format!("{shape}, {} sessions", self.sessions), engine);
        let mut add = |name, unit, better, value| cell.add(name, unit, better, vec![value]);
        add(name::OFFERED_PPS, "1/s", Better::Neither, self.packets_in as f64 / seconds);
        add(name::DELIVERED_PPS, "1/s", Better::Higher, self.packets_out as f64 / seconds);
        for (name, count) in [
            (name::LOST, self.lost),
            (name::REORDERED, self.reordered),
            ("duplicates", self.duplicates),
            ("damaged", self.damaged),
        ] {
            add(name, "", Better::Lower, count as f64);
        }
        cell
    }
}

impl ProtocolResult {
    fn cell(&self, result: &DemoResult) -> Cell {
        let mut cell = self.delivery.cell(self.protocol, result.engine, result.seconds);
        let due = |quantile| self.due.value_at_quantile(quantile);
        for (name, nanoseconds) in [
            (name::LATENCY_P50, due(0.5)),
            (name::LATENCY_P90, due(0.9)),
            (name::LATENCY_P99, due(0.99)),
            (name::LATENCY_P999, due(0.999)),
            (name::LATENCY_MAX, due(1.0)),
            ("direct_latency_p50", self.direct.p50_ns),
            ("added_latency_p50", self.added.p50_ns),
            ("added_latency_p99", self.added.p99_ns),
            ("added_latency_p99.9", self.added.p999_ns),
            ("added_latency_max", self.added.max_ns),
            ("lateness_p99", self.lateness.p99_ns),
        ] {
            cell.add(name, "ns", Better::Lower, vec![nanoseconds as f64]);
        }
        cell.latency = hdr::encode(&self.due);
        cell
    }
}

impl DemoResult {
    /// As a result holds it: a cell for each protocol, and one for what they share.
    fn outcome(&self, arguments: &DemoArguments) -> Outcome {
        let mut outcome = Outcome::new("Demo", self.host.clone());
        outcome.note("srt", format!("{} packets/s of {} B", arguments.rate, arguments.size));
        outcome.note("duration", format!("{:?}", arguments.duration));
        outcome.note("seed", arguments.seed);
        let mut all = self.all.cell("both protocols", self.engine, self.seconds);
        let mut add = |name, unit, better, value| all.add(name, unit, better, vec![value]);
        add("cpu_ns_per_datagram", "ns", Better::Lower, self.cpu_ns_per_datagram);
        add("datagrams", "", Better::Neither, self.datagrams as f64);
        add(name::CPU_PERCENT, "%", Better::Lower, self.cpu_percent);
        add(name::RUN_DELAY_PERCENT, "%", Better::Lower, self.run_delay_percent);
        if let Some(batch) = self.datagrams_per_send {
            add(name::SEND_BATCH, "", Better::Neither, batch);
        }
        outcome.cells = self.protocols.iter().map(|one| one.cell(self)).collect();
        outcome.cells.push(all);
        let void = if self.own_drops > 0 {
            Some(format!("own queues dropped {} datagrams", self.own_drops))
        } else if self.backlog_drops > 0 {
            Some(format!("the kernel's backlog dropped {} packets", self.backlog_drops))
        } else {
            None
        };
        outcome.cells.iter_mut().for_each(|cell| cell.void.clone_from(&void));
        outcome
    }

    /// Whether every packet arrived once and in order, and the tool itself lost nothing.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.own_drops == 0 && self.protocols.iter().all(|protocol| protocol.delivery.is_clean)
    }
}

/// Runs the demo and prints it.
///
/// # Errors
/// Something could not be started, or clients could not connect.
pub fn run(arguments: &DemoArguments) -> anyhow::Result<DemoResult> {
    ensure!(arguments.sessions > 0, "--sessions must be at least 1");
    let cpus = measure::allowed_cpus();
    let relay_cpu = *cpus.first().context("this process may use no CPU")?;
    let tool_cpus: Vec<usize> = cpus.iter().copied().filter(|cpu| *cpu != relay_cpu).collect();
    report::print_head(arguments, relay_cpu, &tool_cpus);
    // The main thread's own wake-ups stay off the relay's CPU, and the threads it starts inherit
    // that.
    let tool_cpus = if tool_cpus.is_empty() { vec![relay_cpu] } else { tool_cpus };
    let origins = Origins::start(arguments, &tool_cpus)?;
    let subject = Subject::start(arguments.engine, origins.endpoints()?, relay_cpu)?;
    measure::pin(&tool_cpus).context("leave the relay's CPU")?;
    let takes_webrtc = subject.webrtc.is_some();
    let stage = Stage { arguments, host: Host::this(), origins, cpus: tool_cpus, takes_webrtc };
    let direct = stage.calibrate()?;
    let cast = stage.connect(subject.address, subject.webrtc)?;
    report::print_connected(&stage.acts(&cast), &direct, subject.address);
    let result = stage.perform(&subject, &cast, &direct)?;
    report::print_summary(&result);
    if let Some(path) = &arguments.json {
        result.outcome(arguments).write(path)?;
    }
    Ok(result)
}

/// The emulators.
struct Origins {
    srt: Origin,
    webrtc: webrtc::origin::Origin,
}

impl Origins {
    fn start(arguments: &DemoArguments, cpus: &[usize]) -> anyhow::Result<Self> {
        let seed = arguments.seed.wrapping_add(1);
        let srt = Origin::start(OriginSettings {
            media: media(arguments),
            sends_media: false,
            socket: STAMPED,
            cpus: cpus.to_vec(),
            seed,
            ..OriginSettings::new(SocketAddr::new(ORIGIN_IP, 0))
        });
        let webrtc = webrtc::origin::Origin::start(webrtc::origin::OriginSettings {
            http: SocketAddr::new(ORIGIN_IP, 0),
            rtc: SocketAddr::new(ORIGIN_IP, 0),
            sends_media: false,
            socket: STAMPED,
            cpus: cpus.to_vec(),
            seed,
            ..webrtc::origin::OriginSettings::default()
        });
        Ok(Self {
            srt: srt.context("start the SRT origin")?,
            webrtc: webrtc.context("start the WebRTC origin")?,
        })
    }

    fn endpoints(&self) -> anyhow::Result<Endpoints> {
        Ok(Endpoints {
            ip: ORIGIN_IP,
            srt: Some(self.srt.address()?.port()),
            rtc: Some(self.webrtc.rtc_address().port()),
            api: Some(self.webrtc.http_address().port()),
        })
    }
}

/// Origins and settings that both parts of the demo use.
struct Stage<'a> {
    arguments: &'a DemoArguments,
    host: Host,
    origins: Origins,
    cpus: Vec<usize>,
    takes_webrtc: bool,
}

/// The clients of one part.
struct Cast {
    srt: Worker,
    webrtc: Option<Worker>,
}

/// One protocol's two sides.
#[derive(Clone, Copy)]
struct Act<'a> {
    protocol: &'static str,
    pair: Pair<'a>,
}

impl Stage<'_> {
    /// The same load without a relay, in a few parts. Of each protocol the part with the lowest
    /// median counts: others that work on this machine can only make the direct path look slow and
    /// the relay look good.
    fn calibrate(&self) -> anyhow::Result<Vec<Percentiles>> {
        let entrance = WebrtcEntrance { http: self.origins.webrtc.http_address(), media_via: None };
        let cast = self.connect(self.origins.srt.address()?, Some(entrance))?;
        let acts = self.acts(&cast);
        let before: Vec<Totals> = acts.iter().map(|act| act.pair.totals()).collect();
        acts.iter().for_each(|act| act.pair.send_media(true));
        let mut quietest: Vec<Option<Percentiles>> = vec![None; acts.len()];
        for _ in 0..CALIBRATION_PARTS {
            acts.iter().for_each(|act| act.pair.reset_histograms());
            clock::pause(CALIBRATION_PART.min(self.arguments.duration));
            for (act, quietest) in acts.iter().zip(&mut quietest) {
                let part = Percentiles::of(&act.pair.latency());
                let is_quieter = quietest.is_none_or(|quietest| part.p50_ns < quietest.p50_ns);
                if part.count > 0 && is_quieter {
                    *quietest = Some(part);
                }
            }
        }
        acts.iter().for_each(|act| act.pair.send_media(false));
        acts.iter().zip(before).for_each(|(act, before)| act.pair.settle(before, PATIENCE));
        let Cast { srt, webrtc } = cast;
        srt.stop().context("stop the SRT callers")?;
        webrtc.map(Worker::stop).transpose().context("stop the WebRTC clients")?;
        let is_empty = |counts: &Counts| counts.open == 0;
        ensure!(
            self.origins.srt.wait_for(PATIENCE, is_empty)
                && self.origins.webrtc.wait_for(PATIENCE, is_empty),
            "an origin kept sessions open"
        );
        let quietest: Option<Vec<Percentiles>> = quietest.into_iter().collect();
        quietest.context("nothing arrived on the direct path")
    }

    /// Connects the clients of both protocols, WebRTC's only where the relay will take them.
    fn connect(&self, srt: SocketAddr, webrtc: Option<WebrtcEntrance>) -> anyhow::Result<Cast> {
        let arguments = self.arguments;
        let settings = GeneratorSettings {
            media: media(arguments),
            socket: STAMPED,
            seed: arguments.seed,
            ..GeneratorSettings::new(srt, arguments.sessions)
        };
        let srt = Generator::start(settings, self.cpus.clone(), false);
        let srt = srt.context("start the SRT callers")?;
        let is_wanted = self.takes_webrtc && arguments.webrtc_sessions > 0;
        let webrtc = webrtc.filter(|_| is_wanted).map(|WebrtcEntrance { http, media_via }| {
            let settings = webrtc::generator::GeneratorSettings {
                media_via,
                socket: STAMPED,
                seed: arguments.seed,
                ..webrtc::generator::GeneratorSettings::new(http, arguments.webrtc_sessions)
            };
            webrtc::generator::Generator::start(settings, self.cpus.clone(), false)
        });
        let webrtc = webrtc.transpose().context("start the WebRTC clients")?;
        await_sessions(&srt, arguments.sessions).context("SRT")?;
        if let Some(webrtc) = &webrtc {
            await_sessions(webrtc, arguments.webrtc_sessions).context("WebRTC")?;
        }
        Ok(Cast { srt, webrtc })
    }

    fn acts<'b>(&'b self, cast: &'b Cast) -> Vec<Act<'b>> {
        let pair = |origin, clients| Pair { origin, clients };
        let srt = Act { protocol: "SRT", pair: pair(self.origins.srt.worker(), &cast.srt) };
        let webrtc = cast.webrtc.as_ref().map(|clients| Act {
            protocol: "WebRTC",
            pair: pair(self.origins.webrtc.worker(), clients),
        });
        [Some(srt), webrtc].into_iter().flatten().collect()
    }

    fn perform(
        &self,
        subject: &Subject,
        cast: &Cast,
        direct: &[Percentiles],
    ) -> anyhow::Result<DemoResult> {
        let acts = self.acts(cast);
        acts.iter().for_each(|act| act.pair.reset_histograms());
        let shard = ThreadId { pid: measure::this_thread().pid, tid: subject.tid };
        let (before, sends_before) = (Reading::take(&acts, shard)?, subject.sends());
        acts.iter().for_each(|act| act.pair.send_media(true));
        let watched_until = self.watch(&acts, shard, &before)?;
        acts.iter().for_each(|act| act.pair.send_media(false));
        for (act, before) in acts.iter().zip(&before.totals) {
            act.pair.settle(*before, PATIENCE);
        }
        let after = Reading::take(&acts, shard)?;
        let since = after.since(&before);
        let protocols =
            acts.iter().zip(direct).zip(&since.totals).map(|((act, direct), totals)| {
                let relayed = Percentiles::of(&act.pair.latency());
                ProtocolResult {
                    protocol: act.protocol,
                    delivery: Delivery::of(*totals),
                    direct: *direct,
                    due: act.pair.due_latency(),
                    relayed,
                    added: relayed.less(direct.p50_ns),
                    lateness: Percentiles::of(&act.pair.lateness()),
                }
            });
        let seconds = (watched_until - before.at) as f64 / 1e9;
        let (all, cpu) = (since.all(), since.cpu);
        let per_send = |(after, before): (Sends, Sends)| after.since(before).per_send();
        Ok(DemoResult {
            host: self.host.clone(),
            engine: subject.engine,
            seconds,
            protocols: protocols.collect(),
            all: Delivery::of(all),
            own_drops: acts.iter().map(|act| act.pair.own_drops()).sum(),
            backlog_drops: since.backlog_drops,
            datagrams: all.datagrams,
            cpu_ns_per_datagram: cpu.cpu_ns as f64 / all.datagrams.max(1) as f64,
            cpu_percent: cpu.cpu_ns as f64 / (seconds * 1e7),
            run_delay_percent: cpu.delay_share() * 100.0,
            datagrams_per_send: subject.sends().zip(sends_before).map(per_send),
        })
    }

    /// Shows a line per second and protocol until the time is over; returns when that was.
    fn watch(&self, acts: &[Act<'_>], shard: ThreadId, start: &Reading) -> anyhow::Result<u64> {
        report::print_table_head();
        let mut histograms = vec![crate::payload::nanoseconds(); acts.len()];
        let mut last = start.clone();
        let end =
            start.at + u64::try_from(self.arguments.duration.as_nanos()).unwrap_or(u64::MAX / 2);
        while last.at < end {
            let left = Duration::from_nanos(end - last.at);
            clock::pause(left.min(Duration::from_secs(1)));
            let now = Reading::take(acts, shard)?;
            let latencies = acts.iter().zip(&mut histograms).map(|(act, before)| {
                let mut interval = act.pair.latency();
                let total = interval.clone();
                // The same bounds, and never more than the total it is a part of.
                let _ = interval.subtract(&*before);
                *before = total;
                Percentiles::of(&interval)
            });
            let latencies: Vec<Percentiles> = latencies.collect();
            report::print_second(acts, &latencies, start, &last, &now);
            last = now;
        }
        Ok(last.at)
    }
}

/// Everything that counts at one moment, or between two.
#[derive(Clone)]
struct Reading {
    at: u64,
    cpu: CpuTime,
    backlog_drops: u64,
    /// One for each act.
    totals: Vec<Totals>,
}

impl Reading {
    fn take(acts: &[Act<'_>], shard: ThreadId) -> anyhow::Result<Self> {
        Ok(Self {
            totals: acts.iter().map(|act| act.pair.totals()).collect(),
            at: clock::now(),
            cpu: CpuTime::of(shard).context("read the relay thread's CPU time")?,
            backlog_drops: measure::backlog_drops(),
        })
    }

    fn since(&self, before: &Self) -> Self {
        let totals = self.totals.iter().zip(&before.totals);
        Self {
            totals: totals.map(|(now, before)| now.since(*before)).collect(),
            at: self.at - before.at,
            cpu: self.cpu.since(before.cpu),
            backlog_drops: self.backlog_drops - before.backlog_drops,
        }
    }

    fn all(&self) -> Totals {
        self.totals.iter().fold(Totals::default(), |sum, totals| sum.plus(*totals))
    }
}

fn media(arguments: &DemoArguments) -> Media {
    Media { rate: arguments.rate, size: usize::from(arguments.size), ..Media::default() }
}

const ORIGIN_IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const STAMPED: SocketOptions =
    SocketOptions { timestamps: true, trains: false, destinations: false };
const CALIBRATION_PARTS: usize = 4;
const CALIBRATION_PART: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_demo_over_the_plain_loop_loses_nothing() {
        let arguments = DemoArguments {
            engine: Engine::Loop,
            sessions: 10,
            rate: 50.0,
            size: 1_316,
            webrtc_sessions: 4,
            duration: Duration::from_millis(300),
            seed: 1,
            json: None,
        };
        let result = run(&arguments).unwrap();
        assert!(result.is_clean(), "{result:?}");
        let outcome = result.outcome(&arguments);
        let shapes: Vec<&str> = outcome.cells.iter().map(|cell| cell.shape.as_str()).collect();
        assert_eq!(shapes, ["SRT, 10 sessions", "both protocols, 10 sessions"]);
        let figure = |cell: &Cell, name| cell.figure(name).map(|figure| figure.median);
        assert!(figure(&outcome.cells[0], name::LATENCY_P50) > Some(0.0));
        assert!(figure(&outcome.cells[1], "cpu_ns_per_datagram") > Some(0.0));
    }

    #[test]
    fn both_protocols_play_together_without_a_relay() {
        let arguments = DemoArguments {
            engine: Engine::Auto,
            sessions: 4,
            rate: 50.0,
            size: 1_316,
            webrtc_sessions: 4,
            duration: Duration::from_millis(100),
            seed: 1,
            json: None,
        };
        let stage = Stage {
            origins: Origins::start(&arguments, &[]).unwrap(),
            arguments: &arguments,
            host: Host::this(),
            cpus: Vec::new(),
            takes_webrtc: true,
        };
        let direct = stage.calibrate().unwrap();
        assert!(direct.len() == 2 && direct.iter().all(|part| part.count > 0), "{direct:?}");
    }
}
