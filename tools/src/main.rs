//! `ringway-bench`: clients, origin emulators, measurements and the demo.

use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use hdrhistogram::Histogram;

use ringway_tools::batch::SocketOptions;
use ringway_tools::board::Counts;
use ringway_tools::clock;
use ringway_tools::compare::{self, CompareArguments, Incomparable};
use ringway_tools::connects::{self, ConnectsArguments};
use ringway_tools::demo::{self, DemoArguments};
use ringway_tools::gate::{self, RelayArguments};
use ringway_tools::generator::{Generator, GeneratorSettings, Roles};
use ringway_tools::http;
use ringway_tools::origin::{Origin, OriginSettings};
use ringway_tools::paced::{self, PacedArguments};
use ringway_tools::page::{self, ReportArguments};
use ringway_tools::registration::{Endpoints, Registration, reachable};
use ringway_tools::relay_process::{self, HostArguments};
use ringway_tools::report::{Percentiles, grouped};
use ringway_tools::run::{self, RunArguments};
use ringway_tools::seek::{self, SeekArguments};
use ringway_tools::station::Media;
use ringway_tools::webrtc;
use ringway_tools::whip::{self, WhipArguments};
use ringway_tools::worker::Worker;

/// Clients, origin emulators, measurements and a demo for the Ringway relay
#[derive(Parser)]
#[command(version, max_term_width = 80)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the relay at work: sessions in both directions, live figures, a verdict
    Demo(DemoArguments),
    /// Measure WebRTC sessions through the relay and through a plain one (the same as run webrtc)
    Webrtc(PacedArguments),
    /// Be the clients of a relay or an origin, with paced media
    #[command(subcommand)]
    Generate(Generate),
    /// Emulate an origin
    #[command(subcommand)]
    Origin(OriginCommand),
    /// Measure CPU time per packet of the engines and of a plain relay
    #[command(subcommand)]
    Run(Run),
    /// Find the highest rate that a relay holds
    Seek(SeekArguments),
    /// Say which differences between two results exceed the spread
    Compare(CompareArguments),
    /// Draw results as one HTML file that needs nothing else
    Report(ReportArguments),
    /// One relay for a measurement, in a process of its own
    #[command(hide = true)]
    Relay(RelayArguments),
    /// Ringway with flags of its own, in a process of its own
    #[command(hide = true)]
    Host(HostArguments),
}

#[derive(Subcommand)]
enum Generate {
    /// SRT callers with real handshakes, ACKs and keepalives
    Srt(GenerateSrt),
    /// WebRTC clients with WHIP, WHEP, ICE checks and media shaped like SRTP
    Webrtc(GenerateWebrtc),
}

#[derive(Subcommand)]
enum OriginCommand {
    /// An SRT listener that takes media from publishers and sends media to players
    Srt(OriginSrt),
    /// WHIP and WHEP as SRS serves them, ICE-lite, media counted instead of decoded
    Webrtc(OriginWebrtc),
}

#[derive(Subcommand)]
enum Run {
    /// SRT media: engines x sessions x shapes, CPU nanoseconds per packet of the relaying thread
    Srt(RunArguments),
    /// WebRTC media: 500 sessions at 58,500 packets/s, delivery, latency and CPU per datagram
    Webrtc(PacedArguments),
    /// SRT handshakes per second beside live sessions, or thousands of sessions held idle
    Connects(ConnectsArguments),
    /// WHIP requests per second: sessions set up by POST and ended by DELETE
    Whip(WhipArguments),
}

#[derive(Args)]
struct MediaArguments {
    /// Media packets per second and session
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Packets of one session that leave together
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    burst: u16,
    /// Send each burst as one segmented datagram train (UDP_SEGMENT)
    #[arg(long)]
    train: bool,
    /// Payload bytes of a media packet
    #[arg(long, default_value_t = 1_316, value_parser = clap::value_parser!(u16).range(48..=1_456))]
    size: u16,
}

impl MediaArguments {
    fn media(&self) -> Media {
        Media {
            rate: self.rate,
            burst: self.burst,
            train: self.train,
            size: usize::from(self.size),
        }
    }
}

#[derive(Args)]
struct GenerateSrt {
    /// Relay or listener to call, as HOST:PORT
    #[arg(long)]
    target: String,
    /// Callers
    #[arg(long, default_value_t = 1)]
    sessions: usize,
    /// What they do
    #[arg(long, value_enum, default_value = "publish")]
    role: Roles,
    #[command(flatten)]
    media: MediaArguments,
    /// How long
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// For socket IDs, sequence numbers and filler
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Streams are called this and a number
    #[arg(long, default_value = "live/bench")]
    stream_prefix: String,
    /// Callers that begin per second
    #[arg(long, default_value_t = 1_000.0)]
    connect_rate: f64,
}

#[derive(Args)]
struct OriginSrt {
    /// Where to listen; port 0 lets the kernel choose
    #[arg(long, default_value = "127.0.0.1:10080")]
    listen: SocketAddr,
    /// Register with this system API every 9 s, as http://HOST:PORT
    #[arg(long, value_name = "URL")]
    register: Option<String>,
    #[command(flatten)]
    media: MediaArguments,
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
    /// End after this long; default: never
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// For socket IDs, cookies and filler
    #[arg(long, default_value_t = 2)]
    seed: u64,
}

#[derive(Args)]
struct GenerateWebrtc {
    /// HTTP of the relay or origin, as http://HOST:PORT
    #[arg(long, value_name = "URL")]
    http: String,
    /// Clients
    #[arg(long, default_value_t = 1)]
    sessions: usize,
    /// What they do
    #[arg(long, value_enum, default_value = "publish")]
    role: Roles,
    #[command(flatten)]
    media: webrtc::station::MediaArguments,
    /// Send to this address instead of the candidate of the answer
    #[arg(long, value_name = "IP:PORT")]
    media_via: Option<SocketAddr>,
    /// How long
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// For credentials and filler
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Streams are called this and a number
    #[arg(long, default_value = "live/bench")]
    stream_prefix: String,
    /// Clients that begin per second
    #[arg(long, default_value_t = 500.0)]
    connect_rate: f64,
}

#[derive(Args)]
struct OriginWebrtc {
    /// Where WHIP and WHEP listen; port 0 lets the kernel choose
    #[arg(long, default_value = "127.0.0.1:1985")]
    http: SocketAddr,
    /// Where media arrive: the candidate of the answers
    #[arg(long, default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// Register with this system API every 9 s, as http://HOST:PORT
    #[arg(long, value_name = "URL")]
    register: Option<String>,
    #[command(flatten)]
    media: webrtc::station::MediaArguments,
    /// End after this long; default: never
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// For credentials and filler
    #[arg(long, default_value_t = 2)]
    seed: u64,
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Demo(arguments) => demo::run(&arguments).map(|result| result.is_clean()),
        Command::Generate(Generate::Srt(arguments)) => generate(&arguments),
        Command::Generate(Generate::Webrtc(arguments)) => generate_webrtc(&arguments),
        Command::Origin(OriginCommand::Srt(arguments)) => origin(&arguments),
        Command::Origin(OriginCommand::Webrtc(arguments)) => origin_webrtc(&arguments),
        Command::Run(Run::Srt(arguments)) => run::run(&arguments),
        Command::Webrtc(arguments) | Command::Run(Run::Webrtc(arguments)) => paced::run(&arguments),
        Command::Seek(arguments) => seek::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Report(arguments) => page::run(&arguments),
        Command::Run(Run::Connects(arguments)) => connects::run(&arguments),
        Command::Run(Run::Whip(arguments)) => whip::run(&arguments),
        Command::Host(arguments) => relay_process::serve(&arguments).map(|()| true),
        Command::Relay(arguments) => gate::serve(&arguments).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to tell when standard error is gone.
            let _ = writeln!(std::io::stderr(), "ringway-bench: {error:#}");
            if error.is::<Incomparable>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// True when every caller got in and was not thrown out.
fn generate(arguments: &GenerateSrt) -> anyhow::Result<bool> {
    let mut addresses = arguments
        .target
        .to_socket_addrs()
        .with_context(|| format!("look up {}", arguments.target))?;
    let target =
        addresses.next().with_context(|| format!("{} has no address", arguments.target))?;
    let settings = GeneratorSettings {
        target,
        sessions: arguments.sessions,
        roles: arguments.role,
        connect_rate: arguments.connect_rate,
        stream_prefix: arguments.stream_prefix.clone(),
        media: arguments.media.media(),
        is_alive: true,
        socket: SocketOptions { timestamps: true, ..SocketOptions::default() },
        seed: arguments.seed,
    };
    let callers = Generator::start(settings, Vec::new(), true).context("start the callers")?;
    watch_clients(callers, arguments.sessions, arguments.duration)
}

/// True when every client got in and was not thrown out.
fn generate_webrtc(arguments: &GenerateWebrtc) -> anyhow::Result<bool> {
    let settings = webrtc::generator::GeneratorSettings {
        http: http::server(&arguments.http)?,
        sessions: arguments.sessions,
        roles: arguments.role,
        connect_rate: arguments.connect_rate,
        stream_prefix: arguments.stream_prefix.clone(),
        media: arguments.media.media(),
        media_via: arguments.media_via,
        socket: SocketOptions { timestamps: true, ..SocketOptions::default() },
        seed: arguments.seed,
    };
    let clients = webrtc::generator::Generator::start(settings, Vec::new(), true);
    watch_clients(clients.context("start the clients")?, arguments.sessions, arguments.duration)
}

/// Shows what clients do for `duration` and how it ended. True when every one got in and was not
/// thrown out.
fn watch_clients(clients: Worker, sessions: usize, duration: Duration) -> anyhow::Result<bool> {
    let mut before = Counts::default();
    for_each_second(Some(duration), || {
        let now = clients.counts();
        print_second("sent", &before, &now);
        before = now;
        Ok(())
    })?;
    let latency = clients.published().latency;
    let own_drops = clients.receive_drops();
    let last = clients.stop().context("stop the clients")?;
    let counts = last.counts;
    let all = sessions as u64;
    println!(
        "Sessions   {} connected, {} refused (last with {}), {} unanswered",
        counts.connected,
        counts.refused,
        counts.refusal,
        all - counts.connected - counts.refused,
    );
    println!("           {} closed by the other side", counts.closed_by_peer);
    print_latency("Setup", &last.setup, "");
    print_media(&counts, own_drops);
    print_latency("Pacing", &last.lateness, "sent late by ");
    print_latency("One way", &latency, "");
    Ok(counts.connected == all && counts.closed_by_peer == 0)
}

fn origin(arguments: &OriginSrt) -> anyhow::Result<bool> {
    let origin = Origin::start(OriginSettings {
        media: arguments.media.media(),
        silent: arguments.silent,
        refuse: arguments.refuse,
        drop_first_conclusion: arguments.drop_first_conclusion,
        encryption: arguments.key_length / 8,
        socket: SocketOptions { timestamps: true, ..SocketOptions::default() },
        seed: arguments.seed,
        ..OriginSettings::new(arguments.listen)
    })
    .with_context(|| format!("listen on {}", arguments.listen))?;
    let address = origin.address()?;
    println!("SRT origin on {address}");
    let endpoints = Endpoints::srt(reachable(address));
    let register = arguments.register.as_deref();
    watch_origin(origin.worker(), register, endpoints, arguments.duration)?;
    let latency = origin.stats().latency;
    let own_drops = origin.receive_drops();
    let last = origin.stop().context("stop the origin")?;
    println!(
        "Sessions   {} accepted, {} refused, {} wrong cookies",
        last.counts.connected, last.counts.refused, last.counts.invalid_cookies
    );
    print_media(&last.counts, own_drops);
    print_latency("One way", &latency, "");
    Ok(true)
}

fn origin_webrtc(arguments: &OriginWebrtc) -> anyhow::Result<bool> {
    let origin = webrtc::origin::Origin::start(webrtc::origin::OriginSettings {
        http: arguments.http,
        rtc: arguments.listen,
        media: arguments.media.media(),
        socket: SocketOptions { timestamps: true, ..SocketOptions::default() },
        seed: arguments.seed,
        ..webrtc::origin::OriginSettings::default()
    })
    .with_context(|| format!("listen on {} and {}", arguments.http, arguments.listen))?;
    let (http, rtc) = (origin.http_address(), origin.rtc_address());
    println!("WebRTC origin on {rtc}, WHIP at http://{http}/rtc/v1/whip/?app=live&stream=NAME");
    let endpoints = Endpoints {
        ip: reachable(rtc).ip(),
        srt: None,
        rtc: Some(rtc.port()),
        api: Some(http.port()),
    };
    let register = arguments.register.as_deref();
    watch_origin(origin.worker(), register, endpoints, arguments.duration)?;
    let latency = origin.worker().published().latency;
    let own_drops = origin.worker().receive_drops();
    let last = origin.stop().context("stop the origin")?.counts;
    println!(
        "Sessions   {} proven, {} deleted, {} silent; {} checks answered, {} forged",
        last.connected, last.deleted, last.closed_by_peer, last.checks, last.invalid_checks
    );
    println!("           {} reports, {} strays", grouped(last.reports), grouped(last.strays));
    print_media(&last, own_drops);
    print_latency("One way", &latency, "");
    Ok(true)
}

/// Shows what an origin does until `duration` is over, and registers it now and then.
fn watch_origin(
    origin: &Worker,
    register: Option<&str>,
    endpoints: Endpoints,
    duration: Option<Duration>,
) -> anyhow::Result<()> {
    let registration = register.map(|url| Registration::new(url, endpoints)).transpose()?;
    let mut before = Counts::default();
    let mut seconds = 0;
    for_each_second(duration, || {
        if let Some(registration) =
            registration.as_ref().filter(|_| seconds % HEARTBEAT_SECONDS == 0)
        {
            registration.post()?;
        }
        seconds += 1;
        let now = origin.counts();
        if now != before {
            print_second("sent", &before, &now);
        }
        before = now;
        Ok(())
    })
}

/// Calls `report` at once and then every second until `duration` is over, if it ever is.
fn for_each_second(
    duration: Option<Duration>,
    mut report: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let second = Duration::from_secs(1);
    let mut left = duration.unwrap_or(Duration::MAX);
    while !left.is_zero() {
        report()?;
        clock::pause(left.min(second));
        left = left.saturating_sub(second);
    }
    Ok(())
}

fn print_second(verb: &str, before: &Counts, now: &Counts) {
    println!(
        "{:>6} open  {verb} {:>9}/s  received {:>9}/s  missing {}  reordered {}  refused {}",
        now.open,
        grouped(now.sent - before.sent),
        grouped(
            now.media.received + now.media.foreign - before.media.received - before.media.foreign
        ),
        now.media.missing,
        now.media.reordered,
        now.refused,
    );
}

fn print_latency(what: &str, histogram: &Histogram<u64>, verb: &str) {
    if !histogram.is_empty() {
        println!("{what:<10} {verb}{}", Percentiles::of(histogram).line());
    }
}

fn print_media(counts: &Counts, own_drops: u64) {
    print!("Sent       {} packets", grouped(counts.sent));
    if counts.acknowledged > 0 {
        print!(", {} acknowledged", grouped(counts.acknowledged));
    }
    println!();
    let media = counts.media;
    println!(
        "Received   {} packets, {} of other senders",
        grouped(media.received),
        grouped(media.foreign)
    );
    println!(
        "           {} missing, {} reordered, {} duplicates, {} damaged, {} dropped by own queues",
        media.missing, media.reordered, media.duplicates, media.damaged, own_drops
    );
}

/// As often as SRS says that it is there.
const HEARTBEAT_SECONDS: u32 = 9;
