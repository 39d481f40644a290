//! Offers that come to a session, or do not.

use axum::body::Body;
use axum::http::{Method, Request};

use super::*;
use crate::config::{HostHeader, PublicAddress};

fn origin_of(relay: Said) -> String {
    let Said::Offered(offer) = relay else { panic!("{relay:?}") };
    offer.stream.to_string()
}

#[tokio::test]
async fn an_offer_reaches_its_origin_without_the_clients_candidates() {
    let mut origin = Origin::new([Step::Answer(srs_answer())]).await;
    let relay = Relay::before(&origin);
    relay.post("/rtc/v1/whip/?app=live&stream=a&secret=x%2Fy", OFFER).await;
    let asked = origin.asked().await;
    assert_eq!(asked.line, "POST /rtc/v1/whip/?app=live&stream=a&secret=x%2Fy");
    let without: String = OFFER
        .split_inclusive("\r\n")
        .filter(|line| !line.starts_with("a=candidate") && !line.starts_with("a=end-of"))
        .collect();
    assert_eq!(asked.body, without);
}

#[tokio::test]
async fn an_origin_is_told_who_asks_and_by_what_right() {
    let mut origin = Origin::new([Step::Answer(srs_answer())]).await;
    let relay = Relay::before(&origin);
    let headers = [
        ("content-type", "Application/SDP; charset=utf-8"),
        ("authorization", "Bearer t0ken"),
        ("user-agent", "OBS"),
        ("cookie", "a=b"),
        ("x-forwarded-for", "1.1.1.1"),
        ("accept-encoding", "gzip"),
    ];
    let answer = relay.ask(Method::POST, WHIP, &headers, OFFER).await;
    assert_eq!(answer.status, 201);
    let asked = origin.asked().await;
    let expected = [
        ("authorization", Some("Bearer t0ken")),
        ("user-agent", Some("OBS")),
        ("content-type", Some(SDP)),
        ("host", Some(HOST)),
        ("x-forwarded-for", Some("203.0.113.5")),
        ("x-real-ip", Some("203.0.113.5")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some(HOST)),
        ("accept-encoding", Some("identity")),
        ("cookie", None),
    ];
    for (name, value) in expected {
        assert_eq!(asked.headers.get(name).map(String::as_str), value, "{name}");
    }
}

#[tokio::test]
async fn an_origin_may_be_asked_by_its_own_name() {
    let mut origin = Origin::new([Step::Answer(srs_answer())]).await;
    let mut control = Control::for_origin(origin.api);
    control.placement().host = HostHeader::Origin;
    Relay::new(control, Config::default()).post(WHIP, OFFER).await;
    assert_eq!(origin.asked().await.headers["host"], origin.api.to_string());
}

#[tokio::test]
async fn an_answer_keeps_its_headers_and_gets_the_relays_candidates_and_session_url() {
    let origin = Origin::new([Step::Answer(mediamtx_answer())]).await;
    let answer = Relay::before(&origin).post(WHIP, OFFER).await;
    assert_eq!(answer.status, 201);
    let token = answer.header("location").unwrap().strip_prefix("/rtc/v1/session/").unwrap();
    assert!(token.len() >= 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    let kept = [
        ("content-type", Some(SDP)),
        ("etag", Some("*")),
        ("id", Some("5a4e7b2c")),
        ("accept-patch", Some(TRICKLE)),
        ("link", Some("<stun:stun.example>; rel=\"ice-server\"")),
        ("server", None),
    ];
    for (name, value) in kept {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let candidates: Vec<_> =
        answer.body.lines().filter(|line| line.starts_with("a=candidate")).collect();
    assert_eq!(candidates, ["a=candidate:1 1 udp 2130706431 198.51.100.1 18000 typ host"]);
    assert!(answer.body.contains("a=ice-pwd:originoriginoriginorigin\r\n"));
}

#[tokio::test]
async fn two_sessions_have_two_urls() {
    let origin = Origin::new([Step::Answer(srs_answer()), Step::Answer(srs_answer())]).await;
    let relay = Relay::before(&origin);
    let (first, second) = (relay.post(WHIP, OFFER).await, relay.post(WHIP, OFFER).await);
    assert_ne!(first.header("location").unwrap(), second.header("location").unwrap());
}

#[tokio::test]
async fn every_shard_expects_the_pair_before_the_client_has_its_answer() {
    let origin = Origin::new([Step::Answer(srs_answer())]).await;
    let mut relay = Relay::before(&origin);
    relay.post(WHIP, OFFER).await;
    // What was said before the answer came is there now, without waiting.
    assert_eq!(origin_of(relay.said().await), "__defaultVhost__/live/a");
    let Said::Expected { address, pairs } = relay.said().await else { panic!("not expected") };
    assert_eq!(address.to_string(), RTC);
    let names: Vec<_> = pairs.iter().map(IcePair::username).collect();
    assert_eq!(names, ["w668j549:EbMB"]);
    assert_eq!(pairs[0].origin.password.expose(), "originoriginoriginorigin");
    let Said::Published(resource) = relay.said().await else { panic!("not published") };
    assert_eq!(resource.target.as_deref(), Some(SRS_SESSION));
    assert!(!resource.takes_patch, "SRS would take it for an offer");
}

#[tokio::test]
async fn while_the_shards_have_not_agreed_there_is_no_answer_and_a_client_that_gives_up_leaves_nothing()
 {
    let mut origin =
        Origin::new([Step::Answer(srs_answer()), Step::Answer(http("200 OK", &[], ""))]).await;
    let control = Control { expected: None, ..Control::for_origin(origin.api) };
    let mut relay = Relay::new(control, Config::default());
    let client = relay.client.clone();
    let asking = tokio::spawn(async move { client.post(WHIP, OFFER).await });
    origin.asked().await;
    relay.said().await;
    assert!(matches!(relay.said().await, Said::Expected { .. }));
    assert!(!asking.is_finished());
    asking.abort();
    assert!(matches!(relay.said().await, Said::Finished(EndReason::NeverValidated)));
    assert_eq!(origin.asked().await.line, format!("DELETE {SRS_SESSION}"));
}

#[tokio::test]
async fn a_client_that_hangs_up_while_its_origin_is_chosen_keeps_no_place() {
    let origin = Origin::new([]).await;
    let (open, gate) = tokio::sync::oneshot::channel();
    let control = Control { gate: Some(gate), ..Control::for_origin(origin.api) };
    let mut relay = Relay::new(control, Config::default());
    let client = relay.client.clone();
    let asking = tokio::spawn(async move { client.post(WHIP, OFFER).await });
    assert!(matches!(relay.said().await, Said::Offered(_)));
    asking.abort();
    assert!(asking.await.is_err());
    open.send(()).unwrap();
    assert!(matches!(relay.said().await, Said::Abandoned));
}

#[tokio::test]
async fn a_session_that_a_shard_does_not_take_is_ended_at_the_origin() {
    let steps = [Step::Answer(srs_answer()), Step::Answer(http("200 OK", &[], ""))];
    let mut origin = Origin::new(steps).await;
    let expected = Some(Err(NotExpected::PairTaken));
    let control = Control { expected, ..Control::for_origin(origin.api) };
    let mut relay = Relay::new(control, Config::default());
    let headers = [("content-type", SDP), ("authorization", "Bearer t0ken")];
    let answer = relay.ask(Method::POST, WHIP, &headers, OFFER).await;
    answer.assert_problem(503, "another session");
    assert_eq!(answer.header("retry-after"), Some("1"));
    origin.asked().await;
    let asked = origin.asked().await;
    assert_eq!(asked.line, format!("DELETE {SRS_SESSION}"));
    assert_eq!(asked.headers["authorization"], "Bearer t0ken");
    relay.said().await;
    relay.said().await;
    assert!(matches!(relay.said().await, Said::Abandoned));
}

#[tokio::test]
async fn whom_an_offer_is_about_is_read_as_srs_reads_it() {
    let table = [
        (WHIP, Role::Publish, "live/a"),
        (WHEP, Role::Play, "live/a"),
        ("/rtc/v1/whip?stream=a", Role::Publish, "live/a"),
        ("/rtc/v1/whip/?action=play&stream=a", Role::Play, "live/a"),
        ("/rtc/v1/whip-play/?stream=a", Role::Play, "live/a"),
        ("/rtc/v1/whip-play?stream=a", Role::Play, "live/a"),
        ("/rtc/v1/whep/", Role::Play, "live/livestream"),
        ("/rtc/v1/whip/x/cam.v1", Role::Publish, "x/cam.v1"),
        ("/rtc/v1/whip/x/a%20b%2Fc", Role::Publish, "x/a b%2Fc"),
        ("/rtc/v1/whip/?vhost=other.example&stream=a", Role::Publish, "live/a"),
    ];
    for (path, role, stream) in table {
        let origin = Origin::new([Step::Answer(srs_answer())]).await;
        let mut relay = Relay::before(&origin);
        assert_eq!(relay.post(path, OFFER).await.status, 201, "{path}");
        let Said::Offered(offer) = relay.said().await else { panic!("{path}") };
        assert_eq!((offer.stream.path(), offer.role), (stream, role), "{path}");
        assert_eq!(offer.client.to_string(), "203.0.113.5");
    }
}

#[tokio::test]
async fn a_host_is_a_vhost_with_and_without_a_port_if_it_is_listed() {
    for host in ["v.example", "v.example:11985"] {
        let origin = Origin::new([Step::Answer(srs_answer())]).await;
        let config = Config { vhosts: vec!["v.example".to_owned()], ..Config::default() };
        let mut relay = Relay::new(Control::for_origin(origin.api), config);
        let request = Request::post(WHIP).header("host", host).header("content-type", SDP);
        relay.send(request.body(Body::from(OFFER)).unwrap()).await;
        assert_eq!(origin_of(relay.said().await), "v.example/live/a");
    }
}

#[tokio::test]
async fn parameters_that_weaken_a_session_reach_no_origin() {
    let mut origin = Origin::new([Step::Answer(srs_answer())]).await;
    let path = "/rtc/v1/whip/?encrypt=false&stream=a&dtls=false&eip=192.0.2.66&ice-ufrag=abcd";
    Relay::before(&origin).post(path, OFFER).await;
    assert_eq!(origin.asked().await.line, "POST /rtc/v1/whip/?stream=a");
}

#[tokio::test]
async fn an_origin_with_a_path_of_its_own_is_asked_there_and_takes_patch() {
    let answer = http("201 Created", &[("Location", "whip/1")], ANSWER);
    let mut origin = Origin::new([Step::Answer(answer)]).await;
    let mut control = Control::for_origin(origin.api);
    control.placement().path = Some("/{path}/whip".to_owned());
    let mut relay = Relay::new(control, Config::default());
    let answer = relay.post("/rtc/v1/whep/live/a?jwt=x", OFFER).await;
    assert_eq!(answer.header("content-type"), Some(SDP), "the origin has said nothing else");
    assert_eq!(origin.asked().await.line, "POST /live/a/whep?jwt=x");
    relay.said().await;
    relay.said().await;
    let Said::Published(resource) = relay.said().await else { panic!("not published") };
    assert_eq!(resource.target.as_deref(), Some("/live/a/whip/1"));
    assert!(resource.takes_patch);
}

#[tokio::test]
async fn public_addresses_stand_in_the_order_of_the_clients_family() {
    let address = |ip: &str, port| PublicAddress { ip: ip.parse().unwrap(), port };
    let public = vec![address("2001:db8::1", None), address("192.0.2.1", Some(8000))];
    let origin = Origin::new([Step::Answer(srs_answer())]).await;
    let config = Config { public_addresses: public, ..Config::default() };
    let answer = Relay::new(Control::for_origin(origin.api), config).post(WHIP, OFFER).await;
    let candidates: Vec<_> = answer
        .body
        .lines()
        .filter(|line| line.starts_with("a=candidate"))
        .map(|line| line.split(' ').skip(4).take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(candidates, ["192.0.2.1 8000", "2001:db8::1 18000"]);
}

#[tokio::test]
async fn what_is_no_offer_is_refused_before_anybody_is_asked() {
    let mut relay = Relay::before(&Origin::new([]).await);
    let with_type = async |kind: &[(&str, &str)]| relay.ask(Method::POST, WHIP, kind, OFFER).await;
    for kind in [&[][..], &[("content-type", "application/json")]] {
        let answer = with_type(kind).await;
        answer.assert_problem(415, SDP);
        assert_eq!(answer.header("accept-post"), Some(SDP));
    }
    relay.post(WHIP, &"v".repeat(129 * 1024)).await.assert_problem(413, "131072 bytes");
    relay.post(WHIP, "{}").await.assert_problem(400, "v=");
    relay.post(WHIP, "").await.assert_problem(400, "v=");
    let weak = OFFER.replace("clientclientclientclient", "short");
    relay.post(WHIP, &weak).await.assert_problem(400, "ice-pwd has 5 characters");
    let without = OFFER.replace("a=ice-ufrag:EbMB\r\n", "");
    relay.post(WHIP, &without).await.assert_problem(400, "ice-ufrag");
    relay.post("/rtc/v1/whip/live/%ff", OFFER).await.assert_problem(400, "UTF-8");
    assert!(relay.has_said_nothing());
}

#[tokio::test]
async fn no_path_leads_out_of_the_origins_endpoint() {
    let mut relay = Relay::before(&Origin::new([]).await);
    let ways_out = ["/../../../api/v1/raw", "/live/..", "/%2e%2E/x", "/.%2e", "/./a", "/a/%2e"];
    for way_out in ways_out {
        for endpoint in ["/rtc/v1/whip", "/rtc/v1/whep", "/rtc/v1/publish", "/rtc/v1/play"] {
            let path = format!("{endpoint}{way_out}?app=live&stream=a");
            relay.post(&path, OFFER).await.assert_problem(400, "dots alone");
        }
    }
    assert!(relay.has_said_nothing());
}

#[tokio::test]
async fn a_refusal_of_control_tells_when_to_come_back() {
    let table = [
        (Some(OfferRefused::NoOrigin), 503, "no live origin"),
        (Some(OfferRefused::Draining), 503, "draining"),
        (Some(OfferRefused::Limit("sessions")), 503, "as many sessions"),
        (Some(OfferRefused::Rate), 429, "too many requests"),
        (None, 503, "stopping or very busy"),
    ];
    for (refused, status, detail) in table {
        let mut origin = Origin::new([]).await;
        let placement = refused.map(Err);
        let control = Control { placement, ..Control::for_origin(origin.api) };
        let mut relay = Relay::new(control, Config::default());
        let answer = relay.post(WHIP, OFFER).await;
        answer.assert_problem(status, detail);
        assert_eq!(answer.header("retry-after"), Some("1"), "{detail}");
        assert!(!origin.was_asked());
        relay.said().await;
        assert!(relay.has_said_nothing(), "there is no place to give back");
    }
}

#[tokio::test]
async fn a_relay_without_a_webrtc_listener_says_so() {
    let control = Control::for_origin(CLIENT.parse().unwrap());
    let mut relay = Relay::with(control, Config::default(), |signalling| signalling.webrtc = None);
    relay.post(WHIP, OFFER).await.assert_problem(503, "--webrtc-listen");
    assert!(relay.has_said_nothing());
}

#[tokio::test]
async fn an_origin_without_an_endpoint_is_where_its_answer_says_if_that_is_its_own_address() {
    let elsewhere = ANSWER.replace("127.0.0.1 8001", "192.0.2.66 8001");
    for (answer, address) in [(ANSWER, Some("127.0.0.1:8001")), (&elsewhere, None)] {
        let answer = http("201 Created", &[("Content-Type", SDP)], answer);
        let origin = Origin::new([Step::Answer(answer)]).await;
        let mut control = Control::for_origin(origin.api);
        control.placement().rtc = None;
        let mut relay = Relay::new(control, Config::default());
        let answer = relay.post(WHIP, OFFER).await;
        relay.said().await;
        match (address, relay.said().await) {
            (Some(expected), Said::Expected { address, .. }) => {
                assert_eq!(address.to_string(), expected);
            }
            (None, Said::Abandoned) => answer.assert_problem(502, "no UDP endpoint"),
            (_, said) => panic!("{said:?}"),
        }
    }
}
