//! One SRT caller that blocks: for tests that want to say what happens step by step.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use ringway::protocol::srt::{Handshake, HandshakeKind, Header, SocketId};

use crate::clock::{self, srt_timestamp};
use crate::link::{Ends, Heard, Link};
use crate::payload::{self, Tally};
use crate::srt::{self, Caller, SEQUENCE_MASK};

/// How a caller calls.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Whom.
    pub target: SocketAddr,
    /// From where; port 0 lets the kernel choose.
    pub bind: SocketAddr,
    /// Its end of the connection; `None`: at random.
    pub socket: Option<SocketId>,
    /// `None`: at random.
    pub initial_sequence: Option<u32>,
    /// As sent; empty: the block is left out.
    pub stream_id: String,
    /// What the payloads name as their stream.
    pub stream: u64,
    /// Sent instead of the cookie that the listener gave.
    pub cookie: Option<u32>,
    /// How long it tries.
    pub timeout: Duration,
}

impl ClientSettings {
    /// Publishes `path` at `target`.
    #[must_use]
    pub fn publish(target: SocketAddr, path: &str) -> Self {
        Self::new(target, path, &format!("#!::r={path},m=publish"))
    }

    /// Plays `path` from `target`.
    #[must_use]
    pub fn play(target: SocketAddr, path: &str) -> Self {
        Self::new(target, path, &format!("#!::r={path},m=request"))
    }

    fn new(target: SocketAddr, path: &str, stream_id: &str) -> Self {
        let bind = match target {
            SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
            SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
        };
        Self {
            target,
            bind,
            socket: None,
            initial_sequence: None,
            stream_id: stream_id.to_owned(),
            stream: payload::identity(path),
            cookie: None,
            timeout: Duration::from_secs(3),
        }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The listener said no.
    #[error("refused with handshake type {code}")]
    Refused {
        /// 1000 + the reason.
        code: u32,
    },
    /// Nobody answered.
    #[error("no answer to the {step} within the time limit")]
    Timeout {
        /// `induction` or `conclusion`.
        step: &'static str,
    },
    /// A socket failed.
    #[error("socket")]
    Io(#[from] io::Error),
}

/// A connected caller.
#[derive(Debug)]
pub struct Client {
    socket: Arc<UdpSocket>,
    target: SocketAddr,
    caller: Caller,
    link: Link,
    tally: Tally,
}

impl Client {
    /// Calls and waits for the answer.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(settings: ClientSettings) -> Result<Self, ConnectError> {
        let socket = Arc::new(UdpSocket::bind(settings.bind)?);
        Self::connect_from(socket, settings)
    }

    /// Calls out of this caller's UDP socket, as callers bound to one port do. Only one of the two
    /// can be received on at a time: each takes what comes and ignores what is for the other.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect_beside(&self, settings: ClientSettings) -> Result<Self, ConnectError> {
        Self::connect_from(Arc::clone(&self.socket), settings)
    }

    fn connect_from(
        socket: Arc<UdpSocket>,
        settings: ClientSettings,
    ) -> Result<Self, ConnectError> {
        let random = payload::mix(clock::now() ^ u64::from(socket.local_addr()?.port()) << 48);
        let started = clock::now();
        let mut call = Call {
            caller: Caller {
                socket: settings.socket.unwrap_or(SocketId(random as u32 & 0x3FFF_FFFF | 1)),
                initial_sequence: settings.initial_sequence.unwrap_or((random >> 32) as u32)
                    & SEQUENCE_MASK,
                stream_id: settings.stream_id,
                latency_ms: 120,
                listener: settings.target.ip(),
            },
            socket,
            target: settings.target,
            started,
            deadline: started + u64::try_from(settings.timeout.as_nanos()).unwrap_or(u64::MAX / 2),
        };
        let induction =
            call.exchange("induction", |caller, timestamp| caller.induction(timestamp))?;
        let cookie = settings.cookie.unwrap_or(induction.cookie);
        let answer =
            call.exchange("conclusion", |caller, timestamp| caller.conclusion(timestamp, cookie))?;
        let ends = Ends { local: call.caller.socket, remote: answer.socket };
        let now = clock::now();
        Ok(Self {
            link: Link::new(ends, call.caller.initial_sequence, settings.stream, started, now),
            socket: call.socket,
            target: call.target,
            caller: call.caller,
            tally: Tally::default(),
        })
    }

    /// Sends the next media packet, 1,316 bytes of payload.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn send(&mut self) -> io::Result<()> {
        let mut packet = payload::filler(1, srt::HEADER_LEN + 1_316);
        let now = clock::now();
        self.link.write_data(&mut packet, now, now);
        self.send_bytes(&packet)
    }

    /// Sends any bytes.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn send_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_to(bytes, self.target).map(drop)
    }

    /// Sends a keepalive.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn send_keepalive(&mut self) -> io::Result<()> {
        let packet = self.link.keepalive(clock::now());
        self.send_bytes(&packet)
    }

    /// Sends a full ACK, if media has come since the last one. Whether it did.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn send_ack(&mut self) -> io::Result<bool> {
        match self.link.ack(clock::now()) {
            Some(packet) => self.send_bytes(&packet).map(|()| true),
            None => Ok(false),
        }
    }

    /// Waits for the next packet of this connection and answers it if it wants that. `None` after
    /// `timeout`.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn receive(&mut self, timeout: Duration) -> io::Result<Option<Heard>> {
        let deadline = clock::now() + u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX / 2);
        while let Some(packet) =
            receive_for(&self.socket, self.target, self.caller.socket, deadline)?
        {
            if Handshake::parse(&packet).is_ok() {
                continue;
            }
            let heard = self.link.hear(&packet, clock::now(), &mut self.tally);
            if let Heard::Answer(answer) = heard {
                self.send_bytes(&answer)?;
            }
            return Ok(Some(heard));
        }
        Ok(None)
    }

    /// What the media received so far looks like.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The connection's state.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Its own socket ID and other things it said in its handshake.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Where it calls from.
    ///
    /// # Errors
    /// What `getsockname` reports.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Says goodbye.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn shutdown(self) -> io::Result<()> {
        self.send_bytes(&self.link.shutdown(clock::now()))
    }
}

/// A call under way.
struct Call {
    caller: Caller,
    socket: Arc<UdpSocket>,
    target: SocketAddr,
    started: u64,
    deadline: u64,
}

impl Call {
    /// Sends what `packet` makes every 250 ms until an answer comes.
    fn exchange(
        &mut self,
        step: &'static str,
        packet: impl Fn(&Caller, u32) -> Vec<u8>,
    ) -> Result<Handshake, ConnectError> {
        let expected =
            if step == "induction" { HandshakeKind::Induction } else { HandshakeKind::Conclusion };
        while clock::now() < self.deadline {
            let now = clock::now();
            self.socket
                .send_to(&packet(&self.caller, srt_timestamp(self.started, now)), self.target)?;
            let repeat_at = self.deadline.min(now + 250 * clock::MILLISECOND);
            while let Some(bytes) =
                receive_for(&self.socket, self.target, self.caller.socket, repeat_at)?
            {
                let Ok(handshake) = Handshake::parse(&bytes) else {
                    continue;
                };
                match handshake.kind {
                    HandshakeKind::Rejection(code) => return Err(ConnectError::Refused { code }),
                    kind if kind == expected => return Ok(handshake),
                    HandshakeKind::Induction
                    | HandshakeKind::Conclusion
                    | HandshakeKind::WaveAHand
                    | HandshakeKind::Agreement
                    | HandshakeKind::Done
                    | HandshakeKind::Other(_) => {}
                }
            }
        }
        Err(ConnectError::Timeout { step })
    }
}

/// The next packet from `target` for socket `id`. `None` at the deadline.
fn receive_for(
    socket: &UdpSocket,
    target: SocketAddr,
    id: SocketId,
    deadline: u64,
) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = [0; 2_048];
    loop {
        let left = deadline.saturating_sub(clock::now());
        if left == 0 {
            return Ok(None);
        }
        socket.set_read_timeout(Some(Duration::from_nanos(left)))?;
        let (length, source) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(error),
        };
        let packet = buffer.get(..length).unwrap_or_default();
        if source == target && Header::parse(packet).is_ok_and(|header| header.destination == id) {
            return Ok(Some(packet.to_vec()));
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::{Origin, OriginSettings};

    fn origin() -> Origin {
        Origin::start(OriginSettings::new(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap()
    }

    #[test]
    fn a_player_receives_media_in_order() {
        let origin = origin();
        let mut client =
            Client::connect(ClientSettings::play(origin.address().unwrap(), "live/a")).unwrap();
        while client.tally().received < 10 {
            client.receive(Duration::from_secs(5)).unwrap().expect("media");
        }
        assert_eq!(client.tally(), Tally { received: 10, ..Tally::default() });
    }

    #[test]
    fn a_publisher_answers_the_acks_of_the_origin() {
        let origin = origin();
        let settings = ClientSettings::publish(origin.address().unwrap(), "live/a");
        let mut client = Client::connect(settings).unwrap();
        client.send().unwrap();
        let heard = client.receive(Duration::from_secs(5)).unwrap();
        assert!(matches!(heard, Some(Heard::Answer(_))));
        assert_eq!(client.link().acknowledged(), 1);
    }

    #[test]
    fn a_refusal_names_the_code() {
        let refuse = Some(2_404);
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let origin =
            Origin::start(OriginSettings { refuse, ..OriginSettings::new(listen) }).unwrap();
        let result = Client::connect(ClientSettings::publish(origin.address().unwrap(), "live/a"));
        assert!(matches!(result, Err(ConnectError::Refused { code: 2_404 })));
    }
}
