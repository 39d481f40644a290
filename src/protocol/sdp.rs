//! Session descriptions on their way through the relay (RFC 8866, 8839 and 8840): what is read of
//! them, and the few lines that are replaced.
//!
//! Both ends must meet the relay and nobody else. So the candidates that the origin wrote give way
//! to the relay's own, and the client's are left out: a full ICE agent in the client's network
//! would find a direct pair and leave the relay out of it. Everything else is the two ends' own
//! business, and is copied byte for byte in its order; only line ends become CRLF.
//!
//! Parsers differ about a lone CR and about blanks around a name, and a client may count on that to
//! show the origin a candidate that the relay does not see. So a line that any of them may take for
//! a candidate is one here.

mod candidate;
mod credentials;
mod description;
mod rewrite;

pub use candidate::{first_udp_host, is_tcp_only};
pub use credentials::{fragment_credentials, pairs};
pub use rewrite::{fragment_to_client, fragment_to_origin, to_client, to_origin};

use crate::protocol::ice::IceError;

/// The session description in a body of type `application/sdp`.
///
/// This is a check that the body may be one at all, to refuse what is not before an origin is
/// asked: text within bounds that begins with `v=`.
///
/// # Errors
/// See [`SdpError`].
pub fn read(body: &[u8]) -> Result<&str, SdpError> {
    let sdp = read_fragment(body)?;
    description::begins_like_one(sdp)?;
    Ok(sdp)
}

/// The fragment in a body of type `application/trickle-ice-sdpfrag`: text within bounds.
///
/// # Errors
/// See [`SdpError`].
pub fn read_fragment(body: &[u8]) -> Result<&str, SdpError> {
    let fragment = str::from_utf8(body).map_err(|_| SdpError::NotUtf8)?;
    description::within_bounds(fragment)?;
    Ok(fragment)
}

/// Why a description cannot be used. No text of it quotes the description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// More bytes than [`LENGTH_MAX`].
    #[error("the session description has {length} bytes, at most {max} are allowed")]
    TooLong {
        /// Bytes that it has.
        length: usize,
        /// Bytes that are allowed.
        max: usize,
    },
    /// Another character set, which `a=charset` allows for a few lines and no WebRTC agent uses.
    #[error("the session description is not UTF-8")]
    NotUtf8,
    /// NUL, or a character that some parsers end a line at and others do not.
    #[error("the session description holds a control character or an unusual line end")]
    ControlCharacter,
    /// Whatever it is, it does not begin with `v=`.
    #[error("the session description does not begin with v=")]
    NoVersion,
    /// More m-sections than [`MEDIA_MAX`].
    #[error("the session description has more than {max} m= lines")]
    TooManyMedia {
        /// Sections that are allowed.
        max: usize,
    },
    /// No m-section has both halves of the credentials in this description.
    #[error("the {description} has no m-section with both a=ice-ufrag and a=ice-pwd")]
    NoCredentials {
        /// `offer`, `answer` or `fragment`.
        description: &'static str,
    },
    /// One section gives two values, and each end would choose its own.
    #[error("one section has two different a={attribute} lines")]
    Ambiguous {
        /// `ice-ufrag` or `ice-pwd`.
        attribute: &'static str,
    },
    /// The fragment restarts more than one transport.
    #[error("the fragment has more than one pair of a=ice-ufrag and a=ice-pwd")]
    TooManyCredentials,
    /// More transports than [`PAIRS_MAX`].
    #[error(
        "offer and answer agree on more than {max} pairs of ICE credentials: \
         use BUNDLE, so that all media have one transport"
    )]
    TooManyPairs {
        /// Pairs that are allowed.
        max: usize,
    },
    /// A credential that the standard does not allow.
    #[error(transparent)]
    Credentials(#[from] IceError),
    /// There is nothing to put in the place of the origin's candidates.
    #[error("the relay has no address of its own to write")]
    NoAddress,
}

/// Credential pairs of one session at most: one per transport. BUNDLE, which WHIP and WHEP ask
/// for, needs one.
pub const PAIRS_MAX: usize = 4;

/// Bytes of the longest description or fragment.
pub const LENGTH_MAX: usize = 128 * 1024;

/// m-sections of one description at most.
pub const MEDIA_MAX: usize = 128;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
