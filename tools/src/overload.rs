//! The measurement of overload: what becomes of the others when one session sends far more than its
//! share.
//!
//! Each round first warms the relay up, long enough for it to know its busy clients; then it offers
//! every session the same, twice what has come out so far, in several turns. What comes out per
//! second in the median one is the relay's capacity in this shape, if its threads have worked all of
//! that time and a good part of what was offered stayed behind. In the last turn all sessions but
//! one offer together 60 % of the capacity, which a relay could deliver, and one offers 140 %, which
//! it could not: as much as before, but not in equal shares. A fair relay cuts that one and nobody
//! else, and delivers as much as before.
//!
//! The generator has to offer twice the capacity while it takes what comes out, from one thread. So
//! a packet must cost it less than the relay: it sends trains, which the kernel cuts before the relay
//! (`--gro off`), of small payloads, and the relay sends each packet on its own (`--gso off`). With `--gso auto` the
//! relay is faster than one such generator, as a rule, and then the result says so and counts for
//! nothing.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::contest::{
    self, Contestant, Cpus, Entrant, Fault, Kind, QUEUE_OVERFLOWS, Turn, WITHOUT_LIMITS,
};
use crate::lane::{Flow, LaneSettings};
use crate::measure::Host;
use crate::report::{grouped, median};
use crate::result::{Better, Cell, Outcome, name};
use crate::rig::Direction;
use crate::subject::Tuning;

/// `ringway-bench run overload`
#[derive(Clone, Debug, clap::Args)]
pub struct OverloadArguments {
    /// Relays to compare: engines, baselines, nginx (buffers as they come), nginx-4m
    #[arg(long, value_delimiter = ',', default_value = "loop,mmsg,uring")]
    engines: Vec<Kind>,
    /// Sessions; the last one is the hot one
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..=10_000))]
    sessions: u16,
    /// Packets of a train
    #[arg(long, default_value_t = 49, value_parser = clap::value_parser!(u16).range(1..=49))]
    burst: u16,
    /// Payload bytes of a media packet; small ones cost the generator less
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(48..=1_456))]
    size: u16,
    /// Packets per second to offer while the relay warms up
    #[arg(long, default_value_t = 1_000_000)]
    offer: u32,
    /// Length of a turn
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Rounds that count; one more is run first and dropped
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Ringway's --gso: off makes each packet dearer for the relay but not for the generator
    #[arg(long, default_value = "off", value_parser = ["auto", "off"])]
    gso: String,
    /// Everything on ::1
    #[arg(long)]
    ipv6: bool,
    /// Relaying threads of Ringway and of the baselines
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: u16,
    /// Write everything, raw rounds included, here as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One round of one relay.
#[derive(Clone, Debug)]
struct Round {
    /// Packets per second that came out when all offered the same.
    capacity_pps: f64,
    /// Packets per second that left the generator then.
    offered_pps: f64,
    delivered_pps: f64,
    /// Loss of each session but the hot one, in per cent, ascending.
    loss_percent: Vec<f64>,
    hot_loss_percent: f64,
    lost: u64,
    /// What the relay counted as dropped, by reason.
    counted: Vec<(String, u64)>,
    cpu_ns_per_packet: f64,
    /// Why it does not count.
    void: Option<String>,
}

/// The rounds of one relay, without the first.
struct Line {
    label: String,
    rounds: Vec<Round>,
}

/// Measures and prints. False when a limit is missed by Ringway, or a relay has no round that
/// counts.
///
/// # Errors
/// A relay does not start, dies, or does not let its sessions in.
pub fn run(arguments: &OverloadArguments) -> anyhow::Result<bool> {
    ensure!(arguments.seconds > 0.0, "--seconds must be above 0");
    let cpus = Cpus::split(arguments.shards)?;
    let mut outcome = Outcome::new("Overload by one session", Host::this());
    outcome.note("method", "capacity with equal shares, then 60 % by all but one, 140 % by one");
    outcome.note("warm-up seconds per round", WARM_UP.as_secs_f64());
    outcome.note("warm-up packets per second", arguments.offer);
    outcome.note("capacity turns per round", CAPACITY_TURNS);
    outcome.note("sink", "single datagrams");
    outcome.note("sessions", arguments.sessions);
    outcome.note("trains of", arguments.burst);
    outcome.note("payload bytes", arguments.size);
    outcome.note("seconds per turn", arguments.seconds);
    outcome.note("rounds", arguments.rounds);
    outcome.note("ip", if arguments.ipv6 { "IPv6" } else { "IPv4" });
    outcome.note("flags", arguments.tuning().flags());
    cpus.note(&mut outcome);
    print_head(&outcome, arguments, &cpus);
    let (mut contestants, mut is_good) = (Vec::new(), true);
    for kind in arguments.engines.iter().filter(|kind| **kind != Kind::Direct) {
        let entrant = Entrant::new(*kind, arguments.tuning());
        match Contestant::start(entrant, arguments.lane(), &cpus)? {
            Some(contestant) => contestants.push(contestant),
            None => {
                is_good = false;
                println!("{} is left out: it is not installed here", entrant.label());
            }
        }
    }
    let lines = measure(arguments, &mut contestants)?;
    let shape = format!("up, {} sessions, trains of {}", arguments.sessions, arguments.burst);
    let has_limits = contest::has_limits(arguments.shards, arguments.ipv6, Direction::Up);
    for (line, contestant) in lines.iter().zip(&contestants) {
        is_good &= line.print(has_limits && contestant.entrant.kind.is_ringway());
        outcome.cells.push(line.cell(&shape));
    }
    if !has_limits {
        println!("{WITHOUT_LIMITS}");
    }
    if let Some(path) = &arguments.json {
        outcome.write(path)?;
    }
    Ok(is_good)
}

impl OverloadArguments {
    fn tuning(&self) -> Tuning {
        let sessions_at_once = u32::from(self.sessions);
        let gso = self.gso != "off";
        Tuning { shards: self.shards, gro: false, gso, sessions_at_once, ..Tuning::default() }
    }

    fn lane(&self) -> LaneSettings {
        LaneSettings {
            direction: Direction::Up,
            sessions: usize::from(self.sessions),
            size: usize::from(self.size),
            ipv6: self.ipv6,
            takes_trains: false,
        }
    }

    fn flow(&self, sessions: std::ops::Range<u16>, pps: f64) -> Flow {
        let sessions = usize::from(sessions.start)..usize::from(sessions.end);
        Flow { sessions, pps, burst: self.burst, train: self.burst > 1 }
    }

    fn round(&self, contestant: &mut Contestant) -> anyhow::Result<Round> {
        let length = Duration::from_secs_f64(self.seconds);
        let equal = self.capacity_turn(contestant, length)?;
        let capacity_pps = equal.delivered_pps();
        let hot = self.sessions - 1;
        // The hot one first: a generator that falls behind must not spare the relay its load.
        let flows = [
            self.flow(hot..self.sessions, capacity_pps * HOT_SHARE),
            self.flow(0..hot, capacity_pps * OTHERS_SHARE),
        ];
        let drops = contestant.drops()?;
        let turn = contestant.take_turn(&flows, length)?;
        let counted = contestant.drops()?;
        let counted = counted.into_iter().filter_map(|(reason, count)| {
            let before = drops.iter().find(|(name, _)| *name == reason).map_or(0, |drop| drop.1);
            (count > before).then(|| (reason, count - before))
        });
        Ok(Round::of(&equal, &turn, counted.collect()))
    }

    /// The median of the turns in which all sessions offer the same.
    fn capacity_turn(&self, contestant: &mut Contestant, length: Duration) -> anyhow::Result<Turn> {
        let equal = |pps| [self.flow(0..self.sessions, pps)];
        let warm_up = contestant.take_turn(&equal(f64::from(self.offer)), WARM_UP)?;
        let mut most_pps = warm_up.delivered_pps();
        let mut turns = Vec::new();
        for _ in 0..CAPACITY_TURNS {
            let offer = most_pps * (OTHERS_SHARE + HOT_SHARE);
            let turn = contestant.take_turn(&equal(offer), length)?;
            most_pps = most_pps.max(turn.delivered_pps());
            turns.push(turn);
        }
        turns.sort_by(|a, b| a.delivered_pps().total_cmp(&b.delivered_pps()));
        Ok(turns.swap_remove(CAPACITY_TURNS / 2))
    }
}

fn measure(
    arguments: &OverloadArguments,
    contestants: &mut [Contestant],
) -> anyhow::Result<Vec<Line>> {
    let mut lines: Vec<Line> = contestants
        .iter()
        .map(|contestant| Line { label: contestant.entrant.label(), rounds: Vec::new() })
        .collect();
    for round in 0..=arguments.rounds {
        for position in contest::order(contestants.len(), round) {
            let (Some(contestant), Some(line)) =
                (contestants.get_mut(position), lines.get_mut(position))
            else {
                continue;
            };
            let result = arguments.round(contestant).with_context(|| line.label.clone())?;
            if round > 0 {
                line.rounds.push(result);
            }
        }
    }
    Ok(lines)
}

impl Round {
    fn of(equal: &Turn, turn: &Turn, counted: Vec<(String, u64)>) -> Self {
        let loss = |(sent, received): &(u64, u64)| {
            sent.saturating_sub(*received) as f64 * 100.0 / (*sent).max(1) as f64
        };
        let (hot, others) = match turn.passage.sessions.split_last() {
            Some((hot, others)) => (loss(hot), others),
            None => (0.0, [].as_slice()),
        };
        let mut loss_percent: Vec<f64> = others.iter().map(loss).collect();
        loss_percent.sort_by(f64::total_cmp);
        Self {
            capacity_pps: equal.delivered_pps(),
            offered_pps: equal.offered_pps(),
            delivered_pps: turn.delivered_pps(),
            loss_percent,
            hot_loss_percent: hot,
            lost: turn.lost(),
            counted,
            cpu_ns_per_packet: equal.cpu_ns_per_packet().unwrap_or_default(),
            void: void(equal, turn),
        }
    }

    fn of_capacity_percent(&self) -> f64 {
        self.delivered_pps * 100.0 / self.capacity_pps.max(1.0)
    }

    fn loss_max(&self) -> f64 {
        self.loss_percent.last().copied().unwrap_or_default()
    }

    fn loss_median(&self) -> f64 {
        median(&self.loss_percent).unwrap_or_default()
    }
}

/// Why a round does not count, if it does not.
fn void(equal: &Turn, turn: &Turn) -> Option<String> {
    let excess = equal.offered_pps() / equal.delivered_pps().max(1.0);
    if excess < EXCESS_MIN {
        return Some(format!(
            "the generator is the bottleneck: it offers {} packets/s and {} come out, which is no \
             overload",
            grouped(equal.offered_pps().round() as u64),
            grouped(equal.delivered_pps().round() as u64),
        ));
    }
    let busy_percent = equal.cpu.cpu_ns as f64 * 100.0 / equal.passage.elapsed_ns as f64;
    if busy_percent < BUSY_PERCENT_MIN {
        return Some(format!(
            "the relay was not the bottleneck: it worked {busy_percent:.0} % of the time while its \
             capacity was measured"
        ));
    }
    // How late packets leave says nothing here: no latency is measured, and a turn that was offered
    // in full was offered.
    let sent_percent = turn.sent_percent();
    if sent_percent < OFFERED_PERCENT_MIN {
        return Some(format!(
            "the generator is the bottleneck: it got {sent_percent:.0} % of the overload out, twice \
             {} packets/s",
            grouped(equal.delivered_pps().round() as u64),
        ));
    }
    let fault = [equal.fault(), turn.fault()].into_iter().flatten();
    let mut fault = fault.filter(|fault| !matches!(fault, Fault::GeneratorLate { .. }));
    fault.next().map(|fault| fault.to_string())
}

/// Name, unit, direction, and the figure of a round.
type Described = (&'static str, &'static str, Better, fn(&Round) -> f64);

impl Line {
    fn good(&self) -> impl Iterator<Item = &Round> {
        self.rounds.iter().filter(|round| round.void.is_none())
    }

    fn all(&self, of: impl Fn(&Round) -> f64) -> Vec<f64> {
        self.good().map(of).collect()
    }

    /// Whether it is within the limits; `None` without a round that counts.
    fn verdict(&self) -> Option<bool> {
        let delivered = median(&self.all(Round::of_capacity_percent))?;
        let lost = median(&self.all(Round::loss_max))?;
        Some(delivered >= DELIVERED_PERCENT_MIN && lost <= LOSS_PERCENT_MAX)
    }

    /// False when there is no round that counts, or a limit `has_limits` and it is missed.
    fn print(&self, has_limits: bool) -> bool {
        let whole = |values: &[f64]| {
            median(values).map_or_else(dash, |value| grouped(value.round() as u64))
        };
        let percent =
            |values: &[f64]| median(values).map_or_else(dash, |value| format!("{value:.1}%"));
        let verdict = match self.verdict() {
            None => "void",
            Some(_) if !has_limits => "",
            Some(true) => "ok",
            Some(false) => "MISS",
        };
        println!(
            "{:<12} {:>10} {:>10} {:>8} {:>8} {:>8} {:>8} {:>7} {:>6}  {verdict}",
            self.label,
            whole(&self.all(|round| round.capacity_pps)),
            whole(&self.all(|round| round.delivered_pps)),
            percent(&self.all(Round::of_capacity_percent)),
            percent(&self.all(Round::loss_median)),
            percent(&self.all(Round::loss_max)),
            percent(&self.all(|round| round.hot_loss_percent)),
            whole(&self.all(|round| round.cpu_ns_per_packet)),
            format!("{}/{}", self.good().count(), self.rounds.len()),
        );
        if let Some(round) = self.good().last().filter(|round| !round.counted.is_empty()) {
            let counted = round.counted.iter().map(|(reason, count)| format!("{reason} {count}"));
            let counted: Vec<String> = counted.collect();
            println!("{:<12} last round: {} lost; counted: {}", "", round.lost, counted.join(", "));
        }
        let mut void = self.rounds.iter().rev().filter_map(|round| round.void.as_ref());
        if let Some(reason) = void.next() {
            println!(
                "{:<12} {} rounds void: {reason}",
                "",
                self.rounds.len() - self.good().count()
            );
        }
        self.verdict().is_some_and(|is_within| is_within || !has_limits)
    }

    fn cell(&self, shape: &str) -> Cell {
        let mut cell = Cell::new(shape, &self.label);
        let figures: [Described; 9] = [
            (name::CPU_NS_PER_PACKET, "ns", Better::Lower, |round| round.cpu_ns_per_packet),
            ("capacity_pps", "1/s", Better::Higher, |round| round.capacity_pps),
            (name::OFFERED_PPS, "1/s", Better::Neither, |round| round.offered_pps),
            (name::DELIVERED_PPS, "1/s", Better::Higher, |round| round.delivered_pps),
            ("delivered_of_capacity", "%", Better::Higher, Round::of_capacity_percent),
            ("others_loss_median", "%", Better::Lower, Round::loss_median),
            ("others_loss_max", "%", Better::Lower, Round::loss_max),
            ("hot_loss", "%", Better::Neither, |round| round.hot_loss_percent),
            (name::LOST, "", Better::Neither, |round| round.lost as f64),
        ];
        for (name, unit, better, of) in figures {
            cell.add(name, unit, better, self.all(of));
        }
        let mut reasons: Vec<&str> = self
            .good()
            .flat_map(|round| &round.counted)
            .map(|(reason, _)| reason.as_str())
            .collect();
        reasons.sort_unstable();
        reasons.dedup();
        for reason in reasons {
            let count = |round: &Round| {
                let found = round.counted.iter().find(|(name, _)| name == reason);
                found.map_or(0.0, |(_, count)| *count as f64)
            };
            cell.add(&format!("counted_{reason}"), "", Better::Neither, self.all(count));
        }
        if self.good().next().is_none() {
            cell.void = self.rounds.iter().rev().find_map(|round| round.void.clone());
        }
        cell
    }
}

fn print_head(outcome: &Outcome, arguments: &OverloadArguments, cpus: &Cpus) {
    let OverloadArguments { rounds, seconds, sessions, burst, size, .. } = arguments;
    println!("{}: {}, {}", outcome.title, outcome.host.cpu_model, outcome.host.kernel);
    println!(
        "{sessions} sessions, trains of {burst} x {size} bytes; {rounds} rounds of {} x {seconds} s \
         after {} s to warm up",
        CAPACITY_TURNS + 1,
        WARM_UP.as_secs_f64()
    );
    println!("Relay on CPU {:?}, all else on {:?}", cpus.relay, cpus.tool);
    println!("Ringway with {}", arguments.tuning().flags());
    println!(
        "Limits: delivered at least {DELIVERED_PERCENT_MIN} % of capacity; \
         each other session loses at most {LOSS_PERCENT_MAX} %"
    );
    println!("{}", Cpus::rule());
    println!("Queue overflows are counted as {QUEUE_OVERFLOWS}");
    println!();
    println!(
        "{:<12} {:>10} {:>10} {:>8} {:>8} {:>8} {:>8} {:>7} {:>6}",
        "relay",
        "capacity/s",
        "deliver/s",
        "of cap",
        "loss med",
        "loss max",
        "hot loss",
        "ns/pkt",
        "rounds"
    );
}

fn dash() -> String {
    "-".to_owned()
}

const OTHERS_SHARE: f64 = 0.6;
const HOT_SHARE: f64 = 1.4;
/// A relay that counts its clients' receives by the second has done so twice.
const WARM_UP: Duration = Duration::from_millis(2_500);
/// An odd number, for the median one is taken whole.
const CAPACITY_TURNS: usize = 3;
/// Of the time in which the capacity is measured; of all relaying threads together.
const BUSY_PERCENT_MIN: f64 = 90.0;
/// Offered beyond what comes out, for that to be the relay's capacity.
const EXCESS_MIN: f64 = 1.2;
const OFFERED_PERCENT_MIN: f64 = 97.0;
const DELIVERED_PERCENT_MIN: f64 = 95.0;
const LOSS_PERCENT_MAX: f64 = 5.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;
    use crate::contest::tests::turn as any_turn;

    /// A second in which the relay never slept.
    fn turn(sent: u64, received: u64) -> Turn {
        let mut turn = any_turn(sent, received);
        turn.cpu.cpu_ns = SECOND;
        turn
    }

    /// Four sessions that sent 100 each, of which so many arrived; the last one is hot.
    fn overloaded(received: [u64; 4]) -> Turn {
        let mut turn = turn(400, received.iter().sum());
        turn.passage.sessions = received.map(|received| (100, received)).to_vec();
        turn
    }

    #[test]
    fn the_hot_session_is_not_among_the_others() {
        let round = Round::of(&turn(1_000, 250), &overloaded([100, 96, 98, 10]), Vec::new());
        assert_eq!(round.loss_percent, [0.0, 2.0, 4.0]);
        assert!((round.hot_loss_percent - 90.0).abs() < f64::EPSILON);
        assert_eq!(round.void, None);
    }

    #[test]
    fn a_relay_that_had_nothing_to_do_was_not_at_its_capacity() {
        let mut idle = turn(1_000, 250);
        idle.cpu.cpu_ns = SECOND / 2;
        let round = Round::of(&idle, &overloaded([100; 4]), Vec::new());
        assert!(round.void.is_some_and(|reason| reason.contains("50 % of the time")));
    }

    #[test]
    fn a_generator_that_cannot_overload_the_relay_has_measured_nothing() {
        let round = Round::of(&turn(300, 290), &overloaded([100; 4]), Vec::new());
        assert!(round.void.is_some_and(|reason| reason.contains("no overload")));
    }

    #[test]
    fn a_limit_holds_for_the_worst_of_the_others() {
        let round = |received| Round::of(&turn(1_000, 250), &overloaded(received), Vec::new());
        let line = |received| Line { label: "x".to_owned(), rounds: vec![round(received)] };
        assert_eq!(line([100, 100, 95, 0]).verdict(), Some(true));
        assert_eq!(line([100, 100, 94, 5]).verdict(), Some(false));
        assert_eq!(line([60, 60, 60, 0]).verdict(), Some(false));
    }

    #[test]
    fn a_relay_without_a_round_that_counts_has_no_verdict() {
        let void = Round::of(&turn(300, 290), &overloaded([100; 4]), Vec::new());
        let line = Line { label: "x".to_owned(), rounds: vec![void] };
        assert_eq!(line.verdict(), None);
        assert!(line.cell("s").void.is_some());
    }
}
