//! An origin's HTTP API, and control.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};

use crate::config::{Config, HostHeader};
use crate::control::ask::{Ask, Offer, OfferRefused, Placement, Resource};
use crate::control::http::{Local, Peer};
use crate::control::origin_client::Patience;
use crate::control::whip::{Signalling, allow_everywhere};
use crate::protocol::ice::IcePair;
use crate::shard::OriginId;
use crate::shard::command::{EndReason, NotExpected, RtcId};

/// What an origin does with one connection, once it has read the request.
pub(super) enum Step {
    /// Writes this and closes.
    Answer(String),
    /// Waits until the relay closes, or until it has waited enough.
    Wait,
}

/// What an origin sees.
#[derive(Debug)]
pub(super) struct Asked {
    /// Method and target.
    pub(super) line: String,
    pub(super) headers: HashMap<String, String>,
    pub(super) body: String,
}

pub(super) struct Origin {
    pub(super) api: SocketAddr,
    asked: UnboundedReceiver<Asked>,
    hung_up: UnboundedReceiver<()>,
    enough: Arc<Notify>,
}

impl Origin {
    /// An origin that takes as many connections as there are steps.
    pub(super) async fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::at("127.0.0.1:0", steps).await
    }

    pub(super) async fn at(address: &str, steps: impl IntoIterator<Item = Step>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let api = listener.local_addr().unwrap();
        let (tell_asked, asked) = unbounded_channel();
        let (tell_hung_up, hung_up) = unbounded_channel();
        let steps: Vec<Step> = steps.into_iter().collect();
        let enough = Arc::new(Notify::new());
        let has_enough = Arc::clone(&enough);
        tokio::spawn(async move {
            for step in steps {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = tell_asked.send(read_request(&mut stream).await);
                match step {
                    Step::Answer(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                    Step::Wait => {
                        let mut nothing = [0; 1];
                        tokio::select! {
                            _ = stream.read(&mut nothing) => drop(tell_hung_up.send(())),
                            () = has_enough.notified() => {}
                        }
                    }
                }
            }
        });
        Self { api, asked, hung_up, enough }
    }

    /// The next request; `asked` must be sure to come.
    pub(super) async fn asked(&mut self) -> Asked {
        self.asked.recv().await.unwrap()
    }

    pub(super) fn was_asked(&mut self) -> bool {
        self.asked.try_recv().is_ok()
    }

    /// Closes the connection on which it waits.
    pub(super) fn hang_up(&self) {
        self.enough.notify_one();
    }

    /// Returns when the relay has closed a connection that was waited on.
    pub(super) async fn hung_up(&mut self) {
        self.hung_up.recv().await.unwrap();
    }
}

async fn read_request(stream: &mut TcpStream) -> Asked {
    let mut text = String::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let line = lines.next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
            let headers: HashMap<String, String> = lines
                .map(|line| line.split_once(": ").unwrap())
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Asked { line, headers, body: body.to_owned() };
            }
        }
        let length = stream.read(&mut chunk).await.unwrap();
        assert!(length > 0, "the request has no end: {text}");
        text.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
    }
}

/// An answer as it is on the wire.
pub(super) fn http(status: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "Connection: close\r\n\r\n" + body
}

/// What control is asked and told, in its order.
#[derive(Debug)]
pub(super) enum Said {
    Offered(Box<Offer>),
    Expected { address: SocketAddr, pairs: Vec<IcePair> },
    Published(Box<Resource>),
    Abandoned,
    Unreachable,
    Finished(EndReason),
}

/// How control answers.
pub(super) struct Control {
    /// `None`: it does not.
    pub(super) placement: Option<Result<Placement, OfferRefused>>,
    /// `None`: the shards do not.
    pub(super) expected: Option<Result<(), NotExpected>>,
    /// It answers offers when this comes.
    pub(super) gate: Option<oneshot::Receiver<()>>,
    /// From the second time on, where that differs.
    pub(super) expected_later: Option<Result<(), NotExpected>>,
}

impl Control {
    pub(super) fn for_origin(api: SocketAddr) -> Self {
        let placement = Placement {
            session: SESSION,
            origin: OriginId(0),
            name: "a".to_owned(),
            api,
            rtc: Some(RTC.parse().unwrap()),
            path: None,
            host: HostHeader::Client,
        };
        Self {
            placement: Some(Ok(placement)),
            expected: Some(Ok(())),
            gate: None,
            expected_later: None,
        }
    }

    pub(super) fn placement(&mut self) -> &mut Placement {
        self.placement.as_mut().unwrap().as_mut().unwrap()
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is asked by operators only")]
    pub(super) async fn run(mut self, mut asks: mpsc::Receiver<Ask>, say: UnboundedSender<Said>) {
        let mut resources: HashMap<String, Resource> = HashMap::new();
        let mut unanswered = Vec::new();
        while let Some(ask) = asks.recv().await {
            let said = match ask {
                Ask::Offer { offer, reply } => {
                    let _ = say.send(Said::Offered(offer));
                    if let Some(gate) = self.gate.take() {
                        gate.await.unwrap();
                    }
                    if let Some(placement) = self.placement.clone() {
                        let _ = reply.send(placement.map(Box::new));
                    }
                    continue;
                }
                Ask::Expect { session: SESSION, address, pairs, reply } => {
                    match self.expected {
                        Some(result) => drop(reply.send(result)),
                        None => unanswered.push(reply),
                    }
                    self.expected = self.expected_later.or(self.expected);
                    Said::Expected { address, pairs }
                }
                Ask::Publish { session: SESSION, resource } => {
                    resources.insert(resource.token.0.to_string(), (*resource).clone());
                    Said::Published(resource)
                }
                Ask::Resource { token, reply } => {
                    let found = resources.get(&*token.0).cloned();
                    let _ = reply.send(found.map(|resource| (SESSION, resource)));
                    continue;
                }
                Ask::Abandon { session: SESSION } => Said::Abandoned,
                Ask::Unreachable { session: SESSION } => Said::Unreachable,
                Ask::Finish { session: SESSION, reason } => {
                    resources.clear();
                    Said::Finished(reason)
                }
                _ => panic!("nobody asks this over the HTTP API"),
            };
            let _ = say.send(said);
        }
    }
}

/// The routes, and control behind them.
pub(super) struct Relay {
    pub(super) client: Client,
    said: UnboundedReceiver<Said>,
}

/// Whoever asks.
#[derive(Clone)]
pub(super) struct Client(axum::Router);

impl std::ops::Deref for Relay {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Relay {
    pub(super) fn before(origin: &Origin) -> Self {
        Self::new(Control::for_origin(origin.api), Config::default())
    }

    pub(super) fn new(control: Control, config: Config) -> Self {
        Self::with(control, config, |_| {})
    }

    pub(super) fn with(
        control: Control,
        config: Config,
        change: impl FnOnce(&mut Signalling),
    ) -> Self {
        let (ask, asks) = mpsc::channel(8);
        let (say, said) = unbounded_channel();
        tokio::spawn(control.run(asks, say));
        let webrtc = Some("[::]:18000".parse().unwrap());
        let mut signalling = Signalling::new(ask, Arc::new(config), webrtc);
        change(&mut signalling);
        Self { client: Client(allow_everywhere(signalling.routes())), said }
    }

    /// What was said to control next; it must be sure to come.
    pub(super) async fn said(&mut self) -> Said {
        self.said.recv().await.unwrap()
    }

    pub(super) fn has_said_nothing(&mut self) -> bool {
        self.said.try_recv().is_err()
    }
}

impl Client {
    pub(super) async fn post(&self, path: &str, sdp: &str) -> Answer {
        self.ask(Method::POST, path, &[("content-type", "application/sdp")], sdp).await
    }

    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<String>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", HOST);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.into())).unwrap()).await
    }

    pub(super) async fn send(&self, mut request: Request<Body>) -> Answer {
        request.extensions_mut().insert(Peer(CLIENT.parse().unwrap()));
        request.extensions_mut().insert(Local(LOCAL.parse().unwrap()));
        let routes = TowerToHyperService::new(self.0.clone());
        let (parts, body) = routes.call(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, body };
        answer.assert_has_no_secret();
        answer
    }
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next().map(|value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} is there twice: {:?}", self.headers);
        first
    }

    #[track_caller]
    pub(super) fn assert_problem(&self, status: u16, detail: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert!(self.body.contains(detail), "{}", self.body);
    }

    /// Whatever goes wrong, nobody is told the addresses and passwords of the ends. All answers can
    /// be read by pages of other sites.
    fn assert_has_no_secret(&self) {
        let shown = format!("{:?} {}", self.headers, self.body);
        for secret in ["127.0.0.1:", " 127.0.0.1 8001", "10.77.9.1", "192.168.7.7", "90s6qxq6x"] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
        if self.status >= 400 && self.status != 406 {
            for secret in ["v=0", "clientclient", "originorigin"] {
                assert!(!shown.contains(secret), "{secret}: {shown}");
            }
        }
        assert_eq!(self.header("access-control-allow-origin"), Some("*"));
        assert!(self.header("access-control-expose-headers").unwrap().contains("Location"));
        let allowed = self.header("access-control-allow-headers").unwrap();
        assert!(allowed.contains("Authorization") && allowed.contains("If-Match"));
    }
}

/// Limits that an origin which never answers reaches at once.
pub(super) const IMPATIENT: Patience = Patience {
    connect: std::time::Duration::from_millis(50),
    total: std::time::Duration::from_millis(50),
};
pub(super) const SESSION: RtcId = RtcId(7);
/// The origin's registered endpoint.
pub(super) const RTC: &str = "10.77.9.1:8000";
/// Where the client comes from, where it was accepted, and what it calls this relay.
pub(super) const CLIENT: &str = "203.0.113.5:40000";
pub(super) const LOCAL: &str = "198.51.100.1:11985";
pub(super) const HOST: &str = "relay.example:11985";
