//! Methods and paths.

use axum::http::Method;

use super::*;

/// A relay that asks nobody.
async fn relay() -> Relay {
    Relay::before(&Origin::new([]).await)
}

const SESSION_URL: &str = "/rtc/v1/session/0123456789abcdef";

#[tokio::test]
async fn options_are_answered_here_and_need_no_authorization() {
    let mut relay = relay().await;
    let preflight = [
        ("origin", "https://page.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let table = [
        (WHIP, "accept-post", SDP),
        ("/rtc/v1/whep", "accept-post", SDP),
        ("/rtc/v1/whip-play/live/a", "accept-post", SDP),
        ("/rtc/v1/play/", "accept-post", JSON),
        (SESSION_URL, "accept-patch", ON_SESSION),
    ];
    for (path, name, value) in table {
        let answer = relay.ask(Method::OPTIONS, path, &preflight, "").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
        assert_eq!(answer.header(name), Some(value), "{path}");
        let methods = answer.header("access-control-allow-methods").unwrap();
        assert!(methods.contains("PATCH") && methods.contains("DELETE"), "{methods}");
        assert_eq!(answer.header("access-control-max-age"), Some("86400"));
    }
    assert!(relay.has_said_nothing());
}

#[tokio::test]
async fn players_find_out_by_head_that_there_is_whep() {
    let relay = relay().await;
    for path in [WHEP, "/rtc/v1/whep", "/rtc/v1/whip-play/"] {
        let answer = relay.ask(Method::HEAD, path, &[], "").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(SDP)), "{path}");
    }
}

#[tokio::test]
async fn methods_without_a_meaning_are_refused_with_those_that_have_one() {
    let relay = relay().await;
    let on_session = ["DELETE", "OPTIONS", "PATCH"];
    let on_whip = ["DELETE", "OPTIONS", "PATCH", "POST"];
    let on_whep = ["DELETE", "HEAD", "OPTIONS", "PATCH", "POST"];
    let table = [
        (Method::GET, WHIP, &on_whip[..]),
        (Method::HEAD, WHIP, &on_whip),
        (Method::PUT, WHIP, &on_whip),
        (Method::GET, WHEP, &on_whep),
        (Method::PUT, WHEP, &on_whep),
        (Method::GET, SESSION_URL, &on_session),
        (Method::HEAD, SESSION_URL, &on_session),
        (Method::PUT, SESSION_URL, &on_session),
        (Method::POST, SESSION_URL, &on_session),
        (Method::GET, "/rtc/v1/publish/", &["OPTIONS", "POST"]),
    ];
    for (method, path, allowed) in table {
        let answer = relay.ask(method.clone(), path, &[], "").await;
        answer.assert_problem(405, if method == Method::HEAD { "" } else { "see Allow" });
        let mut allow: Vec<_> = answer.header("allow").unwrap().split(',').collect();
        allow.sort_unstable();
        assert_eq!(allow, allowed, "{method} {path}");
        assert!(!answer.body.contains("0123456789abcdef"), "{}", answer.body);
    }
}

#[tokio::test]
async fn srs_own_session_urls_are_unknown_here() {
    let mut relay = relay().await;
    let path = "/rtc/v1/whip/?action=delete&token=x&app=live&stream=a&session=a:b";
    for method in [Method::DELETE, Method::PATCH] {
        relay.ask(method, path, &[], "").await.assert_problem(404, "no such session");
    }
    assert!(relay.has_said_nothing());
}

#[tokio::test]
async fn a_session_url_that_was_never_given_is_not_found_nor_repeated() {
    let relay = relay().await;
    let fragment = [("content-type", TRICKLE)];
    let with_slash = format!("{SESSION_URL}/");
    let below = format!("{SESSION_URL}/x");
    for path in [SESSION_URL, &with_slash, &below, "/rtc/v1/session/%ff"] {
        for method in [Method::DELETE, Method::PATCH] {
            let answer = relay.ask(method, path, &fragment, "").await;
            answer.assert_problem(404, "no such session");
            assert!(!answer.body.contains("0123456789abcdef"), "{}", answer.body);
        }
    }
}
