//! The words that scripted WebRTC ends speak: credentials, SDP, binding requests and media. What they
//! carry is neither DTLS nor SRTP, and a relay cannot tell.

use std::net::SocketAddr;

use ringway::protocol::stun::{
    Builder, Check, Class, IntegrityKey, Message, Method, TransactionId,
};

use super::random::Random;

/// One end's ufrag and password.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub ufrag: String,
    pub password: String,
}

impl Credentials {
    /// Such as nobody else has.
    pub fn fresh() -> Self {
        let mut seed = [0; 8];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).unwrap();
        Self::random(&mut Random::new(u64::from_ne_bytes(seed)))
    }

    fn random(random: &mut Random) -> Self {
        let mut letters = |count| -> String {
            (0..count).map(|_| char::from(b'a' + u8::try_from(random.below(26)).unwrap())).collect()
        };
        Self { ufrag: letters(8), password: letters(24) }
    }

    /// Those that `sdp` states first.
    pub fn of(sdp: &str) -> Self {
        let value = |name| attributes(sdp, name).next().unwrap_or_default().to_owned();
        Self { ufrag: value("ice-ufrag"), password: value("ice-pwd") }
    }

    pub fn key(&self) -> IntegrityKey {
        IntegrityKey::new(self.password.as_bytes())
    }
}

/// The values of all `a=name:` lines, in their order.
pub fn attributes<'a>(sdp: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    sdp.lines()
        .filter_map(move |line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'))
}

/// The addresses of all candidates of `sdp`, in their order.
pub fn candidates(sdp: &str) -> Vec<SocketAddr> {
    attributes(sdp, "candidate")
        .map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            SocketAddr::new(words[4].parse().unwrap(), words[5].parse().unwrap())
        })
        .collect()
}

/// An offer or an answer of one audio section. `lines` stand at its end.
pub fn sdp(own: &Credentials, setup: &str, lines: &str) -> String {
    let fingerprint = ["AB"; 32].join(":");
    let Credentials { ufrag, password } = own;
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtcp-mux\r\n\
         a=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\na=fingerprint:sha-256 {fingerprint}\r\n\
         a=setup:{setup}\r\na=rtpmap:111 opus/48000/2\r\n{lines}"
    )
}

/// A binding request, as a controlling agent sends it.
pub fn binding_request(
    username: &str,
    key: &IntegrityKey,
    transaction: TransactionId,
    nominate: bool,
) -> Vec<u8> {
    let request = Builder::new(Class::Request, Method::Binding, transaction)
        .username(username.as_bytes())
        .priority(1_853_824_767)
        .controlling(7);
    let request = if nominate { request.use_candidate() } else { request };
    request.finish(Some(key), true)
}

/// The response to a request from `source`.
pub fn binding_response(request: TransactionId, source: SocketAddr, key: &IntegrityKey) -> Vec<u8> {
    Builder::new(Class::Success, Method::Binding, request)
        .xor_mapped_address(source)
        .finish(Some(key), true)
}

/// Whether `datagram` is a request or a response that the holder of `key` has vouched for.
pub fn is_vouched_for(datagram: &[u8], key: &IntegrityKey) -> bool {
    Message::parse(datagram).is_ok_and(|message| {
        message.integrity(key) == Check::Right && message.fingerprint() == Check::Right
    })
}

/// An RTP packet that carries its number twice over: in the header, and in full as its payload.
pub fn media(ssrc: u32, number: u32) -> Vec<u8> {
    let [_, _, high, low] = number.to_be_bytes();
    let mut packet = vec![0x80, 111, high, low];
    packet.extend((number * 960).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(number.to_be_bytes());
    packet.extend([0xA5; 160]);
    packet
}

/// The number that [`media`] has put in; `None` for anything else.
pub fn media_number(datagram: &[u8]) -> Option<u32> {
    let number = datagram.get(12..16)?.try_into().ok()?;
    (datagram[..2] == [0x80, 111]).then(|| u32::from_be_bytes(number))
}

/// An empty receiver report (RFC 3550, section 6.4.2).
pub fn report(ssrc: u32) -> Vec<u8> {
    [&[0x80, 201, 0, 1][..], &ssrc.to_be_bytes()].concat()
}
