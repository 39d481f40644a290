//! Sessions as the API shows them, a page at a time, so that no question holds up the packets for long.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use super::{Event, ProtocolView, SessionKey, SessionView, Shard, SrtView, WebRtcView};
use crate::session::expected::Expectation;
use crate::session::table::InSlot;
use crate::session::{Session, WebRtcSession};

impl Shard {
    /// Up to `limit` sessions from `from_slot` on.
    pub(super) fn page(&self, now: Instant, request: u64, from_slot: u32, limit: u32) -> Event {
        let mut sessions = Vec::new();
        let slots = self.table.slots();
        let mut slot = from_slot;
        let last = from_slot.saturating_add(SLOTS_PER_PAGE).min(slots);
        while slot < last && (sessions.len() as u32) < limit {
            match self.table.in_slot(slot) {
                Some((key, InSlot::Srt(session))) => sessions.push(view(now, key, session)),
                Some((key, InSlot::WebRtc(session))) => {
                    sessions.push(self.webrtc_view(now, key, session));
                }
                None => {}
            }
            slot += 1;
        }
        Event::Sessions { request, sessions, next_slot: (slot < slots).then_some(slot) }
    }

    fn webrtc_view(&self, now: Instant, key: SessionKey, session: &WebRtcSession) -> SessionView {
        let signalled = &session.signalled;
        let expectation = self.expected.by_id(signalled.id);
        let pairs = expectation.into_iter().flat_map(Expectation::pairs);
        SessionView {
            session: key,
            state: session.label(),
            client: session.client().map_or(NOBODY, |peer| peer.address),
            local: session.client().and_then(|peer| peer.local),
            stream: signalled.stream.clone(),
            role: signalled.role,
            origin: Some(signalled.origin),
            age: now.saturating_duration_since(session.created),
            traffic: session.traffic,
            protocol: ProtocolView::WebRtc(WebRtcView {
                id: signalled.id,
                ufrag_pairs: pairs.map(|pair| pair.username.to_string()).collect(),
                addresses: session.paths.iter().map(|path| path.client.address).collect(),
                ssrcs: session.ssrcs.as_slice().to_vec(),
            }),
        }
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

/// The address of a client whose only one has become another session's.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Free slots are cheap to pass over, but not free.
const SLOTS_PER_PAGE: u32 = 4096;
