//! How single values are read and shown: endpoints, durations, numbers, lists, addresses, files.
//!
//! Whatever a `show_` function writes, the function that reads the same kind of value takes back.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::{HttpRate, InductionRate, Listen, PublicAddress};

/// A value that cannot be used. The place it was written at is the caller's to name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} {problem}; write {instead}")]
pub struct BadValue {
    pub(super) value: String,
    pub(super) problem: String,
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

/// Reads how long datagrams are gathered, or `off` as not at all.
pub(super) fn batch_wait(text: &str) -> Result<Option<Duration>, BadValue> {
    duration_or_off(text, BATCH_WAIT_MIN, BATCH_WAIT_MAX, "250us")
}

/// Reads how often origins are checked, or `off` as never.
pub(super) fn origin_check(text: &str) -> Result<Option<Duration>, BadValue> {
    duration_or_off(text, ORIGIN_CHECK_MIN, ORIGIN_CHECK_MAX, "5s")
}

fn duration_or_off(
    text: &str,
    min: Duration,
    max: Duration,
    example: &str,
) -> Result<Option<Duration>, BadValue> {
    if text == "off" {
        return Ok(None);
    }
    duration(text, min, max).map(Some).map_err(|error| BadValue {
        instead: format!(
            "off, or a duration from {} to {} such as {example}",
            show_duration(min),
            show_duration(max)
        ),
        ..error
    })
}

/// The inverse of [`batch_wait`] and [`origin_check`].
pub(super) fn show_duration_or_off(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "off".to_owned(), show_duration)
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

/// Reads `PER_SECOND[,BURST]`.
pub(super) fn http_rate(text: &str) -> Result<HttpRate, BadValue> {
    let (per_second, burst) = match text.split_once(',') {
        Some((per_second, burst)) => (per_second.trim(), Some(burst.trim())),
        None => (text, None),
    };
    let per_second = number(per_second, 1, RATE_MAX)?;
    let burst = match burst {
        Some(burst) => number(burst, 1, RATE_MAX)?,
        None => per_second.saturating_mul(10).min(RATE_MAX),
    };
    Ok(HttpRate { per_second, burst })
}

/// Reads `198.51.100.7,198.51.100.7:18000,[2001:db8::7]:18000`: addresses that clients can send to,
/// each once.
pub(super) fn public_addresses(text: &str) -> Result<Vec<PublicAddress>, BadValue> {
    let mut addresses = Vec::new();
    for part in text.split(',').map(str::trim) {
        let address = public_address(part)?;
        if addresses.contains(&address) {
            return Err(BadValue::new(part, "is there a second time", "each address once"));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn public_address(text: &str) -> Result<PublicAddress, BadValue> {
    let bad = |problem: &str| {
        BadValue::new(
            text,
            problem,
            "an IP address that clients send to such as 198.51.100.7, or with the port that a NAT \
             maps to ours such as 198.51.100.7:18000 or [2001:db8::7]:18000",
        )
    };
    let (ip, port) = match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(ip), _) => (ip, None),
        (_, Ok(SocketAddr::V6(address))) if address.scope_id() != 0 => {
            return Err(bad("has a zone, which means nothing to a client"));
        }
        (_, Ok(address)) => (address.ip(), Some(address.port())),
        (Err(_), Err(_)) => {
            return Err(bad("is not an IP address (names are not looked up)"));
        }
    };
    let ip = ip.to_canonical();
    if ip.is_unspecified() {
        return Err(bad("stands for every address, and no client can send to it"));
    }
    if ip.is_multicast() || ip == IpAddr::from([255; 4]) {
        return Err(bad("is no address of a host"));
    }
    if port == Some(0) {
        return Err(bad("has port 0, which nobody can send to"));
    }
    Ok(PublicAddress { ip, port })
}

/// The inverse of one part of [`public_addresses`].
pub(super) fn show_public_address(address: &PublicAddress) -> String {
    match address.port {
        Some(port) => SocketAddr::new(address.ip, port).to_string(),
        None => address.ip.to_string(),
    }
}

/// Reads the name of a file, which need not be there.
pub(super) fn file(text: &str) -> Result<PathBuf, BadValue> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(BadValue::new(
            text,
            "is not the name of a file",
            "a path such as /etc/ringway/tls.pem",
        ));
    }
    Ok(text.into())
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

/// Shorter than this is less than a thread takes to wake up.
const BATCH_WAIT_MIN: Duration = Duration::from_micros(10);

/// More than this of added delay is a good part of what a network adds, and gains next to nothing:
/// a wake-up is then shared by hundreds of datagrams already.
const BATCH_WAIT_MAX: Duration = Duration::from_millis(2);

/// A check takes a socket and some of the origin's time.
const ORIGIN_CHECK_MIN: Duration = Duration::from_millis(100);

/// More seldom, a check finds out nothing that sessions have not.
const ORIGIN_CHECK_MAX: Duration = Duration::from_secs(3_600);

/// RFC 1035, section 2.3.4: a name has at most 255 octets, 253 of them as text.
const HOST_NAME_MAX: usize = 253;

/// The longest stream ID of SRT (draft-sharabayko-srt, section 3.2.1.3).
const STREAM_MAX: usize = 512;

const SECRET_MAX: usize = 4_096;

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
    fn an_http_rate_without_a_burst_lets_ten_seconds_worth_come_at_once() {
        for (text, per_second, burst) in [
            ("100", 100, 1_000),
            ("100, 1", 100, 1),
            ("5,7", 5, 7),
            ("100000000", RATE_MAX, RATE_MAX),
        ] {
            assert_eq!(http_rate(text), Ok(HttpRate { per_second, burst }), "{text}");
        }
        for text in ["", "0", "10,0", "10,", ",10", "1,2,3", "100/s", "100000001"] {
            assert!(http_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn public_addresses_are_read_with_and_without_a_port() {
        for (text, shown) in [
            ("198.51.100.7", "198.51.100.7"),
            ("198.51.100.7:18001", "198.51.100.7:18001"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]:18001", "[2001:db8::7]:18001"),
            ("127.0.0.1, ::1", "127.0.0.1,::1"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
        ] {
            let addresses = public_addresses(text).unwrap();
            let back: Vec<String> = addresses.iter().map(show_public_address).collect();
            assert_eq!(back.join(","), shown);
        }
    }

    #[test]
    fn public_addresses_that_are_none_are_refused_with_the_reason() {
        let is_none = "is not an IP address (names are not looked up)";
        for (text, problem) in [
            ("", is_none),
            ("198.51.100.7,", is_none),
            ("relay.example", is_none),
            ("relay.example:18000", is_none),
            ("198.51.100.7:", is_none),
            ("[2001:db8::7]", is_none),
            ("198.51.100.7:65536", is_none),
            ("0.0.0.0", "stands for every address, and no client can send to it"),
            ("[::]:18000", "stands for every address, and no client can send to it"),
            ("::ffff:0.0.0.0", "stands for every address, and no client can send to it"),
            ("224.0.0.1", "is no address of a host"),
            ("ff02::1", "is no address of a host"),
            ("255.255.255.255", "is no address of a host"),
            ("198.51.100.7:0", "has port 0, which nobody can send to"),
            ("[fe80::1%2]:18000", "has a zone, which means nothing to a client"),
            ("::1,[::1]:2,::1", "is there a second time"),
        ] {
            assert_eq!(public_addresses(text).unwrap_err().problem, problem, "{text}");
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
