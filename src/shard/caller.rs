//! Callers that are not connected yet: inductions, answered without state, and conclusions, which begin a session.

use std::net::SocketAddr;
use std::time::Instant;

use super::{
    Datagram, DropReason, Event, ListenerIndex, Peer, PickRequest, Port, Role, Route, SessionKey,
    Shard, State, Verdict,
};
use crate::protocol::srt::{Extensions, Handshake, HandshakeKind, Mode, Rejection, StreamId};
use crate::protocol::stream_url::StreamKey;
use crate::session::budget::Prefix;
use crate::session::handshake::KEPT_MAX;
use crate::session::session::Wish;
use crate::session::{CallerHandshake, Session};

impl Shard {
    /// A handshake without destination: somebody wants to connect.
    pub(super) fn caller(
        &mut self,
        now: Instant,
        listener: ListenerIndex,
        datagram: Datagram<'_>,
    ) -> Verdict {
        let Ok(request) = Handshake::parse(datagram.bytes) else {
            return Verdict::Drop(DropReason::MalformedHandshake);
        };
        // A zero socket ID would make our answer look like a question, and two listeners answer each other for ever.
        if request.socket.0 == 0 || datagram.source.port() == 0 {
            return Verdict::Drop(DropReason::MalformedHandshake);
        }
        let client = Peer { address: datagram.source, local: datagram.local };
        match request.kind {
            HandshakeKind::Induction => self.induction(now, listener, client, &request),
            HandshakeKind::Conclusion => {
                self.conclusion(now, listener, client, &request, datagram.bytes)
            }
            HandshakeKind::WaveAHand => Verdict::Drop(DropReason::Rendezvous),
            HandshakeKind::Agreement
            | HandshakeKind::Done
            | HandshakeKind::Rejection(_)
            | HandshakeKind::Other(_) => Verdict::Drop(DropReason::UnexpectedHandshake),
        }
    }

    /// Answers 64 bytes or more with exactly 64, and keeps nothing.
    fn induction(
        &mut self,
        now: Instant,
        listener: ListenerIndex,
        client: Peer,
        request: &Handshake,
    ) -> Verdict {
        // The magic marks a listener's response: never a question.
        if !matches!(request.version, 4 | 5) || request.extension == Handshake::MAGIC {
            return Verdict::Drop(DropReason::UnexpectedHandshake);
        }
        let network = Prefix::of_network(client.address.ip());
        if !self.inductions_by_network.take(network, now)
            || !self.inductions.take(Self::total_rate(&self.config.limits), now)
        {
            return Verdict::Drop(DropReason::InductionRate);
        }
        let cookie = self.config.cookie_key.bake(self.bucket(now), client.address, request.socket);
        let encryption = u16::from(self.config.key_length / 8);
        let response = request.induction_response(
            self.timestamp(now),
            encryption,
            cookie,
            client.address.ip(),
        );
        self.send(Route { port: Port::Listener(listener), to: Some(client) }, &response);
        Verdict::Taken
    }

    /// The caller has proven its address if the cookie is ours: from here on it may have state, and is told why not.
    fn conclusion(
        &mut self,
        now: Instant,
        listener: ListenerIndex,
        client: Peer,
        request: &Handshake,
        bytes: &[u8],
    ) -> Verdict {
        let bucket = self.bucket(now);
        let address = client.address;
        if !self.config.cookie_key.is_valid(request.cookie, bucket, address, request.socket) {
            return Verdict::Drop(DropReason::InvalidCookie);
        }
        if let Some(known) = self.table.by_caller(address, request.socket) {
            if self.is_repeat(known, request) {
                return self.repeated_conclusion(now, known);
            }
            self.end(now, known, super::EndReason::Superseded);
        }
        match self.admit(address).and_then(|()| self.wish(request, bytes)) {
            Ok(wish) => {
                self.make_room(now);
                let handshake = CallerHandshake::new(bytes, *request, now);
                self.begin(Session::new(listener, client, handshake, wish, now));
            }
            Err(rejection) => {
                let route = Route { port: Port::Listener(listener), to: Some(client) };
                let answer = request.rejection(self.timestamp(now), rejection.wire());
                self.counters.refused(rejection);
                self.send(route, &answer);
            }
        }
        Verdict::Taken
    }

    /// The same attempt, that is: the same initial sequence number. Another one is a new connection of a caller that
    /// has forgotten the old. So is the same number once the answer is forgotten: there are devices that begin with one
    /// number every time.
    fn is_repeat(&mut self, known: SessionKey, request: &Handshake) -> bool {
        self.table.srt_mut(known).is_some_and(|session| {
            session.initial_sequence == request.initial_sequence && session.handshake.is_some()
        })
    }

    fn repeated_conclusion(&mut self, now: Instant, key: SessionKey) -> Verdict {
        let Some(session) = self.table.srt_mut(key) else {
            return Verdict::Drop(DropReason::RepeatedConclusion);
        };
        let is_closing = session.state == State::Closing;
        if session.confirmed.is_none() {
            session.heard_client = now;
        } else if is_closing {
            // A straggler, or the same caller again: the answer would connect it to a session that is over. Its next
            // conclusions begin a new one.
            return Verdict::Drop(DropReason::RepeatedConclusion);
        }
        let verdict = self.repeat_answer(now, key);
        if is_closing && verdict == Verdict::Taken {
            // It has missed the answer and may have missed the goodbye as well, which passes only once.
            self.say_goodbye_to_client(now, key);
        }
        verdict
    }

    fn admit(&self, client: SocketAddr) -> Result<(), Rejection> {
        if self.draining {
            return Err(Rejection::Close);
        }
        let limits = &self.config.limits;
        if self.table.is_full()
            || self.outbox.is_backlogged()
            || self.table.undecided_of(client.ip()) >= limits.pending_per_source
        {
            return Err(Rejection::Overload);
        }
        Ok(())
    }

    /// What the caller asks for.
    fn wish(&self, request: &Handshake, bytes: &[u8]) -> Result<Wish, Rejection> {
        if bytes.len() > KEPT_MAX {
            return Err(Rejection::Rogue);
        }
        let extensions = match request.version {
            // Version 4 negotiates after the handshake, in packets that pass through.
            4 => Extensions::default(),
            5 => Extensions::parse(bytes).map_err(Rejection::from)?,
            _ => return Err(Rejection::Version),
        };
        if request.version == 5 && extensions.hsreq.is_none() {
            return Err(Rejection::Rogue);
        }
        let (stream, role) = self.stream(extensions.stream_id.as_deref())?;
        Ok(Wish {
            stream,
            role,
            group: extensions.group,
            hsreq: extensions.hsreq,
            key: extensions.key_material,
        })
    }

    fn stream(&self, stream_id: Option<&str>) -> Result<(StreamKey, Role), Rejection> {
        let Some(stream_id) = stream_id else {
            let default = self.config.default_stream.as_deref().ok_or(Rejection::BadRequest)?;
            let vhost = self.config.vhosts.resolve(None);
            let key = StreamKey::canonical(vhost, default).map_err(Rejection::from)?;
            // What SRS makes of an empty stream ID, too.
            return Ok((key, Role::Publish));
        };
        let id = StreamId::parse(stream_id).map_err(Rejection::from)?;
        let key = id.key(&self.config.vhosts).map_err(Rejection::from)?;
        let role = match id.mode {
            Mode::Publish => Role::Publish,
            Mode::Request => Role::Play,
        };
        Ok((key, role))
    }

    /// Asks control for an origin. There is room for the session.
    pub(super) fn begin(&mut self, session: Session) {
        let (stream, role, group) =
            (session.wish.stream.clone(), session.wish.role, session.wish.group);
        let client = session.client.address;
        let session = self.table.insert(session);
        self.pending.push_back(session);
        self.counters.pending += 1;
        let request = PickRequest { session, client, stream, role, group };
        self.outbox.tell(Event::Pick(Box::new(request)));
        self.reschedule(session);
    }

    /// Keeps the number of handshakes below its bound: the oldest gives way, never an established session.
    fn make_room(&mut self, now: Instant) {
        while self.counters.pending >= u64::from(self.config.limits.pending_max) {
            let Some(oldest) = self.pending.pop_front() else {
                return;
            };
            if self.is_pending(oldest) {
                self.end(now, oldest, super::EndReason::PendingOverflow);
            }
        }
        // Decided ones in the queue cost nothing but their place; they leave when they are the majority.
        if self.pending.len() as u64 > 2 * u64::from(self.config.limits.pending_max) {
            let mut queue = std::mem::take(&mut self.pending);
            queue.retain(|&key| self.is_pending(key));
            self.pending = queue;
        }
    }

    fn is_pending(&mut self, key: SessionKey) -> bool {
        self.table.srt_mut(key).is_some_and(|session| session.state.is_pending())
    }
}
