//! What clients do with the URL of a session.

use axum::http::Method;

use super::*;

/// A candidate of the session as it is.
const TRICKLED: &str = "a=ice-ufrag:EbMB\r\n\
    a=ice-pwd:clientclientclientclient\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n\
    a=mid:0\r\n\
    a=candidate:1 1 udp 2122260223 192.168.7.7 50000 typ host\r\n\
    a=end-of-candidates\r\n";
/// New credentials of the client, and the origin's answer to them.
const RESTART: &str = "a=ice-ufrag:NewC\r\na=ice-pwd:newclientnewclientnewclient\r\n";
const RESTARTED: &str = "a=ice-ufrag:newOrigin\r\n\
    a=ice-pwd:newOriginnewOriginnewOrigin\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n\
    a=mid:0\r\n\
    a=candidate:0 1 udp 2130706431 10.77.9.1 8001 typ host\r\n\
    a=end-of-candidates\r\n";

async fn patch(relay: &Relay, url: &str, fragment: &str) -> Answer {
    let headers = [("content-type", TRICKLE), ("if-match", "*"), ("authorization", "Bearer t")];
    relay.ask(Method::PATCH, url, &headers, fragment).await
}

async fn delete(relay: &Relay, url: &str) -> Answer {
    relay.ask(Method::DELETE, url, &[("authorization", "Bearer t")], "").await
}

#[tokio::test]
async fn a_session_is_ended_once_at_its_origin_and_here() {
    let bye = http("200 OK", &[("Content-Type", "application/json")], "{}");
    let (mut relay, mut origin, url) = session(vec![srs_answer(), bye]).await;
    let answer = delete(&relay, &url).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    let asked = origin.asked().await;
    assert_eq!(asked.line, format!("DELETE {SRS_SESSION}"));
    assert_eq!(asked.headers["authorization"], "Bearer t");
    assert!(matches!(relay.said().await, Said::Finished(EndReason::Deleted)));
    delete(&relay, &url).await.assert_problem(404, "no such session");
    assert!(!origin.was_asked());
}

#[tokio::test]
async fn a_session_ends_here_although_its_origin_is_dead_or_has_forgotten_it() {
    for answer in ["", &http("404 Not Found", &[], "?"), &http("500 Oh", &[], "?")] {
        let (mut relay, _origin, url) = session(vec![mediamtx_answer(), answer.to_owned()]).await;
        let answer = delete(&relay, &url).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
        assert!(matches!(relay.said().await, Said::Finished(EndReason::Deleted)));
    }
}

#[tokio::test]
async fn a_session_ends_although_its_client_does_not_wait_for_it() {
    let mut origin = Origin::new([Step::Answer(mediamtx_answer()), Step::Wait]).await;
    let control = Control::for_origin(origin.api);
    let mut relay = Relay::new(control, Config::default());
    let url = relay.post(WHIP, OFFER).await.header("location").unwrap().to_owned();
    for _ in 0..3 {
        relay.said().await;
    }
    origin.asked().await;
    let client = relay.client.clone();
    let ending = tokio::spawn(async move { client.ask(Method::DELETE, &url, &[], "").await });
    origin.asked().await;
    ending.abort();
    assert!(ending.await.is_err());
    origin.hang_up();
    assert!(matches!(relay.said().await, Said::Finished(EndReason::Deleted)));
}

#[tokio::test]
async fn a_session_does_not_end_for_whom_its_origin_does_not_let() {
    let refused = http("401 Unauthorized", &[("WWW-Authenticate", "Bearer")], "no");
    let bye = http("200 OK", &[], "");
    let (mut relay, _origin, url) = session(vec![mediamtx_answer(), refused, bye]).await;
    let answer = delete(&relay, &url).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(delete(&relay, &url).await.status, 200);
    assert!(matches!(relay.said().await, Said::Finished(EndReason::Deleted)));
}

#[tokio::test]
async fn candidates_for_srs_are_taken_here() {
    let (mut relay, mut origin, url) = session(vec![srs_answer()]).await;
    for fragment in [TRICKLED, "a=candidate:1 1 udp 1 192.168.7.7 50000 typ host\r\n", ""] {
        let answer = patch(&relay, &url, fragment).await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{fragment}");
        assert_eq!(answer.header("etag"), None);
    }
    assert!(!origin.was_asked() && relay.has_said_nothing());
}

#[tokio::test]
async fn an_origin_without_ice_restart_is_not_asked_for_one() {
    let (relay, mut origin, url) = session(vec![srs_answer()]).await;
    patch(&relay, &url, RESTART).await.assert_problem(422, "no ICE restart");
    assert!(!origin.was_asked());
}

#[tokio::test]
async fn an_origin_that_takes_fragments_gets_them_without_candidates() {
    let taken = http("204 No Content", &[], "");
    let (mut relay, mut origin, url) = session(vec![mediamtx_answer(), taken]).await;
    assert_eq!(patch(&relay, &url, TRICKLED).await.status, 204);
    let asked = origin.asked().await;
    assert_eq!(asked.line, "PATCH /live/a/whip/5a4e7b2c");
    assert_eq!(asked.headers["content-type"], TRICKLE);
    assert_eq!(asked.headers["if-match"], "*");
    assert!(!asked.body.contains("candidate"), "{}", asked.body);
    assert!(asked.body.contains("a=ice-ufrag:EbMB\r\n"), "{}", asked.body);
    assert!(relay.has_said_nothing());
}

#[tokio::test]
async fn a_precondition_is_the_origins_to_judge() {
    for status in ["412 Precondition Failed", "428 Precondition Required", "405 Not Allowed"] {
        let (mut relay, _origin, url) =
            session(vec![mediamtx_answer(), http(status, &[], "")]).await;
        let headers = [("content-type", TRICKLE)];
        let answer = relay.ask(Method::PATCH, &url, &headers, RESTART).await;
        assert_eq!(answer.status.to_string(), status[..3]);
        assert!(relay.has_said_nothing());
    }
}

#[tokio::test]
async fn an_ice_restart_is_expected_by_every_shard_before_it_is_answered() {
    let headers = [("Content-Type", TRICKLE), ("ETag", "\"newOrigin\"")];
    let restarted = http("200 OK", &headers, RESTARTED);
    let again = http("204 No Content", &[], "");
    let (mut relay, mut origin, url) = session(vec![mediamtx_answer(), restarted, again]).await;
    let answer = patch(&relay, &url, RESTART).await;
    assert_eq!((answer.status, answer.header("etag")), (200, Some("\"newOrigin\"")));
    assert_eq!(answer.header("content-type"), Some(TRICKLE));
    assert!(answer.body.contains(" 198.51.100.1 18000 typ host\r\n"), "{}", answer.body);
    assert!(answer.body.contains("a=ice-ufrag:newOrigin\r\n"), "{}", answer.body);
    origin.asked().await;
    let Said::Expected { address, pairs } = relay.said().await else { panic!("not expected") };
    assert_eq!((address.to_string().as_str(), pairs.len()), (RTC, 1));
    assert_eq!(pairs[0].username(), "newOrigin:NewC");
    assert!(matches!(relay.said().await, Said::Published(_)));

    assert_eq!(patch(&relay, &url, RESTART).await.status, 204, "it is known by now");
    assert!(relay.has_said_nothing());
}

#[tokio::test]
async fn a_restart_that_a_shard_does_not_take_is_not_answered_as_one() {
    let restarted = http("200 OK", &[("Content-Type", TRICKLE)], RESTARTED);
    let origin = Origin::new([mediamtx_answer(), restarted].map(Step::Answer)).await;
    let mut control = Control::for_origin(origin.api);
    control.expected_later = Some(Err(NotExpected::TooManyPairs));
    let relay = Relay::new(control, Config::default());
    let url = relay.post(WHIP, OFFER).await.header("location").unwrap().to_owned();
    patch(&relay, &url, RESTART).await.assert_problem(503, "restarted ICE too often");
}

#[tokio::test]
async fn what_is_no_fragment_is_refused_here() {
    let (relay, mut origin, url) = session(vec![mediamtx_answer()]).await;
    let wrong = relay.ask(Method::PATCH, &url, &[("content-type", SDP)], OFFER).await;
    wrong.assert_problem(415, TRICKLE);
    assert_eq!(wrong.header("accept-patch"), Some(TRICKLE));
    relay.ask(Method::PATCH, &url, &[], TRICKLED).await.assert_problem(415, TRICKLE);
    let half = "a=ice-ufrag:NewC\r\n";
    patch(&relay, &url, half).await.assert_problem(400, "ice-pwd");
    patch(&relay, &url, &"a=x\r\n".repeat(30_000)).await.assert_problem(413, "131072");
    assert!(!origin.was_asked());
}

#[tokio::test]
async fn an_origin_that_fails_a_fragment_is_a_bad_gateway() {
    let unusable = http("200 OK", &[("Content-Type", TRICKLE)], "a=ice-ufrag:newOrigin\r\n");
    for answer in [String::new(), http("307 Temporary Redirect", &[], ""), unusable] {
        let (mut relay, _origin, url) = session(vec![mediamtx_answer(), answer]).await;
        assert_eq!(patch(&relay, &url, RESTART).await.status, 502);
        assert!(relay.has_said_nothing());
    }
}

#[tokio::test]
async fn a_session_that_control_has_given_up_is_ended_at_its_origin() {
    let steps = [mediamtx_answer(), http("204 No Content", &[], "")];
    let mut origin = Origin::new(steps.map(Step::Answer)).await;
    let mut relay = Relay::before(&origin);
    relay.post(WHIP, OFFER).await;
    origin.asked().await;
    relay.said().await;
    relay.said().await;
    let Said::Published(resource) = relay.said().await else { panic!("not published") };
    end_at_origin(*resource).await;
    assert_eq!(origin.asked().await.line, "DELETE /live/a/whip/5a4e7b2c");
}

fn counter_offer() -> String {
    let kind = "application/sdp; valid-until=\"2026-11-20T16:00:00Z\"";
    let headers = [("Content-Type", kind), ("Location", "/live/a/whep/1")];
    http("406 Not Acceptable", &headers, ANSWER)
}

/// A player to whom the origin has made an offer of its own.
async fn countered(then: String) -> (Relay, Origin, Answer) {
    let mut origin = Origin::new([counter_offer(), then].map(Step::Answer)).await;
    let mut relay = Relay::before(&origin);
    let answer = relay.post(WHEP, OFFER).await;
    origin.asked().await;
    relay.said().await;
    (relay, origin, answer)
}

#[tokio::test]
async fn a_counter_offer_has_the_relays_candidates_and_holds_its_place_without_pairs() {
    let (mut relay, _origin, answer) = countered(String::new()).await;
    assert_eq!(answer.status, 406);
    assert!(answer.header("content-type").unwrap().contains("valid-until"));
    assert!(answer.header("location").unwrap().starts_with("/rtc/v1/session/"));
    assert!(answer.body.contains(" 198.51.100.1 18000 typ host\r\n"), "{}", answer.body);
    let Said::Expected { pairs, .. } = relay.said().await else { panic!("not expected") };
    assert_eq!(pairs, []);
}

#[tokio::test]
async fn the_answer_to_a_counter_offer_completes_the_pair() {
    let (mut relay, mut origin, answer) = countered(http("204 No Content", &[], "")).await;
    let url = answer.header("location").unwrap();
    relay.said().await;
    relay.said().await;
    patch(&relay, url, TRICKLED).await.assert_problem(409, "counter-offer first");
    let headers = [("content-type", SDP)];
    let answer = relay.ask(Method::PATCH, url, &headers, OFFER).await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    let asked = origin.asked().await;
    assert_eq!(asked.line, "PATCH /live/a/whep/1");
    assert_eq!(asked.headers["content-type"], SDP);
    assert!(!asked.body.contains("candidate"), "{}", asked.body);
    let Said::Expected { pairs, .. } = relay.said().await else { panic!("not expected") };
    let names: Vec<_> = pairs.iter().map(IcePair::username).collect();
    assert_eq!(names, ["w668j549:EbMB"]);
    assert!(matches!(relay.said().await, Said::Published(_)));
    let again = relay.ask(Method::PATCH, url, &headers, OFFER).await;
    again.assert_problem(415, TRICKLE);
}

#[tokio::test]
async fn an_answer_that_the_origin_refuses_leaves_the_counter_offer_open() {
    let (mut relay, _origin, answer) = countered(http("400 Bad Request", &[], "no")).await;
    let url = answer.header("location").unwrap();
    relay.said().await;
    relay.said().await;
    let answer = relay.ask(Method::PATCH, url, &[("content-type", SDP)], OFFER).await;
    assert_eq!((answer.status, answer.body.as_str()), (400, "no"));
    assert!(relay.has_said_nothing());
}
