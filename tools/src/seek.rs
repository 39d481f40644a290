//! `ringway-bench seek`: the highest rate that a relay holds.
//!
//! A rate is held while at most 0.01 % is lost and nine of ten packets arrive within a bound. The
//! rate is found by bisection; each probe has a fresh origin, relay and clients, a second to warm up
//! that does not count, and time for everything in flight to arrive before it is judged. A probe in
//! which the tool itself was late or dropped says nothing about the relay, and no figure is made of
//! it.

mod bisect;
mod probe;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;

pub use self::bisect::{Found, Span, Verdict, bisect};
use self::probe::{Measured, Stage};
use crate::generator::Roles;
use crate::measure::Host;
use crate::report::{duration, grouped};
use crate::result::{Better, Cell, Outcome, name};
use crate::subject::Engine;

/// `ringway-bench seek`
#[derive(Clone, Debug, clap::Args)]
pub struct SeekArguments {
    /// What the sessions speak
    #[arg(long, value_enum, default_value = "srt")]
    pub protocol: Protocol,
    /// The relay's engine, where the relay is started here
    #[arg(long, value_enum, default_value = "auto")]
    pub engine: Engine,
    /// Sessions that share the rate
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub sessions: u32,
    /// What the clients do
    #[arg(long, value_enum, default_value = "both")]
    pub role: Roles,
    /// The lowest rate to try, in packets per second of all sessions together
    #[arg(long, default_value_t = 5_000.0)]
    pub from: f64,
    /// The highest rate to try
    #[arg(long, default_value_t = 1_000_000.0)]
    pub to: f64,
    /// How close the highest rate that holds and the lowest that fails have to be
    #[arg(long, default_value_t = 0.05, value_name = "SHARE")]
    pub tolerance: f64,
    /// How long a probe lasts after its warm-up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub step_seconds: u64,
    /// What nine of ten packets may take one way
    #[arg(long, default_value = "5ms", value_parser = humantime::parse_duration)]
    pub p90_max: Duration,
    /// What may be lost, in per cent
    #[arg(long, default_value_t = 0.01, value_name = "PERCENT")]
    pub loss_max: f64,
    /// Packets of one session that leave together
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub burst: u16,
    /// Send each burst as one segmented datagram train (UDP_SEGMENT)
    #[arg(long)]
    pub train: bool,
    /// Bytes of a packet: the payload with SRT, all of it with WebRTC
    #[arg(long, default_value_t = 1_200, value_parser = clap::value_parser!(u16).range(100..=1_400))]
    pub size: u16,
    /// Use the running relay whose SRT listener this is
    #[arg(long, value_name = "IP:PORT", conflicts_with = "http")]
    pub target: Option<SocketAddr>,
    /// Use the running relay whose WHIP and WHEP listener this is
    #[arg(long, value_name = "IP:PORT")]
    pub http: Option<SocketAddr>,
    /// The running relay's process on this machine: its CPU time is read from there
    #[arg(long, value_name = "PID")]
    pub pid: Option<i32>,
    /// Where the origin emulator takes SRT callers or WebRTC media; a running relay has to relay to
    /// it
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub origin: SocketAddr,
    /// Where the origin emulator serves WHIP and WHEP
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub origin_http: SocketAddr,
    /// Register the origin emulator with the running relay's system API, as http://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub register: Option<String>,
    /// For everything that looks random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the result here as well
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What is relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// Secure Reliable Transport.
    Srt,
    /// ICE checks and RTP.
    Webrtc,
}

impl Protocol {
    fn label(self) -> &'static str {
        match self {
            Self::Srt => "SRT",
            Self::Webrtc => "WebRTC",
        }
    }
}

/// Searches, and shows each probe as it ends. Whether a rate was found that the relay holds.
///
/// # Errors
/// Something could not be started, or clients could not connect.
pub fn run(arguments: &SeekArguments) -> anyhow::Result<bool> {
    check(arguments)?;
    let stage = Stage::new(arguments)?;
    let mut outcome = outcome(arguments, &stage);
    print_head(arguments);
    let span = Span { from: arguments.from, to: arguments.to, tolerance: arguments.tolerance };
    let mut probes: Vec<Cell> = Vec::new();
    let mut highest: Option<(f64, f64)> = None;
    let found = bisect(span, |rate| {
        let measured = stage.probe(rate)?;
        let verdict = judge(arguments, &measured);
        print_probe(&measured, &verdict);
        let shape = format!("{}, {} packets/s", stage.shape(), grouped(rate as u64));
        let again = probes.iter().any(|cell| cell.shape == shape);
        let shape = if again { format!("{shape}, repeated") } else { shape };
        if verdict == Verdict::Held && highest.is_none_or(|(asked, _)| asked <= rate) {
            highest = Some((rate, measured.delivered_per_second()));
        }
        probes.push(measured.into_cell(shape, stage.subject(), &verdict));
        anyhow::Ok(verdict)
    })?;
    let delivered = highest.map(|(_, delivered)| delivered);
    println!("\n{}", sentence(arguments, &found, delivered));
    outcome.cells.push(result_cell(arguments, &stage, &found, delivered));
    outcome.cells.append(&mut probes);
    if let Some(path) = &arguments.json {
        outcome.write(path)?;
    }
    Ok(matches!(found, Found::Highest { .. } | Found::AllHeld))
}

fn check(arguments: &SeekArguments) -> anyhow::Result<()> {
    let SeekArguments { from, to, tolerance, .. } = *arguments;
    ensure!(from > 0.0 && to > from, "--from {from} has to be above 0 and below --to {to}");
    ensure!(
        (0.001..=1.0).contains(&tolerance),
        "--tolerance {tolerance} has to be between 0.001 and 1"
    );
    ensure!(
        arguments.pid.is_none() || arguments.target.or(arguments.http).is_some(),
        "--pid names the process of a running relay: say with --target or --http where it listens"
    );
    match arguments.protocol {
        Protocol::Srt => {
            ensure!(arguments.http.is_none(), "--http names a relay of WebRTC: use --target");
        }
        Protocol::Webrtc => {
            ensure!(arguments.target.is_none(), "--target names a relay of SRT: use --http");
        }
    }
    Ok(())
}

fn outcome(arguments: &SeekArguments, stage: &Stage<'_>) -> Outcome {
    let mut outcome = Outcome::new("The highest rate that holds", Host::this());
    let SeekArguments { step_seconds, p90_max, loss_max, burst, train, size, .. } = arguments;
    outcome.note("method", "bisection, a failing probe repeated once");
    outcome.note("protocol", arguments.protocol.label());
    outcome.note("sessions", arguments.sessions);
    outcome.note("role", stage.role());
    outcome.note("span", format!("{} to {} packets/s", arguments.from, arguments.to));
    outcome.note("tolerance", arguments.tolerance);
    outcome.note("probe", format!("{step_seconds} s after a warm-up of 1 s"));
    outcome.note("held while", format!("loss <= {loss_max} %, p90 <= {p90_max:?}"));
    let train = if *train { ", as trains" } else { "" };
    outcome.note("packets", format!("{size} B, {burst} at a time{train}"));
    outcome.note("cpus", stage.placement());
    outcome
}

/// What a probe says about the relay, if anything.
fn judge(arguments: &SeekArguments, measured: &Measured) -> Verdict {
    if let Some(why) = &measured.tool_fault {
        return Verdict::Spoilt(why.clone());
    }
    let bound = u64::try_from(arguments.p90_max.as_nanos()).unwrap_or(u64::MAX);
    let (loss, p90) = (measured.loss_percent(), measured.latency.value_at_quantile(0.9));
    let why = if loss > arguments.loss_max {
        format!("lost {loss:.3} %")
    } else if p90 > bound {
        format!("p90 {}", duration(p90))
    } else {
        // Whoever disturbed the relay did not keep it from holding the rate.
        return Verdict::Held;
    };
    match measured.run_delay_percent() {
        Some(percent) if percent > RUN_DELAY_PERCENT_MAX => Verdict::Spoilt(format!(
            "{why}, but something else ran on the relay's CPU: run delay {percent:.1} %"
        )),
        _ => Verdict::Failed(why),
    }
}

fn print_head(arguments: &SeekArguments) {
    println!(
        "{} over {} sessions; held while loss <= {} % and p90 <= {:?}\n",
        arguments.protocol.label(),
        arguments.sessions,
        arguments.loss_max,
        arguments.p90_max
    );
    println!(
        "{:>12} {:>12} {:>9} {:>10} {:>10} {:>9}  verdict",
        "offered/s", "delivered/s", "loss %", "p90", "p99", "CPU ns/p"
    );
}

fn print_probe(measured: &Measured, verdict: &Verdict) {
    let cost = measured.cpu_ns_per_packet().map_or("-".to_owned(), |cost| format!("{cost:.0}"));
    let verdict = match verdict {
        Verdict::Held => "held".to_owned(),
        Verdict::Failed(why) => format!("failed: {why}"),
        Verdict::Spoilt(why) => format!("void: {why}"),
    };
    println!(
        "{:>12} {:>12} {:>9.3} {:>10} {:>10} {cost:>9}  {verdict}",
        grouped(measured.offered_per_second() as u64),
        grouped(measured.delivered_per_second() as u64),
        measured.loss_percent(),
        duration(measured.latency.value_at_quantile(0.9)),
        duration(measured.latency.value_at_quantile(0.99)),
    );
}

/// `delivered` is what came out per second in the probe of the highest rate that held.
fn sentence(arguments: &SeekArguments, found: &Found, delivered: Option<f64>) -> String {
    let rate = |rate: f64| grouped(rate as u64);
    match found {
        Found::Highest { rate: held, fails_at } => format!(
            "Held: {} packets/s delivered of {} asked for; fails at {}.",
            rate(delivered.unwrap_or(0.0)),
            rate(*held),
            rate(*fails_at)
        ),
        Found::AllHeld => {
            format!("Even {} packets/s hold: raise --to to find the limit.", rate(arguments.to))
        }
        Found::NoneHeld { why } => {
            format!("Not even {} packets/s hold ({why}): lower --from.", rate(arguments.from))
        }
        Found::GeneratorLimit { held, at, why } => {
            let held = held.map_or_else(String::new, |held| {
                format!(" The relay holds {} packets/s at least.", rate(held))
            });
            format!("No figure: at {} packets/s, {why}.{held}", rate(*at))
        }
    }
}

fn result_cell(
    arguments: &SeekArguments,
    stage: &Stage<'_>,
    found: &Found,
    delivered: Option<f64>,
) -> Cell {
    let shape = format!("{}, highest rate that holds", stage.shape());
    let mut cell = Cell::new(shape, stage.subject());
    match found {
        Found::Highest { rate, fails_at } => {
            cell.add(name::DELIVERED_PPS, "1/s", Better::Higher, Vec::from_iter(delivered));
            cell.add("highest_held_pps", "1/s", Better::Neither, vec![*rate]);
            cell.add("lowest_failing_pps", "1/s", Better::Neither, vec![*fails_at]);
        }
        Found::AllHeld => {
            cell.add("held_pps_at_least", "1/s", Better::Neither, Vec::from_iter(delivered));
        }
        Found::NoneHeld { .. } | Found::GeneratorLimit { .. } => {
            cell.void = Some(sentence(arguments, found, delivered));
        }
    }
    cell
}

/// Of the CPU time of the relaying thread. Near its limit a relay hardly sleeps, so that wake-ups
/// make none of it.
const RUN_DELAY_PERCENT_MAX: f64 = 2.0;
