//! Why sessions end.

use crate::protocol::srt::Rejection;

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The client said goodbye.
    ClientShutdown,
    /// The origin said goodbye.
    OriginShutdown,
    /// Nothing from the client for the idle timeout.
    ClientIdle,
    /// Nothing from the origin for the idle timeout.
    OriginIdle,
    /// The origin's port is closed (ICMP) and it has been silent for a second.
    OriginGone,
    /// The origin's port is closed, and its caller is taken to another one in a session of its own.
    TakenElsewhere,
    /// This relay refused it.
    Refused(Rejection),
    /// The origin refused it with this handshake type.
    RefusedByOrigin(u32),
    /// The caller began anew with the same socket ID.
    Superseded,
    /// Pushed out by newer handshakes: the table of pending ones is full.
    PendingOverflow,
    /// One side closed DTLS.
    DtlsClosed,
    /// The client ended it over HTTP.
    Deleted,
    /// The client was told where to go and never came.
    NeverValidated,
    /// An operator ended it.
    Operator,
    /// The relay is quitting.
    Quit,
}

impl EndReason {
    /// As the API, the log and the metric labels show it.
    pub fn label(self) -> &'static str {
        match self {
            Self::ClientShutdown => "client_shutdown",
            Self::OriginShutdown => "origin_shutdown",
            Self::ClientIdle => "client_idle",
            Self::OriginIdle => "origin_idle",
            Self::OriginGone => "origin_gone",
            Self::TakenElsewhere => "taken_elsewhere",
            Self::Refused(rejection) => rejection.label(),
            Self::RefusedByOrigin(_) => "refused_by_origin",
            Self::Superseded => "superseded",
            Self::PendingOverflow => "pending_overflow",
            Self::DtlsClosed => "dtls_closed",
            Self::Deleted => "deleted",
            Self::NeverValidated => "never_validated",
            Self::Operator => "operator",
            Self::Quit => "quit",
        }
    }
}
