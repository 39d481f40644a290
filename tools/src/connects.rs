//! `ringway-bench run connects`: SRT handshakes per second beside sessions with media, and thousands
//! of sessions held idle.
//!
//! Every caller makes a whole handshake with an origin behind the relay, from an address of its own
//! and out of one socket of the tool. The relay has a process of its own, with the limits per source
//! raised so that they are not what is measured; the flags are printed and stand in the set-up.

mod hold;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::account::Account;
use crate::batch::SocketOptions;
use crate::board::Counts;
use crate::clock::{self, SECOND};
use crate::generator::{Generator, GeneratorSettings, Roles};
use crate::measure::{CpuTime, Host};
use crate::origin::{Origin, OriginSettings};
use crate::pair::Pair;
use crate::place::Place;
use crate::registration::{Endpoints, Registration, reachable};
use crate::relay_process::{RelayFlags, RelayProcess};
use crate::report::{duration, grouped, median};
use crate::result::{Better, Cell, Outcome, name};
use crate::station::Media;
use crate::subject::Engine;
use crate::worker::{Worker, await_sessions};

/// `ringway-bench run connects`
#[derive(Clone, Debug, clap::Args)]
pub struct ConnectsArguments {
    /// The relay's engine
    #[arg(long, value_enum, default_value = "auto")]
    engine: Engine,
    /// Handshakes begun per second, one measurement for each
    #[arg(long, value_delimiter = ',', default_value = "1000,2000,5000", conflicts_with = "hold")]
    rates: Vec<f64>,
    /// How long handshakes are begun
    #[arg(
        long,
        default_value_t = 3,
        value_parser = clap::value_parser!(u64).range(1..=60),
        conflicts_with = "hold"
    )]
    step_seconds: u64,
    /// Measurements of each rate that count; one more comes first and does not
    #[arg(
        long,
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=99),
        conflicts_with = "hold"
    )]
    rounds: u32,
    /// Sessions with media meanwhile: the even ones publish, the odd ones play
    #[arg(long, default_value_t = 100)]
    live: usize,
    /// Media packets per second and live session
    #[arg(long, default_value_t = 50.0)]
    live_rate: f64,
    /// Instead: connect --sessions at --connect-rate, leave them idle with their keepalives, and
    /// measure what they cost
    #[arg(long)]
    hold: bool,
    /// Sessions to hold
    #[arg(long, default_value_t = 15_000, requires = "hold")]
    sessions: usize,
    /// Handshakes begun per second on the way there
    #[arg(long, default_value_t = 5_000.0, requires = "hold")]
    connect_rate: f64,
    /// How long they are held
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration, requires = "hold")]
    hold_for: Duration,
    /// Descriptors that the relay may have while it holds them
    #[arg(long, default_value_t = 20_000, requires = "hold", conflicts_with = "target")]
    descriptors: u64,
    /// Use the running relay whose SRT listener this is; its limits have to allow the rates
    #[arg(long, value_name = "IP:PORT", conflicts_with = "engine")]
    target: Option<SocketAddr>,
    /// The running relay's process on this machine: its CPU time and memory are read from there
    #[arg(long, value_name = "PID", requires = "target")]
    pid: Option<i32>,
    /// Where the origin emulator listens; a running relay has to relay to it
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    origin: SocketAddr,
    /// Register the origin emulator with the running relay's system API, as http://HOST:PORT
    #[arg(long, value_name = "URL")]
    register: Option<String>,
    /// Write the result here as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures and prints. Whether every rate was reached without a loss on the live sessions, neither
/// of the relay's nor of the tool's own.
///
/// # Errors
/// Something could not be started, or the live sessions could not connect.
pub fn run(arguments: &ConnectsArguments) -> anyhow::Result<bool> {
    ensure!(
        arguments.rates.iter().all(|rate| (1.0..=100_000.0).contains(rate)),
        "--rates {:?}: each has to be between 1 and 100000",
        arguments.rates
    );
    ensure!(
        !arguments.hold || arguments.target.is_none() || arguments.pid.is_some(),
        "--hold measures memory: say with --pid which process the running relay is"
    );
    let stage = Stage::new(arguments)?;
    let mut outcome = Outcome::new("SRT connects", Host::this());
    stage.describe(&mut outcome);
    let holds = if arguments.hold {
        hold::run(&stage, &mut outcome)?
    } else {
        stage.run_rates(&mut outcome)?
    };
    if let Some(path) = &arguments.json {
        outcome.write(path)?;
    }
    Ok(holds)
}

/// What all measurements share.
struct Stage<'a> {
    arguments: &'a ConnectsArguments,
    flags: RelayFlags,
    place: Place,
    /// Of the running relay, where its process is known.
    running: Option<Account>,
}

/// An origin, a relay before it, and sessions with media.
struct Scene {
    origin: Origin,
    relay: Option<RelayProcess>,
    /// Of the relay, wherever it was started.
    account: Option<Account>,
    target: SocketAddr,
    live: Option<Worker>,
}

/// One rate in one round.
struct Round {
    offered: f64,
    counts: Counts,
    took_s: f64,
    setup_ns: [u64; 3],
    live_sent: u64,
    live_lost: u64,
    own_drops: u64,
    cpu: Option<CpuTime>,
}

impl<'a> Stage<'a> {
    fn new(arguments: &'a ConnectsArguments) -> anyhow::Result<Self> {
        let place = match arguments.target {
            Some(_) => Place::beside_running()?,
            None => Place::apart()?,
        };
        let running = arguments.pid.zip(arguments.target);
        let running =
            running.map(|(pid, address)| Account::of_running(pid, address)).transpose()?;
        place.leave_relay()?;
        let mut flags = RelayFlags::without_limits(arguments.engine, place.relay, place.control());
        flags.descriptors = arguments.hold.then_some(arguments.descriptors);
        Ok(Self { arguments, flags, place, running })
    }

    fn describe(&self, outcome: &mut Outcome) {
        let ConnectsArguments { rounds, step_seconds, live, live_rate, .. } = self.arguments;
        outcome.note("live sessions", format!("{live} at {live_rate} packets/s"));
        if self.arguments.target.is_some() {
            outcome.note("relay", "running already");
        } else {
            println!("Limits of the relay: {}", self.flags.limits());
            outcome.note("relay limits", self.flags.limits());
            let Place { relay, tool } = &self.place;
            outcome.note("cpus", format!("relay {relay}, tool {tool:?}"));
        }
        if !self.arguments.hold {
            outcome.note("rounds", format!("{rounds} of {step_seconds} s, one before dropped"));
        }
    }

    /// All rates in turn, round by round; the first round does not count.
    fn run_rates(&self, outcome: &mut Outcome) -> anyhow::Result<bool> {
        let rates = &self.arguments.rates;
        let mut rounds: Vec<Vec<Round>> = rates.iter().map(|_| Vec::new()).collect();
        let mut engine = self.arguments.engine.label().to_owned();
        print_head();
        for number in 0..=self.arguments.rounds {
            for (rate, rounds) in rates.iter().zip(&mut rounds) {
                let scene = self.open()?;
                if let Some(relay) = &scene.relay {
                    relay.engine().clone_into(&mut engine);
                }
                let round = scene.round(self, *rate)?;
                print_round(&round, number == 0);
                if number > 0 {
                    rounds.push(round);
                }
            }
        }
        let mut holds = true;
        println!();
        for (rate, rounds) in rates.iter().zip(&rounds) {
            let all_held = rounds.iter().all(Round::holds);
            let cell = self.cell(*rate, &engine, rounds);
            holds &= all_held && cell.void.is_none();
            println!("{}", verdict(*rate, all_held, rounds, cell.void.as_deref()));
            outcome.cells.push(cell);
        }
        Ok(holds)
    }

    /// A fresh origin and relay, and live sessions that have media already.
    fn open(&self) -> anyhow::Result<Scene> {
        let arguments = self.arguments;
        let media = Media { rate: arguments.live_rate, ..Media::default() };
        let settings = OriginSettings {
            media,
            sends_media: false,
            sessions_max: SESSIONS_MAX,
            socket: STAMPED,
            cpus: self.place.tool.clone(),
            ..OriginSettings::new(arguments.origin)
        };
        let origin = Origin::start(settings)
            .with_context(|| format!("start the origin on {}", arguments.origin))?;
        let endpoints = Endpoints::srt(reachable(origin.address()?));
        if let Some(url) = &arguments.register {
            Registration::new(url, endpoints)?.post()?;
        }
        let relay = match arguments.target {
            Some(_) => None,
            None => Some(RelayProcess::start(&self.flags, endpoints)?),
        };
        let target = match (&relay, arguments.target) {
            (Some(relay), _) => relay.srt()?,
            (None, target) => target.context("no relay")?,
        };
        let live = (arguments.live > 0).then(|| {
            let settings = GeneratorSettings {
                media,
                socket: STAMPED,
                stream_prefix: "live/steady".to_owned(),
                ..GeneratorSettings::new(target, arguments.live)
            };
            let live = Generator::start(settings, self.place.tool.clone(), false)?;
            await_sessions(&live, arguments.live).context("the live sessions")?;
            let pair = Pair { origin: origin.worker(), clients: &live };
            pair.send_media(true);
            clock::pause(WARM_UP);
            anyhow::Ok(live)
        });
        let account = relay.as_ref().map(|relay| relay.account().clone());
        let account = account.or_else(|| self.running.clone());
        Ok(Scene { live: live.transpose()?, origin, relay, account, target })
    }

    fn cell(&self, rate: f64, engine: &str, rounds: &[Round]) -> Cell {
        let live = self.arguments.live;
        let shape = format!("{} SRT connects/s, {live} live sessions", grouped(rate as u64));
        let subject = if self.arguments.target.is_some() { "running" } else { engine };
        let mut cell = Cell::new(shape, subject);
        let all = |value: &dyn Fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<_>>();
        let mut add = |name, unit, better, value: &dyn Fn(&Round) -> f64| {
            cell.add(name, unit, better, all(value));
        };
        add(name::CONNECTS_PER_SECOND, "1/s", Better::Higher, &Round::per_second);
        for (name, index) in [("setup_p50", 0), ("setup_p99", 1), ("setup_max", 2)] {
            add(name, "ns", Better::Lower, &|round| {
                round.setup_ns.get(index).copied().unwrap_or(0) as f64
            });
        }
        add("refused", "", Better::Lower, &|round| round.counts.refused as f64);
        add("unanswered", "", Better::Lower, &|round| round.counts.timed_out as f64);
        add("live_sent", "", Better::Neither, &|round| round.live_sent as f64);
        add(name::LOST, "", Better::Lower, &|round| round.live_lost as f64);
        if rounds.iter().all(|round| round.cpu.is_some()) {
            let cpu = |round: &Round| round.cpu.unwrap_or_default();
            add(name::CPU_PERCENT, "%", Better::Lower, &|round| {
                cpu(round).cpu_ns as f64 / (round.took_s * SECOND as f64) * 100.0
            });
            add(name::RUN_DELAY_PERCENT, "%", Better::Lower, &|round| {
                cpu(round).delay_share() * 100.0
            });
        }
        let own_drops: u64 = rounds.iter().map(|round| round.own_drops).sum();
        cell.void = (own_drops > 0).then(|| format!("own queues dropped {own_drops} datagrams"));
        cell
    }
}

impl Scene {
    /// Begins `rate` handshakes per second and waits until each has ended one way or the other.
    fn round(&self, stage: &Stage<'_>, rate: f64) -> anyhow::Result<Round> {
        let callers = (rate * stage.arguments.step_seconds as f64) as usize;
        let pair =
            self.live.as_ref().map(|live| Pair { origin: self.origin.worker(), clients: live });
        // What is in flight at one moment is counted as lost, so the account is of the whole time
        // that the live sessions have media and is drawn up when everything has arrived.
        let drops_before = self.origin.receive_drops();
        let cpu_before = self.account.as_ref().map(Account::shard_cpu).transpose()?;
        let started = clock::now();
        let settings = GeneratorSettings {
            roles: Roles::Publish,
            connect_rate: rate,
            stream_prefix: "live/connect".to_owned(),
            seed: 7,
            ..GeneratorSettings::new(self.target, callers)
        };
        let clients = Generator::start(settings, stage.place.tool.clone(), false)
            .context("start the callers")?;
        let is_settled = |c: &Counts| c.connected + c.refused + c.timed_out >= callers as u64;
        clients.wait_for(Duration::from_secs(stage.arguments.step_seconds) + PATIENCE, is_settled);
        let took_s = clock::now().saturating_sub(started) as f64 / SECOND as f64;
        let cpu = self.account.as_ref().map(Account::shard_cpu).transpose()?;
        let cpu = cpu.zip(cpu_before).map(|(after, before)| after.since(&before));
        let (published, own_drops) = (clients.published(), clients.receive_drops());
        let (live_sent, live_lost, live_drops) = pair.map_or((0, 0, 0), |pair| {
            pair.send_media(false);
            pair.settle(crate::pair::Totals::default(), PATIENCE);
            let totals = pair.totals();
            (totals.sent, totals.lost(), pair.clients.receive_drops())
        });
        let own_drops =
            own_drops + live_drops + self.origin.receive_drops().saturating_sub(drops_before);
        drop(clients);
        let setup_ns = [0.5, 0.99, 1.0].map(|share| published.setup.value_at_quantile(share));
        let counts = published.counts;
        Ok(Round { offered: rate, counts, took_s, setup_ns, live_sent, live_lost, own_drops, cpu })
    }
}

impl Round {
    fn per_second(&self) -> f64 {
        self.counts.connected as f64 / self.took_s
    }

    /// All came in at the rate at which they were begun, and no live session lost a packet.
    fn holds(&self) -> bool {
        let Counts { refused, timed_out, .. } = self.counts;
        let is_complete = refused + timed_out == 0 && self.counts.connected > 0;
        is_complete && self.live_lost == 0 && self.per_second() >= self.offered * RATE_MIN
    }
}

fn print_head() {
    println!(
        "{:>10} {:>11} {:>8} {:>10} {:>10} {:>10} {:>10}",
        "begun/s", "completed/s", "failed", "setup p50", "setup p99", "live lost", "shard CPU"
    );
}

fn print_round(round: &Round, is_dropped: bool) {
    let Counts { refused, timed_out, .. } = round.counts;
    let cpu = round.cpu.map_or("-".to_owned(), |cpu| {
        format!("{:.0} %", cpu.cpu_ns as f64 / (round.took_s * SECOND as f64) * 100.0)
    });
    let [p50, p99, _] = round.setup_ns;
    println!(
        "{:>10} {:>11} {:>8} {:>10} {:>10} {:>10} {cpu:>10}{}",
        grouped(round.offered as u64),
        grouped(round.per_second() as u64),
        grouped(refused + timed_out),
        duration(p50),
        duration(p99),
        grouped(round.live_lost),
        if is_dropped { "  (does not count)" } else { "" }
    );
}

fn verdict(rate: f64, held: bool, rounds: &[Round], void: Option<&str>) -> String {
    let per_second: Vec<f64> = rounds.iter().map(Round::per_second).collect();
    let completed = grouped(median(&per_second).unwrap_or(0.0) as u64);
    let rate = grouped(rate as u64);
    match (void, held) {
        (Some(why), _) => format!("VOID: {why}; of {rate} connects/s nothing is known."),
        (None, true) => format!("{rate} connects/s: holds; {completed} completed, nothing lost."),
        (None, false) => format!("{rate} connects/s: DOES NOT HOLD; {completed} completed."),
    }
}

const STAMPED: SocketOptions =
    SocketOptions { timestamps: true, trains: false, destinations: false };
const SESSIONS_MAX: usize = 100_000;
const WARM_UP: Duration = Duration::from_millis(500);
/// Longer than a caller tries.
const PATIENCE: Duration = Duration::from_secs(5);
/// The board that is waited for changes every 50 ms, and the last handshakes take a moment.
const RATE_MIN: f64 = 0.93;

#[cfg(test)]
mod tests {
    use super::*;

    fn round(connected: u64, timed_out: u64, live_lost: u64, took_s: f64) -> Round {
        Round {
            offered: 1_000.0,
            counts: Counts { connected, timed_out, ..Counts::default() },
            took_s,
            setup_ns: [1, 2, 3],
            live_sent: 100,
            live_lost,
            own_drops: 0,
            cpu: None,
        }
    }

    #[test]
    fn a_rate_holds_when_all_came_in_in_time_and_nothing_was_lost() {
        assert!(round(3_000, 0, 0, 3.05).holds());
        assert!(!round(2_999, 1, 0, 3.05).holds());
        assert!(!round(3_000, 0, 1, 3.05).holds());
        assert!(!round(3_000, 0, 0, 4.0).holds());
    }
}
