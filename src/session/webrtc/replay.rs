//! Which requests have been seen, and from where.
//!
//! MESSAGE-INTEGRITY does not cover the address that a request comes from. Whoever sees one on its way can send it again
//! with another sender's address, and would turn the media there.

use std::fmt;
use std::hash::BuildHasher;

use foldhash::quality::SeedableRandomState;

use crate::protocol::stun::TransactionId;
use crate::session::table::AddressKey;

/// The last [`Replay::LEN`] transactions of one client.
///
/// Kept as seeded hashes, which need a third of the room: a new transaction passes for a known one in 2^27 cases, and an
/// address for another in 2^32, neither of which an attacker can aim at. It takes its seed with it to another shard.
pub struct Replay {
    hasher: SeedableRandomState,
    /// Apart from the session, whose media has no use for it.
    ring: Box<Ring>,
    /// Transactions so far.
    noted: usize,
}

struct Ring {
    transactions: [u32; Replay::LEN],
    addresses: [u32; Replay::LEN],
}

impl Replay {
    /// Transactions remembered, in 256 bytes of every session: 80 seconds of a client that checks its path every 2.5
    /// seconds, and less of one that checks more often because its path is poor. Whoever reads along for longer than
    /// that can use what he has kept.
    pub const LEN: usize = 32;

    /// Knows nothing yet.
    pub fn new(hasher: SeedableRandomState) -> Self {
        let ring = Ring { transactions: [0; Self::LEN], addresses: [0; Self::LEN] };
        Self { hasher, ring: Box::new(ring), noted: 0 }
    }

    /// Remembers a transaction, and says what was known of it.
    pub fn note(&mut self, transaction: TransactionId, address: AddressKey) -> Seen {
        let transaction = self.hasher.hash_one(transaction) as u32;
        let address = self.hasher.hash_one(address) as u32;
        if let Some(position) = self.position(transaction) {
            let is_same = self.ring.addresses.get(position) == Some(&address);
            return if is_same { Seen::Here } else { Seen::Elsewhere };
        }
        let position = self.noted % Self::LEN;
        if let (Some(transactions), Some(addresses)) =
            (self.ring.transactions.get_mut(position), self.ring.addresses.get_mut(position))
        {
            (*transactions, *addresses) = (transaction, address);
        }
        self.noted += 1;
        Seen::Never
    }

    fn position(&self, transaction: u32) -> Option<usize> {
        let noted = self.ring.transactions.iter().take(self.noted);
        noted.into_iter().position(|&known| known == transaction)
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("noted", &self.noted).finish_non_exhaustive()
    }
}

/// What is known of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: it is new, or older than 32 others.
    Never,
    /// It has come from this address before: a retransmission.
    Here,
    /// It has come from another address: somebody repeats what he has seen.
    Elsewhere,
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldhash::SharedSeed;
    use std::net::SocketAddr;

    fn transaction(number: u32) -> TransactionId {
        let [a, b, c, d] = number.to_be_bytes();
        TransactionId([0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d])
    }

    fn address(port: u16) -> AddressKey {
        AddressKey::of(SocketAddr::from(([203, 0, 113, 9], port)))
    }

    fn empty() -> Replay {
        Replay::new(SeedableRandomState::with_seed(7, SharedSeed::global_fixed()))
    }

    #[test]
    fn a_transaction_is_known_by_the_address_it_first_came_from() {
        let mut replay = empty();
        assert_eq!(replay.note(transaction(1), address(5000)), Seen::Never);
        assert_eq!(replay.note(transaction(1), address(5000)), Seen::Here);
        assert_eq!(replay.note(transaction(1), address(5001)), Seen::Elsewhere);
        assert_eq!(replay.note(transaction(1), address(5000)), Seen::Here);
    }

    #[test]
    fn the_last_32_transactions_are_remembered() {
        let mut replay = empty();
        for number in 0..200 {
            replay.note(transaction(number), address(5000));
        }
        for number in 168..200 {
            assert_eq!(replay.note(transaction(number), address(5001)), Seen::Elsewhere);
        }
        assert_eq!(replay.note(transaction(167), address(5001)), Seen::Never);
    }
}
