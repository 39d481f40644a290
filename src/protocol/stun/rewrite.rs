//! The one change that the relay makes to STUN: the address in a response.

use std::net::SocketAddr;

use super::address::XorAddress;
use super::attribute::{self, Attributes};
use super::writer::Writer;
use super::{Check, Class, IntegrityKey, Message, Method};

/// Writes `message`, a response that an origin gave to the relay, as that origin would have given
/// it to `client` itself.
///
/// The origin sees the relay's address and reports it. A client that is told so takes it for its
/// own: it makes a candidate of an address that it does not have, and shows it to whoever asks.
///
/// Attributes up to MESSAGE-INTEGRITY are kept in order and byte for byte. The client's address
/// stands where the first XOR-MAPPED-ADDRESS or MAPPED-ADDRESS stood; further ones are left out, and
/// so is what follows MESSAGE-INTEGRITY. That one is made anew with `key`, and FINGERPRINT as well
/// if there was one. The message grows by 12 bytes at most.
///
/// Returns the length of what stands in `out`. `None` means that the response is to be forwarded as
/// it is: it is no binding success, names no address, its MESSAGE-INTEGRITY is missing or not right
/// under `key`, its FINGERPRINT is wrong, or `out` is too small. What `out` holds then is undefined.
pub fn with_mapped_address(
    message: &Message<'_>,
    client: SocketAddr,
    key: &IntegrityKey,
    out: &mut [u8],
) -> Option<usize> {
    let is_response = (message.method(), message.class()) == (Method::Binding, Class::Success);
    if !is_response
        || message.integrity(key) != Check::Right
        || message.fingerprint() == Check::Wrong
    {
        return None;
    }
    let kind = Method::Binding.wire() | Class::Success.wire();
    let mut writer = Writer::new(out, kind, message.transaction())?;
    let mut is_replaced = false;
    let mut attributes = Attributes::of(message.as_bytes());
    while let Ok(Some(attribute)) = attributes.next() {
        match attribute.kind {
            attribute::MESSAGE_INTEGRITY => break,
            attribute::XOR_MAPPED_ADDRESS | attribute::MAPPED_ADDRESS => {
                if !is_replaced {
                    let address = XorAddress::new(client, message.transaction());
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
    if message.fingerprint() == Check::Right {
        writer.fingerprint()?;
    }
    Some(writer.len())
}
