//! What the user typed: arguments into a [`Command`].
//!
//! The flags of `serve` are made from the table of settings, so this file names none of them.
//! Nothing here reads the environment or starts anything.

pub mod client;
mod drain;
mod help;
mod later;
mod tables;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches};

pub use self::client::ClientCommand;
use self::client::{Api, Question};
use self::drain::Goal;
use crate::config::settings::{self, SETTINGS};
use crate::config::sources::{self, API_VARIABLE, FILE_VARIABLE, File};
use crate::config::{Config, ConfigError, Notice, Resolved, Sources, Variables};

/// What is to be done.
#[derive(Debug)]
pub enum Command {
    /// Run the relay, and log the notices first.
    Serve(Box<Config>, Vec<Notice>),
    /// Print every value and its source.
    ConfigPrint(Box<Resolved>),
    /// Say that the configuration can be used, and what in it has no effect.
    ConfigCheck(Vec<Notice>),
    /// Ask a running relay.
    Client(ClientCommand),
}

/// Why there is no [`Command`].
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// A flag or command that does not exist; or `--help`, which is no error.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// A value that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl UsageError {
    /// Tells the user, on standard error or, for `--help` and `--version`, on standard output.
    pub fn report(&self) -> ExitCode {
        match self {
            // A closed standard output is no reason to say anything more.
            Self::Arguments(error) => {
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE))
            }
            Self::Config(error) => {
                report(error);
                ExitCode::from(USAGE)
            }
        }
    }
}

/// What `ringway config print` does.
pub fn print_config(resolved: &Resolved) -> ExitCode {
    warn(&resolved.notices);
    output(&resolved.print())
}

/// What `ringway config check` does with a configuration that can be used.
pub fn print_check(notices: &[Notice]) -> ExitCode {
    warn(notices);
    output("the configuration can be used\n")
}

fn warn(notices: &[Notice]) {
    for notice in notices {
        let _ = writeln!(std::io::stderr(), "warning: {notice}");
    }
}

/// Writes `text` to standard output. That nobody reads it to the end, as in `ringway sessions |
/// head`, is no failure.
fn output(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            report(&error);
            ExitCode::FAILURE
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

/// Writes an error and its causes to standard error.
pub fn report(error: &dyn std::error::Error) {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Reads what this process was started with.
///
/// # Errors
/// Whatever the user has to mend; exit code 2.
pub fn of_process() -> Result<Command, UsageError> {
    parse(std::env::args_os(), sources::environment(), sources::dotenv)
}

/// Reads `arguments`, the program's name first, and what they need of the environment and the
/// configuration file.
///
/// `dotenv` is asked after the arguments are known to be sound, so that `--help` works beside a
/// broken `.env`.
///
/// # Errors
/// Whatever the user has to mend; exit code 2.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Variables,
    dotenv: impl FnOnce() -> Result<Variables, ConfigError>,
) -> Result<Command, UsageError> {
    let matches = command()
        .try_get_matches_from(arguments)
        .map_err(|error| later::explain(error, &mut command()))?;
    let variables = Surroundings { environment, dotenv: dotenv()? };
    match matches.subcommand() {
        Some(("config", config)) => match config.subcommand() {
            Some(("print", flags)) => Ok(Command::ConfigPrint(Box::new(variables.resolve(flags)?))),
            Some((_, flags)) => Ok(Command::ConfigCheck(variables.resolve(flags)?.notices)),
            None => {
                let message = "write `ringway config print` or `ringway config check`";
                Err(command().error(ErrorKind::MissingSubcommand, message).into())
            }
        },
        Some(("sessions", flags)) => variables.client(Question::Sessions, flags),
        Some(("session", flags)) => {
            let id = flags.get_one::<String>("ID").cloned().unwrap_or_default();
            let place = "session".to_owned();
            let question =
                Question::session(&id).map_err(|bad| ConfigError::Value { place, bad })?;
            variables.client(question, flags)
        }
        Some(("origins", flags)) => variables.client(Question::Origins, flags),
        Some(("streams", flags)) => variables.client(Question::Streams, flags),
        Some(("drain", flags)) => variables.client(Question::Drain(Goal::of(flags)?), flags),
        Some(("undrain", flags)) => variables.client(Question::Undrain, flags),
        Some((_, flags)) => serve(variables.resolve(flags)?),
        None => serve(variables.resolve(&matches)?),
    }
}

fn serve(resolved: Resolved) -> Result<Command, UsageError> {
    Ok(Command::Serve(Box::new(resolved.config), resolved.notices))
}

/// What else the process was started with.
struct Surroundings {
    environment: Variables,
    dotenv: Variables,
}

impl Surroundings {
    fn resolve(self, flags: &ArgMatches) -> Result<Resolved, ConfigError> {
        let file = self.file(flags)?;
        let arguments: BTreeMap<&'static str, Vec<String>> = SETTINGS
            .iter()
            .filter_map(|setting| {
                let typed = flags.get_many::<String>(setting.name)?;
                Some((setting.name, typed.cloned().collect()))
            })
            .collect();
        let Self { environment, dotenv } = self;
        sources::resolve(&Sources { file, dotenv, environment, arguments })
    }

    /// Reads the configuration file, if one is named.
    fn file(&self, flags: &ArgMatches) -> Result<Option<File>, ConfigError> {
        let typed = flags.get_one::<PathBuf>("config").cloned();
        let Some(path) = typed.or_else(|| self.variable(FILE_VARIABLE).map(PathBuf::from)) else {
            return Ok(None);
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(File { path, text })),
            Err(source) => Err(ConfigError::File { path, source }),
        }
    }

    fn client(&self, question: Question, flags: &ArgMatches) -> Result<Command, UsageError> {
        let read = |name: &str, variable: &str| {
            let typed =
                flags.get_one::<String>(name).map(|text| (format!("--{name}"), text.clone()));
            typed.or_else(|| {
                self.variable(variable).map(|text| (variable.to_owned(), text.to_owned()))
            })
        };
        let api = match read("api", API_VARIABLE) {
            Some((place, text)) => {
                Api::parse(&text).map_err(|bad| ConfigError::Value { place, bad })?
            }
            None => Api::default(),
        };
        let token = match read(TOKEN, token_variable()) {
            Some((place, text)) => {
                Some(settings::token(&text).map_err(|bad| ConfigError::Value { place, bad })?)
            }
            None => None,
        };
        let is_json = flags.get_flag("json");
        Ok(Command::Client(ClientCommand { api, token, question, is_json }))
    }

    fn variable(&self, name: &str) -> Option<&str> {
        sources::variable(&self.environment, name).or_else(|| sources::variable(&self.dotenv, name))
    }
}

/// Everything that can be typed.
fn command() -> clap::Command {
    clap::Command::new("ringway")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A relay for live media over UDP, between clients and a cluster of origin servers")
        .override_help(help::root())
        .args(serve_args())
        .args_conflicts_with_subcommands(true)
        .subcommand(
            clap::Command::new("serve")
                .about("Runs the relay")
                .override_help(help::serve())
                .args(serve_args()),
        )
        .subcommand(
            clap::Command::new("config")
                .about("Shows what `serve` would run with")
                .subcommand(config_command(
                    "print",
                    "Prints every value and where it was set, as TOML",
                ))
                .subcommand(config_command("check", "Says whether the configuration can be used")),
        )
        .subcommand(client_command("sessions", "Lists the sessions of a running relay"))
        .subcommand(
            client_command("session", "Shows one session")
                .arg(Arg::new("ID").required(true).help("As `ringway sessions` shows it")),
        )
        .subcommand(client_command("origins", "Lists the origins that a running relay knows"))
        .subcommand(client_command("streams", "Lists the streams and the origins they are on"))
        .subcommand(drain::command(client_command("drain", drain::ABOUT)))
        .subcommand(client_command("undrain", "Lets new sessions in again"))
}

/// The flags of `serve`. Their defaults are not clap's business: it could not tell them from typed
/// values.
fn serve_args() -> Vec<Arg> {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf));
    let settings = SETTINGS.iter().map(|setting| {
        Arg::new(setting.name)
            .long(setting.name)
            .value_name(setting.value)
            .allow_negative_numbers(true)
            .action(match setting.separator {
                Some(_) => ArgAction::Append,
                None => ArgAction::Set,
            })
            .num_args(if setting.alone.is_some() { 0..=1 } else { 1..=1 })
            .default_missing_value(setting.alone)
    });
    std::iter::once(file).chain(settings).collect()
}

fn config_command(name: &'static str, about: &'static str) -> clap::Command {
    clap::Command::new(name)
        .about(about)
        .after_help("It takes the flags of `ringway serve`.")
        .args(serve_args().into_iter().map(|arg| arg.hide(true)))
}

fn client_command(name: &'static str, about: &'static str) -> clap::Command {
    let api = format!(
        "The system API of the relay [env: {API_VARIABLE}] [default: {}]",
        client::API_DEFAULT
    );
    clap::Command::new(name).about(about).args([
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .help("Prints what the API answers"),
        Arg::new("api").long("api").value_name("URL").help(api),
        Arg::new(TOKEN)
            .long(TOKEN)
            .value_name("TOKEN")
            .help(format!("What that relay was given as --{TOKEN} [env: {}]", token_variable())),
    ])
}

fn token_variable() -> &'static str {
    settings::by_name(TOKEN).map_or("", |setting| setting.variable)
}

const TOKEN: &str = "api-token";

/// The exit code of everything that the user has to mend.
pub const USAGE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EngineChoice, Listen};

    fn typed(line: &str) -> Result<Command, UsageError> {
        with(line, &[])
    }

    fn with(line: &str, environment: &[(&str, &str)]) -> Result<Command, UsageError> {
        let arguments = std::iter::once("ringway").chain(line.split_whitespace());
        let pairs = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        parse(arguments.map(OsString::from), pairs.collect(), || Ok(Variables::new()))
    }

    fn config(command: Command) -> Config {
        let Command::Serve(config, _) = command else { panic!("{command:?} is not serve") };
        *config
    }

    fn client(command: Command) -> ClientCommand {
        let Command::Client(client) = command else { panic!("{command:?} is no question") };
        client
    }

    fn usage(line: &str) -> String {
        match typed(line).unwrap_err() {
            UsageError::Arguments(error) => {
                assert_eq!(error.exit_code(), i32::from(USAGE));
                error.to_string()
            }
            UsageError::Config(error) => error.to_string(),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn plain_ringway_serves() {
        assert_eq!(config(typed("").unwrap()).srt_listen, Listen::All(20080));
    }

    #[test]
    fn flags_work_with_and_without_serve() {
        for line in ["--srt-listen 7000 --engine=mmsg", "serve --srt-listen 7000 --engine=mmsg"] {
            let config = config(typed(line).unwrap());
            assert_eq!((config.srt_listen, config.engine), (Listen::All(7000), EngineChoice::Mmsg));
        }
    }

    #[test]
    fn origins_may_be_repeated() {
        let line = "--origin name=a,ip=10.0.0.1 --origin name=b,ip=10.0.0.2";
        assert_eq!(config(typed(line).unwrap()).origins.len(), 2);
    }

    #[test]
    fn clients_without_signalling_are_switched_on_with_and_without_a_word() {
        for (line, is_on) in [
            ("--webrtc-direct", true),
            ("--webrtc-direct on", true),
            ("serve --webrtc-direct --shards 1", true),
            ("--webrtc-direct=off", false),
            ("", false),
        ] {
            assert_eq!(config(typed(line).unwrap()).webrtc_direct, is_on, "{line}");
        }
        assert!(usage("--webrtc-direct yes").starts_with("--webrtc-direct: \"yes\""));
    }

    #[test]
    fn public_addresses_may_be_repeated_and_listed() {
        let line = "--public-address 198.51.100.7 --public-address ::1,[::2]:1";
        assert_eq!(config(typed(line).unwrap()).public_addresses.len(), 3);
    }

    #[test]
    fn a_flag_that_is_no_list_may_not_be_repeated() {
        assert!(usage("--shards 1 --shards 2").contains("cannot be used multiple times"));
    }

    #[test]
    fn an_unknown_flag_is_a_usage_error() {
        assert!(usage("--srt-lisen 1").contains("--srt-listen"));
        assert!(usage("sessions --engine mmsg").contains("--engine"));
    }

    #[test]
    fn what_belongs_to_another_version_is_refused_by_its_name_and_subject() {
        for (line, words) in [
            ("--redis-host redis.example", ["--redis-host", "Redis"]),
            ("--balancer redis", ["--balancer", "Redis"]),
            ("doctor", ["doctor", "not in this version"]),
            ("reload", ["reload", "not in this version"]),
            ("explain live/a", ["explain", "not in this version"]),
        ] {
            let said = usage(line);
            assert!(words.iter().all(|word| said.contains(word)), "{line}: {said}");
            assert!(!said.contains("similar"), "{line}: {said}");
        }
    }

    #[test]
    fn a_bad_value_names_the_flag() {
        assert!(usage("--shards -1").starts_with("--shards: \"-1\" is not a number"));
        assert!(usage("session a/b").starts_with("session: \"a/b\" is not the ID of a session"));
        assert!(usage("sessions --api https://a").starts_with("--api: \"https://a\" asks for TLS"));
    }

    #[test]
    fn a_configuration_file_that_is_not_there_is_an_error() {
        let missing = "/nonexistent/ringway.toml";
        let expected = format!("read the configuration file {missing}");
        assert_eq!(usage(&format!("--config {missing}")), expected);
        let error = with("", &[("RINGWAY_CONFIG", missing)]).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for line in ["--help", "-h", "serve --help", "config print --help", "sessions -h", "-V"] {
            match typed(line).unwrap_err() {
                UsageError::Arguments(error) => assert_eq!(error.exit_code(), 0, "{line}"),
                UsageError::Config(error) => panic!("{line}: {error}"),
            }
        }
    }

    #[test]
    fn help_works_beside_a_broken_dotenv() {
        let broken = || Err(ConfigError::Dotenv { line: 1, problem: "there is no = in it" });
        let arguments =
            |line: &str| line.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        let help = parse(arguments("ringway --help"), Variables::new(), broken).unwrap_err();
        assert!(matches!(help, UsageError::Arguments(_)));
        let serve = parse(arguments("ringway"), Variables::new(), broken).unwrap_err();
        assert!(serve.to_string().starts_with(".env, line 1"));
    }

    #[test]
    fn config_print_and_check_take_the_flags_of_serve() {
        let Command::ConfigPrint(resolved) = typed("config print --engine mmsg").unwrap() else {
            panic!("not config print");
        };
        assert!(resolved.print().contains("engine = \"mmsg\""));
        let checked = typed("config check --origin ip=10.0.0.1").unwrap();
        assert!(matches!(checked, Command::ConfigCheck(notices) if notices.len() == 1));
    }

    #[test]
    fn config_alone_is_a_usage_error() {
        assert!(usage("config").contains("ringway config print"));
    }

    #[test]
    fn questions_are_read() {
        for (line, question) in [
            ("sessions", Question::Sessions),
            ("session 0-1-2", Question::Session("0-1-2".to_owned())),
            ("origins", Question::Origins),
            ("streams", Question::Streams),
            ("drain", Question::Drain(Goal::default())),
            ("undrain", Question::Undrain),
        ] {
            let client = client(typed(line).unwrap());
            assert_eq!((client.question, client.is_json), (question, false));
            assert_eq!((client.api, client.token.is_some()), (Api::default(), false));
        }
        assert!(client(typed("streams --json").unwrap()).is_json);
    }

    #[test]
    fn a_question_takes_api_and_token_from_the_environment() {
        let environment = [("RINGWAY_API", "http://relay:1"), ("RINGWAY_API_TOKEN", "s3cret")];
        let asked = client(with("sessions", &environment).unwrap());
        assert_eq!((asked.api.to_string().as_str(), asked.token.is_some()), ("relay:1", true));
        let asked = client(with("sessions --api other:2", &environment).unwrap());
        assert_eq!(asked.api.to_string(), "other:2");
    }

    #[test]
    fn a_question_does_not_mind_a_broken_relay_configuration() {
        assert!(with("sessions", &[("RINGWAY_SHARDS", "many")]).is_ok());
    }

    #[test]
    fn the_debug_form_of_a_command_shows_no_secret() {
        let command = typed("--api-token hunter2 --cluster-secret hunter2").unwrap();
        assert!(!format!("{command:?}").contains("hunter2"));
    }
}
