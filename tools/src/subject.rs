//! The relay under test: Ringway with a chosen engine, or the plain loop that it is compared with.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use ringway::config::{Config, EngineChoice, Listen, StaticOrigin};
use ringway::relay::{Relay, Signals};

use crate::baseline::Baseline;
use crate::http;
use crate::measure;

/// Which relay.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Ringway with the best engine that runs here.
    Auto,
    /// Ringway on `io_uring`.
    Uring,
    /// Ringway on `recvmmsg` and `sendmmsg`.
    Mmsg,
    /// The plain loop of `recvfrom` and `send`.
    Loop,
}

impl Engine {
    /// As the command line and the tables show it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Mmsg => "mmsg",
            Self::Loop => "loop",
        }
    }
}

/// A running relay with one shard.
pub struct Subject {
    /// Where SRT callers connect to.
    pub address: SocketAddr,
    /// The thread that relays.
    pub tid: i32,
    /// What it does its I/O with.
    pub engine: &'static str,
    system: Option<SocketAddr>,
    _relay: Kind,
}

enum Kind {
    Ringway { _relay: Relay },
    Loop { _relay: Baseline },
}

impl Subject {
    /// Starts it on kernel-chosen loopback ports with its shard on `cpu` and `origin` as its only
    /// origin. Everything else Ringway does stays away from that CPU, if there is another.
    ///
    /// # Errors
    /// The relay does not start, for the reason it gives.
    pub fn start(engine: Engine, origin: SocketAddr, cpu: usize) -> anyhow::Result<Self> {
        let choice = match engine {
            Engine::Auto => EngineChoice::Auto,
            Engine::Uring => EngineChoice::Uring,
            Engine::Mmsg => EngineChoice::Mmsg,
            Engine::Loop => {
                let relay =
                    Baseline::start(ANY, origin, Some(cpu)).context("start the plain loop")?;
                let (address, tid) = (relay.address(), relay.tid());
                return Ok(Self {
                    address,
                    tid,
                    engine: "plain loop",
                    system: None,
                    _relay: Kind::Loop { _relay: relay },
                });
            }
        };
        let relay =
            Relay::start(config(choice, origin, cpu), Signals::Ignored).context("start Ringway")?;
        let shard = relay.shards().first().context("Ringway runs without a shard")?;
        let address = relay.srt_address().context("Ringway does not listen for SRT")?;
        let (tid, system) = (shard.tid, relay.system_address());
        let engine = relay.engine();
        Ok(Self { address, tid, engine, system, _relay: Kind::Ringway { _relay: relay } })
    }

    /// Datagrams and sends so far, as Ringway's metrics count them. `None` for the plain loop,
    /// which has one datagram per send.
    #[must_use]
    pub fn sends(&self) -> Option<Sends> {
        let answer = http::get(self.system?, "/metrics").ok()?;
        Some(Sends {
            datagrams: metric(&answer.body, "ringway_send_batch_segments_sum")?,
            sends: metric(&answer.body, "ringway_send_batch_segments_count")?,
        })
    }
}

/// How datagrams left.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Sends {
    /// Datagrams sent.
    pub datagrams: f64,
    /// Sends that carried them.
    pub sends: f64,
}

impl Sends {
    /// Datagrams per send since `before`.
    #[must_use]
    pub fn per_send_since(self, before: Self) -> f64 {
        (self.datagrams - before.datagrams) / (self.sends - before.sends).max(1.0)
    }
}

fn config(engine: EngineChoice, origin: SocketAddr, cpu: usize) -> Config {
    let others = measure::allowed_cpus().into_iter().find(|other| *other != cpu);
    Config {
        srt_listen: Listen::At(ANY),
        webrtc_listen: Listen::Off,
        http_listen: Listen::At(ANY),
        system_listen: Listen::At(ANY),
        origins: vec![StaticOrigin {
            srt: Some(origin.port()),
            ..StaticOrigin::at("emulator", origin.ip())
        }],
        engine,
        cpus: Some(vec![cpu]),
        shards: Some(1),
        control_cpu: others,
        ..Config::default()
    }
}

/// The sum of a metric over its labels, from Prometheus text.
fn metric(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        (rest.starts_with('{') || rest.starts_with(' ')).then(|| rest.rsplit_once(' '))?
    });
    let mut values = values.filter_map(|(_, value)| value.parse::<f64>().ok()).peekable();
    values.peek()?;
    Some(values.sum())
}

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_sum_over_its_labels() {
        let text =
            "# HELP a_sum x\na_sum{shard=\"0\"} 3\na_sum{shard=\"1\"} 4\na_sum_other 9\nb 1.5\n";
        assert_eq!(metric(text, "a_sum"), Some(7.0));
        assert_eq!(metric(text, "b"), Some(1.5));
        assert_eq!(metric(text, "c"), None);
    }

    #[test]
    fn batches_are_averaged_over_an_interval() {
        let before = Sends { datagrams: 100.0, sends: 100.0 };
        let after = Sends { datagrams: 420.0, sends: 110.0 };
        assert!((after.per_send_since(before) - 32.0).abs() < f64::EPSILON);
    }
}
