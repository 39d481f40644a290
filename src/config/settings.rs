//! The table of everything that can be set.
//!
//! Flags, environment variables, keys of the file, `--help` and `ringway config print` are made
//! from these entries, so they cannot tell different stories. A default stands in `Config::default`
//! alone and is shown from there.

mod table;

use std::time::Duration;

use secrecy::SecretString;

use super::Config;
use super::values::{self, BadValue};

pub use table::SETTINGS;
pub(super) use table::SHARDS_MAX;

/// One thing that can be set: its names, its texts, and how it gets into and out of a [`Config`].
#[derive(Debug)]
pub struct Setting {
    /// The flag without its dashes, which is also the key in the file.
    pub name: &'static str,
    /// The environment variable.
    pub variable: &'static str,
    /// What stands for the value in `--help`.
    pub value: &'static str,
    /// Where `--help` lists it.
    pub group: Group,
    /// One to three sentences for `--help`.
    pub help: &'static str,
    /// What happens while it is not set; for settings whose default is no value.
    pub unset: &'static str,
    /// Several values are separated by this; the flag may then be repeated, and the file may hold
    /// an array.
    pub separator: Option<char>,
    /// What the flag means when it is typed without a value.
    pub alone: Option<&'static str>,
    /// Never shown.
    pub is_secret: bool,
    read: fn(&mut Config, &str) -> Result<(), BadValue>,
    show: fn(&Config) -> Option<String>,
}

impl Setting {
    /// Puts `text` into `config` in place of what was there.
    ///
    /// # Errors
    /// `config` is as before when the value cannot be used.
    pub fn read(&self, config: &mut Config, text: &str) -> Result<(), BadValue> {
        (self.read)(config, text.trim())
    }

    /// The value in `config` as it may be typed; `None` when there is none. Secrets show as `***`.
    pub fn show(&self, config: &Config) -> Option<String> {
        (self.show)(config)
    }

    /// The default, or what happens without a value.
    pub fn default(&self) -> String {
        self.show(&Config::default()).unwrap_or_else(|| self.unset.to_owned())
    }
}

/// A heading of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Where the relay can be reached, and what callers meet there.
    Listen,
    /// What WebRTC clients are told, and how they may ask.
    WebRtc,
    /// Who serves the streams.
    Origins,
    /// What the packet path runs on.
    Engine,
    /// What is refused.
    Limits,
    /// When things end.
    Timers,
    /// Who may ask and what is told.
    Admin,
}

impl Group {
    /// Every group, in the order of `--help`.
    pub const ALL: [Self; 7] = [
        Self::Listen,
        Self::WebRtc,
        Self::Origins,
        Self::Engine,
        Self::Limits,
        Self::Timers,
        Self::Admin,
    ];

    /// As a heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Listen => "Listen",
            Self::WebRtc => "WebRTC and its HTTP API",
            Self::Origins => "Origins",
            Self::Engine => "CPU and engine",
            Self::Limits => "Limits",
            Self::Timers => "Timers",
            Self::Admin => "Admin and logs",
        }
    }

    /// What has to be known about all settings of the group.
    pub fn note(self) -> Option<&'static str> {
        match self {
            Self::Listen => Some(
                "ENDPOINT is a port or :port (all interfaces, IPv4 and IPv6), ADDRESS:PORT with \
                 an IP address, or off. Port 0 lets the kernel choose.",
            ),
            Self::Engine => Some(
                "Memory per shard: receive buffers of 512 x 64 KiB = 32 MiB with GRO, 4096 x 2 \
                 KiB = 8 MiB without.",
            ),
            Self::Limits => {
                Some("All limits are per process. A client is an IPv4 address or an IPv6 /64.")
            }
            Self::Timers => Some("Durations are written as 90s, 1m30s, 1.5s or 250ms."),
            Self::WebRtc | Self::Origins | Self::Admin => None,
        }
    }
}

/// The setting called `name`.
pub fn by_name(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Reads a token as `--api-token` takes it.
///
/// # Errors
/// Without showing it, when no HTTP header could hold it.
pub fn token(text: &str) -> Result<SecretString, BadValue> {
    values::secret(text.trim())
}

/// Reads a duration that an operator gives a running relay, as flags take them.
///
/// # Errors
/// When it is none, or longer than [`DEADLINE_MAX`].
pub fn deadline(text: &str) -> Result<Duration, BadValue> {
    values::duration(text.trim(), Duration::from_millis(1), DEADLINE_MAX)
}

/// Longer than any live event.
pub const DEADLINE_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

#[cfg(test)]
mod tests;
