//! Whatever clients, origins and shards do and in whatever order, nothing of a session is left behind.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::config::{Config, HostHeader, StaticOrigin};
use crate::control::arbiter::fixtures::handover;
use crate::control::directory::fixtures::{CLIENT, registration, session, stream, with_webrtc};
use crate::control::session_id::SessionId;
use crate::control::state::fixtures::Relay;
use crate::protocol::ice::{Credentials, Password, Ufrag};
use crate::protocol::stun::TransactionId;
use crate::shard::command::{Command, Event};

/// A relay whose shards hear of everything late.
struct Stage {
    relay: Relay,
    /// Sessions that HTTP tasks or shards have heard of, ended ones among them.
    ids: Vec<RtcId>,
    shards: Vec<Shard>,
    tokens: u32,
}

/// What a shard believes, and what it has said that control has not heard.
#[derive(Default)]
struct Shard {
    expected: BTreeMap<RtcId, Arc<Signalled>>,
    owned: BTreeSet<RtcId>,
    said: VecDeque<Event>,
}

impl Stage {
    fn new() -> Self {
        let shards = (0..2).map(|_| Shard::default()).collect();
        let direct = StaticOrigin {
            direct: Some(4001),
            ..StaticOrigin::at("p2p", IpAddr::from([10, 0, 0, 9]))
        };
        let relay =
            Relay::new(Config { origins: vec![direct], webrtc_direct: true, ..Config::default() });
        let mut stage = Self { relay, ids: Vec::new(), shards, tokens: 0 };
        stage.pass(Duration::ZERO);
        stage
    }

    /// Time in which origins are heard of and what is due is done.
    fn pass(&mut self, time: Duration) {
        self.relay.now += time;
        for (server, host) in [("a", 1), ("b", 2)] {
            let origin = with_webrtc(registration(server, host, Some(10080)));
            self.relay.state.register(self.relay.now, origin).unwrap();
        }
        self.relay.state.tick(self.relay.now);
    }

    fn offer(&mut self, seed: u8) {
        let role = if seed.is_multiple_of(2) { Role::Publish } else { Role::Play };
        let client = IpAddr::from([192, 0, 2, seed % 3]);
        let offer = Offer { stream: stream(&format!("live/{}", seed % 3)), role, client };
        if let Ok(placement) = self.relay.state.offer(self.relay.now, offer) {
            self.ids.push(placement.session);
        }
    }

    /// Who signals says something of a session: for the first time, again, too late.
    fn signal(&mut self, step: u8, id: RtcId, seed: u8) {
        let (state, now) = (&mut self.relay.state, self.relay.now);
        match step {
            0 | 1 => {
                let credentials = |ufrag: String| Credentials {
                    ufrag: Ufrag::parse(&ufrag).unwrap(),
                    password: Password::parse("0123456789012345678901").unwrap(),
                };
                let origin = credentials(format!("origin{}", seed % 5));
                let pairs = [IcePair { origin, client: credentials("client".to_owned()) }];
                // Nobody has answered a counter-offer, which has no pairs.
                let pairs = if seed.is_multiple_of(8) { &[][..] } else { &pairs };
                let address = SocketAddr::from(([10, 0, 0, 1], 8000));
                state.expect(now, id, address, pairs, oneshot::channel().0);
            }
            2 | 3 => {
                self.tokens += 1;
                state.publish(now, id, &resource(self.tokens));
            }
            4 => state.abandon(now, id),
            5 => state.unreachable(now, id),
            6 => drop(state.finish(now, id, EndReason::Deleted)),
            _ => drop(state.close(now, SessionId::WebRtc(id))),
        }
    }

    /// A client shows up on a shard that does not own its session.
    fn claim(&mut self, shard: u16, id: RtcId) {
        let there = &mut self.shards[usize::from(shard)];
        if there.expected.contains_key(&id) && !there.owned.contains(&id) {
            let transaction = TransactionId([7; 12]);
            let path = PathRequest { session: id, client: CLIENT, transaction, nominated: true };
            there.said.push_back(Event::Path(Box::new(path)));
        }
    }

    /// A client without signalling shows up.
    fn come_unsignalled(&mut self, shard: u16, seed: u8) {
        let ufrag = format!("libp2p+webrtc+v1/{}", seed % 3).into();
        self.shards[usize::from(shard)].said.push_back(Event::Candidate { client: CLIENT, ufrag });
    }

    /// A session ends where it is.
    fn end(&mut self, shard: u16, id: RtcId, reason: EndReason) {
        let there = &mut self.shards[usize::from(shard)];
        if there.owned.remove(&id) {
            there.expected.remove(&id);
            there.say_ended(id, reason);
        }
    }

    /// A shard hears one thing; `agrees` if it is a question.
    fn hear(&mut self, shard: u16, agrees: bool) -> bool {
        let Some(command) = self.relay.shards[usize::from(shard)].take() else { return false };
        let now = self.relay.now;
        let there = &mut self.shards[usize::from(shard)];
        if let Command::Expect { session, .. } = command {
            let result = if agrees { Ok(()) } else { Err(NotExpected::Full) };
            let id = session.id;
            if !self.ids.contains(&id) {
                self.ids.push(id);
            }
            there.said.push_back(Event::Expected { session: id, result });
            if agrees {
                there.expected.entry(id).or_insert(session);
            }
        } else if let Command::Own { session: id, .. } = command {
            if agrees && there.expected.contains_key(&id) {
                there.owned.insert(id);
                let (key, setup) = (session(3).key, Duration::ZERO);
                there.said.push_back(Event::Validated { session: id, key, client: CLIENT, setup });
            } else {
                there.expected.remove(&id);
                there.say_ended(id, EndReason::OriginGone);
            }
        } else if let Command::Yield { path } = command {
            let id = path.session;
            let is_given = agrees && there.owned.remove(&id);
            let signalled = there.expected.get(&id).filter(|_| is_given).cloned();
            let handover = signalled.map(|signalled| handover(signalled, now));
            there.said.push_back(Event::Yielded { session: id, handover });
        } else if let Command::Finish { session: id, reason, .. } = command {
            self.end(shard, id, reason);
            self.shards[usize::from(shard)].expected.remove(&id);
        }
        true
    }

    /// Control hears one thing of a shard.
    fn report(&mut self, shard: u16) -> bool {
        let event = self.shards[usize::from(shard)].said.pop_front();
        event.map(|event| self.relay.event(shard, event)).is_some()
    }

    /// All that has been said is heard.
    fn settle(&mut self) {
        while (0..2).any(|shard| self.hear(shard, true) || self.report(shard)) {
            self.relay.state.advance(self.relay.now);
        }
    }
}

impl Shard {
    fn say_ended(&mut self, session: RtcId, reason: EndReason) {
        let (traffic, age) = (Traffic::default(), Duration::ZERO);
        self.said.push_back(Event::RtcEnded { session, reason, traffic, age });
    }
}

fn resource(token: u32) -> Box<Resource> {
    Box::new(Resource {
        token: Token(token.to_string().into()),
        api: SocketAddr::from(([10, 0, 0, 1], 1985)),
        host: HostHeader::Client,
        target: Some("/there".to_owned()),
        takes_patch: false,
        address: None,
        origin_credentials: Vec::new(),
        client_credentials: Vec::new(),
    })
}

proptest! {
    #[test]
    fn every_way_through_a_session_gives_everything_back(
        steps in vec((0..21_u8, any::<u8>(), any::<u8>()), 0..200),
    ) {
        let mut stage = Stage::new();
        for (step, seed, which) in steps {
            let shard = u16::from(seed % 2);
            // Mostly one of the newest: old ones have ended.
            let recent = stage.ids.len().saturating_sub(usize::from(which % 5) + 1);
            let id = stage.ids.get(recent).copied().unwrap_or(RtcId(99));
            match step {
                0..=2 => stage.offer(seed),
                3..=5 => stage.signal(seed % 2, id, which),
                6 => stage.signal(seed % 8, id, which),
                7..=9 => stage.claim(shard, id),
                10..=13 => drop(stage.hear(shard, !seed.is_multiple_of(7))),
                14..=17 => drop(stage.report(shard)),
                18 => stage.end(shard, id, EndReason::ClientIdle),
                19 => stage.come_unsignalled(shard, which),
                _ => stage.pass(Duration::from_secs(u64::from(seed % 16))),
            }
        }
        stage.settle();
        // Those whose client has come live until it leaves; all others are due.
        for id in stage.ids.clone() {
            stage.end(0, id, EndReason::DtlsClosed);
            stage.end(1, id, EndReason::DtlsClosed);
        }
        stage.settle();
        stage.pass(Duration::from_secs(31));
        stage.settle();
        let state = &stage.relay.state;
        prop_assert!(state.arbiter.is_empty());
        prop_assert!(state.admission.is_empty());
        prop_assert_eq!(state.directory.sessions_count(), 0);
        prop_assert!(state.directory.origins().all(|origin| origin.sessions() == 0));
        prop_assert!(state.directory.streams().all(|(_, stream)| stream.is_idle()));
        prop_assert!(stage.shards.iter().all(|shard| shard.expected.is_empty()));
    }
}
