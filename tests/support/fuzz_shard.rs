//! A shard under any sequence of datagrams, commands and hours.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringway::protocol::srt::{CookieKey, Rejection};
use ringway::protocol::stream_url::Vhosts;
use ringway::shard::{
    Action, Command, Datagram, EndReason, Event, Limits, ListenerIndex, OriginId, Port, PortError,
    SessionKey, Shard, ShardConfig, Verdict,
};

/// Reads `bytes` as a script of steps, plays it, and checks after each step that every bound holds and at the end that
/// nothing is left.
pub(crate) fn fuzz_shard(bytes: &[u8]) {
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
    picked: u32,
    ended: u32,
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
                origin_setup_timeout: Duration::from_secs(2),
            },
            cookie_key: CookieKey::new([3; 16]),
            hash_seed: 1,
            started: now,
            started_unix_seconds: 1_800_000_000,
            vhosts: Vhosts::default(),
            default_stream: Some("live/livestream".to_owned()),
            key_length: 16,
        };
        let shard = Shard::new(config);
        Self { shard, now, sessions: vec![], open: vec![], picked: 0, ended: 0, cookie: 0 }
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
                let (origin, address) = (OriginId(0), origin());
                self.shard.apply(self.now, Command::Open { session, origin, address });
            }
            (4, Some(session)) => {
                let rejection = Rejection::Unavailable;
                self.shard.apply(self.now, Command::Refuse { session, rejection });
            }
            (5, Some(session)) => self.shard.port_failed(self.now, session, PortError::Refused),
            (6, _) => {
                self.now += Duration::from_millis(argument.len() as u64 * 50);
                self.shard.handle_timeout(self.now);
            }
            (7, Some(session)) => {
                let reason = EndReason::Operator;
                self.shard.apply(self.now, Command::Close { session, reason });
            }
            _ => self.shard.apply(self.now, Command::Drain(who.is_multiple_of(2))),
        }
        self.settle();
    }

    fn client_sends(&mut self, who: usize, bytes: &[u8]) {
        let source = SocketAddr::from(([203, 0, 113, 9], 5000 + (who % 3) as u16));
        let port = Port::Listener(ListenerIndex(0));
        let datagram = Datagram { port, source, local: None, bytes };
        let before = self.shard.counters();
        let verdict = self.shard.handle(self.now, datagram);
        let counters = self.shard.counters();
        let answered = counters.client_out.bytes - before.client_out.bytes;
        if verdict == Verdict::Taken && counters.sessions <= before.sessions {
            assert!(
                answered as usize <= bytes.len().max(160),
                "an answer larger than its question"
            );
        }
        if matches!(verdict, Verdict::Drop(_)) {
            let dropped = counters.drops.iter().sum::<u64>() - before.drops.iter().sum::<u64>();
            assert_eq!(dropped, 1, "every drop is counted once");
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
                    self.open.push(session);
                    self.shard.port_opened(self.now, session, Ok(()));
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
                    self.picked += 1;
                    self.sessions.push(request.session);
                }
                Event::Ended { .. } => self.ended += 1,
                Event::Established { .. }
                | Event::Sessions { .. }
                | Event::Counters { .. }
                | Event::Emptied => {}
            }
        }
        let counters = self.shard.counters();
        assert!(counters.sessions <= 5 && counters.pending <= 4, "{counters:?}");
        assert!(self.open.len() as u64 <= counters.sessions);
    }

    fn leave(mut self) {
        for _ in 0..200 {
            self.now += Duration::from_millis(500);
            self.shard.handle_timeout(self.now);
            self.settle();
        }
        assert_eq!(self.shard.counters().sessions, 0);
        assert_eq!((self.open.len(), self.shard.poll_timeout()), (0, None));
        assert_eq!(self.picked, self.ended, "every picked session ends once");
    }
}

fn origin() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 5], 10080))
}
