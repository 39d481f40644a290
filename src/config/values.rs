//! How single values are read and shown: endpoints, durations, numbers, lists, origins.
//!
//! Whatever a `show_` function writes, the function that reads the same kind of value takes back.

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::{InductionRate, Listen, StaticOrigin};

/// A value that cannot be used. The place it was written at is the caller's to name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} {problem}; write {instead}")]
pub struct BadValue {
    pub(super) value: String,
    problem: String,
    instead: String,
}

impl BadValue {
    pub(crate) fn new(value: &str, problem: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { value: value.to_owned(), problem: problem.into(), instead: instead.into() }
    }
}

/// Reads `20080`, `:20080`, `10.0.0.1:20080`, `[::1]:20080` or `off`.
pub(super) fn listen(text: &str) -> Result<Listen, BadValue> {
    if text == "off" {
        return Ok(Listen::Off);
    }
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Some(port) = digits(port) {
        return Ok(Listen::All(port));
    }
    if let Ok(address) = text.parse() {
        return Ok(Listen::At(address));
    }
    let problem = match text.rsplit_once(':') {
        _ if text.parse::<IpAddr>().is_ok() => "has no port",
        Some((host, port)) if digits::<u16>(port).is_some() && looks_like_a_name(host) => {
            "is a name, and listening takes an IP address"
        }
        _ => "is not an endpoint",
    };
    Err(BadValue::new(
        text,
        problem,
        "a port from 0 to 65535 such as 20080 or :20080, an address and a port such as \
         10.0.0.1:20080 or [::1]:20080, or off",
    ))
}

/// The inverse of [`listen`].
pub(super) fn show_listen(listen: Listen) -> String {
    match listen {
        Listen::Off => "off".to_owned(),
        Listen::All(port) => port.to_string(),
        Listen::At(address) => address.to_string(),
    }
}

/// Reads a number in decimal digits, bounds included.
pub(super) fn number<T>(text: &str, min: T, max: T) -> Result<T, BadValue>
where
    T: FromStr + PartialOrd + Display,
{
    let instead = format!("a number from {min} to {max}");
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadValue::new(text, "is not a number", instead));
    }
    match text.parse::<T>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(BadValue::new(text, "is out of bounds", instead)),
    }
}

/// Reads a duration as Go and people write it (`300s`, `1m30s`, `1.5s`, `250us`), bounds included.
pub(super) fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, BadValue> {
    let instead = format!(
        "a duration from {} to {} such as 90s, 1m30s or 250ms",
        show_duration(min),
        show_duration(max)
    );
    // The one duration that Go takes without a unit.
    let duration = if text == "0" { Ok(Duration::ZERO) } else { humantime::parse_duration(text) };
    match duration {
        Ok(duration) if (min..=max).contains(&duration) => Ok(duration),
        Ok(_) => Err(BadValue::new(text, "is out of bounds", instead)),
        Err(_) if digits::<u64>(text).is_some() => Err(BadValue::new(text, "has no unit", instead)),
        Err(_) => Err(BadValue::new(text, "is not a duration", instead)),
    }
}

/// The inverse of [`duration`], in the largest unit up to hours that loses nothing; below five
/// minutes in seconds.
pub(super) fn show_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let seconds = duration.as_secs();
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    if !nanoseconds.is_multiple_of(1_000) {
        return format!("{nanoseconds}ns");
    }
    if !nanoseconds.is_multiple_of(1_000_000) {
        return format!("{}us", duration.as_micros());
    }
    if !nanoseconds.is_multiple_of(1_000_000_000) {
        return format!("{}ms", duration.as_millis());
    }
    if seconds.is_multiple_of(3_600) {
        format!("{}h", seconds / 3_600)
    } else if seconds > 300 && seconds.is_multiple_of(60) {
        format!("{}m", seconds / 60)
    } else {
        format!("{seconds}s")
    }
}

/// Reads one of the words of `words`.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, BadValue> {
    words
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| BadValue::new(text, "is not one of the words this takes", one_of(words)))
}

/// The inverse of [`word`]. A value that no word means shows as nothing.
pub(super) fn show_word<T: Copy + PartialEq>(value: T, words: &[(&'static str, T)]) -> String {
    words.iter().find(|(_, candidate)| *candidate == value).map_or("", |(word, _)| word).to_owned()
}

/// `auto, on or off`
pub(super) fn one_of<T>(words: &[(&str, T)]) -> String {
    let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((only, _)) => (*only).to_owned(),
        None => String::new(),
    }
}

/// Reads `0-3,8`: every CPU once, in the order typed.
pub(super) fn cpu_list(text: &str) -> Result<Vec<usize>, BadValue> {
    let bad = |part: &str, problem: &str| {
        BadValue::new(
            part,
            problem,
            format!("CPU numbers from 0 to {CPU_MAX} such as 2, 0-3 or 0-3,8"),
        )
    };
    let mut cpus = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Some(first), Some(last)) = (digits::<usize>(first), digits::<usize>(last)) else {
            return Err(bad(part, "is neither a CPU nor a range of CPUs"));
        };
        if last > CPU_MAX {
            return Err(bad(part, "names a CPU that no kernel has"));
        }
        if first > last {
            return Err(bad(part, "runs backwards"));
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(bad(part, &format!("names CPU {cpu} a second time")));
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}

/// The inverse of [`cpu_list`].
pub(super) fn show_cpu_list(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            Some(_) | None => ranges.push((cpu, cpu)),
        }
    }
    let ranges = ranges.into_iter().map(|(first, last)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    });
    ranges.collect::<Vec<_>>().join(",")
}

/// Reads `10.0.0.0/8,fc00::/7,192.0.2.7`; an address alone is a network of one.
pub(super) fn networks(text: &str) -> Result<Vec<IpNet>, BadValue> {
    let network = |part: &str| {
        let address = || part.parse::<IpAddr>().map(IpNet::from);
        part.parse::<IpNet>().or_else(|_| address()).map(|network| network.trunc()).map_err(|_| {
            BadValue::new(
                part,
                "is not a network",
                "addresses and networks such as 10.0.0.0/8, fc00::/7 or 192.0.2.7, separated by \
                 commas",
            )
        })
    };
    text.split(',').map(str::trim).map(network).collect()
}

/// Reads host names separated by commas.
pub(super) fn host_names(text: &str) -> Result<Vec<String>, BadValue> {
    let host_name = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if !part.is_empty() && part.len() <= HOST_NAME_MAX && part.bytes().all(plain) {
            Ok(part.to_ascii_lowercase())
        } else {
            Err(BadValue::new(
                part,
                "is not a host name",
                format!(
                    "names of at most {HOST_NAME_MAX} letters, digits, dots and hyphens such as \
                     live.example.com, separated by commas"
                ),
            ))
        }
    };
    text.split(',').map(str::trim).map(host_name).collect()
}

/// Reads `TOTAL[,PER_PREFIX]`, both per second.
pub(super) fn induction_rate(text: &str) -> Result<InductionRate, BadValue> {
    let (total, per_prefix) = match text.split_once(',') {
        Some((total, per_prefix)) => (total.trim(), Some(per_prefix.trim())),
        None => (text, None),
    };
    let total = number(total, 1, RATE_MAX)?;
    let per_prefix = match per_prefix {
        Some(per_prefix) => number(per_prefix, 1, total)?,
        None => (total / 10).max(1),
    };
    Ok(InductionRate { total, per_prefix })
}

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
    let (mut srt, mut rtc, mut api) = (None, None, None);
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
            "path" | "host" | "direct" => {
                return Err(bad(format!(
                    "holds the key {key}, which is about WebRTC, and this version relays SRT only"
                )));
            }
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
    Ok(StaticOrigin { srt, rtc, api, ..StaticOrigin::at(&name, ip) })
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
    for (key, port) in [("srt", origin.srt), ("rtc", origin.rtc), ("api", origin.api)] {
        if let Some(port) = port {
            text.push_str(&format!(",{key}={port}"));
        }
    }
    text
}

/// Reads `app/stream`, or `off` as nothing.
pub(super) fn default_stream(text: &str) -> Result<Option<String>, BadValue> {
    if text == "off" {
        return Ok(None);
    }
    let is_plain = |part: &str| {
        !part.is_empty() && !part.chars().any(|c| c.is_control() || c.is_whitespace() || c == '?')
    };
    if text.len() > STREAM_MAX || !text.contains('/') || !text.split('/').all(is_plain) {
        return Err(BadValue::new(
            text,
            "does not name a stream",
            format!("APP/STREAM of at most {STREAM_MAX} bytes such as live/livestream, or off"),
        ));
    }
    Ok(Some(text.to_owned()))
}

/// Reads a token or another secret; all of them fit an HTTP header. The value appears in no
/// message.
pub(super) fn secret(text: &str) -> Result<secrecy::SecretString, BadValue> {
    if text.is_empty()
        || text.len() > SECRET_MAX
        || !text.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(BadValue::new(
            MASK,
            "is empty, too long, or holds something else than visible ASCII characters",
            format!("1 to {SECRET_MAX} visible ASCII characters without spaces"),
        ));
    }
    Ok(text.into())
}

/// A number of nothing but digits: no sign, no blank.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

fn looks_like_a_name(host: &str) -> bool {
    host.bytes().any(|byte| byte.is_ascii_alphabetic())
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

/// What stands for a secret in print and in messages.
pub(super) const MASK: &str = "***";

/// The largest CPU number in a `cpu_set_t` of the C library.
const CPU_MAX: usize = 1_023;

/// The largest rate per second: far above what one host receives, and small enough for arithmetic
/// in nanoseconds.
pub(super) const RATE_MAX: u32 = 100_000_000;

/// RFC 1035, section 2.3.4: a name has at most 255 octets, 253 of them as text.
const HOST_NAME_MAX: usize = 253;

const ORIGIN_NAME_MAX: usize = 64;

/// The longest stream ID of SRT (draft-sharabayko-srt, section 3.2.1.3).
const STREAM_MAX: usize = 512;

const SECRET_MAX: usize = 4_096;

const ORIGIN_EXAMPLE: &str = "name=a,ip=10.0.0.5,srt=10080 (optional: name, srt, rtc, api)";

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn endpoints_are_read_in_every_syntax() {
        for (text, expected) in [
            ("20080", Listen::All(20080)),
            (":20080", Listen::All(20080)),
            ("0", Listen::All(0)),
            (":0", Listen::All(0)),
            ("off", Listen::Off),
            ("10.0.0.1:20080", Listen::At(([10, 0, 0, 1], 20080).into())),
            ("0.0.0.0:0", Listen::At(([0, 0, 0, 0], 0).into())),
            ("[::1]:20080", Listen::At("[::1]:20080".parse().unwrap())),
            ("[::]:1", Listen::At("[::]:1".parse().unwrap())),
        ] {
            assert_eq!(listen(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn endpoints_that_are_none_are_refused_with_the_reason() {
        for (text, problem) in [
            ("", "is not an endpoint"),
            (":", "is not an endpoint"),
            ("65536", "is not an endpoint"),
            ("-1", "is not an endpoint"),
            ("+1", "is not an endpoint"),
            (":+1", "is not an endpoint"),
            ("10.0.0.1:65536", "is not an endpoint"),
            ("10.0.0.1:", "is not an endpoint"),
            ("10.0.0.256:1", "is not an endpoint"),
            ("::1:x", "is not an endpoint"),
            ("[::1]", "is not an endpoint"),
            ("10.0.0.1", "has no port"),
            ("::1", "has no port"),
            ("localhost:20080", "is a name, and listening takes an IP address"),
        ] {
            let error = listen(text).unwrap_err();
            assert_eq!(error.problem, problem, "{text}");
        }
    }

    #[test]
    fn numbers_are_plain_decimal_digits() {
        assert_eq!(number("42", 1, 100), Ok(42));
        for text in ["", "+1", "-1", "1_000", "0x10", "1.0", " 1", "4 2"] {
            assert_eq!(number(text, 1, 100).unwrap_err().problem, "is not a number", "{text}");
        }
        for text in ["0", "101", "99999999999999999999999"] {
            assert_eq!(number(text, 1, 100).unwrap_err().problem, "is out of bounds", "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_go_and_people_write_them() {
        for (text, expected) in [
            ("300s", Duration::from_secs(300)),
            ("1m30s", Duration::from_secs(90)),
            ("1h0m0s", HOUR),
            ("1.5s", Duration::from_millis(1_500)),
            ("250us", Duration::from_micros(250)),
            ("250µs", Duration::from_micros(250)),
            ("7ns", Duration::from_nanos(7)),
            ("5 min", Duration::from_secs(300)),
            ("0", Duration::ZERO),
            ("0s", Duration::ZERO),
        ] {
            assert_eq!(duration(text, Duration::ZERO, HOUR), Ok(expected), "{text}");
        }
    }

    #[test]
    fn durations_that_are_none_are_refused_with_the_reason() {
        for (text, problem) in [
            ("300", "has no unit"),
            ("", "is not a duration"),
            ("soon", "is not a duration"),
            ("-1s", "is not a duration"),
            ("1x", "is not a duration"),
            ("1ms", "is out of bounds"),
            ("0", "is out of bounds"),
            ("2h", "is out of bounds"),
            ("999999999999999999999s", "is not a duration"),
        ] {
            let error = duration(text, Duration::from_secs(1), HOUR).unwrap_err();
            assert_eq!(error.problem, problem, "{text}");
        }
    }

    #[test]
    fn durations_show_without_loss() {
        for (shown, duration) in [
            ("0s", Duration::ZERO),
            ("15s", Duration::from_secs(15)),
            ("90s", Duration::from_secs(90)),
            ("300s", Duration::from_secs(300)),
            ("10m", Duration::from_secs(600)),
            ("601s", Duration::from_secs(601)),
            ("24h", 24 * HOUR),
            ("1500ms", Duration::from_millis(1_500)),
            ("250us", Duration::from_micros(250)),
            ("1001ns", Duration::from_nanos(1_001)),
        ] {
            assert_eq!(show_duration(duration), shown);
        }
    }

    #[test]
    fn cpu_lists_are_read_and_shown() {
        for (text, cpus) in
            [("0", vec![0]), ("0-3,8", vec![0, 1, 2, 3, 8]), ("8,0-1", vec![8, 0, 1])]
        {
            assert_eq!(cpu_list(text), Ok(cpus.clone()), "{text}");
            assert_eq!(show_cpu_list(&cpus), text);
        }
        assert_eq!(cpu_list("0, 2 ,4").map(|cpus| show_cpu_list(&cpus)), Ok("0,2,4".to_owned()));
    }

    #[test]
    fn cpu_lists_that_are_none_are_refused_with_the_reason() {
        for (text, problem) in [
            ("", "is neither a CPU nor a range of CPUs"),
            ("a", "is neither a CPU nor a range of CPUs"),
            ("0,", "is neither a CPU nor a range of CPUs"),
            ("-1", "is neither a CPU nor a range of CPUs"),
            ("1-2-3", "is neither a CPU nor a range of CPUs"),
            ("3-1", "runs backwards"),
            ("0-18446744073709551615", "names a CPU that no kernel has"),
            ("0-2,1", "names CPU 1 a second time"),
        ] {
            assert_eq!(cpu_list(text).unwrap_err().problem, problem, "{text}");
        }
    }

    #[test]
    fn networks_are_read_with_and_without_a_prefix() {
        let read = networks("10.1.2.3/8, fc00::/7,192.0.2.7").unwrap();
        let shown: Vec<String> = read.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.0/8", "fc00::/7", "192.0.2.7/32"]);
        for text in ["", "10.0.0.0/33", "10.0.0/8", "example.com", "10.0.0.0/8,"] {
            assert_eq!(networks(text).unwrap_err().problem, "is not a network", "{text}");
        }
    }

    #[test]
    fn host_names_lose_their_case() {
        assert_eq!(
            host_names("Live.Example, b"),
            Ok(vec!["live.example".to_owned(), "b".to_owned()])
        );
        for text in ["", "a,,b", "a/b", "a b", &"a".repeat(254)] {
            assert_eq!(host_names(text).unwrap_err().problem, "is not a host name", "{text}");
        }
    }

    #[test]
    fn an_induction_rate_without_a_share_gives_a_prefix_a_tenth() {
        for (text, total, per_prefix) in
            [("5000", 5_000, 500), ("9", 9, 1), ("5000,5000", 5_000, 5_000), ("10, 3", 10, 3)]
        {
            assert_eq!(induction_rate(text), Ok(InductionRate { total, per_prefix }), "{text}");
        }
        for text in ["", "0", "10,0", "10,11", "10,", ",10", "1,2,3", "200000/s"] {
            assert!(induction_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_origin_needs_nothing_but_an_address() {
        let read = origins("ip=2001:db8::5").unwrap();
        let ip: IpAddr = "2001:db8::5".parse().unwrap();
        assert_eq!(read, [StaticOrigin::at("2001:db8::5", ip)]);
    }

    #[test]
    fn origins_are_read_and_shown() {
        let text = "name=a,ip=10.0.0.5,srt=10080,rtc=8000,api=1985";
        let read = origins(&format!("{text}; name=b , ip = 10.0.0.6;")).unwrap();
        assert_eq!(show_origin(&read[0]), text);
        assert_eq!(show_origin(&read[1]), "name=b,ip=10.0.0.6");
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
            ("ip=origin.example", "is not an IP address (names are not looked up)"),
            ("ip=0.0.0.0", "is no address of a host"),
            ("ip=ff02::1", "is no address of a host"),
            ("ip=255.255.255.255", "is no address of a host"),
            ("ip=10.0.0.5,srt=0", "is out of bounds"),
            ("ip=10.0.0.5,srt=65536", "is out of bounds"),
            ("ip=10.0.0.5,name=", "is not a name for an origin"),
            ("ip=10.0.0.5,name=a b", "is not a name for an origin"),
            ("ip=10.0.0.5;ip=10.0.0.5,srt=1", "is a second origin named 10.0.0.5"),
            (
                "ip=10.0.0.5,path=/whip",
                "holds the key path, which is about WebRTC, and this version relays SRT only",
            ),
        ] {
            assert_eq!(origins(text).unwrap_err().problem, problem, "{text}");
        }
    }

    #[test]
    fn a_default_stream_is_an_app_and_a_stream_or_off() {
        assert_eq!(default_stream("off"), Ok(None));
        assert_eq!(default_stream("a/b/c"), Ok(Some("a/b/c".to_owned())));
        for text in
            ["", "stream", "/a", "a/", "a//b", "a/b c", "a/b?c", "a/\u{7}", &"a/".repeat(300)]
        {
            assert_eq!(
                default_stream(text).unwrap_err().problem,
                "does not name a stream",
                "{text}"
            );
        }
    }

    #[test]
    fn a_secret_is_visible_ascii_and_never_repeated() {
        assert!(secret("s3cret!").is_ok());
        for text in ["", "two words", "gr\u{fc}n", "line\n", &"a".repeat(4_097)] {
            assert_eq!(secret(text).unwrap_err().value, MASK);
        }
    }
}
