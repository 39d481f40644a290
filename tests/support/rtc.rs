//! WebRTC on a stage: sessions that were signalled, the datagrams of their two ends, and control's part.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringway::protocol::stream_url::{DEFAULT_VHOST, StreamKey};
use ringway::protocol::stun::{Builder, Class, IntegrityKey, Method, TransactionId};
use ringway::shard::{
    Command, DropReason, EndReason, Event, Handover, ListenerIndex, NotExpected, OriginId, Pair,
    PathRequest, Peer, Port, Protocol, ProtocolView, Role, Route, RtcId, SessionKey, SessionView,
    ShardConfig, Signalled, Verdict, WebRtcView,
};

use super::stage::{Out, Stage, config};

pub const RTC_LISTENER: Port = Port::Listener(ListenerIndex(1));
pub const SECOND: Duration = Duration::from_secs(1);
pub const MILLI: Duration = Duration::from_millis(1);

/// A shard that speaks both protocols, SRT on the first listener.
pub fn rtc_config() -> ShardConfig {
    ShardConfig { listeners: vec![Protocol::Srt, Protocol::WebRtc], ..config() }
}

/// The address of an origin's media port.
pub fn rtc_origin() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 7], 8000))
}

/// Sessions from this number on play.
pub const FIRST_PLAYER: u64 = 1000;

pub fn signalled(id: u64) -> Arc<Signalled> {
    Arc::new(Signalled {
        id: RtcId(id),
        origin: OriginId(3),
        address: rtc_origin(),
        stream: StreamKey::canonical(DEFAULT_VHOST, &format!("live/rtc{id}")).unwrap(),
        role: if id < FIRST_PLAYER { Role::Publish } else { Role::Play },
    })
}

/// The pair that session `id` is signalled with after `restarts` ICE restarts.
pub fn pair(id: u64, restarts: u32) -> Arc<Pair> {
    let username = format!("orig{id}r{restarts}:clnt{id}r{restarts}");
    Arc::new(Pair { username: username.into(), key: key(id, restarts) })
}

pub fn key(id: u64, restarts: u32) -> IntegrityKey {
    IntegrityKey::new(format!("password of origin {id} {restarts}").as_bytes())
}

pub fn transaction(number: u32) -> TransactionId {
    let [a, b, c, d] = number.to_be_bytes();
    TransactionId([9, 9, 9, 9, 9, 9, 9, 9, a, b, c, d])
}

fn check(pair: &Pair, number: u32) -> Builder {
    Builder::new(Class::Request, Method::Binding, transaction(number))
        .username(pair.username.as_bytes())
        .priority(1)
}

/// A client's binding request.
pub fn request(pair: &Pair, number: u32) -> Vec<u8> {
    check(pair, number).finish(Some(&pair.key), true)
}

/// The same with USE-CANDIDATE.
pub fn nomination(pair: &Pair, number: u32) -> Vec<u8> {
    check(pair, number).use_candidate().finish(Some(&pair.key), true)
}

/// What an origin answers: it has seen the relay.
pub fn response(pair: &Pair, number: u32) -> Vec<u8> {
    Builder::new(Class::Success, Method::Binding, transaction(number))
        .xor_mapped_address(SocketAddr::from(([10, 0, 0, 2], 40000)))
        .finish(Some(&pair.key), true)
}

pub fn stun(class: Class, method: Method, number: u32) -> Vec<u8> {
    Builder::new(class, method, transaction(number)).finish(None, true)
}

pub fn client_hello() -> Vec<u8> {
    let mut datagram = vec![22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 150];
    datagram.resize(163, 1);
    datagram
}

/// A DTLS alert of epoch 1: encrypted, except for its type.
pub fn alert() -> Vec<u8> {
    let mut datagram = vec![21, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 9, 0, 26];
    datagram.resize(39, 7);
    datagram
}

pub fn rtp(ssrc: u32, sequence: u16) -> Vec<u8> {
    let mut datagram = vec![0x80, 96];
    datagram.extend(sequence.to_be_bytes());
    datagram.extend([0; 4]);
    datagram.extend(ssrc.to_be_bytes());
    datagram.resize(1200, 5);
    datagram
}

pub fn rtcp(ssrc: u32) -> Vec<u8> {
    let mut datagram = vec![0x81, 201, 0, 7];
    datagram.extend(ssrc.to_be_bytes());
    datagram.resize(46, 5);
    datagram
}

pub fn to_origin(session: SessionKey) -> Verdict {
    Verdict::Forward(Route { port: Port::Session(session), to: None })
}

pub fn to_client(address: SocketAddr) -> Verdict {
    Verdict::Forward(Route { port: RTC_LISTENER, to: Some(Peer { address, local: None }) })
}

/// What a test asks of a stage about WebRTC.
pub trait RtcStage {
    fn webrtc() -> Self;
    fn rtc_sends(&mut self, source: SocketAddr, bytes: &[u8]) -> Verdict;
    fn expect(&mut self, id: u64, restarts: u32) -> Result<(), NotExpected>;
    fn asked(&mut self) -> Option<PathRequest>;
    fn own(&mut self, id: u64, handover: Option<Box<Handover>>) -> Option<SessionKey>;
    fn validated(&mut self, id: u64, source: SocketAddr) -> SessionKey;
    fn finish(&mut self, id: u64, linger: Duration);
    fn yield_to(&mut self, path: PathRequest) -> Option<Box<Handover>>;
    fn rtc_ended(&mut self) -> Vec<(u64, EndReason)>;
    fn views(&mut self) -> Vec<SessionView>;
    fn view(&mut self) -> WebRtcView;
    fn dropped(&self, reason: DropReason) -> u64;
    fn assert_gone(&self);
}

impl RtcStage for Stage {
    fn webrtc() -> Self {
        Self::with(rtc_config())
    }

    fn rtc_sends(&mut self, source: SocketAddr, bytes: &[u8]) -> Verdict {
        self.arrives(RTC_LISTENER, source, bytes)
    }

    fn expect(&mut self, id: u64, restarts: u32) -> Result<(), NotExpected> {
        self.apply(Command::Expect { session: signalled(id), pair: pair(id, restarts) });
        match self.events.pop() {
            Some(Event::Expected { session, result }) if session == RtcId(id) => result,
            other => panic!("every expectation is answered: {other:?}"),
        }
    }

    /// The question that control was asked since the last look, if any.
    fn asked(&mut self) -> Option<PathRequest> {
        let mut paths = self.take_events().into_iter().filter_map(|event| match event {
            Event::Path(path) => Some(*path),
            _ => None,
        });
        let path = paths.next();
        assert_eq!(paths.next(), None, "control is asked once");
        path
    }

    /// Gives the session to this shard, whose engine opens the port at once.
    fn own(&mut self, id: u64, handover: Option<Box<Handover>>) -> Option<SessionKey> {
        self.apply(Command::Own { session: RtcId(id), handover });
        let opened = self.out.iter().rev().find_map(|out| match out {
            Out::Open { session, origin } => Some((*session, *origin)),
            _ => None,
        });
        let (session, origin) = opened?;
        assert_eq!(origin, rtc_origin());
        self.shard.port_opened(self.now, session, Ok(()));
        self.collect();
        Some(session)
    }

    /// An expected session whose client has proven `source` by transaction 1.
    fn validated(&mut self, id: u64, source: SocketAddr) -> SessionKey {
        self.expect(id, 0).unwrap();
        assert_eq!(self.rtc_sends(source, &request(&pair(id, 0), 1)), Verdict::Taken);
        let session = self.own(id, None).unwrap();
        self.take_out();
        self.take_events();
        session
    }

    fn finish(&mut self, id: u64, linger: Duration) {
        let reason = EndReason::Deleted;
        self.apply(Command::Finish { session: RtcId(id), reason, linger });
    }

    fn yield_to(&mut self, path: PathRequest) -> Option<Box<Handover>> {
        self.apply(Command::Yield { path: Box::new(path) });
        match self.events.pop() {
            Some(Event::Yielded { session, handover }) if session == path.session => handover,
            other => panic!("every question for a session is answered: {other:?}"),
        }
    }

    fn rtc_ended(&mut self) -> Vec<(u64, EndReason)> {
        let events = self.take_events().into_iter();
        events
            .filter_map(|event| match event {
                Event::RtcEnded { session, reason, .. } => Some((session.0, reason)),
                _ => None,
            })
            .collect()
    }

    fn views(&mut self) -> Vec<SessionView> {
        self.apply(Command::Sessions { request: 0, from_slot: 0, limit: 1000 });
        match self.events.pop() {
            Some(Event::Sessions { sessions, next_slot: None, .. }) => sessions,
            other => panic!("one page: {other:?}"),
        }
    }

    /// The only session, as the API shows it.
    fn view(&mut self) -> WebRtcView {
        match &self.views()[..] {
            [SessionView { protocol: ProtocolView::WebRtc(view), .. }] => view.clone(),
            other => panic!("one WebRTC session: {other:?}"),
        }
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.shard.counters().drops[reason as usize]
    }

    /// Nothing is left but tombstones.
    fn assert_gone(&self) {
        let counters = self.shard.counters();
        assert_eq!((counters.sessions, counters.expected), (0, 0));
        assert_eq!(counters.webrtc.established, 0);
        assert_eq!(self.shard.poll_timeout(), None);
    }
}
