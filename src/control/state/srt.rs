//! What the shards ask about SRT sessions and say of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::State;
use crate::control::balancer::Wish;
use crate::control::origin::Kind;
use crate::control::session_id::SessionRef;
use crate::protocol::srt::Rejection;
use crate::shard::OriginId;
use crate::shard::command::{Command, EndReason, PickRequest, Traffic};

/// Why control refuses a session.
struct Refusal {
    rejection: Rejection,
    /// For the log.
    cause: &'static str,
}

impl State {
    pub(super) fn pick(&mut self, now: Instant, shard: u16, request: &PickRequest) {
        let session = request.session;
        let id = SessionRef { shard, key: session };
        if self.directory.session(id).is_some() {
            // A shard asks once for each session, and a second answer must not count it twice.
            return;
        }
        let command = match self.decide(now, request) {
            Ok((origin, address)) => {
                self.directory.open(now, id, request, origin);
                Command::Open { session, origin, address }
            }
            Err(Refusal { rejection, cause }) => {
                if let Some(held_back) = self.throttle.pass(now, cause) {
                    let PickRequest { client, stream, .. } = request;
                    let (code, reason) = (rejection.wire(), rejection.label());
                    tracing::warn!(
                        %client, %stream, reason, code, cause, held_back,
                        "session refused"
                    );
                }
                Command::Refuse { session, rejection }
            }
        };
        self.shards.tell(shard, command);
    }

    fn decide(
        &mut self,
        now: Instant,
        request: &PickRequest,
    ) -> Result<(OriginId, SocketAddr), Refusal> {
        if self.is_draining() {
            return Err(Refusal { rejection: Rejection::Close, cause: "draining" });
        }
        let origin = self.balancer.pick(&self.directory, now, &Wish::from(request));
        let pick = origin.and_then(|origin| Some((origin.id(), origin.srt_address()?)));
        let pick = pick.ok_or_else(|| match self.directory.is_full(Kind::Srt, now) {
            true => Refusal { rejection: Rejection::Overload, cause: "every origin is full" },
            false => {
                let cause = "no live origin with SRT";
                Refusal { rejection: Rejection::Unavailable, cause }
            }
        })?;
        match self.admission.admit(now, request.client.ip()) {
            Ok(()) => Ok(pick),
            Err(limit) => Err(Refusal { rejection: Rejection::Overload, cause: limit.label() }),
        }
    }

    pub(super) fn established(&mut self, now: Instant, id: SessionRef, setup: Duration) {
        let client = self.directory.session(id).and_then(|session| session.client);
        let origin = client.and_then(|client| self.started(id.into(), client, setup));
        if let Some(origin) = origin {
            self.origin_succeeded(now, origin, Kind::Srt);
        }
    }

    pub(super) fn ended(
        &mut self,
        now: Instant,
        id: SessionRef,
        reason: EndReason,
        traffic: Traffic,
        age: Duration,
    ) {
        // Whoever comes back at once must not be sent to where his session has just died.
        let found_nobody = matches!(
            reason,
            EndReason::Refused(Rejection::BadGateway)
                | EndReason::TakenElsewhere
                | EndReason::OriginGone
        );
        if let Some(session) = self.over(now, id.into(), reason, traffic, age)
            && found_nobody
        {
            self.origin_failed(now, session.origin, session.kind);
        }
    }
}
