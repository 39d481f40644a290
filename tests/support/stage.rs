//! A shard with virtual time and nobody around it: what goes in is written in the test, what comes out is looked at.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringway::protocol::srt::CookieKey;
use ringway::protocol::stream_url::Vhosts;
use ringway::shard::{
    Action, Command, Datagram, EndReason, Event, Limits, ListenerIndex, OriginId, PickRequest,
    Port, SessionKey, Shard, ShardConfig, Verdict,
};

use super::packets::{self, Fields};

/// What a shard did on its slow path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    ToClient { client: SocketAddr, bytes: Vec<u8> },
    ToOrigin { session: SessionKey, bytes: Vec<u8> },
    Open { session: SessionKey, origin: SocketAddr },
    Close { session: SessionKey },
}

pub struct Stage {
    pub shard: Shard,
    pub now: Instant,
    pub out: Vec<Out>,
    pub events: Vec<Event>,
}

pub const LISTENER: Port = Port::Listener(ListenerIndex(0));
pub const STREAM_ID: &str = "#!::r=live/cam,m=publish";

pub fn limits() -> Limits {
    Limits {
        sessions_max: 1000,
        pending_max: 100,
        pending_per_source: 64,
        induction_rate: 100_000,
        induction_rate_per_prefix: 20_000,
        srt_idle_timeout: Duration::from_secs(15),
        webrtc_idle_timeout: Duration::from_secs(30),
        origin_setup_timeout: Duration::from_secs(2),
    }
}

pub fn config() -> ShardConfig {
    ShardConfig {
        limits: limits(),
        cookie_key: CookieKey::new([7; 16]),
        hash_seed: 1,
        started: Instant::now(),
        started_unix_seconds: 1_800_000_000,
        vhosts: Vhosts::default(),
        default_stream: Some("live/livestream".to_owned()),
        key_length: 0,
        listeners: vec![ringway::shard::Protocol::Srt],
        webrtc_direct: false,
    }
}

pub fn client(port: u16) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 9], port))
}

pub fn origin() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 5], 10080))
}

impl Stage {
    pub fn new() -> Self {
        Self::with(config())
    }

    pub fn with(config: ShardConfig) -> Self {
        let now = config.started;
        let shard = Shard::new(config);
        Self { shard, now, out: Vec::new(), events: Vec::new() }
    }

    pub fn client_sends(&mut self, source: SocketAddr, bytes: &[u8]) -> Verdict {
        self.arrives(LISTENER, source, bytes)
    }

    /// A datagram of a client at any listener.
    pub fn arrives(&mut self, port: Port, source: SocketAddr, bytes: &[u8]) -> Verdict {
        let datagram = Datagram { port, source, local: None, bytes };
        let verdict = self.shard.handle(self.now, datagram);
        self.collect();
        verdict
    }

    pub fn origin_sends(&mut self, session: SessionKey, bytes: &[u8]) -> Verdict {
        let port = Port::Session(session);
        let datagram = Datagram { port, source: origin(), local: None, bytes };
        let verdict = self.shard.handle(self.now, datagram);
        self.collect();
        verdict
    }

    pub fn apply(&mut self, command: Command) {
        self.shard.apply(self.now, command);
        self.collect();
    }

    /// Lets time pass, firing every timer on the way.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.shard.poll_timeout() {
            if deadline > end {
                break;
            }
            self.now = self.now.max(deadline);
            self.shard.handle_timeout(self.now);
            self.collect();
        }
        self.now = end;
        self.shard.handle_timeout(end);
        self.collect();
    }

    /// Everything that was sent, opened and closed since the last look.
    pub fn take_out(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.out)
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The only datagram to a client since the last look.
    pub fn answer(&mut self) -> Fields {
        Fields::read(&self.answer_bytes())
    }

    pub fn answer_bytes(&mut self) -> Vec<u8> {
        let out = self.take_out();
        let mut answers = out.into_iter().filter_map(|out| match out {
            Out::ToClient { bytes, .. } => Some(bytes),
            Out::ToOrigin { .. } | Out::Open { .. } | Out::Close { .. } => None,
        });
        let answer = answers.next().expect("the client gets an answer");
        assert_eq!(answers.next(), None, "the client gets one answer only");
        answer
    }

    /// Everything sent to origins since the last look.
    pub fn questions(&mut self) -> Vec<Vec<u8>> {
        self.take_out()
            .into_iter()
            .filter_map(|out| match out {
                Out::ToOrigin { bytes, .. } => Some(bytes),
                Out::ToClient { .. } | Out::Open { .. } | Out::Close { .. } => None,
            })
            .collect()
    }

    /// The sessions that control was told the end of since the last look.
    pub fn ended(&mut self) -> Vec<(SessionKey, EndReason)> {
        let events = self.take_events().into_iter();
        events
            .filter_map(|event| match event {
                Event::Ended { session, reason, .. } => Some((session, reason)),
                _ => None,
            })
            .collect()
    }

    pub fn pick(&mut self) -> PickRequest {
        let mut picks = self.take_events().into_iter().filter_map(|event| match event {
            Event::Pick(request) => Some(*request),
            _ => None,
        });
        let pick = picks.next().expect("control is asked for an origin");
        assert_eq!(picks.next(), None, "control is asked once");
        pick
    }

    /// An induction and what the relay says to it.
    pub fn cookie_for(&mut self, source: SocketAddr, socket: u32) -> u32 {
        self.client_sends(source, &packets::induction(socket, 1000));
        self.answer().cookie
    }

    /// A caller up to the question which origin it shall have.
    pub fn conclude(&mut self, source: SocketAddr, socket: u32, stream_id: Option<&str>) -> u32 {
        let cookie = self.cookie_for(source, socket);
        let conclusion = packets::conclusion(socket, 1000, cookie, stream_id);
        assert_eq!(self.client_sends(source, &conclusion), Verdict::Taken);
        cookie
    }

    /// Control's answer.
    pub fn open(&mut self, session: SessionKey, address: SocketAddr) {
        self.apply(Command::Open { session, origin: OriginId(0), address });
        assert!(self.out.contains(&Out::Open { session, origin: address }));
        self.shard.port_opened(self.now, session, Ok(()));
        self.collect();
    }

    /// A session whose conclusion is with the origin, under cookie 0x0516_1111.
    pub fn concluding(&mut self, source: SocketAddr, socket: u32) -> SessionKey {
        self.conclude(source, socket, Some(STREAM_ID));
        let session = self.pick().session;
        self.open(session, origin());
        self.origin_sends(session, &packets::induction_response(socket, 0x0516_1111));
        self.take_out();
        session
    }

    /// A session that media flows through. The client's socket is `socket`, the origin's is `listener`.
    pub fn established(&mut self, source: SocketAddr, socket: u32, listener: u32) -> SessionKey {
        let session = self.concluding(source, socket);
        let response = packets::conclusion_response(socket, listener, 0x0516_1111, 500);
        assert_eq!(self.origin_sends(session, &response), Verdict::Taken);
        assert_eq!(self.answer().kind, packets::CONCLUSION);
        self.take_events();
        session
    }

    pub fn collect(&mut self) {
        while let Some(action) = self.shard.next_action() {
            self.out.push(match action {
                Action::Send { route, bytes } => {
                    let bytes = self.shard.bytes(bytes).to_vec();
                    match (route.port, route.to) {
                        (Port::Listener(_), Some(peer)) => {
                            Out::ToClient { client: peer.address, bytes }
                        }
                        (Port::Session(session), None) => Out::ToOrigin { session, bytes },
                        (port, to) => panic!("no such route: {port:?} to {to:?}"),
                    }
                }
                Action::Open { session, origin } => Out::Open { session, origin },
                Action::Close { session } => Out::Close { session },
            });
        }
        while let Some(event) = self.shard.next_event() {
            self.events.push(event);
        }
    }
}
