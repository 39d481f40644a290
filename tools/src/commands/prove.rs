//! `ringway-bench prove`: what the generator can do before any relay is asked.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use crate::commands::media::MediaArguments;
use crate::measure::Host;
use crate::proof::{Proof, ProofSettings, RATE_SHARE, Reflection, Trial, prove};
use crate::report::{duration, grouped};
use crate::result::{Better, Cell, Outcome, name};

/// `ringway-bench prove`
#[derive(Clone, Debug, clap::Args)]
pub struct ProveArguments {
    /// Sessions that take turns
    #[arg(long, default_value_t = 100)]
    sessions: usize,
    /// Prove this many packets per second in all, and 25 % more, instead of looking for the most
    #[arg(long, value_name = "PPS")]
    wanted: Option<f64>,
    #[command(flatten)]
    media: MediaArguments,
    /// What the null reflector does
    #[arg(long, value_enum, default_value = "echo")]
    reflector: Reflection,
    /// How long each trial lasts
    #[arg(long, default_value = "400ms", value_parser = humantime::parse_duration)]
    trial: Duration,
    /// How late one of 100 packets may leave
    #[arg(long, default_value = "1ms", value_parser = humantime::parse_duration)]
    lateness_max: Duration,
    /// CPUs of the generator; default: all
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// CPUs of the reflector; default: all
    #[arg(long, value_delimiter = ',')]
    reflector_cpus: Vec<usize>,
    /// For filler and socket IDs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the result here as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// True when a rate was proven, and the one that was wanted.
///
/// # Errors
/// A socket or a thread is refused, or a file cannot be written.
pub fn run(arguments: &ProveArguments) -> anyhow::Result<bool> {
    let settings = ProofSettings {
        sessions: arguments.sessions,
        media: arguments.media.srt()?,
        rate_wanted: arguments.wanted,
        reflection: arguments.reflector,
        trial: arguments.trial,
        lateness_p99_max: arguments.lateness_max,
        cpus: arguments.cpus.clone(),
        reflector_cpus: arguments.reflector_cpus.clone(),
        seed: arguments.seed,
    };
    let host = Host::this();
    let proof = prove(&settings)?;
    print(&proof)?;
    if let Some(path) = &arguments.json {
        outcome(&settings, &proof, host).write(path)?;
    }
    Ok(proof.rate > 0.0 && arguments.wanted.is_none_or(|wanted| proof.rate * RATE_SHARE >= wanted))
}

fn print(proof: &Proof) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "     rate/s       sent   lost  dropped  late p50  late p99")?;
    for trial in &proof.trials {
        let Trial { rate, sent, lost, own_drops, lateness, .. } = trial;
        writeln!(
            out,
            "{:>11} {:>10} {:>6} {:>8} {:>9} {:>9}",
            grouped(*rate as u64),
            grouped(*sent),
            lost,
            own_drops,
            duration(lateness.p50_ns),
            duration(lateness.p99_ns)
        )?;
    }
    let most = if proof.is_ceiling { ", which is the most" } else { "" };
    writeln!(out, "Proven     {} packets/s{most}", grouped(proof.rate as u64))?;
    if proof.floor.count > 0 {
        writeln!(out, "Floor      there and back at a low rate: {}", proof.floor.line())?;
    }
    writeln!(
        out,
        "           Measure up to {} packets/s; above it the generator is the bottleneck.",
        grouped((proof.rate * RATE_SHARE) as u64)
    )
}

fn outcome(settings: &ProofSettings, proof: &Proof, host: Host) -> Outcome {
    let mut outcome = Outcome::new("The generator against a null reflector", host);
    let ProofSettings { sessions, media, reflection, trial, lateness_p99_max, .. } = settings;
    outcome.note("method", "null reflector");
    outcome.note("reflector", format!("{reflection:?}").to_lowercase());
    outcome.note("sessions", sessions);
    outcome.note("size", media.size);
    outcome.note("burst", media.burst);
    outcome.note("train", media.train);
    outcome.note("trial", humantime::format_duration(*trial));
    outcome.note("lateness_p99_max", humantime::format_duration(*lateness_p99_max));
    outcome.note("seed", settings.seed);
    let mut cell = Cell::new(format!("null reflector, {sessions} sessions"), "generator");
    cell.add(name::OFFERED_PPS, "1/s", Better::Higher, vec![proof.rate]);
    cell.add(name::LATENCY_P50, "ns", Better::Lower, vec![proof.floor.p50_ns as f64]);
    cell.add(name::LATENCY_P99, "ns", Better::Lower, vec![proof.floor.p99_ns as f64]);
    cell.add("lateness_p99", "ns", Better::Lower, vec![proof.lateness.p99_ns as f64]);
    if proof.rate <= 0.0 {
        cell.void = Some("the generator kept no rate".to_owned());
    }
    outcome.cells.push(cell);
    outcome
}
