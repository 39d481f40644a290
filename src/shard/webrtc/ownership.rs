//! Whose a session is: expectations, and the moves between shards that control arbitrates.

use std::sync::Arc;
use std::time::Instant;

use super::Proven;
use crate::protocol::srt::Rejection;
use crate::protocol::stun::Message;
use crate::session::WebRtcSession;
use crate::session::expected::{Claim, Found, QUESTION_LIFE, QUIET};
use crate::session::table::AddressKey;
use crate::session::webrtc::{KeptRequest, Seen};
use crate::shard::{
    Action, DropReason, EndReason, Event, Handover, Pair, PathRequest, PortError, RtcId,
    SessionKey, Shard, Signalled, to_origin,
};

impl Shard {
    /// Control has signalled a session, or has restarted one.
    pub(in crate::shard) fn expect(
        &mut self,
        now: Instant,
        session: &Arc<Signalled>,
        pair: &Arc<Pair>,
    ) {
        let result = self.expected.expect(session, pair, self.draining, now);
        if result.is_ok()
            && let Some(request) = self.candidates.take(pair.username.as_bytes(), now)
            && let Some(expectation) = self.expected.by_id_mut(session.id)
            && expectation.here().is_none()
        {
            expectation.claim = Claim::Asked { request, until: now + QUESTION_LIFE };
        }
        self.outbox.tell(Event::Expected { session: session.id, result });
    }

    /// Control gives a session to this shard.
    pub(in crate::shard) fn own(
        &mut self,
        now: Instant,
        id: RtcId,
        handover: Option<Box<Handover>>,
    ) {
        let is_full = self.table.is_full();
        let Some(expectation) = self.expected.by_id_mut(id) else {
            return self.never_begun(now, id, handover, EndReason::NeverValidated);
        };
        let quiet = Claim::Elsewhere { quiet_until: now };
        let request = match std::mem::replace(&mut expectation.claim, quiet) {
            Claim::Asked { request, .. } => Some(request),
            Claim::Elsewhere { .. } => None,
            claim @ Claim::Here(_) => {
                expectation.claim = claim;
                return;
            }
        };
        if request.is_none() && handover.is_none() {
            return self.never_begun(now, id, handover, EndReason::NeverValidated);
        }
        if is_full {
            let reason = EndReason::Refused(Rejection::Overload);
            return self.never_begun(now, id, handover, reason);
        }
        let signalled = Arc::clone(&expectation.session);
        let origin = signalled.address;
        let is_new = handover.is_none();
        let mut session = match handover {
            Some(handover) => WebRtcSession::resume(signalled, *handover, now),
            None => WebRtcSession::new(signalled, expectation.since, self.hasher.clone(), now),
        };
        session.kept = request;
        let key = self.table.insert_webrtc(session);
        expectation.claim = Claim::Here(key);
        if is_new {
            self.counters.webrtc.sessions_created += 1;
        }
        self.outbox.act(Action::Open { session: key, origin });
        self.reschedule(key);
    }

    /// A session was given to this shard that cannot take it.
    fn never_begun(
        &mut self,
        now: Instant,
        session: RtcId,
        handover: Option<Box<Handover>>,
        reason: EndReason,
    ) {
        let forgotten = self.expected.forget(session, now);
        let traffic = handover.as_ref().map(|handover| handover.traffic).unwrap_or_default();
        let since = handover.map(|handover| handover.created);
        let since = since.or(forgotten.map(|expectation| expectation.since)).unwrap_or(now);
        let age = now.saturating_duration_since(since);
        self.outbox.tell(Event::RtcEnded { session, reason, traffic, age });
    }

    /// The port of a session of ours is open, or cannot be.
    pub(in crate::shard) fn webrtc_port_opened(
        &mut self,
        now: Instant,
        key: SessionKey,
        result: Result<(), PortError>,
    ) {
        match result {
            Ok(()) => self.validated(now, key),
            Err(PortError::Exhausted) => {
                self.end_webrtc(now, key, EndReason::Refused(Rejection::Overload));
            }
            Err(PortError::Refused | PortError::Unreachable | PortError::Other(_)) => {
                self.end_webrtc(now, key, EndReason::Refused(Rejection::BadGateway));
            }
        }
    }

    fn validated(&mut self, now: Instant, key: SessionKey) {
        let Some(session) = self.table.webrtc_mut(key) else {
            return;
        };
        session.has_port = true;
        session.owned_since = now;
        session.heard_client = now;
        session.heard_origin = now;
        let (id, created, kept) = (session.signalled.id, session.created, session.kept.take());
        self.counters.webrtc.established += 1;
        if let Some(kept) = kept {
            self.begin_with(now, key, &kept);
        }
        let session = self.table.webrtc_mut(key);
        let client = session.and_then(|session| session.paths.iter().next());
        let client = client.map(|path| path.client.address);
        let Some(client) = client else {
            // It is new, and the pair of its only request has retired meanwhile.
            return self.end_webrtc(now, key, EndReason::NeverValidated);
        };
        let setup = now.saturating_duration_since(created);
        self.outbox.tell(Event::Validated { session: id, key, client, setup });
        self.reschedule(key);
    }

    /// The kept request makes its path the selected one, and goes to the origin.
    fn begin_with(&mut self, now: Instant, key: SessionKey, kept: &KeptRequest) {
        let Some((pair, is_newest)) = self.pair_of(now, kept) else {
            return;
        };
        let address = AddressKey::of(kept.client.address);
        let request = Proven {
            listener: kept.listener,
            client: kept.client,
            address,
            transaction: kept.transaction,
            nominated: kept.nominated,
            pair: &pair,
            is_newest,
        };
        if let Some(session) = self.table.webrtc_mut(key) {
            for &before in &kept.before {
                session.replay.note(before, address);
            }
        }
        match self.take_path(now, key, &request) {
            Ok(()) => {
                if let Some(session) = self.table.webrtc_mut(key) {
                    session.traffic.client_in.add(kept.bytes.len());
                    session.traffic.origin_out.add(kept.bytes.len());
                }
                self.send_webrtc(to_origin(key), &kept.bytes);
            }
            Err(reason) => self.counters.dropped(reason, 1),
        }
    }

    /// The pair that a kept request was proven with, and whether it is the newest. `None` once it has retired.
    fn pair_of(&mut self, now: Instant, kept: &KeptRequest) -> Option<(Arc<Pair>, bool)> {
        let message = Message::parse(&kept.bytes).ok()?;
        match self.expected.by_username(message.username()?, now) {
            Found::Expected { expectation, age } => {
                Some((Arc::clone(expectation.pair(age)?), age == 0))
            }
            Found::Tombstone | Found::Unknown => None,
        }
    }

    /// Control keeps a session where it is, or knows nothing of it.
    pub(in crate::shard) fn deny(&mut self, now: Instant, id: RtcId) {
        if let Some(expectation) = self.expected.by_id_mut(id)
            && matches!(expectation.claim, Claim::Asked { .. })
        {
            expectation.claim = Claim::Elsewhere { quiet_until: now + QUIET };
            self.counters.dropped(DropReason::OtherShard, 1);
        }
    }

    /// A client of a session of ours, perhaps, has proven itself on another shard: it moves there, or stays.
    pub(in crate::shard) fn yield_to(&mut self, now: Instant, path: &PathRequest) {
        let id = path.session;
        let here = self.expected.by_id(id).and_then(|expectation| expectation.here());
        let handover = here
            .filter(|&key| self.is_to_move(now, key, path))
            .and_then(|key| self.hand_over(now, id, key))
            .map(Box::new);
        self.outbox.tell(Event::Yielded { session: id, handover });
    }

    /// A session moves to where its client wants it or has gone. A request that has been seen from another address is
    /// somebody's copy, while the same one from the same address is the client's patience (RFC 8489 section 6.2.1).
    fn is_to_move(&mut self, now: Instant, key: SessionKey, path: &PathRequest) -> bool {
        let Some(session) = self.table.webrtc_mut(key) else {
            return false;
        };
        // Even if nothing moves: the request must not come here a second time, from where somebody else wants it.
        let seen = session.replay.note(path.transaction, AddressKey::of(path.client));
        seen != Seen::Elsewhere
            && session.has_port
            && session.closing.is_none()
            && session.may_leave(now, path.nominated)
    }

    fn hand_over(&mut self, now: Instant, id: RtcId, key: SessionKey) -> Option<Handover> {
        let session = self.remove_webrtc(key)?;
        if let Some(expectation) = self.expected.by_id_mut(id) {
            expectation.claim = Claim::Elsewhere { quiet_until: now };
        }
        Some(session.hand_over())
    }
}
