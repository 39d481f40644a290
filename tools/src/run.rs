//! The measurement: CPU nanoseconds per packet of the relaying thread, saturated, by the gated
//! drain (see [`crate::gate`]).
//!
//! Engines take turns in every round, so that what else the machine does hits all of them; the
//! first round only warms up, and so does the first drain of each round, for the others have just
//! had the caches. A drain in which the relaying thread had to wait for its CPU for more than 2 %
//! of its time is rejected, a wake-up on an idle CPU not counted; a round in which more than half
//! of the drains are is rejected as a whole and repeated. A round's figure is the median of its
//! drains, the figure the median over rounds, the ratio the median of the ratios within rounds.
//!
//! Stopping and letting go costs the relaying thread some microseconds per drain, which are in the
//! figure: a fraction of a per cent of single packets, a few per cent of trains. Each round
//! measures them with an empty drain (`empty_gate_ns` in the JSON); they are not subtracted.
//!
//! Saturated means: cost per packet while there is always a next one. What a relay costs that is
//! woken for each packet is another figure, and `demo` shows it.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use crate::measure::{self, CpuTime, Host};
use crate::report::{median, write_json};
use crate::rig::{Direction, Drain, Rig, Shape};
use crate::subject::Engine;

/// `ringway-bench run srt`
#[derive(Clone, Debug, clap::Args)]
pub struct RunArguments {
    /// Relays to compare; the first is the base of the ratios
    #[arg(long, value_enum, value_delimiter = ',', default_value = "loop,mmsg,uring")]
    engines: Vec<Engine>,
    /// Numbers of sessions
    #[arg(long, value_delimiter = ',', default_value = "1,100,2000")]
    sessions: Vec<usize>,
    /// How packets follow each other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "singles,bursts,trains")]
    shapes: Vec<Shape>,
    /// Up is client to origin
    #[arg(long, value_enum, value_delimiter = ',', default_value = "up,down")]
    directions: Vec<Direction>,
    /// Rounds that count; one more is run first and dropped
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Drains per engine and round
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    drains: u32,
    /// Packets per drain; they have to fit into the relay's socket buffers
    #[arg(long, default_value_t = 2_048, value_parser = clap::value_parser!(u64).range(32..))]
    packets: u64,
    /// A smoke test: up only, 1 and 20 sessions, 2 rounds of 2 drains
    #[arg(long)]
    quick: bool,
    /// Write everything, raw rounds included, here as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A round of one engine.
#[derive(Clone, Debug, serde::Serialize)]
struct Round {
    /// Engines of the same turn have the same number.
    turn: u32,
    /// Median of the drains that count.
    ns_per_packet: f64,
    /// Of the same.
    run_delay_percent: f64,
    drains_rejected: usize,
    rejected: bool,
    /// CPU time of a drain with nothing to drain.
    empty_gate_ns: u64,
    drains: Vec<Drain>,
}

/// What one engine did in one cell of the matrix.
#[derive(Clone, Debug, serde::Serialize)]
struct Figure {
    engine: Engine,
    /// Median of the rounds that count; absent when there is none.
    ns_per_packet: Option<f64>,
    /// Lowest and highest round that counts.
    spread: Option<(f64, f64)>,
    /// Median of base / this engine within rounds: how many times cheaper than the base.
    ratio: Option<f64>,
    run_delay_percent: f64,
    rounds_rejected: usize,
    lost: u64,
    rounds: Vec<Round>,
}

/// One cell of the matrix.
#[derive(Clone, Debug, serde::Serialize)]
struct Cell {
    direction: Direction,
    sessions: usize,
    shape: Shape,
    figures: Vec<Figure>,
}

#[derive(Clone, Debug, serde::Serialize)]
struct RunResult {
    host: Host,
    metric: &'static str,
    relay_cpu: usize,
    tool_cpus: Vec<usize>,
    rounds: u32,
    drains: u32,
    packets_per_drain: u64,
    payload_bytes: usize,
    run_delay_percent_max: f64,
    cells: Vec<Cell>,
}

/// Measures and prints the table. False when a cell has no figure or packets were lost.
///
/// # Errors
/// A relay does not start, dies, or does not let its sessions in.
pub fn run(arguments: &RunArguments) -> anyhow::Result<bool> {
    let arguments = &arguments.clone().quickened();
    let cpus = measure::allowed_cpus();
    let (relay_cpu, tool_cpus) = cpus.split_first().context("this process may use no CPU")?;
    ensure!(
        !tool_cpus.is_empty(),
        "a measurement needs two CPUs: the relay must have one for itself"
    );
    let host = Host::this();
    measure::pin(tool_cpus).context("leave the relay's CPU")?;
    let mut result = RunResult {
        host,
        metric: METRIC,
        relay_cpu: *relay_cpu,
        tool_cpus: tool_cpus.to_vec(),
        rounds: arguments.rounds,
        drains: arguments.drains,
        packets_per_drain: arguments.packets,
        payload_bytes: 1_316,
        run_delay_percent_max: RUN_DELAY_MAX * 100.0,
        cells: Vec::new(),
    };
    print_head(arguments, &result);
    for direction in &arguments.directions {
        for sessions in &arguments.sessions {
            let mut rigs = arguments
                .engines
                .iter()
                .map(|engine| {
                    Ok((
                        *engine,
                        Rig::build(*engine, *direction, *sessions, *relay_cpu, tool_cpus)?,
                    ))
                })
                .collect::<anyhow::Result<Vec<_>>>()?;
            for shape in &arguments.shapes {
                let figures = measure_cell(arguments, &mut rigs, *shape)?;
                let cell =
                    Cell { direction: *direction, sessions: *sessions, shape: *shape, figures };
                print_cell(&cell);
                result.cells.push(cell);
            }
        }
    }
    if let Some(path) = &arguments.json {
        write_json(path, &result)?;
    }
    let is_complete = |figure: &Figure| figure.ns_per_packet.is_some() && figure.lost == 0;
    Ok(result.cells.iter().flat_map(|cell| &cell.figures).all(is_complete))
}

impl RunArguments {
    fn quickened(mut self) -> Self {
        if self.quick {
            self.directions = vec![Direction::Up];
            self.sessions = vec![1, 20];
            (self.rounds, self.drains) = (2, 2);
        }
        self
    }
}

fn measure_cell(
    arguments: &RunArguments,
    rigs: &mut [(Engine, Rig)],
    shape: Shape,
) -> anyhow::Result<Vec<Figure>> {
    let mut rounds: Vec<(Engine, Vec<Round>)> =
        rigs.iter().map(|(engine, _)| (*engine, Vec::new())).collect();
    for (_, rig) in rigs.iter_mut() {
        rig.prepare(shape)?;
    }
    // Turn 0 warms up. Turns in which any round is rejected are repeated, but not for ever.
    let mut good_turns = 0;
    for turn in 0..=arguments.rounds * TURNS_PER_ROUND_MAX {
        let mut is_good = true;
        for ((_, rig), (_, rounds)) in rigs.iter_mut().zip(&mut rounds) {
            let round = measure_round(arguments, rig, shape, turn)?;
            is_good &= !round.rejected;
            if turn > 0 {
                rounds.push(round);
            }
        }
        good_turns += u32::from(is_good && turn > 0);
        if good_turns >= arguments.rounds {
            break;
        }
    }
    let base = rounds.first().map(|(_, rounds)| rounds.clone()).unwrap_or_default();
    Ok(rounds.into_iter().map(|(engine, rounds)| Figure::of(engine, rounds, &base)).collect())
}

fn measure_round(
    arguments: &RunArguments,
    rig: &mut Rig,
    shape: Shape,
    turn: u32,
) -> anyhow::Result<Round> {
    rig.wake()?;
    rig.drain(shape, arguments.packets)?; // Warms the caches.
    let empty_gate_ns = rig.drain(shape, 0)?.cpu.cpu_ns;
    let drains = (0..arguments.drains)
        .map(|_| rig.drain(shape, arguments.packets))
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Round::of(turn, empty_gate_ns, drains))
}

impl Round {
    fn of(turn: u32, empty_gate_ns: u64, drains: Vec<Drain>) -> Self {
        let is_undisturbed = |drain: &&Drain| {
            let delay_max = WAKE_UP_DELAY_NS as f64 + drain.cpu.cpu_ns as f64 * RUN_DELAY_MAX;
            drain.packets > 0 && drain.cpu.run_delay_ns as f64 <= delay_max
        };
        let good: Vec<&Drain> = drains.iter().filter(is_undisturbed).collect();
        let cpu = good.iter().fold(CpuTime::default(), |sum, drain| sum.plus(drain.cpu));
        let costs: Vec<f64> =
            good.iter().map(|drain| drain.cpu.cpu_ns as f64 / drain.packets as f64).collect();
        Self {
            turn,
            ns_per_packet: median(&costs).unwrap_or_default(),
            run_delay_percent: cpu.delay_share() * 100.0,
            drains_rejected: drains.len() - good.len(),
            rejected: good.is_empty() || good.len() * 2 < drains.len(),
            empty_gate_ns,
            drains,
        }
    }
}

impl Figure {
    fn of(engine: Engine, rounds: Vec<Round>, base: &[Round]) -> Self {
        let good: Vec<&Round> = rounds.iter().filter(|round| !round.rejected).collect();
        let values: Vec<f64> = good.iter().map(|round| round.ns_per_packet).collect();
        let ratios: Vec<f64> = good
            .iter()
            .filter_map(|round| {
                let base = base.iter().find(|base| base.turn == round.turn && !base.rejected)?;
                Some(base.ns_per_packet / round.ns_per_packet)
            })
            .collect();
        let lowest = values.iter().copied().min_by(f64::total_cmp);
        let highest = values.iter().copied().max_by(f64::total_cmp);
        let delays: Vec<f64> = good.iter().map(|round| round.run_delay_percent).collect();
        Self {
            engine,
            ns_per_packet: median(&values),
            spread: lowest.zip(highest),
            ratio: median(&ratios),
            run_delay_percent: median(&delays).unwrap_or(0.0),
            rounds_rejected: rounds.len() - good.len(),
            lost: rounds.iter().flat_map(|round| &round.drains).map(|drain| drain.lost).sum(),
            rounds,
        }
    }
}

fn print_head(arguments: &RunArguments, result: &RunResult) {
    println!("{METRIC}");
    println!("{}, {}", result.host.cpu_model, result.host.kernel);
    println!(
        "{} rounds x {} drains x {} packets of 1,316 bytes; relay on CPU {}, all else on {:?}",
        arguments.rounds, arguments.drains, arguments.packets, result.relay_cpu, result.tool_cpus
    );
    println!(
        "ratio: how many times cheaper than {}",
        arguments.engines.first().map_or("-", |engine| engine.label())
    );
    println!();
    println!("dir   sessions  shape    engine   ns/pkt   lowest  highest  ratio  delay  rejected");
}

fn print_cell(cell: &Cell) {
    for figure in &cell.figures {
        let number = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
        };
        println!(
            "{:<5} {:>8}  {:<8} {:<6} {:>8} {:>8} {:>8}  {:>5}  {:>4.1}%  {:>8}{}",
            cell.direction.label(),
            cell.sessions,
            cell.shape.label(),
            figure.engine.label(),
            number(figure.ns_per_packet),
            number(figure.spread.map(|(lowest, _)| lowest)),
            number(figure.spread.map(|(_, highest)| highest)),
            figure.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            figure.run_delay_percent,
            figure.rounds_rejected,
            if figure.lost > 0 { format!("  {} LOST", figure.lost) } else { String::new() },
        );
    }
}

const METRIC: &str = "CPU ns per packet of the relaying thread, saturated (gated drain)";
const RUN_DELAY_MAX: f64 = 0.02;
/// From the signal that opens the gate until an idle CPU runs the thread: 10 to 30 us in a virtual
/// machine. The thread does not run yet, so it costs nothing that is measured.
const WAKE_UP_DELAY_NS: u64 = 40_000;
const TURNS_PER_ROUND_MAX: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn round(turn: u32, ns_per_packet: f64, rejected: bool) -> Round {
        Round { ns_per_packet, rejected, ..Round::of(turn, 0, Vec::new()) }
    }

    fn drain(cpu_ns: u64, run_delay_ns: u64) -> Drain {
        let cpu = CpuTime { cpu_ns, run_delay_ns };
        Drain { packets: 1_000, lost: 0, cpu, wall_ns: 0 }
    }

    #[test]
    fn a_drain_that_had_to_wait_for_its_cpu_does_not_count() {
        let drains = vec![drain(3_000_000, 0), drain(9_000_000, 1_000_000)];
        let round = Round::of(1, 0, drains);
        assert!((round.ns_per_packet - 3_000.0).abs() < f64::EPSILON);
        assert_eq!((round.drains_rejected, round.rejected), (1, false));
    }

    #[test]
    fn the_wake_up_that_opens_the_gate_is_no_disturbance() {
        let round = Round::of(1, 0, vec![drain(500_000, 30_000), drain(500_000, 60_000)]);
        assert_eq!((round.drains_rejected, round.rejected), (1, false));
    }

    #[test]
    fn a_slow_drain_does_not_move_the_median() {
        let round = Round::of(1, 0, [1, 1, 1, 9].map(|ms| drain(ms * 1_000_000, 0)).to_vec());
        assert!((round.ns_per_packet - 1_000.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_round_of_mostly_disturbed_drains_is_rejected() {
        let drains = vec![drain(3_000_000, 0), drain(9, 90_000), drain(9, 90_000)];
        assert!(Round::of(1, 0, drains).rejected);
    }

    #[test]
    fn the_ratio_is_taken_within_turns_and_ignores_rejected_rounds() {
        let base = [round(1, 3_000.0, false), round(2, 6_000.0, false), round(3, 9_000.0, true)];
        let rounds = vec![round(1, 1_000.0, false), round(2, 2_000.0, false), round(3, 1.0, false)];
        let figure = Figure::of(Engine::Uring, rounds, &base);
        assert_eq!(figure.ratio, Some(3.0));
        assert_eq!(figure.ns_per_packet, Some(1_000.0));
    }

    #[test]
    fn a_cell_without_an_accepted_round_has_no_figure() {
        let figure = Figure::of(Engine::Mmsg, vec![round(1, 1_000.0, true)], &[]);
        assert_eq!((figure.ns_per_packet, figure.ratio, figure.rounds_rejected), (None, None, 1));
    }
}
