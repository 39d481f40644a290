//! WHIP and WHEP over HTTP, and that media follows.

use super::{LOOPBACK, relay_to};
use crate::support::http::{self, Reply};
use crate::support::ice::Credentials;
use crate::support::webrtc_client::{WebRtcClient, offer};
use crate::support::webrtc_origin::{ETAG, LINK, PRIVATE, WebRtcOrigin};
use crate::support::webrtc_relay::WebRtcRelay;

#[test]
fn media_flows_both_ways_though_the_origin_names_an_address_that_leads_nowhere() {
    let origin = WebRtcOrigin::start();
    let relay = relay_to(&origin, &[]);
    let client = WebRtcClient::publish(relay.http, "cam");
    assert_eq!(client.candidates, [relay.media]);
    assert!(!client.reply.body.contains(PRIVATE), "{}", client.reply.body);
    let path = client.path(LOOPBACK, relay.media);
    assert_eq!(path.check(true), path.address(), "it learns its own address, not the relay's");
    path.stream_until_echo(&mut 0);
    let session = relay.wait_for_sessions(1).remove(0);
    assert_eq!(session["proto"], "webrtc", "{session}");
    assert_eq!(session["role"], "publish", "{session}");
    assert_eq!(session["stream"], "__defaultVhost__/live/cam", "{session}");
    assert_eq!(session["webrtc"]["addresses"][0], path.address().to_string(), "{session}");
}

#[test]
fn the_answer_says_what_the_origin_says_and_leads_back_to_the_relay() {
    let origin = WebRtcOrigin::start();
    let relay = relay_to(&origin, &[]);
    let reply = WebRtcClient::publish(relay.http, "cam").reply;
    assert!(reply.header("Location").unwrap().contains("/rtc/v1/session/"), "{}", reply.head);
    assert_eq!(reply.header("ETag"), Some(ETAG));
    assert_eq!(reply.header("Link"), Some(LINK));
    assert_eq!(reply.header("Content-Type"), Some("application/sdp"));
    assert_eq!(reply.header("Access-Control-Allow-Origin"), Some("*"));
    let exposed = reply.header("Access-Control-Expose-Headers").unwrap();
    for name in ["Location", "ETag", "Link"] {
        assert!(exposed.split(", ").any(|one| one == name), "{name} in {exposed}");
    }
}

#[test]
fn the_origin_gets_the_offer_without_the_clients_addresses_and_with_its_authorization() {
    let origin = WebRtcOrigin::start();
    let relay = relay_to(&origin, &[]);
    let _client = WebRtcClient::publish(relay.http, "cam");
    let request = origin.next_request();
    assert_eq!(request.target, "/rtc/v1/whip/?app=live&stream=cam");
    assert_eq!(request.header("Authorization"), Some("Bearer key"));
    assert_eq!(request.header("X-Forwarded-For"), Some("127.0.0.1"));
    assert!(!request.body.contains("a=candidate"), "{}", request.body);
    assert!(!request.body.contains("10.20.30.40"), "{}", request.body);
}

#[test]
fn a_preflight_passes_without_a_word_to_the_origin() {
    let origin = WebRtcOrigin::start();
    let relay = relay_to(&origin, &[]);
    let headers = [
        ("Origin", "http://page.example"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization,content-type"),
    ];
    let reply = http::request(relay.http, "OPTIONS", "/rtc/v1/whip/", &headers, "").unwrap();
    assert!([200, 204].contains(&reply.status), "{}", reply.head);
    let allowed = reply.header("Access-Control-Allow-Headers").unwrap().to_ascii_lowercase();
    assert!(allowed.contains("authorization") && allowed.contains("content-type"), "{allowed}");
    let _client = WebRtcClient::publish(relay.http, "cam");
    assert_eq!(origin.next_request().method, "POST", "the first that it hears of");
}

#[test]
fn delete_ends_the_session_at_the_origin_and_in_the_table() {
    let origin = WebRtcOrigin::start();
    let relay = relay_to(&origin, &[]);
    let client = WebRtcClient::publish(relay.http, "cam");
    let path = client.path(LOOPBACK, relay.media);
    path.check(true);
    path.stream_until_echo(&mut 0);
    relay.wait_for_sessions(1);
    assert_eq!(client.delete(relay.http).status, 200);
    assert!(origin.session(&client.ufrag).is_none(), "the origin has ended it");
    relay.wait_for_no_sessions();
    assert_eq!(client.delete(relay.http).status, 404);
}

#[test]
fn an_origin_that_registers_as_srs_does_gets_offers_and_media() {
    let origin = WebRtcOrigin::start();
    let relay = WebRtcRelay::start(&[]);
    let (api, rtc) = (origin.api.port(), origin.media.port());
    let body = format!(
        "{{\"device_id\":\"origin1\",\"ip\":\"127.0.0.1\",\"server\":\"vid-494121g\",\
         \"service\":\"33z81803\",\"pid\":\"17907\",\"rtmp\":[\"19351\"],\"http\":[\"8081\"],\
         \"api\":[\"{api}\"],\"srt\":[\"udp://0.0.0.0:10081\"],\
         \"rtc\":[\"udp://0.0.0.0:{rtc}\"]}}"
    );
    let reply = http::request(relay.system, "POST", "/api/v1/srs/register", &[], &body).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.body);
    let client = WebRtcClient::publish(relay.http, "cam");
    let path = client.path(LOOPBACK, relay.media);
    path.check(true);
    path.stream_until_echo(&mut 0);
}

#[test]
fn an_origin_with_paths_of_its_own_is_asked_on_them() {
    let origin = WebRtcOrigin::start();
    let flag = format!("{},path=/{{path}}/whip", origin.flag("a"));
    let relay = WebRtcRelay::start(&["--origin", &flag]);
    let _publisher = WebRtcClient::publish(relay.http, "cam");
    assert_eq!(origin.next_request().path(), "/live/cam/whip");
    let _player = WebRtcClient::play(relay.http, "cam");
    assert_eq!(origin.next_request().path(), "/live/cam/whep");
}

#[test]
fn players_and_publisher_of_a_stream_meet_on_one_origin() {
    let (a, b) = (WebRtcOrigin::start(), WebRtcOrigin::start());
    let relay = WebRtcRelay::start(&["--origin", &a.flag("a"), "--origin", &b.flag("b")]);
    let mut of_a = 0;
    for number in 0..8 {
        let stream = format!("cam{number}");
        let publisher = WebRtcClient::publish(relay.http, &stream);
        let player = WebRtcClient::play(relay.http, &stream);
        let at_a = [&publisher, &player].map(|client| a.session(&client.ufrag).is_some());
        let at_b = [&publisher, &player].map(|client| b.session(&client.ufrag).is_some());
        assert!(at_a == [true; 2] || at_b == [true; 2], "{stream}: {at_a:?} {at_b:?}");
        of_a += u32::from(at_a[0]);
    }
    assert!((1..=7).contains(&of_a), "{of_a} of 8 streams on one of two origins");
}

#[test]
fn what_is_no_offer_is_refused_without_asking_the_origin() {
    let origin = WebRtcOrigin::start();
    let relay = relay_to(&origin, &[]);
    let post = |content_type, body| -> Reply {
        let headers = [("Content-Type", content_type)];
        http::request(relay.http, "POST", "/rtc/v1/whip/?stream=cam", &headers, body).unwrap()
    };
    assert_eq!(post("text/plain", "v=0\r\n").status, 415);
    assert_eq!(post("application/sdp", "no SDP").status, 400);
    assert_eq!(http::get(relay.http, "/rtc/v1/whip/").unwrap().status, 405);
    let reply = offer(&Credentials::fresh(), relay.http, "/rtc/v1/whip/?stream=cam");
    assert_eq!(reply.status, 201);
    assert_eq!(origin.next_request().method, "POST", "the first that it hears of");
}
