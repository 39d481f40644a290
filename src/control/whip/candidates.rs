//! The addresses that clients are told to send their media to.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use super::Signalling;
use super::client::Client;
use crate::control::http::Problem;

impl Signalling {
    /// The relay's own addresses for this client, in order of preference.
    pub(super) fn own_addresses(&self, client: &Client) -> Result<Vec<SocketAddr>, Problem> {
        let Some(listener) = self.webrtc else {
            let detail = "this relay takes no WebRTC: it runs with --webrtc-listen off";
            return Err(Problem::unavailable(detail));
        };
        let mut own = self.config.candidates(listener);
        if own.is_empty() {
            own.extend(reached(listener, client.local));
        }
        if own.is_empty() {
            let detail = "this relay does not know its address: set --public-address";
            return Err(Problem::unavailable(detail));
        }
        // Some clients look at the first candidate only, so it is one that they surely can reach.
        own.sort_by_key(|address| address.is_ipv4() != client.ip.is_ipv4());
        let is_unreachable = own.iter().all(|address| address.ip().is_loopback());
        if is_unreachable && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "candidates are on loopback alone, which browsers ignore: set --public-address"
            );
        }
        Ok(own)
    }
}

/// Where a client that has reached `local` by HTTP reaches a listener on all addresses.
fn reached(listener: SocketAddr, local: IpAddr) -> Option<SocketAddr> {
    // One of IPv6 takes IPv4, too; the other way round it does not.
    let is_served = listener.is_ipv6() || local.is_ipv4();
    (is_served && !local.is_unspecified()).then(|| SocketAddr::new(local, listener.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_where_http_was_reached() {
        let table = [
            ("[::]:18000", "192.0.2.1", Some("192.0.2.1:18000")),
            ("[::]:18000", "2001:db8::1", Some("[2001:db8::1]:18000")),
            ("0.0.0.0:18000", "192.0.2.1", Some("192.0.2.1:18000")),
            ("0.0.0.0:18000", "2001:db8::1", None),
            ("[::]:18000", "0.0.0.0", None),
        ];
        for (listener, local, expected) in table {
            let address = reached(listener.parse().unwrap(), local.parse().unwrap());
            assert_eq!(address, expected.map(|text| text.parse().unwrap()), "{listener} {local}");
        }
    }
}
