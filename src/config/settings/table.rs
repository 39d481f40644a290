//! The entries, a row for each setting.

use std::path::Path;
use std::time::Duration;

use secrecy::SecretString;

use super::{Group, Setting};
use crate::config::values::{self, BadValue, MASK};
use crate::config::{
    BalancerChoice, Config, EngineChoice, KeyLength, LogFormat, Offload, Steer, TlsFiles, origins,
};

/// What most entries have in common.
const PLAIN: Setting = Setting {
    name: "",
    variable: "",
    value: "",
    group: Group::Admin,
    help: "",
    unset: "",
    separator: None,
    alone: None,
    is_secret: false,
    read: |_, _| Ok(()),
    show: |_| None,
};

/// Every setting, in the order of `--help`.
pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "srt-listen",
        variable: "PROXY_SRT_SERVER",
        value: "ENDPOINT",
        group: Group::Listen,
        help: "Where SRT callers connect (UDP).",
        read: |config, text| set(&mut config.srt_listen, values::listen(text)),
        show: |config| Some(values::show_listen(config.srt_listen)),
        ..PLAIN
    },
    Setting {
        name: "webrtc-listen",
        variable: "PROXY_WEBRTC_SERVER",
        value: "ENDPOINT",
        group: Group::Listen,
        help: "Where WebRTC clients send their media (UDP).",
        read: |config, text| set(&mut config.webrtc_listen, values::listen(text)),
        show: |config| Some(values::show_listen(config.webrtc_listen)),
        ..PLAIN
    },
    Setting {
        name: "http-listen",
        variable: "PROXY_HTTP_API",
        value: "ENDPOINT",
        group: Group::Listen,
        help: "The HTTP API for clients (TCP): WHIP and WHEP, and the older API of SRS.",
        read: |config, text| set(&mut config.http_listen, values::listen(text)),
        show: |config| Some(values::show_listen(config.http_listen)),
        ..PLAIN
    },
    Setting {
        name: "system-listen",
        variable: "PROXY_SYSTEM_API",
        value: "ENDPOINT",
        group: Group::Listen,
        help: "Registration of origins, metrics and administration (TCP). Origins on other hosts \
               need an address that they reach, such as :12025.",
        read: |config, text| set(&mut config.system_listen, values::listen(text)),
        show: |config| Some(values::show_listen(config.system_listen)),
        ..PLAIN
    },
    Setting {
        name: "srt-default-stream",
        variable: "RINGWAY_SRT_DEFAULT_STREAM",
        value: "APP/STREAM",
        group: Group::Listen,
        help: "The stream of SRT callers that send no stream ID; off refuses them.",
        read: |config, text| set(&mut config.srt_default_stream, values::default_stream(text)),
        show: |config| Some(config.srt_default_stream.clone().unwrap_or_else(|| "off".to_owned())),
        ..PLAIN
    },
    Setting {
        name: "srt-key-length",
        variable: "RINGWAY_SRT_KEY_LENGTH",
        value: "LENGTH",
        group: Group::Listen,
        help: "The encryption key length that SRT callers are offered, in bytes: auto (what the \
               live origins answer), 0, 16, 24 or 32.",
        read: |config, text| set(&mut config.srt_key_length, values::word(text, KEY_LENGTHS)),
        show: |config| Some(values::show_word(config.srt_key_length, KEY_LENGTHS)),
        ..PLAIN
    },
    Setting {
        name: "public-address",
        variable: "RINGWAY_PUBLIC_ADDRESS",
        value: "ADDRESS",
        group: Group::WebRtc,
        help: "Where WebRTC clients are told to send their media: an IP address, with a port behind \
               a NAT that maps it (198.51.100.7, 198.51.100.7:18000, [2001:db8::7]:18000). \
               Repeatable; in the variable several are separated by commas.",
        unset: "the address that the client's HTTP request came to",
        separator: Some(','),
        read: |config, text| set(&mut config.public_addresses, values::public_addresses(text)),
        show: |config| join(config.public_addresses.iter().map(values::show_public_address), ","),
        ..PLAIN
    },
    Setting {
        name: "webrtc-direct",
        variable: "RINGWAY_WEBRTC_DIRECT",
        value: "WHEN",
        group: Group::WebRtc,
        help: "on or off: whether clients that come without signalling are relayed, to an origin \
               that has direct=. The flag alone means on.",
        alone: Some("on"),
        read: |config, text| set(&mut config.webrtc_direct, values::word(text, SWITCH)),
        show: |config| Some(values::show_word(config.webrtc_direct, SWITCH)),
        ..PLAIN
    },
    Setting {
        name: "tls-cert",
        variable: "RINGWAY_TLS_CERT",
        value: "FILE",
        group: Group::WebRtc,
        help: "The certificate of --http-listen, with its chain behind it (PEM). It is read again \
               when it changes.",
        unset: "none: plain HTTP",
        read: |config, text| {
            values::file(text).map(|file| config.tls.get_or_insert_default().cert = file)
        },
        show: |config| show_file(config, |files| &files.cert),
        ..PLAIN
    },
    Setting {
        name: "tls-key",
        variable: "RINGWAY_TLS_KEY",
        value: "FILE",
        group: Group::WebRtc,
        help: "The private key of that certificate (PEM).",
        unset: "none: plain HTTP",
        read: |config, text| {
            values::file(text).map(|file| config.tls.get_or_insert_default().key = file)
        },
        show: |config| show_file(config, |files| &files.key),
        ..PLAIN
    },
    Setting {
        name: "trusted-proxies",
        variable: "RINGWAY_TRUSTED_PROXIES",
        value: "NETWORKS",
        group: Group::WebRtc,
        help: "Networks of HTTP proxies in front of --http-listen, whose X-Forwarded-For is \
               believed.",
        unset: "none",
        separator: Some(','),
        read: |config, text| set(&mut config.trusted_proxies, values::networks(text)),
        show: |config| join(config.trusted_proxies.iter().map(ToString::to_string), ","),
        ..PLAIN
    },
    Setting {
        name: "origin",
        variable: "RINGWAY_ORIGINS",
        value: "ORIGIN",
        group: Group::Origins,
        help: "An origin that does not register: name=a,ip=10.0.0.5,srt=10080,rtc=8000,api=1985; \
               only ip has to be there. Also for registered ones, by name or ip: \
               path=/{path}/{kind} ({app}, {stream}), host=client|origin, direct=PORT, \
               capacity=SESSIONS. Repeatable; the variable takes semicolons.",
        unset: "none",
        separator: Some(';'),
        read: |config, text| set(&mut config.origins, origins::origins(text)),
        show: |config| join(config.origins.iter().map(origins::show_origin), ";"),
        ..PLAIN
    },
    Setting {
        name: "origin-ttl",
        variable: "PROXY_ORIGIN_SERVER_TTL",
        value: "DURATION",
        group: Group::Origins,
        help: "A registered origin that is silent for this long gets no new streams.",
        read: |config, text| set(&mut config.origin_ttl, values::duration(text, MILLISECOND, YEAR)),
        show: |config| Some(values::show_duration(config.origin_ttl)),
        ..PLAIN
    },
    Setting {
        name: "origin-check",
        variable: "RINGWAY_ORIGIN_CHECK",
        value: "DURATION",
        group: Group::Origins,
        help: "Check every origin so often, or off: its SRT listener and its HTTP API.",
        read: |config, text| set(&mut config.origin_check, values::origin_check(text)),
        show: |config| Some(values::show_duration_or_off(config.origin_check)),
        ..PLAIN
    },
    Setting {
        name: "balancer",
        variable: "PROXY_LOAD_BALANCER_TYPE",
        value: "KIND",
        group: Group::Origins,
        help: "How an origin is chosen: memory (by what this relay alone knows).",
        read: |config, text| set(&mut config.balancer, balancer(text)),
        show: |config| Some(values::show_word(config.balancer, BALANCERS)),
        ..PLAIN
    },
    Setting {
        name: "allow-origins",
        variable: "RINGWAY_ALLOW_ORIGINS",
        value: "NETWORKS",
        group: Group::Origins,
        help: "Networks that origins may register from and be registered in.",
        separator: Some(','),
        read: |config, text| set(&mut config.allow_origins, values::networks(text)),
        show: |config| join(config.allow_origins.iter().map(ToString::to_string), ","),
        ..PLAIN
    },
    Setting {
        name: "register-token",
        variable: "RINGWAY_REGISTER_TOKEN",
        value: "TOKEN",
        group: Group::Origins,
        help: "Registration then takes Authorization: Bearer TOKEN only; SRS sends none.",
        unset: "none: whoever is inside --allow-origins may register",
        is_secret: true,
        read: |config, text| set(&mut config.register_token, values::secret(text).map(Some)),
        show: |config| mask(config.register_token.as_ref()),
        ..PLAIN
    },
    Setting {
        name: "vhosts",
        variable: "RINGWAY_VHOSTS",
        value: "NAMES",
        group: Group::Origins,
        help: "Host names that count as virtual hosts, separated by commas.",
        unset: "none: all in one virtual host",
        separator: Some(','),
        read: |config, text| set(&mut config.vhosts, values::host_names(text)),
        show: |config| join(config.vhosts.iter().cloned(), ","),
        ..PLAIN
    },
    Setting {
        name: "engine",
        variable: "RINGWAY_ENGINE",
        value: "ENGINE",
        group: Group::Engine,
        help: "auto takes uring (io_uring) where it runs, else mmsg (recvmmsg and sendmmsg). \
               tokio-uring is there to compare with. What is named here runs or does not start.",
        read: |config, text| set(&mut config.engine, values::word(text, ENGINES)),
        show: |config| Some(values::show_word(config.engine, ENGINES)),
        ..PLAIN
    },
    Setting {
        name: "cpus",
        variable: "RINGWAY_CPUS",
        value: "LIST",
        group: Group::Engine,
        help: "CPUs for the shards, such as 0-3,8: one shard for each, pinned to it.",
        unset: "every CPU this process may use",
        separator: Some(','),
        read: |config, text| set(&mut config.cpus, values::cpu_list(text).map(Some)),
        show: |config| config.cpus.as_deref().map(values::show_cpu_list),
        ..PLAIN
    },
    Setting {
        name: "shards",
        variable: "RINGWAY_SHARDS",
        value: "NUMBER",
        group: Group::Engine,
        help: "Threads that carry media, 256 at most.",
        unset: "one per CPU",
        read: |config, text| set(&mut config.shards, values::number(text, 1, SHARDS_MAX).map(Some)),
        show: |config| config.shards.map(|shards| shards.to_string()),
        ..PLAIN
    },
    Setting {
        name: "control-cpu",
        variable: "RINGWAY_CONTROL_CPU",
        value: "CPU",
        group: Group::Engine,
        help: "The CPU of the control thread, which serves HTTP and chooses origins.",
        unset: "not pinned",
        read: |config, text| set(&mut config.control_cpu, values::number(text, 0, 1_023).map(Some)),
        show: |config| config.control_cpu.map(|cpu| cpu.to_string()),
        ..PLAIN
    },
    Setting {
        name: "steer",
        variable: "RINGWAY_STEER",
        value: "HOW",
        group: Group::Engine,
        help: "Which shard gets a client: hash (of its address), cpu (of its packets).",
        read: |config, text| set(&mut config.steer, values::word(text, STEERS)),
        show: |config| Some(values::show_word(config.steer, STEERS)),
        ..PLAIN
    },
    Setting {
        name: "gso",
        variable: "RINGWAY_GSO",
        value: "WHEN",
        group: Group::Engine,
        help: "Segment on sending: auto (if the kernel can), on (or do not start), off.",
        read: |config, text| set(&mut config.gso, values::word(text, OFFLOADS)),
        show: |config| Some(values::show_word(config.gso, OFFLOADS)),
        ..PLAIN
    },
    Setting {
        name: "gro",
        variable: "RINGWAY_GRO",
        value: "WHEN",
        group: Group::Engine,
        help: "The same when receiving.",
        read: |config, text| set(&mut config.gro, values::word(text, OFFLOADS)),
        show: |config| Some(values::show_word(config.gro, OFFLOADS)),
        ..PLAIN
    },
    Setting {
        name: "batch-wait",
        variable: "RINGWAY_BATCH_WAIT",
        value: "DURATION",
        group: Group::Engine,
        help: "Gather datagrams for so long (250us), but only while that brings four or more: \
               less CPU for more delay.",
        read: |config, text| set(&mut config.batch_wait, values::batch_wait(text)),
        show: |config| Some(values::show_duration_or_off(config.batch_wait)),
        ..PLAIN
    },
    Setting {
        name: "client-sockets",
        variable: "RINGWAY_CLIENT_SOCKETS",
        value: "NUMBER",
        group: Group::Engine,
        help: "So many of the busiest clients get sockets of their own; 0: none.",
        read: |config, text| {
            set(&mut config.client_sockets, values::number(text, 0, CLIENT_SOCKETS_MAX))
        },
        show: |config| Some(config.client_sockets.to_string()),
        ..PLAIN
    },
    Setting {
        name: "sessions-max",
        variable: "RINGWAY_SESSIONS_MAX",
        value: "NUMBER",
        group: Group::Limits,
        help: "Sessions. Above it new ones are refused and live ones are kept.",
        unset: "the smaller of 65536 and what the descriptor limit allows",
        read: |config, text| {
            set(&mut config.sessions_max, values::number(text, 1, TABLE_MAX).map(Some))
        },
        show: |config| config.sessions_max.map(|sessions| sessions.to_string()),
        ..PLAIN
    },
    Setting {
        name: "pending-max",
        variable: "RINGWAY_PENDING_MAX",
        value: "NUMBER",
        group: Group::Limits,
        help: "SRT handshakes under way. Above it the oldest gives way.",
        read: |config, text| set(&mut config.pending_max, values::number(text, 1, TABLE_MAX)),
        show: |config| Some(config.pending_max.to_string()),
        ..PLAIN
    },
    Setting {
        name: "pending-per-source",
        variable: "RINGWAY_PENDING_PER_SOURCE",
        value: "NUMBER",
        group: Group::Limits,
        help: "SRT handshakes under way of one client.",
        read: |config, text| {
            set(&mut config.pending_per_source, values::number(text, 1, TABLE_MAX))
        },
        show: |config| Some(config.pending_per_source.to_string()),
        ..PLAIN
    },
    Setting {
        name: "sessions-per-source",
        variable: "RINGWAY_SESSIONS_PER_SOURCE",
        value: "NUMBER",
        group: Group::Limits,
        help: "Sessions of one client.",
        read: |config, text| {
            set(&mut config.sessions_per_source, values::number(text, 1, TABLE_MAX))
        },
        show: |config| Some(config.sessions_per_source.to_string()),
        ..PLAIN
    },
    Setting {
        name: "new-per-source",
        variable: "RINGWAY_NEW_PER_SOURCE",
        value: "NUMBER",
        group: Group::Limits,
        help: "New sessions per second of one client; a burst may hold 2.5 seconds' worth.",
        read: |config, text| {
            set(&mut config.new_per_source, values::number(text, 1, values::RATE_MAX))
        },
        show: |config| Some(config.new_per_source.to_string()),
        ..PLAIN
    },
    Setting {
        name: "http-per-source",
        variable: "RINGWAY_HTTP_PER_SOURCE",
        value: "RATE[,BURST]",
        group: Group::Limits,
        help: "WHIP and WHEP requests per second of one client, and at once (ten times the rate if \
               left out).",
        read: |config, text| set(&mut config.http_per_source, values::http_rate(text)),
        show: |config| {
            let rate = config.http_per_source;
            Some(format!("{},{}", rate.per_second, rate.burst))
        },
        ..PLAIN
    },
    Setting {
        name: "induction-rate",
        variable: "RINGWAY_INDUCTION_RATE",
        value: "TOTAL[,PER_PREFIX]",
        group: Group::Limits,
        help: "First SRT handshake packets answered per second: of all callers, and of one IPv4 \
               /24 or IPv6 /48 (a tenth of the total if left out).",
        read: |config, text| set(&mut config.induction_rate, values::induction_rate(text)),
        show: |config| {
            let rate = config.induction_rate;
            Some(format!("{},{}", rate.total, rate.per_prefix))
        },
        ..PLAIN
    },
    Setting {
        name: "srt-idle-timeout",
        variable: "RINGWAY_SRT_IDLE_TIMEOUT",
        value: "DURATION",
        group: Group::Timers,
        help: "An SRT session ends when one of its sides has been silent for this long.",
        read: |config, text| {
            set(&mut config.srt_idle_timeout, values::duration(text, MILLISECOND, DAY))
        },
        show: |config| Some(values::show_duration(config.srt_idle_timeout)),
        ..PLAIN
    },
    Setting {
        name: "webrtc-idle-timeout",
        variable: "RINGWAY_WEBRTC_IDLE_TIMEOUT",
        value: "DURATION",
        group: Group::Timers,
        help: "The same for a WebRTC session.",
        read: |config, text| {
            set(&mut config.webrtc_idle_timeout, values::duration(text, MILLISECOND, DAY))
        },
        show: |config| Some(values::show_duration(config.webrtc_idle_timeout)),
        ..PLAIN
    },
    Setting {
        name: "origin-setup-timeout",
        variable: "RINGWAY_ORIGIN_SETUP_TIMEOUT",
        value: "DURATION",
        group: Group::Timers,
        help: "An origin that has not answered a handshake within this time is a refusal.",
        read: |config, text| {
            set(&mut config.origin_setup_timeout, values::duration(text, MILLISECOND, DAY))
        },
        show: |config| Some(values::show_duration(config.origin_setup_timeout)),
        ..PLAIN
    },
    Setting {
        name: "grace-quit-timeout",
        variable: "PROXY_GRACE_QUIT_TIMEOUT",
        value: "DURATION",
        group: Group::Timers,
        help: "After SIGTERM or SIGINT live sessions may go on for this long; new ones are \
               refused.",
        read: |config, text| {
            set(&mut config.grace_quit_timeout, values::duration(text, Duration::ZERO, DAY))
        },
        show: |config| Some(values::show_duration(config.grace_quit_timeout)),
        ..PLAIN
    },
    Setting {
        name: "force-quit-timeout",
        variable: "PROXY_FORCE_QUIT_TIMEOUT",
        value: "DURATION",
        group: Group::Timers,
        help: "The process ends this long after the first signal at the latest.",
        read: |config, text| {
            set(&mut config.force_quit_timeout, values::duration(text, MILLISECOND, DAY))
        },
        show: |config| Some(values::show_duration(config.force_quit_timeout)),
        ..PLAIN
    },
    Setting {
        name: "api-token",
        variable: "RINGWAY_API_TOKEN",
        value: "TOKEN",
        group: Group::Admin,
        help: "Administration then takes Authorization: Bearer TOKEN, from anywhere.",
        unset: "none: administration answers this host only",
        is_secret: true,
        read: |config, text| set(&mut config.api_token, values::secret(text).map(Some)),
        show: |config| mask(config.api_token.as_ref()),
        ..PLAIN
    },
    Setting {
        name: "cluster-secret",
        variable: "RINGWAY_CLUSTER_SECRET",
        value: "SECRET",
        group: Group::Admin,
        help: "The same on all relays of a fleet: an SRT handshake may then begin at one and end \
               at another.",
        unset: "random for each process",
        is_secret: true,
        read: |config, text| set(&mut config.cluster_secret, values::secret(text).map(Some)),
        show: |config| mask(config.cluster_secret.as_ref()),
        ..PLAIN
    },
    Setting {
        name: "log",
        variable: "RINGWAY_LOG",
        value: "FILTER",
        group: Group::Admin,
        help: "What is logged: error, warn, info, debug, or by module as in \
               info,ringway::control=debug.",
        read: |config, text| set(&mut config.log, log_filter(text)),
        show: |config| Some(config.log.clone()),
        ..PLAIN
    },
    Setting {
        name: "log-format",
        variable: "RINGWAY_LOG_FORMAT",
        value: "FORMAT",
        group: Group::Admin,
        help: "text (a line for a person) or json (an object a line).",
        read: |config, text| set(&mut config.log_format, values::word(text, LOG_FORMATS)),
        show: |config| Some(values::show_word(config.log_format, LOG_FORMATS)),
        ..PLAIN
    },
];

fn set<T>(field: &mut T, value: Result<T, BadValue>) -> Result<(), BadValue> {
    *field = value?;
    Ok(())
}

/// `None` for an empty list.
fn join(items: impl Iterator<Item = String>, separator: &str) -> Option<String> {
    let items: Vec<String> = items.collect();
    (!items.is_empty()).then(|| items.join(separator))
}

fn mask(secret: Option<&SecretString>) -> Option<String> {
    secret.map(|_| MASK.to_owned())
}

/// A file that is set.
fn show_file(config: &Config, file: fn(&TlsFiles) -> &Path) -> Option<String> {
    let path = file(config.tls.as_ref()?);
    (!path.as_os_str().is_empty()).then(|| path.display().to_string())
}

fn balancer(text: &str) -> Result<BalancerChoice, BadValue> {
    if text == "redis" {
        let problem = "asks for Redis, which is not in this version";
        return Err(BadValue::new(text, problem, "memory, or leave it out"));
    }
    values::word(text, BALANCERS)
}

fn log_filter(text: &str) -> Result<String, BadValue> {
    let is_filter = tracing_subscriber::EnvFilter::builder().parse(text).is_ok();
    if text.is_empty() || !is_filter {
        return Err(BadValue::new(
            text,
            "is not a log filter",
            "a level such as info, or levels by module such as info,ringway::control=debug",
        ));
    }
    Ok(text.to_owned())
}

const BALANCERS: &[(&str, BalancerChoice)] = &[("memory", BalancerChoice::Memory)];

const ENGINES: &[(&str, EngineChoice)] = &[
    ("auto", EngineChoice::Auto),
    ("uring", EngineChoice::Uring),
    ("mmsg", EngineChoice::Mmsg),
    ("tokio-uring", EngineChoice::TokioUring),
];

const STEERS: &[(&str, Steer)] = &[("hash", Steer::Hash), ("cpu", Steer::Cpu)];

const OFFLOADS: &[(&str, Offload)] =
    &[("auto", Offload::Auto), ("on", Offload::On), ("off", Offload::Off)];

const SWITCH: &[(&str, bool)] = &[("on", true), ("off", false)];

const KEY_LENGTHS: &[(&str, KeyLength)] = &[
    ("auto", KeyLength::Auto),
    ("0", KeyLength::Bytes(0)),
    ("16", KeyLength::Bytes(16)),
    ("24", KeyLength::Bytes(24)),
    ("32", KeyLength::Bytes(32)),
];

const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Sockets of one `SO_REUSEPORT` group and rings of one process; above it a host has other limits.
pub(in crate::config) const SHARDS_MAX: u16 = 256;

/// Each session has a socket, and 2^20 is the kernel's default for the descriptors of a process
/// (`fs.nr_open`).
const TABLE_MAX: u32 = 1 << 20;

/// The kernel looks at each of them for a datagram of a client that has none: 7 us with so many.
const CLIENT_SOCKETS_MAX: u16 = 1024;

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3_600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
