//! `ringway-bench generate`: the clients of a relay or an origin that is known by its address.

use std::io::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::batch::SocketOptions;
use crate::board::Counts;
use crate::clock;
use crate::commands::media::MediaArguments;
use crate::commands::summary::Finished;
use crate::course::{Course, Group};
use crate::generator::{Generator, GeneratorSettings, Roles};
use crate::http;
use crate::impair::ImpairArguments;
use crate::measure::Host;
use crate::proof::{Observed, Proof, ProofSettings, RATE_SHARE, prove};
use crate::report::{duration, grouped};
use crate::result::Outcome;
use crate::station::Media;
use crate::webrtc;
use crate::worker::Worker;

/// `ringway-bench generate`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum GenerateCommand {
    /// SRT callers with real handshakes, ACKs and keepalives
    Srt(GenerateSrt),
    /// WebRTC clients with WHIP, WHEP, ICE checks and media shaped like SRTP
    Webrtc(GenerateWebrtc),
    /// Both at once
    Mixed(GenerateMixed),
}

/// `ringway-bench generate srt`
#[derive(Clone, Debug, clap::Args)]
pub struct GenerateSrt {
    /// Relay or listener to call, as HOST:PORT
    #[arg(long)]
    target: String,
    #[command(flatten)]
    load: LoadArguments,
}

/// `ringway-bench generate webrtc`
#[derive(Clone, Debug, clap::Args)]
pub struct GenerateWebrtc {
    /// HTTP of the relay or origin, as http://HOST:PORT
    #[arg(long, value_name = "URL")]
    http: String,
    /// Send to this address instead of the candidate of the answer
    #[arg(long, value_name = "IP:PORT")]
    media_via: Option<SocketAddr>,
    #[command(flatten)]
    load: LoadArguments,
}

/// `ringway-bench generate mixed`
#[derive(Clone, Debug, clap::Args)]
pub struct GenerateMixed {
    /// Relay or listener that SRT calls, as HOST:PORT
    #[arg(long)]
    target: String,
    /// HTTP of the relay or origin for WebRTC, as http://HOST:PORT
    #[arg(long, value_name = "URL")]
    http: String,
    /// Send WebRTC media to this address instead of the candidate of the answer
    #[arg(long, value_name = "IP:PORT")]
    media_via: Option<SocketAddr>,
    /// Share of the sessions that are WebRTC, from 0 to 1
    #[arg(long, default_value_t = 0.5)]
    share: f64,
    #[command(flatten)]
    load: LoadArguments,
}

/// What all generators take.
#[derive(Clone, Debug, clap::Args)]
struct LoadArguments {
    /// Sessions
    #[arg(long, default_value_t = 1)]
    sessions: usize,
    /// What they do
    #[arg(long, value_enum, default_value = "publish")]
    role: Roles,
    /// How long, the time in which sessions join included
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Let the sessions join evenly within this time, instead of --connect-rate
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    ramp: Option<Duration>,
    /// Sessions that begin per second; default: 1000 for SRT, 500 for WebRTC
    #[arg(long)]
    connect_rate: Option<f64>,
    /// Sessions per second that end properly and are replaced by new ones, once all have begun
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.0)]
    churn: f64,
    /// For socket IDs, credentials, rhythms, impairment and filler
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Streams are called this and a number
    #[arg(long, default_value = "live/bench")]
    stream_prefix: String,
    #[command(flatten)]
    media: MediaArguments,
    #[command(flatten)]
    impair: ImpairArguments,
    #[command(flatten)]
    record: RecordArguments,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Results")]
struct RecordArguments {
    /// Write the result here, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write one-way latency here, a compressed V2 histogram per second
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,
    /// Do not set the generator against a null reflector first
    #[arg(long)]
    skip_proof: bool,
    /// How late one of 100 packets may leave before the generator counts as the bottleneck
    #[arg(
        long,
        value_name = "TIME",
        default_value = "1ms",
        value_parser = humantime::parse_duration
    )]
    lateness_max: Duration,
}

/// Generators that are ready to start.
struct Plan<'a> {
    load: &'a LoadArguments,
    srt: Option<GeneratorSettings>,
    webrtc: Option<webrtc::generator::GeneratorSettings>,
}

/// True when every session got in, none was thrown out, and the generator was not the bottleneck.
///
/// # Errors
/// An argument, a socket or a file is no good.
pub fn run(command: &GenerateCommand) -> anyhow::Result<bool> {
    match command {
        GenerateCommand::Srt(GenerateSrt { target, load }) => {
            let srt = load.srt(target, load.sessions, &load.stream_prefix)?;
            Plan { load, srt: Some(srt), webrtc: None }.run("SRT load")
        }
        GenerateCommand::Webrtc(GenerateWebrtc { http, media_via, load }) => {
            let webrtc = load.webrtc(http, *media_via, load.sessions, &load.stream_prefix)?;
            Plan { load, srt: None, webrtc: Some(webrtc) }.run("WebRTC load")
        }
        GenerateCommand::Mixed(GenerateMixed { target, http, media_via, share, load }) => {
            ensure!((0.0..=1.0).contains(share), "--share must lie between 0 and 1");
            let of_webrtc = (load.sessions as f64 * share).round() as usize;
            let of_srt = load.sessions - of_webrtc.min(load.sessions);
            // A stream is published once, by either protocol.
            let prefix = |label: &str| format!("{}-{label}-", load.stream_prefix);
            let srt = load.srt(target, of_srt, &prefix("srt"))?;
            let webrtc = load.webrtc(http, *media_via, of_webrtc, &prefix("webrtc"))?;
            let srt = Some(srt).filter(|_| of_srt > 0);
            let webrtc = Some(webrtc).filter(|_| of_webrtc > 0);
            Plan { load, srt, webrtc }.run("SRT and WebRTC load")
        }
    }
}

impl LoadArguments {
    fn srt(
        &self,
        target: &str,
        sessions: usize,
        prefix: &str,
    ) -> anyhow::Result<GeneratorSettings> {
        let mut addresses =
            target.to_socket_addrs().with_context(|| format!("look up {target}"))?;
        let target = addresses.next().with_context(|| format!("{target} has no address"))?;
        let default = GeneratorSettings::new(target, sessions);
        Ok(GeneratorSettings {
            roles: self.role,
            connect_rate: self.connect_rate(sessions, default.connect_rate)?,
            churn_rate: self.churn_rate(sessions)?,
            stream_prefix: prefix.to_owned(),
            media: self.media.srt()?,
            impairment: self.impair.impairment(),
            socket: SocketOptions { timestamps: true, ..SocketOptions::default() },
            seed: self.seed,
            ..default
        })
    }

    fn webrtc(
        &self,
        http: &str,
        media_via: Option<SocketAddr>,
        sessions: usize,
        prefix: &str,
    ) -> anyhow::Result<webrtc::generator::GeneratorSettings> {
        let default = webrtc::generator::GeneratorSettings::new(http::server(http)?, sessions);
        Ok(webrtc::generator::GeneratorSettings {
            roles: self.role,
            connect_rate: self.connect_rate(sessions, default.connect_rate)?,
            churn_rate: self.churn_rate(sessions)?,
            stream_prefix: prefix.to_owned(),
            media: self.media.webrtc()?,
            impairment: self.impair.impairment(),
            media_via,
            socket: SocketOptions { timestamps: true, ..SocketOptions::default() },
            seed: self.seed,
            ..default
        })
    }

    fn connect_rate(&self, sessions: usize, default: f64) -> anyhow::Result<f64> {
        let Some(ramp) = self.ramp else {
            return Ok(self.connect_rate.unwrap_or(default));
        };
        ensure!(
            ramp < self.duration,
            "--ramp {} leaves nothing of --duration {}: make the run longer",
            humantime::format_duration(ramp),
            humantime::format_duration(self.duration)
        );
        // 0 stands for all at once.
        Ok(if ramp.is_zero() { 0.0 } else { sessions as f64 / ramp.as_secs_f64() })
    }

    /// This protocol's part of the churn.
    fn churn_rate(&self, sessions: usize) -> anyhow::Result<f64> {
        ensure!(self.churn.is_finite() && self.churn >= 0.0, "--churn must not be negative");
        Ok(self.churn * sessions as f64 / self.sessions.max(1) as f64)
    }
}

impl Plan<'_> {
    fn run(&self, title: &str) -> anyhow::Result<bool> {
        let host = Host::this();
        let record = &self.load.record;
        let proof = if record.skip_proof { None } else { Some(self.prove()?) };
        let workers = self.start()?;
        let groups = workers.iter().map(|(label, worker)| Group { label, workers: vec![worker] });
        let groups: Vec<Group<'_>> = groups.collect();
        let mut course = Course::start(groups, record.hdr.as_deref())?;
        course.follow(Some(self.load.duration), || Ok(()))?;
        let seconds = course.finish();
        let finished = finish(workers, seconds)?;
        let verdict = judge(proof.as_ref(), record.lateness_max, &finished);
        if let Some(void) = &verdict {
            writeln!(io::stdout(), "VOID       {void}; rates and latencies are withheld")?;
        }
        let is_clean = self.print(&finished, verdict.is_some())? && verdict.is_none();
        if let Some(path) = &record.json {
            self.outcome(title, host, proof.as_ref(), finished, verdict).write(path)?;
        }
        Ok(is_clean)
    }

    /// Sets the generator against a null reflector at the rate that this load needs.
    fn prove(&self) -> anyhow::Result<Proof> {
        let media = self.srt.as_ref().map_or_else(
            || Media { size: usize::from(webrtc::station::SIZE_DEFAULT), ..Media::default() },
            |srt| srt.media,
        );
        let proof = prove(&ProofSettings {
            sessions: self.load.sessions,
            media,
            rate_wanted: Some(self.rate()),
            lateness_p99_max: self.load.record.lateness_max,
            seed: self.load.seed,
            ..ProofSettings::default()
        });
        let proof = proof.context("set the generator against a null reflector")?;
        writeln!(
            io::stdout(),
            "Proof      the generator alone sends and receives {} packets/s; {} there and back",
            grouped(proof.rate as u64),
            duration(proof.floor.p50_ns),
        )?;
        if self.rate() > proof.rate * RATE_SHARE {
            writeln!(
                io::stdout(),
                "WARNING    this load is {} packets/s: the generator will be the bottleneck",
                grouped(self.rate() as u64)
            )?;
        }
        Ok(proof)
    }

    /// Packets per second that the generator sends, or receives where all is as it should be.
    fn rate(&self) -> f64 {
        let active = |sessions: usize| match self.load.role {
            Roles::Publish | Roles::Play => sessions,
            Roles::Both => sessions.div_ceil(2),
        };
        let srt = self.srt.as_ref().map(|srt| srt.media.packets_per_second(active(srt.sessions)));
        let webrtc = self
            .webrtc
            .as_ref()
            .map(|webrtc| webrtc.media.packets_per_second() * active(webrtc.sessions) as f64);
        srt.unwrap_or(0.0) + webrtc.unwrap_or(0.0)
    }

    fn start(&self) -> anyhow::Result<Vec<(&'static str, Worker)>> {
        let mut workers = Vec::new();
        if let Some(srt) = &self.srt {
            let worker = Generator::start(srt.clone(), Vec::new(), true);
            workers.push((SRT, worker.context("start the SRT callers")?));
        }
        if let Some(webrtc) = &self.webrtc {
            let worker = webrtc::generator::Generator::start(webrtc.clone(), Vec::new(), true);
            workers.push((WEBRTC, worker.context("start the WebRTC clients")?));
        }
        ensure!(!workers.is_empty(), "--sessions must be at least 1");
        Ok(workers)
    }

    fn sessions(&self, label: &str) -> u64 {
        let srt = self.srt.as_ref().filter(|_| label == SRT).map(|srt| srt.sessions);
        let webrtc = self.webrtc.as_ref().filter(|_| label == WEBRTC).map(|webrtc| webrtc.sessions);
        srt.or(webrtc).unwrap_or(0) as u64
    }

    /// Whether every session got in and none was thrown out.
    fn print(&self, finished: &[Finished], is_void: bool) -> anyhow::Result<bool> {
        let mut out = io::stdout().lock();
        let mut is_clean = true;
        for one in finished {
            let counts = one.published.counts;
            let begun = self.sessions(one.label) + counts.started;
            let Counts { connected, refused, refusal, closed_by_peer, timed_out, .. } = counts;
            let unanswered = begun.saturating_sub(connected + refused);
            if finished.len() > 1 {
                writeln!(out, "--- {}", one.label)?;
            }
            write!(out, "Sessions   {connected} connected, {refused} refused")?;
            if refused > 0 {
                write!(out, " (last with {refusal})")?;
            }
            writeln!(out, ", {unanswered} unanswered, {closed_by_peer} closed by the other side")?;
            if counts.started > 0 {
                writeln!(
                    out,
                    "Churn      {} ended, {} started, {} failed",
                    counts.ended, counts.started, counts.failed
                )?;
            }
            let lines = if is_void { one.void_lines() } else { one.media_lines() };
            writeln!(out, "{lines}")?;
            // Replacements that had just begun when the time was over have done nothing wrong.
            is_clean &= connected >= self.sessions(one.label)
                && [refused, timed_out, closed_by_peer] == [0; 3];
        }
        Ok(is_clean)
    }

    fn outcome(
        &self,
        title: &str,
        host: Host,
        proof: Option<&Proof>,
        finished: Vec<Finished>,
        void: Option<String>,
    ) -> Outcome {
        let mut outcome = Outcome::new(title, host);
        let load = self.load;
        outcome.note("method", "open loop");
        outcome.note("sessions", load.sessions);
        outcome.note("role", format!("{:?}", load.role).to_lowercase());
        outcome.note("duration", humantime::format_duration(load.duration));
        outcome.note("churn", load.churn);
        outcome.note("seed", load.seed);
        outcome.note("impairment", format!("{:?}", load.impair.impairment()));
        outcome.note("lateness_max", humantime::format_duration(load.record.lateness_max));
        if let Some(srt) = &self.srt {
            outcome.note("srt_sessions", srt.sessions);
            outcome.note("srt_media", format!("{:?}", srt.media));
            outcome.note("srt_connect_rate", srt.connect_rate);
        }
        if let Some(webrtc) = &self.webrtc {
            outcome.note("webrtc_sessions", webrtc.sessions);
            outcome.note("webrtc_media", format!("{:?}", webrtc.media));
            outcome.note("webrtc_connect_rate", webrtc.connect_rate);
        }
        for one in finished {
            let shape = format!("{}, {} sessions", one.label, self.sessions(one.label));
            let mut cell = match &void {
                Some(why) => one.void_cell(shape, "generator", why),
                None => one.cell(shape, "generator"),
            };
            if let Some(proof) = proof {
                let neither = crate::result::Better::Neither;
                cell.add("proven_pps", "1/s", neither, vec![proof.rate]);
                cell.add("floor_p50", "ns", neither, vec![proof.floor.p50_ns as f64]);
            }
            outcome.cells.push(cell);
        }
        outcome
    }
}

/// Stops the media first and the sessions a little later, so that what is on its way arrives.
fn finish(
    workers: Vec<(&'static str, Worker)>,
    seconds: Vec<Vec<crate::result::Second>>,
) -> anyhow::Result<Vec<Finished>> {
    workers.iter().for_each(|(_, worker)| worker.send_media(false));
    clock::pause(SETTLE);
    let finished = workers.into_iter().zip(seconds).map(|((label, worker), seconds)| {
        let own_drops = worker.receive_drops();
        let published = worker.stop().with_context(|| format!("stop the clients ({label})"))?;
        Ok(Finished { label, published, own_drops, seconds })
    });
    finished.collect()
}

/// Why the figures are not the relay's, if they are not.
fn judge(proof: Option<&Proof>, lateness_max: Duration, finished: &[Finished]) -> Option<String> {
    let observed =
        finished.iter().map(Finished::observed).fold(Observed::default(), |sum, one| Observed {
            rate: sum.rate + one.rate,
            own_drops: sum.own_drops + one.own_drops,
            send_errors: sum.send_errors + one.send_errors,
            lateness_p99_ns: sum.lateness_p99_ns.max(one.lateness_p99_ns),
        });
    let verdict = match proof {
        Some(proof) => proof.verdict(&observed),
        None => observed.verdict(lateness_max),
    };
    verdict.err().map(|bottleneck| bottleneck.to_string())
}

const SRT: &str = "srt";
const WEBRTC: &str = "webrtc";
const SETTLE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Words {
        #[command(subcommand)]
        command: GenerateCommand,
    }

    fn load(words: &str) -> LoadArguments {
        let words = ["generate"].into_iter().chain(words.split(' '));
        match Words::try_parse_from(words).unwrap().command {
            GenerateCommand::Srt(GenerateSrt { load, .. })
            | GenerateCommand::Webrtc(GenerateWebrtc { load, .. })
            | GenerateCommand::Mixed(GenerateMixed { load, .. }) => load,
        }
    }

    const TARGET: &str = "127.0.0.1:9";

    #[test]
    fn a_ramp_spreads_the_sessions_over_its_time() {
        let load = load("srt --target x --sessions 500 --ramp 10s --duration 20s");
        let settings = load.srt(TARGET, load.sessions, "live/a").unwrap();
        assert!((settings.connect_rate - 50.0).abs() < 1e-9);
    }

    #[test]
    fn a_ramp_as_long_as_the_run_is_refused() {
        let load = load("srt --target x --ramp 10s --duration 10s");
        let error = load.srt(TARGET, 1, "live/a").unwrap_err();
        assert!(error.to_string().contains("--ramp 10s"), "{error}");
    }

    #[test]
    fn churn_is_shared_out_by_sessions() {
        let load = load("mixed --target x --http y --sessions 100 --churn 20");
        assert!((load.churn_rate(25).unwrap() - 5.0).abs() < 1e-9);
    }

    #[test]
    fn the_rate_that_is_to_be_proven_is_that_of_the_busier_direction() {
        let load = load("srt --target x --sessions 10 --rate 50 --role both");
        let srt = Some(load.srt(TARGET, 10, "live/a").unwrap());
        let plan = Plan { load: &load, srt, webrtc: None };
        assert!((plan.rate() - 250.0).abs() < 1e-9);
    }

    #[test]
    fn without_a_proof_own_losses_still_void_the_figures() {
        let finished = Finished {
            label: SRT,
            published: crate::board::Published::default(),
            own_drops: 1,
            seconds: Vec::new(),
        };
        let void = judge(None, Duration::from_millis(1), &[finished]).unwrap();
        assert!(void.contains("its own receive queues dropped 1"), "{void}");
    }
}
