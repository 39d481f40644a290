//! What stands behind a session URL, in the form in which it is kept as long as the session lives.
//!
//! It is read when the client restarts ICE or ends the session, so it may take a microsecond to
//! read, and should take little room: one block of bytes, where the parts as values would be a dozen.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

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
        put(&mut bytes, &token.0);
        put_address(&mut bytes, *api);
        bytes.push(u8::from(*host == HostHeader::Origin));
        bytes.push(u8::from(*takes_patch));
        put_all(&mut bytes, target.as_deref());
        bytes.push(address.is_some().into());
        address.iter().for_each(|address| put_address(&mut bytes, *address));
        for credentials in [origin, client] {
            let texts = credentials.iter().map(|it| [it.ufrag.as_str(), it.password.expose()]);
            put_all(&mut bytes, texts.flatten());
        }
        Self(bytes.into())
    }

    /// The secret of the URL.
    pub(super) fn token(&self) -> &str {
        Reader(&self.0).text().unwrap_or_default()
    }

    /// What was kept.
    pub(super) fn open(&self) -> Option<Resource> {
        let mut reader = Reader(&self.0);
        Some(Resource {
            token: Token(Arc::from(reader.text()?)),
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

/// Writes a text behind its length, in 7 bits per byte, the lowest first.
fn put(bytes: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    while length > 0x7F {
        bytes.push(0x80 | (length & 0x7F) as u8);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(text.as_bytes());
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

    fn text(&mut self) -> Option<&'a str> {
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        std::str::from_utf8(self.0.split_off(..length)?).ok()
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
        let texts = self.all()?;
        let (pairs, _) = texts.as_chunks();
        let credentials = pairs.iter().map(|[ufrag, password]| {
            let (ufrag, password) = (Ufrag::parse(ufrag).ok()?, Password::parse(password).ok()?);
            Some(Credentials { ufrag, password })
        });
        credentials.collect()
    }
}

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
        assert_eq!(kept.token(), &*resource.token.0);
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
