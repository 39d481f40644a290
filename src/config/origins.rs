//! How `--origin` is read and shown.

use std::net::IpAddr;

use super::values::{BadValue, number, one_of, show_word, word};
use super::{HostHeader, StaticOrigin};

/// Reads origins separated by `;`, each as [`origin`] takes it. No two may have one name.
pub(super) fn origins(text: &str) -> Result<Vec<StaticOrigin>, BadValue> {
    let mut origins: Vec<StaticOrigin> = Vec::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let origin = origin(part)?;
        if origins.iter().any(|other| other.name == origin.name) {
            return Err(BadValue::new(
                part,
                format!("is a second origin named {}", origin.name),
                "another name=",
            ));
        }
        origins.push(origin);
    }
    if origins.is_empty() {
        return Err(BadValue::new(text, "names no origin", ORIGIN_EXAMPLE));
    }
    Ok(origins)
}

/// Reads `name=a,ip=10.0.0.5,srt=10080,rtc=8000,api=1985`; only `ip` has to be there.
fn origin(text: &str) -> Result<StaticOrigin, BadValue> {
    let bad = |problem: String| BadValue::new(text, problem, ORIGIN_EXAMPLE);
    let (mut name, mut ip) = (None, None);
    let (mut srt, mut rtc, mut api, mut direct) = (None, None, None, None);
    let (mut path, mut host, mut capacity) = (None, None, None);
    for part in text.split(',').map(str::trim) {
        let Some((key, value)) = part.split_once('=') else {
            return Err(bad(format!("holds {part:?}, which is not KEY=VALUE")));
        };
        let (key, value) = (key.trim(), value.trim());
        let is_again = match key {
            "name" => name.replace(origin_name(value)?).is_some(),
            "ip" => ip.replace(origin_ip(value)?).is_some(),
            "srt" => srt.replace(number(value, 1, u16::MAX)?).is_some(),
            "rtc" => rtc.replace(number(value, 1, u16::MAX)?).is_some(),
            "api" => api.replace(number(value, 1, u16::MAX)?).is_some(),
            "path" => path.replace(endpoint_path(value)?).is_some(),
            "host" => host.replace(word(value, HOSTS)?).is_some(),
            "direct" => direct.replace(number(value, 1, u16::MAX)?).is_some(),
            "capacity" => capacity.replace(number(value, 1, CAPACITY_MAX)?).is_some(),
            _ => return Err(bad(format!("holds the unknown key {key:?}"))),
        };
        if is_again {
            return Err(bad(format!("holds the key {key} twice")));
        }
    }
    let Some(ip) = ip else {
        return Err(bad("has no ip=".to_owned()));
    };
    let name = name.unwrap_or_else(|| ip.to_string());
    let host = host.unwrap_or_default();
    Ok(StaticOrigin { name, ip, srt, rtc, api, path, host, direct, capacity })
}

/// Reads the path of WHIP and WHEP endpoints, a query behind it included. What it may hold are the
/// characters of RFC 3986 and the placeholders.
fn endpoint_path(text: &str) -> Result<String, BadValue> {
    let bad = |problem: String| {
        BadValue::new(
            text,
            problem,
            format!(
                "a path such as /{{path}}/{{kind}}; its placeholders are {}",
                one_of(PLACEHOLDERS)
            ),
        )
    };
    if !text.starts_with('/') {
        return Err(bad("does not begin with /".to_owned()));
    }
    if text.len() > PATH_MAX {
        return Err(bad(format!("is longer than {PATH_MAX} bytes")));
    }
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (plain, braced) = rest.split_at(at);
        check_plain(plain).map_err(&bad)?;
        let Some((placeholder, behind)) = braced.split_once('}').filter(|(p, _)| !p.is_empty())
        else {
            return Err(bad("holds a brace that has no partner".to_owned()));
        };
        let placeholder = format!("{placeholder}}}");
        if !PLACEHOLDERS.iter().any(|(known, ())| *known == placeholder) {
            return Err(bad(format!("holds the unknown placeholder {placeholder}")));
        }
        rest = behind;
    }
    check_plain(rest).map_err(&bad)?;
    Ok(text.to_owned())
}

fn check_plain(text: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~%!$&'()*+=:@/?".contains(c);
    match text.chars().find(|c| !is_plain(*c)) {
        Some(stray) => Err(format!("holds {stray:?}, which no path holds")),
        None => Ok(()),
    }
}

/// Reads the address of an origin: a literal that a datagram can be sent to.
pub(super) fn origin_ip(text: &str) -> Result<IpAddr, BadValue> {
    let instead = "an IP address such as 10.0.0.5 or 2001:db8::5";
    let ip: IpAddr = text.parse().map_err(|_| {
        BadValue::new(text, "is not an IP address (names are not looked up)", instead)
    })?;
    let is_broadcast = ip == IpAddr::from([255; 4]);
    if ip.is_unspecified() || ip.is_multicast() || is_broadcast {
        return Err(BadValue::new(text, "is no address of a host", instead));
    }
    Ok(ip)
}

/// An origin's name becomes a label of metrics and a column of tables.
fn origin_name(text: &str) -> Result<String, BadValue> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if text.is_empty() || text.len() > ORIGIN_NAME_MAX || !text.bytes().all(plain) {
        return Err(BadValue::new(
            text,
            "is not a name for an origin",
            format!(
                "at most {ORIGIN_NAME_MAX} letters, digits, dots, colons, hyphens and underscores"
            ),
        ));
    }
    Ok(text.to_owned())
}

/// The inverse of [`origin`].
pub(super) fn show_origin(origin: &StaticOrigin) -> String {
    let mut text = format!("name={},ip={}", origin.name, origin.ip);
    let ports =
        [("srt", origin.srt), ("rtc", origin.rtc), ("api", origin.api), ("direct", origin.direct)];
    for (key, port) in ports {
        if let Some(port) = port {
            text.push_str(&format!(",{key}={port}"));
        }
    }
    if let Some(path) = &origin.path {
        text.push_str(&format!(",path={path}"));
    }
    if origin.host != HostHeader::default() {
        text.push_str(&format!(",host={}", show_word(origin.host, HOSTS)));
    }
    if let Some(capacity) = origin.capacity {
        text.push_str(&format!(",capacity={capacity}"));
    }
    text
}

const ORIGIN_NAME_MAX: usize = 64;

/// More than a relay has sessions.
const CAPACITY_MAX: u32 = 1_048_576;

/// Of a path with its placeholders; stream names come on top.
const PATH_MAX: usize = 512;

const ORIGIN_EXAMPLE: &str =
    "name=a,ip=10.0.0.5,srt=10080 (optional: name, srt, rtc, api, path, host, direct, capacity)";

const HOSTS: &[(&str, HostHeader)] =
    &[("client", HostHeader::Client), ("origin", HostHeader::Origin)];

/// What [`StaticOrigin::path`] explains.
const PLACEHOLDERS: &[(&str, ())] =
    &[("{path}", ()), ("{app}", ()), ("{stream}", ()), ("{kind}", ())];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_needs_nothing_but_an_address() {
        let read = origins("ip=2001:db8::5").unwrap();
        let ip: IpAddr = "2001:db8::5".parse().unwrap();
        assert_eq!(read, [StaticOrigin::at("2001:db8::5", ip)]);
    }

    #[test]
    fn origins_are_read_and_shown() {
        let text = "name=a,ip=10.0.0.5,srt=10080,rtc=8000,api=1985,direct=8001,\
                    path=/rtc/v1/{kind}/?app={app}&stream={stream},host=origin,capacity=500";
        let read = origins(&format!("{text}; name=b , ip = 10.0.0.6, host=client;")).unwrap();
        assert_eq!(show_origin(&read[0]), text);
        assert_eq!(show_origin(&read[1]), "name=b,ip=10.0.0.6");
    }

    #[test]
    fn the_keys_about_webrtc_reach_their_fields() {
        let read = origins("ip=10.0.0.5,path=/{path}/whip,host=origin,direct=8001").unwrap();
        let expected = StaticOrigin {
            path: Some("/{path}/whip".to_owned()),
            host: HostHeader::Origin,
            direct: Some(8001),
            ..StaticOrigin::at("10.0.0.5", [10, 0, 0, 5].into())
        };
        assert_eq!(read, [expected]);
    }

    #[test]
    fn origins_that_are_none_are_refused_with_the_reason() {
        for (text, problem) in [
            ("", "names no origin"),
            (";", "names no origin"),
            ("10.0.0.5", "holds \"10.0.0.5\", which is not KEY=VALUE"),
            ("name=a", "has no ip="),
            ("ip=10.0.0.5,port=1", "holds the unknown key \"port\""),
            ("ip=10.0.0.5,ip=10.0.0.6", "holds the key ip twice"),
            ("ip=10.0.0.5,srt=1,srt=1", "holds the key srt twice"),
            ("ip=10.0.0.5,path=/a,path=/b", "holds the key path twice"),
            ("ip=origin.example", "is not an IP address (names are not looked up)"),
            ("ip=0.0.0.0", "is no address of a host"),
            ("ip=ff02::1", "is no address of a host"),
            ("ip=255.255.255.255", "is no address of a host"),
            ("ip=10.0.0.5,srt=0", "is out of bounds"),
            ("ip=10.0.0.5,srt=65536", "is out of bounds"),
            ("ip=10.0.0.5,direct=0", "is out of bounds"),
            ("ip=10.0.0.5,capacity=0", "is out of bounds"),
            ("ip=10.0.0.5,name=", "is not a name for an origin"),
            ("ip=10.0.0.5,name=a b", "is not a name for an origin"),
            ("ip=10.0.0.5;ip=10.0.0.5,srt=1", "is a second origin named 10.0.0.5"),
            ("ip=10.0.0.5,host=other", "is not one of the words this takes"),
        ] {
            assert_eq!(origins(text).unwrap_err().problem, problem, "{text}");
        }
    }

    #[test]
    fn a_path_that_no_request_can_ask_for_is_refused_with_the_reason() {
        for (path, problem) in [
            ("", "does not begin with /"),
            ("whip", "does not begin with /"),
            ("http://10.0.0.5/whip", "does not begin with /"),
            ("/{name}/whip", "holds the unknown placeholder {name}"),
            ("/{}/whip", "holds the unknown placeholder {}"),
            ("/{Path}", "holds the unknown placeholder {Path}"),
            ("/{path", "holds a brace that has no partner"),
            ("/path}", "holds a brace that has no partner"),
            ("/{{path}}", "holds the unknown placeholder {{path}"),
            ("/a b", "holds ' ', which no path holds"),
            ("/a#b", "holds '#', which no path holds"),
            ("/gr\u{fc}n", "holds 'ü', which no path holds"),
            ("/{path}/a\r\nb", "holds '\\r', which no path holds"),
        ] {
            assert_eq!(endpoint_path(path).unwrap_err().problem, problem, "{path}");
        }
        let long = "/".repeat(PATH_MAX + 1);
        assert!(endpoint_path(&long).is_err());
        assert!(endpoint_path(&long[1..]).is_ok());
    }

    #[test]
    fn an_error_about_a_placeholder_names_those_that_there_are() {
        let error = origins("ip=10.0.0.5,path=/{name}").unwrap_err().to_string();
        assert!(
            error.ends_with("its placeholders are {path}, {app}, {stream} or {kind}"),
            "{error}"
        );
    }
}
