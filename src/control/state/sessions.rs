//! How sessions of either protocol begin and end: counted, logged, and held for or against their
//! origins.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{State, millis};
use crate::control::directory::Session;
use crate::control::health::Turn;
use crate::control::origin::Kind;
use crate::control::session_id::SessionId;
use crate::protocol::srt::Rejection;
use crate::shard::OriginId;
use crate::shard::command::{EndReason, Traffic};

impl State {
    /// Media may flow. Returns the origin, where that is news.
    pub(super) fn started(
        &mut self,
        id: SessionId,
        client: SocketAddr,
        setup: Duration,
    ) -> Option<OriginId> {
        let session = self.directory.established(id, client)?;
        let (stream, role, origin) = (session.stream.clone(), session.role.label(), session.origin);
        self.admission.established(session.source);
        self.setup.observe(setup);
        let name = self.origin_name(origin);
        let setup_ms = millis(setup);
        tracing::info!(
            session = %id, role, %stream, %client, origin = name, setup_ms,
            "session started"
        );
        Some(origin)
    }

    /// Frees what a session held, and says in the log how it was. Returns the session, the first
    /// time.
    pub(super) fn over(
        &mut self,
        now: Instant,
        id: SessionId,
        reason: EndReason,
        traffic: Traffic,
        age: Duration,
    ) -> Option<Session> {
        let session = self.directory.close(now, id)?;
        self.admission.ended(session.source, session.is_established);
        let origin = self.directory.origin(session.origin).map_or("", |origin| origin.name());
        let (stream, role) = (&session.stream, session.role.label());
        // Before its first check a client is known by the address that it signalled from.
        let client = match session.client {
            Some(client) => client.to_string(),
            None => session.source.to_string(),
        };
        let label = reason.label();
        if session.is_established {
            let Traffic { client_in, client_out, origin_in, origin_out } = traffic;
            tracing::info!(
                session = %id, role, %stream, client, origin, reason = label,
                age_ms = millis(age),
                client_in_packets = client_in.packets, client_in_bytes = client_in.bytes,
                client_out_packets = client_out.packets, client_out_bytes = client_out.bytes,
                origin_in_packets = origin_in.packets, origin_in_bytes = origin_in.bytes,
                origin_out_packets = origin_out.packets, origin_out_bytes = origin_out.bytes,
                "session ended"
            );
        } else if let Some(held_back) = self.throttle.pass(now, label) {
            let code = code(reason);
            tracing::warn!(
                session = %id, role, %stream, client, origin, reason = label, code, held_back,
                "session not established"
            );
        }
        Some(session)
    }

    /// A session found nobody at its origin.
    pub(super) fn origin_failed(&mut self, now: Instant, origin: OriginId, kind: Kind) {
        let turn = self.directory.origin_failed(now, origin, kind);
        self.tell_turn(origin, kind, turn);
    }

    /// A session found its origin.
    pub(super) fn origin_succeeded(&mut self, now: Instant, origin: OriginId, kind: Kind) {
        let turn = self.directory.origin_succeeded(now, origin, kind);
        self.tell_turn(origin, kind, turn);
    }

    /// Says in the log what has become of an origin.
    pub(super) fn tell_turn(&self, origin: OriginId, kind: Kind, turn: Option<Turn>) {
        let (origin, takes) = (self.origin_name(origin), kind.label());
        match turn {
            Some(Turn::Down(hold)) => {
                let seconds = hold.as_secs();
                tracing::warn!(
                    origin,
                    takes,
                    seconds,
                    "origin down: it does not answer, and new streams avoid it"
                );
            }
            Some(Turn::Up) => tracing::info!(origin, takes, "origin up: new streams may go to it"),
            None => {}
        }
    }
}

/// What an SRT caller was told.
fn code(reason: EndReason) -> Option<u32> {
    match reason {
        EndReason::RefusedByOrigin(wire) => Some(wire),
        EndReason::Refused(rejection) => Some(Rejection::wire(rejection)),
        EndReason::ClientShutdown
        | EndReason::OriginShutdown
        | EndReason::ClientIdle
        | EndReason::OriginIdle
        | EndReason::OriginGone
        | EndReason::TakenElsewhere
        | EndReason::Superseded
        | EndReason::PendingOverflow
        | EndReason::DtlsClosed
        | EndReason::Deleted
        | EndReason::NeverValidated
        | EndReason::Operator
        | EndReason::Quit => None,
    }
}
