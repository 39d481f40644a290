//! A scripted WebRTC client, which sends what a test wants from where it wants.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ringway::protocol::stun::{IntegrityKey, Message, TransactionId};

use super::http::{self, Reply};
use super::ice::{self, Credentials};
use super::process::PATIENCE;

/// A client with an answer to its offer.
pub struct WebRtcClient {
    /// `origin's:client's`.
    pub username: String,
    /// Of the origin's password, under which its requests stand.
    pub key: IntegrityKey,
    /// The origin's.
    pub ufrag: String,
    /// Where the answer says that the origin is.
    pub candidates: Vec<SocketAddr>,
    pub reply: Reply,
}

impl WebRtcClient {
    /// Publishes `stream`, on the path of SRS.
    pub fn publish(api: SocketAddr, stream: &str) -> Self {
        Self::signal(api, &format!("/rtc/v1/whip/?app=live&stream={stream}"))
    }

    /// Plays `stream`, on the path of SRS.
    pub fn play(api: SocketAddr, stream: &str) -> Self {
        Self::signal(api, &format!("/rtc/v1/whep/?app=live&stream={stream}"))
    }

    pub fn signal(api: SocketAddr, target: &str) -> Self {
        let own = Credentials::fresh();
        let reply = offer(&own, api, target);
        assert_eq!(reply.status, 201, "{} {}", reply.head, reply.body);
        let origin = Credentials::of(&reply.body);
        Self {
            username: format!("{}:{}", origin.ufrag, own.ufrag),
            key: origin.key(),
            ufrag: origin.ufrag,
            candidates: ice::candidates(&reply.body),
            reply,
        }
    }

    /// A new local address, from which `relay` is reached.
    pub fn path(&self, local: IpAddr, relay: SocketAddr) -> Path<'_> {
        let socket = UdpSocket::bind((local, 0)).unwrap();
        socket.connect(relay).unwrap();
        Path { client: self, socket }
    }

    /// The session's URL, as path and query.
    pub fn location(&self) -> &str {
        self.reply.header("Location").expect("an answer has a Location")
    }

    pub fn delete(&self, api: SocketAddr) -> Reply {
        http::request(api, "DELETE", self.location(), &[], "").unwrap()
    }
}

/// Posts an offer and returns whatever comes back.
pub fn offer(own: &Credentials, api: SocketAddr, target: &str) -> Reply {
    let candidate = "a=candidate:1 1 udp 2122260223 10.20.30.40 5000 typ host\r\n";
    let offer = ice::sdp(own, "actpass", candidate);
    let headers = [("Content-Type", "application/sdp"), ("Authorization", "Bearer key")];
    http::request(api, "POST", target, &headers, &offer).unwrap()
}

/// One of a client's addresses.
pub struct Path<'a> {
    client: &'a WebRtcClient,
    pub socket: UdpSocket,
}

impl Path<'_> {
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// A binding request with a transaction of its own.
    pub fn request(&self, nominate: bool) -> Vec<u8> {
        let WebRtcClient { username, key, .. } = self.client;
        ice::binding_request(username, key, transaction(), nominate)
    }

    /// Proves the address as browsers do: with one request after the other until a response comes.
    /// Returns the address that it names.
    pub fn check(&self, nominate: bool) -> SocketAddr {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(address) = self.check_once(nominate, Duration::from_millis(100)) {
                return address;
            }
        }
        panic!("no response to binding requests from {}", self.address());
    }

    /// One request, and the address that the response to it names if there is one within `patience`.
    pub fn check_once(&self, nominate: bool, patience: Duration) -> Option<SocketAddr> {
        let request = self.request(nominate);
        let id = Message::parse(&request).unwrap().transaction();
        self.send(&request);
        let response = self.receive(patience, |datagram| {
            Message::parse(datagram).is_ok_and(|message| message.transaction() == id)
        })?;
        assert!(ice::is_vouched_for(&response, &self.client.key), "{response:02x?}");
        Message::parse(&response).unwrap().mapped_address()
    }

    pub fn send(&self, datagram: &[u8]) {
        // A port that is closed reports itself by an error of the next call.
        let _ = self.socket.send(datagram);
    }

    /// Sends media number `number` until its echo comes back, as a stream goes on whatever happens
    /// to a packet; the echo's number is that of the last one sent.
    pub fn stream_until_echo(&self, number: &mut u32) -> Duration {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            *number += 1;
            self.send(&ice::media(SSRC, *number));
            if self.receive_media(Duration::from_millis(20)) == Some(*number) {
                return begun.elapsed();
            }
        }
        panic!("no media comes back to {}", self.address());
    }

    /// The number of the next media packet within `patience`.
    pub fn receive_media(&self, patience: Duration) -> Option<u32> {
        let datagram = self.receive(patience, |datagram| ice::media_number(datagram).is_some());
        ice::media_number(&datagram?)
    }

    /// The next datagram that `is_wanted`.
    pub fn receive(
        &self,
        patience: Duration,
        is_wanted: impl Fn(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.checked_duration_since(Instant::now())?;
            self.socket.set_read_timeout(Some(left.max(Duration::from_micros(1)))).unwrap();
            match self.socket.recv(&mut buffer) {
                Ok(length) if is_wanted(&buffer[..length]) => {
                    return Some(buffer[..length].to_vec());
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
}

fn transaction() -> TransactionId {
    let mut id = [0; 12];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty()).unwrap();
    TransactionId(id)
}

pub const SSRC: u32 = 0x5EED_0001;
