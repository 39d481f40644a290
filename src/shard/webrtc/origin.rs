//! What origins send: responses to whoever asked, everything else to the selected path.

use std::time::Instant;

use super::{STRANGE, along, note_media, out_of};
use crate::protocol::demux::Kind;
use crate::protocol::stun::{Class, Message, with_mapped_address};
use crate::session::webrtc::{KeptRequest, Side};
use crate::shard::{DropReason, SessionKey, Shard, Verdict};

impl Shard {
    /// A datagram has come to the port of a WebRTC session.
    #[inline]
    pub(in crate::shard) fn webrtc_origin_sent(
        &mut self,
        now: Instant,
        key: SessionKey,
        bytes: &[u8],
    ) -> Verdict {
        let kind = Kind::of(bytes);
        match kind {
            Kind::Dtls | Kind::Rtp | Kind::Rtcp => {}
            Kind::Stun => return self.origin_stun(now, key, bytes),
            Kind::Zrtp | Kind::TurnChannel | Kind::Quic | Kind::Unknown => return STRANGE,
        }
        let Some(session) = self.table.webrtc_mut(key) else {
            return Verdict::Drop(DropReason::StalePort);
        };
        session.heard_origin = now;
        let is_closing = note_media(session, Side::Origin, kind, bytes, now);
        session.traffic.origin_in.add(bytes.len());
        let route = session.paths.selected().map(along);
        if route.is_some() {
            session.traffic.client_out.add(bytes.len());
        }
        if is_closing {
            self.reschedule(key);
        }
        let Some(route) = route else {
            return Verdict::Drop(DropReason::NoPath);
        };
        self.counters.webrtc.client_out.add(bytes.len());
        Verdict::Forward(route)
    }

    fn origin_stun(&mut self, now: Instant, key: SessionKey, bytes: &[u8]) -> Verdict {
        let Ok(message) = Message::parse(bytes) else {
            return Verdict::Drop(DropReason::StunMalformed);
        };
        let Some(session) = self.table.webrtc_mut(key) else {
            return Verdict::Drop(DropReason::StalePort);
        };
        session.heard_origin = now;
        session.traffic.origin_in.add(bytes.len());
        let is_response = matches!(message.class(), Class::Success | Class::Error);
        let asked =
            is_response.then(|| session.outstanding.find(message.transaction(), now)).flatten();
        // The address may have become another session's since.
        let asking = asked.and_then(|asked| {
            let path = session.paths.iter().find(|path| asked.came_along(path))?;
            Some((path.client.address, asked.entrance))
        });
        let selected = session.paths.selected();
        let selected = selected.map(|path| (path.client.address, path.entrance()));
        let Some((client, entrance)) = asking.or(selected) else {
            return Verdict::Drop(DropReason::NoPath);
        };
        let route = out_of(entrance, client);
        let pair = asked.and_then(|asked| asked.pair.clone());
        let mut rewritten = [0; KeptRequest::MAX];
        let length =
            pair.and_then(|pair| with_mapped_address(&message, client, &pair.key, &mut rewritten));
        if let Some(datagram) = length.and_then(|length| rewritten.get(..length)) {
            session.traffic.client_out.add(datagram.len());
            self.send_webrtc(route, datagram);
            return Verdict::Taken;
        }
        session.traffic.client_out.add(bytes.len());
        self.counters.webrtc.client_out.add(bytes.len());
        Verdict::Forward(route)
    }
}
