//! Rejections: why a caller is refused, as a number on the wire.
//!
//! A refusal is a handshake whose type is 1000 plus libsrt's reason (srt.h, access_control.h).
//! libsrt's predefined reasons start at 1000 themselves, so "not found", 1404 to an application, is
//! 2404 on the wire.

use super::header::ParseError;
use super::stream_id::StreamIdError;
use crate::protocol::stream_url::StreamKeyError;

/// The reasons this relay gives of its own, as wire values. An origin's rejection passes through as
/// it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Rejection {
    /// The origin chose a socket ID that another session of the same client address already has.
    Resource = 1003,
    /// A conclusion without HSREQ, or one whose structure is broken.
    Rogue = 1004,
    /// The relay is shutting down.
    Close = 1007,
    /// A handshake version other than 4 and 5.
    Version = 1008,
    /// The host is unknown.
    HostNotFound = 2003,
    /// The stream ID is missing where one is needed, or malformed.
    BadRequest = 2400,
    /// A token is missing or wrong.
    Unauthorized = 2401,
    /// A limit is reached.
    Overload = 2402,
    /// Policy forbids it.
    Forbidden = 2403,
    /// The stream ID asks for a mode other than publish and request.
    BadMode = 2405,
    /// The origin is unreachable or silent.
    BadGateway = 2502,
    /// There is no live origin that speaks SRT.
    Unavailable = 2503,
}

impl Rejection {
    /// Every value, for tables of counters.
    pub const ALL: [Self; 12] = [
        Self::Resource,
        Self::Rogue,
        Self::Close,
        Self::Version,
        Self::HostNotFound,
        Self::BadRequest,
        Self::Unauthorized,
        Self::Overload,
        Self::Forbidden,
        Self::BadMode,
        Self::BadGateway,
        Self::Unavailable,
    ];

    /// What stands in the handshake type field.
    pub fn wire(self) -> u32 {
        self as u32
    }

    /// The reason for metrics and the API, for instance `bad_gateway`.
    pub fn label(self) -> &'static str {
        reason_name(self.wire())
    }
}

/// The name of any rejection on the wire, for logs: an origin may give reasons that the relay never
/// does.
pub fn reason_name(wire: u32) -> &'static str {
    match wire {
        1001 => "system",
        1002 => "peer",
        1003 => "resource",
        1004 => "rogue",
        1005 => "backlog",
        1006 => "internal_program_error",
        1007 => "close",
        1008 => "version",
        1009 => "rendezvous_cookie",
        1010 => "bad_secret",
        1011 => "unsecure",
        1012 => "message_api",
        1013 => "congestion",
        1014 => "filter",
        1015 => "group",
        1016 => "timeout",
        1017 => "crypto",
        2000 => "fallback",
        2001 => "key_not_supported",
        2002 => "file_path",
        2003 => "host_not_found",
        2400 => "bad_request",
        2401 => "unauthorized",
        2402 => "overload",
        2403 => "forbidden",
        2404 => "not_found",
        2405 => "bad_mode",
        2406 => "unacceptable",
        2409 => "conflict",
        2415 => "media_not_supported",
        2423 => "locked",
        2424 => "failed_dependency",
        2500 => "internal_server_error",
        2501 => "unimplemented",
        2502 => "bad_gateway",
        2503 => "unavailable",
        2505 => "application_version",
        2507 => "no_room",
        3000.. => "user_defined",
        _ => "unknown",
    }
}

impl From<ParseError> for Rejection {
    /// What the sender of a conclusion that cannot be read is told.
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::TooShort { .. }
            | ParseError::NotAHandshake
            | ParseError::ExtensionTooLong { .. } => Self::Rogue,
            ParseError::StreamIdLength { .. } | ParseError::StreamIdNotUtf8 => Self::BadRequest,
        }
    }
}

impl From<StreamIdError> for Rejection {
    fn from(error: StreamIdError) -> Self {
        match error {
            StreamIdError::Mode => Self::BadMode,
            StreamIdError::NoResource
            | StreamIdError::Malformed
            | StreamIdError::TooLong { .. } => Self::BadRequest,
        }
    }
}

impl From<StreamKeyError> for Rejection {
    fn from(_: StreamKeyError) -> Self {
        Self::BadRequest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_of_the_relay_has_a_label_of_its_own() {
        let labels: HashSet<_> = Rejection::ALL.map(Rejection::label).into();
        assert_eq!(labels.len(), Rejection::ALL.len());
        assert!(!labels.contains("unknown"));
        assert!(
            labels.iter().all(|label| label.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        );
    }

    #[test]
    fn wire_values_are_those_of_libsrt_plus_1000() {
        let wire = Rejection::ALL.map(Rejection::wire);
        assert_eq!(wire, [1003, 1004, 1007, 1008, 2003, 2400, 2401, 2402, 2403, 2405, 2502, 2503]);
    }

    #[test]
    fn reasons_that_only_origins_give_have_names_too() {
        assert_eq!(reason_name(1010), "bad_secret");
        assert_eq!(reason_name(2404), "not_found");
        assert_eq!(reason_name(2999), "unknown");
        assert_eq!(reason_name(3000), "user_defined");
        assert_eq!(reason_name(1000), "unknown");
    }

    #[test]
    fn a_wrong_mode_and_a_wrong_stream_id_are_told_apart() {
        assert_eq!(Rejection::from(StreamIdError::Mode), Rejection::BadMode);
        assert_eq!(Rejection::from(StreamIdError::NoResource), Rejection::BadRequest);
        assert_eq!(Rejection::from(StreamKeyError::Empty), Rejection::BadRequest);
    }

    #[test]
    fn a_broken_structure_and_a_broken_stream_id_are_told_apart() {
        assert_eq!(
            Rejection::from(ParseError::ExtensionTooLong { kind: 5, words: 9, left: 4 }),
            Rejection::Rogue
        );
        assert_eq!(
            Rejection::from(ParseError::StreamIdLength { length: 516 }),
            Rejection::BadRequest
        );
        assert_eq!(Rejection::from(ParseError::StreamIdNotUtf8), Rejection::BadRequest);
    }
}
