//! Control as a whole: over real connections, with threads that play the shards.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener as StdListener, TcpStream};
use std::sync::mpsc as channel;
use std::thread::JoinHandle;

use axum::body::Body;
use axum::http::{Request as HttpRequest, StatusCode};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use secrecy::SecretString;
use serde_json::{Value, json};
use socket2::{Domain, Type};

use super::directory::fixtures::{request, session, stream};
use super::http::Peer;
use super::*;
use crate::mailbox::mailbox;
use crate::shard::OriginId;
use crate::shard::command::{
    EndReason, Event, Flow, ProtocolView, Role, RtcId, SessionView, SrtView, State as Stage,
    Traffic, WebRtcView,
};
use crate::shard::counters::{Counters, Share};

/// Byte by byte what SRS 7 posts, on a connection of its own, without an Accept header.
const AS_SRS_POSTS_IT: &str = concat!(
    "POST /api/v1/srs/register HTTP/1.1\r\n",
    "Connection: Keep-Alive\r\n",
    "Content-Length: 206\r\n",
    "Content-Type: application/json\r\n",
    "Host: 127.0.0.1:12025\r\n",
    "User-Agent: SRS/7.0.18(Hang)\r\n",
    "\r\n",
    r#"{"device_id":"origin1","ip":"10.77.9.1","server":"vid-494121g","service":"33z81803","#,
    r#""pid":"17907","rtmp":["19351"],"http":["8081"],"api":["19851"],"#,
    r#""srt":["udp://0.0.0.0:10081"],"rtc":["udp://0.0.0.0:8001"]}"#
);

/// Control on a thread of its own, with as many fake shards as asked for.
struct Relay {
    system: SocketAddr,
    http: SocketAddr,
    events: Post<FromShard>,
    requests: Post<Request>,
    /// What shard 0 was told, questions aside.
    told: channel::Receiver<Command>,
    control: JoinHandle<Result<(), ControlError>>,
    shards: Vec<JoinHandle<()>>,
}

impl Relay {
    fn start(config: Config, shards: u16) -> Self {
        Self::start_on(run, config, shards)
    }

    fn start_on(run: fn(Parts) -> Result<(), ControlError>, config: Config, shards: u16) -> Self {
        let (events, from_shards) = mailbox(64).unwrap();
        let (requests, from_process) = mailbox(4).unwrap();
        let (tell, told) = channel::channel();
        let (links, shards): (Vec<_>, Vec<_>) = (0..shards)
            .map(|index| {
                let (post, mailbox) = mailbox(64).unwrap();
                let shard =
                    FakeShard { index, mailbox, events: events.clone(), tell: tell.clone() };
                let thread = std::thread::spawn(move || shard.run());
                (ShardLink { post, cpu: None, tid: 0 }, thread)
            })
            .unzip();
        let listener = || {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&any.into()).unwrap();
            // As long as the relay's own, so that no SYN is lost.
            socket.listen(1024).unwrap();
            StdListener::from(socket)
        };
        let (system, http) = (listener(), listener());
        let addresses = (system.local_addr().unwrap(), http.local_addr().unwrap());
        let parts = Parts {
            config: Arc::new(config),
            shards: links,
            events: from_shards,
            system: Some(system),
            http: Some(http),
            tls: None,
            webrtc: None,
            requests: from_process,
            quitting: crossbeam_channel::bounded(1).0,
            handle_signals: false,
            supervisor: None,
            engine: "mmsg",
            sessions_max: 100,
        };
        let control = std::thread::spawn(move || run(parts));
        let (system, http) = addresses;
        Self { system, http, events, requests, told, control, shards }
    }

    fn event(&self, event: Event) {
        assert!(self.events.send(FromShard { shard: 0, event }).is_ok());
    }

    fn get(&self, path: &str) -> Answer {
        ask(self.system, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    fn register(&self) {
        let body = AS_SRS_POSTS_IT.replace("Keep-Alive", "close");
        assert_eq!(ask(self.system, &body).status, 200);
    }

    fn quit(self, request: Request) {
        assert!(self.requests.send(request).is_ok());
        self.control.join().unwrap().unwrap();
        for shard in self.shards {
            shard.join().unwrap();
        }
    }
}

/// Answers questions as a shard with an SRT session in slot 7 and a WebRTC session in
/// [`OWNED_SLOT`] would, and passes decisions on.
struct FakeShard {
    index: u16,
    mailbox: Mailbox<Command>,
    events: Post<FromShard>,
    tell: channel::Sender<Command>,
}

impl FakeShard {
    fn run(self) {
        use rustix::event::{PollFd, PollFlags, poll};
        loop {
            poll(&mut [PollFd::new(&self.mailbox, PollFlags::IN)], None).unwrap();
            self.mailbox.acknowledge();
            while let Some(command) = self.mailbox.take() {
                match command {
                    Command::Counters { request } => {
                        let client_in = Flow { packets: 5, bytes: 500 };
                        let counters = Box::new(Counters {
                            srt: Share { client_in, ..Share::default() },
                            ..Counters::default()
                        });
                        self.send(Event::Counters { request, counters });
                    }
                    Command::Sessions { request, from_slot, .. } => {
                        let sessions = match from_slot {
                            ..=7 => vec![one_view()],
                            OWNED_SLOT => vec![webrtc_view()],
                            _ => Vec::new(),
                        };
                        self.send(Event::Sessions { request, sessions, next_slot: None });
                    }
                    Command::CloseAll => self.send(Event::Emptied),
                    Command::Stop => return,
                    Command::Expect { session, .. } => {
                        self.send(Event::Expected { session: session.id, result: Ok(()) });
                    }
                    other @ (Command::Own { .. }
                    | Command::Deny { .. }
                    | Command::Yield { .. }
                    | Command::Finish { .. }
                    | Command::Open { .. }
                    | Command::Refuse { .. }
                    | Command::Close { .. }
                    | Command::Drain(_)
                    | Command::KeyLength(_)) => {
                        if self.index == 0 {
                            // The test may have seen enough.
                            let _ = self.tell.send(other);
                        }
                    }
                }
            }
        }
    }

    fn send(&self, event: Event) {
        assert!(self.events.send(FromShard { shard: self.index, event }).is_ok());
    }
}

fn one_view() -> SessionView {
    SessionView {
        session: session(7).key,
        state: Stage::Established.label(),
        client: "192.0.2.1:5000".parse().unwrap(),
        local: None,
        stream: stream("live/a"),
        role: Role::Publish,
        origin: Some(OriginId(0)),
        age: Duration::from_secs(4),
        traffic: Traffic::default(),
        protocol: ProtocolView::Srt(SrtView::default()),
    }
}

fn webrtc_view() -> SessionView {
    let webrtc = WebRtcView {
        id: RtcId(1),
        ufrag_pairs: vec!["u:u".to_owned()],
        addresses: vec!["192.0.2.1:5000".parse().unwrap()],
        ssrcs: vec![7],
    };
    SessionView { protocol: ProtocolView::WebRtc(webrtc), ..one_view() }
}

/// Where the fake shards keep a WebRTC session. It is not in their lists, which begin at slot 0.
const OWNED_SLOT: u32 = 100;

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    #[track_caller]
    fn assert_problem(&self, status: u16, detail: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], "about:blank");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
}

/// Sends bytes and reads the answer until its end, by its length or by the end of the connection.
fn ask(address: SocketAddr, bytes: &str) -> Answer {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.write_all(bytes.as_bytes()).unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /api/v1/srs/register HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

#[test]
fn srs_registers_with_the_very_bytes_it_sends_and_may_keep_its_connection() {
    let relay = Relay::start(Config::default(), 1);
    let mut connection = TcpStream::connect(relay.system).unwrap();
    for _ in 0..2 {
        connection.write_all(AS_SRS_POSTS_IT.as_bytes()).unwrap();
        let expected = format!(r#"{{"code":0,"pid":"{}"}}"#, std::process::id());
        let mut answer = String::new();
        while !answer.ends_with(&expected) {
            let mut chunk = [0; 512];
            let length = connection.read(&mut chunk).unwrap();
            assert!(length > 0, "{answer}");
            answer.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
        }
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    }
    let origins = relay.get("/api/v1/origins").json();
    assert_eq!(origins["origins"].as_array().unwrap().len(), 1);
    assert_eq!(origins["origins"][0]["name"], "origin1");
    assert_eq!(origins["origins"][0]["endpoints"]["srt"], json!(["udp://:10081"]));
    assert_eq!(origins["origins"][0]["state"], "up");
    relay.quit(Request::Quit);
}

#[test]
fn a_registration_that_is_wrong_gets_one_answer_that_says_why() {
    let relay = Relay::start(Config::default(), 1);
    let wrong = json!({"ip": "10.0.0.5", "server": "s", "service": "v", "rtmp": ["1"]});
    ask(relay.system, &post(&wrong.to_string())).assert_problem(400, "`pid` is missing");
    ask(relay.system, &post("")).assert_problem(400, "not a JSON object");
    ask(relay.system, &post(&" ".repeat(64 * 1024 + 1))).assert_problem(413, "65536 bytes");
    relay.quit(Request::QuitNow);
}

#[test]
fn a_known_server_id_from_another_address_is_a_conflict() {
    let relay = Relay::start(Config::default(), 1);
    let body = |ip: &str| {
        json!({"ip": ip, "server": "s", "service": "v", "pid": "1", "rtmp": ["1"]}).to_string()
    };
    assert_eq!(ask(relay.system, &post(&body("10.0.0.5"))).status, 200);
    ask(relay.system, &post(&body("10.0.0.6"))).assert_problem(409, "lives at 10.0.0.5");
    relay.quit(Request::QuitNow);
}

#[test]
fn control_does_without_io_uring() {
    let relay = Relay::start_on(run_without_uring, Config::default(), 1);
    relay.register();
    assert_eq!(relay.get("/livez").status, 200);
    relay.quit(Request::Quit);
}

#[test]
fn a_key_length_that_an_origin_answers_is_told_to_the_shards() {
    let origin = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let static_origin = crate::config::StaticOrigin {
        srt: Some(origin.local_addr().unwrap().port()),
        ..crate::config::StaticOrigin::at("a", IpAddr::from(LOCAL))
    };
    let relay = Relay::start(Config { origins: vec![static_origin], ..Config::default() }, 1);
    let mut buffer = [0; 128];
    let (length, caller) = origin.recv_from(&mut buffer).unwrap();
    let induction = crate::protocol::srt::Handshake::parse(&buffer[..length]).unwrap();
    let answer = induction.induction_response(1, 4, 0xC00C1E, IpAddr::from(LOCAL));
    origin.send_to(&answer, caller).unwrap();
    let told = relay.told.recv().unwrap();
    assert!(matches!(told, Command::KeyLength(32)), "{told:?}");
    relay.quit(Request::Quit);
}

#[test]
fn a_client_that_says_at_once_that_nothing_follows_is_answered() {
    let relay = Relay::start(Config::default(), 1);
    let mut connection = TcpStream::connect(relay.system).unwrap();
    connection.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    connection.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    relay.quit(Request::QuitNow);
}

#[test]
fn silent_connections_on_every_seat_keep_no_origin_out() {
    // Both ends of every connection are in this process.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let relay = Relay::start(Config::default(), 1);
    let silent: Vec<_> = (0..http::CONNECTIONS_MAX + 100)
        .map(|_| TcpStream::connect(relay.system).unwrap())
        .collect();
    let begun = Instant::now();
    relay.register();
    assert!(begun.elapsed() < http::REQUEST_TIMEOUT / 2, "{:?}", begun.elapsed());
    drop(silent);
    relay.quit(Request::QuitNow);
}

#[test]
fn unknown_paths_and_methods_are_problems_too() {
    let relay = Relay::start(Config::default(), 1);
    relay.get("/api/v1/nothing").assert_problem(404, "/api/v1/nothing");
    let wrong = relay.get("/api/v1/srs/register");
    wrong.assert_problem(405, "GET");
    assert!(wrong.head.contains("\r\nallow: post"), "{}", wrong.head);
    let elsewhere = "GET /api/v1/origins HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    ask(relay.http, elsewhere).assert_problem(404, "/api/v1/origins");
    relay.quit(Request::QuitNow);
}

#[test]
fn headers_above_their_maximum_are_refused() {
    let relay = Relay::start(Config::default(), 1);
    let header = "x".repeat(17 * 1024);
    let mut connection = TcpStream::connect(relay.system).unwrap();
    let request = format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: {header}\r\n\r\n");
    // The relay may close before it has read everything.
    let _ = connection.write_all(request.as_bytes());
    let mut answer = [0; 12];
    connection.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
    relay.quit(Request::QuitNow);
}

#[test]
fn both_apis_tell_their_version_in_the_words_of_srs_and_of_its_go_proxy() {
    let relay = Relay::start(Config::default(), 1);
    let version = env!("CARGO_PKG_VERSION");
    for address in [relay.system, relay.http] {
        let request = "GET /api/v1/versions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let body = ask(address, request).json();
        assert_eq!((&body["signature"], &body["version"]), (&json!("Ringway"), &json!(version)));
        assert_eq!((&body["code"], &body["data"]["version"]), (&json!(0), &json!(version)));
    }
    relay.quit(Request::QuitNow);
}

#[test]
fn a_session_is_listed_found_by_its_id_and_closed() {
    let relay = Relay::start(Config::default(), 2);
    relay.register();
    relay.event(Event::Pick(Box::new(request(7, "live/a", Role::Publish))));
    let opened = relay.told.recv().unwrap();
    assert!(matches!(opened, Command::Open { .. }), "{opened:?}");

    let list = relay.get("/api/v1/sessions").json();
    assert_eq!(list["sessions"].as_array().unwrap().len(), 2);
    assert_eq!(list["sessions"][0]["id"], "0-7-1");
    assert_eq!(list["sessions"][0]["origin"], "origin1");
    assert_eq!(relay.get("/api/v1/sessions/0-7-1").json()["stream"], "__defaultVhost__/live/a");
    let streams = relay.get("/api/v1/streams").json();
    assert_eq!(streams["streams"][0]["publishers"], 1);
    for id in ["0-7-2", "0-8-1", "9-7-1", "x", "%ff"] {
        relay.get(&format!("/api/v1/sessions/{id}")).assert_problem(404, "there is no session");
    }

    let delete = |id| {
        let head = format!("DELETE /api/v1/sessions/{id} HTTP/1.1\r\nHost: x\r\n");
        ask(relay.system, &format!("{head}Connection: close\r\n\r\n"))
    };
    delete("0-9-1").assert_problem(404, "0-9-1");
    assert_eq!(delete("0-7-1").status, 204);
    let closed = relay.told.recv().unwrap();
    assert!(matches!(closed, Command::Close { reason: EndReason::Operator, .. }), "{closed:?}");
    relay.quit(Request::QuitNow);
}

#[test]
fn a_webrtc_session_is_listed_and_found_before_and_after_a_shard_owns_it_and_closed() {
    let origin = crate::config::StaticOrigin {
        direct: Some(4001),
        ..crate::config::StaticOrigin::at("p2p", IpAddr::from(LOCAL))
    };
    let config = Config { origins: vec![origin], webrtc_direct: true, ..Config::default() };
    let relay = Relay::start(config, 2);
    let client = "192.0.2.1:5000".parse().unwrap();
    relay.event(Event::Candidate { client, ufrag: "abcd".into() });
    let owned = relay.told.recv().unwrap();
    assert!(matches!(owned, Command::Own { session: RtcId(1), .. }), "{owned:?}");
    let before = relay.get("/api/v1/sessions/w-1").json();
    assert_eq!((&before["state"], &before["origin"]), (&json!("expected"), &json!("p2p")));

    let key = crate::shard::SessionKey { slot: OWNED_SLOT, generation: 1 };
    let setup = Duration::from_millis(9);
    relay.event(Event::Validated { session: RtcId(1), key, client, setup });
    let after = relay.get("/api/v1/sessions/w-1").json();
    assert_eq!((&after["id"], &after["state"]), (&json!("w-1"), &json!("established")));
    assert_eq!(after["webrtc"]["ssrcs"], json!([7]));
    relay.get("/api/v1/sessions/w-2").assert_problem(404, "w-2");

    let delete = |id| {
        let head = format!("DELETE /api/v1/sessions/{id} HTTP/1.1\r\nHost: x\r\n");
        ask(relay.system, &format!("{head}Connection: close\r\n\r\n"))
    };
    delete("w-2").assert_problem(404, "w-2");
    assert_eq!(delete("w-1").status, 204);
    let told = relay.told.recv().unwrap();
    assert!(matches!(told, Command::Finish { reason: EndReason::Operator, .. }), "{told:?}");
    relay.quit(Request::QuitNow);
}

#[test]
fn health_and_metrics_ask_every_shard() {
    let relay = Relay::start(Config::default(), 2);
    assert_eq!(relay.get("/livez").json()["shards"], 2);
    relay.get("/readyz").assert_problem(503, "no live origin");
    relay.register();
    assert_eq!(relay.get("/readyz").json()["origins_up"], 1);
    let metrics = relay.get("/metrics");
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"));
    for line in [
        r#"ringway_packets_total{proto="srt",leg="client",dir="in"} 10"#,
        r#"ringway_shard_up{shard="1"} 1"#,
        r#"ringway_origin_up{origin="origin1"} 1"#,
        r#"ringway_refusals_total{proto="webrtc",reason="no_origin"} 0"#,
        "ringway_sessions_expected 0",
    ] {
        assert!(metrics.body.lines().any(|other| other == line), "{line}\n{}", metrics.body);
    }
    relay.quit(Request::QuitNow);
}

#[test]
fn an_origin_whose_api_says_that_it_fails_is_down_after_three_checks_and_no_session() {
    let api = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let origin = crate::config::StaticOrigin {
        api: Some(api.local_addr().unwrap().port()),
        ..crate::config::StaticOrigin::at("a", IpAddr::from(LOCAL))
    };
    let origin_check = Some(Duration::from_millis(100));
    let config = Config { origins: vec![origin], origin_check, ..Config::default() };
    let relay = Relay::start(config, 1);
    let refuse = || {
        let (mut connection, _) = api.accept().unwrap();
        assert!(connection.read(&mut [0; 1_024]).unwrap() > 0);
        connection.write_all(b"HTTP/1.1 503 Down\r\ncontent-length: 0\r\n\r\n").unwrap();
    };
    for _ in 0..2 {
        refuse();
    }
    assert_eq!(relay.get("/api/v1/origins").json()["origins"][0]["state"], "up");
    // The fourth comes when the third is known.
    for _ in 0..2 {
        refuse();
    }
    let shown = relay.get("/api/v1/origins").json()["origins"][0].clone();
    assert_eq!(shown["state"], "down", "{shown}");
    assert_eq!(shown["reason"], "webrtc: checks are answered with errors");
    assert!(relay.get("/metrics").body.contains("ringway_origin_up{origin=\"a\"} 0"));
    relay.quit(Request::QuitNow);
}

#[test]
fn an_origin_is_drained_by_its_name_or_number_and_gets_streams_again() {
    let relay = Relay::start(Config::default(), 1);
    relay.register();
    let post = |path: &str| {
        let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        ask(relay.system, &request)
    };
    let state = || relay.get("/api/v1/origins").json()["origins"][0]["state"].clone();
    assert_eq!(post("/api/v1/origins/origin1/drain").status, 204);
    assert_eq!(state(), "draining");
    relay.get("/readyz").assert_problem(503, "no live origin that takes new streams");
    assert_eq!(post("/api/v1/origins/0/undrain").status, 204);
    assert_eq!(state(), "up");
    post("/api/v1/origins/other/drain").assert_problem(404, "no origin other");
    relay.quit(Request::QuitNow);
}

#[test]
fn a_draining_relay_is_not_ready_but_takes_heartbeats_until_its_last_session_has_ended() {
    let relay = Relay::start(Config::default(), 1);
    relay.register();
    relay.event(Event::Pick(Box::new(request(7, "live/a", Role::Publish))));
    relay.told.recv().unwrap();
    assert!(relay.requests.send(Request::Quit).is_ok());
    let drain = relay.told.recv().unwrap();
    assert!(matches!(drain, Command::Drain(true)), "{drain:?}");
    relay.get("/readyz").assert_problem(503, "draining");
    relay.register();
    relay.event(Event::Pick(Box::new(request(8, "live/b", Role::Publish))));
    let refused = relay.told.recv().unwrap();
    assert!(matches!(refused, Command::Refuse { .. }), "{refused:?}");

    let (reason, session) = (EndReason::ClientShutdown, session(7).key);
    let traffic = Traffic::default();
    relay.event(Event::Ended { session, reason, traffic, age: Duration::ZERO });
    relay.control.join().unwrap().unwrap();
}

/// Asks a router as `peer` would, while `state` answers. Fake shards are silent: their mailboxes
/// are kept unread.
async fn ask_router(config: Config, peer: [u8; 4], request: HttpRequest<Body>) -> Answer {
    ask_router_after(config, peer, request, None).await
}

/// The same after shard 0 has said something.
async fn ask_router_after(
    config: Config,
    peer: [u8; 4],
    request: HttpRequest<Body>,
    said: Option<Event>,
) -> Answer {
    let config = Arc::new(config);
    let (ask, mut asks) = mpsc::channel(8);
    let (post, _unread) = mailbox(8).unwrap();
    let links = vec![ShardLink { post, cpu: None, tid: 0 }];
    let mut state = State::new(Instant::now(), &config, links, "mmsg", 1);
    if let Some(event) = said {
        state.handle_event(Instant::now(), FromShard { shard: 0, event });
    }
    let router = TowerToHyperService::new(Api::new(ask, config, 1).system_router());
    let mut request = request;
    request.extensions_mut().insert(Peer(SocketAddr::new(IpAddr::from(peer), 9)));
    let owner = async {
        loop {
            let asked = receive(&mut asks).await;
            state.handle_ask(Instant::now(), asked);
        }
    };
    let response = tokio::select! {
        response = router.call(request) => response.unwrap(),
        () = owner => unreachable!("it never ends"),
    };
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status.as_u16(),
        head: format!("{:?}", parts.headers).replace("\": \"", ": ").to_ascii_lowercase(),
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

const LOCAL: [u8; 4] = [127, 0, 0, 1];
const REMOTE: [u8; 4] = [10, 77, 9, 1];

fn get(path: &str) -> HttpRequest<Body> {
    HttpRequest::get(path).body(Body::empty()).unwrap()
}

fn with_token(path: &str, token: &str) -> HttpRequest<Body> {
    let authorization = format!("Bearer {token}");
    HttpRequest::get(path).header("authorization", authorization).body(Body::empty()).unwrap()
}

fn registration_from_srs(token: Option<&str>) -> HttpRequest<Body> {
    let (_, body) = AS_SRS_POSTS_IT.split_once("\r\n\r\n").unwrap();
    let mut request = HttpRequest::post("/api/v1/srs/register");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn without_a_token_operators_are_on_this_host() {
    for path in ["/api/v1/origins", "/api/v1/streams", "/api/v1/sessions", "/api/v1/sessions/0-0-0"]
    {
        let answer = ask_router(Config::default(), REMOTE, get(path)).await;
        answer.assert_problem(403, "--api-token");
    }
    assert_eq!(ask_router(Config::default(), LOCAL, get("/api/v1/origins")).await.status, 200);
}

#[tokio::test]
async fn with_a_token_operators_are_anywhere_and_need_it_everywhere() {
    let config = || Config { api_token: Some(SecretString::from("right")), ..Config::default() };
    for peer in [LOCAL, REMOTE] {
        let path = "/api/v1/origins";
        assert_eq!(ask_router(config(), peer, with_token(path, "right")).await.status, 200);
        let wrong = ask_router(config(), peer, with_token(path, "wrong")).await;
        wrong.assert_problem(401, "--api-token");
        assert!(wrong.head.contains("www-authenticate"), "{}", wrong.head);
        ask_router(config(), peer, get(path)).await.assert_problem(401, "--api-token");
    }
}

#[tokio::test]
async fn health_versions_and_metrics_are_open() {
    let config = || Config { api_token: Some(SecretString::from("right")), ..Config::default() };
    assert_eq!(ask_router(config(), REMOTE, get("/api/v1/versions")).await.status, 200);
    assert_eq!(ask_router(config(), REMOTE, get("/readyz")).await.status, 503);
    assert_eq!(ask_router(config(), REMOTE, get("/metrics")).await.status, 200);
}

#[tokio::test]
async fn only_allowed_peers_register() {
    let answer = ask_router(Config::default(), [203, 0, 113, 7], registration_from_srs(None)).await;
    answer.assert_problem(403, "203.0.113.7 may not register");
    let allowed = ask_router(Config::default(), REMOTE, registration_from_srs(None)).await;
    assert_eq!(allowed.status, 200, "{}", allowed.body);
}

#[tokio::test]
async fn a_register_token_is_asked_for_where_there_is_one() {
    let config =
        || Config { register_token: Some(SecretString::from("right")), ..Config::default() };
    let missing = ask_router(config(), REMOTE, registration_from_srs(None)).await;
    missing.assert_problem(401, "--register-token");
    let right = ask_router(config(), REMOTE, registration_from_srs(Some("right"))).await;
    assert_eq!(right.status, 200, "{}", right.body);
}

#[tokio::test]
async fn sessions_that_no_shard_owns_are_in_the_list() {
    let origin = crate::config::StaticOrigin {
        direct: Some(4001),
        ..crate::config::StaticOrigin::at("p2p", IpAddr::from(LOCAL))
    };
    let config = Config { origins: vec![origin], webrtc_direct: true, ..Config::default() };
    let candidate =
        Event::Candidate { client: "192.0.2.1:5".parse().unwrap(), ufrag: "abcd".into() };
    let list = ask_router_after(config, LOCAL, get("/api/v1/sessions"), Some(candidate)).await;
    assert_eq!(list.json()["sessions"][0]["id"], "w-1");
    assert_eq!(list.json()["sessions"][0]["state"], "expected");
}

#[tokio::test]
async fn a_shard_that_does_not_answer_is_dead_and_hangs_no_list_and_no_scrape() {
    let dead = ask_router(Config::default(), LOCAL, get("/livez")).await;
    dead.assert_problem(503, "shards [0]");
    let list = ask_router(Config::default(), LOCAL, get("/api/v1/sessions")).await;
    assert_eq!(list.json(), json!({"sessions": [], "silent_shards": [0]}));
    let metrics = ask_router(Config::default(), LOCAL, get("/metrics")).await;
    assert_eq!(metrics.status, StatusCode::OK.as_u16());
    assert!(metrics.body.contains("ringway_shard_up{shard=\"0\"} 0"), "{}", metrics.body);
}
