//! Makes whole messages: the other end of the relay's own reading.
//!
//! The relay itself answers nobody. Emulated clients and origins do.

use std::net::SocketAddr;

use super::address::XorAddress;
use super::attribute::{self, FINGERPRINT_LEN, HEAD_LEN, INTEGRITY_LEN};
use super::header::{Class, HEADER_LEN, Header, Method, TransactionId};
use super::integrity::IntegrityKey;
use super::writer::Writer;

/// A message that is put together attribute by attribute, in the order of the calls.
///
/// ```
/// use ringway::protocol::stun::{Builder, Check, Class, IntegrityKey, Message, Method, TransactionId};
///
/// let key = IntegrityKey::new(b"the origin's ice-pwd");
/// let request = Builder::new(Class::Request, Method::Binding, TransactionId([7; 12]))
///     .username(b"origin:client")
///     .use_candidate()
///     .finish(Some(&key), true);
/// let message = Message::parse(&request)?;
/// assert_eq!(message.username(), Some(&b"origin:client"[..]));
/// assert_eq!(message.integrity(&key), Check::Right);
/// # Ok::<(), ringway::protocol::stun::StunError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    header: Header,
    attributes: Vec<u8>,
}

impl Builder {
    /// A message without attributes.
    pub fn new(class: Class, method: Method, transaction: TransactionId) -> Self {
        Self { header: Header { class, method, transaction }, attributes: Vec::new() }
    }

    /// `receiver:sender`, as the receiver of the request sees it.
    pub fn username(self, username: &[u8]) -> Self {
        self.attribute(attribute::USERNAME, username)
    }

    /// What a candidate that this check discovers is worth (RFC 8445, section 7.1.1).
    pub fn priority(self, priority: u32) -> Self {
        self.attribute(attribute::PRIORITY, &priority.to_be_bytes())
    }

    /// ICE-CONTROLLING: the sender chooses the path. `tie_breaker` settles two such claims.
    pub fn controlling(self, tie_breaker: u64) -> Self {
        self.attribute(attribute::ICE_CONTROLLING, &tie_breaker.to_be_bytes())
    }

    /// ICE-CONTROLLED: the sender leaves the choice to the receiver.
    pub fn controlled(self, tie_breaker: u64) -> Self {
        self.attribute(attribute::ICE_CONTROLLED, &tie_breaker.to_be_bytes())
    }

    /// The sender nominates the path that this message takes.
    pub fn use_candidate(self) -> Self {
        self.attribute(attribute::USE_CANDIDATE, &[])
    }

    /// Where the request came from.
    pub fn xor_mapped_address(self, address: SocketAddr) -> Self {
        let address = XorAddress::new(address, self.header.transaction);
        self.attribute(attribute::XOR_MAPPED_ADDRESS, address.as_bytes())
    }

    /// Why the request was refused, without a phrase: `code` is 300 to 699.
    pub fn error_code(self, code: u16) -> Self {
        let [_, hundreds] = (code / 100).to_be_bytes();
        let [_, rest] = (code % 100).to_be_bytes();
        self.attribute(attribute::ERROR_CODE, &[0, 0, hundreds, rest])
    }

    /// The name of the program that sends.
    pub fn software(self, name: &str) -> Self {
        self.attribute(attribute::SOFTWARE, name.as_bytes())
    }

    /// Any attribute, padded with zeros.
    ///
    /// # Panics
    /// If `value` has more than 65535 bytes.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len()).expect("an attribute has at most 65535 bytes");
        self.attributes.extend(kind.to_be_bytes());
        self.attributes.extend(length.to_be_bytes());
        self.attributes.extend(value);
        self.attributes.resize(self.attributes.len().next_multiple_of(4), 0);
        self
    }

    /// The message, with MESSAGE-INTEGRITY if there is a `key` and with FINGERPRINT if asked for.
    ///
    /// # Panics
    /// If the attributes have more than 65535 bytes.
    pub fn finish(self, key: Option<&IntegrityKey>, fingerprint: bool) -> Vec<u8> {
        let trailers = HEAD_LEN + INTEGRITY_LEN + HEAD_LEN + FINGERPRINT_LEN;
        let mut message = vec![0; HEADER_LEN + self.attributes.len() + trailers];
        let len =
            self.write(&mut message, key, fingerprint).expect("attributes of at most 65535 bytes");
        message.truncate(len);
        message
    }

    fn write(
        &self,
        out: &mut [u8],
        key: Option<&IntegrityKey>,
        fingerprint: bool,
    ) -> Option<usize> {
        let mut writer = Writer::new(out, self.header)?;
        writer.attributes(&self.attributes)?;
        if let Some(key) = key {
            writer.integrity(key)?;
        }
        if fingerprint {
            writer.fingerprint()?;
        }
        Some(writer.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::stun::vectors::*;
    use crate::protocol::stun::{Check, Message};
    use proptest::prelude::*;

    fn binding(class: Class) -> Builder {
        Builder::new(class, Method::Binding, TRANSACTION)
    }

    #[test]
    fn messages_of_real_peers_are_built_byte_for_byte() {
        let (origin, client) = (origin_key(), client_key());
        let browser = binding(Class::Request)
            .username(b"srs1ufrg:cliu")
            .attribute(0xC057, &[0, 1, 0, 0x32])
            .controlling(0x1122_3344_5566_7788)
            .use_candidate()
            .priority(0x6e7f_1eff);
        let ffmpeg = binding(Class::Request).username(b"srs1ufrg:cliu").use_candidate();
        let srs = binding(Class::Success)
            .username(b"srs1ufrg:cliu")
            .xor_mapped_address("10.0.0.2:40000".parse().unwrap());
        let full_agent = binding(Class::Request)
            .username(b"cliu:srs1ufrg")
            .controlled(0x8877_6655_4433_2211)
            .priority(0x6eff_ffff);
        let table = [
            (browser, Some(&origin), BROWSER_REQUEST),
            (ffmpeg, Some(&origin), FFMPEG_REQUEST),
            (srs, Some(&origin), SRS_RESPONSE),
            (binding(Class::Success), Some(&client), FFMPEG_RESPONSE),
            (full_agent, Some(&client), ORIGIN_REQUEST),
            (binding(Class::Indication), None, KEEPALIVE),
        ];
        for (builder, key, hex) in table {
            assert_eq!(builder.finish(key, true), bytes(hex), "{hex}");
        }
    }

    #[test]
    fn the_type_joins_class_and_method() {
        let table = [
            (Class::Request, Method::Binding, [0x00, 0x01]),
            (Class::Indication, Method::Binding, [0x00, 0x11]),
            (Class::Success, Method::Binding, [0x01, 0x01]),
            (Class::Error, Method::Binding, [0x01, 0x11]),
            (Class::Request, Method::GoogPing, [0x02, 0x00]),
            (Class::Success, Method::GoogPing, [0x03, 0x00]),
        ];
        for (class, method, kind) in table {
            let datagram = Builder::new(class, method, TRANSACTION).finish(None, false);
            assert_eq!((&datagram[..2], datagram.len()), (&kind[..], 20), "{class:?} {method:?}");
        }
    }

    fn class() -> impl Strategy<Value = Class> {
        prop::sample::select(vec![Class::Request, Class::Indication, Class::Success, Class::Error])
    }

    proptest! {
        #[test]
        fn what_is_built_reads_back(
            class in class(),
            method in prop::sample::select(vec![Method::Binding, Method::GoogPing]),
            transaction: [u8; 12],
            username in prop::option::of(prop::collection::vec(any::<u8>(), 0..=513)),
            address: Option<SocketAddr>,
            code in prop::option::of(300_u16..700),
            software in "\\PC{0,40}",
            use_candidate: bool,
            fingerprint: bool,
            password: Option<Vec<u8>>,
        ) {
            let transaction = TransactionId(transaction);
            let key = password.as_deref().map(IntegrityKey::new);
            let mut builder = Builder::new(class, method, transaction).software(&software);
            if let Some(username) = &username {
                builder = builder.username(username);
            }
            if let Some(address) = address {
                builder = builder.xor_mapped_address(address);
            }
            if let Some(code) = code {
                builder = builder.error_code(code);
            }
            if use_candidate {
                builder = builder.use_candidate();
            }

            let datagram = builder.finish(key.as_ref(), fingerprint);

            let message = Message::parse(&datagram).unwrap();
            prop_assert_eq!((message.class(), message.method()), (class, method));
            prop_assert_eq!(message.transaction(), transaction);
            prop_assert_eq!(message.username(), username.as_deref());
            prop_assert_eq!(message.error_code(), code);
            prop_assert_eq!(message.use_candidate(), use_candidate);
            // Flow label and scope of an IPv6 address do not travel.
            let address = address.map(|it| SocketAddr::new(it.ip(), it.port()));
            prop_assert_eq!(message.mapped_address(), address);
            let (absent_or_right, other) = (key.as_ref(), IntegrityKey::new(b"another"));
            let integrity = absent_or_right.map_or(Check::Absent, |key| message.integrity(key));
            prop_assert_eq!(integrity == Check::Right, key.is_some());
            prop_assert_ne!(message.integrity(&other), Check::Right);
            prop_assert_eq!(message.fingerprint() == Check::Right, fingerprint);
        }
    }
}
