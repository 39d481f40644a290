//! Three hosts in a row, client, relay and origin, as network namespaces: the relay's host forwards
//! nothing, so what passes from one end to the other has passed through the relay.
#![allow(unsafe_code, reason = "a thread moves into a namespace of its own")]

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::network::{Network, ip, on_a_thread};

/// The hosts at both ends, seen from the relay's, on which the test runs.
pub struct Hosts {
    pub client: Host,
    pub origin: Host,
}

pub struct Host {
    namespace: File,
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
            let (client, origin) = (Host::build("client", 1), Host::build("origin", 2));
            test(&Self { client, origin });
        });
    }
}

impl Host {
    fn build(name: &str, network: u8) -> Self {
        let namespace = on_a_thread(|| {
            // SAFETY: this thread shares descriptors and memory with the others as before; a
            // network namespace takes nothing from them.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let [relay, own] = [1, 2].map(|host| IpAddr::from(Ipv4Addr::new(10, 9, network, host)));
        let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        ip(&format!("link add {name} type veth peer name cable netns {path}"));
        ip(&format!("address add {relay}/24 dev {name}"));
        ip(&format!("link set {name} up"));
        let host = Self { namespace, ip: own, relay };
        host.on(|| {
            ip("link set lo up");
            ip(&format!("address add {own}/24 dev cable"));
            ip("link set cable up");
            // As hosts have one. Browsers ask which address it goes by.
            ip(&format!("route add default via {relay}"));
        });
        host
    }

    /// Runs `work` on this host. Sockets, threads and programs that it makes stay there.
    pub fn on<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_a_thread(|| {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.namespace.as_fd(), network).unwrap();
            work()
        })
    }
}
