//! The measurement of SRT media at a fixed rate: what a packet costs and how long it takes when
//! packets come when they come, beside other relays under the same load.
//!
//! Relays take turns in rounds, and the first round only warms up (see [`crate::contest`] for who
//! they are and which turns count). A figure is the median of the rounds that count, with the lowest
//! and the highest beside it; a ratio is the median of the ratios within rounds, so that what else
//! the machine does hits both sides of it. Rounds with a turn that does not count are repeated, but
//! not for ever.
//!
//! What a packet costs here includes the wake-ups of a relay that is idle most of the time. What it
//! costs a relay that is never idle is another figure, and `run srt` has it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::contest::{self, Contestant, Cpus, Entrant, Kind, RunningArguments, Turn};
use crate::hdr;
use crate::lane::{Flow, LaneSettings};
use crate::measure::Host;
use crate::nginx::Program;
use crate::report::{grouped, median};
use crate::result::{Better, Cell, Outcome, name};
use crate::rig::{Direction, Shape};
use crate::subject::{Engine, Tuning};

mod presets;
mod show;

/// `ringway-bench run paced`
#[derive(Clone, Debug, clap::Args)]
pub struct SteadyArguments {
    /// Relays to compare: engines, baselines, nginx (buffers as they come), nginx-4m [default:
    /// loop,mmsg,uring; with --table: those that it has limits against]
    #[arg(long, value_delimiter = ',')]
    engines: Vec<Kind>,
    /// Sessions
    #[arg(long, default_value_t = 100)]
    sessions: usize,
    /// Media packets per second and session
    #[arg(long, default_value_t = 300.0)]
    rate: f64,
    /// How the packets of a session follow each other; the sessions are spread evenly
    #[arg(long, value_enum, default_value = "singles")]
    pattern: Shape,
    /// Packets of a burst or a train
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=49))]
    burst: u16,
    /// Payload bytes of a media packet
    #[arg(long, default_value_t = 1_316, value_parser = clap::value_parser!(u16).range(48..=1_456))]
    size: u16,
    /// Up is client to origin
    #[arg(long, value_enum, default_value = "up")]
    direction: Direction,
    /// Length of a turn
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Rounds that count; one more is run first and dropped
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Everything on ::1
    #[arg(long)]
    ipv6: bool,
    /// Relaying threads of Ringway and of the baselines
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: u16,
    /// Ringway's --gro
    #[arg(long, default_value = "auto", value_parser = ["auto", "off"])]
    gro: String,
    /// Measure Ringway's engines a second time with this --batch-wait
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    batch_wait: Option<Duration>,
    /// Measure these shapes against their limits instead: at a steady rate beside the plain relays,
    /// or beside nginx
    #[arg(
        long,
        value_enum,
        num_args = 0..=1,
        default_missing_value = "steady",
        conflicts_with_all = ["sessions", "rate", "pattern", "burst", "gro", "target"]
    )]
    table: Option<Table>,
    #[command(flatten)]
    running: RunningArguments,
    /// Write everything, raw rounds included, here as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Shapes with limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Table {
    /// 100 kpps evenly over 2,000 sessions.
    Steady,
    /// Six shapes beside nginx.
    Nginx,
}

/// A shape to measure, and who takes part.
#[derive(Clone, Debug)]
struct Row {
    title: String,
    lane: LaneSettings,
    flow: Flow,
    entrants: Vec<Entrant>,
    limits: Vec<Limit>,
}

/// What a row is to show. Relays are named by their labels.
#[derive(Clone, Debug, PartialEq)]
enum Limit {
    /// CPU time per packet, as a multiple of another's.
    Cpu { of: String, against: String, most: f64 },
    /// Added median latency, beyond another's.
    AddedP50 { of: String, against: String, most_ns: f64 },
    /// Packets delivered per second, as a multiple of another's.
    Delivered { of: String, against: String, least: f64 },
    /// Nothing lost.
    NoLoss { of: String },
}

/// The turns of one relay in a row.
struct Line {
    entrant: Entrant,
    bytes_per_session: Option<f64>,
    /// The number of the round, and the turn; without the first round.
    turns: Vec<(u32, Turn)>,
}

/// A measured row.
struct Measured {
    row: Row,
    lines: Vec<Line>,
    /// Those that could not take part, and why.
    absent: Vec<String>,
}

/// Measures and prints. False when a limit is missed, or a relay has no round that counts.
///
/// # Errors
/// A relay does not start, dies, or does not let its sessions in.
pub fn run(arguments: &SteadyArguments) -> anyhow::Result<bool> {
    ensure!(
        arguments.seconds > 0.0 && arguments.seconds <= SECONDS_MAX,
        "--seconds must be above 0 and at most {SECONDS_MAX}"
    );
    ensure!(arguments.sessions > 0 && arguments.rate > 0.0, "--sessions and --rate must not be 0");
    let cpus = match arguments.running.target {
        Some(_) => Cpus::beside(&arguments.running)?,
        None => Cpus::split(arguments.shards)?,
    };
    let mut outcome = Outcome::new("SRT media at a fixed rate", Host::this());
    note_setup(&mut outcome, arguments, &cpus);
    show::print_head(&outcome, arguments, &cpus);
    let mut is_good = true;
    for row in arguments.rows() {
        let measured = measure(row, arguments, &cpus)?;
        show::print_row(&measured);
        is_good &= measured.is_complete() & show::print_limits(&measured, arguments.has_limits());
        outcome.cells.extend(measured.cells()?);
    }
    if let Some(path) = &arguments.json {
        outcome.write(path)?;
    }
    Ok(is_good)
}

impl SteadyArguments {
    fn has_limits(&self) -> bool {
        contest::has_limits(self.shards, self.ipv6, self.direction)
    }

    /// The relays that were asked for, or else these.
    fn kinds(&self, default: &[Kind]) -> Vec<Kind> {
        if self.running.target.is_some() {
            return vec![Kind::Running];
        }
        if self.engines.is_empty() { default.to_vec() } else { self.engines.clone() }
    }

    fn rows(&self) -> Vec<Row> {
        match self.table {
            None => vec![self.row()],
            Some(Table::Steady) => presets::steady(self),
            Some(Table::Nginx) => presets::nginx(self),
        }
    }

    fn row(&self) -> Row {
        let burst = if self.pattern == Shape::Singles { 1 } else { self.burst };
        let lane = self.lane(self.sessions, self.pattern == Shape::Trains && self.gro != "off");
        let pps = self.rate * self.sessions as f64;
        Row {
            title: format!(
                "{}, {} sessions x {} packets/s, {}{}",
                self.direction.label(),
                grouped(self.sessions as u64),
                self.rate,
                self.pattern.label(),
                if burst > 1 { format!(" of {burst}") } else { String::new() },
            ),
            flow: flow(self.sessions, pps, burst, self.pattern == Shape::Trains),
            lane,
            entrants: self.entrants(&self.kinds(&KINDS), self.batch_wait, self.gro != "off"),
            limits: Vec::new(),
        }
    }

    fn lane(&self, sessions: usize, takes_trains: bool) -> LaneSettings {
        LaneSettings {
            direction: self.direction,
            sessions,
            size: usize::from(self.size),
            ipv6: self.ipv6,
            takes_trains,
        }
    }

    /// The direct path first; then each relay, and Ringway's once more with `wait`.
    fn entrants(&self, kinds: &[Kind], wait: Option<Duration>, gro: bool) -> Vec<Entrant> {
        let tuning = Tuning {
            shards: self.shards,
            gro,
            // Also keeps the sessions of those that wait for their turn.
            sessions_at_once: u32::try_from(SESSIONS_MAX).unwrap_or(u32::MAX),
            ..Tuning::default()
        };
        let kinds = kinds.iter().filter(|kind| **kind != Kind::Direct);
        let relays = kinds.flat_map(|kind| {
            let waiting = wait
                .filter(|_| kind.is_ringway())
                .map(|wait| Entrant::new(*kind, Tuning { batch_wait: Some(wait), ..tuning }));
            [Some(Entrant::new(*kind, tuning)), waiting].into_iter().flatten()
        });
        [Entrant::new(Kind::Direct, tuning)].into_iter().chain(relays).collect()
    }
}

fn flow(sessions: usize, pps: f64, burst: u16, train: bool) -> Flow {
    Flow { sessions: 0..sessions, pps, burst, train }
}

/// Everything that has to be equal for two results to be comparable.
fn note_setup(outcome: &mut Outcome, arguments: &SteadyArguments, cpus: &Cpus) {
    outcome.note("method", "open loop, due times, relays in turns");
    outcome.note("seconds per turn", arguments.seconds);
    outcome.note("rounds", arguments.rounds);
    outcome.note("payload bytes", arguments.size);
    outcome.note("direction", arguments.direction.label());
    outcome.note("ip", if arguments.ipv6 { "IPv6" } else { "IPv4" });
    outcome.note("shards", arguments.shards);
    cpus.note(outcome);
    if let Some(target) = arguments.running.target {
        outcome.note("running relay", target);
    }
    let rows = arguments.rows();
    let sink = if rows.iter().any(|row| row.lane.takes_trains) {
        "coalesced trains (UDP_GRO)"
    } else {
        "single datagrams"
    };
    outcome.note("sink", sink);
    let kinds = rows.iter().flat_map(|row| &row.entrants).map(|entrant| entrant.kind);
    if kinds.into_iter().any(|kind| matches!(kind, Kind::Nginx(_)))
        && let Some(program) = Program::find()
    {
        outcome.note("nginx", program.version);
    }
    let ringway = rows.into_iter().flat_map(|row| row.entrants);
    let flags = ringway.filter(|entrant| entrant.kind.is_ringway()).map(|e| e.tuning.flags());
    let mut flags: Vec<String> = flags.collect();
    flags.sort();
    flags.dedup();
    outcome.note("flags", flags.join("; "));
}

fn measure(row: Row, arguments: &SteadyArguments, cpus: &Cpus) -> anyhow::Result<Measured> {
    let length = Duration::from_secs_f64(arguments.seconds);
    let mut contestants = Vec::new();
    let mut absent = Vec::new();
    for entrant in &row.entrants {
        if entrant.kind == Kind::Running {
            contestants.push(Contestant::find(&arguments.running, row.lane)?);
            continue;
        }
        match Contestant::start(*entrant, row.lane, cpus)? {
            Some(contestant) => contestants.push(contestant),
            None => absent.push(format!(
                "{} is left out: no nginx with its stream module is installed here",
                entrant.label()
            )),
        }
    }
    let mut lines: Vec<Line> = contestants.iter().map(Line::of).collect();
    let flows = std::slice::from_ref(&row.flow);
    for round in 0..=arguments.rounds * TURNS_PER_ROUND_MAX {
        for position in contest::order(contestants.len(), round) {
            let (Some(contestant), Some(line)) =
                (contestants.get_mut(position), lines.get_mut(position))
            else {
                continue;
            };
            let turn = contestant
                .take_turn(flows, length)
                .with_context(|| format!("{} in round {round}", contestant.entrant.label()))?;
            if round > 0 {
                line.turns.push((round, turn));
            }
        }
        if has_enough(&row, &lines, arguments.rounds as usize) {
            break;
        }
    }
    Ok(Measured { row, lines, absent })
}

/// Whether each relay has so many turns that count, and each two that a limit compares have them in
/// the same rounds.
fn has_enough(row: &Row, lines: &[Line], rounds: usize) -> bool {
    let line = |label: &str| lines.iter().find(|line| line.entrant.label() == label);
    let pairs = row.limits.iter().filter_map(|limit| {
        let [of, against] = limit.relays();
        Some((line(of?)?, line(against?)?))
    });
    lines.iter().all(|line| line.good().count() >= rounds)
        && pairs.into_iter().all(|(of, base)| of.beside(base, |_, _| Some(())).len() >= rounds)
}

impl Line {
    fn of(contestant: &Contestant) -> Self {
        let bytes_per_session = contestant.bytes_per_session;
        Self { entrant: contestant.entrant, bytes_per_session, turns: Vec::new() }
    }

    fn good(&self) -> impl Iterator<Item = &(u32, Turn)> {
        self.turns.iter().filter(|(_, turn)| turn.fault().is_none())
    }

    fn all(&self, of: impl Fn(&Turn) -> f64) -> Vec<f64> {
        self.good().map(|(_, turn)| of(turn)).collect()
    }

    fn some(&self, of: impl Fn(&Turn) -> Option<f64>) -> Vec<f64> {
        self.good().filter_map(|(_, turn)| of(turn)).collect()
    }

    /// `of` of this line and of another in the same rounds.
    fn beside<T>(&self, other: &Self, of: impl Fn(&Turn, &Turn) -> Option<T>) -> Vec<T> {
        let pairs = self.good().filter_map(|(round, turn)| {
            let (_, beside) = other.good().find(|(number, _)| number == round)?;
            of(turn, beside)
        });
        pairs.collect()
    }

    /// CPU time per packet as a multiple of another's, round by round.
    fn cpu_ratios(&self, base: &Self) -> Vec<f64> {
        self.beside(base, |turn, base| Some(turn.cpu_ns_per_packet()? / base.cpu_ns_per_packet()?))
    }

    /// What the relay adds to the direct path at this quantile, round by round, in nanoseconds.
    fn added(&self, direct: &Self, quantile: f64) -> Vec<f64> {
        self.beside(direct, |turn, direct| {
            Some(latency(turn, quantile) - latency(direct, quantile))
        })
    }
}

fn latency(turn: &Turn, quantile: f64) -> f64 {
    turn.passage.latency.value_at_quantile(quantile) as f64
}

impl Measured {
    fn line(&self, label: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.entrant.label() == label)
    }

    fn direct(&self) -> Option<&Line> {
        self.lines.iter().find(|line| line.entrant.kind == Kind::Direct)
    }

    fn is_complete(&self) -> bool {
        self.lines.iter().all(|line| line.good().next().is_some())
    }

    fn cells(&self) -> anyhow::Result<Vec<Cell>> {
        self.lines.iter().map(|line| self.cell(line)).collect()
    }

    fn cell(&self, line: &Line) -> anyhow::Result<Cell> {
        let mut cell = Cell::new(&self.row.title, line.entrant.label());
        add_costs(&mut cell, line);
        for base in &self.lines {
            let ratios = line.cpu_ratios(base);
            if base.entrant != line.entrant {
                let name = format!("of_{}", base.entrant.label());
                cell.add(&name, "", Better::Lower, ratios);
            }
        }
        for (quantile, name, added) in LATENCIES {
            cell.add(name, "ns", Better::Lower, line.all(|turn| latency(turn, quantile)));
            if let Some(direct) = self.direct().filter(|direct| direct.entrant != line.entrant) {
                cell.add(added, "ns", Better::Lower, line.added(direct, quantile));
            }
        }
        let mut sum = crate::payload::nanoseconds();
        for (_, turn) in line.good() {
            sum.add(&turn.passage.latency).context("add up latencies")?;
            let start = cell.seconds.last().map_or(0.0, |second| second.at_s);
            let seconds = turn.passage.seconds.iter().copied();
            cell.seconds.extend(seconds.map(|mut second| {
                second.at_s += start;
                second
            }));
        }
        cell.latency = hdr::encode(&sum);
        if line.good().next().is_none() {
            let mut faults = line.turns.iter().rev().filter_map(|(_, turn)| turn.fault());
            cell.void = faults.next().map(|fault| fault.to_string());
        }
        Ok(cell)
    }
}

fn add_costs(cell: &mut Cell, line: &Line) {
    let costs = line.some(Turn::cpu_ns_per_packet);
    let pps_per_core = costs.iter().map(|cost| 1e9 / cost).collect();
    let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
    cell.add(name::CPU_NS_PER_PACKET, "ns", Better::Lower, costs);
    cell.add(name::PPS_PER_CORE, "1/s", Better::Higher, pps_per_core);
    if line.entrant.kind != Kind::Direct {
        let cpu = line.all(|turn| percent(turn.cpu.cpu_ns, turn.passage.elapsed_ns));
        cell.add(name::CPU_PERCENT, "%", Better::Lower, cpu);
        let delay = line.all(Turn::run_delay_percent);
        cell.add(name::RUN_DELAY_PERCENT, "%", Better::Lower, delay);
    }
    cell.add(name::OFFERED_PPS, "1/s", Better::Neither, line.all(Turn::offered_pps));
    cell.add(name::DELIVERED_PPS, "1/s", Better::Higher, line.all(Turn::delivered_pps));
    cell.add(name::LOST, "", Better::Lower, line.all(|turn| turn.lost() as f64));
    let loss = line.all(|turn| percent(turn.lost(), turn.passage.sent));
    cell.add(name::LOSS_PERCENT, "%", Better::Lower, loss);
    let reordered = line.all(|turn| turn.passage.tally.reordered as f64);
    cell.add(name::REORDERED, "", Better::Lower, reordered);
    let received = line.some(|turn| turn.io.map(|io| io.received / io.receives.max(1.0)));
    cell.add(name::RECEIVE_BATCH, "", Better::Higher, received);
    let sent = line.some(|turn| turn.io.map(|io| io.sent / io.sends.max(1.0)));
    cell.add(name::SEND_BATCH, "", Better::Higher, sent);
    let syscalls = line.some(|turn| turn.io.map(|io| io.syscalls / io.sent.max(1.0)));
    cell.add(name::SYSCALLS_PER_PACKET, "", Better::Lower, syscalls);
    let memory = line.bytes_per_session.into_iter().collect();
    cell.add(name::MEMORY_PER_SESSION, "B", Better::Lower, memory);
}

/// What became of a limit.
#[derive(Clone, Debug, PartialEq)]
struct Judgement {
    /// What was measured, as the table shows it.
    value: String,
    is_kept: bool,
}

impl Limit {
    /// `None` where there are too few rounds that count for all who are named.
    fn judge(&self, measured: &Measured) -> Option<Judgement> {
        let pair = |of: &str, against: &str| measured.line(of).zip(measured.line(against));
        match self {
            Self::Cpu { of, against, most } => {
                let (of, against) = pair(of, against)?;
                let ratio = settled(&of.cpu_ratios(against))?;
                Some(Judgement { value: format!("{ratio:.2}x"), is_kept: ratio <= *most })
            }
            Self::AddedP50 { of, against, most_ns } => {
                let (of, against) = pair(of, against)?;
                let more = of.beside(against, |a, b| Some(latency(a, 0.5) - latency(b, 0.5)));
                let more_ns = settled(&more)?;
                let value = format!("{:+.1} us", more_ns / 1e3);
                Some(Judgement { value, is_kept: more_ns <= *most_ns })
            }
            Self::Delivered { of, against, least } => {
                let (of, against) = pair(of, against)?;
                let ratios = of.beside(against, |a, b| Some(a.delivered_pps() / b.delivered_pps()));
                let ratio = settled(&ratios)?;
                Some(Judgement { value: format!("{ratio:.2}x"), is_kept: ratio >= *least })
            }
            Self::NoLoss { of } => {
                let line = measured.line(of)?;
                settled(&line.all(|turn| turn.lost() as f64))?;
                let lost: u64 = line.good().map(|(_, turn)| turn.lost()).sum();
                Some(Judgement { value: format!("{} lost", grouped(lost)), is_kept: lost == 0 })
            }
        }
    }

    /// The relay that is to keep it, and the one that it is measured against.
    fn relays(&self) -> [Option<&str>; 2] {
        match self {
            Self::Cpu { of, against, .. }
            | Self::AddedP50 { of, against, .. }
            | Self::Delivered { of, against, .. } => [Some(of), Some(against)],
            Self::NoLoss { of } => [Some(of), None],
        }
    }
}

/// The median, where there are rounds enough for a verdict.
fn settled(rounds: &[f64]) -> Option<f64> {
    (rounds.len() >= ROUNDS_MIN).then(|| median(rounds)).flatten()
}

/// Quantile, name of the latency itself, name of what the relay adds to the direct path.
const LATENCIES: [(f64, &str, &str); 5] = [
    (0.5, name::LATENCY_P50, "added_latency_p50"),
    (0.9, name::LATENCY_P90, "added_latency_p90"),
    (0.99, name::LATENCY_P99, "added_latency_p99"),
    (0.999, name::LATENCY_P999, "added_latency_p99.9"),
    (1.0, name::LATENCY_MAX, "added_latency_max"),
];
/// Who takes part when nobody was named.
const KINDS: [Kind; 3] =
    [Kind::Engine(Engine::Loop), Kind::Engine(Engine::Mmsg), Kind::Engine(Engine::Uring)];
/// Rounds that count for both sides of a limit: fewer have no median worth a verdict.
const ROUNDS_MIN: usize = 3;
const TURNS_PER_ROUND_MAX: u32 = 5;
const SECONDS_MAX: f64 = 20.0;
/// Of any shape here.
const SESSIONS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::tests::turn;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: SteadyArguments,
    }

    fn arguments(words: &[&str]) -> SteadyArguments {
        CommandLine::parse_from([""].iter().chain(words)).arguments
    }

    fn line(name: &str, turns: Vec<(u32, Turn)>) -> Line {
        let entrant = Entrant::new(name.parse().unwrap(), Tuning::default());
        Line { entrant, bytes_per_session: None, turns }
    }

    /// A turn in which the relay used so much CPU time for 1,000 packets.
    fn costly(cpu_ns: u64) -> Turn {
        let mut turn = turn(1_000, 1_000);
        turn.cpu.cpu_ns = cpu_ns;
        turn
    }

    fn with(mut measured: Measured, limit: Limit) -> Measured {
        measured.row.limits.push(limit);
        measured
    }

    fn measured(lines: Vec<Line>) -> Measured {
        Measured { row: arguments(&[]).row(), lines, absent: Vec::new() }
    }

    #[test]
    fn ratios_are_taken_within_rounds_that_count_for_both() {
        let mut disturbed = costly(9_000);
        disturbed.passage.own_drops = 1;
        let base = line("loop", vec![(1, costly(4_000)), (2, costly(8_000)), (3, disturbed)]);
        let turns = vec![(1, costly(2_000)), (2, costly(4_000)), (3, costly(1))];
        assert_eq!(line("uring", turns).cpu_ratios(&base), [0.5, 0.5]);
    }

    #[test]
    fn a_limit_of_a_relay_that_was_not_measured_is_not_judged() {
        let limit = Limit::Cpu { of: "uring".into(), against: "nginx".into(), most: 1.0 };
        let lines = vec![line("uring", vec![(1, costly(2_000))])];
        assert_eq!(limit.judge(&measured(lines)), None);
    }

    #[test]
    fn a_limit_is_missed_by_what_is_above_it() {
        let limit = |most| Limit::Cpu { of: "uring".into(), against: "loop".into(), most };
        let turns = |cpu_ns| (1..=3).map(|round| (round, costly(cpu_ns))).collect();
        let measured = measured(vec![line("loop", turns(2_000)), line("uring", turns(2_100))]);
        let judgement = |is_kept| Some(Judgement { value: "1.05x".to_owned(), is_kept });
        assert_eq!(limit(1.1).judge(&measured), judgement(true));
        assert_eq!(limit(1.0).judge(&measured), judgement(false));
    }

    #[test]
    fn rounds_that_two_relays_do_not_share_settle_nothing() {
        let turns = |rounds: std::ops::Range<u32>| rounds.map(|round| (round, costly(2_000)));
        let (early, late) = (turns(1..6).collect(), turns(4..9).collect());
        let measured = measured(vec![line("loop", early), line("uring", late)]);
        let limit = Limit::Cpu { of: "uring".into(), against: "loop".into(), most: 1.1 };
        assert_eq!(limit.judge(&measured), None);
        assert!(!show::print_limits(&with(measured, limit), true));
    }

    #[test]
    fn a_table_that_leaves_relays_out_leaves_their_limits_out() {
        let rows = arguments(&["--table", "--engines", "uring,loop"]).rows();
        let limits: Vec<_> = rows.iter().flat_map(|row| &row.limits).collect();
        assert!(!limits.is_empty());
        for relay in limits.iter().flat_map(|limit| limit.relays()).flatten() {
            assert!(["uring", "uring+wait", "loop"].contains(&relay), "{relay}");
        }
    }

    #[test]
    fn a_relay_without_a_turn_that_counts_is_void_and_says_why() {
        let mut disturbed = costly(9_000);
        disturbed.passage.own_drops = 1;
        let measured = measured(vec![line("loop", vec![(1, disturbed)])]);
        let cells = measured.cells().unwrap();
        assert!(!measured.is_complete());
        assert!(cells[0].void.as_ref().is_some_and(|why| why.contains("its own receive queue")));
    }

    #[test]
    fn the_direct_path_always_takes_part_and_waiting_relays_stand_beside_the_others() {
        let row = arguments(&["--engines", "loop,uring", "--batch-wait", "250us"]).row();
        let labels: Vec<String> = row.entrants.iter().map(Entrant::label).collect();
        assert_eq!(labels, ["direct", "loop", "uring", "uring+wait"]);
    }

    #[test]
    fn every_limit_of_the_tables_names_relays_that_take_part() {
        for table in ["steady", "nginx"] {
            for row in arguments(&["--table", table]).rows() {
                let labels: Vec<String> = row.entrants.iter().map(Entrant::label).collect();
                for relay in row.limits.iter().flat_map(Limit::relays).flatten() {
                    assert!(labels.iter().any(|l| l == relay), "{relay} is not in {labels:?}");
                }
            }
        }
    }
}
