//! XOR-MAPPED-ADDRESS (RFC 8489, section 14.2): an address that NATs do not recognise as one, and
//! so leave alone.

use std::net::{IpAddr, SocketAddr};

use super::header::{COOKIE, TransactionId};

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
        match *value.get(1)? {
            FAMILY_V4 => value.try_into().ok().map(Self::V4),
            FAMILY_V6 => value.try_into().ok().map(Self::V6),
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRANSACTION: TransactionId = TransactionId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);

    #[test]
    fn port_and_address_are_mixed_with_the_cookie_and_then_the_transaction() {
        let table: [(&str, &[u8]); 2] = [
            ("203.0.113.7:54321", b"\0\x01\xf5\x23\xea\x12\xd5\x45"),
            (
                "[2001:db8::7]:54321",
                b"\0\x02\xf5\x23\x01\x13\xa9\xfa\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0c",
            ),
        ];
        for (address, value) in table {
            assert_eq!(XorAddress::new(address.parse().unwrap(), TRANSACTION).as_bytes(), value);
        }
    }

    #[test]
    fn family_and_length_have_to_agree() {
        let table: [(u8, usize, bool); 10] = [
            (1, 8, true),
            (2, 20, true),
            (1, 20, false),
            (2, 8, false),
            (0, 8, false),
            (3, 20, false),
            (1, 7, false),
            (1, 9, false),
            (2, 19, false),
            (1, 2, false),
        ];
        for (family, length, is_address) in table {
            let mut value = vec![0; length];
            value[1] = family;
            let case = format!("family {family}, {length} bytes");
            assert_eq!(XorAddress::from_wire(&value).is_some(), is_address, "{case}");
        }
        assert_eq!(XorAddress::from_wire(&[]), None);
        assert_eq!(XorAddress::from_wire(&[0]), None);
    }

    #[test]
    fn the_byte_in_front_of_the_family_does_not_count() {
        let value = *b"\xff\x01\x21\x12\x21\x12\xa4\x42";
        let address = XorAddress::from_wire(&value).and_then(|it| it.address(TRANSACTION));
        assert_eq!(address, Some("0.0.0.0:0".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn an_address_reads_back(ip: IpAddr, port: u16, transaction: [u8; 12]) {
            let (address, transaction) = (SocketAddr::new(ip, port), TransactionId(transaction));
            let value = XorAddress::new(address, transaction);
            prop_assert_eq!(XorAddress::from_wire(value.as_bytes()), Some(value));
            prop_assert_eq!(value.address(transaction), Some(address));
        }
    }
}
