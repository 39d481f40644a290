//! Registers an emulated origin with a relay's system API, with the body that SRS posts.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, ensure};

use crate::http;

/// What the emulator calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Where the system API listens.
    pub api: SocketAddr,
    /// The address that the relay is to use.
    pub srt: SocketAddr,
    /// Stable across restarts.
    pub server: String,
    /// Changes with each restart.
    pub service: String,
}

impl Registration {
    /// For the API at `url`, which is `http://HOST:PORT`.
    ///
    /// # Errors
    /// The URL has another form, or the host is no IP address.
    pub fn new(url: &str, srt: SocketAddr) -> anyhow::Result<Self> {
        let authority = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let api = authority.and_then(|authority| authority.parse().ok());
        let api =
            api.with_context(|| format!("{url} is not of the form http://127.0.0.1:12025"))?;
        let process = std::process::id();
        let service = format!("{process:x}-{:x}", crate::clock::now());
        Ok(Self { api, srt, server: format!("emulator-{}", srt.port()), service })
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
        serde_json::json!({
            "device_id": self.server,
            "ip": self.srt.ip().to_string(),
            "server": self.server,
            "service": self.service,
            "pid": std::process::id().to_string(),
            "rtmp": ["1935"],
            "srt": [format!("udp://0.0.0.0:{}", self.srt.port())],
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

    #[test]
    fn the_body_holds_what_a_relay_needs() {
        let srt = "10.0.0.5:10080".parse().unwrap();
        let registration = Registration::new("http://127.0.0.1:12025/", srt).unwrap();
        let body: serde_json::Value = serde_json::from_str(&registration.body()).unwrap();
        assert_eq!(body["ip"], "10.0.0.5");
        assert_eq!(body["srt"][0], "udp://0.0.0.0:10080");
        assert!(body["pid"].is_string());
    }

    #[test]
    fn a_url_without_a_port_is_refused_with_an_example() {
        let error = Registration::new("http://relay", "127.0.0.1:1".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("http://127.0.0.1:12025"));
    }
}
