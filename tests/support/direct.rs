//! Both ends of a session without signalling, as libp2p's WebRTC-direct transport has them: str0m (ICE, DTLS, SCTP) on a
//! UDP socket each, and one ufrag that is the password and the same for both.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use str0m::channel::{ChannelConfig, ChannelId};
use str0m::config::{DtlsCert, DtlsVersion, Fingerprint};
use str0m::crypto::CryptoProvider;
use str0m::ice::StunMessage;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc, RtcConfig};

use super::process::PATIENCE;
use super::random::Random;

/// A ufrag such as nobody else has.
pub fn fresh_ufrag() -> String {
    let mut seed = [0; 8];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).unwrap();
    let mut random = Random::new(u64::from_ne_bytes(seed));
    let letter = |random: &mut Random| char::from(b'a' + u8::try_from(random.below(26)).unwrap());
    let letters: String = (0..32).map(|_| letter(&mut random)).collect();
    format!("libp2p+webrtc+v1/{letters}")
}

/// What a client knows of whom it dials.
pub struct Dial<'a> {
    pub relay: SocketAddr,
    pub ufrag: &'a str,
    pub password: &'a str,
    /// The listener's: a relay that answered in its place could not show it.
    pub fingerprint: &'a Fingerprint,
    pub dtls: DtlsVersion,
}

impl<'a> Dial<'a> {
    pub fn new(relay: SocketAddr, ufrag: &'a str, origin: &'a DirectOrigin) -> Self {
        let (fingerprint, dtls) = (&origin.fingerprint, DtlsVersion::Dtls12);
        Self { relay, ufrag, password: ufrag, fingerprint, dtls }
    }
}

/// The end that dials.
pub struct DirectClient {
    socket: UdpSocket,
    /// What it believes to be its address.
    believed: SocketAddr,
    end: End,
}

impl DirectClient {
    pub fn dial(dial: &Dial<'_>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let believed = socket.local_addr().unwrap();
        let mut config = config(dial.ufrag).set_dtls_version(dial.dtls);
        // Ten checks a second, so that whoever moves is found soon, for as long as a test may take.
        config.set_max_stun_rto(Duration::from_millis(100));
        config.set_initial_stun_rto(Duration::from_millis(100));
        config.set_max_stun_retransmits(100);
        let mut rtc = config.build(Instant::now());
        rtc.add_local_candidate(Candidate::host(believed, "udp").unwrap());
        rtc.add_remote_candidate(Candidate::host(dial.relay, "udp").unwrap());
        let mut api = rtc.direct_api();
        api.set_ice_controlling(true);
        api.set_remote_ice_credentials(credentials(dial.ufrag, dial.password));
        api.set_remote_fingerprint(dial.fingerprint.clone());
        Self { socket, believed, end: End::open(rtc, true) }
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Lives on until `is_so`. Returns whether that came to pass within the patience.
    pub fn until(&mut self, mut is_so: impl FnMut(&End) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = vec![0; 2000];
        while Instant::now() < deadline {
            let next = self.end.drain(&self.socket);
            if is_so(&self.end) {
                return true;
            }
            wait(&self.socket, next);
            if let Ok((length, source)) = self.socket.recv_from(&mut buffer) {
                self.end.receive(&buffer[..length], source, self.believed);
            }
            self.end.advance();
        }
        false
    }

    /// Waits until DTLS and the data channel are up.
    pub fn connect(&mut self) {
        assert!(self.until(|end| end.is_open), "{} does not connect", self.believed);
    }

    /// Sends `text` and waits for the origin's echo of it.
    pub fn exchange(&mut self, text: &str) -> String {
        self.end.say(text);
        let ending = format!(": {text}");
        assert!(self.until(|end| end.heard_ending(&ending).is_some()), "no echo of {text:?}");
        self.end.heard_ending(&ending).unwrap().to_owned()
    }

    /// Closes DTLS and sees to it that the origin has heard so.
    pub fn close(&mut self) {
        self.end.rtc.close().unwrap();
        assert!(self.until(|end| !end.rtc.is_alive()), "close_notify is not answered");
    }

    /// Takes up another address, as behind a NAT that has forgotten the last one.
    pub fn move_elsewhere(&mut self) {
        self.socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    }
}

/// The end that listens: ICE-lite, for whoever names a ufrag as its password. It greets each client with its name, and
/// says after it whatever it hears.
pub struct DirectOrigin {
    pub address: SocketAddr,
    pub fingerprint: Fingerprint,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What an origin has seen.
#[derive(Default)]
struct Seen {
    datagrams: AtomicUsize,
    /// Who has come, by its ufrag.
    clients: Mutex<HashMap<String, SocketAddr>>,
}

impl DirectOrigin {
    pub fn start(name: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let certificate = crypto().dtls_provider.generate_certificate().unwrap();
        let mut bearer = config("nobody").set_dtls_cert(certificate.clone()).build(Instant::now());
        let fingerprint = bearer.direct_api().local_dtls_fingerprint().clone();
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let mut listener = Listener {
            name: name.to_owned(),
            socket,
            address,
            certificate,
            fingerprint: fingerprint.clone(),
            ends: HashMap::new(),
            by_address: HashMap::new(),
            seen: Arc::clone(&seen),
        };
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || listener.run(&stop)
        });
        Self { address, fingerprint, seen, stop, thread: Some(thread) }
    }

    /// As `--origin` wants it.
    pub fn flag(&self, name: &str) -> String {
        format!("name={name},ip={},direct={}", self.address.ip(), self.address.port())
    }

    /// Datagrams that have come.
    pub fn datagrams(&self) -> usize {
        self.seen.datagrams.load(Ordering::Relaxed)
    }

    /// Where the client of that ufrag seems to be.
    pub fn client(&self, ufrag: &str) -> Option<SocketAddr> {
        self.seen.clients.lock().unwrap().get(ufrag).copied()
    }
}

impl Drop for DirectOrigin {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Listener {
    name: String,
    socket: UdpSocket,
    address: SocketAddr,
    certificate: DtlsCert,
    fingerprint: Fingerprint,
    /// By ufrag, whose ports may change.
    ends: HashMap<String, End>,
    /// Whose port that is.
    by_address: HashMap<SocketAddr, String>,
    seen: Arc<Seen>,
}

impl Listener {
    fn run(&mut self, stop: &AtomicBool) {
        let mut buffer = vec![0; 2000];
        while !stop.load(Ordering::Relaxed) {
            let mut next = Instant::now() + IDLE;
            for end in self.ends.values_mut() {
                next = next.min(end.drain(&self.socket));
                end.greet_and_echo(&self.name);
                next = next.min(end.drain(&self.socket));
            }
            self.ends.retain(|_, end| end.rtc.is_alive());
            wait(&self.socket, next);
            if let Ok((length, source)) = self.socket.recv_from(&mut buffer) {
                self.seen.datagrams.fetch_add(1, Ordering::Relaxed);
                self.receive(&buffer[..length], source);
            }
            for end in self.ends.values_mut() {
                end.advance();
            }
        }
    }

    fn receive(&mut self, datagram: &[u8], source: SocketAddr) {
        if let Some(ufrag) = ufrag_of(datagram) {
            self.seen.clients.lock().unwrap().insert(ufrag.clone(), source);
            if !self.ends.contains_key(&ufrag) {
                let end = self.accept(&ufrag);
                self.ends.insert(ufrag.clone(), end);
            }
            self.by_address.insert(source, ufrag);
        }
        let ufrag = self.by_address.get(&source);
        if let Some(end) = ufrag.and_then(|ufrag| self.ends.get_mut(ufrag)) {
            end.receive(datagram, source, self.address);
        }
    }

    /// Its certificate is all that a listener has before a client comes: the client's is known by no one.
    fn accept(&self, ufrag: &str) -> End {
        let config = config(ufrag)
            .set_ice_lite(true)
            .set_dtls_cert(self.certificate.clone())
            .set_dtls_version(DtlsVersion::Auto)
            .set_fingerprint_verification(false);
        let mut rtc = config.build(Instant::now());
        rtc.add_local_candidate(Candidate::host(self.address, "udp").unwrap());
        let mut api = rtc.direct_api();
        api.set_ice_controlling(false);
        api.set_remote_ice_credentials(credentials(ufrag, ufrag));
        // str0m begins with none without a fingerprint, even where it compares none.
        api.set_remote_fingerprint(self.fingerprint.clone());
        End::open(rtc, false)
    }
}

/// The ufrag of a binding request, if it stands there twice.
fn ufrag_of(datagram: &[u8]) -> Option<String> {
    let message = StunMessage::parse(datagram).ok()?;
    let (own, other) = message.is_binding_request().then(|| message.split_username())??;
    (own == other).then(|| own.to_owned())
}

/// One of two ends.
pub struct End {
    rtc: Rtc,
    channel: ChannelId,
    /// Whether the data channel is.
    pub is_open: bool,
    pub heard: Vec<String>,
    is_greeted: bool,
}

impl End {
    fn open(mut rtc: Rtc, is_client: bool) -> Self {
        let mut api = rtc.direct_api();
        api.start_dtls(is_client).unwrap();
        api.start_sctp(is_client);
        let config = ChannelConfig { negotiated: Some(0), ..ChannelConfig::default() };
        let channel = api.create_data_channel(config);
        Self { rtc, channel, is_open: false, heard: Vec::new(), is_greeted: false }
    }

    /// What was heard and ends in `ending`.
    pub fn heard_ending(&self, ending: &str) -> Option<&str> {
        self.heard.iter().map(String::as_str).find(|text| text.ends_with(ending))
    }

    fn say(&mut self, text: &str) {
        let mut channel = self.rtc.channel(self.channel).unwrap();
        assert!(channel.write(false, text.as_bytes()).unwrap(), "there is room for {text:?}");
    }

    /// What an origin does with its client.
    fn greet_and_echo(&mut self, name: &str) {
        if self.is_open && !std::mem::replace(&mut self.is_greeted, true) {
            self.say(&format!("{name} greets"));
        }
        for text in std::mem::take(&mut self.heard) {
            self.say(&format!("{name}: {text}"));
        }
    }

    /// Says what it has to say. Returns when it wants time.
    fn drain(&mut self, socket: &UdpSocket) -> Instant {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(deadline)) => return deadline,
                Ok(Output::Transmit(transmit)) => {
                    // An origin that is gone reports itself by an error of a later call.
                    let _ = socket.send_to(&transmit.contents, transmit.destination);
                }
                Ok(Output::Event(event)) => self.note(event),
                Err(_) => {
                    self.rtc.disconnect();
                    return Instant::now() + IDLE;
                }
            }
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::ChannelOpen(channel, _) if channel == self.channel => self.is_open = true,
            Event::ChannelData(data) => self.heard.push(String::from_utf8(data.data).unwrap()),
            _ => {}
        }
    }

    fn receive(&mut self, datagram: &[u8], source: SocketAddr, destination: SocketAddr) {
        if let Ok(contents) = datagram.try_into() {
            let receive = Receive { proto: Protocol::Udp, source, destination, contents };
            let _ = self.rtc.handle_input(Input::Receive(Instant::now(), receive));
        }
    }

    fn advance(&mut self) {
        let _ = self.rtc.handle_input(Input::Timeout(Instant::now()));
    }
}

fn crypto() -> CryptoProvider {
    str0m::crypto::from_feature_flags()
}

fn config(ufrag: &str) -> RtcConfig {
    RtcConfig::new()
        .set_crypto_provider(Arc::new(crypto()))
        .set_local_ice_credentials(credentials(ufrag, ufrag))
}

fn credentials(ufrag: &str, password: &str) -> IceCreds {
    IceCreds { ufrag: ufrag.to_owned(), pass: password.to_owned() }
}

/// Lets the next read end when time is wanted, or now and then for whoever else asks.
fn wait(socket: &UdpSocket, next: Instant) {
    let left = next.saturating_duration_since(Instant::now());
    let left = left.clamp(Duration::from_millis(1), IDLE);
    socket.set_read_timeout(Some(left)).unwrap();
}

const IDLE: Duration = Duration::from_millis(20);
