//! The demo: relay, origin and callers in one process, a live table, and a verdict.
//!
//! The relay's one shard has a CPU of its own; the origin emulator and the callers share another.
//! Every packet is stamped just before it is handed to the kernel, and the kernel stamps it when it
//! reaches the receiving socket, so latency does not depend on how busy the receiving thread is.
//! The same callers first talk to the origin directly: what the way through the relay takes beyond
//! that run's median is the latency that the relay adds.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;

use crate::batch::SocketOptions;
use crate::board::Counts;
use crate::clock;
use crate::generator::{Generator, GeneratorSettings, Roles};
use crate::measure::{self, CpuTime, Host, ThreadId};
use crate::origin::{Origin, OriginSettings};
use crate::payload::Tally;
use crate::report::{Percentiles, duration, grouped, write_json};
use crate::station::Media;
use crate::subject::{Engine, Subject};
use crate::worker::Worker;

/// `ringway-bench demo`
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArguments {
    /// The relay's engine; `loop` is the plain relay of the measurements
    #[arg(long, value_enum, default_value = "auto")]
    pub engine: Engine,
    /// Callers: the even ones publish, the odd ones play
    #[arg(long, default_value_t = 120)]
    pub sessions: usize,
    /// Media packets per second and session
    #[arg(long, default_value_t = 200.0)]
    pub rate: f64,
    /// Payload bytes of a media packet
    #[arg(long, default_value_t = 1_316, value_parser = clap::value_parser!(u16).range(48..=1_456))]
    pub size: u16,
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
#[derive(Clone, Debug, serde::Serialize)]
pub struct DemoResult {
    host: Host,
    engine: &'static str,
    sessions: usize,
    rate: f64,
    size: u16,
    seconds: f64,
    /// Media packets that callers and origin sent.
    packets_in: u64,
    /// Media packets that arrived, each counted once.
    packets_out: u64,
    lost: u64,
    reordered: u64,
    duplicates: u64,
    damaged: u64,
    /// Datagrams that the tool's own receive queues dropped. Not the relay's fault, but the run is
    /// void.
    own_drops: u64,
    /// Packets that the kernel dropped before any receive queue, from whomever. Not the relay's
    /// fault either.
    backlog_drops: u64,
    /// One way, without the relay.
    direct: Percentiles,
    /// One way, through the relay.
    relayed: Percentiles,
    /// `relayed` less the median of `direct`.
    added: Percentiles,
    /// How much later than intended packets were sent.
    lateness: Percentiles,
    /// Datagrams of all kinds that came out of the relay.
    datagrams: u64,
    cpu_ns_per_datagram: f64,
    cpu_percent: f64,
    run_delay_percent: f64,
    datagrams_per_send: Option<f64>,
}

impl DemoResult {
    /// Whether every packet arrived once and in order, and the tool itself lost nothing.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.packets_in > 0
            && self.packets_in == self.packets_out
            && [self.lost, self.reordered, self.duplicates, self.damaged, self.own_drops] == [0; 5]
    }
}

/// Runs the demo and prints it.
///
/// # Errors
/// Something could not be started, or callers could not connect.
pub fn run(arguments: &DemoArguments) -> anyhow::Result<DemoResult> {
    ensure!(arguments.sessions > 0, "--sessions must be at least 1");
    let cpus = measure::allowed_cpus();
    let relay_cpu = *cpus.first().context("this process may use no CPU")?;
    let tool_cpus: Vec<usize> = cpus.iter().copied().filter(|cpu| *cpu != relay_cpu).collect();
    println!(
        "Ringway demo: {} sessions x {} packets/s of {} bytes",
        arguments.sessions, arguments.rate, arguments.size
    );
    match tool_cpus.as_slice() {
        [] => println!("Only one CPU: relay, origin and callers share it, so latency says little."),
        [first, ..] => {
            println!("Relay on CPU {relay_cpu}; origin and callers from CPU {first} on.")
        }
    }
    // The main thread's own wake-ups stay off the relay's CPU, and the threads it starts inherit
    // that.
    let tool_cpus = if tool_cpus.is_empty() { vec![relay_cpu] } else { tool_cpus };
    let stage = Stage::build(arguments, &tool_cpus)?;
    let direct = stage.calibrate()?;
    println!("Direct path:  {}", direct.line());
    let subject = Subject::start(arguments.engine, stage.origin.address()?, relay_cpu)?;
    measure::pin(&tool_cpus).context("leave the relay's CPU")?;
    let callers = stage.connect(subject.address)?;
    println!(
        "{} sessions connected through {} in {}.",
        arguments.sessions,
        subject.address,
        setup_time(&callers)
    );
    println!();
    let result = stage.perform(&subject, &callers, direct)?;
    print_summary(&result);
    if let Some(path) = &arguments.json {
        write_json(path, &result)?;
    }
    Ok(result)
}

/// Origin and settings that both parts of the demo use.
struct Stage<'a> {
    arguments: &'a DemoArguments,
    host: Host,
    origin: Origin,
    cpus: Vec<usize>,
}

impl<'a> Stage<'a> {
    fn build(arguments: &'a DemoArguments, cpus: &[usize]) -> anyhow::Result<Self> {
        let origin = Origin::start(OriginSettings {
            media: media(arguments),
            sends_media: false,
            socket: SocketOptions { timestamps: true, ..SocketOptions::default() },
            cpus: cpus.to_vec(),
            seed: arguments.seed.wrapping_add(1),
            ..OriginSettings::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        });
        Ok(Self {
            arguments,
            host: Host::this(),
            origin: origin.context("start the origin")?,
            cpus: cpus.to_vec(),
        })
    }

    /// The same load without a relay, in a few parts. The part with the lowest median counts: others
    /// that work on this machine can only make the direct path look slow and the relay look good.
    fn calibrate(&self) -> anyhow::Result<Percentiles> {
        let before = self.origin.counts();
        let callers = self.connect(self.origin.address()?)?;
        self.send_media(&callers, true);
        let mut parts = Vec::new();
        for _ in 0..CALIBRATION_PARTS {
            self.origin.reset_histograms();
            callers.reset_histograms();
            clock::pause(CALIBRATION_PART.min(self.arguments.duration));
            parts.push(Percentiles::of(&self.latency(&callers)?));
        }
        self.send_media(&callers, false);
        self.settle(&callers, &before);
        callers.stop().context("stop the callers")?;
        ensure!(
            self.origin.wait_for(PATIENCE, |counts| counts.open == 0),
            "the origin kept sessions open"
        );
        let quietest =
            parts.into_iter().filter(|part| part.count > 0).min_by_key(|part| part.p50_ns);
        quietest.context("nothing arrived on the direct path")
    }

    fn connect(&self, target: SocketAddr) -> anyhow::Result<Worker> {
        let sessions = self.arguments.sessions;
        let settings = GeneratorSettings {
            roles: Roles::Both,
            media: media(self.arguments),
            socket: SocketOptions { timestamps: true, ..SocketOptions::default() },
            seed: self.arguments.seed,
            ..GeneratorSettings::new(target, sessions)
        };
        let callers =
            Generator::start(settings, self.cpus.clone(), false).context("start the callers")?;
        let all = sessions as u64;
        let is_settled =
            |counts: &Counts| counts.connected + counts.refused + counts.timed_out >= all;
        callers.wait_for(PATIENCE, is_settled);
        let Counts { connected, refused, refusal, timed_out, .. } = callers.counts();
        ensure!(
            connected == all,
            "{connected} of {all} callers connected; \
             {refused} refused (last type {refusal}), {timed_out} unanswered"
        );
        Ok(callers)
    }

    fn perform(
        &self,
        subject: &Subject,
        callers: &Worker,
        direct: Percentiles,
    ) -> anyhow::Result<DemoResult> {
        self.origin.reset_histograms();
        callers.reset_histograms();
        let origin_before = self.origin.counts();
        let shard = ThreadId { pid: measure::this_thread().pid, tid: subject.tid };
        let (before, sends_before) = (self.reading(callers, shard)?, subject.sends());
        self.send_media(callers, true);
        let watched_until = self.watch(callers, shard, before)?;
        self.send_media(callers, false);
        self.settle(callers, &origin_before);
        let after = self.reading(callers, shard)?;
        // Totals are published with a delay; after settling they are complete, and the thread has
        // slept since.
        let (sends_after, cpu) = (subject.sends(), after.cpu.since(before.cpu));
        let relayed = Percentiles::of(&self.latency(callers)?);
        let lateness = self.lateness(callers)?;
        let arguments = self.arguments;
        let tally = after.tally_since(before);
        let (packets_in, packets_out) = (after.sent - before.sent, tally.received);
        let seconds = (watched_until - before.at) as f64 / 1e9;
        let datagrams = after.datagrams - before.datagrams;
        Ok(DemoResult {
            host: self.host.clone(),
            engine: subject.engine,
            sessions: arguments.sessions,
            rate: arguments.rate,
            size: arguments.size,
            seconds,
            packets_in,
            packets_out,
            lost: packets_in.saturating_sub(packets_out),
            reordered: tally.reordered,
            duplicates: tally.duplicates,
            damaged: tally.damaged + tally.foreign,
            backlog_drops: measure::backlog_drops() - before.backlog_drops,
            own_drops: self.origin.receive_drops() + callers.receive_drops(),
            direct,
            relayed,
            added: relayed.less(direct.p50_ns),
            lateness,
            datagrams,
            cpu_ns_per_datagram: cpu.cpu_ns as f64 / datagrams.max(1) as f64,
            cpu_percent: cpu.cpu_ns as f64 / (seconds * 1e7),
            run_delay_percent: cpu.delay_share() * 100.0,
            datagrams_per_send: sends_after
                .zip(sends_before)
                .map(|(after, before)| after.per_send_since(before)),
        })
    }

    /// Shows a line per second until the time is over; returns when that was.
    fn watch(&self, callers: &Worker, shard: ThreadId, start: Reading) -> anyhow::Result<u64> {
        println!(
            "{:>5} {:>8} {:>8} {:>8} {:>5} {:>5} {:>8} {:>8} {:>5} {:>7}",
            "time", "sessions", "in pps", "out pps", "lost", "reord", "p50", "p99", "CPU", "ns/pkt"
        );
        let mut histogram = crate::payload::nanoseconds();
        let mut last = start;
        let total = u64::try_from(self.arguments.duration.as_nanos()).unwrap_or(u64::MAX / 2);
        while last.at < start.at + total {
            let left = Duration::from_nanos(start.at + total - last.at.min(start.at + total));
            clock::pause(left.min(Duration::from_secs(1)));
            let now = self.reading(callers, shard)?;
            let latency = self.latency(callers)?;
            let mut interval = latency.clone();
            // The same bounds, and never more than the total it is a part of.
            let _ = interval.subtract(&histogram);
            histogram = latency;
            println!("{}", line(start, last, now, &Percentiles::of(&interval)));
            last = now;
        }
        Ok(last.at)
    }

    fn send_media(&self, callers: &Worker, on: bool) {
        self.origin.send_media(on);
        callers.send_media(on);
    }

    /// Waits until everything sent has arrived, or nothing more will. The origin's totals count
    /// from `before` on.
    fn settle(&self, callers: &Worker, before: &Counts) {
        // Both sides must have seen the order to stop before their totals mean anything.
        clock::pause(Duration::from_millis(200));
        self.origin.wait_for(PATIENCE, |origin| {
            let caller = callers.counts();
            origin.media.received - before.media.received >= caller.sent
                && caller.media.received >= origin.sent - before.sent
        });
    }

    fn reading(&self, callers: &Worker, shard: ThreadId) -> anyhow::Result<Reading> {
        let (origin, caller) = (self.origin.counts(), callers.counts());
        Ok(Reading {
            at: clock::now(),
            cpu: CpuTime::of(shard).context("read the relay thread's CPU time")?,
            sessions: caller.open,
            sent: origin.sent + caller.sent,
            datagrams: origin.datagrams_in + caller.datagrams_in,
            backlog_drops: measure::backlog_drops(),
            tallies: [origin.media, caller.media],
        })
    }

    fn latency(&self, callers: &Worker) -> anyhow::Result<Histogram<u64>> {
        let mut both = self.origin.stats().latency;
        both.add(callers.published().latency).context("add two histograms")?;
        Ok(both)
    }

    fn lateness(&self, callers: &Worker) -> anyhow::Result<Percentiles> {
        let mut both = self.origin.stats().lateness;
        both.add(callers.published().lateness).context("add two histograms")?;
        Ok(Percentiles::of(&both))
    }
}

/// Both sides' totals at one moment.
#[derive(Clone, Copy)]
struct Reading {
    at: u64,
    cpu: CpuTime,
    sessions: u64,
    sent: u64,
    datagrams: u64,
    backlog_drops: u64,
    tallies: [Tally; 2],
}

impl Reading {
    fn tally(self) -> Tally {
        let [origin, callers] = self.tallies;
        Tally {
            received: origin.received + callers.received,
            reordered: origin.reordered + callers.reordered,
            duplicates: origin.duplicates + callers.duplicates,
            missing: origin.missing + callers.missing,
            damaged: origin.damaged + callers.damaged,
            foreign: origin.foreign + callers.foreign,
        }
    }

    fn tally_since(self, before: Self) -> Tally {
        let (now, before) = (self.tally(), before.tally());
        Tally {
            received: now.received - before.received,
            reordered: now.reordered - before.reordered,
            duplicates: now.duplicates - before.duplicates,
            missing: now.missing.saturating_sub(before.missing),
            damaged: now.damaged - before.damaged,
            foreign: now.foreign - before.foreign,
        }
    }
}

fn line(start: Reading, last: Reading, now: Reading, latency: &Percentiles) -> String {
    let seconds = (now.at - last.at).max(1) as f64 / 1e9;
    let per_second = |packets: u64| grouped((packets as f64 / seconds).round() as u64);
    let (cpu, tally) = (now.cpu.since(last.cpu), now.tally_since(start));
    let datagrams = (now.datagrams - last.datagrams).max(1);
    format!(
        "{:>4.0}s {:>8} {:>8} {:>8} {:>5} {:>5} {:>8} {:>8} {:>4.0}% {:>7.0}",
        (now.at - start.at) as f64 / 1e9,
        now.sessions,
        per_second(now.sent - last.sent),
        per_second(now.tally_since(last).received),
        tally.missing,
        tally.reordered,
        duration(latency.p50_ns),
        duration(latency.p99_ns),
        cpu.cpu_ns as f64 / (seconds * 1e7),
        cpu.cpu_ns as f64 / datagrams as f64,
    )
}

fn print_summary(result: &DemoResult) {
    let batch =
        result.datagrams_per_send.map_or_else(String::new, |size| format!(", {size:.2} per send"));
    println!();
    println!("Sessions       {} ({} engine)", result.sessions, result.engine);
    println!(
        "Packets        {} in, {} out",
        grouped(result.packets_in),
        grouped(result.packets_out)
    );
    println!(
        "               {} lost, {} reordered, {} duplicates, {} damaged",
        result.lost, result.reordered, result.duplicates, result.damaged
    );
    println!("One way        {}", result.relayed.line());
    println!("  direct       {}", result.direct.line());
    println!("  added        {}", result.added.line());
    println!("Sent late      {}", result.lateness.line());
    println!(
        "Relay thread   {:.0} ns CPU per datagram, {:.1} % of a CPU, run delay {:.1} %",
        result.cpu_ns_per_datagram, result.cpu_percent, result.run_delay_percent
    );
    println!("               {} datagrams with ACKs and ACKACKs{batch}", grouped(result.datagrams));
    if result.own_drops > 0 {
        println!(
            "VOID: this tool's own receive queues dropped {} datagrams.",
            grouped(result.own_drops)
        );
    }
    if result.backlog_drops > 0 {
        println!(
            "The kernel dropped {} packets above net.core.netdev_max_backlog: CPUs overloaded.",
            grouped(result.backlog_drops)
        );
    }
    if result.relayed.p50_ns < result.direct.p50_ns {
        println!("The direct path was disturbed by other work: the added latency means nothing.");
    }
    if result.run_delay_percent > BUSY_PERCENT {
        println!("The relay had to wait for its CPU: other work runs there, latency says little.");
    }
    println!(
        "{}",
        if result.is_clean() {
            "OK: all arrived, in order."
        } else {
            "FAILED: see the counts above."
        }
    );
}

fn setup_time(callers: &Worker) -> String {
    let setup = Percentiles::of(&callers.published().setup);
    format!("p50 {}, max {}", duration(setup.p50_ns), duration(setup.max_ns))
}

fn media(arguments: &DemoArguments) -> Media {
    Media { rate: arguments.rate, size: usize::from(arguments.size), ..Media::default() }
}

/// Run delay, as a share of CPU time, above which a reader should not trust the tail.
const BUSY_PERCENT: f64 = 10.0;
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
            duration: Duration::from_millis(300),
            seed: 1,
            json: None,
        };
        let result = run(&arguments).unwrap();
        assert!(result.is_clean(), "{result:?}");
        assert!(result.cpu_ns_per_datagram > 0.0);
    }
}
