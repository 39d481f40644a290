//! The descriptions that clients and an SRS origin exchange (RFC 8866, 8839), and what each end
//! reads of the other's.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::payload;
use crate::webrtc::rtp;
use crate::webrtc::rtp::{H264, OPUS};

/// The credentials of one end: public fragment and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `a=ice-ufrag`
    pub ufrag: String,
    /// `a=ice-pwd`
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.ufrag)
    }
}

impl Credentials {
    /// As long as a browser's, 4 and 24 characters: as likely to coincide as theirs are.
    #[must_use]
    pub fn of_client(seed: u64) -> Self {
        Self { ufrag: letters(seed, 4), password: letters(!seed, 24) }
    }

    /// As long as those of SRS: 8 and 32 characters.
    #[must_use]
    pub fn of_origin(seed: u64) -> Self {
        Self { ufrag: letters(seed, 8), password: letters(!seed, 32) }
    }

    /// The first of each that a description holds; with BUNDLE there is one of each.
    #[must_use]
    pub fn read(sdp: &str) -> Option<Self> {
        let ufrag = value(sdp, "a=ice-ufrag:")?.to_owned();
        let password = value(sdp, "a=ice-pwd:")?.to_owned();
        Some(Self { ufrag, password })
    }
}

/// What a client offers: one audio and one video section in one bundle, as browsers write them.
#[must_use]
pub fn offer(own: &Credentials, stream: u64, publishes: bool) -> String {
    let direction = if publishes { "sendonly" } else { "recvonly" };
    let session = payload::mix(stream) >> 2;
    let mut sdp = format!(
        "v=0\r\no=- {session} 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
         a=extmap-allow-mixed\r\na=msid-semantic: WMS bench\r\n"
    );
    for (mid, section) in SECTIONS.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = write!(
            sdp,
            "m={kind} 9 UDP/TLS/RTP/SAVPF {format}\r\nc=IN IP4 0.0.0.0\r\n\
             a=rtcp:9 IN IP4 0.0.0.0\r\n\
             a=candidate:1467250027 1 udp 2122260223 {name}.local 46243 typ host generation 0 \
             network-id 1\r\n\
             a=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\na=ice-options:trickle\r\n\
             a=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\na=mid:{mid}\r\n\
             a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
             a={direction}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n{codec}",
            kind = section.kind,
            format = section.payload_type,
            name = letters(session, 12),
            ufrag = own.ufrag,
            password = own.password,
            fingerprint = fingerprint(session),
            codec = section.codec,
        );
        if publishes {
            let ssrc = rtp::ssrc(stream, section.payload_type);
            let _ = write!(sdp, "a=ssrc:{ssrc} cname:bench\r\na=ssrc:{ssrc} msid:bench {mid}\r\n");
        }
    }
    sdp
}

/// What an SRS origin answers to `offer`: ICE-lite, and its one candidate in every section.
#[must_use]
pub fn answer(offer: &str, own: &Credentials, candidate: SocketAddr, plays: bool) -> String {
    let direction = if plays { "sendonly" } else { "recvonly" };
    let mids: Vec<&str> = offer.lines().filter_map(|line| line.strip_prefix("a=mid:")).collect();
    let mut sdp = format!(
        "v=0\r\no=ringway-bench 4096 2 IN IP4 0.0.0.0\r\ns={name}\r\nt=0 0\r\na=ice-lite\r\n\
         a=group:BUNDLE {mids}\r\na=msid-semantic: WMS bench\r\n",
        name = if plays { "SRSPlaySession" } else { "SRSPublishSession" },
        mids = mids.join(" "),
    );
    for (section, mid) in sections(offer).zip(&mids) {
        let _ = write!(
            sdp,
            "m={kind} 9 UDP/TLS/RTP/SAVPF {format}\r\nc=IN IP4 0.0.0.0\r\n\
             a=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\n\
             a=fingerprint:sha-256 {fingerprint}\r\na=setup:passive\r\na=mid:{mid}\r\n\
             a={direction}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n{codec}\
             a=candidate:0 1 udp 2130706431 {address} {port} typ host generation 0\r\n",
            kind = section.kind,
            format = section.payload_type,
            ufrag = own.ufrag,
            password = own.password,
            fingerprint = fingerprint(0),
            codec = section.codec,
            address = candidate.ip(),
            port = candidate.port(),
        );
    }
    sdp
}

/// The first UDP host candidate: the one that FFmpeg takes, and the only one that a client which
/// does not gather anything needs.
#[must_use]
pub fn first_candidate(sdp: &str) -> Option<SocketAddr> {
    sdp.lines().find_map(|line| {
        let words: Vec<&str> = line.strip_prefix("a=candidate:")?.split(' ').collect();
        let [_, _, transport, _, address, port, "typ", "host", ..] = words.as_slice() else {
            return None;
        };
        let address: IpAddr = address.parse().ok()?;
        let port = port.trim_end().parse().ok()?;
        transport.eq_ignore_ascii_case("udp").then_some(SocketAddr::new(address, port))
    })
}

/// A media section of this tool's descriptions.
struct Section {
    kind: &'static str,
    payload_type: u8,
    codec: &'static str,
}

/// The sections that the offer has, as far as the origin knows them.
fn sections(offer: &str) -> impl Iterator<Item = &'static Section> {
    offer.lines().filter_map(|line| {
        let kind = line.strip_prefix("m=")?.split(' ').next()?;
        SECTIONS.iter().find(|section| section.kind == kind)
    })
}

/// The rest of the first line that begins with `prefix`.
fn value<'a>(sdp: &'a str, prefix: &str) -> Option<&'a str> {
    sdp.lines().find_map(|line| line.strip_prefix(prefix)).map(str::trim_end)
}

/// `length` characters that RFC 8839 allows in credentials.
fn letters(seed: u64, length: usize) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    payload::filler(seed, length)
        .into_iter()
        .filter_map(|byte| alphabet.get(usize::from(byte) % alphabet.len()))
        .map(|byte| char::from(*byte))
        .collect()
}

/// Something that looks like the hash of a certificate. No DTLS follows, so nobody compares it.
fn fingerprint(seed: u64) -> String {
    let bytes: Vec<String> =
        payload::filler(seed, 32).iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

const SECTIONS: [Section; 2] = [
    Section {
        kind: "audio",
        payload_type: OPUS,
        codec: "a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\n\
                a=fmtp:111 minptime=10;useinbandfec=1\r\n",
    },
    Section {
        kind: "video",
        payload_type: H264,
        codec: "a=rtpmap:106 H264/90000\r\na=rtcp-fb:106 transport-cc\r\na=rtcp-fb:106 nack\r\n\
                a=rtcp-fb:106 nack pli\r\n\
                a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;\
                profile-level-id=42e01f\r\n",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Credentials {
        Credentials::of_client(1)
    }

    #[test]
    fn credentials_are_those_that_the_description_gives() {
        assert_eq!(Credentials::read(&offer(&client(), 7, true)), Some(client()));
        let origin = Credentials::of_origin(9);
        assert_eq!((origin.ufrag.len(), origin.password.len()), (8, 32));
        let answer =
            answer(&offer(&client(), 7, true), &origin, "10.0.0.5:8000".parse().unwrap(), false);
        assert_eq!(Credentials::read(&answer), Some(origin));
    }

    #[test]
    fn an_offer_says_which_way_the_media_goes() {
        assert!(offer(&client(), 7, true).contains("a=sendonly\r\n"));
        let play = offer(&client(), 7, false);
        assert!(play.contains("a=recvonly\r\n") && !play.contains("a=ssrc:"), "{play}");
    }

    #[test]
    fn every_line_ends_as_a_description_must() {
        let offer = offer(&client(), 7, true);
        let candidate = "[2001:db8::7]:8000".parse().unwrap();
        let answer = answer(&offer, &Credentials::of_origin(9), candidate, true);
        for sdp in [offer, answer] {
            assert!(sdp.starts_with("v=0\r\n") && sdp.ends_with("\r\n"), "{sdp}");
            let lines = sdp.split_terminator("\r\n");
            assert!(lines.clone().all(|line| line.get(1..2) == Some("=")), "{sdp}");
            assert!(sdp.len() < 8_192, "FFmpeg reads no more: {}", sdp.len());
        }
    }

    #[test]
    fn an_answer_mirrors_the_sections_and_repeats_its_candidate_in_each() {
        let offer = offer(&client(), 7, true);
        let candidate = "10.0.0.5:8000".parse().unwrap();
        let answer = answer(&offer, &Credentials::of_origin(9), candidate, false);
        assert!(answer.contains("a=ice-lite\r\n") && answer.contains("a=group:BUNDLE 0 1\r\n"));
        assert_eq!(answer.matches("m=").count(), 2);
        assert_eq!(answer.matches("udp 2130706431 10.0.0.5 8000 typ host").count(), 2);
        assert_eq!(first_candidate(&answer), Some(candidate));
    }

    #[test]
    fn the_first_udp_candidate_with_an_address_counts() {
        let sdp = "a=candidate:1 1 tcp 1 10.0.0.1 9 typ host tcptype passive\r\n\
                   a=candidate:2 1 udp 1 host.local 9 typ host\r\n\
                   a=candidate:3 1 udp 1 10.0.0.2 9 typ srflx raddr 0.0.0.0 rport 0\r\n\
                   a=candidate:4 1 UDP 1 2001:db8::1 7000 typ host\r\n\
                   a=candidate:5 1 udp 1 10.0.0.3 9 typ host\r\n";
        assert_eq!(first_candidate(sdp), Some("[2001:db8::1]:7000".parse().unwrap()));
        assert_eq!(first_candidate("v=0\r\n"), None);
    }
}
