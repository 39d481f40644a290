//! The 20 bytes that every STUN message starts with (RFC 8489, section 5), and what may be wrong with
//! a message.

use std::fmt;

/// What the header says once it was found to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) class: Class,
    pub(super) method: Method,
    pub(super) transaction: TransactionId,
}

impl Header {
    /// Reads the header of a message that fills `datagram` to its last byte.
    pub(super) fn parse(datagram: &[u8]) -> Result<Self, StunError> {
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
        let method = Method::from_wire(kind).ok_or(StunError::Method)?;
        Ok(Self { class: Class::from_wire(kind), method, transaction: TransactionId(*id) })
    }

    /// The message type: class and method, whose bits are woven into each other.
    pub(super) fn kind(self) -> u16 {
        self.class.wire() | self.method.wire()
    }
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
    /// It was not; [`Message::error_code`](super::Message::error_code) says why.
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
    fn wire(self) -> u16 {
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
    fn wire(self) -> u16 {
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
    /// USERNAME is longer than [`Message::USERNAME_MAX`](super::Message::USERNAME_MAX).
    #[error("a USERNAME of more than 513 bytes")]
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

const CLASS_HIGH: u16 = 0x0100;
const CLASS_LOW: u16 = 0x0010;
/// Method 0x001, in the bits of the message type that are the method's.
const BINDING: u16 = 0x0001;
/// Method 0x080, likewise.
const GOOG_PING: u16 = 0x0200;
