//! What HTTP and the shards ask about WebRTC sessions and say of them.
//!
//! A session is counted from its offer on and stays with the origin that answered it. Which shard
//! owns it is the arbiter's business.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::State;
use crate::control::arbiter::{Cause, Failure, Then};
use crate::control::ask::{Offer, OfferRefused, Placement, Resource, Token};
use crate::control::balancer::Wish;
use crate::control::directory::Opening;
use crate::control::origin::Kind;
use crate::protocol::ice::IcePair;
use crate::protocol::stream_url::{DEFAULT_VHOST, StreamKey};
use crate::protocol::stun::IntegrityKey;
use crate::shard::command::{
    EndReason, Handover, NotExpected, Pair, PathRequest, Role, RtcId, SessionKey, Signalled,
    Traffic,
};

impl State {
    /// Finds a place for an offer.
    pub(super) fn offer(
        &mut self,
        now: Instant,
        offer: Offer,
    ) -> Result<Box<Placement>, OfferRefused> {
        let placement = self.place(now, &offer);
        if let Err(refused) = placement {
            self.refusals.count(refusal_label(refused));
            if let Some(held_back) = self.throttle.pass(now, cause(refused)) {
                let Offer { stream, client, .. } = &offer;
                let (reason, cause) = (refusal_label(refused), cause(refused));
                tracing::warn!(%client, %stream, reason, cause, held_back, "offer refused");
            }
        }
        placement
    }

    fn place(&mut self, now: Instant, offer: &Offer) -> Result<Box<Placement>, OfferRefused> {
        let &Offer { ref stream, role, client } = offer;
        if !self.offers.take(now, client) {
            return Err(OfferRefused::Rate);
        }
        if self.is_draining() {
            return Err(OfferRefused::Draining);
        }
        let wish = Wish { stream, role, kind: Kind::WebRtc, group: None };
        let origin = self.balancer.pick(&self.directory, now, &wish);
        let origin = origin.and_then(|origin| Some((origin, origin.api_address()?)));
        let (origin, api) = origin.ok_or_else(|| self.no_origin(now, Kind::WebRtc))?;
        self.admission.admit(now, client).map_err(|limit| OfferRefused::Limit(limit.label()))?;
        let placement = Placement {
            session: self.arbiter.reserve(now),
            origin: origin.id(),
            name: origin.name().to_owned(),
            api,
            rtc: origin.rtc_address(),
            path: origin.special().path.clone(),
            host: origin.special().host,
        };
        let stream = stream.clone();
        let (source, kind) = (client, Kind::WebRtc);
        let opening = Opening { stream, role, source, client: None, group: None, kind };
        self.directory.open(now, placement.session, opening, placement.origin);
        Ok(Box::new(placement))
    }

    fn no_origin(&self, now: Instant, kind: Kind) -> OfferRefused {
        match self.directory.is_full(kind, now) {
            true => OfferRefused::Limit("every origin is full"),
            false => OfferRefused::NoOrigin,
        }
    }

    /// Lets all shards expect a session's client. Where there is no such session, `reply` is
    /// dropped.
    pub(super) fn expect(
        &mut self,
        now: Instant,
        id: RtcId,
        address: SocketAddr,
        pairs: &[IcePair],
        reply: oneshot::Sender<Result<(), NotExpected>>,
    ) {
        let pairs = pairs.iter().map(|pair| Pair {
            username: pair.username().into(),
            key: IntegrityKey::new(pair.origin.password.expose().as_bytes()),
        });
        self.signal(now, id, address, pairs.collect(), Then::Reply(reply));
    }

    fn signal(
        &mut self,
        now: Instant,
        id: RtcId,
        address: SocketAddr,
        pairs: Vec<Pair>,
        then: Then,
    ) {
        let Some(session) = self.directory.session(id) else {
            return;
        };
        let (origin, role) = (session.origin, session.role);
        let stream = session.stream.clone();
        let signalled = Signalled { id, origin, address, stream, role };
        let failure = self.arbiter.expect(now, signalled, pairs, then);
        self.take_failure(now, failure);
    }

    /// A shard's answer to an expectation.
    pub(super) fn expected(&mut self, now: Instant, id: RtcId, result: Result<(), NotExpected>) {
        let failure = self.arbiter.expected(id, result);
        self.take_failure(now, failure);
    }

    fn take_failure(&mut self, now: Instant, failure: Option<Failure>) {
        if let Some(failure) = failure {
            self.failed(now, failure);
        }
        self.tell_shards();
    }

    fn failed(&mut self, now: Instant, Failure { session, cause, is_over }: Failure) {
        let label = match cause {
            Cause::Refused(NotExpected::PairTaken) => Some("pair_taken"),
            Cause::Refused(NotExpected::TooManyPairs) => Some("too_many_pairs"),
            Cause::Refused(NotExpected::Full) => Some("table_full"),
            Cause::Refused(NotExpected::Draining) => Some("draining"),
            Cause::Silence => Some("shard_silent"),
            Cause::NeverValidated => None,
        };
        if let Some(reason) = label {
            self.refusals.count(reason);
            if let Some(held_back) = self.throttle.pass(now, reason) {
                let session = super::SessionId::from(session);
                tracing::warn!(%session, reason, held_back, "a shard does not expect the session");
            }
        }
        match (is_over, cause) {
            (true, Cause::NeverValidated) => self.never_started(now, session),
            (true, Cause::Refused(_) | Cause::Silence) => self.free(now, session),
            (false, _) => {}
        }
    }

    /// Gives a session its URL.
    pub(super) fn publish(&mut self, now: Instant, id: RtcId, resource: &Resource) {
        self.arbiter.publish(now, id, resource);
    }

    /// What a session URL stands for.
    pub(super) fn resource(&self, token: &Token) -> Option<(RtcId, Resource)> {
        self.arbiter.by_token(token)
    }

    /// The origin did not take the offer.
    pub(super) fn abandon(&mut self, now: Instant, id: RtcId) {
        if self.arbiter.finish(id, EndReason::Deleted, Duration::ZERO) {
            self.free(now, id);
        }
        self.tell_shards();
    }

    /// The origin could not even be asked.
    pub(super) fn unreachable(&mut self, now: Instant, id: RtcId) {
        if let Some(session) = self.directory.session(id) {
            let (origin, kind) = (session.origin, session.kind);
            self.abandon(now, id);
            self.origin_failed(now, origin, kind);
        }
    }

    /// Ends a session; what is on its way may pass for a while. Returns whether there is one.
    pub(super) fn finish(&mut self, now: Instant, id: RtcId, reason: EndReason) -> bool {
        let is_known = self.arbiter.has(id);
        if reason == EndReason::Operator {
            let resource = self.arbiter.take_resource(id);
            self.say_goodbye(resource);
        }
        if self.arbiter.finish(id, reason, LINGER) {
            self.over(now, id.into(), reason, Traffic::default(), Duration::ZERO);
        }
        self.tell_shards();
        is_known
    }

    /// A client has proven itself on a shard that does not own its session.
    pub(super) fn path(&mut self, shard: u16, request: PathRequest) {
        self.arbiter.path(shard, request);
        self.tell_shards();
    }

    /// An owner's answer to another shard's claim.
    pub(super) fn yielded(
        &mut self,
        now: Instant,
        shard: u16,
        id: RtcId,
        handover: Option<Box<Handover>>,
    ) {
        if let Some(reason) = self.arbiter.yielded(shard, id, handover) {
            self.over(now, id.into(), reason, Traffic::default(), Duration::ZERO);
        }
        self.tell_shards();
    }

    /// A client without signalling has named itself.
    pub(super) fn candidate(&mut self, now: Instant, shard: u16, client: SocketAddr, ufrag: &str) {
        let username: Box<str> = format!("{ufrag}:{ufrag}").into();
        if self.arbiter.knows(&username) {
            return;
        }
        match self.place_direct(now, client, ufrag) {
            Ok((id, address)) => {
                let key = IntegrityKey::new(ufrag.as_bytes());
                self.signal(now, id, address, vec![Pair { username, key }], Then::Own(shard));
            }
            Err(refused) => {
                self.refusals.count(refusal_label(refused));
                if let Some(held_back) = self.throttle.pass(now, cause(refused)) {
                    let (reason, cause) = (refusal_label(refused), cause(refused));
                    tracing::warn!(%client, reason, cause, held_back, "session refused");
                }
            }
        }
    }

    fn place_direct(
        &mut self,
        now: Instant,
        client: SocketAddr,
        ufrag: &str,
    ) -> Result<(RtcId, SocketAddr), OfferRefused> {
        if self.is_draining() {
            return Err(OfferRefused::Draining);
        }
        let origin = self.balancer.pick_direct(&self.directory, now, ufrag);
        let place = origin.and_then(|origin| Some((origin.id(), origin.direct_address()?)));
        let (origin, address) = place.ok_or_else(|| self.no_origin(now, Kind::Direct))?;
        // One key for all: each comes once, and must not push real streams out of the table.
        let stream = StreamKey::canonical(DEFAULT_VHOST, DIRECT_STREAM);
        let stream = stream.map_err(|_| OfferRefused::NoOrigin)?;
        self.admission
            .admit(now, client.ip())
            .map_err(|limit| OfferRefused::Limit(limit.label()))?;
        let (source, role) = (client.ip(), Role::Publish);
        let kind = Kind::Direct;
        let opening = Opening { stream, role, source, client: None, group: None, kind };
        let id = self.arbiter.reserve(now);
        self.directory.open(now, id, opening, origin);
        Ok((id, address))
    }

    /// A client is proven where its session is.
    pub(super) fn validated(
        &mut self,
        shard: u16,
        id: RtcId,
        key: SessionKey,
        client: SocketAddr,
        setup: Duration,
    ) {
        if self.arbiter.validated(shard, id, key) {
            self.started(id.into(), client, setup);
        }
    }

    /// A session is over where it was.
    pub(super) fn rtc_ended(
        &mut self,
        now: Instant,
        shard: u16,
        id: RtcId,
        reason: EndReason,
        traffic: Traffic,
        age: Duration,
    ) {
        let Some(resource) = self.arbiter.ended(shard, id, reason) else {
            return;
        };
        // An origin that believes in a publisher refuses the next one of its stream.
        if matches!(reason, EndReason::ClientIdle | EndReason::Quit) {
            self.say_goodbye(resource);
        }
        if let Some(session) = self.over(now, id.into(), reason, traffic, age) {
            let has_answered = traffic.origin_in.packets > 0;
            let is_deaf = reason == EndReason::OriginIdle && !has_answered;
            if reason == EndReason::OriginGone || is_deaf {
                self.origin_failed(now, session.origin, session.kind);
            } else if has_answered {
                // Its API answered before any media did, so nothing is known of it sooner.
                self.origin_succeeded(now, session.origin, session.kind);
            }
        }
        self.tell_shards();
    }

    /// Gives up what has waited for too long.
    pub(super) fn expire_webrtc(&mut self, now: Instant) {
        for (failure, resource) in self.arbiter.expire(now) {
            self.say_goodbye(resource);
            self.failed(now, failure);
        }
        self.tell_shards();
    }

    /// The shards end their sessions; those that no shard owns end here.
    pub(super) fn abandon_webrtc(&mut self, now: Instant) {
        for (id, resource) in self.arbiter.abandon_all() {
            self.say_goodbye(resource);
            self.free(now, id);
        }
    }

    /// A session that is over here while its origin may think otherwise: to be deleted there.
    pub(in crate::control) fn take_goodbye(&mut self) -> Option<Resource> {
        self.goodbyes.pop()
    }

    fn say_goodbye(&mut self, resource: Option<Resource>) {
        let resource = resource.filter(|resource| resource.target.is_some());
        if let Some(resource) = resource
            && self.goodbyes.len() < GOODBYES_MAX
        {
            self.goodbyes.push(resource);
        }
    }

    /// Its client was expected and never came.
    fn never_started(&mut self, now: Instant, id: RtcId) {
        let reason = EndReason::NeverValidated;
        self.over(now, id.into(), reason, Traffic::default(), Duration::ZERO);
    }

    /// Frees the place of a session that never was one: whoever asked for it is told, and the log
    /// is not.
    fn free(&mut self, now: Instant, id: RtcId) {
        if let Some(session) = self.directory.close(now, id) {
            self.admission.ended(session.source, session.is_established);
        }
    }

    fn tell_shards(&mut self) {
        for (shard, command) in self.arbiter.take_commands() {
            self.shards.tell(shard, command);
        }
    }
}

/// Refused sessions, by reason.
pub(super) struct Refusals([u64; REASONS.len()]);

impl Refusals {
    pub(super) fn new() -> Self {
        Self([0; REASONS.len()])
    }

    fn count(&mut self, reason: &'static str) {
        let position = REASONS.iter().position(|known| *known == reason);
        debug_assert!(position.is_some(), "{reason} is no reason");
        if let Some(count) = position.and_then(|position| self.0.get_mut(position)) {
            *count += 1;
        }
    }

    /// All reasons, also those that were none yet.
    pub(super) fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().zip(self.0)
    }
}

/// The value of the metric's label.
fn refusal_label(refused: OfferRefused) -> &'static str {
    match refused {
        OfferRefused::Draining => "draining",
        OfferRefused::NoOrigin => "no_origin",
        OfferRefused::Limit(_) => "limit",
        OfferRefused::Rate => "rate",
    }
}

/// For the log.
fn cause(refused: OfferRefused) -> &'static str {
    match refused {
        OfferRefused::Draining => "draining",
        OfferRefused::NoOrigin => "no live origin with WebRTC",
        OfferRefused::Limit(limit) => limit,
        OfferRefused::Rate => "--http-per-source",
    }
}

const REASONS: [&str; 8] = [
    "draining",
    "no_origin",
    "limit",
    "rate",
    "pair_taken",
    "too_many_pairs",
    "table_full",
    "shard_silent",
];
/// How long last words pass after a session's end.
const LINGER: Duration = Duration::from_secs(2);
/// Sessions that wait to be deleted at their origins. Origins find out by themselves when more end
/// at once.
const GOODBYES_MAX: usize = 1_024;
/// Where clients without signalling are listed.
const DIRECT_STREAM: &str = "direct/peers";

#[cfg(test)]
mod leaks;

#[cfg(test)]
mod tests;
