//! The measurement: CPU nanoseconds per packet of the relaying threads, saturated, by the gated
//! drain (see [`crate::gate`]).
//!
//! Subjects take turns in every round, each round in another order, so that what else the machine
//! does hits all of them; the first round does not count, nor does the first drain of each turn: the
//! others have just had the caches. Before the rounds, each drains for some seconds, until it
//! treats its clients as it does under sustained traffic: Ringway gives busy ones sockets of their
//! own. For the same reason each row has relays of its own.
//!
//! A drain in which a relaying thread had to wait for its CPU for more than 2 % of its time is
//! rejected, a wake-up on an idle CPU not counted; so is one in which receive queues of this tool
//! overflowed, or packets of an earlier one came out. A turn in which more than half of the drains
//! are is discarded as a whole, and the round repeated. A round's figure is the median of its
//! drains, the figure the median over rounds, a ratio the median of the ratios within rounds.
//!
//! Packets are counted at the far end and nowhere else: what a relay received and did not deliver
//! does not make its packets cheaper.
//!
//! Stopping and letting go costs the relaying thread some microseconds per drain, which are in the
//! figure: a fraction of a per cent of single packets, a few per cent of trains. Each round
//! measures them with an empty drain (`empty_gate_ns` in the JSON); they are not subtracted. The
//! time on the wall until the relay sleeps stands beside the CPU time (`wall_ns_per_packet`): on a
//! quiet machine the two differ by the wake-up and the look that finds the relay asleep, together
//! 0.1 to 0.2 ms per drain. It rejects nothing, for it grows when this tool has to wait as well.
//!
//! Saturated means: cost per packet while there is always a next one. What a relay costs that is
//! woken for each packet is another figure.

mod rows;
mod table;
mod turn;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::clock;
use crate::measure::{self, Host};
use crate::report::grouped;
use crate::result::{Better, Cell, Outcome, name};
use crate::rig::{Direction, Place, Rig, Shape};
use crate::subject::{Engine, IoCounts, Tuning};
use rows::Row;
use table::Block;
use turn::Turn;

/// `ringway-bench run srt`
#[derive(Clone, Debug, clap::Args)]
pub struct RunArguments {
    /// Relays to compare [default: loop,mmsg,uring; with --table or --matrix: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    engines: Vec<Engine>,
    /// The rows that Ringway makes promises about, with all relays
    #[arg(long, conflicts_with_all = ["matrix", "quick", "sessions", "shapes", "directions"])]
    table: bool,
    /// 1, 100 and 2,000 sessions, all shapes, both directions, with all relays
    #[arg(long, conflicts_with_all = ["quick", "sessions", "shapes", "directions"])]
    matrix: bool,
    /// These rows alone, as up-100-trains
    #[arg(
        long,
        value_name = "ROW",
        value_delimiter = ',',
        conflicts_with_all = ["quick", "sessions", "shapes", "directions"]
    )]
    only: Vec<Row>,
    /// Numbers of sessions
    #[arg(long, value_delimiter = ',', default_value = "1,100,2000")]
    sessions: Vec<usize>,
    /// How packets follow each other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "singles,bursts,trains")]
    shapes: Vec<Shape>,
    /// Up is client to origin
    #[arg(long, value_enum, value_delimiter = ',', default_value = "up,down")]
    directions: Vec<Direction>,
    /// Everything over ::1 instead of 127.0.0.0/8
    #[arg(long)]
    ipv6: bool,
    /// Relaying threads of each relay; their CPU time is added up
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: u16,
    /// CPUs of the relaying threads, which share them if there are fewer [default: the first]
    #[arg(long, value_name = "CPUS", value_delimiter = ',')]
    relay_cpus: Vec<usize>,
    /// Rounds that count; one more is run first and dropped
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Drains per relay and round
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    drains: u32,
    /// Packets per drain; they have to fit into the relay's socket buffers
    #[arg(long, default_value_t = 2_048, value_parser = clap::value_parser!(u64).range(32..))]
    packets: u64,
    /// How long each relay drains before the rounds of a row: so long that its clients have the
    /// sockets that they have under this traffic
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// A smoke test: up only, 1 and 20 sessions, 2 rounds of 2 drains, no warm-up
    #[arg(long, conflicts_with_all = ["sessions", "directions", "rounds", "drains", "warm_up"])]
    quick: bool,
    /// Write everything, raw rounds included, here as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures and prints the table. False when a cell has no figure, packets were lost, or a promise
/// was not kept.
///
/// # Errors
/// A relay does not start, dies, or does not let its sessions in.
pub fn run(arguments: &RunArguments) -> anyhow::Result<bool> {
    let arguments = &arguments.clone().quickened();
    let host = Host::this();
    let place = arguments.place()?;
    let (rows, engines) = (arguments.rows(), arguments.engines());
    check_descriptors(&rows, &engines, arguments.ipv6)?;
    measure::pin(&place.tool_cpus).context("leave the relay's CPU")?;
    let mut outcome = Outcome::new(METRIC, host);
    arguments.note(&place, &mut outcome);
    print_head(arguments, &place, &outcome.host);
    let mut misses = 0;
    for row in rows {
        // Relays of their own for each row: a client keeps the socket that it got in another.
        let mut rigs = Vec::new();
        for engine in &engines {
            rigs.push((*engine, Rig::build(*engine, row.direction, row.sessions, &place)?));
        }
        let cells = measure_row(arguments, &mut rigs, row)?;
        let block = Block::new(row, &cells, arguments.is_judged());
        block.print();
        misses += block.misses();
        outcome.cells.extend(cells.into_iter().map(|(_, cell)| cell));
    }
    if misses > 0 {
        println!("{misses} promises were not kept, or not judged: see MISS and UNJUDGED.");
    }
    if let Some(path) = &arguments.json {
        outcome.write(path)?;
    }
    Ok(misses == 0 && outcome.cells.iter().all(is_sound))
}

/// Whether a cell has a figure and nothing was lost on the way to it.
fn is_sound(cell: &Cell) -> bool {
    cell.void.is_none() && total(cell, name::LOST) == 0.0
}

/// The sum over the rounds.
fn total(cell: &Cell, name: &str) -> f64 {
    cell.figure(name).map_or(0.0, |figure| figure.rounds.iter().sum())
}

impl RunArguments {
    fn quickened(mut self) -> Self {
        if self.quick {
            self.directions = vec![Direction::Up];
            self.sessions = vec![1, 20];
            (self.rounds, self.drains) = (2, 2);
            self.warm_up = Duration::ZERO;
        }
        self
    }

    fn place(&self) -> anyhow::Result<Place> {
        let cpus = measure::allowed_cpus();
        let first = *cpus.first().context("this process may use no CPU")?;
        let relay_cpus =
            if self.relay_cpus.is_empty() { vec![first] } else { self.relay_cpus.clone() };
        for cpu in &relay_cpus {
            ensure!(
                cpus.contains(cpu),
                "--relay-cpus: CPU {cpu} is none of those that this process may use ({})",
                list(&cpus)
            );
        }
        let tool_cpus: Vec<usize> =
            cpus.into_iter().filter(|cpu| !relay_cpus.contains(cpu)).collect();
        ensure!(
            !tool_cpus.is_empty(),
            "a measurement needs two CPUs: the relay must have one for itself"
        );
        let ip = if self.ipv6 {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        } else {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        };
        let sessions = self.rows().iter().map(|row| row.sessions).max().unwrap_or(0);
        let sessions_at_once = u32::try_from(sessions).unwrap_or(u32::MAX);
        let tuning = Tuning { shards: self.shards, sessions_at_once, ..Tuning::default() };
        Ok(Place { relay_cpus, tool_cpus, ip, tuning })
    }

    fn rows(&self) -> Vec<Row> {
        if !self.only.is_empty() {
            return self.only.clone();
        }
        if self.table {
            return rows::promised().collect();
        }
        let (directions, sessions, shapes) = if self.matrix {
            (&DIRECTIONS[..], &SESSIONS[..], &SHAPES[..])
        } else {
            (&self.directions[..], &self.sessions[..], &self.shapes[..])
        };
        let mut rows = Vec::new();
        for direction in directions {
            for sessions in sessions {
                let row = |shape| Row { direction: *direction, sessions: *sessions, shape };
                rows.extend(shapes.iter().copied().map(row));
            }
        }
        rows
    }

    fn engines(&self) -> Vec<Engine> {
        if !self.engines.is_empty() {
            self.engines.clone()
        } else if self.table || self.matrix {
            ALL.to_vec()
        } else {
            vec![Engine::Loop, Engine::Mmsg, Engine::Uring]
        }
    }

    /// Whether promises apply: they are for one shard, IPv4 and an optimised build.
    fn is_judged(&self) -> bool {
        !self.ipv6 && self.shards == 1 && !cfg!(debug_assertions)
    }

    /// What two results must have in common to be compared.
    fn note(&self, place: &Place, outcome: &mut Outcome) {
        outcome.note("method", "gated drain");
        outcome.note("rounds", self.rounds);
        outcome.note("drains per round", self.drains);
        outcome.note("packets per drain", self.packets);
        outcome.note("payload bytes", PAYLOAD);
        outcome.note("relay CPUs", list(&place.relay_cpus));
        outcome.note("other CPUs", list(&place.tool_cpus));
        outcome.note("address", place.ip);
        outcome.note("run delay at most", turn::run_delay_rule());
        outcome.note(
            "warm-up",
            format!("{} s of drains per relay and row", self.warm_up.as_secs_f64()),
        );
        outcome.note("far ends", "UDP_GRO for trains; one datagram per receive for all else");
        outcome.note("relay flags", place.tuning.flags());
        outcome.note("socket buffers", "4 MiB asked for, by relay and baselines alike");
        let build = if cfg!(debug_assertions) { "unoptimised" } else { "optimised" };
        outcome.note("build", format!("{build}, relay and baselines in one program"));
    }
}

/// Over IPv6 each caller of each relay has a socket of its own.
fn check_descriptors(rows: &[Row], engines: &[Engine], is_ipv6: bool) -> anyhow::Result<()> {
    let limit = measure::raise_descriptor_limit();
    let sessions = rows.iter().map(|row| row.sessions).max().unwrap_or(0);
    let sockets = if is_ipv6 { sessions * engines.len() } else { sessions };
    let needed = sockets as u64 + DESCRIPTORS_BESIDE;
    ensure!(
        needed <= limit,
        "this needs {needed} descriptors and may have {limit}: raise the limit (ulimit -n), or \
         choose fewer sessions or --engines"
    );
    Ok(())
}

fn measure_row(
    arguments: &RunArguments,
    rigs: &mut [(Engine, Rig)],
    row: Row,
) -> anyhow::Result<Vec<(Engine, Cell)>> {
    let mut turns: Vec<Vec<Turn>> = rigs.iter().map(|_| Vec::new()).collect();
    for (_, rig) in rigs.iter_mut() {
        rig.prepare(row.shape)?;
        warm_up(arguments, rig, row.shape)?;
    }
    // Round 0 does not count, either: it is the first in which they take turns. Rounds in which any
    // turn is discarded are repeated, but not for ever.
    let mut good_rounds = 0;
    for round in 0..=arguments.rounds * TRIES_PER_ROUND {
        let mut is_good = true;
        for position in 0..rigs.len() {
            let position = (position + round as usize) % rigs.len();
            let (Some((_, rig)), Some(turns)) = (rigs.get_mut(position), turns.get_mut(position))
            else {
                continue;
            };
            let turn = measure_turn(arguments, rig, row.shape, round)?;
            is_good &= !turn.is_discarded;
            if round > 0 {
                turns.push(turn);
            }
        }
        good_rounds += u32::from(is_good && round > 0);
        if good_rounds >= arguments.rounds {
            break;
        }
    }
    let of_base = |base: &Engine| rigs.iter().position(|(engine, _)| engine == base);
    let bases: Vec<(Engine, &[Turn])> = BASES
        .iter()
        .filter_map(|base| Some((*base, turns.get(of_base(base)?)?.as_slice())))
        .collect();
    let cells = rigs.iter().zip(&turns).map(|((engine, rig), turns)| {
        (*engine, cell(row, *engine, rig.memory_per_session(), turns, &bases))
    });
    Ok(cells.collect())
}

/// Drains without a pause for as long as Ringway looks at traffic before it gives a client a socket
/// of its own, so that what is measured is a relay under sustained traffic.
fn warm_up(arguments: &RunArguments, rig: &mut Rig, shape: Shape) -> anyhow::Result<()> {
    let end = clock::now() + u64::try_from(arguments.warm_up.as_nanos())?;
    while clock::now() < end {
        rig.drain(shape, arguments.packets)?;
    }
    Ok(())
}

fn measure_turn(
    arguments: &RunArguments,
    rig: &mut Rig,
    shape: Shape,
    round: u32,
) -> anyhow::Result<Turn> {
    let before = rig.io()?;
    rig.drain(shape, arguments.packets)?; // Warms the caches.
    let empty_gate_ns = rig.drain(shape, 0)?.cpu.cpu_ns;
    let drains = (0..arguments.drains)
        .map(|_| rig.drain(shape, arguments.packets))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let io = rig.io()?.zip(before).map(|(after, before)| after.since(before));
    Ok(Turn { io, empty_gate_ns, ..Turn::of(round, &drains) })
}

/// What one subject did in one row.
fn cell(
    row: Row,
    engine: Engine,
    memory_per_session: f64,
    turns: &[Turn],
    bases: &[(Engine, &[Turn])],
) -> Cell {
    let mut cell = Cell::new(row.title(), engine.label());
    let good: Vec<&Turn> = turns.iter().filter(|turn| !turn.is_discarded).collect();
    let each = |of: fn(&Turn) -> f64| good.iter().map(|turn| of(turn)).collect::<Vec<f64>>();
    cell.add(name::CPU_NS_PER_PACKET, "ns", Better::Lower, each(|turn| turn.ns_per_packet));
    cell.add(name::PPS_PER_CORE, "1/s", Better::Higher, each(|turn| 1e9 / turn.ns_per_packet));
    for (base, base_turns) in bases.iter().filter(|(base, _)| *base != engine) {
        cell.add(&of(*base), "", Better::Lower, Turn::ratios(&good, base_turns));
    }
    // For these every round counts: no disturbance excuses a loss.
    let lost = turns.iter().map(|turn| turn.lost as f64).collect();
    cell.add(name::LOST, "", Better::Lower, lost);
    let reordered = turns.iter().map(|turn| turn.reordered as f64).collect();
    cell.add(name::REORDERED, "", Better::Lower, reordered);
    let io = |of: fn(&IoCounts) -> f64| {
        good.iter().filter_map(|turn| turn.io.as_ref()).map(of).collect::<Vec<f64>>()
    };
    let receive_batch = io(|io| io.received / io.receives.max(1.0));
    cell.add(name::RECEIVE_BATCH, "", Better::Neither, receive_batch);
    cell.add(name::SEND_BATCH, "", Better::Neither, io(|io| io.sent / io.sends.max(1.0)));
    let syscalls = io(|io| io.syscalls / io.sent.max(1.0));
    cell.add(name::SYSCALLS_PER_PACKET, "", Better::Lower, syscalls);
    cell.add(name::MEMORY_PER_SESSION, "B", Better::Lower, vec![memory_per_session]);
    let delays = each(|turn| turn.run_delay_percent);
    cell.add(name::RUN_DELAY_PERCENT, "%", Better::Neither, delays);
    let wall = each(|turn| turn.wall_ns_per_packet);
    cell.add("wall_ns_per_packet", "ns", Better::Neither, wall);
    cell.add("empty_gate_ns", "ns", Better::Neither, each(|turn| turn.empty_gate_ns as f64));
    let discarded = (turns.len() - good.len()) as f64;
    cell.add(DISCARDED, "", Better::Neither, vec![discarded]);
    if good.is_empty() {
        cell.void = Some(Turn::why_void(turns));
    }
    cell
}

/// The name of the ratio to `base`.
fn of(base: Engine) -> String {
    name::ratio_of(base.label())
}

fn list(cpus: &[usize]) -> String {
    cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

fn print_head(arguments: &RunArguments, place: &Place, host: &Host) {
    println!("{METRIC}");
    println!("{}, {}", host.cpu_model, host.kernel);
    println!(
        "{} rounds x {} drains x {} packets of {} bytes over {}",
        arguments.rounds,
        arguments.drains,
        grouped(arguments.packets),
        grouped(PAYLOAD),
        place.ip
    );
    let (relay_cpus, tool_cpus) = (list(&place.relay_cpus), list(&place.tool_cpus));
    let threads = match place.tuning.shards {
        1 => "the relaying thread".to_owned(),
        shards => format!("{shards} relaying threads"),
    };
    println!("CPU {relay_cpus}: {threads}; CPU {tool_cpus}: all else");
    if cfg!(debug_assertions) {
        println!("UNOPTIMISED BUILD: these figures say nothing; build with --release");
    }
    print_flags(&place.tuning.flags());
    println!("of X: cost as a multiple of X's, median of the ratios within rounds");
    println!("/recv, /send: datagrams per receive and per send, by the relay's own counters");
    println!(
        "discarded: rounds in which something else ran on the relay's CPU; not in the figures"
    );
    println!();
}

/// Limits that were raised are part of what was measured, so they stand in the head of the table.
fn print_flags(flags: &str) {
    let mut line = "Ringway:".to_owned();
    for flag in flags.split(" --").map(|flag| flag.trim_start_matches("--")) {
        if line.len() + flag.len() + 3 > LINE_MAX {
            println!("{line}");
            line = "        ".to_owned();
        }
        line += &format!(" --{flag}");
    }
    println!("{line}");
}

const METRIC: &str = "CPU ns per packet of the relaying threads, saturated (gated drain)";
/// The name of the figure that counts rounds which are in no other figure.
const DISCARDED: &str = "rounds_discarded";
/// The relays that others are put in relation to.
const BASES: [Engine; 4] = [Engine::Loop, Engine::PlainMmsg, Engine::Mmsg, Engine::Bare];
const ALL: [Engine; 7] = [
    Engine::Uring,
    Engine::Mmsg,
    Engine::TokioUring,
    Engine::Loop,
    Engine::PlainMmsg,
    Engine::Tokio,
    Engine::Bare,
];
const DIRECTIONS: [Direction; 2] = [Direction::Up, Direction::Down];
const SESSIONS: [usize; 3] = [1, 100, 2_000];
const SHAPES: [Shape; 3] = [Shape::Singles, Shape::Bursts, Shape::Trains];
/// Columns of a terminal that nobody has widened.
const LINE_MAX: usize = 80;
/// Of every media packet, as live SRT has it: seven MPEG transport stream packets.
const PAYLOAD: u64 = 1_316;
const TRIES_PER_ROUND: u32 = 4;
/// Standard streams, the origins' sockets, pipes to the relays.
const DESCRIPTORS_BESIDE: u64 = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: RunArguments,
    }

    fn arguments(words: &[&str]) -> RunArguments {
        CommandLine::parse_from([""].iter().chain(words)).arguments
    }

    fn turn(round: u32, ns_per_packet: f64, is_discarded: bool) -> Turn {
        Turn { round, ns_per_packet, is_discarded, ..Turn::default() }
    }

    #[test]
    fn a_ratio_is_taken_within_rounds_and_ignores_discarded_turns() {
        let base = [turn(1, 3_000.0, false), turn(2, 6_000.0, false), turn(3, 9_000.0, true)];
        let turns = [turn(1, 1_500.0, false), turn(2, 3_000.0, false), turn(3, 1.0, false)];
        let bases = [(Engine::Loop, base.as_slice())];
        let row = "up-1-singles".parse().unwrap();
        let cell = cell(row, Engine::Uring, 0.0, &turns, &bases);
        assert_eq!(cell.figure("of_loop").unwrap().rounds, [0.5, 0.5]);
        assert_eq!(cell.figure(name::CPU_NS_PER_PACKET).unwrap().median, 1_500.0);
    }

    #[test]
    fn a_cell_without_a_turn_that_counts_is_void_and_says_why() {
        let row = "up-1-singles".parse().unwrap();
        let cell = cell(row, Engine::Mmsg, 0.0, &[turn(1, 1_000.0, true)], &[]);
        assert!(cell.figure(name::CPU_NS_PER_PACKET).is_none() && !is_sound(&cell));
        assert!(cell.void.unwrap().contains("2 %"));
    }

    #[test]
    fn a_cell_that_lost_packets_is_not_sound_whatever_it_cost() {
        let row = "up-1-singles".parse().unwrap();
        let lossy = Turn { lost: 1, ..turn(1, 1_000.0, false) };
        assert!(!is_sound(&cell(row, Engine::Mmsg, 0.0, &[lossy], &[])));
    }

    #[test]
    fn the_table_has_the_promised_rows() {
        assert_eq!(arguments(&["--table"]).rows().len(), 7);
    }

    #[test]
    fn table_and_matrix_have_every_relay() {
        let every = <Engine as clap::ValueEnum>::value_variants().iter();
        // It is one of the others.
        let every: Vec<&Engine> = every.filter(|engine| **engine != Engine::Auto).collect();
        for words in ["--table", "--matrix"] {
            let engines = arguments(&[words]).engines();
            assert_eq!(engines.len(), every.len(), "{words}");
            assert!(every.iter().all(|engine| engines.contains(engine)), "{words}: {engines:?}");
        }
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        for words in [
            ["--only", "up-1-trains", "--sessions", "5"],
            ["--matrix", "--json", "x", "--shapes=trains"],
            ["--table", "--json", "x", "--directions=up"],
            ["--quick", "--json", "x", "--rounds=9"],
        ] {
            assert!(CommandLine::try_parse_from([""].iter().chain(&words)).is_err(), "{words:?}");
        }
    }

    #[test]
    fn a_cpu_that_is_not_there_is_named() {
        let error = arguments(&["--relay-cpus", "1000000"]).place().unwrap_err();
        assert!(error.to_string().contains("CPU 1000000"), "{error}");
    }

    #[test]
    fn a_single_row_of_the_table_can_be_had() {
        let one = arguments(&["--table", "--only", "down-100-bursts"]);
        assert_eq!(one.rows(), ["down-100-bursts".parse().unwrap()]);
    }

    #[test]
    fn the_matrix_is_everything() {
        assert_eq!(arguments(&["--matrix"]).rows().len(), 18);
    }
}
