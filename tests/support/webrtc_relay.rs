//! The relay with its WebRTC listeners open.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;

use super::process::{Ringway, address_after};

pub struct WebRtcRelay {
    relay: Ringway,
    /// WHIP and WHEP.
    pub http: SocketAddr,
    /// Where media comes to.
    pub media: SocketAddr,
}

impl WebRtcRelay {
    /// On loopback.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), arguments)
    }

    /// On ports of the kernel's choosing, with `arguments` besides.
    pub fn start_at(ip: IpAddr, arguments: &[&str]) -> Self {
        let listen = SocketAddr::new(ip, 0).to_string();
        let mut all = vec!["--webrtc-listen", &listen, "--http-listen", &listen];
        all.extend(arguments);
        let mut relay = Ringway::start(&all);
        let said = relay.program.said();
        let address = |label| {
            let line = said.lines().find(|line| line.contains(label));
            address_after(line.unwrap_or_else(|| panic!("{label:?} is missing in {said}")), label)
        };
        let (http, media) = (address("HTTP API on "), address("WebRTC on "));
        Self { relay, http, media }
    }

    /// The sum of all series of a metric, whatever their labels, that hold `label`.
    pub fn sum(&self, metric: &str, label: &str) -> f64 {
        let text = super::http::get(self.system, "/metrics").unwrap().body;
        let series = text.lines().filter(|line| line.starts_with(metric) && line.contains(label));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Deref for WebRtcRelay {
    type Target = Ringway;

    fn deref(&self) -> &Ringway {
        &self.relay
    }
}
