//! The shapes that have limits.

use std::time::Duration;

use super::{Limit, Row, SteadyArguments, flow};
use crate::contest::{Entrant, Kind};
use crate::nginx::Buffers;
use crate::report::grouped;
use crate::subject::Engine;

/// 100 kpps evenly over 2,000 sessions, as it comes and with `--batch-wait`, beside the plain
/// relays and the other engine.
pub(super) fn steady(arguments: &SteadyArguments) -> Vec<Row> {
    let engines = [Engine::Loop, Engine::PlainMmsg, Engine::Mmsg, Engine::Uring];
    let kinds = arguments.kinds(&engines.map(Kind::Engine));
    let limits = [
        cpu("uring", "loop", 1.2),
        cpu("uring", "plain-mmsg", 1.0),
        cpu("uring", "mmsg", 1.05),
        Limit::AddedP50 { of: "uring".to_owned(), against: "loop".to_owned(), most_ns: 3_000.0 },
        no_loss("uring"),
        cpu("uring+wait", "loop", 0.9),
        cpu("uring+wait", "plain-mmsg", 0.8),
        no_loss("uring+wait"),
    ];
    vec![row(
        arguments,
        &kinds,
        Pace { sessions: 2_000, pps: 100_000.0, burst: 1 },
        limits.to_vec(),
    )]
}

/// The shapes beside nginx.
pub(super) fn nginx(arguments: &SteadyArguments) -> Vec<Row> {
    let kinds = [Engine::Loop, Engine::Mmsg, Engine::Uring].map(Kind::Engine);
    let nginx = [Buffers::Default, Buffers::Large].map(Kind::Nginx);
    let kinds: Vec<Kind> = nginx.into_iter().chain(kinds).collect();
    let kinds = arguments.kinds(&kinds);
    let row = |pace, limits| row(arguments, &kinds, pace, limits);
    let singles = |sessions, pps| {
        let limits = [("uring", 1.0), ("uring+wait", 0.6)];
        row(Pace { sessions, pps, burst: 1 }, beside_nginx(&limits, true))
    };
    let bursts = |sessions, pps| {
        row(Pace { sessions, pps, burst: 30 }, beside_nginx(&[("uring", 0.6)], true))
    };
    vec![
        saturated(arguments, &kinds),
        row(
            Pace { sessions: 100, pps: 250_000.0, burst: 1 },
            beside_nginx(&[("uring", 1.0), ("uring+wait", 0.8)], true),
        ),
        bursts(100, 250_000.0),
        bursts(100, 30_000.0),
        bursts(1_000, 50_000.0),
        singles(100, 30_000.0),
        singles(1_000, 50_000.0),
        row(
            Pace { sessions: 100, pps: 100_000.0, burst: 1 },
            beside_nginx(&[("uring", 0.8)], true),
        ),
    ]
}

/// More than nginx can take. The generator sends trains, for otherwise it could not; the kernel cuts
/// them before the relay, so that each packet arrives on its own, and the origin does not accept
/// any.
fn saturated(arguments: &SteadyArguments, kinds: &[Kind]) -> Row {
    let mut limits = beside_nginx(&[("uring", 0.65)], false);
    for against in NGINX {
        let (of, against) = ("uring".to_owned(), against.to_owned());
        limits.push(Limit::Delivered { of, against, least: 1.3 });
    }
    let entrants = arguments.entrants(kinds, None, false);
    Row {
        title: format!(
            "{}, 400,000 packets/s over 100 sessions, sent as trains of 32, taken with --gro off",
            arguments.direction.label()
        ),
        flow: flow(100, 400_000.0, 32, true),
        lane: arguments.lane(100, false),
        limits: among(&entrants, limits),
        entrants,
    }
}

/// How packets come, in a shape without trains.
#[derive(Clone, Copy)]
struct Pace {
    sessions: usize,
    pps: f64,
    burst: u16,
}

fn row(arguments: &SteadyArguments, kinds: &[Kind], pace: Pace, limits: Vec<Limit>) -> Row {
    let Pace { sessions, pps, burst } = pace;
    let is_waiting = |limit: &Limit| matches!(limit, Limit::Cpu { of, .. } if of == "uring+wait");
    let wait = limits.iter().any(is_waiting).then(|| arguments.batch_wait.unwrap_or(BATCH_WAIT));
    let pattern = if burst > 1 { format!("bursts of {burst}") } else { "singles".to_owned() };
    let entrants = arguments.entrants(kinds, wait, true);
    Row {
        title: format!(
            "{}, {} sessions x {} packets/s, {pattern}",
            arguments.direction.label(),
            grouped(sessions as u64),
            grouped((pps / sessions as f64).round() as u64),
        ),
        flow: flow(sessions, pps, burst, false),
        lane: arguments.lane(sessions, false),
        limits: among(&entrants, limits),
        entrants,
    }
}

/// The limits hold against nginx however its buffers are set.
fn beside_nginx(limits: &[(&str, f64)], nothing_lost: bool) -> Vec<Limit> {
    let limits = limits.iter().flat_map(|(of, most)| {
        let ratios = NGINX.map(|against| cpu(of, against, *most));
        ratios.into_iter().chain(nothing_lost.then(|| no_loss(of)))
    });
    limits.collect()
}

fn cpu(of: &str, against: &str, most: f64) -> Limit {
    Limit::Cpu { of: of.to_owned(), against: against.to_owned(), most }
}

fn no_loss(of: &str) -> Limit {
    Limit::NoLoss { of: of.to_owned() }
}

/// Those of `limits` that are between relays which take part.
fn among(entrants: &[Entrant], mut limits: Vec<Limit>) -> Vec<Limit> {
    let labels: Vec<String> = entrants.iter().map(Entrant::label).collect();
    let takes_part = |relay: &str| labels.iter().any(|label| label == relay);
    limits.retain(|limit| limit.relays().into_iter().flatten().all(takes_part));
    limits
}

const NGINX: [&str; 2] = ["nginx", "nginx-4m"];
const BATCH_WAIT: Duration = Duration::from_micros(250);
