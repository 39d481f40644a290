//! The relay under test: Ringway with a chosen engine, or the plain loop that it is compared with.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use ringway::config::{Config, EngineChoice, Listen, StaticOrigin};
use ringway::relay::{Relay, Signals};

use crate::baseline::Baseline;
use crate::http;
use crate::measure;
use crate::registration::Endpoints;

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
    /// Ringway on the reference engine, under `tokio-uring`.
    #[serde(rename = "tokio-uring")]
    TokioUring,
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
            Self::TokioUring => "tokio-uring",
            Self::Loop => "loop",
        }
    }
}

/// A running relay with one shard.
pub struct Subject {
    /// Where SRT callers connect to.
    pub address: SocketAddr,
    /// How WebRTC clients come to it; `None` where it does not take them.
    pub webrtc: Option<WebrtcEntrance>,
    /// The thread that relays.
    pub tid: i32,
    /// What it does its I/O with.
    pub engine: &'static str,
    system: Option<SocketAddr>,
    _relay: Kind,
}

/// How WebRTC clients come to a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebrtcEntrance {
    /// Where offers are posted.
    pub http: SocketAddr,
    /// Where the media go if not to the candidate of the answer: the plain loop does not serve HTTP
    /// and changes no answers, so its clients ask the origin and are told this way.
    pub media_via: Option<SocketAddr>,
}

enum Kind {
    Ringway { _relay: Box<Relay> },
    Loop { _relay: Baseline },
}

impl Subject {
    /// Starts it on kernel-chosen loopback ports with its shard on `cpu` and `origin` as its only
    /// origin. Everything else Ringway does stays away from that CPU, if there is another. The plain
    /// loop relays one protocol: SRT, unless the origin has WebRTC alone.
    ///
    /// # Errors
    /// The relay does not start, for the reason it gives.
    pub fn start(engine: Engine, origin: Endpoints, cpu: usize) -> anyhow::Result<Self> {
        let choice = match engine {
            Engine::Auto => EngineChoice::Auto,
            Engine::Uring => EngineChoice::Uring,
            Engine::Mmsg => EngineChoice::Mmsg,
            Engine::TokioUring => EngineChoice::TokioUring,
            Engine::Loop => return Self::start_loop(origin, cpu),
        };
        let relay =
            Relay::start(config(choice, origin, cpu), Signals::Ignored).context("start Ringway")?;
        let shard = relay.shards().first().context("Ringway runs without a shard")?;
        let address = relay.srt_address().context("Ringway does not listen for SRT")?;
        let (tid, system) = (shard.tid, relay.system_address());
        let (webrtc, engine) = (webrtc_entrance(&relay), relay.engine());
        let relay = Kind::Ringway { _relay: Box::new(relay) };
        Ok(Self { address, webrtc, tid, engine, system, _relay: relay })
    }

    fn start_loop(origin: Endpoints, cpu: usize) -> anyhow::Result<Self> {
        let port = origin.srt.or(origin.rtc).context("the origin has no port to relay to")?;
        let media = SocketAddr::new(origin.ip, port);
        let relay = Baseline::start(ANY, media, Some(cpu)).context("start the plain loop")?;
        let (address, tid) = (relay.address(), relay.tid());
        let webrtc = origin.api.filter(|_| origin.srt.is_none()).map(|api| WebrtcEntrance {
            http: SocketAddr::new(origin.ip, api),
            media_via: Some(address),
        });
        let relay = Kind::Loop { _relay: relay };
        Ok(Self { address, webrtc, tid, engine: "plain loop", system: None, _relay: relay })
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
    /// What came after `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { datagrams: self.datagrams - before.datagrams, sends: self.sends - before.sends }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { datagrams: self.datagrams + other.datagrams, sends: self.sends + other.sends }
    }

    /// Datagrams per send.
    #[must_use]
    pub fn per_send(self) -> f64 {
        self.datagrams / self.sends.max(1.0)
    }
}

/// Where a relay takes WebRTC clients.
fn webrtc_entrance(relay: &Relay) -> Option<WebrtcEntrance> {
    relay.webrtc_address()?;
    Some(WebrtcEntrance { http: relay.http_address()?, media_via: None })
}

fn config(engine: EngineChoice, origin: Endpoints, cpu: usize) -> Config {
    let others = measure::allowed_cpus().into_iter().find(|other| *other != cpu);
    Config {
        srt_listen: Listen::At(ANY),
        webrtc_listen: Listen::At(ANY),
        http_listen: Listen::At(ANY),
        system_listen: Listen::At(ANY),
        origins: vec![StaticOrigin {
            srt: origin.srt,
            rtc: origin.rtc,
            api: origin.api,
            ..StaticOrigin::at("emulator", origin.ip)
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
        assert!((after.since(before).per_send() - 32.0).abs() < f64::EPSILON);
    }
}
