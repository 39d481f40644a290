//! The attributes of a message, one after the other (RFC 8489, section 14).

use super::header::{HEADER_LEN, StunError};

/// Walks over the attributes of a message whose header is known to be right.
#[derive(Clone, Debug)]
pub(super) struct Attributes<'a> {
    datagram: &'a [u8],
    at: usize,
}

impl<'a> Attributes<'a> {
    pub(super) fn of(datagram: &'a [u8]) -> Self {
        Self { datagram, at: HEADER_LEN }
    }

    /// The next attribute, or `None` at the end of the message.
    ///
    /// # Errors
    /// [`StunError::Attribute`] if it, or its padding, runs past that end.
    pub(super) fn next(&mut self) -> Result<Option<Attribute<'a>>, StunError> {
        let (before, rest) = self.datagram.split_at_checked(self.at).ok_or(StunError::Attribute)?;
        if rest.is_empty() {
            return Ok(None);
        }
        let (&[k0, k1, l0, l1], after) =
            rest.split_first_chunk::<HEAD_LEN>().ok_or(StunError::Attribute)?;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let value = after.get(..length).ok_or(StunError::Attribute)?;
        let whole =
            rest.get(..HEAD_LEN + length.next_multiple_of(4)).ok_or(StunError::Attribute)?;
        self.at += whole.len();
        Ok(Some(Attribute { kind: u16::from_be_bytes([k0, k1]), value, whole, before }))
    }
}

/// One attribute where it stands in its message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute<'a> {
    pub(super) kind: u16,
    /// Without head and padding.
    pub(super) value: &'a [u8],
    /// With both.
    pub(super) whole: &'a [u8],
    /// The message in front of it, from the first byte of the header.
    pub(super) before: &'a [u8],
}

/// Bytes of an attribute's type and length.
pub(super) const HEAD_LEN: usize = 4;
/// Bytes of an HMAC-SHA1.
pub(super) const INTEGRITY_LEN: usize = 20;
/// Bytes of a CRC-32.
pub(super) const FINGERPRINT_LEN: usize = 4;

pub(super) const MAPPED_ADDRESS: u16 = 0x0001;
pub(super) const USERNAME: u16 = 0x0006;
pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
pub(super) const ERROR_CODE: u16 = 0x0009;
pub(super) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
pub(super) const PRIORITY: u16 = 0x0024;
pub(super) const USE_CANDIDATE: u16 = 0x0025;
pub(super) const SOFTWARE: u16 = 0x8022;
pub(super) const FINGERPRINT: u16 = 0x8028;
pub(super) const ICE_CONTROLLED: u16 = 0x8029;
pub(super) const ICE_CONTROLLING: u16 = 0x802A;
