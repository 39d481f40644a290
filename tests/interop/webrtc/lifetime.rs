//! How long a session lives.

use std::time::{Duration, Instant};

use super::{LOOPBACK, relay_to};
use crate::support::ice;
use crate::support::webrtc_client::{SSRC, WebRtcClient};
use crate::support::webrtc_origin::WebRtcOrigin;

#[test]
fn a_player_that_sends_reports_and_no_more_checks_is_served_beyond_the_idle_timeout() {
    let origin = WebRtcOrigin::start();
    let relay = relay_to(&origin, &["--webrtc-idle-timeout", "1s"]);
    let client = WebRtcClient::play(relay.http, "cam");
    let path = client.path(LOOPBACK, relay.media);
    path.check(true);
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        number += 1;
        origin.send(&client.ufrag, &ice::media(SSRC, number));
        assert_eq!(path.receive_media(Duration::from_secs(2)), Some(number));
        path.send(&ice::report(SSRC));
        // What comes back is the origin's echo of the report, which keeps the pace at 20 a second.
        path.receive_media(Duration::from_millis(50));
    }
    assert_eq!(relay.sessions().len(), 1);
}

#[test]
fn a_client_that_falls_silent_is_forgotten_after_the_idle_timeout() {
    let origin = WebRtcOrigin::start();
    let relay = relay_to(&origin, &["--webrtc-idle-timeout", "1s"]);
    let client = WebRtcClient::publish(relay.http, "cam");
    let path = client.path(LOOPBACK, relay.media);
    path.check(true);
    path.stream_until_echo(&mut 0);
    let begun = Instant::now();
    relay.wait_for_sessions(1);
    relay.wait_for_no_sessions();
    let age = begun.elapsed();
    assert!((Duration::from_millis(700)..Duration::from_secs(5)).contains(&age), "{age:?}");
}
