//! Many links over few sockets: what generator and origin emulator have in common.
//!
//! A station sends paced media, acknowledges what it receives, answers what wants an answer and
//! keeps count. It knows no handshakes: its owner opens links and closes them. One thread owns a
//! station; others read what it publishes.

use std::io;
use std::sync::Arc;

use ringway::protocol::srt::{ControlType, Header, Kind, SocketId};

use crate::batch::{BATCH_MAX, Datagram, ReceiveBatch, Route};
use crate::board::{Board, Counts, Ledger};
use crate::clock;
use crate::egress::{Egress, Run};
use crate::impair::Impairment;
use crate::link::{Heard, Link};
use crate::pace::Pacer;
use crate::payload;
use crate::shape::{Beat, Frame, Rhythm, Schedule, Shape};
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
    /// When they leave. The constant shape spaces the bursts of all links evenly; with the others
    /// each link has a rhythm of its own.
    pub shape: Shape,
}

impl Default for Media {
    fn default() -> Self {
        Self { rate: 200.0, burst: 1, train: false, size: 1_316, shape: Shape::Constant }
    }
}

impl Media {
    /// What the link in `slot` sends; nothing where all links share one even pace.
    fn rhythm(&self, slot: usize) -> Option<Rhythm> {
        let Self { rate, burst, size, shape, .. } = *self;
        let size = u16::try_from(size).unwrap_or(u16::MAX);
        let rhythms = [
            Rhythm::SrtLive { rate, size },
            Rhythm::Video { rate, frames: 25, size },
            Rhythm::Audio,
            Rhythm::Constant { rate, burst, size },
        ];
        let index = match shape {
            Shape::Constant => return None,
            Shape::SrtLive => 0,
            Shape::Video => 1,
            Shape::Audio => 2,
            Shape::Mixed => slot % rhythms.len(),
        };
        rhythms.get(index).copied()
    }

    /// Packets per second of `links` links together, averaged over the keyframes.
    #[must_use]
    pub fn packets_per_second(&self, links: usize) -> f64 {
        let of_link =
            |slot| self.rhythm(slot).map_or(self.rate, |rhythm| rhythm.packets_per_second());
        (0..links).map(of_link).sum()
    }

    fn largest_payload(&self) -> usize {
        self.size.max(usize::from(Rhythm::Audio.packet_size()))
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
    /// Slots that it may have; an ID names one of them.
    pub slots_max: usize,
    /// What becomes of what it sends.
    pub impairment: Impairment,
    /// For everything that looks random.
    pub seed: u64,
}

/// Links, their sockets, and the counting.
pub struct Station {
    settings: StationSettings,
    pub(crate) sockets: Arc<Sockets>,
    egress: Egress,
    /// By slot.
    links: Vec<Option<Connected>>,
    /// By slot: how often it was given to another link. An ID is `first_id`, plus the slot, plus the
    /// generation times the number of slots, so that what comes late for an earlier link of a slot
    /// is not taken for the present one's.
    generations: Vec<u32>,
    first_id: u32,
    stride: u32,
    /// Where the next vacant slot is looked for.
    vacancy_turn: usize,
    /// The beats of links with a rhythm of their own.
    schedule: Schedule,
    is_sending: bool,
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
    /// While it sends to a rhythm of its own.
    beat: Option<Beat>,
}

impl Station {
    /// A station without links.
    #[must_use]
    pub fn new(settings: StationSettings, sockets: Sockets) -> Self {
        let now = clock::now();
        // Below bit 30, which marks groups, with room for every generation.
        let first_id = 0x0100_0000 + (payload::mix(settings.seed) as u32 & 0x0FFF_FFFF);
        Self {
            settings,
            sockets: Arc::new(sockets),
            egress: Egress::new(settings.impairment, settings.seed),
            links: Vec::new(),
            generations: Vec::new(),
            first_id,
            stride: u32::try_from(settings.slots_max).unwrap_or(ID_SPACE).clamp(1, ID_SPACE),
            vacancy_turn: 0,
            schedule: Schedule::default(),
            is_sending: false,
            senders: Vec::new(),
            pacer: None,
            next_sender: 0,
            upkeep: Pacer::new(now, UPKEEP_RATE).filter(|_| settings.is_alive),
            upkeep_turn: 0,
            filler: payload::filler(settings.seed, settings.media.largest_payload()),
            ledger: Ledger::new(now),
            acknowledged_before: 0,
        }
    }

    /// The socket ID of the link in a slot, open or to come.
    #[must_use]
    pub fn id_of(&self, slot: usize) -> SocketId {
        let generation = self.generations.get(slot).copied().unwrap_or(0);
        let lap = generation % (ID_SPACE / self.stride);
        SocketId(self.first_id + lap * self.stride + slot as u32 % self.stride)
    }

    /// The slot that belongs to a socket ID, open or not. `None` for one that is not, or no longer,
    /// this station's.
    #[must_use]
    pub fn slot_of(&self, id: SocketId) -> Option<usize> {
        let slot = (id.0.checked_sub(self.first_id)? % self.stride) as usize;
        (self.id_of(slot) == id).then_some(slot)
    }

    /// Gives a slot's next link another ID than the ones before.
    pub fn renew(&mut self, slot: usize) {
        if self.generations.len() <= slot {
            self.generations.resize(slot + 1, 0);
        }
        if let Some(generation) = self.generations.get_mut(slot) {
            *generation = generation.wrapping_add(1);
        }
    }

    /// A slot without a link, with an ID that no link has had lately. Slots are used again once half
    /// of them are vacant: a search then ends after a few steps, and memory follows the number of
    /// open links.
    pub fn vacancy(&mut self) -> usize {
        let open = usize::try_from(self.ledger.interval.counts.open).unwrap_or(usize::MAX);
        if self.links.len() <= open.saturating_mul(2).max(SLOTS_MIN) {
            return self.links.len();
        }
        while self.is_open(self.vacancy_turn) {
            self.vacancy_turn = (self.vacancy_turn + 1) % self.links.len();
        }
        let slot = self.vacancy_turn;
        self.vacancy_turn = (slot + 1) % self.links.len();
        self.renew(slot);
        slot
    }

    /// Opens a link in `slot`.
    pub fn open(&mut self, slot: usize, link: Link, route: Route, is_sender: bool) {
        if self.links.len() <= slot {
            self.links.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.links.get_mut(slot) {
            *place = Some(Connected { link, route, is_sender, beat: None });
            self.ledger.interval.counts.open += 1;
            self.ledger.interval.counts.connected += 1;
        }
        if is_sender {
            self.senders.push(slot);
            self.retune();
            if self.is_sending {
                self.start_beat(slot, clock::now());
            }
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
            self.retune();
        }
        if goodbye {
            self.egress.settle(&self.sockets, connected.route);
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

    /// Queues a datagram that is no media.
    pub fn send(&mut self, route: Route, bytes: &[u8]) {
        self.egress.send(&self.sockets, route, bytes);
        self.ledger.interval.counts.datagrams_out += 1;
    }

    /// Queues the next `count` media packets of `slot`, one by one or as one train.
    pub fn send_media(&mut self, slot: usize, count: u16, train: bool, intended_ns: u64) {
        let size = u16::try_from(self.settings.media.size).unwrap_or(u16::MAX);
        self.send_frame(slot, Frame { intended_ns, packets: count, size, last_size: size }, train);
    }

    fn send_frame(&mut self, slot: usize, frame: Frame, is_train: bool) {
        let Self { egress, links, filler, sockets, ledger, .. } = self;
        let Some(Some(Connected { link, route, .. })) = links.get_mut(slot) else {
            return;
        };
        let Frame { intended_ns, packets, .. } = frame;
        let size = srt::HEADER_LEN + usize::from(frame.size);
        let last_size = srt::HEADER_LEN + usize::from(frame.last_size);
        let run = Run { packets, size, last_size, is_train };
        egress.send_run(sockets, *route, run, |packet, _| {
            if let Some(payload) = packet.get_mut(srt::HEADER_LEN..)
                && let Some(filler) = filler.get(..payload.len())
            {
                payload.copy_from_slice(filler);
            }
            let now = clock::now();
            link.write_data(packet, intended_ns, now);
            ledger.interval.lateness.saturating_record(now.saturating_sub(intended_ns).max(1));
        });
        ledger.interval.counts.sent += u64::from(packets);
        ledger.interval.counts.datagrams_out += u64::from(packets);
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
        self.egress.finish(&self.sockets);
        self.publish();
    }

    pub(crate) fn board(&self) -> Arc<Board> {
        self.ledger.board()
    }

    /// Hands everything queued to the kernel.
    pub fn flush(&mut self) {
        self.egress.flush(&self.sockets);
    }

    /// Does what is due: media, acknowledgements, keepalives, publishing. Returns when it wants to
    /// be called next.
    pub fn turn(&mut self, now_ns: u64, send_media: bool) -> u64 {
        if send_media != self.is_sending {
            self.is_sending = send_media;
            self.switch_media(now_ns);
        }
        let media_at = if send_media { self.pace(now_ns) } else { u64::MAX };
        let upkeep_at = self.keep_up(now_ns);
        self.flush();
        if self.ledger.is_due(now_ns) {
            self.publish();
        }
        media_at.min(upkeep_at).min(self.egress.next_at()).min(self.ledger.due_at())
    }

    /// Starts what sends, from now on, or forgets when it was to send.
    fn switch_media(&mut self, now_ns: u64) {
        self.pacer = None;
        self.schedule.clear();
        if self.is_sending {
            self.pacer = Pacer::new(now_ns, self.bursts_per_second());
            for slot in self.senders.clone() {
                self.start_beat(slot, now_ns);
            }
        }
    }

    fn start_beat(&mut self, slot: usize, now_ns: u64) {
        let rhythm = self.settings.media.rhythm(slot);
        let seed = self.settings.seed ^ payload::mix(slot as u64);
        if let Some(Some(connected)) = self.links.get_mut(slot) {
            connected.beat = rhythm.and_then(|rhythm| Beat::start(rhythm, now_ns, seed));
            if let Some(beat) = &connected.beat {
                self.schedule.plan(beat, slot, 0);
            }
        }
    }

    /// Bursts of all links that share one even pace.
    fn bursts_per_second(&self) -> f64 {
        let Media { rate, burst, shape, .. } = self.settings.media;
        let senders = if shape == Shape::Constant { self.senders.len() } else { 0 };
        rate * senders as f64 / f64::from(burst.max(1))
    }

    /// Paces the media of as many senders as there are now. What is overdue stays so.
    fn retune(&mut self) {
        if self.is_sending {
            let (now_ns, rate) = (clock::now(), self.bursts_per_second());
            self.pacer = match &self.pacer {
                Some(pacer) => pacer.at_rate(now_ns, rate),
                None => Pacer::new(now_ns, rate),
            };
        }
    }

    fn pace(&mut self, now_ns: u64) -> u64 {
        let Media { burst, train, .. } = self.settings.media;
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
        for _ in 0..BATCH_MAX {
            let Some((at, slot, index)) = self.schedule.pop_due(now_ns) else {
                break;
            };
            let Some(Some(Connected { beat: Some(beat), .. })) = self.links.get_mut(slot) else {
                continue;
            };
            if beat.next_at() == at
                && let Some(frame) = beat.take(now_ns)
            {
                self.schedule.plan(beat, slot, index);
                self.send_frame(slot, frame, train);
            }
        }
        let even_at = self.pacer.map_or(u64::MAX, |pacer| pacer.next_at());
        even_at.min(self.schedule.next_at())
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
        let connected = slot.and_then(|slot| Some((slot, links.get_mut(slot)?.as_mut()?)));
        let (slot, connected) = match connected {
            Some((slot, connected)) if connected.route.to == datagram.source => (slot, connected),
            Some(_) | None => {
                interval.counts.strays += 1;
                return;
            }
        };
        match connected.link.hear(datagram.bytes, arrived_ns, &mut interval.counts.media) {
            Heard::Data(Some(stamp)) => {
                interval.record_arrival(&stamp, arrived_ns);
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
        let counts = &mut self.ledger.interval.counts;
        counts.acknowledged = self.acknowledged_before + open;
        counts.send_errors = self.egress.refused();
        counts.impaired = self.egress.impaired();
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

const UPKEEP_RATE: f64 = 1_000.0;
/// IDs from the first one to bit 30, at the least.
const ID_SPACE: u32 = 0x2F00_0000;
/// So many slots are used before any is used again.
const SLOTS_MIN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{self, SocketOptions};
    use crate::clock::MILLISECOND;
    use crate::link::Ends;
    use crate::sockets::loopback_source;
    use std::net::{Ipv4Addr, SocketAddr};

    /// A station with one sending link towards itself.
    fn station(shape: Shape) -> Station {
        let socket = batch::bind((Ipv4Addr::LOCALHOST, 0).into(), SocketOptions::default());
        let socket = socket.unwrap();
        let to: SocketAddr = socket.local_addr().unwrap();
        let settings = StationSettings {
            media: Media { rate: 200.0, shape, ..Media::default() },
            is_alive: false,
            idle_timeout_ns: u64::MAX,
            slots_max: 1,
            impairment: Impairment::default(),
            seed: 1,
        };
        let mut station = Station::new(settings, Sockets::new(vec![socket]).unwrap());
        let (id, now) = (station.id_of(0), clock::now());
        let link = Link::new(Ends { local: id, remote: id }, 0, 1, now, now);
        let route = Route { socket: 0, to, from: Some(loopback_source(0)) };
        station.open(0, link, route, true);
        station
    }

    #[test]
    fn media_that_start_again_after_a_pause_owe_nothing_of_the_pause() {
        for shape in [Shape::Constant, Shape::SrtLive, Shape::Mixed] {
            let mut station = station(shape);
            let start = clock::now();
            station.turn(start, true);
            station.turn(start + 10 * MILLISECOND, false);
            let before = station.counts().sent;
            let restart = start + 3_600_000 * MILLISECOND;
            station.turn(restart, false);
            station.turn(restart, true);
            station.turn(restart + 10 * MILLISECOND, true);
            // Two are due in 10 ms at 200 packets/s; a live feed's keyframe may bring eight.
            let sent = station.counts().sent - before;
            assert!(sent <= 8, "{shape:?}: {sent} at once");
        }
    }
}
