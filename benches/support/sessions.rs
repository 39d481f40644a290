//! A shard full of sessions, and media for all of them in an order that no prefetcher guesses.
//!
//! A datagram is written into one warm buffer, as the kernel has just written what a relay looks at: what counts is the
//! shard's own memory.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringway::shard::{Datagram, Port, Shard, ShardConfig, Verdict};

use super::packets;
use super::random::Random;
use super::rtc::{self, RtcStage};
use super::stage::{self, Stage};

/// Established sessions of one protocol.
pub struct Sessions {
    pub shard: Shard,
    now: Instant,
    up: Media,
    down: Media,
}

/// The media of one direction.
struct Media {
    flows: Vec<Flow>,
    next: usize,
    bytes: Vec<u8>,
    /// Where a datagram says whose it is, and where its number stands.
    name_at: usize,
    number_at: usize,
    number: u32,
    /// Datagrams of a session that follow each other, and how many of them have come.
    burst: u32,
    in_burst: u32,
}

/// Whose datagrams come in where.
struct Flow {
    port: Port,
    source: SocketAddr,
    name: u32,
}

impl Sessions {
    pub fn srt(count: u32) -> Self {
        let mut stage = Stage::with(roomy(stage::config(), count));
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (source, caller, listener) =
                (client(number), 0x100_0000 + number, 0x200_0000 + number);
            let session = stage.established(source, caller, listener);
            up.push(Flow { port: stage::LISTENER, source, name: listener });
            let port = Port::Session(session);
            down.push(Flow { port, source: stage::origin(), name: caller });
        }
        let bytes = packets::data(0, 1, &[0x47; 1316]);
        let media = |flows| Media::new(flows, &bytes, 12, 0);
        Self { shard: stage.shard, now: stage.now, up: media(up), down: media(down) }
    }

    pub fn webrtc(count: u32) -> Self {
        let mut stage = Stage::with(roomy(rtc::rtc_config(), count));
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for number in 0..count {
            let source = client(number);
            let session = stage.validated(number.into(), source);
            up.push(Flow { port: rtc::RTC_LISTENER, source, name: number });
            down.push(Flow {
                port: Port::Session(session),
                source: rtc::rtc_origin(),
                name: number,
            });
        }
        let bytes = rtc::rtp(0, 1);
        // The number stands in the timestamp: the sequence number says nothing to a relay.
        let media = |flows| Media::new(flows, &bytes, 8, 4);
        Self { shard: stage.shard, now: stage.now, up: media(up), down: media(down) }
    }

    /// Lets every session send so many datagrams before the next one has its turn.
    pub fn in_bursts(mut self, burst: u32) -> Self {
        (self.up.burst, self.down.burst) = (burst, burst);
        self
    }

    /// The next datagram of a client.
    #[inline]
    pub fn client_sends(&mut self) -> Verdict {
        self.up.relay(&mut self.shard, &mut self.now)
    }

    /// The next datagram of an origin.
    #[inline]
    pub fn origin_sends(&mut self) -> Verdict {
        self.down.relay(&mut self.shard, &mut self.now)
    }
}

impl Media {
    fn new(mut flows: Vec<Flow>, bytes: &[u8], name_at: usize, number_at: usize) -> Self {
        let mut random = Random::new(1);
        for last in (1..flows.len()).rev() {
            flows.swap(last, random.below(last as u64 + 1) as usize);
        }
        let bytes = bytes.to_vec();
        Self { flows, next: 0, bytes, name_at, number_at, number: 2000, burst: 1, in_burst: 0 }
    }

    #[inline]
    fn relay(&mut self, shard: &mut Shard, now: &mut Instant) -> Verdict {
        let flow = &self.flows[self.next];
        let number = self.number + self.in_burst;
        self.in_burst += 1;
        if self.in_burst == self.burst {
            (self.next, self.in_burst) = (self.next + 1, 0);
        }
        self.bytes[self.name_at..self.name_at + 4].copy_from_slice(&flow.name.to_be_bytes());
        self.bytes[self.number_at..self.number_at + 4].copy_from_slice(&number.to_be_bytes());
        let datagram =
            Datagram { port: flow.port, source: flow.source, local: None, bytes: &self.bytes };
        let verdict = shard.handle(*now, datagram);
        if self.next == self.flows.len() {
            // Every session has its next packets, and the next wake-up comes.
            (self.next, self.number) = (0, self.number + self.burst);
            *now += Duration::from_micros(100);
        }
        verdict
    }
}

fn roomy(config: ShardConfig, sessions: u32) -> ShardConfig {
    let mut config = config;
    config.limits.sessions_max = sessions.max(16);
    config.limits.induction_rate = u32::MAX;
    config.limits.induction_rate_per_prefix = u32::MAX;
    config
}

/// 250 clients behind each address.
fn client(number: u32) -> SocketAddr {
    let (host, port) = (number / 250, number % 250);
    SocketAddr::from(([203, 0, (host / 250) as u8, (host % 250) as u8], 10_000 + port as u16))
}
