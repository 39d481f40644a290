//! Clients without signalling (`--webrtc-direct`) and their listeners, both of them str0m: ICE, DTLS and data channels.

use crate::support::direct::{Dial, DirectClient, DirectOrigin, fresh_ufrag};
use crate::support::http;
use crate::support::webrtc_relay::WebRtcRelay;

/// A relay that lets clients without signalling in.
fn relay_to(origins: &[String], arguments: &[&str]) -> WebRtcRelay {
    let mut all = vec!["--webrtc-direct", "on"];
    all.extend(origins.iter().flat_map(|origin| ["--origin", origin]));
    all.extend(arguments);
    WebRtcRelay::start(&all)
}

#[test]
fn a_client_and_a_listener_that_share_nothing_but_a_ufrag_talk_by_dtls_both_ways() {
    let origin = DirectOrigin::start("d");
    let relay = relay_to(&[origin.flag("d")], &[]);
    let ufrag = fresh_ufrag();
    let mut client = DirectClient::dial(&Dial::new(relay.media, &ufrag, &origin));
    client.connect();
    assert!(client.until(|end| end.heard.contains(&"d greets".to_owned())));
    assert_eq!(client.exchange("hello"), "d: hello");
}

#[test]
fn the_two_ends_understand_each_other_without_a_relay() {
    let origin = DirectOrigin::start("d");
    let ufrag = fresh_ufrag();
    let mut client = DirectClient::dial(&Dial::new(origin.address, &ufrag, &origin));
    client.connect();
    assert_eq!(client.exchange("hello"), "d: hello");
}
