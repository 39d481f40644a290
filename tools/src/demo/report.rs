//! What the demo shows: 80 columns, with or without a terminal.

use std::net::SocketAddr;

use super::{Act, Delivery, DemoArguments, DemoResult, Reading};
use crate::report::{Percentiles, duration, grouped};
use crate::webrtc::station::Media;

pub(super) fn print_head(arguments: &DemoArguments, relay_cpu: usize, tool_cpus: &[usize]) {
    println!(
        "Ringway demo: {} SRT sessions x {} packets/s of {} bytes,",
        arguments.sessions, arguments.rate, arguments.size
    );
    println!(
        "{} WebRTC sessions x {:.1} packets/s of audio and video.",
        arguments.webrtc_sessions,
        Media::mixed().packets_per_second()
    );
    match tool_cpus {
        [] => {
            println!("Only one CPU: relay, origins and clients share it, so latency says little.")
        }
        [first, ..] => {
            println!("Relay on CPU {relay_cpu}; origins and clients from CPU {first} on.");
        }
    }
}

pub(super) fn print_connected(acts: &[Act<'_>], direct: &[Percentiles], relay: SocketAddr) {
    if acts.len() < 2 {
        println!("No WebRTC: this relay does not take it, or no session was asked for.");
    }
    for (Act { protocol, .. }, direct) in acts.iter().zip(direct) {
        println!("Direct path, {protocol}:  {}", direct.line());
    }
    for Act { protocol, pair } in acts {
        let published = pair.clients.published();
        let setup = Percentiles::of(&published.setup);
        println!(
            "{} {protocol} sessions connected through {} in p50 {}, max {}.",
            published.counts.connected,
            relay.ip(),
            duration(setup.p50_ns),
            duration(setup.max_ns)
        );
    }
    println!();
}

pub(super) fn print_table_head() {
    println!(
        "{:>5} {:<6} {:>5} {:>8} {:>8} {:>5} {:>5} {:>8} {:>8} {:>5} {:>6}",
        "time",
        "proto",
        "sess",
        "in pps",
        "out pps",
        "lost",
        "reord",
        "p50",
        "p99",
        "CPU",
        "ns/pkt"
    );
}

/// A line for each act. What the relay's thread uses is for all of them and stands in the first.
pub(super) fn print_second(
    acts: &[Act<'_>],
    latencies: &[Percentiles],
    start: &Reading,
    last: &Reading,
    now: &Reading,
) {
    let (interval, since_start) = (now.since(last), now.since(start));
    let seconds = interval.at.max(1) as f64 / 1e9;
    let per_second = |packets: u64| grouped((packets as f64 / seconds).round() as u64);
    let cpu_ns = interval.cpu.cpu_ns as f64;
    let mut time = format!("{:>4.0}s", since_start.at as f64 / 1e9);
    let mut cost = format!(
        " {:>4.0}% {:>6.0}",
        cpu_ns / (seconds * 1e7),
        cpu_ns / interval.all().datagrams.max(1) as f64
    );
    let totals = interval.totals.iter().zip(&since_start.totals);
    for ((act, latency), (interval, since_start)) in acts.iter().zip(latencies).zip(totals) {
        println!(
            "{time:>5} {:<6} {:>5} {:>8} {:>8} {:>5} {:>5} {:>8} {:>8}{cost}",
            act.protocol,
            interval.sessions,
            per_second(interval.sent),
            per_second(interval.tally.received),
            since_start.tally.missing,
            since_start.tally.reordered,
            duration(latency.p50_ns),
            duration(latency.p99_ns),
        );
        time.clear();
        cost.clear();
    }
}

pub(super) fn print_summary(result: &DemoResult) {
    println!();
    for protocol in &result.protocols {
        print_delivery(protocol.protocol, &protocol.delivery);
        println!("  one way      {}", protocol.relayed.line());
        println!("  direct       {}", protocol.direct.line());
        println!("  added        {}", protocol.added.line());
        println!("  sent late    {}", protocol.lateness.line());
    }
    if result.protocols.len() > 1 {
        print_delivery("In all", &result.all);
    }
    println!(
        "Relay thread   {:.0} ns CPU per datagram, {:.1} % of a CPU, run delay {:.1} %",
        result.cpu_ns_per_datagram, result.cpu_percent, result.run_delay_percent
    );
    let batch =
        result.datagrams_per_send.map_or_else(String::new, |size| format!(", {size:.2} per send"));
    println!(
        "               {} engine, {} datagrams of all kinds{batch}",
        result.engine,
        grouped(result.datagrams)
    );
    print_doubts(result);
    println!(
        "{}",
        if result.is_clean() {
            "OK: all arrived, in order."
        } else {
            "FAILED: see the counts above."
        }
    );
}

fn print_delivery(title: &str, delivery: &Delivery) {
    println!(
        "{title:<14} {} sessions, {} packets in, {} out",
        delivery.sessions,
        grouped(delivery.packets_in),
        grouped(delivery.packets_out)
    );
    println!(
        "               {} lost, {} reordered, {} duplicates, {} damaged",
        delivery.lost, delivery.reordered, delivery.duplicates, delivery.damaged
    );
}

/// What makes the figures mean less.
fn print_doubts(result: &DemoResult) {
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
    if result.protocols.iter().any(|protocol| protocol.relayed.p50_ns < protocol.direct.p50_ns) {
        println!("The direct path was disturbed by other work: the added latency means nothing.");
    }
    if result.run_delay_percent > BUSY_PERCENT {
        println!("The relay had to wait for its CPU: other work runs there, latency says little.");
    }
}

/// Run delay, as a share of CPU time, above which a reader should not trust the tail.
const BUSY_PERCENT: f64 = 10.0;
