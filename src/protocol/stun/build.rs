//! Makes whole messages: the other end of the relay's own reading.
//!
//! The relay itself answers nobody. Emulated clients and origins do.

use std::net::SocketAddr;

use super::address::XorAddress;
use super::attribute::{self, HEAD_LEN};
use super::message::{FINGERPRINT_LEN, HEADER_LEN, INTEGRITY_LEN};
use super::writer::Writer;
use super::{Class, IntegrityKey, Method, TransactionId};

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
    class: Class,
    method: Method,
    transaction: TransactionId,
    attributes: Vec<u8>,
}

impl Builder {
    /// A message without attributes.
    pub fn new(class: Class, method: Method, transaction: TransactionId) -> Self {
        Self { class, method, transaction, attributes: Vec::new() }
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
        let address = XorAddress::new(address, self.transaction);
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
        let kind = self.method.wire() | self.class.wire();
        let mut writer = Writer::new(out, kind, self.transaction)?;
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
