//! What the operator is told at start: what was chosen, why, and what was granted.

use std::net::SocketAddr;
use std::time::Duration;

use super::Addresses;
use crate::config::Config;
use crate::engine::{
    self, ClientSockets, Engine, Gathering, Offloads, Resolved, Settings, SocketBuffers,
};

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
        lines.push(socket_buffers(settings.socket_buffer_bytes, *granted));
    }
    lines.push(batch_wait(config.batch_wait, resolved.gathering));
    lines.push(client_sockets(settings));
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

/// What was granted, what it is good for, and what to do where it is less than was asked for.
fn socket_buffers(asked: usize, granted: SocketBuffers) -> String {
    let stall = granted.stall(STATED_RATE).as_micros() as f64 / 1000.0;
    let facts = format!(
        "socket buffers: asked {} KiB, granted {} KiB to receive and {} KiB to send; a shard may \
         stall for {stall:.1} ms at {STATED_RATE} datagrams/s",
        asked >> 10,
        granted.receive >> 10,
        granted.send >> 10,
    );
    let limits = [("rmem_max", granted.receive), ("wmem_max", granted.send)];
    let short = limits.iter().filter(|(_, granted)| *granted < asked);
    let remedies: Vec<String> =
        short.map(|(limit, _)| format!("net.core.{limit}={asked}")).collect();
    if remedies.is_empty() {
        return format!("{facts} (only what is queued takes memory)");
    }
    format!(
        "{facts}, and loses datagrams after that: set sysctl {}, or give CAP_NET_ADMIN (that of a \
         user namespace does not count)",
        remedies.join(" and "),
    )
}

fn client_sockets(settings: &Settings) -> String {
    let ClientSockets { max, .. } = settings.clients;
    if max == 0 {
        return "client sockets off: all clients share the listeners' queues".to_owned();
    }
    format!("client sockets: for up to {max} of the busiest clients of each shard")
}

fn batch_wait(wait: Option<Duration>, gathering: Gathering) -> String {
    let Some(wait) = wait else {
        return "batch wait off: no datagram waits for others".to_owned();
    };
    let wait = wait.as_micros();
    let how = match gathering {
        Gathering::Ring => "in the ring",
        Gathering::Nap => "by naps of the shard (a ring does it for less, from Linux 6.12 on)",
        Gathering::Never => {
            return format!("batch wait of {wait} us has no effect: this engine has none");
        }
    };
    format!("batch wait: up to {wait} us, {how}, only while it gathers four datagrams or more")
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

/// Datagrams per second that the banner speaks of when it says what buffers are good for: about what
/// one core relays where each datagram comes by itself.
const STATED_RATE: u32 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PublicAddress;

    fn granted(receive: usize, send: usize) -> String {
        socket_buffers(4 << 20, SocketBuffers { receive, send })
    }

    #[test]
    fn buffers_that_are_granted_are_told_in_milliseconds_of_stall() {
        assert_eq!(
            granted(4 << 20, 4 << 20),
            "socket buffers: asked 4096 KiB, granted 4096 KiB to receive and 4096 KiB to send; a \
             shard may stall for 36.4 ms at 100000 datagrams/s (only what is queued takes memory)"
        );
    }

    #[test]
    fn buffers_that_are_refused_name_the_limit_to_raise() {
        let both = granted(208 << 10, 208 << 10);
        assert!(both.contains("stall for 1.8 ms at 100000 datagrams/s, and loses"), "{both}");
        let sysctl = "set sysctl net.core.rmem_max=4194304 and net.core.wmem_max=4194304, or give";
        assert!(both.contains(sysctl), "{both}");
        let send = granted(4 << 20, 208 << 10);
        assert!(send.contains("set sysctl net.core.wmem_max=4194304, or give"), "{send}");
    }

    #[test]
    fn waiting_for_datagrams_is_told_with_its_way() {
        let wait = Some(Duration::from_micros(250));
        assert_eq!(
            batch_wait(wait, Gathering::Ring),
            "batch wait: up to 250 us, in the ring, only while it gathers four datagrams or more"
        );
        assert!(batch_wait(wait, Gathering::Nap).contains("naps of the shard"));
        assert!(batch_wait(wait, Gathering::Never).contains("no effect"));
        assert!(batch_wait(None, Gathering::Ring).starts_with("batch wait off"));
    }

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
