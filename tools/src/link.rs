//! One end of an established SRT connection, without I/O: what to send, what to answer, what has
//! come.
//!
//! It behaves like a live endpoint as far as a relay can see: numbered data packets, a full ACK
//! every 10 ms while data flows, an ACKACK for each full ACK, keepalives when it has nothing else
//! to say. It repairs no loss: what the relay loses stays visible.

use ringway::protocol::srt::{ControlType, Header, Kind, SocketId};

use crate::clock::{SECOND, srt_timestamp};
use crate::payload::{Order, Stamp, Tally};
use crate::srt;

/// One end.
#[derive(Clone, Debug)]
pub struct Link {
    ends: Ends,
    /// The stream's identity, in both directions.
    stream: u64,
    started_ns: u64,
    sending: Sending,
    receiving: Receiving,
    last_sent_ns: u64,
    last_heard_ns: u64,
}

/// The socket IDs of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// What the peer writes as destination.
    pub local: SocketId,
    /// What this end writes as destination.
    pub remote: SocketId,
}

#[derive(Clone, Debug)]
struct Sending {
    /// The wire sequence of the stream's packet 0.
    initial_sequence: u32,
    packets: u64,
    /// What the peer has acknowledged, as the sequence after it.
    acknowledged: u32,
}

#[derive(Clone, Debug)]
struct Receiving {
    order: Order,
    /// The sequence after the highest received.
    next_sequence: u32,
    /// Data packets since the last full ACK.
    unacknowledged: u32,
    /// Number and time of the last full ACK.
    ack: (u32, u64),
    rtt_us: u32,
    rtt_variance_us: u32,
}

/// What a packet was, and what it calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A data packet; its stamp when it counts for latency.
    Data(Option<Stamp>),
    /// Nothing that needs an answer.
    Control,
    /// An ACK that wants this answer.
    Answer([u8; 20]),
    /// The peer is gone.
    Shutdown,
}

impl Link {
    /// A connection that has just been concluded. `started_ns` is the zero of its timestamps: the
    /// caller's is when it began to call, the listener's when it accepted.
    #[must_use]
    pub fn new(
        ends: Ends,
        initial_sequence: u32,
        stream: u64,
        started_ns: u64,
        now_ns: u64,
    ) -> Self {
        Self {
            ends,
            stream,
            started_ns,
            sending: Sending { initial_sequence, packets: 0, acknowledged: initial_sequence },
            receiving: Receiving {
                order: Order::default(),
                next_sequence: initial_sequence,
                unacknowledged: 0,
                ack: (0, 0),
                // What libsrt assumes before the first measurement.
                rtt_us: 100_000,
                rtt_variance_us: 50_000,
            },
            last_sent_ns: now_ns,
            last_heard_ns: now_ns,
        }
    }

    /// Turns `packet`, whose payload part is filled already, into the next data packet.
    pub fn write_data(&mut self, packet: &mut [u8], intended_ns: u64, now_ns: u64) {
        let Some((header, payload)) = packet.split_first_chunk_mut::<{ srt::HEADER_LEN }>() else {
            return;
        };
        let number = self.sending.packets as u32;
        let sequence = self.sending.initial_sequence.wrapping_add(number);
        *header = srt::data_header(
            sequence,
            number.wrapping_add(1),
            self.timestamp(now_ns),
            self.ends.remote,
        );
        Stamp { stream: self.stream, sequence: self.sending.packets, intended_ns, sent_ns: now_ns }
            .write(payload);
        self.sending.packets += 1;
        self.last_sent_ns = now_ns;
    }

    /// Takes note of a packet for this end. Data is judged into `tally`.
    pub fn hear(&mut self, packet: &[u8], now_ns: u64, tally: &mut Tally) -> Heard {
        let Ok(header) = Header::parse(packet) else {
            return Heard::Control;
        };
        self.last_heard_ns = now_ns;
        match header.kind {
            Kind::Data => Heard::Data(self.hear_data(packet, tally)),
            Kind::Control(ControlType::Ack) => self.hear_ack(packet, now_ns),
            Kind::Control(ControlType::AckAck) => {
                self.hear_ackack(packet, now_ns);
                Heard::Control
            }
            Kind::Control(ControlType::Shutdown) => Heard::Shutdown,
            Kind::Control(_) => Heard::Control,
        }
    }

    fn hear_data(&mut self, packet: &[u8], tally: &mut Tally) -> Option<Stamp> {
        let receiving = &mut self.receiving;
        receiving.unacknowledged += 1;
        let next = srt::word(packet, 0)?.wrapping_add(1) & srt::SEQUENCE_MASK;
        if srt::is_after(next, receiving.next_sequence) {
            receiving.next_sequence = next;
        }
        tally.judge(&mut receiving.order, self.stream, packet.get(srt::HEADER_LEN..)?)
    }

    fn hear_ack(&mut self, packet: &[u8], now_ns: u64) -> Heard {
        if let Some(next) = srt::word(packet, 4)
            && srt::is_after(next, self.sending.acknowledged)
        {
            self.sending.acknowledged = next;
        }
        match srt::word(packet, 1) {
            // A light ACK has number 0 and wants no answer.
            None | Some(0) => Heard::Control,
            Some(number) => {
                self.last_sent_ns = now_ns;
                Heard::Answer(srt::ackack(number, self.timestamp(now_ns), self.ends.remote))
            }
        }
    }

    /// The round trip is smoothed with the usual gains of 1/8 and 1/4 (draft-sharabayko-srt,
    /// section 4.10).
    fn hear_ackack(&mut self, packet: &[u8], now_ns: u64) {
        let receiving = &mut self.receiving;
        let (number, sent_ns) = receiving.ack;
        if srt::word(packet, 1) != Some(number) {
            return;
        }
        let rtt_us = u32::try_from(now_ns.saturating_sub(sent_ns) / 1_000).unwrap_or(u32::MAX / 8);
        if number == 1 {
            (receiving.rtt_us, receiving.rtt_variance_us) = (rtt_us, rtt_us / 2);
            return;
        }
        let deviation = rtt_us.abs_diff(receiving.rtt_us);
        receiving.rtt_variance_us = smooth(receiving.rtt_variance_us, deviation, 4);
        receiving.rtt_us = smooth(receiving.rtt_us, rtt_us, 8);
    }

    /// The full ACK that is due, if data has come since the last one.
    pub fn ack(&mut self, now_ns: u64) -> Option<[u8; 44]> {
        let timestamp = self.timestamp(now_ns);
        let receiving = &mut self.receiving;
        if receiving.unacknowledged == 0 {
            return None;
        }
        let (number, before_ns) = receiving.ack;
        let number = number.wrapping_add(1).max(1);
        let elapsed = now_ns.saturating_sub(before_ns).max(1);
        let rate = u64::from(receiving.unacknowledged) * SECOND / elapsed;
        receiving.unacknowledged = 0;
        receiving.ack = (number, now_ns);
        self.last_sent_ns = now_ns;
        let ack = srt::FullAck {
            number,
            next_sequence: receiving.next_sequence,
            rtt_us: receiving.rtt_us,
            rtt_variance_us: receiving.rtt_variance_us,
            packets_per_second: u32::try_from(rate).unwrap_or(u32::MAX),
        };
        Some(ack.packet(timestamp, self.ends.remote))
    }

    /// A keepalive, if a second has passed without sending.
    pub fn keepalive_if_idle(&mut self, now_ns: u64) -> Option<[u8; 20]> {
        (now_ns.saturating_sub(self.last_sent_ns) >= SECOND).then(|| self.keepalive(now_ns))
    }

    /// A keepalive, whether it is due or not.
    pub fn keepalive(&mut self, now_ns: u64) -> [u8; 20] {
        self.last_sent_ns = now_ns;
        srt::keepalive(self.timestamp(now_ns), self.ends.remote)
    }

    /// The goodbye.
    #[must_use]
    pub fn shutdown(&self, now_ns: u64) -> [u8; 20] {
        ringway::protocol::srt::control::shutdown(self.ends.remote, self.timestamp(now_ns))
    }

    /// Since the peer was heard last.
    #[must_use]
    pub fn silence_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.last_heard_ns)
    }

    /// The other end's socket ID.
    #[must_use]
    pub fn remote(&self) -> SocketId {
        self.ends.remote
    }

    /// Data packets written so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sending.packets
    }

    /// Data packets that the peer says it has or has given up.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        u64::from(
            self.sending.acknowledged.wrapping_sub(self.sending.initial_sequence)
                & srt::SEQUENCE_MASK,
        )
    }

    /// The smoothed round trip, as the next full ACK reports it.
    #[must_use]
    pub fn rtt_us(&self) -> u32 {
        self.receiving.rtt_us
    }

    fn timestamp(&self, now_ns: u64) -> u32 {
        srt_timestamp(self.started_ns, now_ns)
    }
}

/// Moves `value` towards `sample` by one part in `parts`.
fn smooth(value: u32, sample: u32, parts: u32) -> u32 {
    let sum = u64::from(value) * u64::from(parts - 1) + u64::from(sample);
    u32::try_from(sum / u64::from(parts)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MILLISECOND;
    use crate::payload::filler;

    const T0: u64 = SECOND;

    fn pair() -> (Link, Link) {
        let sequence = srt::SEQUENCE_MASK - 1;
        let (one, two) = (SocketId(1), SocketId(2));
        let sender = Link::new(Ends { local: one, remote: two }, sequence, 7, T0, T0);
        let receiver = Link::new(Ends { local: two, remote: one }, sequence, 7, T0, T0);
        (sender, receiver)
    }

    fn data(link: &mut Link) -> Vec<u8> {
        let mut packet = filler(1, srt::HEADER_LEN + 1_316);
        link.write_data(&mut packet, T0, T0 + 5);
        packet
    }

    #[test]
    fn data_counts_up_across_the_wrap_of_the_sequence() {
        let (mut sender, mut receiver) = pair();
        let mut tally = Tally::default();
        for sequence in 0..4 {
            let packet = data(&mut sender);
            let stamp = Stamp { stream: 7, sequence, intended_ns: T0, sent_ns: T0 + 5 };
            assert_eq!(receiver.hear(&packet, T0, &mut tally), Heard::Data(Some(stamp)));
        }
        assert_eq!(tally, Tally { received: 4, ..Tally::default() });
    }

    #[test]
    fn a_full_ack_tells_the_sender_how_far_the_receiver_is() {
        let (mut sender, mut receiver) = pair();
        let mut tally = Tally::default();
        for _ in 0..3 {
            let packet = data(&mut sender);
            receiver.hear(&packet, T0, &mut tally);
        }
        let ack = receiver.ack(T0 + 10 * MILLISECOND).unwrap();
        let heard = sender.hear(&ack, T0, &mut tally);
        assert_eq!(heard, Heard::Answer(srt::ackack(1, 0, SocketId(2))));
        assert_eq!((sender.sent(), sender.acknowledged()), (3, 3));
    }

    #[test]
    fn no_ack_is_due_without_new_data() {
        let (mut sender, mut receiver) = pair();
        assert_eq!(receiver.ack(T0), None);
        receiver.hear(&data(&mut sender), T0, &mut Tally::default());
        assert!(receiver.ack(T0).is_some());
        assert_eq!(receiver.ack(T0), None);
    }

    #[test]
    fn the_first_ackack_sets_the_round_trip() {
        let (mut sender, mut receiver) = pair();
        receiver.hear(&data(&mut sender), T0, &mut Tally::default());
        receiver.ack(T0);
        receiver.hear(&srt::ackack(1, 0, SocketId(2)), T0 + 3 * MILLISECOND, &mut Tally::default());
        assert_eq!(receiver.rtt_us(), 3_000);
    }

    #[test]
    fn an_ackack_with_a_stale_number_says_nothing_about_the_round_trip() {
        let (_, mut receiver) = pair();
        receiver.hear(&srt::ackack(9, 0, SocketId(2)), T0, &mut Tally::default());
        assert_eq!(receiver.rtt_us(), 100_000);
    }

    #[test]
    fn a_keepalive_is_due_after_a_second_without_sending() {
        let (mut sender, _) = pair();
        assert_eq!(sender.keepalive_if_idle(T0 + SECOND - 1), None);
        assert!(sender.keepalive_if_idle(T0 + SECOND).is_some());
        assert_eq!(sender.keepalive_if_idle(T0 + SECOND + 1), None);
    }

    #[test]
    fn a_shutdown_ends_the_other_side() {
        let (sender, mut receiver) = pair();
        assert_eq!(receiver.hear(&sender.shutdown(T0), T0, &mut Tally::default()), Heard::Shutdown);
    }
}
