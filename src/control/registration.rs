//! What an origin says about itself, and which of it is believed.
//!
//! The body is the one that SRS posts as its heartbeat. Whoever registers an address receives other
//! people's streams, so the address is checked against the allowed networks before anything else
//! hears of it. No I/O here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use ipnet::IpNet;
use serde_json::{Map, Value};

/// An origin as it announces itself, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The address of all its endpoints. Never an IPv4-mapped one.
    pub ip: IpAddr,
    /// Stable across restarts, but not unique: two origins on one host may share it.
    pub server: String,
    /// Changes at every restart.
    pub service: String,
    /// Process ID, as text.
    pub pid: String,
    /// A label.
    pub device_id: Option<String>,
    /// Where it listens.
    pub endpoints: Endpoints,
}

impl Registration {
    /// Reads the body of a registration that came from `peer`.
    ///
    /// Unknown members are ignored, so that newer origins may say more.
    ///
    /// # Errors
    /// Names the member, its value, the bound that it breaks and what to send instead.
    pub fn parse(body: &[u8], peer: IpAddr, allowed: &[IpNet]) -> Result<Self, RegistrationError> {
        let members: Map<String, Value> = serde_json::from_slice(body)
            .map_err(|source| RegistrationError::NotAnObject { reason: source.to_string() })?;
        let ip = announced_ip(&mandatory(&members, "ip")?)?;
        check_ip(ip, peer, allowed)?;
        let endpoints = Endpoints {
            rtmp: endpoint_list(&members, "rtmp")?,
            http: endpoint_list(&members, "http")?,
            api: endpoint_list(&members, "api")?,
            srt: endpoint_list(&members, "srt")?,
            rtc: endpoint_list(&members, "rtc")?,
        };
        if endpoints.rtmp.is_empty() {
            return Err(RegistrationError::NoRtmp);
        }
        Ok(Self {
            ip,
            server: mandatory(&members, "server")?,
            service: mandatory(&members, "service")?,
            pid: mandatory(&members, "pid")?,
            device_id: text(&members, "device_id")?,
            endpoints,
        })
    }
}

/// The endpoints of an origin, by protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// RTMP.
    pub rtmp: Vec<Endpoint>,
    /// HTTP streaming.
    pub http: Vec<Endpoint>,
    /// HTTP API.
    pub api: Vec<Endpoint>,
    /// SRT.
    pub srt: Vec<Endpoint>,
    /// WebRTC media.
    pub rtc: Vec<Endpoint>,
}

impl Endpoints {
    /// The port of the first endpoint that SRT callers can use.
    pub fn srt_port(&self) -> Option<u16> {
        first_port(&self.srt, &[Scheme::Udp, Scheme::Srt])
    }

    /// The port of the first endpoint that takes media over UDP. Newer SRS may name TCP first.
    pub fn rtc_port(&self) -> Option<u16> {
        first_port(&self.rtc, &[Scheme::Udp])
    }

    /// The port of the first endpoint that takes plain HTTP requests.
    pub fn api_port(&self) -> Option<u16> {
        first_port(&self.api, &[Scheme::Http, Scheme::Tcp])
    }
}

/// Where no scheme is given, it is the usual one.
fn first_port(endpoints: &[Endpoint], schemes: &[Scheme]) -> Option<u16> {
    let is_usable =
        |endpoint: &&Endpoint| endpoint.scheme.is_none_or(|scheme| schemes.contains(&scheme));
    endpoints.iter().find(is_usable).map(|endpoint| endpoint.port.get())
}

/// One endpoint. The address inside it is not kept: origins write the one they bind, which is
/// mostly `0.0.0.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What stands before the first colon, where something does.
    pub scheme: Option<Scheme>,
    /// UDP or TCP port.
    pub port: NonZeroU16,
}

impl Endpoint {
    /// Reads `port`, `:port`, `ip:port`, `[v6]:port`, each also behind `proto://`, and the old
    /// `proto:ip:port`.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(Scheme::parse(scheme)?), rest),
            None => match text.split_once(':') {
                Some((scheme, rest)) if rest.contains(':') && Scheme::parse(scheme).is_some() => {
                    (Scheme::parse(scheme), rest)
                }
                _ => (None, text),
            },
        };
        let port = match rest.rsplit_once(':') {
            Some((host, port)) => {
                let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
                    Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
                    None => host.is_empty() || host.parse::<Ipv4Addr>().is_ok(),
                };
                if !is_host {
                    return None;
                }
                port
            }
            None => rest,
        };
        // `parse` would take a leading plus sign.
        let port = port.bytes().all(|byte| byte.is_ascii_digit()).then_some(port)?;
        Some(Self { scheme, port: port.parse().ok()? })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Some(scheme) => write!(f, "{}://:{}", scheme.as_str(), self.port),
            None => write!(f, "{}", self.port),
        }
    }
}

/// What an endpoint may begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `udp`
    Udp,
    /// `tcp`
    Tcp,
    /// `http`
    Http,
    /// `https`
    Https,
    /// `srt`
    Srt,
}

impl Scheme {
    fn parse(text: &str) -> Option<Self> {
        [Self::Udp, Self::Tcp, Self::Http, Self::Https, Self::Srt]
            .into_iter()
            .find(|scheme| scheme.as_str().eq_ignore_ascii_case(text))
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Https => "https",
            Self::Srt => "srt",
        }
    }
}

/// Why a registration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// Not JSON, or not an object.
    #[error("the body is not a JSON object ({reason}): post what SRS posts as its heartbeat")]
    NotAnObject {
        /// In the parser's words.
        reason: String,
    },
    /// A mandatory member.
    #[error("`{member}` is missing or empty: send a string of 1 to {TEXT_MAX} bytes")]
    Missing {
        /// Which.
        member: &'static str,
    },
    /// A member of another JSON type.
    #[error("`{member}` is {value}: send {expected}")]
    WrongType {
        /// Which.
        member: &'static str,
        /// What came, cut short.
        value: String,
        /// What is read.
        expected: &'static str,
    },
    /// A string above its maximum.
    #[error("`{member}` has {length} bytes: send at most {TEXT_MAX}")]
    TooLong {
        /// Which.
        member: &'static str,
        /// Bytes.
        length: usize,
    },
    /// A string that would garble logs and labels.
    #[error("`{member}` is {value}, with a control character in it: send printable text")]
    ControlCharacter {
        /// Which.
        member: &'static str,
        /// What came, escaped.
        value: String,
    },
    /// `rtmp` is the one list that every origin has.
    #[error(
        "`rtmp` is missing or empty: send 1 to {ENDPOINTS_MAX} endpoints (SRS: heartbeat.ports on)"
    )]
    NoRtmp,
    /// A list above its maximum.
    #[error("`{member}` has {count} endpoints: send at most {ENDPOINTS_MAX}")]
    TooManyEndpoints {
        /// Which.
        member: &'static str,
        /// Entries.
        count: usize,
    },
    /// An entry in no known form.
    #[error(
        "`{member}` holds {value}, which is no endpoint: send a port from 1 to 65535, \
         alone or as in \"10.0.0.5:10080\" or \"udp://0.0.0.0:10080\""
    )]
    Endpoint {
        /// Which list.
        member: &'static str,
        /// What came, cut short.
        value: String,
    },
    /// A host name, or nothing of the kind.
    #[error("`ip` is {value}, which is no IP address: send a literal, not a name")]
    NotAnAddress {
        /// What came, cut short.
        value: String,
    },
    /// An address that no origin can have.
    #[error(
        "`ip` is {ip}, {kind}: announce the unicast address at which this relay reaches the origin \
         (SRS: SRS_DEVICE_IP or stats.network)"
    )]
    Unusable {
        /// What came, without its IPv4-mapped wrapping.
        ip: IpAddr,
        /// What it is.
        kind: &'static str,
    },
    /// A loopback address is this host's own, and only it may announce one.
    #[error(
        "`ip` is {ip}, a loopback address, but the request came from {peer}: announce the address \
         at which this relay reaches the origin"
    )]
    LoopbackFromAfar {
        /// What came.
        ip: IpAddr,
        /// Who said so.
        peer: IpAddr,
    },
    /// Outside the allowed networks.
    #[error(
        "`ip` is {ip}, which is in none of the allowed networks: allow it with --allow-origins"
    )]
    NotAllowed {
        /// What came.
        ip: IpAddr,
    },
}

/// The networks whose addresses may be registered: what was configured, else loopback and the
/// private ranges (RFC 1918, RFC 4193).
pub fn allowed_networks(configured: &[IpNet]) -> Vec<IpNet> {
    if !configured.is_empty() {
        return configured.to_vec();
    }
    PRIVATE_NETWORKS.iter().filter_map(|network| network.parse().ok()).collect()
}

/// Whether `ip` lies in one of `networks`. `ip` is not IPv4-mapped.
pub fn is_allowed(ip: IpAddr, networks: &[IpNet]) -> bool {
    networks.iter().any(|network| network.contains(&ip))
}

fn announced_ip(text: &str) -> Result<IpAddr, RegistrationError> {
    let ip: IpAddr = text
        .parse()
        .map_err(|_| RegistrationError::NotAnAddress { value: shown(&Value::from(text)) })?;
    Ok(ip.to_canonical())
}

fn check_ip(ip: IpAddr, peer: IpAddr, allowed: &[IpNet]) -> Result<(), RegistrationError> {
    if let Some(kind) = unusable_kind(ip) {
        return Err(RegistrationError::Unusable { ip, kind });
    }
    if ip.is_loopback() && !peer.is_loopback() {
        return Err(RegistrationError::LoopbackFromAfar { ip, peer });
    }
    if !is_allowed(ip, allowed) {
        return Err(RegistrationError::NotAllowed { ip });
    }
    Ok(())
}

/// What makes `ip` unfit for an origin, whatever the configuration allows.
fn unusable_kind(ip: IpAddr) -> Option<&'static str> {
    let is_link_local = match ip {
        // 169.254.169.254 is where clouds keep their credentials.
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if ip.is_unspecified() {
        Some("the unspecified address")
    } else if ip.is_multicast() {
        Some("a multicast address")
    } else if ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Some("the broadcast address")
    } else if is_link_local {
        Some("a link-local address")
    } else {
        None
    }
}

fn mandatory(
    members: &Map<String, Value>,
    member: &'static str,
) -> Result<String, RegistrationError> {
    text(members, member)?.ok_or(RegistrationError::Missing { member })
}

/// A string member; `None` where it is absent, null or empty.
fn text(
    members: &Map<String, Value>,
    member: &'static str,
) -> Result<Option<String>, RegistrationError> {
    let value = match members.get(member) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value,
    };
    let Value::String(text) = value else {
        return Err(RegistrationError::WrongType {
            member,
            value: shown(value),
            expected: "a string",
        });
    };
    if text.len() > TEXT_MAX {
        return Err(RegistrationError::TooLong { member, length: text.len() });
    }
    if text.chars().any(char::is_control) {
        return Err(RegistrationError::ControlCharacter { member, value: shown(value) });
    }
    Ok((!text.is_empty()).then(|| text.clone()))
}

fn endpoint_list(
    members: &Map<String, Value>,
    member: &'static str,
) -> Result<Vec<Endpoint>, RegistrationError> {
    let value = match members.get(member) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(value) => value,
    };
    let Value::Array(entries) = value else {
        return Err(RegistrationError::WrongType {
            member,
            value: shown(value),
            expected: "an array of strings",
        });
    };
    if entries.len() > ENDPOINTS_MAX {
        return Err(RegistrationError::TooManyEndpoints { member, count: entries.len() });
    }
    entries
        .iter()
        .map(|entry| {
            entry
                .as_str()
                .and_then(Endpoint::parse)
                .ok_or_else(|| RegistrationError::Endpoint { member, value: shown(entry) })
        })
        .collect()
}

/// A value as JSON, so that nothing in it can break a log line, and cut so that an error stays
/// readable.
fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(SHOWN_MAX) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// Bytes of a registration's body.
pub const BODY_MAX: usize = 64 * 1024;
/// Bytes of one string member.
pub const TEXT_MAX: usize = 128;
/// Entries of one list of endpoints.
pub const ENDPOINTS_MAX: usize = 16;
/// Characters of a value that an error repeats.
const SHOWN_MAX: usize = 64;
const PRIVATE_NETWORKS: [&str; 6] =
    ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"];

#[cfg(test)]
mod tests;
