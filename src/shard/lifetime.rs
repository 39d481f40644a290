//! How sessions end: refusals, goodbyes, silence, dead origins, and the time that does it all.

use std::time::Instant;

use super::{
    Action, DropReason, EndReason, Event, PortError, Protocol, SessionKey, Shard, State, Verdict,
    send, to_client, to_origin,
};
use crate::protocol::srt::{Rejection, control};
use crate::session::session::{ANSWER_LIFE, LINGER, SUSPICION, Session};
use crate::session::table::InSlot;

impl Shard {
    /// Does what is due at `now`, a bounded number of sessions at a time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.close_some(now);
        for _ in 0..DUE_PER_CALL {
            if !self.outbox.has_room() {
                return;
            }
            let Some(slot) = self.expiry.take_due(now) else {
                return;
            };
            if let Some((key, _)) = self.table.in_slot(slot) {
                // Datagrams move deadlines without telling the wheel.
                if self.deadline(key).is_some_and(|deadline| deadline <= now) {
                    self.due(now, key);
                }
                self.reschedule(key);
            }
        }
    }

    fn due(&mut self, now: Instant, key: SessionKey) {
        let timing = self.timing;
        if self.table.protocol(key) == Some(Protocol::WebRtc) {
            return self.webrtc_due(now, key);
        }
        let Some(session) = self.table.srt_mut(key) else {
            return;
        };
        match session.state {
            // Control is not keeping up.
            State::Picking => self.refuse(now, key, Rejection::Overload),
            State::Inducing | State::Concluding { .. } => {
                if now >= session.created + timing.origin_setup {
                    self.refuse(now, key, Rejection::BadGateway);
                } else {
                    self.ask(now, key);
                }
            }
            State::Established => self.established_due(now, key),
            State::Refused | State::Closing => self.remove(key),
        }
    }

    fn established_due(&mut self, now: Instant, key: SessionKey) {
        let idle = self.timing.idle;
        let Some(session) = self.table.srt_mut(key) else {
            return;
        };
        if session.confirmed.is_some_and(|confirmed| now >= confirmed + ANSWER_LIFE) {
            session.handshake = None;
        }
        let heard_since = session.suspected.is_some_and(|since| session.heard_origin > since);
        if heard_since {
            session.suspected = None;
        }
        let gone = session.suspected.is_some_and(|since| now >= since + SUSPICION);
        if gone {
            self.end(now, key, EndReason::OriginGone);
        } else if now >= session.heard_client + idle {
            self.end(now, key, EndReason::ClientIdle);
        } else if now >= session.heard_origin + idle {
            self.end(now, key, EndReason::OriginIdle);
        }
    }

    /// A receive or send on the session's port failed.
    pub fn port_failed(&mut self, now: Instant, key: SessionKey, error: PortError) {
        if self.table.protocol(key) == Some(Protocol::WebRtc) {
            return self.webrtc_port_failed(now, key, error);
        }
        let Some(session) = self.table.srt_mut(key) else {
            return;
        };
        if session.state.is_undecided() {
            match error {
                PortError::Refused | PortError::Unreachable => self.go_elsewhere(now, key),
                PortError::Exhausted | PortError::Other(_) => {
                    self.refuse(now, key, Rejection::BadGateway);
                }
            }
        } else if session.state == State::Established
            && matches!(error, PortError::Refused | PortError::Unreachable)
            && session.suspected.is_none()
        {
            // One ICMP message may be a forgery or a restart: silence decides.
            let patience = now.checked_sub(SUSPICION).unwrap_or(now);
            session.suspected = Some(session.heard_origin.max(patience));
            self.reschedule(key);
        }
    }

    /// The origin's port is closed, which control hears of as of any end, and the caller still waits: control is asked
    /// once more. The session is a new one, so that nothing that is still to come of the old port can be taken for the
    /// new one's.
    pub(super) fn go_elsewhere(&mut self, now: Instant, key: SessionKey) {
        let give_up_after = self.timing.origin_setup;
        let next = self
            .table
            .srt_mut(key)
            .filter(|session| session.state.is_undecided() && session.attempts < ATTEMPTS_MAX)
            .filter(|session| now < session.created + give_up_after)
            .and_then(|session| Session::again(session, now));
        let Some(next) = next else {
            return self.refuse(now, key, Rejection::BadGateway);
        };
        self.over(now, key, EndReason::TakenElsewhere, State::Refused);
        self.remove(key);
        self.begin(next);
    }

    /// Tells the caller why not, and remembers it for repeats.
    pub(super) fn refuse(&mut self, now: Instant, key: SessionKey, rejection: Rejection) {
        let timestamp = self.timestamp(now);
        let Some(session) = self.table.srt_mut(key) else {
            return;
        };
        if !session.state.is_undecided() {
            return;
        }
        let route = to_client(session);
        let may_be_taken = matches!(session.state, State::Concluding { .. });
        if let Some(handshake) = session.handshake.as_deref_mut() {
            let answer = handshake.keep_rejection(timestamp, rejection.wire(), now);
            send(&mut self.outbox, &mut self.counters, Protocol::Srt, route, answer);
        }
        self.counters.refused(rejection);
        self.over(now, key, EndReason::Refused(rejection), State::Refused);
        // An origin that has the conclusion may still take the caller. Its answer must find somebody who declines.
        if !may_be_taken {
            self.close_port(key);
        }
    }

    /// The origin has refused the caller: it gets the origin's own reason.
    pub(super) fn refused_by_origin(
        &mut self,
        now: Instant,
        key: SessionKey,
        code: u32,
        bytes: &[u8],
    ) {
        self.answer_with(now, key, bytes);
        self.counters.refusals_by_origin += 1;
        self.over(now, key, EndReason::RefusedByOrigin(code), State::Refused);
        self.close_port(key);
    }

    /// A goodbye has passed: stragglers and the other side's own may still be on their way.
    pub(super) fn linger(&mut self, now: Instant, key: SessionKey, reason: EndReason) {
        let Some(session) = self.table.srt_mut(key) else {
            return;
        };
        if session.state == State::Established {
            session.closing_until = Some(now + LINGER);
            self.over(now, key, reason, State::Closing);
        }
    }

    /// Ends a session with a goodbye to whoever believes in it.
    pub(super) fn end(&mut self, now: Instant, key: SessionKey, reason: EndReason) {
        let Some(session) = self.table.srt_mut(key) else {
            return;
        };
        let is_told = matches!(reason, EndReason::Operator | EndReason::Quit);
        if session.state.is_undecided() && is_told {
            self.refuse(now, key, Rejection::Close);
        } else if session.state == State::Established {
            // A caller that begins anew would take the goodbye to its old connection for one to its new.
            if reason != EndReason::Superseded {
                self.say_goodbye_to_client(now, key);
            }
            self.say_goodbye_to_origin(now, key);
        }
        if reason == EndReason::Operator {
            // A conclusion that is still on its way must meet its session, or it would begin another one.
            self.linger(now, key, reason);
        } else {
            self.over(now, key, reason, State::Closing);
            self.remove(key);
        }
    }

    pub(super) fn say_goodbye_to_client(&mut self, now: Instant, key: SessionKey) {
        let timestamp = self.timestamp(now);
        if let Some(session) = self.table.srt_mut(key) {
            let goodbye = control::shutdown(session.client_socket, timestamp);
            let route = to_client(session);
            self.send(route, &goodbye);
        }
    }

    fn say_goodbye_to_origin(&mut self, now: Instant, key: SessionKey) {
        let timestamp = self.timestamp(now);
        if let Some(socket) = self.table.srt_mut(key).and_then(|session| session.origin_socket) {
            self.send(to_origin(key), &control::shutdown(socket, timestamp));
        }
    }

    /// The session is decided against or done: control hears of it, once.
    fn over(&mut self, now: Instant, key: SessionKey, reason: EndReason, next: State) {
        let Some(session) = self.table.srt_mut(key) else {
            return;
        };
        if matches!(session.state, State::Refused | State::Closing) {
            return;
        }
        let (traffic, age) = (session.traffic, now.saturating_duration_since(session.created));
        self.set_state(key, next);
        self.outbox.tell(Event::Ended { session: key, reason, traffic, age });
        self.reschedule(key);
    }

    /// Takes the session out of every table.
    pub(super) fn remove(&mut self, key: SessionKey) {
        self.close_port(key);
        self.expiry.cancel(key.slot);
        if let Some(session) = self.table.remove(key) {
            self.recount(session.state, None);
        }
    }

    pub(super) fn close_port(&mut self, key: SessionKey) {
        if let Some(session) = self.table.srt_mut(key)
            && std::mem::take(&mut session.has_port)
        {
            self.outbox.act(Action::Close { session: key });
        }
    }

    /// The one place where a session's state changes, so that the gauges follow.
    pub(super) fn set_state(&mut self, key: SessionKey, next: State) {
        let Some(session) = self.table.srt_mut(key) else {
            return;
        };
        let before = std::mem::replace(&mut session.state, next);
        let client = session.client.address.ip();
        if before.is_undecided() && !next.is_undecided() {
            self.table.decided(client);
        }
        self.recount(before, Some(next));
    }

    fn recount(&mut self, before: State, next: Option<State>) {
        let is = |state: Option<State>, what: fn(State) -> bool| u64::from(state.is_some_and(what));
        let established = |state| state == State::Established;
        let counters = &mut self.counters;
        counters.pending += is(next, State::is_pending);
        counters.pending -= is(Some(before), State::is_pending);
        counters.srt.established += is(next, established);
        counters.srt.established -= is(Some(before), established);
    }

    /// The client has used the origin's socket ID: it knows the answer. Kept a while longer, then dropped.
    pub(super) fn confirm(&mut self, now: Instant, key: SessionKey) {
        if let Some(session) = self.table.srt_mut(key) {
            session.confirmed = Some(now);
            self.reschedule(key);
        }
    }

    /// The kept answer once more, with its age.
    pub(super) fn repeat_answer(&mut self, now: Instant, key: SessionKey) -> Verdict {
        let Some(session) = self.table.srt_mut(key) else {
            return Verdict::Drop(DropReason::RepeatedConclusion);
        };
        let answer = session.handshake.as_mut().and_then(|handshake| handshake.repeat(now));
        let Some(answer) = answer else {
            return Verdict::Drop(DropReason::RepeatedConclusion);
        };
        let route = to_client(session);
        self.send(route, &answer);
        Verdict::Taken
    }

    /// Goes on with `CloseAll`, in pieces that fit the outbox.
    fn close_some(&mut self, now: Instant) {
        let Some(from) = self.closing_all else {
            return;
        };
        let upto = (from + CLOSED_PER_CALL).min(self.table.slots());
        for slot in from..upto {
            match self.table.in_slot(slot) {
                Some((key, InSlot::Srt(_))) => self.end(now, key, EndReason::Quit),
                Some((key, InSlot::WebRtc(_))) => self.end_webrtc(now, key, EndReason::Quit),
                None => {}
            }
        }
        self.closing_all = (upto < self.table.slots()).then_some(upto);
        if self.closing_all.is_none() {
            self.outbox.tell(Event::Emptied);
        }
    }
}

/// Origins with closed ports that one caller is taken to before the last: more at a time mean that no other is better.
const ATTEMPTS_MAX: u8 = 3;

/// Sessions looked at per call: the rest is due at once again, after the sockets had their turn.
const DUE_PER_CALL: usize = 1024;

/// Two goodbyes each, far below what the outbox holds.
const CLOSED_PER_CALL: u32 = 512;
