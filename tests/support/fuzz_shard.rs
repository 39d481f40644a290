//! A shard under any sequence of datagrams, commands and hours.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::fuzz_rtc::fuzz_rtc;
use ringway::protocol::srt::{CookieKey, Rejection};
use ringway::protocol::stream_url::Vhosts;
use ringway::session::handshake::KEPT_MAX;
use ringway::shard::{
    Action, Command, Datagram, EndReason, Event, Limits, ListenerIndex, OriginId, Port, PortError,
    SessionKey, Shard, ShardConfig, Verdict,
};

/// Reads `bytes` as a script of steps, plays it, and checks after each step that every bound holds and at the end that
/// nothing is left. A script that begins with 0xFF is one of WebRTC.
pub(crate) fn fuzz_shard(bytes: &[u8]) {
    if let Some(script) = bytes.strip_prefix(&[0xFF]) {
        return fuzz_rtc(script);
    }
    let mut play = Play::new();
    let mut script = bytes;
    while let Some((&step, rest)) = script.split_first() {
        let length = rest.first().map_or(0, |&length| usize::from(length) * 6);
        let rest = rest.get(1..).unwrap_or(&[]);
        let (argument, rest) = rest.split_at(length.min(rest.len()));
        play.step(step, argument);
        script = rest;
    }
    play.leave();
}

struct Play {
    shard: Shard,
    now: Instant,
    sessions: Vec<SessionKey>,
    open: Vec<SessionKey>,
    /// Of each session that control was asked about: how often it was told of its beginning and of its end.
    told: BTreeMap<SessionKey, (u32, u32)>,
    /// What the next port that is opened comes to.
    port: Result<(), PortError>,
    cookie: u32,
}

impl Play {
    fn new() -> Self {
        let now = Instant::now();
        let config = ShardConfig {
            limits: Limits {
                sessions_max: 5,
                pending_max: 4,
                pending_per_source: 3,
                induction_rate: 1000,
                induction_rate_per_prefix: 100,
                srt_idle_timeout: Duration::from_secs(15),
                webrtc_idle_timeout: Duration::from_secs(30),
                origin_setup_timeout: Duration::from_secs(2),
            },
            cookie_key: CookieKey::new([3; 16]),
            hash_seed: 1,
            started: now,
            started_unix_seconds: 1_800_000_000,
            vhosts: Vhosts::default(),
            default_stream: Some("live/livestream".to_owned()),
            key_length: 16,
            listeners: vec![ringway::shard::Protocol::Srt],
            webrtc_direct: false,
        };
        let shard = Shard::new(config);
        let told = BTreeMap::new();
        Self { shard, now, sessions: vec![], open: vec![], told, port: Ok(()), cookie: 0 }
    }

    fn step(&mut self, step: u8, argument: &[u8]) {
        let (kind, who) = (step & 7, usize::from(step >> 3));
        let session = self.sessions.get(who % self.sessions.len().max(1)).copied();
        match (kind, session) {
            (0, _) => self.client_sends(who, argument),
            (1, _) => {
                // The cookie that the relay gave last, where a handshake has it: else nothing gets past the door.
                let mut bytes = argument.to_vec();
                if let Some(cookie) = bytes.get_mut(44..48) {
                    cookie.copy_from_slice(&self.cookie.to_be_bytes());
                }
                self.client_sends(who, &bytes);
            }
            (2, Some(session)) => {
                let source = origin();
                let datagram =
                    Datagram { port: Port::Session(session), source, local: None, bytes: argument };
                self.shard.handle(self.now, datagram);
            }
            (3, Some(session)) => {
                self.port = port_result(argument.first().copied());
                let (origin, address) = (OriginId(0), origin());
                self.shard.apply(self.now, Command::Open { session, origin, address });
            }
            (4, Some(session)) => {
                let rejection = Rejection::Unavailable;
                self.shard.apply(self.now, Command::Refuse { session, rejection });
            }
            (5, Some(session)) => {
                let error = port_result(argument.first().copied()).err();
                let error = error.unwrap_or(PortError::Refused);
                self.shard.port_failed(self.now, session, error);
            }
            (6, _) => {
                self.now += Duration::from_millis(argument.len() as u64 * 50);
                self.shard.handle_timeout(self.now);
            }
            (7, Some(session)) => {
                let command = match argument.first() {
                    Some(1) => Command::CloseAll,
                    Some(2) => Command::Sessions { request: 1, from_slot: 0, limit: 3 },
                    Some(3) => Command::Drain(false),
                    _ => Command::Close { session, reason: EndReason::Operator },
                };
                self.shard.apply(self.now, command);
            }
            _ => self.shard.apply(self.now, Command::Drain(who.is_multiple_of(2))),
        }
        // Several commands may come in before the engine acts.
        let is_first_of_many = matches!(kind, 3 | 4 | 7) && argument.get(1) == Some(&1);
        if !is_first_of_many {
            self.settle();
        }
    }

    fn client_sends(&mut self, who: usize, bytes: &[u8]) {
        let source = SocketAddr::from(([203, 0, 113, 9], 5000 + (who % 3) as u16));
        let port = Port::Listener(ListenerIndex(0));
        let datagram = Datagram { port, source, local: None, bytes };
        let before = self.shard.counters();
        let verdict = self.shard.handle(self.now, datagram);
        let counters = self.shard.counters();
        let answered = (counters.srt.client_out.bytes - before.srt.client_out.bytes) as usize;
        let is_proven = bytes.get(36..40) == Some(&[0xFF; 4]) && verdict == Verdict::Taken;
        // A caller whose cookie was right may get the kept answer of its origin, and a goodbye.
        let bound = if is_proven { KEPT_MAX + 20 } else { bytes.len() };
        let forwarded = matches!(verdict, Verdict::Forward(_));
        assert!(
            answered <= bound && !(forwarded && answered > 0),
            "{answered} for {}",
            bytes.len()
        );
        if matches!(verdict, Verdict::Drop(_)) {
            let dropped = counters.drops.iter().sum::<u64>() - before.drops.iter().sum::<u64>();
            assert_eq!(dropped, 1, "every drop is counted once");
            assert_eq!(answered, 0, "what is dropped has no answer");
        }
    }

    fn settle(&mut self) {
        while let Some(action) = self.shard.next_action() {
            match action {
                Action::Send { route, bytes } => {
                    let bytes = self.shard.bytes(bytes);
                    assert!(!bytes.is_empty() && bytes.len() <= 1536);
                    if bytes.len() == 64 && matches!(route.port, Port::Listener(_)) {
                        self.cookie =
                            u32::from_be_bytes(bytes[44..48].try_into().expect("4 bytes"));
                    }
                }
                Action::Open { session, .. } => {
                    assert!(!self.open.contains(&session), "opened twice");
                    if self.port.is_ok() {
                        self.open.push(session);
                    }
                    self.shard.port_opened(self.now, session, self.port);
                }
                Action::Close { session } => {
                    let open = self.open.iter().position(|&open| open == session);
                    self.open.swap_remove(open.expect("closed and not open"));
                }
            }
        }
        while let Some(event) = self.shard.next_event() {
            match event {
                Event::Pick(request) => {
                    assert_eq!(self.told.insert(request.session, (0, 0)), None, "asked twice");
                    self.sessions.push(request.session);
                }
                Event::Established { session, .. } => {
                    let (begun, ended) = self.told.get_mut(&session).expect("asked before");
                    *begun += 1;
                    assert_eq!((*begun, *ended), (1, 0), "begun once, before its end");
                }
                Event::Ended { session, .. } => {
                    self.told.get_mut(&session).expect("asked before").1 += 1;
                }
                Event::Sessions { sessions, .. } => assert!(sessions.len() <= 3),
                Event::Counters { .. } | Event::Emptied => {}
                Event::Expected { .. }
                | Event::Path(_)
                | Event::Yielded { .. }
                | Event::Candidate { .. }
                | Event::Validated { .. }
                | Event::RtcEnded { .. } => panic!("no WebRTC was asked for: {event:?}"),
                Event::Failed => panic!("only an engine can say so"),
            }
        }
        let counters = self.shard.counters();
        assert!(counters.sessions <= 5 && counters.pending <= 4, "{counters:?}");
        assert!(counters.pending + counters.srt.established <= counters.sessions);
        assert!(self.open.len() as u64 <= counters.sessions);
    }

    fn leave(mut self) {
        for _ in 0..200 {
            self.now += Duration::from_millis(500);
            self.shard.handle_timeout(self.now);
            self.settle();
        }
        let counters = self.shard.counters();
        assert_eq!((counters.sessions, counters.pending, counters.srt.established), (0, 0, 0));
        assert_eq!((self.open.len(), self.shard.poll_timeout()), (0, None));
        let wrong = self.told.iter().find(|(_, (_, ended))| *ended != 1);
        assert_eq!(wrong, None, "every session that control was asked about ends once");
    }
}

fn port_result(choice: Option<u8>) -> Result<(), PortError> {
    match choice {
        Some(1) => Err(PortError::Exhausted),
        Some(2) => Err(PortError::Unreachable),
        Some(3) => Err(PortError::Other(22)),
        _ => Ok(()),
    }
}

fn origin() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 5], 10080))
}
