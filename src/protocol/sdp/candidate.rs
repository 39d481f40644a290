//! Candidates (RFC 8839, section 5.1): what is read of an origin's, and how the relay writes its
//! own.

use std::net::{IpAddr, SocketAddr};

use super::description::Description;

/// What matters of a candidate that somebody else wrote.
pub(super) struct Candidate<'a> {
    /// 1, or 2 for RTCP on a transport of its own.
    pub(super) component: u16,
    transport: &'a str,
    address: &'a str,
    port: &'a str,
    kind: &'a str,
}

impl<'a> Candidate<'a> {
    /// Reads the value of `a=candidate`: `1 1 udp 2130706431 192.0.2.1 8000 typ host`.
    pub(super) fn parse(value: &'a str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let _foundation = words.next()?;
        let component = words.next()?.parse().ok()?;
        let transport = words.next()?;
        let _priority = words.next()?;
        let (address, port) = (words.next()?, words.next()?);
        let kind = (words.next()? == "typ").then(|| words.next())??;
        Some(Self { component, transport, address, port, kind })
    }

    fn is_udp(&self) -> bool {
        self.transport.eq_ignore_ascii_case("udp")
    }

    /// The address, unless it is a name or no address that anything can be sent to.
    fn address(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.address.parse().ok()?;
        let port = self.port.parse().ok().filter(|port| *port != 0)?;
        (!ip.is_unspecified()).then_some(SocketAddr::new(ip, port))
    }
}

/// The first UDP host candidate with an IP address: where media goes to an origin that is
/// configured without an RTC endpoint. Whether anything may be sent there is for the caller to
/// check; an answer can name any address.
pub fn first_udp_host(sdp: &str) -> Option<SocketAddr> {
    candidates(sdp)
        .into_iter()
        .filter_map(Candidate::parse)
        .filter(|candidate| candidate.component == 1 && candidate.is_udp())
        .filter(|candidate| candidate.kind.eq_ignore_ascii_case("host"))
        .find_map(|candidate| candidate.address())
}

/// Whether the answer has candidates and all of them are for ICE over TCP (RFC 6544), which the
/// relay does not speak: such an origin may have closed its UDP port.
pub fn is_tcp_only(sdp: &str) -> bool {
    let values = candidates(sdp);
    let is_tcp = |value: &&str| {
        Candidate::parse(value).is_some_and(|it| it.transport.eq_ignore_ascii_case("tcp"))
    };
    !values.is_empty() && values.iter().all(is_tcp)
}

/// The values of all `a=candidate` lines; none if `sdp` is not within bounds.
fn candidates(sdp: &str) -> Vec<&str> {
    let Ok(description) = Description::parse(sdp) else { return Vec::new() };
    let sections = std::iter::once(&description.session).chain(&description.media);
    sections.flat_map(|section| section.values("candidate")).collect()
}

/// Appends the relay's own candidates, one line per address and component.
///
/// The first address has the highest priority, and its line comes first: FFmpeg reads no other.
/// Foundations are digits, for it also looks for the letters `udp` in the line.
pub(super) fn write_own(output: &mut String, relay: &[SocketAddr], components: &[u16]) {
    for (index, address) in (1..).zip(relay) {
        for &component in components {
            let priority = priority(index, component);
            let ip = address.ip().to_canonical();
            let port = address.port();
            output.push_str(&format!(
                "a=candidate:{index} {component} udp {priority} {ip} {port} typ host\r\n"
            ));
        }
    }
}

/// The priority of a host candidate: type preference, local preference and component (RFC 8445,
/// section 5.1.2.1), falling from the first address on.
fn priority(index: u16, component: u16) -> u32 {
    const TYPE_PREFERENCE_OF_HOST: u32 = 126;
    let local_preference = u32::from(u16::MAX - index.saturating_sub(1));
    (TYPE_PREFERENCE_OF_HOST << 24)
        + (local_preference << 8)
        + (256 - u32::from(component.min(256)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(candidates: &[&str]) -> String {
        let lines: String =
            candidates.iter().map(|value| format!("a=candidate:{value}\n")).collect();
        format!("v=0\nm=video 9 RTP 96\n{lines}")
    }

    #[test]
    fn priorities_fall_with_the_address_and_the_component() {
        let priorities =
            [(1, 1), (1, 2), (2, 1)].map(|(index, component)| priority(index, component));
        assert_eq!(priorities, [2_130_706_431, 2_130_706_430, 2_130_706_175]);
    }

    #[test]
    fn the_first_host_candidate_over_udp_with_an_address_is_found() {
        let answer = answer(&[
            "1 1 tcp 1 10.0.0.1 1001 typ host tcptype passive",
            "1 1 udp 1 10.0.0.1 1002 typ srflx raddr 10.0.0.9 rport 1",
            "1 2 udp 1 10.0.0.1 1003 typ host",
            "1 1 udp 1 origin.local 1004 typ host",
            "1 1 udp 1 10.0.0.1 0 typ host",
            "1 1 udp 1 0.0.0.0 1005 typ host",
            "1 1 udp 1 10.0.0.1 70000 typ host",
            "1 1 udp 1 10.0.0.1",
            "1 1 UDP 1 10.0.0.2 1006 typ host generation 0",
            "1 1 udp 1 10.0.0.3 1007 typ host",
        ]);
        assert_eq!(first_udp_host(&answer), Some("10.0.0.2:1006".parse().unwrap()));
    }

    #[test]
    fn an_ipv6_host_candidate_is_found() {
        let answer = answer(&["1 1 udp 1 2001:db8::1 8000 typ host"]);
        assert_eq!(first_udp_host(&answer), Some("[2001:db8::1]:8000".parse().unwrap()));
    }

    #[test]
    fn only_candidates_for_tcp_alone_are_tcp_only() {
        let tcp = "1 1 TCP 1 10.0.0.1 1001 typ host tcptype passive";
        let udp = "1 1 udp 1 10.0.0.1 1001 typ host";
        let table: [(&[&str], bool); 4] =
            [(&[tcp], true), (&[tcp, tcp], true), (&[tcp, udp], false), (&[], false)];
        for (candidates, expected) in table {
            assert_eq!(is_tcp_only(&answer(candidates)), expected, "{candidates:?}");
        }
        assert!(!is_tcp_only("no description"));
    }
}
