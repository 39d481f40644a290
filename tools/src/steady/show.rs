//! How the results look on a terminal.

use super::{Limit, Line, Measured, SteadyArguments, latency};
use crate::contest::{Cpus, Kind, Turn, WITHOUT_LIMITS};
use crate::report::{duration, grouped, median};
use crate::result::Outcome;

pub(super) fn print_head(outcome: &Outcome, arguments: &SteadyArguments, cpus: &Cpus) {
    let SteadyArguments { rounds, seconds, size, .. } = arguments;
    println!("{}: {}, {}", outcome.title, outcome.host.cpu_model, outcome.host.kernel);
    println!(
        "{rounds} rounds of {seconds} s each; {size} payload bytes; relay on CPU {:?}, all else on {:?}",
        cpus.relay, cpus.tool
    );
    println!(
        "Ringway with --shards {}, limits per source raised; see the JSON for all flags",
        arguments.shards
    );
    println!("{}", Cpus::rule());
    println!("delay: run delay in per cent of the turn");
    println!(
        "ns/pkt: CPU time of the relaying threads per packet that came out, wake-ups included"
    );
    println!("added: one-way latency from when a packet was due, less that without a relay");
    println!("in, out: packets per receive and send; calls: system calls per packet");
    println!(
        "B/sess: growth of the relay's memory in use while its sessions connected, per session"
    );
}

pub(super) fn print_row(measured: &Measured) {
    println!();
    println!("{}", measured.row.title);
    println!(
        "{:<14} {:>7} {:>7} {:>7} {:>5} {:>11} {:>9} {:>6} {:>6} {:>7}",
        "relay",
        "ns/pkt",
        "lowest",
        "highest",
        "CPU",
        "delivered/s",
        "lost",
        "reord",
        "delay",
        "rounds"
    );
    for line in &measured.lines {
        print_costs(line);
    }
    println!(
        "{:<14} {:>9} {:>9} {:>9} {:>9} {:>9}  {:>6} {:>6} {:>6} {:>7}",
        "added", "p50", "p90", "p99", "p99.9", "max", "in", "out", "calls", "B/sess"
    );
    for line in &measured.lines {
        print_latency(measured, line);
    }
    for line in &measured.lines {
        print_faults(line);
    }
    for absent in &measured.absent {
        println!("{absent}");
    }
}

fn print_costs(line: &Line) {
    let costs = line.some(Turn::cpu_ns_per_packet);
    let lowest = costs.iter().copied().min_by(f64::total_cmp);
    let highest = costs.iter().copied().max_by(f64::total_cmp);
    let number = |value: Option<f64>| value.map_or_else(dash, |value| format!("{value:.0}"));
    let percent = |value: Option<f64>, digits: usize| {
        value.filter(|_| !costs.is_empty()).map_or_else(dash, |value| format!("{value:.digits$}%"))
    };
    let cpu = line.all(|turn| turn.cpu.cpu_ns as f64 * 100.0 / turn.passage.elapsed_ns as f64);
    let sum = |of: fn(&Turn) -> u64| grouped(line.good().map(|(_, turn)| of(turn)).sum());
    println!(
        "{:<14} {:>7} {:>7} {:>7} {:>5} {:>11} {:>9} {:>6} {:>6} {:>7}",
        line.entrant.label(),
        number(median(&costs)),
        number(lowest),
        number(highest),
        percent(median(&cpu), 0),
        median(&line.all(Turn::delivered_pps)).map_or_else(dash, |pps| grouped(pps.round() as u64)),
        sum(Turn::lost),
        sum(|turn| turn.passage.tally.reordered),
        percent(median(&line.all(Turn::run_delay_percent)), 1),
        format!("{}/{}", line.good().count(), line.turns.len()),
    );
}

/// What the relay adds; of the direct path, the latency itself.
fn print_latency(measured: &Measured, line: &Line) {
    let is_direct = line.entrant.kind == Kind::Direct;
    let at = |quantile: f64| {
        let values = match measured.direct().filter(|_| !is_direct) {
            Some(direct) => line.added(direct, quantile),
            None => line.all(|turn| latency(turn, quantile)),
        };
        // A relay that is faster than no relay is noise in the tail.
        let shown = |ns: f64| if ns < 0.0 { "< 0".to_owned() } else { duration(ns.round() as u64) };
        median(&values).map_or_else(dash, shown)
    };
    let per = |of: fn(&Turn) -> Option<f64>| {
        median(&line.some(of)).map_or_else(dash, |value| format!("{value:.2}"))
    };
    println!(
        "{:<14} {:>9} {:>9} {:>9} {:>9} {:>9}  {:>6} {:>6} {:>6} {:>7}",
        if is_direct { "(direct path)".to_owned() } else { line.entrant.label() },
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0),
        per(|turn| turn.io.map(|io| io.received / io.receives.max(1.0))),
        per(|turn| turn.io.map(|io| io.sent / io.sends.max(1.0))),
        per(|turn| turn.io.map(|io| io.syscalls / io.sent.max(1.0))),
        line.bytes_per_session.map_or_else(dash, |bytes| grouped(bytes.round() as u64)),
    );
}

fn print_faults(line: &Line) {
    let faults: Vec<_> = line.turns.iter().filter_map(|(_, turn)| turn.fault()).collect();
    if let Some(last) = faults.last() {
        println!(
            "{}: {} of {} turns discarded, the last because {last}",
            line.entrant.label(),
            faults.len(),
            line.turns.len()
        );
    }
    let strays: u64 = line.good().map(|(_, turn)| turn.passage.strays).sum();
    let tally = line.good().map(|(_, turn)| turn.passage.tally);
    let (damaged, twice) = tally.fold((0, 0), |sum, tally| {
        (sum.0 + tally.damaged + tally.foreign, sum.1 + tally.duplicates)
    });
    if strays + damaged + twice > 0 {
        println!(
            "{}: {damaged} damaged, {twice} duplicates, {strays} for no session",
            line.entrant.label()
        );
    }
}

/// Each limit with what was measured. True when all are kept, or none applies: a limit that cannot
/// be judged is not kept.
pub(super) fn print_limits(measured: &Measured, has_limits: bool) -> bool {
    let mut is_good = true;
    for limit in &measured.row.limits {
        let judgement = limit.judge(measured);
        is_good &= judgement.as_ref().is_some_and(|judgement| judgement.is_kept);
        let (value, verdict) = match judgement {
            Some(judgement) if !has_limits => (judgement.value, ""),
            Some(judgement) if judgement.is_kept => (judgement.value, "ok"),
            Some(judgement) => (judgement.value, "MISS"),
            None => (dash(), why_not_judged(limit, measured)),
        };
        println!("  {:<52} {value:>12}  {verdict}", limit.text());
    }
    if !has_limits && !measured.row.limits.is_empty() {
        println!("  {WITHOUT_LIMITS}");
    }
    is_good || !has_limits
}

fn why_not_judged(limit: &Limit, measured: &Measured) -> &'static str {
    if limit.relays().into_iter().flatten().all(|relay| measured.line(relay).is_some()) {
        "NOT JUDGED: too few rounds that count for all who are named"
    } else {
        "NOT JUDGED: one of them is not installed here"
    }
}

impl Limit {
    fn text(&self) -> String {
        match self {
            Self::Cpu { of, against, most } => format!("{of} / {against}, CPU: at most {most:.2}x"),
            Self::AddedP50 { of, against, most_ns } => {
                format!("{of} - {against}, p50: at most {:+.1} us", most_ns / 1e3)
            }
            Self::Delivered { of, against, least } => {
                format!("{of} / {against}, delivered: at least {least:.2}x")
            }
            Self::NoLoss { of } => format!("{of}: nothing lost"),
        }
    }
}

fn dash() -> String {
    "-".to_owned()
}
