//! `ringway-bench run whip`: WHIP requests per second.
//!
//! A few connections each post an offer, wait for the answer, end the session by DELETE and begin
//! anew, once with connections that stay and once with a fresh one for every request. This is a closed
//! loop: a request waits for the answer before it, so a slow relay is asked less often, and its
//! latencies are those of this rate and of no other. The relay has a process of its own. As long as it leaves a part of its CPU idle the tool is what limits the
//! rate; then the rate is called what it is, a lower bound.

mod client;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;

use self::client::Client;
use crate::account::Account;
use crate::clock::{self, SECOND};
use crate::measure::Host;
use crate::payload;
use crate::place::Place;
use crate::registration::{Endpoints, Registration, reachable};
use crate::relay_process::{RelayFlags, RelayProcess};
use crate::report::{duration, grouped, median};
use crate::result::{Better, Cell, Outcome, name};
use crate::subject::Engine;
use crate::webrtc::origin::{Origin, OriginSettings};
use crate::webrtc::sdp::{self, Credentials};

/// `ringway-bench run whip`
#[derive(Clone, Debug, clap::Args)]
pub struct WhipArguments {
    /// Requests that wait for their answers at the same time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    connections: u32,
    /// How long a round lasts after a warm-up of half a second
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    step_seconds: u64,
    /// Rounds that count; one more comes first and does not
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Use the running relay whose WHIP listener this is; its limits per source have to allow the
    /// rate
    #[arg(long, value_name = "IP:PORT")]
    http: Option<SocketAddr>,
    /// The running relay's process on this machine: its CPU time is read from there
    #[arg(long, value_name = "PID", requires = "http")]
    pid: Option<i32>,
    /// Where the origin emulator takes media; a running relay has to relay to it
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    origin: SocketAddr,
    /// Where the origin emulator serves WHIP
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    origin_http: SocketAddr,
    /// Register the origin emulator with the running relay's system API, as http://HOST:PORT
    #[arg(long, value_name = "URL")]
    register: Option<String>,
    /// Write the result here as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures and prints. Whether every request was answered as it should be.
///
/// # Errors
/// Something could not be started, or a request was refused.
pub fn run(arguments: &WhipArguments) -> anyhow::Result<bool> {
    let place = match arguments.http {
        Some(_) => Place::beside_running()?,
        None => Place::apart()?,
    };
    let running = arguments.pid.zip(arguments.http);
    let running = running.map(|(pid, address)| Account::of_running(pid, address)).transpose()?;
    place.leave_relay()?;
    let Place { relay: relay_cpu, tool: tool_cpus } = place;
    let origin = Origin::start(OriginSettings {
        http: arguments.origin_http,
        rtc: arguments.origin,
        sends_media: false,
        cpus: tool_cpus.clone(),
        ..OriginSettings::default()
    })
    .context("start the origin")?;
    let endpoints = Endpoints {
        ip: reachable(origin.rtc_address()).ip(),
        srt: None,
        rtc: Some(origin.rtc_address().port()),
        api: Some(origin.http_address().port()),
    };
    if let Some(url) = &arguments.register {
        Registration::new(url, endpoints)?.post()?;
    }
    let mut outcome = Outcome::new("WHIP requests", Host::this());
    // HTTP is the control thread's work, so it is the one that gets a CPU of its own.
    let flags = RelayFlags::without_limits(Engine::Auto, relay_cpu, relay_cpu);
    let relay = match arguments.http {
        Some(_) => None,
        None => Some(RelayProcess::start(&flags, endpoints)?),
    };
    if relay.is_some() {
        println!("Limits of the relay: {}", flags.limits());
        outcome.note("relay limits", flags.limits());
        outcome.note("cpus", format!("relay {relay_cpu}, tool {tool_cpus:?}"));
    }
    let http = match (&relay, arguments.http) {
        (Some(relay), _) => relay.http()?,
        (None, http) => http.context("no relay")?,
    };
    outcome.note("method", "closed loop: a request waits for the answer before it");
    outcome.note("connections", arguments.connections);
    let WhipArguments { rounds, step_seconds, .. } = arguments;
    outcome.note("rounds", format!("{rounds} of {step_seconds} s, one before dropped"));
    let account = relay.as_ref().map(RelayProcess::account).or(running.as_ref());
    let bench = Bench { arguments, http, account, is_running: relay.is_none() };
    let is_complete = bench.run(&mut outcome)?;
    if let Some(path) = &arguments.json {
        outcome.write(path)?;
    }
    Ok(is_complete)
}

struct Bench<'a> {
    arguments: &'a WhipArguments,
    http: SocketAddr,
    account: Option<&'a Account>,
    /// It was running already.
    is_running: bool,
}

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Kept,
    Fresh,
}

/// One round of one kind.
#[derive(Clone, Debug)]
struct Round {
    posted: u64,
    failed: u64,
    took_s: f64,
    /// CPU time of all of the relay's threads, in seconds.
    cpu_s: Option<f64>,
    post: Histogram<u64>,
    delete: Histogram<u64>,
}

impl Bench<'_> {
    fn run(&self, outcome: &mut Outcome) -> anyhow::Result<bool> {
        let kinds = [Connection::Kept, Connection::Fresh];
        let mut rounds: [Vec<Round>; 2] = [Vec::new(), Vec::new()];
        println!(
            "{:<22} {:>8} {:>7} {:>10} {:>10} {:>10} {:>10} {:>6}",
            "connections", "POST/s", "failed", "POST p50", "p99", "DELETE p50", "p99", "CPU"
        );
        for number in 0..=self.arguments.rounds {
            for (kind, rounds) in kinds.into_iter().zip(&mut rounds) {
                let round = self.round(kind)?;
                round.print(kind, number == 0);
                if number > 0 {
                    rounds.push(round);
                }
            }
        }
        println!();
        for (kind, rounds) in kinds.into_iter().zip(&rounds) {
            outcome.cells.push(self.cell(kind, rounds));
        }
        Ok(rounds.iter().flatten().all(|round| round.failed == 0))
    }

    fn round(&self, kind: Connection) -> anyhow::Result<Round> {
        let (is_counting, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        let slots = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.arguments.connections)
                .map(|_| {
                    scope.spawn(|| post_and_delete(self.http, kind, &slots, &is_counting, &is_over))
                })
                .collect();
            clock::pause(WARM_UP);
            let (started, cpu_before) = (clock::now(), self.cpu_s());
            is_counting.store(true, Ordering::Relaxed);
            clock::pause(Duration::from_secs(self.arguments.step_seconds));
            is_counting.store(false, Ordering::Relaxed);
            let took_s = clock::now().saturating_sub(started) as f64 / SECOND as f64;
            let cpu_s = self.cpu_s().zip(cpu_before).map(|(after, before)| after - before);
            is_over.store(true, Ordering::Relaxed);
            let (post, delete) = (payload::nanoseconds(), payload::nanoseconds());
            let mut sum = Round { posted: 0, failed: 0, took_s, cpu_s, post, delete };
            for thread in threads {
                let Ok(one) = thread.join() else { bail!("a client panicked") };
                sum.add(&one?)?;
            }
            ensure!(sum.posted > 0, "no request was answered with 201; {} failed", sum.failed);
            Ok(sum)
        })
    }

    fn cpu_s(&self) -> Option<f64> {
        Some(self.account?.cpu().ok()?.cpu_ns as f64 / SECOND as f64)
    }

    fn cell(&self, kind: Connection, rounds: &[Round]) -> Cell {
        let subject = if self.is_running { "running" } else { "ringway" };
        let shape = format!("WHIP POST and DELETE, {}", kind.label());
        let mut cell = Cell::new(shape, subject);
        let all = |value: &dyn Fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<_>>();
        let rates = all(&|round| round.posted as f64 / round.took_s);
        let busy: Option<Vec<f64>> =
            rounds.iter().map(|round| Some(round.cpu_s? / round.took_s)).collect();
        let limit = Limit::of(busy.as_deref().and_then(median));
        let rate = grouped(median(&rates).unwrap_or(0.0) as u64);
        let each = "sessions set up and ended per second (closed loop)";
        match limit {
            Limit::Relay => {
                println!("{}: {rate} {each}.", kind.label());
                cell.add(name::CONNECTS_PER_SECOND, "1/s", Better::Higher, rates);
            }
            Limit::Tool => {
                println!("{}: the tool is the bottleneck; at least {rate} {each}.", kind.label());
                cell.add("connects_per_second_at_least", "1/s", Better::Neither, rates);
            }
            Limit::Unknown => {
                println!(
                    "{}: the relay's CPU time was not measured, so it is not known what limits \
                     this; at least {rate} {each}. With --pid it is read.",
                    kind.label()
                );
                cell.add("connects_per_second_at_least", "1/s", Better::Neither, rates);
            }
        }
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let post = all(&|round| round.post.value_at_quantile(share) as f64);
            let delete = all(&|round| round.delete.value_at_quantile(share) as f64);
            cell.add(&format!("post_{name}"), "ns", Better::Lower, post);
            cell.add(&format!("delete_{name}"), "ns", Better::Lower, delete);
        }
        cell.add("failed", "", Better::Lower, all(&|round| round.failed as f64));
        if rounds.iter().all(|round| round.cpu_s.is_some()) {
            let cpu = |round: &Round| round.cpu_s.unwrap_or(0.0);
            let percent = all(&|round| cpu(round) / round.took_s * 100.0);
            cell.add(name::CPU_PERCENT, "%", Better::Lower, percent);
            let each = all(&|round| cpu(round) * 1e9 / round.posted.max(1) as f64);
            cell.add("cpu_per_session", "ns", Better::Lower, each);
        }
        cell
    }
}

/// What keeps the rate from being higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Relay,
    Tool,
    Unknown,
}

impl Limit {
    /// `busy` is the relay's CPU time as a share of one core, where it was measured.
    fn of(busy: Option<f64>) -> Self {
        match busy {
            Some(busy) if busy >= BUSY_MIN => Self::Relay,
            Some(_) => Self::Tool,
            None => Self::Unknown,
        }
    }
}

impl Connection {
    fn label(self) -> &'static str {
        match self {
            Self::Kept => "connections kept",
            Self::Fresh => "one per request",
        }
    }
}

impl Round {
    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.posted += other.posted;
        self.failed += other.failed;
        self.post.add(&other.post)?;
        self.delete.add(&other.delete)?;
        Ok(())
    }

    fn print(&self, kind: Connection, is_dropped: bool) {
        let of = |histogram: &Histogram<u64>, share| duration(histogram.value_at_quantile(share));
        let cpu =
            self.cpu_s.map_or("-".to_owned(), |cpu| format!("{:.0} %", cpu / self.took_s * 100.0));
        println!(
            "{:<22} {:>8} {:>7} {:>10} {:>10} {:>10} {:>10} {cpu:>6}{}",
            kind.label(),
            grouped((self.posted as f64 / self.took_s) as u64),
            self.failed,
            of(&self.post, 0.5),
            of(&self.post, 0.99),
            of(&self.delete, 0.5),
            of(&self.delete, 0.99),
            if is_dropped { "  (does not count)" } else { "" }
        );
    }
}

/// One client: an offer, the answer, a DELETE, and again, until it is over.
fn post_and_delete(
    http: SocketAddr,
    kind: Connection,
    slots: &AtomicU64,
    is_counting: &AtomicBool,
    is_over: &AtomicBool,
) -> anyhow::Result<Round> {
    let (post, delete) = (payload::nanoseconds(), payload::nanoseconds());
    let mut round = Round { posted: 0, failed: 0, took_s: 0.0, cpu_s: None, post, delete };
    let mut client = Client::new(http, kind == Connection::Kept);
    while !is_over.load(Ordering::Relaxed) {
        let slot = slots.fetch_add(1, Ordering::Relaxed);
        let path = format!("live/whip{slot}");
        let own = Credentials::of_client(payload::mix(slot));
        let offer = sdp::offer(&own, payload::identity(&path), true);
        let target = format!("/rtc/v1/whip/?app=live&stream=whip{slot}");
        let asked = clock::now();
        let answer = client.exchange("POST", &target, Some(("application/sdp", &offer)))?;
        let post_ns = clock::now().saturating_sub(asked);
        let location = answer.location().filter(|_| answer.status == 201);
        let Some(location) = location else {
            round.failed += 1;
            // A relay that refuses everything would otherwise be asked as fast as it can refuse.
            ensure!(
                round.failed < FAILURES_MAX,
                "{http} refuses offers: the last answer is {} {}",
                answer.status,
                answer.body
            );
            continue;
        };
        let asked = clock::now();
        let status = client.exchange("DELETE", &location, None)?.status;
        let delete_ns = clock::now().saturating_sub(asked);
        if is_counting.load(Ordering::Relaxed) {
            round.posted += 1;
            round.failed += u64::from(!(200..300).contains(&status));
            round.post.saturating_record(post_ns);
            round.delete.saturating_record(delete_ns);
        }
    }
    Ok(round)
}

const WARM_UP: Duration = Duration::from_millis(500);
/// Of one core: with less, somebody else is what limits the rate.
const BUSY_MIN: f64 = 0.85;
const FAILURES_MAX: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tool_is_blamed_only_where_the_relay_was_seen_idle() {
        assert_eq!(Limit::of(Some(0.95)), Limit::Relay);
        assert_eq!(Limit::of(Some(0.4)), Limit::Tool);
        assert_eq!(Limit::of(None), Limit::Unknown);
    }

    #[test]
    fn sessions_are_posted_and_deleted_at_an_origin_over_fresh_connections() {
        let origin = Origin::start(OriginSettings::default()).unwrap();
        let (slots, counting, over) =
            (AtomicU64::new(0), AtomicBool::new(true), AtomicBool::new(false));
        let http = origin.http_address();
        let round = std::thread::scope(|scope| {
            let client =
                scope.spawn(|| post_and_delete(http, Connection::Fresh, &slots, &counting, &over));
            assert!(origin.wait_for(Duration::from_secs(10), |counts| counts.deleted > 3));
            over.store(true, Ordering::Relaxed);
            client.join().unwrap().unwrap()
        });
        assert!(round.posted > 3 && round.failed == 0, "{round:?}");
        assert_eq!(round.post.len(), round.posted);
    }
}
