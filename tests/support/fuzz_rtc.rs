//! A shard under any sequence of WebRTC datagrams, of control's commands and of time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringway::protocol::stun::{Class, Method};
use ringway::shard::{
    Action, Command, Datagram, EndReason, Event, Handover, Limits, ListenerIndex, PathRequest,
    Port, PortError, RtcId, SessionKey, Shard, ShardConfig, Verdict,
};

use super::rtc::{self, pair, rtc_config, signalled, transaction};
use super::stage::limits;

/// Reads `bytes` as a script of steps, plays it, and checks after each step that every bound holds and at the end that
/// nothing is left.
pub(crate) fn fuzz_rtc(bytes: &[u8]) {
    let mut play = Play::new();
    let mut script = bytes;
    while let [step, argument, rest @ ..] = script {
        let length = if step & 15 < 2 { usize::from(*argument) * 4 } else { 0 };
        let (raw, rest) = rest.split_at(length.min(rest.len()));
        play.step(step & 15, step >> 4, *argument, raw);
        play.settle();
        script = rest;
    }
    play.leave();
}

struct Play {
    shard: Shard,
    now: Instant,
    /// What control thinks is this shard's.
    owned: BTreeSet<RtcId>,
    handovers: BTreeMap<RtcId, Box<Handover>>,
    /// Every key there ever was, the newest last.
    keys: Vec<SessionKey>,
    open: Vec<SessionKey>,
    /// Addresses that have sent a good request.
    proven: BTreeSet<SocketAddr>,
    port: Result<(), PortError>,
}

const SESSIONS_MAX: u64 = 3;
const IDS: u64 = 4;

impl Play {
    fn new() -> Self {
        let limits = Limits { sessions_max: SESSIONS_MAX as u32, ..limits() };
        let config = ShardConfig { limits, webrtc_direct: true, ..rtc_config() };
        Self {
            now: config.started,
            shard: Shard::new(config),
            owned: BTreeSet::new(),
            handovers: BTreeMap::new(),
            keys: Vec::new(),
            open: Vec::new(),
            proven: BTreeSet::new(),
            port: Ok(()),
        }
    }

    fn step(&mut self, kind: u8, who: u8, argument: u8, raw: &[u8]) {
        let session = RtcId(u64::from(who) % IDS);
        let restarts = u32::from(argument >> 5) % 6;
        let number = u32::from(argument & 31);
        let source = client(who);
        let pair = pair(session.0, restarts);
        match kind {
            0 => self.client_sends(source, raw),
            1 => self.origin_sends(who, raw),
            2 | 3 => {
                let mut bytes = if number.is_multiple_of(3) {
                    rtc::nomination(&pair, number)
                } else {
                    rtc::request(&pair, number)
                };
                if kind == 3 {
                    let position = usize::from(argument) % bytes.len();
                    bytes[position] ^= 1 << (who & 7);
                } else {
                    self.proven.insert(client(who + argument % 3));
                }
                self.client_sends(client(who + argument % 3), &bytes);
            }
            4 => self.apply(Command::Expect { session: signalled(session.0), pair }),
            5 if self.owned.insert(session) => {
                let handover = self.handovers.remove(&session);
                self.apply(Command::Own { session, handover });
            }
            5 | 6 => self.apply(Command::Deny { session }),
            7 => {
                let nominated = argument & 1 == 1;
                let transaction = transaction(number);
                let path = PathRequest { session, client: source, transaction, nominated };
                self.apply(Command::Yield { path: Box::new(path) });
            }
            8 => {
                let linger = Duration::from_millis(u64::from(argument) * 20);
                self.apply(Command::Finish { session, reason: EndReason::Deleted, linger });
            }
            9 => {
                self.now += Duration::from_millis(u64::from(argument) * 50);
                self.shard.handle_timeout(self.now);
            }
            10 => self.client_sends(source, &sample(argument)),
            11 => self.origin_sends(who, &sample(argument)),
            12 => self.origin_sends(who, &rtc::response(&pair, number)),
            13 => {
                let Some(&session) = self.keys.iter().rev().nth(usize::from(who)) else { return };
                if argument & 1 == 0 {
                    self.shard.port_failed(self.now, session, PortError::Refused);
                } else {
                    self.apply(Command::Close { session, reason: EndReason::Operator });
                }
            }
            14 => self.apply(match argument % 16 {
                0 => Command::CloseAll,
                1..=3 => Command::Drain(true),
                4..=9 => Command::Drain(false),
                _ => Command::Sessions { request: 1, from_slot: 0, limit: 10 },
            }),
            _ => {
                self.port = match argument % 4 {
                    0 => Err(PortError::Exhausted),
                    1 => Err(PortError::Unreachable),
                    _ => Ok(()),
                }
            }
        }
    }

    fn apply(&mut self, command: Command) {
        self.shard.apply(self.now, command);
    }

    fn client_sends(&mut self, source: SocketAddr, bytes: &[u8]) {
        let port = Port::Listener(ListenerIndex(1));
        let dropped = self.dropped();
        let verdict = self.shard.handle(self.now, Datagram { port, source, local: None, bytes });
        self.check_drop(verdict, dropped);
        if let Verdict::Forward(route) = verdict {
            let Port::Session(key) = route.port else { panic!("a client's to a client") };
            assert!(self.open.contains(&key), "through a port that is not open");
            assert!(self.proven.contains(&source), "from somebody who has proven nothing");
        }
    }

    fn origin_sends(&mut self, who: u8, bytes: &[u8]) {
        let Some(&key) = self.keys.iter().rev().nth(usize::from(who) % 4) else { return };
        let (port, source) = (Port::Session(key), rtc::rtc_origin());
        let dropped = self.dropped();
        let verdict = self.shard.handle(self.now, Datagram { port, source, local: None, bytes });
        self.check_drop(verdict, dropped);
        if let Verdict::Forward(route) = verdict {
            let peer = route.to.expect("an origin's to a client");
            assert!(self.proven.contains(&peer.address), "to somebody who has proven nothing");
        }
    }

    fn dropped(&self) -> u64 {
        self.shard.counters().drops.iter().sum()
    }

    fn check_drop(&self, verdict: Verdict, before: u64) {
        let dropped = u64::from(matches!(verdict, Verdict::Drop(_)));
        assert_eq!(self.dropped() - before, dropped, "every drop is counted once: {verdict:?}");
    }

    fn settle(&mut self) {
        while let Some(action) = self.shard.next_action() {
            match action {
                Action::Send { route, bytes } => {
                    assert!(self.shard.bytes(bytes).len() <= 1500);
                    match (route.port, route.to) {
                        (Port::Session(key), None) => assert!(self.open.contains(&key)),
                        (Port::Listener(_), Some(peer)) => {
                            assert!(self.proven.contains(&peer.address));
                        }
                        route => panic!("no such route: {route:?}"),
                    }
                }
                Action::Open { session, .. } => {
                    assert!(!self.keys.contains(&session), "opened twice");
                    self.keys.push(session);
                    if self.port.is_ok() {
                        self.open.push(session);
                    }
                    self.shard.port_opened(self.now, session, self.port);
                }
                Action::Close { session } => {
                    let open = self.open.iter().position(|open| *open == session);
                    self.open.swap_remove(open.expect("closed and not open"));
                }
            }
        }
        while let Some(event) = self.shard.next_event() {
            match event {
                Event::RtcEnded { session, .. } => {
                    assert!(self.owned.remove(&session), "ended and not owned: {session:?}");
                }
                Event::Yielded { session, handover: Some(handover) } => {
                    assert!(self.owned.remove(&session), "yielded and not owned: {session:?}");
                    self.handovers.insert(session, handover);
                }
                Event::Validated { session, .. } => assert!(self.owned.contains(&session)),
                Event::Sessions { sessions, .. } => {
                    assert!(sessions.len() as u64 <= SESSIONS_MAX);
                }
                _ => {}
            }
        }
        let counters = self.shard.counters();
        assert!(counters.sessions <= SESSIONS_MAX && counters.expected <= SESSIONS_MAX);
        assert_eq!(counters.webrtc.established, self.open.len() as u64);
        assert_eq!(counters.sessions, self.owned.len() as u64);
    }

    fn leave(mut self) {
        for id in 0..IDS {
            let (session, linger) = (RtcId(id), Duration::ZERO);
            self.apply(Command::Finish { session, reason: EndReason::Deleted, linger });
        }
        for _ in 0..10 {
            self.now += Duration::from_secs(1);
            self.shard.handle_timeout(self.now);
            self.settle();
        }
        let counters = self.shard.counters();
        assert_eq!((counters.sessions, counters.expected, self.open.len()), (0, 0, 0));
        assert_eq!(self.shard.poll_timeout(), None);
    }
}

fn client(who: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 9], 5000 + u16::from(who % 12)))
}

/// Datagrams that need no proof of their own.
fn sample(choice: u8) -> Vec<u8> {
    match choice % 8 {
        0 => rtc::client_hello(),
        1 => rtc::alert(),
        2 => rtc::rtcp(7),
        3 => rtc::stun(Class::Indication, Method::Binding, 1),
        4 => rtc::stun(Class::Success, Method::Binding, u32::from(choice)),
        5 => rtc::stun(Class::Request, Method::GoogPing, u32::from(choice)),
        _ => rtc::rtp(u32::from(choice), 1),
    }
}
