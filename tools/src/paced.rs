//! The measurement of WebRTC: many sessions at a fixed rate, beside the plain loop.
//!
//! Every relay has its own origin and clients, all connected from the start; the relays take turns,
//! so that what else the machine does hits all of them, and those whose turn it is not have nothing
//! to do. Delivery and latency are those of all turns together. CPU time is that of the relaying
//! thread, per datagram of any kind that came out of the relay.
//!
//! Paced means: what a datagram costs at this rate, wake-ups included. What it costs a relay that is
//! never idle is another figure, and `run srt` has it; the two must not be compared.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;

use crate::batch::SocketOptions;
use crate::clock;
use crate::generator::Roles;
use crate::hdr;
use crate::measure::{self, CpuTime, Host, ThreadId};
use crate::pair::{Pair, Totals};
use crate::place::Place;
use crate::registration::Endpoints;
use crate::report::{Percentiles, duration, grouped};
use crate::result::{Better, Cell, Outcome, name};
use crate::subject::{Engine, Sends, Subject};
use crate::webrtc::generator::{Generator, GeneratorSettings};
use crate::webrtc::origin::{Origin, OriginSettings};
use crate::webrtc::station::MediaArguments;
use crate::worker::{Worker, await_sessions};

/// `ringway-bench run webrtc`
#[derive(Clone, Debug, clap::Args)]
pub struct PacedArguments {
    /// Relays to compare
    #[arg(long, value_enum, value_delimiter = ',', default_value = "auto,loop")]
    engines: Vec<Engine>,
    /// Clients of each relay: the even ones publish, the odd ones play
    #[arg(long, default_value_t = 500)]
    sessions: usize,
    #[command(flatten)]
    media: MediaArguments,
    /// How long each relay is measured, over all of its turns
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Turns of each relay
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    turns: u32,
    /// For everything that looks random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the result here as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What one relay did.
#[derive(Clone, Debug)]
struct Figure {
    engine: &'static str,
    is_baseline: bool,
    sessions: u64,
    seconds: f64,
    /// Media packets that clients and origin sent.
    packets_in: u64,
    /// Media packets that arrived, each counted once.
    packets_out: u64,
    lost: u64,
    reordered: u64,
    duplicates: u64,
    damaged: u64,
    /// Every packet arrived once, whole and in order, and the tool itself lost nothing.
    is_clean: bool,
    /// Datagrams that the tool's own receive queues dropped: the run is void.
    own_drops: u64,
    setup: Percentiles,
    /// From when a packet was due.
    one_way: Percentiles,
    latency: Histogram<u64>,
    lateness: Percentiles,
    /// Datagrams of all kinds that came out of the relay.
    datagrams: u64,
    cpu_ns_per_datagram: f64,
    cpu_percent: f64,
    run_delay_percent: f64,
    datagrams_per_send: Option<f64>,
}

/// What all of them did.
struct PacedResult {
    /// Packets that the kernel dropped before any receive queue, from whomever.
    backlog_drops: u64,
    figures: Vec<Figure>,
}

/// Measures and prints. True when everything arrived through Ringway; what the plain loop loses is
/// its own affair, unless it was measured alone.
///
/// # Errors
/// A relay does not start, or does not let its clients in.
pub fn run(arguments: &PacedArguments) -> anyhow::Result<bool> {
    ensure!(arguments.sessions > 0, "--sessions must be at least 1");
    let Place { relay: relay_cpu, tool: tool_cpus } = &Place::apart()?;
    let host = Host::this();
    let backlog_drops = measure::backlog_drops();
    let mut contestants = Vec::new();
    for engine in &arguments.engines {
        let contestant = Contestant::build(*engine, arguments, *relay_cpu, tool_cpus);
        contestants.push(contestant.with_context(|| format!("engine {}", engine.label()))?);
    }
    measure::pin(tool_cpus).context("leave the relay's CPU")?;
    for contestant in &mut contestants {
        contestant.connect(arguments, tool_cpus)?;
    }
    print_head(arguments, &host, *relay_cpu, tool_cpus);
    for _ in 0..arguments.turns {
        for contestant in &mut contestants {
            contestant.take_turn(arguments.duration / arguments.turns)?;
        }
    }
    let figures = contestants.into_iter().map(Contestant::figure);
    let result = PacedResult {
        figures: figures.collect::<anyhow::Result<_>>()?,
        backlog_drops: measure::backlog_drops() - backlog_drops,
    };
    print_figures(&result);
    if let Some(path) = &arguments.json {
        let mut outcome = Outcome::new(METRIC, host);
        outcome.note("cpus", format!("relay {relay_cpu}, tool {tool_cpus:?}"));
        outcome.note("duration", format!("{:?} in {} turns", arguments.duration, arguments.turns));
        outcome.note("media", format!("{:?}", arguments.media.media()));
        outcome.note("seed", arguments.seed);
        let shape = arguments.shape();
        outcome.cells = result.figures.iter().map(|figure| figure.cell(&shape, &result)).collect();
        outcome.write(path)?;
    }
    Ok(is_delivered(&result.figures))
}

impl PacedArguments {
    fn shape(&self) -> String {
        let rate = self.media.media().packets_per_second() * self.sessions as f64;
        format!("WebRTC, {} sessions, {} packets/s", self.sessions, grouped(rate.round() as u64))
    }
}

impl Figure {
    /// As a result holds it.
    fn cell(&self, shape: &str, result: &PacedResult) -> Cell {
        let mut cell = Cell::new(shape, self.engine);
        let mut add = |name: &str, unit, better, value| cell.add(name, unit, better, vec![value]);
        let (lower, neither) = (Better::Lower, Better::Neither);
        add("cpu_ns_per_datagram", "ns", lower, self.cpu_ns_per_datagram);
        add(name::CPU_PERCENT, "%", lower, self.cpu_percent);
        add(name::RUN_DELAY_PERCENT, "%", lower, self.run_delay_percent);
        add(name::OFFERED_PPS, "1/s", neither, self.packets_in as f64 / self.seconds);
        add(name::DELIVERED_PPS, "1/s", Better::Higher, self.packets_out as f64 / self.seconds);
        for (name, count) in [
            (name::LOST, self.lost),
            (name::REORDERED, self.reordered),
            ("duplicates", self.duplicates),
            ("damaged", self.damaged),
        ] {
            add(name, "", lower, count as f64);
        }
        for (name, nanoseconds) in [
            (name::LATENCY_P50, self.one_way.p50_ns),
            (name::LATENCY_P90, self.latency.value_at_quantile(0.9)),
            (name::LATENCY_P99, self.one_way.p99_ns),
            (name::LATENCY_P999, self.one_way.p999_ns),
            (name::LATENCY_MAX, self.one_way.max_ns),
            ("setup_p50", self.setup.p50_ns),
            ("setup_p99", self.setup.p99_ns),
            ("lateness_p99", self.lateness.p99_ns),
        ] {
            add(name, "ns", lower, nanoseconds as f64);
        }
        add("sessions", "", neither, self.sessions as f64);
        add("datagrams", "", neither, self.datagrams as f64);
        if let Some(batch) = self.datagrams_per_send {
            add(name::SEND_BATCH, "", neither, batch);
        }
        cell.latency = hdr::encode(&self.latency);
        cell.void = if self.own_drops > 0 {
            Some(format!("own queues dropped {} datagrams", self.own_drops))
        } else if result.backlog_drops > 0 {
            Some(format!("the kernel's backlog dropped {} packets", result.backlog_drops))
        } else {
            None
        };
        cell
    }
}

fn is_delivered(figures: &[Figure]) -> bool {
    let is_only_baseline = figures.iter().all(|figure| figure.is_baseline);
    figures.iter().filter(|figure| is_only_baseline || !figure.is_baseline).all(|f| f.is_clean)
}

/// A relay with its origin and its clients.
struct Contestant {
    subject: Subject,
    is_baseline: bool,
    origin: Origin,
    clients: Option<Worker>,
    shard: ThreadId,
    /// Sums over the turns.
    totals: Totals,
    cpu: CpuTime,
    busy_ns: u64,
    /// Datagrams and sends.
    sends: Option<Sends>,
}

impl Contestant {
    fn build(
        engine: Engine,
        arguments: &PacedArguments,
        relay_cpu: usize,
        tool_cpus: &[usize],
    ) -> anyhow::Result<Self> {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let origin = Origin::start(OriginSettings {
            http: SocketAddr::new(ip, 0),
            rtc: SocketAddr::new(ip, 0),
            media: arguments.media.media(),
            sends_media: false,
            socket: STAMPED,
            cpus: tool_cpus.to_vec(),
            seed: arguments.seed.wrapping_add(1),
            ..OriginSettings::default()
        });
        let origin = origin.context("start the origin")?;
        let endpoints = Endpoints {
            ip,
            srt: None,
            rtc: Some(origin.rtc_address().port()),
            api: Some(origin.http_address().port()),
        };
        let subject = Subject::start(engine, endpoints, relay_cpu)?;
        Ok(Self {
            shard: ThreadId { pid: measure::this_thread().pid, tid: subject.tid },
            is_baseline: engine == Engine::Loop,
            subject,
            origin,
            clients: None,
            totals: Totals::default(),
            cpu: CpuTime::default(),
            busy_ns: 0,
            sends: None,
        })
    }

    fn connect(&mut self, arguments: &PacedArguments, tool_cpus: &[usize]) -> anyhow::Result<()> {
        let entrance = self.subject.webrtc.context("this relay does not take WebRTC clients")?;
        let settings = GeneratorSettings {
            roles: Roles::Both,
            media: arguments.media.media(),
            media_via: entrance.media_via,
            socket: STAMPED,
            seed: arguments.seed,
            ..GeneratorSettings::new(entrance.http, arguments.sessions)
        };
        let clients = Generator::start(settings, tool_cpus.to_vec(), false);
        let clients = self.clients.insert(clients.context("start the clients")?);
        await_sessions(clients, arguments.sessions)
    }

    fn pair(&self) -> anyhow::Result<Pair<'_>> {
        let clients = self.clients.as_ref().context("the clients have not been started")?;
        Ok(Pair { origin: self.origin.worker(), clients })
    }

    /// Has both sides send for `turn`, and adds up what came of it.
    fn take_turn(&mut self, turn: Duration) -> anyhow::Result<()> {
        let pair = self.pair()?;
        let cpu = || CpuTime::of(self.shard).context("read the relay thread's CPU time");
        let (totals, cpu_before, sends) = (pair.totals(), cpu()?, self.subject.sends());
        let start = clock::now();
        pair.send_media(true);
        clock::pause(turn);
        pair.send_media(false);
        let busy_ns = clock::now() - start;
        pair.settle(totals, LOST_AFTER);
        let since = pair.totals().since(totals);
        let cpu = cpu()?.since(cpu_before);
        let sends = self.subject.sends().zip(sends).map(|(after, before)| after.since(before));
        self.totals = Totals { sessions: since.sessions, ..self.totals.plus(since) };
        self.cpu = self.cpu.plus(cpu);
        self.busy_ns += busy_ns;
        self.sends = match (self.sends, sends) {
            (Some(sum), Some(sends)) => Some(sum.plus(sends)),
            (sum, sends) => sum.or(sends),
        };
        Ok(())
    }

    fn figure(self) -> anyhow::Result<Figure> {
        let pair = self.pair()?;
        let Self { totals, cpu, .. } = self;
        let (own_drops, latency) = (pair.own_drops(), pair.due_latency());
        let seconds = self.busy_ns as f64 / 1e9;
        Ok(Figure {
            engine: self.subject.engine,
            is_baseline: self.is_baseline,
            sessions: totals.sessions,
            seconds,
            packets_in: totals.sent,
            packets_out: totals.tally.received,
            lost: totals.lost(),
            reordered: totals.tally.reordered,
            duplicates: totals.tally.duplicates,
            damaged: totals.tally.damaged + totals.tally.foreign,
            is_clean: totals.is_clean() && own_drops == 0,
            own_drops,
            setup: Percentiles::of(&pair.clients.published().setup),
            one_way: Percentiles::of(&latency),
            latency,
            lateness: Percentiles::of(&pair.lateness()),
            datagrams: totals.datagrams,
            cpu_ns_per_datagram: cpu.cpu_ns as f64 / totals.datagrams.max(1) as f64,
            cpu_percent: cpu.cpu_ns as f64 / (seconds * 1e7),
            run_delay_percent: cpu.delay_share() * 100.0,
            datagrams_per_send: self.sends.map(Sends::per_send),
        })
    }
}

fn print_head(arguments: &PacedArguments, host: &Host, relay_cpu: usize, tool_cpus: &[usize]) {
    let media = arguments.media.media();
    println!("{METRIC}");
    println!("{}, {}", host.cpu_model, host.kernel);
    println!(
        "{} sessions, {:.0} packets/s expected, {:?} in {} turns each{}",
        arguments.sessions,
        media.packets_per_second() * arguments.sessions as f64,
        arguments.duration,
        arguments.turns,
        if media.train { ", frames as trains" } else { "" }
    );
    println!("Relays on CPU {relay_cpu}, origins and clients on {tool_cpus:?}");
    println!();
}

fn print_figures(result: &PacedResult) {
    println!(
        "{:<10} {:>5} {:>9} {:>9} {:>5} {:>5} {:>8} {:>8} {:>8} {:>5} {:>6}",
        "engine", "sess", "in", "out", "lost", "reord", "p50", "p99", "p99.9", "CPU", "ns/pkt"
    );
    for figure in &result.figures {
        println!(
            "{:<10} {:>5} {:>9} {:>9} {:>5} {:>5} {:>8} {:>8} {:>8} {:>4.0}% {:>6.0}",
            figure.engine,
            figure.sessions,
            figure.packets_in,
            figure.packets_out,
            figure.lost,
            figure.reordered,
            duration(figure.one_way.p50_ns),
            duration(figure.one_way.p99_ns),
            duration(figure.one_way.p999_ns),
            figure.cpu_percent,
            figure.cpu_ns_per_datagram,
        );
    }
    println!();
    for figure in &result.figures {
        let pps = figure.packets_in as f64 / figure.seconds.max(f64::MIN_POSITIVE);
        let batch = figure
            .datagrams_per_send
            .map_or_else(String::new, |size| format!(", {size:.2} datagrams per send"));
        println!(
            "{:<10} {} packets/s, run delay {:.1} %{batch}",
            figure.engine,
            grouped(pps.round() as u64),
            figure.run_delay_percent,
        );
        println!("           sessions set up in {}", figure.setup.line());
        println!("           sent late by {}", figure.lateness.line());
        print_faults(figure);
    }
    if result.backlog_drops > 0 {
        println!(
            "The kernel dropped {} packets above net.core.netdev_max_backlog: CPUs overloaded.",
            grouped(result.backlog_drops)
        );
    }
    println!(
        "{}",
        if is_delivered(&result.figures) {
            "OK: all arrived, in order."
        } else {
            "FAILED: see the counts above."
        }
    );
}

fn print_faults(figure: &Figure) {
    let Figure { duplicates, damaged, own_drops, .. } = figure;
    if duplicates + damaged > 0 {
        println!("           {duplicates} duplicates, {damaged} damaged");
    }
    if *own_drops > 0 {
        println!("           VOID: this tool's own receive queues dropped {own_drops} datagrams");
    }
}

const METRIC: &str = "WebRTC at a fixed rate: delivery, one-way latency, \
                      CPU ns per datagram of the relaying thread";
const STAMPED: SocketOptions =
    SocketOptions { timestamps: true, trains: false, destinations: false };
const LOST_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: PacedArguments,
    }

    #[test]
    fn everything_arrives_through_the_plain_loop_and_the_result_can_be_read() {
        let short = ["", "--engines", "loop", "--sessions", "10", "--duration", "400ms"];
        let words = short.into_iter().chain(["--turns", "2", "--shape", "mixed"]);
        let file = std::env::temp_dir().join(format!("ringway-webrtc-{}", std::process::id()));
        let json = Some(file.clone());
        let arguments = PacedArguments { json, ..CommandLine::parse_from(words).arguments };
        let is_delivered = run(&arguments).unwrap();
        let outcome = Outcome::read(&file);
        std::fs::remove_file(&file).unwrap();
        let outcome = outcome.unwrap();
        let cell = outcome.cell(&arguments.shape(), "loop").unwrap();
        assert!(is_delivered && cell.figure(name::LATENCY_P99).unwrap().median > 0.0);
        assert!(cell.figure(name::DELIVERED_PPS).unwrap().median > 0.0 && cell.latency.is_some());
    }

    #[test]
    fn the_defaults_promise_50_000_packets_per_second_of_500_sessions() {
        let arguments = CommandLine::parse_from([""]).arguments;
        let rate = arguments.media.media().packets_per_second() * arguments.sessions as f64;
        assert!(arguments.sessions >= 500 && rate >= 50_000.0, "{rate}");
    }
}
