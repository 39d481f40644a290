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
use super::{
    BadValue, Config, EngineChoice, HostHeader, Listen, Notice, StaticOrigin, TlsFiles, go_proxy,
};

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
    shards_contradict(resolved)?;
    engine_cannot_gather(resolved)
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

/// The reference engine is there to be compared with as it is.
fn engine_cannot_gather(resolved: &Resolved) -> Result<(), ConfigError> {
    let Config { engine, batch_wait, .. } = resolved.config;
    if engine != EngineChoice::TokioUring || batch_wait.is_none() {
        return Ok(());
    }
    Err(ConfigError::Contradiction(format!(
        "{} is {} and {} is tokio-uring, which never waits for several datagrams; leave one of \
         them out, or take another engine",
        resolved.named("batch-wait"),
        values::show_duration_or_off(batch_wait),
        resolved.named("engine"),
    )))
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
mod tests;
