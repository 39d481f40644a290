//! What the process runs with.
//!
//! [`Config`] holds values that are ready for use, and its `Default` is the documentation of the
//! defaults. How a value is called, read and shown stands in one table, [`settings`]; where values
//! come from and who wins, in [`sources`]. The environment of the process is read there, at one
//! place, and nowhere else.

pub mod dotenv;
pub mod go_proxy;
mod origins;
mod print;
pub mod settings;
pub mod sources;
mod values;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;

pub use sources::{ConfigError, Resolved, Sources, Variables};
pub use values::BadValue;

/// Everything `ringway serve` can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--srt-listen`
    pub srt_listen: Listen,
    /// `--webrtc-listen`
    pub webrtc_listen: Listen,
    /// `--http-listen`
    pub http_listen: Listen,
    /// `--system-listen`
    pub system_listen: Listen,
    /// `--tls-cert` and `--tls-key`, for `--http-listen`; `None`: plain HTTP
    pub tls: Option<TlsFiles>,
    /// `--public-address`: what stands in SDP candidates; empty: the local address of the HTTP connection that asked
    pub public_addresses: Vec<PublicAddress>,
    /// `--trusted-proxies`: whose X-Forwarded-For is believed
    pub trusted_proxies: Vec<IpNet>,
    /// `--origin`, and the Go proxy's `PROXY_DEFAULT_BACKEND_*`
    pub origins: Vec<StaticOrigin>,
    /// `--origin-ttl`
    pub origin_ttl: Duration,
    /// `--origin-check`: how often origins are checked; `None` (typed `off`): never
    pub origin_check: Option<Duration>,
    /// `--balancer`
    pub balancer: BalancerChoice,
    /// `--engine`
    pub engine: EngineChoice,
    /// `--cpus`; `None`: every CPU this process may use
    pub cpus: Option<Vec<usize>>,
    /// `--shards`; `None`: one per CPU
    pub shards: Option<u16>,
    /// `--control-cpu`
    pub control_cpu: Option<usize>,
    /// `--steer`
    pub steer: Steer,
    /// `--gso`
    pub gso: Offload,
    /// `--gro`
    pub gro: Offload,
    /// `--batch-wait`: how long datagrams may be gathered while that pays; `None` (typed `off`):
    /// none waits
    pub batch_wait: Option<Duration>,
    /// `--client-sockets`: clients of the process that may have sockets of their own; 0: none
    pub client_sockets: u16,
    /// `--api-token`
    pub api_token: Option<SecretString>,
    /// `--register-token`
    pub register_token: Option<SecretString>,
    /// `--allow-origins`: who may be registered, and from where; loopback and the private ranges by
    /// default
    pub allow_origins: Vec<IpNet>,
    /// `--srt-key-length`
    pub srt_key_length: KeyLength,
    /// `--srt-default-stream`: `app/stream` of callers without a stream ID; `None` (typed `off`)
    /// refuses them
    pub srt_default_stream: Option<String>,
    /// `--cluster-secret`; `None`: random per process
    pub cluster_secret: Option<SecretString>,
    /// `--vhosts`
    pub vhosts: Vec<String>,
    /// `--sessions-max`, per process; `None`: the smaller of 65,536 and what the descriptor limit
    /// allows
    pub sessions_max: Option<u32>,
    /// `--pending-max`, per process
    pub pending_max: u32,
    /// `--pending-per-source`, per process
    pub pending_per_source: u32,
    /// `--sessions-per-source`, per process
    pub sessions_per_source: u32,
    /// `--new-per-source`: sessions per second; the burst is 2.5 seconds' worth
    pub new_per_source: u32,
    /// `--http-per-source`: WHIP and WHEP requests of one client
    pub http_per_source: HttpRate,
    /// `--induction-rate`: per second, for all callers together and for one /24 or /48
    pub induction_rate: InductionRate,
    /// `--srt-idle-timeout`
    pub srt_idle_timeout: Duration,
    /// `--webrtc-idle-timeout`
    pub webrtc_idle_timeout: Duration,
    /// `--webrtc-direct`: clients without signalling may become sessions
    pub webrtc_direct: bool,
    /// `--origin-setup-timeout`
    pub origin_setup_timeout: Duration,
    /// `--log`
    pub log: String,
    /// `--log-format`
    pub log_format: LogFormat,
    /// `--grace-quit-timeout`
    pub grace_quit_timeout: Duration,
    /// `PROXY_FORCE_QUIT_TIMEOUT`, `--force-quit-timeout`: the process ends this long after the
    /// first signal at the latest
    pub force_quit_timeout: Duration,
}

impl Config {
    /// What SDP candidates say while WebRTC listens on `webrtc`. Empty where it is the local address
    /// of the HTTP connection that asks, with the port of `webrtc`.
    pub fn candidates(&self, webrtc: SocketAddr) -> Vec<SocketAddr> {
        if self.public_addresses.is_empty() {
            let ip = webrtc.ip().to_canonical();
            let is_one = !ip.is_unspecified();
            return is_one.then(|| SocketAddr::new(ip, webrtc.port())).into_iter().collect();
        }
        let candidate = |address: &PublicAddress| {
            SocketAddr::new(address.ip, address.port.unwrap_or(webrtc.port()))
        };
        self.public_addresses.iter().map(candidate).collect()
    }
}

/// A line for the log at start: something that was accepted and does not do what its name promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice(String);

impl Notice {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Not at all.
    Off,
    /// All interfaces, IPv4 and IPv6, on this port.
    All(u16),
    /// This address. Port 0 lets the kernel choose.
    At(SocketAddr),
}

impl Listen {
    /// Whether a datagram could be for both. An unspecified IPv6 address takes IPv4, too; two ports
    /// that the kernel chooses are never the same.
    fn overlaps(self, other: Self) -> bool {
        let (Some(one), Some(other)) = (self.widest(), other.widest()) else {
            return false;
        };
        let takes = |all: SocketAddr, some: SocketAddr| {
            all.ip().is_unspecified() && (all.is_ipv6() || some.is_ipv4())
        };
        one.port() == other.port()
            && one.port() != 0
            && (one.ip() == other.ip() || takes(one, other) || takes(other, one))
    }

    fn widest(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::All(port) => Some((Ipv6Addr::UNSPECIFIED, port).into()),
            Self::At(address) => Some(address),
        }
    }
}

/// `name=a,ip=10.0.0.5,srt=10080,rtc=8000,api=1985`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticOrigin {
    /// `name=`; default: the IP address
    pub name: String,
    /// `ip=`
    pub ip: IpAddr,
    /// `srt=`
    pub srt: Option<u16>,
    /// `rtc=`
    pub rtc: Option<u16>,
    /// `api=`
    pub api: Option<u16>,
    /// `path=`: of its WHIP and WHEP endpoints; `None`: SRS's. In it `{app}` and `{stream}` stand
    /// for the stream's, `{path}` for both with a slash between them, and `{kind}` for `whip` or
    /// `whep`.
    pub path: Option<String>,
    /// `host=`
    pub host: HostHeader,
    /// `direct=`: the UDP port for clients without signalling
    pub direct: Option<u16>,
    /// `capacity=`: sessions from which on it gets no new streams
    pub capacity: Option<u32>,
}

impl StaticOrigin {
    /// An origin without endpoints.
    pub fn at(name: &str, ip: IpAddr) -> Self {
        Self {
            name: name.to_owned(),
            ip,
            srt: None,
            rtc: None,
            api: None,
            path: None,
            host: HostHeader::default(),
            direct: None,
            capacity: None,
        }
    }
}

/// `host=client|origin`: what the Host header of a request to an origin says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// What the client's said: SRS takes the vhost from it.
    #[default]
    Client,
    /// The origin's own address.
    Origin,
}

/// `--tls-cert`, `--tls-key`: PEM files. A path that is empty is one that is not set, which a
/// [`Resolved`] configuration never holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `--public-address`: an IP address, with a port where a NAT maps `--webrtc-listen` to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicAddress {
    /// What clients send to.
    pub ip: IpAddr,
    /// `None`: the port of `--webrtc-listen`.
    pub port: Option<u16>,
}

/// `--http-per-source`: requests per second and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpRate {
    /// In the long run.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

/// `--balancer`: how an origin is chosen for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalancerChoice {
    /// By what this relay alone knows.
    Memory,
}

/// What the user may write for `--engine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// The best that runs here.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// recvmmsg and sendmmsg.
    Mmsg,
    /// The reference engine under the tokio-uring crate, or nothing.
    TokioUring,
}

/// How the kernel chooses a shard for a client's datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// By the client's address and port: it stays where it is.
    Hash,
    /// The shard of the CPU that took the packet.
    Cpu,
}

/// `--gso`, `--gro`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Where the kernel has it.
    Auto,
    /// Or do not start.
    On,
    /// Never.
    Off,
}

/// What induction responses advertise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyLength {
    /// What the live SRT origins answer.
    Auto,
    /// This many bytes: 0, 16, 24 or 32.
    Bytes(u8),
}

/// Induction responses per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InductionRate {
    /// All callers together.
    pub total: u32,
    /// One /24 (IPv4) or /48 (IPv6).
    pub per_prefix: u32,
}

/// `--log-format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for a person.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            srt_listen: Listen::All(20080),
            webrtc_listen: Listen::All(18000),
            http_listen: Listen::All(11985),
            system_listen: Listen::At(SocketAddr::from(([127, 0, 0, 1], 12025))),
            tls: None,
            public_addresses: Vec::new(),
            trusted_proxies: Vec::new(),
            origins: Vec::new(),
            origin_ttl: Duration::from_secs(300),
            origin_check: Some(Duration::from_secs(5)),
            balancer: BalancerChoice::Memory,
            engine: EngineChoice::Auto,
            cpus: None,
            shards: None,
            control_cpu: None,
            steer: Steer::Hash,
            gso: Offload::Auto,
            gro: Offload::Auto,
            batch_wait: None,
            client_sockets: 128,
            api_token: None,
            register_token: None,
            allow_origins: loopback_and_private(),
            srt_key_length: KeyLength::Auto,
            srt_default_stream: Some("live/livestream".to_owned()),
            cluster_secret: None,
            vhosts: Vec::new(),
            sessions_max: None,
            pending_max: 10_000,
            pending_per_source: 64,
            sessions_per_source: 1_024,
            new_per_source: 200,
            http_per_source: HttpRate { per_second: 100, burst: 1_000 },
            induction_rate: InductionRate { total: 200_000, per_prefix: 20_000 },
            srt_idle_timeout: Duration::from_secs(15),
            webrtc_idle_timeout: Duration::from_secs(30),
            webrtc_direct: false,
            origin_setup_timeout: Duration::from_secs(2),
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            grace_quit_timeout: Duration::from_secs(20),
            force_quit_timeout: Duration::from_secs(30),
        }
    }
}

/// Loopback, and what RFC 1918 and RFC 4193 set aside for private networks.
fn loopback_and_private() -> Vec<IpNet> {
    [
        (IpAddr::from([127, 0, 0, 0]), 8),
        (IpAddr::from([10, 0, 0, 0]), 8),
        (IpAddr::from([172, 16, 0, 0]), 12),
        (IpAddr::from([192, 168, 0, 0]), 16),
        (IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16]), 128),
        (IpAddr::from([0xfc00, 0, 0, 0, 0, 0, 0, 0_u16]), 7),
    ]
    .map(|(address, prefix)| IpNet::new_assert(address, prefix))
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(public: &[(&str, Option<u16>)], webrtc: &str) -> Vec<String> {
        let public =
            public.iter().map(|(ip, port)| PublicAddress { ip: ip.parse().unwrap(), port: *port });
        let config = Config { public_addresses: public.collect(), ..Config::default() };
        config.candidates(webrtc.parse().unwrap()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn public_addresses_become_candidates_with_the_listeners_port_unless_they_have_their_own() {
        let public = [("198.51.100.7", None), ("2001:db8::7", Some(443))];
        assert_eq!(candidates(&public, "[::]:18000"), ["198.51.100.7:18000", "[2001:db8::7]:443"]);
    }

    #[test]
    fn without_public_addresses_a_listener_on_one_address_is_the_candidate() {
        assert_eq!(candidates(&[], "10.0.0.1:18000"), ["10.0.0.1:18000"]);
        assert_eq!(candidates(&[], "[::]:18000"), [""; 0]);
        assert_eq!(candidates(&[], "0.0.0.0:18000"), [""; 0]);
    }
}
