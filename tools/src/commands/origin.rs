//! `ringway-bench origin`: one emulated origin or many on one host, each of which registers itself.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::batch::SocketOptions;
use crate::board::Published;
use crate::commands::media::MediaArguments;
use crate::commands::summary::Finished;
use crate::course::{Course, Group};
use crate::impair::ImpairArguments;
use crate::measure::Host;
use crate::origin::{Origin, OriginSettings};
use crate::registration::{Endpoints, Registration, reachable};
use crate::report::grouped;
use crate::result::Outcome;
use crate::webrtc;
use crate::worker::Worker;

/// `ringway-bench origin`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum OriginCommand {
    /// An SRT listener that takes media from publishers and sends media to players
    Srt(OriginSrt),
    /// WHIP and WHEP as SRS serves them, ICE-lite, media counted instead of decoded
    Webrtc(OriginWebrtc),
}

/// `ringway-bench origin srt`
#[derive(Clone, Debug, clap::Args)]
pub struct OriginSrt {
    /// Where to listen; port 0 lets the kernel choose
    #[arg(long, default_value = "127.0.0.1:10080")]
    listen: SocketAddr,
    /// Answer nothing
    #[arg(long)]
    silent: bool,
    /// Refuse every caller with this handshake type, such as 2403
    #[arg(long, value_name = "TYPE")]
    refuse: Option<u32>,
    /// Ignore each caller's first conclusion
    #[arg(long)]
    drop_first_conclusion: bool,
    /// Key length to advertise: 0, 16, 24 or 32 bytes
    #[arg(long, default_value_t = 0)]
    key_length: u16,
    #[command(flatten)]
    shared: SharedArguments,
}

/// `ringway-bench origin webrtc`
#[derive(Clone, Debug, clap::Args)]
pub struct OriginWebrtc {
    /// Where WHIP and WHEP listen; port 0 lets the kernel choose
    #[arg(long, default_value = "127.0.0.1:1985")]
    http: SocketAddr,
    /// Where media arrive: the candidate of the answers
    #[arg(long, default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    #[command(flatten)]
    shared: SharedArguments,
}

/// What both emulators take.
#[derive(Clone, Debug, clap::Args)]
struct SharedArguments {
    /// So many origins, on ports that follow each other, or that the kernel chooses
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    count: u16,
    /// Register each with this system API every 9 s, as http://HOST:PORT
    #[arg(long, value_name = "URL")]
    register: Option<String>,
    /// End after this long; default: at an interrupt
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// For socket IDs, cookies, credentials, rhythms, impairment and filler
    #[arg(long, default_value_t = 2)]
    seed: u64,
    #[command(flatten)]
    media: MediaArguments,
    #[command(flatten)]
    impair: ImpairArguments,
    /// Write the result here at the end, as JSON
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    json: Option<PathBuf>,
    /// Write one-way latency here, a compressed V2 histogram per second
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    hdr: Option<PathBuf>,
}

/// Runs the origins until their time is over.
///
/// # Errors
/// An address cannot be bound, an argument is no good, or a file cannot be written.
pub fn run(command: &OriginCommand) -> anyhow::Result<bool> {
    match command {
        OriginCommand::Srt(arguments) => run_srt(arguments),
        OriginCommand::Webrtc(arguments) => run_webrtc(arguments),
    }
}

fn run_srt(arguments: &OriginSrt) -> anyhow::Result<bool> {
    let shared = &arguments.shared;
    let media = shared.media.srt()?;
    let start = |index: u16| -> anyhow::Result<Origin> {
        let listen = nth(arguments.listen, index)?;
        Origin::start(OriginSettings {
            media,
            silent: arguments.silent,
            refuse: arguments.refuse,
            drop_first_conclusion: arguments.drop_first_conclusion,
            encryption: arguments.key_length / 8,
            impairment: shared.impair.impairment(),
            socket: SocketOptions { timestamps: true, ..SocketOptions::default() },
            seed: shared.seed.wrapping_add(u64::from(index)),
            ..OriginSettings::new(listen)
        })
        .with_context(|| format!("listen on {listen}"))
    };
    let origins = (0..shared.count).map(start).collect::<anyhow::Result<Vec<_>>>()?;
    let mut endpoints = Vec::new();
    for origin in &origins {
        let address = origin.address()?;
        writeln!(io::stdout(), "SRT origin on {address}")?;
        endpoints.push(Endpoints::srt(reachable(address)));
    }
    let workers = origins.iter().map(Origin::worker).collect();
    let (own_drops, seconds) = shared.follow("srt", workers, &endpoints)?;
    let published = stop(origins, Origin::stop)?;
    let counts = published.counts;
    writeln!(
        io::stdout(),
        "Sessions   {} accepted, {} refused, {} wrong cookies",
        counts.connected,
        counts.refused,
        counts.invalid_cookies
    )?;
    let finished = Finished { label: "srt", published, own_drops, seconds };
    shared.finish("SRT origin", finished, &format!("{media:?}"))
}

fn run_webrtc(arguments: &OriginWebrtc) -> anyhow::Result<bool> {
    let shared = &arguments.shared;
    let media = shared.media.webrtc()?;
    let start = |index: u16| -> anyhow::Result<webrtc::origin::Origin> {
        let (http, rtc) = (nth(arguments.http, index)?, nth(arguments.listen, index)?);
        webrtc::origin::Origin::start(webrtc::origin::OriginSettings {
            http,
            rtc,
            media: media.clone(),
            impairment: shared.impair.impairment(),
            socket: SocketOptions { timestamps: true, ..SocketOptions::default() },
            seed: shared.seed.wrapping_add(u64::from(index)),
            ..webrtc::origin::OriginSettings::default()
        })
        .with_context(|| format!("listen on {http} and {rtc}"))
    };
    let origins = (0..shared.count).map(start).collect::<anyhow::Result<Vec<_>>>()?;
    let mut endpoints = Vec::new();
    for origin in &origins {
        let (http, rtc) = (origin.http_address(), origin.rtc_address());
        writeln!(
            io::stdout(),
            "WebRTC origin on {rtc}, WHIP at http://{http}/rtc/v1/whip/?app=live&stream=NAME"
        )?;
        let ip = reachable(rtc).ip();
        endpoints.push(Endpoints { ip, srt: None, rtc: Some(rtc.port()), api: Some(http.port()) });
    }
    let workers = origins.iter().map(webrtc::origin::Origin::worker).collect();
    let (own_drops, seconds) = shared.follow("webrtc", workers, &endpoints)?;
    let published = stop(origins, webrtc::origin::Origin::stop)?;
    let counts = published.counts;
    let mut out = io::stdout();
    writeln!(
        out,
        "Sessions   {} proven, {} deleted, {} silent; {} checks answered, {} forged",
        counts.connected,
        counts.deleted,
        counts.closed_by_peer,
        counts.checks,
        counts.invalid_checks
    )?;
    let (reports, strays) = (grouped(counts.reports), grouped(counts.strays));
    writeln!(out, "           {reports} reports, {strays} strays")?;
    let finished = Finished { label: "webrtc", published, own_drops, seconds };
    shared.finish("WebRTC origin", finished, &format!("{media:?}"))
}

impl SharedArguments {
    /// Shows what the origins do until their time is over, and registers them now and then. Gives
    /// what their own queues dropped, and the seconds.
    fn follow(
        &self,
        label: &'static str,
        workers: Vec<&Worker>,
        endpoints: &[Endpoints],
    ) -> anyhow::Result<(u64, Vec<crate::result::Second>)> {
        let mut registrations = self.registrations(endpoints)?;
        let group = || Group { label, workers: workers.clone() };
        let mut course = Course::start(vec![group()], self.hdr.as_deref())?;
        course.follow(self.duration, || {
            registrations.iter_mut().for_each(Registered::turn);
            Ok(())
        })?;
        let own_drops = group().own_drops();
        Ok((own_drops, course.finish().pop().unwrap_or_default()))
    }

    fn registrations(&self, endpoints: &[Endpoints]) -> anyhow::Result<Vec<Registered>> {
        let Some(url) = self.register.as_deref() else {
            return Ok(Vec::new());
        };
        let registrations = endpoints.iter().map(|endpoints| {
            let registration = Registration::new(url, *endpoints)?;
            Ok(Registered { registration, seconds_left: 0, is_failing: false })
        });
        registrations.collect()
    }

    fn finish(&self, title: &str, finished: Finished, media: &str) -> anyhow::Result<bool> {
        writeln!(io::stdout(), "{}", finished.media_lines())?;
        let Some(path) = &self.json else {
            return Ok(true);
        };
        let mut outcome = Outcome::new(title, Host::this());
        outcome.note("method", "origin");
        outcome.note("origins", self.count);
        outcome.note("media", media);
        outcome.note("impairment", format!("{:?}", self.impair.impairment()));
        outcome.note("seed", self.seed);
        let shape = format!("{}, {} origins", finished.label, self.count);
        let void = finished.observed().own_drops;
        let mut cell = finished.cell(shape, "origin");
        cell.void = (void > 0).then(|| format!("own receive queues dropped {void} datagrams"));
        outcome.cells.push(cell);
        outcome.write(path)?;
        Ok(true)
    }
}

/// An origin that a relay is to know.
struct Registered {
    registration: Registration,
    seconds_left: u32,
    is_failing: bool,
}

impl Registered {
    /// To be called once per second. A relay that is not there yet, or not any more, is asked again
    /// every second; that it fails and that it has come back is said once.
    fn turn(&mut self) {
        if self.seconds_left > 0 {
            self.seconds_left -= 1;
            return;
        }
        let server = &self.registration.server;
        let message = match self.registration.post() {
            Ok(()) => {
                self.seconds_left = HEARTBEAT_SECONDS - 1;
                let was_failing = std::mem::take(&mut self.is_failing);
                was_failing.then(|| format!("{server} is registered again"))
            }
            Err(error) => {
                let was_failing = std::mem::replace(&mut self.is_failing, true);
                (!was_failing).then(|| format!("{server}: {error:#}; trying on"))
            }
        };
        if let Some(message) = message {
            // Nobody is left to tell when standard error is gone.
            let _ = writeln!(io::stderr(), "ringway-bench: {message}");
        }
    }
}

/// The address of origin `index`: ports follow each other, or the kernel chooses every one.
fn nth(first: SocketAddr, index: u16) -> anyhow::Result<SocketAddr> {
    if first.port() == 0 {
        return Ok(first);
    }
    let port = first.port().checked_add(index);
    ensure!(port.is_some(), "port {} leaves no room for more than {index} origins", first.port());
    Ok(SocketAddr::new(first.ip(), port.unwrap_or(0)))
}

/// Stops all and adds up what they did.
fn stop<T>(
    origins: Vec<T>,
    stop: impl Fn(T) -> io::Result<Published>,
) -> anyhow::Result<Published> {
    let stopped: io::Result<Vec<Published>> = origins.into_iter().map(stop).collect();
    let stopped = stopped.context("stop the origins")?;
    Ok(stopped.into_iter().reduce(Published::plus).unwrap_or_default())
}

/// As often as SRS says that it is there.
const HEARTBEAT_SECONDS: u32 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_ports_that_follow_each_other_or_none_of_their_own() {
        let first = "127.0.0.1:10080".parse().unwrap();
        assert_eq!(nth(first, 3).unwrap().port(), 10_083);
        let any = "127.0.0.1:0".parse().unwrap();
        assert_eq!(nth(any, 3).unwrap(), any);
    }

    #[test]
    fn ports_do_not_wrap() {
        let last = "127.0.0.1:65535".parse().unwrap();
        assert!(nth(last, 0).is_ok());
        assert!(nth(last, 1).unwrap_err().to_string().contains("65535"));
    }

    #[test]
    fn a_relay_that_is_not_there_is_asked_again_every_second() {
        let endpoints = Endpoints::srt("127.0.0.1:10080".parse().unwrap());
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let registration = Registration::new(&format!("http://{unused}"), endpoints).unwrap();
        let mut registered = Registered { registration, seconds_left: 0, is_failing: false };
        registered.turn();
        assert!(registered.is_failing && registered.seconds_left == 0);
    }
}
