//! Joins shards, engine and control. What main, the demo and the tests start.

mod banner;
mod limits;
mod listeners;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use core_affinity::CoreId;
use crossbeam_channel::{Receiver, bounded};
use rustix::rand::{GetRandomFlags, getrandom};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::config::{Config, KeyLength, Listen};
pub use crate::control::supervisor::{Supervisor, SupervisorError};
use crate::control::tls::{Tls, TlsError};
use crate::control::{self, ControlError, Parts, Request, ShardLink};
use crate::engine::{self, EngineError, GroupOptions, Offloads, Settings, ShardHandle, ShardSpec};
use crate::mailbox::{Post, mailbox};
use crate::protocol::srt::CookieKey;
use crate::protocol::stream_url::Vhosts;
use crate::shard::{Protocol, ShardConfig};
use banner::Facts;
pub use limits::LimitsError;
use listeners::MediaListeners;

/// A running relay. Dropping it quits at once, without the grace that [`Relay::quit`] gives.
pub struct Relay {
    requests: Post<Request>,
    running: Running,
    /// Control says here that it has begun to quit.
    quitting: Option<Receiver<()>>,
    force_quit_timeout: Duration,
    threads: Vec<ShardThread>,
    addresses: Addresses,
    engine: &'static str,
    banner: Vec<String>,
}

/// One shard's thread, for those who pin or measure it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardThread {
    /// Position.
    pub index: u16,
    /// The CPU it is pinned to.
    pub cpu: Option<usize>,
    /// Thread ID, as /proc names it.
    pub tid: i32,
}

/// Why a relay does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Engine, sockets or threads.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The limits asked for cannot be had here.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// Certificates that cannot be served.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A TCP address is taken or not ours.
    #[error("cannot listen on {address}: choose another address or port with {flag}")]
    Listen {
        /// Where to.
        address: SocketAddr,
        /// Whose value it is.
        flag: &'static str,
        /// The errno.
        source: io::Error,
    },
    /// No descriptor, thread or random number is left.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The errno.
        source: io::Error,
    },
}

impl StartError {
    /// Whether another configuration would help, rather than another machine or another day.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Engine(error) => error.is_configuration(),
            Self::Limits(_) | Self::Tls(_) => true,
            Self::Listen { .. } | Self::System { .. } => false,
        }
    }
}

/// Why a relay that ran does not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A thread panicked; its message is on stderr.
    #[error("thread {0} panicked")]
    Panicked(String),
    /// A shard could not go on.
    #[error(transparent)]
    Engine(EngineError),
    /// The control thread could not go on.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A thread hangs. It still runs, and only the end of the process ends it.
    #[error("not all threads have ended within --force-quit-timeout {0:?}: the process ends now")]
    Forced(Duration),
}

/// Who listens to SIGTERM and SIGINT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signals {
    /// The relay: they quit it.
    Quit,
    /// Whoever started it inside a larger process.
    Ignored,
}

struct Addresses {
    srt: Option<SocketAddr>,
    webrtc: Option<SocketAddr>,
    system: Option<SocketAddr>,
    http: Option<SocketAddr>,
}

impl Relay {
    /// Opens all sockets and starts all threads; serves when it returns.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing is left open or running.
    pub fn start(config: Config, signals: Signals) -> Result<Self, StartError> {
        Self::start_under(config, signals, None)
    }

    /// The same for a process that `supervisor` has started: it is told when the relay serves, how
    /// it is, and that it stops.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing is left open or running, and the supervisor has been told
    /// nothing.
    pub fn start_under(
        config: Config,
        signals: Signals,
        supervisor: Option<Supervisor>,
    ) -> Result<Self, StartError> {
        let resolved = engine::resolve(config.engine)?;
        let offloads = Offloads::probe(config.gso, config.gro)?;
        let cpus = limits::placement(&config)?;
        let sessions_max = limits::sessions_max(&config, cpus.len())?;
        let mut settings = Settings { batch_wait: config.batch_wait, ..Settings::default() };
        let tls = open_tls(&config)?;
        let mut media = MediaListeners::open(
            &config,
            GroupOptions {
                cpus: &cpus,
                steer: config.steer,
                gro: offloads.gro,
                buffer_bytes: settings.socket_buffer_bytes,
            },
        )?;
        if media.are_steered() && resolved.engine.gives_clients_sockets() {
            settings.clients = limits::client_sockets(&config, cpus.len());
        }
        let system = listeners::open(config.system_listen, "--system-listen")?;
        let http = listeners::open(config.http_listen, "--http-listen")?;
        let addresses = Addresses {
            srt: media.address(Protocol::Srt),
            webrtc: media.address(Protocol::WebRtc),
            system: local(system.as_ref())?,
            http: local(http.as_ref())?,
        };
        let banner = banner::lines(&Facts {
            config: &config,
            resolved: &resolved,
            offloads,
            settings: &settings,
            cpus: &cpus,
            buffers: media.buffers(),
            addresses: &addresses,
            sessions_max,
        });

        let (events_post, events) = mailbox(EVENTS).map_err(system_error("open an eventfd"))?;
        let (requests_post, requests) =
            mailbox(REQUESTS).map_err(system_error("open an eventfd"))?;
        let mut relay = Self {
            requests: requests_post,
            running: Running::default(),
            quitting: None,
            force_quit_timeout: config.force_quit_timeout,
            threads: Vec::new(),
            addresses,
            engine: resolved.engine.label(),
            banner,
        };
        let webrtc = relay.addresses.webrtc;
        let shard_config = shard_config(&config, &media, sessions_max, cpus.len())?;
        let mut links = Vec::new();
        for (index, &cpu) in (0..).zip(&cpus) {
            let (post, commands) = mailbox(COMMANDS).map_err(system_error("open an eventfd"))?;
            let spec = ShardSpec {
                index,
                cpu,
                listeners: media.take_of_one_shard(),
                config: shard_config.clone(),
                commands,
                events: events_post.clone(),
                offloads,
                settings,
            };
            let handle = engine::start(resolved.engine, spec)?;
            links.push(ShardLink { post, cpu, tid: handle.tid });
            relay.threads.push(ShardThread { index, cpu, tid: handle.tid });
            relay.running.shards.push(handle);
        }
        let (quit_post, quitting) = bounded(1);
        relay.quitting = Some(quitting);
        relay.start_control(Parts {
            config: Arc::new(config),
            shards: links,
            events,
            system,
            http,
            tls,
            webrtc,
            requests,
            quitting: quit_post,
            handle_signals: signals == Signals::Quit,
            supervisor,
            engine: resolved.engine.label(),
            sessions_max,
        })?;
        Ok(relay)
    }

    fn start_control(&mut self, parts: Parts) -> Result<(), StartError> {
        let thread = std::thread::Builder::new().name("control".to_owned());
        let control = thread
            .spawn(move || {
                if let Some(cpu) = parts.config.control_cpu
                    && !core_affinity::set_for_current(CoreId { id: cpu })
                {
                    tracing::warn!(
                        cpu,
                        "control runs where the kernel puts it: it cannot be pinned"
                    );
                }
                control::run(parts)
            })
            .map_err(system_error("start the control thread"))?;
        self.running.control = Some(control);
        Ok(())
    }

    /// Where SRT callers connect to, with the port that the kernel chose.
    pub fn srt_address(&self) -> Option<SocketAddr> {
        self.addresses.srt
    }

    /// Where WebRTC clients send to, with the port that the kernel chose.
    pub fn webrtc_address(&self) -> Option<SocketAddr> {
        self.addresses.webrtc
    }

    /// Where the system API listens.
    pub fn system_address(&self) -> Option<SocketAddr> {
        self.addresses.system
    }

    /// Where the HTTP API listens.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.addresses.http
    }

    /// How its shards do their I/O: `uring`, `mmsg` or `tokio-uring`.
    pub fn engine(&self) -> &'static str {
        self.engine
    }

    /// Its shards.
    pub fn shards(&self) -> &[ShardThread] {
        &self.threads
    }

    /// About ten lines for the operator: what was chosen, why, and what was granted.
    pub fn banner(&self) -> &[String] {
        &self.banner
    }

    /// What SIGTERM does: refuses new sessions, lets live ones run up to the grace time, says goodbye, stops.
    pub fn quit(&self) {
        // A full or orphaned mailbox means that it is quitting already.
        let _ = self.requests.send(Request::Quit);
    }

    /// Waits until it has stopped, but once it has begun to quit no longer than the force quit timeout.
    ///
    /// # Errors
    /// See [`RunError`]. After [`RunError::Forced`] the process has to end.
    pub fn wait(mut self) -> Result<(), RunError> {
        if let Some(quitting) = self.quitting.take() {
            // An error means that control has ended without a word, which is an end, too.
            let _ = quitting.recv();
            self.running.await_end(self.force_quit_timeout)?;
        }
        self.running.join()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.running.control.is_some() {
            let _ = self.requests.send(Request::QuitNow);
        }
        // Shards whose control never started end when the other end of their mailbox is gone.
        let _ = self.running.join();
    }
}

/// The threads.
#[derive(Default)]
struct Running {
    control: Option<JoinHandle<Result<(), ControlError>>>,
    shards: Vec<ShardHandle>,
}

impl Running {
    /// Waits until every thread has ended or `timeout` is over; then the threads that are left are
    /// given up.
    fn await_end(&mut self, timeout: Duration) -> Result<(), RunError> {
        let deadline = Instant::now() + timeout;
        while !self.has_ended() {
            if Instant::now() >= deadline {
                *self = Self::default();
                return Err(RunError::Forced(timeout));
            }
            // Joining has no time limit, and nobody tells that the last thread has ended.
            std::thread::park_timeout(END_POLL_INTERVAL);
        }
        Ok(())
    }

    fn has_ended(&self) -> bool {
        self.control.as_ref().is_none_or(JoinHandle::is_finished)
            && self.shards.iter().all(|shard| shard.join.is_finished())
    }

    fn join(&mut self) -> Result<(), RunError> {
        let mut outcome = Ok(());
        if let Some(control) = self.control.take() {
            outcome = match control.join() {
                Ok(result) => result.map_err(RunError::Control),
                Err(_) => Err(RunError::Panicked("control".to_owned())),
            };
        }
        for shard in self.shards.drain(..) {
            let name = shard.join.thread().name().unwrap_or("shard").to_owned();
            match shard.join.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => outcome = Err(RunError::Engine(error)),
                Err(_) => outcome = Err(RunError::Panicked(name)),
            }
        }
        outcome
    }
}

/// Reads the certificates, so that a bad one is told before any thread runs.
fn open_tls(config: &Config) -> Result<Option<Tls>, TlsError> {
    let files = config.tls.clone().filter(|_| config.http_listen != Listen::Off);
    files.map(|files| Tls::open(files, Instant::now())).transpose()
}

fn local(listener: Option<&TcpListener>) -> Result<Option<SocketAddr>, StartError> {
    listener.map(TcpListener::local_addr).transpose().map_err(system_error("read an address"))
}

fn system_error(action: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { action, source }
}

fn shard_config(
    config: &Config,
    media: &MediaListeners,
    sessions_max: u32,
    shards: usize,
) -> Result<ShardConfig, StartError> {
    let mut seed = [0; 8];
    random(&mut seed)?;
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(ShardConfig {
        limits: limits::of_shard(config, sessions_max, shards),
        cookie_key: cookie_key(config.cluster_secret.as_ref())?,
        hash_seed: u64::from_ne_bytes(seed),
        started: Instant::now(),
        started_unix_seconds: unix.as_secs(),
        vhosts: Vhosts::new(config.vhosts.iter().cloned()),
        default_stream: config.srt_default_stream.clone(),
        key_length: match config.srt_key_length {
            KeyLength::Auto => 0,
            KeyLength::Bytes(bytes) => bytes,
        },
        listeners: media.protocols(),
        webrtc_direct: config.webrtc_direct,
    })
}

/// The same on all relays that share the secret; else of this process alone.
fn cookie_key(secret: Option<&SecretString>) -> Result<CookieKey, StartError> {
    let mut key = [0; 16];
    match secret {
        Some(secret) => {
            let digest = Sha256::new()
                .chain_update(b"ringway srt cookie 1\0")
                .chain_update(secret.expose_secret())
                .finalize();
            key.copy_from_slice(digest.first_chunk::<16>().unwrap_or(&[0; 16]));
        }
        None => random(&mut key)?,
    }
    Ok(CookieKey::new(key))
}

fn random(bytes: &mut [u8]) -> Result<(), StartError> {
    match getrandom(&mut *bytes, GetRandomFlags::empty()) {
        Ok(length) if length == bytes.len() => Ok(()),
        Ok(_) => Err(system_error("read random numbers")(io::ErrorKind::UnexpectedEof.into())),
        Err(errno) => Err(system_error("read random numbers")(errno.into())),
    }
}

/// Events of all shards that control has not read yet. A full mailbox keeps them in the shards.
const EVENTS: usize = 16_384;
/// Commands that one shard has not read yet.
const COMMANDS: usize = 4096;
const REQUESTS: usize = 8;
/// While the relay quits.
const END_POLL_INTERVAL: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(work: impl FnOnce() -> Result<(), EngineError> + Send + 'static) -> ShardHandle {
        ShardHandle { tid: 0, join: std::thread::spawn(work) }
    }

    #[test]
    fn a_shard_that_hangs_is_given_up_after_the_force_quit_timeout() {
        let (release, blocked) = bounded::<()>(0);
        let hung = shard(move || {
            let _ = blocked.recv();
            Ok(())
        });
        let mut running = Running { control: None, shards: vec![hung] };
        let outcome = running.await_end(Duration::from_millis(20));
        assert!(matches!(outcome, Err(RunError::Forced(_))), "{outcome:?}");
        assert!(running.shards.is_empty(), "dropping the relay must not wait for it again");
        drop(release);
    }

    #[test]
    fn threads_that_have_ended_are_not_waited_for() {
        let mut running = Running { control: None, shards: vec![shard(|| Ok(()))] };
        running.await_end(Duration::from_secs(60)).unwrap();
        running.join().unwrap();
    }
}
