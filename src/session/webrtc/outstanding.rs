//! Who asked what: the client's requests that the origin may still answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Entrance, Pair, Path};
use crate::protocol::stun::TransactionId;
use crate::session::table::AddressKey;

/// The requests of one client that are on their way through the origin, oldest first, at most [`Outstanding::MAX`].
///
/// Each response goes back to the address that asked, not to the one that is selected: a check proves the path it took.
/// A request stays after its response, for it may have been sent twice and be answered twice.
#[derive(Debug, Default)]
pub struct Outstanding(Vec<Asked>);

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    transaction: TransactionId,
    /// From where: which of the few paths of one client.
    address: u32,
    /// And through which of our addresses, which the response has to leave from.
    pub entrance: Entrance,
    /// Under whose password the response stands; `None` where nothing of a response is ever rewritten.
    pub pair: Option<Arc<Pair>>,
    at: Instant,
}

impl Outstanding {
    /// Requests remembered. Above it the oldest gives way, of those without a proof first.
    pub const MAX: usize = 32;

    /// Remembers a request. One without a proof, which anybody can send in the client's name, takes no place from one
    /// with.
    pub fn note(
        &mut self,
        transaction: TransactionId,
        address: AddressKey,
        entrance: Entrance,
        pair: Option<Arc<Pair>>,
        now: Instant,
    ) {
        let is_proven = pair.is_some();
        self.0.retain(|asked| {
            let gives_way = asked.transaction == transaction && (is_proven || asked.pair.is_none());
            !gives_way && asked.is_alive(now)
        });
        if !is_proven && self.0.iter().any(|asked| asked.transaction == transaction) {
            return;
        }
        if self.0.len() >= Self::MAX {
            let unproven = self.0.iter().position(|asked| asked.pair.is_none());
            let Some(oldest) = unproven.or(is_proven.then_some(0)) else {
                return;
            };
            self.0.remove(oldest);
        }
        if self.0.len() == self.0.capacity() {
            // Most clients have one or two on their way: doubling would take room for four at first.
            self.0.reserve_exact(2);
        }
        self.0.push(Asked { transaction, address: address.mark(), entrance, pair, at: now });
    }

    /// The request that a response belongs to.
    pub fn find(&self, transaction: TransactionId, now: Instant) -> Option<&Asked> {
        let mut asked = self.0.iter().rev();
        asked.find(|asked| asked.transaction == transaction && asked.is_alive(now))
    }
}

impl Asked {
    /// Whether this path is the one that it came along.
    pub fn came_along(&self, path: &Path) -> bool {
        path.address().mark() == self.address
    }

    fn is_alive(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < LIFE
    }
}

/// Longer than any response takes that its sender still waits for.
const LIFE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::ListenerIndex;
    use std::net::SocketAddr;

    fn note(outstanding: &mut Outstanding, number: u8, now: Instant) {
        let address = AddressKey::of(SocketAddr::from(([203, 0, 113, 9], 5000)));
        let entrance = Entrance { listener: ListenerIndex(0), local: None };
        outstanding.note(TransactionId([number; 12]), address, entrance, None, now);
    }

    fn knows(outstanding: &Outstanding, number: u8, now: Instant) -> bool {
        outstanding.find(TransactionId([number; 12]), now).is_some()
    }

    #[test]
    fn a_request_is_known_for_five_seconds_after_it_was_last_sent() {
        let t0 = Instant::now();
        let mut outstanding = Outstanding::default();
        note(&mut outstanding, 1, t0);
        note(&mut outstanding, 1, t0 + Duration::from_secs(3));
        assert!(knows(&outstanding, 1, t0 + Duration::from_millis(7999)));
        assert!(!knows(&outstanding, 1, t0 + Duration::from_secs(8)));
    }

    #[test]
    fn of_more_than_32_requests_the_oldest_are_forgotten() {
        let t0 = Instant::now();
        let mut outstanding = Outstanding::default();
        for number in 0..40 {
            note(&mut outstanding, number, t0);
        }
        let known: Vec<u8> = (0..40).filter(|&number| knows(&outstanding, number, t0)).collect();
        assert_eq!(known, (8..40).collect::<Vec<u8>>());
    }

    #[test]
    fn who_has_proven_nothing_takes_no_place_from_who_has() {
        let t0 = Instant::now();
        let key = crate::protocol::stun::IntegrityKey::new(b"password");
        let pair = Arc::new(Pair { username: "o:c".into(), key });
        let address = AddressKey::of(SocketAddr::from(([203, 0, 113, 9], 5000)));
        let entrance = Entrance { listener: ListenerIndex(0), local: None };
        let mut outstanding = Outstanding::default();
        for number in [100, 101] {
            let (transaction, pair) = (TransactionId([number; 12]), Some(Arc::clone(&pair)));
            outstanding.note(transaction, address, entrance, pair, t0);
        }
        for number in (0..40).chain([101]) {
            note(&mut outstanding, number, t0);
        }
        for number in [100, 101] {
            let asked = outstanding.find(TransactionId([number; 12]), t0);
            assert!(asked.is_some_and(|asked| asked.pair.is_some()), "{number}");
        }
        assert!(knows(&outstanding, 39, t0) && !knows(&outstanding, 0, t0));
        for number in 200..240 {
            let (transaction, pair) = (TransactionId([number; 12]), Some(Arc::clone(&pair)));
            outstanding.note(transaction, address, entrance, pair, t0);
        }
        note(&mut outstanding, 1, t0);
        assert!(!knows(&outstanding, 1, t0) && !knows(&outstanding, 100, t0));
        assert!(knows(&outstanding, 208, t0) && knows(&outstanding, 239, t0));
    }
}
