//! Many clients at the door: offers posted by a few threads, answers handed to the thread that does
//! the media, and the DELETEs at the end.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::{self, SECOND};
use crate::http::{self, Answer, Request};
use crate::payload;
use crate::sockets::loopback_source;
use crate::webrtc::sdp::{self, Credentials};

/// Whom to ask, and for what.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// The relay's or origin's HTTP.
    pub http: SocketAddr,
    /// Clients.
    pub sessions: usize,
    /// Clients that begin per second.
    pub connect_rate: f64,
    /// Each client asks from the address that its media come from.
    pub has_own_addresses: bool,
    /// For credentials.
    pub seed: u64,
}

impl Invitation {
    /// When a client begins, after the first one. Without a rate all begin at once.
    fn delay_ns(&self, slot: usize) -> u64 {
        if self.connect_rate > 0.0 {
            (slot as f64 * SECOND as f64 / self.connect_rate) as u64
        } else {
            0
        }
    }
}

/// What one client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// `app/stream`
    pub path: String,
    /// Publish rather than play.
    pub publishes: bool,
}

/// What one client was told.
#[derive(Debug)]
pub struct Reply {
    /// Whose.
    pub slot: usize,
    /// When the offer left, in monotonic nanoseconds.
    pub asked_ns: u64,
    /// The session, or the status of a refusal: 0 where there was no usable answer.
    pub result: Result<Admission, u16>,
}

/// A session that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Of the client.
    pub own: Credentials,
    /// Of the origin.
    pub remote: Credentials,
    /// Where the media go.
    pub candidate: SocketAddr,
    /// What to DELETE in the end.
    pub location: Option<String>,
}

/// The threads that ask. Dropping it stops them.
pub struct Signalling {
    replies: Receiver<Reply>,
    is_stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Signalling {
    /// Begins to ask for what `wish` says of each slot.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        invitation: Invitation,
        wish: impl Fn(usize) -> Wish + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        // Room for every reply: no thread ever waits for the one that does the media.
        let (post, replies) = sync_channel(invitation.sessions);
        let mut signalling = Self { replies, is_stopping: Arc::default(), threads: Vec::new() };
        let shared = Arc::new((invitation, wish, AtomicUsize::new(0), clock::now()));
        for _ in 0..THREADS {
            let (shared, post) = (Arc::clone(&shared), post.clone());
            let is_stopping = Arc::clone(&signalling.is_stopping);
            let thread = std::thread::Builder::new().name("signalling".to_owned());
            signalling.threads.push(thread.spawn(move || {
                let (invitation, wish, next, start_ns) = &*shared;
                ask_all(invitation, wish, next, *start_ns, &is_stopping, &post);
            })?);
        }
        Ok(signalling)
    }

    /// A reply that has come.
    #[must_use]
    pub fn reply(&self) -> Option<Reply> {
        self.replies.try_recv().ok()
    }
}

impl Drop for Signalling {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

fn ask_all(
    invitation: &Invitation,
    wish: &impl Fn(usize) -> Wish,
    next: &AtomicUsize,
    start_ns: u64,
    is_stopping: &AtomicBool,
    post: &SyncSender<Reply>,
) {
    while !is_stopping.load(Ordering::Relaxed) {
        let slot = next.fetch_add(1, Ordering::Relaxed);
        if slot >= invitation.sessions {
            return;
        }
        let begin_ns = start_ns.saturating_add(invitation.delay_ns(slot));
        clock::pause(Duration::from_nanos(begin_ns.saturating_sub(clock::now())));
        let asked_ns = clock::now();
        let result = ask(invitation, slot, &wish(slot));
        // Nobody is left to be told when the media's thread has ended.
        if post.send(Reply { slot, asked_ns, result }).is_err() {
            return;
        }
    }
}

fn ask(invitation: &Invitation, slot: usize, wish: &Wish) -> Result<Admission, u16> {
    let own = Credentials::of_client(invitation.seed ^ payload::mix(slot as u64));
    let offer = sdp::offer(&own, payload::identity(&wish.path), wish.publishes);
    let endpoint = if wish.publishes { "whip" } else { "whep" };
    let (app, stream) = wish.path.split_once('/').unwrap_or(("live", &wish.path));
    let target = format!("/rtc/v1/{endpoint}/?app={app}&stream={stream}");
    let request = Request {
        method: "POST",
        target: &target,
        body: Some(("application/sdp", &offer)),
        from: source(invitation, slot),
    };
    let answer = http::exchange(invitation.http, request).map_err(|_| 0_u16)?;
    if answer.status != 201 {
        return Err(answer.status);
    }
    read(own, &answer).ok_or(0)
}

/// What a 201 grants. `None` if a client could do nothing with it.
fn read(own: Credentials, answer: &Answer) -> Option<Admission> {
    Some(Admission {
        own,
        remote: Credentials::read(&answer.body)?,
        candidate: sdp::first_candidate(&answer.body)?,
        location: answer.header("location").map(target_of),
    })
}

/// The path and query of a `Location`, which may be a whole URL.
fn target_of(location: &str) -> String {
    if location.starts_with('/') {
        return location.to_owned();
    }
    let rest = location.split_once("://").map_or(location, |(_, rest)| rest);
    rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/").to_owned()
}

/// Ends sessions by DELETE, a few at a time. Returns how many of them the server has ended.
#[must_use]
pub fn delete_all(invitation: &Invitation, locations: &[(usize, String)]) -> u64 {
    let deadline = clock::now() + DELETE_PATIENCE;
    let (next, deleted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while clock::now() < deadline
                    && let Some((slot, target)) =
                        locations.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let from = source(invitation, *slot);
                    let request = Request { method: "DELETE", target, body: None, from };
                    let answer = http::exchange(invitation.http, request);
                    let is_done = answer.is_ok_and(|answer| answer.status == 200);
                    deleted.fetch_add(usize::from(is_done), Ordering::Relaxed);
                }
            });
        }
    });
    deleted.into_inner() as u64
}

fn source(invitation: &Invitation, slot: usize) -> Option<Ipv4Addr> {
    invitation.has_own_addresses.then(|| loopback_source(slot))
}

const THREADS: usize = 4;
const DELETE_PATIENCE: u64 = 10 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(head: &str, body: &str) -> Option<Admission> {
        let answer = Answer { status: 201, head: head.to_owned(), body: body.to_owned() };
        read(Credentials::of_client(1), &answer)
    }

    #[test]
    fn an_answer_grants_a_path_and_a_session_to_end() {
        let origin = Credentials::of_origin(2);
        let offer = sdp::offer(&Credentials::of_client(1), 7, true);
        let body = sdp::answer(&offer, &origin, "127.0.0.1:8000".parse().unwrap(), false);
        let head = "HTTP/1.1 201 Created\r\nLocation: /rtc/v1/session/x";
        let admission = answered(head, &body).unwrap();
        assert_eq!(admission.remote, origin);
        assert_eq!(admission.candidate, "127.0.0.1:8000".parse().unwrap());
        assert_eq!(admission.location.as_deref(), Some("/rtc/v1/session/x"));
    }

    #[test]
    fn an_answer_without_a_candidate_grants_nothing() {
        assert_eq!(
            answered("HTTP/1.1 201 Created", "v=0\r\na=ice-ufrag:a\r\na=ice-pwd:b\r\n"),
            None
        );
    }

    #[test]
    fn clients_begin_at_the_rate_that_was_asked_for() {
        let invitation = |connect_rate| Invitation {
            http: "127.0.0.1:1".parse().unwrap(),
            sessions: 10,
            connect_rate,
            has_own_addresses: false,
            seed: 1,
        };
        assert_eq!(invitation(500.0).delay_ns(250), SECOND / 2);
        assert_eq!(invitation(0.0).delay_ns(250), 0);
    }

    #[test]
    fn a_location_may_be_a_whole_url() {
        assert_eq!(target_of("/a?b=c://d/e"), "/a?b=c://d/e");
        assert_eq!(target_of("http://h:1/a?b=c"), "/a?b=c");
        assert_eq!(target_of("http://h:1"), "/");
    }
}
