//! `ringway-bench`: clients, origin emulators, measurements and the demo.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use ringway_tools::commands::generate::{self, GenerateCommand};
use ringway_tools::commands::origin::{self, OriginCommand};
use ringway_tools::commands::prove::{self, ProveArguments};
use ringway_tools::compare::{self, CompareArguments, Incomparable};
use ringway_tools::connects::{self, ConnectsArguments};
use ringway_tools::demo::{self, DemoArguments};
use ringway_tools::gate::{self, RelayArguments};
use ringway_tools::overload::{self, OverloadArguments};
use ringway_tools::paced::{self, PacedArguments};
use ringway_tools::page::{self, ReportArguments};
use ringway_tools::relay_process::{self, HostArguments};
use ringway_tools::run::{self, RunArguments};
use ringway_tools::seek::{self, SeekArguments};
use ringway_tools::steady::{self, SteadyArguments};
use ringway_tools::whip::{self, WhipArguments};

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
    /// Be the clients of a relay or an origin, with paced media
    #[command(subcommand)]
    Generate(GenerateCommand),
    /// Emulate an origin, or many
    #[command(subcommand)]
    Origin(OriginCommand),
    /// Set the generator against a null reflector: the most that it can measure
    Prove(ProveArguments),
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
enum Run {
    /// SRT media: engines x sessions x shapes, CPU nanoseconds per packet of the relaying thread
    Srt(RunArguments),
    /// SRT media at a fixed rate: CPU per packet, latency and loss beside plain relays and nginx
    Paced(SteadyArguments),
    /// One session far above its share: what becomes of the others
    Overload(OverloadArguments),
    /// WebRTC media: 500 sessions at 58,500 packets/s, delivery, latency and CPU per datagram
    Webrtc(PacedArguments),
    /// SRT handshakes per second beside live sessions, or thousands of sessions held idle
    Connects(ConnectsArguments),
    /// WHIP requests per second: sessions set up by POST and ended by DELETE
    Whip(WhipArguments),
}

fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Demo(arguments) => demo::run(&arguments).map(|result| result.is_clean()),
        Command::Generate(command) => generate::run(&command),
        Command::Origin(command) => origin::run(&command),
        Command::Prove(arguments) => prove::run(&arguments),
        Command::Run(Run::Srt(arguments)) => run::run(&arguments),
        Command::Run(Run::Paced(arguments)) => steady::run(&arguments),
        Command::Run(Run::Overload(arguments)) => overload::run(&arguments),
        Command::Run(Run::Webrtc(arguments)) => paced::run(&arguments),
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
