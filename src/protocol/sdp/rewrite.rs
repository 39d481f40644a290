//! The lines that change on the way.

use std::net::{IpAddr, SocketAddr};

use super::SdpError;
use super::candidate::{Candidate, write_own};
use super::description::{Description, MediaPort, Section, attribute, field};

/// A description on its way from the origin to the client (an answer, or the counter-offer of a
/// 406), with the relay's addresses in the place of the origin's.
///
/// `relay` is in order of preference: first the family that the client already uses.
///
/// - Every candidate goes, whatever its type, transport and address, and so does every
///   `a=remote-candidates`.
/// - The relay's own stand at the end of each m-section that has a transport of its own and had
///   candidates, or whose bundle had; if there is none, in the first section that has a transport.
///   Behind them stands `a=end-of-candidates`, for nothing more will come.
/// - Component 2 is written where the origin used it.
/// - The address in `c=` and `a=rtcp` and the port in `m=` become the first of the relay's, where
///   they are real: 9, 0 and the unspecified address stay.
///
/// # Errors
/// A malformed description, or an empty `relay`.
pub fn to_client(sdp: &str, relay: &[SocketAddr]) -> Result<String, SdpError> {
    with_own_candidates(&Description::parse(sdp)?, relay)
}

/// The fragment that answers an ICE restart, changed as [`to_client`] changes a description.
///
/// # Errors
/// A malformed fragment, or an empty `relay`.
pub fn fragment_to_client(fragment: &str, relay: &[SocketAddr]) -> Result<String, SdpError> {
    with_own_candidates(&Description::parse_fragment(fragment)?, relay)
}

/// A description on its way from the client to the origin: without candidates, remote candidates
/// and `a=end-of-candidates`.
///
/// The relay's own address is not put in their place: the port that the origin will hear from is
/// not known before the client's first packet, which makes it a peer-reflexive candidate.
///
/// # Errors
/// A malformed description.
pub fn to_origin(sdp: &str) -> Result<String, SdpError> {
    Ok(without_candidates(&Description::parse(sdp)?))
}

/// A fragment on its way from the client to the origin, changed as [`to_origin`] changes a
/// description.
///
/// # Errors
/// A malformed fragment.
pub fn fragment_to_origin(fragment: &str) -> Result<String, SdpError> {
    Ok(without_candidates(&Description::parse_fragment(fragment)?))
}

fn without_candidates(description: &Description<'_>) -> String {
    let sections = std::iter::once(&description.session).chain(&description.media);
    let mut output = String::new();
    for line in sections.flat_map(|section| &section.lines) {
        if IceLine::of(line).is_none() {
            push_line(&mut output, line);
        }
    }
    output
}

fn with_own_candidates(
    description: &Description<'_>,
    relay: &[SocketAddr],
) -> Result<String, SdpError> {
    let default = *relay.first().ok_or(SdpError::NoAddress)?;
    let places = Places::of(description);
    let mut output = String::new();
    push_section(&mut output, &description.session, default, places.in_session);
    if places.in_session {
        push_candidates(&mut output, &description.session, relay);
    }
    for (index, section) in description.media.iter().enumerate() {
        let carrier = places.carriers.get(index).unwrap_or(&index);
        push_section(&mut output, section, default, places.in_media.contains(carrier));
        if places.in_media.contains(&index) {
            push_candidates(&mut output, section, relay);
        }
    }
    Ok(output)
}

/// Where the relay's own candidates go.
struct Places {
    /// The m-sections that get them.
    in_media: Vec<usize>,
    /// A fragment without m-sections gets them where it had its own.
    in_session: bool,
    /// The section whose transport carries each section.
    carriers: Vec<usize>,
}

impl Places {
    fn of(description: &Description<'_>) -> Self {
        let carriers = description.carriers();
        let had_candidates: Vec<usize> = description
            .media
            .iter()
            .zip(&carriers)
            .filter(|(section, _)| section.has_candidates())
            .map(|(_, carrier)| *carrier)
            .collect();
        let transports: Vec<usize> = description.transports().collect();
        let mut in_media = transports.clone();
        in_media.retain(|index| had_candidates.contains(index));
        if in_media.is_empty() && uses_ice(description) {
            in_media.extend(transports.first());
        }
        let in_session = description.media.is_empty() && description.session.has_candidates();
        Self { in_media, in_session, carriers }
    }
}

fn uses_ice(description: &Description<'_>) -> bool {
    let mut sections = std::iter::once(&description.session).chain(&description.media);
    sections.any(|section| section.has_candidates() || section.values("ice-ufrag").next().is_some())
}

impl Section<'_> {
    fn has_candidates(&self) -> bool {
        self.values("candidate").next().is_some()
    }

    fn components(&self) -> &'static [u16] {
        let mut candidates = self.values("candidate").filter_map(Candidate::parse);
        if candidates.any(|candidate| candidate.component == 2) { &[1, 2] } else { &[1] }
    }
}

/// Appends the section's own lines. The mark that ends the candidates stays where the relay writes
/// none: it is still true there.
fn push_section(output: &mut String, section: &Section<'_>, default: SocketAddr, is_ended: bool) {
    for line in &section.lines {
        match IceLine::of(line) {
            Some(IceLine::Candidate) => {}
            Some(IceLine::End) if is_ended => {}
            Some(IceLine::End) | None => match with_default(line, default) {
                Some(changed) => push_line(output, &changed),
                None => push_line(output, line),
            },
        }
    }
}

fn push_candidates(output: &mut String, section: &Section<'_>, relay: &[SocketAddr]) {
    write_own(output, relay, section.components());
    push_line(output, "a=end-of-candidates");
}

fn push_line(output: &mut String, line: &str) {
    output.push_str(line);
    output.push_str("\r\n");
}

/// A line that is about candidates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IceLine {
    /// `a=candidate` or `a=remote-candidates`.
    Candidate,
    /// `a=end-of-candidates`.
    End,
}

impl IceLine {
    fn of(line: &str) -> Option<Self> {
        let (name, _) = attribute(line)?;
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("candidate") || is("remote-candidates") {
            Some(Self::Candidate)
        } else {
            is("end-of-candidates").then_some(Self::End)
        }
    }
}

/// The line with the relay's address instead of the origin's, if it has a real one.
fn with_default(line: &str, relay: SocketAddr) -> Option<String> {
    match field(line)? {
        (b'm', value) => {
            let MediaPort { before, port, after } = MediaPort::of(value)?;
            is_real_port(port?).then(|| format!("m={before} {}{after}", relay.port()))
        }
        (b'c', value) => is_real_address(value).then(|| format!("c={}", connection_address(relay))),
        (b'a', _) => match attribute(line)? {
            (name, Some(value)) if name.eq_ignore_ascii_case("rtcp") => rtcp(value, relay),
            _ => None,
        },
        _ => None,
    }
}

/// `a=rtcp:53020` or `a=rtcp:53020 IN IP4 192.0.2.1` (RFC 3605).
fn rtcp(value: &str, relay: SocketAddr) -> Option<String> {
    let (port, address) = match value.split_once(' ') {
        Some((port, address)) => (port, Some(address.trim_start())),
        None => (value, None),
    };
    let port: u16 = port.parse().ok()?;
    let new_port = if is_real_port(port) { relay.port() } else { port };
    let new_address = address.filter(|address| is_real_address(address));
    if new_port == port && new_address.is_none() {
        return None;
    }
    Some(match (new_address, address) {
        (Some(_), _) => format!("a=rtcp:{new_port} {}", connection_address(relay)),
        (None, Some(kept)) => format!("a=rtcp:{new_port} {kept}"),
        (None, None) => format!("a=rtcp:{new_port}"),
    })
}

/// `IN IP4 192.0.2.1`.
fn connection_address(relay: SocketAddr) -> String {
    match relay.ip().to_canonical() {
        IpAddr::V4(ip) => format!("IN IP4 {ip}"),
        IpAddr::V6(ip) => format!("IN IP6 {ip}"),
    }
}

/// Port 9 is what is written when there is no default candidate (RFC 8840, section 4.1.1), and 0
/// rejects.
fn is_real_port(port: u16) -> bool {
    !matches!(port, 0 | 9)
}

/// Whether `IN IP4 192.0.2.1` names somebody: a host name does, the unspecified address does not.
fn is_real_address(connection: &str) -> bool {
    let address = connection.split_ascii_whitespace().nth(2).unwrap_or_default();
    let ip: Option<IpAddr> = address.parse().ok();
    !address.is_empty() && !ip.is_some_and(|ip| ip.is_unspecified())
}
