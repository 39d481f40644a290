//! The routes against emulated origins, with a task that answers in control's place.

mod emulation;
mod legacy;
mod offers;
mod origins;
mod routes;
mod sessions;

use super::*;
use crate::control::ask::OfferRefused;
use crate::shard::command::EndReason;
use emulation::*;

/// As a browser offers: candidates of its own network in it.
const OFFER: &str = "v=0\r\n\
    o=- 1 2 IN IP4 127.0.0.1\r\n\
    s=-\r\n\
    t=0 0\r\n\
    a=group:BUNDLE 0 1\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
    c=IN IP4 0.0.0.0\r\n\
    a=mid:0\r\n\
    a=ice-ufrag:EbMB\r\n\
    a=ice-pwd:clientclientclientclient\r\n\
    a=candidate:1 1 udp 2122260223 192.168.7.7 50000 typ host\r\n\
    a=candidate:2 1 udp 2122260222 7f5ac1b2.local 50001 typ host\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\n\
    c=IN IP4 0.0.0.0\r\n\
    a=mid:1\r\n\
    a=ice-ufrag:EbMB\r\n\
    a=ice-pwd:clientclientclientclient\r\n\
    a=end-of-candidates\r\n";

/// As SRS answers: its own address in every section.
const ANSWER: &str = "v=0\r\n\
    o=SRS 3 4 IN IP4 0.0.0.0\r\n\
    s=-\r\n\
    t=0 0\r\n\
    a=ice-lite\r\n\
    a=group:BUNDLE 0 1\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
    c=IN IP4 0.0.0.0\r\n\
    a=mid:0\r\n\
    a=ice-ufrag:w668j549\r\n\
    a=ice-pwd:originoriginoriginorigin\r\n\
    a=candidate:0 1 udp 2130706431 127.0.0.1 8001 typ host generation 0\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\n\
    c=IN IP4 0.0.0.0\r\n\
    a=mid:1\r\n\
    a=ice-ufrag:w668j549\r\n\
    a=ice-pwd:originoriginoriginorigin\r\n\
    a=candidate:1 1 udp 2130706431 10.77.9.1 8001 typ host generation 0\r\n";

const WHIP: &str = "/rtc/v1/whip/?app=live&stream=a";
const WHEP: &str = "/rtc/v1/whep/?app=live&stream=a";
/// As SRS names a session.
const SRS_SESSION: &str =
    "/rtc/v1/whip/?action=delete&token=90s6qxq6x&app=live&stream=a&session=w668j549:EbMB";

fn srs_answer() -> String {
    http("201 Created", &[("Content-Type", SDP), ("Location", SRS_SESSION)], ANSWER)
}

fn mediamtx_answer() -> String {
    let headers = [
        ("Content-Type", SDP),
        ("Location", "/live/a/whip/5a4e7b2c"),
        ("ETag", "*"),
        ("ID", "5a4e7b2c"),
        ("Accept-Patch", TRICKLE),
        ("Link", "<stun:stun.example>; rel=\"ice-server\""),
        ("Access-Control-Allow-Origin", "*"),
        ("Server", "mediamtx"),
    ];
    http("201 Created", &headers, ANSWER)
}

/// A session at an origin that answers the offer like this, and then like that.
async fn session(answers: Vec<String>) -> (Relay, Origin, String) {
    let mut origin = Origin::new(answers.into_iter().map(Step::Answer)).await;
    let mut relay = Relay::before(&origin);
    let answer = relay.post(WHIP, OFFER).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    origin.asked().await;
    assert!(matches!(relay.said().await, Said::Offered(_)));
    assert!(matches!(relay.said().await, Said::Expected { .. }));
    assert!(matches!(relay.said().await, Said::Published(_)));
    let url = answer.header("location").unwrap().to_owned();
    (relay, origin, url)
}
