//! Many links over few sockets: what generator and origin emulator have in common.
//!
//! A station sends paced media, acknowledges what it receives, answers what wants an answer and
//! keeps count. It knows no handshakes: its owner opens links and closes them. One thread owns a
//! station; others read what it publishes.

use std::io;
use std::sync::Arc;

use ringway::protocol::srt::{ControlType, Header, Kind, SocketId};

use crate::batch::{BATCH_MAX, Datagram, ReceiveBatch, Route, SendBatch};
use crate::board::{Board, Counts, Ledger};
use crate::clock;
use crate::link::{Heard, Link};
use crate::pace::Pacer;
use crate::payload;
use crate::sockets::Sockets;
use crate::srt;

/// The media that a station sends on each link that sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Media {
    /// Packets per second and link; 0 sends nothing.
    pub rate: f64,
    /// Packets of one link that leave together; the rate stays.
    pub burst: u16,
    /// The burst leaves as one segmented send and arrives coalesced where the receiver takes
    /// trains.
    pub train: bool,
    /// Payload bytes; at least [`payload::LEN_MIN`] for the receiving side to judge them.
    pub size: usize,
}

impl Default for Media {
    fn default() -> Self {
        Self { rate: 200.0, burst: 1, train: false, size: 1_316 }
    }
}

/// How a station is set up.
#[derive(Clone, Copy, Debug)]
pub struct StationSettings {
    /// What it sends.
    pub media: Media,
    /// Send full ACKs and keepalives by itself.
    pub is_alive: bool,
    /// A link is closed when its peer has been silent for this long.
    pub idle_timeout_ns: u64,
    /// For everything that looks random.
    pub seed: u64,
}

/// Links, their sockets, and the counting.
pub struct Station {
    settings: StationSettings,
    pub(crate) sockets: Arc<Sockets>,
    outbox: SendBatch,
    /// By slot. The socket ID of a slot is `first_id` plus the slot.
    links: Vec<Option<Connected>>,
    first_id: u32,
    /// Slots that send media, in the order of their opening.
    senders: Vec<usize>,
    pacer: Option<Pacer>,
    next_sender: usize,
    upkeep: Option<Pacer>,
    upkeep_turn: usize,
    filler: Vec<u8>,
    ledger: Ledger,
    /// Media packets that peers of closed links had acknowledged.
    acknowledged_before: u64,
}

struct Connected {
    link: Link,
    route: Route,
    is_sender: bool,
}

impl Station {
    /// A station without links.
    #[must_use]
    pub fn new(settings: StationSettings, sockets: Sockets) -> Self {
        let now = clock::now();
        // Below bit 30, which marks groups, with room for a million slots.
        let first_id = 0x0100_0000 + (payload::mix(settings.seed) as u32 & 0x0FFF_FFFF);
        Self {
            settings,
            sockets: Arc::new(sockets),
            outbox: SendBatch::default(),
            links: Vec::new(),
            first_id,
            senders: Vec::new(),
            pacer: None,
            next_sender: 0,
            upkeep: Pacer::new(now, UPKEEP_RATE).filter(|_| settings.is_alive),
            upkeep_turn: 0,
            filler: payload::filler(settings.seed, settings.media.size),
            ledger: Ledger::new(now),
            acknowledged_before: 0,
        }
    }

    /// The socket ID that belongs to a slot.
    #[must_use]
    pub fn id_of(&self, slot: usize) -> SocketId {
        SocketId(self.first_id.wrapping_add(slot as u32))
    }

    /// The slot that belongs to a socket ID, open or not.
    #[must_use]
    pub fn slot_of(&self, id: SocketId) -> usize {
        id.0.wrapping_sub(self.first_id) as usize
    }

    /// Opens a link in `slot`.
    pub fn open(&mut self, slot: usize, link: Link, route: Route, is_sender: bool) {
        if self.links.len() <= slot {
            self.links.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.links.get_mut(slot) {
            *place = Some(Connected { link, route, is_sender });
            self.ledger.interval.counts.open += 1;
            self.ledger.interval.counts.connected += 1;
        }
        if is_sender {
            self.senders.push(slot);
            self.pacer = None;
        }
    }

    /// Closes a link, with or without a goodbye. Whether it was open.
    pub fn close(&mut self, slot: usize, goodbye: bool) -> bool {
        let Some(connected) = self.links.get_mut(slot).and_then(Option::take) else {
            return false;
        };
        self.ledger.interval.counts.open -= 1;
        self.acknowledged_before += connected.link.acknowledged();
        if connected.is_sender {
            self.senders.retain(|sender| *sender != slot);
            self.pacer = None;
        }
        if goodbye {
            self.send(connected.route, &connected.link.shutdown(clock::now()));
        }
        true
    }

    /// Closes all links with a goodbye.
    pub fn close_all(&mut self) {
        for slot in 0..self.links.len() {
            self.close(slot, true);
        }
    }

    /// Whether the slot holds an open link.
    #[must_use]
    pub fn is_open(&self, slot: usize) -> bool {
        self.links.get(slot).is_some_and(Option::is_some)
    }

    /// The slots that send media, in the order of their opening.
    #[must_use]
    pub fn senders(&self) -> &[usize] {
        &self.senders
    }

    /// Totals so far.
    pub fn counts(&mut self) -> &mut Counts {
        &mut self.ledger.interval.counts
    }

    /// Notes how long a handshake took.
    pub fn record_setup(&mut self, took_ns: u64) {
        self.ledger.interval.setup.saturating_record(took_ns);
    }

    /// Queues a datagram.
    pub fn send(&mut self, route: Route, bytes: &[u8]) {
        if self.outbox.is_full() {
            self.flush();
        }
        self.outbox.push_bytes(route, bytes);
        self.ledger.interval.counts.datagrams_out += 1;
    }

    /// Queues the next `count` media packets of `slot`, one by one or as one train.
    pub fn send_media(&mut self, slot: usize, count: u16, train: bool, intended_ns: u64) {
        let length = srt::HEADER_LEN + self.settings.media.size;
        let per_send = if train { count.clamp(1, TRAIN_MAX) } else { 1 };
        let mut left = count;
        while left > 0 {
            if self.outbox.is_full() {
                self.flush();
            }
            let Some(Some(connected)) = self.links.get_mut(slot) else {
                return;
            };
            let packets = per_send.min(left);
            let segment = u16::try_from(length).ok().filter(|_| packets > 1);
            let bytes = self.outbox.push(connected.route, length * usize::from(packets), segment);
            for packet in bytes.chunks_exact_mut(length) {
                if let Some(payload) = packet.get_mut(srt::HEADER_LEN..) {
                    payload.copy_from_slice(&self.filler);
                }
                let now = clock::now();
                connected.link.write_data(packet, intended_ns, now);
                self.ledger
                    .interval
                    .lateness
                    .saturating_record(now.saturating_sub(intended_ns).max(1));
            }
            left -= packets;
            self.ledger.interval.counts.sent += u64::from(packets);
            self.ledger.interval.counts.datagrams_out += u64::from(packets);
        }
    }

    /// Queues a keepalive on every link, whether due or not.
    pub fn send_keepalives(&mut self) {
        let now = clock::now();
        for slot in 0..self.links.len() {
            if let Some(Some(connected)) = self.links.get_mut(slot) {
                let (route, packet) = (connected.route, connected.link.keepalive(now));
                self.send(route, &packet);
            }
        }
    }

    /// Closes all links with a goodbye and shows the final totals.
    pub(crate) fn finish(&mut self) {
        self.close_all();
        self.flush();
        self.publish();
    }

    pub(crate) fn board(&self) -> Arc<Board> {
        self.ledger.board()
    }

    /// Hands everything queued to the kernel.
    pub fn flush(&mut self) {
        if let Err(error) = self.outbox.flush(&self.sockets.sockets) {
            // Only waiting for room can fail, and then the rest of the batch is as good as refused.
            debug_assert!(false, "cannot wait for a socket: {error}");
        }
        self.ledger.interval.counts.send_errors = self.outbox.refused();
    }

    /// Does what is due: media, acknowledgements, keepalives, publishing. Returns when it wants to
    /// be called next.
    pub fn turn(&mut self, now_ns: u64, send_media: bool) -> u64 {
        let media_at = if send_media { self.pace(now_ns) } else { self.stop_pacing() };
        let upkeep_at = self.keep_up(now_ns);
        self.flush();
        if self.ledger.is_due(now_ns) {
            self.publish();
        }
        media_at.min(upkeep_at).min(self.ledger.due_at())
    }

    fn pace(&mut self, now_ns: u64) -> u64 {
        let Media { rate, burst, train, .. } = self.settings.media;
        if self.pacer.is_none() {
            let bursts_per_second = rate * self.senders.len() as f64 / f64::from(burst.max(1));
            self.pacer = Pacer::new(now_ns, bursts_per_second);
        }
        // Bounded, so that a station that has fallen behind still receives.
        for _ in 0..BATCH_MAX {
            let Some(intended_ns) = self.pacer.as_mut().and_then(|pacer| pacer.take(now_ns)) else {
                break;
            };
            self.next_sender = (self.next_sender + 1) % self.senders.len().max(1);
            if let Some(slot) = self.senders.get(self.next_sender).copied() {
                self.send_media(slot, burst.max(1), train, intended_ns);
            }
        }
        self.pacer.map_or(u64::MAX, |pacer| pacer.next_at())
    }

    fn stop_pacing(&mut self) -> u64 {
        self.pacer = None;
        u64::MAX
    }

    /// Once per millisecond a tenth of the links gets its ACK or keepalive: each link every 10 ms,
    /// and no herd.
    fn keep_up(&mut self, now_ns: u64) -> u64 {
        let Some(mut pacer) = self.upkeep else {
            return u64::MAX;
        };
        while pacer.take(now_ns).is_some() {
            let tenth = self.upkeep_turn % 10;
            self.upkeep_turn += 1;
            let slots = self.links.len() * tenth / 10..self.links.len() * (tenth + 1) / 10;
            for slot in slots {
                self.keep_link_up(slot, now_ns);
            }
        }
        self.upkeep = Some(pacer);
        pacer.next_at()
    }

    fn keep_link_up(&mut self, slot: usize, now_ns: u64) {
        let Some(Some(Connected { link, route, .. })) = self.links.get_mut(slot) else {
            return;
        };
        if link.silence_ns(now_ns) > self.settings.idle_timeout_ns {
            self.close(slot, true);
            self.ledger.interval.counts.closed_by_peer += 1;
            return;
        }
        let route = *route;
        if let Some(packet) = link.ack(now_ns) {
            self.send(route, &packet);
        } else if let Some(packet) = link.keepalive_if_idle(now_ns) {
            self.send(route, &packet);
        }
    }

    /// Takes one datagram that is no handshake.
    fn deliver(&mut self, datagram: &Datagram<'_>, destination: SocketId, arrived_ns: u64) {
        let slot = self.slot_of(destination);
        let Self { links, ledger: Ledger { interval, .. }, .. } = self;
        let connected = match links.get_mut(slot) {
            Some(Some(connected)) if connected.route.to == datagram.source => connected,
            Some(_) | None => {
                interval.counts.strays += 1;
                return;
            }
        };
        match connected.link.hear(datagram.bytes, arrived_ns, &mut interval.counts.media) {
            Heard::Data(Some(stamp)) => {
                interval.latency.saturating_record(arrived_ns.saturating_sub(stamp.sent_ns).max(1));
            }
            Heard::Data(None) | Heard::Control => {}
            Heard::Answer(packet) => {
                let route = connected.route;
                self.send(route, &packet);
            }
            Heard::Shutdown => {
                self.close(slot, false);
                self.ledger.interval.counts.closed_by_peer += 1;
            }
        }
    }

    /// Shows the totals to whoever reads the board.
    pub(crate) fn publish(&mut self) {
        let open: u64 =
            self.links.iter().flatten().map(|connected| connected.link.acknowledged()).sum();
        self.ledger.interval.counts.acknowledged = self.acknowledged_before + open;
        self.ledger.publish();
    }
}

/// Receives what has arrived and gives it to `station`, handshakes to `on_handshake`. In both cases
/// in order.
///
/// # Errors
/// What `recvmmsg` reports.
pub fn receive(
    inbox: &mut ReceiveBatch,
    station: &mut Station,
    mut on_handshake: impl FnMut(&mut Station, usize, &Datagram<'_>),
) -> io::Result<()> {
    let sockets = Arc::clone(&station.sockets);
    sockets.drain(inbox, |index, datagram, arrived_ns| {
        station.ledger.interval.counts.datagrams_in += 1;
        let Ok(header) = Header::parse(datagram.bytes) else {
            station.ledger.interval.counts.strays += 1;
            return;
        };
        if header.kind == Kind::Control(ControlType::Handshake) {
            on_handshake(station, index, datagram);
        } else {
            station.deliver(datagram, header.destination, arrived_ns);
        }
    })
}

/// 64 segments are what kernels before 6.9 take, 65,507 bytes what a datagram holds: 49 x 1,332
/// fit.
const TRAIN_MAX: u16 = 49;
const UPKEEP_RATE: f64 = 1_000.0;
