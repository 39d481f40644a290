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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 9, 2));
    const AS_SRS_POSTS_IT: &[u8] = br#"{"device_id":"origin1","ip":"10.77.9.1","server":"vid-494121g","service":"33z81803","pid":"17907","rtmp":["19351"],"http":["8081"],"api":["19851"],"srt":["udp://0.0.0.0:10081"],"rtc":["udp://0.0.0.0:8001"]}"#;

    fn body() -> Value {
        json!({"ip": "10.0.0.5", "server": "s", "service": "v", "pid": "7", "rtmp": ["1935"]})
    }

    fn parse(body: &Value) -> Result<Registration, RegistrationError> {
        parse_from(body, FAR)
    }

    fn parse_from(body: &Value, peer: IpAddr) -> Result<Registration, RegistrationError> {
        Registration::parse(body.to_string().as_bytes(), peer, &allowed_networks(&[]))
    }

    fn with(member: &str, value: Value) -> Value {
        let mut body = body();
        body[member] = value;
        body
    }

    fn endpoint(scheme: Option<Scheme>, port: u16) -> Option<Endpoint> {
        Some(Endpoint { scheme, port: NonZeroU16::new(port).unwrap() })
    }

    #[test]
    fn the_body_that_srs_posts_is_read() {
        let registration =
            Registration::parse(AS_SRS_POSTS_IT, FAR, &allowed_networks(&[])).unwrap();
        assert_eq!(registration.ip, IpAddr::from([10, 77, 9, 1]));
        assert_eq!(registration.server, "vid-494121g");
        assert_eq!(registration.service, "33z81803");
        assert_eq!(registration.pid, "17907");
        assert_eq!(registration.device_id.as_deref(), Some("origin1"));
        assert_eq!(registration.endpoints.srt_port(), Some(10081));
    }

    #[test]
    fn unknown_members_are_ignored() {
        let body = with("summaries", json!({"data": {"self": {"mem_kbyte": 1}}}));
        assert_eq!(parse(&body).unwrap().server, "s");
    }

    #[test]
    fn optional_lists_may_be_absent_null_or_empty() {
        for value in [Value::Null, json!([])] {
            assert_eq!(parse(&with("srt", value)).unwrap().endpoints.srt_port(), None);
        }
    }

    #[test]
    fn media_over_udp_is_taken_where_udp_is_whatever_stands_first() {
        for (list, port) in [
            (json!(["tcp://0.0.0.0:8000", "udp://0.0.0.0:8001"]), Some(8001)),
            (json!(["udp://8000", "tcp://8001"]), Some(8000)),
            (json!(["8000"]), Some(8000)),
            (json!(["tcp://8000"]), None),
            (json!([]), None),
        ] {
            assert_eq!(parse(&with("rtc", list)).unwrap().endpoints.rtc_port(), port);
        }
    }

    #[test]
    fn an_api_is_asked_where_it_needs_no_tls() {
        let list = json!(["https://1990", "udp://1", "http://0.0.0.0:1985"]);
        assert_eq!(parse(&with("api", list)).unwrap().endpoints.api_port(), Some(1985));
    }

    #[test]
    fn every_endpoint_form_of_every_srs_version_is_read() {
        let udp = Some(Scheme::Udp);
        let table = [
            ("1935", endpoint(None, 1935)),
            (":1935", endpoint(None, 1935)),
            ("127.0.0.1:19851", endpoint(None, 19851)),
            ("[::1]:19851", endpoint(None, 19851)),
            ("udp://10080", endpoint(udp, 10080)),
            ("udp://:10080", endpoint(udp, 10080)),
            ("udp://0.0.0.0:10080", endpoint(udp, 10080)),
            ("UDP://0.0.0.0:10080", endpoint(udp, 10080)),
            ("tcp://[::]:8000", endpoint(Some(Scheme::Tcp), 8000)),
            ("udp:0.0.0.0:8000", endpoint(udp, 8000)),
            ("https://443", endpoint(Some(Scheme::Https), 443)),
            ("srt://:1", endpoint(Some(Scheme::Srt), 1)),
            ("65535", endpoint(None, 65535)),
        ];
        for (text, expected) in table {
            assert_eq!(Endpoint::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_endpoint() {
        let table = [
            "",
            "0",
            "65536",
            "70000",
            "-1",
            "+80",
            " 80",
            "80 ",
            "x",
            "1935/",
            "ftp://21",
            "udp://",
            "udp://:",
            "udp://host:10080",
            "host:1935",
            "::1:1935",
            "[::1]1935",
            "[::1",
            "udp:10080",
            "1.2.3.4",
            "udp://1.2.3.4:0",
            "://80",
            "http://1.2.3.4:80/x",
        ];
        for text in table {
            assert_eq!(Endpoint::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_srt_endpoint_on_tcp_is_passed_over() {
        let body = with("srt", json!(["tcp://0.0.0.0:8000", "udp://0.0.0.0:8001"]));
        assert_eq!(parse(&body).unwrap().endpoints.srt_port(), Some(8001));
    }

    #[test]
    fn each_mandatory_member_is_missed_by_name() {
        for member in ["ip", "server", "service", "pid"] {
            for value in [Value::Null, json!("")] {
                let error = parse(&with(member, value)).unwrap_err();
                assert_eq!(error, RegistrationError::Missing { member });
            }
        }
        assert_eq!(parse(&with("rtmp", json!([]))), Err(RegistrationError::NoRtmp));
    }

    #[test]
    fn a_member_of_the_wrong_type_is_named_with_its_value() {
        let error = parse(&with("pid", json!(17907))).unwrap_err();
        assert_eq!(error.to_string(), "`pid` is 17907: send a string");
        let error = parse(&with("srt", json!("10080"))).unwrap_err();
        assert_eq!(error.to_string(), "`srt` is \"10080\": send an array of strings");
        let error = parse(&with("srt", json!([10080]))).unwrap_err();
        assert!(matches!(error, RegistrationError::Endpoint { member: "srt", .. }));
    }

    #[test]
    fn a_port_above_65535_is_refused_rather_than_cut() {
        let error = parse(&with("srt", json!(["udp://0.0.0.0:70000"]))).unwrap_err();
        let expected = RegistrationError::Endpoint {
            member: "srt",
            value: "\"udp://0.0.0.0:70000\"".to_owned(),
        };
        assert_eq!(error, expected);
    }

    #[test]
    fn a_seventeenth_endpoint_is_refused() {
        let sixteen = json!(vec!["1"; ENDPOINTS_MAX]);
        assert_eq!(parse(&with("rtc", sixteen)).unwrap().endpoints.rtc.len(), ENDPOINTS_MAX);
        let error = parse(&with("rtc", json!(vec!["1"; ENDPOINTS_MAX + 1]))).unwrap_err();
        assert_eq!(error, RegistrationError::TooManyEndpoints { member: "rtc", count: 17 });
    }

    #[test]
    fn strings_are_bounded_and_printable() {
        let error = parse(&with("server", json!("x".repeat(TEXT_MAX + 1)))).unwrap_err();
        assert_eq!(error, RegistrationError::TooLong { member: "server", length: 129 });
        let error = parse(&with("device_id", json!("a\nb"))).unwrap_err();
        assert!(matches!(error, RegistrationError::ControlCharacter { member: "device_id", .. }));
    }

    #[test]
    fn a_long_value_is_cut_in_the_error() {
        let error = parse(&with("ip", json!("x".repeat(100)))).unwrap_err().to_string();
        assert!(error.contains("xxx..."), "{error}");
        assert!(error.len() < 200, "{error}");
    }

    #[test]
    fn an_address_that_no_origin_can_have_is_refused_even_when_its_network_is_allowed() {
        let everything: [IpNet; 2] = ["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let table = [
            "0.0.0.0",
            "::",
            "255.255.255.255",
            "224.0.0.1",
            "239.1.2.3",
            "ff02::1",
            "169.254.1.1",
            "169.254.169.254",
            "fe80::1",
            "::ffff:0.0.0.0",
            "::ffff:169.254.169.254",
            "::ffff:224.0.0.1",
            "::ffff:255.255.255.255",
        ];
        for ip in table {
            let body = with("ip", json!(ip)).to_string();
            let error = Registration::parse(body.as_bytes(), NEAR, &everything).unwrap_err();
            assert!(matches!(error, RegistrationError::Unusable { .. }), "{ip}: {error}");
        }
    }

    #[test]
    fn an_ipv4_mapped_address_is_the_address_inside_it() {
        let registration = parse(&with("ip", json!("::ffff:10.0.0.5"))).unwrap();
        assert_eq!(registration.ip, IpAddr::from([10, 0, 0, 5]));
    }

    #[test]
    fn a_loopback_address_may_be_announced_from_this_host_only() {
        for ip in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            let body = with("ip", json!(ip));
            assert!(parse_from(&body, NEAR).unwrap().ip.is_loopback());
            let error = parse_from(&body, FAR).unwrap_err();
            assert!(matches!(error, RegistrationError::LoopbackFromAfar { .. }), "{ip}");
        }
    }

    #[test]
    fn a_public_address_needs_to_be_allowed() {
        let body = with("ip", json!("203.0.113.7"));
        let ip = IpAddr::from([203, 0, 113, 7]);
        assert_eq!(parse(&body), Err(RegistrationError::NotAllowed { ip }));
        let allowed = ["203.0.113.0/24".parse().unwrap()];
        let parsed = Registration::parse(body.to_string().as_bytes(), FAR, &allowed).unwrap();
        assert_eq!(parsed.ip, ip);
    }

    #[test]
    fn a_host_name_is_no_address() {
        for value in ["origin.example", "localhost", "10.0.0", "10.0.0.5:1935", "fe80::1%eth0"] {
            let error = parse(&with("ip", json!(value))).unwrap_err();
            assert!(matches!(error, RegistrationError::NotAnAddress { .. }), "{value}");
        }
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        for body in [&b""[..], b"[]", b"{", b"null", b"\xff", b"[[[[[[[[[["] {
            let error = Registration::parse(body, NEAR, &[]).unwrap_err();
            assert!(matches!(error, RegistrationError::NotAnObject { .. }), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn an_endpoint_survives_being_written_and_read(port in 1_u16.., scheme in 0_usize..6) {
            let schemes =
                [None, Some(Scheme::Udp), Some(Scheme::Tcp), Some(Scheme::Http),
                 Some(Scheme::Https), Some(Scheme::Srt)];
            let written = endpoint(schemes[scheme], port).unwrap();
            prop_assert_eq!(Endpoint::parse(&written.to_string()), Some(written));
        }

        #[test]
        fn no_body_makes_the_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Registration::parse(&body, NEAR, &[]);
        }

        #[test]
        fn no_text_makes_the_endpoint_parser_panic(text in "\\PC{0,40}") {
            let _ = Endpoint::parse(&text);
        }
    }
}
