//! Origins that refuse, fail, or misbehave.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::control::admin::Api;
use crate::control::connections::Connections;
use crate::control::http;

/// What a client gets of an origin that does this, and what control is told at last.
async fn offer_to(step: Step) -> (Answer, Said) {
    offer_with(Patience::default(), step).await
}

async fn offer_with(patience: Patience, step: Step) -> (Answer, Said) {
    let origin = Origin::new([step, Step::Answer(emulation::http("200 OK", &[], ""))]).await;
    let control = Control::for_origin(origin.api);
    let mut relay =
        Relay::with(control, Config::default(), |signalling| signalling.patience = patience);
    let answer = relay.post(WHEP, OFFER).await;
    relay.said().await;
    let said = relay.said().await;
    (answer, said)
}

#[tokio::test]
async fn what_an_origin_refuses_reaches_the_client_as_it_is() {
    let table = [
        ("401 Unauthorized", ("WWW-Authenticate", "Basic realm=\"x\"")),
        ("403 Forbidden", ("Cache-Control", "no-store")),
        ("404 Not Found", ("ID", "1")),
        ("406 Not Acceptable", ("ID", "1")),
        ("409 Conflict", ("Retry-After", "7")),
        ("503 Service Unavailable", ("Retry-After", "9")),
    ];
    for (status, header) in table {
        let body = r#"{"error":"this is why"}"#;
        let headers = [("Content-Type", "application/json"), header, ("Connection", "close")];
        let (answer, said) = offer_to(Step::Answer(emulation::http(status, &headers, body))).await;
        assert_eq!(answer.status.to_string(), status[..3]);
        assert_eq!(answer.header(header.0), Some(header.1));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.body, body);
        assert!(matches!(said, Said::Abandoned), "{said:?}");
    }
}

#[tokio::test]
async fn an_error_that_describes_a_session_shows_nothing_of_it() {
    let refused = emulation::http("400 Bad Request", &[("Content-Type", SDP)], ANSWER);
    let (answer, _) = offer_to(Step::Answer(refused)).await;
    assert_eq!((answer.status, answer.body.as_str()), (400, ""));
    assert_eq!(answer.header("content-type"), None);
}

#[tokio::test]
async fn an_answer_that_cannot_be_used_is_a_bad_gateway() {
    let created = |body: &str| emulation::http("201 Created", &[("Content-Type", SDP)], body);
    let tcp = ANSWER.replace(" udp ", " tcp ").replace("generation 0", "tcptype passive");
    let cut_short = srs_answer().replace("Content-Length: ", "Content-Length: 9");
    let redirect = [("Location", "http://10.77.9.1:1985/rtc/v1/whip/")];
    let compressed = [("Content-Encoding", "gzip"), ("Content-Type", SDP)];
    let table = [
        (String::new(), "before its answer was complete"),
        (cut_short, "before its answer was complete"),
        ("SSH-2.0-OpenSSH_9.7\r\n".to_owned(), "not HTTP"),
        (emulation::http("307 Temporary Redirect", &redirect, ""), "redirects"),
        (emulation::http("301 Moved Permanently", &redirect, ""), "redirects"),
        (emulation::http("200 OK", &[], ""), "does not begin with v="),
        (emulation::http("204 No Content", &[], ""), "204"),
        (created("<html>"), "does not begin with v="),
        (created(&ANSWER.replace("a=ice-ufrag:w668j549\r\n", "")), "ice-ufrag"),
        (created(&tcp), "TCP only"),
        (created(&"v=".repeat(70_000)), "too large"),
        (emulation::http("201 Created", &[("X-Long", &"x".repeat(20_000))], ANSWER), "too large"),
        (emulation::http("201 Created", &compressed, ANSWER), "compressed"),
    ];
    for (answer, detail) in table {
        let (answer, said) = offer_to(Step::Answer(answer)).await;
        answer.assert_problem(502, detail);
        assert_eq!(answer.header("location"), None);
        assert!(matches!(said, Said::Abandoned), "{detail}: {said:?}");
    }
}

#[tokio::test]
async fn a_session_whose_answer_cannot_be_used_is_ended_at_the_origin() {
    let headers = [("Location", "/live/a/whip/1"), ("Content-Type", SDP)];
    let unusable = emulation::http("201 Created", &headers, "v=0\r\n");
    let bye = emulation::http("200 OK", &[], "");
    let mut origin = Origin::new([Step::Answer(unusable), Step::Answer(bye)]).await;
    let answer = Relay::before(&origin).post(WHIP, OFFER).await;
    answer.assert_problem(502, "ice-ufrag");
    origin.asked().await;
    assert_eq!(origin.asked().await.line, "DELETE /live/a/whip/1");
}

#[tokio::test]
async fn an_origin_that_does_not_answer_in_time_is_a_gateway_timeout() {
    let (answer, said) = offer_with(IMPATIENT, Step::Wait).await;
    answer.assert_problem(504, "has not answered within");
    assert!(matches!(said, Said::Unreachable), "the next offer is to find another origin");
}

#[tokio::test]
async fn an_origin_that_is_not_there_is_a_bad_gateway() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let control = Control::for_origin(listener.local_addr().unwrap());
    drop(listener);
    let mut relay = Relay::new(control, Config::default());
    relay.post(WHIP, OFFER).await.assert_problem(502, "cannot be reached");
    relay.said().await;
    assert!(matches!(relay.said().await, Said::Unreachable));
}

#[tokio::test]
async fn a_chunked_answer_is_read_to_its_end() {
    let (front, back) = ANSWER.split_at(100);
    let chunked = format!(
        "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{front}\r\n{:x}\r\n{back}\r\n0\r\n\r\n",
        back.len()
    );
    let (answer, _) = offer_to(Step::Answer(chunked)).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert!(answer.body.ends_with("a=ice-pwd:originoriginoriginorigin\r\n"), "{}", answer.body);
}

#[tokio::test]
async fn an_origin_that_says_200_has_made_a_session_too() {
    let ok = emulation::http("200 OK", &[("Content-Type", SDP)], ANSWER);
    let (answer, said) = offer_to(Step::Answer(ok)).await;
    assert_eq!(answer.status, 201);
    assert!(matches!(said, Said::Expected { .. }));
}

#[tokio::test]
async fn origins_are_reached_over_ipv6() {
    let origin = Origin::at("[::1]:0", [Step::Answer(srs_answer())]).await;
    assert_eq!(Relay::before(&origin).post(WHIP, OFFER).await.status, 201);
}

/// The whole API on a connection, as the process serves it.
async fn serve(origin: &Origin) -> (Control, SocketAddr, mpsc::Receiver<Ask>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ask, asks) = mpsc::channel(8);
    let api = Api::new(ask, Arc::new(Config::default()), 1);
    let router = api.http_router(Some("[::]:18000".parse().unwrap()));
    tokio::spawn(http::serve(listener, None, router, Connections::new(4), MANNERS));
    (Control::for_origin(origin.api), address, asks)
}

async fn send(address: SocketAddr, head: &str, body: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}Host: x\r\nContent-Type: {SDP}\r\n\r\n{body}");
    connection.write_all(request.as_bytes()).await.unwrap();
    connection
}

async fn read_to_end(mut connection: TcpStream) -> io::Result<String> {
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn on_the_wire_an_answer_has_the_length_that_it_has_here() {
    let origin = Origin::new([Step::Answer(srs_answer())]).await;
    let (control, address, asks) = serve(&origin).await;
    let (say, _said) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(control.run(asks, say));
    let head =
        format!("POST {WHIP} HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n");
    let chunked = format!("{:x}\r\n{OFFER}\r\n0\r\n\r\n", OFFER.len());
    let answer = read_to_end(send(address, &head, &chunked).await).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
    assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
    assert!(body.contains(" 127.0.0.1 18000 typ host\r\n"), "{body}");
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_its_offer() {
    let mut origin = Origin::new([Step::Wait]).await;
    let (control, address, asks) = serve(&origin).await;
    let (say, mut said) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(control.run(asks, say));
    let length = OFFER.len();
    let head = format!("POST {WHIP} HTTP/1.1\r\nContent-Length: {length}\r\n");
    let connection = send(address, &head, OFFER).await;
    origin.asked().await;
    drop(connection);
    origin.hung_up().await;
    assert!(matches!(said.recv().await, Some(Said::Offered(_))));
    assert!(matches!(said.recv().await, Some(Said::Abandoned)));
}
