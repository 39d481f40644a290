//! WebRTC through the relay: scripted ends for what no browser can be made to do, and real ones.

mod browsers;
mod hostile;
mod lifetime;
mod origins;
mod roaming;
mod signalling;

use std::net::{IpAddr, Ipv4Addr};

use crate::support::webrtc_client::WebRtcClient;
use crate::support::webrtc_origin::WebRtcOrigin;
use crate::support::webrtc_relay::WebRtcRelay;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A relay with one origin.
fn relay_to(origin: &WebRtcOrigin, arguments: &[&str]) -> WebRtcRelay {
    let flag = origin.flag("a");
    WebRtcRelay::start(&[&["--origin", flag.as_str()], arguments].concat())
}

#[test]
fn the_scripted_ends_understand_each_other_without_a_relay() {
    let origin = WebRtcOrigin::start();
    let client = WebRtcClient::publish(origin.api, "cam");
    let path = client.path(LOOPBACK, origin.media);
    assert_eq!(path.check(true), path.address());
    path.stream_until_echo(&mut 0);
    assert_eq!(client.delete(origin.api).status, 200);
    assert!(origin.session(&client.ufrag).is_none());
}
