//! MESSAGE-INTEGRITY and FINGERPRINT (RFC 8489, sections 14.5 and 14.7).

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::attribute::{FINGERPRINT_LEN, HEAD_LEN, INTEGRITY_LEN};
use super::header::HEADER_LEN;

/// HMAC-SHA1 keyed by an ICE password.
///
/// The states behind both pads are computed here once, which leaves three blocks of SHA-1 for the
/// usual request of about 100 bytes instead of five.
#[derive(Clone)]
pub struct IntegrityKey(Hmac<Sha1>);

impl IntegrityKey {
    /// Takes the `ice-pwd` of the agent that requests are sent to. Its own requests and the
    /// responses to them go by the other agent's (RFC 8445, section 7.2.2).
    pub fn new(password: &[u8]) -> Self {
        Self(Hmac::new_from_slice(password).expect("HMAC takes keys of any length"))
    }

    /// The code of a message that has `before` in front of its MESSAGE-INTEGRITY. `None` if the
    /// message would be too long for its own length field.
    pub(super) fn code(&self, before: &[u8]) -> Option<[u8; INTEGRITY_LEN]> {
        Some(self.fed(before)?.finalize().into_bytes().into())
    }

    /// Whether `code` is that code; in constant time.
    pub(super) fn is_code_of(&self, before: &[u8], code: &[u8; INTEGRITY_LEN]) -> bool {
        self.fed(before).is_some_and(|mac| mac.verify_slice(code).is_ok())
    }

    /// The code covers a header whose length field ends with MESSAGE-INTEGRITY itself, whatever
    /// follows it in the message.
    fn fed(&self, before: &[u8]) -> Option<Hmac<Sha1>> {
        let (&[k0, k1, _, _], rest) = before.split_first_chunk::<4>()?;
        let end = before.len() + HEAD_LEN + INTEGRITY_LEN;
        let [l0, l1] = u16::try_from(end - HEADER_LEN).ok()?.to_be_bytes();
        let mut mac = self.0.clone();
        mac.update(&[k0, k1, l0, l1]);
        mac.update(rest);
        Some(mac)
    }
}

impl fmt::Debug for IntegrityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntegrityKey(..)")
    }
}

/// What a check of an attribute found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// The message has no such attribute.
    Absent,
    /// It has the right one.
    Right,
    /// It has another one.
    Wrong,
}

impl Check {
    pub(super) fn of<T>(attribute: Option<T>, is_right: impl FnOnce(T) -> bool) -> Self {
        match attribute.map(is_right) {
            None => Self::Absent,
            Some(true) => Self::Right,
            Some(false) => Self::Wrong,
        }
    }
}

/// The fingerprint of a message that has `before`, with the final length field, in front of it.
pub(super) fn fingerprint(before: &[u8]) -> [u8; FINGERPRINT_LEN] {
    (crc32fast::hash(before) ^ FINGERPRINT_MASK).to_be_bytes()
}

/// "STUN". It parts the fingerprint from the CRC-32 that an application's own packet may carry.
const FINGERPRINT_MASK: u32 = 0x5354_554E;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::stun::vectors::{RFC_5769_REQUEST, bytes};

    #[test]
    fn a_key_does_not_show_its_password() {
        let key = IntegrityKey::new(b"secret");
        assert_eq!(format!("{key:?}"), "IntegrityKey(..)");
    }

    #[test]
    fn a_password_of_more_than_one_block_is_hashed_first() {
        use sha1::Digest;
        let (long, request) = ([b'p'; 256], bytes(RFC_5769_REQUEST));
        let hashed = IntegrityKey::new(&Sha1::digest(long));
        assert_eq!(IntegrityKey::new(&long).code(&request), hashed.code(&request));
        let cut = IntegrityKey::new(&long[..64]);
        assert_ne!(IntegrityKey::new(&long).code(&request), cut.code(&request));
    }

    #[test]
    fn the_length_field_does_not_count() {
        let (key, mut before) = (IntegrityKey::new(b"p"), bytes(RFC_5769_REQUEST));
        let code = key.code(&before);
        before[2..4].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(key.code(&before), code);
    }

    #[test]
    fn a_message_too_long_for_its_length_field_has_no_code() {
        let key = IntegrityKey::new(b"p");
        let longest = usize::from(u16::MAX) + HEADER_LEN - HEAD_LEN - INTEGRITY_LEN;
        assert!(key.code(&vec![0; longest]).is_some());
        assert_eq!(key.code(&vec![0; longest + 1]), None);
        assert_eq!(key.code(&[0; 3]), None);
    }
}
