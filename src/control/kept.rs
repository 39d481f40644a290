//! What stands behind a session URL, in the form in which it is kept as long as the session lives.
//!
//! It is read when the client restarts ICE or ends the session, so it may take a microsecond to
//! read, and should take little room: one block of bytes, where the parts as values would be a dozen.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use super::ask::{Resource, Token};
use crate::config::HostHeader;
use crate::protocol::ice::{Credentials, Password, Ufrag};

/// A [`Resource`] in one block. It holds secrets, so it is not `Debug`.
pub(super) struct Kept(Box<[u8]>);

impl Kept {
    pub(super) fn new(resource: &Resource) -> Self {
        let Resource { token, api, host, target, takes_patch, address, .. } = resource;
        let (origin, client) = (&resource.origin_credentials, &resource.client_credentials);
        let mut bytes = Vec::new();
        // The token comes first: it is what is looked for.
        put_packed(&mut bytes, &token.0);
        put_address(&mut bytes, *api);
        bytes.push(u8::from(*host == HostHeader::Origin));
        bytes.push(u8::from(*takes_patch));
        put_all(&mut bytes, target.as_deref());
        bytes.push(address.is_some().into());
        address.iter().for_each(|address| put_address(&mut bytes, *address));
        for credentials in [origin, client] {
            bytes.push(credentials.len() as u8);
            for Credentials { ufrag, password } in credentials {
                put_packed(&mut bytes, ufrag.as_str());
                put_packed(&mut bytes, password.expose());
            }
        }
        Self(bytes.into())
    }

    /// Whether this is the secret of the URL.
    pub(super) fn has_token(&self, token: &str) -> bool {
        self.token().is_some_and(|kept| kept == token)
    }

    /// The secret of the URL.
    pub(super) fn token(&self) -> Option<String> {
        Reader(&self.0).packed()
    }

    /// What was kept.
    pub(super) fn open(&self) -> Option<Resource> {
        let mut reader = Reader(&self.0);
        Some(Resource {
            token: Token(reader.packed()?.into()),
            api: reader.address()?,
            host: if reader.byte()? == 0 { HostHeader::Client } else { HostHeader::Origin },
            takes_patch: reader.byte()? != 0,
            target: reader.all()?.first().map(|&target| target.to_owned()),
            address: match reader.byte()? {
                0 => None,
                _ => Some(reader.address()?),
            },
            origin_credentials: reader.credentials()?,
            client_credentials: reader.credentials()?,
        })
    }
}

/// Writes any number of texts, and how many.
fn put_all<'a>(bytes: &mut Vec<u8>, texts: impl IntoIterator<Item = &'a str>) {
    let at = bytes.len();
    bytes.push(0);
    for text in texts {
        put(bytes, text);
        if let Some(count) = bytes.get_mut(at) {
            *count += 1;
        }
    }
}

/// Writes a text behind its length.
fn put(bytes: &mut Vec<u8>, text: &str) {
    put_length(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

/// Writes a text of ice-chars (RFC 8839, section 5.4), four of them in three bytes; and any other
/// text as it is. The lowest bit in front of it tells which.
fn put_packed(bytes: &mut Vec<u8>, text: &str) {
    let value = |byte: u8| ICE_CHARS.iter().position(|&known| known == byte);
    let values: Option<Vec<usize>> = text.bytes().map(value).collect();
    let Some(values) = values else {
        put_length(bytes, text.len() << 1);
        return bytes.extend_from_slice(text.as_bytes());
    };
    put_length(bytes, text.len() << 1 | 1);
    for four in values.chunks(4) {
        let word = four.iter().rev().fold(0, |word, value| word << 6 | *value as u32);
        let [a, b, c, _] = word.to_le_bytes();
        bytes.extend([a, b, c].iter().take(four.len()));
    }
}

/// Writes a number in 7 bits per byte, the lowest first.
fn put_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length > 0x7F {
        bytes.push(0x80 | (length & 0x7F) as u8);
        length >>= 7;
    }
    bytes.push(length as u8);
}

/// Writes an address: the bytes of IPv6, or of an IPv4 address, behind their number, then the port,
/// and the scope that only link-local addresses have.
fn put_address(bytes: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(v4) => {
            bytes.push(4);
            bytes.extend(v4.ip().octets());
        }
        SocketAddr::V6(v6) => {
            bytes.push(16);
            bytes.extend(v6.ip().octets());
            bytes.extend(v6.scope_id().to_be_bytes());
        }
    }
    bytes.extend(address.port().to_be_bytes());
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        self.0.split_off_first().copied()
    }

    fn length(&mut self) -> Option<usize> {
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return Some(length);
            }
        }
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.length()?;
        std::str::from_utf8(self.0.split_off(..length)?).ok()
    }

    fn packed(&mut self) -> Option<String> {
        let head = self.length()?;
        let (mut length, is_packed) = (head >> 1, head & 1 == 1);
        if !is_packed {
            return Some(std::str::from_utf8(self.0.split_off(..length)?).ok()?.to_owned());
        }
        let mut text = String::with_capacity(length);
        while length > 0 {
            let count = length.min(4);
            let three = self.0.split_off(..count.min(3))?;
            let word = three.iter().rev().fold(0, |word, &byte| word << 8 | usize::from(byte));
            let chars = (0..count).map(|place| ICE_CHARS.get(word >> (6 * place) & 0x3F));
            for char in chars {
                text.push(char::from(*char?));
            }
            length -= count;
        }
        Some(text)
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.0.split_off(..N)?.try_into().ok()
    }

    fn address(&mut self) -> Option<SocketAddr> {
        let mut address = match self.byte()? {
            4 => SocketAddr::from((self.bytes::<4>()?, 0)),
            _ => {
                let ip = Ipv6Addr::from(self.bytes::<16>()?);
                let scope = u32::from_be_bytes(self.bytes()?);
                SocketAddr::V6(SocketAddrV6::new(ip, 0, 0, scope))
            }
        };
        address.set_port(u16::from_be_bytes(self.bytes()?));
        Some(address)
    }

    fn all(&mut self) -> Option<Vec<&'a str>> {
        let count = self.byte()?;
        (0..count).map(|_| self.text()).collect()
    }

    fn credentials(&mut self) -> Option<Vec<Credentials>> {
        let count = self.byte()?;
        let credentials = (0..count).map(|_| {
            let ufrag = Ufrag::parse(&self.packed()?).ok()?;
            let password = Password::parse(&self.packed()?).ok()?;
            Some(Credentials { ufrag, password })
        });
        credentials.collect()
    }
}

const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(number: usize) -> Credentials {
        let ufrag = Ufrag::parse(&format!("ufrag{number}")).unwrap();
        let password = Password::parse(&format!("{number}").repeat(256)).unwrap();
        Credentials { ufrag, password }
    }

    fn assert_is_kept(resource: &Resource) {
        let kept = Kept::new(resource);
        assert!(kept.has_token(&resource.token.0));
        assert!(!kept.has_token("another"));
        assert_eq!(kept.open().as_ref(), Some(resource));
    }

    #[test]
    fn all_of_a_resource_is_kept() {
        assert_is_kept(&Resource {
            token: Token("s3cret".into()),
            api: "[fe80::1%2]:1985".parse().unwrap(),
            host: HostHeader::Origin,
            target: Some("/\u{e4}?".repeat(500)),
            takes_patch: true,
            address: Some("10.0.0.1:8000".parse().unwrap()),
            origin_credentials: (0..3).map(credentials).collect(),
            client_credentials: (3..8).map(credentials).collect(),
        });
    }

    #[test]
    fn texts_of_every_length_are_kept() {
        for length in 0..=300 {
            for text in
                ["aZ9+/".repeat(60), "a-Z".repeat(100)].map(|text| text[..length].to_owned())
            {
                let mut bytes = Vec::new();
                put_packed(&mut bytes, &text);
                let mut reader = Reader(&bytes);
                assert_eq!(reader.packed(), Some(text));
                assert!(reader.0.is_empty());
            }
        }
    }

    #[test]
    fn what_a_resource_does_not_have_is_not_made_up() {
        assert_is_kept(&Resource {
            token: Token("".into()),
            api: "10.0.0.1:1985".parse().unwrap(),
            host: HostHeader::Client,
            target: None,
            takes_patch: false,
            address: None,
            origin_credentials: Vec::new(),
            client_credentials: Vec::new(),
        });
    }
}
