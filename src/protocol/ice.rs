//! The credentials of ICE: who a binding request is for, and what proves it (RFC 8839, section 5.4).
//!
//! The relay sees both ends' credentials at signalling. They are what lets it prove a client's
//! address before it learns it, so a value that the standard does not allow is refused there.

use std::fmt;

/// Both ends' credentials of one session, as the client's binding requests use them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcePair {
    /// What the answer gave: its password is the key of the client's requests.
    pub origin: Credentials,
    /// What the offer gave: its password is the key of the origin's own requests.
    pub client: Credentials,
}

impl IcePair {
    /// `origin's:client's`: the USERNAME of the client's binding requests (RFC 8445, section 7.2.2).
    pub fn username(&self) -> String {
        format!("{}:{}", self.origin.ufrag, self.client.ufrag)
    }
}

/// One end's credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The public half.
    pub ufrag: Ufrag,
    /// The secret half.
    pub password: Password,
}

/// A username fragment: 4 to 256 letters, digits, `+` and `/`. It is no secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ufrag(Box<str>);

impl Ufrag {
    /// Characters of the shortest.
    pub const MIN: usize = 4;
    /// Characters of the longest.
    pub const MAX: usize = 256;

    /// Reads the value of `a=ice-ufrag`.
    ///
    /// # Errors
    /// See [`IceError`].
    pub fn parse(text: &str) -> Result<Self, IceError> {
        checked(text, "ice-ufrag", Self::MIN, Self::MAX).map(Self)
    }

    /// The fragment as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Ufrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A password: 22 to 256 letters, digits, `+` and `/`. No `Debug` of anything shows it.
///
/// Equality takes as long as the common front of two passwords. That tells nobody anything, for
/// it is asked at signalling only, of two texts that one sender wrote; a datagram's proof is a
/// message authentication code.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Box<str>);

impl Password {
    /// Characters of the shortest.
    pub const MIN: usize = 22;
    /// Characters of the longest.
    pub const MAX: usize = 256;

    /// Reads the value of `a=ice-pwd`.
    ///
    /// # Errors
    /// See [`IceError`].
    pub fn parse(text: &str) -> Result<Self, IceError> {
        checked(text, "ice-pwd", Self::MIN, Self::MAX).map(Self)
    }

    /// The password itself, to key MESSAGE-INTEGRITY with.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// `text`, if it is `min` to `max` ice-chars.
fn checked(
    text: &str,
    attribute: &'static str,
    min: usize,
    max: usize,
) -> Result<Box<str>, IceError> {
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')) {
        return Err(IceError::Character { attribute });
    }
    if !(min..=max).contains(&text.len()) {
        return Err(IceError::Length { attribute, length: text.len(), min, max });
    }
    Ok(text.into())
}

/// Why a text is no credential. It never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IceError {
    /// Too short to be hard to guess, or longer than the standard allows.
    #[error("{attribute} has {length} characters; {min} to {max} are allowed")]
    Length {
        /// `ice-ufrag` or `ice-pwd`.
        attribute: &'static str,
        /// Characters that it has.
        length: usize,
        /// The fewest that are allowed.
        min: usize,
        /// The most that are allowed.
        max: usize,
    },
    /// Something else than an ice-char.
    #[error("{attribute} holds a character that is no letter, digit, + or /")]
    Character {
        /// `ice-ufrag` or `ice-pwd`.
        attribute: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(ufrag: &str, password: &str) -> Credentials {
        Credentials {
            ufrag: Ufrag::parse(ufrag).unwrap(),
            password: Password::parse(password).unwrap(),
        }
    }

    #[test]
    fn the_username_begins_with_the_fragment_of_its_receiver() {
        let pair = IcePair {
            origin: credentials("w668j549", "0123456789012345678901"),
            client: credentials("EbMB", "abcdefghijklmnopqrstuv"),
        };
        assert_eq!(pair.username(), "w668j549:EbMB");
    }

    #[test]
    fn a_fragment_has_4_to_256_ice_chars() {
        let length = |length| IceError::Length { attribute: "ice-ufrag", length, min: 4, max: 256 };
        let character = IceError::Character { attribute: "ice-ufrag" };
        let (longest, too_long) = ("a".repeat(256), "a".repeat(257));
        let table = [
            ("a+/9", Ok("a+/9")),
            (longest.as_str(), Ok(longest.as_str())),
            ("", Err(length(0))),
            ("abc", Err(length(3))),
            (too_long.as_str(), Err(length(257))),
            ("ab:c", Err(character)),
            ("ab c", Err(character)),
            ("ab-c", Err(character)),
            ("ab_c", Err(character)),
            ("abc\0", Err(character)),
            ("äöüß", Err(character)),
        ];
        for (text, expected) in table {
            let fragment = Ufrag::parse(text);
            assert_eq!(fragment.as_ref().map(Ufrag::as_str), expected.as_ref().copied(), "{text}");
        }
    }

    #[test]
    fn a_password_has_22_to_256_ice_chars() {
        let length = |length| IceError::Length { attribute: "ice-pwd", length, min: 22, max: 256 };
        assert_eq!(Password::parse(&"a".repeat(21)), Err(length(21)));
        assert_eq!(Password::parse(&"a".repeat(257)), Err(length(257)));
        let character = IceError::Character { attribute: "ice-pwd" };
        assert_eq!(Password::parse("0123456789 0123456789 0123"), Err(character));
        for allowed in [22, 256] {
            let text = "/".repeat(allowed);
            assert_eq!(Password::parse(&text).unwrap().expose(), text);
        }
    }

    #[test]
    fn debug_shows_the_fragment_and_hides_the_password() {
        let shown = format!("{:?}", credentials("abcd", "topsecrettopsecrettops"));
        assert!(shown.contains("abcd") && !shown.contains("secret"), "{shown}");
    }
}
