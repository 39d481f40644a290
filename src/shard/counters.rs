//! What a shard has done, in plain integers that only it writes.

use super::verdict::DropReason;
use crate::protocol::srt::Rejection;
use crate::session::{Flow, Protocol};

/// Upper bounds of the `send_batch_segments` histogram; above the last: up to 64.
pub const BATCH_BOUNDS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Counters of one shard since its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// What SRT sessions carried and how many there are.
    pub srt: Share,
    /// What WebRTC sessions carried and how many there are.
    pub webrtc: Share,
    /// By [`DropReason`] discriminant.
    pub drops: [u64; DropReason::ALL.len()],
    /// By position in [`Rejection::ALL`].
    pub refusals: [u64; Rejection::ALL.len()],
    /// Rejections that came from an origin and were passed on.
    pub refusals_by_origin: u64,
    /// Sessions in the table now, of both protocols and whatever their state.
    pub sessions: u64,
    /// SRT handshakes under way.
    pub pending: u64,
    /// WebRTC sessions that have been signalled and are expected on this shard, those that another shard owns included.
    pub expected: u64,
    /// What the engine did.
    pub io: IoCounters,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            srt: Share::default(),
            webrtc: Share::default(),
            drops: [0; DropReason::ALL.len()],
            refusals: [0; Rejection::ALL.len()],
            refusals_by_origin: 0,
            sessions: 0,
            pending: 0,
            expected: 0,
            io: IoCounters::default(),
        }
    }
}

impl Counters {
    /// Counts `n` datagrams dropped for `reason`.
    pub fn dropped(&mut self, reason: DropReason, n: u64) {
        if let Some(counter) = self.drops.get_mut(reason as usize) {
            *counter += n;
        }
    }

    /// Counts one refusal of our own.
    pub fn refused(&mut self, rejection: Rejection) {
        let position = Rejection::ALL.iter().position(|&candidate| candidate == rejection);
        if let Some(counter) = position.and_then(|position| self.refusals.get_mut(position)) {
            *counter += 1;
        }
    }
}

/// One protocol's part of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Datagrams and bytes received from clients.
    pub client_in: Flow,
    /// Datagrams and bytes sent to clients.
    pub client_out: Flow,
    /// Datagrams and bytes received from origins.
    pub origin_in: Flow,
    /// Datagrams and bytes sent to origins.
    pub origin_out: Flow,
    /// Sessions that became established.
    pub sessions_created: u64,
    /// Sessions that media may flow in now.
    pub established: u64,
}

impl Counters {
    /// The part of one protocol.
    pub fn of(&self, protocol: Protocol) -> &Share {
        match protocol {
            Protocol::Srt => &self.srt,
            Protocol::WebRtc => &self.webrtc,
        }
    }

    /// The same, to count.
    pub fn of_mut(&mut self, protocol: Protocol) -> &mut Share {
        match protocol {
            Protocol::Srt => &mut self.srt,
            Protocol::WebRtc => &mut self.webrtc,
        }
    }
}

/// Written by the engine through [`super::Shard::io`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoCounters {
    /// Sends by the number of datagrams in each: `<= BATCH_BOUNDS[i]`, not cumulative.
    pub send_batches: [u64; BATCH_BOUNDS.len()],
    /// Datagrams in those sends.
    pub sent_segments: u64,
    /// Receives that brought at least one datagram; a coalesced train is one.
    pub receives: u64,
    /// Datagrams the kernel dropped because a receive queue was full (`SO_MEMINFO` or `SO_RXQ_OVFL`).
    pub receive_queue_overflows: u64,
    /// Receives that stopped because no buffer was free (`ENOBUFS`).
    pub ring_starved: u64,
    /// Receives that failed in any other way: mostly ICMP messages that came back for earlier sends
    /// of a session's port.
    pub receive_errors: u64,
    /// Completions the kernel had to queue beside the full completion ring.
    pub completion_overflows: u64,
    /// Multishot receives armed again.
    pub rearmed: u64,
    /// Segmented sends refused by kernel, path or device (`EINVAL`, `EMSGSIZE`, `EIO`) and repeated
    /// one by one.
    pub gso_fallbacks: u64,
    /// Times the thread woke up.
    pub wakeups: u64,
    /// System calls of the packet path.
    pub syscalls: u64,
    /// Sleeps that waited for several datagrams (`--batch-wait`).
    pub gather_waits: u64,
    /// Receives that those have brought.
    pub gathered_receives: u64,
    /// Sockets of single clients, now.
    pub client_sockets: u64,
}
