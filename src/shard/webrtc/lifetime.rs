//! How WebRTC sessions end: silence, alerts, dead origins, and control's word.

use std::time::{Duration, Instant};

use crate::session::WebRtcSession;
use crate::session::session::SUSPICION;
use crate::session::webrtc::{ClosedBy, Closing, Retirement};
use crate::shard::{Action, EndReason, Event, PortError, RtcId, SessionKey, Shard};

impl Shard {
    /// Does what is due for a session at `now`.
    pub(in crate::shard) fn webrtc_due(&mut self, now: Instant, key: SessionKey) {
        let idle_timeout = self.config.limits.webrtc_idle_timeout;
        let Some(session) = self.table.webrtc_mut(key) else {
            return;
        };
        if session.suspected.as_deref().is_some_and(|since| session.heard_origin > *since) {
            session.suspected = None;
        }
        let over = session.closing.as_deref().copied().filter(|closing| now >= closing.at);
        let reason = if let Some(closing) = over {
            Some(closing.reason)
        } else if session.suspected.as_deref().is_some_and(|since| now >= *since + SUSPICION) {
            Some(EndReason::OriginGone)
        } else if now >= session.heard_client + idle_timeout {
            Some(EndReason::ClientIdle)
        } else if now >= session.heard_origin + idle_timeout {
            Some(EndReason::OriginIdle)
        } else {
            None
        };
        match reason {
            Some(reason) => self.end_webrtc(now, key, reason),
            None => self.tidy(now, key),
        }
    }

    /// Lets paths expire and pairs retire.
    fn tidy(&mut self, now: Instant, key: SessionKey) {
        while let Some(session) = self.table.webrtc_mut(key)
            && let Some(path) = session.paths.take_expired(now)
        {
            self.table.release_address(key, path.address());
        }
        let Some(session) = self.table.webrtc_mut(key) else {
            return;
        };
        if let Some(Retirement { newest, .. }) =
            session.retirement.take_if(|retirement| now >= retirement.at).map(|it| *it)
        {
            let id = session.signalled.id;
            self.expected.retire_before(id, &newest, now);
        }
    }

    /// A receive or send on the session's port failed.
    pub(in crate::shard) fn webrtc_port_failed(
        &mut self,
        now: Instant,
        key: SessionKey,
        error: PortError,
    ) {
        let Some(session) = self.table.webrtc_mut(key) else {
            return;
        };
        if session.suspected.as_deref().is_some_and(|since| session.heard_origin > *since) {
            session.suspected = None;
        }
        // One ICMP message may be a forgery or a restart: a second of silence decides. Origins of publishers speak
        // seldom, so silence counts from here only.
        if matches!(error, PortError::Refused | PortError::Unreachable)
            && session.suspected.is_none()
        {
            session.suspected = Some(Box::new(now));
            self.reschedule(key);
        }
    }

    /// Control has ended a session: the owner lets last words pass, everybody else forgets it.
    pub(in crate::shard) fn finish(
        &mut self,
        now: Instant,
        id: RtcId,
        reason: EndReason,
        linger: Duration,
    ) {
        match self.expected.by_id(id).and_then(|expectation| expectation.here()) {
            Some(key) => self.finish_here(now, key, reason, linger),
            None => _ = self.expected.forget(id, now),
        }
    }

    /// Ends a session of ours when `linger` has passed. What control has said first stands.
    pub(in crate::shard) fn finish_here(
        &mut self,
        now: Instant,
        key: SessionKey,
        reason: EndReason,
        linger: Duration,
    ) {
        let Some(session) = self.table.webrtc_mut(key) else {
            return;
        };
        if linger.is_zero() || !session.has_port {
            return self.end_webrtc(now, key, reason);
        }
        let said =
            session.closing.as_deref().copied().filter(|closing| closing.by == ClosedBy::Control);
        let reason = said.map_or(reason, |closing| closing.reason);
        let at = said.map_or(now + linger, |closing| closing.at.min(now + linger));
        session.closing = Some(Box::new(Closing { by: ClosedBy::Control, since: now, at, reason }));
        self.reschedule(key);
    }

    /// The relay quits: who comes now comes too late.
    pub(in crate::shard) fn expect_nobody(&mut self, now: Instant) {
        self.candidates.clear();
        self.expected.forget_unowned(now);
    }

    /// Ends a session of ours. Its pairs leave tombstones: what is still on its way must not begin it anew.
    pub(in crate::shard) fn end_webrtc(
        &mut self,
        now: Instant,
        key: SessionKey,
        reason: EndReason,
    ) {
        let Some(ended) = self.remove_webrtc(key) else {
            return;
        };
        let session = ended.signalled.id;
        self.expected.forget(session, now);
        let age = now.saturating_duration_since(ended.created);
        self.outbox.tell(Event::RtcEnded { session, reason, traffic: ended.traffic, age });
    }

    /// Takes a session out of the table, with its port and its addresses.
    pub(super) fn remove_webrtc(&mut self, key: SessionKey) -> Option<WebRtcSession> {
        let session = self.table.remove_webrtc(key)?;
        self.expiry.cancel(key.slot);
        if session.has_port {
            self.counters.webrtc.established -= 1;
            self.outbox.act(Action::Close { session: key });
        }
        Some(session)
    }
}
