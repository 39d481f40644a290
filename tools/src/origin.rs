//! An SRT origin for tests: a listener that takes media from publishers, sends media to players and
//! keeps count.
//!
//! Thousands of callers share its one port; like a real listener it knows them by source address
//! and socket ID. Knobs make it misbehave: stay silent, refuse, lose the first conclusion.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringway::protocol::srt::{
    CookieKey, Extensions, Handshake, HandshakeKind, Mode, SocketId, StreamId,
};

use crate::batch::{self, Datagram, ReceiveBatch, Route, SocketOptions};
use crate::board::{Board, Counts, Published};
use crate::clock::{self, SECOND, srt_timestamp};
use crate::impair::Impairment;
use crate::link::{Ends, Link};
use crate::payload;
use crate::sockets::Sockets;
use crate::srt;
use crate::station::{Media, Station, StationSettings, receive};
use crate::worker::{Side, Worker};

/// How an origin behaves.
#[derive(Clone, Debug)]
pub struct OriginSettings {
    /// Where it listens; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// What each player gets.
    pub media: Media,
    /// Whether it begins to send by itself; otherwise [`Origin::send_media`] does.
    pub sends_media: bool,
    /// Send full ACKs and keepalives unasked.
    pub is_alive: bool,
    /// Answer no handshake at all.
    pub silent: bool,
    /// Answer every conclusion with this handshake type.
    pub refuse: Option<u32>,
    /// Ignore each caller's first conclusion.
    pub drop_first_conclusion: bool,
    /// The encryption field of induction responses: key bytes / 8, 0 advertises none.
    pub encryption: u16,
    /// Callers at the same time. Further ones are refused (1003).
    pub sessions_max: usize,
    /// A caller is given up after this long without a packet.
    pub idle_timeout: Duration,
    /// What becomes of what it sends.
    pub impairment: Impairment,
    /// How its socket is set up.
    pub socket: SocketOptions,
    /// CPUs that its thread may use; empty: all.
    pub cpus: Vec<usize>,
    /// For socket IDs, cookies and filler.
    pub seed: u64,
}

impl OriginSettings {
    /// A well-behaved origin.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            media: Media::default(),
            sends_media: true,
            is_alive: true,
            silent: false,
            refuse: None,
            drop_first_conclusion: false,
            encryption: 0,
            sessions_max: 20_000,
            idle_timeout: Duration::from_secs(10),
            impairment: Impairment::default(),
            socket: SocketOptions::default(),
            cpus: Vec::new(),
            seed: 2,
        }
    }
}

/// A running origin. Dropping it says goodbye to all callers.
pub struct Origin {
    worker: Worker,
}

impl Origin {
    /// Binds the port and starts the thread; listens when it returns.
    ///
    /// # Errors
    /// The address cannot be bound, or no thread can be started.
    pub fn start(settings: OriginSettings) -> io::Result<Self> {
        let (cpus, sends_media) = (settings.cpus.clone(), settings.sends_media);
        let worker = Worker::start("origin", cpus, Listener::new(settings)?, sends_media)?;
        Ok(Self { worker })
    }

    /// Where it listens, with the port that the kernel chose.
    ///
    /// # Errors
    /// What `getsockname` reports.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.worker.address()
    }

    /// The thread that does it all.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Totals, at most 50 ms old.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.worker.counts()
    }

    /// Totals and histograms, at most 50 ms old.
    #[must_use]
    pub fn stats(&self) -> Published {
        self.worker.published()
    }

    /// Forgets the histograms up to now.
    pub fn reset_histograms(&self) {
        self.worker.reset_histograms();
    }

    /// Datagrams lost because its own receive queue was full.
    #[must_use]
    pub fn receive_drops(&self) -> u64 {
        self.worker.receive_drops()
    }

    /// Starts or stops the media.
    pub fn send_media(&self, on: bool) {
        self.worker.send_media(on);
    }

    /// Waits until `is_done` says yes to the totals, or for `patience`. Whether it did.
    pub fn wait_for(&self, patience: Duration, is_done: impl FnMut(&Counts) -> bool) -> bool {
        self.worker.wait_for(patience, is_done)
    }

    /// Says goodbye to all callers, ends the thread and returns the final state.
    ///
    /// # Errors
    /// What made the thread end early.
    pub fn stop(self) -> io::Result<Published> {
        self.worker.stop()
    }
}

/// The origin without its thread, for those who drive it step by step.
pub struct Listener {
    inbox: ReceiveBatch,
    station: Station,
    door: Door,
}

/// Who knocks, who is in.
struct Door {
    settings: OriginSettings,
    cookies: CookieKey,
    /// By source address and socket ID of the caller.
    guests: HashMap<(SocketAddr, SocketId), Guest>,
    /// Callers whose first conclusion has been ignored. Bounded by `sessions_max`.
    turned_away: HashSet<(SocketAddr, SocketId)>,
}

#[derive(Clone, Copy)]
struct Guest {
    /// The origin's end. Unlike its slot it is not soon used again.
    id: SocketId,
    initial_sequence: u32,
    accepted_ns: u64,
}

impl Listener {
    /// Binds the port.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn new(settings: OriginSettings) -> io::Result<Self> {
        let socket = batch::bind(settings.listen, settings.socket)?;
        let station = Station::new(
            StationSettings {
                media: settings.media,
                is_alive: settings.is_alive,
                idle_timeout_ns: u64::try_from(settings.idle_timeout.as_nanos())
                    .unwrap_or(u64::MAX),
                // What a station may have before it uses slots again.
                slots_max: settings.sessions_max.saturating_mul(2).saturating_add(64),
                impairment: settings.impairment,
                seed: settings.seed,
            },
            Sockets::new(vec![socket])?,
        );
        let mut key = [0; 16];
        key.copy_from_slice(&payload::filler(settings.seed, 16));
        Ok(Self {
            inbox: ReceiveBatch::new(settings.socket.trains),
            station,
            door: Door {
                cookies: CookieKey::new(key),
                guests: HashMap::new(),
                turned_away: HashSet::new(),
                settings,
            },
        })
    }

    /// What accepts and counts, for those who drive the origin step by step.
    pub fn station(&mut self) -> &mut Station {
        &mut self.station
    }
}

impl Side for Listener {
    fn turn(&mut self, now_ns: u64, send_media: bool) -> io::Result<u64> {
        let Self { inbox, station, door } = self;
        receive(inbox, station, |station, socket, datagram| door.hear(station, socket, datagram))?;
        Ok(station.turn(now_ns, send_media))
    }

    fn sockets(&self) -> Arc<Sockets> {
        Arc::clone(&self.station.sockets)
    }

    fn board(&self) -> Arc<Board> {
        self.station.board()
    }

    fn finish(&mut self) {
        self.station.finish();
    }
}

impl Door {
    /// Takes a handshake packet.
    fn hear(&mut self, station: &mut Station, socket: usize, datagram: &Datagram<'_>) {
        if self.settings.silent {
            return;
        }
        let Ok(handshake) = Handshake::parse(datagram.bytes) else {
            station.counts().strays += 1;
            return;
        };
        let route = Route { socket, to: datagram.source, from: None };
        match handshake.kind {
            HandshakeKind::Induction => self.answer_induction(station, route, &handshake),
            HandshakeKind::Conclusion => {
                self.answer_conclusion(station, route, &handshake, datagram.bytes)
            }
            HandshakeKind::WaveAHand
            | HandshakeKind::Agreement
            | HandshakeKind::Done
            | HandshakeKind::Rejection(_)
            | HandshakeKind::Other(_) => station.counts().strays += 1,
        }
    }

    fn answer_induction(&mut self, station: &mut Station, route: Route, handshake: &Handshake) {
        let now = clock::now();
        let cookie = self.cookies.bake(bucket(now), route.to, handshake.socket);
        let timestamp = srt_timestamp(0, now);
        let packet = handshake.induction_response(
            timestamp,
            self.settings.encryption,
            cookie,
            route.to.ip(),
        );
        station.send(route, &packet);
    }

    fn answer_conclusion(
        &mut self,
        station: &mut Station,
        route: Route,
        handshake: &Handshake,
        bytes: &[u8],
    ) {
        let now = clock::now();
        if !self.cookies.is_valid(handshake.cookie, bucket(now), route.to, handshake.socket) {
            station.counts().invalid_cookies += 1;
            return;
        }
        let caller = (route.to, handshake.socket);
        if self.settings.drop_first_conclusion && self.turned_away.insert(caller) {
            return;
        }
        match self.admit(station, caller, handshake, bytes, now) {
            Ok(guest) => {
                let timestamp = srt_timestamp(guest.accepted_ns, now);
                let caller = route.to.ip();
                let packet =
                    srt::conclusion_response(handshake, guest.id, timestamp, LATENCY_MS, caller);
                station.send(route, &packet);
            }
            Err(code) => {
                station.counts().refused += 1;
                station.counts().refusal = code;
                station.send(route, &handshake.rejection(srt_timestamp(0, now), code));
            }
        }
    }

    /// Opens a link for the caller, or finds the one it has because its conclusion came twice.
    fn admit(
        &mut self,
        station: &mut Station,
        caller: (SocketAddr, SocketId),
        handshake: &Handshake,
        bytes: &[u8],
        now: u64,
    ) -> Result<Guest, u32> {
        if let Some(code) = self.settings.refuse {
            return Err(code);
        }
        if let Some(guest) = self.guests.get(&caller).copied() {
            let slot = station.slot_of(guest.id).filter(|slot| station.is_open(*slot));
            if guest.initial_sequence == handshake.initial_sequence && slot.is_some() {
                return Ok(guest);
            }
            // Another sequence number is another attempt of the same socket; the old one is over.
            slot.map(|slot| station.close(slot, false));
            self.guests.remove(&caller);
        }
        if self.guests.len() >= self.settings.sessions_max {
            let is_open = |id| station.slot_of(id).is_some_and(|slot| station.is_open(slot));
            self.guests.retain(|_, guest| is_open(guest.id));
            self.turned_away.clear();
            if self.guests.len() >= self.settings.sessions_max {
                return Err(REJECT_RESOURCE);
            }
        }
        let extensions = Extensions::parse(bytes).map_err(|_| REJECT_ROGUE)?;
        let stream_id = extensions.stream_id.unwrap_or_default();
        let (stream, plays) = match StreamId::parse(&stream_id) {
            Ok(read) => (payload::identity(&read.path), read.mode == Mode::Request),
            // Callers without a usable stream ID may publish: that is what encoders without the
            // option do.
            Err(_) => (payload::identity(&stream_id), false),
        };
        let slot = station.vacancy();
        let guest = Guest {
            id: station.id_of(slot),
            initial_sequence: handshake.initial_sequence,
            accepted_ns: now,
        };
        let ends = Ends { local: guest.id, remote: handshake.socket };
        let link = Link::new(ends, handshake.initial_sequence, stream, now, now);
        station.open(slot, link, Route { socket: 0, to: caller.0, from: None }, plays);
        self.guests.insert(caller, guest);
        Ok(guest)
    }
}

fn bucket(now_ns: u64) -> u64 {
    now_ns / SECOND / CookieKey::BUCKET_SECONDS
}

/// libsrt's live default.
const LATENCY_MS: u16 = 120;
const REJECT_RESOURCE: u32 = 1_003;
const REJECT_ROGUE: u32 = 1_004;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, ClientSettings, ConnectError};
    use std::net::{IpAddr, Ipv4Addr};

    const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn two_callers_behind_one_address_are_told_apart_by_their_socket_ids() {
        let origin = Origin::start(OriginSettings::new(ANY)).unwrap();
        let mut one =
            Client::connect(ClientSettings::publish(origin.address().unwrap(), "live/a")).unwrap();
        let mut two = one
            .connect_beside(ClientSettings::publish(origin.address().unwrap(), "live/b"))
            .unwrap();
        one.send().unwrap();
        two.send().unwrap();
        assert!(origin.wait_for(PATIENCE, |counts| counts.media.received == 2));
        assert_eq!(origin.counts().media.damaged, 0);
    }

    #[test]
    fn a_conclusion_with_a_wrong_cookie_is_not_answered() {
        let origin = Origin::start(OriginSettings::new(ANY)).unwrap();
        let settings = ClientSettings {
            cookie: Some(0xDEAD_BEEF),
            timeout: Duration::from_millis(300),
            ..ClientSettings::publish(origin.address().unwrap(), "live/a")
        };
        assert!(matches!(Client::connect(settings), Err(ConnectError::Timeout { .. })));
        assert!(origin.wait_for(PATIENCE, |counts| counts.invalid_cookies > 0));
        assert_eq!(origin.counts().connected, 0);
    }

    #[test]
    fn a_goodbye_closes_the_session() {
        let origin = Origin::start(OriginSettings::new(ANY)).unwrap();
        let client =
            Client::connect(ClientSettings::publish(origin.address().unwrap(), "live/a")).unwrap();
        assert!(origin.wait_for(PATIENCE, |counts| counts.open == 1));
        client.shutdown().unwrap();
        assert!(origin.wait_for(PATIENCE, |counts| counts.open == 0));
    }

    #[test]
    fn callers_above_the_limit_are_refused() {
        let origin =
            Origin::start(OriginSettings { sessions_max: 1, ..OriginSettings::new(ANY) }).unwrap();
        let _first =
            Client::connect(ClientSettings::publish(origin.address().unwrap(), "live/a")).unwrap();
        let second = Client::connect(ClientSettings::publish(origin.address().unwrap(), "live/b"));
        assert!(matches!(second, Err(ConnectError::Refused { code: REJECT_RESOURCE })));
    }
}
