//! MESSAGE-INTEGRITY and FINGERPRINT (RFC 8489, sections 14.5 and 14.7).

use std::fmt;
use std::hint::black_box;

use sha1::block_api::compress;
use sha1::{Digest, Sha1};

use super::attribute::{FINGERPRINT_LEN, HEAD_LEN, INTEGRITY_LEN};
use super::header::HEADER_LEN;

/// HMAC-SHA1 (RFC 2104) keyed by an ICE password.
///
/// The states behind both pads are computed here once, which leaves three blocks of SHA-1 for the
/// usual request of about 100 bytes instead of five. They are all that is kept, 40 bytes of every
/// expected session: a hasher would keep room for a block that has not come yet, too.
#[derive(Clone)]
pub struct IntegrityKey {
    inner: State,
    outer: State,
}

/// Of SHA-1, between two blocks.
type State = [u32; 5];
type Block = [u8; 64];

impl IntegrityKey {
    /// Takes the `ice-pwd` of the agent that requests are sent to. Its own requests and the
    /// responses to them go by the other agent's (RFC 8445, section 7.2.2).
    pub fn new(password: &[u8]) -> Self {
        let hashed: [u8; INTEGRITY_LEN];
        let key = if password.len() > size_of::<Block>() {
            hashed = Sha1::digest(password).into();
            &hashed[..]
        } else {
            password
        };
        let behind_pad = |pad: u8| {
            let mut block: Block = [pad; _];
            block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            let mut state = START;
            compress(&mut state, &[block]);
            state
        };
        Self { inner: behind_pad(0x36), outer: behind_pad(0x5C) }
    }

    /// The code of a message that has `before` in front of its MESSAGE-INTEGRITY. `None` if the
    /// message would be too long for its own length field.
    ///
    /// The code covers a header whose length field ends with MESSAGE-INTEGRITY itself, whatever
    /// follows it in the message.
    pub(super) fn code(&self, before: &[u8]) -> Option<[u8; INTEGRITY_LEN]> {
        before.first_chunk::<4>()?;
        let end = before.len() + HEAD_LEN + INTEGRITY_LEN;
        let length = u16::try_from(end.checked_sub(HEADER_LEN)?).ok()?.to_be_bytes();
        let (blocks, tail) = before.as_chunks();
        let (mut last, count) = padded(tail, before.len());
        let mut state = self.inner;
        match blocks.split_first() {
            Some((first, others)) => {
                let mut first: Block = *first;
                [first[2], first[3]] = length;
                compress(&mut state, &[first]);
                compress(&mut state, others);
            }
            None => [last[0][2], last[0][3]] = length,
        }
        compress(&mut state, last.get(..count)?);
        let (last, count) = padded(&bytes(state), INTEGRITY_LEN);
        let mut state = self.outer;
        compress(&mut state, last.get(..count)?);
        Some(bytes(state))
    }

    /// Whether `code` is that code; in constant time.
    pub(super) fn is_code_of(&self, before: &[u8], code: &[u8; INTEGRITY_LEN]) -> bool {
        self.code(before).is_some_and(|right| {
            let difference = right.iter().zip(code).fold(0, |sum, (a, b)| sum | (a ^ b));
            // The optimizer must not find out that one byte that differs is enough.
            black_box(difference) == 0
        })
    }
}

/// The end of a message (FIPS 180-4, section 5.1.1) that follows one block, that of the pad, and
/// has `length` bytes of its own, of which `tail` is what fills no block: one block or two.
fn padded(tail: &[u8], length: usize) -> ([Block; 2], usize) {
    let mut blocks = [[0; _]; 2];
    let end = tail.iter().chain(&[0x80]);
    blocks.as_flattened_mut().iter_mut().zip(end).for_each(|(to, from)| *to = *from);
    let bits = 8 * (size_of::<Block>() + length) as u64;
    let fits_one = tail.len() + 1 + size_of::<u64>() <= size_of::<Block>();
    let [first, second] = &mut blocks;
    let last = if fits_one { first } else { second };
    if let Some(end) = last.last_chunk_mut() {
        *end = bits.to_be_bytes();
    }
    (blocks, if fits_one { 1 } else { 2 })
}

fn bytes(state: State) -> [u8; INTEGRITY_LEN] {
    let mut bytes = [0; INTEGRITY_LEN];
    let (words, _) = bytes.as_chunks_mut();
    words.iter_mut().zip(state).for_each(|(to, word)| *to = word.to_be_bytes());
    bytes
}

/// Where SHA-1 begins (FIPS 180-4, section 5.3.1).
const START: State = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476, 0xC3D2_E1F0];

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
    use hmac::{Hmac, KeyInit, Mac};

    #[test]
    fn a_key_does_not_show_its_password() {
        let key = IntegrityKey::new(b"secret");
        assert_eq!(format!("{key:?}"), "IntegrityKey(..)");
    }

    #[test]
    fn a_password_of_more_than_one_block_is_hashed_first() {
        let (long, request) = ([b'p'; 256], bytes(RFC_5769_REQUEST));
        let hashed = IntegrityKey::new(&Sha1::digest(long));
        assert_eq!(IntegrityKey::new(&long).code(&request), hashed.code(&request));
        let cut = IntegrityKey::new(&long[..64]);
        assert_ne!(IntegrityKey::new(&long).code(&request), cut.code(&request));
    }

    #[test]
    fn messages_of_every_length_have_the_code_of_hmac_sha1() {
        let message: Vec<u8> = (0..=255).cycle().take(300).collect();
        let key = IntegrityKey::new(b"VOkJxbRl1RmTxUk/WvJxBt");
        for end in HEADER_LEN..message.len() {
            let mut before = message[..end].to_vec();
            let length = u16::try_from(end + HEAD_LEN + INTEGRITY_LEN - HEADER_LEN).unwrap();
            before[2..4].copy_from_slice(&length.to_be_bytes());
            let mut mac = Hmac::<Sha1>::new_from_slice(b"VOkJxbRl1RmTxUk/WvJxBt").unwrap();
            mac.update(&before);
            let right = mac.finalize().into_bytes().into();
            assert_eq!(key.code(&before), Some(right), "{end} bytes");
            assert!(key.is_code_of(&before, &right));
            let mut wrong = right;
            wrong[end % INTEGRITY_LEN] ^= 1;
            assert!(!key.is_code_of(&before, &wrong));
        }
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
