//! What leaves a station: batched, cut into trains, and impaired where that was asked for.

use std::time::Duration;

use crate::batch::{Route, SendBatch};
use crate::clock::{self, SECOND};
use crate::impair::{Content, Impaired, Impairer, Impairment};
use crate::sockets::Sockets;

/// Packets to one peer that leave together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// How many.
    pub(crate) packets: u16,
    /// Bytes of each datagram but the last.
    pub(crate) size: usize,
    /// Bytes of the last.
    pub(crate) last_size: usize,
    /// As segmented sends rather than one by one.
    pub(crate) is_train: bool,
}

/// The sending half of a station.
pub(crate) struct Egress {
    batch: SendBatch,
    /// Boxed and absent as a rule: what is not asked for costs a test for null.
    impairer: Option<Box<Impairer>>,
    /// Where packets are written that are to be impaired one by one.
    scratch: Vec<u8>,
}

impl Egress {
    pub(crate) fn new(impairment: Impairment, seed: u64) -> Self {
        let impairer = Impairer::new(impairment, seed).map(Box::new);
        Self { batch: SendBatch::default(), impairer, scratch: Vec::new() }
    }

    /// Queues a datagram that is no media.
    pub(crate) fn send(&mut self, sockets: &Sockets, route: Route, bytes: &[u8]) {
        let Self { batch, impairer, .. } = self;
        match impairer {
            None => push(batch, sockets, route, bytes),
            Some(impairer) => {
                let mut out = |route, bytes: &[u8]| push(batch, sockets, route, bytes);
                impairer.offer(clock::now(), route, bytes, Content::Control, &mut out);
            }
        }
    }

    /// Queues media packets that `fill` writes, each with whether it is the run's last.
    pub(crate) fn send_run(
        &mut self,
        sockets: &Sockets,
        route: Route,
        run: Run,
        mut fill: impl FnMut(&mut [u8], bool),
    ) {
        if let Some(impairer) = &mut self.impairer {
            let now_ns = clock::now();
            for left in (0..run.packets).rev() {
                self.scratch.resize(if left == 0 { run.last_size } else { run.size }, 0);
                fill(&mut self.scratch, left == 0);
                let mut out = |route, bytes: &[u8]| push(&mut self.batch, sockets, route, bytes);
                impairer.offer(now_ns, route, &self.scratch, Content::Media, &mut out);
            }
            return;
        }
        let per_send = if run.is_train { train_max(run.size) } else { 1 };
        let mut left = run.packets;
        while left > 0 {
            let packets = per_send.min(left);
            left -= packets;
            if self.batch.is_full() {
                flush(&mut self.batch, sockets);
            }
            let last_size = if left == 0 { run.last_size } else { run.size };
            let length = run.size * usize::from(packets - 1) + last_size;
            let segment = u16::try_from(run.size).ok().filter(|_| packets > 1);
            let bytes = self.batch.push(route, length, segment);
            let mut of_send = packets;
            for packet in bytes.chunks_mut(run.size) {
                of_send -= 1;
                fill(packet, left == 0 && of_send == 0);
            }
        }
    }

    /// Hands everything queued to the kernel, and what the impairment lets go by now.
    pub(crate) fn flush(&mut self, sockets: &Sockets) {
        let Self { batch, impairer, .. } = self;
        if let Some(impairer) = impairer {
            let mut out = |route, bytes: &[u8]| push(batch, sockets, route, bytes);
            impairer.release(clock::now(), &mut out);
        }
        flush(batch, sockets);
    }

    /// Queues the media that wait to be overtaken on `route`, before its goodbye.
    pub(crate) fn settle(&mut self, sockets: &Sockets, route: Route) {
        let Self { batch, impairer, .. } = self;
        if let Some(impairer) = impairer {
            let mut out = |route, bytes: &[u8]| push(batch, sockets, route, bytes);
            impairer.settle(clock::now(), route, &mut out);
        }
    }

    /// Hands everything to the kernel that the impairment still holds, each datagram when it is due.
    /// What would take too long leaves early.
    pub(crate) fn finish(&mut self, sockets: &Sockets) {
        let deadline_ns = clock::now() + FINISH_PATIENCE;
        while self.next_at() < deadline_ns {
            let left_ns = self.next_at().saturating_sub(clock::now());
            clock::pause(Duration::from_nanos(left_ns));
            self.flush(sockets);
        }
        let Self { batch, impairer, .. } = self;
        if let Some(impairer) = impairer {
            impairer.drain(&mut |route, bytes| push(batch, sockets, route, bytes));
        }
        flush(batch, sockets);
    }

    /// When the impairment lets something go.
    pub(crate) fn next_at(&self) -> u64 {
        self.impairer.as_ref().map_or(u64::MAX, |impairer| impairer.next_at())
    }

    /// Datagrams that the kernel did not take, since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.batch.refused()
    }

    /// What was done to datagrams on purpose, since the start.
    pub(crate) fn impaired(&self) -> Impaired {
        self.impairer.as_ref().map_or_else(Impaired::default, |impairer| impairer.impaired())
    }
}

fn push(batch: &mut SendBatch, sockets: &Sockets, route: Route, bytes: &[u8]) {
    if batch.is_full() {
        flush(batch, sockets);
    }
    batch.push_bytes(route, bytes);
}

fn flush(batch: &mut SendBatch, sockets: &Sockets) {
    if let Err(error) = batch.flush(&sockets.sockets) {
        // Only waiting for room can fail, and then the rest of the batch is as good as refused.
        debug_assert!(false, "cannot wait for a socket: {error}");
    }
}

/// How many datagrams of `size` bytes one segmented send holds.
fn train_max(size: usize) -> u16 {
    let fit = TRAIN_BYTES_MAX / size.max(1);
    u16::try_from(fit).unwrap_or(TRAIN_PACKETS_MAX).clamp(1, TRAIN_PACKETS_MAX)
}

/// Longer than anybody delays datagrams, short enough for somebody who waits for a program's end.
const FINISH_PATIENCE: u64 = 2 * SECOND;
/// What kernels before 6.9 take in one segmented send.
const TRAIN_PACKETS_MAX: u16 = 64;
/// What a datagram holds.
const TRAIN_BYTES_MAX: usize = 65_507;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{self, ReceiveBatch, SocketOptions};
    use std::net::{Ipv4Addr, SocketAddr};

    /// The lengths that arrive of a run of `packets`, and how many were told to be last.
    fn lengths(packets: u16, is_train: bool, impairment: Impairment) -> (Vec<usize>, u32) {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let open =
            || Sockets::new(vec![batch::bind(any, SocketOptions::default()).unwrap()]).unwrap();
        let (from, to) = (open(), open());
        let mut egress = Egress::new(impairment, 1);
        let route = Route { socket: 0, to: to.address().unwrap(), from: None };
        let mut lasts = 0;
        let run = Run { packets, size: 1_000, last_size: 70, is_train };
        egress.send_run(&from, route, run, |packet, is_last| {
            packet.fill(1);
            lasts += u32::from(is_last);
        });
        egress.finish(&from);
        let (mut lengths, mut inbox) = (Vec::new(), ReceiveBatch::new(false));
        while lengths.len() < usize::from(packets) && to.wait(clock::now() + SECOND).unwrap() {
            to.drain(&mut inbox, |_, datagram, _| lengths.push(datagram.bytes.len())).unwrap();
        }
        (lengths, lasts)
    }

    #[test]
    fn a_run_ends_with_its_shorter_packet_however_it_is_sent() {
        let delayed = Impairment { delay_ns: 1, ..Impairment::default() };
        for packets in [1, 2, 66, 130] {
            let mut expected = vec![1_000; usize::from(packets)];
            *expected.last_mut().unwrap() = 70;
            for is_train in [false, true] {
                for impairment in [Impairment::default(), delayed] {
                    assert_eq!(lengths(packets, is_train, impairment), (expected.clone(), 1));
                }
            }
        }
    }

    #[test]
    fn a_train_fits_into_a_datagram_and_into_older_kernels() {
        assert_eq!(train_max(1_332), 49);
        assert_eq!(train_max(100), 64);
        assert_eq!(train_max(0), 64);
    }
}
