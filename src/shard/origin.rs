//! The origin's half of a handshake: asking for its cookie, presenting the caller's conclusion, passing on the answer.

use std::net::SocketAddr;
use std::time::Instant;

use super::{
    Action, DropReason, Event, OriginId, PortError, Protocol, SessionKey, Shard, State, Verdict,
    send, to_client, to_origin,
};
use crate::protocol::srt::{Handshake, HandshakeKind, Rejection, SocketId, control};
use crate::session::handshake::{KEPT_MAX, RETRY_INTERVAL};

impl Shard {
    /// Control has chosen.
    pub(super) fn picked(
        &mut self,
        now: Instant,
        key: SessionKey,
        origin: OriginId,
        address: SocketAddr,
    ) {
        let Some(session) = self.table.srt_mut(key) else {
            return;
        };
        if session.state != State::Picking || session.origin.is_some() {
            return;
        }
        session.origin = Some((origin, address));
        session.heard_origin = now;
        self.outbox.act(Action::Open { session: key, origin: address });
    }

    /// The engine's answer to [`Action::Open`].
    pub fn port_opened(&mut self, now: Instant, key: SessionKey, result: Result<(), PortError>) {
        if self.table.protocol(key) == Some(Protocol::WebRtc) {
            return self.webrtc_port_opened(now, key, result);
        }
        let waiting = self.table.srt_mut(key).filter(|session| session.state == State::Picking);
        match result {
            Ok(()) => {
                let Some(session) = waiting else {
                    // Refused or gone while the port was being opened: no one else would close it.
                    self.outbox.act(Action::Close { session: key });
                    return;
                };
                session.has_port = true;
                self.set_state(key, State::Inducing);
                self.ask(now, key);
            }
            Err(PortError::Exhausted) => self.refuse(now, key, Rejection::Overload),
            Err(PortError::Refused | PortError::Unreachable) => self.go_elsewhere(now, key),
            Err(PortError::Other(_)) => self.refuse(now, key, Rejection::BadGateway),
        }
    }

    /// Asks the origin what the session waits for, and again a quarter of a second later.
    pub(super) fn ask(&mut self, now: Instant, key: SessionKey) {
        let timestamp = self.timestamp(now);
        let Some(session) = self.table.srt_mut(key) else {
            return;
        };
        let mtu_max = session.mtu_max();
        let (state, origin_ip) = (session.state, session.origin_ip());
        let (Some(handshake), Some(origin_ip)) = (session.handshake.as_deref_mut(), origin_ip)
        else {
            return;
        };
        handshake.retry_at = Some(now + RETRY_INTERVAL);
        let induction;
        let question = match state {
            State::Inducing => {
                induction = handshake.induction(timestamp, origin_ip);
                induction.as_slice()
            }
            State::Concluding { cookie } => handshake.conclude(cookie, origin_ip, mtu_max, now),
            State::Picking | State::Established | State::Refused | State::Closing => return,
        };
        send(&mut self.outbox, &mut self.counters, Protocol::Srt, to_origin(key), question);
        self.reschedule(key);
    }

    /// A handshake came from the origin.
    pub(super) fn origin_answered(
        &mut self,
        now: Instant,
        key: SessionKey,
        bytes: &[u8],
    ) -> Verdict {
        let Some(answer) = Handshake::parse(bytes).ok().filter(|_| bytes.len() <= KEPT_MAX) else {
            return Verdict::Drop(DropReason::MalformedHandshake);
        };
        let Some(session) = self.table.srt_mut(key) else {
            return Verdict::Drop(DropReason::StalePort);
        };
        match (session.state, answer.kind) {
            (State::Inducing, HandshakeKind::Induction) => {
                if answer.version == 5 && answer.extension == Handshake::MAGIC {
                    self.set_state(key, State::Concluding { cookie: answer.cookie });
                    self.ask(now, key);
                } else {
                    // Not an SRT listener of version 5; its conclusions would mean something else.
                    self.refuse(now, key, Rejection::BadGateway);
                }
                Verdict::Taken
            }
            (State::Concluding { .. }, HandshakeKind::Conclusion) => {
                self.accepted(now, key, answer.socket, bytes);
                Verdict::Taken
            }
            (State::Inducing | State::Concluding { .. }, HandshakeKind::Rejection(code)) => {
                self.refused_by_origin(now, key, code, bytes);
                Verdict::Taken
            }
            (State::Established, HandshakeKind::Conclusion) => self.repeated_response(now, key),
            (State::Refused, HandshakeKind::Conclusion) => {
                // It has taken a caller that was refused meanwhile, and would keep the stream busy for nobody.
                self.disown(now, key, answer.socket);
                self.close_port(key);
                Verdict::Taken
            }
            _ => Verdict::Drop(DropReason::UnexpectedHandshake),
        }
    }

    /// The origin takes the caller.
    fn accepted(&mut self, now: Instant, key: SessionKey, socket: SocketId, response: &[u8]) {
        if socket.0 == 0 {
            self.refuse(now, key, Rejection::BadGateway);
            return;
        }
        self.claim_socket_id(key, socket);
        if self.table.index_socket_id(key, socket).is_err() {
            self.disown(now, key, socket);
            self.refuse(now, key, Rejection::Resource);
            return;
        }
        self.answer_with(now, key, response);
        let Some(session) = self.table.srt_mut(key) else {
            return;
        };
        session.heard_client = now;
        let setup = now.saturating_duration_since(session.created);
        self.set_state(key, State::Established);
        self.counters.srt.sessions_created += 1;
        self.outbox.tell(Event::Established { session: key, setup });
        self.reschedule(key);
    }

    /// Makes a session that is closing give its socket ID up: its stragglers may be lost, a new session may not.
    fn claim_socket_id(&mut self, key: SessionKey, socket: SocketId) {
        let Some(client) = self.table.srt_mut(key).map(|session| session.client.address) else {
            return;
        };
        if let Some((holder, session)) = self.table.by_socket_id(client, socket)
            && session.state == State::Closing
        {
            self.remove(holder);
        }
    }

    /// Tells the origin that the socket it has just made for a caller has no peer.
    fn disown(&mut self, now: Instant, key: SessionKey, socket: SocketId) {
        let goodbye = control::shutdown(socket, self.timestamp(now));
        self.send(to_origin(key), &goodbye);
    }

    /// Sends the origin's handshake to the client and keeps it for repeats.
    pub(super) fn answer_with(&mut self, now: Instant, key: SessionKey, response: &[u8]) {
        let Some(session) = self.table.srt_mut(key) else {
            return;
        };
        let (route, mtu_max) = (to_client(session), session.mtu_max());
        let client_ip = session.client.address.ip();
        if let Some(handshake) = session.handshake.as_deref_mut() {
            let answer = handshake.keep_response(response, client_ip, mtu_max, now);
            send(&mut self.outbox, &mut self.counters, Protocol::Srt, route, answer);
        }
    }

    /// The origin answers a conclusion that was on its way twice: the client may still wait for the answer.
    fn repeated_response(&mut self, now: Instant, key: SessionKey) -> Verdict {
        match self.table.srt_mut(key) {
            Some(session) if session.confirmed.is_none() => self.repeat_answer(now, key),
            Some(_) | None => Verdict::Drop(DropReason::RepeatedConclusion),
        }
    }
}
