//! The one change that the relay makes to STUN: the address in a response.

use std::net::SocketAddr;

use super::address::XorAddress;
use super::attribute::{self, Attributes};
use super::header::{Class, Header, Method};
use super::integrity::{Check, IntegrityKey};
use super::message::Message;
use super::writer::Writer;

/// Writes `message`, a response that an origin gave to the relay, as that origin would have given
/// it to `client` itself.
///
/// The origin sees the relay's address and reports it. A client that is told so takes it for its
/// own: it makes a candidate of an address that it does not have, and shows it to whoever asks.
///
/// Attributes up to MESSAGE-INTEGRITY are kept in order and byte for byte. The client's address
/// stands where the first XOR-MAPPED-ADDRESS or MAPPED-ADDRESS stood; further ones are left out, and
/// so is what follows MESSAGE-INTEGRITY. That one is made anew with `key`, and FINGERPRINT as well
/// if there was one. The message grows by 12 bytes where IPv6 takes the place of IPv4, and by 20 at
/// most: where the origin's own address has no bytes at all.
///
/// Returns the length of what stands in `out`. `None` means that the response is to be forwarded as
/// it is: it is no binding success, names no address, its MESSAGE-INTEGRITY is missing or not right
/// under `key`, its FINGERPRINT is wrong, or `out` is too small. What `out` holds then is no message.
pub fn with_mapped_address(
    message: &Message<'_>,
    client: SocketAddr,
    key: &IntegrityKey,
    out: &mut [u8],
) -> Option<usize> {
    let (method, class, transaction) = (message.method(), message.class(), message.transaction());
    let fingerprint = message.fingerprint();
    if (method, class) != (Method::Binding, Class::Success)
        || message.integrity(key) != Check::Right
        || fingerprint == Check::Wrong
    {
        return None;
    }
    let mut writer = Writer::new(out, Header { class, method, transaction })?;
    let mut is_replaced = false;
    let mut attributes = Attributes::of(message.as_bytes());
    while let Ok(Some(attribute)) = attributes.next() {
        match attribute.kind {
            attribute::MESSAGE_INTEGRITY => break,
            attribute::XOR_MAPPED_ADDRESS | attribute::MAPPED_ADDRESS => {
                if !is_replaced {
                    let address = XorAddress::new(client, transaction);
                    writer.attribute(attribute::XOR_MAPPED_ADDRESS, address.as_bytes())?;
                    is_replaced = true;
                }
            }
            _ => writer.attributes(attribute.whole)?,
        }
    }
    if !is_replaced {
        return None;
    }
    writer.integrity(key)?;
    if fingerprint == Check::Right {
        writer.fingerprint()?;
    }
    Some(writer.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::stun::vectors::*;
    use crate::protocol::stun::{Builder, TransactionId};
    use proptest::prelude::*;

    const CLIENT_V4: &str = "203.0.113.7:54321";
    const CLIENT_V6: &str = "[2001:db8::7]:54321";

    fn rewritten(datagram: &[u8], client: &str, key: &IntegrityKey) -> Option<Vec<u8>> {
        let mut out = vec![0xee; 2048];
        let message = Message::parse(datagram).unwrap();
        let len = with_mapped_address(&message, client.parse().unwrap(), key, &mut out)?;
        assert!(out[len..].iter().all(|byte| *byte == 0xee), "bytes behind the message changed");
        out.truncate(len);
        Some(out)
    }

    fn response() -> Builder {
        Builder::new(Class::Success, Method::Binding, TRANSACTION)
    }

    fn relay() -> SocketAddr {
        "10.0.0.2:40000".parse().unwrap()
    }

    #[test]
    fn a_response_names_the_client_byte_for_byte_as_the_origin_would_have_written_it() {
        let table = [
            (SRS_RESPONSE, CLIENT_V4, SRS_RESPONSE_FOR_V4),
            (SRS_RESPONSE, CLIENT_V6, SRS_RESPONSE_FOR_V6),
            (SRS_RESPONSE_FOR_V6, CLIENT_V4, SRS_RESPONSE_FOR_V4),
            (SRS_RESPONSE, "10.0.0.2:40000", SRS_RESPONSE),
        ];
        for (from, client, to) in table {
            assert_eq!(rewritten(&bytes(from), client, &origin_key()), Some(bytes(to)), "{client}");
        }
    }

    #[test]
    fn what_is_not_understood_is_left_as_it_is() {
        let key = origin_key();
        let mut damaged = bytes(SRS_RESPONSE);
        *damaged.last_mut().unwrap() ^= 1;
        let refusal = Builder::new(Class::Error, Method::Binding, TRANSACTION);
        let ping = Builder::new(Class::Success, Method::GoogPing, TRANSACTION);
        let table = [
            (
                "another password",
                response().xor_mapped_address(relay()).finish(Some(&client_key()), true),
            ),
            ("no integrity", response().xor_mapped_address(relay()).finish(None, true)),
            ("no address", response().finish(Some(&key), true)),
            ("a request", bytes(BROWSER_REQUEST)),
            ("a keepalive", bytes(KEEPALIVE)),
            ("a refusal", refusal.xor_mapped_address(relay()).finish(Some(&key), true)),
            ("a short check", ping.xor_mapped_address(relay()).finish(Some(&key), true)),
            ("a wrong fingerprint", damaged),
        ];
        for (case, datagram) in table {
            assert_eq!(rewritten(&datagram, CLIENT_V4, &key), None, "{case}");
        }
    }

    #[test]
    fn an_address_behind_the_integrity_code_is_none() {
        let key = origin_key();
        let sealed = response().finish(Some(&key), false);
        let late = attribute(0x0020, &[0, 1, 0, 0, 0, 0, 0, 0]);
        let datagram = message(0x0101, &[&sealed[20..], &late].concat());
        assert_eq!(Message::parse(&datagram).unwrap().integrity(&key), Check::Right);
        assert_eq!(rewritten(&datagram, CLIENT_V4, &key), None);
    }

    #[test]
    fn a_fingerprint_is_added_only_where_one_was() {
        let key = origin_key();
        for (fingerprint, check) in [(false, Check::Absent), (true, Check::Right)] {
            let datagram = response().xor_mapped_address(relay()).finish(Some(&key), fingerprint);
            let out = rewritten(&datagram, CLIENT_V4, &key).unwrap();
            assert_eq!(Message::parse(&out).unwrap().fingerprint(), check);
        }
    }

    #[test]
    fn the_first_address_is_replaced_in_its_place_and_further_ones_are_left_out() {
        let key = origin_key();
        let datagram = response()
            .attribute(0xc057, &[0, 1, 0, 10])
            .attribute(attribute::MAPPED_ADDRESS, &[0, 1, 0x9c, 0x40, 10, 0, 0, 2])
            .software("origin")
            .xor_mapped_address(relay())
            .attribute(0x7777, b"unknown")
            .finish(Some(&key), true);
        let expected = response()
            .attribute(0xc057, &[0, 1, 0, 10])
            .xor_mapped_address(CLIENT_V4.parse().unwrap())
            .software("origin")
            .attribute(0x7777, b"unknown")
            .finish(Some(&key), true);
        assert_eq!(rewritten(&datagram, CLIENT_V4, &key), Some(expected));
    }

    #[test]
    fn an_address_that_cannot_be_read_is_replaced_too() {
        let key = origin_key();
        let address = attribute::XOR_MAPPED_ADDRESS;
        let datagram = response().attribute(address, &[0, 2, 1, 1, 9, 9, 9, 9]);
        let expected = response().xor_mapped_address(CLIENT_V6.parse().unwrap());
        assert_eq!(
            rewritten(&datagram.finish(Some(&key), true), CLIENT_V6, &key),
            Some(expected.finish(Some(&key), true))
        );
    }

    #[test]
    fn padding_is_kept_as_it_came() {
        let key = IntegrityKey::new(RFC_5769_PASSWORD);
        let out = rewritten(&bytes(RFC_5769_RESPONSE_V4), CLIENT_V4, &key).unwrap();
        assert_eq!(&out[20..36], b"\x80\x22\x00\x0btest vector ");
    }

    #[test]
    fn what_follows_the_integrity_code_is_dropped_but_for_the_fingerprint() {
        let key = origin_key();
        let sealed = response().xor_mapped_address(relay()).finish(Some(&key), false);
        let late = [attribute(0x001c, &[7; 32]), attribute(0x8022, b"late")].concat();
        let datagram = message(0x0101, &[&sealed[20..], &late].concat());
        let expected = response().xor_mapped_address(CLIENT_V4.parse().unwrap());
        assert_eq!(rewritten(&datagram, CLIENT_V4, &key), Some(expected.finish(Some(&key), false)));
    }

    #[test]
    fn a_buffer_that_is_too_small_by_any_number_of_bytes_gets_no_message() {
        let datagram = bytes(SRS_RESPONSE);
        let message = Message::parse(&datagram).unwrap();
        let client = CLIENT_V6.parse().unwrap();
        for size in 0..96 {
            let mut out = vec![0; size];
            let len = with_mapped_address(&message, client, &origin_key(), &mut out);
            assert_eq!(len, None, "{size} bytes");
        }
        let mut out = [0; 96];
        assert_eq!(with_mapped_address(&message, client, &origin_key(), &mut out), Some(96));
    }

    #[test]
    fn a_response_that_would_outgrow_its_length_field_is_left_as_it_is() {
        let key = origin_key();
        // With 65500 bytes of attributes up to the 24 of the code, an IPv6 address is too much.
        let longest = response().attribute(0x8022, &vec![b'x'; 65_492]).xor_mapped_address(relay());
        let datagram = longest.finish(Some(&key), false);
        assert_eq!(datagram.len(), 65_552);
        let message = Message::parse(&datagram).unwrap();
        let mut out = vec![0; 70_000];
        let len = with_mapped_address(&message, relay(), &key, &mut out);
        assert_eq!(len, Some(65_552));
        let client = CLIENT_V6.parse().unwrap();
        assert_eq!(with_mapped_address(&message, client, &key, &mut out), None);
    }

    fn kept() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
        let kind = prop_oneof![Just(0x0006_u16), Just(0x0024), 0x7000_u16..0x8000, 0x8100_u16..];
        prop::collection::vec((kind, prop::collection::vec(any::<u8>(), 0..60)), 0..5)
    }

    fn with(builder: Builder, attributes: &[(u16, Vec<u8>)]) -> Builder {
        attributes.iter().fold(builder, |builder, (kind, value)| builder.attribute(*kind, value))
    }

    proptest! {
        #[test]
        fn a_response_is_what_the_origin_would_have_written_to_any_client(
            front in kept(),
            back in kept(),
            relay: SocketAddr,
            client: SocketAddr,
            transaction: [u8; 12],
            password: Vec<u8>,
            fingerprint: bool,
        ) {
            let key = IntegrityKey::new(&password);
            let written_to = |address| {
                let builder = Builder::new(Class::Success, Method::Binding, TransactionId(transaction));
                let builder = with(builder, &front).xor_mapped_address(address);
                with(builder, &back).finish(Some(&key), fingerprint)
            };
            let datagram = written_to(relay);
            let message = Message::parse(&datagram).unwrap();
            let mut out = vec![0; datagram.len() + 12];

            let len = with_mapped_address(&message, client, &key, &mut out).unwrap();

            prop_assert_eq!(&out[..len], &written_to(client)[..]);
            let message = Message::parse(&out[..len]).unwrap();
            prop_assert_eq!(message.integrity(&key), Check::Right);
            prop_assert_ne!(message.fingerprint(), Check::Wrong);
            // An IPv6 address of flow label or scope has neither on the wire.
            let client = SocketAddr::new(client.ip(), client.port());
            prop_assert_eq!(message.mapped_address(), Some(client));
        }
    }
}
