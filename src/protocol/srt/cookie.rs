//! The listener's cookie: proof that the caller receives at the address it sends from, kept by
//! nobody.
//!
//! A keyed hash stands in for a table of callers: whoever returns the cookie has read it at that
//! address within the last one or two buckets of time (draft-sharabayko-srt, section 4.3.1.1). It
//! holds against blind spoofing, not against somebody who can read the path.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

use siphasher::sip::SipHasher24;

use super::SocketId;

/// The secret behind the cookies: the same on all shards, and on all relays of a fleet.
#[derive(Clone)]
pub struct CookieKey([u8; 16]);

impl CookieKey {
    /// Seconds that one bucket lasts. A cookie lives for one to two of them; callers give up after
    /// 3 to 10 s.
    pub const BUCKET_SECONDS: u64 = 32;

    /// Takes the key, which must come from a cryptographic source.
    pub fn new(key: [u8; 16]) -> Self {
        Self(key)
    }

    /// The cookie of one caller in one bucket (wall-clock seconds divided by
    /// [`Self::BUCKET_SECONDS`]).
    ///
    /// Never zero, which callers send before they have one. An IPv4 address and its v4-mapped form
    /// are the same caller.
    pub fn bake(&self, bucket: u64, caller: SocketAddr, socket: SocketId) -> u32 {
        let address = match caller.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let mut hasher = SipHasher24::new_with_key(&self.0);
        // Fixed widths and network order: relays of different kinds must bake the same.
        hasher.write(&bucket.to_be_bytes());
        hasher.write(&address.octets());
        hasher.write(&caller.port().to_be_bytes());
        hasher.write(&socket.0.to_be_bytes());
        let [.., c0, c1, c2, c3] = hasher.finish().to_be_bytes();
        u32::from_be_bytes([c0, c1, c2, c3]).max(1)
    }

    /// Whether the caller was given `cookie` in this bucket or the one before.
    pub fn is_valid(&self, cookie: u32, bucket: u64, caller: SocketAddr, socket: SocketId) -> bool {
        let current = self.bake(bucket, caller, socket);
        let previous = self.bake(bucket.wrapping_sub(1), caller, socket);
        // Both are always computed: the answer takes the same time whichever of them it was.
        (cookie == current) | (cookie == previous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BUCKET: u64 = 55_000_000;
    const SOCKET: SocketId = SocketId(0x184b_6180);

    fn key() -> CookieKey {
        CookieKey::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
    }

    fn caller() -> SocketAddr {
        "203.0.113.7:5004".parse().unwrap()
    }

    #[test]
    fn every_relay_of_a_fleet_bakes_the_same() {
        assert_eq!(key().bake(BUCKET, caller(), SOCKET), COOKIE_V4);
        assert_eq!(key().bake(BUCKET, "[2001:db8::7]:5004".parse().unwrap(), SOCKET), COOKIE_V6);
    }

    #[test]
    fn a_v4_mapped_address_is_the_same_caller() {
        let mapped = "[::ffff:203.0.113.7]:5004".parse().unwrap();
        assert_eq!(key().bake(BUCKET, mapped, SOCKET), key().bake(BUCKET, caller(), SOCKET));
    }

    #[test]
    fn a_cookie_is_valid_in_its_bucket_and_the_next_and_no_longer() {
        let cookie = key().bake(BUCKET, caller(), SOCKET);
        assert!(key().is_valid(cookie, BUCKET, caller(), SOCKET));
        assert!(key().is_valid(cookie, BUCKET + 1, caller(), SOCKET));
        assert!(!key().is_valid(cookie, BUCKET + 2, caller(), SOCKET));
        assert!(!key().is_valid(cookie, BUCKET - 1, caller(), SOCKET));
    }

    #[test]
    fn a_cookie_is_worthless_from_another_port_address_or_socket_or_under_another_key() {
        let cookie = key().bake(BUCKET, caller(), SOCKET);
        assert!(!key().is_valid(cookie, BUCKET, "203.0.113.7:5005".parse().unwrap(), SOCKET));
        assert!(!key().is_valid(cookie, BUCKET, "203.0.113.8:5004".parse().unwrap(), SOCKET));
        assert!(!key().is_valid(cookie, BUCKET, caller(), SocketId(SOCKET.0 + 1)));
        assert!(!CookieKey::new([7; 16]).is_valid(cookie, BUCKET, caller(), SOCKET));
    }

    #[test]
    fn the_first_bucket_of_all_has_a_predecessor() {
        let cookie = key().bake(0, caller(), SOCKET);
        assert!(key().is_valid(cookie, 0, caller(), SOCKET));
    }

    proptest! {
        #[test]
        fn no_cookie_is_zero_and_zero_is_no_cookie(bucket: u64, port: u16, socket: u32) {
            let caller = SocketAddr::new(caller().ip(), port);
            prop_assert_ne!(key().bake(bucket, caller, SocketId(socket)), 0);
            prop_assert!(!key().is_valid(0, bucket, caller, SocketId(socket)));
        }
    }

    /// SipHash-2-4 of the 30 bytes by an independent implementation, low half.
    const COOKIE_V4: u32 = 0xf4ef_a944;
    const COOKIE_V6: u32 = 0xcade_2712;
}
