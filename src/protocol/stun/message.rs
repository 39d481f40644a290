//! A STUN message, read where it lies (RFC 8489, sections 5 and 14).

use std::fmt;
use std::net::SocketAddr;

use super::address::XorAddress;
use super::attribute::{self, Attribute, Attributes};
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
    class: Class,
    method: Method,
    transaction: TransactionId,
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
        let Some((&[k0, k1, l0, l1, c0, c1, c2, c3, ref id @ ..], body)) =
            datagram.split_first_chunk::<HEADER_LEN>()
        else {
            return Err(StunError::TooShort);
        };
        if k0 > 3 || [c0, c1, c2, c3] != COOKIE {
            return Err(StunError::NotStun);
        }
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if length != body.len() || !length.is_multiple_of(4) {
            return Err(StunError::Length);
        }
        let kind = u16::from_be_bytes([k0, k1]);
        let mut message = Self {
            datagram,
            class: Class::from_wire(kind),
            method: Method::from_wire(kind).ok_or(StunError::Method)?,
            transaction: TransactionId(*id),
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
        self.class
    }

    /// What is asked for or answered.
    pub fn method(&self) -> Method {
        self.method
    }

    /// What joins a response to its request.
    pub fn transaction(&self) -> TransactionId {
        self.transaction
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
        XorAddress::from_wire(self.xor_mapped_address?)?.address(self.transaction)
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

/// What joins a response to its request: 96 bits that the requester has drawn at random.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionId(pub [u8; 12]);

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("STUN#")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a message is to its transaction (RFC 8489, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It wants a response.
    Request,
    /// It wants none: a keepalive.
    Indication,
    /// The request was understood and carried out.
    Success,
    /// It was not; [`Message::error_code`] says why.
    Error,
}

impl Class {
    /// The class is two bits, which stand apart between those of the method.
    fn from_wire(kind: u16) -> Self {
        match (kind & CLASS_HIGH != 0, kind & CLASS_LOW != 0) {
            (false, false) => Self::Request,
            (false, true) => Self::Indication,
            (true, false) => Self::Success,
            (true, true) => Self::Error,
        }
    }

    /// The bits of the message type that say so.
    pub(super) fn wire(self) -> u16 {
        match self {
            Self::Request => 0,
            Self::Indication => CLASS_LOW,
            Self::Success => CLASS_HIGH,
            Self::Error => CLASS_HIGH | CLASS_LOW,
        }
    }
}

/// What a request asks for. TURN's methods are none of the relay's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// "Do you receive this, and from where?" (RFC 8489, section 3): every connectivity check.
    Binding,
    /// The short check that libwebrtc sends once a binding request with the same content was
    /// answered. It has neither USERNAME nor MESSAGE-INTEGRITY but an integrity code of 32 bits in
    /// an attribute of its own, which is too short to prove an address by.
    GoogPing,
}

impl Method {
    fn from_wire(kind: u16) -> Option<Self> {
        match kind & !(CLASS_HIGH | CLASS_LOW) {
            BINDING => Some(Self::Binding),
            GOOG_PING => Some(Self::GoogPing),
            _ => None,
        }
    }

    /// The bits of the message type that say so.
    pub(super) fn wire(self) -> u16 {
        match self {
            Self::Binding => BINDING,
            Self::GoogPing => GOOG_PING,
        }
    }
}

/// Why a datagram is no message that a relay of ICE has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StunError {
    /// It is shorter than the header.
    #[error("fewer than {HEADER_LEN} bytes")]
    TooShort,
    /// The first byte is above 3, or the magic cookie is missing (RFC 8489, section 6.3).
    #[error("no STUN message by its first byte or its cookie")]
    NotStun,
    /// The length field is not that of the datagram without the header, or no multiple of 4.
    #[error("the length field disagrees with the datagram, or is no multiple of 4")]
    Length,
    /// The method is not one of [`Method`].
    #[error("a method that is not ICE's")]
    Method,
    /// An attribute, or its padding, runs past the end.
    #[error("an attribute runs past the end")]
    Attribute,
    /// USERNAME is longer than [`Message::USERNAME_MAX`].
    #[error("a USERNAME of more than {} bytes", Message::USERNAME_MAX)]
    Username,
    /// MESSAGE-INTEGRITY has not 20 bytes, or MESSAGE-INTEGRITY-SHA256 not 16, 20, 24, 28 or 32.
    #[error("a MESSAGE-INTEGRITY of a wrong length")]
    Integrity,
    /// FINGERPRINT has not 4 bytes, or is not the last attribute.
    #[error("a FINGERPRINT of a wrong length, or not at the end")]
    Fingerprint,
}

/// Bytes of the header: type, length, cookie, transaction.
pub(super) const HEADER_LEN: usize = 20;
/// The magic cookie, which told STUN from its predecessor (RFC 3489) and now tells it from noise.
pub(super) const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
/// Bytes of an HMAC-SHA1.
pub(super) const INTEGRITY_LEN: usize = 20;
/// Bytes of a CRC-32.
pub(super) const FINGERPRINT_LEN: usize = 4;

const CLASS_HIGH: u16 = 0x0100;
const CLASS_LOW: u16 = 0x0010;
/// Method 0x001, in the bits of the message type that are the method's.
const BINDING: u16 = 0x0001;
/// Method 0x080, likewise.
const GOOG_PING: u16 = 0x0200;
