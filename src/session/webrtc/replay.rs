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
/// Kept as seeded hashes, which need a fifth of the room: a new transaction passes for a known one in 2^23 cases, and an
/// address for another in 2^32, neither of which an attacker can aim at. It takes its seed with it to another shard.
pub struct Replay {
    hasher: SeedableRandomState,
    /// The addresses that transactions refer to. Few clients have a third one.
    addresses: Box<[u32]>,
    /// A ring once it has [`Self::LEN`]: a hash, and in the lowest bits which of the addresses it came from. Behind
    /// `noted` of them there is room.
    transactions: Box<[u32]>,
    noted: u8,
    /// The transaction that gives way to the next one.
    oldest: u8,
    /// The address that gives way to the next one.
    oldest_address: u8,
}

impl Replay {
    /// Transactions remembered, in 128 bytes of a session that has had as many: 80 seconds of a client that checks its
    /// path every 2.5 seconds, and less of one that checks more often because its path is poor. Whoever reads along for
    /// longer than that can use what he has kept.
    pub const LEN: usize = 32;

    /// Addresses remembered: as many as a session has paths.
    const ADDRESSES: usize = 8;

    /// Knows nothing yet.
    pub fn new(hasher: SeedableRandomState) -> Self {
        let (addresses, transactions) = (Box::default(), Box::default());
        Self { hasher, addresses, transactions, noted: 0, oldest: 0, oldest_address: 0 }
    }

    /// Remembers a transaction, and says what was known of it.
    pub fn note(&mut self, transaction: TransactionId, address: AddressKey) -> Seen {
        let transaction = self.hasher.hash_one(transaction) as u32 & !ORIGIN_MASK;
        let address = self.hasher.hash_one(address) as u32;
        let mut known = self.transactions.iter().take(usize::from(self.noted));
        if let Some(known) = known.find(|&known| known & !ORIGIN_MASK == transaction) {
            let origin = self.addresses.get((known & ORIGIN_MASK) as usize);
            return if origin == Some(&address) { Seen::Here } else { Seen::Elsewhere };
        }
        let entry = transaction | self.origin(address);
        let mut place = usize::from(self.noted);
        if place < Self::LEN {
            if place == self.transactions.len() {
                grow(&mut self.transactions, STEP);
            }
            self.noted += 1;
        } else {
            place = usize::from(self.oldest);
            self.oldest = (self.oldest + 1) % Self::LEN as u8;
        }
        if let Some(place) = self.transactions.get_mut(place) {
            *place = entry;
        }
        Seen::Never
    }

    /// Where among the addresses this one stands from now on. Transactions of one that has given way count as seen
    /// elsewhere wherever they come from.
    fn origin(&mut self, address: u32) -> u32 {
        if let Some(position) = self.addresses.iter().position(|&known| known == address) {
            return position as u32;
        }
        let position = if self.addresses.len() < Self::ADDRESSES {
            grow(&mut self.addresses, 1);
            self.addresses.len() as u8 - 1
        } else {
            let oldest = self.oldest_address;
            self.oldest_address = (oldest + 1) % Self::ADDRESSES as u8;
            oldest
        };
        if let Some(oldest) = self.addresses.get_mut(usize::from(position)) {
            *oldest = address;
        }
        for entry in &mut self.transactions {
            if *entry & ORIGIN_MASK == u32::from(position) {
                *entry |= ORIGIN_MASK;
            }
        }
        u32::from(position)
    }
}

/// Adds `step` zeros.
fn grow(all: &mut Box<[u32]>, step: usize) {
    let mut grown = std::mem::take(all).into_vec();
    grown.reserve_exact(step);
    grown.resize(grown.len() + step, 0);
    *all = grown.into();
}

/// Transactions that room is made for at a time.
const STEP: usize = 8;

/// The bits that name an address. All of them set name one that has given way.
const ORIGIN_MASK: u32 = 0xF;

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
    fn what_came_from_an_address_that_is_forgotten_has_come_from_elsewhere() {
        let mut replay = empty();
        for number in 0..9 {
            replay.note(transaction(number), address(5000 + number as u16));
        }
        assert_eq!(replay.note(transaction(0), address(5000)), Seen::Elsewhere);
        assert_eq!(replay.note(transaction(0), address(5008)), Seen::Elsewhere);
        for number in 1..9 {
            assert_eq!(replay.note(transaction(number), address(5000 + number as u16)), Seen::Here);
        }
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
