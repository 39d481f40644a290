//! The JSON API.

use axum::http::Method;
use serde_json::{Value, json};

use super::*;

fn envelope() -> Value {
    json!({
        "api": "http://relay.example:1985/rtc/v1/publish/",
        "clientip": "192.168.7.7",
        "sdp": OFFER,
        "streamurl": "webrtc://relay.example/live/a?encrypt=false&secret=x",
        "tid": "2b46a5d",
    })
}

fn accepted() -> Value {
    json!({
        "code": 0, "pid": "17907", "server": "vid-494121g", "service": "33z81803",
        "sdp": ANSWER, "sessionid": "w668j549:EbMB",
    })
}

async fn post(relay: &Relay, path: &str, body: &Value) -> Answer {
    // As browsers send a string.
    let headers = [("content-type", "text/plain;charset=UTF-8")];
    relay.ask(Method::POST, path, &headers, body.to_string()).await
}

async fn origin_that_says(body: &Value) -> Origin {
    let headers = [("Content-Type", JSON)];
    Origin::new([Step::Answer(http("200 OK", &headers, &body.to_string()))]).await
}

#[tokio::test]
async fn publisher_and_player_of_one_stream_url_mean_one_stream() {
    let table = [
        ("/rtc/v1/publish/", Role::Publish),
        ("/rtc/v1/publish", Role::Publish),
        ("/rtc/v1/play/", Role::Play),
        ("/rtc/v1/play?x=y", Role::Play),
    ];
    for (path, role) in table {
        let mut origin = origin_that_says(&accepted()).await;
        let mut relay = Relay::before(&origin);
        assert_eq!(post(&relay, path, &envelope()).await.status, 200, "{path}");
        let Said::Offered(offer) = relay.said().await else { panic!("{path}") };
        assert_eq!((offer.stream.as_str(), offer.role), ("__defaultVhost__/live/a", role));
        let asked = origin.asked().await.line;
        assert!(asked.starts_with("POST /rtc/v1/p") && asked.contains("/?") == path.contains('?'));
        assert!(asked.trim_end_matches("?x=y").ends_with('/'), "{asked}");
    }
}

#[tokio::test]
async fn an_offer_in_json_keeps_its_members_and_loses_the_clients_candidates() {
    let mut origin = origin_that_says(&accepted()).await;
    post(&Relay::before(&origin), "/rtc/v1/publish/?eip=192.0.2.66&k=v", &envelope()).await;
    let asked = origin.asked().await;
    assert_eq!(asked.line, "POST /rtc/v1/publish/?k=v");
    assert_eq!(asked.headers["content-type"], JSON);
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(body["tid"], "2b46a5d");
    assert_eq!(body["api"], envelope()["api"]);
    assert_eq!(body["clientip"], "203.0.113.5", "it is not for the client to say");
    assert_eq!(body["streamurl"], "webrtc://relay.example/live/a?secret=x");
    let sdp = body["sdp"].as_str().unwrap();
    assert!(sdp.starts_with("v=0\r\n") && !sdp.contains("candidate"), "{sdp}");
}

#[tokio::test]
async fn an_answer_in_json_keeps_its_members_and_gets_the_relays_candidates() {
    let origin = origin_that_says(&accepted()).await;
    let mut relay = Relay::before(&origin);
    let answer = post(&relay, "/rtc/v1/play/", &envelope()).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(JSON)));
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    for member in ["code", "pid", "server", "service", "sessionid"] {
        assert_eq!(body[member], accepted()[member]);
    }
    let sdp = body["sdp"].as_str().unwrap();
    assert!(sdp.contains(" 198.51.100.1 18000 typ host\r\n"), "{sdp}");
    relay.said().await;
    let Said::Expected { pairs, .. } = relay.said().await else { panic!("not expected") };
    assert_eq!(pairs[0].username(), "w668j549:EbMB");
    assert!(relay.has_said_nothing(), "there is no session URL");
}

#[tokio::test]
async fn escapes_of_json_are_not_part_of_a_credential() {
    let escaped = accepted().to_string().replace("\\r\\n", "\\u000d\\u000a");
    let origin = Origin::new([Step::Answer(http("200 OK", &[], &escaped))]).await;
    let mut relay = Relay::before(&origin);
    let offer = envelope().to_string().replace("\\r\\n", "\\u000d\\u000a");
    let answer = relay.ask(Method::POST, "/rtc/v1/play/", &[], offer).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    relay.said().await;
    let Said::Expected { pairs, .. } = relay.said().await else { panic!("not expected") };
    assert_eq!(pairs[0].username(), "w668j549:EbMB");
}

#[tokio::test]
async fn an_error_of_the_origin_is_an_answer_with_a_code() {
    let refused = json!({"code": 400, "server": "vid-494121g", "sdp": ANSWER});
    let origin = origin_that_says(&refused).await;
    let mut relay = Relay::before(&origin);
    let answer = post(&relay, "/rtc/v1/publish/", &envelope()).await;
    assert_eq!(answer.status, 200);
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body, json!({"code": 400, "server": "vid-494121g"}));
    relay.said().await;
    assert!(matches!(relay.said().await, Said::Abandoned));
}

#[tokio::test]
async fn what_is_no_offer_is_refused_before_anybody_is_asked() {
    let mut relay = Relay::before(&Origin::new([]).await);
    let without = |member: &str| {
        let mut envelope = envelope();
        envelope.as_object_mut().unwrap().remove(member);
        envelope
    };
    let mut no_url = envelope();
    no_url["streamurl"] = json!("live/a");
    let table = [
        (json!([]), "not a JSON object"),
        (without("sdp"), "`sdp` is missing"),
        (without("streamurl"), "`streamurl` is missing"),
        (no_url, "no scheme"),
        (json!({"sdp": "hello", "streamurl": "webrtc://x/live/a"}), "v="),
    ];
    for (body, detail) in table {
        post(&relay, "/rtc/v1/play/", &body).await.assert_problem(400, detail);
    }
    assert!(relay.has_said_nothing());
}

#[tokio::test]
async fn an_answer_that_cannot_be_used_is_a_bad_gateway() {
    let mut no_sdp = accepted();
    no_sdp["sdp"] = json!(7);
    for (body, detail) in [(json!("?"), "not a JSON object"), (no_sdp, "no `sdp`")] {
        let origin = origin_that_says(&body).await;
        let mut relay = Relay::before(&origin);
        let answer = post(&relay, "/rtc/v1/play/", &envelope()).await;
        answer.assert_problem(502, detail);
        relay.said().await;
        assert!(matches!(relay.said().await, Said::Abandoned));
    }
}
