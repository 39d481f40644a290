//! A STUN message, read where it lies (RFC 8489, section 14).

use std::net::SocketAddr;

use super::address::XorAddress;
use super::attribute::{self, Attribute, Attributes, FINGERPRINT_LEN, INTEGRITY_LEN};
use super::header::{Class, Header, Method, StunError, TransactionId};
use super::integrity::{Check, IntegrityKey, fingerprint};

/// A well-formed message: slices of its datagram, so reading one allocates nothing.
///
/// Well-formed says nothing about who sent it. That is what [`Self::integrity`] is for.
///
/// Of attributes that come twice the first one counts. Behind MESSAGE-INTEGRITY, which does not
/// cover what follows it, nothing counts but FINGERPRINT (RFC 8489, section 14.5): the relay and
/// the agent behind it must not read one message in two ways.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    datagram: &'a [u8],
    header: Header,
    username: Option<&'a [u8]>,
    error_code: Option<&'a [u8]>,
    xor_mapped_address: Option<&'a [u8]>,
    use_candidate: bool,
    integrity: Option<Trailer<'a, INTEGRITY_LEN>>,
    fingerprint: Option<Trailer<'a, FINGERPRINT_LEN>>,
    /// Whether an integrity attribute was passed, so that no attribute counts any more.
    sealed: bool,
}

impl<'a> Message<'a> {
    /// Bytes of the longest USERNAME that ICE can make: two fragments of 256 characters and the
    /// colon between them (RFC 8445, sections 5.3 and 7.2.2).
    pub const USERNAME_MAX: usize = 513;

    /// Reads a whole datagram as one message.
    ///
    /// # Errors
    /// See [`StunError`]: any datagram is either a message by every rule or none at all.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, StunError> {
        let mut message = Self {
            datagram,
            header: Header::parse(datagram)?,
            username: None,
            error_code: None,
            xor_mapped_address: None,
            use_candidate: false,
            integrity: None,
            fingerprint: None,
            sealed: false,
        };
        let mut attributes = Attributes::of(datagram);
        while let Some(attribute) = attributes.next()? {
            message.note(attribute)?;
        }
        Ok(message)
    }

    /// Remembers what the next attribute says, if it counts.
    fn note(&mut self, attribute: Attribute<'a>) -> Result<(), StunError> {
        let Attribute { kind, value, before, .. } = attribute;
        if self.fingerprint.is_some() {
            return Err(StunError::Fingerprint);
        }
        match kind {
            attribute::FINGERPRINT => {
                let value = value.try_into().map_err(|_| StunError::Fingerprint)?;
                self.fingerprint = Some(Trailer { before, value });
            }
            attribute::MESSAGE_INTEGRITY_SHA256 => {
                if !(16..=32).contains(&value.len()) || !value.len().is_multiple_of(4) {
                    return Err(StunError::Integrity);
                }
                self.sealed = true;
            }
            _ if self.sealed => {}
            attribute::MESSAGE_INTEGRITY => {
                let value = value.try_into().map_err(|_| StunError::Integrity)?;
                self.integrity = Some(Trailer { before, value });
                self.sealed = true;
            }
            attribute::USERNAME if self.username.is_none() => {
                if value.len() > Self::USERNAME_MAX {
                    return Err(StunError::Username);
                }
                self.username = Some(value);
            }
            attribute::ERROR_CODE => _ = self.error_code.get_or_insert(value),
            attribute::XOR_MAPPED_ADDRESS => _ = self.xor_mapped_address.get_or_insert(value),
            attribute::USE_CANDIDATE => self.use_candidate = true,
            _ => {}
        }
        Ok(())
    }

    /// Request, indication or which kind of response.
    pub fn class(&self) -> Class {
        self.header.class
    }

    /// What is asked for or answered.
    pub fn method(&self) -> Method {
        self.header.method
    }

    /// What joins a response to its request.
    pub fn transaction(&self) -> TransactionId {
        self.header.transaction
    }

    /// The USERNAME as it stands there: `receiver:sender`, as the receiver of a request sees it
    /// (RFC 8445, section 7.2.2). It may be empty, and need not be text nor hold a colon.
    pub fn username(&self) -> Option<&'a [u8]> {
        self.username
    }

    /// Whether the controlling agent nominates the path that the request took (RFC 8445, section
    /// 7.1.2).
    pub fn use_candidate(&self) -> bool {
        self.use_candidate
    }

    /// Whether whoever sent the message knows the password behind `key` (RFC 8489, section 14.5).
    ///
    /// The comparison takes the same time wherever the codes differ.
    pub fn integrity(&self, key: &IntegrityKey) -> Check {
        Check::of(self.integrity, |Trailer { before, value }| key.is_code_of(before, value))
    }

    /// Whether the message arrived as it was sent (RFC 8489, section 14.7). It proves nothing about
    /// the sender.
    pub fn fingerprint(&self) -> Check {
        Check::of(self.fingerprint, |Trailer { before, value }| fingerprint(before) == *value)
    }

    /// The address that the responder saw the request come from: XOR-MAPPED-ADDRESS (RFC 8489,
    /// section 14.2). `None` if there is none, or none that can be read.
    pub fn mapped_address(&self) -> Option<SocketAddr> {
        XorAddress::from_wire(self.xor_mapped_address?)?.address(self.header.transaction)
    }

    /// The code of an error response, such as 403: consent is withdrawn (RFC 8489, section 14.8).
    /// `None` if there is none, or none that can be read.
    pub fn error_code(&self) -> Option<u16> {
        let &[_, _, hundreds, rest, ..] = self.error_code? else {
            return None;
        };
        let (hundreds, rest) = (u16::from(hundreds & 7), u16::from(rest));
        ((3..=6).contains(&hundreds) && rest < 100).then_some(hundreds * 100 + rest)
    }

    /// The whole message, as it arrived.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.datagram
    }
}

/// An attribute that vouches for the bytes in front of it.
#[derive(Clone, Copy, Debug)]
struct Trailer<'a, const LEN: usize> {
    before: &'a [u8],
    value: &'a [u8; LEN],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::stun::vectors::*;
    use crate::protocol::stun::{Builder, with_mapped_address};
    use proptest::prelude::*;

    fn rfc_5769_key() -> IntegrityKey {
        IntegrityKey::new(RFC_5769_PASSWORD)
    }

    fn error(datagram: &[u8]) -> Option<StunError> {
        Message::parse(datagram).err()
    }

    #[test]
    fn every_message_of_rfc_5769_and_of_real_peers_is_read_and_its_codes_are_right() {
        use Class::{Indication, Request, Success};
        let (rfc, origin, client) = (rfc_5769_key(), origin_key(), client_key());
        let ours = Some(&b"srs1ufrg:cliu"[..]);
        let table = [
            (RFC_5769_REQUEST, Request, Some(&b"evtj:h6vY"[..]), false, &rfc, Check::Right),
            (RFC_5769_RESPONSE_V4, Success, None, false, &rfc, Check::Right),
            (RFC_5769_RESPONSE_V6, Success, None, false, &rfc, Check::Right),
            (BROWSER_REQUEST, Request, ours, true, &origin, Check::Right),
            (FFMPEG_REQUEST, Request, ours, true, &origin, Check::Right),
            (SRS_RESPONSE, Success, ours, false, &origin, Check::Right),
            (SRS_RESPONSE_FOR_V4, Success, ours, false, &origin, Check::Right),
            (SRS_RESPONSE_FOR_V6, Success, ours, false, &origin, Check::Right),
            (FFMPEG_RESPONSE, Success, None, false, &client, Check::Right),
            (ORIGIN_REQUEST, Request, Some(b"cliu:srs1ufrg"), false, &client, Check::Right),
            (KEEPALIVE, Indication, None, false, &client, Check::Absent),
        ];
        for (hex, class, username, use_candidate, key, integrity) in table {
            let datagram = bytes(hex);
            let message = Message::parse(&datagram).unwrap();
            assert_eq!((message.class(), message.method()), (class, Method::Binding), "{hex}");
            assert_eq!(message.username(), username, "{hex}");
            assert_eq!(message.use_candidate(), use_candidate, "{hex}");
            assert_eq!(message.integrity(key), integrity, "{hex}");
            assert_eq!(message.fingerprint(), Check::Right, "{hex}");
            assert_eq!((message.error_code(), message.as_bytes()), (None, &datagram[..]), "{hex}");
        }
    }

    #[test]
    fn the_address_of_a_response_is_read_in_both_families() {
        let table = [
            (RFC_5769_RESPONSE_V4, "192.0.2.1:32853"),
            (RFC_5769_RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
            (SRS_RESPONSE, "10.0.0.2:40000"),
            (SRS_RESPONSE_FOR_V4, "203.0.113.7:54321"),
            (SRS_RESPONSE_FOR_V6, "[2001:db8::7]:54321"),
        ];
        for (hex, address) in table {
            let datagram = bytes(hex);
            let mapped = Message::parse(&datagram).unwrap().mapped_address();
            assert_eq!(mapped, Some(address.parse().unwrap()), "{hex}");
        }
        let without = bytes(FFMPEG_RESPONSE);
        assert_eq!(Message::parse(&without).unwrap().mapped_address(), None);
    }

    #[test]
    fn the_transaction_is_that_of_the_header() {
        let datagram = bytes(BROWSER_REQUEST);
        let transaction = Message::parse(&datagram).unwrap().transaction();
        assert_eq!(transaction, TRANSACTION);
        assert_eq!(format!("{transaction:?}"), "STUN#000102030405060708090a0b");
    }

    #[test]
    fn what_breaks_a_rule_is_no_message() {
        let username = |length| message(0x0001, &attribute(0x0006, &vec![b'u'; length]));
        let integrity = |length| message(0x0001, &attribute(0x0008, &vec![0; length]));
        let sha256 = |length| message(0x0001, &attribute(0x001C, &vec![0; length]));
        let fingerprint = |length| message(0x0001, &attribute(0x8028, &vec![0; length]));
        let twice = [attribute(0x8028, &[0; 4]), attribute(0x8028, &[0; 4])].concat();
        let early = [attribute(0x8028, &[0; 4]), attribute(0x8022, b"late")].concat();
        let empty = message(0x0001, &[]);
        let with_length = |field: u16| {
            [&empty[..2], &field.to_be_bytes(), &empty[4..], &[0x80, 0x22, 0, 0]].concat()
        };
        let with_byte = |at: usize, byte| {
            let mut datagram = empty.clone();
            datagram[at] = byte;
            datagram
        };
        let table = [
            ("nothing", Vec::new(), StunError::TooShort),
            ("19 bytes", empty[..19].to_vec(), StunError::TooShort),
            ("1 byte of attributes", message(0x0001, &[0]), StunError::Length),
            ("2 bytes of attributes", message(0x0001, &[0; 2]), StunError::Length),
            ("3 bytes of attributes", message(0x0001, &[0; 3]), StunError::Length),
            ("no padding", message(0x0001, &[0, 6, 0, 1, b'u']), StunError::Length),
            ("a length of 0 with 4 bytes", with_length(0), StunError::Length),
            ("a length of 8 with 4 bytes", with_length(8), StunError::Length),
            ("a length of 65532 with 4 bytes", with_length(65532), StunError::Length),
            ("a cookie of another", with_byte(7, 0x43), StunError::NotStun),
            ("top bits", with_byte(0, 0x80), StunError::NotStun),
            ("a first byte of 4", with_byte(0, 4), StunError::NotStun),
            ("Allocate of TURN", message(0x0003, &[]), StunError::Method),
            ("method 0", message(0x0000, &[]), StunError::Method),
            ("both methods at once", message(0x0201, &[]), StunError::Method),
            ("65535 bytes of 0", message(0x0001, &[0, 6, 0xff, 0xff]), StunError::Attribute),
            ("5 bytes of 4", message(0x0001, &[0, 6, 0, 5, 1, 2, 3, 4]), StunError::Attribute),
            ("an attribute 0 of 0xffff", message(0x0001, &[0xff; 4]), StunError::Attribute),
            ("a USERNAME of 514 bytes", username(514), StunError::Username),
            ("MESSAGE-INTEGRITY of 16 bytes", integrity(16), StunError::Integrity),
            ("MESSAGE-INTEGRITY of 24 bytes", integrity(24), StunError::Integrity),
            ("MESSAGE-INTEGRITY of nothing", integrity(0), StunError::Integrity),
            ("MESSAGE-INTEGRITY-SHA256 of 12 bytes", sha256(12), StunError::Integrity),
            ("MESSAGE-INTEGRITY-SHA256 of 18 bytes", sha256(18), StunError::Integrity),
            ("MESSAGE-INTEGRITY-SHA256 of 36 bytes", sha256(36), StunError::Integrity),
            ("FINGERPRINT of 3 bytes", fingerprint(3), StunError::Fingerprint),
            ("FINGERPRINT of 8 bytes", fingerprint(8), StunError::Fingerprint),
            ("FINGERPRINT twice", message(0x0001, &twice), StunError::Fingerprint),
            ("something behind FINGERPRINT", message(0x0001, &early), StunError::Fingerprint),
        ];
        for (case, datagram, expected) in table {
            assert_eq!(error(&datagram), Some(expected), "{case}");
        }
    }

    #[test]
    fn a_message_cut_anywhere_is_no_message() {
        let whole = bytes(BROWSER_REQUEST);
        for length in 0..whole.len() {
            let expected = if length < 20 { StunError::TooShort } else { StunError::Length };
            assert_eq!(error(&whole[..length]), Some(expected), "{length} bytes");
        }
    }

    #[test]
    fn a_username_is_handed_over_as_it_is() {
        let longest = vec![b'u'; Message::USERNAME_MAX];
        for username in [&b""[..], b"no colon", b"two:colons:", b":", b"\xff\0:\n", &longest] {
            let datagram = message(0x0001, &attribute(0x0006, username));
            assert_eq!(Message::parse(&datagram).unwrap().username(), Some(username));
        }
    }

    #[test]
    fn of_attributes_that_come_twice_the_first_counts() {
        let attributes = [
            attribute(0x0006, b"one:a"),
            attribute(0x0020, &[0, 1, 0x21, 0x12, 0x21, 0x12, 0xa4, 0x42]),
            attribute(0x0009, &[0, 0, 4, 3]),
            attribute(0x0006, b"two:b"),
            attribute(0x0006, &[b'u'; 600]),
            attribute(0x0020, &[0, 1, 0, 0, 0, 0, 0, 0]),
            attribute(0x0009, &[0, 0, 4, 0]),
        ];
        let datagram = message(0x0111, &attributes.concat());
        let message = Message::parse(&datagram).unwrap();
        assert_eq!(message.username(), Some(&b"one:a"[..]));
        assert_eq!(message.mapped_address(), Some("0.0.0.0:0".parse().unwrap()));
        assert_eq!(message.error_code(), Some(403));
    }

    #[test]
    fn behind_an_integrity_attribute_nothing_counts_but_the_fingerprint() {
        let late = [
            attribute(0x0006, b"srs1ufrg:cliu"),
            attribute(0x0025, &[]),
            attribute(0x0009, &[0, 0, 4, 3]),
            attribute(0x0020, &[0, 1, 0, 0, 0, 0, 0, 0]),
            attribute(0x0008, &[0; 7]),
            attribute(0x8028, &[1, 2, 3, 4]),
        ]
        .concat();
        for seal in [attribute(0x0008, &[7; 20]), attribute(0x001C, &[7; 32])] {
            let datagram = message(0x0001, &[seal, late.clone()].concat());
            let message = Message::parse(&datagram).unwrap();
            assert_eq!((message.username(), message.use_candidate()), (None, false));
            assert_eq!((message.error_code(), message.mapped_address()), (None, None));
            assert_eq!(message.fingerprint(), Check::Wrong);
        }
    }

    #[test]
    fn an_integrity_code_behind_that_of_sha256_is_none() {
        let key = origin_key();
        let datagram = Builder::new(Class::Request, Method::Binding, TRANSACTION)
            .attribute(attribute::MESSAGE_INTEGRITY_SHA256, &[7; 32])
            .finish(Some(&key), false);
        assert_eq!(Message::parse(&datagram).unwrap().integrity(&key), Check::Absent);
    }

    #[test]
    fn the_other_agents_password_does_not_pass() {
        let datagram = bytes(BROWSER_REQUEST);
        assert_eq!(Message::parse(&datagram).unwrap().integrity(&client_key()), Check::Wrong);
    }

    #[test]
    fn a_change_of_any_bit_fails_the_integrity_check_or_the_fingerprint() {
        let (whole, key) = (bytes(BROWSER_REQUEST), origin_key());
        // The codes themselves are the last 32 bytes; each vouches for what is in front of it.
        let covered = whole.len() - 32;
        for bit in 0..whole.len() * 8 {
            let mut datagram = whole.clone();
            datagram[bit / 8] ^= 1 << (bit % 8);
            let Ok(message) = Message::parse(&datagram) else { continue };
            let is_covered = bit / 8 < covered;
            assert!(!is_covered || message.integrity(&key) != Check::Right, "bit {bit}");
            assert_ne!(message.fingerprint(), Check::Right, "bit {bit}");
        }
    }

    #[test]
    fn a_wrong_fingerprint_shows_although_the_integrity_is_right() {
        let (mut datagram, key) = (bytes(BROWSER_REQUEST), origin_key());
        *datagram.last_mut().unwrap() ^= 1;
        let message = Message::parse(&datagram).unwrap();
        assert_eq!((message.integrity(&key), message.fingerprint()), (Check::Right, Check::Wrong));
    }

    #[test]
    fn a_code_over_a_length_that_counts_the_fingerprint_is_wrong() {
        use hmac::{Hmac, KeyInit, Mac};
        let mut datagram = bytes(BROWSER_REQUEST);
        let at = datagram.len() - 8 - INTEGRITY_LEN - 4;
        let mut mac = Hmac::<sha1::Sha1>::new_from_slice(ORIGIN_PASSWORD).unwrap();
        mac.update(&datagram[..at]);
        datagram[at + 4..][..INTEGRITY_LEN].copy_from_slice(&mac.finalize().into_bytes());
        assert_eq!(Message::parse(&datagram).unwrap().integrity(&origin_key()), Check::Wrong);
    }

    #[test]
    fn a_refusal_says_its_code() {
        let datagram = Builder::new(Class::Error, Method::Binding, TRANSACTION)
            .error_code(403)
            .finish(Some(&origin_key()), true);
        let message = Message::parse(&datagram).unwrap();
        assert_eq!((message.class(), message.error_code()), (Class::Error, Some(403)));
    }

    #[test]
    fn a_code_out_of_its_range_is_none() {
        let table: [(&[u8], Option<u16>); 7] = [
            (&[0, 0, 3, 0], Some(300)),
            (&[0, 0, 6, 99], Some(699)),
            (&[0xff, 0xff, 0xfc, 87, b'a', b'b', b'c'], Some(487)),
            (&[0, 0, 2, 99], None),
            (&[0, 0, 7, 0], None),
            (&[0, 0, 4, 100], None),
            (&[0, 0, 4], None),
        ];
        for (value, code) in table {
            let datagram = message(0x0111, &attribute(0x0009, value));
            assert_eq!(Message::parse(&datagram).unwrap().error_code(), code, "{value:?}");
        }
    }

    #[test]
    fn the_short_check_of_libwebrtc_is_a_message_with_nothing_to_check() {
        let short_code = attribute(0xC060, &[1, 2, 3, 4]);
        for (kind, class) in [(0x0200, Class::Request), (0x0300, Class::Success)] {
            let datagram = message(kind, &short_code);
            let message = Message::parse(&datagram).unwrap();
            assert_eq!((message.method(), message.class()), (Method::GoogPing, class));
            assert_eq!(message.integrity(&origin_key()), Check::Absent);
            assert_eq!((message.fingerprint(), message.username()), (Check::Absent, None));
        }
    }

    #[test]
    fn attributes_that_nobody_knows_are_passed_over() {
        let unknown = [attribute(0x7fff, b"must"), attribute(0xffff, b"may be understood")];
        let datagram = message(0x0001, &[unknown.concat(), attribute(0x0006, b"a:b")].concat());
        assert_eq!(Message::parse(&datagram).unwrap().username(), Some(&b"a:b"[..]));
    }

    /// Attributes of kinds that mean something and of others, with values that fit and do not.
    fn attributes() -> impl Strategy<Value = Vec<u8>> {
        let kind = prop_oneof![
            prop::sample::select(vec![
                0x0001_u16, 0x0006, 0x0008, 0x0009, 0x001C, 0x0020, 0x0024, 0x0025, 0x8022, 0x8028,
            ]),
            any::<u16>(),
        ];
        let value = prop_oneof![
            prop::sample::select(vec![0_usize, 4, 8, 20, 32]).prop_map(|length| vec![1; length]),
            prop::collection::vec(any::<u8>(), 0..40),
        ];
        prop::collection::vec((kind, value), 0..8).prop_map(|list| {
            list.iter().flat_map(|(kind, value)| attribute(*kind, value)).collect()
        })
    }

    fn survives(datagram: &[u8]) {
        let Ok(message) = Message::parse(datagram) else { return };
        let mut out = [0; 2048];
        let client = "[2001:db8::7]:54321".parse().unwrap();
        let _ = (message.mapped_address(), message.error_code(), message.fingerprint());
        let _ = with_mapped_address(&message, client, &origin_key(), &mut out);
    }

    proptest! {
        #[test]
        fn no_datagram_panics(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
            survives(&datagram);
        }

        #[test]
        fn no_attributes_panic(kind in 0_u16..0x400, attributes in attributes(), cut in 0..80_usize) {
            survives(&message(kind, &attributes));
            let end = attributes.len().saturating_sub(cut) / 4 * 4;
            survives(&message(kind, &attributes[..end]));
        }

        #[test]
        fn random_attributes_with_a_right_code_at_the_end_read_the_same_with_and_without_it(
            attributes in attributes(),
        ) {
            let bare = message(0x0101, &attributes);
            let Ok(before) = Message::parse(&bare) else { return Ok(()) };
            prop_assume!(before.fingerprint() == Check::Absent);
            let code = IntegrityKey::new(ORIGIN_PASSWORD).code(&bare).unwrap();
            let sealed = message(0x0101, &[attributes, attribute(0x0008, &code)].concat());
            let after = Message::parse(&sealed).unwrap();
            prop_assert_eq!(after.username(), before.username());
            prop_assert_eq!(after.use_candidate(), before.use_candidate());
            prop_assert_eq!(after.mapped_address(), before.mapped_address());
            prop_assert_eq!(after.error_code(), before.error_code());
            let is_first = !before.sealed;
            prop_assert_eq!(after.integrity(&origin_key()) == Check::Right, is_first);
        }
    }
}
