//! Who takes part: relays as the command line names them, and how they are tuned.

use std::str::FromStr;

use clap::ValueEnum as _;

use crate::nginx::Buffers;
use crate::subject::{Engine, Tuning};

/// A relay to compare, as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ringway or a baseline.
    Engine(Engine),
    /// nginx.
    Nginx(Buffers),
    /// Whatever runs already.
    Running,
    /// None at all.
    Direct,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "nginx" => Ok(Self::Nginx(Buffers::Default)),
            "nginx-4m" => Ok(Self::Nginx(Buffers::Large)),
            "direct" => Ok(Self::Direct),
            engine => Engine::from_str(engine, false).map(Self::Engine).map_err(|_| {
                let engines = Engine::value_variants().iter().map(|engine| engine.label());
                let names: Vec<_> = engines.chain(["nginx", "nginx-4m", "direct"]).collect();
                format!("no such relay; there are {}", names.join(", "))
            }),
        }
    }
}

impl Kind {
    /// As the command line and the tables show it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Engine(engine) => engine.label(),
            Self::Nginx(Buffers::Default) => "nginx",
            Self::Nginx(Buffers::Large) => "nginx-4m",
            Self::Running => "running",
            Self::Direct => "direct",
        }
    }

    /// Whether it is Ringway, whatever the engine.
    #[must_use]
    pub fn is_ringway(self) -> bool {
        matches!(self, Self::Engine(engine) if !engine.is_baseline())
    }
}

/// One of those that take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entrant {
    /// Which relay.
    pub kind: Kind,
    /// How it is tuned.
    pub tuning: Tuning,
}

impl Entrant {
    /// A relay with the part of `tuning` that it has: all of it for Ringway, the shards for a
    /// baseline.
    #[must_use]
    pub fn new(kind: Kind, tuning: Tuning) -> Self {
        let plain = Tuning { shards: tuning.shards, ..Tuning::default() };
        Self { kind, tuning: if kind.is_ringway() { tuning } else { plain } }
    }

    /// The column of the tables: the relay, and what is special about it.
    #[must_use]
    pub fn label(&self) -> String {
        let name = self.kind.label();
        if self.tuning.batch_wait.is_some() { format!("{name}+wait") } else { name.to_owned() }
    }
}
