//! Offers, sessions and their ends, as control counts and tells them.

use std::net::IpAddr;

use super::*;
use crate::config::{Config, HostHeader, HttpRate, StaticOrigin};
use crate::control::directory::fixtures::{
    CLIENT, registration, request, session, stream, with_webrtc,
};
use crate::control::drain::Goal;
use crate::control::session_id::SessionId;
use crate::control::state::fixtures::Relay;
use crate::protocol::ice::{Credentials, Password, Ufrag};
use crate::shard::OriginId;
use crate::shard::command::{Command, Event, Flow};

const HTTP_CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 77));

fn relay(config: Config) -> Relay {
    let mut relay = Relay::new(config);
    let origin = with_webrtc(registration("a", 1, Some(10080)));
    relay.state.register(relay.now, origin).unwrap();
    relay
}

impl Relay {
    fn offer(&mut self, path: &str, role: Role) -> Result<Box<Placement>, OfferRefused> {
        let offer = Offer { stream: stream(path), role, client: HTTP_CLIENT };
        self.state.offer(self.now, offer)
    }

    fn place(&mut self) -> RtcId {
        self.offer("live/a", Role::Publish).unwrap().session
    }

    fn expect(&mut self, id: RtcId) -> oneshot::Receiver<Result<(), NotExpected>> {
        let (reply, answer) = oneshot::channel();
        let address = SocketAddr::from(([10, 0, 0, 1], 8000));
        let pair = IcePair {
            origin: credentials(&format!("orig{}", id.0)),
            client: credentials("client"),
        };
        self.state.expect(self.now, id, address, &[pair], reply);
        answer
    }

    fn agree(&mut self, id: RtcId) {
        for shard in 0..2 {
            self.event(shard, Event::Expected { session: id, result: Ok(()) });
        }
    }

    /// A session whose client is proven on shard 1.
    fn start(&mut self) -> RtcId {
        let id = self.place();
        drop(self.expect(id));
        self.agree(id);
        let transaction = crate::protocol::stun::TransactionId([1; 12]);
        let path = PathRequest { session: id, client: CLIENT, transaction, nominated: false };
        self.event(1, Event::Path(Box::new(path)));
        let setup = Duration::from_millis(40);
        let key = session(3).key;
        self.event(1, Event::Validated { session: id, key, client: CLIENT, setup });
        id
    }

    fn end(&mut self, id: RtcId, reason: EndReason, origin_in: u64) {
        let origin_in = Flow { packets: origin_in, bytes: origin_in };
        let traffic = Traffic { origin_in, ..Traffic::default() };
        let age = Duration::from_secs(9);
        self.event(1, Event::RtcEnded { session: id, reason, traffic, age });
    }

    fn refusals(&self, reason: &str) -> u64 {
        let mut reasons = self.state.refusals.by_reason();
        reasons.find(|(known, _)| *known == reason).unwrap().1
    }

    fn publish(&mut self, id: RtcId) {
        let resource = Resource {
            token: Token("secret".into()),
            api: SocketAddr::from(([10, 0, 0, 1], 1985)),
            host: HostHeader::Client,
            target: Some("/there".to_owned()),
            takes_patch: false,
            address: None,
            origin_credentials: Vec::new(),
            client_credentials: Vec::new(),
        };
        self.state.publish(self.now, id, &resource);
    }
}

fn credentials(ufrag: &str) -> Credentials {
    let password = Password::parse("0123456789012345678901").unwrap();
    Credentials { ufrag: Ufrag::parse(ufrag).unwrap(), password }
}

#[test]
fn an_offer_is_placed_with_an_origins_api_and_udp_port() {
    let mut relay = relay(Config::default());
    let placement = relay.offer("live/a", Role::Publish).unwrap();
    assert_eq!(placement.name, "a");
    assert_eq!(placement.api, SocketAddr::from(([10, 0, 0, 1], 1985)));
    assert_eq!(placement.rtc, Some(SocketAddr::from(([10, 0, 0, 1], 8000))));
    assert_eq!((placement.path, placement.host), (None, HostHeader::Client));
}

#[test]
fn what_was_configured_for_an_origin_goes_with_the_placement() {
    let special = StaticOrigin {
        path: Some("/{path}/whip".to_owned()),
        host: HostHeader::Origin,
        ..StaticOrigin::at("a", IpAddr::from([0, 0, 0, 0]))
    };
    let mut relay = relay(Config { origins: vec![special], ..Config::default() });
    let placement = relay.offer("live/a", Role::Publish).unwrap();
    assert_eq!(placement.path.as_deref(), Some("/{path}/whip"));
    assert_eq!(placement.host, HostHeader::Origin);
}

#[test]
fn who_publishes_by_srt_and_who_plays_by_webrtc_meet() {
    let mut relay = relay(Config::default());
    for (server, host) in [("b", 2), ("c", 3), ("d", 4)] {
        let origin = with_webrtc(registration(server, host, Some(10080)));
        relay.state.register(relay.now, origin).unwrap();
    }
    let Command::Open { origin, .. } = relay.pick(0, 1) else { panic!("not opened") };
    for _ in 0..3 {
        assert_eq!(relay.offer("live/a", Role::Play).unwrap().origin, origin);
    }
    let shown = relay.state.streams(relay.now, 1).0;
    let shown = serde_json::to_value(&shown[0]).unwrap();
    assert_eq!((&shown["publishers"], &shown["players"]), (&1.into(), &3.into()));
}

#[test]
fn without_an_origin_for_webrtc_an_offer_is_refused_and_counted() {
    let mut relay = Relay::with_origin();
    assert_eq!(relay.offer("live/a", Role::Publish), Err(OfferRefused::NoOrigin));
    assert_eq!(relay.refusals("no_origin"), 1);
}

#[test]
fn a_draining_relay_takes_no_offers() {
    let mut relay = relay(Config::default());
    relay.state.quit(relay.now);
    assert_eq!(relay.offer("live/a", Role::Publish), Err(OfferRefused::Draining));
}

#[test]
fn a_live_session_may_restart_ice_while_an_operator_drains_the_relay() {
    let mut relay = relay(Config::default());
    let id = relay.start();
    relay.state.begin_drain(relay.now, Goal::default());
    assert_eq!(relay.offer("live/b", Role::Publish), Err(OfferRefused::Draining));
    assert_eq!(relay.refusals("draining"), 1);
    let (reply, mut answer) = oneshot::channel();
    let address = SocketAddr::from(([10, 0, 0, 1], 8000));
    let pair = IcePair { origin: credentials("anew"), client: credentials("again") };
    relay.state.expect(relay.now, id, address, &[pair], reply);
    relay.agree(id);
    assert_eq!(answer.try_recv(), Ok(Ok(())));
}

#[test]
fn one_client_may_offer_no_more_often_than_its_rate_even_if_nothing_comes_of_it() {
    let http_per_source = HttpRate { per_second: 1, burst: 2 };
    let mut relay = Relay::new(Config { http_per_source, ..Config::default() });
    for _ in 0..2 {
        assert_eq!(relay.offer("live/a", Role::Publish), Err(OfferRefused::NoOrigin));
    }
    assert_eq!(relay.offer("live/a", Role::Publish), Err(OfferRefused::Rate));
    relay.now += Duration::from_secs(1);
    assert_eq!(relay.offer("live/a", Role::Publish), Err(OfferRefused::NoOrigin));
}

#[test]
fn the_process_limit_counts_sessions_of_both_protocols() {
    let mut relay = relay(Config::default());
    let first = relay.place();
    relay.pick(0, 1);
    relay.place();
    relay.pick(1, 2);
    let limit = OfferRefused::Limit("--sessions-max");
    assert_eq!(relay.offer("live/a", Role::Play), Err(limit));
    assert!(matches!(relay.pick(0, 3), Command::Refuse { .. }));
    relay.state.abandon(relay.now, first);
    assert!(relay.offer("live/a", Role::Play).is_ok());
}

#[test]
fn sessions_whose_client_has_not_come_have_a_limit_per_source() {
    let mut relay = relay(Config { pending_per_source: 1, ..Config::default() });
    relay.start();
    relay.place();
    let limit = OfferRefused::Limit("--pending-per-source");
    assert_eq!(relay.offer("live/a", Role::Play), Err(limit));
}

#[test]
fn shards_expect_the_client_by_both_ufrags_and_the_origins_password() {
    let mut relay = relay(Config::default());
    let id = relay.place();
    let mut answer = relay.expect(id);
    for shard in 0..2 {
        let told = relay.commands(shard);
        let [Command::Expect { session, pair }] = &told[..] else { panic!("{told:?}") };
        assert_eq!(&*pair.username, "orig1:client");
        assert_eq!((session.id, session.role), (id, Role::Publish));
        assert_eq!(session.stream, stream("live/a"));
    }
    relay.agree(id);
    assert_eq!(answer.try_recv(), Ok(Ok(())));
}

#[test]
fn a_session_that_a_shard_refuses_makes_room() {
    let mut relay = relay(Config { pending_per_source: 1, ..Config::default() });
    let id = relay.place();
    let mut answer = relay.expect(id);
    relay.event(0, Event::Expected { session: id, result: Err(NotExpected::Full) });
    relay.event(1, Event::Expected { session: id, result: Ok(()) });
    assert_eq!(answer.try_recv(), Ok(Err(NotExpected::Full)));
    assert_eq!((relay.refusals("table_full"), relay.state.directory.sessions_count()), (1, 0));
    assert!(relay.offer("live/a", Role::Publish).is_ok());
}

#[test]
fn an_unknown_session_cannot_be_expected() {
    let mut relay = relay(Config::default());
    let mut answer = relay.expect(RtcId(99));
    assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
}

#[test]
fn a_proven_client_makes_its_session_one_that_media_flows_in() {
    let mut relay = relay(Config::default());
    let id = relay.start();
    let session = relay.state.directory.session(id).unwrap();
    assert!(session.is_established);
    assert_eq!(session.client, Some(CLIENT));
    let stream = relay.state.directory.stream(&stream("live/a")).unwrap();
    assert!(stream.is_established());
    assert_eq!(relay.state.snapshot(relay.now, relay.now).sessions_expected, 0);
}

#[test]
fn a_session_that_ended_is_counted_no_more() {
    let mut relay = relay(Config::default());
    let id = relay.start();
    relay.end(id, EndReason::DtlsClosed, 5);
    relay.end(id, EndReason::DtlsClosed, 5);
    assert_eq!(relay.state.directory.sessions_count(), 0);
    assert_eq!(relay.state.directory.origin(OriginId(0)).unwrap().sessions(), 0);
    assert!((0..4).all(|_| relay.offer("live/a", Role::Play).is_ok()));
}

#[test]
fn an_origin_whose_port_is_closed_or_silent_from_the_start_has_failed() {
    for (reason, origin_in, has_failed) in [
        (EndReason::OriginGone, 100, true),
        (EndReason::OriginIdle, 0, true),
        (EndReason::OriginIdle, 100, false),
        (EndReason::ClientIdle, 0, false),
    ] {
        let mut relay = relay(Config::default());
        let id = relay.start();
        relay.end(id, reason, origin_in);
        let origin = relay.state.directory.origin(OriginId(0)).unwrap();
        let is_failing = origin.is_failing(Kind::WebRtc, relay.now);
        assert_eq!(is_failing, has_failed, "{reason:?} {origin_in}");
    }
}

#[test]
fn an_origin_that_media_came_from_has_failed_no_more() {
    let mut relay = relay(Config::default());
    let id = relay.start();
    relay.state.origin_failed(relay.now, OriginId(0), Kind::WebRtc);
    relay.end(id, EndReason::DtlsClosed, 5);
    let origin = relay.state.directory.origin(OriginId(0)).unwrap();
    assert!(!origin.is_failing(Kind::WebRtc, relay.now));
}

#[test]
fn an_origin_that_cannot_be_asked_loses_the_next_offer_to_another() {
    let mut relay = relay(Config::default());
    let other = with_webrtc(registration("b", 2, Some(10080)));
    relay.state.register(relay.now, other).unwrap();
    let first = relay.offer("live/a", Role::Publish).unwrap();
    relay.state.unreachable(relay.now, first.session);
    assert_ne!(relay.offer("live/a", Role::Publish).unwrap().origin, first.origin);
    assert_eq!(relay.state.directory.sessions_count(), 1);
}

#[test]
fn a_client_that_never_comes_is_forgotten_and_its_origin_told() {
    let mut relay = relay(Config::default());
    let id = relay.place();
    drop(relay.expect(id));
    relay.agree(id);
    relay.publish(id);
    relay.now += Duration::from_secs(30);
    relay.state.tick(relay.now);
    assert_eq!(relay.state.directory.sessions_count(), 0);
    let goodbye = relay.state.take_goodbye().unwrap();
    assert_eq!(goodbye.target.as_deref(), Some("/there"));
    assert!(relay.state.resource(&Token("secret".into())).is_none());
}

#[test]
fn origins_are_told_what_they_cannot_know() {
    for (reason, is_told) in [
        (EndReason::ClientIdle, true),
        (EndReason::Quit, true),
        (EndReason::DtlsClosed, false),
        (EndReason::OriginIdle, false),
        (EndReason::Deleted, false),
    ] {
        let mut relay = relay(Config::default());
        let id = relay.start();
        relay.publish(id);
        relay.end(id, reason, 5);
        assert_eq!(relay.state.take_goodbye().is_some(), is_told, "{reason:?}");
    }
}

#[test]
fn a_session_url_is_found_until_its_session_is_deleted() {
    let mut relay = relay(Config::default());
    let id = relay.start();
    relay.publish(id);
    let token = Token("secret".into());
    assert_eq!(relay.state.resource(&token).map(|(id, _)| id), Some(id));
    relay.state.finish(relay.now, id, EndReason::Deleted);
    assert!(relay.state.resource(&token).is_none());
    assert_eq!(relay.state.directory.sessions_count(), 1, "last words may pass");
    relay.end(id, EndReason::Deleted, 5);
    assert_eq!(relay.state.directory.sessions_count(), 0);
}

#[test]
fn an_operator_ends_a_session_here_and_at_its_origin() {
    let mut relay = relay(Config::default());
    let id = relay.start();
    relay.publish(id);
    relay.commands(1);
    assert!(relay.state.close(relay.now, SessionId::WebRtc(id)));
    assert!(!relay.state.close(relay.now, SessionId::WebRtc(RtcId(99))));
    let told = relay.commands(1);
    let reason = EndReason::Operator;
    assert!(matches!(told[..], [Command::Finish { reason: r, .. }] if r == reason), "{told:?}");
    assert!(relay.state.take_goodbye().is_some());
}

#[test]
fn a_session_is_shown_from_its_offer_on_under_one_name() {
    let mut relay = relay(Config::default());
    let id = relay.place();
    drop(relay.expect(id));
    relay.agree(id);
    let shown = relay.state.expected_sessions(relay.now, RtcId(0), 9);
    let shown = serde_json::to_value(&shown.sessions).unwrap();
    for (member, value) in [
        ("id", "w-1"),
        ("proto", "webrtc"),
        ("state", "expected"),
        ("client", "192.0.2.77"),
        ("origin", "a"),
        ("stream", "__defaultVhost__/live/a"),
    ] {
        assert_eq!(shown[0][member], value);
    }
    assert_eq!(shown[0]["webrtc"]["ufrag_pair"], "orig1:client");
}

#[test]
fn sessions_that_no_shard_owns_are_shown_page_by_page() {
    let mut relay = relay(Config::default());
    for _ in 0..3 {
        relay.place();
    }
    let first = relay.state.expected_sessions(relay.now, RtcId(0), 2);
    assert_eq!((first.sessions.len(), first.next), (2, Some(RtcId(3))));
    let second = relay.state.expected_sessions(relay.now, RtcId(3), 2);
    assert_eq!((second.sessions.len(), second.next), (1, None));
}

fn with_direct() -> Relay {
    let origin =
        StaticOrigin { direct: Some(4001), ..StaticOrigin::at("p2p", IpAddr::from([10, 0, 0, 9])) };
    Relay::new(Config { origins: vec![origin], webrtc_direct: true, ..Config::default() })
}

fn candidate(relay: &mut Relay) {
    relay.event(1, Event::Candidate { client: CLIENT, ufrag: "libp2p+webrtc+v1/abc".into() });
}

#[test]
fn a_client_without_signalling_is_expected_everywhere_and_owned_where_it_came() {
    let mut relay = with_direct();
    candidate(&mut relay);
    candidate(&mut relay);
    let told = relay.commands(0);
    let [Command::Expect { session, pair }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(&*pair.username, "libp2p+webrtc+v1/abc:libp2p+webrtc+v1/abc");
    assert_eq!(session.address, SocketAddr::from(([10, 0, 0, 9], 4001)));
    let id = session.id;
    relay.agree(id);
    let told = relay.commands(1);
    assert!(matches!(told[..], [Command::Expect { .. }, Command::Own { .. }]), "{told:?}");
    assert_eq!(relay.state.directory.sessions_count(), 1);
}

#[test]
fn a_client_without_signalling_that_a_shard_refuses_makes_room() {
    let mut relay = with_direct();
    candidate(&mut relay);
    let full = || Event::Expected { session: RtcId(1), result: Err(NotExpected::Full) };
    relay.event(0, full());
    relay.event(1, full());
    assert_eq!(relay.state.directory.sessions_count(), 0);
}

#[test]
fn without_an_origin_for_them_clients_without_signalling_are_not_heeded() {
    let mut relay = relay(Config::default());
    candidate(&mut relay);
    assert!(relay.commands(0).is_empty() && relay.commands(1).is_empty());
    assert_eq!(relay.refusals("no_origin"), 1);
}

#[test]
fn a_quitting_relay_lets_webrtc_sessions_run_out() {
    let mut relay = relay(Config::default());
    let id = relay.start();
    relay.state.quit(relay.now);
    relay.commands(1);
    relay.state.advance(relay.now);
    assert!(relay.commands(1).is_empty());
    relay.end(id, EndReason::DtlsClosed, 5);
    relay.state.advance(relay.now);
    assert!(matches!(relay.commands(1)[..], [Command::Drain(true), Command::CloseAll]));
}

#[test]
fn when_all_sessions_are_ended_those_that_no_shard_owns_end_with_them() {
    let mut relay = relay(Config::default());
    relay.place();
    let owned = relay.start();
    relay.state.quit_now(relay.now);
    assert_eq!(relay.state.directory.sessions_count(), 1);
    relay.end(owned, EndReason::Quit, 5);
    assert_eq!(relay.state.directory.sessions_count(), 0);
}

#[test]
fn origins_are_told_of_sessions_whose_client_had_not_come_when_all_are_ended() {
    let mut relay = relay(Config::default());
    let id = relay.place();
    drop(relay.expect(id));
    relay.agree(id);
    relay.publish(id);
    relay.state.quit_now(relay.now);
    assert!(relay.state.take_goodbye().is_some());
    assert!(relay.state.take_goodbye().is_none());
}

#[test]
fn a_session_of_srt_is_not_one_of_webrtc() {
    let mut relay = relay(Config::default());
    relay.event(0, Event::Pick(Box::new(request(1, "live/a", Role::Publish))));
    relay.commands(0);
    assert!(!relay.state.finish(relay.now, RtcId(1), EndReason::Operator));
    assert_eq!(relay.state.directory.sessions_count(), 1);
}
