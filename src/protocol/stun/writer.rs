//! Writes a message into a given buffer: header, attributes, MESSAGE-INTEGRITY, FINGERPRINT.

use super::attribute::{self, FINGERPRINT_LEN, HEAD_LEN};
use super::header::{COOKIE, HEADER_LEN, Header};
use super::integrity::{IntegrityKey, fingerprint};

/// A message under construction. Every step returns `None` if the buffer, or what a length field
/// can say, is too small for it; the buffer then holds no message.
///
/// Invariant: the length field is that of what is written so far.
pub(super) struct Writer<'o> {
    out: &'o mut [u8],
    len: usize,
}

impl<'o> Writer<'o> {
    pub(super) fn new(out: &'o mut [u8], header: Header) -> Option<Self> {
        let mut writer = Self { out, len: 0 };
        writer.put(&header.kind().to_be_bytes())?;
        writer.put(&[0, 0])?;
        writer.put(&COOKIE)?;
        writer.put(&header.transaction.0)?;
        Some(writer)
    }

    /// Takes over attributes that are written out already, with their heads and padding.
    pub(super) fn attributes(&mut self, whole: &[u8]) -> Option<()> {
        self.put(whole)?;
        self.set_length(self.len)
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) -> Option<()> {
        self.put(&kind.to_be_bytes())?;
        self.put(&u16::try_from(value.len()).ok()?.to_be_bytes())?;
        self.put(value)?;
        self.put([0; 3].get(..value.len().next_multiple_of(4) - value.len())?)?;
        self.set_length(self.len)
    }

    pub(super) fn integrity(&mut self, key: &IntegrityKey) -> Option<()> {
        let code = key.code(self.out.get(..self.len)?)?;
        self.attribute(attribute::MESSAGE_INTEGRITY, &code)
    }

    /// Must be the last: the fingerprint covers the length of the whole message.
    pub(super) fn fingerprint(&mut self) -> Option<()> {
        self.set_length(self.len + HEAD_LEN + FINGERPRINT_LEN)?;
        let fingerprint = fingerprint(self.out.get(..self.len)?);
        self.attribute(attribute::FINGERPRINT, &fingerprint)
    }

    /// Bytes written.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.out.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    fn set_length(&mut self, end: usize) -> Option<()> {
        let length = u16::try_from(end.checked_sub(HEADER_LEN)?).ok()?;
        self.out.get_mut(2..4)?.copy_from_slice(&length.to_be_bytes());
        Some(())
    }
}
