//! What clients send: requests that prove an address, and what passes from a proven one.

use std::sync::Arc;
use std::time::Instant;

use super::{Proven, STRANGE, keep, note_media};
use crate::protocol::demux::Kind;
use crate::protocol::stun::{Check, Class, IntegrityKey, Message, Method};
use crate::session::expected::{Claim, Found, QUESTION_LIFE};
use crate::session::table::AddressKey;
use crate::session::webrtc::{Candidates, Entrance, Path, RETIREMENT, Retirement, Seen, Side};
use crate::shard::{
    Datagram, DropReason, Event, ListenerIndex, PathRequest, Peer, SessionKey, Shard, Verdict,
    to_origin,
};

impl Shard {
    /// A datagram has come to a WebRTC listener.
    #[inline]
    pub(in crate::shard) fn webrtc_client_sent(
        &mut self,
        now: Instant,
        listener: ListenerIndex,
        datagram: Datagram<'_>,
    ) -> Verdict {
        match Kind::of(datagram.bytes) {
            kind @ (Kind::Dtls | Kind::Rtp | Kind::Rtcp) => {
                self.client_media(now, listener, kind, datagram)
            }
            Kind::Stun => self.client_stun(now, listener, datagram),
            Kind::Zrtp | Kind::TurnChannel | Kind::Quic | Kind::Unknown => STRANGE,
        }
    }

    /// DTLS, RTP or RTCP: from a proven address to the origin of the session that it was proven for.
    fn client_media(
        &mut self,
        now: Instant,
        listener: ListenerIndex,
        kind: Kind,
        datagram: Datagram<'_>,
    ) -> Verdict {
        let bytes = datagram.bytes;
        let address = AddressKey::of(datagram.source);
        let Some((key, session)) = self.table.by_address(address) else {
            return Verdict::Drop(DropReason::UnprovenAddress);
        };
        session.heard_client = now;
        session.heard_client_media = Some(now);
        session.traffic.client_in.add(bytes.len());
        session.traffic.origin_out.add(bytes.len());
        self.counters.webrtc.origin_out.add(bytes.len());
        let entrance = Entrance { listener, local: datagram.local };
        let has_moved = session.paths.hear_media(address, entrance, now);
        let is_closing = note_media(session, Side::Client, kind, bytes, now);
        if has_moved || is_closing {
            self.reschedule(key);
        }
        Verdict::Forward(to_origin(key))
    }

    fn client_stun(
        &mut self,
        now: Instant,
        listener: ListenerIndex,
        datagram: Datagram<'_>,
    ) -> Verdict {
        let Ok(message) = Message::parse(datagram.bytes) else {
            return Verdict::Drop(DropReason::StunMalformed);
        };
        match (message.method(), message.class()) {
            (Method::Binding, Class::Request) => {
                self.client_request(now, listener, datagram, &message)
            }
            (Method::Binding, Class::Indication | Class::Success | Class::Error)
            | (Method::GoogPing, _) => self.client_keepalive(now, listener, datagram, &message),
        }
    }

    /// What proves nothing but may follow a proof: responses to the origin's checks, keepalives.
    fn client_keepalive(
        &mut self,
        now: Instant,
        listener: ListenerIndex,
        datagram: Datagram<'_>,
        message: &Message<'_>,
    ) -> Verdict {
        let bytes = datagram.bytes;
        let address = AddressKey::of(datagram.source);
        let Some((key, session)) = self.table.by_address(address) else {
            return Verdict::Drop(DropReason::StunUnproven);
        };
        let entrance = Entrance { listener, local: datagram.local };
        if message.class() == Class::Request {
            session.outstanding.note(message.transaction(), address, entrance, None, now);
        }
        session.heard_client = now;
        session.paths.hear(address, entrance, now);
        self.client_forwarded(key, bytes.len());
        Verdict::Forward(to_origin(key))
    }

    /// Checks a request in the order of what a check costs, and drops it without a word if one fails: an answer would
    /// tell a stranger what he asks, and could be aimed at others.
    fn client_request(
        &mut self,
        now: Instant,
        listener: ListenerIndex,
        datagram: Datagram<'_>,
        message: &Message<'_>,
    ) -> Verdict {
        let client = Peer { address: datagram.source, local: datagram.local };
        let Some(username) = message.username() else {
            return Verdict::Drop(DropReason::StunNoUsername);
        };
        let (expectation, age) = match self.expected.by_username(username, now) {
            Found::Expected { expectation, age } => (expectation, age),
            Found::Tombstone => return Verdict::Drop(DropReason::StunTombstone),
            Found::Unknown => {
                return match Candidates::ufrag_of(username) {
                    Some(ufrag) if self.config.webrtc_direct => {
                        self.candidate(now, listener, client, ufrag, message)
                    }
                    Some(_) | None => Verdict::Drop(DropReason::StunUnknownUfrag),
                };
            }
        };
        let Some(pair) = expectation.pair(age) else {
            return Verdict::Drop(DropReason::StunUnknownUfrag);
        };
        if let Err(reason) = verify(message, &pair.key) {
            return Verdict::Drop(reason);
        }
        let Claim::Here(key) = expectation.claim else {
            return self.ask_whose(now, listener, client, message);
        };
        let pair = Arc::clone(pair);
        let request = Proven {
            listener,
            client,
            address: AddressKey::of(client.address),
            transaction: message.transaction(),
            nominated: message.use_candidate(),
            pair: &pair,
            is_newest: age == 0,
        };
        self.own_request(now, key, &request, message)
    }

    /// A proven request for a session of ours.
    fn own_request(
        &mut self,
        now: Instant,
        key: SessionKey,
        request: &Proven<'_>,
        message: &Message<'_>,
    ) -> Verdict {
        let Some(session) = self.table.webrtc_mut(key) else {
            return Verdict::Drop(DropReason::StalePort);
        };
        let bytes = message.as_bytes();
        if !session.has_port {
            let Some(newer) = keep(bytes, request.listener, request.client, message) else {
                return Verdict::Drop(DropReason::StunMalformed);
            };
            return match session.kept.as_deref_mut() {
                Some(kept) if kept.client.address != request.client.address => {
                    Verdict::Drop(DropReason::StunUndecided)
                }
                Some(kept) => {
                    kept.replace(*newer);
                    Verdict::Taken
                }
                None => {
                    session.kept = Some(newer);
                    Verdict::Taken
                }
            };
        }
        if let Err(reason) = self.take_path(now, key, request) {
            return Verdict::Drop(reason);
        }
        self.client_forwarded(key, bytes.len());
        Verdict::Forward(to_origin(key))
    }

    /// Learns, or confirms, an address of a session of ours.
    pub(super) fn take_path(
        &mut self,
        now: Instant,
        key: SessionKey,
        request: &Proven<'_>,
    ) -> Result<(), DropReason> {
        let Proven { listener, client, address, transaction, nominated, .. } = *request;
        let session = self.table.webrtc_mut(key).ok_or(DropReason::StalePort)?;
        let seen = session.replay.note(transaction, address);
        if seen == Seen::Elsewhere {
            return Err(DropReason::StunReplayed);
        }
        if !session.paths.has_room_for(address) && !session.paths.make_room() {
            return Err(DropReason::PathsFull);
        }
        session.heard_client = now;
        let path = Path { client, listener, heard: now, is_here: true, proven: now };
        let is_new = session.paths.prove(path);
        // A repeated nomination is an old one: the client may have chosen again since.
        let entrance = path.entrance();
        session.is_nominated |= nominated;
        let is_choice = nominated && seen == Seen::Never;
        let has_moved = is_choice && session.paths.nominate(address, entrance, now);
        let pair = Arc::clone(request.pair);
        session.outstanding.note(transaction, address, entrance, Some(pair), now);
        let is_restart = self.restarted(now, key, request);
        self.table.claim_address(key, address);
        if is_new || has_moved || is_restart {
            self.reschedule(key);
        }
        Ok(())
    }

    /// The first request with the newest pair starts the retirement of the others. Returns whether this is it.
    fn restarted(&mut self, now: Instant, key: SessionKey, request: &Proven<'_>) -> bool {
        let Some(session) = self.table.webrtc_mut(key).filter(|_| request.is_newest) else {
            return false;
        };
        let is_known = session
            .retirement
            .as_ref()
            .is_some_and(|retirement| Arc::ptr_eq(&retirement.newest, request.pair));
        let id = session.signalled.id;
        let has_older =
            self.expected.by_id(id).is_some_and(|expectation| expectation.pair(1).is_some());
        if is_known || !has_older {
            return false;
        }
        let newest = Arc::clone(request.pair);
        session.retirement = Some(Box::new(Retirement { newest, at: now + RETIREMENT }));
        true
    }

    /// A proven request for a session that is not ours: control knows whose it is, or gives it to us.
    fn ask_whose(
        &mut self,
        now: Instant,
        listener: ListenerIndex,
        client: Peer,
        message: &Message<'_>,
    ) -> Verdict {
        let username = message.username().unwrap_or_default();
        let Found::Expected { expectation, .. } = self.expected.by_username(username, now) else {
            return Verdict::Drop(DropReason::StunUnknownUfrag);
        };
        let asked = match &mut expectation.claim {
            Claim::Asked { request, until } if now < *until => Some(request),
            Claim::Elsewhere { quiet_until } if now < *quiet_until => {
                return Verdict::Drop(DropReason::OtherShard);
            }
            Claim::Elsewhere { .. } | Claim::Asked { .. } | Claim::Here(_) => None,
        };
        if asked.as_ref().is_some_and(|kept| kept.client.address != client.address) {
            return Verdict::Drop(DropReason::StunUndecided);
        }
        let Some(mut request) = keep(message.as_bytes(), listener, client, message) else {
            return Verdict::Drop(DropReason::StunMalformed);
        };
        if let Some(kept) = asked {
            kept.replace(*request);
            return Verdict::Taken;
        }
        // A session that cannot live here would end here.
        if self.table.is_full() {
            return Verdict::Drop(DropReason::TableFull);
        }
        if self.outbox.is_backlogged() {
            return Verdict::Drop(DropReason::OutboxFull);
        }
        let nobodys = Claim::Elsewhere { quiet_until: now };
        if let Claim::Asked { request: mut unanswered, .. } =
            std::mem::replace(&mut expectation.claim, nobodys)
        {
            // What was kept before still counts: a copy of it that comes from elsewhere is one.
            unanswered.replace(*request);
            request = unanswered;
        }
        let question = PathRequest {
            session: expectation.session.id,
            client: request.client.address,
            transaction: request.transaction,
            nominated: request.nominated,
        };
        expectation.claim = Claim::Asked { request, until: now + QUESTION_LIFE };
        self.outbox.tell(Event::Path(Box::new(question)));
        Verdict::Taken
    }

    /// A request of a client that nobody has signalled, whose ufrag is its password.
    fn candidate(
        &mut self,
        now: Instant,
        listener: ListenerIndex,
        client: Peer,
        ufrag: &str,
        message: &Message<'_>,
    ) -> Verdict {
        if let Err(reason) = verify(message, &IntegrityKey::new(ufrag.as_bytes())) {
            return Verdict::Drop(reason);
        }
        let Some(request) = keep(message.as_bytes(), listener, client, message) else {
            return Verdict::Drop(DropReason::StunMalformed);
        };
        if let Some(kept) = self.candidates.request_mut(ufrag, now) {
            if kept.client.address != client.address {
                return Verdict::Drop(DropReason::StunUndecided);
            }
            kept.replace(*request);
            return Verdict::Taken;
        }
        if self.draining || self.table.is_full() || self.outbox.is_backlogged() {
            return Verdict::Drop(DropReason::StunUnknownUfrag);
        }
        if !self.candidates.has_room_for(client.address.ip(), now) {
            return Verdict::Drop(DropReason::CandidateQueueFull);
        }
        self.candidates.wait(ufrag, request, now);
        self.outbox.tell(Event::Candidate { client: client.address, ufrag: ufrag.into() });
        Verdict::Taken
    }

    /// Counts a datagram that passes from the client to the origin.
    fn client_forwarded(&mut self, key: SessionKey, bytes: usize) {
        self.counters.webrtc.origin_out.add(bytes);
        if let Some(session) = self.table.webrtc_mut(key) {
            session.traffic.client_in.add(bytes);
            session.traffic.origin_out.add(bytes);
        }
    }
}

/// Whether the sender knows the password and the message is whole.
fn verify(message: &Message<'_>, key: &IntegrityKey) -> Result<(), DropReason> {
    match message.integrity(key) {
        Check::Absent => return Err(DropReason::StunNoIntegrity),
        Check::Wrong => return Err(DropReason::StunBadIntegrity),
        Check::Right => {}
    }
    match message.fingerprint() {
        Check::Wrong => Err(DropReason::StunBadFingerprint),
        Check::Absent | Check::Right => Ok(()),
    }
}
