//! What a relay sees of an SRT session without keys: round trips, losses, retransmissions.
//!
//! ACK and ACKACK travel in clear, so the time between forwarding the one and seeing the other is the round trip of
//! one leg (draft-sharabayko-srt, section 4.10). Costs a few nanoseconds per datagram and nothing else.

use std::time::{Duration, Instant};

use crate::protocol::srt::control::{self, Ack};
use crate::protocol::srt::{self, ControlType, Kind};

/// Observations of one session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sight {
    /// The media receiver's smoothed RTT over both legs, in microseconds.
    pub rtt_us: Option<u32>,
    /// Relay to client and back, in microseconds.
    pub rtt_client_us: Option<u32>,
    /// Relay to origin and back, in microseconds.
    pub rtt_origin_us: Option<u32>,
    /// Data packets with the R flag, both directions.
    pub retransmits: u64,
    ack_to_client: Option<(u32, Instant)>,
    ack_to_origin: Option<(u32, Instant)>,
    from_client: Gaps,
}

impl Sight {
    /// Looks at a datagram of the client that goes on to the origin.
    pub fn client_sent(&mut self, kind: Kind, datagram: &[u8], now: Instant) {
        match kind {
            Kind::Data => {
                let again = srt::header::is_retransmission(datagram);
                self.retransmits += u64::from(again);
                // A packet of the filter repeats the sequence number of a packet that it protects.
                if let Some(sequence) = srt::header::sequence(datagram)
                    && !srt::header::is_of_filter(datagram)
                {
                    self.from_client.see(sequence, again);
                }
            }
            Kind::Control(kind) => self.control(kind, datagram, now, Leg::Client),
        }
    }

    /// Looks at a datagram of the origin that goes on to the client.
    pub fn origin_sent(&mut self, kind: Kind, datagram: &[u8], now: Instant) {
        match kind {
            Kind::Data => self.retransmits += u64::from(srt::header::is_retransmission(datagram)),
            Kind::Control(kind) => self.control(kind, datagram, now, Leg::Origin),
        }
    }

    /// Data packets that the client sent and that did not arrive at the first try, as a share of those it sent.
    pub fn loss_client_to_relay(&self) -> Option<f64> {
        self.from_client.share()
    }

    fn control(&mut self, kind: ControlType, datagram: &[u8], now: Instant, sender: Leg) {
        // An ACK from one side is answered by an ACKACK from the other.
        let (acked, answered, rtt) = match sender {
            Leg::Client => {
                (&mut self.ack_to_origin, &mut self.ack_to_client, &mut self.rtt_client_us)
            }
            Leg::Origin => {
                (&mut self.ack_to_client, &mut self.ack_to_origin, &mut self.rtt_origin_us)
            }
        };
        if kind == ControlType::Ack {
            // Light ACKs carry no RTT; they and small ones have no number and are not answered.
            if let Some(Ack { number, rtt_us: Some(total) }) = Ack::parse(datagram) {
                self.rtt_us = Some(total);
                if number == 0 {
                    return;
                }
                if acked.is_none_or(|(_, since)| now.duration_since(since) > ACK_PATIENCE) {
                    *acked = Some((number, now));
                }
            }
        } else if kind == ControlType::AckAck
            && let Some((number, since)) = *answered
            && control::ackack_number(datagram) == Some(number)
        {
            *answered = None;
            *rtt = u32::try_from(now.duration_since(since).as_micros()).ok();
        }
    }
}

#[derive(Clone, Copy)]
enum Leg {
    Client,
    Origin,
}

/// An ACK whose ACKACK does not come within this time gives way to a newer one.
const ACK_PATIENCE: Duration = Duration::from_secs(2);

/// Gaps in the sequence numbers of one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Gaps {
    /// The number after the highest seen; 31 bits.
    next: Option<u32>,
    expected: u64,
    missing: u64,
}

impl Gaps {
    fn see(&mut self, sequence: u32, again: bool) {
        let Some(next) = self.next else {
            self.next = Some((sequence + 1) & SEQUENCE_MASK);
            self.expected = 1;
            return;
        };
        let ahead = sequence.wrapping_sub(next) & SEQUENCE_MASK;
        if ahead < SEQUENCE_WINDOW {
            self.expected += u64::from(ahead) + 1;
            self.missing += u64::from(ahead);
            self.next = Some((sequence + 1) & SEQUENCE_MASK);
        } else if !again {
            // Late, and not sent again: it was overtaken on the way, not lost.
            self.missing = self.missing.saturating_sub(1);
        }
    }

    fn share(&self) -> Option<f64> {
        (self.expected > 0).then(|| self.missing as f64 / self.expected as f64)
    }
}

const SEQUENCE_MASK: u32 = 0x7FFF_FFFF;
/// A jump ahead by more than this is a packet from the past: libsrt's largest flow window is far below.
const SEQUENCE_WINDOW: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(sequences: &[(u32, bool)]) -> Gaps {
        let mut gaps = Gaps::default();
        for &(sequence, again) in sequences {
            gaps.see(sequence, again);
        }
        gaps
    }

    #[test]
    fn a_gap_counts_as_lost_even_if_a_retransmission_fills_it() {
        let gaps = seen(&[(1, false), (2, false), (4, false), (3, true)]);
        assert_eq!((gaps.expected, gaps.missing), (4, 1));
    }

    #[test]
    fn an_overtaken_packet_is_not_lost() {
        let gaps = seen(&[(1, false), (3, false), (2, false)]);
        assert_eq!((gaps.expected, gaps.missing), (3, 0));
    }

    #[test]
    fn packets_of_the_filter_neither_fill_gaps_nor_make_any() {
        let (mut sight, t0) = (Sight::default(), Instant::now());
        let mut send = |sequence: u8, message: u8| {
            let mut packet = [0_u8; 20];
            packet[3] = sequence;
            packet[7] = message;
            sight.client_sent(Kind::Data, &packet, t0);
        };
        send(1, 1);
        send(2, 2);
        send(4, 4);
        send(4, 0);
        assert_eq!(sight.loss_client_to_relay(), Some(0.25));
    }

    #[test]
    fn an_ack_that_nobody_answers_does_not_stand_in_the_way_of_one_that_is_answered() {
        let mut ack = [0_u8; 44];
        ack[..2].copy_from_slice(&[0x80, 0x02]);
        let (mut sight, t0) = (Sight::default(), Instant::now());
        sight.origin_sent(Kind::Control(ControlType::Ack), &ack[..32], t0);
        ack[7] = 9;
        sight.origin_sent(Kind::Control(ControlType::Ack), &ack, t0);
        let mut ackack = [0_u8; 16];
        ackack[..2].copy_from_slice(&[0x80, 0x06]);
        ackack[7] = 9;
        let later = t0 + Duration::from_millis(30);
        sight.client_sent(Kind::Control(ControlType::AckAck), &ackack, later);
        assert_eq!(sight.rtt_client_us, Some(30_000));
    }

    #[test]
    fn the_sequence_number_wraps_at_31_bits() {
        let gaps = seen(&[(SEQUENCE_MASK, false), (0, false), (2, false)]);
        assert_eq!((gaps.expected, gaps.missing), (4, 1));
    }

    #[test]
    fn the_round_trip_of_the_client_leg_is_the_time_from_ack_to_ackack() {
        let mut ack = [0_u8; 44];
        ack[..2].copy_from_slice(&[0x80, 0x02]);
        ack[7] = 9;
        ack[20..24].copy_from_slice(&40_000_u32.to_be_bytes());
        let mut ackack = [0_u8; 16];
        ackack[..2].copy_from_slice(&[0x80, 0x06]);
        ackack[7] = 9;
        let (mut sight, t0) = (Sight::default(), Instant::now());
        sight.origin_sent(Kind::Control(ControlType::Ack), &ack, t0);
        let later = t0 + Duration::from_millis(30);
        sight.client_sent(Kind::Control(ControlType::AckAck), &ackack, later);
        assert_eq!((sight.rtt_us, sight.rtt_client_us), (Some(40_000), Some(30_000)));
    }
}
