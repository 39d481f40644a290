//! Control: one thread that knows the origins, chooses one per stream, counts sessions against the
//! limits, and answers operators over HTTP. It never sees a media datagram.
//!
//! One task owns all of its state (`State`) and is reached by messages only: events from
//! the shards, questions from the tasks of HTTP connections, requests from the process. Nothing is
//! locked.

mod admin;
mod admission;
mod arbiter;
mod ask;
pub mod balancer;
mod boxes;
mod connections;
pub mod directory;
mod drain;
mod health;
mod http;
mod kept;
mod key_length;
mod list;
pub mod origin;
mod origin_check;
mod origin_client;
mod quit;
mod rate;
pub mod registration;
pub mod schedule;
mod service;
pub mod session_id;
mod shards;
mod state;
pub mod stream;
pub mod supervisor;
pub mod tls;
mod view;
mod whip;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use tokio::net::TcpListener;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use self::admin::Api;
use self::ask::Ask;
use self::connections::Connections;
use self::http::Manners;
use self::schedule::{Check, Found};
use self::state::State;
use self::supervisor::{Reports, Supervisor};
use self::tls::Tls;
use crate::config::Config;
use crate::mailbox::{Mailbox, Post};
use crate::shard::command::{Command, FromShard};

/// What control is made of. Whoever starts the process opens the sockets, so that a port in use is
/// told before any thread runs.
pub struct Parts {
    /// What the user asked for.
    pub config: Arc<Config>,
    /// In order of their index.
    pub shards: Vec<ShardLink>,
    /// What all shards say.
    pub events: Mailbox<FromShard>,
    /// `--system-listen`
    pub system: Option<std::net::TcpListener>,
    /// `--http-listen`
    pub http: Option<std::net::TcpListener>,
    /// What `http` is served with; `None`: plain.
    pub tls: Option<Tls>,
    /// `--webrtc-listen`, with the port that the kernel chose.
    pub webrtc: Option<SocketAddr>,
    /// What the process asks for.
    pub requests: Mailbox<Request>,
    /// Told once, when the relay begins to quit.
    pub quitting: Sender<()>,
    /// Whether SIGTERM and SIGINT quit. One relay of a process may want that.
    pub handle_signals: bool,
    /// Who has started the process and wants to hear how it is.
    pub supervisor: Option<Supervisor>,
    /// How the shards do their I/O, for the metrics.
    pub engine: &'static str,
    /// Sessions of all shards together.
    pub sessions_max: u32,
}

/// Control's end of one shard.
pub struct ShardLink {
    /// Its mailbox.
    pub post: Post<Command>,
    /// The CPU it is pinned to.
    pub cpu: Option<usize>,
    /// Its thread, as /proc names it.
    pub tid: i32,
}

/// What the process asks of control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// What SIGTERM does: the first time new sessions are refused and live ones may run out, the
    /// second time all end.
    Quit,
    /// All sessions end, with goodbyes, without waiting for anything.
    QuitNow,
}

/// Why control does not run.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No descriptor for epoll, mostly.
    #[error("start the control thread's runtime: raise the descriptor limit (ulimit -n)")]
    Runtime(#[source] io::Error),
    /// A socket cannot be waited for.
    #[error("serve HTTP on {address}")]
    Listener {
        /// As it is bound.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A mailbox cannot be waited for.
    #[error("wait for messages")]
    Mailbox(#[source] io::Error),
    /// Signals cannot be waited for.
    #[error("handle SIGTERM and SIGINT")]
    Signals(#[source] io::Error),
}

/// Runs control on the calling thread until the relay has quit, and tells the shards to stop.
///
/// # Errors
/// What cannot be set up. The shards have then been told nothing.
pub fn run(parts: Parts) -> Result<(), ControlError> {
    // `tokio_uring::start` would panic where io_uring is refused: by a kernel, a container or an
    // administrator.
    match tokio_uring::Runtime::new(tokio_uring::builder().entries(RING_ENTRIES)) {
        Ok(runtime) => {
            tracing::info!(runtime = "tokio-uring", "control starts");
            runtime.block_on(serve(parts))
        }
        Err(reason) => {
            tracing::info!(runtime = "tokio", %reason, "control starts without io_uring");
            run_without_uring(parts)
        }
    }
}

fn run_without_uring(parts: Parts) -> Result<(), ControlError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ControlError::Runtime)?
        .block_on(serve(parts))
}

async fn serve(parts: Parts) -> Result<(), ControlError> {
    let Parts { config, shards, events, requests, quitting, handle_signals, .. } = parts;
    let (ask, mut asks) = mpsc::channel(ASKS_MAX);
    // Shards are numbered in 16 bits.
    let shards_count = u16::try_from(shards.len()).unwrap_or(u16::MAX);
    let api = Api::new(ask, Arc::clone(&config), shards_count);
    let mut events = Inbox::new(events).map_err(ControlError::Mailbox)?;
    let mut requests = Inbox::new(requests).map_err(ControlError::Mailbox)?;
    let mut signals =
        handle_signals.then(Signals::new).transpose().map_err(ControlError::Signals)?;
    let mut servers = JoinSet::new();
    let connections = Connections::new(http::CONNECTIONS_MAX);
    if let Some(listener) = parts.system {
        let listener = asynchronous(listener)?;
        let (router, connections) = (api.clone().system_router(), Arc::clone(&connections));
        servers.spawn(http::serve(listener, None, router, connections, Manners::PROMPT));
    }
    if let Some(listener) = parts.http {
        let listener = asynchronous(listener)?;
        let router = api.http_router(parts.webrtc);
        servers.spawn(http::serve(listener, parts.tls, router, connections, whip::MANNERS));
    }

    let started = Instant::now();
    let mut state = State::new(started, &config, shards, parts.engine, parts.sessions_max);
    let mut checks = Checks::default();
    let mut goodbyes = Goodbyes::default();
    let mut reports = Reports::new(started, parts.supervisor);
    let mut next_tick = started;
    loop {
        let now = Instant::now();
        if now >= next_tick {
            state.tick(now);
            next_tick = now + TICK;
        }
        checks.start(&mut state, now);
        state.advance(now);
        goodbyes.start(&mut state);
        reports.look(now, &mut state);
        if state.is_stopped() {
            break;
        }
        let deadlines = [state.deadline(now), reports.deadline(), Some(next_tick)];
        let wake_at = deadlines.into_iter().flatten().min().unwrap_or(next_tick);
        tokio::select! {
            batch = events.next_batch() => {
                let now = Instant::now();
                for event in batch.map_err(ControlError::Mailbox)? {
                    state.handle_event(now, event);
                }
            }
            asked = receive(&mut asks) => state.handle_ask(Instant::now(), asked),
            batch = requests.next_batch() => {
                for request in batch.map_err(ControlError::Mailbox)? {
                    take_request(&mut state, &quitting, request);
                }
            }
            () = Signals::next(&mut signals) => take_request(&mut state, &quitting, Request::Quit),
            (check, found) = checks.next() => {
                state.checked(Instant::now(), check.origin, check.kind, found);
            }
            () = goodbyes.one_said() => {}
            () = sleep_until(wake_at.into()) => {}
        }
    }
    stop(state, goodbyes).await;
    Ok(())
}

fn take_request(state: &mut State, quitting: &Sender<()>, request: Request) {
    // Full when it has been said before.
    let _ = quitting.try_send(());
    match request {
        Request::Quit => state.quit(Instant::now()),
        Request::QuitNow => state.quit_now(Instant::now()),
    }
}

/// Waits until every mailbox has taken its last command and every origin its goodbye, but not for a
/// shard that takes none and an origin that does not answer.
async fn stop(mut state: State, mut goodbyes: Goodbyes) {
    let deadline = Instant::now() + STOP_TIMEOUT;
    while (state.has_backlog() || goodbyes.are_under_way()) && Instant::now() < deadline {
        tokio::select! {
            () = goodbyes.one_said() => {}
            () = tokio::time::sleep(STOP_RETRY_INTERVAL) => {}
        }
        state.advance(Instant::now());
        goodbyes.start(&mut state);
    }
    tracing::info!("control stops");
}

/// The next question. Ends never: without listeners nobody asks.
async fn receive(asks: &mut mpsc::Receiver<Ask>) -> Ask {
    match asks.recv().await {
        Some(ask) => ask,
        None => pending().await,
    }
}

fn asynchronous(listener: std::net::TcpListener) -> Result<TcpListener, ControlError> {
    let address =
        listener.local_addr().as_ref().map_or_else(ToString::to_string, SocketAddr::to_string);
    listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener))
        .map_err(|source| ControlError::Listener { address, source })
}

/// A mailbox that a task can wait for.
struct Inbox<T> {
    mailbox: Mailbox<T>,
    /// The mailbox's eventfd once more. To the runtime it is a pipe: a descriptor to be read until
    /// it has nothing. Unlike with the runtime's wrapper for any descriptor, nothing unsafe has to
    /// vouch for its life.
    bell: pipe::Receiver,
    /// The last batch was full, so more may be there without another ring of the bell.
    has_more: bool,
}

impl<T> Inbox<T> {
    fn new(mailbox: Mailbox<T>) -> io::Result<Self> {
        let bell = mailbox.as_fd().try_clone_to_owned()?;
        let bell = pipe::Receiver::from_owned_fd_unchecked(bell)?;
        Ok(Self { mailbox, bell, has_more: false })
    }

    /// Waits for messages. Loses none when it is dropped while it waits.
    async fn next_batch(&mut self) -> io::Result<Vec<T>> {
        if self.has_more {
            // Connections are served in between, however fast messages come.
            tokio::task::yield_now().await;
        } else {
            self.bell.readable().await?;
            // Until it would block: only that makes the runtime wait for the next ring.
            while self.bell.try_read(&mut [0; 8]).is_ok() {}
            self.mailbox.acknowledge();
        }
        let mailbox = &self.mailbox;
        let batch: Vec<T> = std::iter::from_fn(|| mailbox.take()).take(BATCH_MAX).collect();
        self.has_more = batch.len() == BATCH_MAX;
        Ok(batch)
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(signals: &mut Option<Self>) {
        match signals {
            Some(Self { terminate, interrupt }) => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
            None => pending().await,
        }
    }
}

/// Checks of origins that are under way.
#[derive(Default)]
struct Checks(JoinSet<(Check, Found)>);

impl Checks {
    fn start(&mut self, state: &mut State, now: Instant) {
        let room = CHECKS_MAX.saturating_sub(self.0.len());
        if room == 0 {
            return;
        }
        for check in state.take_due_checks(now, room) {
            self.0.spawn(async move { (check, origin_check::run(check).await) });
        }
    }

    async fn next(&mut self) -> (Check, Found) {
        match self.0.join_next().await {
            Some(Ok(answer)) => answer,
            // Nothing is under way; or a task was cancelled, which happens when all of this is
            // dropped.
            Some(Err(_)) | None => pending().await,
        }
    }
}

/// Sessions that are over here and are being ended at their origins, too.
#[derive(Default)]
struct Goodbyes(JoinSet<()>);

impl Goodbyes {
    fn start(&mut self, state: &mut State) {
        while self.0.len() < GOODBYES_AT_ONCE {
            let Some(resource) = state.take_goodbye() else {
                return;
            };
            self.0.spawn(whip::end_at_origin(resource));
        }
    }

    fn are_under_way(&self) -> bool {
        !self.0.is_empty()
    }

    /// Waits for one to be over. Ends never while there is none.
    async fn one_said(&mut self) {
        if self.0.join_next().await.is_none() {
            pending().await
        }
    }
}

/// The ring is for file I/O, which is rare here; sockets are waited for by epoll.
const RING_ENTRIES: u32 = 64;
/// Questions of HTTP tasks that wait to be taken.
const ASKS_MAX: usize = 1_024;
/// Events taken before anybody else has his turn.
const BATCH_MAX: usize = 512;
/// Between two looks at what expires.
const TICK: Duration = Duration::from_secs(1);
/// Checks at a time, a socket each.
const CHECKS_MAX: usize = 64;
/// Sessions ended at their origins at a time, a connection each.
const GOODBYES_AT_ONCE: usize = 32;
/// For full mailboxes and last goodbyes at the very end.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
const STOP_RETRY_INTERVAL: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests;
