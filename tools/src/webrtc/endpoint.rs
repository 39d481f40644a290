//! The HTTP side of the emulated origin: SRS's routes for WHIP and WHEP, answered as SRS does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;

use ringway::protocol::stun::IntegrityKey;

use crate::http_server::{Request, Response};
use crate::payload;
use crate::webrtc::sdp::{self, Credentials};

/// What the HTTP side tells the thread that has the media.
#[derive(Debug)]
pub(super) enum Order {
    /// A session was granted.
    Expect(Expected),
    /// The session with this username was ended.
    Forget(String),
}

/// A session whose client has been answered, or will be in a moment.
#[derive(Debug)]
pub(super) struct Expected {
    /// `origin's:client's`, as in the client's requests.
    pub(super) username: String,
    /// By the origin's password.
    pub(super) key: IntegrityKey,
    /// The stream's identity.
    pub(super) stream: u64,
    /// The client receives.
    pub(super) plays: bool,
}

/// What its requests are answered from.
pub(super) struct Endpoint {
    /// The media socket. Where its address is unspecified, the one that the client reached counts.
    pub(super) rtc: SocketAddr,
    pub(super) orders: SyncSender<Order>,
    /// Sessions granted and not over yet.
    pub(super) sessions: Arc<AtomicUsize>,
    pub(super) sessions_max: usize,
    pub(super) seed: u64,
    /// Offers so far, for credentials that differ.
    pub(super) offers: AtomicU64,
}

impl Endpoint {
    /// Answers a request. `None` closes the connection without a word, which is how SRS treats what
    /// it cannot use.
    pub(super) fn answer(&self, request: &Request) -> Option<Response> {
        let is_play_path = match request.path.trim_end_matches('/') {
            "/rtc/v1/whip" => false,
            "/rtc/v1/whep" | "/rtc/v1/whip-play" => true,
            _ => return Some(Response { status: "404 Not Found", ..Response::default() }),
        };
        match request.method.as_str() {
            "DELETE" => self.delete(request),
            "OPTIONS" => Some(Response { status: OK, ..Response::default() }),
            // Any other method is an offer to SRS.
            _ => self.offer(request, is_play_path || request.parameter("action") == Some("play")),
        }
    }

    fn offer(&self, request: &Request, plays: bool) -> Option<Response> {
        let offer = request.body.as_str();
        let client = Credentials::read(offer).filter(|_| offer.starts_with("v="))?;
        if self.sessions.fetch_add(1, Ordering::Relaxed) >= self.sessions_max {
            self.sessions.fetch_sub(1, Ordering::Relaxed);
            return Some(Response { status: "503 Service Unavailable", ..Response::default() });
        }
        let number = self.offers.fetch_add(1, Ordering::Relaxed);
        let own = Credentials::of_origin(self.seed ^ payload::mix(number));
        let app = request.parameter("app").unwrap_or("live");
        let stream = request.parameter("stream").unwrap_or("livestream");
        let username = format!("{}:{}", own.ufrag, client.ufrag);
        let location = format!(
            "/rtc/v1/whip/?action=delete&token={}&app={app}&stream={stream}&session={username}",
            self.token(&username),
        );
        let expected = Expected {
            username,
            key: IntegrityKey::new(own.password.as_bytes()),
            stream: payload::identity(&format!("{app}/{stream}")),
            plays,
        };
        // Told before the client is answered: its first check may come at once.
        self.orders.send(Order::Expect(expected)).ok()?;
        let answer = sdp::answer(offer, &own, self.candidate(request.reached.ip()), plays);
        let headers = vec![("Content-Type", "application/sdp".to_owned()), ("Location", location)];
        Some(Response { status: "201 Created", headers, body: answer })
    }

    /// Succeeds for unknown sessions, too; but not without the right token.
    fn delete(&self, request: &Request) -> Option<Response> {
        let username = request.parameter("session")?.to_owned();
        let token = self.token(&username);
        request.parameter("token").filter(|given| *given == token)?;
        self.orders.send(Order::Forget(username)).ok()?;
        Some(Response { status: OK, ..Response::default() })
    }

    fn token(&self, username: &str) -> String {
        format!("{:x}", payload::mix(self.seed ^ payload::identity(username)))
    }

    fn candidate(&self, reached: IpAddr) -> SocketAddr {
        let ip = self.rtc.ip();
        SocketAddr::new(if ip.is_unspecified() { reached } else { ip }, self.rtc.port())
    }
}

const OK: &str = "200 OK";

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, sync_channel};

    fn endpoint(sessions_max: usize) -> (Endpoint, Receiver<Order>) {
        let (orders, taken) = sync_channel(8);
        let endpoint = Endpoint {
            rtc: "0.0.0.0:8000".parse().unwrap(),
            orders,
            sessions: Arc::default(),
            sessions_max,
            seed: 1,
            offers: AtomicU64::default(),
        };
        (endpoint, taken)
    }

    fn request(method: &str, target: &str, body: String) -> Request {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            body,
            reached: "10.0.0.5:1985".parse().unwrap(),
        }
    }

    fn offer() -> String {
        sdp::offer(&Credentials::of_client(3), 7, true)
    }

    fn location(response: &Response) -> &str {
        let found = response.headers.iter().find(|(name, _)| *name == "Location");
        &found.unwrap().1
    }

    #[test]
    fn an_offer_is_answered_after_its_session_is_expected() {
        let (endpoint, taken) = endpoint(9);
        let target = "/rtc/v1/whip/?app=live&stream=a";
        let response = endpoint.answer(&request("POST", target, offer())).unwrap();
        assert_eq!(response.status, "201 Created");
        assert_eq!(sdp::first_candidate(&response.body), Some("10.0.0.5:8000".parse().unwrap()));
        let Ok(Order::Expect(expected)) = taken.try_recv() else {
            panic!("nothing is expected");
        };
        let own = Credentials::read(&response.body).unwrap();
        let username = format!("{}:{}", own.ufrag, Credentials::of_client(3).ufrag);
        assert_eq!(expected.username, username);
        assert_eq!((expected.stream, expected.plays), (payload::identity("live/a"), false));
        assert!(location(&response).starts_with("/rtc/v1/whip/?action=delete&token="));
    }

    #[test]
    fn what_plays_is_said_by_the_path_or_the_action() {
        for (target, plays) in [
            ("/rtc/v1/whip/?stream=a", false),
            ("/rtc/v1/whip/?stream=a&action=play", true),
            ("/rtc/v1/whep/?stream=a", true),
            ("/rtc/v1/whip-play/?stream=a", true),
        ] {
            let (endpoint, taken) = endpoint(9);
            endpoint.answer(&request("POST", target, offer())).unwrap();
            assert!(
                matches!(taken.try_recv(), Ok(Order::Expect(e)) if e.plays == plays),
                "{target}"
            );
        }
    }

    #[test]
    fn the_location_ends_the_session_and_nothing_else_does() {
        let (endpoint, taken) = endpoint(9);
        let response = endpoint.answer(&request("POST", "/rtc/v1/whep/", offer())).unwrap();
        let location = location(&response).to_owned();
        taken.try_recv().unwrap();
        let wrong = location.replace("token=", "token=0");
        assert_eq!(endpoint.answer(&request("DELETE", &wrong, String::new())), None);
        assert!(taken.try_recv().is_err());
        let deleted = endpoint.answer(&request("DELETE", &location, String::new())).unwrap();
        assert_eq!((deleted.status, deleted.body.as_str()), ("200 OK", ""));
        assert!(matches!(taken.try_recv(), Ok(Order::Forget(_))));
    }

    #[test]
    fn what_is_no_offer_gets_no_answer() {
        let (endpoint, _taken) = endpoint(9);
        for body in ["", "x", "v=0\r\n"] {
            let request = request("POST", "/rtc/v1/whip/", body.to_owned());
            assert_eq!(endpoint.answer(&request), None, "{body}");
        }
    }

    #[test]
    fn offers_above_the_limit_are_refused() {
        let (endpoint, _taken) = endpoint(1);
        let request = request("POST", "/rtc/v1/whip/", offer());
        assert_eq!(endpoint.answer(&request).unwrap().status, "201 Created");
        assert_eq!(endpoint.answer(&request).unwrap().status, "503 Service Unavailable");
    }
}
