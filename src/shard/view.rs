//! Sessions as the API shows them, a page at a time, so that no question holds up the packets for long.

use std::time::Instant;

use super::{Event, ProtocolView, SessionKey, SessionView, Shard, SrtView};
use crate::session::Session;

impl Shard {
    /// Up to `limit` sessions from `from_slot` on.
    pub(super) fn page(&self, now: Instant, request: u64, from_slot: u32, limit: u32) -> Event {
        let mut sessions = Vec::new();
        let slots = self.table.slots();
        let mut slot = from_slot;
        let last = from_slot.saturating_add(SLOTS_PER_PAGE).min(slots);
        while slot < last && (sessions.len() as u32) < limit {
            if let Some((key, session)) = self.table.in_slot(slot) {
                sessions.push(view(now, key, session));
            }
            slot += 1;
        }
        Event::Sessions { request, sessions, next_slot: (slot < slots).then_some(slot) }
    }
}

fn view(now: Instant, key: SessionKey, session: &Session) -> SessionView {
    let sight = &session.sight;
    let delay = session.wish.hsreq.map(|hsreq| hsreq.receiver_delay_ms.max(hsreq.sender_delay_ms));
    SessionView {
        session: key,
        state: session.state.label(),
        client: session.client.address,
        local: session.client.local,
        stream: session.wish.stream.clone(),
        role: session.wish.role,
        origin: session.origin.map(|(origin, _)| origin),
        age: now.saturating_duration_since(session.created),
        traffic: session.traffic,
        protocol: ProtocolView::Srt(SrtView {
            rtt_us: sight.rtt_us,
            rtt_client_us: sight.rtt_client_us,
            rtt_origin_us: sight.rtt_origin_us,
            loss_client_to_relay: sight.loss_client_to_relay(),
            retransmits: sight.retransmits,
            latency_ms: delay,
            encryption_key_length: session.wish.key.map_or(0, |key| key.key_length),
            gcm: session.wish.key.is_some_and(|key| key.gcm),
            version: session.wish.hsreq.map(|hsreq| hsreq.version),
        }),
    }
}

/// Free slots are cheap to pass over, but not free.
const SLOTS_PER_PAGE: u32 = 4096;
