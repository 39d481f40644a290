//! Many WebRTC sessions over few sockets: what clients and the origin emulator have in common.
//!
//! A station sends paced media, judges what it receives and keeps count. It knows neither checks nor
//! signalling: its owner opens peers and closes them. One thread owns a station; others read what it
//! publishes.

use std::sync::Arc;

use ringway::protocol::rtp::RtpHeader;

use crate::batch::Route;
use crate::board::{Board, Counts, Ledger};
use crate::clock;
use crate::egress::{Egress, Run};
use crate::impair::Impairment;
use crate::payload::{self, Order, Stamp};
use crate::shape::{Beat, Frame, Rhythm, Schedule, Shape};
use crate::sockets::Sockets;
use crate::webrtc::rtp::{self, Track};

/// The media that a station sends to each peer that is to have some.
#[derive(Clone, Debug, PartialEq)]
pub struct Media {
    /// One track each.
    pub rhythms: Vec<Rhythm>,
    /// A frame of several packets leaves as one segmented send.
    pub train: bool,
}

impl Media {
    /// Audio and video.
    #[must_use]
    pub fn mixed() -> Self {
        Self { rhythms: vec![Rhythm::Audio, Rhythm::BROWSER_VIDEO], train: false }
    }

    /// What a shape means to a session. `rate` is of the constant and the live shape, and of video
    /// where it is given; `burst` of the constant one.
    #[must_use]
    pub fn shaped(shape: Shape, rate: Option<f64>, burst: u16, size: u16, train: bool) -> Self {
        let plain_rate = rate.unwrap_or(RATE_DEFAULT);
        let video = match rate {
            Some(rate) => Rhythm::Video { rate, frames: 30, size },
            None => Rhythm::BROWSER_VIDEO,
        };
        let rhythms = match shape {
            Shape::Audio => vec![Rhythm::Audio],
            Shape::Video => vec![video],
            Shape::Mixed => vec![Rhythm::Audio, video],
            Shape::SrtLive => vec![Rhythm::SrtLive { rate: plain_rate, size }],
            Shape::Constant => vec![Rhythm::Constant { rate: plain_rate, burst, size }],
        };
        Self { rhythms, train }
    }

    /// Packets per second and peer, averaged over the keyframes.
    #[must_use]
    pub fn packets_per_second(&self) -> f64 {
        self.rhythms.iter().map(|rhythm| rhythm.packets_per_second()).sum()
    }

    fn largest_packet(&self) -> usize {
        self.rhythms.iter().map(|rhythm| usize::from(rhythm.packet_size())).max().unwrap_or(0)
    }
}

/// The command line's way to say it.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct MediaArguments {
    /// What each session sends: audio is 50 packets/s of 100 bytes, video 30 frames/s with a
    /// keyframe every 2 s (550 kbit/s), mixed is both, constant what --rate, --burst and --size say
    #[arg(long, value_enum, default_value = "mixed", hide_possible_values = true)]
    shape: Shape,
    /// Packets per second and session of the constant shape
    #[arg(long, default_value_t = RATE_DEFAULT)]
    rate: f64,
    /// Packets of one session that leave together in the constant shape
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    burst: u16,
    /// Bytes of a packet with its RTP header in the constant shape
    #[arg(
        long,
        default_value_t = SIZE_DEFAULT,
        value_parser = clap::value_parser!(u16).range(i64::from(rtp::PACKET_MIN)..=1_472)
    )]
    size: u16,
    /// Send the packets of a frame as one segmented datagram train (UDP_SEGMENT)
    #[arg(long)]
    train: bool,
}

impl MediaArguments {
    /// The media that it asks for.
    #[must_use]
    pub fn media(&self) -> Media {
        let &Self { shape, rate, burst, size, train } = self;
        let is_plain = matches!(shape, Shape::Constant | Shape::SrtLive);
        Media::shaped(shape, Some(rate).filter(|_| is_plain), burst, size, train)
    }
}

/// Peers, their sockets, and the counting.
pub struct Station {
    media: Media,
    seed: u64,
    sockets: Arc<Sockets>,
    egress: Egress,
    /// By slot.
    peers: Vec<Option<Peer>>,
    schedule: Schedule,
    is_sending: bool,
    filler: Vec<u8>,
    ledger: Ledger,
}

/// One session whose path has been proven.
struct Peer {
    route: Route,
    /// The stream's identity, in both directions.
    stream: u64,
    /// None of them for a peer that only sends.
    tracks: Vec<(Track, Option<Beat>)>,
    /// Packets sent over all tracks: the stamp's sequence.
    sent: u64,
    order: Order,
    /// SSRC and sequence of the last packet received, for reports.
    last_heard: (u32, u16),
}

impl Station {
    /// A station without peers.
    #[must_use]
    pub fn new(media: Media, sockets: Sockets, impairment: Impairment, seed: u64) -> Self {
        Self {
            filler: payload::filler(seed, media.largest_packet()),
            media,
            seed,
            sockets: Arc::new(sockets),
            egress: Egress::new(impairment, seed),
            peers: Vec::new(),
            schedule: Schedule::default(),
            is_sending: false,
            ledger: Ledger::new(clock::now()),
        }
    }

    /// Opens a peer in `slot`; `is_sent_media` if it is to have the station's media.
    pub fn open(&mut self, slot: usize, route: Route, stream: u64, is_sent_media: bool) {
        if self.peers.len() <= slot {
            self.peers.resize_with(slot + 1, || None);
        }
        let tracks = self.media.rhythms.iter().filter(|_| is_sent_media);
        let peer = Peer {
            route,
            stream,
            tracks: tracks.map(|rhythm| (Track::new(*rhythm, stream), None)).collect(),
            sent: 0,
            order: Order::default(),
            last_heard: (0, 0),
        };
        if let Some(place) = self.peers.get_mut(slot) {
            *place = Some(peer);
            self.ledger.interval.counts.open += 1;
            self.ledger.interval.counts.connected += 1;
        }
        if self.is_sending {
            self.start_beats(slot, clock::now());
        }
    }

    /// Sends to a peer by another way from now on.
    pub fn move_to(&mut self, slot: usize, route: Route) {
        if let Some(Some(peer)) = self.peers.get_mut(slot) {
            peer.route = route;
        }
    }

    /// Closes a peer. Whether it was open.
    pub fn close(&mut self, slot: usize) -> bool {
        let was_open = self.peers.get_mut(slot).and_then(Option::take).is_some();
        self.ledger.interval.counts.open -= u64::from(was_open);
        was_open
    }

    /// Whether the slot holds an open peer.
    #[must_use]
    pub fn is_open(&self, slot: usize) -> bool {
        self.peers.get(slot).is_some_and(Option::is_some)
    }

    /// Totals so far.
    pub fn counts(&mut self) -> &mut Counts {
        &mut self.ledger.interval.counts
    }

    /// Notes how long a session took from its offer to its first proof.
    pub fn record_setup(&mut self, took_ns: u64) {
        self.ledger.interval.setup.saturating_record(took_ns.max(1));
    }

    /// Queues a datagram that is no media.
    pub fn send(&mut self, route: Route, bytes: &[u8]) {
        self.egress.send(&self.sockets, route, bytes);
        self.ledger.interval.counts.datagrams_out += 1;
    }

    /// Queues a receiver report to a peer.
    pub fn send_report(&mut self, slot: usize) {
        let Some(Some(peer)) = self.peers.get(slot) else {
            return;
        };
        let (route, (source, sequence)) = (peer.route, peer.last_heard);
        let reporter = payload::mix(peer.stream ^ slot as u64) as u32;
        let report = rtp::receiver_report(reporter, source, u32::from(sequence));
        self.ledger.interval.counts.reports += 1;
        self.send(route, &report);
    }

    /// Judges an RTP packet that has come for `slot`.
    pub fn hear_media(&mut self, slot: usize, packet: &[u8], arrived_ns: u64) {
        let interval = &mut self.ledger.interval;
        let Some(Some(peer)) = self.peers.get_mut(slot) else {
            interval.counts.strays += 1;
            return;
        };
        if let Ok(header) = RtpHeader::parse(packet) {
            peer.last_heard = (header.ssrc, header.sequence);
        }
        let tally = &mut interval.counts.media;
        if let Some(stamp) = rtp::judge(tally, &mut peer.order, peer.stream, packet) {
            interval.record_arrival(&stamp, arrived_ns);
        }
    }

    /// Does what is due: media, publishing. Returns when it wants to be called next.
    pub fn turn(&mut self, now_ns: u64, send_media: bool) -> u64 {
        if send_media != self.is_sending {
            self.is_sending = send_media;
            self.schedule.clear();
            for slot in (0..self.peers.len()).filter(|_| send_media) {
                self.start_beats(slot, now_ns);
            }
        }
        self.pace(now_ns);
        self.flush();
        if self.ledger.is_due(now_ns) {
            self.publish();
        }
        self.schedule.next_at().min(self.egress.next_at()).min(self.ledger.due_at())
    }

    fn start_beats(&mut self, slot: usize, now_ns: u64) {
        let Some(Some(peer)) = self.peers.get_mut(slot) else {
            return;
        };
        for (index, (track, beat)) in peer.tracks.iter_mut().enumerate() {
            let seed = self.seed ^ payload::mix(peer.stream ^ index as u64);
            *beat = Beat::start(track.rhythm(), now_ns, seed);
            if let Some(beat) = beat {
                self.schedule.plan(beat, slot, index);
            }
        }
    }

    fn pace(&mut self, now_ns: u64) {
        // Bounded, so that a station that has fallen behind still receives.
        let mut left = PACKETS_PER_TURN;
        while left > 0
            && let Some((at, slot, index)) = self.schedule.pop_due(now_ns)
        {
            let Some(Some(peer)) = self.peers.get_mut(slot) else {
                continue;
            };
            let beat = peer.tracks.get_mut(index).and_then(|(_, beat)| beat.as_mut());
            let Some(beat) = beat.filter(|beat| beat.next_at() == at) else {
                continue;
            };
            if let Some(frame) = beat.take(now_ns) {
                self.schedule.plan(beat, slot, index);
                self.send_frame(slot, index, frame);
                // A beat without a packet takes its time as well.
                left = left.saturating_sub(u32::from(frame.packets.max(1)));
            }
        }
    }

    /// Queues the packets of a frame, one by one or as trains.
    fn send_frame(&mut self, slot: usize, index: usize, frame: Frame) {
        let Self { egress, peers, filler, sockets, ledger, .. } = self;
        let Some(Some(Peer { route, stream, tracks, sent, .. })) = peers.get_mut(slot) else {
            return;
        };
        let Some((track, _)) = tracks.get_mut(index) else {
            return;
        };
        let Frame { intended_ns, packets, .. } = frame;
        let run = Run {
            packets,
            size: usize::from(frame.size),
            last_size: usize::from(frame.last_size),
            is_train: self.media.train,
        };
        egress.send_run(sockets, *route, run, |packet, is_last| {
            if let Some(filler) = filler.get(..packet.len()) {
                packet.copy_from_slice(filler);
            }
            let payload = track.write(packet, intended_ns, is_last);
            let sent_ns = clock::now();
            Stamp { stream: *stream, sequence: *sent, intended_ns, sent_ns }.write(payload);
            *sent += 1;
            ledger.interval.lateness.saturating_record(sent_ns.saturating_sub(intended_ns).max(1));
        });
        ledger.interval.counts.sent += u64::from(packets);
        ledger.interval.counts.datagrams_out += u64::from(packets);
    }

    /// Hands everything queued to the kernel.
    pub fn flush(&mut self) {
        self.egress.flush(&self.sockets);
    }

    /// Hands everything to the kernel that the impairment still holds, and shows the final totals.
    pub(crate) fn finish(&mut self) {
        self.egress.finish(&self.sockets);
        self.publish();
    }

    /// Shows the totals to whoever reads the board.
    pub(crate) fn publish(&mut self) {
        let counts = &mut self.ledger.interval.counts;
        counts.send_errors = self.egress.refused();
        counts.impaired = self.egress.impaired();
        self.ledger.publish();
    }

    pub(crate) fn board(&self) -> Arc<Board> {
        self.ledger.board()
    }

    pub(crate) fn sockets(&self) -> Arc<Sockets> {
        Arc::clone(&self.sockets)
    }
}

const PACKETS_PER_TURN: u32 = 128;
/// Packets per second of the shapes that have no rate of their own.
pub(crate) const RATE_DEFAULT: f64 = 100.0;
/// Bytes of a full packet.
pub(crate) const SIZE_DEFAULT: u16 = 1_200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{self, ReceiveBatch, SocketOptions};
    use crate::clock::SECOND;
    use std::net::{Ipv4Addr, SocketAddr};

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    const STREAM: u64 = 5;

    fn station(media: Media) -> Station {
        let socket = batch::bind(ANY, SocketOptions::default()).unwrap();
        let sockets = Sockets::new(vec![socket]).unwrap();
        Station::new(media, sockets, Impairment::default(), 1)
    }

    fn opened(media: Media, to: SocketAddr) -> Station {
        let mut station = station(media);
        station.open(0, Route { socket: 0, to, from: None }, STREAM, true);
        station
    }

    /// Turns until the clock of the test, not the machine's, has come to `until`.
    fn run(station: &mut Station, from: u64, until: u64) {
        let mut now = from;
        while now < until {
            now = station.turn(now, true).max(now);
        }
    }

    #[test]
    fn media_of_one_station_passes_as_complete_at_another() {
        for train in [false, true] {
            let mut receiver = station(Media::mixed());
            let to = receiver.sockets.address().unwrap();
            receiver.open(0, Route { socket: 0, to: ANY, from: None }, STREAM, false);
            let mut sender = opened(Media { train, ..Media::mixed() }, to);
            let start = clock::now();
            run(&mut sender, start, start + SECOND / 2);
            let sent = sender.counts().sent;
            assert!(sent > 40, "{sent}");
            let (sockets, mut inbox) = (receiver.sockets(), ReceiveBatch::new(false));
            let deadline = clock::now() + SECOND;
            while receiver.counts().media.received < sent && sockets.wait(deadline).unwrap() {
                sockets
                    .drain(&mut inbox, |_, datagram, at| receiver.hear_media(0, datagram.bytes, at))
                    .unwrap();
            }
            let tally = receiver.counts().media;
            assert_eq!(tally, payload::Tally { received: sent, ..payload::Tally::default() });
        }
    }

    #[test]
    fn a_peer_gets_the_rate_of_its_rhythms() {
        let sink = batch::bind(ANY, SocketOptions::default()).unwrap();
        let mut station = opened(Media::mixed(), sink.local_addr().unwrap());
        run(&mut station, 0, 10 * SECOND);
        let expected = Media::mixed().packets_per_second() * 10.0;
        let sent = station.counts().sent as f64;
        assert!((sent - expected).abs() < 30.0, "{sent} instead of {expected}");
    }

    #[test]
    fn stopping_stops_and_starting_goes_on() {
        let sink = batch::bind(ANY, SocketOptions::default()).unwrap();
        let mut station = opened(Media::mixed(), sink.local_addr().unwrap());
        run(&mut station, 0, SECOND);
        let before = station.counts().sent;
        station.turn(SECOND, false);
        station.turn(9 * SECOND, false);
        assert_eq!(station.counts().sent, before);
        run(&mut station, 10 * SECOND, 11 * SECOND);
        assert!(station.counts().sent < before * 2 + 60);
        assert!(station.counts().sent > before + 60);
    }

    #[test]
    fn a_closed_slot_is_sent_nothing_when_another_peer_takes_it() {
        let sink = batch::bind(ANY, SocketOptions::default()).unwrap();
        let to = sink.local_addr().unwrap();
        let mut station = opened(Media::mixed(), to);
        run(&mut station, 0, SECOND);
        assert!(station.close(0) && !station.close(0));
        station.open(0, Route { socket: 0, to, from: None }, STREAM, false);
        let before = station.counts().sent;
        run(&mut station, SECOND, 2 * SECOND);
        assert_eq!(station.counts().sent, before);
    }
}
