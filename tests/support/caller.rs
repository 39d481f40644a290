//! SRT callers and an SRT origin over real sockets, no more of them than tests need: many, fast, and under control.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::packets::{self, CONCLUSION, Fields, INDUCTION};

/// A caller that has been told how its attempt ended.
pub struct Caller {
    pub socket: UdpSocket,
    /// The origin's socket ID.
    pub listener: u32,
}

/// What a caller was told instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Connected { listener: u32 },
    Refused(u32),
    Nothing,
}

/// A UDP socket on loopback whose reads end after a while.
pub fn socket_near(address: SocketAddr) -> UdpSocket {
    let local = if address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(local).unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
    socket
}

/// Goes through a handshake as libsrt does: a question every 250 ms, 3 s of patience.
pub fn call(socket: &UdpSocket, id: u32, stream_id: Option<&str>) -> Told {
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut question = packets::induction(id, 1000);
    let mut buffer = [0; 2048];
    while Instant::now() < deadline {
        // A port that is not there yet reports itself by an error; the next try tells.
        let _ = socket.send(&question);
        let Ok(length) = socket.recv(&mut buffer) else {
            continue;
        };
        if length < 64 || buffer[..2] != [0x80, 0] {
            continue;
        }
        let answer = Fields::read(&buffer[..length]);
        match answer.kind {
            _ if answer.destination != id => {}
            INDUCTION => question = packets::conclusion(id, 1000, answer.cookie, stream_id),
            CONCLUSION => return Told::Connected { listener: answer.socket },
            code => return Told::Refused(code),
        }
    }
    Told::Nothing
}

impl Caller {
    pub fn connect(relay: SocketAddr, id: u32, stream_id: &str) -> Self {
        let socket = socket_near(relay);
        match call(&socket, id, Some(stream_id)) {
            Told::Connected { listener } => Self { socket, listener },
            told @ (Told::Refused(_) | Told::Nothing) => panic!("caller {id} was told {told:?}"),
        }
    }

    pub fn send(&self, sequence: u32, payload: &[u8]) {
        self.socket.send(&packets::data(self.listener, sequence, payload)).unwrap();
    }

    pub fn shutdown(&self) {
        self.socket.send(&packets::shutdown(self.listener)).unwrap();
    }
}

/// Callers that publish streams of their own, one after the other.
pub fn connect_many(relay: SocketAddr, count: u32) -> Vec<Caller> {
    (0..count)
        .map(|i| Caller::connect(relay, 1000 + i, &format!("#!::r=live/many{i},m=publish")))
        .collect()
}

/// An origin that takes every caller, or refuses every one.
pub struct Origin {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    /// Refuses conclusions with this handshake type.
    pub fn refusing(code: u32) -> Self {
        Self::launch("127.0.0.1:0", Some(code))
    }

    pub fn start_at(address: &str) -> Self {
        Self::launch(address, None)
    }

    fn launch(address: &str, refusal: Option<u32>) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&stop);
        let thread = std::thread::spawn(move || serve(&socket, refusal, &end));
        Self { address, stop, thread: Some(thread) }
    }

    /// As `--origin` wants it.
    pub fn flag(&self, name: &str) -> String {
        format!("name={name},ip={},srt={}", self.address.ip(), self.address.port())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Echoes media, so that tests see both directions, and answers everything else as a listener must.
fn serve(socket: &UdpSocket, refusal: Option<u32>, stop: &AtomicBool) {
    let mut callers: HashMap<SocketAddr, u32> = HashMap::new();
    let mut next = 0x2000_0000_u32;
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, source)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let bytes = &buffer[..length];
        let answer = if bytes.starts_with(&[0x80, 0]) {
            let asked = Fields::read(bytes);
            callers.insert(source, asked.socket);
            if asked.kind == INDUCTION {
                packets::induction_response(asked.socket, 0x1234_5678)
            } else if let Some(code) = refusal {
                packets::rejection(asked.socket, code)
            } else {
                next += 1;
                packets::conclusion_response(asked.socket, next, asked.cookie, 0)
            }
        } else if bytes.starts_with(&[0x80, 5]) {
            callers.remove(&source);
            continue;
        } else if bytes[0] & 0x80 == 0 {
            let Some(&caller) = callers.get(&source) else {
                continue;
            };
            let mut echo = bytes.to_vec();
            echo[12..16].copy_from_slice(&caller.to_be_bytes());
            echo
        } else {
            continue;
        };
        let _ = socket.send_to(&answer, source);
    }
}
