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
