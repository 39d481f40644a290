//! XOR-MAPPED-ADDRESS (RFC 8489, section 14.2): an address that NATs do not recognise as one, and
//! so leave alone.

use std::net::{IpAddr, SocketAddr};

use super::TransactionId;
use super::message::COOKIE;

/// The value of the attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum XorAddress {
    /// Family 1.
    V4([u8; 8]),
    /// Family 2.
    V6([u8; 20]),
}

impl XorAddress {
    pub(super) fn new(address: SocketAddr, transaction: TransactionId) -> Self {
        let mask = mask(transaction);
        let [p0, p1] = xor(address.port().to_be_bytes(), mask);
        match address.ip() {
            IpAddr::V4(ip) => {
                let [a0, a1, a2, a3] = xor(ip.octets(), mask);
                Self::V4([0, FAMILY_V4, p0, p1, a0, a1, a2, a3])
            }
            IpAddr::V6(ip) => {
                let mut value = [0; 20];
                let (head, octets) = value.split_at_mut(4);
                head.copy_from_slice(&[0, FAMILY_V6, p0, p1]);
                octets.copy_from_slice(&xor(ip.octets(), mask));
                Self::V6(value)
            }
        }
    }

    /// The value as it stands in a message, if the family and the length agree.
    pub(super) fn from_wire(value: &[u8]) -> Option<Self> {
        match value.get(1)? {
            &FAMILY_V4 => value.try_into().ok().map(Self::V4),
            &FAMILY_V6 => value.try_into().ok().map(Self::V6),
            _ => None,
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::V4(value) => value,
            Self::V6(value) => value,
        }
    }

    /// The address in the clear.
    pub(super) fn address(&self, transaction: TransactionId) -> Option<SocketAddr> {
        let mask = mask(transaction);
        let (&[_, _, p0, p1], octets) = self.as_bytes().split_first_chunk::<4>()?;
        let ip: IpAddr = match self {
            Self::V4(_) => xor::<4>(octets.try_into().ok()?, mask).into(),
            Self::V6(_) => xor::<16>(octets.try_into().ok()?, mask).into(),
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes(xor([p0, p1], mask))))
    }
}

/// Cookie and transaction: what the address is mixed with, each field from its front.
fn mask(transaction: TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    let (cookie, rest) = mask.split_at_mut(COOKIE.len());
    cookie.copy_from_slice(&COOKIE);
    rest.copy_from_slice(&transaction.0);
    mask
}

fn xor<const N: usize>(bytes: [u8; N], mask: [u8; 16]) -> [u8; N] {
    let mut mask = mask.into_iter();
    bytes.map(|byte| byte ^ mask.next().unwrap_or(0))
}

const FAMILY_V4: u8 = 1;
const FAMILY_V6: u8 = 2;
