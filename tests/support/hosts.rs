//! Three hosts in a row, client, relay and origin: no end has a route to the other and the relay's host
//! forwards nothing, so what gets across has passed through the relay.

use std::net::{IpAddr, Ipv4Addr};

use super::network::{Host, Network, ip};

/// The hosts at both ends, seen from the relay's, on which the test runs.
pub struct Hosts {
    pub client: End,
    pub origin: End,
}

pub struct End {
    pub host: Host,
    /// Its own address.
    pub ip: IpAddr,
    /// The relay's, on the cable between them.
    pub relay: IpAddr,
}

impl Hosts {
    /// Runs `test` on the relay's host, under the conditions of [`Network::run`].
    pub fn run(test: impl FnOnce(&Self) + Send) {
        Network::run_on_a_host(|| {
            ip("link set lo up");
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
            test(&Self { client: End::build("client", 1), origin: End::build("origin", 2) });
        });
    }
}

impl End {
    fn build(name: &str, network: u8) -> Self {
        let [relay, own] = [1, 2].map(|host| IpAddr::from(Ipv4Addr::new(10, 9, network, host)));
        let host = Host::cabled(name, "cable");
        ip(&format!("address add {relay}/24 dev {name}"));
        ip(&format!("link set {name} up"));
        host.on(|| {
            ip("link set lo up");
            ip(&format!("address add {own}/24 dev cable"));
            ip("link set cable up");
        });
        Self { host, ip: own, relay }
    }
}
