//! Who asks, behind trusted proxies, and what an origin is told of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, IF_MATCH,
    IF_NONE_MATCH, USER_AGENT,
};
use axum::http::request::Parts;

use super::Signalling;
use crate::config::{Config, HostHeader};
use crate::control::http::{Local, Peer, Problem, Scheme};

/// A client, as one request shows it.
pub(super) struct Client {
    /// Behind trusted proxies.
    pub(super) ip: IpAddr,
    /// Where its connection, or that of its proxy, was accepted.
    pub(super) local: IpAddr,
    /// As it wrote it.
    pub(super) host: Option<HeaderValue>,
    /// What origins are told, `Host` and `Content-Type` aside.
    told: HeaderMap,
}

impl Client {
    fn new(parts: &Parts, peer: IpAddr, local: IpAddr, config: &Config) -> Self {
        let headers = &parts.headers;
        let is_trusted = |ip: IpAddr| config.trusted_proxies.iter().any(|net| net.contains(&ip));
        let of_uri = || HeaderValue::from_str(parts.uri.authority()?.as_str()).ok();
        let host = headers.get(HOST).cloned().or_else(of_uri);
        let mut told = HeaderMap::new();
        for name in FORWARDED_HEADERS {
            for value in headers.get_all(&name) {
                told.append(name.clone(), value.clone());
            }
        }
        let from_proxy = |name: HeaderName| headers.get(name).filter(|_| is_trusted(peer)).cloned();
        let scheme = parts.extensions.get().copied().unwrap_or(Scheme::Http);
        let scheme = HeaderValue::from_static(scheme.as_str());
        let proto = from_proxy(X_FORWARDED_PROTO).unwrap_or(scheme);
        told.insert(X_FORWARDED_PROTO, proto);
        if let Some(host) = from_proxy(X_FORWARDED_HOST).or_else(|| host.clone()) {
            told.insert(X_FORWARDED_HOST, host);
        }
        let way = way(peer, headers, is_trusted);
        let ip = way.first().copied().unwrap_or(peer);
        let way: Vec<String> = way.iter().map(ToString::to_string).collect();
        for (name, value) in [(X_FORWARDED_FOR, way.join(", ")), (X_REAL_IP, ip.to_string())] {
            if let Ok(value) = HeaderValue::try_from(value) {
                told.insert(name, value);
            }
        }
        Self { ip, local, host, told }
    }

    /// The headers of a request to an origin.
    pub(super) fn headers(
        &self,
        host: HostHeader,
        api: SocketAddr,
        content_type: Option<&'static str>,
    ) -> HeaderMap {
        let mut headers = self.told.clone();
        if let Some(host) = self.host_for(host, api) {
            headers.insert(HOST, host);
        }
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        headers
    }

    /// The Host header for an origin. SRS takes the vhost from it, others build URLs of it.
    pub(super) fn host_for(&self, host: HostHeader, api: SocketAddr) -> Option<HeaderValue> {
        let own = || HeaderValue::try_from(api.to_string()).ok();
        match host {
            HostHeader::Client => self.host.clone().or_else(own),
            HostHeader::Origin => own(),
        }
    }
}

impl FromRequestParts<Arc<Signalling>> for Client {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        signalling: &Arc<Signalling>,
    ) -> Result<Self, Problem> {
        let Peer(peer) = Peer::from_request_parts(parts, signalling).await?;
        let Local(local) = Local::from_request_parts(parts, signalling).await?;
        Ok(Self::new(parts, peer.ip(), local.ip(), &signalling.config))
    }
}

/// The way that a request has come, the client in front and the peer at the end: only what a trusted
/// proxy noted is believed. What stands in front of that was made up by somebody, and must not reach
/// an origin: SRS takes the first address of all for the client's.
fn way(peer: IpAddr, headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let noted: Vec<&str> = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or("").split(','))
        .collect();
    let (mut way, mut ip) = (vec![peer], peer);
    for hop in noted.into_iter().rev().map_while(hop) {
        if !is_trusted(ip) {
            break;
        }
        ip = hop;
        way.push(ip);
    }
    way.reverse();
    way
}

/// An address, which some proxies write with its port.
fn hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    bare.parse().ok().or_else(with_port).map(|ip: IpAddr| ip.to_canonical())
}

/// What reaches an origin unchanged. `Content-Type` does in its plain form: MediaMTX takes it
/// without parameters only.
const FORWARDED_HEADERS: [HeaderName; 5] =
    [AUTHORIZATION, IF_MATCH, IF_NONE_MATCH, ACCEPT, USER_AGENT];
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    const PROXY: &str = "10.0.0.1";

    fn client(peer: &str, request: axum::http::request::Builder) -> Client {
        let config =
            Config { trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..Config::default() };
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Client::new(&parts, peer.parse().unwrap(), PROXY.parse().unwrap(), &config)
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_who_asks() {
        let table = [
            (PROXY, "192.0.2.7", "192.0.2.7", "192.0.2.7, 10.0.0.1"),
            (PROXY, "1.1.1.1, 192.0.2.7,10.0.0.9", "192.0.2.7", "192.0.2.7, 10.0.0.9, 10.0.0.1"),
            (PROXY, "10.0.0.8, 10.0.0.9", "10.0.0.8", "10.0.0.8, 10.0.0.9, 10.0.0.1"),
            (PROXY, "192.0.2.7:4711", "192.0.2.7", "192.0.2.7, 10.0.0.1"),
            (PROXY, "[2001:db8::7]:4711", "2001:db8::7", "2001:db8::7, 10.0.0.1"),
            (PROXY, "made up, 192.0.2.7", "192.0.2.7", "192.0.2.7, 10.0.0.1"),
            (PROXY, "unknown", PROXY, PROXY),
            ("192.0.2.8", "192.0.2.7", "192.0.2.8", "192.0.2.8"),
        ];
        for (peer, noted, ip, way) in table {
            let client = client(peer, Request::get("/").header("x-forwarded-for", noted));
            assert_eq!(client.ip.to_string(), ip, "{noted}");
            assert_eq!(client.told["x-forwarded-for"], way, "{noted}");
            assert_eq!(client.told["x-real-ip"], ip, "{noted}");
        }
    }

    #[test]
    fn a_client_cannot_say_for_itself_what_proxies_say() {
        let request = || {
            Request::get("/")
                .header("host", "relay.example")
                .header("x-forwarded-host", "else.example")
                .header("x-forwarded-proto", "https")
        };
        let direct = client("192.0.2.8", request());
        assert_eq!(direct.told["x-forwarded-host"], "relay.example");
        assert_eq!(direct.told["x-forwarded-proto"], "http");
        let proxied = client(PROXY, request());
        assert_eq!(proxied.told["x-forwarded-host"], "else.example");
        assert_eq!(proxied.told["x-forwarded-proto"], "https");
    }

    #[test]
    fn the_host_is_the_clients_or_the_origins() {
        let api = "[::1]:1985".parse().unwrap();
        let client = client(PROXY, Request::get("/").header("host", "v.example:11985"));
        assert_eq!(client.headers(HostHeader::Client, api, None)[HOST], "v.example:11985");
        assert_eq!(client.headers(HostHeader::Origin, api, None)[HOST], "[::1]:1985");
    }

    #[test]
    fn headers_outside_the_list_stay_here() {
        let request = Request::get("/")
            .header("authorization", "Bearer x")
            .header("cookie", "a=b")
            .header("forwarded", "for=1.1.1.1")
            .header("origin", "https://page.example");
        let told =
            client(PROXY, request).headers(HostHeader::Client, "1.2.3.4:5".parse().unwrap(), None);
        assert_eq!(told["authorization"], "Bearer x");
        for name in ["cookie", "forwarded", "origin"] {
            assert!(!told.contains_key(name), "{name}");
        }
    }
}
