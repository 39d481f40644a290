//! Where values come from, and who wins: default < file < `.env` < environment < flag.
//!
//! [`resolve`] is a function of [`Sources`]: tests need no process, no file and no environment.
//! Every value is checked, also one that a stronger source replaces, so that removing a flag does
//! not bring an old mistake to life.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use super::settings::{SETTINGS, SHARDS_MAX, Setting, by_name};
use super::values::{self, MASK};
use super::{BadValue, Config, HostHeader, Listen, Notice, StaticOrigin, TlsFiles, go_proxy};

/// Environment variables, or the lines of a `.env` file.
pub type Variables = BTreeMap<String, String>;

/// Everything that a [`Config`] is made from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file, if one was named.
    pub file: Option<File>,
    /// What `.env` in the working directory holds.
    pub dotenv: Variables,
    /// The environment of the process.
    pub environment: Variables,
    /// What was typed, by the name of the flag.
    pub arguments: BTreeMap<&'static str, Vec<String>>,
}

/// A configuration file, read.
#[derive(Clone, Debug)]
pub struct File {
    /// As the user named it.
    pub path: PathBuf,
    /// TOML.
    pub text: String,
}

/// A [`Config`], and how it came about.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The outcome.
    pub config: Config,
    /// What was accepted and does not do what its name promises.
    pub notices: Vec<Notice>,
    /// In the order of [`SETTINGS`].
    pub(super) places: Vec<Place>,
    /// Whether the last of the origins is the Go proxy's default one.
    pub(super) has_default_origin: bool,
}

/// Why there is no [`Config`]. All of these are the user's to mend, hence exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that cannot be used.
    #[error("{place}: {bad}")]
    Value {
        /// Where it stands: a flag, a variable or a key.
        place: String,
        /// What is wrong with it.
        bad: BadValue,
    },
    /// A key that is no flag.
    #[error(
        "{}: there is no key {key:?}; write {}",
        path.display(),
        nearest.unwrap_or("the name of a flag as `ringway serve --help` lists it")
    )]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// As it stands there.
        key: String,
        /// What was probably meant.
        nearest: Option<&'static str>,
    },
    /// A value of a TOML type that settings do not have.
    #[error("{}: {key} is {found}; write {instead}", path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// Whose value.
        key: String,
        /// The TOML type.
        found: &'static str,
        /// What fits.
        instead: &'static str,
    },
    /// The file is not TOML. The parser's message shows the line.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From the TOML parser.
        message: String,
    },
    /// The file cannot be read.
    #[error("read the configuration file {}", path.display())]
    File {
        /// As the user named it.
        path: PathBuf,
        /// From the system.
        source: io::Error,
    },
    /// `.env` is there and cannot be read.
    #[error("read .env in the working directory")]
    DotenvFile(#[source] io::Error),
    /// A line of `.env` that is no assignment.
    #[error(".env, line {line}: {problem}; write KEY=VALUE")]
    Dotenv {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two values, each fine, that cannot both be meant.
    #[error("{0}")]
    Contradiction(String),
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Default,
    File(PathBuf),
    Dotenv,
    Environment,
    Flag,
}

impl Place {
    /// As an error names it: what the user has to look for.
    fn of(&self, setting: &Setting) -> String {
        match self {
            Self::Default => format!("the default of --{}", setting.name),
            Self::File(path) => format!("{} in {}", setting.name, path.display()),
            Self::Dotenv => format!("{} in .env", setting.variable),
            Self::Environment => setting.variable.to_owned(),
            Self::Flag => format!("--{}", setting.name),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Dotenv => f.write_str(".env"),
            Self::Environment => f.write_str("environment"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// Puts the sources together.
///
/// # Errors The first value, in the order of the sources, that cannot be used; then values that
/// contradict each other.
pub fn resolve(sources: &Sources) -> Result<Resolved, ConfigError> {
    let mut resolved = Resolved {
        config: Config::default(),
        notices: Vec::new(),
        places: vec![Place::Default; SETTINGS.len()],
        has_default_origin: false,
    };
    if let Some(file) = &sources.file {
        let texts = file_texts(file)?;
        resolved
            .apply(&Place::File(file.path.clone()), |setting| texts.get(setting.name).cloned())?;
    }
    for (place, variables) in
        [(Place::Dotenv, &sources.dotenv), (Place::Environment, &sources.environment)]
    {
        resolved
            .apply(&place, |setting| variable(variables, setting.variable).map(str::to_owned))?;
    }
    resolved.apply(&Place::Flag, |setting| {
        let typed = sources.arguments.get(setting.name)?;
        Some(typed.join(&setting.separator.unwrap_or_default().to_string()))
    })?;
    let variables = merged(sources);
    go_proxy::apply(&variables, &mut resolved)?;
    contradictions(&resolved)?;
    notices(&mut resolved);
    resolved.notices.extend(unknown_variables(&variables));
    Ok(resolved)
}

impl Resolved {
    fn apply(
        &mut self,
        place: &Place,
        text: impl Fn(&Setting) -> Option<String>,
    ) -> Result<(), ConfigError> {
        for (setting, origin) in SETTINGS.iter().zip(&mut self.places) {
            let Some(text) = text(setting) else { continue };
            setting.read(&mut self.config, &text).map_err(|mut bad| {
                if setting.is_secret {
                    MASK.clone_into(&mut bad.value);
                }
                ConfigError::Value { place: place.of(setting), bad }
            })?;
            *origin = place.clone();
        }
        Ok(())
    }

    /// Where the value of the setting called `name` was written.
    pub(super) fn place(&self, name: &str) -> &Place {
        let found = SETTINGS.iter().zip(&self.places).find(|(setting, _)| setting.name == name);
        found.map_or(&Place::Default, |(_, place)| place)
    }

    /// The setting called `name` as an error names it.
    fn named(&self, name: &str) -> String {
        let setting = by_name(name);
        setting.map(|setting| self.place(name).of(setting)).unwrap_or_default()
    }
}

/// The environment of this process, as it is now. Names and values that are not UTF-8 come with
/// replacements, so that a variable of ours is refused with a message and one of others does no
/// harm.
pub fn environment() -> Variables {
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment; everything else is given a map"
    )]
    let variables = std::env::vars_os();
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    variables.map(|(name, value)| (text(name), text(value))).collect()
}

/// The variables in `.env` in the working directory; none if there is no such file.
///
/// # Errors
/// When it is there and cannot be read.
pub fn dotenv() -> Result<Variables, ConfigError> {
    match std::fs::read_to_string(".env") {
        Ok(text) => super::dotenv::parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Variables::new()),
        Err(error) => Err(ConfigError::DotenvFile(error)),
    }
}

/// An empty variable is one that is not set.
pub(crate) fn variable<'a>(variables: &'a Variables, name: &str) -> Option<&'a str> {
    variables.get(name).map(|text| text.trim()).filter(|text| !text.is_empty())
}

/// The variables as the process would see them: `.env` fills what the environment lacks.
fn merged(sources: &Sources) -> Variables {
    let set = |variables: &Variables| {
        let set = variables.iter().filter(|(_, text)| !text.trim().is_empty());
        set.map(|(name, text)| (name.clone(), text.trim().to_owned())).collect::<Variables>()
    };
    let mut merged = set(&sources.dotenv);
    merged.extend(set(&sources.environment));
    merged
}

/// The file's values as they would be typed, by the name of the flag.
fn file_texts(file: &File) -> Result<BTreeMap<&'static str, String>, ConfigError> {
    let table: toml::Table = file.text.parse().map_err(|error: toml::de::Error| {
        ConfigError::Syntax { path: file.path.clone(), message: error.to_string() }
    })?;
    let mut texts = BTreeMap::new();
    for (key, value) in &table {
        let Some(setting) = by_name(key) else {
            let path = file.path.clone();
            return Err(ConfigError::UnknownKey { path, key: key.clone(), nearest: nearest(key) });
        };
        let text = match (value, setting.separator) {
            (toml::Value::Array(items), Some(separator)) => {
                let items: Option<Vec<String>> = items.iter().map(scalar_text).collect();
                items.map(|items| items.join(&separator.to_string()))
            }
            (scalar, _) => scalar_text(scalar),
        };
        let text = text.ok_or_else(|| ConfigError::Type {
            path: file.path.clone(),
            key: key.clone(),
            found: toml_type(value),
            instead: match setting.separator {
                Some(_) => "a string or an array of strings",
                None => "a string or a number",
            },
        })?;
        texts.insert(setting.name, text);
    }
    Ok(texts)
}

/// `true` and `false` are how TOML says `on` and `off`.
fn scalar_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(is_on) => Some(if *is_on { "on" } else { "off" }.to_owned()),
        toml::Value::Float(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)
        | toml::Value::Table(_) => None,
    }
}

fn toml_type(value: &toml::Value) -> &'static str {
    match value {
        toml::Value::String(_) => "a string",
        toml::Value::Integer(_) => "an integer",
        toml::Value::Boolean(_) => "a boolean",
        toml::Value::Float(_) => "a fraction",
        toml::Value::Datetime(_) => "a date",
        toml::Value::Array(_) => "an array that does not fit",
        toml::Value::Table(_) => "a table",
    }
}

/// The flag that a mistyped key or variable differs from only in case, hyphens and underscores.
fn nearest(key: &str) -> Option<&'static str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    let found = SETTINGS.iter().find(|setting| {
        plain(setting.name) == plain(key)
            || setting.variable.eq_ignore_ascii_case(key)
            || plain(setting.name) == plain(key.strip_suffix('s').unwrap_or(key))
    });
    found.map(|setting| setting.name)
}

/// Refuses values that are fine each and cannot both be meant.
fn contradictions(resolved: &Resolved) -> Result<(), ConfigError> {
    listeners_contradict(resolved)?;
    half_a_pair(resolved)?;
    shards_contradict(resolved)
}

/// A relay that listens for no media is none, and the kernel would spread the clients of one port
/// over both protocols.
fn listeners_contradict(resolved: &Resolved) -> Result<(), ConfigError> {
    let (srt, webrtc) = (resolved.config.srt_listen, resolved.config.webrtc_listen);
    if (srt, webrtc) == (Listen::Off, Listen::Off) {
        return Err(ConfigError::Contradiction(format!(
            "{} and {} are both off, so that nothing would be relayed; give one of them a port",
            resolved.named("srt-listen"),
            resolved.named("webrtc-listen"),
        )));
    }
    if srt.overlaps(webrtc) {
        return Err(ConfigError::Contradiction(format!(
            "{} is {} and {} is {}: SRT and WebRTC cannot share a UDP port; choose another port \
             for one of them",
            resolved.named("srt-listen"),
            values::show_listen(srt),
            resolved.named("webrtc-listen"),
            values::show_listen(webrtc),
        )));
    }
    Ok(())
}

/// A certificate without its key, or the other way round.
fn half_a_pair(resolved: &Resolved) -> Result<(), ConfigError> {
    let Some(TlsFiles { cert, key }) = &resolved.config.tls else {
        return Ok(());
    };
    let (set, missing) = match (cert.as_os_str().is_empty(), key.as_os_str().is_empty()) {
        (false, false) => return Ok(()),
        (false, true) => ("tls-cert", "tls-key"),
        (true, _) => ("tls-key", "tls-cert"),
    };
    Err(ConfigError::Contradiction(format!(
        "{0} is set and --{missing} is not; TLS takes both: set --{missing}, or leave out {0}",
        resolved.named(set),
    )))
}

fn shards_contradict(resolved: &Resolved) -> Result<(), ConfigError> {
    let Some(cpus) = &resolved.config.cpus else {
        return Ok(());
    };
    let named = |name| resolved.named(name);
    match resolved.config.shards {
        Some(shards) if usize::from(shards) > cpus.len() => {
            Err(ConfigError::Contradiction(format!(
                "{} asks for {shards} shards and {} lists {} CPUs; name a CPU for each shard, or \
                 leave one of them out",
                named("shards"),
                named("cpus"),
                cpus.len(),
            )))
        }
        None if cpus.len() > usize::from(SHARDS_MAX) => Err(ConfigError::Contradiction(format!(
            "{} lists {} CPUs, which makes more than {SHARDS_MAX} shards; list fewer, or set \
             --shards",
            named("cpus"),
            cpus.len(),
        ))),
        Some(_) | None => Ok(()),
    }
}

/// Says what is accepted and probably not meant.
fn notices(resolved: &mut Resolved) {
    let config = &resolved.config;
    let mut notices = Vec::new();
    if config.grace_quit_timeout > config.force_quit_timeout {
        notices.push(Notice::new(format!(
            "--grace-quit-timeout {:?} is longer than --force-quit-timeout {:?}, and the shorter \
             one ends the process",
            config.grace_quit_timeout, config.force_quit_timeout,
        )));
    }
    notices.extend(config.origins.iter().filter_map(|origin| origin_notice(config, origin)));
    notices.extend(webrtc_notices(config));
    if config.tls.is_some() && config.http_listen == Listen::Off {
        notices.push(Notice::new("--tls-cert and --tls-key have no effect: --http-listen is off"));
    }
    resolved.notices.extend(notices);
}

fn origin_notice(config: &Config, origin: &StaticOrigin) -> Option<Notice> {
    let name = &origin.name;
    if origin.direct.is_some() && !config.webrtc_direct {
        let text = format!("direct= of origin {name} has no effect: --webrtc-direct is off");
        return Some(Notice::new(text));
    }
    // What has no port of its own may say how a registered origin of that name or address is asked.
    let is_about_another =
        origin.path.is_some() || origin.host != HostHeader::default() || origin.direct.is_some();
    let has_streams = origin.srt.is_some() || origin.api.is_some();
    (!has_streams && !is_about_another).then(|| {
        Notice::new(format!(
            "origin {name} has neither srt= nor api=: it gets no streams (SRT needs srt=, WebRTC \
             api=)"
        ))
    })
}

/// What keeps WebRTC clients from signalling, or from finding the relay afterwards.
fn webrtc_notices(config: &Config) -> Option<Notice> {
    let webrtc = match config.webrtc_listen {
        Listen::Off => return None,
        Listen::All(_) => None,
        Listen::At(address) => Some(address.ip()),
    };
    let http = match config.http_listen {
        Listen::Off if config.webrtc_direct => return None,
        Listen::Off => {
            return Some(Notice::new(
                "--webrtc-listen is on and --http-listen is off: no WebRTC client can ask for a \
                 session",
            ));
        }
        Listen::All(_) => None,
        Listen::At(address) => Some(address.ip()),
    };
    let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
    let only_loopback = if config.public_addresses.is_empty() {
        webrtc.filter(|ip| !ip.is_unspecified()).or(http).is_some_and(is_loopback)
    } else {
        config.public_addresses.iter().all(|address| is_loopback(address.ip))
    };
    only_loopback.then(|| {
        Notice::new(
            "WebRTC clients are told loopback addresses only, which browsers ignore and other \
             hosts cannot reach: set --public-address to one that clients can send to",
        )
    })
}

/// A mistyped variable would otherwise be silent: unlike a flag or a key, nobody can refuse it.
fn unknown_variables(variables: &Variables) -> impl Iterator<Item = Notice> {
    let is_known = |name: &str| {
        OTHER_VARIABLES.contains(&name) || SETTINGS.iter().any(|setting| setting.variable == name)
    };
    variables.keys().filter(move |name| name.starts_with("RINGWAY_") && !is_known(name)).map(
        |name| {
            Notice::new(format!("{name} has no effect: `ringway serve --help` lists the variables"))
        },
    )
}

/// Names the configuration file.
pub const FILE_VARIABLE: &str = "RINGWAY_CONFIG";

/// Names the relay that `ringway sessions` and its like ask.
pub const API_VARIABLE: &str = "RINGWAY_API";

/// Variables that are no settings of the relay.
const OTHER_VARIABLES: [&str; 2] = [FILE_VARIABLE, API_VARIABLE];

#[cfg(test)]
mod tests {
    use super::super::{EngineChoice, Offload};
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn flags(pairs: &[(&'static str, &[&str])]) -> BTreeMap<&'static str, Vec<String>> {
        let typed = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        pairs.iter().map(|(name, texts)| (*name, typed(texts))).collect()
    }

    fn file(text: &str) -> Option<File> {
        Some(File { path: "ringway.toml".into(), text: text.to_owned() })
    }

    fn from_file(text: &str) -> Result<Resolved, ConfigError> {
        resolve(&Sources { file: file(text), ..Sources::default() })
    }

    fn from_flags(pairs: &[(&'static str, &[&str])]) -> Result<Resolved, ConfigError> {
        resolve(&Sources { arguments: flags(pairs), ..Sources::default() })
    }

    fn from_environment(pairs: &[(&str, &str)]) -> Result<Resolved, ConfigError> {
        resolve(&Sources { environment: variables(pairs), ..Sources::default() })
    }

    #[test]
    fn without_sources_everything_is_the_default() {
        let resolved = resolve(&Sources::default()).unwrap();
        for setting in SETTINGS {
            assert_eq!(setting.show(&resolved.config), setting.show(&Config::default()));
            assert_eq!(*resolved.place(setting.name), Place::Default);
        }
        assert_eq!(resolved.notices, []);
    }

    #[test]
    fn each_source_wins_over_the_weaker_ones() {
        let mut sources = Sources::default();
        let port = |sources: &Sources| {
            let resolved = resolve(sources).unwrap();
            (resolved.config.srt_listen, resolved.place("srt-listen").clone())
        };
        assert_eq!(port(&sources), (Listen::All(20080), Place::Default));
        sources.file = file("srt-listen = 1");
        assert_eq!(port(&sources), (Listen::All(1), Place::File("ringway.toml".into())));
        sources.dotenv = variables(&[("PROXY_SRT_SERVER", "2")]);
        assert_eq!(port(&sources), (Listen::All(2), Place::Dotenv));
        sources.environment = variables(&[("PROXY_SRT_SERVER", "3")]);
        assert_eq!(port(&sources), (Listen::All(3), Place::Environment));
        sources.arguments = flags(&[("srt-listen", &["4"])]);
        assert_eq!(port(&sources), (Listen::All(4), Place::Flag));
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        let sources = Sources {
            dotenv: variables(&[("PROXY_SRT_SERVER", "7000")]),
            environment: variables(&[("PROXY_SRT_SERVER", " ")]),
            ..Sources::default()
        };
        assert_eq!(resolve(&sources).unwrap().config.srt_listen, Listen::All(7000));
    }

    #[test]
    fn dotenv_fills_only_what_the_environment_lacks() {
        let sources = Sources {
            dotenv: variables(&[("PROXY_DEFAULT_BACKEND_ENABLED", "on"), ("RINGWAY_GSO", "off")]),
            environment: variables(&[("PROXY_DEFAULT_BACKEND_ENABLED", "off")]),
            ..Sources::default()
        };
        let resolved = resolve(&sources).unwrap();
        assert_eq!(resolved.config.origins, []);
        assert_eq!(resolved.config.gso, Offload::Off);
    }

    #[test]
    fn a_stronger_list_replaces_the_weaker_one() {
        let sources = Sources {
            environment: variables(&[("RINGWAY_ORIGINS", "name=a,ip=10.0.0.1;name=b,ip=10.0.0.2")]),
            arguments: flags(&[("origin", &["name=c,ip=10.0.0.3", "name=d,ip=10.0.0.4"])]),
            ..Sources::default()
        };
        let origins = resolve(&sources).unwrap().config.origins;
        let names: Vec<&str> = origins.iter().map(|origin| origin.name.as_str()).collect();
        assert_eq!(names, ["c", "d"]);
    }

    #[test]
    fn a_file_may_hold_strings_numbers_booleans_and_arrays() {
        let config = from_file(
            "engine = 'mmsg'\nshards = 2\ngso = false\ncpus = ['0-1', 3]\nvhosts = 'a,b'\n\
             origin = ['ip=10.0.0.1', 'ip=10.0.0.2']",
        );
        let config = config.unwrap().config;
        assert_eq!(config.engine, EngineChoice::Mmsg);
        assert_eq!((config.shards, config.gso), (Some(2), Offload::Off));
        assert_eq!((config.cpus, config.vhosts.len()), (Some(vec![0, 1, 3]), 2));
        assert_eq!(config.origins.len(), 2);
    }

    #[test]
    fn an_unknown_key_is_refused_and_named() {
        for (text, message) in [
            ("srt_listen = 1", "ringway.toml: there is no key \"srt_listen\"; write srt-listen"),
            ("origins = []", "ringway.toml: there is no key \"origins\"; write origin"),
            (
                "PROXY_HTTP_API = 1",
                "ringway.toml: there is no key \"PROXY_HTTP_API\"; write http-listen",
            ),
            (
                "[limits]\nx = 1",
                "ringway.toml: there is no key \"limits\"; write the name of a flag as \
                 `ringway serve --help` lists it",
            ),
        ] {
            assert_eq!(from_file(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_value_of_a_foreign_type_is_refused() {
        for (text, message) in [
            ("shards = 1.5", "ringway.toml: shards is a fraction; write a string or a number"),
            (
                "shards = [1]",
                "ringway.toml: shards is an array that does not fit; write a string or a number",
            ),
            (
                "origin = [{ip = 'a'}]",
                "ringway.toml: origin is an array that does not fit; \
                 write a string or an array of strings",
            ),
        ] {
            assert_eq!(from_file(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_file_that_is_not_toml_is_refused_with_the_line() {
        let error = from_file("engine = 'mmsg'\nshards =\n").unwrap_err().to_string();
        assert!(error.starts_with("ringway.toml: TOML parse error at line 2"), "{error}");
    }

    #[test]
    fn an_error_names_the_source_the_value_and_what_to_write() {
        let rest = "\"0\" is out of bounds; write a number from 1 to 256";
        let in_file = from_file("shards = 0").unwrap_err().to_string();
        assert_eq!(in_file, format!("shards in ringway.toml: {rest}"));
        let in_environment = from_environment(&[("RINGWAY_SHARDS", "0")]).unwrap_err().to_string();
        assert_eq!(in_environment, format!("RINGWAY_SHARDS: {rest}"));
        let typed = from_flags(&[("shards", &["0"])]).unwrap_err().to_string();
        assert_eq!(typed, format!("--shards: {rest}"));
        let dotenv = variables(&[("RINGWAY_SHARDS", "0")]);
        let in_dotenv = resolve(&Sources { dotenv, ..Sources::default() }).unwrap_err().to_string();
        assert_eq!(in_dotenv, format!("RINGWAY_SHARDS in .env: {rest}"));
    }

    #[test]
    fn a_bad_value_is_refused_although_a_stronger_one_replaces_it() {
        let sources = Sources {
            environment: variables(&[("RINGWAY_SHARDS", "many")]),
            arguments: flags(&[("shards", &["2"])]),
            ..Sources::default()
        };
        assert!(resolve(&sources).unwrap_err().to_string().starts_with("RINGWAY_SHARDS:"));
    }

    #[test]
    fn an_error_about_a_secret_does_not_show_it() {
        let error = from_environment(&[("RINGWAY_API_TOKEN", "hunter 2")]).unwrap_err();
        assert!(error.to_string().starts_with("RINGWAY_API_TOKEN: \"***\" is empty, too long"));
    }

    #[test]
    fn more_shards_than_listed_cpus_contradict() {
        let error = from_flags(&[("cpus", &["0-1"]), ("shards", &["3"])]).unwrap_err().to_string();
        assert_eq!(
            error,
            "--shards asks for 3 shards and --cpus lists 2 CPUs; \
             name a CPU for each shard, or leave one of them out"
        );
    }

    #[test]
    fn fewer_shards_than_listed_cpus_are_fine() {
        assert!(from_flags(&[("cpus", &["0-3"]), ("shards", &["3"])]).is_ok());
    }

    #[test]
    fn more_cpus_than_shards_can_be_contradict_the_limit() {
        let error = from_flags(&[("cpus", &["0-256"])]).unwrap_err().to_string();
        assert!(error.contains("lists 257 CPUs, which makes more than 256 shards"), "{error}");
        assert!(from_flags(&[("cpus", &["0-256"]), ("shards", &["256"])]).is_ok());
    }

    #[test]
    fn a_grace_longer_than_the_force_timeout_is_said() {
        let notices = from_flags(&[("grace-quit-timeout", &["60s"])]).unwrap().notices;
        assert!(notices[0].to_string().contains("longer than --force-quit-timeout 30s"));
    }

    #[test]
    fn an_origin_that_can_have_no_streams_is_said() {
        let notices = from_flags(&[("origin", &["name=a,ip=10.0.0.1,rtc=8000"])]).unwrap().notices;
        assert!(notices[0].to_string().starts_with("origin a has neither srt= nor api="));
        for of_use in ["srt=1", "api=1", "path=/{path}/whip", "host=origin"] {
            let origin = format!("ip=10.0.0.1,{of_use}");
            assert_eq!(from_flags(&[("origin", &[&origin])]).unwrap().notices, [], "{of_use}");
        }
    }

    #[test]
    fn a_port_for_clients_without_signalling_is_nothing_while_they_are_not_relayed() {
        let origin = ["name=a,ip=10.0.0.1,api=1,direct=8000"];
        let notices = from_flags(&[("origin", &origin)]).unwrap().notices;
        assert!(notices[0].to_string().starts_with("direct= of origin a has no effect"));
        let both: [(_, &[&str]); 2] = [("origin", &origin), ("webrtc-direct", &["on"])];
        assert_eq!(from_flags(&both).unwrap().notices, []);
    }

    #[test]
    fn srt_and_webrtc_cannot_share_a_port() {
        let same = from_flags(&[("srt-listen", &["18000"])]).unwrap_err().to_string();
        assert_eq!(
            same,
            "--srt-listen is 18000 and the default of --webrtc-listen is 18000: SRT and WebRTC \
             cannot share a UDP port; choose another port for one of them"
        );
        for (srt, webrtc, is_fine) in [
            ("10.0.0.1:9", "9", false),
            ("10.0.0.1:9", "10.0.0.1:9", false),
            ("10.0.0.1:9", "0.0.0.0:9", false),
            ("[::1]:9", "[::]:9", false),
            ("127.0.0.1:9", "[::]:9", false),
            ("10.0.0.1:9", "10.0.0.2:9", true),
            ("127.0.0.1:9", "[::1]:9", true),
            ("10.0.0.1:0", "10.0.0.1:0", true),
            ("0", "0", true),
            ("off", "9", true),
            ("9", "off", true),
        ] {
            let resolved = from_flags(&[("srt-listen", &[srt]), ("webrtc-listen", &[webrtc])]);
            assert_eq!(resolved.is_ok(), is_fine, "{srt} {webrtc}");
        }
    }

    #[test]
    fn a_relay_without_any_listener_for_media_is_refused() {
        let error = from_flags(&[("srt-listen", &["off"]), ("webrtc-listen", &["off"])]);
        assert_eq!(
            error.unwrap_err().to_string(),
            "--srt-listen and --webrtc-listen are both off, so that nothing would be relayed; \
             give one of them a port"
        );
    }

    #[test]
    fn a_certificate_and_its_key_come_together_from_wherever() {
        let sources = Sources {
            environment: variables(&[("RINGWAY_TLS_CERT", "a.pem")]),
            arguments: flags(&[("tls-key", &["b.pem"])]),
            ..Sources::default()
        };
        let files = TlsFiles { cert: "a.pem".into(), key: "b.pem".into() };
        assert_eq!(resolve(&sources).unwrap().config.tls, Some(files));
    }

    #[test]
    fn a_certificate_without_its_key_is_refused_and_the_other_way_round() {
        let alone = from_environment(&[("RINGWAY_TLS_CERT", "a.pem")]).unwrap_err().to_string();
        assert_eq!(
            alone,
            "RINGWAY_TLS_CERT is set and --tls-key is not; TLS takes both: set --tls-key, or \
             leave out RINGWAY_TLS_CERT"
        );
        let alone = from_flags(&[("tls-key", &["a.pem"])]).unwrap_err().to_string();
        assert!(alone.starts_with("--tls-key is set and --tls-cert is not"), "{alone}");
    }

    #[test]
    fn certificates_for_no_listener_are_said() {
        let notices = from_flags(&[
            ("tls-cert", &["a.pem"]),
            ("tls-key", &["b.pem"]),
            ("http-listen", &["off"]),
            ("webrtc-listen", &["off"]),
        ]);
        let notices = notices.unwrap().notices;
        assert_eq!(notices.len(), 1);
        assert!(notices[0].to_string().starts_with("--tls-cert and --tls-key have no effect"));
    }

    #[test]
    fn webrtc_without_an_http_api_is_said_unless_clients_may_do_without() {
        let off: (_, &[&str]) = ("http-listen", &["off"]);
        let notices = from_flags(&[off]).unwrap().notices;
        assert!(notices[0].to_string().contains("no WebRTC client can ask for a session"));
        assert_eq!(from_flags(&[off, ("webrtc-direct", &["on"])]).unwrap().notices, []);
        assert_eq!(from_flags(&[off, ("webrtc-listen", &["off"])]).unwrap().notices, []);
    }

    #[test]
    fn candidates_that_are_all_loopback_are_said() {
        for (name, text, is_said) in [
            ("public-address", "127.0.0.1,::1", true),
            ("public-address", "127.0.0.1,198.51.100.7", false),
            ("http-listen", "127.0.0.1:11985", true),
            ("http-listen", "10.0.0.1:11985", false),
            ("webrtc-listen", "127.0.0.1:18000", true),
            ("webrtc-listen", "0.0.0.0:18000", false),
        ] {
            let notices = from_flags(&[(name, &[text])]).unwrap().notices;
            let said = notices.iter().any(|notice| notice.to_string().contains("loopback"));
            assert_eq!(said, is_said, "--{name} {text}");
        }
        let elsewhere =
            [("http-listen", &["127.0.0.1:1"][..]), ("public-address", &["198.51.100.7"])];
        assert_eq!(from_flags(&elsewhere).unwrap().notices, []);
    }

    #[test]
    fn a_mistyped_variable_of_ours_is_said() {
        let notices = from_environment(&[("RINGWAY_SHARD", "2"), ("RINGWAY_CONFIG", "x")]);
        let notices = notices.unwrap().notices;
        assert_eq!(notices.len(), 1);
        assert!(notices[0].to_string().starts_with("RINGWAY_SHARD has no effect"));
    }
}
