//! Sessions, origins and streams as the API shows them.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::directory::{Directory, Look, Session};
use super::origin::{Kind, Origin};
use super::registration::Endpoint;
use super::session_id::{SessionId, SessionRef};
use super::stream::Stream;
use crate::protocol::stream_url::StreamKey;
use crate::shard::command::{
    Flow, Protocol, ProtocolView, RtcId, SessionView, SrtView, Traffic, WebRtcView,
};

/// A session. What the relay cannot see is absent.
#[derive(Debug, Serialize)]
pub(super) struct SessionEntry {
    id: String,
    proto: &'static str,
    role: &'static str,
    stream: String,
    client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<u16>,
    state: &'static str,
    age_seconds: f64,
    packets: PerFlow,
    bytes: PerFlow,
    /// Since the look before this one when that was at least a second ago, otherwise what that look
    /// showed. The first look shows the mean over the session's life.
    bitrate: PerFlow,
    #[serde(skip_serializing_if = "Option::is_none")]
    srt: Option<SrtEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webrtc: Option<WebRtcEntry>,
}

impl SessionEntry {
    /// Joins what the shard knows with what control knows, and notes the look for the next bit
    /// rate.
    pub(super) fn new(
        now: Instant,
        shard: u16,
        view: &SessionView,
        directory: &mut Directory,
    ) -> Self {
        let (id, protocol) = match &view.protocol {
            ProtocolView::Srt(_) => (SessionRef { shard, key: view.session }.into(), Protocol::Srt),
            ProtocolView::WebRtc(webrtc) => (SessionId::WebRtc(webrtc.id), Protocol::WebRtc),
        };
        let rates = match directory.session_mut(id) {
            Some(session) => look_at(session, now, view),
            None => rates(view.traffic, view.age),
        };
        let origin = view.origin.and_then(|origin| directory.origin(origin));
        let [client_in, client_out, origin_in, origin_out] = rates;
        Self {
            id: id.to_string(),
            proto: protocol.label(),
            role: view.role.label(),
            stream: view.stream.to_string(),
            client: view.client.to_string(),
            origin: origin.map(|origin| origin.name().to_owned()),
            shard: Some(shard),
            state: view.state,
            age_seconds: seconds(view.age),
            packets: PerFlow::of(view.traffic, |flow| flow.packets),
            bytes: PerFlow::of(view.traffic, |flow| flow.bytes),
            bitrate: PerFlow { client_in, client_out, origin_in, origin_out },
            srt: match &view.protocol {
                ProtocolView::Srt(srt) => Some(SrtEntry::new(*srt)),
                ProtocolView::WebRtc(_) => None,
            },
            webrtc: match &view.protocol {
                ProtocolView::Srt(_) => None,
                ProtocolView::WebRtc(webrtc) => Some(WebRtcEntry::new(webrtc)),
            },
        }
    }

    /// A WebRTC session that only control knows: its client was told where to go and has not come,
    /// or its offer is with the origin. `username` is what its client's requests will be named.
    pub(super) fn expected(
        id: RtcId,
        age: Duration,
        username: Option<&str>,
        session: &Session,
        directory: &Directory,
    ) -> Self {
        let origin = directory.origin(session.origin);
        let client = session.client.map(|client| client.to_string());
        let none = || PerFlow::of(Traffic::default(), |flow| flow.bytes);
        Self {
            id: SessionId::WebRtc(id).to_string(),
            proto: Protocol::WebRtc.label(),
            role: session.role.label(),
            stream: session.stream.to_string(),
            client: client.unwrap_or_else(|| session.source.to_string()),
            origin: origin.map(|origin| origin.name().to_owned()),
            shard: None,
            state: "expected",
            age_seconds: seconds(age),
            packets: none(),
            bytes: none(),
            bitrate: none(),
            srt: None,
            webrtc: Some(WebRtcEntry {
                ufrag_pair: username.map(str::to_owned),
                addresses: Vec::new(),
                ssrcs: Vec::new(),
            }),
        }
    }

    pub(super) fn has_id(&self, id: &str) -> bool {
        self.id == id
    }
}

/// One number per leg and direction. "in" is what the relay received from that side.
#[derive(Debug, Serialize)]
struct PerFlow {
    client_in: u64,
    client_out: u64,
    origin_in: u64,
    origin_out: u64,
}

impl PerFlow {
    fn of(traffic: Traffic, part: fn(Flow) -> u64) -> Self {
        Self {
            client_in: part(traffic.client_in),
            client_out: part(traffic.client_out),
            origin_in: part(traffic.origin_in),
            origin_out: part(traffic.origin_out),
        }
    }
}

#[derive(Debug, Serialize)]
struct SrtEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_us: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_client_us: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_origin_us: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loss_client_to_relay: Option<f64>,
    retransmits: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<u16>,
    encryption: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

impl SrtEntry {
    fn new(view: SrtView) -> Self {
        let encryption = match (view.encryption_key_length, view.gcm) {
            (0, _) => "none".to_owned(),
            (bytes, false) => format!("AES-{}", u16::from(bytes) * 8),
            (bytes, true) => format!("AES-GCM-{}", u16::from(bytes) * 8),
        };
        let version = view.version.map(|version| {
            let [_, major, minor, patch] = version.to_be_bytes();
            format!("{major}.{minor}.{patch}")
        });
        Self {
            rtt_us: view.rtt_us,
            rtt_client_us: view.rtt_client_us,
            rtt_origin_us: view.rtt_origin_us,
            loss_client_to_relay: view.loss_client_to_relay,
            retransmits: view.retransmits,
            latency_ms: view.latency_ms,
            encryption,
            version,
        }
    }
}

#[derive(Debug, Serialize)]
struct WebRtcEntry {
    /// The newest; after an ICE restart there are others.
    #[serde(skip_serializing_if = "Option::is_none")]
    ufrag_pair: Option<String>,
    /// Proven ones, the selected one first.
    addresses: Vec<String>,
    ssrcs: Vec<u32>,
}

impl WebRtcEntry {
    fn new(view: &WebRtcView) -> Self {
        Self {
            ufrag_pair: view.ufrag_pairs.first().cloned(),
            addresses: view.addresses.iter().map(ToString::to_string).collect(),
            ssrcs: view.ssrcs.clone(),
        }
    }
}

/// An origin.
#[derive(Debug, Serialize)]
pub(super) struct OriginEntry {
    id: u32,
    name: String,
    ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<String>,
    endpoints: EndpointsEntry,
    /// What sessions can go to it.
    takes: Vec<&'static str>,
    /// Of its WHIP and WHEP endpoints, where they are not those of SRS.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    state: &'static str,
    /// What keeps new streams away, of some kind at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(rename = "static")]
    is_static: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_seconds: Option<f64>,
    sessions: u32,
    /// Sessions from which on it gets no new streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<u32>,
    /// Bytes, as its listener answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    srt_key_length: Option<u8>,
}

impl OriginEntry {
    pub(super) fn new(now: Instant, origin: &Origin, directory: &Directory) -> Self {
        let seen = origin.seen();
        let endpoints = origin.endpoints();
        Self {
            id: origin.id().0,
            name: origin.name().to_owned(),
            ip: origin.ip().to_string(),
            server: seen.map(|seen| seen.server.clone()),
            service: seen.map(|seen| seen.service.clone()),
            pid: seen.map(|seen| seen.pid.clone()),
            endpoints: EndpointsEntry {
                rtmp: texts(&endpoints.rtmp),
                http: texts(&endpoints.http),
                api: texts(&endpoints.api),
                srt: texts(&endpoints.srt),
                rtc: texts(&endpoints.rtc),
                direct: origin.special().direct,
            },
            takes: Kind::ALL
                .into_iter()
                .filter(|kind| origin.takes(*kind))
                .map(Kind::label)
                .collect(),
            path: origin.special().path.clone(),
            state: directory.state(origin, now).label(),
            reason: reason(now, origin, directory),
            is_static: seen.is_none(),
            last_seen_seconds: seen.map(|seen| seconds(now.duration_since(seen.last))),
            sessions: origin.sessions(),
            capacity: origin.capacity(),
            srt_key_length: origin.key_length(),
        }
    }
}

/// Everything that speaks against an origin: `srt: connection refused; full`.
fn reason(now: Instant, origin: &Origin, directory: &Directory) -> Option<String> {
    let mut reasons = Vec::new();
    if !directory.is_alive(origin, now) {
        reasons.push("heartbeat stopped".to_owned());
    }
    for kind in Kind::ALL.into_iter().filter(|kind| origin.takes(*kind)) {
        if let Some(sign) = origin.sign(kind, now) {
            reasons.push(format!("{}: {}", kind.label(), sign.label()));
        }
    }
    if origin.is_draining() {
        reasons.push("drained by an operator".to_owned());
    }
    if origin.is_full() {
        reasons.push("full".to_owned());
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

#[derive(Debug, Serialize)]
struct EndpointsEntry {
    rtmp: Vec<String>,
    http: Vec<String>,
    api: Vec<String>,
    srt: Vec<String>,
    rtc: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    direct: Option<u16>,
}

/// A stream that is mapped to an origin.
#[derive(Debug, Serialize)]
pub(super) struct StreamEntry {
    stream: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    publishers: u32,
    players: u32,
    /// Since a session of it began or ended.
    unchanged_seconds: f64,
}

impl StreamEntry {
    pub(super) fn new(
        now: Instant,
        key: &StreamKey,
        stream: &Stream,
        directory: &Directory,
    ) -> Self {
        Self {
            stream: key.to_string(),
            origin: directory.origin(stream.origin()).map(|origin| origin.name().to_owned()),
            publishers: stream.publishers(),
            players: stream.players(),
            unchanged_seconds: seconds(now.duration_since(stream.last_used())),
        }
    }
}

/// Bits per second, in the order of [`Traffic`].
fn look_at(session: &mut Session, now: Instant, view: &SessionView) -> [u64; 4] {
    let rates = match &session.look {
        Some(last) if now.duration_since(last.at) < LOOK_INTERVAL_MIN => return last.rates,
        Some(last) => rates(since(view.traffic, last.traffic), now.duration_since(last.at)),
        None => rates(view.traffic, view.age),
    };
    session.look = Some(Box::new(Look { at: now, traffic: view.traffic, rates }));
    rates
}

fn since(now: Traffic, then: Traffic) -> Traffic {
    let flow = |now: Flow, then: Flow| Flow {
        packets: now.packets.saturating_sub(then.packets),
        bytes: now.bytes.saturating_sub(then.bytes),
    };
    Traffic {
        client_in: flow(now.client_in, then.client_in),
        client_out: flow(now.client_out, then.client_out),
        origin_in: flow(now.origin_in, then.origin_in),
        origin_out: flow(now.origin_out, then.origin_out),
    }
}

fn rates(traffic: Traffic, over: Duration) -> [u64; 4] {
    let Traffic { client_in, client_out, origin_in, origin_out } = traffic;
    let milliseconds = over.as_millis().max(1);
    [client_in, client_out, origin_in, origin_out].map(|flow| {
        let rate = u128::from(flow.bytes) * 8 * 1_000 / milliseconds;
        u64::try_from(rate).unwrap_or(u64::MAX)
    })
}

fn texts(endpoints: &[Endpoint]) -> Vec<String> {
    endpoints.iter().map(ToString::to_string).collect()
}

/// To the millisecond: more digits would only be noise.
fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1_000.0
}

/// Two viewers must not shorten each other's interval until it holds a handful of datagrams.
const LOOK_INTERVAL_MIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StaticOrigin;
    use crate::control::directory::fixtures::*;
    use crate::shard::OriginId;
    use crate::shard::command::{Role, State};
    use serde_json::{Value, json, to_value};

    fn view(bytes: u64, age: Duration) -> SessionView {
        SessionView {
            session: session(7).key,
            state: State::Established.label(),
            client: "[2001:db8::1]:5000".parse().unwrap(),
            local: None,
            stream: stream("live/a"),
            role: Role::Publish,
            origin: Some(OriginId(0)),
            age,
            traffic: Traffic {
                client_in: Flow { packets: bytes / 1_000, bytes },
                ..Traffic::default()
            },
            protocol: ProtocolView::Srt(SrtView::default()),
        }
    }

    fn known() -> (Directory, Instant) {
        let (mut directory, now) = (directory(), Instant::now());
        directory.register(now, registration("a", 1, Some(1))).unwrap();
        directory.open(now, session(7), &request(7, "live/a", Role::Publish), OriginId(0));
        (directory, now)
    }

    fn shown(now: Instant, view: &SessionView, directory: &mut Directory) -> Value {
        to_value(SessionEntry::new(now, 0, view, directory)).unwrap()
    }

    #[test]
    fn a_session_shows_what_is_known_and_nothing_else() {
        let (mut directory, now) = known();
        let view = view(125_000, Duration::from_secs(1));
        let none = json!({"client_in": 0, "client_out": 0, "origin_in": 0, "origin_out": 0});
        let with = |value: u64| {
            let mut object = none.clone();
            object["client_in"] = json!(value);
            object
        };
        let expected = json!({
            "id": "0-7-1", "proto": "srt", "role": "publish",
            "stream": "__defaultVhost__/live/a", "client": "[2001:db8::1]:5000", "origin": "a",
            "shard": 0, "state": "established", "age_seconds": 1.0, "packets": with(125),
            "bytes": with(125_000), "bitrate": with(1_000_000),
            "srt": {"retransmits": 0, "encryption": "none"},
        });
        assert_eq!(shown(now, &view, &mut directory), expected);
    }

    #[test]
    fn a_webrtc_session_has_the_same_name_on_every_shard() {
        let (mut directory, now) = known();
        directory.open(now, RtcId(17), &request(8, "live/b", Role::Play), OriginId(0));
        let webrtc = WebRtcView {
            id: RtcId(17),
            ufrag_pairs: vec!["o2:c2".to_owned(), "o:c".to_owned()],
            addresses: vec!["192.0.2.1:5000".parse().unwrap(), "[2001:db8::1]:9".parse().unwrap()],
            ssrcs: vec![7, 8],
        };
        let view = SessionView {
            protocol: ProtocolView::WebRtc(webrtc),
            ..view(125_000, Duration::from_secs(1))
        };
        for shard in [0, 3] {
            let shown = to_value(SessionEntry::new(now, shard, &view, &mut directory)).unwrap();
            assert_eq!((&shown["id"], &shown["shard"]), (&json!("w-17"), &json!(shard)));
            assert_eq!((&shown["proto"], shown.get("srt")), (&json!("webrtc"), None));
            let expected = json!({
                "ufrag_pair": "o2:c2",
                "addresses": ["192.0.2.1:5000", "[2001:db8::1]:9"],
                "ssrcs": [7, 8],
            });
            assert_eq!(shown["webrtc"], expected);
        }
        assert!(directory.session(RtcId(17)).unwrap().look.is_some(), "for its bit rate");
    }

    #[test]
    fn an_origin_shows_what_it_takes() {
        let (mut directory, now) = (directory(), Instant::now());
        directory.register(now, with_webrtc(registration("a", 1, Some(1)))).unwrap();
        directory.register(now, registration("b", 2, Some(1))).unwrap();
        let shown: Vec<_> = directory
            .origins()
            .map(|origin| to_value(OriginEntry::new(now, origin, &directory)).unwrap())
            .collect();
        assert_eq!(shown[0]["takes"], json!(["srt", "webrtc"]));
        assert_eq!(shown[0]["endpoints"]["rtc"], json!(["udp://:8000"]));
        assert_eq!(shown[1]["takes"], json!(["srt"]));
    }

    #[test]
    fn encryption_and_version_are_shown_as_people_write_them() {
        let srt = |encryption_key_length, gcm| {
            let version = Some(0x0001_0501);
            let view = SrtView { encryption_key_length, gcm, version, ..SrtView::default() };
            let shown = to_value(SrtEntry::new(view)).unwrap();
            assert_eq!(shown["version"], "1.5.1");
            shown["encryption"].clone()
        };
        assert_eq!(srt(0, false), "none");
        assert_eq!(srt(16, false), "AES-128");
        assert_eq!(srt(24, false), "AES-192");
        assert_eq!(srt(32, true), "AES-GCM-256");
    }

    #[test]
    fn a_bit_rate_is_measured_since_the_look_before() {
        let (mut directory, now) = known();
        let rate = |at, bytes, directory: &mut Directory| {
            let view = view(bytes, Duration::from_secs(10));
            shown(at, &view, directory)["bitrate"]["client_in"].as_u64().unwrap()
        };
        assert_eq!(rate(now, 1_000_000, &mut directory), 800_000);
        let later = now + Duration::from_secs(2);
        assert_eq!(rate(later, 1_500_000, &mut directory), 2_000_000);
        let at_once = later + Duration::from_millis(1);
        assert_eq!(rate(at_once, 1_500_100, &mut directory), 2_000_000);
    }

    #[test]
    fn an_origin_that_nobody_reaches_says_so_while_it_is_avoided() {
        let (mut directory, now) = known();
        directory.origin_failed(now, OriginId(0), Kind::Srt);
        let origin = directory.origins().next().unwrap();
        let shown = |at| {
            let entry = to_value(OriginEntry::new(at, origin, &directory)).unwrap();
            (entry["state"].clone(), entry["reason"].clone())
        };
        assert_eq!(shown(now), (json!("down"), json!("srt: sessions find nobody there")));
        assert_eq!(shown(now + Duration::from_secs(5)), (json!("up"), Value::Null));
        assert_eq!(shown(now + TTL), (json!("down"), json!("heartbeat stopped")));
    }

    #[test]
    fn an_origin_that_answers_for_one_kind_alone_is_up_and_says_what_is_wrong() {
        let (mut directory, now) = (directory(), Instant::now());
        directory.register(now, with_webrtc(registration("a", 1, Some(1)))).unwrap();
        directory.origin_failed(now, OriginId(0), Kind::WebRtc);
        let origin = directory.origins().next().unwrap();
        let shown = to_value(OriginEntry::new(now, origin, &directory)).unwrap();
        assert_eq!(shown["state"], "up");
        assert_eq!(shown["reason"], "webrtc: sessions find nobody there");
    }

    #[test]
    fn an_origin_that_is_drained_and_full_says_both() {
        let capped = StaticOrigin {
            srt: Some(1),
            capacity: Some(1),
            ..StaticOrigin::at("a", [10, 0, 0, 1].into())
        };
        let now = Instant::now();
        let mut directory = Directory::new(now, &[capped], TTL, UNCHECKED);
        directory.open(now, session(7), &request(7, "live/a", Role::Publish), OriginId(0));
        directory.drain("a", true);
        let origin = directory.origins().next().unwrap();
        let shown = to_value(OriginEntry::new(now, origin, &directory)).unwrap();
        assert_eq!((&shown["state"], &shown["capacity"]), (&json!("draining"), &json!(1)));
        assert_eq!(shown["reason"], "drained by an operator; full");
    }

    #[test]
    fn an_expired_origin_says_so() {
        let (directory, now) = known();
        let origin = directory.origins().next().unwrap();
        let shown = |at| to_value(OriginEntry::new(at, origin, &directory)).unwrap();
        assert_eq!(shown(now)["state"], "up");
        assert_eq!(shown(now)["endpoints"]["srt"], json!(["1"]));
        assert_eq!(shown(now + TTL)["state"], "down");
        assert_eq!(shown(now + TTL)["last_seen_seconds"], 300.0);
    }
}
