//! `ringway`: arguments -> configuration -> relay -> exit code.

use std::process::ExitCode;

use ringway::cli::{self, Command};
use ringway::config::{Config, LogFormat, Notice, sources};
use ringway::relay::{Relay, Signals, Supervisor};
use ringway::telemetry::log;

fn main() -> ExitCode {
    end_with_any_thread();
    match cli::of_process() {
        Ok(Command::Serve(config, notices)) => serve(*config, &notices),
        Ok(Command::ConfigPrint(resolved)) => cli::print_config(&resolved),
        Ok(Command::ConfigCheck(notices)) => cli::print_check(&notices),
        Ok(Command::Client(client)) => client.run(),
        Err(error) => error.report(),
    }
}

fn serve(config: Config, notices: &[Notice]) -> ExitCode {
    let format = match config.log_format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    if let Err(error) = log::init(&config.log, format) {
        cli::report(&error);
        return ExitCode::from(USAGE);
    }
    for notice in notices {
        tracing::warn!("{notice}");
    }
    let relay = match Relay::start_under(config, Signals::Quit, supervisor()) {
        Ok(relay) => relay,
        Err(error) => {
            cli::report(&error);
            return if error.is_configuration() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::FAILURE
            };
        }
    };
    for line in relay.banner() {
        tracing::info!("{line}");
    }
    match relay.wait() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Whoever has started this process, if it wants to hear of it. One that cannot be told anything is no
/// reason not to serve.
fn supervisor() -> Option<Supervisor> {
    match Supervisor::from_variables(&sources::environment(), std::process::id()) {
        Ok(supervisor) => supervisor,
        Err(error) => {
            tracing::warn!("{error}: the supervisor is told nothing");
            None
        }
    }
}

/// A relay that has lost a thread serves some of its clients and looks alive: better that its supervisor restarts it.
fn end_with_any_thread() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(1);
    }));
}

/// A usage or configuration error.
const USAGE: u8 = 2;
