//! Registers an emulated origin with a relay's system API, with the body that SRS posts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, ensure};

use crate::http;

/// What the emulator calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Where the system API listens.
    pub api: SocketAddr,
    /// What the relay is told about.
    pub endpoints: Endpoints,
    /// Stable across restarts.
    pub server: String,
    /// Changes with each restart.
    pub service: String,
}

/// Where an origin is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Endpoints {
    /// The address of all of them.
    pub ip: IpAddr,
    /// UDP port of SRT.
    pub srt: Option<u16>,
    /// UDP port of WebRTC.
    pub rtc: Option<u16>,
    /// TCP port of WHIP and WHEP.
    pub api: Option<u16>,
}

impl Endpoints {
    /// Those of an origin that has SRT alone.
    #[must_use]
    pub fn srt(address: SocketAddr) -> Self {
        Self { ip: address.ip(), srt: Some(address.port()), rtc: None, api: None }
    }
}

impl Registration {
    /// For the API at `url`, which is `http://HOST:PORT`.
    ///
    /// # Errors
    /// The URL has another form, or the host has no address.
    pub fn new(url: &str, endpoints: Endpoints) -> anyhow::Result<Self> {
        let api = http::server(url)?;
        let process = std::process::id();
        let service = format!("{process:x}-{:x}", crate::clock::now());
        let port = endpoints.srt.or(endpoints.rtc).unwrap_or(0);
        Ok(Self { api, endpoints, server: format!("emulator-{port}"), service })
    }

    /// Registers, or says again that the origin is there.
    ///
    /// # Errors
    /// The API cannot be reached or refuses.
    pub fn post(&self) -> anyhow::Result<()> {
        let answer = http::post(self.api, "/api/v1/srs/register", &self.body())
            .with_context(|| format!("register at {}", self.api))?;
        ensure!(
            answer.status == 200,
            "{} refuses the registration: {} {}",
            self.api,
            answer.status,
            answer.body
        );
        Ok(())
    }

    fn body(&self) -> String {
        let Endpoints { ip, srt, rtc, api } = self.endpoints;
        let udp = |port: Option<u16>| port.map(|port| format!("udp://0.0.0.0:{port}"));
        serde_json::json!({
            "device_id": self.server,
            "ip": ip.to_string(),
            "server": self.server,
            "service": self.service,
            "pid": std::process::id().to_string(),
            "rtmp": ["1935"],
            "srt": Vec::from_iter(udp(srt)),
            "rtc": Vec::from_iter(udp(rtc)),
            "api": Vec::from_iter(api.map(|port| port.to_string())),
        })
        .to_string()
    }
}

/// The address that others on this machine reach a socket at which is bound to `bound`.
#[must_use]
pub fn reachable(bound: SocketAddr) -> SocketAddr {
    match bound {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, v6.port()).into(),
        SocketAddr::V4(_) | SocketAddr::V6(_) => bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINTS: Endpoints = Endpoints {
        ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5)),
        srt: Some(10_080),
        rtc: None,
        api: Some(1_985),
    };

    #[test]
    fn the_body_holds_what_a_relay_needs() {
        let registration = Registration::new("http://127.0.0.1:12025/", ENDPOINTS).unwrap();
        let body: serde_json::Value = serde_json::from_str(&registration.body()).unwrap();
        assert_eq!(body["ip"], "10.0.0.5");
        assert_eq!(body["srt"][0], "udp://0.0.0.0:10080");
        assert_eq!(body["rtc"], serde_json::json!([]));
        assert_eq!(body["api"][0], "1985");
        assert!(body["pid"].is_string());
    }

    #[test]
    fn a_url_without_a_port_is_refused_with_an_example() {
        let error = Registration::new("http://127.0.0.1", ENDPOINTS).unwrap_err();
        assert!(error.to_string().contains("http://127.0.0.1:"));
    }
}
