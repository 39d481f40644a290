//! What the kernel hands back with every event, in 64 bits: `user_data` of a ring, `u64` of epoll.
//!
//! ```text
//! 63      56 55              32 31                               0
//! +---------+------------------+---------------------------------+
//! |   op    |    generation    | index                           |
//! +---------+------------------+---------------------------------+
//! listener        0              position in the list of listeners
//! session   of the session key   slot of the session key
//! client    of the client's ID   position of the client's ID
//! send            0              position in the batch under way
//! mailbox, cancel 0              0
//! ```

use super::clients::ClientId;
use super::ports::Inlet;
use crate::shard::SessionKey;
use crate::shard::{ListenerIndex, Port};

/// Whose event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Something arrived at this socket, or receiving from it has ended.
    Receive(Inlet),
    /// A send of the batch under way has failed; those that succeed report nothing.
    Send(u32),
    /// The eventfd of the mailbox.
    Mailbox,
    /// A cancellation found nothing to cancel.
    Cancel,
}

impl Token {
    pub(super) fn encode(self) -> u64 {
        match self {
            Self::Receive(Inlet::Port(Port::Listener(ListenerIndex(index)))) => {
                pack(LISTENER, 0, index.into())
            }
            Self::Receive(Inlet::Port(Port::Session(key))) => {
                pack(SESSION, key.generation, key.slot)
            }
            Self::Receive(Inlet::Client(id)) => pack(CLIENT, id.generation, id.position),
            Self::Send(position) => pack(SEND, 0, position),
            Self::Mailbox => pack(MAILBOX, 0, 0),
            Self::Cancel => pack(CANCEL, 0, 0),
        }
    }

    /// The token that `encode` turned into `bits`.
    pub(super) fn decode(bits: u64) -> Self {
        let index = bits as u32;
        let generation = (bits >> 32) as u32 & GENERATION_MASK;
        match bits >> 56 {
            LISTENER => Self::Receive(Inlet::Port(Port::Listener(ListenerIndex(index as u8)))),
            SESSION => {
                Self::Receive(Inlet::Port(Port::Session(SessionKey { slot: index, generation })))
            }
            CLIENT => Self::Receive(Inlet::Client(ClientId { position: index, generation })),
            SEND => Self::Send(index),
            MAILBOX => Self::Mailbox,
            CANCEL => Self::Cancel,
            op => unreachable!("the kernel changed a token: op {op} was never encoded here"),
        }
    }
}

fn pack(op: u64, generation: u32, index: u32) -> u64 {
    op << 56 | u64::from(generation & GENERATION_MASK) << 32 | u64::from(index)
}

/// Session keys and client IDs wrap their generation at 24 bits, so nothing is lost.
const GENERATION_MASK: u32 = 0x00FF_FFFF;

const LISTENER: u64 = 1;
const SESSION: u64 = 2;
const SEND: u64 = 3;
const MAILBOX: u64 = 4;
const CANCEL: u64 = 5;
const CLIENT: u64 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn port(port: Port) -> Token {
        Token::Receive(Inlet::Port(port))
    }

    fn tokens() -> impl Strategy<Value = Token> {
        prop_oneof![
            any::<u8>().prop_map(|index| port(Port::Listener(ListenerIndex(index)))),
            (any::<u32>(), 0..=GENERATION_MASK).prop_map(|(slot, generation)| port(Port::Session(
                SessionKey { slot, generation }
            ))),
            (any::<u32>(), 0..=GENERATION_MASK).prop_map(|(position, generation)| Token::Receive(
                Inlet::Client(ClientId { position, generation })
            )),
            any::<u32>().prop_map(Token::Send),
            Just(Token::Mailbox),
            Just(Token::Cancel),
        ]
    }

    proptest! {
        #[test]
        fn a_token_is_decoded_as_it_was_encoded(token in tokens()) {
            prop_assert_eq!(Token::decode(token.encode()), token);
        }
    }

    #[test]
    fn two_tenants_of_a_slot_have_different_tokens() {
        let of = |generation| port(Port::Session(SessionKey { slot: 3, generation }));
        assert_ne!(of(1).encode(), of(2).encode());
    }
}
