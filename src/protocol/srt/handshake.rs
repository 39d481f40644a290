//! Handshakes: induction, conclusion, rejection (draft-sharabayko-srt, sections 3.2.1 and 4.3).
//!
//! A handshake is sixteen words, header included, and then extension blocks. Only handshakes may be
//! rewritten on their way through a relay: nothing authenticates them, and the far ends check no
//! more than initial sequence number, socket ID and cookie.

use std::net::IpAddr;

use super::header::{ParseError, SocketId};

/// Bytes of a handshake packet without extensions, header included.
pub const LEN: usize = 64;

/// The fixed part of a handshake packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Microseconds since the sender's start. A listener's receive clock starts from the
    /// conclusion's.
    pub timestamp: u32,
    /// Zero from a caller, the caller's socket ID from a listener.
    pub destination: SocketId,
    /// 4 in a caller's induction and in all that version-4 callers send, 5 otherwise.
    pub version: u32,
    /// Advertised key length in units of 8 bytes: 0 (none), 2, 3 or 4.
    pub encryption: u16,
    /// In conclusions which extensions follow: bit 0 HSREQ, bit 1 KMREQ, bit 2 the others. In a
    /// listener's induction [`Self::MAGIC`]; from version 4 the socket type.
    pub extension: u16,
    /// Sequence number of the first data packet; names the attempt together with socket ID and
    /// address.
    pub initial_sequence: u32,
    /// Largest IP packet, in bytes, that the sender takes.
    pub mtu: u32,
    /// Packets that may be under way.
    pub flow_window: u32,
    /// Which step this is.
    pub kind: HandshakeKind,
    /// The sender's own socket ID. A listener's induction response repeats the caller's.
    pub socket: SocketId,
    /// See [`super::CookieKey`]. Zero from a caller that has none yet.
    pub cookie: u32,
    /// The far end's address as the sender knows it, in the byte order of the wire (see
    /// [`patch::peer_ip`]).
    pub peer_ip: [u8; 16],
}

impl Handshake {
    /// Extension field of a listener's induction response (section 4.3.1.1). libsrt refuses a
    /// response without it.
    pub const MAGIC: u16 = 0x4A17;

    /// Reads the first 64 bytes of `datagram`; extensions may follow.
    ///
    /// # Errors
    /// [`ParseError::TooShort`] below 64 bytes, [`ParseError::NotAHandshake`] for every other kind
    /// of packet.
    pub fn parse(datagram: &[u8]) -> Result<Self, ParseError> {
        let Some(packet) = datagram.first_chunk::<LEN>() else {
            return Err(ParseError::TooShort { need: LEN, have: datagram.len() });
        };
        if !is_handshake(packet) {
            return Err(ParseError::NotAHandshake);
        }
        let [
            _,
            _,
            timestamp,
            destination,
            version,
            fields,
            sequence,
            mtu,
            window,
            kind,
            socket,
            cookie,
            ip @ ..,
        ] = words::<LEN, 16>(packet);
        Ok(Self {
            timestamp,
            destination: SocketId(destination),
            version,
            encryption: (fields >> 16) as u16,
            extension: fields as u16,
            initial_sequence: sequence,
            mtu,
            flow_window: window,
            kind: HandshakeKind::from_wire(kind),
            socket: SocketId(socket),
            cookie,
            peer_ip: bytes(ip),
        })
    }

    /// A listener's answer to this induction, whatever its length was: a response is never longer
    /// than its request.
    ///
    /// `timestamp` is any clock in microseconds, `encryption` the key length in units of 8 bytes,
    /// `caller` the address that the request came from. Initial sequence number, flow window and
    /// (up to 1500 bytes) MTU are echoed.
    pub fn induction_response(
        &self,
        timestamp: u32,
        encryption: u16,
        cookie: u32,
        caller: IpAddr,
    ) -> [u8; LEN] {
        Self {
            timestamp,
            destination: self.socket,
            version: 5,
            encryption,
            extension: Self::MAGIC,
            mtu: self.mtu.min(MTU_MAX),
            kind: HandshakeKind::Induction,
            cookie,
            peer_ip: peer_ip(caller),
            ..*self
        }
        .write()
    }

    /// The induction that the sender of this conclusion would send to `listener`.
    ///
    /// Nothing need be remembered of the induction that the caller really sent: it says nothing
    /// that its conclusion does not repeat.
    pub fn induction_request(&self, timestamp: u32, listener: IpAddr) -> [u8; LEN] {
        Self {
            timestamp,
            destination: SocketId(0),
            version: 4,
            encryption: 0,
            extension: SOCKET_TYPE_DATAGRAM,
            kind: HandshakeKind::Induction,
            cookie: 0,
            peer_ip: peer_ip(listener),
            ..*self
        }
        .write()
    }

    /// A refusal of this conclusion with `code`, a wire value of 1000 and more (see
    /// [`super::Rejection`]).
    ///
    /// Its other fields are the conclusion's, as libsrt has it. No extensions follow, and the
    /// extension field says so.
    pub fn rejection(&self, timestamp: u32, code: u32) -> [u8; LEN] {
        Self {
            timestamp,
            destination: self.socket,
            extension: if self.version == 4 { SOCKET_TYPE_DATAGRAM } else { 0 },
            kind: HandshakeKind::from_wire(code),
            ..*self
        }
        .write()
    }

    fn write(&self) -> [u8; LEN] {
        let fields = u32::from(self.encryption) << 16 | u32::from(self.extension);
        let [ip0, ip1, ip2, ip3] = words(&self.peer_ip);
        bytes([
            u32::from_be_bytes([HANDSHAKE[0], HANDSHAKE[1], 0, 0]),
            0,
            self.timestamp,
            self.destination.0,
            self.version,
            fields,
            self.initial_sequence,
            self.mtu,
            self.flow_window,
            self.kind.wire(),
            self.socket.0,
            self.cookie,
            ip0,
            ip1,
            ip2,
            ip3,
        ])
    }
}

/// The handshake type field: which step of a connection this is (section 3.2.1, table 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeKind {
    /// 1: the caller asks for a cookie, the listener sends one.
    Induction,
    /// 0xFFFFFFFF: the caller wants the connection, the listener grants it.
    Conclusion,
    /// 0: the first step of a rendezvous, which has no listener and cannot be relayed.
    WaveAHand,
    /// 0xFFFFFFFE: the last step of a rendezvous.
    Agreement,
    /// 0xFFFFFFFD: defined, but sent by nobody.
    Done,
    /// 1000 and more: refused, with the whole wire value.
    Rejection(u32),
    /// Any other value.
    Other(u32),
}

impl HandshakeKind {
    /// Reads the field. Values above 2^31 are small negative numbers to a peer, so they are no
    /// rejections.
    pub fn from_wire(value: u32) -> Self {
        match value {
            0 => Self::WaveAHand,
            1 => Self::Induction,
            0xFFFF_FFFD => Self::Done,
            0xFFFF_FFFE => Self::Agreement,
            0xFFFF_FFFF => Self::Conclusion,
            1000..0x8000_0000 => Self::Rejection(value),
            other => Self::Other(other),
        }
    }

    /// What stands in the field.
    pub fn wire(self) -> u32 {
        match self {
            Self::WaveAHand => 0,
            Self::Induction => 1,
            Self::Done => 0xFFFF_FFFD,
            Self::Agreement => 0xFFFF_FFFE,
            Self::Conclusion => 0xFFFF_FFFF,
            Self::Rejection(value) | Self::Other(value) => value,
        }
    }
}

/// The extension blocks that a relay reads (section 3.2.1.1 and following).
///
/// Of several blocks of one type the first counts. A block that is too short for its type counts as
/// absent, except the stream ID's: what else is wrong in it is the origin's to judge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// The caller's version and delays. Every version-5 conclusion of a caller must carry it.
    pub hsreq: Option<HsReq>,
    /// The listener's version and the delays agreed on; only in a conclusion response.
    pub hsrsp: Option<HsReq>,
    /// The stream ID in reading order without trailing NULs; `None` also when nothing is left of
    /// it.
    ///
    /// It may hold secrets: it is for [`super::StreamId::parse`] and for no log.
    pub stream_id: Option<String>,
    /// How the stream will be encrypted; `None` when it is clear.
    pub key_material: Option<KeyMaterial>,
    /// The bonding group that the caller belongs to.
    pub group: Option<GroupId>,
}

impl Extensions {
    /// Reads the blocks behind the first 64 bytes of `datagram`, a version-5 conclusion. Version 4
    /// has no such blocks.
    ///
    /// Blocks come in any order, and unknown ones are skipped. Lengths count words, so up to three
    /// bytes behind the last word belong to nothing. Work is bounded by the datagram's length: each
    /// block takes at least four bytes of it.
    ///
    /// # Errors
    /// [`ParseError::ExtensionTooLong`] when a block runs past the end,
    /// [`ParseError::StreamIdLength`] and [`ParseError::StreamIdNotUtf8`] for the first stream ID,
    /// [`ParseError::TooShort`] below 64 bytes.
    pub fn parse(datagram: &[u8]) -> Result<Self, ParseError> {
        let Some((_, mut rest)) = datagram.split_first_chunk::<LEN>() else {
            return Err(ParseError::TooShort { need: LEN, have: datagram.len() });
        };
        let mut extensions = Self::default();
        let mut stream_id_seen = false;
        while let Some((&[k0, k1, w0, w1], tail)) = rest.split_first_chunk::<4>() {
            let kind = u16::from_be_bytes([k0, k1]);
            let words = u16::from_be_bytes([w0, w1]);
            let Some((content, tail)) = tail.split_at_checked(usize::from(words) * 4) else {
                return Err(ParseError::ExtensionTooLong { kind, words, left: tail.len() });
            };
            rest = tail;
            match kind {
                block::HSREQ => {
                    extensions.hsreq = extensions.hsreq.or_else(|| HsReq::parse(content))
                }
                block::HSRSP => {
                    extensions.hsrsp = extensions.hsrsp.or_else(|| HsReq::parse(content))
                }
                block::KMREQ => {
                    extensions.key_material =
                        extensions.key_material.or_else(|| KeyMaterial::parse(content));
                }
                block::SID if !stream_id_seen => {
                    stream_id_seen = true;
                    extensions.stream_id = stream_id(content)?;
                }
                block::GROUP => {
                    extensions.group = extensions.group.or_else(|| GroupId::parse(content))
                }
                _ => {}
            }
        }
        Ok(extensions)
    }
}

/// Reads the content of a SID block (section 3.2.1.3): the bytes of every word stand in reverse.
fn stream_id(content: &[u8]) -> Result<Option<String>, ParseError> {
    if content.is_empty() || content.len() > STREAM_ID_MAX {
        return Err(ParseError::StreamIdLength { length: content.len() });
    }
    let (words, _) = content.as_chunks::<4>();
    let mut text: Vec<u8> = words.iter().flat_map(|word| word.iter().rev().copied()).collect();
    text.truncate(text.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
    let text = String::from_utf8(text).map_err(|_| ParseError::StreamIdNotUtf8)?;
    Ok((!text.is_empty()).then_some(text))
}

/// Content of an HSREQ or HSRSP block (section 3.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HsReq {
    /// The sender's SRT version, 0x00MMmmpp.
    pub version: u32,
    /// What the sender can do, for instance 0x40: stream rather than message mode (section
    /// 3.2.1.1.1).
    pub flags: u32,
    /// Latency in milliseconds that the sender wants as a receiver.
    pub receiver_delay_ms: u16,
    /// Latency in milliseconds that the sender asks of its peer's receiver.
    pub sender_delay_ms: u16,
}

impl HsReq {
    fn parse(content: &[u8]) -> Option<Self> {
        let [version, flags, delays] = words(content.first_chunk::<12>()?);
        Some(Self {
            version,
            flags,
            receiver_delay_ms: (delays >> 16) as u16,
            sender_delay_ms: delays as u16,
        })
    }
}

/// What a KMREQ block shows without its secrets (section 3.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyMaterial {
    /// Bytes of the stream key: 16, 24 or 32.
    pub key_length: u8,
    /// AES-GCM, which authenticates the header of every data packet, rather than AES-CTR.
    pub gcm: bool,
}

impl KeyMaterial {
    fn parse(content: &[u8]) -> Option<Self> {
        let &[_, _, _, _, _, _, _, _, cipher, _, _, _, _, _, _, key_words] =
            content.first_chunk::<16>()?;
        let key_length = match key_words {
            4 => 16,
            6 => 24,
            8 => 32,
            _ => return None,
        };
        Some(Self { key_length, gcm: cipher == CIPHER_AES_GCM })
    }
}

/// The caller's bonding group, as the caller numbered it: all members must reach one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupId(pub u32);

impl GroupId {
    /// A GROUP block (section 3.2.1.4) is two words: the ID, then type, flags and weight.
    fn parse(content: &[u8]) -> Option<Self> {
        let [id, _] = words(content.first_chunk::<8>()?);
        Some(Self(id))
    }
}

/// Patches of a handshake in place.
///
/// Each returns false, and changes nothing, when `datagram` is not a handshake of at least 64
/// bytes: no other packet may be rewritten, for AES-GCM authenticates the whole header of data
/// packets.
pub mod patch {
    use std::net::IpAddr;

    use super::super::header::SocketId;
    use super::{LEN, is_handshake};

    /// Puts in the cookie of another listener.
    pub fn cookie(datagram: &mut [u8], cookie: u32) -> bool {
        word(datagram, 44, |_| cookie)
    }

    /// Puts in the far end's address: the listener's on the way to it, the caller's on the way
    /// back.
    ///
    /// libsrt reverses the bytes of each word: 127.0.0.1 is `01 00 00 7f` and twelve zeros. A
    /// v4-mapped address becomes the IPv4 address it stands for.
    pub fn peer_ip(datagram: &mut [u8], peer: IpAddr) -> bool {
        let Some((_, field)) =
            handshake(datagram).and_then(|packet| packet.split_last_chunk_mut::<16>())
        else {
            return false;
        };
        *field = super::peer_ip(peer);
        true
    }

    /// Adds `micros` to the timestamp, modulo 2^32: the time for which the packet was held.
    pub fn add_to_timestamp(datagram: &mut [u8], micros: u32) -> bool {
        word(datagram, 8, |timestamp| timestamp.wrapping_add(micros))
    }

    /// Lowers the MTU to `mtu` bytes if it is larger.
    pub fn clamp_mtu(datagram: &mut [u8], mtu: u32) -> bool {
        word(datagram, 28, |current| current.min(mtu))
    }

    /// Puts in the receiver's socket ID.
    pub fn destination(datagram: &mut [u8], destination: SocketId) -> bool {
        word(datagram, 12, |_| destination.0)
    }

    /// Changes the word at offset `at`.
    fn word(datagram: &mut [u8], at: usize, change: impl FnOnce(u32) -> u32) -> bool {
        let field =
            handshake(datagram).and_then(|packet| packet.get_mut(at..)?.first_chunk_mut::<4>());
        let Some(field) = field else { return false };
        *field = change(u32::from_be_bytes(*field)).to_be_bytes();
        true
    }

    fn handshake(datagram: &mut [u8]) -> Option<&mut [u8; LEN]> {
        datagram.first_chunk_mut::<LEN>().filter(|packet| is_handshake(packet))
    }
}

fn is_handshake(packet: &[u8; LEN]) -> bool {
    packet.starts_with(&HANDSHAKE)
}

/// An address in the word order of libsrt, which reverses the bytes of each word.
fn peer_ip(address: IpAddr) -> [u8; 16] {
    let reversed = |octets: [u8; 4]| u32::from_le_bytes(octets);
    match address.to_canonical() {
        IpAddr::V4(address) => bytes([reversed(address.octets()), 0, 0, 0]),
        IpAddr::V6(address) => bytes(words::<16, 4>(&address.octets()).map(u32::swap_bytes)),
    }
}

/// The big-endian words that `BYTES` bytes hold.
fn words<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u32; WORDS] {
    const { assert!(BYTES == WORDS * 4) };
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    words
}

/// The inverse of [`words`].
fn bytes<const BYTES: usize, const WORDS: usize>(words: [u32; WORDS]) -> [u8; BYTES] {
    const { assert!(BYTES == WORDS * 4) };
    let mut bytes = [0; BYTES];
    for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_be_bytes();
    }
    bytes
}

/// Extension types (section 3.2.1, table 5).
mod block {
    pub(super) const HSREQ: u16 = 1;
    pub(super) const HSRSP: u16 = 2;
    pub(super) const KMREQ: u16 = 3;
    pub(super) const SID: u16 = 5;
    pub(super) const GROUP: u16 = 8;
}

/// First two bytes of a handshake packet.
const HANDSHAKE: [u8; 2] = [0x80, 0];
/// Bytes of the largest IP packet that a libsrt caller accepts in an induction response.
const MTU_MAX: u32 = 1500;
/// Extension field of version 4: messages, not a byte stream.
const SOCKET_TYPE_DATAGRAM: u16 = 2;
/// Bytes of the longest stream ID.
const STREAM_ID_MAX: usize = 512;
/// Cipher byte of a key material message.
const CIPHER_AES_GCM: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::srt::vectors::{
        CONCLUSION, CONCLUSION_V4, CONCLUSION_WITH_PASSPHRASE, CONCLUSION_WITHOUT_STREAM_ID,
        INDUCTION, INDUCTION_V6, bytes as unhex,
    };
    use proptest::prelude::*;

    const CALLER: SocketId = SocketId(0x184b_6180);
    const HSREQ_BLOCK: &str = "00010003 00010501 000000bf 00780000";

    fn parsed(hex: &str) -> Handshake {
        Handshake::parse(&unhex(hex)).unwrap()
    }

    fn extensions(blocks: &str) -> Result<Extensions, ParseError> {
        Extensions::parse(&unhex(&format!("{INDUCTION}{blocks}")))
    }

    /// A SID block as callers write it.
    fn sid(text: &[u8]) -> Vec<u8> {
        let words = text.len().div_ceil(4);
        let mut block = vec![0, 5];
        block.extend(u16::try_from(words).unwrap().to_be_bytes());
        for word in text.chunks(4) {
            let mut reversed = [0; 4];
            reversed[4 - word.len()..].copy_from_slice(word);
            reversed[4 - word.len()..].reverse();
            block.extend(reversed);
        }
        block
    }

    #[test]
    fn a_captured_induction_reads_as_what_libsrt_meant() {
        let expected = Handshake {
            timestamp: 0xd9,
            destination: SocketId(0),
            version: 4,
            encryption: 0,
            extension: 2,
            initial_sequence: 0x0c3c_99c7,
            mtu: 1500,
            flow_window: 8192,
            kind: HandshakeKind::Induction,
            socket: CALLER,
            cookie: 0,
            peer_ip: [1, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        };
        assert_eq!(parsed(INDUCTION), expected);
    }

    #[test]
    fn a_captured_conclusion_reads_as_what_libsrt_meant() {
        let conclusion = parsed(CONCLUSION);
        assert_eq!((conclusion.version, conclusion.extension), (5, 5));
        assert_eq!((conclusion.kind, conclusion.cookie), (HandshakeKind::Conclusion, 0xcafe_babe));
        assert_eq!((conclusion.socket, conclusion.initial_sequence), (CALLER, 0x0c3c_99c7));
    }

    #[test]
    fn a_version_4_conclusion_has_a_fixed_part_alone() {
        let conclusion = parsed(CONCLUSION_V4);
        assert_eq!((conclusion.version, conclusion.extension, conclusion.flow_window), (4, 2, 100));
        assert_eq!(
            (conclusion.kind, conclusion.socket),
            (HandshakeKind::Conclusion, SocketId(0x0027_4921))
        );
    }

    #[test]
    fn the_extensions_of_a_captured_conclusion_are_version_delays_and_stream_id() {
        let expected = Extensions {
            hsreq: Some(HsReq {
                version: 0x10501,
                flags: 0xbf,
                receiver_delay_ms: 120,
                sender_delay_ms: 0,
            }),
            stream_id: Some("#!::h=live.example.com,r=live/livestream,m=publish".to_owned()),
            ..Extensions::default()
        };
        assert_eq!(Extensions::parse(&unhex(CONCLUSION)), Ok(expected));
    }

    #[test]
    fn a_conclusion_without_stream_id_has_none() {
        let extensions = Extensions::parse(&unhex(CONCLUSION_WITHOUT_STREAM_ID)).unwrap();
        assert!(extensions.hsreq.is_some());
        assert_eq!(
            (extensions.stream_id, extensions.key_material, extensions.group),
            (None, None, None)
        );
    }

    #[test]
    fn a_passphrase_shows_as_key_length_and_cipher() {
        let extensions = Extensions::parse(&unhex(CONCLUSION_WITH_PASSPHRASE)).unwrap();
        assert_eq!(extensions.stream_id.as_deref(), Some("live/x"));
        assert_eq!(extensions.key_material, Some(KeyMaterial { key_length: 16, gcm: false }));
    }

    #[test]
    fn stream_ids_of_other_implementations_read_the_same() {
        let gosrt =
            extensions("00050005 76696c2f74732f656d6165726f6f662e00726162 00060001 626f6f66")
                .unwrap();
        assert_eq!(gosrt.stream_id.as_deref(), Some("/live/stream.foobar"));
        let srt_rs = extensions("00050003 64636261 68676665 00006a69").unwrap();
        assert_eq!(srt_rs.stream_id.as_deref(), Some("abcdefghij"));
    }

    #[test]
    fn extension_blocks_come_in_any_order() {
        let reversed = extensions(&format!(
            "00080002 4000002a 01000001  00070001 00636566  00050001 612f6100  {HSREQ_BLOCK}"
        ))
        .unwrap();
        assert_eq!(reversed.stream_id.as_deref(), Some("\0a/a"));
        assert_eq!(reversed.group, Some(GroupId(0x4000_002a)));
        assert_eq!(reversed.hsreq.map(|hsreq| hsreq.receiver_delay_ms), Some(120));
    }

    #[test]
    fn a_block_of_an_unknown_type_is_skipped() {
        let extensions =
            extensions(&format!("7777000200000000 00000000 00000000 {HSREQ_BLOCK}")).unwrap();
        assert!(extensions.hsreq.is_some());
    }

    #[test]
    fn the_response_of_a_listener_is_not_mistaken_for_a_request() {
        let extensions = extensions("00020003 00010501 000000bf 00780050").unwrap();
        assert_eq!(extensions.hsreq, None);
        assert_eq!(extensions.hsrsp.map(|hsrsp| hsrsp.sender_delay_ms), Some(80));
    }

    #[test]
    fn the_first_of_two_stream_ids_counts() {
        assert_eq!(
            extensions("00050001 00000061 00050001 00000062").unwrap().stream_id.as_deref(),
            Some("a")
        );
        assert_eq!(
            extensions("00050001 00000061 00050000").unwrap().stream_id.as_deref(),
            Some("a")
        );
        assert_eq!(extensions("00050001 00000000 00050001 00000062").unwrap().stream_id, None);
    }

    #[test]
    fn only_the_nuls_at_the_end_of_a_stream_id_are_padding() {
        assert_eq!(
            extensions("00050002 62006100 00000000").unwrap().stream_id.as_deref(),
            Some("\0a\0b")
        );
        assert_eq!(extensions("00050002 00000000 00000000").unwrap().stream_id, None);
    }

    #[test]
    fn a_stream_id_may_be_any_utf_8_and_nothing_else() {
        let mut packet = unhex(INDUCTION);
        packet.extend(sid("live/größe".as_bytes()));
        assert_eq!(Extensions::parse(&packet).unwrap().stream_id.as_deref(), Some("live/größe"));
        assert_eq!(extensions("00050001 000000ff"), Err(ParseError::StreamIdNotUtf8));
    }

    #[test]
    fn a_stream_id_has_1_to_512_bytes() {
        let packet = |length: usize| [unhex(INDUCTION), sid(&vec![b'a'; length])].concat();
        let longest = Extensions::parse(&packet(512)).unwrap();
        assert_eq!(longest.stream_id.map(|text| text.len()), Some(512));
        assert_eq!(
            Extensions::parse(&packet(516)),
            Err(ParseError::StreamIdLength { length: 516 })
        );
        assert_eq!(Extensions::parse(&packet(0)), Err(ParseError::StreamIdLength { length: 0 }));
    }

    #[test]
    fn a_block_that_runs_past_the_end_is_an_error_whatever_its_length_field() {
        for words in [1_u16, 0x3fff, 0x4000, 0x4001, 0x8000, 0xffff] {
            let result = extensions(&format!("0005{words:04x} 616263"));
            assert_eq!(result, Err(ParseError::ExtensionTooLong { kind: 5, words, left: 3 }));
        }
    }

    #[test]
    fn bytes_behind_the_last_whole_word_belong_to_nothing() {
        let conclusion = unhex(CONCLUSION_WITHOUT_STREAM_ID);
        let expected = Extensions::parse(&conclusion);
        for tail in 1..4 {
            assert_eq!(
                Extensions::parse(&[&conclusion[..], &[0xff; 3][..tail]].concat()),
                expected
            );
            assert_eq!(Extensions::parse(&conclusion[..64 + tail]), Ok(Extensions::default()));
        }
    }

    #[test]
    fn a_block_that_is_too_short_for_its_type_counts_as_absent() {
        let blocks = "00010002 00010501 000000bf  00030001 00000004  00080001 4000002a";
        assert_eq!(extensions(blocks), Ok(Extensions::default()));
    }

    #[test]
    fn key_lengths_are_16_24_or_32_and_the_cipher_is_told() {
        let key_material = |words: &str, cipher: &str| {
            let block = format!("00030004 12202901 00000000 {cipher}000200 000004{words}");
            extensions(&block).unwrap().key_material
        };
        assert_eq!(key_material("06", "02"), Some(KeyMaterial { key_length: 24, gcm: false }));
        assert_eq!(key_material("08", "04"), Some(KeyMaterial { key_length: 32, gcm: true }));
        assert_eq!(key_material("00", "04"), None);
        assert_eq!(key_material("40", "04"), None);
    }

    #[test]
    fn fewer_than_64_bytes_are_no_handshake() {
        let packet = unhex(INDUCTION);
        for have in 0..LEN {
            let error = ParseError::TooShort { need: 64, have };
            assert_eq!(Handshake::parse(&packet[..have]), Err(error));
            assert_eq!(Extensions::parse(&packet[..have]), Err(error));
        }
        assert_eq!(Handshake::parse(&[&packet[..], &[0; 1936]].concat()), Ok(parsed(INDUCTION)));
    }

    #[test]
    fn other_packets_of_64_bytes_are_no_handshakes() {
        for first_two_bytes in [[0x00, 0x00], [0x80, 0x02], [0x80, 0x05], [0xff, 0xff]] {
            let mut packet = unhex(INDUCTION);
            packet[..2].copy_from_slice(&first_two_bytes);
            assert_eq!(Handshake::parse(&packet), Err(ParseError::NotAHandshake));
        }
    }

    #[test]
    fn every_handshake_type_has_its_number() {
        let table = [
            (0, HandshakeKind::WaveAHand),
            (1, HandshakeKind::Induction),
            (2, HandshakeKind::Other(2)),
            (999, HandshakeKind::Other(999)),
            (1000, HandshakeKind::Rejection(1000)),
            (2404, HandshakeKind::Rejection(2404)),
            (3000, HandshakeKind::Rejection(3000)),
            (0x7FFF_FFFF, HandshakeKind::Rejection(0x7FFF_FFFF)),
            (0x8000_0000, HandshakeKind::Other(0x8000_0000)),
            (0xFFFF_FFFC, HandshakeKind::Other(0xFFFF_FFFC)),
            (0xFFFF_FFFD, HandshakeKind::Done),
            (0xFFFF_FFFE, HandshakeKind::Agreement),
            (0xFFFF_FFFF, HandshakeKind::Conclusion),
        ];
        for (wire, kind) in table {
            assert_eq!((HandshakeKind::from_wire(wire), kind.wire()), (kind, wire));
        }
    }

    #[test]
    fn an_induction_response_echoes_the_request_and_adds_cookie_magic_and_key_length() {
        let response =
            parsed(INDUCTION).induction_response(7, 4, 0xcafe_babe, "203.0.113.9".parse().unwrap());
        let expected = unhex(
            "80000000 00000000 00000007 184b6180 00000005 00044a17 0c3c99c7 000005dc 00002000
             00000001 184b6180 cafebabe 097100cb 00000000 00000000 00000000",
        );
        assert_eq!(response.as_slice(), expected);
    }

    #[test]
    fn an_induction_response_lowers_a_jumbo_mtu_and_keeps_a_small_one() {
        let mtu_for = |mtu| {
            let response = Handshake { mtu, ..parsed(INDUCTION) }.induction_response(
                0,
                0,
                1,
                "::1".parse().unwrap(),
            );
            Handshake::parse(&response).unwrap().mtu
        };
        assert_eq!(
            (mtu_for(9000), mtu_for(1500), mtu_for(1400), mtu_for(u32::MAX)),
            (1500, 1500, 1400, 1500)
        );
    }

    #[test]
    fn the_induction_that_libsrt_sent_can_be_rebuilt_from_its_conclusion() {
        let rebuilt = parsed(CONCLUSION).induction_request(0xd9, "127.0.0.1".parse().unwrap());
        assert_eq!(rebuilt.as_slice(), unhex(INDUCTION));
    }

    #[test]
    fn a_rejection_is_the_conclusion_turned_round_without_extensions() {
        let rejection = parsed(CONCLUSION).rejection(9, 2404);
        let expected = unhex(
            "80000000 00000000 00000009 184b6180 00000005 00000000 0c3c99c7 000005dc 00002000
             00000964 184b6180 cafebabe 0100007f 00000000 00000000 00000000",
        );
        assert_eq!(rejection.as_slice(), expected);
    }

    #[test]
    fn a_rejection_has_the_version_that_the_caller_used() {
        let rejection = |version| {
            let packet = Handshake { version, ..parsed(CONCLUSION) }.rejection(9, 1008);
            Handshake::parse(&packet)
                .map(|handshake| (handshake.version, handshake.extension))
                .unwrap()
        };
        assert_eq!((rejection(4), rejection(5), rejection(6)), ((4, 2), (5, 0), (6, 0)));
    }

    #[test]
    fn an_address_is_written_in_the_word_order_of_libsrt() {
        let written = |address: &str| {
            let mut packet = unhex(INDUCTION);
            assert!(patch::peer_ip(&mut packet, address.parse().unwrap()));
            Handshake::parse(&packet).unwrap().peer_ip
        };
        assert_eq!(written("127.0.0.1"), parsed(INDUCTION).peer_ip);
        assert_eq!(written("::ffff:127.0.0.1"), parsed(INDUCTION).peer_ip);
        assert_eq!(written("::1"), parsed(INDUCTION_V6).peer_ip);
        assert_eq!(written("2001:db8::1").as_slice(), unhex("b80d0120 00000000 00000000 01000000"));
    }

    #[test]
    fn each_patch_changes_its_own_field_and_no_other_byte() {
        type Patch = fn(&mut [u8]) -> bool;
        let table: [(std::ops::Range<usize>, &str, Patch); 5] = [
            (44..48, "00000005", |packet| patch::cookie(packet, 5)),
            (48..64, "0400007f 00000000 00000000 00000000", |packet| {
                patch::peer_ip(packet, [127, 0, 0, 4].into())
            }),
            (8..12, "00000120", |packet| patch::add_to_timestamp(packet, u32::MAX)),
            (28..32, "00000578", |packet| patch::clamp_mtu(packet, 1400)),
            (12..16, "00000009", |packet| patch::destination(packet, SocketId(9))),
        ];
        for (field, value, patch) in table {
            let mut expected = unhex(CONCLUSION);
            expected[field.clone()].copy_from_slice(&unhex(value));
            let mut packet = unhex(CONCLUSION);
            assert!(patch(&mut packet));
            assert_eq!(packet, expected, "{field:?}");
        }
    }

    #[test]
    fn a_smaller_mtu_is_kept() {
        let mut packet = unhex(CONCLUSION);
        assert!(patch::clamp_mtu(&mut packet, 9000));
        assert_eq!(packet, unhex(CONCLUSION));
    }

    #[test]
    fn nothing_but_a_whole_handshake_is_patched() {
        let mut data = unhex(CONCLUSION);
        data[0] = 0;
        for original in [unhex(CONCLUSION)[..63].to_vec(), data] {
            let mut packet = original.clone();
            assert!(!patch::cookie(&mut packet, 1));
            assert!(!patch::peer_ip(&mut packet, [127, 0, 0, 1].into()));
            assert!(!patch::add_to_timestamp(&mut packet, 1));
            assert!(!patch::clamp_mtu(&mut packet, 1));
            assert!(!patch::destination(&mut packet, SocketId(1)));
            assert_eq!(packet, original);
        }
    }

    proptest! {
        #[test]
        fn the_fixed_part_reads_back(
            [timestamp, destination, version, initial_sequence]: [u32; 4],
            [mtu, flow_window, kind, socket, cookie]: [u32; 5],
            encryption: u16,
            extension: u16,
            peer_ip: [u8; 16],
        ) {
            let handshake = Handshake {
                timestamp,
                destination: SocketId(destination),
                version,
                encryption,
                extension,
                initial_sequence,
                mtu,
                flow_window,
                kind: HandshakeKind::from_wire(kind),
                socket: SocketId(socket),
                cookie,
                peer_ip,
            };
            prop_assert_eq!(Handshake::parse(&handshake.write()), Ok(handshake));
        }

        #[test]
        fn a_stream_id_reads_back(text in "[^\0]{1,128}") {
            let packet = [unhex(INDUCTION), sid(text.as_bytes())].concat();
            prop_assert_eq!(Extensions::parse(&packet).unwrap().stream_id, Some(text));
        }

        #[test]
        fn no_bytes_make_the_readers_panic(
            tail in prop::collection::vec(any::<u8>(), 0..300),
            cut in 0_usize..364,
        ) {
            let mut packet = [unhex(INDUCTION), tail].concat();
            packet.truncate(cut);
            let _ = (Handshake::parse(&packet), Extensions::parse(&packet));
        }

        #[test]
        fn well_framed_garbage_is_read_without_panic_or_overrun(
            blocks in prop::collection::vec(
                (0_u16..10, prop::collection::vec(any::<u32>(), 0..40)),
                0..12,
            )
        ) {
            let mut packet = unhex(INDUCTION);
            for (kind, words) in &blocks {
                packet.extend(kind.to_be_bytes());
                packet.extend(u16::try_from(words.len()).unwrap().to_be_bytes());
                packet.extend(words.iter().flat_map(|word| word.to_be_bytes()));
            }
            let result = Extensions::parse(&packet);
            let overrun = matches!(result, Err(ParseError::ExtensionTooLong { .. }));
            prop_assert!(!overrun, "{:?}", result);
        }
    }
}
