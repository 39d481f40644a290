//! What the operator is told at start: what was chosen, why, and what was granted.

use std::net::SocketAddr;

use super::Addresses;
use crate::config::Config;
use crate::engine::{self, Engine, Offloads, Resolved, Settings, SocketBuffers};

/// What the banner speaks of.
pub(super) struct Facts<'a> {
    pub(super) config: &'a Config,
    pub(super) resolved: &'a Resolved,
    pub(super) offloads: Offloads,
    pub(super) settings: &'a Settings,
    pub(super) cpus: &'a [Option<usize>],
    pub(super) buffers: Option<SocketBuffers>,
    pub(super) addresses: &'a Addresses,
    pub(super) sessions_max: u32,
}

pub(super) fn lines(facts: &Facts<'_>) -> Vec<String> {
    let Facts { config, resolved, offloads, settings, cpus, buffers, addresses, sessions_max } =
        facts;
    let on = |on: bool| if on { "on" } else { "off" };
    let pins: Vec<String> = cpus
        .iter()
        .map(|cpu| cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string()))
        .collect();
    let mut lines = vec![
        format!("Ringway {}", env!("CARGO_PKG_VERSION")),
        format!("engine {}: {}", resolved.engine.label(), resolved.reason),
        format!("shards {} on CPUs {}", cpus.len(), pins.join(",")),
        format!("offloads: GSO {}, GRO {}", on(offloads.gso), on(offloads.gro)),
        memory(resolved.engine, *offloads, settings),
    ];
    if let Some(granted) = buffers {
        let asked = settings.socket_buffer_bytes >> 10;
        let remedy = if granted.receive < settings.socket_buffer_bytes {
            "; queues overflow sooner: raise net.core.rmem_max and wmem_max, or give CAP_NET_ADMIN"
        } else {
            ""
        };
        lines.push(format!(
            "socket buffers: asked {asked} KiB, granted {} KiB to receive and {} KiB to send{remedy}",
            granted.receive >> 10,
            granted.send >> 10,
        ));
    }
    lines.push(format!(
        "limits: {sessions_max} sessions, {} per client; {} handshakes under way, {} per client",
        config.sessions_per_source, config.pending_max, config.pending_per_source,
    ));
    lines.push(format!("SRT on {} (UDP)", or_off(addresses.srt)));
    lines.push(webrtc(config, addresses.webrtc));
    let tls = if config.tls.is_some() && addresses.http.is_some() { " (TLS)" } else { "" };
    lines.push(format!(
        "system API on {}, HTTP API on {}{tls}",
        or_off(addresses.system),
        or_off(addresses.http)
    ));
    lines
}

fn memory(engine: Engine, offloads: Offloads, settings: &Settings) -> String {
    match engine::memory_per_session(engine, offloads) {
        0 => {
            let bytes = engine::memory_per_shard(engine, offloads, *settings);
            format!("receive buffers: {} MiB per shard", bytes >> 20)
        }
        bytes => format!("receive buffers: up to {} KiB for each session", bytes >> 10),
    }
}

fn webrtc(config: &Config, address: Option<SocketAddr>) -> String {
    let Some(address) = address else {
        return "WebRTC off".to_owned();
    };
    let candidates = config.candidates(address);
    let told = if candidates.is_empty() {
        "the address that each HTTP request comes to".to_owned()
    } else {
        candidates.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    format!("WebRTC on {address} (UDP), clients are told {told}")
}

fn or_off(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "off".to_owned(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PublicAddress;

    fn told(public: &[&str], listener: Option<&str>) -> String {
        let public = public.iter().map(|ip| PublicAddress { ip: ip.parse().unwrap(), port: None });
        let config = Config { public_addresses: public.collect(), ..Config::default() };
        webrtc(&config, listener.map(|address| address.parse().unwrap()))
    }

    #[test]
    fn the_banner_says_what_candidates_clients_get() {
        assert_eq!(
            told(&["198.51.100.7", "2001:db8::7"], Some("[::]:18000")),
            "WebRTC on [::]:18000 (UDP), clients are told 198.51.100.7:18000, [2001:db8::7]:18000"
        );
        assert_eq!(
            told(&[], Some("[::]:18000")),
            "WebRTC on [::]:18000 (UDP), clients are told the address that each HTTP request comes to"
        );
        assert_eq!(told(&[], None), "WebRTC off");
    }
}
